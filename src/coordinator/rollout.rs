//! One rollout's way through its stages: which nodes take part in each, and when it turns back.
//!
//! Nothing here speaks to anybody: stages come in, decisions go out, so every way through can be tried in a test.

use std::collections::BTreeSet;

use super::logs::Logs;
use crate::event::{RolloutNews, Target};
use crate::plan::{RolloutInfo, RolloutPart};
use crate::system::access_log::Served;
use crate::value::{Map, Value};

/// The kind whose result tells how a node stands, and the one that tells it of a node that was put back.
pub(super) const STANDING: &str = "standing";
pub(super) const FORMER: &str = "former";

/// The kind whose result tells what nodes served while a batch settled.
pub(super) const SETTLE: &str = "settle";

/// What becomes of a stage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// It runs, without these nodes.
    Go { without: Vec<String> },
    /// It does not take place.
    Skip,
}

/// Where a rollout goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// To the new state.
    Forward,
    /// Too many nodes failed: what was touched is put back.
    Back,
    /// A person has halted it: whoever was only taken out of traffic goes back, and nothing more is done.
    Halted,
    /// Nothing more is done.
    Stopped,
}

/// One rollout.
#[derive(Clone, Debug)]
pub(super) struct Rollout {
    info: RolloutInfo,
    /// Check mode looks at every batch, whatever is found.
    check: bool,
    way: Way,
    /// Nodes whose standing was told, those of them that need something, and those that are not well before anything is done.
    known: BTreeSet<String>,
    needing: BTreeSet<String>,
    sick: BTreeSet<String>,
    /// Nodes that are sick and differ from what `change` declares: the first batch mends them, where there is one for that.
    differing: BTreeSet<String>,
    mended: BTreeSet<String>,
    /// Nodes that a run was at work on when it was broken off: whatever they are, this one goes on with them.
    begun: BTreeSet<String>,
    /// Nodes that do not run: there is no traffic to take away, and nothing to settle.
    resting: BTreeSet<String>,
    /// Nodes that ran before and do not any more.
    died: BTreeSet<String>,
    /// Nodes that the balancers were told to send nothing to: whatever became of them, they are told the other thing, too.
    drained: BTreeSet<String>,
    /// Nodes that failed, and those that could not be put back.
    failed: BTreeSet<String>,
    not_back: BTreeSet<String>,
    /// Nodes that were not changed because rollouts are halted.
    halted: BTreeSet<String>,
    /// Who halted them, when and why: found on the host of a node that needs something, or when such a node was to be changed.
    halt: Option<String>,
    /// Batches that were begun.
    touched: BTreeSet<usize>,
    /// What access logs say of the while that the current batch settles.
    logs: Logs,
    /// What the nodes that were not changed yet served while the last batch settled.
    others: Served,
    news: Vec<RolloutNews>,
}

impl Rollout {
    pub(super) fn new(info: RolloutInfo, check: bool) -> Self {
        let put_back = info.put_back;
        let all: BTreeSet<String> = info.batches.iter().flatten().cloned().collect();
        let touched = if put_back { (0..info.batches.len()).collect() } else { BTreeSet::new() };
        Self {
            check,
            way: if put_back { Way::Back } else { Way::Forward },
            known: BTreeSet::new(),
            needing: if put_back { all } else { BTreeSet::new() },
            sick: BTreeSet::new(),
            differing: BTreeSet::new(),
            mended: BTreeSet::new(),
            begun: BTreeSet::new(),
            resting: BTreeSet::new(),
            died: BTreeSet::new(),
            drained: BTreeSet::new(),
            failed: BTreeSet::new(),
            not_back: BTreeSet::new(),
            halted: BTreeSet::new(),
            halt: None,
            touched,
            logs: Logs::default(),
            others: Served::default(),
            news: Vec::new(),
            info,
        }
    }

    pub(super) fn title(&self) -> &str {
        &self.info.title
    }

    /// What there is to say since the last time.
    pub(super) fn news(&mut self) -> Vec<RolloutNews> {
        std::mem::take(&mut self.news)
    }

