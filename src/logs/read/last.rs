//! The last lines of segments, without reading what is before them where that is possible.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use super::source::{Open, Source};
use super::{Desk, Enough, Line};

/// A line in the order of time: its place, when its segment was begun, the number of that, its number there.
type Place = (i64, i64, usize, usize);

impl Desk<'_> {
    /// Tells the last `most` lines of all segments in the order of time, and returns those segments that are still being written, read to
    /// their end.
    pub(super) fn last(&mut self, mut segments: Vec<Source>, most: usize) -> Result<Vec<Open>, Enough> {
        segments.sort_by_key(|source| Reverse(source.changed));
        let mut opened: Vec<Open> = Vec::new();
        let mut lines: BinaryHeap<Reverse<(Place, Vec<u8>)>> = BinaryHeap::new();
        for source in segments {
            let latest = source.changed.saturating_add(1).saturating_mul(1_000_000);
            let is_earlier = lines.len() >= most && lines.peek().is_none_or(|Reverse(((at, ..), _))| *at > latest);
            if is_earlier && !source.writing {
                continue;
            }
            let Some(mut open) = self.open(&source)? else { continue };
            let (number, mut any) = (opened.len(), false);
            for (count, line) in self.last_of(&mut open, most)?.into_iter().enumerate() {
                lines.push(Reverse(((line.at, source.opened, number, count), line.text)));
                if lines.len() > most {
                    lines.pop();
                }
                any = true;
            }
            if any || open.is_written() {
                opened.push(open);
            }
        }
        while let Some(Reverse(((at, _, number, _), text))) = lines.pop() {
            let Some(open) = opened.get_mut(number) else { continue };
            self.line(open, &Line { at, text })?;
        }
        let (live, over): (Vec<Open>, Vec<Open>) = opened.into_iter().partition(Open::is_written);
        over.iter().try_for_each(|open| self.over(open))?;
        Ok(live)
    }

    /// The last lines of one segment, which is at its end then.
    fn last_of(&mut self, open: &mut Open, most: usize) -> Result<VecDeque<Line>, Enough> {
        if let Err(failure) = open.skip_to_last(most) {
            self.fail(failure)?;
        }
        let mut lines = VecDeque::new();
        while let Some(line) = self.next(open)? {
            lines.push_back(line);
            if lines.len() > most {
                lines.pop_front();
            }
        }
        Ok(lines)
    }
}
