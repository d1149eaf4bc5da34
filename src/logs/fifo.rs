//! A FIFO as the input, for programs that write their log into a file that they open by its name, such as nginx.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, OFlags, fstat, mknodat, open as open_file};
use rustix::io::Errno;

use crate::failure::{Context as _, Failure};

/// Opens the FIFO at a path; where nothing is there it is made, for its owner alone (0600).
///
/// It is open for writing, too: without that it would end as soon as its last writer closes it (fifo(7)).
///
/// # Errors
/// Something else is there, or it cannot be made or opened.
pub fn open(path: &Path) -> Result<OwnedFd, Failure> {
    let failed = || format!("cannot read from {}", path.display());
    match mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(0o600), 0) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(errno).with_context(failed),
    }
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fifo = open_file(path, flags, Mode::empty()).with_context(failed)?;
    let kind = FileType::from_raw_mode(fstat(&fifo).with_context(failed)?.st_mode);
    if kind == FileType::Fifo {
        Ok(fifo)
    } else {
        Err(Failure::new(format!("{} is not a FIFO", path.display())).hint("remove it, or name another path"))
    }
}
