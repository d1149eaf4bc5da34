//! One target's steps: loops unrolled, roles opened, conditions decided where they can be.

use std::collections::{BTreeMap, BTreeSet};

use super::errors::Errors;
use super::files::{Files, Place};
use super::idle::Idle;
use super::late::Late;
use super::model::{Arg, Contents, Handler, Step};
use super::scope::{Known, MOST_ROUNDS, Scope};
use crate::diagnostic::Diagnostic;
use crate::playbook::model::{Common, RoleCall, StepDef, Task};
use crate::playbook::{DEEPEST_ROLES, PARAM_TYPES, Playbook, misfit, too_deep};
use crate::resource::kinds::Kind;
use crate::resource::{FieldSpec, ParamType, Schema};
use crate::source::{Sources, Span};
use crate::syntax::ast::{Expr, ExprKind, Name, Param};
use crate::value::{Map, Quoted, Value};

/// The most steps of a whole run, and of one host or node in one play.
const MOST_STEPS: u32 = 1_000_000;
const MOST_OF_TARGET: usize = 100_000;

/// What all targets share while planning.
pub(super) struct Shared<'a> {
    pub(super) sources: &'a mut Sources,
    pub(super) contents: Contents,
    pub(super) files: Files,
    pub(super) errors: Errors,
    pub(super) tags: &'a [String],
    pub(super) skip_tags: &'a [String],
    /// Every tag that a task was found to have.
    pub(super) found_tags: BTreeSet<String>,
    /// Steps made so far, over all hosts.
    pub(super) steps: u32,
}

/// Unrolls the body of a play for one target.
pub(super) struct Expander<'a, 'b, 'p> {
    pub(super) playbook: &'p Playbook,
    pub(super) shared: &'a mut Shared<'b>,
    pub(super) scope: Scope<'p>,
    /// The next step's number on this host.
    pub(super) next_id: u32,
    pub(super) steps: Vec<Step>,
    pub(super) handlers: Vec<Handler>,
    /// Conditions around the place, those that only the host can decide.
    conditions: Vec<Late>,
    tags: Vec<String>,
    notified: Vec<(String, Span)>,
    depth: usize,
    /// Inside of a handler: whether `--skip-tags` leaves out a task of it so far.
    handler: Option<bool>,
    /// A parameter that whoever unrolls the body gives to each task that has it.
    given: Option<(&'static str, Value)>,
    /// The permissions of the file that a task's argument has just named, where these are closed to some.
    closed: Option<u32>,
}

impl<'a, 'b, 'p> Expander<'a, 'b, 'p> {
    pub(super) fn new(playbook: &'p Playbook, shared: &'a mut Shared<'b>, scope: Scope<'p>, next_id: u32) -> Self {
        Self {
            playbook,
            shared,
            scope,
            next_id,
            steps: Vec::new(),
            handlers: Vec::new(),
            conditions: Vec::new(),
            tags: Vec::new(),
            notified: Vec::new(),
            depth: 0,
            handler: None,
            given: None,
            closed: None,
        }
    }

    /// Gives a parameter to each task that has it; a task that says it itself is wrong.
    pub(super) fn give(mut self, name: &'static str, value: Value) -> Self {
        self.given = Some((name, value));
        self
    }

    /// Unrolls a body, then checks that every notified handler exists.
    pub(super) fn play(&mut self, body: &'p [Task]) {
        self.body(body);
        for (name, span) in std::mem::take(&mut self.notified) {
            if !self.handlers.iter().any(|handler| handler.name == name) {
                let known = self.handlers.iter().map(|handler| handler.name.as_str());
                let error = Diagnostic::new(span, format!("there is no handler `{name}` in this play"));
                let error = error.suggest(&name, known);
                let help = "declare it in the play or the role: `handler \"…\" { … }`";
                self.shared.errors.push(if error.help.is_empty() { error.help(help) } else { error });
            }
        }
    }

    fn body(&mut self, body: &'p [Task]) {
        let outer = self.scope.enter();
        for task in body {
            if self.too_much() {
                break;
            }
            self.task(task);
        }
        self.scope.leave(&outer);
    }

    /// Whether a limit is passed, which is told where it was: what follows is not looked at.
    fn too_much(&self) -> bool {
        self.shared.steps > MOST_STEPS || self.steps.len() > MOST_OF_TARGET || self.scope.rounds > MOST_ROUNDS
    }

