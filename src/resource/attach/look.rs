//! What there is: inside the container, and on the host.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use ipnet::Ipv4Net;

use super::old::Old;
use super::record::{Record, records};
use super::segment::Segment;
use super::{Attach, AttachState, IN_PLACE, shim};
use crate::change::{Datum, Fields, State};
use crate::failure::Failure;
use crate::resource::container::is_among;
use crate::system::Probe;
use crate::system::docker::Container;
use crate::system::firewall::Passage;
use crate::system::hostview::Network;
use crate::system::netlink::{Address6, Forward, Link, Netlink, Route, Route6};
use crate::value::Value;

/// The field that tells of an interface in an earlier network of the container.
pub const OLD: &str = "old_network";

/// Whether routes that other containers left behind are looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Others {
    /// They are.
    Look,
    /// They are not: the watcher drops each when its container ends.
    Skip,
}

/// Everything that one attachment concerns.
#[derive(Clone, Debug, Default)]
pub(super) struct View {
    /// The container, when it runs.
    pub(super) container: Option<Container>,
    /// The links, IPv4 addresses of ours, and routes in the container.
    pub(super) links: Vec<Link>,
    pub(super) addresses: Vec<Ipv4Net>,
    pub(super) routes: Vec<Route>,
    /// Its IPv6 addresses and default routes.
    pub(super) addresses6: Vec<Address6>,
    pub(super) routes6: Vec<Route6>,
    /// The parent, on the host.
    pub(super) parent: Option<Link>,
    /// The bridge that ports are in, and the tunnel in it with its table.
    pub(super) base: Option<Link>,
    pub(super) tunnel: Option<Link>,
    pub(super) forwards: Vec<Forward>,
    /// How that bridge stands with the firewall.
    pub(super) passage: Passage,
    /// The IPv4 addresses of the parent itself, the first of which tunnels use; and why they cannot move to a bridge.
    pub(super) card_addresses: Vec<Ipv4Net>,
    pub(super) underlay: Option<Ipv4Addr>,
    pub(super) immovable: Option<String>,
    /// All of the host's links, addresses and routes.
    pub(super) host: Arc<Network>,
    /// The address that the host speaks to its containers from.
    pub(super) source: Option<Ipv4Addr>,
    /// The shim of that parent, and whether it answers ARP only for what leads over it.
    pub(super) shim: Option<Link>,
    pub(super) shim_filters: bool,
    /// The link over which the network was asked for the address at the same time, when nobody answered.
    pub(super) silent_on: Option<u32>,
    /// Routes over the shim.
    pub(super) shim_routes: Vec<Route>,
    /// Whether the address is that of another container of this host by now: the route to it is that one's.
    pub(super) given_away: bool,
    /// Those that lead to containers that are gone.
    pub(super) stale: Vec<Route>,
    /// The record of this attachment.
    pub(super) record: Option<Record>,
    /// Its interface in an earlier network of the container, where something keeps that.
    pub(super) old: Option<Old>,
}

impl View {
    /// The container's link of the declared name.
    pub(super) fn own(&self, attach: &Attach) -> Option<&Link> {
        self.links.iter().find(|link| link.name == attach.interface)
    }

    /// Half-made links, and links of this attachment under another name.
    pub(super) fn leftovers<'a>(&'a self, attach: &'a Attach) -> impl Iterator<Item = &'a Link> {
        let (temporary, owner) = (attach.temporary(), attach.owner());
        self.links.iter().filter(move |link| {
            link.name != attach.interface && (link.name == temporary || link.alias.starts_with(&owner))
        })
    }

    /// The default route over a link of the container.
    pub(super) fn gateways(&self, index: u32) -> impl Iterator<Item = &Route> {
        self.routes.iter().filter(move |route| route.to.prefix_len() == 0 && route.link == index)
    }

    /// The container's route to the host, which it needs when the host's address is none of its own network's.
    pub(super) fn host_route(&self, attach: &Attach) -> Option<Ipv4Net> {
        let source = self.source?;
        let near = attach.subnet.is_some_and(|subnet| subnet.contains(&IpAddr::V4(source)));
        (attach.host_reaches() && !near).then(|| Ipv4Net::from(source))
    }
}

