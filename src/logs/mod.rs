//! Log lines of a program, in files that are each of one period, closed on time, and counted.
//!
//! ```text
//! a program -> its pipe, or a [fifo] -> [pipe]: reads, says which period -> [spool]: waits for the disk, within a bound -> [segment]: writes, seals
//! ```

pub mod fifo;
pub mod keep;
pub mod period;
pub mod pipe;
mod segment;
mod seal;
pub mod spool;
mod tally;
pub mod template;

use rustix::io::Errno;

/// The system's number of an error of the standard library.
fn of_io(error: &std::io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error)
}
