//! Asking hosts: tasks that only look, over the same channels as plays, and what they give as data.
//!
//! It is a run in check mode, so nothing could be changed if a task wanted to. It takes the host's lock like every run: what a
//! host shows in the middle of a play is neither the old nor the new.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use super::{Header, Locking, run};
use crate::engine::Stop;
use crate::event::{EventKind, Outcome, Target};
use crate::failure::{Failure, FailureKind};
use crate::logs::audit::Scope;
use crate::plan::{Connection, Contents, HostPlan, HostRun, RunOptions, RunPlan, Stage, StageInfo, Step, TargetPlan};
use crate::remote::Reach;
use crate::remote::helper::TOO_LONG;
use crate::resource::attachments::Watched;
use crate::resource::interfaces::Seen;
use crate::resource::log_audit::Audits;
use crate::resource::log_folders::Folders;
use crate::resource::rollout::Rollouts;
use crate::value::{Map, Value};

/// How long one look may take, and one that reads all log files of a host.
const LOOK: Duration = Duration::from_secs(60);
const AUDIT: Duration = Duration::from_secs(24 * 3600);

/// How long another run may hold a host before it is looked at; and a look beside one.
const AFTER_OTHERS: Option<Duration> = Some(Duration::from_secs(10));
const BESIDE_OTHERS: Option<Duration> = None;

/// What one host is asked.
#[derive(Clone, Debug)]
pub struct Question {
    /// Its inventory name.
    pub host: String,
    /// How it is reached.
    pub connection: Connection,
    /// Kinds that only look, with their arguments.
    pub tasks: Vec<(String, Map)>,
}

/// What one host answered: for each task what it gave, in order. A host that could not be reached fails as a whole: what it
/// shows is unknown then, and never nothing.
pub type Answer = Result<Vec<Result<Map, Failure>>, Failure>;

/// Asks every host, `forks` at a time. There is an answer for each.
pub async fn ask(questions: Vec<Question>, name: &str, reach: Arc<Reach>, forks: usize) -> BTreeMap<String, Answer> {
    carry(questions, Manner::look(name, AFTER_OTHERS), reach, forks).await
}

/// Whether hosts are only looked at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Hand {
    Looks,
    Changes,
}

/// How hosts are asked.
#[derive(Clone, Copy)]
struct Manner<'a> {
    /// What the run is called.
    name: &'a str,
    hand: Hand,
    /// How long another run may hold a host before; `None` to go beside one.
    lock_wait: Option<Duration>,
    /// How long one task may take.
    limit: Duration,
}

impl<'a> Manner<'a> {
    fn look(name: &'a str, lock_wait: Option<Duration>) -> Self {
        Self { name, hand: Hand::Looks, lock_wait, limit: LOOK }
    }
}

/// Has every host do its tasks.
async fn carry(
    questions: Vec<Question>,
    Manner { name, hand, lock_wait, limit }: Manner<'_>,
    reach: Arc<Reach>,
    forks: usize,
) -> BTreeMap<String, Answer> {
    let check = hand == Hand::Looks;
    let options = RunOptions { check, diff: false, step_limit: limit, lock_wait };
    let run_name = format!("look-{}-{}", name, std::process::id());
    let counts: BTreeMap<String, usize> =
        questions.iter().map(|question| (question.host.clone(), question.tasks.len())).collect();
    let targets = questions.iter().map(|question| Target { host: question.host.clone(), node: None }).collect();
    let info = StageInfo { number: 1, play: 1, title: name.to_owned(), batch: None, targets, part: None };
    let hosts = questions.into_iter().map(|question| host_run(question, &run_name, name, options)).collect();
    let plan = RunPlan { hosts, stages: vec![info], rollouts: BTreeMap::new(), contents: Contents::default() };
    let locking = Locking::Each;
    let header = Header { run: run_name, playbook: name.to_owned(), check, forks, locking };
    let (events, mut stream) = mpsc::unbounded_channel();
    let (_keep, stop) = watch::channel(Stop::No);
    let work = run(plan, header, reach, events, stop);
    let mut given: BTreeMap<String, BTreeMap<u32, Result<Map, Failure>>> = BTreeMap::new();
    let mut lost: BTreeMap<String, Failure> = BTreeMap::new();
    let hear = async {
        while let Some(event) = stream.recv().await {
            match event.kind {
                EventKind::StepFinished { step, outcome, output, .. } => {
                    given.entry(event.host).or_default().insert(step.id, result(outcome, output));
                }
                EventKind::HostLost { failure } | EventKind::HostFinished { stopped: Some(failure), .. } => {
                    lost.insert(event.host, failure);
                }
                _ => {}
            }
        }
    };
    tokio::join!(work, hear);
    let answer = |(host, count): (String, usize)| {
        let found = given.remove(&host).unwrap_or_default();
        let failure = lost.remove(&host);
        let whole = found.len() == count;
        let answer = match failure {
            Some(failure) if !whole => Err(failure),
            None if !whole => Err(Failure::of(FailureKind::Internal, "the host did not answer everything")),
            _ => Ok(found.into_values().collect()),
        };
        (host, answer)
    };
    counts.into_iter().map(answer).collect()
}

/// What every host shows of its network, and what the network around it says of some addresses ([`Seen::answers`]). A host that could not
/// be asked is an error there: unknown, never empty.
pub async fn survey(
    hosts: Vec<(String, Connection)>,
    addresses: &[IpAddr],
    reach: Arc<Reach>,
    forks: usize,
) -> BTreeMap<String, Result<Seen, Failure>> {
    let mut args = Map::new();
    if !addresses.is_empty() {
        args.insert("ask".to_owned(), Value::List(addresses.iter().copied().map(Value::Ip).collect()));
    }
    one_look(hosts, ("interfaces", Manner::look("survey", AFTER_OTHERS)), &args, Seen::from_output, reach, forks).await
}

