//! A run as plain lines: what changed, what failed, what a person should know. What is as declared is silent.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::rollout;
use super::words::{Paint, bounded, bounded_to, paint, short, took};
use crate::change::{Change, DONE, FieldChange, Verb};
use crate::event::{Event, EventKind, Outcome, StepRef};
use crate::failure::{Failure, FailureKind};
use crate::visible::count;

/// How much is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Detail {
    /// What changed, failed, or cannot be known.
    Normal,
    /// Every step, with what it gave.
    Verbose,
}

/// How long a line may become so that what changed stands behind its step, in columns; else it stands below.
const LINE: usize = 140;

/// A step that says nothing for this long is mentioned, in milliseconds: a console that is silent looks dead.
const STILL_AT_WORK: u64 = 30_000;

/// The most fields of one change, unless a diff was asked for.
const MOST_FIELDS: usize = 16;

/// The most lines of one diff.
const DIFF_LINES: usize = 1_000;

/// The widest column of names, in characters: longer ones push their line to the right.
pub(super) const WIDEST: usize = 40;

/// Makes lines from events.
pub(super) struct Lines {
    color: bool,
    detail: Detail,
    /// Steps under way: when they began, and when they were last mentioned.
    under_way: BTreeMap<(String, u32), (StepRef, u64)>,
    /// The widest name of a target, so that columns stand.
    width: usize,
}

impl Lines {
    pub(super) fn new(color: bool, detail: Detail) -> Self {
        Self { color, detail, under_way: BTreeMap::new(), width: 0 }
    }

    /// The lines of an event; empty when it is silent.
    pub(super) fn hear(&mut self, event: &Event) -> String {
        match &event.kind {
            EventKind::RunStarted { playbook, hosts, steps, check, .. } => {
                self.width = hosts.iter().map(|host| host.chars().count()).max().unwrap_or(0).min(WIDEST);
                let mode = if *check { ", only looking" } else { "" };
                let hosts = count(hosts.len(), "host");
                format!("{}: {hosts}, {}{mode}\n", short(playbook), count(*steps, "step"))
            }
            EventKind::HostConnected { uploaded: true } => self.line(&event.host, Paint::Dim, "helper sent"),
            EventKind::StageStarted { play, batch, phase, targets } => {
                let width = targets.iter().map(|target| target.to_string().chars().count()).max();
                self.width = self.width.max(width.unwrap_or(0)).min(WIDEST);
                let batch = batch.map_or_else(String::new, |(number, of)| format!(" (batch {number} of {of})"));
                let title = match phase {
                    None => format!("play \"{}\"{batch}", short(play)),
                    Some(phase) => format!("rollout \"{}\"{batch}: {}", short(play), rollout::doing(*phase)),
                };
                let title = paint(self.color, Paint::Strong, &title);
                let nodes = phase.map_or_else(String::new, |_| format!(" {}", rollout::of_targets(targets)));
                format!("\n{title}{nodes}\n")
            }
            EventKind::BatchLeftOut { play, batch: (number, of), targets } => {
                let take = if targets.len() == 1 { "takes" } else { "take" };
                let names: Vec<String> = targets.iter().map(ToString::to_string).collect();
                let text = format!(
                    "play \"{}\": batch {number} of {of} does not take place, as one before it failed: {} {take} no part from here on",
                    short(play),
                    rollout::names(names.iter().map(String::as_str))
                );
                format!("  {}\n", paint(self.color, Paint::Bad, &text))
            }
            EventKind::Rollout { news, .. } => {
                let (sentence, how) = rollout::sentence(news);
                format!("  {}\n", paint(self.color, how, &sentence))
            }
            EventKind::StepStarted { step } => {
                self.under_way.insert((event.host.clone(), step.id), (step.clone(), event.at_ms));
                String::new()
            }
            EventKind::Progress { id, message, amount } => self.progress(event, *id, message, *amount),
            EventKind::StepFinished { step, outcome, output, took_ms } => {
                self.under_way.remove(&(event.host.clone(), step.id));
                let mut text = self.finished(step, outcome, *took_ms);
                if self.detail == Detail::Verbose {
                    for (name, value) in output {
                        output_of(&mut text, name, &value.to_string());
                    }
                }
                text
            }
            EventKind::Warning { message } => {
                self.line(&event.host, Paint::Change, &format!("warning: {}", short(message)))
            }
            EventKind::HostLost { failure } => {
                let message = short(&failure.message);
                let message = match failure.kind {
                    FailureKind::Untrusted => format!("NOT TRUSTED: {message}"),
                    FailureKind::Aborted if message.starts_with("stopped") => message,
                    _ => format!("LOST: {message}"),
                };
                let mut text = self.line(&event.host, Paint::Bad, &message);
                causes(&mut text, failure);
                text
            }
            EventKind::HostFinished { stopped: Some(failure), .. } if failure.kind == FailureKind::Busy => {
                // The others say nothing: that they wait for this one is told once.
                if failure.hint.is_none() {
                    return String::new();
                }
                let mut text = self.line(&event.host, Paint::Bad, &format!("busy: {}", short(&failure.message)));
                causes(&mut text, failure);
                text
            }
            EventKind::HostFinished { stopped: Some(failure), .. } => {
                let message = short(&failure.message);
                let stopped = if message.starts_with("stopped") { message } else { format!("stopped: {message}") };
                let mut text = self.line(&event.host, Paint::Bad, &stopped);
                causes(&mut text, failure);
                text
            }
            EventKind::HostConnected { uploaded: false }
            | EventKind::StageFinished { .. }
            | EventKind::HostFinished { stopped: None, .. }
            | EventKind::RunFinished { .. } => String::new(),
        }
    }

