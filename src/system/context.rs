//! Build contexts: a tree by hash as a tar that is the same on every run.

use tar::{Builder, EntryType, Header};

use super::Probe;
use crate::failure::{Context, Failure};
use crate::value::{Tree, TreeEntryKind};

impl Probe {
    /// The tree as a tar: sorted, owned by root, from 1970, so that equal trees make equal bytes.
    pub async fn context_tar(&self, tree: &Tree) -> Result<Vec<u8>, Failure> {
        let mut tar = Builder::new(Vec::new());
        let mut entries: Vec<_> = tree.entries.iter().collect();
        entries.sort_by(|left, right| left.path.cmp(&right.path));
        for entry in entries {
            let mut header = Header::new_gnu();
            header.set_mtime(0);
            header.set_uid(0);
            header.set_gid(0);
            header.set_size(0);
            let what = || format!("cannot pack {}", entry.path);
            match &entry.kind {
                TreeEntryKind::Directory => {
                    header.set_entry_type(EntryType::Directory);
                    header.set_mode(0o755);
                    tar.append_data(&mut header, format!("{}/", entry.path), std::io::empty()).with_context(what)?;
                }
                TreeEntryKind::Link(target) => {
                    header.set_entry_type(EntryType::Symlink);
                    header.set_mode(0o777);
                    tar.append_link(&mut header, &entry.path, target).with_context(what)?;
                }
                TreeEntryKind::File { blob, mode } => {
                    let bytes = self.blob(blob).await?;
                    header.set_entry_type(EntryType::Regular);
                    header.set_mode(*mode);
                    header.set_size(bytes.len() as u64);
                    tar.append_data(&mut header, &entry.path, &*bytes).with_context(what)?;
                }
            }
        }
        tar.into_inner().context("cannot pack the build context")
    }
}
