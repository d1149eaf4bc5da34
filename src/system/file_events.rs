//! That something changed below some directories: the kernel's word for it (inotify), as a hint to go and look.
//!
//! What changed is not told: events may be merged, lost or of another kind than expected (research/rollout-and-logs.md, 4 and
//! 5 of section 4), and whoever hears one compares anyway. Reading is no change: it would wake the reader for ever.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use notify::event::{AccessKind, AccessMode, EventKind};
use notify::{Config, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::mpsc::{Receiver, channel};

use crate::failure::Failure;

/// A directory by its device and inode: another one of that name needs a watch of its own.
pub type Identity = (u64, u64);

/// Watches on directories.
pub struct FileEvents {
    watcher: RecommendedWatcher,
    heard: Receiver<()>,
    watched: BTreeMap<PathBuf, Identity>,
}

impl FileEvents {
    /// Watches nothing yet.
    ///
    /// # Errors
    /// The kernel gives no inotify instance: they are counted per user, for all containers of a host together
    /// (`fs.inotify.max_user_instances`).
    pub fn new() -> Result<Self, Failure> {
        let (told, heard) = channel(1);
        let hear = move |event: notify::Result<notify::Event>| {
            let only_read = event.as_ref().is_ok_and(|event| {
                let written = EventKind::Access(AccessKind::Close(AccessMode::Write));
                matches!(event.kind, EventKind::Access(_)) && event.kind != written && !event.need_rescan()
            });
            // One that is waiting already says all that this one would.
            let _ = if only_read { Ok(()) } else { told.try_send(()) };
        };
        let config = Config::default().with_follow_symlinks(false);
        let watcher = RecommendedWatcher::new(hear, config)
            .map_err(|error| Failure::new("the kernel gives no inotify instance").because(told_by(&error)))?;
        Ok(Self { watcher, heard, watched: BTreeMap::new() })
    }

    /// Watches exactly these directories, not what is below them. Tells whether one was new: what happened in it before is not
    /// heard, and must be looked for again.
    ///
    /// # Errors
    /// The kernel gives no more watches (`fs.inotify.max_user_watches`). A directory that went away meanwhile is none.
    pub fn watch(&mut self, wanted: &BTreeMap<PathBuf, Identity>) -> Result<bool, Failure> {
        let old: Vec<PathBuf> = self
            .watched
            .iter()
            .filter(|(path, id)| wanted.get(*path) != Some(*id))
            .map(|(path, _)| path.clone())
            .collect();
        for path in old {
            let _ = self.watcher.unwatch(&path);
            self.watched.remove(&path);
        }
        let mut new = false;
        for (path, identity) in wanted {
            if self.watched.contains_key(path) {
                continue;
            }
            match self.watcher.watch(path, RecursiveMode::NonRecursive) {
                Ok(()) => {
                    self.watched.insert(path.clone(), *identity);
                    new = true;
                }
                Err(error) if is_gone(&error) => {}
                Err(error) => {
                    return Err(Failure::new(format!("{} cannot be watched", path.display())).because(told_by(&error)));
                }
            }
        }
        Ok(new)
    }

    /// Waits until something may have changed. `false`: nothing will be told any more.
    pub async fn next(&mut self) -> bool {
        self.heard.recv().await.is_some()
    }
}

/// A directory's identity; `None` when it is not there.
pub fn identity(path: &Path) -> Option<Identity> {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata(path).ok().filter(std::fs::Metadata::is_dir).map(|seen| (seen.dev(), seen.ino()))
}

fn is_gone(error: &notify::Error) -> bool {
    match &error.kind {
        notify::ErrorKind::PathNotFound => true,
        notify::ErrorKind::Io(error) => error.kind() == std::io::ErrorKind::NotFound,
        _ => false,
    }
}

fn told_by(error: &notify::Error) -> String {
    match &error.kind {
        notify::ErrorKind::Io(error) => error.to_string(),
        notify::ErrorKind::MaxFilesWatch => "the limit fs.inotify.max_user_watches of the host is reached".to_owned(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    async fn hears(events: &mut FileEvents) -> bool {
        tokio::time::timeout(Duration::from_secs(20), events.next()).await.unwrap_or(false)
    }

    fn set(paths: &[&Path]) -> BTreeMap<PathBuf, Identity> {
        paths.iter().map(|path| ((*path).to_owned(), identity(path).unwrap())).collect()
    }

    #[tokio::test]
    async fn changes_are_heard_and_reading_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a");
        std::fs::write(&file, "1").unwrap();
        let mut events = FileEvents::new().unwrap();
        assert!(events.watch(&set(&[dir.path()])).unwrap());
        assert!(!events.watch(&set(&[dir.path()])).unwrap());
        std::fs::read(&file).unwrap();
        std::fs::read_dir(dir.path()).unwrap().count();
        assert!(tokio::time::timeout(Duration::from_millis(300), events.next()).await.is_err());
        std::fs::write(&file, "2").unwrap();
        assert!(hears(&mut events).await);
        // A link that is swapped.
        std::os::unix::fs::symlink("a", dir.path().join("new")).unwrap();
        std::fs::rename(dir.path().join("new"), dir.path().join("current")).unwrap();
        assert!(hears(&mut events).await);
    }

    #[tokio::test]
    async fn a_directory_that_is_another_one_is_watched_again() {
        let dir = tempfile::tempdir().unwrap();
        let sub = dir.path().join("sub");
        std::fs::create_dir(&sub).unwrap();
        let mut events = FileEvents::new().unwrap();
        events.watch(&set(&[&sub])).unwrap();
        std::fs::rename(&sub, dir.path().join("old")).unwrap();
        std::fs::create_dir(&sub).unwrap();
        assert!(events.watch(&set(&[&sub])).unwrap());
        while tokio::time::timeout(Duration::from_millis(300), events.next()).await.is_ok() {}
        std::fs::write(sub.join("x"), "").unwrap();
        assert!(hears(&mut events).await);
        assert!(events.watch(&BTreeMap::new()).is_ok());
    }
}
