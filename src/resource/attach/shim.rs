//! The host's way to its own containers.
//!
//! The kernel passes nothing between a network card and the macvlans on it. So the host has one macvlan of its own per card, the
//! shim: without an address, and with one route per local container that goes over it with the host's own address as
//! sender. `arp_filter` keeps it from answering for the host's address to anybody but those containers, so on the wire that
//! address has one MAC.

use std::net::IpAddr;

use ipnet::Ipv4Net;

use super::Attach;
use super::look::View;
use super::record::records;
use super::segment::{Base, Segment};
use crate::failure::Failure;
use crate::system::Actuator;
use crate::system::netlink::{Link, Mac, MacVlan, NetlinkHands, Route};
use crate::value::Digest;

/// The shim's name on the host: `fn-eth0`; with a hash where that is longer than the kernel's 15.
pub(super) fn name(parent: &str) -> String {
    let name = format!("fn-{parent}");
    if name.len() <= 15 {
        return name;
    }
    format!("fn-{}", Digest::of(parent.as_bytes()).short())
}

fn alias(parent: &str) -> String {
    format!("fanli:1:shim:{parent}")
}

/// Whether the link is one that fanli made for this, or had just begun to make.
fn ours(link: &Link, attach: &Attach) -> bool {
    link.kind == "macvlan" && (link.alias.is_empty() || link.alias == alias(&attach.card()))
}

/// Whether the link is the shim of that card.
pub(super) fn marked(link: &Link, card: &str) -> bool {
    link.kind == "macvlan" && link.alias == alias(card)
}

fn right_link(link: &Link, view: &View) -> bool {
    let parent = view.parent.as_ref().map(|parent| parent.index);
    link.kind == "macvlan" && link.mode == "bridge" && link.parent == parent && !link.parent_elsewhere
}

/// The shim's name when it is as it should be, else what is wrong with it.
pub(super) fn describe(link: &Link, view: &View) -> String {
    let mtu = view.parent.as_ref().filter(|parent| parent.mtu != link.mtu).map(|_| format!("MTU {}", link.mtu));
    let wrong = if !right_link(link, view) {
        "not a macvlan on this card"
    } else if let Some(mtu) = &mtu {
        mtu
    } else if !link.alias.starts_with("fanli:1:shim:") {
        "not marked"
    } else if !view.shim_filters {
        "arp_filter off"
    } else if link.up {
        return link.name.clone();
    } else {
        "down"
    };
    format!("{} ({wrong})", link.name)
}

impl Attach {
    /// Makes the host's way to this container: the shim where there is one, and a route; drops routes to containers that are gone.
    pub(super) async fn ensure_way(
        &self,
        base: &Base,
        view: &View,
        host: &NetlinkHands,
        hands: &Actuator,
    ) -> Result<(), Failure> {
        for stale in &view.stale {
            host.remove_route(stale).await?;
        }
        if let Some(record) = view.record.as_ref().filter(|record| record.parent != self.card()) {
            // It stood on another card until now.
            let link = view.host.links.iter().find(|link| link.name == name(&record.parent));
            let others = records(hands)?;
            let own = self.record_name();
            let free =
                !others.of_address(record.address).any(|(name, other)| *name != own && other.parent == record.parent);
            let v4 = if let IpAddr::V4(address) = record.address { Some(address).filter(|_| free) } else { None };
            for (link, address) in link.map(|link| link.index).into_iter().zip(v4) {
                host.remove_route(&Route { to: Ipv4Net::from(address), via: None, link, source: None }).await?;
            }
        }
        let own = |route: &&Route| Some(IpAddr::V4(route.to.addr())) == self.address;
        let old = view.shim_routes.iter().find(own);
        if !self.host_reaches() {
            if let Some(old) = old {
                host.remove_route(old).await?;
            }
            return Ok(());
        }
        let name = self.way();
        let failed = |failure: Failure| failure.within(format!("cannot make the host's way {name} to its containers"));
        let index = match self.segment() {
            Segment::Card => self.ensure_shim_link(&name, view, host, hands).await.map_err(failed)?,
            Segment::Bridge | Segment::Tunnel => base.link.index,
        };
        let source = view.source.ok_or_else(|| {
            Failure::new(format!("the host has no IPv4 address on {} to speak to its containers from", self.card()))
                .hint("give it one, or declare `shim = false`")
        })?;
        let Some(IpAddr::V4(address)) = self.address else { return Ok(()) };
        let route = Route { to: Ipv4Net::from(address), via: None, link: index, source: Some(source) };
        if old != Some(&route) {
            host.set_route(&route).await.map_err(failed)?;
        }
        Ok(())
    }

