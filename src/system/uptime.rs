//! Time that nobody can set: what has passed since this host was started.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use super::Probe;
use super::procfs::Stat;
use crate::failure::Failure;

/// A moment of one run of the kernel. Steps of the wall clock do not touch it, and it goes on while the host sleeps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moment {
    /// The kernel's ID of its start (`/proc/sys/kernel/random/boot_id`): moments of two starts cannot be compared.
    pub boot: String,
    /// Milliseconds since then (`CLOCK_BOOTTIME`).
    pub millis: u64,
}

impl Moment {
    /// That much later.
    #[must_use]
    pub fn after(&self, time: Duration) -> Self {
        let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Self { boot: self.boot.clone(), millis: self.millis.saturating_add(millis) }
    }

    /// That much earlier, but not before the start of the host.
    #[must_use]
    pub fn before(&self, time: Duration) -> Self {
        let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Self { boot: self.boot.clone(), millis: self.millis.saturating_sub(millis) }
    }

    /// How long ago it was at `now`; `None` when that was before the host was started anew.
    pub fn ago(&self, now: &Self) -> Option<Duration> {
        let ago = now.millis.saturating_sub(self.millis);
        (self.boot == now.boot).then(|| Duration::from_millis(ago))
    }

    /// How long it is from `now` until this moment; `None` when it has passed. One of another start of the host has passed: how
    /// long the host was off is not known.
    pub fn left(&self, now: &Self) -> Option<Duration> {
        let left = self.millis.checked_sub(now.millis).filter(|left| *left > 0)?;
        (self.boot == now.boot).then(|| Duration::from_millis(left))
    }
}

impl Probe {
    /// Now, as [`Moment`].
    ///
    /// # Errors
    /// `/proc` is not there.
    pub fn moment(&self) -> Result<Moment, Failure> {
        let boot = self.read_small("/proc/sys/kernel/random/boot_id")?;
        let boot = boot.ok_or_else(|| Failure::new("this host does not tell when it was started"))?.trim().to_owned();
        Ok(Moment { boot, millis: since_boot() })
    }

    /// How long a process has been running; `None` when it has ended.
    pub fn age_of(&self, pid: u32) -> Option<Duration> {
        let started = Stat::read(pid)?.ticks.saturating_mul(10);
        Some(Duration::from_millis(since_boot().saturating_sub(started)))
    }
}

/// Milliseconds since the host was started.
fn since_boot() -> u64 {
    let since = clock_gettime(ClockId::Boottime);
    let (seconds, nanos) = (u64::try_from(since.tv_sec).unwrap_or(0), u64::try_from(since.tv_nsec).unwrap_or(0));
    seconds.saturating_mul(1000).saturating_add(nanos / 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(boot: &str, millis: u64) -> Moment {
        Moment { boot: boot.to_owned(), millis }
    }

    #[test]
    fn a_deadline_counts_within_one_start_of_the_host() {
        let deadline = at("a", 1_000).after(Duration::from_secs(60));
        assert_eq!(deadline, at("a", 61_000));
        assert_eq!(deadline.left(&at("a", 1_000)), Some(Duration::from_secs(60)));
        assert_eq!(deadline.left(&at("a", 60_999)), Some(Duration::from_millis(1)));
        assert_eq!(deadline.left(&at("a", 61_000)), None);
        assert_eq!(deadline.left(&at("a", u64::MAX)), None);
        // The host was started anew: whatever its clock says, the time is over.
        assert_eq!(deadline.left(&at("b", 5)), None);
        assert_eq!(at("a", 1_000).ago(&at("a", 61_000)), Some(Duration::from_secs(60)));
        assert_eq!(at("a", 1_000).ago(&at("b", 61_000)), None);
        assert_eq!(at("a", 1_000).before(Duration::from_millis(999)), at("a", 1));
        assert_eq!(at("a", 5).after(Duration::MAX), at("a", u64::MAX));
    }
}
