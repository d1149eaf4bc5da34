//! Actions through the whole of fanli: plan, helper, engine, events.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

const FANLI: &str = env!("CARGO_BIN_EXE_fanli");

/// Plays tasks on this machine: the outcome of each step as `title: word`, and the exit code.
fn play(folder: &Path, tasks: &str, more: &[&str]) -> (Vec<String>, Option<i32>) {
    let playbook = folder.join("play.fp");
    let text = format!(
        "hosts here {{\n  host \"here\" {{ connection = local }}\n}}\nplay \"p\" on hosts.here {{\n{tasks}\n}}\n"
    );
    std::fs::write(&playbook, text).unwrap();
    let mut command = Command::new(FANLI);
    command.arg("play").arg(&playbook).arg("--json").arg("--state-dir").arg(folder.join("state")).args(more);
    let done = command.output().unwrap();
    let out = String::from_utf8(done.stdout).unwrap();
    let steps: Vec<String> = out.lines().filter_map(|line| outcome(&serde_json::from_str(line).unwrap())).collect();
    assert!(!steps.is_empty(), "{out}{}", String::from_utf8_lossy(&done.stderr));
    (steps, done.status.code())
}

fn outcome(event: &Value) -> Option<String> {
    let finished = event["event"] == "step_finished";
    finished.then(|| format!("{}: {}", event["step"]["title"].as_str().unwrap(), event["outcome"].as_str().unwrap()))
}

#[test]
fn check_mode_runs_nothing_but_what_only_looks() {
    let folder = tempfile::tempdir().unwrap();
    let mark = folder.path().join("mark");
    let tasks = format!(
        r#"
  command ["uname", "-s"] as kernel {{ changes = false }}
  command ["touch", "{0}"] {{
    creates = "{0}"
    when    = kernel.stdout == "Linux"
    notify  = "say it"
  }}
  http "http://127.0.0.1:1/" {{ within = 50ms  every = 10ms }}
  handler "say it" {{
    shell "echo handled >> \"$LOG\"" {{ env = {{ LOG = "{0}.log" }} }}
  }}"#,
        mark.display()
    );
    let log = folder.path().join("mark.log");
    let (touch, handled) = (format!("touch {}", mark.display()), "echo handled >> \"$LOG\"");
    let http = "http://127.0.0.1:1/";
    let of = |words: [&str; 4]| {
        vec![
            format!("uname -s: {}", words[0]),
            format!("{touch}: {}", words[1]),
            format!("{http}: {}", words[2]),
            format!("{handled}: {}", words[3]),
        ]
    };
    assert_eq!(play(folder.path(), &tasks, &["--check"]), (of(["ok", "would_run", "unknown", "would_run"]), Some(0)));
    assert!(!mark.exists() && !log.exists());
    // The wait fails; the handler that was notified before it runs all the same.
    let (steps, code) = play(folder.path(), &tasks, &[]);
    assert_eq!(steps, of(["ok", "ran", "failed", "ran"]));
    assert_ne!(code, Some(0));
    assert_eq!(std::fs::read_to_string(&log).unwrap(), "handled\n");
    // Its guard holds by now, so nothing is notified.
    let (steps, _) = play(folder.path(), &tasks, &[]);
    assert_eq!(steps, of(["ok", "ok", "failed", ""])[..3]);
}

#[test]
fn a_wrong_guard_is_told_as_such() {
    let folder = tempfile::tempdir().unwrap();
    let task = format!("command [\"true\"] {{ creates = \"{}/never\" }}", folder.path().display());
    let (steps, code) = play(folder.path(), &task, &[]);
    assert_eq!(steps, ["true: failed"]);
    assert_ne!(code, Some(0));
}

#[test]
fn a_result_is_there_whether_it_ran_or_not() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("made");
    let tasks = format!(
        r#"
  shell "date > \"$F\"; echo made" as made {{
    env     = {{ F = "{0}" }}
    creates = "{0}"
  }}
  command ["echo", "{{{{ made.stdout }}}}|{{{{ made.code is none }}}}|{{{{ made.changed }}}}"]"#,
        file.display()
    );
    let (steps, _) = play(folder.path(), &tasks, &[]);
    assert_eq!(steps[1], "echo made|false|true: ran");
    let (steps, _) = play(folder.path(), &tasks, &[]);
    assert_eq!(steps[1], "echo |true|false: ran");
}
