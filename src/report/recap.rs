//! The end of a run: a table of hosts, and the verdict in one sentence.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::lines::{Detail, WIDEST};
use super::rollout::Timeline;
use super::words::{Paint, paint, short, took};
use crate::event::{Event, EventKind, Tally, Verdict};
use crate::failure::FailureKind;
use crate::visible::count;

/// The most hosts that get a line of their own when all is well.
const MOST_ROWS: usize = 50;

/// How many of the slowest steps are named.
const SLOWEST: usize = 3;

/// Gathers what the end is to say.
pub(super) struct Recap {
    color: bool,
    detail: Detail,
    check: bool,
    rows: BTreeMap<String, Row>,
    slowest: Vec<(u64, String)>,
    timeline: Timeline,
    warnings: u32,
    end: Option<(Verdict, Tally, u64)>,
}

#[derive(Default)]
struct Row {
    tally: Tally,
    lost: bool,
    /// It said what it may not.
    untrusted: bool,
    stopped: bool,
    /// Another run is at work on it.
    busy: bool,
    /// How many of its targets were left out when a batch did not take place, and from which play on.
    left_out: Option<LeftOut>,
}

struct LeftOut {
    play: String,
    /// Whether the host itself is among them; else only nodes on it.
    whole: bool,
    nodes: u32,
}

impl Row {
    /// What there is to say of a host beside its numbers.
    fn notes(&self) -> String {
        let left_out = self.left_out.as_ref().map(|LeftOut { play, whole, nodes }| {
            let nodes = if *whole { String::new() } else { format!("{} ", count(*nodes, "node")) };
            format!("{nodes}left out from play \"{}\" on", short(play))
        });
        let ignored = (self.tally.ignored > 0).then(|| format!("{} ignored", count(self.tally.ignored, "failure")));
        let state = match self {
            Self { untrusted: true, .. } => Some("not trusted".to_owned()),
            Self { lost: true, .. } => Some("lost".to_owned()),
            Self { busy: true, .. } => Some("busy".to_owned()),
            Self { stopped: true, .. } => Some("stopped".to_owned()),
            _ => None,
        };
        let notes: Vec<String> = [state, left_out, ignored].into_iter().flatten().collect();
        if notes.is_empty() { String::new() } else { format!("  {}", notes.join(", ")) }
    }

    fn leave_out(&mut self, play: &str, node: bool) {
        let left_out = self.left_out.get_or_insert_with(|| LeftOut { play: play.to_owned(), whole: false, nodes: 0 });
        left_out.whole |= !node;
        left_out.nodes += u32::from(node);
    }
}

/// Whether a host's line is one to look at.
fn loud(row: &Row) -> bool {
    row.lost || row.stopped || row.left_out.is_some() || row.tally.failed > 0
}

impl Recap {
    pub(super) fn new(color: bool, detail: Detail) -> Self {
        Self {
            color,
            detail,
            check: false,
            rows: BTreeMap::new(),
            slowest: Vec::new(),
            timeline: Timeline::default(),
            warnings: 0,
            end: None,
        }
    }

    pub(super) fn hear(&mut self, event: &Event) {
        self.timeline.hear(event);
        match &event.kind {
            EventKind::RunStarted { hosts, check, .. } => {
                self.check = *check;
                self.rows = hosts.iter().map(|host| (host.clone(), Row::default())).collect();
            }
            EventKind::StepFinished { step, outcome, took_ms, .. } => {
                self.rows.entry(event.host.clone()).or_default().tally.count(outcome);
                self.slowest.push((*took_ms, format!("{} {} on {}", step.kind, step.title, step.target)));
                self.slowest.sort_by_key(|(millis, _)| std::cmp::Reverse(*millis));
                self.slowest.truncate(SLOWEST);
            }
            EventKind::BatchLeftOut { play, targets, .. } => {
                for target in targets {
                    self.rows.entry(target.host.clone()).or_default().leave_out(play, target.node.is_some());
                }
            }
            EventKind::HostLost { failure } => {
                let row = self.rows.entry(event.host.clone()).or_default();
                (row.lost, row.untrusted) = (true, failure.kind == FailureKind::Untrusted);
            }
            EventKind::HostFinished { stopped: Some(failure), .. } => {
                let row = self.rows.entry(event.host.clone()).or_default();
                (row.stopped, row.busy) = (true, failure.kind == FailureKind::Busy && failure.hint.is_some());
            }
            EventKind::Warning { .. } => self.warnings = self.warnings.saturating_add(1),
            EventKind::RunFinished { tally, verdict } => self.end = Some((*verdict, *tally, event.at_ms)),
            _ => {}
        }
    }

