//! What the host remembers of a container that rollouts change: `STATE/rollout/containers/NAME.json`, replaced atomically and durably.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::super::{SLOT_LOCK, folder, make_folder};
use crate::failure::{Context as _, Failure};
use crate::system::fs::{Attrs, Lock, lock};
use crate::system::snapshot::{Identity, Snapshot};
use crate::system::{Actuator, Probe};

/// The longest record that is read, in bytes.
const MOST_RECORD: u64 = 8 << 20;

/// How far a container is with the last rollout that changed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangePhase {
    /// It is changed, or about to be, and nobody has said that this is to stay.
    Changing,
    /// What it is now is to stay.
    Confirmed,
    /// What it was before is back.
    Back,
}

impl ChangePhase {
    /// As messages say it.
    pub fn show(self) -> &'static str {
        match self {
            Self::Changing => "changing",
            Self::Confirmed => "confirmed",
            Self::Back => "put back",
        }
    }
}

/// A change that was to stay: what a person undoes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Made {
    /// The run that confirmed it: all containers of one rollout have the same.
    pub(super) run: String,
    /// What it brought.
    pub(super) brought: Identity,
    /// What was there before it.
    pub(super) before: Snapshot,
}

/// What the host remembers of one container.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FormerRecord {
    /// Its name.
    pub container: String,
    /// The title of the rollout that changed it last.
    pub rollout: String,
    /// How far that is.
    pub phase: ChangePhase,
    /// What it was before; nothing when there was none.
    #[serde(default)]
    pub(super) before: Option<Snapshot>,
    /// What was to stay, the newest last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) made: Vec<Made>,
    /// What the one said last that did not come through: it is not there any more to be asked.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub said: String,
    /// When it last changed: seconds since 1970.
    pub changed: u64,
}

fn containers(probe: &Probe) -> PathBuf {
    folder(probe.state_dir()).join("containers")
}

/// Held while a container's record is changed, or the container is put back: a run and the watcher never do so at the same time.
pub(super) async fn one_at_a_time(hands: &Actuator, container: &str) -> Result<Lock, Failure> {
    make_folder(hands)?;
    hands.own_dirs([containers(hands)])?;
    let path = containers(hands).join(format!("{container}.lock"));
    lock(path, "another run or the watcher", SLOT_LOCK).await.map_err(|failure| {
        failure
            .within(format!("something else is putting back container {container}"))
            .because(Failure::timeout("slot_lock", SLOT_LOCK))
    })
}

impl FormerRecord {
    /// Of a container; `None` when no rollout ever changed it.
    ///
    /// # Errors
    /// It cannot be read, or is damaged.
    pub fn read(probe: &Probe, container: &str) -> Result<Option<Self>, Failure> {
        let path = containers(probe).join(format!("{container}.json"));
        let Some(bytes) = probe.read(&path, MOST_RECORD)? else { return Ok(None) };
        serde_json::from_slice(&bytes).map(Some).with_context(|| format!("{} is damaged", path.display())).map_err(
            |failure| {
                failure.hint("it tells what the container was before a rollout: where that is no matter, remove it")
            },
        )
    }

    /// Durable when it returns. The caller holds the container's lock.
    pub(super) fn write(&self, hands: &Actuator) -> Result<(), Failure> {
        let text = serde_json::to_vec_pretty(self).context("cannot write the record of a container")?;
        hands.replace(containers(hands).join(format!("{}.json", self.container)), &text, Attrs::mode(0o600))
    }

    /// Whether its rollout is not at an end.
    pub fn is_open(&self) -> bool {
        self.phase == ChangePhase::Changing
    }

    /// The run that last confirmed a change.
    pub fn run(&self) -> Option<&str> {
        self.made.last().map(|made| made.run.as_str())
    }

    /// What there is to bring back.
    fn earlier(&self) -> Option<&Identity> {
        let before = match self.phase {
            ChangePhase::Changing => self.before.as_ref(),
            ChangePhase::Confirmed | ChangePhase::Back => self.made.last().map(|made| &made.before),
        };
        before.map(|before| &before.identity)
    }

    /// The image that it had before, for people.
    pub fn before_shown(&self) -> Option<String> {
        self.earlier().map(super::shown)
    }

    /// That image's ID.
    pub fn before_id(&self) -> Option<String> {
        self.earlier().map(|earlier| earlier.image_id.clone())
    }
}

/// A container's name, and what the host remembers of it.
pub type NamedFormer = (String, Result<FormerRecord, Failure>);

/// Every record of this host, by the container's name, each damaged one for itself.
///
/// # Errors
/// The folder cannot be read.
pub fn former_records(probe: &Probe) -> Result<Vec<NamedFormer>, Failure> {
    let mut found = Vec::new();
    for name in probe.record_names(containers(probe))? {
        let Some(name) = name.strip_suffix(".json") else { continue };
        let record = FormerRecord::read(probe, name);
        found.extend(record.transpose().map(|record| (name.to_owned(), record)));
    }
    found.sort_by(|left, right| left.0.cmp(&right.0));
    Ok(found)
}