/// What is attached on every host, and what its watcher makes of it; as [`survey`].
pub async fn statuses(
    hosts: Vec<(String, Connection)>,
    reach: Arc<Reach>,
    forks: usize,
) -> BTreeMap<String, Result<Watched, Failure>> {
    one_look(
        hosts,
        ("attachments", Manner::look("status", AFTER_OTHERS)),
        &Map::new(),
        Watched::from_output,
        reach,
        forks,
    )
    .await
}

/// What the declared folders of log files hold on every host; as [`survey`], but beside a run: nothing that it shows is half done.
pub async fn log_folders(
    hosts: Vec<(String, Connection)>,
    reach: Arc<Reach>,
    forks: usize,
) -> BTreeMap<String, Result<Folders, Failure>> {
    one_look(
        hosts,
        ("log_folders", Manner::look("logs", BESIDE_OTHERS)),
        &Map::new(),
        Folders::from_output,
        reach,
        forks,
    )
    .await
}

/// Whether every log file of the declared folders is accounted for, on every host; beside a run, as [`log_folders`].
pub async fn log_audit(
    hosts: Vec<(String, Connection)>,
    scope: Scope,
    reach: Arc<Reach>,
    forks: usize,
) -> BTreeMap<String, Result<Audits, Failure>> {
    let since = scope.since.map(|since| ("since".to_owned(), Value::Duration(since)));
    let file = scope.segment.map(|name| ("file".to_owned(), Value::Str(name)));
    let args = since.into_iter().chain(file).collect();
    let manner = Manner { limit: AUDIT, ..Manner::look("audit", BESIDE_OTHERS) };
    one_look(hosts, ("log_audit", manner), &args, Audits::from_output, reach, forks).await
}

/// What every host shows of its rollouts; as [`survey`], but beside a run that is at work: that is when people ask.
pub async fn rollouts(
    hosts: Vec<(String, Connection)>,
    reach: Arc<Reach>,
    forks: usize,
) -> BTreeMap<String, Result<Rollouts, Failure>> {
    one_look(hosts, ("slots", Manner::look("slots", BESIDE_OTHERS)), &Map::new(), Rollouts::from_output, reach, forks)
        .await
}

/// Halts rollouts on every host with that reason, or lets them go on; beside a run that is at work, as it is to stop that.
pub async fn halts(
    hosts: Vec<(String, Connection)>,
    because: Option<String>,
    by: String,
    reach: Arc<Reach>,
    forks: usize,
) -> BTreeMap<String, Answer> {
    let mut args = Map::new();
    let state = if because.is_some() { "present" } else { "absent" };
    args.insert("state".to_owned(), Value::from(state));
    if let Some(because) = because {
        let told = [("reason", because), ("by", by)].into_iter().filter(|(_, text)| !text.is_empty());
        args.extend(told.map(|(name, text)| (name.to_owned(), Value::Str(text))));
    }
    let question = |(host, connection)| Question { host, connection, tasks: vec![("halt".to_owned(), args.clone())] };
    let manner = Manner { hand: Hand::Changes, ..Manner::look("halt", BESIDE_OTHERS) };
    carry(hosts.into_iter().map(question).collect(), manner, reach, forks).await
}

/// Asks every host one thing.
async fn one_look<T>(
    hosts: Vec<(String, Connection)>,
    (kind, manner): (&str, Manner<'_>),
    args: &Map,
    read: impl Fn(&Map) -> Result<T, Failure>,
    reach: Arc<Reach>,
    forks: usize,
) -> BTreeMap<String, Result<T, Failure>> {
    let question = |(host, connection)| Question { host, connection, tasks: vec![(kind.to_owned(), args.clone())] };
    let questions = hosts.into_iter().map(question).collect();
    let answers = carry(questions, manner, reach, forks).await;
    answers.into_iter().map(|(host, answer)| (host, first(answer).and_then(|map| read(&map)))).collect()
}

/// What the only task gave.
fn first(answer: Answer) -> Result<Map, Failure> {
    let first = answer?.into_iter().next();
    first.ok_or_else(|| Failure::of(FailureKind::Internal, "the host gave nothing"))?
}

fn result(outcome: Outcome, output: Map) -> Result<Map, Failure> {
    match outcome {
        Outcome::Failed(failure, _) | Outcome::Ignored(failure, _) => Err(failure),
        _ if output.contains_key(TOO_LONG) => Err(Failure::new("what was found does not fit a frame of 1 MiB")),
        Outcome::Unknown(why) | Outcome::Skipped(why) => Err(Failure::new(why)),
        Outcome::Ok | Outcome::Changed(_) | Outcome::Ran | Outcome::WouldChange(_) | Outcome::WouldRun => Ok(output),
    }
}

fn host_run(question: Question, run: &str, title: &str, options: RunOptions) -> HostRun {
    let Question { host, connection, tasks } = question;
    let steps = tasks.into_iter().zip(1..).map(|((kind, args), id)| Step {
        id,
        ignore_failure: true,
        ..Step::new(&kind, Value::from(kind.as_str()), args)
    });
    let target = Target { host: host.clone(), node: None };
    let target = TargetPlan { target, steps: steps.collect(), handlers: Vec::new() };
    let stage =
        Stage { number: 1, play: 1, title: title.to_owned(), batch: None, rescue: false, targets: vec![target] };
    let plan = HostPlan {
        run: run.to_owned(),
        playbook: String::new(),
        host,
        stages: vec![stage],
        blobs: BTreeMap::new(),
        facts: false,
        options,
    };
    HostRun { connection, plan }
}
