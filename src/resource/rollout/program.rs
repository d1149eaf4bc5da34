//! `program`: a program of a container's supervisor.

use std::path::Path;
use std::time::Duration;

use super::supervised::{check, check_limit, look, output, together};
use crate::change::{Change, State};
use crate::failure::Failure;
use crate::resource::param::HostPath;
use crate::resource::{ArgError, Observed, Param as _, Resource};
use crate::system::supervisor::{Patience, SOCKET, Updated};
use crate::system::{Actuator, Probe};
use crate::value::Map;

/// The word for a program that is loaded as supervisor's files have it.
const AS_WRITTEN: &str = "as in its files";

crate::choice! {
    /// What a program is to do.
    pub enum Run {
        /// It runs.
        Running = "running",
        /// It does not run.
        Stopped = "stopped",
    }
}

crate::kind! {
    /// Keeps a program of a container's supervisor as supervisor's own files have it, and running or stopped.
    ///
    /// Supervisor is asked over its socket in the container. It reads its files again and tells what differs; only this program is
    /// touched, and only when it differs: it is then stopped, forgotten and taken in anew, which starts it when its
    /// `autostart` says so. All programs of a `[group:…]` are one to supervisor, and change together.
    ///
    /// A program that is down by its own fault (`fatal`, `exited`) is started again, and awaited through its `startsecs`. Processes that
    /// it left behind, such as the workers of a server that was killed, are ended first: they hold its port.
    pub struct Program = "program" {
        /// The program, or its group, or `group:name`.
        name: String,
        /// The container that supervisor runs in.
        container: String,
        /// What it is to do.
        state: Run = Run::Running,
        /// Supervisor's socket, in the container.
        socket: HostPath = HostPath(SOCKET.to_owned()),
        /// How long it may take until it is up, through supervisor's `startsecs` and `startretries`.
        start_limit: Duration = Duration::from_secs(60),
        /// How long it may take until it is gone, through supervisor's `stopwaitsecs`.
        stop_limit: Duration = Duration::from_secs(60),
    }
    results {
        "state": "`running`, `stopped`, `starting`, `backoff`, `exited`, `fatal`: supervisor's word, the worst of several",
        "pid": "its process number inside the container; null when it does not run, or is several",
    }
    example r#"# presumes a container web1 with supervisor as its first process
program "apache2" {
  container = "web1"
  state     = running
}"#
}

impl Program {
    fn patience(&self) -> Patience {
        Patience { start: self.start_limit, stop: self.stop_limit, steady: Duration::ZERO }
    }
}

impl Resource for Program {
    fn check(&self) -> Result<(), ArgError> {
        check(&self.container, Some(("name", &self.name)))?;
        check_limit("start_limit", self.start_limit)?;
        check_limit("stop_limit", self.stop_limit)
    }

    fn desired(&self) -> State {
        State::present([("config", AS_WRITTEN.to_owned()), ("state", self.state.show())])
    }

    async fn observe(&self, probe: &Probe) -> Result<Observed, Failure> {
        let (docker, found) = look(&self.container, probe).await?;
        let supervisor = probe.supervisor(&docker, &found, Path::new(&self.socket.0)).await?;
        let (updated, _) = supervisor.outdated(&self.name).await?;
        let config = match updated {
            Updated::Same => AS_WRITTEN,
            Updated::Added => "not taken in",
            Updated::Replaced => "otherwise than in its files",
        };
        let processes = supervisor.program(&self.name).await?;
        let down = |word: &str| matches!(word, "exited" | "fatal");
        let state = match together(&processes) {
            _ if processes.is_empty() => "stopped",
            // What is down already need not be stopped, unless something of it still runs.
            word if self.state == Run::Stopped && down(word) && !supervisor.has_leftovers(&processes).await? => {
                "stopped"
            }
            word => word,
        };
        Ok(Observed { state: State::present([("config", config), ("state", state)]), output: output(&processes) })
    }

    async fn apply(&self, _: &Change, hands: &Actuator) -> Result<Map, Failure> {
        let (docker, found) = look(&self.container, hands).await?;
        let supervisor = hands.supervisor_hands(&docker, &found, Path::new(&self.socket.0)).await?;
        supervisor.update(&self.name, self.patience()).await?;
        let processes = match self.state {
            Run::Running => supervisor.bring_up(&self.name, self.patience()).await?,
            Run::Stopped => supervisor.bring_down(&self.name, self.patience()).await?,
        };
        Ok(output(&processes))
    }
}
