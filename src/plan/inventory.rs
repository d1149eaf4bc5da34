//! Hosts and nodes by name: who there is, where, at which address.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use super::errors::Errors;
use super::model::Connection;
use super::pool;
use super::scope::{Known, Scope};
use super::store::Addresses;
use crate::diagnostic::Diagnostic;
use crate::playbook::model::{Binding, HostItem, Layer, Playbook};
use crate::source::Span;
use crate::syntax::ast::{Expr, ExprKind};
use crate::value::{Map, Value};

/// The most hosts and the most nodes of a playbook.
const MOST_MEMBERS: usize = 10_000;

/// Every host and node.
#[derive(Debug)]
pub struct Inventory<'p> {
    /// Hosts in the order of the playbook.
    pub hosts: Vec<Host<'p>>,
    /// Nodes in the order of the playbook.
    pub nodes: Vec<Node<'p>>,
    /// `hosts` and `nodes` as expressions see them.
    pub(super) shared: Arc<Map>,
    /// What `--set` binds.
    pub(super) set: Map,
}

/// One host.
#[derive(Debug)]
pub struct Host<'p> {
    /// Its name.
    pub name: String,
    /// Its address as far as the playbook tells.
    pub address: Option<String>,
    /// How it is reached.
    pub connection: Connection,
    /// The groups that it is in.
    pub groups: Vec<&'p str>,
    /// Where it is declared.
    pub span: Span,
    /// Loop variables around its declaration.
    pub(super) locals: Map,
    /// Group variables, then its own: later ones win.
    pub(super) vars: Vec<&'p Binding>,
}

/// One node.
#[derive(Debug)]
pub struct Node<'p> {
    /// Its name.
    pub name: String,
    /// Its group.
    pub group: &'p str,
    /// Its host, by place in [`Inventory::hosts`].
    pub host: usize,
    /// Number in its group, from 1.
    pub index: i64,
    /// Number among the nodes of its group on its host, from 1.
    pub local_index: i64,
    /// Its address, when its group has a pool or a list.
    pub address: Option<IpAddr>,
    /// The port of its host, when its network gives ports.
    pub port: Option<u16>,
    /// Its network's name.
    pub network: Option<String>,
    pub(super) vars: &'p [Binding],
}

/// Builds the inventory; errors are collected, what is sound comes back.
pub(super) fn build<'p>(playbook: &'p Playbook, set: &Map, book: &mut Addresses, errors: &mut Errors) -> Inventory<'p> {
    let mut inventory = Inventory { hosts: Vec::new(), nodes: Vec::new(), shared: Arc::default(), set: set.clone() };
    all_hosts(playbook, set, &mut inventory.hosts, errors);
    let hosts = ("hosts".to_owned(), hosts_value(playbook, &inventory.hosts));
    inventory.shared = Arc::new(Map::from([hosts.clone()]));
    for group in &playbook.nodes {
        let mut scope =
            Scope::new(definitions(playbook, &[], set), Arc::clone(&inventory.shared), base_values(playbook, set));
        let nodes = nodes_of(playbook, group, &inventory, &mut scope, book, errors);
        inventory.nodes.extend(nodes);
    }
    unique(&inventory, playbook, errors);
    let nodes = ("nodes".to_owned(), nodes_value(playbook, &inventory));
    inventory.shared = Arc::new(Map::from([hosts, nodes]));
    inventory
}

/// The hosts of a playbook, and how each is reached: without nodes, so nothing is asked for addresses.
///
/// # Errors
/// Those of the `hosts` blocks.
pub fn hosts(playbook: &Playbook, set: &Map) -> Result<Vec<(String, Connection)>, Vec<Diagnostic>> {
    let (mut errors, mut hosts) = (Errors::default(), Vec::new());
    all_hosts(playbook, set, &mut hosts, &mut errors);
    if errors.is_empty() {
        Ok(hosts.into_iter().map(|host| (host.name, host.connection)).collect())
    } else {
        Err(errors.into_inner())
    }
}

fn all_hosts<'p>(playbook: &'p Playbook, set: &Map, found: &mut Vec<Host<'p>>, errors: &mut Errors) {
    for group in &playbook.groups {
        let mut scope = Scope::new(definitions(playbook, &[], set), Arc::default(), base_values(playbook, set));
        let mut members = Vec::new();
        hosts_of(&group.items, &Map::new(), &mut scope, &mut members, errors);
        for mut host in members {
            host.groups.push(&group.name.text);
            host.vars = group.vars.iter().chain(host.vars).collect();
            join(found, host, errors);
        }
    }
}

