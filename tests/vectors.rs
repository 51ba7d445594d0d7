//! Test vectors nobody here wrote, through SQL as a user would run them. They are not part of the repository: where
//! they are absent the test says so and is skipped.

mod common;

use common::{ISSUER, cluster, shared_json};
use postgres::Client;
use serde_json::Value;
use std::collections::BTreeMap;

/// Whether the database accepts a signature: a key that is refused (22023) accepts nothing.
fn accepts(client: &mut Client, key: &Value, jws: &str) -> bool {
    match client.query_one("SELECT tenancy.jws_verify($1, $2)", &[key, &jws]) {
        Ok(row) => row.get(0),
        Err(error) => {
            let error = error.as_db_error().expect("an error of the server");
            assert_eq!(error.code().code(), "22023", "{error:?}");
            false
        }
    }
}

/// The ids of the cases whose verdict differs from the file's, with ours.
fn differences(file: &Value, mut judge: impl FnMut(&Value, &str) -> bool) -> (usize, BTreeMap<u64, bool>) {
    let mut differing = BTreeMap::new();
    let mut count = 0;
    for group in file["testGroups"].as_array().expect("groups") {
        let key = group.get("public").unwrap_or(&group["private"]);
        for case in group["tests"].as_array().expect("tests") {
            count += 1;
            // A few cases are JSON serialisations: an object where a token should be.
            let jws = case["jws"].as_str().map_or_else(|| case["jws"].to_string(), str::to_owned);
            let ours = judge(key, &jws);
            if ours != (case["result"] == "valid") {
                differing.insert(case["tcId"].as_u64().expect("an id"), ours);
            }
        }
    }
    (count, differing)
}

#[test]
fn wycheproof_signatures() {
    let Some(file) = shared_json("vectors/wycheproof/json_web_signature_test.json") else { return };
    let database = cluster().database();
    let mut client = database.connect("app");
    let (count, differing) = differences(&file, |key, jws| accepts(&mut client, key, jws));
    assert_eq!(count, 401);
    // 346, 350: the key's alg is not the header's. 347, 351: the key's alg is "ES521", which is none. 372, 373: illegal
    // base64 marked valid. 367, 370: byte for byte the valid 357.
    let refused = [346, 347, 350, 351, 372, 373].map(|id| (id, false));
    let accepted = [367, 370].map(|id| (id, true));
    assert_eq!(differing, refused.into_iter().chain(accepted).collect());
}

#[test]
fn wycheproof_keys() {
    let Some(file) = shared_json("vectors/wycheproof/json_web_key_test.json") else { return };
    let database = cluster().database();
    let mut client = database.connect("app");
    let (count, differing) = differences(&file, |set, jws| accepts(&mut client, set, jws));
    assert_eq!(count, 26);
    assert_eq!(differing, BTreeMap::new(), "ROCA (case 7) is detected");
}

#[test]
fn wycheproof_public_keys_are_added_or_refused_as_they_verify() {
    let Some(file) = shared_json("vectors/wycheproof/json_web_signature_test.json") else { return };
    let database = cluster().database();
    let mut ops = database.connect("ops");
    let mut added = 0;
    for group in file["testGroups"].as_array().expect("groups") {
        let Some(key) = group.get("public") else { continue };
        let any_valid = group["tests"]
            .as_array()
            .expect("tests")
            .iter()
            .any(|case| accepts(&mut ops, key, case["jws"].as_str().unwrap_or("")));
        let mut transaction = ops.transaction().unwrap();
        let result = transaction.query_one("SELECT tenancy.add_key($1, $2)", &[&ISSUER, key]);
        match result {
            Ok(_) => added += 1,
            Err(error) => {
                let error = error.as_db_error().expect("an error of the server");
                assert_eq!(error.code().code(), "22023", "{error:?}");
                assert!(!any_valid, "a key that verifies must be one that can be added: {error:?}");
            }
        }
        transaction.rollback().unwrap();
    }
    assert!(added > 5, "only {added} keys were added");
}

#[test]
fn rfc_examples_verify() {
    let Some(file) = shared_json("vectors/rfc_jose.json") else { return };
    let database = cluster().database();
    let mut client = database.connect("app");
    for (name, case) in file.as_object().expect("an object") {
        let jws = case["jws"].as_str().expect("a token");
        assert!(accepts(&mut client, &case["jwk"], jws), "{name}");
        let (input, signature) = jws.rsplit_once('.').expect("three parts");
        let flipped = if signature.starts_with('A') { "B" } else { "A" };
        assert!(
            !accepts(&mut client, &case["jwk"], &format!("{input}.{flipped}{}", &signature[1..])),
            "{name}, changed"
        );
    }
}
