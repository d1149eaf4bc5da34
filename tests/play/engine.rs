//! What the engine promises of steps, check mode and handlers.

use std::fs;

use super::run::Place;
use crate::common::picture;

#[test]
fn a_second_run_changes_nothing_and_a_check_touches_nothing() {
    let place = Place::new(
        &["h"],
        r#"play "p" on hosts.all_of_them {
  directory "OUT/d" { mode = 0755 }
  file "OUT/d/f" { content = "one\n"  mode = 0600 }
  template "OUT/d/t" { source = "t.conf" }
  link "OUT/l" { to = "d" }
}"#,
    );
    place.write("t.conf", "{{ host.name }}\n");
    let before = picture(place.out("").as_path());
    let check = place.play(&["--check", "--diff"]).expect(0);
    assert_eq!(picture(place.out("").as_path()), before);
    assert!(!place.path("state-h").join("pending").exists());
    assert!(check.text.contains("+one"), "a unified diff is shown: {}", check.text);
    assert_eq!(place.play(&["--check", "--detailed-exit-code"]).code, Some(3));
    place.play(&[]).expect(0);
    assert_eq!(place.read("d/t").unwrap(), "h\n");
    place.play(&[]).expect_nothing_done();
    assert_eq!(place.play(&["--check", "--detailed-exit-code"]).code, Some(0));
}

#[test]
fn in_check_mode_what_stands_behind_an_unapplied_change_is_unknown() {
    let place = Place::new(
        &["h"],
        r#"play "p" on hosts.all_of_them {
  file "OUT/a" as first { content = "a" }
  file "OUT/b" { content = "{{ first.changed }}" }
  when first.changed {
    file "OUT/c" { content = "c" }
  }
  file "OUT/no-such-folder/x" { content = "x" }
}"#,
    );
    let check = place.play(&["--check"]).expect(0);
    let steps = check.steps();
    assert_eq!(steps[0], "h file a: would_change");
    assert_eq!(steps[1], "h file b: unknown");
    assert_eq!(steps[2], "h file c: unknown");
    assert!(check.text.contains("it needs the result `first` of a step that was not applied"), "{}", check.text);
}

#[test]
fn a_handler_runs_once_at_the_end_and_even_when_a_later_step_fails() {
    let place = Place::new(
        &["h"],
        r#"play "p" on hosts.all_of_them {
  file "OUT/a" { content = "a"  notify = "tell" }
  file "OUT/b" { content = "b"  notify = ["tell", "other"] }
  file "OUT/none/c" { content = "c"  notify = "never" }
  file "OUT/after" { content = "" }
  handler "other" { file "OUT/other" { content = "other" } }
  handler "tell" { file "OUT/told" { content = "told" } }
  handler "never" { file "OUT/never" { content = "" } }
}"#,
    );
    let run = place.play(&[]).expect(4);
    assert_eq!(
        run.steps(),
        [
            "h file a: changed",
            "h file b: changed",
            "h file c: failed",
            "h handler file other: changed",
            "h handler file told: changed",
            // It failed while it was applied, and may have changed something.
            "h handler file never: changed",
        ]
    );
    assert!(run.text.contains("the directory of"), "{}", run.text);
    fs::create_dir(place.out("none")).unwrap();
    let run = place.play(&[]).expect(0);
    assert_eq!(run.steps()[2..], ["h file c: changed", "h file after: changed", "h handler file never: ok"]);
}

#[test]
fn a_handler_that_failed_stays_pending_until_it_has_run() {
    let place = Place::new(
        &["h"],
        r#"play "p" on hosts.all_of_them {
  file "OUT/a" { content = "a"  notify = "tell" }
  handler "tell" {
    file "OUT/first" { content = "first" }
    file "OUT/none/told" { content = "told" }
  }
}"#,
    );
    let steps = place.play(&[]).expect(4).steps();
    assert_eq!(steps, ["h file a: changed", "h handler file first: changed", "h handler file told: failed"]);
    fs::create_dir(place.out("none")).unwrap();
    // Nothing notifies it now: the note on the host does.
    let steps = place.play(&[]).expect(0).steps();
    assert_eq!(steps, ["h file a: ok", "h handler file first: ok", "h handler file told: changed"]);
    let steps = place.play(&[]).expect_nothing_done().steps();
    assert_eq!(steps, ["h file a: ok"]);
}

