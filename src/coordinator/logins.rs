//! How many logins are open at once, fewer where a host or a bastion cannot take so many.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};

/// How often a login that was turned away is tried again.
pub(super) const TRIES: u32 = 5;

/// The first pause before that, and the longest.
const PAUSE: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(8);

/// Places for logins.
pub(super) struct Logins {
    places: Semaphore,
    /// How many there are, and how many of them are still to be taken away.
    most: AtomicUsize,
    debt: AtomicUsize,
}

/// A place that is in use.
pub(super) struct Place<'l> {
    logins: &'l Logins,
    permit: Option<SemaphorePermit<'l>>,
    /// How many places there were.
    of: usize,
}

impl Logins {
    /// So many places.
    pub(super) fn new(most: usize) -> Self {
        let most = most.max(1);
        Self { places: Semaphore::new(most), most: AtomicUsize::new(most), debt: AtomicUsize::new(0) }
    }

    /// Waits for a place.
    pub(super) async fn enter(&self) -> Place<'_> {
        // The semaphore is never closed.
        let permit = self.places.acquire().await.ok();
        Place { logins: self, permit, of: self.most.load(Ordering::SeqCst) }
    }
}

impl Place<'_> {
    /// Gives the place back; from now on a third as many logins are open at once. Several that were turned away together count once.
    pub(super) fn turned_away(self) {
        let fewer = (self.of / 3).max(1);
        let first = self.logins.most.compare_exchange(self.of, fewer, Ordering::SeqCst, Ordering::SeqCst).is_ok();
        if first {
            self.logins.debt.fetch_add(self.of - fewer, Ordering::SeqCst);
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let owed = self.logins.debt.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |debt| debt.checked_sub(1));
        if let (Ok(_), Some(permit)) = (owed, self.permit.take()) {
            permit.forget();
        }
    }
}

/// How long to wait before a login is tried again: longer each time, and never the same for all.
pub(super) fn pause(tries: u32) -> Duration {
    let whole = PAUSE.saturating_mul(1 << tries.min(10)).min(LONGEST);
    let share = u32::try_from(RandomState::new().hash_one(tries) % 100).unwrap_or(0);
    whole / 2 + whole * share / 200
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn after_logins_were_turned_away_fewer_are_open_and_never_none() {
        let logins = Logins::new(12);
        let mut first = Vec::new();
        for _ in 0..12 {
            first.push(logins.enter().await);
        }
        // Three of them at once: they count as one.
        first.drain(..3).for_each(Place::turned_away);
        first.clear();
        assert_eq!(logins.places.available_permits(), 4);
        for _ in 0..5 {
            logins.enter().await.turned_away();
        }
        assert_eq!(logins.places.available_permits(), 1);
        drop(logins.enter().await);
        assert_eq!(logins.places.available_permits(), 1);
    }

    #[test]
    fn pauses_grow_and_end() {
        for tries in 0..40 {
            let pause = pause(tries);
            assert!(pause >= PAUSE / 2 && pause <= LONGEST, "{pause:?}");
        }
    }
}
