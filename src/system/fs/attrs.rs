//! Owner, group and permissions, set through a descriptor; and making directories with them.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Gid, Mode, Uid, chmodat, chownat};

use super::look::{entry, entry_of};
use super::walk::{Last, by_descriptor};
use super::{Actuator, Attrs, Entry, EntryKind, failed, write};
use crate::failure::Failure;

impl Actuator {
    /// Sets what `attrs` names on a file or directory. Links, devices and (where others can write) files with several names
    /// are refused: the other name may be anybody's.
    pub fn set_attrs(&self, path: impl AsRef<Path>, attrs: Attrs) -> Result<(), Failure> {
        let path = path.as_ref();
        let gone = || Failure::new(format!("{} does not exist", path.display()));
        let place = self.place(path, Last::Keep)?.ok_or_else(gone)?;
        let fd = place.open()?.ok_or_else(gone)?;
        let entry = entry_of(&fd).map_err(|errno| failed("look at", path, errno))?;
        match &entry.kind {
            EntryKind::Link(to) => return Err(super::link_in_the_way(path, to)),
            EntryKind::Other => {
                return Err(Failure::new(format!("{} is {}: left alone", path.display(), entry.kind.show())));
            }
            EntryKind::File if entry.nlink > 1 && !place.guarded() => {
                return Err(Failure::new(format!("{} has {} names", path.display(), entry.nlink))
                    .because("others can write its directory, so its other name may be a file of somebody else")
                    .hint("remove the extra hard links, or the file, and run again"));
            }
            EntryKind::File | EntryKind::Directory => {}
        }
        set(&fd, &entry, attrs, path)
    }

    /// Makes the folders that are missing, closed to all but fanli's own user; one that is there is left as it is. In order: the
    /// outer ones first.
    pub fn own_dirs<P: AsRef<Path>>(&self, dirs: impl IntoIterator<Item = P>) -> Result<(), Failure> {
        for dir in dirs {
            if !self.exists(&dir)? {
                self.make_dir(&dir, Attrs::mode(0o700))?;
            }
        }
        Ok(())
    }

    /// Makes a directory that appears with its owner and mode (0755 unless named), and any missing parents (0755, fanli's own
    /// user). There already: only the attributes are set. A link or file in its place is refused.
    pub fn make_dir(&self, path: impl AsRef<Path>, attrs: Attrs) -> Result<(), Failure> {
        let path = path.as_ref();
        if let Some(parent) = path.parent()
            && self.stat_following(parent)?.is_none()
        {
            self.make_dir(parent, Attrs::default())?;
        }
        let place = self.place(path, Last::Keep)?;
        let place = place.ok_or_else(|| Failure::new(format!("the parent of {} went away", path.display())))?;
        match entry(&place)?.map(|found| found.kind) {
            None => {
                if write::make_dir(&place, attrs)? {
                    return Ok(());
                }
            }
            Some(EntryKind::Directory) => {}
            Some(kind) => return Err(Failure::new(format!("{} is {}, not a directory", path.display(), kind.show()))),
        }
        self.set_attrs(path, attrs)
    }
}

/// Sets attributes on a descriptor (`O_PATH` will do). At no moment is the mode wider than before or after.
pub(super) fn set(fd: &OwnedFd, now: &Entry, attrs: Attrs, path: &Path) -> Result<(), Failure> {
    let by_path = by_descriptor(fd);
    let chmod = |mode: u32| {
        let mode = Mode::from_raw_mode(mode);
        chmodat(CWD, &by_path, mode, AtFlags::empty()).map_err(|errno| failed("set the mode of", path, errno))
    };
    let uid = attrs.uid.filter(|uid| *uid != now.uid);
    let gid = attrs.gid.filter(|gid| *gid != now.gid);
    let wanted = attrs.mode.unwrap_or(now.mode);
    let mut current = now.mode;
    if uid.is_some() || gid.is_some() {
        if current & wanted & 0o777 != current {
            current &= wanted & 0o777;
            chmod(current)?;
        }
        chownat(fd, "", uid.map(Uid::from_raw), gid.map(Gid::from_raw), AtFlags::EMPTY_PATH)
            .map_err(|errno| failed("set the owner of", path, errno))?;
        // chown(2) clears setuid and setgid of files.
        current &= 0o1777;
    }
    if current == wanted { Ok(()) } else { chmod(wanted) }
}
