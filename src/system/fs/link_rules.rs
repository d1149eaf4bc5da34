//! Which links on the way to a path are followed.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::container_mounts::{ContainerMounts, real_path};
use super::look::canonical;

/// Directories of the operating system, with everything below: links there came with it, or with a package.
const SYSTEM_BELOW: [&str; 13] =
    ["/bin", "/boot", "/dev", "/etc", "/lib", "/lib32", "/lib64", "/proc", "/root", "/run", "/sbin", "/sys", "/usr"];

/// Directories that hold the roots of data: a link right in one of them says where the data lies.
const SYSTEM_ITSELF: [&str; 11] =
    ["/", "/home", "/media", "/mnt", "/opt", "/srv", "/var", "/var/cache", "/var/lib", "/var/log", "/var/spool"];

/// The links that a playbook declares, by their paths, each with what it points to.
#[derive(Clone, Debug, Default)]
pub struct DeclaredLinks(Arc<Mutex<BTreeMap<PathBuf, OsString>>>);

impl DeclaredLinks {
    /// Adds links.
    pub fn add(&self, links: impl IntoIterator<Item = (String, String)>) {
        let links = links.into_iter().map(|(path, to)| (PathBuf::from(path), OsString::from(to)));
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(links);
    }

    /// Whether that is the link that was declared there.
    fn has(&self, dir: &Path, name: &OsStr, target: &OsStr) -> bool {
        let links = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_there = |path: &Path| path.parent().is_some_and(|parent| parent == dir || real_path(parent) == dir);
        links.iter().any(|(path, to)| to == target && path.file_name() == Some(name) && is_there(path))
    }
}

/// What decides on links besides owners and permissions.
#[derive(Clone, Debug, Default)]
pub(in crate::system) struct LinkRules {
    /// What containers mount writable.
    pub(in crate::system) mounts: ContainerMounts,
    /// What the playbook declares.
    pub(in crate::system) links: DeclaredLinks,
}

/// Why a link is not followed: where it stands, in words, and the way out.
pub(super) struct Refusal {
    pub(super) place: String,
    pub(super) hint: &'static str,
}

impl LinkRules {
    /// Why a link in a directory of root's alone is not followed all the same. `on_the_way`: more of the path comes behind it.
    pub(super) fn refusal(&self, dir: impl AsFd, name: &OsStr, target: &OsStr, on_the_way: bool) -> Option<Refusal> {
        let unknown = || Refusal { place: "a directory that cannot be looked at".to_owned(), hint: "run again" };
        let Ok(path) = canonical(&dir) else { return Some(unknown()) };
        // What is mounted from there is the host itself, and owned by whoever writes it.
        if path == Path::new("/") {
            return None;
        }
        if let Some(mount) = self.mounts.holding(&dir) {
            let place = format!("{}, which a container mounts writable", mount.display());
            return Some(Refusal {
                place,
                hint: "name the real path: in what a container can write, no link is followed",
            });
        }
        let of_system = SYSTEM_ITSELF.iter().any(|system| path == Path::new(system))
            || SYSTEM_BELOW.iter().any(|system| path.starts_with(system));
        if !on_the_way || of_system || self.links.has(&path, name, target) {
            return None;
        }
        let place = format!("{}, where any container that mounts it could have put it as root", path.display());
        Some(Refusal { place, hint: "name the real path, or declare the link with a `link` task in this playbook" })
    }
}
