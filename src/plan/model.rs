//! What a host is asked to do.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::late::Late;
use crate::event::Target;
use crate::failure::{Context, Failure, FailureKind};
use crate::value::{Blob, Digest, Map, Value};

/// One host's part of a run. It holds nothing of other hosts, and file contents only by hash (small ones in `blobs`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HostPlan {
    /// Unique name of the run, for locks and messages.
    pub run: String,
    /// The playbook's file name, without its folder: what is noted on the host for a later run is noted for it.
    pub playbook: String,
    /// The host's inventory name.
    pub host: String,
    /// The parts of plays that concern this host, in order.
    pub stages: Vec<Stage>,
    /// Small contents, by hash; larger ones are asked for when they are needed.
    pub blobs: BTreeMap<Digest, Vec<u8>>,
    /// Whether the steps need facts.
    pub facts: bool,
    /// How the engine runs it.
    pub options: RunOptions,
}

/// How the engine runs a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunOptions {
    /// Plan and report, but apply nothing.
    pub check: bool,
    /// Make unified diffs of contents.
    pub diff: bool,
    /// The time limit of a step that has none of its own.
    pub step_limit: Duration,
    /// How long to wait for another run that holds the host's lock; `None` to go beside one, for what stops it.
    pub lock_wait: Option<Duration>,
}

/// A play, or one batch of it, as far as it concerns one host. Stages with the same number run side by side on all hosts;
/// the coordinator gives the word for each.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stage {
    /// Number in the run, the same on every host; grows.
    pub number: u32,
    /// The play's number in the run: batches of one play share it, and handlers run at its end.
    pub play: u32,
    /// The play's title.
    pub title: String,
    /// Which batch of how many, from 1.
    pub batch: Option<(u32, u32)>,
    /// Whether it is done for targets that failed before, too: what puts back must not wait for what is well.
    pub rescue: bool,
    /// The targets on this host, each with its steps.
    pub targets: Vec<TargetPlan>,
}

/// What one target has to do in a stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TargetPlan {
    /// The host itself, or a node on it.
    pub target: Target,
    /// In order. A failed one stops its target.
    pub steps: Vec<Step>,
    /// Steps that run at the end of the stage when notified, even when a later step failed.
    pub handlers: Vec<Handler>,
}

impl TargetPlan {
    /// Returns every step in it, those of handlers last.
    pub fn all_steps(&self) -> impl Iterator<Item = &Step> {
        self.steps.iter().chain(self.handlers.iter().flat_map(|handler| &handler.steps))
    }
}

/// A handler: steps under a name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Handler {
    /// What `notify` says.
    pub name: String,
    /// What then runs, in order. `--tags` leaves out none of it: what was notified must follow.
    pub steps: Vec<Step>,
    /// Whether `--skip-tags` leaves out a task of it: then it does not run now, and stays due.
    pub left_out: bool,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// Number within the host's plan.
    pub id: u32,
    /// The kind's word.
    pub kind: String,
    /// Title for people; late when it needs facts or results.
    pub title: Arg,
    /// The kind's arguments.
    pub args: BTreeMap<String, Arg>,
    /// Conditions; all must hold. Those known to hold when planning are gone, those known not to hold leave the step out.
    pub when: Vec<Late>,
    /// Handlers to run when the step changed something.
    pub notify: Vec<String>,
    /// The name under which later steps see its result.
    pub register: Option<String>,
    /// Its own time limit.
    pub limit: Option<Duration>,
    /// Whether a failure is reported as such but does not stop the target.
    pub ignore_failure: bool,
    /// `path:line` of the task.
    pub at: String,
    /// How many of the steps behind it belong to it: what it changed is confirmed when they have gone well, and put back otherwise.
    pub followers: u32,
    /// Whether a rollout puts back what it changed, together with everything else.
    pub in_rollout: bool,
}

impl Step {
    /// Returns a step that stands in no playbook: without conditions, handlers and limits of its own.
    pub fn new(kind: &str, title: Value, args: impl IntoIterator<Item = (String, Value)>) -> Self {
        Self {
            id: 0,
            kind: kind.to_owned(),
            title: Arg::Ready(title),
            args: args.into_iter().map(|(name, value)| (name, Arg::Ready(value))).collect(),
            when: Vec::new(),
            notify: Vec::new(),
            register: None,
            limit: None,
            ignore_failure: false,
            at: String::new(),
            followers: 0,
            in_rollout: false,
        }
    }
}

/// An argument.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Arg {
    /// Known when planning.
    Ready(Value),
    /// Needs facts or earlier results: evaluated on the host just before the step.
    Late(Box<Late>),
}

impl Arg {
    /// Returns the value when it is known when planning.
    fn ready(&self) -> Option<&Value> {
        match self {
            Self::Ready(value) => Some(value),
            Self::Late(_) => None,
        }
    }

    /// Returns the values of all arguments; `None` when one needs facts or results.
    pub fn all_ready(args: &BTreeMap<String, Self>) -> Option<Map> {
        args.iter().map(|(name, arg)| Some((name.clone(), arg.ready()?.clone()))).collect()
    }

    /// Returns the values of those arguments that are known when planning.
    pub fn those_ready(args: &BTreeMap<String, Self>) -> Map {
        args.iter().filter_map(|(name, arg)| Some((name.clone(), arg.ready()?.clone()))).collect()
    }
}

