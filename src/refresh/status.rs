//! What a refresher knows, as it leaves it in its container: for itself after a restart, for the host, and for people.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::tree::Id;
use crate::failure::{Context, Failure};
use crate::system::supervisor::Births;

/// Where it stands, in the container.
pub use crate::resource::refreshers::FILE;

/// The state of one refresher.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Status {
    /// fanli's version.
    pub version: String,
    /// The refresher's process number in the container.
    pub pid: u32,
    /// The directory that it looks after.
    pub directory: String,
    /// `inotify`, or `polling` and why.
    pub watching: String,
    /// What stands on the disk.
    pub wanted: Option<Id>,
    /// What the program has loaded; `None` when that is not known.
    pub loaded: Option<Id>,
    /// Since when: seconds since 1970.
    pub since: u64,
    /// What is wrong, in one line; `None` when all is well.
    pub error: Option<String>,
    /// Since when: seconds since 1970.
    pub error_since: u64,
    /// How many times this refresher has had the program reloaded or started.
    pub reloads: u64,
    /// The program's processes when it last loaded something: number and start.
    pub births: Births,
}

impl Status {
    /// What a refresher left; `None` when none ever ran, or what is there cannot be read.
    pub fn read(path: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(path).ok()?).ok()
    }

    /// Leaves it, whole or not at all.
    pub(super) fn write(&self, path: &Path) -> Result<(), Failure> {
        let failed = || format!("cannot write {}", path.display());
        let folder = path.parent().unwrap_or(Path::new("/"));
        fs::DirBuilder::new().recursive(true).mode(0o755).create(folder).with_context(failed)?;
        let temporary = path.with_extension("json.new");
        let text = serde_json::to_vec_pretty(self).with_context(failed)?;
        // Not synced: after a crash of the host the container is made to run anew anyway.
        let file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&temporary);
        let written = file.and_then(|mut file| file.write_all(&text)).and_then(|()| fs::rename(&temporary, path));
        written.with_context(failed)
    }

    /// Whether the program has loaded what stands on the disk, and nothing is wrong.
    pub fn is_well(&self) -> bool {
        self.error.is_none() && self.wanted.is_some() && self.wanted == self.loaded
    }
}
