//! What must hold of any text taken for an event, for the fuzz target and for the smoke run of the unit tests: nothing may
//! panic, and what is taken is taken again as it was understood. The parent module has `contract` in scope.

use super::contract::{Model, python, read};
use serde_json::Value;

/// Judges any bytes as an envelope and as a registration; false where they are not even JSON.
pub fn check(data: &[u8]) -> bool {
    let Ok(document) = serde_json::from_slice::<Value>(data) else { return false };
    let canonical = python::json(&document);
    assert!(canonical.is_ascii(), "Python escapes what is beyond ASCII");
    assert!(serde_json::from_str::<Value>(&canonical).is_ok(), "the canonical text is not JSON");
    let _ = Model::BatchRegistration.normalize(&document, "invalid_request", "");
    match read(&document) {
        Ok(reading) => {
            assert_eq!(reading.body_sha256.len(), 64);
            let mut understood = serde_json::to_value(&reading.envelope).expect("an envelope is JSON");
            understood["event_id"] = reading.event_id.to_string().into();
            understood["data"] = reading.data.clone();
            let again = read(&understood).expect("what was understood is understood again");
            assert_eq!((again.event_id, again.kind, &again.data), (reading.event_id, reading.kind, &reading.data));
        }
        Err(problem) => assert!(!problem.reason.is_empty() && !problem.message.is_empty()),
    }
    true
}
