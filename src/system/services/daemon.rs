//! A program that nobody supervises: started in a session of its own, found by its pid file or by a mark in its environment.
//!
//! A pid file alone says little: it may be of a process that is gone, and the number another's by now. So the process must live,
//! be that program or carry the mark, and see the same files as fanli does. Until the pid file is written, the mark tells that a
//! start was made, also to the next run when this one was killed between the two: there is never a second process.
//!
//! A start script may become another program by `exec`: it still leads the session that it was started in, and its mark says whose it
//! is. Children inherit the mark, but lead no session.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use super::super::process::Program;
use super::super::procfs::{Stat, pids};
use super::super::{Actuator, Probe};
use crate::failure::{Context, Failure};

/// The mark: the service's name in the environment of its process.
const MARK: &str = "FANLI_SERVICE";

/// How often a start or a stop is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// How long a process must live to count as started.
const SETTLE: Duration = Duration::from_secs(1);

/// How long a killed process may take to be gone: limit `kill`.
const KILL: Duration = Duration::from_secs(10);

/// How many of the last lines of its log a failure repeats, and how many bytes are looked at for them.
const TOLD_LINES: usize = 12;
const TOLD_BYTES: u64 = 16 * 1024;

/// A program as a service.
#[derive(Clone, Copy, Debug)]
pub struct Daemon<'a> {
    /// The service's name.
    pub name: &'a str,
    /// The program and its arguments.
    pub command: &'a [String],
    /// Where the program writes its process number.
    pub pid_file: Option<&'a str>,
    /// Where its output is added.
    pub log: &'a str,
}

impl Probe {
    /// The processes of the daemon: the one of its pid file, or those that carry its mark (children of such a one left out).
    ///
    /// # Errors
    /// The pid file cannot be read.
    pub fn daemon(&self, daemon: &Daemon) -> Result<Vec<u32>, Failure> {
        let Some(program) = self.daemon_program(daemon)? else { return Ok(Vec::new()) };
        if let Some(pid) = self.by_pid_file(daemon, &program)? {
            return Ok(vec![pid]);
        }
        Ok(marked(daemon, &program))
    }

    /// A failure with the last lines of the daemon's log.
    pub fn with_log(&self, failure: Failure, daemon: &Daemon) -> Failure {
        told(self, failure, daemon.log, 0)
    }

    fn by_pid_file(&self, daemon: &Daemon, program: &Path) -> Result<Option<u32>, Failure> {
        let Some(path) = daemon.pid_file else { return Ok(None) };
        let Some(text) = self.read_text(path, 1024)? else { return Ok(None) };
        let is_it = |pid: u32| is_program(pid, program, daemon) || alive(pid) && has_mark(pid, daemon.name);
        Ok(text.trim().parse().ok().filter(|pid| is_it(*pid) && same_files(*pid)))
    }

    /// The program's file; `None` when it is not installed.
    fn daemon_program(&self, daemon: &Daemon) -> Result<Option<PathBuf>, Failure> {
        let name = daemon.command.first().map_or("", String::as_str);
        if name.starts_with('/') {
            return self.canonical(name);
        }
        self.program(name)?.map_or(Ok(None), |path| self.canonical(path))
    }
}

impl Actuator {
    /// Starts the daemon, unless it runs already, and waits until it really does. Gives its process number.
    ///
    /// # Errors
    /// It ends at once: with the last lines of its log. It is not up within `limit`.
    pub async fn daemon_up(&self, daemon: &Daemon<'_>, limit: (&str, Duration)) -> Result<u32, Failure> {
        let program = self.daemon_program(daemon)?;
        let begun = Instant::now();
        let log_end = self.stat_following(daemon.log)?.map_or(0, |entry| entry.size);
        let earlier: BTreeSet<u32> = carriers(daemon.name).collect();
        let mut child = None;
        if self.daemon(daemon)?.is_empty() {
            if let Some(stale) = daemon.pid_file {
                self.remove_file(stale)?;
            }
            let command = Program::new(daemon.command.iter().cloned()).env(MARK, daemon.name);
            child = Some(self.start_daemon(&command, Path::new(daemon.log))?);
        }
        let shown = daemon.command.first().map_or("", String::as_str);
        let mut gone = 0;
        loop {
            tokio::time::sleep(LOOK).await;
            let found = self.daemon(daemon)?;
            let written = match (&program, daemon.pid_file) {
                (Some(program), Some(_)) => self.by_pid_file(daemon, program)?.is_some(),
                _ => true,
            };
            match found.first() {
                Some(pid) if written && begun.elapsed() >= SETTLE => return Ok(*pid),
                Some(_) => gone = 0,
                None if child.is_some_and(alive) => gone = 0,
                None => gone += 1,
            }
            // Twice: a program that detaches itself may just be handing over.
            if gone > 1 {
                let failure = Failure::new(format!("`{shown}` ended right after its start"));
                let failure = left_running(failure, daemon.name, &earlier).await;
                return Err(told(self, failure, daemon.log, log_end));
            }
            if begun.elapsed() >= limit.1 {
                let mut failure = Failure::timeout(limit.0, limit.1).within(format!("`{shown}` is not up"));
                if let (true, Some(stray)) = (found.is_empty(), child.filter(|child| alive(*child))) {
                    failure = strayed(failure, stray).await;
                } else if let (false, Some(path)) = (written, daemon.pid_file) {
                    failure = failure.because(format!("it lives, but has not written its pid file {path}"));
                }
                return Err(told(self, failure, daemon.log, log_end));
            }
        }
    }

