//! As `attach_faults`, of the modes beside macvlan: what is made on the host, of ports and tunnels, and by Docker's hands. Killed or
//! refused at some of its calls, one clean run brings it about; a second one changes nothing, and taking it out leaves nothing.
//!
//! Some of the calls, by a seed that is printed; all of them in `tests/run soak`.

use fanli::value::{Map, Value};

use crate::common::chance::soak;
use crate::docker_hosts::{Host, Hosts};
use crate::drive::{Report, Task};
use crate::faults::{calls, hit, some_of, strace};
use crate::mode_switch::{answers, node, own};
use crate::plugs::{ip, with};

const NAME: &str = "fn3-f";
const ADDRESS: &str = "10.99.0.31";

/// Calls, and what is done at them. Both netlink's requests and Docker's are `sendto`; iptables uses `sendmsg`.
const FAULTS: [(&str, &str); 8] = [
    ("sendto", "signal=KILL"),
    ("sendto", "error=ENOBUFS"),
    ("recvfrom", "signal=KILL"),
    ("sendmsg", "error=ENOMEM"),
    ("setns", "error=EPERM"),
    ("socket", "error=ENFILE"),
    ("renameat2,rename,renameat", "signal=KILL"),
    ("unlink,unlinkat", "signal=KILL"),
];

fn absent(task: &Task) -> Task {
    with(task, &[("state", "absent".into())])
}

fn good(reports: Vec<Report>, at: &str) {
    for report in reports {
        assert!(report.failure.is_none(), "{at}: {}", report.failure.unwrap());
    }
}

/// Runs `tasks` from `before`, with each fault; then clean, and once more. `after` is what the host has then.
struct Case<'a> {
    hosts: &'a Hosts,
    what: &'a str,
    mode: &'static str,
    /// Brings the state from which `tasks` are run.
    before: &'a [Task],
    tasks: &'a [Task],
}

impl Case<'_> {
    fn host(&self) -> &Host {
        &self.hosts.hosts[0]
    }

    /// On the wire the host is there, whatever happened.
    fn host_is_there(&self, at: &str) {
        let ping = self.hosts.on_switch("busybox ping -q -c1 -W2 10.99.0.1");
        assert!(ping.status.success(), "{at}: the host is cut off: {}", self.host().must("ip addr; ip route"));
    }

    fn run(&self, faults: &[(&str, &str)]) {
        let (host, drive) = (self.host(), self.host().drive());
        let logs = tempfile::tempdir_in("/tmp").unwrap();
        let log = logs.path().join("log");
        good(drive.run(self.before), self.what);
        good(drive.run(self.tasks), self.what);
        let after = own(host);
        let containers = "docker ps -a --format '{{.Names}} {{.State}} {{.Networks}}' | sort";
        let there = host.must(containers);
        let mut all = 0;
        for (call, inject) in faults {
            good(drive.run(self.before), self.what);
            let most = calls(host, self.tasks, call, &log).0;
            if most == 0 {
                continue;
            }
            let (mut hits, mut failures) = (0, 0);
            for number in some_of(most, 2) {
                // A run may wait less, and so ask less often, than the one that was counted. A sample goes for an earlier call then.
                let tries = if soak() { 1 } else { 3 };
                let mut at_calls = (0..tries).map(|less| (number * (4 - less) / 4).max(1));
                let found = at_calls.find_map(|number| {
                    good(drive.run(self.before), self.what);
                    let at = format!("{}: {call}:{inject}:when={number}", self.what);
                    let done = strace(host, call, Some(&format!("{inject}:when={number}")), &log).try_run(self.tasks);
                    hit(&log).then_some((at, done))
                });
                let Some((at, done)) = found else { continue };
                hits += 1;
                let failed = |reports: &Vec<Report>| reports.iter().any(|report| report.failure.is_some());
                failures += u32::from(done.as_ref().is_none_or(failed));
                self.host_is_there(&at);
                good(drive.run(self.tasks), &at);
                for report in drive.run(self.tasks) {
                    assert!(
                        report.failure.is_none() && report.change.is_none(),
                        "{at}: a second run changes {:?}",
                        report.change
                    );
                }
                assert_eq!(own(host), after, "{at}");
                assert_eq!(host.must(containers), there, "{at}");
                if self.mode != "none" {
                    answers(self.hosts, host, self.mode, ADDRESS);
                }
            }
            println!("{}: {call}:{inject}: {hits} of {most} calls hit, {failures} runs failed of it", self.what);
            all += hits;
        }
        assert!(all > 3, "{}: only {all} calls were hit", self.what);
    }
}

