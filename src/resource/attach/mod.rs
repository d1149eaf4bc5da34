//! `attach`: an interface of a container, with its address, on the host's own network.

mod addressing;
mod again;
mod conflict;
mod docker;
mod look;
mod old;
mod plug;
mod port;
mod segment;
mod record;
mod shim;
mod stale;
mod switch;
mod trace;
mod wanted;

use std::net::IpAddr;

use ipnet::IpNet;

use self::segment::Segment;
use self::wanted::{Wanted, Way};

pub(super) use again::Earlier;
pub(super) use conflict::seen_records;
pub use conflict::{FOREIGN_ADDRESS, FOREIGN_MAC};
pub use look::OLD;
pub use record::{Keeping, Named, Parted, ROUTE, Recorded, all_recorded};

use self::look::{Others, View};
use super::{ArgError, Observed, Resource};
use crate::change::{Change, Datum, Fields, State, between};
use crate::failure::Failure;
use crate::system::docker::container_name;
use crate::system::netlink::{Mac, link_name};
use crate::system::{Actuator, Probe};
use crate::value::{Digest, Map, Value};

/// What fields say whose right value only the host knows.
const IN_PLACE: &str = "in place";
/// What `mtu` says when it is not declared.
const PARENTS: &str = "the parent's";

crate::choice! {
    /// How a container is connected.
    pub enum Mode {
        /// A macvlan on the host's network card: the container is one more machine on that network.
        Macvlan = "macvlan",
        /// The same with a device file that a virtual machine in the container can read frames from.
        Macvtap = "macvtap",
        /// A port of a bridge that has the host's network card as a port: the same network, and the host's address moves to the
        /// bridge.
        Bridge = "bridge",
        /// A port of a bridge with a VXLAN tunnel to the other hosts: a network of its own, whatever lies between the hosts.
        Vxlan = "vxlan",
        /// A network of Docker's own macvlan driver, with fanli's address: a fallback.
        Docker = "docker",
        /// Docker's own bridge, with a published port of the host.
        Nat = "nat",
        /// The host's network: each container has a port of its own there.
        Host = "host",
    }
}

crate::choice! {
    /// How macvlans on one network card reach each other.
    pub enum Variant {
        /// Directly.
        Bridge = "bridge",
        /// Not at all.
        Private = "private",
        /// Over a switch that sends back what came from the same port (802.1Qbg).
        Vepa = "vepa",
        /// There is one alone, and it takes the whole network card.
        Passthru = "passthru",
    }
}

crate::choice! {
    /// How an address is asked for on the network before it is used (RFC 5227).
    pub enum Probing {
        /// Three times within 0.3 to 0.6 s.
        Quick = "quick",
        /// With the RFC's own timers: 4 to 7 s.
        Strict = "strict",
        /// Not at all.
        Off = "off",
    }
}

crate::choice! {
    /// Whether an interface should be there.
    pub enum AttachState {
        /// It is there, as declared.
        Present = "present",
        /// It is not there.
        Absent = "absent",
    }
}

