//! Which stage may run now.

use std::collections::{BTreeMap, BTreeSet};

use tokio::sync::mpsc;

use super::Hub;
use super::channel::Order;
use super::rollout::{BACKEND, Decision, FORMER, LEFT_OUT, Rollout, SETTLE, STANDING};
use crate::event::{EventKind, Outcome, Phase, Target};
use crate::plan::{RolloutPart, StageInfo};
use crate::resource::rollout::HALTED;
use crate::value::Value;

/// The stages of a run and how far each host is.
pub(super) struct Stages {
    list: Vec<StageInfo>,
    rollouts: BTreeMap<u32, Rollout>,
    names: Vec<String>,
    /// Hosts that came to their end, one way or another.
    ended: BTreeSet<usize>,
    /// Hosts that still have to finish the current stage.
    waiting: BTreeSet<usize>,
    /// The stage that comes next, by place.
    next: usize,
    /// Plays that a failed batch has stopped.
    stopped_plays: BTreeSet<u32>,
    /// Targets of batches that did not take place: they take no part in what comes behind.
    fallen: BTreeSet<Target>,
    /// Plays that a rollout before them has stopped.
    left_out: BTreeSet<u32>,
    /// The current stage.
    current: Option<Current>,
    /// Whether the run was asked to stop: no stage begins any more.
    stopping: bool,
}

/// The stage that runs, as far as its outcome matters to others.
struct Current {
    number: u32,
    play: u32,
    /// Whether its failures stop the play's later batches.
    batched: bool,
    part: Option<RolloutPart>,
    targets: Vec<Target>,
    failed: BTreeSet<String>,
}

impl Stages {
    pub(super) fn new(list: Vec<StageInfo>, rollouts: BTreeMap<u32, Rollout>, names: Vec<String>) -> Self {
        Self {
            list,
            rollouts,
            names,
            ended: BTreeSet::new(),
            waiting: BTreeSet::new(),
            next: 0,
            stopped_plays: BTreeSet::new(),
            fallen: BTreeSet::new(),
            left_out: BTreeSet::new(),
            current: None,
            stopping: false,
        }
    }

    /// Takes note that the run was asked to stop: what a stage leaves undone from now on has not failed.
    pub(super) fn stop(&mut self) {
        self.stopping = true;
    }

    /// Ends a run in which some host did not come to its end: says how the rollout stands that was under way.
    pub(super) fn broken_off(&mut self, hub: &mut Hub) {
        if self.stopping {
            self.close(hub);
        }
    }

    pub(super) fn all_ended(&self) -> bool {
        self.ended.len() == self.names.len()
    }

    /// Whether a rollout came to another end than the declared one.
    pub(super) fn refused(&self) -> bool {
        self.rollouts.values().any(Rollout::is_refused)
    }

    /// Whether a host came to its end.
    pub(super) fn has_ended(&self, number: usize) -> bool {
        self.ended.contains(&number)
    }

    /// A host's name.
    pub(super) fn name(&self, number: usize) -> String {
        self.names.get(number).cloned().unwrap_or_default()
    }

    /// The names of hosts that never came to an end.
    pub(super) fn not_ended(&self) -> Vec<String> {
        let open = self.names.iter().enumerate().filter(|(number, _)| !self.ended.contains(number));
        open.map(|(_, name)| name.clone()).collect()
    }

