//! Everything a run can say, in plain data. Reporters see nothing else.
//!
//! The engine on a host makes events; the coordinator puts those of all hosts into one stream. Every host's stream ends
//! with exactly one terminal event ([`EventKind::HostFinished`] or [`EventKind::HostLost`]); after it nothing more comes
//! from that host.

use serde::{Deserialize, Serialize};

use crate::change::Change;
use crate::failure::Failure;
use crate::value::Map;

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// The inventory name of the host it happened on; empty for the run as a whole.
    pub host: String,
    /// Grows by one within a host's stream; a gap means that something was lost.
    pub index: u64,
    /// Milliseconds since the host's helper (or, for the run, the coordinator) started, on the monotonic clock.
    pub at_ms: u64,
    /// What happened.
    pub kind: EventKind,
}

/// What a step acts on: a host, or a node on it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Target {
    /// The host's inventory name.
    pub host: String,
    /// The node's name, when a play runs over nodes.
    pub node: Option<String>,
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.node.as_ref().unwrap_or(&self.host))
    }
}

/// Names one step of one target, in words that a person knows from the playbook.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepRef {
    /// Number within the host's plan.
    pub id: u32,
    /// What it acts on.
    pub target: Target,
    /// The play's title.
    pub play: String,
    /// The kind of task: `file`, `container`.
    pub kind: String,
    /// The task's title, rendered: `/etc/hosts`, `web08010`.
    pub title: String,
    /// `path:line` of the task in the playbook.
    pub at: String,
    /// Whether this is a handler.
    pub handler: bool,
}

/// How a step ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Outcome {
    /// As declared already.
    Ok,
    /// Differed, was applied, and observing again shows no difference.
    Changed(Change),
    /// An action (a command, a restart) was carried out.
    Ran,
    /// Check mode: this would be applied.
    WouldChange(Change),
    /// Check mode: this action would be carried out.
    WouldRun,
    /// Check mode: it stands behind an unapplied change, so nobody can know. The reason says which.
    Unknown(String),
    /// Its condition does not hold.
    Skipped(String),
    /// It failed; what was to be changed is told where that was known.
    Failed(Failure, Option<Change>),
    /// It failed in the same way, and `ignore_failure` says that nothing stops for that.
    Ignored(Failure, Option<Change>),
}

impl Outcome {
    /// Why it failed, whether that counts or not.
    pub fn failure(&self) -> Option<&Failure> {
        match self {
            Self::Failed(failure, _) | Self::Ignored(failure, _) => Some(failure),
            _ => None,
        }
    }
}

/// Counts of outcomes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Steps as declared already.
    pub ok: u32,
    /// Steps changed or run; in check mode: that would be.
    pub changed: u32,
    /// Steps whose condition did not hold.
    pub skipped: u32,
    /// Check mode: steps nobody can know about.
    pub unknown: u32,
    /// Steps that failed.
    pub failed: u32,
    /// Steps that failed, and `ignore_failure` says that it does not count.
    pub ignored: u32,
}

impl Tally {
    /// Counts one outcome.
    pub fn count(&mut self, outcome: &Outcome) {
        match outcome {
            Outcome::Ok => self.ok += 1,
            Outcome::Changed(_) | Outcome::Ran | Outcome::WouldChange(_) | Outcome::WouldRun => self.changed += 1,
            Outcome::Skipped(_) => self.skipped += 1,
            Outcome::Unknown(_) => self.unknown += 1,
            Outcome::Failed(..) => self.failed += 1,
            Outcome::Ignored(..) => self.ignored += 1,
        }
    }

