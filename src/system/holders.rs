//! What keeps a network alive whose container is gone: a network namespace lives as long as a process is in it, holds a
//! descriptor of it or sees it mounted, and until then its addresses are answered for (research: pipework#233, libnetwork#2273).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::mounts::MountTable;
use super::netlink::{Mac, NetlinkHands, Number};
use super::netns::Namespace;
use super::procfs::{namespace, pids};
use super::{Actuator, Probe};
use crate::failure::Failure;

/// A process that keeps a network namespace alive.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Holder {
    /// Its process ID.
    pub pid: u32,
    /// Its name, as the kernel has it.
    pub name: String,
    /// How it does that.
    pub how: How,
}

/// How a process keeps a network namespace alive.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum How {
    /// It is in it.
    Inside,
    /// It has a descriptor of it.
    Open,
    /// It sees it mounted at this path: a container with the host's root, that was started while the network was there.
    Mounted(String),
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} ({}) ", self.pid, self.name)?;
        match &self.how {
            How::Inside => f.write_str("is in it"),
            How::Open => f.write_str("holds it open"),
            How::Mounted(place) => write!(f, "has it mounted at {place}"),
        }
    }
}

/// Device and inode of a namespace.
type Place = (u64, u64);

/// The network namespaces that processes keep alive: where each can be opened, and who keeps it.
#[derive(Default)]
struct Namespaces {
    known: BTreeMap<Place, (PathBuf, Vec<Holder>)>,
    /// Those that a container of Docker's lives in.
    lived_in: BTreeSet<Place>,
}

