//! Addresses of nodes: from a list, or from the network's pool as the address book gives them; checked.

use std::net::IpAddr;

use super::errors::Errors;
use super::expand::told;
use super::scope::Scope;
use super::store::{Addresses, slot};
use crate::book::rules::holder;
use crate::book::{Asked, Lan, Record, Refused, Spot};
use crate::diagnostic::Diagnostic;
use crate::playbook::model::{NodeGroup, Playbook};
use crate::source::Span;
use crate::syntax::ast::{Expr, ExprKind};
use crate::value::Value;

/// The address of each node of a group, in order; `None` entries where nodes have no address. `None` after an error.
pub(super) fn addresses<'p>(
    playbook: &'p Playbook,
    group: &'p NodeGroup,
    network: Option<&str>,
    scope: &mut Scope<'p>,
    most: usize,
    book: &mut Addresses,
    errors: &mut Errors,
) -> Option<Vec<Option<IpAddr>>> {
    let setting = |name: &str| group.settings.iter().find(|(known, _)| known.text == name).map(|(_, value)| value);
    let lan = match network {
        Some(name) => Some(Declared::read(playbook, name, scope, errors)?),
        None => None,
    };
    match (setting("count"), setting("addresses")) {
        (Some(count), Some(list)) => {
            let error = Diagnostic::new(list.span, "`count` and `addresses` cannot both be given");
            errors.push(error.also(count.span, "`count` stands here").help("the list has a length already"));
            None
        }
        (None, None) => {
            let error = Diagnostic::new(group.name.span, "`nodes` needs `count` or `addresses`");
            errors.push(error.help("`count = 3` takes addresses from the network's pool"));
            None
        }
        (None, Some(list)) => {
            let Value::List(items) = scope.now(list, "`addresses`", errors)? else {
                errors.push(Diagnostic::new(list.span, "`addresses` takes a list: `[10.0.0.10, 10.0.0.11]`"));
                return None;
            };
            let mut found = Vec::new();
            let mut sound = true;
            for (at, item) in items.iter().enumerate() {
                let span = item_span(list, at);
                let Some(address) = as_address(item) else {
                    let error = Diagnostic::new(span, format!("expected an address, found {}", told(item)));
                    errors.push(error.help("addresses stand without quotes: `[10.0.0.10, 10.0.0.11]`"));
                    sound = false;
                    continue;
                };
                sound &= lan.as_ref().is_none_or(|lan| lan.check(address, span, errors));
                found.push(Some(address));
            }
            if let (true, Some(lan)) = (sound, &lan) {
                sound &= lan.listed(group, list, &found, book, errors);
            }
            sound.then_some(found)
        }
        (Some(count), None) => {
            let number = match scope.now(count, "`count`", errors)? {
                Value::Int(number) if usize::try_from(number).is_ok_and(|number| number <= most) => number,
                other => {
                    let message = format!("`count`: expected a number from 0 to {most}, found {}", told(&other));
                    errors.push(Diagnostic::new(count.span, message).help("write `count = 3`"));
                    return None;
                }
            };
            let number = usize::try_from(number).unwrap_or(0);
            match lan {
                None => Some(vec![None; number]),
                Some(lan) => lan.take(group, number, count.span, book, errors),
            }
        }
    }
}

/// What a `network` block says of addresses.
pub(super) fn lan<'p>(playbook: &'p Playbook, name: &str, scope: &mut Scope<'p>, errors: &mut Errors) -> Option<Lan> {
    Declared::read(playbook, name, scope, errors).map(|declared| declared.lan)
}

/// A `network` block as far as it speaks of addresses.
struct Declared {
    lan: Lan,
    span: Span,
    /// Where the pool stands.
    pool: Span,
}

