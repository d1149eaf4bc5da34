//! `container`: a container that is made anew only when what was declared for it changed.

mod aside;
mod gate;
mod lan;
mod mounts;
mod place;
mod spec;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use self::place::Place;
use self::spec::{Cpus, HOST_CAPABILITIES, SPEC_FIELDS};
use super::action::check_program;
use super::param::Size;
use super::{ArgError, Observed, Param, Resource};
use crate::change::{Change, Datum, Fields, State, Verb};
use crate::failure::Failure;
use crate::system::docker::{Container as Found, Docker, DockerHands, SPEC_LABEL, container_name, image_name};
use crate::system::{Actuator, Probe};
use crate::value::{Arrow, Map, Value, show_size};

pub(super) use self::aside::{aside, restart_before};
pub(super) use self::gate::behind as behind_gate;
pub(super) use self::place::{Place as ContainerPlace, is_among, remove_unfinished, source as mount_source, stays_up};
pub use self::spec::writable_sources;
pub(super) use self::spec::{bind, from_json, refused_source, scalar, texts, to_json};

/// The field with limits that are not declared.
const LIMITS: &str = "limits";

crate::choice! {
    /// What a container is connected to when it starts.
    pub enum NetworkMode {
        /// To nothing; `attach` plugs interfaces in.
        None = "none",
        /// To Docker's own bridge, behind NAT.
        Bridge = "bridge",
        /// It shares the host's network.
        Host = "host",
        /// To a network of Docker's own macvlan driver, which `lan` describes.
        Macvlan = "macvlan",
    }
}

crate::choice! {
    /// When the daemon starts a container again by itself.
    pub enum Restart {
        /// Never.
        No = "no",
        /// Always, even when it was stopped by hand before the daemon started.
        Always = "always",
        /// Always, unless it was stopped by hand.
        UnlessStopped = "unless_stopped",
        /// When its process failed.
        OnFailure = "on_failure",
    }
}

crate::choice! {
    /// Whether a container should run.
    pub enum RunState {
        /// It runs.
        Running = "running",
        /// It exists, but does not run.
        Stopped = "stopped",
        /// It does not exist.
        Absent = "absent",
    }
}

