//! Atomic replace: a temporary file in the same directory, fsync, rename, fsync of the directory.
//!
//! A directory is made in the same way: under a temporary name, then renamed when its owner and mode are right.
//!
//! Temporary names are `.fanli-HEX.tmp`. Whoever makes one holds a `flock` on it for as long as it lives, so a name without a
//! lock is the leftover of a killed run, and the next write in that directory takes it away. A link cannot be locked:
//! `.fanli-HEX.link.tmp` has a locked `.fanli-HEX.tmp` beside it for its whole life.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, FileType, FlockOperation, Gid, Mode, OFlags, RenameFlags, Uid, fchmod, fchown, flock, fstat, fsync,
    mkdirat, openat, renameat, renameat_with, statat, symlinkat, unlinkat,
};
use rustix::io::Errno;

use super::look::{entry, entry_of, names};
use super::walk::{Last, Place, sync_dir};
use super::{Actuator, Attrs, Entry, EntryKind, failed, foreign_owner, link_in_the_way, xattrs};
use crate::failure::{Context, Failure};

/// A file's new content beside its place, not yet in it. Dropped without [`Staged::commit`], it goes away.
#[must_use]
pub struct Staged {
    dir: OwnedFd,
    temp: Temp,
    place: Place,
    shown: PathBuf,
    /// What stood in the place.
    seen: Option<Entry>,
}

impl Staged {
    /// The temporary file's path, for a program that validates it.
    pub fn path(&self) -> &Path {
        &self.shown
    }

    /// Says what the new content was made from, where that was looked at before it was staged.
    pub fn made_from(self, seen: Option<Entry>) -> Self {
        Self { seen, ..self }
    }

    /// Puts it into its place, unless another program has changed or replaced what stood there since it was looked at. Between
    /// that comparison and the rename there is nothing but the two calls.
    pub fn commit_unless_changed(self) -> Result<(), Failure> {
        let now = entry(&self.place)?;
        let same = match (&self.seen, &now) {
            (None, None) => true,
            (Some(seen), Some(now)) => seen.version() == now.version(),
            _ => false,
        };
        if same {
            return self.commit();
        }
        Err(Failure::new(format!("{} was changed by another program meanwhile", self.place.path.display()))
            .because("what it wrote was left as it is")
            .hint("run again: what stands there now is looked at first"))
    }

    /// Puts it into its place.
    pub fn commit(self) -> Result<(), Failure> {
        let Self { dir, mut temp, place, .. } = self;
        let path = &place.path;
        // A validator, or somebody else who can write here, may have put another file under the name.
        let (ours, named) = (fstat(&temp.file), statat(&dir, &temp.name, AtFlags::SYMLINK_NOFOLLOW));
        if !matches!((ours, named), (Ok(ours), Ok(named)) if (ours.st_dev, ours.st_ino) == (named.st_dev, named.st_ino))
        {
            return Err(Failure::new(format!(
                "the staged content of {} was replaced by another program",
                path.display()
            )));
        }
        renameat(&dir, &temp.name, &dir, &place.name).map_err(|errno| failed("replace", path, errno))?;
        temp.dir = None;
        sync_dir(&dir, path)
    }
}

impl Actuator {
    /// Replaces a file's content, or makes the file; atomically. What `attrs` does not name stays as it is on an existing file,
    /// extended attributes too; a new one gets mode 0644. A link or anything else at the path is refused. A foreign file
    /// ([`Entry::foreign`]) is refused as well, unless `attrs` names an owner: then nothing of it stays.
    pub fn replace(&self, path: impl AsRef<Path>, bytes: &[u8], attrs: Attrs) -> Result<(), Failure> {
        self.stage(path, bytes, attrs)?.commit()
    }

