//! Periods of time by a zone's clock: each is the time that one log file is for.

use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{Timestamp, ZonedDateTime};

use crate::failure::Failure;

/// How long a period is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Every {
    /// So many seconds, which a day is a multiple of: periods begin at midnight.
    Seconds(u32),
    /// A day, of 23 to 25 hours.
    Day,
    /// A month.
    Month,
    /// A year.
    Year,
}

/// The seconds of a day that has no change of the clock.
const DAY: u64 = 86_400;

impl Every {
    /// A minute.
    pub const MINUTE: Self = Self::Seconds(60);
    /// An hour.
    pub const HOUR: Self = Self::Seconds(3_600);

    /// A period of that length.
    ///
    /// # Errors
    /// A day is no multiple of it.
    pub fn lasting(length: Duration) -> Result<Self, Failure> {
        let seconds = length.as_secs();
        let even = length.subsec_nanos() == 0 && seconds > 0 && DAY.checked_rem(seconds) == Some(0);
        match u32::try_from(seconds) {
            Ok(_) if seconds == DAY => Ok(Self::Day),
            Ok(seconds) if even => Ok(Self::Seconds(seconds)),
            _ => Err(Failure::new("a day is not a whole number of such periods")
                .hint("for example `15m`, `1h`, `6h`, `1d`, or `month`")),
        }
    }
}

/// One stretch of time, from `begin` to just before `end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Period {
    /// When it begins.
    pub begin: Timestamp,
    /// When the next one begins.
    pub end: Timestamp,
    /// Tells it from others, also where the clock was set back and the same time comes again.
    pub number: u64,
}

/// The clock that says which period it is.
#[derive(Debug)]
pub struct Periods {
    every: Every,
    zone: TimeZone,
    current: Option<Period>,
}

impl Periods {
    /// Periods of that length, by the clock of a zone.
    pub fn new(every: Every, zone: TimeZone) -> Self {
        Self { every, zone, current: None }
    }

    /// Returns the period of a moment: the same one as before, while it lasts.
    pub fn at(&mut self, now: Timestamp) -> Period {
        if let Some(current) = self.current.filter(|current| current.begin <= now && now < current.end) {
            return current;
        }
        let number = self.current.map_or(0, |last| last.number + 1);
        let (begin, end) = self.bounds(now).unwrap_or((now, Timestamp::MAX));
        let period = Period { begin, end, number };
        self.current = Some(period);
        period
    }

    /// `None` at the ends of the calendar.
    fn bounds(&self, now: Timestamp) -> Option<(Timestamp, Timestamp)> {
        let at = now.to_zoned_datetime(self.zone.clone());
        let day = |at: &ZonedDateTime| at.start_of_day().ok();
        let (begin, end) = match self.every {
            Every::Seconds(length) => return self.within_a_day(&at, i64::from(length)),
            Every::Day => (day(&at)?, day(&at.tomorrow().ok()?)?),
            Every::Month => (day(&at.first_of_month().ok()?)?, day(&at.last_of_month().ok()?.tomorrow().ok()?)?),
            Every::Year => (day(&at.first_of_year().ok()?)?, day(&at.last_of_year().ok()?.tomorrow().ok()?)?),
        };
        Some((begin.timestamp(), end.timestamp()))
    }

