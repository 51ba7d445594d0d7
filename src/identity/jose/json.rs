//! JSON without its ambiguities: no duplicate members, bounded depth, no U+0000, integers kept as integers.
//!
//! Parsers that keep the last of two members (or the first) disagree on what a token says; a signature does not help
//! then. Refusing them is RFC 7515 §4's and RFC 7519 §4's first choice.
//!
//! Names and texts are borrowed from what is parsed, and members sorted as `jsonb` sorts them, so that a token is read
//! once, whoever asks for its claims.

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use std::borrow::Cow;
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

/// A JSON value.
#[derive(Debug, Clone, PartialEq)]
pub enum Json<'a> {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number without fraction and exponent that fits i64. `1.0`, `1e3`, `-0` and 2⁶³ are not.
    Integer(i64),
    /// Any other number: nothing here computes with it.
    Number,
    /// A string; owned only where escapes in it had to be resolved.
    Text(Cow<'a, str>),
    /// An array.
    Array(Vec<Json<'a>>),
    /// An object.
    Object(Object<'a>),
}

/// An object's members, in the order in which `jsonb` keeps them: by the name's length in bytes, then by its bytes.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Object<'a>(Vec<(Cow<'a, str>, Json<'a>)>);

impl<'a> Json<'a> {
    /// The value of a string.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Json::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The value of an exact integer.
    pub fn as_integer(&self) -> Option<i64> {
        match self {
            Json::Integer(value) => Some(*value),
            _ => None,
        }
    }

    /// The members of an object.
    pub fn as_object(&self) -> Option<&Object<'a>> {
        match self {
            Json::Object(members) => Some(members),
            _ => None,
        }
    }

    /// Whether it is, or holds, a number that is no [`Json::Integer`].
    fn has_other_number(&self) -> bool {
        match self {
            Json::Number => true,
            Json::Array(values) => values.iter().any(Json::has_other_number),
            Json::Object(members) => members.has_other_number(),
            _ => false,
        }
    }
}

impl<'a> Object<'a> {
    /// Sorts members; None where two have one name.
    fn new(mut members: Vec<(Cow<'a, str>, Json<'a>)>) -> Option<Self> {
        members.sort_unstable_by(|(one, _), (other, _)| order(one, other));
        let is_unique = members.windows(2).all(|pair| pair[0].0 != pair[1].0);
        is_unique.then_some(Object(members))
    }

    /// The member of that name.
    pub fn get(&self, name: &str) -> Option<&Json<'a>> {
        // Looking at each of a token's few claims costs less than searching; its bytes rarely get beyond the first.
        const FEW: usize = 16;
        let first = name.as_bytes().first();
        let is_it = |own: &str| own.len() == name.len() && own.as_bytes().first() == first && own == name;
        let at = match self.0.len() {
            0..=FEW => self.0.iter().position(|(own, _)| is_it(own))?,
            _ => self.0.binary_search_by(|(own, _)| order(own, name)).ok()?,
        };
        Some(&self.0[at].1)
    }

    /// Whether there is a member of that name.
    pub fn contains_key(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// The members, in order.
    pub fn entries(&self) -> &[(Cow<'a, str>, Json<'a>)] {
        &self.0
    }

    /// Whether a number in it is no [`Json::Integer`].
    pub fn has_other_number(&self) -> bool {
        self.0.iter().any(|(_, value)| value.has_other_number())
    }
}

fn order(one: &str, other: &str) -> std::cmp::Ordering {
    one.len().cmp(&other.len()).then_with(|| one.cmp(other))
}

/// Parses one JSON value, strictly.
pub fn parse(text: &str) -> Result<Json<'_>, JsonError> {
    let refused = Cell::new(JsonError::Syntax);
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let value = Strict { depth: 0, refused: &refused }.deserialize(&mut deserializer).map_err(|_| refused.get())?;
    deserializer.end().map_err(|_| JsonError::Syntax)?;
    Ok(value)
}

/// Parses one JSON object, strictly.
pub fn parse_object(text: &str) -> Result<Object<'_>, JsonError> {
    match parse(text)? {
        Json::Object(members) => Ok(members),
        _ => Err(JsonError::Syntax),
    }
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

/// Reads a value.
struct Strict<'r> {
    depth: usize,
    refused: &'r Cell<JsonError>,
}

/// Reads a string or a name.
struct Text<'r> {
    refused: &'r Cell<JsonError>,
}

impl<'r> Strict<'r> {
    fn inner<E: Error>(&self) -> Result<Strict<'r>, E> {
        if self.depth >= MAX_DEPTH {
            return Err(refuse(self.refused, JsonError::TooDeep));
        }
        Ok(Strict { depth: self.depth + 1, refused: self.refused })
    }

    fn text(&self) -> Text<'r> {
        Text { refused: self.refused }
    }
}

