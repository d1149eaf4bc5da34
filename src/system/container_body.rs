//! What the Docker daemon is asked for when a container is made.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use bollard::models::{
    ContainerCreateBody, EndpointIpamConfig, EndpointSettings, HostConfig, HostConfigLogConfig, Mount,
    MountBindOptions, MountBindOptionsPropagationEnum, MountType, NetworkingConfig, PortBinding, RestartPolicy,
    RestartPolicyNameEnum,
};

use super::Probe;
use crate::failure::{Context, Failure};

/// The request itself.
pub use bollard::models::ContainerCreateBody as Request;

/// How long the file system of a mount's source may take to answer (`mount source`): a network share may hang for ever.
const SOURCE: Duration = Duration::from_secs(15);

/// A container to be made. There is no way here to ask for a privileged one or for the host's process or user namespaces.
#[derive(Clone, Debug, Default)]
pub struct Body {
    /// The image's name.
    pub image: String,
    /// Instead of the image's own command.
    pub command: Option<Vec<String>>,
    /// Instead of the image's own entry point.
    pub entrypoint: Option<Vec<String>>,
    /// Environment variables.
    pub env: BTreeMap<String, String>,
    /// Its host name.
    pub hostname: String,
    /// The user of its command.
    pub user: Option<String>,
    /// Where its command starts.
    pub workdir: Option<String>,
    /// Limit of memory, swap included, in bytes.
    pub memory: Option<u64>,
    /// Limit of processor time, in billionths of a processor.
    pub nano_cpus: Option<u64>,
    /// Directories of the host.
    pub binds: Vec<Bind>,
    /// File systems in memory: place and options.
    pub tmpfs: BTreeMap<String, String>,
    /// `none`, `bridge`, `host`.
    pub network: String,
    /// Its address on that network, where the network is one of Docker's with addresses.
    pub address: Option<std::net::Ipv4Addr>,
    /// Published ports.
    pub ports: Vec<Port>,
    /// Name servers.
    pub dns: Vec<IpAddr>,
    /// Domains for short names.
    pub search: Vec<String>,
    /// `name:address` for the hosts file.
    pub extra_hosts: Vec<String>,
    /// Kernel settings.
    pub sysctls: BTreeMap<String, String>,
    /// Capabilities beyond the daemon's own set.
    pub capabilities: Vec<String>,
    /// Restart policy in the daemon's words.
    pub restart: String,
    /// The signal that asks it to stop.
    pub stop_signal: Option<String>,
    /// How long it may take to stop.
    pub stop_timeout: Duration,
    /// Whether an init reaps orphans.
    pub init: bool,
    /// Whether its root is read-only.
    pub read_only: bool,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Size of one log file in bytes.
    pub log_size: u64,
    /// Number of log files.
    pub log_files: i64,
}

/// A directory of the host in a container.
#[derive(Clone, Debug, Default)]
pub struct Bind {
    /// On the host.
    pub from: String,
    /// In the container.
    pub to: String,
    /// Whether the container may only read it.
    pub read_only: bool,
    /// Whether mounts below it show on the other side.
    pub propagation: Propagation,
}

/// Which mounts made later below a bind are seen on the other side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Propagation {
    /// None.
    #[default]
    Private,
    /// Those of the host show in the container.
    Slave,
    /// Those of either side show on the other.
    Shared,
}

/// A port of the host that leads to a container.
#[derive(Clone, Debug)]
pub struct Port {
    /// The address of the host; every one when there is none.
    pub address: Option<IpAddr>,
    /// On the host.
    pub outside: u16,
    /// In the container.
    pub inside: u16,
    /// `tcp` or `udp`.
    pub protocol: String,
}

