//! Whose work a name is: links that containers could have made.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::PathBuf;

use fanli::system::fs::{Attrs, EntryKind};

use crate::args;
use crate::common::{Bench, build, is_root, picture};

/// A folder with nothing above it that others can write, where links are followed.
fn guarded() -> tempfile::TempDir {
    let home = if is_root() { PathBuf::from("/root") } else { std::env::var_os("HOME").unwrap().into() };
    tempfile::Builder::new().prefix("fanli-trust-").tempdir_in(home).unwrap()
}

#[test]
fn no_link_is_followed_in_what_a_container_mounts_writable() {
    let (bench, dir) = (Bench::new(), guarded());
    let at = |name: &str| dir.path().join(name);
    fs::create_dir_all(at("node/logs/site")).unwrap();
    fs::create_dir(at("victim")).unwrap();
    fs::write(at("victim/secret"), "kept").unwrap();
    fs::set_permissions(at("victim"), fs::Permissions::from_mode(0o700)).unwrap();
    // As root in the container, whose user is 0 here, too.
    symlink(at("victim"), at("node/logs/eagle")).unwrap();
    symlink(at("victim/secret"), at("node/logs/site/file")).unwrap();
    symlink(at("node"), at("by-link")).unwrap();
    let before = picture(&at("victim"));
    // Before anything is known of a container, it is root's word.
    assert!(bench.probe.read(at("node/logs/eagle/secret"), 10).unwrap().is_some());
    // The mount is declared by way of a link of root's.
    bench.probe.container_mounts().add([at("by-link/logs").display().to_string(), "/etc".to_owned()]);
    let hands = bench.hands();
    for base in ["node", "by-link"] {
        let through = at(base).join("logs/eagle/secret");
        let new = at(base).join("logs/eagle/new");
        let failures = [
            bench.probe.read(&through, 10).unwrap_err(),
            bench.probe.read(at(base).join("logs/site/file"), 10).unwrap_err(),
            bench.probe.list(at(base).join("logs/eagle")).unwrap_err(),
            bench.probe.canonical(at(base).join("logs/eagle")).unwrap_err(),
            bench.block(bench.probe.bind_source(at(base).join("logs/eagle").to_str().unwrap())).unwrap_err(),
            bench.probe.slot(at(base).join("logs/eagle/slot")).unwrap_err(),
            hands.replace(&through, b"x", Attrs::default()).unwrap_err(),
            hands.make_dir(&new, Attrs { uid: Some(501), ..Attrs::default() }).unwrap_err(),
            hands.set_attrs(&through, Attrs::mode(0o777)).unwrap_err(),
            hands.symlink(&new, "x").unwrap_err(),
            hands.remove_file(&through).unwrap_err(),
            hands.remove_tree(&new).unwrap_err(),
        ];
        for failure in failures {
            let text = failure.to_string();
            assert!(text.contains("leads through a link that others could have made"), "{text}");
            assert!(text.contains("which a container mounts writable"), "{text}");
        }
        for kind in ["file", "directory", "line"] {
            let mut args = args! { "path" => new.display().to_string() };
            if kind == "line" {
                args.insert("line".to_owned(), "x".into());
            }
            assert!(bench.plan(&build(kind, args)).is_err(), "{kind}");
        }
    }
    assert_eq!(picture(&at("victim")), before);
    // The link itself is looked at, and can be removed; what is no link is written as ever; other links are followed.
    assert!(matches!(bench.probe.stat(at("node/logs/eagle")).unwrap().unwrap().kind, EntryKind::Link(_)));
    hands.replace(at("by-link/logs/site/motd"), b"x", Attrs::default()).unwrap();
    hands.remove_file(at("node/logs/eagle")).unwrap();
    assert!(bench.probe.read("/etc/os-release", 65536).unwrap().is_some());
}
