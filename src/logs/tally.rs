//! What is counted of a segment's content, by its writer and by the keeper: the same numbers, so that one can check the other's.

use std::io::Read;

use jiff::Timestamp;
use sha2::{Digest as _, Sha256};

use super::seal::{Closed, Why};
use super::spool::Dropped;
use crate::value::Digest;

/// The count of the bytes so far.
pub(super) struct Tally {
    hash: Sha256,
    pub(super) lines: u64,
    pub(super) bytes: u64,
    /// The last byte ended a line, or there is none yet.
    pub(super) at_line_end: bool,
}

impl Tally {
    /// Nothing yet.
    pub(super) fn new() -> Self {
        Self { hash: Sha256::new(), lines: 0, bytes: 0, at_line_end: true }
    }

    /// Counts what comes next.
    pub(super) fn add(&mut self, bytes: &[u8]) {
        self.hash.update(bytes);
        self.lines += u64::try_from(memchr::memchr_iter(b'\n', bytes).count()).unwrap_or(0);
        self.bytes += u64::try_from(bytes.len()).unwrap_or(0);
        if let Some(last) = bytes.last() {
            self.at_line_end = *last == b'\n';
        }
    }

    /// How many lines there are; a last one without an end is a line.
    pub(super) fn all_lines(&self) -> u64 {
        self.lines + u64::from(!self.at_line_end)
    }

    /// The SHA-256 of all, in hex.
    pub(super) fn sha256(&self) -> String {
        Digest(self.hash.clone().finalize().into()).to_string()
    }

    /// What the seal says of it, closed now.
    pub(super) fn closed(&self, why: Why, dropped: Dropped) -> Closed {
        Closed {
            sealed: Timestamp::now(),
            why,
            lines: self.all_lines(),
            bytes: self.bytes,
            sha256: self.sha256(),
            dropped_lines: dropped.lines,
            dropped_bytes: dropped.bytes,
        }
    }
}

/// Reads, and counts what it has read.
pub(super) struct Counted<R> {
    from: R,
    pub(super) tally: Tally,
}

impl<R: Read> Counted<R> {
    pub(super) fn new(from: R) -> Self {
        Self { from, tally: Tally::new() }
    }
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let came = self.from.read(buffer)?;
        self.tally.add(buffer.get(..came).unwrap_or_default());
        Ok(came)
    }
}
