//! Secrets handed to bearers: 32 random bytes with a visible prefix and a checksum.

use crate::identity::jose::base64url;
use crate::identity::sha256;
use aws_lc_rs::{constant_time, rand};

/// Bytes of randomness in a secret.
const SECRET_BYTES: usize = 32;
/// Characters of the checksum: 24 bits are enough to tell a typing mistake from a key.
const CHECKSUM_CHARS: usize = 4;
/// Characters shown in lists, the prefix included.
const SHOWN_CHARS: usize = 12;
/// What API keys begin with, so that scanners of source code find them.
pub const API_KEY_PREFIX: &str = "pgt_";
/// What authorization codes begin with.
pub const CODE_PREFIX: &str = "pgc_";

/// A new secret: prefix ‖ base64url(32 random bytes) ‖ checksum.
pub fn generate(prefix: &str) -> Option<String> {
    let mut bytes = [0; SECRET_BYTES];
    rand::fill(&mut bytes).ok()?;
    let mut text = format!("{prefix}{}", base64url::encode(&bytes));
    text.push_str(&checksum(&text));
    Some(text)
}

/// Whether the text has the form of a secret with that prefix, its checksum included. Costs one hash, and spares a
/// look into the table for everything that was never one of ours.
pub fn is_well_formed(text: &str, prefix: &str) -> bool {
    let length = prefix.len() + SECRET_BYTES.div_ceil(3) * 4 - 1 + CHECKSUM_CHARS;
    text.len() == length && text.is_ascii() && text.starts_with(prefix) && {
        let (body, sum) = text.split_at(length - CHECKSUM_CHARS);
        checksum(body) == sum
    }
}

/// What may be shown of a secret: 8 of its 43 random characters.
pub fn shown(text: &str) -> &str {
    text.get(..SHOWN_CHARS).unwrap_or_default()
}

/// RFC 7636 §4.6, S256: whether base64url(SHA-256(verifier)) is the challenge. A verifier has 43 to 128 unreserved
/// characters (§4.1); anything else matches nothing.
pub fn verifier_matches(challenge: &str, verifier: &str) -> bool {
    is_pkce(verifier)
        && constant_time::verify_slices_are_equal(
            base64url::encode(&sha256(verifier.as_bytes())).as_bytes(),
            challenge.as_bytes(),
        )
        .is_ok()
}

/// The form of challenges and verifiers: 43 to 128 characters of `A-Z a-z 0-9 - . _ ~`.
pub fn is_pkce(text: &str) -> bool {
    (43..=128).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte))
}

fn checksum(text: &str) -> String {
    base64url::encode(&sha256(text.as_bytes())[..3])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_random_prefixed_and_checked() {
        let (one, other) = (generate(API_KEY_PREFIX).unwrap(), generate(API_KEY_PREFIX).unwrap());
        assert_ne!(one, other);
        assert_eq!(one.len(), 4 + 43 + 4);
        assert!(is_well_formed(&one, API_KEY_PREFIX) && !is_well_formed(&one, CODE_PREFIX));
        assert_eq!(shown(&one), &one[..12]);
        for index in 0..one.len() {
            let mut changed = one.clone().into_bytes();
            changed[index] = if changed[index] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).unwrap();
            assert!(!is_well_formed(&changed, API_KEY_PREFIX), "{index}");
        }
        for text in ["", "pgt_", &one[..one.len() - 1], &format!("{one}A"), &format!(" {}", &one[1..])] {
            assert!(!is_well_formed(text, API_KEY_PREFIX));
        }
        assert!(!is_well_formed(&format!("pgt_{}é", &one[..45]), API_KEY_PREFIX));
    }

    #[test]
    fn rfc_7636_appendix_b() {
        let verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
        let challenge = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
        assert!(verifier_matches(challenge, verifier));
    }

    #[test]
    fn edge_cases_of_challenge_and_verifier() {
        let challenge = |verifier: &str| base64url::encode(&sha256(verifier.as_bytes()));
        for (verifier, matches) in [
            ("a".repeat(42), false),
            ("a".repeat(43), true),
            ("a".repeat(128), true),
            ("a".repeat(129), false),
            ("-._~".repeat(11), true),
            (format!("{} ", "a".repeat(43)), false),
            (format!("{}=", "a".repeat(43)), false),
            (format!("{}+/", "a".repeat(43)), false),
            (format!("{}\n", "a".repeat(43)), false),
            ("é".repeat(43), false),
            (String::new(), false),
        ] {
            assert_eq!(verifier_matches(&challenge(&verifier), &verifier), matches, "{verifier:?}");
        }
        let verifier = "a".repeat(43);
        let right = challenge(&verifier);
        // The method plain does not exist: a challenge never matches itself.
        assert!(!verifier_matches(&right, &right));
        assert!(!verifier_matches(&verifier, &verifier));
        for wrong in [format!("{right}="), right[..42].to_owned(), right.to_lowercase(), String::new()] {
            assert!(!verifier_matches(&wrong, &verifier), "{wrong}");
        }
    }
}
