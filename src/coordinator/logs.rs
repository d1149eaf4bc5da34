//! What access logs say of a batch: its nodes against those that were not changed yet.

use std::collections::{BTreeMap, BTreeSet};

use crate::event::{BadAnswer, RolloutNews};
use crate::plan::Judged;
use crate::resource::rollout::read_served;
use crate::system::access_log::Served;
use crate::value::{Map, Value};

/// How many requests were answered in that way.
fn answered(served: Served, kind: BadAnswer) -> u64 {
    match kind {
        BadAnswer::ServerError => served.errors,
        BadAnswer::NotFound => served.not_found,
        BadAnswer::Refused => served.refused,
    }
}

/// The ways in which answers are compared; the first that is worse is reported.
const COMPARED: [BadAnswer; 3] = [BadAnswer::ServerError, BadAnswer::NotFound, BadAnswer::Refused];

/// What nodes served during the same while.
#[derive(Clone, Debug, Default)]
pub(super) struct Logs {
    served: BTreeMap<String, Served>,
    /// Nodes for which there is no log at all.
    missing: BTreeSet<String>,
    /// Nodes whose logs cannot be read, and why.
    unread: BTreeMap<String, String>,
}

/// What comes of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) failed: BTreeSet<String>,
    pub(super) news: Vec<RolloutNews>,
    /// What the others served.
    pub(super) others: Served,
}

impl Logs {
    /// Takes note of what `settle` found on a host.
    pub(super) fn hear(&mut self, output: &Map) {
        let Some(Value::Map(nodes)) = output.get("served") else { return };
        for (node, found) in nodes {
            let Value::Map(found) = found else { continue };
            match read_served(found) {
                Some(served) => {
                    if served.files == 0 {
                        self.missing.insert(node.clone());
                    }
                    self.served.insert(node.clone(), served);
                }
                None => {
                    let why = found.get("unread").map_or_else(String::new, ToString::to_string);
                    self.unread.insert(node.clone(), why);
                }
            }
        }
    }

    /// A node fails when its share of bad answers is further above that of all `others` together than it may be, and than chance
    /// explains. Where there are no others any more, what they had `before` stands for them.
    pub(super) fn judge(self, judged: Judged, batch: &[String], others: &[String], before: Served) -> Verdict {
        let served = others.iter().filter_map(|node| self.served.get(node));
        let theirs =
            if others.is_empty() { before } else { served.fold(Served::default(), |sum, more| sum.plus(*more)) };
        let mut verdict = Verdict { others: theirs, ..Verdict::default() };
        let (mut few, mut missing) = (Vec::new(), Vec::new());
        for node in batch {
            if let Some(why) = self.unread.get(node) {
                verdict.failed.insert(node.clone());
                verdict.news.push(RolloutNews::LogUnread { node: node.clone(), why: why.clone() });
                continue;
            }
            let Some(own) = self.served.get(node).copied() else { continue };
            let worse = |kind: &BadAnswer| {
                is_worse((own.requests, answered(own, *kind)), (theirs.requests, answered(theirs, *kind)), judged.worse)
            };
            if self.missing.contains(node) {
                missing.push(node.clone());
            } else if own.requests < judged.at_least {
                few.push(node.clone());
            } else if let Some(kind) = COMPARED.into_iter().find(worse) {
                verdict.failed.insert(node.clone());
                verdict.news.push(RolloutNews::BadAnswers {
                    node: node.clone(),
                    kind,
                    requests: own.requests,
                    errors: answered(own, kind),
                    others_requests: theirs.requests,
                    others_errors: answered(theirs, kind),
                });
            }
        }
        if !missing.is_empty() {
            verdict.news.push(RolloutNews::NoLog { nodes: missing });
        }
        if !few.is_empty() {
            verdict.news.push(RolloutNews::FewRequests { nodes: few, at_least: judged.at_least });
        }
        verdict
    }
}

/// How many standard errors two shares must be apart: less is what chance does to two that are alike, once in a thousand times.
const APART: f64 = 3.0;

