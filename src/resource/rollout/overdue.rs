//! What the watcher does by itself: it puts back a switch that was not confirmed in time, and sees to what has to follow.

use super::revert::put_back;
use super::{IN_PLACE, Record, RevertStep, now, one_at_a_time};
use crate::change::{Change, Datum, State};
use crate::failure::Failure;
use crate::resource::{Observed, Resource};
use crate::system::{Actuator, Probe};
use crate::value::{Map, show_duration};

/// A slot whose switch had to be confirmed by now.
#[derive(Clone, Debug)]
pub struct Overdue(pub String);

impl Overdue {
    fn record(&self, probe: &Probe) -> Result<Option<Record>, Failure> {
        let now = probe.moment()?;
        Ok(Record::read(probe, &self.0)?.filter(|record| record.is_overdue(&now)))
    }

    /// Why it is put back, for people.
    fn why(record: &Record, probe: &Probe) -> Result<String, Failure> {
        let within = record.deadline.as_ref().map(super::Deadline::within).unwrap_or_default();
        let boot = probe.moment()?.boot;
        let restarted = record.deadline.as_ref().is_some_and(|deadline| deadline.at.boot != boot);
        let how = if restarted {
            "before the host was started anew".to_owned()
        } else {
            format!("within {}", show_duration(within))
        };
        Ok(format!(
            "put back to {} by the host itself: the rollout `{}` did not confirm generation {} {how}",
            record.previous_shown(),
            record.rollout,
            record.generation
        ))
    }
}

impl Resource for Overdue {
    fn desired(&self) -> State {
        State::present([("slot", IN_PLACE)])
    }

    async fn observe(&self, probe: &Probe) -> Result<Observed, Failure> {
        let state: Datum = match self.record(probe)? {
            None => IN_PLACE.into(),
            Some(record) => format!("generation {}, not confirmed in time", record.generation).into(),
        };
        Ok(State::present([("slot", state)]).into())
    }

    async fn apply(&self, _change: &Change, hands: &Actuator) -> Result<Map, Failure> {
        let _lock = one_at_a_time(hands, &self.0).await?;
        // A run may have confirmed it, or counted its time anew, just before.
        if let Some(record) = self.record(hands)? {
            let why = Self::why(&record, hands)?;
            put_back(&record, Some(why), hands)?;
        }
        Ok(Map::new())
    }
}

/// What is left to do after the host put a slot back, to be written down; nothing when the record is another by now.
#[derive(Clone, Debug)]
pub struct Owed {
    /// The record as it was read.
    pub record: Record,
    /// The tasks that still have to follow.
    pub left: Vec<RevertStep>,
    /// What does not work of them.
    pub trouble: Option<String>,
}

impl Owed {
    fn is_told(&self, probe: &Probe) -> Result<bool, Failure> {
        let outdated = |found: &Record| *found != self.record;
        let told = |found: &Record| found.revert == self.left && found.trouble == self.trouble;
        Ok(Record::read(probe, &self.record.path)?.is_none_or(|found| outdated(&found) || told(&found)))
    }
}

impl Resource for Owed {
    fn desired(&self) -> State {
        State::present([("told", true)])
    }

    async fn observe(&self, probe: &Probe) -> Result<Observed, Failure> {
        Ok(State::present([("told", self.is_told(probe)?)]).into())
    }

    async fn apply(&self, _change: &Change, hands: &Actuator) -> Result<Map, Failure> {
        let _lock = one_at_a_time(hands, &self.record.path).await?;
        if !self.is_told(hands)? {
            let record = self.record.clone();
            let (revert, trouble) = (self.left.clone(), self.trouble.clone());
            Record { revert, trouble, changed: now(), ..record }.write(hands)?;
        }
        Ok(Map::new())
    }
}
