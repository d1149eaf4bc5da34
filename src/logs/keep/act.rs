//! What was decided, carried out: each deed can be killed at any instruction, and is done again by the next keeper.

use std::fs::File;
use std::os::fd::OwnedFd;

use jiff::Timestamp;
use rustix::fs::{
    AtFlags, FlockOperation, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, fchmod, fchown, flock, fstat, fsync,
    futimens, openat, renameat, unlinkat,
};
use rustix::io::Errno;

use crate::failure::{Context as _, Failure};
use crate::logs::codec::Codec;
use crate::logs::folder::{Segment, open_file};
use crate::logs::seal::{self, Seal, Why};
use crate::logs::spool::Dropped;
use crate::logs::tally::Counted;

/// Removes a segment: its file first, as a seal of nothing is found and removed later.
pub(super) fn remove(dir: &OwnedFd, segment: &Segment) -> Result<(), Failure> {
    let packed = segment.packed.map(|codec| format!("{}{}", segment.name, codec.extension()));
    let names = [Some(segment.name.clone()), packed, Some(seal::name_of(&segment.name))];
    names.into_iter().flatten().try_for_each(|name| unlink(dir, &name))
}

/// Removes a file. One that is gone is fine.
pub(super) fn unlink(dir: &OwnedFd, name: &str) -> Result<(), Failure> {
    match unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno).with_context(|| format!("cannot remove {name}")),
    }
}

/// Closes a segment in the place of its writer, which was killed.
pub(super) fn close(dir: &OwnedFd, segment: &Segment) -> Result<(), Failure> {
    let failed = || format!("cannot close {}", segment.name);
    let (file, stat) = open_file(dir, &segment.name)?;
    // Held to the end: a writer that was only asleep begins another file.
    flock(&file, FlockOperation::NonBlockingLockExclusive)
        .with_context(|| format!("{} is being written", segment.name))?;
    let mut counted = Counted::new(&file);
    std::io::copy(&mut counted, &mut std::io::sink()).with_context(failed)?;
    fsync(&file).with_context(failed)?;
    let changed = Timestamp::from_second(stat.st_mtime).unwrap_or_default();
    let unknown = Seal { begin: changed, end: changed, opened: None, tag: None, closed: None };
    let seal = Seal::read(dir, &segment.name).unwrap_or(unknown);
    let closed = counted.tally.closed(Why::Left, Dropped::default());
    Seal { closed: Some(closed), ..seal }.replace(dir, &segment.name).with_context(failed)
}

/// Compresses a closed segment; the file that was written goes once the other is durable. Returns the lengths before and after.
pub(super) fn pack(dir: &OwnedFd, segment: &Segment, codec: Codec) -> Result<(u64, u64), Failure> {
    let name = &segment.name;
    let failed = || format!("cannot compress {name}");
    let (file, stat) = open_file(dir, name)?;
    let Some(Seal { closed: Some(closed), .. }) = Seal::read(dir, name) else {
        return Err(Failure::new(format!("{name} is not closed")));
    };
    let (packed, fresh) = (format!("{name}{}", codec.extension()), format!(".{name}{}.new", codec.extension()));
    unlink(dir, &fresh)?;
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let to = File::from(openat(dir, &fresh, flags, Mode::from_raw_mode(0o600)).with_context(failed)?);
    let mut counted = Counted::new(&file);
    let done = codec.pack(&mut counted, to).with_context(failed).and_then(|to| {
        if counted.tally.bytes != closed.bytes || counted.tally.sha256() != closed.sha256 {
            return Err(Failure::new(format!("{name} is not as its seal says, and is left as it is"))
                .because(format!("it has {} bytes, its seal says {}", counted.tally.bytes, closed.bytes))
                .hint("something has changed it after it was closed"));
        }
        like(&to, &stat).with_context(failed)?;
        fsync(&to).with_context(failed)?;
        renameat(dir, &fresh, dir, &packed).with_context(failed)?;
        fsync(dir).with_context(failed)?;
        Ok(fstat(&to).map_or(0, |stat| u64::try_from(stat.st_size).unwrap_or(0)))
    });
    if done.is_err() {
        unlink(dir, &fresh)?;
    }
    let length = done?;
    unlink(dir, name)?;
    Ok((counted.tally.bytes, length))
}

/// Owner, permissions and times of what it was made from.
fn like(file: &File, stat: &Stat) -> Result<(), Errno> {
    if rustix::process::geteuid().is_root() {
        fchown(file, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
    }
    fchmod(file, Mode::from_raw_mode(stat.st_mode & 0o777))?;
    let changed = Timespec { tv_sec: stat.st_mtime, tv_nsec: i64::try_from(stat.st_mtime_nsec).unwrap_or(0) };
    futimens(file, &Timestamps { last_access: changed, last_modification: changed })
}
