//! The bodies of plays and roles: tasks, role calls, loops, conditions, handlers.

use std::collections::BTreeSet;

use super::blocks::{push_once, statements};
use super::model::{Binding, COMMON, Common, RoleCall, StepDef, Task};
use super::other_words;
use super::resolve::{RESERVED, own_name};
use crate::diagnostic::Diagnostic;
use crate::resource::{ParamType, Schema, kinds};
use crate::source::Span;
use crate::syntax::ast::{Block, Expr, ExprKind, Item, Name, StatementKind};

/// The words of a body that are no kinds.
pub const BODY_WORDS: [&str; 3] = ["for", "handler", "when"];

/// Reads a body; every error is collected, what could be read comes back.
pub(super) fn body(items: &[Item], roles: &BTreeSet<String>, errors: &mut Vec<Diagnostic>) -> Vec<Task> {
    let mut tasks = Vec::new();
    for statement in statements(items) {
        match &statement.kind {
            StatementKind::Assign { name, value } => {
                if RESERVED.contains(&name.text.as_str()) {
                    errors.push(own_name(name));
                }
                errors.extend(no_setting(name));
                let kind = kinds::schema(&name.text).filter(|_| matches!(value.kind, ExprKind::Map { .. }));
                if let Some(schema) = kind {
                    let error =
                        Diagnostic::new(name.span, format!("`{}` is a kind of task, not a variable", name.text));
                    errors.push(error.help(format!("write `{}` without `=`", first_line(schema))));
                }
                tasks.push(Task::Let((name.clone(), value.clone())));
            }
            StatementKind::For { name, list, body: inner } => {
                tasks.push(Task::For { name: name.clone(), list: list.clone(), body: body(inner, roles, errors) });
            }
            StatementKind::Import(path) => {
                let error = Diagnostic::new(path.span, "an import stands at the top of a file");
                errors.push(error.help("move it out of the block"));
            }
            StatementKind::Role { name, .. } => {
                let error = Diagnostic::new(name.span, "a role is declared at the top of a file");
                errors.push(error.help("move it out of the block; here it is called: `NAME { parameter = value }`"));
            }
            StatementKind::Block(block) => tasks.extend(task(block, roles, errors)),
        }
    }
    tasks
}

/// The error for a name in a body that reads as a setting of the whole body, where it would only be a name without effect.
fn no_setting(name: &Name) -> Option<Diagnostic> {
    let help = match name.text.as_str() {
        "when" => "around tasks it is a block: `when CONDITION { … }`".to_owned(),
        "become" => "it is a setting of a host: `host \"web1\" { become = true }`".to_owned(),
        "batch" | "serial" => "batches stand in the first line: `play \"…\" on hosts.web batch 1 { … }`".to_owned(),
        "on" => "it stands in the first line: `play \"…\" on hosts.web { … }`".to_owned(),
        word if COMMON.iter().any(|(known, ..)| *known == word) => {
            format!("it is a parameter of each task: `command [\"true\"] {{ {word} = … }}`")
        }
        _ => return None,
    };
    let message = format!("`{}` is no setting of a play or role, and as a name it would do nothing", name.text);
    Some(Diagnostic::new(name.span, message).help(help))
}

/// The roles that a body calls, anywhere inside.
pub(super) fn calls(body: &[Task]) -> Vec<&Name> {
    let mut found = Vec::new();
    for task in body {
        match task {
            Task::Role(call) => found.push(&call.name),
            Task::For { body, .. } | Task::When { body, .. } | Task::Handler { body, .. } => found.extend(calls(body)),
            Task::Step(_) | Task::Let(_) => {}
        }
    }
    found
}

