//! The doors themselves.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;
use std::time::{Duration, Instant};

use fanli::system::fs::{Attrs, EntryKind, lock};

use crate::common::{Bench, is_root, picture};

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

#[test]
fn looks_through_links_that_only_root_can_have_made() {
    let bench = Bench::new();
    // /etc/mtab -> ../proc/self/mounts, /proc/self -> PID; /bin -> usr/bin on a merged /usr.
    assert!(bench.probe.read("/etc/os-release", 65536).unwrap().is_some());
    assert!(bench.probe.exists("/bin/sh").unwrap());
    assert!(bench.probe.stat("/sys/class/net/lo/mtu").unwrap().is_some());
    assert_eq!(bench.probe.read_small("/sys/class/net/lo/mtu").unwrap().unwrap().trim(), "65536");
    assert_eq!(bench.probe.read("/nowhere/at/all", 1).unwrap(), None);
    assert_eq!(bench.probe.stat("/nowhere/at/all").unwrap(), None);
    assert_eq!(bench.probe.stat("/").unwrap().unwrap().kind, EntryKind::Directory);
    assert!(bench.probe.list("/").unwrap().unwrap().iter().any(|name| name == "etc"));
    let failure = bench.probe.stat("/etc/passwd/x").unwrap_err().to_string();
    assert_eq!(failure, "cannot reach /etc/passwd/x: `passwd` on the way is not a directory");
    assert!(bench.probe.stat("/etc/../etc").unwrap_err().to_string().contains("not a plain absolute path"));
    assert!(bench.probe.stat("etc").is_err());
}

#[test]
fn refuses_links_that_others_could_have_made() {
    let bench = Bench::new();
    let dir = tempfile::tempdir().unwrap();
    let (inside, link) = (dir.path().join("real"), dir.path().join("link"));
    fs::create_dir(&inside).unwrap();
    fs::write(inside.join("f"), "x").unwrap();
    symlink(&inside, &link).unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let through = link.join("f");
    for failure in [
        bench.probe.read(&through, 10).unwrap_err(),
        bench.hands().replace(&through, b"y", Attrs::default()).unwrap_err(),
        bench.hands().remove_file(&through).unwrap_err(),
        bench.hands().make_dir(link.join("new"), Attrs::default()).unwrap_err(),
    ] {
        assert!(failure.to_string().contains("leads through a link that others could have made"), "{failure}");
    }
    assert_eq!(fs::read(inside.join("f")).unwrap(), b"x");
}

#[test]
fn never_waits_for_a_fifo_and_names_the_limit() {
    let bench = Bench::new();
    let dir = tempfile::tempdir().unwrap();
    let fifo = dir.path().join("fifo");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, rustix::fs::Mode::from_raw_mode(0o600), 0)
        .unwrap();
    let started = Instant::now();
    let failure = bench.probe.read(&fifo, 10).unwrap_err();
    assert!(failure.to_string().ends_with("is a device, socket or FIFO, not a file"), "{failure}");
    assert!(bench.probe.read("/dev/zero", 10).is_err());
    assert!(started.elapsed() < Duration::from_secs(1));
    fs::write(dir.path().join("big"), vec![0; 2049]).unwrap();
    let failure = bench.probe.read(dir.path().join("big"), 2048).unwrap_err();
    assert!(failure.to_string().ends_with("is larger than 2KiB"), "{failure}");
}