crate::kind! {
    /// Keeps an interface of a running container on a network of machines, with an address of its own: no NAT.
    ///
    /// Stands inside a `container` block, which gives it `container`; the `network` block of its name gives it `mode`, `parent`,
    /// `subnet` and all other settings that both know. A container that was restarted has lost its interface; that is seen and
    /// mended, and so is every single difference: the address, the MAC, the MTU, the routes, the host's way to its own
    /// container. The container itself is never made anew for them.
    ///
    /// With `mode = vxlan` the plan fills in `peers`: the hosts that carry nodes of the network, and the nodes' addresses.
    ///
    /// An interface that fanli did not make is never touched. The host remembers what was applied last, for the watcher
    /// (`fanli doc watcher`); an address of another address book, or of an older revision, is refused.
    pub struct Attach = "attach" {
        /// The `network` block that it belongs to.
        network: String,
        /// The container: running, declared with `network = none`.
        container: String,
        /// How it is connected.
        mode: Mode = Mode::Macvlan,
        /// With `macvlan`: how the containers on one network card reach each other. The host reaches them with `bridge` alone.
        variant: Variant = Variant::Bridge,
        /// The host's network card that it stands on; with `bridge` also a bridge that is there already; with `vxlan` the card by
        /// which the hosts reach each other.
        parent: Option<String>,
        /// The number of a VLAN on that card: `parent = "eth0"` and `vlan = 120` stand on `eth0.120`.
        vlan: Option<i64>,
        /// With `bridge`: the name of the bridge; `br-` and the parent's name by default.
        bridge: Option<String>,
        /// With `vxlan`: the network's number; made of its name by default.
        vni: Option<i64>,
        /// With `vxlan`: the UDP port of the tunnels; 14789 by default, beside 4789 of Docker's swarm.
        udp: Option<i64>,
        /// With `vxlan`: the addresses of the other hosts, each with the addresses of its nodes: `{ "10.0.0.2" = [10.20.0.7] }`.
        peers: Map = Map::new(),
        /// With `nat` and `host`: the port of the host; `node.port` by default.
        port: Option<i64>,
        /// With `nat`: the port in the container that it leads to.
        inside: Option<i64>,
        /// The network's addresses.
        subnet: Option<IpNet>,
        /// The router for everything else; none by default.
        gateway: Option<IpAddr>,
        /// More routes: `[10.50.0.0/16 -> 10.20.0.1]`.
        routes: Vec<Way> = Vec::new(),
        /// Its address.
        address: Option<IpAddr>,
        /// The network's IPv6 addresses.
        subnet6: Option<IpNet>,
        /// The IPv6 router; none by default.
        gateway6: Option<IpAddr>,
        /// Its IPv6 address, beside the other one. What routers advertise is not listened to.
        address6: Option<IpAddr>,
        /// The largest packet in bytes; by default, and at most, the parent's (with `vxlan` 50 less).
        mtu: Option<i64>,
        /// Its MAC address; made of the network and the address by default, so that neighbours need not learn a new one.
        mac: Option<String>,
        /// The second byte of computed MAC addresses, where two clusters share one wire.
        cluster: Option<i64>,
        /// Whether the host itself reaches the container: with `macvlan` over a link of its own on the same card.
        shim: bool = true,
        /// How the network is asked whether the address is free, before it is used; `fanli` refuses one that answers.
        probe: Probing = Probing::Quick,
        /// The interface's name in the container.
        interface: String = "eth0".to_owned(),
        /// Whose address it is: filled in for nodes.
        owner: Option<String>,
        /// The address book that gave it: filled in for nodes.
        store: Option<String>,
        /// Its revision in the book: filled in for nodes.
        revision: Option<i64>,
        /// Address books before that one, each as `NAME@REVISION`: what the host plugged from them is taken over. Filled in for nodes,
        /// after `fanli ip adopt`.
        accepts: Vec<String> = Vec::new(),
        /// Whether it should be there. `absent` is not for `nat`, `host` and `docker`: their network comes and goes with the container.
        state: AttachState = AttachState::Present,
        /// Takes the attachment over from another address book, or from a newer revision, than the host remembers.
        adopt: bool = false,
    }
    results {
        "mac": "the interface's MAC address",
        "port": "with `nat` and `host`: the port of the host",
    }
    example r#"# presumes a running container "fanli-example" with `network = none`, and at the top of the playbook
# network "example-lan" { mode = macvlan  parent = "eth0"  subnet = 10.77.9.0/24 }
attach "example-lan" {
  container = "fanli-example"
  address   = 10.77.9.2
}"#
}

impl Attach {
    /// What the alias of every link of this attachment begins with.
    fn owner(&self) -> String {
        let plain =
            |text: &str| text.replace(|c: char| c.is_control() || c == ':', "_").chars().take(60).collect::<String>();
        format!("fanli:1:{}:{}:", self.container, plain(&self.network))
    }

    fn alias(&self, wanted: &Wanted) -> String {
        format!("{}{}", self.owner(), Digest::of(format!("{wanted:?}").as_bytes()).short())
    }

    /// The name that a link has until it is marked as ours: on old kernels a name that the host has too is refused.
    fn temporary(&self) -> String {
        let digest = Digest::of(self.owner().as_bytes()).short();
        format!("fn{}", digest.chars().take(8).collect::<String>())
    }
}

impl Resource for Attach {
    fn check(&self) -> Result<(), ArgError> {
        container_name(&self.container).map_err(|message| ArgError::new("container", message))?;
        link_name(&self.interface).map_err(|message| ArgError::new("interface", message))?;
        if self.interface == "lo" || self.interface == self.temporary() {
            return Err(ArgError::new("interface", format!("`{}` is taken", self.interface)));
        }
        self.accepted()?;
        self.check_mode()?;
        if self.by_docker() {
            return self.check_docker();
        }
        self.wanted().map(|_| ())
    }