    fn task(&mut self, task: &'p Task) {
        match task {
            Task::Let((name, value)) => match self.scope.eval(value, &mut self.shared.errors) {
                Some(known) => self.scope.bind(&name.text, known),
                None => self.scope.bind_failed(&name.text),
            },
            Task::For { name, list, body } => {
                let Some(items) = loop_items(list, &mut self.scope, &mut self.shared.errors) else { return };
                let outer = self.scope.enter();
                for item in items {
                    if !self.scope.round(list.span, &mut self.shared.errors) || self.too_much() {
                        break;
                    }
                    self.scope.bind(&name.text, Known::Ready(item));
                    self.body(body);
                }
                self.scope.leave(&outer);
            }
            Task::When { condition, body } => {
                if let Some(pushed) = self.condition(Some(condition)) {
                    self.body(body);
                    self.conditions.truncate(self.conditions.len() - pushed);
                } else {
                    self.results_only(body);
                }
            }
            Task::Handler { name, body } => self.handler(name, body),
            Task::Step(step) => self.step(step),
            Task::Role(call) => self.role(call),
        }
    }

    /// Decides a condition: `None` when it does not hold (or could not be evaluated); else how many late ones were pushed.
    fn condition(&mut self, condition: Option<&Expr>) -> Option<usize> {
        let Some(expr) = condition else { return Some(0) };
        match self.scope.eval(expr, &mut self.shared.errors)? {
            Known::Ready(Value::Bool(true)) => Some(0),
            Known::Ready(Value::Bool(false)) => None,
            Known::Ready(other) => {
                let message = format!("`when`: expected true or false, found {}", told(&other));
                let help = "compare it: `x == \"…\"`, `x > 0`, `x | length > 0`, `x is defined`";
                self.shared.errors.push_inside(Diagnostic::new(expr.span, message).help(help));
                None
            }
            Known::Late(resolved) => {
                let late = self.scope.late_expr(resolved, &self.at(expr.span));
                self.conditions.push(late);
                Some(1)
            }
        }
    }

    /// A body that is not done still leaves its results: `skipped`.
    fn results_only(&mut self, body: &'p [Task]) {
        for task in body {
            match task {
                Task::Step(step) => self.skipped(step),
                Task::For { body, .. } | Task::When { body, .. } => self.results_only(body),
                _ => {}
            }
        }
    }

    pub(super) fn skipped(&mut self, def: &StepDef) {
        let Some(name) = &def.register else { return };
        let never =
            Expr { kind: ExprKind::Literal { value: Value::Bool(false), text: "false".to_owned() }, span: def.span };
        let at = self.at(def.span);
        let when = vec![self.scope.late_expr(never, &at)];
        let title = Arg::Ready(Value::from(name.text.as_str()));
        self.push(def, title, BTreeMap::new(), when, Vec::new(), None, false, at);
    }

    fn handler(&mut self, name: &Expr, body: &'p [Task]) {
        let Some(name_text) = self.scope.now(name, "a handler's name", &mut self.shared.errors) else { return };
        let name_text = name_text.to_string();
        let outside = std::mem::take(&mut self.steps);
        let conditions = std::mem::take(&mut self.conditions);
        let around = self.handler.replace(false);
        self.body(body);
        let left_out = std::mem::replace(&mut self.handler, around) == Some(true);
        self.conditions = conditions;
        let steps = std::mem::replace(&mut self.steps, outside);
        match self.handlers.iter_mut().find(|known| known.name == name_text) {
            None => self.handlers.push(Handler { name: name_text, steps, left_out }),
            Some(known) if same_work(&known.steps, &steps) => known.left_out |= left_out,
            Some(_) => {
                let message = format!("the handler `{name_text}` is declared twice with different tasks");
                let help = "put what differs into its name: `handler \"restart {{ name }}\"`";
                self.shared.errors.push(Diagnostic::new(name.span, message).help(help));
            }
        }
    }

