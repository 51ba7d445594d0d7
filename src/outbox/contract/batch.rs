//! Batches: how they are registered, and what goes out about them.

use super::lax::{Float, Integer, Moment};
use super::name::EventName;
use super::text::Bounded;
use serde::{Deserialize, Deserializer, Serialize, de};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// BatchRegistrationRequestV1: what a gateway asks for a batch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct BatchRegistrationRequestV1 {
    /// How many essays the batch is to have, at least 1.
    pub expected_essay_count: Positive,
    /// As many ids as essays are expected; accepted and never used: the database makes its own.
    #[serde(default)]
    #[cfg_attr(test, schemars(length(min = 1)))]
    pub essay_ids: Option<Vec<String>>,
    /// The course.
    pub course_code: CourseCode,
    /// Where the prompt the students answered is stored.
    #[serde(default)]
    pub student_prompt_ref: Option<StorageReferenceMetadata>,
    /// Who owns the batch.
    pub user_id: String,
    /// The organization it is attributed to.
    #[serde(default)]
    pub org_id: Option<String>,
    /// The class; none for a guest batch.
    #[serde(default)]
    pub class_id: Option<String>,
    /// Language model of the comparative judgement.
    #[serde(default)]
    pub cj_default_llm_model: Option<String>,
    /// Its temperature, 0 to 2.
    #[serde(default)]
    pub cj_default_temperature: Option<Temperature>,
    /// The assignment, whose anchors calibrate grades.
    #[serde(default)]
    pub assignment_id: Option<Bounded<0, 100>>,
}

impl BatchRegistrationRequestV1 {
    /// What no single member can say.
    pub fn check(&self) -> Result<(), &'static str> {
        let count = self.essay_ids.as_ref().map(|ids| i64::try_from(ids.len()).unwrap_or(i64::MAX));
        match count {
            Some(count) if count != self.expected_essay_count.0 => {
                Err("the length of essay_ids must be expected_essay_count")
            }
            _ => Ok(()),
        }
    }
}

/// The courses contract H knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[allow(missing_docs)]
pub enum CourseCode {
    Eng5,
    Eng6,
    Eng7,
    Sv1,
    Sv2,
    Sv3,
}

/// A temperature from 0 to 2.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(transparent)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Temperature(#[cfg_attr(test, schemars(range(min = 0.0, max = 2.0)))] pub f64);

impl<'de> Deserialize<'de> for Temperature {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let Float(value) = Float::deserialize(from)?;
        if (0.0..=2.0).contains(&value) {
            Ok(Temperature(value))
        } else {
            Err(de::Error::custom("must be between 0 and 2"))
        }
    }
}

/// Where content is stored: for each kind of content its storage id and path.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct StorageReferenceMetadata {
    /// By kind of content, such as student_prompt_text.
    #[serde(default)]
    pub references: BTreeMap<String, BTreeMap<String, String>>,
}

/// BatchEssaysRegistered: a batch and its slots.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct BatchEssaysRegistered {
    /// The event's name.
    #[serde(default = "essays_registered")]
    pub event: EventName,
    /// The batch.
    pub entity_id: String,
    /// How many essays it is to have.
    pub expected_essay_count: Integer,
    /// Their ids.
    pub essay_ids: Vec<String>,
    /// Where it stands.
    pub metadata: SystemProcessingMetadata,
    /// The course.
    pub course_code: CourseCode,
    /// Where the prompt is stored.
    #[serde(default)]
    pub student_prompt_ref: Option<StorageReferenceMetadata>,
    /// Who owns the batch.
    pub user_id: String,
    /// The organization it is attributed to.
    #[serde(default)]
    pub org_id: Option<String>,
    /// The class.
    #[serde(default)]
    pub class_id: Option<String>,
}

fn essays_registered() -> EventName {
    EventName("batch.essays.registered".to_owned())
}

/// SystemProcessingMetadata.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct SystemProcessingMetadata {
    /// What is processed.
    pub entity_id: String,
    /// Its kind.
    pub entity_type: String,
    /// What it belongs to.
    #[serde(default)]
    pub parent_id: Option<String>,
    /// When this was written.
    #[serde(default = "Moment::now")]
    pub timestamp: Moment,
    /// How far it is.
    #[serde(default)]
    pub processing_stage: Option<ProcessingStage>,
    /// When it began.
    #[serde(default)]
    pub started_at: Option<Moment>,
    /// When it ended.
    #[serde(default)]
    pub completed_at: Option<Moment>,
    /// The event's name.
    #[serde(default)]
    pub event: Option<String>,
    /// What went wrong, if anything.
    #[serde(default)]
    pub error_info: Map<String, Value>,
}

/// How far something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[allow(missing_docs)]
pub enum ProcessingStage {
    Pending,
    Initialized,
    Processing,
    Completed,
    Failed,
    Cancelled,
}

/// ELS_CJAssessmentRequestV1: essays to be compared.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(rename = "ELS_CJAssessmentRequestV1"))]
pub struct CjAssessmentRequestV1 {
    /// The event's name.
    #[serde(default = "cj_requested")]
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
    /// Where the batch stands.
    pub system_metadata: SystemProcessingMetadata,
    /// The essays.
    pub essays_for_cj: Vec<EssayForCj>,
    /// en or sv.
    pub language: String,
    /// The course.
    pub course_code: CourseCode,
    /// Where the prompt is stored.
    #[serde(default)]
    pub student_prompt_ref: Option<StorageReferenceMetadata>,
    /// What to use instead of the defaults.
    #[serde(default)]
    pub llm_config_overrides: Option<LlmConfigOverrides>,
    /// The assignment.
    #[serde(default)]
    pub assignment_id: Option<Bounded<0, 100>>,
    /// Who asked.
    pub user_id: String,
    /// The organization that pays.
    #[serde(default)]
    pub org_id: Option<String>,
}

fn cj_requested() -> EventName {
    EventName("els.cj_assessment.requested".to_owned())
}

/// One essay to be compared.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct EssayForCj {
    /// The essay.
    pub essay_id: String,
    /// Where its text is stored.
    pub text_storage_id: String,
    /// Figures of its spelling.
    #[serde(default)]
    pub spellcheck_metrics: Option<Map<String, Value>>,
}

/// What a comparison uses instead of the defaults.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct LlmConfigOverrides {
    /// The model.
    #[serde(default)]
    pub model_override: Option<String>,
    /// Its temperature.
    #[serde(default)]
    pub temperature_override: Option<Temperature>,
    /// The longest answer.
    #[serde(default)]
    pub max_tokens_override: Option<Positive>,
    /// The provider.
    #[serde(default)]
    pub provider_override: Option<String>,
    /// The instruction to the model.
    #[serde(default)]
    pub system_prompt_override: Option<String>,
}

/// An integer above 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Positive(#[cfg_attr(test, schemars(range(min = 1)))] pub i64);

impl<'de> Deserialize<'de> for Positive {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        match Integer::deserialize(from)? {
            Integer(value) if value > 0 => Ok(Positive(value)),
            _ => Err(de::Error::custom("must be greater than 0")),
        }
    }
}
