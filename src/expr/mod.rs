//! Evaluates expressions and templates with minijinja: strict undefined, bounded work, no way to files or processes.
//!
//! The same functions serve the controller when it plans and the helper when it meets a late value. Our own tree gives the
//! places for errors and keeps the types of literals; each operator, filter and test is minijinja's, so that a bare
//! expression, a string and a template file cannot differ in meaning.

mod bridge;
mod eval;
mod names;
mod operators;
mod template;

pub use bridge::{filter_names, test_names};
pub use eval::{FUNCTIONS, evaluate};
pub use names::{FreeName, children, free_names, is_too_large, resolve_known};
pub use template::{render, template_names};

use crate::source::Span;
use crate::syntax::ast::{Expr, ExprKind, TextPart, UnaryOp};
use crate::value::{Map, Value};

/// The value of an expression that is a literal, or a list or map of such: one that nothing is computed in.
pub fn literal(expr: &Expr) -> Option<Value> {
    fn is_literal(expr: &Expr) -> bool {
        match &expr.kind {
            ExprKind::Literal { .. } => true,
            ExprKind::Text { parts, .. } => parts.iter().all(|part| matches!(part, TextPart::Plain(_))),
            ExprKind::List { items, .. } => items.iter().all(|item| is_literal(&item.value)),
            ExprKind::Map { entries, .. } => entries.iter().all(|entry| is_literal(&entry.value.1)),
            ExprKind::Unary(UnaryOp::Minus, inner) => {
                matches!(inner.kind, ExprKind::Literal { value: Value::Int(_), .. })
            }
            _ => false,
        }
    }
    if is_literal(expr) { evaluate(expr, &Map::new()).ok() } else { None }
}

/// Why an expression could not be evaluated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EvalError {
    /// The part that failed; in a template file, offsets in that file (the file number is the caller's to set).
    pub span: Span,
    /// What is wrong: lower case, names in backticks.
    pub message: String,
    /// The way out, where one is known.
    pub help: Option<String>,
}

impl EvalError {
    /// An error at a place.
    pub fn new(span: Span, message: impl Into<String>) -> Self {
        Self { span, message: message.into(), help: None }
    }

    /// Adds "did you mean", when a candidate is near enough.
    #[must_use]
    pub fn suggest<'a>(mut self, wrong: &str, candidates: impl IntoIterator<Item = &'a str>) -> Self {
        self.help = crate::diagnostic::nearest(wrong, candidates).map(|near| format!("did you mean `{near}`?"));
        self
    }
}
