//! `numeric` to and from millionths, exactly: no text in between, no rounding.
//!
//! What is read and written here is the type's on-disk form, which has not changed since 9.1: a header
//! (sign, display scale, weight) and digits of base 10,000, the first of them worth 10,000^weight.

use pgrx::callconv::{Arg as CallArg, ArgAbi, BoxRet, FcInfo};
use pgrx::nullable::Nullable;
use pgrx::pg_sys::{self, Datum};
use pgrx::pgrx_sql_entity_graph::metadata::{
    ArgumentError, ReturnsError, ReturnsRef, SqlMappingRef, SqlTranslatable, TypeOrigin,
};
use pgrx::{FromDatum, IntoDatum};

const BASE: i128 = 10_000;
const SIGN_MASK: u16 = 0xC000;
const NEGATIVE: u16 = 0x4000;
const SHORT: u16 = 0x8000;
const SPECIAL: u16 = 0xC000;
const NOT_A_NUMBER: u16 = 0xC000;
const SHORT_NEGATIVE: u16 = 0x2000;
const SHORT_WEIGHT_SIGN: u16 = 0x0040;
const SHORT_WEIGHT_MASK: u16 = 0x003F;
const SHORT_SCALE_SHIFT: u16 = 7;
/// 10^30 millionths and more are too large to mean anything here, and keep clear of i128's end.
const LARGEST_WEIGHT: i32 = 7;

/// What a `numeric` of any precision says, in millionths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decimal {
    /// Exactly this many millionths.
    Micros(i128),
    /// NaN.
    NotANumber,
    /// Infinity or -Infinity.
    Infinite,
    /// It has a digit other than 0 beyond the sixth decimal.
    TooFine,
    /// It is 10^32 or more.
    TooLarge,
    /// It is -10^32 or less.
    TooSmall,
}

impl Decimal {
    /// Reads a number as JSON and `numeric` write it without an exponent; none where it is no number.
    pub fn from_text(text: &str) -> Option<Self> {
        let (negative, digits) = match text.as_bytes().first()? {
            b'-' => (true, &text[1..]),
            b'+' => (false, &text[1..]),
            _ => (false, text),
        };
        if digits.eq_ignore_ascii_case("nan") {
            return Some(Decimal::NotANumber);
        }
        if digits.eq_ignore_ascii_case("infinity") || digits.eq_ignore_ascii_case("inf") {
            return Some(Decimal::Infinite);
        }
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let numeric = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() && fraction.is_empty() || !numeric(whole) || !numeric(fraction) {
            return None;
        }
        let fraction = fraction.trim_end_matches('0');
        let whole = whole.trim_start_matches('0');
        if fraction.len() > 6 {
            return Some(Decimal::TooFine);
        }
        if whole.len() > 30 {
            return Some(Decimal::beyond(negative));
        }
        let number = |text: &str| text.bytes().fold(0i128, |sum, byte| sum * 10 + i128::from(byte - b'0'));
        let micros = number(whole) * 1_000_000 + number(fraction) * 10i128.pow(6 - fraction.len() as u32);
        Some(Decimal::Micros(if negative { -micros } else { micros }))
    }

    fn beyond(negative: bool) -> Self {
        if negative { Decimal::TooSmall } else { Decimal::TooLarge }
    }

    /// Reads what stands behind the varlena header.
    fn read(data: &[u8]) -> Self {
        let word = |at: usize| u16::from_ne_bytes([data[at], data[at + 1]]);
        let header = word(0);
        let (negative, weight, digits) = match header & SIGN_MASK {
            SPECIAL if header & 0xF000 == NOT_A_NUMBER => return Decimal::NotANumber,
            SPECIAL => return Decimal::Infinite,
            SHORT => {
                let low = (header & SHORT_WEIGHT_MASK) as i32;
                let weight = if header & SHORT_WEIGHT_SIGN != 0 { low - 64 } else { low };
                (header & SHORT_NEGATIVE != 0, weight, &data[2..])
            }
            sign => (sign == NEGATIVE, word(2) as i16 as i32, &data[4..]),
        };
        let mut micros: i128 = 0;
        for (index, digit) in digits.chunks_exact(2).enumerate() {
            let digit = i128::from(u16::from_ne_bytes([digit[0], digit[1]]));
            match weight - index as i32 {
                _ if digit == 0 => {}
                place if place > LARGEST_WEIGHT => return Decimal::beyond(negative),
                place if place >= -1 => micros += digit * BASE.pow((place + 1) as u32) * 100,
                -2 if digit % 100 == 0 => micros += digit / 100,
                _ => return Decimal::TooFine,
            }
        }
        Decimal::Micros(if negative { -micros } else { micros })
    }
}

/// A count of millionths on its way to a `numeric` with six decimals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Micros(pub i128);

