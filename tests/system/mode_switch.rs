//! A node whose network gets another mode: what the old one stood on goes, or the switch is refused with the way.

use fanli::value::Value;

use crate::common::fanli;
use crate::docker_hosts::{Host, Hosts};
use crate::drive::{Report, Task, task};
use crate::plugs::{attach, compare, inside, ip, web, with};

const MODES: [&str; 7] = ["macvlan", "bridge", "vxlan", "macvtap", "docker", "nat", "host"];

/// A container and its attachment in a mode.
pub fn node(mode: &'static str, name: &str, address: &str) -> [Task; 2] {
    let port = 8200;
    let own = |network: &str, more: &[(&str, Value)]| {
        let listen = if mode == "host" { port } else { 80 };
        let words = ["httpd", "-f", "-p", &listen.to_string(), "-h", "/www"].map(Value::from).to_vec();
        with(&web(name), &[&[("network", network.into()), ("command", Value::List(words))], more].concat())
    };
    let by_port = |more: &[(&str, Value)]| {
        let base = [("network", Value::from("lan")), ("mode", mode.into()), ("container", name.into())];
        with(&task("attach", base), &[&[("port", Value::Int(port))], more].concat())
    };
    match mode {
        "nat" => [
            own("bridge", &[("ports", Value::List(vec![format!("{port}:80").into()]))]),
            by_port(&[("inside", Value::Int(80))]),
        ],
        "host" => [own("host", &[("listens", Value::List(vec![Value::Int(port)]))]), by_port(&[])],
        "docker" => {
            let lan = [("name", "lan".into()), ("parent", "eth0".into()), ("address", ip(address))];
            let mut lan: fanli::value::Map = lan.map(|(name, value)| (name.to_owned(), value)).into();
            lan.insert("subnet".to_owned(), Value::Net("10.99.0.0/24".parse().unwrap()));
            lan.insert("gateway".to_owned(), ip("10.99.0.254"));
            [own("macvlan", &[("lan", Value::Map(lan))]), attach(name, address, &[("mode", mode.into())])]
        }
        _ => [web(name), attach(name, address, &[("mode", mode.into()), ("probe", "off".into())])],
    }
}

/// What is fanli's on the host: links, rules, records, Docker's networks, routes.
pub fn own(host: &Host) -> String {
    host.must(
        "ip -br link | cut -d' ' -f1 | cut -d@ -f1 | grep -E '^(f[nbxa]-|fn|br-eth)' | sort; ip -br link | grep -c ^fp || :; \
         iptables-save | grep -c fanli || :; ls /var/lib/fanli/attach 2>/dev/null | wc -l; \
         docker network ls --filter label=fanli.network --format '{{.Name}}'; ip route | grep -v -e docker0 -e default | sed 's, proto.*scope, scope,' | sort; \
         ip -4 -br addr show dev eth0 | tr -s ' '",
    )
}

pub fn answers(hosts: &Hosts, host: &Host, mode: &str, address: &str) {
    let at = if ["nat", "host"].contains(&mode) { "10.99.0.1:8200".to_owned() } else { address.to_owned() };
    if mode != "docker" {
        // Docker's driver gives the host no way to its own.
        assert_eq!(host.must(&format!("timeout 5 busybox wget -qO- http://{at}/")), "one", "{mode}: from the host");
    }
    if mode != "vxlan" {
        // Docker's driver announces no new MAC.
        let got = hosts.on_switch(&format!("ip neigh flush all; timeout 5 busybox wget -qO- http://{at}/"));
        assert_eq!(String::from_utf8_lossy(&got.stdout).trim(), "one", "{mode}: from the wire");
    }
}

