//! Periods of caps: when the one that holds a time began. Days and months are UTC's.

/// How long a cap counts before it begins anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Period {
    Day,
    Month,
    Lifetime,
}

const DAY: i64 = 86_400_000_000;
/// `-infinity`.
const ALWAYS: i64 = i64::MIN;

impl Period {
    pub fn parse(word: &str) -> Option<Self> {
        match word {
            "day" => Some(Self::Day),
            "month" => Some(Self::Month),
            "lifetime" => Some(Self::Lifetime),
            _ => None,
        }
    }

    /// The begin of the period that `at` lies in. Microseconds since 2000-01-01 UTC.
    pub fn start(self, at: i64) -> i64 {
        let day = at.div_euclid(DAY);
        match self {
            Self::Day => day * DAY,
            Self::Month => (day - i64::from(day_of_month(day)) + 1) * DAY,
            Self::Lifetime => ALWAYS,
        }
    }
}

/// 1 to 31, of the day that is `day` days after 2000-01-01 in the Gregorian calendar.
fn day_of_month(day: i64) -> u8 {
    // Counted from 2000-03-01, so that a leap day is the last of its year; 146,097 days are 400 years.
    let day = (day - 60).rem_euclid(146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    (of_year - (153 * month + 2) / 5 + 1) as u8
}

#[cfg(test)]
mod tests {
    use super::{ALWAYS, DAY, Period};

    /// Days since 2000-01-01, counted year by year and month by month.
    fn days(year: i64, month: usize, day: i64) -> i64 {
        let leap = |year: i64| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let of_year = |year| if leap(year) { 366 } else { 365 };
        let months = |year| [31, if leap(year) { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
        let years: i64 =
            if year >= 2000 { (2000..year).map(of_year).sum() } else { -(year..2000).map(of_year).sum::<i64>() };
        years + months(year)[..month - 1].iter().sum::<i64>() + day - 1
    }

    #[test]
    fn a_month_begins_on_its_first_day() {
        // Miri takes minutes for all of them.
        for year in (1990..2410).step_by(if cfg!(miri) { 97 } else { 1 }) {
            for month in 1..=12 {
                let first = days(year, month, 1);
                for day in [1, 2, 15, 28] {
                    let noon = (first + day - 1) * DAY + DAY / 2;
                    assert_eq!(Period::Month.start(noon), first * DAY, "{year}-{month}-{day}");
                }
            }
        }
        // The last moment of a leap February and the first of March.
        let march = days(2024, 3, 1) * DAY;
        assert_eq!(Period::Month.start(march - 1), days(2024, 2, 1) * DAY);
        assert_eq!(Period::Month.start(march), march);
    }

    #[test]
    fn a_day_begins_at_midnight_also_before_2000() {
        assert_eq!(Period::Day.start(0), 0);
        assert_eq!(Period::Day.start(DAY - 1), 0);
        assert_eq!(Period::Day.start(DAY), DAY);
        assert_eq!(Period::Day.start(-1), -DAY);
    }

    #[test]
    fn a_lifetime_has_no_begin() {
        assert_eq!(Period::Lifetime.start(123), ALWAYS);
        assert_eq!(Period::parse("week"), None);
    }
}
