//! `interfaces`: what a host shows of its network, and of those of its containers. It only looks.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};
use serde::{Deserialize, Serialize};

use super::looked;
use super::{Observed, Resource, attach};
use crate::change::{Change, Fields, State};
use crate::failure::Failure;
use crate::system::docker::{Container, Docker};
use crate::system::netlink::{Link, Mac, Netlink};
use crate::system::{Actuator, Probe};
use crate::value::Map;

crate::kind! {
    /// Looks at the interfaces of a host and of its running containers, and changes nothing.
    ///
    /// After `interfaces as seen` later tasks see what it found: links with their addresses, MACs and aliases, what fanli remembers of each
    /// attachment, the routes over fanli's own links, the daemon's networks. `fanli net list` shows the same for all hosts.
    pub struct Interfaces = "interfaces" {
        /// Only these containers; all by default.
        containers: Vec<String> = Vec::new(),
        /// Also asks the network who has these addresses (RFC 5227), over the host's links that stand in the same subnet.
        ask: Vec<IpAddr> = Vec::new(),
    }
    results {
        "host_name": "the kernel's name for the host",
        "links": "the host's links: each has `name`, `kind`, `mac`, `mtu`, `up`, `addresses`",
        "containers": "each has `name`, `status`, `network_mode`, `links`, and `unseen` where it could not be looked into",
        "records": "what fanli remembers on the host: `container`, `network`, `parent`, `address`",
        "shim_routes": "host routes over fanli's own links: `address`, `link`, and `source` where there is one",
        "answers": "for each of `ask` that could be asked for: `address`, and `mac` of whoever has it",
        "networks": "Docker's own networks: `name`, `driver`, `subnets`, `parent`",
    }
    example "interfaces as seen"
}

/// What a host shows of its network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// The kernel's name for the host.
    pub host_name: String,
    /// The host's own links.
    pub links: Vec<SeenLink>,
    /// Its containers, running or not.
    pub containers: Vec<SeenContainer>,
    /// What fanli remembers of its attachments there.
    pub records: Vec<SeenRecord>,
    /// Host routes over fanli's own links.
    pub shim_routes: Vec<SeenRoute>,
    /// The daemon's own networks.
    pub networks: Vec<SeenNetwork>,
    /// What the network said of the addresses that it was asked for. One that is missing could not be asked for from here.
    #[serde(default)]
    pub answers: Vec<SeenAnswer>,
}

/// What the network says of an address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenAnswer {
    /// The address.
    pub address: IpAddr,
    /// Who has it, where somebody answers. Silence proves nothing: a machine may sleep.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<Mac>,
}

/// One link, of the host or of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenLink {
    /// Its name.
    pub name: String,
    /// `macvlan`, `veth`, `bridge`; empty for hardware.
    pub kind: String,
    /// Its mode, for a macvlan.
    #[serde(default)]
    pub mode: String,
    /// Its MAC address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<Mac>,
    /// The largest packet, in bytes.
    pub mtu: u32,
    /// Whether it is set up.
    pub up: bool,
    /// The text on it; fanli's begin with `fanli:1:`.
    pub alias: String,
    /// The name of the host's link that it stands on, where it is one of the host's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// Its addresses.
    pub addresses: Vec<IpNet>,
}

/// One container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenContainer {
    /// Its name.
    pub name: String,
    /// Its full ID.
    pub id: String,
    /// `running`, `exited`, …: in the daemon's words.
    pub status: String,
    /// `none`, `bridge`, `host`, `container:ID`, or the name of one of the daemon's networks.
    pub network_mode: String,
    /// Its links without `lo`; none when it does not run, or has no network of its own.
    pub links: Vec<SeenLink>,
    /// Why it could not be looked into, although it runs: then `links` says nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unseen: Option<String>,
}

/// What fanli remembers of one attachment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenRecord {
    /// The container's name.
    pub container: String,
    /// The network's name.
    pub network: String,
    /// The host's link that it stands on.
    pub parent: String,
    /// The address.
    pub address: IpAddr,
    /// Its MAC address, where the declaration tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<Mac>,
    /// The slot that it belongs to in the address book: `web/1`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// The address book that gave it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<String>,
    /// At which of its revisions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
}

