//! Kills and refusals at system calls, by strace from outside: the product has no hooks for this.

use std::collections::BTreeMap;
use std::path::Path;

use crate::common::chance::{Chance, moments};
use crate::docker_hosts::Host;
use crate::drive::{Drive, Task};

/// Returns some numbers from 1 to `most`, in order: `usual` of them, or all in a soak.
pub fn some_of(most: usize, usual: usize) -> Vec<usize> {
    let some = Chance::new().some(1..=most, moments(usual, most));
    println!("{} of {most} moments: {some:?}", some.len());
    some
}

/// What is done at which call.
pub fn strace(host: &Host, call: &str, inject: Option<&str>, log: &Path) -> Drive {
    let mut drive = host.drive();
    drive.threads = 1;
    drive.wrap = ["strace", "-f", "-qq", "-o", log.to_str().unwrap(), "-e"].map(String::from).to_vec();
    drive.wrap.push(format!("trace={call}"));
    if let Some(inject) = inject {
        drive.wrap.extend(["-e".to_owned(), format!("inject={call}:{inject}")]);
    }
    drive
}

/// How many such calls a plug makes: of its busiest thread (strace counts for each thread), and how many threads make any.
pub fn calls(host: &Host, tasks: &[Task], call: &str, log: &Path) -> (usize, usize) {
    for done in strace(host, call, None, log).run(tasks) {
        assert!(done.failure.is_none(), "{}", done.failure.unwrap());
    }
    let text = std::fs::read_to_string(log).unwrap();
    let mut counts = BTreeMap::<&str, usize>::new();
    for (thread, what) in text.lines().filter_map(|line| line.split_once(' ')) {
        if call.split(',').any(|call| what.trim_start().starts_with(&format!("{call}("))) {
            *counts.entry(thread).or_default() += 1;
        }
    }
    (counts.values().copied().max().unwrap_or(0), counts.len())
}

pub fn hit(log: &Path) -> bool {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    text.contains("(INJECTED)") || text.contains("--- SIGSTOP") || text.contains("killed by SIGKILL")
}

/// Returns how many requests tasks make of the kernel and of Docker: each is one `sendto`.
pub fn requests(host: &Host, tasks: &[Task]) -> usize {
    let logs = tempfile::tempdir_in("/tmp").unwrap();
    calls(host, tasks, "sendto", &logs.path().join("log")).0
}

/// Kills tasks at their `number`th request; false when they came to their end before.
pub fn killed_at_request(host: &Host, tasks: &[Task], number: usize) -> bool {
    strace(host, "sendto", Some(&format!("signal=KILL:when={number}")), Path::new("/dev/null")).try_run(tasks).is_none()
}
