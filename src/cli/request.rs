//! The arguments that every command about a playbook has, and what they ask for.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use clap::Args;

use crate::diagnostic::{Diagnostic, render};
use crate::plan::{self, PlanRequest, RunOptions};
use crate::source::Sources;

/// Which playbook, in which environment.
#[derive(Args, Debug)]
pub(super) struct Playbook {
    /// The playbook
    #[arg(value_name = "FILE")]
    pub(super) file: PathBuf,

    #[command(flatten)]
    pub(super) given: Given,
}

/// With which values.
#[derive(Args, Clone, Debug)]
pub(super) struct Given {
    /// Load env/NAME.fp beside the playbook [default: local, where env/local.fp exists]
    #[arg(long, short, value_name = "NAME")]
    env: Option<String>,

    /// Bind a variable; what reads as no literal is text, nothing is computed. May be repeated
    #[arg(long, short, value_name = "NAME=VALUE")]
    set: Vec<String>,
}

impl Given {
    /// Whether nothing is given.
    pub(super) fn is_empty(&self) -> bool {
        self.env.is_none() && self.set.is_empty()
    }
}

/// Which part of it.
#[derive(Args, Debug, Default)]
pub(super) struct Part {
    /// Take only these hosts and nodes: names or patterns, separated by commas; `!` leaves out
    #[arg(long, short, value_name = "PATTERN")]
    limit: Option<String>,

    /// Take only tasks with one of these tags, separated by commas
    #[arg(long, short, value_name = "TAGS", value_delimiter = ',')]
    tags: Vec<String>,

    /// Leave out tasks with one of these tags
    #[arg(long, value_name = "TAGS", value_delimiter = ',')]
    skip_tags: Vec<String>,
}

impl Part {
    /// These hosts and nodes, with every task.
    pub(super) fn of(limit: Option<String>) -> Self {
        Self { limit, ..Self::default() }
    }

    /// Whether every host and node is meant.
    pub(super) fn is_everybody(&self) -> bool {
        self.limit.is_none()
    }
}

/// A request with defaults, from the command line.
///
/// # Errors
/// A `--set` that does not read.
pub(super) fn request(playbook: &Playbook, part: &Part) -> Result<PlanRequest, String> {
    let mut set = BTreeMap::new();
    for text in &playbook.given.set {
        let (name, value) = binding(text)?;
        set.insert(name, value);
    }
    Ok(PlanRequest {
        playbook: playbook.file.clone(),
        env: playbook.given.env.clone(),
        set,
        limit: part.limit.clone(),
        tags: part.tags.clone(),
        skip_tags: part.skip_tags.clone(),
        run: run_name(),
        options: RunOptions {
            check: false,
            diff: false,
            step_limit: Duration::from_secs(3600),
            lock_wait: Some(Duration::from_secs(10)),
        },
        part: plan::Part::All,
    })
}

/// Names that playbooks read and nobody sets.
const RESERVED: [&str; 6] = ["env", "facts", "host", "hosts", "node", "nodes"];

/// `name=value`, as it was typed.
fn binding(text: &str) -> Result<(String, String), String> {
    let Some((name, value)) = text.split_once('=') else {
        return Err(format!("--set {text}: write NAME=VALUE, as in --set web_nodes=5"));
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if name.is_empty() || !name.chars().all(plain) || name.starts_with(|c: char| c.is_ascii_digit()) {
        return Err(format!("--set {text}: `{name}` is not a name: letters, digits and `_`, no digit first"));
    }
    if RESERVED.contains(&name) {
        return Err(format!(
            "--set {text}: `{name}` cannot be set: fanli itself binds it, as it does {}",
            RESERVED.iter().filter(|other| **other != name).copied().collect::<Vec<_>>().join(", ")
        ));
    }
    Ok((name.to_owned(), value.to_owned()))
}

/// A name for this run: when, and by which process.
fn run_name() -> String {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    format!("{:x}-{}", since.as_millis(), std::process::id())
}

/// What all errors of a playbook look like.
pub(super) fn errors(found: &[Diagnostic], sources: &Sources) -> String {
    render(found, sources)
}
