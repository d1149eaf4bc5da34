//! The names of one target and their values, evaluated when they are first needed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::errors::Errors;
use super::late::{Late, LateSource};
use super::model::Arg;
use crate::diagnostic::Diagnostic;
use crate::expr::{evaluate, free_names, is_too_large, resolve_known};
use crate::source::Span;
use crate::syntax::ast::Expr;
use crate::value::{Map, Value};

/// What an expression comes to when planning.
#[derive(Clone, Debug)]
pub(super) enum Known {
    /// A value.
    Ready(Value),
    /// Only the host can tell.
    Late(Expr),
}

/// The names of one target.
pub(super) struct Scope<'p> {
    /// Variables that are not evaluated yet, the winning definition of each.
    defined: BTreeMap<&'p str, &'p Expr>,
    /// Large maps that few expressions use (`hosts`, `nodes`): copied in when they are.
    shared: Arc<Map>,
    /// What was bound from the start.
    base: Map,
    /// Names with values: evaluated variables, `host`, `node`, `env`, loop variables, locals.
    pub(super) values: Map,
    /// Names that only the host can evaluate, already resolved down to facts and results.
    pub(super) late: BTreeMap<String, Expr>,
    /// Results that earlier steps leave.
    pub(super) results: BTreeSet<String>,
    /// Names whose evaluation failed; said once.
    failed: BTreeSet<String>,
    /// Names in evaluation, to see circles.
    under_way: Vec<String>,
    /// Whether anything needed `facts`.
    pub(super) facts: bool,
    /// Rounds of loops so far.
    pub(super) rounds: u64,
    /// What was bound before, newest last: cheaper than copies of all names for each round of a loop.
    before: Vec<Before>,
}

/// What [`Scope::enter`] comes back to: a place in the list of what was bound before.
pub(super) struct Outer(usize);

/// What [`Scope::hide_locals`] puts back.
pub(super) struct Hidden {
    values: Map,
    late: BTreeMap<String, Expr>,
    before: Vec<Before>,
}

/// A name, and what it was bound to before it was bound anew.
struct Before {
    name: String,
    value: Option<Value>,
    late: Option<Expr>,
}

/// How many variables may need each other in a chain.
const MOST_CHAIN: usize = 1000;

/// The most rounds of all loops of one host or node in one play.
pub(super) const MOST_ROUNDS: u64 = 1_000_000;

impl<'p> Scope<'p> {
    /// A scope over variables; `values` holds what is known from the start.
    pub(super) fn new(defined: BTreeMap<&'p str, &'p Expr>, shared: Arc<Map>, values: Map) -> Self {
        Self {
            defined,
            shared,
            base: values.clone(),
            values,
            late: BTreeMap::new(),
            results: BTreeSet::new(),
            failed: BTreeSet::new(),
            under_way: Vec::new(),
            facts: false,
            rounds: 0,
            before: Vec::new(),
        }
    }

