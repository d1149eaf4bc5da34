//! The time that a log line gives for itself, in the formats that servers write.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::{Offset, TimeZone};

/// How far into a line its time is looked for, in bytes.
const WITHIN: usize = 256;

/// Microseconds in a second.
const SECOND: i64 = 1_000_000;

/// The names of months in logs.
const MONTHS: [&[u8; 3]; 12] =
    [b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"];

/// Finds the times of lines.
pub(super) struct Stamps {
    /// The clock of times without an offset.
    zone: TimeZone,
    /// The last one that was computed: lines of one second follow each other.
    last: Option<(Clock, i64)>,
}

/// A time as it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Clock {
    year: i16,
    month: i8,
    day: i8,
    hour: i8,
    minute: i8,
    second: i8,
    /// The offset from UTC in seconds, where it is written.
    offset: Option<i32>,
}

impl Stamps {
    /// Times without an offset are by the clock of `zone`.
    pub(super) fn new(zone: TimeZone) -> Self {
        Self { zone, last: None }
    }

    /// Returns the first time in a line, in microseconds since 1970. Known are that of the common log format
    /// (`[30/Nov/2026:15:03:12 +0100]`), of Apache's error log (`[Mon Nov 30 15:03:12.123456 2026]`), of nginx' error log
    /// (`2026/11/30 15:03:12`), and RFC 3339 with a space instead of `T`, a comma instead of the point, and without an offset, too.
    pub(super) fn of(&mut self, line: &[u8]) -> Option<i64> {
        let head = line.get(..WITHIN).unwrap_or(line);
        let mut before = b' ';
        for (at, byte) in head.iter().enumerate() {
            let begins = byte.is_ascii_digit() && !before.is_ascii_alphanumeric() || *byte == b'[';
            before = *byte;
            if begins && let Some(found) = line.get(at..).and_then(|rest| self.at_begin(rest)) {
                return Some(found);
            }
        }
        None
    }

    fn at_begin(&mut self, text: &[u8]) -> Option<i64> {
        let mut rest = Rest(text);
        let (clock, micros) =
            if rest.sign(b"[").is_some() { common(rest).or_else(|| apache_error(rest))? } else { year_first(rest)? };
        Some(self.seconds(clock)? * SECOND + micros)
    }

    fn seconds(&mut self, clock: Clock) -> Option<i64> {
        if let Some((_, seconds)) = self.last.filter(|(last, _)| *last == clock) {
            return Some(seconds);
        }
        let Clock { year, month, day, hour, minute, second, offset } = clock;
        // A leap second has no number of its own.
        let time = DateTime::new(year, month, day, hour, minute, second.min(59), 0).ok()?;
        let at: Timestamp = match offset {
            Some(offset) => Offset::from_seconds(offset).ok()?.to_timestamp(time).ok()?,
            None => self.zone.to_timestamp(time).ok()?,
        };
        self.last = Some((clock, at.as_second()));
        Some(at.as_second())
    }
}

/// What is left of a text.
#[derive(Clone, Copy)]
struct Rest<'t>(&'t [u8]);

impl<'t> Rest<'t> {
    fn take(&mut self, count: usize) -> Option<&'t [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    /// Takes one of these bytes.
    fn sign(&mut self, of: &[u8]) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        if !of.contains(first) {
            return None;
        }
        self.0 = rest;
        Some(*first)
    }

    /// Takes a number of so many digits.
    fn number(&mut self, digits: usize) -> Option<i16> {
        self.take(digits)?.iter().try_fold(0, |sum: i16, digit| {
            let digit = digit.is_ascii_digit().then(|| i16::from(*digit - b'0'))?;
            sum.checked_mul(10)?.checked_add(digit)
        })
    }

    fn two(&mut self) -> Option<i8> {
        self.number(2).and_then(|number| i8::try_from(number).ok())
    }

    fn month(&mut self) -> Option<i8> {
        let name = self.take(3)?;
        (1..).zip(MONTHS).find(|(_, month)| name == *month).map(|(number, _)| number)
    }

    /// Takes `15:03:12`.
    fn time(&mut self) -> Option<[i8; 3]> {
        let hour = self.two()?;
        self.sign(b":")?;
        let minute = self.two()?;
        self.sign(b":")?;
        Some([hour, minute, self.two()?])
    }

    /// Takes the parts of a second, where there are some: microseconds.
    fn fraction(&mut self) -> i64 {
        let mut rest = *self;
        if rest.sign(b".,").is_none() || !rest.0.first().is_some_and(u8::is_ascii_digit) {
            return 0;
        }
        let (mut micros, mut unit) = (0, SECOND / 10);
        while let Some(digit) = rest.sign(b"0123456789") {
            micros += i64::from(digit - b'0') * unit;
            unit /= 10;
        }
        *self = rest;
        micros
    }

    /// Takes an offset from UTC, where there is one: `Z`, `+01:00`, `+0100`, also behind a space. In seconds.
    fn offset(&mut self) -> Option<i32> {
        let mut rest = *self;
        let _ = rest.sign(b" ");
        let sign = match rest.sign(b"Zz+-")? {
            b'+' => 1,
            b'-' => -1,
            _ => return Some(0),
        };
        let hours = i32::from(rest.two()?);
        let _ = rest.sign(b":");
        let minutes = i32::from(rest.two()?);
        *self = rest;
        Some(sign * (hours * 60 + minutes) * 60)
    }
}

