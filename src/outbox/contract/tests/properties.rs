//! Any value of a type equals itself after it was written and read; nothing that can be written makes the reader fail
//! in another way than with a problem. Proptest prints the seed of a failure.

use super::super::entitlements::{Count, ResourceConsumptionV1, SubjectRefV1, SubjectType, UsageRecordedV1};
use super::super::lax::{Integer, Moment};
use super::super::name::{EVENT_NAMES, EventName};
use super::super::{envelope::EventEnvelope, python, reading::read};
use proptest::collection::{hash_map, vec};
use proptest::option::of;
use proptest::prelude::*;
use serde_json::{Map, Value};
use uuid::Uuid;

fn moment() -> impl Strategy<Value = Moment> {
    (-62_135_596_800_000_000..253_402_300_800_000_000i64).prop_map(Moment)
}

fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        // Beyond some 15 digits serde_json's quick parser may miss a double by its last bit.
        any::<i32>().prop_map(|thousandths| Value::from(f64::from(thousandths) / 1000.0)),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..6).prop_map(Value::from),
            hash_map(any::<String>(), inner, 0..6).prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn object() -> impl Strategy<Value = Map<String, Value>> {
    hash_map(any::<String>(), json(), 0..4).prop_map(|map| map.into_iter().collect())
}

fn consumption() -> impl Strategy<Value = ResourceConsumptionV1> {
    let texts = (any::<String>(), of(any::<String>()), any::<String>(), any::<String>(), any::<String>());
    let entity = (of(any::<String>()), of(any::<String>()), of(any::<String>()));
    let name = proptest::sample::select(EVENT_NAMES).prop_map(|name| EventName(name.to_owned()));
    (texts, entity, name, 0..i64::MAX, moment(), moment()).prop_map(
        |(
            (user_id, org_id, resource_type, service_name, processing_id),
            entity,
            event_name,
            quantity,
            timestamp,
            at,
        )| {
            let (entity_id, entity_type, parent_id) = entity;
            ResourceConsumptionV1 {
                event_name,
                entity_id,
                entity_type,
                parent_id,
                timestamp,
                user_id,
                org_id,
                resource_type,
                quantity: Count(quantity),
                service_name,
                processing_id,
                consumed_at: at,
            }
        },
    )
}

fn envelope() -> impl Strategy<Value = EventEnvelope> {
    let uuid = || of(any::<u128>().prop_map(Uuid::from_u128));
    let texts = (any::<String>(), any::<String>(), of(any::<String>()));
    (uuid(), texts, of(moment()), any::<i64>(), uuid(), json(), of(object())).prop_map(
        |(
            event_id,
            (event_type, source_service, data_schema_uri),
            event_timestamp,
            version,
            correlation_id,
            data,
            metadata,
        )| {
            EventEnvelope {
                event_id,
                event_type,
                event_timestamp,
                source_service,
                schema_version: Integer(version),
                correlation_id,
                data_schema_uri,
                data,
                metadata,
            }
        },
    )
}

fn usage() -> impl Strategy<Value = UsageRecordedV1> {
    let kind = prop_oneof![Just(SubjectType::Org), Just(SubjectType::User)];
    (kind, any::<String>(), any::<String>(), any::<i64>(), moment(), moment(), any::<String>()).prop_map(
        |(kind, id, metric, amount, period_start, period_end, correlation_id)| UsageRecordedV1 {
            subject: SubjectRefV1 { kind, id },
            metric,
            amount: Integer(amount),
            period_start,
            period_end,
            correlation_id,
        },
    )
}

proptest! {
    #[test]
    fn an_envelope_that_was_written_is_read_as_itself(envelope in envelope()) {
        let text = serde_json::to_string(&envelope).unwrap();
        prop_assert_eq!(serde_json::from_str::<EventEnvelope>(&text).unwrap(), envelope);
    }

    #[test]
    fn a_consumption_that_was_written_is_read_as_itself(event in consumption()) {
        let text = serde_json::to_string(&event).unwrap();
        prop_assert_eq!(serde_json::from_str::<ResourceConsumptionV1>(&text).unwrap(), event);
    }

    #[test]
    fn a_usage_that_was_written_is_read_as_itself(event in usage()) {
        let text = serde_json::to_string(&event).unwrap();
        prop_assert_eq!(serde_json::from_str::<UsageRecordedV1>(&text).unwrap(), event);
    }

    #[test]
    fn a_moment_that_was_written_is_read_as_itself(moment in moment()) {
        prop_assert_eq!(Moment::parse(&moment.to_string()), Some(moment));
    }

    #[test]
    fn any_document_is_read_or_refused_and_its_text_is_json(document in json()) {
        let _ = read(&document);
        prop_assert_eq!(serde_json::from_str::<Value>(&python::json(&document)).unwrap(), document);
    }
}