    fn line(&self, name: &str, how: Paint, text: &str) -> String {
        let name = short(name);
        format!("  {name:width$}  {}\n", paint(self.color, how, text), width = self.width)
    }

    /// One line now and then while a step takes long.
    fn progress(&mut self, event: &Event, id: u32, message: &str, amount: Option<(u64, u64)>) -> String {
        let Some((step, mentioned)) = self.under_way.get_mut(&(event.host.clone(), id)) else { return String::new() };
        if event.at_ms.saturating_sub(*mentioned) < STILL_AT_WORK {
            return String::new();
        }
        *mentioned = event.at_ms;
        let amount = amount.map_or_else(String::new, |(done, total)| format!(" ({done} of {total})"));
        let text = format!("{} {}: {}{amount}", short(&step.kind), short(&step.title), short(message));
        let name = step.target.to_string();
        self.line(&name, Paint::Dim, &format!("{:<12} {text}", "..."))
    }

    fn finished(&self, step: &StepRef, outcome: &Outcome, took_ms: u64) -> String {
        let (word, how, told) = match outcome {
            Outcome::Ok => ("ok", Paint::Good, false),
            Outcome::Changed(change) => (verb(change, false), Paint::Change, true),
            Outcome::Ran => ("ran", Paint::Change, true),
            Outcome::WouldChange(change) => (verb(change, true), Paint::Change, true),
            Outcome::WouldRun => ("would run", Paint::Change, true),
            Outcome::Unknown(_) => ("unknown", Paint::Change, true),
            Outcome::Skipped(_) => ("skipped", Paint::Dim, false),
            Outcome::Failed(..) => ("FAILED", Paint::Bad, true),
            Outcome::Ignored(..) => ("ignored", Paint::Change, true),
        };
        if !told && self.detail == Detail::Normal {
            return String::new();
        }
        let handler = if step.handler { "handler: " } else { "" };
        let what = format!("{handler}{} {}", short(&step.kind), short(&step.title));
        let time = if took_ms >= 1_000 { format!(" ({})", took(took_ms)) } else { String::new() };
        let padded = format!("{word:<12}");
        let word = paint(self.color, how, &padded);
        let changed = match outcome {
            Outcome::Changed(change) | Outcome::WouldChange(change) => Some(change),
            _ => None,
        };
        let room = LINE.saturating_sub(self.width + padded.chars().count() + what.chars().count() + time.len() + 6);
        let fields = changed.and_then(in_one_line).filter(|fields| fields.chars().count() <= room);
        let behind = fields.as_ref().map_or_else(String::new, |fields| format!(": {fields}"));
        let mut text = self.line(&step.target.to_string(), Paint::Plain, &format!("{word} {what}{behind}{time}"));
        match outcome {
            Outcome::Changed(_) | Outcome::WouldChange(_) if fields.is_some() => {}
            Outcome::Changed(change) | Outcome::WouldChange(change) => self.change(&mut text, change),
            Outcome::Unknown(reason) => {
                let _ = writeln!(text, "      {}", short(reason));
            }
            Outcome::Skipped(reason) => {
                let _ = writeln!(text, "      {}", paint(self.color, Paint::Dim, &short(reason)));
            }
            Outcome::Failed(failure, change) | Outcome::Ignored(failure, change) => {
                self.failure(&mut text, failure);
                // That an action is not done is said already.
                if let Some(change) =
                    change.as_ref().filter(|change| change.fields.iter().any(|field| field.field != DONE))
                {
                    self.change(&mut text, change);
                }
                let _ = writeln!(text, "      at {}", short(&step.at));
            }
            Outcome::Ok | Outcome::Ran | Outcome::WouldRun => {}
        }
        text
    }

