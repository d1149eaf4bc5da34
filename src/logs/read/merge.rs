//! The lines of segments in the order of time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::source::{Open, Source};
use super::{Desk, Enough, Line};

/// A segment in a merge.
enum Stand {
    /// It is opened when it is its turn, so that few files are open at a time.
    Found(Source),
    /// It is open, and this is its next line.
    Open(Box<Open>, Line),
    /// It has no more lines, or is among those that are still being written.
    Over,
}

impl Desk<'_> {
    /// Tells the lines of segments in the order of time, and returns those segments that are still being written.
    pub(super) fn merged(&mut self, segments: Vec<Source>) -> Result<Vec<Open>, Enough> {
        let turns = segments.iter().enumerate().map(|(number, source)| Reverse((source.begin, number)));
        let mut turns: BinaryHeap<_> = turns.collect();
        let mut stands: Vec<Stand> = segments.into_iter().map(Stand::Found).collect();
        let mut live = Vec::new();
        while let Some(Reverse((at, number))) = turns.pop() {
            if at > self.filter.until {
                break;
            }
            let Some(stand) = stands.get_mut(number) else { continue };
            let (mut open, is_within) = match std::mem::replace(stand, Stand::Over) {
                Stand::Found(source) => match self.open(&source)? {
                    Some(open) => (Box::new(open), false),
                    None => continue,
                },
                Stand::Open(mut open, line) => {
                    let ends = line.text.ends_with(b"\n");
                    self.line(&mut open, &line)?;
                    (open, !ends)
                }
                Stand::Over => continue,
            };
            match self.next(&mut open)? {
                Some(line) => {
                    // The rest of a line comes before everything else.
                    let at = if is_within { i64::MIN } else { line.at };
                    turns.push(Reverse((at, number)));
                    *stand = Stand::Open(open, line);
                }
                None if open.is_written() => live.push(*open),
                None => self.over(&open)?,
            }
        }
        Ok(live)
    }
}