#[test]
fn each_mode_follows_each_other_one_and_leaves_nothing() {
    let hosts = Hosts::start("f3m", 1);
    let host = &hosts.hosts[0];
    let drive = host.drive();
    // What each leaves on a host that had none before.
    let mut alone = std::collections::BTreeMap::new();
    for mode in MODES {
        let tasks = node(mode, "fn3-s", "10.99.0.31");
        drive.run(&tasks).iter().for_each(|report| assert!(report.failure.is_none(), "{mode}: {:?}", report.failure));
        answers(&hosts, host, mode, "10.99.0.31");
        alone.insert(mode, own(host));
        // Docker's own networks go with the container.
        if !["nat", "host", "docker"].contains(&mode) {
            drive.one(&with(&tasks[1], &[("state", "absent".into())])).fields();
        }
        drive.one(&with(&tasks[0], &[("state", "absent".into())])).fields();
        let left = own(host);
        assert!(
            !left.contains("10.99.0.31") && left.contains("\n0\n0\n") || left.starts_with("0\n0\n0"),
            "{mode}: {left}"
        );
    }
    // Every ordered pair once.
    let mut walk = Vec::new();
    for (at, one) in MODES.iter().enumerate() {
        for other in &MODES[at + 1..] {
            walk.extend([one, other]);
        }
    }
    walk.push(&MODES[0]);
    let mut before = "nothing";
    for mode in walk {
        let tasks = node(mode, "fn3-s", "10.99.0.31");
        let when = format!("{before} to {mode}");
        // Docker's own driver cannot have a card that is in a bridge, and its container comes before the attachment.
        if (before, *mode) == ("bridge", "docker") {
            let mut look = drive.clone();
            look.apply = false;
            for drive in [&look, &drive] {
                compare("switch_bridge_to_docker", &told(drive.one(&tasks[0]).failed()));
                answers(&hosts, host, before, "10.99.0.31");
            }
            let out = node("bridge", "fn3-s", "10.99.0.31");
            drive.one(&with(&out[1], &[("state", "absent".into())])).fields();
        }
        let reports = drive.run(&tasks);
        let failed = |report: &Report| report.failure.as_ref().map(ToString::to_string);
        assert!(
            reports.iter().all(|report| report.failure.is_none()),
            "{when}: {:?}",
            reports.iter().map(failed).collect::<Vec<_>>()
        );
        assert_eq!(own(host), alone[mode], "{when}");
        drive.run(&tasks).iter().for_each(Report::no_change);
        answers(&hosts, host, mode, "10.99.0.31");
        before = mode;
    }
    // Something else is declared by the time when it is to go.
    let absent = with(&node("vxlan", "fn3-s", "10.99.0.31")[1], &[("state", "absent".into())]);
    drive.one(&absent).fields();
    drive.one(&absent).no_change();
    assert!(own(host).starts_with("0\n0\n0"), "{}", own(host));
}

fn told(failure: &fanli::failure::Failure) -> String {
    let lines = std::iter::once(format!("failed: {}", failure.message)).chain(failure.causes.iter().cloned());
    let help = format!("help: {}", failure.hint.as_deref().unwrap_or("(none)"));
    lines.chain(std::iter::once(help)).collect::<Vec<_>>().join("\n  ")
}

/// What `fanli play --check` says of the first node in another mode, and its exit code.
fn checked(host: &Host, mode: &str) -> (Option<i32>, String) {
    let folder = tempfile::tempdir_in("/tmp").unwrap();
    let file = folder.path().join("play.fp");
    let text = format!(
        "hosts docker {{ host \"one\" {{ connection = local }} }}\n\
         network \"lan\" {{ mode = {mode}  parent = \"eth0\"  subnet = 10.99.0.0/24 }}\n\
         play \"all\" on hosts.docker {{ attach \"lan\" {{ container = \"fn3-o1\"  address = 10.99.0.31 }} }}\n"
    );
    std::fs::write(&file, text).unwrap();
    let done = host.sh(&format!("TERM=dumb {} play {} --check 2>&1", fanli(), file.display()));
    (done.status.code(), String::from_utf8(done.stdout).unwrap())
}

