//! All attachments of the host: what is known of each, and what is to be done next.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant as Clock, UNIX_EPOCH};

use tokio::task::{AbortHandle, Id, JoinSet};
use tokio::time::Instant;

use super::job::{self, Cause, Finished};
use super::log::took;
use super::{QUIET, SLOW};
use crate::failure::Failure;
use crate::resource::attach::{Named, Recorded};
use crate::resource::attachments::{Attachment, Condition};
use crate::system::Probe;
use crate::system::netlink::Link;
use crate::system::waiting::Waits;

/// The pauses between two attempts at what failed: the first, and the longest.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// A job at work.
struct Running {
    handle: AbortHandle,
    since: Instant,
    waits: Waits,
    /// That it takes long was told.
    told: bool,
}

/// How a job ended: `None` when it was broken off, or ended by itself where it should not.
pub(super) type Ended = (Id, Option<Finished>);

/// How long after its container's end an address may still answer: the kernel takes the network away in the background.
const SILENCE: Duration = Duration::from_secs(1);

/// One attachment.
struct Entry {
    recorded: Result<Recorded, Failure>,
    /// Why it is to be looked at, and since when.
    wanted: Option<(Cause, Clock)>,
    running: Option<Running>,
    condition: Condition,
    failure: Option<Failure>,
    pause: Duration,
    due: Option<Instant>,
    /// When its address must be silent.
    silent_at: Option<Instant>,
    done: Option<(String, u64)>,
}

impl Entry {
    fn new(recorded: Result<Recorded, Failure>) -> Self {
        let failure = recorded.as_ref().err().cloned();
        let condition = if failure.is_some() { Condition::Failed } else { Condition::Unknown };
        Self {
            recorded,
            wanted: None,
            running: None,
            condition,
            failure,
            pause: RETRY.0,
            due: None,
            silent_at: None,
            done: None,
        }
    }

    fn want(&mut self, cause: &Cause) {
        // The first cause is what happened; a start is what the log should tell.
        if self.wanted.is_none() || *cause == Cause::Started {
            self.wanted = Some((cause.clone(), Clock::now()));
        }
    }

    /// Its container has another process than the one that is at work for it knows.
    fn is_urgent(&self) -> bool {
        self.wanted.as_ref().is_some_and(|(cause, _)| *cause == Cause::Started)
    }

    fn container(&self) -> Option<&str> {
        self.recorded.as_ref().ok().map(|recorded| recorded.attach().container.as_str())
    }

    fn parent(&self) -> Option<&str> {
        self.recorded.as_ref().ok().map(Recorded::card)
    }
}

/// What matters of a network card.
type Card = (u32, u32, bool);

#[derive(Default)]
pub(super) struct Table {
    /// There while the daemon answers.
    pub(super) probe: Option<Probe>,
    entries: BTreeMap<String, Entry>,
    jobs: JoinSet<Finished>,
    cards: BTreeMap<String, Card>,
    /// Cards that changed, and when their attachments are looked at.
    restless: BTreeSet<String>,
    quiet_at: Option<Instant>,
}

fn card(link: &Link) -> Card {
    (link.index, link.mtu, link.up)
}

impl Table {
    /// Takes over the records as they are now; what is new or other is to be looked at. Lines for the log.
    pub(super) fn learn_records(&mut self, found: Vec<Named>, cause: &Cause) -> Vec<(String, String)> {
        let mut lines = Vec::new();
        let names: BTreeSet<&String> = found.iter().map(|(name, _)| name).collect();
        for (name, entry) in &self.entries {
            if let (false, Some(container)) = (names.contains(name), entry.container()) {
                lines.push((container.to_owned(), "no longer attached: not watched any more".to_owned()));
            }
        }
        self.entries.retain(|name, _| names.contains(name));
        for (name, recorded) in found {
            let known = self.entries.get_mut(&name);
            if known.as_ref().is_some_and(|known| known.recorded == recorded) {
                continue;
            }
            if let Err(failure) = &recorded {
                lines.push((name.clone(), with_hint(failure)));
            }
            // What is at work goes on; it is looked at again when that has ended.
            let (running, done) = known.map_or((None, None), |known| (known.running.take(), known.done.clone()));
            let mut entry = Entry { running, done, ..Entry::new(recorded) };
            entry.want(cause);
            self.entries.insert(name, entry);
        }
        lines
    }

    /// Everything is to be looked at.
    pub(super) fn all(&mut self, cause: &Cause) {
        for entry in self.entries.values_mut().filter(|entry| entry.recorded.is_ok()) {
            // What waits for its next attempt keeps its pace; but who knows what changed while the daemon was away.
            if *cause != Cause::Pass || entry.due.is_none() {
                entry.want(cause);
            }
        }
    }

    /// Something happened to a container.
    pub(super) fn container(&mut self, name: &str, cause: &Cause) {
        for entry in self.entries.values_mut().filter(|entry| entry.container() == Some(name)) {
            entry.want(cause);
        }
        if *cause == Cause::Renamed {
            // It had another name, which nobody tells.
            self.all(&Cause::Renamed);
        }
    }

