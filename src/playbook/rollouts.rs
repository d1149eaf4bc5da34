//! `rollout "title" on nodes.GROUP batch [1, 25%] { … }`: settings, trees of configuration, and sections of tasks.

use std::collections::BTreeSet;

use super::blocks::{self, push_once, statements};
use super::model::{AccessLog, Binding, ConfigTree, Drain, Rollout, Task};
use super::tasks;
use crate::diagnostic::Diagnostic;
use crate::resource::kinds;
use crate::syntax::ast::{Block, StatementKind};

/// The settings of a `rollout` block.
pub const ROLLOUT_SETTINGS: [&str; 5] = ["budget", "keep", "max_down", "settle", "within"];

/// The settings of a `config` block in it.
pub const CONFIG_SETTINGS: [&str; 3] = ["from", "inside", "modes"];

/// The settings of an `access_log` block in it.
pub const ACCESS_LOG_SETTINGS: [&str; 2] = ["worse", "at_least"];

/// The parts of a `rollout` block.
pub const ROLLOUT_PARTS: [&str; 6] = ["config", "drain", "change", "reload", "healthy", "access_log"];

/// What may stand in a rollout, in one line.
fn known() -> String {
    format!("it holds {}, and the blocks {}", ROLLOUT_SETTINGS.join(", "), ROLLOUT_PARTS.join(", "))
}

/// Reads the body of a rollout.
pub(super) fn rollout(block: &Block, roles: &BTreeSet<String>, errors: &mut Vec<Diagnostic>) -> Rollout {
    let mut rollout = Rollout {
        span: block.label.as_ref().map_or(block.word.span, |label| block.word.span.to(label.span)),
        ..Rollout::default()
    };
    let mut said: Vec<&Block> = Vec::new();
    for statement in statements(block.body.as_deref().unwrap_or(&[])) {
        match &statement.kind {
            StatementKind::Assign { name, value } if ROLLOUT_SETTINGS.contains(&name.text.as_str()) => {
                push_once(&mut rollout.settings, name, value.clone(), "setting", errors);
            }
            StatementKind::Assign { name, .. } if ROLLOUT_PARTS.contains(&name.text.as_str()) => {
                let error = Diagnostic::new(name.span, format!("`{}` is a block, not a setting", name.text));
                errors.push(error.help(format!("write `{} {{ … }}` with tasks in it", name.text)));
            }
            StatementKind::Assign { name, .. } => {
                let error = Diagnostic::new(name.span, format!("`rollout` has no setting `{}`", name.text));
                let error = error.suggest(&name.text, ROLLOUT_SETTINGS);
                errors.push(if error.help.is_empty() { error.help(known()) } else { error });
            }
            StatementKind::Block(inner) => {
                let word = inner.word.text.as_str();
                let again = said.iter().find(|before| before.word.text == word && word != "config");
                if let Some(first) = again {
                    let error = Diagnostic::new(inner.word.span, format!("`{word}` is said twice"));
                    errors.push(error.also(first.word.span, "first said here"));
                    continue;
                }
                part(inner, roles, &mut rollout, errors);
                said.push(inner);
            }
            _ => {
                let error = Diagnostic::new(statement.span, "this cannot stand in `rollout`");
                errors.push(error.help(known()));
            }
        }
    }
    if rollout.configs.is_empty() && rollout.change.is_empty() {
        let error = Diagnostic::new(rollout.span, "the rollout rolls nothing out");
        errors.push(error.help("it needs a `config PATH { … }`, or tasks in `change { … }`"));
    }
    if !rollout.configs.is_empty() && rollout.reload.is_empty() && rollout.change.is_empty() {
        let error = Diagnostic::new(rollout.span, "nothing makes the nodes load what is rolled out");
        errors
            .push(error.help("add `reload { … }`, for instance with `reload node.name { supervisor = \"apache2\" }`"));
    }
    rollout
}

