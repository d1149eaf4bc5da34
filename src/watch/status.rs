//! What the watcher knows, as it leaves it for `fanli status`.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;

use crate::failure::{Context, Failure};
use crate::resource::attachments::{Status, folder, status_file};

/// Leaves it for others, whole or not at all.
pub(super) fn write(status: &Status, state_dir: &Path) -> Result<(), Failure> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let (temporary, path) = (folder(state_dir).join("status.new"), status_file(state_dir));
    let text = serde_json::to_vec_pretty(status).context("cannot write the watcher's status")?;
    let file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&temporary);
    // Not synced: after a crash of the host it is of no use anyway.
    let written = file.and_then(|mut file| file.write_all(&text)).and_then(|()| std::fs::rename(&temporary, &path));
    written.with_context(|| format!("cannot write {}", path.display()))
}
