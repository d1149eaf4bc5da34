//! Small pieces of work that need not hold up a step, and are not lost when the run ends.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinHandle;

/// How long the end of a run waits for them: limit `background`.
const MOST: Duration = Duration::from_secs(2);

/// The pieces of one run.
#[derive(Clone, Default)]
pub struct Background(Arc<Mutex<Vec<JoinHandle<()>>>>);

impl Background {
    /// Starts one, on a thread for work that blocks.
    pub(super) fn start(&self, work: impl FnOnce() + Send + 'static) {
        let mut pieces = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        pieces.retain(|piece| !piece.is_finished());
        pieces.push(tokio::task::spawn_blocking(work));
    }

    /// Waits until all are done, or the limit is over: nothing here is worth a longer wait.
    pub async fn end(&self) {
        let pieces = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        let all = async {
            for piece in pieces {
                let _ = piece.await;
            }
        };
        let _ = tokio::time::timeout(MOST, all).await;
    }
}
