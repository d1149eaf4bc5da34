//! What stands in a folder of segments, found by descriptors alone: no link is followed and no other file system is entered.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, FlockOperation, Mode, OFlags, Stat, flock, fstat, fstatvfs, openat, statat};
use rustix::io::Errno;

use super::codec::Codec;
use super::ledger::Stored;
use super::policy::Place;
use super::seal::{self, Seal};
use crate::failure::{Context as _, Failure};
use crate::system::fs::open_folder;

/// The deepest that directories of a template go.
const DEEPEST: usize = 8;
/// How long something half-made is left alone, in seconds: another keeper may be at work on it.
const HALF_MADE: i64 = 600;

/// How far a segment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// It is being written.
    Writing,
    /// Its writer was killed.
    Left,
    /// It is closed.
    Closed,
    /// It is closed and compressed.
    Packed,
}

/// A segment, as far as a decision needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    /// The end of its period: seconds since 1970.
    pub(super) end: i64,
    /// What it takes on the disk.
    pub(super) bytes: u64,
    pub(super) state: State,
    /// A copy of it is stored elsewhere.
    pub(super) stored: bool,
}

/// The segments of a folder.
#[derive(Clone, Debug, Default)]
pub(super) struct Shelf {
    /// Which disk it is on.
    pub(super) disk: u64,
    /// How many bytes are free there.
    pub(super) free: u64,
    /// What has no copy elsewhere must stay.
    pub(super) held_back: bool,
    pub(super) pieces: Vec<Piece>,
}

/// A folder of segments.
pub(super) struct Folder {
    pub(super) path: PathBuf,
    pub(super) fd: OwnedFd,
    /// The directories in it, by their paths below it.
    pub(super) dirs: Vec<PathBuf>,
    /// The segments, in the order of the shelf's pieces.
    pub(super) segments: Vec<Segment>,
    /// What killed keepers and writers have left: seals of nothing, and half-made files.
    pub(super) strays: Vec<(usize, String)>,
    /// How many files have no seal, and are nobody's or somebody else's.
    pub(super) unsealed: usize,
    /// Directories that could not be looked into.
    pub(super) unread: Vec<Failure>,
    /// There are directories deeper than any template's.
    is_deep: bool,
    pub(super) shelf: Shelf,
}

/// Where a segment is.
pub(super) struct Segment {
    /// The number of its directory.
    pub(super) dir: usize,
    /// The name that its writer gave it.
    pub(super) name: String,
    /// How it was compressed, where a compressed one is there.
    pub(super) packed: Option<Codec>,
}

