//! The frames between controller and helper: the same over SSH, over sudo and over local pipes.
//!
//! Each side opens with [`MAGIC`] and [`VERSION`] (what stands before the magic on the way to the controller is noise from login
//! scripts, skipped up to [`MOST_NOISE`]). Then frames: a length (u32, little endian), then a message in postcard. The
//! length is checked against [`MOST_FRAME`] before anything is allocated. A frame is written in one write: two small writes
//! before a read cost 40 ms each time (Nagle and delayed acknowledgement).

use serde::{Deserialize, Serialize};

use crate::event::Event;
use crate::failure::Failure;
use crate::logs::read::{Query, Told};
use crate::value::{Digest, as_bytes};

/// Opens the stream in both directions. No shell prints it by accident.
pub const MAGIC: [u8; 8] = *b"\x00fanli\x01\n";

/// The version of what follows; both sides must agree. As the helper is the same binary, a difference is a defect.
pub const VERSION: u16 = 4;

/// The most noise that is skipped before the magic, in bytes.
pub const MOST_NOISE: usize = 64 * 1024;

/// The longest frame, in bytes. A longer one is an error before any allocation.
pub const MOST_FRAME: usize = 1024 * 1024;

/// The most memory that a decoded frame may take beside its text, in bytes: a frame of empty lists is longer in memory than on the wire.
pub const MOST_MEMORY: usize = 16 * 1024 * 1024;

/// The longest piece of a plan or a blob in one frame, in bytes.
pub const MOST_CHUNK: usize = 256 * 1024;

/// From the controller to the helper.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ToHelper {
    /// A piece of the plan (postcard of [`crate::plan::HostPlan`], cut in pieces); `last` ends it.
    Plan {
        /// The piece.
        #[serde(with = "as_bytes")]
        piece: Vec<u8>,
        /// Whether it is the last one.
        last: bool,
    },
    /// Instead of a plan: lines of log files are to be read, and nothing else is done. Answered by [`ToController::Read`].
    Read(Box<Query>),
    /// The word for a stage: every host is through with the one before. `stages` up to and with this number may run.
    Go {
        /// The stage's number.
        stage: u32,
        /// Nodes that the stage leaves out: a rollout does nothing to those that need nothing.
        without: Vec<String>,
    },
    /// Skip these stages: their play has stopped (a failed batch).
    Skip {
        /// Stages from this number...
        from: u32,
        /// ... to this one, inclusive.
        to: u32,
    },
    /// A piece of a blob that was asked for.
    Blob {
        /// Which.
        digest: Digest,
        /// The piece.
        #[serde(with = "as_bytes")]
        piece: Vec<u8>,
        /// Whether it is the last one.
        last: bool,
    },
    /// Take the host's lock, waiting at most so long; answered by [`ToController::Lock`].
    Lock {
        /// How long.
        wait: std::time::Duration,
        /// Who wants it: kept beside the lock, for whoever cannot get it.
        by: String,
    },
    /// Free the host's lock.
    Unlock,
    /// The controller lives. Sent every [`HEARTBEAT`]; the helper ends itself after [`SILENCE`] without any bytes.
    Ping,
    /// Start no further step; let the running one come to its end, within the limit `abort`.
    Stop,
}

/// From the helper to the controller.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ToController {
    /// Something happened.
    Event(Box<Event>),
    /// The bytes of a blob are needed.
    NeedBlob {
        /// Which.
        digest: Digest,
    },
    /// What became of [`ToHelper::Lock`].
    Lock(LockAnswer),
    /// What was read, in order; [`Told::End`] is the last.
    Read(Vec<Told>),
    /// The helper cannot go on at all (a bad plan): the last frame.
    Fatal(Failure),
    /// The helper lives; sent when nothing else was for [`HEARTBEAT`].
    Pong,
}

/// Whether a host is locked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LockAnswer {
    /// It is, by this run.
    Taken {
        /// The lock, the same for every run whatever it calls the host: the machine's boot and the file.
        place: String,
    },
    /// Another run holds it.
    Held {
        /// See [`LockAnswer::Taken`].
        place: String,
        /// Who holds it, and since when.
        by: String,
    },
}

/// How often each side says that it lives.
pub const HEARTBEAT: std::time::Duration = std::time::Duration::from_secs(3);

/// How long either side waits for bytes before it takes the other for dead.
pub const SILENCE: std::time::Duration = std::time::Duration::from_secs(15);

/// How often a side says that it lives, and how long it waits for the other one.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// See [`HEARTBEAT`].
    pub heartbeat: std::time::Duration,
    /// See [`SILENCE`].
    pub silence: std::time::Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { heartbeat: HEARTBEAT, silence: SILENCE }
    }
}
