//! Slots: directories whose content changes as a whole.
//!
//! `SLOT/generations/ID/…` are whole trees that are never changed once they have their name, and `SLOT/current` is a relative
//! link to one of them. A generation is written under a name beside the others, synced, and renamed; the link is replaced by a
//! rename. So whoever opens `current` holds one generation, wholly. Names with a leading dot are half-made or half-removed: the
//! next one that works on the slot takes them away. Whoever writes holds the slot's lock.

use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, RenameFlags, fstat, renameat, renameat_with, statat, unlinkat};
use rustix::io::Errno;

use super::look::names;
use super::plain_tree::{self, FoundTree, NewTree, new_dir, open_dir};
use super::remove::remove_entry;
use super::walk::{Last, Place, read_link, sync_dir};
use super::{Actuator, Attrs, Probe, failed};
use crate::failure::Failure;

/// Where generations lie in a slot.
pub const GENERATIONS: &str = "generations";
/// The link to the one that is used.
pub const CURRENT: &str = "current";
/// How many hex digits an ID has.
const ID_LENGTH: usize = 12;

/// Whether a text is a generation's ID: twelve hex digits in lower case.
pub fn is_generation(text: &str) -> bool {
    text.len() == ID_LENGTH && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

/// A generation of a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generation {
    /// Its ID.
    pub id: String,
    /// When it was made: seconds since 1970, and nanoseconds.
    pub made: (i64, u32),
}

/// What a slot holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Slot {
    /// The generation that `current` points to.
    pub current: Option<String>,
    /// Every generation, the newest first.
    pub generations: Vec<Generation>,
    /// What killed runs have left half-made.
    pub leftovers: Vec<String>,
}

impl Slot {
    /// Whether a generation is there.
    pub fn has(&self, id: &str) -> bool {
        self.generations.iter().any(|generation| generation.id == id)
    }

    /// Those that are not among the newest `keep`, nor the current one, nor one of `also`: they may go.
    pub fn surplus(&self, keep: usize, also: &[&str]) -> Vec<String> {
        let old = self.generations.iter().skip(keep).map(|generation| &generation.id);
        let used = |id: &&String| self.current.as_ref() == Some(*id) || also.contains(&id.as_str());
        old.filter(|id| !used(id)).cloned().collect()
    }
}

impl Probe {
    /// What a slot holds; `None` when its directory does not exist.
    ///
    /// # Errors
    /// It cannot be read, or `current` is anything but a link to a generation's place.
    pub fn slot(&self, path: impl AsRef<Path>) -> Result<Option<Slot>, Failure> {
        let path = path.as_ref();
        let Some((_, dir)) = open_slot(self, path)? else { return Ok(None) };
        let mut slot = Slot { current: current(&dir, path)?, ..Slot::default() };
        let Some(all) = open_generations(&dir, path)? else { return Ok(Some(slot)) };
        for name in names(&all).map_err(|errno| failed("list", &path.join(GENERATIONS), errno))? {
            if let Some(left) = name.to_str().filter(|name| is_leftover(name)) {
                slot.leftovers.push(left.to_owned());
            }
            let Some(id) = name.to_str().filter(|name| is_generation(name)) else { continue };
            match statat(&all, &name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
                    let made = (stat.st_mtime, u32::try_from(stat.st_mtime_nsec).unwrap_or(0));
                    slot.generations.push(Generation { id: id.to_owned(), made });
                }
                Ok(_) | Err(Errno::NOENT) => {}
                Err(errno) => return Err(failed("look at", &path.join(GENERATIONS).join(&name), errno)),
            }
        }
        slot.generations.sort_by(|left, right| (right.made, &right.id).cmp(&(left.made, &left.id)));
        Ok(Some(slot))
    }

    /// Every entry of a generation, its contents hashed; `None` when it is not there.
    ///
    /// # Errors
    /// It cannot be read, or is too deep or too large.
    pub fn generation(&self, slot: impl AsRef<Path>, id: &str) -> Result<Option<FoundTree>, Failure> {
        let slot = slot.as_ref();
        let Some((_, dir)) = open_slot(self, slot)? else { return Ok(None) };
        let Some(all) = open_generations(&dir, slot)? else { return Ok(None) };
        let path = slot.join(GENERATIONS).join(id);
        match open_dir(&all, OsStr::new(id)) {
            Ok(root) => plain_tree::read(&root, &path).map(Some),
            Err(Errno::NOENT) => Ok(None),
            Err(Errno::NOTDIR | Errno::LOOP) => Err(Failure::new(format!("{} is not a directory", path.display()))
                .hint("fanli does not remove what it did not expect: move it away")),
            Err(errno) => Err(failed("open", &path, errno)),
        }
    }
}

