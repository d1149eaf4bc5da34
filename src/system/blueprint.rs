//! A container for trying things out: made like another one, with a network of its own that leads nowhere, and gone afterwards.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::time::Duration;

use bollard::models::{
    ContainerCreateBody, HealthConfig, HostConfig, HostConfigLogConfig, ResourcesUlimits, RestartPolicy,
    RestartPolicyNameEnum,
};
use bollard::query_parameters::{InspectContainerOptions, ListContainersOptions, LogsOptions, WaitContainerOptions};
use futures_util::StreamExt;
use serde::{Deserialize, Serialize};

use super::Probe;
use super::container_body::{Bind, mount};
use super::docker::{ANSWER, Docker, Image, ask, failure, limited};
use super::fs::{Attrs, EntryKind};
use crate::failure::{Context, Failure};

/// The most bytes of a container's log that are kept, and the most lines.
const MOST_SAID: usize = 4096;
const MOST_LINES: usize = 20;

/// How long the file system of a mount may take to list its directories (`mount source`).
const SOURCE: Duration = Duration::from_secs(15);
/// How many directories of one mount are made again, and how deep.
const MOST_DIRECTORIES: usize = 1000;
const DEEPEST: usize = 8;

/// The largest file that a container on trial may write, in bytes, where it has no limit of its own.
const MOST_WRITTEN: i64 = 256 << 20;

/// What a container was made with, as far as a trial of its program needs it.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Blueprint {
    /// The ID of its image.
    pub image: String,
    /// Entry point and command.
    pub command: Vec<String>,
    /// `NAME=value`.
    pub env: Vec<String>,
    /// Its host name.
    pub hostname: Option<String>,
    /// The user of its command; empty for the image's.
    pub user: String,
    /// Where its command starts; empty for the image's.
    pub workdir: String,
    /// Limit of memory in bytes; 0 is none.
    pub memory: i64,
    /// Limit of processor time in billionths of a processor; 0 is none.
    pub nano_cpus: i64,
    /// Limit of processes.
    pub pids_limit: Option<i64>,
    /// Size of `/dev/shm` in bytes.
    pub shm_size: Option<i64>,
    /// Capabilities beyond the daemon's own set, and those taken away.
    pub cap_add: Vec<String>,
    /// See `cap_add`.
    pub cap_drop: Vec<String>,
    /// Labels of the security modules, `no-new-privileges`, seccomp's profile.
    pub security_opt: Vec<String>,
    /// More groups.
    pub group_add: Vec<String>,
    /// `name:address` for the hosts file.
    pub extra_hosts: Vec<String>,
    /// Kernel settings of its own.
    pub sysctls: BTreeMap<String, String>,
    /// Limits of its processes.
    pub ulimits: Vec<ResourcesUlimits>,
    /// Whether an init reaps orphans.
    pub init: bool,
    /// Whether its root is read-only.
    pub read_only: bool,
    /// File systems in memory: place and options.
    pub tmpfs: BTreeMap<String, String>,
    /// Directories and files of the host.
    pub mounts: Vec<Mounted>,
}

/// Something of the host that shows in a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Mounted {
    /// On the host.
    pub from: String,
    /// In the container.
    pub to: String,
    /// Whether the container may only read it.
    pub read_only: bool,
}

impl Blueprint {
    /// What an image alone says; `command`, `user` and so on are the image's own.
    pub fn of_image(image: &Image) -> Self {
        let command = image.entrypoint.iter().chain(&image.command).cloned().collect();
        Self { image: image.id.clone(), command, ..Self::default() }
    }

