//! Errors found while planning: each once, though hundreds of hosts may run into it.

use std::collections::{BTreeMap, BTreeSet};

use crate::diagnostic::Diagnostic;
use crate::expr::EvalError;
use crate::source::Span;

/// Hosts that a note names; more are counted.
const MOST_NAMED: usize = 3;

/// Collected errors.
#[derive(Debug, Default)]
pub(super) struct Errors {
    /// What loading found; its places are not told of again.
    loaded: Vec<Diagnostic>,
    found: Vec<Diagnostic>,
    /// By place: who met an error there first, and who else did.
    places: BTreeMap<Span, Place>,
    /// Every host and node that was planned for.
    targets: BTreeSet<String>,
    /// The one that is being planned for.
    target: Option<String>,
    /// Counts tasks: a loop comes to the same place again with another error, which is told once.
    task: u64,
}

#[derive(Debug)]
struct Place {
    task: u64,
    targets: BTreeSet<String>,
    /// Where its errors stand in the list.
    told: Vec<usize>,
}

impl Errors {
    /// Errors that are known already.
    pub(super) fn from(found: Vec<Diagnostic>) -> Self {
        Self { loaded: found, ..Self::default() }
    }

    /// What follows is planned for this host or node.
    pub(super) fn target(&mut self, name: &str) {
        self.target = Some(name.to_owned());
        self.targets.insert(name.to_owned());
    }

    /// What follows belongs to no host or node.
    pub(super) fn no_target(&mut self) {
        self.target = None;
    }

    /// Another task begins.
    pub(super) fn task(&mut self) {
        self.task += 1;
    }

    /// Adds an error, unless one was told of the same place.
    pub(super) fn push(&mut self, error: Diagnostic) {
        let span = error.at.span;
        if self.loaded.iter().any(|known| known.at.span == span && span != Span::NOWHERE) {
            return;
        }
        let (task, at) = (self.task, self.found.len());
        let place =
            self.places.entry(span).or_insert_with(|| Place { task, targets: BTreeSet::new(), told: Vec::new() });
        let same = |told: &usize| self.found.get(*told).is_some_and(|known| known.message == error.message);
        place.targets.extend(self.target.clone());
        if span != Span::NOWHERE && place.task != task || place.told.iter().any(same) {
            return;
        }
        place.told.push(at);
        self.found.push(error);
    }

    /// Adds an error of an expression, unless loading found one inside of it or around it.
    pub(super) fn push_inside(&mut self, error: Diagnostic) {
        let span = error.at.span;
        let inside = |known: &Diagnostic| {
            let other = known.at.span;
            other.file == span.file && span != Span::NOWHERE && other.start <= span.end && span.start <= other.end
        };
        if !self.loaded.iter().any(inside) {
            self.push(error);
        }
    }

    /// Adds an error of an expression.
    pub(super) fn eval(&mut self, error: EvalError) {
        let diagnostic = Diagnostic::new(error.span, error.message);
        self.push_inside(error.help.into_iter().fold(diagnostic, Diagnostic::help));
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.loaded.len() + self.found.len()
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.count() == 0
    }

    /// All of them. Where only some hosts or nodes meet one, it says which.
    pub(super) fn into_inner(self) -> Vec<Diagnostic> {
        let Self { mut loaded, mut found, places, targets, .. } = self;
        for place in places.values() {
            let some = !place.targets.is_empty() && place.targets.len() < targets.len();
            for error in place.told.iter().filter(|_| some) {
                if let Some(error) = found.get_mut(*error) {
                    error.notes.push(where_met(&place.targets));
                }
            }
        }
        loaded.extend(found);
        loaded
    }
}

fn where_met(targets: &BTreeSet<String>) -> String {
    let named: Vec<String> = targets.iter().take(MOST_NAMED).map(|name| format!("`{name}`")).collect();
    match targets.len().saturating_sub(MOST_NAMED) {
        0 => format!("on {}", named.join(", ")),
        more => format!("on {} and {more} more", named.join(", ")),
    }
}