/// The winning definition of each variable: playbook < environment < `over` in order; `--set` names are left out.
pub(super) fn definitions<'p>(playbook: &'p Playbook, over: &[&'p Binding], set: &Map) -> BTreeMap<&'p str, &'p Expr> {
    let mut defined: BTreeMap<&str, &Expr> = BTreeMap::new();
    for layer in [Layer::Playbook, Layer::Environment] {
        let of_layer = playbook.vars.iter().filter(|var| var.layer == layer);
        defined.extend(of_layer.map(|var| (var.name.text.as_str(), &var.value)));
    }
    defined.extend(over.iter().map(|(name, value)| (name.text.as_str(), value)));
    defined.retain(|name, _| !set.contains_key(*name));
    defined
}

/// What is known from the start.
pub(super) fn base_values(playbook: &Playbook, set: &Map) -> Map {
    let mut values = set.clone();
    values.insert("env".to_owned(), Value::from(playbook.env.as_str()));
    values
}

/// `locals` are the variables of the loops around.
fn hosts_of<'p>(
    items: &'p [HostItem],
    locals: &Map,
    scope: &mut Scope<'p>,
    found: &mut Vec<Host<'p>>,
    errors: &mut Errors,
) {
    for item in items {
        match item {
            HostItem::Host { name, settings, vars } => {
                let host = host(name, settings, vars, scope, errors);
                found.extend(host.map(|host| Host { locals: locals.clone(), ..host }));
            }
            HostItem::For { name, list, body } => {
                let Some(values) = super::expand::loop_items(list, scope, errors) else { continue };
                let outer = scope.enter();
                for value in values {
                    if found.len() > MOST_MEMBERS {
                        errors.push(Diagnostic::new(list.span, "a group may have 10,000 hosts at most"));
                        break;
                    }
                    if !scope.round(list.span, errors) {
                        break;
                    }
                    let mut inner = locals.clone();
                    inner.insert(name.text.clone(), value.clone());
                    scope.bind(&name.text, Known::Ready(value));
                    hosts_of(body, &inner, scope, found, errors);
                }
                scope.leave(&outer);
            }
        }
    }
}

fn host<'p>(
    name: &'p Expr,
    settings: &'p [Binding],
    vars: &'p [Binding],
    scope: &mut Scope<'p>,
    errors: &mut Errors,
) -> Option<Host<'p>> {
    let text = scope.now(name, "a host's name", errors)?.to_string();
    if !plain_name(&text) {
        let error = Diagnostic::new(name.span, format!("`{text}` cannot be a host's name"));
        errors
            .push(error.help("letters, digits, `.`, `_`, `-` and `:`, not starting with `-`, 255 characters at most"));
        return None;
    }
    let mut values: BTreeMap<&str, (Value, Span)> = BTreeMap::new();
    for (setting, value) in settings {
        let word = match (&setting.text[..], &value.kind) {
            ("connection", ExprKind::Name(word)) if !scope.binds(word) => Some(Value::from(word.as_str())),
            _ => scope.now(value, "a host's setting", errors),
        };
        values.insert(&setting.text, (word?, value.span));
    }
    let address = match values.get("address") {
        None => None,
        Some((value @ (Value::Str(_) | Value::Ip(_)), span)) => {
            let address = value.to_string();
            if !plain_name(&address) {
                let error = Diagnostic::new(*span, format!("`{address}` is not an address or a host name"));
                errors.push(
                    error.help("an address stands without quotes: `10.0.0.1`; a name has letters, digits, `.` and `-`"),
                );
                return None;
            }
            Some(address)
        }
        Some((other, span)) => {
            errors.push(Diagnostic::new(*span, format!("`address`: expected an address, found {}", other.type_name())));
            return None;
        }
    };
    let connection = connection(&text, address.as_deref(), &values, errors)?;
    let locals = Map::new();
    let vars = vars.iter().collect();
    Some(Host { name: text, address, connection, groups: Vec::new(), span: name.span, locals, vars })
}

