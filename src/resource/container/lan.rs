//! A container on a network of Docker's own macvlan driver.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{Container, NetworkMode, RunState};
use crate::failure::Failure;
use crate::resource::{ArgError, Param};
use crate::system::Probe;
use crate::system::docker_networks::{DockerLan, docker_lan_name};
use crate::system::netlink::Link;
use crate::value::Value;

impl Container {
    /// Refuses a card that is a port already: the kernel lets no macvlan stand on one, and Docker would say so only when the container
    /// as it was before had been stopped.
    pub(super) async fn refuse_card_in_bridge(&self, probe: &Probe) -> Result<(), Failure> {
        let Some(lan) = self.docker_lan()?.filter(|_| self.state == RunState::Running) else { return Ok(()) };
        let host = probe.host_network().await?;
        let card = host.link(&lan.parent).and_then(|card| card.controller);
        let ports = |link: &&Link| Some(link.index) == card && ["bridge", "bond"].contains(&link.kind.as_str());
        let Some(bridge) = host.links.iter().find(ports) else { return Ok(()) };
        let failure = Failure::new(format!(
            "container {} cannot be on {}: it is a port of {}",
            self.name, lan.parent, bridge.name
        ));
        Err(if bridge.alias.starts_with("fanli:1:bridge:") {
            failure.hint(
                "take out what is attached to that first: play once with `state = absent` in the `attach` blocks, then with the new mode",
            )
        } else {
            failure.hint("name that as `parent` instead")
        })
    }

    /// The network that `lan` describes; none with other networks.
    pub(super) fn docker_lan(&self) -> Result<Option<DockerLan>, ArgError> {
        if self.network != NetworkMode::Macvlan {
            let given = !self.lan.is_empty();
            return if given { Err(ArgError::new("lan", "needs `network = macvlan`")) } else { Ok(None) };
        }
        let value = |name: &str| self.lan.get(name).cloned().unwrap_or(Value::Null);
        let wrong = |name: &str, message: String| ArgError::new("lan", format!("`{name}`: {message}"));
        let text = |name: &str| String::read(value(name)).map_err(|message| wrong(name, message));
        let v4 = |name: &str| match IpAddr::read(value(name)) {
            Ok(IpAddr::V4(address)) => Ok(address),
            Ok(IpAddr::V6(address)) => Err(wrong(name, format!("`{address}` is not IPv4"))),
            Err(message) => Err(wrong(name, message)),
        };
        let subnet = match IpNet::read(value("subnet")) {
            Ok(IpNet::V4(subnet)) => subnet,
            Ok(IpNet::V6(subnet)) => return Err(wrong("subnet", format!("`{subnet}` is not IPv4"))),
            Err(message) => return Err(wrong("subnet", message)),
        };
        let gateway = if self.lan.contains_key("gateway") { Some(v4("gateway")?) } else { None };
        let address = v4("address")?;
        if !subnet.contains(&address) {
            return Err(wrong("address", format!("`{address}` is not in {subnet}")));
        }
        Ok(Some(DockerLan { name: docker_lan_name(&text("name")?), parent: text("parent")?, subnet, gateway, address }))
    }
}
