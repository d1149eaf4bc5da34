//! Networks of Docker's own macvlan driver, as a fallback where fanli's links are not wanted.

use std::collections::HashMap;
use std::net::Ipv4Addr;

use bollard::models::{Ipam, IpamConfig, NetworkCreateRequest};
use bollard::query_parameters::{InspectNetworkOptions, ListContainersOptions};
use ipnet::Ipv4Net;
use serde::Deserialize;

use super::docker::{ANSWER, Docker, DockerHands, ask, is_status, limited};
use crate::failure::Failure;

/// The label with what was declared for a network; its presence says that fanli made it.
const LABEL: &str = "fanli.network";

/// A network of Docker's macvlan driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DockerLan {
    /// Its name at the daemon.
    pub name: String,
    /// The host's network card.
    pub parent: String,
    /// Its addresses.
    pub subnet: Ipv4Net,
    /// The router; Docker takes the first address where there is none.
    pub gateway: Option<Ipv4Addr>,
    /// The container's own address there.
    pub address: Ipv4Addr,
}

impl DockerLan {
    /// What two containers of one network agree in.
    fn mark(&self) -> String {
        let gateway = self.gateway.map_or_else(String::new, |gateway| gateway.to_string());
        format!("macvlan {} {} {gateway}", self.parent, self.subnet)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawNetwork {
    labels: Option<HashMap<String, String>>,
}

impl Docker {
    async fn network(&self, name: &str) -> Result<Option<RawNetwork>, Failure> {
        ask(&format!("cannot inspect network {name}"), self.client.inspect_network(name, None::<InspectNetworkOptions>))
            .await
    }
}

impl DockerHands {
    /// Makes the network, unless it is there.
    ///
    /// # Errors
    /// When there is one of that name that fanli did not make, or made otherwise.
    pub async fn ensure_lan(&self, lan: &DockerLan) -> Result<(), Failure> {
        let name = &lan.name;
        if let Some(found) = self.network(name).await? {
            return match found.labels.and_then(|mut labels| labels.remove(LABEL)) {
                Some(mark) if mark == lan.mark() => Ok(()),
                Some(mark) => Err(Failure::new(format!("Docker's network {name} is `{mark}`, not `{}`", lan.mark()))
                    .hint("remove its containers first: Docker cannot change a network")),
                None => Err(Failure::new(format!("Docker has a network {name} that fanli did not make"))
                    .hint("remove it, or give the network another name")),
            };
        }
        let config = IpamConfig {
            subnet: Some(lan.subnet.trunc().to_string()),
            gateway: lan.gateway.map(|gateway| gateway.to_string()),
            ..Default::default()
        };
        let request = NetworkCreateRequest {
            name: name.clone(),
            driver: Some("macvlan".to_owned()),
            ipam: Some(Ipam { config: Some(vec![config]), ..Default::default() }),
            options: Some(HashMap::from([("parent".to_owned(), lan.parent.clone())])),
            labels: Some(HashMap::from([(LABEL.to_owned(), lan.mark())])),
            ..Default::default()
        };
        let what = format!("cannot make Docker's network {name}");
        limited(("docker answer", ANSWER), &what, self.client.create_network(request)).await.map(drop)
    }

    /// Removes a network of ours that no container but `except` is on, whether it runs or not. `except` may go after it: the
    /// daemon keeps a network for the running alone, and whoever is killed in between finds the container still there.
    pub async fn leave_lan(&self, name: &str, except: &str) -> Result<(), Failure> {
        let Some(found) = self.network(name).await? else { return Ok(()) };
        if !found.labels.is_some_and(|labels| labels.contains_key(LABEL)) {
            return Ok(());
        }
        let filters = HashMap::from([("network".to_owned(), vec![name.to_owned()])]);
        let there =
            self.listed(ListContainersOptions { all: true, filters: Some(filters), ..Default::default() }).await?;
        if there.iter().any(|container| container != except) {
            return Ok(());
        }
        let request = async {
            match self.client.remove_network(name).await {
                // A container may have come meanwhile.
                Err(error) if is_status(&error, 404) || is_status(&error, 403) || is_status(&error, 409) => Ok(()),
                other => other,
            }
        };
        limited(("docker answer", ANSWER), &format!("cannot remove Docker's network {name}"), request).await
    }
}

/// The name at the daemon of a playbook's network.
pub fn docker_lan_name(network: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' };
    format!("fanli-{}", network.chars().map(plain).collect::<String>())
}