fn connection(
    name: &str,
    address: Option<&str>,
    values: &BTreeMap<&str, (Value, Span)>,
    errors: &mut Errors,
) -> Option<Connection> {
    let mut wrong = |span: Span, message: String| errors.push(Diagnostic::new(span, message));
    let r#become = match values.get("become") {
        None => false,
        Some((Value::Bool(flag), _)) => *flag,
        Some((other, span)) => {
            wrong(*span, format!("`become`: expected true or false, found {}", other.type_name()));
            return None;
        }
    };
    let local = match values.get("connection") {
        None => name == "localhost" && address.is_none(),
        Some((Value::Str(word), _)) if word == "local" => true,
        Some((Value::Str(word), _)) if word == "ssh" => false,
        Some((other, span)) => {
            wrong(*span, format!("`connection`: `{other}` is neither `local` nor `ssh`"));
            return None;
        }
    };
    if local {
        return Some(Connection::Local { r#become });
    }
    let port = match values.get("port") {
        None => None,
        Some((Value::Int(port), span)) => match u16::try_from(*port) {
            Ok(port) if port > 0 => Some(port),
            _ => {
                wrong(*span, format!("`port`: {port} is not a port; they are 1 to 65535"));
                return None;
            }
        },
        Some((other, span)) => {
            wrong(*span, format!("`port`: expected a number, found {}", other.type_name()));
            return None;
        }
    };
    let user = match values.get("user") {
        None => None,
        Some((Value::Str(user), span)) => {
            if !plain_name(user) {
                wrong(*span, format!("`{user}` cannot be a user's name"));
                return None;
            }
            Some(user.clone())
        }
        Some((other, span)) => {
            wrong(*span, format!("`user`: expected a name, found {}", other.type_name()));
            return None;
        }
    };
    let config = match values.get("config") {
        None => None,
        Some((Value::Str(path), _)) => Some(path.into()),
        Some((other, span)) => {
            wrong(*span, format!("`config`: expected a path, found {}", other.type_name()));
            return None;
        }
    };
    let destination = address.unwrap_or(name).to_owned();
    Some(Connection::Ssh { destination, user, port, config, r#become })
}

/// A strict list of characters: names become arguments of ssh (CVE-2023-51385 is what the loose one led to).
fn plain_name(name: &str) -> bool {
    let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | ':');
    !name.is_empty() && name.len() <= 255 && !name.starts_with('-') && name.chars().all(fine)
}

/// A host in several groups is one host; its settings stand in one place.
fn join<'p>(hosts: &mut Vec<Host<'p>>, host: Host<'p>, errors: &mut Errors) {
    let Some(known) = hosts.iter_mut().find(|known| known.name == host.name) else {
        hosts.push(host);
        return;
    };
    let bare =
        Connection::Ssh { destination: host.name.clone(), user: None, port: None, config: None, r#become: false };
    if known.groups.iter().any(|group| host.groups.contains(group)) {
        let error = Diagnostic::new(host.span, format!("host `{}` stands twice in its group", host.name));
        errors.push(error.also(known.span, "first here"));
    } else if host.connection != bare && host.connection != known.connection {
        let error = Diagnostic::new(host.span, format!("host `{}` has settings in two places", host.name));
        let error = error.also(known.span, "and here");
        errors.push(error.help("in a second group name it alone: `host \"…\"`"));
    }
    known.groups.extend(host.groups);
    known.vars.extend(host.vars);
}

fn nodes_of<'p>(
    playbook: &'p Playbook,
    group: &'p crate::playbook::model::NodeGroup,
    inventory: &Inventory<'p>,
    scope: &mut Scope<'p>,
    book: &mut Addresses,
    errors: &mut Errors,
) -> Vec<Node<'p>> {
    let setting = |name: &str| group.settings.iter().find(|(known, _)| known.text == name).map(|(_, value)| value);
    let (Some(on), Some(name)) = (setting("on"), setting("name")) else { return Vec::new() };
    let Some(carriers) = scope.now(on, "`on`", errors).and_then(|value| members(&value, on.span, errors)) else {
        return Vec::new();
    };
    let carriers: Vec<usize> =
        carriers.iter().filter_map(|name| inventory.hosts.iter().position(|host| host.name == *name)).collect();
    let network =
        setting("network").and_then(|expr| Some((scope.now(expr, "`network`", errors)?.to_string(), expr.span)));
    if let Some((network, span)) = &network
        && !playbook.networks.contains_key(network)
    {
        let error = Diagnostic::new(*span, format!("there is no network `{network}`"));
        errors.push(error.suggest(network, playbook.networks.keys().map(String::as_str)));
        return Vec::new();
    }
    let network_name = network.as_ref().map(|(name, _)| name.as_str());
    let on_ports = network_name.filter(|name| super::network::gives_ports(playbook, name));
    let pooled = network_name.filter(|_| on_ports.is_none());
    let Some(addresses) = pool::addresses(playbook, group, pooled, scope, MOST_MEMBERS, book, errors) else {
        return Vec::new();
    };
    let ports = on_ports.and_then(|name| playbook.networks.get(name));
    let ports = ports.and_then(|network| super::network::port_range(network, scope, errors));
    if carriers.is_empty() {
        if !addresses.is_empty() {
            errors.push(Diagnostic::new(on.span, "no host carries these nodes: the group is empty"));
        }
        return Vec::new();
    }
    let mut nodes = Vec::new();
    let mut on_host: BTreeMap<usize, i64> = BTreeMap::new();
    for (offset, address) in addresses.into_iter().enumerate() {
        // Round robin over the hosts: even, and the same on each run.
        let Some(host) = carriers.get(offset % carriers.len()).copied() else { continue };
        let index = i64::try_from(offset).unwrap_or(i64::MAX).saturating_add(1);
        let local_index = on_host.entry(host).or_insert(0);
        *local_index += 1;
        let mut node = Node {
            name: String::new(),
            group: &group.name.text,
            host,
            index,
            local_index: *local_index,
            address,
            port: None,
            network: network_name.map(str::to_owned),
            vars: &group.vars,
        };
        if let Some((first, last, span)) = ports {
            // The first on each host has the first port, and so on: the same on each run.
            let place = u16::try_from(offset / carriers.len()).unwrap_or(u16::MAX);
            let Some(port) = first.checked_add(place).filter(|port| *port <= last) else {
                let message = format!("the nodes of a host do not fit the ports {first} - {last}");
                errors.push(Diagnostic::new(span, message).help("widen `ports`, or spread the nodes over more hosts"));
                return nodes;
            };
            node.port = Some(port);
        }
        let outer = scope.enter();
        scope.bind("node", Known::Ready(node_value(&node, &inventory.hosts)));
        if let Some(carrier) = inventory.hosts.get(host) {
            scope.bind("host", Known::Ready(host_value(carrier)));
        }
        let text = scope.now(name, "a node's name", errors).map(|value| value.to_string());
        scope.leave(&outer);
        let Some(text) = text else { break };
        // Docker's own rule for names of containers.
        let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if text.is_empty() || text.len() > 63 || !text.chars().all(fine) || text.starts_with(['.', '_', '-']) {
            let error = Diagnostic::new(name.span, format!("`{text}` cannot be a node's name"));
            errors
                .push(error.help(
                    "letters, digits, `.`, `_` and `-`, 63 characters at most, beginning with a letter or digit",
                ));
            break;
        }
        node.name = text;
        nodes.push(node);
    }
    nodes
}

