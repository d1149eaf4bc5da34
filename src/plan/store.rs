//! Which address book a playbook means, and what hosts are told of it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;

use super::errors::Errors;
use super::expand::told;
use super::inventory::{self, Inventory};
use super::late::LateSource;
use super::model::{Arg, RunPlan};
use super::scope::Scope;
use crate::book::{Bound, Entry, Lan, Place, Predecessor, State, View};
use crate::diagnostic::Diagnostic;
use crate::playbook::model::Playbook;
use crate::resource::Declared as _;
use crate::resource::attach::Attach;
use crate::system::http::check_url;
use crate::value::{Map, Value};

/// Where nodes get their addresses from while planning.
pub(super) struct Addresses<'a> {
    /// The book that the playbook means.
    pub(super) place: Place,
    /// What answers for it.
    pub(super) view: &'a mut View,
}

/// The book of a playbook in its environment: what `store` says, else a file beside the project.
///
/// # Errors
/// Those of the `store` block.
pub fn book_of(playbook: &Playbook, set: &Map) -> Result<Place, Vec<Diagnostic>> {
    let mut errors = Errors::default();
    let place = read(playbook, set, &mut errors);
    if errors.is_empty() { Ok(place) } else { Err(errors.into_inner()) }
}

/// The networks of a playbook, as far as they speak of addresses.
///
/// # Errors
/// Those of their settings.
pub fn lans(playbook: &Playbook, set: &Map) -> Result<Vec<Lan>, Vec<Diagnostic>> {
    let mut errors = Errors::default();
    let defined = inventory::definitions(playbook, &[], set);
    let mut scope = Scope::new(defined, std::sync::Arc::default(), inventory::base_values(playbook, set));
    let mut found = Vec::new();
    for name in playbook.networks.keys() {
        found.extend(super::pool::lan(playbook, name, &mut scope, &mut errors));
    }
    if errors.is_empty() { Ok(found) } else { Err(errors.into_inner()) }
}

/// Where the book of a playbook is without a `store` block. One for each environment: two of them may well have the same subnets, and
/// owners of the same names.
pub fn book_file(playbook: &Playbook) -> PathBuf {
    playbook.root.join(".fanli").join(&playbook.env).join("book.redb")
}

/// As [`book_of`]; after an error it is the file, so that planning finds more errors.
pub(super) fn read(playbook: &Playbook, set: &Map, errors: &mut Errors) -> Place {
    let file = Place::File(book_file(playbook));
    let Some(store) = playbook.stores.iter().max_by_key(|store| store.layer) else { return file };
    let defined = inventory::definitions(playbook, &[], set);
    let mut scope = Scope::new(defined, std::sync::Arc::default(), inventory::base_values(playbook, set));
    let (mut endpoints, mut prefix) = (None, format!("/fanli/{}", playbook.env));
    for (setting, expr) in &store.settings {
        let Some(value) = scope.now(expr, "a setting of `store`", errors) else { continue };
        match (&setting.text[..], value) {
            ("etcd", Value::List(items)) => {
                let mut members = Vec::new();
                for (at, item) in items.iter().enumerate() {
                    let span = super::pool::item_span(expr, at);
                    match item.as_str().map(|url| check_url(url).map(|()| url.to_owned())) {
                        Some(Ok(url)) => members.push(url),
                        Some(Err(why)) => errors.push(Diagnostic::new(span, format!("`etcd`: {why}"))),
                        None => {
                            let message = format!("`etcd`: expected a URL in quotes, found {}", told(item));
                            errors.push(Diagnostic::new(span, message));
                        }
                    }
                }
                if items.is_empty() {
                    let error = Diagnostic::new(expr.span, "`etcd` names no member of the cluster");
                    errors.push(error.help("`etcd = [\"http://10.0.0.5:2379\"]`; one for each member, any will do"));
                }
                endpoints = Some(members);
            }
            ("prefix", Value::Str(text)) if fine_prefix(&text) => prefix = text,
            ("prefix", Value::Str(text)) => {
                let error = Diagnostic::new(expr.span, format!("`prefix`: `{text}` is no prefix for keys"));
                errors.push(error.help("it begins with `/` and has letters, digits, `.`, `_`, `-` between slashes"));
            }
            (setting, other) => {
                let form = if setting == "etcd" { "a list of URLs: `[\"http://10.0.0.5:2379\"]`" } else { "text" };
                errors
                    .push(Diagnostic::new(expr.span, format!("`{setting}`: expected {form}, found {}", told(&other))));
            }
        }
    }
    match endpoints {
        Some(endpoints) => Place::Etcd { endpoints, prefix },
        None => {
            if !store.settings.iter().any(|(setting, _)| setting.text == "etcd") {
                let error = Diagnostic::new(store.span, "`store` does not say where: it needs `etcd`");
                let help = "`store { etcd = [\"http://10.0.0.5:2379\"] }`; without a `store` block the book is a file \
                            beside the project";
                errors.push(error.help(help));
            }
            file
        }
    }
}

fn fine_prefix(text: &str) -> bool {
    let fine = |part: &str| {
        !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
    };
    text.strip_prefix('/').is_some_and(|rest| rest.split('/').all(fine))
}

/// The slot of a node: what owns its address, whatever its name, its host and its container.
pub fn slot(group: &str, index: i64) -> String {
    format!("{group}/{index}")
}

