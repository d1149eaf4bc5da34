//! Finds the processes of a host by where they live, never by what they are called.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::layout::Host;

/// Every process of the host: in its network namespace, or with its files mounted.
pub(super) fn of_host(host: &Host) -> Vec<u32> {
    let netns = fs::metadata(host.netns()).ok().map(|found| (found.dev(), found.ino()));
    let own = std::process::id();
    // As it stands in the mount table: the folder on its file system, or an overlay's option.
    let marks = [format!("{}/run", host.dir.display()), format!("{}/overlay/", host.dir.display())];
    let lives_here = |pid: &u32| {
        let in_net = fs::metadata(format!("/proc/{pid}/ns/net")).ok().map(|found| (found.dev(), found.ino()));
        let mounts = || fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap_or_default();
        netns.is_some() && in_net == netns || marks.iter().any(|mark| mounts().contains(mark))
    };
    all().into_iter().filter(|pid| *pid != own).filter(lives_here).collect()
}

/// The host's first process: the one that is number 1 in its own pid namespace.
pub(super) fn first(host: &Host) -> Option<u32> {
    of_host(host).into_iter().find(|pid| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap_or_default();
        let numbers: Vec<&str> = numbers.split_whitespace().collect();
        // Containers have none of their own network in common with the host, but their first process is a 1 as well.
        numbers.len() == 2 && numbers.last() == Some(&"1") && !status.contains("State:\tZ")
    })
}

/// Ends a process at once.
pub(super) fn kill(pid: u32) {
    let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
    if let Some(pid) = pid {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
}

/// Asks a process to end.
pub(super) fn terminate(pid: u32) {
    let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
    if let Some(pid) = pid {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
    }
}

/// Whether a process runs (and is not just waiting to be buried).
pub(super) fn alive(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/status")).is_ok_and(|status| !status.contains("State:\tZ"))
}

fn all() -> Vec<u32> {
    let entries = fs::read_dir(Path::new("/proc")).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}
