//! What the host remembers of a slot: `STATE/rollout/HASH.json`, replaced atomically and durably.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{file_of, folder, make_folder};
use crate::failure::{Context as _, Failure};
use crate::resource::kinds::Kind;
use crate::system::fs::Attrs;
use crate::system::uptime::Moment;
use crate::system::{Actuator, Probe};
use crate::value::Map;

/// The longest record that is read, in bytes.
const MOST_RECORD: u64 = 1 << 20;

/// How far a slot is with its last switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// It is about to be turned, or was and nobody wrote that down.
    Switching,
    /// It was turned, and waits to be confirmed.
    Switched,
    /// What it shows is to stay.
    Confirmed,
    /// What it showed before is back.
    Reverted,
}

impl Phase {
    /// As messages say it.
    pub fn show(self) -> &'static str {
        match self {
            Self::Switching => "switching",
            Self::Switched => "switched",
            Self::Confirmed => "confirmed",
            Self::Reverted => "reverted",
        }
    }
}

/// Until when a switch must be confirmed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deadline {
    /// The moment, by a clock that nobody sets.
    pub at: Moment,
    /// How long that was from the switch on, in milliseconds.
    pub within_ms: u64,
}

impl Deadline {
    /// That long from now.
    pub(super) fn new(now: &Moment, within: Duration) -> Self {
        Self { at: now.after(within), within_ms: u64::try_from(within.as_millis()).unwrap_or(u64::MAX) }
    }

    /// The time that there was from the switch on.
    pub fn within(&self) -> Duration {
        Duration::from_millis(self.within_ms)
    }
}

/// A task that follows when the host puts a slot back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RevertStep {
    /// Its kind.
    pub kind: String,
    /// The arguments.
    #[serde(default)]
    pub args: Map,
}

impl RevertStep {
    /// Reads `{ kind = "…"  args = { … } }`.
    pub(super) fn read(map: &Map) -> Result<Self, String> {
        use crate::value::Value;
        let unknown = map.keys().find(|key| !["kind", "args"].contains(&key.as_str()));
        if let Some(key) = unknown {
            return Err(format!("a step is `{{ kind = \"…\"  args = {{ … }} }}`, and has no `{key}`"));
        }
        let kind = map.get("kind").and_then(Value::as_str).ok_or("a step needs its `kind`")?;
        let args = match map.get("args") {
            None => Map::new(),
            Some(Value::Map(args)) => args.clone(),
            Some(other) => return Err(format!("`args` of a step is a map, not {}", other.type_name())),
        };
        let step = Self { kind: kind.to_owned(), args };
        step.build().map(|_| step).map_err(|failure| failure.to_string())
    }

    /// The task.
    ///
    /// # Errors
    /// Its arguments do not fit this fanli.
    pub fn build(&self) -> Result<Kind, Failure> {
        Kind::build(&self.kind, self.args.clone()).map_err(|errors| {
            let wrong: Vec<String> = errors.iter().map(ToString::to_string).collect();
            Failure::new(format!("the step `{}` does not fit this fanli", self.kind)).because(wrong.join(", "))
        })
    }

    /// Its kind and title, for people.
    pub fn show(&self) -> String {
        let schema = crate::resource::kinds::schema(&self.kind);
        let title = schema.and_then(|schema| Some(schema.show_title(self.args.get(schema.title()?.name)?)));
        title.map_or_else(|| self.kind.clone(), |title| format!("{} {title}", self.kind))
    }
}

/// A generation that was to stay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Its ID.
    pub generation: String,
    /// The run that confirmed it: all slots of one rollout have the same.
    pub run: String,
}

/// What the host remembers of one slot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The slot.
    pub path: String,
    /// The title of the rollout that changed it last.
    pub rollout: String,
    /// How far that is.
    pub phase: Phase,
    /// The generation that it turned the slot to.
    pub generation: String,
    /// The generation before it; nothing when it was the first.
    #[serde(default)]
    pub previous: Option<String>,
    /// What was to stay, the newest last: what a person goes back to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kept: Vec<Kept>,
    /// Until when it must be confirmed; for ever where there is none.
    #[serde(default)]
    pub deadline: Option<Deadline>,
    /// What follows when the host puts it back; of a slot that it has put back, what still has to.
    #[serde(default)]
    pub revert: Vec<RevertStep>,
    /// Why the host put it back by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// What does not work of what follows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
    /// When the slot was last turned, by a clock that nobody sets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub turned: Option<Moment>,
    /// When it last changed: seconds since 1970.
    pub changed: u64,
}

impl Record {
    /// Of a slot; `None` when no rollout ever changed it.
    ///
    /// # Errors
    /// It cannot be read, or is damaged.
    pub fn read(probe: &Probe, slot: &str) -> Result<Option<Self>, Failure> {
        let path = file_of(probe, slot, "json");
        let Some(bytes) = probe.read(&path, MOST_RECORD)? else { return Ok(None) };
        parse(&bytes, &path.display().to_string()).map(Some)
    }

    /// Durable when it returns.
    pub(super) fn write(&self, hands: &Actuator) -> Result<(), Failure> {
        make_folder(hands)?;
        let text = serde_json::to_vec_pretty(self).context("cannot write the record of a slot")?;
        hands.replace(file_of(hands, &self.path, "json"), &text, Attrs::mode(0o600))
    }

    /// Whether its rollout is not at an end: the slot may have been turned, and nobody said that it is to stay.
    pub fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Switching | Phase::Switched)
    }

    /// When the slot was turned to that generation, if it is the one that it was turned to last.
    pub(super) fn turned_to(&self, generation: &str) -> Option<&Moment> {
        let shown = match self.phase {
            Phase::Switching => None,
            Phase::Switched | Phase::Confirmed => Some(self.generation.as_str()),
            Phase::Reverted => self.previous.as_deref(),
        };
        self.turned.as_ref().filter(|_| shown == Some(generation))
    }

    /// Whether the time for a confirmation has passed.
    pub fn is_overdue(&self, now: &Moment) -> bool {
        self.is_open() && self.deadline.as_ref().is_some_and(|deadline| deadline.at.left(now).is_none())
    }

    /// Whether the host put it back by itself, and something still has to follow.
    pub fn owes(&self) -> bool {
        self.phase == Phase::Reverted && self.why.is_some() && !self.revert.is_empty()
    }

    /// `generation ID`, or that there was none.
    pub(super) fn previous_shown(&self) -> String {
        self.previous.as_ref().map_or_else(|| "no generation".to_owned(), |id| format!("generation {id}"))
    }
}

fn parse(bytes: &[u8], path: &str) -> Result<Record, Failure> {
    serde_json::from_slice(bytes).with_context(|| format!("{path} is damaged")).map_err(|failure| {
        failure.hint("it tells what a slot showed before: look at the slot's `generations`, then remove the file")
    })
}

/// A record's file, and what it says.
pub type NamedRecord = (String, Result<Record, Failure>);

/// Every record of this host, each damaged one for itself.
///
/// # Errors
/// The folder cannot be read.
pub fn all_records(probe: &Probe) -> Result<Vec<NamedRecord>, Failure> {
    let folder = folder(probe.state_dir());
    let mut found = Vec::new();
    for name in probe.record_names(&folder)? {
        let path = folder.join(&name);
        let record = match probe.read(&path, MOST_RECORD) {
            Ok(None) => continue,
            Ok(Some(bytes)) => parse(&bytes, &path.display().to_string()),
            Err(failure) => Err(failure),
        };
        found.push((name, record));
    }
    Ok(found)
}
