//! `service`: a daemon that runs, or does not.

mod fallback;

use std::time::{Duration, Instant};

use super::{ArgError, Nature, Observed, Param as _, Resource};
use crate::change::{Change, State};
use crate::failure::Failure;
use crate::system::process::Program;
use crate::system::services::{Daemon, Script, ScriptState};
use crate::system::{Actuator, Probe};
use crate::value::{Map, Value};

pub use fallback::Fallback;

crate::choice! {
    /// What a service is to do.
    pub enum Run {
        /// It runs.
        Running = "running",
        /// It does not run.
        Stopped = "stopped",
        /// Stop it and start it again: for handlers.
        Restarted = "restarted",
        /// Have it read its configuration again: for handlers.
        Reloaded = "reloaded",
    }
}

crate::kind! {
    /// Keeps a service running or stopped, and started at boot or not.
    ///
    /// systemd is asked where it runs and knows the unit, then a script in `/etc/init.d`. Where neither is there, or the script
    /// cannot start it, `fallback` says how to: `{ command = […]  pid_file = "…"  log = "…" }`. The command stays in the
    /// foreground or detaches itself; it gets a session of its own, nobody supervises it, and the next run starts it again.
    /// `pid_file` is where the program itself writes its process number (may be left out), `log` where its output is added
    /// (`/var/log/NAME.log`). It runs when the process lives and is that program, or what that has become by `exec`: `FANLI_SERVICE`
    /// in its environment tells whose it is.
    ///
    /// `restarted` and `reloaded` are actions, for handlers: each run of them does it. What does not run is started by
    /// `restarted`, and left alone by `reloaded`: it holds nothing old. Without a manager a reload is the signal HUP.
    ///
    /// Where no manager knows the service, nothing starts it at boot: `enabled` is not compared then, and `at_boot` of the result is
    /// `unsupported`.
    pub struct Service = "service" {
        /// The unit or script.
        name: String,
        /// What it is to do.
        state: Option<Run>,
        /// Whether it starts at boot.
        enabled: Option<bool>,
        /// How to run it where no manager can.
        fallback: Option<Fallback>,
        /// A command that succeeds once the service is of use; after a start it is tried until it does.
        ready: Vec<String> = Vec::new(),
        /// How long a start may take.
        start_limit: Duration = Duration::from_secs(60),
        /// How long a stop may take; without a manager it is killed then.
        stop_limit: Duration = Duration::from_secs(60),
    }
    results {
        "manager": "`systemd`, `sysvinit` or `fallback`: what runs it, or would start it",
        "at_boot": "`enabled`, `disabled`, or `unsupported` where nothing starts it; only with `enabled`",
    }
    example r#"service "fanli-example" {
  state = running

  fallback = {
    command = ["busybox", "httpd", "-f", "-p", "127.0.0.1:8399"]
    log     = "/var/log/fanli-example.log"
  }
}"#
}

/// What looks after a service on this host.
enum Manager {
    Systemd,
    Script(Script),
    None,
}

/// A service as it was found.
struct Seen {
    manager: Manager,
    state: String,
    /// Whether it runs without its manager.
    by_fallback: bool,
}

impl Service {
    fn daemon<'a>(&'a self, log: &'a mut String) -> Option<Daemon<'a>> {
        let fallback = self.fallback.as_ref()?;
        *log = fallback.log.clone().unwrap_or_else(|| format!("/var/log/{}.log", self.name));
        let pid_file = fallback.pid_file.as_deref();
        Some(Daemon { name: &self.name, command: &fallback.command, pid_file, log })
    }

