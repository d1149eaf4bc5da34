//! A bridge with a VXLAN tunnel as a port: one network over many hosts, whatever lies between them.
//!
//! The tunnel learns nothing: which host is where, and which node is on it, stands in the playbook, and so in its table.

use super::wrong_mtu;
use crate::failure::Failure;
use crate::resource::attach::Attach;
use crate::resource::attach::look::View;
use crate::system::Actuator;
use crate::system::netlink::{Forward, Link, Mac, NetlinkHands, Vxlan};
use crate::value::Digest;

/// What a tunnel adds to each packet, in bytes: Ethernet, VXLAN, UDP and IPv4 (RFC 7348, section 5).
pub(super) const OVERHEAD: u32 = 50;

/// Entries of the table as people read them.
pub(in crate::resource::attach) fn told(entries: &[Forward]) -> Vec<String> {
    let one = |entry: &Forward| match entry.mac {
        Some(mac) => format!("{} on {}", Mac(mac), entry.to),
        None => entry.to.to_string(),
    };
    entries.iter().map(one).collect()
}

impl Attach {
    fn tunnel(&self, view: &View) -> Option<Vxlan> {
        let (vni, port) = self.tunnel_numbers().ok()?;
        Some(Vxlan { vni, port, local: view.underlay? })
    }

    /// What is wrong with the tunnel and its bridge.
    pub(super) fn wrong_tunnel(&self, view: &View) -> Option<String> {
        let (name, bridge_name) = (self.tunnel_name(), self.bridge_name());
        let Some(bridge) = &view.base else { return Some(format!("there is no bridge {bridge_name}")) };
        let Some(tunnel) = &view.tunnel else { return Some(format!("there is no tunnel {name}")) };
        let wanted = self.tunnel(view).map(|wanted| wanted.to_string());
        let mtu = self.segment_mtu(view);
        match () {
            () if bridge.kind != "bridge" => Some(format!("{bridge_name} is no bridge")),
            () if !bridge.up => Some(format!("{bridge_name} is down")),
            () if mtu.is_some_and(|mtu| wrong_mtu(bridge, mtu, view)) => {
                Some(format!("{bridge_name} has an MTU of {}", bridge.mtu))
            }
            () if tunnel.kind != "vxlan" => Some(format!("{name} is no tunnel")),
            () if Some(&tunnel.mode) != wanted.as_ref() => Some(format!("{name} has {}", tunnel.mode)),
            () if tunnel.controller != Some(bridge.index) => Some(format!("{name} is not a port of {bridge_name}")),
            () if !tunnel.up => Some(format!("{name} is down")),
            () if Some(tunnel.mtu) != mtu => Some(format!("{name} has an MTU of {}", tunnel.mtu)),
            () => None,
        }
    }

    /// What stands in the way of a tunnel, before anything is touched.
    pub(in crate::resource::attach) fn refuse_tunnel(&self, view: &View) -> Result<(), Failure> {
        for link in [&view.base, &view.tunnel].into_iter().flatten() {
            let half_made = link.alias.is_empty() && (link.kind == "bridge" || link.kind == "vxlan");
            if !link.alias.starts_with("fanli:1:bridge:") && !half_made {
                return Err(Failure::new(format!("the host has a link {} that fanli did not make", link.name))
                    .hint("give the network another name"));
            }
        }
        match view.underlay {
            None => Err(Failure::new(format!("{} has no IPv4 address for the tunnel to the other hosts", self.card()))
                .hint("name the network card by which the hosts reach each other as `parent`")),
            Some(own) if self.peers.contains_key(&own.to_string()) => {
                Err(Failure::new(format!("{own} is the host's own address, and stands in `peers`"))
                    .hint("`peers` names the other hosts"))
            }
            Some(_) => Ok(()),
        }
    }

    pub(super) async fn ensure_tunnel(
        &self,
        view: &View,
        parent: &Link,
        host: &NetlinkHands,
        hands: &Actuator,
    ) -> Result<Link, Failure> {
        let (name, bridge_name) = (self.tunnel_name(), self.bridge_name());
        let failed = |failure: Failure| failure.within(format!("cannot make the tunnel of network {}", self.network));
        let mtu = parent.mtu.saturating_sub(OVERHEAD);
        let again = |name: &str| Failure::new(format!("link {name} went away again"));
        let mac = || {
            let own = format!("{}\0{}", self.network, view.underlay.map_or_else(String::new, |own| own.to_string()));
            let [_, rest @ ..] = Digest::of(own.as_bytes()).0;
            let mut mac = [0x06; 6];
            mac.iter_mut().skip(1).zip(rest).for_each(|(place, byte)| *place = byte);
            Ok(Mac(mac))
        };
        let bridge = self.own_bridge(view, host, mac, mtu).await.map_err(failed)?;
        if view.base.is_none() {
            // It carries containers' frames; the host speaks IPv4 over it alone.
            hands.interface_switches(None, &bridge_name, &[("ipv6/disable_ipv6", "1")])?;
        }
        hands.open_bridge(&bridge_name).await?;
        let wanted = self.tunnel(view).ok_or_else(|| Failure::new("the host has no address for the tunnel"))?;
        let right = |link: &&Link| link.kind == "vxlan" && link.mode == wanted.to_string() && link.mtu == mtu;
        let tunnel = match view.tunnel.as_ref().filter(right) {
            Some(tunnel) => tunnel.clone(),
            None => {
                if let Some(old) = &view.tunnel {
                    host.delete_link(old.index).await.map_err(failed)?;
                }
                host.add_vxlan(&name, &wanted, parent.index, mtu).await.map_err(failed)?;
                host.link(&name).await?.ok_or_else(|| again(&name))?
            }
        };
        if !self.is_our_bridge(&tunnel) {
            host.set_alias(tunnel.index, &self.bridge_alias()).await.map_err(failed)?;
        }
        let forwards =
            self.forwards().map_err(|error| Failure::new(format!("`{}`: {}", error.field, error.message)))?;
        let there = host.forwards(tunnel.index).await?;
        for entry in forwards.iter().filter(|entry| !there.contains(entry)) {
            host.add_forward(tunnel.index, entry).await.map_err(failed)?;
        }
        // A node that moved has two entries for a moment, and its new one counts; then the old one goes.
        for entry in there.iter().filter(|entry| !forwards.contains(entry)) {
            let replaced = entry.mac.is_some() && forwards.iter().any(|other| other.mac == entry.mac);
            if !replaced {
                host.remove_forward(tunnel.index, entry).await.map_err(failed)?;
            }
        }
        if tunnel.controller != Some(bridge.index) {
            host.set_controller(tunnel.index, bridge.index).await.map_err(failed)?;
        }
        if !tunnel.up {
            host.set_up(tunnel.index, None).await.map_err(failed)?;
        }
        if !bridge.up {
            host.set_up(bridge.index, None).await.map_err(failed)?;
        }
        Ok(bridge)
    }
}