fn refuse<E: Error>(refused: &Cell<JsonError>, reason: JsonError) -> E {
    refused.set(reason);
    E::custom("refused")
}

impl<'de> DeserializeSeed<'de> for Text<'_> {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Text<'_> {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    /// A string as it stands. It holds no U+0000, which JSON has only as an escape.
    fn visit_borrowed_str<E>(self, value: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(value))
    }

    /// A string whose escapes were resolved.
    fn visit_str<E: Error>(self, value: &str) -> Result<Self::Value, E> {
        if value.contains('\0') {
            return Err(refuse(self.refused, JsonError::Nul));
        }
        Ok(Cow::Owned(value.to_owned()))
    }
}

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Json<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Json<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Self::Value, E> {
        Ok(Json::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Self::Value, E> {
        Ok(Json::Integer(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Self::Value, E> {
        Ok(i64::try_from(value).map_or(Json::Number, Json::Integer))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(Json::Number)
    }

    fn visit_borrowed_str<E: Error>(self, value: &'de str) -> Result<Self::Value, E> {
        self.text().visit_borrowed_str(value).map(Json::Text)
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Self::Value, E> {
        self.text().visit_str(value).map(Json::Text)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Self::Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = elements.next_element_seed(self.inner()?)? {
            values.push(value);
        }
        Ok(Json::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Self::Value, A::Error> {
        // As many as a token's claims usually are: without growing step by step.
        let mut members = Vec::with_capacity(12);
        while let Some(name) = object.next_key_seed(self.text())? {
            members.push((name, object.next_value_seed(self.inner()?)?));
        }
        Object::new(members).map(Json::Object).ok_or_else(|| refuse(self.refused, JsonError::DuplicateMember))
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
            assert_eq!(parse(text), Err(JsonError::DuplicateMember), "{text}");
        }
        assert!(parse(r#"{"a":{"a":1},"A":2}"#).is_ok());
    }

    #[test]
    fn only_integers_are_integers() {
        for text in ["1.0", "1e3", "-0", "18446744073709551616", "9223372036854775808", "\"1\"", "true", "null"] {
            assert_eq!(parse(text).unwrap().as_integer(), None, "{text}");
        }
        assert_eq!(parse("-9223372036854775808").unwrap().as_integer(), Some(i64::MIN));
        assert_eq!(parse(" 9007199254740993 ").unwrap().as_integer(), Some(9_007_199_254_740_993));
    }

    #[test]
    fn what_is_not_json_is_refused() {
        let cases = [
            "",
            "{",
            "{}x",
            "{} {}",
            "{'a':1}",
            "{\"a\":01}",
            "{\"a\":NaN}",
            "{\"a\":1,}",
            "\u{feff}{}",
            "\"\\ud800\"",
            "1e999",
        ];
        for text in cases {
            assert_eq!(parse(text), Err(JsonError::Syntax), "{text:?}");
        }
    }

    #[test]
    fn depth_and_nul_are_bounded() {
        let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        assert!(parse(&nested(MAX_DEPTH)).is_ok());
        assert_eq!(parse(&nested(100_000)), Err(JsonError::TooDeep));
        assert_eq!(parse(r#"{"a":"x\u0000"}"#), Err(JsonError::Nul));
        assert_eq!(parse(r#"{"a\u0000":1}"#), Err(JsonError::Nul));
    }

    #[test]
    fn members_are_found_and_sorted_as_jsonb_sorts_them() {
        let text = r#"{"bb":1,"":2,"a":3,"é":4,"A":5,"aaa":[1.5,{"x":"\u0061"}]}"#;
        let object = parse_object(text).unwrap();
        let names: Vec<&str> = object.entries().iter().map(|(name, _)| &**name).collect();
        assert_eq!(names, ["", "A", "a", "bb", "é", "aaa"]);
        assert_eq!(object.get("bb"), Some(&Json::Integer(1)));
        assert!(object.get("b").is_none() && object.get("aa").is_none() && object.contains_key(""));
        assert!(object.has_other_number());
        assert!(!parse_object(r#"{"a":[1,"1.5",{"b":-1}]}"#).unwrap().has_other_number());
        let many: String = (0..1000).map(|index| format!(r#""{index}":{index},"#)).collect();
        assert!(parse_object(&format!(r#"{{{many}"x":0}}"#)).is_ok());
        assert_eq!(parse(&format!(r#"{{{many}"500":0}}"#)), Err(JsonError::DuplicateMember));
    }
}
