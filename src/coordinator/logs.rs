//! What access logs say of a batch: its nodes against those that were not changed yet.

use std::collections::{BTreeMap, BTreeSet};

use crate::event::RolloutNews;
use crate::plan::Judged;
use crate::value::{Map, Value};

/// What nodes served during the same while.
#[derive(Clone, Debug, Default)]
pub(super) struct Logs {
    /// Requests, and those of them that were answered with a server error.
    served: BTreeMap<String, (u64, u64)>,
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
    /// What the others served: requests, and errors.
    pub(super) others: (u64, u64),
}

impl Logs {
    /// Takes note of what `settle` found on a host.
    pub(super) fn hear(&mut self, output: &Map) {
        let Some(Value::Map(nodes)) = output.get("served") else { return };
        for (node, found) in nodes {
            let Value::Map(found) = found else { continue };
            let number = |name: &str| match found.get(name) {
                Some(Value::Int(number)) => u64::try_from(*number).ok(),
                _ => None,
            };
            if number("files") == Some(0) {
                self.missing.insert(node.clone());
            }
            match number("requests").zip(number("errors")) {
                Some(served) => {
                    self.served.insert(node.clone(), served);
                }
                None => {
                    let why = found.get("unread").map_or_else(String::new, ToString::to_string);
                    self.unread.insert(node.clone(), why);
                }
            }
        }
    }

    /// A node fails when its share of server errors is further above that of all `others` together than it may be, and than chance
    /// explains. Where there are no others any more, what they had `before` stands for them.
    pub(super) fn judge(self, judged: Judged, batch: &[String], others: &[String], before: (u64, u64)) -> Verdict {
        let served = |nodes: &[String]| {
            let found = nodes.iter().filter_map(|node| self.served.get(node));
            found.fold((0, 0), |sum: (u64, u64), served| (sum.0 + served.0, sum.1 + served.1))
        };
        let (others_requests, others_errors) = if others.is_empty() { before } else { served(others) };
        let mut verdict = Verdict { others: (others_requests, others_errors), ..Verdict::default() };
        let (mut few, mut missing) = (Vec::new(), Vec::new());
        for node in batch {
            if let Some(why) = self.unread.get(node) {
                verdict.failed.insert(node.clone());
                verdict.news.push(RolloutNews::LogUnread { node: node.clone(), why: why.clone() });
                continue;
            }
            let Some((requests, errors)) = self.served.get(node).copied() else { continue };
            if self.missing.contains(node) {
                missing.push(node.clone());
            } else if requests < judged.at_least {
                few.push(node.clone());
            } else if is_worse((requests, errors), (others_requests, others_errors), judged.worse) {
                verdict.failed.insert(node.clone());
                let node = node.clone();
                verdict.news.push(RolloutNews::ServerErrors { node, requests, errors, others_requests, others_errors });
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

    fn logs(served: &[(&str, u64, u64)]) -> Logs {
        let served = served.iter().map(|(node, requests, errors)| ((*node).to_owned(), (*requests, *errors)));
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
            (0, 0),
        );
        assert_eq!(verdict.failed, BTreeSet::from(["a".to_owned()]));
        let news = RolloutNews::ServerErrors {
            node: "a".to_owned(),
            requests: 100,
            errors: 13,
            others_requests: 200,
            others_errors: 2,
        };
        assert_eq!(verdict.news, [news]);
        assert_eq!(verdict.others, (200, 2));
        // The last batch is judged by what its nodes had as long as they were the others.
        for (before, fails) in [((0, 0), true), ((200, 20), false)] {
            let verdict = logs(&[("c", 100, 9)]).judge(judged, &names(&["c"]), &[], before);
            assert_eq!(!verdict.failed.is_empty(), fails, "{before:?}");
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
        let none = fields(&[("requests", Value::Int(0)), ("errors", Value::Int(0)), ("files", Value::Int(0))]);
        let unread = fields(&[("unread", Value::from("no such folder"))]);
        let found = fields(&[("b", Value::Map(unread)), ("d", Value::Map(none))]);
        logs.hear(&fields(&[("served", Value::Map(found))]));
        let verdict = logs.judge(Judged { worse: 0, at_least: 20 }, &names(&["a", "b", "c", "d"]), &[], (0, 0));
        assert_eq!(verdict.failed, BTreeSet::from(["b".to_owned()]));
        let unread = RolloutNews::LogUnread { node: "b".to_owned(), why: "no such folder".to_owned() };
        let few = RolloutNews::FewRequests { nodes: names(&["a"]), at_least: 20 };
        let missing = RolloutNews::NoLog { nodes: names(&["d"]) };
        assert_eq!(verdict.news, [unread, missing, few]);
    }
}
