//! Whose work a name is: links that containers could have made, files that other users planted, and what a file keeps of its
//! rights when it is replaced.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};

use fanli::system::fs::{Attrs, EntryKind};
use fanli::value::Value;
use rustix::fs::{XattrFlags, getxattr, setxattr};

use crate::args;
use crate::common::{Bench, build, is_root, picture};

/// A folder with nothing above it that others can write, where links are followed.
fn guarded() -> tempfile::TempDir {
    let home = if is_root() { PathBuf::from("/root") } else { std::env::var_os("HOME").unwrap().into() };
    tempfile::Builder::new().prefix("fanli-trust-").tempdir_in(home).unwrap()
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
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
            hands.append(&through).unwrap_err(),
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

#[test]
fn among_data_only_declared_links_lead_on() {
    if !is_root() {
        return;
    }
    let bench = Bench::new();
    let dir = tempfile::Builder::new().prefix("fanli-trust-").tempdir_in("/srv").unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::create_dir_all(at("victim")).unwrap();
    fs::create_dir_all(at("node/logs")).unwrap();
    fs::write(at("victim/motd"), "kept").unwrap();
    symlink(at("victim"), at("node/logs/eagle")).unwrap();
    symlink("../../victim", at("node/logs/owl")).unwrap();
    let before = picture(&at("victim"));
    let path = |name: &str| at("node/logs").join(name).display().to_string();
    let tasks = [
        build("directory", args! { "path" => path("eagle/archive"), "owner" => Value::Int(501) }),
        build("file", args! { "path" => path("eagle/motd"), "content" => "from fanli\n", "owner" => Value::Int(501) }),
        build("file", args! { "path" => path("owl/motd"), "state" => "absent" }),
    ];
    for task in &tasks {
        let failure = bench.plan(task).unwrap_err();
        assert!(
            failure.to_string().contains("where any container that mounts it could have put it as root"),
            "{failure}"
        );
        assert!(failure.hint.as_ref().is_some_and(|hint| hint.contains("`link` task")), "{failure}");
    }
    assert_eq!(picture(&at("victim")), before);
    // A link that leads elsewhere than the declared one is another.
    bench.probe.declared_links().add([(path("eagle"), "/srv/elsewhere".to_owned())]);
    assert!(bench.plan(&tasks[1]).is_err());
    bench.probe.declared_links().add([(path("eagle"), at("victim").display().to_string())]);
    bench.converge(&tasks[1]).unwrap();
    assert_eq!(fs::read(at("victim/motd")).unwrap(), b"from fanli\n");
    // Right in /srv a link says where data lies.
    let name = format!("{}-link", dir.path().display());
    symlink(dir.path(), &name).unwrap();
    let through = bench.probe.read(format!("{name}/victim/motd"), 100);
    fs::remove_file(&name).unwrap();
    assert!(through.unwrap().is_some());
    // What a container mounts is never led through, declared or not.
    bench.probe.container_mounts().add([at("node").display().to_string()]);
    assert!(bench.probe.read(path("eagle/motd"), 100).is_err());
}

/// A directory that everybody can write, as `/tmp` is, with a file, a directory and a link that user 501 planted in it.
fn planted() -> tempfile::TempDir {
    let dir = guarded();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o1777)).unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::write(at("run.sh"), "wanted").unwrap();
    fs::set_permissions(at("run.sh"), fs::Permissions::from_mode(0o666)).unwrap();
    fs::create_dir(at("d")).unwrap();
    symlink("/srv/good", at("l")).unwrap();
    for name in ["run.sh", "d"] {
        chown(at(name), Some(501), Some(501)).unwrap();
    }
    std::os::unix::fs::lchown(at("l"), Some(501), Some(501)).unwrap();
    dir
}

