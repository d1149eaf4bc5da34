//! What stands on the disk: a tree of configuration, by hash.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::failure::{Context, Failure};
use crate::system::file_events::{Identity, identity};
use crate::system::fs::CURRENT;
use crate::value::{Digest, show_size};

/// The most files of a tree: limit `tree_files`.
const MOST_FILES: usize = 20_000;
/// The most bytes of a tree: limit `tree_size`.
const MOST_BYTES: u64 = 256 << 20;
/// A file that changed so recently may change again without its times telling: the kernel's clock ticks coarsely.
const COARSE: Duration = Duration::from_secs(2);

/// Which tree: what is compared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Id {
    /// The generation that `current` names; `None` in a plain directory.
    pub generation: Option<String>,
    /// Names, modes, links and contents, hashed: 12 digits.
    pub digest: String,
}

impl Id {
    /// In messages: the generation when there is one.
    pub(super) fn show(&self) -> String {
        match &self.generation {
            Some(generation) => format!("generation {generation} ({})", self.digest),
            None => self.digest.clone(),
        }
    }
}

/// The times and numbers that change whenever a file does.
type Stamp = (u64, u64, u64, (i64, i64), (i64, i64), u32);

/// What is at a name of a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Node {
    File { mode: u32, content: Digest },
    Link(PathBuf),
    Dir { mode: u32 },
}

/// A tree as it was looked at.
#[derive(Clone, Debug)]
pub(super) struct Tree {
    pub(super) id: Id,
    /// The real place of the tree.
    place: PathBuf,
    nodes: BTreeMap<PathBuf, Node>,
    /// All directories that must be watched.
    pub(super) dirs: BTreeMap<PathBuf, Identity>,
    stamps: BTreeMap<PathBuf, (Stamp, Digest)>,
}

impl Tree {
    /// Looks at the tree behind `dir/current`, or at the plain directory. Contents whose stamp is as in `known` are not read
    /// again; without `known`, all are.
    pub(super) fn look(dir: &Path, known: Option<&Self>) -> Result<Self, Failure> {
        let dir = &fs::canonicalize(dir).with_context(|| format!("{} is not there", dir.display()))?;
        let link = dir.join(CURRENT);
        let has_generations = fs::symlink_metadata(&link).is_ok_and(|seen| seen.is_symlink());
        let behind = if has_generations { &link } else { dir };
        let place = fs::canonicalize(behind).with_context(|| format!("{} leads nowhere", behind.display()))?;
        let generation = has_generations.then(|| place.file_name().unwrap_or_default().to_string_lossy().into_owned());
        let id = Id { generation, digest: String::new() };
        let mut tree = Self { id, place, nodes: BTreeMap::new(), dirs: BTreeMap::new(), stamps: BTreeMap::new() };
        let mut bytes = 0;
        let mut left = vec![PathBuf::new()];
        while let Some(relative) = left.pop() {
            tree.look_into(&relative, known, &mut left, &mut bytes)?;
        }
        // A directory that is replaced, and the link in it.
        for above in [Some(dir.as_path()), dir.parent()].into_iter().flatten() {
            tree.dirs.extend(identity(above).map(|identity| (above.to_owned(), identity)));
        }
        tree.id.digest = tree.digest();
        Ok(tree)
    }

    fn look_into(
        &mut self,
        relative: &Path,
        known: Option<&Self>,
        left: &mut Vec<PathBuf>,
        bytes: &mut u64,
    ) -> Result<(), Failure> {
        let dir = self.place.join(relative);
        self.dirs.extend(identity(&dir).map(|identity| (dir.clone(), identity)));
        let failed = || format!("cannot look at {}", dir.display());
        for entry in fs::read_dir(&dir).with_context(failed)? {
            let entry = entry.with_context(failed)?;
            if is_passing(&entry.file_name().to_string_lossy()) {
                continue;
            }
            let (path, name) = (entry.path(), relative.join(entry.file_name()));
            // What went away since it was listed is not there.
            let Ok(seen) = fs::symlink_metadata(&path) else { continue };
            let mode = seen.mode() & 0o7777;
            let node = if seen.is_dir() {
                left.push(name.clone());
                Node::Dir { mode }
            } else if seen.is_symlink() {
                let Ok(target) = fs::read_link(&path) else { continue };
                Node::Link(target)
            } else if seen.is_file() {
                *bytes += seen.len();
                if *bytes > MOST_BYTES {
                    let most = format!("over the limit `tree_size` of {}", show_size(MOST_BYTES));
                    return Err(Failure::new(format!("{} is too large", self.place.display())).because(most));
                }
                let stamp = stamp(&seen);
                let old = known.and_then(|known| known.stamps.get(&name)).filter(|(old, _)| *old == stamp);
                let content = match old {
                    Some((_, digest)) if !is_recent(&seen) => *digest,
                    _ => match hash(&path) {
                        Ok(digest) => digest,
                        Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
                    },
                };
                self.stamps.insert(name.clone(), (stamp, content));
                Node::File { mode, content }
            } else {
                continue;
            };
            self.nodes.insert(name, node);
            if self.nodes.len() > MOST_FILES {
                let most = format!("over the limit `tree_files` of {MOST_FILES}");
                return Err(Failure::new(format!("{} has too many files", self.place.display())).because(most));
            }
        }
        Ok(())
    }

