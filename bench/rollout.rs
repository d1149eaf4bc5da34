//! One changed line of Apache's configuration goes out to six nodes behind HAProxy, in each of several ways, while clients with
//! a ledger ask through the balancer: which of their requests fail? Then a line that Apache's own check lets through and that it
//! cannot start with: how many nodes are down afterwards?
//!
//!     cargo bench --bench rollout              each way once
//!     cargo bench --bench rollout -- 3         three times, in turns; 0: only the line that breaks
//!     cargo bench --bench rollout -- 3 drain   those with `drain` in their names
//!
//! Two docker hosts, their nodes and the balancer are those of `tests/system/rollout/`. All ways have the same nodes, batches,
//! line and clients; between two of them the nodes are brought back to one and the same state, which is not measured. Ansible is
//! Debian's; `tests/run ansible` installs it where it is missing. Failed requests mean something, and times only their ratios.
#![allow(
    missing_docs,
    unreachable_pub,
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

#[path = "../tests/common/mod.rs"]
mod common;
#[path = "../tests/system/balance/ledger.rs"]
mod ledger;
#[path = "../tests/system/rollout/place.rs"]
mod place;
#[path = "../tests/system/supervised.rs"]
mod supervised;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use ledger::{Client, Load, Row};
use place::{NODES, Place, Said, Site, TEMPLATE};

/// The balancer forgives what it can: a request that reached no server goes to another one.
const SITE: Site = Site { retries: "retries 3\n  option redispatch", stop: "TERM" };

const CLIENTS: [(Client, usize); 5] = [
    (Client::KeepAlive, 4),
    (Client::Once, 4),
    (Client::SlowPost, 12),
    (Client::SlowPostKeepAlive, 4),
    (Client::Upload, 4),
];

/// `apache2 -t` says OK, and Apache does not start.
const BROKEN: &str = "CustomLog \"|/no/such/logger\" \"%h\"";

const SUPERVISORCTL: &str = "supervisorctl -c /super/supervisord.conf";

/// What changes: a word in a header, and in the second round a whole line.
struct Line {
    word: String,
    extra: &'static str,
}

struct Way {
    name: &'static str,
    /// Its files are written by hand, beside fanli's generations.
    by_hand: bool,
    /// The signal that supervisor stops Apache with; TERM is its default.
    stop: &'static str,
    run: fn(&Lab, &Line) -> Said,
}

const fn way(name: &'static str, by_hand: bool, stop: &'static str, run: fn(&Lab, &Line) -> Said) -> Way {
    Way { name, by_hand, stop, run }
}

const WAYS: [Way; 8] = [
    way("script: supervisorctl restart", true, "TERM", |lab, line| lab.script(line, RESTART)),
    way("script: the same, stopsignal=WINCH", true, "WINCH", |lab, line| lab.script(line, RESTART)),
    way("script: docker restart", true, "TERM", |lab, line| lab.script(line, "docker restart $node")),
    way("Ansible serial, handler restarts", true, "TERM", |lab, line| lab.ansible(line, "restart", false)),
    way("Ansible serial, handler is graceful", true, "TERM", |lab, line| lab.ansible(line, "graceful", false)),
    way("Ansible serial, haproxy drain, restarts", true, "TERM", |lab, line| lab.ansible(line, "restart", true)),
    way("fanli graceful", false, "TERM", |lab, line| lab.play("graceful.fp", line)),
    way("fanli with drain", false, "TERM", |lab, line| lab.play("web.fp", line)),
];

const RESTART: &str = "docker exec $node supervisorctl -c /super/supervisord.conf restart apache2";

/// What came of one way.
struct Outcome {
    said: Said,
    took: Duration,
    rows: Vec<Row>,
    down: usize,
}

struct Lab {
    place: Place,
}

impl Lab {
    fn new() -> Self {
        let lab = Self { place: Place::played_at(SITE) };
        let place = &lab.place;
        let text = std::fs::read_to_string(place.project().join("web.fp")).unwrap();
        let (before, rest) = text.split_once("  drain on").unwrap();
        let (_, after) = rest.split_once("\n  }\n").unwrap();
        place.write("graceful.fp", &format!("{before}{after}"));

        let template = by_hand(TEMPLATE);
        place.write("ansible/httpd.conf.j2", &template.replace("node.name", "inventory_hostname"));
        place.write("ansible/more.conf.j2", "{{ extra }}\n");
        place.write("ansible.yml", include_str!("rollout/ansible.yml"));
        let project = place.project().to_str().unwrap();
        let config = include_str!("rollout/ansible.cfg").replace("PROJECT", project);
        place.write("ansible.cfg", &config.replace("SSH_CONFIG", &place.config()));
        let mut inventory = String::from("[web]\n");
        for node in NODES {
            let (host, address) = (Place::host_of(node), place.address(node));
            let address = address.trim_end_matches(":80");
            let _ = writeln!(inventory, "{node} ansible_host={}{host} address={address}", place.lab.name());
        }
        place.write("hosts.ini", &format!("{inventory}\n[balancers]\n{}1\n", place.lab.name()));
        place.write("script.sh", include_str!("rollout/script.sh"));
        lab
    }

