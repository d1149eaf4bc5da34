//! Which names an expression uses, and putting known ones in place.

use super::evaluate;
use crate::source::Span;
use crate::syntax::ast::{Element, Expr, ExprKind, Name, TextPart};
use crate::value::Map;

/// A name that an expression takes from its scope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FreeName {
    /// The root and the fields after it as far as they are plain: `node.address` gives `["node", "address"]`.
    pub path: Vec<String>,
    /// The place of the whole path.
    pub span: Span,
    /// Whether the expression allows it to be missing (`x is defined`, `x | default(…)`).
    pub may_be_missing: bool,
}

/// Every name that an expression uses, in order of appearance.
pub fn free_names(expr: &Expr) -> Vec<FreeName> {
    let mut found = Vec::new();
    collect(expr, false, &mut found);
    found
}

fn collect(expr: &Expr, may_be_missing: bool, found: &mut Vec<FreeName>) {
    if let Some(path) = path(expr) {
        found.push(FreeName { path, span: expr.span, may_be_missing });
        return;
    }
    match &expr.kind {
        ExprKind::Filter { input, name, .. } => {
            collect(input, matches!(name.text.as_str(), "default" | "d"), found);
        }
        ExprKind::Test { input, name, .. } => {
            collect(input, matches!(name.text.as_str(), "defined" | "undefined"), found);
        }
        _ => {}
    }
    let skip = usize::from(matches!(expr.kind, ExprKind::Filter { .. } | ExprKind::Test { .. }));
    for child in children(expr).into_iter().skip(skip) {
        collect(child, false, found);
    }
}

/// `a.b.c` as its parts, when the expression is nothing but that.
fn path(expr: &Expr) -> Option<Vec<String>> {
    match &expr.kind {
        ExprKind::Name(name) => Some(vec![name.clone()]),
        ExprKind::Attr(base, name) => {
            let mut parts = path(base)?;
            parts.push(name.text.clone());
            Some(parts)
        }
        _ => None,
    }
}

/// The most parts that an expression may have, and how deep they may stand in each other, once all names are resolved.
const MOST_PARTS: usize = 100_000;
const DEEPEST: usize = 512;

/// Whether an expression is larger than what is evaluated: names that stand for expressions with names multiply.
pub fn is_too_large(expr: &Expr) -> bool {
    let (mut parts, mut open) = (0, vec![(expr, 0)]);
    while let Some((expr, depth)) = open.pop() {
        parts += 1;
        if parts > MOST_PARTS || depth > DEEPEST {
            return true;
        }
        open.extend(children(expr).into_iter().map(|child| (child, depth + 1)));
    }
    false
}

/// The parts of an expression, the filter's input first.
pub fn children(expr: &Expr) -> Vec<&Expr> {
    match &expr.kind {
        ExprKind::Literal { .. } | ExprKind::Name(_) => Vec::new(),
        ExprKind::Text { parts, .. } => parts
            .iter()
            .filter_map(|part| match part {
                TextPart::Computed(inner) => Some(inner),
                TextPart::Plain(_) => None,
            })
            .collect(),
        ExprKind::Attr(base, _) => vec![base],
        ExprKind::Index(base, index) => vec![base, index],
        ExprKind::List { items, .. } => items.iter().map(|item| &item.value).collect(),
        ExprKind::Map { entries, .. } => entries.iter().map(|entry| &entry.value.1).collect(),
        ExprKind::Call { args, named, .. } => args.iter().chain(named.iter().map(|(_, value)| value)).collect(),
        ExprKind::Filter { input, args, named, .. } => {
            std::iter::once(&**input).chain(args).chain(named.iter().map(|(_, value)| value)).collect()
        }
        ExprKind::Test { input, args, .. } => std::iter::once(&**input).chain(args).collect(),
        ExprKind::Unary(_, inner) | ExprKind::Group(inner) => vec![inner],
        ExprKind::Binary(_, left, right) => vec![left, right],
        ExprKind::Ternary { then, condition, otherwise } => vec![then, condition, otherwise],
        ExprKind::Arrow { from, to, .. } => vec![from, to],
    }
}

/// Replaces what is known by its value: `scope` gives values, `late` the expressions of names that only the host can
/// evaluate (already resolved themselves). What remains uses facts and results alone, so it can travel.
pub fn resolve_known(expr: &Expr, scope: &Map, late: &std::collections::BTreeMap<String, Expr>) -> Expr {
    let known = |name: &FreeName| name.path.first().is_some_and(|root| scope.contains_key(root));
    if free_names(expr).iter().all(known)
        && let Ok(value) = evaluate(expr, scope)
    {
        return Expr { kind: ExprKind::Literal { value, text: String::new() }, span: expr.span };
    }
    let go = |inner: &Expr| resolve_known(inner, scope, late);
    let boxed = |inner: &Expr| Box::new(resolve_known(inner, scope, late));
    let pairs =
        |named: &[(Name, Expr)]| named.iter().map(|(name, value)| (name.clone(), go(value))).collect::<Vec<_>>();
    let kind = match &expr.kind {
        ExprKind::Name(name) => match late.get(name) {
            Some(bound) => ExprKind::Group(Box::new(bound.clone())),
            None => expr.kind.clone(),
        },
        ExprKind::Literal { .. } => expr.kind.clone(),
        ExprKind::Text { parts, quote } => {
            let part = |part: &TextPart| match part {
                TextPart::Plain(text) => TextPart::Plain(text.clone()),
                TextPart::Computed(inner) => TextPart::Computed(go(inner)),
            };
            ExprKind::Text { parts: parts.iter().map(part).collect(), quote: *quote }
        }
        ExprKind::Attr(base, name) => ExprKind::Attr(boxed(base), name.clone()),
        ExprKind::Index(base, index) => ExprKind::Index(boxed(base), boxed(index)),
        ExprKind::List { items, multiline, .. } => ExprKind::List {
            items: items.iter().map(|item| bare(go(&item.value))).collect(),
            multiline: *multiline,
            trailing: Vec::new(),
        },
        ExprKind::Map { entries, multiline, .. } => ExprKind::Map {
            entries: entries.iter().map(|entry| bare((entry.value.0.clone(), go(&entry.value.1)))).collect(),
            multiline: *multiline,
            trailing: Vec::new(),
        },
        ExprKind::Call { name, args, named } => {
            ExprKind::Call { name: name.clone(), args: args.iter().map(go).collect(), named: pairs(named) }
        }
        ExprKind::Filter { input, name, args, named } => ExprKind::Filter {
            input: boxed(input),
            name: name.clone(),
            args: args.iter().map(go).collect(),
            named: pairs(named),
        },
        ExprKind::Test { input, name, negated, args } => ExprKind::Test {
            input: boxed(input),
            name: name.clone(),
            negated: *negated,
            args: args.iter().map(go).collect(),
        },
        ExprKind::Unary(op, inner) => ExprKind::Unary(*op, boxed(inner)),
        ExprKind::Binary(op, left, right) => ExprKind::Binary(*op, boxed(left), boxed(right)),
        ExprKind::Ternary { then, condition, otherwise } => {
            ExprKind::Ternary { then: boxed(then), condition: boxed(condition), otherwise: boxed(otherwise) }
        }
        ExprKind::Arrow { from, to, flags } => {
            ExprKind::Arrow { from: boxed(from), to: boxed(to), flags: flags.clone() }
        }
        ExprKind::Group(inner) => ExprKind::Group(boxed(inner)),
    };
    Expr { kind, span: expr.span }
}

fn bare<T>(value: T) -> Element<T> {
    Element { before: Vec::new(), value, after: None }
}
