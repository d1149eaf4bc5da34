//! What the link in the container gets, whatever it stands on: name, MAC address, addresses, routes, MTU.

use ipnet::Ipv4Net;

use super::look::View;
use super::plug::Sockets;
use super::segment::Base;
use super::wanted::Way;
use super::{Attach, IN_PLACE, PARENTS, Wanted};
use crate::change::{Datum, Fields};
use crate::failure::Failure;
use crate::system::Actuator;
use crate::system::netlink::{Address6, Link, Mac, Route};

/// Several in one line; none is absent.
pub(super) fn list(items: &[String]) -> Datum {
    if items.is_empty() { Datum::Absent } else { items.join(", ").into() }
}

fn texts(items: &[impl ToString]) -> Vec<String> {
    items.iter().map(ToString::to_string).collect()
}

/// The routes of a link beside its default one and those that need no router.
fn ways(view: &View, index: u32) -> Vec<Way> {
    let beside = |route: &&Route| route.link == index && route.to.prefix_len() > 0;
    let mut ways: Vec<Way> =
        view.routes.iter().filter(beside).filter_map(|route| Some(Way { to: route.to, via: route.via? })).collect();
    ways.sort_unstable();
    ways
}

/// Whether the route to an address's own network is there, which the kernel makes with the address while the link is up.
fn is_connected(net: Ipv4Net, link: &Link, view: &View) -> bool {
    let own = |route: &Route| route.to == net.trunc() && route.link == link.index && route.via.is_none();
    !link.up || net.prefix_len() == 32 || view.routes.iter().any(own)
}

impl Attach {
    pub(super) fn desired_addressing(&self, wanted: &Wanted, fields: &mut Fields) {
        let mut want = |name: &str, datum: Datum| fields.insert(name.to_owned(), datum);
        if !self.takes_card() {
            want("mac", wanted.mac.to_string().into());
        }
        want("mtu", wanted.mtu.map_or_else(|| Datum::from(PARENTS), Datum::from));
        want("address", wanted.address.to_string().into());
        want("gateway", wanted.gateway.map_or(Datum::Absent, |gateway| gateway.to_string().into()));
        want("routes", list(&texts(&wanted.routes)));
        let (net6, gateway6) = wanted.v6.map_or((None, None), |(net, gateway)| (Some(net), gateway));
        want("address6", net6.map_or(Datum::Absent, |net| net.to_string().into()));
        want("gateway6", gateway6.map_or(Datum::Absent, |gateway| gateway.to_string().into()));
    }

    pub(super) fn observed_addressing<R>(&self, link: &Link, view: &View, tell: &mut impl FnMut(&str, Datum) -> R) {
        tell("mac", link.mac.map_or(Datum::Absent, |mac| Mac(mac).to_string().into()));
        let as_parent = self.mtu.is_none() && self.segment_mtu(view) == Some(link.mtu);
        tell("mtu", if as_parent { PARENTS.into() } else { link.mtu.into() });
        let address = |net: &Ipv4Net| {
            let flaw = if is_connected(*net, link, view) { "" } else { " (without the route to its network)" };
            format!("{net}{flaw}")
        };
        tell("address", list(&view.addresses.iter().map(address).collect::<Vec<_>>()));
        let router = |route: &Route| route.via.map_or_else(|| "the network itself".to_owned(), |via| via.to_string());
        tell("gateway", list(&view.gateways(link.index).map(router).collect::<Vec<_>>()));
        tell("routes", list(&texts(&ways(view, link.index))));
        let reaches = |net: Ipv4Net| {
            view.routes.iter().any(|route| route.to == net && route.link == link.index && route.via.is_none())
        };
        let host_route = view.host_route(self).is_none_or(reaches);
        tell("host_route", if host_route { IN_PLACE.into() } else { Datum::Absent });
        let six = |found: &Address6| match found {
            Address6 { duplicate: true, net, .. } => format!("{net} (another machine has it)"),
            Address6 { net, .. } => net.to_string(),
        };
        tell("address6", list(&view.addresses6.iter().map(six).collect::<Vec<_>>()));
        let router6 = |via: Option<std::net::Ipv6Addr>| {
            via.map_or_else(|| "the network itself".to_owned(), |via| via.to_string())
        };
        tell("gateway6", list(&view.routes6.iter().map(|route| router6(route.via)).collect::<Vec<_>>()));
    }