    /// The files of every node, as a script brings them.
    fn lay(&self, line: &Line) {
        for node in NODES {
            let text = by_hand(TEMPLATE).replace("{{ node.name }}", node).replace("{{ word }}", &line.word);
            self.place.write(&format!("files/{}/{node}/hand/httpd.conf", Place::host_of(node)), &text);
            let more = format!("{}\n", line.extra);
            self.place.write(&format!("files/{}/{node}/hand/more.conf", Place::host_of(node)), &more);
        }
    }

    fn run(&self, command: &mut Command) -> Said {
        let done = command.current_dir(self.place.project()).output().unwrap();
        let text = String::from_utf8_lossy(&[done.stdout, done.stderr].concat()).into_owned();
        Said { code: done.status.code().unwrap_or(-1), text }
    }

    fn script(&self, line: &Line, command: &str) -> Said {
        self.lay(line);
        self.run(Command::new("sh").args(["script.sh", &self.place.config(), self.place.lab.name(), "files", command]))
    }

    fn ansible(&self, line: &Line, how: &str, drained: bool) -> Said {
        let vars = serde_json::json!({ "word": line.word, "extra": line.extra, "how": how, "drained": drained });
        self.run(
            Command::new("ansible-playbook")
                .args(["ansible.yml", "-e", &vars.to_string()])
                .env("ANSIBLE_CONFIG", "ansible.cfg")
                .env("ANSIBLE_HOME", self.place.project().join(".ansible"))
                .env("LC_ALL", "C.UTF-8"),
        )
    }

    fn play(&self, file: &str, line: &Line) -> Said {
        let (word, extra) = (format!("word={}", line.word), format!("extra={}", line.extra));
        self.place.fanli(&["play", file, "--tags", "rollout", "--set", &word, "--set", &extra])
    }

    /// Brings the nodes to where every way begins: started anew with a good configuration, all in traffic.
    fn prepare(&self, way: &Way) {
        let line = Line { word: "before".to_owned(), extra: "" };
        self.place.supervisor(way.stop);
        let turn = if way.by_hand { "ln -sfn hand $c/current" } else { "ln -sfn $(cat $c/hand/back) $c/current" };
        let anew = format!(
            "c=/data/conf/$node; case $(readlink $c/current) in generations/*) readlink $c/current > $c/hand/back;; esac; {turn}; \
             docker exec $node {SUPERVISORCTL} update; {RESTART}"
        );
        self.script(&line, &anew).good();
        let ready = NODES.map(|node| format!("set server web/{node} state ready")).join(";");
        self.place.on(
            1,
            &format!(
                "python3 -c 'import socket; s = socket.socket(socket.AF_UNIX); s.connect(\"/run/haproxy.sock\"); \
                 s.sendall(b\"{ready}\\n\"); s.recv(1000)'"
            ),
        );
        self.place.all_up();
        if !way.by_hand {
            self.play("web.fp", &line).good();
        }
        self.have(&line.word);
    }

    fn measure(&self, way: &Way, line: &Line) -> Outcome {
        self.prepare(way);
        let load = Load::start(std::process::id(), &self.place.front(), &CLIENTS);
        std::thread::sleep(Duration::from_secs(1));
        let begun = Instant::now();
        let said = (way.run)(self, line);
        let took = begun.elapsed();
        // What is started by then is up, and what is lost stays lost.
        std::thread::sleep(Duration::from_secs(3));
        let rows = load.stop();
        let down = NODES.iter().filter(|node| !answers(&self.place.address(node))).count();
        Outcome { said, took, rows, down }
    }

    /// Every node works with this word.
    #[track_caller]
    fn have(&self, word: &str) {
        self.place.all_up_again();
        for node in NODES {
            assert_eq!(self.place.header(node, "X-Word"), word, "{node}");
        }
    }
}

/// Every node's Apache configuration, with a directory in the place of a generation.
fn by_hand(template: &str) -> String {
    template.replace("generations/{{ generation }}", "hand").replace("{{ generation }}", "hand")
}

fn answers(address: &str) -> bool {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&address.parse().unwrap(), Duration::from_secs(2))?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
        let mut said = String::new();
        stream.read_to_string(&mut said)?;
        Ok(said)
    };
    ask().is_ok_and(|said| said.starts_with("HTTP/1.1 200"))
}

