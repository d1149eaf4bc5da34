//! One target on its way through a stage: its steps in order, then the handlers that were notified.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::watch;

use super::beside::Queue;
use super::open::{Judging, Open, given_up, judge};
use super::pending::Pending;
use super::run::{Runner, Stop};
use super::step::{Before, Done, Prepared, applies, carry_out, hands, prepare};
use crate::event::{EventKind, Outcome, StepRef};
use crate::plan::{Handler, Step, TargetPlan};
use crate::system::{Actuator, Probe};
use crate::value::{Map, Value};

/// A target and what its next steps need to know.
pub(super) struct Course<'a> {
    runner: &'a Runner,
    queue: &'a Arc<Queue>,
    /// Its place among those of the stage.
    place: usize,
    plan: &'a TargetPlan,
    play: &'a str,
    known: Map,
    unapplied_results: BTreeSet<String>,
    /// Notified handlers in the order of notification.
    notified: Vec<String>,
    pending: Pending,
    /// What the next steps decide about.
    open: Option<Open>,
    /// Whether that is counted among the changes of the host that are open.
    counted: Counted,
}

impl<'a> Course<'a> {
    pub(super) fn new(
        runner: &'a Runner,
        queue: &'a Arc<Queue>,
        place: usize,
        plan: &'a TargetPlan,
        play: &'a str,
    ) -> Self {
        let pending = Pending::of(&runner.probe, &runner.playbook, play, &plan.target);
        runner.state().notes.insert(pending.path().to_owned());
        Self {
            runner,
            queue,
            place,
            plan,
            play,
            known: runner.facts.clone(),
            unapplied_results: BTreeSet::new(),
            notified: Vec::new(),
            pending,
            open: None,
            counted: Counted::default(),
        }
    }

    /// Everything of the target in the stage. False when something failed that counts.
    pub(super) async fn run(mut self) -> bool {
        let (plan, play) = (self.plan, self.play);
        self.notified = self.pending.read(&self.runner.probe).unwrap_or_else(|failure| {
            let node = self.of_node();
            self.warn(format!(
                "{node}every handler of play \"{play}\" runs, as its note of those that are due is lost: {failure}"
            ));
            plan.handlers.iter().map(|handler| handler.name.clone()).collect()
        });
        let mut whole = true;
        for step in &plan.steps {
            // What was begun comes to its end: a new container that is not plugged in yet is a site that is down.
            if self.open.is_none() && self.runner.wants_to_stop() {
                break;
            }
            match self.step(step, false).await {
                Some(true) => {}
                Some(false) => {
                    whole = false;
                    break;
                }
                None => break,
            }
        }
        // Also after a failure: what was changed before it must still take effect.
        whole &= self.handlers(&plan.handlers).await;
        self.still_due(&plan.handlers);
        if !whole {
            self.runner.state().failed.insert(plan.target.clone());
        }
        self.queue.through(self.place);
        whole
    }

    fn say(&self, kind: EventKind) {
        self.queue.say(self.place, kind);
    }

    fn warn(&self, message: String) {
        self.say(EventKind::Warning { message });
    }

    /// What a warning begins with that is about a node: the host stands before it anyway.
    fn of_node(&self) -> String {
        self.plan.target.node.as_ref().map_or_else(String::new, |node| format!("{node}: "))
    }

    /// The handlers that were notified. False when one of them failed.
    async fn handlers(&mut self, handlers: &[Handler]) -> bool {
        let mut all = true;
        for handler in handlers {
            if !self.notified.contains(&handler.name) || handler.left_out || self.runner.wants_to_stop() {
                continue;
            }
            let mut whole = true;
            for step in &handler.steps {
                if self.runner.wants_to_stop() || self.step(step, true).await != Some(true) {
                    whole = false;
                    break;
                }
            }
            if !whole {
                all &= self.runner.has_stopped();
                continue;
            }
            self.notified.retain(|name| *name != handler.name);
            self.note();
        }
        all
    }

