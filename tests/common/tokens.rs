//! Tokens, good and forged. Written by hand on purpose: a library would refuse to sign most forgeries.

use aws_lc_rs::hmac;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Map, Value, json};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{SystemTime, UNIX_EPOCH};

/// The issuer every database of the harness knows.
pub const ISSUER: &str = "https://issuer.test";
/// Its audience.
pub const AUDIENCE: &str = "tests";
/// The id of its only key.
pub const KEY_ID: &str = "key-1";
/// Its HS256 secret.
pub const SECRET: &[u8] = b"a secret of the tests, forty-two bytes long";

/// Tokens made so far, which tells each from all others: two that one second's clock would have made alike are two in
/// every run, and a test that means the same token again keeps it.
static MADE: AtomicU64 = AtomicU64::new(0);

/// A token in the making: valid for an hour unless told otherwise.
#[derive(Clone, Debug)]
pub struct Token {
    header: Map<String, Value>,
    claims: Map<String, Value>,
}

impl Token {
    /// A token of the harness's issuer for this subject, without an organization.
    pub fn for_user(user_id: &str) -> Self {
        let (now, serial) = (now(), MADE.fetch_add(1, Relaxed));
        let Value::Object(header) = json!({"alg": "HS256", "typ": "JWT", "kid": KEY_ID}) else { unreachable!() };
        let Value::Object(claims) =
            json!({"iss": ISSUER, "aud": AUDIENCE, "sub": user_id, "iat": now, "exp": now + 3600, "serial": serial})
        else {
            unreachable!()
        };
        Self { header, claims }
    }

    /// The same within an organization.
    pub fn for_member(user_id: &str, org_id: &str) -> Self {
        Self::for_user(user_id).claim("org_id", org_id)
    }

    /// Sets a claim.
    pub fn claim(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.claims.insert(name.into(), value.into());
        self
    }

    /// Removes a claim.
    pub fn without(mut self, name: &str) -> Self {
        self.claims.remove(name);
        self
    }

    /// Sets a member of the header; `Value::Null` removes it.
    pub fn header(mut self, name: &str, value: impl Into<Value>) -> Self {
        match value.into() {
            Value::Null => self.header.remove(name),
            value => self.header.insert(name.into(), value),
        };
        self
    }

    /// Ends `seconds` from now (in the past when negative).
    pub fn expires_in(self, seconds: i64) -> Self {
        let at = now() + seconds;
        self.claim("exp", at)
    }

    /// The claims as they stand.
    pub fn claims(&self) -> Value {
        Value::Object(self.claims.clone())
    }

    /// Signed with the harness's secret.
    pub fn sign(&self) -> String {
        self.sign_with(SECRET)
    }

    /// Signed with another secret.
    pub fn sign_with(&self, secret: &[u8]) -> String {
        let header = Value::Object(self.header.clone()).to_string();
        jws(&header, &self.claims().to_string(), |input| hs256(secret, input))
    }
}

/// A compact JWS of exactly these texts, signed by `sign`.
pub fn jws(header: &str, payload: &str, sign: impl FnOnce(&[u8]) -> Vec<u8>) -> String {
    let input = format!("{}.{}", base64url(header.as_bytes()), base64url(payload.as_bytes()));
    let signature = sign(input.as_bytes());
    format!("{input}.{}", base64url(&signature))
}

/// HMAC with SHA-256.
pub fn hs256(secret: &[u8], input: &[u8]) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), input).as_ref().to_vec()
}

/// Base64url without padding.
pub fn base64url(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn now() -> i64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970");
    i64::try_from(elapsed.as_secs()).expect("the clock is before the year 292277026596")
}