    /// Adds another tally.
    pub fn add(&mut self, other: Self) {
        self.ok += other.ok;
        self.changed += other.changed;
        self.skipped += other.skipped;
        self.unknown += other.unknown;
        self.failed += other.failed;
        self.ignored += other.ignored;
    }
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum EventKind {
    /// The run begins: said once, by the coordinator.
    RunStarted {
        /// Unique name of the run.
        run: String,
        /// The playbook's path.
        playbook: String,
        /// Every host that takes part.
        hosts: Vec<String>,
        /// Steps over all hosts, handlers apart.
        steps: u32,
        /// Whether this is check mode.
        check: bool,
    },
    /// A host's helper answers.
    HostConnected {
        /// Whether the helper had to be sent first.
        uploaded: bool,
    },
    /// A play, or one batch of it, begins (over all hosts: said by the coordinator with an empty host).
    StageStarted {
        /// The play's title.
        play: String,
        /// Which batch of how many, counted from 1, when the play has batches.
        batch: Option<(u32, u32)>,
        /// What it is to its rollout, in a word; nothing for a play.
        phase: Option<Phase>,
        /// What it runs over.
        targets: Vec<Target>,
    },
    /// A batch does not take place, as one before it failed: said by the coordinator with an empty host. Its targets take no part
    /// in the plays behind it either.
    BatchLeftOut {
        /// The play's title.
        play: String,
        /// Which batch of how many, counted from 1.
        batch: (u32, u32),
        /// What it would have run over.
        targets: Vec<Target>,
    },
    /// A rollout says how it stands: said by the coordinator with an empty host.
    Rollout {
        /// Its title.
        title: String,
        /// What is new.
        news: RolloutNews,
    },
    /// A step begins.
    StepStarted {
        /// Which.
        step: StepRef,
    },
    /// A long step says how far it is. May be dropped anywhere on the way.
    Progress {
        /// Which step.
        id: u32,
        /// What it is doing.
        message: String,
        /// Done and total, in units of the message, where they are known.
        amount: Option<(u64, u64)>,
    },
    /// A step ended.
    StepFinished {
        /// Which.
        step: StepRef,
        /// How.
        outcome: Outcome,
        /// Its result's fields, as later expressions see them (`stdout`, `status`).
        output: Map,
        /// How long it took, in milliseconds.
        took_ms: u64,
    },
    /// A stage ended on this host; the coordinator waits for all before it starts the next.
    StageFinished {
        /// The stage's number in the run.
        stage: u32,
        /// Targets that failed in it.
        failed: Vec<Target>,
    },
    /// Something a person should read.
    Warning {
        /// In a full sentence.
        message: String,
    },
    /// Terminal: the host came to the end of its plan, or stopped after a failure or a signal; or it did not begin, as another run is
    /// at work on it or on another host.
    HostFinished {
        /// What its steps did.
        tally: Tally,
        /// Why it stopped early, if it did.
        stopped: Option<Failure>,
    },
    /// Terminal: the host could not be reached, or went away in the middle.
    HostLost {
        /// Why.
        failure: Failure,
    },
    /// The run is over: said once, by the coordinator, last of all.
    RunFinished {
        /// Over all hosts.
        tally: Tally,
        /// The run's verdict.
        verdict: Verdict,
    },
}

impl EventKind {
    /// Returns its name, as the stream for machines has it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::RunStarted { .. } => "run_started",
            Self::HostConnected { .. } => "host_connected",
            Self::StageStarted { .. } => "stage_started",
            Self::BatchLeftOut { .. } => "batch_left_out",
            Self::Rollout { .. } => "rollout",
            Self::StepStarted { .. } => "step_started",
            Self::Progress { .. } => "progress",
            Self::StepFinished { .. } => "step_finished",
            Self::StageFinished { .. } => "stage_finished",
            Self::Warning { .. } => "warning",
            Self::HostFinished { .. } => "host_finished",
            Self::HostLost { .. } => "host_lost",
            Self::RunFinished { .. } => "run_finished",
        }
    }
}

/// What a stage of a rollout does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// Lays out what is new beside what runs, tries it, and looks how the nodes are.
    Prepare,
    /// Takes nodes out of traffic, and waits until they have answered what they had begun.
    Drain,
    /// Switches and reloads nodes, and waits until they are well.
    Change,
    /// Puts nodes back into traffic.
    Ready,
    /// Waits whether they stay well.
    Settle,
    /// Makes it final on every host.
    Confirm,
    /// Puts nodes back to what they had before.
    PutBack,
}

