//! The last free address over etcd: two controllers want it, and a reservation ends while a run is on its way to the plug.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::process::Output;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Condvar, Mutex};
use std::time::Duration;

use fanli::book::etcd::EtcdStore;
use fanli::book::{Asked, Book, Bound, Candidates, Refused};

use crate::book::{Cluster, ask};
use crate::common::fanli;
use crate::docker_hosts::{Host, Hosts};

fn last_one(address: &str) -> Candidates {
    Candidates::addresses(address.parse().unwrap(), address.parse().unwrap())
}

#[test]
fn sixteen_want_the_last_address_of_a_cluster() {
    let cluster = Cluster::start(3, 23410);
    let endpoints = cluster.endpoints();
    for round in 0..12 {
        let prefix = format!("/fanli/last{round}");
        // Some know the book already, some make it; a member is silent in some rounds.
        if round % 2 == 0 {
            let book = Book::new(Box::new(EtcdStore::new(&endpoints, &prefix).unwrap()), "first");
            book.claim("lan", &[Asked::slot("other", 1)], &last_one("10.85.1.2")).unwrap();
        }
        let frozen = (round % 4 == 3).then_some(round % 3);
        if let Some(member) = frozen {
            cluster.signal(member, "-STOP");
        }
        let gate = Barrier::new(16);
        let done: Vec<Result<(), Refused>> = std::thread::scope(|scope| {
            let one = |number: usize| {
                let (gate, endpoints, prefix) = (&gate, &endpoints, &prefix);
                scope.spawn(move || {
                    let run = format!("w{number}");
                    let book = Book::new(Box::new(EtcdStore::new(endpoints, prefix).unwrap()), &run);
                    gate.wait();
                    let entries = book.claim("lan", &[Asked::slot(&run, 1)], &last_one("10.85.1.1"))?;
                    let with = entries.into_iter().map(|entry| (entry, Bound::default())).collect::<Vec<_>>();
                    book.bind(&with).map(drop)
                })
            };
            let all: Vec<_> = (0..16).map(one).collect();
            all.into_iter().map(|one| one.join().unwrap()).collect()
        });
        if let Some(member) = frozen {
            cluster.signal(member, "-CONT");
        }
        let store = EtcdStore::new(&endpoints, &prefix).unwrap();
        let holders: Vec<String> =
            crate::book::suite::sound(&store).iter().filter_map(|entry| entry.record.owner.clone()).collect();
        let winners: Vec<usize> = (0..16).filter(|number| done[*number].is_ok()).collect();
        assert_eq!(winners.len(), 1, "round {round}: {done:?}");
        let winner = format!("w{}/1", winners[0]);
        assert!(holders.contains(&winner), "round {round}: {holders:?}");
        for refused in done.iter().filter_map(|done| done.as_ref().err()) {
            let told = refused.to_string();
            assert!(told.starts_with("all 1 are taken: 1 by `w"), "round {round}: {told}");
        }
    }
}

/// A playbook whose network has one address left, for a group of that name.
fn playbook(etcd: &str, prefix: &str, group: &str, body: &str) -> String {
    format!(
        "store {{\n  etcd = [\"{etcd}\"]\n  prefix = \"{prefix}\"\n}}\nhosts docker {{\n  host \"one\" {{ connection = local }}\n}}\n\
         network \"lan\" {{\n  parent = \"eth0\"\n  subnet = 10.99.0.0/24\n  pool = 10.99.0.85 - 10.99.0.85\n}}\n\
         nodes {group} {{\n  count = 1\n  on = hosts.docker\n  network = \"lan\"\n  name = \"fn3{group}\"\n}}\n\
         play \"nodes\" on nodes.{group} {{\n{body}\n}}\n"
    )
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

#[test]
fn of_two_plays_for_the_last_address_one_is_refused() {
    let cluster = Cluster::start(1, 23430);
    let folder = tempfile::tempdir().unwrap();
    for round in 0..8 {
        let outcomes: Vec<Output> = std::thread::scope(|scope| {
            let one = |group: &'static str| {
                let body = format!("  file \"{}/{group}{round}\" {{ content = \"x\" }}", folder.path().display());
                let text = playbook(&cluster.client(0), &format!("/fanli/two{round}"), group, &body);
                let file = folder.path().join(format!("{group}.fp"));
                std::fs::write(&file, text).unwrap();
                let state = folder.path().join("state");
                scope.spawn(move || {
                    let mut command = std::process::Command::new(fanli());
                    command.arg("play").arg(file).arg("--state-dir").arg(state.join(group));
                    command.env_clear().env("PATH", "/usr/bin:/bin").output().unwrap()
                })
            };
            let all = ["left", "right"].map(one);
            all.map(|one| one.join().unwrap()).into()
        });
        let codes: Vec<Option<i32>> = outcomes.iter().map(|output| output.status.code()).collect();
        let won = codes.iter().filter(|code| **code == Some(0)).count();
        let both = outcomes.iter().fold(String::new(), |mut text, output| {
            let _ = writeln!(text, "{}", told(output));
            text
        });
        assert_eq!(won, 1, "round {round}: {codes:?}\n{both}");
        let (winner, loser) = if codes[0] == Some(0) { ("left", 1) } else { ("right", 0) };
        assert_eq!(codes[loser], Some(2), "{both}");
        let said = told(&outcomes[loser]);
        assert!(said.contains(&format!("1 by `{winner}`")), "{said}");
        // It stopped before it touched anything.
        let files = ["left", "right"].map(|group| folder.path().join(format!("{group}{round}")).exists());
        assert_eq!(files, [loser == 1, loser == 0], "{both}");
        if round == 0 {
            println!("{said}");
        }
    }
}

