//! What the SQL of sql/identity/issuers.sql asks of the rules: keys checked, secrets sealed.

use super::issuers::{self, Configuration};
use super::jose::{Key, KeyReason, KeySet, Token, algorithm::Family};
use super::master_key::{self, KeyRing};
use crate::pg::{self, Error, State};
use pgrx::iter::TableIterator;
use pgrx::{name, pg_extern};
use serde_json::Value;

/// A set of keys of any provider is far smaller; reading a larger one would take its size in memory several times.
const MAX_JWKS_BYTES: usize = 1024 * 1024;

/// Checks an issuer's configuration; true, or 22023.
#[pg_extern(name = "_check_issuer", stable, parallel_safe)]
fn check_issuer(
    audiences: Option<Vec<Option<String>>>,
    profile: Option<&str>,
    algorithms: Option<Vec<Option<String>>>,
    token_types: Option<Vec<Option<String>>>,
    claim_paths: Option<&str>,
    authorized_parties: Option<Vec<Option<String>>>,
) -> bool {
    // A NULL in a list counts as an empty name, which is refused.
    let names = |list: Vec<Option<String>>| list.into_iter().map(Option::unwrap_or_default).collect::<Vec<_>>();
    pg::entry(move || {
        issuers::configuration(Configuration {
            issuer: "",
            audiences: audiences.map(names).ok_or_else(|| {
                issuers::invalid("audiences", "audience_required", "audiences must not be NULL")
                    .hint("Name the service's audience; '{}' for an issuer whose tokens carry no aud.")
            })?,
            profile: profile.unwrap_or_default(),
            namespace: "",
            algorithms: algorithms.map(names),
            leeway: 0,
            token_types: token_types.map(names),
            claim_paths: claim_paths.map(str::to_owned),
            require_expiry: true,
            authorized_parties: authorized_parties.map(names),
        })
        .map(|_| true)
    })
}

/// Checks a public key; gives its kid (or thumbprint) and, where it is bound to one, its algorithm.
#[pg_extern(name = "_check_jwk", stable, parallel_safe)]
fn check_jwk(
    jwk: Option<&str>,
) -> TableIterator<'static, (name!(kid, String), name!(algorithm, Option<String>), name!(jwk, String))> {
    pg::entry(|| {
        let key = Key::from_jwk(&parse(jwk, KeyReason::InvalidJwk)?).map_err(refused)?;
        if key.is_symmetric() {
            return Err(refused(KeyReason::SymmetricKey).hint("A shared secret goes through tenancy.add_secret(…)."));
        }
        Ok(TableIterator::once(public(&key)?))
    })
}

/// Checks a set of public keys; one row a key that can verify signatures.
#[pg_extern(name = "_check_jwks", stable, parallel_safe)]
fn check_jwks(
    jwks: Option<&str>,
) -> TableIterator<'static, (name!(kid, String), name!(algorithm, Option<String>), name!(jwk, String))> {
    pg::entry(|| {
        let set = KeySet::parse(&parse(jwks, KeyReason::InvalidJwk)?).map_err(refused)?;
        if set.keys.iter().any(Key::is_symmetric) {
            return Err(refused(KeyReason::SymmetricKey).hint("A shared secret goes through tenancy.add_secret(…)."));
        }
        let rows = set.keys.iter().map(public).collect::<pg::Result<Vec<_>>>()?;
        Ok(TableIterator::new(rows))
    })
}

/// Whether two JWKs are the same key (RFC 7638), whatever else they say.
#[pg_extern(name = "_same_key", stable, parallel_safe)]
fn same_key(one: &str, other: &str) -> bool {
    let thumbprint = |jwk: &str| {
        let key = Key::from_jwk(&serde_json::from_str(jwk).ok()?).ok()?;
        key.thumbprint().map(str::to_owned)
    };
    pg::entry(|| Ok(thumbprint(one).is_some() && thumbprint(one) == thumbprint(other)))
}

