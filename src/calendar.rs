//! Times as people read them.

use jiff::Timestamp;

/// `2026-11-25 08:12:01`, of seconds since 1970, in UTC: a host that lost its time zone reads like any other.
pub fn utc(seconds: u64) -> String {
    let at = i64::try_from(seconds).ok().and_then(|seconds| Timestamp::from_second(seconds).ok());
    at.unwrap_or(Timestamp::MAX).strftime("%Y-%m-%d %H:%M:%S").to_string()
}
