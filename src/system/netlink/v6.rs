//! IPv6 addresses and default routes of links.

use std::net::Ipv6Addr;
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteType};
use rtnetlink::{AddressMessageBuilder, RouteMessageBuilder};

use super::{Netlink, NetlinkHands, address, limited};
use crate::failure::Failure;

/// How long the network may take to show that nobody else has an address (`duplicate address detection`, RFC 4862): one
/// probe and a second by default, with a random second before it.
const DETECTION: Duration = Duration::from_secs(6);

/// An IPv6 address of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address6 {
    /// The address and its network.
    pub net: Ipv6Net,
    /// Whether it is not yet known that nobody else has it.
    pub tentative: bool,
    /// Whether somebody else has it.
    pub duplicate: bool,
}

/// A default IPv6 route of the main table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route6 {
    /// Over which router.
    pub via: Option<Ipv6Addr>,
    /// Over which link.
    pub link: u32,
}

impl Netlink {
    /// The IPv4 addresses of a link, the primary first, and its IPv6 addresses that are not link-local.
    pub async fn both_addresses(&self, index: u32) -> Result<(Vec<Ipv4Net>, Vec<Address6>), Failure> {
        let messages = self.address_messages().await?;
        let (mut four, mut six) = (Vec::new(), Vec::new());
        for message in &messages {
            match address(message) {
                Some((link, IpNet::V4(net))) if link == index => four.push(net),
                Some((link, IpNet::V6(net))) if link == index && !net.addr().is_unicast_link_local() => {
                    let (tentative, duplicate) = detection(message);
                    six.push(Address6 { net, tentative, duplicate });
                }
                _ => {}
            }
        }
        Ok((four, six))
    }

    /// The default IPv6 routes of the main table.
    pub async fn default_routes6(&self) -> Result<Vec<Route6>, Failure> {
        let messages = self.route_messages(RouteMessageBuilder::<Ipv6Addr>::new().build()).await?;
        Ok(messages.iter().filter_map(default_route).collect())
    }
}

fn detection(message: &AddressMessage) -> (bool, bool) {
    let short = message.header.flags;
    let mut tentative = short.contains(AddressHeaderFlags::Tentative);
    let mut duplicate = short.contains(AddressHeaderFlags::Dadfailed);
    for attribute in &message.attributes {
        if let AddressAttribute::Flags(flags) = attribute {
            tentative |= flags.contains(AddressFlags::Tentative);
            duplicate |= flags.contains(AddressFlags::Dadfailed);
        }
    }
    (tentative && !duplicate, duplicate)
}

fn default_route(message: &RouteMessage) -> Option<Route6> {
    let (mut via, mut link, mut table) = (None, None, u32::from(message.header.table));
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Gateway(RouteAddress::Inet6(address)) => via = Some(*address),
            RouteAttribute::Oif(index) => link = Some(*index),
            RouteAttribute::Table(number) => table = *number,
            _ => {}
        }
    }
    let main = table == u32::from(RouteHeader::RT_TABLE_MAIN) && message.header.kind == RouteType::Unicast;
    (main && message.header.destination_prefix_length == 0).then_some(Route6 { via, link: link? })
}

impl NetlinkHands {
    /// Adds an IPv6 address; one that is there already is fine.
    pub async fn add_address6(&self, index: u32, net: Ipv6Net) -> Result<(), Failure> {
        let message =
            AddressMessageBuilder::<Ipv6Addr>::new().index(index).address(net.addr(), net.prefix_len()).build();
        let work = self.talk.order(RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_REPLACE);
        limited(&format!("cannot set address {net}"), work).await
    }

    /// Removes an IPv6 address; one that is not there is fine.
    pub async fn remove_address6(&self, index: u32, net: Ipv6Net) -> Result<(), Failure> {
        let message =
            AddressMessageBuilder::<Ipv6Addr>::new().index(index).address(net.addr(), net.prefix_len()).build();
        limited(
            &format!("cannot remove address {net}"),
            self.unless(rustix::io::Errno::ADDRNOTAVAIL, RouteNetlinkMessage::DelAddress(message), 0),
        )
        .await
    }

    /// Sets the default IPv6 route over a link.
    pub async fn set_default_route6(&self, index: u32, via: Ipv6Addr) -> Result<(), Failure> {
        let message = RouteMessageBuilder::<Ipv6Addr>::new().gateway(via).output_interface(index).build();
        let work = self.talk.order(RouteNetlinkMessage::NewRoute(message), NLM_F_CREATE | NLM_F_REPLACE);
        limited(&format!("cannot set the route over {via}"), work).await
    }

    /// Removes a default IPv6 route; one that is not there is fine.
    pub async fn remove_default_route6(&self, route: &Route6) -> Result<(), Failure> {
        let mut builder = RouteMessageBuilder::<Ipv6Addr>::new().output_interface(route.link);
        if let Some(via) = route.via {
            builder = builder.gateway(via);
        }
        limited(
            "cannot remove the default IPv6 route",
            self.unless(rustix::io::Errno::SRCH, RouteNetlinkMessage::DelRoute(builder.build()), 0),
        )
        .await
    }

    /// Waits until the network has shown that nobody else has the address.
    ///
    /// # Errors
    /// When somebody has, or when it takes longer than the limit `duplicate address detection`.
    pub async fn detected6(&self, index: u32, net: Ipv6Net) -> Result<(), Failure> {
        let started = tokio::time::Instant::now();
        loop {
            let found = self.both_addresses(index).await?.1.into_iter().find(|found| found.net == net);
            match found {
                Some(found) if found.duplicate => {
                    return Err(Failure::new(format!("another machine has the address {}", net.addr()))
                        .hint("choose another `address6`, or stop the other machine"));
                }
                Some(found) if !found.tentative => return Ok(()),
                _ if started.elapsed() > DETECTION => {
                    return Err(Failure::timeout("duplicate address detection", DETECTION)
                        .within(format!("cannot use address {net}")));
                }
                _ => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }
}
