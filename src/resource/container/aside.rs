//! The container that was moved aside for its successor, and what the host remembers of it until the successor has proven itself.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::place::leftovers;
use crate::failure::{Context as _, Failure};
use crate::resource::attach::Earlier;
use crate::system::docker::{Container as Found, Docker, DockerHands, SPEC_LABEL};
use crate::system::fs::Attrs;
use crate::system::{Actuator, Probe};

/// The longest note that is read, in bytes.
const MOST_NOTE: u64 = 1 << 20;
/// The restart policy with which Docker, when its daemon starts, also starts what was stopped: the old container beside its successor.
const ALWAYS: &str = "always";
/// The one that the old container has instead while it is aside.
const NEVER: &str = "no";

/// `STATE/aside/NAME.json`, written before the old container is stopped.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Note {
    /// The old container's ID.
    pub(super) id: String,
    /// Whether it ran.
    pub(super) running: bool,
    /// Its restart policy, where that is taken off while it is aside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    restart: Option<String>,
    /// What was plugged into it.
    pub(super) attachments: Earlier,
}

fn path(name: &str, probe: &Probe) -> PathBuf {
    probe.state_dir().join("aside").join(format!("{name}.json"))
}

/// Whether there is a note: a successor of that name has not proven itself yet.
pub(super) fn is_noted(name: &str, probe: &Probe) -> Result<bool, Failure> {
    probe.exists(path(name, probe))
}

impl Note {
    /// The note about the old container of that name.
    pub(super) fn read(name: &str, probe: &Probe) -> Result<Option<Self>, Failure> {
        let path = path(name, probe);
        let Some(bytes) = probe.read(&path, MOST_NOTE)? else { return Ok(None) };
        serde_json::from_slice(&bytes)
            .map(Some)
            .with_context(|| format!("{} is damaged", path.display()))
            .map_err(|failure| failure.hint(format!("remove it once `docker ps -a` shows {name} as it should be")))
    }

    /// Writes down what is about to be moved aside, and returns the note. An earlier one about the same container stays: what is plugged
    /// now may be the successor's.
    pub(super) fn write(old: &Found, name: &str, running: bool, hands: &Actuator) -> Result<Self, Failure> {
        if let Some(known) = Self::read(name, hands)?.filter(|note| note.id == old.id) {
            return Ok(known);
        }
        let restart = Some(old.restart.clone()).filter(|policy| policy == ALWAYS);
        let note = Self { id: old.id.clone(), running, restart, attachments: Earlier::of(name, hands)? };
        let text = serde_json::to_vec_pretty(&note).context("cannot write the note about a container")?;
        let path = path(name, hands);
        hands.own_dirs([hands.state_dir(), path.parent().unwrap_or(hands.state_dir())])?;
        hands.replace(&path, &text, Attrs::mode(0o600))?;
        Ok(note)
    }

    /// Gives the old container the restart policy back that [`moved`] has taken off.
    pub(super) async fn restore_restart(&self, old: &Found, docker: &DockerHands) -> Result<(), Failure> {
        match &self.restart {
            Some(policy) if *policy != old.restart => docker.set_restart(&old.id, policy).await,
            _ => Ok(()),
        }
    }

    /// Takes the note away.
    pub(super) fn forget(name: &str, hands: &Actuator) -> Result<(), Failure> {
        let path = path(name, hands);
        if hands.exists(&path)? { hands.remove_file(&path) } else { Ok(()) }
    }
}

/// Moves the old container aside, which is noted and stopped.
pub(super) async fn moved(old: &Found, name: &str, docker: &DockerHands) -> Result<(), Failure> {
    if old.restart == ALWAYS {
        docker.set_restart(&old.id, NEVER).await?;
    }
    let [_, old_name] = leftovers(name);
    docker.rename(&old.id, &old_name).await
}

/// The old container of that name, where it is moved aside. Another's container that happens to be called so is none.
pub(in crate::resource) async fn aside(name: &str, docker: &Docker, probe: &Probe) -> Result<Option<Found>, Failure> {
    let [_, old_name] = leftovers(name);
    let Some(found) = docker.container(&old_name).await? else { return Ok(None) };
    Ok(is_own(&found, name, probe)?.then_some(found))
}

/// The restart policy that was taken off the old container of that name while it is aside.
pub(in crate::resource) fn restart_before(name: &str, probe: &Probe) -> Result<Option<String>, Failure> {
    Ok(Note::read(name, probe)?.and_then(|note| note.restart))
}

/// Whether fanli has made a container that has one of the names of [`leftovers`], or has moved it aside.
pub(super) fn is_own(found: &Found, name: &str, probe: &Probe) -> Result<bool, Failure> {
    let noted = || Ok::<_, Failure>(Note::read(name, probe)?.is_some_and(|note| note.id == found.id));
    Ok(found.labels.contains_key(SPEC_LABEL) || noted()?)
}
