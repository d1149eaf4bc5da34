//! What a program says: read to the end, kept within bounds.

use std::cell::Cell;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt};

/// How much is kept from the beginning and from the end of a stream, in bytes each. A result crosses the wire in one frame.
const KEPT: usize = 64 * 1024;

/// How often a line is told as progress, at most.
const TOLD: Duration = Duration::from_millis(200);

/// The first and the last of what a program said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    head: Vec<u8>,
    tail: VecDeque<u8>,
    left_out: u64,
}

impl Kept {
    /// What was read elsewhere.
    pub(super) fn of(bytes: &[u8]) -> Self {
        let mut kept = Self::default();
        kept.add(bytes);
        kept
    }

    fn add(&mut self, bytes: &[u8]) {
        let room = (KEPT - self.head.len()).min(bytes.len());
        let (first, rest) = bytes.split_at(room);
        self.head.extend_from_slice(first);
        self.tail.extend(rest);
        let over = self.tail.len().saturating_sub(KEPT);
        self.tail.drain(..over);
        self.left_out += over as u64;
    }

    /// As text, without the last line's end. What is not UTF-8 is shown by a replacement sign; what was left out, by a line.
    pub fn text(&self) -> String {
        let tail: Vec<u8> = self.tail.iter().copied().collect();
        let bytes = if self.left_out == 0 {
            [self.head.as_slice(), &tail].concat()
        } else {
            let gap = format!("\n[{} bytes left out]\n", self.left_out);
            [self.head.as_slice(), gap.as_bytes(), &tail].concat()
        };
        let text = String::from_utf8_lossy(&bytes);
        text.strip_suffix('\n').unwrap_or(&text).to_owned()
    }

    /// The last lines that say something.
    pub(super) fn last_lines(&self, count: usize) -> String {
        let text = self.text();
        let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        lines.get(lines.len().saturating_sub(count)..).unwrap_or_default().join("\n")
    }
}

/// A stream that is followed; safe to stop and go on.
pub(super) struct Follow<R> {
    pipe: Option<R>,
    kept: Kept,
    line: Vec<u8>,
    told: Cell<Option<Instant>>,
}

impl<R: AsyncRead + Unpin> Follow<R> {
    pub(super) fn new(pipe: Option<R>) -> Self {
        Self { pipe, kept: Kept::default(), line: Vec::new(), told: Cell::new(None) }
    }

    /// Reads to the end.
    pub(super) async fn follow(&mut self, hear: &impl Fn(&str)) {
        let mut piece = vec![0u8; 16 * 1024];
        while let Some(pipe) = &mut self.pipe {
            match pipe.read(&mut piece).await {
                Ok(read @ 1..) => {
                    let bytes = piece.get(..read).unwrap_or_default();
                    self.kept.add(bytes);
                    self.tell(bytes, hear);
                }
                _ => self.pipe = None,
            }
        }
    }

    /// Tells the latest whole line, not too often.
    fn tell(&mut self, bytes: &[u8], hear: &impl Fn(&str)) {
        // Programs that draw bars end their lines with a return.
        for part in bytes.split_inclusive(|byte| matches!(byte, b'\n' | b'\r')) {
            if self.line.len() < 1024 {
                self.line.extend_from_slice(part);
            }
            if !matches!(part.last(), Some(b'\n' | b'\r')) {
                continue;
            }
            let line = String::from_utf8_lossy(&self.line).trim().to_owned();
            self.line.clear();
            if !line.is_empty() && self.told.get().is_none_or(|told| told.elapsed() >= TOLD) {
                hear(&line);
                self.told.set(Some(Instant::now()));
            }
        }
    }

    pub(super) fn kept(self) -> Kept {
        self.kept
    }
}

#[cfg(test)]
mod tests {
    use super::{KEPT, Kept};

    #[test]
    fn the_first_and_the_last_are_kept() {
        let mut kept = Kept::default();
        kept.add(b"first\n");
        for _ in 0..10 {
            kept.add(&vec![b'x'; KEPT]);
        }
        kept.add(b"\nlast\n");
        let text = kept.text();
        assert!(text.starts_with("first\n") && text.ends_with("\nlast"), "{}", text.len());
        assert!(text.contains("bytes left out]"));
        assert!(text.len() < 2 * KEPT + 100);
        assert_eq!(kept.last_lines(1), "last");
    }
}
