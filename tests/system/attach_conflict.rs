//! No address twice: who has it already is found before anything is plugged, and named.

use std::fmt::Write as _;
use std::time::Instant;

use fanli::failure::Failure;
use fanli::value::Value;

use crate::docker_hosts::Hosts;
use crate::drive::{Drive, Report, Task};
use crate::plugs::{attach, compare, inside, pid, web, with};

const NIC_MAC: &str = "ip -o link show eth0 | sed 's,.*ether ,,; s, .*,,'";

/// The message as a person reads it, with the names of this run taken out.
fn told(hosts: &Hosts, failure: &Failure, more: &[(&str, &str)]) -> String {
    let mut text = format!("failed: {}\n", failure.message);
    for cause in &failure.causes {
        let _ = writeln!(text, "  {cause}");
    }
    let _ = writeln!(text, "  help: {}", failure.hint.as_deref().unwrap_or("(none)"));
    for (number, host) in hosts.hosts.iter().enumerate() {
        text = text.replace(&host.name, &format!("HOST{}", number + 1));
    }
    for (from, to) in more {
        text = text.replace(from, to);
    }
    text
}

#[test]
fn who_has_the_address_is_named_before_the_plug() {
    let hosts = Hosts::start("rc", 2);
    let (one, two) = (&hosts.hosts[0], &hosts.hosts[1]);
    let (drive, other) = (one.drive(), two.drive());
    drive.run(&[web("fpr-a"), web("fpr-b")]);
    other.run(&[web("fpr-a"), attach("fpr-a", "10.99.0.61", &[])]);
    let refused = |task: &Task| {
        let before = one.must("ip route; ip -br link; ls /var/lib/fanli/attach 2>/dev/null || :");
        let report = drive.one(task);
        let failure = report.failed().clone();
        assert_eq!(inside(one, "fpr-b", "ip -br link | wc -l"), "1", "a link is left");
        // The link that was made for the question is gone again, too.
        assert_eq!(one.must("ip route; ip -br link; ls /var/lib/fanli/attach 2>/dev/null || :"), before);
        failure
    };

    // A machine that no book knows, on the wire.
    hosts.on_switch("ip addr add 10.99.0.77/24 dev br0");
    let bridge = hosts.on_switch("ip -o link show br0 | sed 's,.*ether ,,; s, .*,,'");
    let bridge = String::from_utf8(bridge.stdout).unwrap().trim().to_owned();
    let names = [(bridge.as_str(), "MAC-OF-THE-MACHINE")];
    compare("foreign_machine", &told(&hosts, &refused(&attach("fpr-b", "10.99.0.77", &[])), &names));
    // The same without a shim: asked from a link that is taken away again.
    let bare = refused(&attach("fpr-b", "10.99.0.77", &[("shim", Value::Bool(false))]));
    assert_eq!(bare.causes, refused(&attach("fpr-b", "10.99.0.77", &[])).causes);
    // And with the RFC's own timers; and not at all.
    refused(&attach("fpr-b", "10.99.0.77", &[("probe", "strict".into())]));

    // Another host.
    let two_nic = two.must(NIC_MAC);
    let names = [(two_nic.as_str(), "MAC-OF-HOST2")];
    compare("another_host", &told(&hosts, &refused(&attach("fpr-b", "10.99.0.2", &[])), &names));

    // The host itself.
    let nic = one.must(NIC_MAC);
    compare("the_host_itself", &told(&hosts, &refused(&attach("fpr-b", "10.99.0.1", &[])), &[(&nic, "MAC-OF-HOST1")]));

    // Our own copy on another host: the same node, network and address, so the same MAC. It is alive there.
    compare("own_copy_elsewhere", &told(&hosts, &refused(&attach("fpr-b", "10.99.0.61", &[])), &[]));

    // A sibling that fanli plugged, and one that somebody plugged by hand.
    drive.one(&attach("fpr-a", "10.99.0.62", &[])).fields();
    compare("sibling", &told(&hosts, &refused(&attach("fpr-b", "10.99.0.62", &[])), &[]));
    one.must("rm -rf /var/lib/fanli/attach");
    compare("own_copy_here", &told(&hosts, &refused(&attach("fpr-b", "10.99.0.62", &[])), &[]));
    inside(one, "fpr-a", "ip link set eth0 address 02:00:00:00:00:62");
    compare("sibling_by_hand", &told(&hosts, &refused(&attach("fpr-b", "10.99.0.62", &[])), &[]));

    // Nobody has it: taken; and `off` does not ask.
    let free = attach("fpr-b", "10.99.0.63", &[]);
    assert!(drive.one(&free).failure.is_none());
    drive.one(&free).no_change();
    let blind = attach("fpr-b", "10.99.0.77", &[("probe", "off".into())]);
    assert!(drive.one(&blind).failure.is_none());
    one.must("docker rm -f fpr-a fpr-b");
}