#[test]
fn replaces_a_file_and_keeps_what_is_not_named() {
    let bench = Bench::new();
    let hands = bench.hands();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");
    hands.replace(&path, b"one", Attrs::default()).unwrap();
    assert_eq!((fs::read(&path).unwrap(), mode(&path)), (b"one".to_vec(), 0o644));
    let first = fs::metadata(&path).unwrap().ino();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o4751)).unwrap();
    hands.replace(&path, b"two", Attrs::default()).unwrap();
    assert_eq!((fs::read(&path).unwrap(), mode(&path)), (b"two".to_vec(), 0o4751));
    assert_ne!(fs::metadata(&path).unwrap().ino(), first);
    hands.replace(&path, b"three", Attrs::mode(0o600)).unwrap();
    assert_eq!(mode(&path), 0o600);
    if is_root() {
        hands.replace(&path, b"four", Attrs { uid: Some(501), gid: Some(502), mode: Some(0o2755) }).unwrap();
        hands.replace(&path, b"five", Attrs::default()).unwrap();
        let meta = fs::metadata(&path).unwrap();
        assert_eq!((meta.uid(), meta.gid(), mode(&path)), (501, 502, 0o2755));
        hands.set_attrs(&path, Attrs { uid: Some(503), ..Attrs::default() }).unwrap();
        assert_eq!((fs::metadata(&path).unwrap().uid(), mode(&path)), (503, 0o2755));
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn a_staged_file_that_is_not_committed_goes_away() {
    let bench = Bench::new();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");
    fs::write(&path, "old").unwrap();
    let staged = bench.hands().stage(&path, b"new", Attrs::default()).unwrap();
    assert_eq!(fs::read(staged.path()).unwrap(), b"new");
    drop(staged);
    assert_eq!(fs::read(&path).unwrap(), b"old");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn refuses_what_stands_in_the_way() {
    let bench = Bench::new();
    let hands = bench.hands();
    let dir = tempfile::tempdir().unwrap();
    let (file, link, sub) = (dir.path().join("f"), dir.path().join("l"), dir.path().join("d"));
    fs::write(&file, "x").unwrap();
    symlink("f", &link).unwrap();
    fs::create_dir(&sub).unwrap();
    let before = picture(dir.path());
    let failure = hands.replace(&link, b"y", Attrs::default()).unwrap_err();
    assert!(failure.to_string().ends_with("l is a link to f") && failure.hint.is_some(), "{failure}");
    assert!(hands.replace(&sub, b"y", Attrs::default()).unwrap_err().to_string().contains("is a directory"));
    assert!(hands.set_attrs(&link, Attrs::mode(0o777)).is_err());
    assert!(hands.make_dir(&file, Attrs::mode(0o777)).unwrap_err().to_string().contains("is a file"));
    assert!(hands.symlink(&file, "x").unwrap_err().to_string().contains("is a file"));
    assert!(hands.remove_tree(&link).unwrap_err().to_string().contains("is a link"));
    assert!(hands.remove_tree("/").is_err());
    assert!(hands.remove_dir(dir.path()).unwrap_err().to_string().contains("not empty"));
    let missing = hands.replace(dir.path().join("no/f"), b"y", Attrs::default()).unwrap_err();
    assert!(missing.to_string().contains("the directory of") && missing.hint.is_some(), "{missing}");
    assert_eq!(picture(dir.path()), before);
}

#[test]
fn refuses_attributes_of_a_file_with_a_second_name_where_others_write() {
    let bench = Bench::new();
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let (file, other) = (dir.path().join("f"), dir.path().join("g"));
    fs::write(&file, "x").unwrap();
    fs::hard_link(&file, &other).unwrap();
    let failure = bench.hands().set_attrs(&file, Attrs::mode(0o666)).unwrap_err();
    assert!(failure.to_string().contains("has 2 names"), "{failure}");
    assert_eq!(mode(&other), 0o644);
    // Replacing gives the name a file of its own; the other name keeps its bytes.
    bench.hands().replace(&file, b"y", Attrs::mode(0o640)).unwrap();
    assert_eq!((fs::read(&other).unwrap(), mode(&other)), (b"x".to_vec(), 0o644));
}

#[test]
fn makes_directories_with_parents_and_removes_trees() {
    let bench = Bench::new();
    let hands = bench.hands();
    let dir = tempfile::tempdir().unwrap();
    let deep = dir.path().join("a/b/c");
    hands.make_dir(&deep, Attrs::mode(0o2770)).unwrap();
    assert_eq!((mode(&deep), mode(&dir.path().join("a/b"))), (0o2770, 0o755));
    fs::write(deep.join("f"), "x").unwrap();
    let outside = dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("kept"), "x").unwrap();
    symlink(&outside, deep.join("l")).unwrap();
    hands.remove_tree(dir.path().join("a")).unwrap();
    hands.remove_tree(dir.path().join("a")).unwrap();
    assert!(!dir.path().join("a").exists());
    assert!(outside.join("kept").exists());
}

#[test]
fn links_are_made_and_turned() {
    let bench = Bench::new();
    let dir = tempfile::tempdir().unwrap();
    let link = dir.path().join("l");
    for target in ["one", "/two", "one"] {
        bench.hands().symlink(&link, target).unwrap();
        assert_eq!(fs::read_link(&link).unwrap(), Path::new(target));
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn the_next_write_takes_away_leftovers_but_nothing_else() {
    let bench = Bench::new();
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::write(at(".fanli-0123456789abcdef.tmp"), "left").unwrap();
    symlink("x", at(".fanli-0123456789abcdee.link.tmp")).unwrap();
    fs::create_dir(at(".fanli-0123456789abcded.tmp")).unwrap();
    fs::write(at(".fanli-notes.tmp"), "mine").unwrap();
    fs::write(at("fanli-0123456789abcdef.tmp"), "mine").unwrap();
    let held = bench.hands().stage(at("other"), b"held", Attrs::default()).unwrap();
    bench.hands().replace(at("f"), b"x", Attrs::default()).unwrap();
    let mut names: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    let mut expected = vec![
        held.path().file_name().unwrap().to_owned(),
        ".fanli-notes.tmp".into(),
        "f".into(),
        "fanli-0123456789abcdef.tmp".into(),
    ];
    expected.sort();
    assert_eq!(names, expected);
    held.commit().unwrap();
    assert_eq!(fs::read(at("other")).unwrap(), b"held");
}

#[test]
fn a_lock_names_its_holder_and_dies_with_it() {
    let bench = Bench::new();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lock");
    let held = bench.block(lock(&path, "run 7", Duration::ZERO)).unwrap();
    let failure = bench.block(lock(&path, "run 8", Duration::from_millis(150))).unwrap_err();
    assert_eq!(
        failure.to_string(),
        format!("{} is held by run 7: over its limit `lock_wait` of 150ms", path.display())
    );
    drop(held);
    bench.block(lock(&path, "run 8", Duration::ZERO)).unwrap();
}

#[test]
fn writers_side_by_side_do_not_disturb_each_other() {
    let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let dir = dir.path();
            scope.spawn(move || {
                let hands = Bench::new().hands();
                for round in 0..250 {
                    hands
                        .replace(dir.join("shared"), format!("{writer} {round}").as_bytes(), Attrs::default())
                        .unwrap();
                    hands.replace(dir.join(format!("own{writer}")), b"x", Attrs::default()).unwrap();
                    hands.symlink(dir.join("link"), format!("{writer} {round}")).unwrap();
                    hands.make_dir(dir.join(format!("d/{writer}/{round}")), Attrs::mode(0o700)).unwrap();
                }
            });
        }
    });
    let mut names: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["d", "link", "own0", "own1", "own2", "own3", "shared"]);
}
