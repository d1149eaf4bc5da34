//! `fanli logs audit`: every log file is accounted for, from its seal to its copy at a real directory, rsync daemon and object store; and whatever
//! is done to one of them behind fanli's back is named.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::apart::sh;
use crate::common::fanli;
use crate::log_keep::{Declared, paths, seal_of, segments};
use crate::log_ship::{Daemon, Store};

/// What the audit of the declared folder says, as data; and its exit code.
#[track_caller]
fn audited(place: &Declared, more: &[&str]) -> (Value, Option<i32>) {
    let (said, code) = place.fanli(&[&["logs", "audit", "--json"], more].concat());
    let mut found: Value = serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"));
    (found["folders"][0].take(), code)
}

/// What is wrong, each with its segment.
fn findings(audit: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let found = audit["findings"].as_array().into_iter().flatten();
    found.map(|finding| (text(&finding["wrong"]), text(&finding["segment"]))).collect()
}

/// What happened to the file that was asked for: each event, and more about it.
fn events(audit: &Value) -> Vec<(&str, &str)> {
    let told = audit["events"].as_array().unwrap().iter();
    told.map(|one| (one["event"].as_str().unwrap(), one["detail"].as_str().unwrap())).collect()
}

fn kinds<'a>(events: &[(&'a str, &str)]) -> Vec<&'a str> {
    events.iter().map(|(kind, _)| *kind).collect()
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap().to_str().unwrap().to_owned()
}

fn is_packed(path: &Path) -> bool {
    path.extension().is_some_and(|end| end == "zst")
}

/// The files of segments, compressed or not.
fn files(folder: &Path) -> Vec<PathBuf> {
    paths(folder).into_iter().filter(|path| !path.is_symlink() && !name_of(path).starts_with('.')).collect()
}

/// The copy of a segment, compressed or not.
fn copy_of(storage: &Path, segment: &str) -> PathBuf {
    files(storage).into_iter().find(|path| name_of(path).starts_with(segment)).unwrap()
}

#[test]
fn every_file_is_accounted_for_and_what_was_done_to_one_is_named() {
    let place = Declared::new();
    let logs = place.dir.path().join("weblogs");
    let storage = tempfile::tempdir_in("/dev/shm").unwrap();
    let limits = |more: &str| format!("ship = \"{}\"  pack = zstd  pack_after = 2h  {more}", storage.path().display());
    place.plays(&limits("count = 4"));
    let count = segments(&logs).len();
    assert!(count > 5, "{count}");

    // Before a round: nothing has a copy, and nothing is wrong. After it two limits have worked.
    let (audit, code) = audited(&place, &[]);
    assert_eq!((&audit["whole"]["files"], &audit["whole"]["lines"], code), (&count.into(), &60.into(), Some(0)));
    assert_eq!((&audit["copies"]["stored"]["files"], &audit["copies"]["waiting"]["files"]), (&0.into(), &count.into()));
    assert_eq!(place.fanli(&["logs", "keep"]).1, Some(0));
    assert_eq!(place.fanli(&["logs", "keep"]).1, Some(0));
    let (audit, code) = audited(&place, &[]);
    assert_eq!(code, Some(0), "{audit:#}");
    let copies = &audit["copies"];
    // What ended within two hours is not compressed yet.
    assert_eq!((&audit["whole"]["files"], &copies["waiting"]["files"]), (&4.into(), &1.into()), "{audit:#}");
    assert_eq!((&copies["stored"]["files"], &copies["found"]), (&(count - 1).into(), &(count - 1).into()), "{audit:#}");
    assert_eq!((&copies["removed"]["files"], &copies["lost"]["files"]), (&(count - 4).into(), &0.into()), "{audit:#}");
    let lines = |amount: &Value| amount["lines"].as_u64().unwrap();
    assert_eq!(lines(&audit["whole"]) + lines(&copies["removed"]), 60, "{audit:#}");
    let (said, code) = place.fanli(&["logs", "audit"]);
    assert!(
        said.contains(&format!("{} files", count - 1)) && said.contains(", all there\n") && code == Some(0),
        "{said}"
    );

    // What somebody does behind fanli's back.
    let here = files(&logs);
    let packed: Vec<&PathBuf> = here.iter().filter(|path| is_packed(path)).collect();
    let plain = here.iter().find(|path| !is_packed(path)).unwrap();
    let segment = |path: &Path| name_of(path).trim_end_matches(".zst").to_owned();
    let [changed, gone, uncopied] = [packed[0], packed[1], packed[2]].map(|path| segment(path));
    fs::OpenOptions::new().append(true).open(packed[0]).unwrap().write_all(b"planted").unwrap();
    fs::remove_file(packed[1]).unwrap();
    fs::remove_file(copy_of(storage.path(), &uncopied)).unwrap();
    let removed = files(storage.path()).into_iter().map(|path| segment(&path));
    let removed = removed.into_iter().find(|name| !here.iter().any(|path| segment(path) == *name)).unwrap();
    fs::write(copy_of(storage.path(), &removed), "cut off").unwrap();
    fs::write(plain, "other lines\n").unwrap();
    let wrong = |kind: &str, name: &str| (kind.to_owned(), name.to_owned());
    let mut expected = vec![
        wrong("changed", &changed),
        wrong("changed", &segment(plain)),
        wrong("gone", &gone),
        wrong("no_copy", &removed),
        wrong("no_copy", &uncopied),
    ];
    let (audit, code) = audited(&place, &[]);
    let mut found = findings(&audit);
    found.sort();
    expected.sort();
    assert_eq!((found, code), (expected, Some(4)), "{audit:#}");
    let (said, _) = place.fanli(&["logs", "audit"]);
    for line in [
        format!("\n  CHANGED  {}: its lines have 12 bytes, its seal says ", segment(plain)),
        format!("\n  GONE     {gone}: no limit has removed it; its copy was stored as {gone}.zst at "),
        format!("\n  NO COPY  {uncopied}: {uncopied}.zst is not at the storage any more\n"),
        format!("\n  NO COPY  {removed}: {removed}.zst has 7 bytes at the storage, and had "),
    ] {
        assert!(said.contains(&line), "{line:?} in {said}");
    }

    // Of one file everything that happened to it, wherever it is now.
    let (audit, code) = audited(&place, &["--file", &removed]);
    assert_eq!((kinds(&events(&audit)), code), (vec!["stored", "removed"], Some(4)), "{audit:#}");
    let (audit, _) = audited(&place, &["--file", &uncopied]);
    assert_eq!(kinds(&events(&audit)), ["begun", "closed", "stored"], "{audit:#}");
    assert_eq!(findings(&audit), [wrong("no_copy", &uncopied)]);
    // None of the files is of the last minutes, although they were stored then.
    let (audit, code) = audited(&place, &["--since", "2m"]);
    assert_eq!((findings(&audit).len(), &audit["whole"]["files"]), (0, &0.into()), "{audit:#} {code:?}");

    assert_eq!(findings(&audited(&place, &["--since", "1d"]).0).len(), 5);

    // The copies by themselves, where they are stored.
    let (said, code) = place.fanli(&["logs", "audit", storage.path().to_str().unwrap()]);
    assert!(said.contains("\n  CHANGED  ") && said.matches("CHANGED").count() == 1 && code == Some(4), "{said}");
}

