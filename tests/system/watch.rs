//! The watcher keeps what runs have attached.

use std::collections::BTreeSet;

use fanli::value::Value;

use crate::docker_hosts::Host;
use crate::plugs::attach;
use crate::watched::{Watched, Watcher, wait_for, web};

fn started(host: &Host, container: &str) -> String {
    host.must(&format!("docker inspect -f '{{{{.State.Running}}}} {{{{.State.StartedAt}}}}' {container}"))
}

/// What a process holds open that leads into a network: namespaces, and sockets that its own network does not know.
pub fn held(pid: u32) -> BTreeSet<String> {
    let own: String = ["netlink", "unix", "packet", "raw", "udp", "tcp"]
        .iter()
        .map(|table| std::fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap_or_default())
        .collect();
    let fds = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    // One that is closed between being listed and being looked at is none.
    let links = fds.filter_map(|fd| std::fs::read_link(fd.unwrap().path()).ok());
    links
        .map(|link| link.to_string_lossy().into_owned())
        .filter(|link| match link.strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']')) {
            Some(inode) => !own.contains(inode),
            None => link.contains("net:[") || link.contains("/ns/"),
        })
        .collect()
}

#[test]
fn a_container_that_restarts_is_plugged_again() {
    let watched = Watched::start("wa");
    let (host, drive) = (watched.host(), watched.host().drive());
    let plug = attach("fwt-a1", "10.99.0.11", &[("gateway", Value::Ip("10.99.0.254".parse().unwrap()))]);
    drive.run(&[web("fwt-a1"), plug.clone(), web("fwt-a2"), attach("fwt-a2", "10.99.0.12", &[])]);
    // A watcher asks for the events of the two seconds before its start, too: how the container got its name is none of them then.
    std::thread::sleep(std::time::Duration::from_millis(2500));
    let watcher = Watcher::start(host, &[]);
    let pid = watcher.child.id();
    watcher.says("the Docker daemon answers");

    host.must("docker restart -t 0 fwt-a1");
    watched.reached("10.99.0.11", "after docker restart");
    watcher.says("fwt-a1: plugged eth0 10.99.0.11 (container restarted) in ");
    // The very same that a run would make: nothing is left for it.
    watched.settled(&plug);
    wait_for("nothing of a container is held", || held(pid).is_empty());

    let before = started(host, "fwt-a1");
    host.must("kill -9 $(docker inspect -f '{{.State.Pid}}' fwt-a1)");
    wait_for("the daemon starts it again", || {
        let now = started(host, "fwt-a1");
        now.starts_with("true") && now != before
    });
    watched.reached("10.99.0.11", "after a kill of its process");
    watched.settled(&plug);

    // The route goes with the container, and comes back with it; so does all when another one takes the name.
    host.must("docker stop -t 0 fwt-a1");
    wait_for("the route is gone", || !host.must("ip route").contains("10.99.0.11"));
    assert!(host.must("ip route").contains("10.99.0.12"), "the other's stays");
    watcher.says("fwt-a1: dropped the host's route to 10.99.0.11 (container ended)");
    host.must("docker start fwt-a1");
    watched.reached("10.99.0.11", "after stop and start");
    host.must("docker rm -f fwt-a1; docker run -d --name other --network none fanli/example:1 httpd -f -h /www; docker rename other fwt-a1");
    watched.reached("10.99.0.11", "after another one took its name");

    // What nobody tells is found by looking.
    host.must(
        "nsenter -t $(docker inspect -f '{{.State.Pid}}' fwt-a2) -n ip link del eth0; ip route del 10.99.0.12/32",
    );
    watched.reached("10.99.0.12", "after its link was deleted");
    watcher.says("(was found amiss)");
    wait_for("nothing of a container is held", || held(pid).is_empty());

    // What is to be kept follows what runs declare.
    let moved = attach("fwt-a2", "10.99.0.22", &[]);
    drive.one(&moved);
    host.must("docker restart -t 0 fwt-a2");
    watched.reached("10.99.0.22", "after a restart at its new address");
    watched.settled(&moved);
    drive.one(&attach("fwt-a2", "10.99.0.22", &[("state", "absent".into())]));
    watcher.says("fwt-a2: no longer attached");
    host.must("docker restart -t 0 fwt-a2");
    watched.hosts.hosts[0].must("sleep 1");
    assert_eq!(host.must("nsenter -t $(docker inspect -f '{{.State.Pid}}' fwt-a2) -n ip -br link | wc -l"), "1");

    // One at a time, and an end in order.
    let (code, said) = {
        let mut second = Watcher::start(host, &[]);
        wait_for("the second one ends", || second.child.try_wait().unwrap().is_some());
        (second.child.wait().unwrap().code(), second.said())
    };
    assert_eq!(code, Some(1));
    assert!(
        said.contains("another watcher runs on this host: /var/lib/fanli/watch/lock is held by process "),
        "{said}"
    );
    let status = host.must(&format!("{} status", crate::common::fanli()));
    println!("{status}");
    assert!(
        status.contains("watcher     runs since ") && status.contains("1 plugged, 0 failed, 0 stopped"),
        "{status}"
    );
    let (code, said) = watcher.stop();
    println!("{said}");
    assert_eq!(code, Some(0));
    let status = host.sh(&format!("{} status --json", crate::common::fanli()));
    assert_eq!(status.status.code(), Some(4));
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!(status["running"], false);
    assert_eq!(status["watcher"]["attachments"][0]["address"], "10.99.0.11");
}

