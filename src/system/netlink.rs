//! Links, addresses and routes, of the host or of a namespace, over rtnetlink.

mod numbers;
mod ports;
mod shift;
mod talk;
mod v6;

use std::fmt;
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::ops::Deref;
use std::str::FromStr;
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net};
use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};
use rtnetlink::packet_route::link::{
    InfoData, InfoKind, InfoMacVlan, InfoMacVtap, LinkAttribute, LinkExtentMask, LinkFlags, LinkInfo, LinkMessage,
    MacVlanMode, MacVtapMode,
};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use rtnetlink::{AddressMessageBuilder, LinkUnspec, RouteMessageBuilder};
use serde::{Deserialize, Serialize};

use self::talk::Talk;
use super::netns::{Namespace, within};
use super::waiting::waiting;
use super::{Actuator, Probe};
use crate::failure::{Context, Failure};

pub use numbers::{Elsewhere, Number};
pub use ports::{Forward, Variant, Veth, Vxlan};
pub(super) use talk::{Ear, Group};
pub use v6::{Address6, Route6};

/// How long the kernel may take for an answer (`netlink answer`). Deleting a link waits for the kernel's own clean-up.
const ANSWER: Duration = Duration::from_secs(15);
/// How long a link may be refused because one with its MAC is still going away (`old link`).
const OLD_LINK: Duration = Duration::from_secs(3);

/// A MAC address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, byte) in self.0.iter().enumerate() {
            write!(f, "{}{byte:02x}", if place > 0 { ":" } else { "" })?;
        }
        Ok(())
    }
}

impl From<Mac> for String {
    fn from(mac: Mac) -> Self {
        mac.to_string()
    }
}

impl TryFrom<String> for Mac {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl FromStr for Mac {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let misfit = || format!("`{text}` is not a MAC address such as 02:1a:0a:58:08:2e");
        let bytes: Option<Vec<u8>> =
            text.split(':').map(|part| u8::from_str_radix(part, 16).ok().filter(|_| part.len() == 2)).collect();
        let mac: [u8; 6] = bytes.and_then(|bytes| bytes.try_into().ok()).ok_or_else(misfit)?;
        let [first, ..] = mac;
        if first & 1 == 1 { Err(format!("`{text}` is a group's address, not one interface's")) } else { Ok(Self(mac)) }
    }
}

/// A network interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Its number in its namespace.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// `macvlan`, `bridge`, `veth`; empty for hardware.
    pub kind: String,
    /// How macvlans on the same parent reach each other: `bridge`, `private`, `vepa`, `passthru`.
    pub mode: String,
    /// The number of the link that it stands on.
    pub parent: Option<u32>,
    /// Whether that link is in another namespace.
    pub parent_elsewhere: bool,
    /// The number of the bridge or bond that it is a port of.
    pub controller: Option<u32>,
    /// Its MAC address.
    pub mac: Option<[u8; 6]>,
    /// The largest packet, in bytes.
    pub mtu: u32,
    /// Whether it is set up.
    pub up: bool,
    /// Whether something is at the other end.
    pub carrier: bool,
    /// A text on it; fanli's begin with `fanli:`.
    pub alias: String,
}

/// An IPv4 route of the main table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// Where it leads.
    pub to: Ipv4Net,
    /// Over which router.
    pub via: Option<Ipv4Addr>,
    /// Over which link.
    pub link: u32,
    /// With which sender.
    pub source: Option<Ipv4Addr>,
}

/// A socket to look at links, addresses and routes of one namespace.
pub struct Netlink {
    talk: Talk,
}

/// A socket to change them.
pub struct NetlinkHands {
    netlink: Netlink,
}

impl Deref for NetlinkHands {
    type Target = Netlink;

    fn deref(&self) -> &Netlink {
        &self.netlink
    }
}

