//! The event stream for machines: one object a line, with the stable names that `docs/events.md` documents.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use crate::change::{Change, Verb};
use crate::event::{BadAnswer, Event, EventKind, Outcome, Phase, RolloutNews, StepRef, Tally, Target, Verdict};
use crate::failure::{Failure, FailureKind};
use crate::visible::is_deceptive;

/// One event as a line, without its end.
pub(super) fn line(event: &Event) -> String {
    let mut object = Map::new();
    object.insert("event".to_owned(), json!(event.kind.name()));
    if !event.host.is_empty() {
        object.insert("host".to_owned(), json!(event.host));
    }
    object.insert("index".to_owned(), json!(event.index));
    object.insert("at_ms".to_owned(), json!(event.at_ms));
    if let Value::Object(fields) = fields_of(&event.kind) {
        object.extend(fields);
    }
    unseen_escaped(&Value::Object(object).to_string())
}

/// What a terminal or an editor would take for a command is written as `\u….`, which JSON allows in every string; outside
/// of strings no such character stands. `serde_json` does so below U+0020 only.
fn unseen_escaped(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    for c in line.chars() {
        if c.is_control() || is_deceptive(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(out, "\\u{unit:04x}");
            }
        } else {
            out.push(c);
        }
    }
    out
}

/// A value in JSON's own types; what it has no type for is text, as a playbook writes it.
fn natural(value: &crate::value::Value) -> Value {
    use crate::value::Value as Own;
    match value {
        Own::Null => Value::Null,
        Own::Bool(flag) => json!(flag),
        Own::Int(number) => json!(number),
        Own::Float(number) => json!(number),
        Own::List(items) => items.iter().map(natural).collect(),
        Own::Map(map) => Value::Object(map.iter().map(|(name, item)| (name.clone(), natural(item))).collect()),
        other => json!(other.to_string()),
    }
}

/// What an event has besides its name, host and place in the stream.
fn fields_of(kind: &EventKind) -> Value {
    match kind {
        EventKind::RunStarted { run, playbook, hosts, steps, check } => {
            json!({ "run": run, "playbook": playbook, "hosts": hosts, "steps": steps, "check": check })
        }
        EventKind::HostConnected { uploaded } => json!({ "uploaded": uploaded }),
        EventKind::StageStarted { play, batch, phase, targets } => json!({
            "play": play,
            "batch": batch.map(batch_of),
            "phase": phase.map(word_of),
            "targets": targets.iter().map(target).collect::<Vec<_>>(),
        }),
        EventKind::BatchLeftOut { play, batch, targets } => json!({
            "play": play,
            "batch": batch_of(*batch),
            "targets": targets.iter().map(target).collect::<Vec<_>>(),
        }),
        EventKind::Rollout { title, news } => {
            let (word, mut fields) = news_of(news);
            fields.insert("title".to_owned(), json!(title));
            fields.insert("news".to_owned(), json!(word));
            Value::Object(fields)
        }
        EventKind::StepStarted { step } => json!({ "step": reference(step) }),
        EventKind::Progress { id, message, amount } => {
            json!({ "id": id, "message": message, "done": amount.map(|(done, _)| done), "total": amount.map(|(_, total)| total) })
        }
        EventKind::StepFinished { step, outcome, output, took_ms } => {
            let output: Map<String, Value> =
                output.iter().map(|(name, value)| (name.clone(), natural(value))).collect();
            let (word, change, reason, failure) = parts(outcome);
            json!({
                "step": reference(step),
                "outcome": word,
                "change": change.map(changes),
                "reason": reason,
                "failure": failure.map(failed),
                "output": output,
                "took_ms": took_ms,
            })
        }
        EventKind::StageFinished { stage, failed } => {
            json!({ "stage": stage, "failed": failed.iter().map(target).collect::<Vec<_>>() })
        }
        EventKind::Warning { message } => json!({ "message": message }),
        EventKind::HostFinished { tally, stopped } => {
            json!({ "tally": counts(*tally), "stopped": stopped.as_ref().map(failed) })
        }
        EventKind::HostLost { failure } => json!({ "failure": failed(failure) }),
        EventKind::RunFinished { tally, verdict } => {
            let verdict = match verdict {
                Verdict::Converged => "converged",
                Verdict::WouldChange => "would_change",
                Verdict::Failed => "failed",
                Verdict::Unreachable => "unreachable",
                Verdict::Busy => "busy",
                Verdict::Aborted => "aborted",
            };
            json!({ "tally": counts(*tally), "verdict": verdict })
        }
    }
}

