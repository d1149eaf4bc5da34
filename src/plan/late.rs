//! Values that only the host can know: they need facts or the results of earlier steps.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::expr::{EvalError, evaluate, render};
use crate::source::Span;
use crate::syntax::ast::{Expr, ExprKind, Name};
use crate::value::{Map, Value};

/// Something to evaluate on the host just before its step. Its names are checked before the first connection, and
/// everything that was known when planning already stands in it as a literal: what is left uses facts and results alone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Late {
    /// What to evaluate.
    pub source: LateSource,
    /// Names of earlier results that it uses: unknown in check mode when one of them was not applied.
    pub needs: Vec<String>,
    /// `path:line` for messages.
    pub at: String,
}

/// The two sources of late values.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum LateSource {
    /// An expression of the playbook.
    Expr(Expr),
    /// The text of a template file; gives the rendered bytes, which become a blob on the host.
    Template {
        /// The file's name for messages.
        name: String,
        /// Its text: source, never data.
        text: String,
        /// The names that it uses and that were known when planning.
        scope: Map,
        /// The names that it uses and that need facts or results themselves.
        late: BTreeMap<String, Expr>,
    },
}

/// What a late value comes to.
#[derive(Clone, Debug, PartialEq)]
pub enum LateValue {
    /// A value.
    Value(Value),
    /// A template's rendered text.
    Rendered(String),
}

impl Late {
    /// A field of an earlier result, as an expression.
    pub(super) fn field(result: &str, field: &str) -> Expr {
        let place = Span::NOWHERE;
        let name = Expr { kind: ExprKind::Name(result.to_owned()), span: place };
        let field = Name { text: field.to_owned(), span: place };
        Expr { kind: ExprKind::Attr(Box::new(name), field), span: place }
    }

    /// A field of an earlier result.
    pub(super) fn field_of(result: &str, field: &str, at: &str) -> Self {
        Self { source: LateSource::Expr(Self::field(result, field)), needs: vec![result.to_owned()], at: at.to_owned() }
    }

    /// Evaluates; `known` holds `facts` and the results of earlier steps by their names.
    ///
    /// # Errors
    /// As [`evaluate`] and [`render`]; the message stands for itself, [`Late::at`] says where.
    pub fn evaluate(&self, known: &Map) -> Result<LateValue, EvalError> {
        match &self.source {
            LateSource::Expr(expr) => evaluate(expr, known).map(LateValue::Value),
            LateSource::Template { name, text, scope, late } => {
                let mut all = known.clone();
                all.extend(scope.iter().map(|(name, value)| (name.clone(), value.clone())));
                for (name, expr) in late {
                    all.insert(name.clone(), evaluate(expr, known)?);
                }
                render(name, text, &all).map(LateValue::Rendered)
            }
        }
    }
}