impl NetlinkHands {
    pub(super) fn open(inside: &Namespace) -> Result<Self, Failure> {
        Ok(Self { netlink: Netlink::open(Some(inside))? })
    }

    /// As [`Netlink::close`].
    pub async fn close(self) {
        self.netlink.close().await;
    }
}

impl Probe {
    /// A socket in the namespace, or in the host's own.
    pub fn netlink(&self, inside: Option<&Namespace>) -> Result<Netlink, Failure> {
        Netlink::open(inside)
    }
}

impl Actuator {
    /// A socket in the namespace, or in the host's own, to change things.
    pub fn netlink_hands(&self, inside: Option<&Namespace>) -> Result<NetlinkHands, Failure> {
        Ok(NetlinkHands { netlink: self.netlink(inside)? })
    }
}

fn is(error: &io::Error, wanted: rustix::io::Errno) -> bool {
    error.raw_os_error() == Some(wanted.raw_os_error())
}

async fn limited<T>(what: &str, work: impl Future<Output = io::Result<T>>) -> Result<T, Failure> {
    match waiting(what, Box::pin(tokio::time::timeout(ANSWER, work))).await {
        Ok(done) => done.with_context(|| what.to_owned()),
        Err(_) => Err(Failure::timeout("netlink answer", ANSWER).within(what)),
    }
}

impl Netlink {
    fn open(inside: Option<&Namespace>) -> Result<Self, Failure> {
        // A socket belongs for ever to the namespace of the thread that opened it.
        Ok(Self { talk: within(inside, Talk::open)?.context("cannot open a netlink socket")? })
    }

    /// Closes the socket before it returns: in a container's namespace nothing may stay.
    #[expect(clippy::unused_async, reason = "whoever closes need not know that there is nothing to wait for")]
    pub async fn close(self) {
        drop(self);
    }

    /// Every link.
    pub async fn links(&self) -> Result<Vec<Link>, Failure> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
        let work = self.talk.list(RouteNetlinkMessage::GetLink(message));
        let messages = limited("cannot list network links", work).await?;
        Ok(messages.into_iter().filter_map(new_link).collect())
    }

    /// The link of that name.
    pub async fn link(&self, name: &str) -> Result<Option<Link>, Failure> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        self.one_link(message, &format!("cannot look at link {name}")).await
    }

    /// The link of that number.
    pub async fn link_at(&self, index: u32) -> Result<Option<Link>, Failure> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        self.one_link(message, "cannot look at a link").await
    }

    async fn one_link(&self, mut message: LinkMessage, what: &str) -> Result<Option<Link>, Failure> {
        message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
        limited(what, async {
            match self.talk.get(RouteNetlinkMessage::GetLink(message)).await {
                Err(error) if is(&error, rustix::io::Errno::NODEV) => Ok(None),
                other => Ok(other?.and_then(new_link)),
            }
        })
        .await
    }

    async fn address_messages(&self) -> Result<Vec<AddressMessage>, Failure> {
        let work = self.talk.list(RouteNetlinkMessage::GetAddress(AddressMessage::default()));
        let messages = limited("cannot list addresses", work).await?.into_iter();
        Ok(messages
            .filter_map(|message| match message {
                RouteNetlinkMessage::NewAddress(message) => Some(message),
                _ => None,
            })
            .collect())
    }

    async fn route_messages(&self, of: RouteMessage) -> Result<Vec<RouteMessage>, Failure> {
        let work = self.talk.list(RouteNetlinkMessage::GetRoute(of));
        let messages = limited("cannot list routes", work).await?.into_iter();
        Ok(messages
            .filter_map(|message| match message {
                RouteNetlinkMessage::NewRoute(message) => Some(message),
                _ => None,
            })
            .collect())
    }

    /// Every address of every link, as the link's number and the address.
    pub async fn all_addresses(&self) -> Result<Vec<(u32, IpNet)>, Failure> {
        Ok(self.address_messages().await?.iter().filter_map(address).collect())
    }

    /// As [`Netlink::all_addresses`], each with whether it stays: what a lease gave ends by itself.
    pub(super) async fn lasting_addresses(&self) -> Result<Vec<(u32, IpNet, bool)>, Failure> {
        let lasting = |message: &AddressMessage| message.header.flags.contains(AddressHeaderFlags::Permanent);
        let read = |message: &AddressMessage| address(message).map(|(link, net)| (link, net, lasting(message)));
        Ok(self.address_messages().await?.iter().filter_map(read).collect())
    }

    /// The IPv4 routes of the main table that lead somewhere.
    pub async fn routes(&self) -> Result<Vec<Route>, Failure> {
        let messages = self.route_messages(RouteMessageBuilder::<Ipv4Addr>::new().build()).await?;
        Ok(messages.iter().filter_map(route).collect())
    }
}

