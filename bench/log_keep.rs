//! What keeping log files costs: `fanli logs keep` beside `find -mtime -delete`, and its copies beside `rsync -a`.
//!
//!     cargo bench --bench log_keep                        both parts
//!     cargo bench --bench log_keep -- ship 10240          copies of so many MiB
//!     cargo bench --bench log_keep -- retention 1000000   the removal of half of so many files
//!
//! Root is needed. Times mean something only as ratios.
#![allow(
    missing_docs,
    unreachable_pub,
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_precision_loss
)]

#[path = "../tests/common/mod.rs"]
mod common;

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use fanli::value::Digest;

/// The length of a segment that is copied.
const SEGMENT: usize = 16 << 20;

/// How often each way gets the same files; the median counts.
const ROUNDS: usize = 3;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let asked =
        |part: &str| words.iter().all(|word| word.parse::<usize>().is_ok()) || words.iter().any(|word| word == part);
    let number = words.iter().find_map(|word| word.parse().ok());
    if asked("ship") {
        ship(number.unwrap_or(512));
    }
    if asked("retention") {
        retention(number.unwrap_or(100_000));
    }
}

/// Writes a closed segment whose period ended so many days ago.
fn segment(folder: &Path, id: usize, text: &[u8], digest: &str, days: i64) {
    let name = format!("2026.{id:08}.log");
    let end = jiff::Timestamp::now().checked_sub(jiff::SignedDuration::from_hours(24 * days)).unwrap();
    let seal = format!(
        "{{\"begin\":\"{end}\",\"end\":\"{end}\",\"sealed\":\"{end}\",\"why\":\"period\",\"lines\":1,\"bytes\":{},\"sha256\":\"{digest}\",\
         \"dropped_lines\":0,\"dropped_bytes\":0}}\n",
        text.len()
    );
    fs::write(folder.join(format!(".{name}.seal")), seal).unwrap();
    let file = fs::File::create(folder.join(&name)).unwrap();
    (&file).write_all(text).unwrap();
    let days = u64::try_from(days).unwrap();
    file.set_modified(std::time::SystemTime::now() - Duration::from_secs(86_400 * days)).unwrap();
}

fn ship(mebibytes: usize) {
    let memory = tempfile::Builder::new().prefix("fanli-bench").tempdir_in("/dev/shm").unwrap();
    let disk = tempfile::tempdir().unwrap();
    let (logs, storage) = (disk.path().join("logs"), memory.path().join("storage"));
    fs::create_dir(&logs).unwrap();
    let mut text: Vec<u8> = (0..SEGMENT / 64).flat_map(|line| format!("{line:063}\n").into_bytes()).collect();
    text.truncate(SEGMENT);
    let digest = Digest::of(&text).to_string();
    (0..(mebibytes << 20) / SEGMENT).for_each(|id| segment(&logs, id, &text, &digest, 1));
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let config = format!(
        "port = {port}\naddress = 127.0.0.1\nuse chroot = no\nuid = root\ngid = root\n[logs]\npath = {}\nread only = no\n",
        storage.display()
    );
    fs::write(disk.path().join("rsyncd.conf"), config).unwrap();
    let mut daemon = Command::new("rsync")
        .args(["--daemon", "--no-detach", "--config"])
        .arg(disk.path().join("rsyncd.conf"))
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_millis(500));
    let fanli = |target: &str| {
        let state = disk.path().join("state");
        format!(
            "rm -rf {0}; exec {1} logs keep --state-dir {0} --ship {target} {2}",
            state.display(),
            common::fanli(),
            logs.display()
        )
    };
    let (from, to, module) = (logs.display(), storage.display(), format!("rsync://127.0.0.1:{port}/logs"));
    let ways = [
        ("rsync -a, to a directory", format!("exec rsync -a {from}/ {to}/")),
        ("rsync -a, and -ac to compare", format!("rsync -a {from}/ {to}/; exec rsync -ac {from}/ {to}/")),
        ("fanli, to a directory", fanli(&to.to_string())),
        ("rsync -a, to a daemon", format!("exec rsync -a {from}/ {module}/")),
        ("rsync -a, and -ac to compare", format!("rsync -a {from}/ {module}/; exec rsync -ac {from}/ {module}/")),
        ("fanli, to a daemon", fanli(&module)),
    ];
    println!("{mebibytes} MiB in segments of 16 MiB, medians of {ROUNDS} rounds; ratios to the first");
    let mut took = vec![Vec::new(); ways.len()];
    for _ in 0..ROUNDS {
        for (times, (_, script)) in took.iter_mut().zip(&ways) {
            let _ = fs::remove_dir_all(&storage);
            fs::create_dir(&storage).unwrap();
            times.push(measured(script));
            assert_eq!(fs::read_dir(&storage).unwrap().count(), fs::read_dir(&logs).unwrap().count(), "{script}");
        }
    }
    let medians: Vec<Cost> = took.into_iter().map(median).collect();
    for ((name, _), cost) in ways.iter().zip(&medians) {
        let (time, memory) = (cost.time / medians[0].time, cost.memory >> 10);
        println!("{name:30} {time:6.2} of the time, {memory} MiB of memory at most");
    }
    daemon.kill().unwrap();
    daemon.wait().unwrap();
}

