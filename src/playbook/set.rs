//! What `--set` binds: literals and text, never a computation.

use std::collections::{BTreeMap, BTreeSet};

use super::model::{HostItem, Playbook};
use crate::diagnostic::Diagnostic;
use crate::expr::literal;
use crate::source::Span;
use crate::syntax::ast::{Expr, ExprKind, Name, Param};
use crate::syntax::parse_value;
use crate::value::{Map, Value};

/// The values of what was typed, by name: a literal where it reads as one, else text. What a playbook declares as text is the text that
/// was typed, whatever it looks like: `60s` is not `1m`. A truth value, a list or a map takes no value of another type.
pub(super) fn values(playbook: &Playbook, typed: &BTreeMap<String, String>, errors: &mut Vec<Diagnostic>) -> Map {
    let mut values = Map::new();
    for (name, text) in typed {
        let declared = declared(playbook, name);
        let value = match (mode(text), spelled(text)) {
            (Some(mode), _) if declared.contains(&Declared::Mode) => mode,
            (_, Some(value)) if !declared.contains(&Declared::Text) => value,
            _ => Value::from(text.as_str()),
        };
        if let Some(only) = declared.first().filter(|_| declared.len() == 1)
            && let Some(help) = only.refuses(&value)
        {
            let message = format!("--set: `{name}` is declared as {}, and `{text}` is none", only.name());
            errors.push(Diagnostic::new(Span::NOWHERE, message).help(help));
        }
        values.insert(name.clone(), value);
    }
    values
}

/// The mode that a text is, with however many digits.
fn mode(text: &str) -> Option<Value> {
    literal(&parse_value(text).ok()?).filter(|value| matches!(value, Value::Mode(_)))
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

/// What a variable is bound to somewhere in the playbook, as far as that decides what may be typed for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Declared {
    Text,
    Bool,
    List,
    Map,
    Mode,
    /// A number, an expression: anything may take its place.
    Other,
}

impl Declared {
    fn of(value: &Expr) -> Self {
        match &value.kind {
            ExprKind::Text { .. } => Self::Text,
            ExprKind::List { .. } => Self::List,
            ExprKind::Map { .. } => Self::Map,
            ExprKind::Literal { value: Value::Bool(_), .. } => Self::Bool,
            ExprKind::Literal { value: Value::Mode(_), .. } => Self::Mode,
            _ => Self::Other,
        }
    }

    /// What a role's parameter is by its type, or by its default where the type says nothing.
    fn of_param(param: &Param) -> Self {
        match param.kind.text.as_str() {
            "string" => Self::Text,
            "bool" => Self::Bool,
            "list" => Self::List,
            "map" => Self::Map,
            "mode" => Self::Mode,
            _ => param.default.as_ref().map_or(Self::Other, Self::of),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Bool => "true or false",
            Self::List => "a list",
            Self::Map => "a map",
            Self::Mode => "a mode",
            Self::Other => "a value",
        }
    }

    /// How a value that does not fit is to be written. `null` fits everywhere.
    fn refuses(self, value: &Value) -> Option<&'static str> {
        match (self, value) {
            (_, Value::Null)
            | (Self::Text | Self::Other, _)
            | (Self::Bool, Value::Bool(_))
            | (Self::List, Value::List(_))
            | (Self::Map, Value::Map(_))
            | (Self::Mode, Value::Mode(_)) => None,
            (Self::Bool, _) => Some("write `true` or `false`"),
            (Self::List, _) => Some("write it as in a playbook: `[\"a\", \"b\"]`, in quotes of the shell"),
            (Self::Map, _) => Some("write it as in a playbook: `{ a = 1 }`, in quotes of the shell"),
            (Self::Mode, _) => Some("a mode is octal, with a leading zero: `0644`"),
        }
    }
}

/// What the variables and the roles' parameters of that name are declared as.
fn declared(playbook: &Playbook, name: &str) -> BTreeSet<Declared> {
    let mut found = BTreeSet::new();
    let mut add = |bound: &Name, value: &Expr| {
        if bound.text == name {
            found.insert(Declared::of(value));
        }
    };
    playbook.vars.iter().for_each(|var| add(&var.name, &var.value));
    for group in &playbook.groups {
        group.vars.iter().for_each(|(bound, value)| add(bound, value));
        of_hosts(&group.items, &mut add);
    }
    playbook.nodes.iter().flat_map(|group| &group.vars).for_each(|(bound, value)| add(bound, value));
    let params = playbook.roles.values().flat_map(|role| &role.params).filter(|param| param.name.text == name);
    found.extend(params.map(Declared::of_param));
    found
}

fn of_hosts(items: &[HostItem], add: &mut impl FnMut(&Name, &Expr)) {
    for item in items {
        match item {
            HostItem::Host { vars, .. } => vars.iter().for_each(|(bound, value)| add(bound, value)),
            HostItem::For { body, .. } => of_hosts(body, add),
        }
    }
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