    async fn look(&self, probe: &Probe) -> Result<Seen, Failure> {
        let (manager, told) = if let Some(unit) = probe.unit(&self.name).await? {
            (Manager::Systemd, Ok(unit.state().to_owned()))
        } else if let Some(script) = probe.script(&self.name)? {
            let told = match probe.script_state(&script).await? {
                ScriptState::Running => Ok("running".to_owned()),
                ScriptState::Stopped => Ok("stopped".to_owned()),
                ScriptState::Unknown(failure) => Err(failure),
            };
            (Manager::Script(script), told)
        } else {
            (Manager::None, Ok("stopped".to_owned()))
        };
        let mut log = String::new();
        let daemon = self.daemon(&mut log);
        let state = match (&daemon, told) {
            // Who has told how to find the process is not left without an answer.
            (Some(_), Err(_)) => "stopped".to_owned(),
            (_, told) => told?,
        };
        if state == "running" {
            return Ok(Seen { manager, state, by_fallback: false });
        }
        match daemon {
            Some(daemon) if !probe.daemon(&daemon)?.is_empty() => {
                Ok(Seen { manager, state: "running".to_owned(), by_fallback: true })
            }
            None if matches!(manager, Manager::None) => {
                Err(Failure::new(format!("there is no service `{}` on this host", self.name))
                    .because(
                        "systemd does not run here or does not know it, and there is no such script in /etc/init.d",
                    )
                    .hint("install its package first, or say with `fallback` how to run it"))
            }
            _ => Ok(Seen { manager, state, by_fallback: false }),
        }
    }

    /// What happens at boot, in words of `enabled`'s result; `None` where nothing does.
    async fn at_boot(&self, manager: &Manager, probe: &Probe) -> Result<Option<String>, Failure> {
        Ok(match manager {
            Manager::Systemd => Some(probe.unit_enabled(&self.name).await?),
            Manager::Script(script) => {
                Some(if probe.script_enabled(script)? { "enabled" } else { "disabled" }.to_owned())
            }
            Manager::None => None,
        })
    }

    fn start_limit(&self) -> (&'static str, Duration) {
        ("start_limit", self.start_limit)
    }

    fn stop_limit(&self) -> (&'static str, Duration) {
        ("stop_limit", self.stop_limit)
    }

    async fn start(&self, manager: &Manager, hands: &Actuator) -> Result<(), Failure> {
        match manager {
            Manager::Systemd => hands.unit_up("start", &self.name, self.start_limit()).await,
            Manager::Script(script) => match self.script_up(script, "start", hands).await {
                Err(failure) if self.fallback.is_some() => {
                    hands.progress(&format!("{failure}; it is run by its fallback instead"), None);
                    self.fallback_up(hands)
                        .await
                        .map_err(|second| second.because(format!("its script could not start it either: {failure}")))
                }
                other => other,
            },
            Manager::None => self.fallback_up(hands).await,
        }
    }

    async fn fallback_up(&self, hands: &Actuator) -> Result<(), Failure> {
        let mut log = String::new();
        let Some(daemon) = self.daemon(&mut log) else {
            return Err(Failure::new(format!("nothing on this host can start `{}`", self.name)));
        };
        hands.daemon_up(&daemon, self.start_limit()).await.map(|_| ())
    }

    /// Has the script start it, and waits until it says that it runs.
    async fn script_up(&self, script: &Script, action: &str, hands: &Actuator) -> Result<(), Failure> {
        let begun = Instant::now();
        let ended = hands.run_script(script, action, self.start_limit()).await?;
        // A script that fails may have started it all the same; one that succeeds may be too early.
        let grace = self.start_limit.min(Self::SCRIPT_GRACE);
        loop {
            let state = hands.script_state(script).await?;
            let mut log = String::new();
            let daemon = self.daemon(&mut log);
            if state == ScriptState::Running
                || daemon.map_or(Ok(false), |daemon| hands.daemon(&daemon).map(|found| !found.is_empty()))?
            {
                return Ok(());
            }
            if !ended.success() {
                return Err(ended.failure());
            }
            if let (ScriptState::Unknown(failure), None) = (state, daemon) {
                return Err(failure);
            }
            if begun.elapsed() >= grace {
                return Err(Failure::new(format!("its script ends well, yet `{}` does not run", self.name)));
            }
            tokio::time::sleep(Self::RETRY).await;
        }
    }