/// `30/Nov/2026:15:03:12 +0100]`; a balancer writes it with parts of the second, and without an offset.
fn common(mut rest: Rest) -> Option<(Clock, i64)> {
    let day = rest.two()?;
    rest.sign(b"/")?;
    let month = rest.month()?;
    rest.sign(b"/")?;
    let year = rest.number(4)?;
    rest.sign(b":")?;
    let [hour, minute, second] = rest.time()?;
    let micros = rest.fraction();
    Some((Clock { year, month, day, hour, minute, second, offset: rest.offset() }, micros))
}

/// `Mon Nov 30 15:03:12.123456 2026]`
fn apache_error(mut rest: Rest) -> Option<(Clock, i64)> {
    rest.take(3)?;
    rest.sign(b" ")?;
    let month = rest.month()?;
    rest.sign(b" ")?;
    let day = rest.two()?;
    rest.sign(b" ")?;
    let [hour, minute, second] = rest.time()?;
    let micros = rest.fraction();
    rest.sign(b" ")?;
    let year = rest.number(4)?;
    Some((Clock { year, month, day, hour, minute, second, offset: None }, micros))
}

/// `2026-11-30T15:03:12.123+01:00`, `2026/11/30 15:03:12`
fn year_first(mut rest: Rest) -> Option<(Clock, i64)> {
    let year = rest.number(4)?;
    let between = rest.sign(b"-/")?;
    let month = rest.two()?;
    rest.sign(&[between])?;
    let day = rest.two()?;
    rest.sign(b"Tt ")?;
    let [hour, minute, second] = rest.time()?;
    let micros = rest.fraction();
    Some((Clock { year, month, day, hour, minute, second, offset: rest.offset() }, micros))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(line: &str) -> Option<String> {
        let zone = TimeZone::get("Asia/Shanghai").unwrap();
        let found = Stamps::new(zone).of(line.as_bytes())?;
        Some(Timestamp::from_microsecond(found).unwrap().to_string())
    }

    #[test]
    fn the_formats_of_servers_are_known() {
        let at = |line: &str| of(line).unwrap_or_else(|| panic!("{line}"));
        let line = r#"192.0.2.7 - frank [30/Nov/2026:15:03:12 +0100] "GET / HTTP/1.1" 200 12 "-" "curl [01/Jan/2001:00:00:00 +0000]""#;
        assert_eq!(at(line), "2026-11-30T14:03:12Z");
        assert_eq!(at("lb haproxy[12]: 10.0.0.1:80 [30/Nov/2026:15:03:12.345] web"), "2026-11-30T07:03:12.345Z");
        assert_eq!(
            at("[Mon Nov 30 15:03:12.123456 2026] [core:error] [pid 12] AH00126"),
            "2026-11-30T07:03:12.123456Z"
        );
        assert_eq!(at("2026/11/30 15:03:12 [error] 12#12: *1 open() failed"), "2026-11-30T07:03:12Z");
        assert_eq!(at("2026-11-30T15:03:12.5Z INFO listening"), "2026-11-30T15:03:12.5Z");
        assert_eq!(at("2026-11-30 15:03:12,250 WARN slow"), "2026-11-30T07:03:12.25Z");
        assert_eq!(at("2026-11-30T15:03:12-08:00 x"), "2026-11-30T23:03:12Z");
        assert_eq!(at("2026-11-30 15:03:12 -0800 x"), "2026-11-30T23:03:12Z");
        assert_eq!(at(r#"{"level":"info","ts":"2026-11-30T15:03:12Z"}"#), "2026-11-30T15:03:12Z");
        assert_eq!(at("2016-12-31T23:59:60Z leap"), "2016-12-31T23:59:59Z");
    }

    #[test]
    fn what_is_no_time_is_none() {
        for line in [
            "",
            "[",
            "    at Shop.checkout(Shop.java:12)",
            "20261130150312 x",
            "2026-13-30T15:03:12Z",
            "2026-11-31T15:03:12Z",
            "[31/Foo/2026:15:03:12 +0000]",
            "[30/Nov/2026:25:03:12 +0000]",
            "12026-11-30T15:03:12Z",
            "2026-11-30T15:03",
            "[Mon Nov 30 15:03:12.123456",
            "9999-99-99 99:99:99 +99:99",
        ] {
            assert_eq!(of(line), None, "{line}");
        }
        // The first one counts.
        assert_eq!(of("v1.2.3 [x] 2026-11-30T15:03:12Z 2001-01-01T00:00:00Z").unwrap(), "2026-11-30T15:03:12Z");
        let far = format!("{}2026-11-30T15:03:12Z", " ".repeat(WITHIN));
        assert_eq!(of(&far), None);
    }

    proptest::proptest! {
        #[test]
        fn no_line_is_too_odd(line in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..400)) {
            Stamps::new(TimeZone::UTC).of(&line);
        }
    }
}
