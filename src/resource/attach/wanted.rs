//! The parameters of an attachment, checked, in the types that netlink speaks.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::segment::Segment;
use super::{Attach, Mode, Variant};
use crate::resource::{ArgError, Param, ParamType};
use crate::system::netlink::{Forward, Mac, link_name};
use crate::value::{Arrow, Digest, Quoted, Value};

/// The UDP port of tunnels: Docker's swarm has 4789, Linux's own default is 8472.
const UDP: u16 = 14_789;

/// The parameters in the types that netlink speaks.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub(super) address: Ipv4Net,
    pub(super) gateway: Option<Ipv4Addr>,
    pub(super) mac: Mac,
    pub(super) mtu: Option<u32>,
    pub(super) routes: Vec<Way>,
    pub(super) v6: Option<(Ipv6Net, Option<Ipv6Addr>)>,
}

/// A route beside the default one: `10.50.0.0/16 -> 10.20.0.1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Way {
    /// Where it leads.
    pub to: Ipv4Net,
    /// Over which router.
    pub via: Ipv4Addr,
}

impl std::fmt::Display for Way {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} -> {}", self.to, self.via)
    }
}

impl Param for Way {
    const TYPE: ParamType = ParamType::Any;

    fn read(value: Value) -> Result<Self, String> {
        let misfit = || {
            format!(
                "expected a route such as `10.50.0.0/16 -> 10.20.0.1`, found {} `{}`",
                value.type_name(),
                Quoted(&value)
            )
        };
        let Value::Arrow(arrow) = &value else { return Err(misfit()) };
        let to: Ipv4Net = arrow.from.parse().map_err(|_| misfit())?;
        let via = arrow.to.parse().map_err(|_| misfit())?;
        if !arrow.flags.is_empty() {
            return Err(misfit());
        }
        if to.addr() != to.network() {
            return Err(format!("`{to}` is a host in {}, not a network", to.trunc()));
        }
        if to.prefix_len() == 0 {
            return Err(format!("`{to}` is what `gateway` is for"));
        }
        Ok(Self { to, via })
    }

