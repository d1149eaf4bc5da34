//! `attachments`: what is attached to a host's containers, and what its watcher makes of it. It only looks.
//!
//! The watcher leaves what it knows in a file; whether it lives is told by its lock, which dies with it. What is attached is told
//! by the records, so what no watcher has seen yet is told as well.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::attach::{Recorded, all_recorded};
use super::logs::Kept;
use super::looked;
use super::refreshers::Refreshers;
use super::rollout::Rollouts;
use super::{Observed, Resource};
use crate::change::{Change, Fields, State};
use crate::failure::{Context as _, Failure};
use crate::system::{Actuator, Probe, fs};
use crate::value::Map;

/// The longest status that is read, in bytes: some thousand attachments.
const MOST_STATUS: u64 = 8 << 20;

crate::kind! {
    /// Looks at what is attached to a host's containers, whether its watcher runs, and what their refreshers say; changes nothing.
    ///
    /// After `attachments as seen` later tasks see what it found. `fanli status PLAYBOOK` shows the same for all hosts.
    pub struct Attachments = "attachments" {
        /// Only those of these containers; all by default.
        containers: Vec<String> = Vec::new(),
    }
    results {
        "running": "whether a watcher runs",
        "watcher": "what it knows: `pid`, `version`, `started`, `docker` (why the daemon does not answer), and `attachments`: each has `container`, `network`, `interface`, `address`, `parent`, `condition` (`plugged`, `stopped`, `failed`, `unknown`), and where there is one `why`, `hint`, `done`, `done_at`; and where `logs` tasks have declared folders `logs`: `at`, `folders`, `files`, `bytes`, `trouble`, and with `ship` also `shipped`: `at`, `waiting`, `bytes`, `oldest`, `trouble`",
        "rollout": "what the kind `slots` gives, where there are slots",
        "refreshers": "where a `fanli refresh` runs in a container: `seen`, each with `container`, `directory`, `loaded` (whether its program has what stands there), and when something is wrong `trouble`, `since`; `unseen` (why containers could not be looked at)",
    }
    example "attachments as seen"
}

/// What became of one attachment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    /// Not looked at yet.
    Unknown,
    /// It is as declared.
    Plugged,
    /// Its container does not run.
    Stopped,
    /// It cannot be brought about; tried again.
    Failed,
}

/// One attachment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// The container.
    pub container: String,
    /// The `network` block.
    pub network: String,
    /// The interface in the container.
    pub interface: String,
    /// Its address; empty when the record cannot be read.
    pub address: String,
    /// The host's network card.
    pub parent: String,
    /// The address book that gave the address, and its revision there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<String>,
    /// See `store`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<i64>,
    /// What became of it.
    pub condition: Condition,
    /// Why not, where it is not plugged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// The way out, where one is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// The last thing that was done, and when: microseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub done: Option<String>,
    /// See `done`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub done_at: Option<u64>,
}

impl Attachment {
    /// What the record itself says.
    pub(crate) fn of(recorded: &Recorded) -> Self {
        let attach = recorded.attach();
        Self {
            container: attach.container.clone(),
            network: attach.network.clone(),
            interface: attach.interface.clone(),
            address: recorded.address().to_string(),
            parent: recorded.card().to_owned(),
            store: attach.store.clone(),
            revision: attach.revision,
            condition: Condition::Unknown,
            why: None,
            hint: None,
            done: None,
            done_at: None,
        }
    }

    /// A record that cannot be read.
    pub(crate) fn unreadable(name: &str) -> Self {
        let empty = String::new;
        Self {
            container: name.to_owned(),
            network: empty(),
            interface: empty(),
            address: empty(),
            parent: empty(),
            store: None,
            revision: None,
            condition: Condition::Failed,
            why: None,
            hint: None,
            done: None,
            done_at: None,
        }
    }
}

/// Everything that the watcher knows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Its process.
    pub pid: u32,
    /// fanli's version.
    pub version: String,
    /// When it was started: seconds since 1970.
    pub started: u64,
    /// Why the Docker daemon does not answer; nothing when it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub docker: Option<String>,
    /// All attachments of the host.
    pub attachments: Vec<Attachment>,
    /// What became of the host's log files; nothing where no `logs` task has declared any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logs: Option<Kept>,
}