impl Attach {
    /// Looks at the container and the host. Changes nothing, and leaves nothing open. Whether routes of other containers are
    /// stale costs a list of all containers: only where `others` asks for it.
    pub(super) async fn look(&self, probe: &Probe, others: Others) -> Result<View, Failure> {
        let mut view = View::default();
        let docker = probe.docker()?;
        if let Some(found) = docker.container(&self.container).await?.filter(|found| found.pid.is_some()) {
            let namespace = probe.namespace(&docker, &found).await?;
            let inside = probe.netlink(Some(&namespace))?;
            let seen = self.look_inside(&inside, &mut view).await;
            inside.close().await;
            seen.map_err(|failure| failure.within(format!("cannot look into container {}", self.container)))?;
            view.container = Some(found);
        }

        self.look_at_host(probe, &mut view).await?;

        view.record = self.recorded(probe)?;
        view.given_away = self.state == AttachState::Absent && self.given_away(probe).await?;
        view.old = self.look_for_old(&view, probe).await?;
        if others == Others::Look {
            view.stale = self.stale_routes(&view, probe).await?;
        }
        Ok(view)
    }

    async fn look_inside(&self, inside: &Netlink, view: &mut View) -> Result<(), Failure> {
        view.links = inside.links().await?;
        if let Some(index) = view.own(self).map(|link| link.index) {
            (view.addresses, view.addresses6) = inside.both_addresses(index).await?;
            view.routes = inside.routes().await?;
            // Without an address there is none, and each question costs.
            if self.address6.is_some() || !view.addresses6.is_empty() {
                let routes6 = inside.default_routes6().await?;
                view.routes6 = routes6.into_iter().filter(|route| route.link == index).collect();
            }
        }
        Ok(())
    }

    pub(super) async fn look_at_host(&self, probe: &Probe, view: &mut View) -> Result<(), Failure> {
        let host = probe.host_network().await?;
        let by_name = |name: &str| host.link(name).cloned();
        view.parent = by_name(&self.card());
        let bridge = if self.parent_is_bridge(view) { self.card() } else { self.bridge_name() };
        let way = if self.segment() == Segment::Card { self.way() } else { bridge.clone() };
        view.shim = by_name(&way);
        if self.segment() != Segment::Card {
            view.base = by_name(&bridge);
            view.passage = probe.recent_passage(&bridge).await?;
        }
        if self.segment() == Segment::Tunnel {
            view.tunnel = by_name(&self.tunnel_name());
            if let Some(tunnel) = &view.tunnel {
                view.forwards = probe.host_forwards(tunnel.index).await?;
            }
        }
        if let Some(shim) = &view.shim {
            view.shim_filters = self.segment() != Segment::Card
                || probe.host_switch(&shim.name, "arp_filter").is_none_or(|value| value == "1");
            let over = |route: &&Route| route.link == shim.index && route.to.prefix_len() == 32;
            view.shim_routes = host.routes.iter().filter(over).copied().collect();
        }
        // The host speaks from its address on the same wire; where it has none there, from the one it goes out with.
        let outward = host.routes.iter().find(|route| route.to.prefix_len() == 0).map(|route| route.link);
        let parent = view.parent.as_ref().map(|parent| parent.index);
        if let Some(parent) = parent {
            view.card_addresses = host.addresses(parent);
            view.underlay = view.card_addresses.first().map(Ipv4Net::addr);
            if self.segment() == Segment::Bridge {
                view.immovable = host.immovable(parent);
            }
        }
        let bridge = view.base.as_ref().filter(|_| self.segment() == Segment::Bridge).map(|bridge| bridge.index);
        let here = |net: &&Ipv4Net| self.subnet.is_some_and(|subnet| subnet.contains(&IpAddr::V4(net.addr())));
        view.source = parent.into_iter().chain(bridge).chain(outward).find_map(|index| {
            let addresses = host.addresses(index);
            addresses.iter().find(here).or(addresses.first()).map(Ipv4Net::addr)
        });
        view.host = host;
        Ok(())
    }

    /// The routes over the shim to containers that are gone. All routes over a shim are fanli's; over a bridge somebody else's
    /// may lead.
    async fn stale_routes(&self, view: &View, probe: &Probe) -> Result<Vec<Route>, Failure> {
        let address = |route: &Route| IpAddr::V4(route.to.addr());
        let foreign = |route: &&Route| Some(address(route)) != self.address;
        let mut other: Vec<Route> = view.shim_routes.iter().filter(foreign).copied().collect();
        if other.is_empty() {
            return Ok(other);
        }
        let records = records(probe)?;
        if self.segment() != Segment::Card {
            other.retain(|route| records.of_address(address(route)).next().is_some());
        }
        let own = self.record_name();
        let (mut containers, mut now) = probe.recent_containers(false).await?;
        loop {
            let lives = |route: &Route| {
                let mut claims = records.of_address(address(route));
                claims.any(|(name, record)| *name != own && is_among(&containers, &record.container))
            };
            let stale: Vec<Route> = other.iter().filter(|route| !lives(route)).copied().collect();
            // What is not on an older list may have come since.
            if stale.is_empty() || now {
                return Ok(stale);
            }
            (containers, now) = probe.recent_containers(true).await?;
        }
    }