fn new_link(message: RouteNetlinkMessage) -> Option<Link> {
    match message {
        RouteNetlinkMessage::NewLink(message) => Some(link(message)),
        _ => None,
    }
}

/// The link's number and its address there.
fn address(message: &AddressMessage) -> Option<(u32, IpNet)> {
    // `Local` is the interface's own; `Address` is the peer's on point-to-point links, and all that IPv6 tells elsewhere.
    let of = |wanted: fn(&AddressAttribute) -> Option<IpAddr>| message.attributes.iter().find_map(wanted);
    let local = of(|attribute| match attribute {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    });
    let other = || {
        of(|attribute| match attribute {
            AddressAttribute::Address(address @ IpAddr::V6(_)) => Some(*address),
            _ => None,
        })
    };
    let net = IpNet::new(local.or_else(other)?, message.header.prefix_len).ok()?;
    Some((message.header.index, net))
}

pub(super) fn link(message: LinkMessage) -> Link {
    let mut link =
        Link { index: message.header.index, up: message.header.flags.contains(LinkFlags::Up), ..Link::default() };
    link.carrier = message.header.flags.contains(LinkFlags::LowerUp);
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::IfAlias(alias) => link.alias = alias,
            LinkAttribute::Address(bytes) => link.mac = bytes.try_into().ok(),
            LinkAttribute::Mtu(mtu) => link.mtu = mtu,
            LinkAttribute::Link(parent) => link.parent = Some(parent),
            LinkAttribute::LinkNetNsId(_) => link.parent_elsewhere = true,
            LinkAttribute::Controller(index) => link.controller = Some(index),
            LinkAttribute::LinkInfo(infos) => infos.into_iter().for_each(|info| match info {
                LinkInfo::Kind(InfoKind::Other(kind)) => link.kind = kind,
                LinkInfo::Kind(kind) => link.kind = kind.to_string(),
                LinkInfo::Data(InfoData::MacVlan(data)) => {
                    data.iter().find_map(mode).unwrap_or_default().clone_into(&mut link.mode);
                }
                LinkInfo::Data(InfoData::MacVtap(data)) => {
                    let bridge = data.contains(&InfoMacVtap::Mode(MacVtapMode::Bridge));
                    if bridge { "bridge" } else { "another mode" }.clone_into(&mut link.mode);
                }
                LinkInfo::Data(InfoData::Vxlan(data)) => link.mode = ports::vxlan_mode(&data),
                _ => {}
            }),
            _ => {}
        }
    }
    link
}

fn mode(info: &InfoMacVlan) -> Option<&'static str> {
    match info {
        InfoMacVlan::Mode(MacVlanMode::Bridge) => Some("bridge"),
        InfoMacVlan::Mode(MacVlanMode::Private) => Some("private"),
        InfoMacVlan::Mode(MacVlanMode::Vepa) => Some("vepa"),
        InfoMacVlan::Mode(MacVlanMode::Passthrough) => Some("passthru"),
        InfoMacVlan::Mode(_) => Some("another mode"),
        _ => None,
    }
}

