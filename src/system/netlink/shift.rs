//! Moves the host's own addresses and routes from one link to another, in one system call.
//!
//! The kernel works off every request of one `sendmsg` before it returns, and no signal ends it in between. So whoever is killed
//! has either moved everything or nothing, and the host is never left with its card in a bridge and its address beside it.

use std::io;
use std::net::Ipv4Addr;

use rtnetlink::packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use rtnetlink::packet_route::route::{RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteType};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::sys::{Socket, protocols::NETLINK_ROUTE};
use rtnetlink::{LinkUnspec, RouteMessageBuilder};

use super::NetlinkHands;
use crate::failure::{Context, Failure};

/// The kernel's own table: it fills itself.
const LOCAL_TABLE: u32 = 255;

/// A request, what it is for, and error numbers that are fine.
type Asked = (RouteNetlinkMessage, u16, &'static [rustix::io::Errno]);

/// What is moved.
struct Belongings {
    addresses: Vec<AddressMessage>,
    routes: Vec<RouteMessage>,
}

impl NetlinkHands {
    /// Whether the kernel takes a link as a port of a bridge: for a moment it is one.
    pub async fn try_controller(&self, index: u32, bridge: u32) -> Result<(), Failure> {
        in_one(vec![controller(index, bridge), controller(index, 0)]).await
    }

    /// Makes `port` a port of `bridge` (or of none, for 0) and moves the IPv4 addresses and routes of link `from` to link `to`.
    ///
    /// # Errors
    /// When the kernel refuses any of it; then all has been put back.
    pub async fn shift_host(&self, from: u32, to: u32, port: u32, bridge: u32) -> Result<(), Failure> {
        let belongings = self.belongings(from).await?;
        let there = move_all(&belongings, from, to, controller(port, bridge));
        let back = move_all(&belongings, to, from, controller(port, if bridge == 0 { to } else { 0 }));
        let Err(failure) = in_one(there).await else { return Ok(()) };
        Err(match in_one(back).await {
            Ok(()) => failure.because("everything has been put back"),
            Err(undo) => failure.because(undo),
        })
    }

    async fn belongings(&self, link: u32) -> Result<Belongings, Failure> {
        let addresses = self.address_messages().await?;
        let of_link = |message: &AddressMessage| message.header.index == link;
        let addresses: Vec<_> = addresses
            .into_iter()
            .filter(|message| of_link(message) && message.header.family == AddressFamily::Inet)
            .collect();
        let routes = self.route_messages(RouteMessageBuilder::<Ipv4Addr>::new().build()).await?;
        let routes = routes.into_iter().filter(|route| leads_over(route, link)).collect();
        Ok(Belongings { addresses, routes })
    }
}

/// Whether a route is to move with the link's addresses; those that come with the addresses come by themselves.
fn leads_over(route: &RouteMessage, link: u32) -> bool {
    let over = route.attributes.contains(&RouteAttribute::Oif(link));
    let table = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Table(number) => Some(*number),
        _ => None,
    });
    let table = table.unwrap_or(u32::from(route.header.table));
    over && table != LOCAL_TABLE
        && route.header.kind == RouteType::Unicast
        && route.header.protocol != RouteProtocol::Kernel
}

fn controller(port: u32, bridge: u32) -> Asked {
    let message = LinkUnspec::new_with_index(port).controller(bridge).build();
    (RouteNetlinkMessage::SetLink(message), 0, &[])
}

fn move_all(belongings: &Belongings, from: u32, to: u32, between: Asked) -> Vec<Asked> {
    let mut asked = Vec::new();
    for message in &belongings.addresses {
        let message = address_on(message, to);
        asked.push((
            RouteNetlinkMessage::NewAddress(message),
            NLM_F_CREATE | NLM_F_EXCL,
            &[rustix::io::Errno::EXIST][..],
        ));
    }
    asked.push(between);
    // Routes to whole networks first: routers are found over them.
    let mut routes: Vec<&RouteMessage> = belongings.routes.iter().collect();
    routes.sort_by_key(|route| route.attributes.iter().any(|item| matches!(item, RouteAttribute::Gateway(_))));
    // A router must be on a network that the new link knows: its addresses are there by now.
    for route in routes {
        asked.push((RouteNetlinkMessage::NewRoute(route_over(route, to)), NLM_F_CREATE | NLM_F_REPLACE, &[]));
    }
    for message in &belongings.addresses {
        let message = address_on(message, from);
        asked.push((RouteNetlinkMessage::DelAddress(message), 0, &[rustix::io::Errno::ADDRNOTAVAIL]));
    }
    asked
}