    /// How the cards are at the beginning.
    pub(super) async fn learn_links(&mut self, probe: &Probe) -> Result<(), Failure> {
        let host = probe.netlink(None)?;
        let links = host.links().await;
        host.close().await;
        self.cards = links?.iter().map(|link| (link.name.clone(), card(link))).collect();
        Ok(())
    }

    pub(super) fn link_there(&mut self, link: &Link) -> Option<String> {
        let before = self.cards.insert(link.name.clone(), card(link));
        let used = self.entries.values().any(|entry| entry.parent() == Some(&link.name));
        if !used || before == Some(card(link)) {
            return None;
        }
        self.disturb(&link.name);
        match before {
            None => Some(format!("network card {} is there", link.name)),
            Some((_, _, up)) if up != link.up => {
                Some(format!("network card {} is {}", link.name, if link.up { "up" } else { "down" }))
            }
            Some((_, mtu, _)) if mtu != link.mtu => {
                Some(format!("network card {} has an MTU of {} now", link.name, link.mtu))
            }
            Some(_) => Some(format!("network card {} was replaced", link.name)),
        }
    }

    pub(super) fn link_gone(&mut self, link: &Link) -> Option<String> {
        self.cards.remove(&link.name);
        if let Some(parent) = link.alias.strip_prefix("fanli:1:shim:") {
            let parent = parent.to_owned();
            self.disturb(&parent);
            return None;
        }
        if !self.entries.values().any(|entry| entry.parent() == Some(&link.name)) {
            return None;
        }
        self.disturb(&link.name);
        Some(format!("network card {} is gone", link.name))
    }

    fn disturb(&mut self, card: &str) {
        self.restless.insert(card.to_owned());
        self.quiet_at = Some(Instant::now() + QUIET);
    }

    pub(super) fn quiet_at(&self) -> Option<Instant> {
        self.quiet_at
    }

    /// What hangs on cards that changed is to be looked at.
    pub(super) fn links_are_quiet(&mut self) {
        self.quiet_at = None;
        let cards = std::mem::take(&mut self.restless);
        for entry in self.entries.values_mut() {
            if let Some(card) = entry.parent().filter(|parent| cards.contains(*parent)) {
                let cause = Cause::Link(card.to_owned());
                entry.want(&cause);
            }
        }
    }

    /// When the next failed one is tried again.
    pub(super) fn due_at(&self) -> Option<Instant> {
        self.entries.values().flat_map(|entry| [entry.due, entry.silent_at]).flatten().min()
    }

    pub(super) fn retry(&mut self) {
        let now = Instant::now();
        for entry in self.entries.values_mut().filter(|entry| entry.due.is_some_and(|due| due <= now)) {
            entry.due = None;
            entry.want(&Cause::Retry);
        }
        for entry in self.entries.values_mut().filter(|entry| entry.silent_at.is_some_and(|at| at <= now)) {
            entry.silent_at = None;
            entry.want(&Cause::Silence);
        }
    }

    /// Starts what is to be done, as much at a time as may be. Without the daemon nothing is.
    pub(super) fn start_jobs(&mut self, parallel: usize) {
        let Some(probe) = &self.probe else { return };
        // What has just started comes first: its program waits for the network.
        for started in [true, false] {
            for (name, entry) in &mut self.entries {
                if self.jobs.len() >= parallel {
                    return;
                }
                let Ok(recorded) = &entry.recorded else { continue };
                if entry.running.is_some()
                    || entry.wanted.as_ref().is_none_or(|(cause, _)| (*cause == Cause::Started) != started)
                {
                    continue;
                }
                let Some((cause, asked)) = entry.wanted.take() else { continue };
                entry.due = None;
                // Whatever is looked at now is newer than that.
                entry.silent_at = None;
                let waits = Waits::default();
                let (name, recorded, probe, inner) = (name.clone(), recorded.clone(), probe.clone(), waits.clone());
                let work = async move { inner.watching(Box::pin(job::run(name, recorded, cause, asked, probe))).await };
                let handle = self.jobs.spawn(work);
                entry.running = Some(Running { handle, since: Instant::now(), waits, told: false });
            }
        }
    }

    /// The next job that ended.
    pub(super) async fn finished(&mut self) -> Ended {
        match self.jobs.join_next_with_id().await {
            Some(Ok((id, finished))) => (id, Some(finished)),
            Some(Err(broken)) => (broken.id(), None),
            None => std::future::pending().await,
        }
    }

    /// When the next job has taken long.
    pub(super) fn slow_at(&self) -> Option<Instant> {
        let slow = |entry: &Entry| {
            let running = entry.running.as_ref()?;
            // Once told, it is only of interest while something new waits for it.
            (!running.told || entry.is_urgent()).then(|| running.since + SLOW)
        };
        self.entries.values().filter_map(slow).min()
    }

