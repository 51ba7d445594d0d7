//! How they prove it next time: the product's own tokens, codes and API keys.
//!
//! What is random, signed or compared in secret is done here; who gets which claims, and what happens to the rows, in
//! sql/tokens/. A secret never leaves a function that does not have to return it.

pub mod api_keys;
mod secret;
pub mod signing;

use crate::pg::{self, Error, State};
use pgrx::iter::TableIterator;
use pgrx::{name, pg_extern};

/// A new secret and what may be shown of it.
#[pg_extern(name = "_new_secret", volatile, parallel_restricted)]
fn new_secret(kind: &str) -> TableIterator<'static, (name!(secret, String), name!(shown, String))> {
    pg::entry(|| {
        let prefix = match kind {
            "api_key" => secret::API_KEY_PREFIX,
            _ => secret::CODE_PREFIX,
        };
        let text = secret::generate(prefix).ok_or_else(|| fault("no_randomness", "There is no randomness"))?;
        let shown = secret::shown(&text).to_owned();
        Ok(TableIterator::once((text, shown)))
    })
}

/// Whether a text can be a code challenge or verifier (RFC 7636 §4.1, §4.2).
#[pg_extern(name = "_is_pkce", immutable, parallel_safe)]
fn is_pkce(text: &str) -> bool {
    pg::entry(|| Ok(secret::is_pkce(text)))
}

/// Whether a verifier is the one a challenge was made from (RFC 7636 §4.6, S256).
#[pg_extern(name = "_verifier_matches", immutable, parallel_safe)]
fn verifier_matches(challenge: &str, verifier: &str) -> bool {
    pg::entry(|| Ok(secret::verifier_matches(challenge, verifier)))
}

fn fault(reason: &'static str, message: &str) -> Error {
    Error::new(State::INTERNAL, reason, message).hint("Try again; if it stays, the server's log says more.")
}
