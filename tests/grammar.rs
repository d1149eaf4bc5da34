//! GRAMMAR.md and the other documents: every playbook in them is one, laid out as `fanli fmt` lays it out, and the tables of
//! GRAMMAR.md list what the code knows.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use fanli::expr::{FUNCTIONS, evaluate, filter_names, test_names};
use fanli::playbook::{self, model::COMMON};
use fanli::syntax::ast::{BinaryOp, ExprKind, UnaryOp};
use fanli::syntax::{format, parse, parse_value};
use fanli::system::facts::fact_names;
use fanli::value::{Map, Value};

fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn grammar_md() -> String {
    fs::read_to_string(project().join("grammar/GRAMMAR.md")).unwrap()
}

/// README.md, GRAMMAR.md and everything below `docs/`.
fn documents() -> Vec<PathBuf> {
    let mut found = vec![project().join("README.md"), project().join("grammar/GRAMMAR.md")];
    let mut folders = vec![project().join("docs")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                found.push(path);
            }
        }
    }
    found
}

/// A fenced piece of a document: its line, what stands behind the fence, its text.
#[derive(Debug)]
struct Fence {
    line: usize,
    info: String,
    text: String,
}

fn fences(markdown: &str) -> Vec<Fence> {
    let mut found: Vec<Fence> = Vec::new();
    let mut open = false;
    for (number, line) in (1..).zip(markdown.lines()) {
        match line.strip_prefix("```") {
            Some(_) if open => open = false,
            Some(info) => {
                open = true;
                found.push(Fence { line: number, info: info.to_owned(), text: String::new() });
            }
            None if open => {
                if let Some(last) = found.last_mut() {
                    last.text.push_str(line);
                    last.text.push('\n');
                }
            }
            None => {}
        }
    }
    found
}

/// What is wrong with the playbooks in a text.
fn wrong_fences(name: &str, markdown: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    for Fence { line, info, text } in fences(markdown).iter().filter(|fence| fence.info.starts_with("fp")) {
        let at = format!("{name}:{line}");
        let (ast, errors) = parse(0, text);
        if !errors.is_empty() {
            wrong.push(format!("{at}: does not parse: {errors:?}"));
            continue;
        }
        let formatted = format(&ast);
        if formatted != *text {
            wrong.push(format!("{at}: should be laid out\n{formatted}"));
        }
        if info == "fp whole" {
            wrong.extend(errors_of(text).map(|errors| format!("{at}: {errors}")));
        }
    }
    wrong
}

/// What `fanli check` says of a whole playbook.
fn errors_of(text: &str) -> Option<String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("play.fp");
    fs::write(&path, text).unwrap();
    let done = std::process::Command::new(env!("CARGO_BIN_EXE_fanli")).arg("check").arg(&path).output().unwrap();
    (!done.status.success()).then(|| String::from_utf8(done.stderr).unwrap())
}

