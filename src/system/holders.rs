//! Who keeps a network alive whose container is gone: a network namespace lives as long as a process is in it, or holds a
//! descriptor of it, and until then its addresses are answered for (research: pipework#233, libnetwork#2273).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::Probe;
use super::netlink::Mac;
use super::netns::Namespace;
use super::procfs::pids;
use crate::failure::Failure;

/// A process that keeps a network namespace alive.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Holder {
    /// Its process ID.
    pub pid: u32,
    /// Its name, as the kernel has it.
    pub name: String,
    /// Whether it only holds a descriptor, and is elsewhere itself.
    pub descriptor: bool,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = if self.descriptor { "holds it open" } else { "is in it" };
        write!(f, "process {} ({}) {how}", self.pid, self.name)
    }
}

/// A namespace by device and inode: where it can be opened, and who keeps it.
type Namespaces = BTreeMap<(u64, u64), (PathBuf, Vec<Holder>)>;

impl Probe {
    /// Who keeps alive a network that has a link of fanli's with this MAC. The host's own network, `except`, and those that a
    /// container of Docker's lives in are not looked at: such a link is in use, maybe on another host of the same machine.
    /// A process that ends, or cannot be looked at, while this looks is none.
    ///
    /// # Errors
    /// The kernel does not list a namespace's links.
    pub async fn holders(&self, mac: Mac, except: Option<&Namespace>) -> Result<Vec<Holder>, Failure> {
        let mut known = namespaces();
        for own in [std::fs::metadata("/proc/self/ns/net").ok(), except.and_then(inode)].into_iter().flatten() {
            known.remove(&(own.dev(), own.ino()));
        }
        let mut found = Vec::new();
        for (path, holders) in known.into_values() {
            let Ok(file) = File::open(&path) else { continue };
            let inside = self.netlink(Some(&Namespace::of(file)))?;
            let links = inside.links().await;
            inside.close().await;
            if links?.iter().any(|link| link.mac == Some(mac.0) && link.alias.starts_with("fanli:1:")) {
                found.extend(holders);
            }
        }
        found.sort();
        found.dedup();
        Ok(found)
    }
}

fn inode(namespace: &Namespace) -> Option<std::fs::Metadata> {
    File::from(namespace.as_fd().try_clone_to_owned().ok()?).metadata().ok()
}

fn namespaces() -> Namespaces {
    let (mut known, mut lived_in) = (Namespaces::new(), BTreeSet::new());
    for pid in pids() {
        let folder = Path::new("/proc").join(pid.to_string());
        let mut note = |path: PathBuf, descriptor: bool| {
            let Ok(meta) = std::fs::metadata(&path) else { return };
            let name = std::fs::read_to_string(folder.join("comm")).unwrap_or_default().trim().to_owned();
            let (_, holders) = known.entry((meta.dev(), meta.ino())).or_insert_with(|| (path, Vec::new()));
            holders.push(Holder { pid, name, descriptor });
        };
        note(folder.join("ns/net"), false);
        // `/docker/ID`, or `docker-ID.scope` below systemd's slice.
        let group = std::fs::read_to_string(folder.join("cgroup")).unwrap_or_default();
        if group.contains("/docker/") || group.contains("/docker-") {
            lived_in.extend(std::fs::metadata(folder.join("ns/net")).map(|meta| (meta.dev(), meta.ino())));
        }
        for entry in std::fs::read_dir(folder.join("fd")).into_iter().flatten().flatten() {
            let leads = std::fs::read_link(entry.path()).unwrap_or_default();
            if leads.to_string_lossy().starts_with("net:[") {
                note(entry.path(), true);
            }
        }
    }
    known.retain(|place, _| !lived_in.contains(place));
    known
}
