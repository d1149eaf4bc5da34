//! What a `network` block gives to the tasks that stand on it: `attach`, and the container around it.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;

use super::expand::Expander;
use super::make::Planner;
use super::model::Arg;
use super::scope::Scope;
use crate::diagnostic::Diagnostic;
use crate::expr::free_names;
use crate::playbook::model::{Binding, Network, Playbook, StepDef};
use crate::resource::Schema;
use crate::resource::kinds::{self, Kind};
use crate::source::Span;
use crate::syntax::ast::{BinaryOp, Expr, ExprKind};
use crate::value::{Map, Value};

/// Up to so many nodes, the tunnels of a network know on which host each one is; beyond, frames go to every host.
const KNOWN_NODES: usize = 1000;

/// The word of a network's `mode`, when it is written out.
pub(super) fn mode_of(network: &Network) -> Option<&str> {
    let mode = network.settings.iter().find(|(name, _)| name.text == "mode");
    match mode.map(|(_, value)| &value.kind) {
        Some(ExprKind::Name(word)) => Some(word),
        _ => None,
    }
}

/// Whether nodes of a network have a port of their host in place of an address.
pub(super) fn gives_ports(playbook: &Playbook, network: &str) -> bool {
    let mode = playbook.networks.get(network).and_then(mode_of);
    matches!(mode, Some("nat" | "host"))
}

/// The ports of a network, from the first to the last: `8080 - 8099`, or one alone.
pub(super) fn port_range<'p>(
    network: &'p Network,
    scope: &mut Scope<'p>,
    errors: &mut super::errors::Errors,
) -> Option<(u16, u16, Span)> {
    let (_, expr) = network.settings.iter().find(|(name, _)| name.text == "ports")?;
    let (first, last): (&Expr, &Expr) = match &expr.kind {
        ExprKind::Binary(BinaryOp::Subtract, first, last) => (first, last),
        _ => (expr, expr),
    };
    let mut port = |expr: &Expr| match scope.now(expr, "`ports`", errors)? {
        Value::Int(number @ 1..=65_535) => u16::try_from(number).ok(),
        other => {
            let message = format!("`ports`: expected a port from 1 to 65535, found {}", super::expand::told(&other));
            errors.push(Diagnostic::new(expr.span, message).help("write `ports = 8080 - 8099`"));
            None
        }
    };
    let (first, last) = (port(first)?, port(last)?);
    if first > last {
        errors.push(Diagnostic::new(expr.span, format!("`ports`: {first} is above {last}")));
        return None;
    }
    Some((first, last, expr.span))
}

impl Planner<'_, '_> {
    /// Checks every network as if something were attached to it: a playbook may declare it before its first container. What is different
    /// from host to host is checked where it is used.
    pub(super) fn check_networks(&mut self) {
        let Some(schema) = kinds::schema("attach") else { return };
        for (name, network) in &self.playbook.networks {
            let scope = self.play_scope();
            let known = |(setting, value): &Binding| {
                let is_word = |root: &str| schema.field(&setting.text).is_some_and(|field| field.kind.has_word(root));
                let mut roots = free_names(value).into_iter().filter_map(|name| name.path.into_iter().next());
                roots.all(|root| scope.binds(&root) || is_word(&root))
            };
            if !network.settings.iter().all(known) {
                continue;
            }
            let mut expander = Expander::new(self.playbook, &mut self.shared, scope, 0);
            let mut args = BTreeMap::from([("network".to_owned(), Arg::Ready(Value::from(name.as_str())))]);
            let before = expander.shared.errors.count();
            expander.network_settings(schema, &mut args, network.span, "");
            if expander.shared.errors.count() > before {
                continue;
            }
            let mut args = Arg::those_ready(&args);
            args.insert("container".to_owned(), Value::from("any"));
            if matches!(mode_of(network), Some("nat" | "host")) {
                args.entry("port".to_owned()).or_insert(Value::Int(8080));
            }
            // A router's address is no node's, and may be any: what is wrong with every node is wrong with the network.
            let with = |address: Option<Value>| {
                let mut args = args.clone();
                args.extend(address.map(|address| ("address".to_owned(), address)));
                Kind::build("attach", args).err().unwrap_or_default()
            };
            let wrong = some_hosts(&args).into_iter().map(|host| with(Some(host))).min_by_key(Vec::len);
            for error in wrong.unwrap_or_else(|| with(None)) {
                let Some((_, value)) = network.settings.iter().find(|(name, _)| name.text == error.field) else {
                    continue;
                };
                if error.message.starts_with("is required") {
                    continue;
                }
                let message = format!("`{}`: {}", error.field, error.message);
                self.shared.errors.push(Diagnostic::new(value.span, message));
            }
        }
    }
}

