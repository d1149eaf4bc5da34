//! Keeps the log files of the host's folders as `logs` tasks have declared: right after a change, and then every hour or so.
//!
//! One thread compresses and removes, another one stores copies, so that a storage that does not answer fills no disk. Both have a lower priority than
//! everything else on the host, and can be killed at any instruction.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::stamp::FolderStamp;
use crate::failure::Failure;
use crate::logs::keep::keep;
use crate::logs::policy::{Place, Policy};
use crate::logs::said::{Said, What};
use crate::logs::ship::ship;
use crate::resource::logs::{Kept, Logs, Shipped, declared, folder, grouped};
use crate::system::Probe;
use crate::system::random::random_bytes;
use crate::visible::{count, rough_size};

/// How nice the threads are to others (setpriority(2)).
const NICE: i32 = 15;

/// How long after a failure copies are tried again: the first time. Each further time it is twice as long, up to the usual time.
const FIRST_PAUSE: Duration = Duration::from_secs(60);

/// The keeper of a host.
pub(super) struct Keeper {
    every: Duration,
    stamp: FolderStamp,
    keeping: Worker<Keeping>,
    shipping: Worker<Shipping>,
    pause: Duration,
    /// What is known of both.
    kept: Kept,
    /// What was told of what cannot be done.
    told: BTreeSet<String>,
}

/// A piece of work in a thread of its own, now and then.
struct Worker<Done> {
    due: Instant,
    job: Option<oneshot::Receiver<Done>>,
}

/// What was done to files.
#[derive(Default)]
struct Keeping {
    kept: Kept,
    removed: (usize, u64),
    unshipped: usize,
    packed: (usize, u64, u64),
    closed: usize,
}

/// What was done for copies. Nothing where none are declared.
#[derive(Default)]
struct Shipping {
    shipped: Option<Shipped>,
    sent: (usize, u64),
}

impl Keeper {
    /// One that does it every `every`, and soon for the first time.
    pub(super) fn new(every: Duration) -> Self {
        let due = Instant::now() + every.mul_f64(0.01 + 0.1 * chance());
        Self {
            every,
            stamp: FolderStamp::default(),
            keeping: Worker { due, job: None },
            shipping: Worker { due: due + every, job: None },
            pause: FIRST_PAUSE,
            kept: Kept::default(),
            told: BTreeSet::new(),
        }
    }

    /// Begins what is due, or what a declaration that has changed asks for.
    pub(super) fn look(&mut self, probe: &Probe) {
        if self.stamp.changed(&folder(probe.state_dir())) {
            self.keeping.due = Instant::now();
        }
        if !self.keeping.is_due() && !self.shipping.is_due() {
            return;
        }
        // Hosts that were started together do not all do it at the same time.
        let again = Instant::now() + self.every.mul_f64(0.9 + 0.2 * chance());
        if self.kept == Kept::default() && declared(probe).is_ok_and(|all| all.is_empty()) {
            (self.keeping.due, self.shipping.due) = (again, again);
            return;
        }
        let (probe_of_keeper, probe_of_shipper) = (probe.clone(), probe.clone());
        // Only after copies could not be stored may files go without one, where that is declared.
        let may_drop = self.kept.shipped.as_ref().is_some_and(|shipped| !shipped.trouble.is_empty());
        self.keeping.begin("keeper", again, move || keep_all(&probe_of_keeper, may_drop));
        self.shipping.begin("shipper", again, move || ship_all(&probe_of_shipper));
    }

    /// What was done, once it is; for the log and for the status, which has none where no folder is declared.
    pub(super) async fn finished(&mut self) -> (Vec<String>, Option<Kept>) {
        let mut parts = Vec::new();
        tokio::select! {
            done = self.keeping.done() => {
                let Some(done) = done else { return self.broke() };
                // What was just closed and compressed is stored right away.
                self.shipping.due = Instant::now();
                parts.extend(done.lines());
                self.kept = Kept { shipped: self.kept.shipped.take(), ..done.kept };
            }
            done = self.shipping.done() => {
                let Some(done) = done else { return self.broke() };
                parts.extend(done.lines());
                let failed = done.shipped.as_ref().is_some_and(|shipped| !shipped.trouble.is_empty());
                self.pause = if failed { self.again_after_a_failure() } else { FIRST_PAUSE };
                self.kept.shipped = done.shipped;
            }
        }
        let trouble: BTreeSet<String> = self.kept.all_trouble().cloned().collect();
        let mut lines: Vec<String> = trouble.difference(&self.told).cloned().collect();
        self.told = trouble;
        if !parts.is_empty() {
            lines.push(format!("logs: {}", parts.join(", ")));
        }
        (lines, (self.kept.folders > 0 || !self.kept.trouble.is_empty()).then(|| self.kept.clone()))
    }

    /// Tries copies again after a pause, and gives the next one.
    fn again_after_a_failure(&mut self) -> Duration {
        self.shipping.due = self.shipping.due.min(Instant::now() + self.pause.mul_f64(0.8 + 0.4 * chance()));
        self.pause.saturating_mul(2).min(self.every)
    }

