//! `slots`: what a host remembers of what rollouts did to it, and what stands there. It only looks.

use serde::{Deserialize, Serialize};

use super::{ChangePhase, FormerRecord, HaltMark, OutSeen, Phase, Record, all_records, former_records, halted};
use crate::change::{Change, Fields, State};
use crate::failure::Failure;
use crate::resource::looked;
use crate::resource::{Observed, Resource};
use crate::system::{Actuator, Probe};
use crate::value::Map;

crate::kind! {
    /// Looks at the slots of a host, at the containers that rollouts make anew, at the servers that they have taken out of traffic, and
    /// whether rollouts are halted; changes nothing.
    ///
    /// After `slots as seen` later tasks see what it found. `fanli rollout status` and `fanli status` show the same.
    pub struct Slots = "slots" {
        /// Only these slots; all that a rollout ever switched by default.
        paths: Vec<String> = Vec::new(),
    }
    results {
        "slots": "each has `path`, `rollout`, `phase` (`switching`, `switched`, `confirmed`, `reverted`), `generation`, `generations` (all that are there), `changed`, and where there is one `current`, `previous`, `left_ms` (the time that is left for a confirmation), `why` (the host put it back), `run` (that confirmed it), `owed` (how many tasks still have to follow), `trouble`",
        "containers": "those that rollouts have made anew, each with `container`, `rollout`, `phase` (`changing`, `confirmed`, `back`), `changed`, and where there is one `before` and `before_id` (the image that can be brought back), `gone` (the host has that no more), `run` (that confirmed it), `said` (by the one that was put back), `trouble`",
        "out": "servers of the host's balancers that rollouts have left out of traffic, each with `server`, `rollout`, `since`, `left` (no run is at work that would bring it back), and where there is one `state` (that the balancer tells), `trouble`",
        "halted": "where rollouts are halted: `why`, `by`, `since`",
    }
    example "slots as seen"
}

/// One slot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotSeen {
    /// Its directory; of a record that cannot be read, the record's name.
    pub path: String,
    /// The rollout that changed it last.
    pub rollout: String,
    /// How far that is; nothing when the record cannot be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
    /// The generation that the rollout brought.
    pub generation: String,
    /// The generation that the slot shows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<String>,
    /// The generation before the rollout.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<String>,
    /// Every generation that is there, the newest first.
    pub generations: Vec<String>,
    /// The time that is left for a confirmation, in milliseconds; 0 when it has passed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_ms: Option<u64>,
    /// Why the host put it back by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// How many tasks still have to follow that.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub owed: u64,
    /// What is wrong: with these tasks, with the record, or with the slot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
    /// The run that confirmed what was to stay last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// When it last changed: seconds since 1970.
    pub changed: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl SlotSeen {
    fn of(record: Record, probe: &Probe) -> Result<Self, Failure> {
        let left = match &record.deadline {
            Some(deadline) if record.is_open() => Some(deadline.at.left(&probe.moment()?).unwrap_or_default()),
            _ => None,
        };
        let (slot, damaged) = match probe.slot(&record.path) {
            Ok(Some(slot)) => (slot, None),
            Ok(None) => (crate::system::fs::Slot::default(), Some(format!("{} is gone", record.path))),
            Err(failure) => (crate::system::fs::Slot::default(), Some(failure.to_string())),
        };
        Ok(Self {
            rollout: record.rollout,
            phase: Some(record.phase),
            generation: record.generation,
            current: slot.current,
            previous: record.previous,
            generations: slot.generations.into_iter().map(|generation| generation.id).collect(),
            left_ms: left.map(|left| u64::try_from(left.as_millis()).unwrap_or(u64::MAX)),
            owed: if record.why.is_some() { record.revert.len() as u64 } else { 0 },
            why: record.why,
            run: record.kept.last().map(|kept| kept.run.clone()).filter(|run| !run.is_empty()),
            trouble: damaged.or(record.trouble),
            changed: record.changed,
            path: record.path,
        })
    }

    fn unreadable(name: &str, failure: &Failure) -> Self {
        Self {
            path: name.to_owned(),
            rollout: String::new(),
            phase: None,
            generation: String::new(),
            current: None,
            previous: None,
            generations: Vec::new(),
            left_ms: None,
            why: None,
            owed: 0,
            run: None,
            trouble: Some(failure.to_string()),
            changed: 0,
        }
    }

    /// Whether somebody should look at it: it is not confirmed and its time is over, the host put it back, or something does not work.
    pub fn is_wrong(&self) -> bool {
        self.trouble.is_some() || self.why.is_some() || self.left_ms == Some(0)
    }
}

