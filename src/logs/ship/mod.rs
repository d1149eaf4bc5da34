//! Stores copies of closed segments elsewhere, each once, and writes down in the [ledger](super::ledger) that it did.
//!
//! ```text
//! [folder](super::folder): what has no copy yet -> [parcel](super::parcel): opened, and checked against its seal -> [directory], [rsync], [objects]: sent, and compared
//! ```
//!
//! A copy is known by its name, which holds a random ID: one that is there already is compared and never written over. So what was sent by a
//! process that was killed before it could write that down is found, and not stored twice. Below the target everything looks as it does in the
//! folder, with its seals, so that `fanli logs keep` works there as well.

mod directory;
mod objects;
mod rsync;
mod throttle;

use std::collections::{BTreeSet, VecDeque};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use jiff::Timestamp;

use super::folder::{Folder, Piece, State};
use super::ledger::{Entry, Event, Ledger};
use super::parcel::Parcel;
use super::policy::{Place, Policy, Shipping};
use super::said::{Said, What};
use super::target::Target;
use crate::failure::Failure;

/// The most files that are sent together, and the most bytes of all but the last of them.
const BATCH: (usize, u64) = (64, 256 << 20);

/// What is still to be stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waiting {
    /// How many segments.
    pub segments: usize,
    /// What they take on the disk, in bytes.
    pub bytes: u64,
    /// The end of the oldest one's period: seconds since 1970.
    pub oldest: Option<i64>,
}

/// A folder, and the numbers of its segments that wait: the oldest first.
struct Queue<'a> {
    shipping: &'a Shipping,
    folder: Folder,
    ledger: Ledger,
    waiting: VecDeque<usize>,
    /// Those that could not be sent, whatever the storage says.
    refused: Vec<usize>,
    /// Held as long as its segments are sent.
    _lock: Option<File>,
}

/// What sends copies to a storage. For each one `done` is called once it is known to be whole, or to be refused.
///
/// # Errors
/// The storage cannot be reached or written: what follows would fail as well.
type Done<'a> = &'a mut dyn FnMut(&Parcel, Result<(), Failure>);

/// A copy that the ledger tells of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Known {
    /// Its path below the target.
    pub(super) path: String,
    /// Its length in bytes.
    pub(super) bytes: u64,
}

/// Looks for copies at their storage, and returns the length of each in bytes; `None` for one that is not there. `disk` is that of the logs.
///
/// # Errors
/// The storage cannot be reached or read.
pub(super) fn lengths(shipping: &Shipping, disk: u64, copies: &[Known]) -> Result<Vec<Option<u64>>, Failure> {
    match &shipping.to {
        Target::Directory(path) => directory::lengths(path, disk, copies),
        Target::Bucket(bucket, prefix) => objects::lengths((bucket, prefix), shipping, copies),
        Target::Rsync(_) => rsync::lengths(shipping, copies),
    }
}

/// Stores copies of all segments that have none and are closed, and compressed where the policy says so. Where `check` is set it only tells
/// which. `say` hears of each, and of what cannot be done. Returns what still waits afterwards.
pub fn ship(places: &[Place], policy: &Policy, state_dir: &Path, check: bool, mut say: impl FnMut(Said)) -> Waiting {
    let mut queues = Vec::new();
    for (place, shipping) in places.iter().filter_map(|place| Some((place, place.ship.as_ref()?))) {
        match Queue::begin(place, shipping, policy, state_dir, check) {
            Ok(queue) => queues.push(queue),
            Err(failure) => say(Said { path: place.path.clone(), what: What::Failed(failure) }),
        }
    }
    if check {
        queues.iter().for_each(|queue| queue.would(&mut say));
        return waiting(&queues);
    }
    // What cannot be reached for one folder is not tried for the next.
    let mut away = BTreeSet::new();
    let may_send = |queue: &Queue<'_>, away: &BTreeSet<String>| {
        !queue.waiting.is_empty() && !away.contains(queue.shipping.to.server())
    };
    // A folder with much to send does not keep the others waiting.
    while queues.iter().any(|queue| may_send(queue, &away)) {
        for queue in &mut queues {
            if !may_send(queue, &away) {
                continue;
            }
            if let Err(failure) = queue.send(&mut say) {
                let to = &queue.shipping.to;
                let failure = failure.within(format!("copies cannot be stored at {to}"));
                say(Said { path: queue.folder.path.clone(), what: What::Failed(failure) });
                away.insert(to.server().to_owned());
            }
        }
    }
    waiting(&queues)
}

