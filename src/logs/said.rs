//! What was done with segments, or would be, for those that tell it.

use std::path::PathBuf;

use super::codec::Codec;
use crate::failure::Failure;

/// One thing that was done, or would be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// The segment, or the folder.
    pub path: PathBuf,
    /// What became of it.
    pub what: What,
}

/// What becomes of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// It goes.
    Removed(Removed),
    /// It is closed in the place of its writer, which was killed.
    Closed,
    /// It is compressed. Its length before and after, once that is known.
    Packed(Codec, Option<(u64, u64)>),
    /// A copy of so many bytes is stored.
    Shipped(u64),
    /// What a killed keeper or writer has left half-made goes.
    Cleared,
    /// It could not be done.
    Failed(Failure),
}

/// A segment that goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removed {
    /// Which limit says so.
    pub why: String,
    /// How many bytes are free then.
    pub bytes: u64,
    /// No copy of it is stored, where one should be.
    pub unshipped: bool,
}
