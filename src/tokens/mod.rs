//! How they prove it next time: the product's own tokens, codes and API keys.
//!
//! What is random, signed or compared in secret is done here; who gets which claims, and what happens to the rows, in
//! sql/tokens/. A secret never leaves a function that does not have to return it.

pub mod api_keys;
pub mod origin;
mod secret;
pub mod signing;

use crate::identity::{self, Named};
use crate::pg::{self, Error, State};
use pgrx::datum::TimestampWithTimeZone;
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

/// Refuses, as authenticating would now, an identity whose token or key is no longer good: a transaction that began
/// before it was revoked gives its bearer nothing that lasts. Whom a service acts as is the service's to judge.
#[pg_extern(name = "_require_good_identity", volatile, parallel_unsafe)]
fn require_good_identity() {
    pg::entry(|| match pg::current_value() {
        Some(identity) if identity.source == "token" => Ok(identity::still_good(&identity)?),
        Some(identity) if identity.source == "api_key" => api_keys::still_good(&identity),
        _ => Ok(()),
    })
}

/// Whether the identity came from a token that a signing profile's key signed; false without a live identity.
#[pg_extern(name = "_issued_here", stable, parallel_safe)]
fn issued_here() -> bool {
    pg::entry(|| Ok(pg::current_value().is_some_and(|identity| identity.issued_here)))
}

/// The role that the directory gives the identity's user in its organization, by what is committed at this moment.
#[pg_extern(name = "_directory_role", stable, parallel_restricted)]
fn directory_role() -> Option<String> {
    pg::entry(|| {
        let Some(identity) = pg::current_value() else { return Ok(None) };
        let (user, org) = (identity.user_id.as_str(), identity.org_id.as_deref());
        Ok(identity::resolve(&Named { namespace: &identity.namespace, user, org, tenant: None })?.org_role)
    })
}

/// Whether a session is revoked, or a user since a time, by what is committed at this moment.
#[pg_extern(name = "_is_revoked", stable, parallel_restricted)]
fn is_revoked(
    issuer: Option<&str>,
    session_id: Option<&str>,
    namespace: &str,
    user_id: Option<&str>,
    since: TimestampWithTimeZone,
) -> bool {
    pg::entry(|| {
        let (issuer, user) = (issuer.unwrap_or_default(), user_id.unwrap_or_default());
        identity::is_revoked_now(issuer, session_id, namespace, user, i64::from(since))
    })
}

fn fault(reason: &'static str, message: &str) -> Error {
    Error::new(State::INTERNAL, reason, message).hint("Try again; if it stays, the server's log says more.")
}
