//! From a request to a run: load, check, plan for every host; all errors at once, nothing touched.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use super::batch;
use super::errors::Errors;
use super::expand::{Expander, Shared};
use super::files::Files;
use super::inventory::{self, Host, Inventory, Node};
use super::model::{Arg, Contents, HostPlan, HostRun, RolloutInfo, RunOptions, RunPlan, Stage, StageInfo, TargetPlan};
use super::scope::Scope;
use super::select::{Limit, ROLLOUT_TAG, check_set, check_tags};
use super::store::{self, Addresses};
use crate::book::View;
use crate::diagnostic::Diagnostic;
use crate::event::Target;
use crate::playbook::model::{Binding, Play, Playbook};
use crate::playbook::{self};
use crate::source::{Sources, Span};
use crate::value::{Blob, Value};

/// What to plan.
#[derive(Clone, Debug)]
pub struct PlanRequest {
    /// The playbook's path.
    pub playbook: PathBuf,
    /// `--env`
    pub env: Option<String>,
    /// `--set`, as it was typed.
    pub set: BTreeMap<String, String>,
    /// `--limit`: names or patterns (`web*`), separated by commas; `!` excludes.
    pub limit: Option<String>,
    /// `--tags`
    pub tags: Vec<String>,
    /// `--skip-tags`
    pub skip_tags: Vec<String>,
    /// A unique name for the run.
    pub run: String,
    /// How the engine runs it.
    pub options: RunOptions,
    /// What of the playbook.
    pub part: Part,
}

/// What of a playbook is planned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Part {
    /// Everything, in order.
    #[default]
    All,
    /// The rollouts alone.
    Rollouts,
    /// The rollouts alone, and what they rolled out is put back.
    PutBack {
        /// The run whose confirmed rollouts are undone, too; `None` to put back only what is not confirmed.
        undo: Option<String>,
    },
}

/// Trees of configuration up to this size travel with the plan, in bytes.
const INLINE_TREE: u64 = 64 * 1024;

/// Contents up to this length travel with the plan, in bytes: a question costs more than they do.
const INLINE: u64 = 8 * 1024;

/// Loads and checks a playbook.
///
/// # Errors
/// Every error that loading finds.
pub fn load(request: &PlanRequest, sources: &mut Sources) -> (Playbook, Vec<Diagnostic>) {
    let (path, env, set) = (request.playbook.clone(), request.env.clone(), request.set.clone());
    playbook::load(&playbook::Request { path, env, set }, sources)
}

