//! A set of keys (RFC 7517 §5), as a provider publishes it.

use super::key::Key;
use super::reason::KeyReason;
use serde_json::Value;
use std::collections::HashSet;

/// The keys of a set that can verify signatures.
#[derive(Debug)]
pub struct KeySet {
    /// Each with a `kid`, or a thumbprint to go by; no two the same.
    pub keys: Vec<Key>,
    /// Keys that are not for us, with their `kid` and the reason: for encryption, or of an unknown type or algorithm.
    /// Providers publish such keys beside the others, and RFC 7517 §5 says to ignore them.
    pub skipped: Vec<(Option<String>, KeyReason)>,
}

impl KeySet {
    /// Reads `{"keys": […]}`. One bad key spoils the set, since a set is replaced in one step or not at all: private,
    /// weak or malformed keys, duplicate ids, and symmetric keys beside public ones are refused.
    pub fn parse(value: &Value) -> Result<KeySet, KeyReason> {
        let members = value.get("keys").and_then(Value::as_array).ok_or(KeyReason::InvalidJwk)?;
        let symmetric = members.iter().filter(|member| member.get("kty").is_some_and(|kty| kty == "oct")).count();
        if symmetric != 0 && symmetric != members.len() {
            return Err(KeyReason::MixedKeySet);
        }
        let kids = members.iter().filter_map(|member| member.get("kid").and_then(Value::as_str));
        if has_duplicates(kids) {
            return Err(KeyReason::DuplicateKid);
        }
        let mut set = KeySet { keys: Vec::new(), skipped: Vec::new() };
        for member in members {
            match Key::from_jwk(member) {
                Ok(key) => set.keys.push(key),
                Err(reason @ (KeyReason::UnsupportedKey | KeyReason::UnsupportedAlgorithm | KeyReason::WrongUse)) => {
                    let kid = member.get("kid").and_then(Value::as_str).map(str::to_owned);
                    set.skipped.push((kid, reason));
                }
                Err(reason) => return Err(reason),
            }
        }
        if has_duplicates(set.keys.iter().filter_map(Key::id)) {
            return Err(KeyReason::DuplicateKid);
        }
        if set.keys.is_empty() { Err(KeyReason::EmptyKeySet) } else { Ok(set) }
    }
}

fn has_duplicates<'a>(mut ids: impl Iterator<Item = &'a str>) -> bool {
    let mut seen = HashSet::new();
    !ids.all(|id| seen.insert(id))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const X: &str = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
    const K: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

    fn ed(kid: &str) -> Value {
        json!({"kty": "OKP", "crv": "Ed25519", "x": X, "kid": kid})
    }

    fn parse(keys: &[Value]) -> Result<KeySet, KeyReason> {
        KeySet::parse(&json!({ "keys": keys }))
    }

    #[test]
    fn keys_that_are_not_for_us_are_skipped() {
        let enc = json!({"kty": "RSA", "use": "enc", "alg": "RSA-OAEP", "kid": "enc", "n": "AQ", "e": "AQAB"});
        let unknown = json!({"kty": "LMS", "kid": "future"});
        let set = parse(&[enc, ed("a"), unknown]).unwrap();
        assert_eq!(set.keys.len(), 1);
        assert_eq!(set.keys[0].id(), Some("a"));
        let reasons: Vec<_> = set.skipped.iter().map(|(kid, reason)| (kid.as_deref(), *reason)).collect();
        assert_eq!(reasons, [(Some("enc"), KeyReason::WrongUse), (Some("future"), KeyReason::UnsupportedKey)]);
    }

    #[test]
    fn attack_25_duplicate_ids_and_mixed_sets_are_refused() {
        assert_eq!(parse(&[ed("a"), ed("a")]).unwrap_err(), KeyReason::DuplicateKid);
        let without = json!({"kty": "OKP", "crv": "Ed25519", "x": X});
        assert_eq!(parse(&[without.clone(), without]).unwrap_err(), KeyReason::DuplicateKid);
        let secret = json!({"kty": "oct", "k": K, "kid": "s"});
        assert_eq!(parse(&[ed("a"), secret]).unwrap_err(), KeyReason::MixedKeySet);
    }

    #[test]
    fn one_bad_key_spoils_the_set() {
        let private = json!({"kty": "OKP", "crv": "Ed25519", "x": X, "d": X, "kid": "p"});
        assert_eq!(parse(&[ed("a"), private]).unwrap_err(), KeyReason::PrivateKey);
        assert_eq!(parse(&[]).unwrap_err(), KeyReason::EmptyKeySet);
        for set in [json!({}), json!([]), json!({"keys": {}}), json!({"keys": [1]})] {
            assert_eq!(KeySet::parse(&set).unwrap_err(), KeyReason::InvalidJwk, "{set}");
        }
    }
}
