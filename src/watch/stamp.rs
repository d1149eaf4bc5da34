//! Whether a folder changed, for the price of one `stat`.

use std::path::Path;
use std::time::{Duration, SystemTime};

/// When a folder changed last, and when that was read.
#[derive(Default)]
pub(super) struct FolderStamp(Option<(SystemTime, SystemTime)>);

impl FolderStamp {
    /// Whether it may hold something else than when this was asked last.
    pub(super) fn changed(&mut self, folder: &Path) -> bool {
        let changed = std::fs::metadata(folder).and_then(|meta| meta.modified()).ok();
        // A folder that changes twice within one tick of the kernel's clock keeps its time: what was read soon after a change
        // is read again.
        let settled = |at: SystemTime, read: SystemTime| {
            read.duration_since(at).is_ok_and(|age| age > Duration::from_millis(100))
        };
        match (changed, self.0) {
            (None, None) => return false,
            (Some(at), Some((seen, read))) if at == seen && settled(at, read) => return false,
            _ => {}
        }
        self.0 = changed.map(|at| (at, SystemTime::now()));
        true
    }

    /// It is to be read again, whether it changed or not.
    pub(super) fn forget(&mut self) {
        self.0 = None;
    }
}