/// A host route over one of fanli's own links.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenRoute {
    /// The container's address.
    pub address: Ipv4Addr,
    /// The link's name.
    pub link: String,
    /// The host's own address that it speaks from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Ipv4Addr>,
}

/// One of the daemon's own networks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenNetwork {
    /// Its name.
    pub name: String,
    /// Its driver.
    pub driver: String,
    /// Its subnets, as the daemon writes them.
    pub subnets: Vec<String>,
    /// The host's link that it stands on, where its driver has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
}

impl Seen {
    /// Reads what a step of kind `interfaces` gave.
    ///
    /// # Errors
    /// It is something else.
    pub fn from_output(output: &Map) -> Result<Self, Failure> {
        looked::from_output(output, "interfaces")
    }

    /// The same as a step's result.
    fn to_output(&self) -> Result<Map, Failure> {
        looked::to_output(self, "interfaces")
    }

    /// The running containers that have this MAC on a link.
    pub fn with_mac(&self, mac: Mac) -> impl Iterator<Item = &SeenContainer> {
        self.containers.iter().filter(move |container| container.links.iter().any(|link| link.mac == Some(mac)))
    }
}

/// Looks at this host, and into those of its containers that `wanted` lets through.
///
/// # Errors
/// Docker or the kernel does not answer. A container that cannot be looked into is told as such instead.
pub(super) async fn look(probe: &Probe, wanted: impl Fn(&str) -> bool) -> Result<Seen, Failure> {
    let docker = probe.docker()?;
    let host = probe.netlink(None)?;
    let own =
        async { Ok::<_, Failure>((host.links().await?, host.all_addresses().await?, host.routes().await?)) }.await;
    host.close().await;
    let (links, addresses, routes) = own?;
    let mut containers = Vec::new();
    for name in docker.container_names().await?.into_iter().filter(|name| wanted(name)) {
        // One that went away meanwhile is not there.
        let Some(found) = docker.container(&name).await? else { continue };
        containers.push(look_into(probe, &docker, &found, &links).await);
    }
    containers.sort_by(|left, right| left.name.cmp(&right.name));
    let name_of = |index: u32| links.iter().find(|link| link.index == index).map(|link| link.name.clone());
    let shim = |index: u32| links.iter().any(|link| link.index == index && link.alias.starts_with("fanli:1:"));
    let shim_routes = routes.iter().filter(|route| route.to.prefix_len() == 32 && shim(route.link)).map(|route| {
        SeenRoute { address: route.to.addr(), link: name_of(route.link).unwrap_or_default(), source: route.source }
    });
    let networks = docker.networks().await?.into_iter().map(|network| SeenNetwork {
        name: network.name,
        driver: network.driver,
        subnets: network.subnets,
        parent: network.parent,
    });
    Ok(Seen {
        host_name: probe.read_small("/proc/sys/kernel/hostname")?.unwrap_or_default().trim().to_owned(),
        shim_routes: shim_routes.collect(),
        networks: networks.collect(),
        records: attach::seen_records(probe)?,
        answers: Vec::new(),
        containers,
        links: links.iter().map(|link| seen_link(link, &addresses, &links, false)).collect(),
    })
}

