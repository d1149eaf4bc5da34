//! `switch`: turns a slot to a generation that is staged.

use std::path::Path;
use std::time::Duration;

use super::halt::refuse_halted;
use super::{
    Deadline, IN_PLACE, Phase, Record, RevertStep, all_records, check_generation, check_rollout, just_turned, now,
    one_at_a_time,
};
use crate::change::{Change, Datum, Fields, State};
use crate::failure::Failure;
use crate::resource::attachments::lock_file;
use crate::resource::param::HostPath;
use crate::resource::{ArgError, Observed, Resource};
use crate::system::fs::{Slot, holder};
use crate::system::{Actuator, Probe};
use crate::value::{Map, Value, show_duration};

/// The shortest and the longest time for a confirmation.
const WITHIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(24 * 3600));

/// The most tasks that may follow a revert.
const MOST_STEPS: usize = 256;

crate::kind! {
    /// Turns a slot to a generation that `slot` has staged.
    ///
    /// The link `current` is replaced in one step. Before that the host writes down, durably, what the slot showed, and until when
    /// the switch must be confirmed: a switch that is killed at any instruction is continued by the next run of its rollout, put
    /// back by `revert`, or, with `within`, put back by the host itself.
    ///
    /// A slot that another rollout has switched and not confirmed is refused, and so is every switch while the host is halted
    /// (`fanli doc halt`). It tells no program: a reload is a task of its own.
    pub struct Switch = "switch" {
        /// The slot's directory.
        path: HostPath,
        /// The generation's ID.
        generation: String,
        /// The title of the rollout that it belongs to.
        rollout: String,
        /// The time for a `confirm`. When it is over, the host's watcher puts the slot back by itself, also without a controller; a
        /// start of the host ends it as well. Needs a `watcher`. Counted anew when a run continues the switch late.
        within: Option<Duration>,
        /// Tasks that follow when the watcher puts the slot back, in order, each `{ kind = "…"  args = { … } }`: reload what reads
        /// the slot. What fails is tried again. A task cannot use contents that the controller has.
        revert: Vec<Map> = Vec::new(),
    }
    results {
        "previous": "the generation that the slot showed before, or null",
    }
    example r#"switch "/srv/fanli-example/conf" {
  generation = "5891b5b522d5"
  rollout    = "example"
  within     = 5m
  revert     = [{ kind = "command"  args = { argv = ["true"] } }]
}"#
}

/// What a look at the slot found.
struct Seen {
    slot: Slot,
    record: Option<Record>,
    fields: Fields,
}

impl Switch {
    fn steps(&self) -> Result<Vec<RevertStep>, String> {
        self.revert.iter().map(RevertStep::read).collect()
    }

    /// Whether this rollout has turned the slot to this generation already, and it is still to be confirmed.
    fn is_ours(&self, record: &Record) -> bool {
        record.is_open() && record.rollout == self.rollout
    }

    fn look(&self, probe: &Probe) -> Result<Seen, Failure> {
        let slot = probe.slot(&self.path.0)?.unwrap_or_default();
        let record = Record::read(probe, &self.path.0)?;
        let current = slot.current.as_deref().map_or(Datum::Absent, Datum::from);
        let mut fields = Fields::from([
            ("current".to_owned(), current),
            ("phase".to_owned(), IN_PLACE.into()),
            ("deadline".to_owned(), IN_PLACE.into()),
        ]);
        let there = slot.current.as_ref() == Some(&self.generation);
        if let Some(record) = record.as_ref().filter(|record| there && self.is_ours(record)) {
            if record.phase == Phase::Switching || record.generation != self.generation {
                fields.insert("phase".to_owned(), Phase::Switching.show().into());
            }
            fields.insert("deadline".to_owned(), self.deadline(record, probe)?);
        }
        Ok(Seen { slot, record, fields })
    }

    /// The field `deadline` of a slot that waits to be confirmed.
    fn deadline(&self, record: &Record, probe: &Probe) -> Result<Datum, Failure> {
        let same_steps = self.steps().is_ok_and(|steps| steps == record.revert);
        Ok(match (self.within, &record.deadline) {
            (None, None) => IN_PLACE.into(),
            (Some(_), None) => Datum::Absent,
            (None, Some(deadline)) => format!("within {}", show_duration(deadline.within())).into(),
            (Some(within), Some(deadline)) => match deadline.at.left(&probe.moment()?) {
                _ if within != deadline.within() => format!("within {}", show_duration(deadline.within())).into(),
                Some(_) if !same_steps => "with other tasks".into(),
                // Somebody continues: there must be time to see whether it works.
                Some(left) if left >= within / 2 => IN_PLACE.into(),
                Some(left) => format!("in {}", show_duration(Duration::from_secs(left.as_secs()))).into(),
                None => "passed".into(),
            },
        })
    }