    /// Takes note of what a host says.
    pub(super) fn hear(&mut self, number: usize, kind: &EventKind) {
        match kind {
            EventKind::StepFinished { step, outcome, output, .. }
                if step.kind == STANDING || step.kind == FORMER && self.puts_back() =>
            {
                let told = outcome.failure().is_none();
                if let Some(rollout) = self.current_rollout().filter(|_| told) {
                    let unknown = matches!(outcome, Outcome::Unknown(_));
                    // It is only looked: what the node would be given is not there yet, and may be another one.
                    let more = ["pending", "differs"].map(|name| (name.to_owned(), Value::Bool(true)));
                    let more = more.into_iter().filter(|_| unknown);
                    rollout.standing(&step.target, &output.clone().into_iter().chain(more).collect());
                }
            }
            EventKind::StepFinished { step, output, .. } if step.kind == LEFT_OUT => {
                if let Some(rollout) = self.current_rollout() {
                    rollout.left_out(&step.target, output);
                }
            }
            EventKind::StepFinished { step, outcome, .. } if step.kind == BACKEND => {
                let part = self.current.as_ref().and_then(|current| current.part);
                let was_told = !matches!(outcome, Outcome::Skipped(_));
                if let (Some(part), Some(rollout)) = (part.filter(|_| was_told), self.current_rollout()) {
                    rollout.traffic(part, &step.target, outcome.failure().is_none());
                }
            }
            EventKind::StepFinished { step, output, .. } if step.kind == SETTLE => {
                if let Some(rollout) = self.current_rollout() {
                    rollout.served(output);
                }
            }
            EventKind::StepFinished { step, outcome: Outcome::Failed(failure, _), .. } => {
                if let (Some(why), Some(rollout)) = (failure.facts.get(HALTED), self.current_rollout()) {
                    rollout.halted(&step.target, why);
                }
            }
            // A host that has no part in the current stage may tell later that it has passed an earlier one.
            EventKind::StageFinished { stage, .. } if self.current.as_ref().is_some_and(|now| now.number != *stage) => {
            }
            EventKind::StageFinished { failed, .. } => {
                self.waiting.remove(&number);
                self.came_not_through(failed);
            }
            EventKind::HostFinished { .. } | EventKind::HostLost { .. } => {
                if self.waiting.remove(&number) {
                    // It was lost in the middle: its nodes did not come through.
                    let name = self.names.get(number).cloned().unwrap_or_default();
                    let current = self.current.iter().flat_map(|current| &current.targets);
                    let lost: Vec<Target> = current.filter(|target| target.host == name).cloned().collect();
                    self.came_not_through(&lost);
                }
                self.ended.insert(number);
            }
            _ => {}
        }
    }

    /// The rollout that the stage that runs belongs to.
    fn current_rollout(&mut self) -> Option<&mut Rollout> {
        self.current.as_ref().and_then(|current| self.rollouts.get_mut(&current.play))
    }

    /// Whether the stage that runs puts nodes back.
    fn puts_back(&self) -> bool {
        self.current.as_ref().is_some_and(|current| matches!(current.part, Some(RolloutPart::Back(_))))
    }

    fn came_not_through(&mut self, failed: &[Target]) {
        let Some(current) = self.current.as_mut().filter(|_| !failed.is_empty()) else { return };
        self.stopped_plays.extend(current.batched.then_some(current.play));
        for target in failed {
            // What a host itself cannot do, none of its nodes has come through.
            let of_host = |other: &&Target| target.node.is_none() && other.host == target.host;
            let all = current.targets.iter().filter(of_host).chain([target]);
            current.failed.extend(all.filter_map(|target| target.node.clone()));
        }
    }

    /// Gives the word for what may run now.
    pub(super) fn advance(&mut self, orders: &[mpsc::UnboundedSender<Order>], hub: &mut Hub) {
        while self.waiting.is_empty() {
            self.close(hub);
            let Some(stage) = self.list.get(self.next).filter(|_| !self.stopping) else { return };
            self.next += 1;
            let number = stage.number;
            if self.stopped_plays.contains(&stage.play) {
                tell(orders, &Order::Skip { from: number, to: number });
                let targets: Vec<Target> =
                    stage.targets.iter().filter(|target| !has_fallen(&self.fallen, target)).cloned().collect();
                self.fallen.extend(targets.iter().cloned());
                let (play, batch) = (stage.title.clone(), stage.batch.unwrap_or_default());
                if !targets.is_empty() {
                    hub.say(EventKind::BatchLeftOut { play, batch, targets });
                }
                continue;
            }
            if let Some(title) = self.stopped_by(stage.play) {
                tell(orders, &Order::Skip { from: number, to: number });
                let what = if stage.part.is_some() { "rollout" } else { "play" };
                let name = &stage.title;
                let message =
                    format!("{what} \"{name}\" does not take place, as rollout \"{title}\" did not come to its end");
                // Once, with all of its batches and stages.
                if self.left_out.insert(stage.play) {
                    hub.say(EventKind::Warning { message });
                }
                continue;
            }
            let rollout = self.rollouts.get_mut(&stage.play).zip(stage.part);
            let decision =
                rollout.map_or_else(|| Decision::Go { without: Vec::new() }, |(rollout, part)| rollout.decide(part));
            let Decision::Go { mut without } = decision else {
                tell(orders, &Order::Skip { from: number, to: number });
                self.end_of_rollout(hub);
                continue;
            };
            let fallen = stage.targets.iter().filter(|target| has_fallen(&self.fallen, target));
            without.extend(fallen.map(ToString::to_string));
            let targets: Vec<Target> =
                stage.targets.iter().filter(|target| !without.contains(&target.to_string())).cloned().collect();
            let wanted: BTreeSet<&str> = targets.iter().map(|target| target.host.as_str()).collect();
            let names = self.names.iter().map(String::as_str).enumerate();
            let members: BTreeMap<&str, usize> = names
                .filter(|(number, name)| !self.ended.contains(number) && wanted.contains(name))
                .map(|(number, name)| (name, number))
                .collect();
            self.waiting = members.values().copied().collect();
            // Hosts that are gone, or left out, cannot do their part of a rollout.
            let gone = targets.iter().filter(|target| !members.contains_key(target.host.as_str()));
            let left_out = stage.targets.iter().filter(|target| self.fallen.contains(&host_of(target)));
            let of_rollout = gone.chain(left_out).filter(|_| stage.part.is_some());
            let failed = of_rollout.filter_map(|target| target.node.clone()).collect();
            self.current = Some(Current {
                number,
                play: stage.play,
                batched: stage.batch.is_some() && stage.part.is_none(),
                part: stage.part,
                targets: targets.clone(),
                failed,
            });
            // All hear it: a host without a part in this stage knows then that earlier ones are over.
            tell(orders, &Order::Go { stage: number, without });
            if !self.waiting.is_empty() {
                hub.say(EventKind::StageStarted {
                    play: stage.title.clone(),
                    batch: stage.batch,
                    phase: stage.part.map(phase),
                    targets,
                });
            }
        }
    }

