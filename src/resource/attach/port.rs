//! The link in the container: a macvlan on the network card, or one end of a veth pair whose other end is a port of a bridge.

use super::look::View;
use super::plug::Sockets;
use super::segment::{Base, Segment};
use super::{Attach, IN_PLACE, Mode, Variant, Wanted};
use crate::failure::Failure;
use crate::system::netlink::{self, Link, Mac, MacVlan, Veth};
use crate::value::Digest;

impl Variant {
    fn kernels(self) -> netlink::Variant {
        match self {
            Self::Bridge => netlink::Variant::Bridge,
            Self::Private => netlink::Variant::Private,
            Self::Vepa => netlink::Variant::Vepa,
            Self::Passthru => netlink::Variant::Passthru,
        }
    }
}

/// In place, or what is wrong with the host's end of a veth pair.
pub(super) fn describe(link: &Link, view: &View) -> String {
    let peer = view.host.links.iter().find(|peer| link.parent_elsewhere && link.parent == Some(peer.index));
    let text = match peer {
        None => "without a port on the host",
        Some(peer) if !peer.up => "its port on the host is down",
        Some(peer) if peer.mtu != link.mtu => "its port on the host has another MTU",
        Some(_) => IN_PLACE,
    };
    text.to_owned()
}

impl Attach {
    /// Kind and mode of the link, in the kernel's words.
    pub(super) fn link_word(&self) -> String {
        use crate::resource::Param as _;
        match self.segment() {
            Segment::Card if self.mode == Mode::Macvtap => "macvtap bridge".to_owned(),
            Segment::Card => format!("macvlan {}", self.variant.show()),
            Segment::Bridge | Segment::Tunnel => "veth".to_owned(),
        }
    }

    /// The host's end of a veth pair.
    pub(super) fn peer_name(&self) -> String {
        let digest = Digest::of(self.owner().as_bytes()).short();
        format!("fp{}", digest.chars().take(8).collect::<String>())
    }

    /// A macvlan that takes the whole card has its MAC address too.
    pub(super) fn takes_card(&self) -> bool {
        self.segment() == Segment::Card && self.variant == Variant::Passthru
    }

    /// Where the container's link stands: the declared parent, or what it is instead.
    pub(super) fn stands_on<'a>(&'a self, link: &Link, view: &'a View) -> &'a str {
        let by_index = |index: u32| view.host.links.iter().find(|link| link.index == index);
        let Some(other) = link.parent.filter(|_| link.parent_elsewhere).and_then(by_index) else {
            return "another link";
        };
        let declared = self.parent.as_deref().unwrap_or_default();
        match self.segment() {
            Segment::Card if other.name == self.card() => declared,
            Segment::Card => &other.name,
            Segment::Bridge | Segment::Tunnel => {
                let bridge = other.controller.and_then(by_index);
                match (bridge, &view.base) {
                    (Some(bridge), Some(base)) if bridge.index == base.index => declared,
                    (Some(bridge), _) => &bridge.name,
                    (None, _) => "no bridge",
                }
            }
        }
    }

    /// Whether a link in the container is of the right make, so that all else can be mended on it.
    pub(super) fn right_make(&self, link: &Link, wanted: &Wanted, base: &Base) -> bool {
        let kind = format!("{} {}", link.kind, link.mode).trim() == self.link_word();
        let mac = self.takes_card() || link.mac == Some(wanted.mac.0);
        let parent = self.segment() != Segment::Card || link.parent == Some(base.link.index);
        kind && mac && parent && link.parent_elsewhere
    }

    /// A new link in the container, under a name that no host has.
    pub(super) async fn make(&self, sockets: &Sockets<'_>, wanted: &Wanted, base: &Base) -> Result<u32, Failure> {
        let name = self.temporary();
        let mtu = wanted.mtu.unwrap_or(base.mtu);
        let made = match self.segment() {
            Segment::Card => {
                let mac = Some(wanted.mac).filter(|_| !self.takes_card());
                let inside = Some(sockets.namespace);
                let link = MacVlan { name: &name, parent: base.link.index, mac, mtu: Some(mtu), inside };
                if self.mode == Mode::Macvtap {
                    return self.made(sockets.host.add_macvtap(&link).await, sockets, &name).await;
                }
                sockets.host.add_macvlan_as(&link, self.variant.kernels()).await.map_err(|failure| {
                    let alone = self.takes_card() && failure.causes.iter().any(|cause| cause.contains("nvalid"));
                    if alone {
                        failure.hint(format!(
                            "`passthru` takes the whole of {}: no other macvlan may stand on it",
                            self.card()
                        ))
                    } else {
                        failure
                    }
                })
            }
            Segment::Bridge | Segment::Tunnel => self.make_pair(sockets, &name, wanted.mac, mtu).await,
        };
        self.made(made, sockets, &name).await
    }

    async fn made(&self, made: Result<(), Failure>, sockets: &Sockets<'_>, name: &str) -> Result<u32, Failure> {
        made.map_err(|failure| {
            failure.within(format!("cannot attach container {} to {}", self.container, self.network))
        })?;
        let made = sockets.inside.link(name).await?;
        made.map(|link| link.index).ok_or_else(|| Failure::new(format!("link {name} went away as soon as it was made")))
    }

    async fn make_pair(&self, sockets: &Sockets<'_>, name: &str, mac: Mac, mtu: u32) -> Result<(), Failure> {
        let peer = self.peer_name();
        // The other end may be in a namespace that is going away.
        if let Some(old) = sockets.host.link(&peer).await? {
            sockets.host.delete_link(old.index).await?;
        }
        let pair = Veth { name, peer: &peer, mac, mtu, inside: sockets.namespace };
        sockets.host.add_veth(&pair).await
    }

    /// Brings the host's end of a veth pair into the bridge.
    pub(super) async fn ensure_port(
        &self,
        sockets: &Sockets<'_>,
        index: u32,
        base: &Base,
        mtu: u32,
    ) -> Result<(), Failure> {
        if self.segment() == Segment::Card {
            return Ok(());
        }
        let link = sockets.inside.link_at(index).await?;
        let peer = match link.filter(|link| link.parent_elsewhere).and_then(|link| link.parent) {
            Some(other) => sockets.host.link_at(other).await?.filter(|link| link.kind == "veth"),
            None => None,
        };
        let peer = peer.ok_or_else(|| Failure::new("the host's end of the veth pair went away"))?;
        if !peer.alias.starts_with("fanli:1:") {
            sockets.host.set_alias(peer.index, &format!("{}port", self.owner())).await?;
        }
        if peer.mtu != mtu {
            sockets.host.set_mtu(peer.index, mtu).await?;
        }
        if peer.controller != Some(base.link.index) {
            sockets.host.set_controller(peer.index, base.link.index).await?;
        }
        if !peer.up {
            sockets.host.set_up(peer.index, None).await?;
        }
        Ok(())
    }
}
