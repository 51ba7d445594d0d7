//! What must hold of any JSON taken for a key, for the fuzz target and for the smoke run of the unit tests: nothing may
//! panic, and a key that is taken must be fit for use. The parent module has `jose` in scope.

use super::jose::{Key, KeySet};

/// Judges any bytes as a key and as a set of keys; false where they are not even JSON.
pub fn check(data: &[u8]) -> bool {
    let Ok(value) = serde_json::from_slice(data) else { return false };
    if let Ok(key) = Key::from_jwk(&value) {
        is_fit_for_use(&key);
    }
    if let Ok(set) = KeySet::parse(&value) {
        assert!(!set.keys.is_empty());
        set.keys.iter().for_each(is_fit_for_use);
    }
    true
}

fn is_fit_for_use(key: &Key) {
    assert!(key.algorithms().next().is_some());
    for algorithm in key.algorithms() {
        for length in [0, 32, 64, 96, 256] {
            assert!(key.verify_signature(algorithm, b"input", &vec![1; length]).is_err(), "a signature was forged");
        }
    }
    if let Some(jwk) = key.public_jwk() {
        assert!(!key.is_symmetric());
        let again = Key::from_jwk(&jwk).expect("what we publish, we take");
        assert_eq!(again.thumbprint(), key.thumbprint());
        assert_eq!(again.public_jwk(), Some(jwk));
    }
}
