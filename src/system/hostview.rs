//! What belongs to the host and not to one of its containers, kept between the steps of one run.
//!
//! A host with a hundred nodes has a hundred attachments, and each asks for the same links, routes and records. Nothing is kept
//! on trust. The kernel is listened to: what it announces (links, addresses, routes, tables of tunnels) is listed again as soon as
//! anything of its kind was announced, so it is never older than the question. A folder is read again when it changed. What
//! nobody announces (Docker's containers, the firewall's rules) is kept for [`UNHEARD`] at the most, and not at all while
//! there are hands ([`Actuator`](super::Actuator)): what is looked at to be changed, and after it was changed, is looked at.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use ipnet::{IpNet, Ipv4Net};
use tokio::sync::Mutex;

use super::Probe;
use super::docker::{Docker, Identity};
use super::firewall::Passage;
use super::fs::{ContainerMounts, DeclaredLinks, LinkRules};
use super::netlink::{Ear, Forward, Group, Link, Netlink, Route};
use crate::failure::{Context, Failure};

/// How old a look may be at things that nobody announces.
const UNHEARD: Duration = Duration::from_secs(1);
/// A folder that changed this short a time ago may change again without another time of change: the kernel's clock for files
/// ticks at most every 10 ms.
const TICKS: Duration = Duration::from_millis(50);

/// What the steps of a run know of their host.
#[derive(Clone, Default)]
pub(super) struct HostView(Arc<Inner>);

#[derive(Default)]
struct Inner {
    network: Mutex<Option<Heard<Network>>>,
    tables: Mutex<Option<Heard<Tables>>>,
    containers: Mutex<Option<(Moment, Arc<BTreeSet<String>>)>>,
    passages: Mutex<BTreeMap<String, (Moment, Passage)>>,
    folders: std::sync::Mutex<BTreeMap<PathBuf, Folder>>,
    docker: std::sync::Mutex<Option<(Identity, Docker)>>,
    link_rules: LinkRules,
    /// How many hands there are now, and how often some came or went.
    hands: AtomicUsize,
    turns: AtomicU64,
}

/// When something was looked at that nobody announces, while there were no hands.
#[derive(Clone, Copy)]
struct Moment {
    at: Instant,
    turn: u64,
}

/// The tables of all tunnels: a link's number, and an entry.
type Tables = Vec<(u32, Forward)>;

/// Something that was listed, and what tells when it changes.
struct Heard<T> {
    ear: Ear,
    netlink: Netlink,
    found: Option<Arc<T>>,
}

/// The host's own network.
#[derive(Debug, Default)]
pub struct Network {
    /// Every link.
    pub links: Vec<Link>,
    /// Every address: the link's number, the address, and whether it stays (a leased one does not).
    addresses: Vec<(u32, IpNet, bool)>,
    /// The IPv4 routes of the main table that lead somewhere.
    pub routes: Vec<Route>,
}

impl Network {
    /// The link of that name.
    pub fn link(&self, name: &str) -> Option<&Link> {
        self.links.iter().find(|link| link.name == name)
    }

    /// The IPv4 addresses of a link, the primary first.
    pub fn addresses(&self, index: u32) -> Vec<Ipv4Net> {
        let of_link = |(link, net, _): &(u32, IpNet, bool)| match net {
            IpNet::V4(net) if *link == index => Some(*net),
            _ => None,
        };
        self.addresses.iter().filter_map(of_link).collect()
    }

    /// The link that has the address.
    pub fn has(&self, address: IpAddr) -> Option<&Link> {
        let (index, ..) = self.addresses.iter().find(|(_, net, _)| net.addr() == address)?;
        self.links.iter().find(|link| link.index == *index)
    }

    /// Whether an address of a link will end by itself, or is IPv6 and static: such are not moved to another link.
    pub fn immovable(&self, index: u32) -> Option<String> {
        let of_link = self.addresses.iter().filter(|(link, ..)| *link == index);
        of_link.into_iter().find_map(|(_, net, lasting)| match net.addr() {
            IpAddr::V4(address) if !lasting => Some(format!("{address} is leased (DHCP)")),
            IpAddr::V6(address) if *lasting && !address.is_unicast_link_local() => {
                Some(format!("{address} is a static IPv6 address"))
            }
            _ => None,
        })
    }
}

/// What was made of the files in a folder, and of which state of the folder.
struct Folder {
    state: FolderState,
    found: Arc<dyn Any + Send + Sync>,
}

/// A folder changes with each file that comes, goes or is replaced.
#[derive(Clone, Copy, PartialEq, Eq)]
struct FolderState {
    device: u64,
    inode: u64,
    changed: (i64, i64),
}

impl FolderState {
    fn of(path: &Path) -> Option<Self> {
        use std::os::unix::fs::MetadataExt as _;
        let seen = std::fs::metadata(path).ok()?;
        Some(Self { device: seen.dev(), inode: seen.ino(), changed: (seen.ctime(), seen.ctime_nsec()) })
    }

