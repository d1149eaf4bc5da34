//! The seal: what is known of a segment, in one line of JSON beside it.
//!
//! It is there before the segment is, so that nothing else in the folder is ever taken for one, and is written anew once the segment
//! is closed.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;

use jiff::Timestamp;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, fchown, fstat, fsync, openat, renameat, unlinkat};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::{of_io, period::Period};

/// The longest seal that is read, in bytes.
const MOST: u64 = 4096;

/// More lines or bytes than there are in a file.
const TOO_MANY: u64 = 1 << 53;

/// The permissions of a seal.
const MODE: Mode = Mode::from_raw_mode(0o644);

/// Why a segment was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Why {
    /// Its period is over.
    Period,
    /// It is as long as it may be.
    Size,
    /// The program that wrote the lines has ended, or has a new writer.
    End,
    /// Its writer was killed, and the keeper has closed it.
    Left,
}

/// What is known of a segment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Seal {
    /// The begin of its period.
    pub(super) begin: Timestamp,
    /// The end of its period.
    pub(super) end: Timestamp,
    /// When it was begun. Seals of earlier versions do not say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) opened: Option<Timestamp>,
    /// What its writer was told to write down with it: the generation of the configuration that it stands in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) tag: Option<String>,
    /// `None` as long as it is written.
    #[serde(flatten)]
    pub(super) closed: Option<Closed>,
}

/// What is known of a closed segment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Closed {
    /// When it was closed.
    pub(super) sealed: Timestamp,
    /// See [`Why`].
    pub(super) why: Why,
    /// How many lines it holds.
    pub(super) lines: u64,
    /// Its length in bytes.
    pub(super) bytes: u64,
    /// The SHA-256 of its content, in hex.
    pub(super) sha256: String,
    /// Lines that were left out since the segment before it was closed.
    pub(super) dropped_lines: u64,
    /// Their length in bytes.
    pub(super) dropped_bytes: u64,
}

/// A sum of what seals say, which is no larger than a number of the language.
pub(super) fn sum(one: u64, other: u64) -> u64 {
    one.saturating_add(other).min(i64::MAX.cast_unsigned())
}

/// The name of a segment's seal.
pub(super) fn name_of(segment: &str) -> String {
    format!(".{segment}.seal")
}

/// The name of the segment that a seal is of; `None` for the name of anything else.
pub(super) fn segment_of(name: &str) -> Option<&str> {
    name.strip_prefix('.')?.strip_suffix(".seal").filter(|segment| !segment.is_empty())
}

impl Seal {
    /// The seal of a segment that is about to be written.
    pub(super) fn open(period: &Period, tag: Option<String>, now: Timestamp) -> Self {
        Self { begin: period.begin, end: period.end, opened: Some(now), tag, closed: None }
    }

    /// Puts it beside a segment that is not there yet. After a power cut it may be empty.
    pub(super) fn begin(&self, dir: &OwnedFd, segment: &str) -> Result<(), Errno> {
        let name = name_of(segment);
        self.put(dir, &name).map(drop).inspect_err(|errno| {
            if *errno != Errno::EXIST {
                let _ = unlinkat(dir, &name, AtFlags::empty());
            }
        })
    }

    /// Puts it in the place of the one before, durably; as root for the owner of the folder.
    pub(super) fn replace(&self, dir: &OwnedFd, segment: &str) -> Result<(), Errno> {
        let name = name_of(segment);
        let unfinished = format!("{name}.new");
        let _ = unlinkat(dir, &unfinished, AtFlags::empty());
        let file = self.put(dir, &unfinished)?;
        if rustix::process::geteuid().is_root() {
            let owner = fstat(dir)?;
            let (uid, gid) = (rustix::fs::Uid::from_raw(owner.st_uid), rustix::fs::Gid::from_raw(owner.st_gid));
            fchown(&file, Some(uid), Some(gid))?;
        }
        fsync(&file)?;
        renameat(dir, &unfinished, dir, &name)?;
        fsync(dir)
    }

    fn put(&self, dir: &OwnedFd, name: &str) -> Result<File, Errno> {
        let text = self.text()?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = File::from(openat(dir, name, flags, MODE)?);
        file.write_all(&text).map_err(|error| of_io(&error))?;
        Ok(file)
    }

    /// Returns what stands in its file.
    pub(super) fn text(&self) -> Result<Vec<u8>, Errno> {
        let mut text = serde_json::to_vec(self).map_err(|_| Errno::INVAL)?;
        text.push(b'\n');
        Ok(text)
    }

    /// Returns what stands in a segment's seal; `None` where that cannot be read as one.
    pub(super) fn read(dir: &OwnedFd, segment: &str) -> Option<Self> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = openat(dir, name_of(segment), flags, Mode::empty()).ok()?;
        if FileType::from_raw_mode(fstat(&file).ok()?.st_mode) != FileType::RegularFile {
            return None;
        }
        let mut text = Vec::new();
        File::from(file).take(MOST).read_to_end(&mut text).ok()?;
        serde_json::from_slice(&text).ok().filter(Self::is_possible)
    }

    /// Whether its numbers can be: whoever owns the folder may write anything.
    fn is_possible(&self) -> bool {
        self.closed.as_ref().is_none_or(|closed| {
            [closed.lines, closed.bytes, closed.dropped_lines, closed.dropped_bytes]
                .iter()
                .all(|number| *number < TOO_MANY)
        })
    }
}
