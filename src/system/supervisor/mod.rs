//! Supervisor, over the socket that it has in its container: XML-RPC 2.0 in HTTP (supervisord.org/api.html).
//!
//! The unix socket alone: its XML-RPC over TCP was remote code execution once (Supervisor/supervisor#964). A connection for
//! each call, so that a supervisor that was restarted is found again.

mod leftovers;
mod program;
mod xml;

use std::collections::BTreeMap;
use std::ops::Deref;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use http_body_util::{BodyExt as _, Limited};
use rustix::fs::{FileType, OFlags, fstat};

use self::xml::{Arg, Item, Reply};
use super::container_root::{ContainerRoot, by_number};
use super::docker::{Container, Docker};
use super::waiting::waiting;
use super::{Actuator, Probe};
use crate::failure::{Context, Failure};

pub use self::program::{Did, Patience, Reloaded, Updated, select};

/// Where supervisor listens unless its configuration says otherwise.
pub const SOCKET: &str = "/run/supervisor.sock";

/// How long supervisor may take for one answer (`supervisor answer`). Nothing is asked of it that waits for a program.
const ANSWER: Duration = Duration::from_secs(20);
/// The longest answer that is read, in bytes.
const MOST_ANSWER: usize = 8 << 20;

/// Codes of faults (supervisor/xmlrpc.py).
mod fault {
    pub(super) const SHUTDOWN: i64 = 6;
    pub(super) const BAD_NAME: i64 = 10;
    pub(super) const ALREADY_STARTED: i64 = 60;
    pub(super) const NOT_RUNNING: i64 = 70;
    pub(super) const ALREADY_ADDED: i64 = 90;
    pub(super) const CANT_REREAD: i64 = 92;
}

/// A supervisor to look at.
#[derive(Debug)]
pub struct Supervisor {
    socket: OwnedFd,
    /// Whose it is, in messages.
    name: String,
    /// A process of its container, as fanli sees it; `None` where fanli itself is one.
    process: Option<u32>,
}

/// A supervisor to change.
#[derive(Debug)]
pub struct SupervisorHands {
    supervisor: Supervisor,
}

impl Deref for SupervisorHands {
    type Target = Supervisor;

    fn deref(&self) -> &Supervisor {
        &self.supervisor
    }
}

/// What a process of supervisor is at (supervisord.org/subprocess.html).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are supervisor's own")]
pub enum ProcessState {
    Stopped,
    Starting,
    Running,
    Backoff,
    Stopping,
    Exited,
    Fatal,
    Unknown,
}

impl ProcessState {
    fn read(word: &str) -> Self {
        match word {
            "STOPPED" => Self::Stopped,
            "STARTING" => Self::Starting,
            "RUNNING" => Self::Running,
            "BACKOFF" => Self::Backoff,
            "STOPPING" => Self::Stopping,
            "EXITED" => Self::Exited,
            "FATAL" => Self::Fatal,
            _ => Self::Unknown,
        }
    }

    /// In lower case, as results and messages have it.
    pub fn show(self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Backoff => "backoff",
            Self::Stopping => "stopping",
            Self::Exited => "exited",
            Self::Fatal => "fatal",
            Self::Unknown => "unknown",
        }
    }
}

/// One process that supervisor looks after.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its group; a program outside of groups is a group of its own.
    pub group: String,
    /// Its name in the group.
    pub name: String,
    /// What it is at.
    pub state: ProcessState,
    /// Its process number inside the container, while it lives.
    pub pid: Option<u32>,
    /// When it was started: seconds since 1970 by the container's clock.
    pub start: i64,
    /// What supervisor says about it: why it could not be started, or how long it is up.
    pub said: String,
}

impl Process {
    /// `group:name`, which no other process has.
    pub fn full_name(&self) -> String {
        format!("{}:{}", self.group, self.name)
    }

    /// Whether it is down by its own fault, and supervisor does not start it again.
    fn is_down(&self) -> bool {
        matches!(self.state, ProcessState::Exited | ProcessState::Fatal)
    }
}

/// What supervisor's configuration says now, beside what it has loaded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Differences {
    /// Groups that stand in the files alone.
    pub added: Vec<String>,
    /// Groups that are loaded otherwise than they stand in the files.
    pub changed: Vec<String>,
    /// Groups that are loaded, and no more in the files.
    pub removed: Vec<String>,
}

impl Differences {
    /// The groups that differ in any way, but for one.
    pub fn others(&self, except: &str) -> Vec<String> {
        let all = [&self.added, &self.changed, &self.removed].into_iter().flatten();
        all.filter(|name| *name != except).cloned().collect()
    }
}