impl Folder {
    /// Looks at all of it, and into its ledger below `state_dir`.
    ///
    /// # Errors
    /// It is not there, cannot be read itself, or leads through a link that others could have made; the ledger cannot be read.
    pub(super) fn look(place: &Place, now: i64, state_dir: &Path) -> Result<Self, Failure> {
        let (path, stored) = (&place.path, place.stored(state_dir));
        let fd = open_folder(path)?;
        let failed = || format!("cannot look at {}", path.display());
        let disk = fstat(&fd).with_context(failed)?.st_dev;
        let room = fstatvfs(&fd).with_context(failed)?;
        let free = room.f_bavail.saturating_mul(room.f_frsize);
        let shelf = Shelf { disk, free, held_back: place.holds_back_unshipped(), pieces: Vec::new() };
        let (dirs, segments, strays, unread) = (vec![PathBuf::new()], Vec::new(), Vec::new(), Vec::new());
        let mut folder =
            Self { path: path.clone(), fd, dirs, segments, strays, unsealed: 0, unread, is_deep: false, shelf };
        let mut next = 0;
        while let Some(below) = folder.dirs.get(next).cloned() {
            match folder.look_into(next, &below, now, &stored) {
                // What went away or was swapped meanwhile is not there.
                Ok(()) | Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) if next > 0 => {}
                done => {
                    let done = done.with_context(|| format!("cannot look at {}", path.join(&below).display()));
                    match done {
                        Err(failure) if next > 0 => folder.unread.push(failure),
                        done => done?,
                    }
                }
            }
            next += 1;
        }
        stored.was_readable()?;
        Ok(folder)
    }

    /// The path of a file in one of its directories.
    pub(super) fn path_of(&self, dir: usize, name: &str) -> PathBuf {
        self.path.join(self.below(dir, name))
    }

    /// The same, below the folder.
    pub(super) fn below(&self, dir: usize, name: &str) -> PathBuf {
        self.dirs.get(dir).map_or(Path::new(""), PathBuf::as_path).join(name)
    }

    /// Opens a directory of it.
    pub(super) fn open(&self, dir: usize) -> Result<OwnedFd, Errno> {
        self.open_below(self.dirs.get(dir).ok_or(Errno::NOENT)?)
    }

    /// Returns whether there is a file of a segment now, compressed or not; `segment` is its path below the folder.
    pub(super) fn holds(&self, segment: &Path) -> bool {
        let (Some(parent), Some(name)) = (segment.parent(), segment.file_name().and_then(|name| name.to_str())) else {
            return false;
        };
        let Ok(dir) = self.open_below(parent) else { return false };
        let is_there = |name: &str| is_plain_file(&dir, name);
        // In this order: the compressed one is there before the other goes.
        is_there(name) || Codec::ALL.into_iter().any(|codec| is_there(&format!("{name}{}", codec.extension())))
    }

    /// Reads the seal of a segment by its path below the folder; `None` where that cannot be done.
    pub(super) fn seal_of(&self, segment: &Path) -> Option<Seal> {
        let dir = self.open_below(segment.parent()?).ok()?;
        Seal::read(&dir, segment.file_name()?.to_str()?)
    }

    fn open_below(&self, below: &Path) -> Result<OwnedFd, Errno> {
        open_below(&self.fd, below)
    }

    fn look_into(&mut self, number: usize, below: &Path, now: i64, stored: &Stored) -> Result<(), Errno> {
        let dir = self.open(number)?;
        let mut parts: BTreeMap<String, Parts> = BTreeMap::new();
        let mut half_made = Vec::new();
        for found in Dir::read_from(&dir)? {
            let found = found?;
            // A template's names are text.
            let Ok(name) = found.file_name().to_str() else { continue };
            if name == "." || name == ".." {
                continue;
            }
            let Ok(stat) = statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory if stat.st_dev == self.shelf.disk && below.iter().count() < DEEPEST => {
                    self.dirs.push(below.join(name));
                }
                FileType::Directory if stat.st_dev == self.shelf.disk && !self.is_deep => {
                    // Once: there may be millions.
                    self.is_deep = true;
                    let path = self.path.join(below).join(name);
                    let why = format!("no further than {DEEPEST} directories below {}", self.path.display());
                    self.unread.push(Failure::new(format!("{} is not looked into", path.display())).because(why));
                }
                FileType::RegularFile if is_half_made(name) => half_made.push((name.to_owned(), stat.st_mtime)),
                FileType::RegularFile => match seal::segment_of(name) {
                    Some(segment) => parts.entry(segment.to_owned()).or_default().sealed = Some(stat.st_mtime),
                    None => parts.entry(plain_name(name).to_owned()).or_default().add(name, &stat),
                },
                _ => {}
            }
        }
        let old = |time: i64| now.saturating_sub(time) > HALF_MADE;
        self.strays.extend(half_made.into_iter().filter(|(_, time)| old(*time)).map(|(name, _)| (number, name)));
        for (name, parts) in parts {
            let Some(since) = parts.sealed else {
                self.unsealed += 1;
                continue;
            };
            if parts.is_empty() {
                // Its writer may be about to make the file.
                self.strays.extend(old(since).then(|| (number, seal::name_of(&name))));
            } else if let Some(piece) = parts.piece(&dir, &name, |seal| stored.has(&below.join(&name), seal)) {
                self.shelf.pieces.push(piece);
                let packed = parts.packed.map(|(codec, _)| codec);
                self.segments.push(Segment { dir: number, name, packed });
            }
        }
        Ok(())
    }
}

/// The files of one segment.
#[derive(Default)]
struct Parts {
    /// When its seal was written: seconds since 1970.
    sealed: Option<i64>,
    /// What the file takes on the disk, when it changed, and its length.
    plain: Option<(u64, i64, u64)>,
    packed: Option<(Codec, u64)>,
}

