//! Slots: staged, switched, confirmed, reverted; under a reader that never pauses; edited by hand; refused.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fanli::failure::Failure;
use fanli::resource::Resource as _;
use fanli::resource::kinds::Kind;
use fanli::resource::rollout::Rollouts;
use fanli::value::{Map, Value};

use crate::args;
use crate::common::{Bench, build};

/// A generation's ID.
pub fn id(number: u32) -> String {
    format!("{number:012x}")
}

/// Some files that all name their generation.
pub fn files(number: u32) -> Map {
    let text = |name: &str| Value::Str(format!("# {name} of {}\n", id(number)));
    let long = format!("# a line of {}\n", id(number)).repeat(2_000);
    let mut files = Map::from([("long.conf".to_owned(), Value::Str(long))]);
    for name in ["httpd.conf", "sites/a.conf", "sites/deep/b.conf", "tls/key.pem"] {
        files.insert(name.to_owned(), text(name));
    }
    files
}

pub fn slot(path: &Path, number: u32) -> Kind {
    let modes = Map::from([("tls/key.pem".to_owned(), Value::Mode(0o600))]);
    build(
        "slot",
        args! { "path" => path.to_str().unwrap(), "generation" => id(number), "files" => Value::Map(files(number)), "modes" => Value::Map(modes) },
    )
}

pub fn switch(path: &Path, number: u32, rollout: &str) -> Kind {
    build("switch", args! { "path" => path.to_str().unwrap(), "generation" => id(number), "rollout" => rollout })
}

pub fn confirm(path: &Path, number: u32) -> Kind {
    build("confirm", args! { "path" => path.to_str().unwrap(), "generation" => id(number), "keep" => 3i64 })
}

pub fn revert(path: &Path, rollout: &str) -> Kind {
    build("revert", args! { "path" => path.to_str().unwrap(), "rollout" => rollout })
}

/// A folder that nobody but root can write.
pub fn guarded() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("fsl-").tempdir_in("/root").unwrap()
}

/// What stands below an open directory: paths, modes, bytes.
pub type Tree = BTreeMap<String, (u32, Vec<u8>)>;

pub fn tree_below(root: &Path) -> std::io::Result<Tree> {
    let (mut found, mut todo) = (Tree::new(), vec![root.to_owned()]);
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(&dir)? {
            let path = entry?.path();
            let meta = fs::symlink_metadata(&path)?;
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            if meta.is_dir() {
                todo.push(path.clone());
                found.insert(name, (meta.mode(), Vec::new()));
            } else {
                found.insert(name, (meta.mode(), fs::read(&path)?));
            }
        }
    }
    Ok(found)
}

/// The tree that a slot shows, read through one open directory, as whoever opens `current` holds it.
pub fn shown(slot: &Path) -> std::io::Result<Tree> {
    let dir = File::open(slot.join("current"))?;
    tree_below(Path::new(&format!("/proc/self/fd/{}", dir.as_raw_fd())))
}

/// What a generation holds.
pub fn tree_of(number: u32) -> Tree {
    let mut tree = Tree::new();
    for (path, value) in files(number) {
        let mode = if path == "tls/key.pem" { 0o100_600 } else { 0o100_644 };
        for (end, _) in path.match_indices('/') {
            tree.insert(path[..end].to_owned(), (0o40_755, Vec::new()));
        }
        tree.insert(path, (mode, value.as_str().unwrap().as_bytes().to_vec()));
    }
    tree
}

