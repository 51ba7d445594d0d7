//! Texts with a rule of their own.

use serde::{Deserialize, Deserializer, Serialize, de};

/// A text of at most `MAX` characters and at least `MIN`; trimmed first where `TRIM`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Bounded<const MIN: usize, const MAX: usize, const TRIM: bool = false>(pub String);

impl<'de, const MIN: usize, const MAX: usize, const TRIM: bool> Deserialize<'de> for Bounded<MIN, MAX, TRIM> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let mut text = String::deserialize(from)?;
        if TRIM {
            text = text.trim().to_owned();
        }
        if (MIN..=MAX).contains(&text.chars().count()) {
            Ok(Bounded(text))
        } else {
            Err(de::Error::custom(format!("must have {MIN} to {MAX} characters")))
        }
    }
}

#[cfg(test)]
impl<const MIN: usize, const MAX: usize, const TRIM: bool> schemars::JsonSchema for Bounded<MIN, MAX, TRIM> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        format!("Text{MIN}To{MAX}").into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"type": "string", "minLength": MIN, "maxLength": MAX})
    }
}
