//! What `--set` binds: literals and text, never a computation.

use std::collections::BTreeMap;

use super::model::{Binding, HostItem, Playbook};
use crate::expr::literal;
use crate::syntax::ast::{Expr, ExprKind};
use crate::syntax::parse_value;
use crate::value::{Map, Value};

/// The values of what was typed, by name: a literal where it reads as one, else text. What a playbook declares as text stays the text that
/// was typed: `60s` is not `1m`.
pub(super) fn values(playbook: &Playbook, typed: &BTreeMap<String, String>) -> Map {
    let value = |name: &str, text: &str| {
        let found = spelled(text);
        match found {
            // Whoever quotes says that it is text; lists, maps and null are nothing that text could be.
            Some(value @ (Value::Str(_) | Value::List(_) | Value::Map(_) | Value::Null)) => value,
            Some(value) if !is_text(playbook, name) => value,
            _ => Value::from(text),
        }
    };
    typed.iter().map(|(name, text)| (name.clone(), value(name, text))).collect()
}

/// The literal that a text is. A number or a mode that would be written in another way is none: `007` is not `0007`.
fn spelled(text: &str) -> Option<Value> {
    let expr = parse_value(text).ok()?;
    let value = literal(&expr)?;
    let other = match &expr.kind {
        ExprKind::Literal { value, text: written } => {
            written != text || matches!(value, Value::Int(_) | Value::Mode(_)) && value.to_string() != text
        }
        _ => false,
    };
    (!other).then_some(value)
}

/// Whether a variable of that name is declared as text anywhere: by a text that it is bound to, or by a role's parameter.
fn is_text(playbook: &Playbook, name: &str) -> bool {
    let text = |value: &Expr| matches!(value.kind, ExprKind::Text { .. });
    let binds = |vars: &[Binding]| vars.iter().any(|(known, value)| known.text == name && text(value));
    playbook.vars.iter().any(|var| var.name.text == name && text(&var.value))
        || playbook.groups.iter().any(|group| binds(&group.vars) || of_hosts(&group.items, &binds))
        || playbook.nodes.iter().any(|group| binds(&group.vars))
        || playbook.roles.values().flat_map(|role| &role.params).any(|param| {
            param.name.text == name && (param.kind.text == "string" || param.default.as_ref().is_some_and(text))
        })
}

fn of_hosts(items: &[HostItem], binds: &impl Fn(&[Binding]) -> bool) -> bool {
    items.iter().any(|item| match item {
        HostItem::Host { vars, .. } => binds(vars),
        HostItem::For { body, .. } => of_hosts(body, binds),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_computed_and_nothing_is_spelled_anew() {
        for text in [
            "2024-11-29",
            "1 + 1",
            "007",
            "00",
            "1/2",
            "range(3)",
            "debian(\"a\")",
            "a.b",
            "x",
            "",
            "\"{{ 1 + 1 }}\"",
            "5 # five",
            " 5",
            "(5)",
            "[1 + 1]",
            "99999999999999999999",
            "not true",
            "1 if true else 2",
            "7 | string",
        ] {
            assert_eq!(spelled(text), None, "{text}");
        }
        for (text, value) in [
            ("5", Value::Int(5)),
            ("-3", Value::Int(-3)),
            ("0755", Value::Mode(0o755)),
            ("true", Value::Bool(true)),
            ("null", Value::Null),
            ("\"5\"", Value::from("5")),
            ("60s", Value::Duration(std::time::Duration::from_secs(60))),
            ("[1, \"a\"]", Value::List(vec![Value::Int(1), Value::from("a")])),
            ("{ a = 1 }", Value::Map(Map::from([("a".to_owned(), Value::Int(1))]))),
        ] {
            assert_eq!(spelled(text), Some(value), "{text}");
        }
    }
}
