//! Which segments there are, and which of them can hold what is asked for.

use std::collections::HashSet;
use std::hash::{BuildHasher as _, RandomState};
use std::path::Path;
use std::rc::Rc;

use jiff::Timestamp;
use rustix::fs::fstat;

use super::source::Source;
use super::{Desk, Enough};
use crate::logs::folder::{Folder, State};
use crate::logs::policy::Place;
use crate::logs::seal::Seal;

/// For how long a change of a directory may have been missed, in seconds: file systems note times coarsely.
const COARSE: i64 = 1;

/// How much earlier than when it was looked for last a segment may have been closed to be taken for one that was written since, in seconds.
/// What was closed before that is a copy, or was moved here.
const JUST_CLOSED: i64 = 60;

/// What was found so far: a segment is read once, also when segments are looked for again.
#[derive(Default)]
pub(super) struct Found {
    /// The segments, by hashes of their folders and paths.
    known: HashSet<u64>,
    hashed: RandomState,
    dirs: Vec<SeenDir>,
    /// When segments were looked for last: seconds since 1970.
    looked: Option<i64>,
    /// The folders that could not be looked at then.
    failed: HashSet<u32>,
}

/// A directory that may get segments.
struct SeenDir {
    folder: Rc<Folder>,
    number: usize,
    /// When names in it changed last: seconds since 1970, and nanoseconds.
    changed: (i64, i64),
}

impl Found {
    /// Returns whether there may be more segments than when they were looked for last.
    pub(super) fn is_stale(&self) -> bool {
        !self.failed.is_empty()
            || self.dirs.iter().any(|dir| {
                let just_then = self.looked.is_none_or(|looked| dir.changed.0.saturating_add(COARSE) >= looked);
                just_then || changed_at(&dir.folder, dir.number) != Some(dir.changed)
            })
    }

    fn note_dirs(&mut self, folder: &Rc<Folder>) {
        self.dirs.extend((0..folder.dirs.len()).filter_map(|number| {
            Some(SeenDir { folder: Rc::clone(folder), number, changed: changed_at(folder, number)? })
        }));
    }
}

/// When names in a directory changed last; `None` when it is gone.
fn changed_at(folder: &Folder, dir: usize) -> Option<(i64, i64)> {
    let stat = fstat(folder.open(dir).ok()?).ok()?;
    Some((stat.st_mtime, i64::try_from(stat.st_mtime_nsec).unwrap_or(0)))
}

impl Desk<'_> {
    /// Looks for segments that were not found before, and returns those that can hold lines that are asked for. Folders that cannot be
    /// looked at are told.
    pub(super) fn look(&mut self, found: &mut Found) -> Result<Vec<Source>, Enough> {
        let mut sources = Vec::new();
        found.dirs.clear();
        let now = Timestamp::now().as_second();
        let before = found.looked.replace(now);
        for (number, path) in (0..).zip(&self.query.folders) {
            let place = Place { path: path.clone(), ship: None };
            let folder = match Folder::look(&place, now, Path::new("")) {
                Ok(folder) => Rc::new(folder),
                Err(failure) => {
                    // Told once, however often it is tried again.
                    if found.failed.insert(number) {
                        self.fail(failure)?;
                    }
                    continue;
                }
            };
            let is_new = !found.failed.remove(&number) && before.is_none();
            for failure in folder.unread.iter().filter(|_| is_new) {
                self.fail(failure.clone())?;
            }
            found.note_dirs(&folder);
            sources.extend((0..folder.segments.len()).filter_map(|of| self.source(&folder, number, of, found, before)));
        }
        // Lines of one time in several files come in the order in which the files were begun.
        sources
            .sort_by(|one, other| (one.opened, one.number, &one.path).cmp(&(other.opened, other.number, &other.path)));
        Ok(sources)
    }

    /// `None` for what was found before, what was written before it was looked `before`, and what holds nothing that is asked for.
    fn source(
        &self,
        folder: &Rc<Folder>,
        number: u32,
        of: usize,
        found: &mut Found,
        before: Option<i64>,
    ) -> Option<Source> {
        let (segment, piece) = (folder.segments.get(of)?, folder.shelf.pieces.get(of)?);
        let path = folder.below(segment.dir, &segment.name);
        if !found.known.insert(found.hashed.hash_one((number, &path))) {
            return None;
        }
        let site = self.query.site.as_deref();
        let is_of =
            |site: &str| path.parent().is_some_and(|dir| dir == Path::new(site) || dir.iter().any(|part| part == site));
        if site.is_some_and(|site| !is_of(site)) {
            return None;
        }
        // No line is later than the last change.
        if piece.end.saturating_add(COARSE).saturating_mul(1_000_000) < self.filter.since {
            return None;
        }
        let seal = Seal::read(&folder.open(segment.dir).ok()?, &segment.name);
        let closed = seal.as_ref().and_then(|seal| seal.closed.as_ref());
        let is_older =
            |before: i64| closed.is_some_and(|closed| closed.sealed.as_second() < before.saturating_sub(JUST_CLOSED));
        if before.is_some_and(is_older) {
            return None;
        }
        let period = seal.as_ref().map(|seal| (seal.begin.as_microsecond(), seal.end.as_microsecond()));
        let (begin, end) = period.unwrap_or((i64::MIN, i64::MAX));
        // No line is later than its writing, whatever time it gives.
        let written = closed.map_or(i64::MAX, |closed| closed.sealed.as_microsecond());
        let opened = seal.as_ref().and_then(|seal| seal.opened).map(Timestamp::as_microsecond);
        let source = Source {
            folder: Rc::clone(folder),
            segment: of,
            number,
            path,
            begin,
            end: end.min(written).max(begin),
            opened: opened.unwrap_or(begin),
            changed: piece.end,
            bytes: closed.map(|closed| closed.bytes),
            writing: piece.state == State::Writing,
        };
        (begin <= self.filter.until).then_some(source)
    }
}