    fn role(&mut self, call: &'p RoleCall) {
        let Some(role) = self.playbook.roles.get(&call.name.text) else { return };
        if self.depth >= DEEPEST_ROLES {
            self.shared.errors.push(too_deep(&call.name));
            return;
        }
        if !self.scope.round(call.name.span, &mut self.shared.errors) {
            return;
        }
        let Some(pushed) = self.condition(call.common.when.as_ref()) else { return };
        let tags = self.enter_tags(&call.common);
        let mut given: BTreeMap<&str, Option<Known>> = BTreeMap::new();
        for (name, value) in &call.args {
            let param = role.params.iter().find(|param| param.name.text == name.text);
            let known = self.scope.eval(value, &mut self.shared.errors);
            let known = match param {
                Some(param) => self.fitting(param, known, call_span(call, name)),
                None => known,
            };
            given.insert(&name.text, known);
        }
        // A role sees its parameters and the variables, not the locals of its caller.
        let hidden = self.scope.hide_locals();
        for param in &role.params {
            let name = &param.name.text;
            match given.remove(name.as_str()) {
                Some(Some(known)) => self.scope.bind_local(name, known),
                Some(None) => self.scope.bind_failed(name),
                // A variable of that name goes before the default: role default < playbook < environment < host < node.
                None if self.scope.binds_variable(name) => {
                    self.scope.need(name, call.name.span, &mut self.shared.errors);
                    let value = self.scope.values.get(name);
                    if let Some(error) = value.and_then(|value| wrong_type(param, value, call.name.span)) {
                        self.shared.errors.push(error);
                        self.scope.bind_failed(name);
                    }
                }
                None => {
                    let default = param.default.as_ref();
                    let known = default.and_then(|default| {
                        let known = self.scope.eval(default, &mut self.shared.errors);
                        // What may be left out is null until it is given.
                        match known {
                            Some(Known::Ready(Value::Null)) => known,
                            known => self.fitting(param, known, default.span),
                        }
                    });
                    match known {
                        Some(known) => self.scope.bind_local(name, known),
                        None => self.scope.bind_failed(name),
                    }
                }
            }
        }
        self.depth += 1;
        self.body(&role.body);
        self.depth -= 1;
        self.scope.show_locals(hidden);
        self.tags.truncate(tags);
        self.conditions.truncate(self.conditions.len() - pushed);
    }

    /// A value for a parameter of a role; `None`, with an error, when it is of another type than that declares.
    fn fitting(&mut self, param: &Param, known: Option<Known>, span: Span) -> Option<Known> {
        let Some(Known::Ready(value)) = &known else { return known };
        let Some(error) = wrong_type(param, value, span) else { return known };
        self.shared.errors.push(error);
        None
    }

    /// Adds the tags of a task to those around it; returns how many there were.
    fn enter_tags(&mut self, common: &Common) -> usize {
        let before = self.tags.len();
        if let Some(expr) = &common.tags
            && let Some(value) = self.scope.now(expr, "`tags`", &mut self.shared.errors)
        {
            let tags = words(&value);
            self.shared.found_tags.extend(tags.iter().cloned());
            self.tags.extend(tags);
        }
        before
    }

    /// Whether `--tags` and `--skip-tags` let a task through. A handler is done whole or stays due.
    fn selected(&mut self) -> bool {
        let has = |wanted: &[String]| self.tags.iter().any(|tag| wanted.contains(tag));
        if let Some(left_out) = &mut self.handler {
            *left_out |= has(self.shared.skip_tags);
            return true;
        }
        (self.shared.tags.is_empty() || has(self.shared.tags) || self.tags.iter().any(|tag| tag == "always"))
            && !has(self.shared.skip_tags)
    }

    pub(super) fn step(&mut self, def: &'p StepDef) {
        self.shared.errors.task();
        let (tags, own) = (self.enter_tags(&def.common), self.steps.len());
        if self.selected() {
            match self.condition(def.common.when.as_ref()) {
                Some(pushed) => {
                    self.selected_step(def);
                    self.conditions.truncate(self.conditions.len() - pushed);
                }
                None => self.skipped(def),
            }
        }
        self.tags.truncate(tags);
        let behind = self.steps.len();
        let idle = self.steps.get(own).filter(|_| behind == own + 1).and_then(Idle::of);
        for follower in &def.followers {
            match idle {
                Some(idle) => self.idle_follower(follower, idle),
                None => self.step(follower),
            }
        }
        let followers = u32::try_from(self.steps.len() - behind).unwrap_or(u32::MAX);
        if let Some(step) = self.steps.get_mut(own).filter(|_| behind == own + 1) {
            step.followers = followers;
        }
    }

