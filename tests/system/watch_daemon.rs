//! The watcher when Docker dies, and when the host does.

use crate::plugs::attach;
use crate::watched::{Watched, Watcher, wait_for, web};

const NODES: [(&str, &str); 2] = [("fwt-d1", "10.99.0.61"), ("fwt-d2", "10.99.0.62")];

fn nodes(watched: &Watched) {
    for (name, address) in NODES {
        watched.host().drive().run(&[web(name), attach(name, address, &[])]);
    }
}

fn all_reached(watched: &Watched, when: &str) {
    for (name, address) in NODES {
        watched.reached(address, when);
        watched.settled(&attach(name, address, &[]));
    }
}

#[test]
fn the_daemon_dies_and_comes_back() {
    let mut watched = Watched::start("wd");
    nodes(&watched);
    let watcher = Watcher::start(watched.host(), &["--every", "1h"]);
    watcher.says("the Docker daemon answers");

    watched.end_daemon("-9");
    watcher.says("the Docker daemon is gone");
    watched.start_daemon(&[]);
    all_reached(&watched, "after kill -9 of the daemon");

    watched.end_daemon("-TERM");
    watched.start_daemon(&["--live-restore"]);
    all_reached(&watched, "after a stop and a start of the daemon");

    // Containers run on, with what they have.
    let pids = |watched: &Watched| watched.host().must("docker inspect -f '{{.State.Pid}}' fwt-d1 fwt-d2");
    let before = pids(&watched);
    watched.end_daemon("-9");
    for (_, address) in NODES {
        watched.reached(address, "while the daemon is dead");
    }
    watched.start_daemon(&["--live-restore"]);
    assert_eq!(pids(&watched), before);
    all_reached(&watched, "after kill -9 of the daemon with live-restore");
    watched.host().must("docker restart -t 0 fwt-d2");
    all_reached(&watched, "after a restart behind a daemon that came back");
    println!("{}", watcher.said());
}

#[test]
fn the_host_is_started_again() {
    let mut watched = Watched::start("wr");
    nodes(&watched);
    drop(Watcher::start(watched.host(), &[]));
    watched.power_off();
    watched.host().must("ip link del eth0; ip link del fn-eth0 2>/dev/null || :");

    // The watcher first, then Docker, then the network card.
    let watcher = Watcher::start(watched.host(), &["--every", "1h"]);
    watcher.says("the Docker daemon does not answer");
    watched.start_daemon(&[]);
    watcher.says("the host has no network card eth0");
    watched.cable();
    all_reached(&watched, "after the host was started again");
    drop(watcher);

    // Docker first, then the watcher.
    watched.power_off();
    watched.start_daemon(&[]);
    let watcher = Watcher::start(watched.host(), &[]);
    all_reached(&watched, "after a start with Docker first");
    watcher.says("(at the watcher's start)");
    wait_for("the status is written", || {
        watched.host().sh("test -s /var/lib/fanli/watch/status.json").status.success()
    });
    println!("{}", watcher.said());
}
