//! The dead man's hand: a slot whose switch was not confirmed in time is put back, and what has to follow follows.
//!
//! Everything is in the slot's record, so a watcher that is killed, or a host that is started anew, goes on from there: the slot is
//! turned first, and each task that worked is struck from the record. One that does not work is tried again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::task::{Id, JoinSet};
use tokio::time::Instant;

use super::stamp::FolderStamp;
use crate::engine;
use crate::failure::Failure;
use crate::resource::rollout::{Overdue, Owed, Record, RevertStep, all_records, folder};
use crate::system::Probe;

/// How long putting a slot back may take (`put_back`): above all the wait for its lock.
const PUT_BACK: Duration = Duration::from_secs(90);
/// How long one task that follows may take (`revert_step`).
const STEP: Duration = Duration::from_secs(120);
/// The pauses between two attempts at what failed: the first, and the longest.
const RETRY: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(60));

/// Lines for the log: of which slot, and what.
type Lines = Vec<(String, String)>;

/// How a job ended: `None` when it broke down.
pub(super) type Ended = (Id, Option<Worked>);

/// What a job brought about.
#[derive(Default)]
pub(super) struct Worked {
    lines: Vec<String>,
    failure: Option<Failure>,
}

/// What failed of a slot, and when it is tried again.
struct Failed {
    told: String,
    pause: Duration,
    due: Instant,
}

/// The slots of the host.
#[derive(Default)]
pub(super) struct Slots {
    stamp: FolderStamp,
    records: Vec<Record>,
    jobs: JoinSet<Worked>,
    at_work: BTreeMap<Id, String>,
    failed: BTreeMap<String, Failed>,
    /// What was told of records that cannot be read.
    damaged: BTreeSet<String>,
}

impl Slots {
    /// Reads the records when their folder changed, and begins what is due.
    pub(super) fn look(&mut self, probe: &Probe) -> Lines {
        let lines = if self.stamp.changed(&folder(probe.state_dir())) { self.read(probe) } else { Vec::new() };
        let waits = self.records.iter().any(|record| record.owes() || (record.is_open() && record.deadline.is_some()));
        // Without `/proc` nobody knows the time; the next look asks again.
        if waits && let Ok(now) = probe.moment() {
            let at_work: BTreeSet<&String> = self.at_work.values().collect();
            let rests = |path: &String| self.failed.get(path).is_some_and(|failed| failed.due > Instant::now());
            let due = self.records.iter().filter(|record| record.is_overdue(&now) || record.owes());
            let due = due.map(|record| &record.path).filter(|path| !at_work.contains(path) && !rests(path));
            for path in due.cloned().collect::<Vec<_>>() {
                let (inner, probe) = (path.clone(), probe.clone());
                let handle = self.jobs.spawn(async move { Box::pin(see_to(&inner, &probe)).await });
                self.at_work.insert(handle.id(), path);
            }
        }
        lines
    }

    fn read(&mut self, probe: &Probe) -> Lines {
        let found = match all_records(probe) {
            Ok(found) => found,
            Err(failure) => vec![(String::new(), Err(failure))],
        };
        let (mut lines, mut damaged) = (Vec::new(), BTreeSet::new());
        self.records.clear();
        for (name, record) in found {
            match record {
                Ok(record) => self.records.push(record),
                Err(failure) => {
                    let text = with_hint(&failure);
                    if !self.damaged.contains(&text) {
                        lines.push((name, text.clone()));
                    }
                    damaged.insert(text);
                }
            }
        }
        self.damaged = damaged;
        lines
    }

    /// The next job that ended.
    pub(super) async fn finished(&mut self) -> Ended {
        match self.jobs.join_next_with_id().await {
            Some(Ok((id, worked))) => (id, Some(worked)),
            Some(Err(broken)) => (broken.id(), None),
            None => std::future::pending().await,
        }
    }

    /// Takes a result over.
    pub(super) fn finish(&mut self, (id, worked): Ended) -> Lines {
        let Some(path) = self.at_work.remove(&id) else { return Vec::new() };
        // It wrote records itself.
        self.stamp.forget();
        let broken = || Worked {
            failure: Some(Failure::new("seeing to it broke down").hint("this is a defect of fanli: it is tried again")),
            ..Worked::default()
        };
        let Worked { mut lines, failure } = worked.unwrap_or_else(broken);
        let before = self.failed.remove(&path);
        if let Some(failure) = failure {
            let told = with_hint(&failure);
            // Once for each failure, not for each attempt.
            if before.as_ref().is_none_or(|before| before.told != told) {
                lines.push(told.clone());
            }
            let pause = before.map_or(RETRY.0, |before| (before.pause * 2).min(RETRY.1));
            self.failed.insert(path.clone(), Failed { told, pause, due: Instant::now() + pause });
        }
        lines.into_iter().map(|line| (path.clone(), line)).collect()
    }
}

fn with_hint(failure: &Failure) -> String {
    match &failure.hint {
        Some(hint) => format!("{failure}; {hint}"),
        None => failure.to_string(),
    }
}

/// Puts a slot back when that is due, and does what has to follow.
async fn see_to(path: &str, probe: &Probe) -> Worked {
    let mut lines = Vec::new();
    let failure = put_back(path, probe, &mut lines).await.err();
    Worked { lines, failure }
}

async fn put_back(path: &str, probe: &Probe, lines: &mut Vec<String>) -> Result<(), Failure> {
    match engine::keep(&Overdue(path.to_owned()), probe, ("put_back", PUT_BACK)).await {
        Ok(None) => {}
        Ok(Some(_)) => lines.extend(Record::read(probe, path)?.and_then(|record| record.why)),
        Err(failure) => {
            if let Some(record) = Record::read(probe, path)? {
                let (left, trouble) = (record.revert.clone(), Some(with_hint(&failure)));
                note(Owed { record, left, trouble }, probe).await?;
            }
            return Err(failure);
        }
    }
    let Some(mut record) = Record::read(probe, path)?.filter(Record::owes) else { return Ok(()) };
    let (mut failed, mut todo) = (Vec::new(), record.revert.clone());
    let (mut trouble, mut first) = (None, None);
    while !todo.is_empty() {
        let step = todo.remove(0);
        match carry_out(&step, probe).await {
            Ok(()) => lines.push(format!("after that: {}", step.show())),
            Err(failure) => {
                let failure = failure.within(format!("`{}`, which follows the revert, does not work", step.show()));
                trouble.get_or_insert_with(|| with_hint(&failure));
                first.get_or_insert(failure);
                failed.push(step);
            }
        }
        let left = [failed.clone(), todo.clone()].concat();
        let expected = Record { revert: left.clone(), trouble: trouble.clone(), ..record.clone() };
        note(Owed { record, left, trouble: trouble.clone() }, probe).await?;
        match Record::read(probe, path)? {
            Some(found) if found == (Record { changed: found.changed, ..expected }) => record = found,
            // A run has taken the slot over, and sees to everything.
            _ => return Ok(()),
        }
    }
    first.map_or(Ok(()), Err)
}

/// Runs a task, whatever its nature.
async fn carry_out(step: &RevertStep, probe: &Probe) -> Result<(), Failure> {
    engine::keep(&step.build()?, probe, ("revert_step", STEP)).await.map(drop)
}

async fn note(owed: Owed, probe: &Probe) -> Result<(), Failure> {
    engine::keep(&owed, probe, ("put_back", PUT_BACK)).await.map(drop)
}
