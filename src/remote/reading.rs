//! The helper's part in reading log files: a thread reads, and what it tells goes out as fast as the controller takes it.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::sync::mpsc;

use super::helper::Incoming;
use super::wire::ToHelper;
use crate::failure::{Failure, FailureKind};
use crate::logs::read::{Query, Sink, Told, read};

/// How long a batch may be, in bytes.
const MOST_BATCH: usize = 64 * 1024;

/// What a message takes beside the bytes of its text, at most.
const BESIDE: usize = 16;

/// Reads what is asked for until all is told, or the controller has gone or wants no more.
///
/// # Errors
/// The controller has gone; the pattern is none.
pub(super) async fn serve(
    query: Query,
    batches: mpsc::Sender<Vec<Told>>,
    incoming: &mut Incoming,
) -> Result<(), Failure> {
    open_many();
    let reading = tokio::task::spawn_blocking(move || {
        let mut sink = Batches { to: batches, batch: Vec::new(), bytes: 0 };
        read(&query, &mut sink)?;
        let _ = sink.take(Told::End) && sink.flush();
        Ok(())
    });
    tokio::pin!(reading);
    loop {
        tokio::select! {
            done = &mut reading => {
                let broke = |error| Failure::of(FailureKind::Internal, "reading broke").because(error);
                return done.map_err(broke)?;
            }
            message = incoming.next() => {
                if let ToHelper::Stop = message? {
                    return Ok(());
                }
            }
        }
    }
}

/// Takes as many descriptors as this process may have: files of one period are open together.
fn open_many() {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

/// Gathers what is told to messages of a good length.
struct Batches {
    to: mpsc::Sender<Vec<Told>>,
    batch: Vec<Told>,
    bytes: usize,
}

impl Sink for Batches {
    fn take(&mut self, told: Told) -> bool {
        self.bytes += BESIDE
            + match &told {
                Told::Line { line, .. } => line.text.len(),
                Told::File { path, .. } => path.len(),
                _ => 0,
            };
        self.batch.push(told);
        self.bytes < MOST_BATCH || self.flush()
    }

    fn flush(&mut self) -> bool {
        self.bytes = 0;
        if self.batch.is_empty() {
            return !self.to.is_closed();
        }
        self.to.blocking_send(std::mem::take(&mut self.batch)).is_ok()
    }
}
