//! Lines as they are written.

use std::time::{Duration, Instant};

use super::find::Found;
use super::source::Open;
use super::{Desk, Enough, Line};

/// How often segments are read on.
const EVERY: Duration = Duration::from_millis(250);

/// How much of a segment is read in one round, in bytes: others have their turn.
const MOST_ROUND: usize = 1024 * 1024;

/// How many times as long as looking for segments took it is not done again.
const REST: u32 = 10;

impl Desk<'_> {
    /// Tells lines that are added to segments, and those of new ones, until the sink has enough. Those of one round are in the order of time.
    pub(super) fn follow(&mut self, mut found: Found, mut live: Vec<Open>) -> Result<(), Enough> {
        let mut look_at = Instant::now();
        loop {
            let more = self.round(&mut live)?;
            let now = Instant::now();
            if now >= look_at && found.is_stale() {
                for source in self.look(&mut found)? {
                    live.extend(self.open(&source)?);
                }
                look_at = now + now.elapsed() * REST;
            }
            self.flush()?;
            if !more {
                std::thread::sleep(EVERY);
            }
        }
    }

    /// Reads what was added; returns whether there is more. Segments that are closed and read to their end go.
    fn round(&mut self, live: &mut Vec<Open>) -> Result<bool, Enough> {
        let (mut lines, mut more): (Vec<(usize, Line)>, bool) = (Vec::new(), false);
        let mut is_over = vec![false; live.len()];
        for (number, (open, is_over)) in live.iter_mut().zip(&mut is_over).enumerate() {
            // Before it is read: what its writer has added until then is read.
            open.watch_writer();
            let mut read = 0;
            while read < MOST_ROUND
                && let Some(line) = self.next(open)?
            {
                read += line.text.len();
                lines.push((number, line));
            }
            more |= read >= MOST_ROUND;
            *is_over = !open.is_written() && read < MOST_ROUND;
        }
        lines.sort_by_key(|(number, line)| (line.at, *number));
        for (number, line) in lines {
            if let Some(open) = live.get_mut(number) {
                self.line(open, &line)?;
            }
        }
        for (open, _) in live.iter().zip(&is_over).filter(|(_, is_over)| **is_over) {
            self.over(open)?;
        }
        let mut is_over = is_over.into_iter();
        live.retain(|_| is_over.next() != Some(true));
        Ok(more)
    }
}
