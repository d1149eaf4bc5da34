//! Kinds of tasks: what each can observe, what it declares, and how it gets from one to the other.
//!
//! One kind is one file here and one line in [`kinds`]. A kind
//!
//! 1. declares its parameters with [`kind!`](crate::kind), which makes the struct, the schema that `fanli doc` shows and
//!    the playbook checker uses, and the reading of arguments, so these cannot disagree;
//! 2. implements [`Resource`]: `desired` from the parameters alone, `observe` with a [`Probe`], `apply` with an [`Actuator`].
//!
//! It does not plan, compare, print or know about check mode: [`crate::change::between`] and the engine do that for every kind.

mod account;
mod action;
pub mod attach;
pub mod command;
pub mod container;
mod content;
pub mod directory;
pub mod file;
pub mod group;
pub mod http;
pub mod image;
pub mod attachments;
pub mod interfaces;
pub mod kinds;
pub mod line;
pub mod link;
pub mod log_audit;
pub mod log_folders;
pub mod logs;
pub mod mount;
mod ownership;
pub mod package;
pub mod param;
mod looked;
mod patience;
pub mod refreshers;
pub mod rollout;
pub mod schema;
pub mod service;
pub mod shell;
pub mod tcp;
pub mod template;
pub mod trace;
pub mod user;
pub mod watcher;

use std::future::Future;

use crate::change::{Change, State};
use crate::failure::Failure;
use crate::system::{Actuator, Probe};
use crate::value::Map;

pub use param::Param;
pub use schema::{ArgError, FieldSpec, ParamType, ResultSpec, Schema};

/// What a kind is by nature; the engine treats each in one way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nature {
    /// It declares a state: observed, compared, applied, verified.
    State,
    /// It does something (a command, a restart). Reported as "ran"; in check mode as "would run". Not verified when
    /// `desired` declares nothing that `observe` can see afterwards.
    Action {
        /// Whether the engine observes again after `apply` (a command with `creates`).
        verify: bool,
    },
    /// It only waits inside `observe` for something to be so, and never applies. Behind unapplied changes: "unknown".
    Wait,
}

/// What `observe` saw.
#[derive(Clone, Debug, PartialEq)]
pub struct Observed {
    /// The state, in the same words and units as `desired`: spelling is never drift.
    pub state: State,
    /// Result fields for later expressions (`stdout`), where looking already gives them.
    pub output: Map,
}

impl From<State> for Observed {
    fn from(state: State) -> Self {
        Self { state, output: Map::new() }
    }
}

/// One kind of task.
pub trait Resource: Sized + Send + Sync {
    /// Rules over several parameters that a type cannot say. Pure: no host is touched.
    ///
    /// Errors name the parameter that should be mended.
    fn check(&self) -> Result<(), ArgError> {
        Ok(())
    }

    /// What this kind is by nature.
    fn nature(&self) -> Nature {
        Nature::State
    }

    /// What should be: only fields that the user declared (or that have a documented default).
    fn desired(&self) -> State;

    /// What is. Failing to look is a failure, never "no change".
    fn observe(&self, probe: &Probe) -> impl Future<Output = Result<Observed, Failure>> + Send;

    /// Makes it so. `change` is the difference that was printed. May be killed at any instruction and simply run again.
    /// The map is the step's result for later expressions.
    fn apply(&self, change: &Change, hands: &Actuator) -> impl Future<Output = Result<Map, Failure>> + Send;

    /// What it is made of, each by kind and name: what may come of it is not known while that was not applied.
    fn stands_on(&self, _probe: &Probe) -> impl Future<Output = Result<Vec<(&'static str, String)>, Failure>> + Send {
        async { Ok(Vec::new()) }
    }

    /// Whether an earlier run was killed before it confirmed or put back what it had applied.
    fn is_open(&self, _probe: &Probe) -> impl Future<Output = Result<bool, Failure>> + Send {
        async { Ok(false) }
    }

    /// Shows that what was applied lasts, and lets go of what there was before: the steps that belong to it went well.
    fn confirm(&self, _hands: &Actuator) -> impl Future<Output = Result<(), Failure>> + Send {
        async { Ok(()) }
    }

    /// Adds to the failure of `apply`, or of a step that belongs to it, what is known of why.
    fn explain(&self, failure: Failure, _probe: &Probe) -> impl Future<Output = Failure> + Send {
        async { failure }
    }

    /// Brings back what there was before `apply`, after such a failure; adds what is there now.
    fn put_back(&self, failure: Failure, _hands: &Actuator) -> impl Future<Output = Failure> + Send {
        async { failure }
    }
}

/// The declared parameters of a kind; made by [`kind!`](crate::kind).
pub trait Declared: Sized {
    /// Name, parameters, results, documentation, example.
    fn schema() -> Schema;
    /// Reads evaluated arguments; every error at once.
    fn from_args(args: Map) -> Result<Self, Vec<ArgError>>;
    /// The arguments that it was read from, with defaults filled in.
    fn args(&self) -> Map;

    /// Reads evaluated arguments and checks them; every error at once.
    fn build(args: Map) -> Result<Self, Vec<ArgError>>
    where
        Self: Resource,
    {
        let built = Self::from_args(args)?;
        built.check().map_err(|error| vec![error])?;
        Ok(built)
    }
}
