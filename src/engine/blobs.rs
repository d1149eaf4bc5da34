//! Contents by hash: those that the plan brought, those rendered here, and those that the controller has.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::failure::Failure;
use crate::system::{BlobFuture, BlobSource};
use crate::value::{Blob, Digest};

/// Answers from what is held here first; asks the controller for the rest.
pub(super) struct Blobs {
    held: Mutex<BTreeMap<Digest, Arc<[u8]>>>,
    controller: Arc<dyn BlobSource>,
}

impl Blobs {
    /// Starts with the small contents of the plan.
    pub(super) fn new(inline: BTreeMap<Digest, Vec<u8>>, controller: Arc<dyn BlobSource>) -> Self {
        // What came with the plan is checked like everything else that comes over the wire.
        let sound = inline.into_iter().filter(|(digest, bytes)| Digest::of(bytes) == *digest);
        Self { held: Mutex::new(sound.map(|(digest, bytes)| (digest, bytes.into())).collect()), controller }
    }

    /// Keeps rendered bytes for the step that is about to run.
    pub(super) fn hold(&self, bytes: Vec<u8>) -> Blob {
        let blob = Blob { digest: Digest::of(&bytes), len: bytes.len() as u64 };
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.insert(blob.digest, bytes.into());
        blob
    }
}

impl BlobSource for Blobs {
    fn get(&self, digest: Digest) -> BlobFuture<'_> {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner).get(&digest).cloned();
        Box::pin(async move {
            match held {
                Some(bytes) => Ok::<_, Failure>(bytes),
                None => self.controller.get(digest).await,
            }
        })
    }
}
