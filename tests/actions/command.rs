use std::fs;
use std::time::Duration;

use fanli::change::Change;
use fanli::failure::{Failure, FailureKind};
use fanli::resource::kinds::Kind;
use fanli::resource::{Nature, Resource as _};
use fanli::value::{Map, Value};

use crate::args;
use crate::common::{Bench, build, refused};

fn words(words: &[&str]) -> Value {
    Value::List(words.iter().map(|word| Value::from(*word)).collect())
}

fn ms(millis: u64) -> Value {
    Value::Duration(Duration::from_millis(millis))
}

/// What the engine does with an action: observe, plan, apply; and verify where it says so.
fn run(kind: &Kind) -> Result<Option<Map>, Failure> {
    let bench = Bench::new();
    let Some(change) = bench.plan(kind)? else { return Ok(None) };
    let output = bench.apply(kind, &change)?;
    if kind.nature() == (Nature::Action { verify: true }) {
        assert_eq!(bench.plan(kind)?, None, "its guard does not hold");
    }
    Ok(Some(output))
}

fn ran(kind: &Kind) -> Map {
    run(kind).unwrap().expect("it was not run")
}

fn text(output: &Map, name: &str) -> String {
    output[name].as_str().unwrap().to_owned()
}

fn shell(script: &str) -> Map {
    args! { "script" => script }
}

fn with(mut args: Map, more: Map) -> Map {
    args.extend(more);
    args
}

#[test]
fn words_reach_the_program_as_they_are() {
    let odd = ["a b", "$HOME", "*", "'\"", "`id`", "", "-n", "ä\n"];
    let all = [&["printf", "<%s>"], odd.as_slice()].concat();
    let output = ran(&build("command", args! { "argv" => words(&all) }));
    assert_eq!(text(&output, "stdout"), odd.map(|word| format!("<{word}>")).concat());
    assert_eq!(output["code"], Value::Int(0));
}

#[test]
fn a_command_runs_each_time() {
    let kind = build("command", args! { "argv" => words(&["true"]) });
    assert_eq!(kind.nature(), Nature::Action { verify: false });
    for _ in 0..2 {
        assert!(run(&kind).unwrap().is_some());
    }
}

#[test]
fn guards_decide_and_verify() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("done").display().to_string();
    let creates = build("command", args! { "argv" => words(&["touch", &path]), "creates" => path.as_str() });
    assert_eq!(creates.nature(), Nature::Action { verify: true });
    assert!(run(&creates).unwrap().is_some());
    assert_eq!(run(&creates).unwrap(), None);

    let removes =
        build("shell", args! { "script" => "rm \"$P\"", "env" => env(&[("P", &path)]), "removes" => path.as_str() });
    assert!(run(&removes).unwrap().is_some());
    assert_eq!(run(&removes).unwrap(), None);

    let unless = args! { "argv" => words(&["touch", &path]), "unless" => words(&["test", "-e", &path]) };
    let unless = build("command", unless);
    assert_eq!(Bench::new().drift(&unless), ["unless"]);
    assert!(run(&unless).unwrap().is_some());
    assert_eq!(run(&unless).unwrap(), None);

    let only_if = args! { "script" => "rm \"$P\"", "env" => env(&[("P", &path)]), "only_if" => "test -e \"$P\"" };
    let only_if = build("shell", only_if);
    assert_eq!(only_if.nature(), Nature::Action { verify: false });
    assert!(run(&only_if).unwrap().is_some());
    assert_eq!(run(&only_if).unwrap(), None);
    let bench = Bench::new();
    let observed = bench.block(only_if.observe(&bench.probe)).unwrap();
    assert_eq!(observed.output["code"], Value::Null);
}

fn env(pairs: &[(&str, &str)]) -> Value {
    Value::Map(pairs.iter().map(|(name, value)| ((*name).to_owned(), Value::from(*value))).collect())
}

#[test]
fn all_that_is_guarded_must_be_so() {
    let dir = tempfile::tempdir().unwrap();
    let [first, second] = ["first", "second"].map(|name| dir.path().join(name).display().to_string());
    fs::write(&first, "").unwrap();
    let both = build(
        "command",
        args! { "argv" => words(&["touch", &second]), "creates" => first.as_str(), "unless" => words(&["test", "-e", &second]) },
    );
    assert_eq!(Bench::new().drift(&both), ["unless"]);
    assert!(run(&both).unwrap().is_some());
    assert_eq!(run(&both).unwrap(), None);
}

