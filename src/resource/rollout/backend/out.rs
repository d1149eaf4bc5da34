//! What a host remembers of the servers that rollouts take out of traffic: `STATE/rollout/out/HASH.json`, a file for each.
//!
//! A balancer does not tell why a server gets nothing. A run that is killed between drain and ready leaves one so, and nothing else on any
//! host says that it is waiting for its way back: the record does. It is written before the order to the balancer and removed after the
//! server is back, so a kill in between leaves a record too many and never one too few; what is still true of it, the balancer tells.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::super::{folder, make_folder, now};
use super::{Backend, Seen, Wanted};
use crate::change::{Change, Fields, State};
use crate::failure::{Context as _, Failure};
use crate::resource::container::to_json;
use crate::resource::{ArgError, Declared as _, Observed, Param as _, Resource};
use crate::system::fs::{Attrs, is_other_run_at_work};
use crate::system::{Actuator, Probe};
use crate::value::{Digest, Map, Value};

/// The longest record that is read, in bytes.
const MOST_RECORD: u64 = 1 << 20;

/// The arguments of a `backend` that say which server it is, and where.
const IDENTITY: [&str; 6] = ["name", "pool", "haproxy", "nginx", "command", "container"];

/// A server that a rollout has taken out of traffic.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct OutRecord {
    /// The title of the rollout.
    rollout: String,
    /// The `backend` task that brings the server back.
    backend: Map,
    /// When it was taken out: seconds since 1970.
    since: u64,
}

fn out_folder(probe: &Probe) -> PathBuf {
    folder(probe.state_dir()).join("out")
}

fn path_of(probe: &Probe, backend: &Backend) -> PathBuf {
    let mut identity = backend.args();
    identity.retain(|name, _| IDENTITY.contains(&name.as_str()));
    let text = to_json(&Value::Map(identity)).to_string();
    out_folder(probe).join(format!("{}.json", Digest::of(text.as_bytes()).short()))
}

/// Reads the arguments of a `backend`; else what is wrong with them.
fn read(args: &Map) -> Result<Backend, String> {
    Backend::build(args.clone()).map_err(|errors| errors.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))
}

impl OutRecord {
    /// The record of a server; `None` when no rollout has taken it out.
    fn read(probe: &Probe, path: &Path) -> Result<Option<Self>, Failure> {
        let Some(bytes) = probe.read(path, MOST_RECORD)? else { return Ok(None) };
        serde_json::from_slice(&bytes).map(Some).with_context(|| format!("{} is damaged", path.display())).map_err(
            |failure| failure.hint("it tells that a server was taken out of traffic: where that is over, remove it"),
        )
    }

    /// Reads the task that brings the server back.
    fn backend(&self) -> Result<Backend, Failure> {
        read(&self.backend).map_err(|wrong| Failure::new("the server does not fit this fanli").because(wrong))
    }
}

impl Backend {
    /// Whether the host remembers that a rollout has taken this server out.
    pub(super) fn is_remembered(&self, probe: &Probe) -> Result<bool, Failure> {
        Ok(probe.stat(path_of(probe, self))?.is_some())
    }

    /// Writes down that its rollout takes this server out. Durable when it returns.
    pub(super) fn remember(&self, hands: &Actuator) -> Result<(), Failure> {
        let Some(rollout) = &self.rollout else { return Ok(()) };
        let mut backend = self.args();
        backend.remove("rollout");
        backend.insert("state".to_owned(), Value::from(Wanted::Ready.show()));
        let record = OutRecord { rollout: rollout.clone(), backend, since: now() };
        make_folder(hands)?;
        hands.own_dirs([out_folder(hands)])?;
        let text = serde_json::to_vec_pretty(&record).context("cannot write the record of a server")?;
        hands.replace(path_of(hands, self), &text, Attrs::mode(0o600))
    }

    /// Removes that note: the server is back.
    pub(super) fn forget(&self, hands: &Actuator) -> Result<(), Failure> {
        hands.remove_file(path_of(hands, self))
    }
}

/// What a person does about a server that was left out of traffic.
pub const OUT_HELP: &str = "run the playbook again, or `fanli rollout rollback`";

