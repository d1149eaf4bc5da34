//! Removing: one entry, or a whole tree.

use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags, StatxAttributes, StatxFlags, fstat, openat, statx, unlinkat};
use rustix::io::Errno;

use super::look::{canonical, entry, names};
use super::walk::{Last, Place, sync_dir};
use super::{Actuator, EntryKind, Probe, failed};
use crate::failure::Failure;

/// The deepest tree that is removed, in levels: one open directory each.
const DEEPEST: usize = 200;

/// How often a directory is emptied again because somebody put something in meanwhile.
const MOST_ROUNDS: u32 = 8;

impl Actuator {
    /// Removes a file, a link, a socket: anything but a directory. Nothing there is fine.
    pub fn remove_file(&self, path: impl AsRef<Path>) -> Result<(), Failure> {
        self.remove_one(path.as_ref(), AtFlags::empty())
    }

    /// Removes an empty directory. Nothing there is fine.
    pub fn remove_dir(&self, path: impl AsRef<Path>) -> Result<(), Failure> {
        self.remove_one(path.as_ref(), AtFlags::REMOVEDIR)
    }

    /// Removes a directory with everything below it. Follows no link and crosses no mount point: with a mount below it, nothing
    /// is removed at all. Nothing there is fine; a link or file in its place is refused.
    pub fn remove_tree(&self, path: impl AsRef<Path>) -> Result<(), Failure> {
        let path = path.as_ref();
        let Some(place) = self.named_place(path)? else { return Ok(()) };
        match entry(&place)?.map(|found| found.kind) {
            None => return Ok(()),
            Some(EntryKind::Directory) => {}
            Some(kind) => return Err(Failure::new(format!("{} is {}, not a directory", path.display(), kind.show()))),
        }
        let above = fstat(&place.dir).map_err(|errno| failed("look at", path, errno))?;
        let root = open_dir(&place.dir, &place.name).map_err(|errno| failed("open", path, errno))?;
        let real = canonical(&root).map_err(|errno| failed("look at", path, errno))?;
        if let Some(point) = self.mount_points()?.into_iter().find(|point| point.starts_with(&real)) {
            return Err(mounted(&point));
        }
        empty(&root, path, above.st_dev, 0)?;
        remove_at(&place, AtFlags::REMOVEDIR)
    }

    fn remove_one(&self, path: &Path, flags: AtFlags) -> Result<(), Failure> {
        match self.named_place(path)? {
            Some(place) => remove_at(&place, flags),
            None => Ok(()),
        }
    }

    fn named_place(&self, path: &Path) -> Result<Option<Place>, Failure> {
        self.place(path, Last::Keep)?.map(Place::named).transpose()
    }
}

impl Probe {
    /// The path of every mount point that this process sees (`/proc/self/mountinfo`).
    pub fn mount_points(&self) -> Result<Vec<PathBuf>, Failure> {
        Ok(self.mounts()?.all().iter().map(|mount| PathBuf::from(&mount.point)).collect())
    }
}

fn mounted(point: &Path) -> Failure {
    Failure::new(format!("{} is a mount point", point.display()))
        .because("what is mounted is never removed")
        .hint("unmount it first, with a `mount` task and `state = absent`")
}

fn remove_at(place: &Place, flags: AtFlags) -> Result<(), Failure> {
    match unlinkat(&place.dir, &place.name, flags) {
        Ok(()) => sync_dir(place.readable_dir()?, &place.path),
        Err(Errno::NOENT) => Ok(()),
        Err(Errno::BUSY) => Err(mounted(&place.path)),
        Err(errno) => Err(failed("remove", &place.path, errno)),
    }
}

fn open_dir(dir: &OwnedFd, name: &OsStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(dir, name, flags, Mode::empty())
}

/// Removes everything in an open directory. `path` is for messages only.
fn empty(dir: &OwnedFd, path: &Path, dev: u64, depth: usize) -> Result<(), Failure> {
    if depth >= DEEPEST {
        return Err(Failure::new(format!("{} lies deeper than {DEEPEST} levels", path.display())));
    }
    if is_mount(dir, dev).map_err(|errno| failed("look at", path, errno))? {
        return Err(mounted(path));
    }
    for _ in 0..MOST_ROUNDS {
        let inside: Vec<OsString> = names(dir).map_err(|errno| failed("list", path, errno))?;
        if inside.is_empty() {
            return Ok(());
        }
        for name in inside {
            remove_entry(dir, &name, &path.join(&name), dev, depth)?;
        }
    }
    Err(Failure::new(format!("{} fills again while it is emptied", path.display()))
        .hint("stop what writes there (a container?) before the directory is removed"))
}

/// Removes an entry of an open directory with everything below it; gone already is fine. `path` is for messages only.
pub(super) fn remove_entry(dir: &OwnedFd, name: &OsStr, path: &Path, dev: u64, depth: usize) -> Result<(), Failure> {
    // unlink first: it never follows a link, and says EISDIR (on Linux) for a directory.
    match unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(errno) => return Err(failed("remove", path, errno)),
    }
    match open_dir(dir, name) {
        Ok(below) => empty(&below, path, dev, depth + 1)?,
        // Swapped for something else meanwhile: the next round sees to it.
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(()),
        Err(errno) => return Err(failed("open", path, errno)),
    }
    match unlinkat(dir, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT | Errno::NOTDIR | Errno::NOTEMPTY) => Ok(()),
        Err(Errno::BUSY) => Err(mounted(path)),
        Err(errno) => Err(failed("remove", path, errno)),
    }
}

/// Whether an open directory is the root of a mount. Kernels before 5.8 cannot say so; there another device tells most, and
/// the table of mounts was read before anything was removed.
fn is_mount(dir: &OwnedFd, dev: u64) -> Result<bool, Errno> {
    match statx(dir, "", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS) {
        Ok(found) if found.stx_attributes_mask.contains(StatxAttributes::MOUNT_ROOT) => {
            Ok(found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
        }
        Ok(_) | Err(Errno::NOSYS) => Ok(fstat(dir)?.st_dev != dev),
        Err(errno) => Err(errno),
    }
}
