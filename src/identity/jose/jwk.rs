//! One JSON Web Key (RFC 7517), read as a key that verifies signatures.

use super::algorithm::Algorithm;
use super::base64url;
use super::header::is_kid;
use super::reason::KeyReason;
use super::rsa;
use serde_json::{Map, Value};
use zeroize::Zeroizing;

/// The curves of `kty` EC (RFC 7518 §6.2.1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Curve {
    /// NIST P-256, for ES256.
    P256,
    /// NIST P-384, for ES384.
    P384,
}

impl Curve {
    /// Bytes of one coordinate.
    pub fn coordinate_bytes(self) -> usize {
        match self {
            Curve::P256 => 32,
            Curve::P384 => 48,
        }
    }

    /// The name as it stands in `crv`.
    pub fn name(self) -> &'static str {
        match self {
            Curve::P256 => "P-256",
            Curve::P384 => "P-384",
        }
    }
}

/// The numbers of a key.
pub enum Material {
    /// `kty` oct: a shared secret.
    Secret(Zeroizing<Vec<u8>>),
    /// `kty` RSA: modulus and exponent, big-endian, without leading zeros.
    Rsa {
        /// The modulus.
        n: Vec<u8>,
        /// The public exponent.
        e: Vec<u8>,
    },
    /// `kty` EC: an uncompressed point, 0x04 ‖ x ‖ y.
    Ec {
        /// The curve the point lies on.
        curve: Curve,
        /// The point.
        point: Vec<u8>,
    },
    /// `kty` OKP, `crv` Ed25519: the encoded point.
    Ed25519([u8; 32]),
}

/// A JWK whose members have been checked; its mathematics (is the point on the curve?) has not.
pub struct Jwk {
    /// `kid`.
    pub kid: Option<String>,
    /// What the key may verify: its `alg`, or without one every algorithm its numbers are fit for.
    pub algorithms: Vec<Algorithm>,
    /// The numbers.
    pub material: Material,
}

/// The private members of RSA, EC and OKP keys (RFC 7518 §6.2.2, §6.3.2; RFC 8037 §2).
const PRIVATE: [&str; 7] = ["d", "p", "q", "dp", "dq", "qi", "oth"];

impl Jwk {
    /// Reads a JWK. Refuses private asymmetric keys, keys not meant for verifying, and weak ones.
    ///
    /// Members that are not known are ignored (RFC 7517 §4), among them `x5c` and `x5u`: we trust the operator who
    /// adds the key, not a certificate beside it.
    pub fn parse(value: &Value) -> Result<Jwk, KeyReason> {
        let members = value.as_object().ok_or(KeyReason::InvalidJwk)?;
        let kty = required(members, "kty")?;
        let kid = kid(members)?;
        if kty != "oct" && PRIVATE.iter().any(|name| members.contains_key(*name)) {
            return Err(KeyReason::PrivateKey);
        }
        check_use(members)?;
        let named = algorithm(members)?;
        let material = match kty {
            "oct" => Material::Secret(Zeroizing::new(bytes(members, "k")?)),
            "RSA" => rsa_material(members)?,
            "EC" => ec_material(members)?,
            "OKP" => ed_material(members)?,
            _ => return Err(KeyReason::UnsupportedKey),
        };
        let algorithms = algorithms(&material, named)?;
        Ok(Jwk { kid, algorithms, material })
    }
}

/// The algorithms the material is fit for, narrowed to the one that the key names.
pub(super) fn algorithms(material: &Material, named: Option<Algorithm>) -> Result<Vec<Algorithm>, KeyReason> {
    use Algorithm::{EdDsa, Es256, Es384, Hs256, Hs384, Hs512, Ps256, Ps384, Ps512, Rs256, Rs384, Rs512};
    let fit: &[Algorithm] = match material {
        Material::Secret(_) => &[Hs256, Hs384, Hs512],
        Material::Rsa { .. } => &[Rs256, Rs384, Rs512, Ps256, Ps384, Ps512],
        Material::Ec { curve: Curve::P256, .. } => &[Es256],
        Material::Ec { curve: Curve::P384, .. } => &[Es384],
        Material::Ed25519(_) => &[EdDsa],
    };
    if named.is_some_and(|named| !fit.contains(&named)) {
        return Err(KeyReason::UnsupportedAlgorithm);
    }
    let mut algorithms: Vec<Algorithm> =
        fit.iter().copied().filter(|fit| named.is_none_or(|named| named == *fit)).collect();
    if let Material::Secret(secret) = material {
        algorithms.retain(|algorithm| secret.len() >= algorithm.hash_bytes());
    }
    if algorithms.is_empty() { Err(KeyReason::WeakKey) } else { Ok(algorithms) }
}