    fn change(&self, text: &mut String, change: &Change) {
        // A directory of many files has a field for each; `--diff` asks for all of them.
        let in_full = change.fields.iter().any(|field| field.diff.is_some());
        let hidden = if in_full { 0 } else { change.fields.len().saturating_sub(MOST_FIELDS) };
        let shown = if hidden > 1 { MOST_FIELDS } else { change.fields.len() };
        for FieldChange { field, from, to, diff } in change.fields.iter().take(shown) {
            let (from, to) = (short(&from.to_string()), short(&to.to_string()));
            let field = short(field);
            let line =
                if change.verb == Verb::Create { format!("{field}: {to}") } else { format!("{field}: {from} -> {to}") };
            let _ = writeln!(text, "      {line}");
            for line in diff.iter().flat_map(|diff| bounded_to(diff, DIFF_LINES / 2, DIFF_LINES / 2)) {
                let how = match line.as_bytes().first() {
                    Some(b'+') => Paint::Good,
                    Some(b'-') => Paint::Bad,
                    _ => Paint::Dim,
                };
                let _ = writeln!(text, "        {}", paint(self.color, how, &line));
            }
        }
        if hidden > 1 {
            let _ = writeln!(text, "      … and {hidden} more");
        }
    }

    fn failure(&self, text: &mut String, failure: &Failure) {
        let _ = writeln!(text, "      {}", paint(self.color, Paint::Bad, &short(&failure.message)));
        causes(text, failure);
    }
}

/// The fields of a change behind one another: `mode 0700 -> 0755, owner root -> www-data`. Not those that have a diff.
fn in_one_line(change: &Change) -> Option<String> {
    let one = |field: &FieldChange| {
        let (name, from, to) = (short(&field.field), short(&field.from.to_string()), short(&field.to.to_string()));
        let text = if change.verb == Verb::Create { format!("{name} {to}") } else { format!("{name} {from} -> {to}") };
        field.diff.is_none().then_some(text)
    };
    let fields: Vec<String> = change.fields.iter().map(one).collect::<Option<_>>()?;
    (!fields.is_empty()).then(|| fields.join(", "))
}

/// Why something failed, and the way out.
fn causes(text: &mut String, failure: &Failure) {
    for line in failure.causes.iter().flat_map(|cause| bounded(cause)) {
        let _ = writeln!(text, "        {line}");
    }
    if let Some(hint) = &failure.hint {
        let _ = writeln!(text, "      help: {}", short(hint));
    }
}

/// A field of a step's result: on its line, or below its name.
fn output_of(text: &mut String, name: &str, value: &str) {
    let name = short(name);
    match bounded(value).as_slice() {
        [] => {}
        [line] => {
            let _ = writeln!(text, "      {name}: {line}");
        }
        lines => {
            let _ = writeln!(text, "      {name}:");
            lines.iter().for_each(|line| {
                let _ = writeln!(text, "        {line}");
            });
        }
    }
}

fn verb(change: &Change, would: bool) -> &'static str {
    match (change.verb, would) {
        (Verb::Create, false) => "created",
        (Verb::Update, false) => "changed",
        (Verb::Remove, false) => "removed",
        (Verb::Create, true) => "would create",
        (Verb::Update, true) => "would change",
        (Verb::Remove, true) => "would remove",
    }
}
