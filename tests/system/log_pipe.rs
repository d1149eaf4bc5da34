//! `fanli log-pipe` behind a real Apache, on a full disk, and in folders of others: no line is lost unseen.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use fanli::value::Digest;
use serde_json::Value;

use crate::apart::{apart, folder, sh};
use crate::balance::ledger::{Client, Load, Row};
use crate::balance::place::{Place, apache_config, until};
use crate::common::fanli;

/// A writer whose input the test has.
struct Pipe(Child);

impl Pipe {
    fn start(arguments: &[&str]) -> Self {
        let mut command = Command::new(fanli());
        command.arg("log-pipe").args(arguments).stdin(Stdio::piped()).stderr(Stdio::piped());
        Self(command.spawn().unwrap())
    }

    fn say(&mut self, text: &str) {
        self.0.stdin.as_mut().unwrap().write_all(text.as_bytes()).unwrap();
    }

    /// Ends its input; what it said, and its exit code.
    fn end(mut self) -> (String, Option<i32>) {
        drop(self.0.stdin.take());
        let done = self.0.wait_with_output().unwrap();
        (String::from_utf8(done.stderr).unwrap(), done.status.code())
    }
}

/// A sealed segment, which must be as its seal says.
struct Sealed {
    path: PathBuf,
    text: String,
    seal: Value,
}

/// All segments below a folder, in the order in which they were sealed. None is without a seal.
fn sealed(folder: &Path) -> Vec<Sealed> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if path.is_symlink() || name.starts_with('.') {
            continue;
        }
        if path.is_dir() {
            found.extend(sealed(&path));
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        let seal = fs::read(path.with_file_name(format!(".{name}.seal"))).unwrap_or_else(|_| panic!("{name}: no seal"));
        let seal: Value = serde_json::from_slice(&seal).unwrap();
        assert_eq!(seal["bytes"], text.len(), "{name}");
        assert_eq!(seal["lines"], text.lines().count(), "{name}");
        assert_eq!(seal["sha256"], Digest::of(text.as_bytes()).to_string(), "{name}");
        found.push(Sealed { path, text, seal });
    }
    found.sort_by_key(|segment| segment.seal["sealed"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap());
    found
}

fn all_text(segments: &[Sealed]) -> String {
    segments.iter().map(|segment| segment.text.as_str()).collect()
}

#[test]
fn ten_graceful_reloads_lose_no_line() {
    let mut place = Place::new();
    place.write("www/index.html", "hello\n");
    place.write("logs/.keep", "");
    let log = format!("CustomLog \"|{} log-pipe DIR/logs/%Y%m%d%H.log\" \"%q\"\n", fanli());
    place.write("web/httpd.conf", &apache_config("web", "127.0.0.1:80", &log));
    place.start(&["apache2", "-f", "DIR/web/httpd.conf", "-DFOREGROUND"]);
    until("it listens", || place.sh("grep -q ':0050 00000000:0000 0A' /proc/net/tcp").status.success());

    let load =
        Load::start(place.pid, "127.0.0.1:80", &[(Client::KeepAlive, 3), (Client::Once, 3), (Client::SlowPost, 2)]);
    for _ in 0..10 {
        let before = load.count();
        until("requests are answered", || load.count() > before + 50);
        place.must("kill -USR1 $(cat DIR/web/pid)");
    }
    let rows = load.stop();
    place.must("kill -WINCH $(cat DIR/web/pid)");
    let writers = || String::from_utf8(place.sh("pgrep -f '[l]og-pipe DIR/logs' || :").stdout).unwrap();
    until("the writers have read to the end", || writers().is_empty());

    let segments = sealed(&place.path("logs"));
    // A writer that has got no line makes no file.
    assert!(segments.len() > 5, "each reload has a writer of its own: {}", segments.len());
    each_once(&rows, &all_text(&segments));
}

/// Every answered request is in the log, once.
fn each_once(rows: &[Row], text: &str) {
    let mut times: BTreeMap<u64, usize> = BTreeMap::new();
    for line in text.lines() {
        *times.entry(line.trim_start_matches("?id=").parse().unwrap()).or_default() += 1;
    }
    let answered: Vec<u64> = rows.iter().filter(|row| row.outcome.is_ok()).map(|row| row.id).collect();
    assert!(answered.len() > 400, "{}", answered.len());
    let lost: Vec<&u64> = answered.iter().filter(|id| !times.contains_key(id)).collect();
    assert!(lost.is_empty(), "answered and in no segment: {lost:?}");
    // One that was not answered, as a connection was closed by a reload, may be there, too.
    let doubled: Vec<_> = times.iter().filter(|(_, times)| **times > 1).collect();
    assert!(doubled.is_empty(), "in more than one segment: {doubled:?}");
}

