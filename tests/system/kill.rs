//! Killed at every system call, and failed at many: what is being replaced is always wholly old or wholly new, and the next
//! run leaves nothing of ours behind. Needs strace.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;
use std::process::{Command, Output};

use fanli::failure::Failure;
use fanli::system::fs::Attrs;

use crate::common::Bench;
use crate::common::chance::{Chance, moments};

/// Names the folder to work in; set only for the process that is to be killed.
pub const FOLDER: &str = "FANLI_TEST_KILL_FOLDER";

/// Asked for just before the work begins, so that the trace shows where to count from.
pub const MARK: &str = "/fanli-test-kill-mark";

/// The calls that look or change. Everything that the work does is among them; `close` too, as it frees locks.
const CALLS: &str = "openat,newfstatat,fstat,statx,readlinkat,readlink,getdents64,mkdirat,flock,write,fchown,fchownat,\
                     fchmod,fchmodat,fsync,renameat,renameat2,rename,symlinkat,unlinkat,close,fcntl";

const OLD: &[u8] = b"old\n";

fn new_bytes() -> Vec<u8> {
    (0u32..30_000).flat_map(u32::to_le_bytes).collect()
}

fn prepare(dir: &Path) {
    fs::write(dir.join("target"), OLD).unwrap();
    fs::set_permissions(dir.join("target"), fs::Permissions::from_mode(0o600)).unwrap();
    symlink("old", dir.join("link")).unwrap();
}

/// What a run does: one of each thing that is made or replaced.
fn work(dir: &Path) -> Result<(), Failure> {
    let bench = Bench::new();
    let hands = bench.hands();
    let attrs = |mode| Attrs { mode: Some(mode), uid: Some(501), gid: Some(502) };
    assert!(!bench.probe.exists(MARK).unwrap());
    hands.replace(dir.join("target"), &new_bytes(), attrs(0o640))?;
    hands.symlink(dir.join("link"), "new")?;
    hands.make_dir(dir.join("dir"), attrs(0o2750))?;
    hands.remove_file(dir.join("gone"))
}

/// Not a test by itself: the process that strace runs.
#[test]
fn victim() {
    if let Some(dir) = std::env::var_os(FOLDER) {
        work(Path::new(&dir)).unwrap();
    }
}

fn strace(dir: &Path, log: &Path, inject: Option<&str>) -> Output {
    strace_of("kill::victim", dir, log, inject)
}

/// Runs a victim's work under strace, killed or failed at one call where that is named.
pub fn strace_of(victim: &str, dir: &Path, log: &Path, inject: Option<&str>) -> Output {
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-o"]).arg(log).arg("-e").arg(format!("trace={CALLS}"));
    if let Some(inject) = inject {
        command.arg("-e").arg(format!("inject={inject}"));
    }
    command.arg(std::env::current_exe().unwrap());
    command.args(["--exact", victim, "--test-threads=1"]).env(FOLDER, dir);
    command.output().expect("strace is needed: apt-get install strace")
}

/// Every call of the work as `(name, which)`, counted as strace counts: by name, within its thread.
pub fn points(log: &str) -> Vec<(String, u32)> {
    let line = |line: &str| {
        let (thread, rest) = line.split_once(' ')?;
        let name = rest.trim_start().split('(').next()?;
        Some((thread.to_owned(), name.to_owned()))
    };
    let mark = log.lines().position(|line| line.contains(&MARK[1..])).expect("the mark is in the trace");
    let (worker, _) = line(log.lines().nth(mark).unwrap()).unwrap();
    let (mut counts, mut points) = (BTreeMap::new(), Vec::new());
    for (index, text) in log.lines().enumerate() {
        let Some((thread, name)) = line(text) else { continue };
        if thread == worker && name.chars().all(|c| c.is_ascii_alphanumeric()) {
            let count = counts.entry(name.clone()).or_insert(0u32);
            *count += 1;
            if index >= mark {
                points.push((name, *count));
            }
        }
    }
    points
}

