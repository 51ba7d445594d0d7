//! Project Wycheproof's vectors. A strict verifier differs from their verdict in a few cases; each is pinned here by
//! its id with its reason, so that one more or one fewer fails.

use super::vectors;
use crate::identity::jose::reason::{KeyReason, Reason};
use crate::identity::jose::{Key, KeySet, Token};
use serde_json::Value;
use std::collections::BTreeMap;

/// What became of one case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Valid,
    Key(KeyReason),
    Token(Reason),
}

/// Signatures: cases where we differ from the file.
const SIGNATURES: [(u64, Verdict); 8] = [
    // The key says PS256, the token PS384.
    (346, Verdict::Token(Reason::AlgorithmMismatch)),
    (350, Verdict::Token(Reason::AlgorithmMismatch)),
    // The key says "ES521", which is no algorithm (and P-521 is not supported).
    (347, Verdict::Key(KeyReason::UnsupportedAlgorithm)),
    (351, Verdict::Key(KeyReason::UnsupportedAlgorithm)),
    // Byte for byte the same as 357, which is valid.
    (367, Verdict::Valid),
    (370, Verdict::Valid),
    // Illegal base64.
    (372, Verdict::Token(Reason::MalformedBase64)),
    (373, Verdict::Token(Reason::MalformedBase64)),
];

#[test]
fn json_web_signature() {
    let Some(file) = vectors("wycheproof/json_web_signature_test.json") else { return };
    let verdicts = run(&file, |key, jws| match Key::from_jwk(key) {
        Ok(key) => verify(&key, jws),
        Err(reason) => Verdict::Key(reason),
    });
    assert_eq!(verdicts.len(), 401);
    check(&verdicts, &BTreeMap::from(SIGNATURES));
}

#[test]
fn json_web_key() {
    let Some(file) = vectors("wycheproof/json_web_key_test.json") else { return };
    let verdicts = run(&file, |set, jws| match KeySet::parse(set) {
        Ok(set) => {
            let kid = Token::parse(jws).ok().and_then(|token| token.header().kid.clone());
            verify(set.keys.iter().find(|key| key.id() == kid.as_deref()).expect("the vectors' tokens name a key"), jws)
        }
        Err(reason) => Verdict::Key(reason),
    });
    assert_eq!(verdicts.len(), 26);
    check(&verdicts, &BTreeMap::new());
    let refused = |id: u64| verdicts[&id].1;
    assert_eq!(refused(1), Verdict::Key(KeyReason::MixedKeySet));
    assert_eq!(refused(4), Verdict::Key(KeyReason::DuplicateKid));
    assert_eq!(refused(7), Verdict::Key(KeyReason::RocaKey));
    for id in [8, 9, 10, 11, 12, 16, 17, 18] {
        assert_eq!(refused(id), Verdict::Key(KeyReason::WeakKey), "{id}");
    }
    assert_eq!(refused(22), Verdict::Key(KeyReason::InvalidKey));
}

fn verify(key: &Key, jws: &str) -> Verdict {
    match Token::parse(jws).and_then(|token| key.verify(&token)) {
        Ok(()) => Verdict::Valid,
        Err(reason) => Verdict::Token(reason),
    }
}

/// Each case's id, what the file says, and what we say. The key is the group's public one, else its secret.
fn run(file: &Value, judge: impl Fn(&Value, &str) -> Verdict) -> BTreeMap<u64, (bool, Verdict)> {
    let mut verdicts = BTreeMap::new();
    for group in file["testGroups"].as_array().expect("groups") {
        let key = group.get("public").unwrap_or(&group["private"]);
        for case in group["tests"].as_array().expect("tests") {
            // A few cases are JWS JSON serialisations: an object where a token should be.
            let jws = case["jws"].as_str().map_or_else(|| case["jws"].to_string(), str::to_owned);
            let id = case["tcId"].as_u64().expect("an id");
            verdicts.insert(id, (case["result"] == "valid", judge(key, &jws)));
        }
    }
    verdicts
}

fn check(verdicts: &BTreeMap<u64, (bool, Verdict)>, pinned: &BTreeMap<u64, Verdict>) {
    let different: BTreeMap<u64, Verdict> = verdicts
        .iter()
        .filter(|(_, (valid, verdict))| *valid != (*verdict == Verdict::Valid))
        .map(|(id, (_, verdict))| (*id, *verdict))
        .collect();
    assert_eq!(&different, pinned);
}
