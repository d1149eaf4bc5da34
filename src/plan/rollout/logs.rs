//! A batch settles: the hosts wait, each once for all of its nodes, and read meanwhile what access logs say of the batch and of the
//! nodes that come later.

use std::collections::BTreeMap;
use std::time::Duration;

use super::super::expand::told;
use super::super::make::{Planner, target_scope};
use super::super::model::{Judged, RolloutPart};
use super::super::{Host, Node};
use super::parts::Part;
use super::{Head, Share, made};
use crate::diagnostic::Diagnostic;
use crate::event::Target;
use crate::playbook::model::AccessLog;
use crate::resource::kinds::Kind;
use crate::value::{Map, Value};

/// How much worse a node may be when the playbook does not say, in percent points.
const WORSE: u32 = 1;

/// How many requests it takes by default.
const AT_LEAST: u64 = 20;

impl<'p> Planner<'_, 'p> {
    /// When a node's access log speaks against it.
    pub(super) fn judged(&mut self, log: &AccessLog) -> Judged {
        let (mut judged, mut scope) = (Judged { worse: WORSE, at_least: AT_LEAST }, self.play_scope());
        for (name, expr) in &log.settings {
            let Some(value) = scope.now(expr, &format!("`{}`", name.text), &mut self.shared.errors) else { continue };
            let wanted = match (name.text.as_str(), &value) {
                (_, Value::Null) => continue,
                ("worse", Value::Percent(points)) if *points <= 100 => {
                    judged.worse = *points;
                    continue;
                }
                ("at_least", Value::Int(requests)) if *requests > 0 => {
                    judged.at_least = requests.unsigned_abs();
                    continue;
                }
                ("worse", _) => "how many percent points more server errors than the other nodes: `worse = 1%`",
                _ => "how many requests it takes to judge a node: `at_least = 20`",
            };
            let message = format!("`{}` cannot be {}", name.text, told(&value));
            self.shared.errors.push(Diagnostic::new(expr.span, message).help(wanted));
        }
        judged
    }

    /// Where a node's log files are.
    pub(super) fn log_of(&mut self, log: &'p AccessLog, carrier: &Host<'p>, node: &Node<'p>) -> Option<String> {
        let mut scope = target_scope(self.playbook, self.inventory, carrier, Some(node));
        let value = scope.now(&log.path, "the files of `access_log`", &mut self.shared.errors)?;
        let logs = Map::from([(node.name.clone(), value.clone())]);
        let args = [("time", Value::Duration(Duration::ZERO)), ("logs", Value::Map(logs))];
        let args = args.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        for error in Kind::build("settle", args).err().into_iter().flatten() {
            self.shared.errors.push(Diagnostic::new(log.path.span, format!("`access_log`: {}", error.message)));
        }
        value.as_str().map(str::to_owned)
    }

    /// Time for trouble to show itself, and then every check once more.
    pub(super) fn settle(&mut self, head: &Head, batch: usize, batches: &[Vec<usize>], parts: &[Part], time: Duration) {
        let members = || batches.get(batch).into_iter().flatten().filter_map(|at| parts.get(*at));
        let later = batches.iter().skip(batch + 1).flatten().filter_map(|at| parts.get(*at));
        let mut logs: BTreeMap<usize, Map> = members().map(|part| (part.host, Map::new())).collect();
        for part in members().chain(later) {
            if let (Some(log), Some(node)) = (&part.log, &part.target.node) {
                logs.entry(part.host).or_default().insert(node.clone(), Value::from(log.as_str()));
            }
        }
        let wait = logs.into_iter().filter_map(|(host, logs)| {
            let name = self.inventory.hosts.get(host)?.name.clone();
            let args = [("time", Value::Duration(time)), ("logs", Value::Map(logs))];
            let first = members().next().map_or_else(String::new, Part::at);
            Some(Share { host, target: Target { host: name, node: None }, steps: vec![made("settle", args, &first)] })
        });
        let again =
            members().map(|part| Share { host: part.host, target: part.target.clone(), steps: part.healthy.clone() });
        let shares = wait.chain(again).collect();
        self.lay(head, RolloutPart::Settle(batch), shares);
    }
}