    /// Says which handlers were notified and have not run, and what becomes of them.
    fn still_due(&self, handlers: &[Handler]) {
        let (node, play, path) = (self.of_node(), self.play, self.pending.path().display());
        for name in &self.notified {
            let message = match handlers.iter().find(|handler| handler.name == *name) {
                None => format!(
                    "{node}the handler `{name}` is still due, and play \"{play}\" has none of that name any more: \
                     name it so again, or remove {path} to forget it"
                ),
                // Nothing was applied, so nothing was noted.
                Some(_) if !applies(self.runner.options) => continue,
                Some(handler) if handler.left_out => {
                    format!("{node}the handler `{name}` is still due: --skip-tags leaves out tasks of it")
                }
                Some(_) => format!(
                    "{node}the handler `{name}` is still due: it runs at the end of play \"{play}\" in the next run"
                ),
            };
            self.warn(message);
        }
    }

    /// Writes down what is still pending.
    fn note(&self) {
        let Some(hands) = hands(self.runner.options, &self.runner.probe) else { return };
        if let Err(failure) = self.pending.write(&hands, &self.notified) {
            self.warn(format!("pending handlers cannot be written down: {failure}"));
        }
    }

    fn reference(&self, step: &Step, title: String, handler: bool) -> StepRef {
        StepRef {
            id: step.id,
            target: self.plan.target.clone(),
            play: self.play.to_owned(),
            kind: step.kind.clone(),
            title,
            at: step.at.clone(),
            handler,
        }
    }

    /// A probe whose progress is told under a step's number, and that has the step's own warnings.
    fn probe(&self, id: u32) -> Probe {
        let (queue, place) = (Arc::clone(self.queue), self.place);
        let progress = move |message: &str, amount: Option<(u64, u64)>| {
            queue.say(place, EventKind::Progress { id, message: message.to_owned(), amount });
        };
        self.runner.probe.heard_by(Arc::new(progress))
    }

    /// One step: whether it went well, or failed in a way that does not count. Nothing when it was not begun, as the run stops.
    async fn step(&mut self, step: &Step, handler: bool) -> Option<bool> {
        let (runner, queue, place) = (self.runner, self.queue, self.place);
        let mut started = Instant::now();
        let probe = self.probe(step.id);
        let earlier = runner.unapplied_before(&self.plan.target);
        let things = Arc::clone(&runner.state().unapplied_things);
        let before = Before {
            known: &self.known,
            unapplied_results: &self.unapplied_results,
            unapplied: earlier.as_deref(),
            unapplied_things: &things,
        };
        let wanted: Vec<String> = step.notify.iter().filter(|name| !self.notified.contains(name)).cloned().collect();
        let (reference, ready, done) = match prepare(step, &before, &runner.blobs) {
            Prepared::Ended(outcome, title) => (self.reference(step, title, handler), None, outcome.into()),
            Prepared::Ready(ready) => {
                let reference = self.reference(step, ready.title.clone(), handler);
                let notes: Vec<String> = self.notified.iter().chain(&wanted).cloned().collect();
                let pending = &self.pending;
                let announce = |hands: &Actuator| if wanted.is_empty() { Ok(()) } else { pending.write(hands, &notes) };
                let begun = self.open.is_some();
                let work = Box::pin(async {
                    let _admitted = queue.admit(place, ready.share()).await;
                    if !begun && runner.wants_to_stop() {
                        return None;
                    }
                    started = Instant::now();
                    queue.say(place, EventKind::StepStarted { step: reference.clone() });
                    probe.container_mounts().add(ready.writable_sources());
                    probe.declared_links().add(ready.link());
                    Some(carry_out(&ready, step, runner.options, &before, &probe, &announce).await)
                });
                if ready.is_exchange() && !step.in_rollout && applies(runner.options) {
                    self.counted.begin(&runner.open);
                }
                let done = if begun { until_given_up(work, &runner.stop).await } else { work.await };
                let Some(done) = done else {
                    self.counted.end(&runner.open);
                    return None;
                };
                (reference, Some(ready), done)
            }
        };
        let Done { outcome, output } = done;
        let given_up = *runner.stop.borrow() == Stop::Now;
        let judging = Judging { options: runner.options, probe: &probe, queue, place, cut: given_up };
        let outcome = judge(&mut self.open, step, ready, outcome, &judging).await;
        let outcome = match outcome {
            Outcome::Failed(failure, change) if step.ignore_failure => Outcome::Ignored(failure, change),
            outcome => outcome,
        };
        for message in probe.warnings() {
            self.warn(format!("{}: {message}", self.plan.target));
        }
        let goes_on = self.take_in(step, &reference, &outcome, &output, wanted);
        let took_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.say(EventKind::StepFinished { step: reference, outcome, output, took_ms });
        if self.open.as_ref().is_none_or(|open| open.in_rollout) {
            self.counted.end(&runner.open);
        }
        Some(goes_on)
    }