#[test]
fn what_was_left_out_or_never_stored_is_told_as_lost() {
    let place = Declared::new();
    let logs = place.dir.path().join("weblogs");
    let count = segments(&logs).len();
    let segment = segments(&logs).remove(count - 1);
    let mut seal: Value = serde_json::from_slice(&fs::read(seal_of(&segment)).unwrap()).unwrap();
    (seal["dropped_lines"], seal["dropped_bytes"]) = (7.into(), 700.into());
    fs::write(seal_of(&segment), format!("{seal}\n")).unwrap();
    place.plays("ship = \"/nowhere/logs\"  unshipped = drop  count = 2");
    let (said, code) = place.fanli(&["logs", "audit"]);
    assert!(said.contains("\n  LOST     7 lines (700 B) left out\n") && code == Some(4), "{said}");
    assert_eq!(place.fanli(&["logs", "keep"]).1, Some(4));
    let (said, code) = place.fanli(&["logs", "audit"]);
    let lost = format!("\n  LOST     {} files (", count - 2);
    assert!(said.contains(&lost) && said.contains(" removed by limits without a copy\n") && code == Some(4), "{said}");
    // There is nothing at the storage that would have to be looked for.
    assert!(!said.contains("wrong"), "{said}");
    // A folder that is gone, and a seal that is nonsense.
    fs::write(seal_of(&segments(&logs)[0]), "nonsense").unwrap();
    place.plays("ship = \"/nowhere/logs\"  count = 9");
    let (said, _) = place.fanli(&["logs", "audit"]);
    assert!(said.contains(" left by writers that were killed") || said.contains("CHANGED"), "{said}");
    fs::remove_dir_all(&logs).unwrap();
    let (said, code) = place.fanli(&["logs", "audit"]);
    assert!(said.contains("wrong    there is no directory") && code == Some(4), "{said}");
}