const NGINX: &str = "user www-data;
worker_processes 2;
pid DIR/nginx.pid;
error_log DIR/nginx.log;
events { }
http {
  log_format id '$is_args$args';
  access_log DIR/access.fifo id;
  client_body_temp_path DIR/body;
  server {
    listen 127.0.0.1:80;
    root DIR/www;
    error_page 405 =200 /index.html;
  }
}
";

#[test]
fn nginx_writes_into_a_fifo_and_reloads_and_reopens_lose_no_line() {
    let mut place = Place::new();
    place.write("www/index.html", "hello\n");
    place.write("logs/.keep", "");
    place.write("nginx.conf", NGINX);
    place.start(&[fanli(), "log-pipe", "--fifo", "DIR/access.fifo", "DIR/logs/%Y%m%d.log"]);
    until("the FIFO is there", || place.path("access.fifo").exists());
    place.start(&["nginx", "-c", "DIR/nginx.conf", "-g", "daemon off;"]);
    until("it listens", || place.sh("grep -q ':0050 00000000:0000 0A' /proc/net/tcp").status.success());

    let load = Load::start(place.pid, "127.0.0.1:80", &[(Client::KeepAlive, 3), (Client::Once, 3)]);
    for signal in ["HUP", "USR1", "HUP", "USR1", "HUP"] {
        let before = load.count();
        until("requests are answered", || load.count() > before + 100);
        place.must(&format!("kill -{signal} $(cat DIR/nginx.pid)"));
    }
    let rows = load.stop();
    let processes = |pattern: &str| String::from_utf8(place.sh(&format!("pgrep -f '{pattern}' || :")).stdout).unwrap();
    place.must("kill -QUIT $(cat DIR/nginx.pid)");
    until("nginx has ended", || processes("[n]ginx: ").is_empty());
    place.must("pkill -TERM -f '[l]og-pipe'");
    until("the writer has ended", || processes("[l]og-pipe").is_empty());
    each_once(&rows, &all_text(&sealed(&place.path("logs"))));
}

#[test]
fn a_fifo_has_no_end_and_what_is_there_is_read_before_one_ends() {
    let dir = tempfile::tempdir().unwrap();
    let (fifo, template) = (dir.path().join("in"), dir.path().join("%Y.log"));
    let (fifo_text, template) = (fifo.to_str().unwrap(), template.to_str().unwrap());
    let pipe = Pipe::start(&["--fifo", fifo_text, template]);
    until("the FIFO is there", || fifo.exists());
    assert_eq!(fs::metadata(&fifo).unwrap().mode() & 0o777, 0o600);
    let written = || fs::read_to_string(dir.path().join("latest")).unwrap_or_default();
    for line in ["one\n", "two\n"] {
        fs::write(&fifo, line).unwrap();
        until("it is written, and its writer is gone", || written().ends_with(line));
    }
    sh(&format!("kill -STOP {}; echo three > {fifo_text}; kill -HUP {0}; kill -TERM {0}; kill -CONT {0}", pipe.0.id()));
    assert_eq!(pipe.end(), (String::new(), Some(0)));
    assert_eq!(all_text(&sealed_beside(&dir.path().join("in"))), "one\ntwo\nthree\n");

    fs::write(&fifo, "a file\n").unwrap();
    let (said, code) = Pipe::start(&["--fifo", fifo_text, template]).end();
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("in is not a FIFO"), "{said}");
    assert_eq!(fs::read_to_string(&fifo).unwrap(), "a file\n");
}

#[test]
fn a_folder_that_is_removed_and_made_anew_gets_the_next_lines() {
    let dir = tempfile::tempdir().unwrap();
    let (logs, away) = (dir.path().join("logs"), dir.path().join("away"));
    fs::create_dir(&logs).unwrap();
    let template = logs.join("%Y%m%d.log");
    let mut pipe = Pipe::start(&[template.to_str().unwrap()]);
    let written = || fs::read_to_string(logs.join("latest")).unwrap_or_default();
    pipe.say("one\n");
    until("it is written", || written() == "one\n");
    fs::remove_dir_all(&logs).unwrap();
    pipe.say("two\n");
    std::thread::sleep(std::time::Duration::from_millis(300));
    fs::create_dir(&logs).unwrap();
    until("it is written to the new one", || written() == "two\n");
    // What is moved keeps its file to the end; the next file is made where the path leads.
    fs::rename(&logs, &away).unwrap();
    fs::create_dir(&logs).unwrap();
    pipe.say("three\n");
    until("it follows its file", || fs::read_to_string(away.join("latest")).unwrap() == "two\nthree\n");
    fs::remove_file(away.join(fs::read_link(away.join("latest")).unwrap())).unwrap();
    pipe.say("four\n");
    let (said, code) = pipe.end();
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(all_text(&sealed(&logs)), "four\n");
    for told in ["was removed by another program, with 1 line", "cannot write: No such file", "with 2 lines"] {
        assert!(said.contains(told), "{told}: {said}");
    }
}

