//! The way of a node's packets on its own host, from the container outward. The first thing that is wrong explains the rest, so
//! they stand in the order in which one hangs on the other.

use std::net::{IpAddr, SocketAddr};

use super::look::{OLD, Others, View};
use super::segment::Segment;
use super::{Attach, IN_PLACE, Wanted, shim};
use crate::change::{self, FieldChange};
use crate::failure::Failure;
use crate::resource::Resource as _;
use crate::resource::trace::{Check, Verdict, Way};
use crate::system::Probe;
use crate::system::netlink::{Link, Mac};
use crate::system::netns::Namespace;
use crate::system::ping::Reached;
use crate::system::process::Program;

/// The fields of an attachment in the order in which one hangs on the other, with what they are called.
const FIELDS: [(&str, &str); 12] = [
    ("link", "kind of link"),
    ("parent", "stands on"),
    ("up", "interface up"),
    ("address", "address"),
    ("mac", "MAC address"),
    ("mtu", "MTU"),
    ("gateway", "default route"),
    ("shim", "host's own link"),
    ("shim_route", "host's route to it"),
    ("host_route", "its route to the host"),
    ("leftover", "leftovers"),
    (OLD, "old network"),
];

const MEND: &str = "run the play: it mends exactly this; `fanli watch` does so by itself";

/// What is found on the way.
#[derive(Default)]
struct Found(Vec<Check>);

impl Found {
    fn say(&mut self, what: &str, verdict: Verdict, detail: String, way_out: Option<String>) {
        self.0.push(Check { what: what.to_owned(), verdict, detail, way_out });
    }

    fn ok(&mut self, what: &str, detail: impl Into<String>) {
        self.say(what, Verdict::Ok, detail.into(), None);
    }

    fn wrong(&mut self, what: &str, detail: impl Into<String>, way_out: impl Into<String>) {
        self.say(what, Verdict::Wrong, detail.into(), Some(way_out.into()));
    }

    fn unknown(&mut self, what: &str, detail: impl Into<String>) {
        self.say(what, Verdict::Unknown, detail.into(), None);
    }

    fn any_wrong(&self) -> bool {
        self.0.iter().any(|check| check.verdict == Verdict::Wrong)
    }
}

impl Attach {
    /// Looks along the way: the node itself, what carries it, and from there to an address.
    pub(in crate::resource) async fn trace(
        &self,
        probe: &Probe,
        to: Option<IpAddr>,
        port: Option<u16>,
    ) -> Result<Way, Failure> {
        if self.by_docker() {
            return self.trace_docker(probe, to).await;
        }
        let wanted = self.wanted().map_err(|error| Failure::new(format!("`{}`: {}", error.field, error.message)))?;
        let view = self.look(probe, Others::Look).await?;
        let (mut checks, mut path) = (Found::default(), Found::default());
        self.trace_container(&view, probe, &mut checks).await?;
        self.trace_card(&view, &mut checks);
        self.as_recorded(&view).trace_link(&view, &mut checks)?;
        self.trace_forward(&view, probe, &mut checks).await?;
        let docker = probe.docker()?;
        let namespace = match &view.container {
            Some(container) => Some(probe.namespace(&docker, container).await?),
            None => None,
        };
        let own = view.own(self).filter(|link| link.up);
        if let (Some(namespace), Some(own)) = (&namespace, own) {
            self.trace_owner(&wanted, &view, own, namespace, probe, &mut checks).await?;
            self.trace_gateway(&wanted, own, namespace, probe, &mut checks).await?;
            self.trace_host(&view, namespace, probe, &mut checks).await?;
            if let Some(to) = to {
                self.trace_to(to, port, own, namespace, probe, &mut path).await?;
            }
        } else {
            for what in ["one owner", "router", "host to node"] {
                checks.unknown(what, "not looked at: the container has no interface that is up");
            }
            if let Some(to) = to {
                path.unknown("ping", format!("not tried to {to}: the container has no interface that is up"));
            }
        }
        Ok(Way { checks: checks.0, path: path.0 })
    }

    /// The same with the owner, the book and the revision that the host remembers: who only looks may have no address book at hand.
    fn as_recorded(&self, view: &View) -> Self {
        let Some(record) = &view.record else { return self.clone() };
        let (owner, store, revision) = (record.owner.clone(), record.store.clone(), record.revision);
        Self { owner, store, revision, ..self.clone() }
    }

