//! `standing`: how a node stands before a rollout does anything to it. It only looks.

use std::pin::Pin;
use std::time::Duration;

use super::halt::halted;
use super::{FormerRecord, Record, RevertStep};
use crate::change::{Change, Fields, State, between};
use crate::failure::Failure;
use crate::resource::kinds::Kind;
use crate::resource::{ArgError, Nature, Observed, Resource};
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
        /// The tasks that change the node, each `{ kind = "…"  args = { … } }`: it needs them when one of them would do something.
        tasks: Vec<Map> = Vec::new(),
        /// Whether it is changed in a way that nobody can look at before.
        changes: bool = false,
        /// A page that answers with a status below 400 when the node is well.
        url: Option<String>,
    }
    results {
        "running": "whether the container runs",
        "pending": "whether it needs what is rolled out",
        "sick": "whether it is there and not well",
        "differs": "whether one of the tasks would do something, or nobody can know before",
        "begun": "whether a rollout has begun to make its container anew, and did not come to its end",
        "halted": "who halted the rollouts of this host, when and why; null when nobody did",
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

    /// The node's own, and those that its tasks make.
    fn containers(&self) -> impl Iterator<Item = &str> {
        let named = self.tasks.iter().filter(|task| task.get("kind") == Some(&Value::from("container")));
        let named = named.filter_map(|task| match task.get("args") {
            Some(Value::Map(args)) => args.get("name")?.as_str(),
            _ => None,
        });
        [self.container.as_str()].into_iter().chain(named)
    }

    fn steps(&self) -> Result<Vec<RevertStep>, String> {
        self.tasks.iter().map(RevertStep::read).collect()
    }

    /// Whether a task would do something. What follows the first one that would may depend on it, and is not looked at.
    async fn is_unlike(&self, probe: &Probe) -> Result<bool, Failure> {
        for step in self.steps().map_err(Failure::new)? {
            let kind = step.build()?;
            if kind.nature() == Nature::Wait {
                continue;
            }
            let seen = look(&kind, probe).await.map_err(|failure| failure.within(format!("`{}`", step.show())))?;
            if between(&kind.desired(), &seen.state).is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn answers(url: &str, probe: &Probe) -> bool {
        let request = Request { verify: false, ..Request::get(url, ANSWER) };
        probe.http(&request).await.is_ok_and(|answer| answer.status < 400)
    }
}

/// A kind that looks at another one: the size of that is not known here.
fn look<'a>(kind: &'a Kind, probe: &'a Probe) -> Pin<Box<dyn Future<Output = Result<Observed, Failure>> + Send + 'a>> {
    Box::pin(kind.observe(probe))
}

type Under = Result<Vec<(&'static str, String)>, Failure>;

/// What another kind is made of; boxed for the same reason.
fn under<'a>(kind: &'a Kind, probe: &'a Probe) -> Pin<Box<dyn Future<Output = Under> + Send + 'a>> {
    Box::pin(kind.stands_on(probe))
}

impl Resource for Standing {
    fn check(&self) -> Result<(), ArgError> {
        container_name(&self.container).map_err(|message| ArgError::new("container", message))?;
        if let Some(url) = &self.url {
            check_url(url).map_err(|message| ArgError::new("url", message))?;
        }
        self.steps().map(drop).map_err(|message| ArgError::new("tasks", message))
    }

    fn desired(&self) -> State {
        State::Present(Fields::new())
    }

    async fn observe(&self, probe: &Probe) -> Result<Observed, Failure> {
        // A container that a rollout has not finished with needs one, whatever it is; one that changes no container can do nothing about it.
        let mut begun = false;
        for container in self.containers().filter(|_| self.changes || !self.tasks.is_empty()) {
            begun |= FormerRecord::read(probe, container)?.is_some_and(|record| record.is_open());
        }
        let mut pending = begun;
        for (path, generation) in &self.slots {
            pending |= Self::is_pending(path, generation, probe)?;
        }
        // Before the first play of its nodes a host need not even have Docker.
        let (found, unlike) = match probe.docker() {
            Ok(docker) => (docker.container(&self.container).await?, begun || self.is_unlike(probe).await?),
            Err(_) => (None, !self.tasks.is_empty()),
        };
        let differs = self.changes || unlike;
        pending |= differs;
        let running = found.as_ref().is_some_and(|found| found.pid.is_some());
        let well = match &self.url {
            Some(url) if running => Self::answers(url, probe).await,
            _ => running,
        };
        let sick = found.is_some() && !well;
        let output =
            [("running", running), ("pending", pending), ("sick", sick), ("differs", differs), ("begun", begun)];
        let mut output: Map = output.into_iter().map(|(name, flag)| (name.to_owned(), Value::Bool(flag))).collect();
        let halted = halted(probe)?.map_or(Value::Null, |mark| Value::Str(mark.show()));
        output.insert("halted".to_owned(), halted);
        Ok(Observed { state: State::Present(Fields::new()), output })
    }

    async fn stands_on(&self, probe: &Probe) -> Result<Vec<(&'static str, String)>, Failure> {
        let mut all = Vec::new();
        for step in self.steps().map_err(Failure::new)? {
            all.extend(under(&step.build()?, probe).await?);
        }
        Ok(all)
    }

    async fn apply(&self, _change: &Change, _hands: &Actuator) -> Result<Map, Failure> {
        Ok(Map::new())
    }
}
