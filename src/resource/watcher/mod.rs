//! `watcher`: the process on a host that keeps what runs have attached.

mod units;

use std::path::Path;
use std::time::Duration;

use self::units::MARK;
use super::attachments::lock_file;
use super::param::{HostPath, Presence};
use super::service::{Fallback, Run, Service};
use super::{ArgError, Observed, Resource};
use crate::change::{Change, Datum, Fields, State, Verb, between};
use crate::failure::Failure;
use crate::system::fs::{Attrs, holder};
use crate::system::process::Program;
use crate::system::{Actuator, Probe};
use crate::value::{Map, Value};

/// What fields say whose right value only the host knows.
const IN_PLACE: &str = "in place";
/// Where fanli is installed on hosts to stay.
pub(super) const PROGRAM: &str = "/usr/local/lib/fanli/fanli";
/// How long a start or a stop may take: limits `watcher start`, `watcher stop`.
const LIMIT: Duration = Duration::from_secs(30);

crate::choice! {
    /// What runs the watcher.
    pub enum Manager {
        /// systemd where it runs, else an init script where the host has them, else nobody.
        Auto = "auto",
        /// A unit of systemd.
        Systemd = "systemd",
        /// A script in `/etc/init.d`.
        Sysvinit = "sysvinit",
        /// A program of supervisor, which must run on the host.
        Supervisor = "supervisor",
        /// Nobody: a session of its own, started again by the next run.
        None = "none",
    }
}

crate::kind! {
    /// Keeps the watcher running, which keeps the interfaces of this host's containers.
    ///
    /// An interface that `attach` plugged is lost whenever its container is started again: by hand, by its restart policy, with the
    /// Docker daemon, with the host. The watcher plugs it again within milliseconds, without a run and without the controller, from
    /// what `attach` has left on the host. It listens to Docker and to the kernel, and looks at everything every now and then.
    /// `fanli status` on the host tells what it does; docs/watcher.md tells the rest.
    ///
    /// fanli installs a copy of itself for it, and starts it anew when that, or how it is started, changes. A start or a stop of
    /// the watcher touches no interface.
    pub struct Watcher = "watcher" {
        /// The name of its unit.
        name: String = "fanli-watch".to_owned(),
        /// What runs it.
        manager: Manager = Manager::Auto,
        /// How often it looks at every container, besides what events tell.
        every: Duration = Duration::from_secs(30),
        /// How many containers it plugs at the same time.
        parallel: i64 = 8,
        /// Where fanli is installed for it.
        program: HostPath = HostPath(PROGRAM.to_owned()),
        /// Where its log goes, unless systemd's journal has it.
        log: HostPath = HostPath("/var/log/fanli-watch.log".to_owned()),
        /// Supervisor's folder of programs.
        programs: HostPath = HostPath("/etc/supervisor/conf.d".to_owned()),
        /// Whether it should be there.
        state: Presence = Presence::Present,
    }
    results {
        "manager": "`systemd`, `sysvinit`, `supervisor` or `none`: what runs it",
    }
    example "watcher { every = 1m }"
}

/// What runs the watcher on this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Managed {
    Systemd,
    Sysvinit,
    Supervisor,
    Nobody,
}

impl Managed {
    const ALL: [Self; 4] = [Self::Systemd, Self::Sysvinit, Self::Supervisor, Self::Nobody];

    fn word(self) -> &'static str {
        match self {
            Self::Systemd => "systemd",
            Self::Sysvinit => "sysvinit",
            Self::Supervisor => "supervisor",
            Self::Nobody => "none",
        }
    }
}

impl Watcher {
    fn managed(&self, probe: &Probe) -> Result<Managed, Failure> {
        let scripts = || {
            let links = probe.program("update-rc.d")?.is_some() || probe.program("chkconfig")?.is_some();
            Ok::<_, Failure>(links && probe.exists("/etc/init.d")?)
        };
        Ok(match self.manager {
            Manager::Auto if probe.exists("/run/systemd/system")? => Managed::Systemd,
            Manager::Auto if scripts()? => Managed::Sysvinit,
            Manager::Auto | Manager::None => Managed::Nobody,
            Manager::Systemd => Managed::Systemd,
            Manager::Sysvinit => Managed::Sysvinit,
            Manager::Supervisor => Managed::Supervisor,
        })
    }

    /// It as the kind `service` sees it.
    fn service(&self, managed: Managed, probe: &Probe, state: Run, enabled: bool) -> Service {
        let command = self.command(&probe.state_dir().to_string_lossy());
        let fallback = Fallback { command, pid_file: None, log: Some(self.log.0.clone()) };
        Service {
            name: self.name.clone(),
            state: Some(state),
            enabled: (state != Run::Restarted).then_some(enabled),
            fallback: (managed == Managed::Nobody).then_some(fallback),
            ready: Vec::new(),
            start_limit: LIMIT,
            stop_limit: LIMIT,
        }
    }

