//! Amounts of credits: millionths, exactly. What cannot be one is refused and never rounded.

use crate::pg::{Decimal, Error, Result, State};
use serde_json::value::RawValue;

/// Millionths in a credit.
const SCALE: i64 = 1_000_000;
/// `numeric(18,6)`'s largest value.
pub const LARGEST: i64 = 999_999_999_999_999_999;

/// A positive amount of credits, in millionths, that fits `numeric(18,6)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Credits(i64);

impl Credits {
    /// What a caller passed. Errors: 22023 `invalid_amount` for NULL, NaN, ±Infinity, zero, less and a digit beyond the
    /// sixth decimal; 22003 `amount_out_of_range` for more than 999999999999.999999.
    pub fn parse(value: Option<Decimal>) -> Result<Self> {
        match value {
            None => Err(invalid("null", "An amount of credits must not be NULL")),
            Some(Decimal::NotANumber) => Err(invalid("nan", "An amount of credits must not be NaN")),
            Some(Decimal::Infinite) => Err(invalid("infinite", "An amount of credits must be finite")),
            Some(Decimal::TooFine) => Err(invalid("too_fine", "An amount of credits has at most six decimals")),
            Some(Decimal::TooSmall) => Err(not_positive()),
            Some(Decimal::Micros(micros)) if micros <= 0 => Err(not_positive()),
            Some(Decimal::Micros(micros)) if micros <= i128::from(LARGEST) => Ok(Self(micros as i64)),
            Some(Decimal::Micros(_) | Decimal::TooLarge) => Err(out_of_range()),
        }
    }

    /// The same with a sign, for adjustments: the amount and whether it is taken away.
    pub fn parse_signed(value: Option<Decimal>) -> Result<(Self, bool)> {
        match value {
            Some(Decimal::Micros(micros)) if micros < 0 => Ok((Self::parse(Some(Decimal::Micros(-micros)))?, true)),
            Some(Decimal::TooSmall) => Err(out_of_range()),
            other => Ok((Self::parse(other)?, false)),
        }
    }

    /// In millionths.
    pub fn micros(self) -> i64 {
        self.0
    }

    /// In credits, where it is a whole number of them.
    pub fn whole(self) -> Option<i64> {
        (self.0 % SCALE == 0).then_some(self.0 / SCALE)
    }
}

/// Millionths as a JSON number for an error's DETAIL: exact, and never with an exponent.
pub fn json(micros: i64) -> Box<RawValue> {
    let (units, rest) = (micros.unsigned_abs() / SCALE.unsigned_abs(), micros.unsigned_abs() % SCALE.unsigned_abs());
    let sign = if micros < 0 { "-" } else { "" };
    let text = format!("{sign}{units}.{rest:06}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    RawValue::from_string(text.to_owned()).unwrap_or_default()
}

fn not_positive() -> Error {
    invalid("not_positive", "An amount of credits must be greater than zero")
}

fn invalid(problem: &str, message: &str) -> Error {
    Error::new(State::INVALID_PARAMETER, "invalid_amount", message)
        .hint("Pass a positive number of credits with at most six decimals; nothing is rounded.")
        .detail("problem", problem)
}

fn out_of_range() -> Error {
    Error::new(State::OUT_OF_RANGE, "amount_out_of_range", "An amount of credits is at most 999999999999.999999")
        .hint("Check the unit: amounts are credits, not millionths of them.")
}

#[cfg(test)]
mod tests {
    use super::{Credits, LARGEST, json};
    use crate::pg::Decimal;

    fn refused(value: Option<Decimal>) -> &'static str {
        Credits::parse(value).unwrap_err().reason()
    }

    #[test]
    fn what_is_no_amount_is_refused() {
        let never = [
            None,
            Some(Decimal::NotANumber),
            Some(Decimal::Infinite),
            Some(Decimal::TooFine),
            Some(Decimal::Micros(0)),
            Some(Decimal::Micros(-5_000_000)),
            Some(Decimal::TooSmall),
        ];
        for value in never {
            assert_eq!(refused(value), "invalid_amount");
        }
        for value in [Decimal::TooLarge, Decimal::Micros(i128::from(LARGEST) + 1)] {
            assert_eq!(refused(Some(value)), "amount_out_of_range");
        }
    }

    #[test]
    fn the_ends_of_the_range_are_amounts() {
        for micros in [1, LARGEST] {
            assert_eq!(Credits::parse(Some(Decimal::Micros(micros.into()))).unwrap().micros(), micros);
        }
    }

    #[test]
    fn details_are_written_as_a_person_would() {
        for (micros, text) in [
            (0, "0"),
            (1, "0.000001"),
            (-1, "-0.000001"),
            (400_000, "0.4"),
            (25_000_000, "25"),
            (100_000_000, "100"),
            (-1_500_000, "-1.5"),
            (LARGEST, "999999999999.999999"),
        ] {
            assert_eq!(json(micros).get(), text);
        }
    }
}
