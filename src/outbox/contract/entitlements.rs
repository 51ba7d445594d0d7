//! What was consumed, and what became of the credits.

use super::lax::{Float, Integer, Moment, Scalar};
use super::name::EventName;
use serde::{Deserialize, Deserializer, Serialize, de};

/// ResourceConsumptionV1: what was used, by whom, on whose account. Empty texts are valid.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ResourceConsumptionV1 {
    /// The event's name.
    #[serde(default = "consumption_reported")]
    pub event_name: EventName,
    /// What the work was done for: a batch's id where entity_type is batch.
    #[serde(default)]
    pub entity_id: Option<String>,
    /// Kind of the entity.
    #[serde(default)]
    pub entity_type: Option<String>,
    /// What the entity belongs to.
    #[serde(default)]
    pub parent_id: Option<String>,
    /// When the event was made.
    #[serde(default = "Moment::now")]
    pub timestamp: Moment,
    /// Who the work was done for.
    pub user_id: String,
    /// The organization that pays, if any.
    #[serde(default)]
    pub org_id: Option<String>,
    /// The metric, such as cj_comparison.
    pub resource_type: String,
    /// How many.
    pub quantity: Count,
    /// The service that did the work.
    pub service_name: String,
    /// Its job.
    pub processing_id: String,
    /// When it was consumed.
    #[serde(default = "Moment::now")]
    pub consumed_at: Moment,
}

fn consumption_reported() -> EventName {
    EventName("resource.consumption.reported".to_owned())
}

/// A number of things: an integer, 0 or more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Count(#[cfg_attr(test, schemars(range(min = 0)))] pub i64);

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        match Integer::deserialize(from)? {
            Integer(count) if count >= 0 => Ok(Count(count)),
            _ => Err(de::Error::custom("must be 0 or more")),
        }
    }
}

/// Whose credits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct SubjectRefV1 {
    /// An organization or a user.
    #[serde(rename = "type")]
    pub kind: SubjectType,
    /// Its external id.
    pub id: String,
}

/// Kind of a subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub enum SubjectType {
    /// An organization.
    Org,
    /// A user.
    User,
}

/// CreditBalanceChangedV1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct CreditBalanceChangedV1 {
    /// Whose balance.
    pub subject: SubjectRefV1,
    /// By how much, negative for a charge.
    pub delta: Credits,
    /// The balance after it.
    pub new_balance: Credits,
    /// Why.
    pub reason: String,
    /// Follows the work.
    pub correlation_id: String,
}

/// An amount of credits: whole in contract H; here a metric may also cost a fraction of a credit, and nothing is rounded.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Credits {
    /// Whole credits.
    Whole(i64),
    /// Others.
    Fraction(f64),
}

impl<'de> Deserialize<'de> for Credits {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Scalar(
            |found| match Integer::read(found) {
                Ok(Integer(whole)) => Ok(Credits::Whole(whole)),
                Err(_) => Float::read(found).map(|Float(value)| Credits::Fraction(value)),
            },
            "a number",
        ))
    }
}

#[cfg(test)]
impl schemars::JsonSchema for Credits {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Credits".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"type": "number"})
    }
}

/// UsageRecordedV1.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct UsageRecordedV1 {
    /// Who used it.
    pub subject: SubjectRefV1,
    /// What was used.
    pub metric: String,
    /// How much.
    #[serde(default = "one")]
    pub amount: Integer,
    /// Begin of the period it counts in.
    pub period_start: Moment,
    /// Its end.
    pub period_end: Moment,
    /// Follows the work.
    pub correlation_id: String,
}

fn one() -> Integer {
    Integer(1)
}

/// RateLimitExceededV1.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct RateLimitExceededV1 {
    /// Who asked for too much.
    pub subject: SubjectRefV1,
    /// Of what.
    pub metric: String,
    /// How many are allowed.
    pub limit: Integer,
    /// Within how many seconds.
    pub window_seconds: Integer,
    /// Follows the work.
    pub correlation_id: String,
}
