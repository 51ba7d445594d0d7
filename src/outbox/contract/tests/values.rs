//! Any value of each type, for the property tests.

use super::super::batch::{
    BatchEssaysRegistered, BatchRegistrationRequestV1, CjAssessmentRequestV1, CourseCode, EssayForCj,
    LlmConfigOverrides, Positive, ProcessingStage, StorageReferenceMetadata, SystemProcessingMetadata, Temperature,
};
use super::super::entitlements::{
    Count, CreditBalanceChangedV1, Credits, RateLimitExceededV1, ResourceConsumptionV1, SubjectRefV1, SubjectType,
    UsageRecordedV1,
};
use super::super::envelope::EventEnvelope;
use super::super::lax::{Boolean, Integer, Moment};
use super::super::name::{EVENT_NAMES, EventName};
use super::super::pipeline::{ClientBatchPipelineRequestV1, PipelineDeniedV1};
use super::super::text::Bounded;
use proptest::collection::{btree_map, hash_map, vec};
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Map, Value};
use uuid::Uuid;

fn text() -> impl Strategy<Value = String> {
    any::<String>()
}

/// A text that is an id of an essay here.
fn id() -> impl Strategy<Value = String> {
    "\\PC{0,60}x"
}

/// One of a user or an organization, which may be empty.
fn owner() -> impl Strategy<Value = String> {
    prop_oneof![Just(String::new()), id()]
}

fn some_text() -> impl Strategy<Value = Option<String>> {
    of(any::<String>())
}

pub fn moment() -> impl Strategy<Value = Moment> {
    (-62_135_596_800_000_000..253_402_300_800_000_000i64).prop_map(Moment)
}

fn integer() -> impl Strategy<Value = Integer> {
    any::<i64>().prop_map(Integer)
}

/// Beyond some 15 digits serde_json's quick parser may miss a double by its last bit.
fn decimal() -> impl Strategy<Value = f64> {
    any::<i32>().prop_map(|thousandths| f64::from(thousandths) / 1000.0)
}

fn credits() -> impl Strategy<Value = Credits> {
    prop_oneof![
        any::<i64>().prop_map(Credits::Whole),
        decimal().prop_filter("a whole number is one", |value| value.fract() != 0.0).prop_map(Credits::Fraction),
    ]
}

fn name() -> impl Strategy<Value = EventName> {
    select(EVENT_NAMES).prop_map(|name| EventName(name.to_owned()))
}

fn course() -> impl Strategy<Value = CourseCode> {
    use CourseCode::*;
    select(vec![Eng5, Eng6, Eng7, Sv1, Sv2, Sv3])
}

fn temperature() -> impl Strategy<Value = Temperature> {
    (0..=2000u32).prop_map(|thousandths| Temperature(f64::from(thousandths) / 1000.0))
}

fn bounded<const MIN: usize, const MAX: usize>() -> impl Strategy<Value = Bounded<MIN, MAX>> {
    vec(any::<char>(), MIN..=MAX).prop_map(|text| Bounded(text.into_iter().collect()))
}

fn trimmed<const MIN: usize, const MAX: usize>() -> impl Strategy<Value = Bounded<MIN, MAX, true>> {
    vec(any::<char>(), MIN..=MAX)
        .prop_map(|text| Bounded(text.into_iter().collect::<String>().trim().to_owned()))
        .prop_filter("not too short without its spaces", |text: &Bounded<MIN, MAX, true>| text.0.chars().count() >= MIN)
}

pub fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        decimal().prop_map(Value::from),
        text().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..6).prop_map(Value::from),
            hash_map(text(), inner, 0..6).prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn object() -> impl Strategy<Value = Map<String, Value>> {
    hash_map(text(), json(), 0..4).prop_map(|map| map.into_iter().collect())
}

fn storage() -> impl Strategy<Value = StorageReferenceMetadata> {
    btree_map(text(), btree_map(text(), text(), 0..3), 0..3)
        .prop_map(|references| StorageReferenceMetadata { references })
}

fn subject() -> impl Strategy<Value = SubjectRefV1> {
    (select(vec![SubjectType::Org, SubjectType::User]), text()).prop_map(|(kind, id)| SubjectRefV1 { kind, id })
}

prop_compose! {
    pub fn registration()(
        essay_ids in of(vec(text(), 1..5)), count in 1..i64::MAX, course_code in course(), student_prompt_ref in of(storage()),
        user_id in text(), org_id in some_text(), class_id in some_text(), cj_default_llm_model in some_text(),
        cj_default_temperature in of(temperature()), assignment_id in of(bounded()),
    ) -> BatchRegistrationRequestV1 {
        let expected_essay_count = Positive(essay_ids.as_ref().map_or(count, |ids| ids.len() as i64));
        BatchRegistrationRequestV1 {
            expected_essay_count, essay_ids, course_code, student_prompt_ref, user_id, org_id, class_id,
            cj_default_llm_model, cj_default_temperature, assignment_id,
        }
    }
}

prop_compose! {
    fn processing()(
        entity_id in text(), entity_type in text(), parent_id in some_text(), timestamp in moment(),
        processing_stage in of(select(vec![
            ProcessingStage::Pending, ProcessingStage::Initialized, ProcessingStage::Processing,
            ProcessingStage::Completed, ProcessingStage::Failed, ProcessingStage::Cancelled,
        ])),
        started_at in of(moment()), completed_at in of(moment()), event in some_text(), error_info in object(),
    ) -> SystemProcessingMetadata {
        SystemProcessingMetadata {
            entity_id, entity_type, parent_id, timestamp, processing_stage, started_at, completed_at, event, error_info,
        }
    }
}