#[test]
fn copies_are_looked_for_at_every_kind_of_storage() {
    let (place, storage) = (Declared::new(), tempfile::tempdir_in("/dev/shm").unwrap());
    let (mut daemon, mut store) = (Daemon::start(storage.path()), Store::start());
    let count = segments(&place.dir.path().join("weblogs")).len();
    let targets = [
        (daemon.target(), daemon.key(), storage.path().join("web1/weblogs")),
        ("s3://logs/web1".to_owned(), store.account("secret", store.port), store.root.path().join("logs/web1")),
    ];
    for (target, key, there) in &targets {
        place.plays(&format!("ship = \"{target}\"  ship_key = \"{key}\"  count = 100"));
        assert_eq!(place.fanli(&["logs", "keep"]).1, Some(0));
        let (audit, code) = audited(&place, &[]);
        assert_eq!((&audit["copies"]["found"], code), (&count.into(), Some(0)), "{audit:#}");
        let copy = segments(there).remove(0);
        fs::remove_file(&copy).unwrap();
        let (audit, code) = audited(&place, &[]);
        assert_eq!(findings(&audit), [("no_copy".to_owned(), name_of(&copy))], "{audit:#}");
        assert_eq!((&audit["copies"]["found"], code), (&(count - 1).into(), Some(4)), "{audit:#}");
    }
    // A storage that does not answer is told, and nothing is claimed of its copies.
    store.kill();
    let (said, code) = place.fanli(&["logs", "audit"]);
    assert!(said.contains(" at s3://logs/web1, not looked at\n") && code == Some(4), "{said}");
    assert!(said.contains("wrong    the copies at s3://logs/web1 cannot be looked at: "), "{said}");
    daemon.kill();
    let (target, key, _) = &targets[0];
    place.plays(&format!("ship = \"{target}\"  ship_key = \"{key}\"  count = 100"));
    let (said, code) = place.fanli(&["logs", "audit"]);
    assert!(said.contains("not looked at\n") && said.contains("onnection refused") && code == Some(4), "{said}");
    assert!(!said.contains("NO COPY"), "{said}");
}

/// Writers, a keeper with a tight limit, and audits at the same time: what a keeper does never looks like a loss.
#[test]
fn a_keeper_at_work_is_no_finding() {
    let place = Declared::new();
    let storage = tempfile::tempdir_in("/dev/shm").unwrap();
    place.plays(&format!("ship = \"{}\"  pack = zstd  pack_after = 0s  count = 3", storage.path().display()));
    let template = place.path("weblogs/%Y%m%d.log");
    let over = AtomicBool::new(false);
    let mut audits = 0;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                let mut pipe = Command::new(fanli());
                pipe.args(["log-pipe", "--size", "1KiB", &template]).stdin(Stdio::piped()).stderr(Stdio::null());
                let mut pipe = pipe.spawn().unwrap();
                pipe.stdin.take().unwrap().write_all(&b"a line of a program\n".repeat(400)).unwrap();
                pipe.wait().unwrap();
            }
        });
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                place.fanli(&["logs", "keep"]);
            }
        });
        let begin = Instant::now();
        let mut wrong = None;
        while (begin.elapsed() < Duration::from_secs(4) || audits < 4) && wrong.is_none() {
            let (audit, code) = audited(&place, &[]);
            wrong = (code != Some(0)).then(|| format!("{audit:#}"));
            audits += 1;
        }
        over.store(true, Ordering::Relaxed);
        assert_eq!(wrong, None);
    });
    let (audit, _) = audited(&place, &[]);
    assert!(audit["copies"]["removed"]["files"].as_u64().unwrap() > 3, "{audit:#}");
}

/// A request's number leads to its node, its file, the generation of the configuration, and the receipt of the copy.
#[test]
fn a_line_leads_to_its_file_its_generation_and_its_copy() {
    let place = Declared::new();
    let storage = tempfile::tempdir_in("/dev/shm").unwrap();
    place.plays(&format!("ship = \"{}\"  count = 100", storage.path().display()));
    let template = place.path("weblogs/shop/%Y%m%d.log");
    fs::create_dir(place.path("weblogs/shop")).unwrap();
    let mut pipe = Command::new(fanli());
    let mut pipe = pipe.args(["log-pipe", "--tag", "8d0f3c51", &template]).stdin(Stdio::piped()).spawn().unwrap();
    pipe.stdin.take().unwrap().write_all(b"GET /cart request-4711\n").unwrap();
    assert!(pipe.wait().unwrap().success());
    place.fanli(&["logs", "keep"]);
    let (line, _) = place.fanli(&["logs", "grep", "request-4711", "--json"]);
    let line: Value = serde_json::from_str(&line).unwrap();
    let (audit, code) = audited(&place, &["--file", line["file"].as_str().unwrap()]);
    let [("begun", begun), ("closed", closed), ("stored", stored)] = events(&audit)[..] else { panic!("{audit:#}") };
    assert!(begun.ends_with(", tag 8d0f3c51"), "{begun}");
    assert!(closed.starts_with("with 1 line, 23 bytes, SHA-256 "), "{closed}");
    let path = line["file"].as_str().unwrap();
    assert_eq!(stored, format!("at {} as {path}, 23 bytes", storage.path().display()));
    assert_eq!((&audit["whole"]["files"], code), (&1.into(), Some(0)));
    for odd in ["a\nb", &"x".repeat(201)] {
        let done =
            Command::new(fanli()).args(["log-pipe", "--tag", odd, &template]).stdin(Stdio::null()).output().unwrap();
        assert_eq!(done.status.code(), Some(2), "{odd:?}");
    }
}

