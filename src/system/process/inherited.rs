//! Descriptors that this process was started with.

use std::os::fd::BorrowedFd;

use rustix::io::{FdFlags, fcntl_setfd};

/// Marks every descriptor beyond the standard three to be closed in the programs that this process starts. A daemon that lives on would
/// otherwise keep what fanli's own caller has open: with `flock FILE fanli play …` it would hold the lock for as long as it runs.
pub fn keep_descriptors() {
    let Ok(entries) = std::fs::read_dir("/proc/self/fd") else { return };
    let numbers = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    for number in numbers.filter(|number| *number > 2).collect::<Vec<_>>() {
        #[expect(
            unsafe_code,
            reason = "a descriptor that another part of the process was given has no owner to borrow it from"
        )]
        // SAFETY: fcntl(2) only sets a flag; for a number that is not open any more, as that of the directory read here, it fails.
        let descriptor = unsafe { BorrowedFd::borrow_raw(number) };
        let _ = fcntl_setfd(descriptor, FdFlags::CLOEXEC);
    }
}
