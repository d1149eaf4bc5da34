//! Every mode of a network, between real containers on two docker hosts that share a switch, with traffic.

use fanli::value::{Map, Value};

use crate::common::chance::soak;
use crate::docker_hosts::{Host, Hosts};
use crate::drive::{Drive, Task, task};
use crate::faults::{killed_at_request, requests, some_of};
use crate::plugs::{self, inside, ip, pid, web, with};

fn net(text: &str) -> Value {
    Value::Net(text.parse().unwrap())
}

fn way(from: &str, to: &str) -> Value {
    let arrow = fanli::value::Arrow { from: from.to_owned(), to: to.to_owned(), flags: Vec::new() };
    Value::Arrow(Box::new(arrow))
}

/// An attachment of a mode on `eth0`.
fn attach(mode: &str, container: &str, address: &str, subnet: &str) -> Task {
    plugs::attach(container, address, &[("mode", Value::from(mode)), ("subnet", net(subnet))])
}

fn id(host: &Host, container: &str) -> String {
    host.must(&format!("docker inspect -f '{{{{.Id}}}}' {container}"))
}

/// 100 MB over HTTP from one container to another arrive as they were.
fn transfer(from: (&Host, &str), address: &str, to: (&Host, &str)) {
    let sum = from.0.must(&format!(
        "f=$(mktemp -d)/big; head -c 100000000 /dev/urandom > $f; docker cp $f {}:/www/big >/dev/null; \
         sha256sum $f | cut -d' ' -f1; rm -r $(dirname $f)",
        from.1
    ));
    let got = inside(to.0, to.1, &format!("timeout 120 busybox wget -qO- http://{address}/big | sha256sum"));
    assert_eq!(got.trim_end_matches(['-', ' ']), sum, "{address}");
}

/// Packets as large as the interface takes arrive, and come back.
fn full_size(host: &Host, container: &str, address: &str, mtu: u32) {
    let shown = inside(host, container, "cat /proc/self/ns/net >/dev/null 2>&1 || :; ip -o link show eth0");
    assert!(shown.contains(&format!("mtu {mtu} ")), "{shown}");
    // 20 bytes of IP and 8 of ICMP; the kernel sets "do not fragment" on what fits.
    inside(host, container, &format!("busybox ping -q -c 3 -i 0.2 -W 2 -s {} {address}", mtu - 28));
}

fn fetched(host: &Host, address: &str) -> bool {
    host.sh(&format!("timeout 4 busybox wget -qO- http://{address}/")).status.success()
}

/// Docker's policy, and the kernel shows it what passes bridges.
fn forward_drop(host: &Host) {
    host.must("sysctl -qw net.bridge.bridge-nf-call-iptables=1");
    host.must("iptables -P FORWARD DROP");
}

/// What is different is named in check mode, mended, and gone on the next run.
fn mended(drive: &Drive, task: &Task, what: &str) -> Vec<String> {
    let mut look = drive.clone();
    look.apply = false;
    let named = look.one(task).fields();
    assert!(!named.is_empty(), "{what} is not seen");
    assert_eq!(drive.one(task).fields(), named, "{what}");
    drive.one(task).no_change();
    named
}

fn removed(host: &Host, tasks: &[Task]) {
    let drive = host.drive();
    for task in tasks {
        let absent = with(task, &[("state", "absent".into())]);
        assert!(drive.one(&absent).change.is_some());
        drive.one(&absent).no_change();
    }
    let links = host.must("ip -br link | cut -d' ' -f1 | cut -d@ -f1 | sort | tr '\\n' ' '");
    assert_eq!(links.trim(), "docker0 eth0 lo");
    assert_eq!(host.must("iptables-save | grep -c fanli || :"), "0");
    assert_eq!(host.must("ls /var/lib/fanli/attach"), "");
}