    /// Where Docker itself carries the packets, it is asked whether they can come as declared.
    async fn trace_docker(&self, probe: &Probe, to: Option<IpAddr>) -> Result<Way, Failure> {
        let (mut checks, mut path) = (Found::default(), Found::default());
        let container = probe.docker()?.container(&self.container).await?.filter(|found| found.pid.is_some());
        let view = View { container, ..View::default() };
        self.trace_container(&view, probe, &mut checks).await?;
        let seen = self.observe_docker(probe).await?;
        match change::between(&self.desired(), &seen.state) {
            None => checks.ok("port", "as declared"),
            Some(change) => {
                for change in &change.fields {
                    checks.wrong(&change.field, self.sentence(&change.field, change), MEND);
                }
            }
        }
        if let Some(to) = to {
            path.unknown("ping", format!("not tried to {to}: Docker carries what this network's nodes send"));
        }
        Ok(Way { checks: checks.0, path: path.0 })
    }

    async fn trace_container(&self, view: &View, probe: &Probe, found: &mut Found) -> Result<(), Failure> {
        let name = &self.container;
        if let Some(container) = &view.container {
            found.ok("container", format!("{name} runs, process {}", container.pid.unwrap_or_default()));
            return Ok(());
        }
        match probe.docker()?.container(name).await? {
            None => found.wrong(
                "container",
                format!("there is no container {name} on this host"),
                "run the play: it makes it",
            ),
            Some(other) => found.wrong(
                "container",
                format!("container {name} does not run: it is {}, exit code {}", other.status, other.exit.0),
                format!("look at `docker logs {name}`; then start it with the play"),
            ),
        }
        Ok(())
    }

    fn trace_card(&self, view: &View, found: &mut Found) {
        let (what, name) = ("network card", &self.card());
        let Some(parent) = &view.parent else {
            let way =
                "name the right one as `parent` in the `network` block, or make it: what stood on it went with it";
            return found.wrong(what, format!("the host has no network card {name}"), way);
        };
        if !parent.up {
            found.wrong(what, format!("the host's network card {name} is down"), format!("`ip link set {name} up`"));
        } else if !parent.carrier {
            let way = "look at the cable, the switch's port, or the virtual machine's network";
            found.wrong(what, format!("the host's network card {name} has no carrier"), way);
        } else if let Some(controller) = parent.controller.filter(|_| self.segment() != Segment::Bridge) {
            let bridge = view.host.links.iter().find(|link| link.index == controller).map(|link| link.name.as_str());
            let bridge = bridge.unwrap_or("a bridge or bond");
            found.wrong(what, format!("{name} is a port of {bridge}"), format!("name {bridge} as `parent` instead"));
        } else {
            found.ok(what, format!("{name}, up, MTU {}", parent.mtu));
        }
    }

    /// The interface and what the host has for it, as the kind itself compares them.
    fn trace_link(&self, view: &View, found: &mut Found) -> Result<(), Failure> {
        let (container, name) = (&self.container, &self.interface);
        let what = "interface";
        if view.container.is_none() {
            found.unknown(what, "not looked at: the container does not run");
        } else if view.own(self).is_none() {
            let way = format!("{MEND}. A restart of the container loses it, and so does removing its network card");
            found.wrong(what, format!("container {container} has no interface {name}"), way);
        } else if let Err(failure) = self.refuse_foreign(view) {
            found.wrong(what, failure.message, failure.hint.unwrap_or_default());
            return Ok(());
        } else {
            found.ok(what, format!("{name}, made by fanli"));
        }
        let desired = self.desired();
        let state = match self.state_of(view)? {
            // What the host has for it is looked at all the same.
            change::State::Absent => {
                let shim = view.shim.as_ref().map(|link| ("shim".to_owned(), shim::describe(link, view).into()));
                let leads = view.shim_routes.iter().any(|route| Some(IpAddr::V4(route.to.addr())) == self.address);
                let route = leads.then(|| ("shim_route".to_owned(), IN_PLACE.into()));
                change::State::Present(shim.into_iter().chain(route).collect())
            }
            present @ change::State::Present(_) => present,
        };
        let change = change::between(&desired, &state);
        let differs =
            |field: &str| change.as_ref().and_then(|change| change.fields.iter().find(|change| change.field == field));
        for (field, called) in FIELDS {
            let hosts = field.starts_with("shim") || field == OLD;
            if view.own(self).is_none() && !hosts {
                continue;
            }
            let Some(wanted) = desired.field(field) else { continue };
            match differs(field) {
                None if *wanted == change::Datum::Absent => {}
                None => found.ok(called, shown(wanted)),
                Some(change) => found.wrong(called, self.sentence(field, change), MEND),
            }
        }
        let others = change.iter().flat_map(|change| &change.fields);
        // The card was looked at before.
        let others = others.filter(|other| other.field != "card_down");
        for other in others.filter(|other| FIELDS.iter().all(|(field, _)| *field != other.field)) {
            if view.own(self).is_some() {
                found.wrong(&other.field, self.sentence(&other.field, other), MEND);
            }
        }
        Ok(())
    }