/// Whatever is done to a file, its seal or the ledger: nothing of it may be called well. Each case: a script, with the file in `$F`, its seal in `$S` and
/// the ledger's month in `$L`; and what the audit says of it then.
#[test]
fn what_is_not_accounted_for_is_never_called_well() {
    let cases = [
        ("rm $S", "  CHANGED  NAME: its seal is gone or cannot be read; its copy was stored as NAME at "),
        ("rm $S; mkfifo $S", "  CHANGED  NAME: its seal is gone or cannot be read; "),
        ("echo '{}' > $S", "; 1 left by writers that were killed"),
        ("rm $F; mkfifo $F", "  GONE     NAME: no limit has removed it; "),
        ("rm $F; ln -s /etc/passwd $F", "  GONE     NAME: no limit has removed it; "),
        // Lines and seal rewritten together: only the ledger knows better.
        (
            "printf 'b\\n' > $F; H=$(sha256sum $F | cut -d' ' -f1); \
             sed -i -e 's/\"lines\":[0-9]*/\"lines\":1/' -e 's/\"bytes\":[0-9]*/\"bytes\":2/' \
             -e \"s/\\\"sha256\\\":\\\"[0-9a-f]*/\\\"sha256\\\":\\\"$H/\" $S",
            "  CHANGED  NAME: its seal tells of other lines than those that were stored as NAME at ",
        ),
        ("sed -i 's/\"lines\":[0-9]*/\"lines\":99/' $S", "  CHANGED  NAME: it has 11 lines, its seal says 99"),
        ("sed -i 's/\"lines\":[0-9]*/\"lines\":18446744073709551615/' $S", "; 1 left by writers that were killed"),
        ("truncate -s 200G $F", "  CHANGED  NAME: its lines have 214748364800 bytes, its seal says 1111"),
        ("echo trash >> $L", "  wrong    1 line of the ledger's month "),
        ("mkdir -p $D/1/2/3/4/5/6/7/8/9", " is not looked into: no further than 8 directories below "),
        ("gzip -k $F; truncate -s 300 $F", "  CHANGED  NAME: its lines have 300 bytes, its seal says 1111"),
    ];
    for (script, says) in cases {
        let place = Declared::new();
        let storage = tempfile::tempdir_in("/dev/shm").unwrap();
        place.plays(&format!("ship = \"{}\"  count = 100", storage.path().display()));
        assert_eq!(place.fanli(&["logs", "keep"]).1, Some(0));
        let logs = place.dir.path().join("weblogs");
        // A whole one, which has eleven lines.
        let file = segments(&logs).into_iter().find(|path| fs::metadata(path).unwrap().len() == 1_111).unwrap();
        let month = sh(&format!("ls {}/ledger/*/*.jsonl | tail -n 1", place.path("state")));
        sh(&format!(
            "F={} S={} L={} D={}; {script}",
            file.display(),
            seal_of(&file).display(),
            month.trim(),
            logs.display()
        ));
        let (said, code) = place.fanli(&["logs", "audit", &place.path("play.fp")]);
        let says = says.replace("NAME", &name_of(&file));
        assert!(said.contains(&says), "{script}: {says:?} in {said}");
        assert_eq!(code, Some(4), "{script}: {said}");
    }
    // What was compressed stays, where the other file does not hold the lines.
    let place = Declared::new();
    place.plays("pack = gzip  pack_after = 0s");
    let file = segments(&place.dir.path().join("weblogs")).remove(0);
    sh(&format!("gzip -k {0}; truncate -s 300 {0}", file.display()));
    let (said, code) = place.fanli(&["logs", "keep"]);
    assert!(code == Some(4) && said.contains("is not as its seal says, and is left as it is"), "{said}");
    assert!(file.with_extension("log.gz").exists(), "{said}");
    // What nobody knows of is not told to be well, either.
    for (arguments, says, expected) in [
        (&["--file", "nothing.log"][..], "error: no file `nothing.log` is known\n", 4),
        (&["--since", "2999-01-01"], "error: `--since` is in the future\n", 2),
    ] {
        let (said, code) = place.fanli(&[&["logs", "audit"], arguments].concat());
        assert!(said.contains(says) && code == Some(expected), "{said}");
    }
    place.plays("state = absent");
    let (said, code) = place.fanli(&["logs", "audit"]);
    assert!(said.contains("error: no folder of log files is declared: nothing was looked at\n"), "{said}");
    assert_eq!(code, Some(4));
}
