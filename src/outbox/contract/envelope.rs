//! The envelope every event travels in, and which event it holds.

use super::lax::{Integer, Moment};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

/// EventEnvelope. `event_type` and `schema_version` are never compared on receipt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct EventEnvelope {
    /// Names the event; a redelivery carries the same. The original makes up one where it is absent.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "Uuid"))]
    pub event_id: Option<Uuid>,
    /// The topic, such as huleedu.resource.consumption.v1.
    pub event_type: String,
    /// When it happened; the moment of reading where it is absent.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "Moment"))]
    pub event_timestamp: Option<Moment>,
    /// The service that wrote it.
    pub source_service: String,
    /// Version of the envelope.
    #[serde(default = "first_version")]
    pub schema_version: Integer,
    /// Follows the work through every service.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "Uuid"))]
    pub correlation_id: Option<Uuid>,
    /// Where a schema of the data lies, if anywhere.
    #[serde(default)]
    pub data_schema_uri: Option<String>,
    /// The event itself.
    pub data: Value,
    /// What goes beside it, such as org_id.
    #[serde(default)]
    pub metadata: Option<Map<String, Value>>,
}

/// A value that may be absent but not null.
fn present<'de, T: Deserialize<'de>, D: Deserializer<'de>>(from: D) -> Result<Option<T>, D::Error> {
    T::deserialize(from).map(Some)
}

fn first_version() -> Integer {
    Integer(1)
}

/// The events whose data have a type here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// BatchEssaysRegistered.
    BatchEssaysRegistered,
    /// ELS_CJAssessmentRequestV1.
    CjAssessmentRequested,
    /// ClientBatchPipelineRequestV1.
    PipelineRequested,
    /// ResourceConsumptionV1.
    ResourceConsumption,
    /// CreditBalanceChangedV1.
    CreditBalanceChanged,
    /// UsageRecordedV1.
    UsageRecorded,
    /// RateLimitExceededV1.
    RateLimitExceeded,
    /// PipelineDeniedV1.
    PipelineDenied,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Kind; 8] = [
        Kind::BatchEssaysRegistered,
        Kind::CjAssessmentRequested,
        Kind::PipelineRequested,
        Kind::ResourceConsumption,
        Kind::CreditBalanceChanged,
        Kind::UsageRecorded,
        Kind::RateLimitExceeded,
        Kind::PipelineDenied,
    ];

    /// The topic its events go to.
    pub fn topic(self) -> &'static str {
        match self {
            Kind::BatchEssaysRegistered => "huleedu.batch.essays.registered.v1",
            Kind::CjAssessmentRequested => "huleedu.els.cj_assessment.requested.v1",
            Kind::PipelineRequested => "huleedu.commands.batch.pipeline.v1",
            Kind::ResourceConsumption => "huleedu.resource.consumption.v1",
            Kind::CreditBalanceChanged => "huleedu.entitlements.credit.balance.changed.v1",
            Kind::UsageRecorded => "huleedu.entitlements.usage.recorded.v1",
            Kind::RateLimitExceeded => "huleedu.entitlements.rate_limit.exceeded.v1",
            Kind::PipelineDenied => "huleedu.pipeline.denied.v1",
        }
    }

    /// The event's own name, which for some is not the topic's.
    pub fn event_name(self) -> Option<&'static str> {
        match self {
            Kind::BatchEssaysRegistered => Some("batch.essays.registered"),
            Kind::CjAssessmentRequested => Some("els.cj_assessment.requested"),
            Kind::PipelineRequested => Some("client.batch.pipeline.request"),
            Kind::ResourceConsumption => Some("resource.consumption.reported"),
            Kind::PipelineDenied => Some("pipeline.denied"),
            _ => None,
        }
    }

    /// The kind an envelope holds: by its topic, by the event's name, with or without `huleedu.` and `.v1` (producers
    /// of contract H write both), else by the name inside the data.
    pub fn of(event_type: &str, data: &Value) -> Option<Kind> {
        let by_name = |name: &str| Kind::ALL.into_iter().find(|kind| kind.event_name() == Some(name));
        let by_topic = |topic: &str| Kind::ALL.into_iter().find(|kind| kind.topic() == topic);
        let bare = event_type.strip_prefix("huleedu.").unwrap_or(event_type);
        let bare = bare.strip_suffix(".v1").unwrap_or(bare);
        let inside = || data.get("event_name").or_else(|| data.get("event")).and_then(Value::as_str).and_then(by_name);
        by_topic(&format!("huleedu.{bare}.v1")).or_else(|| by_name(bare)).or_else(inside)
    }

    /// Whether only the extension's own functions publish it.
    pub fn is_reserved(self) -> bool {
        matches!(
            self,
            Kind::ResourceConsumption | Kind::CreditBalanceChanged | Kind::UsageRecorded | Kind::RateLimitExceeded
        )
    }
}
