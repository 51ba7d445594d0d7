//! Private keys in the forms that operators have them: PKCS#8, PKCS#1 and SEC 1, as DER or PEM.

use super::algorithm::{Algorithm, Family};
use super::jwk::Curve;
use super::reason::KeyReason;
use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::rand;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm,
    Ed25519KeyPair, RsaKeyPair,
};
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject as _;
use zeroize::Zeroizing;

/// The DER of a private key; what is in it shows when it is used.
pub struct PrivateKey(Zeroizing<Vec<u8>>);

impl PrivateKey {
    /// Takes DER as it is, and the first private key out of PEM.
    pub fn parse(key: &[u8]) -> Result<PrivateKey, KeyReason> {
        if !key.starts_with(b"-----BEGIN ") {
            return Ok(PrivateKey(Zeroizing::new(key.to_vec())));
        }
        let der = PrivateKeyDer::from_pem_slice(key).map_err(|_| KeyReason::InvalidKey)?;
        Ok(PrivateKey(Zeroizing::new(der.secret_der().to_vec())))
    }

    /// Makes the bytes of a new key for the algorithm: a secret of the hash's length, or PKCS#8.
    pub fn generate(algorithm: Algorithm) -> Result<Zeroizing<Vec<u8>>, Unspecified> {
        let bytes = match algorithm.family() {
            Family::Hmac => {
                let mut secret = vec![0; algorithm.hash_bytes()];
                rand::fill(&mut secret)?;
                secret
            }
            Family::Rsa => {
                let pair = RsaKeyPair::generate(KeySize::Rsa2048)?;
                AsDer::<Pkcs8V1Der<'static>>::as_der(&pair)?.as_ref().to_vec()
            }
            Family::Ec if algorithm == Algorithm::Es384 => generate_ec(Curve::P384)?,
            Family::Ec => generate_ec(Curve::P256)?,
            Family::Ed => Ed25519KeyPair::generate()?.to_pkcs8v1()?.as_ref().to_vec(),
        };
        Ok(Zeroizing::new(bytes))
    }

    /// The key as an RSA key pair.
    pub fn rsa(&self) -> Result<RsaKeyPair, KeyReason> {
        let pair = RsaKeyPair::from_pkcs8(&self.0).or_else(|_| RsaKeyPair::from_der(&self.0));
        pair.map_err(|_| KeyReason::InvalidKey)
    }

    /// The key as a key pair on that curve.
    pub fn ec(&self, curve: Curve) -> Result<EcdsaKeyPair, KeyReason> {
        EcdsaKeyPair::from_private_key_der(backend(curve), &self.0).map_err(|_| KeyReason::InvalidKey)
    }

    /// The key as an Ed25519 key pair.
    pub fn ed25519(&self) -> Result<Ed25519KeyPair, KeyReason> {
        Ed25519KeyPair::from_pkcs8(&self.0).map_err(|_| KeyReason::InvalidKey)
    }
}

fn generate_ec(curve: Curve) -> Result<Vec<u8>, Unspecified> {
    Ok(EcdsaKeyPair::generate(backend(curve))?.to_pkcs8v1()?.as_ref().to_vec())
}

fn backend(curve: Curve) -> &'static EcdsaSigningAlgorithm {
    match curve {
        Curve::P256 => &ECDSA_P256_SHA256_FIXED_SIGNING,
        Curve::P384 => &ECDSA_P384_SHA384_FIXED_SIGNING,
    }
}
