//! `halt`: the mark that stops every rollout of a host until somebody takes it away.

use serde::{Deserialize, Serialize};

use super::{folder, make_folder, now};
use crate::calendar::utc;
use crate::change::{Change, Fields, State, Verb};
use crate::failure::{Context as _, Failure};
use crate::resource::param::Presence;
use crate::resource::{ArgError, Observed, Resource};
use crate::system::fs::Attrs;
use crate::system::{Actuator, Probe};
use crate::value::{Map, Value};

/// The longest mark that is read, in bytes.
const MOST_MARK: u64 = 64 << 10;

crate::kind! {
    /// Keeps this host from switching any slot, and a rollout from changing a container, or lets it again.
    ///
    /// The mark stays until it is taken away: through other runs, and after a restart of the host. While it is there `switch`
    /// refuses to turn a slot, and `former` to begin with a container; `revert`, `confirm` and the host's own revert go on, as they end
    /// what was begun. A mark that is there already keeps its reason. `fanli rollout halt` and `fanli rollout resume` set it and take it away on all hosts.
    pub struct Halt = "halt" {
        /// Why, for those who find it.
        reason: Option<String>,
        /// Who says so.
        by: Option<String>,
        /// Whether it is to be there.
        state: Presence = Presence::Present,
    }
    results {
        "halted": "whether the mark is there",
        "why": "its reason",
        "by": "who set it",
        "since": "when: seconds since 1970",
    }
    example r#"halt "the canary logs errors" { by = "operator" }"#
}

/// Who stopped the rollouts of a host, when, and why.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HaltMark {
    /// Why.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub why: String,
    /// Who.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub by: String,
    /// When: seconds since 1970.
    #[serde(default)]
    pub since: u64,
}

impl HaltMark {
    /// `by operator since 2026-11-25 08:12:01 UTC: the canary logs errors`
    pub fn show(&self) -> String {
        let by = if self.by.is_empty() { String::new() } else { format!("by {} ", self.by) };
        let why = if self.why.is_empty() { String::new() } else { format!(": {}", self.why) };
        format!("{by}since {} UTC{why}", utc(self.since))
    }
}

/// The mark of this host, when it is there.
///
/// # Errors
/// It cannot be read. One that holds something else still counts.
pub fn halted(probe: &Probe) -> Result<Option<HaltMark>, Failure> {
    let Some(bytes) = probe.read(folder(probe.state_dir()).join("halted"), MOST_MARK)? else { return Ok(None) };
    let unknown = || HaltMark { why: "the mark cannot be read".to_owned(), ..HaltMark::default() };
    Ok(Some(serde_json::from_slice(&bytes).unwrap_or_else(|_| unknown())))
}

/// Refuses what must not be done on a host that is halted; `what` says what is not done.
pub(super) fn refuse_halted(probe: &Probe, what: &str) -> Result<(), Failure> {
    match halted(probe)? {
        None => Ok(()),
        Some(mark) => Err(Failure::new(format!("{what}: rollouts are halted on this host"))
            .because(format!("halted {}", mark.show()))
            .hint("when the reason is gone: `fanli rollout resume`")
            .fact(super::HALTED, mark.show())),
    }
}

impl Resource for Halt {
    fn check(&self) -> Result<(), ArgError> {
        for (field, text) in [("reason", &self.reason), ("by", &self.by)] {
            if text.as_ref().is_some_and(|text| text.len() > 1000 || text.contains(char::is_control)) {
                return Err(ArgError::new(field, "is not one line of up to 1000 bytes"));
            }
            if self.state == Presence::Absent && text.is_some() {
                return Err(ArgError::new(field, "means nothing for a mark that is to be `absent`"));
            }
        }
        Ok(())
    }

    fn desired(&self) -> State {
        match self.state {
            Presence::Present => State::Present(Fields::new()),
            Presence::Absent => State::Absent,
        }
    }

    async fn observe(&self, probe: &Probe) -> Result<Observed, Failure> {
        let Some(mark) = halted(probe)? else {
            return Ok(Observed { state: State::Absent, output: Map::from([("halted".to_owned(), false.into())]) });
        };
        let since = Value::Int(i64::try_from(mark.since).unwrap_or(i64::MAX));
        let output = [("halted", true.into()), ("why", mark.why.into()), ("by", mark.by.into()), ("since", since)];
        let output = output.map(|(name, value)| (name.to_owned(), value)).into();
        Ok(Observed { state: State::Present(Fields::new()), output })
    }

    async fn apply(&self, change: &Change, hands: &Actuator) -> Result<Map, Failure> {
        let path = folder(hands.state_dir()).join("halted");
        if change.verb == Verb::Remove {
            hands.remove_file(path)?;
            return Ok(Map::new());
        }
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let mark = HaltMark { why: text(&self.reason), by: text(&self.by), since: now() };
        make_folder(hands)?;
        let bytes = serde_json::to_vec_pretty(&mark).context("cannot write the mark of a halt")?;
        hands.replace(path, &bytes, Attrs::mode(0o600))?;
        Ok(Map::new())
    }
}
