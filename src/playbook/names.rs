//! Every name that is used must be bound somewhere: in branches that are not taken, too.

use std::collections::{BTreeMap, BTreeSet};

use super::model::{Binding, Common, HostItem, Playbook, Rollout, StepDef, Task};
use super::tasks::misfit;
use crate::diagnostic::{Diagnostic, nearest};
use crate::expr::{FreeName, filter_names, free_names, test_names};
use crate::resource::{ParamType, Schema};
use crate::source::Sources;
use crate::syntax::ast::{Expr, ExprKind, Quote, TextPart};
use crate::system::facts::fact_names;

/// What `node.` holds.
pub const NODE_FIELDS: [&str; 7] = ["address", "host", "index", "local_index", "name", "network", "port"];

/// What `host.` holds.
pub const HOST_FIELDS: [&str; 2] = ["address", "name"];

/// What a rollout's templates and sections know the configuration by: its generation.
pub const GENERATION: &str = "generation";

/// What every result holds.
pub const RESULT_FIELDS: [&str; 3] = ["changed", "failed", "skipped"];

/// Checks every name of a playbook; `set` are the names that the command line binds. Gives every name besides that the playbook declares
/// or reads.
pub(super) fn check(
    playbook: &Playbook,
    set: &BTreeSet<String>,
    sources: &Sources,
) -> (Vec<Diagnostic>, BTreeSet<String>) {
    let params = playbook.roles.values().flat_map(|role| &role.params).map(|param| param.name.text.clone());
    let mut checker = Checker {
        playbook,
        sources,
        globals: globals(playbook, set),
        results: results(playbook),
        names: globals(playbook, &BTreeSet::new()).into_iter().chain(params).collect(),
        errors: Vec::new(),
    };
    checker.settings();
    for play in &playbook.plays {
        let mut scope = Scope::new(true, true);
        checker.expr(&play.title, &Scope::new(false, false));
        checker.expr(&play.on, &Scope::new(false, false));
        if let Some(batch) = &play.batch {
            checker.expr(batch, &Scope::new(false, false));
        }
        checker.body(&play.body, &mut scope);
        if let Some(rollout) = &play.rollout {
            checker.rollout(rollout);
        }
    }
    for role in playbook.roles.values() {
        let mut scope = Scope::new(true, true);
        scope.locals.extend(role.params.iter().map(|param| param.name.text.clone()));
        for default in role.params.iter().filter_map(|param| param.default.as_ref()) {
            checker.expr(default, &scope);
        }
        checker.body(&role.body, &mut scope);
    }
    (checker.errors, checker.names)
}

/// The names of all results.
fn results(playbook: &Playbook) -> BTreeSet<String> {
    fn collect(body: &[Task], found: &mut BTreeSet<String>) {
        for task in body {
            match task {
                Task::Step(step) => found.extend(step.register.iter().map(|name| name.text.clone())),
                Task::For { body, .. } | Task::When { body, .. } | Task::Handler { body, .. } => collect(body, found),
                Task::Role(_) | Task::Let(_) => {}
            }
        }
    }
    let mut found = BTreeSet::new();
    let sections = playbook.plays.iter().filter_map(|play| play.rollout.as_deref()).flat_map(Rollout::bodies);
    let bodies = playbook.plays.iter().map(|play| &play.body).chain(sections);
    let bodies = bodies.chain(playbook.roles.values().map(|role| &role.body));
    bodies.for_each(|body| collect(body, &mut found));
    found
}

/// Variables that are bound in any layer, on any host.
fn globals(playbook: &Playbook, set: &BTreeSet<String>) -> BTreeSet<String> {
    let mut names: BTreeSet<String> = set.clone();
    names.extend(playbook.vars.iter().map(|var| var.name.text.clone()));
    let mut bind = |vars: &[Binding]| names.extend(vars.iter().map(|(name, _)| name.text.clone()));
    for group in &playbook.groups {
        bind(&group.vars);
        host_vars(&group.items, &mut bind);
    }
    for group in &playbook.nodes {
        bind(&group.vars);
    }
    names
}

fn host_vars(items: &[HostItem], bind: &mut impl FnMut(&[Binding])) {
    for item in items {
        match item {
            HostItem::Host { vars, .. } => bind(vars),
            HostItem::For { body, .. } => host_vars(body, bind),
        }
    }
}

/// The names that are bound at one place besides the globals.
#[derive(Clone)]
struct Scope {
    host: bool,
    facts: bool,
    locals: BTreeSet<String>,
    /// Results by name, with the kind that gives them.
    results: BTreeMap<String, &'static Schema>,
}

impl Scope {
    fn new(host: bool, facts: bool) -> Self {
        Self { host, facts, locals: BTreeSet::new(), results: BTreeMap::new() }
    }
}

