//! What stands behind the pipe of Apache's log: `fanli log-pipe`, cronolog and rotatelogs, and `logrotate` with `copytruncate`.
//!
//!     cargo bench --bench logs                 both parts
//!     cargo bench --bench logs -- lines        which lines of answered requests are lost or doubled over ten changes of file
//!     cargo bench --bench logs -- speed 2048   time and processor time for so many MiB, written to memory, in turns
//!
//! Root and the packages of `tests/run packages loggers` are needed. Lost lines mean something, and times only their ratios.
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
#[path = "../tests/system/drive.rs"]
mod drive;
#[path = "../tests/system/balance/ledger.rs"]
mod ledger;
#[path = "../tests/system/balance/place.rs"]
mod place;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use ledger::{Client, Load};
use place::{Place, apache_config, until};

/// Clients without a pause that matters: a line is lost in the moment between two files.
const CLIENTS: [(Client, usize); 2] = [(Client::KeepAlive, 16), (Client::Once, 8)];

/// How often the file changes under load.
const CHANGES: usize = 10;

/// How often each tool gets the same bytes; the median counts.
const ROUNDS: usize = 3;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let asked = |part: &str| words.is_empty() || words.iter().any(|word| word == part);
    if asked("lines") {
        lines();
    }
    if asked("speed") {
        speed(words.iter().find_map(|word| word.parse().ok()).unwrap_or(512));
    }
}

/// A way to write a log: its line in Apache's configuration, and what changes the file.
struct Way {
    name: &'static str,
    log: String,
    change: &'static str,
}

fn lines() {
    let reload = "kill -USR1 $(cat DIR/web/pid)";
    let piped = |logger: &str| format!("\"|{logger} DIR/logs/%Y%m%d%H.log\"");
    let ways = [
        Way { name: "fanli log-pipe", log: piped(&format!("{} log-pipe", common::fanli())), change: reload },
        Way { name: "cronolog", log: piped("/usr/bin/cronolog"), change: reload },
        Way {
            name: "rotatelogs",
            log: "\"|/usr/bin/rotatelogs DIR/logs/%Y%m%d%H.log 3600\"".to_owned(),
            change: reload,
        },
        Way {
            name: "logrotate copytruncate",
            log: "DIR/logs/access.log".to_owned(),
            change: "/usr/sbin/logrotate -f -s DIR/rotate.state DIR/rotate.conf",
        },
    ];
    println!("{:24} {:>10} {:>8} {:>8}  over {CHANGES} changes of file", "logger", "answered", "lost", "doubled");
    for way in &ways {
        let (answered, lost, doubled) = lines_of(way);
        let share = lost as f64 * 100.0 / answered as f64;
        println!("{:24} {answered:10} {lost:8} {doubled:8}  {share:.2} % lost", way.name);
    }
}

/// How many requests were answered; how many of these are in no file, and how many lines are there more than once.
fn lines_of(way: &Way) -> (usize, usize, usize) {
    let mut place = Place::new();
    place.write("www/index.html", "hello\n");
    place.write("logs/.keep", "");
    let rotate = "DIR/logs/access.log {\n  copytruncate\n  rotate 100\n  nocompress\n  missingok\n  su root root\n}\n";
    place.write("rotate.conf", rotate);
    place.must(&format!("chmod 644 {}", place.text("rotate.conf")));
    let log = format!("CustomLog {} \"%q\"\n", way.log);
    place.write("web/httpd.conf", &apache_config("web", "127.0.0.1:80", &log));
    place.start(&["apache2", "-f", "DIR/web/httpd.conf", "-DFOREGROUND"]);
    until("it listens", || place.sh("grep -q ':0050 00000000:0000 0A' /proc/net/tcp").status.success());
    let load = Load::start(place.pid, "127.0.0.1:80", &CLIENTS);
    for _ in 0..CHANGES {
        let before = load.count();
        until("requests are answered", || load.count() > before + 2_000);
        place.must(way.change);
    }
    let rows = load.stop();
    place.must("kill -WINCH $(cat DIR/web/pid)");
    // Nobody buries the dead there.
    let alive = "ps -eo stat=,comm= | grep -v ^Z | grep -E 'apache2|fanli|cronolog|rotatelogs' || :";
    let running = || String::from_utf8(place.sh(alive).stdout).unwrap();
    until("all has ended", || running().is_empty());

    let mut times: BTreeMap<u64, usize> = BTreeMap::new();
    for entry in fs::read_dir(place.path("logs")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_symlink() || name.starts_with('.') {
            continue;
        }
        for line in String::from_utf8_lossy(&fs::read(&path).unwrap()).lines() {
            if let Ok(id) = line.trim_start_matches('\0').trim_start_matches("?id=").parse() {
                *times.entry(id).or_default() += 1;
            }
        }
    }
    let answered: Vec<u64> = rows.iter().filter(|row| row.outcome.is_ok()).map(|row| row.id).collect();
    let lost = answered.iter().filter(|id| !times.contains_key(id)).count();
    (answered.len(), lost, times.values().filter(|times| **times > 1).count())
}

