//! `standing`: how a node stands before a rollout does anything to it. It only looks.

use std::time::Duration;

use super::Record;
use crate::change::{Change, Fields, State};
use crate::failure::Failure;
use crate::resource::{ArgError, Observed, Resource};
use crate::system::docker::container_name;
use crate::system::http::{Request, check_url};
use crate::system::{Actuator, Probe};
use crate::value::{Map, Value};

/// How long a node that is well may take to say so (`standing`).
const ANSWER: Duration = Duration::from_secs(3);

crate::kind! {
    /// Looks how a node stands: whether it runs, whether it needs what a rollout brings, and whether it is well; changes nothing.
    ///
    /// A rollout puts it before everything else; nodes that are not well count against its `budget`.
    pub struct Standing = "standing" {
        /// The node's container.
        container: String,
        /// The slots that it mounts, each with the generation that it should show.
        slots: Map = Map::new(),
        /// Whether the rollout changes more than slots: then only its tasks know whether the node needs them.
        changes: bool = false,
        /// A page that answers with a status below 400 when the node is well.
        url: Option<String>,
    }
    results {
        "running": "whether the container runs",
        "pending": "whether it needs what is rolled out",
        "sick": "whether it is there and not well",
    }
    example r#"standing "fanli-example" { slots = { "/data/conf" = "5f0c3a9be1d2" }  url = "http://10.77.9.2/ping" }"#
}

impl Standing {
    /// Whether a slot shows another generation, or nobody has said that this one is to stay.
    fn is_pending(path: &str, generation: &Value, probe: &Probe) -> Result<bool, Failure> {
        let wanted = generation.as_str();
        let shown = probe.slot(path)?.and_then(|slot| slot.current);
        Ok(shown.as_deref() != wanted || Record::read(probe, path)?.is_some_and(|record| record.is_open()))
    }

    async fn answers(url: &str, probe: &Probe) -> bool {
        let request = Request { verify: false, ..Request::get(url, ANSWER) };
        probe.http(&request).await.is_ok_and(|answer| answer.status < 400)
    }
}

impl Resource for Standing {
    fn check(&self) -> Result<(), ArgError> {
        container_name(&self.container).map_err(|message| ArgError::new("container", message))?;
        if let Some(url) = &self.url {
            check_url(url).map_err(|message| ArgError::new("url", message))?;
        }
        Ok(())
    }

    fn desired(&self) -> State {
        State::Present(Fields::new())
    }

    async fn observe(&self, probe: &Probe) -> Result<Observed, Failure> {
        let mut pending = self.changes;
        for (path, generation) in &self.slots {
            pending |= Self::is_pending(path, generation, probe)?;
        }
        // Before the first play of its nodes a host need not even have Docker.
        let found = match probe.docker() {
            Ok(docker) => docker.container(&self.container).await?,
            Err(_) => None,
        };
        let running = found.as_ref().is_some_and(|found| found.pid.is_some());
        let well = match &self.url {
            Some(url) if running => Self::answers(url, probe).await,
            _ => running,
        };
        let output = [("running", running), ("pending", pending), ("sick", found.is_some() && !well)];
        let output = output.into_iter().map(|(name, flag)| (name.to_owned(), Value::Bool(flag))).collect();
        Ok(Observed { state: State::Present(Fields::new()), output })
    }

    async fn apply(&self, _change: &Change, _hands: &Actuator) -> Result<Map, Failure> {
        Ok(Map::new())
    }
}
