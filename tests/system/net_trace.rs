//! `fanli net trace` names what is wrong, for every kind of damage; `fanli net list` shows what there is.

use std::process::Command;

use fanli::resource::trace::{Check, Verdict, Way};
use fanli::value::Value;

use crate::common::fanli;
use crate::docker_hosts::{Host, Hosts};
use crate::drive::{Task, task};
use crate::plugs::{attach, compare, inside, web};

fn look(plug: &Task, to: &str) -> Task {
    task("trace", [("attach", Value::Map(plug.args.clone())), ("to", Value::Ip(to.parse().unwrap()))])
}

fn trace(host: &Host, task: &Task) -> Way {
    let mut drive = host.drive();
    drive.apply = false;
    let report = drive.one(task);
    report.no_change();
    Way::from_output(&report.output).unwrap()
}

fn told_line(name: &str, wrong: &Check) -> String {
    format!("{name}\n  {}\n  help: {}\n", wrong.detail, wrong.way_out.as_deref().unwrap_or("-"))
}

#[test]
fn every_damage_is_named_first() {
    let hosts = Hosts::start("rt", 2);
    let (one, two) = (&hosts.hosts[0], &hosts.hosts[1]);
    let drive = one.drive();
    let gateway = [("gateway", Value::Ip("10.99.0.254".parse().unwrap()))];
    let plug = attach("fpr-t", "10.99.0.11", &gateway);
    drive.run(&[web("fpr-t"), plug.clone()]);
    let far = attach("fpr-u", "10.99.0.12", &gateway);
    two.drive().run(&[web("fpr-u"), far.clone()]);
    let task = look(&plug, "10.99.0.12");
    let whole = trace(one, &task);
    assert_eq!(whole.first_wrong(), None, "{whole:#?}");
    assert!(whole.checks.len() >= 14 && whole.path.len() == 4, "{whole:#?}");
    assert!(whole.checks.iter().chain(&whole.path).all(|check| check.verdict == Verdict::Ok), "{whole:#?}");

    let pid = "nsenter -t $(docker inspect -f '{{.State.Pid}}' fpr-t) -n";
    // What is broken, and how that is called.
    let mut told = String::new();
    let damages: Vec<(&str, String, &str)> = vec![
        ("the link is deleted", format!("{pid} ip link del eth0"), "has no interface eth0"),
        ("the link is down", format!("{pid} ip link set eth0 down"), "eth0 of container fpr-t is down"),
        (
            "another address",
            format!("{pid} sh -c 'ip addr flush dev eth0; ip addr add 10.99.0.55/24 dev eth0'"),
            "address of eth0",
        ),
        ("no address", format!("{pid} ip addr flush dev eth0"), "has no address"),
        ("another MTU", format!("{pid} ip link set eth0 mtu 1300"), "MTU of eth0 in container fpr-t is 1300"),
        ("another MAC", format!("{pid} ip link set eth0 address 02:00:00:00:00:55"), "MAC address of eth0"),
        ("no default route", format!("{pid} ip route del default"), "has no default route"),
        ("the card is down", "ip link set eth0 down".to_owned(), "network card eth0 is down"),
        ("the shim is deleted", "ip link del fn-eth0".to_owned(), "has no link fn-eth0"),
        ("the shim is down", "ip link set fn-eth0 down".to_owned(), "fn-eth0 (down)"),
        ("the shim's route is deleted", "ip route del 10.99.0.11/32".to_owned(), "has no route to 10.99.0.11"),
        ("the container is stopped", "docker stop -t 0 fpr-t".to_owned(), "fpr-t does not run"),
        ("the container is removed", "docker rm -f fpr-t".to_owned(), "no container fpr-t"),
    ];
    for (name, script, says) in &damages {
        one.must(script);
        let way = trace(one, &task);
        let wrong = way.first_wrong().unwrap_or_else(|| panic!("{name}: nothing is wrong: {way:#?}"));
        assert!(wrong.detail.contains(says), "{name}: {wrong:?}");
        told.push_str(&told_line(name, wrong));
        one.must("ip link set eth0 up; ip route replace default via 10.99.0.254");
        drive.run(&[web("fpr-t"), plug.clone()]);
        assert_eq!(trace(one, &task).first_wrong(), None, "after {name}");
    }

    // What is broken elsewhere.
    let on_wire: [(&str, &str, &str, &str); 3] = [
        (
            "the router is gone",
            "ip addr del 10.99.0.254/24 dev br0",
            "ip addr add 10.99.0.254/24 dev br0",
            "router 10.99.0.254 does not answer",
        ),
        (
            "the address is elsewhere too",
            "ip addr add 10.99.0.11/24 dev br0",
            "ip addr del 10.99.0.11/24 dev br0",
            "10.99.0.11 has two owners",
        ),
        ("the cable is cut", "ip link set p1 down", "ip link set p1 up", "network card eth0 has no carrier"),
    ];
    for (name, break_it, mend, says) in on_wire {
        assert!(hosts.on_switch(break_it).status.success());
        let way = trace(one, &task);
        let wrong = way.first_wrong().unwrap_or_else(|| panic!("{name}: nothing is wrong: {way:#?}"));
        assert!(wrong.detail.contains(says), "{name}: {wrong:?}");
        told.push_str(&told_line(name, wrong));
        assert!(hosts.on_switch(mend).status.success());
        assert_eq!(trace(one, &task).first_wrong(), None, "after {name}");
    }
    // A copy with the same MAC on another host: two replies to one question.
    two.must("docker run -d --name fpr-copy --net none fanli/example:1 sleep 1000");
    let mac = inside(one, "fpr-t", "ip -o link show eth0 | sed \"s,.*ether ,,; s, .*,,\"");
    let copy = two.must("docker inspect -f '{{.State.Pid}}' fpr-copy");
    two.must(&format!(
        "ip link add cp link eth0 address {mac} type macvlan mode bridge; ip link set cp netns {copy}; \
         nsenter -t {copy} -n sh -c 'ip addr add 10.99.0.11/24 dev cp; ip link set cp up'"
    ));
    let way = trace(one, &task);
    let wrong = way.first_wrong().unwrap();
    assert!(wrong.detail.contains("two owners with the same MAC"), "{way:#?}");
    told.push_str(&told_line("a copy on another host", wrong));
    two.must("docker rm -f fpr-copy");

    // The far end: unplugged, and behind a port of the switch that takes smaller packets only.
    inside(two, "fpr-u", "ip link del eth0");
    let far_damages = [
        ("the far node has lost its interface", "true", "nobody on the network answers for 10.99.0.12"),
        (
            "a port of the switch takes no full packets",
            "ip link set p2 mtu 1400",
            "packets of 1500 bytes to 10.99.0.12 are lost",
        ),
    ];
    for (name, script, says) in far_damages {
        assert!(hosts.on_switch(script).status.success());
        let way = trace(one, &task);
        let wrong = way.first_wrong().unwrap_or_else(|| panic!("{name}: nothing is wrong: {way:#?}"));
        assert!(wrong.detail.contains(says), "{name}: {wrong:?}");
        told.push_str(&told_line(name, wrong));
        two.drive().one(&far);
    }
    assert!(hosts.on_switch("ip link set p2 mtu 1500").status.success());
    let port = |port: i64| {
        let mut task = task.clone();
        task.args.insert("port".to_owned(), Value::Int(port));
        trace(one, &task)
    };
    assert_eq!(port(80).first_wrong(), None);
    assert!(port(81).first_wrong().unwrap().detail.contains("refuses port 81"));
    for host in &hosts.hosts {
        told = told.replace(&host.name, "HOST");
    }
    let macs = hosts.on_switch("ip -o link show br0 | sed 's,.*ether ,,; s, .*,,'");
    let mac_of_switch = String::from_utf8(macs.stdout).unwrap();
    compare("trace_damages", &told.replace(mac_of_switch.trim(), "MAC-OF-THE-OTHER"));
}