    /// Whether it came to another end than the declared one.
    pub(super) fn is_refused(&self) -> bool {
        matches!(self.way, Way::Stopped | Way::Halted)
            || !self.not_back.is_empty()
            || (self.way == Way::Back && !self.info.put_back)
    }

    /// Whether what stands behind it in the playbook must not be done: a play with the same container would make all nodes anew at once.
    /// Where it is about configuration alone, plays go on: nodes stay as they were, and a play may mend the one that is sick.
    pub(super) fn stops_the_rest(&self) -> bool {
        self.is_refused() && self.info.changes && !self.info.put_back
    }

    /// A node tells how it stands.
    pub(super) fn standing(&mut self, target: &Target, output: &Map) {
        let Some(node) = target.node.clone() else { return };
        let says = |name: &str| output.get(name) == Some(&Value::Bool(true));
        if says("pending") {
            self.needing.insert(node.clone());
            if let Some(Value::Str(why)) = output.get("halted") {
                self.halt = Some(why.clone());
            }
        }
        if says("sick") {
            self.sick.insert(node.clone());
        }
        if says("differs") {
            self.differing.insert(node.clone());
        }
        if says("begun") {
            self.begun.insert(node.clone());
        } else if output.get("running") == Some(&Value::Bool(false)) {
            let newly = self.resting.insert(node.clone());
            if newly && self.known.contains(&node) {
                self.died.insert(node.clone());
            }
        }
        self.known.insert(node);
    }

    /// A host tells what its nodes served while a batch settled.
    pub(super) fn served(&mut self, output: &Map) {
        self.logs.hear(output);
    }

    /// A node was not changed because rollouts are halted on its host.
    pub(super) fn halted(&mut self, target: &Target, why: &str) {
        self.halted.extend(target.node.clone());
        self.halt = Some(why.to_owned());
    }

    /// What becomes of a stage that is next.
    pub(super) fn decide(&mut self, part: RolloutPart) -> Decision {
        let (batch, back) = match part {
            RolloutPart::Prepare if self.way == Way::Forward => return Decision::Go { without: Vec::new() },
            RolloutPart::Prepare => return Decision::Skip,
            RolloutPart::Confirm => {
                let left: Vec<String> = self.failed.iter().cloned().collect();
                let goes = self.way == Way::Forward && !self.needing.is_empty();
                return if goes { Decision::Go { without: left } } else { Decision::Skip };
            }
            RolloutPart::Drain(batch)
            | RolloutPart::Change(batch)
            | RolloutPart::Ready(batch)
            | RolloutPart::Settle(batch) => (batch, false),
            RolloutPart::DrainBack(batch) | RolloutPart::Back(batch) | RolloutPart::ReadyBack(batch) => (batch, true),
        };
        let planned = self.info.batches.get(batch).cloned().unwrap_or_default();
        let members = self.members(batch);
        if self.way == Way::Halted {
            let here = matches!(part, RolloutPart::Ready(_)) && members.iter().any(|node| self.halted.contains(node));
            let stays_out = |node: &&String| {
                self.failed.contains(*node) || !self.needing.contains(*node) || !members.contains(*node)
            };
            let without = planned.iter().filter(stays_out).cloned().collect();
            return if here { Decision::Go { without } } else { Decision::Skip };
        }
        // What came through a stage of the way back goes into traffic again, whatever comes of the others of its batch.
        let half_back = self.way == Way::Stopped
            && matches!(part, RolloutPart::ReadyBack(_))
            && members.iter().any(|node| self.not_back.contains(node));
        let right_way = half_back || self.way == if back { Way::Back } else { Way::Forward };
        if !right_way || (back && !self.touched.contains(&batch)) {
            return Decision::Skip;
        }
        let changes = matches!(part, RolloutPart::Change(_) | RolloutPart::Back(_));
        let readies = matches!(part, RolloutPart::Ready(_) | RolloutPart::ReadyBack(_));
        // What was down and runs again is awaited, too: the next batch must not go before the balancer has it back.
        let started = |node: &String| !back && self.mended.contains(node);
        let out = |node: &String| {
            let rests = self.resting.contains(node) && !(readies && (self.drained.contains(node) || started(node)));
            let lost =
                !changes && rests || if back { self.not_back.contains(node) } else { self.failed.contains(node) };
            lost || !self.needing.contains(node) || !members.contains(node)
        };
        let without: Vec<String> = planned.iter().filter(|node| out(node)).cloned().collect();
        if without.len() == planned.len() {
            return Decision::Skip;
        }
        if matches!(part, RolloutPart::Drain(_) | RolloutPart::Change(_)) {
            self.touched.insert(batch);
        }
        if matches!(part, RolloutPart::Drain(_) | RolloutPart::DrainBack(_)) {
            self.drained.extend(members.iter().filter(|node| !without.contains(node)).cloned());
        }
        Decision::Go { without }
    }