    /// What takes long is told, once each; and it is broken off where its container has another process by now: whatever it
    /// waits for, that is news. Being broken off is as being killed, and the next look ends what was begun.
    pub(super) fn slow_jobs(&mut self) -> Vec<(String, String)> {
        let mut lines = Vec::new();
        for (name, entry) in &mut self.entries {
            let (urgent, who) = (entry.is_urgent(), entry.container().unwrap_or(name).to_owned());
            let Some(running) = entry.running.as_mut().filter(|running| running.since.elapsed() >= SLOW) else {
                continue;
            };
            if !running.told {
                running.told = true;
                let what = running.waits.now().map_or_else(
                    || "is at work".to_owned(),
                    |(what, since)| {
                        let what = what.strip_prefix("cannot ").unwrap_or(&what);
                        format!("waits to {what}, for {}", took(since.elapsed()))
                    },
                );
                lines.push((who.clone(), format!("not done after {}: {what}", took(running.since.elapsed()))));
            }
            if urgent && !running.handle.is_finished() {
                running.handle.abort();
                // Where the abort takes effect, `finished` hears of it.
                running.since = Instant::now();
                lines.push((who, "begun anew, as its container was started meanwhile".to_owned()));
            }
        }
        lines
    }

    /// Takes a result over; a line for the log.
    pub(super) fn finish(&mut self, (id, finished): Ended) -> Option<(String, String)> {
        let Some(finished) = finished else { return self.broken(id) };
        let Finished { name, cause, ended, docker_gone, done, at, took: time } = finished;
        let entry = self.entries.get_mut(&name)?;
        entry.running = None;
        let container = entry.container()?.to_owned();
        let before = entry.failure.take();
        let line = match ended {
            Ok(None) => {
                entry.want(&Cause::Declared);
                None
            }
            Ok(Some(condition)) => {
                let was = std::mem::replace(&mut entry.condition, condition);
                entry.pause = RETRY.0;
                if cause == Cause::Ended && condition == Condition::Stopped {
                    entry.silent_at = Some(Instant::now() + SILENCE);
                }
                let why = match (&cause, was) {
                    (Cause::Started, Condition::Unknown) => "container started".to_owned(),
                    (Cause::Begin | Cause::Docker, _) if condition == Condition::Stopped => Cause::Ended.show(),
                    // It ended, and runs again by the time it is looked at.
                    (Cause::Ended | Cause::Silence, _) if condition == Condition::Plugged => Cause::Started.show(),
                    _ => cause.show(),
                };
                if let Some(done) = &done {
                    let micros = at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros());
                    entry.done = Some((format!("{done} ({why})"), u64::try_from(micros).unwrap_or(u64::MAX)));
                }
                match (done, before) {
                    (Some(done), _) => Some(format!("{done} ({why}) in {}", took(time))),
                    (None, Some(_)) if condition == Condition::Plugged => Some("in place again".to_owned()),
                    (None, _) => None,
                }
            }
            // Everything is looked at when it is back; until that is noticed, the pace is that of failures.
            Err(_) if docker_gone || self.probe.is_none() => {
                entry.due = Some(Instant::now() + entry.pause);
                entry.failure = before;
                None
            }
            Err(failure) => {
                entry.condition = Condition::Failed;
                entry.due = Some(Instant::now() + entry.pause);
                entry.pause = (entry.pause * 2).min(RETRY.1);
                // Once for each failure, not for each attempt.
                let line = (before.as_ref() != Some(&failure)).then(|| with_hint(&failure));
                entry.failure = Some(failure);
                line
            }
        };
        line.map(|line| (container, line))
    }

    /// A job that has no result.
    fn broken(&mut self, id: Id) -> Option<(String, String)> {
        let of_job = |entry: &&mut Entry| entry.running.as_ref().is_some_and(|running| running.handle.id() == id);
        let entry = self.entries.values_mut().find(of_job)?;
        entry.running = None;
        if entry.is_urgent() {
            return None;
        }
        entry.condition = Condition::Failed;
        entry.due = Some(Instant::now() + entry.pause);
        entry.pause = (entry.pause * 2).min(RETRY.1);
        let failure = Failure::new("looking at it broke down").hint("this is a defect of fanli: it is tried again");
        let line = (entry.failure.as_ref() != Some(&failure)).then(|| with_hint(&failure));
        entry.failure = Some(failure);
        Some((entry.container()?.to_owned(), line?))
    }

    /// Waits for what is at work; nothing new is begun.
    pub(super) async fn end(&mut self) {
        while !self.jobs.is_empty() {
            let ended = self.finished().await;
            let _ = self.finish(ended);
        }
    }

    /// For `fanli status`.
    pub(super) fn status(&self) -> Vec<Attachment> {
        self.entries.iter().map(|(name, entry)| entry.attachment(name)).collect()
    }
}

fn with_hint(failure: &Failure) -> String {
    match &failure.hint {
        Some(hint) => format!("{failure}; {hint}"),
        None => failure.to_string(),
    }
}

impl Entry {
    fn attachment(&self, name: &str) -> Attachment {
        let mut told = match &self.recorded {
            Ok(recorded) => Attachment::of(recorded),
            Err(_) => Attachment::unreadable(name),
        };
        told.condition = self.condition;
        told.why = self.failure.as_ref().map(ToString::to_string);
        told.hint = self.failure.as_ref().and_then(|failure| failure.hint.clone());
        (told.done, told.done_at) = self.done.clone().unzip();
        told
    }
}