impl Actuator {
    /// Puts a whole generation beside the others, durably; the slot is made when it is missing. One that is there already is
    /// exchanged for the right one in one step (`RENAME_EXCHANGE`). Where the file system has no such step (`EINVAL`), the old
    /// one is moved away first, and for a moment there is none: a run that is killed just there puts it back when it runs again.
    pub fn stage_generation(&self, slot: impl AsRef<Path>, id: &str, tree: &NewTree<'_>) -> Result<(), Failure> {
        let slot = slot.as_ref();
        for dir in [slot.to_owned(), slot.join(GENERATIONS)] {
            if self.stat(&dir)?.is_none() {
                self.make_dir(&dir, Attrs::mode(0o755))?;
            }
        }
        let gone = || Failure::new(format!("{} went away", slot.display()));
        let (_, dir) = open_slot(self, slot)?.ok_or_else(gone)?;
        let all = open_generations(&dir, slot)?.ok_or_else(gone)?;
        sweep(&all, slot)?;
        let (path, new) = (slot.join(GENERATIONS).join(id), OsString::from(format!(".new-{id}")));
        let made = new_dir(&all, &new).map_err(|errno| failed("make directory", &path, errno))?;
        plain_tree::write(&made, tree, &path)?;
        match renameat_with(&all, &new, &all, id, RenameFlags::NOREPLACE) {
            Ok(()) => return sync_dir(&all, &path),
            Err(Errno::EXIST | Errno::INVAL | Errno::NOSYS) => {}
            Err(errno) => return Err(failed("name", &path, errno)),
        }
        match renameat_with(&all, &new, &all, id, RenameFlags::EXCHANGE) {
            Ok(()) => {}
            Err(Errno::NOENT | Errno::INVAL | Errno::NOSYS) => {
                let old = OsString::from(format!(".old-{id}"));
                match renameat(&all, id, &all, &old) {
                    Ok(()) | Err(Errno::NOENT) => {}
                    Err(errno) => return Err(failed("move away", &path, errno)),
                }
                renameat(&all, &new, &all, id).map_err(|errno| failed("name", &path, errno))?;
            }
            Err(errno) => return Err(failed("exchange", &path, errno)),
        }
        sync_dir(&all, &path)?;
        sweep(&all, slot)
    }

    /// Turns a slot's link to a generation, in one step and durably; `None` takes the link away.
    pub fn turn_slot(&self, slot: impl AsRef<Path>, id: Option<&str>) -> Result<(), Failure> {
        let slot = slot.as_ref();
        let gone = || Failure::new(format!("the slot {} does not exist", slot.display()));
        let (_, dir) = open_slot(self, slot)?.ok_or_else(gone)?;
        // Refuses what is no link of ours.
        let now = current(&dir, slot)?;
        match id {
            Some(id) => {
                let all = open_generations(&dir, slot)?;
                let there = all.is_some_and(|all| open_dir(&all, OsStr::new(id)).is_ok());
                if !there {
                    return Err(Failure::new(format!("generation {id} is not in {}", slot.display())));
                }
                self.symlink(slot.join(CURRENT), format!("{GENERATIONS}/{id}"))
            }
            None if now.is_none() => Ok(()),
            None => match unlinkat(&dir, CURRENT, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => sync_dir(&dir, slot),
                Err(errno) => Err(failed("remove", &slot.join(CURRENT), errno)),
            },
        }
    }

    /// Takes generations away. Each loses its name first, so that no half of one is ever seen; the current one is left.
    pub fn prune_generations(&self, slot: impl AsRef<Path>, ids: &[String]) -> Result<(), Failure> {
        let slot = slot.as_ref();
        let Some((_, dir)) = open_slot(self, slot)? else { return Ok(()) };
        let Some(all) = open_generations(&dir, slot)? else { return Ok(()) };
        let used = current(&dir, slot)?;
        sweep(&all, slot)?;
        for id in ids.iter().filter(|id| is_generation(id) && used.as_ref() != Some(*id)) {
            match renameat(&all, id, &all, format!(".old-{id}")) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(errno) => return Err(failed("move away", &slot.join(GENERATIONS).join(id), errno)),
            }
        }
        sync_dir(&all, slot)?;
        sweep(&all, slot)
    }
}

