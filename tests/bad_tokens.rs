//! Tokens that must not be taken, keys that must not be added, and what each refusal says.

mod common;

use common::{
    AUDIENCE, Cluster, Database, ISSUER, KEY_ID, Options, SECRET, Token, base64url, cluster, fails_with, hs256, jws,
    refused,
};
use postgres::{Client, types::ToSql};
use serde_json::json;

fn authenticate(client: &mut Client, token: Option<&str>) -> Result<String, postgres::Error> {
    let mut transaction = client.transaction()?;
    let user = transaction.query_one("SELECT tenancy.authenticate($1)", &[&token])?.get(0);
    let tenant: Option<String> = transaction.query_one("SELECT tenancy.tenant_id()", &[])?.get(0);
    assert!(tenant.is_some());
    Ok(user)
}

/// The reason verify_token gives; none: valid. It says the same as authenticate, and raises nothing.
fn verdict(client: &mut Client, token: &str) -> Option<String> {
    let row = client.query_one("SELECT valid, reason, claims FROM tenancy.verify_token($1)", &[&token]).unwrap();
    let (valid, reason, claims): (bool, Option<String>, Option<serde_json::Value>) =
        (row.get(0), row.get(1), row.get(2));
    assert_eq!(valid, reason.is_none());
    assert_eq!(valid, claims.is_some(), "claims are told of a valid token only");
    reason
}

