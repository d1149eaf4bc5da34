//! Links of this host that stand on one of its network cards and are in other network namespaces.
//!
//! A namespace has a number in another one (`RTM_NEWNSID`). The number keeps nothing alive, unlike a descriptor, and it lasts as long as the
//! namespace: so a link that was plugged into a container is found, and removed, after the container is gone and something else keeps
//! its network. Listing by number is Linux 4.15, removing 4.16.

use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use rtnetlink::LinkUnspec;
use rtnetlink::packet_route::link::{LinkAttribute, LinkExtentMask, LinkMessage};
use rtnetlink::packet_route::neighbour::{NeighbourAttribute, NeighbourFlags, NeighbourMessage};
use rtnetlink::packet_route::nsid::{NsidAttribute, NsidMessage};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use rustix::io::Errno;

use super::{Link, Mac, Netlink, NetlinkHands, is, limited, link};
use crate::failure::Failure;
use crate::system::waiting::waiting;

/// The number of a network namespace, as seen from another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Number(i32);

/// A link in another namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Elsewhere {
    /// The number of that namespace.
    pub number: Number,
    /// The link.
    pub link: Link,
}

fn number(message: &NsidMessage) -> Option<Number> {
    message.attributes.iter().find_map(|attribute| match attribute {
        // -1 is none.
        NsidAttribute::Id(id) if *id >= 0 => Some(Number(*id)),
        _ => None,
    })
}

fn about(attributes: Vec<NsidAttribute>) -> NsidMessage {
    let mut message = NsidMessage::default();
    message.attributes = attributes;
    message
}

fn descriptor(namespace: &impl AsFd) -> NsidAttribute {
    NsidAttribute::Fd(namespace.as_fd().as_raw_fd().unsigned_abs())
}

impl Netlink {
    /// The number of a namespace, when it has one.
    ///
    /// # Errors
    /// The kernel does not answer.
    pub async fn number_of(&self, namespace: &impl AsFd) -> Result<Option<Number>, Failure> {
        let message = about(vec![descriptor(namespace)]);
        limited("cannot ask for the number of a network", async {
            match self.talk.get(RouteNetlinkMessage::GetNsId(message)).await {
                Err(error) if is(&error, Errno::OPNOTSUPP) => Ok(None),
                other => Ok(match other? {
                    Some(RouteNetlinkMessage::NewNsId(message)) => number(&message),
                    _ => None,
                }),
            }
        })
        .await
    }

    async fn numbers(&self) -> Result<Vec<Number>, Failure> {
        limited("cannot list the numbers of networks", async {
            match self.talk.list(RouteNetlinkMessage::GetNsId(NsidMessage::default())).await {
                Err(error) if is(&error, Errno::OPNOTSUPP) => Ok(Vec::new()),
                other => Ok(other?
                    .iter()
                    .filter_map(|message| match message {
                        RouteNetlinkMessage::NewNsId(message) => number(message),
                        _ => None,
                    })
                    .collect()),
            }
        })
        .await
    }

    /// The links in other namespaces that stand on link `card` of this one, as far as those namespaces have a number here. One that
    /// is going away has none to ask by.
    ///
    /// # Errors
    /// The kernel does not answer.
    pub async fn links_elsewhere(&self, card: u32) -> Result<Vec<Elsewhere>, Failure> {
        let mut found = Vec::new();
        for number in self.numbers().await? {
            let mut message = LinkMessage::default();
            message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
            message.attributes.push(LinkAttribute::IfNetnsId(number.0));
            let listed = limited("cannot list the links of another network", async {
                match self.talk.list(RouteNetlinkMessage::GetLink(message)).await {
                    // It is going away, or the kernel cannot list by number.
                    Err(error) if is(&error, Errno::INVAL) || is(&error, Errno::OPNOTSUPP) => Ok(Vec::new()),
                    other => other,
                }
            });
            found.extend(listed.await?.into_iter().filter_map(|message| match message {
                RouteNetlinkMessage::NewLink(message) => elsewhere(number, message),
                _ => None,
            }));
        }
        found.retain(|(_, there)| there.link.parent == Some(card));
        if found.is_empty() {
            return Ok(Vec::new());
        }
        // Its number for itself comes into being when a link is listed that refers to it.
        let own = std::fs::File::open("/proc/self/ns/net").ok();
        let own = match own {
            Some(own) => self.number_of(&own).await?,
            None => None,
        };
        Ok(found.into_iter().filter(|(stands_in, _)| Some(*stands_in) == own).map(|(_, there)| there).collect())
    }

