//! Locks that die with their holder.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags, ftruncate, openat};
use rustix::io::Errno;

use super::failed;
use super::link_rules::LinkRules;
use super::walk::{Last, place};
use crate::failure::{Context, Failure, FailureKind};
use crate::system::waiting::waiting;

/// How often a held lock is tried again.
const RETRY: Duration = Duration::from_millis(100);

/// The longest note of a holder that is read, in bytes.
const MOST_NOTE: u64 = 4096;

/// A `flock`, held for the life of this value; the kernel frees it when the process ends, however it ends.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// Makes the line on who holds a lock.
pub type Note<'a> = &'a (dyn Fn() -> String + Sync);

/// What became of an attempt to take a lock.
#[derive(Debug)]
pub enum Attempt {
    /// It is taken.
    Taken(Lock),
    /// It is held by another process, which has left this note.
    Held(String),
}

/// Takes the lock on a file (made 0600 when missing), waiting at most `wait` (limit `lock_wait`). `note` is kept in the file:
/// one line on who holds it, which the message of whoever cannot get it repeats.
pub async fn lock(path: impl AsRef<Path>, note: &str, wait: Duration) -> Result<Lock, Failure> {
    let path = path.as_ref();
    match attempt(path, &|| note.to_owned(), wait).await? {
        Attempt::Taken(lock) => Ok(lock),
        Attempt::Held(holder) => {
            let limit = Failure::timeout("lock_wait", wait).message;
            Err(Failure::of(FailureKind::Timeout, format!("{} is held by {holder}", path.display())).because(limit))
        }
    }
}

/// As [`lock`], but that another process holds it is no failure. The note is made when the lock is taken.
///
/// # Errors
/// The file cannot be opened, locked or written.
pub async fn attempt(path: impl AsRef<Path>, note: Note<'_>, wait: Duration) -> Result<Attempt, Failure> {
    let path = path.as_ref();
    waiting(&format!("cannot lock {}", path.display()), Box::pin(until_locked(path, note, wait))).await
}

async fn until_locked(path: &Path, note: Note<'_>, wait: Duration) -> Result<Attempt, Failure> {
    let until = Instant::now() + wait;
    let mut file = open_lock(path)?;
    loop {
        match file.try_lock() {
            Ok(()) => break,
            Err(std::fs::TryLockError::WouldBlock) if Instant::now() < until => tokio::time::sleep(RETRY).await,
            Err(std::fs::TryLockError::WouldBlock) => {
                let holder = read_note(&mut file);
                return Ok(Attempt::Held(if holder.is_empty() { "another process".to_owned() } else { holder }));
            }
            Err(std::fs::TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("cannot lock {}", path.display()));
            }
        }
    }
    let noted = ftruncate(&file, 0).map_err(std::io::Error::from).and_then(|()| file.rewind());
    noted.and_then(|()| writeln!(file, "{}", note())).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(Attempt::Taken(Lock { _file: file }))
}

/// The lock that a run holds on a host while it is at work.
pub fn run_lock(state_dir: &Path) -> PathBuf {
    state_dir.join("lock")
}

/// Names this process, at the end of the note of a run's lock.
pub fn this_process() -> String {
    format!("(process {} there)", std::process::id())
}

/// Whether a run of another process is at work on a host.
///
/// # Errors
/// The lock's file is there and cannot be opened.
pub fn is_other_run_at_work(state_dir: &Path) -> Result<bool, Failure> {
    Ok(holder(run_lock(state_dir))?.is_some_and(|note| !note.ends_with(&this_process())))
}

/// The note of whoever holds the lock on a file; `None` when nobody does.
///
/// # Errors
/// The file is there and cannot be opened.
pub fn holder(path: impl AsRef<Path>) -> Result<Option<String>, Failure> {
    let path = path.as_ref();
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("cannot open {}", path.display())),
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(None),
        Err(std::fs::TryLockError::WouldBlock) => Ok(Some(read_note(&mut file))),
        Err(std::fs::TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("cannot look at the lock {}", path.display()))
        }
    }
}

fn read_note(file: &mut File) -> String {
    let mut note = String::new();
    let _ = file.rewind();
    let _ = file.take(MOST_NOTE).read_to_string(&mut note);
    note.trim().to_owned()
}

fn open_lock(path: &Path) -> Result<File, Failure> {
    let missing = || Failure::new(format!("the directory of {} does not exist", path.display()));
    // Locks lie in fanli's own folders, which no container may mount, and no playbook puts links there.
    let place = place(path, Last::Keep, &LinkRules::default())?.ok_or_else(missing)?.named()?;
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    match openat(&place.dir, &place.name, flags, Mode::RUSR | Mode::WUSR) {
        Ok(fd) => Ok(File::from(fd)),
        Err(Errno::LOOP) => Err(Failure::new(format!("{} is a link", path.display()))),
        Err(errno) => Err(failed("open", path, errno)),
    }
}