#[test]
fn malformed_tokens_are_refused_each_with_its_reason() {
    let database = cluster().database();
    let mut client = database.connect("app");
    let good = Token::for_user("alice").sign();
    let claims = Token::for_user("alice").claims();
    let parts: Vec<&str> = good.split('.').collect();
    let header = json!({"alg": "HS256", "kid": KEY_ID}).to_string();
    let signed = |claims: &str| jws(&header, claims, |input| hs256(SECRET, input));
    let cases: Vec<(String, &str)> = vec![
        ("x".into(), "malformed_token"),
        ("a.b".into(), "malformed_token"),
        (format!("{good}.x"), "malformed_token"),
        (format!("Bearer {good}"), "malformed_base64"),
        (format!("{good}="), "malformed_base64"),
        (good[..good.len() - 15].into(), "invalid_signature"),
        (format!("{}.{}.", parts[0], parts[1]), "missing_signature"),
        (format!("{}.{}.{}", parts[0], parts[1], base64url(&[0; 32])), "invalid_signature"),
        (signed("[]"), "malformed_claims"),
        (signed("nonsense"), "malformed_claims"),
        (signed(&claims.to_string().replace("\"sub\"", "\"sub\":\"root\",\"sub\"")), "duplicate_member"),
        (format!("{}.{}.AAAA", base64url(br#"{"alg":"none"}"#), parts[1]), "algorithm_none"),
        (format!("{}.{}.AAAA", base64url(br#"{"alg":"nOnE"}"#), parts[1]), "algorithm_none"),
        (format!("{}.{}.", base64url(br#"{"alg":"none"}"#), parts[1]), "algorithm_none"),
        (Token::for_user("alice").header("alg", "HS384").sign(), "algorithm_mismatch"),
        (Token::for_user("alice").header("kid", "another").sign(), "unknown_key"),
        (Token::for_user("alice").sign_with(b"the wrong secret, of thirty-two bytes or more"), "invalid_signature"),
        (Token::for_user("alice").claim("iss", "https://elsewhere.test").sign(), "unknown_issuer"),
        (Token::for_user("alice").without("iss").sign(), "missing_claim"),
        (Token::for_user("alice").without("sub").sign(), "missing_claim"),
        (Token::for_user("alice").without("exp").sign(), "missing_claim"),
        (Token::for_user("alice").without("aud").sign(), "missing_claim"),
        (Token::for_user("alice").claim("aud", "another service").sign(), "audience"),
        (Token::for_user("alice").claim("sub", "").sign(), "invalid_claim"),
        (Token::for_user("alice").claim("sub", 7).sign(), "invalid_claim"),
        (Token::for_user("alice").claim("exp", "4102444800").sign(), "invalid_claim"),
        (Token::for_user("alice").claim("exp", 4_102_444_800.5).sign(), "invalid_claim"),
        (Token::for_user("alice").claim("exp", -1).sign(), "invalid_claim"),
        (Token::for_user("alice").claim("nbf", 1e300).sign(), "invalid_claim"),
        (Token::for_user("alice").claim("nbf", 4_102_444_800i64).sign(), "not_yet_valid"),
        (Token::for_user("alice").claim("iat", 4_102_444_800i64).sign(), "issued_in_future"),
        (Token::for_user("alice").expires_in(-1).sign(), "expired"),
        (Token::for_user("a::b").sign(), "reserved_id"),
        (Token::for_member("alice", "a::b").sign(), "reserved_id"),
        (Token::for_user("alice").claim("big", "x".repeat(9000)).sign(), "token_too_large"),
    ];
    for (token, reason) in cases {
        assert_eq!(verdict(&mut client, &token).as_deref(), Some(reason), "{token}");
        let error = refused(authenticate(&mut client, Some(&token)), "PT401", reason);
        let said = format!("{error:?}");
        assert!(!said.contains("alice") && !said.contains(parts[2]), "the error repeats the token: {said}");
    }
    for token in [None, Some("")] {
        refused(authenticate(&mut client, token), "PT401", "missing_token");
        let verdict = client.query_one("SELECT reason FROM tenancy.verify_token($1)", &[&token]).unwrap();
        assert_eq!(verdict.get::<_, &str>(0), "missing_token");
    }
    let error = refused(authenticate(&mut client, Some(&Token::for_user("a::b").sign())), "PT401", "reserved_id");
    assert!(error.message().contains("sub holds") && error.detail().unwrap().contains("\"sub\""), "{error:?}");
    assert_eq!(verdict(&mut client, &good), None);
    assert_eq!(authenticate(&mut client, Some(&good)).unwrap(), "alice");
}

#[test]
fn an_audience_list_an_array_and_a_missing_kid_are_taken() {
    let database = cluster().database();
    let mut client = database.connect("app");
    for token in [
        Token::for_user("alice").claim("aud", json!(["other", AUDIENCE])),
        Token::for_user("alice").header("kid", serde_json::Value::Null),
        Token::for_user("alice").header("typ", serde_json::Value::Null),
    ] {
        assert_eq!(verdict(&mut client, &token.sign()), None);
    }
    // With a second key of the algorithm a token without kid could mean either.
    let second: &(dyn ToSql + Sync) = &&b"another secret of the tests, forty bytes."[..];
    database.connect("ops").execute("SELECT tenancy.add_secret($1, 'key-2', 'HS256', $2)", &[&ISSUER, second]).unwrap();
    let token = Token::for_user("alice").header("kid", serde_json::Value::Null).sign();
    assert_eq!(verdict(&mut client, &token).as_deref(), Some("kid_required"));
}

#[test]
fn identity_35_an_expired_identity_shows_no_rows_in_the_same_transaction() {
    let database = cluster().database();
    let mut client = database.connect("app");
    let mut transaction = client.transaction().unwrap();
    let token = Token::for_user("alice").expires_in(4).sign();
    transaction.execute("SELECT tenancy.authenticate($1)", &[&token]).unwrap();
    transaction.execute("SELECT pg_sleep(4.2)", &[]).unwrap();
    let tenant: Option<String> = transaction.query_one("SELECT tenancy.tenant_id()", &[]).unwrap().get(0);
    assert_eq!(tenant, None);
    refused(transaction.query_one("SELECT tenancy.require_user()", &[]), "PT401", "not_authenticated");
}

#[test]
fn rs256_is_verified_and_never_taken_for_hmac() {
    // A key of 2048 bits made for these tests; only its public half is here.
    let database = cluster().database();
    let mut ops = database.connect("ops");
    let public = json!({"kty": "RSA", "kid": "rsa-1", "e": "AQAB", "n": include_str!("data/rsa_modulus.txt").trim()});
    ops.execute("SELECT tenancy.add_key($1, $2)", &[&ISSUER, &public]).unwrap();
    let mut client = database.connect("app");
    let token = include_str!("data/rs256_token.txt").trim();
    assert_eq!(verdict(&mut client, token), None);
    assert_eq!(authenticate(&mut client, Some(token)).unwrap(), "alice");
    let confused = Token::for_user("alice").header("kid", "rsa-1").sign_with(public.to_string().as_bytes());
    assert_eq!(verdict(&mut client, &confused).as_deref(), Some("algorithm_mismatch"));
}

#[test]
fn keys_and_issuers_that_cannot_be_right_are_refused() {
    let database = cluster().database();
    let mut ops = database.connect("ops");
    let mut call = |statement: &str| ops.batch_execute(statement);
    let secret = "decode(repeat('ab', 32), 'hex')";
    for (statement, sqlstate, reason) in [
        ("SELECT tenancy.add_issuer('', ARRAY['a'])", "22023", "invalid_argument"),
        ("SELECT tenancy.add_issuer(NULL, ARRAY['a'])", "22023", "invalid_argument"),
        ("SELECT tenancy.add_issuer('i', NULL)", "22023", "audience_required"),
        ("SELECT tenancy.add_issuer('i', ARRAY[''])", "22023", "audience_required"),
        ("SELECT tenancy.add_issuer('i', ARRAY[NULL]::text[])", "22023", "audience_required"),
        ("SELECT tenancy.add_issuer('i', ARRAY['a'], profile => 'x')", "22023", "unknown_profile"),
        ("SELECT tenancy.add_issuer('i', ARRAY['a'], algorithms => ARRAY['none'])", "22023", "unknown_algorithm"),
        ("SELECT tenancy.add_issuer('i', ARRAY['a'], leeway => '1 hour')", "22023", "invalid_leeway"),
        ("SELECT tenancy.add_issuer('i', ARRAY['a'], leeway => '-1 s')", "22023", "invalid_leeway"),
        ("SELECT tenancy.add_issuer('i', ARRAY['a'], claim_paths => '[]')", "22023", "invalid_claim_paths"),
        ("SELECT tenancy.add_issuer('i', ARRAY['a'], namespace => 'a::b')", "22023", "invalid_argument"),
        ("SELECT tenancy.add_key('i', '{}')", "PT404", "unknown_issuer"),
        ("SELECT tenancy.add_key('https://issuer.test', NULL)", "22023", "invalid_jwk"),
        ("SELECT tenancy.add_key('https://issuer.test', '{}')", "22023", "invalid_jwk"),
        ("SELECT tenancy.retire_key('i', 'k')", "PT404", "unknown_issuer"),
    ] {
        refused(call(statement), sqlstate, reason);
    }
    for (arguments, sqlstate, reason) in [
        ("'https://issuer.test', 'k', 'HS256', decode(repeat('ab', 31), 'hex')".to_owned(), "22023", "weak_key"),
        (format!("'https://issuer.test', 'k', 'HS512', {secret}"), "22023", "weak_key"),
        (format!("'https://issuer.test', 'k', 'RS256', {secret}"), "22023", "unsupported_algorithm"),
        (format!("'https://issuer.test', 'k', NULL, {secret}"), "22023", "unknown_algorithm"),
        ("'https://issuer.test', 'k', 'HS256', NULL".to_owned(), "22023", "invalid_argument"),
        (format!("'https://issuer.test', '', 'HS256', {secret}"), "22023", "invalid_argument"),
        (format!("'https://issuer.test', 'key-1', 'HS256', {secret}"), "PT409", "duplicate_kid"),
        (format!("'nobody', 'k', 'HS256', {secret}"), "PT404", "unknown_issuer"),
    ] {
        refused(call(&format!("SELECT tenancy.add_secret({arguments})")), sqlstate, reason);
    }
    let error = call("SELECT tenancy.add_secret('https://issuer.test', 'k', 'HS384', 'short')");
    assert!(refused(error, "22023", "weak_key").hint().unwrap().contains("48 random bytes"));
    for algorithm in ["NULL", "'none'"] {
        let error = call(&format!("SELECT tenancy.add_secret('https://issuer.test', 'k', {algorithm}, {secret})"));
        let error = refused(error, "22023", "unknown_algorithm");
        let detail: serde_json::Value = serde_json::from_str(error.detail().unwrap()).unwrap();
        assert_eq!(detail["parameter"], "algorithm");
        assert!(error.hint().unwrap().contains("algorithm "));
    }
}

#[test]
fn a_secret_needs_a_master_key_file_that_is_closed_to_others() {
    let cluster = Cluster::start(Options { master_key: false, ..Options::default() });
    let database = cluster.empty_database();
    let mut client = database.superuser();
    client
        .batch_execute(
            "CREATE EXTENSION pg_tenancy; SELECT tenancy.install(); SELECT tenancy.add_issuer('i', ARRAY['a'])",
        )
        .unwrap();
    let add = "SELECT tenancy.add_secret('i', 'k', 'HS256', decode(repeat('ab', 32), 'hex'))";
    let error = refused(client.batch_execute(add), "55000", "master_key_missing");
    assert!(error.message().contains("tenancy.master_key_file") && error.hint().unwrap().contains("umask 077"));
    for (mode, reason) in [(0o644, "master_key_mode"), (0o640, "master_key_mode"), (0o604, "master_key_mode")] {
        let file = cluster.write_file("open.key", &key_text(), mode);
        use_key_file(&cluster, &database, file.to_str().unwrap());
        let mut client = database.superuser();
        let error = refused(client.batch_execute(add), "55000", reason);
        assert!(error.message().contains("tenancy.master_key_file") && error.message().contains("0600"), "{error:?}");
    }
    for (content, reason) in [("short", "invalid_master_key"), ("", "invalid_master_key")] {
        let file = cluster.write_file(&format!("bad-{}.key", content.len()), content, 0o600);
        use_key_file(&cluster, &database, file.to_str().unwrap());
        refused(database.superuser().batch_execute(add), "55000", reason);
    }
    use_key_file(&cluster, &database, "/nonexistent/key");
    let error = refused(database.superuser().batch_execute(add), "55000", "master_key_missing");
    assert!(error.message().contains("tenancy.master_key_file") && error.message().contains("0600"), "{error:?}");
    // Nobody writes into this one: who waited for its content would wait for ever.
    let pipe = cluster.folder().join("pipe.key");
    assert!(std::process::Command::new("mkfifo").args(["-m", "0644"]).arg(&pipe).status().unwrap().success());
    use_key_file(&cluster, &database, pipe.to_str().unwrap());
    refused(database.superuser().batch_execute(add), "55000", "invalid_master_key");
    let kept: i64 = client.query_one("SELECT count(*) FROM tenancy.issuer_keys", &[]).unwrap().get(0);
    assert_eq!(kept, 0, "nothing was written");
    let file = cluster.write_file("good.key", &key_text(), 0o600);
    use_key_file(&cluster, &database, file.to_str().unwrap());
    database.superuser().batch_execute(add).unwrap();
}

#[test]
fn an_ordinary_role_sees_neither_keys_nor_secrets() {
    let database = cluster().database();
    for role in ["app", "svc", "ops", "met"] {
        let mut client = database.connect(role);
        for table in ["issuers", "issuer_keys", "revocations", "audit_log"] {
            fails_with(client.query(&format!("SELECT * FROM tenancy.{table}"), &[]), "42501");
        }
        fails_with(client.query("SELECT tenancy._unseal('\\x00', 'x')", &[]), "42501");
    }
    // Not even the superuser finds the secret in clear.
    let rows = database.superuser().query("SELECT k::text FROM tenancy.issuer_keys AS k", &[]).unwrap();
    let hex: String = SECRET.iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(rows.iter().all(|row| !row.get::<_, &str>(0).contains(&hex)));
}

/// Names another key file and waits until the server has read its configuration again.
fn use_key_file(cluster: &Cluster, database: &Database, file: &str) {
    cluster.set("tenancy.master_key_file", file);
    cluster.reload();
    for _ in 0..100 {
        let named: String =
            database.superuser().query_one("SELECT current_setting('tenancy.master_key_file')", &[]).unwrap().get(0);
        if named == file {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    panic!("the server did not take {file}");
}

/// A master key as openssl rand -hex 32 would write one.
fn key_text() -> String {
    (0..32u8).map(|byte| format!("{byte:02x}")).collect()
}