#[test]
fn a_file_is_closed_on_time_without_traffic_and_term_ends_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let template = dir.path().join("%Y/%m/%d%H%M.log");
    let mut pipe = Pipe::start(&["--every", "1s", "--zone", "UTC", template.to_str().unwrap()]);
    pipe.say("one\nhalf of a ");
    let closed = || sh(&format!("grep -rl '\"sealed\"' {} --include='.*.seal' | wc -l", dir.path().display()));
    until("it is closed", || closed() == "1");
    for signal in ["-TERM", "-HUP", "-USR1", "-USR2", "-WINCH"] {
        sh(&format!("kill {signal} {}", pipe.0.id()));
    }
    pipe.say("line\nlast");
    assert_eq!(pipe.end(), (String::new(), Some(0)));
    let segments = sealed(dir.path());
    // A line goes where its end was read.
    assert_eq!(segments[0].text, "one\n");
    assert_eq!(segments[0].seal["why"], "period");
    let texts: String = all_text(&segments[1..]);
    assert_eq!(texts, "half of a line\nlast");
    let latest = fs::read_link(dir.path().join("latest")).unwrap();
    assert!(segments.last().unwrap().path.ends_with(&latest), "{}", latest.display());
}

#[test]
fn by_size_a_file_ends_with_a_whole_line() {
    let dir = tempfile::tempdir().unwrap();
    let template = dir.path().join("%Y%m%d.log");
    let mut pipe = Pipe::start(&["--size", "1KiB", template.to_str().unwrap()]);
    let lines: Vec<String> = (0..500).map(|number| format!("{number} {}\n", "x".repeat(number % 90))).collect();
    let lines = lines.concat();
    pipe.say(&lines);
    assert_eq!(pipe.end(), (String::new(), Some(0)));
    let segments = sealed(dir.path());
    let texts: Vec<&str> = segments.iter().map(|segment| segment.text.as_str()).collect();
    assert_eq!(texts.concat(), lines);
    assert!(texts.iter().all(|text| text.ends_with('\n') && text.len() < 1024 + 100), "whole lines");
    assert!(texts.len() > 10, "{}", texts.len());
}

/// A small file system, nearly full.
fn full_disk() -> PathBuf {
    let logs = folder().join("logs");
    sh(&format!(
        "mkdir {0}; mount -t tmpfs -o size=256k fanli-test {0}; head -c 200K /dev/zero > {0}/filler",
        logs.display()
    ));
    logs
}

/// How much room it has left, in KiB.
fn room(logs: &Path) -> String {
    sh(&format!("df --output=avail {} | tail -n 1", logs.display())).trim().to_owned()
}

/// As many numbered lines as fill it and the spool many times over.
fn many_lines() -> String {
    (0..20_000).map(|number| format!("{number:06} {}\n", "x".repeat(100))).collect::<Vec<_>>().concat()
}

#[test]
fn on_a_full_disk_the_program_waits_and_no_line_is_lost() {
    apart("log_pipe::on_a_full_disk_the_program_waits_and_no_line_is_lost", || {
        let logs = full_disk();
        let template = logs.join("%Y%m%d.log");
        let mut pipe = Pipe::start(&["--spool", "128KiB", template.to_str().unwrap()]);
        let mut input = pipe.0.stdin.take().unwrap();
        let writing = std::thread::spawn(move || input.write_all(many_lines().as_bytes()).unwrap());
        until("the disk is full", || room(&logs) == "0");
        std::thread::sleep(std::time::Duration::from_millis(500));
        assert!(!writing.is_finished(), "the program waits");
        sh(&format!("mount -o remount,size=64m {}", logs.display()));
        writing.join().unwrap();
        let (said, code) = pipe.end();
        assert_eq!(code, Some(0), "{said}");
        assert!(
            said.contains("cannot write: No space left on device") && said.contains("can be written again"),
            "{said}"
        );
        assert_eq!(all_text(&sealed_beside(&logs.join("filler"))), many_lines());
    });
}

