//! The command line as a person meets it: help, documentation and the small commands, from the real binary.

mod ip;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use fanli::resource::kinds::schemas;

use crate::snap::Snaps;

fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli/project")
}

/// fanli in the sample project, with nothing from the environment.
fn fanli(arguments: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fanli"));
    command.args(arguments.split_whitespace()).current_dir(project()).env_clear().stdin(Stdio::null());
    command
}

/// What a call gives: exit code, stdout, stderr.
fn told(arguments: &str, output: &Output) -> String {
    let mut text = format!("$ fanli {arguments}\n");
    for (name, bytes) in [("stdout", &output.stdout), ("stderr", &output.stderr)] {
        let said = std::str::from_utf8(bytes).unwrap();
        assert!(!said.contains('\u{1b}'), "colour in `fanli {arguments}`");
        if !said.is_empty() {
            let _ = write!(text, "--- {name}\n{said}");
        }
    }
    let _ = writeln!(text, "--- exit code {}", output.status.code().unwrap());
    text
}

fn compare(calls: &[&str]) {
    let mut snaps = Snaps::beside("cli");
    for arguments in calls {
        let output = fanli(arguments).output().unwrap();
        let name = arguments.replace("--", "").replace([' ', '.', '/', '='], "_");
        let name = if name.is_empty() { "nothing".to_owned() } else { name };
        snaps.compare(&name, &told(arguments, &output));
    }
    snaps.end();
}

#[test]
fn help() {
    compare(&[
        "",
        "--help",
        "--version",
        "play --help",
        "rollout --help",
        "rollout status --help",
        "rollout halt --help",
        "rollout resume --help",
        "rollout rollback --help",
        "check --help",
        "fmt --help",
        "doc --help",
        "hosts --help",
        "why --help",
        "ip --help",
        "ip list --help",
        "ip show --help",
        "ip find --help",
        "ip reserve --help",
        "ip release --help",
        "ip import --help",
        "ip check --help",
        "ip adopt --help",
        "lab --help",
        "lab up --help",
        "lab status --help",
        "lab down --help",
        "watch --help",
        "status --help",
        "gate --help",
        "refresh --help",
        "log-pipe --help",
        "logs --help",
        "logs cat --help",
        "logs grep --help",
        "logs tail --help",
        "logs status --help",
        "logs audit --help",
        "logs keep --help",
        "logs plan --help",
        "net --help",
        "net list --help",
        "net trace --help",
    ]);
}

#[test]
fn help_of_every_command_has_examples() {
    for command in [
        "",
        "play",
        "rollout",
        "rollout status",
        "rollout halt",
        "rollout resume",
        "rollout rollback",
        "check",
        "fmt",
        "doc",
        "hosts",
        "why",
        "ip",
        "ip list",
        "ip show",
        "ip find",
        "ip reserve",
        "ip release",
        "ip import",
        "ip check",
        "ip adopt",
        "lab",
        "lab up",
        "lab status",
        "lab down",
        "watch",
        "status",
        "gate",
        "refresh",
        "log-pipe",
        "logs cat",
        "logs grep",
        "logs tail",
        "logs status",
        "logs audit",
        "logs keep",
        "logs plan",
        "net",
        "net list",
        "net trace",
    ] {
        let output = fanli(&format!("{command} --help")).output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(said.contains("Examples:"), "{command}");
        assert!(said.lines().all(|line| line.chars().count() <= 100), "{command}: a line is too long");
    }
}