fn task(block: &Block, roles: &BTreeSet<String>, errors: &mut Vec<Diagnostic>) -> Option<Task> {
    let word = block.word.text.as_str();
    if let Some(schema) = kinds::schema(word) {
        return step(schema, block, errors).map(|step| Task::Step(Box::new(step)));
    }
    if roles.contains(word) {
        return Some(Task::Role(Box::new(role_call(block, errors))));
    }
    let inner = |errors: &mut Vec<Diagnostic>| body(block.body.as_deref().unwrap_or(&[]), roles, errors);
    match word {
        "when" => {
            let Some(condition) = block.label.clone() else {
                let error = Diagnostic::new(block.word.span, "`when` needs a condition");
                errors.push(error.help("`when facts.os.id == \"debian\" { … }`"));
                return None;
            };
            let body = needs_body(block, errors).then(|| inner(errors))?;
            Some(Task::When { condition, body })
        }
        "handler" => {
            let Some(name) = block.label.clone() else {
                let error = Diagnostic::new(block.word.span, "a handler needs a name");
                errors.push(error.help("`handler \"restart apache\" { … }`"));
                return None;
            };
            let body = needs_body(block, errors).then(|| inner(errors))?;
            Some(Task::Handler { name, body })
        }
        "as" => {
            let error = Diagnostic::new(block.word.span, "`as` stands before the `{` of its task");
            errors.push(error.help("for example: `command [\"uname\", \"-r\"] as kernel { timeout = 5s }`"));
            None
        }
        _ => {
            let names = || kinds::schemas().iter().map(|schema| schema.name).chain(roles.iter().map(String::as_str));
            let error = Diagnostic::new(block.word.span, format!("there is no kind of task and no role `{word}`"));
            let error = match other_words::for_kind(word) {
                Some(help) => error.help(help),
                None => error.suggest(word, names().chain(BODY_WORDS)),
            };
            let help = "`fanli doc` lists the kinds";
            let lone = block.label.is_none() && block.body.is_none();
            errors.push(match error.help.is_empty() {
                true if lone => error.help("a text stands in quotes; `fanli doc` lists the kinds of tasks"),
                true => error.help(help),
                false => error,
            });
            None
        }
    }
}

/// Whether a block has a body; says so when it has none.
pub(super) fn needs_body(block: &Block, errors: &mut Vec<Diagnostic>) -> bool {
    if block.body.is_none() {
        let word = &block.word.text;
        let error = Diagnostic::new(block.word.span, format!("`{word}` needs a body"));
        errors.push(error.help(format!("write `{word} … {{`, then its tasks, then `}}`")));
    }
    block.body.is_some()
}

/// The line of a kind's example that begins a task of it.
fn first_line(schema: &Schema) -> String {
    let line = schema.example.lines().map(str::trim).find(|line| line.starts_with(schema.name)).unwrap_or_default();
    if line.ends_with('{') { format!("{line} … }}") } else { line.to_owned() }
}

