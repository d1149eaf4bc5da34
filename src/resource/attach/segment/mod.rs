//! The host's side: what the ports of containers stand on.
//!
//! Ports of macvlan stand on the network card itself; veth ports on a bridge, which has the card as a port (`bridge`) or a tunnel to
//! the other hosts (`vxlan`). A segment is made with its first container and goes with its last.

mod bridge;
mod tunnel;
mod vlan;

pub(super) use self::tunnel::told;
use super::look::View;
use super::{Attach, IN_PLACE, Mode, Variant, shim};
use crate::failure::Failure;
use crate::system::Actuator;
use crate::system::firewall::Passage;
use crate::system::netlink::{Link, Mac, NetlinkHands};
use crate::value::Digest;

/// What ports stand on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Segment {
    /// The network card itself.
    Card,
    /// A bridge with the card as a port.
    Bridge,
    /// A bridge with a tunnel as a port.
    Tunnel,
}

/// The link that ports are made on.
#[derive(Clone, Debug)]
pub(super) struct Base {
    pub(super) link: Link,
    /// The largest packet that gets through, in bytes.
    pub(super) mtu: u32,
}

/// A link's name from a prefix and a name of any length: with a hash where that is longer than the kernel's 15.
fn fitting(prefix: &str, name: &str) -> String {
    let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
    let joined = format!("{prefix}{name}");
    if plain && joined.len() <= 15 {
        return joined;
    }
    format!("{prefix}{}", Digest::of(name.as_bytes()).short().chars().take(8).collect::<String>())
}

/// Whether a bridge has another MTU than it should. The least one of its ports it takes by itself: what is wrong is that port's then.
fn wrong_mtu(bridge: &Link, mtu: u32, view: &View) -> bool {
    let of_port = |link: &Link| link.controller == Some(bridge.index) && link.mtu == bridge.mtu;
    bridge.mtu != mtu && !view.host.links.iter().any(of_port)
}

impl Attach {
    /// What its port stands on.
    pub(super) fn segment(&self) -> Segment {
        match self.mode {
            // Of the last three Docker is the host's side.
            Mode::Macvlan | Mode::Macvtap | Mode::Nat | Mode::Host | Mode::Docker => Segment::Card,
            Mode::Bridge => Segment::Bridge,
            Mode::Vxlan => Segment::Tunnel,
        }
    }

    /// The host's network card, or the VLAN on it.
    pub(super) fn card(&self) -> String {
        let parent = self.parent.clone().unwrap_or_default();
        self.vlan.map_or(parent.clone(), |vlan| format!("{parent}.{vlan}"))
    }

    /// The bridge that veth ports are in, unless the declared parent is one itself.
    pub(super) fn bridge_name(&self) -> String {
        match (self.segment(), &self.bridge) {
            (Segment::Bridge, Some(name)) => name.clone(),
            (Segment::Tunnel, _) => fitting("fb-", &self.network),
            _ => fitting("br-", &self.card()),
        }
    }

    /// The tunnel in that bridge.
    pub(super) fn tunnel_name(&self) -> String {
        fitting("fx-", &self.network)
    }

    /// The host's own link to its containers.
    pub(super) fn way(&self) -> String {
        if self.segment() == Segment::Card { shim::name(&self.card()) } else { self.bridge_name() }
    }

    /// Whether the host reaches the container: between macvlans of another variant than `bridge` nothing passes.
    pub(super) fn host_reaches(&self) -> bool {
        self.shim && (self.segment() != Segment::Card || self.variant == Variant::Bridge)
    }

    /// Whether the declared parent is a bridge: then it is the segment, and whoever made it keeps it.
    pub(super) fn parent_is_bridge(&self, view: &View) -> bool {
        self.segment() == Segment::Bridge && view.parent.as_ref().is_some_and(|parent| parent.kind == "bridge")
    }

    /// The largest packet of the segment, in bytes, as far as its parent is there.
    pub(super) fn segment_mtu(&self, view: &View) -> Option<u32> {
        let parent = view.parent.as_ref()?;
        Some(if self.segment() == Segment::Tunnel { parent.mtu.saturating_sub(tunnel::OVERHEAD) } else { parent.mtu })
    }

