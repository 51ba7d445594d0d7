//! Any text as a token: parsed, its claims judged, its signature tried.
#![no_main]

#[path = "../checks/token.rs"]
mod checks;
#[allow(dead_code, unused_imports)]
#[path = "../../src/identity/jose/mod.rs"]
mod jose;

use libfuzzer_sys::{Corpus, fuzz_target};

fuzz_target!(|data: &[u8]| -> Corpus { if checks::check(data) { Corpus::Keep } else { Corpus::Reject } });
