//! One step: its condition, its arguments, then observe, plan, apply, verify.
//!
//! This file is the only reader of check mode. A kind never sees it: without an [`Actuator`] it has nothing to write with.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::beside::{MOST, Share};
use super::blobs::Blobs;
use super::diff;
use crate::change::{self, Change};
use crate::event::Outcome;
use crate::failure::{Failure, FailureKind};
use crate::plan::{Arg, Late, LateValue, RunOptions, Step};
use crate::resource::kinds::{Kind, schema};
use crate::resource::{Nature, Observed, Resource};
use crate::system::{Actuator, Probe};
use crate::value::{Map, Value};

/// How long a step that only waits may take in check mode: limit `check_wait`.
const CHECK_WAIT: Duration = Duration::from_secs(5);

/// What a step knows of the steps before it.
pub(super) struct Before<'a> {
    /// `facts` and the results of this target's earlier steps.
    pub(super) known: &'a Map,
    /// Results of steps that check mode did not apply.
    pub(super) unapplied_results: &'a BTreeSet<String>,
    /// Check mode: an earlier step on this target or its host that was not applied, in words.
    pub(super) unapplied: Option<&'a str>,
    /// Check mode: every step on this host that was not applied, by kind and title.
    pub(super) unapplied_things: &'a BTreeSet<(String, String)>,
}

impl Before<'_> {
    /// Why nobody can know what will become of something that is as declared: what it is made of was not applied.
    async fn unknown(&self, kind: &impl Resource, probe: &Probe) -> Result<Option<String>, Failure> {
        if self.unapplied_things.is_empty() {
            return Ok(None);
        }
        let under = |(kind, name): &(&'static str, String)| {
            let bare = name.strip_suffix(":latest").filter(|_| *kind == "image").map(str::to_owned);
            let known = |name: String| self.unapplied_things.contains(&((*kind).to_owned(), name));
            known(name.clone()) || bare.is_some_and(known) || *kind == "image" && known(format!("{name}:latest"))
        };
        let found = kind.stands_on(probe).await?.into_iter().find(under);
        Ok(found.map(|(kind, name)| format!("`{kind} {name}` was not applied, and this may have to change with it")))
    }
}

/// A step whose arguments are evaluated.
pub(super) struct Ready {
    pub(super) title: String,
    pub(super) kind: Kind,
}

impl Ready {
    /// The directories that a container is to mount writable.
    pub(super) fn writable_sources(&self) -> Vec<String> {
        match &self.kind {
            Kind::Container(container) => container.writable_sources(),
            _ => Vec::new(),
        }
    }

    /// Whether it takes the place of something that is kept until it has proven itself.
    pub(super) fn is_exchange(&self) -> bool {
        matches!(self.kind, Kind::Container(_))
    }

    /// What it has of its host beside its own node. What is not named here may be anything.
    pub(super) fn share(&self) -> Share {
        match &self.kind {
            kind if kind.nature() == Nature::Wait => Share::Nothing,
            Kind::Container(container) if container.shares_no_network() => Share::Nothing,
            Kind::Standing(_) | Kind::Reload(_) | Kind::Program(_) | Kind::Backend(_) => Share::Nothing,
            Kind::Attach(_)
            | Kind::Directory(_)
            | Kind::File(_)
            | Kind::Template(_)
            | Kind::Line(_)
            | Kind::Link(_)
            | Kind::Logs(_)
            | Kind::Former(_)
            | Kind::Slot(_)
            | Kind::Switch(_)
            | Kind::Confirm(_) => Share::Turn,
            _ => Share::Front,
        }
    }

    /// The link that is to be made, and what it is to point to.
    pub(super) fn link(&self) -> Option<(String, String)> {
        match &self.kind {
            Kind::Link(link) => Some((link.path.0.clone(), link.to.clone()?)),
            _ => None,
        }
    }
}

/// What became of preparing a step.
pub(super) enum Prepared {
    Ready(Box<Ready>),
    /// It ends here: its condition does not hold, or nobody can know, or it failed. The title as far as it is known.
    Ended(Outcome, String),
}