struct Checker<'a> {
    playbook: &'a Playbook,
    sources: &'a Sources,
    globals: BTreeSet<String>,
    /// Results of all tasks.
    results: BTreeSet<String>,
    /// Names that are declared, or were read so far.
    names: BTreeSet<String>,
    errors: Vec<Diagnostic>,
}

impl Checker<'_> {
    /// Everything outside of plays and roles.
    fn settings(&mut self) {
        let playbook = self.playbook;
        let on_hosts = Scope::new(true, true);
        for var in &playbook.vars {
            self.expr(&var.value, &on_hosts);
        }
        for group in &playbook.groups {
            self.bindings(&group.vars, &on_hosts);
            self.host_items(&group.items, &mut Scope::new(false, false));
        }
        for store in &playbook.stores {
            self.bindings(&store.settings, &Scope::new(false, false));
        }
        for network in playbook.networks.values() {
            // `mode = macvlan`, `probe = strict`: words by the type of the parameter of `attach` that they fill.
            for (name, value) in &network.settings {
                let kind = crate::resource::kinds::schema("attach")
                    .and_then(|attach| attach.field(&name.text))
                    .map(|field| field.kind);
                if kind.is_some_and(|kind| self.is_word(&name.text, kind, value, &on_hosts)) {
                    self.names.extend(free_names(value).into_iter().filter_map(|name| name.path.into_iter().next()));
                } else {
                    self.expr(value, &on_hosts);
                }
            }
        }
        for group in &playbook.nodes {
            self.bindings(&group.settings, &Scope::new(true, false));
            self.bindings(&group.vars, &on_hosts);
        }
    }

    /// Each section is a small play of its own.
    fn rollout(&mut self, rollout: &Rollout) {
        let now = Scope::new(true, false);
        self.bindings(&rollout.settings, &Scope::new(false, false));
        if let Some(drain) = &rollout.drain {
            self.expr(&drain.on, &Scope::new(false, false));
        }
        for config in &rollout.configs {
            self.expr(&config.path, &now);
            self.bindings(&config.settings, &now);
            if let Some(trial) = &config.trial {
                self.step(trial, &mut Scope::new(true, true));
            }
        }
        if let Some(log) = &rollout.access_log {
            self.expr(&log.path, &now);
            self.bindings(&log.settings, &Scope::new(false, false));
        }
        for body in rollout.bodies() {
            let mut scope = Scope::new(true, true);
            scope.locals.extend((!rollout.configs.is_empty()).then(|| GENERATION.to_owned()));
            self.body(body, &mut scope);
        }
    }

    fn host_items(&mut self, items: &[HostItem], scope: &mut Scope) {
        for item in items {
            match item {
                HostItem::Host { name, settings, vars } => {
                    self.expr(name, scope);
                    for (setting, value) in settings {
                        if setting.text != "connection" {
                            self.expr(value, scope);
                        }
                    }
                    let mut inner = scope.clone();
                    (inner.host, inner.facts) = (true, true);
                    self.bindings(vars, &inner);
                }
                HostItem::For { name, list, body } => {
                    self.expr(list, scope);
                    let mut inner = scope.clone();
                    inner.locals.insert(name.text.clone());
                    self.host_items(body, &mut inner);
                }
            }
        }
    }

    fn bindings(&mut self, bindings: &[Binding], scope: &Scope) {
        for (_, value) in bindings {
            self.expr(value, scope);
        }
    }

    fn body(&mut self, body: &[Task], scope: &mut Scope) {
        let outer = scope.locals.clone();
        for task in body {
            match task {
                Task::Let((name, value)) => {
                    self.expr(value, scope);
                    scope.locals.insert(name.text.clone());
                }
                Task::For { name, list, body } => {
                    self.expr(list, scope);
                    let fresh = scope.locals.insert(name.text.clone());
                    self.body(body, scope);
                    if fresh {
                        scope.locals.remove(&name.text);
                    }
                }
                Task::When { condition, body } => {
                    self.expr(condition, scope);
                    self.body(body, scope);
                }
                Task::Handler { name, body } => {
                    self.expr(name, scope);
                    self.body(body, scope);
                }
                Task::Step(step) => self.step(step, scope),
                Task::Role(call) => {
                    self.common(&call.common, scope);
                    self.role_args(call, scope);
                }
            }
        }
        scope.locals = outer;
    }

    fn step(&mut self, step: &StepDef, scope: &mut Scope) {
        for (name, value) in &step.args {
            let words = step.schema.field(&name.text).map(|field| field.kind);
            let dollars = matches!(step.schema.name, "shell" | "command" | "line") || name.text == "content";
            match words {
                Some(kind) if self.is_word(&name.text, kind, value, scope) => {}
                _ if dollars => self.code(value, scope),
                _ => self.expr(value, scope),
            }
        }
        self.common(&step.common, scope);
        if let Some(name) = &step.register {
            scope.results.insert(name.text.clone(), step.schema);
        }
        for follower in &step.followers {
            self.step(follower, scope);
        }
    }

    /// `state = running`: a bare name where the parameter takes words and nothing of that name is bound. Whether it is
    /// one of the words is told here, so that a wrong word gets the list of words and not "not defined".
    fn is_word(&mut self, name: &str, kind: ParamType, value: &Expr, scope: &Scope) -> bool {
        let ExprKind::Name(word) = &value.kind else { return false };
        let (ParamType::Choice(_) | ParamType::List(ParamType::Choice(_))) = kind else { return false };
        if scope.locals.contains(word) || self.globals.contains(word) {
            return false;
        }
        self.errors.extend(misfit(kind, name, &crate::value::Value::from(word.as_str()), value.span));
        true
    }

    fn common(&mut self, common: &Common, scope: &Scope) {
        let Common { when, notify, timeout, tags, ignore_failure } = common;
        for value in [when, notify, timeout, tags, ignore_failure].into_iter().flatten() {
            self.expr(value, scope);
        }
    }

    fn role_args(&mut self, call: &super::model::RoleCall, scope: &Scope) {
        self.bindings(&call.args, scope);
        let Some(role) = self.playbook.roles.get(&call.name.text) else { return };
        for (name, _) in &call.args {
            if !role.params.iter().any(|param| param.name.text == name.text) {
                let known = role.params.iter().map(|param| param.name.text.as_str());
                let message = format!("the role `{}` has no parameter `{}`", role.name.text, name.text);
                let error = Diagnostic::new(name.span, message).suggest(&name.text, known);
                self.errors.push(error.also(role.name.span, "the role is declared here"));
            }
        }
        for param in &role.params {
            let given = call.args.iter().any(|(name, _)| name.text == param.name.text);
            // A wrong name that is near to this one is told already.
            let meant = call.args.iter().any(|(name, _)| {
                let declared = || role.params.iter().map(|param| param.name.text.as_str());
                !declared().any(|known| known == name.text) && nearest(&name.text, declared()) == Some(&param.name.text)
            });
            if param.default.is_none() && !given && !meant && !self.globals.contains(&param.name.text) {
                let message = format!("the role `{}` needs `{}`", role.name.text, param.name.text);
                let error =
                    Diagnostic::new(call.name.span, message).also(param.name.span, "declared without a default");
                self.errors.push(error.help(format!("give it: `{} = …`", param.name.text)));
            }
        }
    }

    fn expr(&mut self, expr: &Expr, scope: &Scope) {
        self.dollars(expr, scope);
        self.code(expr, scope);
    }

    /// An expression that may hold text of another language, which has dollars of its own.
    fn code(&mut self, expr: &Expr, scope: &Scope) {
        self.filters(expr);
        for name in free_names(expr) {
            self.names.extend(name.path.first().cloned());
            if !name.may_be_missing {
                self.name(&name, scope);
            }
        }
    }

    fn name(&mut self, name: &FreeName, scope: &Scope) {
        let Some(root) = name.path.first() else { return };
        let field = name.path.get(1).map(String::as_str);
        if scope.locals.contains(root) {
            return;
        }
        if let Some(schema) = scope.results.get(root) {
            let fields = || RESULT_FIELDS.into_iter().chain(schema.results.iter().map(|result| result.name));
            self.field(name, root, field, fields());
            return;
        }
        let groups = |nodes: bool| -> Vec<&str> {
            let hosts = self.playbook.groups.iter().map(|group| group.name.text.as_str()).chain(["all"]);
            let of_nodes = self.playbook.nodes.iter().map(|group| group.name.text.as_str());
            if nodes { of_nodes.collect() } else { hosts.collect() }
        };
        match root.as_str() {
            "env" => {}
            "hosts" => self.field(name, root, field, groups(false)),
            "nodes" => self.field(name, root, field, groups(true)),
            "host" if scope.host => self.field(name, root, field, HOST_FIELDS),
            "node" if scope.host => self.field(name, root, field, NODE_FIELDS),
            "facts" if scope.facts => self.fact(name),
            "host" | "node" | "facts" => {
                let error = Diagnostic::new(name.span, format!("`{root}` is not known here"));
                self.errors.push(if root == "facts" {
                    error
                        .help("only a host knows its facts, and this must be known before the first connection")
                        .help("tasks of plays and roles can use them, and variables that only tasks use")
                } else {
                    error.help("it is known in plays, in roles, and in variables that they use")
                });
            }
            _ if self.globals.contains(root) => {}
            _ => {
                let known = self.globals.iter().chain(&scope.locals).chain(scope.results.keys()).map(String::as_str);
                let builtin = ["env", "facts", "host", "hosts", "node", "nodes"];
                let error = Diagnostic::new(name.span, format!("`{root}` is not defined"));
                let other = match root.as_str() {
                    "yes" | "on" | "True" | "TRUE" => Some("true"),
                    "no" | "off" | "False" | "FALSE" => Some("false"),
                    "none" | "None" | "nil" | "undefined" => Some("null"),
                    "inventory_hostname" => Some("host.name"),
                    "ansible_facts" => Some("facts"),
                    _ => None,
                };
                let error = match other {
                    Some(right) => error.help(format!("write `{right}`")),
                    None => error.suggest(root, known.chain(builtin)),
                };
                self.errors.push(if self.results.contains(root) {
                    error
                        .help(format!("a result is known to the tasks behind its own, in the same play: `… as {root}`"))
                } else if error.help.is_empty() {
                    error.help(format!("bind it in `vars {{ {root} = … }}`; a text stands in quotes: `\"{root}\"`"))
                } else {
                    error
                });
            }
        }
    }

    /// `facts.NAME`, or `facts.MAP.NAME`.
    fn fact(&mut self, name: &FreeName) {
        let Some(first) = name.path.get(1) else { return };
        let split = |name: &'static str| name.split_once('.').map_or((name, None), |(map, inner)| (map, Some(inner)));
        let facts: Vec<_> = fact_names().iter().map(|(name, _)| split(name)).collect();
        let inner: Vec<&str> = facts.iter().filter(|(map, _)| map == first).filter_map(|(_, inner)| *inner).collect();
        match name.path.get(2) {
            Some(second) if !inner.is_empty() => self.field(name, &format!("facts.{first}"), Some(second), inner),
            _ => {
                let mut outer: Vec<&str> = facts.iter().map(|(map, _)| *map).collect();
                outer.dedup();
                self.field(name, "facts", Some(first), outer);
            }
        }
    }

    fn field<'b>(
        &mut self,
        name: &FreeName,
        root: &str,
        field: Option<&str>,
        known: impl IntoIterator<Item = &'b str>,
    ) {
        let Some(field) = field else { return };
        let known: Vec<&str> = known.into_iter().collect();
        if known.contains(&field) {
            return;
        }
        let error =
            Diagnostic::new(name.span, format!("`{root}` has no `{field}`")).suggest(field, known.iter().copied());
        let all =
            if known.is_empty() { "it has nothing yet".to_owned() } else { format!("it has {}", known.join(", ")) };
        self.errors.push(if error.help.is_empty() { error.help(all) } else { error });
    }

    fn binds(&self, name: &str, scope: &Scope) -> bool {
        let root = name.split('.').next().unwrap_or_default();
        self.globals.contains(root) || scope.locals.contains(root) || scope.results.contains_key(root)
    }

    /// `"${name}"` of a name that is bound: the form of other languages, which here is text.
    fn dollars(&mut self, expr: &Expr, scope: &Scope) {
        if let ExprKind::Text { parts, quote: Quote::Double } = &expr.kind {
            for part in parts {
                let TextPart::Plain(text) = part else { continue };
                let names = text.split("${").skip(1).filter_map(|rest| rest.split_once('}')).map(|(name, _)| name);
                // An escaped brace is meant as it stands.
                let written = self.sources.text(expr.span);
                let bound = |name: &&str| written.contains(&format!("${{{name}}}")) && self.binds(name, scope);
                let Some(name) = names.into_iter().find(bound) else { continue };
                let error =
                    Diagnostic::new(expr.span, format!("`${{{name}}}` is not computed: it stays text as it is"));
                let error = error.help(format!("write `{{{{ {name} }}}}`"));
                self.errors.push(error.help(format!("if the dollar is meant: `$\\{{{name}}}`")));
            }
        }
        crate::expr::children(expr).into_iter().for_each(|child| self.dollars(child, scope));
    }

    /// Filters and tests that do not exist.
    fn filters(&mut self, expr: &Expr) {
        let (name, known, what) = match &expr.kind {
            ExprKind::Filter { name, .. } => (name, filter_names(), "filter"),
            ExprKind::Test { name, .. } => (name, test_names(), "test"),
            _ => {
                crate::expr::children(expr).into_iter().for_each(|child| self.filters(child));
                return;
            }
        };
        if !known.contains(&name.text.as_str()) {
            let error = Diagnostic::new(name.span, format!("there is no {what} `{}`", name.text));
            self.errors.push(error.suggest(&name.text, known.iter().copied()));
        }
        crate::expr::children(expr).into_iter().for_each(|child| self.filters(child));
    }
}