impl Micros {
    /// The digits of base 10,000, most significant first, without zeros at either end, and the weight of the first.
    fn digits(self) -> ([u16; 12], usize, i32) {
        let mut rest = self.0.unsigned_abs() * 100;
        let mut digits = [0u16; 12];
        let mut first = digits.len();
        while rest != 0 {
            first -= 1;
            // u64 division is much cheaper than u128's and nearly always enough.
            if let Ok(small) = u64::try_from(rest) {
                digits[first] = (small % 10_000) as u16;
                rest = u128::from(small / 10_000);
            } else {
                digits[first] = (rest % 10_000) as u16;
                rest /= 10_000;
            }
        }
        let used = digits.len() - first;
        let weight = used as i32 - 3;
        digits.copy_within(first.., 0);
        let significant = digits[..used].iter().rposition(|digit| *digit != 0).map_or(0, |at| at + 1);
        (digits, significant, if significant == 0 { 0 } else { weight })
    }

    fn write(self, into: &mut [u8]) -> usize {
        let (digits, count, weight) = self.digits();
        let sign = if self.0 < 0 { SHORT_NEGATIVE } else { 0 };
        let weight_sign = if weight < 0 { SHORT_WEIGHT_SIGN } else { 0 };
        let header = SHORT | sign | (6 << SHORT_SCALE_SHIFT) | weight_sign | (weight as u16 & SHORT_WEIGHT_MASK);
        into[..2].copy_from_slice(&header.to_ne_bytes());
        for (place, digit) in into[2..].chunks_exact_mut(2).zip(&digits[..count]) {
            place.copy_from_slice(&digit.to_ne_bytes());
        }
        2 + 2 * count
    }
}

/// Appends an integer as a whole `numeric`, varlena header and all: what `numeric_in` makes of the integer's text.
pub(super) fn append_integer(bytes: &mut Vec<u8>, integer: i64) {
    let mut digits = [0u16; 5];
    let mut first = digits.len();
    let mut rest = integer.unsigned_abs();
    while rest != 0 {
        first -= 1;
        digits[first] = (rest % 10_000) as u16;
        rest /= 10_000;
    }
    let weight = (digits.len() - first).saturating_sub(1) as u16;
    let end = digits.iter().rposition(|digit| *digit != 0).map_or(first, |at| at + 1);
    let sign = if integer < 0 { SHORT_NEGATIVE } else { 0 };
    bytes.extend_from_slice(&varlena_header(4 + 2 + 2 * (end - first)));
    bytes.extend_from_slice(&(SHORT | sign | weight).to_ne_bytes());
    digits[first..end].iter().for_each(|digit| bytes.extend_from_slice(&digit.to_ne_bytes()));
}

/// The four bytes before a value that is `size` bytes long with them.
pub(super) fn varlena_header(size: usize) -> [u8; 4] {
    let size = size as u32;
    if cfg!(target_endian = "big") { (size & 0x3FFF_FFFF).to_ne_bytes() } else { (size << 2).to_ne_bytes() }
}

impl IntoDatum for Micros {
    fn into_datum(self) -> Option<Datum> {
        let mut data = [0u8; 26];
        let length = self.write(&mut data);
        // SAFETY: a fresh allocation of the varlena header and `length` bytes behind it.
        unsafe {
            let memory = pg_sys::palloc(4 + length).cast::<u8>();
            pgrx::set_varsize_4b(memory.cast(), (4 + length) as i32);
            std::ptr::copy_nonoverlapping(data.as_ptr(), memory.add(4), length);
            Some(Datum::from(memory))
        }
    }

    fn type_oid() -> pg_sys::Oid {
        pg_sys::NUMERICOID
    }
}

impl FromDatum for Decimal {
    unsafe fn from_polymorphic_datum(datum: Datum, is_null: bool, _: pg_sys::Oid) -> Option<Self> {
        if is_null {
            return None;
        }
        // SAFETY: the caller says that this is a numeric; a copy made by detoasting is left to its memory context.
        unsafe {
            let value = pg_sys::pg_detoast_datum_packed(datum.cast_mut_ptr());
            let data =
                std::slice::from_raw_parts(pgrx::vardata_any(value).cast::<u8>(), pgrx::varsize_any_exhdr(value));
            Some(Decimal::read(data))
        }
    }
}

// SAFETY: the SQL type is numeric, which `from_polymorphic_datum` reads.
unsafe impl<'fcx> ArgAbi<'fcx> for Decimal {
    unsafe fn unbox_arg_unchecked(arg: CallArg<'_, 'fcx>) -> Self {
        // SAFETY: as the caller's.
        unsafe { arg.unbox_arg_using_from_datum() }.expect("a strict argument is not null")
    }

    unsafe fn unbox_nullable_arg(arg: CallArg<'_, 'fcx>) -> Nullable<Self> {
        // SAFETY: as the caller's.
        unsafe { arg.unbox_arg_using_from_datum() }.into()
    }
}