    /// The nodes of a batch. The first one, where it is for mending, has those that were mended; the others do not have them again.
    fn members(&self, batch: usize) -> BTreeSet<String> {
        let planned = self.info.batches.get(batch).into_iter().flatten();
        let mends = self.info.mends && batch == 0;
        planned.filter(|node| self.mended.contains(*node) == mends).cloned().collect()
    }

    /// A stage is over; `failed` did not come through.
    pub(super) fn over(&mut self, part: RolloutPart, failed: &BTreeSet<String>) {
        match part {
            RolloutPart::Prepare => self.prepared(failed),
            RolloutPart::Drain(_) | RolloutPart::Change(_) | RolloutPart::Ready(_) | RolloutPart::Settle(_) => {
                let mut failed = failed.clone();
                if let RolloutPart::Settle(batch) = part {
                    failed.extend(self.judged(batch));
                }
                let died: Vec<String> = self.died.difference(&self.failed).cloned().collect();
                if !died.is_empty() {
                    failed.extend(died.iter().cloned());
                    self.news.push(RolloutNews::Died { nodes: died });
                }
                self.failed.extend(failed.difference(&self.halted).cloned());
                if matches!(part, RolloutPart::Change(_)) {
                    let still_sick = |node: &String| self.failed.contains(node) || self.halted.contains(node);
                    self.sick.retain(|node| !self.mended.contains(node) || still_sick(node));
                }
                if !self.halted.is_empty() && self.way == Way::Forward {
                    self.way = Way::Halted;
                    let nodes = number(self.touched_nodes() - self.halted.len());
                    self.news.push(RolloutNews::Halted { nodes, why: self.halt.clone().unwrap_or_default() });
                    return;
                }
                let down: BTreeSet<&String> = self.failed.union(&self.sick).collect();
                if !failed.is_empty() && down.len() > self.info.budget && !self.check {
                    self.way = Way::Back;
                    self.news.push(RolloutNews::PutsBack {
                        failed: self.failed.iter().cloned().collect(),
                        budget: number(self.info.budget),
                        nodes: number(self.touched_nodes()),
                    });
                }
            }
            RolloutPart::Confirm => self.failed.extend(failed.iter().cloned()),
            RolloutPart::DrainBack(_) => {}
            RolloutPart::Back(_) | RolloutPart::ReadyBack(_) => {
                let mut failed = failed.clone();
                if matches!(part, RolloutPart::ReadyBack(_)) {
                    // A balancer waits in vain for who does not run; it is told, and what he starts with is right again.
                    failed.retain(|node| !self.resting.contains(node));
                }
                self.not_back.extend(failed.iter().cloned());
                // What cannot be put back is for a person: going on could only take down more.
                if !failed.is_empty() {
                    self.way = Way::Stopped;
                }
            }
        }
    }

    /// Every stage is over, or was left out.
    pub(super) fn ended(&mut self) {
        let nodes = number(self.touched_nodes());
        let last = match self.way {
            _ if !self.not_back.is_empty() => {
                RolloutNews::NotPutBack { nodes: self.not_back.iter().cloned().collect() }
            }
            Way::Back => RolloutNews::PutBack { nodes, stays: self.info.stays.clone() },
            Way::Forward if !self.needing.is_empty() && !self.check => {
                RolloutNews::Done { nodes, left: self.failed.iter().cloned().collect() }
            }
            Way::Forward | Way::Halted | Way::Stopped => return,
        };
        self.news.push(last);
    }

