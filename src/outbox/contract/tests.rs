//! The contract's own examples, what is accepted and refused, round trips, and the checked-in schemas.

use super::envelope::EventEnvelope;
use super::lax::{Boolean, Float, Integer, Moment};
use super::reading::read;
use super::{Kind, Model, python};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

mod fuzz;
mod properties;
mod schemas;
mod values;

fn consumption() -> Value {
    json!({
        "event_id": "a3b1c2d4-0003-4f00-8abc-000000000003",
        "event_type": "huleedu.resource.consumption.v1",
        "event_timestamp": "2025-08-31T12:05:10.500000Z",
        "source_service": "cj_assessment_service",
        "schema_version": 1,
        "correlation_id": "7f0c2d1e-5b7a-4c1d-9f0e-2a6b8c4d1e3f",
        "data_schema_uri": null,
        "data": {
            "event_name": "resource.consumption.reported",
            "entity_id": "6b1f0a52-3c44-4a0e-9d57-0d6a2f1c9e10",
            "entity_type": "batch",
            "parent_id": null,
            "timestamp": "2025-08-31T12:05:10.400000Z",
            "user_id": "larare-0017",
            "org_id": "skola-malmo-01",
            "resource_type": "cj_comparison",
            "quantity": 3,
            "service_name": "cj_assessment_service",
            "processing_id": "cj-4711",
            "consumed_at": "2025-08-31T12:05:10.300000Z"
        },
        "metadata": {}
    })
}

fn with(mut document: Value, pointer: &str, value: Value) -> Value {
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    document.pointer_mut(parent).unwrap().as_object_mut().unwrap().insert(name.to_owned(), value);
    document
}

fn without(mut document: Value, pointer: &str) -> Value {
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    document.pointer_mut(parent).unwrap().as_object_mut().unwrap().shift_remove(name);
    document
}

#[test]
fn the_hash_is_the_contracts_body_path() {
    let reading = read(&consumption()).unwrap();
    assert_eq!(reading.kind, Some(Kind::ResourceConsumption));
    assert_eq!(reading.body_sha256, "a6cb33831217c4441baf69db0c9b5e537a26c32159b9f7c8e0a3e341314572b4");
    // The envelope's own members are not part of it: a redelivery may carry another time.
    let redelivered = with(consumption(), "/event_timestamp", json!("2025-09-01T00:00:00Z"));
    assert_eq!(read(&redelivered).unwrap().body_sha256, reading.body_sha256);
    let changed = with(consumption(), "/data/quantity", json!(4));
    assert_ne!(read(&changed).unwrap().body_sha256, reading.body_sha256);
}

#[test]
fn derived_ids_are_the_contracts() {
    let data = json!({
        "subject": {"type": "org", "id": "skola-malmo-01"}, "delta": -3, "new_balance": 497,
        "reason": "credit_operation", "correlation_id": "7f0c2d1e-5b7a-4c1d-9f0e-2a6b8c4d1e3f", "note": null
    });
    let id = python::event_id(Kind::CreditBalanceChanged.topic(), &data);
    assert_eq!(id.to_string(), "26c42e89-6747-59e1-a9dc-f6381ab3aa3e");
    // uuid.uuid5(uuid.NAMESPACE_OID, "req-ä-1")
    assert_eq!(python::correlation_id("req-ä-1").to_string(), "c4fd2037-17a3-5434-b88b-4f328e541c3b");
    let own = "7f0c2d1e-5b7a-4c1d-9f0e-2a6b8c4d1e3f";
    assert_eq!(python::correlation_id(own).to_string(), own);
}

#[test]
fn the_text_is_what_pythons_json_dumps_writes() {
    let value: Value = serde_json::from_str(
        r#"{"b": [1, 2.5, 1e16, 1e-5, 0.0001, 100.0, -0.0, 1e22, 123456789012345680.0], "a": "å\u007f\u2028\"\\\n\ud83d\ude00\u0001", "c": {}, "d": [], "e": null, "f": true}"#,
    )
    .unwrap();
    assert_eq!(
        python::json(&value),
        r#"{"a": "\u00e5\u007f\u2028\"\\\n\ud83d\ude00\u0001", "b": [1, 2.5, 1e+16, 1e-05, 0.0001, 100.0, -0.0, 1e+22, 1.2345678901234568e+17], "c": {}, "d": [], "e": null, "f": true}"#
    );
}

fn reads<T: DeserializeOwned>(text: &str) -> Option<T> {
    serde_json::from_str(text).ok()
}

