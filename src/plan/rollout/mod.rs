//! A rollout as stages: prepare, then for each batch drain, change, ready, settle; confirm; and the way back.
//!
//! Nodes of one host that mount the same directory are a unit: they go together. Everything that could go wrong on the way back
//! is planned before the first connection, like everything else.

mod images;
mod logs;
mod parts;
mod units;

use std::collections::{BTreeMap, BTreeSet};

use self::parts::{Part, Settings, Slot};
use self::units::{cut, reverts, units};
use super::batch::Sizes;
use super::late::Late;
use super::make::{Member, Planner};
use super::model::{Arg, RolloutInfo, RolloutPart, Stage, StageInfo, Step, TargetPlan};
use crate::diagnostic::Diagnostic;
use crate::event::Target;
use crate::playbook::model::{Play, Rollout};
use crate::resource::ArgError;
use crate::resource::kinds::Kind;
use crate::source::Span;
use crate::value::{Map, Value};

/// The result that tells whether a node runs; no playbook can have a name like that.
const STANDING: &str = "@standing";
/// The same for what was put back.
const REVERTED: &str = "@reverted";

/// Which way the traffic goes.
#[derive(Clone, Copy)]
enum Way {
    Out,
    In,
}

impl<'p> Planner<'_, 'p> {
    /// Plans a rollout over nodes; `names` are all of its nodes, whatever `--limit` says.
    pub(super) fn rollout(
        &mut self,
        number: u32,
        title: &str,
        names: &[String],
        sizes: Option<&Sizes>,
        play: &'p Play,
        rollout: &'p Rollout,
    ) {
        let settings = self.rollout_settings(rollout);
        let balancers = rollout.drain.as_ref().map_or_else(Vec::new, |drain| self.balancers(drain));
        let mut parts = Vec::new();
        for name in names {
            let Some(node) = self.inventory.nodes.iter().position(|node| node.name == *name) else {
                let error = Diagnostic::new(play.on.span, format!("a rollout runs over nodes, and `{name}` is a host"));
                self.shared.errors.push(error.help("`rollout \"…\" on nodes.GROUP { … }`; hosts have plays"));
                return;
            };
            parts.extend(self.part(node, rollout, &balancers));
        }
        self.refuse_unlike(&parts, rollout.span);
        self.refuse_one_way(&parts, settings.as_ref().is_some_and(|one| one.within.is_some()), rollout.span);
        // A tree is tried once for all who share it.
        let mut tried: BTreeSet<(usize, String)> = BTreeSet::new();
        for part in &mut parts {
            for slot in &mut part.slots {
                if !tried.insert((part.host, slot.path.clone())) {
                    slot.trial = None;
                }
            }
        }
        let Some(settings) = settings else { return };
        if let Some(log) = rollout.access_log.as_ref().filter(|_| settings.settle.is_zero()) {
            let error = Diagnostic::new(log.span, "access logs are read while a batch settles, and it does not");
            self.shared.errors.push(error.help("say for how long: `settle = 30s`"));
        }
        let taken: Vec<bool> = parts.iter().map(|part| self.takes_part(&part.target)).collect();
        let units = units(&parts);
        self.refuse_torn_units(&units, &parts, &taken, play.on.span);
        let units: Vec<Vec<usize>> =
            units.into_iter().filter(|unit| unit.iter().all(|at| taken.get(*at) == Some(&true))).collect();
        if units.is_empty() {
            return;
        }
        // A rollout that takes nodes out of traffic or makes them anew leaves enough of them; a graceful reload takes none away.
        let takes_down = rollout.drain.is_some() || !rollout.change.is_empty();
        let most = if takes_down { settings.max_down.of(parts.len()) } else { parts.len() };
        let warnings = self.shared_by_all(&units, &parts, title);
        let put_back = matches!(self.request.part, super::Part::PutBack { .. });
        // Nodes that share a directory change together, so that none of them can be mended before the others.
        let mends = !rollout.change.is_empty() && rollout.configs.is_empty() && !put_back;
        let all = units.iter().flatten().copied().collect();
        let mending = mends.then_some(all);
        let batches: Vec<Vec<usize>> = mending.into_iter().chain(cut(units, sizes, most)).collect();
        let name_of = |at: &usize| parts.get(*at).map(|part| part.target.to_string());
        let info = RolloutInfo {
            title: title.to_owned(),
            batches: batches.iter().map(|batch| batch.iter().filter_map(name_of).collect()).collect(),
            mends,
            warnings,
            budget: settings.budget,
            judged: rollout.access_log.as_ref().map(|log| self.judged(log)),
            changes: !rollout.change.is_empty(),
            stays: images::stays(&parts),
            put_back,
            within: settings.within,
        };
        self.rollouts.insert(number, info);
        let head = Head { number, title, mends, batches: batches.len(), span: rollout.span };
        self.stages_of(&head, &batches, &parts, &settings);
    }

    fn stages_of(&mut self, head: &Head, batches: &[Vec<usize>], parts: &[Part], settings: &Settings) {
        let all: Vec<usize> = batches.iter().skip(usize::from(head.mends)).flatten().copied().collect();
        let undo = match &self.request.part {
            super::Part::PutBack { undo } => undo.as_deref().map(Value::from),
            super::Part::All | super::Part::Rollouts => None,
        };
        let run = Value::from(self.request.run.as_str());
        self.rollout_stage(head, RolloutPart::Prepare, parts, &all, |part| {
            let stage = |slot: &Slot| {
                let args = [
                    ("path", Value::from(slot.path.as_str())),
                    ("generation", Value::from(slot.generation.as_str())),
                    ("files", slot.files()),
                    ("modes", slot.modes()),
                    ("keep", Value::Int(settings.keep)),
                ];
                made("slot", args, &slot.at)
            };
            let mut standing = standing(part);
            standing.register = Some(STANDING.to_owned());
            let [runs, needs] = ["running", "pending"].map(|field| Late::field_of(STANDING, field, &standing.at));
            let trial = |slot: &Slot| {
                let mut trial = slot.trial.clone()?;
                trial.when.push(needs.clone());
                // A trial is like its node; before there is one, only an image that is named can be tried.
                if !trial.args.contains_key("image") {
                    trial.when.push(runs.clone());
                }
                Some(trial)
            };
            let mut steps: Vec<Step> = part.slots.iter().map(stage).chain([standing]).collect();
            steps.extend(part.slots.iter().filter_map(trial));
            let mut all = vec![(part.host, steps)];
            all.extend(part.drain.iter().filter_map(|(host, drains)| Some((*host, vec![left_out(part, drains)?]))));
            all
        });
        self.traffic(head, RolloutPart::GiveBack, parts, &all, Way::In);
        let reverts = reverts(parts, head.title);
        for (batch, members) in batches.iter().enumerate() {
            self.traffic(head, RolloutPart::Drain(batch), parts, members, Way::Out);
            self.rollout_stage(head, RolloutPart::Change(batch), parts, members, |part| {
                let mut steps: Vec<Step> = Vec::new();
                for slot in &part.slots {
                    let args = [
                        ("path", Some(Value::from(slot.path.as_str()))),
                        ("generation", Some(Value::from(slot.generation.as_str()))),
                        ("rollout", Some(Value::from(head.title))),
                        ("within", settings.within.map(Value::Duration)),
                        ("revert", settings.within.and_then(|_| reverts.get(&(part.host, slot.path.clone())).cloned())),
                    ];
                    let args = args.into_iter().filter_map(|(name, value)| Some((name, value?)));
                    steps.push(made("switch", args, &slot.at));
                }
                steps.extend(images::formers(part, head.title, "kept", &[]));
                steps.extend(part.change.iter().cloned());
                steps.extend(where_it_runs(part, &part.reload, &part.healthy));
                vec![(part.host, steps)]
            });
            self.traffic(head, RolloutPart::Ready(batch), parts, members, Way::In);
            if !settings.settle.is_zero() {
                self.settle(head, batch, batches, parts, settings.settle);
            }
        }
        self.rollout_stage(head, RolloutPart::Confirm, parts, &all, |part| {
            let confirm = |slot: &Slot| {
                let args = [
                    ("path", Value::from(slot.path.as_str())),
                    ("generation", Value::from(slot.generation.as_str())),
                    ("rollout", Value::from(head.title)),
                    ("run", run.clone()),
                    ("keep", Value::Int(settings.keep)),
                ];
                made("confirm", args, &slot.at)
            };
            let more = [("run", Some(run.clone())), ("keep", Some(Value::Int(settings.keep)))];
            let formers = images::formers(part, head.title, "confirmed", &more);
            vec![(part.host, part.slots.iter().map(confirm).chain(formers).collect())]
        });
        // What failed last is out of traffic already: it goes first.
        for (batch, members) in batches.iter().enumerate().rev() {
            self.traffic(head, RolloutPart::DrainBack(batch), parts, members, Way::Out);
            self.rollout_stage(head, RolloutPart::Back(batch), parts, members, |part| {
                let revert = |slot: &Slot| {
                    let args = [
                        ("path", Some(Value::from(slot.path.as_str()))),
                        ("rollout", Some(Value::from(head.title))),
                        ("undo", undo.clone()),
                    ];
                    made("revert", args.into_iter().filter_map(|(name, value)| Some((name, value?))), &slot.at)
                };
                let mut steps: Vec<Step> = part.slots.iter().map(revert).collect();
                if let Some(first) = steps.first_mut() {
                    first.register = Some(REVERTED.to_owned());
                }
                let rest = where_it_runs(part, &part.reload_back, &part.healthy_back);
                steps.extend(images::back(part, head.title, undo.as_ref(), rest));
                vec![(part.host, steps)]
            });
            self.traffic(head, RolloutPart::ReadyBack(batch), parts, members, Way::In);
        }
    }

    /// One stage of a rollout over some of its nodes.
    fn rollout_stage(
        &mut self,
        head: &Head,
        part: RolloutPart,
        parts: &[Part],
        members: &[usize],
        steps: impl Fn(&Part) -> Vec<(usize, Vec<Step>)>,
    ) {
        let mut shares = Vec::new();
        for member in members.iter().filter_map(|at| parts.get(*at)) {
            for (host, steps) in steps(member) {
                let Some(carrier) = self.inventory.hosts.get(host) else { continue };
                let target = Target { host: carrier.name.clone(), node: member.target.node.clone() };
                shares.push(Share { host, target, steps });
            }
        }
        self.lay(head, part, shares);
    }

    /// A stage of the run, of what everybody in it has to do.
    fn lay(&mut self, head: &Head, part: RolloutPart, shares: Vec<Share>) {
        let number = u32::try_from(self.stages.len()).unwrap_or(u32::MAX);
        let batch = match part {
            RolloutPart::Prepare | RolloutPart::GiveBack | RolloutPart::Confirm => None,
            RolloutPart::Drain(batch)
            | RolloutPart::Change(batch)
            | RolloutPart::Ready(batch)
            | RolloutPart::Settle(batch)
            | RolloutPart::DrainBack(batch)
            | RolloutPart::Back(batch)
            | RolloutPart::ReadyBack(batch) => head.number_of(batch),
        };
        // Who goes back into traffic, and who is put back, is for the coordinator to say: it knows who is well.
        let rescue = matches!(
            part,
            RolloutPart::Ready(_) | RolloutPart::DrainBack(_) | RolloutPart::Back(_) | RolloutPart::ReadyBack(_)
        );
        let (mut targets, mut of_hosts): (Vec<Target>, BTreeMap<usize, Vec<TargetPlan>>) = Default::default();
        for Share { host, target, mut steps } in shares {
            let Some(of_host) = self.of_host.get_mut(host).filter(|_| !steps.is_empty()) else { continue };
            for step in &mut steps {
                for error in unfit(step) {
                    let message = format!("`{}` of the rollout: `{}`: {}", step.kind, error.field, error.message);
                    self.shared.errors.push(Diagnostic::new(head.span, message));
                }
                step.id = of_host.next_id;
                of_host.next_id += 1;
            }
            targets.push(target.clone());
            of_hosts.entry(host).or_default().push(TargetPlan { target, steps, handlers: Vec::new() });
        }
        if targets.is_empty() {
            return;
        }
        let (play, title) = (head.number, head.title.to_owned());
        for (host, targets) in of_hosts {
            if let Some(of_host) = self.of_host.get_mut(host) {
                of_host.stages.push(Stage { number, play, title: title.clone(), batch, rescue, targets });
            }
        }
        self.stages.push(StageInfo { number, play, title, batch, targets, part: Some(part) });
    }

    /// The balancers are told.
    fn traffic(&mut self, head: &Head, stage: RolloutPart, parts: &[Part], members: &[usize], way: Way) {
        self.rollout_stage(head, stage, parts, members, |part| {
            let told = |(host, steps): &(usize, Vec<Step>)| {
                let mut steps = steps.clone();
                for step in &mut steps {
                    let state = if matches!(way, Way::Out) { "drained" } else { "ready" };
                    step.args.insert("state".to_owned(), Arg::Ready(Value::from(state)));
                    if matches!(way, Way::Out) {
                        step.args.insert("rollout".to_owned(), Arg::Ready(Value::from(head.title)));
                    }
                    // What is put back is as it was before: whoever was not well then is the balancer's to let in.
                    if matches!(stage, RolloutPart::ReadyBack(_)) {
                        step.args.insert("in_any_case".to_owned(), Arg::Ready(Value::Bool(true)));
                    }
                }
                (*host, steps)
            };
            part.drain.iter().map(told).collect()
        });
    }

    /// Nodes that share a directory see the same files.
    fn refuse_unlike(&mut self, parts: &[Part], span: Span) {
        let mut of_path: BTreeMap<(usize, &str), (&str, &Target)> = BTreeMap::new();
        for part in parts {
            for slot in &part.slots {
                let first = of_path.entry((part.host, &slot.path)).or_insert((&slot.generation, &part.target));
                if first.0 != slot.generation {
                    let message =
                        format!("{} and {} share {}, and their files differ", first.1, part.target, slot.path);
                    let error = Diagnostic::new(span, message);
                    self.shared.errors.push(error.help(
                        "its templates use what differs from node to node, such as `node.name`: give each node a directory of its own",
                    ));
                    return;
                }
            }
        }
    }

    /// A slot is all of its nodes': one of them cannot be left out.
    fn refuse_torn_units(&mut self, units: &[Vec<usize>], parts: &[Part], taken: &[bool], span: Span) {
        for unit in units {
            let names = |wanted: bool| -> Vec<String> {
                let of = |at: &&usize| taken.get(**at) == Some(&wanted);
                unit.iter().filter(of).filter_map(|at| Some(parts.get(*at)?.target.to_string())).collect()
            };
            let (inside, outside) = (names(true), names(false));
            if let (Some(inside), Some(outside)) = (inside.first(), outside.first()) {
                let message = format!("--limit leaves out {outside}, which mounts the same configuration as {inside}");
                self.shared.errors.push(Diagnostic::new(span, message).help("name both, or neither"));
            }
        }
    }

    /// Returns a warning for each host all of whose nodes, two or more, mount one directory: they change together, whatever the
    /// batches are.
    fn shared_by_all(&self, units: &[Vec<usize>], parts: &[Part], title: &str) -> Vec<String> {
        let mut on_host: BTreeMap<usize, usize> = BTreeMap::new();
        for part in parts {
            *on_host.entry(part.host).or_default() += 1;
        }
        let warning = |unit: &Vec<usize>| {
            let part = unit.first().and_then(|at| parts.get(*at))?;
            let slot = part.slots.first()?;
            let host = self.inventory.hosts.get(part.host)?;
            (unit.len() > 1 && on_host.get(&part.host) == Some(&unit.len())).then(|| {
                format!(
                    "rollout \"{title}\": all {} nodes of {} mount one directory, {}, and change together; \
                     `node.local_index` in its path makes several copies",
                    unit.len(),
                    host.name,
                    slot.path
                )
            })
        };
        units.iter().filter_map(warning).collect()
    }

    fn takes_part(&self, target: &Target) -> bool {
        self.member(&target.to_string()).is_some_and(|member| matches!(member, Member::Node(_)))
    }
}

