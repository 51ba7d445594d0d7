//! Measures what docs/explanation/cryptography.md says, single-threaded:
//! `cargo run --release --manifest-path benches/crypto/Cargo.toml`
//!
//! Each figure is processor time (not the clock's: other work on the machine should not count), in microseconds: the
//! fastest of 15 windows of 100 ms, the median beside it.

#[allow(dead_code, unused_imports)]
#[path = "../../../src/identity/jose/mod.rs"]
mod jose;

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{self as aws, KeyPair, ParsedPublicKey, RsaKeyPair, RsaPublicKeyComponents};
use jose::{Algorithm, Claims, Mapping, Policy, Profile, SigningKey, Token};
use jsonwebtoken::crypto::{CryptoProvider, aws_lc, rust_crypto};
use jsonwebtoken::{Algorithm as Jwt, DecodingKey, EncodingKey};
use std::hint::black_box;
use std::time::{Duration, Instant};

const CLAIMS: &str = r#"{"sub":"user_2NNEqL2nrIRdJ194ndJqAHwEfxC","type":"extension_long_lived","iat":1767607200,"exp":1777975200,"iss":"softcodes.ai","aud":"vscode-extension","pool":"organization","clerk_org_id":"org_2NNFhQ7v0u1ZpK3mB9sXcT4dLeY","organization_id":"11111111-1111-4111-8111-111111111111","seat_id":"33333333-3333-4333-8333-333333333333","org_role":"org:member"}"#;

struct Case {
    algorithm: Algorithm,
    backend: Jwt,
    decoding: DecodingKey,
    encoding: Option<EncodingKey>,
    signing: SigningKey,
    parsed: Option<ParsedPublicKey>,
}

fn main() {
    for case in cases() {
        measure(&case);
    }
    measure_rules();
}

fn measure(case: &Case) {
    let text = case.signing.sign(CLAIMS).unwrap();
    let token = Token::parse(&text).unwrap();
    let (input, signature) = (token.signing_input().as_bytes(), token.signature());
    let name = case.algorithm.name();
    println!("\n{name}: a token of {} bytes", text.len());
    let providers: [(&str, &CryptoProvider); 2] =
        [("aws_lc_rs", &aws_lc::DEFAULT_PROVIDER), ("rust_crypto", &rust_crypto::DEFAULT_PROVIDER)];
    for (backend, provider) in providers {
        let verifier = (provider.verifier_factory)(&case.backend, &case.decoding).unwrap();
        time(&format!("{name} verify, jsonwebtoken with {backend}"), || verifier.verify(input, signature).unwrap());
    }
    if let Some(parsed) = &case.parsed {
        time(&format!("{name} verify, aws-lc-rs with a parsed key"), || parsed.verify_sig(input, signature).unwrap());
    }
    time(&format!("{name} verify, Key::verify"), || case.signing.verifier().verify(&token).unwrap());
    if let Some(encoding) = &case.encoding {
        for (backend, provider) in providers {
            if let Ok(signer) = (provider.signer_factory)(&case.backend, encoding) {
                time(&format!("{name} sign, jsonwebtoken with {backend}"), || drop(signer.sign(input)));
            }
        }
    }
    time(&format!("{name} sign, SigningKey::sign"), || drop(case.signing.sign(CLAIMS)));
}

/// Everything but the signature: what a token costs whose signature is known.
fn measure_rules() {
    let key = SigningKey::new("k1", Algorithm::Hs256, &[7; 32]).unwrap();
    let text = key.sign(CLAIMS).unwrap();
    let token = Token::parse(&text).unwrap();
    let claims = Claims::parse(token.payload()).unwrap();
    let mapping = Mapping::new(Profile::Pooled, None).unwrap();
    let policy = Policy {
        issuer: "softcodes.ai".into(),
        audiences: vec!["vscode-extension".into()],
        authorized_parties: Vec::new(),
        token_types: None,
        require_expiry: true,
        leeway: 0,
    };
    println!();
    time("SHA-256 of the token", || {
        black_box(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes()));
    });
    time("Token::parse", || drop(black_box(Token::parse(&text))));
    time("Claims::parse", || drop(black_box(Claims::parse(token.payload()))));
    time("Claims::validate_identity", || claims.validate_identity(Some("JWT"), &policy).unwrap());
    time("Claims::validate_times", || claims.validate_times(&policy, 1_767_607_300).unwrap());
    time("Mapping::resolve", || drop(black_box(mapping.resolve(&claims))));
}