    /// The request for a container on trial, which runs `argv` and nothing else.
    ///
    /// It may listen on every address, its own or not (`ip_nonlocal_bind`): there is no moment between the birth of its network and
    /// the start of its program in which it could be given addresses, and whoever tries it can see what it listens on.
    pub fn on_trial(
        &self,
        argv: &[String],
        binds: Vec<Bind>,
        labels: HashMap<String, String>,
        six: bool,
    ) -> ContainerCreateBody {
        let list = |items: &[String]| (!items.is_empty()).then(|| items.to_vec());
        let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let some = |amount: i64| (amount > 0).then_some(amount);
        let mut sysctls: HashMap<String, String> = self.sysctls.clone().into_iter().collect();
        sysctls.insert("net.ipv4.ip_nonlocal_bind".to_owned(), "1".to_owned());
        if six {
            sysctls.insert("net.ipv6.ip_nonlocal_bind".to_owned(), "1".to_owned());
        }
        let mut ulimits = self.ulimits.clone();
        if !ulimits.iter().any(|limit| limit.name.as_deref() == Some("fsize")) {
            let size = Some(MOST_WRITTEN);
            ulimits.push(ResourcesUlimits { name: Some("fsize".to_owned()), soft: size, hard: size });
        }
        let host = HostConfig {
            memory: some(self.memory),
            memory_swap: some(self.memory),
            nano_cpus: some(self.nano_cpus),
            pids_limit: self.pids_limit,
            shm_size: self.shm_size,
            mounts: Some(binds.into_iter().map(mount).collect()),
            tmpfs: (!self.tmpfs.is_empty()).then(|| self.tmpfs.clone().into_iter().collect()),
            network_mode: Some("none".to_owned()),
            extra_hosts: list(&self.extra_hosts),
            sysctls: Some(sysctls),
            cap_add: list(&self.cap_add),
            cap_drop: list(&self.cap_drop),
            security_opt: list(&self.security_opt),
            group_add: list(&self.group_add),
            ulimits: Some(ulimits),
            init: Some(self.init),
            readonly_rootfs: Some(self.read_only),
            privileged: Some(false),
            restart_policy: Some(RestartPolicy { name: Some(RestartPolicyNameEnum::NO), maximum_retry_count: None }),
            log_config: Some(HostConfigLogConfig {
                typ: Some("json-file".to_owned()),
                config: Some(HashMap::from([
                    ("max-size".to_owned(), "1m".to_owned()),
                    ("max-file".to_owned(), "1".to_owned()),
                ])),
            }),
            ..Default::default()
        };
        ContainerCreateBody {
            image: Some(self.image.clone()),
            hostname: self.hostname.clone(),
            user: text(&self.user),
            working_dir: text(&self.workdir),
            env: list(&self.env),
            // An entry point alone leaves out the image's command.
            entrypoint: Some(argv.to_vec()),
            healthcheck: Some(HealthConfig { test: Some(vec!["NONE".to_owned()]), ..Default::default() }),
            labels: Some(labels),
            host_config: Some(host),
            ..Default::default()
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Raw {
    image: String,
    config: RawConfig,
    host_config: RawHost,
    #[serde(default)]
    mounts: Option<Vec<RawMount>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct RawConfig {
    hostname: String,
    user: String,
    env: Option<Vec<String>>,
    working_dir: String,
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct RawHost {
    network_mode: String,
    memory: i64,
    nano_cpus: i64,
    pids_limit: Option<i64>,
    shm_size: Option<i64>,
    cap_add: Option<Vec<String>>,
    cap_drop: Option<Vec<String>>,
    security_opt: Option<Vec<String>>,
    group_add: Option<Vec<String>>,
    extra_hosts: Option<Vec<String>>,
    sysctls: Option<BTreeMap<String, String>>,
    ulimits: Option<Vec<ResourcesUlimits>>,
    init: Option<bool>,
    readonly_rootfs: bool,
    tmpfs: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawMount {
    #[serde(rename = "Type")]
    kind: String,
    #[serde(rename = "Source")]
    source: String,
    #[serde(rename = "Destination")]
    destination: String,
    #[serde(rename = "RW")]
    writable: bool,
}

impl From<Raw> for Blueprint {
    fn from(raw: Raw) -> Self {
        let (config, host) = (raw.config, raw.host_config);
        let mut tmpfs = host.tmpfs.unwrap_or_default();
        let mut mounts = Vec::new();
        for mount in raw.mounts.unwrap_or_default() {
            if mount.kind == "tmpfs" {
                tmpfs.entry(mount.destination).or_default();
            } else {
                mounts.push(Mounted { from: mount.source, to: mount.destination, read_only: !mount.writable });
            }
        }
        // The daemon lists them in any order.
        mounts.sort_by(|left, right| left.to.cmp(&right.to));
        Self {
            image: raw.image,
            command: config.entrypoint.into_iter().chain(config.cmd).flatten().collect(),
            env: config.env.unwrap_or_default(),
            // On the host's network the host's own name is shown there.
            hostname: Some(config.hostname).filter(|name| !name.is_empty() && host.network_mode != "host"),
            user: config.user,
            workdir: config.working_dir,
            memory: host.memory,
            nano_cpus: host.nano_cpus,
            pids_limit: host.pids_limit.filter(|limit| *limit > 0),
            shm_size: host.shm_size.filter(|size| *size > 0),
            cap_add: host.cap_add.unwrap_or_default(),
            cap_drop: host.cap_drop.unwrap_or_default(),
            security_opt: host.security_opt.unwrap_or_default(),
            group_add: host.group_add.unwrap_or_default(),
            extra_hosts: host.extra_hosts.unwrap_or_default(),
            sysctls: host.sysctls.unwrap_or_default(),
            ulimits: host.ulimits.unwrap_or_default(),
            init: host.init.unwrap_or(false),
            read_only: host.readonly_rootfs,
            tmpfs,
            mounts,
        }
    }
}

impl Docker {
    /// What a container was made with; `None` when there is none of that name.
    ///
    /// # Errors
    /// The daemon does not answer in time, or says something else than expected.
    pub async fn blueprint(&self, name: &str) -> Result<Option<Blueprint>, Failure> {
        let what = format!("cannot inspect container {name}");
        let raw: Option<Raw> = ask(&what, self.client.inspect_container(name, None::<InspectContainerOptions>)).await?;
        Ok(raw.map(Blueprint::from))
    }

    /// The names of the containers with that label and value, running or not.
    ///
    /// # Errors
    /// As [`Docker::blueprint`].
    pub async fn labelled(&self, label: &str, value: &str) -> Result<Vec<String>, Failure> {
        let filters = HashMap::from([("label".to_owned(), vec![format!("{label}={value}")])]);
        self.listed(ListContainersOptions { all: true, filters: Some(filters), ..Default::default() }).await
    }

    /// Waits until a container's program has ended; `false` when it still runs after `within`.
    ///
    /// # Errors
    /// The daemon cannot say.
    pub async fn ended(&self, name: &str, within: Duration) -> Result<bool, Failure> {
        use bollard::errors::Error;

        let options = WaitContainerOptions { condition: "not-running".to_owned() };
        let mut stream = std::pin::pin!(self.client.wait_container(name, Some(options)));
        match tokio::time::timeout(within, stream.next()).await {
            Err(_) => Ok(false),
            Ok(None | Some(Ok(_) | Err(Error::DockerContainerWaitError { .. }))) => Ok(true),
            Ok(Some(Err(error))) => Err(failure(&format!("cannot wait for container {name}"), &error)),
        }
    }

    /// The last lines that a container's program said, bounded in lines and bytes; control signs are taken out.
    ///
    /// # Errors
    /// The daemon does not give them.
    pub async fn last_said(&self, name: &str) -> Result<String, Failure> {
        let options =
            LogsOptions { stdout: true, stderr: true, tail: MOST_LINES.to_string(), ..LogsOptions::default() };
        let what = format!("cannot read what container {name} said");
        let mut stream = std::pin::pin!(self.client.logs(name, Some(options)));
        let text = limited(("docker answer", ANSWER), &what, async {
            let mut bytes = Vec::new();
            while let Some(piece) = stream.next().await {
                bytes.extend_from_slice(piece?.as_ref());
                if bytes.len() > 4 * MOST_SAID {
                    bytes.drain(..bytes.len() - MOST_SAID);
                }
            }
            Ok(bytes)
        });
        Ok(last_lines(&text.await?))
    }
}

/// The last lines of some output, fit to be shown.
pub fn last_lines(bytes: &[u8]) -> String {
    let kept = bytes.get(bytes.len().saturating_sub(MOST_SAID)..).unwrap_or_default();
    let text = String::from_utf8_lossy(kept);
    let lines: Vec<String> = text
        .lines()
        .map(|line| line.chars().filter(|c| !c.is_control() || *c == '\t').collect::<String>())
        .map(|line| line.trim_end().to_owned())
        .filter(|line| !line.is_empty())
        .collect();
    lines.get(lines.len().saturating_sub(MOST_LINES)..).unwrap_or_default().join("\n")
}

impl Probe {
    /// Whether the kernel knows the switch that lets a network listen on any IPv6 address.
    pub fn knows_ipv6(&self) -> bool {
        std::fs::metadata("/proc/sys/net/ipv6/ip_nonlocal_bind").is_ok()
    }

    /// Whether a network may listen on addresses that it does not have (`ip_nonlocal_bind`): that of a running process.
    pub fn listens_anywhere(&self, docker_sysctls: &BTreeMap<String, String>, host_network: bool) -> bool {
        let own = |family: &str| docker_sysctls.get(&format!("net.{family}.ip_nonlocal_bind")).map(String::as_str);
        let host = || std::fs::read_to_string("/proc/sys/net/ipv4/ip_nonlocal_bind").unwrap_or_default();
        own("ipv4") == Some("1") || own("ipv6") == Some("1") || (host_network && host().trim() == "1")
    }

    /// The directories at and below a path, without following a link, each with owner and mode: the path itself first, as an
    /// empty name. `None` when the path is no directory. At most a thousand, and eight levels.
    ///
    /// # Errors
    /// They cannot be listed, or not in time (limit `mount source`).
    pub async fn directories(&self, path: &str) -> Result<Option<Vec<(PathBuf, Attrs)>>, Failure> {
        let (probe, root) = (self.clone(), PathBuf::from(path));
        let look = tokio::task::spawn_blocking(move || directories(&probe, &root));
        match tokio::time::timeout(SOURCE, look).await {
            Ok(done) => done.context("cannot look at the source of a mount")?,
            Err(_) => Err(Failure::timeout("mount source", SOURCE).within(format!("cannot list {path}"))),
        }
    }
}

fn directories(probe: &Probe, root: &std::path::Path) -> Result<Option<Vec<(PathBuf, Attrs)>>, Failure> {
    let mut found = Vec::new();
    let mut waiting = std::collections::VecDeque::from([(PathBuf::new(), 0)]);
    while let Some((name, depth)) = waiting.pop_front() {
        let path = if depth == 0 { root.to_owned() } else { root.join(&name) };
        let Some(entry) = probe.stat(&path)? else { continue };
        if entry.kind != EntryKind::Directory {
            continue;
        }
        found.push((name.clone(), Attrs { mode: Some(entry.mode), uid: Some(entry.uid), gid: Some(entry.gid) }));
        if found.len() >= MOST_DIRECTORIES {
            break;
        }
        if depth < DEEPEST {
            let inside = probe.list(&path)?.unwrap_or_default();
            waiting.extend(inside.into_iter().map(|below| (name.join(below), depth + 1)));
        }
    }
    Ok((!found.is_empty()).then_some(found))
}

#[cfg(test)]
mod tests {
    use super::last_lines;

    #[test]
    fn what_a_program_said_is_bounded_and_plain() {
        assert_eq!(last_lines(b"one\r\n\n\x1b[31mtwo\n"), "one\n[31mtwo");
        let many: Vec<String> = (0..1000).map(|number| format!("line {number}")).collect();
        let last = last_lines(many.join("\n").as_bytes());
        assert_eq!((last.lines().count(), last.lines().last()), (20, Some("line 999")));
        assert!(last_lines("x".repeat(100_000).as_bytes()).len() <= 4096);
        assert_eq!(last_lines(b""), "");
    }
}
