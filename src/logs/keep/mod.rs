//! Keeps the segments of folders: closes those of killed writers, compresses, and removes what is over a limit.
//!
//! ```text
//! [folder](super::folder): what is there -> [decide]: what is to be done, by numbers alone -> [act]: does it
//! ```
//!
//! The disk tells how far a segment is: it has a seal, is compressed or not, or is gone. So a keeper can be killed at any instruction, and
//! the next one goes on. Folders belong to users that are not trusted, those of containers: everything is done by descriptors, no link is followed,
//! and what is no segment with a seal is never touched.

mod act;
mod decide;

use std::path::Path;

use jiff::Timestamp;

use decide::{Deed, decide};

use super::folder::{Folder, Piece, Segment, Shelf};
use super::ledger::{Entry, Event, Ledger};
use super::policy::{Place, Policy};
use super::said::{Removed, Said, What};
use super::seal::Seal;
use crate::failure::{Context as _, Failure};

/// What stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stays {
    /// How many segments.
    pub segments: usize,
    /// What they take on the disk, in bytes.
    pub bytes: u64,
}

/// Does what the policy says in all folders, or tells what would be done; what is to be stored elsewhere is for [`ship`](super::ship::ship).
/// `say` hears each thing when it is done, and of folders that cannot be looked at. `state_dir` is where ledgers are.
pub fn keep(places: &[Place], policy: &Policy, state_dir: &Path, check: bool, mut say: impl FnMut(Said)) -> Stays {
    let now = Timestamp::now().as_second();
    let mut look = |place: &Place| match Folder::look(place, now, state_dir) {
        Ok(folder) => Some(folder),
        Err(failure) => {
            say(Said { path: place.path.clone(), what: What::Failed(failure) });
            None
        }
    };
    let (folders, places): (Vec<Folder>, Vec<&Place>) =
        places.iter().filter_map(|place| Some((look(place)?, place))).unzip();
    let shelves: Vec<&Shelf> = folders.iter().map(|folder| &folder.shelf).collect();
    let mut stays = Stays {
        segments: shelves.iter().map(|shelf| shelf.pieces.len()).sum(),
        bytes: shelves.iter().flat_map(|shelf| &shelf.pieces).map(|piece| piece.bytes).sum(),
    };
    for folder in &folders {
        for failure in &folder.unread {
            say(Said { path: folder.path.clone(), what: What::Failed(failure.clone()) });
        }
        for (dir, name) in &folder.strays {
            let done = if check { Ok(()) } else { clear(folder, *dir, name) };
            say(Said { path: folder.path_of(*dir, name), what: done.map_or_else(What::Failed, |()| What::Cleared) });
        }
    }
    for (folder, number, deed) in decide(&shelves, policy, now) {
        let Some((folder, place)) = folders.get(folder).zip(places.get(folder)) else { continue };
        let Some((segment, piece)) = folder.segments.get(number).zip(folder.shelf.pieces.get(number)) else { continue };
        let path = folder.path_of(segment.dir, &segment.name);
        let unshipped = place.ship.is_some() && !piece.stored;
        let noted = match &deed {
            Deed::Remove(why) if place.ship.is_some() && !check => {
                note(folder, segment, piece, why, &place.ledger(state_dir))
            }
            _ => Ok(()),
        };
        let done = if check { Ok(None) } else { noted.and_then(|()| carry_out(folder, segment, &deed)) };
        let what = match (done, deed) {
            (Err(failure), _) => What::Failed(failure),
            (Ok(_), Deed::Remove(why)) => {
                stays.segments = stays.segments.saturating_sub(1);
                stays.bytes = stays.bytes.saturating_sub(piece.bytes);
                What::Removed(Removed { why, bytes: piece.bytes, unshipped })
            }
            (Ok(_), Deed::Seal) => What::Closed,
            (Ok(lengths), Deed::Pack(codec)) => {
                if let Some((before, after)) = lengths {
                    stays.bytes = stays.bytes.saturating_sub(before.saturating_sub(after));
                }
                What::Packed(codec, lengths)
            }
        };
        say(Said { path, what });
    }
    stays
}

/// Writes down that a segment goes, before it does: one that is gone without a word would be lost.
fn note(folder: &Folder, segment: &Segment, piece: &Piece, why: &str, ledger: &Ledger) -> Result<(), Failure> {
    let dir = folder.open(segment.dir).with_context(|| format!("cannot open the directory of {}", segment.name))?;
    let seal = Seal::read(&dir, &segment.name);
    let end = seal.as_ref().map_or_else(|| Timestamp::from_second(piece.end).unwrap_or_default(), |seal| seal.end);
    let closed = seal.and_then(|seal| seal.closed);
    let entry = Entry {
        at: Timestamp::now(),
        end: Some(end),
        segment: folder.below(segment.dir, &segment.name).to_string_lossy().into_owned(),
        sha256: closed.as_ref().map(|closed| closed.sha256.clone()).unwrap_or_default(),
        lines: closed.map_or(0, |closed| closed.lines),
        event: Event::Removed { why: why.to_owned(), stored: piece.stored },
    };
    ledger.add(end, &entry)
}

fn clear(folder: &Folder, dir: usize, name: &str) -> Result<(), Failure> {
    let dir = folder.open(dir).with_context(|| format!("cannot open the directory of {name}"))?;
    act::unlink(&dir, name)
}

fn carry_out(folder: &Folder, segment: &Segment, deed: &Deed) -> Result<Option<(u64, u64)>, Failure> {
    let dir = folder.open(segment.dir).with_context(|| format!("cannot open the directory of {}", segment.name))?;
    match deed {
        Deed::Remove(_) => act::remove(&dir, segment).map(|()| None),
        Deed::Seal => act::close(&dir, segment).map(|()| None),
        Deed::Pack(codec) => {
            let lengths = act::pack(&dir, segment, *codec)?;
            // Left by a keeper that was killed; it stays where what was written cannot be compressed: it may be all that there is of it.
            if let Some(old) = segment.packed.filter(|old| old != codec) {
                act::unlink(&dir, &format!("{}{}", segment.name, old.extension()))?;
            }
            Ok(Some(lengths))
        }
    }
}