/// Checks an HMAC secret; true, or 22023.
#[pg_extern(name = "_check_secret", stable, parallel_safe)]
fn check_secret(algorithm: Option<&str>, secret: Option<&[u8]>) -> bool {
    pg::entry(|| {
        let algorithm = issuers::algorithm(algorithm.unwrap_or_default())?;
        if algorithm.family() != Family::Hmac {
            return Err(issuers::invalid(
                "algorithm",
                "unsupported_algorithm",
                "a secret is for HS256, HS384 or HS512",
            )
            .hint("A public key goes through tenancy.add_key(…)."));
        }
        let secret = secret.ok_or_else(|| issuers::invalid("secret", "invalid_argument", "secret must not be NULL"))?;
        Key::from_secret(None, algorithm, secret).map_err(|reason| {
            refused(reason).hint(format!(
                "Use a secret of at least {} random bytes for {}, as long as the hash (RFC 7518 §3.2).",
                algorithm.hash_bytes(),
                algorithm.name()
            ))
        })?;
        Ok(true)
    })
}

/// Seals a secret under the master key, for the place that context names.
#[pg_extern(name = "_seal", volatile, parallel_restricted)]
fn seal(secret: &[u8], context: &str) -> Vec<u8> {
    pg::entry(|| KeyRing::read()?.seal(secret, context))
}

/// Opens what `_seal` sealed for that place.
#[pg_extern(name = "_unseal", volatile, parallel_restricted)]
fn unseal(sealed: &[u8], context: &str) -> Vec<u8> {
    pg::entry(|| Ok(KeyRing::read()?.open(sealed, context)?.to_vec()))
}

/// Whether a box is sealed under the current master key.
#[pg_extern(name = "_sealed_under_current_key", volatile, parallel_restricted)]
fn sealed_under_current_key(sealed: &[u8]) -> bool {
    pg::entry(|| Ok(KeyRing::read()?.is_current(sealed)))
}

/// SHA-256 of the master key file in use, in hex.
#[pg_extern(name = "_master_key_file_sha256", volatile, parallel_restricted)]
fn master_key_file_sha256() -> String {
    pg::entry(master_key::file_sha256)
}

/// Verifies the signature of a compact JWS with a JWK, or with the key of a JWK set that its kid names; the payload
/// may be anything. Says nothing about claims.
#[pg_extern(stable, parallel_safe)]
fn jws_verify(jwk: pg::Jsonb, jws: &str) -> bool {
    pg::entry(move || {
        if jwk.size() > MAX_JWKS_BYTES {
            return Err(refused(KeyReason::InvalidJwk));
        }
        let jwk = parse(Some(&jwk.text()), KeyReason::InvalidJwk)?;
        let keys = match jwk.get("keys") {
            Some(_) => KeySet::parse(&jwk).map_err(refused)?.keys,
            None => vec![Key::from_jwk(&jwk).map_err(refused)?],
        };
        let Ok(token) = Token::parse(jws) else { return Ok(false) };
        let kid = token.header().kid.as_deref();
        let fits = |key: &&Key| kid.is_none() || key.kid().is_none() || kid == key.kid();
        let mut fitting = keys.iter().filter(fits);
        match (fitting.next(), fitting.next()) {
            (Some(key), None) => Ok(key.verify(&token).is_ok()),
            // No key of that id, or no telling which: not verified.
            _ => Ok(false),
        }
    })
}

fn public(key: &Key) -> pg::Result<(String, Option<String>, String)> {
    let jwk = key.public_jwk().ok_or_else(|| refused(KeyReason::SymmetricKey))?;
    let kid = jwk.get("kid").and_then(Value::as_str).unwrap_or_default().to_owned();
    let algorithm = jwk.get("alg").and_then(Value::as_str).map(str::to_owned);
    Ok((kid, algorithm, jwk.to_string()))
}

fn parse(text: Option<&str>, otherwise: KeyReason) -> pg::Result<Value> {
    let small = text.filter(|text| text.len() <= MAX_JWKS_BYTES);
    small.and_then(|text| serde_json::from_str(text).ok()).ok_or_else(|| refused(otherwise))
}

fn refused(reason: KeyReason) -> Error {
    Error::new(State::INVALID_PARAMETER, reason.name(), format!("The key is refused: {reason}"))
        .hint("Publish a sound public key: RSA of 2048 bits or more, EC P-256 or P-384, or Ed25519.")
}
