//! Log lines of a program, in files that are each of one period, closed on time, and counted.
//!
//! ```text
//! a program -> its pipe -> [pipe]: reads, says which period -> [spool]: waits for the disk, within a bound -> [segment]: writes, seals
//! ```

pub mod period;
pub mod pipe;
mod segment;
pub mod spool;
pub mod template;