fn cases() -> Vec<Case> {
    let secret = [7; 32];
    let rsa = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    let RsaPublicKeyComponents { n, e } = RsaPublicKeyComponents::<Vec<u8>>::from(rsa.public_key());
    let rsa_der = AsDer::<Pkcs8V1Der>::as_der(&rsa).unwrap();
    // PKCS#8 wraps the PKCS#1 that jsonwebtoken wants: after version, algorithm and two octet-string headers.
    let pkcs1 = EncodingKey::from_rsa_der(&rsa_der.as_ref()[26..]);
    let rsa_case = |algorithm, backend, parameters: &'static aws::RsaParameters| Case {
        algorithm,
        backend,
        decoding: DecodingKey::from_rsa_raw_components(&n, &e),
        encoding: Some(pkcs1.clone()),
        signing: SigningKey::new("k1", algorithm, rsa_der.as_ref()).unwrap(),
        parsed: RsaPublicKeyComponents { n: &n, e: &e }.to_parsed_public_key(parameters).ok(),
    };
    let ec_case = |algorithm,
                   backend,
                   signing: &'static aws::EcdsaSigningAlgorithm,
                   verifying: &'static aws::EcdsaVerificationAlgorithm| {
        let pair = aws::EcdsaKeyPair::generate(signing).unwrap();
        let der = pair.to_pkcs8v1().unwrap();
        Case {
            algorithm,
            backend,
            decoding: DecodingKey::from_ec_der(pair.public_key().as_ref()),
            encoding: Some(EncodingKey::from_ec_der(der.as_ref())),
            signing: SigningKey::new("k1", algorithm, der.as_ref()).unwrap(),
            parsed: ParsedPublicKey::new(verifying, pair.public_key()).ok(),
        }
    };
    let ed = aws::Ed25519KeyPair::generate().unwrap();
    let ed_der = ed.to_pkcs8v1().unwrap();
    vec![
        Case {
            algorithm: Algorithm::Hs256,
            backend: Jwt::HS256,
            decoding: DecodingKey::from_secret(&secret),
            encoding: Some(EncodingKey::from_secret(&secret)),
            signing: SigningKey::new("k1", Algorithm::Hs256, &secret).unwrap(),
            parsed: None,
        },
        rsa_case(Algorithm::Rs256, Jwt::RS256, &aws::RSA_PKCS1_2048_8192_SHA256),
        rsa_case(Algorithm::Ps256, Jwt::PS256, &aws::RSA_PSS_2048_8192_SHA256),
        ec_case(Algorithm::Es256, Jwt::ES256, &aws::ECDSA_P256_SHA256_FIXED_SIGNING, &aws::ECDSA_P256_SHA256_FIXED),
        ec_case(Algorithm::Es384, Jwt::ES384, &aws::ECDSA_P384_SHA384_FIXED_SIGNING, &aws::ECDSA_P384_SHA384_FIXED),
        Case {
            algorithm: Algorithm::EdDsa,
            backend: Jwt::EdDSA,
            decoding: DecodingKey::from_ed_der(ed.public_key().as_ref()),
            encoding: Some(EncodingKey::from_ed_der(ed_der.as_ref())),
            signing: SigningKey::new("k1", Algorithm::EdDsa, ed_der.as_ref()).unwrap(),
            parsed: ParsedPublicKey::new(&aws::ED25519, ed.public_key()).ok(),
        },
    ]
}

fn time(what: &str, mut work: impl FnMut()) {
    const WINDOW: Duration = Duration::from_millis(100);
    let mut figures: Vec<f64> = (0..15)
        .map(|_| {
            let (window, start, mut times) = (Instant::now(), processor_time(), 0.0);
            while window.elapsed() < WINDOW {
                (0..8).for_each(|_| work());
                times += 8.0;
            }
            (processor_time() - start) / times
        })
        .collect();
    figures.sort_by(f64::total_cmp);
    println!("{what:48} {:9.2} µs (median {:9.2})", figures[0], figures[7]);
}

/// Microseconds this thread has spent on a processor, from Linux' scheduler.
fn processor_time() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux with scheduler statistics");
    text.split(' ').next().and_then(|nanoseconds| nanoseconds.parse::<f64>().ok()).expect("a number") / 1e3
}