    /// Whether a network card takes frames for a MAC address that is not its own: then a macvlan with it is up on the card, in
    /// whichever namespace of this host, be that one on its way out.
    ///
    /// # Errors
    /// The kernel does not answer.
    pub async fn takes_frames(&self, card: u32, mac: Mac) -> Result<bool, Failure> {
        let mut message = NeighbourMessage::default();
        message.header.family = AddressFamily::Bridge;
        let work = self.talk.list(RouteNetlinkMessage::GetNeighbour(message));
        let messages = limited("cannot list the addresses of a network card", work).await?;
        Ok(messages.iter().any(|message| match message {
            RouteNetlinkMessage::NewNeighbour(message) => {
                message.header.ifindex == card
                    && message.header.flags.contains(NeighbourFlags::Own)
                    && message.attributes.contains(&NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()))
            }
            _ => false,
        }))
    }

    /// Waits until the card takes no more frames for that MAC address; false when it still does after `limit`.
    ///
    /// # Errors
    /// The kernel does not answer.
    pub async fn until_untaken(&self, card: u32, mac: Mac, limit: Duration) -> Result<bool, Failure> {
        let started = Instant::now();
        let gone = async {
            while self.takes_frames(card, mac).await? {
                if started.elapsed() >= limit {
                    return Ok(false);
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            Ok(true)
        };
        waiting("cannot see an old network go", Box::pin(gone)).await
    }
}

/// The link, before it the number of the namespace that it stands in.
fn elsewhere(number: Number, message: LinkMessage) -> Option<(Number, Elsewhere)> {
    // A kernel that does not know the attribute lists its own links.
    if !message.attributes.contains(&LinkAttribute::IfNetnsId(number.0)) {
        return None;
    }
    let stands_in = message.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::LinkNetNsId(id) if *id >= 0 => Some(Number(*id)),
        _ => None,
    })?;
    Some((stands_in, Elsewhere { number, link: link(message) }))
}

impl NetlinkHands {
    /// Gives a namespace a number here; one that has one keeps it. A kernel without numbers is fine.
    ///
    /// # Errors
    /// The kernel refuses it.
    pub async fn number(&self, namespace: &impl AsFd) -> Result<(), Failure> {
        let message = RouteNetlinkMessage::NewNsId(about(vec![NsidAttribute::Id(-1), descriptor(namespace)]));
        limited("cannot number a network", async {
            match self.unless(Errno::EXIST, message, 0).await {
                Err(error) if is(&error, Errno::OPNOTSUPP) => Ok(()),
                other => other,
            }
        })
        .await
    }

    /// Deletes a link in another namespace; one that is not there, or whose namespace is gone, is fine.
    ///
    /// # Errors
    /// The kernel refuses it.
    pub async fn delete_elsewhere(&self, there: &Elsewhere) -> Result<(), Failure> {
        let mut message = LinkUnspec::new_with_index(there.link.index).build();
        message.attributes.push(LinkAttribute::IfNetnsId(there.number.0));
        limited("cannot delete a link of another network", async {
            match self.unless(Errno::NODEV, RouteNetlinkMessage::DelLink(message), 0).await {
                Err(error) if is(&error, Errno::INVAL) => Ok(()),
                other => other,
            }
        })
        .await
    }
}