#[test]
fn live_changes_keep_the_container() {
    let hosts = Hosts::start("ml", 1);
    let host = &hosts.hosts[0];
    let drive = host.drive();
    let mut look = drive.clone();
    look.apply = false;
    let base = with(
        &attach("macvlan", "fmo-l1", "10.99.0.11", "10.99.0.0/24"),
        &[("gateway", ip("10.99.0.254")), ("routes", way("10.50.0.0/16", "10.99.0.253"))],
    );
    drive.run(&[web("fmo-l1"), base.clone()]);
    drive.one(&base).no_change();
    let before = (id(host, "fmo-l1"), pid(host, "fmo-l1"));
    let routes = Value::List(vec![way("10.60.0.0/16", "10.99.0.252"), way("10.50.0.0/16", "10.99.0.251")]);
    let steps: [(&str, Value, &[&str]); 6] = [
        ("routes", routes, &["record", "routes"]),
        ("mtu", Value::Int(1400), &["mtu", "record"]),
        ("gateway", ip("10.99.0.253"), &["gateway", "record"]),
        ("mac", "02:77:00:00:00:01".into(), &["mac", "record"]),
        ("address", ip("10.99.0.12"), &["address", "record", "shim_route", "stale_routes"]),
        ("routes", Value::List(Vec::new()), &["record", "routes"]),
    ];
    let mut task = base;
    for (name, value, fields) in steps {
        task = with(&task, &[(name, value)]);
        assert_eq!(look.one(&task).fields(), fields, "{name}");
        assert_eq!(drive.one(&task).fields(), fields, "{name}");
        drive.one(&task).no_change();
        assert_eq!((id(host, "fmo-l1"), pid(host, "fmo-l1")), before, "{name}");
        let now = if fields.contains(&"address") || task.args["address"] == ip("10.99.0.12") { 12 } else { 11 };
        assert!(fetched(host, &format!("10.99.0.{now}")), "{name}");
    }
    assert!(!inside(host, "fmo-l1", "ip route").contains("10.60"), "routes stay behind");
    // By hand: a route too many, one that is gone.
    task = with(&task, &[("routes", way("10.50.0.0/16", "10.99.0.251"))]);
    drive.one(&task).fields();
    for script in ["ip route add 10.61.0.0/16 via 10.99.0.253", "ip route del 10.50.0.0/16"] {
        inside(host, "fmo-l1", script);
        assert_eq!(mended(&drive, &task, script), ["routes"]);
    }
    removed(host, &[task]);
}

#[test]
fn macvlan_variants() {
    let hosts = Hosts::start("mv", 2);
    let (one, two) = (&hosts.hosts[0], &hosts.hosts[1]);
    let plug = |container: &str, address: &str, variant: &str| {
        with(&attach("macvlan", container, address, "10.99.0.0/24"), &[("variant", variant.into())])
    };
    let (drive, drive2) = (one.drive(), two.drive());
    for host in [one, two] {
        forward_drop(host);
    }
    drive2.run(&[web("fmo-v9"), plug("fmo-v9", "10.99.0.29", "bridge")]);
    let apart = |from: &str, address: &str| {
        !one.sh(&format!("nsenter -t {} -n busybox ping -c1 -W1 {address}", pid(one, from))).status.success()
    };
    for (variant, siblings) in [("bridge", true), ("private", false), ("vepa", false)] {
        let (first, second) = (plug("fmo-v1", "10.99.0.21", variant), plug("fmo-v2", "10.99.0.22", variant));
        drive.run(&[web("fmo-v1"), first.clone(), web("fmo-v2"), second.clone()]);
        drive.one(&first).no_change();
        assert_eq!(one.sh("ip link show fn-eth0").status.success(), variant == "bridge", "{variant}: the shim");
        assert_eq!(apart("fmo-v1", "10.99.0.22"), !siblings, "{variant}");
        transfer((one, "fmo-v1"), "10.99.0.21", (two, "fmo-v9"));
        full_size(one, "fmo-v1", "10.99.0.29", 1500);
        assert_eq!(fetched(one, "10.99.0.21"), siblings, "{variant}: from the host");
        removed(one, &[first, second]);
    }
    // A macvtap carries the same, beside the shim.
    let tap = attach("macvtap", "fmo-v1", "10.99.0.21", "10.99.0.0/24");
    drive.one(&tap).fields();
    drive.one(&tap).no_change();
    transfer((one, "fmo-v1"), "10.99.0.21", (two, "fmo-v9"));
    full_size(one, "fmo-v1", "10.99.0.29", 1500);
    assert!(fetched(one, "10.99.0.21"));
    inside(one, "fmo-v1", "ip link set eth0 mtu 1300");
    assert_eq!(mended(&drive, &tap, "mtu"), ["mtu"]);
    removed(one, &[tap]);
    // The card of the host itself is not given away; a second one is.
    let lost = drive.one(&plug("fmo-v1", "10.99.0.21", "passthru"));
    println!("{}", lost.failed());
    assert!(lost.failed().to_string().contains("cut it off"));
    hosts.second_card(one);
    let alone = with(&plug("fmo-v1", "10.99.0.21", "passthru"), &[("parent", "eth1".into())]);
    drive.one(&alone).fields();
    drive.one(&alone).no_change();
    transfer((one, "fmo-v1"), "10.99.0.21", (two, "fmo-v9"));
    full_size(one, "fmo-v1", "10.99.0.29", 1500);
    assert!(fetched(one, "10.99.0.21"), "passthru: from the host, whose own card is in the same switch");
    let second = with(&plug("fmo-v2", "10.99.0.22", "passthru"), &[("parent", "eth1".into())]);
    println!("{}", drive.one(&second).failed());
    one.must("ip link add br9 type bridge; ip link add eth2 type veth peer name x2; ip link set eth2 master br9 up");
    let port = drive.one(&with(&plug("fmo-v2", "10.99.0.22", "bridge"), &[("parent", "eth2".into())]));
    assert!(port.failed().to_string().contains("is a port of br9"), "{}", port.failed());
    // VLANs: this kernel has none, and nothing is left of the attempt.
    let vlan = drive.one(&with(&plug("fmo-v2", "10.99.0.22", "bridge"), &[("vlan", Value::Int(120))]));
    println!("{}", vlan.failed());
    assert!(vlan.failed().to_string().contains("802.1Q"));
    assert_eq!(inside(one, "fmo-v2", "ip -br link | cut -d\" \" -f1 | tr \"\\n\" \" \"").trim(), "lo");
    assert_eq!(drive.one(&with(&alone, &[("state", "absent".into())])).fields().len(), 0);
}

