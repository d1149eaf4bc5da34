//! For every kind: after apply nothing is left to do; looking changes nothing; what was not declared stays.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use fanli::value::{Map, Value};
use proptest::prelude::*;

use crate::common::{Bench, build, is_root, picture};

/// What stood at the path before fanli came.
#[derive(Clone, Debug)]
enum Before {
    Nothing,
    File(Vec<u8>, u32),
    Directory(u32, bool),
    Link(String),
}

impl Before {
    fn put(&self, path: &Path) {
        match self {
            Self::Nothing => {}
            Self::File(bytes, mode) => {
                fs::write(path, bytes).unwrap();
                fs::set_permissions(path, fs::Permissions::from_mode(*mode)).unwrap();
            }
            Self::Directory(mode, filled) => {
                fs::create_dir(path).unwrap();
                if *filled {
                    fs::create_dir(path.join("sub")).unwrap();
                    fs::write(path.join("sub/f"), "x").unwrap();
                }
                fs::set_permissions(path, fs::Permissions::from_mode(*mode)).unwrap();
            }
            Self::Link(to) => symlink(to, path).unwrap(),
        }
    }
}

/// Modes that the owner can still read and write, so that it holds without root too.
fn mode() -> impl Strategy<Value = u32> {
    (0u32..0o1_0000).prop_map(|mode| mode | 0o700)
}

fn before() -> impl Strategy<Value = Before> {
    prop_oneof![
        Just(Before::Nothing),
        (text(), mode()).prop_map(|(text, mode)| Before::File(text.into_bytes(), mode)),
        (mode(), any::<bool>()).prop_map(|(mode, filled)| Before::Directory(mode, filled)),
        "[a-z/]{1,20}".prop_map(Before::Link),
    ]
}

/// Texts with and without line ends at the end, DOS line ends, blank lines, and text beyond ASCII.
fn text() -> impl Strategy<Value = String> {
    prop::collection::vec(prop_oneof!["[a-c =]{0,4}", "Port [0-9]", Just("\r".to_owned()), "\\PC{0,8}"], 0..8)
        .prop_flat_map(|lines| any::<bool>().prop_map(move |end| lines.join("\n") + if end { "\n" } else { "" }))
}

fn owner() -> impl Strategy<Value = Option<Value>> {
    let owner = prop_oneof![
        Just(Value::from("root")),
        Just(Value::from("daemon")),
        Just(Value::Int(0)),
        Just(Value::Int(1)),
        (2i64..70_000).prop_map(Value::Int),
    ];
    prop::option::of(owner).prop_map(|owner| owner.filter(|_| is_root()))
}

fn attributes() -> impl Strategy<Value = Map> {
    (owner(), owner(), prop::option::of(mode())).prop_map(|(owner, group, mode)| {
        let given = [("owner", owner), ("group", group), ("mode", mode.map(Value::Mode))];
        given.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
    })
}

/// Looks twice, applies, looks again, with pictures in between.
fn holds(kind: &str, mut args: Map, before: &Before, bench: &Bench) -> Result<(), TestCaseError> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("it");
    before.put(&path);
    fs::write(dir.path().join("neighbour"), "not fanli's").unwrap();
    args.insert("path".to_owned(), path.display().to_string().into());
    let kind = build(kind, args);
    let untouched = picture(dir.path());
    let first = bench.plan(&kind);
    let again = bench.plan(&kind);
    prop_assert_eq!(&first, &again);
    prop_assert_eq!(&picture(dir.path()), &untouched, "looking changed something");
    // What stands in the way is a failure that says what it is.
    let Ok(Some(change)) = first else {
        if let Err(failure) = first {
            prop_assert!(failure.to_string().contains(", not a"), "{failure}");
        }
        return Ok(());
    };
    if let Err(failure) = bench.apply(&kind, &change) {
        let text = failure.to_string();
        prop_assert!(text.contains("is not empty") || text.contains("does not exist"), "{text}");
        prop_assert_eq!(picture(dir.path()), untouched);
        return Ok(());
    }
    prop_assert_eq!(bench.plan(&kind).unwrap(), None, "{:?}", change);
    let settled = picture(dir.path());
    prop_assert_eq!(bench.plan(&kind).unwrap(), None);
    prop_assert_eq!(picture(dir.path()), settled);
    prop_assert_eq!(fs::read(dir.path().join("neighbour")).unwrap(), b"not fanli's");
    let names = fs::read_dir(dir.path()).unwrap().count();
    prop_assert!(names <= 2, "something stayed behind: {:?}", picture(dir.path()));
    Ok(())
}

fn run<S: Strategy>(strategy: &S, test: impl Fn(S::Value, &Bench) -> Result<(), TestCaseError>) {
    let bench = Bench::new();
    let config = ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() };
    let mut runner = proptest::test_runner::TestRunner::new(config);
    runner.run(strategy, |value| test(value, &bench)).unwrap();
}

#[test]
fn directory() {
    let state = prop_oneof![4 => Just(None), 1 => any::<bool>().prop_map(Some)];
    run(&(attributes(), state, before()), |(mut args, absent, before), bench| {
        if let Some(force) = absent {
            args = Map::from([("state".to_owned(), "absent".into()), ("force".to_owned(), force.into())]);
        }
        holds("directory", args, &before, bench)
    });
}

#[test]
fn file() {
    let content = prop_oneof![Just(None), (text(), any::<bool>()).prop_map(Some)];
    run(&(attributes(), content, any::<u8>(), before()), |(mut args, content, dice, before), bench| {
        match content {
            Some((text, true)) => args.insert("content".to_owned(), text.into()),
            Some((text, false)) => args.insert("source".to_owned(), bench.blob(text.as_bytes())),
            None => None,
        };
        if dice < 32 {
            args = Map::from([("state".to_owned(), "absent".into())]);
        }
        holds("file", args, &before, bench)
    });
}

#[test]
fn template() {
    run(&(attributes(), text(), before()), |(mut args, text, before), bench| {
        args.insert("source".to_owned(), bench.blob(text.as_bytes()));
        holds("template", args, &before, bench)
    });
}

#[test]
fn link() {
    run(&("[a-z/.]{1,30}", any::<bool>(), any::<u8>(), before()), |(to, force, dice, before), bench| {
        let mut args = Map::from([("to".to_owned(), to.into()), ("force".to_owned(), force.into())]);
        if dice < 64 {
            args = Map::from([("state".to_owned(), "absent".into())]);
        }
        holds("link", args, &before, bench)
    });
}

#[test]
fn line() {
    let finder = prop_oneof![
        Just(None),
        prop_oneof![Just("Port "), Just("a"), Just("é")].prop_map(|text| Some(("starting", text))),
        prop_oneof![Just("b"), Just("=")].prop_map(|text| Some(("containing", text))),
    ];
    let place = prop_oneof![Just(None), Just(Some("after")), Just(Some("before"))];
    let strategy = ("[a-c =]{0,4}|Port [0-9]", finder, place, any::<bool>(), any::<bool>(), before());
    run(&strategy, |(line, finder, place, absent, create, before), bench| {
        let mut args = Map::from([("create".to_owned(), create.into())]);
        if absent {
            args.insert("state".to_owned(), "absent".into());
        }
        if !absent || finder.is_none() {
            args.insert("line".to_owned(), line.into());
        }
        if let Some((name, text)) = finder {
            args.insert(name.to_owned(), text.into());
        }
        if let Some(place) = place {
            args.insert(place.to_owned(), "P".into());
        }
        holds("line", args, &before, bench)
    });
}