#[test]
fn a_step_has_a_limit_and_its_children_go_with_it() {
    let place = Place::new(
        &["h"],
        r#"play "p" on hosts.all_of_them {
  file "OUT/a" { content = "a"  validate = ["sh", "-c", "sleep 4711 & sleep 4711 # {file}"]  timeout = 500ms }
}"#,
    );
    let run = place.play(&[]).expect(4);
    assert!(run.text.contains("over its limit `timeout` of 500ms"), "{}", run.text);
    assert!(run.text.contains("--step-limit"), "{}", run.text);
    assert_eq!(place.read("a"), None);
    assert_eq!(fs::read_dir(place.out("")).unwrap().count(), 0, "nothing stays behind");
    let left = std::process::Command::new("pgrep").args(["-f", "sleep 471[1]"]).output().unwrap();
    assert!(left.stdout.is_empty(), "children are left: {}", String::from_utf8_lossy(&left.stdout));
}

#[test]
fn a_failure_that_is_ignored_stops_nothing() {
    let place = Place::new(
        &["h"],
        r#"play "p" on hosts.all_of_them {
  file "OUT/none/a" as first { content = "a"  ignore_failure = true }
  when first.failed {
    file "OUT/b" { content = "b" }
  }
}"#,
    );
    let run = place.play(&[]).expect(0);
    assert_eq!(run.steps(), ["h file a: ignored", "h file b: changed"]);
    let run = place.play(&[]).expect(0);
    assert_eq!(run.steps(), ["h file a: ignored", "h file b: ok"]);
    assert_eq!(run.events.last().unwrap()["tally"]["ignored"], 1);
    assert!(run.text.contains("\nnothing changed, 1 failure ignored ("), "{}", run.text);
    assert!(!run.text.contains("as declared"), "{}", run.text);
    let row = run.text.lines().find(|line| line.starts_with("h ")).unwrap();
    assert!(row.ends_with("  1 failure ignored"), "{}", run.text);
}

/// A play whose handler works only once `OUT/go` is there.
const DUE: &str = r#"play "configuration" on hosts.all_of_them {
  file "OUT/conf" { content = "a"  notify = "reload"  tags = "conf" }
  command ["true"] { changes = false  tags = "other" }
  handler "reload" {
    command ["test", "-e", "OUT/go"]
    shell "echo reloaded >> OUT/log" { tags = "slow" }
  }
}"#;

#[test]
fn tags_choose_tasks_and_leave_a_notified_handler_whole() {
    let place = Place::new(&["h"], DUE);
    fs::write(place.out("go"), "").unwrap();
    let run = place.play(&["--tags", "conf"]).expect(0);
    assert_eq!(run.steps()[0], "h file conf: changed");
    assert_eq!(place.read("log").unwrap(), "reloaded\n");
    assert_eq!(place.play(&[]).expect_nothing_done().text.matches("still due").count(), 0);
}

#[test]
fn a_handler_that_is_due_outlives_every_selection() {
    let more = r#"
play "more" on hosts.all_of_them {
  command ["true"] { changes = false  tags = "more" }
}"#;
    let place = Place::new(&["h"], &format!("{DUE}{more}"));
    let run = place.play(&[]).expect(4);
    let due =
        "warning: the handler `reload` is still due: it runs at the end of play \"configuration\" in the next run";
    assert!(run.text.contains(due), "{}", run.text);
    // Its play does not take place.
    let run = place.play(&["--tags", "more"]).expect(0);
    assert_eq!(run.steps(), ["h command true: ok"]);
    let due =
        "still due from an earlier run: `reload` of play \"configuration\" in play.fp, which did not take place now";
    assert!(run.text.contains(due), "{}", run.text);
    // Its play does, with a task that has nothing to do with it: it is tried.
    place.play(&["--tags", "other"]).expect(4);
    fs::write(place.out("go"), "").unwrap();
    // One of its own tasks is left out: it is not done in part.
    let run = place.play(&["--skip-tags", "slow"]).expect(0);
    assert!(run.text.contains("the handler `reload` is still due: --skip-tags leaves out tasks of it"), "{}", run.text);
    assert_eq!(place.read("log"), None);
    let run = place.play(&["--tags", "other"]).expect(0);
    assert!(!run.text.contains("still due"), "{}", run.text);
    assert_eq!(place.read("log").unwrap(), "reloaded\n");
    place.play(&[]).expect_nothing_done();
}