#[test]
fn what_another_user_planted_is_refused_or_made_anew() {
    if !is_root() {
        return;
    }
    let (bench, dir) = (Bench::new(), planted());
    let path = |name: &str| dir.path().join(name).display().to_string();
    let refused = [
        build("file", args! { "path" => path("run.sh"), "content" => "wanted" }),
        build("file", args! { "path" => path("run.sh"), "mode" => Value::Mode(0o755) }),
        build("template", args! { "path" => path("run.sh"), "source" => bench.blob(b"new") }),
        build("line", args! { "path" => path("run.sh"), "line" => "x" }),
        build("directory", args! { "path" => path("d"), "mode" => Value::Mode(0o755) }),
        build("link", args! { "path" => path("l"), "to" => "/srv/good" }),
    ];
    for kind in &refused {
        let failure = bench.plan(kind).unwrap_err();
        assert!(
            failure.to_string().contains("belongs to user 501, in a directory that others can write to"),
            "{failure}"
        );
        assert!(failure.hint.is_some(), "{failure}");
    }
    // What appears between the look and the write is refused as well.
    assert!(bench.hands().replace(path("run.sh"), b"x", Attrs::mode(0o700)).is_err());
    // With an owner it is made anew: who has the old one open has nothing of the new one, and no permission of it stays.
    let open = fs::OpenOptions::new().append(true).open(path("run.sh")).unwrap();
    let file = build("file", args! { "path" => path("run.sh"), "content" => "wanted", "owner" => "root" });
    bench.converge(&file).unwrap().unwrap();
    std::io::Write::write_all(&mut &open, b"by 501").unwrap();
    let meta = fs::metadata(path("run.sh")).unwrap();
    assert_eq!((fs::read(path("run.sh")).unwrap(), meta.uid(), meta.gid()), (b"wanted".to_vec(), 0, 0));
    assert_eq!(mode(Path::new(&path("run.sh"))), 0o644);
    // A link that leads elsewhere is turned by a new one of root's; what is to go may go.
    bench.converge(&build("link", args! { "path" => path("l"), "to" => "/srv/other" })).unwrap();
    assert_eq!(fs::symlink_metadata(path("l")).unwrap().uid(), 0);
    bench.converge(&build("directory", args! { "path" => path("d"), "owner" => "root" })).unwrap();
    chown(path("run.sh"), Some(501), None).unwrap();
    bench.converge(&build("file", args! { "path" => path("run.sh"), "state" => "absent" })).unwrap();
}

#[test]
fn a_users_own_file_in_a_directory_of_that_user_stays_that_users() {
    if !is_root() {
        return;
    }
    let (bench, dir) = (Bench::new(), guarded());
    let (home, file) = (dir.path().join("home"), dir.path().join("home/.profile"));
    fs::create_dir(&home).unwrap();
    fs::write(&file, "a\n").unwrap();
    for path in [&home, &file] {
        chown(path, Some(501), Some(501)).unwrap();
    }
    let at = file.display().to_string();
    bench.converge(&build("line", args! { "path" => at.clone(), "line" => "b" })).unwrap();
    bench.converge(&build("file", args! { "path" => at, "content" => "c" })).unwrap();
    assert_eq!((fs::metadata(&file).unwrap().uid(), fs::read(&file).unwrap()), (501, b"c".to_vec()));
}

