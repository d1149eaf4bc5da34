//! What the kernel says about the host's links.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use rtnetlink::packet_core::NetlinkPayload;
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::{MulticastGroup, new_multicast_connection};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::netlink::{Link, Netlink, link};
use super::{NoBlobs, Probe};
use crate::failure::{Context, Failure};

/// A link of the host that came, changed or went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkEvent {
    /// It is there, as told.
    There(Link),
    /// It is gone.
    Gone(Link),
    /// The kernel had more to say than fits: anything may have changed.
    Missed,
}

/// Events of the host's links. Dropped, its socket is closed.
pub struct LinkEvents {
    stream: std::pin::Pin<Box<dyn Stream<Item = LinkEvent> + Send>>,
    connection: JoinHandle<()>,
}

impl LinkEvents {
    /// The next one; `None` when the socket broke.
    pub async fn next(&mut self) -> Option<LinkEvent> {
        self.stream.next().await
    }
}

impl Drop for LinkEvents {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Probe {
    /// Listens to the host's links (rtnetlink(7), `RTNLGRP_LINK`).
    ///
    /// # Errors
    /// No socket can be opened.
    pub fn link_events(&self) -> Result<LinkEvents, Failure> {
        let (connection, _, messages) =
            new_multicast_connection(&[MulticastGroup::Link]).context("cannot listen to the host's links")?;
        let stream = messages.filter_map(|(message, _)| async move {
            match message.payload {
                NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(message)) => {
                    Some(LinkEvent::There(link(message)))
                }
                NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelLink(message)) => {
                    Some(LinkEvent::Gone(link(message)))
                }
                NetlinkPayload::Overrun(_) | NetlinkPayload::Error(_) => Some(LinkEvent::Missed),
                _ => None,
            }
        });
        Ok(LinkEvents { stream: Box::pin(stream), connection: tokio::spawn(connection) })
    }
}

/// Waits until an interface of this network namespace is up and has an address that others can reach (any but `lo`, when it has
/// no name here).
///
/// # Errors
/// It is not within `limit` (`gate`): with what there was instead.
pub async fn wait_for_address(name: Option<&str>, limit: Duration) -> Result<(), Failure> {
    let groups = [MulticastGroup::Link, MulticastGroup::Ipv4Ifaddr, MulticastGroup::Ipv6Ifaddr];
    let (connection, _, mut messages) =
        new_multicast_connection(&groups).context("cannot listen to this container's links")?;
    let listening = tokio::spawn(connection);
    let probe = Probe::new(Arc::new(NoBlobs), Arc::new(|_: &str, _| {}), PathBuf::new());
    let netlink = probe.netlink(None)?;
    let mut last = String::new();
    let waiting = async {
        loop {
            match look(&netlink, name).await? {
                None => return Ok(()),
                Some(seen) => last = seen,
            }
            // What happens between the look and this is heard all the same: the socket is older than the look.
            if messages.next().await.is_none() {
                return Err(Failure::new("the kernel's link events have ended"));
            }
        }
    };
    let waited = timeout(limit, waiting).await;
    netlink.close().await;
    listening.abort();
    match waited {
        Ok(done) => done,
        Err(_) => Err(Failure::timeout("gate", limit)
            .within(format!("no interface to start with: {last}"))
            .hint("is `attach` declared for this container, and does the host's watcher run (`fanli status`)?")),
    }
}

/// `None` when it is there, else what there is.
async fn look(netlink: &Netlink, name: Option<&str>) -> Result<Option<String>, Failure> {
    let links = netlink.links().await?;
    let wanted = |link: &&Link| name.map_or(link.name != "lo", |name| link.name == name);
    let addresses = netlink.all_addresses().await?;
    // Not what each interface gives itself: link-local ones are there at once.
    let reachable = |address: &IpAddr| match address {
        IpAddr::V4(address) => !address.is_link_local(),
        IpAddr::V6(address) => !address.is_unicast_link_local(),
    };
    let mut seen = Vec::new();
    for link in links.iter().filter(wanted) {
        let has = addresses.iter().any(|(index, net)| *index == link.index && reachable(&net.addr()));
        match (link.up, has) {
            (true, true) => return Ok(None),
            (up, has) => seen.push(format!(
                "{} is {}, {}",
                link.name,
                if up { "up" } else { "down" },
                if has { "with an address" } else { "without an address" }
            )),
        }
    }
    Ok(Some(match (seen.is_empty(), name) {
        (false, _) => seen.join("; "),
        (true, Some(name)) => format!("there is no {name}"),
        (true, None) => "there is none but lo".to_owned(),
    }))
}
