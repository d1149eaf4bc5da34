//! Invariants of the network that no other test looks at: what a second run writes, who enters namespaces, what is not fanli's,
//! a process number that was used again. docs/network.md lists all twelve with their tests.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use fanli::value::{Map, Value};

use crate::docker_hosts::{Host, Hosts};
use crate::drive::{Drive, Task, strayed, task};
use crate::plugs::{attach, inside, ip, pid, web, with};
use crate::watched::{Watched, Watcher};

/// One node of each mode: the tasks that make it.
fn modes() -> Vec<(&'static str, Vec<Task>)> {
    let peers = Map::from([("10.99.0.2".to_owned(), Value::List(vec![ip("10.99.0.99")]))]);
    let of = |mode: &'static str, container: &str, address: &str| {
        vec![web(container), attach(container, address, &[("mode", mode.into()), ("network", mode.into())])]
    };
    let mut vxlan = of("vxlan", "fn3-x", "10.99.0.43");
    vxlan[1] = with(&vxlan[1], &[("peers", Value::Map(peers))]);
    let docker = |mode: &'static str, container: &str, port: i64, more: &[(&str, Value)], inside: Option<i64>| {
        let listen = if mode == "host" { port } else { 80 };
        let words = ["httpd", "-f", "-p", &listen.to_string(), "-h", "/www"].map(Value::from).to_vec();
        let base = [("network", Value::from(mode)), ("mode", mode.into()), ("container", container.into())];
        let plug = with(&task("attach", base), &[("port", Value::Int(port))]);
        let plug = inside.map_or(plug.clone(), |inside| with(&plug, &[("inside", Value::Int(inside))]));
        vec![with(&web(container), &[&[("command", Value::List(words))], more].concat()), plug]
    };
    let ports = Value::List(vec!["8180:80".into()]);
    vec![
        ("macvlan", of("macvlan", "fn3-m", "10.99.0.41")),
        ("macvtap", of("macvtap", "fn3-t", "10.99.0.42")),
        ("vxlan", vxlan),
        ("nat", docker("nat", "fn3-n", 8180, &[("network", "bridge".into()), ("ports", ports)], Some(80))),
        ("host", docker("host", "fn3-h", 8181, &[("network", "host".into())], None)),
        ("docker", crate::mode_switch::node("docker", "fn3-d", "10.99.0.46").to_vec()),
        // A card is either below macvlans or in a bridge: it comes last, and alone.
        ("bridge", of("bridge", "fn3-b", "10.99.0.44")),
    ]
}

/// Ends with this value.
struct Listener(Child);

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Writes down what the kernel tells of links, addresses and routes of a network.
fn listen(host: &Host, net_of: u32, to: &Path) -> Listener {
    let out = std::fs::File::create(to).unwrap();
    let (host, net) = (host.pid.to_string(), format!("--net=/proc/{net_of}/ns/net"));
    let command = ["nsenter", "-t", &host, "-m", "nsenter", &net, "ip", "monitor", "link", "address", "route"];
    let child = Command::new(command[0]).args(&command[1..]).stdout(out).stdin(Stdio::null()).spawn().unwrap();
    // It is there once it hears something.
    let begun = Instant::now();
    while std::fs::metadata(to).unwrap().len() == 0 {
        assert!(begun.elapsed() < Duration::from_secs(60), "nothing is heard");
        let poke = format!("nsenter {net} sh -c 'ip addr add 127.0.0.9/32 dev lo; ip addr del 127.0.0.9/32 dev lo'");
        Command::new("sh").args(["-c", &poke]).status().unwrap();
        std::thread::sleep(Duration::from_millis(30));
    }
    std::thread::sleep(Duration::from_millis(200));
    std::fs::write(to, "").unwrap();
    Listener(child)
}

fn traced(host: &Host, calls: &str, log: &Path) -> Drive {
    let mut drive = host.drive();
    let words = ["strace", "-f", "-qq", "--decode-pids=comm", "-s", "400", "-o", log.to_str().unwrap(), "-e", calls];
    drive.wrap = words.map(String::from).to_vec();
    drive
}

/// Whether a request to the kernel only asks. strace has no words for those over sockets of another network: of each four
/// numbers, NEW, DEL, GET and SET, the third is the question (linux/rtnetlink.h). A batch of iptables' without an order in it
/// is none.
fn asks(line: &str) -> bool {
    line.split("nlmsg_type=").skip(1).all(|rest| {
        let word = rest.split([',', ' ']).next().unwrap();
        match word.strip_prefix("0x") {
            Some(number) => u16::from_str_radix(number, 16).unwrap() % 4 == 2,
            None => word.contains("_GET") || word.starts_with("NFNL_MSG_BATCH_"),
        }
    })
}

