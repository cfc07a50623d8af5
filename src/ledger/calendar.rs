//! Days and months: when a budget begins anew.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

const MS_PER_DAY: i64 = 86_400_000;
const MS_PER_SECOND: i64 = 1_000;
/// The Gregorian calendar repeats after so many days, which are 400 years.
const ERA_DAYS: i64 = 146_097;
/// From 1 March of year 0, where the eras begin, to 1 January 1970.
const EPOCH_DAYS: i64 = 719_468;

/// Tells the wall clock's time; tests bring their own.
pub trait Clock: Send + Sync + 'static {
    /// Milliseconds since 1970-01-01 UTC.
    fn unix_ms(&self) -> i64;
}

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn unix_ms(&self) -> i64 {
        // Before 1970 a machine has no clock worth asking; budgets stay in one period then.
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    }
}

/// How long a budget lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Period {
    Day,
    Month,
}

impl Period {
    pub fn name(self) -> &'static str {
        match self {
            Period::Day => "day",
            Period::Month => "month",
        }
    }
}

/// The day and the month that a moment falls in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Moment {
    /// Days since 1970-01-01.
    pub day: i64,
    /// Months since the beginning of year 0.
    pub month: i64,
}

impl Moment {
    /// `offset_s`: how far local midnight is ahead of UTC's.
    pub(crate) fn of(unix_ms: i64, offset_s: i32) -> Self {
        let local = unix_ms.saturating_add(i64::from(offset_s) * MS_PER_SECOND);
        let day = local.div_euclid(MS_PER_DAY);
        let date = Date::of_day(day);
        Self { day, month: date.year * 12 + i64::from(date.month) - 1 }
    }

    pub(crate) fn number(self, period: Period) -> i64 {
        match period {
            Period::Day => self.day,
            Period::Month => self.month,
        }
    }
}

/// A day of the Gregorian calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Date {
    year: i64,
    /// From 1.
    month: u8,
    /// From 1.
    day: u8,
}

impl Date {
    /// Counts in years that begin in March, so that a leap day is the last of its year and the
    /// lengths of the months before it follow one straight line: 153 days to five months.
    pub(crate) fn of_day(days: i64) -> Self {
        let days = days.saturating_add(EPOCH_DAYS);
        let (era, day_of_era) = (days.div_euclid(ERA_DAYS), days.rem_euclid(ERA_DAYS));
        let leap_days = day_of_era / 1_460 - day_of_era / 36_524 + day_of_era / 146_096;
        let year_of_era = (day_of_era - leap_days) / 365;
        let year_began = 365 * year_of_era + year_of_era / 4 - year_of_era / 100;
        let day_of_year = day_of_era - year_began;
        let month_from_march = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
        let (month, next_year) = match month_from_march {
            ..10 => (month_from_march + 3, 0),
            _ => (month_from_march - 9, 1),
        };
        let small = |number: i64| u8::try_from(number).unwrap_or(u8::MAX);
        Self { year: era * 400 + year_of_era + next_year, month: small(month), day: small(day) }
    }

    /// Reads `2026-11-21`; None where there is no such day.
    pub(crate) fn parse(text: &str) -> Option<i64> {
        let mut parts = text.split('-');
        let (year, month, day) = (parts.next()?, parts.next()?, parts.next()?);
        if parts.next().is_some() || [year.len(), month.len(), day.len()] != [4, 2, 2] {
            return None;
        }
        // The year has 365.2425 days, so this is at most a day from the first of its January.
        let about = (year.parse::<i64>().ok()? - 1970) * ERA_DAYS / 400;
        (about - 1..about + 368).find(|&number| Date::of_day(number).to_string() == text)
    }
}

/// As in `2026-11-21`.
impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}-{:02}", self.year, self.month, self.day)
    }
}

/// A period's number as people write it: `2026-11-21`, `2026-11`.
pub(crate) fn label(period: Period, number: i64) -> String {
    match period {
        Period::Day => Date::of_day(number).to_string(),
        Period::Month => format!("{:04}-{:02}", number.div_euclid(12), number.rem_euclid(12) + 1),
    }
}

/// RFC 3339 in UTC with milliseconds, as in `2026-11-21T13:39:29.000Z`.
pub(crate) fn timestamp(unix_ms: i64) -> String {
    let (day, ms) = (unix_ms.div_euclid(MS_PER_DAY), unix_ms.rem_euclid(MS_PER_DAY));
    let (seconds, ms) = (ms / MS_PER_SECOND, ms % MS_PER_SECOND);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z", Date::of_day(day))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The calendar by counting: one day after the other.
    #[test]
    fn every_day_from_1600_to_2400_has_its_date() {
        let leap = |year: i64| (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
        let mut day = -135_140;
        for year in 1600..2400 {
            let february = if leap(year) { 29 } else { 28 };
            let lengths = [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
            for (month, length) in (1..).zip(lengths) {
                for date in 1..=length {
                    let expected = Date { year, month, day: date };
                    assert_eq!(Date::of_day(day), expected);
                    assert_eq!(Moment::of(day * MS_PER_DAY, 0).day, day);
                    day += 1;
                }
            }
        }
    }

    #[test]
    fn dates_read_back() {
        for text in ["1970-01-01", "2026-11-21", "2024-02-29", "2000-12-31", "2399-01-01"] {
            let day = Date::parse(text).unwrap();
            assert_eq!(Date::of_day(day).to_string(), text);
        }
        for wrong in ["2026-02-30", "2026-13-01", "2026-1-1", "20261121", "2026-11-21-", "x", ""] {
            assert_eq!(Date::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_day_begins_where_the_offset_says() {
        // 2026-11-30 at 23:30 UTC.
        let late = (Date::parse("2026-11-30").unwrap() * 24 * 60 + 23 * 60 + 30) * 60_000;
        let at = |offset_s| Moment::of(late, offset_s);
        let read = |offset_s| {
            let moment = at(offset_s);
            (label(Period::Day, moment.day), label(Period::Month, moment.month))
        };
        assert_eq!(read(0), ("2026-11-30".into(), "2026-11".into()));
        assert_eq!(read(3600), ("2026-12-01".into(), "2026-12".into()));
        assert_eq!(read(-86_400), ("2026-11-29".into(), "2026-11".into()));
        assert_eq!(timestamp(late + 1_234), "2026-11-30T23:30:01.234Z");
    }

    #[test]
    fn any_clock_has_a_moment() {
        for unix_ms in [i64::MIN, -1, 0, i64::MAX] {
            let moment = Moment::of(unix_ms, 0);
            assert_eq!(moment.number(Period::Day), moment.day);
            assert_eq!(moment.number(Period::Month), moment.month);
        }
    }
}