#[test]
fn a_guard_that_does_not_come_to_hold_is_seen() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("never").display().to_string();
    let kind = build("command", args! { "argv" => words(&["true"]), "creates" => path.as_str() });
    let bench = Bench::new();
    let change = bench.plan(&kind).unwrap().unwrap();
    bench.apply(&kind, &change).unwrap();
    assert_eq!(bench.drift(&kind), ["creates"]);
}

#[test]
fn a_guard_that_cannot_be_asked_is_a_failure() {
    let kind = build("command", args! { "argv" => words(&["true"]), "unless" => words(&["fanli-no-such-program"]) });
    let failure = Bench::new().plan(&kind).unwrap_err();
    assert!(failure.to_string().starts_with("`unless` gives no answer: there is no program"), "{failure}");
}

#[test]
fn codes() {
    let failing = shell("echo out; echo why >&2; exit 3");
    let failure = run(&build("shell", failing.clone())).unwrap_err();
    assert_eq!(failure.to_string(), "`/bin/sh -euc echo out; echo why >&2; exit 3` failed with exit code 3: why");
    assert_eq!(failure.hint.as_deref(), Some("when this code is a good end, say so: `ok_codes = [0, 3]`"));
    let output =
        ran(&build("shell", with(failing, args! { "ok_codes" => Value::List(vec![Value::Int(0), Value::Int(3)]) })));
    assert_eq!(output["code"], Value::Int(3));
    assert_eq!((text(&output, "stdout"), text(&output, "stderr")), ("out".to_owned(), "why".to_owned()));
    let failure = run(&build("shell", shell("kill -9 $$"))).unwrap_err();
    assert!(failure.to_string().contains("was ended by signal 9"), "{failure}");
    let failure = run(&build("shell", with(shell("true"), args! { "ok_codes" => 1i64 }))).unwrap_err();
    assert!(failure.to_string().ends_with("failed with exit code 0"), "{failure}");
}

#[test]
fn a_shell_stops_at_the_first_failure_and_at_unset_names() {
    let dir = tempfile::tempdir().unwrap();
    let mark = dir.path().join("mark");
    let env = env(&[("MARK", mark.to_str().unwrap())]);
    for script in ["false; touch \"$MARK\"", "echo $NO_SUCH_NAME; touch \"$MARK\""] {
        assert!(run(&build("shell", with(shell(script), args! { "env" => env.clone() }))).is_err());
        assert!(!mark.exists(), "{script}");
    }
}

#[test]
fn surroundings_are_declared_ones_only() {
    let dir = tempfile::tempdir().unwrap();
    let real = dir.path().canonicalize().unwrap().display().to_string();
    let odd = "a'b\"$(id) \\ \n\u{e9}";
    let output = ran(&build(
        "shell",
        args! {
            "script" => "pwd; printf '%s\n' \"$ODD\"; echo $NUMBER; env | cut -d= -f1 | sort | tr '\\n' ' '; cat",
            "dir" => real.as_str(),
            "env" => Value::Map(Map::from([("ODD".to_owned(), Value::from(odd)), ("NUMBER".to_owned(), Value::Int(7))])),
            "stdin" => "from stdin",
        },
    ));
    let said = text(&output, "stdout");
    let rest = said.strip_prefix(&format!("{real}\n{odd}\n7\n")).unwrap_or_else(|| panic!("{said}"));
    for name in ["HOME", "LC_ALL", "NUMBER", "PATH", "PWD"] {
        assert!(rest.contains(&format!("{name} ")), "{rest}");
    }
    assert!(!rest.contains("CARGO"), "{rest}");
    assert!(rest.ends_with("from stdin"), "{rest}");
    let failure = run(&build("command", args! { "argv" => words(&["true"]), "dir" => "/no/such/dir" })).unwrap_err();
    assert_eq!(failure.to_string(), "cannot run `true` in /no/such/dir: no such directory");
}

#[test]
fn what_a_program_says_is_bounded() {
    let output = ran(&build("shell", shell("echo first; head -c 3000000 /dev/zero | tr '\\0' x; echo; echo last")));
    let said = text(&output, "stdout");
    assert!(said.starts_with("first\nxxx") && said.ends_with("xxx\nlast"), "{}", said.len());
    assert!(said.contains("bytes left out]") && said.len() < 200_000, "{}", said.len());
    let failure = run(&build("shell", shell("yes why | head -n 100000 >&2; exit 1"))).unwrap_err();
    assert!(failure.to_string().len() < 1000, "{}", failure.to_string().len());
}

#[test]
fn what_only_looks_is_looked_at_while_observing() {
    let kind = build("command", args! { "argv" => words(&["echo", "seen"]), "changes" => false });
    let bench = Bench::new();
    let observed = bench.block(kind.observe(&bench.probe)).unwrap();
    assert_eq!(observed.state, kind.desired());
    assert_eq!(text(&observed.output, "stdout"), "seen");
    let kind = build("command", args! { "argv" => words(&["false"]), "changes" => false });
    assert!(bench.plan(&kind).unwrap_err().to_string().contains("failed with exit code 1"));
}