#[test]
fn bad_usage_exits_with_2() {
    compare(&[
        "plya",
        "play",
        "play web.fp --wrong",
        "play web.fp --detailed-exit-code",
        "play web.fp --step-limit 30",
        "play web.fp --color blue",
        "play web.fp --forks 0",
        "lab up",
        "lab up 0",
        "doc nothing",
        "doc contaner",
        "watch --every 10ms",
        "gate",
        "refresh",
        "refresh conf --program apache2",
        "refresh /etc/nginx",
        "refresh /etc/nginx --reload nginx --program nginx",
        "refresh /etc/nginx --reload nginx --every 1ms",
        "log-pipe",
        "log-pipe /var/log/app.log",
        "log-pipe logs/%H.log",
        "log-pipe /var/log/%q.log",
        "log-pipe --every 7m /var/log/%H.log",
        "log-pipe --size 5 --zone Mars --mode 9 --spool 1KiB --latest a/b /var/log/%H.log",
        "logs",
        "logs cat --state-dir /nowhere",
        "logs cat no.fp",
        "logs cat --env lab /tmp",
        "logs cat /tmp no.fp",
        "logs cat /etc/hostname",
        "logs cat --since yesterday --json --bare /tmp",
        "logs grep",
        "logs grep a( /tmp",
        "logs grep a --until 1h --follow /tmp",
        "logs tail -n 1000000 /tmp",
        "logs status --env lab",
        "logs status --max-lag soon",
        "logs audit --env lab",
        "logs audit no.fp",
        "logs audit /tmp no.fp",
        "logs audit --since soon",
        "logs keep --state-dir /nowhere",
        "logs keep --age 1d",
        "logs keep logs",
        "logs keep --pack lzma --size 5 --age soon /var/log",
        "logs plan /no/such/folder",
    ]);
    for arguments in ["plya", "play", "play --wrong", "lab", "lab up x", "fmt", "why a", "doc nothing"] {
        assert_eq!(fanli(arguments).output().unwrap().status.code(), Some(2), "{arguments}");
    }
}

#[test]
fn a_host_without_a_watcher_and_without_attachments_is_fine() {
    let folder = tempfile::tempdir().unwrap();
    let output = fanli(&format!("status --state-dir {}", folder.path().display())).output().unwrap();
    let mut said = told("status", &output);
    // This machine may have containers with refreshers of its own.
    if let (Some(from), Some(to)) = (said.find("refreshers "), said.find("--- exit code")) {
        said.replace_range(from..to + "--- exit code 0".len(), "--- exit code 0");
    }
    assert_eq!(
        said,
        "$ fanli status\n--- stdout\nwatcher     has never run on this host: `fanli doc watcher`\n\
         attached    0: 0 plugged, 0 failed, 0 stopped\n--- exit code 0\n"
    );
}

#[test]
fn a_failure_inside_tells_its_way_out() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("watch")).unwrap();
    std::fs::write(folder.path().join("watch/status.json"), "{").unwrap();
    let output = fanli(&format!("status --state-dir {}", folder.path().display())).output().unwrap();
    let said = told("status", &output).replace(folder.path().to_str().unwrap(), "STATE");
    assert!(said.contains("error: STATE/watch/status.json is damaged"), "{said}");
    assert!(said.ends_with("\nhelp: remove it: the watcher writes it again\n--- exit code 1\n"), "{said}");
}

#[test]
fn documentation() {
    let pages: Vec<String> = schemas().iter().map(|schema| format!("doc {}", schema.name)).collect();
    let mut pages: Vec<&str> = pages.iter().map(String::as_str).collect();
    pages.extend(["doc", "doc facts", "doc playbook"]);
    compare(&pages);
}

#[test]
fn the_playbook_of_the_documentation_is_sound_and_formatted() {
    let said = String::from_utf8(fanli("doc playbook").output().unwrap().stdout).unwrap();
    let example = |after: &str| -> String {
        let lines = said.lines().skip_while(|line| !line.starts_with(after)).skip(2);
        let lines = lines.take_while(|line| line.is_empty() || line.starts_with("  "));
        let lines: Vec<&str> = lines.map(|line| line.strip_prefix("  ").unwrap_or(line)).collect();
        format!("{}\n", lines.join("\n").trim_end())
    };
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("roles")).unwrap();
    std::fs::write(folder.path().join("main.fp"), example("A playbook is")).unwrap();
    std::fs::write(folder.path().join("roles/site.fp"), example("and roles/site.fp")).unwrap();
    for arguments in ["check main.fp", "fmt --check main.fp roles/site.fp"] {
        let output = fanli(arguments).current_dir(folder.path()).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", told(arguments, &output));
    }
}

