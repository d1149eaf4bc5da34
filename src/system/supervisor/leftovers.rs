//! What a program of supervisor has left behind: processes that outlived their parent, and that nobody looks after any more.
//!
//! A server whose first process is killed by force leaves its workers. They hold its port, so supervisor cannot start it again and
//! gives up. Supervisor never sees them: it knows the first process of a program alone.

use std::collections::BTreeSet;
use std::time::Duration;

use rustix::process::Signal;
use tokio::time::{Instant, sleep};

use super::super::procfs::{self, Stat};
use super::xml::Item;
use super::{Process, ProcessState, Supervisor, SupervisorHands};
use crate::failure::Failure;

/// How long they are given to end by themselves.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long what was killed may still be seen (`leftovers`).
const KILLED: Duration = Duration::from_secs(10);
/// How often it is looked whether they are gone.
const RETRY: Duration = Duration::from_millis(50);

impl Supervisor {
    /// The processes that a program has left behind, where it is down by its own fault or on its way up again.
    ///
    /// Supervisor makes the first process of each program the leader of a process group, and leaves it in its own session. So a
    /// group of that session whose leader is gone, and of which supervisor or the first process of all has inherited somebody, is
    /// what is left of a program. What a person started with `docker exec` is in another session. Which program it was stands in
    /// the environment; where that may not be read, it is taken to be the one that is down.
    ///
    /// # Errors
    /// Supervisor does not answer.
    async fn leftovers(&self, process: &Process) -> Result<Vec<Stat>, Failure> {
        use ProcessState::{Backoff, Exited, Fatal, Starting};
        if !matches!(process.state, Starting | Backoff | Exited | Fatal) {
            return Ok(Vec::new());
        }
        let answer = self.call("getPID", &[], &[]).await?;
        let own = answer.as_ref().and_then(Item::int).and_then(|pid| u32::try_from(pid).ok());
        let own = own.ok_or_else(|| self.odd("getPID"))?;
        let all = procfs::beside(self.process);
        let says = |stat: &Stat, name: &str, is: &str| procfs::variable(stat.pid, name).is_none_or(|value| value == is);
        let of_program = |stat: &Stat| {
            says(stat, "SUPERVISOR_GROUP_NAME", &process.group) && says(stat, "SUPERVISOR_PROCESS_NAME", &process.name)
        };
        Ok(orphans(&all, own).into_iter().filter(of_program).collect())
    }

    /// Whether any of a program's processes has left something behind: it is down, and still answers.
    ///
    /// # Errors
    /// Supervisor does not answer.
    pub async fn has_leftovers(&self, processes: &[Process]) -> Result<bool, Failure> {
        for process in processes {
            if !self.leftovers(process).await?.is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl SupervisorHands {
    /// Ends what a program has left behind: asks first, and kills what has not ended then. Tells how many there were.
    ///
    /// # Errors
    /// Supervisor does not answer; something cannot be ended.
    pub async fn end_leftovers(&self, process: &Process) -> Result<usize, Failure> {
        let found = self.leftovers(process).await?;
        let name = process.full_name();
        for (signal, patience) in [(Signal::TERM, PATIENCE), (Signal::KILL, KILLED)] {
            for left in &found {
                procfs::send(left.pid, signal, || left.lives())
                    .map_err(|failure| failure.within(format!("{name} in {} has left processes behind", self.name)))?;
            }
            let begun = Instant::now();
            while begun.elapsed() < patience {
                if !found.iter().any(Stat::lives) {
                    return Ok(found.len());
                }
                sleep(RETRY).await;
            }
        }
        let numbers: Vec<String> = found.iter().filter(|left| left.lives()).map(|left| left.pid.to_string()).collect();
        Err(Failure::timeout("leftovers", KILLED).within(format!(
            "processes that {name} in {} has left behind do not end: {}",
            self.name,
            numbers.join(", ")
        )))
    }
}

/// Those whose process group has lost its leader, in the session of supervisor; it, or the first process, has inherited at least one
/// of them.
fn orphans(all: &[Stat], supervisor: u32) -> Vec<Stat> {
    let Some(supervisor) = all.iter().find(|one| one.inside == supervisor) else { return Vec::new() };
    let leaderless = |one: &&Stat| {
        let led = all.iter().any(|leader| leader.pid == one.group);
        one.session == supervisor.session && one.group != supervisor.group && !led
    };
    let heirs: Vec<u32> = all.iter().filter(|one| one.inside == 1).map(|one| one.pid).chain([supervisor.pid]).collect();
    let inherited = all.iter().filter(leaderless).filter(|one| heirs.contains(&one.parent));
    let groups: BTreeSet<u32> = inherited.map(|one| one.group).collect();
    all.iter().filter(|one| groups.contains(&one.group)).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stat(pid: u32, parent: u32, group: u32, session: u32) -> Stat {
        Stat { pid, inside: pid, parent, group, session, name: "x".to_owned(), ticks: 0 }
    }

    #[test]
    fn what_lost_its_leader_is_left_behind() {
        let all = [
            stat(1, 0, 1, 1),
            // A program that is up, with its child.
            stat(5, 1, 5, 1),
            stat(6, 5, 5, 1),
            // Two that outlived their parent, which was 7; and a child of one of them.
            stat(8, 1, 7, 1),
            stat(9, 1, 7, 1),
            stat(10, 9, 7, 1),
            // What a program that is up leads in a group of its own, whose first has ended.
            stat(12, 6, 11, 1),
            // What a person left with `docker exec`.
            stat(20, 1, 19, 19),
            // Supervisor's own child, in its own group.
            stat(30, 1, 1, 1),
        ];
        let found = |all: &[Stat], supervisor| orphans(all, supervisor).iter().map(|one| one.pid).collect::<Vec<_>>();
        assert_eq!(found(&all, 1), [8, 9, 10]);
        assert_eq!(found(&all, 99), [0; 0]);
        // Behind a small first process, which inherits instead.
        let behind = [stat(1, 0, 1, 1), stat(2, 1, 2, 1), stat(4, 1, 3, 1), stat(5, 2, 5, 1)];
        assert_eq!(found(&behind, 2), [4]);
    }
}
