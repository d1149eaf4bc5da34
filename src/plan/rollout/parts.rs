//! What each node of a rollout has to do: its directories of configuration, and the steps of all sections.

use std::collections::BTreeMap;
use std::time::Duration;

use super::super::batch::Size;
use super::super::errors::Errors;
use super::super::expand::{Expander, Shared, told};
use super::super::files::Place;
use super::super::late::Late;
use super::super::make::{Planner, target_scope};
use super::super::model::Step;
use super::super::scope::{Known, Scope};
use super::super::{Host, Node, inventory};
use super::REVERTED;
use crate::diagnostic::Diagnostic;
use crate::event::Target;
use crate::playbook::GENERATION;
use crate::playbook::model::{ConfigTree, Drain, Rollout, StepDef, Task};
use crate::resource::kinds::Kind;
use crate::syntax::ast::Expr;
use crate::value::{Tree, TreeEntry, TreeEntryKind, Value};

/// How many generations a slot keeps by default, the current one with it.
const KEEP: i64 = 5;

/// How many nodes may be out of traffic at once when the playbook does not say.
const MAX_DOWN: Size = Size::Percent(50);

/// The settings of a rollout.
pub(super) struct Settings {
    pub(super) budget: usize,
    pub(super) keep: i64,
    pub(super) settle: Duration,
    pub(super) within: Option<Duration>,
    /// How many nodes may be out of traffic at once.
    pub(super) max_down: Size,
}

/// One directory of configuration of one node.
pub(super) struct Slot {
    pub(super) path: String,
    pub(super) tree: Tree,
    pub(super) generation: String,
    pub(super) trial: Option<Step>,
    pub(super) at: String,
}

/// What one node has to do.
pub(super) struct Part {
    pub(super) host: usize,
    pub(super) target: Target,
    pub(super) slots: Vec<Slot>,
    pub(super) change: Vec<Step>,
    pub(super) reload: Vec<Step>,
    pub(super) healthy: Vec<Step>,
    /// The same two after it was put back: what was there before is known to the host alone.
    pub(super) reload_back: Vec<Step>,
    pub(super) healthy_back: Vec<Step>,
    pub(super) drain: Vec<(usize, Vec<Step>)>,
    /// The files that its requests are written to.
    pub(super) log: Option<String>,
}

impl Slot {
    /// Its files, as the kind `slot` takes them.
    pub(super) fn files(&self) -> Value {
        files_of(&self.tree)
    }

    /// The permissions of those that have others than 0644.
    pub(super) fn modes(&self) -> Value {
        let special = |entry: &TreeEntry| match entry.kind {
            TreeEntryKind::File { mode, .. } if mode != 0o644 => Some((entry.path.clone(), Value::Mode(mode))),
            _ => None,
        };
        Value::Map(self.tree.entries.iter().filter_map(special).collect())
    }
}

/// The declared permissions of a configuration's files, by path.
fn modes(value: Value, expr: &Expr, errors: &mut Errors) -> Option<BTreeMap<String, u32>> {
    let Value::Map(map) = value else {
        let error = Diagnostic::new(expr.span, format!("`modes` is a map, not {}", value.type_name()));
        errors.push(error.help("permissions by path: `modes = { \"ssl/site.key\" = 0600 }`"));
        return None;
    };
    let mut modes = BTreeMap::new();
    for (path, value) in map {
        let Value::Mode(mode) = value else {
            let message = format!("`modes`: `{path}`: expected a mode such as 0600, found {}", value.type_name());
            errors.push(Diagnostic::new(expr.span, message));
            return None;
        };
        modes.insert(path, mode);
    }
    Some(modes)
}

fn files_of(tree: &Tree) -> Value {
    let file = |entry: &TreeEntry| match entry.kind {
        TreeEntryKind::File { blob, .. } => Some((entry.path.clone(), Value::Blob(blob))),
        _ => None,
    };
    Value::Map(tree.entries.iter().filter_map(file).collect())
}

impl Part {
    /// Where its first directory is declared.
    pub(super) fn at(&self) -> String {
        self.slots.first().map_or_else(String::new, |slot| slot.at.clone())
    }
}

