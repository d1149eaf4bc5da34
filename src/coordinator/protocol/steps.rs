//! How far a stage is, and what the plan says of one of its steps.

use std::collections::BTreeSet;

use crate::event::{Outcome, StepRef, Target};
use crate::plan::{Arg, Step, TargetPlan};
use crate::value::{Map, Value};

/// How far a stage is.
#[derive(Clone, Default)]
pub(super) struct Cursor {
    /// The target, by its place, and whether a step of it was seen.
    pub(super) target: usize,
    pub(super) entered: bool,
    /// Its next step, and whether one failed so that no more follow.
    pub(super) step: usize,
    pub(super) broken: bool,
    /// Its next handler, and the next step in it once it has begun.
    pub(super) handler: usize,
    pub(super) inside: Option<usize>,
    /// Handlers that must run.
    pub(super) notified: BTreeSet<String>,
    /// Whether it failed, and all targets that did in this stage.
    pub(super) failed: bool,
    pub(super) all_failed: Vec<Target>,
}

impl Cursor {
    pub(super) fn next_target(&mut self) {
        let all_failed = std::mem::take(&mut self.all_failed);
        *self = Self { target: self.target + 1, all_failed, ..Self::default() };
    }
}

/// A step that may come next, and where it stands.
pub(super) struct Ahead<'p> {
    pub(super) step: &'p Step,
    pub(super) target: &'p Target,
    pub(super) handler: bool,
    /// Whether nothing else may come before it.
    pub(super) must: bool,
}

/// Goes past a step that has ended. True when it failed in a way that counts.
pub(super) fn advance(
    cursor: &mut Cursor,
    plan: &TargetPlan,
    step: &Step,
    in_handler: bool,
    outcome: &Outcome,
) -> bool {
    let touched = matches!(
        outcome,
        Outcome::Changed(_)
            | Outcome::Ran
            | Outcome::WouldChange(_)
            | Outcome::WouldRun
            | Outcome::Failed(_, Some(_))
            | Outcome::Ignored(_, Some(_))
    );
    if touched {
        cursor.notified.extend(step.notify.iter().cloned());
    }
    let failed = matches!(outcome, Outcome::Failed(..));
    if !in_handler {
        cursor.step += 1;
        cursor.broken = failed;
        return failed;
    }
    let next = cursor.inside.unwrap_or(0) + 1;
    let handler = plan.handlers.get(cursor.handler);
    let over = handler.is_none_or(|handler| handler.steps.len() <= next);
    if failed || over {
        if let Some(handler) = handler.filter(|_| !failed) {
            cursor.notified.remove(&handler.name);
        }
        cursor.handler += 1;
        cursor.inside = None;
    } else {
        cursor.inside = Some(next);
    }
    failed
}

/// Whether what the host says of a step is what its plan says.
pub(super) fn same(said: &StepRef, step: &Step, target: &Target, play: &str, handler: bool) -> Result<(), String> {
    let title = match &step.title {
        Arg::Ready(value) => value.to_string() == said.title,
        Arg::Late(_) => true,
    };
    if said.target != *target {
        return Err(format!("its plan has that step for {target}"));
    }
    if said.kind != step.kind || said.at != step.at || said.play != play || said.handler != handler || !title {
        return Err(format!("its plan has `{}` at {} there", step.kind, step.at));
    }
    Ok(())
}

/// Whether a step may end so.
pub(super) fn may_end(step: &Step, outcome: &Outcome, started: bool, check: bool) -> Result<(), &'static str> {
    match outcome {
        Outcome::Changed(_) | Outcome::Ran if check => Err("this run only looks"),
        Outcome::WouldChange(_) | Outcome::WouldRun | Outcome::Unknown(_) if !check => {
            Err("this run does not only look")
        }
        Outcome::Failed(..) if step.ignore_failure => Err("its failure is ignored"),
        Outcome::Ignored(..) if !step.ignore_failure => Err("its failure is not ignored"),
        Outcome::Skipped(_) if step.when.is_empty() => Err("it has no condition"),
        Outcome::Skipped(_) if started => Err("it had begun"),
        Outcome::Skipped(_) | Outcome::Unknown(_) | Outcome::Failed(_, None) | Outcome::Ignored(_, None) => Ok(()),
        _ if !started => Err("it never began"),
        _ => Ok(()),
    }
}

/// The nodes of which a step tells what they served.
pub(super) fn served_of(output: &Map) -> impl Iterator<Item = &String> {
    let served = match output.get("served") {
        Some(Value::Map(nodes)) => Some(nodes.keys()),
        _ => None,
    };
    served.into_iter().flatten()
}

pub(super) fn has_log(step: &Step, node: &str) -> bool {
    matches!(step.args.get("logs"), Some(Arg::Ready(Value::Map(logs))) if logs.contains_key(node))
}