/// A way to etcd from inside a host, on which one request can be held up.
struct Way {
    port: u16,
    seen: Arc<AtomicUsize>,
    held: Arc<(Mutex<Hold>, Condvar)>,
}

#[derive(Default)]
struct Hold {
    /// Which transaction.
    at: usize,
    arrived: bool,
    released: bool,
}

impl Way {
    fn open(host: &Host, etcd: &str) -> Self {
        let file = std::fs::File::open(format!("/proc/{}/ns/net", host.pid)).unwrap();
        // A socket stays in the network that it was made in; the thread ends there.
        let listener = std::thread::spawn(move || {
            let network = Some(rustix::thread::LinkNameSpaceType::Network);
            rustix::thread::move_into_link_name_space(std::os::fd::AsFd::as_fd(&file), network).unwrap();
            TcpListener::bind("127.0.0.1:0").unwrap()
        });
        let listener = listener.join().unwrap();
        let way = Self { port: listener.local_addr().unwrap().port(), seen: Arc::default(), held: Arc::default() };
        let (seen, held, etcd) = (Arc::clone(&way.seen), Arc::clone(&way.held), etcd.replace("http://", ""));
        std::thread::spawn(move || {
            for near in listener.incoming().flatten() {
                let (seen, held) = (Arc::clone(&seen), Arc::clone(&held));
                let Ok(far) = TcpStream::connect(&etcd) else { continue };
                let (mut back, mut to) = (far.try_clone().unwrap(), near.try_clone().unwrap());
                std::thread::spawn(move || {
                    let _ = std::io::copy(&mut back, &mut to);
                    let _ = to.shutdown(Shutdown::Both);
                });
                std::thread::spawn(move || forward(near, far, &seen, &held));
            }
        });
        way
    }

    /// Counts from here, and holds up that transaction.
    fn hold(&self, at: usize) {
        self.seen.store(0, Ordering::SeqCst);
        *self.held.0.lock().unwrap() = Hold { at, ..Hold::default() };
    }

    /// Whether it came.
    fn arrived(&self) -> bool {
        self.held.0.lock().unwrap().arrived
    }

    fn release(&self) {
        self.held.0.lock().unwrap().released = true;
        self.held.1.notify_all();
    }
}

fn forward(mut near: TcpStream, mut far: TcpStream, seen: &AtomicUsize, held: &(Mutex<Hold>, Condvar)) {
    let mut bytes = vec![0; 64 << 10];
    while let Ok(count @ 1..) = near.read(&mut bytes) {
        let some = &bytes[..count];
        if some.windows(17).any(|window| window == b"POST /v3/kv/txn H") {
            let number = seen.fetch_add(1, Ordering::SeqCst) + 1;
            let mut hold = held.0.lock().unwrap();
            if hold.at == number {
                hold.arrived = true;
                while !hold.released {
                    hold = held.1.wait(hold).unwrap();
                }
            }
        }
        if far.write_all(some).is_err() {
            break;
        }
    }
    let _ = far.shutdown(Shutdown::Both);
}

/// What a reservation hangs on ends now, as it does by itself after five minutes.
fn expire(cluster: &Cluster) -> usize {
    let leases: serde_json::Value = serde_json::from_str(&ask(cluster, "lease/leases", "{}")).unwrap();
    let all = leases["leases"].as_array().cloned().unwrap_or_default();
    for lease in &all {
        ask(cluster, "lease/revoke", &format!("{{\"ID\":{}}}", lease["ID"]));
    }
    all.len()
}

