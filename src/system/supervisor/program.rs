//! What takes several calls: a program that is taken in anew, started, stopped or reloaded, and awaited.
//!
//! Each of these may be cut off anywhere and done again: it goes by what supervisor says now.

use std::sync::PoisonError;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{Process, ProcessState, Supervisor, SupervisorHands, births};
use crate::failure::{Failure, FailureKind};

/// How often what is awaited is looked at.
const RETRY: Duration = Duration::from_millis(100);
/// How long a program that has ended may be seen so before supervisor starts it again: it looks about once a second.
const AGAIN: Duration = Duration::from_secs(3);

/// How long things may take.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Until a program is up, through supervisor's own `startsecs`: limit `start_limit`.
    pub start: Duration,
    /// Until a program is gone, through supervisor's own `stopwaitsecs`: limit `stop_limit`.
    pub stop: Duration,
    /// How long a program that was sent a signal must stay the one it is.
    pub steady: Duration,
}

/// What was done about a group that stands in supervisor's files otherwise than it is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Updated {
    /// Nothing: it is as in the files.
    Same,
    /// It was taken in.
    Added,
    /// It was stopped, forgotten and taken in anew.
    Replaced,
}

/// What a reload has done to a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Did {
    /// It got the signal, and stayed up.
    Signalled,
    /// It did not run, and was started.
    Started,
    /// It was taken in anew, because it stands in supervisor's files otherwise than before.
    Updated,
    /// It got the signal, died of it, and supervisor has started it again.
    Died,
    /// It is stopped, and was left so: what does not run holds nothing old.
    Nothing,
}

impl Did {
    /// As results and messages have it.
    pub fn show(self) -> &'static str {
        match self {
            Self::Signalled => "signalled",
            Self::Started => "started",
            Self::Updated => "updated",
            Self::Died => "died",
            Self::Nothing => "nothing",
        }
    }
}

/// How a reload ended.
#[derive(Clone, Debug)]
pub struct Reloaded {
    /// What was done.
    pub did: Did,
    /// The program's processes as they are then.
    pub processes: Vec<Process>,
    /// Other groups that stand in supervisor's files otherwise than they are loaded; they were not touched.
    pub others: Vec<String>,
}

/// The processes of a program: `group:name` is one; else a group's, or those of that name in any group.
pub fn select(all: &[Process], program: &str) -> Vec<Process> {
    let pick = |fits: &dyn Fn(&Process) -> bool| all.iter().filter(|one| fits(one)).cloned().collect::<Vec<_>>();
    if program.contains(':') {
        return pick(&|one| one.full_name() == program);
    }
    let group = pick(&|one| one.group == program);
    if group.is_empty() { pick(&|one| one.name == program) } else { group }
}

/// The group of a program, whether it is loaded or not.
fn group_of<'p>(program: &'p str, found: &'p [Process]) -> &'p str {
    let named = program.split(':').next().unwrap_or(program);
    found.first().map_or(named, |process| process.group.as_str())
}

impl Supervisor {
    /// The processes of a program; none when it is not loaded.
    pub async fn program(&self, program: &str) -> Result<Vec<Process>, Failure> {
        Ok(select(&self.processes().await?, program))
    }

    /// Whether a program is loaded as it stands in supervisor's files: what an update would do to it.
    ///
    /// # Errors
    /// It is neither loaded nor in the files, or no more in the files.
    pub async fn outdated(&self, program: &str) -> Result<(Updated, Vec<String>), Failure> {
        let differences = self.reread().await?;
        let found = self.program(program).await?;
        let group = group_of(program, &found);
        let has = |names: &[String]| names.iter().any(|name| name == group);
        let others = differences.others(group);
        let hint = "its `[program:…]` belongs into a file that supervisor's `[include]` names";
        if has(&differences.added) {
            Ok((Updated::Added, others))
        } else if has(&differences.changed) {
            Ok((Updated::Replaced, others))
        } else if has(&differences.removed) {
            Err(Failure::new(format!("`{program}` stands no more in the files of supervisor of {}", self.name))
                .hint(hint))
        } else if found.is_empty() {
            Err(Failure::new(format!("supervisor of {} knows no program `{program}`", self.name)).hint(hint))
        } else {
            Ok((Updated::Same, others))
        }
    }

