//! One look at one attachment, and what it takes to bring it back.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use super::DOCKER_GREETING;
use crate::change::{Change, Verb};
use crate::engine;
use crate::failure::Failure;
use crate::resource::attach::{Keeping, OLD, Parted, ROUTE, Recorded};
use crate::resource::attachments::Condition;
use crate::system::Probe;

/// How long one attachment may take (`replug`).
const REPLUG: Duration = Duration::from_secs(60);

/// How often what fails is looked at again at once, as its container may have been restarted meanwhile.
const MOST_TURNS: u32 = 2;

/// Why an attachment is looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// The watcher was started.
    Begin,
    /// Its container's process was started.
    Started,
    /// Its container's process ended.
    Ended,
    /// Its container's process ended a moment ago: its address should be silent by now.
    Silence,
    /// Its container has a name that it had not.
    Renamed,
    /// A run wrote the record.
    Declared,
    /// Its parent, or the shim there, changed.
    Link(String),
    /// The daemon answers again.
    Docker,
    /// It failed before.
    Retry,
    /// From time to time.
    Pass,
}

impl Cause {
    /// As the log says it.
    pub(super) fn show(&self) -> String {
        match self {
            Self::Begin => "at the watcher's start".to_owned(),
            Self::Started => "container restarted".to_owned(),
            Self::Ended | Self::Silence => "container ended".to_owned(),
            Self::Renamed => "container renamed".to_owned(),
            Self::Declared => "declared anew".to_owned(),
            Self::Link(name) => format!("{name} changed"),
            Self::Docker => "Docker answers again".to_owned(),
            Self::Retry => "tried again".to_owned(),
            Self::Pass => "was found amiss".to_owned(),
        }
    }
}

/// How a job ended.
#[derive(Debug)]
pub(super) struct Finished {
    /// The record's name.
    pub(super) name: String,
    pub(super) cause: Cause,
    /// What is so now; `Err` is a failure, and `Ok(None)` says that the record is another by now.
    pub(super) ended: Result<Option<Condition>, Failure>,
    /// Whether the daemon went away meanwhile, which is told once and not for each attachment.
    pub(super) docker_gone: bool,
    /// What was done.
    pub(super) done: Option<String>,
    /// When it was done, and how long after it was asked for.
    pub(super) at: SystemTime,
    pub(super) took: Duration,
}

/// Looks, and mends.
pub(super) async fn run(name: String, recorded: Recorded, cause: Cause, asked: Instant, probe: Probe) -> Finished {
    // An interface is of use before the neighbours are told and everything is looked at again.
    let plugged = Arc::new(Mutex::new(None));
    let sink = Arc::clone(&plugged);
    let hear = move |message: &str, _: Option<(u64, u64)>| {
        if message.starts_with("plugged ") {
            *sink.lock().unwrap_or_else(PoisonError::into_inner) = Some((SystemTime::now(), asked.elapsed()));
        }
    };
    let probe = probe.heard_by(Arc::new(hear));
    let looked = look(&recorded, &cause, &probe).await;
    let plugged = plugged.lock().unwrap_or_else(PoisonError::into_inner).take();
    let (at, took) = plugged.unwrap_or_else(|| (SystemTime::now(), asked.elapsed()));
    let outdated = || recorded.outdated(&probe).unwrap_or(false);
    let (ended, done) = match looked {
        Ok((condition, done)) => (Ok(Some(condition)), done),
        // A run declares something else at this moment: it, or the next look, brings that about.
        Err(_) if outdated() => (Ok(None), None),
        Err(failure) => (Err(failure), None),
    };
    let docker_gone = ended.is_err() && daemon_is_gone(&probe).await;
    Finished { name, cause, ended, docker_gone, done, at, took }
}

/// One that is only slow is there.
async fn daemon_is_gone(probe: &Probe) -> bool {
    let answers = async { probe.docker()?.running().await };
    matches!(tokio::time::timeout(DOCKER_GREETING, answers).await, Ok(Err(_)))
}

async fn look(recorded: &Recorded, cause: &Cause, probe: &Probe) -> Result<(Condition, Option<String>), Failure> {
    let limit = ("replug", REPLUG);
    let attach = recorded.attach();
    let runs = async || {
        let found = probe.docker()?.container(&attach.container).await?;
        Ok::<_, Failure>(found.is_some_and(|found| found.pid.is_some()))
    };
    // Events are hints: what has just started is looked at directly, everything else is asked for first.
    let mut known_to_run = *cause == Cause::Started;
    let mut turns = 0;
    loop {
        turns += 1;
        if !known_to_run && !runs().await? {
            let parted = Parted { recorded: recorded.clone(), just_ended: *cause == Cause::Ended };
            let done = engine::keep(&parted, probe, limit).await?.map(|change| dropped(recorded, &change));
            if matches!(cause, Cause::Silence | Cause::Retry)
                && let Some(failure) = recorded.still_answers(probe).await?
                && !runs().await?
            {
                return Err(failure);
            }
            return Ok((Condition::Stopped, done));
        }
        match engine::keep(&Keeping::new(recorded.clone(), known_to_run), probe, limit).await {
            Ok(change) => return Ok((Condition::Plugged, change.map(|change| told(recorded, &change)))),
            // It ended, or was restarted, while it was looked at: that is no failure.
            Err(_) if turns < MOST_TURNS => known_to_run = false,
            Err(failure) => return Err(failure),
        }
    }
}

/// What was taken away of a container that does not run.
fn dropped(recorded: &Recorded, change: &Change) -> String {
    let address = recorded.address();
    let route = change.touches(ROUTE).then(|| format!("dropped the host's route to {address}"));
    let old = old_network(change).map(|kept| format!("took {address} out of a network that is kept alive: {kept}"));
    route.into_iter().chain(old).collect::<Vec<_>>().join(", ")
}

/// What keeps an old network of the container, where there was one.
fn old_network(change: &Change) -> Option<String> {
    change.field(OLD).map(|field| field.from.to_string())
}

/// `plugged eth0 10.88.8.10`, `mended mtu, gateway of eth0`.
fn told(recorded: &Recorded, change: &Change) -> String {
    let attach = recorded.attach();
    if change.verb == Verb::Create || change.touches("link") {
        let old =
            old_network(change).map_or_else(String::new, |kept| format!(", out of an old network as well: {kept}"));
        return format!("plugged {} {}{old}", attach.interface, recorded.address());
    }
    let fields: Vec<&str> = change.fields.iter().map(|field| field.field.as_str()).collect();
    format!("mended {} of {}", fields.join(", "), attach.interface)
}
