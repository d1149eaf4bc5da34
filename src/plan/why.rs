//! Where the value of a variable comes from: every candidate, in order of precedence, and which one won.

use super::errors::Errors;
use super::inventory::Inventory;
use super::make::target_scope;
use super::scope::Known;
use crate::playbook::model::{Binding, Layer, Playbook};
use crate::source::{Sources, Span};
use crate::syntax::ast::{Expr, ExprKind};
use crate::value::Quoted;

/// One place that binds the name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// `role default`, `playbook`, `environment`, `host`, `node`, `--set`.
    pub layer: &'static str,
    /// `path:line:column`; empty for the command line.
    pub at: String,
    /// The expression as it is written.
    pub written: String,
    /// Whether it wins.
    pub won: bool,
}

/// The answer to "why has this name this value on that target?".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Every place that binds the name, weakest first.
    pub candidates: Vec<Candidate>,
    /// The value on the target; an expression when only the host can know it; `None` when it cannot be evaluated.
    pub value: Option<String>,
}

/// Tells why. `target` is the name of a host or a node.
///
/// # Errors
/// The target does not exist; the text says which names are near.
pub fn why(
    name: &str,
    target: &str,
    playbook: &Playbook,
    inventory: &Inventory,
    sources: &Sources,
) -> Result<Answer, String> {
    let node = inventory.nodes.iter().find(|node| node.name == target);
    let host = match node {
        Some(node) => inventory.hosts.get(node.host),
        None => inventory.hosts.iter().find(|host| host.name == target),
    };
    let Some(host) = host else {
        let names = inventory.hosts.iter().map(|host| host.name.as_str());
        let names = names.chain(inventory.nodes.iter().map(|node| node.name.as_str()));
        let near = crate::diagnostic::nearest(target, names);
        let hint = near.map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
        return Err(format!("there is no host and no node `{target}`{hint}"));
    };
    let mut candidates = Vec::new();
    let mut add = |layer, span: Span| {
        let written = sources.text(span).lines().next().unwrap_or_default().trim().to_owned();
        candidates.push(Candidate { layer, at: sources.locate(span), written, won: false });
    };
    for role in playbook.roles.values() {
        let default = role.params.iter().find(|param| param.name.text == name).and_then(|param| param.default.as_ref());
        default.into_iter().for_each(|default| add("role default", default.span));
    }
    for (layer, word) in [(Layer::Playbook, "playbook"), (Layer::Environment, "environment")] {
        let of_layer = playbook.vars.iter().filter(|var| var.layer == layer && var.name.text == name);
        of_layer.for_each(|var| add(word, var.value.span));
    }
    let own = |bindings: &mut dyn Iterator<Item = &Binding>| -> Vec<Span> {
        bindings.filter(|(known, _)| known.text == name).map(|(_, value)| value.span).collect()
    };
    own(&mut host.vars.iter().copied()).into_iter().for_each(|span| add("host", span));
    own(&mut node.map_or(&[][..], |node| node.vars).iter()).into_iter().for_each(|span| add("node", span));
    if let Some(value) = inventory.set.get(name) {
        let written = Quoted(value).to_string();
        candidates.push(Candidate { layer: "--set", at: String::new(), written, won: false });
    }
    // Role defaults count only inside their role, where nothing else binds the name.
    if let Some(last) = candidates.last_mut() {
        last.won = true;
    }
    let mut scope = target_scope(playbook, inventory, host, node);
    let expr = Expr { kind: ExprKind::Name(name.to_owned()), span: Span::NOWHERE };
    let value = scope.eval(&expr, &mut Errors::default()).map(|known| match known {
        Known::Ready(value) => Quoted(&value).to_string(),
        Known::Late(_) => "known on the host only: it uses facts".to_owned(),
    });
    Ok(Answer { candidates, value })
}
