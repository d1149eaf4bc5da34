//! What a folder of segments holds, for those who watch it.

use std::path::Path;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::folder::{Folder, State};
use super::policy::Place;
use super::seal::{Closed, Seal, sum};
use crate::failure::Failure;

/// For how long lines that were left out are told, in seconds.
const TOLD: i64 = 86_400;

/// What a folder holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Survey {
    /// The folder.
    pub path: String,
    /// How many segments there are.
    pub files: usize,
    /// What they take on the disk, in bytes.
    pub bytes: u64,
    /// How many bytes are free there.
    pub free: u64,
    /// How many of them are being written.
    pub writing: usize,
    /// The lines that writers have left out in the last day, and their bytes.
    pub dropped_lines: u64,
    /// See `dropped_lines`.
    pub dropped_bytes: u64,
    /// The copies, where the folder has a target for them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copies: Option<Copies>,
    /// What could not be looked at.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trouble: Vec<String>,
}

/// The closed segments of which no copy is stored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Copies {
    /// Where they are stored.
    pub to: String,
    /// How many wait.
    pub waiting: usize,
    /// What they take on the disk, in bytes.
    pub bytes: u64,
    /// The end of the period of the oldest of them: seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest: Option<i64>,
}

impl Survey {
    /// Looks at a folder, and into its ledger below `state_dir`. What cannot be looked at is told in it.
    pub fn of(place: &Place, state_dir: &Path) -> Self {
        let path = place.path.display().to_string();
        Self::look(place, state_dir).unwrap_or_else(|failure| Self {
            path,
            trouble: vec![failure.to_string()],
            ..Self::default()
        })
    }

    fn look(place: &Place, state_dir: &Path) -> Result<Self, Failure> {
        let now = Timestamp::now().as_second();
        let folder = Folder::look(place, now, state_dir)?;
        let copies = place.ship.as_ref().map(|ship| Copies { to: ship.to.to_string(), ..Copies::default() });
        let (free, path) = (folder.shelf.free, place.path.display().to_string());
        let trouble = folder.unread.iter().map(ToString::to_string).collect();
        let mut survey = Self { path, free, copies, trouble, ..Self::default() };
        for (segment, piece) in folder.segments.iter().zip(&folder.shelf.pieces) {
            survey.files += 1;
            survey.bytes += piece.bytes;
            survey.writing += usize::from(piece.state == State::Writing);
            let is_closed = matches!(piece.state, State::Closed | State::Packed);
            if let Some(copies) = survey.copies.as_mut().filter(|_| is_closed && !piece.stored) {
                copies.waiting += 1;
                copies.bytes += piece.bytes;
                copies.oldest = Some(copies.oldest.map_or(piece.end, |oldest| oldest.min(piece.end)));
            }
            let is_recent = |closed: &Closed| now.saturating_sub(closed.sealed.as_second()) < TOLD;
            // One that ended long before was closed long before, but for a time that was set.
            if is_closed && now.saturating_sub(piece.end) < 2 * TOLD {
                let seal = folder.open(segment.dir).ok().and_then(|dir| Seal::read(&dir, &segment.name));
                let closed = seal.and_then(|seal| seal.closed).filter(is_recent);
                let dropped = closed.map_or((0, 0), |closed| (closed.dropped_lines, closed.dropped_bytes));
                survey.dropped_lines = sum(survey.dropped_lines, dropped.0);
                survey.dropped_bytes = sum(survey.dropped_bytes, dropped.1);
            }
        }
        Ok(survey)
    }
}
