//! A key made ready to verify: checked once, then used for as many signatures as come.

use super::algorithm::{Algorithm, Family};
use super::jwk::{self, Curve, Jwk, Material};
use super::reason::{KeyReason, Reason};
use super::thumbprint;
use super::token::Token;
use aws_lc_rs::signature::{self, ParsedPublicKey, RsaPublicKeyComponents};
use jsonwebtoken::DecodingKey;
use jsonwebtoken::crypto::JwtVerifier;
use jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER;
use serde_json::{Map, Value};
use std::fmt;
use zeroize::Zeroizing;

/// A verification key. It verifies the algorithms it was made for and no other (RFC 8725 §3.1): a public key can never
/// be taken for an HMAC secret.
pub struct Key {
    kid: Option<String>,
    verifiers: Vec<(Algorithm, Box<dyn JwtVerifier>)>,
    public: Option<Map<String, Value>>,
    thumbprint: Option<String>,
}

impl Key {
    /// Makes a key from a JWK: a public key, or a secret (`kty` oct).
    pub fn from_jwk(value: &Value) -> Result<Key, KeyReason> {
        let Jwk { kid, algorithms, material } = Jwk::parse(value)?;
        Key::new(kid, &algorithms, &material)
    }

    /// Makes a key from a shared secret, for exactly one algorithm of HS256, HS384, HS512.
    ///
    /// Refuses a secret shorter than the hash's output (RFC 7518 §3.2) as `weak_key`.
    pub fn from_secret(kid: Option<&str>, algorithm: Algorithm, secret: &[u8]) -> Result<Key, KeyReason> {
        if kid.is_some_and(|kid| !super::header::is_kid(kid)) {
            return Err(KeyReason::InvalidKid);
        }
        let material = Material::Secret(Zeroizing::new(secret.to_vec()));
        Key::from_material(kid.map(str::to_owned), algorithm, &material)
    }

    /// Makes a key from its numbers, for exactly one algorithm.
    pub(super) fn from_material(
        kid: Option<String>,
        algorithm: Algorithm,
        material: &Material,
    ) -> Result<Key, KeyReason> {
        let algorithms = jwk::algorithms(material, Some(algorithm))?;
        Key::new(kid, &algorithms, material)
    }

    fn new(kid: Option<String>, algorithms: &[Algorithm], material: &Material) -> Result<Key, KeyReason> {
        check_mathematics(material)?;
        let decoding = decoding_key(material);
        let verifiers = algorithms
            .iter()
            .map(|&algorithm| {
                let verifier = (DEFAULT_PROVIDER.verifier_factory)(&algorithm.backend(), &decoding)
                    .map_err(|_| KeyReason::InvalidKey)?;
                Ok((algorithm, verifier))
            })
            .collect::<Result<_, KeyReason>>()?;
        let public = thumbprint::public_members(material);
        Ok(Key { kid, verifiers, public, thumbprint: thumbprint::thumbprint(material) })
    }

    /// The key's `kid`, where it came with one.
    pub fn kid(&self) -> Option<&str> {
        self.kid.as_deref()
    }

    /// The RFC 7638 thumbprint (SHA-256, base64url): the id of a public key that came without one. None for a secret.
    pub fn thumbprint(&self) -> Option<&str> {
        self.thumbprint.as_deref()
    }

    /// What to call the key: its `kid`, else its thumbprint. None for a secret without `kid`.
    pub fn id(&self) -> Option<&str> {
        self.kid().or(self.thumbprint())
    }

    /// What the key verifies: its `alg`, or without one every algorithm its numbers are fit for.
    pub fn algorithms(&self) -> impl Iterator<Item = Algorithm> + '_ {
        self.verifiers.iter().map(|(algorithm, _)| *algorithm)
    }

    /// Whether the key is a shared secret, with which one can also sign.
    pub fn is_symmetric(&self) -> bool {
        self.public.is_none()
    }

    /// The key as a JWK of its public members, `kid` (or thumbprint), `use` and, where there is one only, `alg`:
    /// what is fit to be stored and published. None for a secret.
    pub fn public_jwk(&self) -> Option<Value> {
        let mut members = self.public.clone()?;
        members.insert("kid".into(), self.id()?.into());
        members.insert("use".into(), "sig".into());
        if let [(algorithm, _)] = self.verifiers.as_slice() {
            members.insert("alg".into(), algorithm.name().into());
        }
        Some(Value::Object(members))
    }

    /// Verifies the token's signature. Says nothing about its claims.
    ///
    /// Refuses with `algorithm_mismatch` where the header's `alg` is not the key's, `invalid_signature` otherwise.
    pub fn verify(&self, token: &Token<'_>) -> Result<(), Reason> {
        self.verify_signature(token.header().algorithm, token.signing_input().as_bytes(), token.signature())
    }

    /// Verifies a raw signature, as JWS has it: ECDSA is r ‖ s of fixed length (RFC 7518 §3.4), never DER.
    pub fn verify_signature(&self, algorithm: Algorithm, input: &[u8], signature: &Vec<u8>) -> Result<(), Reason> {
        let (_, verifier) =
            self.verifiers.iter().find(|(own, _)| *own == algorithm).ok_or(Reason::AlgorithmMismatch)?;
        if !has_plausible_form(algorithm, signature) {
            return Err(Reason::InvalidSignature);
        }
        verifier.verify(input, signature).map_err(|_| Reason::InvalidSignature)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let algorithms: Vec<Algorithm> = self.algorithms().collect();
        f.debug_struct("Key").field("kid", &self.kid).field("algorithms", &algorithms).finish_non_exhaustive()
    }
}

/// The backend checks these too; the check stands here so that no change of backend can lose it.
fn has_plausible_form(algorithm: Algorithm, signature: &[u8]) -> bool {
    let is_zero = |half: &[u8]| half.iter().all(|&byte| byte == 0);
    match algorithm.family() {
        Family::Hmac => signature.len() == algorithm.hash_bytes(),
        Family::Ed => signature.len() == 64,
        Family::Ec => {
            let half = algorithm.hash_bytes();
            signature.len() == 2 * half && !is_zero(&signature[..half]) && !is_zero(&signature[half..])
        }
        Family::Rsa => signature.len() >= super::rsa::MIN_MODULUS_BITS / 8,
    }
}

/// Asks the backend whether the numbers make a key: a point off its curve does not.
fn check_mathematics(material: &Material) -> Result<(), KeyReason> {
    let is_key = match material {
        Material::Secret(_) => true,
        Material::Rsa { n, e } => {
            RsaPublicKeyComponents { n, e }.to_parsed_public_key(&signature::RSA_PKCS1_2048_8192_SHA256).is_ok()
        }
        Material::Ec { curve: Curve::P256, point } => {
            ParsedPublicKey::new(&signature::ECDSA_P256_SHA256_FIXED, point).is_ok()
        }
        Material::Ec { curve: Curve::P384, point } => {
            ParsedPublicKey::new(&signature::ECDSA_P384_SHA384_FIXED, point).is_ok()
        }
        Material::Ed25519(x) => ParsedPublicKey::new(&signature::ED25519, x).is_ok(),
    };
    if is_key { Ok(()) } else { Err(KeyReason::InvalidKey) }
}

fn decoding_key(material: &Material) -> DecodingKey {
    match material {
        Material::Secret(secret) => DecodingKey::from_secret(secret),
        Material::Rsa { n, e } => DecodingKey::from_rsa_raw_components(n, e),
        Material::Ec { point, .. } => DecodingKey::from_ec_der(point),
        Material::Ed25519(x) => DecodingKey::from_ed_der(x),
    }
}
