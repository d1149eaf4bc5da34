//! All hosts are locked before the first change: two runs never split a fleet, and never wait for each other.
//!
//! Every host is asked at once, and nobody waits. Where another run holds one, all are freed again and taken one after the other, in
//! the order of their locks (by machine and file, whatever a playbook calls them), so that of two runs one gets them all. Nothing here
//! speaks to anybody: answers come in, decisions go out.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::channel::Order;
use crate::failure::{Failure, FailureKind};
use crate::remote::wire::LockAnswer;
use crate::value::show_duration;

/// Whom a lock is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Locking {
    /// The run has all of its hosts, or none.
    Together,
    /// Each host for itself: one that is busy holds up no other.
    Each,
}

/// What comes of an answer.
#[derive(Debug, PartialEq)]
pub(super) enum Decision {
    /// A host is told something.
    Tell(usize, Order),
    /// People should read this.
    Say(String),
    /// A host takes no part.
    Ends(usize, Failure),
    /// All that still take part are locked.
    Done,
}

/// How one host's lock is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Asked,
    Free(String),
    Taken(String),
    Ended,
}

/// The locks of a run.
pub(super) struct Locks {
    names: Vec<String>,
    by: String,
    wait: Duration,
    locking: Locking,
    states: Vec<State>,
    /// Which hosts another run holds.
    held: BTreeMap<usize, String>,
    /// The hosts still to be locked in order, the last one first, and until when.
    queue: Option<(Vec<usize>, Instant)>,
    over: bool,
}

impl Locks {
    /// The locks of these hosts, for the run that `by` tells of, with the orders that ask for them. `wait` limits the time that is spent
    /// waiting for other runs; without one nothing is locked.
    pub(super) fn new(
        names: Vec<String>,
        by: String,
        wait: Option<Duration>,
        locking: Locking,
    ) -> (Self, Vec<Decision>) {
        let states = vec![State::Asked; names.len()];
        let over = wait.is_none();
        let wait = wait.unwrap_or_default();
        let locks = Self { names, by, wait, locking, states, held: BTreeMap::new(), queue: None, over };
        let first = if locking == Locking::Each { wait } else { Duration::ZERO };
        let ask = (0..locks.names.len()).map(|host| Decision::Tell(host, locks.order(first)));
        let decisions = if over { vec![Decision::Done] } else { ask.collect() };
        (locks, decisions)
    }

    fn order(&self, wait: Duration) -> Order {
        Order::Lock { wait, by: self.by.clone() }
    }

    /// A host answers.
    pub(super) fn answer(&mut self, host: usize, answer: LockAnswer, now: Instant) -> Vec<Decision> {
        let waits = self.states.get(host).is_some_and(|state| *state == State::Asked);
        if self.over || !waits {
            return Vec::new();
        }
        let state = match answer {
            LockAnswer::Taken { place } => State::Taken(place),
            LockAnswer::Held { place, by } => {
                if self.locking == Locking::Each || self.queue.is_some() {
                    return self.busy(host, &by, now);
                }
                self.held.insert(host, by);
                State::Free(place)
            }
        };
        self.set(host, state);
        self.go_on(now)
    }

    /// A host has come to its end.
    pub(super) fn ended(&mut self, host: usize, now: Instant) -> Vec<Decision> {
        let waited = self.states.get(host).is_some_and(|state| *state == State::Asked);
        self.set(host, State::Ended);
        self.held.remove(&host);
        if self.over || !waited { Vec::new() } else { self.go_on(now) }
    }

    /// Whether every host that takes part is locked.
    pub(super) fn are_taken(&self) -> bool {
        self.over
    }

    fn set(&mut self, host: usize, state: State) {
        if let Some(known) = self.states.get_mut(host) {
            *known = state;
        }
    }

    fn name(&self, host: usize) -> &str {
        self.names.get(host).map_or("", String::as_str)
    }

    /// Once every host that was asked has answered.
    fn go_on(&mut self, now: Instant) -> Vec<Decision> {
        if self.states.contains(&State::Asked) {
            return Vec::new();
        }
        if let Some(decisions) = self.twins() {
            return decisions;
        }
        if let Some((queue, until)) = &mut self.queue {
            let until = *until;
            while let Some(next) = queue.pop() {
                if self.states.get(next) != Some(&State::Ended) {
                    self.set(next, State::Asked);
                    return vec![Decision::Tell(next, self.order(until.saturating_duration_since(now)))];
                }
            }
            return self.done();
        }
        let Some((host, by)) = self.held.first_key_value().map(|(host, by)| (*host, by.clone())) else {
            return self.done();
        };
        if self.wait.is_zero() {
            return self.busy(host, &by, now);
        }
        let wait = show_duration(self.wait);
        let mut decisions = vec![Decision::Say(format!(
            "another run is at work on {}: {by}; this one waits for it, {wait} at most, and changes nothing before",
            self.name(host)
        ))];
        let mut order: Vec<(String, usize)> = Vec::new();
        for (host, state) in self.states.iter_mut().enumerate() {
            match state {
                State::Taken(place) => {
                    decisions.push(Decision::Tell(host, Order::Unlock));
                    order.push((place.clone(), host));
                    *state = State::Free(place.clone());
                }
                State::Free(place) => order.push((place.clone(), host)),
                State::Asked | State::Ended => {}
            }
        }
        order.sort();
        self.queue = Some((order.into_iter().rev().map(|(_, host)| host).collect(), now + self.wait));
        decisions.extend(self.go_on(now));
        decisions
    }