fn peers(entries: &[(&str, &[&str])]) -> Value {
    let nodes = |nodes: &[&str]| Value::List(nodes.iter().map(|node| ip(node)).collect());
    Value::Map(entries.iter().map(|(host, list)| ((*host).to_owned(), nodes(list))).collect::<Map>())
}

#[test]
fn vxlan() {
    let hosts = Hosts::start("mx", 2);
    let (one, two) = (&hosts.hosts[0], &hosts.hosts[1]);
    let (drive, drive2) = (one.drive(), two.drive());
    let plug = |container: &str, address: &str, peers: Value| {
        with(&attach("vxlan", container, address, "10.72.1.0/24"), &[("peers", peers)])
    };
    let first = plug("fmo-x1", "10.72.1.11", peers(&[("10.99.0.2", &["10.72.1.12"])]));
    let second = plug("fmo-x2", "10.72.1.12", peers(&[("10.99.0.1", &["10.72.1.11"])]));
    for host in [one, two] {
        forward_drop(host);
    }
    drive.run(&[web("fmo-x1"), first.clone()]);
    drive2.run(&[web("fmo-x2"), second.clone()]);
    drive.one(&first).no_change();
    drive2.one(&second).no_change();
    transfer((one, "fmo-x1"), "10.72.1.11", (two, "fmo-x2"));
    full_size(one, "fmo-x1", "10.72.1.12", 1450);
    assert!(fetched(one, "10.72.1.11") && fetched(two, "10.72.1.12"), "a host does not reach its own node");
    inside(one, "fmo-x1", "busybox ping -q -c1 -W2 10.99.0.1");

    // Frames for a known node go to its host alone; a stranger's are asked of everybody.
    let table = one.must("bridge fdb show dev fx-lan");
    assert!(table.contains("00:00:00:00:00:00 dst 10.99.0.2"), "{table}");
    let before = (id(one, "fmo-x1"), pid(one, "fmo-x1"));
    for (script, fields) in [
        ("ip link set fx-lan down", vec!["segment"]),
        ("ip link set fx-lan nomaster", vec!["segment"]),
        ("ip link del fx-lan", vec!["peers", "segment"]),
        ("bridge fdb del 00:00:00:00:00:00 dev fx-lan dst 10.99.0.2", vec!["peers"]),
        ("bridge fdb append 00:00:00:00:00:00 dev fx-lan dst 10.99.0.77", vec!["peers"]),
        ("ip link set fb-lan down", vec!["segment", "shim_route"]),
        ("iptables -F DOCKER-USER; iptables -A DOCKER-USER -j RETURN", vec!["segment"]),
        ("ip link set $(ip -br link | grep -o \"^fp[0-9a-f]*\") nomaster", vec!["parent"]),
        ("ip link set $(ip -br link | grep -o \"^fp[0-9a-f]*\") down", vec!["port"]),
        ("ip link del fb-lan", vec!["parent", "segment", "shim_route"]),
    ] {
        one.must(script);
        let named = mended(&drive, &first, script);
        assert_eq!(named.iter().filter(|field| *field != "gateway").collect::<Vec<_>>(), fields, "{script}");
        assert!(fetched(one, "10.72.1.11"), "{script}");
        inside(two, "fmo-x2", "timeout 5 busybox wget -qO- http://10.72.1.11/ >/dev/null");
    }
    assert_eq!((id(one, "fmo-x1"), pid(one, "fmo-x1")), before);

    // A restart loses the link; the next run plugs it in again, also while something keeps the old network.
    one.must(
        "docker run -d --name fmo-m --net none -v /:/rootfs fanli/example:1 sleep 1000; docker restart -t 0 fmo-x1",
    );
    assert!(drive.one(&first).fields().contains(&"link".to_owned()));
    inside(two, "fmo-x2", "timeout 5 busybox wget -qO- http://10.72.1.11/ >/dev/null");
    one.must("docker rm -f fmo-m");

    for (more, says) in [
        (("mtu", Value::Int(1500)), "less the tunnel's 50"),
        (("udp", Value::Int(4789)), "swarm"),
        (("peers", peers(&[("10.99.0.1", &[])])), "the host's own address"),
    ] {
        let wrong = drive.one(&with(&first, &[more]));
        assert!(format!("{:?}", wrong.failed()).contains(says), "{}", wrong.failed());
    }
    // The last node takes the segment with it, and no other.
    let third = plug("fmo-x3", "10.72.1.13", peers(&[("10.99.0.2", &["10.72.1.12"])]));
    drive.run(&[web("fmo-x3"), third.clone()]);
    let absent = with(&first, &[("state", "absent".into())]);
    drive.one(&absent).fields();
    drive.one(&absent).no_change();
    inside(two, "fmo-x2", "timeout 5 busybox wget -qO- http://10.72.1.13/ >/dev/null");
    assert!(fetched(one, "10.72.1.13"));
    removed(one, &[third]);
    removed(two, &[second]);
}