#[test]
fn a_command_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let count = dir.path().join("count");
    let env = env(&[("COUNT", count.to_str().unwrap())]);
    let script = "echo x >> \"$COUNT\"; test $(wc -l < \"$COUNT\") -ge 3";
    let waits = with(shell(script), args! { "env" => env, "within" => ms(20_000), "every" => ms(10) });
    let kind = build("shell", waits);
    assert_eq!(kind.nature(), Nature::Wait);
    assert_eq!(Bench::new().plan(&kind).unwrap(), None);
    assert_eq!(fs::read_to_string(&count).unwrap(), "x\nx\nx\n");

    let kind = build("shell", with(shell("echo busy >&2; exit 4"), args! { "within" => ms(200), "every" => ms(10) }));
    let failure = Bench::new().plan(&kind).unwrap_err();
    assert_eq!(failure.kind, FailureKind::Timeout);
    let end =
        "over its limit `within` of 200ms: at last: `/bin/sh -euc echo busy >&2; exit 4` failed with exit code 4: busy";
    assert_eq!(failure.to_string(), end);
    let kind = build("command", args! { "argv" => words(&["sleep", "600"]), "within" => ms(200) });
    let failure = Bench::new().plan(&kind).unwrap_err();
    assert_eq!(failure.to_string(), "over its limit `within` of 200ms: the last try did not come to an end");
}

/// Whether a process whose command line holds `mark` lives.
fn lives(mark: &str) -> bool {
    let here = std::process::id().to_string();
    fs::read_dir("/proc").unwrap().flatten().any(|entry| {
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        entry.file_name().to_str() != Some(here.as_str()) && String::from_utf8_lossy(&line).contains(mark)
    })
}

#[track_caller]
fn eventually(what: &str, holds: impl Fn() -> bool) {
    for _ in 0..200 {
        if holds() {
            return;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("{what}");
}

#[test]
fn a_command_over_its_limit_takes_its_group_along() {
    let mark = format!("600.{}", std::process::id());
    let script = "sleep \"$MARK\" & (sleep \"$MARK\" | cat) & sleep \"$MARK\"";
    let kind = build("shell", with(shell(script), args! { "env" => env(&[("MARK", &mark)]) }));
    let bench = Bench::new();
    let change: Change = bench.plan(&kind).unwrap().unwrap();
    let hands = bench.hands();
    let over =
        bench.block(async { tokio::time::timeout(Duration::from_millis(500), kind.apply(&change, &hands)).await });
    assert!(over.is_err());
    eventually("a process of the group lives on", || !lives(&format!("sleep\0{mark}")));
}

#[test]
fn what_makes_no_sense_is_refused() {
    let argv = || args! { "argv" => words(&["true"]) };
    for (wrong, says) in [
        (
            args! { "argv" => "uname -r" },
            "argv: is a list of words, not a line: [\"uname\", \"-r\"]; lines are for `shell`",
        ),
        (args! { "argv" => words(&[]) }, "argv: is empty"),
        (args! { "argv" => words(&["a\0b"]) }, "argv: holds a NUL"),
        (with(argv(), args! { "env" => env(&[("A B", "x")]) }), "env: `A B` is not a name of a variable"),
        (with(argv(), args! { "ok_codes" => 256i64 }), "ok_codes: expected exit codes from 0 to 255"),
        (
            with(argv(), args! { "changes" => false, "creates" => "/x" }),
            "creates: means nothing beside `changes = false`",
        ),
        (
            with(argv(), args! { "within" => ms(1000), "unless" => words(&["true"]) }),
            "unless: means nothing beside `within`",
        ),
        (with(argv(), args! { "within" => ms(0) }), "within: must be longer than nothing"),
        (with(argv(), args! { "unless" => words(&[]) }), "unless: is empty"),
    ] {
        let found = refused("command", wrong);
        assert!(found.starts_with(says), "{found}");
    }
    assert!(refused("shell", shell("  ")).starts_with("script: is empty"));
    assert!(refused("shell", shell(&"x".repeat(200_000))).starts_with("script: is longer than 128 KiB"));
}

#[test]
fn neither_environment_nor_stdin_is_told() {
    let kind =
        build("shell", with(shell("exit 1"), args! { "env" => env(&[("PASSWORD", "hush-1")]), "stdin" => "hush-2" }));
    let failure = format!("{:?}", run(&kind).unwrap_err());
    assert!(!failure.contains("hush"), "{failure}");
}