/// A few addresses of a network.
fn some_hosts(args: &Map) -> Vec<Value> {
    let Some(Value::Net(IpNet::V4(subnet))) = args.get("subnet") else { return Vec::new() };
    subnet.hosts().take(8).map(|host| Value::Ip(IpAddr::V4(host))).collect()
}

impl Expander<'_, '_, '_> {
    /// A kind whose title is `network` takes what the `network` block of that name says.
    pub(super) fn network_settings(&mut self, schema: &Schema, args: &mut BTreeMap<String, Arg>, span: Span, at: &str) {
        let Some(title) = schema.title().filter(|field| field.name == "network") else { return };
        let Some(Arg::Ready(Value::Str(name))) = args.get(title.name) else { return };
        let name = name.clone();
        let Some(network) = self.playbook.networks.get(&name) else {
            let error = Diagnostic::new(span, format!("there is no network `{name}`"));
            let known = self.playbook.networks.keys().map(String::as_str);
            let error = error.suggest(&name, known);
            let help = format!("declare it: `network \"{name}\" {{ mode = macvlan  parent = \"eth0\"  subnet = … }}`");
            self.shared.errors.push(if error.help.is_empty() { error.help(help) } else { error });
            return;
        };
        for (setting, value) in &network.settings {
            let Some(field) = schema.field(&setting.text) else { continue };
            if args.contains_key(&setting.text) {
                continue;
            }
            match self.param(field, value, &BTreeMap::new(), at) {
                Some(Arg::Ready(Value::Null)) | None => {}
                Some(arg) => {
                    args.insert(setting.text.clone(), arg);
                }
            }
        }
        match mode_of(network) {
            Some("vxlan") if !args.contains_key("peers") => {
                if let Some(peers) = self.peers(&name, span) {
                    args.insert("peers".to_owned(), Arg::Ready(Value::Map(peers)));
                }
            }
            Some("nat" | "host") if !args.contains_key("port") => {
                if let Some(port) = self.node_port() {
                    args.insert("port".to_owned(), Arg::Ready(Value::Int(port)));
                }
            }
            _ => {}
        }
    }

    /// `node.port`, in a play over nodes that have one.
    fn node_port(&self) -> Option<i64> {
        match self.scope.values.get("node") {
            Some(Value::Map(node)) => match node.get("port") {
                Some(Value::Int(port)) => Some(*port),
                _ => None,
            },
            _ => None,
        }
    }

    /// The other hosts that carry nodes of a network, each with the addresses of its nodes.
    fn peers(&mut self, network: &str, span: Span) -> Option<Map> {
        for name in ["nodes", "hosts"] {
            self.scope.need(name, span, &mut self.shared.errors);
        }
        let text = |map: &Map, name: &str| map.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let maps = |value: Option<&Value>| -> Vec<Map> {
            let Some(Value::List(items)) = value else { return Vec::new() };
            items.iter().filter_map(|item| if let Value::Map(map) = item { Some(map.clone()) } else { None }).collect()
        };
        let Some(Value::Map(groups)) = self.scope.values.get("nodes") else { return None };
        let nodes: Vec<Map> = groups.values().flat_map(|group| maps(Some(group))).collect();
        let nodes: Vec<Map> = nodes.into_iter().filter(|node| text(node, "network") == network).collect();
        let hosts = match self.scope.values.get("hosts") {
            Some(Value::Map(groups)) => maps(groups.get("all")),
            _ => Vec::new(),
        };
        let own = match self.scope.values.get("host") {
            Some(Value::Map(host)) => text(host, "name"),
            _ => return None,
        };
        let known = nodes.len() <= KNOWN_NODES;
        let mut peers = Map::new();
        for node in &nodes {
            let carrier = text(node, "host");
            if carrier == own {
                continue;
            }
            let address = hosts.iter().find(|host| text(host, "name") == carrier).map(|host| text(host, "address"));
            let Some(address) = address.filter(|address| address.parse::<Ipv4Addr>().is_ok()) else {
                let message = format!("host `{carrier}` has no IPv4 address for the tunnel of network `{network}`");
                let help = "give the host an `address`, or name the other hosts in `peers = { \"10.0.0.2\" = [] }`";
                self.shared.errors.push(Diagnostic::new(span, message).help(help));
                return None;
            };
            let Value::List(list) = peers.entry(address).or_insert_with(|| Value::List(Vec::new())) else { continue };
            if let Some(address @ Value::Ip(_)) = node.get("address").filter(|_| known) {
                list.push(address.clone());
            }
        }
        Some(peers)
    }

    /// A container with an `attach` inside takes what that network asks of its creation: Docker's own networks, name servers.
    pub(super) fn container_network(&mut self, def: &StepDef, args: &mut BTreeMap<String, Arg>, at: &str) {
        if def.schema.name != "container" {
            return;
        }
        let attached: Vec<&StepDef> = def.followers.iter().filter(|child| child.schema.name == "attach").collect();
        for child in attached {
            let Some((_, title)) = child.args.first() else { continue };
            let name = match &title.kind {
                ExprKind::Literal { value: Value::Str(name), .. } => Some(name.clone()),
                // Its own errors are told where it stands itself.
                _ => match self.scope.eval(title, &mut super::errors::Errors::default()) {
                    Some(super::scope::Known::Ready(value)) => Some(value.to_string()),
                    _ => None,
                },
            };
            let Some(network) = name.and_then(|name| self.playbook.networks.get(&name)) else { continue };
            for setting in ["dns", "search"] {
                let found = network.settings.iter().find(|(name, _)| name.text == setting);
                if let (Some((_, value)), Some(field)) = (found, def.schema.field(setting))
                    && !args.contains_key(setting)
                    && let Some(arg) = self.param(field, value, &BTreeMap::new(), at)
                    && arg != Arg::Ready(Value::Null)
                {
                    args.insert(setting.to_owned(), arg);
                }
            }
            let (word, mode) = match mode_of(network) {
                Some("nat") => ("bridge", "nat"),
                Some("host") => ("host", "host"),
                Some("docker") => ("macvlan", "docker"),
                _ => continue,
            };
            let wanted = Arg::Ready(Value::from(word));
            if args.get("network").is_some_and(|given| *given != wanted) {
                let message = format!("`network`: an `attach` with `mode = {mode}` inside needs `network = {word}`");
                self.shared.errors.push(Diagnostic::new(def.span, message).help("leave it out: the plan fills it in"));
                continue;
            }
            args.insert("network".to_owned(), wanted);
            if mode == "docker" {
                let mut lan = BTreeMap::new();
                let name =
                    child.args.first().and_then(|(_, title)| self.scope.now(title, "a name", &mut self.shared.errors));
                lan.extend(name.map(|name| ("name".to_owned(), name)));
                for setting in ["parent", "subnet", "gateway", "address"] {
                    let own = child.args.iter().chain(&network.settings).find(|(name, _)| name.text == setting);
                    let value = own.and_then(|(_, value)| self.scope.now(value, setting, &mut self.shared.errors));
                    lan.extend(value.filter(|value| *value != Value::Null).map(|value| (setting.to_owned(), value)));
                }
                args.insert("lan".to_owned(), Arg::Ready(Value::Map(lan)));
                continue;
            }
            let mut of_child = |setting: &str| -> Option<i64> {
                let own = child.args.iter().chain(&network.settings).find(|(name, _)| name.text == setting);
                match self.scope.now(&own?.1, "a port", &mut self.shared.errors)? {
                    Value::Int(number) => Some(number),
                    _ => None,
                }
            };
            let (port, inside) = (of_child("port"), of_child("inside"));
            let port = port.or_else(|| self.node_port());
            match (mode, port, inside) {
                ("host", Some(port), _) if !args.contains_key("listens") => {
                    args.insert("listens".to_owned(), Arg::Ready(Value::List(vec![Value::Int(port)])));
                }
                ("nat", Some(port), Some(inside)) if !args.contains_key("ports") => {
                    let ports = vec![Value::Str(format!("{port}:{inside}"))];
                    args.insert("ports".to_owned(), Arg::Ready(Value::List(ports)));
                }
                _ => {}
            }
        }
    }
}
