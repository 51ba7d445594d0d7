//! The names of events.

use serde::{Deserialize, Deserializer, Serialize, de};

/// The name of an event that contract H knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct EventName(pub String);

impl<'de> Deserialize<'de> for EventName {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let name = String::deserialize(from)?;
        if EVENT_NAMES.contains(&name.as_str()) {
            Ok(EventName(name))
        } else {
            Err(de::Error::custom("is not the name of an event"))
        }
    }
}

/// Every name of contract H.
pub const EVENT_NAMES: &[&str] = &[
    "batch.essays.registered",
    "batch.essays.ready",
    "batch.pipeline.completed",
    "batch.phase.skipped",
    "essay.phase.initiation.requested",
    "essay.lifecycle.state.updated",
    "essay.slot.assigned",
    "essay.content.provisioned",
    "excess.content.provisioned",
    "essay.validation.failed",
    "batch.content.provisioning.completed",
    "batch.student.matching.initiate.command",
    "batch.student.matching.requested",
    "batch.spellcheck.initiate.command",
    "batch.cj_assessment.initiate.command",
    "batch.ai_feedback.initiate.command",
    "batch.nlp.initiate.command",
    "els.batch.phase.outcome",
    "batch.validation.errors",
    "client.batch.pipeline.request",
    "pipeline.denied",
    "essay.spellcheck.completed",
    "essay.spellcheck.requested",
    "spellcheck.phase.completed",
    "spellcheck.results",
    "batch.nlp.processing.requested",
    "els.cj_assessment.requested",
    "cj_assessment.completed",
    "cj_assessment.failed",
    "essay.nlp.completed",
    "batch.nlp.analysis.completed",
    "batch.author.matches.suggested",
    "essay.aifeedback.completed",
    "essay.editor_revision.completed",
    "essay.grammar.completed",
    "essay.student.association.updated",
    "batch.file.added",
    "batch.file.removed",
    "class.created",
    "class.updated",
    "student.created",
    "student.updated",
    "student.associations.confirmed",
    "validation.timeout.processed",
    "teacher.notification.requested",
    "batch.results.ready",
    "batch.assessment.completed",
    "assessment.result.published",
    "processing.started",
    "processing.concluded",
    "processing.failed",
    "llm_provider.request.started",
    "llm_provider.request.completed",
    "llm_provider.failure",
    "llm_provider.usage.analytics",
    "llm_provider.cost.alert",
    "llm_provider.cost.tracking",
    "llm_provider.comparison_result",
    "resource.consumption.reported",
    "identity.user.registered",
    "identity.email.verification.requested",
    "identity.email.verified",
    "identity.password.reset.requested",
    "identity.password.reset.completed",
    "identity.login.succeeded",
    "identity.login.failed",
    "email.notification.requested",
    "email.sent",
    "email.delivery_failed",
    "entitlements.subscription.activated",
    "entitlements.subscription.changed",
    "entitlements.subscription.canceled",
    "entitlements.usage.authorized",
    "entitlements.usage.recorded",
    "entitlements.credit.balance.changed",
    "entitlements.rate_limit.exceeded",
    "entitlements.resource.access.granted",
];
