//! Keys as operators and providers have them, and as attackers would like them.

use super::private_key;
use crate::identity::jose::reason::{KeyReason, Reason};
use crate::identity::jose::{Algorithm, Key, SigningKey, Token, base64url};
use serde_json::{Value, json};

/// RFC 8037 appendix A.2.
const X: &str = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";

fn ed(members: Value) -> Result<Key, KeyReason> {
    let mut jwk = json!({"kty": "OKP", "crv": "Ed25519", "x": X});
    for (name, value) in members.as_object().expect("members") {
        jwk[name] = value.clone();
    }
    Key::from_jwk(&jwk)
}

fn public_jwk(algorithm: Algorithm) -> Value {
    let bytes = private_key(algorithm);
    SigningKey::new("k1", algorithm, &bytes).unwrap().verifier().public_jwk().unwrap()
}

#[test]
fn use_key_ops_and_alg_are_honoured() {
    for members in [
        json!({}),
        json!({"use": "sig"}),
        json!({"alg": "EdDSA"}),
        json!({"key_ops": ["verify"]}),
        json!({"key_ops": ["sign", "verify"]}),
        json!({"kid": "a", "x5c": ["ignored"], "unknown": 1}),
    ] {
        assert!(ed(members.clone()).is_ok(), "{members}");
    }
    for (members, reason) in [
        (json!({"use": "enc"}), KeyReason::WrongUse),
        (json!({"use": 1}), KeyReason::InvalidJwk),
        (json!({"key_ops": ["sign"]}), KeyReason::WrongUse),
        (json!({"key_ops": []}), KeyReason::WrongUse),
        (json!({"key_ops": ["verify", "verify"]}), KeyReason::InvalidJwk),
        (json!({"key_ops": "verify"}), KeyReason::InvalidJwk),
        (json!({"alg": "ES256"}), KeyReason::UnsupportedAlgorithm),
        (json!({"alg": "none"}), KeyReason::UnsupportedAlgorithm),
        (json!({"alg": null}), KeyReason::InvalidJwk),
        (json!({"crv": "Ed448"}), KeyReason::UnsupportedKey),
        (json!({"kty": "okp"}), KeyReason::UnsupportedKey),
        (json!({"kid": ""}), KeyReason::InvalidKid),
        (json!({"kid": 1}), KeyReason::InvalidKid),
        (json!({"d": X}), KeyReason::PrivateKey),
        (json!({"x": 1}), KeyReason::InvalidJwk),
        (json!({"x": "AQ"}), KeyReason::NonCanonicalKey),
        (json!({"x": format!("{X}=")}), KeyReason::NonCanonicalKey),
    ] {
        assert_eq!(ed(members.clone()).unwrap_err(), reason, "{members}");
    }
    for value in [json!(null), json!([]), json!("x"), json!({})] {
        assert_eq!(Key::from_jwk(&value).unwrap_err(), KeyReason::InvalidJwk);
    }
}

