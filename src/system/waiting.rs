//! What a piece of work waits for at this moment, for whoever must say why it takes so long.
//!
//! Each wait of this layer has a limit with a name; this is for the time before the limit is over.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

tokio::task_local! {
    static WAITS: Waits;
}

/// What one piece of work waits for. Clones are the same one.
#[derive(Clone, Debug, Default)]
pub struct Waits(Arc<Mutex<Option<(String, Instant)>>>);

impl Waits {
    /// Does work whose waits are seen here.
    pub async fn watching<T>(&self, work: impl Future<Output = T>) -> T {
        WAITS.scope(self.clone(), work).await
    }

    /// What it waits for now, and since when; `None` while it computes.
    pub fn now(&self) -> Option<(String, Instant)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, what: Option<(String, Instant)>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = what;
    }
}

/// Waits for something; `what` says for what, in the words of an error: `cannot inspect container web1`.
pub(super) async fn waiting<T>(what: &str, work: impl Future<Output = T>) -> T {
    let waits = WAITS.try_with(Waits::clone).ok();
    if let Some(waits) = &waits {
        waits.set(Some((what.to_owned(), Instant::now())));
    }
    let done = work.await;
    if let Some(waits) = waits {
        waits.set(None);
    }
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_wait_is_seen_while_it_lasts() {
        let waits = Waits::default();
        let (end, ended) = tokio::sync::oneshot::channel::<()>();
        let inner = waits.clone();
        let work = tokio::spawn(async move { inner.watching(waiting("cannot see the end", ended)).await });
        while waits.now().is_none() {
            tokio::task::yield_now().await;
        }
        assert_eq!(waits.now().unwrap().0, "cannot see the end");
        end.send(()).unwrap();
        work.await.unwrap().unwrap();
        assert!(waits.now().is_none());
        // Nobody asks: it is only a wait.
        assert_eq!(waiting("cannot add", async { 1 + 1 }).await, 2);
    }
}