    /// Why the slot must not be turned.
    fn refuse(&self, seen: &Seen, probe: &Probe) -> Result<(), Failure> {
        for (_, record) in all_records(probe)? {
            // A damaged record of another slot says nothing about this one; its own was read before.
            let Ok(record) = record else { continue };
            let (ours, theirs) = (Path::new(&self.path.0), Path::new(&record.path));
            let overlap = ours.starts_with(theirs) || theirs.starts_with(ours);
            if !overlap || !record.is_open() || (ours == theirs && record.rollout == self.rollout) {
                continue;
            }
            let held = if ours == theirs {
                format!("is held by the rollout `{}`", record.rollout)
            } else {
                format!("overlaps {}, which is held by the rollout `{}`", record.path, record.rollout)
            };
            return Err(Failure::new(format!("the slot {} {held}", self.path.0))
                .because(format!(
                    "that turned it from {} to generation {}, and has not confirmed it: it is {}",
                    record.previous_shown(),
                    record.generation,
                    record.phase.show()
                ))
                .hint("two rollouts never share a slot: run that one to its end, or put it back with `fanli rollout rollback`")
                .fact("rollout", &record.rollout));
        }
        let desired = self.desired();
        if Some(&seen.fields) == fields_of(&desired) {
            return Ok(());
        }
        refuse_halted(probe, &format!("the slot {} is not switched", self.path.0))?;
        if self.within.is_some() && holder(lock_file(probe.state_dir()))?.is_none() {
            return Err(Failure::new(format!(
                "the slot {} is not switched: no watcher runs on this host, and nobody would put it back in time",
                self.path.0
            ))
            .hint("put a `watcher {}` task before this one, or leave out `within`"));
        }
        Ok(())
    }
}

fn fields_of(state: &State) -> Option<&Fields> {
    match state {
        State::Absent => None,
        State::Present(fields) => Some(fields),
    }
}

impl Resource for Switch {
    fn check(&self) -> Result<(), ArgError> {
        check_generation(&self.generation)?;
        check_rollout(&self.rollout)?;
        if self.within.is_some_and(|within| !(WITHIN.0..=WITHIN.1).contains(&within)) {
            let (least, most) = (show_duration(WITHIN.0), show_duration(WITHIN.1));
            return Err(ArgError::new("within", format!("is not between {least} and {most}")));
        }
        if self.within.is_none() && !self.revert.is_empty() {
            return Err(ArgError::new(
                "revert",
                "means nothing without `within`: the host puts nothing back by itself",
            ));
        }
        if self.revert.len() > MOST_STEPS {
            return Err(ArgError::new("revert", format!("has more than {MOST_STEPS} tasks")));
        }
        self.steps().map(drop).map_err(|message| ArgError::new("revert", message))
    }

    fn desired(&self) -> State {
        State::present([
            ("current", Datum::from(self.generation.as_str())),
            ("phase", IN_PLACE.into()),
            ("deadline", IN_PLACE.into()),
        ])
    }

    async fn observe(&self, probe: &Probe) -> Result<Observed, Failure> {
        let seen = self.look(probe)?;
        self.refuse(&seen, probe)?;
        let kept = |record: &Record| record.generation == self.generation && record.phase != Phase::Reverted;
        let previous = match seen.record.as_ref().filter(|record| kept(record)) {
            Some(record) => record.previous.clone(),
            None => seen.slot.current.clone(),
        };
        let previous = previous.map_or(Value::Null, Value::Str);
        Ok(Observed { state: State::Present(seen.fields), output: Map::from([("previous".to_owned(), previous)]) })
    }

    async fn apply(&self, _change: &Change, hands: &Actuator) -> Result<Map, Failure> {
        let path = &self.path.0;
        let _lock = one_at_a_time(hands, path).await?;
        let seen = self.look(hands)?;
        self.refuse(&seen, hands)?;
        if !seen.slot.has(&self.generation) {
            return Err(Failure::new(format!("the slot {path} has no generation {}", self.generation))
                .hint("a `slot` task stages it: put one before this"));
        }
        // What is not confirmed is nothing to go back to.
        let previous = match &seen.record {
            Some(record) if self.is_ours(record) => record.previous.clone(),
            _ => seen.slot.current.clone(),
        };
        let deadline = self.within.map(|within| Ok::<_, Failure>(Deadline::new(&hands.moment()?, within)));
        let mut record = Record {
            path: path.clone(),
            rollout: self.rollout.clone(),
            phase: Phase::Switching,
            generation: self.generation.clone(),
            previous: previous.clone(),
            kept: seen.record.as_ref().map_or_else(Vec::new, |record| record.kept.clone()),
            deadline: deadline.transpose()?,
            revert: self.steps().map_err(Failure::new)?,
            why: None,
            trouble: None,
            turned: None,
            changed: now(),
        };
        record.write(hands)?;
        hands.turn_slot(path, Some(&self.generation))?;
        record.phase = Phase::Switched;
        record.turned = just_turned(hands, path)?;
        record.write(hands)?;
        Ok(Map::from([("previous".to_owned(), previous.map_or(Value::Null, Value::Str))]))
    }
}
