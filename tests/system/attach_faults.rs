//! A plug that is killed, refused or overtaken at any of its calls: one clean run brings about what was declared, nothing else is
//! left, and a second run changes nothing. Needs strace, which does it from outside: the product has no hooks for this.
//!
//! Some of the calls, by a seed that is printed; all of them in `tests/run soak`.

use std::path::Path;
use std::time::{Duration, Instant};

use fanli::value::Value;

use crate::docker_hosts::{Host, Hosts};
use crate::drive::{Report, Task};
use crate::faults::{calls, hit, some_of, strace};
use crate::plugs::{attach, inside, web};

/// As before the first plug.
fn unplug(host: &Host, container: &str, shim: &str) {
    host.must(&format!("ip link del {shim} 2>/dev/null || :; rm -rf /var/lib/fanli/attach"));
    inside(host, container, "ip link del eth0 2>/dev/null || :");
}

/// What may be there after a run that did not come to its end: nothing half but what is still nobody's, nothing on the host
/// beside the shim, and the address at most once.
fn nothing_foreign(host: &Host, shim: &str, links: &str, at: &str) {
    let now = host.must("ip -br link | cut -d\" \" -f1 | cut -d@ -f1");
    let own = |name: &&str| *name != shim && !name.starts_with("fa");
    let mut now: Vec<&str> = now.lines().filter(own).collect();
    let mut links: Vec<&str> = links.lines().filter(own).collect();
    now.sort_unstable();
    links.sort_unstable();
    assert_eq!(now, links, "{at}: the host's links");
    assert!(!host.must("ip -4 -br addr").contains("10.99.0.31"), "{at}: the address is on the host");
}

/// One clean run, and one that finds nothing to do.
fn converges(host: &Host, tasks: &[Task], shim: &str, at: &str) {
    let drive = host.drive();
    for report in drive.run(tasks) {
        assert!(report.failure.is_none(), "{at}: {}", report.failure.unwrap());
    }
    for report in drive.run(tasks) {
        assert!(report.failure.is_none() && report.change.is_none(), "{at}: a second run changes {:?}", report.change);
    }
    let names = inside(host, "fpr-f", "ip -br link | cut -d@ -f1 | cut -d\" \" -f1 | tr \"\\n\" \" \"");
    assert_eq!(names.trim(), "lo eth0", "{at}");
    let own = host.must("ip -br link | cut -d' ' -f1 | cut -d@ -f1 | grep -E '^f[an]' || :");
    assert_eq!(own, shim, "{at}: links of fanli's on the host");
    assert_eq!(host.must("ls /var/lib/fanli/attach | wc -l"), "1", "{at}");
    assert_eq!(host.must(&format!("ip -br link show dev {shim} | grep -c UP")), "1", "{at}");
}

