//! Frames on a byte stream.

use bytes::{Buf as _, BytesMut};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::bounded;
use super::pulse::Pulse;
use super::wire::{MAGIC, MOST_FRAME, MOST_MEMORY, MOST_NOISE, VERSION};
use crate::failure::{Failure, FailureKind};
use crate::visible::shortened;

/// How many characters of other programs' words a message repeats.
const MOST_SAID: usize = 300;

/// Bytes of a frame's length.
const HEADER: usize = 4;

/// What opens the stream in either direction.
pub fn hello() -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend(VERSION.to_le_bytes());
    bytes
}

/// A message as one frame, length and all, to be written in one write.
///
/// # Errors
/// The message is longer than a frame may be.
pub fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, Failure> {
    let internal = |text: String| Failure::of(FailureKind::Internal, text);
    let frame = postcard::to_extend(message, vec![0; HEADER]);
    let mut frame = frame.map_err(|error| internal(format!("a message cannot be encoded: {error}")))?;
    let length = frame.len() - HEADER;
    if length > MOST_FRAME {
        return Err(internal(format!("a message of {length} bytes does not fit a frame of {MOST_FRAME}")));
    }
    let header = u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes();
    frame.iter_mut().zip(header).for_each(|(slot, byte)| *slot = byte);
    Ok(frame)
}

/// Reads frames. Not safe to cancel in the middle of a frame: give it a task of its own.
pub struct Reader<R> {
    stream: R,
    ahead: BytesMut,
    pulse: Pulse,
}

impl<R: AsyncRead + Unpin> Reader<R> {
    /// A reader of a stream; `ahead` was read from it already.
    pub fn new(stream: R, ahead: &[u8]) -> Self {
        Self { stream, ahead: BytesMut::from(ahead), pulse: Pulse::new() }
    }

    /// When bytes last arrived.
    pub fn pulse(&self) -> Pulse {
        self.pulse.clone()
    }

    /// Reads up to and with the hello; returns the noise before it.
    ///
    /// # Errors
    /// The stream ends, or carries more noise than is skipped, or another version.
    pub async fn hello(&mut self) -> Result<Vec<u8>, Failure> {
        let lost = |text: &str| Failure::of(FailureKind::Lost, text.to_owned());
        let whole = MAGIC.len() + 2;
        loop {
            if let Some(at) = find(&self.ahead, &MAGIC)
                && self.ahead.len() >= at + whole
            {
                let noise = self.ahead.split_to(at).to_vec();
                let opened = self.ahead.split_to(whole);
                if opened.get(MAGIC.len()..) != Some(&VERSION.to_le_bytes()) {
                    return Err(Failure::of(
                        FailureKind::Internal,
                        "the other side speaks another version of the protocol",
                    ));
                }
                return Ok(noise);
            }
            if self.ahead.len() > MOST_NOISE {
                return Err(
                    lost("more than 64 KiB came before the helper's hello").hint("make the login scripts quiet")
                );
            }
            if !self.fill().await? {
                let said = self.said();
                let failure = lost("the stream ended before the helper's hello");
                return Err(if said.is_empty() { failure } else { failure.because(said) });
            }
        }
    }

    /// Reads up to and with one line end that comes before any hello, for the installer's marker; `None` when the hello
    /// comes first (nothing of it is taken).
    ///
    /// # Errors
    /// The stream ends, or carries more noise than is skipped.
    pub async fn marker(&mut self, marker: &[u8]) -> Result<bool, Failure> {
        loop {
            if find(&self.ahead, &MAGIC).is_some() {
                return Ok(false);
            }
            if let Some(at) = find(&self.ahead, marker) {
                self.ahead.advance(at + marker.len());
                return Ok(true);
            }
            let failure = || Failure::of(FailureKind::Unreachable, "the helper could not be started");
            if self.ahead.len() > MOST_NOISE {
                let failure = failure().because("the login scripts say more than 64 KiB before it");
                return Err(failure.because(self.said()).hint("make the login scripts quiet"));
            }
            if !self.fill().await? {
                let said = self.said();
                return Err(if said.is_empty() { failure() } else { failure().because(said) });
            }
        }
    }

    /// The beginning of what was read, for a message.
    fn said(&self) -> String {
        let text = String::from_utf8_lossy(&self.ahead);
        shortened(text.trim(), MOST_SAID)
    }

    /// The next message; `None` at the end of the stream.
    ///
    /// # Errors
    /// The stream breaks inside a frame, a length is over the limit (before anything is allocated), a message does not decode
    /// or would take too much stack or memory.
    pub async fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>, Failure> {
        let lost = |text: String| Failure::of(FailureKind::Lost, text);
        loop {
            if let Some(header) = self.ahead.first_chunk::<HEADER>() {
                let length = u32::from_le_bytes(*header) as usize;
                if length > MOST_FRAME {
                    return Err(lost(format!("a frame of {length} bytes is over the limit of {MOST_FRAME}")));
                }
                if let Some(body) = self.ahead.get(HEADER..HEADER + length) {
                    let message = bounded::decode(body, MOST_MEMORY);
                    self.ahead.advance(HEADER + length);
                    return message.map(Some).map_err(|error| lost(format!("a frame does not decode: {error}")));
                }
            }
            if !self.fill().await? {
                return if self.ahead.is_empty() {
                    Ok(None)
                } else {
                    Err(lost("the stream broke inside a frame".to_owned()))
                };
            }
        }
    }

    /// Reads some more; false at the end. What arrives is a sign of life, whole frame or not.
    async fn fill(&mut self) -> Result<bool, Failure> {
        self.ahead.reserve(64 * 1024);
        let read = self.stream.read_buf(&mut self.ahead).await;
        let count = read.map_err(|error| Failure::of(FailureKind::Lost, format!("the stream broke: {error}")))?;
        self.pulse.beat();
        Ok(count > 0)
    }
}

/// Writes one message as one write.
///
/// # Errors
/// The other side is gone.
pub async fn send<W: AsyncWrite + Unpin, T: Serialize>(stream: &mut W, message: &T) -> Result<(), Failure> {
    send_bytes(stream, &encode(message)?).await
}

/// Writes bytes that are frames already.
///
/// # Errors
/// The other side is gone.
pub async fn send_bytes<W: AsyncWrite + Unpin>(stream: &mut W, bytes: &[u8]) -> Result<(), Failure> {
    let gone = |error: std::io::Error| Failure::of(FailureKind::Lost, format!("the other side is gone: {error}"));
    stream.write_all(bytes).await.map_err(gone)?;
    stream.flush().await.map_err(gone)
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}