    fn done(&mut self) -> Vec<Decision> {
        self.over = true;
        vec![Decision::Done]
    }

    /// Two names for one machine cannot both be locked, nor should they be worked on side by side.
    fn twins(&mut self) -> Option<Vec<Decision>> {
        let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
        let mut twins = None;
        for (host, state) in self.states.iter().enumerate() {
            if let State::Taken(place) | State::Free(place) = state
                && let Some(first) = seen.insert(place, host)
            {
                twins = Some((first, host));
                break;
            }
        }
        let (first, second) = twins?;
        let message = format!("`{}` and `{}` are the same machine", self.name(first), self.name(second));
        let failure = Failure::new(message).hint("name it once in the inventory; a host may be in several groups");
        self.over = true;
        Some(self.end_all(second, &failure, "nothing was done, as two hosts are the same machine", FailureKind::Step))
    }

    /// Another run did not end in time.
    fn busy(&mut self, host: usize, by: &str, now: Instant) -> Vec<Decision> {
        let name = self.name(host).to_owned();
        let limit = Failure::timeout("lock_wait", self.wait).message;
        let message = format!("another run is at work on {name}: {by}");
        let failure = Failure::of(FailureKind::Busy, message).because(limit);
        if self.locking == Locking::Each {
            self.set(host, State::Ended);
            let mut decisions = vec![Decision::Ends(host, failure.hint("ask again when it has ended"))];
            decisions.extend(self.go_on(now));
            return decisions;
        }
        let failure = failure.hint(format!(
            "nothing was changed on any host; wait for it, have this run wait longer (`--lock-wait 10m`), or leave the host out: `--limit '!{name}'`"
        ));
        self.over = true;
        self.end_all(host, &failure, &format!("nothing was done, as {name} is busy"), FailureKind::Busy)
    }

