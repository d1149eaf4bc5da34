//! Looking: what stands at a path, what is in it.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Dir, FileType, Mode, OFlags, fstat, openat};
use rustix::io::Errno;
use sha2::Digest as _;

use super::walk::{self, Last, Place, by_descriptor, read_link};
use super::{Entry, EntryKind, Probe, failed};
use crate::failure::{Context, Failure};
use crate::value::{Blob, Digest, show_size};

/// The most bytes of a file that is hashed: limit `content_size`.
pub const MOST_CONTENT: u64 = 4 << 30;

/// Files up to this length keep their bytes beside the hash, for the diff.
pub const KEPT_FOR_DIFF: u64 = 1 << 20;

/// The most bytes that a file of `/proc` or `/sys` may give.
const MOST_SMALL: u64 = 4 << 20;

/// A file's content by hash, and the bytes when they are few ([`KEPT_FOR_DIFF`]).
#[derive(Clone, Debug)]
pub struct Bytes {
    /// Hash and length.
    pub blob: Blob,
    /// The bytes.
    pub bytes: Option<Arc<[u8]>>,
}

impl Probe {
    /// What stands at a path; a link at its end stands for itself. `None`: nothing does, or a directory on the way is missing.
    pub fn stat(&self, path: impl AsRef<Path>) -> Result<Option<Entry>, Failure> {
        self.stat_at(path.as_ref(), Last::Keep)
    }

    /// As [`Probe::stat`], with a link at the end followed; `None` also when it points to nothing.
    pub fn stat_following(&self, path: impl AsRef<Path>) -> Result<Option<Entry>, Failure> {
        self.stat_at(path.as_ref(), Last::Follow)
    }

    /// Whether something stands at a path (a link at the end is followed).
    pub fn exists(&self, path: impl AsRef<Path>) -> Result<bool, Failure> {
        Ok(self.stat_following(path)?.is_some())
    }

    /// The bytes of a regular file; `None` when there is nothing. Links at the end are followed where only root can have made
    /// them. Never waits: a FIFO or a device is an error. More than `limit` bytes are an error that names it.
    pub fn read(&self, path: impl AsRef<Path>, limit: u64) -> Result<Option<Vec<u8>>, Failure> {
        Ok(self.read_seen(path, limit)?.map(|(bytes, _)| bytes))
    }

    /// As [`Probe::read`], with what the file was before it was read.
    pub fn read_seen(&self, path: impl AsRef<Path>, limit: u64) -> Result<Option<(Vec<u8>, Entry)>, Failure> {
        let path = path.as_ref();
        let Some(mut file) = self.open(path)? else { return Ok(None) };
        let seen = entry_of(&file).map_err(|errno| failed("look at", path, errno))?;
        let mut bytes = Vec::new();
        file.by_ref()
            .take(limit + 1)
            .read_to_end(&mut bytes)
            .with_context(|| format!("cannot read {}", path.display()))?;
        if bytes.len() as u64 > limit {
            return Err(Failure::new(format!("{} is larger than {}", path.display(), show_size(limit))));
        }
        Ok(Some((bytes, seen)))
    }

    /// A regular file, opened for reading; `None` when there is nothing. Never waits, and links as in [`Probe::read`].
    pub fn open(&self, path: impl AsRef<Path>) -> Result<Option<File>, Failure> {
        match self.place(path.as_ref(), Last::Follow)? {
            Some(place) => open_regular_at(&place),
            None => Ok(None),
        }
    }

    /// The text of a regular file; `None` when there is nothing. Not UTF-8 is an error.
    pub fn read_text(&self, path: impl AsRef<Path>, limit: u64) -> Result<Option<String>, Failure> {
        let path = path.as_ref();
        let Some(bytes) = self.read(path, limit)? else { return Ok(None) };
        let text = String::from_utf8(bytes).map_err(|error| error.utf8_error());
        text.map(Some).with_context(|| format!("{} is not UTF-8 text", path.display()))
    }

    /// A file's content by hash, read in pieces, so that its length does not matter up to [`MOST_CONTENT`].
    pub fn content(&self, path: impl AsRef<Path>) -> Result<Option<Bytes>, Failure> {
        let path = path.as_ref();
        let Some(file) = self.open(path)? else { return Ok(None) };
        hash(file).with_context(|| format!("cannot read {}", path.display())).and_then(|bytes| match bytes {
            Some(bytes) => Ok(Some(bytes)),
            None => Err(Failure::new(format!("{} is larger than {}", path.display(), show_size(MOST_CONTENT)))
                .because("over the limit `content_size`")),
        })
    }