/// Invariant 3.
#[test]
fn a_second_run_writes_nothing_in_any_mode() {
    let hosts = Hosts::start("f3s", 1);
    let host = &hosts.hosts[0];
    let logs = tempfile::tempdir_in("/tmp").unwrap();
    let mut gone: Vec<Task> = Vec::new();
    for (mode, tasks) in modes() {
        if mode == "bridge" {
            gone.iter().for_each(|task| drop(host.drive().one(task)));
        }
        let drive = host.drive();
        drive.run(&tasks);
        if mode == "docker" {
            gone.push(with(&tasks[0], &[("state", "absent".into())]));
        } else if !["nat", "host"].contains(&mode) {
            gone.push(with(&tasks[1], &[("state", "absent".into())]));
        }
        // What was made a moment ago settles, ports of bridges within half a minute: the kernel tells of that, whoever runs. No order
        // is given in any of these runs.
        let mut said = String::new();
        for _ in 0..6 {
            std::thread::sleep(Duration::from_secs(2));
            said = quiet_run(host, (mode, &tasks), logs.path());
            if said.is_empty() {
                break;
            }
            std::thread::sleep(Duration::from_secs(8));
        }
        assert_eq!(said, "", "{mode}: the kernel tells of changes in each run");
    }
}

/// A run that gives no order, to the kernel or to Docker, and writes no record; what the kernel told of changes meanwhile.
fn quiet_run(host: &Host, (mode, tasks): (&str, &[Task]), logs: &Path) -> String {
    let log = logs.join("log");
    let records = || host.must("ls -l --time-style=full-iso /var/lib/fanli/attach 2>/dev/null || :");
    let before = records();
    let (heard, heard_inside) = (logs.join("heard"), logs.join("heard-inside"));
    let _ = std::fs::remove_file(&heard_inside);
    let container = pid(host, tasks[0].args["name"].as_str().unwrap()).parse().unwrap();
    let listeners = [
        // On the host's network they are the same.
        (mode != "host").then(|| listen(host, container, &heard_inside)),
        Some(listen(host, host.pid, &heard)),
    ];
    for report in traced(host, "trace=%network,write,writev", &log).run(tasks) {
        report.no_change();
    }
    std::thread::sleep(Duration::from_millis(200));
    drop(listeners);
    let text = std::fs::read_to_string(&log).unwrap();
    // The kernel's answers are of the same names.
    let sends = text.lines().filter(|line| line.contains("sendto(") || line.contains("sendmsg("));
    let requests: Vec<&str> = sends.filter(|line| line.contains("nlmsg_type=")).collect();
    let orders: Vec<&&str> = requests.iter().filter(|line| !asks(line)).collect();
    assert!(orders.is_empty(), "{mode}: {orders:#?}");
    let asked = requests.len();
    assert!(asked > 2 || ["nat", "host", "docker"].contains(&mode), "{mode}: strace saw only {asked} requests");
    let docker = |verb: &str| {
        text.lines().filter(|line| line.contains(&format!("\"{verb} /")) && line.contains("HTTP/1")).count()
    };
    assert!(docker("GET") > 0, "{mode}: strace saw no request to Docker");
    for verb in ["POST", "PUT", "DELETE"] {
        assert_eq!(docker(verb), 0, "{mode}: {verb}");
    }
    assert_eq!(records(), before, "{mode}: records were written");
    println!("{mode}: {asked} questions, no order");
    let places = [heard, heard_inside];
    let said = places.iter().filter_map(|place| std::fs::read_to_string(place).ok());
    said.map(|said| said.trim_matches(['\0', '\n']).to_owned()).collect()
}

/// Threads of a strace log that entered a namespace, with their names and all that they did after it.
fn entries(text: &str) -> BTreeMap<&str, Vec<&str>> {
    let mut found: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for line in text.lines() {
        let thread = line.split_once('>').map_or(line, |(thread, _)| thread);
        if line.contains(" setns(") || line.contains("setns resumed") || found.contains_key(thread) {
            found.entry(thread).or_default().push(line);
        }
    }
    found
}

/// Each thread that entered was made for it, and ended in there.
fn made_for_it(what: &str, text: &str) -> usize {
    let all = entries(text);
    for (thread, lines) in &all {
        assert!(thread.contains("<in a namespace"), "{what}: {thread} entered a namespace: {lines:#?}");
        let entered = lines.iter().filter(|line| line.contains("CLONE_NEWNET")).count();
        assert_eq!(entered, 1, "{what}: {thread} went on from there: {lines:#?}");
        let last = lines.last().unwrap();
        assert!(last.contains("exited with 0") || last.contains("+++"), "{what}: {thread} lived on: {last}");
    }
    all.len()
}