impl Probe {
    /// Who keeps alive a network that has a link of fanli's with this MAC. The host's own network, `except`, and those that a
    /// container of Docker's lives in are not looked at: such a link is in use, maybe on another host of the same machine.
    /// A process that ends, or cannot be looked at, while this looks is none.
    ///
    /// # Errors
    /// The kernel does not list a namespace's links.
    pub async fn holders(&self, mac: Mac, except: Option<&Namespace>) -> Result<Vec<Holder>, Failure> {
        let Namespaces { mut known, lived_in } = namespaces();
        known.retain(|place, _| !lived_in.contains(place));
        for own in [std::fs::metadata("/proc/self/ns/net").ok(), except.and_then(inode)].into_iter().flatten() {
            known.remove(&(own.dev(), own.ino()));
        }
        let mut found = Vec::new();
        for (place, (path, holders)) in known {
            let Some(file) = open(place, &path) else { continue };
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

    /// Who keeps alive the network of that number. Where a process is in it, those alone: everything else goes with them.
    ///
    /// # Errors
    /// The kernel does not tell a namespace's number.
    pub async fn keepers(&self, number: Number) -> Result<Vec<Holder>, Failure> {
        let host = self.netlink(None)?;
        let mut found = Vec::new();
        for (place, (path, holders)) in namespaces().known {
            let Some(file) = open(place, &path) else { continue };
            if host.number_of(&file).await? == Some(number) {
                found = holders;
                break;
            }
        }
        host.close().await;
        if found.iter().any(|holder| holder.how == How::Inside) {
            found.retain(|holder| holder.how == How::Inside);
        }
        found.sort();
        found.dedup();
        Ok(found)
    }
}

impl Actuator {
    /// Gives a number to every network that a process keeps alive.
    ///
    /// # Errors
    /// The kernel refuses it.
    pub async fn number_networks(&self, host: &NetlinkHands) -> Result<(), Failure> {
        for (place, (path, _)) in namespaces().known {
            if let Some(file) = open(place, &path) {
                host.number(&file).await?;
            }
        }
        Ok(())
    }
}

/// The namespace that was seen at a path; `None` when it is gone, and the path leads to something else by now: a descriptor's number is
/// used again, and where a namespace was mounted a plain file stays.
fn open(place: Place, path: &Path) -> Option<File> {
    let file = File::open(path).ok()?;
    let now = file.metadata().ok()?;
    ((now.dev(), now.ino()) == place).then_some(file)
}

fn inode(namespace: &Namespace) -> Option<std::fs::Metadata> {
    File::from(namespace.as_fd().try_clone_to_owned().ok()?).metadata().ok()
}

fn namespaces() -> Namespaces {
    let (mut all, mut tables) = (Namespaces::default(), BTreeSet::new());
    let nsfs = std::fs::metadata("/proc/self/ns/net").map(|meta| meta.dev()).unwrap_or_default();
    for pid in pids() {
        let folder = Path::new("/proc").join(pid.to_string());
        let mut note = |place: Option<Place>, path: PathBuf, how: How| {
            let Some(place) = place else { return };
            let name = std::fs::read_to_string(folder.join("comm")).unwrap_or_default().trim().to_owned();
            let (_, holders) = all.known.entry(place).or_insert_with(|| (path, Vec::new()));
            holders.push(Holder { pid, name, how });
        };
        let of = |path: &Path| std::fs::metadata(path).ok().map(|meta| (meta.dev(), meta.ino()));
        let own = folder.join("ns/net");
        let lives_in = of(&own);
        note(lives_in, own, How::Inside);
        for entry in std::fs::read_dir(folder.join("fd")).into_iter().flatten().flatten() {
            let leads = std::fs::read_link(entry.path()).unwrap_or_default();
            if leads.to_string_lossy().starts_with("net:[") {
                note(of(&entry.path()), entry.path(), How::Open);
            }
        }
        // One process for all that see the same mounts. What is mounted says itself which namespace it is, so that nothing has to
        // be asked of a path that may lead into a dead server's mount.
        if namespace(pid, "mnt").is_some_and(|table| tables.insert(table)) {
            let text = std::fs::read_to_string(folder.join("mountinfo")).unwrap_or_default();
            for (inode, point) in mounted_networks(&text) {
                let path = folder.join("root").join(point.trim_start_matches('/'));
                note(Some((nsfs, inode)), path, How::Mounted(point));
            }
        }
        // `/docker/ID`, or `docker-ID.scope` below systemd's slice.
        let group = std::fs::read_to_string(folder.join("cgroup")).unwrap_or_default();
        if group.contains("/docker/") || group.contains("/docker-") {
            all.lived_in.extend(lives_in);
        }
    }
    all
}

/// The network namespaces that a table of mounts shows: inode, and where it is mounted.
fn mounted_networks(mountinfo: &str) -> Vec<(u64, String)> {
    let table = MountTable::parse(mountinfo);
    let number = |root: &str| root.strip_prefix("net:[")?.strip_suffix(']')?.parse().ok();
    table
        .all()
        .iter()
        .filter(|mount| mount.kind == "nsfs")
        .filter_map(|mount| Some((number(&mount.root)?, mount.point.clone())))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_in_a_table_of_mounts() {
        let text = "22 1 254:0 / / rw - ext4 /dev/vda rw\n\
                    213 212 0:4 net:[4026532178] /rootfs/run/docker/netns/b9deb2533639 rw - nsfs nsfs rw\n\
                    214 212 0:4 mnt:[4026532179] /rootfs/run/snapd/ns/lxd.mnt rw - nsfs nsfs rw\n";
        assert_eq!(mounted_networks(text), [(4_026_532_178, "/rootfs/run/docker/netns/b9deb2533639".to_owned())]);
        assert_eq!(mounted_networks("what is this"), []);
    }

    #[test]
    fn what_is_something_else_by_now_is_not_opened() {
        let own = Path::new("/proc/self/ns/net");
        let seen = std::fs::metadata(own).unwrap();
        assert!(open((seen.dev(), seen.ino()), own).is_some());
        assert!(open((seen.dev(), seen.ino()), Path::new("/proc/self/status")).is_none());
        assert!(open((seen.dev(), seen.ino()), Path::new("/nowhere")).is_none());
    }
}
