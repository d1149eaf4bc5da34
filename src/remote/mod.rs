//! One channel to each host: how the helper gets there, and what is said over it. Local is remote too.
//!
//! `wire` holds the messages and limits, `codec` the frames, `helper` the far end; `local` and `ssh` open a [`Link`], and only
//! `ssh` and `install` know that there is a network.

mod bounded;
pub mod codec;
pub mod helper;
mod install;
mod local;
pub mod pulse;
mod reading;
mod ssh;
mod tail;
pub mod wire;

use tokio::io::{AsyncRead, AsyncWrite};

use crate::failure::Failure;
use crate::plan::Connection;

pub use ssh::{Masters, START, TURNED_AWAY};
pub use tail::Tail;

/// Where and how helpers are started; the same for all hosts of a run.
#[derive(Debug)]
pub struct Reach {
    /// The folder for ssh's control sockets, and the bound on idle connections.
    pub masters: Masters,
    /// This executable, and its compressed form once some host needs it.
    pub binary: install::Binary,
    /// Another state folder on hosts than the default; `%h` stands for the host's name.
    state_dir: Option<String>,
}

impl Reach {
    /// Prepares for a run.
    ///
    /// # Errors
    /// This executable or a private folder for sockets cannot be had.
    pub fn new(state_dir: Option<String>) -> Result<Self, Failure> {
        Ok(Self { masters: Masters::new()?, binary: install::Binary::own()?, state_dir })
    }

    fn state_dir_of(&self, host: &str) -> Option<String> {
        self.state_dir.as_ref().map(|dir| dir.replace("%h", host))
    }
}

/// A stream from a host.
pub type Input = Box<dyn AsyncRead + Send + Unpin>;

/// A stream to a host.
pub type Output = Box<dyn AsyncWrite + Send + Unpin>;

/// An open channel to a helper, before its hello was read.
pub struct Link {
    /// From the helper; what was read ahead stands in the reader.
    pub input: codec::Reader<Input>,
    /// To the helper.
    pub output: Output,
    /// The last lines of the helper's stderr, and of what runs before it.
    pub stderr: Tail,
    /// Whether the helper had to be sent.
    pub uploaded: bool,
    /// Keeps the process or session alive; dropping it ends the channel.
    pub guard: Box<dyn std::any::Any + Send>,
}

/// Opens a channel to a host, whose name in the inventory is `host`.
///
/// # Errors
/// The host cannot be reached, or its helper cannot be started there.
pub async fn connect(host: &str, connection: &Connection, reach: &Reach) -> Result<Link, Failure> {
    let state_dir = reach.state_dir_of(host);
    match connection {
        Connection::Local { r#become } => local::connect(*r#become, reach, state_dir.as_deref()),
        Connection::Ssh { .. } => ssh::connect(connection, reach, state_dir.as_deref()).await,
    }
}
