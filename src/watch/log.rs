//! The watcher's lines: when, who, what.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::calendar::utc;

/// A moment as [`utc`] writes it.
pub fn clock(at: SystemTime) -> String {
    utc(at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs())
}

/// `3.1 ms`, `2.4 s`.
pub(super) fn took(time: Duration) -> String {
    let micros = time.as_micros();
    if micros < 1_000_000 {
        format!("{}.{} ms", micros / 1_000, micros / 100 % 10)
    } else {
        format!("{}.{} s", micros / 1_000_000, micros / 100_000 % 10)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_calendar_is_right() {
        for (seconds, text) in [
            (0, "1970-01-01 00:00:00"),
            (951_782_399, "2000-02-28 23:59:59"),
            (951_782_400, "2000-02-29 00:00:00"),
            (951_868_800, "2000-03-01 00:00:00"),
            (1_735_689_599, "2024-12-31 23:59:59"),
            (1_795_594_321, "2026-11-25 08:12:01"),
            (4_107_542_400, "2100-03-01 00:00:00"),
        ] {
            assert_eq!(clock(UNIX_EPOCH + Duration::from_secs(seconds)), text);
        }
        assert_eq!(took(Duration::from_micros(3_149)), "3.1 ms");
        assert_eq!(took(Duration::from_millis(2_450)), "2.4 s");
    }
}
