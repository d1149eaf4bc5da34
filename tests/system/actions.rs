//! Commands as other users, the examples of the acting kinds, and what is left of a command when fanli is killed.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use fanli::resource::Resource as _;
use fanli::resource::kinds::schema;
use fanli::value::{Map, Value};

use crate::apart::{apart, sh};
use crate::common::{Bench, build, fanli};
use crate::file_examples::planned;

/// Waits until something holds; fails with `what` after `limit`.
#[track_caller]
fn eventually(what: &str, limit: Duration, holds: impl Fn() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < limit, "{what}: not within {limit:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn shell(script: &str, user: Value) -> Map {
    crate::args! { "script" => script, "user" => user }
}

fn said(bench: &Bench, args: Map) -> String {
    let kind = build("shell", args);
    let change = bench.plan(&kind).unwrap().unwrap();
    let output = bench.apply(&kind, &change).unwrap();
    output["stdout"].as_str().unwrap().to_owned()
}

/// A user with a second group. Only apart: labs of other tests show the machine's own accounts.
fn make_user() -> &'static str {
    sh("groupadd fanli-test-extra; \
        useradd --uid 4711 --groups fanli-test-extra --home-dir /var/tmp fanli-test-user");
    "fanli-test-user"
}

#[test]
fn a_command_runs_as_its_user_with_nothing_of_root() {
    apart("actions::a_command_runs_as_its_user_with_nothing_of_root", as_its_user);
}

fn as_its_user() {
    let user = make_user();
    let bench = Bench::new();
    let script = "id -un; id -Gn; echo $HOME $USER $LOGNAME; grep -c . /etc/shadow || true";
    let found = said(&bench, shell(script, Value::from(user)));
    let lines: Vec<&str> = found.lines().collect();
    assert_eq!(
        lines,
        ["fanli-test-user", "fanli-test-user fanli-test-extra", "/var/tmp fanli-test-user fanli-test-user"]
    );
    assert_eq!(said(&bench, shell("id -u; id -G", Value::Int(4711))).lines().next(), Some("4711"));
    // A number that nobody has: its own group and no other.
    assert_eq!(said(&bench, shell("id -u; id -G", Value::Int(54_321))), "54321\n54321");
    let kind = build("shell", shell("true", Value::from("fanli-test-nobody")));
    let change = bench.plan(&kind).unwrap().unwrap();
    let failure = bench.apply(&kind, &change).unwrap_err();
    assert_eq!(failure.to_string(), "there is no user `fanli-test-nobody` on this host");
    assert!(failure.hint.is_some());
    let guarded = crate::args! {
        "script" => "true", "user" => user, "unless" => "test $(id -u) = 4711",
    };
    assert_eq!(bench.plan(&build("shell", guarded)).unwrap(), None);
}

/// What the examples make, gone before and after.
struct Made;

impl Made {
    const PATHS: [&str; 2] = ["/tmp/fanli-example.tar", "/tmp/fanli-example.txt"];

    fn clear() {
        for path in Self::PATHS {
            let _ = fs::remove_file(path);
        }
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        Self::clear();
    }
}

#[test]
fn examples_of_the_acting_kinds_work() {
    Made::clear();
    let _made = Made;
    let bench = Bench::new();
    for kind in ["command", "shell"] {
        let task = planned(&bench, schema(kind).unwrap().example);
        assert!(bench.converge(&task).unwrap().is_some(), "{kind} did nothing");
        assert_eq!(bench.plan(&task).unwrap(), None, "{kind}");
    }
    let listener = TcpListener::bind("127.0.0.1:18765").unwrap();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let _ = stream.read(&mut [0; 4096]);
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\npong\n").unwrap();
    });
    let task = planned(&bench, schema("http").unwrap().example);
    let observed = bench.block(task.observe(&bench.probe)).unwrap();
    assert_eq!(observed.output["body"], Value::from("pong\n"));
    server.join().unwrap();
    let listener = TcpListener::bind("127.0.0.1:18766").unwrap();
    let task = planned(&bench, schema("tcp").unwrap().example);
    assert!(bench.block(task.observe(&bench.probe)).unwrap().output.contains_key("took"));
    drop(listener);
    let closed = build(
        "tcp",
        crate::args! { "address" => "127.0.0.1:18766", "within" => Value::Duration(Duration::from_millis(300)) },
    );
    let failure = bench.block(closed.observe(&bench.probe)).unwrap_err();
    let told = [failure.to_string(), failure.causes.join("; ")].join(": ");
    assert!(told.contains("127.0.0.1:18766 takes no connections") && told.contains("refused"), "{told}");
}