/// Hosts that are one machine: its two names would wait for each other's lock.
fn refuse_twins(hosts: &[Host], errors: &mut Errors) {
    let mut of_address: BTreeMap<(String, u16, Option<&PathBuf>), Vec<&Host>> = BTreeMap::new();
    for host in hosts {
        if let Connection::Ssh { destination, port, config, .. } = &host.connection {
            let key = (destination.to_lowercase(), port.unwrap_or(SSH_PORT), config.as_ref());
            of_address.entry(key).or_default().push(host);
        }
    }
    for ((address, ..), twins) in of_address {
        let [first, second, more @ ..] = twins.as_slice() else { continue };
        let more = if more.is_empty() { String::new() } else { format!(", and {} more,", more.len()) };
        let message = format!("`{}` and `{}`{more} have the same address, {address}", first.name, second.name);
        let error = Diagnostic::new(second.span, message).also(first.span, "first here");
        errors.push(error.help(
            "a machine stands once in the inventory; it may be in several groups: `host \"…\"` with its name alone",
        ));
    }
}

/// The port of SSH.
const SSH_PORT: u16 = 22;

/// Names and addresses that stand twice.
fn unique(inventory: &Inventory, playbook: &Playbook, errors: &mut Errors) {
    refuse_twins(&inventory.hosts, errors);
    let (mut names, mut addresses) = (BTreeSet::new(), BTreeMap::new());
    let mut ports: BTreeMap<(usize, u16), &Node> = BTreeMap::new();
    let hosts = inventory.hosts.iter().map(|host| host.name.as_str()).collect::<BTreeSet<_>>();
    for node in &inventory.nodes {
        let group = playbook.nodes.iter().find(|group| group.name.text == node.group);
        let place = |setting: &str| {
            let found = group.and_then(|group| group.settings.iter().find(|(name, _)| name.text == setting));
            found.map_or(group.map_or(Span::NOWHERE, |group| group.name.span), |(_, value)| value.span)
        };
        if hosts.contains(node.name.as_str()) {
            let message = format!("`{}` is the name of a host and of a node", node.name);
            errors.push(Diagnostic::new(place("name"), message).help("give the node another name: `name = \"…\"`"));
        } else if !names.insert(node.name.as_str()) {
            let message = format!("two nodes are called `{}`", node.name);
            let help =
                "put something of the node into the name: `{{ node.index }}` or `{{ node.address | octets(3, 4) }}`";
            errors.push(Diagnostic::new(place("name"), message).help(help));
        }
        if let Some(port) = node.port
            && let Some(first) = ports.insert((node.host, port), node)
        {
            let message = format!("port {port} is given to two nodes of a host: `{}` and `{}`", first.name, node.name);
            let help = "give the groups networks with `ports` that do not overlap";
            errors.push(Diagnostic::new(place("network"), message).help(help));
        }
        let Some(address) = node.address else { continue };
        if let Some(first) = addresses.insert(address, node) {
            let message = format!("{address} is given to two nodes: `{}` and `{}`", first.name, node.name);
            let list = group.and_then(|group| group.settings.iter().find(|(name, _)| name.text == "addresses"));
            let (span, help) = match list {
                Some((_, list)) => {
                    let at = usize::try_from(node.index - 1).unwrap_or(0);
                    (pool::item_span(list, at), "each address stands once, over all groups")
                }
                None => (place("network"), "give the groups networks with pools that do not overlap"),
            };
            errors.push(Diagnostic::new(span, message).help(help));
        }
    }
}

