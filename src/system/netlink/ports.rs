//! Links that containers hang on: macvlans of every variant, veth pairs, bridges and VXLAN tunnels.

use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd};

use rtnetlink::packet_core::{NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use rtnetlink::packet_route::link::{
    InfoKind, InfoVxlan, LinkAttribute, LinkInfo, LinkMessage, MacVlanMode, MacVtapMode,
};
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::{LinkBridge, LinkMacVlan, LinkMacVtap, LinkMessageBuilder, LinkUnspec, LinkVeth, LinkVlan, LinkVxlan};

use super::{Mac, MacVlan, Netlink, NetlinkHands, is, limited};
use crate::failure::Failure;
use crate::system::netns::Namespace;

/// How macvlans on one network card reach each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// Directly.
    Bridge,
    /// Not at all.
    Private,
    /// Over a switch that sends back what came from the same port.
    Vepa,
    /// There is only one: it takes the whole card.
    Passthru,
}

/// A pair of links: one end in a namespace, the other a port of a bridge of the host.
#[derive(Clone, Copy, Debug)]
pub struct Veth<'a> {
    /// The name of the end in the namespace.
    pub name: &'a str,
    /// The name of the end on the host.
    pub peer: &'a str,
    /// The MAC address of the end in the namespace.
    pub mac: Mac,
    /// The largest packet, in bytes.
    pub mtu: u32,
    /// Where the first end is made.
    pub inside: &'a Namespace,
}

/// A tunnel for Ethernet frames in UDP (RFC 7348), without multicast and without learning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vxlan {
    /// The network's number: frames of others are not heard.
    pub vni: u32,
    /// The UDP port, the same on every host.
    pub port: u16,
    /// The host's own address in the network below.
    pub local: Ipv4Addr,
}

impl std::fmt::Display for Vxlan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "vni {} port {} local {}", self.vni, self.port, self.local)
    }
}

/// Where a tunnel sends frames: those for one MAC address, or (for `None`) those that every host should see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Forward {
    /// Whose frames; none is everybody's.
    pub mac: Option<[u8; 6]>,
    /// The other host's address in the network below.
    pub to: Ipv4Addr,
}

/// What a VXLAN link's attributes come to.
pub(super) fn vxlan_mode(data: &[InfoVxlan]) -> String {
    let (mut vni, mut port, mut local, mut learning) = (0, 0, Ipv4Addr::UNSPECIFIED, false);
    for item in data {
        match item {
            InfoVxlan::Id(id) => vni = *id,
            InfoVxlan::Port(number) => port = *number,
            InfoVxlan::Local(address) => local = *address,
            InfoVxlan::Learning(flag) => learning = *flag,
            _ => {}
        }
    }
    format!("{}{}", Vxlan { vni, port, local }, if learning { " learning" } else { "" })
}

impl NetlinkHands {
    /// Makes a macvlan of any variant; as [`NetlinkHands::add_macvlan`].
    pub async fn add_macvlan_as(&self, wanted: &MacVlan<'_>, variant: Variant) -> Result<(), Failure> {
        let what = format!("cannot make macvlan link {}", wanted.name);
        let mode = match variant {
            Variant::Bridge => MacVlanMode::Bridge,
            Variant::Private => MacVlanMode::Private,
            Variant::Vepa => MacVlanMode::Vepa,
            Variant::Passthru => MacVlanMode::Passthrough,
        };
        self.add_on_card(&what, wanted, LinkMacVlan::new(wanted.name, wanted.parent, mode)).await
    }

    /// Makes a macvtap in bridge mode: a macvlan whose frames a virtual machine can read from a device file.
    pub async fn add_macvtap(&self, wanted: &MacVlan<'_>) -> Result<(), Failure> {
        let what = format!("cannot make macvtap link {}", wanted.name);
        self.add_on_card(&what, wanted, LinkMacVtap::new(wanted.name, wanted.parent, MacVtapMode::Bridge)).await
    }

