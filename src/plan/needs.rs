//! Which contents a host may ask for: those that its own plan names.

use std::collections::BTreeSet;

use super::late::{Late, LateSource};
use super::model::{Arg, HostPlan, Step, TargetPlan};
use crate::expr::children;
use crate::syntax::ast::{Expr, ExprKind};
use crate::value::{Digest, TreeEntryKind, Value};

impl HostPlan {
    /// Every step in it, handlers' too.
    pub fn steps(&self) -> impl Iterator<Item = &Step> {
        let targets = self.stages.iter().flat_map(|stage| &stage.targets);
        targets.flat_map(TargetPlan::all_steps)
    }

    /// The digests of all contents that it names.
    pub fn contents(&self) -> BTreeSet<Digest> {
        let mut found = BTreeSet::new();
        for step in self.steps() {
            let args = step.args.values().chain([&step.title]);
            args.for_each(|arg| match arg {
                Arg::Ready(value) => of_value(value, &mut found),
                Arg::Late(late) => of_late(late, &mut found),
            });
            step.when.iter().for_each(|late| of_late(late, &mut found));
        }
        found
    }
}

fn of_late(late: &Late, found: &mut BTreeSet<Digest>) {
    match &late.source {
        LateSource::Expr(expr) => of_expr(expr, found),
        LateSource::Template { scope, late, .. } => {
            scope.values().for_each(|value| of_value(value, found));
            late.values().for_each(|expr| of_expr(expr, found));
        }
    }
}

fn of_expr(expr: &Expr, found: &mut BTreeSet<Digest>) {
    if let ExprKind::Literal { value, .. } = &expr.kind {
        of_value(value, found);
    }
    children(expr).into_iter().for_each(|child| of_expr(child, found));
}

fn of_value(value: &Value, found: &mut BTreeSet<Digest>) {
    match value {
        Value::Blob(blob) => {
            found.insert(blob.digest);
        }
        Value::Tree(tree) => found.extend(tree.entries.iter().filter_map(|entry| match &entry.kind {
            TreeEntryKind::File { blob, .. } => Some(blob.digest),
            TreeEntryKind::Directory | TreeEntryKind::Link(_) => None,
        })),
        Value::List(items) => items.iter().for_each(|item| of_value(item, found)),
        Value::Map(map) => map.values().for_each(|item| of_value(item, found)),
        Value::Call(call) => call.args.iter().chain(call.named.values()).for_each(|item| of_value(item, found)),
        _ => {}
    }
}