impl Probe {
    /// The supervisor of a running container, by the path of its socket in there.
    ///
    /// # Errors
    /// The container does not run; there is no such socket, or it is not one of root or of the container's own user.
    pub async fn supervisor(&self, docker: &Docker, found: &Container, path: &Path) -> Result<Supervisor, Failure> {
        let root = self.container_root(docker, found).await?;
        Supervisor::inside(&root, path, found.pid)
    }
}

impl Actuator {
    /// As [`Probe::supervisor`], to change.
    ///
    /// # Errors
    /// As [`Probe::supervisor`].
    pub async fn supervisor_hands(
        &self,
        docker: &Docker,
        found: &Container,
        path: &Path,
    ) -> Result<SupervisorHands, Failure> {
        Ok(SupervisorHands { supervisor: self.supervisor(docker, found, path).await? })
    }
}

impl SupervisorHands {
    /// The supervisor that this process runs under, for what is itself a program of the container.
    ///
    /// # Errors
    /// As [`Probe::supervisor`].
    pub fn own(path: &Path) -> Result<Self, Failure> {
        Ok(Self { supervisor: Supervisor::inside(&ContainerRoot::own()?, path, None)? })
    }
}

impl Supervisor {
    fn inside(root: &ContainerRoot, path: &Path, process: Option<u32>) -> Result<Self, Failure> {
        let (shown, name) = (path.display(), root.name());
        let Some(socket) = root.open(path, OFlags::PATH)? else {
            return Err(Failure::new(format!("supervisor does not run in {name}"))
                .because(format!("there is no socket {shown}"))
                .hint("it needs `[unix_http_server]` and `[rpcinterface:supervisor]` in its configuration"));
        };
        let seen = fstat(&socket).with_context(|| format!("cannot look at {shown} of {name}"))?;
        let is_socket = FileType::from_raw_mode(seen.st_mode) == FileType::Socket;
        if !is_socket || seen.st_uid != 0 || seen.st_mode & 0o002 != 0 {
            return Err(Failure::new(format!(
                "{shown} of {name} is not a socket that belongs to root and is closed to others: it is not trusted"
            ))
            .hint("let supervisor run as root, with `chmod = 0700` in `[unix_http_server]`"));
        }
        Ok(Self { socket, name: name.to_owned(), process })
    }

    /// One call. A fault is an answer; no answer is a failure.
    async fn ask(&self, method: &str, args: &[Arg<'_>]) -> Result<Reply, Failure> {
        let what = format!("supervisor of {} does not answer {method}", self.name);
        let body = bollard::body_full(xml::call(&format!("supervisor.{method}"), args).into());
        let request = http::Request::post(http::Uri::from(hyperlocal::Uri::new(by_number(&self.socket), "/RPC2")))
            .header("content-type", "text/xml")
            .body(body)
            .context("cannot make a request for supervisor")?;
        let answer = async {
            // The very type of the Docker client, so that it exists once in the program.
            let client = hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new())
                .pool_max_idle_per_host(0)
                .build(hyperlocal::UnixConnector);
            let answer = client.request(request).await.context(what.as_str())?;
            let status = answer.status();
            if !status.is_success() {
                return Err(Failure::new(what.as_str()).because(format!("it answers with status {status}")));
            }
            let body = Limited::new(answer.into_body(), MOST_ANSWER).collect().await;
            let body = body.map_err(|error| Failure::new(what.as_str()).because(error))?.to_bytes();
            xml::reply(&String::from_utf8_lossy(&body)).map_err(|failure| failure.within(what.as_str()))
        };
        match waiting(&what, Box::pin(tokio::time::timeout(ANSWER, answer))).await {
            Ok(reply) => reply,
            Err(_) => Err(Failure::timeout("supervisor answer", ANSWER).within(what)),
        }
    }