crate::follow_up! {
    /// The step that waits for the container's service.
    pub struct Healthy ["http", "command"]
}
crate::kind! {
    /// Keeps a container as declared.
    ///
    /// What was declared is stored on the container. It is made anew only when that differs, when the image's name now
    /// stands for another image, or when its limits or networks were changed by hand (`docker update`, `docker network`); the
    /// change names what differs. The new container is made beside the old one first, so
    /// a declaration that Docker refuses leaves the old one running. The old one is then stopped and kept as `NAME.fanli-old` until the
    /// new one has been running for a second, its `attach` blocks are done and its `healthy` holds. When one of these fails, the old one
    /// is put back with what was attached to it, and the failure tells the new one's exit code and last lines. A run that is killed in
    /// between is gone on with by the next; `restart = always` is taken off the old one meanwhile, as Docker would start both.
    ///
    /// With `state = stopped` or `absent` what stands inside is left out: nothing is plugged in, and nothing has to answer. With `absent`
    /// the attachments go, too.
    ///
    /// A container is also made anew when it does not see a directory that is declared for it: a link in its path was turned, the directory
    /// was made anew, or a share was mounted after the container was started.
    ///
    /// The example presumes an image `fanli/example:1`, for instance from an `image` task before it.
    pub struct Container = "container" {
        /// Its name.
        name: String,
        /// The image that it is made from: `repo:tag`, present on the host. Not needed where the container is to be absent.
        image: Option<String>,
        /// What runs in it, instead of the image's own command.
        command: Option<Vec<String>>,
        /// What runs the command, instead of the image's own entry point.
        entrypoint: Option<Vec<String>>,
        /// Environment variables.
        env: Map = Map::new(),
        /// Its host name; the container's name by default.
        hostname: Option<String>,
        /// The user that its command runs as: `name`, `uid` or `uid:gid`.
        user: Option<String>,
        /// Where its command starts.
        workdir: Option<String>,
        /// How much memory it may use, swap included.
        memory: Option<Size>,
        /// How many processors it may use: `2`, `"1.5"`, `50%`.
        cpus: Option<Cpus>,
        /// Directories of the host: `"/on/host" -> "/inside" read_only`. They must exist. Flags: `read_only`, and `slave` or
        /// `shared` to see mounts that are made below later. In one that is not `read_only` fanli follows no link.
        mounts: Vec<Arrow> = Vec::new(),
        /// File systems in memory: `"/tmp"` or `"/run:size=64m,mode=0755"`.
        tmpfs: Vec<String> = Vec::new(),
        /// What it is connected to when it starts. `none` fits `attach`.
        network: NetworkMode = NetworkMode::None,
        /// With `network = macvlan`: `{ name  parent  subnet  gateway  address }`; a network with `mode = docker` fills it in.
        lan: Map = Map::new(),
        /// Ports of the host that lead to it: `"8080:80"`, `"10.0.0.1:53:53/udp"`. Only with `network = bridge`.
        ports: Vec<String> = Vec::new(),
        /// With `network = host`: the ports that it listens on. None of them may be taken when it is made; a network's `attach`
        /// fills them in.
        listens: Vec<i64> = Vec::new(),
        /// Its name servers. Docker writes them into the container when it is made: others make it anew.
        dns: Vec<IpAddr> = Vec::new(),
        /// Domains that short names are looked up in; as `dns`.
        search: Vec<String> = Vec::new(),
        /// More lines for its hosts file: `"db:10.0.0.5"`.
        extra_hosts: Vec<String> = Vec::new(),
        /// Kernel settings of its own: `"net.core.somaxconn=1024"`.
        sysctls: Vec<String> = Vec::new(),
        /// Capabilities beyond Docker's own set, such as `NET_ADMIN`. Those that hand over the host are refused.
        capabilities: Vec<String> = Vec::new(),
        /// When the daemon starts it again.
        restart: Restart = Restart::UnlessStopped,
        /// The signal that asks it to stop.
        stop_signal: Option<String>,
        /// How long it may take to stop before it is killed.
        stop_timeout: Duration = Duration::from_secs(10),
        /// Whether a small init reaps its orphans.
        init: bool = false,
        /// Whether its own file system is read-only.
        read_only: bool = false,
        /// Labels.
        labels: Map = Map::new(),
        /// How large one file of its log may grow.
        log_size: Size = Size(10_000_000),
        /// How many files of its log are kept.
        log_files: i64 = 3,
        /// Whether its program starts only once an interface has been plugged in: fanli stands before it, waits for the interface
        /// and its address at most a minute, and then becomes the program, with its process number, its user and its
        /// signals. Needs `network = none`; fanli itself is mounted at `/.fanli`, read-only.
        gate: bool = false,
        /// Whether fanli itself is mounted at `/.fanli`, read-only: for `fanli refresh` (docs/refresh.md) under the container's own
        /// supervisor.
        tools: bool = false,
        /// Whether it should run.
        state: RunState = RunState::Running,
        /// Takes over a container of that name that fanli did not make: it is made anew.
        adopt: bool = false,
        /// Waits until its service answers: `http("http://10.0.0.5/ping", within: 30s)`, or
        /// `command(["docker", "exec", "db", "pg_isready"], within: 1m)`.
        healthy: Option<Healthy>,
    }
    results {
        "id": "the container's full ID",
        "image_id": "the ID of the image that it was made from",
        "pid": "the process ID of its first process, or null",
        "status": "`running`, `exited`, `paused`, `restarting`, `created` or `dead`",
        "exit_code": "the exit code of its last process",
    }
    children ["attach"]
    example r#"# presumes an image fanli/example:1
container "fanli-example" {
  image        = "fanli/example:1"
  command      = ["sleep", "600"]
  memory       = 64MiB
  env          = { STAGE = "test" }
  tmpfs        = ["/tmp"]
  stop_timeout = 1s
}"#
}
impl Container {
    /// On the host's network nobody but the process itself would say that its port is another's.
    fn refuse_taken_ports(&self, old: Option<&Found>, probe: &Probe) -> Result<(), Failure> {
        for port in self.listens.iter().filter_map(|port| u16::try_from(*port).ok()) {
            let Some(listener) = probe.listener(port)? else { continue };
            let own = |pid: u32| old.and_then(|old| old.pid).is_some_and(|old| probe.share_files(old, pid));
            // A port that it published until now is given back with the old container; `docker-proxy` held it (moby, portmapper).
            let published = || old.is_some_and(|old| old.published.iter().any(|(outside, _)| *outside == port));
            if listener.pid.is_some_and(own) || listener.name == "docker-proxy" && published() {
                continue;
            }
            let process = listener.pid.map_or_else(String::new, |pid| format!(", process {pid}"));
            return Err(Failure::new(format!(
                "container {} cannot listen on port {port} of the host: it is taken by {}{process}",
                self.name, listener.name
            ))
            .hint("stop that, or give the container another port"));
        }
        Ok(())
    }

