//! Where a container on trial lives: fanli's own folder, which shows the new generation as `current`, and takes what is written.
//!
//! The slot itself cannot be used: its `current` is what nodes read at this moment. What nodes write to (logs above all) is made
//! again as empty directories. They are not in memory: a program that ends at its start has told the reason there, and it is to be read
//! afterwards.

use std::path::PathBuf;

use super::{Subject, Trial};
use crate::failure::Failure;
use crate::resource::container::refused_source;
use crate::system::Actuator;
use crate::system::blueprint::{Mounted, last_lines};
use crate::system::container_body::Bind;
use crate::system::fs::{Attrs, CURRENT, EntryKind, GENERATIONS};

/// The largest log that is read for its last lines, and how many files are shown.
const MOST_LOG: u64 = 1 << 20;
const MOST_FILES: usize = 3;

/// A furnished room.
pub(super) struct Room {
    pub(super) binds: Vec<Bind>,
    /// What the container can write: on the host, and as it sees it.
    written: Vec<(PathBuf, String)>,
}

impl Trial {
    /// Makes everything that the container shall see.
    pub(super) async fn furnish(&self, subject: &Subject, hands: &Actuator) -> Result<Room, Failure> {
        let room = self.room(hands);
        let outer = [2, 1].into_iter().filter_map(|up| room.ancestors().nth(up));
        hands.own_dirs(outer.chain([room.as_path()]))?;
        let slot = room.join("slot");
        // Open to all: programs read it as their own user, and the room around it is closed.
        hands.make_dir(slot.join(GENERATIONS), Attrs::mode(0o755))?;
        hands.symlink(slot.join(CURRENT), format!("{GENERATIONS}/{}", self.generation))?;
        let bind = |from: String, to: String, read_only| Bind { from, to, read_only, ..Bind::default() };
        let generations = hands.bind_source(&format!("{}/{GENERATIONS}", self.path.0)).await?;
        let mut made = Room {
            binds: vec![
                bind(slot.to_string_lossy().into_owned(), subject.inside.clone(), true),
                bind(generations, format!("{}/{GENERATIONS}", subject.inside), true),
            ],
            written: Vec::new(),
        };
        let contents = |mount: &Mounted| self.contents.iter().any(|path| path.0 == mount.to);
        let others = subject.blueprint.mounts.iter().filter(|mount| mount.to != subject.inside);
        for (number, mount) in others.enumerate() {
            let (mut from, to) = (mount.from.clone(), mount.to.clone());
            if self.like.is_none() {
                // Docker gets the place that was looked at, not a link that somebody may turn in between.
                from = hands.bind_source(&from).await?;
                refused_source(&from).map_err(Failure::new)?;
            }
            let directories = if mount.read_only || contents(mount) { None } else { hands.directories(&from).await? };
            let Some(directories) = directories else {
                made.binds.push(bind(from, to, true));
                continue;
            };
            let own = room.join(format!("written-{number}"));
            for (name, attrs) in directories {
                let place = if name.as_os_str().is_empty() { own.clone() } else { own.join(name) };
                hands.make_dir(place, attrs)?;
            }
            made.binds.push(bind(own.to_string_lossy().into_owned(), to.clone(), false));
            made.written.push((own, to));
        }
        Ok(made)
    }
}

impl Room {
    /// The last lines of what the program wrote into files, for a person. What cannot be read is left out: this is for a failure
    /// that is told anyway.
    pub(super) async fn last_written(&self, hands: &Actuator) -> Vec<String> {
        let mut files = Vec::new();
        for (place, inside) in &self.written {
            let Ok(Some(directories)) = hands.directories(&place.to_string_lossy()).await else { continue };
            for (below, _) in directories {
                let (place, inside) = (place.join(&below), std::path::Path::new(inside).join(&below));
                for name in hands.list(&place).ok().flatten().unwrap_or_default() {
                    let path = place.join(&name);
                    let Ok(Some(entry)) = hands.stat(&path) else { continue };
                    if entry.kind == EntryKind::File && (1..=MOST_LOG).contains(&entry.size) {
                        files.push((entry.mtime, path, inside.join(&name)));
                    }
                }
            }
        }
        files.sort();
        let newest = files.into_iter().rev().take(MOST_FILES);
        let texts = newest.filter_map(|(_, path, inside)| {
            let text = last_lines(&hands.read(path, MOST_LOG).ok()??);
            (!text.is_empty()).then(|| format!("the last lines of {}:\n{text}", inside.display()))
        });
        texts.collect()
    }
}