    /// A difference in one sentence.
    fn sentence(&self, field: &str, change: &FieldChange) -> String {
        let (container, name) = (&self.container, &self.interface);
        let (is, should) = (shown(&change.from), shown(&change.to));
        let address = self.address.map_or_else(|| "it".to_owned(), |address| address.to_string());
        let none = change.from == change::Datum::Absent;
        match field {
            "up" => format!("interface {name} of container {container} is down"),
            "address" if none => {
                format!("interface {name} of container {container} has no address, should have {should}")
            }
            "gateway" if none => format!("container {container} has no default route, should have one via {should}"),
            "shim" if none => format!("the host has no link {should} to reach its own containers with"),
            "shim_route" if none => {
                format!("the host has no route to {address} over its link to its containers")
            }
            "host_route" => format!("container {container} has no route to its own host"),
            OLD => format!("an old network of container {container} is kept alive with its interface: {is}"),
            "leftover" => format!("a half-made link {is} is left"),
            "stale_routes" => format!("the host has routes to containers that are gone: {is}"),
            "shim" => format!("the host's link to its own containers is {is}, should be {should}"),
            "shim_route" => format!("the host's route to {address} is {is}"),
            _ => {
                let what = FIELDS.iter().find(|(known, _)| *known == field).map_or(field, |(_, called)| called);
                format!("{what} of {name} in container {container} is {is}, should be {should}")
            }
        }
    }

    /// Docker's firewall drops what is bridged when the kernel hands bridged packets to it.
    async fn trace_forward(&self, view: &View, probe: &Probe, found: &mut Found) -> Result<(), Failure> {
        let bridged = view.parent.as_ref().is_some_and(|parent| parent.kind == "bridge")
            || view.own(self).is_some_and(|link| link.kind == "veth");
        let switch = probe.read_small("/proc/sys/net/bridge/bridge-nf-call-iptables")?;
        if !bridged || switch.is_none_or(|value| value.trim() != "1") || probe.program("iptables")?.is_none() {
            return Ok(());
        }
        let what = "firewall";
        let rules = probe.ask(&Program::new(["iptables", "-S", "FORWARD"])).await?.stdout.text();
        let drops = rules.lines().any(|line| line == "-P FORWARD DROP");
        let passes = rules.lines().any(|line| line.contains("fanli") && line.contains("ACCEPT"));
        if drops && !passes {
            let way =
                "`sysctl net.bridge.bridge-nf-call-iptables=0`, or a rule that accepts this subnet in `DOCKER-USER`";
            found.wrong(what, format!("the FORWARD chain of {} drops what is bridged", self.card()), way);
        } else {
            found.ok(what, "lets bridged packets through");
        }
        Ok(())
    }

    /// Who answers for the address: this container alone.
    async fn trace_owner(
        &self,
        wanted: &Wanted,
        view: &View,
        own: &Link,
        namespace: &Namespace,
        probe: &Probe,
        found: &mut Found,
    ) -> Result<(), Failure> {
        let (what, address) = ("one owner", wanted.address.addr());
        let own_mac = Mac(own.mac.unwrap_or_default());
        // From inside nobody may answer: whoever does is another one.
        let mut others = probe.who_has(Some(namespace), (own.index, own_mac), address).await.unwrap_or_default();
        let mut own_replies = 0;
        if let Some(shim) = view.shim.as_ref().filter(|shim| shim.up && self.host_reaches()) {
            let replies = probe.who_has(None, (shim.index, Mac(shim.mac.unwrap_or_default())), address).await?;
            own_replies = replies.iter().filter(|mac| **mac == own_mac).count();
            others.extend(replies.into_iter().filter(|mac| *mac != own_mac));
            if own_replies == 0 && others.is_empty() && !found.any_wrong() {
                let way = "does something in the container filter ARP (`arp_ignore`, arptables)?";
                found.wrong(
                    what,
                    format!("container {} does not answer for {address}, asked by its host", self.container),
                    way,
                );
                return Ok(());
            }
        }
        others.sort_unstable();
        others.dedup();
        if let Some(other) = others.first() {
            let way = format!(
                "find {other} in the tables of your switch, or with `fanli net list`; one of the two needs another address"
            );
            found.wrong(
                what,
                format!("{address} has two owners: {own_mac} is this container, and {other} answers too"),
                way,
            );
        } else if own_replies > 1 {
            let way = "`fanli net list` shows the other host that has it: stop the copy there";
            found.wrong(
                what,
                format!("{address} has two owners with the same MAC {own_mac}: a copy of this node is alive"),
                way,
            );
        } else {
            found.ok(what, format!("{address} is {own_mac} alone"));
        }
        Ok(())
    }