fn parts(outcome: &Outcome) -> (&'static str, Option<&Change>, Option<&str>, Option<&Failure>) {
    match outcome {
        Outcome::Ok => ("ok", None, None, None),
        Outcome::Changed(change) => ("changed", Some(change), None, None),
        Outcome::Ran => ("ran", None, None, None),
        Outcome::WouldChange(change) => ("would_change", Some(change), None, None),
        Outcome::WouldRun => ("would_run", None, None, None),
        Outcome::Unknown(reason) => ("unknown", None, Some(reason), None),
        Outcome::Skipped(reason) => ("skipped", None, Some(reason), None),
        Outcome::Failed(failure, change) => ("failed", change.as_ref(), None, Some(failure)),
        Outcome::Ignored(failure, change) => ("ignored", change.as_ref(), None, Some(failure)),
    }
}

fn word_of(phase: Phase) -> &'static str {
    match phase {
        Phase::Prepare => "prepare",
        Phase::Drain => "drain",
        Phase::Change => "change",
        Phase::Ready => "ready",
        Phase::Settle => "settle",
        Phase::Confirm => "confirm",
        Phase::PutBack => "put_back",
    }
}

/// The word for news, and its fields: those that do not apply are null.
fn news_of(news: &RolloutNews) -> (&'static str, Map<String, Value>) {
    let one: Vec<String>;
    let (word, nodes, failed, budget, batches) = match news {
        RolloutNews::Nothing { nodes } => ("nothing", Some(*nodes), None, None, None),
        RolloutNews::Begins { nodes, batches, .. } => ("begins", Some(*nodes), None, None, Some(batches)),
        RolloutNews::LeftOut { .. } => ("left_out", None, None, None, None),
        RolloutNews::StaysOut { .. } => ("stays_out", None, None, None, None),
        RolloutNews::Interrupted { nodes, .. } => ("interrupted", Some(*nodes), None, None, None),
        RolloutNews::Refused { failed } => ("refused", None, Some(failed), None, None),
        RolloutNews::Sick { nodes, budget } => ("sick", None, Some(nodes), Some(*budget), None),
        RolloutNews::BadAnswers { node, kind, .. } => {
            one = vec![node.clone()];
            let word = match kind {
                BadAnswer::ServerError => "server_errors",
                BadAnswer::NotFound => "not_found",
                BadAnswer::Refused => "refused_requests",
            };
            (word, None, Some(&one), None, None)
        }
        RolloutNews::LogUnread { node, .. } => {
            one = vec![node.clone()];
            ("log_unread", None, Some(&one), None, None)
        }
        RolloutNews::Died { nodes } => ("died", None, Some(nodes), None, None),
        RolloutNews::FewRequests { .. } => ("few_requests", None, None, None, None),
        RolloutNews::NoLog { .. } => ("no_log", None, None, None, None),
        RolloutNews::PutsBack { failed, budget, nodes } => {
            ("puts_back", Some(*nodes), Some(failed), Some(*budget), None)
        }
        RolloutNews::Halted { nodes, .. } => ("halted", Some(*nodes), None, None, None),
        RolloutNews::PutBack { nodes, .. } => ("put_back", Some(*nodes), None, None, None),
        RolloutNews::NotPutBack { nodes } => ("not_put_back", None, Some(nodes), None, None),
        RolloutNews::Done { nodes, left } => ("done", Some(*nodes), Some(left), None, None),
    };
    let stays = match news {
        RolloutNews::PutBack { stays, .. } => Some(stays),
        _ => None,
    };
    let (out, half, within) = match news {
        RolloutNews::LeftOut { nodes } | RolloutNews::StaysOut { nodes } => (Some(nodes), None, None),
        RolloutNews::Interrupted { out, half, within_ms, .. } => (Some(out), Some(half), *within_ms),
        _ => (None, None, None),
    };
    let fields = [
        ("out", json!(out)),
        ("half_way", json!(half)),
        ("within_ms", json!(within)),
        ("stays", json!(stays)),
        ("nodes", json!(nodes)),
        ("failed", json!(failed)),
        ("budget", json!(budget)),
        ("batches", json!(batches)),
    ];
    (word, fields.into_iter().chain(of_logs(news)).map(|(name, value)| (name.to_owned(), value)).collect())
}