/// Plans a loaded playbook for every host. `found` holds the errors of loading: planning goes on in spite of them, to find
/// more. Addresses of nodes come from `view`, which only answers: planning writes nowhere.
///
/// # Errors
/// Every error, those of loading included.
pub fn make<'p>(
    playbook: &'p Playbook,
    found: Vec<Diagnostic>,
    request: &PlanRequest,
    sources: &mut Sources,
    view: &mut View,
) -> Result<(RunPlan, Inventory<'p>), Vec<Diagnostic>> {
    let mut errors = Errors::from(found);
    if playbook.torn {
        return Err(errors.into_inner());
    }
    let mut addresses = Addresses { place: store::read(playbook, &playbook.set, &mut errors), view };
    let inventory = inventory::build(playbook, &playbook.set, &mut addresses, &mut errors);
    let limit = Limit::read(request.limit.as_deref(), &inventory, &mut errors);
    let mut planner = Planner {
        playbook,
        inventory: &inventory,
        limit,
        shared: Shared {
            sources,
            contents: Contents::default(),
            files: Files::default(),
            errors,
            tags: &request.tags,
            skip_tags: &request.skip_tags,
            found_tags: BTreeSet::new(),
            steps: 0,
        },
        stages: Vec::new(),
        rollouts: BTreeMap::new(),
        named: 0,
        taken: 0,
        request,
        of_host: inventory.hosts.iter().map(|_| OfHost::default()).collect(),
    };
    for (number, play) in playbook.plays.iter().enumerate() {
        planner.play(u32::try_from(number).unwrap_or(u32::MAX), play);
    }
    if let (Some(play), true) = (playbook.plays.first(), playbook.groups.is_empty()) {
        let error = Diagnostic::new(play.on.span, "there are no hosts: no `hosts` block was read");
        let help = "declare them in the playbook, or in env/NAME.fp and choose it by `--env NAME`: `hosts web { host \"web1\" }`";
        planner.shared.errors.push_inside(error.help(help));
    }
    if playbook.plays.is_empty() && planner.shared.errors.is_empty() {
        let error = Diagnostic::new(Span::NOWHERE, format!("{} has no play", request.playbook.display()));
        planner.shared.errors.push(error.help("a playbook does something in `play \"title\" on hosts.GROUP { … }`"));
    }
    if planner.shared.errors.is_empty() {
        planner.check_networks();
    }
    let Planner { shared, stages, rollouts, of_host, named, taken, .. } = planner;
    let Shared { contents, files, mut errors, found_tags, .. } = shared;
    check_tags(playbook, request, found_tags, &mut errors);
    if let (Some(limit), true, 0) = (&request.limit, named > 0 && errors.is_empty(), taken) {
        let error = Diagnostic::new(Span::NOWHERE, format!("--limit: no play runs over what `{limit}` leaves"));
        errors.push(error.help("`play \"…\" on hosts.GROUP` or `on nodes.GROUP` says what a play runs over"));
    }
    if errors.is_empty() {
        check_set(playbook, &files, &mut errors);
        check_some(playbook, request, &stages, named, &mut errors);
    }
    let errors = errors.into_inner();
    if !errors.is_empty() {
        return Err(errors);
    }
    let hosts = inventory.hosts.iter().zip(of_host).filter(|(_, of_host)| !of_host.stages.is_empty());
    let hosts = hosts.map(|(host, of_host)| {
        let blobs = inline(&of_host.stages, &contents);
        let plan = HostPlan {
            run: request.run.clone(),
            playbook: request.playbook.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            host: host.name.clone(),
            stages: of_host.stages,
            blobs,
            facts: of_host.facts,
            options: request.options,
        };
        HostRun { connection: host.connection.clone(), plan }
    });
    let run = RunPlan { hosts: hosts.collect(), stages, rollouts, contents };
    Ok((run, inventory))
}

/// A whole playbook runs over somebody, and what `--tags` chooses is not left out again by `--skip-tags`.
fn check_some(playbook: &Playbook, request: &PlanRequest, stages: &[StageInfo], named: usize, errors: &mut Errors) {
    let chosen = !request.tags.is_empty() || !request.skip_tags.is_empty();
    if let (Some(play), 0, Part::All, false) = (playbook.plays.first(), named, &request.part, chosen) {
        let error = Diagnostic::new(play.on.span, "no play runs over any host or node: every group is empty");
        errors.push_inside(error.help("`fanli hosts` lists hosts and nodes; is it the right environment?"));
    }
    if stages.is_empty() && !request.tags.is_empty() && !request.skip_tags.is_empty() {
        let error = Diagnostic::new(Span::NOWHERE, "--tags and --skip-tags leave no task");
        errors.push(
            error.help("every task that --tags chooses has a tag of --skip-tags, too, or its condition does not hold"),
        );
    }
}

#[derive(Default)]
pub(super) struct OfHost {
    pub(super) stages: Vec<Stage>,
    pub(super) next_id: u32,
    pub(super) facts: bool,
}

pub(super) struct Planner<'a, 'p> {
    pub(super) playbook: &'p Playbook,
    pub(super) inventory: &'a Inventory<'p>,
    limit: Limit,
    pub(super) shared: Shared<'a>,
    pub(super) stages: Vec<StageInfo>,
    pub(super) rollouts: BTreeMap<u32, RolloutInfo>,
    /// How many hosts and nodes the plays are over, and how many of them `--limit` leaves.
    named: usize,
    taken: usize,
    pub(super) request: &'a PlanRequest,
    pub(super) of_host: Vec<OfHost>,
}