impl Body {
    /// The request.
    pub fn into_request(self) -> ContainerCreateBody {
        let list = |items: Vec<String>| (!items.is_empty()).then_some(items);
        let table = |map: BTreeMap<String, String>| (!map.is_empty()).then(|| map.into_iter().collect());
        let inside = |port: &Port| format!("{}/{}", port.inside, port.protocol);
        let exposed = list(self.ports.iter().map(inside).collect());
        let mut bindings: HashMap<String, Option<Vec<PortBinding>>> = HashMap::new();
        for port in &self.ports {
            let binding = PortBinding {
                host_ip: port.address.map(|address| address.to_string()),
                host_port: Some(port.outside.to_string()),
            };
            bindings.entry(inside(port)).or_default().get_or_insert_default().push(binding);
        }
        let signed = |amount: u64| i64::try_from(amount).unwrap_or(i64::MAX);
        let host = HostConfig {
            memory: self.memory.map(signed),
            // The same number: no swap on top.
            memory_swap: self.memory.map(signed),
            nano_cpus: self.nano_cpus.map(signed),
            mounts: Some(self.binds.into_iter().map(mount).collect()),
            tmpfs: table(self.tmpfs),
            network_mode: Some(self.network),
            port_bindings: (!bindings.is_empty()).then_some(bindings),
            dns: list(self.dns.iter().map(ToString::to_string).collect()),
            dns_search: list(self.search),
            extra_hosts: list(self.extra_hosts),
            sysctls: table(self.sysctls),
            cap_add: list(self.capabilities),
            restart_policy: Some(RestartPolicy {
                name: self.restart.parse::<RestartPolicyNameEnum>().ok(),
                maximum_retry_count: None,
            }),
            init: Some(self.init),
            readonly_rootfs: Some(self.read_only),
            privileged: Some(false),
            log_config: Some(HostConfigLogConfig {
                typ: Some("json-file".to_owned()),
                config: Some(HashMap::from([
                    ("max-size".to_owned(), self.log_size.to_string()),
                    ("max-file".to_owned(), self.log_files.to_string()),
                ])),
            }),
            ..Default::default()
        };
        let endpoint = self.address.zip(host.network_mode.clone()).map(|(address, network)| {
            let config = EndpointIpamConfig { ipv4_address: Some(address.to_string()), ..Default::default() };
            let settings = EndpointSettings { ipam_config: Some(config), ..Default::default() };
            NetworkingConfig { endpoints_config: Some(HashMap::from([(network, settings)])) }
        });
        ContainerCreateBody {
            networking_config: endpoint,
            image: Some(self.image),
            hostname: (host.network_mode.as_deref() != Some("host")).then_some(self.hostname),
            user: self.user,
            working_dir: self.workdir,
            env: list(self.env.into_iter().map(|(name, value)| format!("{name}={value}")).collect()),
            cmd: self.command,
            entrypoint: self.entrypoint,
            exposed_ports: exposed,
            labels: table(self.labels),
            stop_signal: self.stop_signal,
            stop_timeout: i64::try_from(self.stop_timeout.as_secs()).ok(),
            host_config: Some(host),
            ..Default::default()
        }
    }
}

pub(super) fn mount(bind: Bind) -> Mount {
    let propagation = match bind.propagation {
        Propagation::Private => MountBindOptionsPropagationEnum::RPRIVATE,
        Propagation::Slave => MountBindOptionsPropagationEnum::RSLAVE,
        Propagation::Shared => MountBindOptionsPropagationEnum::RSHARED,
    };
    Mount {
        source: Some(bind.from),
        target: Some(bind.to),
        typ: Some(MountType::BIND),
        read_only: Some(bind.read_only),
        bind_options: Some(MountBindOptions { propagation: Some(propagation), ..Default::default() }),
        ..Default::default()
    }
}

impl Probe {
    /// The real place of a directory that is to be mounted into a container, without symbolic links.
    ///
    /// # Errors
    /// When it does not exist, is no directory, is the host's root under another name, or does not answer in time.
    pub async fn bind_source(&self, path: &str) -> Result<String, Failure> {
        let (probe, owned) = (self.clone(), path.to_owned());
        let look = tokio::task::spawn_blocking(move || look_at_source(&probe, &owned));
        match tokio::time::timeout(SOURCE, look).await {
            Ok(done) => done.context("cannot look at the source of a mount")?,
            Err(_) => Err(Failure::timeout("mount source", SOURCE).within(format!("cannot look at {path}"))),
        }
    }
}

impl Probe {
    /// The real places of directories that a container has mounted, without symbolic links; `None` for one that is not there.
    ///
    /// # Errors
    /// One of them does not answer in time.
    pub async fn real_places(&self, paths: Vec<String>) -> Result<Vec<Option<String>>, Failure> {
        let named = paths.join(", ");
        let real = |path: String| std::fs::canonicalize(path).ok()?.into_os_string().into_string().ok();
        let look = tokio::task::spawn_blocking(move || paths.into_iter().map(real).collect());
        match tokio::time::timeout(SOURCE, look).await {
            Ok(done) => done.context("cannot look at the sources of mounts"),
            Err(_) => Err(Failure::timeout("mount source", SOURCE).within(format!("cannot look at {named}"))),
        }
    }
}

fn look_at_source(probe: &Probe, path: &str) -> Result<String, Failure> {
    use std::os::unix::fs::MetadataExt;

    let what = || format!("cannot mount {path}");
    let hint = "declare it with a `directory` task before the container";
    // A link that others could have made would give them any directory of the host.
    let real = probe.canonical(path).map_err(|failure| failure.within(what()))?;
    let real = real.ok_or_else(|| Failure::new(what()).because("there is no such directory").hint(hint))?;
    let seen = std::fs::symlink_metadata(&real).with_context(what)?;
    if !seen.is_dir() {
        // A file that is replaced by rename would stay the old one inside the container.
        return Err(Failure::new(format!("cannot mount {path}: it is not a directory"))
            .hint("mount the directory that holds it"));
    }
    let root = std::fs::metadata(Path::new("/")).context("cannot look at /")?;
    if (root.dev(), root.ino()) == (seen.dev(), seen.ino()) {
        return Err(Failure::new(format!("cannot mount {path}: it is the host's root")));
    }
    real.into_os_string()
        .into_string()
        .map_err(|_| Failure::new(format!("cannot mount {path}: its real place is not UTF-8")))
}
