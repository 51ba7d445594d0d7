//! Any value of a type equals itself after it was written and read; nothing that can be written makes the reader fail
//! in another way than with a problem. Proptest prints the seed of a failure.

use super::super::lax::Moment;
use super::super::{Kind, python, reading::read};
use super::values;
use proptest::prelude::*;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use std::fmt::Debug;

fn comes_back<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: &T) -> Result<Value, TestCaseError> {
    let text = serde_json::to_string(value).unwrap();
    prop_assert_eq!(&serde_json::from_str::<T>(&text).unwrap(), value);
    Ok(serde_json::from_str(&text).unwrap())
}

/// The same as the data of an event: the envelope is read, and its data are what was written.
fn comes_back_in_an_event<T>(kind: Kind, value: &T) -> Result<(), TestCaseError>
where
    T: Serialize + DeserializeOwned + PartialEq + Debug,
{
    let data = comes_back(value)?;
    let event = json!({"event_type": kind.topic(), "source_service": "s", "data": data});
    let reading = read(&event).unwrap();
    prop_assert_eq!(reading.kind, Some(kind));
    prop_assert_eq!(reading.data, data);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn a_registration(value in values::registration()) {
        comes_back(&value)?;
    }

    #[test]
    fn an_announcement_of_essays(value in values::essays_registered()) {
        comes_back_in_an_event(Kind::BatchEssaysRegistered, &value)?;
    }

    #[test]
    fn an_assessment_request(value in values::assessment()) {
        comes_back_in_an_event(Kind::CjAssessmentRequested, &value)?;
    }

    #[test]
    fn a_pipeline_request(value in values::pipeline_request()) {
        comes_back_in_an_event(Kind::PipelineRequested, &value)?;
    }

    #[test]
    fn a_denied_pipeline(value in values::denied()) {
        comes_back_in_an_event(Kind::PipelineDenied, &value)?;
    }

    #[test]
    fn a_consumption(value in values::consumption()) {
        comes_back_in_an_event(Kind::ResourceConsumption, &value)?;
    }

    #[test]
    fn a_changed_balance(value in values::balance_changed()) {
        comes_back_in_an_event(Kind::CreditBalanceChanged, &value)?;
    }

    #[test]
    fn a_recorded_usage(value in values::usage()) {
        comes_back_in_an_event(Kind::UsageRecorded, &value)?;
    }

    #[test]
    fn an_exceeded_limit(value in values::limit_exceeded()) {
        comes_back_in_an_event(Kind::RateLimitExceeded, &value)?;
    }

    #[test]
    fn an_envelope(value in values::envelope()) {
        comes_back(&value)?;
    }

    #[test]
    fn a_moment(moment in values::moment()) {
        prop_assert_eq!(Moment::parse(&moment.to_string()), Some(moment));
    }

    #[test]
    fn any_document_is_read_or_refused_and_its_text_is_json(document in values::json()) {
        let _ = read(&document);
        prop_assert_eq!(serde_json::from_str::<Value>(&python::json(&document)).unwrap(), document);
    }
}
