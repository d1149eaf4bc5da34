//! A host's plan from the first stage to the last.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::{mpsc, watch};

use super::blobs::Blobs;
use super::container_mounts;
use super::open::{Open, given_up, judge};
use super::pending::{self, Pending};
use super::step::{Before, Done, Prepared, applies, carry_out, hands, prepare};
use crate::event::{EventKind, Outcome, StepRef, Tally, Target};
use crate::failure::{Failure, FailureKind};
use crate::plan::{Handler, HostPlan, RunOptions, Stage, Step, TargetPlan};
use crate::system::background::Background;
use crate::system::{Actuator, BlobSource, Probe};
use crate::value::{Map, Value};

/// What the engine is given of its surroundings.
pub struct World {
    /// Where contents come from that the plan did not bring.
    pub blobs: Arc<dyn BlobSource>,
    /// fanli's own folder on this host.
    pub state_dir: PathBuf,
    /// What happens, as it happens.
    pub events: mpsc::UnboundedSender<EventKind>,
    /// Words of the controller; when the channel closes, the controller is gone.
    pub orders: mpsc::UnboundedReceiver<Orders>,
    /// How urgently the run is to stop.
    pub stop: watch::Receiver<Stop>,
    /// Becomes true while a change is neither confirmed nor put back.
    pub open: watch::Sender<bool>,
}

/// How urgently a run is to stop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stop {
    /// Not at all.
    #[default]
    No,
    /// The running step comes to its end, and so does a change that it belongs to: a container is plugged in and judged. No other starts.
    InOrder,
    /// At once; on a host, a change that is neither confirmed nor put back is put back first.
    Now,
}

/// A word of the controller about stages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Orders {
    /// Stages up to and with this number may run; in that one, without these targets: hosts and nodes by name.
    Go(u32, Vec<String>),
    /// The stages of this range do not take place.
    Skip(u32, u32),
}

/// Runs a plan to its end. The last event is [`EventKind::HostFinished`], unless the controller goes away.
pub async fn run(plan: HostPlan, world: World) {
    let HostPlan { run: _, playbook, host, stages, blobs, facts, options } = plan;
    let World { blobs: controller, state_dir, events, mut orders, stop, open } = world;
    let blobs = Arc::new(Blobs::new(blobs, controller));
    let blobs_source: Arc<dyn BlobSource> = Arc::clone(&blobs) as Arc<dyn BlobSource>;
    let background = Background::default();
    let mut runner = Runner {
        playbook,
        host,
        options,
        probe: Probe::new(blobs_source, Arc::new(|_: &str, _| {}), state_dir).with_background(&background),
        blobs,
        events,
        stop,
        open,
        facts: Map::new(),
        failed: BTreeSet::new(),
        unapplied: BTreeMap::new(),
        unapplied_things: BTreeSet::new(),
        tally: Tally::default(),
        stopped: None,
        notes: BTreeSet::new(),
        background,
    };
    if facts {
        match runner.probe(0).facts().await {
            Ok(found) => {
                runner.facts.insert("facts".to_owned(), Value::Map(found));
            }
            Err(failure) => runner.stopped = Some(failure),
        }
    }
    runner.probe.container_mounts().add(container_mounts::declared(&stages));
    runner.probe.declared_links().add(container_mounts::links(&stages));
    let mut gate = Gate::default();
    for stage in stages {
        if runner.stopped.is_some() {
            break;
        }
        match gate.wait(stage.number, &mut orders, &mut runner.stop).await {
            Word::Go => {
                let without = gate.without.remove(&stage.number).unwrap_or_default();
                runner.stage(stage, &without).await;
            }
            Word::Skip => {}
            Word::Stopped => {
                runner.stopped = Some(aborted());
                break;
            }
        }
    }
    runner.due_elsewhere();
    // The controller ends the helper at the last word.
    runner.background.end().await;
    runner.say(EventKind::HostFinished { tally: runner.tally, stopped: runner.stopped.clone() });
}

/// What a warning begins with that is about a node: the host stands before it anyway.
fn of_node(target: &Target) -> String {
    target.node.as_ref().map_or_else(String::new, |node| format!("{node}: "))
}

/// The work of a step, unless its run is to stop at once.
async fn until_given_up(work: impl Future<Output = Done>, stop: &watch::Receiver<Stop>) -> Done {
    let mut stop = stop.clone();
    tokio::select! {
        done = work => done,
        Ok(_) = stop.wait_for(|stop| *stop == Stop::Now) => Outcome::Failed(given_up(), None).into(),
    }
}