#[test]
fn bridge() {
    let hosts = Hosts::start("mb", 2);
    let (one, two) = (&hosts.hosts[0], &hosts.hosts[1]);
    let (drive, drive2) = (one.drive(), two.drive());
    let plug = |container: &str, address: &str| attach("bridge", container, address, "10.99.0.0/24");
    let (first, second) = (plug("fmo-b1", "10.99.0.31"), plug("fmo-b2", "10.99.0.32"));
    for host in [one, two] {
        forward_drop(host);
        host.must("ip route add 10.70.0.0/16 via 10.99.0.254 metric 50; ip addr add 10.98.0.1/24 dev eth0");
    }
    let routes = "ip route | sed s,dev.[a-z0-9-]*,, | sort";
    let mac = |link: &str| one.must(&format!("ip -o link show {link} | sed 's,.*ether ,,; s, .*,,'"));
    let own = (mac("eth0"), one.must(routes));
    drive.run(&[web("fmo-b1"), first.clone()]);
    drive2.run(&[web("fmo-b2"), second.clone()]);
    drive.one(&first).no_change();
    drive2.one(&second).no_change();
    assert_eq!(mac("br-eth0"), own.0);
    assert_eq!(one.must(&format!("{routes} | grep -v 10.99.0.31")), own.1);
    assert_eq!(one.must("ip -4 -br addr show eth0"), "");
    transfer((one, "fmo-b1"), "10.99.0.31", (two, "fmo-b2"));
    full_size(one, "fmo-b1", "10.99.0.32", 1500);
    assert!(fetched(one, "10.99.0.31") && fetched(two, "10.99.0.32"), "a host does not reach its own node");
    assert!(fetched(one, "10.99.0.32"), "nor another's");
    inside(one, "fmo-b1", "busybox ping -q -c1 -W2 10.99.0.1");
    hosts.on_switch("timeout 5 busybox wget -qO- http://10.99.0.31/ && busybox ping -q -c1 -W2 10.99.0.1");

    let before = (id(one, "fmo-b1"), pid(one, "fmo-b1"));
    for (script, fields) in [
        ("ip link set eth0 nomaster", vec!["segment"]),
        ("ip addr add 10.99.0.1/24 dev eth0", vec!["segment"]),
        ("ip link set $(ip -br link | grep -o \"^fp[0-9a-f]*\") nomaster", vec!["parent"]),
        ("ip link set $(ip -br link | grep -o \"^fp[0-9a-f]*\") mtu 1400", vec!["port"]),
        ("iptables -F DOCKER-USER; iptables -A DOCKER-USER -j RETURN", vec!["segment"]),
        ("ip route del 10.99.0.31/32", vec!["shim_route"]),
    ] {
        one.must(script);
        assert_eq!(mended(&drive, &first, script), fields, "{script}");
        assert!(fetched(one, "10.99.0.31"), "{script}");
        inside(two, "fmo-b2", "timeout 5 busybox wget -qO- http://10.99.0.31/ >/dev/null");
    }
    assert_eq!((id(one, "fmo-b1"), pid(one, "fmo-b1")), before);

    // A card is either in a bridge or below macvlans.
    let other = attach("macvlan", "fmo-b1", "10.99.0.33", "10.99.0.0/24");
    let other = with(&other, &[("network", "other".into()), ("interface", "eth1".into())]);
    let mixed = drive.one(&other);
    assert!(mixed.failed().to_string().contains("while it carries fmo-b1 by `mode = bridge`"), "{}", mixed.failed());
    // What no record tells of.
    one.must("mkdir /var/lib/fanli/aside; mv /var/lib/fanli/attach/* /var/lib/fanli/aside");
    let mixed = drive.one(&other);
    assert!(mixed.failed().to_string().contains("is a port of br-eth0"), "{}", mixed.failed());
    one.must("mv /var/lib/fanli/aside/* /var/lib/fanli/attach; rmdir /var/lib/fanli/aside");
    removed(one, &[first]);
    assert_eq!(one.must(routes), own.1);
    inside(two, "fmo-b2", "busybox ping -q -c1 -W2 10.99.0.1");
    let lan = with(&attach("macvlan", "fmo-b1", "10.99.0.31", "10.99.0.0/24"), &[("network", "other".into())]);
    drive.one(&lan).fields();
    let refused = drive.one(&plug("fmo-b1", "10.99.0.33"));
    assert!(
        refused.failed().to_string().contains("while it carries fmo-b1 by `mode = macvlan`"),
        "{}",
        refused.failed()
    );
    one.must("mkdir /var/lib/fanli/aside; mv /var/lib/fanli/attach/* /var/lib/fanli/aside");
    // What only the kernel knows: the macvlan in the container. It is tried before anything is moved.
    let refused = drive.one(&plug("fmo-b1", "10.99.0.33"));
    println!("{}", refused.failed());
    assert_eq!(one.must(routes), own.1);
    assert!(!one.sh("ip link show br-eth0").status.success());
    one.must("mv /var/lib/fanli/aside/* /var/lib/fanli/attach; rmdir /var/lib/fanli/aside");
    drive.one(&with(&lan, &[("state", "absent".into())])).fields();
    // A lease ends by itself, and whoever renews it knows the card alone.
    one.must("ip addr add 10.97.0.1/24 dev eth0 valid_lft 1000 preferred_lft 1000");
    let leased = drive.one(&plug("fmo-b1", "10.99.0.33"));
    assert!(leased.failed().to_string().contains("leased"), "{}", leased.failed());
    one.must("ip addr del 10.97.0.1/24 dev eth0");
    // A bridge that is there is used as it is, and stays.
    removed(two, &[second]);
    two.must(
        "ip link add br0 type bridge; ip link set br0 up; ip link set eth0 master br0; ip addr flush dev eth0; \
         ip addr add 10.99.0.2/24 dev br0",
    );
    let there = with(&plug("fmo-b2", "10.99.0.32"), &[("parent", "br0".into())]);
    drive2.one(&there).fields();
    drive2.one(&there).no_change();
    assert!(fetched(two, "10.99.0.32"));
    hosts.on_switch("timeout 5 busybox wget -qO- http://10.99.0.32/");
    drive2.one(&with(&there, &[("state", "absent".into())])).fields();
    assert_eq!(
        two.must("ip -br link | cut -d' ' -f1 | cut -d@ -f1 | sort | tr '\n' ' '").trim(),
        "br0 docker0 eth0 lo"
    );
    assert_eq!(two.must("iptables-save | grep -c fanli || :"), "0");
}

