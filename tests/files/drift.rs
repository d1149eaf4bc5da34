//! Each thing that somebody can change by hand is seen with exactly its field named, and mended.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::path::Path;

use fanli::resource::kinds::Kind;
use fanli::value::Value;

use crate::args;
use crate::common::{Bench, build, is_root, picture, refused};

/// Breaks something, expects exactly these fields in the plan, mends, and expects the picture (but for times) of before.
fn mends(bench: &Bench, kind: &Kind, path: &Path, fields: &[&str], damage: impl FnOnce(&Path)) {
    bench.converge(kind).unwrap();
    let look = |path: &Path| {
        fs::symlink_metadata(path).map(|meta| (meta.mode(), meta.uid(), meta.gid(), fs::read(path).ok())).ok()
    };
    let good = look(path);
    damage(path);
    let damaged = picture(path);
    assert_eq!(bench.drift(kind), fields);
    assert_eq!(picture(path), damaged, "looking changed something");
    bench.converge(kind).unwrap();
    assert_eq!(look(path), good);
    assert_eq!(bench.drift(kind), Vec::<String>::new());
}

fn chmod(mode: u32) -> impl FnOnce(&Path) {
    move |path| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap()
}

#[test]
fn file() {
    let (bench, dir) = (Bench::new(), tempfile::tempdir().unwrap());
    let path = dir.path().join("f");
    let mut args = args! { "path" => path.display().to_string(), "content" => "a\nb\n", "mode" => Value::Mode(0o640) };
    if is_root() {
        args.extend(args! { "owner" => "daemon", "group" => Value::Int(501) });
    }
    let file = build("file", args);
    assert_eq!(bench.drift(&file), ["*create"]);
    mends(&bench, &file, &path, &["content"], |path| fs::write(path, "a\nb").unwrap());
    mends(&bench, &file, &path, &["content"], |path| fs::write(path, "").unwrap());
    mends(&bench, &file, &path, &["mode"], chmod(0o644));
    mends(&bench, &file, &path, &["mode"], chmod(0o4640));
    mends(&bench, &file, &path, &["*create"], |path| fs::remove_file(path).unwrap());
    if is_root() {
        mends(&bench, &file, &path, &["owner"], |path| chown(path, Some(4_000_000), None).unwrap());
        mends(&bench, &file, &path, &["group"], |path| chown(path, None, Some(0)).unwrap());
        mends(&bench, &file, &path, &["content", "group", "mode", "owner"], |path| {
            fs::remove_file(path).unwrap();
            fs::write(path, "new").unwrap();
        });
    }
}

#[test]
fn template_from_a_blob() {
    let (bench, dir) = (Bench::new(), tempfile::tempdir().unwrap());
    let path = dir.path().join("f");
    let source = bench.blob(b"rendered");
    let template = build("template", args! { "path" => path.display().to_string(), "source" => source });
    assert_eq!(bench.drift(&template), ["*create"]);
    mends(&bench, &template, &path, &["content"], |path| fs::write(path, "x").unwrap());
    // The mode is not declared: what somebody set is kept, also when the content is replaced.
    chmod(0o604)(&path);
    assert_eq!(bench.drift(&template), Vec::<String>::new());
    fs::write(&path, "y").unwrap();
    bench.converge(&template).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o604);
}

#[test]
fn directory() {
    let (bench, dir) = (Bench::new(), tempfile::tempdir().unwrap());
    let path = dir.path().join("a/b");
    let mut args = args! { "path" => path.display().to_string(), "mode" => Value::Mode(0o2775) };
    if is_root() {
        args.extend(args! { "owner" => Value::Int(501), "group" => "daemon" });
    }
    let directory = build("directory", args);
    assert_eq!(bench.drift(&directory), ["*create"]);
    mends(&bench, &directory, &path, &["mode"], chmod(0o775));
    mends(&bench, &directory, &path, &["*create"], |path| fs::remove_dir(path).unwrap());
    if is_root() {
        mends(&bench, &directory, &path, &["owner"], |path| chown(path, Some(0), None).unwrap());
        mends(&bench, &directory, &path, &["group"], |path| chown(path, None, Some(501)).unwrap());
    }
    let absent = build("directory", args! { "path" => path.display().to_string(), "state" => "absent" });
    fs::write(path.join("f"), "x").unwrap();
    let change = bench.plan(&absent).unwrap().unwrap();
    let failure = bench.apply(&absent, &change).unwrap_err();
    assert!(failure.to_string().contains("is not empty: it holds 1 entries: the first is `f`"), "{failure}");
    let args = args! { "path" => path.display().to_string(), "state" => "absent", "force" => true };
    bench.converge(&build("directory", args)).unwrap();
    assert!(!path.exists());
}

#[test]
fn link() {
    let (bench, dir) = (Bench::new(), tempfile::tempdir().unwrap());
    let path = dir.path().join("l");
    let link = build("link", args! { "path" => path.display().to_string(), "to" => "release/7" });
    assert_eq!(bench.drift(&link), ["*create"]);
    bench.converge(&link).unwrap();
    fs::remove_file(&path).unwrap();
    symlink("release/6", &path).unwrap();
    let change = bench.plan(&link).unwrap().unwrap();
    assert_eq!(format!("{} {}", change.fields[0].from, change.fields[0].to), "release/6 release/7");
    bench.converge(&link).unwrap();
    assert_eq!(fs::read_link(&path).unwrap(), Path::new("release/7"));
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    let failure = bench.plan(&link).unwrap_err();
    assert!(failure.to_string().ends_with("is a directory, not a link") && failure.hint.is_some(), "{failure}");
    let args = args! { "path" => path.display().to_string(), "to" => "release/7", "force" => true };
    bench.converge(&build("link", args)).unwrap();
    assert_eq!(fs::read_link(&path).unwrap(), Path::new("release/7"));
}