    /// The container's link of the declared name, which must be ours.
    pub(super) fn refuse_foreign<'a>(&self, view: &'a View) -> Result<Option<&'a Link>, Failure> {
        match view.own(self) {
            Some(link) if !marked(link) => {
                let (container, name) = (&self.container, &link.name);
                Err(Failure::new(format!("container {container} has an interface {name} that fanli did not make"))
                    .hint("remove it, or choose another name with `interface = \"eth1\"`"))
            }
            link => Ok(link),
        }
    }

    /// Whether the host remembers another container, which is there, with this one's address: what is to be gone then, or ended, has
    /// no claim on the route.
    pub(super) async fn given_away(&self, probe: &Probe) -> Result<bool, Failure> {
        let Some(address) = self.address else { return Ok(false) };
        let (own, records) = (self.record_name(), records(probe)?);
        let others: Vec<&(String, Record)> = records.of_address(address).filter(|(name, _)| *name != own).collect();
        if others.is_empty() {
            return Ok(false);
        }
        let (containers, _) = probe.recent_containers(true).await?;
        Ok(others.iter().any(|(_, record)| containers.contains(&record.container)))
    }

    /// The host's route to the container.
    pub(super) fn own_shim_route<'a>(&self, view: &'a View) -> Option<&'a Route> {
        if view.given_away {
            return None;
        }
        view.shim_routes.iter().find(|route| Some(IpAddr::V4(route.to.addr())) == self.address)
    }

    /// The view in the words of `desired`.
    pub(super) fn state_of(&self, view: &View) -> Result<State, Failure> {
        self.refuse_older(view)?;
        let wanted_absent = self.state == AttachState::Absent;
        let link =
            if wanted_absent { view.own(self).filter(|link| self.is_own(link)) } else { self.refuse_foreign(view)? };
        let shim_route = self.own_shim_route(view);
        let old = view.old.as_ref().map(Old::describe);
        if link.is_none() && old.is_none() && view.leftovers(self).next().is_none() {
            // What is left on the host of something that is to be there is told when it is; of something that is not, now.
            let remains = wanted_absent && (shim_route.is_some() || view.record.is_some());
            return Ok(if remains { State::Present(Fields::new()) } else { State::Absent });
        }

        let mut fields = Fields::from([("record".to_owned(), self.describe_record(view))]);
        if let Some(old) = old {
            fields.insert(OLD.to_owned(), old.into());
        }
        let mut tell = |name: &str, datum: Datum| fields.insert(name.to_owned(), datum);
        if let Some(link) = link {
            tell("link", format!("{} {}", link.kind, link.mode).trim().into());
            tell("up", link.up.into());
            if view.parent.as_ref().is_some_and(|parent| !parent.up) {
                tell("card_down", self.card().into());
            }
            tell("parent", self.stands_on(link, view).into());
            if self.segment() != Segment::Card {
                tell("port", super::port::describe(link, view).into());
            }
            self.observed_addressing(link, view, &mut tell);
        }
        if self.segment() != Segment::Card {
            tell("segment", self.describe_segment(view).into());
            tell("peers", super::addressing::list(&super::segment::told(&view.forwards)));
        }
        let asking = view.host.links.iter().find(|link| link.name == self.asking_name());
        if let Some(left) = view.leftovers(self).next().or(asking) {
            tell("leftover", left.name.as_str().into());
        }
        if let Some(shim) = view.shim.as_ref().filter(|_| self.segment() == Segment::Card) {
            tell("shim", shim::describe(shim, view).into());
        }
        if let Some(route) = shim_route {
            let right = route.source == view.source;
            let source = |address: Ipv4Addr| format!("from {address}");
            let text = if right || !self.host_reaches() {
                IN_PLACE.to_owned()
            } else {
                route.source.map(source).unwrap_or_default()
            };
            tell("shim_route", text.into());
        }
        if !view.stale.is_empty() {
            let stale = view.stale.iter().map(|route| Value::Str(route.to.addr().to_string())).collect();
            tell("stale_routes", Value::List(stale).into());
        }
        Ok(State::Present(fields))
    }
}

impl Attach {
    /// Whether a link in the container is this attachment's: another network may have one of the same name there.
    pub(super) fn is_own(&self, link: &Link) -> bool {
        link.alias.starts_with(&self.owner())
    }
}

/// Whether a link in a container is one of fanli's.
pub(super) fn marked(link: &Link) -> bool {
    link.alias.starts_with("fanli:1:")
}
