//! `fanli logs keep`: what it removes and compresses, killed anywhere, and in a folder whose owner plays tricks.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use fanli::logs::codec::Codec;
use serde_json::Value;

use crate::apart::sh;
use crate::balance::place::until;
use crate::common::chance::{Chance, moments};
use crate::common::fanli;

/// What `fanli logs` says, and its exit code.
pub(crate) fn logs(arguments: &[&str]) -> (String, Option<i32>) {
    let done = Command::new(fanli()).arg("logs").args(arguments).output().unwrap();
    let said = [done.stdout, done.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
    (said, done.status.code())
}

/// Must work; what it says.
#[track_caller]
pub(crate) fn keeps(arguments: &[&str]) -> String {
    let (said, code) = logs(&[&["keep"], arguments].concat());
    assert_eq!(code, Some(0), "{said}");
    said
}

/// Has `fanli log-pipe` write segments of about 1 KiB, and makes the oldest an hour older than the next, and so on. The newest ended an hour ago.
pub(crate) fn written(folder: &Path, lines: usize) {
    let template = folder.join("%Y%m%d.log");
    let mut pipe = Command::new(fanli());
    pipe.args(["log-pipe", "--size", "1KiB", template.to_str().unwrap()]).stdin(Stdio::piped());
    let mut pipe = pipe.spawn().unwrap();
    let text: Vec<String> = (0..lines).map(|number| format!("{number:06} {}\n", "x".repeat(93))).collect();
    let text = text.concat();
    pipe.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    assert!(pipe.wait().unwrap().success());
    let mut seals: Vec<(PathBuf, Value)> = paths(folder)
        .into_iter()
        .filter(|path| path.extension().is_some_and(|end| end == "seal"))
        .map(|path| (path.clone(), serde_json::from_slice(&fs::read(path).unwrap()).unwrap()))
        .collect();
    seals.sort_by_key(|(_, seal)| seal["sealed"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap());
    let now = jiff::Timestamp::now();
    for (age, (path, mut seal)) in (1_i64..).zip(seals.into_iter().rev()) {
        let end = now.checked_sub(jiff::SignedDuration::from_secs(age * 3_600 + 60)).unwrap();
        seal["end"] = Value::from(end.to_string());
        fs::write(path, format!("{seal}\n")).unwrap();
    }
}

/// Everything in a folder, below it too.
pub(crate) fn paths(folder: &Path) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    all.sort();
    all
}

/// The files of segments that are not compressed.
pub(crate) fn segments(folder: &Path) -> Vec<PathBuf> {
    let plain = |path: &PathBuf| path.extension().is_some_and(|end| end == "log") && !path.is_symlink();
    paths(folder).into_iter().filter(plain).collect()
}

pub(crate) fn seal_of(segment: &Path) -> PathBuf {
    segment.with_file_name(format!(".{}.seal", segment.file_name().unwrap().to_str().unwrap()))
}

/// The lines of all segments, compressed or not, each of which must be as its seal says; by the names of the segments.
pub(crate) fn held(folder: &Path) -> BTreeMap<String, String> {
    let mut held = BTreeMap::new();
    for path in paths(folder) {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if name.starts_with('.') || path.is_symlink() {
            continue;
        }
        let codec = Codec::ALL.into_iter().find(|codec| name.ends_with(codec.extension()));
        let plain = codec.map_or(name.as_str(), |codec| name.strip_suffix(codec.extension()).unwrap()).to_owned();
        let file = fs::File::open(&path).unwrap();
        let mut text = String::new();
        match codec {
            Some(codec) => codec.unpack(file).unwrap().read_to_string(&mut text).unwrap(),
            None => (&file).read_to_string(&mut text).unwrap(),
        };
        let seal: Value = serde_json::from_slice(&fs::read(folder.join(format!(".{plain}.seal"))).unwrap()).unwrap();
        assert_eq!(seal["bytes"], text.len(), "{name}");
        assert_eq!(seal["sha256"], fanli::value::Digest::of(text.as_bytes()).to_string(), "{name}");
        assert!(held.insert(plain, text).is_none(), "{name} is there twice");
    }
    held
}

#[test]
fn what_is_over_a_limit_goes_and_the_rest_is_compressed() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().to_str().unwrap();
    written(dir.path(), 200);
    fs::write(dir.path().join("notes.txt"), "a person's own").unwrap();
    let before = held_beside_notes(dir.path());
    assert!(before.len() > 15, "{}", before.len());
    let names: Vec<&String> = before.keys().collect();
    assert_eq!(keeps(&[folder]).lines().count(), 1, "without a limit nothing is done");

    let limits = ["--count", "10", "--pack", "zstd", "--pack-after", "5h", folder];
    let (plan, code) = logs(&[&["plan"], &limits[..]].concat());
    assert_eq!((code, held_beside_notes(dir.path())), (Some(0), before.clone()), "a plan does nothing");
    let said = keeps(&limits);
    assert_eq!(plan.lines().count(), said.lines().count(), "{plan}{said}");
    let removed = said.lines().filter(|line| line.starts_with("removed  ") && line.contains("more than 10 files"));
    assert_eq!(removed.count(), names.len() - 10, "{said}");
    // Those that ended one to five hours ago are not compressed yet.
    let packed = paths(dir.path()).iter().filter(|path| path.extension().is_some_and(|end| end == "zst")).count();
    assert_eq!(packed, 6, "{said}");
    let after = held_beside_notes(dir.path());
    assert_eq!(after.len(), 10);
    assert!(after.iter().all(|(name, text)| before[name] == *text));
    let oldest_line = |held: &BTreeMap<String, String>| held.values().map(|text| text[..6].to_owned()).min().unwrap();
    assert!(oldest_line(&after) > oldest_line(&before), "the oldest went");
    assert_eq!(keeps(&limits).lines().count(), 1, "a second run has nothing to do");

    // By age, size and room; compressed ones go as well.
    keeps(&["--age", "7h", folder]);
    assert_eq!(held_beside_notes(dir.path()).len(), 6);
    let free = rough_free(dir.path());
    let (plan, _) = logs(&["plan", "--floor", &format!("{}MiB", free / (1 << 20) + 100_000), folder]);
    assert_eq!(plan.lines().filter(|line| line.contains("free on the disk")).count(), 6, "{plan}");
    keeps(&["--size", "9KiB", folder]);
    assert_eq!(held_beside_notes(dir.path()).len(), 2, "each takes a block of 4 KiB");
    keeps(&["--age", "0s", folder]);
    let left: Vec<String> =
        paths(dir.path()).iter().map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect();
    assert_eq!(left, ["latest", "notes.txt"], "a seal goes with its segment");
}

