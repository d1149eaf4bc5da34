//! What one plug costs, beside the ways that people have without fanli, and what looking at a hundred nodes costs.
//!
//!     cargo bench --bench network              60 plugs, 100 nodes
//!     cargo bench --bench network -- 20 10
//!     cargo bench --bench network -- 0         the nodes alone
//!
//! A docker host of its own (namespaces, a real dockerd) is started for it and taken away again. The ways take turns in one
//! process on that host, so only their ratios mean something. `pipework`'s way is written out step by step from its
//! documentation: three `docker inspect`, `ip link add`, a move, a rename, an address, a route, an ARP announcement.
#![allow(
    missing_docs,
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    unreachable_pub
)]

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fanli::change;
use fanli::failure::Failure;
use fanli::resource::Resource as _;
use fanli::resource::kinds::Kind;
use fanli::system::{Actuator, BlobFuture, BlobSource, Probe};
use fanli::value::{Digest, Map, Value};

#[path = "../tests/common/mod.rs"]
mod common;
#[path = "../tests/system/docker_hosts.rs"]
mod docker_hosts;

/// What the hosts of the tests expect of their crate: there they run tasks, here nothing does.
mod drive {
    pub struct Drive;

    impl Drive {
        pub fn new(_: u32) -> Self {
            Self
        }
    }
}

const INSIDE: &str = "FANLI_BENCH_INSIDE";

struct NoBlobs;

impl BlobSource for NoBlobs {
    fn get(&self, _: Digest) -> BlobFuture<'_> {
        Box::pin(async { Err(Failure::new("no blobs here")) })
    }
}

fn main() {
    let numbers: Vec<usize> = std::env::args().filter_map(|word| word.parse().ok()).collect();
    let (plugs, nodes) = (numbers.first().copied().unwrap_or(60), numbers.get(1).copied().unwrap_or(100));
    if std::env::var_os(INSIDE).is_some() {
        return inside(plugs, nodes);
    }
    let hosts = docker_hosts::Hosts::start("rb", 1);
    let pid = hosts.hosts[0].pid.to_string();
    let status = Command::new("nsenter")
        .args(["-t", &pid, "-m", "-n", "-u", "--"])
        .arg(std::env::current_exe().unwrap())
        .args([plugs.to_string(), nodes.to_string()])
        .env(INSIDE, "1")
        .status();
    drop(hosts);
    assert!(status.unwrap().success());
}

fn sh(script: &str) -> String {
    let done = Command::new("sh").args(["-ec", script]).output().unwrap();
    assert!(done.status.success(), "{script}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap().trim().to_owned()
}

/// A request to the daemon without a client around it.
fn docker(method: &str, path: &str, body: &str) -> String {
    let mut socket = UnixStream::connect("/var/run/docker.sock").unwrap();
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: d\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    );
    socket.write_all(format!("{head}{body}").as_bytes()).unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 2"), "{method} {path}: {answer}");
    answer
}

#[derive(Default)]
struct Times(BTreeMap<&'static str, Vec<Duration>>);

impl Times {
    fn add(&mut self, name: &'static str, time: Duration) {
        self.0.entry(name).or_default().push(time);
    }

    fn median(&self, name: &str) -> f64 {
        self.at(name, 50)
    }

    fn at(&self, name: &str, percent: usize) -> f64 {
        let mut all = self.0[name].clone();
        all.sort_unstable();
        all[(all.len() * percent / 100).min(all.len() - 1)].as_secs_f64() * 1e3
    }
}

fn attach(container: &str, address: &str, probe: &str) -> Kind {
    let args = Map::from([
        ("probe".to_owned(), Value::from(probe)),
        ("network".to_owned(), Value::from("lan")),
        ("container".to_owned(), Value::from(container)),
        ("parent".to_owned(), Value::from("eth0")),
        ("subnet".to_owned(), Value::Net("10.99.0.0/24".parse().unwrap())),
        ("gateway".to_owned(), Value::Ip("10.99.0.254".parse().unwrap())),
        ("address".to_owned(), Value::Ip(address.parse().unwrap())),
    ]);
    Kind::build("attach", args).unwrap()
}

/// A probe like the one that a run has, and what it says.
fn prober() -> (Probe, Arc<Mutex<Vec<String>>>) {
    let said = Arc::new(Mutex::new(Vec::<String>::new()));
    let sink = Arc::clone(&said);
    let hear = move |text: &str, _: Option<(u64, u64)>| sink.lock().unwrap().push(text.to_owned());
    (Probe::new(Arc::new(NoBlobs), Arc::new(hear), "/var/lib/fanli".into()), said)
}

async fn converge(kind: &Kind, probe: &Probe) {
    let observed = kind.observe(probe).await.unwrap();
    let Some(change) = change::between(&kind.desired(), &observed.state) else { return };
    kind.apply(&change, &Actuator::new(probe)).await.unwrap();
}

fn inside(plugs: usize, nodes: usize) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    if nodes > 0 {
        look(&runtime, nodes);
    }
    if plugs > 0 {
        plug(&runtime, plugs);
    }
}

const RUN: &str = "docker run -d --stop-timeout 0";
const WHAT: &str = "fanli/example:1 sleep 100000 >/dev/null";

