//! Containers that `change` makes anew: what they were is written down before it, and confirmed or brought back after it.

use std::collections::BTreeSet;

use super::super::late::{Late, LateSource};
use super::super::make::Planner;
use super::super::model::{Arg, Step};
use super::parts::Part;
use super::{made, units::plain};
use crate::diagnostic::Diagnostic;
use crate::source::Span;
use crate::syntax::ast::Expr;
use crate::value::Value;

/// The result that tells whether a container that was put back runs; no playbook can have a name like that.
const FORMER: &str = "@former";

/// The containers of a node's `change`, each with where it is declared.
fn containers(part: &Part) -> impl Iterator<Item = (&str, &str)> {
    part.change.iter().filter(|step| step.kind == "container").filter_map(|step| match step.args.get("name") {
        Some(Arg::Ready(Value::Str(name))) => Some((name.as_str(), step.at.as_str())),
        _ => None,
    })
}

/// A step for each of them.
pub(super) fn formers(part: &Part, rollout: &str, state: &str, more: &[(&str, Option<Value>)]) -> Vec<Step> {
    let former = |(name, at): (&str, &str)| {
        let args = [("container", Value::from(name)), ("rollout", Value::from(rollout)), ("state", Value::from(state))];
        let more = more.iter().filter_map(|(name, value)| Some((*name, value.clone()?)));
        made("former", args.into_iter().chain(more), at)
    };
    containers(part).map(former).collect()
}

/// Brings them back, with what is plugged into them; then `rest`, where the node runs.
pub(super) fn back(part: &Part, rollout: &str, undo: Option<&Value>, rest: Vec<Step>) -> Vec<Step> {
    let mut steps = formers(part, rollout, "back", &[("undo", undo.cloned())]);
    let own = containers(part).position(|(name, _)| part.target.node.as_deref() == Some(name));
    let Some(former) = own.and_then(|own| steps.get_mut(own)) else {
        steps.extend(rest);
        return steps;
    };
    former.register = Some(FORMER.to_owned());
    // One that was not there before, or did not run, has nothing to plug, to load or to answer.
    let runs = Late::field_of(FORMER, "running", &former.at);
    let plugs = part.change.iter().filter(|step| step.kind == "attach").cloned();
    steps.extend(plugs.chain(rest).map(|mut step| {
        step.when.push(runs.clone());
        step
    }));
    steps
}

/// Kinds that a rollout puts back, and those that leave nothing to put back.
const LEAVE_NOTHING: [&str; 6] = ["container", "attach", "http", "tcp", "loaded", "settle"];

/// The kinds of tasks in `change` whose doing stays when the rest is put back.
pub(super) fn stays(parts: &[Part]) -> Vec<String> {
    let kinds = parts.iter().flat_map(|part| &part.change).map(|step| &step.kind);
    let stay: BTreeSet<&String> = kinds.filter(|kind| !LEAVE_NOTHING.contains(&kind.as_str())).collect();
    stay.into_iter().cloned().collect()
}

/// The tasks of `change` for a look at whether they would do something; `None` when only the run itself can say. What needs facts is
/// evaluated on the host.
pub(super) fn looked_at(part: &Part) -> Option<Arg> {
    if let Some(steps) = part.change.iter().map(ready).collect::<Option<Vec<Value>>>() {
        return Some(Arg::Ready(Value::List(steps)));
    }
    let steps = part.change.iter().map(by_facts).collect::<Option<Vec<Expr>>>()?;
    Some(Arg::Late(Box::new(Late { source: LateSource::Expr(Expr::list(steps)), needs: Vec::new(), at: part.at() })))
}

/// A task without conditions as data; `None` when a value of it is not known yet.
fn ready(step: &Step) -> Option<Value> {
    if step.when.is_empty() { plain(step) } else { None }
}

/// The same as an expression over facts; `None` when it needs results of the run.
fn by_facts(step: &Step) -> Option<Expr> {
    let value = |arg: &Arg| match arg {
        Arg::Ready(value) => Some(Expr::literal(value.clone())),
        Arg::Late(late) => match &late.source {
            LateSource::Expr(expr) if late.needs.is_empty() => Some(expr.clone()),
            _ => None,
        },
    };
    let args = step.args.iter().map(|(name, arg)| Some((name.clone(), value(arg)?))).collect::<Option<Vec<_>>>()?;
    let kind = Expr::literal(Value::from(step.kind.as_str()));
    step.when.is_empty().then(|| Expr::map([("kind".to_owned(), kind), ("args".to_owned(), Expr::map(args))]))
}

impl Planner<'_, '_> {
    /// What could not be brought back is refused before anything goes out.
    pub(super) fn refuse_one_way(&mut self, parts: &[Part], within: bool, span: Span) {
        if within && parts.iter().all(|part| part.slots.is_empty()) {
            let error = Diagnostic::new(span, "`within` means nothing without a `config`");
            self.shared.errors.push(error.help(
                "hosts put back directories by themselves, and with them what `change` made anew; leave `within` out",
            ));
        }
        let late = |step: &&Step| match step.kind.as_str() {
            "container" => !matches!(step.args.get("name"), Some(Arg::Ready(_))),
            "attach" => {
                let args =
                    step.args.values().filter_map(|arg| if let Arg::Late(late) = arg { Some(&**late) } else { None });
                args.chain(&step.when).any(|late| !late.needs.is_empty())
            }
            _ => false,
        };
        if let Some(step) = parts.iter().flat_map(|part| &part.change).find(late) {
            let message = format!(
                "`{}` in `change` needs results of the run ({}), and could not be put back",
                step.kind, step.at
            );
            let error = Diagnostic::new(span, message);
            self.shared.errors.push(error.help("use what is known before it: variables, and the node's own values"));
        }
    }
}