fn plug(parent: &str, more: &[(&'static str, Value)]) -> Task {
    let mut all = vec![("parent", Value::from(parent))];
    all.extend(more.iter().cloned());
    attach("fpr-f", "10.99.0.31", &all)
}

#[test]
fn killed_or_refused_at_each_call() {
    let hosts = Hosts::start("rf", 1);
    let host = &hosts.hosts[0];
    let logs = tempfile::tempdir_in("/tmp").unwrap();
    let log = logs.path().join("log");
    let gateway = [("gateway", Value::Ip("10.99.0.254".parse().unwrap()))];
    let tasks = [web("fpr-f"), plug("eth0", &gateway)];
    host.drive().run(&tasks);
    let shim = "fn-eth0";
    let links = host.must("ip -br link | cut -d\" \" -f1 | cut -d@ -f1");
    for (call, inject) in [
        ("sendto", "error=ENOBUFS"),
        ("sendto", "error=ENOMEM"),
        ("recvfrom", "error=ENOBUFS"),
        ("sendto", "signal=KILL"),
        ("setns", "error=EPERM"),
        ("socket", "error=ENFILE"),
        ("bind", "signal=KILL"),
        ("renameat2,rename,renameat", "signal=KILL"),
        ("fsync", "error=EIO"),
    ] {
        let (mut hits, mut failures) = (0, 0);
        unplug(host, "fpr-f", shim);
        for number in some_of(calls(host, &tasks[1..], call, &log).0, 2) {
            unplug(host, "fpr-f", shim);
            let at = format!("{call}:{inject}:when={number}");
            let done = strace(host, call, Some(&format!("{inject}:when={number}")), &log).try_run(&tasks[1..]);
            if !hit(&log) {
                // How often it asks the network depends on time.
                continue;
            }
            hits += 1;
            nothing_foreign(host, shim, &links, &at);
            let failed = |reports: &Vec<Report>| reports.iter().any(|report| report.failure.is_some());
            if done.as_ref().is_none_or(failed) {
                failures += 1;
            }
            if done.is_some() {
                // It came to its end: what it could not make it took away again, or it made it whole.
                let seen =
                    inside(host, "fpr-f", "ip -br -4 addr show dev eth0 2>/dev/null || :; ip -br link | grep ^fn || :");
                assert!(seen.is_empty() || seen.contains("10.99.0.31"), "{at}: half a link: {seen}");
            }
            converges(host, &tasks, shim, &at);
        }
        println!("{call}:{inject}: {hits} calls hit, {failures} runs failed of it");
        assert!(hits > 0, "{call} was never hit");
    }
}

/// Stops a plug at a thread's `when`th `call`, does `damage` when `nth` threads have been stopped, and lets all go on. `damage`
/// hears the number of the stopped thread. False when there were not so many.
fn stopped(
    host: &Host,
    task: &Task,
    (call, when, nth): (&str, usize, usize),
    log: &Path,
    damage: &dyn Fn(&str),
) -> (bool, Option<Vec<Report>>) {
    let _ = std::fs::remove_file(log);
    let drive = strace(host, call, Some(&format!("signal=STOP:when={when}")), log);
    let plug = vec![task.clone()];
    let run = std::thread::spawn(move || drive.try_run(&plug));
    let deadline = Instant::now() + Duration::from_secs(30);
    let (mut done, mut seen) = (false, 0);
    while !run.is_finished() {
        let text = std::fs::read_to_string(log).unwrap_or_default();
        let stops: Vec<&str> = text.lines().filter(|line| line.contains("stopped by SIGSTOP")).collect();
        // A stop of the process is told by each of its threads; it was caused by those that made the call.
        let caused = text.lines().filter(|line| line.contains("--- SIGSTOP")).count();
        if stops.len() > seen {
            seen = stops.len();
            // One of a process's threads is enough, and some may have ended by now.
            let threads: Vec<&str> = stops.iter().filter_map(|line| line.split_whitespace().next()).collect();
            if !done && caused >= nth {
                damage(threads.last().unwrap());
                done = true;
            }
            host.must(&format!("for thread in {}; do kill -CONT $thread 2>/dev/null || :; done", threads.join(" ")));
        }
        assert!(Instant::now() < deadline, "{call} {when} {nth}: it does not go on\n{text}");
        std::thread::sleep(Duration::from_millis(3));
    }
    let reports = run.join().unwrap();
    (done, reports)
}

/// A plug that is stopped at some of its requests, overtaken by `damage` and let go on.
fn overtaken(host: &Host, tasks: &[Task], shim: &str, damage: &dyn Fn(), mend: &dyn Fn()) {
    let logs = tempfile::tempdir_in("/tmp").unwrap();
    let log = logs.path().join("log");
    let links = host.must("ip -br link | cut -d\" \" -f1 | cut -d@ -f1");
    unplug(host, "fpr-f", shim);
    let (most, _) = calls(host, &tasks[1..], "sendto", &log);
    assert!(most > 12, "{most} requests");
    let (mut stops, mut failures) = (0, 0);
    for number in some_of(most, 2) {
        unplug(host, "fpr-f", shim);
        let at = format!("sendto:signal=STOP:when={number}");
        let (done, reports) = stopped(host, &tasks[1], ("sendto", number, 1), &log, &|_| damage());
        if !done {
            continue;
        }
        stops += 1;
        failures += u32::from(reports.is_none_or(|reports| reports.iter().any(|report| report.failure.is_some())));
        mend();
        nothing_foreign(host, shim, &links, &at);
        converges(host, tasks, shim, &at);
    }
    println!("overtaken at {stops} requests, {failures} runs failed of it");
    assert!(stops > 0);
}

#[test]
fn killed_at_each_entry_into_the_container() {
    let hosts = Hosts::start("rk", 1);
    let host = &hosts.hosts[0];
    let logs = tempfile::tempdir_in("/tmp").unwrap();
    let log = logs.path().join("log");
    let tasks = [web("fpr-f"), plug("eth0", &[("probe", "off".into())])];
    host.drive().run(&tasks);
    let links = host.must("ip -br link | cut -d\" \" -f1 | cut -d@ -f1");
    unplug(host, "fpr-f", "fn-eth0");
    // Each entry has a thread of its own.
    let (_, most) = calls(host, &tasks[1..], "setns", &log);
    assert!(most >= 4, "{most} entries");
    let mut kills = 0;
    for number in some_of(most, 2) {
        unplug(host, "fpr-f", "fn-eth0");
        let at = format!("killed at entry {number}");
        let kill = |thread: &str| {
            host.must(&format!("kill -KILL {thread}"));
        };
        let (done, reports) = stopped(host, &tasks[1], ("setns", 1, number), &log, &kill);
        if !done {
            continue;
        }
        assert!(reports.is_none(), "{at}: it lived on");
        kills += 1;
        nothing_foreign(host, "fn-eth0", &links, &at);
        converges(host, &tasks, "fn-eth0", &at);
    }
    assert!(kills > 0);
}

#[test]
fn the_container_exits_during_the_plug() {
    let hosts = Hosts::start("re", 1);
    let host = &hosts.hosts[0];
    let tasks = [web("fpr-f"), plug("eth0", &[("probe", "off".into())])];
    host.drive().run(&tasks);
    let nic = host.must("ip -br addr show dev eth0");
    let exits = || {
        host.must("docker kill fpr-f >/dev/null");
    };
    overtaken(host, &tasks, "fn-eth0", &exits, &|| {});
    assert_eq!(host.must("ip -br addr show dev eth0"), nic);
}

#[test]
fn the_card_is_deleted_during_the_plug() {
    let hosts = Hosts::start("rd", 1);
    let host = &hosts.hosts[0];
    let make = "ip link add pp0 type veth peer name pp1; ip link set pp1 up; ip link set pp0 up; ip addr add 10.99.0.200/24 dev pp0";
    host.must(make);
    let tasks = [web("fpr-f"), plug("pp0", &[("probe", "off".into())])];
    host.drive().run(&tasks);
    overtaken(
        host,
        &tasks,
        "fn-pp0",
        &|| {
            host.must("ip link del pp0");
        },
        &|| {
            host.must(make);
        },
    );
}
