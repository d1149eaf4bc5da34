//! The only doors outward: files, processes, accounts, HTTP, Docker, netlink.
//!
//! A [`Probe`] looks and changes nothing; an [`Actuator`] is a probe with hands. The engine makes an actuator only when a
//! change is to be applied, so in check mode there is nothing to write with. Each file here adds its door as
//! `impl Probe` (reading) and `impl Actuator` (writing).

pub mod access_log;
pub mod accounts;
pub mod arp;
pub mod background;
pub mod blueprint;
pub mod bootstrap;
pub mod container_body;
pub mod container_root;
pub mod context;
pub mod docker;
pub mod docker_events;
pub mod docker_exec;
pub mod docker_networks;
pub mod facts;
pub mod file_events;
pub mod firewall;
pub mod fs;
pub mod haproxy;
pub mod hostview;
pub mod mounts;
pub mod holders;
pub mod http;
pub mod link_events;
pub mod netlink;
pub mod netns;
pub mod object_store;
pub mod own;
pub mod packages;
mod parting;
pub mod ping;
pub mod process;
mod procfs;
pub mod random;
pub mod removal;
pub mod services;
pub mod snapshot;
pub mod sockets;
pub mod supervisor;
pub mod uptime;
pub mod waiting;
pub mod workers;

use std::future::Future;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use crate::failure::Failure;
use crate::value::{Blob, Digest};

/// Where a host's helper gets the bytes of a [`Blob`]: from the plan where they are small, else from the controller.
pub trait BlobSource: Send + Sync {
    /// The bytes of that digest. Fails when the controller is gone, or the bytes do not match.
    fn get(&self, digest: Digest) -> BlobFuture<'_>;
}

/// Where there is no plan, there are no contents.
pub struct NoBlobs;

impl BlobSource for NoBlobs {
    fn get(&self, _: Digest) -> BlobFuture<'_> {
        Box::pin(async { Err(Failure::new("there are no contents here")) })
    }
}

/// The bytes of a blob, once they are here.
pub type BlobFuture<'a> = Pin<Box<dyn Future<Output = Result<Arc<[u8]>, Failure>> + Send + 'a>>;

/// Hears how far a long step is: a message, and done and total where they are known.
pub type ProgressSink = Arc<dyn Fn(&str, Option<(u64, u64)>) + Send + Sync>;

/// What a step may use of its host, for looking only.
#[derive(Clone)]
pub struct Probe {
    blobs: Arc<dyn BlobSource>,
    progress: ProgressSink,
    state_dir: Arc<Path>,
    background: background::Background,
    /// What the steps of a run share of what they know.
    host: hostview::HostView,
    warnings: Arc<Mutex<Vec<String>>>,
}

impl Probe {
    /// A probe of this machine. `state_dir` is fanli's own root-only folder on the host (`/var/lib/fanli`).
    pub fn new(blobs: Arc<dyn BlobSource>, progress: ProgressSink, state_dir: PathBuf) -> Self {
        Self {
            blobs,
            progress,
            state_dir: state_dir.into(),
            background: background::Background::default(),
            host: hostview::HostView::default(),
            warnings: Arc::default(),
        }
    }

    /// The same probe for one step: with its own progress and warnings.
    #[must_use]
    pub fn heard_by(&self, progress: ProgressSink) -> Self {
        Self { progress, warnings: Arc::default(), ..self.clone() }
    }

    /// The same, with its small pieces of work among those of a whole run.
    #[must_use]
    pub fn with_background(self, background: &background::Background) -> Self {
        Self { background: background.clone(), ..self }
    }

    /// The bytes of a blob.
    pub async fn blob(&self, blob: &Blob) -> Result<Arc<[u8]>, Failure> {
        self.blobs.get(blob.digest).await
    }

    /// Says how far a long step is. Cheap; may be dropped on the way.
    pub fn progress(&self, message: &str, amount: Option<(u64, u64)>) {
        (self.progress)(message, amount);
    }

    /// Says something that a person should read, whatever becomes of the step. Said twice in a step, it is told once.
    pub fn warn(&self, message: String) {
        let mut said = self.warnings.lock().unwrap_or_else(PoisonError::into_inner);
        if !said.contains(&message) {
            said.push(message);
        }
    }

    /// What the step has said by [`Probe::warn`] since this was asked last.
    pub fn warnings(&self) -> Vec<String> {
        std::mem::take(&mut *self.warnings.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// fanli's own folder on this host.
    pub fn state_dir(&self) -> &Path {
        &self.state_dir
    }
}

/// A probe that may also change its host. Made by the engine alone, just before it applies a change.
pub struct Actuator {
    probe: Probe,
    _changing: hostview::Changing,
}

impl Actuator {
    /// Hands for a probe. Only `engine/` may call this (`tests/layers.rs` checks it).
    pub fn new(probe: &Probe) -> Self {
        Self { probe: probe.clone(), _changing: hostview::Changing::of(&probe.host) }
    }
}

impl Deref for Actuator {
    type Target = Probe;

    fn deref(&self) -> &Probe {
        &self.probe
    }
}