    fn prepared(&mut self, failed: &BTreeSet<String>) {
        let all: BTreeSet<&String> = self.info.batches.iter().flatten().collect();
        if self.check {
            // What was not laid out yet would be.
            return;
        }
        if !failed.is_empty() {
            self.way = Way::Stopped;
            self.news.push(RolloutNews::Refused { failed: failed.iter().cloned().collect() });
            return;
        }
        // A node that nobody could look at is not well.
        self.sick.extend(all.iter().filter(|node| !self.known.contains(**node)).map(|node| (*node).clone()));
        if self.needing.is_empty() {
            self.news.push(RolloutNews::Nothing { nodes: number(all.len()) });
            return;
        }
        if let Some(why) = self.halt.clone() {
            self.way = Way::Stopped;
            self.news.push(RolloutNews::Halted { nodes: 0, why });
            return;
        }
        if self.info.mends {
            let mended = self.sick.intersection(&self.differing).filter(|node| !self.begun.contains(*node));
            self.mended = mended.cloned().collect();
        }
        let sick = self.sick.difference(&self.begun).filter(|node| !self.mended.contains(*node));
        let sick: Vec<String> = sick.cloned().collect();
        if sick.len() > self.info.budget {
            self.way = Way::Stopped;
            self.news.push(RolloutNews::Sick { nodes: sick, budget: number(self.info.budget) });
            return;
        }
        let needing = |batch: usize| self.members(batch).intersection(&self.needing).count();
        let sizes: Vec<usize> = (0..self.info.batches.len()).map(needing).filter(|size| *size > 0).collect();
        self.news.push(RolloutNews::Begins {
            nodes: number(self.needing.len()),
            of: number(all.len()),
            batches: sizes.iter().copied().map(number).collect(),
        });
    }

    /// The nodes of a batch that their access logs speak against.
    fn judged(&mut self, batch: usize) -> BTreeSet<String> {
        let logs = std::mem::take(&mut self.logs);
        let Some(judged) = self.info.judged.filter(|_| !self.check) else { return BTreeSet::new() };
        let settled = |node: &&String| self.needing.contains(*node) && !self.resting.contains(*node);
        let own: Vec<String> = self.members(batch).iter().filter(settled).cloned().collect();
        let later = (batch + 1..self.info.batches.len()).flat_map(|batch| self.members(batch));
        let later: Vec<String> = later.filter(|node| settled(&node)).collect();
        let verdict = logs.judge(judged, &own, &later, self.others);
        self.others = verdict.others;
        self.news.extend(verdict.news);
        verdict.failed
    }

    fn touched_nodes(&self) -> usize {
        let members = self.touched.iter().flat_map(|batch| self.members(*batch));
        members.filter(|node| self.needing.contains(node)).count()
    }
}