/// What a play runs over.
#[derive(Clone, Copy)]
pub(super) enum Member {
    Host(usize),
    Node(usize),
}

impl<'p> Planner<'_, 'p> {
    /// The names of a play's head: no host and no node is known there.
    pub(super) fn play_scope(&self) -> Scope<'p> {
        let values = inventory::base_values(self.playbook, &self.inventory.set);
        let defined = inventory::definitions(self.playbook, &[], &self.inventory.set);
        Scope::new(defined, Arc::clone(&self.inventory.shared), values)
    }

    /// Whether `--tags` and `--skip-tags` let rollouts through: one is done whole or not at all.
    fn rolls_out(&self) -> bool {
        let has = |tags: &[String]| tags.iter().any(|tag| tag == ROLLOUT_TAG);
        (self.shared.tags.is_empty() || has(self.shared.tags)) && !has(self.shared.skip_tags)
    }

    fn play(&mut self, number: u32, play: &'p Play) {
        if self.request.part != Part::All && play.rollout.is_none() || play.rollout.is_some() && !self.rolls_out() {
            return;
        }
        let mut scope = self.play_scope();
        let errors = &mut self.shared.errors;
        let title = scope.now(&play.title, "a play's title", errors).map(|value| value.to_string());
        let names = scope
            .now(&play.on, "what a play runs over", errors)
            .and_then(|value| inventory::members(&value, play.on.span, errors));
        let batch = play.batch.as_ref().map(|expr| {
            let value = scope.now(expr, "`batch`", errors);
            value.and_then(|value| batch::read(&value, expr.span, errors))
        });
        // With a wrong title or batch the tasks are looked at all the same: there may be more to tell.
        let title = title.unwrap_or_default();
        let Some(names) = names else { return };
        let sizes = batch.flatten();
        let members: Vec<Member> = names.iter().filter_map(|name| self.member(name)).collect();
        self.named += names.len();
        self.taken += members.len();
        if let Some(rollout) = &play.rollout {
            return self.rollout(number, &title, &names, sizes.as_ref(), play, rollout);
        }
        let mut start = 0;
        let cuts = sizes.map_or_else(|| vec![members.len()], |sizes| sizes.cut(members.len()));
        let of = u32::try_from(cuts.len()).unwrap_or(u32::MAX);
        for (index, size) in cuts.iter().enumerate() {
            let part = members.get(start..start + size).unwrap_or(&[]);
            start += size;
            let index = u32::try_from(index + 1).unwrap_or(u32::MAX);
            let batch = play.batch.is_some().then_some((index, of));
            self.stage(number, &title, batch, part, play);
        }
    }

    fn stage(&mut self, play_number: u32, title: &str, batch: Option<(u32, u32)>, members: &[Member], play: &'p Play) {
        let number = u32::try_from(self.stages.len()).unwrap_or(u32::MAX);
        let mut targets = Vec::new();
        let mut parts: BTreeMap<usize, Vec<TargetPlan>> = BTreeMap::new();
        for member in members {
            let Some((at, plan)) = self.target(*member, play) else { continue };
            // Where tags choose none of a play's tasks the play does not take place; what is due in it stays due.
            let everything = self.shared.tags.is_empty() && self.shared.skip_tags.is_empty();
            if plan.steps.is_empty() && (!everything || plan.handlers.iter().all(|handler| handler.steps.is_empty())) {
                continue;
            }
            targets.push(plan.target.clone());
            parts.entry(at).or_default().push(plan);
        }
        if targets.is_empty() {
            return;
        }
        for (host, targets) in parts {
            if let Some(of_host) = self.of_host.get_mut(host) {
                let title = title.to_owned();
                of_host.stages.push(Stage { number, play: play_number, title, batch, rescue: false, targets });
            }
        }
        let title = title.to_owned();
        self.stages.push(StageInfo { number, play: play_number, title, batch, targets, part: None });
    }

    /// The host or node of that name, unless `--limit` leaves it out.
    pub(super) fn member(&self, name: &str) -> Option<Member> {
        let host = self.inventory.hosts.iter().position(|host| host.name == name);
        if let Some(index) = host {
            return self.limit.allows(name, None).then_some(Member::Host(index));
        }
        let index = self.inventory.nodes.iter().position(|node| node.name == name)?;
        let node = self.inventory.nodes.get(index)?;
        let carrier = self.inventory.hosts.get(node.host)?;
        self.limit.allows(name, Some(&carrier.name)).then_some(Member::Node(index))
    }

    fn target(&mut self, member: Member, play: &'p Play) -> Option<(usize, TargetPlan)> {
        let (index, node) = match member {
            Member::Host(index) => (index, None),
            Member::Node(index) => {
                let node = self.inventory.nodes.get(index)?;
                (node.host, Some(node))
            }
        };
        let host = self.inventory.hosts.get(index)?;
        let next_id = self.of_host.get(index)?.next_id;
        let scope = target_scope(self.playbook, self.inventory, host, node);
        self.shared.errors.target(node.map_or(&host.name, |node| &node.name));
        let mut expander = Expander::new(self.playbook, &mut self.shared, scope, next_id);
        expander.play(&play.body);
        let Expander { steps, handlers, next_id, scope, .. } = expander;
        self.shared.errors.no_target();
        let target = Target { host: host.name.clone(), node: node.map(|node| node.name.clone()) };
        let of_host = self.of_host.get_mut(index)?;
        of_host.next_id = next_id;
        of_host.facts |= scope.facts;
        Some((index, TargetPlan { target, steps, handlers }))
    }
}

