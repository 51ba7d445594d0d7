//! Signing: the keys of the signing profiles, opened once an epoch.

use super::fault;
use crate::identity::jose::{Claims, SigningKey, token::MAX_TOKEN_BYTES};
use crate::identity::{KeyRing, algorithm, find_issuer, invalid};
use crate::pg::sql::{self, Mode};
use crate::pg::{self, Error, Result, State};
use pgrx::iter::TableIterator;
use pgrx::{name, pg_extern};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

/// The claims that tenancy._mint_token sets, whatever extra holds.
const OURS: [&str; 19] = [
    "iss",
    "aud",
    "sub",
    "type",
    "iat",
    "exp",
    "jti",
    "session_id",
    "email",
    "pool",
    "clerk_org_id",
    "organization_id",
    "organization_name",
    "stripe_customer_id",
    "organization_subscription_id",
    "seat_id",
    "seat_role",
    "org_role",
    "extension_token_id",
];

thread_local! {
    /// The epoch, and what was read in it.
    static KEYS: RefCell<(u64, HashMap<String, Rc<SigningKey>>)> = RefCell::default();
}

/// Signs claims with a profile's key.
#[pg_extern(name = "_sign_token", volatile, parallel_restricted)]
fn sign_token(profile: &str, claims: &str) -> String {
    pg::entry(|| {
        let parsed = Claims::parse(claims.as_bytes()).map_err(|_| {
            invalid(
                "extra",
                "invalid_extra",
                "extra holds a number or a nesting that no verifier takes: the token would be refused everywhere",
            )
        })?;
        let key = key(profile)?;
        check_issuer(&parsed, &key, profile)?;
        let token = key.sign(claims).map_err(|_| fault("token_not_signed", "The token could not be signed"))?;
        if token.len() > MAX_TOKEN_BYTES {
            return Err(invalid(
                "extra",
                "token_too_large",
                format!("the token would be longer than {MAX_TOKEN_BYTES} bytes, and nobody would take it"),
            ));
        }
        Ok(token)
    })
}

/// Takes a signing key (NULL: makes a new one) and gives it sealed: to sign with; where it is a secret, to verify
/// with; where it is not, its public half.
#[pg_extern(name = "_make_signing_key", volatile, parallel_restricted)]
#[allow(clippy::type_complexity)]
fn make_signing_key(
    algorithm_name: &str,
    key_id: &str,
    key: Option<&[u8]>,
    signing_context: &str,
    secret_context: &str,
) -> TableIterator<
    'static,
    (name!(sealed_key, Vec<u8>), name!(sealed_secret, Option<Vec<u8>>), name!(public_jwk, Option<String>)),
> {
    pg::entry(|| {
        let algorithm = algorithm(algorithm_name)?;
        let ring = KeyRing::read()?;
        let bytes = match key {
            Some(key) => zeroize::Zeroizing::new(key.to_vec()),
            None => SigningKey::generate(algorithm).map_err(|_| fault("key_not_made", "The key could not be made"))?,
        };
        let signing = SigningKey::new(key_id, algorithm, &bytes).map_err(|reason| {
            Error::new(State::INVALID_PARAMETER, reason.name(), format!("The signing key is refused: {reason}"))
                .hint("Leave key out and a sound one is made. Else: a secret as long as the hash for HS256, PKCS#8 as DER or PEM for the others.")
        })?;
        let public = signing.verifier().public_jwk().map(|jwk| jwk.to_string());
        let sealed_secret = match public {
            None => Some(ring.seal(&bytes, secret_context)?),
            Some(_) => None,
        };
        Ok(TableIterator::once((ring.seal(&bytes, signing_context)?, sealed_secret, public)))
    })
}

/// Nothing is signed that the issuer, as it is configured here, would refuse or read as another bearer's.
fn check_issuer(claims: &Claims, key: &SigningKey, profile: &str) -> Result<()> {
    let issuer = find_issuer(claims.issuer().unwrap_or_default())?;
    if !issuer.allows(key.algorithm()) {
        return Err(Error::new(
            State::NOT_READY,
            "algorithm_not_allowed",
            "The issuer's configuration does not allow the algorithm",
        )
        .detail("profile", profile)
        .detail("algorithm", key.algorithm().name())
        .hint("Allow it: SELECT tenancy.add_issuer(issuer => …, profile => 'pooled', algorithms => …); or give the profile a key_id and an algorithm that is."));
    }
    let read = issuer.mapping.reads(claims.members(), &OURS);
    if !read.is_empty() {
        return Err(invalid("extra", "reserved_claim", "extra names claims that decide who the bearer is")
            .detail("claims", read)
            .hint("Leave them out: the issuer's claim_paths say what they mean, and the database resolves it."));
    }
    Ok(())
}

fn key(profile: &str) -> Result<Rc<SigningKey>> {
    let epoch = current_epoch()?;
    let known = KEYS.with_borrow_mut(|(own, keys)| {
        if *own != epoch {
            (*own, *keys) = (epoch, HashMap::new());
        }
        keys.get(profile).cloned()
    });
    if let Some(known) = known {
        return Ok(known);
    }
    let key = Rc::new(load(profile)?);
    KEYS.with_borrow_mut(|(own, keys)| {
        if *own == epoch && epoch == pg::epoch() {
            keys.insert(profile.to_owned(), Rc::clone(&key));
        }
    });
    Ok(key)
}

fn load(profile: &str) -> Result<SigningKey> {
    let row = sql::query_opt(
        "SELECT p.key_id, p.algorithm, p.sealed_key, tenancy._signing_context(p.name, p.key_id), \
                EXISTS (SELECT FROM tenancy.issuer_keys AS k \
                         WHERE k.issuer = p.issuer AND k.kid = p.key_id AND k.retired_at IS NULL) \
         FROM tenancy.signing_profiles AS p WHERE p.name = $1",
        &[profile.into()],
        Mode::ReadLatest,
        |row| Ok((row.text(1), row.text(2), row.get::<Vec<u8>>(3), row.text(4), row.get::<bool>(5))),
    )?;
    let Some((Some(key_id), Some(name), Some(sealed), Some(context), Some(is_good))) = row else {
        return Err(Error::new(State::NOT_READY, "no_signing_profile", "There is no signing profile of this name")
            .hint("Make one: SELECT tenancy.add_signing_profile(name => 'default', issuer => …, audience => …, algorithm => 'EdDSA', key_id => …);"));
    };
    if !is_good {
        return Err(Error::new(State::NOT_READY, "signing_key_retired", "The profile's signing key is retired")
            .detail("profile", profile)
            .detail("key_id", key_id)
            .hint("Give the profile a new key: SELECT tenancy.add_signing_profile(name => …, issuer => …, audience => …, algorithm => …, key_id => …); with a key_id of its own."));
    }
    let bytes = KeyRing::read()?.open(&sealed, &context)?;
    SigningKey::new(&key_id, algorithm(&name)?, &bytes)
        .map_err(|reason| fault(reason.name(), "A stored signing key is of no use"))
}

/// Watches the tables before they are read, so that no new key, and no retirement, is missed.
fn current_epoch() -> Result<u64> {
    thread_local! {
        static WATCHED_IN: Cell<u64> = const { Cell::new(0) };
    }
    if WATCHED_IN.get() != pg::epoch() {
        sql::table_oids(&["signing_profiles", "issuer_keys"])?.into_iter().for_each(pg::watch);
        WATCHED_IN.set(pg::epoch());
    }
    Ok(pg::epoch())
}
