//! Which stage may run now.

use std::collections::BTreeSet;

use tokio::sync::mpsc;

use super::Hub;
use super::channel::Order;
use crate::event::EventKind;
use crate::plan::StageInfo;

/// The stages of a run and how far each host is.
pub(super) struct Stages {
    list: Vec<StageInfo>,
    names: Vec<String>,
    /// Hosts that came to their end, one way or another.
    ended: BTreeSet<usize>,
    /// Hosts that still have to finish the current stage.
    waiting: BTreeSet<usize>,
    /// The stage that comes next, by place.
    next: usize,
    /// Plays that a failed batch has stopped.
    stopped_plays: BTreeSet<u32>,
    /// The play of the current stage, when it has batches.
    batched: Option<u32>,
}

impl Stages {
    pub(super) fn new(list: Vec<StageInfo>, names: Vec<String>) -> Self {
        Self {
            list,
            names,
            ended: BTreeSet::new(),
            waiting: BTreeSet::new(),
            next: 0,
            stopped_plays: BTreeSet::new(),
            batched: None,
        }
    }

    pub(super) fn all_ended(&self) -> bool {
        self.ended.len() == self.names.len()
    }

    /// The names of hosts that never came to an end.
    pub(super) fn not_ended(&self) -> Vec<String> {
        let open = self.names.iter().enumerate().filter(|(number, _)| !self.ended.contains(number));
        open.map(|(_, name)| name.clone()).collect()
    }

    /// Takes note of what a host says.
    pub(super) fn hear(&mut self, number: usize, kind: &EventKind) {
        match kind {
            EventKind::StageFinished { failed, .. } => {
                self.waiting.remove(&number);
                if !failed.is_empty() {
                    self.stopped_plays.extend(self.batched);
                }
            }
            EventKind::HostFinished { .. } | EventKind::HostLost { .. } => {
                if self.waiting.remove(&number) {
                    // It was lost in the middle of a batch: its nodes did not come through.
                    self.stopped_plays.extend(self.batched);
                }
                self.ended.insert(number);
            }
            _ => {}
        }
    }

    /// Gives the word for what may run now.
    pub(super) fn advance(&mut self, orders: &[mpsc::UnboundedSender<Order>], hub: &mut Hub) {
        while self.waiting.is_empty() {
            let Some(stage) = self.list.get(self.next) else { return };
            self.next += 1;
            if self.stopped_plays.contains(&stage.play) {
                let number = stage.number;
                tell(orders, Order::Skip { from: number, to: number });
                let (batch, of) = stage.batch.unwrap_or_default();
                let message = format!(
                    "play \"{}\": batch {batch} of {of} does not take place, as one before it failed",
                    stage.title
                );
                hub.say(EventKind::Warning { message });
                continue;
            }
            let part = |name: &String| stage.targets.iter().any(|target| target.host == *name);
            let members =
                self.names.iter().enumerate().filter(|(number, name)| !self.ended.contains(number) && part(name));
            self.waiting = members.map(|(number, _)| number).collect();
            self.batched = stage.batch.is_some().then_some(stage.play);
            let number = stage.number;
            // All hear it: a host without a part in this stage knows then that earlier ones are over.
            tell(orders, Order::Go { stage: number });
            if !self.waiting.is_empty() {
                hub.say(EventKind::StageStarted {
                    play: stage.title.clone(),
                    batch: stage.batch,
                    targets: stage.targets.clone(),
                });
            }
        }
    }
}

/// Says a word to every host; one that is gone does not hear it.
pub(super) fn tell(orders: &[mpsc::UnboundedSender<Order>], order: Order) {
    for host in orders {
        let _ = host.send(order);
    }
}
