//! What a host does with the log files of its folders, as declared.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::codec::Codec;
use super::ledger::{Ledger, Stored};
use super::target::Target;

/// What is kept, and how. Without a limit everything is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// How closed segments are compressed, and how long after the end of their period.
    pub pack: Option<(Codec, Duration)>,
    /// How long a segment is kept after the end of its period.
    pub age: Option<Duration>,
    /// The most bytes that the segments of a folder take on the disk.
    pub size: Option<u64>,
    /// The most segments of a folder.
    pub count: Option<usize>,
    /// The bytes that are to stay free on the disk.
    pub floor: Option<u64>,
}

/// A folder of log files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The folder.
    pub path: PathBuf,
    /// Where copies are stored.
    pub ship: Option<Shipping>,
}

/// Where copies of segments are stored, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shipping {
    /// The storage.
    pub to: Target,
    /// The file with the key or password for it.
    pub key: Option<PathBuf>,
    /// The most bytes that are sent in a second.
    pub rate: Option<u64>,
    /// Whether a segment may be removed before a copy of it is stored.
    pub unshipped: Unshipped,
}

/// What a limit does to a segment of which no copy is stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unshipped {
    /// It stays.
    #[default]
    Keep,
    /// It is removed, after all that are stored, and counted.
    Drop,
}

impl Place {
    /// Its ledger, below fanli's state directory.
    pub(super) fn ledger(&self, state_dir: &Path) -> Ledger {
        Ledger::of(state_dir, &self.path)
    }

    /// Returns which segments have a copy at the target; none where nothing is shipped.
    pub(super) fn stored(&self, state_dir: &Path) -> Stored {
        let at = |ship: &Shipping| Stored::at(self.ledger(state_dir), ship.to.to_string());
        self.ship.as_ref().map(at).unwrap_or_default()
    }

    /// Returns the same, but that nothing is removed without a copy: before it was tried to store them, nothing may be.
    #[must_use]
    pub fn holding_back(&self) -> Self {
        let ship = self.ship.clone().map(|ship| Shipping { unshipped: Unshipped::Keep, ..ship });
        Self { path: self.path.clone(), ship }
    }

    /// Returns whether segments without a copy may be removed.
    pub fn may_drop(&self) -> bool {
        self.ship.as_ref().is_some_and(|ship| ship.unshipped == Unshipped::Drop)
    }

    /// Returns whether a segment without a stored copy must stay.
    pub(super) fn holds_back_unshipped(&self) -> bool {
        self.ship.as_ref().is_some_and(|ship| ship.unshipped == Unshipped::Keep)
    }
}

impl Shipping {
    /// Refuses what cannot be carried out: the parameter, and what is wrong with it.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        let plain = |path: &Path| path.to_str().is_some_and(|path| path.chars().all(is_plain));
        match (&self.to, &self.key) {
            (Target::Directory(_), Some(_)) => {
                Err(("ship_key", "goes with rsync and S3, not with a directory".to_owned()))
            }
            (Target::Bucket(..), None) => {
                Err(("ship_key", "must name the file with the account, in the format of `~/.aws/config`".to_owned()))
            }
            // rsync takes the line of ssh apart by itself.
            (to, Some(key)) if to.is_ssh() && !plain(key) => {
                Err(("ship_key", "holds a character that rsync would not give to ssh as it is".to_owned()))
            }
            _ if self.rate == Some(0) => Err(("ship_rate", "is 0: nothing would ever be sent".to_owned())),
            _ => Ok(()),
        }
    }
}

fn is_plain(sign: char) -> bool {
    sign.is_alphanumeric() || "/._-+@:,".contains(sign)
}
