//! Whatever can be written is written by the formatter so that it means the same, once and for all.

use std::path::{Path, PathBuf};

use fanli::syntax::{format, parse};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::shape::shape;

/// Formats a text that has no errors: the tree stays the same, no comment is lost, and a second time changes nothing.
fn check(text: &str) -> Result<(), String> {
    let (ast, errors) = parse(0, text);
    if !errors.is_empty() {
        return Err(format!("does not parse: {errors:?}\n{text}"));
    }
    let once = format(&ast);
    let (again, errors) = parse(0, &once);
    if !errors.is_empty() {
        return Err(format!("what was formatted does not parse: {errors:?}\n{text}\n-- formatted\n{once}"));
    }
    if shape(&ast) != shape(&again) {
        return Err(format!("another tree:\n{:?}\n{:?}\n{text}\n-- formatted\n{once}", shape(&ast), shape(&again)));
    }
    let twice = format(&again);
    if twice != once {
        return Err(format!("formatted again, it is another text\n{text}\n-- formatted\n{once}\n-- again\n{twice}"));
    }
    Ok(())
}

fn name() -> impl Strategy<Value = String> {
    prop::sample::select(&["a", "site", "web_node", "node", "x1", "a_name_that_is_quite_long", "_"][..])
        .prop_map(str::to_owned)
}

fn literal() -> impl Strategy<Value = String> {
    let all = [
        "0",
        "7",
        "0755",
        "30s",
        "1h30m",
        "512MiB",
        "25%",
        "10.0.0.1",
        "10.0.0.0/24",
        "fd00::1",
        "10.0.0.5 - 10.0.0.9",
        "10.0.0.5-10.0.0.9",
        "true",
        "false",
        "null",
    ];
    prop::sample::select(all.to_vec()).prop_map(str::to_owned)
}

/// A comment that runs to the end of its line.
fn comment() -> impl Strategy<Value = String> {
    prop::sample::select(&["# one", "#two", "#", "#  three # four \"", "# {{ [ ( é"][..]).prop_map(str::to_owned)
}

/// Blanks and line ends where brackets are open.
fn gap() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => Just(String::new()),
        4 => Just(" ".to_owned()),
        2 => Just("\n  ".to_owned()),
        1 => Just("\r\n".to_owned()),
        1 => Just("\n\n".to_owned()),
        2 => comment().prop_map(|comment| format!(" {comment}\n")),
        1 => comment().prop_map(|comment| format!("\n{comment}\n")),
    ]
}

fn text(inner: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
    let plain = [
        "a",
        "some words ",
        "é",
        "#",
        "}",
        "{ ",
        "'",
        "\\n",
        "\\t",
        "\\\"",
        "\\\\",
        "\\{",
        "\\{\\{",
        "$x",
        "\u{1F600}",
    ];
    let piece = prop_oneof![
        3 => prop::sample::select(plain.to_vec()).prop_map(str::to_owned),
        1 => inner.prop_map(|inner| format!("{{{{{inner}}}}}")),
    ];
    prop::collection::vec(piece, 0..5).prop_map(|pieces| format!("\"{}\"", pieces.concat()))
}

/// An expression that may stand anywhere but at the head of a block when it begins with a map.
fn expr() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![literal(), name(), text(name().prop_map(|name| format!(" {name} ")))];
    leaf.prop_recursive(4, 24, 4, |inner| {
        let grouped = inner.clone().prop_map(|inner| format!("({inner})"));
        let path = prop_oneof![name(), grouped.clone()];
        let item = (gap(), inner.clone(), gap()).prop_map(|(before, item, behind)| format!("{before}{item}{behind}"));
        let items = prop::collection::vec(item, 0..4);
        let list = (items, any::<bool>(), gap()).prop_map(|(items, comma, end)| {
            let comma = if comma && !items.is_empty() { "," } else { "" };
            format!("[{}{comma}{end}]", items.join(","))
        });
        let key = prop_oneof![name(), Just("\"a key\"".to_owned())];
        let entries = prop::collection::btree_map(key, (gap(), inner.clone()), 0..4);
        let map = (entries, gap()).prop_map(|(entries, end)| {
            let one = |(key, (before, value)): (String, (String, String))| format!("{before} {key} = {value}");
            format!("{{{}{end}}}", entries.into_iter().map(one).collect::<Vec<_>>().join(" ,"))
        });
        let mounts = prop::collection::vec((text(name()), text(name()), any::<bool>()), 1..4).prop_map(|mounts| {
            let one = |(from, to, flag): &(String, String, bool)| {
                format!("{from} -> {to}{}", if *flag { " read_only" } else { "" })
            };
            format!("[{}]", mounts.iter().map(one).collect::<Vec<_>>().join(", "))
        });
        let operators = ["+", "-", "*", "/", "//", " % ", "~", "and", "or"];
        prop_oneof![
            grouped.clone(),
            list,
            map,
            mounts,
            text(inner.clone()),
            (path.clone(), name()).prop_map(|(base, name)| format!("{base}.{name}")),
            (path.clone(), inner.clone(), gap()).prop_map(|(base, index, _)| format!("{base}[{index}]")),
            (name(), inner.clone(), name(), inner.clone())
                .prop_map(|(call, one, key, two)| format!("{call}({one}, {key}: {two})")),
            (path.clone(), name()).prop_map(|(base, name)| format!("{base} | {name}")),
            (grouped.clone(), name(), inner.clone()).prop_map(|(base, name, arg)| format!("{base}|{name}({arg})")),
            (path.clone(), any::<bool>())
                .prop_map(|(base, not)| format!("{base} is {}defined", if not { "not " } else { "" })),
            (path.clone(), inner.clone()).prop_map(|(base, arg)| format!("{base} is in({arg})")),
            path.clone().prop_map(|inner| format!("-{inner}")),
            path.clone().prop_map(|inner| format!("not {inner}")),
            (path.clone(), prop::sample::select(operators.to_vec()), path.clone())
                .prop_map(|(a, op, b)| format!("{a} {op} {b}")),
            (grouped.clone(), prop::sample::select(&["==", "!=", "<", "in", "not in"][..]), grouped.clone())
                .prop_map(|(a, op, b)| format!("{a} {op} {b}")),
            (path.clone(), path.clone(), path).prop_map(|(a, c, b)| format!("{a} if {c} else {b}")),
        ]
    })
}