    /// One call whose faults are failures, but for those codes, which give `None`.
    async fn call(&self, method: &str, args: &[Arg<'_>], fine: &[i64]) -> Result<Option<Item>, Failure> {
        match self.ask(method, args).await? {
            Reply::Value(item) => Ok(Some(item)),
            Reply::Fault(code, _) if fine.contains(&code) => Ok(None),
            Reply::Fault(code, text) => {
                let failure = Failure::new(format!("supervisor of {} refuses {method}", self.name)).because(text);
                Err(match code {
                    fault::CANT_REREAD => failure.hint("mend supervisor's own configuration; nothing was touched"),
                    fault::SHUTDOWN => failure.hint("it is shutting down: try again once it is back"),
                    _ => failure,
                })
            }
        }
    }

    fn odd(&self, method: &str) -> Failure {
        Failure::new(format!("supervisor of {} answers {method} with something else than expected", self.name))
    }

    /// `RUNNING`, `RESTARTING`, `SHUTDOWN`, `FATAL`: supervisor's own state, in its word.
    pub async fn state(&self) -> Result<String, Failure> {
        let answer = self.call("getState", &[], &[]).await?;
        let word = answer.as_ref().and_then(|state| state.field("statename")).and_then(Item::text);
        word.map(str::to_owned).ok_or_else(|| self.odd("getState"))
    }

    /// All processes that it looks after.
    pub async fn processes(&self) -> Result<Vec<Process>, Failure> {
        let method = "getAllProcessInfo";
        let answer = self.call(method, &[], &[]).await?;
        let read = |item: &Item| {
            let text = |name: &str| item.field(name).and_then(Item::text);
            let number = |name: &str| item.field(name).and_then(Item::int);
            let error = text("spawnerr").filter(|error| !error.is_empty());
            Some(Process {
                group: text("group")?.to_owned(),
                name: text("name")?.to_owned(),
                state: ProcessState::read(text("statename")?),
                pid: number("pid").and_then(|pid| u32::try_from(pid).ok()).filter(|pid| *pid > 0),
                start: number("start").unwrap_or(0),
                said: error.or(text("description")).unwrap_or_default().to_owned(),
            })
        };
        let all = answer.as_ref().and_then(Item::list).and_then(|all| all.iter().map(read).collect());
        all.ok_or_else(|| self.odd(method))
    }

    /// Has it read its files again, and tells what differs from what it has loaded. No program is touched by that; who asks for
    /// the differences must carry them out (Supervisor/supervisor#969).
    pub async fn reread(&self) -> Result<Differences, Failure> {
        let method = "reloadConfig";
        let answer = self.call(method, &[], &[]).await?;
        let three = answer.as_ref().and_then(Item::list).and_then(<[Item]>::first).and_then(Item::list);
        let names = |item: &Item| -> Option<Vec<String>> {
            item.list()?.iter().map(|name| name.text().map(str::to_owned)).collect()
        };
        match three {
            Some([added, changed, removed]) => match (names(added), names(changed), names(removed)) {
                (Some(added), Some(changed), Some(removed)) => Ok(Differences { added, changed, removed }),
                _ => Err(self.odd(method)),
            },
            _ => Err(self.odd(method)),
        }
    }
}

impl SupervisorHands {
    /// Takes a group in that stands in its files; those of its programs that start by themselves are started.
    pub async fn add_group(&self, group: &str) -> Result<(), Failure> {
        self.call("addProcessGroup", &[Arg::Text(group)], &[fault::ALREADY_ADDED]).await.map(|_| ())
    }

    /// Forgets a group, all of whose programs are stopped.
    pub async fn remove_group(&self, group: &str) -> Result<(), Failure> {
        self.call("removeProcessGroup", &[Arg::Text(group)], &[fault::BAD_NAME]).await.map(|_| ())
    }

    /// Starts a process, and does not wait until it is up. One that runs is left alone.
    pub async fn start(&self, process: &str) -> Result<(), Failure> {
        let args = [Arg::Text(process), Arg::Flag(false)];
        self.call("startProcess", &args, &[fault::ALREADY_STARTED]).await.map(|_| ())
    }

    /// Has a process stop, and does not wait until it is gone. One that does not run is left alone.
    pub async fn stop(&self, process: &str) -> Result<(), Failure> {
        let args = [Arg::Text(process), Arg::Flag(false)];
        self.call("stopProcess", &args, &[fault::NOT_RUNNING]).await.map(|_| ())
    }

    /// Sends a signal to a process: `USR1`. One that does not run gets none; tells whether it was sent.
    pub async fn signal(&self, process: &str, signal: &str) -> Result<bool, Failure> {
        let args = [Arg::Text(process), Arg::Text(signal)];
        Ok(self.call("signalProcess", &args, &[fault::NOT_RUNNING]).await?.is_some())
    }

    /// As [`SupervisorHands::start`], all processes of a group.
    pub async fn start_group(&self, group: &str) -> Result<(), Failure> {
        self.call("startProcessGroup", &[Arg::Text(group), Arg::Flag(false)], &[]).await.map(|_| ())
    }

    /// As [`SupervisorHands::stop`], all processes of a group.
    pub async fn stop_group(&self, group: &str) -> Result<(), Failure> {
        self.call("stopProcessGroup", &[Arg::Text(group), Arg::Flag(false)], &[fault::BAD_NAME]).await.map(|_| ())
    }
}

/// Processes by their names: number and start. With another one it is another process.
pub type Births = BTreeMap<String, (Option<u32>, i64)>;

/// The births of some processes.
pub fn births(processes: &[Process]) -> Births {
    processes.iter().map(|process| (process.full_name(), (process.pid, process.start))).collect()
}
