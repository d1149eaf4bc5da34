//! What is, what should be, and the difference: the one comparison that every kind shares.
//!
//! Check mode, diffs, drift reports and idempotence all come from [`between`], so they cannot disagree with a real run.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::value::{Blob, Digest, Value, show_size};

/// The fields of a thing, by name.
pub type Fields = BTreeMap<String, Datum>;

/// The field that stands for the work of an action itself, where nothing else can be seen of it.
pub const DONE: &str = "done";

/// A thing as it is or as it should be. A kind puts only what the user asked for into the desired state.
#[derive(Clone, Debug, PartialEq)]
pub enum State {
    /// It does not exist (or must not).
    Absent,
    /// It exists, with these fields.
    Present(Fields),
}

impl State {
    /// A present thing from `(name, datum)` pairs.
    pub fn present<N: Into<String>, D: Into<Datum>>(fields: impl IntoIterator<Item = (N, D)>) -> Self {
        Self::Present(fields.into_iter().map(|(name, datum)| (name.into(), datum.into())).collect())
    }

    /// The field of that name, when the thing exists and has it.
    pub fn field(&self, name: &str) -> Option<&Datum> {
        match self {
            Self::Absent => None,
            Self::Present(fields) => fields.get(name),
        }
    }
}

/// One field's content.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Datum {
    /// The field itself does not exist: an address that is not set, a user without a shell.
    Absent,
    /// A value that is compared as it stands.
    Value(Value),
    /// Bytes, compared by hash. The bytes ride along where they were read anyway, for the diff.
    Content {
        /// Hash and length.
        blob: Blob,
        /// The bytes, when at hand. They do not cross the wire.
        #[serde(skip)]
        bytes: Option<Arc<[u8]>>,
    },
}

impl PartialEq for Datum {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Absent, Self::Absent) => true,
            (Self::Value(left), Self::Value(right)) => left == right,
            (Self::Content { blob: left, .. }, Self::Content { blob: right, .. }) => left.digest == right.digest,
            _ => false,
        }
    }
}

impl Datum {
    /// Content from bytes that were read.
    pub fn content(bytes: impl Into<Arc<[u8]>>) -> Self {
        let bytes = bytes.into();
        Self::Content { blob: Blob { digest: Digest::of(&bytes), len: bytes.len() as u64 }, bytes: Some(bytes) }
    }
}

impl<V: Into<Value>> From<V> for Datum {
    fn from(value: V) -> Self {
        Self::Value(value.into())
    }
}

impl From<Blob> for Datum {
    fn from(blob: Blob) -> Self {
        Self::Content { blob, bytes: None }
    }
}

impl fmt::Display for Datum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => f.write_str("absent"),
            Self::Value(value) => write!(f, "{value}"),
            Self::Content { blob, .. } => write!(f, "{} ({})", blob.digest.short(), show_size(blob.len)),
        }
    }
}

/// What happens to the thing as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verb {
    /// It comes into being.
    Create,
    /// Some fields change.
    Update,
    /// It goes away.
    Remove,
}

/// One field that differs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FieldChange {
    /// The field's name.
    pub field: String,
    /// What was observed.
    pub from: Datum,
    /// What was declared.
    pub to: Datum,
    /// A unified diff, made by the engine for content when the run asks for diffs.
    pub diff: Option<String>,
}

/// The difference between desired and observed: what is printed, and the very value that `apply` receives.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// What happens to the thing as a whole.
    pub verb: Verb,
    /// The fields that differ, in the order of their names.
    pub fields: Vec<FieldChange>,
}

impl Change {
    /// The change of that field, if it changes.
    pub fn field(&self, name: &str) -> Option<&FieldChange> {
        self.fields.iter().find(|change| change.field == name)
    }

    /// Whether the field changes.
    pub fn touches(&self, name: &str) -> bool {
        self.field(name).is_some()
    }
}

/// The change that leads from `observed` to `desired`; `None` when there is nothing to do.
///
/// Only fields of `desired` count: what the user did not declare is not fanli's business.
pub fn between(desired: &State, observed: &State) -> Option<Change> {
    match (desired, observed) {
        (State::Absent, State::Absent) => None,
        (State::Absent, State::Present(_)) => Some(Change { verb: Verb::Remove, fields: Vec::new() }),
        (State::Present(wanted), State::Absent) => {
            Some(Change { verb: Verb::Create, fields: differing(wanted, &Fields::new()) })
        }
        (State::Present(wanted), State::Present(found)) => {
            let fields = differing(wanted, found);
            (!fields.is_empty()).then_some(Change { verb: Verb::Update, fields })
        }
    }
}

fn differing(wanted: &Fields, found: &Fields) -> Vec<FieldChange> {
    wanted
        .iter()
        .filter_map(|(name, to)| {
            let from = found.get(name).unwrap_or(&Datum::Absent);
            let change = || FieldChange { field: name.clone(), from: from.clone(), to: to.clone(), diff: None };
            (from != to).then(change)
        })
        .collect()
}
