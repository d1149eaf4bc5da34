//! What a host may say now: the state of one channel, without any input or output.
//!
//! A host is not trusted. The controller knows the plan that it sent and the orders that it gave, so it knows which steps the host may
//! begin and must end; everything else ends the channel. The engine (`engine/run.rs`) is what this follows: a change there is one here.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use super::bounds;
use super::channel::Order;
use super::rollout::SETTLE;
use crate::event::{Event, EventKind, Outcome, StepRef, Tally, Target};
use crate::failure::{Failure, FailureKind};
use crate::plan::{HostPlan, Stage};
use crate::remote::wire::LockAnswer;
use crate::value::{Digest, Map};

mod steps;
#[cfg(test)]
mod tests;

use steps::{Ahead, Cursor, advance, has_log, may_end, same, served_of};

/// How much longer than its own limit a step may take until the host says that it is over: the limit `grace`. What it changed may be
/// put back in that time.
pub(super) const GRACE: Duration = Duration::from_secs(300);

/// How long a host may take to begin its next step, or to end its stage: the limit `next step`.
pub(super) const NEXT: Duration = Duration::from_secs(300);

/// How often one content may be asked for, for each step of the plan: to compare, to show the difference, to write, to look again.
const ASKED: usize = 4;

/// What a host may say now.
#[cfg_attr(test, derive(Clone))]
pub(super) struct Protocol {
    plan: HostPlan,
    /// The contents that its plan names, and how often each was asked for.
    contents: BTreeMap<Digest, usize>,
    most_asked: usize,
    /// Stages up to this one may run; without these nodes.
    go: Option<u32>,
    without: BTreeMap<u32, Vec<String>>,
    skipped: Vec<(u32, u32)>,
    stopping: bool,
    /// How long the host may wait for the lock that it was asked to take; nothing when it was not, or has answered.
    asked: Option<Duration>,
    /// The stage that is under way or next, by its place in the plan, and how far it is.
    stage: usize,
    cursor: Cursor,
    /// Whether anything was said of a stage.
    begun: bool,
    running: Option<Running>,
    /// Targets that failed; a failed host stops its nodes too.
    failed: BTreeSet<Target>,
    tally: Tally,
    ended: bool,
    /// The number of the next event, as the host counts.
    index: u64,
    amounts: bounds::Amounts,
    /// When the run of the host last came further.
    since: Instant,
}

/// A step that has begun.
#[cfg_attr(test, derive(Clone))]
struct Running {
    step: StepRef,
    limit: Duration,
}

/// The failure of a host that said what it may not.
pub(super) fn violation(said: impl std::fmt::Display, why: impl std::fmt::Display) -> Failure {
    Failure::of(FailureKind::Untrusted, format!("it said {said}, and may not: {why}"))
        .hint("its helper may not be fanli's own: look who can write to /var/lib/fanli there")
}

/// `file /etc/hosts`
fn named(step: &StepRef) -> String {
    format!("`{} {}`", bounds::short(&step.kind), bounds::short(&step.title))
}

impl Protocol {
    /// The state before anything was said. Of the plan's contents only the digests are kept.
    pub(super) fn new(mut plan: HostPlan, now: Instant) -> Self {
        plan.blobs.clear();
        let contents: BTreeMap<Digest, usize> = plan.contents().into_iter().map(|digest| (digest, 0)).collect();
        let most_asked = (plan.steps().count() + 1) * ASKED;
        Self {
            plan,
            contents,
            most_asked,
            go: None,
            without: BTreeMap::new(),
            skipped: Vec::new(),
            stopping: false,
            asked: None,
            stage: 0,
            cursor: Cursor::default(),
            begun: false,
            running: None,
            failed: BTreeSet::new(),
            tally: Tally::default(),
            ended: false,
            index: 0,
            amounts: bounds::Amounts::new(now),
            since: now,
        }
    }

    /// Takes note of what the host is told.
    pub(super) fn order(&mut self, order: &Order, now: Instant) {
        match order {
            Order::Go { stage, without } => {
                self.go = self.go.max(Some(*stage));
                self.without.insert(*stage, without.clone());
            }
            Order::Skip { from, to } => self.skipped.push((*from, *to)),
            Order::Stop => self.stopping = true,
            Order::Lock { wait, .. } => self.asked = Some(*wait),
            Order::Unlock => self.asked = None,
        }
        self.since = now;
    }