pub fn generations(slot: &Path) -> Vec<String> {
    let entries = fs::read_dir(slot.join("generations")).unwrap();
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn record(bench: &Bench) -> fanli::resource::rollout::SlotSeen {
    let seen = bench.block(Rollouts::look(&bench.probe)).unwrap();
    assert_eq!(seen.slots.len(), 1, "{seen:?}");
    seen.slots.into_iter().next().unwrap()
}

fn output(bench: &Bench, kind: &Kind) -> Map {
    bench.block(kind.observe(&bench.probe)).unwrap().output
}

/// Everything that a kind said no with.
pub fn said(failure: &Failure) -> String {
    let causes = failure.causes.iter().fold(String::new(), |text, cause| text + "\n  " + cause);
    let hint = failure.hint.as_ref().map_or_else(String::new, |hint| format!("\n  help: {hint}"));
    format!("{}{causes}{hint}", failure.message)
}

#[test]
fn staged_switched_confirmed_and_reverted() {
    let (bench, dir) = (Bench::new(), guarded());
    let at = dir.path().join("web1");

    // The first generation: staged, not shown.
    assert_eq!(bench.drift(&slot(&at, 1)), ["*create"]);
    bench.converge(&slot(&at, 1)).unwrap().unwrap();
    assert_eq!(output(&bench, &slot(&at, 1)), args! { "current" => Value::Null, "pending" => true });
    assert!(fs::symlink_metadata(at.join("current")).is_err());
    assert!(bench.block(Rollouts::look(&bench.probe)).unwrap().is_empty());
    bench.converge(&switch(&at, 1, "r1")).unwrap().unwrap();
    assert_eq!(fs::read_link(at.join("current")).unwrap(), Path::new("generations").join(id(1)));
    assert_eq!(shown(&at).unwrap(), tree_of(1));
    assert_eq!(output(&bench, &slot(&at, 1)), args! { "current" => id(1), "pending" => false });
    bench.converge(&confirm(&at, 1)).unwrap().unwrap();

    // The next one, and back: byte for byte, with the same files.
    let before = crate::common::picture(&at.join("generations").join(id(1)));
    bench.converge(&slot(&at, 2)).unwrap().unwrap();
    assert_eq!(output(&bench, &switch(&at, 2, "r2")), args! { "previous" => id(1) });
    bench.converge(&switch(&at, 2, "r2")).unwrap().unwrap();
    assert_eq!(output(&bench, &switch(&at, 2, "r2")), args! { "previous" => id(1) });
    assert_eq!(shown(&at).unwrap(), tree_of(2));
    assert_eq!(bench.plan(&revert(&at, "another")).unwrap(), None);
    bench.converge(&revert(&at, "r2")).unwrap().unwrap();
    assert_eq!(crate::common::picture(&at.join("generations").join(id(1))), before);
    assert_eq!(shown(&at).unwrap(), tree_of(1));
    assert_eq!(output(&bench, &revert(&at, "r2")), args! { "reverted" => true, "current" => id(1) });
    assert_eq!(record(&bench).phase.unwrap().show(), "reverted");

    // A rollout that is not confirmed may go on to another generation; what it goes back to stays.
    bench.converge(&switch(&at, 2, "r3")).unwrap().unwrap();
    bench.converge(&slot(&at, 3)).unwrap().unwrap();
    bench.converge(&switch(&at, 3, "r3")).unwrap().unwrap();
    assert_eq!(record(&bench).previous, Some(id(1)));
    bench.converge(&confirm(&at, 3)).unwrap().unwrap();
    assert_eq!(bench.plan(&revert(&at, "r3")).unwrap(), None);
    let confirmed = build("revert", args! { "path" => at.to_str().unwrap(), "rollout" => "r3", "undo" => "" });
    bench.converge(&confirmed).unwrap().unwrap();
    assert_eq!(shown(&at).unwrap(), tree_of(1));

    // Old generations go; the current one and the one before it never.
    bench.converge(&switch(&at, 3, "r3")).unwrap().unwrap();
    for number in 4..9 {
        bench.converge(&slot(&at, number)).unwrap().unwrap();
    }
    assert_eq!(generations(&at), [1, 3, 4, 5, 6, 7, 8].map(id));
    assert_eq!(bench.drift(&confirm(&at, 3)), ["phase", "surplus"]);
    bench.converge(&confirm(&at, 3)).unwrap().unwrap();
    assert_eq!(generations(&at), [1, 3, 6, 7, 8].map(id));

    // Before the first generation there was nothing, and so it is again.
    let first = dir.path().join("web2");
    bench.converge(&slot(&first, 1)).unwrap().unwrap();
    bench.converge(&switch(&first, 1, "r1")).unwrap().unwrap();
    bench.converge(&revert(&first, "r1")).unwrap().unwrap();
    assert!(fs::symlink_metadata(first.join("current")).is_err());
    assert_eq!(generations(&first), [id(1)]);
    bench.converge(&switch(&first, 1, "r1")).unwrap().unwrap();
}

/// Mounted until this goes.
struct Bound(PathBuf);

impl Bound {
    fn new(from: &Path, at: PathBuf) -> Self {
        fs::create_dir(&at).unwrap();
        let done = Command::new("mount").arg("--bind").args([from, &at]).output().unwrap();
        assert!(done.status.success(), "{done:?}");
        Self(at)
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_reader_without_pause_sees_known_generations_alone() {
    const GENERATIONS: u32 = 50;
    let (bench, dir) = (Bench::new(), guarded());
    let at = dir.path().join("slot");
    bench.converge(&slot(&at, 1)).unwrap().unwrap();
    bench.converge(&switch(&at, 1, "r")).unwrap().unwrap();
    // As a container has it: the directory is mounted, and the link is turned outside.
    let mount = Bound::new(&at, dir.path().join("mount"));
    let known: Arc<BTreeSet<Tree>> = Arc::new((1..=GENERATIONS).map(tree_of).collect());
    let stop = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = [at.clone(), mount.0.clone()]
        .into_iter()
        .map(|path| {
            let (known, stop, reads) = (Arc::clone(&known), Arc::clone(&stop), Arc::new(AtomicU64::new(0)));
            let (counted, seen) = (Arc::clone(&reads), Arc::new(Mutex::new(BTreeSet::new())));
            let kept = Arc::clone(&seen);
            let thread = std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let tree = shown(&path).unwrap();
                    assert!(known.contains(&tree), "a tree that was never staged: {:?}", tree.keys());
                    kept.lock().unwrap().insert(tree["httpd.conf"].1.clone());
                    counted.fetch_add(1, Ordering::Relaxed);
                }
            });
            (thread, reads, seen)
        })
        .collect();
    let healthy = |readers: &Vec<(std::thread::JoinHandle<()>, Arc<AtomicU64>, _)>| {
        readers.iter().all(|(thread, ..)| !thread.is_finished())
    };
    for number in 2..=GENERATIONS {
        bench.converge(&slot(&at, number)).unwrap().unwrap();
        bench.converge(&switch(&at, number, "r")).unwrap().unwrap();
        bench.converge(&confirm(&at, number)).unwrap();
        // So that no reader is three generations behind, whatever else this machine does.
        let counts: Vec<u64> = readers.iter().map(|(_, reads, _)| reads.load(Ordering::Relaxed)).collect();
        let begun = Instant::now();
        while healthy(&readers)
            && readers.iter().zip(&counts).any(|((_, reads, _), count)| reads.load(Ordering::Relaxed) < count + 25)
        {
            assert!(begun.elapsed() < Duration::from_secs(120), "the readers do not get on");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    stop.store(true, Ordering::Relaxed);
    let mut total = 0;
    for (thread, reads, seen) in readers {
        thread.join().unwrap();
        total += reads.load(Ordering::Relaxed);
        assert!(seen.lock().unwrap().len() > 40, "{} generations were seen", seen.lock().unwrap().len());
    }
    eprintln!("{total} reads");
    assert!(total >= 2_000, "{total} reads");
    assert_eq!(generations(&at).len(), 3);
}

#[test]
fn what_was_edited_by_hand_is_found_file_by_file_and_mended() {
    let (bench, dir) = (Bench::new(), guarded());
    let at = dir.path().join("slot");
    bench.converge(&slot(&at, 1)).unwrap().unwrap();
    bench.converge(&switch(&at, 1, "r")).unwrap().unwrap();
    let root = at.join("current");
    fs::write(root.join("httpd.conf"), "# by hand\n").unwrap();
    fs::set_permissions(root.join("sites/a.conf"), fs::Permissions::from_mode(0o666)).unwrap();
    std::os::unix::fs::chown(root.join("tls"), Some(7), Some(8)).unwrap();
    fs::remove_file(root.join("sites/deep/b.conf")).unwrap();
    fs::remove_file(root.join("long.conf")).unwrap();
    symlink("/etc/passwd", root.join("long.conf")).unwrap();
    fs::create_dir(root.join("more")).unwrap();
    fs::write(root.join("more/extra.conf"), "x").unwrap();
    let change = bench.plan(&slot(&at, 1)).unwrap().unwrap();
    let fields: Vec<String> =
        change.fields.iter().map(|field| format!("{}: {} -> {}", field.field, field.from, field.to)).collect();
    insta::assert_snapshot!(fields.join("\n"));
    // Whoever reads sees the edited tree or the right one, and never none.
    let stop = Arc::new(AtomicBool::new(false));
    let (path, stopped) = (at.clone(), Arc::clone(&stop));
    let reader = std::thread::spawn(move || {
        while !stopped.load(Ordering::Relaxed) {
            assert!(path.join("current/httpd.conf").exists());
        }
    });
    bench.converge(&slot(&at, 1)).unwrap().unwrap();
    stop.store(true, Ordering::Relaxed);
    reader.join().unwrap();
    assert_eq!(shown(&at).unwrap(), tree_of(1));
    assert_eq!(generations(&at), [id(1)]);

    // A file in the place of a directory, and the other way round.
    fs::remove_dir_all(root.join("tls")).unwrap();
    fs::write(root.join("tls"), "x").unwrap();
    fs::remove_file(root.join("httpd.conf")).unwrap();
    fs::create_dir(root.join("httpd.conf")).unwrap();
    assert_eq!(bench.drift(&slot(&at, 1)), ["extra", "httpd.conf", "tls/key.pem"]);
    bench.converge(&slot(&at, 1)).unwrap().unwrap();
    assert_eq!(shown(&at).unwrap(), tree_of(1));
}

#[test]
fn what_is_refused_and_how_it_is_said() {
    let (bench, dir) = (Bench::new(), guarded());
    let at = dir.path().join("slot");
    let mut all = Vec::new();
    let mut refused = |what: &str, result: Result<Option<fanli::change::Change>, Failure>| {
        let text = said(&result.expect_err(what)).replace(dir.path().to_str().unwrap(), "DIR");
        let text = timeless(&text);
        all.push(format!("{what}:\n{text}"));
    };
    bench.converge(&slot(&at, 1)).unwrap().unwrap();
    refused("not staged", bench.converge(&switch(&at, 2, "r")));
    refused("nothing to confirm", bench.converge(&confirm(&at, 1)));
    bench.converge(&switch(&at, 1, "r")).unwrap().unwrap();
    bench.converge(&slot(&at, 2)).unwrap().unwrap();
    refused("held by another rollout", bench.converge(&switch(&at, 2, "other")));
    refused("the same generation, held by another rollout", bench.converge(&switch(&at, 1, "other")));
    let inside = at.join("inner");
    bench.converge(&slot(&inside, 1)).unwrap().unwrap();
    refused("a slot inside one that is held", bench.converge(&switch(&inside, 1, "other")));
    fs::remove_dir_all(&inside).unwrap();
    let theirs = args! { "path" => at.to_str().unwrap(), "generation" => id(1), "rollout" => "other" };
    refused("confirmed by another rollout", bench.converge(&build("confirm", theirs)));
    refused("confirmed with another generation", bench.converge(&confirm(&at, 2)));
    bench.converge(&confirm(&at, 1)).unwrap().unwrap();

    let halt = build("halt", args! { "reason" => "the canary logs errors", "by" => "operator" });
    let resume = build("halt", args! { "state" => "absent" });
    bench.converge(&halt).unwrap().unwrap();
    assert_eq!(bench.plan(&halt).unwrap(), None);
    refused("halted", bench.converge(&switch(&at, 2, "r")));
    // What is right already is no switch.
    assert_eq!(bench.plan(&switch(&at, 1, "r")).unwrap(), None);
    assert_eq!(bench.block(Rollouts::look(&bench.probe)).unwrap().halted.unwrap().by, "operator");
    bench.converge(&resume).unwrap().unwrap();
    assert_eq!(bench.plan(&resume).unwrap(), None);
    bench.converge(&switch(&at, 2, "r")).unwrap().unwrap();
    // Halted in the middle: what was begun can be put back.
    bench.converge(&halt).unwrap().unwrap();
    fs::rename(at.join("generations").join(id(1)), dir.path().join("away")).unwrap();
    refused("the earlier generation is gone", bench.converge(&revert(&at, "r")));
    assert_eq!(shown(&at).unwrap(), tree_of(2));
    fs::rename(dir.path().join("away"), at.join("generations").join(id(1))).unwrap();
    bench.converge(&revert(&at, "r")).unwrap().unwrap();
    bench.converge(&resume).unwrap().unwrap();

    let mut within = args! { "path" => at.to_str().unwrap(), "generation" => id(2), "rollout" => "r" };
    within.insert("within".to_owned(), Value::Duration(Duration::from_secs(60)));
    refused("no watcher", bench.converge(&build("switch", within)));

    fs::remove_file(at.join("current")).unwrap();
    symlink("/etc", at.join("current")).unwrap();
    refused("another link", bench.converge(&switch(&at, 2, "r")));
    fs::remove_file(at.join("current")).unwrap();
    fs::create_dir(at.join("current")).unwrap();
    refused("a directory", bench.converge(&slot(&at, 2)));
    symlink(&at, dir.path().join("link")).unwrap();
    refused("a link as a slot", bench.converge(&slot(&dir.path().join("link"), 1)));
    fs::write(dir.path().join("file"), "").unwrap();
    refused("a file as a slot", bench.converge(&slot(&dir.path().join("file"), 1)));
    let folder = bench.probe.state_dir().join("rollout");
    let records = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    for record in records.filter(|path| path.extension().is_some_and(|end| end == "json")) {
        fs::write(record, "{").unwrap();
    }
    fs::remove_dir(at.join("current")).unwrap();
    refused("a damaged record", bench.converge(&switch(&at, 2, "r")));
    assert!(bench.block(Rollouts::look(&bench.probe)).unwrap().slots[0].trouble.is_some());
    insta::assert_snapshot!(all.join("\n\n"));
}

/// What differs from run to run, left out.
fn timeless(text: &str) -> String {
    let mut words: Vec<&str> = text.split(' ').collect();
    for index in 0..words.len() {
        if words[index] == "since" && index + 2 < words.len() {
            (words[index + 1], words[index + 2]) = ("DATE", "TIME");
        }
        if words[index].contains("/rollout/") {
            words[index] = "STATE/rollout/HASH.json";
        }
    }
    words.join(" ")
}

#[test]
fn wrong_arguments() {
    let switch = |more: Map| {
        let mut args = args! { "path" => "/srv/x", "generation" => id(1), "rollout" => "r" };
        args.extend(more);
        crate::common::refused("switch", args)
    };
    let steps = |step: Map| {
        let mut args = Map::from([("within".to_owned(), Value::Duration(Duration::from_secs(60)))]);
        args.insert("revert".to_owned(), Value::List(vec![Value::Map(step)]));
        args
    };
    let said = [
        switch(args! { "generation" => "latest" }),
        switch(args! { "generation" => "../../etc/pa" }),
        switch(args! { "rollout" => "" }),
        switch(Map::from([("within".to_owned(), Value::Duration(Duration::from_millis(5)))])),
        switch(args! { "revert" => Value::List(vec![Value::Map(Map::new())]) }),
        switch(steps(args! { "args" => Value::Map(Map::new()) })),
        switch(steps(args! { "kind" => "comand" })),
        switch(steps(args! { "kind" => "command", "args" => Value::Map(args! { "argvv" => "true" }) })),
        switch(steps(args! { "kind" => "command", "when" => true })),
        crate::common::refused("confirm", args! { "path" => "/srv/x", "generation" => id(1), "keep" => 0i64 }),
        crate::common::refused("halt", args! { "reason" => "x", "state" => "absent" }),
    ];
    insta::assert_snapshot!(said.join("\n"));
}