/// Whether the share of errors of one is more than so many percent points above that of the others, and not by chance (the test of two
/// proportions with a common variance). Others without a request have no errors.
#[expect(clippy::cast_precision_loss, reason = "a share of requests is not told to sixteen digits")]
fn is_worse((requests, errors): (u64, u64), (others, their_errors): (u64, u64), worse: u32) -> bool {
    let (n, m) = (requests.max(1) as f64, others.max(1) as f64);
    let (own, theirs) = (errors as f64 / n, their_errors as f64 / m);
    let all = (errors as f64 + their_errors as f64) / (n + m);
    let error = (all * (1.0 - all).max(0.0) * (1.0 / n + 1.0 / m)).sqrt();
    let by_chance = others > 0 && own - theirs <= APART * error;
    own - theirs > f64::from(worse) / 100.0 && !by_chance
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errors_of(requests: u64, errors: u64) -> Served {
        Served { requests, errors, not_found: 0, refused: errors, files: 0 }
    }

    fn logs(served: &[(&str, u64, u64)]) -> Logs {
        let served = served.iter().map(|(node, requests, errors)| ((*node).to_owned(), errors_of(*requests, *errors)));
        Logs { served: served.collect(), ..Logs::default() }
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn a_node_that_is_worse_than_the_others_fails_and_one_that_is_as_bad_does_not() {
        let judged = Judged { worse: 1, at_least: 20 };
        let verdict = logs(&[("a", 100, 13), ("b", 50, 1), ("c", 100, 0), ("d", 100, 2)]).judge(
            judged,
            &names(&["a", "b"]),
            &names(&["c", "d"]),
            Served::default(),
        );
        assert_eq!(verdict.failed, BTreeSet::from(["a".to_owned()]));
        let news = RolloutNews::BadAnswers {
            node: "a".to_owned(),
            kind: BadAnswer::ServerError,
            requests: 100,
            errors: 13,
            others_requests: 200,
            others_errors: 2,
        };
        assert_eq!(verdict.news, [news]);
        assert_eq!(verdict.others, errors_of(200, 2));
        // The last batch is judged by what its nodes had as long as they were the others.
        for (before, fails) in [((0, 0), true), ((200, 20), false)] {
            let before = errors_of(before.0, before.1);
            let verdict = logs(&[("c", 100, 9)]).judge(judged, &names(&["c"]), &[], before);
            assert_eq!(!verdict.failed.is_empty(), fails, "{before:?}");
        }
    }

    #[test]
    fn pages_that_are_gone_and_requests_that_are_refused_speak_against_a_node_too() {
        let judged = Judged { worse: 1, at_least: 20 };
        let own = Served { requests: 100, errors: 0, not_found: 40, refused: 41, files: 1 };
        for (own, kind) in [(own, BadAnswer::NotFound), (Served { not_found: 0, ..own }, BadAnswer::Refused)] {
            let others = Served { requests: 200, errors: 0, not_found: 2, refused: 4, files: 1 };
            let served = [("a", own), ("b", others)].map(|(node, answers)| (node.to_owned(), answers));
            let logs = Logs { served: served.into(), ..Logs::default() };
            let verdict = logs.judge(judged, &names(&["a"]), &names(&["b"]), Served::default());
            assert_eq!(verdict.failed, BTreeSet::from(["a".to_owned()]));
            let [RolloutNews::BadAnswers { kind: told, errors, .. }] = &verdict.news[..] else { panic!("{verdict:?}") };
            assert_eq!((*told, *errors), (kind, answered(own, kind)));
        }
    }

    #[test]
    fn what_chance_does_is_not_held_against_a_node() {
        // One node of 145 requests beside others of which most fail as well.
        assert!(!is_worse((145, 94), (731, 430), 5));
        assert!(is_worse((1450, 940), (7310, 4300), 5));
        // Where nobody else has any, one in twenty is one too many.
        assert!(is_worse((20, 1), (700, 0), 1));
        assert!(!is_worse((1000, 1), (1000, 0), 0));
        assert!(!is_worse((100, 50), (100, 50), 0) && !is_worse((100, 0), (100, 50), 0));
        // With nobody to compare with only the share counts.
        assert!(!is_worse((100, 1), (0, 0), 1) && is_worse((100, 2), (0, 0), 1));
        assert!(is_worse((u64::MAX, u64::MAX), (u64::MAX, 0), 99) && !is_worse((0, 0), (0, 0), 0));
    }

    #[test]
    fn too_few_requests_say_nothing_and_what_cannot_be_read_fails() {
        let mut logs = logs(&[("a", 19, 19)]);
        let fields =
            |all: &[(&str, Value)]| all.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        let none = ["requests", "errors", "not_found", "refused", "files"].map(|name| (name, Value::Int(0)));
        let none = fields(&none);
        let unread = fields(&[("unread", Value::from("no such folder"))]);
        let found = fields(&[("b", Value::Map(unread)), ("d", Value::Map(none))]);
        logs.hear(&fields(&[("served", Value::Map(found))]));
        let verdict =
            logs.judge(Judged { worse: 0, at_least: 20 }, &names(&["a", "b", "c", "d"]), &[], Served::default());
        assert_eq!(verdict.failed, BTreeSet::from(["b".to_owned()]));
        let unread = RolloutNews::LogUnread { node: "b".to_owned(), why: "no such folder".to_owned() };
        let few = RolloutNews::FewRequests { nodes: names(&["a"]), at_least: 20 };
        let missing = RolloutNews::NoLog { nodes: names(&["d"]) };
        assert_eq!(verdict.news, [unread, missing, few]);
    }
}
