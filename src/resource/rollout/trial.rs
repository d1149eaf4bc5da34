//! `trial`: a staged generation is tried in a container of its own before any node sees it.
//!
//! A check of the syntax is not enough: Apache's says OK where a piped logger is missing, a certificate is none, or a directory
//! of documents does not exist. So the program is also started, and asked (research/rollout-and-logs.md, M6 and M7).

mod mark;
mod ports;
mod requests;
mod room;
mod run;

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use self::requests::Smoke;
use crate::change::{Change, Datum, Fields, State};
use crate::failure::Failure;
use crate::resource::container::{behind_gate, bind, short_id, texts};
use crate::resource::param::{HostPath, Size};
use crate::resource::{ArgError, Observed, Resource};
use crate::system::blueprint::{Blueprint, Mounted};
use crate::system::docker::{Container as Found, Docker, container_name, image_name};
use crate::system::fs::{EntryKind, GENERATIONS};
use crate::system::{Actuator, Probe};
use crate::value::{Arrow, Digest, Map};

/// The label of a container on trial: the slot that it is for.
const LABEL: &str = "fanli.trial";

/// What a container may use where neither it nor its like has a limit.
const MEMORY: Size = Size(1 << 30);

crate::kind! {
    /// Tries a staged generation of a slot in a throw-away container, before any node sees it.
    ///
    /// The container is made like a node's (`like`) or from an `image`, but alone: its network leads nowhere, the slot shows the new
    /// generation as `current`, and what the node could write to is an empty copy of its directories. In it runs `validate`, then
    /// the program itself, which must live, listen on nothing but the node's own addresses, take no port that another program
    /// has in the node, and answer `requests`. A generation that passed is not tried again with the same image and arguments.
    ///
    /// The example presumes a slot `/srv/fanli-example`, a staged generation in it, and a container `fanli-example` that mounts it.
    pub struct Trial = "trial" {
        /// The slot's directory on the host, with `generations/` in it.
        path: HostPath,
        /// Which generation is tried: its ID, twelve hexadecimal digits.
        generation: String,
        /// The container whose image, mounts, environment, user and limits are used: a node of this slot. It need not run.
        like: Option<String>,
        /// The image, where there is no such container yet.
        image: Option<String>,
        /// With `image`: directories of the host as in `container`, without the slot itself.
        mounts: Vec<Arrow> = Vec::new(),
        /// With `image`: environment variables.
        env: Map = Map::new(),
        /// With `image`: the user of the program.
        user: Option<String>,
        /// Where the slot is mounted in a node; found by itself with `like`.
        inside: Option<HostPath>,
        /// Directories in the container that nodes can write to and whose contents the program needs (documents, uploads): shown
        /// read-only. Other writable ones are empty, but for their directories.
        contents: Vec<HostPath> = Vec::new(),
        /// The program that checks the configuration: `["apachectl", "-t"]`.
        validate: Option<Vec<String>>,
        /// How the program starts, in the foreground; the container's own command by default, `[]` for no start. Name the program
        /// itself, not a supervisor that outlives it.
        start: Option<Vec<String>>,
        /// How long the started program must live before it counts as started.
        settle: Duration = Duration::from_secs(2),
        /// TCP ports that it must listen on.
        listens: Vec<i64> = Vec::new(),
        /// What it is asked, for instance once for each site: `{ host = "www.example.org"  path = "/"  status = 200 }`. Also:
        /// `port` (80, or 443 with `tls`), `tls` (any certificate is fine), `contains`, `address`; `status` may be a list.
        requests: Vec<Map> = Vec::new(),
        /// The node's own addresses; with `like` by default those that it has now.
        addresses: Option<Vec<IpAddr>>,
        /// More lines for the hosts file: `"db:10.0.0.5"`. There is no name server in the trial.
        hosts: Vec<String> = Vec::new(),
        /// How much memory it may use; as much as the node by default, else 1GiB.
        memory: Option<Size>,
        /// How long `validate` may take.
        validate_within: Duration = Duration::from_secs(60),
        /// How long after `settle` it may take until all ports are listened on that are asked or declared.
        ready_within: Duration = Duration::from_secs(30),
        /// How long one request may take.
        request_timeout: Duration = Duration::from_secs(10),
    }
    results {
        "listens": "what it listened on: a list of `address`, `port`, `program`",
    }
    example r#"# presumes a slot, a generation in it, and a container fanli-example that mounts it
trial "/srv/fanli-example" {
  generation = "0123456789ab"
  like       = "fanli-example"
  validate   = ["cat", "/conf/current/main.conf"]
  start      = ["httpd", "-f", "-p", "80", "-h", "/conf/current"]
  settle     = 1s
  requests   = [{ path = "/main.conf" }]
}"#
}

/// What is tried, as the host has it now.
struct Subject {
    blueprint: Blueprint,
    /// Where the slot shows.
    inside: String,
    /// The node's own addresses, as far as they are known.
    addresses: Vec<IpAddr>,
    /// Whether the node itself may listen on addresses that it does not have.
    anywhere: bool,
    /// The node, while it runs.
    node: Option<Found>,
    /// Where its mark is, once it passed.
    mark: PathBuf,
}

