//! The ledger of a folder: which of its segments are stored elsewhere, and which were removed.
//!
//! The folder belongs to a user that is not trusted, and a segment that is gone tells nothing; so this stands in fanli's own state directory,
//! `STATE/ledger/HASH/2026-11.jsonl`: one file for the segments whose period ended in that month, one line of JSON for each event. Lines are
//! only added. One that was cut off by a power failure is not read, and what it told is done again.
//!
//! Nothing goes before that stands here. So that a full disk can be freed although this is on it, `STATE/ledger/ballast` holds some room, and goes
//! when there is no other.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use rustix::fs::{FallocateFlags, OFlags, fallocate, statvfs};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::seal::Seal;
use crate::failure::{Context as _, Failure};
use crate::value::Digest;

/// How long a month is kept after the last event was added to it.
const KEPT: Duration = Duration::from_secs(400 * 24 * 3600);
/// How much room is held for a full disk, in bytes: some thousand lines. And how much must be free for it to be taken.
const BALLAST: u64 = 1 << 20;
const ROOM_FOR_BALLAST: u64 = 64 << 20;
/// The longest line that is read, in bytes.
const MOST_LINE: u64 = 64 * 1024;

/// The ledger of one folder.
#[derive(Clone, Debug)]
pub struct Ledger {
    dir: PathBuf,
}

/// One event of a segment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// When.
    pub at: Timestamp,
    /// The end of the segment's period. Ledgers of earlier versions do not say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<Timestamp>,
    /// The segment's path below the folder.
    pub segment: String,
    /// The SHA-256 of its lines, in hex.
    pub sha256: String,
    /// How many lines it has.
    pub lines: u64,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}

/// What happened to a segment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A copy was stored, and found to be whole.
    Stored {
        /// The target.
        to: String,
        /// The path of the copy below the target.
        path: String,
        /// The length of the copy in bytes.
        bytes: u64,
    },
    /// It was removed from the folder.
    Removed {
        /// Which limit said so.
        why: String,
        /// A copy was stored before.
        stored: bool,
    },
}

/// The segments of a folder of which a copy is stored. Months are read when they are asked for.
#[derive(Debug, Default)]
pub struct Stored {
    ledger: Option<(Ledger, String)>,
    months: RefCell<HashMap<String, HashSet<Key>>>,
    failed: RefCell<Option<Failure>>,
}

/// What a segment is known by: a part of the SHA-256 of its path and content.
pub(super) type Key = [u8; 16];

pub(super) fn key(segment: &str, sha256: &str) -> Key {
    let digest = Digest::of(format!("{segment}\0{sha256}").as_bytes());
    let mut key = Key::default();
    key.iter_mut().zip(digest.0).for_each(|(to, from)| *to = from);
    key
}

/// The month that a moment is in, in UTC.
pub(super) fn month(end: Timestamp) -> String {
    end.strftime("%Y-%m").to_string()
}

impl Ledger {
    /// The ledger of a folder, below fanli's state directory.
    pub fn of(state_dir: &Path, folder: &Path) -> Self {
        // However it is spelled.
        let folder: PathBuf = folder.components().collect();
        let name = Digest::of(folder.as_os_str().as_encoded_bytes()).short();
        Self { dir: state_dir.join("ledger").join(name) }
    }