    /// Files of this watcher for managers that do not run it.
    fn leftovers(&self, managed: Option<Managed>, probe: &Probe) -> Result<Vec<(Managed, String)>, Failure> {
        let mut found = Vec::new();
        for other in Managed::ALL.into_iter().filter(|other| Some(*other) != managed) {
            let Some(path) = self.unit_path(other) else { continue };
            if probe.read_small(&path)?.is_some_and(|text| text.contains(MARK)) {
                found.push((other, path));
            }
        }
        Ok(found)
    }

    /// How it runs: `running`, `stopped`, or as something that is no longer declared.
    fn runs(&self, probe: &Probe) -> Result<String, Failure> {
        let Some(note) = holder(lock_file(probe.state_dir()))? else { return Ok("stopped".to_owned()) };
        let pid = note.strip_prefix("process ").and_then(|rest| rest.split(',').next()?.parse().ok());
        let Some((program, words)) = pid.and_then(|pid| probe.process(pid)) else {
            return Ok("running, as a process that cannot be seen".to_owned());
        };
        let wanted = self.command(&probe.state_dir().to_string_lossy());
        Ok(if program != self.program.0 {
            format!("running {program}")
        } else if words.get(..wanted.len()) == Some(&wanted[..]) {
            "running".to_owned()
        } else {
            "running with other arguments".to_owned()
        })
    }

    async fn supervisorctl(&self, words: &[&str], hands: &Actuator) -> Result<(), Failure> {
        let program = Program::new(["supervisorctl"]).args(words.iter().copied());
        hands.run(&program).await?.expect_success().map(drop)
    }

    /// Stops what runs it, and takes its file away.
    async fn leave(&self, managed: Managed, path: Option<&str>, hands: &Actuator) -> Result<(), Failure> {
        match managed {
            Managed::Supervisor => {
                if let Some(path) = path {
                    hands.remove_file(path)?;
                }
                self.supervisorctl(&["update", &self.name], hands).await
            }
            _ => {
                let service = self.service(managed, hands, Run::Stopped, false);
                settle(&service, hands).await?;
                if let Some(path) = path {
                    hands.remove_file(path)?;
                }
                match managed {
                    Managed::Systemd => daemon_reload(hands).await,
                    _ => Ok(()),
                }
            }
        }
    }
}

async fn daemon_reload(hands: &Actuator) -> Result<(), Failure> {
    hands.run(&Program::new(["systemctl", "daemon-reload"])).await?.expect_success().map(drop)
}

/// What the engine does with a task of its own.
async fn settle(service: &Service, hands: &Actuator) -> Result<(), Failure> {
    match between(&service.desired(), &service.observe(hands).await?.state) {
        Some(change) => service.apply(&change, hands).await.map(drop),
        None => Ok(()),
    }
}

impl Resource for Watcher {
    fn check(&self) -> Result<(), ArgError> {
        let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        if self.name.is_empty() || self.name.len() > 60 || !self.name.chars().all(fine) {
            return Err(ArgError::new("name", format!("`{}` is not a name of a-z, 0-9, `-` and `_`", self.name)));
        }
        if !(Duration::from_secs(1)..=Duration::from_secs(3600)).contains(&self.every) {
            return Err(ArgError::new("every", "is not between 1s and 1h"));
        }
        if !(1..=256).contains(&self.parallel) {
            return Err(ArgError::new("parallel", "is not between 1 and 256"));
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '_' | '-');
        for (field, path) in [("program", &self.program), ("log", &self.log), ("programs", &self.programs)] {
            if !path.0.chars().all(plain) {
                return Err(ArgError::new(field, format!("`{}`: only letters, digits, `/`, `.`, `_`, `-`", path.0)));
            }
        }
        Ok(())
    }

    fn desired(&self) -> State {
        match self.state {
            Presence::Absent => State::Absent,
            Presence::Present => State::Present(Fields::from([
                ("program".to_owned(), IN_PLACE.into()),
                ("unit".to_owned(), IN_PLACE.into()),
                ("leftover".to_owned(), Datum::Absent),
                ("state".to_owned(), "running".into()),
                ("enabled".to_owned(), true.into()),
            ])),
        }
    }