    fn broke(&self) -> (Vec<String>, Option<Kept>) {
        (vec!["the keeper of logs broke: this is a defect of fanli".to_owned()], Some(self.kept.clone()))
    }
}

impl<Done: Send + 'static> Worker<Done> {
    fn is_due(&self) -> bool {
        self.job.is_none() && Instant::now() >= self.due
    }

    /// Begins, if it is due; the next time is `again`.
    fn begin(&mut self, name: &str, again: Instant, work: impl FnOnce() -> Done + Send + 'static) {
        if !self.is_due() {
            return;
        }
        self.due = again;
        let (tell, done) = oneshot::channel();
        let work = move || {
            let _ = rustix::process::setpriority_process(None, NICE);
            let _ = tell.send(work());
        };
        self.job = std::thread::Builder::new().name(name.to_owned()).spawn(work).is_ok().then_some(done);
    }

    /// What it has done, once it has; `None` when it broke. Nothing is lost when this is dropped.
    async fn done(&mut self) -> Option<Done> {
        let Some(job) = &mut self.job else { return std::future::pending().await };
        let done = job.await;
        self.job = None;
        done.ok()
    }
}

impl Keeping {
    fn lines(&self) -> Vec<String> {
        let mut parts = Vec::new();
        if self.closed > 0 {
            parts.push(format!("{} of killed writers closed", count(self.closed, "file")));
        }
        if self.removed.0 > 0 {
            parts.push(format!("{} removed ({})", count(self.removed.0, "file"), rough_size(self.removed.1)));
        }
        if self.unshipped > 0 {
            parts.push(format!("{} of them WITHOUT A COPY", self.unshipped));
        }
        if self.packed.0 > 0 {
            let (before, after) = (rough_size(self.packed.1), rough_size(self.packed.2));
            parts.push(format!("{} compressed ({before} to {after})", count(self.packed.0, "file")));
        }
        parts
    }
}

impl Shipping {
    fn lines(&self) -> Option<String> {
        let (files, bytes) = self.sent;
        (files > 0).then(|| format!("copies of {} stored ({})", count(files, "file"), rough_size(bytes)))
    }
}

/// Between 0 and 1.
fn chance() -> f64 {
    random_bytes::<1>().map_or(0.5, |[byte]| f64::from(byte) / 255.0)
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// The declarations that can be read, and what is wrong with the others.
fn sound(probe: &Probe) -> (Vec<Logs>, Vec<String>) {
    let (mut sound, mut trouble) = (Vec::new(), Vec::new());
    for one in declared(probe).unwrap_or_else(|failure| vec![Err(failure)]) {
        match one {
            Ok(logs) => sound.push(logs),
            Err(failure) => trouble.push(format!("logs: {failure}")),
        }
    }
    (sound, trouble)
}

fn told(said: &Said, failure: &Failure) -> String {
    let hint = failure.hint.as_ref().map(|hint| format!(" ({hint})")).unwrap_or_default();
    format!("logs: {}: {failure}{hint}", said.path.display())
}

fn keep_all(probe: &Probe, may_drop: bool) -> Keeping {
    let mut done = Keeping::default();
    let (sound, trouble) = sound(probe);
    done.kept = Kept { at: now(), folders: sound.len(), trouble, ..Kept::default() };
    for (policy, mut places) in grouped(sound) {
        if !may_drop {
            places = places.iter().map(Place::holding_back).collect();
        }
        let stays = keep(&places, &policy, probe.state_dir(), false, |said| match &said.what {
            What::Removed(removed) => {
                done.removed = (done.removed.0 + 1, done.removed.1 + removed.bytes);
                done.unshipped += usize::from(removed.unshipped);
            }
            What::Packed(_, lengths) => {
                let (before, after) = lengths.unwrap_or_default();
                done.packed = (done.packed.0 + 1, done.packed.1 + before, done.packed.2 + after);
            }
            What::Closed => done.closed += 1,
            What::Cleared | What::Shipped(_) => {}
            What::Failed(failure) => done.kept.trouble.push(told(&said, failure)),
        });
        done.kept.files += stays.segments;
        done.kept.bytes += stays.bytes;
    }
    done
}

fn ship_all(probe: &Probe) -> Shipping {
    let mut done = Shipping::default();
    let mut shipped = Shipped { at: now(), ..Shipped::default() };
    let ships = |(_, places): &(Policy, Vec<Place>)| places.iter().any(|place| place.ship.is_some());
    for (policy, places) in grouped(sound(probe).0).into_iter().filter(ships) {
        let waiting = ship(&places, &policy, probe.state_dir(), false, |said| match &said.what {
            What::Shipped(bytes) => done.sent = (done.sent.0 + 1, done.sent.1 + bytes),
            What::Failed(failure) => shipped.trouble.push(told(&said, failure)),
            _ => {}
        });
        shipped.waiting += waiting.segments;
        shipped.bytes += waiting.bytes;
        shipped.oldest = shipped.oldest.into_iter().chain(waiting.oldest).min();
        done.shipped = Some(Shipped::default());
    }
    done.shipped = done.shipped.map(|_| shipped);
    done
}
