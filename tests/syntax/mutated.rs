//! Ten thousand texts that something has happened to, down to their bytes, and a few made to be hard: reading them ends, and
//! with errors or a tree, never with a panic.

use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use fanli::diagnostic::render;
use fanli::source::Sources;
use fanli::syntax::{format, parse, parse_value};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

/// After this it counts as endless. No measure of speed: the slowest text here takes a small part of it.
const ENDLESS: Duration = Duration::from_secs(120);

/// Reads on a thread of its own, with the stack that programs get; gives what is wrong.
fn read(text: &str) -> Result<(), String> {
    let owned = text.to_owned();
    let (sender, receiver) = mpsc::channel();
    let thread = std::thread::Builder::new().stack_size(2 * 1024 * 1024).spawn(move || {
        let _ = sender.send(read_here(&owned));
    });
    let thread = thread.map_err(|error| error.to_string())?;
    match receiver.recv_timeout(ENDLESS) {
        Ok(found) => found,
        Err(mpsc::RecvTimeoutError::Timeout) => Err("reading does not end".to_owned()),
        Err(mpsc::RecvTimeoutError::Disconnected) => {
            let panic = thread.join().unwrap_err();
            Err(format!("panicked: {:?}", panic.downcast_ref::<String>()))
        }
    }
}

fn read_here(text: &str) -> Result<(), String> {
    let mut sources = Sources::default();
    let file = sources.add("main.fp", text);
    let (ast, errors) = parse(file, text);
    if !ast.whole && errors.is_empty() {
        return Err("neither whole nor wrong".to_owned());
    }
    let beyond = errors.iter().find(|error| error.at.span.end as usize > text.len() + 1);
    if let Some(error) = beyond {
        return Err(format!("an error that lies outside of the text: {error:?}"));
    }
    render(&errors, &sources);
    // Whatever tree there is can be written.
    let once = format(&ast);
    if errors.is_empty() {
        let (again, errors) = parse(0, &once);
        if !errors.is_empty() || format(&again) != once {
            return Err(format!("formatted, it is something else: {errors:?}\n{once}"));
        }
    }
    let _ = parse_value(text.lines().next().unwrap_or_default());
    Ok(())
}

/// The playbooks of this project, cut at the lines where blocks begin: short texts are read fast, so that many can be.
fn corpus() -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files =
        ["playbooks/web-tier.fp", "playbooks/env/local.fp", "playbooks/env/lab.fp", "tests/syntax/cases/web-tier.fp"];
    let mut pieces = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(root.join(file)).unwrap();
        let mut piece = String::new();
        for line in text.lines() {
            piece.push_str(line);
            piece.push('\n');
            if line.starts_with('}') {
                pieces.push(std::mem::take(&mut piece));
            }
        }
    }
    assert!(pieces.len() > 20, "{}", pieces.len());
    pieces
}

/// Something that happens to bytes.
#[derive(Clone, Debug)]
enum Mishap {
    Flip(usize, u8),
    Cut(usize, usize),
    Truncate(usize),
    Repeat(usize, usize, usize),
    Insert(usize, Vec<u8>),
}

fn mishap() -> impl Strategy<Value = Mishap> {
    let place = 0..4096usize;
    let signs = b"{}()[]\"\\#=,.|~-+*/%:<>! \n\t'ab01\0\x1b\xc3\xe2".to_vec();
    prop_oneof![
        4 => (place.clone(), 0..8u8).prop_map(|(at, bit)| Mishap::Flip(at, bit)),
        2 => (place.clone(), 1..80usize).prop_map(|(at, length)| Mishap::Cut(at, length)),
        1 => place.clone().prop_map(Mishap::Truncate),
        1 => (place.clone(), 1..60usize, 2..20usize).prop_map(|(at, length, times)| Mishap::Repeat(at, length, times)),
        4 => (place, prop::collection::vec(prop::sample::select(signs), 1..6)).prop_map(|(at, bytes)| Mishap::Insert(at, bytes)),
    ]
}

fn happen(bytes: &mut Vec<u8>, mishap: &Mishap) {
    let place = |at: usize| if bytes.is_empty() { 0 } else { at % bytes.len() };
    let end = |at: usize, length: usize| (place(at) + length).min(bytes.len());
    match mishap {
        Mishap::Flip(at, bit) => {
            let at = place(*at);
            bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << bit);
        }
        Mishap::Cut(at, length) => {
            bytes.drain(place(*at)..end(*at, *length));
        }
        Mishap::Truncate(at) => bytes.truncate(place(*at)),
        Mishap::Repeat(at, length, times) => {
            let piece = bytes[place(*at)..end(*at, *length)].repeat(*times);
            let at = place(*at);
            bytes.splice(at..at, piece);
        }
        Mishap::Insert(at, new) => {
            let at = place(*at);
            bytes.splice(at..at, new.iter().copied());
        }
    }
}

