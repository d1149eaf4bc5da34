//! Lines on their way from the pipe to the disk: few of them, and what happens when there is no room.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::period::Period;

/// What happens to lines that cannot be written and for which the spool has no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFull {
    /// The program waits with its next line until there is room.
    Block,
    /// The line is left out, and counted.
    Drop,
}

/// Lines that were left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    /// How many; one of which a part was written counts as well.
    pub lines: u64,
    /// How long they were, in bytes.
    pub bytes: u64,
}

/// Bytes of one period that follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) period: Period,
    pub(super) bytes: usize,
}

/// What was taken out of the spool at once.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) bytes: Vec<u8>,
    pub(super) runs: VecDeque<Run>,
}

/// What there is to do for the one that writes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// The batch holds lines.
    Write,
    /// There is no line, and this period has begun.
    Turn(Period),
    /// No line will come any more.
    End,
}

/// The queue between the thread that reads and the one that writes.
pub(super) struct Spool {
    inner: Mutex<Inner>,
    changed: Condvar,
    most: usize,
    on_full: OnFull,
}

#[derive(Default)]
struct Inner {
    batch: Batch,
    /// Bytes that were taken and are not written yet.
    taken: usize,
    turned: Option<Period>,
    ended: bool,
    dropped: Dropped,
    /// The last piece that came did not end its line.
    open: bool,
    /// The rest of the line is left out, as its first pieces were.
    leaving_out: bool,
    /// A line of which only the first pieces are there has to be ended.
    torn: bool,
}