fn number(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(batches: &[&[&str]], budget: usize) -> RolloutInfo {
        let batches = batches.iter().map(|batch| batch.iter().map(|node| (*node).to_owned()).collect()).collect();
        RolloutInfo { title: "t".to_owned(), batches, budget, ..RolloutInfo::default() }
    }

    fn tell(rollout: &mut Rollout, node: &str, pending: bool, sick: bool) {
        let target = Target { host: "h".to_owned(), node: Some(node.to_owned()) };
        let output = Map::from([("pending".to_owned(), Value::Bool(pending)), ("sick".to_owned(), Value::Bool(sick))]);
        rollout.standing(&target, &output);
    }

    /// The parts of a rollout with so many batches, in the order of the plan.
    fn parts(batches: usize) -> Vec<RolloutPart> {
        use RolloutPart as P;
        let forward = (0..batches).flat_map(|b| [P::Drain(b), P::Change(b), P::Ready(b), P::Settle(b)]);
        let back = (0..batches).rev().flat_map(|b| [P::DrainBack(b), P::Back(b), P::ReadyBack(b)]);
        [P::Prepare].into_iter().chain(forward).chain([P::Confirm]).chain(back).collect()
    }

    /// Goes through all stages; `fails` says which node fails in which. What was done to whom.
    fn walk(
        rollout: &mut Rollout,
        all: &[&str],
        fails: impl Fn(RolloutPart, &str) -> bool,
    ) -> Vec<(RolloutPart, String)> {
        let batches = rollout.info.batches.clone();
        let mut done = Vec::new();
        for part in parts(batches.len()) {
            let Decision::Go { without } = rollout.decide(part) else { continue };
            let members: Vec<String> = match part {
                RolloutPart::Prepare | RolloutPart::Confirm => all.iter().map(|node| (*node).to_owned()).collect(),
                RolloutPart::Drain(b)
                | RolloutPart::Change(b)
                | RolloutPart::Ready(b)
                | RolloutPart::Settle(b)
                | RolloutPart::DrainBack(b)
                | RolloutPart::Back(b)
                | RolloutPart::ReadyBack(b) => batches[b].clone(),
            };
            let members: Vec<String> = members.into_iter().filter(|node| !without.contains(node)).collect();
            let failed = members.iter().filter(|node| fails(part, node)).cloned().collect();
            done.extend(members.into_iter().map(|node| (part, node)));
            rollout.over(part, &failed);
        }
        rollout.ended();
        done
    }

    fn ready(batches: &[&[&str]], budget: usize) -> (Rollout, Vec<String>) {
        let mut rollout = Rollout::new(info(batches, budget), false);
        let all: Vec<String> = batches.iter().copied().flatten().map(|node| (*node).to_owned()).collect();
        all.iter().for_each(|node| tell(&mut rollout, node, true, false));
        (rollout, all)
    }

    #[test]
    fn all_goes_well_and_nothing_is_put_back() {
        let (mut rollout, _) = ready(&[&["a"], &["b", "c"]], 0);
        let done = walk(&mut rollout, &["a", "b", "c"], |_, _| false);
        assert!(!done.iter().any(|(part, _)| *part >= RolloutPart::DrainBack(0)), "{done:?}");
        assert_eq!(done.iter().filter(|(part, _)| matches!(part, RolloutPart::Change(_))).count(), 3);
        assert!(!rollout.is_refused());
        assert!(matches!(rollout.news().last(), Some(RolloutNews::Done { nodes: 3, left }) if left.is_empty()));
    }

    #[test]
    fn what_needs_nothing_is_left_alone() {
        let mut rollout = Rollout::new(info(&[&["a"], &["b", "c"]], 0), false);
        for (node, pending) in [("a", false), ("b", true), ("c", false)] {
            tell(&mut rollout, node, pending, false);
        }
        let done = walk(&mut rollout, &["a", "b", "c"], |_, _| false);
        let touched: Vec<&str> = done
            .iter()
            .filter(|(part, _)| matches!(part, RolloutPart::Change(_)))
            .map(|(_, node)| node.as_str())
            .collect();
        assert_eq!(touched, ["b"]);
        let mut rollout = Rollout::new(info(&[&["a"]], 0), false);
        tell(&mut rollout, "a", false, false);
        let done = walk(&mut rollout, &["a"], |_, _| false);
        assert_eq!(done, [(RolloutPart::Prepare, "a".to_owned())]);
        assert_eq!(rollout.news(), [RolloutNews::Nothing { nodes: 1 }]);
    }

    #[test]
    fn what_is_not_prepared_touches_nothing() {
        let (mut rollout, _) = ready(&[&["a"], &["b"]], 5);
        let done = walk(&mut rollout, &["a", "b"], |part, node| part == RolloutPart::Prepare && node == "b");
        assert!(done.iter().all(|(part, _)| *part == RolloutPart::Prepare), "{done:?}");
        assert!(rollout.is_refused());
    }

    #[test]
    fn sick_nodes_count_before_the_start() {
        for (budget, goes) in [(0, false), (1, true)] {
            let mut rollout = Rollout::new(info(&[&["a"], &["b"]], budget), false);
            tell(&mut rollout, "a", true, false);
            tell(&mut rollout, "b", true, true);
            let done = walk(&mut rollout, &["a", "b"], |_, _| false);
            assert_eq!(done.iter().any(|(part, _)| matches!(part, RolloutPart::Change(_))), goes);
        }
        // One that nobody could look at is sick.
        let mut rollout = Rollout::new(info(&[&["a"], &["b"]], 0), false);
        tell(&mut rollout, "a", true, false);
        walk(&mut rollout, &["a", "b"], |_, _| false);
        assert!(rollout.is_refused());
    }

    /// A rollout of an image whose first batch mends: `a` is well, `b` sick and unlike what is declared, `c` well and new to it.
    fn mending(fails: bool, runs: bool) -> (Rollout, Vec<(RolloutPart, String)>) {
        let info = RolloutInfo { mends: true, changes: true, ..info(&[&["a", "b", "c"], &["a", "b"], &["c"]], 0) };
        let mut rollout = Rollout::new(info, false);
        for (node, pending, sick) in [("a", false, false), ("b", true, true), ("c", true, false)] {
            let target = Target { host: "h".to_owned(), node: Some(node.to_owned()) };
            let flags = [("pending", pending), ("sick", sick), ("differs", pending), ("running", runs || !sick)];
            let output = flags.map(|(name, flag)| (name.to_owned(), Value::Bool(flag)));
            rollout.standing(&target, &output.into());
        }
        let fails = |part: RolloutPart, node: &str| fails && part == RolloutPart::Change(0) && node == "b";
        let done = walk(&mut rollout, &["a", "b", "c"], fails);
        (rollout, done)
    }

    #[test]
    fn a_sick_node_that_the_change_would_mend_goes_first_and_alone() {
        use RolloutPart as P;
        let (mut rollout, done) = mending(false, true);
        let touched: Vec<(P, &str)> = done.iter().map(|(part, node)| (*part, node.as_str())).collect();
        let of = |batch, node| {
            [P::Drain(batch), P::Change(batch), P::Ready(batch), P::Settle(batch)].map(|part| (part, node))
        };
        assert_eq!(touched[3..11], [of(0, "b"), of(2, "c")].concat());
        assert!(!rollout.is_refused());
        let begins = RolloutNews::Begins { nodes: 2, of: 3, batches: vec![1, 1] };
        assert_eq!(rollout.news().first(), Some(&begins));

        // When it does not become well the rest stays as it is.
        let (rollout, done) = mending(true, true);
        let back: Vec<&str> =
            done.iter().filter(|(part, _)| matches!(part, P::Back(_))).map(|(_, node)| node.as_str()).collect();
        assert_eq!(back, ["b"]);
        assert!(!done.iter().any(|(part, node)| *part == P::Change(2) && node == "c"), "{done:?}");
        assert!(rollout.is_refused());
    }

    #[test]
    fn what_was_stopped_and_is_mended_is_in_traffic_again_before_the_next_goes() {
        let (rollout, done) = mending(false, false);
        let place = |part: RolloutPart, node: &str| done.iter().position(|done| *done == (part, node.to_owned()));
        let ready = place(RolloutPart::Ready(0), "b");
        assert!(ready.is_some() && ready < place(RolloutPart::Drain(2), "c"), "{done:?}");
        assert_eq!(place(RolloutPart::Drain(0), "b"), None);
        assert!(!rollout.is_refused());
    }

    #[test]
    fn what_a_broken_off_run_was_at_work_on_is_gone_on_with() {
        let mut rollout = Rollout::new(info(&[&["a"], &["b"]], 0), false);
        tell(&mut rollout, "a", true, false);
        let target = Target { host: "h".to_owned(), node: Some("b".to_owned()) };
        let output = ["pending", "sick", "begun"].map(|name| (name.to_owned(), Value::Bool(true)));
        rollout.standing(&target, &output.into_iter().chain([("running".to_owned(), Value::Bool(false))]).collect());
        let done = walk(&mut rollout, &["a", "b"], |_, _| false);
        assert!(done.contains(&(RolloutPart::Ready(1), "b".to_owned())), "it was taken out of traffic; {done:?}");
    }

    #[test]
    fn within_the_budget_it_goes_on_without_the_failed_one() {
        let (mut rollout, _) = ready(&[&["a"], &["b", "c"], &["d"]], 1);
        let done =
            walk(&mut rollout, &["a", "b", "c", "d"], |part, node| part == RolloutPart::Change(1) && node == "b");
        assert!(done.contains(&(RolloutPart::Ready(1), "c".to_owned())));
        assert!(!done.contains(&(RolloutPart::Ready(1), "b".to_owned())), "it stays out of traffic");
        assert!(done.contains(&(RolloutPart::Change(2), "d".to_owned())));
        assert!(!done.contains(&(RolloutPart::Confirm, "b".to_owned())));
        assert!(matches!(rollout.news().last(), Some(RolloutNews::Done { left, .. }) if left == &["b"]));
    }

    #[test]
    fn a_halt_leaves_everything_as_it_is_and_in_traffic() {
        let (mut rollout, _) = ready(&[&["a"], &["b"], &["c"]], 0);
        for part in [RolloutPart::Prepare, RolloutPart::Drain(0), RolloutPart::Change(0), RolloutPart::Ready(0)] {
            assert!(matches!(rollout.decide(part), Decision::Go { .. }), "{part:?}");
            rollout.over(part, &BTreeSet::new());
        }
        assert!(matches!(rollout.decide(RolloutPart::Drain(1)), Decision::Go { .. }));
        rollout.over(RolloutPart::Drain(1), &BTreeSet::new());
        assert!(matches!(rollout.decide(RolloutPart::Change(1)), Decision::Go { .. }));
        rollout.halted(&Target { host: "h".to_owned(), node: Some("b".to_owned()) }, "a sale");
        rollout.over(RolloutPart::Change(1), &BTreeSet::from(["b".to_owned()]));
        let goes: Vec<RolloutPart> = parts(3)
            .into_iter()
            .skip_while(|part| *part != RolloutPart::Ready(1))
            .filter(|part| rollout.decide(*part) != Decision::Skip)
            .collect();
        assert_eq!(goes, [RolloutPart::Ready(1)]);
        assert!(rollout.is_refused());
        assert_eq!(rollout.news().last(), Some(&RolloutNews::Halted { nodes: 1, why: "a sale".to_owned() }));
    }

    #[test]
    fn what_is_halted_already_is_not_begun() {
        for (pending, goes) in [(true, false), (false, true)] {
            let mut rollout = Rollout::new(info(&[&["a"], &["b"]], 0), false);
            tell(&mut rollout, "a", true, false);
            let target = Target { host: "h".to_owned(), node: Some("b".to_owned()) };
            let output = [("pending", Value::Bool(pending)), ("halted", Value::from("a sale"))];
            rollout.standing(&target, &output.map(|(name, value)| (name.to_owned(), value)).into());
            let done = walk(&mut rollout, &["a", "b"], |_, _| false);
            assert_eq!(done.iter().any(|(part, _)| *part != RolloutPart::Prepare), goes, "{done:?}");
            assert_eq!(rollout.is_refused(), !goes);
        }
    }

    #[test]
    fn who_dies_on_the_way_has_failed_and_is_given_back_to_the_balancer() {
        let (mut rollout, _) = ready(&[&["a"], &["b"]], 0);
        let mut done = Vec::new();
        for part in parts(2) {
            if rollout.decide(part) == Decision::Skip {
                continue;
            }
            if part == RolloutPart::Change(1) {
                let target = Target { host: "h".to_owned(), node: Some("b".to_owned()) };
                rollout.standing(&target, &Map::from([("running".to_owned(), Value::Bool(false))]));
            }
            done.push(part);
            // The balancer waits for it in vain.
            let failed = if part == RolloutPart::ReadyBack(1) { vec!["b".to_owned()] } else { Vec::new() };
            rollout.over(part, &failed.into_iter().collect());
        }
        rollout.ended();
        assert!(!done.contains(&RolloutPart::Ready(1)) && done.contains(&RolloutPart::ReadyBack(1)), "{done:?}");
        assert!(done.contains(&RolloutPart::Back(0)), "{done:?}");
        let news = rollout.news();
        assert!(news.contains(&RolloutNews::Died { nodes: vec!["b".to_owned()] }), "{news:?}");
        assert_eq!(news.last(), Some(&RolloutNews::PutBack { nodes: 2, stays: Vec::new() }));
    }

    #[test]
    fn a_rollback_that_fails_stops() {
        let (mut rollout, _) = ready(&[&["a"], &["b"], &["c"]], 0);
        let done = walk(&mut rollout, &["a", "b", "c"], |part, _| {
            matches!(part, RolloutPart::Change(2) | RolloutPart::Back(2))
        });
        assert!(done.contains(&(RolloutPart::Back(2), "c".to_owned())));
        assert!(!done.iter().any(|(part, _)| matches!(part, RolloutPart::Back(0 | 1))), "{done:?}");
        assert!(matches!(rollout.news().last(), Some(RolloutNews::NotPutBack { nodes }) if nodes == &["c"]));
    }

    #[test]
    fn who_is_back_goes_into_traffic_also_when_another_one_of_its_batch_is_not() {
        let (mut rollout, _) = ready(&[&["a"], &["b", "c"]], 0);
        let done = walk(&mut rollout, &["a", "b", "c"], |part, node| {
            matches!((part, node), (RolloutPart::Settle(1), "b") | (RolloutPart::Back(1), "c"))
        });
        let back = |node: &str| done.contains(&(RolloutPart::ReadyBack(1), node.to_owned()));
        assert!(back("b") && !back("c"), "{done:?}");
        assert!(
            !done.iter().any(|(part, _)| matches!(part, RolloutPart::DrainBack(0) | RolloutPart::Back(0))),
            "{done:?}"
        );
    }

    /// Every node may fail at every stage: whatever happens, what is promised holds.
    #[test]
    fn every_way_through_keeps_the_promises() {
        let batches: &[&[&str]] = &[&["a"], &["b", "c"]];
        let nodes = ["a", "b", "c"];
        let places: Vec<(RolloutPart, &str)> =
            parts(2).into_iter().flat_map(|part| nodes.map(|node| (part, node))).collect();
        for budget in 0..=2 {
            for first in 0..places.len() {
                for second in first..places.len() {
                    let (mut rollout, _) = ready(batches, budget);
                    let fails =
                        |part: RolloutPart, node: &str| places[first] == (part, node) || places[second] == (part, node);
                    let done = walk(&mut rollout, &nodes, fails);
                    let why = format!("budget {budget}, {:?} {:?}: {done:?}", places[first], places[second]);
                    let failed: BTreeSet<&String> = done
                        .iter()
                        .filter(|(part, node)| {
                            *part < RolloutPart::Confirm && *part > RolloutPart::Prepare && fails(*part, node)
                        })
                        .map(|(_, node)| node)
                        .collect();
                    let back = done.iter().any(|(part, _)| matches!(part, RolloutPart::Back(_)));
                    assert_eq!(back, failed.len() > budget, "{why}");
                    if back {
                        assert!(!done.iter().any(|(part, _)| *part == RolloutPart::Confirm), "{why}");
                        let stopped =
                            done.iter().any(|(part, node)| *part > RolloutPart::DrainBack(9) && fails(*part, node));
                        for (part, node) in &done {
                            let RolloutPart::Change(batch) = part else { continue };
                            let put_back = done.contains(&(RolloutPart::Back(*batch), node.clone()));
                            assert!(put_back || stopped, "{node} is neither confirmed nor put back; {why}");
                        }
                    }
                    // Nothing goes back into traffic that failed, but after it was put back.
                    for (part, node) in &done {
                        if let RolloutPart::Ready(batch) = part {
                            let earlier = |other: &RolloutPart| {
                                *other == RolloutPart::Change(*batch) || *other == RolloutPart::Drain(*batch)
                            };
                            assert!(
                                !done.iter().any(|(other, name)| name == node && earlier(other) && fails(*other, name)),
                                "{why}"
                            );
                        }
                    }
                }
            }
        }
    }
}