    /// The rollout before a play that came to another end than the declared one. What stands behind it was meant for nodes as it
    /// would have left them: a container would be made anew there on all of them at once.
    fn stopped_by(&self, play: u32) -> Option<String> {
        let stopping = self.rollouts.iter().find(|(number, rollout)| **number < play && rollout.stops_the_rest());
        stopping.map(|(_, rollout)| rollout.title().to_owned())
    }

    /// The stage that ran is over: its rollout hears how.
    fn close(&mut self, hub: &mut Hub) {
        let Some(current) = self.current.take() else { return };
        if let Some((rollout, part)) = self.rollouts.get_mut(&current.play).zip(current.part) {
            if self.stopping {
                rollout.interrupted();
                say_news(rollout, hub);
                return;
            }
            rollout.over(part, &current.failed);
            say_news(rollout, hub);
            self.end_of_rollout(hub);
        }
    }

    /// Says how a rollout ended when its last stage is behind.
    fn end_of_rollout(&mut self, hub: &mut Hub) {
        let Some(last) = self.next.checked_sub(1).and_then(|place| self.list.get(place)) else { return };
        let more = self.list.get(self.next).is_some_and(|next| next.play == last.play);
        if let Some(rollout) = self.rollouts.get_mut(&last.play).filter(|_| !more) {
            rollout.ended();
            say_news(rollout, hub);
        }
    }
}

/// Whether the batch of a target, or of its host, did not take place.
fn has_fallen(fallen: &BTreeSet<Target>, target: &Target) -> bool {
    fallen.contains(target) || fallen.contains(&host_of(target))
}

fn host_of(target: &Target) -> Target {
    Target { host: target.host.clone(), node: None }
}

fn say_news(rollout: &mut Rollout, hub: &mut Hub) {
    let title = rollout.title().to_owned();
    for news in rollout.news() {
        hub.say(EventKind::Rollout { title: title.clone(), news });
    }
}

fn phase(part: RolloutPart) -> Phase {
    match part {
        RolloutPart::Prepare => Phase::Prepare,
        RolloutPart::Drain(_) | RolloutPart::DrainBack(_) => Phase::Drain,
        RolloutPart::Change(_) => Phase::Change,
        RolloutPart::GiveBack | RolloutPart::Ready(_) | RolloutPart::ReadyBack(_) => Phase::Ready,
        RolloutPart::Settle(_) => Phase::Settle,
        RolloutPart::Confirm => Phase::Confirm,
        RolloutPart::Back(_) => Phase::PutBack,
    }
}