/// What pydantic 2.14 answers in its lax mode.
#[test]
fn scalars_are_lax_as_the_originals() {
    for (text, value) in [
        ("5", 5),
        ("5.0", 5),
        ("1e3", 1000),
        (r#""5""#, 5),
        (r#""5.00""#, 5),
        (r#"" 5 ""#, 5),
        (r#""+5""#, 5),
        (r#""-5""#, -5),
        (r#""1_000""#, 1000),
        (r#""05""#, 5),
        ("true", 1),
    ] {
        assert_eq!(reads::<Integer>(text), Some(Integer(value)), "{text}");
    }
    for text in
        ["5.5", r#""5.5""#, r#""1__0""#, "null", r#""0x5""#, r#""1e3""#, r#""""#, r#""invalid""#, r#""5.""#, "[]", "{}"]
    {
        assert_eq!(reads::<Integer>(text), None, "{text}");
    }
    for (text, value) in [("5", 5.0), (r#""1e3""#, 1000.0), (r#""5.5""#, 5.5), ("true", 1.0)] {
        assert_eq!(reads::<Float>(text), Some(Float(value)), "{text}");
    }
    for text in ["null", r#""x""#, r#""nan""#, r#""inf""#, "[]"] {
        assert_eq!(reads::<Float>(text), None, "{text}");
    }
    for text in ["true", "1", "1.0", r#""Yes""#, r#""on""#] {
        assert_eq!(reads::<Boolean>(text), Some(Boolean(true)), "{text}");
    }
    for text in ["2", r#""maybe""#, "null", r#""""#] {
        assert_eq!(reads::<Boolean>(text), None, "{text}");
    }
}

#[test]
fn times_are_read_with_any_offset_and_written_in_utc() {
    for (text, written) in [
        (r#""2025-08-31T12:05:10.5Z""#, "2025-08-31T12:05:10.500000Z"),
        (r#""2025-08-31T12:05:10+02:00""#, "2025-08-31T10:05:10.000000Z"),
        (r#""2025-08-31T12:05:10-0330""#, "2025-08-31T15:35:10.000000Z"),
        (r#""2025-08-31 12:05:10""#, "2025-08-31T12:05:10.000000Z"),
        (r#""2025-08-31T12:05""#, "2025-08-31T12:05:00.000000Z"),
        (r#""2024-02-29""#, "2024-02-29T00:00:00.000000Z"),
        (r#""1969-12-31T23:59:59.999999Z""#, "1969-12-31T23:59:59.999999Z"),
        ("1756641910", "2025-08-31T12:05:10.000000Z"),
        ("1756641910000", "2025-08-31T12:05:10.000000Z"),
        (r#""1756641910""#, "2025-08-31T12:05:10.000000Z"),
        (r#""0001-01-01T00:00:00Z""#, "0001-01-01T00:00:00.000000Z"),
        (r#""9999-12-31T23:59:59Z""#, "9999-12-31T23:59:59.000000Z"),
    ] {
        assert_eq!(reads::<Moment>(text).map(|moment| moment.to_string()).as_deref(), Some(written), "{text}");
    }
    for text in [
        r#""""#,
        r#""x""#,
        r#""2025-02-29""#,
        r#""2025-13-01""#,
        r#""2025-08-31T24:00""#,
        r#""2025-08-31T12""#,
        r#""2025-08-31T12:05:10.Z""#,
        r#""2025-08-31T12:05:10+2""#,
        r#""0000-01-01""#,
        "true",
        "null",
        "[]",
        "1e300",
        r#""2025-08-31T12:05:10Ö""#,
    ] {
        assert_eq!(reads::<Moment>(text), None, "{text}");
    }
}

#[test]
fn envelopes_are_taken_with_what_the_originals_leave_out() {
    for document in [
        consumption(),
        without(consumption(), "/event_id"),
        without(consumption(), "/event_timestamp"),
        without(consumption(), "/correlation_id"),
        without(consumption(), "/schema_version"),
        without(consumption(), "/metadata"),
        with(consumption(), "/metadata", Value::Null),
        with(consumption(), "/schema_version", json!("2")),
        with(consumption(), "/unknown", json!({"any": "thing"})),
        with(consumption(), "/data/unknown", json!(1)),
        with(consumption(), "/data/quantity", json!("3")),
        with(consumption(), "/data/quantity", json!(3.0)),
        with(consumption(), "/data/org_id", Value::Null),
        without(consumption(), "/data/org_id"),
        without(consumption(), "/data/event_name"),
        with(consumption(), "/data/user_id", json!("")),
        with(consumption(), "/event_timestamp", json!("2025-08-31T14:05:10.5+02:00")),
    ] {
        read(&document).unwrap_or_else(|problem| panic!("{problem}: {document}"));
    }
    // The names differ, and one producer writes a wrong one.
    for name in [
        "huleedu.resource.consumption.v1",
        "resource.consumption.reported",
        "huleedu.resource.consumption.reported.v1",
        "x",
    ] {
        let reading = read(&with(consumption(), "/event_type", json!(name))).unwrap();
        assert_eq!(reading.kind, Some(Kind::ResourceConsumption), "{name}");
    }
    let derived = without(consumption(), "/event_id");
    assert_eq!(read(&derived).unwrap().event_id, read(&derived).unwrap().event_id);
}

#[test]
fn what_the_originals_refuse_is_refused_with_its_place() {
    let refused = |document: Value, reason: &str, place: &str| {
        let problem = read(&document).unwrap_err();
        assert_eq!(problem.reason, reason, "{problem}");
        assert!(problem.message.contains(place), "{problem} does not name {place}");
    };
    refused(json!(null), "invalid_envelope", "");
    refused(json!([1]), "invalid_envelope", "");
    refused(without(consumption(), "/event_type"), "invalid_envelope", "event_type");
    refused(without(consumption(), "/source_service"), "invalid_envelope", "source_service");
    refused(with(consumption(), "/source_service", json!(1)), "invalid_envelope", "source_service");
    refused(with(consumption(), "/event_id", json!("x")), "invalid_envelope", "event_id");
    refused(with(consumption(), "/event_id", Value::Null), "invalid_envelope", "event_id");
    refused(with(consumption(), "/event_timestamp", json!("soon")), "invalid_envelope", "event_timestamp");
    refused(with(consumption(), "/metadata", json!([])), "invalid_envelope", "metadata");
    refused(with(consumption(), "/schema_version", json!(1.5)), "invalid_envelope", "schema_version");
    refused(with(consumption(), "/data", json!("x")), "invalid_data", "data");
    refused(with(consumption(), "/data/quantity", json!(-1)), "invalid_data", "data.quantity");
    refused(with(consumption(), "/data/quantity", json!(5.5)), "invalid_data", "data.quantity");
    refused(with(consumption(), "/data/user_id", json!(17)), "invalid_data", "data.user_id");
    refused(without(consumption(), "/data/user_id"), "invalid_data", "user_id");
    refused(with(consumption(), "/data/event_name", json!("resource.consumed")), "invalid_data", "data.event_name");
    let secret = read(&with(consumption(), "/data/quantity", json!("s3cr3t"))).unwrap_err();
    assert!(!secret.message.contains("s3cr3t"), "{secret}");
}

/// serde would read a list as the members of a struct, in their order, and {"SV1": null} as the variant SV1.
#[test]
fn a_list_is_no_object_and_an_object_no_word() {
    let assessment = json!({
        "event_type": Kind::CjAssessmentRequested.topic(), "source_service": "s",
        "data": {"system_metadata": {"entity_id": "b", "entity_type": "batch"}, "essays_for_cj": [
            {"essay_id": "e", "text_storage_id": "t"}], "language": "sv", "course_code": "SV1", "user_id": "u"}
    });
    read(&assessment).unwrap();
    let listed =
        json!(["a3b1c2d4-0003-4f00-8abc-000000000003", "x", "2025-08-31T12:05:10Z", "s", 1, null, null, {}, {}]);
    assert_eq!(read(&listed).unwrap_err().reason, "invalid_envelope");
    for (pointer, value) in [
        ("/data/system_metadata", json!(["b", "batch", null, "2025-08-31T12:05:10Z", null, null, null, null, {}])),
        ("/data/essays_for_cj", json!([["e", "t", null]])),
        ("/data/llm_config_overrides", json!([])),
        ("/data/course_code", json!({"SV1": null})),
    ] {
        let problem = read(&with(assessment.clone(), pointer, value)).unwrap_err();
        assert_eq!(problem.reason, "invalid_data", "{problem}");
        assert!(problem.message.contains(&pointer[1..].replace('/', ".")), "{problem} does not name {pointer}");
    }
}

#[test]
fn a_registration_is_judged_as_the_original_does() {
    let good = json!({"expected_essay_count": 3, "course_code": "SV1", "user_id": "larare-0017"});
    let judge = |document: &Value| Model::BatchRegistration.normalize(document, "invalid_request", "");
    judge(&good).unwrap();
    judge(&with(good.clone(), "/essay_ids", json!(["a", "b", "c"]))).unwrap();
    judge(&with(good.clone(), "/cj_default_temperature", json!("0.2"))).unwrap();
    judge(&with(good.clone(), "/expected_essay_count", json!("3"))).unwrap();
    for (pointer, value) in [
        ("/expected_essay_count", json!(0)),
        ("/expected_essay_count", json!(2.5)),
        ("/course_code", json!("SV9")),
        ("/essay_ids", json!([])),
        ("/essay_ids", json!(["a"])),
        ("/cj_default_temperature", json!(2.1)),
        ("/assignment_id", json!("x".repeat(101))),
        ("/user_id", json!(5)),
        ("/user_id", Value::Null),
    ] {
        let document = with(good.clone(), pointer, value);
        assert_eq!(judge(&document).unwrap_err().reason, "invalid_request", "{document}");
    }
}

#[test]
fn an_envelope_equals_itself_after_a_round_trip() {
    let envelope: EventEnvelope = serde_json::from_value(consumption()).unwrap();
    assert_eq!(serde_json::to_value(&envelope).unwrap(), consumption());
}
