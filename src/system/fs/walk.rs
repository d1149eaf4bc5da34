//! The way to a path: one directory descriptor after the other.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Mode, OFlags, fstat, open, openat, readlinkat};
use rustix::io::Errno;

use super::link_rules::{LinkRules, Refusal};
use super::{ContainerMounts, failed};
use crate::failure::Failure;

/// The most links on one way; the kernel's own limit (`path_resolution(7)`).
const MOST_LINKS: u32 = 40;

/// A name in an open directory: where a path leads.
pub(super) struct Place {
    /// The directory, opened with `O_PATH`.
    pub(super) dir: OwnedFd,
    /// The name in it; `.` when the path is the directory itself, as with `/`.
    pub(super) name: OsString,
    /// Whether the directory and those on the way to it are root's (or of the user that runs this), and closed to others.
    ours: bool,
    /// What containers can change.
    mounts: ContainerMounts,
    /// The path as it was asked for.
    pub(super) path: PathBuf,
}

/// Whether a link at the end of a path is followed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Last {
    /// It stands for itself.
    Keep,
    /// It is followed, where links may be.
    Follow,
}

/// Where a path leads; `None` when a directory on the way does not exist.
pub(super) fn place(path: &Path, last: Last, rules: &LinkRules) -> Result<Option<Place>, Failure> {
    let mut todo = VecDeque::new();
    for part in path.components() {
        match part {
            Component::RootDir | Component::CurDir => {}
            Component::Normal(name) => todo.push_back(name.to_owned()),
            Component::ParentDir | Component::Prefix(_) => return Err(odd(path)),
        }
    }
    if !path.is_absolute() {
        return Err(odd(path));
    }
    let root = open("/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let root = root.map_err(|errno| failed("open", Path::new("/"), errno))?;
    let ours = is_ours(&root).map_err(|errno| failed("look at", Path::new("/"), errno))?;
    Walk { path, stack: vec![Open { dir: root, ours }], todo, last, rules, links: 0 }.run()
}

/// Opens a directory. Links on the way are followed by the rules of this module alone, without what a playbook declares.
///
/// # Errors
/// There is no such directory, or a link that others could have made leads to it.
pub fn open_folder(path: &Path) -> Result<OwnedFd, Failure> {
    let missing = || Failure::new(format!("there is no directory {}", path.display()));
    let Some(place) = place(path, Last::Follow, &LinkRules::default())? else { return Err(missing()) };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match openat(&place.dir, &place.name, flags, Mode::empty()) {
        Ok(dir) => Ok(dir),
        Err(Errno::NOENT) => Err(missing()),
        Err(errno) => Err(failed("open", path, errno)),
    }
}

fn odd(path: &Path) -> Failure {
    Failure::new(format!("`{}` is not a plain absolute path", path.display()))
        .hint("paths on a host start with `/` and hold no `..`")
}

struct Open {
    dir: OwnedFd,
    ours: bool,
}

struct Walk<'a> {
    path: &'a Path,
    /// From the root to where the walk stands; `..` in a link's target goes back along it, not along the disk.
    stack: Vec<Open>,
    todo: VecDeque<OsString>,
    last: Last,
    rules: &'a LinkRules,
    links: u32,
}