#[test]
fn the_parent_goes_and_comes_back() {
    let watched = Watched::start("wp");
    let host = watched.host();
    host.drive().run(&[web("fwt-p1"), attach("fwt-p1", "10.99.0.31", &[])]);
    let watcher = Watcher::start(host, &["--every", "1h"]);
    watcher.says("the Docker daemon answers");
    for turn in 0..2 {
        host.must("ip link del eth0");
        watcher.says("network card eth0 is gone");
        watcher.says("the host has no network card eth0");
        watched.cable();
        let _ = watched.reached("10.99.0.31", "after its parent was made anew");
        println!("turn {turn}: {}", watcher.said());
    }
    // Children follow their parent down, but not up again (research, section 5).
    let mtu = || {
        host.must("nsenter -t $(docker inspect -f '{{.State.Pid}}' fwt-p1) -n cat /proc/1/mounts >/dev/null; nsenter -t $(docker inspect -f '{{.State.Pid}}' fwt-p1) -n ip -o link show eth0 | sed 's,.*mtu ,,; s, .*,,'")
    };
    host.must("ip link set eth0 mtu 1400");
    wait_for("the MTU goes down", || mtu() == "1400");
    host.must("ip link set eth0 mtu 1500");
    wait_for("the MTU goes up", || mtu() == "1500");
    watcher.says("mended mtu, shim of eth0 (eth0 changed)");
    host.must("ip link set eth0 down");
    watcher.says("network card eth0 is down");
    host.must("ip link set eth0 up; ip route add default via 10.99.0.254");
    let _ = watched.reached("10.99.0.31", "after its parent was down");
    // The shim, too.
    host.must("ip link del fn-eth0");
    wait_for("the shim is back", || host.must("ip route").contains("10.99.0.31 dev fn-eth0"));
    println!("{}", watcher.said());
}

#[test]
fn a_run_and_the_watcher_never_fight() {
    let watched = Watched::start("wf");
    let (host, mut drive) = (watched.host(), watched.host().drive());
    // With something in front it may fail without an answer.
    drive.wrap = vec!["env".to_owned()];
    let plug = |turn: usize| attach("fwt-f1", ["10.99.0.41", "10.99.0.42"][turn % 2], &[]);
    drive.run(&[web("fwt-f1"), plug(0)]);
    let watcher = Watcher::start(host, &["--every", "1s"]);
    watcher.says("the Docker daemon answers");
    for turn in 1..=12 {
        // The restart goes on beside the run.
        let restart = std::thread::scope(|scope| {
            let restart = scope.spawn(|| host.sh("docker restart -t 0 fwt-f1"));
            // It may meet the container while it is down, or see it go under its hands: then it says so.
            let done = (0..50).any(|_| {
                let report = drive.try_run(std::slice::from_ref(&plug(turn)));
                report.is_some_and(|report| report[0].failure.is_none())
            });
            assert!(done, "turn {turn}");
            restart.join().unwrap()
        });
        assert!(restart.status.success());
        watched.reached(["10.99.0.41", "10.99.0.42"][turn % 2], &format!("turn {turn}"));
        watched.settled(&plug(turn));
        assert_eq!(host.must("ip route show dev fn-eth0 | wc -l"), "1", "{}", host.must("ip route"));
    }
    println!("{}", watcher.said());
}

#[test]
fn another_book_and_an_older_revision_are_refused() {
    let watched = Watched::start("ws");
    let (host, drive) = (watched.host(), watched.host().drive());
    let from = |store: &str, revision: i64| {
        attach(
            "fwt-s1",
            "10.99.0.51",
            &[("store", store.into()), ("revision", revision.into()), ("owner", "web/1".into())],
        )
    };
    drive.run(&[web("fwt-s1"), from("a1b2", 7)]);
    drive.one(&from("a1b2", 7)).no_change();
    assert_eq!(drive.one(&from("a1b2", 8)).fields(), ["record"]);
    for (task, says) in [
        (
            from("a1b2", 7),
            "10.99.0.51 of container fwt-s1 is revision 7 of address book a1b2, and this host plugged 10.99.0.51 of revision 8 already",
        ),
        (
            from("c3d4", 9),
            "10.99.0.51 of container fwt-s1 comes from address book c3d4, and this host plugged 10.99.0.51 from address book a1b2",
        ),
        (
            attach("fwt-s1", "10.99.0.51", &[]),
            "10.99.0.51 of container fwt-s1 comes from no address book, and this host plugged 10.99.0.51 from address book a1b2",
        ),
    ] {
        let report = drive.one(&task);
        assert_eq!(report.failed().to_string(), says);
        assert!(report.failed().hint.as_ref().unwrap().contains("`adopt = true`"), "{:?}", report.failed());
    }
    let mut adopt = from("c3d4", 1);
    adopt.args.insert("adopt".to_owned(), true.into());
    assert_eq!(drive.one(&adopt).fields(), ["record"]);
    drive.one(&adopt).no_change();
    drive.one(&from("c3d4", 1)).no_change();
    // The watcher goes by the record, whatever book that names.
    let watcher = Watcher::start(host, &[]);
    watcher.says("the Docker daemon answers");
    host.must("docker restart -t 0 fwt-s1");
    watched.reached("10.99.0.51", "after a restart");

    // A record of a fanli before the watcher cannot be kept by it; the next run writes it anew.
    let file = host.must("ls /var/lib/fanli/attach/*.json");
    host.must(&format!(
        "echo '{{\"container\":\"fwt-s1\",\"network\":\"lan\",\"parent\":\"eth0\",\"address\":\"10.99.0.51\"}}' > {file}; touch /var/lib/fanli/attach"
    ));
    watcher.says("the record of container fwt-s1 on lan is of an older fanli; run the playbook once");
    assert_eq!(drive.one(&from("c3d4", 1)).fields(), ["record"]);
    host.must("docker restart -t 0 fwt-s1");
    watched.reached("10.99.0.51", "after the record was written anew");
    println!("{}", watcher.said());
}