/// What access logs have said, and why rollouts are halted, of the news that tell it; nothing of the others.
fn of_logs(news: &RolloutNews) -> [(&'static str, Value); 7] {
    let (mut served, mut others, mut few, mut least, mut why) = (None, None, None, None, None);
    match news {
        RolloutNews::BadAnswers { requests, errors, others_requests, others_errors, .. } => {
            served = Some((requests, errors));
            others = Some((others_requests, others_errors));
        }
        RolloutNews::FewRequests { nodes, at_least } => (few, least) = (Some(nodes), Some(at_least)),
        RolloutNews::NoLog { nodes } => few = Some(nodes),
        RolloutNews::LogUnread { why: told, .. } | RolloutNews::Halted { why: told, .. } => why = Some(told),
        _ => {}
    }
    [
        ("requests", json!(served.map(|(requests, _)| requests))),
        ("errors", json!(served.map(|(_, errors)| errors))),
        ("others_requests", json!(others.map(|(requests, _)| requests))),
        ("others_errors", json!(others.map(|(_, errors)| errors))),
        ("few", json!(few)),
        ("at_least", json!(least)),
        ("why", json!(why)),
    ]
}

fn batch_of((number, of): (u32, u32)) -> Value {
    json!({ "number": number, "of": of })
}

fn target(target: &Target) -> Value {
    json!({ "host": target.host, "node": target.node })
}

fn reference(step: &StepRef) -> Value {
    json!({
        "id": step.id,
        "host": step.target.host,
        "node": step.target.node,
        "play": step.play,
        "kind": step.kind,
        "title": step.title,
        "at": step.at,
        "handler": step.handler,
    })
}

fn changes(change: &Change) -> Value {
    let verb = match change.verb {
        Verb::Create => "create",
        Verb::Update => "update",
        Verb::Remove => "remove",
    };
    let fields = change.fields.iter().map(|field| {
        json!({ "field": field.field, "from": field.from.to_string(), "to": field.to.to_string(), "diff": field.diff })
    });
    json!({ "verb": verb, "fields": fields.collect::<Vec<_>>() })
}

fn failed(failure: &Failure) -> Value {
    let kind = match failure.kind {
        FailureKind::Step => "step",
        FailureKind::Timeout => "timeout",
        FailureKind::DidNotConverge => "did_not_converge",
        FailureKind::Unreachable => "unreachable",
        FailureKind::Lost => "lost",
        FailureKind::Untrusted => "untrusted",
        FailureKind::Busy => "busy",
        FailureKind::Aborted => "aborted",
        FailureKind::Internal => "internal",
    };
    json!({ "kind": kind, "message": failure.message, "causes": failure.causes, "hint": failure.hint })
}

fn counts(tally: Tally) -> Value {
    json!({
        "ok": tally.ok,
        "changed": tally.changed,
        "skipped": tally.skipped,
        "unknown": tally.unknown,
        "failed": tally.failed,
        "ignored": tally.ignored,
    })
}