    /// Makes a link that stands on a card, of whatever kind.
    async fn add_on_card<K>(
        &self,
        what: &str,
        wanted: &MacVlan<'_>,
        mut message: LinkMessageBuilder<K>,
    ) -> Result<(), Failure> {
        if let Some(mac) = wanted.mac {
            message = message.address(mac.0.to_vec());
        }
        if let Some(mtu) = wanted.mtu {
            message = message.mtu(mtu);
        }
        if let Some(namespace) = wanted.inside {
            message = message.setns_by_fd(namespace.as_fd().as_raw_fd());
        }
        let message = message.build();
        self.while_old_link_goes(what, || self.new_link(message.clone())).await
    }

    /// Makes a pair of links, one end inside. Either end takes the other with it when it goes.
    pub async fn add_veth(&self, wanted: &Veth<'_>) -> Result<(), Failure> {
        let message = LinkVeth::new(wanted.name, wanted.peer)
            .address(wanted.mac.0.to_vec())
            .mtu(wanted.mtu)
            .setns_by_fd(wanted.inside.as_fd().as_raw_fd())
            .build();
        let what = format!("cannot make veth links {} and {}", wanted.name, wanted.peer);
        self.while_old_link_goes(&what, || self.new_link(message.clone())).await
    }

    /// Makes a bridge with a MAC address that stays: left alone, a bridge takes that of one of its ports.
    pub async fn add_bridge(&self, name: &str, mac: Mac, mtu: u32) -> Result<(), Failure> {
        let message = LinkBridge::new(name).address(mac.0.to_vec()).mtu(mtu).build();
        limited(&format!("cannot make bridge {name}"), self.new_link(message)).await
    }

    /// Makes a tunnel below the bridge `controller`, over the link `below`.
    pub async fn add_vxlan(&self, name: &str, wanted: &Vxlan, below: u32, mtu: u32) -> Result<(), Failure> {
        let message = LinkVxlan::new(name, wanted.vni)
            .dev(below)
            .local(wanted.local)
            .port(wanted.port)
            .learning(false)
            .mtu(mtu)
            .build();
        let made = limited(&format!("cannot make VXLAN link {name}"), self.new_link(message)).await;
        made.map_err(|failure| {
            if failure.causes.iter().any(|cause| cause.contains("exists")) {
                failure.hint(format!(
                    "another link of the host uses VNI {} on this UDP port: choose another `vni` or `udp`",
                    wanted.vni
                ))
            } else {
                failure
            }
        })
    }

    /// Makes the link of a VLAN (802.1Q) on another link.
    pub async fn add_vlan(&self, name: &str, below: u32, vlan: u16) -> Result<(), Failure> {
        let message = LinkVlan::new(name, below, vlan).build();
        let what = format!("cannot make VLAN link {name}");
        limited(&what, async {
            match self.new_link(message).await {
                Err(error) if is(&error, rustix::io::Errno::OPNOTSUPP) => Ok(false),
                other => other.map(|()| true),
            }
        })
        .await?
        .then_some(())
        .ok_or_else(|| no_vlans(name))
    }

    /// Makes a link a port of a bridge.
    pub async fn set_controller(&self, index: u32, bridge: u32) -> Result<(), Failure> {
        let message = LinkUnspec::new_with_index(index).controller(bridge).build();
        limited("cannot make a link a port of a bridge", self.change_link(message)).await
    }

    /// Adds an entry to a tunnel's table; one that is there is fine.
    pub async fn add_forward(&self, tunnel: u32, entry: &Forward) -> Result<(), Failure> {
        // Everybody's frames go to every host: these entries stand beside each other.
        let flags = if entry.mac.is_some() { NLM_F_REPLACE } else { NLM_F_APPEND };
        let message = RouteNetlinkMessage::NewNeighbour(forward_message(tunnel, entry));
        let what = format!("cannot let the tunnel reach {}", entry.to);
        limited(&what, self.unless(rustix::io::Errno::EXIST, message, NLM_F_CREATE | flags)).await
    }

