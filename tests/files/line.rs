//! `line`: what becomes of the rest of the file.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use fanli::value::Map;

use crate::args;
use crate::common::{Bench, build};

fn edited(before: &str, mut args: Map) -> String {
    let (bench, dir) = (Bench::new(), tempfile::tempdir().unwrap());
    let path = dir.path().join("f");
    fs::write(&path, before).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o604)).unwrap();
    args.insert("path".to_owned(), path.display().to_string().into());
    bench.converge(&build("line", args)).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o604);
    fs::read_to_string(&path).unwrap()
}

#[test]
fn finds_its_place() {
    let port = || args! { "line" => "Port 7", "starting" => "Port " };
    assert_eq!(edited("a\nPort 1\nPort 2\nb\n", port()), "a\nPort 7\nb\n");
    assert_eq!(edited("a\n #Port 1", port()), "a\n #Port 1\nPort 7\n");
    assert_eq!(edited("", port()), "Port 7\n");
    assert_eq!(edited("x=Port 1\n", args! { "line" => "y", "containing" => "Port" }), "y\n");
    assert_eq!(edited("[a]\n1\n[b]\n", args! { "line" => "2", "before" => "[b]" }), "[a]\n1\n2\n[b]\n");
    assert_eq!(edited("[a]\n[a]\n1\n", args! { "line" => "2", "after" => "[a]" }), "[a]\n[a]\n2\n1\n");
    assert_eq!(edited("1\n", args! { "line" => "2", "after" => "[a]" }), "1\n2\n");
}

#[test]
fn the_line_is_the_only_one_that_is_found() {
    let starting = || args! { "line" => "Port 7", "starting" => "Port " };
    assert_eq!(edited("a\nPort 7\nb\nPort 2\n", starting()), "a\nPort 7\nb\n");
    assert_eq!(edited("Port 1\nPort 7\n#Port 2\nPort 3\nPort 7\n", starting()), "Port 7\n#Port 2\n");
    let containing = args! { "line" => "Port 7", "containing" => "Port " };
    assert_eq!(edited("Port 1\r\nb\r\n# a Port 2\r\n", containing), "b\r\nPort 7\r\n");
    // What the text does not find itself stays where it is, and what it finds goes.
    assert_eq!(edited("y\nPort 1\nPort 2\n", args! { "line" => "y", "starting" => "Port " }), "y\n");
    // Without a text that finds, twice is no harm.
    assert_eq!(edited("a\nPort 7\nPort 7\n", args! { "line" => "Port 7" }), "a\nPort 7\nPort 7\n");
    let (bench, dir) = (Bench::new(), tempfile::tempdir().unwrap());
    let path = dir.path().join("f");
    fs::write(&path, "Port 7\nPort 1\nPort 2\nPort 3\nPort 4\n").unwrap();
    let kind = build("line", args! { "path" => path.display().to_string(), "line" => "Port 7", "starting" => "Port " });
    let change = bench.plan(&kind).unwrap().unwrap();
    let fields: Vec<String> =
        change.fields.iter().map(|field| format!("{} {} -> {}", field.field, field.from, field.to)).collect();
    assert_eq!(fields, ["others `Port 1`, `Port 2`, `Port 3` and 1 more -> absent"]);
}

#[test]
fn leaves_line_ends_and_foreign_bytes_alone() {
    assert_eq!(edited("a\r\nPort 1\r\nb\n", args! { "line" => "Port 7", "starting" => "Port" }), "a\r\nPort 7\r\nb\n");
    assert_eq!(edited("a\r\nb\r\n", args! { "line" => "b" }), "a\r\nb\r\n");
    let bench = Bench::new();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");
    fs::write(&path, b"\xff\xfe\nold\n").unwrap();
    let args = args! { "path" => path.display().to_string(), "line" => "new", "starting" => "old" };
    bench.converge(&build("line", args)).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"\xff\xfe\nnew\n");
}

#[test]
fn takes_lines_away() {
    assert_eq!(edited("a\nb\na\n", args! { "line" => "a", "state" => "absent" }), "b\n");
    assert_eq!(edited("ab\nb\nac", args! { "starting" => "a", "state" => "absent" }), "b\n");
    assert_eq!(edited("a\n", args! { "line" => "a", "state" => "absent" }), "");
}

#[test]
fn a_missing_file_is_made_only_when_told() {
    let (bench, dir) = (Bench::new(), tempfile::tempdir().unwrap());
    let path = dir.path().join("f").display().to_string();
    let kind = build("line", args! { "path" => path.clone(), "line" => "a" });
    let change = bench.plan(&kind).unwrap().unwrap();
    let failure = bench.apply(&kind, &change).unwrap_err();
    assert!(failure.to_string().contains("does not exist") && failure.hint.is_some(), "{failure}");
    let gone = build("line", args! { "path" => path.clone(), "line" => "a", "state" => "absent" });
    assert_eq!(bench.plan(&gone).unwrap(), None);
    bench.converge(&build("line", args! { "path" => path.clone(), "line" => "a", "create" => true })).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "a\n");
}
