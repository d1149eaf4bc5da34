//! Keeps the segments of folders: closes those of killed writers, compresses, and removes what is over a limit.
//!
//! ```text
//! [scan]: what is there -> [decide]: what is to be done, by numbers alone -> [act]: does it
//! ```
//!
//! The disk is the ledger: a segment has a seal, is compressed or not, or is gone. So a keeper can be killed at any instruction, and
//! the next one goes on. Folders belong to users that are not trusted, those of containers: everything is done by descriptors, no link is followed,
//! and what is no segment with a seal is never touched.

mod act;
mod codec;
mod decide;
mod scan;

use std::path::{Path, PathBuf};

use jiff::Timestamp;

pub use codec::Codec;
pub use decide::Policy;
use decide::{Deed, Shelf, decide};
use scan::{Folder, Segment};

use crate::failure::{Context as _, Failure};

/// One thing that was done, or would be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// The segment.
    pub path: PathBuf,
    /// What became of it.
    pub what: What,
}

/// What becomes of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// It goes, for this reason; so many bytes are free then.
    Removed(String, u64),
    /// It is closed in the place of its writer, which was killed.
    Closed,
    /// It is compressed. Its length before and after, once that is known.
    Packed(Codec, Option<(u64, u64)>),
    /// What a killed keeper or writer has left half-made goes.
    Cleared,
    /// It could not be done.
    Failed(Failure),
}

/// What stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stays {
    /// How many segments.
    pub segments: usize,
    /// What they take on the disk, in bytes.
    pub bytes: u64,
}

/// Does what the policy says in all folders, or tells what would be done. `say` hears each thing when it is done, and of folders that
/// cannot be looked at.
pub fn keep(folders: &[PathBuf], policy: &Policy, check: bool, mut say: impl FnMut(Said)) -> Stays {
    let now = Timestamp::now().as_second();
    let look = |path: &PathBuf| match Folder::look(path, now) {
        Ok(folder) => Some(folder),
        Err(failure) => {
            say(Said { path: path.clone(), what: What::Failed(failure) });
            None
        }
    };
    let folders: Vec<Folder> = folders.iter().filter_map(look).collect();
    let shelves: Vec<&Shelf> = folders.iter().map(|folder| &folder.shelf).collect();
    let mut stays = Stays {
        segments: shelves.iter().map(|shelf| shelf.pieces.len()).sum(),
        bytes: shelves.iter().flat_map(|shelf| &shelf.pieces).map(|piece| piece.bytes).sum(),
    };
    for folder in &folders {
        for (dir, name) in &folder.strays {
            let done = if check { Ok(()) } else { clear(folder, *dir, name) };
            say(Said { path: folder.path_of(*dir, name), what: done.map_or_else(What::Failed, |()| What::Cleared) });
        }
    }
    for (folder, number, deed) in decide(&shelves, policy, now) {
        let Some(folder) = folders.get(folder) else { continue };
        let Some((segment, piece)) = folder.segments.get(number).zip(folder.shelf.pieces.get(number)) else { continue };
        let path = folder.path_of(segment.dir, &segment.name);
        let done = if check { Ok(None) } else { carry_out(folder, segment, &deed) };
        let what = match (done, deed) {
            (Err(failure), _) => What::Failed(failure),
            (Ok(_), Deed::Remove(why)) => {
                stays.segments = stays.segments.saturating_sub(1);
                stays.bytes = stays.bytes.saturating_sub(piece.bytes);
                What::Removed(why, piece.bytes)
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

impl Folder {
    fn path_of(&self, dir: usize, name: &str) -> PathBuf {
        self.path.join(self.dirs.get(dir).map_or(Path::new(""), PathBuf::as_path)).join(name)
    }
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
            // Killed before the file that was written had gone: it is made again, as nobody has looked whether it is whole.
            if let Some(old) = segment.packed {
                act::unlink(&dir, &format!("{}{}", segment.name, old.extension()))?;
            }
            act::pack(&dir, segment, *codec).map(Some)
        }
    }
}