    /// The first half of [`Actuator::replace`]: everything but the rename, so that a program can look at the result first.
    pub fn stage(&self, path: impl AsRef<Path>, bytes: &[u8], attrs: Attrs) -> Result<Staged, Failure> {
        let path = path.as_ref();
        let place = self.writable_place(path)?;
        let mut old = place.open()?;
        let looked = |errno| failed("look at", path, errno);
        let seen = old.as_ref().map(entry_of).transpose().map_err(looked)?;
        let mut found = seen.clone();
        if let Some(uid) = found.as_ref().map(|found| found.uid)
            && place.is_foreign(uid).map_err(looked)?
        {
            if attrs.uid.is_none() {
                return Err(foreign_owner(path, uid).hint("declare its owner, or remove it"));
            }
            (old, found) = (None, None);
        }
        let attrs = match found {
            None => Attrs { mode: Some(attrs.mode.unwrap_or(0o644)), ..attrs },
            Some(found) => match found.kind {
                EntryKind::File => {
                    // A second name that somebody planted must not lend its setuid bit to our content.
                    let kept = if found.nlink > 1 && !place.guarded() { found.mode & 0o777 } else { found.mode };
                    Attrs {
                        mode: Some(attrs.mode.unwrap_or(kept)),
                        uid: Some(attrs.uid.unwrap_or(found.uid)),
                        gid: Some(attrs.gid.unwrap_or(found.gid)),
                    }
                }
                EntryKind::Link(to) => return Err(link_in_the_way(path, &to)),
                kind => return Err(Failure::new(format!("{} is {}, not a file", path.display(), kind.show()))),
            },
        };
        let dir = place.readable_dir()?;
        sweep(&dir).map_err(|errno| failed("clean up beside", path, errno))?;
        let mut temp =
            Temp::new(&dir, Make::File).with_context(|| format!("cannot write beside {}", path.display()))?;
        temp.file.write_all(bytes).with_context(|| format!("cannot write {}", path.display()))?;
        temp.own(attrs).map_err(|errno| failed("set owner and mode of", path, errno))?;
        if let Some(old) = &old {
            xattrs::carry(old, &temp.file, path)?;
            // An access list brings permissions along.
            temp.own(attrs).map_err(|errno| failed("set owner and mode of", path, errno))?;
        }
        fsync(&temp.file).map_err(|errno| failed("sync", path, errno))?;
        let shown = path.with_file_name(&temp.name);
        Ok(Staged { dir, temp, place, shown, seen })
    }

    /// Opens a regular file to add to it, made with mode 0640 when it is missing. Links at the end as in
    /// [`Probe::read`](super::Probe::read); never waits.
    pub fn append(&self, path: impl AsRef<Path>) -> Result<File, Failure> {
        let path = path.as_ref();
        let missing = || Failure::new(format!("the directory of {} does not exist", path.display()));
        let place = self.place(path, Last::Follow)?.ok_or_else(missing)?.named()?;
        let flags =
            OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let opened = openat(&place.dir, &place.name, flags, Mode::RUSR | Mode::WUSR | Mode::RGRP);
        let file = File::from(opened.map_err(|errno| failed("open", path, errno))?);
        let found = entry_of(&file).map_err(|errno| failed("look at", path, errno))?;
        match found.kind {
            EntryKind::File => Ok(file),
            kind => Err(Failure::new(format!("{} is {}, not a file", path.display(), kind.show()))),
        }
    }

    /// Makes a link, or turns an existing one; atomically. Anything else at the path is refused.
    pub fn symlink(&self, path: impl AsRef<Path>, target: impl AsRef<OsStr>) -> Result<(), Failure> {
        let (path, target) = (path.as_ref(), target.as_ref());
        let place = self.writable_place(path)?;
        match entry(&place)?.map(|found| found.kind) {
            None | Some(EntryKind::Link(_)) => {}
            Some(kind) => return Err(Failure::new(format!("{} is {}, not a link", path.display(), kind.show()))),
        }
        let dir = place.readable_dir()?;
        sweep(&dir).map_err(|errno| failed("clean up beside", path, errno))?;
        match symlinkat(target, &dir, &place.name) {
            Ok(()) => return sync_dir(&dir, path),
            Err(Errno::EXIST) => {}
            Err(errno) => return Err(failed("make link", path, errno)),
        }
        let temp = Temp::new(&dir, Make::File).with_context(|| format!("cannot write beside {}", path.display()))?;
        let link = link_name(&temp.name);
        symlinkat(target, &dir, &link).map_err(|errno| failed("make link", path, errno))?;
        if let Err(errno) = renameat(&dir, &link, &dir, &place.name) {
            let _ = unlinkat(&dir, &link, AtFlags::empty());
            return Err(failed("replace link", path, errno));
        }
        drop(temp);
        sync_dir(&dir, path)
    }