/// Evaluates conditions and arguments.
pub(super) fn prepare(step: &Step, before: &Before, blobs: &Blobs) -> Prepared {
    let plain_title = match &step.title {
        Arg::Ready(value) => value.to_string(),
        Arg::Late(late) => match late.evaluate(before.known) {
            Ok(LateValue::Value(value)) => {
                schema(&step.kind).map_or_else(|| value.to_string(), |schema| schema.show_title(&value))
            }
            _ => step.kind.clone(),
        },
    };
    for condition in &step.when {
        if let Some(reason) = behind(condition, before) {
            return Prepared::Ended(Outcome::Unknown(reason), plain_title);
        }
        match condition.evaluate(before.known) {
            Ok(LateValue::Value(Value::Bool(true)) | LateValue::Rendered(_)) => {}
            Ok(LateValue::Value(Value::Bool(false))) => {
                let reason = "its condition does not hold".to_owned();
                return Prepared::Ended(Outcome::Skipped(reason), plain_title);
            }
            Ok(LateValue::Value(other)) => {
                let message = format!("`when` gives {} `{other}`, not true or false", other.type_name());
                return failed(Failure::new(message).because(format!("at {}", condition.at)), plain_title);
            }
            Err(error) => return failed(late_failure("`when`", condition, error), plain_title),
        }
    }
    let mut args = Map::new();
    for (name, arg) in &step.args {
        let late = match arg {
            Arg::Ready(value) => {
                args.insert(name.clone(), value.clone());
                continue;
            }
            Arg::Late(late) => late,
        };
        if let Some(reason) = behind(late, before) {
            return Prepared::Ended(Outcome::Unknown(reason), plain_title);
        }
        match late.evaluate(before.known) {
            Ok(LateValue::Value(Value::Null)) => {}
            Ok(LateValue::Value(value)) => {
                args.insert(name.clone(), value);
            }
            Ok(LateValue::Rendered(text)) => {
                args.insert(name.clone(), Value::Blob(blobs.hold(text.into_bytes())));
            }
            Err(error) => return failed(late_failure(&format!("`{name}`"), late, error), plain_title),
        }
    }
    match Kind::build(&step.kind, args) {
        Ok(kind) => Prepared::Ready(Box::new(Ready { title: plain_title, kind })),
        Err(errors) => {
            let mut failure = Failure::new(format!("the arguments of `{}` do not fit", step.kind));
            for error in errors {
                failure = failure.because(format!("`{}`: {}", error.field, error.message));
            }
            failed(failure, plain_title)
        }
    }
}

fn failed(failure: Failure, title: String) -> Prepared {
    Prepared::Ended(Outcome::Failed(failure, None), title)
}

fn late_failure(what: &str, late: &Late, error: crate::expr::EvalError) -> Failure {
    let failure =
        Failure::new(format!("{what} cannot be evaluated: {}", error.message)).because(format!("at {}", late.at));
    match error.help {
        Some(help) => failure.hint(help),
        None => failure,
    }
}

/// Why a late value cannot be known in check mode.
fn behind(late: &Late, before: &Before) -> Option<String> {
    let result = late.needs.iter().find(|name| before.unapplied_results.contains(*name))?;
    Some(format!("it needs the result `{result}` of a step that was not applied"))
}

/// Hands to change the host with; check mode has none.
pub(super) fn hands(options: RunOptions, probe: &Probe) -> Option<Actuator> {
    applies(options).then(|| Actuator::new(probe))
}

/// How many nodes of a host go through a stage at the same time. In check mode what cannot be known depends on what was looked at before.
pub(super) fn most_side_by_side(options: RunOptions) -> usize {
    if options.check { 1 } else { MOST }
}

/// Whether the run changes anything.
pub(super) fn applies(options: RunOptions) -> bool {
    !options.check
}

/// How a step ended, with its result's fields.
pub(super) struct Done {
    pub(super) outcome: Outcome,
    pub(super) output: Map,
}

impl From<Outcome> for Done {
    fn from(outcome: Outcome) -> Self {
        Self { outcome, output: Map::new() }
    }
}

/// Says durably, before anything is applied, what must follow the change; a kill in between then loses nothing.
pub(super) type Announce<'a> = &'a (dyn Fn(&Actuator) -> Result<(), Failure> + Sync);

/// Carries the step out within its limit of time.
pub(super) async fn carry_out(
    ready: &Ready,
    step: &Step,
    options: RunOptions,
    before: &Before<'_>,
    probe: &Probe,
    announce: Announce<'_>,
) -> Done {
    let limit: Duration = step.limit.unwrap_or(options.step_limit);
    let applying = Arc::new(std::sync::Mutex::new(None));
    let work = observe_and_apply(&ready.kind, options, before, probe, announce, Arc::clone(&applying));
    match tokio::time::timeout(limit, work).await {
        Ok(done) => done,
        Err(_) => {
            let change = applying.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
            let failure = Failure::timeout("timeout", limit)
                .hint("raise it with `timeout = …` in the task, or `--step-limit` for the whole run");
            Outcome::Failed(failure, change).into()
        }
    }
}