/// Says a word to every host; one that is gone does not hear it.
pub(super) fn tell(orders: &[mpsc::UnboundedSender<Order>], order: &Order) {
    for host in orders {
        let _ = host.send(order.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Event;
    use crate::plan::RolloutInfo;

    fn host(name: &str) -> Target {
        Target { host: name.to_owned(), node: None }
    }

    fn node(host: &str, name: &str) -> Target {
        Target { host: host.to_owned(), node: Some(name.to_owned()) }
    }

    /// Two hosts with a node each, and what is said to and of them.
    struct Run {
        stages: Stages,
        hub: Hub,
        events: mpsc::UnboundedReceiver<Event>,
        orders: Vec<mpsc::UnboundedSender<Order>>,
        inboxes: Vec<mpsc::UnboundedReceiver<Order>>,
    }

    impl Run {
        /// A play in two batches, and behind it a rollout over both nodes.
        fn new(batches: [Target; 2]) -> Self {
            let batch = |(number, target): (u32, Target)| StageInfo {
                number,
                play: 0,
                title: "p".to_owned(),
                batch: Some((number + 1, 2)),
                targets: vec![target],
                part: None,
            };
            let nodes = || vec![node("h1", "web1"), node("h2", "web2")];
            let of_rollout = |(number, part)| StageInfo {
                number,
                play: 1,
                title: "r".to_owned(),
                batch: None,
                targets: nodes(),
                part: Some(part),
            };
            let list = (0..).zip(batches).map(batch);
            let list = list.chain([(2, RolloutPart::Prepare), (3, RolloutPart::Change(0))].map(of_rollout));
            let names = vec!["web1".to_owned(), "web2".to_owned()];
            let info = RolloutInfo { title: "r".to_owned(), batches: vec![names], ..RolloutInfo::default() };
            let rollouts = BTreeMap::from([(1, Rollout::new(info, false))]);
            let (sender, events) = mpsc::unbounded_channel();
            let hub = Hub::new(sender);
            let (orders, inboxes) = (0..2).map(|_| mpsc::unbounded_channel()).unzip();
            let stages = Stages::new(list.collect(), rollouts, vec!["h1".to_owned(), "h2".to_owned()]);
            let mut run = Self { stages, hub, events, orders, inboxes };
            run.stages.advance(&run.orders, &mut run.hub);
            run
        }

        fn finished(&mut self, host: usize, stage: u32, failed: Vec<Target>) {
            self.stages.hear(host, &EventKind::StageFinished { stage, failed });
            self.stages.advance(&self.orders, &mut self.hub);
        }

        /// What the first host was told since the last time.
        fn told(&mut self) -> Vec<String> {
            let inbox = self.inboxes.first_mut().unwrap();
            std::iter::from_fn(|| inbox.try_recv().ok()).map(|order| format!("{order:?}")).collect()
        }

        fn left_out(&mut self) -> Vec<Vec<Target>> {
            let events = std::iter::from_fn(|| self.events.try_recv().ok());
            let targets = |event: Event| match event.kind {
                EventKind::BatchLeftOut { targets, .. } => Some(targets),
                _ => None,
            };
            events.filter_map(targets).collect()
        }
    }

    #[test]
    fn a_node_of_a_batch_that_was_left_out_is_none_of_a_later_rollout() {
        let mut run = Run::new([node("h1", "web1"), node("h2", "web2")]);
        run.finished(0, 0, vec![node("h1", "web1")]);
        let told = run.told();
        assert_eq!(told[1..], ["Skip { from: 1, to: 1 }", "Go { stage: 2, without: [\"web2\"] }"]);
        assert_eq!(run.left_out(), [[node("h2", "web2")]]);
        assert_eq!(run.stages.waiting, BTreeSet::from([0]));
    }

    #[test]
    fn a_rollout_over_a_host_that_was_left_out_goes_nowhere() {
        let mut run = Run::new([host("h1"), host("h2")]);
        run.finished(0, 0, vec![host("h1")]);
        assert_eq!(run.left_out(), [[host("h2")]]);
        run.finished(0, 2, Vec::new());
        assert!(run.stages.refused());
        let told = run.told();
        let rest = ["Skip { from: 1, to: 1 }", "Go { stage: 2, without: [\"web2\"] }", "Skip { from: 3, to: 3 }"];
        assert_eq!(told[1..], rest);
    }

    #[test]
    fn the_end_of_a_stage_that_a_host_has_no_part_in_is_not_taken_for_that_of_the_current_one() {
        let mut run = Run::new([node("h1", "web1"), node("h2", "web2")]);
        run.finished(0, 0, Vec::new());
        assert_eq!(run.stages.waiting, BTreeSet::from([1]));
        // The second host passes the first stage only now.
        run.finished(1, 0, Vec::new());
        assert_eq!(run.stages.waiting, BTreeSet::from([1]));
        run.finished(1, 1, Vec::new());
        assert_eq!(run.stages.waiting, BTreeSet::from([0, 1]));
    }
}