#[test]
fn playbooks_in_documents_are_playbooks() {
    let mut wrong = Vec::new();
    let mut count = 0;
    for path in documents() {
        let text = fs::read_to_string(&path).unwrap();
        count += fences(&text).iter().filter(|fence| fence.info.starts_with("fp")).count();
        wrong.extend(wrong_fences(&path.display().to_string(), &text));
    }
    assert!(count > 8, "{count} playbooks");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_wrong_document_is_seen() {
    assert_eq!(wrong_fences("d", "```fp\na = 1\n```\n```sh\na = = 1\n```\n"), Vec::<String>::new());
    assert!(wrong_fences("d", "x\n```fp\na = = 1\n```\n")[0].starts_with("d:2: does not parse"));
    assert!(wrong_fences("d", "```fp\na=1\n```\n")[0].contains("should be laid out\na = 1\n"));
    assert!(wrong_fences("d", "```fp whole\nplay \"p\" on hosts.nowhere {}\n```\n")[0].contains("nowhere"));
}

/// The rows of the table below the row that begins with these heads; cells without blanks around them.
fn table(head: &[&str]) -> Vec<Vec<String>> {
    let text = grammar_md();
    let cells = |line: &str| -> Vec<String> {
        // A bar inside of a cell is written `\|`.
        let line = line.trim().trim_start_matches('|').trim_end_matches('|').replace("\\|", "\u{1}");
        line.split('|').map(|cell| cell.trim().replace('\u{1}', "|")).collect()
    };
    let mut lines = text.lines().skip_while(|line| {
        let found = cells(line);
        !line.starts_with('|')
            || !head.iter().zip(&found).all(|(wanted, found)| wanted == found)
            || found.len() < head.len()
    });
    assert!(lines.next().is_some(), "GRAMMAR.md has no table {head:?}");
    lines.skip(1).take_while(|line| line.starts_with('|')).map(cells).collect()
}

/// What stands between backticks in a cell.
fn coded(cell: &str) -> Vec<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The first cells of a table, which name one thing each.
fn names(head: &[&str]) -> BTreeSet<String> {
    let rows = table(head);
    let names: BTreeSet<String> = rows.iter().flat_map(|row| coded(&row[0])).collect();
    assert_eq!(
        names.len(),
        rows.iter().map(|row| coded(&row[0]).len()).sum::<usize>(),
        "{head:?}: something stands twice"
    );
    names
}

fn set<S: AsRef<str>>(names: impl IntoIterator<Item = S>) -> BTreeSet<String> {
    names.into_iter().map(|name| name.as_ref().to_owned()).collect()
}

#[test]
fn words_are_those_of_the_code() {
    assert_eq!(names(&["word", "form", "what it is"]), set(playbook::TOP_WORDS));
    assert_eq!(names(&["word", "form", "what it does"]), set(playbook::BODY_WORDS));
    assert_eq!(names(&["name", "what it holds"]), set(playbook::RESERVED));
    assert_eq!(names(&["setting", "type", "what it says"]), set(playbook::HOST_SETTINGS));
    assert_eq!(names(&["types of parameters"]), set(playbook::PARAM_TYPES));
    assert_eq!(names(&["functions"]), set(FUNCTIONS));
    let pest = fs::read_to_string(project().join("grammar/fanli.pest")).unwrap();
    let keywords = pest.lines().find(|line| line.starts_with("keyword = ")).unwrap();
    assert_eq!(names(&["keywords"]), keywords.split('"').skip(1).step_by(2).map(str::to_owned).collect());
    let text = grammar_md();
    let of_networks = text.split("Settings of a network;").nth(1).unwrap();
    let of_nodes = text.split("Settings of a group of nodes:").nth(1).unwrap();
    let of_rollouts = text.split("Settings of a rollout:").nth(1).unwrap();
    let parts_of_rollouts = text.split("Blocks of a rollout:").nth(1).unwrap();
    let of_store = text.split("Settings of the store:").nth(1).unwrap();
    for (rest, known) in [
        (of_networks, set(playbook::NETWORK_SETTINGS)),
        (of_nodes, set(playbook::NODE_SETTINGS)),
        (of_store, set(playbook::STORE_SETTINGS)),
        (of_rollouts, set(playbook::ROLLOUT_SETTINGS)),
        (parts_of_rollouts, set(playbook::ROLLOUT_PARTS)),
    ] {
        let rows =
            rest.lines().skip_while(|line| !line.starts_with("| ---")).skip(1).take_while(|line| line.starts_with('|'));
        assert_eq!(rows.map(|row| coded(row)[0].clone()).collect::<BTreeSet<_>>(), known);
    }
}

#[test]
fn fields_of_what_fanli_binds_are_named() {
    let rows = table(&["name", "what it holds"]);
    let fields = |name: &str| -> BTreeSet<String> {
        let row = rows.iter().find(|row| coded(&row[0]) == [name]).unwrap();
        coded(&row[1]).iter().filter_map(|path| path.strip_prefix(&format!("{name}.")).map(str::to_owned)).collect()
    };
    assert_eq!(fields("host"), set(playbook::HOST_FIELDS));
    assert_eq!(fields("node"), set(playbook::NODE_FIELDS));
    let results = grammar_md().split("Each result holds").nth(1).unwrap().split(';').next().unwrap().to_owned();
    assert_eq!(coded(&results).into_iter().collect::<BTreeSet<_>>(), set(playbook::RESULT_FIELDS));
    // Facts that the examples use are facts.
    let known: Vec<&str> = fact_names().iter().map(|(name, _)| *name).collect();
    for used in grammar_md().split("facts.").skip(1) {
        let end = used.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '.')).unwrap_or(used.len());
        let name = used[..end].trim_end_matches('.');
        assert!(known.contains(&name), "there is no fact `{name}`");
    }
}

