//! When something last came from the other side.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// The time at which bytes last arrived, shared by who reads and who waits.
#[derive(Clone, Debug)]
pub struct Pulse(Arc<Mutex<Instant>>);

impl Pulse {
    /// A pulse that begins now.
    #[expect(clippy::new_without_default, reason = "it begins at a time, and is no value of its own")]
    pub fn new() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }

    /// Notes that something arrived.
    pub fn beat(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// When something last arrived.
    pub fn last(&self) -> Instant {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends when nothing has arrived for `limit`. Parts of a frame count: one that is on its way over a slow link is a sign of life.
    pub async fn silence(&self, limit: Duration) {
        loop {
            let end = self.last() + limit;
            if Instant::now() >= end {
                return;
            }
            tokio::time::sleep_until(end).await;
        }
    }
}