/// What one target has to do in a stage, on its host.
struct Share {
    host: usize,
    target: Target,
    steps: Vec<Step>,
}

/// What the stages of a rollout share.
struct Head<'a> {
    number: u32,
    title: &'a str,
    /// Whether the first batch is for nodes that are mended.
    mends: bool,
    batches: usize,
    span: Span,
}

impl Head<'_> {
    /// Returns the number of a batch, from 1, and how many there are; `None` for the one that mends.
    fn number_of(&self, batch: usize) -> Option<(u32, u32)> {
        let before = usize::from(self.mends);
        let number = (batch + 1).checked_sub(before).filter(|number| *number > 0)?;
        let from = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        Some((from(number), from(self.batches.saturating_sub(before))))
    }
}

/// Looks whether a node needs anything, and whether it is well before anything is done to it.
fn standing(part: &Part) -> Step {
    let slots = part.slots.iter().map(|slot| (slot.path.clone(), Value::from(slot.generation.as_str()))).collect();
    let url = part.healthy.iter().find(|step| step.kind == "http").and_then(|step| match step.args.get("url") {
        Some(Arg::Ready(url)) => Some(url.clone()),
        _ => None,
    });
    let tasks = images::looked_at(part);
    let args = [
        ("container", part.target.node.as_deref().map(Value::from)),
        ("slots", Some(Value::Map(slots))),
        ("changes", Some(Value::Bool(tasks.is_none()))),
        ("url", url),
    ];
    let mut step = made("standing", args.into_iter().filter_map(|(name, value)| Some((name, value?))), &part.at());
    step.args.extend(tasks.map(|tasks| ("tasks".to_owned(), tasks)));
    step
}

