//! The processes of this host as `/proc` lists them, and what each has (proc(5)). One that ends while this looks, or that may not be
//! looked at, has nothing.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::os::unix::fs::MetadataExt as _;

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::failure::{Context as _, Failure};

/// A living process by its numbers, all as fanli sees them but for `inside`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stat {
    pub(super) pid: u32,
    /// Its number among those that share its numbers (NSpid): 1 for the first process of a container.
    pub(super) inside: u32,
    pub(super) parent: u32,
    /// The number of its process group: that of its leader, who may be gone.
    pub(super) group: u32,
    pub(super) session: u32,
    pub(super) name: String,
    /// Its start, in hundredths of a second since the host was started.
    pub(super) ticks: u64,
}

impl Stat {
    pub(super) fn read(pid: u32) -> Option<Self> {
        let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        Self::parse(pid, &text)
    }

    /// `PID (NAME) STATE PARENT GROUP SESSION …`, the start in field 22. The name may hold anything. What has ended, and only waits
    /// for its parent to hear of it, is none.
    fn parse(pid: u32, text: &str) -> Option<Self> {
        let (first, rest) = text.rsplit_once(')')?;
        let (_, name) = first.split_once('(')?;
        let mut words = rest.split_whitespace();
        if matches!(words.next()?, "Z" | "X") {
            return None;
        }
        let mut number = || words.next()?.parse().ok();
        let (parent, group, session) = (number()?, number()?, number()?);
        Some(Self {
            pid,
            inside: pid,
            parent,
            group,
            session,
            name: name.to_owned(),
            ticks: words.nth(15)?.parse().ok()?,
        })
    }

    /// Whether it is that very process still that has this number.
    pub(super) fn lives(&self) -> bool {
        Self::read(self.pid).is_some_and(|now| now.ticks == self.ticks)
    }
}

/// The processes that share their numbers with that one (all of one container), or all that this process sees.
pub(super) fn beside(of: Option<u32>) -> Vec<Stat> {
    let here = of.map(|pid| namespace(pid, "pid"));
    let beside = pids().filter(|pid| here.is_none_or(|here| here.is_some() && namespace(pid, "pid") == here));
    let read = |pid| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
        let inside = numbers.split_whitespace().next_back()?.parse().ok()?;
        Some(Stat { inside, ..Stat::read(pid)? })
    };
    beside.filter_map(read).collect()
}

/// A variable of the environment that a process was started with; `None` also where it may not be read, or was overwritten.
pub(super) fn variable(pid: u32, name: &str) -> Option<String> {
    let all = std::fs::read(format!("/proc/{pid}/environ")).ok()?;
    let has = |one: &[u8]| std::str::from_utf8(one).ok()?.strip_prefix(name)?.strip_prefix('=').map(str::to_owned);
    all.split(|byte| *byte == 0).find_map(has)
}

/// Sends a signal to a process, if it is still the one that `same` knows. One that has ended gets none.
///
/// # Errors
/// It cannot be signalled.
pub(super) fn send(pid: u32, signal: Signal, same: impl FnOnce() -> bool) -> Result<(), Failure> {
    let failed = || format!("cannot end process {pid}");
    let Some(number) = Pid::from_raw(pid.cast_signed()) else { return Ok(()) };
    // Held by a descriptor first, so that the number cannot become another's in between.
    let held = match pidfd_open(number, PidfdFlags::empty()) {
        Err(Errno::SRCH) => return Ok(()),
        held => held.with_context(failed)?,
    };
    if !same() {
        return Ok(());
    }
    match pidfd_send_signal(&held, signal) {
        Err(Errno::SRCH) => Ok(()),
        sent => sent.with_context(failed),
    }
}

/// Every process number.
pub(super) fn pids() -> impl Iterator<Item = u32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// A namespace of a process (a number, or `self`), to be compared: `mnt`, `net`, `pid`.
pub(super) fn namespace(of: impl Display, sort: &str) -> Option<(u64, u64)> {
    std::fs::metadata(format!("/proc/{of}/ns/{sort}")).ok().map(|seen| (seen.dev(), seen.ino()))
}

/// The numbers of what a process has open of a sort: of `pipe:[12]`, 12.
pub(super) fn open_ones(pid: u32, sort: &str) -> BTreeSet<u64> {
    let open = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let links = open.filter_map(|entry| std::fs::read_link(entry.path()).ok());
    let number = |link: &str| link.strip_prefix(sort)?.strip_prefix(":[")?.strip_suffix(']')?.parse().ok();
    links.filter_map(|link| number(link.to_str()?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_lines() {
        let line = "12 (a) b) S 7 11 10 0 -1 4194560 100 0 0 0 1 2 0 0 20 0 1 0 98765 1000 1";
        let name = "a) b".to_owned();
        let read = Stat { pid: 12, inside: 12, parent: 7, group: 11, session: 10, name, ticks: 98765 };
        assert_eq!(Stat::parse(12, line), Some(read));
        assert_eq!(Stat::parse(12, &line.replace(") S", ") Z")), None);
        assert_eq!(Stat::parse(12, "12 (a"), None);
    }

    #[test]
    fn this_process() {
        let own = std::process::id();
        let found = beside(Some(own)).into_iter().find(|one| one.pid == own).unwrap();
        assert!(found.lives() && beside(None).contains(&found));
        assert!(!Stat { ticks: found.ticks + 1, ..found }.lives());
        assert_eq!(variable(own, "PATH").as_deref(), std::env::var("PATH").ok().as_deref());
        assert_eq!(variable(own, "PAT"), None);
    }
}