    /// Every name that can be used now.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        let bound = self.values.keys().chain(self.late.keys()).chain(&self.results).map(String::as_str);
        bound.chain(self.defined.keys().copied()).chain(self.shared.keys().map(String::as_str)).chain(["facts"])
    }

    /// One more round of a loop, or call of a role; `false` when there were too many, which is told once.
    pub(super) fn round(&mut self, list: Span, errors: &mut Errors) -> bool {
        self.rounds += 1;
        if self.rounds == MOST_ROUNDS + 1 {
            let error = Diagnostic::new(list, "loops run, or roles are called, more than 1,000,000 times for one host");
            errors.push(error.help(
                "a loop inside of a loop runs through all pairs, and so does a role that calls others; is that meant?",
            ));
        }
        self.rounds <= MOST_ROUNDS
    }

    fn set(&mut self, name: &str, value: Option<Value>, late: Option<Expr>) {
        let mut put = |value: Option<Value>| match value {
            Some(value) => self.values.insert(name.to_owned(), value),
            None => self.values.remove(name),
        };
        let value = put(value);
        let late = match late {
            Some(expr) => self.late.insert(name.to_owned(), expr),
            None => self.late.remove(name),
        };
        self.before.push(Before { name: name.to_owned(), value, late });
    }

    /// Whether a name is bound to anything.
    pub(super) fn binds(&self, name: &str) -> bool {
        self.values.contains_key(name)
            || self.late.contains_key(name)
            || self.results.contains(name)
            || self.defined.contains_key(name)
            || self.shared.contains_key(name)
            || self.failed.contains(name)
            || name == "facts"
    }

    /// Evaluates an expression; `None` when that failed, which is said in `errors`.
    pub(super) fn eval(&mut self, expr: &Expr, errors: &mut Errors) -> Option<Known> {
        let names = free_names(expr);
        let mut late = false;
        for name in &names {
            let Some(root) = name.path.first() else { continue };
            self.need(root, name.span, errors);
            if self.failed.contains(root) && !self.values.contains_key(root) {
                return None;
            }
            late |= self.is_late(root);
        }
        if late {
            let resolved = resolve_known(expr, &self.values, &self.late);
            if is_too_large(&resolved) {
                let message = "this stands for an expression that is too large: names in it stand for others, and those for others again";
                errors.push_inside(
                    Diagnostic::new(expr.span, message).help("let a task compute it: `shell` with `register`"),
                );
                return None;
            }
            self.facts |=
                free_names(&resolved).iter().any(|name| name.path.first().is_some_and(|root| root == "facts"));
            return Some(Known::Late(resolved));
        }
        match evaluate(expr, &self.values) {
            Ok(value) => Some(Known::Ready(value)),
            Err(error) => {
                errors.eval(error);
                None
            }
        }
    }

    /// Evaluates an expression that must be known when planning.
    pub(super) fn now(&mut self, expr: &Expr, what: &str, errors: &mut Errors) -> Option<Value> {
        match self.eval(expr, errors)? {
            Known::Ready(value) => Some(value),
            Known::Late(_) => {
                let message = format!("{what} must be known before the first connection");
                errors.push_inside(Diagnostic::new(expr.span, message).help("it cannot use facts or results"));
                None
            }
        }
    }

    /// Whether only the host knows the name.
    pub(super) fn is_late(&self, name: &str) -> bool {
        !self.values.contains_key(name)
            && (name == "facts" || self.late.contains_key(name) || self.results.contains(name))
    }

    /// Sees that a name is evaluated, when it is a variable that was not needed before.
    pub(super) fn need(&mut self, name: &str, span: Span, errors: &mut Errors) {
        if self.values.contains_key(name) || self.is_late(name) || self.failed.contains(name) {
            return;
        }
        if let Some(value) = self.shared.get(name).cloned() {
            self.set(name, Some(value), None);
            return;
        }
        let Some(expr) = self.defined.get(name).copied() else { return };
        if let Some(start) = self.under_way.iter().position(|known| known == name) {
            let around: Vec<&str> = self.under_way.iter().skip(start).map(String::as_str).chain([name]).collect();
            let message = format!("variables need each other in a circle: {}", around.join(" -> "));
            errors.push(Diagnostic::new(span, message));
            self.failed.insert(name.to_owned());
            return;
        }
        if self.under_way.len() >= MOST_CHAIN {
            let message = format!("variables need each other in a chain of more than {MOST_CHAIN}");
            errors.push(Diagnostic::new(span, message).help("a list and a loop say the same in a few lines"));
            self.failed.insert(name.to_owned());
            return;
        }
        self.under_way.push(name.to_owned());
        let known = self.eval(expr, errors);
        self.under_way.pop();
        match known {
            Some(known) => self.bind(name, known),
            None => {
                self.failed.insert(name.to_owned());
            }
        }
    }

    /// Binds a name from here on.
    pub(super) fn bind(&mut self, name: &str, known: Known) {
        match known {
            Known::Ready(value) => self.set(name, Some(value), None),
            Known::Late(expr) => self.set(name, None, Some(expr)),
        }
    }

    /// Binds a role's parameter: nearer than any variable.
    pub(super) fn bind_local(&mut self, name: &str, known: Known) {
        self.failed.remove(name);
        self.bind(name, known);
    }

    /// Whether a variable (not a local) of that name exists.
    pub(super) fn binds_variable(&self, name: &str) -> bool {
        self.defined.contains_key(name) || self.base.contains_key(name)
    }

    /// Makes the names that are bound around a role's call invisible inside it.
    pub(super) fn hide_locals(&mut self) -> Hidden {
        let values = std::mem::replace(&mut self.values, self.base.clone());
        Hidden { values, late: std::mem::take(&mut self.late), before: std::mem::take(&mut self.before) }
    }

    /// Comes back from a role.
    pub(super) fn show_locals(&mut self, hidden: Hidden) {
        let Hidden { values, late, before } = hidden;
        (self.values, self.late, self.before) = (values, late, before);
    }

    /// An earlier step leaves a result of this name; what was bound to the name is hidden by it.
    pub(super) fn register(&mut self, name: &str) {
        self.set(name, None, None);
        self.results.insert(name.to_owned());
    }

    /// A name whose value could not be had; what uses it stays silent.
    pub(super) fn bind_failed(&mut self, name: &str) {
        self.set(name, None, None);
        self.failed.insert(name.to_owned());
    }

    /// Remembers what is bound, to come back to it.
    pub(super) fn enter(&self) -> Outer {
        Outer(self.before.len())
    }

    /// Comes back to what was bound.
    pub(super) fn leave(&mut self, outer: &Outer) {
        while self.before.len() > outer.0 {
            let Some(Before { name, value, late }) = self.before.pop() else { break };
            match value {
                Some(value) => self.values.insert(name.clone(), value),
                None => self.values.remove(&name),
            };
            match late {
                Some(expr) => self.late.insert(name, expr),
                None => self.late.remove(&name),
            };
        }
    }

    /// A known thing as an argument of a step.
    pub(super) fn arg(&self, known: Known, at: &str) -> Arg {
        match known {
            Known::Ready(value) => Arg::Ready(value),
            Known::Late(expr) => Arg::Late(Box::new(self.late_expr(expr, at))),
        }
    }

    /// A resolved expression that travels.
    pub(super) fn late_expr(&self, expr: Expr, at: &str) -> Late {
        let needs = self.needs(&expr);
        Late { source: LateSource::Expr(expr), needs, at: at.to_owned() }
    }

    /// The results that a resolved expression uses.
    pub(super) fn needs(&self, expr: &Expr) -> Vec<String> {
        let roots = free_names(expr).into_iter().filter_map(|name| name.path.into_iter().next());
        roots.filter(|root| self.results.contains(root)).collect::<BTreeSet<_>>().into_iter().collect()
    }
}