    /// Whether its next change will show in its time.
    fn settled(&self) -> bool {
        let (seconds, nanos) = self.changed;
        let changed = Duration::new(u64::try_from(seconds).unwrap_or(0), u32::try_from(nanos).unwrap_or(0));
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        now.checked_sub(changed).is_some_and(|age| age > TICKS)
    }
}

/// While it lives, somebody may be changing the host.
pub(super) struct Changing(HostView);

impl Changing {
    pub(super) fn of(view: &HostView) -> Self {
        view.0.hands.fetch_add(1, Ordering::SeqCst);
        view.0.turns.fetch_add(1, Ordering::SeqCst);
        Self(view.clone())
    }
}

impl Drop for Changing {
    fn drop(&mut self) {
        self.0.0.turns.fetch_add(1, Ordering::SeqCst);
        self.0.0.hands.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Inner {
    /// Now; `None` while there are hands.
    fn moment(&self) -> Option<Moment> {
        let turn = self.turns.load(Ordering::SeqCst);
        (self.hands.load(Ordering::SeqCst) == 0).then(|| Moment { at: Instant::now(), turn })
    }

    /// Whether what was looked at then is still good.
    fn recent(&self, then: Moment) -> bool {
        self.moment().is_some_and(|now| now.turn == then.turn && then.at.elapsed() < UNHEARD)
    }
}

impl<T> Heard<T> {
    fn open(probe: &Probe, groups: &[Group]) -> Result<Self, Failure> {
        let ear = Ear::open(groups).context("cannot listen to the host's links")?;
        Ok(Self { ear, netlink: probe.netlink(None)?, found: None })
    }

    /// What is known, unless something was heard since it was listed.
    fn known(&mut self) -> Result<Option<Arc<T>>, Failure> {
        if self.ear.heard().context("cannot listen to the host's links")? {
            self.found = None;
        }
        Ok(self.found.clone())
    }
}

impl Heard<Network> {
    /// Of a link that is down the kernel does not announce a new alias or mode (`netdev_state_change`): such are asked for.
    async fn idle_links_are_same(&self, known: &Network) -> Result<bool, Failure> {
        for link in known.links.iter().filter(|link| !link.up) {
            if self.netlink.link_at(link.index).await?.as_ref() != Some(link) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

impl Probe {
    /// The host's links, addresses and routes, as they are now.
    ///
    /// # Errors
    /// The kernel gives no socket, or does not answer.
    pub async fn host_network(&self) -> Result<Arc<Network>, Failure> {
        let mut kept = self.host.0.network.lock().await;
        let heard = match &mut *kept {
            Some(heard) => heard,
            none => {
                none.insert(Heard::open(self, &[Group::Links, Group::Addresses, Group::Addresses6, Group::Routes])?)
            }
        };
        if let Some(known) = heard.known()?
            && heard.idle_links_are_same(&known).await?
        {
            return Ok(known);
        }
        // Listened to first: what changes meanwhile is heard next time.
        let host = &heard.netlink;
        let (links, addresses, routes) = (host.links().await?, host.lasting_addresses().await?, host.routes().await?);
        Ok(Arc::clone(heard.found.insert(Arc::new(Network { links, addresses, routes }))))
    }

    /// The table of one of the host's tunnels, as it is now.
    ///
    /// # Errors
    /// As [`Probe::host_network`].
    pub async fn host_forwards(&self, tunnel: u32) -> Result<Vec<Forward>, Failure> {
        let mut kept = self.host.0.tables.lock().await;
        let heard = match &mut *kept {
            Some(heard) => heard,
            none => none.insert(Heard::open(self, &[Group::Links, Group::Neighbours])?),
        };
        let all = match heard.known()? {
            Some(known) => known,
            None => Arc::clone(heard.found.insert(Arc::new(heard.netlink.all_forwards().await?))),
        };
        Ok(all.iter().filter(|(link, _)| *link == tunnel).map(|(_, entry)| *entry).collect())
    }

    /// The names of all containers, at most [`UNHEARD`] old, and whether they are from just now.
    ///
    /// # Errors
    /// The daemon does not answer.
    pub async fn recent_containers(&self, fresh: bool) -> Result<(Arc<BTreeSet<String>>, bool), Failure> {
        let mut kept = self.host.0.containers.lock().await;
        if let Some((_, names)) = kept.as_ref().filter(|(then, _)| !fresh && self.host.0.recent(*then)) {
            return Ok((Arc::clone(names), false));
        }
        let moment = self.host.0.moment();
        let names: Arc<BTreeSet<String>> = Arc::new(self.docker()?.container_names().await?.into_iter().collect());
        *kept = moment.map(|moment| (moment, Arc::clone(&names)));
        Ok((names, true))
    }

    /// The directories that containers mount writable, as far as this run knows them.
    pub fn container_mounts(&self) -> &ContainerMounts {
        &self.host.0.link_rules.mounts
    }

    /// The links that the playbook declares.
    pub fn declared_links(&self) -> &DeclaredLinks {
        &self.host.0.link_rules.links
    }

    pub(super) fn link_rules(&self) -> &LinkRules {
        &self.host.0.link_rules
    }

    /// Learns from Docker which directories its containers mount writable, running or not. Where it does not run there are none.
    ///
    /// # Errors
    /// The daemon is there and does not answer.
    pub async fn learn_container_mounts(&self) -> Result<(), Failure> {
        let Ok(docker) = self.docker() else { return Ok(()) };
        match docker.writable_mounts().await {
            Ok(sources) => self.container_mounts().add(sources),
            // Its socket is there, and the daemon does not run.
            Err(failure) if failure.causes.iter().any(|cause| cause.contains("onnection refused")) => {}
            Err(failure) => return Err(failure),
        }
        Ok(())
    }

    /// How a bridge stands with the firewall, at most [`UNHEARD`] ago.
    ///
    /// # Errors
    /// iptables does not run.
    pub async fn recent_passage(&self, bridge: &str) -> Result<Passage, Failure> {
        let mut kept = self.host.0.passages.lock().await;
        if let Some((_, passage)) = kept.get(bridge).filter(|(then, _)| self.host.0.recent(*then)) {
            return Ok(*passage);
        }
        let moment = self.host.0.moment();
        let passage = self.bridge_passage(bridge).await?;
        match moment {
            Some(moment) => kept.insert(bridge.to_owned(), (moment, passage)),
            None => kept.remove(bridge),
        };
        Ok(passage)
    }

    /// What `read` makes of a folder's files; as it made it before when the folder has not changed since. Only for folders whose
    /// files are replaced and never written in place.
    pub(crate) fn of_folder<T: Any + Send + Sync>(
        &self,
        path: &Path,
        read: impl FnOnce() -> Result<T, Failure>,
    ) -> Result<Arc<T>, Failure> {
        let before = FolderState::of(path);
        let mut kept = self.host.0.folders.lock().unwrap_or_else(PoisonError::into_inner);
        let same = kept.get(path).filter(|folder| Some(folder.state) == before);
        if let Some(found) = same.and_then(|folder| Arc::clone(&folder.found).downcast::<T>().ok()) {
            return Ok(found);
        }
        let found = Arc::new(read()?);
        match before.filter(FolderState::settled) {
            Some(state) => {
                kept.insert(path.to_owned(), Folder { state, found: Arc::clone(&found) as Arc<dyn Any + Send + Sync> })
            }
            None => kept.remove(path),
        };
        Ok(found)
    }

    /// The client of before, while the daemon's socket is the same; else a new one.
    pub(super) fn same_docker(
        &self,
        socket: Identity,
        connect: impl FnOnce() -> Result<Docker, Failure>,
    ) -> Result<Docker, Failure> {
        let mut kept = self.host.0.docker.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, docker)) = kept.as_ref().filter(|(identity, _)| *identity == socket) {
            return Ok(docker.clone());
        }
        let docker = connect()?;
        *kept = Some((socket, docker.clone()));
        Ok(docker)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn while_there_are_hands_nothing_unheard_is_kept() {
        let view = HostView::default();
        let before = view.0.moment().unwrap();
        assert!(view.0.recent(before));
        let hands = Changing::of(&view);
        assert!(view.0.moment().is_none() && !view.0.recent(before));
        let more = Changing::of(&view);
        drop(hands);
        assert!(view.0.moment().is_none(), "there are others");
        drop(more);
        // What was looked at before there were hands is not looked at since.
        assert!(!view.0.recent(before));
        let after = view.0.moment().unwrap();
        assert!(view.0.recent(after));
        assert!(!view.0.recent(Moment { at: after.at.checked_sub(UNHEARD).unwrap(), ..after }));
    }

    #[test]
    fn a_folder_that_changed_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let (path, mut reads) = (folder.path(), 0);
        let probe = Probe::new(Arc::new(crate::system::NoBlobs), Arc::new(|_: &str, _| {}), path.to_owned());
        let put = |text: &str| {
            std::fs::write(path.join(".new"), text).unwrap();
            std::fs::rename(path.join(".new"), path.join("one")).unwrap();
        };
        let mut read = |pause: Duration| {
            std::thread::sleep(pause);
            let read = || {
                reads += 1;
                Ok(std::fs::read_to_string(path.join("one")).unwrap())
            };
            let text = probe.of_folder(path, read).unwrap();
            (String::clone(&text), reads)
        };
        put("a");
        assert_eq!(read(Duration::ZERO).0, "a");
        // It may have changed within the same tick of the clock.
        put("b");
        assert_eq!(read(Duration::ZERO).0, "b");
        let (text, count) = read(TICKS * 2);
        assert_eq!(text, "b");
        assert_eq!(read(Duration::ZERO), ("b".to_owned(), count), "it is kept");
        put("c");
        assert_eq!(read(Duration::ZERO).0, "c");
        std::fs::remove_dir_all(path).unwrap();
        let gone = probe.of_folder(path, || Ok("nothing".to_owned())).unwrap();
        assert_eq!(*gone, "nothing");
    }
}