    /// Takes an event, as it is to be passed on; `None` for one that is left out, as its kind allows.
    ///
    /// # Errors
    /// The host may not say that now.
    pub(super) fn hear(&mut self, mut event: Event, now: Instant) -> Result<Option<Event>, Failure> {
        let name = event.kind.name();
        if self.ended {
            return Err(violation(format!("`{name}`"), "it had come to its end"));
        }
        if event.host != self.plan.host {
            let other = bounds::short(&event.host);
            return Err(violation(format!("`{name}` in the name of `{other}`"), format!("it is `{}`", self.plan.host)));
        }
        if event.index != self.index {
            let message = format!("number {} comes next", self.index);
            return Err(violation(format!("`{name}` as its event number {}", event.index), message));
        }
        self.index += 1;
        let passes = self.take(&mut event.kind, now)?;
        if !passes {
            return Ok(None);
        }
        self.amounts.time(&mut event, now);
        Ok(Some(event))
    }

    fn take(&mut self, kind: &mut EventKind, now: Instant) -> Result<bool, Failure> {
        let name = kind.name();
        match kind {
            EventKind::Progress { id, message, .. } => {
                // One for a step that has ended, or for none, is left out: it may be told at any time.
                let own = self.running.as_ref().is_some_and(|running| running.step.id == *id);
                bounds::cut_line(message);
                return Ok(own && self.amounts.progress(now));
            }
            EventKind::Warning { message } => {
                bounds::cut_text(message);
                return Ok(self.amounts.warning(message));
            }
            EventKind::StepStarted { step } => self.started(step)?,
            EventKind::StepFinished { step, outcome, output, .. } => {
                self.finished(step, outcome, output)?;
                if let Outcome::Failed(failure, _) | Outcome::Ignored(failure, _) = outcome {
                    bounds::cut_failure(failure);
                }
            }
            EventKind::StageFinished { stage, failed } => self.stage_finished(*stage, failed)?,
            EventKind::HostFinished { tally, stopped } => {
                self.host_finished(*tally, stopped.as_ref())?;
                if let Some(failure) = stopped {
                    bounds::cut_failure(failure);
                }
            }
            EventKind::RunStarted { .. }
            | EventKind::HostConnected { .. }
            | EventKind::StageStarted { .. }
            | EventKind::BatchLeftOut { .. }
            | EventKind::Rollout { .. }
            | EventKind::HostLost { .. }
            | EventKind::RunFinished { .. } => {
                return Err(violation(format!("`{name}`"), "that is the controller's to say"));
            }
        }
        self.since = now;
        Ok(true)
    }

    /// Takes note that a content is asked for.
    ///
    /// # Errors
    /// It is none of the host's plan, or none of its stages is under way, or it was asked for too often.
    pub(super) fn needs(&mut self, digest: Digest) -> Result<(), Failure> {
        let said = format!("that it needs the content {}", digest.short());
        if self.ended || self.current().is_none() {
            return Err(violation(said, "none of its stages is under way"));
        }
        let Some(times) = self.contents.get_mut(&digest) else {
            return Err(violation(said, "its plan names no such content"));
        };
        *times += 1;
        if *times > self.most_asked {
            return Err(violation(said, format!("it was sent {} times already", self.most_asked)));
        }
        Ok(())
    }

    /// Takes the answer to the order to take the host's lock.
    ///
    /// # Errors
    /// The host was not asked.
    pub(super) fn lock(&mut self, mut answer: LockAnswer, now: Instant) -> Result<LockAnswer, Failure> {
        if self.ended || self.asked.take().is_none() {
            return Err(violation("whether it is locked", "it was not asked"));
        }
        let (LockAnswer::Taken { place } | LockAnswer::Held { place, .. }) = &mut answer;
        bounds::cut_line(place);
        if let LockAnswer::Held { by, .. } = &mut answer {
            bounds::cut_line(by);
        }
        self.since = now;
        Ok(answer)
    }

    /// Takes the last word of a helper that cannot go on: why the host is lost.
    ///
    /// # Errors
    /// The host may not say that now.
    pub(super) fn fatal(&self, mut failure: Failure) -> Result<Failure, Failure> {
        match failure.kind {
            FailureKind::Aborted if !self.stopping => Err(violation("that it was stopped", "nobody has stopped it")),
            FailureKind::Aborted | FailureKind::Step | FailureKind::Timeout | FailureKind::Internal => {
                bounds::cut_failure(&mut failure);
                Ok(failure)
            }
            FailureKind::DidNotConverge
            | FailureKind::Unreachable
            | FailureKind::Lost
            | FailureKind::Busy
            | FailureKind::Untrusted => Err(violation("why it is lost", "that is the controller's to say")),
        }
    }

