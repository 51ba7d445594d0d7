//! Scalars as the original's validation library reads them (contract H: lax mode).
//!
//! An integer may be written `5`, `5.0` or `"5"`; a text is never a number; a time may carry an offset, `Z` or nothing.

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;

/// A whole number: accepts `5`, `5.0`, `"5"`, `"5.00"`, `" 5 "`, `"1_000"` and booleans; refuses `5.5` and words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Integer(pub i64);

/// A number, finite: accepts `0.2`, `"0.2"` and whole ones.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(transparent)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Float(pub f64);

/// A boolean: accepts `true`, `1` and the words the original does (`"yes"`, `"off"`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Boolean(pub bool);

const NOT_AN_INTEGER: &str = "must be an integer";
const NOT_A_NUMBER: &str = "must be a finite number";
const NOT_A_BOOLEAN: &str = "must be a boolean";

/// The largest whole numbers a double holds exactly.
const EXACT: f64 = 9_007_199_254_740_992.0;

impl Integer {
    pub(super) fn read(found: Found<'_>) -> Result<Self, &'static str> {
        let plain = |result: Result<Integer, de::value::Error>| result.map_err(|_| NOT_AN_INTEGER);
        match found {
            Found::Boolean(value) => Ok(Integer(value.into())),
            Found::Whole(value) => i64::try_from(value).map(Integer).map_err(|_| "is out of range"),
            Found::Number(value) => plain(Integer::from_float(value)),
            Found::Text(text) => plain(Integer::from_text(text)),
        }
    }

    fn from_float<E: de::Error>(value: f64) -> Result<Self, E> {
        if value.fract() != 0.0 || value.abs() > EXACT {
            return Err(E::custom(NOT_AN_INTEGER));
        }
        Ok(Integer(value as i64))
    }

    fn from_text<E: de::Error>(text: &str) -> Result<Self, E> {
        let text = digits(text).ok_or_else(|| E::custom(NOT_AN_INTEGER))?;
        let whole = match text.split_once('.') {
            Some((whole, zeros)) if !zeros.is_empty() && zeros.bytes().all(|byte| byte == b'0') => whole,
            Some(_) => return Err(E::custom(NOT_AN_INTEGER)),
            None => &text,
        };
        whole.parse().map(Integer).map_err(|_| E::custom(NOT_AN_INTEGER))
    }
}

impl Float {
    pub(super) fn read(found: Found<'_>) -> Result<Self, &'static str> {
        let value = match found {
            Found::Boolean(value) => f64::from(u8::from(value)),
            Found::Whole(value) => value as f64,
            Found::Number(value) => value,
            Found::Text(text) => digits(text).and_then(|text| text.parse().ok()).ok_or(NOT_A_NUMBER)?,
        };
        if value.is_finite() { Ok(Float(value)) } else { Err(NOT_A_NUMBER) }
    }
}

/// The text without white space around it and single underscores between its digits; none for other underscores.
fn digits(text: &str) -> Option<String> {
    let text = text.trim();
    let bytes = text.as_bytes();
    for (at, _) in text.match_indices('_') {
        let between = |at: Option<&u8>| at.is_some_and(u8::is_ascii_digit);
        if !between(at.checked_sub(1).and_then(|before| bytes.get(before))) || !between(bytes.get(at + 1)) {
            return None;
        }
    }
    Some(text.replace('_', ""))
}

/// Reads one scalar by a rule; the text says what was expected.
pub(super) struct Scalar<T>(pub fn(Found<'_>) -> Result<T, &'static str>, pub &'static str);

/// What stands in the document.
#[derive(Clone, Copy)]
pub(super) enum Found<'a> {
    Boolean(bool),
    Whole(i128),
    Number(f64),
    Text(&'a str),
}

impl<T> Visitor<'_> for Scalar<T> {
    type Value = T;

    fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str(self.1)
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<T, E> {
        self.0(Found::Boolean(value)).map_err(E::custom)
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<T, E> {
        self.0(Found::Whole(value.into())).map_err(E::custom)
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<T, E> {
        self.0(Found::Whole(value.into())).map_err(E::custom)
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<T, E> {
        self.0(Found::Number(value)).map_err(E::custom)
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<T, E> {
        self.0(Found::Text(value)).map_err(E::custom)
    }
}

impl<'de> Deserialize<'de> for Integer {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Scalar(Integer::read, "an integer"))
    }
}

impl<'de> Deserialize<'de> for Float {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Scalar(Float::read, "a number"))
    }
}

impl<'de> Deserialize<'de> for Boolean {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        fn read(found: Found) -> Result<Boolean, &'static str> {
            match found {
                Found::Boolean(value) => Ok(Boolean(value)),
                Found::Whole(0) => Ok(Boolean(false)),
                Found::Whole(1) => Ok(Boolean(true)),
                Found::Number(value) if value == 0.0 || value == 1.0 => Ok(Boolean(value == 1.0)),
                Found::Text(text) => match text.to_ascii_lowercase().as_str() {
                    "0" | "off" | "f" | "false" | "n" | "no" => Ok(Boolean(false)),
                    "1" | "on" | "t" | "true" | "y" | "yes" => Ok(Boolean(true)),
                    _ => Err(NOT_A_BOOLEAN),
                },
                _ => Err(NOT_A_BOOLEAN),
            }
        }
        from.deserialize_any(Scalar(read, "a boolean"))
    }
}

/// A moment in microseconds since 1970, UTC. Read from RFC 3339 text (a time without an offset is UTC, a date is its
/// midnight) or from seconds since 1970; written `2025-08-31T12:05:10.500000Z`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Moment(#[cfg_attr(test, schemars(with = "MomentText"))] pub i64);

#[cfg(test)]
#[derive(schemars::JsonSchema)]
#[schemars(transparent)]
#[allow(dead_code)]
struct MomentText(#[schemars(extend("format" = "date-time"))] String);

const NOT_A_TIME: &str = "must be a time such as 2025-08-31T12:05:10Z";
const DAY: i64 = 86_400_000_000;

impl Moment {
    /// The clock now.
    pub fn now() -> Self {
        let elapsed = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Moment(i64::try_from(elapsed.as_micros()).unwrap_or_default())
    }

    /// Reads a text; none where it is no time between the years 1 and 9999.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        if !text.is_ascii() {
            return None;
        }
        if let Ok(seconds) = text.parse::<f64>() {
            return Self::from_seconds(seconds);
        }
        let (date, time) = text.split_at_checked(10)?;
        let midnight = days(date)?.checked_mul(DAY)?;
        let moment = match time.split_at_checked(1) {
            None => midnight,
            Some(("T" | "t" | " " | "_", time)) => midnight + time_of_day(time)?,
            Some(_) => return None,
        };
        Self::within(moment)
    }