    fn selected_step(&mut self, def: &'p StepDef) {
        let at = self.at(def.span);
        let (mut args, sound) = self.args(def, &at);
        if let Some((name, value)) = self.given.clone().filter(|(name, _)| def.schema.field(name).is_some())
            && args.insert(name.to_owned(), Arg::Ready(value)).is_some()
        {
            let said = def.args.iter().find(|(known, _)| known.text == name).map_or(def.span, |(known, _)| known.span);
            let error = Diagnostic::new(said, format!("`{name}` is not said here: the rollout says it"));
            self.shared.errors.push(error.help("leave it out"));
        }
        self.container_network(def, &mut args, &at);
        self.network_settings(def.schema, &mut args, def.span, &at);
        let notify = match &def.common.notify {
            Some(expr) => self.scope.now(expr, "`notify`", &mut self.shared.errors).map_or(Vec::new(), |value| {
                let names = words(&value);
                self.notified.extend(names.iter().map(|name| (name.clone(), expr.span)));
                names
            }),
            None => Vec::new(),
        };
        let limit = match def.common.timeout.as_ref() {
            Some(expr) => match self.scope.now(expr, "`timeout`", &mut self.shared.errors) {
                Some(Value::Duration(limit)) => Some(limit),
                Some(other) => {
                    let error = misfit(ParamType::Duration, "timeout", &other, expr.span);
                    error.into_iter().for_each(|error| self.shared.errors.push(error));
                    None
                }
                None => None,
            },
            None => None,
        };
        let ignore = match def.common.ignore_failure.as_ref() {
            Some(expr) => match self.scope.now(expr, "`ignore_failure`", &mut self.shared.errors) {
                Some(Value::Bool(flag)) => flag,
                Some(other) => {
                    let error = misfit(ParamType::Bool, "ignore_failure", &other, expr.span);
                    error.into_iter().for_each(|error| self.shared.errors.push(error));
                    false
                }
                None => false,
            },
            None => false,
        };
        if !sound {
            return;
        }
        self.check_args(def, &args);
        let title = title(def.schema, &args);
        let when = self.conditions.clone();
        self.push(def, title, args, when, notify, limit, ignore, at);
    }

    /// The arguments as they were declared, and whether all of them could be evaluated.
    fn args(&mut self, def: &'p StepDef, at: &str) -> (BTreeMap<String, Arg>, bool) {
        let (mut args, mut sound) = (BTreeMap::new(), true);
        let fields = def.args.iter().filter_map(|(name, value)| Some((name, value, def.schema.field(&name.text)?)));
        // What a folder leaves out depends on the other arguments.
        let (folders, others): (Vec<_>, Vec<_>) = fields.partition(|(_, _, field)| field.kind == ParamType::Tree);
        for (name, value, field) in others.into_iter().chain(folders) {
            match self.param(field, value, &args, at) {
                Some(Arg::Ready(Value::Null)) => {}
                Some(arg) => {
                    args.insert(name.text.clone(), arg);
                }
                None => sound = false,
            }
        }
        if let Some(mode) = self.closed.take().filter(|_| def.schema.field("mode").is_some()) {
            args.entry("mode".to_owned()).or_insert(Arg::Ready(Value::Mode(mode)));
        }
        (args, sound)
    }

