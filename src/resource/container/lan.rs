//! A container on a network of Docker's own macvlan driver.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{Container, NetworkMode, RunState};
use crate::failure::Failure;
use crate::resource::{ArgError, Param};
use crate::system::docker::{Container as Found, DockerHands};
use crate::system::docker_networks::{DockerLan, docker_lan_name};
use crate::value::Value;

impl Container {
    /// Takes away the network of ours that a stopped container is on, called `name` by now, when no other one is on it.
    pub(super) async fn leave_lan_of(&self, gone: &Found, name: &str, docker: &DockerHands) -> Result<(), Failure> {
        let now = self.docker_lan().ok().flatten().filter(|_| self.state != RunState::Absent);
        let left =
            |lan: &&String| lan.starts_with(&docker_lan_name("")) && now.as_ref().is_none_or(|now| now.name != **lan);
        for lan in gone.networks.keys().filter(left) {
            docker.leave_lan(lan, name).await?;
        }
        Ok(())
    }

    /// Adds the way out to Docker's word for a card that is a bridge's port.
    pub(super) fn card_is_busy(&self, failure: Failure) -> Failure {
        let busy = failure.causes.iter().any(|cause| cause.contains("macvlan port") && cause.contains("busy"));
        match self.docker_lan() {
            Ok(Some(lan)) if busy => failure.hint(format!(
                "{} is a port of a bridge: name that as `parent`; if fanli made it for what this network was until now \
                 (`mode = bridge`), take that out first: play once with `state = absent` in the `attach` blocks",
                lan.parent
            )),
            _ => failure,
        }
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