    /// The text of a file that the kernel makes, below `/proc` or `/sys`; `None` when it is not there. The path is not walked:
    /// nobody can plant links there.
    pub fn read_small(&self, path: impl AsRef<Path>) -> Result<Option<String>, Failure> {
        let path = path.as_ref();
        if !path.starts_with("/proc") && !path.starts_with("/sys") {
            return self.read_text(path, MOST_SMALL);
        }
        let opened = rustix::fs::open(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty());
        let file = match opened {
            Ok(fd) => File::from(fd),
            // ESRCH: a process that ended while its file was opened.
            Err(Errno::NOENT | Errno::SRCH | Errno::NODEV) => return Ok(None),
            Err(errno) => return Err(failed("read", path, errno)),
        };
        let mut bytes = Vec::new();
        match file.take(MOST_SMALL).read_to_end(&mut bytes) {
            Ok(_) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
            Err(error) if error.raw_os_error() == Some(Errno::SRCH.raw_os_error()) => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    /// The names in a directory, sorted; `None` when it does not exist. A link at the end is followed where links may be.
    pub fn list(&self, dir: impl AsRef<Path>) -> Result<Option<Vec<OsString>>, Failure> {
        let path = dir.as_ref();
        let Some(place) = self.place(path, Last::Follow)? else { return Ok(None) };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match openat(&place.dir, &place.name, flags, Mode::empty()) {
            Ok(dir) => names(&dir).map(Some).map_err(|errno| failed("list", path, errno)),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(failed("list", path, errno)),
        }
    }

    /// The names of the records in one of fanli's own folders, sorted: `NAME.json`. Half-written ones have a temporary name.
    pub fn record_names(&self, folder: impl AsRef<Path>) -> Result<Vec<String>, Failure> {
        let whole = |name: &&str| name.strip_suffix(".json").is_some_and(|stem| !stem.starts_with('.'));
        let names = self.list(folder)?.unwrap_or_default();
        Ok(names.iter().filter_map(|name| name.to_str()).filter(whole).map(str::to_owned).collect())
    }

    /// The path without any links, as the kernel knows it; `None` when nothing stands there.
    pub fn canonical(&self, path: impl AsRef<Path>) -> Result<Option<PathBuf>, Failure> {
        let path = path.as_ref();
        let Some(place) = self.place(path, Last::Follow)? else { return Ok(None) };
        let Some(fd) = place.open()? else { return Ok(None) };
        canonical(&fd).map(Some).map_err(|errno| failed("look at", path, errno))
    }

    /// Where a path leads; `None` when a directory on the way does not exist.
    pub(super) fn place(&self, path: &Path, last: Last) -> Result<Option<Place>, Failure> {
        walk::place(path, last, self.link_rules())
    }

    fn stat_at(&self, path: &Path, last: Last) -> Result<Option<Entry>, Failure> {
        match self.place(path, last)? {
            Some(place) => entry(&place),
            None => Ok(None),
        }
    }
}

/// The kernel's own path of a descriptor.
pub(super) fn canonical(fd: impl AsFd) -> Result<PathBuf, Errno> {
    let target = rustix::fs::readlink(by_descriptor(fd), Vec::new())?;
    Ok(PathBuf::from(OsStr::from_bytes(target.as_bytes())))
}

/// What stands at a place.
pub(super) fn entry(place: &Place) -> Result<Option<Entry>, Failure> {
    let Some(fd) = place.open()? else { return Ok(None) };
    let found = entry_of(&fd).and_then(|found| Ok(Entry { foreign: place.is_foreign(found.uid)?, ..found }));
    found.map(Some).map_err(|errno| failed("look at", &place.path, errno))
}

/// What a descriptor is; by itself nothing is foreign.
pub(super) fn entry_of(fd: impl AsFd) -> Result<Entry, Errno> {
    let stat = fstat(&fd)?;
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => EntryKind::File,
        FileType::Directory => EntryKind::Directory,
        FileType::Symlink => EntryKind::Link(read_link(&fd, "")?.ok_or(Errno::IO)?.into()),
        _ => EntryKind::Other,
    };
    Ok(Entry {
        kind,
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        size: u64::try_from(stat.st_size).unwrap_or(0),
        mtime: (stat.st_mtime, u32::try_from(stat.st_mtime_nsec).unwrap_or(0)),
        ctime: (stat.st_ctime, u32::try_from(stat.st_ctime_nsec).unwrap_or(0)),
        nlink: stat.st_nlink,
        dev: stat.st_dev,
        ino: stat.st_ino,
        foreign: false,
    })
}

/// Opens the regular file at a place for reading. What is there is asked first: opening a device can already do something.
pub(super) fn open_regular_at(place: &Place) -> Result<Option<File>, Failure> {
    let Some(found) = entry(place)? else { return Ok(None) };
    let unfit = |kind: &EntryKind| Failure::new(format!("{} is {}, not a file", place.path.display(), kind.show()));
    if found.kind != EntryKind::File {
        return Err(unfit(&found.kind));
    }
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let fd = match openat(&place.dir, &place.name, flags, Mode::empty()) {
        Ok(fd) => fd,
        Err(Errno::NOENT) => return Ok(None),
        Err(errno) => return Err(failed("open", &place.path, errno)),
    };
    let opened = entry_of(&fd).map_err(|errno| failed("look at", &place.path, errno))?;
    if opened.kind == EntryKind::File { Ok(Some(File::from(fd))) } else { Err(unfit(&opened.kind)) }
}

/// Hash, length and (when few) bytes of a file; `None` when it is over [`MOST_CONTENT`].
pub(super) fn hash(mut file: File) -> std::io::Result<Option<Bytes>> {
    let (mut hasher, mut len, mut kept) = (sha2::Sha256::new(), 0u64, Vec::new());
    let mut piece = vec![0u8; 128 * 1024];
    loop {
        let read = match file.read(&mut piece) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let bytes = piece.get(..read).unwrap_or_default();
        hasher.update(bytes);
        len += read as u64;
        if len > MOST_CONTENT {
            return Ok(None);
        }
        if len <= KEPT_FOR_DIFF {
            kept.extend_from_slice(bytes);
        }
    }
    let blob = Blob { digest: Digest(hasher.finalize().into()), len };
    Ok(Some(Bytes { blob, bytes: (len <= KEPT_FOR_DIFF).then(|| kept.into()) }))
}

/// The names in an open directory, sorted, without `.` and `..`.
pub(super) fn names(dir: impl AsFd) -> Result<Vec<OsString>, Errno> {
    let mut names = Vec::new();
    for found in Dir::read_from(dir)? {
        let found = found?;
        let name = OsStr::from_bytes(found.file_name().to_bytes());
        if name != "." && name != ".." {
            names.push(name.to_owned());
        }
    }
    names.sort();
    Ok(names)
}