impl Trial {
    /// The name of the trial's container.
    fn name(&self) -> String {
        match &self.like {
            Some(like) => format!("{like}.fanli-trial"),
            None => format!("fanli-trial-{}", self.slot()),
        }
    }

    /// The slot's path in few characters.
    fn slot(&self) -> String {
        Digest::of(self.path.0.as_bytes()).short()
    }

    /// fanli's folder for what passed.
    fn marks(probe: &Probe) -> PathBuf {
        probe.state_dir().join("rollout/tried")
    }

    /// fanli's folder for this slot's trial, which lives as long as the trial.
    fn room(&self, probe: &Probe) -> PathBuf {
        probe.state_dir().join("rollout/trial").join(self.slot())
    }

    fn smokes(&self) -> Result<Vec<Smoke>, ArgError> {
        self.requests.iter().map(Smoke::read).collect()
    }

    /// `None` when there is no such container or image (yet).
    async fn subject(&self, docker: &Docker, probe: &Probe) -> Result<Option<Subject>, Failure> {
        let (mut blueprint, node) = match &self.like {
            Some(like) => {
                let (Some(blueprint), Some(node)) = (docker.blueprint(like).await?, docker.container(like).await?)
                else {
                    return Ok(None);
                };
                (blueprint, Some(node))
            }
            None => match docker.image(self.image.as_deref().unwrap_or_default()).await? {
                None => return Ok(None),
                Some(image) => (self.of_image(Blueprint::of_image(&image))?, None),
            },
        };
        blueprint.command = behind_gate(&blueprint.command).to_vec();
        blueprint.extra_hosts.extend(self.hosts.iter().cloned());
        if let Some(memory) = self.memory.or((blueprint.memory == 0).then_some(MEMORY)) {
            blueprint.memory = i64::try_from(memory.0).unwrap_or(i64::MAX);
        }
        let inside = self.where_inside(&blueprint, probe)?;
        let host_network = node.as_ref().is_some_and(|node| node.network_mode == "host");
        let anywhere = probe.listens_anywhere(&blueprint.sysctls, host_network);
        let node = node.filter(|node| node.pid.is_some());
        let addresses = match (&self.addresses, &node) {
            (Some(given), _) => given.clone(),
            (None, Some(node)) => ports::own_addresses(node, docker, probe).await?,
            (None, None) => Vec::new(),
        };
        let all = serde_json::to_vec(&(1, self.args_for_mark(), &blueprint, &inside, &addresses));
        let all = all.map_err(|error| Failure::new("cannot write down what is tried").because(error))?;
        let mark = Self::marks(probe).join(Digest::of(&all).to_string());
        Ok(Some(Subject { blueprint, inside, addresses, anywhere, node, mark }))
    }

    fn args_for_mark(&self) -> Map {
        <Self as crate::resource::Declared>::args(self)
    }

    fn of_image(&self, blueprint: Blueprint) -> Result<Blueprint, Failure> {
        let mounted = |arrow: &Arrow| {
            let bind = bind(arrow).map_err(|message| ArgError::new("mounts", message))?;
            Ok(Mounted { from: bind.from, to: bind.to, read_only: bind.read_only })
        };
        let env = texts("env", &self.env)?;
        Ok(Blueprint {
            env: env.into_iter().map(|(name, value)| format!("{name}={value}")).collect(),
            user: self.user.clone().unwrap_or_default(),
            mounts: self.mounts.iter().map(mounted).collect::<Result<_, Failure>>()?,
            ..blueprint
        })
    }

    /// Where a node mounts the slot.
    fn where_inside(&self, blueprint: &Blueprint, probe: &Probe) -> Result<String, Failure> {
        if let Some(inside) = &self.inside {
            return Ok(inside.0.clone());
        }
        let real = probe.canonical(&self.path.0)?;
        let of_slot = |mount: &&Mounted| mount.from == self.path.0 || real.as_deref() == Some(mount.from.as_ref());
        let found = blueprint.mounts.iter().find(of_slot).map(|mount| mount.to.clone());
        found.ok_or_else(|| {
            let like = self.like.as_deref().unwrap_or_default();
            Failure::new(format!("container {like} does not mount {}", self.path.0))
                .hint("mount the slot's directory itself, or say where it is mounted with `inside`")
        })
    }

    /// What a killed run left.
    async fn leftover(&self, docker: &Docker, probe: &Probe) -> Result<Option<String>, Failure> {
        let containers = docker.labelled(LABEL, &self.path.0).await?;
        let room = self.room(probe);
        let room = probe.stat(&room)?.map(|_| room.to_string_lossy().into_owned());
        Ok(containers.into_iter().next().or(room))
    }

    async fn clean(&self, hands: &Actuator) -> Result<(), Failure> {
        let docker = hands.docker_hands()?;
        for name in docker.labelled(LABEL, &self.path.0).await? {
            docker.remove(&name).await?;
        }
        // The same node may be the like of another slot.
        let name = self.name();
        if docker.container(&name).await?.is_some_and(|found| found.labels.contains_key(LABEL)) {
            docker.remove(&name).await?;
        }
        hands.remove_tree(self.room(hands))
    }
}