const PLAYBOOK: &str = r#"hosts docker {
  host "localhost"
}

network "lan" {
  mode    = macvlan
  parent  = "eth0"
  subnet  = 10.99.0.0/24
  gateway = 10.99.0.254
  pool    = 10.99.0.21 - 10.99.0.29
}

nodes web {
  count   = 2
  on      = hosts.docker
  network = "lan"
  name    = "fprnode{{ node.address | octets(4) }}"
}

play "nodes" on nodes.web {
  container node.name {
    image        = "fanli/example:1"
    command      = ["httpd", "-f", "-h", "/www"]
    stop_timeout = 0s
    attach "lan" { address = node.address }
  }
}
"#;

#[test]
fn the_commands_over_a_real_playbook() {
    let hosts = Hosts::start("rl", 1);
    let host = &hosts.hosts[0];
    let dir = tempfile::tempdir_in("/tmp").unwrap();
    let file = dir.path().join("net.fp");
    std::fs::write(&file, PLAYBOOK).unwrap();
    let run = |arguments: &[&str]| {
        let pid = host.pid.to_string();
        let mut command = Command::new("nsenter");
        command.args(["-t", &pid, "-m", "-n", "-u", "--", "sh", "-c", "cd \"$0\" && exec \"$@\""]);
        command.arg(dir.path()).arg(fanli()).args(arguments);
        let done = command.env("TERM", "dumb").output().unwrap();
        let text = String::from_utf8([done.stdout, done.stderr].concat()).unwrap();
        let nic = host.must("ip -o link show eth0 | sed 's,.*ether ,,; s, .*,,'");
        let router =
            String::from_utf8(hosts.on_switch("ip -o link show br0 | sed 's,.*ether ,,; s, .*,,'").stdout).unwrap();
        let mut text = text.replace(&nic, "MAC-OF-HOST").replace(router.trim(), "MAC-OF-ROUTER");
        for word in text.clone().split_whitespace().filter(|word| word.len() < 8 && word.parse::<u32>().is_ok()) {
            if text.contains(&format!("process {word}")) {
                text = text.replace(&format!("process {word}"), "process PID");
            }
        }
        format!("$ fanli {}\n{text}exit code {}\n", arguments.join(" "), done.status.code().unwrap())
    };
    let played = run(&["play", "net.fp"]);
    assert!(played.contains("exit code 0"), "{played}");
    compare("net_list", &run(&["net", "list", "net.fp"]));
    let json = run(&["net", "list", "net.fp", "--json"]);
    let seen: serde_json::Value = serde_json::from_str(json.lines().nth(1).unwrap()).unwrap();
    assert_eq!(seen["localhost"]["containers"][0]["links"][0]["addresses"][0], "10.99.0.21/24");
    assert_eq!(seen["localhost"]["records"].as_array().unwrap().len(), 2);
    compare("net_trace", &run(&["net", "trace", "fprnode021", "fprnode022", "net.fp", "--port", "80"]));
    inside(host, "fprnode022", "ip link del eth0");
    compare("net_trace_wrong", &run(&["net", "trace", "fprnode021", "fprnode022", "net.fp"]));
    compare("net_list_wrong", &run(&["net", "list", "net.fp"]));
    for arguments in [
        &["net", "trace", "fprnode023", "net.fp"][..],
        &["net", "trace", "fprnode021", "nothing.fp"],
        &["net", "trace", "localhost", "net.fp"],
    ] {
        assert!(run(arguments).ends_with("exit code 2\n"), "{}", run(arguments));
    }
    // Looking changed nothing: the next play mends the one link alone.
    let mended = run(&["play", "net.fp"]);
    assert!(mended.contains("exit code 0"), "{mended}");
}