fn look(runtime: &tokio::runtime::Runtime, nodes: usize) {
    let last = nodes - 1;
    sh(&format!("seq 0 {last} | xargs -P 8 -I N sh -c '{RUN} --name nodeN --net none {WHAT}'"));
    let address = |at: usize| format!("10.99.0.{}", 20 + at);
    let kinds: Vec<Kind> = (0..nodes).map(|at| attach(&format!("node{at}"), &address(at), "off")).collect();
    let (probe, _) = prober();
    let started = Instant::now();
    runtime.block_on(async {
        for kind in &kinds {
            converge(kind, &probe).await;
        }
    });
    println!("{nodes} nodes are plugged, one after another, in {:.0} ms", started.elapsed().as_secs_f64() * 1e3);
    let mut times = Times::default();
    for _ in 0..20 {
        // As each run does: nothing is known from before.
        let (probe, _) = prober();
        let started = Instant::now();
        runtime.block_on(async {
            for kind in &kinds {
                let observed = kind.observe(&probe).await.unwrap();
                assert!(change::between(&kind.desired(), &observed.state).is_none());
            }
        });
        times.add("look", started.elapsed());
        let started = Instant::now();
        for at in 0..nodes {
            docker("GET", &format!("/containers/node{at}/json"), "");
        }
        times.add("inspect", started.elapsed());
    }
    println!("a look at {nodes} nodes that are right{:>17} {:>8} {:>8} {:>8}", "least", "median", "p90", "ratio");
    for (name, told) in [("look", "fanli: everything"), ("inspect", "one `inspect` of each, over the API")] {
        let ratio = times.median(name) / times.median("look");
        let (least, median, p90) = (times.at(name, 0), times.median(name), times.at(name, 90));
        println!("  {told:40} {least:8.2} {median:8.2} {p90:8.2} {ratio:8.1}");
    }
    sh("docker ps -aq | xargs docker rm -f >/dev/null");
}

fn plug(runtime: &tokio::runtime::Runtime, plugs: usize) {
    let (probe, said) = prober();
    sh(&format!("{RUN} --name plug --net none {WHAT}; {RUN} --name daemon {WHAT}"));
    sh("docker network create -d macvlan --subnet 10.98.0.0/24 -o parent=eth0 lan98 >/dev/null");
    let kind = attach("plug", "10.99.0.11", "quick");
    let converge = |kind: &Kind| runtime.block_on(converge(kind, &probe));
    converge(&kind);
    let mut times = Times::default();
    let pid = sh("docker inspect -f '{{.State.Pid}}' plug");
    let unplug = || sh(&format!("nsenter -t {pid} -n ip link del eth0"));
    for _ in 0..plugs {
        unplug();
        said.lock().unwrap().clear();
        let started = Instant::now();
        converge(&kind);
        times.add("fanli: look, ask, plug, shim", started.elapsed());
        let told = said
            .lock()
            .unwrap()
            .iter()
            .find_map(|line| line.strip_prefix("plugged eth0 in ")?.strip_suffix(" ms")?.parse::<f64>().ok());
        times.add("fanli: netlink of the plug", Duration::from_secs_f64(told.unwrap() / 1e3));

        unplug();
        let started = Instant::now();
        sh(&format!(
            "ln -sf /proc/{pid}/ns/net /run/netns-bench; ip link add fnb link eth0 address 02:00:00:00:00:11 type macvlan mode bridge; \
             ip link set fnb netns {pid}; nsenter -t {pid} -n ip link set fnb name eth0; \
             nsenter -t {pid} -n ip addr add 10.99.0.11/24 dev eth0; nsenter -t {pid} -n ip link set eth0 up; \
             nsenter -t {pid} -n ip route replace default via 10.99.0.254"
        ));
        times.add("`ip` in a shell, pid known", started.elapsed());

        unplug();
        let started = Instant::now();
        sh("for field in .ID .State.Pid .NetworkSettings.SandboxKey; do docker inspect -f \"{{$field}}\" plug >/dev/null; done; \
            pid=$(docker inspect -f '{{.State.Pid}}' plug); in=\"nsenter -t $pid -n\"; \
            ip link add link eth0 dev ph1 mtu 1500 type macvlan mode bridge; ip link set ph1 netns $pid; \
            $in ip link set ph1 name eth0; $in ip addr add 10.99.0.11/24 brd + dev eth0; $in ip link set eth0 up; \
            $in ip route replace default via 10.99.0.254; $in busybox arping -A -c 1 -I eth0 10.99.0.11 >/dev/null || :"
            .replace(".ID", ".Id").as_str());
        times.add("pipework's steps", started.elapsed());

        let started = Instant::now();
        docker("POST", "/networks/lan98/connect", "{\"Container\":\"daemon\"}");
        times.add("Docker's macvlan, connect over the API", started.elapsed());
        docker("POST", "/networks/lan98/disconnect", "{\"Container\":\"daemon\",\"Force\":true}");
    }
    sh("docker rm -f plug daemon >/dev/null; docker network rm lan98 >/dev/null; rm -f /run/netns-bench");
    let floor = times.median("fanli: netlink of the plug");
    println!("one plug, n = {plugs}{:>28} {:>8} {:>8} {:>8}", "least", "median", "p90", "ratio");
    for name in times.0.keys() {
        let (least, median, p90) = (times.at(name, 0), times.median(name), times.at(name, 90));
        println!("  {name:40} {least:8.2} {median:8.2} {p90:8.2} {:8.1}", median / floor);
    }
}