fn held_beside_notes(folder: &Path) -> BTreeMap<String, String> {
    let notes = folder.join("notes.txt");
    let text = fs::read(&notes).unwrap();
    fs::remove_file(&notes).unwrap();
    let held = held(folder);
    fs::write(notes, text).unwrap();
    held
}

fn rough_free(folder: &Path) -> u64 {
    let room = rustix::fs::statvfs(folder).unwrap();
    room.f_bavail * room.f_frsize
}

#[test]
fn a_writer_that_was_killed_is_closed_and_what_is_no_segment_is_left_alone() {
    let (dir, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let folder = dir.path().to_str().unwrap();
    let template = dir.path().join("%Y%m%d.log");
    let start = || {
        let mut command = Command::new(fanli());
        let mut child = command
            .args(["log-pipe", "--no-latest", template.to_str().unwrap()])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.as_mut().unwrap().write_all(b"one\ntwo\nhalf").unwrap();
        child
    };
    let segments = || segments(dir.path());
    let whole = |path: &PathBuf| fs::read(path).unwrap() == b"one\ntwo\n";
    let mut killed = start();
    until("it has written", || segments().first().is_some_and(whole));
    let left = segments().remove(0);
    killed.kill().unwrap();
    killed.wait().unwrap();
    let mut writing = start();
    until("the other has written", || segments().len() == 2 && segments().iter().all(whole));

    // What others have put there, with seals as if it were segments.
    let secret = outside.path().join("secret");
    fs::write(&secret, "secret").unwrap();
    let seal = fs::read_to_string(seal_of(&left)).unwrap();
    let odd = |name: &str| {
        fs::write(dir.path().join(format!(".{name}.seal")), &seal).unwrap();
        dir.path().join(name)
    };
    symlink(&secret, odd("a.kkkkkkkk.log")).unwrap();
    fs::hard_link(&secret, odd("b.kkkkkkkk.log")).unwrap();
    sh(&format!("mkfifo {}", odd("c.kkkkkkkk.log").display()));
    fs::create_dir(odd("d.kkkkkkkk.log")).unwrap();
    fs::write(dir.path().join("access.business.log"), "no seal, no segment").unwrap();

    let (said, code) = logs(&["keep", "--pack", "gzip", "--pack-after", "0s", folder]);
    assert_eq!(code, Some(4), "{said}");
    assert!(said.contains("b.kkkkkkkk.log is left as it is: it has several names"), "{said}");
    assert!(said.contains("its writer was killed"), "{said}");
    assert_eq!(
        said.lines().filter(|line| line.starts_with("error: ")).count(),
        2,
        "the closing and the compression of b: {said}"
    );
    assert!(!left.exists() && left.with_extension("log.gz").exists(), "{said}");
    assert_eq!(fs::read_to_string(dir.path().join("access.business.log")).unwrap(), "no seal, no segment");
    assert_eq!(fs::read_to_string(&secret).unwrap(), "secret");
    // The one at work goes on, and is closed by itself.
    drop(writing.stdin.take());
    assert!(writing.wait().unwrap().success());
    for name in ["a.kkkkkkkk.log", "b.kkkkkkkk.log", "c.kkkkkkkk.log", "d.kkkkkkkk.log"] {
        fs::remove_file(dir.path().join(format!(".{name}.seal"))).unwrap();
    }
    sh(&format!("cd {folder} && rm -r *.kkkkkkkk.log access.business.log"));
    let held = held(dir.path());
    let texts: Vec<&str> = held.values().map(String::as_str).collect();
    assert_eq!(held.len(), 2);
    assert!(texts.contains(&"one\ntwo\n") && texts.contains(&"one\ntwo\nhalf"), "{texts:?}");
}

/// Calls that change what stands there.
pub(crate) const CALLS: &str = "openat,write,fsync,rename,renameat,renameat2,unlink,unlinkat,fchmod,fchown,utimensat";

/// Each call that stands in a trace of strace, and which of its name it is.
pub(crate) fn calls(trace: &Path) -> Vec<(String, u32)> {
    let mut counts: BTreeMap<String, u32> = BTreeMap::new();
    for line in fs::read_to_string(trace).unwrap().lines() {
        let call = line.split_once(' ').unwrap().1.trim_start().split('(').next().unwrap().to_owned();
        *counts.entry(call).or_default() += 1;
    }
    counts.into_iter().flat_map(|(call, most)| (1..=most).map(move |which| (call.clone(), which))).collect()
}

#[test]
fn killed_anywhere_no_line_is_lost_and_the_next_keeper_goes_on() {
    let logs_of_strace = tempfile::tempdir().unwrap();
    let log = logs_of_strace.path().join("log");
    let limits = ["--count", "4", "--pack", "gzip", "--pack-after", "2h"];
    let strace = |folder: &Path, inject: Option<&str>| {
        let mut command = Command::new("strace");
        command.args(["-f", "-qq", "-o", log.to_str().unwrap(), "-e", &format!("trace={CALLS}")]);
        command.args(inject.iter().flat_map(|inject| ["-e", inject]));
        command.arg(fanli()).args(["logs", "keep"]).args(limits).arg(folder).output().unwrap()
    };
    let fresh = || {
        let dir = tempfile::tempdir().unwrap();
        written(dir.path(), 60);
        // The newest was left by a killed writer.
        let newest = segments(dir.path()).into_iter().max_by_key(|path| fs::read_to_string(path).unwrap()).unwrap();
        fs::write(seal_of(&newest), "").unwrap();
        dir
    };
    let whole = fresh();
    assert!(strace(whole.path(), None).status.success());
    let done = held(whole.path());
    assert_eq!(done.len(), 4);
    let points = calls(&log);
    assert!(points.len() > 60, "{points:?}");
    let mut killed = 0;
    for (call, which) in Chance::new().some(points, moments(16, usize::MAX)) {
        let dir = fresh();
        let mut before: Vec<String> =
            segments(dir.path()).iter().map(|path| fs::read_to_string(path).unwrap()).collect();
        before.sort();
        let before = before.split_off(before.len() - 4);
        let at = format!("inject={call}:signal=KILL:when={which}");
        killed += u32::from(!strace(dir.path(), Some(&at)).status.success());
        let said = keeps(&[&limits[..], &[dir.path().to_str().unwrap()]].concat());
        let mut after: Vec<String> = held(dir.path()).into_values().collect();
        after.sort();
        assert_eq!(after, before, "{at}: {said}");
        assert_eq!(keeps(&[&limits[..], &[dir.path().to_str().unwrap()]].concat()).lines().count(), 1, "{at}");
    }
    assert!(killed > 10, "{killed}");
}

#[test]
fn names_that_are_swapped_at_full_speed_lead_nowhere() {
    let (dir, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let secret = outside.path().join("secret");
    fs::write(&secret, "a secret of root\n").unwrap();
    let before = fs::metadata(&secret).unwrap();
    let name = "2026.kkkkkkkk.log";
    let seal = r#"{"begin":"2026-01-01T00:00:00Z","end":"2026-01-01T01:00:00Z"}"#;
    let wanted = moments(2_000, 100_000);
    let (swaps, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (here, folder) = (dir.path().join(name), dir.path());
            let clear = |path: &Path| {
                let _ = fs::remove_file(path).or_else(|_| fs::remove_dir_all(path));
            };
            while !stop.load(Ordering::Relaxed) {
                let turn = swaps.fetch_add(1, Ordering::Relaxed);
                let _ = fs::write(folder.join(format!(".{name}.seal")), seal);
                clear(&here);
                let _ = match turn % 5 {
                    0 => fs::write(&here, "a line\n"),
                    1 => symlink(&secret, &here),
                    2 => fs::hard_link(&secret, &here),
                    3 => fs::create_dir(&here),
                    _ => rustix::fs::mknodat(rustix::fs::CWD, &here, rustix::fs::FileType::Fifo, 0o600.into(), 0)
                        .map_err(Into::into),
                };
                for packed in [".gz", ".zst"] {
                    clear(&folder.join(format!("{name}{packed}")));
                    if turn % 7 == 0 {
                        let _ = symlink(&secret, folder.join(format!("{name}{packed}")));
                        let _ = symlink(&secret, folder.join(format!(".{name}{packed}.new")));
                    }
                }
            }
        });
        let begun = Instant::now();
        while swaps.load(Ordering::Relaxed) < wanted {
            let pack = ["gzip", "zstd"][swaps.load(Ordering::Relaxed) % 2];
            let mut keeper = Command::new(fanli());
            keeper.args(["logs", "keep", "--pack", pack, "--pack-after", "0s"]).arg(dir.path());
            if swaps.load(Ordering::Relaxed) % 3 == 0 {
                keeper.args(["--age", "1h"]);
            }
            let mut keeper = keeper.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            let started = Instant::now();
            while keeper.try_wait().unwrap().is_none() {
                assert!(started.elapsed() < Duration::from_secs(60), "it hangs");
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        stop.store(true, Ordering::Relaxed);
        println!("{} swaps in {:?}", swaps.load(Ordering::Relaxed), begun.elapsed());
    });
    let after = fs::metadata(&secret).unwrap();
    assert_eq!(fs::read_to_string(&secret).unwrap(), "a secret of root\n");
    assert_eq!((before.mode(), before.uid(), before.mtime()), (after.mode(), after.uid(), after.mtime()));
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
    for path in paths(dir.path()) {
        let copied = path.is_file() && !path.is_symlink() && fs::metadata(&path).unwrap().nlink() == 1;
        let codec = Codec::ALL.into_iter().find(|codec| path.to_str().unwrap().ends_with(codec.extension()));
        if let Some(codec) = codec.filter(|_| copied) {
            let mut text = Vec::new();
            let _ = codec.unpack(fs::File::open(&path).unwrap()).and_then(|mut file| file.read_to_end(&mut text));
            assert!(!text.windows(6).any(|window| window == b"secret"), "{}", path.display());
        }
    }
}

/// A playbook that declares folders of logs, its host's state, and its watcher.
pub(crate) struct Declared {
    pub(crate) dir: tempfile::TempDir,
    watcher: Option<std::process::Child>,
}

impl Declared {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("weblogs")).unwrap();
        written(&dir.path().join("weblogs"), 60);
        Self { dir, watcher: None }
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_owned()
    }

    /// Runs fanli with this host's state: what it says, and its exit code.
    pub(crate) fn fanli(&self, arguments: &[&str]) -> (String, Option<i32>) {
        let done = Command::new(fanli()).args(arguments).args(["--state-dir", &self.path("state")]).output().unwrap();
        let said = [done.stdout, done.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
        println!("{arguments:?}: {said}");
        (said, done.status.code())
    }

    pub(crate) fn play(&self, folder: &str, limits: &str) -> (String, Option<i32>) {
        let text = format!(
            "hosts here {{ host \"localhost\" {{ connection = local }} }}\nplay \"logs\" on hosts.here {{\n  logs \"{}\" {{ {limits} }}\n}}\n",
            self.path(folder)
        );
        fs::write(self.path("play.fp"), text).unwrap();
        self.fanli(&["play", &self.path("play.fp")])
    }

    #[track_caller]
    pub(crate) fn plays(&self, limits: &str) -> String {
        let (said, code) = self.play("weblogs", limits);
        assert_eq!(code, Some(0), "{said}");
        said
    }

    pub(crate) fn watch(&mut self) {
        let mut watcher = Command::new(fanli());
        watcher.args(["watch", "--state-dir", &self.path("state")]);
        self.watcher = Some(watcher.stdout(fs::File::create(self.path("watch.log")).unwrap()).spawn().unwrap());
    }

    pub(crate) fn files(&self) -> usize {
        paths(&self.dir.path().join("weblogs"))
            .iter()
            .filter(|path| path.extension().is_some_and(|end| end != "seal"))
            .count()
    }
}

