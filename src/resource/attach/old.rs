//! What an earlier network of the same container has left on this host.
//!
//! A container that ends, or is made anew, leaves its network namespace behind for as long as something keeps it: a process in it, an open
//! descriptor, a copy of the host's mounts in another container (`-v /:/rootfs`). Until then its interface answers for the
//! address, and the kernel refuses a second macvlan with that MAC. Such an interface is this attachment's own (its mark, its MAC, this
//! card), so it is removed where it is. A namespace that only waits for the kernel to clean up cannot be reached, and is waited for.

use std::time::Duration;

use super::look::View;
use super::segment::Segment;
use super::{Attach, Wanted};
use crate::failure::Failure;
use crate::resource::interfaces;
use crate::system::holders::Holder;
use crate::system::netlink::{Elsewhere, Link, Mac, NetlinkHands};
use crate::system::{Actuator, Probe};

/// How long the kernel may take for an old network that nothing keeps (limit `old network`). Usually that is 20 ms; many that are
/// removed at the same time are worked off in batches, and the last of them is gone when all are.
const OLD_NETWORK: Duration = Duration::from_secs(30);
/// The same for an address that this host does not remember (limit `old copy`).
const OLD_COPY: Duration = Duration::from_secs(2);
/// How long it is waited for before every process is asked whether it keeps the network: most are gone by then.
const SHORTLY: Duration = Duration::from_millis(100);

/// An interface of this attachment in an earlier network of its container.
#[derive(Clone, Debug)]
pub(super) struct Old {
    there: Elsewhere,
    /// What keeps that network; empty where that could not be found out.
    keepers: Vec<Holder>,
}

impl Old {
    /// What keeps the network, in words.
    pub(super) fn describe(&self) -> String {
        if self.keepers.is_empty() {
            return "kept by a process that is not known".to_owned();
        }
        self.keepers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    }
}

/// Whose a link with this attachment's MAC address is.
enum Whose {
    /// Of a container that runs here, or of the host itself.
    Others,
    /// Of an earlier network of the container.
    Old(Elsewhere),
    /// Of a network that cannot be looked into: it is going away, or has no number.
    Unknown,
}

impl Attach {
    /// An interface of this attachment in an earlier network of its container, where something keeps that. The container itself, when
    /// it runs, has been looked into.
    pub(super) async fn look_for_old(&self, view: &View, probe: &Probe) -> Result<Option<Old>, Failure> {
        let (Segment::Card, Some(parent), Some(mac)) = (self.segment(), &view.parent, self.old_mac()) else {
            return Ok(None);
        };
        if has(&view.links, mac) {
            return Ok(None);
        }
        let host = probe.netlink(None)?;
        let taken = host.takes_frames(parent.index, mac).await;
        host.close().await;
        if !taken? {
            return Ok(None);
        }
        let Whose::Old(there) = self.whose(mac, view, probe).await? else { return Ok(None) };
        let keepers = Box::pin(probe.keepers(there.number)).await?;
        Ok(Some(Old { there, keepers }))
    }

    /// The MAC address of its interface, whether that should be there or not.
    fn old_mac(&self) -> Option<Mac> {
        let alone = self.by_docker() || self.takes_card();
        self.wanted().ok().filter(|_| !alone).map(|wanted| wanted.mac)
    }

    async fn whose(&self, mac: Mac, view: &View, probe: &Probe) -> Result<Whose, Failure> {
        let Some(parent) = &view.parent else { return Ok(Whose::Unknown) };
        if has(&view.host.links, mac) {
            return Ok(Whose::Others);
        }
        let host = probe.netlink(None)?;
        let elsewhere = host.links_elsewhere(parent.index).await;
        host.close().await;
        let there = elsewhere?.into_iter().find(|there| there.link.mac == Some(mac.0));
        if there.as_ref().is_some_and(|there| !there.link.alias.starts_with(&self.owner())) {
            return Ok(Whose::Others);
        }
        // A container that was given another name runs on with it.
        let here = Box::pin(interfaces::look(probe, |_| true)).await?;
        if here.with_mac(mac).next().is_some() {
            return Ok(Whose::Others);
        }
        Ok(there.map_or(Whose::Unknown, Whose::Old))
    }

