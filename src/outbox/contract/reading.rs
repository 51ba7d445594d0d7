//! From any document to a typed event, or to what is wrong with it.

use super::batch::{BatchEssaysRegistered, BatchRegistrationRequestV1, CjAssessmentRequestV1};
use super::entitlements::{CreditBalanceChangedV1, RateLimitExceededV1, ResourceConsumptionV1, UsageRecordedV1};
use super::envelope::{EventEnvelope, Kind};
use super::ids;
use super::pipeline::{ClientBatchPipelineRequestV1, PipelineDeniedV1};
use super::python;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::fmt;
use uuid::Uuid;

/// What is wrong with a document: a stable word, and a sentence that names the place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Stable, in snake_case.
    pub reason: &'static str,
    /// For people; quotes no text of the document.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        write!(formatter, "{}: {}", self.reason, self.message)
    }
}

/// What an envelope says.
#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    /// The envelope.
    pub envelope: EventEnvelope,
    /// The event it holds, where it is one of contract H.
    pub kind: Option<Kind>,
    /// Its id: the envelope's, else one derived from the body, so that a redelivery is known again.
    pub event_id: Uuid,
    /// SHA-256 in hex over what contract H hashes: `{"data": …, "event_id": …}`.
    pub body_sha256: String,
    /// The data as their type writes them; of an unknown kind as they stand.
    pub data: Value,
}

/// Reads an envelope and, where it is of a known kind, its data.
pub fn read(document: &Value) -> Result<Reading, Problem> {
    if !document.is_object() {
        return Err(Problem { reason: "invalid_envelope", message: "must be an object".to_owned() });
    }
    let envelope: EventEnvelope = typed(document, "invalid_envelope", "")?;
    let kind = Kind::of(&envelope.event_type, &envelope.data);
    let data = match kind {
        Some(kind) => {
            let data = Model::from(kind).normalize(&envelope.data, "invalid_data", "data")?;
            ids::check(kind, &data, envelope.metadata.as_ref())?;
            data
        }
        None => envelope.data.clone(),
    };
    let derived = || Uuid::new_v5(&Uuid::NAMESPACE_OID, python::json(document).as_bytes());
    let event_id = envelope.event_id.unwrap_or_else(derived);
    // The id as it was sent, letter for letter: that is what the original hashes.
    let sent = document.get("event_id").cloned().unwrap_or_else(|| Value::String(event_id.to_string()));
    let body = json!({"data": envelope.data, "event_id": sent});
    let body_sha256 = sha256(python::json(&body).as_bytes());
    Ok(Reading { envelope, kind, event_id, body_sha256, data })
}

/// The models a document can be read as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Model {
    /// The data of an event.
    Event(Kind),
    /// BatchRegistrationRequestV1.
    BatchRegistration,
}

impl From<Kind> for Model {
    fn from(kind: Kind) -> Self {
        Model::Event(kind)
    }
}

impl Model {
    /// The document as the model writes it.
    pub fn normalize(self, document: &Value, reason: &'static str, at: &str) -> Result<Value, Problem> {
        fn through<T: DeserializeOwned + Serialize>(
            document: &Value,
            reason: &'static str,
            at: &str,
        ) -> Result<Value, Problem> {
            let written = written(&typed::<T>(document, reason, at)?, reason)?;
            same_shape(document, &written, reason, at)?;
            Ok(written)
        }
        match self {
            Model::BatchRegistration => {
                let request: BatchRegistrationRequestV1 = typed(document, reason, at)?;
                request.check().map_err(|message| Problem { reason, message: message.to_owned() })?;
                through::<BatchRegistrationRequestV1>(document, reason, at)
            }
            Model::Event(kind) => match kind {
                Kind::BatchEssaysRegistered => through::<BatchEssaysRegistered>(document, reason, at),
                Kind::CjAssessmentRequested => through::<CjAssessmentRequestV1>(document, reason, at),
                Kind::PipelineRequested => through::<ClientBatchPipelineRequestV1>(document, reason, at),
                Kind::ResourceConsumption => through::<ResourceConsumptionV1>(document, reason, at),
                Kind::CreditBalanceChanged => through::<CreditBalanceChangedV1>(document, reason, at),
                Kind::UsageRecorded => through::<UsageRecordedV1>(document, reason, at),
                Kind::RateLimitExceeded => through::<RateLimitExceededV1>(document, reason, at),
                Kind::PipelineDenied => through::<PipelineDeniedV1>(document, reason, at),
            },
        }
    }
}

fn typed<T: DeserializeOwned>(document: &Value, reason: &'static str, at: &str) -> Result<T, Problem> {
    serde_path_to_error::deserialize(document).map_err(|error| {
        let path = error.path().to_string();
        let place = match (at, path.as_str()) {
            ("", ".") => String::new(),
            ("", path) => format!("{path}: "),
            (at, ".") => format!("{at}: "),
            (at, path) => format!("{at}.{path}: "),
        };
        Problem { reason, message: format!("{place}{}", without_values(&error.into_inner().to_string())) }
    })
}

/// serde also reads a list as the members of a struct, and an object as a variant of an enum; the originals do not.
fn same_shape(sent: &Value, read: &Value, reason: &'static str, at: &str) -> Result<(), Problem> {
    let place = |name: &str| if at.is_empty() { name.to_owned() } else { format!("{at}.{name}") };
    match (sent, read) {
        (Value::Object(sent), Value::Object(read)) => sent
            .iter()
            .filter_map(|(name, value)| Some((name, value, read.get(name)?)))
            .try_for_each(|(name, sent, read)| same_shape(sent, read, reason, &place(name))),
        (Value::Array(sent), Value::Array(read)) => sent
            .iter()
            .zip(read)
            .enumerate()
            .try_for_each(|(index, (sent, read))| same_shape(sent, read, reason, &place(&index.to_string()))),
        (Value::Array(_) | Value::Object(_), _) | (_, Value::Array(_) | Value::Object(_)) => {
            let expected = match read {
                Value::Object(_) => "an object",
                Value::Array(_) => "a list",
                _ => "a plain value",
            };
            Err(Problem { reason, message: format!("{at}: must be {expected}") })
        }
        _ => Ok(()),
    }
}

/// serde's message without the document's own texts, which may be secrets or long: `invalid type: string "…", expected`.
fn without_values(message: &str) -> String {
    let mut quoted = message.splitn(3, '"');
    let (before, _, after) = (quoted.next().unwrap_or_default(), quoted.next(), quoted.next());
    let mut text = match after {
        Some(after) => format!("{}{}", before.trim_end(), after.rsplit('"').next().unwrap_or_default()),
        None => before.to_owned(),
    };
    if let Some(at) = text.char_indices().nth(200).map(|(at, _)| at) {
        text.truncate(at);
    }
    text
}

fn written<T: Serialize>(value: &T, reason: &'static str) -> Result<Value, Problem> {
    serde_json::to_value(value).map_err(|error| Problem { reason, message: error.to_string() })
}

fn sha256(bytes: &[u8]) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}