fn waiting(queues: &[Queue<'_>]) -> Waiting {
    let mut all = Waiting::default();
    for piece in queues.iter().flat_map(Queue::pieces) {
        all.segments += 1;
        all.bytes += piece.bytes;
        all.oldest = Some(all.oldest.map_or(piece.end, |oldest| oldest.min(piece.end)));
    }
    all
}

impl<'a> Queue<'a> {
    fn begin(
        place: &'a Place,
        shipping: &'a Shipping,
        policy: &Policy,
        state_dir: &Path,
        check: bool,
    ) -> Result<Self, Failure> {
        let ledger = place.ledger(state_dir);
        let lock = if check { None } else { ledger.lock()? };
        if lock.is_none() && !check {
            return Err(Failure::new("another fanli stores copies of its files right now"));
        }
        let folder = Folder::look(place, Timestamp::now().as_second(), state_dir)?;
        if !check {
            ledger.forget_old(SystemTime::now())?;
            ledger.take_ballast();
        }
        let is_due = |piece: &Piece| match piece.state {
            State::Packed => !piece.stored,
            State::Closed => !piece.stored && policy.pack.is_none(),
            State::Writing | State::Left => false,
        };
        let due = folder.shelf.pieces.iter().enumerate().filter(|(_, piece)| is_due(piece));
        let mut waiting: Vec<(i64, usize)> = due.map(|(number, piece)| (piece.end, number)).collect();
        waiting.sort_unstable();
        let waiting = waiting.into_iter().map(|(_, number)| number).collect();
        Ok(Self { shipping, folder, ledger, waiting, refused: Vec::new(), _lock: lock })
    }

    /// The pieces without a copy.
    fn pieces(&self) -> impl Iterator<Item = &Piece> {
        self.waiting.iter().chain(&self.refused).filter_map(|number| self.folder.shelf.pieces.get(*number))
    }

    fn path_of(&self, number: usize) -> PathBuf {
        let segment = self.folder.segments.get(number);
        segment.map_or_else(|| self.folder.path.clone(), |segment| self.folder.path_of(segment.dir, &segment.name))
    }

    fn would(&self, say: &mut impl FnMut(Said)) {
        for (number, piece) in self.waiting.iter().zip(self.pieces()) {
            say(Said { path: self.path_of(*number), what: What::Shipped(piece.bytes) });
        }
    }

    /// Sends the next ones together.
    fn send(&mut self, say: &mut impl FnMut(Said)) -> Result<(), Failure> {
        let (mut parcels, mut bytes, mut numbers) = (Vec::new(), 0, Vec::new());
        while numbers.len() < BATCH.0 && bytes < BATCH.1 {
            let Some(number) = self.waiting.pop_front() else { break };
            match Parcel::open(&self.folder, number) {
                Ok(parcel) => {
                    bytes += parcel.bytes;
                    parcels.push(parcel);
                    numbers.push(number);
                }
                Err(failure) => {
                    self.refused.push(number);
                    let failure = failure.within("no copy of it is stored");
                    say(Said { path: self.path_of(number), what: What::Failed(failure) });
                }
            }
        }
        if parcels.is_empty() {
            return Ok(());
        }
        let (folder, ledger, shipping) = (&self.folder, &self.ledger, self.shipping);
        let (mut known, refused) = (Vec::new(), &mut self.refused);
        let mut done = |parcel: &Parcel, stored: Result<(), Failure>| {
            known.push(parcel.number);
            let what = match stored.and_then(|()| parcel.note(ledger, &shipping.to)) {
                Ok(()) => What::Shipped(parcel.bytes),
                Err(failure) => {
                    refused.push(parcel.number);
                    What::Failed(failure)
                }
            };
            say(Said { path: folder.path.join(&parcel.segment), what });
        };
        let sent = match &shipping.to {
            Target::Directory(path) => directory::store(path, shipping.rate, folder.shelf.disk, &parcels, &mut done),
            Target::Bucket(bucket, prefix) => objects::store((bucket, prefix), shipping, &parcels, &mut done),
            Target::Rsync(_) => rsync::store(shipping, &self.ledger.stage(), &parcels, &mut done),
        };
        // What was not sent waits.
        let missed: Vec<usize> = numbers.into_iter().filter(|number| !known.contains(number)).collect();
        missed.into_iter().rev().for_each(|number| self.waiting.push_front(number));
        sent
    }
}

impl Parcel {
    /// Writes down that a copy is stored.
    fn note(&self, ledger: &Ledger, to: &Target) -> Result<(), Failure> {
        let event =
            Event::Stored { to: to.to_string(), path: self.path.to_string_lossy().into_owned(), bytes: self.bytes };
        let entry = Entry {
            at: Timestamp::now(),
            end: Some(self.end),
            segment: self.segment.to_string_lossy().into_owned(),
            sha256: self.content.clone(),
            lines: self.lines,
            event,
        };
        ledger.add(self.end, &entry)
    }
}
