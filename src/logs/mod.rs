//! Log lines of a program, in files that are each of one period, closed on time, and counted.
//!
//! ```text
//! a program -> its pipe, or a [fifo] -> [pipe]: reads, says which period -> [spool]: waits for the disk, within a bound -> [segment]: writes, seals
//! ```
//!
//! What was written is looked at in its [folder], and [kept](keep) there as a [policy] says; copies are [shipped](ship) to a [target], and the
//! [ledger] knows of each. What was written is [read](read) back, and [accounted for](audit).

pub mod audit;
pub mod codec;
pub mod fifo;
mod folder;
pub mod keep;
pub mod ledger;
mod parcel;
pub mod period;
pub mod pipe;
pub mod policy;
pub mod read;
pub mod said;
mod segment;
mod seal;
pub mod ship;
pub mod spool;
pub mod survey;
mod tally;
pub mod target;
pub mod template;

use rustix::io::Errno;

/// The system's number of an error of the standard library.
fn of_io(error: &std::io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error)
}