#[test]
fn a_host_that_becomes_a_bridge_is_reachable_wherever_it_is_killed() {
    let hosts = Hosts::start("mk", 1);
    let host = &hosts.hosts[0];
    let drive = host.drive();
    let plug = attach("bridge", "fmo-k1", "10.99.0.31", "10.99.0.0/24");
    let absent = with(&plug, &[("state", "absent".into())]);
    drive.run(&[web("fmo-k1")]);
    let reachable = |when: &str| {
        let out = hosts.on_switch("busybox ping -q -c1 -W2 10.99.0.1");
        assert!(out.status.success(), "{when}: {}", String::from_utf8_lossy(&out.stdout));
        let out = host.sh("busybox ping -q -c1 -W2 10.99.0.254");
        assert!(out.status.success(), "{when}: outward; {}", host.must("ip addr; ip route"));
    };
    let mut killed = 0;
    for (what, task) in [("plug", &plug), ("unplug", &absent)] {
        // From the other state, each time.
        let other = if what == "plug" { &absent } else { &plug };
        drive.one(other);
        let tasks = std::slice::from_ref(task);
        let most = requests(host, tasks);
        assert!(most > 10, "{what}: only {most} requests");
        for request in some_of(most, 4) {
            drive.one(other);
            killed += usize::from(killed_at_request(host, tasks, request));
            reachable(&format!("{what} killed at request {request}"));
            drive.one(task);
            drive.one(task).no_change();
            reachable(&format!("{what} after a kill at request {request}"));
        }
    }
    println!("killed at {killed} requests");
    assert!(killed > if soak() { 30 } else { 0 }, "only {killed}");
    drive.one(&plug).fields();
    removed(host, &[plug]);
}

