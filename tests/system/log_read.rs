//! `fanli logs cat`, `grep` and `tail`: lines of several hosts, as they are written, and to a reader that takes its time.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::common::fanli;
use crate::log_keep::{keeps, logs, seal_of, written};

/// Has `fanli log-pipe` write lines into a site's folder.
fn write(folder: &Path, site: &str, more: &[&str], text: &str) {
    let mut pipe = pipe(folder, site, more);
    pipe.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    assert!(pipe.wait().unwrap().success());
}

fn pipe(folder: &Path, site: &str, more: &[&str]) -> Child {
    fs::create_dir_all(folder.join(site)).unwrap();
    let mut pipe = Command::new(fanli());
    pipe.arg("log-pipe").args(more).arg(folder.join(site).join("%Y%m%d.log")).stdin(Stdio::piped());
    pipe.spawn().unwrap()
}

/// A line of an access log, of some seconds ago.
fn access(seconds_ago: i64, path: &str) -> String {
    let at = jiff::Timestamp::now().checked_sub(jiff::SignedDuration::from_secs(seconds_ago)).unwrap();
    format!("192.0.2.1 - - [{}] \"GET {path}\" 200\n", at.strftime("%d/%b/%Y:%H:%M:%S +0000"))
}

/// What it prints, what it complains of, its exit code.
fn told(arguments: &[&str]) -> (String, String, Option<i32>) {
    let done = Command::new(fanli()).arg("logs").args(arguments).output().unwrap();
    let [out, complaints] = [done.stdout, done.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    (out, complaints, done.status.code())
}

#[test]
fn lines_of_several_hosts_are_one_stream_and_one_that_is_away_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().display().to_string();
    let text = format!(
        r#"hosts both {{
  host "one" {{ connection = local }}
  host "two" {{ connection = local }}
}}
nodes web {{
  on    = hosts.both
  count = 2
  name  = "web{{{{ node.index }}}}"
}}
play "logs" on hosts.both {{
  logs "{at}/{{{{ host.name }}}}" {{ pack = gzip }}
}}
play "of nodes" on nodes.web {{
  logs "{at}/{{{{ node.name }}}}" {{ age = 1d }}
}}
"#
    );
    let play = dir.path().join("play.fp");
    fs::write(&play, &text).unwrap();
    let play = play.to_str().unwrap();
    let all: Vec<String> = (0..8).map(|number| access(100 - number, &format!("/{number}"))).collect();
    // Lines of four folders, in turns; one of them compressed.
    let places = [("one", "www"), ("two", "www"), ("web1", "shop"), ("web2", "www")];
    for (number, (folder, site)) in places.iter().enumerate() {
        write(&dir.path().join(folder), site, &[], &[all[number].as_str(), all[number + 4].as_str()].concat());
    }
    keeps(&["--pack", "zstd", "--pack-after", "0s", &format!("{at}/web2")]);
    let labelled = |numbers: &[usize]| -> String {
        let label = |number: &usize| places[number % 4];
        let line = |number: &usize| format!("{} {}  {}", label(number).0, label(number).1, all[*number]);
        numbers.iter().map(line).collect::<Vec<_>>().concat()
    };
    let every = [0, 1, 2, 3, 4, 5, 6, 7];
    let good = |arguments: &[&str]| {
        let (out, complaints, code) = told(arguments);
        assert_eq!((complaints.as_str(), code), ("", Some(0)), "{arguments:?}: {out}");
        out
    };
    assert_eq!(good(&["cat", play]), labelled(&every));
    assert_eq!(good(&["cat", play, "--bare"]), all.concat());
    assert_eq!(good(&["cat", play, "--limit", "web1"]), labelled(&[2, 6]));
    assert_eq!(good(&["cat", play, "--site", "shop"]), labelled(&[2, 6]));
    assert_eq!(good(&["tail", "-n", "3", play]), labelled(&[5, 6, 7]));
    assert_eq!(good(&["grep", "GET /[25]", play]), labelled(&[2, 5]));
    assert_eq!(good(&["grep", "-i", "get /2", play]), labelled(&[2]));
    assert_eq!(good(&["grep", "-v", "GET /[0-6]", play]), labelled(&[7]));
    assert_eq!(
        good(&["grep", "GET /2", "--color", "always", "--bare", play]),
        all[2].replace("GET /2", "\x1b[1;31mGET /2\x1b[0m")
    );
    assert_eq!(good(&["grep", "nothing", play]), "");
    assert_eq!(good(&["cat", "--since", "1h", "--until", "1h", play]), "");
    assert_eq!(good(&["cat", "--since", "1h", play]), labelled(&every));
    // On the host itself.
    assert_eq!(
        good(&["cat", &format!("{at}/web1")]),
        [2, 6].map(|number: usize| format!("shop  {}", all[number])).concat()
    );
    let object: Value = serde_json::from_str(&good(&["grep", "GET /2", "--json", play])).unwrap();
    let file = object["file"].as_str().unwrap();
    assert!(file.starts_with("shop/20"), "{file}");
    assert_eq!(
        object,
        serde_json::json!({
            "at": object["at"], "file": file, "folder": format!("{at}/web1"), "host": "one", "line": all[2].trim_end(),
            "node": "web1", "site": "shop"
        })
    );
    let places_of = all[2].split(['[', ']']).nth(1).unwrap();
    let of_line = jiff::fmt::strtime::parse("%d/%b/%Y:%H:%M:%S %z", places_of).unwrap().to_timestamp().unwrap();
    assert_eq!(object["at"].as_str().unwrap(), of_line.to_string());

    // A folder that is given twice, by its other name, and within another one: each file once.
    let (one, two) = (format!("{at}/web1"), format!("{at}/two/../web1/shop"));
    assert_eq!(good(&["cat", "--bare", &one, &one, &two]), [2, 6].map(|number: usize| all[number].as_str()).concat());
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let done = Command::new(fanli()).args(["logs", "cat", play]).stdout(full).output().unwrap();
    let complaint = String::from_utf8(done.stderr).unwrap();
    assert_eq!(complaint, "error: lines cannot be written: No space left on device (os error 28)\n");
    assert_eq!(done.status.code(), Some(4));

    // A host that cannot be reached, and a folder that is not there.
    let gone = text.replace("host \"two\" { connection = local }", "host \"two\" { address = 127.0.0.1  port = 1 }");
    fs::write(play, gone).unwrap();
    fs::remove_dir_all(dir.path().join("web1")).unwrap();
    let (out, complaints, code) = told(&["cat", play]);
    assert_eq!((out, code), (labelled(&[0, 4]), Some(5)), "{complaints}");
    assert!(complaints.contains("error: two: cannot connect to 127.0.0.1"), "{complaints}");
    assert!(complaints.contains(&format!("error: one: there is no directory {at}/web1\n")), "{complaints}");
    let (_, complaints, code) = told(&["cat", play, "--limit", "one,web1"]);
    assert_eq!(code, Some(4), "{complaints}");
}

