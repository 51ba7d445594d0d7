//! A hostile bearer: tokens that must not open a session, through SQL as an ordinary role. The numbers are those of the
//! catalogue of attacks (docs/security-cases.md); the parsers' own tests (attack_NN_…) stand beside them in src/identity/jose.

mod common;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use common::{AUDIENCE, Database, ISSUER, KEY_ID, SECRET, Token, base64url, cluster, fails_with, hs256, jws, refused};
use postgres::Client;
use serde_json::{Value, json};

fn reason(client: &mut Client, token: &str) -> Option<String> {
    client.query_one("SELECT reason FROM tenancy.verify_token($1)", &[&token]).expect("it raises nothing").get(0)
}

/// Refused with this reason by verify_token, and so by authenticate.
#[track_caller]
fn no_entry(client: &mut Client, token: &str, expected: &str) {
    assert_eq!(reason(client, token).as_deref(), Some(expected), "{token}");
    refused(client.query_one("SELECT tenancy.authenticate($1)", &[&token]), "PT401", expected);
}

fn claims() -> String {
    Token::for_user("alice").claims().to_string()
}

/// Signed with the harness's secret whatever the header says.
fn headed(header: Value) -> String {
    jws(&header.to_string(), &claims(), |input| hs256(SECRET, input))
}

fn claiming(payload: &str) -> String {
    jws(&json!({"alg": "HS256", "kid": KEY_ID}).to_string(), payload, |input| hs256(SECRET, input))
}

/// The payload with a member put before its others.
fn with_member(member: &str) -> String {
    format!("{{{member},{}", &claims()[1..])
}

fn add_key(database: &Database, jwk: &Value) -> Result<u64, postgres::Error> {
    database.connect("ops").execute("SELECT tenancy.add_key($1, $2)", &[&ISSUER, jwk])
}

/// A P-256 key of this run and its public JWK.
fn ec_key() -> (EcdsaKeyPair, EcdsaKeyPair, Value) {
    let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new()).unwrap();
    let fixed = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document.as_ref()).unwrap();
    let asn1 = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, document.as_ref()).unwrap();
    let point = fixed.public_key().as_ref();
    let jwk = json!({"kty": "EC", "crv": "P-256", "kid": "ec-1", "x": base64url(&point[1..33]), "y": base64url(&point[33..])});
    (fixed, asn1, jwk)
}

#[test]
fn identity_21_algorithm_none_is_refused_in_any_case() {
    let database = cluster().database();
    let mut client = database.connect("app");
    for name in ["none", "None", "NONE", "nOnE"] {
        let header = json!({"alg": name, "kid": KEY_ID}).to_string();
        no_entry(&mut client, &jws(&header, &claims(), |_| Vec::new()), "algorithm_none");
        no_entry(&mut client, &headed(json!({"alg": name})), "algorithm_none");
    }
    no_entry(&mut client, &headed(json!({"alg": "hs256", "kid": KEY_ID})), "unknown_algorithm");
    no_entry(&mut client, &headed(json!({"kid": KEY_ID})), "malformed_header");
}

#[test]
fn identity_22_a_public_key_is_never_an_hmac_secret() {
    let database = cluster().database();
    let mut client = database.connect("app");
    let (signing, _, jwk) = ec_key();
    add_key(&database, &jwk).unwrap();
    let header = json!({"alg": "ES256", "kid": "ec-1"}).to_string();
    let sign = |input: &[u8]| signing.sign(&SystemRandom::new(), input).unwrap().as_ref().to_vec();
    assert_eq!(reason(&mut client, &jws(&header, &claims(), sign)), None, "the key is good for what it is");
    let confused = json!({"alg": "HS256", "kid": "ec-1"}).to_string();
    let point = signing.public_key().as_ref();
    for secret in [point, &point[1..], jwk.to_string().as_bytes(), jwk["x"].as_str().unwrap().as_bytes(), b""] {
        no_entry(&mut client, &jws(&confused, &claims(), |input| hs256(secret, input)), "algorithm_mismatch");
    }
    // Without a kid the algorithm chooses among the keys, and an EC key is none of HMAC's.
    let unnamed = json!({"alg": "HS256"}).to_string();
    no_entry(&mut client, &jws(&unnamed, &claims(), |input| hs256(point, input)), "invalid_signature");
    no_entry(&mut client, &headed(json!({"alg": "ES256", "kid": KEY_ID})), "algorithm_mismatch");
}

