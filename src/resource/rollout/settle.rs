//! `settle`: gives trouble the time to show itself.

use std::time::Duration;

use crate::change::{Change, Fields, State};
use crate::failure::Failure;
use crate::resource::{ArgError, Nature, Observed, Resource};
use crate::system::access_log::{Served, check_pattern};
use crate::system::{Actuator, Probe};
use crate::value::{Map, Value};

/// The longest pause.
const LONGEST: Duration = Duration::from_secs(3600);

crate::kind! {
    /// Waits for a while: what is checked behind it has had the time to go wrong.
    ///
    /// A rollout puts it between the batches: `settle = 30s`. The time is that of a clock that nobody sets. With `logs` it tells
    /// what the access logs of nodes say of that while.
    pub struct Settle = "settle" {
        /// How long.
        time: Duration,
        /// Access logs by the node that writes them: paths with `*`, in Apache's or nginx's common or combined format.
        logs: Map = Map::new(),
    }
    results {
        "served": "for each node of `logs` its `requests`; those of them with a status of 500 or above (`errors`), with 404 \
            (`not_found`), and of 400 or above (`refused`); and how many `files` there are; or, as `unread`, why its logs cannot be read",
    }
    example "settle 2s"
}

impl Settle {
    /// Each node with its logs.
    fn patterns(&self) -> impl Iterator<Item = (&String, &str)> {
        self.logs.iter().map(|(node, pattern)| (node, pattern.as_str().unwrap_or_default()))
    }
}

/// What one node served, as a result tells it.
fn told(served: Result<Served, Failure>) -> Value {
    let number = |number: u64| Value::Int(i64::try_from(number).unwrap_or(i64::MAX));
    let fields = match served {
        Ok(Served { requests, errors, not_found, refused, files }) => vec![
            ("requests", number(requests)),
            ("errors", number(errors)),
            ("not_found", number(not_found)),
            ("refused", number(refused)),
            ("files", number(files)),
        ],
        Err(failure) => vec![("unread", Value::Str(failure.to_string()))],
    };
    Value::Map(fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

/// Reads what [`told`] wrote of a node; `None` when its logs could not be read.
pub fn read_served(fields: &Map) -> Option<Served> {
    let number = |name: &str| match fields.get(name) {
        Some(Value::Int(number)) => u64::try_from(*number).ok(),
        _ => None,
    };
    Some(Served {
        requests: number("requests")?,
        errors: number("errors")?,
        not_found: number("not_found")?,
        refused: number("refused")?,
        files: number("files")?,
    })
}

impl Resource for Settle {
    fn check(&self) -> Result<(), ArgError> {
        if self.time > LONGEST {
            return Err(ArgError::new("time", "is longer than an hour"));
        }
        for pattern in self.logs.values() {
            let text = pattern.as_str().ok_or_else(|| format!("`{pattern}` is not a path"));
            text.and_then(check_pattern).map_err(|message| ArgError::new("logs", message))?;
        }
        Ok(())
    }

    fn nature(&self) -> Nature {
        Nature::Wait
    }

    fn desired(&self) -> State {
        State::Present(Fields::new())
    }

    async fn observe(&self, probe: &Probe) -> Result<Observed, Failure> {
        probe.progress("settling", None);
        let before: Vec<_> = self.patterns().map(|(_, pattern)| probe.log_marks(pattern)).collect();
        tokio::time::sleep(self.time).await;
        // One node's logs that cannot be read say nothing about the others.
        let served = self.patterns().zip(before).map(|((node, pattern), marks)| {
            (node.clone(), told(marks.and_then(|marks| probe.served_since(pattern, &marks))))
        });
        let output = Map::from([("served".to_owned(), Value::Map(served.collect()))]);
        Ok(Observed { state: State::Present(Fields::new()), output })
    }

    async fn apply(&self, _change: &Change, _hands: &Actuator) -> Result<Map, Failure> {
        Ok(Map::new())
    }
}