    /// Takes note of what became of a step, for those behind it. False when it failed and that counts.
    fn take_in(
        &mut self,
        step: &Step,
        reference: &StepRef,
        outcome: &Outcome,
        output: &Map,
        wanted: Vec<String>,
    ) -> bool {
        let (changed, failed, skipped, applied) = match outcome {
            Outcome::Changed(_) | Outcome::Ran => (true, false, false, true),
            Outcome::WouldChange(_) | Outcome::WouldRun => (true, false, false, false),
            Outcome::Ok => (false, false, false, true),
            Outcome::Skipped(_) => (false, false, true, true),
            Outcome::Unknown(_) => (false, false, false, false),
            Outcome::Failed(..) | Outcome::Ignored(..) => (false, true, false, true),
        };
        let mut state = self.runner.state();
        state.tally.count(outcome);
        if !applied {
            let words = format!("`{} {}`", step.kind, reference.title);
            state.unapplied.entry(self.plan.target.clone()).or_insert(words);
            Arc::make_mut(&mut state.unapplied_things).insert((step.kind.clone(), reference.title.clone()));
        }
        drop(state);
        if let Some(name) = &step.register {
            let mut result = output.clone();
            for (field, flag) in [("changed", changed), ("failed", failed), ("skipped", skipped)] {
                result.insert(field.to_owned(), Value::Bool(flag));
            }
            self.known.insert(name.clone(), Value::Map(result));
            // What check mode did not apply has a result that nobody can know, but that it would change is known.
            if applied {
                self.unapplied_results.remove(name)
            } else {
                self.unapplied_results.insert(name.clone())
            };
        }
        // A failure while applying may have changed something: what it notifies must follow then, too.
        if changed || matches!(outcome, Outcome::Failed(_, Some(_)) | Outcome::Ignored(_, Some(_))) {
            self.notified.extend(wanted);
        }
        !matches!(outcome, Outcome::Failed(..))
    }
}

/// Whether what a target has open is counted among what its host has.
#[derive(Default)]
struct Counted(bool);

impl Counted {
    fn begin(&mut self, all: &watch::Sender<usize>) {
        if !std::mem::replace(&mut self.0, true) {
            all.send_modify(|count| *count += 1);
        }
    }

    fn end(&mut self, all: &watch::Sender<usize>) {
        if std::mem::take(&mut self.0) {
            all.send_modify(|count| *count = count.saturating_sub(1));
        }
    }
}

/// The work of a step, unless its run is to stop at once.
async fn until_given_up(work: impl Future<Output = Option<Done>>, stop: &watch::Receiver<Stop>) -> Option<Done> {
    let mut stop = stop.clone();
    tokio::select! {
        done = work => done,
        Ok(_) = stop.wait_for(|stop| *stop == Stop::Now) => Some(Outcome::Failed(given_up(), None).into()),
    }
}