    /// The image's name; empty where the container is to be absent and none is given.
    fn image(&self) -> &str {
        self.image.as_deref().unwrap_or_default()
    }

    /// Whether no network of Docker's macvlan driver comes or goes with it, which others may be on.
    pub fn shares_no_network(&self) -> bool {
        self.lan_in_use().is_empty()
    }

    fn place(&self) -> Place<'_> {
        Place { name: &self.name, run: self.state == RunState::Running, grace: self.stop_timeout }
    }

    /// The network of Docker's macvlan driver that it is to be on.
    fn lan_in_use(&self) -> Vec<String> {
        let lan = self.docker_lan().ok().flatten().filter(|_| self.state != RunState::Absent);
        lan.into_iter().map(|lan| lan.name).collect()
    }

    /// What stands in its place, or was moved aside by a run that was killed.
    async fn found(&self, docker: &Docker, probe: &Probe) -> Result<Option<Found>, Failure> {
        match docker.container(&self.name).await? {
            Some(found) => Ok(Some(found)),
            None => aside::aside(&self.name, docker, probe).await,
        }
    }

    /// Whether another container than the declared one and its predecessor stands in its place: nothing was done to it.
    async fn is_another(&self, docker: &Docker, probe: &Probe) -> bool {
        let Ok(Some(found)) = docker.container(&self.name).await else { return false };
        let noted = aside::Note::read(&self.name, probe).ok().flatten().is_some_and(|note| note.id == found.id);
        found.labels.get(SPEC_LABEL) != self.label().as_ref() && !noted
    }

    /// What is declared, as it stands on the container.
    fn label(&self) -> Option<String> {
        self.body().ok().and_then(|body| body.labels.get(SPEC_LABEL).cloned())
    }

    /// Makes the new container beside the old one, then lets it take its place.
    async fn replace(&self, old: Option<&Found>, docker: &DockerHands, hands: &Actuator) -> Result<(), Failure> {
        let mut body = self.body()?;
        let Some(image) = docker.image(self.image()).await? else {
            return Err(Failure::new(format!("there is no image {} on this host", self.image()))
                .hint("make it with an `image` task before this one"));
        };
        for bind in &mut body.binds {
            bind.from = place::source(&bind.from, hands).await?;
        }
        self.refuse_taken_ports(old, hands)?;
        if self.gate {
            gate::stand_before(&mut body, image)?;
        }
        if self.gate || self.tools {
            gate::bring_along(&mut body);
        }
        if let Some(lan) = self.docker_lan().map_err(|error| Failure::new(error.message))? {
            docker.ensure_lan(&lan).await?;
        }
        self.place().take(old, body.into_request(), docker, hands).await
    }

    /// Removes what a killed run has made and not put into its place.
    async fn clear(&self, docker: &DockerHands) -> Result<(), Failure> {
        match place::unfinished(&self.name, docker).await? {
            Some(left) => self.place().remove(&left, &self.lan_in_use(), docker).await,
            None => Ok(()),
        }
    }
}