fn kid(members: &Map<String, Value>) -> Result<Option<String>, KeyReason> {
    match members.get("kid") {
        None => Ok(None),
        Some(Value::String(kid)) if is_kid(kid) => Ok(Some(kid.clone())),
        Some(_) => Err(KeyReason::InvalidKid),
    }
}

/// `use` must be `sig` (RFC 7517 §4.2) and `key_ops` must have `verify`, each once (§4.3), where they are given.
fn check_use(members: &Map<String, Value>) -> Result<(), KeyReason> {
    match members.get("use") {
        None => {}
        Some(Value::String(purpose)) if purpose == "sig" => {}
        Some(Value::String(_)) => return Err(KeyReason::WrongUse),
        Some(_) => return Err(KeyReason::InvalidJwk),
    }
    let Some(operations) = members.get("key_ops") else {
        return Ok(());
    };
    let operations = operations.as_array().ok_or(KeyReason::InvalidJwk)?;
    for (index, operation) in operations.iter().enumerate() {
        if !operation.is_string() || operations[..index].contains(operation) {
            return Err(KeyReason::InvalidJwk);
        }
    }
    if operations.iter().any(|operation| operation == "verify") { Ok(()) } else { Err(KeyReason::WrongUse) }
}

fn algorithm(members: &Map<String, Value>) -> Result<Option<Algorithm>, KeyReason> {
    match members.get("alg") {
        None => Ok(None),
        Some(Value::String(name)) => Algorithm::parse(name).map(Some).map_err(|_| KeyReason::UnsupportedAlgorithm),
        Some(_) => Err(KeyReason::InvalidJwk),
    }
}

fn rsa_material(members: &Map<String, Value>) -> Result<Material, KeyReason> {
    let (n, e) = (bytes(members, "n")?, bytes(members, "e")?);
    rsa::check(&n, &e)?;
    Ok(Material::Rsa { n, e })
}

fn ec_material(members: &Map<String, Value>) -> Result<Material, KeyReason> {
    let curve = match required(members, "crv")? {
        "P-256" => Curve::P256,
        "P-384" => Curve::P384,
        _ => return Err(KeyReason::UnsupportedKey),
    };
    let mut point = vec![4];
    for name in ["x", "y"] {
        let coordinate = bytes(members, name)?;
        // RFC 7518 §6.2.1.2: the full length of a coordinate, leading zeros included.
        if coordinate.len() != curve.coordinate_bytes() {
            return Err(KeyReason::NonCanonicalKey);
        }
        point.extend_from_slice(&coordinate);
    }
    Ok(Material::Ec { curve, point })
}

fn ed_material(members: &Map<String, Value>) -> Result<Material, KeyReason> {
    if required(members, "crv")? != "Ed25519" {
        return Err(KeyReason::UnsupportedKey);
    }
    let x: [u8; 32] = bytes(members, "x")?.try_into().map_err(|_| KeyReason::NonCanonicalKey)?;
    check_ed25519(&x)?;
    Ok(Material::Ed25519(x))
}

/// Refuses the y-coordinates of the eight points of small order (anyone can sign for some of them), and encodings of
/// y that are not below 2²⁵⁵ − 19 (RFC 8032 §5.1.3). The sign bit does not matter to either.
fn check_ed25519(x: &[u8; 32]) -> Result<(), KeyReason> {
    let mut y = *x;
    y[31] &= 0x7f;
    if y[31] == 0x7f && y[1..31].iter().all(|&byte| byte == 0xff) && y[0] >= 0xed {
        return Err(KeyReason::NonCanonicalKey);
    }
    if SMALL_ORDER_Y.contains(&y) { Err(KeyReason::WeakKey) } else { Ok(()) }
}

/// 0 (order 4), 1 (order 1), −1 (order 2), and the two of order 8; little-endian.
const SMALL_ORDER_Y: [[u8; 32]; 5] = [
    [0; 32],
    [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    [
        0xec, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
        0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f,
    ],
    [
        0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98, 0xf0, 0xd5, 0xdf,
        0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53, 0xfc, 0x05,
    ],
    [
        0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67, 0x0f, 0x2a, 0x20,
        0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac, 0x03, 0x7a,
    ],
];

fn required<'a>(members: &'a Map<String, Value>, name: &str) -> Result<&'a str, KeyReason> {
    members.get(name).and_then(Value::as_str).ok_or(KeyReason::InvalidJwk)
}

fn bytes(members: &Map<String, Value>, name: &str) -> Result<Vec<u8>, KeyReason> {
    base64url::decode(required(members, name)?).map_err(|_| KeyReason::NonCanonicalKey)
}