fn retention(files: usize) {
    let memory = tempfile::Builder::new().prefix("fanli-bench").tempdir_in("/dev/shm").unwrap();
    let logs = memory.path().join("logs");
    let digest = Digest::of(b"a line\n").to_string();
    let ways = [
        ("find -mtime +30 -delete", format!("exec find {} -name '*.log' -mtime +30 -delete", logs.display())),
        ("fanli logs keep --age 30d", format!("exec {} logs keep --age 30d {}", common::fanli(), logs.display())),
    ];
    println!("\nhalf of {files} files, medians of {ROUNDS} rounds; ratios to find");
    let mut took = vec![Vec::new(); ways.len()];
    for _ in 0..ROUNDS {
        for (times, (_, script)) in took.iter_mut().zip(&ways) {
            let _ = fs::remove_dir_all(&logs);
            fs::create_dir(&logs).unwrap();
            (0..files).for_each(|id| segment(&logs, id, b"a line\n", &digest, if id % 2 == 0 { 60 } else { 1 }));
            times.push(measured(script));
            let left = fs::read_dir(&logs)
                .unwrap()
                .filter(|entry| entry.as_ref().unwrap().path().extension().is_some_and(|end| end == "log"));
            assert_eq!(left.count(), files / 2, "{script}");
        }
    }
    let medians: Vec<Cost> = took.into_iter().map(median).collect();
    for ((name, _), cost) in ways.iter().zip(&medians) {
        let (time, memory) = (cost.time / medians[0].time, cost.memory >> 10);
        println!("{name:30} {time:6.2} of the time, {memory} MiB of memory at most");
    }
}

/// What a script costs.
#[derive(Clone, Copy)]
struct Cost {
    /// Seconds.
    time: f64,
    /// The most memory that its last program had, in KiB.
    memory: usize,
}

fn median(mut of: Vec<Cost>) -> Cost {
    of.sort_by(|one, other| one.time.total_cmp(&other.time));
    of[of.len() / 2]
}

fn measured(script: &str) -> Cost {
    let begun = Instant::now();
    let mut child = Command::new("sh").args(["-ec", script]).stdout(Stdio::null()).spawn().unwrap();
    let status = format!("/proc/{}/status", child.id());
    let mut memory = 0;
    while child.try_wait().unwrap().is_none() {
        let text = fs::read_to_string(&status).unwrap_or_default();
        let most = text.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse().ok());
        memory = memory.max(most.unwrap_or(0));
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(child.wait().unwrap().success(), "{script}");
    Cost { time: begun.elapsed().as_secs_f64(), memory }
}
