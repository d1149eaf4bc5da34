//! `attach` between real containers on docker hosts that share a switch.

use std::time::{Duration, Instant};

use fanli::value::Value;

use crate::common::chance::soak;
use crate::docker_hosts::{Host, Hosts};
use crate::drive::Task;
use crate::faults::{killed_at_request, requests, some_of};
use crate::plugs::{attach, inside, ip, web, with};

fn fetch(address: &str) -> String {
    format!("timeout 5 busybox wget -qO- http://{address}/")
}

/// No half-made links anywhere: the shim alone begins with fn.
fn clean(host: &Host, container: &str) {
    let names = inside(host, container, "ip -br link | cut -d@ -f1 | cut -d\" \" -f1 | tr \"\\n\" \" \"");
    assert_eq!(names.trim(), "lo eth0");
    let shims = host.must("ip -br link | grep -c '^fn' || :");
    assert_eq!(shims, "1", "links that begin with fn: {}", host.must("ip -br link"));
}

#[test]
fn a_container_is_plugged_kept_and_mended() {
    let hosts = Hosts::start("p", 2);
    let (one, two) = (&hosts.hosts[0], &hosts.hosts[1]);
    let (drive, mut look) = (one.drive(), one.drive());
    look.apply = false;
    let plug = attach("fdk-p1", "10.99.0.11", &[("gateway", ip("10.99.0.254"))]);

    // Not before it runs; and then at once.
    assert!(look.one(&plug).change.is_some());
    println!("{}", drive.one(&plug).failed());
    let made = drive.run(&[web("fdk-p1"), plug.clone()]);
    assert_eq!(
        made[1].fields(),
        ["address", "gateway", "host_route", "link", "mac", "mtu", "parent", "record", "shim", "shim_route", "up"]
    );
    println!("{:?}; observe {} us, apply {} us", made[1].progress, made[1].observe_us, made[1].apply_us);
    drive.one(&plug).no_change();
    two.drive().run(&[web("fdk-p2"), attach("fdk-p2", "10.99.0.12", &[])]);

    // From another host, from a container there, from a machine on the wire, from the container's own host.
    let reached = |when: &str| {
        for (from, got) in [
            ("another host", two.must(&fetch("10.99.0.11"))),
            ("another container", inside(two, "fdk-p2", &fetch("10.99.0.11"))),
            ("its own host", one.must(&fetch("10.99.0.11"))),
            (
                "the container to its host",
                inside(one, "fdk-p1", "busybox ping -c1 -W2 10.99.0.1 >/dev/null && echo one"),
            ),
        ] {
            assert_eq!(got, "one", "{when}: from {from}");
        }
        let wire = hosts.on_switch(&fetch("10.99.0.11"));
        assert_eq!(String::from_utf8_lossy(&wire.stdout).trim(), "one", "{when}: from the wire");
        clean(one, "fdk-p1");
    };
    reached("after the plug");

    // One MAC for the host's own address on the wire, whoever asks.
    let asked =
        hosts.on_switch("ip neigh flush all; busybox ping -c1 -W2 10.99.0.1 >/dev/null; ip neigh show 10.99.0.1");
    let nic = one.must("ip -o link show eth0 | sed 's,.*ether ,,; s, .*,,'");
    assert!(String::from_utf8_lossy(&asked.stdout).contains(&nic), "{nic}: {asked:?}");

    // A restart loses the interface: exactly that is mended.
    one.must("docker restart -t 0 fdk-p1");
    let started = Instant::now();
    let runs = drive.run(&[web("fdk-p1"), plug.clone()]);
    runs[0].no_change();
    assert!(runs[1].fields().contains(&"link".to_owned()));
    println!("mended after a restart in {:?}", started.elapsed());
    reached("after a restart");
    drive.one(&plug).no_change();

    // Every single difference is named and mended.
    let pid = "$(docker inspect -f '{{.State.Pid}}' fdk-p1)";
    let cases = [
        ("ip addr del 10.99.0.11/24 dev eth0", vec!["address", "gateway"]),
        ("ip addr add 10.99.0.77/24 dev eth0", vec!["address"]),
        ("ip link set eth0 mtu 1400", vec!["mtu"]),
        ("ip link set eth0 down", vec!["gateway", "up"]),
        ("ip route del default", vec!["gateway"]),
        ("ip route flush dev eth0", vec!["address", "gateway"]),
        ("ip route replace default via 10.99.0.253", vec!["gateway"]),
        ("ip link set eth0 address 02:00:00:00:00:77", vec!["mac"]),
        (
            "ip link set eth0 down; ip link set eth0 type macvlan mode private; ip link set eth0 up",
            vec!["gateway", "link"],
        ),
    ];
    for (script, fields) in cases {
        one.must(&format!("nsenter -t {pid} -n sh -ec '{script}'"));
        assert_eq!(look.one(&plug).fields(), fields, "{script}");
        assert_eq!(drive.one(&plug).fields(), fields, "{script}");
        drive.one(&plug).no_change();
        reached(script);
    }
    for (script, fields) in [
        ("ip route del 10.99.0.11/32", vec!["shim_route"]),
        ("ip link set fn-eth0 down", vec!["shim", "shim_route"]),
        ("sysctl -qw net.ipv4.conf.fn-eth0.arp_filter=0", vec!["shim"]),
        ("ip link del fn-eth0", vec!["shim", "shim_route"]),
        ("ip link del fn-eth0; ip link add fn-eth0 link eth0 type macvlan mode bridge", vec!["shim", "shim_route"]),
        ("ip route add 10.99.0.200/32 dev fn-eth0", vec!["stale_routes"]),
    ] {
        one.must(script);
        assert_eq!(look.one(&plug).fields(), fields, "{script}");
        assert_eq!(drive.one(&plug).fields(), fields, "{script}");
        drive.one(&plug).no_change();
        reached(script);
    }
    // A card whose MTU went down and up again; and one that is down, in check mode as in a run.
    one.must("ip link set eth0 mtu 1400");
    look.one(&plug).no_change();
    one.must("ip link set eth0 mtu 1500");
    assert_eq!(look.one(&plug).fields(), ["mtu", "shim"]);
    assert_eq!(drive.one(&plug).fields(), ["mtu", "shim"]);
    drive.one(&plug).no_change();
    reached("after the card's MTU changed");
    one.must("ip link set eth0 down");
    for way in [&look, &drive] {
        let failure = way.one(&plug).failed().to_string();
        assert!(failure.starts_with("network card eth0 is down"), "{failure}");
    }
    one.must("ip link set eth0 up; ip route replace default via 10.99.0.254");
    drive.one(&plug);
    drive.one(&plug).no_change();
    reached("after the card was down");
    // What a run refuses of a VLAN, a look refuses as well.
    let tagged = |parent: &str, more: &[(&str, Value)]| {
        with(&attach("fdk-p1", "10.99.0.11", &[("parent", parent.into()), ("vlan", Value::Int(120))]), more)
    };
    let no_vlans = !one.sh("ip link add link eth0 name v9 type vlan id 9 && ip link del v9").status.success();
    for (task, says, here) in [
        (tagged("eth9", &[]), "the host has no network card eth9", true),
        (tagged("eth0", &[]), "kernel has no 802.1Q VLANs", no_vlans),
        (tagged("eth0", &[("mtu", Value::Int(9000))]), "an MTU of 9000", !no_vlans),
    ] {
        for way in [&look, &drive].iter().filter(|_| here) {
            let failure = way.one(&task).failed().to_string();
            assert!(failure.contains(says), "{failure}");
        }
    }
    drive.one(&plug).no_change();
    one.must(&format!("nsenter -t {pid} -n ip link del eth0"));
    assert!(drive.one(&plug).fields().contains(&"link".to_owned()));
    reached("after the link was deleted");

    // Another's interface is not touched.
    one.must(&format!("nsenter -t {pid} -n sh -ec 'ip link del eth0; ip link add eth0 type veth peer name v1'"));
    println!("{}", drive.one(&plug).failed());
    one.must(&format!("nsenter -t {pid} -n ip link del eth0"));
    drive.one(&plug).fields();

    // Another address, another name, an MTU of its own; parents that are none.
    let moved = attach("fdk-p1", "10.99.0.21", &[("mtu", Value::Int(1300)), ("interface", "lan0".into())]);
    assert!(drive.one(&moved).fields().contains(&"leftover".to_owned()));
    drive.one(&moved).no_change();
    assert_eq!(one.must(&fetch("10.99.0.21")), "one");
    assert!(!one.must("ip route").contains("10.99.0.11"), "{}", one.must("ip route"));
    for (parent, hint) in [("eth9", "it has "), ("fn-eth0", "that it stands on")] {
        let wrong = drive.one(&attach("fdk-p1", "10.99.0.21", &[("parent", parent.into())]));
        assert!(wrong.failed().hint.as_ref().unwrap().contains(hint), "{:?}", wrong.failure);
    }
    println!("{}", drive.one(&attach("fdk-p1", "10.99.0.21", &[("mtu", Value::Int(9000))])).failed());

    // Gone again, with everything that belonged to it. The host asks over its shim with its own address as sender, so a neighbour takes
    // the shim's MAC for that address: it must know the card's again as soon as the shim is gone.
    hosts.on_switch("busybox ping -c1 -W2 10.99.0.1");
    std::thread::sleep(Duration::from_millis(1200));
    one.must("ip neigh flush dev fn-eth0; busybox ping -c1 -W2 10.99.0.21");
    let knows = hosts.on_switch("ip neigh show 10.99.0.1");
    let shim = one.must("ip -o link show fn-eth0 | sed 's,.*ether ,,; s, .*,,'");
    assert!(String::from_utf8_lossy(&knows.stdout).contains(&shim), "{shim}: {knows:?}");
    let absent = attach("fdk-p1", "10.99.0.21", &[("interface", "lan0".into()), ("state", "absent".into())]);
    assert!(drive.one(&absent).change.is_some());
    let ping = hosts.on_switch("busybox ping -c1 -W1 10.99.0.1");
    assert!(ping.status.success(), "{ping:?}");
    drive.one(&absent).no_change();
    assert_eq!(one.must("ip -br link | grep -c '^fn' || :"), "0");
    assert_eq!(one.must("ls /var/lib/fanli/attach"), "");
}