/// A node's attachment, with a table for tunnels.
fn plug(mode: &'static str) -> [Task; 2] {
    let [container, attach] = node(mode, NAME, ADDRESS);
    if mode != "vxlan" {
        return [container, attach];
    }
    let nodes = |nodes: &[&str]| Value::List(nodes.iter().map(|node| ip(node)).collect());
    let peers = Map::from([
        ("10.99.0.2".to_owned(), nodes(&["10.99.0.32", "10.99.0.33"])),
        ("10.99.0.3".to_owned(), nodes(&["10.99.0.34"])),
    ]);
    [container, with(&attach, &[("peers", Value::Map(peers))])]
}

/// Plugged, and taken out.
fn plugged(tag: &str, mode: &'static str) {
    let hosts = Hosts::start(tag, 1);
    let host = &hosts.hosts[0];
    let [container, attach] = plug(mode);
    // Docker's policy: a bridge must be let through it.
    host.must("sysctl -qw net.bridge.bridge-nf-call-iptables=1; iptables -P FORWARD DROP");
    host.drive().one(&container);
    let gone = [absent(&attach)];
    let made = [attach];
    Case { hosts: &hosts, what: &format!("{mode}, plug"), mode, before: &gone, tasks: &made }.run(&FAULTS);
    Case { hosts: &hosts, what: &format!("{mode}, unplug"), mode: "none", before: &made, tasks: &gone }
        .run(&FAULTS[..2]);
    host.drive().run(&gone);
    let left = own(host);
    assert!(left.starts_with("0\n0\n0"), "{mode}: {left}");
}

#[test]
fn bridge() {
    plugged("f3b", "bridge");
}

#[test]
fn vxlan() {
    plugged("f3v", "vxlan");
}

#[test]
fn macvtap() {
    plugged("f3t", "macvtap");
}

/// Docker makes the network with the container: made for the first time, made anew, and taken away.
fn by_docker(tag: &str, mode: &'static str) {
    let hosts = Hosts::start(tag, 1);
    let host = &hosts.hosts[0];
    let tasks = node(mode, NAME, ADDRESS);
    let gone = [absent(&tasks[0])];
    let env = |value: &str| Value::Map(Map::from([("A".to_owned(), value.into())]));
    let older = [with(&tasks[0], &[("env", env("older"))]), tasks[1].clone()];
    Case { hosts: &hosts, what: &format!("{mode}, made"), mode, before: &gone, tasks: &tasks }.run(&FAULTS[..3]);
    Case { hosts: &hosts, what: &format!("{mode}, made anew"), mode, before: &older, tasks: &tasks }.run(&FAULTS[..2]);
    Case { hosts: &hosts, what: &format!("{mode}, gone"), mode: "none", before: &tasks, tasks: &gone }
        .run(&FAULTS[..2]);
    host.drive().run(&gone);
    let left = own(host);
    assert!(left.starts_with("0\n0\n0") && !left.contains("fanli-"), "{mode}: {left}");
}

#[test]
fn nat() {
    by_docker("f3n", "nat");
}

#[test]
fn the_hosts_network() {
    by_docker("f3h", "host");
}

#[test]
fn dockers_own_macvlan() {
    by_docker("f3d", "docker");
}

#[test]
fn from_one_mode_to_another() {
    let hosts = Hosts::start("f3g", 1);
    let host = &hosts.hosts[0];
    host.drive().one(&plug("macvlan")[0]);
    for (from, to) in [("macvlan", "bridge"), ("bridge", "vxlan"), ("vxlan", "macvlan")] {
        let (before, tasks) = ([plug(from)[1].clone()], [plug(to)[1].clone()]);
        let what = format!("{from} to {to}");
        Case { hosts: &hosts, what: &what, mode: to, before: &before, tasks: &tasks }.run(&FAULTS[..2]);
    }
    for (from, to) in [("macvlan", "nat"), ("bridge", "host"), ("docker", "vxlan")] {
        let (before, tasks) = (plug(from), plug(to));
        let what = format!("{from} to {to}");
        Case { hosts: &hosts, what: &what, mode: to, before: &before, tasks: &tasks }.run(&FAULTS[..2]);
    }
}
