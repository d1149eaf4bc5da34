//! A rollout in words: its news as they come, and at the end what happened when.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::words::{Paint, paint, short, took};
use crate::event::{BadAnswer, Event, EventKind, Phase, RolloutNews, Target};
use crate::visible::count;

/// How many names of nodes a line holds.
const MOST_NAMES: usize = 8;

/// What a phase does, before the names of nodes.
pub(super) fn doing(phase: Phase) -> &'static str {
    match phase {
        Phase::Prepare => "prepare",
        Phase::Drain => "drain",
        Phase::Change => "change",
        Phase::Ready => "back into traffic",
        Phase::Settle => "settle",
        Phase::Confirm => "confirm",
        Phase::PutBack => "put back",
    }
}

/// Names of nodes, at most so many.
pub(super) fn names<'a>(nodes: impl IntoIterator<Item = &'a str>) -> String {
    let all: Vec<&str> = nodes.into_iter().collect();
    let shown: Vec<String> = all.iter().take(MOST_NAMES).map(|name| short(name)).collect();
    match all.len().saturating_sub(MOST_NAMES) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

/// The names of a stage's targets.
pub(super) fn of_targets(targets: &[Target]) -> String {
    let mut nodes: Vec<&str> = targets.iter().filter_map(|target| target.node.as_deref()).collect();
    if nodes.is_empty() {
        nodes.extend(targets.iter().map(|target| target.host.as_str()));
    }
    // With several balancers a node is told more than once.
    nodes.dedup();
    names(nodes)
}

/// News in a sentence, and how it is to be taken.
pub(super) fn sentence(news: &RolloutNews) -> (String, Paint) {
    let all = |nodes: &[String]| names(nodes.iter().map(String::as_str));
    let nodes = |number: u32| count(number, "node");
    let have = |number: u32| if number == 1 { "has" } else { "have" };
    let budget = |budget: u32| if budget == 0 { "none may".to_owned() } else { format!("{budget} may") };
    match news {
        RolloutNews::Nothing { nodes: number } => {
            (format!("nothing to roll out: {} {} it", nodes(*number), have(*number)), Paint::Good)
        }
        RolloutNews::Begins { nodes: number, of, batches } => {
            let largest = batches.iter().max().copied().unwrap_or(0);
            let sizes: Vec<String> = batches.iter().map(ToString::to_string).collect();
            (
                format!(
                    "{number} of {} to go, in batches of {}: at most {largest} down at once",
                    nodes(*of),
                    sizes.join(", ")
                ),
                Paint::Plain,
            )
        }
        RolloutNews::LeftOut { nodes: out } => {
            let (were, go) = if out.len() == 1 { ("was", "goes") } else { ("were", "go") };
            (format!("{} {were} left out of traffic by an earlier run, and {go} back", all(out)), Paint::Change)
        }
        RolloutNews::StaysOut { nodes: out } => {
            let (were, are, stay) = if out.len() == 1 { ("was", "is", "stays") } else { ("were", "are", "stay") };
            let text =
                format!("{} {were} left out of traffic by an earlier run, {are} not well, and {stay} out", all(out));
            (text, Paint::Bad)
        }
        RolloutNews::Interrupted { nodes: number, half, out, within_ms } => {
            let changed = (*number > 0).then(|| format!("{} {} what is new", nodes(*number), have(*number)));
            let half = (!half.is_empty()).then(|| format!("{} half-way", verb(half, &all(half))));
            let stands: Vec<String> = changed.into_iter().chain(half).collect();
            let stands = if stands.is_empty() { "no node has what is new".to_owned() } else { stands.join(", ") };
            let out = if out.is_empty() { String::new() } else { format!("; out of traffic: {}", all(out)) };
            let within = within_ms.map_or_else(String::new, |within| {
                let within = crate::value::show_duration(std::time::Duration::from_millis(within));
                format!("; after {within} without a run the hosts put it back")
            });
            let text = format!(
                "stopped on request: {stands}{out}{within}; the same command goes on, `fanli rollout rollback` puts back"
            );
            (text, Paint::Bad)
        }
        RolloutNews::Refused { failed } => {
            (format!("not begun, as the preparation failed for {}: no node was touched", all(failed)), Paint::Bad)
        }
        RolloutNews::Sick { nodes: sick, budget: most } => (
            format!("not begun: {} sick already ({}), {}", verb(sick, &all(sick)), sick.len(), budget(*most)),
            Paint::Bad,
        ),
        RolloutNews::Died { nodes: dead } => {
            (format!("{} not running any more, and did when it began", verb(dead, &all(dead))), Paint::Bad)
        }
        RolloutNews::BadAnswers { node, kind, requests, errors, others_requests, others_errors } => {
            let how = match kind {
                BadAnswer::ServerError => "a server error",
                BadAnswer::NotFound => "404 Not Found",
                BadAnswer::Refused => "a status of 400 or above",
            };
            let others = match others_requests {
                0 => "there are no others to compare with".to_owned(),
                others => format!("nodes that were not changed {others_errors} of {others}"),
            };
            (format!("{} answered {errors} of {requests} requests with {how}; {others}", short(node)), Paint::Bad)
        }
        RolloutNews::FewRequests { nodes, at_least } => (
            format!("{}: fewer than {at_least} requests while it settled, so the access log says nothing", all(nodes)),
            Paint::Plain,
        ),
        RolloutNews::NoLog { nodes } => (
            format!("{}: no file fits the pattern of `access_log`, so nothing was judged by it", all(nodes)),
            Paint::Bad,
        ),
        RolloutNews::LogUnread { node, why } => {
            (format!("the access log of {} cannot be read: {}", short(node), short(why)), Paint::Bad)
        }
        RolloutNews::PutsBack { failed, budget: most, nodes: number } => {
            (format!("{} failed, {}: putting {} back", all(failed), budget(*most), nodes(*number)), Paint::Bad)
        }
        RolloutNews::Halted { nodes: 0, why } => {
            (format!("HALTED by a person ({}): not begun; `fanli rollout resume` goes on", short(why)), Paint::Bad)
        }
        RolloutNews::Halted { nodes: number, why } => (
            format!(
                "HALTED by a person ({}): {} {} what is new; `fanli rollout resume` goes on",
                short(why),
                nodes(*number),
                have(*number)
            ),
            Paint::Bad,
        ),
        RolloutNews::PutBack { nodes: number, stays } if stays.is_empty() => {
            (format!("{} put back: all is as before", nodes(*number)), Paint::Change)
        }
        RolloutNews::PutBack { nodes: number, stays } => {
            let kinds: Vec<String> = stays.iter().map(|kind| format!("`{kind}`")).collect();
            let text = format!("{} put back, but for what {} did in `change`", nodes(*number), kinds.join(", "));
            (text, Paint::Change)
        }
        RolloutNews::NotPutBack { nodes: left } => {
            (format!("COULD NOT put back {}; nothing more was done", all(left)), Paint::Bad)
        }
        RolloutNews::Done { nodes: number, left } if left.is_empty() => {
            (format!("rolled out to {}", nodes(*number)), Paint::Good)
        }
        RolloutNews::Done { nodes: number, left } => {
            (format!("rolled out to {}, but for {}", nodes(*number), all(left)), Paint::Bad)
        }
    }
}

fn verb(nodes: &[String], named: &str) -> String {
    if nodes.len() == 1 { format!("{named} is") } else { format!("{named} are") }
}

/// What happened when, gathered for the end of the run.
#[derive(Default)]
pub(super) struct Timeline {
    /// By the rollout's title, in the order of the run.
    rollouts: BTreeMap<usize, (String, Vec<Moment>)>,
}

/// One line of it.
struct Moment {
    at_ms: u64,
    what: String,
    how: Paint,
    /// Whether it is a stage: that lasts until the next moment.
    lasts: bool,
    batch: Option<(u32, u32)>,
}

impl Timeline {
    pub(super) fn hear(&mut self, event: &Event) {
        match &event.kind {
            EventKind::StageStarted { play, batch, phase: Some(phase), targets } => {
                let back = *phase == Phase::PutBack;
                let moments = self.of(play);
                // The stages of a batch are one line: it begins with the first of them.
                let goes_on = moments.last().is_some_and(|last| last.lasts && last.batch == *batch)
                    && !back
                    && *phase != Phase::Confirm;
                if goes_on {
                    return;
                }
                let what = match batch {
                    Some((number, of)) if back => format!("batch {number} of {of} back: {}", of_targets(targets)),
                    Some((number, of)) => format!("batch {number} of {of}: {}", of_targets(targets)),
                    None => doing(*phase).to_owned(),
                };
                moments.push(Moment { at_ms: event.at_ms, what, how: Paint::Plain, lasts: true, batch: *batch });
            }
            EventKind::Rollout { title, news } if !matches!(news, RolloutNews::Begins { .. }) => {
                let (what, how) = sentence(news);
                self.of(title).push(Moment { at_ms: event.at_ms, what, how, lasts: false, batch: None });
            }
            _ => {}
        }
    }

    fn of(&mut self, title: &str) -> &mut Vec<Moment> {
        let known = self.rollouts.iter().find(|(_, (known, _))| known == title).map(|(place, _)| *place);
        let place = known.unwrap_or(self.rollouts.len());
        &mut self.rollouts.entry(place).or_insert_with(|| (title.to_owned(), Vec::new())).1
    }

    /// What happened when; empty when nothing went out.
    pub(super) fn text(&self, color: bool) -> String {
        let mut text = String::new();
        for (title, moments) in self.rollouts.values() {
            let _ = writeln!(text, "\n{}", paint(color, Paint::Strong, &format!("rollout \"{}\"", short(title))));
            for (moment, next) in moments.iter().zip(moments.iter().skip(1).map(Some).chain([None])) {
                let lasted = next
                    .filter(|_| moment.lasts)
                    .map_or_else(String::new, |next| format!(" ({})", took(next.at_ms.saturating_sub(moment.at_ms))));
                let line = paint(color, moment.how, &moment.what);
                let _ = writeln!(text, "{:>8}  {line}{lasted}", took(moment.at_ms));
            }
        }
        text
    }
}
