//! The rules of tokens and keys, as plain Rust: no Postgres, no clock, no I/O.
//!
//! A token is judged in steps, and each step is one call, so that the caller decides what comes between them:
//!
//! 1. [`Token::parse`]: form and header (RFC 7515), before any key is touched;
//! 2. [`Claims::parse`]: typed claims (RFC 7519), still unverified: only `issuer` may be used, to find the key;
//! 3. [`Key::verify`]: the signature, with the algorithm bound to the key;
//! 4. [`Claims::validate_identity`] and [`claims::Times::validate`]: issuer, audience, kind of token; the clock;
//! 5. [`Mapping::resolve`]: who that is, in the words of the issuer's profile.
//!
//! Every refusal is a [`Reason`] (a bearer's fault) or a [`KeyReason`] (an operator's) with a stable name.

pub mod algorithm;
pub mod base64url;
pub mod claims;
pub mod clerk;
pub mod header;
pub mod json;
pub mod jwk;
pub mod jwks;
pub mod key;
pub mod kind;
#[allow(dead_code)] // until the tokens domain signs
pub mod private_key;
pub mod profile;
pub mod reason;
pub mod rsa;
#[allow(dead_code)] // until the tokens domain signs
pub mod sign;
pub mod thumbprint;
pub mod token;

pub use algorithm::Algorithm;
pub use claims::{Claims, Policy};
pub use jwks::KeySet;
pub use key::Key;
pub use profile::{Mapping, Profile, Subject};
pub use reason::{KeyReason, Reason};
#[allow(unused_imports)] // until the tokens domain signs
pub use sign::SigningKey;
pub use token::Token;

#[cfg(test)]
mod tests;