fn play(host: &Host, file: &Path) -> Output {
    let mut command = std::process::Command::new("nsenter");
    command.args(["-t", &host.pid.to_string(), "-m", "-n", "-u", "--"]).arg(fanli()).arg("play").arg(file);
    command.env("TERM", "dumb").output().unwrap()
}

/// Invariant 8: whose reservation has ended plugs nothing, wherever it ends.
#[test]
fn a_reservation_that_ends_on_the_way_plugs_nothing() {
    let cluster = Cluster::start(1, 23450);
    let hosts = Hosts::start("f3e", 1);
    let host = &hosts.hosts[0];
    let way = Way::open(host, &cluster.client(0));
    let body = "  container node.name {\n    image = \"fanli/example:1\"\n    command = [\"httpd\", \"-f\", \"-h\", \"/www\"]\n    \
                stop_timeout = 0s\n    attach \"lan\" { address = node.address  probe = off }\n  }";
    let folder = tempfile::tempdir_in("/tmp").unwrap();
    let file = folder.path().join("web.fp");
    let round = |prefix: &str, at: usize| {
        let text = playbook(&format!("http://127.0.0.1:{}", way.port), prefix, "web", body);
        std::fs::write(&file, text).unwrap();
        host.must(
            "docker rm -f fn3web >/dev/null 2>&1 || :; ip link del fn-eth0 2>/dev/null || :; rm -rf /var/lib/fanli/*",
        );
        // Somebody made the book before: what a run does to make one is not looked at here.
        let other = Book::new(Box::new(EtcdStore::new(&cluster.endpoints(), prefix).unwrap()), "other");
        other.claim("lan", &[Asked::slot("first", 1)], &last_one("10.99.0.84")).unwrap();
        expire(&cluster);
        way.hold(at);
        std::thread::scope(|scope| {
            let run = scope.spawn(|| play(host, &file));
            let begun = std::time::Instant::now();
            while !way.arrived() && !run.is_finished() {
                assert!(begun.elapsed() < Duration::from_secs(120), "the run hangs");
                std::thread::sleep(Duration::from_millis(5));
            }
            let (arrived, mut ended, mut taken) = (way.arrived(), 0, None);
            if arrived {
                ended = expire(&cluster);
                let claimed = other.claim("lan", &[Asked::slot("other", 1)], &last_one("10.99.0.85"));
                taken = Some(claimed.and_then(|entries| {
                    other.bind(&entries.into_iter().map(|entry| (entry, Bound::default())).collect::<Vec<_>>())
                }));
            }
            way.release();
            (run.join().unwrap(), arrived, ended, taken)
        })
    };
    let (output, ..) = round("/fanli/expire0", 0);
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    let most = way.seen.load(Ordering::SeqCst);
    assert!(most > 2, "{most} transactions");
    let (mut lost_after_expiry, mut won) = (0, 0);
    for at in 1..=most {
        let (output, arrived, ended, taken) = round(&format!("/fanli/expire{at}"), at);
        let said = told(&output);
        assert!(arrived, "transaction {at} of {most} did not come: {said}");
        let plugged = host.sh("nsenter -t $(docker inspect -f '{{.State.Pid}}' fn3web) -n ip -4 -br addr show eth0");
        let plugged = plugged.status.success() && String::from_utf8_lossy(&plugged.stdout).contains("10.99.0.85");
        match taken.unwrap() {
            Ok(_) => {
                assert!(!plugged, "{at}: it plugged an address that another one has\n{said}");
                assert_eq!(output.status.code(), Some(2), "{at}: {said}");
                assert!(said.contains("1 by `other`"), "{at}: {said}");
                let links = host.must("ip -br link | cut -d' ' -f1 | cut -d@ -f1 | sort | tr '\\n' ' '");
                assert_eq!(links.trim(), "docker0 eth0 lo", "{at}");
                assert_eq!(host.must("docker ps -aq; ls /var/lib/fanli/attach 2>/dev/null || :"), "", "{at}: {said}");
                if ended > 0 {
                    lost_after_expiry += 1;
                    if lost_after_expiry == 1 {
                        println!("{said}");
                    }
                }
            }
            Err(refused) => {
                assert!(matches!(refused, Refused::Full { .. }), "{at}: {refused}");
                assert!(plugged && output.status.code() == Some(0), "{at}: {said}");
                won += 1;
            }
        }
    }
    println!(
        "{most} transactions: after {lost_after_expiry} the reservation had ended and another one had the address; {won} times it was bound"
    );
    assert!(lost_after_expiry > 0 && won > 0, "{lost_after_expiry}, {won}");
}