impl Declared {
    fn read<'p>(playbook: &'p Playbook, name: &str, scope: &mut Scope<'p>, errors: &mut Errors) -> Option<Self> {
        let network = playbook.networks.get(name)?;
        let lan = Lan { name: name.to_owned(), ..Lan::default() };
        let mut read = Self { lan, span: network.span, pool: network.span };
        let mut sound = true;
        for (setting, expr) in &network.settings {
            if !matches!(&setting.text[..], "subnet" | "gateway" | "pool" | "exclude") {
                continue;
            }
            let value = scope.now(expr, "a network's setting", errors)?;
            let lan = &mut read.lan;
            match (&setting.text[..], value) {
                ("subnet", Value::Net(net)) => lan.subnet = Some(net),
                ("gateway", value) if as_address(&value).is_some() => lan.gateway = as_address(&value),
                ("gateway", Value::Null) => {}
                ("pool", Value::Range(first, last)) => {
                    lan.pool = Some((first, last));
                    read.pool = expr.span;
                }
                ("exclude", value) => {
                    let items = if let Value::List(items) = value { items } else { vec![value] };
                    for item in items {
                        if let Some(range) = as_range(&item) {
                            lan.exclude.push(range);
                        } else {
                            wrong_type("exclude", &item, expr, errors);
                            sound = false;
                        }
                    }
                }
                (setting, other) => {
                    wrong_type(setting, &other, expr, errors);
                    sound = false;
                }
            }
        }
        if let (Some((first, last)), Some(subnet)) = (&read.lan.pool, &read.lan.subnet) {
            for edge in [first, last] {
                if !subnet.contains(edge) {
                    let message = format!("the pool of `{name}` leaves its subnet: {edge} is not in {subnet}");
                    errors.push(Diagnostic::new(read.pool, message).help("write a pool inside of the subnet"));
                    return None;
                }
            }
        }
        sound.then_some(read)
    }

    /// What the book gives the first `number` slots of a group.
    fn take(
        &self,
        group: &NodeGroup,
        number: usize,
        span: Span,
        book: &mut Addresses,
        errors: &mut Errors,
    ) -> Option<Vec<Option<IpAddr>>> {
        let name = &self.lan.name;
        if self.lan.pool.is_none() {
            let error = Diagnostic::new(span, format!("the network `{name}` has no pool to take addresses from"));
            let error = error.also(self.span, "declared here");
            errors.push(error.help("add `pool = FIRST - LAST` to it, or list the `addresses` of the nodes"));
            return None;
        }
        let candidates = self.lan.candidates();
        if candidates.len() < number as u128 {
            let message =
                format!("{number} nodes do not fit the pool of `{name}`: it has {} addresses", candidates.len());
            let error = Diagnostic::new(span, message).also(self.pool, "the pool");
            errors.push(error.help("widen the pool; the gateway and what `exclude` names are not given"));
            return None;
        }
        let asked: Vec<Asked> = (1..=number as u64).map(|index| Asked::slot(&group.name.text, index)).collect();
        match book.view.take(&book.place, name, &asked, &candidates) {
            Ok(spots) => Some(spots.iter().map(Spot::address).collect()),
            Err(refused) => {
                errors.push(self.refusal(&refused, span));
                None
            }
        }
    }

    /// Whether the book lets a group have the addresses that it lists.
    fn listed(
        &self,
        group: &NodeGroup,
        list: &Expr,
        found: &[Option<IpAddr>],
        book: &mut Addresses,
        errors: &mut Errors,
    ) -> bool {
        let slots = (1..).zip(found);
        let wanted: Vec<(String, Spot)> = slots
            .filter_map(|(index, address)| Some((slot(&group.name.text, index), Spot::Address((*address)?))))
            .collect();
        match book.view.take_these(&book.place, &self.lan.name, &wanted) {
            Ok(refusals) => {
                let mut sound = true;
                for (at, refused) in refusals.iter().enumerate() {
                    let (Some(refused), Some((owner, spot))) = (refused, wanted.get(at)) else { continue };
                    let span = item_span(list, at);
                    errors.push(match refused {
                        Refused::Held(record) => {
                            let message = format!(
                                "`{owner}` cannot have {spot}: the address book says that it is held by {}",
                                holder(record)
                            );
                            Diagnostic::new(span, message).help(release(record))
                        }
                        other => self.refusal(other, span),
                    });
                    sound = false;
                }
                sound
            }
            Err(failure) => {
                errors.push(self.refusal(&Refused::Store(failure), list.span));
                false
            }
        }
    }

    /// What the book said, at the place that asked.
    fn refusal(&self, refused: &Refused, span: Span) -> Diagnostic {
        let name = &self.lan.name;
        match refused {
            Refused::Full { .. } => {
                let error = Diagnostic::new(span, format!("the pool of `{name}` is full: {refused}"));
                let error = error.also(self.pool, "the pool");
                error.help("widen the pool, or give back what is not used: `fanli ip list`, `fanli ip release`")
            }
            Refused::Unknown(_) => {
                let error = Diagnostic::new(span, refused.to_string()).also(self.span, "the network");
                error.help(UNKNOWN)
            }
            Refused::Elsewhere(record) => {
                let message = format!(
                    "{} holds {} in the address book, which is not what `{name}` gives it now",
                    holder(record),
                    record.spot
                );
                Diagnostic::new(span, message).also(self.span, "the network").help(release(record))
            }
            Refused::Store(failure) => {
                let error = Diagnostic::new(span, failure.to_string());
                failure.hint.iter().fold(error, |error, hint| error.help(hint.as_str()))
            }
            Refused::Held(_) | Refused::Lost(_) => Diagnostic::new(span, refused.to_string()).help("run again"),
        }
    }

    /// Whether a node may have the address; says why not.
    fn check(&self, address: IpAddr, span: Span, errors: &mut Errors) -> bool {
        let objection = self.lan.objection(address);
        if let Some(why) = &objection {
            let error = Diagnostic::new(span, format!("{address} cannot be given to a node: it {why}"));
            errors.push(error.also(self.span, "the network is declared here"));
        }
        objection.is_none()
    }
}

/// The way out when hosts are unknown.
const UNKNOWN: &str = "the address book was lost while they could not be reached: bring them back and run `fanli ip adopt`, or give \
                       them up for good with `fanli ip adopt --without HOST`";

/// How a record is given back.
fn release(record: &Record) -> String {
    format!("when nothing uses it any more: `fanli ip release {}`; `fanli ip show {0}` tells about it", record.spot)
}

/// The place of one item, where the list is written out.
pub(super) fn item_span(list: &Expr, at: usize) -> Span {
    match &list.kind {
        ExprKind::List { items, .. } => items.get(at).map_or(list.span, |item| item.value.span),
        _ => list.span,
    }
}

fn wrong_type(setting: &str, value: &Value, expr: &Expr, errors: &mut Errors) {
    let form = match setting {
        "subnet" => "a network such as `10.0.0.0/24`",
        "pool" => "a range such as `10.0.0.10 - 10.0.0.200`",
        "gateway" => "an address",
        _ => "addresses, ranges or networks",
    };
    let message = format!("`{setting}`: expected {form}, found {}", told(value));
    errors.push(Diagnostic::new(expr.span, message));
}

fn as_address(value: &Value) -> Option<IpAddr> {
    match value {
        Value::Ip(address) => Some(*address),
        Value::Str(text) => text.parse().ok(),
        _ => None,
    }
}

/// An address, a range or a network as the first and the last address.
fn as_range(value: &Value) -> Option<(IpAddr, IpAddr)> {
    match value {
        Value::Range(first, last) => Some((*first, *last)),
        Value::Net(net) => Some((net.network(), net.broadcast())),
        other => as_address(other).map(|address| (address, address)),
    }
}