    /// Waits until the processes of a program are all in a state that is asked for; `end` says which, and which is a failure.
    async fn until(
        &self,
        program: &str,
        limit: (&str, Duration),
        end: impl Fn(&Process) -> Result<bool, Failure>,
    ) -> Result<Vec<Process>, Failure> {
        let begun = Instant::now();
        loop {
            let found = self.program(program).await?;
            let mut left = None;
            for process in &found {
                if !end(process)? {
                    left = Some(format!("{} is {}", process.full_name(), process.state.show()));
                }
            }
            let Some(left) = left else { return Ok(found) };
            if begun.elapsed() >= limit.1 {
                return Err(Failure::timeout(limit.0, limit.1).within(format!("in {} {left}", self.name)));
            }
            sleep(RETRY).await;
        }
    }

    /// Waits until a program is up. What is stopped and may stay so is not awaited.
    async fn until_up(&self, program: &str, stopped_is_fine: bool, limit: Duration) -> Result<Vec<Process>, Failure> {
        let ended = std::sync::Mutex::new(None);
        let up = |process: &Process| match process.state {
            ProcessState::Running => Ok(true),
            ProcessState::Stopped => Ok(stopped_is_fine),
            ProcessState::Fatal => Err(self.down(process)),
            ProcessState::Exited => {
                let mut ended = ended.lock().unwrap_or_else(PoisonError::into_inner);
                let since = ended.get_or_insert_with(Instant::now).elapsed();
                if since < AGAIN { Ok(false) } else { Err(self.down(process)) }
            }
            _ => Ok(false),
        };
        self.until(program, ("start_limit", limit), up).await
    }

    /// A program that does not come up.
    fn down(&self, process: &Process) -> Failure {
        let (name, state) = (process.full_name(), process.state.show());
        let failure = Failure::new(format!("{name} in {} does not stay up: it is {state}", self.name));
        let failure = if process.said.is_empty() { failure } else { failure.because(&process.said) };
        failure.hint("its own output tells why: `docker logs`, or its log as supervisor's configuration names it")
    }
}

impl SupervisorHands {
    /// Brings one group to what stands in supervisor's files; no other is touched.
    ///
    /// # Errors
    /// As [`Supervisor::outdated`]; and when it does not stop within its limit.
    pub async fn update(&self, program: &str, patience: Patience) -> Result<(Updated, Vec<String>), Failure> {
        let (updated, others) = self.outdated(program).await?;
        let found = self.program(program).await?;
        let group = group_of(program, &found);
        if updated == Updated::Replaced {
            self.stop_group(group).await?;
            self.until_gone(group, patience.stop).await?;
            self.remove_group(group).await?;
        }
        if updated != Updated::Same {
            self.add_group(group).await?;
        }
        Ok((updated, others))
    }

    async fn until_gone(&self, program: &str, limit: Duration) -> Result<Vec<Process>, Failure> {
        use ProcessState::{Exited, Fatal, Stopped, Unknown};
        let gone = |process: &Process| Ok(matches!(process.state, Stopped | Exited | Fatal | Unknown));
        self.until(program, ("stop_limit", limit), gone).await
    }

    /// Stops a program and waits until it is gone.
    ///
    /// # Errors
    /// It is not gone within its limit.
    pub async fn bring_down(&self, program: &str, patience: Patience) -> Result<Vec<Process>, Failure> {
        for process in self.program(program).await? {
            self.end_leftovers(&process).await?;
            self.stop(&process.full_name()).await?;
        }
        self.until_gone(program, patience.stop).await
    }

    /// Starts what of a program does not run, and waits until all of it does. What it has left behind is ended first.
    ///
    /// # Errors
    /// It does not come up, or not within its limit.
    pub async fn bring_up(&self, program: &str, patience: Patience) -> Result<Vec<Process>, Failure> {
        let found = self.program(program).await?;
        for process in found.iter().filter(|process| process.state == ProcessState::Stopped) {
            self.start(&process.full_name()).await?;
        }
        self.start_again(program, &found, false, patience.start).await
    }

    /// Starts what of a program is down by its own fault, once nothing that it left behind is in its way, and waits until it is up.
    async fn start_again(
        &self,
        program: &str,
        found: &[Process],
        stopped_is_fine: bool,
        limit: Duration,
    ) -> Result<Vec<Process>, Failure> {
        let mut ended = 0;
        for process in found {
            ended += self.end_leftovers(process).await?;
            if process.is_down() {
                self.start(&process.full_name()).await?;
            }
        }
        match self.until_up(program, stopped_is_fine, limit).await {
            // The last of supervisor's own tries may have met what was there.
            Err(_) if ended > 0 => {
                for process in self.program(program).await?.iter().filter(|process| process.is_down()) {
                    self.start(&process.full_name()).await?;
                }
                self.until_up(program, stopped_is_fine, limit).await
            }
            up => up,
        }
    }

