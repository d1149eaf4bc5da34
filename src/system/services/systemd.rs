//! systemd, through `systemctl`.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::super::process::Program;
use super::super::{Actuator, Probe};
use crate::failure::Failure;

/// Only there while systemd is process 1 (`sd_booted(3)`).
const BOOTED: &str = "/run/systemd/system";

/// How long a unit must stay up to count as started.
const SETTLE: Duration = Duration::from_secs(1);

/// A unit that systemd knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unit {
    /// `active`, `inactive`, `failed`, `activating`, …
    pub active: String,
}

impl Unit {
    /// `running`, `stopped`, or what lies between.
    pub fn state(&self) -> &str {
        match self.active.as_str() {
            "active" | "reloading" | "refreshing" => "running",
            "inactive" | "failed" => "stopped",
            other => other,
        }
    }
}

impl Probe {
    /// What systemd knows of a unit; `None` where systemd does not run, or does not know it.
    ///
    /// # Errors
    /// systemd does not answer, or cannot load the unit.
    pub async fn unit(&self, name: &str) -> Result<Option<Unit>, Failure> {
        if !self.exists(BOOTED)? {
            return Ok(None);
        }
        let program = Program::new(["systemctl", "show", "--property=LoadState,LoadError,ActiveState", "--", name]);
        read_unit(name, &self.ask(&program).await?.expect_success()?.stdout.text())
    }

    /// `systemctl is-enabled`: `enabled`, `disabled`, `static`, `masked`, …
    ///
    /// # Errors
    /// systemd does not answer.
    pub async fn unit_enabled(&self, name: &str) -> Result<String, Failure> {
        let asked = self.ask(&Program::new(["systemctl", "is-enabled", "--", name])).await?;
        // Its exit code is that of a question: `disabled` is 1. For an init script, lines about its work come first.
        let word = asked.stdout.text().lines().last().unwrap_or_default().trim().to_owned();
        if word.is_empty() { Err(asked.failure()) } else { Ok(word) }
    }
}

impl Actuator {
    /// `systemctl VERB NAME`, to the end of the job.
    ///
    /// # Errors
    /// With the unit's last lines when the job fails; when it does not end within `limit`.
    pub async fn systemctl(&self, verb: &str, name: &str, limit: (&str, Duration)) -> Result<(), Failure> {
        let program = Program::new(["systemctl", verb, "--", name]);
        let Ok(ended) = tokio::time::timeout(limit.1, self.run(&program)).await else {
            return Err(Failure::timeout(limit.0, limit.1).within(format!("`systemctl {verb} {name}` does not end")));
        };
        let ended = ended?;
        if ended.success() { Ok(()) } else { Err(self.with_journal(ended.failure(), name).await?) }
    }

    /// `systemctl start` or `restart`, and a look at whether it stays up: for most units a start is done when the program is
    /// executed, whatever becomes of it.
    ///
    /// # Errors
    /// As [`Actuator::systemctl`]; and when it ends right after its start.
    pub async fn unit_up(&self, verb: &str, name: &str, limit: (&str, Duration)) -> Result<(), Failure> {
        self.systemctl(verb, name, limit).await?;
        let begun = Instant::now();
        while begun.elapsed() < SETTLE {
            let state = self.unit(name).await?.map(|unit| unit.active);
            if state.as_deref() != Some("active") {
                let state = state.unwrap_or_else(|| "gone".to_owned());
                let failure = Failure::new(format!("`{name}` was started, and is {state} right after it"));
                return Err(self.with_journal(failure, name).await?);
            }
            tokio::time::sleep(SETTLE / 5).await;
        }
        Ok(())
    }

    /// The failure with the last lines that the unit said.
    async fn with_journal(&self, failure: Failure, name: &str) -> Result<Failure, Failure> {
        let status = Program::new(["systemctl", "status", "--no-pager", "--full", "--lines=10", "--", name]);
        let told = self.ask(&status).await?.stdout.text();
        // They stand below the head. A program that could not even be executed has said nothing: then the head tells why.
        let (head, log) = told.split_once("\n\n").unwrap_or((&told, ""));
        let process = head.lines().map(str::trim).find(|line| line.starts_with("Process:")).unwrap_or_default();
        let why = if log.trim().is_empty() { process } else { log.trim() };
        Ok(if why.is_empty() { failure } else { failure.because(why) })
    }
}

/// `KEY=VALUE` lines of `systemctl show`.
fn read_unit(name: &str, text: &str) -> Result<Option<Unit>, Failure> {
    let fields: BTreeMap<&str, &str> = text.lines().filter_map(|line| line.split_once('=')).collect();
    let field = |key: &str| fields.get(key).copied().unwrap_or_default();
    match field("LoadState") {
        "loaded" => Ok(Some(Unit { active: field("ActiveState").to_owned() })),
        "masked" if field("ActiveState") == "active" => Ok(Some(Unit { active: "active".to_owned() })),
        "masked" => Ok(Some(Unit { active: "inactive".to_owned() })),
        "not-found" | "stub" => Ok(None),
        other => {
            Err(Failure::new(format!("systemd cannot load the unit of `{name}`: {other}")).because(field("LoadError")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::read_unit;

    #[test]
    fn units() {
        let state = |text: &str| read_unit("x", text).unwrap().map(|unit| unit.state().to_owned());
        assert_eq!(state("LoadState=loaded\nActiveState=active\n").as_deref(), Some("running"));
        assert_eq!(state("LoadState=loaded\nActiveState=failed\n").as_deref(), Some("stopped"));
        assert_eq!(state("LoadState=loaded\nActiveState=activating\n").as_deref(), Some("activating"));
        assert_eq!(state("LoadState=masked\nActiveState=inactive\n").as_deref(), Some("stopped"));
        assert_eq!(state("LoadState=not-found\nActiveState=inactive\n"), None);
        assert!(read_unit("x", "LoadState=bad-setting\nLoadError=org.x \"no\"\n").is_err());
    }
}