fn route(message: &RouteMessage) -> Option<Route> {
    let (mut to, mut via, mut link, mut source, mut table) =
        (Ipv4Addr::UNSPECIFIED, None, None, None, u32::from(message.header.table));
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(address)) => to = *address,
            RouteAttribute::Gateway(RouteAddress::Inet(address)) => via = Some(*address),
            RouteAttribute::PrefSource(RouteAddress::Inet(address)) => source = Some(*address),
            RouteAttribute::Oif(index) => link = Some(*index),
            RouteAttribute::Table(number) => table = *number,
            _ => {}
        }
    }
    let to = Ipv4Net::new(to, message.header.destination_prefix_length).ok()?;
    let main = table == u32::from(RouteHeader::RT_TABLE_MAIN) && message.header.kind == RouteType::Unicast;
    main.then_some(Route { to, via, link: link?, source })
}

/// A macvlan to be made.
#[derive(Clone, Copy, Debug)]
pub struct MacVlan<'a> {
    /// Its name.
    pub name: &'a str,
    /// The number of the link that it stands on, on the host.
    pub parent: u32,
    /// Its MAC address; the kernel's choice when there is none.
    pub mac: Option<Mac>,
    /// The largest packet; the parent's when there is none.
    pub mtu: Option<u32>,
    /// Where it is made: in a namespace, or on the host.
    pub inside: Option<&'a Namespace>,
}

impl NetlinkHands {
    /// Makes a macvlan in bridge mode. With a namespace it comes into being there and is never seen on the host.
    pub async fn add_macvlan(&self, wanted: &MacVlan<'_>) -> Result<(), Failure> {
        self.add_macvlan_as(wanted, Variant::Bridge).await
    }

    /// Puts a text on a link.
    pub async fn set_alias(&self, index: u32, alias: &str) -> Result<(), Failure> {
        let message = LinkUnspec::new_with_index(index).alias(alias).build();
        limited("cannot mark a link", self.change_link(message)).await
    }

    /// Sets the largest packet of a link.
    pub async fn set_mtu(&self, index: u32, mtu: u32) -> Result<(), Failure> {
        let message = LinkUnspec::new_with_index(index).mtu(mtu).build();
        limited(&format!("cannot set an MTU of {mtu}"), self.change_link(message)).await
    }

    /// Sets a link up, with another name where one is given: names change while a link is down, and the kernel does that first.
    /// A link with the same MAC in a namespace that is going away stands in the way for a moment.
    pub async fn set_up(&self, index: u32, name: Option<&String>) -> Result<(), Failure> {
        let mut message = LinkUnspec::new_with_index(index).up();
        let mut what = "cannot set a link up".to_owned();
        if let Some(name) = name {
            message = message.name(name.clone());
            what = format!("cannot set a link up as {name}");
        }
        let message = message.build();
        self.while_old_link_goes(&what, || self.change_link(message.clone())).await
    }

    async fn change_link(&self, message: LinkMessage) -> io::Result<()> {
        self.talk.order(RouteNetlinkMessage::NewLink(message), 0).await
    }

    async fn new_link(&self, message: LinkMessage) -> io::Result<()> {
        self.talk.order(RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL).await
    }

    /// One order; the refusal `fine` says that all is as it should be already.
    async fn unless(&self, fine: rustix::io::Errno, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        match self.talk.order(message, flags).await {
            Err(error) if is(&error, fine) => Ok(()),
            other => other,
        }
    }

    /// Retries what the kernel refuses while a link with the same MAC is not quite gone: EADDRINUSE, or EBUSY on older kernels.
    async fn while_old_link_goes<F: Future<Output = io::Result<()>>>(
        &self,
        what: &str,
        request: impl Fn() -> F,
    ) -> Result<(), Failure> {
        waiting(what, Box::pin(self.until_old_link_is_gone(what, request))).await
    }