    /// A period ends where the zone's clock is changed, too: the repeated hour is another one.
    fn within_a_day(&self, at: &ZonedDateTime, length: i64) -> Option<(Timestamp, Timestamp)> {
        let now = at.timestamp();
        let of_day = (i64::from(at.hour()) * 60 + i64::from(at.minute())) * 60 + i64::from(at.second());
        let gone = of_day.checked_rem(length)?;
        let begin = Timestamp::from_second(now.as_second().checked_sub(gone)?).ok()?;
        let end = Timestamp::from_second(now.as_second().checked_add(length - gone)?).ok()?;
        // `preceding` gives what lies strictly before.
        let later = now.checked_add(jiff::SignedDuration::from_nanos(1)).ok()?;
        let before = self.zone.preceding(later).next().map(|change| change.timestamp());
        let after = self.zone.following(now).next().map(|change| change.timestamp());
        let begin = before.filter(|change| *change > begin).unwrap_or(begin);
        let end = after.filter(|change| *change < end).unwrap_or(end);
        Some((begin, end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The periods of a stretch of time, as `begin end`, by the zone's clock.
    fn of(every: Every, zone: &str, from: &str, minutes: i64) -> Vec<String> {
        let zone = TimeZone::get(zone).unwrap();
        let mut periods = Periods::new(every, zone.clone());
        let start: Timestamp = from.parse().unwrap();
        let mut found: Vec<Period> = Vec::new();
        for minute in 0..minutes {
            let now = start.checked_add(jiff::SignedDuration::from_mins(minute)).unwrap();
            let period = periods.at(now);
            assert!(period.begin <= now && now < period.end, "{period:?} at {now}");
            if found.last() != Some(&period) {
                assert!(found.last().is_none_or(|last| last.end == period.begin), "{found:?} {period:?}");
                found.push(period);
            }
        }
        let shown = |at: Timestamp| at.to_zoned_datetime(zone.clone()).strftime("%d %H:%M%z").to_string();
        found.iter().map(|period| format!("{} {}", shown(period.begin), shown(period.end))).collect()
    }

    #[test]
    fn hours_follow_each_other_also_where_the_clock_is_changed() {
        assert_eq!(
            of(Every::HOUR, "Europe/Berlin", "2026-10-24T23:30:00Z", 121),
            ["25 01:00+0200 25 02:00+0200", "25 02:00+0200 25 02:00+0100", "25 02:00+0100 25 03:00+0100",]
        );
        assert_eq!(
            of(Every::HOUR, "Europe/Berlin", "2026-03-29T00:30:00Z", 61),
            ["29 01:00+0100 29 03:00+0200", "29 03:00+0200 29 04:00+0200"]
        );
        // Half an hour is set back at two.
        assert_eq!(
            of(Every::HOUR, "Australia/Lord_Howe", "2026-04-04T14:30:00Z", 60),
            ["05 01:00+1100 05 01:30+1030", "05 01:30+1030 05 02:00+1030"]
        );
        assert_eq!(
            of(Every::Seconds(21_600), "UTC", "2026-10-24T23:30:00Z", 60),
            ["24 18:00+0000 25 00:00+0000", "25 00:00+0000 25 06:00+0000"]
        );
    }

    #[test]
    fn days_months_and_years_are_those_of_the_zone() {
        assert_eq!(
            of(Every::Day, "Asia/Shanghai", "2026-11-29T15:59:00Z", 2),
            ["29 00:00+0800 30 00:00+0800", "30 00:00+0800 01 00:00+0800"]
        );
        assert_eq!(of(Every::Day, "Europe/Berlin", "2026-10-25T00:00:00Z", 1), ["25 00:00+0200 26 00:00+0100"]);
        assert_eq!(of(Every::Month, "UTC", "2026-12-31T23:59:00Z", 2).len(), 2);
        assert_eq!(of(Every::Year, "UTC", "2026-12-31T23:59:00Z", 2).len(), 2);
    }

    #[test]
    fn a_clock_that_is_set_back_begins_another_period() {
        let mut periods = Periods::new(Every::HOUR, TimeZone::UTC);
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let first = periods.at(at("2026-11-30T10:59:00Z"));
        let second = periods.at(at("2026-11-30T11:00:00Z"));
        let again = periods.at(at("2026-11-30T10:59:30Z"));
        assert_eq!((first.begin, first.end), (again.begin, again.end));
        assert_eq!([first.number, second.number, again.number], [0, 1, 2]);
    }

    #[test]
    fn a_day_is_a_whole_number_of_periods() {
        let every = |seconds| Every::lasting(Duration::from_secs(seconds)).ok();
        assert_eq!(every(3_600), Some(Every::HOUR));
        assert_eq!(every(86_400), Some(Every::Day));
        assert_eq!(every(900), Some(Every::Seconds(900)));
        assert_eq!((every(0), every(7), every(172_800)), (None, None, None));
        assert!(Every::lasting(Duration::from_millis(1_500)).is_err());
    }
}