#[test]
fn ipv6_beside_ipv4() {
    let hosts = Hosts::start("m6", 2);
    let (one, two) = (&hosts.hosts[0], &hosts.hosts[1]);
    let (drive, drive2) = (one.drive(), two.drive());
    let six = |mode: &str, name: &str, last: &str| {
        with(
            &attach(mode, name, &format!("10.99.0.{last}"), "10.99.0.0/24"),
            &[
                ("subnet6", net("fd72:1::/64")),
                ("address6", ip(&format!("fd72:1::{last}"))),
                ("gateway6", ip("fd72:1::1")),
            ],
        )
    };
    let (first, second) = (six("macvlan", "fmo-s1", "11"), six("macvlan", "fmo-s2", "12"));
    drive.run(&[web("fmo-s1"), first.clone()]);
    drive2.run(&[web("fmo-s2"), second.clone()]);
    drive.one(&first).no_change();
    inside(two, "fmo-s2", "busybox ping -6 -q -c2 -W2 fd72:1::11");
    inside(two, "fmo-s2", "timeout 5 busybox wget -qO- \"http://[fd72:1::11]/\" >/dev/null");
    let before = id(one, "fmo-s1");
    for (script, fields) in [
        ("ip -6 addr del fd72:1::11/64 dev eth0", vec!["address6"]),
        ("ip -6 addr add fd72:1::99/64 dev eth0 nodad", vec!["address6"]),
        ("ip -6 route del default", vec!["gateway6"]),
        ("ip -6 route replace default via fd72:1::2", vec!["gateway6"]),
    ] {
        inside(one, "fmo-s1", script);
        let named = mended(&drive, &first, script);
        assert!(fields.iter().all(|field| named.contains(&(*field).to_owned())), "{script}: {named:?}");
        inside(two, "fmo-s2", "busybox ping -6 -q -c1 -W2 fd72:1::11");
    }
    // An address that another machine has is seen before it counts as done.
    let taken = with(&first, &[("address6", ip("fd72:1::12"))]);
    let refused = drive.one(&taken);
    assert!(format!("{:?}", refused.failed()).contains("another machine has the address"), "{}", refused.failed());
    // Back, and without IPv6 at all.
    drive.one(&first).fields();
    let none = attach("macvlan", "fmo-s1", "10.99.0.11", "10.99.0.0/24");
    assert_eq!(drive.one(&none).fields(), ["address6", "gateway6", "record"]);
    drive.one(&none).no_change();
    assert_eq!(id(one, "fmo-s1"), before);
    for (name, value, says) in [
        ("address6", ip("fd73::5"), "no host's address in"),
        ("address6", ip("10.0.0.1"), "not an IPv6 address"),
        ("gateway6", ip("fd73::1"), "not another host in"),
    ] {
        let wrong = drive.one(&with(&first, &[(name, value)]));
        assert!(wrong.failed().to_string().contains(says), "{}", wrong.failed());
    }
    removed(one, &[none]);
}

