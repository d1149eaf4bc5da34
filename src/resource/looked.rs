//! What a step that only looks gives: data of a type, as the map that crosses the wire and that later tasks see.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::container::{from_json, to_json};
use crate::failure::{Context as _, Failure};
use crate::value::{Map, Value};

/// Returns what was found as a step's result; `what` names it in messages.
pub(super) fn to_output(found: &impl Serialize, what: &str) -> Result<Map, Failure> {
    match serde_json::to_value(found).map(from_json).with_context(|| format!("cannot tell {what}"))? {
        Value::Map(map) => Ok(map),
        other => Err(Failure::new(format!("{what} are no {}", other.type_name()))),
    }
}

/// Reads a step's result of another host.
///
/// # Errors
/// It is something else.
pub(super) fn from_output<T: DeserializeOwned>(output: &Map, what: &str) -> Result<T, Failure> {
    serde_json::from_value(to_json(&Value::Map(output.clone())))
        .with_context(|| format!("a host told something else than its {what}"))
}