    /// Until when the host must come further, and how it fails otherwise; nothing while it waits for its orders. `sent` is when a piece of
    /// the plan last went out.
    pub(super) fn limit(&self, sent: Instant) -> Option<(Instant, Failure)> {
        let since = self.since.max(sent);
        let (limit, failure) = match &self.running {
            _ if self.ended => return None,
            Some(running) => {
                let failure = Failure::of(
                    FailureKind::Lost,
                    format!("it still answers, but {} does not end", named(&running.step)),
                )
                .because(Failure::timeout("timeout", running.limit).message)
                .because(Failure::timeout("grace", GRACE).message);
                (running.limit.saturating_add(GRACE), failure)
            }
            None if self.asked.is_some() => {
                let wait = self.asked.unwrap_or_default();
                let failure = Failure::of(FailureKind::Lost, "it still answers, but does not say whether it is locked");
                let failure = failure.because(Failure::timeout("lock_wait", wait).message);
                (wait.saturating_add(GRACE), failure.because(Failure::timeout("grace", GRACE).message))
            }
            None if self.current().is_none() && !self.is_through() && !self.stopping => return None,
            None => {
                let what =
                    if self.is_through() { "does not come to its end" } else { "begins no step and ends no stage" };
                let failure = Failure::of(FailureKind::Lost, format!("it still answers, but {what}"));
                (NEXT, failure.because(Failure::timeout("next step", NEXT).message))
            }
        };
        since.checked_add(limit).map(|end| (end, failure))
    }

    fn is_skipped(&self, stage: &Stage) -> bool {
        self.skipped.iter().any(|(from, to)| (*from..=*to).contains(&stage.number))
    }

    /// The stage that is next, and its place; those that do not take place are passed over.
    fn coming(&self) -> Option<(usize, &Stage)> {
        self.plan.stages.iter().enumerate().skip(self.stage).find(|(_, stage)| !self.is_skipped(stage))
    }

    /// The stage that may run now, and its place.
    fn current(&self) -> Option<(usize, &Stage)> {
        self.coming().filter(|(_, stage)| self.go.is_some_and(|go| go >= stage.number))
    }

    /// Whether every stage is finished, or does not take place.
    fn is_through(&self) -> bool {
        self.coming().is_none()
    }

    fn is_failed(&self, target: &Target) -> bool {
        let host = Target { host: self.plan.host.clone(), node: None };
        self.failed.contains(target) || self.failed.contains(&host)
    }

    fn takes_part(&self, stage: &Stage, target: &Target) -> bool {
        let without = self.without.get(&stage.number);
        let left_out = without.is_some_and(|names| names.contains(&target.to_string()));
        !left_out && (stage.rescue || !self.is_failed(target))
    }

    /// The step that comes next; the cursor goes there. Nothing at the end of the stage.
    fn ahead<'p>(&'p self, stage: &'p Stage, cursor: &mut Cursor) -> Option<Ahead<'p>> {
        loop {
            let plan = stage.targets.get(cursor.target)?;
            if !cursor.entered && !self.takes_part(stage, &plan.target) {
                cursor.next_target();
                continue;
            }
            let ahead = |step, handler, must| Some(Ahead { step, target: &plan.target, handler, must });
            if let Some(step) = plan.steps.get(cursor.step).filter(|_| !cursor.broken) {
                return ahead(step, false, true);
            }
            let Some(handler) = plan.handlers.get(cursor.handler) else {
                cursor.next_target();
                continue;
            };
            if handler.left_out {
                cursor.handler += 1;
                continue;
            }
            // Also one that nobody notified now: an earlier run may have left it.
            let must = cursor.inside.is_some() || cursor.notified.contains(&handler.name);
            match handler.steps.get(cursor.inside.unwrap_or(0)) {
                Some(step) => return ahead(step, true, must),
                None => cursor.handler += 1,
            }
        }
    }

    /// Where the step that the host speaks of stands, and what the plan says of it.
    fn seek(&self, said: &StepRef, name: &str) -> Result<(usize, Cursor, Running), Failure> {
        let refused = |why: String| violation(format!("`{name}` of {}", named(said)), why);
        let Some((place, stage)) = self.current() else {
            return Err(refused("none of its stages is under way".to_owned()));
        };
        let mut cursor = if place == self.stage { self.cursor.clone() } else { Cursor::default() };
        while let Some(ahead) = self.ahead(stage, &mut cursor) {
            let Ahead { step, target, handler, must } = ahead;
            if step.id == said.id {
                same(said, step, target, &stage.title, handler).map_err(refused)?;
                let limit = step.limit.unwrap_or(self.plan.options.step_limit);
                cursor.entered = true;
                return Ok((place, cursor, Running { step: said.clone(), limit }));
            }
            if must && self.stopping {
                // It begins nothing more there; the nodes beside it come to the end of what they had begun.
                cursor.next_target();
                continue;
            }
            if must {
                return Err(refused(format!("`{}` at {} comes first", step.kind, step.at)));
            }
            cursor.handler += 1;
        }
        Err(refused("its plan has no such step, or not now".to_owned()))
    }

