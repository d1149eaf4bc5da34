//! `reload`: what runs in a container takes its configuration as it is now.

use std::path::Path;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::supervised::{check, check_limit, look, output, running};
use crate::change::{Change, DONE, Fields, State};
use crate::failure::Failure;
use crate::resource::action::check_argv;
use crate::resource::param::HostPath;
use crate::resource::{ArgError, Nature, Observed, Resource};
use crate::system::docker::{Container, DockerHands};
use crate::system::supervisor::{Patience, SOCKET};
use crate::system::{Actuator, Probe};
use crate::value::{Map, Value};

/// How often a container that must stay up is looked at.
const RETRY: Duration = Duration::from_millis(200);

crate::kind! {
    /// Has a container's program take its configuration as it is now, without cutting off anybody.
    ///
    /// In one of three ways:
    ///
    /// - `supervisor = "apache2"`: the program of that name, through supervisor's socket in the container. Where supervisor's own
    ///   files changed for it, it is taken in anew; where it is down by its own fault (`fatal`, `exited`), it is started,
    ///   once what it left behind is ended; else it gets the `signal`. No other program is touched. Then it is awaited: up through its `startsecs`, and steady.
    /// - `signal = "HUP"`: to the container's first process.
    /// - `command = ["nginx", "-s", "reload"]`: run in the container.
    ///
    /// With `validate` a command is run in the container first, and when it fails nothing else is done: a bad configuration kills
    /// an Apache that gets a graceful signal. Never leave it out where the program can check its files.
    ///
    /// It runs each time, and is reported as "ran": it is for handlers, and for a rollout.
    pub struct Reload = "reload" {
        /// The container.
        container: String,
        /// The program of its supervisor: `apache2`, or `group:name`.
        supervisor: Option<String>,
        /// The signal: with `supervisor` what the program gets (`USR1` by default), else what the container's first process gets.
        signal: Option<String>,
        /// A program in the container that does it.
        command: Option<Vec<String>>,
        /// A program in the container that only looks, and fails when the configuration cannot be used.
        validate: Option<Vec<String>>,
        /// Supervisor's socket, in the container.
        socket: HostPath = HostPath(SOCKET.to_owned()),
        /// How long `validate` and `command` may each take.
        command_limit: Duration = Duration::from_secs(60),
        /// How long it may take until the program is up.
        start_limit: Duration = Duration::from_secs(60),
        /// How long it may take to stop, where supervisor's own files changed for it.
        stop_limit: Duration = Duration::from_secs(60),
        /// How long the program must stay up afterwards.
        steady: Duration = Duration::from_secs(2),
    }
    results {
        "did": "`signalled`, `started`, `updated` (taken in anew), `died` (of the signal, and supervisor started it again), `command`, or `nothing` where it is stopped",
        "state": "`running`, or `stopped`",
        "pid": "the process number: inside the container of supervisor's program, else on the host of the first process",
        "others": "programs that stand in supervisor's files otherwise than they are loaded, and were not touched",
    }
    example r#"# presumes a container web1 with supervisor as its first process
reload "web1" {
  supervisor = "apache2"
  validate   = ["apachectl", "-t"]
}"#
}

impl Reload {
    fn patience(&self) -> Patience {
        Patience { start: self.start_limit, stop: self.stop_limit, steady: self.steady }
    }

    /// Nothing is done with a configuration that cannot be used.
    async fn validated(&self, docker: &DockerHands) -> Result<(), Failure> {
        let Some(argv) = &self.validate else { return Ok(()) };
        let ended = docker.exec(&self.container, argv, ("command_limit", self.command_limit)).await;
        let ended = ended.map_err(|failure| failure.within("`validate` gives no answer; nothing was reloaded"))?;
        ended.expect_success().map(|_| ()).map_err(|failure| {
            failure.within(format!("the configuration in {} cannot be used; nothing was reloaded", self.container))
        })
    }

    /// Waits until the container has stayed up as long as it must.
    async fn steady(&self, before: &Container, docker: &DockerHands) -> Result<Container, Failure> {
        let begun = Instant::now();
        loop {
            let found =
                running(&self.container, docker).await.map_err(|failure| failure.within("it did not survive"))?;
            if found.started_at != before.started_at {
                let failure = Failure::new(format!("container {} died of it, and was started again", self.container));
                return Err(failure.hint(format!("see `docker logs {}`", self.container)));
            }
            if begun.elapsed() >= self.steady {
                return Ok(found);
            }
            sleep(RETRY.min(self.steady)).await;
        }
    }
}

impl Resource for Reload {
    fn check(&self) -> Result<(), ArgError> {
        check(&self.container, self.supervisor.as_deref().map(|name| ("supervisor", name)))?;
        if self.supervisor.is_none() && self.signal.is_none() && self.command.is_none() {
            return Err(ArgError::new(
                "container",
                "give one of `supervisor`, `signal`, `command`: how is it reloaded?",
            ));
        }
        if self.command.is_some() && (self.supervisor.is_some() || self.signal.is_some()) {
            return Err(ArgError::new("command", "stands alone: it is one of three ways"));
        }
        for (field, argv) in [("command", &self.command), ("validate", &self.validate)] {
            argv.as_ref().map_or(Ok(()), |argv| check_argv(field, argv))?;
        }
        if let Some(signal) = &self.signal
            && (signal.is_empty() || !signal.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit()))
        {
            return Err(ArgError::new("signal", format!("`{signal}` is not written as in `USR1` or `HUP`")));
        }
        check_limit("command_limit", self.command_limit)?;
        check_limit("start_limit", self.start_limit)?;
        check_limit("stop_limit", self.stop_limit)
    }

    fn nature(&self) -> Nature {
        Nature::Action { verify: false }
    }

    fn desired(&self) -> State {
        State::present([(DONE, true)])
    }

    async fn observe(&self, probe: &Probe) -> Result<Observed, Failure> {
        look(&self.container, probe).await?;
        Ok(State::Present(Fields::new()).into())
    }

    async fn apply(&self, _: &Change, hands: &Actuator) -> Result<Map, Failure> {
        let docker = hands.docker_hands()?;
        let found = running(&self.container, &docker).await?;
        self.validated(&docker).await?;
        if let Some(program) = &self.supervisor {
            let supervisor = hands.supervisor_hands(&docker, &found, Path::new(&self.socket.0)).await?;
            let signal = self.signal.as_deref().unwrap_or("USR1");
            let reloaded = supervisor.reload(program, signal, self.patience()).await?;
            let others = reloaded.others.into_iter().map(Value::from).collect();
            let more = [("did", Value::from(reloaded.did.show())), ("others", Value::List(others))];
            let mut result = output(&reloaded.processes);
            result.extend(more.map(|(name, value)| (name.to_owned(), value)));
            return Ok(result);
        }
        let did = if let Some(argv) = &self.command {
            let ended = docker.exec(&self.container, argv, ("command_limit", self.command_limit)).await?;
            ended.expect_success()?;
            "command"
        } else {
            docker.signal(&self.container, self.signal.as_deref().unwrap_or("HUP")).await?;
            "signalled"
        };
        let found = self.steady(&found, &docker).await?;
        Ok(Map::from([
            ("did".to_owned(), Value::from(did)),
            ("state".to_owned(), Value::from("running")),
            ("pid".to_owned(), found.pid.map_or(Value::Null, Value::from)),
            ("others".to_owned(), Value::List(Vec::new())),
        ]))
    }
}
