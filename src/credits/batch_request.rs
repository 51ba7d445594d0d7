//! What a batch asks for, read from its JSON.

use crate::pg::{Decimal, Error, Jsonb, Result, State};
use serde::Deserialize;
use serde_json::value::RawValue;

/// As many requests as one call takes.
const MOST: usize = 10_000;

/// One request, as it was sent.
pub struct Request {
    pub user_id: Option<String>,
    pub org_id: Option<String>,
    /// None for NULL and for what is no number.
    pub amount: Option<Decimal>,
    description: Option<String>,
    pub reference_id: Option<String>,
    pub idempotency_key: Option<String>,
    pub metadata: Option<Jsonb>,
}

impl Request {
    pub fn description(&self) -> Option<&str> {
        Some(self.description.as_deref().unwrap_or("Credits used"))
    }
}

/// The members that are read of a request; each as it stands in the JSON.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Members<'a> {
    #[serde(borrow)]
    user_id: Option<&'a RawValue>,
    org_id: Option<&'a RawValue>,
    amount: Option<&'a RawValue>,
    description: Option<&'a RawValue>,
    reference_id: Option<&'a RawValue>,
    idempotency_key: Option<&'a RawValue>,
    metadata: Option<&'a RawValue>,
}

/// The requests of a JSON array of objects.
///
/// Errors: 22023 `invalid_argument` for anything else, 54000 `batch_too_large`.
pub fn parse(requests: Option<Jsonb>) -> Result<Vec<Request>> {
    let requests = requests.filter(Jsonb::is_array).ok_or_else(not_an_array)?;
    if requests.count() > MOST {
        return Err(Error::new(State::TOO_LARGE, "batch_too_large", format!("A batch has at most {MOST} requests"))
            .hint("Send several batches.")
            .detail("limit", MOST));
    }
    // What Postgres writes: no member twice, numbers exactly, without an exponent.
    let text = requests.text();
    let elements: Vec<&RawValue> = serde_json::from_str(&text).map_err(|_| not_an_array())?;
    if elements.iter().any(|element| !element.get().starts_with('{')) {
        return Err(not_an_array());
    }
    elements.into_iter().map(|element| request(element.get())).collect()
}

fn request(text: &str) -> Result<Request> {
    let members: Members = serde_json::from_str(text).map_err(|_| not_an_array())?;
    Ok(Request {
        user_id: text_of(members.user_id),
        org_id: text_of(members.org_id),
        amount: text_of(members.amount).and_then(|text| Decimal::from_text(&text)),
        description: text_of(members.description),
        reference_id: text_of(members.reference_id),
        idempotency_key: text_of(members.idempotency_key),
        metadata: members
            .metadata
            .and_then(|metadata| Jsonb::parse(metadata.get()))
            .filter(|metadata| !metadata.is_empty_object()),
    })
}

/// As SQL's `->>`: a string's text, anything else as it is written; none for null.
fn text_of(value: Option<&RawValue>) -> Option<String> {
    let value = value?.get();
    if value.starts_with('"') { serde_json::from_str(value).ok() } else { Some(value.to_owned()) }
}

fn not_an_array() -> Error {
    Error::new(State::INVALID_PARAMETER, "invalid_argument", "requests must be a JSON array of objects")
        .hint("Pass [{\"user_id\": …, \"amount\": …, \"org_id\": …, \"idempotency_key\": …}, …].")
        .detail("parameter", "requests")
}

#[cfg(test)]
mod tests {
    use super::{Members, text_of};

    #[test]
    fn members_read_as_sql_reads_them() {
        let text = r#"{"amount": 1.500000, "org_id": null, "other": [{"user_id": 1}], "user_id": "a\"\u00e9 ä", "description": 7, "reference_id": {"a": [1]}}"#;
        let members: Members = serde_json::from_str(text).unwrap();
        assert_eq!(text_of(members.user_id).as_deref(), Some("a\"é ä"));
        assert_eq!(text_of(members.amount).as_deref(), Some("1.500000"));
        assert_eq!(text_of(members.description).as_deref(), Some("7"));
        assert_eq!(text_of(members.reference_id).as_deref(), Some(r#"{"a": [1]}"#));
        assert_eq!((text_of(members.org_id), text_of(members.idempotency_key)), (None, None));
    }
}
