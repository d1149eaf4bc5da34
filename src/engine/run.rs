//! A host's plan from the first stage to the last.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesOrdered;
use tokio::sync::{mpsc, watch};

use super::beside::Queue;
use super::blobs::Blobs;
use super::container_mounts;
use super::pending;
use super::step::most_side_by_side;
use super::target::Course;
use crate::event::{EventKind, Tally, Target};
use crate::failure::{Failure, FailureKind};
use crate::plan::{HostPlan, RunOptions, Stage};
use crate::system::background::Background;
use crate::system::{BlobSource, Probe};
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
    /// How many changes are neither confirmed nor put back.
    pub open: watch::Sender<usize>,
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
    let World { blobs: controller, state_dir, events, mut orders, mut stop, open } = world;
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
        stop: stop.clone(),
        open,
        facts: Map::new(),
        state: Mutex::default(),
    };
    if facts {
        match runner.probe.facts().await {
            Ok(found) => {
                runner.facts.insert("facts".to_owned(), Value::Map(found));
            }
            Err(failure) => runner.state().stopped = Some(failure),
        }
    }
    runner.probe.container_mounts().add(container_mounts::declared(&stages));
    runner.probe.declared_links().add(container_mounts::links(&stages));
    let mut gate = Gate::default();
    for stage in stages {
        if runner.has_stopped() {
            break;
        }
        match gate.wait(stage.number, &mut orders, &mut stop).await {
            Word::Go => {
                let without = gate.without.remove(&stage.number).unwrap_or_default();
                runner.stage(stage, &without).await;
            }
            Word::Skip => {}
            Word::Stopped => {
                runner.state().stopped = Some(aborted());
                break;
            }
        }
    }
    runner.due_elsewhere();
    // The controller ends the helper at the last word.
    background.end().await;
    let (tally, stopped) = {
        let state = runner.state();
        (state.tally, state.stopped.clone())
    };
    runner.say(EventKind::HostFinished { tally, stopped });
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

/// What all targets of a host share.
pub(super) struct Runner {
    /// The playbook's file name.
    pub(super) playbook: String,
    host: String,
    pub(super) options: RunOptions,
    pub(super) blobs: Arc<Blobs>,
    /// What the probes of all steps come from: they share what they know of the host.
    pub(super) probe: Probe,
    events: mpsc::UnboundedSender<EventKind>,
    pub(super) stop: watch::Receiver<Stop>,
    /// How many changes are neither confirmed nor put back.
    pub(super) open: watch::Sender<usize>,
    pub(super) facts: Map,
    state: Mutex<State>,
}

/// What becomes of a host.
#[derive(Default)]
pub(super) struct State {
    /// Targets that failed; a failed host stops its nodes too.
    pub(super) failed: BTreeSet<Target>,
    /// Check mode: for each target the first step that was not applied, in words.
    pub(super) unapplied: BTreeMap<Target, String>,
    /// The same for every step, by kind and title.
    pub(super) unapplied_things: Arc<BTreeSet<(String, String)>>,
    pub(super) tally: Tally,
    stopped: Option<Failure>,
    /// The notes of due handlers that plays of this run have read.
    pub(super) notes: BTreeSet<PathBuf>,
}

impl Runner {
    fn say(&self, kind: EventKind) {
        // When nobody listens any more the run is over anyway; the helper sees that by itself.
        let _ = self.events.send(kind);
    }

    /// Never held while anything is awaited.
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was not applied before this target's step: by itself, by its host, and for a host also by its nodes.
    pub(super) fn unapplied_before(&self, target: &Target) -> Option<String> {
        let unapplied = &self.state().unapplied;
        let of_host = || match target.node {
            Some(_) => unapplied.get(&self.host_target()),
            None => unapplied.values().next(),
        };
        unapplied.get(target).or_else(of_host).cloned()
    }

    fn host_target(&self) -> Target {
        Target { host: self.host.clone(), node: None }
    }

    fn is_failed(&self, target: &Target) -> bool {
        let failed = &self.state().failed;
        failed.contains(target) || failed.contains(&self.host_target())
    }

    pub(super) fn has_stopped(&self) -> bool {
        self.state().stopped.is_some()
    }

    /// Whether no further step may start, which is noted.
    pub(super) fn wants_to_stop(&self) -> bool {
        if *self.stop.borrow() > Stop::No {
            self.state().stopped.get_or_insert_with(aborted);
        }
        self.has_stopped()
    }

    async fn stage(&self, stage: Stage, without: &[String]) {
        if let Err(failure) = container_mounts::learn(&self.probe).await {
            let what = "links are judged without Docker's word on what its containers mount writable";
            self.say(EventKind::Warning { message: format!("{what}: {failure}") });
        }
        let queue = Arc::new(Queue::new(self.events.clone()));
        let mut running: FuturesOrdered<Pin<Box<dyn Future<Output = Option<Target>> + Send + '_>>> =
            FuturesOrdered::new();
        let mut failed = Vec::new();
        let mut place = 0;
        for plan in &stage.targets {
            // The host itself is not beside its nodes: they stand on it.
            let most = if plan.target.node.is_some() { most_side_by_side(self.options) } else { 1 };
            while running.len() >= most {
                failed.extend(running.next().await.flatten());
            }
            if self.has_stopped() {
                break;
            }
            let left_out = without.contains(&plan.target.to_string());
            if left_out || self.is_failed(&plan.target) && !stage.rescue {
                continue;
            }
            let course = Course::new(self, &queue, place, plan, &stage.title);
            running.push_back(Box::pin(async move { (!course.run().await).then(|| plan.target.clone()) }));
            place += 1;
            if plan.target.node.is_none() {
                failed.extend(running.next().await.flatten());
            }
        }
        while let Some(target) = running.next().await {
            failed.extend(target);
        }
        drop(running);
        self.say(EventKind::StageFinished { stage: stage.number, failed });
    }

    /// Says which handlers are due in plays that this run has not done: left out, renamed, or of another playbook.
    fn due_elsewhere(&self) {
        let notes = pending::all(&self.probe).unwrap_or_else(|failure| {
            self.say(EventKind::Warning { message: format!("the notes of due handlers cannot be read: {failure}") });
            Vec::new()
        });
        let read = std::mem::take(&mut self.state().notes);
        for (path, note) in notes.into_iter().filter(|(path, _)| !read.contains(path)) {
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
}