/// Only these can be mended without making the container anew.
fn needs_replacing(change: &Change) -> bool {
    let in_place = ["state", "leftover", gate::FIELD];
    change.fields.iter().any(|field| !in_place.contains(&field.field.as_str()))
}

impl Resource for Container {
    fn check(&self) -> Result<(), ArgError> {
        container_name(&self.name).map_err(|message| ArgError::new("name", message))?;
        if let Some(end) = place::leftovers("").into_iter().find(|end| self.name.ends_with(end.as_str())) {
            return Err(ArgError::new("name", format!("ends with `{end}`, as a container does while it is made anew")));
        }
        match &self.image {
            Some(image) => image_name(image).map(drop).map_err(|message| ArgError::new("image", message))?,
            None if self.state == RunState::Absent => {}
            None => return Err(ArgError::new("image", "is required")),
        }
        for (field, program) in [("command", &self.command), ("entrypoint", &self.entrypoint)] {
            check_program(field, program.as_deref().unwrap_or_default())?;
        }
        if let Some(hostname) = &self.hostname {
            container_name(hostname)
                .map_err(|_| ArgError::new("hostname", format!("`{hostname}` is not a host name")))?;
        }
        if self.memory.is_some_and(|size| size.0 < 6 << 20) {
            return Err(ArgError::new("memory", "is less than the 6MiB that Docker asks for"));
        }
        if !self.ports.is_empty() && self.network != NetworkMode::Bridge {
            return Err(ArgError::new(
                "ports",
                "need `network = bridge`; with any other network there is nothing to map",
            ));
        }
        if let Some(port) = self.listens.iter().find(|port| !(1..=65_535).contains(*port)) {
            return Err(ArgError::new("listens", format!("`{port}` is not a port; they are 1 to 65535")));
        }
        if !self.listens.is_empty() && self.network != NetworkMode::Host {
            return Err(ArgError::new("listens", "needs `network = host`"));
        }
        for capability in &self.capabilities {
            let name = capability.strip_prefix("CAP_").unwrap_or(capability);
            if !name.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_') {
                return Err(ArgError::new("capabilities", format!("`{capability}` is not written as in `NET_ADMIN`")));
            }
            if HOST_CAPABILITIES.contains(&name) {
                return Err(ArgError::new("capabilities", format!("`{capability}` hands the host to the container")));
            }
        }
        if let Some(label) = self.labels.keys().find(|label| label.starts_with("fanli.")) {
            return Err(ArgError::new("labels", format!("`{label}`: names that begin with `fanli.` are fanli's own")));
        }
        self.docker_lan()?;
        let mut places = BTreeSet::new();
        if let Some(twice) = self.mounts.iter().find(|arrow| !places.insert(&arrow.to)) {
            return Err(ArgError::new("mounts", format!("`{}` is mounted twice", twice.to)));
        }
        if self.gate && self.network != NetworkMode::None {
            return Err(ArgError::new("gate", "needs `network = none`: any other network is there from the start"));
        }
        if self.log_size.0 < 1000 || !(1..=100).contains(&self.log_files) {
            return Err(ArgError::new("log_files", "expected 1 to 100 files of 1KB or more"));
        }
        if self.stop_timeout > Duration::from_secs(3600) {
            return Err(ArgError::new("stop_timeout", "is longer than an hour"));
        }
        self.body().map(|_| ())
    }

    fn desired(&self) -> State {
        if self.state == RunState::Absent {
            return State::Absent;
        }
        // What is not declared must not be there either: a field that was taken out of the playbook is a change.
        let mut fields: Fields = SPEC_FIELDS.iter().map(|name| ((*name).to_owned(), Datum::Absent)).collect();
        fields.extend(self.spec().into_iter().map(|(name, value)| (name, Datum::Value(value))));
        fields.insert("state".to_owned(), self.state.show().into());
        fields.insert("leftover".to_owned(), Datum::Absent);
        fields.insert(LIMITS.to_owned(), Datum::Absent);
        if self.gate || self.tools {
            fields.insert(gate::FIELD.to_owned(), "in place".into());
        }
        State::Present(fields)
    }

    async fn observe(&self, probe: &Probe) -> Result<Observed, Failure> {
        self.refuse_card_in_bridge(probe).await?;
        let docker = probe.docker()?;
        let Some(found) = self.found(&docker, probe).await? else { return Ok(State::Absent.into()) };
        let spec = found.labels.get(SPEC_LABEL);
        if spec.is_none() && !self.adopt {
            return Err(Failure::new(format!("container {} exists, and fanli did not make it", self.name))
                .hint("remove it, choose another name, or let fanli make it anew with `adopt = true`"));
        }
        let spec = spec.and_then(|text| serde_json::from_str(text).ok()).map_or(Value::Null, from_json);
        let mut fields: Fields = match spec {
            Value::Map(map) => map.into_iter().map(|(name, value)| (name, Datum::Value(value))).collect(),
            _ => Fields::new(),
        };

        // The name of the image may stand for another image by now.
        if fields.get("image") == Some(&Datum::from(self.image()))
            && let Some(image) = docker.image(self.image()).await?
            && image.id != found.image_id
        {
            let older = format!("an older {} ({})", self.image(), short_id(&found.image_id));
            fields.insert("image".to_owned(), older.into());
        }

        // Networks come and go by `docker network`, without a word in what the container was made for.
        if let Some(networks) = found.strayed() {
            fields.insert("network".to_owned(), networks.into());
        }

        // `docker update` can change these on a container as it stands.
        let some = |amount: u64, text: String| if amount == 0 { Datum::Absent } else { Datum::from(text) };
        fields.insert("memory".to_owned(), some(found.memory, show_size(found.memory)));
        fields.insert("cpus".to_owned(), some(found.nano_cpus, Cpus(found.nano_cpus / 1_000_000).show()));
        fields.insert("restart".to_owned(), found.restart.replace('-', "_").into());
        if !found.other_limits.is_empty() {
            fields.insert(LIMITS.to_owned(), found.other_limits.join(", ").into());
        }

        let mut strayed = self.strayed(&found, probe).await?;
        if let Some(Datum::Value(Value::List(mounts))) = fields.get_mut("mounts") {
            mounts.iter_mut().for_each(|mount| *mount = strayed.remove(&mount.to_string()).unwrap_or(mount.clone()));
        }

        let state = match found.status.as_str() {
            "exited" | "created" | "dead" => "stopped",
            "running" if place::comes_and_goes(&found, probe) => "restarting",
            other => other,
        };
        fields.insert("state".to_owned(), state.into());
        if (self.gate || self.tools) && gate::installed(probe)? {
            fields.insert(gate::FIELD.to_owned(), "in place".into());
        }
        if found.name != self.name {
            fields.insert("leftover".to_owned(), found.name.as_str().into());
        } else if let Some(left) = place::unfinished(&self.name, &docker).await? {
            fields.insert("leftover".to_owned(), left.name.as_str().into());
        }
        Ok(Observed { state: State::Present(fields), output: output(&found) })
    }

    async fn apply(&self, change: &Change, hands: &Actuator) -> Result<Map, Failure> {
        let docker = hands.docker_hands()?;
        let found = self.place().reclaim(&docker, hands).await?;
        self.clear(&docker).await?;
        if (self.gate || self.tools) && change.verb != Verb::Remove {
            gate::install(hands)?;
        }
        if change.verb == Verb::Remove {
            if let Some(found) = &found {
                self.place().remove(found, &[], &docker).await?;
            }
            self.place().let_go(&[], &docker, hands).await?;
            return Ok(Map::new());
        }
        match &found {
            Some(found) if !needs_replacing(change) => match self.state {
                RunState::Running if found.status == "paused" => docker.unpause(&self.name).await?,
                RunState::Running if found.status != "running" => place::start(&self.name, &docker, hands).await?,
                RunState::Stopped => docker.stop(&self.name, self.stop_timeout).await?,
                RunState::Running | RunState::Absent => {}
            },
            found => self.replace(found.as_ref(), &docker, hands).await?,
        }
        let Some(found) = docker.container(&self.name).await? else {
            return Err(Failure::new(format!("container {} went away while it was being made", self.name)));
        };
        Ok(output(&found))
    }

    async fn stands_on(&self, _probe: &Probe) -> Result<Vec<(&'static str, String)>, Failure> {
        if self.state == RunState::Absent {
            return Ok(Vec::new());
        }
        // What a container mounts stays what it was when a link on the way is turned, or something is mounted there.
        let ways = self.mounts.iter().flat_map(|mount| Path::new(&mount.from).ancestors()).filter_map(Path::to_str);
        let turned = ways.flat_map(|way| [("link", way.to_owned()), ("mount", way.to_owned())]);
        Ok(std::iter::once(("image", self.image().to_owned())).chain(turned).collect())
    }

    async fn is_open(&self, probe: &Probe) -> Result<bool, Failure> {
        if self.state == RunState::Absent || aside::is_noted(&self.name, probe)? {
            return Ok(self.state != RunState::Absent);
        }
        let docker = probe.docker()?;
        Ok(aside::aside(&self.name, &docker, probe).await?.is_some())
    }

    async fn confirm(&self, hands: &Actuator) -> Result<(), Failure> {
        let docker = hands.docker_hands()?;
        match self.state {
            RunState::Running => place::stays_up(&self.name, &docker, hands).await?,
            RunState::Stopped => {}
            RunState::Absent => return Ok(()),
        }
        self.place().let_go(&self.lan_in_use(), &docker, hands).await
    }

    async fn explain(&self, failure: Failure, probe: &Probe) -> Failure {
        let Ok(docker) = probe.docker() else { return failure };
        place::with_state(failure, &self.name, self.label().as_ref(), &docker, probe).await
    }

    async fn put_back(&self, failure: Failure, hands: &Actuator) -> Failure {
        let docker = match hands.docker_hands() {
            Ok(docker) => docker,
            Err(wrong) => return failure.because(wrong),
        };
        if self.state == RunState::Absent || self.is_another(&docker, hands).await {
            return failure;
        }
        match self.place().bring_back(&docker, hands).await {
            Ok(None) => failure,
            Ok(Some(true)) => failure.because("the container as it was before has been put back, and runs"),
            Ok(Some(false)) => failure.because("the container as it was before has been put back, stopped as it was"),
            Err(wrong) => failure.because(format!("the container as it was before could not be put back: {wrong}")),
        }
    }
}

fn output(found: &Found) -> Map {
    Map::from([
        ("id".to_owned(), Value::from(found.id.as_str())),
        ("image_id".to_owned(), Value::from(found.image_id.as_str())),
        ("pid".to_owned(), found.pid.map_or(Value::Null, Value::from)),
        ("status".to_owned(), Value::from(found.status.as_str())),
        ("exit_code".to_owned(), Value::Int(found.exit.0)),
    ])
}

/// The first twelve digits of an ID, as Docker's own lists show it.
pub(super) fn short_id(id: &str) -> String {
    id.trim_start_matches("sha256:").chars().take(12).collect()
}
