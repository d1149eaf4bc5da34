//! What only root can try: links of root, mounts below a tree, labels.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use fanli::system::fs::Attrs;

use crate::common::Bench;

/// A folder that nobody but root can write, with nothing above it that others can.
fn guarded() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("fanli-files-").tempdir_in("/root").unwrap()
}

/// A mount that is undone when this goes.
struct Mounted(PathBuf);

impl Mounted {
    fn new(arguments: &[&str], at: &Path) -> Self {
        let output = Command::new("mount").args(arguments).arg(at).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        Self(at.to_owned())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

#[test]
fn links_of_root_are_followed_as_the_kernel_would() {
    let bench = Bench::new();
    let dir = guarded();
    let at = |name: &str| dir.path().join(name);
    fs::create_dir_all(at("a/b/c")).unwrap();
    fs::write(at("a/b/c/f"), "found").unwrap();
    symlink("a/b", at("relative")).unwrap();
    symlink(at("a/b/c"), at("absolute")).unwrap();
    symlink("../../relative/c", at("a/b/up")).unwrap();
    symlink("f", at("a/b/c/last")).unwrap();
    symlink("nowhere", at("dangling")).unwrap();
    symlink("loop", at("loop")).unwrap();
    symlink("../../../../../../../../../etc/../root", at("far")).unwrap();
    for path in ["relative/c/f", "absolute/f", "a/b/up/f", "absolute/last", "relative/up/last", "a/b/up/../c/f"] {
        let path = at(path);
        let through = bench.probe.read(&path, 100);
        if path.display().to_string().contains("..") {
            assert!(through.is_err());
        } else {
            assert_eq!(through.unwrap().unwrap(), b"found", "{}", path.display());
            assert_eq!(bench.probe.canonical(&path).unwrap().unwrap(), path.canonicalize().unwrap());
        }
    }
    assert!(bench.probe.stat(at("far").join(".").join(dir.path().file_name().unwrap())).unwrap().is_some());
    assert!(!bench.probe.exists(at("dangling")).unwrap());
    assert!(bench.probe.stat(at("dangling")).unwrap().is_some());
    let failure = bench.probe.read(at("loop"), 100).unwrap_err();
    assert!(failure.to_string().contains("Too many levels of symbolic links"), "{failure}");
    bench.hands().replace(at("relative/c/f"), b"new", Attrs::default()).unwrap();
    assert_eq!(fs::read(at("a/b/c/f")).unwrap(), b"new");
}

#[test]
fn a_tree_with_a_mount_below_is_not_touched() {
    let bench = Bench::new();
    let dir = guarded();
    let (tree, data) = (dir.path().join("tree"), dir.path().join("data"));
    fs::create_dir_all(tree.join("a/point")).unwrap();
    fs::create_dir(&data).unwrap();
    fs::write(data.join("kept"), "x").unwrap();
    fs::write(tree.join("a/first"), "x").unwrap();
    for arguments in [vec!["--bind", data.to_str().unwrap()], vec!["-t", "tmpfs", "fanli-files"]] {
        let point = tree.join("a/point");
        let mounted = Mounted::new(&arguments, &point);
        let failure = bench.hands().remove_tree(&tree).unwrap_err();
        assert!(failure.to_string().contains(&format!("{} is a mount point", point.display())), "{failure}");
        assert!(failure.hint.is_some());
        let failure = bench.hands().remove_tree(&point).unwrap_err();
        assert!(failure.to_string().contains("is a mount point"), "{failure}");
        assert!(bench.hands().remove_dir(&point).unwrap_err().to_string().contains("is a mount point"));
        drop(mounted);
        assert!(tree.join("a/first").exists() && data.join("kept").exists());
    }
    bench.hands().remove_tree(&tree).unwrap();
    assert!(!tree.exists());
}

#[test]
fn a_replaced_file_keeps_its_label() {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let path = dir.path().join("f");
    fs::write(&path, "x").unwrap();
    let (name, label) = ("security.selinux", b"system_u:object_r:shadow_t:s0\0");
    rustix::fs::setxattr(&path, name, label, rustix::fs::XattrFlags::empty()).unwrap();
    Bench::new().hands().replace(&path, b"y", Attrs::default()).unwrap();
    let mut found = [0u8; 100];
    let length = rustix::fs::getxattr(&path, name, found.as_mut_slice()).unwrap();
    assert_eq!(&found[..length], label);
}

/// Names the folder that the reader looks through; set only for the process that is one.
const READER: &str = "FANLI_TEST_READER_FOLDER";

/// Not a test by itself: what an unprivileged user does all the time while root writes.
#[test]
fn reader() {
    let Some(dir) = std::env::var_os(READER) else { return };
    let (mut tries, mut opened) = (0u64, 0u64);
    while !Path::new(&dir).join("stop").exists() {
        for entry in fs::read_dir(&dir).unwrap().flatten() {
            tries += 1;
            let path = entry.path();
            opened +=
                u64::from(fs::File::open(&path).is_ok() || fs::OpenOptions::new().append(true).open(&path).is_ok());
        }
    }
    assert!(tries > 1000, "{tries} tries");
    assert_eq!(opened, 0, "of {tries} tries");
}

#[test]
fn a_secret_is_never_readable_not_even_for_a_moment() {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let program = dir.path().join("program");
    let folder = dir.path().join("secrets");
    fs::create_dir(&folder).unwrap();
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let mut reader = Command::new("setpriv")
        .args(["--reuid", "65534", "--regid", "65534", "--clear-groups"])
        .arg(&program)
        .args(["--exact", "files::reader", "--nocapture"])
        .env(READER, &folder)
        .spawn()
        .unwrap();
    let hands = Bench::new().hands();
    let until = std::time::Instant::now() + std::time::Duration::from_secs(3);
    let mut round = 0u32;
    while std::time::Instant::now() < until {
        round += 1;
        let attrs = Attrs { mode: Some(0o640), uid: Some(501), gid: Some(501) };
        hands.replace(folder.join("secret"), b"secret", attrs).unwrap();
        hands.remove_dir(folder.join("dir")).unwrap();
        hands.make_dir(folder.join("dir"), Attrs { mode: Some(0o2750), ..attrs }).unwrap();
    }
    hands.replace(folder.join("stop"), b"", Attrs::mode(0o600)).unwrap();
    assert!(reader.wait().unwrap().success(), "somebody else could open it, in {round} rounds");
    assert!(round > 100, "{round} rounds");
}

#[test]
fn a_tree_of_many_levels_is_an_error_not_a_crash() {
    let dir = guarded();
    let mut path = dir.path().join("deep");
    for _ in 0..230 {
        path.push("d");
    }
    fs::create_dir_all(&path).unwrap();
    let failure = Bench::new().hands().remove_tree(dir.path().join("deep")).unwrap_err();
    assert!(failure.to_string().ends_with("lies deeper than 200 levels"), "{failure}");
}