    /// How long a service may take to run after its script has ended well.
    const SCRIPT_GRACE: Duration = Duration::from_secs(10);
    /// How often what is awaited is looked at.
    const RETRY: Duration = Duration::from_millis(200);

    async fn stop(&self, seen: &Seen, hands: &Actuator) -> Result<(), Failure> {
        let mut log = String::new();
        if let (true, Some(daemon)) = (seen.by_fallback, self.daemon(&mut log)) {
            return hands.daemon_down(&daemon, self.stop_limit).await;
        }
        match &seen.manager {
            Manager::Systemd => hands.systemctl("stop", &self.name, self.stop_limit()).await,
            Manager::Script(script) => {
                let begun = Instant::now();
                hands.run_script(script, "stop", self.stop_limit()).await?.expect_success()?;
                while hands.script_state(script).await? == ScriptState::Running {
                    if begun.elapsed() >= self.stop_limit {
                        return Err(Failure::timeout("stop_limit", self.stop_limit)
                            .within(format!("`{}` still runs after its script has stopped it", self.name)));
                    }
                    tokio::time::sleep(Self::RETRY).await;
                }
                Ok(())
            }
            Manager::None => Ok(()),
        }
    }

    async fn restart(&self, seen: &Seen, hands: &Actuator) -> Result<(), Failure> {
        match &seen.manager {
            Manager::Systemd if !seen.by_fallback => hands.unit_up("restart", &self.name, self.start_limit()).await,
            // Its own restart may look at the configuration before it stops anything.
            Manager::Script(script) if seen.state == "running" && !seen.by_fallback => {
                self.script_up(script, "restart", hands).await
            }
            manager => {
                if seen.state == "running" {
                    self.stop(seen, hands).await?;
                }
                self.start(manager, hands).await
            }
        }
    }

    async fn reload(&self, seen: &Seen, hands: &Actuator) -> Result<(), Failure> {
        let hint = "`state = restarted` always works";
        let mut log = String::new();
        if let (true, Some(daemon)) = (seen.by_fallback, self.daemon(&mut log)) {
            return hands.daemon_reload(&daemon);
        }
        match &seen.manager {
            Manager::Systemd => {
                let reloaded = hands.systemctl("reload", &self.name, self.start_limit()).await;
                reloaded.map_err(|failure| failure.hint(hint))
            }
            Manager::Script(script) => {
                let ended = hands.run_script(script, "reload", self.start_limit()).await?;
                ended.expect_success().map(|_| ()).map_err(|failure| failure.hint(hint))
            }
            Manager::None => Ok(()),
        }
    }

    /// Waits until the service is of use.
    async fn await_ready(&self, hands: &Actuator) -> Result<(), Failure> {
        if self.ready.is_empty() {
            return Ok(());
        }
        let begun = Instant::now();
        loop {
            let ended = hands.ask(&Program::new(self.ready.iter().cloned())).await?;
            if ended.success() {
                return Ok(());
            }
            let seen = self.look(hands).await?;
            let gone = seen.state == "stopped";
            if gone || begun.elapsed() >= self.start_limit {
                let failure = ended.failure();
                let why = if gone {
                    "it has ended meanwhile".to_owned()
                } else {
                    Failure::timeout("start_limit", self.start_limit).message
                };
                let failure = failure.within(format!("`{}` was started, but is not ready", self.name)).because(why);
                let mut log = String::new();
                // A manager's log is not there; the fallback's may be of an earlier time, when a manager runs the service.
                return Err(match self.daemon(&mut log).filter(|_| gone || seen.by_fallback) {
                    Some(daemon) => hands.with_log(failure, &daemon),
                    None => failure,
                });
            }
            tokio::time::sleep(Self::RETRY).await;
        }
    }

