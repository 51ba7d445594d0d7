//! Why something was refused. The names are a contract: they stand in DETAIL as `"reason"`.

use std::fmt;

/// Why a token was refused: the bearer's fault, SQLSTATE PT401.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// Longer than [`crate::identity::jose::token::MAX_TOKEN_BYTES`].
    TokenTooLarge,
    /// Not three base64url parts with two dots between them (RFC 7515 §7.1).
    MalformedToken,
    /// A part is not canonical, unpadded base64url (RFC 7515 §2).
    MalformedBase64,
    /// The header is not a JSON object of the expected types.
    MalformedHeader,
    /// The payload is not a JSON object, or is nested too deeply, or holds U+0000.
    MalformedClaims,
    /// A JSON object names the same member twice (RFC 7515 §4, RFC 7519 §4).
    DuplicateMember,
    /// The header asks for an extension that is not supported: `crit`, `b64`, `zip`, `enc`, nested tokens.
    UnsupportedHeader,
    /// The header brings its own key: `jwk`, `jku`, `x5u`, `x5c`.
    EmbeddedKey,
    /// `alg` is `none`, in any case.
    AlgorithmNone,
    /// `alg` is not one of [`super::Algorithm`].
    UnknownAlgorithm,
    /// `kid` is not a printable string of 1 to 255 bytes.
    InvalidKid,
    /// The third part is empty.
    MissingSignature,
    /// The key is not for the header's `alg` (RFC 8725 §3.1).
    AlgorithmMismatch,
    /// The signature does not verify.
    InvalidSignature,
    /// A claim that must be there is not.
    MissingClaim(&'static str),
    /// A claim is of the wrong type or out of range.
    InvalidClaim(&'static str),
    /// `iss` is not the issuer the key belongs to.
    Issuer,
    /// `aud` names none of the audiences the issuer is configured with.
    Audience,
    /// `azp` is not one of the parties the issuer is configured with.
    AuthorizedParty,
    /// Not the kind of token the issuer is configured with: an ID token or a refresh token, for example.
    TokenType,
    /// `exp` has passed.
    Expired,
    /// `nbf` has not come yet.
    NotYetValid,
    /// `iat` lies in the future.
    IssuedInFuture,
    /// The provider says that the session is not (yet) signed in: Clerk's `sts` is `pending`.
    SessionNotActive,
}

impl Reason {
    /// The stable name, for DETAIL's `"reason"`.
    pub fn name(self) -> &'static str {
        match self {
            Reason::TokenTooLarge => "token_too_large",
            Reason::MalformedToken => "malformed_token",
            Reason::MalformedBase64 => "malformed_base64",
            Reason::MalformedHeader => "malformed_header",
            Reason::MalformedClaims => "malformed_claims",
            Reason::DuplicateMember => "duplicate_member",
            Reason::UnsupportedHeader => "unsupported_header",
            Reason::EmbeddedKey => "embedded_key",
            Reason::AlgorithmNone => "algorithm_none",
            Reason::UnknownAlgorithm => "unknown_algorithm",
            Reason::InvalidKid => "invalid_kid",
            Reason::MissingSignature => "missing_signature",
            Reason::AlgorithmMismatch => "algorithm_mismatch",
            Reason::InvalidSignature => "invalid_signature",
            Reason::MissingClaim(_) => "missing_claim",
            Reason::InvalidClaim(_) => "invalid_claim",
            Reason::Issuer => "issuer",
            Reason::Audience => "audience",
            Reason::AuthorizedParty => "authorized_party",
            Reason::TokenType => "token_type",
            Reason::Expired => "expired",
            Reason::NotYetValid => "not_yet_valid",
            Reason::IssuedInFuture => "issued_in_future",
            Reason::SessionNotActive => "session_not_active",
        }
    }

    /// The claim at fault, for DETAIL's `"claim"`, where one is.
    pub fn claim(self) -> Option<&'static str> {
        match self {
            Reason::MissingClaim(claim) | Reason::InvalidClaim(claim) => Some(claim),
            Reason::Issuer => Some("iss"),
            Reason::Audience => Some("aud"),
            Reason::AuthorizedParty => Some("azp"),
            Reason::Expired => Some("exp"),
            Reason::NotYetValid => Some("nbf"),
            Reason::IssuedInFuture => Some("iat"),
            Reason::SessionNotActive => Some("sts"),
            _ => None,
        }
    }
}