/// What is attached on one host, and whether a watcher keeps it so.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watched {
    /// Whether a watcher runs: the kernel frees its lock however it ends.
    pub running: bool,
    /// What it left, for what is recorded now; of one that does not run, nothing that may have changed since.
    pub watcher: Status,
    /// The slots of the host, and whether its rollouts are halted.
    #[serde(default, skip_serializing_if = "Rollouts::is_empty")]
    pub rollout: Rollouts,
    /// What refreshers in the host's containers say.
    #[serde(default, skip_serializing_if = "Refreshers::is_empty")]
    pub refreshers: Refreshers,
}

impl Watched {
    /// Looks at this host.
    ///
    /// # Errors
    /// What the watcher left, or the folder of records, cannot be read.
    pub async fn look(probe: &Probe) -> Result<Self, Failure> {
        let running = fs::holder(lock_file(probe.state_dir()))?.is_some();
        let mut watcher = left(probe)?.unwrap_or_default();
        let known = std::mem::take(&mut watcher.attachments);
        for (name, recorded) in all_recorded(probe)? {
            let mut attachment = match recorded {
                Ok(recorded) => Attachment::of(&recorded),
                Err(failure) => {
                    Attachment { why: Some(failure.to_string()), hint: failure.hint, ..Attachment::unreadable(&name) }
                }
            };
            let same = |known: &&Attachment| {
                (&known.container, &known.network, &known.address)
                    == (&attachment.container, &attachment.network, &attachment.address)
            };
            if let Some(known) = known.iter().find(same) {
                attachment.condition = if running { known.condition } else { Condition::Unknown };
                attachment.why = attachment.why.or_else(|| known.why.clone().filter(|_| running));
                attachment.hint = attachment.hint.or_else(|| known.hint.clone().filter(|_| running));
                attachment.done.clone_from(&known.done);
                attachment.done_at = known.done_at;
            }
            watcher.attachments.push(attachment);
        }
        Ok(Self { running, watcher, rollout: Rollouts::look(probe).await?, refreshers: Refreshers::look(probe).await })
    }

    /// Whether something is attached that nobody keeps, or that cannot be kept; a rollout has left a slot or a server half-way; log files
    /// could not be kept; or a refresher has refused the configuration that stands in its container.
    pub fn is_wrong(&self) -> bool {
        let failed = self.watcher.attachments.iter().any(|attachment| attachment.condition == Condition::Failed);
        let rollouts = self.rollout.is_wrong();
        let logs = self.watcher.logs.as_ref().is_some_and(|kept| kept.all_trouble().next().is_some());
        failed
            || rollouts
            || logs
            || self.refreshers.is_wrong()
            || (!self.running && !self.watcher.attachments.is_empty())
    }

    /// Reads what a step of kind `attachments` gave.
    ///
    /// # Errors
    /// It is something else.
    pub fn from_output(output: &Map) -> Result<Self, Failure> {
        looked::from_output(output, "attachments")
    }

    fn to_output(&self) -> Result<Map, Failure> {
        looked::to_output(self, "attachments")
    }
}

/// The watcher's own folder.
pub fn folder(state_dir: &Path) -> PathBuf {
    state_dir.join("watch")
}

/// Held by the watcher as long as it lives.
pub fn lock_file(state_dir: &Path) -> PathBuf {
    folder(state_dir).join("lock")
}

/// Where the watcher leaves what it knows.
pub fn status_file(state_dir: &Path) -> PathBuf {
    folder(state_dir).join("status.json")
}

/// What the last watcher of this host left; `None` when there never was one.
fn left(probe: &Probe) -> Result<Option<Status>, Failure> {
    let path = status_file(probe.state_dir());
    // Without the state folder there was none.
    if !probe.exists(folder(probe.state_dir()))? {
        return Ok(None);
    }
    let Some(text) = probe.read(&path, MOST_STATUS)? else { return Ok(None) };
    serde_json::from_slice(&text)
        .with_context(|| format!("{} is damaged", path.display()))
        .map(Some)
        .map_err(|failure| failure.hint("remove it: the watcher writes it again"))
}

impl Resource for Attachments {
    fn desired(&self) -> State {
        State::Present(Fields::new())
    }

    async fn observe(&self, probe: &Probe) -> Result<Observed, Failure> {
        let mut watched = Watched::look(probe).await?;
        let wanted = |one: &Attachment| self.containers.is_empty() || self.containers.contains(&one.container);
        watched.watcher.attachments.retain(wanted);
        watched.refreshers.seen.retain(|one| self.containers.is_empty() || self.containers.contains(&one.container));
        let output = watched.to_output()?;
        Ok(Observed { state: State::Present(Fields::new()), output })
    }

    async fn apply(&self, _change: &Change, _hands: &Actuator) -> Result<Map, Failure> {
        Ok(Map::new())
    }
}