/// A whole run: what the coordinator needs, and nothing of the playbook.
#[derive(Clone, Debug, Default)]
pub struct RunPlan {
    /// Every host that takes part, in the order of the inventory.
    pub hosts: Vec<HostRun>,
    /// Every stage over all hosts, in order of their numbers.
    pub stages: Vec<StageInfo>,
    /// The rollouts among the plays, by the play's number.
    pub rollouts: BTreeMap<u32, RolloutInfo>,
    /// The bytes that hosts may ask for.
    pub contents: Contents,
}

/// One host of a run.
#[derive(Clone, Debug)]
pub struct HostRun {
    /// How it is reached.
    pub connection: Connection,
    /// What it does.
    pub plan: HostPlan,
}

/// A stage as the coordinator sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StageInfo {
    /// Number in the run.
    pub number: u32,
    /// The play's number in the run.
    pub play: u32,
    /// The play's title.
    pub title: String,
    /// Which batch of how many, from 1. After a failure in a batch the later batches of the same play are skipped.
    pub batch: Option<(u32, u32)>,
    /// The targets over all hosts.
    pub targets: Vec<Target>,
    /// What it is to its rollout; `None` for a play.
    pub part: Option<RolloutPart>,
}

/// A rollout as the coordinator sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RolloutInfo {
    /// The title.
    pub title: String,
    /// The nodes of each batch.
    pub batches: Vec<Vec<String>>,
    /// Whether the first batch has every node, for those of them that are sick and that the tasks of `change` would mend.
    pub mends: bool,
    /// What a reader of the plan should know.
    pub warnings: Vec<String>,
    /// How many nodes may be sick or fail in the whole run.
    pub budget: usize,
    /// How a node's access log is judged while its batch settles.
    pub judged: Option<Judged>,
    /// Whether it changes more than configuration.
    pub changes: bool,
    /// The kinds of tasks in `change` whose doing cannot be put back.
    pub stays: Vec<String>,
    /// Whether nothing goes out: everything is put back.
    pub put_back: bool,
    /// After which time without a confirmation the hosts put it back by themselves.
    pub within: Option<Duration>,
}

/// When a node's access log speaks against it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Judged {
    /// How many percent points the share of server errors may be above that of the nodes that were not changed yet.
    pub worse: u32,
    /// With fewer requests than these it says nothing.
    pub at_least: u64,
}

/// What a stage is to its rollout. Batches count from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RolloutPart {
    /// Everything is laid beside what runs, and tried; nothing that runs is touched.
    Prepare,
    /// Nodes that an earlier run has left out of traffic, and that need nothing else, go back into it.
    GiveBack,
    /// The balancers send nothing new to a batch.
    Drain(usize),
    /// A batch is changed, and must be well.
    Change(usize),
    /// The balancers send to it again.
    Ready(usize),
    /// It stays well for a while.
    Settle(usize),
    /// Every node is done: what was switched is kept.
    Confirm,
    /// As [`RolloutPart::Drain`], to put the batch back.
    DrainBack(usize),
    /// A batch is put back.
    Back(usize),
    /// As [`RolloutPart::Ready`], after it was put back.
    ReadyBack(usize),
}

/// How a host is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Connection {
    /// This machine: the same helper over pipes.
    Local {
        /// Whether to become root through sudo.
        r#become: bool,
    },
    /// Over SSH, with the user's own ssh configuration.
    Ssh {
        /// Host name or address, or an alias of the ssh configuration; already checked against a strict list of characters.
        destination: String,
        /// The login, when the playbook says one.
        user: Option<String>,
        /// The port, when the playbook says one.
        port: Option<u16>,
        /// Another ssh configuration file than the user's own.
        config: Option<PathBuf>,
        /// Whether to become root through sudo.
        r#become: bool,
    },
}

/// The bytes behind the digests of a run: held here when they were rendered, else read again from their file.
#[derive(Clone, Debug, Default)]
pub struct Contents {
    held: BTreeMap<Digest, Content>,
}

#[derive(Clone, Debug)]
enum Content {
    Bytes(Arc<[u8]>),
    File(PathBuf),
}

impl Contents {
    /// Keeps rendered bytes.
    pub fn hold(&mut self, bytes: impl Into<Arc<[u8]>>) -> Blob {
        let bytes = bytes.into();
        let blob = Blob { digest: Digest::of(&bytes), len: bytes.len() as u64 };
        self.held.insert(blob.digest, Content::Bytes(bytes));
        blob
    }

    /// Remembers a file whose bytes have just been hashed.
    pub fn remember(&mut self, path: PathBuf, blob: Blob) {
        self.held.entry(blob.digest).or_insert(Content::File(path));
    }

    /// The bytes of a digest.
    ///
    /// # Errors
    /// When the digest is none of this run, or its file cannot be read any more or has changed since it was hashed.
    pub fn read(&self, digest: Digest) -> Result<Arc<[u8]>, Failure> {
        match self.held.get(&digest) {
            None => {
                Err(Failure::of(FailureKind::Internal, format!("content {} is not part of this run", digest.short())))
            }
            Some(Content::Bytes(bytes)) => Ok(Arc::clone(bytes)),
            Some(Content::File(path)) => {
                let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
                if Digest::of(&bytes) != digest {
                    return Err(Failure::new(format!("{} changed while the run was under way", path.display()))
                        .hint("run again: the new content will be planned"));
                }
                Ok(bytes.into())
            }
        }
    }
}