fn part(inner: &Block, roles: &BTreeSet<String>, rollout: &mut Rollout, errors: &mut Vec<Diagnostic>) {
    let tasks = |errors: &mut Vec<Diagnostic>| -> Vec<Task> {
        if let Some(label) = &inner.label {
            errors.push(Diagnostic::new(label.span, format!("`{}` has no title", inner.word.text)));
        }
        tasks::needs_body(inner, errors);
        let body = tasks::body(inner.body.as_deref().unwrap_or(&[]), roles, errors);
        no_handlers(&body, inner, errors);
        body
    };
    match inner.word.text.as_str() {
        "config" => rollout.configs.extend(config(inner, errors)),
        "access_log" => rollout.access_log = access_log(inner, errors),
        "drain" => {
            let body = tasks(errors);
            let on = inner.clauses.iter().find(|clause| clause.word.text == "on");
            match (on, inner.clauses.len()) {
                (Some(on), 1) => rollout.drain = Some(Drain { on: on.value.clone(), body, span: inner.word.span }),
                _ => {
                    let error = Diagnostic::new(inner.word.span, "`drain` does not say where the balancer runs");
                    errors.push(error.help("`drain on hosts.balancers { … }`: every host in it is told"));
                }
            }
        }
        word @ ("change" | "reload" | "healthy") => {
            blocks::no_clauses(inner, errors);
            let body = tasks(errors);
            match word {
                "change" => rollout.change = body,
                "reload" => rollout.reload = body,
                _ => rollout.healthy = body,
            }
        }
        word => {
            let error = Diagnostic::new(inner.word.span, format!("`{word}` cannot stand right in a rollout"));
            let error = error.suggest(word, ROLLOUT_PARTS);
            let task = kinds::schema(word).is_some() || roles.contains(word);
            errors.push(match (error.help.is_empty(), task) {
                (true, true) => error.help("tasks stand in `change { … }`, `reload { … }` or `healthy { … }`"),
                (true, false) => error.help(known()),
                _ => error,
            });
        }
    }
}

/// `config "/path" { from = "templates/apache2"  inside = "/usr/local/apache2/conf"  trial { … } }`
fn config(block: &Block, errors: &mut Vec<Diagnostic>) -> Option<ConfigTree> {
    blocks::no_clauses(block, errors);
    let Some(path) = block.label.clone() else {
        let error = Diagnostic::new(block.word.span, "`config` needs the directory that nodes mount right after it");
        errors.push(error.help("`config \"/data/conf/{{ node.name }}\" { from = \"templates/apache2\" }`"));
        return None;
    };
    let span = block.word.span.to(path.span);
    let (mut settings, mut trial): (Vec<Binding>, _) = (Vec::new(), None);
    for statement in statements(block.body.as_deref().unwrap_or(&[])) {
        match &statement.kind {
            StatementKind::Assign { name, value } if CONFIG_SETTINGS.contains(&name.text.as_str()) => {
                push_once(&mut settings, name, value.clone(), "setting", errors);
            }
            StatementKind::Block(inner) if inner.word.text == "trial" => {
                // It stands in its directory's block: that is its title.
                let inner = Block { label: inner.label.clone().or_else(|| Some(path.clone())), ..inner.clone() };
                trial = kinds::schema("trial").and_then(|schema| tasks::step(schema, &inner, errors));
            }
            _ => {
                let error = Diagnostic::new(statement.span, "this cannot stand in `config`");
                errors.push(error.help(format!("it holds {}, and `trial {{ … }}`", CONFIG_SETTINGS.join(", "))));
            }
        }
    }
    if !settings.iter().any(|(name, _)| name.text == "from") {
        let error = Diagnostic::new(span, "`config` needs `from`");
        errors.push(error.help("the folder of templates beside the playbook: `from = \"templates/apache2\"`"));
        return None;
    }
    Some(ConfigTree { path, settings, trial, span })
}

/// `access_log "/data/{{ node.name }}/logs/*.log" { worse = 1%  at_least = 20 }`
fn access_log(block: &Block, errors: &mut Vec<Diagnostic>) -> Option<AccessLog> {
    blocks::no_clauses(block, errors);
    let Some(path) = block.label.clone() else {
        let error = Diagnostic::new(block.word.span, "`access_log` needs the node's log files right after it");
        errors.push(error.help("`access_log \"/data/logs/{{ node.name }}/*.log\" { worse = 1% }`"));
        return None;
    };
    let mut settings: Vec<Binding> = Vec::new();
    for statement in statements(block.body.as_deref().unwrap_or(&[])) {
        match &statement.kind {
            StatementKind::Assign { name, value } if ACCESS_LOG_SETTINGS.contains(&name.text.as_str()) => {
                push_once(&mut settings, name, value.clone(), "setting", errors);
            }
            _ => {
                let error = Diagnostic::new(statement.span, "this cannot stand in `access_log`");
                errors.push(error.help(format!("it holds {}", ACCESS_LOG_SETTINGS.join(" and "))));
            }
        }
    }
    Some(AccessLog { span: block.word.span.to(path.span), path, settings })
}

/// A handler would run at the end, when the batch is long back in traffic.
fn no_handlers(body: &[Task], section: &Block, errors: &mut Vec<Diagnostic>) {
    for task in body {
        match task {
            Task::Handler { name, .. } => {
                let message = format!("a handler cannot stand in `{}` of a rollout", section.word.text);
                errors.push(Diagnostic::new(name.span, message).help("its tasks go into `reload { … }`"));
            }
            Task::For { body, .. } | Task::When { body, .. } => no_handlers(body, section, errors),
            Task::Step(_) | Task::Role(_) | Task::Let(_) => {}
        }
    }
}
