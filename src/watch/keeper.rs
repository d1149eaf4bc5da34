//! Keeps the log files of the host's folders as `logs` tasks have declared: right after a change, and then every hour or so.
//!
//! A thread of its own does it, at a lower priority than everything else on the host. It can be killed at any instruction.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::stamp::FolderStamp;
use crate::failure::Failure;
use crate::logs::keep::{What, keep};
use crate::resource::logs::{Kept, Logs, declared, folder, grouped};
use crate::system::Probe;
use crate::system::random::random_bytes;
use crate::visible::{count, rough_size};

/// How nice the thread is to others (setpriority(2)).
const NICE: i32 = 15;

/// The keeper of a host.
pub(super) struct Keeper {
    every: Duration,
    stamp: FolderStamp,
    due: Instant,
    job: Option<oneshot::Receiver<Done>>,
    /// What was told of what cannot be done.
    told: BTreeSet<String>,
}

/// What was done once.
#[derive(Default)]
pub(super) struct Done {
    kept: Kept,
    removed: (usize, u64),
    packed: (usize, u64, u64),
    closed: usize,
}

impl Keeper {
    /// One that does it every `every`, and soon for the first time.
    pub(super) fn new(every: Duration) -> Self {
        let due = Instant::now() + every.mul_f64(0.01 + 0.1 * chance());
        Self { every, stamp: FolderStamp::default(), due, job: None, told: BTreeSet::new() }
    }

    /// Begins when it is time, or when a declaration has changed.
    pub(super) fn look(&mut self, probe: &Probe) {
        if self.stamp.changed(&folder(probe.state_dir())) {
            self.due = Instant::now();
        }
        if self.job.is_some() || Instant::now() < self.due {
            return;
        }
        // Hosts that were started together do not all do it at the same time.
        self.due = Instant::now() + self.every.mul_f64(0.9 + 0.2 * chance());
        let found = declared(probe);
        if found.as_ref().is_ok_and(Vec::is_empty) {
            return;
        }
        let (tell, done) = oneshot::channel();
        let work = move || {
            let _ = rustix::process::setpriority_process(None, NICE);
            let _ = tell.send(work(found));
        };
        self.job = std::thread::Builder::new().name("keeper".to_owned()).spawn(work).is_ok().then_some(done);
    }

    /// What was done, once it is; for the log and for the status.
    pub(super) async fn finished(&mut self) -> (Vec<String>, Option<Kept>) {
        let Some(job) = &mut self.job else { return std::future::pending().await };
        let done = job.await;
        self.job = None;
        match done {
            Ok(done) => (self.lines(&done), Some(done.kept)),
            Err(_) => (vec!["the keeper of logs broke: this is a defect of fanli".to_owned()], None),
        }
    }

    fn lines(&mut self, done: &Done) -> Vec<String> {
        let trouble: BTreeSet<String> = done.kept.trouble.iter().cloned().collect();
        let mut lines: Vec<String> = trouble.difference(&self.told).cloned().collect();
        self.told = trouble;
        let mut parts = Vec::new();
        if done.closed > 0 {
            parts.push(format!("{} of killed writers closed", count(done.closed, "file")));
        }
        if done.removed.0 > 0 {
            parts.push(format!("{} removed ({})", count(done.removed.0, "file"), rough_size(done.removed.1)));
        }
        if done.packed.0 > 0 {
            let (before, after) = (rough_size(done.packed.1), rough_size(done.packed.2));
            parts.push(format!("{} compressed ({before} to {after})", count(done.packed.0, "file")));
        }
        if !parts.is_empty() {
            lines.push(format!("logs: {}", parts.join(", ")));
        }
        lines
    }
}

/// Between 0 and 1.
fn chance() -> f64 {
    random_bytes::<1>().map_or(0.5, |[byte]| f64::from(byte) / 255.0)
}

fn work(found: Result<Vec<Result<Logs, Failure>>, Failure>) -> Done {
    let mut done = Done::default();
    done.kept.at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let mut sound = Vec::new();
    for one in found.unwrap_or_else(|failure| vec![Err(failure)]) {
        match one {
            Ok(logs) => sound.push(logs),
            Err(failure) => done.kept.trouble.push(format!("logs: {failure}")),
        }
    }
    done.kept.folders = sound.len();
    for (policy, folders) in grouped(sound) {
        let stays = keep(&folders, &policy, false, |said| match said.what {
            What::Removed(_, bytes) => done.removed = (done.removed.0 + 1, done.removed.1 + bytes),
            What::Packed(_, lengths) => {
                let (before, after) = lengths.unwrap_or_default();
                done.packed = (done.packed.0 + 1, done.packed.1 + before, done.packed.2 + after);
            }
            What::Closed => done.closed += 1,
            What::Cleared => {}
            What::Failed(failure) => done.kept.trouble.push(format!("logs: {}: {failure}", said.path.display())),
        });
        done.kept.files += stays.segments;
        done.kept.bytes += stays.bytes;
    }
    done
}
