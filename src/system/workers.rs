//! The processes of a server: who listens, which are its workers, and which of them are older than a moment.
//!
//! A server that reloads gracefully keeps its old workers until they have finished. Nothing in `/proc` says which configuration a
//! process has read, but when it was started it does say: who was there before the new configuration was cannot have read it.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use rustix::process::Signal;
use rustix::time::{ClockId, clock_gettime};

use super::procfs::{Stat, namespace, open_ones, pids, send};
use super::sockets::listening;
use super::{Actuator, Probe};
use crate::failure::Failure;

/// The kernel counts the start of a process in hundredths of a second for its readers (`USER_HZ`, on all that fanli runs on), and
/// cuts the rest off.
const TICK: Duration = Duration::from_millis(10);

/// A process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its number, as fanli sees it.
    pub pid: u32,
    /// Its parent's.
    pub parent: u32,
    /// Its name, as the kernel has it.
    pub name: String,
    /// Its program's file.
    pub program: PathBuf,
    /// When it was started, since 1970: up to a hundredth of a second too early.
    pub started: Duration,
}

impl Process {
    /// Whether it was surely started after that moment. Who was started within two hundredths of a second after it counts as
    /// older: neither the kernel's clock of files nor that of processes is finer.
    pub fn started_after(&self, moment: Duration) -> bool {
        self.started >= moment + TICK
    }

    /// Whether another look at the same number has found the same process.
    fn is(&self, now: &Self) -> bool {
        now.program == self.program && now.started.abs_diff(self.started) < TICK
    }
}

impl Probe {
    /// The processes that share the numbers of processes with `of` (all of one container), or with fanli itself. One that ends
    /// while this looks is left out.
    pub fn processes(&self, of: Option<u32>) -> Vec<Process> {
        let here = of.map_or_else(|| namespace("self", "pid"), |pid| namespace(pid, "pid"));
        let beside = pids().filter(|pid| here.is_some() && namespace(pid, "pid") == here);
        beside.filter_map(process).collect()
    }

    /// Whether that very process lives: it has not ended since it was looked at, and its number is not another's.
    pub fn lives(&self, process: &Process) -> bool {
        self::process(process.pid).is_some_and(|now| process.is(&now))
    }

    /// Those of the processes that have a socket open which listens on that TCP port, in the network of the first of them that
    /// can be looked at; `of` is any process in that network.
    pub fn listeners(&self, of: Option<u32>, port: u16, among: &[Process]) -> Result<Vec<Process>, Failure> {
        let net = of.map_or_else(|| "self".to_owned(), |pid| pid.to_string());
        let mut sockets = BTreeSet::new();
        for table in ["tcp", "tcp6"] {
            let text = self.read_small(format!("/proc/{net}/net/{table}"))?.unwrap_or_default();
            sockets.extend(text.lines().filter_map(|line| listening(line, port)));
        }
        let has = |process: &&Process| !open_ones(process.pid, "socket").is_disjoint(&sockets);
        Ok(among.iter().filter(has).cloned().collect())
    }
}

impl Probe {
    /// Those of the workers that serve an earlier configuration, though they may be younger than the new one's file: a master that
    /// has not been told to reload yet replaces a worker, or adds one, with what it has itself. Two servers show it: nginx's old
    /// workers say so in their titles, and Apache has new pipes to its workers after each reload.
    pub fn leaving(&self, workers: &[Process]) -> Vec<Process> {
        let nginx = |worker: &Process| {
            let title = self.process(worker.pid).map(|(_, words)| words.join(" "));
            title.is_some_and(|title| title.contains("worker process is shutting down"))
        };
        let apache = |worker: &Process| ["apache2", "httpd"].contains(&worker.name.as_str());
        let with_parent =
            |worker: &Process| -> BTreeSet<u64> { &open_ones(worker.pid, "pipe") & &open_ones(worker.parent, "pipe") };
        let shared: Vec<_> =
            workers.iter().filter(|worker| apache(worker)).map(|one| (one, with_parent(one))).collect();
        let fewer = |(worker, pipes): &&(&Process, BTreeSet<u64>)| {
            let mut others = shared.iter().filter(|(other, _)| other.parent == worker.parent);
            others.any(|(_, more)| pipes.len() < more.len() && pipes.is_subset(more))
        };
        let apaches = shared.iter().filter(fewer).map(|(worker, _)| (*worker).clone());
        workers.iter().filter(|worker| nginx(worker)).cloned().chain(apaches).collect()
    }
}