pub(super) fn step(schema: &'static Schema, block: &Block, errors: &mut Vec<Diagnostic>) -> Option<StepDef> {
    let mut args: Vec<Binding> = Vec::new();
    let title = schema.title();
    let span = block.label.as_ref().map_or(block.word.span, |label| block.word.span.to(label.span));
    match (&block.label, title) {
        (Some(label), Some(field)) => {
            args.push((Name { text: field.name.to_owned(), span: label.span }, label.clone()));
        }
        (None, Some(field)) if field.required => {
            let message = format!("`{}` needs its `{}` right after it", schema.name, field.name);
            let error = Diagnostic::new(block.word.span, message);
            errors.push(error.help(format!("for example: `{}`", first_line(schema))));
            return None;
        }
        _ => {}
    }
    let mut register = None;
    for clause in &block.clauses {
        match (&clause.word.text[..], &clause.value.kind) {
            ("as", ExprKind::Name(name)) => register = Some(Name { text: name.clone(), span: clause.value.span }),
            ("as", _) => {
                let error = Diagnostic::new(clause.value.span, "`as` takes a name for the result");
                errors.push(error.help("`command [\"uname\", \"-r\"] as kernel`, then `kernel.stdout`"));
            }
            (other, _) => {
                let message = format!("a task has no clause `{other}`");
                errors.push(
                    Diagnostic::new(clause.word.span, message).help("it has `as`; `when` and others stand inside"),
                );
            }
        }
    }
    let mut common = Common::default();
    let mut followers = Vec::new();
    let mut children = Vec::new();
    for statement in statements(block.body.as_deref().unwrap_or(&[])) {
        match &statement.kind {
            StatementKind::Assign { name, value } => match schema.field(&name.text) {
                Some(field) if matches!(field.kind, ParamType::Step(_)) => {
                    followers.extend(follow_up(field.kind, name, value, errors));
                }
                Some(field) => {
                    check_literal(field.kind, name, value, errors);
                    push_once(&mut args, name, value.clone(), "parameter", errors);
                }
                None => common_or_unknown(schema, name, value, &mut common, errors),
            },
            StatementKind::Block(inner) if schema.children.contains(&inner.word.text.as_str()) => {
                let child = kinds::schema(&inner.word.text).and_then(|child| step(child, inner, errors));
                children.extend(child);
            }
            StatementKind::Block(inner) if schema.field(&inner.word.text).is_some() => {
                let error = Diagnostic::new(inner.word.span, format!("`{}` is a parameter", inner.word.text));
                errors.push(error.help(format!("write `{} = …`", inner.word.text)));
            }
            _ => {
                let error = Diagnostic::new(statement.span, format!("this cannot stand in `{}`", schema.name));
                errors.push(error.help(format!("`fanli doc {}` shows what can", schema.name)));
            }
        }
    }
    let parent = args.first().map(|(_, title)| title.clone());
    for child in &mut children {
        inherit(child, schema, parent.as_ref());
    }
    children.extend(followers);
    // What decides over the task decides over what follows it.
    for follower in &mut children {
        if follower.common.when.is_none() {
            follower.common.when.clone_from(&common.when);
        }
        if follower.common.tags.is_none() {
            follower.common.tags.clone_from(&common.tags);
        }
        if follower.common.notify.is_none() && schema.children.contains(&follower.schema.name) {
            follower.common.notify.clone_from(&common.notify);
        }
    }
    Some(StepDef { schema, args, common, register, span, followers: children })
}

/// A child knows its parent by the parameter that has the parent's word: `attach` has `container`.
fn inherit(child: &mut StepDef, parent: &Schema, title: Option<&Expr>) {
    let takes =
        child.schema.field(parent.name).is_some() && !child.args.iter().any(|(name, _)| name.text == parent.name);
    if let (true, Some(title)) = (takes, title) {
        let name = Name { text: parent.name.to_owned(), span: title.span };
        child.args.push((name, title.clone()));
    }
}

fn common_or_unknown(
    schema: &'static Schema,
    name: &Name,
    value: &Expr,
    common: &mut Common,
    errors: &mut Vec<Diagnostic>,
) {
    let slot = match name.text.as_str() {
        "when" => &mut common.when,
        "notify" => &mut common.notify,
        "timeout" => &mut common.timeout,
        "tags" => &mut common.tags,
        "ignore_failure" => &mut common.ignore_failure,
        other => {
            let known = || schema.fields.iter().map(|field| field.name).chain(COMMON.iter().map(|(name, ..)| *name));
            let error = Diagnostic::new(name.span, format!("`{}` has no parameter `{other}`", schema.name));
            let error = match other_words::for_parameter(other) {
                Some(help) => error.help(help),
                None => error.suggest(other, known()),
            };
            let all =
                format!("it has {}; `fanli doc {}` tells more", known().collect::<Vec<_>>().join(", "), schema.name);
            errors.push(if error.help.is_empty() { error.help(all) } else { error });
            return;
        }
    };
    if let Some(first) = slot.replace(value.clone()) {
        let error = Diagnostic::new(name.span, format!("`{}` is said twice", name.text));
        errors.push(error.also(first.span, "first said here"));
    }
}

