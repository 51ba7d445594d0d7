//! Any text as an event envelope.
#![no_main]

#[path = "../checks/event.rs"]
mod checks;
#[allow(dead_code, unused_imports)]
#[path = "../../src/outbox/contract/mod.rs"]
mod contract;

use libfuzzer_sys::{Corpus, fuzz_target};

fuzz_target!(|data: &[u8]| -> Corpus { if checks::check(data) { Corpus::Keep } else { Corpus::Reject } });