impl Actuator {
    /// Asks that very process to end: the signal TERM. One that has ended already is right.
    ///
    /// # Errors
    /// It cannot be signalled.
    pub fn end_process(&self, process: &Process) -> Result<(), Failure> {
        send(process.pid, Signal::TERM, || self::process(process.pid).is_some_and(|now| process.is(&now)))
    }
}

/// The workers of those that listen: from the eldest of their kin (parents of the same program) downward, those that have no child
/// of the program. A server that is one process is its own worker.
///
/// An old process that is no kin of the one that took its place (HAProxy without `-W`) is not found.
pub fn workers(all: &[Process], listeners: &[Process]) -> Vec<Process> {
    let eldest = |listener: &Process| {
        let mut eldest = listener.clone();
        // Bounded, as a number may have become another's between two looks.
        for _ in 0..all.len() {
            let parent = all.iter().find(|one| one.pid == eldest.parent && one.program == eldest.program);
            let Some(parent) = parent else { break };
            eldest = parent.clone();
        }
        eldest
    };
    let eldest: Vec<Process> = listeners.iter().map(eldest).collect();
    let mut kin: BTreeSet<u32> = eldest.iter().map(|process| process.pid).collect();
    let programs: BTreeSet<&PathBuf> = eldest.iter().map(|process| &process.program).collect();
    let family = loop {
        let mut family: Vec<&Process> =
            all.iter().filter(|one| kin.contains(&one.pid) || kin.contains(&one.parent)).collect();
        family.retain(|one| programs.contains(&one.program));
        let known = kin.len();
        kin.extend(family.iter().map(|one| one.pid));
        if kin.len() == known {
            break family;
        }
    };
    let parents: BTreeSet<u32> = family.iter().map(|process| process.parent).collect();
    family.into_iter().filter(|process| !parents.contains(&process.pid)).cloned().collect()
}

fn process(pid: u32) -> Option<Process> {
    let Stat { parent, name, ticks, .. } = Stat::read(pid)?;
    let program = std::fs::read_link(format!("/proc/{pid}/exe")).ok()?;
    // An upgrade replaces the file of a running program.
    let shown = program.to_string_lossy();
    let program = shown.strip_suffix(" (deleted)").map_or_else(|| program.clone(), PathBuf::from);
    // What the kernel counts from is the boot; the clock of files may have been set since then.
    let since_boot = Duration::from_millis(ticks.checked_mul(u64::try_from(TICK.as_millis()).ok()?)?);
    let started = now(ClockId::Realtime)?.checked_sub(now(ClockId::Boottime)?.checked_sub(since_boot)?)?;
    Some(Process { pid, parent, name, program, started })
}

fn now(clock: ClockId) -> Option<Duration> {
    let time = clock_gettime(clock);
    Some(Duration::new(u64::try_from(time.tv_sec).ok()?, u32::try_from(time.tv_nsec).ok()?))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Process, workers};

    fn process(pid: u32, parent: u32, program: &str, started: u64) -> Process {
        let started = Duration::from_millis(started);
        Process { pid, parent, name: program.to_owned(), program: program.into(), started }
    }

    #[test]
    fn workers_are_the_leaves_of_a_program() {
        let all = [
            process(1, 0, "supervisord", 0),
            process(5, 1, "apache2", 100),
            process(6, 5, "cronolog", 110),
            process(7, 5, "apache2", 120),
            process(8, 5, "apache2", 900),
            process(20, 1, "apache2", 90),
            process(21, 20, "apache2", 95),
        ];
        // Whoever of them listens; another server of the same program is another's.
        for listener in [1, 3, 4] {
            let found = workers(&all, &all[listener..=listener]);
            assert_eq!(found.iter().map(|worker| worker.pid).collect::<Vec<_>>(), [7, 8]);
        }
        assert_eq!(workers(&all, &all[..1])[0].pid, 1);
    }

    #[test]
    fn who_was_started_at_the_same_moment_is_older() {
        let moment = Duration::from_millis(500);
        assert!(!process(1, 0, "x", 499).started_after(moment));
        assert!(!process(1, 0, "x", 505).started_after(moment));
        assert!(process(1, 0, "x", 510).started_after(moment));
    }

    #[test]
    fn this_process_was_started_a_moment_ago() {
        let before = super::now(rustix::time::ClockId::Realtime).unwrap();
        let own = super::process(std::process::id()).unwrap();
        assert!(own.started <= before && !own.started_after(before));
    }
}
