//! shadow's programs killed at each call that writes, by the kind's own way: the next run completes what was left. Needs
//! strace.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use fanli::resource::kinds::Kind;
use fanli::value::Value;

use crate::apart::{apart, folder, sh};
use crate::args;
use crate::common::chance::{Chance, moments};
use crate::common::{Bench, build};

const TABLES: [&str; 6] = ["passwd", "shadow", "group", "gshadow", "subuid", "subgid"];

/// Every call that can leave something behind.
const CALLS: &str =
    "openat,write,pwrite64,fsync,rename,renameat,renameat2,link,linkat,unlink,unlinkat,fchmod,chmod,fchown,chown";

/// Puts strace before a program: `/usr/local/sbin` is looked into first.
fn wrap(program: &str, inject: &str, log: &Path) {
    let real = sh(&format!("PATH=/usr/sbin:/usr/bin:/sbin:/bin command -v {program}"));
    let (path, inject) = (
        format!("/usr/local/sbin/{program}"),
        if inject.is_empty() { String::new() } else { format!("-e inject={inject}") },
    );
    let script = format!("#!/bin/sh\nexec strace -qq -o {} -e trace={CALLS} {inject} {real} \"$@\"\n", log.display());
    fs::write(&path, script).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
}

fn unwrap(program: &str) {
    fs::remove_file(format!("/usr/local/sbin/{program}")).unwrap();
}

/// The tables as they are, to be put back.
fn keep(at: &Path) {
    fs::create_dir_all(at).unwrap();
    for table in TABLES {
        sh(&format!("cp -p /etc/{table} {}", at.join(table).display()));
    }
}

fn put_back(at: &Path) {
    for table in TABLES {
        sh(&format!("cp -p {} /etc/{table}", at.join(table).display()));
    }
    sh(
        "rm -f /etc/*.lock /etc/passwd.[0-9]* /etc/shadow.[0-9]* /etc/group.[0-9]* /etc/gshadow.[0-9]* /etc/sub?id.[0-9]*",
    );
}

/// Every call of a run as strace counts them: by name.
fn points(log: &Path) -> Vec<(String, u32)> {
    let mut counts = std::collections::BTreeMap::new();
    let text = fs::read_to_string(log).unwrap();
    let names = text.lines().filter_map(|line| line.split_once('(')).map(|(name, _)| name.to_owned());
    // What is only read leaves nothing behind.
    let mut points = Vec::new();
    for (name, line) in names.zip(text.lines().filter(|line| line.contains('('))) {
        let count = counts.entry(name.clone()).or_insert(0u32);
        *count += 1;
        if name != "openat" || line.contains("O_CREAT") {
            points.push((name, *count));
        }
    }
    points
}

/// Kills `program` at each of its calls while the task is applied; each time the next run must bring about `whole`.
fn kill_at_each(program: &str, task: &Kind, whole: &dyn Fn(&str)) {
    let bench = Bench::new();
    let (tables, log) = (folder().join("tables"), folder().join("log"));
    keep(&tables);
    wrap(program, "", &log);
    bench.converge(task).unwrap();
    let points = Chance::new().some(points(&log), moments(8, usize::MAX));
    whole("not killed");
    let (mut killed, mut locked, mut strays) = (0, 0, 0);
    for (name, which) in &points {
        put_back(&tables);
        let at = format!("{program} at {name}:signal=KILL:when={which}");
        wrap(program, &format!("{name}:signal=KILL:when={which}"), &log);
        if let Err(failure) = bench.converge(task) {
            assert!(failure.to_string().contains("was ended by signal 9"), "{at}: {failure}");
            killed += 1;
        }
        locked += u32::from(TABLES.iter().any(|table| Path::new(&format!("/etc/{table}.lock")).exists()));
        unwrap(program);
        let stray = !left().is_empty() && bench.plan(task).unwrap().is_some();
        strays += u32::from(stray);
        bench.converge(task).unwrap_or_else(|failure| panic!("{at}: {failure}"));
        assert_eq!(bench.plan(task).unwrap(), None, "{at}");
        whole(&at);
        assert!(!stray || left().is_empty(), "{at}: {}", left());
    }
    eprintln!(
        "{program}: killed at {killed} of {} calls, {locked} times with a lock left, {strays} times with half of one",
        points.len()
    );
    assert!(killed + 3 >= points.len() && locked > 0, "{killed} of {}, {locked} locks", points.len());
}

/// Halves of locks of programs that are gone.
fn left() -> String {
    sh("ls /etc | grep -E '^(passwd|shadow|group|gshadow|sub.id)[.][0-9]+$' || :")
}

fn complaints() -> String {
    sh("pwck -rq 2>&1 || :; grpck -r 2>&1 || :")
}

fn task() -> Kind {
    let groups = Value::List(vec![Value::from("adm"), Value::from("staff")]);
    let more = args! { "name" => "fanli-tk", "uid" => 7541i64, "home" => "/nonexistent", "groups" => groups, "shell" => "/bin/false" };
    build("user", more)
}

#[test]
fn killed_while_a_user_is_made_changed_and_removed() {
    apart("accounts_killed::killed_while_a_user_is_made_changed_and_removed", || {
        let bench = Bench::new();
        let sane = complaints();
        let told = |at: &str| {
            let new = complaints();
            let new = new.lines().filter(|line| !sane.contains(line) && !line.contains("/nonexistent"));
            assert_eq!(new.collect::<Vec<_>>(), Vec::<&str>::new(), "{at}");
        };
        let there = |at: &str| {
            assert_eq!(sh("id -nG fanli-tk"), "fanli-tk adm staff", "{at}");
            assert_eq!(sh("grep -c ^fanli-tk: /etc/shadow"), "1", "{at}");
            told(at);
        };
        kill_at_each("useradd", &task(), &there);
        sh("usermod -s /bin/sh -G games fanli-tk");
        kill_at_each("usermod", &task(), &|at| {
            assert_eq!(sh("id -nG fanli-tk"), "fanli-tk adm staff games", "{at}");
            told(at);
        });
        bench.converge(&task()).unwrap();
        let gone = build("user", args! { "name" => "fanli-tk", "state" => "absent" });
        kill_at_each("userdel", &gone, &|at| {
            assert_eq!(sh("grep fanli-tk /etc/passwd /etc/shadow || :"), "", "{at}");
            let others = sh("grep fanli-tk /etc/group || :");
            assert!(others.lines().all(|line| line.starts_with("fanli-tk:")), "{at}: {others}");
        });
    });
}

#[test]
fn killed_while_a_group_is_made_changed_and_removed() {
    apart("accounts_killed::killed_while_a_group_is_made_changed_and_removed", || {
        let sane = complaints();
        let there = |gid: &'static str| {
            let sane = sane.clone();
            move |at: &str| {
                assert_eq!(sh("getent group fanli-tk"), format!("fanli-tk:x:{gid}:"), "{at}");
                assert_eq!(sh("grep -c ^fanli-tk: /etc/gshadow"), "1", "{at}");
                assert_eq!(complaints(), sane, "{at}");
            }
        };
        let group = |gid: i64| build("group", args! { "name" => "fanli-tk", "gid" => gid });
        kill_at_each("groupadd", &group(7542), &there("7542"));
        kill_at_each("groupmod", &group(7543), &there("7543"));
        let gone = build("group", args! { "name" => "fanli-tk", "state" => "absent" });
        kill_at_each("groupdel", &gone, &|at| {
            assert_eq!(sh("grep fanli-tk /etc/group /etc/gshadow || :"), "", "{at}");
            assert_eq!(complaints(), sane, "{at}");
        });
    });
}