    async fn enable(&self, enabled: bool, manager: &Manager, hands: &Actuator) -> Result<(), Failure> {
        match manager {
            Manager::Systemd => {
                let verb = if enabled { "enable" } else { "disable" };
                hands.systemctl(verb, &self.name, self.start_limit()).await
            }
            Manager::Script(script) => hands.enable_script(script, enabled).await,
            Manager::None => Ok(()),
        }
    }
}

impl Resource for Service {
    fn check(&self) -> Result<(), ArgError> {
        let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '@' | ':' | '\\');
        let first = self.name.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
        if !first || !self.name.chars().all(inner) || self.name.len() > 200 {
            return Err(ArgError::new("name", format!("`{}` is not the name of a service", self.name)));
        }
        match (self.state, self.enabled) {
            (None, None) => Err(ArgError::new("state", "is required, or `enabled`: there is nothing to keep")),
            (Some(Run::Restarted | Run::Reloaded), Some(_)) => Err(ArgError::new(
                "enabled",
                "is kept by a task with `state = running` or `stopped`; this one only acts",
            )),
            _ if self.ready.first().is_some_and(String::is_empty) => Err(ArgError::new("ready", "names no program")),
            _ => Ok(()),
        }
    }

    fn nature(&self) -> Nature {
        match self.state {
            Some(Run::Restarted | Run::Reloaded) => Nature::Action { verify: false },
            _ => Nature::State,
        }
    }

    fn desired(&self) -> State {
        let state = self.state.map(|state| ("state", Value::from(state.show())));
        let enabled = self.enabled.map(|enabled| ("enabled", Value::Bool(enabled)));
        State::present(state.into_iter().chain(enabled))
    }

    async fn observe(&self, probe: &Probe) -> Result<Observed, Failure> {
        let seen = self.look(probe).await?;
        let mut output = Map::new();
        let manager = match &seen.manager {
            _ if seen.by_fallback => "fallback",
            Manager::Systemd => "systemd",
            Manager::Script(_) => "sysvinit",
            Manager::None => "fallback",
        };
        output.insert("manager".to_owned(), Value::from(manager));
        // Nothing to be read again where nothing runs.
        let idle = self.state == Some(Run::Reloaded) && seen.state == "stopped";
        let state = if idle { Run::Reloaded.show() } else { seen.state };
        let mut fields = vec![("state", Value::from(state))];
        if let Some(wanted) = self.enabled {
            let word = self.at_boot(&seen.manager, probe).await?;
            let enabled = match word.as_deref() {
                Some("enabled" | "enabled-runtime") => Value::Bool(true),
                Some("disabled") => Value::Bool(false),
                // Masked is more than disabled, and not fanli's to undo.
                Some("masked" | "masked-runtime") if !wanted => Value::Bool(false),
                Some(masked @ ("masked" | "masked-runtime")) => Value::from(masked),
                // `static`, `generated`, `alias`: other units decide. Nothing at all: nobody does.
                _ => Value::Bool(wanted),
            };
            fields.push(("enabled", enabled));
            output.insert("at_boot".to_owned(), Value::from(word.as_deref().unwrap_or("unsupported")));
        }
        Ok(Observed { state: State::present(fields), output })
    }

    async fn apply(&self, change: &Change, hands: &Actuator) -> Result<Map, Failure> {
        let seen = self.look(hands).await?;
        if let (Some(state), true) = (self.state, change.touches("state")) {
            match state {
                Run::Running => self.start(&seen.manager, hands).await?,
                Run::Stopped => self.stop(&seen, hands).await?,
                Run::Restarted => self.restart(&seen, hands).await?,
                Run::Reloaded => self.reload(&seen, hands).await?,
            }
            if matches!(state, Run::Running | Run::Restarted) {
                self.await_ready(hands).await?;
            }
        }
        if let (Some(enabled), true) = (self.enabled, change.touches("enabled")) {
            self.enable(enabled, &seen.manager, hands).await?;
        }
        Ok(Map::new())
    }
}