/// Whole, each of them: old with old attributes, or new with new ones.
fn check_whole(dir: &Path, at: &str) {
    let look = |name: &str| {
        fs::symlink_metadata(dir.join(name)).map(|meta| (meta.mode() & 0o7777, meta.uid(), meta.gid())).ok()
    };
    let bytes = fs::read(dir.join("target")).unwrap();
    if bytes == OLD {
        assert_eq!(look("target"), Some((0o600, 0, 0)), "{at}");
    } else {
        assert_eq!(look("target"), Some((0o640, 501, 502)), "{at}");
        assert!(bytes == new_bytes(), "torn: {} bytes, {at}", bytes.len());
    }
    let link = fs::read_link(dir.join("link")).unwrap();
    assert!(link == Path::new("old") || link == Path::new("new"), "{at}");
    assert!(matches!(look("dir"), None | Some((0o2750, 501, 502))), "{at}: {:?}", look("dir"));
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = entries.collect();
    names.sort();
    names
}

/// The next run: it does its work, and takes away what the killed one left.
fn check_next(dir: &Path, at: &str) {
    work(dir).unwrap();
    assert_eq!(names(dir), ["dir", "link", "target"], "{at}");
    assert!(fs::read(dir.join("target")).unwrap() == new_bytes(), "{at}");
    assert_eq!(fs::read_link(dir.join("link")).unwrap(), Path::new("new"), "{at}");
}

fn trace() -> (tempfile::TempDir, Vec<(String, u32)>) {
    let logs = tempfile::tempdir().unwrap();
    let dir = tempfile::tempdir().unwrap();
    prepare(dir.path());
    let log = logs.path().join("log");
    let output = strace(dir.path(), &log, None);
    assert!(output.status.success(), "{output:?}");
    check_whole(dir.path(), "not killed");
    assert_eq!(names(dir.path()), ["dir", "link", "target"]);
    let points = points(&fs::read_to_string(&log).unwrap());
    assert!(points.len() > 40, "{points:?}");
    (logs, points)
}

#[test]
fn killed_at_every_call_nothing_is_torn() {
    let (logs, points) = trace();
    let (mut killed, mut strays) = (0u32, 0u32);
    let points = Chance::new().some(points, moments(24, usize::MAX));
    for (name, which) in &points {
        let dir = tempfile::tempdir().unwrap();
        prepare(dir.path());
        let at = format!("{name}:signal=KILL:when={which}");
        let output = strace(dir.path(), &logs.path().join("log"), Some(&at));
        killed += u32::from(!output.status.success());
        check_whole(dir.path(), &at);
        strays += u32::from(names(dir.path()).iter().any(|name| name.starts_with(".fanli-")));
        check_next(dir.path(), &at);
    }
    eprintln!("{killed} of {} points killed, {strays} left something that the next run took away", points.len());
    assert!(killed as usize >= points.len() * 9 / 10, "{killed} of {}", points.len());
    assert!(strays > 0, "no kill hit the middle");
}

#[test]
fn failed_calls_leave_the_old_and_no_stray() {
    let (logs, points) = trace();
    let mut failed = 0u32;
    for (name, which) in &points {
        let error = match name.as_str() {
            "write" => "ENOSPC",
            "fsync" | "getdents64" => "EIO",
            "renameat" | "renameat2" | "mkdirat" | "symlinkat" => "EROFS",
            "fchown" | "fchmod" | "fchownat" => "EPERM",
            "openat" => "EMFILE",
            _ => continue,
        };
        let dir = tempfile::tempdir().unwrap();
        prepare(dir.path());
        let at = format!("{name}:error={error}:when={which}");
        let output = strace(dir.path(), &logs.path().join("log"), Some(&at));
        failed += u32::from(!output.status.success());
        check_whole(dir.path(), &at);
        let left = names(dir.path());
        assert!(!left.iter().any(|name| name.starts_with(".fanli-")), "{at}: {left:?}");
        check_next(dir.path(), &at);
    }
    eprintln!("{failed} injected errors ended the run");
    assert!(failed > 20, "{failed}");
}

#[test]
fn a_file_system_without_locks_will_do() {
    let (logs, _) = trace();
    let dir = tempfile::tempdir().unwrap();
    prepare(dir.path());
    let output = strace(dir.path(), &logs.path().join("log"), Some("flock:error=ENOLCK"));
    assert!(output.status.success(), "{output:?}");
    check_next(dir.path(), "without locks");
}