impl Resource for Trial {
    fn check(&self) -> Result<(), ArgError> {
        let id = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
        if self.generation.len() != 12 || !self.generation.chars().all(id) {
            return Err(ArgError::new("generation", format!("`{}` is not 12 hexadecimal digits", self.generation)));
        }
        match (&self.like, &self.image) {
            (Some(like), None) => {
                container_name(like).map_err(|message| ArgError::new("like", message))?;
                let given =
                    [("mounts", !self.mounts.is_empty()), ("env", !self.env.is_empty()), ("user", self.user.is_some())];
                if let Some((field, _)) = given.iter().find(|(_, given)| *given) {
                    return Err(ArgError::new(*field, "is for `image`: with `like` it is the container's own"));
                }
            }
            (None, Some(image)) => {
                image_name(image).map_err(|message| ArgError::new("image", message))?;
                if self.inside.is_none() {
                    return Err(ArgError::new("inside", "is required with `image`: where nodes mount the slot"));
                }
            }
            (None, None) => {
                return Err(ArgError::new("like", "is required: a container of this slot (or `image`)"));
            }
            (Some(_), Some(_)) => return Err(ArgError::new("image", "is the container's own with `like`: give one")),
        }
        for (field, argv) in [("validate", &self.validate), ("start", &self.start)] {
            let fits = |argv: &Vec<String>| {
                argv.iter().all(|word| !word.contains('\0')) && argv.first().is_none_or(|word| !word.is_empty())
            };
            if !argv.as_ref().is_none_or(fits) {
                return Err(ArgError::new(field, "is a program and its arguments, without NULs"));
            }
        }
        let starts = self.start.as_ref().is_none_or(|argv| !argv.is_empty());
        if !starts && self.validate.as_ref().is_none_or(Vec::is_empty) {
            return Err(ArgError::new("validate", "is required when nothing is started"));
        }
        let asked = !self.requests.is_empty() || !self.listens.is_empty();
        if !starts && asked {
            return Err(ArgError::new("start", "must not be empty where `requests` or `listens` are declared"));
        }
        if let Some(port) = self.listens.iter().find(|port| !(1..=65535).contains(*port)) {
            return Err(ArgError::new("listens", format!("`{port}` is not a port")));
        }
        self.smokes().map(|_| ())
    }

    fn desired(&self) -> State {
        State::Present(Fields::from([
            ("tried".to_owned(), self.generation.as_str().into()),
            ("leftover".to_owned(), Datum::Absent),
        ]))
    }

    async fn observe(&self, probe: &Probe) -> Result<Observed, Failure> {
        let docker = probe.docker()?;
        let (mut fields, mut output) = (Fields::new(), Map::new());
        if let Some(left) = self.leftover(&docker, probe).await? {
            fields.insert("leftover".to_owned(), left.into());
        }
        if let Some(subject) = self.subject(&docker, probe).await?
            && let Some(listens) = mark::read(&subject.mark, probe)?
            && ports::taken(&listens, subject.node.as_ref(), probe)?.is_none()
        {
            fields.insert("tried".to_owned(), self.generation.as_str().into());
            output.insert("listens".to_owned(), mark::shown(&listens));
        }
        Ok(Observed { state: if fields.is_empty() { State::Absent } else { State::Present(fields) }, output })
    }

    async fn apply(&self, change: &Change, hands: &Actuator) -> Result<Map, Failure> {
        self.clean(hands).await?;
        if !change.touches("tried") {
            return Ok(Map::new());
        }
        let docker = hands.docker_hands()?;
        let Some(subject) = self.subject(&docker, hands).await? else {
            return Err(match (&self.like, &self.image) {
                (Some(like), _) => {
                    Failure::new(format!("there is no container {like} to try generation {} in", self.generation))
                        .hint("put its `container` task before this one, or give `image` and `inside`")
                }
                (None, image) => {
                    let image = image.as_deref().unwrap_or_default();
                    Failure::new(format!("there is no image {image} on this host"))
                        .hint("make it with an `image` task before this one")
                }
            });
        };
        let staged = format!("{}/{}/{}", self.path.0, GENERATIONS, self.generation);
        if !matches!(hands.stat(&staged)?, Some(entry) if entry.kind == EntryKind::Directory) {
            return Err(Failure::new(format!(
                "generation {} is not staged: there is no directory {staged}",
                self.generation
            ))
            .hint("put a `slot` task before this one"));
        }
        let image = short_id(&subject.blueprint.image);
        hands.progress(&format!("trying generation {} with image {image}", self.generation), None);
        let tried = self.run(&subject, &docker, hands).await;
        let cleaned = self.clean(hands).await;
        let listens = tried?;
        cleaned?;
        // The last thing: what stands there is true, and there is nothing left to be cleaned.
        mark::write(&subject.mark, &listens, hands)?;
        Ok(Map::from([("listens".to_owned(), mark::shown(&listens))]))
    }
}

/// Some words as a person would type them.
fn typed(argv: &[String]) -> String {
    argv.join(" ")
}