fn aborted() -> Failure {
    Failure::of(FailureKind::Aborted, "stopped by request: no further step was started")
}

/// Which stages may run.
#[derive(Default)]
struct Gate {
    go: Option<u32>,
    skipped: Vec<(u32, u32)>,
    /// Targets that a stage leaves out.
    without: BTreeMap<u32, Vec<String>>,
}

enum Word {
    Go,
    Skip,
    Stopped,
}

impl Gate {
    async fn wait(
        &mut self,
        stage: u32,
        orders: &mut mpsc::UnboundedReceiver<Orders>,
        stop: &mut watch::Receiver<Stop>,
    ) -> Word {
        loop {
            if *stop.borrow() > Stop::No {
                return Word::Stopped;
            }
            if self.skipped.iter().any(|(from, to)| (*from..=*to).contains(&stage)) {
                return Word::Skip;
            }
            if self.go.is_some_and(|go| go >= stage) {
                return Word::Go;
            }
            tokio::select! {
                order = orders.recv() => match order {
                    Some(Orders::Go(number, without)) => {
                        self.go = self.go.max(Some(number));
                        self.without.insert(number, without);
                    }
                    Some(Orders::Skip(from, to)) => self.skipped.push((from, to)),
                    None => return Word::Stopped,
                },
                changed = stop.changed() => if changed.is_err() { return Word::Stopped },
            }
        }
    }
}

struct Runner {
    /// The playbook's file name.
    playbook: String,
    host: String,
    options: RunOptions,
    blobs: Arc<Blobs>,
    /// What the probes of all steps come from: they share what they know of the host.
    probe: Probe,
    events: mpsc::UnboundedSender<EventKind>,
    stop: watch::Receiver<Stop>,
    /// Whether a change is neither confirmed nor put back.
    open: watch::Sender<bool>,
    facts: Map,
    /// Targets that failed; a failed host stops its nodes too.
    failed: BTreeSet<Target>,
    /// Check mode: for each target the first step that was not applied, in words.
    unapplied: BTreeMap<Target, String>,
    /// The same for every step, by kind and title.
    unapplied_things: BTreeSet<(String, String)>,
    tally: Tally,
    stopped: Option<Failure>,
    /// The notes of due handlers that plays of this run have read.
    notes: BTreeSet<PathBuf>,
    background: Background,
}

/// One target on its way through a stage.
struct Course<'a> {
    target: &'a Target,
    play: &'a str,
    known: Map,
    unapplied_results: BTreeSet<String>,
    /// Notified handlers in the order of notification.
    notified: Vec<String>,
    pending: Pending,
    /// What the next steps decide about.
    open: Option<Open>,
}

impl Runner {
    fn say(&self, kind: EventKind) {
        // When nobody listens any more the run is over anyway; the helper sees that by itself.
        let _ = self.events.send(kind);
    }

    /// What was not applied before this target's step: by itself, by its host, and for a host also by its nodes.
    fn unapplied_before(&self, target: &Target) -> Option<&String> {
        let of_host = || match target.node {
            Some(_) => self.unapplied.get(&self.host_target()),
            None => self.unapplied.values().next(),
        };
        self.unapplied.get(target).or_else(of_host)
    }

    /// A probe whose progress is told under a step's number.
    fn probe(&self, id: u32) -> Probe {
        let events = self.events.clone();
        let progress = move |message: &str, amount: Option<(u64, u64)>| {
            let _ = events.send(EventKind::Progress { id, message: message.to_owned(), amount });
        };
        self.probe.heard_by(Arc::new(progress))
    }

    fn host_target(&self) -> Target {
        Target { host: self.host.clone(), node: None }
    }

    fn is_failed(&self, target: &Target) -> bool {
        self.failed.contains(target) || self.failed.contains(&self.host_target())
    }

    async fn stage(&mut self, stage: Stage, without: &[String]) {
        let mut failed = Vec::new();
        if let Err(failure) = container_mounts::learn(&self.probe).await {
            let what = "links are judged without Docker's word on what its containers mount writable";
            self.say(EventKind::Warning { message: format!("{what}: {failure}") });
        }
        for plan in &stage.targets {
            if self.stopped.is_some() {
                break;
            }
            let left_out = without.contains(&plan.target.to_string());
            if left_out || self.is_failed(&plan.target) && !stage.rescue {
                continue;
            }
            if !self.target(plan, &stage.title).await {
                failed.push(plan.target.clone());
            }
        }
        self.say(EventKind::StageFinished { stage: stage.number, failed });
    }