/// Asks the network for addresses, all at once.
async fn answers(probe: &Probe, addresses: &[IpAddr]) -> Result<Vec<SeenAnswer>, Failure> {
    let host = probe.netlink(None)?;
    let seen = async { Ok::<_, Failure>((host.links().await?, host.all_addresses().await?)) }.await;
    host.close().await;
    let (links, nets) = seen?;
    let asked = addresses.iter().filter_map(|address| {
        let IpAddr::V4(v4) = address else { return None };
        // Whoever has it himself does not answer himself.
        if let Some((index, _)) = nets.iter().find(|(_, net)| net.addr() == *address) {
            let mac = links.iter().find(|link| link.index == *index)?.mac.map(Mac);
            return Some((*address, *v4, Err(mac)));
        }
        let (index, _) = nets.iter().find(|(_, net)| net.contains(address))?;
        let card = links.iter().find(|link| link.index == *index && link.up)?;
        // From the card nothing reaches the macvlans on it; from the shim all but the host itself.
        let shim = links.iter().find(|link| {
            link.up
                && !link.parent_elsewhere
                && link.parent == Some(card.index)
                && link.alias.starts_with("fanli:1:shim:")
        });
        let link = shim.unwrap_or(card);
        Some((*address, *v4, Ok((link.index, Mac(link.mac?)))))
    });
    let ask = |(address, v4, from): (IpAddr, Ipv4Addr, Result<(u32, Mac), Option<Mac>>)| async move {
        let mac = match from {
            Err(mac) => mac,
            // Other hosts may ask for the same at this very moment: only replies count. Frames get lost, so it is asked twice.
            Ok(from) => match probe.who_has(None, from, v4).await?.first() {
                Some(mac) => Some(*mac),
                None => probe.who_has(None, from, v4).await?.first().copied(),
            },
        };
        Ok(SeenAnswer { address, mac })
    };
    futures_util::future::try_join_all(asked.map(ask)).await
}

async fn look_into(probe: &Probe, docker: &Docker, found: &Container, host: &[Link]) -> SeenContainer {
    let (name, id) = (found.name.clone(), found.id.clone());
    let (status, network_mode) = (found.status.clone(), found.network_mode.clone());
    let mut seen = SeenContainer { name, id, status, network_mode, ..SeenContainer::default() };
    let shared = found.network_mode == "host" || found.network_mode.starts_with("container:");
    if found.pid.is_none() || shared {
        return seen;
    }
    match links_of(probe, docker, found).await {
        Ok((links, addresses)) => {
            let own = links.iter().filter(|link| link.name != "lo");
            seen.links = own.map(|link| seen_link(link, &addresses, host, true)).collect();
        }
        Err(failure) => seen.unseen = Some(failure.to_string()),
    }
    seen
}

async fn links_of(
    probe: &Probe,
    docker: &Docker,
    found: &Container,
) -> Result<(Vec<Link>, Vec<(u32, IpNet)>), Failure> {
    let namespace = probe.namespace_to_look(docker, found).await?;
    let inside: Netlink = probe.netlink(Some(&namespace))?;
    let seen = async { Ok::<_, Failure>((inside.links().await?, inside.all_addresses().await?)) }.await;
    inside.close().await;
    seen
}

fn seen_link(link: &Link, addresses: &[(u32, IpNet)], host: &[Link], inside: bool) -> SeenLink {
    let on_host = link.parent.filter(|_| link.parent_elsewhere == inside);
    let parent = on_host.and_then(|parent| host.iter().find(|link| link.index == parent));
    SeenLink {
        name: link.name.clone(),
        kind: link.kind.clone(),
        mode: link.mode.clone(),
        mac: link.mac.map(Mac),
        mtu: link.mtu,
        up: link.up,
        alias: link.alias.clone(),
        parent: parent.map(|link| link.name.clone()),
        addresses: addresses.iter().filter(|(index, _)| *index == link.index).map(|(_, net)| *net).collect(),
    }
}

impl SeenLink {
    /// Its IPv4 addresses.
    pub fn v4(&self) -> impl Iterator<Item = Ipv4Net> {
        self.addresses.iter().filter_map(|net| match net {
            IpNet::V4(net) => Some(*net),
            IpNet::V6(_) => None,
        })
    }
}

impl Resource for Interfaces {
    fn desired(&self) -> State {
        State::Present(Fields::new())
    }

    async fn observe(&self, probe: &Probe) -> Result<Observed, Failure> {
        let wanted = |name: &str| self.containers.is_empty() || self.containers.iter().any(|wanted| wanted == name);
        let mut seen = look(probe, wanted).await?;
        if !self.ask.is_empty() {
            seen.answers = answers(probe, &self.ask).await?;
        }
        let output = seen.to_output()?;
        Ok(Observed { state: State::Present(Fields::new()), output })
    }

    async fn apply(&self, _change: &Change, _hands: &Actuator) -> Result<Map, Failure> {
        // There is nothing that could differ.
        Ok(Map::new())
    }
}
