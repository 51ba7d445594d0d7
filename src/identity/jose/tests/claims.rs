//! Claims, good and bad, against a policy.

use crate::identity::jose::claims::{MAX_ID_CHARS, MAX_TIME};
use crate::identity::jose::reason::Reason;
use crate::identity::jose::{Claims, Policy};
use serde_json::{Value, json};

const NOW: i64 = 1_767_607_200;

fn policy() -> Policy {
    Policy {
        issuer: "https://issuer.example".into(),
        audiences: vec!["api".into(), "api2".into()],
        authorized_parties: Vec::new(),
        token_types: None,
        require_expiry: true,
        leeway: 0,
    }
}

/// Good claims with some replaced; null takes a claim away.
fn claims(changes: &Value) -> String {
    let mut claims = json!({
        "iss": "https://issuer.example", "aud": "api", "sub": "user_1", "exp": NOW + 60, "nbf": NOW - 60, "iat": NOW - 60,
    });
    for (name, value) in changes.as_object().expect("changes") {
        match value {
            Value::Null => drop(claims.as_object_mut().expect("claims").remove(name)),
            value => claims[name] = value.clone(),
        }
    }
    claims.to_string()
}

fn judge(changes: Value, policy: &Policy) -> Result<(), Reason> {
    let text = claims(&changes);
    let claims = Claims::parse(text.as_bytes())?;
    claims.validate_identity(Some("JWT"), policy)?;
    claims.times().validate(policy, NOW)
}

#[track_caller]
fn refused(changes: Value, reason: Reason) {
    assert_eq!(judge(changes.clone(), &policy()), Err(reason), "{changes}");
}

#[test]
fn good_claims_pass() {
    for changes in [
        json!({}),
        json!({"nbf": null, "iat": null}),
        json!({"aud": ["other", "api2"]}),
        json!({"exp": MAX_TIME}),
        json!({"sid": "s", "jti": "j", "azp": "anyone"}),
        json!({"sub": "å".repeat(MAX_ID_CHARS)}),
    ] {
        assert_eq!(judge(changes.clone(), &policy()), Ok(()), "{changes}");
    }
}

#[test]
fn attack_27_times_are_exact_integers_in_range() {
    for name in ["exp", "nbf", "iat"] {
        for value in [
            r#""1767607260""#,
            "1767607260.0",
            "1767607260.5",
            "1.767607260e9",
            "1e3",
            "-1",
            "-0",
            "253402300800",
            "9223372036854775808",
            "18446744073709551616",
            "1e300",
            "true",
            "null",
            "[]",
            "{}",
            "\"\"",
        ] {
            let text = claims(&json!({ name: null })).replacen('{', &format!("{{\"{name}\":{value},"), 1);
            assert_eq!(Claims::parse(text.as_bytes()).unwrap_err(), Reason::InvalidClaim(name), "{name} {value}");
        }
    }
}

#[test]
fn attack_28_exp_and_aud_must_be_there() {
    refused(json!({"exp": null}), Reason::MissingClaim("exp"));
    refused(json!({"aud": null}), Reason::MissingClaim("aud"));
    let lenient = Policy { require_expiry: false, audiences: Vec::new(), ..policy() };
    assert_eq!(judge(json!({"exp": null, "aud": null}), &lenient), Ok(()));
    assert_eq!(judge(json!({"exp": NOW, "aud": null}), &lenient), Err(Reason::Expired));
}

#[test]
fn attack_29_another_audience_is_refused() {
    for audience in [json!("other"), json!([]), json!(["other"]), json!("API"), json!("api "), json!("api api2")] {
        refused(json!({"aud": audience}), Reason::Audience);
    }
    for audience in [json!(1), json!({"a": 1}), json!(["api", 1]), json!([["api"]]), json!(true)] {
        refused(json!({"aud": audience}), Reason::InvalidClaim("aud"));
    }
    let without_audience = Policy { audiences: Vec::new(), ..policy() };
    assert_eq!(judge(json!({}), &without_audience), Err(Reason::Audience));
    assert_eq!(judge(json!({"aud": []}), &without_audience), Err(Reason::Audience));
    refused(json!({"type": "refresh"}), Reason::TokenType);
}

