//! From the start of a container's process to its interface being of use, by the watcher; beside `docker network connect` of a
//! macvlan in the same run.
//!
//!     cargo bench --bench watch            40 rounds
//!     cargo bench --bench watch -- 100
//!
//! The two take turns. Docker's number is one API call on a container that runs already, so it holds no waiting for events:
//! the ratio flatters Docker. Only ratios mean something.
#![allow(
    missing_docs,
    unreachable_pub,
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation
)]

#[path = "../tests/common/mod.rs"]
mod common;
#[path = "../tests/system/docker_hosts.rs"]
mod docker_hosts;
#[path = "../tests/system/drive.rs"]
mod drive;

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::{Duration, Instant};

use docker_hosts::{Host, Hosts};

const PLAY: &str = r#"
hosts here {
  host "here" { connection = local }
}
network "lan" { mode = macvlan  parent = "eth0"  subnet = 10.99.0.0/24 }
play "one" on hosts.here {
  container "fwt-b1" {
    image   = "fanli/example:1"
    command = ["sleep", "3600"]
    attach "lan" { address = 10.99.0.81 }
  }
}
"#;

fn in_host(host: &Host, fanli: &str) -> Command {
    let mut command = Command::new("nsenter");
    command.args(["-t", &host.pid.to_string(), "-m", "-n", "-u", "--", fanli]);
    command
}

/// One request to the host's daemon, on a connection of its own.
fn post(host: &Host, path: &str, body: &str) -> String {
    let mut stream = UnixStream::connect(format!("/proc/{}/root/run/docker.sock", host.pid)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let length = body.len();
    write!(stream, "POST {path} HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}")
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.contains(" 200 ") || answer.contains(" 204 "), "{path}: {answer}");
    answer
}

/// Microseconds since 1970 of what `docker inspect` prints.
fn started_at(host: &Host) -> i64 {
    let text = host.must("date -d \"$(docker inspect -f '{{.State.StartedAt}}' fwt-b1)\" +%s%N");
    text.parse::<i64>().unwrap() / 1000
}

fn plugged_at(host: &Host) -> i64 {
    let text = host.must("cat /var/lib/fanli/watch/status.json");
    let status: serde_json::Value = serde_json::from_str(&text).unwrap();
    status["attachments"][0]["done_at"].as_i64().unwrap_or(0)
}

/// Median and 90th percentile, in milliseconds.
fn told(name: &str, mut micros: Vec<i64>) -> f64 {
    micros.sort_unstable();
    let at = |part: usize| micros[(micros.len() * part / 100).min(micros.len() - 1)] as f64 / 1000.0;
    println!("{name:44} median {:6.1} ms   p90 {:6.1} ms   n {}", at(50), at(90), micros.len());
    at(50)
}

fn main() {
    let rounds = std::env::args().skip(1).find_map(|word| word.parse().ok()).unwrap_or(40usize);
    let fanli = std::env::var("FANLI_UNDER_TEST").unwrap_or_else(|_| env!("CARGO_BIN_EXE_fanli").to_owned());
    let hosts = Hosts::start("wb", 1);
    let host = &hosts.hosts[0];
    let file = hosts.shared().join("play.fp");
    std::fs::write(&file, PLAY).unwrap();
    let done = in_host(host, &fanli).arg("play").arg(&file).output().unwrap();
    assert!(
        done.status.success(),
        "{}{}",
        String::from_utf8_lossy(&done.stdout),
        String::from_utf8_lossy(&done.stderr)
    );
    let log = hosts.shared().join("watch.log");
    let out = std::fs::File::create(&log).unwrap();
    let mut watcher = in_host(host, &fanli).args(["watch", "--every", "1h"]).stdout(out).spawn().unwrap();
    host.must("docker network create -d macvlan -o parent=eth0 --subnet 10.98.0.0/24 fwt-mv; docker run -d --name fwt-b2 fanli/example:1 sleep 3600");
    std::thread::sleep(Duration::from_secs(2));

    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        host.must("docker restart -t 0 fwt-b1");
        let (start, begun) = (started_at(host), Instant::now());
        let plugged = loop {
            let at = plugged_at(host);
            if at > start {
                break at;
            }
            assert!(begun.elapsed() < Duration::from_secs(30), "round {round}: it was not plugged");
            std::thread::sleep(Duration::from_millis(20));
        };
        ours.push(plugged - start);

        let begun = Instant::now();
        post(host, "/networks/fwt-mv/connect", "{\"Container\":\"fwt-b2\"}");
        theirs.push(i64::try_from(begun.elapsed().as_micros()).unwrap());
        post(host, "/networks/fwt-mv/disconnect", "{\"Container\":\"fwt-b2\"}");
    }
    let _ = Command::new("kill").arg(watcher.id().to_string()).status();
    let _ = watcher.wait();
    host.must("docker rm -f fwt-b2; docker network rm fwt-mv");
    // What Docker itself takes from the start until it says so is in the first number and not in this one.
    let of_event = |line: &str| {
        let time = line.strip_suffix(" ms")?.rsplit_once("(container restarted) in ")?.1;
        Some((time.parse::<f64>().ok()? * 1000.0) as i64)
    };
    let log = std::fs::read_to_string(log).unwrap();
    told("  of that, from Docker's event to plugged", log.lines().filter_map(of_event).collect());
    let ours = told("start of the process to plugged, by fanli watch", ours);
    let theirs = told("docker network connect (macvlan, API)", theirs);
    println!("ratio {:.2} (below 1: the watcher is faster)", ours / theirs);
}