    /// Has a program use its configuration as it is now: taken in anew when supervisor's own files changed for it, started when it
    /// is down by its own fault, else sent the signal. Then it is awaited, and must stay up.
    ///
    /// The configuration must be a good one: a bad one kills what gets the signal.
    ///
    /// # Errors
    /// Supervisor does not know it; it does not come up or stay up.
    pub async fn reload(&self, program: &str, signal: &str, patience: Patience) -> Result<Reloaded, Failure> {
        let (updated, others) = self.update(program, patience).await?;
        let found = self.program(program).await?;
        let mut did = if updated == Updated::Same { Did::Nothing } else { Did::Updated };
        let was_down = |process: &Process| {
            let same = found.iter().find(|one| one.full_name() == process.full_name());
            same.is_some_and(Process::is_down)
        };
        if found.iter().any(Process::is_down) {
            did = Did::Started;
        }
        let fresh = did != Did::Nothing;
        let up = self.start_again(program, &found, true, patience.start).await?;
        // What was on its way up already may have read the configuration before it was what it is.
        let running: Vec<_> = up.iter().filter(|process| process.state == ProcessState::Running).cloned().collect();
        let told = running.iter().filter(|process| !fresh || !was_down(process)).collect::<Vec<_>>();
        if updated != Updated::Same || told.is_empty() {
            return Ok(Reloaded { did, processes: up, others });
        }
        for process in &told {
            self.signal(&process.full_name(), signal).await?;
        }
        let processes = match self.until_steady(program, &running, patience).await {
            // What died of the signal may have left workers behind, which are in the way of a new start.
            Err(failure) if failure.kind == FailureKind::Step => {
                let found = self.program(program).await?;
                if !self.has_leftovers(&found).await? {
                    return Err(failure);
                }
                self.start_again(program, &found, true, patience.start).await?
            }
            steady => steady?,
        };
        let died = births(&select_running(&processes)) != births(&running);
        let did = match did {
            Did::Started => Did::Started,
            _ if died => Did::Died,
            _ => Did::Signalled,
        };
        Ok(Reloaded { did, processes, others })
    }

    /// Waits as long as a program must stay up; one that dies and comes up again is waited for anew.
    async fn until_steady(
        &self,
        program: &str,
        before: &[Process],
        patience: Patience,
    ) -> Result<Vec<Process>, Failure> {
        let (limit, mut last) = (patience.start + patience.steady, births(before));
        let (begun, mut since) = (Instant::now(), Instant::now());
        loop {
            sleep(RETRY.min(patience.steady)).await;
            let left = patience.start.saturating_sub(begun.elapsed());
            let up = self.until_up(program, true, left).await?;
            let now = births(&select_running(&up));
            if now != last {
                (last, since) = (now, Instant::now());
            }
            if since.elapsed() >= patience.steady {
                return Ok(up);
            }
            if begun.elapsed() >= limit {
                return Err(Failure::timeout("start_limit", limit)
                    .within(format!("`{program}` in {} dies again and again", self.name)));
            }
        }
    }
}

fn select_running(all: &[Process]) -> Vec<Process> {
    all.iter().filter(|process| process.state == ProcessState::Running).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(group: &str, name: &str) -> Process {
        let (group, name, said) = (group.to_owned(), name.to_owned(), String::new());
        Process { group, name, state: ProcessState::Running, pid: Some(1), start: 0, said }
    }

    #[test]
    fn a_program_is_found_by_group_name_or_both() {
        let all = [process("apache2", "apache2"), process("web", "php"), process("web", "cron"), process("php", "x")];
        let names = |program: &str| select(&all, program).iter().map(Process::full_name).collect::<Vec<_>>();
        assert_eq!(names("apache2"), ["apache2:apache2"]);
        assert_eq!(names("web"), ["web:php", "web:cron"]);
        assert_eq!(names("web:cron"), ["web:cron"]);
        assert_eq!(names("cron"), ["web:cron"]);
        // A group goes before a name.
        assert_eq!(names("php"), ["php:x"]);
        assert_eq!(names("nothing"), Vec::<String>::new());
        assert_eq!(group_of("web:new", &[]), "web");
        assert_eq!(group_of("cron", &select(&all, "cron")), "web");
    }
}