    fn desired(&self) -> State {
        if self.by_docker() {
            return self.desired_docker();
        }
        // `check` came first.
        let Some(wanted) = self.wanted().ok().filter(|_| self.state == AttachState::Present) else {
            return State::Absent;
        };
        let mut fields = Fields::from([
            ("link".to_owned(), self.link_word().into()),
            ("parent".to_owned(), self.parent.as_deref().unwrap_or_default().into()),
            ("record".to_owned(), IN_PLACE.into()),
            ("up".to_owned(), true.into()),
            ("leftover".to_owned(), Datum::Absent),
            (OLD.to_owned(), Datum::Absent),
            ("card_down".to_owned(), Datum::Absent),
            ("shim_route".to_owned(), Datum::Absent),
            ("stale_routes".to_owned(), Datum::Absent),
        ]);
        self.desired_addressing(&wanted, &mut fields);
        if self.segment() != Segment::Card {
            fields.insert("segment".to_owned(), IN_PLACE.into());
            fields.insert("port".to_owned(), IN_PLACE.into());
        }
        if self.segment() == Segment::Tunnel {
            fields.insert("peers".to_owned(), addressing::list(&segment::told(&self.forwards().unwrap_or_default())));
        }
        if self.host_reaches() {
            if self.segment() == Segment::Card {
                fields.insert("shim".to_owned(), self.way().into());
            }
            fields.insert("shim_route".to_owned(), IN_PLACE.into());
            fields.insert("host_route".to_owned(), IN_PLACE.into());
        }
        State::Present(fields)
    }

    async fn observe(&self, probe: &Probe) -> Result<Observed, Failure> {
        if self.by_docker() {
            return self.observe_docker(probe).await;
        }
        let view = self.look(probe, Others::Look).await?;
        let seen = self.seen(&view)?;
        if between(&self.desired(), &seen.state).is_some() {
            self.refuse_impossible(&view, probe).await?;
        }
        Ok(seen)
    }

    async fn apply(&self, _change: &Change, hands: &Actuator) -> Result<Map, Failure> {
        if self.by_docker() {
            return self.mend_docker(hands).await;
        }
        record::make_folders(hands, "plugging")?;
        let _lock = self.one_at_a_time(hands).await?;
        self.refuse_other_books(hands).await?;
        let view = self.look(hands, Others::Look).await?;
        // Whoever had the lock before may have brought it about already.
        if between(&self.desired(), &self.state_of(&view)?).is_none() {
            return Ok(Map::new());
        }
        Box::pin(self.mend(view, hands)).await
    }

    async fn stands_on(&self, _probe: &Probe) -> Result<Vec<(&'static str, String)>, Failure> {
        Ok(vec![("container", self.container.clone())])
    }
}

impl Attach {
    /// What the engine compares and passes on.
    fn seen(&self, view: &View) -> Result<Observed, Failure> {
        let mac = view.own(self).and_then(|link| link.mac).map_or(Value::Null, |mac| Value::Str(Mac(mac).to_string()));
        Ok(Observed { state: self.state_of(view)?, output: Map::from([("mac".to_owned(), mac)]) })
    }

    /// Brings what was seen to what is wanted, while nobody else works on the container.
    async fn mend(&self, mut view: View, hands: &Actuator) -> Result<Map, Failure> {
        let wanted = self.wanted()?;
        if self.state == AttachState::Absent {
            // What goes is what was plugged, whatever is declared by now.
            self.leave_earlier(&view, hands).await?;
            self.unplug(&view, hands).await?;
            return Ok(Map::from([("mac".to_owned(), Value::Null)]));
        }
        if view.container.is_some() {
            view = self.with_vlan(view, hands).await?;
            // Others may have come since it was looked at.
            self.refuse_impossible(&view, hands).await?;
            if self.leave_earlier(&view, hands).await? | self.leave_shim(&view, hands).await? {
                view = self.look(hands, Others::Look).await?;
                // The VLAN may have gone with what stood on it.
                view = self.with_vlan(view, hands).await?;
            }
        }
        self.refuse_conflict(&wanted, &mut view, hands).await?;
        let mac = self.plug(&wanted, &view, hands).await?;
        Ok(Map::from([("mac".to_owned(), Value::Str(mac.to_string()))]))
    }

    /// The view once its VLAN is there.
    async fn with_vlan(&self, view: View, hands: &Actuator) -> Result<View, Failure> {
        if self.ensure_vlan(&view, hands).await? { self.look(hands, Others::Look).await } else { Ok(view) }
    }
}