/// A sort of answers that visitors should not get.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BadAnswer {
    /// A status of 500 or above.
    ServerError,
    /// The status 404.
    NotFound,
    /// A status of 400 or above.
    Refused,
}

/// How a rollout stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RolloutNews {
    /// Every node has it already.
    Nothing {
        /// How many nodes there are.
        nodes: u32,
    },
    /// It goes out.
    Begins {
        /// How many nodes need it.
        nodes: u32,
        /// Of how many.
        of: u32,
        /// How many nodes each batch takes: the largest is how many are down at once at the most.
        batches: Vec<u32>,
    },
    /// An earlier run has left nodes out of traffic that need nothing else: they go back.
    LeftOut {
        /// Which.
        nodes: Vec<String>,
    },
    /// Nodes that an earlier run has left out of traffic are not well, and stay out.
    StaysOut {
        /// Which.
        nodes: Vec<String>,
    },
    /// The run was asked to stop in the middle of it: nothing more is done.
    Interrupted {
        /// How many nodes have what is new.
        nodes: u32,
        /// Nodes that were at work on it, or on its way back, and did not come to the end.
        half: Vec<String>,
        /// Nodes that are out of traffic.
        out: Vec<String>,
        /// After which time, in milliseconds, the hosts put back by themselves what they have.
        within_ms: Option<u64>,
    },
    /// The preparation failed on some nodes: no node was touched.
    Refused {
        /// The nodes whose preparation failed.
        failed: Vec<String>,
    },
    /// More nodes are sick than may be, before anything was touched.
    Sick {
        /// Which.
        nodes: Vec<String>,
        /// How many may be.
        budget: u32,
    },
    /// Nodes ran when it began and do not any more: they failed.
    Died {
        /// Which.
        nodes: Vec<String>,
    },
    /// A node answered a larger share of its requests badly than the nodes that were not changed: it failed.
    BadAnswers {
        /// Which.
        node: String,
        /// In which way.
        kind: BadAnswer,
        /// Its requests while the batch settled, and how many of them were answered like that.
        requests: u64,
        /// See `requests`.
        errors: u64,
        /// The same of all nodes that were not changed yet.
        others_requests: u64,
        /// See `others_requests`.
        others_errors: u64,
    },
    /// Nodes had too few requests while the batch settled for their access logs to say anything.
    FewRequests {
        /// Which.
        nodes: Vec<String>,
        /// How many it takes.
        at_least: u64,
    },
    /// There is no file that the pattern of the nodes' access logs names: they were not judged.
    NoLog {
        /// Which.
        nodes: Vec<String>,
    },
    /// A node's access log cannot be read: it failed.
    LogUnread {
        /// Which.
        node: String,
        /// Why.
        why: String,
    },
    /// More nodes failed than may: everything that was touched is put back.
    PutsBack {
        /// Which failed.
        failed: Vec<String>,
        /// How many may.
        budget: u32,
        /// How many nodes are put back.
        nodes: u32,
    },
    /// A person has halted rollouts: nothing more is done.
    Halted {
        /// How many nodes have what is new.
        nodes: u32,
        /// Who did, when and why.
        why: String,
    },
    /// Everything that was touched is as it was before, but for what only goes forward.
    PutBack {
        /// How many nodes.
        nodes: u32,
        /// The kinds of tasks in `change` whose doing stays.
        stays: Vec<String>,
    },
    /// Nodes could not be put back; nothing more was done.
    NotPutBack {
        /// Which.
        nodes: Vec<String>,
    },
    /// Every node has it, but for those that failed within the budget.
    Done {
        /// How many nodes were changed.
        nodes: u32,
        /// Those that failed.
        left: Vec<String>,
    },
}

/// The end of a run in one word; `cli/exit.rs` maps each to its documented exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// Everything is as declared: nothing was to be done, or it was done.
    Converged,
    /// Check mode: something would change, or cannot be known.
    WouldChange,
    /// Steps failed.
    Failed,
    /// Hosts could not be reached, or were lost.
    Unreachable,
    /// Another run was at work on a host, and did not end in time: nothing was done.
    Busy,
    /// Stopped by a signal.
    Aborted,
}
