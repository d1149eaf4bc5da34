//! `log_folders`: what a host's declared folders of log files hold. It only looks.

use serde::{Deserialize, Serialize};

use super::logs::declared;
use super::looked;
use super::{Observed, Resource};
use crate::change::{Change, Fields, State};
use crate::failure::Failure;
use crate::logs::survey::Survey;
use crate::system::{Actuator, Probe};
use crate::value::Map;

crate::kind! {
    /// Looks at the folders of log files that `logs` tasks have declared on a host, and changes nothing.
    ///
    /// After `log_folders as seen` later tasks see what it found. `fanli logs status PLAYBOOK` shows the same for all hosts.
    pub struct LogFolders = "log_folders" {
        /// Only these; all by default.
        folders: Vec<String> = Vec::new(),
    }
    results {
        "folders": "each has `path`, `files`, `bytes`, `free` (bytes on its disk), `writing` (how many files are), `dropped_lines` and `dropped_bytes` (left out in the last day), with `ship` also `copies`: `to`, `waiting`, `bytes`, `oldest`; and `trouble` where something could not be looked at",
    }
    example "log_folders as seen"
}

/// The declared folders of a host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Folders {
    /// One for each.
    pub folders: Vec<Survey>,
}

impl Folders {
    /// Looks at them.
    ///
    /// # Errors
    /// What is declared cannot be read.
    pub fn look(probe: &Probe) -> Result<Self, Failure> {
        let survey = |logs: Result<super::logs::Logs, Failure>| match logs {
            Ok(logs) => Survey::of(&logs.place(), probe.state_dir()),
            Err(failure) => Survey { trouble: vec![failure.to_string()], ..Survey::default() },
        };
        let mut folders: Vec<Survey> = declared(probe)?.into_iter().map(survey).collect();
        folders.sort_by(|one, other| one.path.cmp(&other.path));
        Ok(Self { folders })
    }

    /// What another host's look gave.
    ///
    /// # Errors
    /// It is something else.
    pub fn from_output(output: &Map) -> Result<Self, Failure> {
        looked::from_output(output, "folders of logs")
    }

    fn to_output(&self) -> Result<Map, Failure> {
        looked::to_output(self, "folders of logs")
    }
}

impl Resource for LogFolders {
    fn desired(&self) -> State {
        State::Present(Fields::new())
    }

    async fn observe(&self, probe: &Probe) -> Result<Observed, Failure> {
        let mut found = Folders::look(probe)?;
        found.folders.retain(|survey| self.folders.is_empty() || self.folders.contains(&survey.path));
        let output = found.to_output()?;
        Ok(Observed { state: State::Present(Fields::new()), output })
    }

    async fn apply(&self, _change: &Change, _hands: &Actuator) -> Result<Map, Failure> {
        Ok(Map::new())
    }
}