    /// Everything of one target in a stage. False when something failed that counts.
    async fn target(&mut self, plan: &TargetPlan, play: &str) -> bool {
        let probe = self.probe(0);
        let pending = Pending::of(&probe, &self.playbook, play, &plan.target);
        self.notes.insert(pending.path().to_owned());
        let notified = pending.read(&probe).unwrap_or_else(|failure| {
            let message = format!(
                "{}every handler of play \"{play}\" runs, as its note of those that are due is lost: {failure}",
                of_node(&plan.target)
            );
            self.say(EventKind::Warning { message });
            plan.handlers.iter().map(|handler| handler.name.clone()).collect()
        });
        let mut course = Course {
            target: &plan.target,
            play,
            known: self.facts.clone(),
            unapplied_results: BTreeSet::new(),
            notified,
            pending,
            open: None,
        };
        let mut whole = true;
        for step in &plan.steps {
            // What was begun comes to its end: a new container that is not plugged in yet is a site that is down.
            if course.open.is_none() && self.wants_to_stop() {
                break;
            }
            if !self.step(step, &mut course, false).await {
                whole = false;
                break;
            }
        }
        // Also after a failure: what was changed before it must still take effect.
        whole &= self.handlers(&plan.handlers, &mut course).await;
        self.still_due(&plan.handlers, &course);
        if !whole {
            self.failed.insert(plan.target.clone());
        }
        whole
    }

    fn wants_to_stop(&mut self) -> bool {
        if *self.stop.borrow() > Stop::No && self.stopped.is_none() {
            self.stopped = Some(aborted());
        }
        self.stopped.is_some()
    }

    /// The handlers that were notified. False when one of them failed.
    async fn handlers(&mut self, handlers: &[Handler], course: &mut Course<'_>) -> bool {
        let mut all = true;
        for handler in handlers {
            if !course.notified.contains(&handler.name) || handler.left_out || self.wants_to_stop() {
                continue;
            }
            let mut whole = true;
            for step in &handler.steps {
                if self.wants_to_stop() || !self.step(step, course, true).await {
                    whole = false;
                    break;
                }
            }
            if !whole {
                all &= self.stopped.is_some();
                continue;
            }
            course.notified.retain(|name| *name != handler.name);
            self.note(course);
        }
        all
    }

    /// Says which handlers of a target were notified and have not run, and what becomes of them.
    fn still_due(&self, handlers: &[Handler], course: &Course<'_>) {
        let (node, play, path) = (of_node(course.target), course.play, course.pending.path().display());
        for name in &course.notified {
            let message = match handlers.iter().find(|handler| handler.name == *name) {
                None => format!(
                    "{node}the handler `{name}` is still due, and play \"{play}\" has none of that name any more: \
                     name it so again, or remove {path} to forget it"
                ),
                // Nothing was applied, so nothing was noted.
                Some(_) if hands(self.options, &self.probe(0)).is_none() => continue,
                Some(handler) if handler.left_out => {
                    format!("{node}the handler `{name}` is still due: --skip-tags leaves out tasks of it")
                }
                Some(_) => format!(
                    "{node}the handler `{name}` is still due: it runs at the end of play \"{play}\" in the next run"
                ),
            };
            self.say(EventKind::Warning { message });
        }
    }

    /// Says which handlers are due in plays that this run has not done: left out, renamed, or of another playbook.
    fn due_elsewhere(&self) {
        let probe = self.probe(0);
        let notes = pending::all(&probe).unwrap_or_else(|failure| {
            self.say(EventKind::Warning { message: format!("the notes of due handlers cannot be read: {failure}") });
            Vec::new()
        });
        for (path, note) in notes.into_iter().filter(|(path, _)| !self.notes.contains(path)) {
            let path = path.display();
            let message = match note {
                Ok(note) => {
                    let names: Vec<String> = note.handlers.iter().map(|name| format!("`{name}`")).collect();
                    let node = note.node.map_or_else(String::new, |node| format!(" on {node}"));
                    format!(
                        "still due from an earlier run: {} of play \"{}\" in {}{node}, which did not take place now; \
                         where there is no such play any more, remove {path} to forget it",
                        names.join(", "),
                        note.play,
                        note.playbook
                    )
                }
                Err(failure) => format!("a note of due handlers cannot be read: {failure}; remove it to forget them"),
            };
            self.say(EventKind::Warning { message });
        }
    }

