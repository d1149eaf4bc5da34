//! A segment: the file that one writer has written in one period. Once it is sealed it never changes.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{ErrorKind, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use jiff::Timestamp;
use rustix::fs::{
    AtFlags, FlockOperation, Mode, OFlags, flock, fstat, fsync, mkdirat, openat, renameat, symlinkat, unlinkat,
};
use rustix::io::Errno;

use super::of_io;
use super::period::Period;
use super::seal::{self, Seal, Why};
use super::spool::Dropped;
use super::tally::Tally;
use crate::system::random::random_bytes;

/// How an ID looks: lower case letters and digits that are not mistaken for each other.
const ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";

/// The mode of directories that are made for segments.
const FOLDER: Mode = Mode::from_raw_mode(0o755);

/// Returns eight random characters: 40 bits.
pub(super) fn new_id() -> Result<String, Errno> {
    let random = random_bytes::<8>().map_err(|error| of_io(&error))?;
    let letter = |byte: &u8| ALPHABET.get(usize::from(byte % 32)).copied().map_or('a', char::from);
    Ok(random.iter().map(letter).collect())
}

/// A file that is being written.
pub(super) struct Segment {
    /// The directory it stands in.
    dir: OwnedFd,
    /// Its path below the folder of the template.
    pub(super) path: PathBuf,
    file: File,
    pub(super) period: Period,
    /// Its seal, as long as it is written.
    open: Seal,
    pub(super) tally: Tally,
}

impl Segment {
    /// Makes a new file, and the directories below `folder` that it needs. It follows no link and takes no file that is there. The file
    /// is locked as long as it is written: one without a lock whose seal is still open was left by a writer that was killed.
    pub(super) fn make(
        folder: &OwnedFd,
        path: &Path,
        period: Period,
        mode: Mode,
        tag: Option<String>,
    ) -> Result<Self, Errno> {
        let dir = parent(folder, path)?;
        let name = name_of(path)?;
        let open = Seal::open(&period, tag, Timestamp::now());
        open.begin(&dir, name)?;
        let flags =
            OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(&dir, name, flags, mode).inspect_err(|_| {
            let _ = unlinkat(&dir, seal::name_of(name), AtFlags::empty());
        })?;
        // Held by the keeper, which has taken it for one that was left: another one is begun.
        flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        Ok(Self { dir, path: path.to_owned(), file: File::from(file), period, open, tally: Tally::new() })
    }

    /// Whether its name is gone, and what is written into it goes with the last descriptor.
    pub(super) fn is_removed(&self) -> bool {
        fstat(&self.file).is_ok_and(|meta| meta.st_nlink == 0)
    }

    /// Appends as much as can be written at once, and returns how much that was.
    pub(super) fn append(&mut self, bytes: &[u8]) -> Result<usize, Errno> {
        let wrote = loop {
            match self.file.write(bytes) {
                Ok(wrote) => break wrote,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(of_io(&error)),
            }
        };
        self.tally.add(bytes.get(..wrote).unwrap_or_default());
        Ok(wrote)
    }

    /// Makes it durable, and writes down what it holds.
    pub(super) fn seal(&self, why: Why, dropped: Dropped) -> Result<(), Errno> {
        fsync(&self.file)?;
        let closed = self.tally.closed(why, dropped);
        Seal { closed: Some(closed), ..self.open.clone() }.replace(&self.dir, name_of(&self.path)?)
    }
}

/// Turns the link `name` in the folder to a segment, in one step.
pub(super) fn point(folder: &OwnedFd, name: &str, segment: &Path) -> Result<(), Errno> {
    let unfinished = format!(".{name}.new");
    let _ = unlinkat(folder, &unfinished, AtFlags::empty());
    symlinkat(segment, folder, &unfinished)?;
    renameat(folder, &unfinished, folder, name)
}

/// The last part of a path.
pub(super) fn name_of(path: &Path) -> Result<&str, Errno> {
    path.file_name().and_then(OsStr::to_str).ok_or(Errno::INVAL)
}

/// The directory of a path below a folder; what is missing of it is made.
pub(super) fn parent(folder: &OwnedFd, path: &Path) -> Result<OwnedFd, Errno> {
    let mut dir = folder.as_fd().try_clone_to_owned().map_err(|error| of_io(&error))?;
    for part in path.parent().into_iter().flat_map(Path::components) {
        let Component::Normal(name) = part else { return Err(Errno::INVAL) };
        match mkdirat(&dir, name, FOLDER) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno),
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        dir = openat(&dir, name, flags, Mode::empty())?;
    }
    Ok(dir)
}
