//! `revert`: brings back what a slot showed before a rollout turned it.

use super::{IN_PLACE, Phase, Record, check_rollout, just_turned, now, one_at_a_time};
use crate::change::{Change, Datum, State};
use crate::failure::Failure;
use crate::resource::param::HostPath;
use crate::resource::{ArgError, Observed, Resource};
use crate::system::{Actuator, Probe};
use crate::value::{Map, Value};

crate::kind! {
    /// Brings back what a slot showed before a rollout turned it, byte for byte: the generation itself was never changed.
    ///
    /// A slot that this rollout did not turn, or that is back already, is left alone. Where the rollout brought the first
    /// generation there is nothing before it, and the slot shows nothing again: the link `current` goes. It tells no program: a
    /// reload is a task of its own.
    pub struct Revert = "revert" {
        /// The slot's directory.
        path: HostPath,
        /// The title of the rollout.
        rollout: String,
        /// A run whose confirmed generation goes, too: back to what was to stay before it. Where that is nothing, or another run
        /// confirmed what the slot shows, it is left alone.
        undo: Option<String>,
    }
    results {
        "reverted": "whether the slot shows what was there before this rollout",
        "current": "the generation that it shows, or null",
    }
    example r#"revert "/srv/fanli-example/conf" { rollout = "example" }"#
}

impl Revert {
    /// The record of a switch that is to be undone.
    fn pending(&self, probe: &Probe) -> Result<Option<Record>, Failure> {
        let record = Record::read(probe, &self.path.0)?.filter(|record| record.rollout == self.rollout);
        let Some(record) = record else { return Ok(None) };
        if record.is_open() {
            return Ok(Some(record));
        }
        let current = probe.slot(&self.path.0)?.and_then(|slot| slot.current);
        let [earlier @ .., before, last] = record.kept.as_slice() else { return Ok(None) };
        if self.undo.as_ref() != Some(&last.run) || current.as_ref() != Some(&last.generation) {
            return Ok(None);
        }
        let kept = earlier.iter().chain([before]).cloned().collect();
        let (generation, previous) = (last.generation.clone(), Some(before.generation.clone()));
        Ok(Some(Record { generation, previous, kept, ..record.clone() }))
    }
}

/// Turns a slot back, and writes that down. The caller holds the slot's lock. Killed in between, the next one does both again.
pub(super) fn put_back(record: &Record, why: Option<String>, hands: &Actuator) -> Result<(), Failure> {
    hands.turn_slot(&record.path, record.previous.as_deref()).map_err(|failure| {
        failure
            .within(format!("the slot {} cannot be put back to {}", record.path, record.previous_shown()))
            .hint("it still shows what the rollout brought: stage the earlier configuration again, and switch to it")
    })?;
    // A run reloads what it puts back itself.
    let revert = if why.is_some() { record.revert.clone() } else { Vec::new() };
    let turned = just_turned(hands, &record.path)?;
    let record = record.clone();
    Record { phase: Phase::Reverted, deadline: None, revert, why, trouble: None, turned, changed: now(), ..record }
        .write(hands)
}

impl Resource for Revert {
    fn check(&self) -> Result<(), ArgError> {
        check_rollout(&self.rollout)
    }

    fn desired(&self) -> State {
        State::present([("slot", IN_PLACE)])
    }

    async fn observe(&self, probe: &Probe) -> Result<Observed, Failure> {
        let pending = self.pending(probe)?;
        let slot = probe.slot(&self.path.0)?.unwrap_or_default();
        let reverted = Record::read(probe, &self.path.0)?
            .is_some_and(|record| record.rollout == self.rollout && record.phase == Phase::Reverted);
        let state: Datum = match &pending {
            None => IN_PLACE.into(),
            Some(record) => format!("generation {}, before it {}", record.generation, record.previous_shown()).into(),
        };
        let output = Map::from([
            ("reverted".to_owned(), reverted.into()),
            ("current".to_owned(), slot.current.map_or(Value::Null, Value::Str)),
        ]);
        Ok(Observed { state: State::present([("slot", state)]), output })
    }

    async fn apply(&self, _change: &Change, hands: &Actuator) -> Result<Map, Failure> {
        let _lock = one_at_a_time(hands, &self.path.0).await?;
        // The watcher may have been faster.
        if let Some(record) = self.pending(hands)? {
            put_back(&record, None, hands)?;
        }
        Ok(Map::new())
    }
}
