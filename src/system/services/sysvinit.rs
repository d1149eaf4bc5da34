//! Scripts in `/etc/init.d`, and the links that start them at boot.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::super::process::{Ended, Program};
use super::super::{Actuator, Probe};
use crate::failure::Failure;

/// The runlevels of a machine that is up.
const RUNLEVELS: [u8; 4] = [2, 3, 4, 5];

/// A script that starts and stops a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    name: String,
    path: PathBuf,
}

/// What a script says about its service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ScriptState {
    /// It runs.
    Running,
    /// It does not.
    Stopped,
    /// The script cannot tell.
    Unknown(Failure),
}

impl Probe {
    /// The init script of that name.
    pub fn script(&self, name: &str) -> Result<Option<Script>, Failure> {
        let name = name.strip_suffix(".service").unwrap_or(name);
        let path = Path::new("/etc/init.d").join(name);
        let runs = self.stat_following(&path)?.is_some_and(|entry| entry.mode & 0o111 != 0);
        Ok(runs.then(|| Script { name: name.to_owned(), path }))
    }

    /// What the script says about its service.
    ///
    /// # Errors
    /// It cannot be run.
    pub async fn script_state(&self, script: &Script) -> Result<ScriptState, Failure> {
        Ok(read_status(&script.path, &self.ask(&script.program("status")).await?))
    }

    /// Whether a runlevel of a machine that is up has a link that starts it.
    pub fn script_enabled(&self, script: &Script) -> Result<bool, Failure> {
        for level in RUNLEVELS {
            let names = self.list(format!("/etc/rc{level}.d"))?.unwrap_or_default();
            if names.iter().any(|name| starts(&name.to_string_lossy(), &script.name)) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl Script {
    fn program(&self, action: &str) -> Program {
        Program::new([self.path.to_string_lossy().into_owned()]).arg(action)
    }
}

impl Actuator {
    /// Runs the script with an action. A bad exit code is for the caller to judge.
    ///
    /// # Errors
    /// It cannot be run, or does not end within `limit`.
    pub async fn run_script(&self, script: &Script, action: &str, limit: (&str, Duration)) -> Result<Ended, Failure> {
        let dir = self.state_dir();
        self.own_dirs([dir])?;
        let out = dir.join(format!("service-{}.out", script.name));
        self.run_apart(&script.program(action), &out, limit).await
    }

    /// Sets the links that start it at boot, or turns them.
    ///
    /// # Errors
    /// What `update-rc.d` or `chkconfig` says, or that there is neither.
    pub async fn enable_script(&self, script: &Script, enabled: bool) -> Result<(), Failure> {
        let name = script.name.as_str();
        if self.program("update-rc.d")?.is_some() {
            // Without any link there is nothing to turn.
            self.run(&Program::new(["update-rc.d", name, "defaults"])).await?.expect_success()?;
            let word = if enabled { "enable" } else { "disable" };
            self.run(&Program::new(["update-rc.d", name, word])).await?.expect_success()?;
        } else if self.program("chkconfig")?.is_some() {
            let word = if enabled { "on" } else { "off" };
            self.run(&Program::new(["chkconfig", name, word])).await?.expect_success()?;
        } else {
            return Err(Failure::new(format!("cannot say whether `{name}` starts at boot"))
                .because("there is neither `update-rc.d` nor `chkconfig` on this host"));
        }
        Ok(())
    }
}

/// LSB's exit codes of `status`; scripts without it print how they are used.
fn read_status(path: &Path, ended: &Ended) -> ScriptState {
    let said = format!("{}\n{}", ended.stdout.text(), ended.stderr.text());
    let usage = said.lines().any(|line| line.trim_start().to_lowercase().starts_with("usage:"));
    match ended.code {
        0 if !usage => ScriptState::Running,
        1..=3 if !usage => ScriptState::Stopped,
        _ => ScriptState::Unknown(
            ended
                .failure()
                .within(format!("{} cannot tell whether its service runs", path.display()))
                .hint("declare a `fallback` with a `pid_file`, by which it is found"),
        ),
    }
}

/// `S01docker` for `docker`.
fn starts(link: &str, name: &str) -> bool {
    link.strip_prefix('S')
        .and_then(|rest| rest.strip_suffix(name))
        .is_some_and(|order| !order.is_empty() && order.len() <= 2 && order.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::starts;

    #[test]
    fn links() {
        assert!(starts("S01docker", "docker"));
        assert!(!starts("K01docker", "docker"));
        assert!(!starts("S01mydocker", "docker"));
        assert!(!starts("Sdocker", "docker"));
    }
}
