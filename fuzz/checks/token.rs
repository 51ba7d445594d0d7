//! What must hold of any text taken for a token, for the fuzz target and for the smoke run of the unit tests: nothing may
//! panic, and what is accepted must mean the same to everybody. The parent module has `jose` in scope.

use super::jose::json::Json;
use super::jose::{self, Algorithm, Claims, Key, Mapping, Policy, Profile, Token, base64url};
use serde_json::Value;
use std::sync::LazyLock;

thread_local! {
    static KEYS: Vec<Key> = [Algorithm::Hs256, Algorithm::Hs384, Algorithm::Hs512]
        .map(|algorithm| Key::from_secret(None, algorithm, &[7; 64]).unwrap())
        .into();
}

static POLICY: LazyLock<Policy> = LazyLock::new(|| Policy {
    issuer: "https://issuer.example".into(),
    audiences: vec!["api".into()],
    authorized_parties: Vec::new(),
    token_types: None,
    require_expiry: true,
    leeway: 60,
});

/// Judges any bytes as a token; false where they are not even text.
pub fn check(data: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(data) else { return false };
    // The fuzzer does not invent base64: where the text is no token, its lines are made into the parts of one.
    let made;
    let text = if text.contains('\n') {
        let parts: Vec<String> = text.splitn(3, '\n').map(|part| base64url::encode(part.as_bytes())).collect();
        made = parts.join(".");
        &made
    } else {
        text
    };
    let Ok(token) = Token::parse(text) else { return true };
    is_the_only_spelling(text, &token);
    others_read_the_same_header(text, &token);
    KEYS.with(|keys| assert!(keys.iter().all(|key| key.verify(&token).is_err()), "a signature was forged"));
    if let Ok(claims) = Claims::parse(token.payload()) {
        claims_are_sound(&claims, token.header().typ.as_deref());
    }
    true
}

/// A token that is accepted is the only text of its bytes.
fn is_the_only_spelling(text: &str, token: &Token<'_>) {
    assert!(text.len() <= jose::token::MAX_TOKEN_BYTES);
    assert_eq!(text, format!("{}.{}", token.signing_input(), base64url::encode(token.signature())));
    let payload = token.signing_input().split('.').nth(1).unwrap();
    assert_eq!(payload, base64url::encode(token.payload()));
}

fn others_read_the_same_header(text: &str, token: &Token<'_>) {
    if let Ok(header) = jsonwebtoken::decode_header(text) {
        assert_eq!(format!("{:?}", header.alg).to_uppercase(), token.header().algorithm.name().to_uppercase());
        assert_eq!(header.kid, token.header().kid);
        assert_eq!(header.typ, token.header().typ);
    }
}

fn claims_are_sound(claims: &Claims, typ: Option<&str>) {
    let again: Value = serde_json::from_str(claims.raw()).expect("what we accept is JSON");
    assert!(is_same(&Json::Object(claims.members().clone()), &again), "no member was lost");
    for time in [claims.times().expires_at(), claims.times().issued_at()].into_iter().flatten() {
        assert!((0..=jose::claims::MAX_TIME).contains(&time));
    }
    let now = 1_767_607_200;
    if claims.validate_identity(typ, &POLICY).is_ok() && claims.times().validate(&POLICY, now).is_ok() {
        assert_eq!(claims.issuer(), Some("https://issuer.example"));
        assert!(again["aud"].to_string().contains("\"api\""));
        assert!(claims.times().expires_at().is_some_and(|expires_at| expires_at + 60 > now));
    }
    for profile in Profile::ALL {
        if let Ok(subject) = Mapping::new(profile, None).unwrap().resolve(claims) {
            assert!(jose::claims::is_id(subject.user));
            assert!(subject.org.is_none_or(jose::claims::is_id));
            assert!(subject.tenant.is_none_or(jose::claims::is_id));
        }
    }
}

/// Whether what we read is what another parser reads.
fn is_same(ours: &Json, theirs: &Value) -> bool {
    match (ours, theirs) {
        (Json::Null, Value::Null) => true,
        (Json::Bool(ours), Value::Bool(theirs)) => ours == theirs,
        (Json::Integer(ours), Value::Number(theirs)) => theirs.as_i64() == Some(*ours),
        (Json::Number, Value::Number(theirs)) => theirs.as_i64().is_none(),
        (Json::Text(ours), Value::String(theirs)) => ours == theirs,
        (Json::Array(ours), Value::Array(theirs)) => {
            ours.len() == theirs.len() && ours.iter().zip(theirs).all(|(ours, theirs)| is_same(ours, theirs))
        }
        (Json::Object(ours), Value::Object(theirs)) => {
            ours.entries().len() == theirs.len()
                && theirs.iter().all(|(name, theirs)| ours.get(name).is_some_and(|ours| is_same(ours, theirs)))
        }
        _ => false,
    }
}