    fn value(&self) -> Value {
        Value::Arrow(Box::new(Arrow { from: self.to.to_string(), to: self.via.to_string(), flags: Vec::new() }))
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl Attach {
    pub(super) fn wanted(&self) -> Result<Wanted, ArgError> {
        let missing = |field: &str| ArgError::new(field, format!("is required with `mode = {}`", self.mode.show()));
        let v4 = |field: &str, address: IpAddr| match address {
            IpAddr::V4(address) => Ok(address),
            IpAddr::V6(address) => {
                Err(ArgError::new(field, format!("`{address}`: IPv6 stands beside an IPv4 address, in `{field}6`")))
            }
        };
        let IpNet::V4(subnet) = self.subnet.ok_or_else(|| missing("subnet"))? else {
            return Err(ArgError::new("subnet", "IPv6 stands beside an IPv4 network, in `subnet6`"));
        };
        let address = v4("address", self.address.ok_or_else(|| missing("address"))?)?;
        let ends = subnet.prefix_len() < 31 && (address == subnet.network() || address == subnet.broadcast());
        if !subnet.contains(&address) || ends {
            return Err(ArgError::new("address", format!("`{address}` is no host's address in {subnet}")));
        }
        let gateway = self.gateway.map(|gateway| v4("gateway", gateway)).transpose()?;
        if let Some(gateway) = gateway.filter(|gateway| !subnet.contains(gateway) || *gateway == address) {
            return Err(ArgError::new("gateway", format!("`{gateway}` is not another host in {subnet}")));
        }
        let mut routes = self.routes.clone();
        routes.sort_unstable();
        if let Some(route) = routes.iter().find(|route| !subnet.contains(&route.via) || route.via == address) {
            let message = format!("`{route}`: the router is not another host in {subnet}");
            return Err(ArgError::new("routes", message));
        }
        let twice = routes.iter().zip(routes.iter().skip(1)).find(|(first, second)| first.to == second.to);
        if let Some((first, _)) = twice {
            return Err(ArgError::new("routes", format!("{} stands twice", first.to)));
        }
        let mac = match &self.mac {
            Some(_) if self.variant == Variant::Passthru && self.mode == Mode::Macvlan => {
                return Err(ArgError::new("mac", "with `variant = passthru` the interface has the network card's"));
            }
            Some(text) => text.parse().map_err(|message: String| ArgError::new("mac", message))?,
            None => self.computed_mac(address)?,
        };
        let number = |mtu: i64| u32::try_from(mtu).ok().filter(|mtu| (68..=65_535).contains(mtu));
        let misfit = |mtu: i64| ArgError::new("mtu", format!("`{mtu}` is not between 68 and 65535"));
        let mtu = self.mtu.map(|mtu| number(mtu).ok_or_else(|| misfit(mtu))).transpose()?;
        let v6 = self.wanted6()?;
        if let Some(mtu) = mtu.filter(|mtu| v6.is_some() && *mtu < 1280) {
            return Err(ArgError::new("mtu", format!("`{mtu}` is less than the 1280 that IPv6 needs")));
        }
        let address =
            Ipv4Net::new(address, subnet.prefix_len()).map_err(|error| ArgError::new("subnet", error.to_string()))?;
        Ok(Wanted { address, gateway, mac, mtu, routes, v6 })
    }

    fn wanted6(&self) -> Result<Option<(Ipv6Net, Option<Ipv6Addr>)>, ArgError> {
        let v6 = |field: &str, address: IpAddr| match address {
            IpAddr::V6(address) => Ok(address),
            IpAddr::V4(address) => Err(ArgError::new(field, format!("`{address}` is not an IPv6 address"))),
        };
        let Some(address) = self.address6 else {
            return match self.gateway6 {
                // A network may have IPv6 where not every node does.
                Some(gateway) => v6("gateway6", gateway).map(|_| None),
                None => Ok(None),
            };
        };
        let address = v6("address6", address)?;
        let Some(IpNet::V6(subnet)) = self.subnet6 else {
            return Err(ArgError::new("subnet6", "is required with `address6`: an IPv6 network such as fd00:20::/64"));
        };
        if !subnet.contains(&address) || (subnet.prefix_len() < 127 && address == subnet.network()) {
            return Err(ArgError::new("address6", format!("`{address}` is no host's address in {subnet}")));
        }
        let gateway = self.gateway6.map(|gateway| v6("gateway6", gateway)).transpose()?;
        let near = |gateway: Ipv6Addr| subnet.contains(&gateway) || gateway.is_unicast_link_local();
        if let Some(gateway) = gateway.filter(|gateway| !near(*gateway) || *gateway == address) {
            return Err(ArgError::new("gateway6", format!("`{gateway}` is not another host in {subnet}")));
        }
        let net =
            Ipv6Net::new(address, subnet.prefix_len()).map_err(|error| ArgError::new("subnet6", error.to_string()))?;
        Ok(Some((net, gateway)))
    }

    /// The MAC address that its link will have, as far as the declaration tells.
    pub fn declared_mac(&self) -> Option<Mac> {
        let alone = self.by_docker() || self.takes_card() || self.state == super::AttachState::Absent;
        self.wanted().ok().filter(|_| !alone).map(|wanted| wanted.mac)
    }

    /// 02, a byte for the network, the address: the same on every run and every host, so a container that moves keeps it.
    pub(super) fn computed_mac(&self, address: Ipv4Addr) -> Result<Mac, ArgError> {
        let subnet = self.subnet.map_or_else(String::new, |subnet| subnet.to_string());
        let digest = Digest::of(format!("{}\0{subnet}", self.network).as_bytes());
        let [network, ..] = digest.0;
        let cluster = match self.cluster {
            Some(byte) => u8::try_from(byte)
                .map_err(|_| ArgError::new("cluster", format!("`{byte}` is not between 0 and 255")))?,
            // 02:42 are Docker's own.
            None if network == 0x42 => 0x43,
            None => network,
        };
        let [a, b, c, d] = address.octets();
        Ok(Mac([0x02, cluster, a, b, c, d]))
    }

    /// The number and the UDP port of a tunnel.
    pub(super) fn tunnel_numbers(&self) -> Result<(u32, u16), ArgError> {
        let digest = Digest::of(format!("vxlan\0{}", self.network).as_bytes());
        let [a, b, c, ..] = digest.0;
        let vni = match self.vni {
            Some(vni) => u32::try_from(vni)
                .ok()
                .filter(|vni| (1..1 << 24).contains(vni))
                .ok_or_else(|| ArgError::new("vni", format!("`{vni}` is not between 1 and 16777215")))?,
            // The upper half: swarm's networks begin at 4096 and grow.
            None => u32::from_be_bytes([0, a | 0x80, b, c]),
        };
        let udp = match self.udp {
            Some(port) => u16::try_from(port)
                .ok()
                .filter(|port| *port > 0)
                .ok_or_else(|| ArgError::new("udp", format!("`{port}` is not a port; they are 1 to 65535")))?,
            None => UDP,
        };
        if udp == 4789 {
            return Err(ArgError::new("udp", "4789 is the port of Docker's swarm: choose another"));
        }
        Ok((vni, udp))
    }

    /// What a tunnel must know: every other host, and which addresses live there.
    pub(super) fn forwards(&self) -> Result<Vec<Forward>, ArgError> {
        let wrong = |what: &str, value: &dyn std::fmt::Display| {
            ArgError::new("peers", format!("`{value}` is not {what}; write `{{ \"10.0.0.2\" = [10.20.0.7] }}`"))
        };
        let address = |value: &Value| match value {
            Value::Ip(IpAddr::V4(address)) => Some(*address),
            Value::Str(text) => text.parse().ok(),
            _ => None,
        };
        let mut found = BTreeSet::new();
        for (host, nodes) in &self.peers {
            let to: Ipv4Addr = host.parse().map_err(|_| wrong("an IPv4 address of another host", host))?;
            found.insert(Forward { mac: None, to });
            let Value::List(nodes) = nodes else { return Err(wrong("a list of addresses", &Quoted(nodes))) };
            for node in nodes {
                let node = address(node).ok_or_else(|| wrong("a node's IPv4 address", &Quoted(node)))?;
                found.insert(Forward { mac: Some(self.computed_mac(node)?.0), to });
            }
        }
        Ok(found.into_iter().collect())
    }

    /// Rules over parameters that are not for every mode.
    pub(super) fn check_mode(&self) -> Result<(), ArgError> {
        let only = |field: &str, given: bool, mode: &str, fits: bool| {
            let error = || ArgError::new(field, format!("is for `mode = {mode}` alone"));
            if given && !fits { Err(error()) } else { Ok(()) }
        };
        only("variant", self.variant != Variant::Bridge, "macvlan", self.mode == Mode::Macvlan)?;
        let tunnel = self.segment() == Segment::Tunnel;
        only("vni", self.vni.is_some(), "vxlan", tunnel)?;
        only("udp", self.udp.is_some(), "vxlan", tunnel)?;
        only("peers", !self.peers.is_empty(), "vxlan", tunnel)?;
        only("bridge", self.bridge.is_some(), "bridge", self.mode == Mode::Bridge)?;
        let docker = self.by_docker();
        only("port", self.port.is_some(), "nat` and `host", docker)?;
        only("inside", self.inside.is_some(), "nat", docker)?;
        if docker {
            return Ok(());
        }
        let Some(parent) = &self.parent else {
            return Err(ArgError::new("parent", format!("is required with `mode = {}`", self.mode.show())));
        };
        link_name(parent).map_err(|message| ArgError::new("parent", message))?;
        if let Some(vlan) = self.vlan {
            if !(1..=4094).contains(&vlan) {
                return Err(ArgError::new("vlan", format!("`{vlan}` is not between 1 and 4094")));
            }
            link_name(&self.card())
                .map_err(|_| ArgError::new("vlan", format!("`{}` is too long for a link's name", self.card())))?;
        }
        if let Some(bridge) = &self.bridge {
            link_name(bridge).map_err(|message| ArgError::new("bridge", message))?;
            if *bridge == self.card() {
                return Err(ArgError::new("bridge", format!("`{bridge}` is the network card's own name")));
            }
        }
        if tunnel {
            self.tunnel_numbers()?;
            self.forwards()?;
        }
        Ok(())
    }
}
