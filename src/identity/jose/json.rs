//! JSON without its ambiguities: no duplicate members, bounded depth, no U+0000, integers kept as integers.
//!
//! Parsers that keep the last of two members (or the first) disagree on what a token says; a signature does not help
//! then. Refusing them is RFC 7515 §4's and RFC 7519 §4's first choice.

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::map::Entry;
use serde_json::{Map, Number, Value};
use std::cell::Cell;
use std::fmt;

/// How deeply arrays and objects may be nested. Real tokens have three or four levels.
pub const MAX_DEPTH: usize = 32;

/// Why a text was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JsonError {
    /// Not JSON (RFC 8259) in UTF-8, or something follows it.
    Syntax,
    /// An object names a member twice.
    DuplicateMember,
    /// Nested more deeply than [`MAX_DEPTH`].
    TooDeep,
    /// A string or a name holds U+0000, which Postgres cannot store.
    Nul,
}

/// Parses one JSON value, strictly.
///
/// A number without fraction and exponent that fits i64 or u64 stays an integer; every other number becomes a float,
/// so that `1.0`, `1e3`, `-0` and 2⁶⁴ are never taken for integers (see [`integer`]).
pub fn parse(text: &[u8]) -> Result<Value, JsonError> {
    let refused = Cell::new(JsonError::Syntax);
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let value = Strict { depth: 0, refused: &refused }.deserialize(&mut deserializer).map_err(|_| refused.get())?;
    deserializer.end().map_err(|_| JsonError::Syntax)?;
    Ok(value)
}

/// Parses one JSON object, strictly.
pub fn parse_object(text: &[u8]) -> Result<Map<String, Value>, JsonError> {
    match parse(text)? {
        Value::Object(members) => Ok(members),
        _ => Err(JsonError::Syntax),
    }
}

/// The value as an exact integer: a JSON number written without fraction and exponent that fits i64.
pub fn integer(value: &Value) -> Option<i64> {
    value.as_number().and_then(Number::as_i64)
}

/// Whether a number in a JSON text has an exponent of more than three digits. Postgres' numeric, and so jsonb, ends at
/// 16,383 decimals: such a number would be an error wherever the text is read as jsonb.
pub fn has_huge_exponent(text: &str) -> bool {
    let (mut in_string, mut escaped, mut before, mut digits) = (false, false, 0, None);
    for byte in text.bytes() {
        if in_string {
            in_string = escaped || byte != b'"';
            escaped = byte == b'\\' && !escaped;
            continue;
        }
        digits = match (byte, digits) {
            (b'e' | b'E', None) if u8::is_ascii_digit(&before) => Some(0),
            (b'+' | b'-', Some(0)) => Some(0),
            (b'0'..=b'9', Some(3)) => return true,
            (b'0'..=b'9', Some(count)) => Some(count + 1),
            _ => None,
        };
        in_string = byte == b'"';
        before = byte;
    }
    false
}

struct Strict<'a> {
    depth: usize,
    refused: &'a Cell<JsonError>,
}

impl Strict<'_> {
    fn refuse<E: serde::de::Error>(&self, reason: JsonError) -> E {
        self.refused.set(reason);
        E::custom("refused")
    }

    fn inner<E: serde::de::Error>(&self) -> Result<Strict<'_>, E> {
        if self.depth >= MAX_DEPTH {
            return Err(self.refuse(JsonError::TooDeep));
        }
        Ok(Strict { depth: self.depth + 1, refused: self.refused })
    }

    fn text<E: serde::de::Error>(&self, text: &str) -> Result<(), E> {
        if text.contains('\0') { Err(self.refuse(JsonError::Nul)) } else { Ok(()) }
    }
}

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("not a finite number"))
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<Value, E> {
        self.text(value)?;
        Ok(Value::String(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = elements.next_element_seed(self.inner()?)? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            self.text(&name)?;
            match object.entry(name) {
                Entry::Vacant(place) => place.insert(members.next_value_seed(self.inner()?)?),
                Entry::Occupied(_) => return Err(self.refuse(JsonError::DuplicateMember)),
            };
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponents_that_numeric_cannot_hold_are_seen() {
        for text in ["1e-1000", "[1.5E+0001]", "{\"a\\\"b\":0e9999}", "[\"\\\\\",2e1234]"] {
            assert!(has_huge_exponent(text), "{text}");
        }
        for text in ["1e-999", "[true,1]", "\"1e99999\"", "\"\\\"1e99999\"", "12345", "{\"1e9999\":1E5}"] {
            assert!(!has_huge_exponent(text), "{text}");
        }
    }

    #[test]
    fn attack_26_duplicate_members_are_refused_at_every_depth() {
        for text in [r#"{"a":1,"a":1}"#, r#"{"a":1,"\u0061":2}"#, r#"[{"b":{"a":1,"c":2,"a":3}}]"#] {
            assert_eq!(parse(text.as_bytes()), Err(JsonError::DuplicateMember), "{text}");
        }
        assert!(parse(br#"{"a":{"a":1},"A":2}"#).is_ok());
    }

    #[test]
    fn only_integers_are_integers() {
        for text in ["1.0", "1e3", "-0", "18446744073709551616", "9223372036854775808", "\"1\"", "true", "null"] {
            assert_eq!(integer(&parse(text.as_bytes()).unwrap()), None, "{text}");
        }
        assert_eq!(integer(&parse(b"-9223372036854775808").unwrap()), Some(i64::MIN));
        assert_eq!(integer(&parse(b" 9007199254740993 ").unwrap()), Some(9_007_199_254_740_993));
    }

    #[test]
    fn what_is_not_json_is_refused() {
        let cases: [&[u8]; 12] = [
            b"",
            b"{",
            b"{}x",
            b"{} {}",
            b"{'a':1}",
            b"{\"a\":01}",
            b"{\"a\":NaN}",
            b"{\"a\":1,}",
            b"\xef\xbb\xbf{}",
            b"\"\xff\"",
            b"\"\\ud800\"",
            b"1e999",
        ];
        for text in cases {
            assert_eq!(parse(text), Err(JsonError::Syntax), "{text:?}");
        }
    }

    #[test]
    fn depth_and_nul_are_bounded() {
        let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        assert!(parse(nested(MAX_DEPTH).as_bytes()).is_ok());
        assert_eq!(parse(nested(100_000).as_bytes()), Err(JsonError::TooDeep));
        assert_eq!(parse(br#"{"a":"x\u0000"}"#), Err(JsonError::Nul));
        assert_eq!(parse(br#"{"a\u0000":1}"#), Err(JsonError::Nul));
    }
}