#[test]
fn what_is_left_out_on_a_full_disk_is_counted_to_the_line() {
    apart("log_pipe::what_is_left_out_on_a_full_disk_is_counted_to_the_line", || {
        let logs = full_disk();
        let template = logs.join("%Y%m%d.log");
        let mut pipe = Pipe::start(&["--spool", "128KiB", "--on-full", "drop", template.to_str().unwrap()]);
        pipe.say(&many_lines());
        until("the disk is full and all lines are read", || {
            let waiting = rustix::io::ioctl_fionread(pipe.0.stdin.as_ref().unwrap()).unwrap();
            room(&logs) == "0" && waiting == 0
        });
        let written = || fs::metadata(logs.join("latest")).unwrap().len();
        let before = written();
        sh(&format!("rm {}/filler", logs.display()));
        until("it writes again", || written() > before);
        // What waited is written at once then.
        std::thread::sleep(std::time::Duration::from_millis(500));
        pipe.say("999999 the last one\n");
        let (said, code) = pipe.end();
        assert_eq!(code, Some(0), "{said}");
        let segments = sealed_beside(&logs.join("filler"));
        let text = all_text(&segments);
        let count = |field: &str| segments.iter().map(|segment| segment.seal[field].as_u64().unwrap()).sum::<u64>();
        let dropped = count("dropped_lines");
        assert!(dropped > 10_000, "{dropped}: {said}");
        assert_eq!(text.lines().count() as u64 + dropped, 20_001, "{said}");
        assert_eq!(count("dropped_bytes") + text.len() as u64, many_lines().len() as u64 + 20);
        let torn: Vec<&str> = text.lines().filter(|line| line.len() != 107).collect();
        assert_eq!(torn, ["999999 the last one"], "{said}");
        assert!(text.ends_with("999999 the last one\n"), "{said}");
        assert!(said.contains(&format!("{dropped} lines")), "{said}");
    });
}

/// The segments beside something else, which goes.
fn sealed_beside(other: &Path) -> Vec<Sealed> {
    let _ = fs::remove_file(other);
    sealed(other.parent().unwrap())
}

#[test]
fn links_that_others_have_planted_lead_nowhere() {
    let (dir, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let year = sh("date -u +%Y");
    let sentinel = outside.path().join("sentinel");
    fs::write(&sentinel, "untouched").unwrap();
    symlink(outside.path(), dir.path().join(&year)).unwrap();
    symlink(&sentinel, dir.path().join("latest")).unwrap();
    let template = dir.path().join("%Y/%m.log");
    let mut pipe = Pipe::start(&["--zone", "UTC", template.to_str().unwrap()]);
    pipe.say("one\n");
    std::thread::sleep(std::time::Duration::from_millis(300));
    fs::remove_file(dir.path().join(&year)).unwrap();
    let (said, code) = pipe.end();
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("cannot write"), "{said}");
    assert_eq!(fs::read_to_string(&sentinel).unwrap(), "untouched");
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1, "nothing was made there");
    assert_eq!(all_text(&sealed(&dir.path().join(&year))), "one\n");
}

#[test]
fn root_goes_on_as_the_owner_and_needs_little_memory() {
    let dir = tempfile::tempdir().unwrap();
    sh(&format!("chmod 755 {0}; mkdir -m 755 {0}/logs; chown 33:33 {0}/logs", dir.path().display()));
    let logs = dir.path().join("logs");
    let template = logs.join("%Y%m%d.log");
    let mut pipe = Pipe::start(&[template.to_str().unwrap()]);
    let line = format!("{}\n", "y".repeat(199));
    pipe.say(&line.repeat(50_000));
    until("it has written", || fs::metadata(logs.join("latest")).is_ok_and(|meta| meta.len() == 10_000_000));
    let status = fs::read_to_string(format!("/proc/{}/status", pipe.0.id())).unwrap();
    let of = |field: &str| status.lines().find_map(|line| line.strip_prefix(field)).unwrap().trim().to_owned();
    assert_eq!(of("Uid:"), "33\t33\t33\t33");
    assert_eq!((of("Gid:").as_str(), of("Groups:").as_str()), ("33\t33\t33\t33", ""));
    let peak: u64 = of("VmHWM:").trim_end_matches(" kB").parse().unwrap();
    let anonymous: u64 = of("RssAnon:").trim_end_matches(" kB").parse().unwrap();
    assert!(anonymous < 8 * 1024, "{anonymous} kB of its own, {peak} kB at the most with the program's file");
    assert_eq!(pipe.end(), (String::new(), Some(0)));
    for segment in sealed(&logs) {
        let meta = fs::metadata(&segment.path).unwrap();
        assert_eq!((meta.uid(), meta.gid(), meta.mode() & 0o777), (33, 33, 0o644));
    }
}
