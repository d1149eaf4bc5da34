//! Cases that cannot be kept as text files: bytes that are no text, characters that nobody sees, links, megabytes.

use std::fmt::Write as _;

use super::Watched;
use crate::snap::Snaps;

const HOSTS: &[u8] = b"hosts web {\n  host \"localhost\" { connection = local }\n}\n\n";

/// A whole playbook around the body of a play.
fn around(body: &[u8]) -> Vec<u8> {
    [HOSTS, b"play \"web\" on hosts.web {\n  ", body, b"\n}\n"].concat()
}

/// Each case: its name, and the bytes of the playbook.
fn playbooks() -> Vec<(&'static str, Vec<u8>)> {
    let text = |text: &str| around(text.as_bytes());
    let chain = |sign: &str, count: usize| format!("directory \"/srv/{{{{ 1{} }}}}\"", sign.repeat(count));
    let mut many = String::new();
    for number in 0..5_000 {
        let _ = writeln!(many, "  directory \"/srv/{number}\" {{ mode = {number} }}");
    }
    let mut torn = String::new();
    for number in 0..20_000 {
        let _ = writeln!(torn, "  directory: /srv/{number}");
    }
    // Names that stand for names: so many in a row, or each twice in the next.
    let variables: Vec<String> = (1..6_000).map(|number| format!("  v{number} = v{} + 1\n", number - 1)).collect();
    let variables = format!("vars {{\n  v0 = 1\n{}}}\n\n", variables.concat());
    let locals = |count: usize, next: fn(usize) -> String| {
        let rest: Vec<String> = (1..count).map(|number| format!("  l{number} = {}\n", next(number - 1))).collect();
        text(&format!(
            "command [\"true\"] as r {{ }}\n  l0 = r.stdout\n{}  directory \"/srv/{{{{ l{} }}}}\"",
            rest.concat(),
            count - 1
        ))
    };
    let roles = |count: usize, calls: usize| {
        let call = |number: usize| format!("  r{number} {{ }}\n").repeat(calls);
        let role = |number: usize| format!("role r{number}() {{\n{}}}\n\n", call(number + 1));
        let all: String = (0..count).map(role).collect();
        let last = format!("role r{count}() {{\n  directory \"/srv/a\"\n}}\n\n");
        [all.as_bytes(), last.as_bytes(), text("r0 { }").as_slice()].concat()
    };
    vec![
        ("chain_of_variables", [variables.as_bytes(), text("directory \"/srv/{{ v5999 }}\"").as_slice()].concat()),
        ("chain_of_locals", locals(2_000, |before| format!("l{before} ~ \"a\""))),
        ("locals_that_double", locals(60, |before| format!("l{before} ~ l{before}"))),
        ("roles_65_deep", roles(65, 1)),
        ("roles_6000_deep", roles(6_000, 1)),
        ("roles_that_double", roles(40, 2)),
        ("bytes_not_utf8", around(b"directory \"/srv/caf\xe9\" { mode = 0755 }")),
        ("bytes_utf16", "play \"web\"\n".encode_utf16().flat_map(u16::to_le_bytes).collect()),
        (
            "bytes_utf16_mark",
            [b"\xff\xfe".as_slice(), &"play \"web\"\n".encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>()]
                .concat(),
        ),
        ("bytes_nul", text("directory \"/srv/a\0b\" { mode = 0755 }")),
        ("bytes_escape", text("directory \"/srv/\u{1b}[2Ja\" { mode = 0755 }")),
        ("bytes_byte_order_mark", [b"\xef\xbb\xbf", around(b"directory \"/srv/a\"").as_slice()].concat()),
        ("bytes_carriage_return", text("# a comment\r  directory \"/etc\" { state = absent }")),
        (
            "bytes_crlf",
            String::from_utf8(text("directory \"/srv/a\" {\n  mode = 755\n}"))
                .unwrap()
                .replace('\n', "\r\n")
                .into_bytes(),
        ),
        (
            "characters_bidi",
            text("when env != \"prod\u{202e} \u{2066}\" { # only tests\u{2069} \u{2066}\n  directory \"/srv/a\"\n  }"),
        ),
        ("characters_zero_width", text("directory \"/srv/a\" { mo\u{200b}de = 0755 }")),
        ("characters_no_break_space", text("directory\u{a0}\"/srv/a\" { mode = 0755 }")),
        ("characters_tabs", text("directory \"/srv/a\" {\n\t\tmode\t=\t755\n\t}")),
        ("characters_wide", text("directory \"/srv/目録/日本語\" { mode = 755 }")),
        (
            "long_line",
            text(&format!("directory \"/srv/a\" {{ tags = [{}] mode = 755  owner = true }}", "\"x\", ".repeat(50_000))),
        ),
        ("nesting_lists", text(&format!("for a in {} {{ }}", "[".repeat(500_000)))),
        ("nesting_blocks", text(&"when true { ".repeat(100_000))),
        ("nesting_texts", text(&format!("directory {}", "\"{{ ".repeat(300_000)))),
        ("chain_of_plus", text(&chain(" + 1", 300_000))),
        ("chain_of_not", text(&format!("when {} true {{ }}", "not ".repeat(300_000)))),
        ("chain_of_else", text(&format!("directory {}\"/srv\"", "\"/a\" if true else ".repeat(100_000)))),
        ("chain_of_fields", text(&chain(".a", 300_000).replace("{{ 1", "{{ env"))),
        ("too_large", text(&"# filler\n".repeat(500_000))),
        ("errors_5000", text(&many)),
        ("errors_20000_of_form", text(&torn)),
        ("folder", Vec::new()),
        ("missing", Vec::new()),
    ]
}

