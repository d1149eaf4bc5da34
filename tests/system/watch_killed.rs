//! A watcher that is killed at any of its calls: the next one finds everything as it was declared, or brings it about, and nothing
//! else is left. Needs strace, which kills it from outside.

use crate::common::chance::{self, Chance};
use crate::docker_hosts::Host;
use crate::plugs::attach;
use crate::watch::held;
use crate::watched::{Watched, Watcher, wait_for, web};

fn inside(host: &Host, script: &str) -> String {
    host.must(&format!("nsenter -t $(docker inspect -f '{{{{.State.Pid}}}}' fwt-k1) -n sh -c '{script}'"))
}

fn links(host: &Host, more: &str) -> String {
    let names = "ip -br link | cut -d@ -f1 | cut -d\" \" -f1 | sort | tr \"\\n\" \" \"";
    if more.is_empty() { inside(host, names) } else { host.must(names) }
}

/// Kills the watcher itself: it would outlive the strace in front of it.
fn end(host: &Host) {
    if let Some(pid) = alive(host) {
        host.sh(&format!("kill -9 {pid}"));
    }
}

/// The process that holds the watcher's lock.
fn alive(host: &Host) -> Option<u32> {
    let status = host.sh(&format!("{} status", crate::common::fanli()));
    let status = String::from_utf8_lossy(&status.stdout).into_owned();
    status
        .contains("runs since")
        .then(|| host.must("sed 's,process ,,; s/,.*//' /var/lib/fanli/watch/lock").parse().unwrap())
}

#[test]
fn killed_at_any_call() {
    let mut chance = Chance::new();
    let watched = Watched::start("wk");
    let host = watched.host();
    let plug = attach("fwt-k1", "10.99.0.96", &[]);
    host.drive().run(&[web("fwt-k1"), plug.clone()]);
    let on_host = links(host, "host");
    assert_eq!(links(host, "").trim(), "eth0 lo");
    let log = watched.hosts.shared().join("strace.log");
    let shown = log.to_str().unwrap();
    let is_plugged = || inside(host, "ip -br -4 addr show dev eth0 2>/dev/null || :").contains("10.99.0.96");
    // Everything is to be made: the interface, and the host's way to it.
    let unplug = || {
        inside(host, "ip link del eth0 2>/dev/null || :");
        host.must("ip link del fn-eth0 2>/dev/null || :");
    };
    let mut all = 0;
    for call in ["sendto", "setns", "socket", "close"] {
        // How many there are until it is plugged.
        unplug();
        let trace = format!("trace={call}");
        let watcher =
            Watcher::start_behind(&["strace", "-f", "-qq", "-o", shown, "-e", &trace], host, &["--every", "1h"]);
        watcher.says("plugged eth0 10.99.0.96");
        end(host);
        drop(watcher);
        let calls = std::fs::read_to_string(&log).unwrap().lines().count();
        wait_for("it is gone", || alive(host).is_none());
        let mut hits = 0;
        for place in chance.some(1..=calls, chance::moments(2, 16)) {
            let at = format!("{call} {place} of {calls}");
            unplug();
            let inject = format!("inject={call}:signal=KILL:when={place}");
            let wrap = ["strace", "-f", "-qq", "-o", shown, "-e", &trace, "-e", &inject];
            let mut watcher = Watcher::start_behind(&wrap, host, &["--every", "1h"]);
            // Threads are counted each for itself, so a late place may never come: then it is all done.
            let mut ended = false;
            wait_for(&at, || {
                ended = watcher.child.try_wait().unwrap().is_some();
                ended || (is_plugged() && host.must("ip route").contains("10.99.0.96 dev fn-eth0"))
            });
            hits += u32::from(ended);
            end(host);
            drop(watcher);
            wait_for("it is gone", || alive(host).is_none());

            let next = Watcher::start(host, &["--every", "1h"]);
            next.says("the Docker daemon answers");
            wait_for(&format!("{at}: it is plugged"), is_plugged);
            watched.settled(&plug);
            let pid = next.child.id();
            wait_for("nothing of a container is held", || held(pid).is_empty());
            assert_eq!(links(host, "").trim(), "eth0 lo", "{at}");
            assert_eq!(links(host, "host"), on_host, "{at}");
            assert_eq!(host.must("ip route show dev fn-eth0 | wc -l"), "1", "{at}");
            assert_eq!(host.must("ls -A /var/lib/fanli/attach | wc -l"), "1", "{at}");
            let (code, said) = next.stop();
            assert_eq!(code, Some(0), "{at}: {said}");
        }
        println!("{call}: {calls} calls until it is plugged, killed at {hits} of them");
        assert!(hits > 0 || !chance::soak(), "{call} was never hit");
        all += hits;
    }
    assert!(all > 0, "no kill hit the watcher");
}
