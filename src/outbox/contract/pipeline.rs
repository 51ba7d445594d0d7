//! Pipelines on a batch: what is asked for, and what is denied.

use super::entitlements::Credits;
use super::lax::{Boolean, Integer, Moment};
use super::name::EventName;
use super::text::Bounded;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// ClientBatchPipelineRequestV1: a user asks for a pipeline on a batch. The organization stands in the envelope's metadata.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ClientBatchPipelineRequestV1 {
    /// The batch.
    pub batch_id: Bounded<1, 255, true>,
    /// The pipeline's last phase, such as ai_feedback or cj_assessment.
    pub requested_pipeline: Bounded<1, 100, true>,
    /// The client's correlation id; made up where it is absent.
    #[serde(default = "uuid::Uuid::now_v7")]
    pub client_correlation_id: uuid::Uuid,
    /// Who asks.
    pub user_id: Bounded<1, 255, true>,
    /// Whether it was asked before.
    #[serde(default)]
    pub is_retry: Boolean,
    /// Why it is asked again.
    #[serde(default)]
    pub retry_reason: Option<Bounded<0, 500, true>>,
}

/// PipelineDeniedV1: a pipeline that was not begun, for want of credits or because a limit is reached.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct PipelineDeniedV1 {
    /// The event's name.
    #[serde(default = "pipeline_denied")]
    pub event_name: EventName,
    /// The batch.
    #[serde(default)]
    pub entity_id: Option<String>,
    /// The word batch.
    #[serde(default)]
    pub entity_type: Option<String>,
    /// What it belongs to.
    #[serde(default)]
    pub parent_id: Option<String>,
    /// When the event was made.
    #[serde(default = "Moment::now")]
    pub timestamp: Moment,
    /// The batch.
    pub batch_id: String,
    /// Who asked.
    pub user_id: String,
    /// The organization it would have been charged to.
    #[serde(default)]
    pub org_id: Option<String>,
    /// The pipeline that was asked for.
    pub requested_pipeline: String,
    /// insufficient_credits or rate_limit_exceeded.
    pub denial_reason: String,
    /// What the pipeline would have cost.
    pub required_credits: Credits,
    /// What was there.
    pub available_credits: Credits,
    /// Units by metric.
    #[serde(default)]
    pub resource_breakdown: Option<BTreeMap<String, Integer>>,
    /// When it was denied.
    #[serde(default = "Moment::now")]
    pub denied_at: Moment,
}

fn pipeline_denied() -> EventName {
    EventName("pipeline.denied".to_owned())
}
