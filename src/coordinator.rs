//! All hosts at once: connects, sends plans, gives the word for each stage, and makes one stream of all events.
//!
//! Two actors. Each host has a task of its own that owns its channel (`channel`); one loop here hears them all, in one order,
//! and decides who may go on. Plays and batches are the barriers; between them hosts run at their own pace. What is no run, but asks hosts
//! something (`ask`) or reads their log files (`read`), uses the same channels.

pub mod ask;
mod bounds;
mod channel;
mod locks;
mod logins;
mod logs;
mod operator;
mod protocol;
pub mod read;
mod rollout;
mod sending;
mod stages;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::engine::Stop;
use crate::event::{Event, EventKind, Tally, Target, Verdict};
use crate::failure::{Failure, FailureKind};
use crate::plan::{HostRun, RunPlan};
use crate::remote::Reach;
use crate::remote::helper::ABORT;
use crate::remote::wire::Patience;
use channel::{Order, Said};
pub use locks::Locking;
use locks::{Decision, Locks};
use logins::Logins;
pub use operator::operator;
use rollout::Rollout;
use stages::Stages;

/// A run's name and circumstances.
#[derive(Clone, Debug)]
pub struct Header {
    /// Unique name of the run.
    pub run: String,
    /// The playbook's path.
    pub playbook: String,
    /// Whether this is check mode.
    pub check: bool,
    /// How many connections may be opened at the same time.
    pub forks: usize,
    /// Whether the run needs all of its hosts at once.
    pub locking: Locking,
}

/// How much longer than the helper's own limit the coordinator waits for it.
const GRACE: Duration = Duration::from_secs(3);

/// Runs a plan over all its hosts. Every event goes to `events`, in one order; the last is [`EventKind::RunFinished`].
pub async fn run(
    plan: RunPlan,
    header: Header,
    reach: Arc<Reach>,
    events: mpsc::UnboundedSender<Event>,
    mut stop: watch::Receiver<Stop>,
) -> Verdict {
    let RunPlan { hosts, stages, rollouts, contents } = plan;
    let names: Vec<String> = hosts.iter().map(|host| host.plan.host.clone()).collect();
    let mut hub = Hub::new(events);
    let steps = hosts.iter().flat_map(|host| &host.plan.stages).flat_map(|stage| &stage.targets);
    let steps = steps.map(|target| target.steps.len()).sum::<usize>();
    hub.say(EventKind::RunStarted {
        run: header.run.clone(),
        playbook: header.playbook.clone(),
        hosts: names.clone(),
        steps: u32::try_from(steps).unwrap_or(u32::MAX),
        check: header.check,
    });
    for message in rollouts.values().flat_map(|info| &info.warnings) {
        hub.say(EventKind::Warning { message: message.clone() });
    }
    let contents = Arc::new(contents);
    let logins = Arc::new(Logins::new(header.forks));
    let lock_wait = hosts.first().and_then(|host| host.plan.options.lock_wait);
    let (reports, mut inbox) = mpsc::unbounded_channel();
    let mut tasks = JoinSet::new();
    let mut orders = Vec::new();
    for (number, HostRun { connection, plan }) in hosts.into_iter().enumerate() {
        let (sender, receiver) = mpsc::unbounded_channel();
        orders.push(sender);
        let channel = channel::Channel {
            number,
            name: plan.host.clone(),
            connection,
            contents: Arc::clone(&contents),
            reach: Arc::clone(&reach),
            logins: Arc::clone(&logins),
            reports: reports.clone(),
            orders: receiver,
            patience: Patience::default(),
        };
        tasks.spawn(channel.run(plan));
    }
    drop(reports);
    let rollouts = rollouts.into_iter().map(|(play, info)| (play, Rollout::new(info, header.check))).collect();
    let mut stages = Stages::new(stages, rollouts, names.clone());
    let by = format!("run {} of {} ({})", header.run, operator(), header.playbook);
    let (mut locks, first) = Locks::new(names, by, lock_wait, header.locking);
    carry_out(first, &orders, &mut stages, &mut hub);
    let mut deadline: Option<tokio::time::Instant> = None;
    while !stages.all_ended() {
        tokio::select! {
            report = inbox.recv() => {
                let Some(channel::Report { number, said }) = report else { break };
                if stages.has_ended(number) {
                    continue;
                }
                let now = tokio::time::Instant::now();
                let decisions = match said {
                    Said::Lock(answer) => locks.answer(number, answer, now),
                    Said::Event(event) => {
                        hub.hear(&event);
                        stages.hear(number, &event.kind);
                        hub.forward(*event);
                        if stages.has_ended(number) { locks.ended(number, now) } else { Vec::new() }
                    }
                };
                carry_out(decisions, &orders, &mut stages, &mut hub);
                if locks.are_taken() {
                    stages.advance(&orders, &mut hub);
                }
                hub.refused |= stages.refused();
            }
            changed = stop.changed(), if deadline.is_none_or(|_| *stop.borrow() < Stop::Now) => {
                let wanted = if changed.is_ok() { *stop.borrow() } else { Stop::No };
                if wanted >= Stop::InOrder {
                    hub.aborted = true;
                    deadline.get_or_insert(tokio::time::Instant::now() + ABORT + GRACE);
                    stages.stop();
                    stages::tell(&orders, &Order::Stop);
                }
                if wanted == Stop::Now || changed.is_err() && deadline.is_some() {
                    break;
                }
                if changed.is_err() && deadline.is_none() {
                    // Whoever could stop the run is gone; it goes on to its end.
                    deadline = Some(tokio::time::Instant::now() + Duration::from_secs(u32::MAX.into()));
                }
            }
            () = until(deadline) => break,
        }
    }
    // Dropping a channel's task ends its session, and with it the helper.
    tasks.abort_all();
    while tasks.join_next().await.is_some() {}
    stages.broken_off(&mut hub);
    for name in stages.not_ended() {
        let failure = Failure::of(FailureKind::Aborted, "the run was stopped before this host came to an end")
            .hint("where a container was being replaced, the host itself puts the old one back in a moment");
        hub.forward(Event { host: name, index: 0, at_ms: 0, kind: EventKind::HostLost { failure } });
    }
    let verdict = hub.verdict(header.check);
    hub.say(EventKind::RunFinished { tally: hub.tally, verdict });
    verdict
}

