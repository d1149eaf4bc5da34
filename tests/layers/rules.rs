//! The rules, each with what to do about it.

use std::collections::BTreeMap;

use super::code::{File, Found, paths};

/// The longest a file may be.
const MOST_LINES: usize = 800;

/// What leads to the world; `resource/` and `engine/` go through `system/` instead.
const OUTWARD: [&str; 16] = [
    "std::fs",
    "std::process",
    "std::env",
    "std::net::TcpStream",
    "std::net::TcpListener",
    "std::net::UdpSocket",
    "std::os::unix::net",
    "tokio::fs",
    "tokio::process",
    "tokio::net",
    "tokio::signal",
    "rustix",
    "bollard",
    "rtnetlink",
    "ureq",
    "libc",
];

/// Libraries, and the rooms that know each: most often one.
const HOMES: [(&str, &[&str]); 15] = [
    ("pest", &["syntax"]),
    ("pest_derive", &["syntax"]),
    ("minijinja", &["expr"]),
    ("bollard", &["system"]),
    ("rtnetlink", &["system"]),
    ("ureq", &["system", "book"]),
    ("redb", &["book"]),
    ("base64", &["book", "system"]),
    ("rusty_s3", &["system"]),
    ("openssh", &["remote"]),
    ("notify", &["system"]),
    ("roxmltree", &["system"]),
    ("indicatif", &["report"]),
    ("regex", &["logs", "cli"]),
    ("jiff", &["calendar", "logs", "cli"]),
];

/// What a reporter may use.
const REPORTERS_USE: [&str; 6] = ["event", "change", "failure", "value", "visible", "report"];

/// Who reads check mode: the command line, the engine, and the controller for what a host may claim to have done.
const CHECK_MODE: [&str; 3] = ["engine/step.rs", "cli/play.rs", "coordinator/protocol.rs"];

/// Lints that must be allowed instead of expected: a macro's text, where whether they show depends on its arguments.
const ALLOWED: [&str; 1] = ["resource/kinds.rs"];

/// The modules in the order of `lib.rs`.
pub(super) fn order(lib: &str) -> Vec<String> {
    let name = |line: &str| Some(line.strip_prefix("pub mod ")?.strip_suffix(';')?.to_owned());
    lib.lines().filter_map(name).collect()
}

/// Everything that is not as it should be, a line each.
pub(super) fn violations(files: &[File], order: &[String]) -> Vec<String> {
    let macros: BTreeMap<&str, &str> =
        files.iter().flat_map(|file| exported(&file.code).into_iter().map(|name| (name, file.room()))).collect();
    let mut wrong = Vec::new();
    for file in files {
        let mut say = |line: usize, text: String| wrong.push(format!("src/{}:{line}: {text}", file.name));
        for found in paths(&file.code) {
            flow(file, &found, order, &macros, &mut say);
            homes(file, &found, &mut say);
        }
        for found in paths(&file.product) {
            doors(file, &found, &mut say);
        }
        lines(file, &mut say);
    }
    wrong.dedup();
    wrong
}

/// The names of macros that a file exports; they stand at the crate's root.
fn exported(code: &str) -> Vec<&str> {
    let mut rest = code;
    let mut names = Vec::new();
    while let Some((_, after)) = rest.split_once("#[macro_export]") {
        rest = after;
        let name = after.split_once("macro_rules!").map(|(_, name)| name.trim_start());
        names.extend(name.and_then(|name| name.split(|c: char| !c.is_alphanumeric() && c != '_').next()));
    }
    names
}

/// Data goes one way: a room uses only rooms before it.
fn flow(
    file: &File,
    found: &Found,
    order: &[String],
    macros: &BTreeMap<&str, &str>,
    say: &mut impl FnMut(usize, String),
) {
    let room = file.room();
    let Some(name) = from_root(file, &found.path) else { return };
    let used = macros.get(name).copied().unwrap_or(name);
    // main.rs and lib.rs stand outside of the rooms.
    let Some(here) = order.iter().position(|known| known == room) else { return };
    let Some(there) = order.iter().position(|known| known == used) else {
        say(found.line, format!("`{used}` is none of the modules that src/lib.rs lists: name its module in full"));
        return;
    };
    if room == "report" {
        if !REPORTERS_USE.contains(&used) {
            let way = "put what it needs into an event (src/event.rs)";
            say(found.line, format!("a reporter sees events alone, and not `{used}`: {way}"));
        }
    } else if there > here {
        let way = "let data come in as an argument, or move what both need into an earlier module";
        say(found.line, format!("`{room}` uses `{used}`, which comes after it in src/lib.rs: {way}"));
    }
}