/// A run whose only task does not end, with a mark in the command lines of all that it starts.
struct Hanging {
    child: Child,
    mark: String,
    _folder: tempfile::TempDir,
}

impl Hanging {
    fn start(number: u32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mark = format!("600.{}{number:02}", std::process::id());
        let playbook = folder.path().join("play.fp");
        let task = format!("shell \"sleep {mark} & (sleep {mark} | cat) & sleep {mark}\"");
        let text = format!(
            "hosts here {{\n  host \"here\" {{ connection = local }}\n}}\nplay \"p\" on hosts.here {{\n  {task}\n}}\n"
        );
        fs::write(&playbook, text).unwrap();
        let state = folder.path().join("state");
        let mut command = Command::new(fanli());
        command.arg("play").arg(&playbook).arg("--state-dir").arg(&state);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let hanging = Self { child: command.spawn().unwrap(), mark, _folder: folder };
        eventually("its programs run", Duration::from_secs(60), || hanging.sleeping().len() == 3);
        hanging
    }

    /// The processes that sleep for it.
    fn sleeping(&self) -> Vec<u32> {
        processes(|line| line.starts_with(&format!("sleep\0{}", self.mark)))
    }

    /// Its helper.
    fn helper(&self) -> u32 {
        let parent = format!("PPid:\t{}\n", self.child.id());
        let ours =
            |pid: &u32| fs::read_to_string(format!("/proc/{pid}/status")).is_ok_and(|text| text.contains(&parent));
        let found: Vec<u32> = processes(|line| line.contains("\0helper\0")).into_iter().filter(ours).collect();
        assert_eq!(found.len(), 1, "{found:?}");
        found[0]
    }

    fn nothing_is_left(&self) {
        eventually("what the command started goes away", Duration::from_secs(20), || self.sleeping().is_empty());
    }
}

impl Drop for Hanging {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        for pid in self.sleeping() {
            kill(pid);
        }
    }
}

fn processes(wanted: impl Fn(&str) -> bool) -> Vec<u32> {
    let pids = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        wanted(&String::from_utf8_lossy(&line))
    })
    .collect()
}

fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(pid.cast_signed()).unwrap();
    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
}

#[test]
fn a_killed_helper_leaves_no_child() {
    let mut hanging = Hanging::start(1);
    kill(hanging.helper());
    hanging.nothing_is_left();
    let code = hanging.child.wait().unwrap().code();
    assert_ne!(code, Some(0), "a run without its helper is no success");
}

#[test]
fn a_killed_controller_leaves_neither_helper_nor_child() {
    let mut hanging = Hanging::start(2);
    let helper = hanging.helper();
    hanging.child.kill().unwrap();
    hanging.child.wait().unwrap();
    hanging.nothing_is_left();
    eventually("the helper ends", Duration::from_secs(20), || !fs::exists(format!("/proc/{helper}")).unwrap());
}

#[test]
fn a_run_that_is_stopped_takes_its_command_along() {
    let mut hanging = Hanging::start(3);
    let pid = rustix::process::Pid::from_child(&hanging.child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    hanging.nothing_is_left();
    assert_ne!(hanging.child.wait().unwrap().code(), Some(0));
}
