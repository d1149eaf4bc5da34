//! Runs fanli as a user does, and reads its event stream.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use crate::common::fanli;
use serde_json::Value;

/// The project's folder, where README's commands are meant to be run.
pub fn project() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Runs a program to its end.
pub fn output(program: &str, args: &[&str]) -> Output {
    Command::new(program)
        .args(args)
        .current_dir(project())
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}"))
}

/// Runs a program that must succeed, and gives what it printed.
#[track_caller]
pub fn must(program: &str, args: &[&str]) -> String {
    let done = output(program, args);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(done.status.success(), "{program} {args:?}: {}\n{}{}", done.status, text(&done.stdout), text(&done.stderr));
    text(&done.stdout)
}

/// One step as a run told it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Step {
    /// The host, or the node on it.
    pub target: String,
    pub kind: String,
    pub title: String,
    /// The outcome's word.
    pub outcome: String,
    /// The fields that differ.
    pub fields: Vec<String>,
    /// Everything about the outcome, for messages.
    pub detail: String,
}

impl Step {
    /// Whether the step did something, or would.
    pub fn differs(&self) -> bool {
        ["changed", "ran", "would_change", "would_run"].contains(&self.outcome.as_str())
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}: {} {:?}", self.target, self.kind, self.title, self.outcome, self.fields)
    }
}

/// One whole run.
#[derive(Debug)]
pub struct Play {
    pub steps: Vec<Step>,
    pub code: Option<i32>,
    pub took: Duration,
    pub text: String,
}

impl Play {
    /// Steps that did something, or would.
    pub fn differing(&self) -> Vec<&Step> {
        self.steps.iter().filter(|step| step.differs()).collect()
    }

    /// Fails unless the run ended well, with what failed and the last that was said.
    #[track_caller]
    pub fn expect_good(self) -> Self {
        assert_eq!(self.code, Some(0), "{}", self.told());
        self
    }

    /// What failed, and the last lines that were said, each cut: whole streams are too long for a test's message.
    pub fn told(&self) -> String {
        let failed = self.steps.iter().filter(|step| ["failed", "unreachable"].contains(&step.outcome.as_str()));
        let failed = failed.map(|step| format!("{step} {}", step.detail));
        let cut = |line: &str| line.chars().take(400).collect::<String>();
        let lines: Vec<&str> = self.text.lines().collect();
        let last = lines[lines.len().saturating_sub(30)..].iter().map(|line| cut(line));
        let head = format!("exit code {:?} after {:?}", self.code, self.took);
        std::iter::once(head).chain(failed).chain(last).collect::<Vec<_>>().join("\n")
    }

    /// Fails unless nothing was done.
    #[track_caller]
    pub fn expect_nothing_done(self) -> Self {
        let play = self.expect_good();
        let shown: Vec<String> = play.differing().iter().map(ToString::to_string).collect();
        assert!(shown.is_empty(), "a run after a good one changed something:\n{}", shown.join("\n"));
        assert!(play.steps.len() > 20, "{}", play.told());
        play
    }
}

/// `fanli play playbooks/web-tier.fp --json` with more arguments.
pub fn play(more: &[&str]) -> Play {
    play_in(&project(), more)
}

/// The same in a copy of the project.
pub fn play_in(folder: &Path, more: &[&str]) -> Play {
    let start = Instant::now();
    let args = [&["play", "playbooks/web-tier.fp", "--json"], more].concat();
    let done = Command::new(fanli()).args(&args).current_dir(folder).output().unwrap();
    let took = start.elapsed();
    let out = String::from_utf8_lossy(&done.stdout).into_owned();
    let steps = out.lines().filter_map(|line| step(&serde_json::from_str(line).ok()?)).collect();
    let text = format!("fanli {}: {}\n{out}{}", args.join(" "), done.status, String::from_utf8_lossy(&done.stderr));
    Play { steps, code: done.status.code(), took, text }
}

/// A `step_finished` event of the stream; others give nothing.
fn step(event: &Value) -> Option<Step> {
    if event.get("event")? != "step_finished" {
        return None;
    }
    let step = event.get("step")?;
    let text = |value: &Value, name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let fields = event.get("change").and_then(|change| change.get("fields")).and_then(Value::as_array);
    let node = text(step, "node");
    Some(Step {
        target: if node.is_empty() { text(step, "host") } else { node },
        kind: text(step, "kind"),
        title: text(step, "title"),
        outcome: text(event, "outcome"),
        fields: fields.into_iter().flatten().map(|field| text(field, "field")).collect(),
        detail: event.get("change").into_iter().chain(event.get("failure")).map(ToString::to_string).collect(),
    })
}

/// Asks a web server on `address` for `path`: the status and the body.
pub fn get(address: &str, path: &str) -> (u16, String) {
    use std::io::{Read as _, Write as _};
    let ask = || -> std::io::Result<String> {
        let target: std::net::SocketAddr = format!("{address}:80").parse().unwrap();
        let mut stream = std::net::TcpStream::connect_timeout(&target, Duration::from_secs(3))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    let answer = ask().unwrap_or_else(|error| format!("HTTP/1.1 000 {error}"));
    let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body).trim().to_owned();
    (status, body)
}

/// Waits until something holds; fails with `what` after `limit`.
#[track_caller]
pub fn eventually(what: &str, limit: Duration, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < limit, "{what}: not within {limit:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
}
