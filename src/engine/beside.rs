//! Nodes of one host side by side: what their steps may do at the same time, and in which order it is told.
//!
//! What takes long on a node is its own (its container is stopped and started, its server asked), so a few nodes go through a stage at a
//! time. What a step has of the whole host (its files, its network) is changed by one at a time, and what is not known to be harmless waits
//! until all nodes before it are through. The controller hears of one node after the other, in the order of the plan: events of those
//! behind the first are held back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use tokio::sync::{MutexGuard, mpsc, watch};

use crate::event::EventKind;

/// How many nodes of a host go through a stage at the same time.
pub(super) const MOST: usize = 4;

/// What a step has of its host beside its own node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Share {
    /// Nothing: it may be done beside any other.
    Nothing,
    /// Something that is quickly done: one at a time.
    Turn,
    /// Anything: it is done when all nodes before its own are through.
    Front,
}

/// The targets of a stage, by their place in it.
pub(super) struct Queue {
    events: mpsc::UnboundedSender<EventKind>,
    held: Mutex<Held>,
    /// The first that is not through.
    front: watch::Sender<usize>,
    turn: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Held {
    through: BTreeSet<usize>,
    events: BTreeMap<usize, Vec<EventKind>>,
}

impl Queue {
    pub(super) fn new(events: mpsc::UnboundedSender<EventKind>) -> Self {
        Self { events, held: Mutex::default(), front: watch::channel(0).0, turn: tokio::sync::Mutex::default() }
    }

    /// Tells an event of a target, now or when its turn has come. How far a step is, is told of the first one alone.
    pub(super) fn say(&self, place: usize, kind: EventKind) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if *self.front.borrow() >= place {
            // When nobody listens any more the run is over anyway; the helper sees that by itself.
            let _ = self.events.send(kind);
        } else if !matches!(kind, EventKind::Progress { .. }) {
            held.events.entry(place).or_default().push(kind);
        }
    }

    /// A target is through; those behind it are told of.
    pub(super) fn through(&self, place: usize) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.through.insert(place);
        let mut front = *self.front.borrow();
        while held.through.remove(&front) {
            front += 1;
            for kind in held.events.remove(&front).unwrap_or_default() {
                let _ = self.events.send(kind);
            }
        }
        self.front.send_replace(front);
    }

    /// Waits until a step of that place may be done; it has what it waited for until the guard goes.
    pub(super) async fn admit(&self, place: usize, share: Share) -> Option<MutexGuard<'_, ()>> {
        match share {
            Share::Nothing => None,
            Share::Turn => Some(self.turn.lock().await),
            Share::Front => {
                // The sender is this queue's own.
                let _ = self.front.subscribe().wait_for(|front| *front >= place).await;
                Some(self.turn.lock().await)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(number: u32) -> EventKind {
        EventKind::Warning { message: number.to_string() }
    }

    fn told(events: &mut mpsc::UnboundedReceiver<EventKind>) -> Vec<String> {
        let mut all = Vec::new();
        while let Ok(EventKind::Warning { message }) = events.try_recv() {
            all.push(message);
        }
        all
    }

    #[test]
    fn one_is_told_after_the_other_whatever_ends_first() {
        let (sender, mut events) = mpsc::unbounded_channel();
        let queue = Queue::new(sender);
        queue.say(1, event(10));
        queue.say(0, event(0));
        queue.say(2, event(20));
        queue.say(1, EventKind::Progress { id: 1, message: String::new(), amount: None });
        assert_eq!(told(&mut events), ["0"]);
        queue.through(1);
        queue.say(0, event(1));
        assert_eq!(told(&mut events), ["1"]);
        queue.through(0);
        queue.say(2, event(21));
        assert_eq!(told(&mut events), ["10", "20", "21"]);
        queue.through(2);
        queue.say(3, event(30));
        assert_eq!(told(&mut events), ["30"]);
    }

    #[tokio::test]
    async fn what_is_not_known_to_be_harmless_waits_for_all_before_it() {
        let queue = Queue::new(mpsc::unbounded_channel().0);
        let soon = std::time::Duration::from_millis(20);
        assert!(queue.admit(5, Share::Nothing).await.is_none());
        assert!(tokio::time::timeout(soon, queue.admit(1, Share::Front)).await.is_err());
        let turn = queue.admit(1, Share::Turn).await;
        assert!(tokio::time::timeout(soon, queue.admit(0, Share::Turn)).await.is_err());
        drop(turn);
        queue.through(0);
        assert!(tokio::time::timeout(soon, queue.admit(1, Share::Front)).await.is_ok());
    }
}