impl fmt::Display for Reason {
    /// A short message for a person. Never holds any part of the token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::TokenTooLarge => f.write_str("the token is larger than 8 KiB"),
            Reason::MalformedToken => f.write_str("the token is not a compact JWS of three parts"),
            Reason::MalformedBase64 => f.write_str("a part of the token is not canonical base64url"),
            Reason::MalformedHeader => f.write_str("the token's header is not what RFC 7515 asks for"),
            Reason::MalformedClaims => f.write_str("the token's payload is not a usable JSON object"),
            Reason::DuplicateMember => f.write_str("the token names a JSON member twice"),
            Reason::UnsupportedHeader => f.write_str("the token's header asks for an unsupported extension"),
            Reason::EmbeddedKey => f.write_str("the token brings its own key"),
            Reason::AlgorithmNone => f.write_str("the token is not signed"),
            Reason::UnknownAlgorithm => f.write_str("the token's algorithm is not supported"),
            Reason::InvalidKid => f.write_str("the token's key id is not a printable string of 1 to 255 bytes"),
            Reason::MissingSignature => f.write_str("the token has no signature"),
            Reason::AlgorithmMismatch => f.write_str("the token's algorithm is not its key's"),
            Reason::InvalidSignature => f.write_str("the token's signature is not valid"),
            Reason::MissingClaim(claim) => write!(f, "the token has no {claim} claim"),
            Reason::InvalidClaim(claim) => write!(f, "the token's {claim} claim is not valid"),
            Reason::Issuer => f.write_str("the token is from another issuer"),
            Reason::Audience => f.write_str("the token is for another audience"),
            Reason::AuthorizedParty => f.write_str("the token was given to another party"),
            Reason::TokenType => f.write_str("the token is of another type"),
            Reason::Expired => f.write_str("the token has expired"),
            Reason::NotYetValid => f.write_str("the token is not valid yet"),
            Reason::IssuedInFuture => f.write_str("the token was issued in the future"),
            Reason::SessionNotActive => f.write_str("the token's session is not signed in"),
        }
    }
}

impl std::error::Error for Reason {}

/// Why a key was refused at load: the operator's fault, SQLSTATE 22023.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyReason {
    /// Not a JSON object with the members RFC 7517 and RFC 7518 §6 ask for.
    InvalidJwk,
    /// `kty` or `crv` is not one of oct, RSA, EC P-256 and P-384, OKP Ed25519.
    UnsupportedKey,
    /// `alg` is not a supported signature algorithm, or not one for this key.
    UnsupportedAlgorithm,
    /// `use` or `key_ops` says that the key is not for verifying signatures.
    WrongUse,
    /// `kid` is not a printable string of 1 to 255 bytes.
    InvalidKid,
    /// The key holds its private part, where only the public one belongs.
    PrivateKey,
    /// A symmetric secret where a public key belongs.
    SymmetricKey,
    /// Too short, or an RSA exponent that is even, 1 or too large, or a point of small order.
    WeakKey,
    /// An RSA modulus from a library with the ROCA flaw (CVE-2017-15361).
    RocaKey,
    /// The point is not on its curve, or the numbers do not make a key.
    InvalidKey,
    /// Not the one shortest encoding: padding, leading zeros, a coordinate of the wrong length.
    NonCanonicalKey,
    /// Two keys of a set have the same `kid`.
    DuplicateKid,
    /// A set holds symmetric and asymmetric keys.
    MixedKeySet,
    /// A set holds no key that could verify a signature.
    EmptyKeySet,
}

impl KeyReason {
    /// The stable name, for DETAIL's `"reason"`.
    pub fn name(self) -> &'static str {
        match self {
            KeyReason::InvalidJwk => "invalid_jwk",
            KeyReason::UnsupportedKey => "unsupported_key",
            KeyReason::UnsupportedAlgorithm => "unsupported_algorithm",
            KeyReason::WrongUse => "wrong_use",
            KeyReason::InvalidKid => "invalid_kid",
            KeyReason::PrivateKey => "private_key",
            KeyReason::SymmetricKey => "symmetric_key",
            KeyReason::WeakKey => "weak_key",
            KeyReason::RocaKey => "roca_key",
            KeyReason::InvalidKey => "invalid_key",
            KeyReason::NonCanonicalKey => "non_canonical_key",
            KeyReason::DuplicateKid => "duplicate_kid",
            KeyReason::MixedKeySet => "mixed_key_set",
            KeyReason::EmptyKeySet => "empty_jwks",
        }
    }
}

impl fmt::Display for KeyReason {
    /// A short message for a person. Never holds any part of the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            KeyReason::InvalidJwk => "the key is not a JWK",
            KeyReason::UnsupportedKey => "the key is of an unsupported type or curve",
            KeyReason::UnsupportedAlgorithm => "the key's algorithm is not a supported one for this type of key",
            KeyReason::WrongUse => "the key is not for verifying signatures",
            KeyReason::InvalidKid => "the key id is not a printable string of 1 to 255 bytes",
            KeyReason::PrivateKey => "the key holds its private part",
            KeyReason::SymmetricKey => "the key is a symmetric secret, not a public key",
            KeyReason::WeakKey => "the key is too weak",
            KeyReason::RocaKey => "the key comes from a flawed generator (ROCA, CVE-2017-15361)",
            KeyReason::InvalidKey => "the key's numbers do not make a key",
            KeyReason::NonCanonicalKey => "the key is not in its one canonical encoding",
            KeyReason::DuplicateKid => "two keys of the set have the same key id",
            KeyReason::MixedKeySet => "the set mixes symmetric and public keys",
            KeyReason::EmptyKeySet => "the set holds no key that could verify a signature",
        })
    }
}

impl std::error::Error for KeyReason {}