    fn digest(&self) -> String {
        use std::os::unix::ffi::OsStrExt as _;
        let mut hasher = Sha256::new();
        let mut part = |bytes: &[u8]| {
            hasher.update((bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        };
        for (name, node) in &self.nodes {
            part(name.as_os_str().as_bytes());
            match node {
                Node::File { mode, content } => {
                    part(b"file");
                    part(&mode.to_le_bytes());
                    part(&content.0);
                }
                Node::Link(target) => {
                    part(b"link");
                    part(target.as_os_str().as_bytes());
                }
                Node::Dir { mode } => {
                    part(b"dir");
                    part(&mode.to_le_bytes());
                }
            }
        }
        Digest(hasher.finalize().into()).short()
    }

    /// The names that differ from another tree, most of them when they are many.
    pub(super) fn differing(&self, other: &Self) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        for (name, node) in &self.nodes {
            match other.nodes.get(name) {
                Some(old) if old == node => {}
                Some(_) => names.push(name.display().to_string()),
                None => names.push(format!("+{}", name.display())),
            }
        }
        names.extend(
            other.nodes.keys().filter(|name| !self.nodes.contains_key(*name)).map(|n| format!("-{}", n.display())),
        );
        names
    }

    /// Copies the tree to `to`, which only its owner can enter. `false`: it changed meanwhile, and nothing is there.
    pub(super) fn keep(&self, to: &Path) -> Result<bool, Failure> {
        let fresh = to.with_extension("new");
        let failed = || format!("cannot keep a copy in {}", to.display());
        remove(&fresh).with_context(failed)?;
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&fresh).with_context(failed)?;
        let whole = self.copy(&fresh).with_context(failed)?;
        if !whole {
            remove(&fresh).with_context(failed)?;
            return Ok(false);
        }
        remove(to).with_context(failed)?;
        fs::rename(&fresh, to).with_context(failed)?;
        Ok(true)
    }

    /// Directories come before what is in them, by the order of names.
    fn copy(&self, to: &Path) -> std::io::Result<bool> {
        for (name, node) in &self.nodes {
            let (from, place) = (self.place.join(name), to.join(name));
            match node {
                Node::Dir { mode } => fs::DirBuilder::new().mode(*mode | 0o700).create(&place)?,
                Node::Link(target) => std::os::unix::fs::symlink(target, &place)?,
                Node::File { mode, content } => {
                    let Ok(bytes) = fs::read(&from) else { return Ok(false) };
                    if Digest::of(&bytes) != *content {
                        return Ok(false);
                    }
                    let mut file = File::options().write(true).create_new(true).mode(0o600).open(&place)?;
                    std::io::Write::write_all(&mut file, &bytes)?;
                    file.set_permissions(fs::Permissions::from_mode(*mode & 0o777))?;
                }
            }
        }
        Ok(true)
    }
}

fn remove(path: &Path) -> std::io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// What editors and fanli itself leave beside a file while they write it.
fn is_passing(name: &str) -> bool {
    let ends = |ends: &[&str]| Path::new(name).extension().is_some_and(|end| ends.iter().any(|one| end == *one));
    let swap = name.starts_with('.') && ends(&["swp", "swx", "swo"]);
    let ours = name.starts_with(".fanli-") && ends(&["tmp"]);
    swap || ours || name.ends_with('~') || name.starts_with(".#") || name.starts_with('#') && name.ends_with('#')
}

fn stamp(seen: &fs::Metadata) -> Stamp {
    let (changed, modified) = ((seen.ctime(), seen.ctime_nsec()), (seen.mtime(), seen.mtime_nsec()));
    (seen.dev(), seen.ino(), seen.len(), modified, changed, seen.mode())
}

