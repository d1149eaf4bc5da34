//! Networks that Docker itself makes when the container is created: its NAT bridge, and the host's own network.
//!
//! Nothing is plugged here. The plan gives the container what it needs; this looks whether Docker has done it.

use super::look::View;
use super::{Attach, AttachState, Mode, record};
use crate::change::{Datum, Fields, State, between};
use crate::failure::Failure;
use crate::resource::{ArgError, Observed, Param as _};
use crate::system::docker_networks::docker_lan_name;
use crate::system::{Actuator, Probe};
use crate::value::{Map, Value};

/// The field that tells of what an earlier declaration plugged.
const LEFTOVER: &str = "leftover";

impl Mode {
    /// Whether Docker makes what it attaches, and takes it away with the container.
    pub fn comes_with_the_container(self) -> bool {
        matches!(self, Self::Nat | Self::Host | Self::Docker)
    }
}

impl Attach {
    /// Whether the network comes with the container.
    pub(super) fn by_docker(&self) -> bool {
        self.mode.comes_with_the_container()
    }

    /// The host's port, when there is one.
    fn port(&self) -> Option<u16> {
        self.port.and_then(|port| u16::try_from(port).ok())
    }

    pub(super) fn check_docker(&self) -> Result<(), ArgError> {
        let mode = self.mode.show();
        for (field, given) in [
            ("address", self.address.is_some() && self.mode != Mode::Docker),
            ("gateway", self.gateway.is_some() && self.mode != Mode::Docker),
            ("routes", !self.routes.is_empty()),
            ("address6", self.address6.is_some()),
            ("mtu", self.mtu.is_some()),
            ("mac", self.mac.is_some()),
            ("vlan", self.vlan.is_some()),
        ] {
            if given {
                return Err(ArgError::new(field, format!("is not for `mode = {mode}`: Docker makes that network")));
            }
        }
        for (field, port) in [("port", self.port), ("inside", self.inside)] {
            if let Some(port) = port.filter(|port| !(1..=65_535).contains(port)) {
                return Err(ArgError::new(field, format!("`{port}` is not a port; they are 1 to 65535")));
            }
        }
        if self.mode == Mode::Docker {
            let needed = [
                ("parent", self.parent.is_none()),
                ("subnet", self.subnet.is_none()),
                ("address", self.address.is_none()),
            ];
            if let Some((field, _)) = needed.iter().find(|(_, missing)| *missing) {
                return Err(ArgError::new(*field, "is required with `mode = docker`"));
            }
            if self.port.is_some() {
                return Err(ArgError::new("port", "is for `mode = nat` and `host` alone"));
            }
        }
        if self.state == AttachState::Absent {
            return Err(ArgError::new(
                "state",
                format!(
                    "is not for `mode = {mode}`: the network comes and goes with the container; remove that, or give it another network"
                ),
            ));
        }
        if self.mode == Mode::Nat && self.port.is_some() != self.inside.is_some() {
            return Err(ArgError::new("inside", "stands beside `port`: the port in the container that it leads to"));
        }
        if self.mode == Mode::Host && self.inside.is_some() {
            return Err(ArgError::new("inside", "is for `mode = nat`: on the host's network there is one port alone"));
        }
        Ok(())
    }

    pub(super) fn desired_docker(&self) -> State {
        let mut fields = Fields::from([("network".to_owned(), self.docker_word().into())]);
        fields.insert(LEFTOVER.to_owned(), Datum::Absent);
        if let (Mode::Docker, Some(address)) = (self.mode, self.address) {
            fields.insert("address".to_owned(), address.to_string().into());
        }
        if let (Mode::Nat, Some(port), Some(inside)) = (self.mode, self.port(), self.inside) {
            fields.insert("port".to_owned(), format!("{port} -> {inside}").into());
        }
        State::Present(fields)
    }

    /// The container's network, in Docker's words.
    fn docker_word(&self) -> String {
        match self.mode {
            Mode::Docker => docker_lan_name(&self.network),
            Mode::Host => "host".to_owned(),
            _ => "bridge".to_owned(),
        }
    }

    pub(super) async fn observe_docker(&self, probe: &Probe) -> Result<Observed, Failure> {
        let found = probe.docker()?.container(&self.container).await?;
        let Some(found) = found.filter(|found| found.pid.is_some()) else { return Ok(State::Absent.into()) };
        // Docker calls its bridge `default` where the container did not name it.
        let network = if found.network_mode == "default" { "bridge" } else { &found.network_mode };
        let network = found.strayed().unwrap_or_else(|| network.to_owned());
        let mut fields = Fields::from([("network".to_owned(), network.into())]);
        if let Some(old) = self.earlier(self.recorded(probe)?.as_ref()) {
            fields.insert(LEFTOVER.to_owned(), format!("`mode = {}` on {}", old.mode.show(), old.way()).into());
        }
        let ours = |port: &&(u16, u16)| self.port() == Some(port.0);
        let port = found.published.iter().find(ours).or_else(|| found.published.first());
        let address = found.networks.get(&self.docker_word()).filter(|address| !address.is_empty());
        fields.insert("address".to_owned(), address.map_or(Datum::Absent, |address| address.as_str().into()));
        let told = |(outside, inside): &(u16, u16)| Datum::from(format!("{outside} -> {inside}"));
        fields.insert("port".to_owned(), port.map_or(Datum::Absent, told));
        let port = if self.mode == Mode::Host { self.port() } else { port.map(|port| port.0) };
        let output = Map::from([
            ("mac".to_owned(), Value::Null),
            ("port".to_owned(), port.map_or(Value::Null, |port| Value::Int(port.into()))),
        ]);
        Ok(Observed { state: State::Present(fields), output })
    }

    /// Takes out what an earlier declaration plugged. All else that is not as declared lies with the container: it cannot be
    /// changed while it exists.
    pub(super) async fn mend_docker(&self, hands: &Actuator) -> Result<Map, Failure> {
        record::make_folders(hands, "plugging")?;
        let _lock = self.one_at_a_time(hands).await?;
        let seen = self.observe_docker(hands).await?;
        let change = between(&self.desired_docker(), &seen.state);
        if change.is_none_or(|change| change.fields.iter().all(|field| field.field == LEFTOVER)) {
            let view = View { record: self.recorded(hands)?, ..View::default() };
            if self.leave_earlier(&view, hands).await? {
                self.forget(hands)?;
            }
            return Ok(seen.output);
        }
        let Some(found) = hands.docker()?.container(&self.container).await? else {
            return Err(Failure::new(format!("container {} does not exist", self.container))
                .hint("put the `attach` into its `container` block"));
        };
        let (name, mode) = (&self.container, self.mode.show());
        Err(Failure::new(format!(
            "container {name} (network `{}`) is not as `mode = {mode}` needs it",
            found.network_mode
        ))
        .hint("put the `attach` into the `container` block, which is then made anew for it"))
    }
}
