//! Actions through the whole of fanli: plan, helper, engine, events.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

const FANLI: &str = env!("CARGO_BIN_EXE_fanli");

/// Plays tasks on this machine: the outcome of each step as `title: word`, and the exit code.
fn play(folder: &Path, tasks: &str, more: &[&str]) -> (Vec<String>, Option<i32>) {
    play_by(Path::new(FANLI), folder, tasks, more)
}

fn play_by(program: &Path, folder: &Path, tasks: &str, more: &[&str]) -> (Vec<String>, Option<i32>) {
    let playbook = folder.join("play.fp");
    let text = format!(
        "hosts here {{\n  host \"here\" {{ connection = local }}\n}}\nplay \"p\" on hosts.here {{\n{tasks}\n}}\n"
    );
    std::fs::write(&playbook, text).unwrap();
    let mut command = Command::new(program);
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

/// As [`play`], by a caller with another umask.
fn play_with_umask(umask: &str, folder: &Path, tasks: &str) -> (Vec<String>, Option<i32>) {
    let script = folder.join("fanli");
    std::fs::write(&script, format!("#!/bin/sh\numask {umask}\nexec {FANLI} \"$@\"\n")).unwrap();
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    play_by(&script, folder, tasks, &[])
}

#[test]
fn programs_begin_with_the_declared_umask_whatever_the_callers_is() {
    let folder = tempfile::tempdir().unwrap();
    let name = format!("fanli-test-umask-{}", std::process::id());
    let tasks = |state: &str| {
        format!(
            r#"
  shell "umask; mkdir {0}/sub; : > {0}/made" as given {{ creates = "{0}/made" }}
  shell "umask" as other {{ umask = 027 }}
  command ["sh", "-c", "umask"] as plain {{ unless = ["sh", "-c", "[ $(umask) = 0022 ]"] }}
  file "{0}/said" {{ content = "{{{{ given.stdout }}}} {{{{ other.stdout }}}} {{{{ plain.changed }}}}" }}
  service "{name}" {{
    state    = {state}
    fallback = {{ command = ["{0}/start"]  log = "{0}/log" }}
  }}"#,
            folder.path().display()
        )
    };
    // A start script that becomes its program: it is found again, and not started twice.
    let start = folder.path().join("start");
    std::fs::write(&start, "#!/bin/sh\numask\nexec sleep 1000000\n").unwrap();
    std::fs::set_permissions(&start, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let daemons = || {
        let mark = format!("FANLI_SERVICE={name}");
        let all = std::fs::read_dir("/proc").unwrap().flatten();
        let environ = all.filter_map(|entry| std::fs::read(entry.path().join("environ")).ok());
        environ.filter(|all| all.split(|byte| *byte == 0).any(|one| one == mark.as_bytes())).count()
    };
    let (steps, code) = play_with_umask("077", folder.path(), &tasks("running"));
    let said = std::fs::read_to_string(folder.path().join("said")).unwrap();
    assert_eq!(said, "0022 0027 false", "the guard of a program begins with the same umask");
    let (again, code_again) = play_with_umask("077", folder.path(), &tasks("running"));
    let running = daemons();
    let (stopped, _) = play_with_umask("077", folder.path(), &tasks("stopped"));
    assert_eq!((code, code_again), (Some(0), Some(0)), "{steps:?} {again:?}");
    assert_eq!(again.last().unwrap(), &format!("{name}: ok"));
    assert_eq!((running, daemons()), (1, 0));
    assert_eq!(stopped.last().unwrap(), &format!("{name}: changed"));
    let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
    assert_eq!(read("log"), "0022\n");
    let mode = |name: &str| {
        std::os::unix::fs::PermissionsExt::mode(&folder.path().join(name).metadata().unwrap().permissions())
    };
    assert_eq!(["made", "sub", "log"].map(|name| mode(name) & 0o777), [0o644, 0o755, 0o640]);
    let tasks = "shell \"umask\" { umask = 027  unless = \"[ $(umask) = 0027 ]\" }";
    assert_eq!(play(folder.path(), tasks, &[]), (vec!["umask: ok".to_owned()], Some(0)));
}

#[test]
fn a_daemon_that_could_not_be_found_again_is_ended_and_told() {
    let folder = tempfile::tempdir().unwrap();
    let mark = format!("1{:09}", std::process::id());
    let start = folder.path().join("start");
    std::fs::write(&start, format!("#!/bin/sh\nexec env -i sleep {mark}\n")).unwrap();
    std::fs::set_permissions(&start, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let tasks = format!(
        "service \"fanli-test-stray-{mark}\" {{\n  state = running\n  start_limit = 2s\n  fallback = {{ command = [\"{0}/start\"]  log = \"{0}/log\" }}\n}}",
        folder.path().display()
    );
    let (steps, code) = play(folder.path(), &tasks, &[]);
    assert_eq!((steps, code), (vec![format!("fanli-test-stray-{mark}: failed")], Some(4)));
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    let mut lines = all.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    assert!(!lines.any(|line| line.split(|byte| *byte == 0).any(|word| word == mark.as_bytes())), "it is left");
}