/// Invariant 12, the first half; and the same of the watcher, for as long as it runs.
#[test]
fn no_worker_ever_leaves_the_hosts_network() {
    let watched = Watched::start("f3w");
    let host = watched.host();
    let log = watched.hosts.shared().join("setns.log");
    let tasks: Vec<Task> = modes().into_iter().filter(|(mode, _)| *mode != "bridge").flat_map(|(_, all)| all).collect();
    let mut drive = traced(host, "trace=setns,unshare,exit", &log);
    // Without -qq, so that ends are told.
    drive.wrap.retain(|word| word != "-qq");
    drive.run(&tasks);
    let text = std::fs::read_to_string(&log).unwrap();
    let made = made_for_it("a run", &text);
    assert!(made > 10, "{made} entries");
    drive.run(&tasks);
    let again = made_for_it("a second run", &std::fs::read_to_string(&log).unwrap());

    let shown = log.to_str().unwrap();
    let strace = ["strace", "-f", "--decode-pids=comm", "-o", shown, "-e", "trace=setns,unshare,exit"];
    let watcher = Watcher::start_behind(&strace, host, &["--every", "1s"]);
    watcher.says("the Docker daemon answers");
    host.must("docker restart -t 0 fn3-m fn3-x");
    watched.reached("10.99.0.41", "after a restart");
    std::thread::sleep(Duration::from_secs(3));
    let status = host.must("sed 's,process ,,; s/,.*//' /var/lib/fanli/watch/lock");
    let own = std::fs::read_link(format!("/proc/{}/ns/net", host.pid)).unwrap();
    assert_eq!(strayed(&status, &own), None, "a thread of the watcher is in another network");
    // The signal is lost where strace goes before it has passed it on.
    host.must(&format!(
        "kill {status}; for _ in $(seq 200); do kill -0 {status} || exit 0; sleep 0.05; done 2> /dev/null; exit 1"
    ));
    drop(watcher);
    let kept = made_for_it("the watcher", &std::fs::read_to_string(&log).unwrap());
    assert!(kept > 4, "{kept} entries");
    println!("{made} entries in a run, {again} in the next, {kept} of the watcher");
}

/// What there is of a network, without counters, and without what is fanli's.
fn told(host: &Host) -> String {
    host.must(
        "ip -d -o link | grep -v -e 'fanli:1:' -e ' fn-' | sed 's,_timer *[0-9.]*,,g; s,promiscuity [0-9]* *allmulti [0-9]*,,; s, state [A-Z]*,,' | cut -d: -f2- | sort; \
         ip -o addr | grep -v -e ' fn-' -e fe80 | cut -d: -f2- | sort; \
         ip route show table all | grep -v -e fn- -e fb- -e fp -e fx- -e fe80 -e 10.99.0.4 | sort; \
         ip rule; iptables-save | grep -v -e '^#' -e '^:' -e fanli | sort; docker network ls --no-trunc -q | sort; bridge fdb show | grep 0e:77 | sort",
    )
}

/// Invariant 12, the second half: links, routes, networks and rules of others are as they were, in each mode, after the plug, after
/// something was mended, and after all of it is gone again.
#[test]
fn what_is_not_fanlis_is_never_touched() {
    let hosts = Hosts::start("f3f", 1);
    let host = &hosts.hosts[0];
    host.must(
        "ip link add foreign0 link eth0 type macvlan mode bridge; ip link set foreign0 up; ip addr add 10.85.9.1/24 dev foreign0; \
         ip link add fnlike type bridge; ip link set fnlike up; ip link set fnlike alias 'fanli: not'; \
         ip link add br-user type bridge; ip link add uv0 type veth peer name uv1; ip link set uv0 master br-user; \
         ip link set br-user up; ip link set uv0 up; ip link set uv1 up; \
         ip route add 10.85.10.0/24 via 10.99.0.253; ip route add 10.85.11.5/32 dev foreign0 src 10.85.9.1; \
         ip route add 10.85.12.0/24 dev fnlike table 85; ip rule add from 10.85.9.0/24 table 85; \
         iptables -I FORWARD -s 10.85.9.0/24 -j ACCEPT; docker network create --subnet 10.85.20.0/24 usernet >/dev/null; \
         docker run -d --name fn3-user --network usernet fanli/example:1 httpd -f -h /www >/dev/null",
    );
    // Docker makes its own rules with its first use.
    host.must("docker run -d --name fn3-pre -p 8199:80 fanli/example:1 sleep 1 >/dev/null; docker rm -f fn3-pre >/dev/null; sleep 1");
    let before = told(host);
    for (mode, tasks) in modes() {
        // Docker makes links and rules of its own for these.
        if ["nat", "host", "docker"].contains(&mode) {
            continue;
        }
        if mode == "bridge" {
            // A card with a macvlan cannot be in a bridge, and a foreign one is not taken away for it.
            let refused = host.drive().run(&tasks).remove(1);
            let why = refused.failed().to_string();
            assert!(why.contains("foreign0"), "{why}");
            assert_eq!(told(host), before, "after `bridge` was refused");
            continue;
        }
        let drive = host.drive();
        let name = tasks[0].args["name"].as_str().unwrap();
        drive.one(&tasks[0]);
        let foreign = "ip link add mine type bridge; ip link set mine up; ip link set mine alias other; ip addr add 10.85.30.1/24 dev mine; \
                       ip route add 10.85.31.0/24 dev mine; ip route add 10.85.32.0/24 via 10.85.30.9";
        inside(host, name, foreign);
        let own = "ip -o link show mine; ip -o addr show mine | grep -v fe80; ip route | grep -e 10.85.3 | sort";
        let inner = inside(host, name, own);
        let same = |when: &str| {
            assert!(told(host) == before, "{mode}, {when}:\n{}\nnot\n{before}", told(host));
            assert_eq!(inside(host, name, own), inner, "{mode}, {when}, in the container");
        };
        drive.one(&tasks[1]).fields();
        same("after the plug");
        inside(
            host,
            name,
            "ip addr del $(ip -4 -o addr show eth0 | tr -s \" \" | cut -d\" \" -f4) dev eth0; ip link set eth0 mtu 1300",
        );
        assert!(!drive.one(&tasks[1]).fields().is_empty());
        same("after it was mended");
        drive.one(&with(&tasks[1], &[("state", "absent".into())])).fields();
        same("after it went");
    }
    host.must("docker rm -f fn3-user >/dev/null; docker network rm usernet >/dev/null");
}