    /// Ends every host: one with the reason, the others because of it.
    fn end_all(&mut self, host: usize, failure: &Failure, others: &str, kind: FailureKind) -> Vec<Decision> {
        let mut decisions = vec![Decision::Ends(host, failure.clone())];
        for (other, state) in self.states.iter_mut().enumerate() {
            if *state != State::Ended && other != host {
                decisions.push(Decision::Ends(other, Failure::of(kind, others)));
            }
            *state = State::Ended;
        }
        decisions
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hosts with locks, as helpers have them, and runs that take them, all in one place.
    struct Fleet {
        holders: BTreeMap<String, usize>,
    }

    struct Run {
        locks: Locks,
        /// The machine of each host.
        places: Vec<&'static str>,
        /// Questions that are not answered yet, and whether the host waits.
        open: Vec<(usize, bool)>,
        done: bool,
        ended: Vec<(usize, Failure)>,
        said: Vec<String>,
    }

    impl Run {
        fn new(places: &[&'static str], wait: u64, locking: Locking) -> Self {
            let names = places.iter().map(|place| format!("h-{place}")).collect();
            let (locks, first) = Locks::new(names, "run".to_owned(), Some(Duration::from_secs(wait)), locking);
            let places = places.to_vec();
            let mut run = Self { locks, places, open: Vec::new(), done: false, ended: Vec::new(), said: Vec::new() };
            run.carry_out(first, &mut Fleet { holders: BTreeMap::new() }, 0);
            run
        }

        fn carry_out(&mut self, decisions: Vec<Decision>, fleet: &mut Fleet, number: usize) {
            for decision in decisions {
                match decision {
                    Decision::Tell(host, Order::Lock { wait, .. }) => self.open.push((host, !wait.is_zero())),
                    Decision::Tell(host, Order::Unlock) => {
                        assert_eq!(fleet.holders.remove(self.places[host]), Some(number));
                    }
                    Decision::Tell(_, other) => panic!("{other:?}"),
                    Decision::Say(text) => self.said.push(text),
                    Decision::Ends(host, failure) => {
                        self.ended.push((host, failure));
                        let own = fleet.holders.get(self.places[host]) == Some(&number);
                        if own {
                            fleet.holders.remove(self.places[host]);
                        }
                    }
                    Decision::Done => self.done = true,
                }
            }
        }

        /// Answers one question, if it can be answered; a host that waits answers only when it is free, or when time is `up`.
        fn answer(&mut self, at: usize, fleet: &mut Fleet, number: usize, up: bool) -> bool {
            let Some((host, waits)) = self.open.get(at).copied() else { return false };
            let place = self.places[host].to_owned();
            let answer = match fleet.holders.get(&place) {
                None => {
                    fleet.holders.insert(place.clone(), number);
                    LockAnswer::Taken { place }
                }
                Some(_) if waits && !up => return false,
                Some(other) => LockAnswer::Held { place, by: format!("run {other}") },
            };
            self.open.remove(at);
            let decisions = self.locks.answer(host, answer, Instant::now());
            self.carry_out(decisions, fleet, number);
            true
        }

        fn is_over(&self) -> bool {
            self.done || self.ended.len() == self.places.len()
        }
    }

    proptest::proptest! {
        /// However the answers of two runs over the same hosts come in, one of them gets all hosts while the other has none.
        #[test]
        fn of_two_runs_one_gets_all_hosts_and_they_never_wait_for_each_other(
            choices in proptest::collection::vec(proptest::prelude::any::<u16>(), 200),
            shift in 0usize..4,
        ) {
            let places = ["a", "b", "c", "d"];
            let mut other = places;
            other.rotate_left(shift);
            let mut fleet = Fleet { holders: BTreeMap::new() };
            let mut runs = [Run::new(&places, 60, Locking::Together), Run::new(&other, 60, Locking::Together)];
            let mut choices = choices.into_iter().cycle();
            for _ in 0..400 {
                let choice = usize::from(choices.next().unwrap());
                let number = choice % 2;
                let open = runs[number].open.len().max(1);
                runs[number].answer(choice / 2 % open, &mut fleet, number, false);
                let both = runs.iter().filter(|run| run.done).count();
                if both == 1 {
                    let winner = usize::from(runs[1].done);
                    proptest::prop_assert!(fleet.holders.values().filter(|holder| **holder == winner).count() == 4);
                    break;
                }
            }
            proptest::prop_assert!(runs.iter().any(|run| run.done), "they wait for each other");
            // The winner ends; the other one gets them all.
            let winner = usize::from(runs[1].done);
            fleet.holders.retain(|_, holder| *holder != winner);
            let loser = 1 - winner;
            for _ in 0..20 {
                runs[loser].answer(0, &mut fleet, loser, false);
            }
            proptest::prop_assert!(runs[loser].done && fleet.holders.len() == 4);
        }
    }

    #[test]
    fn a_run_that_waits_in_vain_leaves_every_host_alone_and_names_who_holds_one() {
        for wait in [0, 10] {
            let mut fleet = Fleet { holders: BTreeMap::from([("b".to_owned(), 7)]) };
            let mut run = Run::new(&["c", "b", "a"], wait, Locking::Together);
            while run.answer(0, &mut fleet, 0, true) {}
            assert!(run.is_over() && !run.done);
            assert_eq!(fleet.holders, BTreeMap::from([("b".to_owned(), 7)]));
            let (host, failure) = &run.ended[0];
            assert_eq!((*host, failure.kind), (1, FailureKind::Busy));
            assert!(failure.message.contains("another run is at work on h-b: run 7"), "{failure}");
            assert!(failure.causes[0].contains("`lock_wait`"), "{failure}");
            assert!(run.ended.iter().all(|(_, failure)| failure.kind == FailureKind::Busy));
            assert_eq!(run.said.len(), usize::from(wait > 0));
        }
    }

    #[test]
    fn hosts_that_are_gone_hold_up_nobody_and_looks_go_on_without_the_busy_one() {
        let mut fleet = Fleet { holders: BTreeMap::from([("b".to_owned(), 7)]) };
        let mut run = Run::new(&["a", "b", "c"], 10, Locking::Together);
        run.open.retain(|(host, _)| *host != 2);
        let ended = run.locks.ended(2, Instant::now());
        run.carry_out(ended, &mut fleet, 0);
        while run.answer(0, &mut fleet, 0, false) {}
        assert!(!run.is_over());
        fleet.holders.remove("b");
        while run.answer(0, &mut fleet, 0, false) {}
        assert!(run.done);
        let mut fleet = Fleet { holders: BTreeMap::from([("b".to_owned(), 7)]) };
        let mut looks = Run::new(&["a", "b", "c"], 10, Locking::Each);
        while looks.answer(0, &mut fleet, 0, true) {}
        assert!(looks.done);
        assert_eq!(looks.ended.len(), 1);
    }

    #[test]
    fn one_machine_under_two_names_is_told_as_that() {
        let mut fleet = Fleet { holders: BTreeMap::new() };
        let mut run = Run::new(&["a", "a"], 10, Locking::Together);
        while run.answer(0, &mut fleet, 0, true) {}
        assert!(run.is_over() && !run.done);
        assert!(run.ended[0].1.message.contains("are the same machine"), "{:?}", run.ended);
    }
}