/// The first module of a path that begins at the crate's root.
fn from_root<'f>(file: &File, path: &'f [String]) -> Option<&'f str> {
    if path[0] == "crate" {
        return path.get(1).map(String::as_str);
    }
    let ups = path.iter().take_while(|part| *part == "super").count();
    // In a module of tests inside the file, one more leads only to the file itself.
    if ups == 0 || ups < file.module().len() || ups == 1 && file.module().len() == 1 && !at_root(file, path) {
        return None;
    }
    path.get(ups).map(String::as_str)
}

/// Whether a file of the first level means its siblings by `super`: not from its inner modules.
fn at_root(file: &File, path: &[String]) -> bool {
    paths(&file.product).iter().any(|found| found.path == path)
}

/// Libraries that some rooms alone know.
fn homes(file: &File, found: &Found, say: &mut impl FnMut(usize, String)) {
    for (library, homes) in HOMES {
        if found.path[0] == library && !homes.contains(&file.room()) {
            let home = homes[0];
            let way = format!("let a function of src/{home}/ do it");
            say(found.line, format!("`{library}` is known to src/{home}/ alone: {way}"));
        }
    }
}

/// Who may reach outward, and who may have hands.
fn doors(file: &File, found: &Found, say: &mut impl FnMut(usize, String)) {
    let (room, path) = (file.room(), found.path.join("::"));
    let known_elsewhere = HOMES.iter().any(|(library, _)| found.path[0] == *library);
    if ["resource", "engine"].contains(&room) && !known_elsewhere {
        let outward = OUTWARD.iter().find(|way| path == **way || path.starts_with(&format!("{way}::")));
        if let Some(way) = outward {
            let instead = "has doors for that in src/system/: use one of `Probe` or `Actuator`, or add one";
            say(found.line, format!("`{room}` names `{way}`; fanli {instead}"));
        }
    }
    if path.ends_with("Actuator::new") && room != "engine" {
        let way = "take `hands: &Actuator` from whoever calls";
        say(found.line, format!("only src/engine/ may make an `Actuator`, so that check mode has no hands: {way}"));
    }
}

/// Rules that a line shows by itself.
fn lines(file: &File, say: &mut impl FnMut(usize, String)) {
    for (number, line) in (1..).zip(file.code.lines()) {
        for left in ["dbg!", "todo!", "unimplemented!"] {
            if line.contains(left) {
                say(number, format!("`{left}` does not belong into what is committed: finish it, or give a `Failure`"));
            }
        }
        if (line.contains("#[allow(") || line.contains("#![allow(")) && !ALLOWED.contains(&file.name.as_str()) {
            say(
                number,
                "write `#[expect(…, reason = \"…\")]`: it goes away by itself when it is no longer needed".to_owned(),
            );
        }
    }
    let count = file.code.lines().count();
    if count > MOST_LINES {
        say(
            count,
            format!("it has {count} lines, and {MOST_LINES} are the most: give one of its ideas a file of its own"),
        );
    }
    let room = file.room();
    for (number, line) in (1..).zip(file.product.lines()) {
        let reads = line.contains("options.check") && !CHECK_MODE.contains(&file.name.as_str());
        if reads {
            let way = "ask `engine::step::hands`, or leave it to the engine";
            say(number, format!("only src/engine/step.rs reads check mode: {way}"));
        }
        let prints = ["println!", "print!"].iter().any(|print| line.contains(print));
        if prints && ["resource", "engine", "system", "book", "plan", "expr", "syntax"].contains(&room) {
            say(number, format!("`{room}` prints; only src/report/ and src/cli/ speak to people: send an event"));
        }
    }
}