fn address_on(message: &AddressMessage, link: u32) -> AddressMessage {
    let mut moved = AddressMessage::default();
    moved.header = message.header.clone();
    moved.header.index = link;
    let keep = |attribute: &&AddressAttribute| {
        matches!(
            attribute,
            AddressAttribute::Address(_)
                | AddressAttribute::Local(_)
                | AddressAttribute::Broadcast(_)
                | AddressAttribute::CacheInfo(_)
                | AddressAttribute::RoutePriority(_)
        )
    };
    moved.attributes = message.attributes.iter().filter(keep).cloned().collect();
    let prefixless = message.attributes.iter().any(
        |attribute| matches!(attribute, AddressAttribute::Flags(flags) if flags.contains(AddressFlags::Noprefixroute)),
    );
    if prefixless {
        moved.attributes.push(AddressAttribute::Flags(AddressFlags::Noprefixroute));
    }
    moved
}

fn route_over(message: &RouteMessage, link: u32) -> RouteMessage {
    let mut moved = RouteMessage::default();
    moved.header = message.header.clone();
    moved.header.flags = rtnetlink::packet_route::route::RouteFlags::empty();
    if moved.header.table == RouteHeader::RT_TABLE_UNSPEC {
        moved.header.table = RouteHeader::RT_TABLE_MAIN;
    }
    let of_route = |attribute: &RouteAttribute| match attribute {
        RouteAttribute::Oif(_) => Some(RouteAttribute::Oif(link)),
        RouteAttribute::Destination(_)
        | RouteAttribute::Gateway(_)
        | RouteAttribute::PrefSource(_)
        | RouteAttribute::Priority(_)
        | RouteAttribute::Table(_)
        | RouteAttribute::Metrics(_) => Some(attribute.clone()),
        _ => None,
    };
    moved.attributes = message.attributes.iter().filter_map(of_route).collect();
    moved
}

async fn in_one(asked: Vec<Asked>) -> Result<(), Failure> {
    // The kernel may work for some milliseconds, and nothing else runs on this thread meanwhile.
    tokio::task::spawn_blocking(move || send_in_one(asked)).await.context("cannot move the host's addresses")?
}

/// Sends every request at once and reads the kernel's word on each; the first refusal is the error, but all have been tried.
fn send_in_one(asked: Vec<Asked>) -> Result<(), Failure> {
    let what = "cannot move the host's addresses";
    let mut bytes = Vec::new();
    let mut fine = Vec::new();
    for (number, (message, flags, passed)) in (1..).zip(asked) {
        let mut request = NetlinkMessage::from(message);
        request.header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
        request.header.sequence_number = number;
        request.finalize();
        let start = bytes.len();
        bytes.resize(start + request.buffer_len(), 0);
        if let Some(place) = bytes.get_mut(start..) {
            request.serialize(place);
        }
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        fine.push(passed);
    }
    let mut socket = Socket::new(NETLINK_ROUTE).context(what)?;
    socket.bind_auto().context(what)?;
    let sent = socket.send(&bytes, 0).context(what)?;
    if sent != bytes.len() {
        return Err(Failure::new(what).because("the kernel took only a part"));
    }
    // By now every answer lies there: nothing to wait for.
    socket.set_non_blocking(true).context(what)?;
    let (mut refused, mut answers) = (None, 0);
    while answers < fine.len() {
        let (packet, _) = socket.recv_from_full().context(what)?;
        let mut rest = packet.as_slice();
        while !rest.is_empty() {
            let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest).context(what)?;
            let length = usize::try_from(answer.header.length).unwrap_or(0).next_multiple_of(4).max(16);
            rest = rest.get(length..).unwrap_or_default();
            let NetlinkPayload::Error(error) = answer.payload else { continue };
            answers += 1;
            let code = error.code.map_or(0, |code| code.get().saturating_neg());
            let place = usize::try_from(answer.header.sequence_number).unwrap_or(0);
            let passed = fine.get(place.saturating_sub(1)).copied().unwrap_or_default();
            if code != 0 && !passed.iter().any(|errno| errno.raw_os_error() == code) && refused.is_none() {
                refused = Some(io::Error::from_raw_os_error(code));
            }
        }
    }
    refused.map_or(Ok(()), |error| Err(Failure::new(what).because(error)))
}