#[test]
fn a_network_that_only_the_host_knows() {
    let hosts = Hosts::start("q", 1);
    let host = &hosts.hosts[0];
    let drive = host.drive();
    let apart =
        |name: &str, address: &str| attach(name, address, &[("subnet", Value::Net("10.77.0.0/24".parse().unwrap()))]);
    let all: Vec<Task> = (1..=3)
        .flat_map(|at| [web(&format!("fdk-q{at}")), apart(&format!("fdk-q{at}"), &format!("10.77.0.{}", 10 + at))])
        .collect();
    drive.run(&all);
    for report in drive.run(&all) {
        report.no_change();
    }
    for at in 11..=13 {
        assert_eq!(host.must(&fetch(&format!("10.77.0.{at}"))), "one");
    }
    assert_eq!(inside(host, "fdk-q1", &fetch("10.77.0.12")), "one");
    // What is to be gone takes nothing of what others have: their route to the address, or their interface of the same name.
    let gone = [("state", Value::from("absent"))];
    drive.one(&with(&apart("fdk-gone", "10.77.0.11"), &gone)).no_change();
    drive.one(&with(&with(&apart("fdk-q1", "10.77.0.11"), &[("network", "other".into())]), &gone)).no_change();
    assert_eq!(host.must(&fetch("10.77.0.11")), "one");

    // Another address book on the same network: refused while its container is there, and forgotten when that is gone.
    let of_book = |task: &Task, store: &str, slot: &str| {
        let revision = Value::Int(1);
        with(
            task,
            &[("store", store.into()), ("owner", slot.into()), ("revision", revision), ("adopt", Value::Bool(true))],
        )
    };
    let strict = |task: &Task| with(task, &[("adopt", Value::Bool(false))]);
    drive.one(&of_book(&apart("fdk-q3", "10.77.0.13"), "theirs", "web/3")).fields();
    let ours = strict(&of_book(&apart("fdk-q2", "10.77.0.12"), "ours", "app/2"));
    host.must("rm /var/lib/fanli/attach/$(grep -l fdk-q2 /var/lib/fanli/attach/*.json | xargs -n1 basename)");
    let failure = drive.one(&ours).failed().to_string();
    assert!(failure.contains("from address book theirs"), "{failure}");
    host.must("docker rm -f fdk-q3");
    assert!(drive.one(&ours).failure.is_none());
    drive.one(&ours).no_change();
    assert_eq!(host.must("ls /var/lib/fanli/attach | wc -l"), "2");
    assert_eq!(host.must("ip route show dev fn-eth0 | wc -l"), "2");
    drive.one(&of_book(&all[3], "none", "x/2")).fields();
    host.must("rm /var/lib/fanli/attach/*");
    drive.run(&all);
    host.must("docker rm -f fdk-q3");
    assert_eq!(drive.one(&all[1]).fields(), ["stale_routes"]);
    drive.one(&all[3]).no_change();
    assert_eq!(host.must("ip route show dev fn-eth0 | wc -l"), "2");
}

#[test]
fn a_plug_that_is_killed_anywhere_is_mended_by_the_next() {
    let hosts = Hosts::start("k", 1);
    let host = &hosts.hosts[0];
    let drive = host.drive();
    let plug = attach("fdk-k1", "10.99.0.31", &[("gateway", ip("10.99.0.254"))]);
    drive.run(&[web("fdk-k1"), plug.clone()]);
    let plugs = std::slice::from_ref(&plug);
    let unplug = || {
        inside(host, "fdk-k1", "ip link del eth0");
        host.must("ip link del fn-eth0; rm -rf /var/lib/fanli/attach");
    };
    unplug();
    let most = requests(host, plugs);
    assert!(most > 15, "only {most} requests");
    let mut killed = 0;
    for request in some_of(most, 4) {
        unplug();
        killed += usize::from(killed_at_request(host, plugs, request));
        drive.one(&plug);
        drive.one(&plug).no_change();
        clean(host, "fdk-k1");
        assert_eq!(host.must(&fetch("10.99.0.31")), "one", "after a kill at request {request}");
    }
    println!("killed at {killed} requests");
    assert!(killed > if soak() { 15 } else { 0 }, "only {killed}");
}