#[test]
fn a_page_tells_every_parameter_with_its_type_and_default() {
    for schema in schemas() {
        let output = fanli(&format!("doc {}", schema.name)).output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        for field in &schema.fields {
            assert!(
                said.contains(&format!("  {}  ({}; ", field.name, field.kind.show())),
                "{}.{}",
                schema.name,
                field.name
            );
            assert!(!field.doc.is_empty(), "{}.{} is not documented", schema.name, field.name);
            if let Some((form, how)) = field.kind.form() {
                assert!(said.contains(form) && said.contains(how), "{}.{}: {form}", schema.name, field.name);
            }
        }
        for line in schema.example.lines() {
            assert!(said.contains(line), "{}: the example", schema.name);
        }
    }
}

#[test]
fn commands_about_a_playbook() {
    compare(&[
        "check web.fp",
        "check web.fp --env lab",
        "check wrong.fp",
        "check nothing.fp",
        "hosts web.fp --env lab",
        "hosts web.fp",
        "why release web010 web.fp --env lab",
        "why release web011 web.fp --env lab --set release=9",
        "why release lab2 web.fp --env lab",
        "why folder lab1 web.fp --env lab",
        "why relase lab1 web.fp --env lab",
        "why release lab3 web.fp --env lab",
        "fmt --check web.fp",
        "fmt --check unformatted.fp",
        "fmt --check wrong.fp",
        "fmt --check nothing.fp",
    ]);
}

#[test]
fn formatting_in_place_keeps_mode_and_link() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let (file, link) = (folder.path().join("a.fp"), folder.path().join("b.fp"));
    std::fs::copy(project().join("unformatted.fp"), &file).unwrap();
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o640)).unwrap();
    std::os::unix::fs::symlink("a.fp", &link).unwrap();
    let output = fanli("fmt b.fp").current_dir(folder.path()).output().unwrap();
    assert_eq!(told("fmt b.fp", &output), "$ fanli fmt b.fp\n--- stdout\nb.fp: formatted\n--- exit code 0\n");
    assert!(link.is_symlink());
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o640);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2, "nothing is left beside it");
    assert_eq!(fanli("fmt --check b.fp").current_dir(folder.path()).output().unwrap().status.code(), Some(0));
}

/// A shell that runs fanli as `$0` with its descriptors or folder taken away.
fn in_shell(script: &str) -> Output {
    Command::new("/bin/sh")
        .args(["-c", script, env!("CARGO_BIN_EXE_fanli")])
        .current_dir(project())
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .output()
        .unwrap()
}

#[test]
fn closed_descriptors_and_a_folder_that_is_gone_are_no_panic() {
    for (script, code) in [
        (r#""$0" doc container | head -1 >/dev/null; "$0" doc container >/dev/full"#, 0),
        (r#""$0" --help >&-"#, 0),
        (r#""$0" doc >&-"#, 0),
        (r#""$0" doc <&-"#, 0),
        (r#""$0" play wrong.fp 2>&-"#, 2),
        (r#""$0" play wrong.fp <&- >&- 2>&-"#, 2),
        (r#""$0" plya 2>&-"#, 2),
        (r#""$0" check web.fp <&- >&- 2>&-"#, 0),
        (r#"d=$(mktemp -d) && cd "$d" && rmdir "$d" && "$0" doc"#, 0),
        (r#"d=$(mktemp -d) && cd "$d" && rmdir "$d" && "$0" check web.fp"#, 2),
        (r#"d=$(mktemp -d) && cd "$d" && rmdir "$d" && "$0" fmt web.fp"#, 2),
    ] {
        let output = in_shell(script);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{script}: {said}");
        assert!(!said.contains("panicked"), "{script}: {said}");
    }
}
