//! A bridge with the host's network card as a port.
//!
//! The card's addresses and routes belong to the bridge then. They move in one system call (see `system/netlink/shift.rs`), so
//! whoever is killed leaves the host reachable: before it, the card is as it was; after it, all is done.

use super::wrong_mtu;
use crate::failure::Failure;
use crate::resource::attach::Attach;
use crate::resource::attach::look::View;
use crate::resource::attach::shim;
use crate::system::Actuator;
use crate::system::netlink::{Link, Mac, NetlinkHands};

impl Attach {
    /// What is wrong with the bridge.
    pub(super) fn wrong_bridge(&self, view: &View) -> Option<String> {
        if self.parent_is_bridge(view) {
            return None;
        }
        let name = self.bridge_name();
        let Some(bridge) = &view.base else { return Some(format!("there is no bridge {name}")) };
        let port = view.parent.as_ref().and_then(|parent| parent.controller);
        let moved = view.card_addresses.is_empty();
        match () {
            () if bridge.kind != "bridge" => Some(format!("{name} is no bridge")),
            () if !bridge.up => Some(format!("{name} is down")),
            () if view.parent.as_ref().is_some_and(|parent| wrong_mtu(bridge, parent.mtu, view)) => {
                Some(format!("{name} has an MTU of {}", bridge.mtu))
            }
            () if port != Some(bridge.index) => Some(format!("{} is not a port of {name}", self.card())),
            () if !moved => Some(format!("{} has addresses of its own", self.card())),
            () => None,
        }
    }

    /// What stands in the way of a bridge, before anything is touched.
    pub(in crate::resource::attach) fn refuse_bridge(&self, view: &View, parent: &Link) -> Result<(), Failure> {
        if self.parent_is_bridge(view) {
            return Ok(());
        }
        let (card, name) = (self.card(), self.bridge_name());
        if let Some(bridge) = &view.base {
            if !self.is_our_bridge(bridge) && !bridge.alias.is_empty() || bridge.kind != "bridge" {
                return Err(Failure::new(format!("the host has a link {name} that fanli did not make"))
                    .hint(format!("to use a bridge as it is, name it as the parent: `parent = \"{name}\"`")));
            }
            if parent.controller == Some(bridge.index) {
                return Ok(());
            }
        }
        // The shim goes before the bridge comes.
        let child = |link: &&Link| {
            link.parent == Some(parent.index) && link.kind.starts_with("macv") && !shim::marked(link, &card)
        };
        if let Some(child) = view.host.links.iter().find(child) {
            return Err(Failure::new(format!("{card} carries the {} {}", child.kind, child.name))
                .hint("a network card is either in a bridge or below macvlans: use one mode per card"));
        }
        self.refuse_immovable(view, parent)
    }

    /// Refuses to move addresses that only the distribution can move.
    fn refuse_immovable(&self, view: &View, parent: &Link) -> Result<(), Failure> {
        let Some(why) = view.immovable.as_ref().filter(|_| !self.parent_is_bridge(view)) else { return Ok(()) };
        let (card, name) = (&parent.name, self.bridge_name());
        Err(Failure::new(format!("cannot move the address of {card} to a bridge: {why}")).hint(format!(
            "make the bridge in the distribution's own network configuration, and name it: `parent = \"{name}\"`"
        )))
    }

    pub(super) async fn ensure_bridge(
        &self,
        view: &View,
        parent: &Link,
        host: &NetlinkHands,
        hands: &Actuator,
    ) -> Result<Link, Failure> {
        let name = self.bridge_name();
        let failed = |failure: Failure| failure.within(format!("cannot put {} into bridge {name}", parent.name));
        // The card's own MAC: neighbours, DHCP and a switch's port security see no other machine.
        let mac = || parent.mac.map(Mac).ok_or_else(|| Failure::new(format!("{} has no MAC address", parent.name)));
        let bridge = self.own_bridge(view, host, mac, parent.mtu).await.map_err(failed)?;
        if !bridge.up {
            host.set_up(bridge.index, None).await.map_err(failed)?;
        }
        // Before the card is in it: what it carries must not be dropped for a moment.
        hands.open_bridge(&name).await?;
        if parent.controller != Some(bridge.index)
            && let Err(failure) = host.try_controller(parent.index, bridge.index).await
        {
            if view.base.is_none() {
                hands.close_bridge(&name).await?;
                host.delete_link(bridge.index).await?;
            }
            return Err(failed(failure).hint("a card below macvlans cannot be in a bridge: use one mode per card"));
        }
        if parent.controller != Some(bridge.index) || !view.card_addresses.is_empty() {
            host.shift_host(parent.index, bridge.index, parent.index, bridge.index).await.map_err(failed)?;
        }
        Ok(bridge)
    }

    /// The card goes out of the bridge and has its addresses back.
    pub(super) async fn release_card(&self, bridge: &Link, links: &[Link], host: &NetlinkHands) -> Result<(), Failure> {
        let card = links.iter().find(|link| link.name == self.card() && link.controller == Some(bridge.index));
        match card {
            Some(card) => host.shift_host(bridge.index, card.index, card.index, 0).await,
            None => Ok(()),
        }
    }
}