#[test]
fn a_key_without_alg_verifies_what_its_numbers_are_fit_for() {
    let algorithms = |key: &Key| key.algorithms().map(Algorithm::name).collect::<Vec<_>>();
    let mut rsa = public_jwk(Algorithm::Rs256);
    assert_eq!(algorithms(&Key::from_jwk(&rsa).unwrap()), ["RS256"]);
    rsa.as_object_mut().unwrap().remove("alg");
    let key = Key::from_jwk(&rsa).unwrap();
    assert_eq!(algorithms(&key), ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"]);
    assert_eq!(key.public_jwk().unwrap(), rsa);
    let secret = |bytes: usize| Key::from_jwk(&json!({"kty": "oct", "k": base64url::encode(&vec![7; bytes])}));
    assert_eq!(secret(31).unwrap_err(), KeyReason::WeakKey);
    assert_eq!(algorithms(&secret(32).unwrap()), ["HS256"]);
    assert_eq!(algorithms(&secret(48).unwrap()), ["HS256", "HS384"]);
    assert_eq!(algorithms(&secret(64).unwrap()), ["HS256", "HS384", "HS512"]);
}

#[test]
fn attack_22_a_public_key_is_never_an_hmac_secret() {
    let rsa = public_jwk(Algorithm::Rs256);
    let key = Key::from_jwk(&rsa).unwrap();
    // What the attacker has: the modulus, or the whole JWK, as an HMAC secret.
    let modulus = base64url::decode(rsa["n"].as_str().unwrap()).unwrap();
    for secret in [modulus, rsa.to_string().into_bytes()] {
        let forged = SigningKey::new("k1", Algorithm::Hs256, &secret).unwrap().sign("{}").unwrap();
        assert_eq!(key.verify(&Token::parse(&forged).unwrap()), Err(Reason::AlgorithmMismatch));
    }
    let bytes = private_key(Algorithm::Rs256);
    let signed = SigningKey::new("k1", Algorithm::Rs512, &bytes).unwrap().sign("{}").unwrap();
    assert_eq!(key.verify(&Token::parse(&signed).unwrap()), Err(Reason::AlgorithmMismatch));
}

#[test]
fn attack_33_ecdsa_signatures_are_fixed_length_and_never_zero() {
    let key = Key::from_jwk(&public_jwk(Algorithm::Es256)).unwrap();
    let refused = |signature: Vec<u8>| key.verify_signature(Algorithm::Es256, b"x", &signature).unwrap_err();
    let der = [&[0x30, 0x44, 0x02, 0x20][..], &[1; 32], &[0x02, 0x20], &[1; 32]].concat();
    let half = |byte| vec![byte; 32];
    for signature in [
        vec![],
        vec![0; 64],
        [half(0), half(1)].concat(),
        [half(1), half(0)].concat(),
        vec![1; 63],
        vec![1; 65],
        vec![0xff; 64],
        der,
    ] {
        assert_eq!(refused(signature), Reason::InvalidSignature);
    }
}

#[test]
fn attack_34_points_that_prove_nothing_are_refused() {
    let mut ec = public_jwk(Algorithm::Es256);
    ec["y"] = ec["x"].clone();
    assert_eq!(Key::from_jwk(&ec).unwrap_err(), KeyReason::InvalidKey);
    let mut short = public_jwk(Algorithm::Es384);
    short["crv"] = "P-256".into();
    assert_eq!(Key::from_jwk(&short).unwrap_err(), KeyReason::NonCanonicalKey);
    // The points of small order, with either sign, and encodings of y at or above the field's prime.
    let mut one = [0; 32];
    one[0] = 1;
    let mut minus_one = [0xff; 32];
    (minus_one[0], minus_one[31]) = (0xec, 0x7f);
    for mut y in [[0; 32], one, minus_one] {
        for sign in [0, 0x80] {
            y[31] |= sign;
            assert_eq!(ed(json!({"x": base64url::encode(&y)})).unwrap_err(), KeyReason::WeakKey);
        }
    }
    let order_8 = "JuiVj8KyJ7BFw_SJ8u-Y8NXfrAXTxjM5sTgCiG1T_AU";
    assert_eq!(ed(json!({"x": order_8})).unwrap_err(), KeyReason::WeakKey);
    for first in 0xed..=0xff {
        let mut y = [0xff; 32];
        (y[0], y[31]) = (first, 0x7f);
        assert_eq!(ed(json!({"x": base64url::encode(&y)})).unwrap_err(), KeyReason::NonCanonicalKey);
    }
}

#[test]
fn debug_shows_no_secret() {
    let key = Key::from_secret(Some("k1"), Algorithm::Hs256, &[7; 32]).unwrap();
    assert_eq!(format!("{key:?}"), "Key { kid: Some(\"k1\"), algorithms: [Hs256], .. }");
}
