//! What a request chooses of a playbook, by `--limit`, `--tags` and `--skip-tags`, and what it binds by `--set`: what fits nothing is an
//! error, as it is a slip of the finger.

use std::collections::BTreeSet;

use super::errors::Errors;
use super::files::Files;
use super::inventory::{Inventory, Node};
use super::make::PlanRequest;
use crate::diagnostic::Diagnostic;
use crate::playbook::model::{Common, Playbook, StepDef, Task};
use crate::source::Span;
use crate::syntax::ast::{Element, Expr, ExprKind, TextPart};

/// The word by which `--tags` and `--skip-tags` choose rollouts.
pub(super) const ROLLOUT_TAG: &str = "rollout";

/// The most tags that a message lists.
const MOST_LISTED: usize = 20;

/// Every tag is one that some task has. `found` are the tags that planning came by; those that are written as plain text count also where
/// a condition leaves their task out.
pub(super) fn check_tags(playbook: &Playbook, request: &PlanRequest, found: BTreeSet<String>, errors: &mut Errors) {
    let mut known = found;
    let bodies = playbook.plays.iter().map(|play| &play.body).chain(playbook.roles.values().map(|role| &role.body));
    bodies.for_each(|body| written(body, &mut known));
    if playbook.plays.iter().any(|play| play.rollout.is_some()) {
        known.insert(ROLLOUT_TAG.to_owned());
    }
    for tag in request.tags.iter().filter(|tag| request.skip_tags.contains(tag)) {
        let error = Diagnostic::new(Span::NOWHERE, format!("`{tag}` is in --tags and in --skip-tags"));
        errors.push(error.help("nothing is left of it: what --skip-tags names is left out, whatever else chooses it"));
    }
    for (option, tags) in [("--tags", &request.tags), ("--skip-tags", &request.skip_tags)] {
        for tag in tags.iter().filter(|tag| !known.contains(*tag)) {
            let error = Diagnostic::new(Span::NOWHERE, format!("{option}: no task has the tag `{tag}`"));
            let error = error.suggest(tag, known.iter().map(String::as_str));
            errors.push(if error.help.is_empty() { error.help(listed(&known)) } else { error });
        }
    }
}

fn listed(known: &BTreeSet<String>) -> String {
    let names: Vec<&str> = known.iter().take(MOST_LISTED).map(String::as_str).collect();
    match known.len() - names.len() {
        _ if names.is_empty() => "no task of the playbook has a tag: `tags = \"…\"` in the task".to_owned(),
        0 => format!("the playbook has the tags {}", names.join(", ")),
        more => format!("the playbook has the tags {} and {more} more", names.join(", ")),
    }
}

fn written(body: &[Task], known: &mut BTreeSet<String>) {
    for task in body {
        match task {
            Task::For { body, .. } | Task::When { body, .. } | Task::Handler { body, .. } => written(body, known),
            Task::Step(step) => of_step(step, known),
            Task::Role(call) => of_common(&call.common, known),
            Task::Let(_) => {}
        }
    }
}

fn of_step(step: &StepDef, known: &mut BTreeSet<String>) {
    of_common(&step.common, known);
    step.followers.iter().for_each(|follower| of_step(follower, known));
}

fn of_common(common: &Common, known: &mut BTreeSet<String>) {
    let plain = |expr: &Expr| match &expr.kind {
        ExprKind::Text { parts, .. } => match parts.as_slice() {
            [TextPart::Plain(text)] => Some(text.clone()),
            _ => None,
        },
        _ => None,
    };
    match common.tags.as_ref().map(|expr| (&expr.kind, expr)) {
        Some((ExprKind::List { items, .. }, _)) => {
            known.extend(items.iter().filter_map(|item: &Element<Expr>| plain(&item.value)));
        }
        Some((_, expr)) => known.extend(plain(expr)),
        None => {}
    }
}

/// Every name that `--set` binds is one that the playbook declares or reads, in a template as well.
pub(super) fn check_set(playbook: &Playbook, files: &Files, errors: &mut Errors) {
    for name in playbook.set.keys().filter(|name| !playbook.names.contains(*name) && !files.read(name)) {
        let error = Diagnostic::new(Span::NOWHERE, format!("--set: nothing in this playbook reads `{name}`"));
        let error = error.suggest(name, playbook.names.iter().map(String::as_str));
        let help = "a name that only a template reads is declared, too: `vars { NAME = null }`";
        errors.push(if error.help.is_empty() { error.help(help) } else { error });
    }
}