    fn started(&mut self, said: &StepRef) -> Result<(), Failure> {
        if let Some(running) = &self.running {
            let message = format!("{} has not ended", named(&running.step));
            return Err(violation(format!("`step_started` of {}", named(said)), message));
        }
        let (place, cursor, running) = self.seek(said, "step_started")?;
        self.go_to(place, cursor);
        self.running = Some(running);
        Ok(())
    }

    fn go_to(&mut self, place: usize, cursor: Cursor) {
        (self.stage, self.cursor, self.begun) = (place, cursor, true);
    }

    fn finished(&mut self, said: &StepRef, outcome: &Outcome, output: &Map) -> Result<(), Failure> {
        let refused = |why: &str| violation(format!("`step_finished` of {}", named(said)), why);
        let started = match self.running.take() {
            Some(running) if running.step == *said => true,
            Some(running) => return Err(refused(&format!("{} is the one that runs", named(&running.step)))),
            None => {
                let (place, cursor, _) = self.seek(said, "step_finished")?;
                self.go_to(place, cursor);
                false
            }
        };
        let Some(plan) = self.current().and_then(|(_, stage)| stage.targets.get(self.cursor.target)) else {
            return Err(refused("none of its stages is under way"));
        };
        let handler = plan.handlers.get(self.cursor.handler).filter(|_| said.handler);
        let step = match handler {
            Some(handler) => handler.steps.get(self.cursor.inside.unwrap_or(0)),
            None => plan.steps.get(self.cursor.step),
        };
        let Some(step) = step else { return Err(refused("its plan has no such step")) };
        may_end(step, outcome, started, self.plan.options.check).map_err(refused)?;
        if step.kind == SETTLE && !served_of(output).all(|node| has_log(step, node)) {
            return Err(refused("it tells what nodes have served that it was not asked about"));
        }
        let mut cursor = self.cursor.clone();
        let failed = advance(&mut cursor, plan, step, handler.is_some(), outcome);
        let first = failed && !cursor.failed;
        if first {
            cursor.failed = true;
            cursor.all_failed.push(plan.target.clone());
        }
        let failed = first.then(|| plan.target.clone());
        self.failed.extend(failed);
        self.cursor = cursor;
        self.tally.count(outcome);
        Ok(())
    }

    fn stage_finished(&mut self, number: u32, failed: &[Target]) -> Result<(), Failure> {
        let refused = |why: String| violation(format!("`stage_finished` of stage {number}"), why);
        if let Some(running) = &self.running {
            return Err(refused(format!("{} has not ended", named(&running.step))));
        }
        let Some((place, stage)) = self.current() else {
            return Err(refused("none of its stages is under way".to_owned()));
        };
        if stage.number != number {
            return Err(refused(format!("stage {} is under way", stage.number)));
        }
        let mut cursor = if place == self.stage { self.cursor.clone() } else { Cursor::default() };
        let told = cursor.all_failed.clone();
        while let Some(ahead) = self.ahead(stage, &mut cursor).filter(|_| !self.stopping) {
            if ahead.must {
                let Ahead { step, target, .. } = ahead;
                return Err(refused(format!("`{}` at {} was not done for {target}", step.kind, step.at)));
            }
            cursor.handler += 1;
        }
        if *failed != told {
            return Err(refused("other targets failed in it than it says".to_owned()));
        }
        self.go_to(place + 1, Cursor::default());
        Ok(())
    }

    fn host_finished(&mut self, tally: Tally, stopped: Option<&Failure>) -> Result<(), Failure> {
        let refused = |why: String| violation("`host_finished`", why);
        if let Some(running) = &self.running {
            return Err(refused(format!("{} has not ended", named(&running.step))));
        }
        let between = self.cursor.target == 0 && !self.cursor.entered;
        match stopped {
            None if !self.is_through() => {
                let left = self.coming().map_or_else(String::new, |(_, stage)| bounds::short(&stage.title));
                return Err(refused(format!("it has not done its part of \"{left}\"")));
            }
            None => {}
            Some(_) if !between => return Err(refused("its stage has not ended".to_owned())),
            Some(failure) if failure.kind == FailureKind::Aborted && self.stopping => {}
            Some(failure) if failure.kind == FailureKind::Aborted => {
                return Err(refused("nobody has stopped it".to_owned()));
            }
            Some(failure) => {
                let facts = self.plan.facts && !self.begun;
                let own = matches!(failure.kind, FailureKind::Step | FailureKind::Timeout | FailureKind::Internal);
                if !facts || !own {
                    return Err(refused("it has no reason to stop".to_owned()));
                }
            }
        }
        if tally != self.tally {
            return Err(refused("it counts other outcomes than it has told".to_owned()));
        }
        self.ended = true;
        Ok(())
    }
}