#[test]
fn a_plug_after_a_restart_does_not_wait_and_still_sees_a_live_copy() {
    let hosts = Hosts::start("rg", 2);
    let (one, two) = (&hosts.hosts[0], &hosts.hosts[1]);
    let (drive, other) = (one.drive(), two.drive());
    let plug = attach("fpr-g", "10.99.0.71", &[]);
    drive.run(&[web("fpr-g"), plug.clone()]);
    let mut took = Vec::new();
    for _ in 0..5 {
        one.must("docker restart -t 0 fpr-g");
        let report = drive.one(&plug);
        assert!(report.fields().contains(&"link".to_owned()));
        took.push(report.apply_us);
    }
    took.sort_unstable();
    println!("a plug after a restart, with the glance: {took:?} us; first plug waits 300 ms or more");
    an_old_network_is_no_copy(&hosts, &plug);
    // Meanwhile another host was given the node, and has it up.
    one.must("docker kill fpr-g");
    other.run(&[web("fpr-g"), plug.clone()]);
    one.must("docker start fpr-g");
    let failed = drive.one(&plug);
    assert!(failed.failed().causes[0].contains("a copy is alive on another host"), "{:?}", failed.failure);
    assert_eq!(inside(one, "fpr-g", "ip -br link | wc -l"), "1");
}

/// A container made anew, or restarted, while something keeps its old network: the address is free at once, and what keeps it is told.
fn an_old_network_is_no_copy(hosts: &Hosts, plug: &Task) {
    let host = &hosts.hosts[0];
    let (drive, look) = (host.drive(), Drive { apply: false, ..host.drive() });
    let reached = |when: &str| assert_eq!(host.must("timeout 5 busybox wget -qO- http://10.99.0.71/"), "one", "{when}");
    // It sees the host's mounts as they are now, those of Docker's networks among them.
    let monitor = || {
        host.must("docker rm -f fpr-m 2>/dev/null; docker run -d --name fpr-m --net none -v /:/rootfs fanli/example:1 sleep 1000")
    };
    monitor();
    host.must("docker restart -t 0 fpr-g");
    let seen = look.one(plug);
    let kept = seen.change.as_ref().and_then(|change| change.field("old_network")).expect("it is not seen");
    let keeper = format!("process {} (sleep) has it mounted at /rootfs/run/docker/netns/", pid(host, "fpr-m"));
    assert!(kept.from.to_string().starts_with(&keeper), "{}", kept.from);
    assert_eq!(drive.one(plug).fields(), seen.fields());
    drive.one(plug).no_change();
    reached("after a restart");
    // A fanli that gave networks no numbers plugged it: found all the same.
    monitor();
    let mac = inside(host, "fpr-g", "ip -o link show eth0 | sed \"s,.*ether ,,; s, .*,,\"");
    inside(host, "fpr-g", "ip link del eth0");
    let fresh = pid(host, "fpr-g");
    host.must(&format!(
        "ip link add fnold link eth0 address {mac} netns {fresh} type macvlan mode bridge; nsenter -t {fresh} -n sh -ec \
         'ip link set fnold alias fanli:1:fpr-g:lan:0; ip link set fnold name eth0; ip addr add 10.99.0.71/24 dev eth0; ip link set eth0 up'"
    ));
    host.must("docker rm -f fpr-g");
    let made = drive.run(&[web("fpr-g"), plug.clone()]);
    assert!(made[1].failure.is_none(), "{:?}", made[1].failure);
    reached("after it was made anew by hand");
    // What fanli stops itself leaves nothing there.
    monitor();
    let other = with(&web("fpr-g"), &[("stop_timeout", Value::Duration(std::time::Duration::from_secs(1)))]);
    let made = drive.run(&[other, web("fpr-g"), plug.clone()]);
    assert!(made[0].change.is_some() && made[1].change.is_some(), "it was not made anew");
    assert!(!made[2].fields().contains(&"old_network".to_owned()), "{:?}", made[2].fields());
    reached("after it was made anew by fanli");
    host.must("docker rm -f fpr-m");

    // One that is going away cannot be reached: the kernel takes frames for it until it is gone.
    let waits =
        |report: &Report| report.progress.iter().any(|line| line.starts_with("waiting for the kernel to take an old"));
    host.must("docker restart -t 0 fpr-g");
    host.must(&format!(
        "bridge fdb add {mac} dev eth0 self permanent; (sleep 2; bridge fdb del {mac} dev eth0 self) >/dev/null 2>&1 &"
    ));
    let waited = drive.one(plug);
    assert!(waited.failure.is_none() && waits(&waited), "{waited:?}");
    reached("after it went");
    // And the limit, that of an address which this host does not remember.
    let strange = attach("fpr-g", "10.99.0.72", &[("interface", "lan0".into()), ("mac", "02:00:00:00:00:72".into())]);
    let strange = with(&strange, &[("network", "other".into())]);
    host.must("bridge fdb add 02:00:00:00:00:72 dev eth0 self permanent");
    compare("old_network", &told(hosts, drive.one(&strange).failed(), &[]));
    host.must("bridge fdb del 02:00:00:00:00:72 dev eth0 self");
    assert_eq!(inside(host, "fpr-g", "ip -br link | wc -l"), "2", "a link is left");
}