#[test]
fn an_unknown_name_is_told_with_the_file() {
    let (bench, dir) = (Bench::new(), tempfile::tempdir().unwrap());
    let path = dir.path().join("f").display().to_string();
    for (kind, field, word) in [("file", "owner", "user"), ("directory", "group", "group")] {
        let kind = build(kind, args! { "path" => path.clone() }.into_iter().chain(args_of(field)).collect());
        let change = bench.plan(&kind).unwrap().unwrap();
        let failure = bench.apply(&kind, &change).unwrap_err();
        assert_eq!(
            failure.to_string(),
            format!("there is no {word} `nobody-such` on this host, so {path} cannot belong to it")
        );
        assert!(failure.hint.is_some());
    }
}

fn args_of(field: &str) -> fanli::value::Map {
    [(field.to_owned(), Value::from("nobody-such"))].into()
}

#[test]
fn the_wrong_thing_in_the_way_is_a_failure() {
    let (bench, dir) = (Bench::new(), tempfile::tempdir().unwrap());
    let path = dir.path().join("x");
    let at = path.display().to_string();
    fs::create_dir(&path).unwrap();
    for args in [args! { "path" => at.clone(), "content" => "x" }, args! { "path" => at.clone(), "state" => "absent" }]
    {
        let failure = bench.plan(&build("file", args)).unwrap_err();
        assert!(failure.to_string().ends_with("is a directory, not a file") && failure.hint.is_some(), "{failure}");
    }
    fs::remove_dir(&path).unwrap();
    symlink("/etc/passwd", &path).unwrap();
    for kind in ["file", "directory"] {
        let failure = bench.plan(&build(kind, args! { "path" => at.clone() })).unwrap_err();
        assert!(failure.to_string().contains("is a link to /etc/passwd, not a"), "{failure}");
    }
    let failure = bench.plan(&build("line", args! { "path" => at.clone(), "line" => "x" })).unwrap_err();
    assert!(failure.to_string().contains("is a link to /etc/passwd"), "{failure}");
}

#[test]
fn wrong_arguments_name_the_parameter() {
    let cases = [
        ("file", args! { "path" => "/x", "content" => "a", "source" => Value::Null }, ""),
        ("file", args! { "path" => "x" }, "path: `x` is not an absolute path"),
        ("file", args! { "path" => "/x", "state" => "absent", "content" => "a" }, "content: means nothing"),
        ("file", args! { "path" => "/x", "validate" => "true" }, "validate: needs `{file}`"),
        ("directory", args! { "path" => "/x", "force" => true }, "force: is for `state = absent` only"),
        ("directory", args! { "path" => "/x", "state" => "absnt" }, "did you mean `absent`?"),
        ("link", args! { "path" => "/x" }, "to: is required"),
        ("link", args! { "path" => "/x", "to" => "" }, "to: is empty"),
        ("line", args! { "path" => "/x" }, "line: is required"),
        ("line", args! { "path" => "/x", "line" => "a\nb" }, "line: is one line"),
        ("line", args! { "path" => "/x", "line" => "a", "starting" => "" }, "starting: is empty"),
        ("line", args! { "path" => "/x", "state" => "absent" }, "line: is required, or"),
    ];
    for (kind, args, expected) in cases {
        if expected.is_empty() {
            build(kind, args);
        } else {
            let text = refused(kind, args);
            assert!(text.contains(expected), "{kind}: {text}");
        }
    }
}

#[test]
fn a_validator_sees_the_new_content_and_may_refuse_it() {
    let (bench, dir) = (Bench::new(), tempfile::tempdir().unwrap());
    let path = dir.path().join("f");
    let kind = |content: &str, validate: &[&str]| {
        let validate = validate.iter().map(|word| Value::from(*word)).collect();
        let args =
            args! { "path" => path.display().to_string(), "content" => content, "validate" => Value::List(validate) };
        build("file", args)
    };
    bench.converge(&kind("answer = 42\n", &["grep", "-q", "answer", "{file}"])).unwrap();
    let refuses = |validate: &[&str]| {
        let bad = kind("answer = 43\n", validate);
        let change = bench.plan(&bad).unwrap().unwrap();
        let failure = bench.apply(&bad, &change).unwrap_err();
        assert_eq!(fs::read_to_string(&path).unwrap(), "answer = 42\n");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        failure
    };
    let failure = refuses(&["sh", "-c", "echo line 1: no >&2; exit 3", "{file}"]);
    let place = path.display();
    let expected = format!("{place} was not replaced: `sh` refuses the new content (exit code 3): line 1: no");
    assert_eq!(failure.to_string(), expected);
    assert_eq!(failure.hint.as_deref(), Some("the file is as it was before"));
    let failure = refuses(&["no-such-program", "{file}"]);
    assert!(failure.to_string().contains("there is no program `no-such-program`"), "{failure}");
    // Much output neither blocks nor fills the memory.
    let failure = refuses(&["sh", "-c", "yes | head -c 3000000; exit 1", "{file}"]);
    assert!(failure.to_string().len() < 5000);
    // A validator that puts another file there does not get it in.
    let failure = refuses(&["sh", "-c", "cp \"$0\" \"$0.x\"; mv \"$0.x\" \"$0\"", "{file}"]);
    assert!(failure.to_string().contains("was replaced by another program"), "{failure}");
}