#[test]
fn a_handler_or_a_play_that_was_renamed_while_it_was_due_is_told_in_every_run() {
    let place = Place::new(&["h"], DUE);
    let playbook = fs::read_to_string(place.path("play.fp")).unwrap();
    place.play(&[]).expect(4);
    fs::write(place.out("go"), "").unwrap();
    for (from, to, told) in [
        ("\"reload\"", "\"load again\"", "play \"configuration\" has none of that name any more"),
        (
            "\"configuration\"",
            "\"the configuration\"",
            "`reload` of play \"configuration\" in play.fp, which did not take place now",
        ),
    ] {
        place.write("play.fp", &playbook.replace(from, to));
        for _ in 0..2 {
            let run = place.play(&[]).expect_nothing_done();
            assert!(run.text.contains(told), "{}", run.text);
        }
    }
    place.write("play.fp", &playbook);
    place.play(&[]).expect(0);
    assert_eq!(place.read("log").unwrap(), "reloaded\n");
}

#[test]
fn a_note_is_for_the_playbook_that_left_it() {
    let place = Place::new(&["h"], DUE);
    place.play(&[]).expect(4);
    fs::write(place.out("go"), "").unwrap();
    // Another project, with a play and a handler of the same names.
    let other = fs::read_to_string(place.path("play.fp")).unwrap().replace("reloaded", "another");
    place.write("other.fp", &other);
    let run = place.play_file("other.fp", &[]).expect_nothing_done();
    assert!(run.text.contains("`reload` of play \"configuration\" in play.fp"), "{}", run.text);
    assert_eq!(place.read("log"), None);
    place.play(&[]).expect(0);
    assert_eq!(place.read("log").unwrap(), "reloaded\n");
}

#[test]
fn a_note_that_cannot_be_read_makes_every_handler_of_its_play_due() {
    let place = Place::new(&["h"], DUE);
    place.play(&[]).expect(4);
    let folder = place.path("state-h/pending");
    let note = fs::read_dir(folder).unwrap().next().unwrap().unwrap().path();
    fs::write(note, "{").unwrap();
    fs::write(place.out("go"), "").unwrap();
    let run = place.play(&[]).expect(0);
    assert!(run.text.contains("every handler of play \"configuration\" runs"), "{}", run.text);
    assert_eq!(place.read("log").unwrap(), "reloaded\n");
    place.play(&[]).expect_nothing_done();
}

#[test]
fn conditions_facts_and_results_are_evaluated_on_the_host() {
    let place = Place::new(
        &["h"],
        r#"play "p" on hosts.all_of_them {
  file "OUT/a" as first { content = "a" }
  file "OUT/b" as second { content = "b"  when = first.changed }
  file "OUT/c" { content = "c"  when = not first.changed }
  file "OUT/d" { content = "d"  when = second.skipped or second.changed }
  template "OUT/t" { source = "t.conf" }
}"#,
    );
    place.write("t.conf", "{{ first.changed }}\n");
    let steps = place.play(&[]).expect(0).steps();
    assert_eq!(
        steps,
        ["h file a: changed", "h file b: changed", "h file c: skipped", "h file d: changed", "h template t: changed"]
    );
    let steps = place.play(&[]).expect(0).steps();
    assert_eq!(
        steps,
        ["h file a: ok", "h file b: skipped", "h file c: changed", "h file d: ok", "h template t: changed"]
    );
    assert_eq!(place.read("t").unwrap(), "False\n", "a template prints as Jinja does");
}

#[test]
fn large_contents_cross_by_hash_and_only_when_they_are_missing() {
    let place = Place::new(
        &["h1", "h2"],
        r#"play "p" on hosts.all_of_them {
  file "OUT/{{ host.name }}" { source = "big" }
  file "OUT/{{ host.name }}-empty" { source = "empty" }
}"#,
    );
    let big = (0..400_000).map(|number: u32| number.to_string()).collect::<Vec<_>>().join("\n");
    place.write("big", &big);
    place.write("empty", "");
    place.play(&[]).expect(0);
    assert_eq!(place.read("h1").unwrap(), big);
    assert_eq!(place.read("h2").unwrap(), big);
    assert_eq!(place.read("h1-empty").unwrap(), "");
    place.play(&[]).expect_nothing_done();
}