    /// Ends the daemon: asks it to, and kills it when it is not gone within `limit`.
    ///
    /// # Errors
    /// It cannot be signalled, or not even killed.
    pub async fn daemon_down(&self, daemon: &Daemon<'_>, limit: Duration) -> Result<(), Failure> {
        for (signal, limit) in [(Signal::TERM, limit), (Signal::KILL, KILL)] {
            self.daemon_signal(daemon, signal)?;
            let begun = Instant::now();
            while begun.elapsed() < limit {
                if self.daemon(daemon)?.is_empty() {
                    // A killed one leaves it behind, and may refuse to start again beside it.
                    return daemon.pid_file.map_or(Ok(()), |path| self.remove_file(path));
                }
                tokio::time::sleep(LOOK).await;
            }
            self.progress("it does not end when asked to: killing it", None);
        }
        Err(Failure::timeout("kill", KILL).within(format!("`{}` was killed and is still there", daemon.name)))
    }

    /// Has the daemon read its configuration again: the signal HUP.
    ///
    /// # Errors
    /// It cannot be signalled.
    pub fn daemon_reload(&self, daemon: &Daemon) -> Result<(), Failure> {
        self.daemon_signal(daemon, Signal::HUP)
    }

    fn daemon_signal(&self, daemon: &Daemon, signal: Signal) -> Result<(), Failure> {
        for pid in self.daemon(daemon)? {
            let Some(target) = Pid::from_raw(pid.cast_signed()) else { continue };
            match kill_process(target, signal) {
                Ok(()) | Err(rustix::io::Errno::SRCH) => {}
                Err(errno) => return Err(errno).with_context(|| format!("cannot signal process {pid}")),
            }
        }
        Ok(())
    }
}

/// The failure of a start whose process lives and could not be found again. It is ended: the next run would start one more beside it.
async fn strayed(failure: Failure, pid: u32) -> Failure {
    let program = exe(pid);
    if let Some(group) = Pid::from_raw(pid.cast_signed()) {
        let _ = kill_process_group(group, Signal::KILL);
    }
    gone(&[pid]).await;
    failure
        .because(format!(
            "it became {program} without {MARK} in its environment, by which it would be found again; it was ended"
        ))
        .hint("name that program itself in `command`, or leave the environment as it is in the script that starts it")
}

/// The failure of a start that ended and left processes of another program running, started since `earlier`. They are ended: as nothing
/// tells them from what a dead service left behind, the next run would start more beside them.
async fn left_running(failure: Failure, name: &str, earlier: &BTreeSet<u32>) -> Failure {
    let left: Vec<u32> = carriers(name).filter(|pid| !earlier.contains(pid)).collect();
    let Some(program) = left.first().map(|pid| exe(*pid)) else { return failure };
    for pid in left.iter().filter_map(|pid| Pid::from_raw(pid.cast_signed())) {
        let _ = kill_process(pid, Signal::KILL);
    }
    gone(&left).await;
    failure
        .because(format!(
            "it left {program} running, which is another program than the one of `command`; that was ended"
        ))
        .hint("name that program itself in `command`, or in `pid_file` where it writes its process number")
}

/// Waits until killed processes are gone. One that the kernel holds is not waited for without end.
async fn gone(killed: &[u32]) {
    let begun = Instant::now();
    while killed.iter().any(|pid| alive(*pid)) && begun.elapsed() < KILL {
        tokio::time::sleep(LOOK).await;
    }
}

/// The failure with what the log has since then.
fn told(probe: &Probe, failure: Failure, log: &str, since: u64) -> Failure {
    match last_lines(probe, log, since) {
        Some(lines) => failure.because(format!("its log {log} ends with\n{lines}")),
        None => failure.because(format!("its log {log} says nothing")),
    }
}