    /// Removes an entry; one that is not there is fine.
    pub async fn remove_forward(&self, tunnel: u32, entry: &Forward) -> Result<(), Failure> {
        let message = RouteNetlinkMessage::DelNeighbour(forward_message(tunnel, entry));
        let what = format!("cannot let the tunnel forget {}", entry.to);
        limited(&what, self.unless(rustix::io::Errno::NOENT, message, 0)).await
    }
}

/// A kernel without 802.1Q.
fn no_vlans(name: &str) -> Failure {
    Failure::new(format!("cannot make VLAN link {name}: this host's kernel has no 802.1Q VLANs"))
        .hint("load its module with `modprobe 8021q`, or leave `vlan` out; nothing was changed")
}

impl Netlink {
    /// Refuses the name of a VLAN's link where the kernel makes none. It is asked for one without a number: a kernel that has VLANs
    /// refuses that as incomplete, any other because it does not know the kind.
    ///
    /// # Errors
    /// The kernel has no VLANs, or does not answer.
    pub async fn refuse_vlan(&self, name: &str) -> Result<(), Failure> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Vlan)]));
        let asked = limited("cannot ask for VLANs", async {
            match self.talk.order(RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL).await {
                Err(error) if is(&error, rustix::io::Errno::OPNOTSUPP) => Ok(false),
                Err(error) if is(&error, rustix::io::Errno::INVAL) => Ok(true),
                other => other.map(|()| true),
            }
        });
        if asked.await? { Ok(()) } else { Err(no_vlans(name)) }
    }

    /// The table of a tunnel.
    pub async fn forwards(&self, tunnel: u32) -> Result<Vec<Forward>, Failure> {
        let all = self.all_forwards().await?.into_iter();
        Ok(all.filter_map(|(link, entry)| (link == tunnel).then_some(entry)).collect())
    }

    /// The tables of all tunnels: the link's number and an entry of it, in order.
    pub(in crate::system) async fn all_forwards(&self) -> Result<Vec<(u32, Forward)>, Failure> {
        let mut message = NeighbourMessage::default();
        message.header.family = AddressFamily::Bridge;
        let work = self.talk.list(RouteNetlinkMessage::GetNeighbour(message));
        let messages = limited("cannot list the table of a tunnel", work).await?;
        let of_tunnel = |message: &RouteNetlinkMessage| match message {
            RouteNetlinkMessage::NewNeighbour(message) => Some((message.header.ifindex, forward(message)?)),
            _ => None,
        };
        let mut found: Vec<_> = messages.iter().filter_map(of_tunnel).collect();
        found.sort_unstable();
        Ok(found)
    }
}

fn forward(message: &NeighbourMessage) -> Option<Forward> {
    let (mut mac, mut to) = ([0; 6], None);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::LinkLayerAddress(bytes) => mac = <[u8; 6]>::try_from(bytes.as_slice()).ok()?,
            NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => to = Some(*address),
            // A bridge's family does not say whose address it is; older decoders give the bytes.
            NeighbourAttribute::Destination(NeighbourAddress::Other(bytes)) => {
                to = <[u8; 4]>::try_from(bytes.as_slice()).ok().map(Ipv4Addr::from);
            }
            _ => {}
        }
    }
    Some(Forward { mac: Some(mac).filter(|mac| *mac != [0; 6]), to: to? })
}

fn forward_message(tunnel: u32, entry: &Forward) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Bridge;
    message.header.ifindex = tunnel;
    message.header.state = NeighbourState::Permanent;
    message.header.flags = NeighbourFlags::Own;
    message.attributes = vec![
        NeighbourAttribute::LinkLayerAddress(entry.mac.unwrap_or_default().to_vec()),
        NeighbourAttribute::Destination(NeighbourAddress::Inet(entry.to)),
    ];
    message
}
