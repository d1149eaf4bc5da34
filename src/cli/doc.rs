//! `fanli doc`: what kinds there are, and all about one.

use std::fmt::Write as _;
use std::process::ExitCode;

use super::{complain, exit, print};
use crate::diagnostic::nearest;
use crate::expr::{filter_names, test_names};
use crate::playbook::model::COMMON;
use crate::resource::{ParamType, Schema, kinds};
use crate::system::facts::fact_names;

/// List the kinds of tasks, or tell all about one
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  fanli doc             the kinds
  fanli doc container   its parameters, results and an example
  fanli doc playbook    the language on one page
  fanli doc facts       what `facts` holds")]
pub(super) struct Args {
    /// A kind, `playbook` or `facts`
    #[arg(value_name = "KIND")]
    kind: Option<String>,
}

pub(super) fn run(args: &Args) -> ExitCode {
    match args.kind.as_deref() {
        None => print(&list()),
        Some("facts") => print(&facts()),
        Some("playbook") => print(&playbook()),
        Some(kind) => match kinds::schema(kind) {
            Some(schema) => print(&page(schema)),
            None => {
                let pages = kinds::schemas().iter().map(|schema| schema.name).chain(["facts", "playbook"]);
                let near = nearest(kind, pages);
                let hint = near.map_or_else(
                    || "; `fanli doc` lists the kinds".to_owned(),
                    |near| format!("; did you mean `{near}`?"),
                );
                complain(&format!("error: there is no kind `{kind}`{hint}"));
                return exit::BAD_INPUT.into();
            }
        },
    }
    ExitCode::SUCCESS
}

fn list() -> String {
    let mut text = String::from("Kinds of tasks:\n\n");
    let width = kinds::schemas().iter().map(|schema| schema.name.len()).max().unwrap_or(0);
    let mut sorted: Vec<&Schema> = kinds::schemas().iter().collect();
    sorted.sort_by_key(|schema| schema.name);
    for schema in sorted {
        let summary = schema.doc.lines().next().unwrap_or_default();
        let _ = writeln!(text, "  {:width$}  {summary}", schema.name);
    }
    text.push_str(
        "
Further pages:

  fanli doc KIND      all about one kind, with an example
  fanli doc playbook  the language on one page, with a whole playbook
  fanli doc facts     what `facts` holds
",
    );
    text
}

fn page(schema: &Schema) -> String {
    let mut text = heading(schema);
    for line in schema.doc.lines() {
        let _ = writeln!(text, "{}", format!("  {line}").trim_end());
    }
    text.push_str("\nParameters:\n");
    for (index, field) in schema.fields.iter().enumerate() {
        let need = match &field.default {
            None if index == 0 => "the title".to_owned(),
            _ if index == 0 => "the title; optional".to_owned(),
            None => "required".to_owned(),
            Some(default) if default == "none" || default.is_empty() => "optional".to_owned(),
            Some(default) => format!("default {default}"),
        };
        let _ = writeln!(text, "\n  {}  ({}; {need})", field.name, field.kind.show());
        for line in field.doc.lines() {
            let _ = writeln!(text, "{}", format!("      {line}").trim_end());
        }
    }
    text.push_str("\nHow their types are written:\n\n");
    table(&mut text, forms(schema).into_iter());
    text.push_str("\nEvery task takes besides:\n\n");
    let common: Vec<(String, &str)> =
        COMMON.iter().map(|(name, kind, doc)| (format!("{name}  ({kind})"), *doc)).collect();
    table(&mut text, common.iter().map(|(name, doc)| (name.as_str(), *doc)));
    if !schema.children.is_empty() {
        let pages: Vec<String> = schema.children.iter().map(|child| format!("`fanli doc {child}`")).collect();
        let _ = writeln!(text, "\nBlocks that may stand inside: {} ({})", schema.children.join(", "), pages.join(", "));
    }
    let _ = writeln!(text, "\nResults, after `{} … as name`:\n", schema.name);
    let common = ["changed", "failed", "skipped"].map(|name| (name, "true or false"));
    let results: Vec<(String, &str)> = common
        .into_iter()
        .chain(schema.results.iter().map(|result| (result.name, result.doc)))
        .map(|(name, doc)| (format!("name.{name}"), doc))
        .collect();
    table(&mut text, results.iter().map(|(name, doc)| (name.as_str(), *doc)));
    text.push_str("\nExample:\n\n");
    for line in schema.example.trim_matches('\n').lines() {
        let _ = writeln!(text, "{}", format!("  {line}").trim_end());
    }
    text.push_str("\nTasks stand in a play or a role: `fanli doc playbook`.\n");
    text
}

/// `link PATH { … }`: how a task of the kind begins.
fn heading(schema: &Schema) -> String {
    let title = schema.title().map_or_else(String::new, |field| {
        let word = field.name.to_uppercase();
        if field.required { format!(" {word}") } else { format!(" [{word}]") }
    });
    format!("{}{title} {{ … }}\n\n", schema.name)
}

/// The types of a kind's parameters, each once.
fn forms(schema: &Schema) -> Vec<(&'static str, &'static str)> {
    let mut found: Vec<(&str, &str)> = Vec::new();
    for field in &schema.fields {
        let mut kind = field.kind;
        loop {
            found.extend(kind.form().filter(|form| !found.contains(form)));
            let ParamType::List(item) = kind else { break };
            kind = *item;
        }
    }
    found
}

/// Two columns.
fn table<'a>(text: &mut String, rows: impl Iterator<Item = (&'a str, &'a str)> + Clone) {
    let width = rows.clone().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    for (name, doc) in rows {
        let _ = writeln!(text, "{}", format!("  {name:width$}  {doc}").trim_end());
    }
}

fn facts() -> String {
    let mut text = String::from("facts: what a host tells of itself; `facts.NAME` in any expression of a task\n\n");
    table(&mut text, fact_names().iter().copied());
    text
}

/// The language, with the lists that the code knows.
fn playbook() -> String {
    let wrapped = |names: &[&str]| {
        let mut lines = String::new();
        let mut line = String::from(" ");
        for name in names {
            if line.len() + name.len() > 90 {
                let _ = writeln!(lines, "{line}");
                line = String::from(" ");
            }
            let _ = write!(line, " {name}");
        }
        format!("{lines}{line}")
    };
    include_str!("playbook.txt")
        .replace("  FILTERS", &wrapped(filter_names()))
        .replace("  TESTS", &wrapped(test_names()))
}