impl Spool {
    /// A spool of at most so many bytes.
    pub(super) fn new(most: usize, on_full: OnFull) -> Self {
        Self { inner: Mutex::default(), changed: Condvar::new(), most, on_full }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds whole lines, or a piece of one that is too long to be held back until its end.
    pub(super) fn push(&self, bytes: &[u8], period: Period) {
        let mut inner = self.inner();
        if self.on_full == OnFull::Block {
            while inner.used() > 0 && inner.used() + bytes.len() > self.most {
                inner = self.changed.wait(inner).unwrap_or_else(PoisonError::into_inner);
            }
            inner.add(bytes, period);
        } else {
            inner.add_what_fits(bytes, period, self.most);
        }
        self.changed.notify_all();
    }

    /// Tells that a period has begun, with no line in it yet.
    pub(super) fn turn(&self, period: Period) {
        self.inner().turned = Some(period);
        self.changed.notify_all();
    }

    /// Tells that nothing comes any more.
    pub(super) fn end(&self) {
        self.inner().ended = true;
        self.changed.notify_all();
    }

    /// Waits for something to do. What was taken before counts as written.
    pub(super) fn next(&self, batch: &mut Batch) -> Next {
        batch.bytes.clear();
        batch.runs.clear();
        let mut inner = self.inner();
        inner.taken = 0;
        self.changed.notify_all();
        loop {
            if !inner.batch.bytes.is_empty() {
                std::mem::swap(batch, &mut inner.batch);
                inner.taken = batch.bytes.len();
                return Next::Write;
            }
            if let Some(period) = inner.turned.take() {
                return Next::Turn(period);
            }
            if inner.ended {
                return Next::End;
            }
            inner = self.changed.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Tells how many bytes of the batch are written: there is room for as many.
    pub(super) fn wrote(&self, bytes: usize) {
        let mut inner = self.inner();
        inner.taken = inner.taken.saturating_sub(bytes);
        self.changed.notify_all();
    }

    /// Whether nothing comes any more.
    pub(super) fn has_ended(&self) -> bool {
        self.inner().ended
    }

    /// Counts lines as left out that were in the spool already.
    pub(super) fn give_up(&self, bytes: &[u8]) {
        self.inner().leave_out(bytes);
    }

    /// What was left out since this was asked last.
    pub(super) fn take_dropped(&self) -> Dropped {
        std::mem::take(&mut self.inner().dropped)
    }
}

impl Inner {
    fn used(&self) -> usize {
        self.batch.bytes.len() + self.taken
    }

    fn add(&mut self, bytes: &[u8], period: Period) {
        self.batch.bytes.extend_from_slice(bytes);
        match self.batch.runs.back_mut().filter(|run| run.period == period) {
            Some(run) => run.bytes += bytes.len(),
            None => self.batch.runs.push_back(Run { period, bytes: bytes.len() }),
        }
        self.open = !bytes.ends_with(b"\n");
    }

    fn add_what_fits(&mut self, mut bytes: &[u8], period: Period, most: usize) {
        if self.leaving_out {
            let end = line_end(bytes);
            let (rest, more) = bytes.split_at(end.unwrap_or(bytes.len()));
            self.dropped.bytes += length(rest);
            if end.is_none() {
                return;
            }
            self.leaving_out = false;
            bytes = more;
        }
        if bytes.is_empty() {
            return;
        }
        let room = most.saturating_sub(self.used());
        let fits = if bytes.len() <= room {
            bytes.len()
        } else {
            // Whole lines only.
            bytes.get(..room).and_then(|bytes| memchr::memrchr(b'\n', bytes)).map_or(0, |last| last + 1)
        };
        let (kept, left_out) = bytes.split_at(fits);
        if !kept.is_empty() {
            if std::mem::take(&mut self.torn) {
                self.add(b"\n", period);
            }
            self.add(kept, period);
        }
        if !left_out.is_empty() {
            // The rest of a line that is there in part.
            self.torn |= self.open && kept.is_empty();
            self.open = false;
            self.leave_out(left_out);
            self.leaving_out = !left_out.ends_with(b"\n");
        }
    }

    fn leave_out(&mut self, bytes: &[u8]) {
        let ends = memchr::memchr_iter(b'\n', bytes).count();
        let lines = ends + usize::from(!bytes.ends_with(b"\n") && !bytes.is_empty());
        self.dropped.lines += u64::try_from(lines).unwrap_or(u64::MAX);
        self.dropped.bytes += length(bytes);
    }
}

/// Where the first line of some bytes ends.
fn line_end(bytes: &[u8]) -> Option<usize> {
    memchr::memchr(b'\n', bytes).map(|at| at + 1)
}

fn length(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use proptest::prelude::*;

    use super::*;

    fn period(number: u64) -> Period {
        Period { begin: Timestamp::UNIX_EPOCH, end: Timestamp::MAX, number }
    }

    #[test]
    fn what_fits_goes_in_and_the_rest_is_counted_by_the_line() {
        let spool = Spool::new(10, OnFull::Drop);
        spool.push(b"one\ntwo\nthree\nfour\n", period(0));
        let mut batch = Batch::default();
        assert_eq!(spool.next(&mut batch), Next::Write);
        assert_eq!(batch.bytes, b"one\ntwo\n");
        assert_eq!(spool.take_dropped(), Dropped { lines: 2, bytes: 11 });
        // What was taken has its room until it is written.
        spool.push(b"five\n", period(0));
        assert_eq!(spool.take_dropped(), Dropped { lines: 1, bytes: 5 });
        spool.wrote(8);
        spool.push(b"six\n", period(1));
        spool.turn(period(2));
        assert_eq!(spool.next(&mut batch), Next::Write);
        assert_eq!((batch.bytes.as_slice(), batch.runs.len()), (&b"six\n"[..], 1));
        assert_eq!(spool.next(&mut batch), Next::Turn(period(2)));
        spool.end();
        assert_eq!(spool.next(&mut batch), Next::End);
    }

    #[test]
    fn a_line_of_which_the_rest_finds_no_room_is_ended() {
        let spool = Spool::new(8, OnFull::Drop);
        spool.push(b"begin", period(0));
        spool.push(b" and more", period(0));
        spool.push(b" and the end\nnext\n", period(0));
        let mut batch = Batch::default();
        spool.next(&mut batch);
        assert_eq!(batch.bytes, b"begin");
        spool.wrote(5);
        spool.push(b"last\n", period(0));
        spool.next(&mut batch);
        assert_eq!(batch.bytes, b"\nlast\n");
        // The torn one and `next`.
        assert_eq!(spool.take_dropped().lines, 2);
    }

    proptest! {
        /// Every line is written or counted, whole lines are never torn, and the order stays.
        #[test]
        fn no_line_is_lost_unseen(
            lines in prop::collection::vec(0_usize..12, 1..60),
            takes in prop::collection::vec(any::<bool>(), 60),
            most in 4_usize..40,
        ) {
            let spool = Spool::new(most, OnFull::Drop);
            let mut written = Vec::new();
            let mut batch = Batch::default();
            for ((number, length), take) in lines.iter().enumerate().zip(&takes) {
                let line = format!("{number}{}\n", "x".repeat(*length));
                spool.push(line.as_bytes(), period(0));
                if *take && !spool.inner().batch.bytes.is_empty() {
                    spool.next(&mut batch);
                    written.extend_from_slice(&batch.bytes);
                }
            }
            spool.end();
            while spool.next(&mut batch) == Next::Write {
                written.extend_from_slice(&batch.bytes);
            }
            let written = String::from_utf8(written).unwrap();
            let numbers: Vec<usize> =
                written.lines().map(|line| line.trim_end_matches('x').parse().unwrap()).collect();
            prop_assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]), "{numbers:?}");
            for (line, number) in written.lines().zip(&numbers) {
                prop_assert_eq!(line.len(), number.to_string().len() + lines[*number]);
            }
            prop_assert_eq!(numbers.len() as u64 + spool.take_dropped().lines, lines.len() as u64);
        }
    }
}