    /// A step that stands in no body of tasks, with what its surroundings know filled in where it says nothing itself.
    pub(super) fn filled<'n>(
        &mut self,
        def: &'p StepDef,
        given: impl IntoIterator<Item = (&'n str, Value)>,
        at: String,
    ) -> Option<Step> {
        let (mut args, sound) = self.args(def, &at);
        for (name, value) in given {
            args.entry(name.to_owned()).or_insert(Arg::Ready(value));
        }
        if !sound {
            return None;
        }
        self.check_args(def, &args);
        let title = title(def.schema, &args);
        self.push(def, title, args, Vec::new(), Vec::new(), None, false, at);
        self.steps.pop()
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of a step")]
    fn push(
        &mut self,
        def: &StepDef,
        title: Arg,
        args: BTreeMap<String, Arg>,
        when: Vec<Late>,
        notify: Vec<String>,
        limit: Option<std::time::Duration>,
        ignore_failure: bool,
        at: String,
    ) {
        self.shared.steps += 1;
        let passed = match (self.shared.steps, self.steps.len()) {
            (steps, _) if steps == MOST_STEPS + 1 => Some("the run has more than 1,000,000 steps"),
            (_, steps) if steps == MOST_OF_TARGET => Some("a play has more than 100,000 steps for one host"),
            _ => None,
        };
        if let Some(message) = passed {
            let error = Diagnostic::new(def.span, message);
            self.shared.errors.push(error.help("a loop inside of a loop runs through all pairs; is that meant?"));
        }
        let register = def.register.as_ref().map(|name| name.text.clone());
        if let Some(name) = &register {
            self.scope.register(name);
        }
        let kind = def.schema.name.to_owned();
        let id = self.next_id;
        self.next_id += 1;
        self.steps.push(Step {
            id,
            kind,
            title,
            args,
            when,
            notify,
            register,
            limit,
            ignore_failure,
            at,
            followers: 0,
            in_rollout: false,
        });
    }

    /// The value of a parameter, by its type; `args` are those that are known already.
    pub(super) fn param(
        &mut self,
        field: &FieldSpec,
        value: &Expr,
        args: &BTreeMap<String, Arg>,
        at: &str,
    ) -> Option<Arg> {
        if let (ParamType::Choice(_) | ParamType::List(ParamType::Choice(_)), ExprKind::Name(word)) =
            (field.kind, &value.kind)
            && (!self.scope.binds(word) || (field.kind.has_word(word) && word == "host"))
        {
            // `network = host`: the `host` of expressions is a map, and never what a choice means.
            return self.accept(field, Value::from(word.as_str()), value.span);
        }
        let known = self.scope.eval(value, &mut self.shared.errors)?;
        let path = match (&known, field.kind) {
            (Known::Ready(Value::Str(path)), ParamType::File | ParamType::Tree | ParamType::Template) => path.clone(),
            (Known::Ready(Value::Null), _) => return Some(Arg::Ready(Value::Null)),
            (Known::Ready(_), _) => {
                let Known::Ready(value_now) = known else { return None };
                return self.accept(field, value_now, value.span);
            }
            (Known::Late(_), ParamType::File | ParamType::Tree | ParamType::Template) => {
                let message = format!(
                    "`{}` names a file beside the playbook, which must be known before the first connection",
                    field.name
                );
                let help = "it cannot use facts or results; choose between two tasks by `when` instead";
                self.shared.errors.push(Diagnostic::new(value.span, message).help(help));
                return None;
            }
            (Known::Late(_), _) => return Some(self.scope.arg(known, at)),
        };
        let Shared { sources, contents, files, errors, .. } = &mut *self.shared;
        let mut place = Place { playbook: self.playbook, sources, contents, span: value.span };
        if matches!(field.kind, ParamType::File | ParamType::Template) {
            self.closed = Files::closed_mode(&path, &place);
        }
        match field.kind {
            ParamType::File => files.blob(&path, &mut place, errors).map(|blob| Arg::Ready(Value::Blob(blob))),
            ParamType::Tree => {
                let dockerfile = match args.get("dockerfile") {
                    Some(Arg::Ready(Value::Str(name))) => name,
                    _ => "Dockerfile",
                };
                let tree = files.context(&path, dockerfile, &mut place, errors);
                tree.map(|tree| Arg::Ready(Value::Tree(tree)))
            }
            _ => files.template(&path, &mut place, &mut self.scope, at, errors),
        }
    }

    fn accept(&mut self, field: &FieldSpec, value: Value, span: Span) -> Option<Arg> {
        match misfit(field.kind, field.name, &value, span) {
            None => Some(Arg::Ready(value)),
            Some(error) => {
                self.shared.errors.push(error);
                None
            }
        }
    }

    /// What the kind itself says of the arguments that are known.
    fn check_args(&mut self, def: &StepDef, args: &BTreeMap<String, Arg>) {
        let place = |field: &str| {
            let found = def.args.iter().find(|(name, _)| name.text == field);
            found.map_or(def.span, |(_, value)| value.span)
        };
        let ready = Arg::all_ready(args);
        let needs = |field: &str, what: &str| {
            let error = Diagnostic::new(def.span, format!("`{}` needs `{field}`{what}", def.schema.name));
            let form = def.schema.field(field).map_or_else(|| "…".to_owned(), |field| field.kind.show());
            error.help(format!("add `{field} = …` ({form}); `fanli doc {}` shows an example", def.schema.name))
        };
        let Some(ready) = ready else {
            for field in def.schema.fields.iter().filter(|field| field.required && !args.contains_key(field.name)) {
                self.shared.errors.push(needs(field.name, ""));
            }
            return;
        };
        for error in Kind::build(def.schema.name, ready).err().into_iter().flatten() {
            self.shared.errors.push(match (error.field.as_str(), error.message.strip_prefix("is required")) {
                ("", _) => Diagnostic::new(def.span, error.message),
                (field, Some(what)) => needs(field, what),
                (field, None) => Diagnostic::new(place(field), format!("`{field}`: {}", error.message)),
            });
        }
    }

    fn at(&self, span: Span) -> String {
        self.shared.sources.line(span)
    }
}

/// A value as an error tells it: its type and itself.
pub(super) fn told(value: &Value) -> String {
    match value {
        Value::Call(call) => format!("`{}(…)`, which is no function", call.name),
        Value::Null => "null".to_owned(),
        value => format!("{} `{}`", value.type_name(), Quoted(value)),
    }
}

/// The items of a loop; they must be known when planning.
pub(super) fn loop_items(list: &Expr, scope: &mut Scope, errors: &mut Errors) -> Option<Vec<Value>> {
    match scope.now(list, "what a loop runs over", errors)? {
        Value::List(items) => Some(items),
        Value::Map(map) => {
            let entry = |(key, value)| {
                Value::Map(Map::from([("key".to_owned(), Value::Str(key)), ("value".to_owned(), value)]))
            };
            Some(map.into_iter().map(entry).collect())
        }
        other => {
            let error = Diagnostic::new(list.span, format!("a loop runs over a list or a map, found {}", told(&other)));
            errors.push_inside(match other {
                Value::Int(number) => {
                    error.help(format!("for a number of rounds: `range({number})`, which is 0 to {}", number - 1))
                }
                _ => error.help("`for x in [\"a\", \"b\"] { … }`; a map gives `x.key` and `x.value`"),
            });
            None
        }
    }
}

/// Text or a list of texts as words.
fn words(value: &Value) -> Vec<String> {
    match value {
        Value::List(items) => items.iter().map(ToString::to_string).collect(),
        single => vec![single.to_string()],
    }
}

/// The title as people read it.
fn title(schema: &Schema, args: &BTreeMap<String, Arg>) -> Arg {
    match schema.title().and_then(|field| args.get(field.name)) {
        Some(Arg::Ready(value)) => Arg::Ready(Value::Str(schema.show_title(value))),
        Some(late @ Arg::Late(_)) => late.clone(),
        None => Arg::Ready(Value::from(schema.name)),
    }
}

/// Whether two handlers do the same, apart from the numbers of their steps.
fn same_work(first: &[Step], second: &[Step]) -> bool {
    first.len() == second.len()
        && first.iter().zip(second).all(|(left, right)| left.kind == right.kind && left.args == right.args)
}

/// Whether a value fits a role's parameter type; `Err` names what it is.
fn fits(kind: &str, value: &Value) -> Result<(), String> {
    let fine = match kind {
        "any" => true,
        "ip" => {
            matches!(value, Value::Ip(_)) || value.as_str().is_some_and(|text| text.parse::<std::net::IpAddr>().is_ok())
        }
        "string" => matches!(value, Value::Str(_) | Value::Ip(_) | Value::Net(_)),
        other => value.type_name() == other,
    };
    if fine { Ok(()) } else { Err(told(value)) }
}

/// The error for a value that does not fit a role's parameter. A type that there is not was an error where it stands.
fn wrong_type(param: &Param, value: &Value, span: Span) -> Option<Diagnostic> {
    let kind = param.kind.text.as_str();
    let found = fits(kind, value).err().filter(|_| PARAM_TYPES.contains(&kind))?;
    let error = Diagnostic::new(span, format!("`{}`: expected {kind}, found {found}", param.name.text));
    let error = error.also(param.name.span, "declared here");
    Some(advice(kind, value).into_iter().fold(error, Diagnostic::help))
}

/// The way out for a value that does not fit a role's parameter.
fn advice(kind: &str, value: &Value) -> Option<String> {
    let kind = match kind {
        "bool" => ParamType::Bool,
        "cidr" => ParamType::Net,
        "duration" => ParamType::Duration,
        "int" => ParamType::Int,
        "ip" => ParamType::Ip,
        "mode" => ParamType::Mode,
        "mount" => ParamType::Mount,
        "percent" => ParamType::Percent,
        "size" => ParamType::Size,
        "string" => ParamType::Str,
        "list" => return Some("write it in brackets: `[ … ]`".to_owned()),
        _ => return None,
    };
    kind.advice(value)
}

fn call_span(call: &RoleCall, name: &Name) -> Span {
    call.args.iter().find(|(known, _)| known.text == name.text).map_or(name.span, |(_, value)| value.span)
}