    async fn trace_gateway(
        &self,
        wanted: &Wanted,
        own: &Link,
        namespace: &Namespace,
        probe: &Probe,
        found: &mut Found,
    ) -> Result<(), Failure> {
        let Some(gateway) = wanted.gateway else { return Ok(()) };
        let mac = Mac(own.mac.unwrap_or_default());
        let replies = probe.who_has(Some(namespace), (own.index, mac), gateway).await.unwrap_or_default();
        match replies.first() {
            Some(mac) => found.ok("router", format!("{gateway} is {mac}")),
            None => found.wrong(
                "router",
                format!("the router {gateway} does not answer on this network"),
                "is it up, is `gateway` right, does the switch let the container's MAC through (port security, a cloud)?",
            ),
        }
        Ok(())
    }

    async fn trace_host(
        &self,
        view: &View,
        namespace: &Namespace,
        probe: &Probe,
        found: &mut Found,
    ) -> Result<(), Failure> {
        let (Some(source), Some(IpAddr::V4(address))) = (view.source.filter(|_| self.host_reaches()), self.address)
        else {
            return Ok(());
        };
        for (what, inside, to) in [("host to node", None, address), ("node to host", Some(namespace), source)] {
            if probe.ping(inside, to, 84).await? {
                found.ok(what, format!("{to} answers"));
            } else {
                let way = "does a firewall on the host or in the container drop ICMP?";
                found.wrong(
                    what,
                    format!(
                        "{to} does not answer a ping from {}",
                        if inside.is_some() { "the container" } else { "its host" }
                    ),
                    way,
                );
            }
        }
        Ok(())
    }

    /// From the node to an address: a route, the next hop, a small packet, a full one, a port.
    async fn trace_to(
        &self,
        to: IpAddr,
        port: Option<u16>,
        own: &Link,
        namespace: &Namespace,
        probe: &Probe,
        found: &mut Found,
    ) -> Result<(), Failure> {
        let IpAddr::V4(to) = to else {
            found.unknown("route", format!("{to}: only IPv4 is traced as yet"));
            return Ok(());
        };
        let inside = probe.netlink(Some(namespace))?;
        let routes = inside.routes().await;
        inside.close().await;
        let routes = routes?;
        let best = routes.iter().filter(|route| route.to.contains(&to)).max_by_key(|route| route.to.prefix_len());
        let Some(route) = best else {
            let way = "declare a `gateway` in the `network` block, or a route";
            found.wrong("route", format!("container {} has no route to {to}", self.container), way);
            return Ok(());
        };
        let hop = route.via.unwrap_or(to);
        found.ok("route", route.via.map_or_else(|| "on the network itself".to_owned(), |via| format!("via {via}")));
        if route.link == own.index {
            let mac = Mac(own.mac.unwrap_or_default());
            match probe.who_has(Some(namespace), (own.index, mac), hop).await?.first() {
                Some(mac) => found.ok("next hop", format!("{hop} is {mac}")),
                None => {
                    let way = "is it up, on the same wire (VLAN, bridge), and does the switch let both MACs through?";
                    found.wrong("next hop", format!("nobody on the network answers for {hop}"), way);
                }
            }
        }
        let small = probe.ping(Some(namespace), to, 84).await?;
        if small {
            found.ok("ping", format!("{to} answers"));
        } else {
            let way = "does a firewall between them, or on it, drop ICMP? try `--port`";
            found.wrong("ping", format!("{to} does not answer a ping from container {}", self.container), way);
        }
        if small && probe.ping(Some(namespace), to, own.mtu).await? {
            found.ok("full-size ping", format!("{} bytes", own.mtu));
        } else if small {
            let way =
                "every link between them needs the same MTU, both containers' too; over VXLAN it is 50 bytes less";
            found.wrong(
                "full-size ping",
                format!("packets of {} bytes to {to} are lost, small ones are not", own.mtu),
                way,
            );
        }
        if let Some(port) = port {
            let what = "TCP";
            match probe.tcp(Some(namespace), SocketAddr::from((to, port)))? {
                Reached::Open => found.ok(what, format!("{to} port {port} accepts")),
                Reached::Refused => {
                    let way = "is the service started, and does it listen on this address?";
                    found.wrong(what, format!("{to} refuses port {port}: nothing listens there"), way);
                }
                Reached::No(why) => {
                    let way = "does a firewall between them, or on it, drop the port?";
                    found.wrong(what, format!("{to} port {port} cannot be reached: {why}"), way);
                }
            }
        }
        Ok(())
    }
}

/// A field's content without the words for other uses.
fn shown(datum: &change::Datum) -> String {
    let text = datum.to_string();
    if text == IN_PLACE { "there".to_owned() } else { text }
}