impl Walk<'_> {
    fn run(mut self) -> Result<Option<Place>, Failure> {
        loop {
            let name = self.todo.pop_front();
            let Some(here) = self.stack.last() else { return Err(odd(self.path)) };
            let Some(name) = name else { return Ok(self.end(OsString::from("."))) };
            if name == ".." {
                if self.stack.len() > 1 {
                    self.stack.pop();
                }
                continue;
            }
            if self.todo.is_empty() {
                let target = match self.last {
                    Last::Keep => None,
                    Last::Follow => read_link(&here.dir, &name).map_err(|errno| self.failed(errno))?,
                };
                match target {
                    None => return Ok(self.end(name)),
                    Some(target) => self.follow(&name, &target, false)?,
                }
                continue;
            }
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            match openat(&here.dir, &name, flags, Mode::empty()) {
                Ok(dir) => {
                    let ours = here.ours && is_ours(&dir).map_err(|errno| self.failed(errno))?;
                    self.stack.push(Open { dir, ours });
                }
                Err(Errno::NOENT) => return Ok(None),
                Err(Errno::NOTDIR | Errno::LOOP) => {
                    let target = read_link(&here.dir, &name).map_err(|errno| self.failed(errno))?;
                    let name_shown = Path::new(&name).display();
                    let target = target.ok_or_else(|| {
                        Failure::new(format!("cannot reach {}", self.path.display()))
                            .because(format!("`{name_shown}` on the way is not a directory"))
                    })?;
                    self.follow(&name, &target, true)?;
                }
                Err(errno) => return Err(self.failed(errno)),
            }
        }
    }

    /// Where the walk stands, with a name in it.
    fn end(mut self, name: OsString) -> Option<Place> {
        let here = self.stack.pop()?;
        Some(Place {
            dir: here.dir,
            name,
            ours: here.ours,
            mounts: self.rules.mounts.clone(),
            path: self.path.to_owned(),
        })
    }

    fn failed(&self, errno: Errno) -> Failure {
        failed("reach", self.path, errno)
    }

    fn follow(&mut self, name: &OsStr, target: &OsStr, on_the_way: bool) -> Result<(), Failure> {
        let refusal = match self.stack.last() {
            Some(here) if here.ours => self.rules.refusal(&here.dir, name, target, on_the_way),
            _ => Some(Refusal {
                place: "a directory that is not root's alone".to_owned(),
                hint: "name the real path, or make the directories above the link writable by root only",
            }),
        };
        if let Some(Refusal { place, hint }) = refusal {
            let (name, target) = (Path::new(name).display(), Path::new(target).display());
            return Err(Failure::new(format!(
                "{} leads through a link that others could have made",
                self.path.display()
            ))
            .because(format!("`{name}` points to {target}, in {place}"))
            .hint(hint));
        }
        self.links += 1;
        if self.links > MOST_LINKS {
            return Err(self.failed(Errno::LOOP));
        }
        if target.as_bytes().starts_with(b"/") {
            self.stack.truncate(1);
        }
        for part in target.as_bytes().rsplit(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".") {
            self.todo.push_front(OsStr::from_bytes(part).to_owned());
        }
        Ok(())
    }
}

/// The target of a link; `None` when the name is no link, or is nothing.
pub(super) fn read_link(dir: impl AsFd, name: impl AsRef<OsStr>) -> Result<Option<OsString>, Errno> {
    match readlinkat(dir, name.as_ref(), Vec::new()) {
        Ok(target) => Ok(Some(OsStr::from_bytes(target.as_bytes()).to_owned())),
        Err(Errno::INVAL | Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// Whether only root (or the user that runs this) can change the entries of a directory. Group and other bits also hold
/// the mask of an ACL, so an ACL that lets others write shows here.
fn is_ours(dir: impl AsFd) -> Result<bool, Errno> {
    let stat = fstat(dir)?;
    Ok(is_own(stat.st_uid) && stat.st_mode & 0o022 == 0)
}

/// Whether a user is root, or the one that runs this.
fn is_own(uid: u32) -> bool {
    uid == 0 || uid == rustix::process::geteuid().as_raw()
}

/// `/proc/self/fd/N`: the way to a call that takes no `O_PATH` descriptor (chmod), without walking a path again.
pub(super) fn by_descriptor(fd: impl AsFd) -> PathBuf {
    use std::os::fd::AsRawFd;
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd()))
}

impl Place {
    /// Whether nobody but root (or the user that runs this) can change what stands in the directory or on the way to it.
    pub(super) fn guarded(&self) -> bool {
        self.ours && self.mounts.holding(&self.dir).is_none()
    }

    /// Whether something of that owner in this directory belongs to a user that only others could have let in: see
    /// [`Entry::foreign`](super::Entry::foreign).
    pub(super) fn is_foreign(&self, uid: u32) -> Result<bool, Errno> {
        Ok(!is_own(uid) && !is_ours(&self.dir)? && fstat(&self.dir)?.st_uid != uid)
    }

    /// What stands there, opened with `O_PATH`; `None` when nothing does.
    pub(super) fn open(&self) -> Result<Option<OwnedFd>, Failure> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match openat(&self.dir, &self.name, flags, Mode::empty()) {
            Ok(fd) => Ok(Some(fd)),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(failed("look at", &self.path, errno)),
        }
    }

    /// The directory for reading its names and for fsync, which `O_PATH` does not allow.
    pub(super) fn readable_dir(&self) -> Result<OwnedFd, Failure> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        openat(&self.dir, ".", flags, Mode::empty()).map_err(|errno| failed("open the directory of", &self.path, errno))
    }

    /// Refuses `/` and other paths that end on a directory as such, for calls that need a name.
    pub(super) fn named(self) -> Result<Self, Failure> {
        if self.name == "." {
            return Err(Failure::new(format!("{} cannot be replaced or removed", self.path.display())));
        }
        Ok(self)
    }
}

/// Keeps a directory's entries through a power cut. File systems that cannot (CIFS, some FUSE) answer `EINVAL`.
pub(super) fn sync_dir(dir: impl AsFd, path: &Path) -> Result<(), Failure> {
    match rustix::fs::fsync(dir) {
        Ok(()) | Err(Errno::INVAL | Errno::OPNOTSUPP) => Ok(()),
        Err(errno) => Err(failed("sync the directory of", path, errno)),
    }
}