/// `--limit`, read.
pub(super) struct Limit {
    include: Vec<String>,
    exclude: Vec<String>,
}

impl Limit {
    pub(super) fn read(text: Option<&str>, inventory: &Inventory, errors: &mut Errors) -> Self {
        let mut limit = Self { include: Vec::new(), exclude: Vec::new() };
        let mut sound = true;
        let parts = || text.unwrap_or_default().split(',').map(str::trim).filter(|part| !part.is_empty());
        if text.is_some() && parts().next().is_none() {
            let error = Diagnostic::new(Span::NOWHERE, "--limit: it names no host and no node");
            errors.push(error.help("an empty variable in a script? leave the option out to take all"));
            sound = false;
        }
        for part in parts() {
            let (list, pattern) = match part.strip_prefix('!') {
                Some(pattern) => (&mut limit.exclude, pattern),
                None => (&mut limit.include, part),
            };
            let names = || {
                inventory
                    .hosts
                    .iter()
                    .map(|host| host.name.as_str())
                    .chain(inventory.nodes.iter().map(|node| node.name.as_str()))
            };
            if !names().any(|name| matches(pattern, name)) {
                let error =
                    Diagnostic::new(Span::NOWHERE, format!("--limit: no host and no node is called `{pattern}`"));
                let error = error.suggest(pattern, names());
                let help = "`fanli hosts` lists hosts and nodes";
                errors.push(if error.help.is_empty() { error.help(help) } else { error });
                sound = false;
            }
            list.push(pattern.to_owned());
        }
        let node_allowed =
            |node: &Node| limit.allows(&node.name, inventory.hosts.get(node.host).map(|host| host.name.as_str()));
        let members = inventory.hosts.len() + inventory.nodes.len() > 0;
        let some = || {
            inventory.hosts.iter().any(|host| limit.allows(&host.name, None))
                || inventory.nodes.iter().any(node_allowed)
        };
        if sound && members && !some() {
            let message = format!("--limit: `{}` leaves no host and no node", text.unwrap_or_default());
            errors.push(Diagnostic::new(Span::NOWHERE, message).help("`fanli hosts` lists hosts and nodes"));
            sound = false;
        }
        // With a wrong limit nothing will run; the tasks of all hosts are looked at for errors.
        if sound { limit } else { Self { include: Vec::new(), exclude: Vec::new() } }
    }

    /// Whether a target takes part: by its own name, or a node by its host's.
    pub(super) fn allows(&self, name: &str, carrier: Option<&str>) -> bool {
        let has = |list: &[String]| {
            list.iter()
                .any(|pattern| matches(pattern, name) || carrier.is_some_and(|carrier| matches(pattern, carrier)))
        };
        (self.include.is_empty() || has(&self.include)) && !has(&self.exclude)
    }
}

/// Shell-like matching with `*` and `?`, in linear memory and without recursion.
fn matches(pattern: &str, name: &str) -> bool {
    let mut reachable: BTreeSet<usize> = BTreeSet::from([0]);
    let pattern: Vec<char> = pattern.chars().collect();
    let closure = |set: BTreeSet<usize>| -> BTreeSet<usize> {
        let mut all = BTreeSet::new();
        for start in set {
            let stars = pattern.iter().skip(start).take_while(|c| **c == '*').count();
            all.extend(start..=start + stars);
        }
        all
    };
    for c in name.chars() {
        let here = closure(std::mem::take(&mut reachable));
        for at in here {
            match pattern.get(at) {
                Some('*') => {
                    reachable.insert(at);
                }
                Some('?') => {
                    reachable.insert(at + 1);
                }
                Some(wanted) if *wanted == c => {
                    reachable.insert(at + 1);
                }
                _ => {}
            }
        }
    }
    closure(reachable).contains(&pattern.len())
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn patterns() {
        for (pattern, name, fits) in [
            ("web*", "web08010", true),
            ("web*", "we", false),
            ("*", "", true),
            ("w?b*1*", "web08010", true),
            ("*10", "web08010", true),
            ("*11", "web08010", false),
            ("web", "web1", false),
            ("a**b", "ab", true),
        ] {
            assert_eq!(matches(pattern, name), fits, "{pattern} {name}");
        }
    }

    #[test]
    fn a_pattern_of_stars_ends_soon() {
        assert!(!matches(&"*a".repeat(200), &"a".repeat(199)));
    }
}