fn on_dockers_network(name: &str, network: &str, port: u16, more: &[(&str, Value)]) -> Task {
    let listen = if network == "host" { port } else { 80 };
    let words = ["httpd", "-f", "-p", &listen.to_string(), "-h", "/www"].map(Value::from).to_vec();
    with(&web(name), &[&[("command", Value::List(words)), ("network", network.into())], more].concat())
}

#[test]
fn nat_and_the_hosts_network() {
    let hosts = Hosts::start("mn", 2);
    let (one, two) = (&hosts.hosts[0], &hosts.hosts[1]);
    let drive = one.drive();
    let on = |mode: &str, container: &str, port: i64| {
        let base = [("network", Value::from("lan")), ("mode", mode.into()), ("container", container.into())];
        with(&task("attach", base), &[("port", Value::Int(port))])
    };
    let listens = Value::List(vec![Value::Int(8081)]);
    let nat = |name: &str| {
        let container = on_dockers_network(name, "bridge", 8080, &[("ports", Value::List(vec!["8080:80".into()]))]);
        [container, with(&on("nat", name, 8080), &[("inside", Value::Int(80))])]
    };
    let own =
        |name: &str| [on_dockers_network(name, "host", 8081, &[("listens", listens.clone())]), on("host", name, 8081)];
    let host = own("fmo-n2");
    for (at, all) in [(one, [nat("fmo-n1"), host.clone()]), (two, [nat("fmo-n3"), own("fmo-n4")])] {
        forward_drop(at);
        for tasks in &all {
            let made = at.drive().run(tasks);
            made[1].no_change();
            assert_eq!(made[1].output["port"], tasks[1].args["port"]);
            at.drive().run(tasks).iter().for_each(crate::drive::Report::no_change);
        }
    }
    for (port, first, second) in [(8080, "fmo-n1", "fmo-n3"), (8081, "fmo-n2", "fmo-n4")] {
        let (there, back) = (format!("10.99.0.1:{port}"), format!("10.99.0.2:{port}"));
        transfer((one, first), &there, (two, second));
        transfer((two, second), &back, (one, first));
        // A port forwards no ping: each node's go to the other's host, so every link on the way carries them.
        full_size(one, first, "10.99.0.2", 1500);
        full_size(two, second, "10.99.0.1", 1500);
        assert!(fetched(one, &there) && fetched(two, &back), "{port}: a host does not reach its own node");
    }
    // The network is the container's own: it is not taken from it, and works on.
    for (tasks, at) in [(nat("fmo-n1"), "10.99.0.1:8080"), (host.clone(), "10.99.0.1:8081")] {
        let absent = drive.one(&with(&tasks[1], &[("state", "absent".into())]));
        let told = absent.failed().to_string();
        assert!(told.contains("the network comes and goes with the container"), "{told}");
        assert!(fetched(one, at), "{at}");
    }
    // A port that is taken is told before anything is stopped; the container's own does not count.
    let taken = drive.run(&[on_dockers_network("fmo-n5", "host", 8081, &[("listens", listens.clone())])]);
    println!("{}", taken[0].failed());
    assert!(taken[0].failed().to_string().contains("taken by httpd"), "{}", taken[0].failed());
    let before = id(one, "fmo-n2");
    let again = with(&host[0], &[("env", Value::Map(Map::from([("A".to_owned(), "b".into())])))]);
    drive.one(&again).fields();
    assert_ne!(id(one, "fmo-n2"), before);
    assert_eq!(two.must("timeout 5 busybox wget -qO- http://10.99.0.1:8081/"), "one");
    // Not on the network that was declared: the container must be made anew, and that is said.
    let wrong = drive.one(&on("host", "fmo-n1", 8080));
    println!("{}", wrong.failed());
    let wrong = drive.one(&with(&on("nat", "fmo-n1", 8082), &[("inside", Value::Int(80))]));
    assert!(wrong.failed().hint.as_ref().unwrap().contains("container"), "{}", wrong.failed());
    let address = drive.one(&with(&on("host", "fmo-n2", 8081), &[("address", ip("10.0.0.1"))]));
    assert!(address.failed().to_string().contains("Docker makes that network"), "{}", address.failed());
}

