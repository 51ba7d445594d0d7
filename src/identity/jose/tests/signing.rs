//! What we sign, we verify; and nobody else's key does.

use super::{generated, private_key};
use crate::identity::jose::reason::{KeyReason, Reason};
use crate::identity::jose::{Algorithm, Claims, Key, SigningKey, Token};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

fn pem(label: &str, der: &[u8]) -> String {
    let lines: Vec<String> =
        STANDARD.encode(der).as_bytes().chunks(64).map(|line| String::from_utf8_lossy(line).into_owned()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

#[test]
fn every_algorithm_signs_what_its_key_verifies() {
    for algorithm in Algorithm::ALL {
        let key = SigningKey::new("k1", algorithm, &private_key(algorithm)).unwrap();
        let text = key.sign(r#"{"sub": "user_1"}"#).unwrap();
        let token = Token::parse(&text).unwrap();
        assert_eq!((token.header().algorithm, token.header().kid.as_deref()), (algorithm, Some("k1")));
        assert_eq!(token.header().typ.as_deref(), Some("JWT"));
        assert_eq!(key.verifier().verify(&token), Ok(()), "{algorithm}");
        assert_eq!(Claims::parse(token.payload()).unwrap().subject(), Some("user_1"));
    }
}

#[test]
fn another_key_does_not_verify_it() {
    for algorithm in [Algorithm::Hs256, Algorithm::Rs256, Algorithm::Es256, Algorithm::EdDsa] {
        let text = SigningKey::new("k1", algorithm, &private_key(algorithm)).unwrap().sign("{}").unwrap();
        let other = SigningKey::new("k1", algorithm, &generated(algorithm)).unwrap();
        let refused = other.verifier().verify(&Token::parse(&text).unwrap());
        assert_eq!(refused, Err(Reason::InvalidSignature), "{algorithm}");
    }
}

#[test]
fn the_published_jwk_verifies_and_holds_nothing_private() {
    for algorithm in [Algorithm::Rs256, Algorithm::Ps512, Algorithm::Es256, Algorithm::Es384, Algorithm::EdDsa] {
        let key = SigningKey::new("k1", algorithm, &private_key(algorithm)).unwrap();
        let jwk = key.verifier().public_jwk().unwrap();
        assert!(!jwk.as_object().unwrap().contains_key("d"));
        assert_eq!(jwk["alg"], algorithm.name());
        let text = key.sign("{}").unwrap();
        let token = Token::parse(&text).unwrap();
        assert_eq!(Key::from_jwk(&jwk).unwrap().verify(&token), Ok(()), "{algorithm}");
    }
    let secret = private_key(Algorithm::Hs256);
    assert_eq!(SigningKey::new("k1", Algorithm::Hs256, &secret).unwrap().verifier().public_jwk(), None);
}

#[test]
fn private_keys_come_as_der_or_pem() {
    for algorithm in [Algorithm::Rs256, Algorithm::Es256, Algorithm::EdDsa] {
        let der = private_key(algorithm);
        let from_der = SigningKey::new("k", algorithm, &der).unwrap();
        let from_pem = SigningKey::new("k", algorithm, pem("PRIVATE KEY", &der).as_bytes()).unwrap();
        assert_eq!(from_der.verifier().thumbprint(), from_pem.verifier().thumbprint());
    }
}

#[test]
fn keys_of_another_kind_are_refused() {
    let p256 = private_key(Algorithm::Es256);
    for algorithm in [Algorithm::Rs256, Algorithm::Es384, Algorithm::EdDsa] {
        assert_eq!(SigningKey::new("k", algorithm, &p256).unwrap_err(), KeyReason::InvalidKey, "{algorithm}");
    }
    assert_eq!(SigningKey::new("k", Algorithm::Hs256, &[7; 31]).unwrap_err(), KeyReason::WeakKey);
    assert_eq!(SigningKey::new("k", Algorithm::Rs256, b"-----BEGIN nonsense").unwrap_err(), KeyReason::InvalidKey);
    assert_eq!(SigningKey::new("", Algorithm::Hs256, &[7; 32]).unwrap_err(), KeyReason::InvalidKid);
}

#[test]
fn attack_33_every_changed_signature_bit_is_noticed() {
    for algorithm in [Algorithm::Hs256, Algorithm::Es256, Algorithm::EdDsa] {
        let key = SigningKey::new("k", algorithm, &private_key(algorithm)).unwrap();
        let text = key.sign("{}").unwrap();
        let token = Token::parse(&text).unwrap();
        for bit in 0..token.signature().len() * 8 {
            let mut signature = token.signature().clone();
            signature[bit / 8] ^= 1 << (bit % 8);
            let input = token.signing_input().as_bytes();
            let refused = key.verifier().verify_signature(algorithm, input, &signature);
            assert_eq!(refused, Err(Reason::InvalidSignature), "{algorithm} bit {bit}");
        }
    }
}
