//! What people and programs see of a run, from events made by hand; also what a hostile host can do to it: nothing.

mod documented;
mod samples;

use fanli::event::{Event, EventKind, Outcome, Phase, RolloutNews, StepRef, Tally, Target, Verdict};
use fanli::failure::Failure;
use fanli::report::{Detail, Reporter, Style};
use fanli::value::{Map, Value};

use crate::snap::Snaps;

const PLAIN: Style = Style { terminal: false, color: false, json: false, detail: Detail::Normal };

/// Everything that a run says, as text and as JSON.
fn told(events: &[Event], style: Style) -> (String, Vec<String>) {
    let mut reporter = Reporter::new(style);
    let (mut text, mut json) = (String::new(), Vec::new());
    for event in events {
        let said = reporter.say(event);
        text.push_str(&said.text);
        json.extend(said.json);
    }
    (text, json)
}

#[test]
fn runs_as_plain_text() {
    let mut snaps = Snaps::beside("report");
    for (name, events) in samples::runs() {
        snaps.compare(name, &told(&events, PLAIN).0);
        snaps.compare(&format!("{name}_verbose"), &told(&events, Style { detail: Detail::Verbose, ..PLAIN }).0);
    }
    snaps.end();
}

#[test]
fn colour_changes_nothing_but_colour() {
    for (name, events) in samples::runs() {
        let (plain, _) = told(&events, PLAIN);
        let (colored, _) = told(&events, Style { color: true, ..PLAIN });
        let mut bare = colored.clone();
        for code in ["0", "1", "2", "31", "32", "33"] {
            bare = bare.replace(&format!("\u{1b}[{code}m"), "");
        }
        assert_eq!(bare, plain, "{name}");
        assert!(colored.contains("\u{1b}["), "{name}");
    }
}

#[test]
fn json_is_one_object_a_line() {
    let mut snaps = Snaps::beside("report");
    for (name, events) in samples::runs() {
        let (_, lines) = told(&events, Style { json: true, ..PLAIN });
        assert_eq!(lines.len(), events.len(), "{name}");
        for line in &lines {
            assert!(!line.contains('\n'));
            assert!(serde_json::from_str::<serde_json::Value>(line).unwrap().is_object());
        }
        snaps.compare(&format!("{name}_json"), &(lines.join("\n") + "\n"));
    }
    snaps.end();
}

/// What hosts, files and programs may hold: commands to terminals, forged lines, notes of Jenkins, turned text.
const HOSTILE: [&str; 12] = [
    "\u{1b}[2J\u{1b}[Hscreen",
    "\u{1b}]0;title\u{7}",
    "\u{9b}31mred",
    "line\rFAKE  ok",
    "line\nrun_finished converged\n\nnothing to do: everything is as declared (0ms)",
    "\u{1b}[8mha:AAAA\u{1b}[0mjenkins",
    "evil\u{202e}txt.exe\u{2066}",
    "zero\u{200b}width\u{feff}",
    "back\u{8}\u{8}\u{8}\u{7f}",
    "nul\0nul",
    "tab\tand \u{2028} separators \u{85}",
    "\u{e0001}tags",
];

/// A run in which every text that a host or a playbook can choose is this one.
fn poisoned(text: &str) -> Vec<Event> {
    let target = Target { host: text.to_owned(), node: Some(text.to_owned()) };
    let step = StepRef {
        id: 1,
        target: target.clone(),
        play: text.to_owned(),
        kind: text.to_owned(),
        title: text.to_owned(),
        at: text.to_owned(),
        handler: true,
    };
    let failure = Failure::new(text).because(text).because(text).hint(text);
    let change = samples::change(text, Value::from(text), Value::from(text), Some(text));
    let output = Map::from([(text.to_owned(), Value::from(text))]);
    let finished = |outcome: Outcome| EventKind::StepFinished {
        step: step.clone(),
        outcome,
        output: output.clone(),
        took_ms: 1_500,
    };
    let kinds = [
        EventKind::RunStarted {
            run: text.to_owned(),
            playbook: text.to_owned(),
            hosts: vec![text.to_owned()],
            steps: 1,
            check: false,
        },
        EventKind::HostConnected { uploaded: true },
        EventKind::StageStarted {
            play: text.to_owned(),
            batch: Some((1, 2)),
            phase: Some(Phase::Change),
            targets: vec![target.clone()],
        },
        EventKind::BatchLeftOut { play: text.to_owned(), batch: (1, 2), targets: vec![target.clone()] },
        EventKind::Rollout {
            title: text.to_owned(),
            news: RolloutNews::NotPutBack { nodes: vec![text.to_owned(), text.to_owned()] },
        },
        EventKind::StepStarted { step: step.clone() },
        EventKind::Progress { id: 1, message: text.to_owned(), amount: Some((1, 2)) },
        finished(Outcome::Changed(change.clone())),
        finished(Outcome::WouldChange(change.clone())),
        finished(Outcome::Unknown(text.to_owned())),
        finished(Outcome::Skipped(text.to_owned())),
        finished(Outcome::Failed(failure.clone(), Some(change.clone()))),
        finished(Outcome::Ignored(failure.clone(), Some(change))),
        EventKind::StageFinished { stage: 0, failed: vec![target] },
        EventKind::Warning { message: text.to_owned() },
        EventKind::HostFinished { tally: Tally::default(), stopped: Some(failure.clone()) },
        EventKind::HostLost { failure },
        EventKind::RunFinished { tally: Tally::default(), verdict: Verdict::Failed },
    ];
    let event = |(index, kind)| Event { host: text.to_owned(), index, at_ms: index * 40_000, kind };
    (0..).zip(kinds).map(event).collect()
}

#[test]
fn no_text_from_a_host_passes_a_control_character_or_forges_a_line() {
    let mut snaps = Snaps::beside("report");
    let harmless = told(&poisoned("x"), Style { detail: Detail::Verbose, ..PLAIN }).0;
    for text in HOSTILE {
        let style = Style { detail: Detail::Verbose, json: true, ..PLAIN };
        let (said, json) = told(&poisoned(text), style);
        for line in said.lines().chain(json.iter().map(String::as_str)) {
            let seen = |c: char| !c.is_control() && !fanli::visible::is_deceptive(c);
            assert!(line.chars().all(seen), "{text:?} gives {line:?}");
        }
        // Nothing of a host begins a line at the left edge, where fanli's own verdict stands. Its name does, in the recap.
        let own = |text: &str| text.lines().filter(|line| !line.starts_with(' ') && !line.is_empty()).count();
        assert_eq!(own(&said), own(&harmless), "{text:?} gives\n{said}");
        for line in &json {
            let object: serde_json::Value = serde_json::from_str(line).unwrap();
            assert_eq!(object["host"], text, "the JSON stream holds the very text");
        }
    }
    let text = "\u{1b}[2Jred\u{202e}\rFAKE\nnothing to do";
    snaps.compare("hostile", &told(&poisoned(text), Style { detail: Detail::Verbose, ..PLAIN }).0);
    snaps.end();
}

#[test]
fn a_flood_is_cut_for_people_and_whole_for_programs() {
    let flood = (0..10_000).map(|line| format!("line {line}")).collect::<Vec<_>>().join("\n") + &"x".repeat(100_000);
    let (said, json) = told(&poisoned(&flood), Style { detail: Detail::Verbose, json: true, ..PLAIN });
    assert!(said.len() < 300_000, "{} bytes for a console", said.len());
    assert!(said.contains("[… 9940 lines …]"));
    assert!(json.iter().any(|line| line.contains("line 5000")));
}