#[test]
fn dockers_own_macvlan() {
    let hosts = Hosts::start("md", 2);
    let on = |container: &str, address: &str| {
        let lan = [("name", "lan"), ("parent", "eth0"), ("subnet", "10.99.0.0/24"), ("gateway", "10.99.0.254")];
        let mut lan: Map = lan.iter().map(|(name, text)| ((*name).to_owned(), Value::from(*text))).collect();
        lan.insert("address".to_owned(), ip(address));
        lan.insert("subnet".to_owned(), net("10.99.0.0/24"));
        [
            with(&web(container), &[("network", "macvlan".into()), ("lan", Value::Map(lan))]),
            attach("docker", container, address, "10.99.0.0/24"),
        ]
    };
    let (one, two) = (&hosts.hosts[0], &hosts.hosts[1]);
    let (first, second) = (on("fmo-d1", "10.99.0.41"), on("fmo-d2", "10.99.0.42"));
    for (host, tasks) in [(one, &first), (two, &second)] {
        forward_drop(host);
        host.drive().run(tasks)[1].no_change();
        host.drive().run(tasks).iter().for_each(crate::drive::Report::no_change);
    }
    transfer((one, "fmo-d1"), "10.99.0.41", (two, "fmo-d2"));
    full_size(one, "fmo-d1", "10.99.0.42", 1500);
    // Another address needs another container; the attachment alone says so.
    let moved = on("fmo-d1", "10.99.0.43");
    assert!(one.drive().one(&moved[1]).failed().hint.as_ref().unwrap().contains("container"));
    assert_eq!(one.drive().run(&moved)[0].fields(), ["lan"]);
    inside(two, "fmo-d2", "timeout 5 busybox wget -qO- http://10.99.0.43/ >/dev/null");
    // A network that somebody else made is not used.
    two.must("docker rm -f fmo-d2 >/dev/null; docker network rm fanli-lan >/dev/null; docker network create fanli-lan");
    let foreign = two.drive().one(&second[0]);
    assert!(foreign.failed().to_string().contains("that fanli did not make"), "{}", foreign.failed());
    two.must("docker network rm fanli-lan");
    // One that is stopped is on it still, and starts again.
    one.drive().run(&on("fmo-d3", "10.99.0.44"))[1].no_change();
    one.must("docker stop -t 0 fmo-d3");
    one.drive().one(&with(&moved[0], &[("state", "absent".into())])).fields();
    one.must("docker start fmo-d3");
    one.drive().one(&with(&on("fmo-d3", "10.99.0.44")[0], &[("state", "absent".into())])).fields();
    assert_eq!(one.must("docker network ls --filter label=fanli.network -q"), "");
}