    fn writable_place(&self, path: &Path) -> Result<Place, Failure> {
        let missing = || {
            Failure::new(format!("the directory of {} does not exist", path.display()))
                .hint("put a `directory` task before this one")
        };
        self.place(path, Last::Keep)?.ok_or_else(missing)?.named()
    }
}

/// Makes a directory in one step, as others see it. `false`: something of that name appeared meanwhile.
pub(super) fn make_dir(place: &Place, attrs: Attrs) -> Result<bool, Failure> {
    let path = &place.path;
    let dir = place.readable_dir()?;
    sweep(&dir).map_err(|errno| failed("clean up beside", path, errno))?;
    let mut temp =
        Temp::new(&dir, Make::Directory).with_context(|| format!("cannot make directory {}", path.display()))?;
    if !place.guarded() {
        // Others may have moved another directory there: an empty one of ours is as good, anything else is refused.
        let swapped = fstat(&temp.file).map(|stat| stat.st_uid != rustix::process::geteuid().as_raw());
        let swapped = swapped.and_then(|swapped| Ok(swapped || !names(&temp.file)?.is_empty()));
        if swapped.map_err(|errno| failed("look at", path, errno))? {
            return Err(Failure::new(format!("{} was replaced while it was made", path.display()))
                .hint("something else writes there; run again"));
        }
    }
    let attrs = Attrs { mode: Some(attrs.mode.unwrap_or(0o755)), ..attrs };
    temp.own(attrs).map_err(|errno| failed("set owner and mode of", path, errno))?;
    sync_dir(&temp.file, path)?;
    let renamed = match renameat_with(&dir, &temp.name, &dir, &place.name, RenameFlags::NOREPLACE) {
        // Kernels before 3.15, and some file systems. At worst an empty directory is replaced by ours.
        Err(Errno::INVAL | Errno::NOSYS) => renameat(&dir, &temp.name, &dir, &place.name),
        other => other,
    };
    match renamed {
        Ok(()) => temp.dir = None,
        Err(Errno::EXIST | Errno::NOTEMPTY | Errno::NOTDIR) => return Ok(false),
        Err(errno) => return Err(failed("make directory", path, errno)),
    }
    sync_dir(&dir, path)?;
    Ok(true)
}

/// How many temporary names are tried while other writers take them away.
const MOST_NAMES: u32 = 100;

/// What a [`Temp`] is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Make {
    File,
    Directory,
}

/// A locked temporary file or directory; taken away when dropped, unless it was renamed (`dir` is then `None`).
struct Temp {
    dir: Option<OwnedFd>,
    name: OsString,
    file: File,
    make: Make,
}