#[test]
fn with_others_on_the_card_it_is_refused_or_goes_one_by_one() {
    let hosts = Hosts::start("f3o", 1);
    let host = &hosts.hosts[0];
    let drive = host.drive();
    let mut look = drive.clone();
    look.apply = false;
    // Who only looks is told the same.
    let refused = |task: &Task| {
        let foretold = look.one(task);
        let refused = drive.one(task);
        assert_eq!(foretold.failed(), refused.failed());
        refused
    };
    let all = |mode: &'static str| [node(mode, "fn3-o1", "10.99.0.31"), node(mode, "fn3-o2", "10.99.0.32")];
    for (from, to) in [("macvlan", "bridge"), ("bridge", "macvlan"), ("vxlan", "bridge"), ("bridge", "vxlan")] {
        drive.run(&all(from).concat());
        let before = own(host);
        compare(&format!("switch_{from}_to_{to}"), &told(refused(&all(to)[0][1]).failed()));
        let (code, said) = checked(host, to);
        assert!(code == Some(4) && said.contains(&refused(&all(to)[0][1]).failed().message), "{code:?}: {said}");
        // Nothing was touched for it.
        assert_eq!(own(host), before, "{from} to {to}");
        drive.run(&all(from).concat()).iter().for_each(Report::no_change);
        // The way that it says.
        for node in all(from) {
            drive.one(&with(&node[1], &[("state", "absent".into())])).fields();
        }
        for report in drive.run(&all(to).concat()) {
            assert!(report.failure.is_none(), "{from} to {to}: {:?}", report.failure);
        }
        drive.run(&all(to).concat()).iter().for_each(Report::no_change);
        answers(&hosts, host, to, "10.99.0.31");
        answers(&hosts, host, to, "10.99.0.32");
        for node in all(to) {
            drive.one(&with(&node[1], &[("state", "absent".into())])).fields();
        }
        assert!(own(host).starts_with("0\n0\n0"), "{}", own(host));
    }
    // A container that does not run stands in nobody's way.
    drive.run(&all("macvlan").concat());
    host.must("docker stop -t 0 fn3-o2");
    assert!(look.one(&all("bridge")[0][1]).failure.is_none());
    assert!(drive.one(&all("bridge")[0][1]).failure.is_none());
    host.must("docker start fn3-o2");
    drive.run(&all("bridge").concat());
    drive.run(&all("bridge").concat()).iter().for_each(Report::no_change);
    // The last one on a bridge cannot have the card: the host's address comes back to it.
    let [first, second] = all("bridge").map(|node| with(&node[1], &[("state", "absent".into())]));
    drive.one(&second).fields();
    let before = own(host);
    let whole = refused(&with(&all("macvlan")[0][1], &[("variant", "passthru".into())]));
    assert!(whole.failed().to_string().contains("cut it off"), "{}", whole.failed());
    assert_eq!(own(host), before);
    drive.one(&first).fields();
    assert!(own(host).starts_with("0\n0\n0"), "{}", own(host));
    // These do not exclude each other: one after the other, and the rest stays reachable meanwhile.
    for (from, to) in [("macvlan", "vxlan"), ("vxlan", "macvlan")] {
        drive.run(&all(from).concat());
        assert!(look.one(&all(to)[0][1]).failure.is_none());
        assert!(drive.one(&all(to)[0][1]).failure.is_none());
        answers(&hosts, host, to, "10.99.0.31");
        answers(&hosts, host, from, "10.99.0.32");
        drive.run(&all(to).concat());
        drive.run(&all(to).concat()).iter().for_each(Report::no_change);
        let links = own(host);
        let (gone, there) = if to == "vxlan" { ("fn-eth0", "fb-lan") } else { ("fb-lan", "fn-eth0") };
        assert!(!links.contains(gone) && links.contains(there), "{from} to {to}: {links}");
    }
    // What cannot be is told while the old one still works.
    let before = own(host);
    for (field, value, says) in [
        ("parent", "eth9".into(), "no network card eth9"),
        ("parent", "fn-eth0".into(), "is a macvlan itself"),
        ("variant", Value::from("passthru"), "cut it off"),
    ] {
        let refused = refused(&with(&all("macvlan")[0][1], &[(field, value)]));
        assert!(refused.failed().to_string().contains(says), "{}", refused.failed());
        assert_eq!(own(host), before, "{says}");
        answers(&hosts, host, "macvlan", "10.99.0.31");
    }
    // Another card: the old one's shim goes with its last container, and that one is reached until then.
    host.must("ip link add pp0 type veth peer name pp1; ip link set pp1 up; ip link set pp0 up; ip addr add 10.98.7.1/24 dev pp0");
    let moved = all("macvlan").map(|node| with(&node[1], &[("parent", "pp0".into())]));
    assert!(drive.one(&moved[0]).failure.is_none());
    answers(&hosts, host, "macvlan", "10.99.0.32");
    assert!(own(host).contains("fn-eth0\nfn-pp0"), "{}", own(host));
    assert!(drive.one(&moved[1]).failure.is_none());
    drive.run(&moved).iter().for_each(Report::no_change);
    assert!(own(host).starts_with("fn-pp0\n0"), "{}", own(host));
    assert_eq!(inside(host, "fn3-o1", "ip -br link | wc -l"), "2");
}
