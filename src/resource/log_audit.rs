//! `log_audit`: whether every log file of a host's declared folders is accounted for. It only looks.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::logs::declared;
use super::{Observed, Resource, looked};
use crate::change::{Change, Fields, State};
use crate::failure::{Context as _, Failure};
use crate::logs::audit::{Audit, Scope};
use crate::logs::policy::Place;
use crate::system::{Actuator, Probe};
use crate::value::Map;

/// The most bytes of findings that are told: an answer crosses the wire in one frame of 1 MiB, and names are what containers make them.
const MOST_FOUND: usize = 256 * 1024;

crate::kind! {
    /// Reads the log files that `logs` tasks have declared on a host, and accounts for each; changes nothing.
    ///
    /// After `log_audit as seen` later tasks see what it found. `fanli logs audit PLAYBOOK` shows the same for all hosts. It reads every file: give it time with
    /// `timeout`.
    pub struct LogAudit = "log_audit" {
        /// Only these; all by default.
        folders: Vec<String> = Vec::new(),
        /// Only files whose period ended no longer ago.
        since: Option<Duration>,
        /// Only the file of this name, with all that happened to it.
        file: Option<String>,
    }
    results {
        "folders": "each has `path`, `whole` (files that hold what their seals say), `writing`, `left`, `unsealed`, `dropped_lines` and `dropped_bytes`, with `file` also `events`: `segment`, `at`, `event` (`begun`, `closed`, `stored`, `removed`), `detail`; with `ship` also `copies`: `to`, `stored`, `found`, `waiting`, `removed`, `lost`; `findings` where a file is not accounted for: `segment`, `wrong` (`changed`, `gone`, `no_copy`), `why`; and `trouble` where something could not be looked at",
    }
    example "log_audit as seen { since = 7d  timeout = 1h }"
}

/// What is known of the declared folders of a host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Audits {
    /// One for each.
    pub folders: Vec<Audit>,
}

impl Audits {
    /// Accounts for the files of these folders, or of all that are declared: each with the target that is declared for it.
    ///
    /// # Errors
    /// What is declared cannot be read.
    pub fn look(probe: &Probe, folders: &[PathBuf], scope: &Scope) -> Result<Self, Failure> {
        let (mut places, mut audits) = (Vec::new(), Vec::new());
        for logs in declared(probe)? {
            match logs {
                Ok(logs) => places.push(logs.place()),
                Err(failure) => {
                    audits.push(Audit { trouble: vec![failure.to_string()], ..Audit::default() });
                }
            }
        }
        if !folders.is_empty() {
            let of = |path: &PathBuf| places.iter().find(|place| place.path == *path).cloned();
            let place = |path: &PathBuf| of(path).unwrap_or_else(|| Place { path: path.clone(), ship: None });
            (places, audits) = (folders.iter().map(place).collect(), Vec::new());
        }
        places.sort_by(|one, other| one.path.cmp(&other.path));
        audits.extend(places.iter().map(|place| Audit::of(place, scope, probe.state_dir())));
        audits.iter_mut().fold(MOST_FOUND, |left, audit| audit.cut(left));
        Ok(Self { folders: audits })
    }

    /// What another host's look gave.
    ///
    /// # Errors
    /// It is something else.
    pub fn from_output(output: &Map) -> Result<Self, Failure> {
        looked::from_output(output, "audit of logs")
    }
}

impl Resource for LogAudit {
    fn desired(&self) -> State {
        State::Present(Fields::new())
    }

    async fn observe(&self, probe: &Probe) -> Result<Observed, Failure> {
        let (probe, scope) = (probe.clone(), Scope { since: self.since, segment: self.file.clone() });
        let folders: Vec<PathBuf> = self.folders.iter().map(PathBuf::from).collect();
        // It may read for hours, while the host must not fall silent.
        let look = tokio::task::spawn_blocking(move || Audits::look(&probe, &folders, &scope));
        let audits = look.await.context("the audit broke")??;
        Ok(Observed { state: State::Present(Fields::new()), output: looked::to_output(&audits, "audits of logs")? })
    }

    async fn apply(&self, _change: &Change, _hands: &Actuator) -> Result<Map, Failure> {
        Ok(Map::new())
    }
}