prop_compose! {
    pub fn essays_registered()(
        event in name(), entity_id in text(), expected_essay_count in integer(), essay_ids in vec(id(), 0..4),
        metadata in processing(), course_code in course(), student_prompt_ref in of(storage()), user_id in owner(),
        org_id in of(owner()), class_id in some_text(),
    ) -> BatchEssaysRegistered {
        BatchEssaysRegistered {
            event, entity_id, expected_essay_count, essay_ids, metadata, course_code, student_prompt_ref, user_id,
            org_id, class_id,
        }
    }
}

prop_compose! {
    fn essay()(essay_id in text(), text_storage_id in text(), spellcheck_metrics in of(object())) -> EssayForCj {
        EssayForCj { essay_id, text_storage_id, spellcheck_metrics }
    }
}

prop_compose! {
    fn overrides()(
        model_override in some_text(), temperature_override in of(temperature()),
        max_tokens_override in of((1..i64::MAX).prop_map(Positive)), provider_override in some_text(),
        system_prompt_override in some_text(),
    ) -> LlmConfigOverrides {
        LlmConfigOverrides {
            model_override, temperature_override, max_tokens_override, provider_override, system_prompt_override,
        }
    }
}

prop_compose! {
    pub fn assessment()(
        entity in (name(), some_text(), some_text(), some_text(), moment()), system_metadata in processing(),
        essays_for_cj in vec(essay(), 0..4), language in text(), course_code in course(),
        student_prompt_ref in of(storage()), llm_config_overrides in of(overrides()), assignment_id in of(bounded()),
        user_id in owner(), org_id in of(owner()),
    ) -> CjAssessmentRequestV1 {
        let (event_name, entity_id, entity_type, parent_id, timestamp) = entity;
        CjAssessmentRequestV1 {
            event_name, entity_id, entity_type, parent_id, timestamp, system_metadata, essays_for_cj, language,
            course_code, student_prompt_ref, llm_config_overrides, assignment_id, user_id, org_id,
        }
    }
}

prop_compose! {
    pub fn pipeline_request()(
        batch_id in trimmed(), requested_pipeline in trimmed(), correlation in any::<u128>(), user_id in id(),
        is_retry in any::<bool>(), retry_reason in of(trimmed()),
    ) -> ClientBatchPipelineRequestV1 {
        ClientBatchPipelineRequestV1 {
            batch_id, requested_pipeline, client_correlation_id: Uuid::from_u128(correlation),
            user_id: Bounded(user_id.trim().to_owned()),
            is_retry: Boolean(is_retry), retry_reason,
        }
    }
}

prop_compose! {
    pub fn denied()(
        entity in (name(), some_text(), some_text(), some_text(), moment()), batch_id in text(), user_id in owner(),
        org_id in of(owner()), requested_pipeline in text(), denial_reason in text(), required_credits in credits(),
        available_credits in credits(), resource_breakdown in of(btree_map(text(), integer(), 0..4)), denied_at in moment(),
    ) -> PipelineDeniedV1 {
        let (event_name, entity_id, entity_type, parent_id, timestamp) = entity;
        PipelineDeniedV1 {
            event_name, entity_id, entity_type, parent_id, timestamp, batch_id, user_id, org_id, requested_pipeline,
            denial_reason, required_credits, available_credits, resource_breakdown, denied_at,
        }
    }
}

prop_compose! {
    pub fn consumption()(
        entity in (name(), some_text(), some_text(), some_text(), moment()), user_id in owner(), org_id in of(owner()),
        resource_type in text(), quantity in 0..i64::MAX, service_name in text(), processing_id in text(),
        consumed_at in moment(),
    ) -> ResourceConsumptionV1 {
        let (event_name, entity_id, entity_type, parent_id, timestamp) = entity;
        ResourceConsumptionV1 {
            event_name, entity_id, entity_type, parent_id, timestamp, user_id, org_id, resource_type,
            quantity: Count(quantity), service_name, processing_id, consumed_at,
        }
    }
}

prop_compose! {
    pub fn balance_changed()(
        subject in subject(), delta in credits(), new_balance in credits(), reason in text(), correlation_id in text(),
    ) -> CreditBalanceChangedV1 {
        CreditBalanceChangedV1 { subject, delta, new_balance, reason, correlation_id }
    }
}

prop_compose! {
    pub fn usage()(
        subject in subject(), metric in text(), amount in integer(), period_start in moment(), period_end in moment(),
        correlation_id in text(),
    ) -> UsageRecordedV1 {
        UsageRecordedV1 { subject, metric, amount, period_start, period_end, correlation_id }
    }
}

prop_compose! {
    pub fn limit_exceeded()(
        subject in subject(), metric in text(), limit in integer(), window_seconds in integer(), correlation_id in text(),
    ) -> RateLimitExceededV1 {
        RateLimitExceededV1 { subject, metric, limit, window_seconds, correlation_id }
    }
}

prop_compose! {
    pub fn envelope()(
        event_id in of(any::<u128>().prop_map(Uuid::from_u128)), event_type in text(), event_timestamp in of(moment()),
        source_service in text(), schema_version in integer(), correlation_id in of(any::<u128>().prop_map(Uuid::from_u128)),
        data_schema_uri in some_text(), data in json(), metadata in of(object()),
    ) -> EventEnvelope {
        EventEnvelope {
            event_id, event_type, event_timestamp, source_service, schema_version, correlation_id, data_schema_uri,
            data, metadata,
        }
    }
}