    /// Takes its lock, which the caller holds as long as the file is open. Returns `None` when another process has it.
    ///
    /// # Errors
    /// The state directory cannot be written.
    pub(super) fn lock(&self) -> Result<Option<File>, Failure> {
        let failed = || format!("cannot lock {}", self.dir.display());
        self.make()?;
        let path = self.dir.join("lock");
        let file = open(&path, File::options().create(true).append(true)).with_context(failed)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error).with_context(failed),
        }
    }

    /// The directory for what is only needed while a copy is made; the holder of the lock may do with it what it likes.
    pub(super) fn stage(&self) -> PathBuf {
        self.dir.join("stage")
    }

    fn make(&self) -> Result<(), Failure> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&self.dir);
        made.with_context(|| format!("cannot make {}", self.dir.display()))
    }

    /// Adds an event of a segment whose period ends at `end`, durably.
    ///
    /// # Errors
    /// The state directory cannot be written.
    pub(super) fn add(&self, end: Timestamp, entry: &Entry) -> Result<(), Failure> {
        let path = self.dir.join(format!("{}.jsonl", month(end)));
        let failed = || format!("cannot write {}", path.display());
        let mut line = serde_json::to_vec(entry).with_context(failed)?;
        line.push(b'\n');
        self.make()?;
        match append(&path, &line) {
            Err(error) if is_full(&error) && std::fs::remove_file(self.ballast()).is_ok() => append(&path, &line),
            done => done,
        }
        .with_context(failed)
    }

    fn ballast(&self) -> PathBuf {
        self.dir.with_file_name("ballast")
    }

    /// Takes room for a full disk again, where there is much. Without it everything else is done all the same.
    pub(super) fn take_ballast(&self) {
        let free = statvfs(&self.dir).map_or(0, |stat| stat.f_bavail.saturating_mul(stat.f_frsize));
        let made =
            (free >= ROOM_FOR_BALLAST).then(|| open(&self.ballast(), File::options().write(true).create_new(true)));
        if let Some(Ok(file)) = made
            && fallocate(&file, FallocateFlags::empty(), 0, BALLAST).is_err()
        {
            let _ = std::fs::remove_file(self.ballast());
        }
    }

    /// The events of all months, the oldest month first.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn entries(&self) -> Result<Vec<Entry>, Failure> {
        let mut entries = Vec::new();
        for month in self.months()? {
            self.each(&month, |entry| entries.push(entry))?;
        }
        Ok(entries)
    }

    /// Calls `hear` with each event of a month. Returns how many lines are no events and were not cut off either.
    pub(super) fn each(&self, month: &str, mut hear: impl FnMut(Entry)) -> Result<usize, Failure> {
        let path = self.dir.join(format!("{month}.jsonl"));
        let failed = || format!("cannot read {}", path.display());
        let file = match open(&path, File::options().read(true)) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(0),
            opened => opened.with_context(failed)?,
        };
        let (mut reader, mut line, mut odd) = (BufReader::new(file), Vec::new(), 0);
        loop {
            line.clear();
            if (&mut reader).take(MOST_LINE).read_until(b'\n', &mut line).with_context(failed)? == 0 {
                return Ok(odd);
            }
            match serde_json::from_slice(&line) {
                Ok(entry) => hear(entry),
                // What a line that was cut off has told was done again.
                Err(error) => odd += usize::from(!error.is_eof()),
            }
        }
    }

    /// The months that it has, the oldest first: `2026-11`.
    pub(super) fn months(&self) -> Result<Vec<String>, Failure> {
        let failed = || format!("cannot read {}", self.dir.display());
        let found = match std::fs::read_dir(&self.dir) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            found => found.with_context(failed)?,
        };
        let mut months = Vec::new();
        for entry in found {
            let name = entry.with_context(failed)?.file_name();
            months.extend(name.to_str().and_then(|name| name.strip_suffix(".jsonl")).map(str::to_owned));
        }
        months.sort();
        Ok(months)
    }

    /// Removes the months to which nothing was added for 400 days. A segment that is still there is then stored again, which changes
    /// nothing.
    ///
    /// # Errors
    /// It cannot be read or written.
    pub(super) fn forget_old(&self, now: SystemTime) -> Result<(), Failure> {
        for month in self.months()? {
            let path = self.dir.join(format!("{month}.jsonl"));
            let failed = || format!("cannot remove {}", path.display());
            let changed = path.metadata().and_then(|meta| meta.modified()).with_context(failed)?;
            if now.duration_since(changed).is_ok_and(|age| age > KEPT) {
                std::fs::remove_file(&path).with_context(failed)?;
            }
        }
        Ok(())
    }
}

/// Opens a file of the ledger, or makes it for root alone. What is no plain file was put there by others.
fn open(path: &Path, options: &mut OpenOptions) -> std::io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = options.mode(0o600).custom_flags(flags.bits().cast_signed()).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(std::io::Error::other("it is no plain file")) }
}

/// Adds a line to a file, durably.
fn append(path: &Path, line: &[u8]) -> std::io::Result<()> {
    let mut file = open(path, File::options().create(true).read(true).append(true))?;
    if ends_within_a_line(&mut file)? {
        file.write_all(b"\n")?;
    }
    file.write_all(line)?;
    file.sync_data()
}

/// Whether there is no room: on the disk, or for its owner.
fn is_full(error: &std::io::Error) -> bool {
    [Some(Errno::NOSPC), Some(Errno::DQUOT)].contains(&Errno::from_io_error(error))
}

/// Whether the last line of a file has no end.
fn ends_within_a_line(file: &mut File) -> std::io::Result<bool> {
    if file.seek(SeekFrom::End(0))? == 0 {
        return Ok(false);
    }
    file.seek(SeekFrom::End(-1))?;
    let mut last = [0];
    file.read_exact(&mut last)?;
    Ok(last != *b"\n")
}

