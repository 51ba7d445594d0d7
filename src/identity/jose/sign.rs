//! Making tokens: a compact JWS with a header of our own.

use super::algorithm::{Algorithm, Family};
use super::base64url;
use super::header::is_kid;
use super::jwk::{Curve, Material};
use super::key::Key;
use super::private_key::PrivateKey;
use super::reason::KeyReason;
use super::rsa;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{self, KeyPair as _, RsaEncoding, RsaKeyPair, RsaPublicKeyComponents};
use jsonwebtoken::EncodingKey;
use jsonwebtoken::crypto::JwtSigner;
use jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER;
use serde_json::json;
use std::fmt;
use zeroize::Zeroizing;

/// A key that signs, for exactly one algorithm, made ready once.
pub struct SigningKey {
    algorithm: Algorithm,
    header: String,
    signer: Signer,
    verifier: Key,
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

/// RSA goes to the backend directly: jsonwebtoken parses and checks the private key anew for each signature, which
/// takes longer than the signature (docs/explanation/cryptography.md).
enum Signer {
    Rsa(RsaKeyPair, &'static dyn RsaEncoding),
    Other(Box<dyn JwtSigner>),
}

impl SigningKey {
    /// Makes a signing key. `key` is the secret itself for HS256, HS384 and HS512; for the others a private key in
    /// PKCS#8, PKCS#1 (RSA) or SEC 1 (EC), as DER or PEM.
    ///
    /// Refuses what [`Key`] would refuse to verify with: `weak_key`, `roca_key`, …
    pub fn new(kid: &str, algorithm: Algorithm, key: &[u8]) -> Result<SigningKey, KeyReason> {
        if !is_kid(kid) {
            return Err(KeyReason::InvalidKid);
        }
        let (signer, material) = match algorithm.family() {
            Family::Hmac => secret(algorithm, key)?,
            Family::Rsa => rsa_pair(algorithm, &PrivateKey::parse(key)?)?,
            Family::Ec => ec_pair(algorithm, &PrivateKey::parse(key)?)?,
            Family::Ed => ed_pair(algorithm, &PrivateKey::parse(key)?)?,
        };
        let verifier = Key::from_material(Some(kid.to_owned()), algorithm, &material)?;
        let header = json!({"alg": algorithm.name(), "typ": "JWT", "kid": kid}).to_string();
        Ok(SigningKey { algorithm, header: base64url::encode(header.as_bytes()), signer, verifier })
    }

    /// Makes the bytes of a new key, as [`SigningKey::new`] takes them: a secret of the hash's length, or PKCS#8 of
    /// RSA (2048 bits), P-256, P-384 or Ed25519.
    pub fn generate(algorithm: Algorithm) -> Result<Zeroizing<Vec<u8>>, SignError> {
        PrivateKey::generate(algorithm).map_err(|_| SignError)
    }

    /// The algorithm.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The key that verifies what this one signs; its [`Key::public_jwk`] is what to publish.
    pub fn verifier(&self) -> &Key {
        &self.verifier
    }

    /// Signs claims, a JSON object as text, as a compact JWS with `alg`, `typ` JWT and `kid` in its header.
    pub fn sign(&self, claims: &str) -> Result<String, SignError> {
        let payload = base64url::encode(claims.as_bytes());
        let mut token = format!("{}.{payload}", self.header);
        let signature = self.signature(token.as_bytes())?;
        token.push('.');
        token.push_str(&base64url::encode(&signature));
        Ok(token)
    }

    fn signature(&self, input: &[u8]) -> Result<Vec<u8>, SignError> {
        match &self.signer {
            Signer::Rsa(pair, padding) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(*padding, &SystemRandom::new(), input, &mut signature).map_err(|_| SignError)?;
                Ok(signature)
            }
            Signer::Other(signer) => signer.try_sign(input).map_err(|_| SignError),
        }
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey").field("verifier", &self.verifier).finish_non_exhaustive()
    }
}

fn secret(algorithm: Algorithm, secret: &[u8]) -> Result<(Signer, Material), KeyReason> {
    let signer = other(algorithm, &EncodingKey::from_secret(secret))?;
    Ok((signer, Material::Secret(Zeroizing::new(secret.to_vec()))))
}

fn rsa_pair(algorithm: Algorithm, key: &PrivateKey) -> Result<(Signer, Material), KeyReason> {
    let pair = key.rsa()?;
    let RsaPublicKeyComponents { n, e } = RsaPublicKeyComponents::<Vec<u8>>::from(pair.public_key());
    rsa::check(&n, &e)?;
    let padding: &'static dyn RsaEncoding = match algorithm {
        Algorithm::Rs256 => &signature::RSA_PKCS1_SHA256,
        Algorithm::Rs384 => &signature::RSA_PKCS1_SHA384,
        Algorithm::Rs512 => &signature::RSA_PKCS1_SHA512,
        Algorithm::Ps256 => &signature::RSA_PSS_SHA256,
        Algorithm::Ps384 => &signature::RSA_PSS_SHA384,
        Algorithm::Ps512 => &signature::RSA_PSS_SHA512,
        _ => return Err(KeyReason::UnsupportedAlgorithm),
    };
    Ok((Signer::Rsa(pair, padding), Material::Rsa { n, e }))
}

fn ec_pair(algorithm: Algorithm, key: &PrivateKey) -> Result<(Signer, Material), KeyReason> {
    let curve = match algorithm {
        Algorithm::Es256 => Curve::P256,
        Algorithm::Es384 => Curve::P384,
        _ => return Err(KeyReason::UnsupportedAlgorithm),
    };
    let pair = key.ec(curve)?;
    let der = pair.to_pkcs8v1().map_err(|_| KeyReason::InvalidKey)?;
    let signer = other(algorithm, &EncodingKey::from_ec_der(der.as_ref()))?;
    Ok((signer, Material::Ec { curve, point: pair.public_key().as_ref().to_vec() }))
}

fn ed_pair(algorithm: Algorithm, key: &PrivateKey) -> Result<(Signer, Material), KeyReason> {
    let pair = key.ed25519()?;
    let der = pair.to_pkcs8v1().map_err(|_| KeyReason::InvalidKey)?;
    let signer = other(algorithm, &EncodingKey::from_ed_der(der.as_ref()))?;
    let x = pair.public_key().as_ref().try_into().map_err(|_| KeyReason::InvalidKey)?;
    Ok((signer, Material::Ed25519(x)))
}

fn other(algorithm: Algorithm, key: &EncodingKey) -> Result<Signer, KeyReason> {
    let signer = (DEFAULT_PROVIDER.signer_factory)(&algorithm.backend(), key);
    signer.map(Signer::Other).map_err(|_| KeyReason::InvalidKey)
}