fn last_lines(probe: &Probe, log: &str, since: u64) -> Option<String> {
    let mut file = probe.open(log).ok()??;
    let end = file.metadata().ok()?.size();
    // A log that was cut meanwhile is told from its beginning.
    let since = if end < since { 0 } else { since };
    file.seek(SeekFrom::Start(since.max(end.saturating_sub(TOLD_BYTES)))).ok()?;
    let mut bytes = Vec::new();
    file.take(TOLD_BYTES).read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let last = lines.get(lines.len().saturating_sub(TOLD_LINES)..).unwrap_or_default().join("\n");
    (!last.is_empty()).then_some(last)
}

fn proc(pid: u32, name: &str) -> PathBuf {
    Path::new("/proc").join(pid.to_string()).join(name)
}

/// The path of a process's program.
fn exe(pid: u32) -> String {
    std::fs::read_link(proc(pid, "exe")).map_or_else(|_| "?".to_owned(), |exe| exe.display().to_string())
}

/// Every process that carries the mark of that service.
fn carriers(name: &str) -> impl Iterator<Item = u32> {
    pids().filter(move |pid| alive(*pid) && has_mark(*pid, name) && same_files(*pid))
}

/// Whether it is there, and not only waiting to be buried.
fn alive(pid: u32) -> bool {
    status(pid).is_some_and(|(state, _)| !matches!(state, 'Z' | 'X'))
}

/// A process's state and parent.
fn status(pid: u32) -> Option<(char, u32)> {
    read_stat(&std::fs::read_to_string(proc(pid, "stat")).ok()?)
}

/// `PID (NAME) STATE PARENT …`, where the name may hold anything.
fn read_stat(text: &str) -> Option<(char, u32)> {
    let (_, rest) = text.rsplit_once(')')?;
    let mut words = rest.split_whitespace();
    Some((words.next()?.chars().next()?, words.next()?.parse().ok()?))
}

/// Whether a process lives and is that program; for a script, whether an interpreter runs it.
fn is_program(pid: u32, program: &Path, daemon: &Daemon) -> bool {
    if !alive(pid) {
        return false;
    }
    let Ok(exe) = std::fs::read_link(proc(pid, "exe")) else { return false };
    let exe = exe.to_string_lossy();
    // An upgrade replaces the file of a running program.
    if Path::new(exe.strip_suffix(" (deleted)").unwrap_or(&exe)) == program {
        return true;
    }
    let Ok(line) = std::fs::read(proc(pid, "cmdline")) else { return false };
    let first = daemon.command.first().map_or("", String::as_str);
    let names = [first.as_bytes(), program.as_os_str().as_encoded_bytes()];
    is_script(program) && line.split(|byte| *byte == 0).skip(1).take(3).any(|word| names.contains(&word))
}

fn is_script(program: &Path) -> bool {
    let mut start = [0u8; 2];
    File::open(program).and_then(|mut file| file.read_exact(&mut start)).is_ok() && start == *b"#!"
}

/// Whether it has our mounts: a process of a container, or of another docker host on this machine, is not the one that is meant.
fn same_files(pid: u32) -> bool {
    match (std::fs::read_link(proc(pid, "ns/mnt")), std::fs::read_link("/proc/self/ns/mnt")) {
        (Ok(its), Ok(ours)) => its == ours,
        // Where one may not look, its program has to be enough.
        _ => true,
    }
}

/// The processes that carry the daemon's mark, without those whose parent does.
fn marked(daemon: &Daemon, program: &Path) -> Vec<u32> {
    // It is `setsid` until it becomes the program.
    let starting = |pid| std::fs::read_link(proc(pid, "exe")).is_ok_and(|exe| exe.ends_with("setsid"));
    // Whatever it became by `exec`.
    let leads = |pid| Stat::read(pid).is_some_and(|stat| stat.session == pid);
    let ours = |pid: &u32| is_program(*pid, program, daemon) || starting(*pid) || leads(*pid);
    let found: Vec<u32> = carriers(daemon.name).filter(ours).collect();
    let child = |pid: &u32| status(*pid).is_some_and(|(_, parent)| found.contains(&parent));
    found.iter().copied().filter(|pid| !child(pid)).collect()
}

fn has_mark(pid: u32, name: &str) -> bool {
    let mark = format!("{MARK}={name}");
    std::fs::read(proc(pid, "environ")).is_ok_and(|all| all.split(|byte| *byte == 0).any(|one| one == mark.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::read_stat;

    #[test]
    fn stat_lines() {
        assert_eq!(read_stat("12 (a) b) S 7 12 12 0"), Some(('S', 7)));
        assert_eq!(read_stat("12 (a"), None);
    }
}