/// proptest prints the seed of a failure's case and the smallest text that still fails.
#[test]
fn ten_thousand_texts_that_something_has_happened_to() {
    let strategy =
        (prop::sample::select(corpus()), prop::collection::vec(mishap(), 1..5)).prop_map(|(text, mishaps)| {
            let mut bytes = text.into_bytes();
            mishaps.iter().for_each(|mishap| happen(&mut bytes, mishap));
            String::from_utf8_lossy(&bytes).into_owned()
        });
    let config = Config { cases: 10_000, failure_persistence: None, max_shrink_iters: 2000, ..Config::default() };
    TestRunner::new(config)
        .run(&strategy, |text| read(&text).map_err(TestCaseError::fail))
        .unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn texts_without_any_form() {
    let config = Config { cases: 1000, failure_persistence: None, ..Config::default() };
    let strategy = prop_oneof!["[a-z{}()\\[\\]\"=#, \n|.-]{0,200}", "\\PC{0,200}", "(\"|\\{\\{|\\}\\}|a|\\\\){0,60}"];
    TestRunner::new(config)
        .run(&strategy, |text| read(&text).map_err(TestCaseError::fail))
        .unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn texts_made_to_be_hard() {
    let mib = 1024 * 1024;
    // Of what is many nodes of a tree, fewer: reading is linear, and slow without optimization.
    let many = 16 * 1024;
    let most = 60;
    let nested = |open: &str, inner: &str, close: &str, depth: usize| {
        format!("a = {}{inner}{}\n", open.repeat(depth), close.repeat(depth))
    };
    let hard = [
        // Lines of one megabyte, and lines of very many parts.
        format!("# {}\n", "x".repeat(mib)),
        format!("a = \"{}\"\n", "x".repeat(mib)),
        format!("a = {}\n", "1".repeat(mib)),
        format!("{}\n", "a".repeat(mib)),
        format!("a = [{}]\n", "1, ".repeat(many)),
        format!("a = {{{}}}\n", "b = 1 ".repeat(many)),
        format!("a = \"{}\"\n", "{{ a }}".repeat(many)),
        format!("a = {}\n", ":".repeat(mib)),
        format!("a = {}\n", "1.".repeat(mib / 2)),
        format!("{}\n", " ".repeat(mib)),
        format!("a {}\n", "on b ".repeat(many)),
        format!("{}\n", "a {} ".repeat(many)),
        "a = 1  ".repeat(many),
        "\n".repeat(mib),
        "a = \"\"\"\n".to_owned() + &"  line\n".repeat(mib / 7) + "\"\"\"\n",
        // As deep as it may be, and far deeper; whole and torn.
        nested("(", "1", ")", most),
        nested("[", "1", "]", most),
        nested("[", "", "", most),
        nested("f(", "1", ")", most),
        nested("f(", "1 +", ")", most),
        nested("{ b = ", "1", " }", most),
        nested("\"{{ ", "1", " }}\"", most / 2),
        nested("a[", "1", "]", most),
        nested("a | b(", "*", ")", most),
        nested("1 if (", "true", ") else 2", most),
        nested("not ", "true", "", 190),
        nested("- ", "1", "", 190),
        nested("(", "1", ")", mib / 2),
        nested("f(", "1", ")", mib / 4),
        nested("\"{{ ", "1", " }}\"", mib / 8),
        nested("not ", "true", "", mib / 4),
        format!("a = 1{}\n", " + 1".repeat(mib / 4)),
        format!("a = 1{}\n", " if true else 1".repeat(mib / 16)),
        format!("a = b{}\n", ".c".repeat(mib / 2)),
        format!("a = b{}\n", " | c".repeat(mib / 4)),
        format!("{}{}", "a {\n".repeat(most), "}\n".repeat(most)),
        format!("{}{}", "a {\n".repeat(mib / 4), "}\n".repeat(mib / 4)),
        format!("{}\n", "role r(".repeat(1000)),
        format!("{}\n", "for a in ".repeat(1000)),
    ];
    for text in hard {
        let shown: String = text.chars().take(40).collect();
        read(&text).unwrap_or_else(|error| panic!("{shown}…: {error}"));
    }
}