    /// In place, or what is wrong with the segment.
    pub(super) fn describe_segment(&self, view: &View) -> String {
        let wrong = match self.segment() {
            Segment::Card => None,
            Segment::Bridge => self.wrong_bridge(view),
            Segment::Tunnel => self.wrong_tunnel(view),
        };
        let closed = || (view.passage == Passage::Closed).then(|| "the firewall drops what passes it".to_owned());
        wrong.or_else(closed).unwrap_or_else(|| IN_PLACE.to_owned())
    }

    /// Makes what ports stand on, and mends it.
    pub(super) async fn ensure_segment(
        &self,
        view: &View,
        host: &NetlinkHands,
        hands: &Actuator,
    ) -> Result<Base, Failure> {
        let parent = view.parent.clone().ok_or_else(|| Failure::new("the parent went away"))?;
        let mtu = self.segment_mtu(view).unwrap_or(parent.mtu);
        let link = match self.segment() {
            Segment::Card => parent,
            Segment::Bridge if self.parent_is_bridge(view) => {
                hands.open_bridge(&parent.name).await?;
                parent
            }
            Segment::Bridge => self.ensure_bridge(view, &parent, host, hands).await?,
            Segment::Tunnel => self.ensure_tunnel(view, &parent, host, hands).await?,
        };
        Ok(Base { link, mtu })
    }

    /// Takes the segment away when no container is on it any more.
    pub(super) async fn leave_segment(
        &self,
        view: &View,
        host: &NetlinkHands,
        hands: &Actuator,
    ) -> Result<(), Failure> {
        if self.segment() == Segment::Card {
            return self.leave_vlan(view, host, hands).await;
        }
        // As it is now: the container's port went a moment ago.
        let links = host.links().await?;
        if let Some(parent) = view.parent.as_ref().filter(|_| self.parent_is_bridge(view)) {
            let ours = |link: &Link| link.controller == Some(parent.index) && link.alias.starts_with("fanli:1:");
            return if links.iter().any(ours) { Ok(()) } else { hands.close_bridge(&parent.name).await };
        }
        let own = |link: &&Link| link.name == self.bridge_name() && link.kind == "bridge" && self.is_our_bridge(link);
        let Some(bridge) = links.iter().find(own) else { return Ok(()) };
        let (card, tunnel) = (self.card(), self.tunnel_name());
        let used = |link: &Link| link.controller == Some(bridge.index) && link.name != card && link.name != tunnel;
        if links.iter().any(used) {
            return Ok(());
        }
        if self.segment() == Segment::Bridge {
            self.release_card(bridge, &links, host).await?;
        } else if let Some(tunnel) = links.iter().find(|link| link.name == tunnel && link.kind == "vxlan") {
            host.delete_link(tunnel.index).await?;
        }
        hands.close_bridge(&bridge.name).await?;
        host.delete_link(bridge.index).await?;
        self.leave_vlan(view, host, hands).await
    }

    /// The bridge of this segment, made where it is not there, and marked.
    async fn own_bridge(
        &self,
        view: &View,
        host: &NetlinkHands,
        mac: impl FnOnce() -> Result<Mac, Failure>,
        mtu: u32,
    ) -> Result<Link, Failure> {
        let name = self.bridge_name();
        let bridge = match &view.base {
            Some(bridge) => bridge.clone(),
            None => {
                host.add_bridge(&name, mac()?, mtu).await?;
                host.link(&name).await?.ok_or_else(|| Failure::new(format!("link {name} went away again")))?
            }
        };
        if !self.is_our_bridge(&bridge) {
            host.set_alias(bridge.index, &self.bridge_alias()).await?;
        }
        if bridge.mtu != mtu {
            host.set_mtu(bridge.index, mtu).await?;
        }
        Ok(bridge)
    }

    /// What a bridge of this segment is marked with.
    fn bridge_alias(&self) -> String {
        format!("fanli:1:bridge:{}", if self.segment() == Segment::Tunnel { &self.network } else { self.parent_word() })
    }

    fn parent_word(&self) -> &str {
        self.parent.as_deref().unwrap_or_default()
    }

    /// Whether a bridge was made for this segment.
    fn is_our_bridge(&self, link: &Link) -> bool {
        link.alias == self.bridge_alias()
    }
}
