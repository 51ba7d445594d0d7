//! Any JSON as a key, and as a set of keys.
#![no_main]

#[path = "../checks/jwk.rs"]
mod checks;
#[allow(dead_code, unused_imports)]
#[path = "../../src/identity/jose/mod.rs"]
mod jose;

use libfuzzer_sys::{Corpus, fuzz_target};

fuzz_target!(|data: &[u8]| -> Corpus { if checks::check(data) { Corpus::Keep } else { Corpus::Reject } });