/// How requests failed: by the status that the balancer gave, or cut off.
fn kinds(rows: &[Row]) -> String {
    let mut kinds = BTreeMap::<String, usize>::new();
    for row in rows.iter().filter(|row| row.failed()) {
        let kind = row.outcome.as_ref().map_or_else(|_| "cut off".to_owned(), u16::to_string);
        *kinds.entry(kind).or_default() += 1;
    }
    kinds.iter().map(|(kind, count)| format!("{kind}: {count}")).collect::<Vec<_>>().join(", ")
}

/// `failed of made` by these clients.
fn of(rows: &[Row], clients: &[Client]) -> String {
    let made = rows.iter().filter(|row| clients.contains(&row.client));
    format!("{} of {}", made.clone().filter(|row| row.failed()).count(), made.count())
}

fn versions() -> String {
    let first = |program: &str, argument: &str| {
        let done = Command::new(program).arg(argument).output().unwrap();
        String::from_utf8_lossy(&done.stdout).lines().next().unwrap_or_default().to_owned()
    };
    let programs = [
        ("apache2", "-v"),
        ("haproxy", "-v"),
        ("ansible", "--version"),
        ("dockerd", "--version"),
        (common::fanli(), "--version"),
    ];
    let told = programs.map(|(program, argument)| first(program, argument));
    format!("{}, supervisor {}", told.join(", "), first("supervisord", "--version"))
}

fn main() {
    if !Command::new("ansible-playbook").arg("--version").output().is_ok_and(|done| done.status.success()) {
        let run = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/run");
        assert!(Command::new(run).arg("ansible").status().unwrap().success(), "{run} ansible");
    }
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let rounds = words.iter().find_map(|word| word.parse().ok()).unwrap_or(1usize);
    let only = words.iter().find(|word| word.parse::<usize>().is_err());
    let ways: Vec<&Way> = WAYS.iter().filter(|way| only.is_none_or(|part| way.name.contains(part.as_str()))).collect();
    println!("{}", versions());
    let lab = Lab::new();

    let mut good: BTreeMap<&str, (Vec<Duration>, Vec<Row>)> = BTreeMap::new();
    for round in 0..rounds {
        for way in &ways {
            let line = Line { word: format!("after{round}"), extra: "" };
            let outcome = lab.measure(way, &line);
            eprintln!("{}: {}, {}", way.name, seconds(outcome.took), ledger::summary(&outcome.rows));
            outcome.said.good();
            lab.have(&line.word);
            let (times, rows) = good.entry(way.name).or_default();
            times.push(outcome.took);
            rows.extend(outcome.rows);
        }
    }
    let mut broken = Vec::new();
    for way in &ways {
        let outcome = lab.measure(way, &Line { word: "before".to_owned(), extra: BROKEN });
        eprintln!("{}, broken: {}, {} nodes down", way.name, seconds(outcome.took), outcome.down);
        broken.push((way.name, outcome));
    }
    if rounds > 0 {
        print_good(&ways, &good, rounds);
    }
    print_broken(&broken);
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

fn print_good(ways: &[&Way], all: &BTreeMap<&str, (Vec<Duration>, Vec<Row>)>, rounds: usize) {
    println!("\none line to {} nodes, rounds: {rounds}; failed of requests made:\n", NODES.len());
    println!(
        "| way | slow POSTs | uploads | GETs, kept connections | GETs | how | time |\n| --- | --- | --- | --- | --- | --- | --- |"
    );
    let median = |times: &[Duration]| {
        let mut times = times.to_vec();
        times.sort_unstable();
        times[times.len() / 2]
    };
    let least = all.values().map(|(times, _)| median(times)).min().unwrap();
    for way in ways {
        let (times, rows) = &all[way.name];
        println!(
            "| {} | {} | {} | {} | {} | {} | {:.1} |",
            way.name,
            of(rows, &[Client::SlowPost, Client::SlowPostKeepAlive]),
            of(rows, &[Client::Upload]),
            of(rows, &[Client::KeepAlive]),
            of(rows, &[Client::Once]),
            kinds(rows),
            median(times).as_secs_f64() / least.as_secs_f64()
        );
    }
    println!("\ntime 1 is {}", seconds(least));
}

fn print_broken(all: &[(&str, Outcome)]) {
    println!("\na line that `apache2 -t` lets through and Apache cannot start with:\n");
    println!("| way | nodes down | failed requests | told by the exit code |\n| --- | --- | --- | --- |");
    for (name, outcome) in all {
        let failed = outcome.rows.iter().filter(|row| row.failed()).count();
        let told = if outcome.said.code == 0 { "no" } else { "yes" };
        println!("| {name} | {} of {} | {failed} of {} | {told} |", outcome.down, NODES.len(), outcome.rows.len());
    }
}