#[test]
fn parameters_of_every_task_are_told_as_fanli_doc_tells_them() {
    let told = table(&["parameter", "type", "what it says"]);
    let known = COMMON.map(|(name, kind, doc)| vec![format!("`{name}`"), kind.to_owned(), doc.to_owned()]);
    assert_eq!(told, known);
}

#[test]
fn filters_do_what_their_examples_say() {
    assert_eq!(names(&["filter", "example", "gives"]), set(filter_names()));
    let mut wrong = Vec::new();
    for row in table(&["filter", "example", "gives"]) {
        let (name, example, gives) = (&coded(&row[0])[0], &coded(&row[1])[0], &coded(&row[2])[0]);
        assert!(example.contains(&format!("| {name}")), "{example}");
        match (value(example), value(gives)) {
            (Ok(found), Ok(wanted)) if found == wanted => {}
            (found, wanted) => wrong.push(format!("{example} gives {found:?}, told as {wanted:?}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn value(text: &str) -> Result<Value, String> {
    evaluate(&parse_value(text)?, &Map::new()).map_err(|error| error.message)
}

#[test]
fn tests_hold_for_their_examples() {
    assert_eq!(names(&["test", "holds for"]), set(test_names()));
    for row in table(&["test", "holds for"]) {
        let (name, example) = (&coded(&row[0])[0], &coded(&row[1])[0]);
        assert!(example.contains(&format!(" {name}")), "{example}");
        assert_eq!(value(example), Ok(Value::Bool(true)), "{example}");
    }
}

#[test]
fn literals_have_the_types_that_are_told() {
    let rows = table(&["type", "written", ""]);
    for row in &rows {
        let kind = &coded(&row[0])[0];
        for example in coded(&row[1]) {
            let found = value(&example).unwrap_or_else(|error| panic!("{example}: {error}"));
            assert_eq!(found.type_name(), kind, "{example}");
        }
    }
    // Everything that can be written: floats come from expressions, files and trees from parameters.
    let all = [
        Value::Null,
        Value::Bool(true),
        Value::Int(1),
        Value::from(""),
        Value::Mode(0),
        Value::Size(0),
        Value::Percent(0),
        Value::List(Vec::new()),
        Value::Map(Map::new()),
        Value::Duration(std::time::Duration::ZERO),
    ];
    let mut kinds: BTreeSet<String> = all.iter().map(|value| value.type_name().to_owned()).collect();
    kinds.extend(["ip", "cidr", "ip range", "mount", "call"].map(str::to_owned));
    assert_eq!(names(&["type", "written", ""]), kinds);
}

/// How an operator of the table stands between operands, and what the tree then is.
fn is_operator(kind: &ExprKind, operator: &str) -> bool {
    match kind {
        ExprKind::Ternary { .. } => operator == "a if c else b",
        ExprKind::Binary(op, ..) => op.symbol() == operator,
        ExprKind::Unary(UnaryOp::Not, _) => operator == "not",
        ExprKind::Unary(UnaryOp::Minus, _) => operator == "-a",
        ExprKind::Filter { .. } => operator == "a | filter",
        ExprKind::Test { .. } => operator == "a is test",
        ExprKind::Attr(..) => operator == "a.b",
        ExprKind::Index(..) => operator == "a[b]",
        _ => false,
    }
}

#[test]
fn operators_bind_as_the_table_says() {
    let rows: Vec<Vec<String>> = table(&["operators", "what they do"]).iter().map(|row| coded(&row[0])).collect();
    let all: BTreeSet<&str> = rows.iter().flatten().map(String::as_str).collect();
    let binary = [
        BinaryOp::Or,
        BinaryOp::And,
        BinaryOp::Equal,
        BinaryOp::NotEqual,
        BinaryOp::Less,
        BinaryOp::LessEqual,
        BinaryOp::Greater,
        BinaryOp::GreaterEqual,
        BinaryOp::In,
        BinaryOp::NotIn,
        BinaryOp::Add,
        BinaryOp::Subtract,
        BinaryOp::Concat,
        BinaryOp::Multiply,
        BinaryOp::Divide,
        BinaryOp::FloorDivide,
        BinaryOp::Remainder,
    ];
    let others = ["a if c else b", "not", "a | filter", "a is test", "-a", "a.b", "a[b]"];
    assert_eq!(all, binary.map(BinaryOp::symbol).into_iter().chain(others).collect());
    // Behind an operand (`x`), and before one (`y`).
    let place = |operator: &str, before: &str, behind: &str| match operator {
        "a if c else b" => format!("{before} if c else {behind}"),
        "not" | "-a" => format!("{}{behind}", operator.replace('a', "").replace("not", "not ")),
        "a | filter" => format!("{before} | upper"),
        "a is test" => format!("{before} is defined"),
        "a.b" => format!("{before}.b"),
        "a[b]" => format!("{before}[b]"),
        binary => format!("{before} {binary} {behind}"),
    };
    for (loose_at, looser) in rows.iter().enumerate() {
        for tighter in rows.iter().skip(loose_at + 1) {
            for (loose, tight) in looser.iter().flat_map(|loose| tighter.iter().map(move |tight| (loose, tight))) {
                let inner = place(tight, "x", "y");
                for text in [place(loose, "w", &inner), place(loose, &inner, "z")] {
                    let expr = parse_value(&text).unwrap_or_else(|error| panic!("{text}: {error}"));
                    let alone = matches!(loose.as_str(), "a | filter" | "a is test")
                        && text.starts_with(&place(loose, "w", ""));
                    let prefix = matches!(loose.as_str(), "not" | "-a") && !text.contains('x') && !text.contains('y');
                    if !alone && !prefix {
                        assert!(is_operator(&expr.kind, loose), "{text}: {:?}", expr.kind);
                    }
                }
            }
        }
        // Those of one row are read from the left.
        for (first, second) in looser.iter().flat_map(|first| looser.iter().map(move |second| (first, second))) {
            if !["a if c else b", "not", "-a"].contains(&first.as_str()) && !looser.contains(&"==".to_owned()) {
                let text = place(second, &place(first, "x", "y"), "z");
                assert!(is_operator(&parse_value(&text).unwrap().kind, second), "{text}");
            }
        }
    }
    for chained in ["1 < 2 < 3", "1 == 1 == true"] {
        assert!(parse_value(chained).unwrap_err().contains("cannot be chained"));
    }
}

/// Rules that nobody meets: pieces of others, and dresses of the same thing.
const INNER: [&str; 46] = [
    "clause_name",
    "type_name",
    "line_choice",
    "line_ops",
    "head_choice",
    "head_ops",
    "wide_choice",
    "wide_ops",
    "if_word",
    "else_word",
    "not",
    "minus",
    "or",
    "and",
    "equal",
    "not_equal",
    "less_equal",
    "greater_equal",
    "less",
    "greater",
    "is_in",
    "not_in",
    "add",
    "subtract",
    "concat",
    "multiply",
    "floor_divide",
    "divide",
    "remainder",
    "filter_name",
    "negation",
    "test_name",
    "element",
    "key",
    "arg",
    "arg_name",
    "comma",
    "assign_sign",
    "end_of_head",
    "bad_number",
    "ip",
    "plain",
    "block_plain",
    "operand",
    "comparison",
    "infix",
];

#[test]
fn every_rule_that_a_person_meets_is_named() {
    let pest = fs::read_to_string(project().join("grammar/fanli.pest")).unwrap();
    let rule = |line: &str| {
        let (name, rest) = line.trim_start().split_once(" = ")?;
        let silent = rest.starts_with("_{");
        name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_').then(|| (name.to_owned(), silent))
    };
    let rules: Vec<(String, bool)> =
        pest.lines().filter(|line| !line.trim_start().starts_with("//")).filter_map(rule).collect();
    assert!(rules.len() > 90, "{}", rules.len());
    let met = rules.iter().filter(|(name, silent)| !silent && !INNER.contains(&name.as_str()));
    let met: BTreeSet<String> = met.map(|(name, _)| name.clone()).collect();
    assert_eq!(names(&["rule", "what it is"]), met);
    for inner in INNER {
        assert!(rules.iter().any(|(name, _)| name == inner), "there is no rule `{inner}`: take it off the list");
    }
}