/// Does what becomes of the hosts' locks.
fn carry_out(decisions: Vec<Decision>, orders: &[mpsc::UnboundedSender<Order>], stages: &mut Stages, hub: &mut Hub) {
    for decision in decisions {
        match decision {
            Decision::Tell(number, order) => {
                if let Some(host) = orders.get(number) {
                    let _ = host.send(order);
                }
            }
            Decision::Say(message) => hub.say(EventKind::Warning { message }),
            Decision::Ends(number, failure) => {
                let kind = EventKind::HostFinished { tally: Tally::default(), stopped: Some(failure) };
                let event = Event { host: stages.name(number), index: 0, at_ms: 0, kind };
                hub.hear(&event);
                stages.hear(number, &event.kind);
                hub.forward(event);
                if let Some(host) = orders.get(number) {
                    let _ = host.send(Order::Stop);
                }
            }
            Decision::Done => stages.advance(orders, hub),
        }
    }
}

async fn until(deadline: Option<tokio::time::Instant>) {
    match deadline {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Where all events meet, and what they add up to.
struct Hub {
    started: Instant,
    /// For each host, and for the run itself under an empty name, the number and the time of its next event at the earliest.
    next: BTreeMap<String, (u64, u64)>,
    events: mpsc::UnboundedSender<Event>,
    tally: Tally,
    failed: BTreeSet<Target>,
    unreachable: bool,
    aborted: bool,
    internal: bool,
    /// Whether a rollout came to another end than the declared one.
    refused: bool,
    /// Whether another run held a host.
    busy: bool,
}

impl Hub {
    fn new(events: mpsc::UnboundedSender<Event>) -> Self {
        Self {
            started: Instant::now(),
            next: BTreeMap::new(),
            events,
            tally: Tally::default(),
            failed: BTreeSet::new(),
            unreachable: false,
            aborted: false,
            internal: false,
            refused: false,
            busy: false,
        }
    }

    /// Says something of the run as a whole.
    fn say(&mut self, kind: EventKind) {
        let at_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.forward(Event { host: String::new(), index: 0, at_ms, kind });
    }

    /// Passes an event on, with its number: a host's own events and those that the controller adds for it are one sequence.
    fn forward(&mut self, mut event: Event) {
        let (index, at_ms) = self.next.entry(event.host.clone()).or_default();
        event.index = *index;
        event.at_ms = event.at_ms.max(*at_ms);
        (*index, *at_ms) = (event.index + 1, event.at_ms);
        // When the reporter is gone the run still comes to its end.
        let _ = self.events.send(event);
    }

    fn hear(&mut self, event: &Event) {
        match &event.kind {
            EventKind::StepFinished { outcome, .. } => self.tally.count(outcome),
            EventKind::StageFinished { failed, .. } => self.failed.extend(failed.iter().cloned()),
            EventKind::HostFinished { stopped: Some(failure), .. } | EventKind::HostLost { failure } => {
                match failure.kind {
                    FailureKind::Aborted => self.aborted = true,
                    FailureKind::Unreachable | FailureKind::Lost | FailureKind::Untrusted => self.unreachable = true,
                    FailureKind::Internal => self.internal = true,
                    FailureKind::Busy => self.busy = true,
                    _ => {
                        self.failed.insert(Target { host: event.host.clone(), node: None });
                    }
                }
            }
            _ => {}
        }
    }

    /// The run in one word. An abort goes before all; failed steps before hosts that are busy or could not be reached.
    fn verdict(&self, check: bool) -> Verdict {
        if self.aborted {
            Verdict::Aborted
        } else if !self.failed.is_empty() || self.internal || self.refused {
            Verdict::Failed
        } else if self.busy {
            Verdict::Busy
        } else if self.unreachable {
            Verdict::Unreachable
        } else if check && (self.tally.changed > 0 || self.tally.unknown > 0) {
            Verdict::WouldChange
        } else {
            Verdict::Converged
        }
    }
}