/// The slots of one host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rollouts {
    /// Why no slot is switched; nothing when they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub halted: Option<HaltMark>,
    /// Every slot that a rollout ever switched.
    pub slots: Vec<SlotSeen>,
    /// Every container that a rollout ever made anew.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub containers: Vec<ContainerSeen>,
    /// Every server that a rollout has taken out of traffic and no run has brought back.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub out: Vec<OutSeen>,
}

/// A container that rollouts make anew.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerSeen {
    /// Its name.
    pub container: String,
    /// The rollout that changed it last.
    pub rollout: String,
    /// How far that is; nothing when the record cannot be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<ChangePhase>,
    /// The image that `fanli rollout rollback` would bring back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    /// That image's ID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before_id: Option<String>,
    /// Whether the host has that image no more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub gone: bool,
    /// The run that confirmed what was to stay last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// What the one said last that was put back.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub said: String,
    /// What is wrong with the record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
    /// When it last changed: seconds since 1970.
    pub changed: u64,
}

impl ContainerSeen {
    fn of(container: String, record: Result<FormerRecord, Failure>) -> Self {
        let trouble = record.as_ref().err().map(ToString::to_string);
        let record = record.ok();
        Self {
            container,
            phase: record.as_ref().map(|record| record.phase),
            before: record.as_ref().and_then(FormerRecord::before_shown),
            before_id: record.as_ref().and_then(FormerRecord::before_id),
            gone: false,
            run: record.as_ref().and_then(FormerRecord::run).map(str::to_owned),
            said: record.as_ref().map_or_else(String::new, |record| record.said.clone()),
            trouble,
            changed: record.as_ref().map_or(0, |record| record.changed),
            rollout: record.map(|record| record.rollout).unwrap_or_default(),
        }
    }
}

impl Rollouts {
    /// Looks at this host.
    ///
    /// # Errors
    /// The folder of records cannot be read.
    pub async fn look(probe: &Probe) -> Result<Self, Failure> {
        let mut slots = Vec::new();
        for (name, record) in all_records(probe)? {
            slots.push(match record {
                Ok(record) => SlotSeen::of(record, probe)?,
                Err(failure) => SlotSeen::unreadable(&name, &failure),
            });
        }
        slots.sort_by(|left, right| left.path.cmp(&right.path));
        let containers = former_records(probe)?.into_iter().map(|(name, record)| ContainerSeen::of(name, record));
        Ok(Self { halted: halted(probe)?, slots, containers: containers.collect(), out: OutSeen::all(probe).await? })
    }

    /// Whether there is nothing to tell.
    pub fn is_empty(&self) -> bool {
        self.halted.is_none() && self.slots.is_empty() && self.containers.is_empty() && self.out.is_empty()
    }

    /// Whether a person should look at a slot or a server: it is not confirmed in time or not brought back, or something does not work.
    pub fn is_wrong(&self) -> bool {
        self.slots.iter().any(SlotSeen::is_wrong) || self.out.iter().any(OutSeen::is_wrong)
    }

    /// Reads what a step of kind `slots` gave.
    ///
    /// # Errors
    /// It is something else.
    pub fn from_output(output: &Map) -> Result<Self, Failure> {
        looked::from_output(output, "slots")
    }

    fn to_output(&self) -> Result<Map, Failure> {
        looked::to_output(self, "slots")
    }
}

impl Resource for Slots {
    fn desired(&self) -> State {
        State::Present(Fields::new())
    }

    async fn observe(&self, probe: &Probe) -> Result<Observed, Failure> {
        let mut found = Rollouts::look(probe).await?;
        found.slots.retain(|slot| self.paths.is_empty() || self.paths.contains(&slot.path));
        found.containers.retain(|_| self.paths.is_empty());
        found.out.retain(|_| self.paths.is_empty());
        for container in &mut found.containers {
            if let Some(id) = &container.before_id {
                container.gone = probe.docker()?.image(id).await?.is_none();
            }
        }
        Ok(Observed { state: State::Present(Fields::new()), output: found.to_output()? })
    }

    async fn apply(&self, _change: &Change, _hands: &Actuator) -> Result<Map, Failure> {
        Ok(Map::new())
    }
}
