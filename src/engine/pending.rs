//! Handlers that were notified and have not run yet, kept on the host until they have.
//!
//! A handler is noted before the change that notifies it is applied: a kill in between can make it run once too often, never
//! not at all. For the same reason a note that cannot be read counts as one of every handler.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::event::Target;
use crate::failure::{Context as _, Failure};
use crate::system::fs::Attrs;
use crate::system::{Actuator, Probe};
use crate::value::Digest;

/// The longest note that is read, in bytes.
const MOST_NOTE: u64 = 256 * 1024;

/// The note of one target of one play.
pub(super) struct Pending {
    path: PathBuf,
    playbook: String,
    play: String,
    node: Option<String>,
}

/// What a note says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Note {
    /// The playbook's file name.
    pub(super) playbook: String,
    /// The play's title.
    pub(super) play: String,
    /// The node, when it is none of the host itself.
    pub(super) node: Option<String>,
    /// The handlers, in the order in which they were notified.
    pub(super) handlers: Vec<String>,
}

impl Pending {
    /// The note of a target. The file's name is a hash, so that titles may hold anything. The playbook counts by its file name alone:
    /// the folder that it is checked out to may be another one in each run.
    pub(super) fn of(probe: &Probe, playbook: &str, play: &str, target: &Target) -> Self {
        let key = format!("{playbook}\0{play}\0{}\0{}", target.host, target.node.as_deref().unwrap_or_default());
        let name = Digest::of(key.as_bytes()).short();
        let (playbook, play) = (playbook.to_owned(), play.to_owned());
        Self { path: folder(probe).join(name), playbook, play, node: target.node.clone() }
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The handlers that an earlier run left, in order.
    pub(super) fn read(&self, probe: &Probe) -> Result<Vec<String>, Failure> {
        Ok(read(probe, &self.path)?.map(|note| note.handlers).unwrap_or_default())
    }

    /// Writes what is pending now; durable when it returns.
    pub(super) fn write(&self, hands: &Actuator, names: &[String]) -> Result<(), Failure> {
        if names.is_empty() {
            return if hands.exists(&self.path)? { hands.remove_file(&self.path) } else { Ok(()) };
        }
        hands.own_dirs(self.path.ancestors().skip(1).take(2).collect::<Vec<_>>().into_iter().rev())?;
        let note = Note {
            playbook: self.playbook.clone(),
            play: self.play.clone(),
            node: self.node.clone(),
            handlers: names.to_vec(),
        };
        let text = serde_json::to_vec(&note).context("the note cannot be written")?;
        hands.replace(&self.path, &text, Attrs::mode(0o600))
    }
}

/// A note's file, and what it says.
pub(super) type Found = (PathBuf, Result<Note, Failure>);

/// Every note on this host, each with its file.
pub(super) fn all(probe: &Probe) -> Result<Vec<Found>, Failure> {
    let folder = folder(probe);
    let mut names: Vec<OsString> = probe.list(&folder)?.unwrap_or_default();
    // What a killed write left beside a note begins with a dot.
    names.retain(|name| !name.as_encoded_bytes().starts_with(b"."));
    let notes = names.into_iter().map(|name| folder.join(name));
    Ok(notes.filter_map(|path| read(probe, &path).transpose().map(|note| (path, note))).collect())
}

fn folder(probe: &Probe) -> PathBuf {
    probe.state_dir().join("pending")
}

fn read(probe: &Probe, path: &Path) -> Result<Option<Note>, Failure> {
    let Some(text) = probe.read_text(path, MOST_NOTE)? else { return Ok(None) };
    serde_json::from_str(&text).map(Some).with_context(|| format!("{} is damaged", path.display()))
}