// SAFETY: the datum is a numeric in the function's memory context.
unsafe impl BoxRet for Micros {
    unsafe fn box_into<'fcx>(self, fcinfo: &mut FcInfo<'fcx>) -> pgrx::datum::Datum<'fcx> {
        // SAFETY: as above.
        unsafe { fcinfo.return_raw_datum(self.into_datum().unwrap_or(Datum::from(0))) }
    }
}

macro_rules! numeric_in_sql {
    ($type:ty) => {
        // SAFETY: says which SQL type the conversions above are for.
        unsafe impl SqlTranslatable for $type {
            const TYPE_IDENT: &'static str = concat!("pg_tenancy::", stringify!($type));
            const TYPE_ORIGIN: TypeOrigin = TypeOrigin::External;
            const ARGUMENT_SQL: Result<SqlMappingRef, ArgumentError> = Ok(SqlMappingRef::literal("numeric"));
            const RETURN_SQL: Result<ReturnsRef, ReturnsError> = Ok(ReturnsRef::One(SqlMappingRef::literal("numeric")));
        }
    };
}

numeric_in_sql!(Decimal);
numeric_in_sql!(Micros);

#[cfg(test)]
mod tests {
    use super::{Decimal, Micros};

    fn written(micros: i128) -> Vec<u8> {
        let mut data = [0u8; 26];
        let length = Micros(micros).write(&mut data);
        data[..length].to_vec()
    }

    #[test]
    fn what_is_written_is_read_again() {
        let mut state = 1u64;
        let mut samples = vec![0, 1, -1, 99, 100, 9_999, 10_000, 1_000_000, 10i128.pow(18) - 1, 10i128.pow(24)];
        for _ in 0..10_000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            samples.push(i128::from(state as i64) >> (state % 64));
        }
        for micros in samples {
            assert_eq!(Decimal::read(&written(micros)), Decimal::Micros(micros));
        }
    }

    #[test]
    fn the_form_is_the_servers() {
        // 25.000000: short, scale 6, weight 0, one digit.
        assert_eq!(written(25_000_000), [0x8300u16.to_ne_bytes(), 25u16.to_ne_bytes()].concat());
        // 0.000001: weight -2, digit 100.
        assert_eq!(written(1), [0x837Eu16.to_ne_bytes(), 100u16.to_ne_bytes()].concat());
        // -10000.5
        let expected = [0xA301u16, 1, 0, 5000].map(u16::to_ne_bytes).concat();
        assert_eq!(written(-10_000_500_000), expected);
        assert_eq!(written(0), 0x8300u16.to_ne_bytes());
    }

    #[test]
    fn text_is_read_exactly() {
        for (text, micros) in [
            ("25", 25_000_000),
            ("0.000001", 1),
            ("-0.5000000000", -500_000),
            ("+12.25", 12_250_000),
            (".5", 500_000),
            ("7.", 7_000_000),
            ("999999999999.999999", 999_999_999_999_999_999),
        ] {
            assert_eq!(Decimal::from_text(text), Some(Decimal::Micros(micros)), "{text}");
        }
        assert_eq!(Decimal::from_text("0.0000001"), Some(Decimal::TooFine));
        assert_eq!(Decimal::from_text(&"9".repeat(31)), Some(Decimal::TooLarge));
        assert_eq!(Decimal::from_text(&format!("-{}", "9".repeat(31))), Some(Decimal::TooSmall));
        assert_eq!(Decimal::from_text("NaN"), Some(Decimal::NotANumber));
        assert_eq!(Decimal::from_text("-Infinity"), Some(Decimal::Infinite));
        for text in ["", "-", ".", "1e3", "1 000", "0x10", "one", "1.2.3", "\u{661}"] {
            assert_eq!(Decimal::from_text(text), None, "{text}");
        }
    }

    #[test]
    fn what_cannot_be_millionths_is_said() {
        let words = |words: &[u16]| words.iter().flat_map(|word| word.to_ne_bytes()).collect::<Vec<_>>();
        assert_eq!(Decimal::read(&words(&[0xC000])), Decimal::NotANumber);
        assert_eq!(Decimal::read(&words(&[0xD000])), Decimal::Infinite);
        assert_eq!(Decimal::read(&words(&[0xF000])), Decimal::Infinite);
        // 0.0000001
        assert_eq!(Decimal::read(&words(&[0x8000 | 7 << 7 | 0x7E, 10])), Decimal::TooFine);
        // 10000^8, in the long form
        assert_eq!(Decimal::read(&words(&[0, 8, 1])), Decimal::TooLarge);
        // 1 in the long form
        assert_eq!(Decimal::read(&words(&[0, 0, 1])), Decimal::Micros(1_000_000));
    }
}
