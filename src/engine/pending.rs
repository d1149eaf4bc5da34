//! Handlers that were notified and have not run yet, kept on the host until they have.
//!
//! A handler is noted before the change that notifies it is applied: a kill in between can make it run once too often, never
//! not at all.

use std::path::PathBuf;

use crate::event::Target;
use crate::failure::Failure;
use crate::system::fs::Attrs;
use crate::system::{Actuator, Probe};
use crate::value::Digest;

/// The longest note that is read, in bytes.
const MOST_NOTE: u64 = 64 * 1024;

/// The notes of one target of one play.
pub(super) struct Pending {
    path: PathBuf,
}

impl Pending {
    /// The notes of a target. The file's name is a hash, so that titles may hold anything.
    pub(super) fn of(probe: &Probe, play: &str, target: &Target) -> Self {
        let key = format!("{play}\0{}\0{}", target.host, target.node.as_deref().unwrap_or_default());
        let name = Digest::of(key.as_bytes()).short();
        Self { path: probe.state_dir().join("pending").join(name) }
    }

    /// The handlers that an earlier run left, in order.
    pub(super) fn read(&self, probe: &Probe) -> Result<Vec<String>, Failure> {
        let text = probe.read_text(&self.path, MOST_NOTE)?.unwrap_or_default();
        Ok(text.lines().map(str::to_owned).collect())
    }

    /// Writes what is pending now; durable when it returns.
    pub(super) fn write(&self, hands: &Actuator, names: &[String]) -> Result<(), Failure> {
        if names.is_empty() {
            return if hands.exists(&self.path)? { hands.remove_file(&self.path) } else { Ok(()) };
        }
        hands.own_dirs(self.path.ancestors().skip(1).take(2).collect::<Vec<_>>().into_iter().rev())?;
        let text = names.join("\n") + "\n";
        hands.replace(&self.path, text.as_bytes(), Attrs::mode(0o600))
    }
}