    pub(super) async fn ensure_shim_link(
        &self,
        name: &str,
        view: &View,
        host: &NetlinkHands,
        hands: &Actuator,
    ) -> Result<u32, Failure> {
        let parent = view.parent.as_ref().ok_or_else(|| Failure::new("the parent went away"))?;
        let mut link = view.shim.clone();
        if let Some(found) = link.take_if(|link| !right_link(link, view)) {
            if !ours(&found, self) {
                return Err(Failure::new(format!("the host has a link {name} that fanli did not make"))
                    .hint("remove it, or declare `shim = false`"));
            }
            host.delete_link(found.index).await?;
        }
        let link = match link {
            Some(link) => link,
            None => {
                host.add_macvlan(&MacVlan { name, parent: parent.index, mac: None, mtu: None, inside: None }).await?;
                host.link(name).await?.ok_or_else(|| Failure::new("it went away again"))?
            }
        };
        if link.alias != alias(&self.card()) {
            host.set_alias(link.index, &alias(&self.card())).await?;
        }
        // It follows the card downward by itself, and not upward.
        if link.mtu != parent.mtu {
            host.set_mtu(link.index, parent.mtu).await?;
        }
        if !view.shim_filters || !link.up || view.shim.is_none() {
            // No address of its own, of either family.
            hands.interface_switches(None, name, &[("ipv4/arp_filter", "1"), ("ipv6/disable_ipv6", "1")])?;
            host.set_up(link.index, None).await?;
        }
        Ok(link.index)
    }

    /// Drops this container's route, and the shim with the last of them.
    pub(super) async fn leave_way(&self, view: &View, host: &NetlinkHands, hands: &Actuator) -> Result<(), Failure> {
        let Some(shim) = &view.shim else { return Ok(()) };
        let own = |route: &&Route| Some(IpAddr::V4(route.to.addr())) == self.address && !view.given_away;
        for route in view.shim_routes.iter().filter(own).chain(&view.stale) {
            host.remove_route(route).await?;
        }
        let others = view.shim_routes.iter().filter(|route| !own(route) && !view.stale.contains(route)).count();
        if others == 0 && self.segment() == Segment::Card && ours(shim, self) {
            host.delete_link(shim.index).await?;
            announce_card(view, hands);
        }
        Ok(())
    }
}

/// Tells the neighbours that the host's own addresses are at its card. To find a container's MAC the kernel asks over the shim, with the
/// host's address as sender, and whoever knew that address takes the shim's MAC for it (`arp_process` in the kernel's net/ipv4/arp.c):
/// without a word the host would be out of reach until they ask again, some 20 s later.
fn announce_card(view: &View, hands: &Actuator) {
    let card = view.parent.as_ref().and_then(|card| Some((card.index, Mac(card.mac?))));
    let addresses: Vec<IpAddr> = view.card_addresses.iter().map(|net| net.addr().into()).collect();
    if let (Some((index, mac)), false) = (card, addresses.is_empty())
        && let Err(failure) = hands.announce(None, index, mac, &addresses)
    {
        hands.progress(&failure.to_string(), None);
    }
}
