//! The blocks that hold settings: `vars`, `hosts`, `network`, `nodes`.

use super::model::{Binding, HostItem};
use super::resolve::{plain_text, twice};
use crate::diagnostic::Diagnostic;
use crate::syntax::ast::{Block, Expr, ExprKind, Item, Name, Param, Statement, StatementKind};

/// The settings of a `host` block.
pub const HOST_SETTINGS: [&str; 6] = ["address", "user", "port", "connection", "become", "config"];

/// The types that a role's parameter may have.
pub const PARAM_TYPES: [&str; 13] =
    ["any", "bool", "cidr", "duration", "int", "ip", "list", "map", "mode", "mount", "percent", "size", "string"];

pub(super) fn statements(body: &[Item]) -> impl Iterator<Item = &Statement> {
    body.iter().filter_map(|item| match item {
        Item::Statement(statement) => Some(&**statement),
        _ => None,
    })
}

/// `vars { name = value … }`
pub(super) fn bindings(what: &str, block: &Block, errors: &mut Vec<Diagnostic>) -> Vec<Binding> {
    if let Some(label) = &block.label {
        errors.push(Diagnostic::new(label.span, format!("`{what}` has no title")));
    }
    no_clauses(block, errors);
    let mut found: Vec<Binding> = Vec::new();
    for statement in statements(block.body.as_deref().unwrap_or(&[])) {
        match &statement.kind {
            StatementKind::Assign { name, value } => push_once(&mut found, name, value.clone(), "variable", errors),
            _ => {
                let error = Diagnostic::new(statement.span, format!("`{what}` holds only `name = value`"));
                let lone = matches!(&statement.kind, StatementKind::Block(inner) if inner.body.is_none());
                errors.push(if lone && statement.same_line {
                    error.help("a text stands in quotes: `name = \"all of it\"`")
                } else {
                    error.label("not an assignment")
                });
            }
        }
    }
    found
}

/// Settings with fixed names, and `vars { }` where the block may have them.
pub(super) fn settings(
    what: &str,
    known: &[&str],
    with_vars: bool,
    block: &Block,
    errors: &mut Vec<Diagnostic>,
) -> (Vec<Binding>, Vec<Binding>) {
    let (mut found, mut vars): (Vec<Binding>, Vec<Binding>) = (Vec::new(), Vec::new());
    for statement in statements(block.body.as_deref().unwrap_or(&[])) {
        match &statement.kind {
            StatementKind::Assign { name, value } if known.contains(&name.text.as_str()) => {
                push_once(&mut found, name, value.clone(), "setting", errors);
            }
            StatementKind::Assign { name, .. } => {
                let error = Diagnostic::new(name.span, format!("`{what}` has no setting `{}`", name.text));
                let hint = format!("it has {}", known.join(", "));
                let error = error.suggest(&name.text, known.iter().copied());
                errors.push(if error.help.is_empty() { error.help(hint) } else { error });
            }
            StatementKind::Block(inner) if with_vars && inner.word.text == "vars" => {
                vars.extend(bindings("vars", inner, errors));
            }
            _ => {
                let error = Diagnostic::new(statement.span, format!("this cannot stand in `{what}`"));
                errors.push(error.help(format!("it holds {}", known.join(", "))));
            }
        }
    }
    (found, vars)
}

