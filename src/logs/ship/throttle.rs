//! A reader that is no faster than it may be.

use std::io::Read;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Reads at most so many bytes in a second.
pub(super) struct Throttled<R> {
    from: R,
    rate: Option<u64>,
    begin: Instant,
    read: u64,
}

impl<R: Read> Throttled<R> {
    /// Reads from `from`; `rate` is in bytes a second.
    pub(super) fn new(from: R, rate: Option<u64>) -> Self {
        Self { from, rate, begin: Instant::now(), read: 0 }
    }
}

impl<R: Read> Read for Throttled<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if let Some(rate) = self.rate {
            #[expect(clippy::cast_precision_loss, reason = "a pause need not be exact")]
            let due = Duration::from_secs_f64(self.read as f64 / rate.max(1) as f64);
            sleep(due.saturating_sub(self.begin.elapsed()));
        }
        let came = self.from.read(buffer)?;
        self.read += u64::try_from(came).unwrap_or(0);
        Ok(came)
    }
}