/// The names in a value of `hosts.GROUP` or `nodes.GROUP`.
pub(super) fn members(value: &Value, span: Span, errors: &mut Errors) -> Option<Vec<String>> {
    let name = |item: &Value| match item {
        Value::Map(map) => map.get("name").and_then(Value::as_str).map(str::to_owned),
        _ => None,
    };
    let names = match value {
        Value::List(items) => items.iter().map(name).collect::<Option<Vec<_>>>(),
        single => name(single).map(|name| vec![name]),
    };
    if names.is_none() {
        let error = Diagnostic::new(span, format!("expected hosts or nodes, found {}", value.type_name()));
        errors.push(error.help("write `hosts.GROUP`, `hosts.all` or `nodes.GROUP`"));
    }
    names
}

/// `host` as expressions see it.
pub(super) fn host_value(host: &Host) -> Value {
    let address = host.address.clone().unwrap_or_else(|| host.name.clone());
    Value::Map(Map::from([
        ("name".to_owned(), Value::from(host.name.as_str())),
        ("address".to_owned(), Value::Str(address)),
    ]))
}

/// `node` as expressions see it.
pub(super) fn node_value(node: &Node, hosts: &[Host]) -> Value {
    let carrier = hosts.get(node.host);
    let host = carrier.map_or("", |host| &host.name);
    // A node with a port is reached at its host's address.
    let reached = || {
        let text = carrier.and_then(|host| host.address.clone()).filter(|_| node.port.is_some());
        text.map_or(Value::Null, |text| text.parse().map_or(Value::Str(text), Value::Ip))
    };
    let address = node.address.map_or_else(reached, Value::Ip);
    Value::Map(Map::from([
        ("name".to_owned(), Value::from(node.name.as_str())),
        ("host".to_owned(), Value::from(host)),
        ("index".to_owned(), Value::Int(node.index)),
        ("local_index".to_owned(), Value::Int(node.local_index)),
        ("address".to_owned(), address),
        ("port".to_owned(), node.port.map_or(Value::Null, |port| Value::Int(port.into()))),
        ("network".to_owned(), node.network.clone().map_or(Value::Null, Value::Str)),
    ]))
}

fn hosts_value(playbook: &Playbook, hosts: &[Host]) -> Value {
    let mut groups: Map = playbook
        .groups
        .iter()
        .map(|group| {
            let of_group = hosts.iter().filter(|host| host.groups.contains(&group.name.text.as_str()));
            (group.name.text.clone(), Value::List(of_group.map(host_value).collect()))
        })
        .collect();
    groups.insert("all".to_owned(), Value::List(hosts.iter().map(host_value).collect()));
    Value::Map(groups)
}

fn nodes_value(playbook: &Playbook, inventory: &Inventory) -> Value {
    let group = |group: &crate::playbook::model::NodeGroup| {
        let nodes = inventory.nodes.iter().filter(|node| node.group == group.name.text);
        (group.name.text.clone(), Value::List(nodes.map(|node| node_value(node, &inventory.hosts)).collect()))
    };
    Value::Map(playbook.nodes.iter().map(group).collect())
}