/// The body of `hosts GROUP { … }`.
pub(super) fn hosts(body: &[Item], errors: &mut Vec<Diagnostic>) -> (Vec<HostItem>, Vec<Binding>) {
    let (mut items, mut vars) = (Vec::new(), Vec::new());
    for statement in statements(body) {
        match &statement.kind {
            StatementKind::Block(block) if block.word.text == "host" => {
                no_clauses(block, errors);
                let Some(name) = block.label.clone() else {
                    let error = Diagnostic::new(block.word.span, "a host needs a name");
                    errors.push(error.help("`host \"web1\" { address = 10.0.0.1 }`"));
                    continue;
                };
                let (settings, vars) = settings("host", &HOST_SETTINGS, true, block, errors);
                items.push(HostItem::Host { name, settings, vars });
            }
            StatementKind::Block(block) if block.word.text == "vars" => vars.extend(bindings("vars", block, errors)),
            StatementKind::For { name, list, body } => {
                let (inner, inner_vars) = hosts(body, errors);
                if let Some((var, _)) = inner_vars.first() {
                    let error = Diagnostic::new(var.span, "`vars` of a group cannot stand in a loop");
                    errors.push(error.help("put them into the `host` block, or outside of the loop"));
                }
                items.push(HostItem::For { name: name.clone(), list: list.clone(), body: inner });
            }
            _ => {
                let error = Diagnostic::new(statement.span, "this cannot stand in `hosts`");
                errors.push(error.help("it holds `host \"name\" { … }`, `for … { … }` and `vars { … }`"));
            }
        }
    }
    (items, vars)
}

/// The label of `hosts web` and `nodes web`: a name, no text.
pub(super) fn name_label(what: &str, block: &Block, errors: &mut Vec<Diagnostic>) -> Option<Name> {
    let Some(label) = &block.label else {
        let error = Diagnostic::new(block.word.span, format!("`{what}` needs the name of a group"));
        errors.push(error.help(format!("`{what} web {{ … }}`")));
        return None;
    };
    if let ExprKind::Name(text) = &label.kind {
        return Some(Name { text: text.clone(), span: label.span });
    }
    let error = Diagnostic::new(label.span, format!("a group's name is a word: `{what} web {{ … }}`"));
    let word = plain_text(label).filter(|text| text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'));
    errors.push(match word {
        Some(word) => error.help(format!("write `{what} {word}` without quotes")),
        None => error,
    });
    None
}

/// The label of `network "web-lan"`: a text without computed parts.
pub(super) fn text_label(what: &str, block: &Block, errors: &mut Vec<Diagnostic>) -> Option<String> {
    let text = block.label.as_ref().and_then(plain_text);
    if text.is_none() {
        let span = block.label.as_ref().map_or(block.word.span, |label| label.span);
        let error = Diagnostic::new(span, format!("`{what}` needs a name in quotes, without `{{{{ }}}}`"));
        errors.push(error.help(format!("`{what} \"web-lan\" {{ … }}`")));
    }
    text
}

/// Refuses clauses where none can stand.
pub(super) fn no_clauses(block: &Block, errors: &mut Vec<Diagnostic>) {
    for clause in &block.clauses {
        let message = format!("`{}` has no clause `{}`", block.word.text, clause.word.text);
        errors.push(Diagnostic::new(clause.word.span, message));
    }
}

/// Keeps the first binding of a name, and says so about a second one.
pub(super) fn push_once(found: &mut Vec<Binding>, name: &Name, value: Expr, what: &str, errors: &mut Vec<Diagnostic>) {
    match found.iter().find(|(known, _)| known.text == name.text) {
        Some((first, _)) => errors.push(twice(what, name, first.span)),
        None => found.push((name.clone(), value)),
    }
}

/// A role's parameters: each once, of a known type.
pub(super) fn check_params(params: &[Param], errors: &mut Vec<Diagnostic>) {
    for (index, param) in params.iter().enumerate() {
        if let Some(first) = params.iter().take(index).find(|known| known.name.text == param.name.text) {
            errors.push(twice("parameter", &param.name, first.name.span));
        }
        if !PARAM_TYPES.contains(&param.kind.text.as_str()) {
            let error = Diagnostic::new(param.kind.span, format!("unknown type `{}`", param.kind.text));
            let error = error.suggest(&param.kind.text, PARAM_TYPES);
            let all = format!("types are {}", PARAM_TYPES.join(", "));
            errors.push(if error.help.is_empty() { error.help(all) } else { error });
        }
    }
}