#[test]
fn attack_30_the_issuer_is_compared_byte_by_byte() {
    for issuer in ["https://issuer.example/", "HTTPS://issuer.example", "https://issuer.example ", ""] {
        refused(json!({"iss": issuer}), Reason::Issuer);
    }
    refused(json!({"iss": null}), Reason::MissingClaim("iss"));
    refused(json!({"iss": ["https://issuer.example"]}), Reason::InvalidClaim("iss"));
}

#[test]
fn times_are_judged_to_the_second_and_leeway_moves_them() {
    refused(json!({"exp": NOW}), Reason::Expired);
    refused(json!({"nbf": NOW + 1}), Reason::NotYetValid);
    refused(json!({"iat": NOW + 1}), Reason::IssuedInFuture);
    assert_eq!(judge(json!({"exp": NOW + 1, "nbf": NOW, "iat": NOW}), &policy()), Ok(()));
    let lenient = Policy { leeway: 5, ..policy() };
    assert_eq!(judge(json!({"exp": NOW - 4, "nbf": NOW + 5, "iat": NOW + 5}), &lenient), Ok(()));
    assert_eq!(judge(json!({"exp": NOW - 5}), &lenient), Err(Reason::Expired));
    assert_eq!(judge(json!({"nbf": NOW + 6}), &lenient), Err(Reason::NotYetValid));
    let extreme = Policy { leeway: u32::MAX, ..policy() };
    assert_eq!(judge(json!({"exp": MAX_TIME, "nbf": 0, "iat": 0}), &extreme), Ok(()));
}

#[test]
fn subjects_are_strings_that_identify() {
    refused(json!({"sub": null}), Reason::MissingClaim("sub"));
    for name in ["sub", "jti", "sid"] {
        for value in [
            json!(1),
            json!(true),
            json!([]),
            json!({}),
            json!(""),
            json!(" "),
            json!(" a"),
            json!("a\n"),
            json!("a\u{7f}b"),
            json!("a\u{85}b"),
            json!("a\u{a0}"),
            json!("x".repeat(MAX_ID_CHARS + 1)),
        ] {
            refused(json!({ name: value }), Reason::InvalidClaim(name));
        }
    }
}

#[test]
fn the_authorized_party_is_one_of_those_listed() {
    let strict = Policy { authorized_parties: vec!["https://app.example".into()], ..policy() };
    assert_eq!(judge(json!({"azp": "https://app.example"}), &strict), Ok(()));
    assert_eq!(judge(json!({"azp": "https://evil.example"}), &strict), Err(Reason::AuthorizedParty));
    assert_eq!(judge(json!({}), &strict), Err(Reason::MissingClaim("azp")));
    refused(json!({"azp": ["https://app.example"]}), Reason::InvalidClaim("azp"));
}

#[test]
fn what_is_no_object_of_claims_is_refused() {
    for text in ["", "[]", "\"x\"", "null", "1", "{", "{\"a\":1}x", "{\"a\":\"\\u0000\"}"] {
        assert_eq!(Claims::parse(text.as_bytes()).unwrap_err(), Reason::MalformedClaims, "{text}");
    }
    assert_eq!(Claims::parse(b"{\"a\":\"\xff\"}").unwrap_err(), Reason::MalformedClaims);
    assert_eq!(Claims::parse(b"{\"sub\":\"a\",\"sub\":\"b\"}").unwrap_err(), Reason::DuplicateMember);
}

#[test]
fn the_raw_text_is_kept_and_debug_shows_none_of_it() {
    let text = r#"{ "sub" : "user_1", "n": 12345678901234567890123 }"#;
    let claims = Claims::parse(text.as_bytes()).unwrap();
    assert_eq!(claims.raw(), text);
    assert_eq!(format!("{claims:?}"), "Claims { .. }");
}