/// A block of text, at some indentation.
fn block_text() -> impl Strategy<Value = String> {
    let lines = ["one", "  two", "", "{{ node.name }}", "a {{ a }} b", "\\n \"x\" #", "end"];
    (prop::collection::vec(prop::sample::select(lines.to_vec()), 1..5), 0usize..6).prop_map(|(lines, indent)| {
        let blanks = " ".repeat(indent);
        let lines: Vec<String> = lines.iter().map(|line| format!("{blanks}{line}\n")).collect();
        format!("\"\"\"\n{}{blanks}\"\"\"", lines.concat())
    })
}

/// What may stand between statements: a line's end with or without a comment, empty lines, comments of their own, or, where the
/// next statement may share the line, blanks.
fn between() -> impl Strategy<Value = String> {
    prop_oneof![
        5 => Just("\n".to_owned()),
        2 => Just("  ".to_owned()),
        1 => Just("\n\n\n".to_owned()),
        2 => comment().prop_map(|comment| format!(" {comment}\n")),
        1 => (comment(), comment()).prop_map(|(one, two)| format!("\n{one}\n\n  {two}\n")),
    ]
}

fn file() -> impl Strategy<Value = String> {
    // What begins with a brace is a body in a head.
    let head = || expr().prop_map(|expr| if expr.contains('{') { format!("({expr})") } else { expr });
    let assign =
        (name(), prop_oneof![4 => expr(), 1 => block_text()]).prop_map(|(name, value)| format!("{name} = {value}"));
    let statement = assign.prop_recursive(3, 20, 4, move |inner| {
        let statements = prop::collection::vec((between(), inner.clone()), 0..4);
        let body = (statements, between()).prop_map(|(statements, end)| {
            let text: Vec<String> = statements.into_iter().map(|(gap, statement)| gap + &statement).collect();
            format!("{{{}{end}}}", text.concat())
        });
        let body = body.boxed();
        let clauses = prop::option::of(head()).prop_map(|on| on.map_or_else(String::new, |on| format!(" on {on}")));
        prop_oneof![
            2 => inner,
            3 => (name(), prop::option::of(head()), clauses, body.clone()).prop_map(|(word, label, clauses, body)| {
                let label = label.map_or_else(String::new, |label| format!(" {label}"));
                format!("{word}{label}{clauses} {body}")
            }),
            1 => (name(), head(), body.clone()).prop_map(|(name, list, body)| format!("for {name} in {list} {body}")),
            1 => (name(), prop::collection::vec((name(), prop::option::of(expr())), 0..4), body).prop_map(|(name, params, body)| {
                let params: Vec<String> = params
                    .into_iter()
                    .map(|(name, default)| format!("{name}: any{}", default.map_or_else(String::new, |default| format!(" = {default}"))))
                    .collect();
                format!("role {name}({}) {body}", params.join(", "))
            }),
        ]
    });
    prop::collection::vec((statement, between()), 1..5)
        .prop_map(|statements| statements.into_iter().map(|(statement, gap)| statement + &gap).collect())
}

/// proptest prints the seed of a failure's case and the smallest text that still fails.
#[test]
fn any_text_that_parses_is_laid_out_without_a_change_of_meaning() {
    let config = Config { cases: 1500, failure_persistence: None, max_shrink_iters: 5000, ..Config::default() };
    TestRunner::new(config)
        .run(&file(), |text| check(&text).map_err(TestCaseError::fail))
        .unwrap_or_else(|error| panic!("{error}"));
}

/// Every playbook below a folder.
fn playbooks(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(playbooks(&path));
        } else if path.extension().is_some_and(|extension| extension == "fp") {
            found.push(path);
        }
    }
    found.sort();
    found
}

#[test]
fn playbooks_of_this_project_keep_their_meaning() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut count = 0;
    for path in [playbooks(&root.join("playbooks")), playbooks(&root.join("tests"))].concat() {
        let Ok(text) = std::fs::read_to_string(&path) else { continue };
        if parse(0, &text).1.is_empty() {
            check(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            count += 1;
        }
    }
    assert!(count > 50, "{count} playbooks");
}
