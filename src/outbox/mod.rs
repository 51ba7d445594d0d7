//! What happened, told to others: typed events, the outbox they are written to, and how consumers read it.
//!
//! The types and derived ids are plain Rust ([`contract`]); tables, publishing and delivery are SQL (sql/outbox/).
//! Documents come as text: a number that jsonb holds and no double does must be refused, not raise in a conversion.

pub mod contract;

use crate::pg::sql::{self, Arg, Mode};
use crate::pg::{self, Error, State};
use contract::{Kind, Model, Problem, Reading, python};
use pgrx::iter::TableIterator;
use pgrx::{JsonB, name, pg_extern};
use serde_json::Value;

/// Reads an envelope; `problem` says what is wrong with it, and the other columns are NULL then.
#[pg_extern(name = "_read_event", stable, parallel_safe)]
#[allow(clippy::type_complexity)]
fn read_event(
    document: &str,
) -> TableIterator<
    'static,
    (
        name!(problem, Option<String>),
        name!(message, Option<String>),
        name!(topic, Option<String>),
        name!(event_id, Option<pgrx::Uuid>),
        name!(event_type, Option<String>),
        name!(event_timestamp, Option<String>),
        name!(correlation_id, Option<pgrx::Uuid>),
        name!(body_sha256, Option<String>),
        name!(envelope, Option<JsonB>),
    ),
> {
    pg::entry(|| {
        let row = match parsed(document).and_then(|document| contract::read(&document)) {
            Ok(reading) => {
                let envelope = normalized(&reading);
                let Reading { envelope: read, kind, event_id, body_sha256, .. } = reading;
                (
                    None,
                    None,
                    kind.map(|kind| kind.topic().to_owned()),
                    Some(uuid(event_id)),
                    Some(read.event_type),
                    read.event_timestamp.map(|moment| moment.to_string()),
                    read.correlation_id.map(uuid),
                    Some(body_sha256),
                    Some(JsonB(envelope)),
                )
            }
            Err(problem) => {
                (Some(problem.reason.to_owned()), Some(problem.message), None, None, None, None, None, None, None)
            }
        };
        Ok(TableIterator::once(row))
    })
}

/// Reads a document as one of contract H's models: the data of the event with this topic, or the word registration.
#[pg_extern(name = "_read_model", stable, parallel_safe)]
fn read_model(
    model: &str,
    document: &str,
) -> TableIterator<'static, (name!(message, Option<String>), name!(document, Option<JsonB>))> {
    pg::entry(|| {
        let by_topic = || Kind::ALL.into_iter().find(|kind| kind.topic() == model).map(Model::Event);
        let model = match model {
            "registration" => Some(Model::BatchRegistration),
            _ => by_topic(),
        };
        let Some(model) = model else {
            return Err(Error::new(State::INTERNAL, "unknown_model", "There is no such model"));
        };
        let row = match parsed(document).and_then(|document| model.normalize(&document, "invalid_data", "")) {
            Ok(document) => (None, Some(JsonB(document))),
            Err(problem) => (Some(problem.message), None),
        };
        Ok(TableIterator::once(row))
    })
}

/// Topics that begin so are the extension's own, those it will have later too.
const RESERVED: [&str; 2] = ["tenancy.", "huleedu.entitlements."];

/// Which event of contract H that is, by its topic; and whether only the extension's own functions publish it.
#[pg_extern(name = "_event_kind", immutable, parallel_safe)]
fn event_kind(
    event_type: &str,
    data: &str,
) -> TableIterator<'static, (name!(topic, Option<String>), name!(reserved, bool))> {
    pg::entry(|| {
        let kind = Kind::of(event_type, &parsed(data).map_err(unreadable)?);
        let is_reserved = kind.is_some_and(Kind::is_reserved) || RESERVED.iter().any(|own| event_type.starts_with(own));
        Ok(TableIterator::once((kind.map(|kind| kind.topic().to_owned()), is_reserved)))
    })
}

/// The id of a published event, derived from its topic and data (contract H).
#[pg_extern(name = "_derived_event_id", immutable, parallel_safe)]
fn derived_event_id(topic: &str, data: &str) -> pgrx::Uuid {
    pg::entry(|| Ok(uuid(python::event_id(topic, &parsed(data).map_err(unreadable)?))))
}

/// The consumers that are given events of a topic, as of now: an old snapshot would miss one that was made since.
#[pg_extern(name = "_consumers_of", volatile)]
fn consumers_of(topic: &str) -> TableIterator<'static, (name!(consumer, String),)> {
    pg::entry(|| {
        let consumers = sql::query(
            "SELECT c.consumer FROM tenancy.event_consumers AS c \
             WHERE c.topics IS NULL OR $1 OPERATOR(pg_catalog.=) ANY (c.topics) ORDER BY c.consumer",
            &[Arg::Text(Some(topic))],
            Mode::ReadLatest,
            |row| Ok((row.text(1).unwrap_or_default(),)),
        )?;
        Ok(TableIterator::new(consumers))
    })
}

/// How far the sequences of the tenant's forgotten aggregates had come, as of now.
#[pg_extern(name = "_forgotten_sequence", volatile)]
fn forgotten_sequence(tenant_id: &str) -> i64 {
    pg::entry(|| {
        let sequence = sql::query_opt(
            "SELECT h.forgotten_sequence FROM tenancy.event_stream_horizons AS h WHERE h.tenant_id = $1",
            &[Arg::Text(Some(tenant_id))],
            Mode::ReadLatest,
            |row| Ok(row.get::<i64>(1)),
        )?;
        Ok(sequence.flatten().unwrap_or_default())
    })
}

/// Whether the transaction had an identity and acts for nobody now: its token expired, or it was cleared.
#[pg_extern(name = "_identity_expired", volatile)]
fn identity_expired() -> bool {
    pg::entry(|| Ok(pg::has_ended()))
}

/// A correlation id as a UUID (contract H); NULL for NULL.
#[pg_extern(name = "_correlation_uuid", immutable, parallel_safe)]
fn correlation_uuid(correlation_id: &str) -> pgrx::Uuid {
    pg::entry(|| Ok(uuid(python::correlation_id(correlation_id))))
}

fn normalized(reading: &Reading) -> Value {
    let mut envelope = serde_json::to_value(&reading.envelope).unwrap_or_default();
    envelope["event_id"] = reading.event_id.to_string().into();
    envelope["data"] = reading.data.clone();
    envelope
}

fn parsed(document: &str) -> Result<Value, Problem> {
    // Of what is JSON already, only depth beyond 127 and numbers beyond a double's range are refused.
    serde_json::from_str(document).map_err(|_| Problem {
        reason: "invalid_envelope",
        message: "a number is out of range, or the document is nested too deep".to_owned(),
    })
}

fn unreadable(problem: Problem) -> Error {
    Error::new(State::INVALID_PARAMETER, "invalid_data", problem.message)
        .hint("Nest data less deep, and keep numbers within a double's range.")
        .detail("parameter", "data")
}

fn uuid(id: uuid::Uuid) -> pgrx::Uuid {
    pgrx::Uuid::from_bytes(*id.as_bytes())
}
