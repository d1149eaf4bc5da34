//! A tree of plain files and directories below an open directory: written whole, and read whole. No link is made or followed.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Write as _;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid, fchmod, fchown, fstat, fsync, mkdirat, openat, statat};
use rustix::io::Errno;

use super::look::{Bytes, hash, names};
use super::walk::sync_dir;
use super::{Probe, failed};
use crate::failure::{Context, Failure};

/// The deepest tree, in levels: one open directory each.
pub const DEEPEST_TREE: usize = 32;

/// The most entries of a tree that is read: limit `tree_entries`.
pub const MOST_TREE_ENTRIES: usize = 20_000;

/// A tree to be written: files by their path below its root, with `/`; the directories follow from these.
#[derive(Debug, Default)]
pub struct NewTree<'a> {
    /// The files, each with its bytes and permissions.
    pub files: BTreeMap<&'a str, (&'a [u8], u32)>,
    /// Permissions of every directory.
    pub dir_mode: u32,
    /// The owner's number of everything.
    pub uid: u32,
    /// The group's number.
    pub gid: u32,
}

impl Probe {
    /// The numbers of fanli's own user and group: whose a new file is where nothing else is declared.
    pub fn own_ids(&self) -> (u32, u32) {
        (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw())
    }
}

/// What is found at a path of a tree.
#[derive(Clone, Debug)]
pub enum TreeEntry {
    /// A regular file.
    File(Bytes),
    /// A directory.
    Directory,
    /// Anything else, in words: a link, a device.
    Other(&'static str),
}

/// An entry of a tree with its attributes.
#[derive(Clone, Debug)]
pub struct FoundEntry {
    /// What it is.
    pub entry: TreeEntry,
    /// Its permissions.
    pub mode: u32,
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
}

/// A tree as it is, by path below its root; the root itself is the entry of the empty path.
pub type FoundTree = BTreeMap<String, FoundEntry>;

/// The files of one directory, and its directories.
#[derive(Default)]
struct Level<'a> {
    files: BTreeMap<&'a str, (&'a [u8], u32)>,
    dirs: BTreeMap<&'a str, Level<'a>>,
}

impl<'a> Level<'a> {
    fn put(&mut self, path: &'a str, file: (&'a [u8], u32)) {
        match path.split_once('/') {
            Some((dir, rest)) => self.dirs.entry(dir).or_default().put(rest, file),
            None => {
                self.files.insert(path, file);
            }
        }
    }
}

/// Writes a tree into an open, empty directory that nobody else can enter yet, and syncs everything. The directory itself gets
/// its mode last. `path` is for messages only.
pub(super) fn write(root: &OwnedFd, tree: &NewTree<'_>, path: &Path) -> Result<(), Failure> {
    let mut level = Level::default();
    for (name, file) in &tree.files {
        level.put(name, *file);
    }
    write_level(root, &level, tree, path)
}

fn write_level(dir: &OwnedFd, level: &Level<'_>, tree: &NewTree<'_>, path: &Path) -> Result<(), Failure> {
    for (name, (bytes, mode)) in &level.files {
        let path = path.join(name);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(dir, *name, flags, Mode::RUSR | Mode::WUSR).map_err(|errno| failed("make", &path, errno))?;
        let mut file = File::from(file);
        file.write_all(bytes).with_context(|| format!("cannot write {}", path.display()))?;
        own(&file, tree, *mode).map_err(|errno| failed("set owner and mode of", &path, errno))?;
        fsync(&file).map_err(|errno| failed("sync", &path, errno))?;
    }
    for (name, below) in &level.dirs {
        let path = path.join(name);
        let made = new_dir(dir, OsStr::new(name)).map_err(|errno| failed("make directory", &path, errno))?;
        write_level(&made, below, tree, &path)?;
    }
    own(dir, tree, tree.dir_mode).map_err(|errno| failed("set owner and mode of", path, errno))?;
    sync_dir(dir, path)
}

/// Makes a directory that is open to fanli alone, and opens it. Something else that was put under its name is refused.
pub(super) fn new_dir(dir: impl AsFd, name: &OsStr) -> Result<OwnedFd, Errno> {
    mkdirat(&dir, name, Mode::RWXU)?;
    let made = open_dir(&dir, name)?;
    let ours = fstat(&made)?.st_uid == rustix::process::geteuid().as_raw();
    if ours && names(&made)?.is_empty() { Ok(made) } else { Err(Errno::EXIST) }
}

/// Opens a directory for reading its names; a link is refused.
pub(super) fn open_dir(dir: impl AsFd, name: &OsStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(dir, name, flags, Mode::empty())
}

/// Owner first: chown clears setuid.
fn own(fd: impl AsFd, tree: &NewTree<'_>, mode: u32) -> Result<(), Errno> {
    fchown(&fd, Some(Uid::from_raw(tree.uid)), Some(Gid::from_raw(tree.gid)))?;
    fchmod(&fd, Mode::from_raw_mode(mode))
}

/// Reads a tree below an open directory.
pub(super) fn read(root: &OwnedFd, path: &Path) -> Result<FoundTree, Failure> {
    let mut found = FoundTree::new();
    let stat = fstat(root).map_err(|errno| failed("look at", path, errno))?;
    let mode = stat.st_mode & 0o7777;
    let entry = FoundEntry { entry: TreeEntry::Directory, mode, uid: stat.st_uid, gid: stat.st_gid };
    found.insert(String::new(), entry);
    read_level(root, "", path, 0, &mut found)?;
    Ok(found)
}

fn read_level(dir: &OwnedFd, below: &str, path: &Path, depth: usize, found: &mut FoundTree) -> Result<(), Failure> {
    if depth >= DEEPEST_TREE {
        return Err(Failure::new(format!("{} lies deeper than {DEEPEST_TREE} levels", path.display())));
    }
    let inside: Vec<OsString> = names(dir).map_err(|errno| failed("list", path, errno))?;
    for name in inside {
        let path = path.join(&name);
        let shown = name.to_string_lossy();
        let key = if below.is_empty() { shown.into_owned() } else { format!("{below}/{shown}") };
        if found.len() > MOST_TREE_ENTRIES {
            return Err(Failure::new(format!("{} lies among more than {MOST_TREE_ENTRIES} entries", path.display()))
                .because("over the limit `tree_entries`"));
        }
        let stat = match statat(dir, &name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => continue,
            Err(errno) => return Err(failed("look at", &path, errno)),
        };
        let entry = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                let inner = open_dir(dir, &name).map_err(|errno| failed("open", &path, errno))?;
                read_level(&inner, &key, &path, depth + 1, found)?;
                TreeEntry::Directory
            }
            FileType::RegularFile => TreeEntry::File(read_file(dir, &name, &path)?),
            FileType::Symlink => TreeEntry::Other("a link"),
            _ => TreeEntry::Other("a device, socket or FIFO"),
        };
        let entry = FoundEntry { entry, mode: stat.st_mode & 0o7777, uid: stat.st_uid, gid: stat.st_gid };
        found.insert(key, entry);
    }
    Ok(())
}

fn read_file(dir: &OwnedFd, name: &OsStr, path: &Path) -> Result<Bytes, Failure> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = openat(dir, name, flags, Mode::empty()).map_err(|errno| failed("open", path, errno))?;
    let read = hash(File::from(file)).with_context(|| format!("cannot read {}", path.display()))?;
    read.ok_or_else(|| {
        Failure::new(format!("{} is too large", path.display())).because("over the limit `content_size`")
    })
}
