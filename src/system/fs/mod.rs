//! Files: looking with a [`Probe`], writing with an [`Actuator`].
//!
//! fanli works as root in trees that others can write (volume trees, logs), so a path is walked once, component by
//! component ([`walk`]), and everything after that is an `*at` call on the directory's descriptor: never a path twice.
//! Links of the system that only root can have made (`/var/run`, `/lib`) are followed, and so are those that the playbook
//! declares ([`DeclaredLinks`]). A link in a directory that others can write is refused, and one in or below a directory that
//! a container mounts writable ([`ContainerMounts`]). Every write is an atomic replace ([`write`]) that can be killed at any instruction and simply run again.

mod attrs;
mod container_mounts;
mod held;
mod link_rules;
mod lock;
mod look;
mod plain_tree;
mod remove;
mod slots;
mod validate;
mod walk;
mod write;
mod xattrs;

use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::{Actuator, Probe};
use crate::failure::Failure;

pub use container_mounts::{ContainerMounts, HOST_ITSELF};
pub use held::Held;
pub use link_rules::DeclaredLinks;
pub(in crate::system) use link_rules::LinkRules;
pub use lock::{Attempt, Lock, Note, attempt, holder, is_other_run_at_work, lock, run_lock, this_process};
pub use look::{Bytes, KEPT_FOR_DIFF, MOST_CONTENT};
pub use plain_tree::{DEEPEST_TREE, FoundEntry, FoundTree, MOST_TREE_ENTRIES, NewTree, TreeEntry};
pub use slots::{CURRENT, GENERATIONS, Generation, Slot, is_generation};
pub use validate::STAGED;
pub use walk::open_folder;
pub use write::Staged;

/// What stands at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What it is.
    pub kind: EntryKind,
    /// Permissions with setuid, setgid and sticky: `0o7777` at most.
    pub mode: u32,
    /// The owner's number.
    pub uid: u32,
    /// The group's number.
    pub gid: u32,
    /// Length in bytes.
    pub size: u64,
    /// When its bytes last changed: seconds since 1970, and nanoseconds.
    pub mtime: (i64, u32),
    /// When anything of it last changed, a rename included: seconds since 1970, and nanoseconds.
    pub ctime: (i64, u32),
    /// How many names it has.
    pub nlink: u64,
    /// The file system it stands on.
    pub dev: u64,
    /// Its number on that file system.
    pub ino: u64,
    /// Whether it belongs to a user that is neither root, nor fanli's own, nor the owner of its directory, in a directory that
    /// others than root can write to: that user made it, or was given it, and decides what becomes of it.
    pub foreign: bool,
}

/// What an [`Entry`] is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link and what it points to, unread.
    Link(PathBuf),
    /// A device, a socket, a FIFO.
    Other,
}

impl Entry {
    /// What differs as soon as anything of it changed, or another file took its place.
    fn version(&self) -> (u64, u64, u64, (i64, u32), (i64, u32)) {
        (self.dev, self.ino, self.size, self.mtime, self.ctime)
    }

    /// When anything of it last changed, a rename included, since 1970.
    pub fn changed(&self) -> std::time::Duration {
        std::time::Duration::new(u64::try_from(self.ctime.0).unwrap_or(0), self.ctime.1)
    }
}

impl EntryKind {
    /// As messages say it.
    pub fn show(&self) -> String {
        match self {
            Self::File => "a file".to_owned(),
            Self::Directory => "a directory".to_owned(),
            Self::Link(to) => format!("a link to {}", to.display()),
            Self::Other => "a device, socket or FIFO".to_owned(),
        }
    }
}

/// Owner, group and permissions to be set. What is `None` stays as it is; on something new it is fanli's own user and group,
/// and the mode that the call names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attrs {
    /// Permissions, `0o7777` at most.
    pub mode: Option<u32>,
    /// The owner's number.
    pub uid: Option<u32>,
    /// The group's number.
    pub gid: Option<u32>,
}

impl Attrs {
    /// Permissions alone.
    pub fn mode(mode: u32) -> Self {
        Self { mode: Some(mode), ..Self::default() }
    }
}

/// `cannot open /etc/x: permission denied (os error 13)`.
fn failed(doing: &str, path: &Path, errno: Errno) -> Failure {
    let failure = Failure::new(format!("cannot {doing} {}", path.display())).because(io::Error::from(errno));
    let user = rustix::process::geteuid();
    if matches!(errno, Errno::PERM | Errno::ACCESS) && !user.is_root() {
        return failure
            .hint(format!("fanli runs as user {} on this host: `become = true` makes it root", user.as_raw()));
    }
    failure
}

/// What belongs to a user that could be anybody: see [`Entry::foreign`].
pub fn foreign_owner(path: &Path, uid: u32) -> Failure {
    Failure::new(format!("{} belongs to user {uid}, in a directory that others can write to", path.display()))
        .because("that user made it, or was given it, and may change it at any time")
}

/// A write that finds a link where it was to put something.
fn link_in_the_way(path: &Path, to: &Path) -> Failure {
    Failure::new(format!("{} is a link to {}", path.display(), to.display()))
        .hint("name the file that it points to, or remove the link with a `link` task and `state = absent` first")
}