/// Opens a slot's directory, and where it stands; `None` when there is nothing. A link in its place is refused: what a container
/// mounts is the directory.
fn open_slot(probe: &Probe, path: &Path) -> Result<Option<(Place, OwnedFd)>, Failure> {
    let Some(place) = probe.place(path, Last::Keep)?.map(Place::named).transpose()? else { return Ok(None) };
    match open_dir(&place.dir, &place.name) {
        Ok(dir) => Ok(Some((place, dir))),
        Err(Errno::NOENT) => Ok(None),
        Err(Errno::NOTDIR | Errno::LOOP) => {
            Err(Failure::new(format!("{} is not a directory, so it is no slot", path.display()))
                .hint("a slot is a directory of its own, never a file and never a link: name another path"))
        }
        Err(errno) => Err(failed("open", path, errno)),
    }
}

fn open_generations(slot: &OwnedFd, path: &Path) -> Result<Option<OwnedFd>, Failure> {
    let path = path.join(GENERATIONS);
    match open_dir(slot, OsStr::new(GENERATIONS)) {
        Ok(dir) => Ok(Some(dir)),
        Err(Errno::NOENT) => Ok(None),
        Err(Errno::NOTDIR | Errno::LOOP) => Err(Failure::new(format!("{} is not a directory", path.display()))
            .hint("it is where fanli keeps a slot's generations: move away what stands there")),
        Err(errno) => Err(failed("open", &path, errno)),
    }
}

/// What `current` points to.
fn current(slot: &OwnedFd, path: &Path) -> Result<Option<String>, Failure> {
    let path = path.join(CURRENT);
    let refused = |what: String| {
        Failure::new(format!("{} {what}", path.display()))
            .because(format!("fanli makes it a relative link to `{GENERATIONS}/ID`, and turns only such a link"))
            .hint("fanli does not remove what it did not make: move it away, and run again")
    };
    let stat = match statat(slot, CURRENT, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => stat,
        Err(Errno::NOENT) => return Ok(None),
        Err(errno) => return Err(failed("look at", &path, errno)),
    };
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Symlink => {}
        FileType::Directory => return Err(refused("is a directory, not a link".to_owned())),
        FileType::RegularFile => return Err(refused("is a file, not a link".to_owned())),
        _ => return Err(refused("is a device, socket or FIFO, not a link".to_owned())),
    }
    let Some(target) = read_link(slot, CURRENT).map_err(|errno| failed("read link", &path, errno))? else {
        return Ok(None);
    };
    let id = target.to_str().and_then(|text| text.strip_prefix(GENERATIONS)?.strip_prefix('/'));
    match id.filter(|id| is_generation(id)) {
        Some(id) => Ok(Some(id.to_owned())),
        None => Err(refused(format!("points to {}, not to a generation", Path::new(&target).display()))),
    }
}

/// Takes away what is half-made or half-removed. The caller holds the slot's lock, so nobody works on it.
fn sweep(all: &OwnedFd, slot: &Path) -> Result<(), Failure> {
    let path = slot.join(GENERATIONS);
    let dev = fstat(all).map_err(|errno| failed("look at", &path, errno))?.st_dev;
    for name in names(all).map_err(|errno| failed("list", &path, errno))? {
        if name.to_str().is_some_and(is_leftover) {
            remove_entry(all, &name, &path.join(&name), dev, 0)?;
        }
    }
    Ok(())
}

fn is_leftover(name: &str) -> bool {
    [".new-", ".old-"].iter().any(|prefix| name.strip_prefix(prefix).is_some_and(is_generation))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_twelve_hex_digits() {
        assert!(is_generation("0123456789ab"));
        for text in ["", "0123456789a", "0123456789abc", "0123456789AB", "0123456789a/", "../../../etc"] {
            assert!(!is_generation(text), "{text}");
        }
        assert!(is_leftover(".new-0123456789ab") && is_leftover(".old-0123456789ab") && !is_leftover(".new-"));
    }

    #[test]
    fn what_is_used_stays() {
        let id = |number: u32| format!("{number:012x}");
        let generations = (0..6).map(|number| Generation { id: id(number), made: (100 - i64::from(number), 0) });
        let slot = Slot { current: Some(id(4)), generations: generations.collect(), leftovers: Vec::new() };
        assert_eq!(slot.surplus(2, &[&id(5)]), [id(2), id(3)]);
        assert_eq!(slot.surplus(9, &[]), Vec::<String>::new());
    }
}