    /// The recap; empty before the run is over.
    pub(super) fn text(&self) -> String {
        let Some((verdict, tally, at_ms)) = self.end else { return String::new() };
        let mut text = self.timeline.text(self.color);
        text.push('\n');
        let width = self.rows.keys().map(|host| host.chars().count()).max().unwrap_or(4).clamp(4, WIDEST);
        let changed = if self.check { "would change" } else { "changed" };
        let head = format!(
            "{:width$}  {:>5}  {changed:>7}  {:>7}  {:>7}  {:>6}",
            "host", "ok", "skipped", "unknown", "failed"
        );
        let _ = writeln!(text, "{}", paint(self.color, Paint::Dim, &head));
        let column = changed.len();
        let shown = self.rows.iter().filter(|(_, row)| self.rows.len() <= MOST_ROWS || loud(row));
        for (host, row) in shown {
            let Tally { ok, changed, skipped, unknown, failed, ignored } = row.tally;
            let note = row.notes();
            let line = format!(
                "{:width$}  {ok:>5}  {changed:>column$}  {skipped:>7}  {unknown:>7}  {failed:>6}{note}",
                short(host)
            );
            let how = match (loud(row), changed + ignored) {
                (true, _) => Paint::Bad,
                (false, 0) => Paint::Plain,
                (false, _) => Paint::Change,
            };
            let _ = writeln!(text, "{}", paint(self.color, how, &line));
        }
        if self.detail == Detail::Verbose {
            for (millis, step) in &self.slowest {
                let _ = writeln!(text, "{:>7}  {}", took(*millis), short(step));
            }
        }
        let (sentence, how) = self.sentence(verdict, tally);
        let _ = writeln!(text, "\n{} ({})", paint(self.color, how, &sentence), took(at_ms));
        text
    }

    fn sentence(&self, verdict: Verdict, tally: Tally) -> (String, Paint) {
        let lost = self.rows.values().filter(|row| row.lost).count() as u64;
        let ignored = match tally.ignored {
            0 => String::new(),
            failures => format!(", {} ignored", count(failures, "failure")),
        };
        let noted = match self.warnings {
            0 => ignored.clone(),
            warnings => format!("{ignored}, {}", count(warnings, "warning")),
        };
        match verdict {
            Verdict::Converged if tally.changed == 0 && noted.is_empty() => {
                ("nothing to do: everything is as declared".to_owned(), Paint::Good)
            }
            Verdict::Converged if tally.changed == 0 => (format!("nothing changed{noted}"), Paint::Change),
            Verdict::Converged => {
                let how = if tally.ignored > 0 { Paint::Change } else { Paint::Good };
                (format!("done: {} applied{noted}", count(tally.changed, "change")), how)
            }
            Verdict::WouldChange => {
                let unknown = if tally.unknown > 0 {
                    format!(", {} cannot be known yet", count(tally.unknown, "step"))
                } else {
                    String::new()
                };
                let changes = count(tally.changed, "change");
                (
                    format!("only looked: {changes} would be applied{unknown}{noted}; run without --check to apply"),
                    Paint::Change,
                )
            }
            Verdict::Failed => {
                let failed = match tally.failed {
                    0 if self.rows.values().any(loud) => "not all hosts came to the end".to_owned(),
                    0 => "a rollout did not come to its declared end".to_owned(),
                    steps => count(steps, "step"),
                };
                (
                    format!(
                        "failed: {failed}{ignored}; mend the cause and run the same command again: what is done stays done"
                    ),
                    Paint::Bad,
                )
            }
            Verdict::Unreachable if self.rows.values().any(|row| row.untrusted) => (
                format!(
                    "{} could not be reached, went away or said what they may not; look at them before the next run",
                    count(lost, "host")
                ),
                Paint::Bad,
            ),
            Verdict::Unreachable => (
                format!("{} could not be reached or went away; run again when they are back", count(lost, "host")),
                Paint::Bad,
            ),
            Verdict::Busy => (
                "nothing was done: another run is at work; run the same command again when it has ended".to_owned(),
                Paint::Bad,
            ),
            Verdict::Aborted => ("stopped; run the same command again to go on".to_owned(), Paint::Bad),
        }
    }
}
