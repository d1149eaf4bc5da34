//! A failure of a running step, as it crosses the wire: a message, its causes, a way out.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// What class of failure this is; decides the exit code and whether a retry makes sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FailureKind {
    /// The step did not work.
    Step,
    /// A named limit of time ran out.
    Timeout,
    /// The step was applied, yet observing again still shows a difference.
    DidNotConverge,
    /// The host could not be reached, or its helper could not be started.
    Unreachable,
    /// The connection or the helper went away before it said how the run ended.
    Lost,
    /// The host said what it may not: nothing that it says counts any more.
    Untrusted,
    /// Another run is at work on the host, or on another host of this run: nothing was done.
    Busy,
    /// The run was stopped by a signal.
    Aborted,
    /// A defect of fanli itself.
    Internal,
}

/// A failure in plain data: never a local error type, so that it reads the same on both ends of the wire.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Its class.
    pub kind: FailureKind,
    /// What failed, in lower case, to follow "failed: ".
    pub message: String,
    /// Why, outermost first.
    pub causes: Vec<String>,
    /// The way out, where one is known.
    pub hint: Option<String>,
    /// The same for programs: what the message speaks of, by name. Most failures have nothing there.
    pub facts: BTreeMap<String, String>,
}

impl Failure {
    /// A failure of class [`FailureKind::Step`].
    pub fn new(message: impl Into<String>) -> Self {
        Self::of(FailureKind::Step, message)
    }

    /// A failure of any class.
    pub fn of(kind: FailureKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), causes: Vec::new(), hint: None, facts: BTreeMap::new() }
    }

    /// A limit of time that ran out. Limits have names so that the message can say which one to raise.
    pub fn timeout(limit: &str, after: std::time::Duration) -> Self {
        Self::of(FailureKind::Timeout, format!("over its limit `{limit}` of {}", crate::value::show_duration(after)))
    }

    /// Adds the way out.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds something for programs.
    #[must_use]
    pub fn fact(mut self, name: &str, value: impl fmt::Display) -> Self {
        self.facts.insert(name.to_owned(), value.to_string());
        self
    }

    /// Adds a cause below the message.
    #[must_use]
    pub fn because(mut self, cause: impl fmt::Display) -> Self {
        self.causes.push(cause.to_string());
        self
    }

    /// Puts a wider message on top; the old one becomes the first cause.
    #[must_use]
    pub fn within(mut self, message: impl Into<String>) -> Self {
        let inner = std::mem::replace(&mut self.message, message.into());
        self.causes.insert(0, inner);
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        for cause in &self.causes {
            write!(f, ": {cause}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Failure {}

/// Turns any error into a [`Failure`] with a message about what was being done.
pub trait Context<T> {
    /// On error: `message` first, the error as its cause.
    fn context(self, message: impl Into<String>) -> Result<T, Failure>;
    /// As [`Context::context`], with the message made only when needed.
    fn with_context(self, message: impl FnOnce() -> String) -> Result<T, Failure>;
}

impl<T, E: std::error::Error> Context<T> for Result<T, E> {
    fn context(self, message: impl Into<String>) -> Result<T, Failure> {
        self.with_context(|| message.into())
    }

    fn with_context(self, message: impl FnOnce() -> String) -> Result<T, Failure> {
        self.map_err(|error| {
            let mut failure = Failure::new(message()).because(&error);
            let mut source = error.source();
            while let Some(inner) = source {
                let text = inner.to_string();
                // Many libraries repeat the cause inside their own message.
                if !failure.causes.iter().any(|cause| cause.contains(&text)) {
                    failure.causes.push(text);
                }
                source = inner.source();
            }
            failure
        })
    }
}