    /// Brings a link of ours to what is wanted; what the container had of it stays where it is right.
    pub(super) async fn address(
        &self,
        sockets: &Sockets<'_>,
        wanted: &Wanted,
        view: &View,
        base: &Base,
        (index, fresh): (u32, bool),
        hands: &Actuator,
    ) -> Result<(), Failure> {
        let inside = sockets.inside;
        let mtu = wanted.mtu.unwrap_or(base.mtu);
        inside.set_alias(index, &self.alias(wanted)).await?;
        let name = if fresh { self.temporary() } else { self.interface.clone() };
        let mut switches = Vec::new();
        if fresh || wanted.v6.is_some() {
            // Addresses come from the playbook alone.
            switches.extend([("ipv6/accept_ra", "0"), ("ipv6/autoconf", "0")]);
        }
        if wanted.v6.is_some() {
            // Docker turns IPv6 off where it gave no address; the kernel then tells neighbours by itself who has ours.
            switches.extend([("ipv6/disable_ipv6", "0"), ("ipv6/ndisc_notify", "1")]);
        }
        if !switches.is_empty() {
            hands.interface_switches(Some(sockets.namespace), &name, &switches)?;
        }
        if !fresh && view.own(self).is_none_or(|link| link.mtu != mtu) {
            inside.set_mtu(index, mtu).await?;
        }
        self.ensure_port(sockets, index, base, mtu).await?;
        if !fresh {
            for other in view.addresses.iter().filter(|address| **address != wanted.address) {
                inside.remove_address(index, *other).await?;
            }
        }
        inside.add_address(index, wanted.address).await?;
        // It has its name from the moment on in which all else is as it should be.
        inside.set_up(index, fresh.then_some(&self.interface)).await?;
        self.route(sockets, wanted, view, (index, fresh)).await?;
        self.address6(sockets, wanted, view, (index, fresh)).await
    }

    async fn route(
        &self,
        sockets: &Sockets<'_>,
        wanted: &Wanted,
        view: &View,
        (index, fresh): (u32, bool),
    ) -> Result<(), Failure> {
        let inside = sockets.inside;
        if !fresh {
            let gateways =
                view.gateways(index).filter(|route| route.via.is_none() || route.via != wanted.gateway).copied();
            let others = ways(view, index).into_iter().filter(|way| !wanted.routes.contains(way));
            let others = others.map(|way| Route { to: way.to, via: Some(way.via), link: index, source: None });
            for route in gateways.chain(others).collect::<Vec<_>>() {
                inside.remove_route(&route).await?;
            }
        }
        let own = view.own(self).filter(|_| !fresh);
        if own.is_some_and(|link| !is_connected(wanted.address, link, view)) {
            let source = Some(wanted.address.addr());
            inside.set_route(&Route { to: wanted.address.trunc(), via: None, link: index, source }).await?;
        }
        if let Some(gateway) = wanted.gateway {
            let to = Ipv4Net::default();
            inside.set_route(&Route { to, via: Some(gateway), link: index, source: None }).await?;
        }
        for way in &wanted.routes {
            inside.set_route(&Route { to: way.to, via: Some(way.via), link: index, source: None }).await?;
        }
        if let Some(to) = view.host_route(self) {
            inside.set_route(&Route { to, via: None, link: index, source: None }).await?;
        }
        Ok(())
    }

    async fn address6(
        &self,
        sockets: &Sockets<'_>,
        wanted: &Wanted,
        view: &View,
        (index, fresh): (u32, bool),
    ) -> Result<(), Failure> {
        let inside = sockets.inside;
        let (net, gateway) = wanted.v6.map_or((None, None), |(net, gateway)| (Some(net), gateway));
        if !fresh {
            let right = |found: &Address6| Some(found.net) == net && !found.duplicate;
            for other in view.addresses6.iter().filter(|found| !right(found)) {
                inside.remove_address6(index, other.net).await?;
            }
            for route in view.routes6.iter().filter(|route| route.via.is_none() || route.via != gateway) {
                inside.remove_default_route6(route).await?;
            }
        }
        let Some(net) = net else { return Ok(()) };
        inside.add_address6(index, net).await?;
        if let Some(gateway) = gateway {
            inside.set_default_route6(index, gateway).await?;
        }
        inside.detected6(index, net).await
    }
}