    async fn until_old_link_is_gone<F: Future<Output = io::Result<()>>>(
        &self,
        what: &str,
        request: impl Fn() -> F,
    ) -> Result<(), Failure> {
        let started = tokio::time::Instant::now();
        loop {
            let Err(error) = tokio::time::timeout(ANSWER, request())
                .await
                .map_err(|_| Failure::timeout("netlink answer", ANSWER).within(what))?
            else {
                return Ok(());
            };
            let passing = is(&error, rustix::io::Errno::ADDRINUSE) || is(&error, rustix::io::Errno::BUSY);
            if !passing || started.elapsed() > OLD_LINK {
                let failed = Failure::new(what).because(&error);
                return Err(if passing {
                    failed
                        .because(Failure::timeout("old link", OLD_LINK))
                        .hint("another link on the same network card has this MAC address, or the card is a port of a bridge or bond")
                } else {
                    failed
                });
            }
            // The old one is usually gone within 20 ms, and somebody waits for the new one.
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Adds an address; one that is there already is fine.
    pub async fn add_address(&self, index: u32, address: Ipv4Net) -> Result<(), Failure> {
        let message =
            AddressMessageBuilder::<Ipv4Addr>::new().index(index).address(address.addr(), address.prefix_len()).build();
        let work = self.talk.order(RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_REPLACE);
        limited(&format!("cannot set address {address}"), work).await
    }

    /// Removes an address; one that is not there is fine.
    pub async fn remove_address(&self, index: u32, address: Ipv4Net) -> Result<(), Failure> {
        let message =
            AddressMessageBuilder::<Ipv4Addr>::new().index(index).address(address.addr(), address.prefix_len()).build();
        limited(
            &format!("cannot remove address {address}"),
            self.unless(rustix::io::Errno::ADDRNOTAVAIL, RouteNetlinkMessage::DelAddress(message), 0),
        )
        .await
    }

    /// Adds a route, or changes the one to the same place.
    pub async fn set_route(&self, route: &Route) -> Result<(), Failure> {
        let message = RouteNetlinkMessage::NewRoute(route_message(route));
        let work = self.talk.order(message, NLM_F_CREATE | NLM_F_REPLACE);
        limited(&format!("cannot set the route to {}", route.to), work).await
    }

    /// Removes a route; one that is not there is fine.
    pub async fn remove_route(&self, route: &Route) -> Result<(), Failure> {
        let mut message = route_message(route);
        // Whoever made it, with whatever scope.
        message.header.protocol = RouteProtocol::Unspec;
        message.header.scope = RouteScope::NoWhere;
        limited(
            &format!("cannot remove the route to {}", route.to),
            self.unless(rustix::io::Errno::SRCH, RouteNetlinkMessage::DelRoute(message), 0),
        )
        .await
    }

    /// Deletes a link, with its addresses and routes; one that is not there is fine.
    pub async fn delete_link(&self, index: u32) -> Result<(), Failure> {
        let message = LinkUnspec::new_with_index(index).build();
        limited("cannot delete a link", self.unless(rustix::io::Errno::NODEV, RouteNetlinkMessage::DelLink(message), 0))
            .await
    }
}

fn route_message(route: &Route) -> RouteMessage {
    let mut message = RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(route.to.addr(), route.to.prefix_len())
        .output_interface(route.link);
    message = match route.via {
        Some(via) => message.gateway(via),
        None => message.scope(RouteScope::Link),
    };
    if let Some(source) = route.source {
        message = message.pref_source(source);
    }
    message.build()
}

/// A name as the kernel takes it for a link.
pub fn link_name(name: &str) -> Result<(), String> {
    let fits = (1..=15).contains(&name.len())
        && name != "."
        && name != ".."
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
    if fits {
        Ok(())
    } else {
        Err(format!("`{name}` is not a name of a network interface (at most 15 of A-Z a-z 0-9 . _ -)"))
    }
}