fn is_recent(seen: &fs::Metadata) -> bool {
    let changed = UNIX_EPOCH + Duration::from_secs(u64::try_from(seen.ctime()).unwrap_or(0));
    SystemTime::now().duration_since(changed).is_ok_and(|age| age < COARSE) || changed > SystemTime::now()
}

fn hash(path: &Path) -> std::io::Result<Digest> {
    // Something that is a FIFO by now must not hold us up.
    let flags = rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOFOLLOW;
    let flags = i32::try_from(flags.bits()).unwrap_or(0);
    let mut file = File::options().read(true).custom_flags(flags).open(path)?.take(MOST_BYTES + 1);
    let (mut hasher, mut piece) = (Sha256::new(), vec![0u8; 64 * 1024]);
    loop {
        match file.read(&mut piece) {
            Ok(0) => return Ok(Digest(hasher.finalize().into())),
            Ok(read) => hasher.update(piece.get(..read).unwrap_or_default()),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(path: &Path, text: &str) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn a_tree_is_told_by_names_modes_links_and_contents() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        write(&dir.join("a.conf"), "one");
        write(&dir.join("sites/b.conf"), "two");
        let first = Tree::look(dir, None).unwrap();
        assert_eq!(first.id.generation, None);
        let mut last = first.clone();
        let mut changed = |names: &[&str]| {
            let tree = Tree::look(dir, Some(&last)).unwrap();
            assert_eq!(tree.differing(&last), names);
            assert_eq!(tree.id == last.id, names.is_empty());
            assert_eq!(tree.id, Tree::look(dir, None).unwrap().id);
            last = tree;
        };
        changed(&[]);
        write(&dir.join("a.conf"), "eno");
        changed(&["a.conf"]);
        fs::set_permissions(dir.join("a.conf"), fs::Permissions::from_mode(0o600)).unwrap();
        changed(&["a.conf"]);
        std::os::unix::fs::symlink("a.conf", dir.join("link")).unwrap();
        changed(&["+link"]);
        for passing in [".a.conf.swp", "a.conf~", ".#a.conf", "#a.conf#", ".fanli-0123456789abcdef.tmp"] {
            write(&dir.join(passing), "x");
        }
        changed(&[]);
        fs::remove_file(dir.join("sites/b.conf")).unwrap();
        changed(&["-sites/b.conf"]);
    }

    #[test]
    fn generations_are_told_apart_even_when_their_contents_are_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        for generation in ["aaaaaaaaaaaa", "bbbbbbbbbbbb"] {
            write(&dir.join("generations").join(generation).join("x"), "same");
        }
        std::os::unix::fs::symlink("generations/aaaaaaaaaaaa", dir.join("current")).unwrap();
        let first = Tree::look(dir, None).unwrap();
        fs::remove_file(dir.join("current")).unwrap();
        assert!(!Tree::look(dir, None).unwrap().nodes.is_empty());
        std::os::unix::fs::symlink("generations/bbbbbbbbbbbb", dir.join("current")).unwrap();
        let second = Tree::look(dir, Some(&first)).unwrap();
        assert_eq!(second.id.generation.as_deref(), Some("bbbbbbbbbbbb"));
        assert_eq!(second.id.digest, first.id.digest);
        assert_ne!(second.id, first.id);
        fs::remove_dir_all(dir.join("generations/bbbbbbbbbbbb")).unwrap();
        assert!(Tree::look(dir, None).unwrap_err().message.contains("current leads nowhere"));
    }

    #[test]
    fn a_copy_is_whole_or_not_there() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("keep/good"));
        write(&from.join("sites/b.conf"), "two");
        write(&from.join("a.conf"), "one");
        std::os::unix::fs::symlink("a.conf", from.join("link")).unwrap();
        fs::set_permissions(from.join("a.conf"), fs::Permissions::from_mode(0o640)).unwrap();
        let tree = Tree::look(&from, None).unwrap();
        assert!(tree.keep(&to).unwrap());
        assert_eq!(Tree::look(&to, None).unwrap().id, tree.id);
        assert!(tree.keep(&to).unwrap());
        write(&from.join("a.conf"), "new");
        assert!(!tree.keep(&to).unwrap());
        assert_eq!(Tree::look(&to, None).unwrap().id, tree.id);
        assert!(!to.with_extension("new").exists());
    }
}