async fn observe_and_apply(
    kind: &impl Resource,
    options: RunOptions,
    before: &Before<'_>,
    probe: &Probe,
    announce: Announce<'_>,
    applying: Arc<std::sync::Mutex<Option<Change>>>,
) -> Done {
    let nature = kind.nature();
    if let (Nature::Wait, Some(earlier)) = (nature, before.unapplied) {
        return Outcome::Unknown(format!("it waits for what {earlier} would bring about")).into();
    }
    let looked = if options.check && nature == Nature::Wait {
        // Another host may have changes before it that were not applied: nobody can know, and it is not worth a long wait.
        match tokio::time::timeout(CHECK_WAIT, kind.observe(probe)).await {
            Ok(Ok(observed)) => Ok(observed),
            Ok(Err(failure)) => return Outcome::Unknown(format!("it does not hold as things are: {failure}")).into(),
            Err(_) => {
                let limit = Failure::timeout("check_wait", CHECK_WAIT);
                return Outcome::Unknown(format!("it does not hold as things are: {limit}")).into();
            }
        }
    } else {
        kind.observe(probe).await
    };
    let Observed { state, output } = match looked {
        Ok(observed) => observed,
        Err(failure) => {
            return match before.unapplied {
                Some(earlier) => {
                    Outcome::Unknown(format!("it cannot be looked at before {earlier} is applied: {failure}")).into()
                }
                None => Outcome::Failed(failure, None).into(),
            };
        }
    };
    let desired = kind.desired();
    let Some(mut change) = change::between(&desired, &state) else {
        return match before.unknown(kind, probe).await {
            Ok(None) => Done { outcome: Outcome::Ok, output },
            Ok(Some(why)) => Done { outcome: Outcome::Unknown(why), output },
            Err(failure) => Outcome::Failed(failure, None).into(),
        };
    };
    if options.diff {
        diff::add(&mut change, probe).await;
    }
    let action = matches!(nature, Nature::Action { .. });
    let Some(hands) = hands(options, probe) else {
        let outcome = if action { Outcome::WouldRun } else { Outcome::WouldChange(change) };
        return Done { outcome, output };
    };
    *applying.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(change.clone());
    if let Err(failure) = announce(&hands) {
        return Outcome::Failed(failure, Some(change)).into();
    }
    let mut output = match kind.apply(&change, &hands).await {
        Ok(output) => output,
        Err(failure) => return Outcome::Failed(failure, Some(change)).into(),
    };
    if nature != (Nature::Action { verify: false }) {
        match kind.observe(probe).await {
            Ok(after) => {
                if let Some(left) = change::between(&desired, &after.state) {
                    return Outcome::Failed(did_not_converge(&left, action), Some(change)).into();
                }
                for (name, value) in after.output {
                    output.entry(name).or_insert(value);
                }
            }
            Err(failure) => {
                let failure = failure.within("it was applied, but cannot be looked at afterwards");
                return Outcome::Failed(failure, Some(change)).into();
            }
        }
    }
    let outcome = if action { Outcome::Ran } else { Outcome::Changed(change) };
    Done { outcome, output }
}

/// Brings something that was declared by an earlier run back to that, as a step of a run would. What is changed, or why not.
///
/// # Errors
/// As a step's; and when it takes longer than `limit`.
pub async fn keep(thing: &impl Resource, probe: &Probe, limit: (&str, Duration)) -> Result<Option<Change>, Failure> {
    let options = RunOptions { check: false, diff: false, step_limit: limit.1, lock_wait: None };
    let (known, unapplied_results) = (Map::new(), BTreeSet::new());
    let things = BTreeSet::new();
    let before =
        Before { known: &known, unapplied_results: &unapplied_results, unapplied: None, unapplied_things: &things };
    let announce = |_: &Actuator| Ok(());
    let work = observe_and_apply(thing, options, &before, probe, &announce, Arc::default());
    let Ok(done) = tokio::time::timeout(limit.1, work).await else { return Err(Failure::timeout(limit.0, limit.1)) };
    match done.outcome {
        Outcome::Failed(failure, _) => Err(failure),
        Outcome::Changed(change) => Ok(Some(change)),
        _ => Ok(None),
    }
}

fn did_not_converge(left: &Change, action: bool) -> Failure {
    let mut failure = Failure::of(FailureKind::DidNotConverge, "it was applied, yet a difference is left");
    for field in &left.fields {
        failure = failure.because(format!("`{}` is {}, should be {}", field.field, field.from, field.to));
    }
    if left.fields.is_empty() {
        failure = failure.because(format!("still to {:?}", left.verb).to_lowercase());
    }
    failure.hint(if action {
        "it ended well without bringing about what it is guarded by: is that the right guard?"
    } else {
        "something else may change it at the same time; if not, this is a defect of the kind"
    })
}