#[test]
fn what_no_editor_would_write_is_told_too() {
    let watched = Watched::new();
    let mut snaps = Snaps::beside("diagnostics");
    for (name, bytes) in playbooks() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("main.fp");
        match name {
            "folder" => std::fs::create_dir(&path).unwrap(),
            "missing" => std::fs::write(folder.path().join("mian.fp"), "").unwrap(),
            _ => std::fs::write(&path, bytes).unwrap(),
        }
        let said = watched.complaint(folder.path(), "main.fp", &[]);
        assert!(!said.contains(['\u{1b}', '\0', '\r', '\u{202e}', '\u{200b}']), "{name}: {said:?}");
        // Of thousands of errors the first and the last lines tell enough.
        let lines: Vec<&str> = said.lines().collect();
        let said = match lines.len() {
            0..200 => said,
            count => format!("{}\n[…]\n{}\n", lines[..12].join("\n"), lines[count - 12..].join("\n")),
        };
        snaps.compare(&format!("made_{name}"), &said);
    }
    snaps.end();
}

#[test]
fn links_and_imports_stay_inside_of_the_project() {
    let watched = Watched::new();
    let mut snaps = Snaps::beside("diagnostics");
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("secret"), "secret\n").unwrap();
    std::fs::write(outside.path().join("role.fp"), "vars { a = 1 }\n").unwrap();
    let project = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(outside.path(), project.path().join("shared")).unwrap();
    std::os::unix::fs::symlink("nowhere", project.path().join("broken")).unwrap();
    std::fs::create_dir(project.path().join("context")).unwrap();
    std::os::unix::fs::symlink("../../secret", project.path().join("context/up")).unwrap();
    let body =
        b"file \"/srv/a\" { source = \"shared/secret\" }\n  template \"/srv/b\" { source = \"shared/secret\" }\n  \
        file \"/srv/c\" { source = \"broken\" }\n  image \"x:1\" { context = \"context\" }";
    std::fs::write(project.path().join("main.fp"), around(body)).unwrap();
    snaps.compare("made_links", &watched.complaint(project.path(), "main.fp", &[]));

    std::fs::write(project.path().join("main.fp"), b"import \"shared/role.fp\"\n").unwrap();
    snaps.compare("made_import_link", &watched.complaint(project.path(), "main.fp", &[]));

    for number in 0..40 {
        let text = format!("import \"i{}.fp\"\n", number + 1);
        std::fs::write(project.path().join(format!("i{number}.fp")), text).unwrap();
    }
    std::fs::write(project.path().join("main.fp"), b"import \"i0.fp\"\n").unwrap();
    snaps.compare("made_imports_deep", &watched.complaint(project.path(), "main.fp", &[]));
    snaps.end();
}