#[test]
fn rivals_for_one_address_never_both_win() {
    let hosts = Hosts::start("rr", 3);
    let plug = attach("fpr-r", "10.99.0.81", &[]);
    for host in &hosts.hosts {
        host.drive().run(&[web("fpr-r")]);
    }
    let (mut won, mut none) = (0, 0);
    for round in 0..12 {
        let started = Instant::now();
        let reports: Vec<Report> = std::thread::scope(|scope| {
            let run = |drive: Drive| {
                let plug = &plug;
                scope.spawn(move || drive.one(plug))
            };
            let all: Vec<_> = hosts.hosts.iter().map(|host| run(host.drive())).collect();
            all.into_iter().map(|run| run.join().unwrap()).collect()
        });
        let winners = reports.iter().filter(|report| report.failure.is_none()).count();
        let up =
            hosts.hosts.iter().filter(|host| inside(host, "fpr-r", "ip -4 -br addr").contains("10.99.0.81")).count();
        assert_eq!(winners, up, "round {round}");
        assert!(winners <= 1, "round {round}: {winners} winners");
        won += winners;
        none += usize::from(winners == 0);
        println!("round {round}: {winners} winner in {:?}", started.elapsed());
        for host in &hosts.hosts {
            let mut absent = plug.clone();
            absent.args.insert("state".to_owned(), "absent".into());
            host.drive().one(&absent);
        }
    }
    println!("{won} rounds with one winner, {none} with none");
    assert!(won >= 6, "{won} of 12");
}

#[test]
fn neighbours_learn_a_new_mac_at_once() {
    let hosts = Hosts::start("rn", 1);
    let host = &hosts.hosts[0];
    let drive = host.drive();
    let with = |mac: &str| attach("fpr-n", "10.99.0.91", &[("mac", mac.into())]);
    drive.run(&[web("fpr-n"), with("02:00:00:00:00:01")]);
    hosts.on_switch("busybox ping -c1 -W2 10.99.0.91");
    let knows = |mac: &str| {
        let table = hosts.on_switch("ip neigh show 10.99.0.91");
        String::from_utf8_lossy(&table.stdout).contains(mac)
    };
    assert!(knows("02:00:00:00:00:01"));
    // The switch's machine asks nobody meanwhile: what it knows then, it was told.
    drive.one(&with("02:00:00:00:00:02")).fields();
    assert!(knows("02:00:00:00:00:02"), "{:?}", hosts.on_switch("ip neigh"));
    let started = Instant::now();
    let ping = hosts.on_switch("busybox ping -c1 -W2 10.99.0.91");
    assert!(ping.status.success());
    println!("the neighbour reaches the new MAC: {:?}", started.elapsed());
    // Without a carrier nothing can be announced, and the plug does not fail for it.
    hosts.on_switch("ip link set p1 down");
    let cut = drive.one(&with("02:00:00:00:00:03"));
    assert!(cut.failure.is_none(), "{:?}", cut.failure);
    hosts.on_switch("ip link set p1 up");
}