fn speed(mebibytes: usize) {
    let memory = tempfile::Builder::new().prefix("fanli-bench").tempdir_in("/dev/shm").unwrap();
    let template = |tool: &str| format!("{}/{tool}.%Y%m%d.log", memory.path().display());
    let tools: [(&str, Vec<String>); 3] = [
        ("fanli", vec![common::fanli().to_owned(), "log-pipe".to_owned(), template("fanli")]),
        ("cronolog", vec!["/usr/bin/cronolog".to_owned(), template("cronolog")]),
        ("rotatelogs", vec!["/usr/bin/rotatelogs".to_owned(), template("rotatelogs"), "86400".to_owned()]),
    ];
    println!("\n{mebibytes} MiB, medians of {ROUNDS} rounds; ratios to rotatelogs");
    println!("{:8} {:>8} {:12} {:>8} {:>8}", "writers", "line", "tool", "time", "CPU");
    for (writers, length) in [(1, 200), (1, 8192), (8, 200), (8, 8192)] {
        let mut took: BTreeMap<&str, Vec<(f64, f64)>> = BTreeMap::new();
        for _ in 0..ROUNDS {
            for (tool, argv) in &tools {
                took.entry(tool).or_default().push(feed(argv, writers, length, mebibytes));
                for entry in fs::read_dir(memory.path()).unwrap() {
                    fs::remove_file(entry.unwrap().path()).unwrap();
                }
            }
        }
        let median = |tool: &str| {
            let mut of: Vec<(f64, f64)> = took[tool].clone();
            of.sort_by(|one, other| one.0.total_cmp(&other.0));
            of[of.len() / 2]
        };
        let base = median("rotatelogs");
        for (tool, _) in &tools {
            let (time, cpu) = median(tool);
            println!("{writers:8} {length:8} {tool:12} {:8.2} {:8.2}", time / base.0, cpu / base.1);
        }
    }
}

/// Seconds and processor seconds that all writers together take for the bytes.
fn feed(argv: &[String], writers: usize, length: usize, mebibytes: usize) -> (f64, f64) {
    let line = format!("{}\n", "x".repeat(length - 1));
    let piece = line.repeat((64 * 1024 / length).max(1));
    let pieces = (mebibytes << 20) / writers / piece.len();
    let (begun, before) = (Instant::now(), of_children());
    let start = || Command::new(&argv[0]).args(&argv[1..]).stdin(Stdio::piped()).spawn().unwrap();
    let children: Vec<Child> = (0..writers).map(|_| start()).collect();
    std::thread::scope(|scope| {
        for mut child in children {
            let piece = piece.as_bytes();
            scope.spawn(move || {
                let mut input = child.stdin.take().unwrap();
                (0..pieces).for_each(|_| input.write_all(piece).unwrap());
                drop(input);
                // cronolog ends with 3 where its input does.
                child.wait().unwrap();
            });
        }
    });
    (begun.elapsed().as_secs_f64(), of_children() - before)
}

/// The processor seconds of all children that have ended: fields 16 and 17 of /proc/self/stat, in hundredths (proc(5)).
fn of_children() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    let ticks = |number: usize| fields[number - 3].parse::<f64>().unwrap();
    (ticks(16) + ticks(17)) / 100.0
}