    /// Frees the address from what an earlier network of the container has left, before it is asked for and used.
    pub(super) async fn clear_old(&self, wanted: &Wanted, view: &View, hands: &Actuator) -> Result<(), Failure> {
        let host = hands.netlink_hands(None)?;
        let done = match self.segment() {
            Segment::Card if self.takes_card() => Ok(()),
            Segment::Card => self.clear_old_link(wanted, view, &host, hands).await,
            Segment::Bridge | Segment::Tunnel => self.clear_old_port(view, &host).await,
        };
        host.close().await;
        done
    }

    async fn clear_old_link(
        &self,
        wanted: &Wanted,
        view: &View,
        host: &NetlinkHands,
        hands: &Actuator,
    ) -> Result<(), Failure> {
        let (Some(parent), mac) = (&view.parent, wanted.mac) else { return Ok(()) };
        if has(&view.links, mac) {
            return Ok(());
        }
        self.remove_old(view, host, hands).await?;
        if host.until_untaken(parent.index, mac, Duration::ZERO).await? {
            return Ok(());
        }
        for numbered in [false, true] {
            if numbered {
                // What keeps it may be of a time when networks got no numbers.
                hands.number_networks(host).await?;
            }
            match self.whose(mac, view, hands).await? {
                // That is told by those who ask the network.
                Whose::Others => return Ok(()),
                Whose::Old(there) => {
                    let keepers = Box::pin(hands.keepers(there.number)).await?;
                    self.remove_one(&Old { there, keepers }, host, hands).await?;
                }
                Whose::Unknown => {}
            }
            if host.until_untaken(parent.index, mac, SHORTLY).await? {
                return Ok(());
            }
        }
        hands.progress(&format!("waiting for the kernel to take an old network of {} away", self.container), None);
        let (name, limit) = if self.was_ours(view) { ("old network", OLD_NETWORK) } else { ("old copy", OLD_COPY) };
        if host.until_untaken(parent.index, mac, limit).await? {
            return Ok(());
        }
        Err(Failure::new(format!("an old network of container {} is still there", self.container))
            .because(format!(
                "an interface with {mac} is up on {}, in a network of this host that nothing seems to keep",
                self.card()
            ))
            .because(Failure::timeout(name, limit))
            .hint("run again when the kernel has removed it; the kernel's log says when it cannot (`dmesg`)"))
    }

    /// Removes the interface that was seen in an earlier network, and tells what keeps that.
    pub(super) async fn remove_old(&self, view: &View, host: &NetlinkHands, hands: &Actuator) -> Result<(), Failure> {
        match &view.old {
            Some(old) => self.remove_one(old, host, hands).await,
            None => Ok(()),
        }
    }

    async fn remove_one(&self, old: &Old, host: &NetlinkHands, hands: &Actuator) -> Result<(), Failure> {
        host.delete_elsewhere(&old.there).await?;
        let (container, kept) = (&self.container, old.describe());
        hands.progress(&format!("took the interface out of an old network of {container}: {kept}"), None);
        Ok(())
    }

    /// The host's end of a veth pair whose other end is in no network that the container has now: that end goes with it.
    async fn clear_old_port(&self, view: &View, host: &NetlinkHands) -> Result<(), Failure> {
        let name = self.peer_name();
        let Some(port) = view.host.links.iter().find(|link| link.name == name && link.kind == "veth") else {
            return Ok(());
        };
        let used = |link: &Link| link.parent_elsewhere && link.parent == Some(port.index);
        if view.links.iter().any(used) { Ok(()) } else { host.delete_link(port.index).await }
    }
}

fn has(links: &[Link], mac: Mac) -> bool {
    links.iter().any(|link| link.mac == Some(mac.0))
}
