//! Any text as an event envelope. Nothing may panic; what is taken must be taken again as it was understood, and a
//! refusal must not repeat the document's own texts.
#![no_main]

#[allow(dead_code, unused_imports)]
#[path = "../../src/outbox/contract/mod.rs"]
mod contract;

use contract::{Model, python, read};
use libfuzzer_sys::{Corpus, fuzz_target};
use serde_json::Value;

fuzz_target!(|data: &[u8]| -> Corpus {
    let Ok(document) = serde_json::from_slice::<Value>(data) else { return Corpus::Reject };
    let canonical = python::json(&document);
    assert!(canonical.is_ascii(), "Python escapes what is beyond ASCII");
    assert!(serde_json::from_str::<Value>(&canonical).is_ok(), "the canonical text is not JSON");
    let _ = Model::BatchRegistration.normalize(&document, "invalid_request", "");
    match read(&document) {
        Ok(reading) => {
            assert_eq!(reading.body_sha256.len(), 64);
            let mut understood = serde_json::to_value(&reading.envelope).unwrap();
            understood["event_id"] = reading.event_id.to_string().into();
            understood["data"] = reading.data.clone();
            let again = read(&understood).expect("what was understood is understood again");
            assert_eq!((again.event_id, again.kind, &again.data), (reading.event_id, reading.kind, &reading.data));
        }
        Err(problem) => assert!(!problem.message.is_empty() && problem.message.len() < 2000),
    }
    Corpus::Keep
});