#[test]
fn identity_23_a_key_in_the_token_is_refused() {
    let database = cluster().database();
    let mut client = database.connect("app");
    for (name, value) in [
        ("jwk", json!({"kty": "oct", "k": base64url(SECRET)})),
        ("jku", json!("https://mallory.test/jwks.json")),
        ("x5u", json!("https://mallory.test/cert.pem")),
        ("x5c", json!(["MIIB"])),
        ("jwk", Value::Null),
    ] {
        no_entry(&mut client, &headed(json!({"alg": "HS256", "kid": KEY_ID, name: value})), "embedded_key");
    }
}

#[test]
fn identity_24_a_kid_is_matched_exactly_within_its_issuer() {
    let database = cluster().database();
    let mut client = database.connect("app");
    for kid in [
        "KEY-1",
        " key-1",
        "key-1 ",
        "key",
        "%",
        "key-_",
        "' OR true --",
        "key-1'; DROP TABLE tenancy.issuer_keys; --",
        "../../../../dev/null",
        "key-1/../key-1",
        "${KEY}",
        "ｋey-1",
    ] {
        no_entry(&mut client, &headed(json!({"alg": "HS256", "kid": kid})), "unknown_key");
    }
    for kid in [json!(""), json!(1), json!(["key-1"]), json!({}), json!("k".repeat(256)), json!("key-1\n")] {
        no_entry(&mut client, &headed(json!({"alg": "HS256", "kid": kid})), "invalid_kid");
    }
    no_entry(&mut client, &headed(json!({"alg": "HS256", "kid": "key-1\u{0}"})), "malformed_header");
}

#[test]
fn identity_25_sets_with_duplicate_kids_or_secrets_are_refused_whole() {
    let database = cluster().database();
    let mut ops = database.connect("ops");
    let (_, _, mut one) = ec_key();
    let (_, _, two) = ec_key();
    let secret = json!({"kty": "oct", "kid": "s", "k": base64url(&[7; 32])});
    for (keys, expected) in [
        (json!([one, two]), "duplicate_kid"),
        (json!([one, one]), "duplicate_kid"),
        (json!([one, secret]), "mixed_key_set"),
        (json!([secret]), "symmetric_key"),
        (json!([]), "empty_jwks"),
    ] {
        let set = json!({ "keys": keys });
        refused(ops.execute("SELECT tenancy.set_jwks($1, $2)", &[&ISSUER, &set]), "22023", expected);
    }
    add_key(&database, &one).unwrap();
    refused(add_key(&database, &two), "PT409", "duplicate_kid");
    // A kid that comes with another key later is not the same key.
    let set = json!({"keys": [two]});
    refused(ops.execute("SELECT tenancy.set_jwks($1, $2)", &[&ISSUER, &set]), "PT409", "duplicate_kid");
    one["kid"] = json!(KEY_ID);
    refused(add_key(&database, &one), "PT409", "duplicate_kid");
    let count: i64 = ops.query_one("SELECT count(*) FROM tenancy.issuer_key_status", &[]).unwrap().get(0);
    assert_eq!(count, 2, "nothing of a refused set was kept");
}