/// A server that a rollout has taken out of traffic and no run has brought back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutSeen {
    /// The server, with its pool: `web/web08010`; of a record that cannot be read, the record's name.
    pub server: String,
    /// The title of the rollout.
    pub rollout: String,
    /// Where the balancer says that it stands; nothing when it cannot be asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// Whether it was left so: no run is at work on this host.
    pub left: bool,
    /// Why the balancer cannot be asked, or the record not be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
    /// When it was taken out: seconds since 1970.
    pub since: u64,
}

impl OutSeen {
    /// Returns the servers of this host's balancers that rollouts have left out of traffic, by name.
    ///
    /// # Errors
    /// The folder of records cannot be read.
    pub async fn all(probe: &Probe) -> Result<Vec<Self>, Failure> {
        let folder = out_folder(probe);
        let names = probe.record_names(&folder)?;
        let left = !names.is_empty() && !is_other_run_at_work(probe.state_dir())?;
        let mut found = Vec::new();
        for name in names {
            match OutRecord::read(probe, &folder.join(&name)) {
                Ok(None) => {}
                Ok(Some(record)) => found.extend(Self::of(&record, &name, left, probe).await),
                Err(failure) => found.push(Self::unreadable(&name, &failure)),
            }
        }
        found.sort_by(|left, right| left.server.cmp(&right.server));
        Ok(found)
    }

    async fn of(record: &OutRecord, name: &str, left: bool, probe: &Probe) -> Option<Self> {
        let (server, seen) = match record.backend() {
            Ok(backend) => (backend.shown(), backend.look(probe).await),
            Err(failure) => (name.to_owned(), Err(failure)),
        };
        // It is back: by a run that was killed before it could say so, or by a person.
        if seen.as_ref().is_ok_and(|seen| !seen.out) {
            return None;
        }
        let (state, trouble) = match seen {
            Ok(Seen { shown, .. }) => (Some(shown), None),
            Err(failure) => (None, Some(failure.to_string())),
        };
        Some(Self { server, rollout: record.rollout.clone(), state, left, trouble, since: record.since })
    }

    fn unreadable(name: &str, failure: &Failure) -> Self {
        Self {
            server: name.to_owned(),
            rollout: String::new(),
            state: None,
            left: false,
            trouble: Some(failure.to_string()),
            since: 0,
        }
    }

    /// Whether a person should look at it: no run brings it back, or nothing can be said of it.
    pub fn is_wrong(&self) -> bool {
        self.left || self.trouble.is_some()
    }
}

crate::kind! {
    /// Looks whether a rollout that was broken off has left a node's servers out of traffic; changes nothing.
    ///
    /// A rollout puts it before everything else: a node that needs nothing is given back to the balancer.
    pub struct LeftOut = "left_out" {
        /// The node.
        node: String,
        /// Its servers, each with the arguments of a `backend`.
        servers: Vec<Map>,
    }
    results {
        "out": "whether one of the servers gets nothing new, as a rollout has taken it out and no run has brought it back",
    }
    example r#"left_out "fanli-example" {
  servers = [{ name = "fanli-example"  pool = "web"  state = "ready"  haproxy = "/run/haproxy/admin.sock" }]
}"#
}

impl LeftOut {
    fn backends(&self) -> Result<Vec<Backend>, String> {
        self.servers.iter().map(read).collect()
    }
}

impl Resource for LeftOut {
    fn check(&self) -> Result<(), ArgError> {
        self.backends().map(drop).map_err(|message| ArgError::new("servers", message))
    }

    fn desired(&self) -> State {
        State::Present(Fields::new())
    }

    async fn observe(&self, probe: &Probe) -> Result<Observed, Failure> {
        let mut out = false;
        for backend in self.backends().map_err(Failure::new)? {
            // Before the first run there may be no balancer; and one that cannot be asked is no reason to hold up a run that may mend it.
            out |= backend.is_remembered(probe)? && backend.look(probe).await.is_ok_and(|seen| seen.out);
        }
        Ok(Observed { state: State::Present(Fields::new()), output: Map::from([("out".to_owned(), Value::Bool(out))]) })
    }

    async fn apply(&self, _change: &Change, _hands: &Actuator) -> Result<Map, Failure> {
        Ok(Map::new())
    }
}
