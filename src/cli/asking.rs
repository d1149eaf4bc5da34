//! Asking the hosts of a playbook something, outside of a run.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{complain, exit, failed, request};
use crate::book::View;
use crate::failure::Failure;
use crate::plan::{self, Connection, Inventory, RunPlan};
use crate::remote::Reach;
use crate::report::harmless;
use crate::source::Sources;
use crate::system::Probe;
use crate::watch::probe;

/// How many hosts are asked at the same time.
pub(super) const FORKS: usize = 50;

/// How hosts are reached.
#[derive(clap::Args, Debug, Default)]
pub(super) struct Reaching {
    /// Another state folder on the hosts than /var/lib/fanli; %h stands for the host's name
    #[arg(long, hide = true, value_name = "DIR")]
    pub(super) state_dir: Option<String>,
}

impl Reaching {
    /// Does what needs hosts. What hangs on one of them does not hold up the end.
    pub(super) fn ask<F: Future, E: From<String> + From<Failure>>(
        &self,
        work: impl FnOnce(Arc<Reach>) -> F,
    ) -> Result<F::Output, E> {
        let reach = Arc::new(Reach::new(super::play::state_dir(self.state_dir.as_deref())?)?);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.map_err(|error| Failure::new(format!("no runtime: {error}")))?;
        let done = runtime.block_on(work(reach));
        runtime.shutdown_timeout(Duration::from_secs(2));
        Ok(done)
    }
}

impl Reaching {
    /// A look at this host, with the state folder that was asked for.
    pub(super) fn probe(&self) -> Probe {
        let state_dir = self.state_dir.clone().map(PathBuf::from);
        probe(state_dir.unwrap_or_else(crate::remote::helper::default_state_dir))
    }
}

/// A command that ends early: its exit code, after the reason was said.
pub(super) struct Ended(pub(super) u8);

impl From<String> for Ended {
    fn from(message: String) -> Self {
        complain(&format!("error: {message}"));
        Self(exit::BAD_INPUT)
    }
}

impl From<Failure> for Ended {
    fn from(failure: Failure) -> Self {
        failed(&failure);
        Self(exit::INTERNAL)
    }
}

/// Makes the plan of a playbook, and does something with it and its inventory.
///
/// # Errors
/// The playbook or the command line is wrong, which was told.
pub(super) fn planned<T>(
    playbook: &request::Playbook,
    part: &request::Part,
    work: impl FnOnce(RunPlan, &Inventory) -> Result<T, Ended>,
) -> Result<T, Ended> {
    let asked = request::request(playbook, part)?;
    let mut sources = Sources::default();
    let (loaded, found) = plan::load(&asked, &mut sources);
    match plan::make(&loaded, found, &asked, &mut sources, &mut View::new(&asked.run)) {
        Ok((planned, inventory)) => work(planned, &inventory),
        Err(errors) => {
            complain(&request::errors(&errors, &sources));
            Err(Ended(exit::BAD_INPUT))
        }
    }
}

/// The hosts of a playbook.
pub(super) fn hosts_of(playbook: &request::Playbook) -> Result<Vec<(String, Connection)>, Ended> {
    planned(playbook, &request::Part::default(), |_, inventory| {
        Ok(inventory.hosts.iter().map(|host| (host.name.clone(), host.connection.clone())).collect())
    })
}

/// One JSON object: each host's name with what it answered, or with `unknown` and the reason.
pub(super) fn as_json<T: Serialize>(answers: &BTreeMap<String, Result<T, Failure>>) -> String {
    let of_host = |(name, answer): (&String, &Result<T, Failure>)| {
        let value = match answer {
            Ok(answer) => json!(answer),
            Err(failure) => json!({ "unknown": failure.to_string() }),
        };
        (name.clone(), value)
    };
    format!("{}\n", Value::Object(answers.iter().map(of_host).collect::<Map<_, _>>()))
}

/// Each host's name, and below it what it answered, as `shown` says it.
pub(super) fn as_text<T>(answers: &BTreeMap<String, Result<T, Failure>>, shown: impl Fn(&T) -> String) -> String {
    let mut text = String::new();
    for (name, answer) in answers {
        let said = match answer {
            Ok(answer) => shown(answer),
            Err(failure) => format!("unknown: {}", harmless(&failure.to_string())),
        };
        let _ = writeln!(text, "{name}");
        for line in said.lines() {
            let _ = if line.is_empty() { writeln!(text) } else { writeln!(text, "  {line}") };
        }
    }
    text
}

/// The exit code after all hosts were asked; `wrong` says whether one of those that answered is not well.
pub(super) fn code_of<T>(answers: &BTreeMap<String, Result<T, Failure>>, wrong: bool) -> u8 {
    match (answers.values().any(Result::is_err), wrong) {
        (true, _) => exit::UNREACHABLE,
        (false, true) => exit::FAILED,
        (false, false) => exit::OK,
    }
}
