//! Making tokens: compact JWS with a header of our own.

use super::algorithm::{Algorithm, Family};
use super::base64url;
use super::key::Key;
use super::reason::KeyReason;
use jsonwebtoken::EncodingKey;
use jsonwebtoken::crypto::JwtSigner;
use jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER;
use serde_json::json;
use std::fmt;

/// A key that signs, for exactly one algorithm.
pub struct SigningKey {
    algorithm: Algorithm,
    kid: String,
    signer: Box<dyn JwtSigner>,
}

/// The backend refused to sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SignError;

impl fmt::Display for SignError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the token could not be signed")
    }
}

impl std::error::Error for SignError {}

impl SigningKey {
    /// Makes a signing key from a shared secret, for HS256, HS384 or HS512.
    pub fn from_secret(kid: &str, algorithm: Algorithm, secret: &[u8]) -> Result<SigningKey, KeyReason> {
        Key::from_secret(Some(kid), algorithm, secret)?;
        SigningKey::new(kid, algorithm, &EncodingKey::from_secret(secret))
    }

    /// Makes a signing key from DER: PKCS#1 for RSA, PKCS#8 for EC and Ed25519.
    pub fn from_der(kid: &str, algorithm: Algorithm, der: &[u8]) -> Result<SigningKey, KeyReason> {
        let key = match algorithm.family() {
            Family::Hmac => return Err(KeyReason::UnsupportedKey),
            Family::Rsa => EncodingKey::from_rsa_der(der),
            Family::Ec => EncodingKey::from_ec_der(der),
            Family::Ed => EncodingKey::from_ed_der(der),
        };
        SigningKey::new(kid, algorithm, &key)
    }

    fn new(kid: &str, algorithm: Algorithm, key: &EncodingKey) -> Result<SigningKey, KeyReason> {
        let signer = (DEFAULT_PROVIDER.signer_factory)(&algorithm.backend(), key).map_err(|_| KeyReason::InvalidKey)?;
        Ok(SigningKey { algorithm, kid: kid.to_owned(), signer })
    }

    /// Signs claims (a JSON object as text) as a compact JWS with `alg`, `typ` and `kid` in its header.
    pub fn sign(&self, claims: &str) -> Result<String, SignError> {
        let header = json!({"alg": self.algorithm.name(), "typ": "JWT", "kid": self.kid}).to_string();
        let mut token = base64url::encode(header.as_bytes());
        token.push('.');
        token.push_str(&base64url::encode(claims.as_bytes()));
        let signature = self.signer.try_sign(token.as_bytes()).map_err(|_| SignError)?;
        token.push('.');
        token.push_str(&base64url::encode(&signature));
        Ok(token)
    }
}