impl Drop for Declared {
    fn drop(&mut self) {
        if let Some(watcher) = &mut self.watcher {
            let _ = watcher.kill();
            let _ = watcher.wait();
        }
    }
}

#[test]
fn the_watcher_keeps_what_is_declared() {
    let mut place = Declared::new();
    let before = place.files();
    assert!(place.plays("pack = zstd  pack_after = 3h  count = 4").contains("count 4"));
    assert!(place.plays("pack = zstd  pack_after = 3h  count = 4").contains("nothing to do"));
    let (plan, code) = place.fanli(&["logs", "plan"]);
    assert_eq!((code, place.files()), (Some(0), before), "{plan}");
    assert!(plan.contains("would remove") && plan.contains("4 files stay"), "{plan}");

    place.watch();
    until("it is done", || place.files() == 4);
    let log = || fs::read_to_string(place.path("watch.log")).unwrap();
    until("it is told", || log().contains(&format!("logs: {} files removed", before - 4)));
    assert!(log().contains("2 files compressed"), "{}", log());
    assert_eq!(held(&place.dir.path().join("weblogs")).len(), 4);
    until("status tells it", || place.fanli(&["status"]).0.contains("logs        1 folder, 4 files"));

    // A change is done right away.
    assert!(place.plays("count = 2").contains("4 -> 2"));
    until("it is done", || place.files() == 2);

    // What is wrong is told, and stays so.
    let (said, code) = place.play("weblogs/www", "count = 2");
    assert!(code == Some(4) && said.contains("overlap"), "{said}");
    let (said, code) = place.play("nowhere", "count = 2");
    assert!(code == Some(4) && said.contains("there is no directory"), "{said}");
    let (said, code) = place.play("weblogs", "pack_after = 2h");
    assert!(code == Some(2) && said.contains("nothing is to be done"), "{said}");
    fs::rename(place.path("weblogs"), place.path("away")).unwrap();
    fs::create_dir(place.path("weblogs")).unwrap();
    place.plays("count = 1");
    fs::remove_dir(place.path("weblogs")).unwrap();
    let (said, code) = place.fanli(&["logs", "keep"]);
    assert!(code == Some(4) && said.contains("weblogs: there is no directory"), "{said}");

    place.plays("state = absent");
    let (said, code) = place.fanli(&["logs", "keep"]);
    assert!(code == Some(1) && said.contains("no `logs` task has declared one"), "{said}");
    assert_eq!(paths(&place.dir.path().join("away")).len(), 5, "two files, their seals, and the link");
}
