//! `confirm`: says that what a slot shows is to stay.

use super::{Kept, Phase, Record, check_generation, check_keep, check_rollout, now, one_at_a_time};
use crate::change::{Change, Datum, Fields, State};
use crate::failure::Failure;
use crate::resource::param::HostPath;
use crate::resource::{ArgError, Observed, Resource};
use crate::system::fs::Slot;
use crate::system::{Actuator, Probe};
use crate::value::{Map, Value};

/// How far back a person can go at the most.
const MOST_KEPT: usize = 100;

crate::kind! {
    /// Confirms what a slot shows: it is to stay, and the host no longer puts it back by itself.
    ///
    /// The newest generations stay, and always the current one and the one before it; the others go. A slot that shows another
    /// generation, as after a revert, is a failure that says why.
    pub struct Confirm = "confirm" {
        /// The slot's directory.
        path: HostPath,
        /// The generation that it shows.
        generation: String,
        /// The rollout that switched it; another one's switch is then refused.
        rollout: Option<String>,
        /// The run that says so; `revert` undoes what a run confirmed.
        run: Option<String>,
        /// How many generations stay.
        keep: i64 = 5,
    }
    example r#"confirm "/srv/fanli-example/conf" { generation = "5891b5b522d5"  keep = 5 }"#
}

impl Confirm {
    fn surplus(&self, slot: &Slot, record: Option<&Record>) -> Vec<String> {
        let keep = usize::try_from(self.keep).unwrap_or(usize::MAX);
        let previous = record.and_then(|record| record.previous.as_deref());
        slot.surplus(keep, previous.as_slice())
    }

    /// What was to stay until now, and this.
    fn kept(&self, record: Option<&Record>) -> Vec<Kept> {
        let mut kept = record.map_or_else(Vec::new, |record| record.kept.clone());
        if kept.last().is_some_and(|last| last.generation == self.generation) {
            return kept;
        }
        kept.retain(|one| one.generation != self.generation);
        kept.push(Kept { generation: self.generation.clone(), run: self.run.clone().unwrap_or_default() });
        kept.drain(..kept.len().saturating_sub(MOST_KEPT));
        kept
    }

    fn refuse_other(&self, record: Option<&Record>) -> Result<(), Failure> {
        match (record.filter(|record| record.is_open()), &self.rollout) {
            (Some(record), Some(rollout)) if record.rollout != *rollout => {
                Err(Failure::new(format!("the slot {} is held by the rollout `{}`", self.path.0, record.rollout))
                    .hint("each rollout confirms what it switched itself")
                    .fact("rollout", &record.rollout))
            }
            _ => Ok(()),
        }
    }
}

impl Resource for Confirm {
    fn check(&self) -> Result<(), ArgError> {
        check_generation(&self.generation)?;
        check_keep(self.keep)?;
        self.rollout.as_deref().map_or(Ok(()), check_rollout)
    }

    fn desired(&self) -> State {
        State::present([
            ("current", Datum::from(self.generation.as_str())),
            ("phase", Phase::Confirmed.show().into()),
            ("surplus", Datum::Absent),
        ])
    }

    async fn observe(&self, probe: &Probe) -> Result<Observed, Failure> {
        let slot = probe.slot(&self.path.0)?.unwrap_or_default();
        let record = Record::read(probe, &self.path.0)?;
        self.refuse_other(record.as_ref())?;
        let phase = match &record {
            Some(record) if record.phase == Phase::Confirmed && record.generation != self.generation => {
                Datum::from(format!("confirmed with {}", record.generation))
            }
            Some(record) => record.phase.show().into(),
            None => Datum::Absent,
        };
        let surplus = self.surplus(&slot, record.as_ref());
        let mut fields = Fields::from([
            ("current".to_owned(), slot.current.map_or(Datum::Absent, Datum::from)),
            ("phase".to_owned(), phase),
        ]);
        if !surplus.is_empty() {
            fields.insert("surplus".to_owned(), Value::List(surplus.into_iter().map(Value::Str).collect()).into());
        }
        Ok(State::Present(fields).into())
    }

    async fn apply(&self, _change: &Change, hands: &Actuator) -> Result<Map, Failure> {
        let path = &self.path.0;
        let _lock = one_at_a_time(hands, path).await?;
        let slot = hands.slot(path)?.unwrap_or_default();
        let record = Record::read(hands, path)?;
        self.refuse_other(record.as_ref())?;
        if slot.current.as_ref() != Some(&self.generation) {
            let shows = slot.current.map_or_else(|| "nothing".to_owned(), |id| format!("generation {id}"));
            let failure = Failure::new(format!(
                "the slot {path} shows {shows}, so generation {} cannot be confirmed",
                self.generation
            ));
            return Err(match record.and_then(|record| record.why) {
                Some(why) => failure.because(why).hint("run the rollout again"),
                None => failure.hint("a `switch` task turns it: put one before this"),
            });
        }
        let previous = record.as_ref().filter(|record| record.generation == self.generation);
        let confirmed = Record {
            path: path.clone(),
            rollout: self.rollout.clone().or(record.as_ref().map(|record| record.rollout.clone())).unwrap_or_default(),
            phase: Phase::Confirmed,
            generation: self.generation.clone(),
            previous: previous.and_then(|record| record.previous.clone()),
            kept: self.kept(record.as_ref()),
            deadline: None,
            revert: Vec::new(),
            why: None,
            trouble: None,
            turned: previous.and_then(|record| record.turned.clone()),
            changed: now(),
        };
        // Once more only for generations that may go.
        let known = record.as_ref().map(|record| (record.phase, &record.generation));
        if known != Some((Phase::Confirmed, &self.generation)) {
            confirmed.write(hands)?;
        }
        hands.prune_generations(path, &self.surplus(&slot, Some(&confirmed)))?;
        Ok(Map::new())
    }
}
