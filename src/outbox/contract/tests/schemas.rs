//! docs/reference/schemas is what the types say. `PGT_WRITE_SCHEMAS=1` writes the files anew.

use super::super::batch::{BatchEssaysRegistered, BatchRegistrationRequestV1, CjAssessmentRequestV1};
use super::super::entitlements::{CreditBalanceChangedV1, RateLimitExceededV1, ResourceConsumptionV1, UsageRecordedV1};
use super::super::envelope::EventEnvelope;
use super::super::pipeline::{ClientBatchPipelineRequestV1, PipelineDeniedV1};
use schemars::{Schema, schema_for};
use serde_json::Value;
use std::path::Path;

#[test]
fn the_checked_in_schemas_are_those_of_the_types() {
    let schemas: [(&str, Schema); 10] = [
        ("event_envelope", schema_for!(EventEnvelope)),
        ("batch_registration_request_v1", schema_for!(BatchRegistrationRequestV1)),
        ("batch_essays_registered", schema_for!(BatchEssaysRegistered)),
        ("els_cj_assessment_request_v1", schema_for!(CjAssessmentRequestV1)),
        ("client_batch_pipeline_request_v1", schema_for!(ClientBatchPipelineRequestV1)),
        ("resource_consumption_v1", schema_for!(ResourceConsumptionV1)),
        ("credit_balance_changed_v1", schema_for!(CreditBalanceChangedV1)),
        ("usage_recorded_v1", schema_for!(UsageRecordedV1)),
        ("rate_limit_exceeded_v1", schema_for!(RateLimitExceededV1)),
        ("pipeline_denied_v1", schema_for!(PipelineDeniedV1)),
    ];
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reference/schemas");
    for (name, schema) in schemas {
        let file = folder.join(format!("{name}.schema.json"));
        let mut schema = schema.to_value();
        remove_made_up_defaults(&mut schema);
        let text = serde_json::to_string_pretty(&schema).unwrap() + "\n";
        if std::env::var_os("PGT_WRITE_SCHEMAS").is_some() {
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(&file, &text).unwrap();
        }
        let there = std::fs::read_to_string(&file).unwrap_or_default();
        assert!(there == text, "{} is not what the types say: PGT_WRITE_SCHEMAS=1 writes it", file.display());
    }
}

/// The moment of reading, or a new id, is no default that a schema could name.
fn remove_made_up_defaults(schema: &mut Value) {
    match schema {
        Value::Object(members) => {
            let is_made_up = members.get("$ref").is_some_and(|name| name == "#/$defs/Moment")
                || members.get("format").is_some_and(|format| format == "uuid");
            if is_made_up {
                members.shift_remove("default");
            }
            members.values_mut().for_each(remove_made_up_defaults);
        }
        Value::Array(items) => items.iter_mut().for_each(remove_made_up_defaults),
        _ => {}
    }
}
