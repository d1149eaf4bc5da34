//! One rollout's way through its stages: which nodes take part in each, and when it turns back.
//!
//! Nothing here speaks to anybody: stages come in, decisions go out, so every way through can be tried in a test.

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use super::logs::Logs;
use crate::event::{RolloutNews, Target};
use crate::plan::{RolloutInfo, RolloutPart};
use crate::system::access_log::Served;
use crate::value::{Map, Value};

/// The kind whose result tells how a node stands, and the one that tells it of a node that was put back.
pub(super) const STANDING: &str = "standing";
pub(super) const FORMER: &str = "former";

/// The kind whose result tells whether an earlier run has left a node out of traffic, and the one that takes it out and back in.
pub(super) const LEFT_OUT: &str = "left_out";
pub(super) const BACKEND: &str = "backend";

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
    /// Nodes that are out of traffic now.
    out: BTreeSet<String>,
    /// Nodes that an earlier run has left out of traffic.
    left_out: BTreeSet<String>,
    /// Nodes that the current stage changes or puts back, and those that have what is new.
    at_work: BTreeSet<String>,
    changed: BTreeSet<String>,
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
            out: BTreeSet::new(),
            left_out: BTreeSet::new(),
            at_work: BTreeSet::new(),
            changed: BTreeSet::new(),
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

    /// A balancer's host tells whether an earlier run has left a node out of traffic.
    pub(super) fn left_out(&mut self, target: &Target, output: &Map) {
        if output.get("out") == Some(&Value::Bool(true)) {
            self.left_out.extend(target.node.clone());
            self.out.extend(target.node.clone());
        }
    }

    /// A balancer was told to take a node out, or to bring it back. One that is not empty in time stays out.
    pub(super) fn traffic(&mut self, part: RolloutPart, target: &Target, well: bool) {
        let Some(node) = &target.node else { return };
        match part {
            RolloutPart::Drain(_) | RolloutPart::DrainBack(_) => {
                self.out.insert(node.clone());
            }
            RolloutPart::GiveBack | RolloutPart::Ready(_) | RolloutPart::ReadyBack(_) if well => {
                self.out.remove(node);
            }
            _ => {}
        }
    }

    /// Nodes that were left out of traffic and need nothing else. One that is not well is not given back.
    fn given_back(&self) -> BTreeSet<String> {
        let waits = |node: &&String| {
            !self.needing.contains(*node) && !self.sick.contains(*node) && !self.resting.contains(*node)
        };
        self.left_out.iter().filter(waits).cloned().collect()
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
            RolloutPart::GiveBack => {
                let back = self.given_back();
                let all = self.info.batches.iter().flatten();
                // With a batch that mends, a node stands in two.
                let without: BTreeSet<String> = all.filter(|node| !back.contains(*node)).cloned().collect();
                let goes = !self.info.put_back && !back.is_empty();
                return if goes { Decision::Go { without: without.into_iter().collect() } } else { Decision::Skip };
            }
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
        if changes {
            self.at_work = members.iter().filter(|node| !without.contains(node)).cloned().collect();
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
            RolloutPart::GiveBack => self.not_given_back(failed),
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
                    self.changed.extend(std::mem::take(&mut self.at_work).difference(&failed).cloned());
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
                if matches!(part, RolloutPart::Back(_)) {
                    let back = std::mem::take(&mut self.at_work);
                    self.changed.retain(|node| !back.contains(node) || failed.contains(node));
                }
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

    /// The run is to stop, and nothing more is done: what a stage has left undone has not failed. A node that is changed or put back in this
    /// stage counts as half-way: a host that was told to stop does not say how far it came.
    pub(super) fn interrupted(&mut self) {
        self.way = Way::Stopped;
        let half = std::mem::take(&mut self.at_work);
        self.changed.retain(|node| !half.contains(node));
        if self.check {
            return;
        }
        let within = self.info.within.filter(|_| !half.is_empty() || !self.changed.is_empty());
        self.news.push(RolloutNews::Interrupted {
            nodes: number(self.changed.len()),
            half: half.into_iter().collect(),
            out: self.out.iter().cloned().collect(),
            within_ms: within.map(|within| u64::try_from(within.as_millis()).unwrap_or(u64::MAX)),
        });
    }

    /// Nodes that are to be in traffic again and are not: they count as sick.
    fn not_given_back(&mut self, failed: &BTreeSet<String>) {
        if failed.is_empty() {
            return;
        }
        self.news.push(RolloutNews::StaysOut { nodes: failed.iter().cloned().collect() });
        self.sick.extend(failed.iter().cloned());
        if self.sick.len() > self.info.budget && !self.check {
            self.way = Way::Stopped;
        }
    }

    fn prepared(&mut self, failed: &BTreeSet<String>) {
        let back = self.given_back();
        let stays: Vec<String> =
            self.left_out.difference(&back).filter(|node| !self.needing.contains(*node)).cloned().collect();
        if !back.is_empty() {
            self.news.push(RolloutNews::LeftOut { nodes: back.into_iter().collect() });
        }
        if !stays.is_empty() {
            self.news.push(RolloutNews::StaysOut { nodes: stays });
        }
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
