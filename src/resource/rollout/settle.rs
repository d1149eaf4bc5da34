//! `settle`: gives trouble the time to show itself.

use std::time::Duration;

use crate::change::{Change, Fields, State};
use crate::failure::Failure;
use crate::resource::{ArgError, Nature, Observed, Resource};
use crate::system::{Actuator, Probe};
use crate::value::Map;

/// The longest pause.
const LONGEST: Duration = Duration::from_secs(3600);

crate::kind! {
    /// Waits for a while: what is checked behind it has had the time to go wrong.
    ///
    /// A rollout puts it between the batches: `settle = 30s`. The time is that of a clock that nobody sets.
    pub struct Settle = "settle" {
        /// How long.
        time: Duration,
    }
    example "settle 2s"
}

impl Resource for Settle {
    fn check(&self) -> Result<(), ArgError> {
        if self.time > LONGEST {
            return Err(ArgError::new("time", "is longer than an hour"));
        }
        Ok(())
    }

    fn nature(&self) -> Nature {
        Nature::Wait
    }

    fn desired(&self) -> State {
        State::Present(Fields::new())
    }

    async fn observe(&self, probe: &Probe) -> Result<Observed, Failure> {
        probe.progress("settling", None);
        tokio::time::sleep(self.time).await;
        Ok(State::Present(Fields::new()).into())
    }

    async fn apply(&self, _change: &Change, _hands: &Actuator) -> Result<Map, Failure> {
        Ok(Map::new())
    }
}