impl Stored {
    /// Those that a ledger knows to be stored at a target. What is stored elsewhere does not count.
    pub(super) fn at(ledger: Ledger, to: String) -> Self {
        Self { ledger: Some((ledger, to)), ..Self::default() }
    }

    /// Returns whether a copy of a segment with this content is stored.
    pub(super) fn has(&self, segment: &Path, seal: &Seal) -> bool {
        let (Some((ledger, target)), Some(closed)) = (&self.ledger, &seal.closed) else { return false };
        let mut months = self.months.borrow_mut();
        let known = months.entry(month(seal.end)).or_insert_with_key(|month| {
            let mut known = HashSet::new();
            let read = ledger.each(month, |entry| {
                if matches!(&entry.event, Event::Stored { to, .. } if to == target) {
                    known.insert(key(&entry.segment, &entry.sha256));
                }
            });
            if let Err(failure) = read {
                self.failed.replace(Some(failure));
            }
            known
        });
        known.contains(&key(&segment.to_string_lossy(), &closed.sha256))
    }

    /// Fails when a month could not be read: what it holds was taken for not stored.
    pub(super) fn was_readable(&self) -> Result<(), Failure> {
        self.failed.borrow().clone().map_or(Ok(()), Err)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(segment: &str, event: Event) -> Entry {
        Entry { at: Timestamp::now(), end: None, segment: segment.to_owned(), sha256: "ab".to_owned(), lines: 3, event }
    }

    fn stored(to: &str) -> Event {
        Event::Stored { to: to.to_owned(), path: "a.log.zst".to_owned(), bytes: 7 }
    }

    #[test]
    fn what_was_added_is_known_even_behind_a_line_that_was_cut_off() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = Ledger::of(dir.path(), Path::new("/data/weblogs"));
        let end: Timestamp = "2026-11-30T15:00:00Z".parse().unwrap();
        let known = |segment: &str, sha256: &str, to: &str| {
            let text = format!(
                r#"{{"begin":"{end}","end":"{end}","sealed":"{end}","why":"end","lines":3,"bytes":9,"sha256":"{sha256}","dropped_lines":0,"dropped_bytes":0}}"#
            );
            Stored::at(ledger.clone(), to.to_owned()).has(Path::new(segment), &serde_json::from_str(&text).unwrap())
        };
        assert!(!known("a.log", "ab", "/mnt"));
        ledger.add(end, &entry("a.log", stored("/mnt"))).unwrap();
        let file = ledger.dir.join("2026-11.jsonl");
        std::io::Write::write_all(&mut File::options().append(true).open(&file).unwrap(), b"{\"at\":\"20").unwrap();
        let removed = Event::Removed { why: "older than 30d".to_owned(), stored: true };
        ledger.add(end, &entry("b.log", removed.clone())).unwrap();
        assert!(known("a.log", "ab", "/mnt"));
        assert!(!known("a.log", "cd", "/mnt"), "another content");
        assert!(!known("a.log", "ab", "/elsewhere"), "another storage");
        assert!(!known("b.log", "ab", "/mnt"), "one that was removed is not stored by that");
        let events: Vec<Event> = ledger.entries().unwrap().into_iter().map(|entry| entry.event).collect();
        assert_eq!(events, [stored("/mnt"), removed]);
    }

    #[test]
    fn months_without_an_event_for_long_go() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = Ledger::of(dir.path(), Path::new("/data/weblogs"));
        // A host whose clock was wrong has segments of any time.
        for end in ["1970-01-01T01:00:00Z", "2025-10-01T00:00:00Z", "2026-11-30T15:00:00Z"] {
            ledger.add(end.parse().unwrap(), &entry(end, stored("/mnt"))).unwrap();
        }
        let old = SystemTime::now() - KEPT - Duration::from_secs(60);
        File::options().append(true).open(ledger.dir.join("2025-10.jsonl")).unwrap().set_modified(old).unwrap();
        ledger.forget_old(SystemTime::now()).unwrap();
        assert_eq!(ledger.months().unwrap(), ["1970-01", "2026-11"]);
    }

    #[test]
    fn one_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = Ledger::of(dir.path(), Path::new("/data/weblogs"));
        let held = ledger.lock().unwrap();
        assert!(held.is_some() && ledger.lock().unwrap().is_none());
        drop(held);
        assert!(ledger.lock().unwrap().is_some());
    }
}