    async fn observe(&self, probe: &Probe) -> Result<Observed, Failure> {
        let managed = self.managed(probe)?;
        let program = match probe.is_own_program(Path::new(&self.program.0))? {
            None => Datum::Absent,
            Some(true) => IN_PLACE.into(),
            Some(false) => "another version".into(),
        };
        let unit = match self.unit_path(managed) {
            None => IN_PLACE.into(),
            Some(path) => match probe.read_small(&path)? {
                None => Datum::Absent,
                Some(text) if text == self.unit(managed, &probe.state_dir().to_string_lossy()) => IN_PLACE.into(),
                Some(text) if text.contains(MARK) => "of an earlier declaration".into(),
                Some(_) => {
                    return Err(Failure::new(format!("{path} is there, and fanli did not make it"))
                        .hint("remove it, or choose another `name`"));
                }
            },
        };
        let leftovers = self.leftovers(Some(managed), probe)?;
        let runs = self.runs(probe)?;
        let output = Map::from([("manager".to_owned(), Value::from(managed.word()))]);
        let there = program != Datum::Absent
            || (unit != Datum::Absent && managed != Managed::Nobody)
            || !leftovers.is_empty()
            || runs != "stopped";
        if !there {
            return Ok(Observed { state: State::Absent, output });
        }
        let mut fields = Fields::from([
            ("program".to_owned(), program),
            ("unit".to_owned(), unit.clone()),
            ("state".to_owned(), runs.into()),
        ]);
        let paths: Vec<Value> = leftovers.into_iter().map(|(_, path)| Value::Str(path)).collect();
        if !paths.is_empty() {
            fields.insert("leftover".to_owned(), Value::List(paths).into());
        }
        let enabled = match managed {
            // A run that was killed may have written its file without telling systemd.
            Managed::Systemd if probe.unit(&self.name).await?.is_none() => false.into(),
            Managed::Systemd | Managed::Sysvinit if unit != Datum::Absent => {
                let service = self.service(managed, probe, Run::Running, true);
                service.observe(probe).await?.state.field("enabled").cloned().unwrap_or(Datum::Absent)
            }
            Managed::Systemd | Managed::Sysvinit => false.into(),
            // Its file is all that it takes; nobody starts it at boot where nobody can.
            Managed::Supervisor | Managed::Nobody => true.into(),
        };
        fields.insert("enabled".to_owned(), enabled);
        Ok(Observed { state: State::Present(fields), output })
    }

    async fn apply(&self, change: &Change, hands: &Actuator) -> Result<Map, Failure> {
        let managed = self.managed(hands)?;
        let keep = (change.verb != Verb::Remove).then_some(managed);
        for (other, path) in self.leftovers(keep, hands)? {
            self.leave(other, Some(&path), hands).await?;
        }
        let program = Path::new(&self.program.0);
        if change.verb == Verb::Remove {
            if managed == Managed::Nobody {
                self.leave(managed, None, hands).await?;
            }
            hands.remove_file(program)?;
            // Only when nothing else is in it.
            if let Some(dir) = program.parent().filter(|dir| dir.ends_with("fanli"))
                && hands.list(dir)?.is_some_and(|names| names.is_empty())
            {
                hands.remove_dir(dir)?;
            }
            return Ok(Map::new());
        }
        install(program, hands)?;
        if let Some(path) = self.unit_path(managed) {
            let text = self.unit(managed, &hands.state_dir().to_string_lossy());
            if hands.read_small(&path)?.as_ref() != Some(&text) {
                let mode = if managed == Managed::Sysvinit { 0o755 } else { 0o644 };
                hands.replace(&path, text.as_bytes(), Attrs::mode(mode))?;
            }
            if managed == Managed::Systemd {
                daemon_reload(hands).await?;
            }
        }
        let runs = self.runs(hands)?;
        if managed == Managed::Supervisor {
            // `update` starts what is new, and starts anew what has another file; what only has another program is told.
            self.supervisorctl(&["update", &self.name], hands).await?;
            if self.runs(hands)? != "running" {
                self.supervisorctl(&["restart", &self.name], hands).await?;
            }
        } else {
            if runs != "running" && runs != "stopped" {
                settle(&self.service(managed, hands, Run::Restarted, true), hands).await?;
            }
            settle(&self.service(managed, hands, Run::Running, true), hands).await?;
        }
        // A start is done before it holds its lock.
        let begun = std::time::Instant::now();
        while self.runs(hands)? != "running" {
            if begun.elapsed() > LIMIT {
                return Err(Failure::timeout("watcher start", LIMIT)
                    .within(format!("the watcher was started by {}, and is {}", managed.word(), self.runs(hands)?))
                    .hint(format!("its log tells why: {}", self.log.0)));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(Map::new())
    }
}

/// Puts this very program there, unless it is there already.
pub(super) fn install(program: &Path, hands: &Actuator) -> Result<(), Failure> {
    if let Some(dir) = program.parent()
        && !hands.exists(dir)?
    {
        hands.make_dir(dir, Attrs::mode(0o755))?;
    }
    if hands.is_own_program(program)? == Some(true) { Ok(()) } else { hands.install_own_program(program) }
}