    /// Seconds since 1970, or milliseconds where they are too many to be seconds.
    fn from_seconds(seconds: f64) -> Option<Self> {
        let seconds = if seconds.abs() > 2e10 { seconds / 1000.0 } else { seconds };
        seconds.is_finite().then(|| (seconds * 1e6).round() as i64).and_then(Self::within)
    }

    fn within(moment: i64) -> Option<Self> {
        let first = -719_162 * DAY;
        let last = 2_932_897 * DAY;
        (first..last).contains(&moment).then_some(Moment(moment))
    }
}

/// Days since 1970 of a date written `2025-08-31` (Howard Hinnant's days_from_civil).
fn days(date: &str) -> Option<i64> {
    let mut parts = date.split('-');
    let mut part = |length: usize| number(parts.next().filter(|part| part.len() == length)?);
    let (year, month, day) = (part(4)?, part(2)?, part(2)?);
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let length = match month {
        2 => 28 + i64::from(leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if year < 1 || !(1..=length).contains(&day) || parts.next().is_some() {
        return None;
    }
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    Some(era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468)
}

/// Microseconds of `12:05[:10[.5]][Z|+02:00|+0200]`, as UTC.
fn time_of_day(text: &str) -> Option<i64> {
    let (clock, offset) = match text.find(['Z', 'z', '+', '-']) {
        Some(at) => (&text[..at], offset(&text[at..])?),
        None => (text, 0),
    };
    let mut parts = clock.splitn(3, ':');
    let mut part = || number(parts.next().filter(|part| part.len() == 2)?);
    let (hour, minute) = (part()?, part()?);
    let (second, micros) = match parts.next() {
        None => (0, 0),
        Some(rest) => {
            let (second, fraction) = rest.split_once('.').unwrap_or((rest, "0"));
            let second = number(Some(second).filter(|second| second.len() == 2)?)?;
            if fraction.len() > 9 || number(fraction).is_none() {
                return None;
            }
            (second, number(&format!("{fraction:0<6}")[..6])?)
        }
    };
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    Some(((hour * 60 + minute) * 60 + second) * 1_000_000 + micros - offset)
}

/// Microseconds of an offset from UTC.
fn offset(text: &str) -> Option<i64> {
    if text.eq_ignore_ascii_case("z") {
        return Some(0);
    }
    let (sign, rest) = text.split_at(1);
    let plain = rest.replacen(':', "", 1);
    if plain.len() != 4 {
        return None;
    }
    let (hours, minutes) = (number(&plain[..2])?, number(&plain[2..])?);
    if hours > 23 || minutes > 59 {
        return None;
    }
    let micros = (hours * 60 + minutes) * 60_000_000;
    Some(if sign == "-" { -micros } else { micros })
}

fn number(digits: &str) -> Option<i64> {
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok()
}

impl fmt::Display for Moment {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        let (day, within) = (self.0.div_euclid(DAY), self.0.rem_euclid(DAY));
        let shifted = day + 719_468;
        let (era, of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
        let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted_month = (5 * of_year + 2) / 153;
        let day = of_year - (153 * shifted_month + 2) / 5 + 1;
        let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
        let year = year_of_era + era * 400 + i64::from(month <= 2);
        let (seconds, micros) = (within / 1_000_000, within % 1_000_000);
        write!(
            formatter,
            "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{micros:06}Z",
            seconds / 3600,
            seconds / 60 % 60,
            seconds % 60
        )
    }
}

impl Serialize for Moment {
    fn serialize<S: Serializer>(&self, into: S) -> Result<S::Ok, S::Error> {
        into.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Moment {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        fn read(found: Found) -> Result<Moment, &'static str> {
            match found {
                Found::Boolean(_) => None,
                Found::Whole(seconds) => Moment::from_seconds(seconds as f64),
                Found::Number(seconds) => Moment::from_seconds(seconds),
                Found::Text(text) => Moment::parse(text),
            }
            .ok_or(NOT_A_TIME)
        }
        from.deserialize_any(Scalar(read, "a time"))
    }
}
