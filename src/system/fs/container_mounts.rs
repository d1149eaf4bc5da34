//! The directories of this host that containers mount writable.
//!
//! Root in a container is user 0 on the host, too, so in such a directory an owner says nothing about whose work a link is.

use std::collections::{BTreeSet, VecDeque};
use std::ffi::OsString;
use std::os::fd::AsFd;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::look::canonical;
use crate::system::mounts::{Mount, MountTable};

/// The most links on the way to one directory.
const MOST_LINKS: usize = 40;

/// Directories that are the host, not data on it. A container that can write one owns the host.
pub const HOST_ITSELF: &[&str] = &[
    "/", "/bin", "/boot", "/dev", "/etc", "/lib", "/lib64", "/root", "/run", "/sbin", "/usr", "/var", "/var/lib",
    "/var/run",
];

/// What a run knows of the directories that containers mount writable. It only grows: a container that is gone may have left
/// links behind.
#[derive(Clone, Debug, Default)]
pub struct ContainerMounts(Arc<Mutex<BTreeSet<PathBuf>>>);

impl ContainerMounts {
    /// Adds directories by their paths. What is the host itself is left out: links there are the system's own, and a container
    /// that writes there owns the host in any case.
    pub fn add(&self, sources: impl IntoIterator<Item = String>) {
        let kernel = ["/proc", "/sys", "/dev"];
        let data = |source: &PathBuf| {
            !HOST_ITSELF.iter().any(|path| source == Path::new(path))
                && !kernel.iter().any(|path| source.starts_with(path))
        };
        let sources = sources.into_iter().map(PathBuf::from).filter(data);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(sources);
    }

    /// The one of these directories that an open directory is or lies in, also by way of another mount of the same file system.
    ///
    /// Where that cannot be found out, the directory counts as one of them.
    pub(super) fn holding(&self, dir: impl AsFd) -> Option<PathBuf> {
        let sources: Vec<PathBuf> = self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect();
        if sources.is_empty() {
            return None;
        }
        let Ok(dir) = canonical(dir) else { return sources.into_iter().next() };
        let Ok(table) = std::fs::read_to_string("/proc/self/mountinfo") else { return Some(dir) };
        let table = MountTable::parse(&table);
        let place = |path: &Path| table.place_of(path.to_str()?).map(|(device, root)| (device.to_owned(), root));
        let here = place(&dir);
        sources.into_iter().find(|source| {
            let real = without_links(source, &table);
            let inside = |(device, root): &(String, String)| {
                here.as_ref().is_some_and(|(on, at)| on == device && Path::new(at).starts_with(root))
            };
            dir.starts_with(&real) || place(&real).as_ref().is_some_and(inside)
        })
    }
}

/// A path without its links, as far as that can be known without waiting.
pub(super) fn real_path(path: &Path) -> PathBuf {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    without_links(path, &MountTable::parse(&table))
}

/// A path without its links. What stands on a network is taken as it is written: asking there could take for ever.
fn without_links(path: &Path, table: &MountTable) -> PathBuf {
    let (mut real, mut todo, mut links) = (PathBuf::from("/"), VecDeque::new(), 0);
    push_front(&mut todo, path);
    while let Some(name) = todo.pop_front() {
        if name == ".." {
            real.pop();
            continue;
        }
        let next = real.join(&name);
        let far = next.to_str().and_then(|next| table.leading_to(next)).is_some_and(Mount::is_far);
        match if far || links >= MOST_LINKS { None } else { std::fs::read_link(&next).ok() } {
            None => real = next,
            Some(target) => {
                links += 1;
                if target.is_absolute() {
                    real = PathBuf::from("/");
                }
                push_front(&mut todo, &target);
            }
        }
    }
    real
}

fn push_front(todo: &mut VecDeque<OsString>, path: &Path) {
    for part in path.components().rev() {
        match part {
            Component::Normal(name) => todo.push_front(name.to_owned()),
            Component::ParentDir => todo.push_front(OsString::from("..")),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
}