/// `healthy = http("…", within: 30s)`: a task in constructor form.
fn follow_up(kind: ParamType, name: &Name, value: &Expr, errors: &mut Vec<Diagnostic>) -> Option<StepDef> {
    let ParamType::Step(allowed) = kind else { return None };
    let form = allowed.iter().map(|word| format!("`{word}(…)`")).collect::<Vec<_>>().join(" or ");
    let ExprKind::Call { name: word, args, named } = &value.kind else {
        errors.push(Diagnostic::new(value.span, format!("`{}` takes {form}", name.text)));
        return None;
    };
    let Some(schema) = kinds::schema(&word.text).filter(|schema| allowed.contains(&schema.name)) else {
        let error = Diagnostic::new(word.span, format!("`{}` takes {form}", name.text));
        errors.push(error.suggest(&word.text, allowed.iter().copied()));
        return None;
    };
    let mut bound: Vec<Binding> = Vec::new();
    if let (Some(field), Some(first)) = (schema.title(), args.first()) {
        bound.push((Name { text: field.name.to_owned(), span: first.span }, first.clone()));
    }
    if let Some(second) = args.get(1) {
        let error = Diagnostic::new(second.span, format!("`{}` takes one argument by place", word.text));
        errors.push(error.help("name the others: `within: 30s`"));
    }
    let mut common = Common::default();
    for (key, arg) in named {
        match schema.field(&key.text) {
            Some(field) => {
                check_literal(field.kind, key, arg, errors);
                push_once(&mut bound, key, arg.clone(), "parameter", errors);
            }
            None => common_or_unknown(schema, key, arg, &mut common, errors),
        }
    }
    // What follows only waits; a kind that can do more must be told to.
    let waits = schema.field("within").is_some_and(|field| field.default.as_deref() != Some("none"));
    if !waits && !bound.iter().any(|(key, _)| key.text == "within") {
        let error =
            Diagnostic::new(value.span, format!("`{}` waits, so `{}` needs `within` here", name.text, word.text));
        errors.push(error.help(format!("how long to wait for it: `{}(…, within: 30s)`", word.text)));
    }
    Some(StepDef { schema, args: bound, common, register: None, span: value.span, followers: Vec::new() })
}

/// Types that can be told without evaluating anything.
fn check_literal(kind: ParamType, name: &Name, value: &Expr, errors: &mut Vec<Diagnostic>) {
    let ExprKind::Literal { value: literal, .. } = &value.kind else { return };
    if *literal == crate::value::Value::Null {
        return;
    }
    errors.extend(misfit(kind, &name.text, literal, value.span));
}

/// What is wrong with a value for a parameter of that type, if anything.
pub(crate) fn misfit(kind: ParamType, name: &str, value: &crate::value::Value, span: Span) -> Option<Diagnostic> {
    let message = kind.accepts(value).err()?;
    // The words near to a wrong one are advice.
    let message = message.split("; did you mean").next().unwrap_or_default();
    let error = Diagnostic::new(span, format!("`{name}`: {message}"));
    Some(kind.advice(value).into_iter().fold(error, Diagnostic::help))
}

fn role_call(block: &Block, errors: &mut Vec<Diagnostic>) -> RoleCall {
    if let Some(label) = &block.label {
        let error = Diagnostic::new(label.span, format!("the role `{}` has no title", block.word.text));
        errors.push(error.help(format!("give its parameters inside: `{} {{ name = … }}`", block.word.text)));
    }
    super::blocks::no_clauses(block, errors);
    let (mut args, mut common): (Vec<Binding>, _) = (Vec::new(), Common::default());
    for statement in statements(block.body.as_deref().unwrap_or(&[])) {
        match &statement.kind {
            StatementKind::Assign { name, value } => match name.text.as_str() {
                "when" => common.when = Some(value.clone()),
                "tags" => common.tags = Some(value.clone()),
                _ => push_once(&mut args, name, value.clone(), "argument", errors),
            },
            _ => {
                let error = Diagnostic::new(statement.span, "a role's call holds only `parameter = value`");
                errors.push(error);
            }
        }
    }
    RoleCall { name: block.word.clone(), args, common }
}
