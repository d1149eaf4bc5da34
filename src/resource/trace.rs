//! `trace`: what is between a node and the rest of the network, step by step. It only looks.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::attach::Attach;
use super::container::{from_json, to_json};
use super::{ArgError, Declared as _, Observed, Resource};
use crate::change::{Change, Fields, State};
use crate::failure::{Context as _, Failure};
use crate::system::{Actuator, Probe};
use crate::value::{Map, Value};

crate::kind! {
    /// Looks along the way of a node's packets and says what is wrong there; changes nothing.
    ///
    /// It looks from the node's own host. `fanli net trace` runs it on the hosts concerned and reads what it gives; a task of its own can guard what comes after it:
    /// `when = seen.first_wrong == null`.
    pub struct Trace = "trace" {
        /// The arguments of the `attach` that is looked along.
        attach: Map,
        /// An address to reach from the node.
        to: Option<IpAddr>,
        /// A TCP port there.
        port: Option<i64>,
    }
    results {
        "checks": "each has `what`, `verdict` (ok, wrong or unknown), `detail`, and `way_out` where something is wrong",
        "path": "the same, for the way to the address",
        "first_wrong": "the first thing that is wrong, in one sentence; null when nothing is",
    }
    example r#"# presumes the node "fanli-example" with the interface that `attach` declares
interface = {
  network   = "example-lan"
  container = "fanli-example"
  parent    = "eth0"
  subnet    = 10.77.9.0/24
  address   = 10.77.9.2
}
trace interface as seen { to = 10.77.9.1 }"#
}

/// One thing on the way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// What was looked at, in a word or two.
    pub what: String,
    /// How it is.
    pub verdict: Verdict,
    /// What was found; a full sentence where it is wrong.
    pub detail: String,
    /// The way out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub way_out: Option<String>,
}

/// How a thing on the way is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// Not so.
    Wrong,
    /// It could not be looked at, as something before it is wrong.
    Unknown,
}

/// Everything on the way.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Way {
    /// The node itself, and what carries it.
    pub checks: Vec<Check>,
    /// From the node to an address.
    pub path: Vec<Check>,
}

impl Way {
    /// Reads what a step of kind `trace` gave.
    ///
    /// # Errors
    /// It is something else.
    pub fn from_output(output: &Map) -> Result<Self, Failure> {
        let mut output = output.clone();
        output.remove("first_wrong");
        serde_json::from_value(to_json(&Value::Map(output))).context("a host told something else than a way")
    }

    /// The first thing that is wrong.
    pub fn first_wrong(&self) -> Option<&Check> {
        self.checks.iter().chain(&self.path).find(|check| check.verdict == Verdict::Wrong)
    }
}

impl Trace {
    fn attach(&self) -> Result<Attach, ArgError> {
        let built = Attach::from_args(self.attach.clone());
        let attach = built.map_err(|errors| {
            let told = errors.iter().map(|error| format!("`{}`: {}", error.field, error.message));
            ArgError::new("attach", told.collect::<Vec<_>>().join("; "))
        })?;
        attach.check().map_err(|error| ArgError::new("attach", format!("`{}`: {}", error.field, error.message)))?;
        Ok(attach)
    }

    fn tcp_port(&self) -> Result<Option<u16>, ArgError> {
        let misfit = |port| ArgError::new("port", format!("`{port}` is not a port; they are 1 to 65535"));
        self.port.map(|port| u16::try_from(port).ok().filter(|port| *port > 0).ok_or_else(|| misfit(port))).transpose()
    }
}

impl Resource for Trace {
    fn check(&self) -> Result<(), ArgError> {
        self.attach()?;
        self.tcp_port()?;
        Ok(())
    }

    fn desired(&self) -> State {
        State::Present(Fields::new())
    }

    async fn observe(&self, probe: &Probe) -> Result<Observed, Failure> {
        let misfit = |error: ArgError| Failure::new(format!("`{}`: {}", error.field, error.message));
        let (attach, port) = (self.attach().map_err(misfit)?, self.tcp_port().map_err(misfit)?);
        let way = attach.trace(probe, self.to, port).await?;
        let told = serde_json::to_value(&way).map(from_json).context("cannot tell the way")?;
        let Value::Map(mut output) = told else { return Err(Failure::new("a way is a map")) };
        let wrong = way.first_wrong().map_or(Value::Null, |check| Value::Str(check.detail.clone()));
        output.insert("first_wrong".to_owned(), wrong);
        Ok(Observed { state: State::Present(Fields::new()), output })
    }

    async fn apply(&self, _change: &Change, _hands: &Actuator) -> Result<Map, Failure> {
        // There is nothing that could differ.
        Ok(Map::new())
    }
}
