//! Waiting for something to be so: what `http` and a command with `within` share.

use std::future::Future;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

use super::ArgError;
use crate::failure::Failure;
use crate::system::Probe;

/// How long, how often, and how many times in a row.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    pub(super) within: Duration,
    pub(super) every: Duration,
    pub(super) times: i64,
}

/// The shortest pause between tries: more would be load, not looking.
const LEAST_EVERY: Duration = Duration::from_millis(10);
/// The pause after the first try that failed; each further one is twice as long, up to `every`. What was just started is up soon.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

impl Patience {
    /// What a playbook may not ask for.
    pub(super) fn check(self) -> Result<(), ArgError> {
        if self.within.is_zero() {
            return Err(ArgError::new("within", "must be longer than nothing: `within = 30s`"));
        }
        if self.every < LEAST_EVERY {
            return Err(ArgError::new("every", "must be 10ms or longer"));
        }
        if !(1..=1000).contains(&self.times) {
            return Err(ArgError::new("times", "is a number from 1 to 1000"));
        }
        Ok(())
    }

    /// Tries until it went well as often in a row as is asked; gives what the last try gave.
    ///
    /// # Errors
    /// `within` is over: the message names the limit and what the last try said.
    pub(super) async fn until<T, F>(self, probe: &Probe, mut attempt: impl FnMut() -> F) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let deadline = Instant::now() + self.within;
        let (mut well, mut last) = (0, None);
        let mut pauses = self.pauses();
        loop {
            match timeout_at(deadline, attempt()).await {
                Ok(Ok(found)) => {
                    well += 1;
                    if well >= self.times {
                        return Ok(found);
                    }
                    last = Some(Failure::new(format!("well {well} of {} times in a row", self.times)));
                }
                Ok(Err(failure)) => {
                    well = 0;
                    probe.progress(&format!("not yet: {failure}"), None);
                    last = Some(failure);
                }
                Err(_) => return Err(self.over(last, "the last try did not come to an end")),
            }
            // In a row means one each `every`.
            let pause = if well > 0 { self.every } else { pauses.next().unwrap_or(self.every) };
            if deadline.saturating_duration_since(Instant::now()) <= pause {
                return Err(self.over(last, "there was no try"));
            }
            sleep(pause).await;
        }
    }

    /// The pauses after tries that failed.
    fn pauses(self) -> impl Iterator<Item = Duration> {
        std::iter::successors(Some(FIRST_PAUSE.min(self.every)), move |pause| Some((*pause * 2).min(self.every)))
    }

    fn over(self, last: Option<Failure>, otherwise: &str) -> Failure {
        let limit = Failure::timeout("within", self.within);
        match last {
            Some(last) => limit.because(format!("at last: {last}")),
            None => limit.because(otherwise),
        }
        .hint("raise it when this host needs longer: `within = 2m`")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_what_is_asked() {
        let of = |every: u64| {
            let patience = Patience { within: Duration::from_secs(30), every: Duration::from_millis(every), times: 1 };
            patience.pauses().map(|pause| pause.as_millis()).take(7).collect::<Vec<_>>()
        };
        assert_eq!(of(2000), [50, 100, 200, 400, 800, 1600, 2000]);
        assert_eq!(of(100), [50, 100, 100, 100, 100, 100, 100]);
        assert_eq!(of(20), [20; 7]);
    }
}