    /// Writes down what is still pending.
    fn note(&self, course: &Course) {
        let Some(hands) = hands(self.options, &self.probe(0)) else { return };
        if let Err(failure) = course.pending.write(&hands, &course.notified) {
            self.say(EventKind::Warning { message: format!("pending handlers cannot be written down: {failure}") });
        }
    }

    /// One step. False when it failed and that counts.
    async fn step(&mut self, step: &Step, course: &mut Course<'_>, handler: bool) -> bool {
        let started = Instant::now();
        let earlier = self.unapplied_before(course.target).cloned();
        let before = Before {
            known: &course.known,
            unapplied_results: &course.unapplied_results,
            unapplied: earlier.as_deref(),
            unapplied_things: &self.unapplied_things,
        };
        let reference = |title: String| StepRef {
            id: step.id,
            target: course.target.clone(),
            play: course.play.to_owned(),
            kind: step.kind.clone(),
            title,
            at: step.at.clone(),
            handler,
        };
        let wanted: Vec<String> = step.notify.iter().filter(|name| !course.notified.contains(name)).cloned().collect();
        let (reference, ready, done) = match prepare(step, &before, &self.blobs) {
            Prepared::Ended(outcome, title) => (reference(title), None, outcome.into()),
            Prepared::Ready(ready) => {
                let reference = reference(ready.title.clone());
                self.say(EventKind::StepStarted { step: reference.clone() });
                let notes: Vec<String> = course.notified.iter().chain(&wanted).cloned().collect();
                let announce = |hands: &Actuator| {
                    if wanted.is_empty() { Ok(()) } else { course.pending.write(hands, &notes) }
                };
                let probe = self.probe(step.id);
                probe.container_mounts().add(ready.writable_sources());
                probe.declared_links().add(ready.link());
                if ready.is_exchange() && !step.in_rollout {
                    self.open.send_replace(applies(self.options));
                }
                let work = Box::pin(carry_out(&ready, step, self.options, &before, &probe, &announce));
                let done = if course.open.is_some() { until_given_up(work, &self.stop).await } else { work.await };
                (reference, Some(ready), done)
            }
        };
        let Done { outcome, output } = done;
        let given_up = *self.stop.borrow() == Stop::Now;
        let outcome = judge(&mut course.open, step, ready, outcome, self.options, &self.probe(step.id), given_up).await;
        let outcome = match outcome {
            Outcome::Failed(failure, change) if step.ignore_failure => Outcome::Ignored(failure, change),
            outcome => outcome,
        };
        for message in self.probe.warnings() {
            self.say(EventKind::Warning { message: format!("{}: {message}", course.target) });
        }
        self.tally.count(&outcome);
        let took_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let (changed, failed, skipped, applied) = match &outcome {
            Outcome::Changed(_) | Outcome::Ran => (true, false, false, true),
            Outcome::WouldChange(_) | Outcome::WouldRun => (true, false, false, false),
            Outcome::Ok => (false, false, false, true),
            Outcome::Skipped(_) => (false, false, true, true),
            Outcome::Unknown(_) => (false, false, false, false),
            Outcome::Failed(..) | Outcome::Ignored(..) => (false, true, false, true),
        };
        if !applied {
            let words = format!("`{} {}`", step.kind, reference.title);
            self.unapplied.entry(course.target.clone()).or_insert(words);
            self.unapplied_things.insert((step.kind.clone(), reference.title.clone()));
        }
        if let Some(name) = &step.register {
            let mut result = output.clone();
            for (field, flag) in [("changed", changed), ("failed", failed), ("skipped", skipped)] {
                result.insert(field.to_owned(), Value::Bool(flag));
            }
            course.known.insert(name.clone(), Value::Map(result));
            // What check mode did not apply has a result that nobody can know, but that it would change is known.
            if applied {
                course.unapplied_results.remove(name)
            } else {
                course.unapplied_results.insert(name.clone())
            };
        }
        // A failure while applying may have changed something: what it notifies must follow then, too.
        let touched = changed || matches!(&outcome, Outcome::Failed(_, Some(_)) | Outcome::Ignored(_, Some(_)));
        let stops = matches!(&outcome, Outcome::Failed(..));
        if touched {
            course.notified.extend(wanted);
        }
        self.say(EventKind::StepFinished { step: reference, outcome, output, took_ms });
        self.open.send_replace(course.open.as_ref().is_some_and(|open| !open.in_rollout));
        !stops
    }
}
