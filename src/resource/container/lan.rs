//! A container on a network of Docker's own macvlan driver.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{Container, NetworkMode};
use crate::resource::{ArgError, Param};
use crate::system::docker_networks::{DockerLan, docker_lan_name};
use crate::value::Value;

impl Container {
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