impl Parts {
    fn add(&mut self, name: &str, stat: &Stat) {
        // Blocks of 512 bytes, whatever the file system's are (stat(2)).
        let bytes = u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(512);
        match Codec::ALL.into_iter().find(|codec| name.ends_with(codec.extension())) {
            Some(codec) => self.packed = Some((codec, bytes)),
            None => self.plain = Some((bytes, stat.st_mtime, u64::try_from(stat.st_size).unwrap_or(0))),
        }
    }

    fn is_empty(&self) -> bool {
        self.plain.is_none() && self.packed.is_none()
    }

    /// `None` when its seal went away meanwhile. `is_stored` says of a closed segment whether a copy of it is stored.
    fn piece(&self, dir: &OwnedFd, name: &str, is_stored: impl Fn(&Seal) -> bool) -> Option<Piece> {
        let seal = Seal::read(dir, name);
        let changed = self.plain.map(|(_, changed, _)| changed).or(self.sealed)?;
        let state = match (&seal, self.plain, self.packed) {
            (_, None, Some(_)) => State::Packed,
            (Some(Seal { closed: Some(_), .. }), ..) => State::Closed,
            _ if is_locked(dir, name) => State::Writing,
            _ => State::Left,
        };
        let end = match (&seal, state) {
            (Some(seal), State::Closed | State::Packed) => seal.end.as_second(),
            // The period may have been longer than its writer lived.
            _ => changed,
        };
        let bytes = self.plain.map_or(0, |(bytes, ..)| bytes) + self.packed.map_or(0, |(_, bytes)| bytes);
        // One that has changed since it was closed is no longer what is stored.
        let closed = seal.as_ref().and_then(|seal| seal.closed.as_ref());
        let as_closed = self.plain.zip(closed).is_none_or(|((.., length), closed)| length == closed.bytes);
        Some(Piece { end, bytes, state, stored: as_closed && seal.as_ref().is_some_and(is_stored) })
    }
}

/// The name of the segment that a compressed file was made from; any other name as it is.
fn plain_name(name: &str) -> &str {
    Codec::ALL.into_iter().find_map(|codec| name.strip_suffix(codec.extension())).unwrap_or(name)
}

/// Whether a name is that of a seal or of a compressed file that is being made.
fn is_half_made(name: &str) -> bool {
    let packed = |name: &str| Codec::ALL.iter().any(|codec| name.ends_with(codec.extension()));
    let unfinished = name.strip_suffix(".new").filter(|name| name.starts_with('.'));
    unfinished.is_some_and(|name| seal::segment_of(name).is_some() || packed(name))
}

/// Opens a directory below another one; no link is followed.
pub(super) fn open_below(root: &OwnedFd, below: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut dir = openat(root, ".", flags, Mode::empty())?;
    for part in below.components() {
        let Component::Normal(name) = part else { return Err(Errno::INVAL) };
        dir = openat(&dir, name, flags, Mode::empty())?;
    }
    Ok(dir)
}

/// Whether a plain file of that name is there.
pub(super) fn is_plain_file(dir: &OwnedFd, name: &str) -> bool {
    let stat = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW);
    stat.is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile)
}

/// Whether a writer holds the file.
fn is_locked(dir: &OwnedFd, name: &str) -> bool {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let Ok(file) = openat(dir, name, flags, Mode::empty()).map(File::from) else { return false };
    flock(&file, FlockOperation::NonBlockingLockShared).is_err()
}

/// Opens a segment's file for reading: a plain file with one name, of the folder's owner. What else stands there was put there by others,
/// and may be a file from elsewhere.
pub(super) fn open_file(dir: &OwnedFd, name: &str) -> Result<(File, Stat), Failure> {
    let failed = || format!("cannot open {name}");
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(openat(dir, name, flags, Mode::empty()).with_context(failed)?);
    let stat = fstat(&file).with_context(failed)?;
    let owner = fstat(dir).with_context(failed)?.st_uid;
    let own = [owner, 0, rustix::process::geteuid().as_raw()].contains(&stat.st_uid);
    let why = if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        "it is no plain file"
    } else if stat.st_nlink != 1 {
        "it has several names"
    } else if !own {
        "it belongs to another user than the folder"
    } else {
        return Ok((file, stat));
    };
    Err(Failure::new(format!("{name} is left as it is")).because(why))
}