impl<'p> Planner<'_, 'p> {
    pub(super) fn rollout_settings(&mut self, rollout: &Rollout) -> Option<Settings> {
        let mut settings = Settings { budget: 0, keep: KEEP, settle: Duration::ZERO, within: None, max_down: MAX_DOWN };
        let mut scope = self.play_scope();
        let mut sound = true;
        for (name, expr) in &rollout.settings {
            let Some(value) = scope.now(expr, &format!("`{}`", name.text), &mut self.shared.errors) else {
                sound = false;
                continue;
            };
            let fits = match (name.text.as_str(), &value) {
                (_, Value::Null) => true,
                ("budget", Value::Int(count)) => usize::try_from(*count).map(|count| settings.budget = count).is_ok(),
                ("keep", Value::Int(count)) if (2..=100).contains(count) => {
                    settings.keep = *count;
                    true
                }
                ("max_down", value) => Size::read(value).map(|size| settings.max_down = size).is_some(),
                ("settle", Value::Duration(time)) => {
                    settings.settle = *time;
                    true
                }
                ("within", Value::Duration(time)) if *time >= Duration::from_secs(10) => {
                    settings.within = Some(*time);
                    true
                }
                _ => false,
            };
            if !fits {
                let wanted = match name.text.as_str() {
                    "budget" => "how many nodes may be sick or fail in the whole run: `budget = 0`",
                    "keep" => "how many generations a host keeps, from 2 to 100: `keep = 5`",
                    "max_down" => "how many nodes may be out of traffic at once: `max_down = 25%`",
                    "settle" => "how long a batch must stay well before the next: `settle = 30s`",
                    _ => "after which time the hosts put it back by themselves, 10s at least: `within = 10m`",
                };
                let message = format!("`{}` cannot be {}", name.text, told(&value));
                self.shared.errors.push(Diagnostic::new(expr.span, message).help(wanted));
                sound = false;
            }
        }
        sound.then_some(settings)
    }

    /// The hosts that a balancer runs on, by place. `--limit` does not leave them out: they only hear of nodes that take part.
    pub(super) fn balancers(&mut self, drain: &Drain) -> Vec<usize> {
        let mut scope = self.play_scope();
        let names = scope
            .now(&drain.on, "where the balancer runs", &mut self.shared.errors)
            .and_then(|value| inventory::members(&value, drain.on.span, &mut self.shared.errors));
        let place = |name: &String| self.inventory.hosts.iter().position(|host| host.name == *name);
        let found: Vec<(String, Option<usize>)> =
            names.unwrap_or_default().into_iter().map(|name| (name.clone(), place(&name))).collect();
        for (name, _) in found.iter().filter(|(_, place)| place.is_none()) {
            let error = Diagnostic::new(drain.on.span, format!("`drain` runs on hosts, and `{name}` is a node"));
            self.shared.errors.push(error.help("name the hosts whose balancer is told: `drain on hosts.balancers`"));
        }
        found.into_iter().filter_map(|(_, place)| place).collect()
    }

    /// One node's share: its directories, and the steps of all sections.
    pub(super) fn part(&mut self, place: usize, rollout: &'p Rollout, balancers: &[usize]) -> Option<Part> {
        let node = self.inventory.nodes.get(place)?;
        let (host, carrier) = (node.host, self.inventory.hosts.get(node.host)?);
        self.shared.errors.target(&node.name);
        // A rollout is done whole or not at all: `--tags` chose it as one.
        let tags = (std::mem::take(&mut self.shared.tags), std::mem::take(&mut self.shared.skip_tags));
        let slots: Vec<Slot> = rollout.configs.iter().filter_map(|config| self.slot(config, carrier, node)).collect();
        let generation = slots.first().map(|slot| Known::Ready(Value::from(slot.generation.as_str())));
        let before = slots.first().map(|_| Known::Late(Late::field(REVERTED, "current")));
        let section = |planner: &mut Self, on: usize, body: &'p [Task], generation: &Option<Known>, given| {
            let Some(on_host) = planner.inventory.hosts.get(on) else { return Vec::new() };
            let mut scope = target_scope(planner.playbook, planner.inventory, on_host, Some(node));
            if let Some(generation) = generation {
                scope.register(REVERTED);
                scope.bind(GENERATION, generation.clone());
            }
            planner.section(scope, on, body, given)
        };
        let [mut change, reload, healthy] = [&rollout.change, &rollout.reload, &rollout.healthy]
            .map(|body| section(self, host, body, &generation, None));
        change.iter_mut().for_each(|step| step.in_rollout = true);
        let [reload_back, healthy_back] =
            [&rollout.reload, &rollout.healthy].map(|body| section(self, host, body, &before, None));
        let log = rollout.access_log.as_ref().and_then(|log| self.log_of(log, carrier, node));
        let mut drain = Vec::new();
        if let Some(def) = &rollout.drain {
            for balancer in balancers {
                // The state that it has while the batch is changed; before and after it is told the other one.
                let given = Some(("state", Value::from("drained")));
                let steps = section(self, *balancer, &def.body, &generation, given);
                if let Some(other) = steps.iter().find(|step| step.kind != "backend") {
                    let error = Diagnostic::new(def.span, format!("`{}` cannot stand in `drain`", other.kind));
                    self.shared
                        .errors
                        .push(error.help("it holds `backend` alone, which fanli takes out and puts back"));
                }
                drain.push((*balancer, steps));
            }
        }
        (self.shared.tags, self.shared.skip_tags) = tags;
        self.shared.errors.no_target();
        let target = Target { host: carrier.name.clone(), node: Some(node.name.clone()) };
        Some(Part { host, target, slots, change, reload, healthy, reload_back, healthy_back, drain, log })
    }

    /// Unrolls a section for one node.
    fn section(
        &mut self,
        scope: Scope<'p>,
        on: usize,
        body: &'p [Task],
        given: Option<(&'static str, Value)>,
    ) -> Vec<Step> {
        let mut expander = Expander::new(self.playbook, &mut self.shared, scope, 0);
        if let Some((name, value)) = given {
            expander = expander.give(name, value);
        }
        expander.play(body);
        let Expander { steps, scope, .. } = expander;
        if let Some(of_host) = self.of_host.get_mut(on) {
            of_host.facts |= scope.facts;
        }
        steps
    }

    fn slot(&mut self, config: &'p ConfigTree, carrier: &Host<'p>, node: &Node<'p>) -> Option<Slot> {
        let scope = &mut target_scope(self.playbook, self.inventory, carrier, Some(node));
        let path = scope.now(&config.path, "the directory of `config`", &mut self.shared.errors)?;
        let Value::Str(path) = path else {
            let error = Diagnostic::new(config.path.span, format!("`{path}` is no path"));
            self.shared.errors.push(error.help("write it in quotes: `config \"/data/conf\" { … }`"));
            return None;
        };
        let setting = |name: &str| config.settings.iter().find(|(known, _)| known.text == name).map(|(_, expr)| expr);
        let from: &Expr = setting("from")?;
        let folder = scope.now(from, "`from`", &mut self.shared.errors)?;
        let Value::Str(folder) = folder else {
            let error = Diagnostic::new(from.span, format!("`from`: `{folder}` is no folder"));
            self.shared.errors.push(error.help("a folder of templates beside the playbook, in quotes"));
            return None;
        };
        let modes = match setting("modes") {
            Some(expr) => modes(scope.now(expr, "`modes`", &mut self.shared.errors)?, expr, &mut self.shared.errors)?,
            None => BTreeMap::new(),
        };
        let Shared { sources, contents, files, errors, .. } = &mut self.shared;
        let mut place = Place { playbook: self.playbook, sources, contents, span: from.span };
        let (tree, generation) = files.generation(&folder, &modes, &mut place, scope, errors)?;
        let at = self.shared.sources.line(config.span);
        let slot_args = [
            ("path", Value::from(path.as_str())),
            ("generation", Value::from(generation.as_str())),
            ("files", files_of(&tree)),
        ];
        let args = slot_args.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        for error in Kind::build("slot", args).err().into_iter().flatten() {
            self.shared.errors.push(Diagnostic::new(config.path.span, format!("`config`: {}", error.message)));
        }
        let inside = match setting("inside") {
            Some(expr) => scope.now(expr, "`inside`", &mut self.shared.errors),
            None => None,
        };
        let trial =
            config.trial.as_ref().and_then(|trial| self.trial(trial, (carrier, node), (&path, &generation), inside));
        Some(Slot { path, tree, generation, trial, at })
    }

    /// The trial of a node's generation, as it was declared, with what the rollout knows filled in.
    fn trial(
        &mut self,
        def: &'p StepDef,
        (carrier, node): (&Host<'p>, &Node<'p>),
        (path, generation): (&str, &str),
        inside: Option<Value>,
    ) -> Option<Step> {
        let at = self.shared.sources.line(def.span);
        let mut scope = target_scope(self.playbook, self.inventory, carrier, Some(node));
        scope.bind(GENERATION, Known::Ready(Value::from(generation)));
        let mut expander = Expander::new(self.playbook, &mut self.shared, scope, 0);
        let given = [
            ("path", Some(Value::from(path))),
            ("generation", Some(Value::from(generation))),
            ("like", Some(Value::from(node.name.as_str()))),
            ("inside", inside),
        ];
        let step = expander.filled(def, given.into_iter().filter_map(|(name, value)| Some((name, value?))), at);
        let facts = expander.scope.facts;
        if let Some(of_host) = self.of_host.get_mut(node.host) {
            of_host.facts |= facts;
        }
        step
    }
}