impl Temp {
    /// Born for our eyes only, and locked.
    fn new(dir: &OwnedFd, make: Make) -> Result<Self, std::io::Error> {
        for _ in 0..MOST_NAMES {
            let kept = dir.try_clone()?;
            let name = OsString::from(format!(".fanli-{:016x}.tmp", random()));
            let file = match make {
                Make::File => {
                    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                    openat(dir, &name, flags, Mode::RUSR | Mode::WUSR)
                }
                Make::Directory => mkdirat(dir, &name, Mode::RWXU).and_then(|()| {
                    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                    openat(dir, &name, flags, Mode::empty()).inspect_err(|_| {
                        let _ = unlinkat(dir, &name, AtFlags::REMOVEDIR);
                    })
                }),
            };
            let file = match file {
                Ok(fd) => File::from(fd),
                Err(Errno::EXIST) => continue,
                // Another writer took the directory for a leftover before it was open.
                Err(Errno::NOENT) if make == Make::Directory && fstat(dir)?.st_nlink > 0 => continue,
                Err(errno) => return Err(errno.into()),
            };
            let temp = Self { dir: Some(kept), name, file, make };
            // The same may happen between birth and lock: then another name is tried.
            match flock(&temp.file, FlockOperation::NonBlockingLockExclusive) {
                Err(Errno::WOULDBLOCK | Errno::INTR) => {}
                // A file system without locks (NFS without its lock service): nobody there can take it for unlocked either.
                Ok(()) | Err(_) if fstat(&temp.file)?.st_nlink > 0 => return Ok(temp),
                Ok(()) | Err(_) => {}
            }
        }
        Err(Errno::BUSY.into())
    }

    /// Owner first: chown clears setuid.
    fn own(&self, attrs: Attrs) -> Result<(), Errno> {
        let born = fstat(&self.file)?;
        let uid = attrs.uid.filter(|uid| *uid != born.st_uid);
        let gid = attrs.gid.filter(|gid| *gid != born.st_gid);
        if uid.is_some() || gid.is_some() {
            fchown(&self.file, uid.map(Uid::from_raw), gid.map(Gid::from_raw))?;
        }
        attrs.mode.map_or(Ok(()), |mode| fchmod(&self.file, Mode::from_raw_mode(mode)))
    }
}

impl Make {
    fn unlink_flags(self) -> AtFlags {
        match self {
            Self::File => AtFlags::empty(),
            Self::Directory => AtFlags::REMOVEDIR,
        }
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        if let Some(dir) = &self.dir {
            let _ = unlinkat(dir, &self.name, self.make.unlink_flags());
        }
    }
}

fn random() -> u64 {
    // Seeded by the kernel in every process, and different at each call.
    RandomState::new().build_hasher().finish()
}

/// `.fanli-HEX.link.tmp` for `.fanli-HEX.tmp`.
fn link_name(temp: &OsStr) -> OsString {
    let stem = temp.as_bytes().strip_suffix(b".tmp").unwrap_or(temp.as_bytes());
    OsStr::from_bytes(&[stem, b".link.tmp"].concat()).to_owned()
}

/// The lock's name for a temporary name of ours (its own, for a file); `None` for every other name.
fn lock_name(name: &OsStr) -> Option<OsString> {
    let hex = name.as_bytes().strip_prefix(b".fanli-")?.strip_suffix(b".tmp")?;
    let hex = hex.strip_suffix(b".link").unwrap_or(hex);
    let ours = hex.len() == 16 && hex.iter().all(u8::is_ascii_hexdigit);
    ours.then(|| OsStr::from_bytes(&[b".fanli-", hex, b".tmp"].concat()).to_owned())
}

/// Takes away what killed runs have left in a directory.
fn sweep(dir: impl AsFd) -> Result<(), Errno> {
    for name in names(&dir)? {
        let Some(lock) = lock_name(&name) else { continue };
        let Ok(stat) = statat(&dir, &name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
        let make = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile if lock == name => Make::File,
            FileType::Directory if lock == name => Make::Directory,
            FileType::Symlink if lock != name => Make::File,
            _ => continue,
        };
        // The lock is kept until the name is gone: a writer that was just about to take it then sees either the lock, or that its
        // file has no name any more.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let held = match openat(&dir, &lock, flags, Mode::empty()) {
            Ok(file) if flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() => Some(file),
            Err(Errno::NOENT) => None,
            _ => continue,
        };
        let _ = unlinkat(&dir, &name, make.unlink_flags());
        drop(held);
    }
    Ok(())
}