#[test]
fn identity_26_duplicate_members_are_refused() {
    let database = cluster().database();
    let mut client = database.connect("app");
    for member in
        [r#""sub":"root""#, r#""exp":1"#, r#""s\u0075b":"root""#, r#""x":{"a":1,"a":2}"#, r#""x":[{"a":1,"a":1}]"#]
    {
        no_entry(&mut client, &claiming(&with_member(member)), "duplicate_member");
    }
    let header = format!(r#"{{"alg":"none","alg":"HS256","kid":"{KEY_ID}"}}"#);
    no_entry(&mut client, &jws(&header, &claims(), |input| hs256(SECRET, input)), "duplicate_member");
}

#[test]
fn identity_27_times_are_whole_seconds_within_reason() {
    let database = cluster().database();
    let mut client = database.connect("app");
    for name in ["exp", "nbf", "iat"] {
        for value in [
            "\"4102444800\"",
            "4102444800.5",
            "4102444800.0",
            "4.1024448e9",
            "-1",
            "-0.0",
            "1e300",
            "253402300800",
            "18446744073709551616",
            "9223372036854775808",
            "null",
            "true",
            "[]",
            "{}",
            "\"\"",
        ] {
            let mut members = Token::for_user("alice").without(name).claims();
            members.as_object_mut().unwrap().shift_remove(name);
            let payload = format!("{{\"{name}\":{value},{}", &members.to_string()[1..]);
            no_entry(&mut client, &claiming(&payload), "invalid_claim");
        }
    }
    // A number that jsonb cannot hold would be an error in every place that reads the claims.
    for number in ["1e-999999", "0e9999", "1e999999"] {
        no_entry(&mut client, &claiming(&with_member(&format!("\"x\":{number}"))), "malformed_claims");
    }
    assert_eq!(reason(&mut client, &claiming(&with_member("\"x\":1e-300"))), None);
    let now: i64 = client.query_one("SELECT floor(extract(epoch FROM now()))::bigint", &[]).unwrap().get(0);
    no_entry(&mut client, &Token::for_user("alice").claim("exp", now).sign(), "expired");
    no_entry(&mut client, &Token::for_user("alice").claim("exp", 0).sign(), "expired");
    no_entry(&mut client, &Token::for_user("alice").claim("nbf", now + 60).sign(), "not_yet_valid");
    no_entry(&mut client, &Token::for_user("alice").claim("iat", now + 60).sign(), "issued_in_future");
}

#[test]
fn identity_28_expiry_and_audience_must_be_there() {
    let database = cluster().database();
    let mut client = database.connect("app");
    for name in ["exp", "aud", "iss", "sub"] {
        no_entry(&mut client, &Token::for_user("alice").without(name).sign(), "missing_claim");
    }
    no_entry(&mut client, &Token::for_user("alice").claim("aud", json!([])).sign(), "audience");
    // An operator may take tokens that never expire; by default nobody does.
    let mut ops = database.connect("ops");
    ops.execute("SELECT tenancy.add_issuer($1, ARRAY[$2::text], require_expiry => false)", &[&ISSUER, &AUDIENCE])
        .unwrap();
    assert_eq!(reason(&mut client, &Token::for_user("alice").without("exp").sign()), None);
    no_entry(&mut client, &Token::for_user("alice").without("aud").sign(), "missing_claim");
}

#[test]
fn identity_29_tokens_for_others_and_of_other_kinds_are_refused() {
    let database = cluster().database();
    let mut client = database.connect("app");
    for audience in [json!("tests2"), json!("TESTS"), json!(["a", "b"]), json!("tests "), json!("")] {
        no_entry(&mut client, &Token::for_user("alice").claim("aud", audience).sign(), "audience");
    }
    no_entry(&mut client, &Token::for_user("alice").claim("aud", json!([AUDIENCE, 7])).sign(), "invalid_claim");
    for token in [
        Token::for_user("alice").claim("at_hash", "x"),
        Token::for_user("alice").claim("typ", "ID"),
        Token::for_user("alice").claim("token_use", "id"),
        Token::for_user("alice").claim("type", "refresh"),
        Token::for_user("alice").header("typ", "logout+jwt"),
        Token::for_user("alice").header("typ", "dpop+jwt"),
    ] {
        no_entry(&mut client, &token.sign(), "token_type");
    }
}

#[test]
fn identity_31_headers_that_change_the_meaning_are_refused() {
    let database = cluster().database();
    let mut client = database.connect("app");
    for (name, value) in [
        ("crit", json!(["exp"])),
        ("crit", json!([])),
        ("b64", json!(false)),
        ("b64", json!(true)),
        ("zip", json!("DEF")),
        ("enc", json!("A256GCM")),
        ("cty", json!("JWT")),
    ] {
        no_entry(&mut client, &headed(json!({"alg": "HS256", "kid": KEY_ID, name: value})), "unsupported_header");
    }
}

#[test]
fn identity_32_one_token_has_one_spelling() {
    let database = cluster().database();
    let mut client = database.connect("app");
    let good = Token::for_user("alice").sign();
    assert_eq!(reason(&mut client, &good), None);
    let parts: Vec<&str> = good.split('.').collect();
    // 32 bytes leave two spare bits in the last character: the next letter spells the same bytes.
    let last = good.chars().last().unwrap();
    let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let sibling = alphabet.chars().nth(alphabet.find(last).unwrap() + 1).unwrap();
    for token in [
        format!("{}{sibling}", &good[..good.len() - 1]),
        format!("{good}="),
        format!("{good}\n"),
        format!(" {good}"),
        format!("{}.{}\n.{}", parts[0], parts[1], parts[2]),
        format!("{}+.{}.{}", parts[0], parts[1], parts[2]),
    ] {
        no_entry(&mut client, &token, "malformed_base64");
    }
    for token in [
        format!("{good}."),
        format!("{good}.{}", parts[0]),
        format!("{good}.a.b"),
        parts[..2].join("."),
        json!({"protected": parts[0], "payload": parts[1], "signature": parts[2]}).to_string(),
        json!({"payload": parts[1], "signatures": [{"protected": parts[0], "signature": parts[2]}]}).to_string(),
    ] {
        no_entry(&mut client, &token, "malformed_token");
    }
}

#[test]
fn identity_33_ecdsa_signatures_are_of_fixed_length_and_in_range() {
    let database = cluster().database();
    let mut client = database.connect("app");
    let (signing, asn1, jwk) = ec_key();
    add_key(&database, &jwk).unwrap();
    let order: Vec<u8> = [0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]
        .into_iter()
        .chain([0xff; 8])
        .chain([0xbc, 0xe6, 0xfa, 0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51])
        .collect();
    let header = json!({"alg": "ES256", "kid": "ec-1"}).to_string();
    let signed = |input: &[u8]| signing.sign(&SystemRandom::new(), input).unwrap().as_ref().to_vec();
    assert_eq!(reason(&mut client, &jws(&header, &claims(), signed)), None);
    let der = |input: &[u8]| asn1.sign(&SystemRandom::new(), input).unwrap().as_ref().to_vec();
    let half = |r: &[u8], s: &[u8]| [r, s].concat();
    let (zero, one, top) = ([0; 32], [[0; 31].as_slice(), &[1]].concat(), [0xff; 32]);
    for signature in [
        half(&zero, &zero),
        half(&zero, &one),
        half(&one, &zero),
        half(&order, &one),
        half(&one, &order),
        half(&order, &order),
        half(&top, &top),
        vec![0; 63],
        vec![0; 65],
        vec![0; 96],
        vec![1],
    ] {
        no_entry(&mut client, &jws(&header, &claims(), |_| signature.clone()), "invalid_signature");
    }
    no_entry(&mut client, &jws(&header, &claims(), der), "invalid_signature");
    no_entry(&mut client, &jws(&header, &claims(), |input| [signed(input), vec![0]].concat()), "invalid_signature");
}

#[test]
fn identity_34_weak_keys_are_refused_at_load() {
    let database = cluster().database();
    let modulus = |bits: usize| {
        // Odd, of that length, and free of the mark of ROCA.
        let mut bytes = vec![0xb7; bits / 8];
        *bytes.last_mut().unwrap() = 0x0f;
        base64url(&bytes)
    };
    for (n, e, expected) in [
        (modulus(1024), "AQAB", "weak_key"),
        (modulus(2040), "AQAB", "weak_key"),
        (modulus(2048), "AQ", "weak_key"),
        (modulus(2048), "Ag", "weak_key"),
        (modulus(2048), "AQAAAAE", "weak_key"),
        (modulus(2048), "AAEAAQ", "non_canonical_key"),
        (modulus(16384), "AQAB", "unsupported_key"),
    ] {
        let jwk = json!({"kty": "RSA", "kid": "weak", "n": n, "e": e});
        refused(add_key(&database, &jwk), "22023", expected);
        let set = json!({"keys": [jwk]});
        fails_with(database.connect("ops").execute("SELECT tenancy.set_jwks($1, $2)", &[&ISSUER, &set]), "22023");
    }
    let mut ops = database.connect("ops");
    for (algorithm, bytes) in [("HS256", 31_usize), ("HS384", 47), ("HS512", 63), ("HS256", 0)] {
        let secret = vec![7_u8; bytes];
        let add = "SELECT tenancy.add_secret($1, 'weak', $2, $3)";
        refused(ops.execute(add, &[&ISSUER, &algorithm, &secret]), "22023", "weak_key");
    }
    for (crv, x) in [("Ed25519", base64url(&[0; 32])), ("Ed25519", base64url(&[[1].as_slice(), &[0; 31]].concat()))] {
        refused(add_key(&database, &json!({"kty": "OKP", "crv": crv, "kid": "w", "x": x})), "22023", "weak_key");
    }
}

#[test]
fn identity_35_a_cached_token_ends_with_its_expiry() {
    let database = cluster().database();
    let mut client = database.connect("app");
    let token = Token::for_user("alice").expires_in(4).sign();
    assert_eq!(reason(&mut client, &token), None);
    client.query_one("SELECT tenancy.authenticate($1)", &[&token]).unwrap();
    client.execute("SELECT pg_sleep(4.2)", &[]).unwrap();
    no_entry(&mut client, &token, "expired");
}