/// The names of a host or node: variables by precedence, `host`, `node`.
pub(super) fn target_scope<'p>(
    playbook: &'p Playbook,
    inventory: &Inventory<'p>,
    host: &Host<'p>,
    node: Option<&Node<'p>>,
) -> Scope<'p> {
    let own: &[Binding] = node.map_or(&[], |node| node.vars);
    let over: Vec<&Binding> = host.vars.iter().copied().chain(own).collect();
    let defined = inventory::definitions(playbook, &over, &inventory.set);
    let mut values = host.locals.clone();
    values.extend(inventory::base_values(playbook, &inventory.set));
    values.insert("host".to_owned(), inventory::host_value(host));
    if let Some(node) = node {
        values.insert("node".to_owned(), inventory::node_value(node, &inventory.hosts));
    }
    Scope::new(defined, Arc::clone(&inventory.shared), values)
}

/// Small contents that the stages name.
fn inline(stages: &[Stage], contents: &Contents) -> BTreeMap<crate::value::Digest, Vec<u8>> {
    let mut found = BTreeMap::new();
    for step in stages.iter().flat_map(|stage| &stage.targets).flat_map(TargetPlan::all_steps) {
        for arg in step.args.values() {
            let Arg::Ready(value) = arg else { continue };
            for blob in small(value) {
                if let Ok(bytes) = contents.read(blob.digest) {
                    found.insert(blob.digest, bytes.to_vec());
                }
            }
        }
    }
    found
}

/// The contents of a value that are not worth a question of their own.
fn small(value: &Value) -> Vec<Blob> {
    match value {
        Value::Blob(blob) if blob.len <= INLINE => vec![*blob],
        Value::Map(map) => {
            let blob = |value: &Value| match value {
                Value::Blob(blob) => Some(*blob),
                _ => None,
            };
            let blobs: Vec<Blob> = map.values().filter_map(blob).collect();
            if blobs.iter().map(|blob| blob.len).sum::<u64>() <= INLINE_TREE { blobs } else { Vec::new() }
        }
        _ => Vec::new(),
    }
}