/// Invariant 5, its second half: the number of a process that ended belongs to another one when its namespace is opened.
#[test]
fn a_process_number_that_was_used_again_is_refused() {
    let hosts = Hosts::start("f3p", 1);
    let host = &hosts.hosts[0];
    let log = hosts.shared().join("strace.log");
    let plug = attach("fn3-r", "10.99.0.45", &[("probe", "off".into())]);
    let mut refused = None;
    for turn in 1..=6 {
        host.must("docker rm -f fn3-r >/dev/null 2>&1 || :");
        host.drive().one(&web("fn3-r"));
        let number: u32 = pid(host, "fn3-r").parse().unwrap();
        let place = format!("/proc/{number}/ns/net");
        let mut drive = traced(host, "trace=openat", &log);
        // Between the daemon's answer and the moment in which the namespace is opened.
        drive.wrap.extend(["-P", &place, "-e", "inject=openat:delay_enter=4000000:when=1"].map(String::from));
        let (report, used) = std::thread::scope(|scope| {
            let run = scope.spawn(|| drive.one(&plug));
            std::thread::sleep(Duration::from_millis(1500));
            host.must("docker kill fn3-r >/dev/null");
            let next = again(number);
            let report = run.join().unwrap();
            (report, next)
        });
        let Some(stranger) = used else {
            println!("turn {turn}: the number was not used again");
            continue;
        };
        let seen =
            Command::new("nsenter").args(["-t", &number.to_string(), "-n", "ip", "-br", "link"]).output().unwrap();
        drop(stranger);
        let seen = String::from_utf8(seen.stdout).unwrap();
        assert_eq!(seen.lines().count(), 1, "the stranger has a link: {seen}");
        let failure = report.failed().to_string();
        println!("turn {turn}: {failure}");
        if std::fs::read_to_string(&log).unwrap().contains("(DELAYED)") {
            refused = Some(failure);
            break;
        }
    }
    let refused = refused.expect("no number was used again");
    assert!(refused.contains("fn3-r"), "{refused}");
    let links = host.must("ip -br link | cut -d' ' -f1 | cut -d@ -f1 | sort | tr '\\n' ' '");
    assert_eq!(links.trim(), "docker0 eth0 lo");
}

/// A process of that number in a network of its own, when the kernel gives it.
fn again(number: u32) -> Option<Listener> {
    for _ in 0..40 {
        if !Path::new(&format!("/proc/{number}")).exists() {
            let _ = std::fs::write("/proc/sys/kernel/ns_last_pid", (number - 1).to_string());
            let child = Command::new("unshare").args(["-n", "sleep", "60"]).spawn().unwrap();
            let next = Listener(child);
            if next.0.id() == number {
                let own = std::fs::read_link("/proc/self/ns/net").unwrap();
                let place = || std::fs::read_link(format!("/proc/{number}/ns/net"));
                while place().is_ok_and(|place| place == own) {
                    std::thread::sleep(Duration::from_millis(10));
                }
                return Some(next);
            }
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    None
}