/// Looks whether an earlier run has left a node out of traffic; `None` where nobody can know its servers before the run.
fn left_out(part: &Part, drains: &[Step]) -> Option<Step> {
    let backends = drains.iter().filter(|step| step.kind == "backend");
    let servers: Vec<Value> = backends.filter_map(|step| Arg::all_ready(&step.args).map(Value::Map)).collect();
    let node = part.target.node.as_deref().filter(|_| !servers.is_empty())?;
    Some(made("left_out", [("node", Value::from(node)), ("servers", Value::List(servers))], &part.at()))
}

/// What makes a node load what is there, and shows that it is well. A node that does not run yet needs neither: it is
/// started later, with what is there by then.
fn where_it_runs(part: &Part, reload: &[Step], healthy: &[Step]) -> Vec<Step> {
    let steps = reload.iter().chain(healthy).cloned();
    if !part.change.is_empty() {
        return steps.collect();
    }
    let mut standing = standing(part);
    standing.register = Some(STANDING.to_owned());
    let runs = Late::field_of(STANDING, "running", &standing.at);
    let guarded = steps.map(|mut step| {
        step.when.push(runs.clone());
        step
    });
    [standing].into_iter().chain(guarded).collect()
}

/// What is wrong with the arguments of a step that stands in no playbook: a setting that its kind refuses.
fn unfit(step: &Step) -> Vec<ArgError> {
    if !["slot", "switch", "confirm", "revert", "settle", "standing", "left_out", "former"]
        .contains(&step.kind.as_str())
    {
        return Vec::new();
    }
    Kind::build(&step.kind, Arg::those_ready(&step.args)).err().unwrap_or_default()
}

/// A step that stands in no playbook.
fn made<'a>(kind: &str, args: impl IntoIterator<Item = (&'a str, Value)>, at: &str) -> Step {
    let args: Map = args.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    let title = ["path", "container", "node", "time"].iter().find_map(|name| args.get(*name));
    let title = Value::Str(title.map_or_else(|| kind.to_owned(), ToString::to_string));
    Step { at: at.to_owned(), in_rollout: true, ..Step::new(kind, title, args) }
}
