//! What goes to a helper: orders first, contents in pieces between them.
//!
//! A task of its own writes, so that a slow link never keeps the controller from reading what the host says meanwhile.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use crate::failure::Failure;
use crate::plan::Contents;
use crate::remote::Output;
use crate::remote::codec::{encode, send_bytes};
use crate::remote::pulse::Pulse;
use crate::remote::wire::{MOST_CHUNK, ToHelper};
use crate::value::Digest;

/// The way to a helper's input.
pub(super) struct Sending {
    frames: mpsc::UnboundedSender<Vec<u8>>,
    wanted: mpsc::UnboundedSender<Digest>,
    /// When a piece of what opens the channel, the plan above all, last went out.
    opening: Pulse,
    task: tokio::task::JoinHandle<()>,
}

impl Sending {
    /// Writes `opening`, and then what is given later. Says every `heartbeat` that the controller lives.
    pub(super) fn start(output: Output, opening: Vec<u8>, contents: Arc<Contents>, heartbeat: Duration) -> Self {
        let (frames, frame_queue) = mpsc::unbounded_channel();
        let (wanted, wanted_queue) = mpsc::unbounded_channel();
        let pulse = Pulse::new();
        let writer = Writer { output, contents, heartbeat, current: None };
        let task = tokio::spawn(writer.run(opening, pulse.clone(), frame_queue, wanted_queue));
        Self { frames, wanted, opening: pulse, task }
    }

    /// Sends frames, before contents that wait.
    pub(super) fn frames(&self, bytes: Vec<u8>) {
        // When the writer has ended the other side is gone: who reads sees that, and why.
        let _ = self.frames.send(bytes);
    }

    /// Sends a content.
    pub(super) fn content(&self, digest: Digest) {
        let _ = self.wanted.send(digest);
    }

    /// When a piece of what opens the channel last went out.
    pub(super) fn opening(&self) -> &Pulse {
        &self.opening
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Writer {
    output: Output,
    contents: Arc<Contents>,
    heartbeat: Duration,
    /// The content that is being sent: its bytes, and where its next piece begins.
    current: Option<(Digest, Arc<[u8]>, usize)>,
}

impl Writer {
    async fn run(
        mut self,
        opening: Vec<u8>,
        pulse: Pulse,
        mut frames: mpsc::UnboundedReceiver<Vec<u8>>,
        mut wanted: mpsc::UnboundedReceiver<Digest>,
    ) {
        for piece in opening.chunks(MOST_CHUNK) {
            if send_bytes(&mut self.output, piece).await.is_err() {
                return;
            }
            pulse.beat();
        }
        drop(opening);
        loop {
            let sent = tokio::select! {
                biased;
                bytes = frames.recv() => {
                    let Some(mut bytes) = bytes else { return };
                    while let Ok(more) = frames.try_recv() {
                        bytes.extend(more);
                    }
                    send_bytes(&mut self.output, &bytes).await
                }
                digest = wanted.recv(), if self.current.is_none() => {
                    let Some(digest) = digest else { return };
                    self.current = Some((digest, self.read(digest).await, 0));
                    Ok(())
                }
                () = std::future::ready(()), if self.current.is_some() => self.piece().await,
                () = tokio::time::sleep(self.heartbeat), if self.current.is_none() => self.ping().await,
            };
            if sent.is_err() {
                return;
            }
        }
    }

    /// The bytes of a content. One that cannot be read any more is sent as nothing: the helper sees that the hash does not fit, and says so.
    async fn read(&mut self, digest: Digest) -> Arc<[u8]> {
        let contents = Arc::clone(&self.contents);
        let read = tokio::task::spawn_blocking(move || contents.read(digest)).await;
        read.ok().and_then(Result::ok).unwrap_or_else(|| Arc::from(Vec::new()))
    }

    /// Sends the next piece of the current content.
    async fn piece(&mut self) -> Result<(), Failure> {
        let Some((digest, bytes, start)) = self.current.take() else { return Ok(()) };
        let end = (start + MOST_CHUNK).min(bytes.len());
        let last = end == bytes.len();
        let piece = bytes.get(start..end).unwrap_or_default().to_vec();
        let frame = encode(&ToHelper::Blob { digest, piece, last })?;
        if !last {
            self.current = Some((digest, bytes, end));
        }
        send_bytes(&mut self.output, &frame).await
    }

    async fn ping(&mut self) -> Result<(), Failure> {
        send_bytes(&mut self.output, &encode(&ToHelper::Ping)?).await
    }
}