/// An access list in the kernel's form: the owner and user 501 may write, the group may read.
fn access_list() -> Vec<u8> {
    let entries: [(u16, u16, u32); 5] =
        [(1, 6, u32::MAX), (2, 6, 501), (4, 4, u32::MAX), (0x10, 6, u32::MAX), (0x20, 0, u32::MAX)];
    let mut bytes = 2u32.to_le_bytes().to_vec();
    for (tag, rights, id) in entries {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(rights.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}

fn attribute(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut value = vec![0; 4096];
    let length = getxattr(path, name, value.as_mut_slice()).ok()?;
    value.truncate(length);
    Some(value)
}

#[test]
fn access_lists_and_attributes_outlive_a_replace() {
    let (bench, dir) = (Bench::new(), guarded());
    let hands = bench.hands();
    let path = dir.path().join("secret");
    fs::write(&path, "old").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    let mut kept = vec![("system.posix_acl_access", access_list()), ("user.note", b"kept".to_vec())];
    if is_root() {
        // cap_net_bind_service=ep, version 2.
        let words: [u32; 5] = [0x0200_0001, 1 << 10, 0, 0, 0];
        kept.push(("security.capability", words.iter().flat_map(|word| word.to_le_bytes()).collect()));
    }
    for (name, value) in &kept {
        setxattr(&path, *name, value, XattrFlags::empty()).unwrap();
    }
    assert_eq!(mode(&path), 0o660, "the mask shows as the group's rights");
    hands.replace(&path, b"new", Attrs::default()).unwrap();
    assert_eq!((fs::read(&path).unwrap(), mode(&path)), (b"new".to_vec(), 0o660));
    for (name, value) in &kept {
        assert_eq!(attribute(&path, name).as_ref(), Some(value), "{name}");
    }
    // A declared mode is the mask, as with chmod.
    hands.replace(&path, b"newer", Attrs::mode(0o640)).unwrap();
    let list = attribute(&path, "system.posix_acl_access").unwrap();
    assert_eq!((mode(&path), list[4 + 3 * 8 + 2], list[4 + 8 + 2]), (0o640, 4, 6));
    // What the directory hands down to new files does not come to one that had it not.
    let plain = dir.path().join("plain");
    fs::write(&plain, "old").unwrap();
    setxattr(dir.path(), "system.posix_acl_default", &access_list(), XattrFlags::empty()).unwrap();
    hands.replace(&plain, b"new", Attrs::default()).unwrap();
    assert_eq!((attribute(&plain, "system.posix_acl_access"), mode(&plain)), (None, 0o644));
}

#[test]
fn a_second_name_that_keeps_the_old_content_is_told() {
    let (bench, dir) = (Bench::new(), guarded());
    let (file, other) = (dir.path().join("f"), dir.path().join("g"));
    fs::write(&file, "a\n").unwrap();
    fs::hard_link(&file, &other).unwrap();
    let at = file.display().to_string();
    let told = |kind| {
        bench.plan(&kind).unwrap();
        bench.probe.warnings()
    };
    let warning = format!("{at} has 2 names (hard links): the new content goes to this one, the others keep the old");
    assert_eq!(told(build("file", args! { "path" => at.clone(), "content" => "b\n" })), std::slice::from_ref(&warning));
    assert_eq!(told(build("line", args! { "path" => at.clone(), "line" => "b" })), [warning]);
    assert_eq!(told(build("file", args! { "path" => at.clone(), "content" => "a\n" })), Vec::<String>::new());
    assert_eq!(told(build("line", args! { "path" => at, "line" => "a" })), Vec::<String>::new());
}

#[test]
fn what_another_program_writes_meanwhile_is_never_overwritten() {
    let (bench, dir) = (Bench::new(), guarded());
    let path = dir.path().join("conf");
    let at = path.display().to_string();
    let validate = |script: &str| {
        let words = ["sh", "-c", script, "{file}"];
        Value::List(words.into_iter().map(Value::from).collect())
    };
    let append = format!("printf 'of another program\\n' >> '{at}'");
    let replace = format!("printf 'x = 1\\n' > '{at}.new'; mv '{at}.new' '{at}'");
    let chmod = format!("sleep 0.05; chmod 600 '{at}'");
    for (script, left) in [
        (&append, "x = 1\nof another program\n"),
        (&replace, "x = 1\n"),
        (&chmod, "x = 1\n"),
        (&format!("rm '{at}'"), ""),
    ] {
        for kind in ["line", "file"] {
            fs::write(&path, "x = 1\n").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
            let mut args = args! { "path" => at.clone(), "validate" => validate(script) };
            args.extend(match kind {
                "line" => args! { "line" => "x = 2", "starting" => "x =" },
                _ => args! { "content" => "x = 2\n" },
            });
            let kind = build(kind, args);
            let change = bench.plan(&kind).unwrap().unwrap();
            let failure = bench.apply(&kind, &change).unwrap_err();
            assert_eq!(
                failure.to_string(),
                format!("{at} was changed by another program meanwhile: what it wrote was left as it is")
            );
            assert_eq!(fs::read_to_string(&path).unwrap_or_default(), left, "{script}");
        }
    }
    // What appears where nothing stood.
    let _ = fs::remove_file(&path);
    let kind = build("file", args! { "path" => at, "content" => "x = 2\n", "validate" => validate(&append) });
    let change = bench.plan(&kind).unwrap().unwrap();
    assert!(bench.apply(&kind, &change).is_err());
    assert_eq!(fs::read_to_string(&path).unwrap(), "of another program\n");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}