/// Starts it, and gives its lines.
fn followed(arguments: &[&str]) -> (Child, impl Iterator<Item = String> + use<>) {
    let mut command = Command::new(fanli());
    let mut child = command.arg("logs").args(arguments).stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    (child, lines)
}

#[test]
fn lines_are_followed_through_many_files_and_ctrl_c_ends_it() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("logs");
    write(&folder, "www", &[], "before\n");
    let mut pipe = pipe(&folder, "www", &["--size", "1KiB"]);
    let mut into = pipe.stdin.take().unwrap();
    let line = |number: usize| format!("{number:05} {}\n", "x".repeat(60));
    into.write_all(line(0).as_bytes()).unwrap();
    let folder = folder.to_str().unwrap();
    // It begins with what is there, so that it is known when it has begun.
    let mut until = std::time::Instant::now() + Duration::from_secs(20);
    while !logs(&["cat", folder]).0.contains("00000") {
        assert!(std::time::Instant::now() < until, "the first line is not written");
        std::thread::sleep(Duration::from_millis(50));
    }
    let (mut child, mut lines) = followed(&["tail", "-f", "-n", "1", "--bare", folder]);
    assert_eq!(lines.next().unwrap() + "\n", line(0));
    let writing = std::thread::spawn(move || {
        for number in 1..1_000 {
            into.write_all(line(number).as_bytes()).unwrap();
            if number % 100 == 0 {
                std::thread::sleep(Duration::from_millis(200));
            }
        }
    });
    for number in 1..1_000 {
        assert_eq!(lines.next().unwrap() + "\n", line(number));
    }
    writing.join().unwrap();
    assert!(pipe.wait().unwrap().success());
    let (mut grep, mut found) = followed(&["grep", "b.*d", "--follow", "--since", "1h", folder]);
    write(Path::new(folder), "shop", &[], "a\nbad\nc\n");
    assert_eq!(found.next().unwrap(), "shop  bad");
    for child in [&mut child, &mut grep] {
        kill_process(Pid::from_child(child), Signal::INT).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(130));
    }
    assert_eq!((lines.next(), found.next()), (None, None));
    // What nobody reads any more ends by itself.
    let (mut child, mut lines) = followed(&["cat", folder]);
    assert_eq!(lines.next().unwrap(), "www  before");
    drop(lines);
    assert!(child.wait().unwrap().success());
    // Also when nothing more comes.
    let (mut child, mut lines) = followed(&["tail", "-f", "-n", "1", "--bare", folder]);
    assert_eq!(lines.next().unwrap(), "c");
    drop(lines);
    until = std::time::Instant::now() + Duration::from_secs(30);
    while child.try_wait().unwrap().is_none() {
        assert!(std::time::Instant::now() < until, "it goes on for ever");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn a_folder_that_was_made_anew_is_followed_and_one_that_is_closed_hides_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("logs");
    write(&folder, "www", &[], "before\n");
    let at = folder.to_str().unwrap();
    let (mut child, mut lines) = followed(&["tail", "-f", "-n", "1", "--bare", at]);
    assert_eq!(lines.next().unwrap(), "before");
    fs::remove_dir_all(&folder).unwrap();
    std::thread::sleep(Duration::from_secs(1));
    write(&folder, "www", &[], "anew\n");
    assert_eq!(lines.next().unwrap(), "anew");
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    child.wait().unwrap();

    fs::create_dir(folder.join("closed")).unwrap();
    for (path, mode) in [(folder.join("closed").as_path(), 0o700), (dir.path(), 0o755)] {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
    let mut other = Command::new("setpriv");
    other.args(["--reuid=65534", "--regid=65534", "--clear-groups", fanli(), "logs", "cat", at]).env("HOME", "/tmp");
    let done = other.output().unwrap();
    let complaint = String::from_utf8(done.stderr).unwrap();
    assert_eq!(String::from_utf8(done.stdout).unwrap(), "www  anew\n", "{complaint}");
    assert!(complaint.starts_with(&format!("error: cannot look at {at}/closed: ")), "{complaint}");
    assert_eq!(done.status.code(), Some(4));
}

#[test]
fn status_tells_what_waits_for_a_copy_and_what_was_lost() {
    let dir = tempfile::tempdir().unwrap();
    let (folder, state) = (dir.path().join("logs"), dir.path().join("state-%h"));
    fs::create_dir(&folder).unwrap();
    written(&folder, 40);
    let (at, state) = (folder.to_str().unwrap(), state.to_str().unwrap());
    let play = dir.path().join("play.fp");
    let text = format!(
        "hosts both {{\n  host \"one\" {{ connection = local }}\n}}\n\
         play \"logs\" on hosts.both {{\n  logs \"{at}\" {{ age = 30d  ship = \"rsync://127.0.0.1:1/logs/x\" }}\n}}\n"
    );
    fs::write(&play, &text).unwrap();
    let play = play.to_str().unwrap();
    let status = |more: &[&str]| told(&[&["status", "--state-dir", state], more].concat());
    assert_eq!(status(&[play]).2, Some(0));
    assert_eq!(status(&[play]).0, "one\n  no `logs` task has declared a folder\n");
    let done = Command::new(fanli()).args(["play", play, "--state-dir", state]).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let files = crate::log_keep::segments(&folder).len();
    let (out, complaints, code) = status(&[play]);
    assert_eq!((complaints.as_str(), code), ("", Some(0)), "{out}");
    assert!(out.starts_with(&format!("one\n  {at}  {files} files, ")), "{out}");
    let waiting = format!("\n    copies  {files} files (");
    assert!(
        out.contains(&waiting) && out.contains(" without one at rsync://127.0.0.1:1/logs/x, the oldest of "),
        "{out}"
    );
    assert!(!out.contains("LATE") && !out.contains("LOST"), "{out}");
    let (out, _, code) = status(&["--max-lag", "30m", play]);
    assert!(out.contains(" UTC: LATE\n") && code == Some(4), "{out}");
    // On the host itself, as data.
    let (out, _, code) = told(&["status", "--json", "--state-dir", &state.replace("%h", "one")]);
    let found: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&found["folders"][0]["path"], &found["folders"][0]["copies"]["waiting"]), (&at.into(), &files.into()));
    assert_eq!(code, Some(0));
    // Its disk was full.
    let segment = crate::log_keep::segments(&folder).remove(0);
    let seal = seal_of(&segment);
    let mut lost: Value = serde_json::from_slice(&fs::read(&seal).unwrap()).unwrap();
    (lost["dropped_lines"], lost["dropped_bytes"]) = (7.into(), 700.into());
    fs::write(&seal, format!("{lost}\n")).unwrap();
    let (out, _, code) = status(&[play]);
    assert!(out.contains("\n    LOST    7 lines (700 B) left out in the last day\n") && code == Some(4), "{out}");
    lost["sealed"] =
        jiff::Timestamp::now().checked_sub(jiff::SignedDuration::from_hours(25)).unwrap().to_string().into();
    fs::write(&seal, format!("{lost}\n")).unwrap();
    assert_eq!(status(&[play]).2, Some(0));
    // A folder that is gone, and a host that is.
    fs::remove_dir_all(&folder).unwrap();
    let (out, _, code) = status(&[play]);
    assert!(out.contains(&format!("\n    wrong   there is no directory {at}\n")) && code == Some(4), "{out}");
    fs::write(play, text.replace("connection = local", "address = 127.0.0.1  port = 1")).unwrap();
    let (out, _, code) = status(&[play]);
    assert!(out.starts_with("one\n  unknown: cannot connect to 127.0.0.1") && code == Some(5), "{out}");
}

/// Longer than a host may be silent: that it waits is no silence.
#[test]
fn a_reader_that_takes_its_time_gets_everything() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("logs");
    let line = |number: usize| format!("{number:07} {}\n", "y".repeat(40));
    let text = (0..300_000).map(line).collect::<Vec<_>>().concat();
    write(&folder, "www", &["--size", "4MiB"], &text);
    let mut command = Command::new(fanli());
    command.args(["logs", "cat", "--bare", folder.to_str().unwrap()]).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    std::thread::sleep(fanli::remote::wire::SILENCE + Duration::from_secs(2));
    let mut read = String::new();
    child.stdout.take().unwrap().read_to_string(&mut read).unwrap();
    assert!(child.wait().unwrap().success());
    // Several files of one day, whose lines have no time: each in its own order.
    let mut lines: Vec<&str> = read.lines().collect();
    lines.sort_unstable();
    assert!(lines == text.lines().collect::<Vec<_>>(), "{} lines", lines.len());
}
