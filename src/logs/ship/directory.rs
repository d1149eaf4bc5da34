//! Copies in a directory of this host, where another file system is mounted.

use std::fs::File;
use std::io::{Read as _, Write as _, copy, sink};
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{
    Advice, AtFlags, FileType, Mode, OFlags, RenameFlags, Stat, Timespec, Timestamps, fadvise, fstat, fsync, futimens,
    openat, renameat, renameat_with, statat, unlinkat,
};
use rustix::io::Errno;

use super::throttle::Throttled;
use super::{Done, Known};
use crate::failure::{Context as _, Failure};
use crate::logs::folder::open_below;
use crate::logs::parcel::Parcel;
use crate::logs::segment::{name_of, parent};
use crate::logs::tally::Counted;
use crate::system::fs::open_folder;

/// What a storage may have against a name.
const OF_THE_NAME: [Errno; 3] = [Errno::NAMETOOLONG, Errno::ILSEQ, Errno::INVAL];

/// Stores copies in a directory; `disk` is that of the logs, `rate` the most bytes in a second.
pub(super) fn store(
    target: &Path,
    rate: Option<u64>,
    disk: u64,
    parcels: &[Parcel],
    done: Done<'_>,
) -> Result<(), Failure> {
    let (to, place) = mounted(target, disk)?;
    for parcel in parcels {
        let failed = || format!("cannot write {}", target.join(&parcel.path).display());
        let stored = match put(&to, parcel, rate) {
            Ok(true) => Ok(()),
            Ok(false) => Err(parcel.differs(target)),
            // A matter of this name alone: the storage takes others.
            Err(error) if OF_THE_NAME.contains(&Errno::from_io_error(&error).unwrap_or(Errno::IO)) => {
                Err(error).with_context(failed)
            }
            Err(error) => return Err(error).with_context(failed),
        };
        // Unmounted meanwhile, it would go with the mount.
        let now = look(target)?.1;
        if (now.st_dev, now.st_ino) != (place.st_dev, place.st_ino) {
            return Err(Failure::new(format!("{} is another directory than a moment ago", target.display())));
        }
        done(parcel, stored);
    }
    Ok(())
}

/// Opens a directory.
fn look(target: &Path) -> Result<(OwnedFd, Stat), Failure> {
    let to = open_folder(target)?;
    let stat = fstat(&to).with_context(|| format!("cannot look at {}", target.display()))?;
    Ok((to, stat))
}

/// Opens the directory where a storage is mounted.
fn mounted(target: &Path, disk: u64) -> Result<(OwnedFd, Stat), Failure> {
    let (to, place) = look(target)?;
    let not_mounted = |whose: &str| {
        Failure::new(format!("{} is on the same file system as {whose}", target.display()))
            .because("nothing is mounted there")
            .hint("mount the storage first: a `mount` task before the `logs` task")
    };
    if place.st_dev == disk {
        return Err(not_mounted("the logs"));
    }
    if place.st_dev == look(Path::new("/"))?.1.st_dev {
        return Err(not_mounted("`/`"));
    }
    Ok((to, place))
}

/// Looks for copies: see [`super::lengths`].
pub(super) fn lengths(target: &Path, disk: u64, copies: &[Known]) -> Result<Vec<Option<u64>>, Failure> {
    let (to, _) = mounted(target, disk)?;
    let length = |copy: &Known| match length(&to, Path::new(&copy.path)) {
        Ok(length) => Ok(Some(length)),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::INVAL) => Ok(None),
        Err(errno) => Err(errno).with_context(|| format!("cannot look at {}", target.join(&copy.path).display())),
    };
    copies.iter().map(length).collect()
}

/// The length of a plain file below a directory; no link is followed.
fn length(to: &OwnedFd, path: &Path) -> Result<u64, Errno> {
    let dir = open_below(to, path.parent().ok_or(Errno::INVAL)?)?;
    let stat = statat(&dir, name_of(path)?, AtFlags::SYMLINK_NOFOLLOW)?;
    let is_plain = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
    is_plain.then(|| u64::try_from(stat.st_size).unwrap_or(0)).ok_or(Errno::INVAL)
}

/// Stores one copy, its seal first. Returns `false` when another one is there.
fn put(to: &OwnedFd, parcel: &Parcel, rate: Option<u64>) -> std::io::Result<bool> {
    let dir = parent(to, &parcel.path)?;
    let (name, seal) = (name_of(&parcel.path)?, name_of(&parcel.seal_path)?);
    if exists(&dir, name)? {
        return is_same(&dir, name, parcel);
    }
    if !exists(&dir, seal)? {
        let unfinished = format!("{seal}.new");
        let mut file = make(&dir, &unfinished)?;
        file.write_all(&parcel.seal)?;
        fsync(&file)?;
        rename(&dir, &unfinished, seal)?;
    }
    let unfinished = format!(".{name}.new");
    let file = make(&dir, &unfinished)?;
    copy(&mut Throttled::new(&parcel.file, rate), &mut &file)?;
    let changed =
        Timespec { tv_sec: parcel.stat.st_mtime, tv_nsec: i64::try_from(parcel.stat.st_mtime_nsec).unwrap_or(0) };
    futimens(&file, &Timestamps { last_access: changed, last_modification: changed })?;
    fsync(&file)?;
    // What is read now comes from the storage, where the kernel can tell the two apart.
    fadvise(&file, 0, None, Advice::DontNeed)?;
    drop(file);
    if !is_same(&dir, &unfinished, parcel)? {
        return Err(std::io::Error::other("what was written is not what can be read there"));
    }
    rename(&dir, &unfinished, name)?;
    fsync(&dir)?;
    Ok(true)
}

fn exists(dir: &OwnedFd, name: &str) -> Result<bool, Errno> {
    match statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(_) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// Makes a file; one that was left half-made goes.
fn make(dir: &OwnedFd, name: &str) -> Result<File, Errno> {
    match unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(errno) => return Err(errno),
    }
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(dir, name, flags, Mode::from_raw_mode(0o644)).map(File::from)
}

/// Gives a file its name, if that is free: not every file system can ask for that in one step.
fn rename(dir: &OwnedFd, from: &str, to: &str) -> Result<(), Errno> {
    match renameat_with(dir, from, dir, to, RenameFlags::NOREPLACE) {
        Err(Errno::INVAL | Errno::NOSYS) if !exists(dir, to)? => renameat(dir, from, dir, to),
        renamed => renamed,
    }
}

/// Whether a file is what a parcel holds.
fn is_same(dir: &OwnedFd, name: &str, parcel: &Parcel) -> std::io::Result<bool> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(openat(dir, name, flags, Mode::empty())?);
    let stat = fstat(&file)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Ok(false);
    }
    let mut counted = Counted::new(file.take(parcel.bytes.saturating_add(1)));
    copy(&mut counted, &mut sink())?;
    Ok(counted.tally.bytes == parcel.bytes && counted.tally.sha256() == parcel.sha256)
}