/// What the book is to remember of each owner, by network and owner. The MAC address is that of the owner's `attach` in the run; an owner
/// that the run leaves out has none here, and keeps what it has.
pub fn holders(run: &RunPlan, inventory: &Inventory) -> BTreeMap<(String, String), Bound> {
    let mut macs: BTreeMap<(String, IpAddr), String> = BTreeMap::new();
    let targets = run.hosts.iter().flat_map(|host| &host.plan.stages).flat_map(|stage| &stage.targets);
    for step in targets.flat_map(|target| &target.steps).filter(|step| step.kind == "attach") {
        // What facts decide is not known here.
        let Some(args) = Arg::all_ready(&step.args) else { continue };
        let (Some(Value::Str(network)), Some(Value::Ip(address))) = (args.get("network"), args.get("address")) else {
            continue;
        };
        let key = (network.clone(), *address);
        let mac = Attach::from_args(args).ok().and_then(|attach| attach.declared_mac());
        macs.extend(mac.map(|mac| (key, mac.to_string())));
    }
    let nodes = inventory.nodes.iter().filter_map(|node| {
        let host = inventory.hosts.get(node.host).map(|host| host.name.clone());
        let network = node.network.clone()?;
        let mac = node.address.and_then(|address| macs.get(&(network.clone(), address)).cloned());
        let bound = Bound { node: Some(node.name.clone()), host, mac };
        Some(((network, slot(node.group, node.index)), bound))
    });
    nodes.collect()
}

/// Records of this playbook's groups that no node of it has any more: the group has fewer nodes now, or another address.
pub fn left_over(playbook: &Playbook, inventory: &Inventory, entries: &[Entry]) -> Vec<Entry> {
    let known: BTreeSet<(String, String)> =
        inventory.nodes.iter().filter_map(|node| Some((node.network.clone()?, slot(node.group, node.index)))).collect();
    let left = |entry: &&Entry| {
        let record = &entry.record;
        let Some(owner) = record.owner.as_ref().filter(|_| record.state == State::Bound) else { return false };
        let group = owner.split_once('/').map_or(owner.as_str(), |(group, _)| group);
        playbook.networks.contains_key(&record.network)
            && playbook.nodes.iter().any(|nodes| nodes.name.text == group)
            && !known.contains(&(record.network.clone(), owner.clone()))
    };
    entries.iter().filter(left).cloned().collect()
}

/// Tells each `attach` of a node's own network whose address it is, from which book, at which of its revisions, and which books came before
/// that one.
pub fn stamp(
    run: &mut RunPlan,
    inventory: &Inventory,
    store: Option<&str>,
    predecessors: &[Predecessor],
    entries: &BTreeMap<(String, String), Entry>,
) {
    let accepts: Vec<Value> = predecessors.iter().map(|one| Value::Str(one.to_string())).collect();
    let targets = run.hosts.iter_mut().flat_map(|host| &mut host.plan.stages).flat_map(|stage| &mut stage.targets);
    for target in targets {
        let Some(name) = &target.target.node else { continue };
        let Some(node) = inventory.nodes.iter().find(|node| node.name == *name) else { continue };
        let (Some(network), Some(address)) = (&node.network, node.address) else { continue };
        let owner = slot(node.group, node.index);
        let entry = entries.get(&(network.clone(), owner.clone()));
        let mut told = Map::from([("owner".to_owned(), Value::from(owner.as_str()))]);
        if let (Some(store), Some(entry)) = (store, entry) {
            told.insert("store".to_owned(), Value::from(store));
            told.insert("revision".to_owned(), Value::Int(i64::try_from(entry.revision).unwrap_or(i64::MAX)));
            if !accepts.is_empty() {
                told.insert("accepts".to_owned(), Value::List(accepts.clone()));
            }
        }
        let own = [("network", Value::from(network.as_str())), ("address", Value::Ip(address))];
        let steps = target.steps.iter_mut().chain(target.handlers.iter_mut().flat_map(|handler| &mut handler.steps));
        for step in steps {
            let is = |(name, value): &(&str, Value)| step.args.get(*name) == Some(&Arg::Ready(value.clone()));
            if step.kind == "attach" && own.iter().all(is) {
                for (name, value) in &told {
                    step.args.entry(name.clone()).or_insert_with(|| Arg::Ready(value.clone()));
                }
            }
            // A rollout looks at such a step before it does it.
            match step.args.get_mut("tasks").filter(|_| step.kind == "standing") {
                Some(Arg::Ready(Value::List(tasks))) => tasks.iter_mut().for_each(|task| fill(task, &own, &told)),
                Some(Arg::Late(late)) => fill_late(&mut late.source, &own, &told),
                _ => {}
            }
        }
    }
}

/// The same for those `attach` tasks of a list that is evaluated on the host.
fn fill_late(source: &mut LateSource, own: &[(&str, Value)], told: &Map) {
    let LateSource::Expr(list) = source else { return };
    for task in list.items_mut() {
        let is_attach = task.entry_mut("kind").is_some_and(|kind| kind.value() == Some(&Value::from("attach")));
        let Some(args) = task.entry_mut("args").filter(|_| is_attach) else { continue };
        if own.iter().all(|(name, value)| args.entry_mut(name).is_some_and(|arg| arg.value() == Some(value))) {
            for (name, value) in told {
                args.add_entry(name, value);
            }
        }
    }
}

/// The same for an `attach` that stands as data in another step.
fn fill(task: &mut Value, own: &[(&str, Value)], told: &Map) {
    let Value::Map(task) = task else { return };
    let is_attach = task.get("kind").and_then(Value::as_str) == Some("attach");
    if let Some(Value::Map(args)) = task.get_mut("args").filter(|_| is_attach)
        && own.iter().all(|(name, value)| args.get(*name) == Some(value))
    {
        for (name, value) in told {
            args.entry(name.clone()).or_insert_with(|| value.clone());
        }
    }
}
