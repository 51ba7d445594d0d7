//! API keys: a bearer's key becomes the transaction's identity.

use super::secret::{self, API_KEY_PREFIX};
use crate::identity::{Named, belongs, permissions, refused_api_key, resolve, sha256};
use crate::pg::sql::{self, Mode, Row};
use crate::pg::{self, Error, Identity, Result, Sealable, State};
use pgrx::{pg_extern, search_path};
use std::rc::Rc;

/// A key's row, as far as it says who bears it.
struct Known {
    id: uuid::Uuid,
    namespace: String,
    org_id: String,
    user_id: Option<String>,
    role: String,
    valid_until: Option<i64>,
    /// Whether its user belonged to the organization when it was made.
    for_member: bool,
    /// Why it is not good, if it is not.
    fault: Option<String>,
}

/// What is read of a key, found by a condition.
macro_rules! known {
    ($condition:literal) => {
        concat!(
            "SELECT k.id, k.namespace, k.org_id, k.user_id, k.role, k.valid_until, \
                    CASE WHEN k.status = 'revoked' THEN 'revoked' \
                         WHEN k.valid_until <= pg_catalog.statement_timestamp() THEN 'lapsed' \
                         WHEN EXISTS (SELECT FROM tenancy.revocations AS r \
                                       WHERE r.kind = 'user' AND r.scope = k.namespace AND r.value = k.user_id \
                                         AND k.created_at <= r.revoked_at) THEN 'user_revoked' END, \
                    k.for_member \
             FROM tenancy.api_keys AS k WHERE ",
            $condition
        )
    };
}

/// Makes the bearer of an API key the transaction's identity and gives the user's external id.
///
/// Errors: PT401 invalid_api_key for every key that is not good; PT403 as `authenticate`; 55000.
#[pg_extern(volatile, parallel_unsafe, security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn authenticate_api_key(api_key: Option<&str>) -> String {
    pg::entry(|| {
        crate::schema::require_installed()?;
        pg::warn_outside_transaction("tenancy.authenticate_api_key");
        let api_key = api_key.filter(|key| !key.is_empty()).ok_or_else(missing)?;
        if !secret::is_well_formed(api_key, API_KEY_PREFIX) {
            return Err(invalid("malformed", None));
        }
        let hash = sha256(api_key.as_bytes());
        let known = find(&hash)?.ok_or_else(|| invalid("unknown", None))?;
        let id = known.id.to_string();
        let user = known.user_id.as_deref().unwrap_or(&id);
        let mut identity = judge(&known, user)?;
        identity.source = "api_key".to_owned();
        identity.token_id = Some(id.clone());
        identity.org_role = Some(known.role);
        identity.expires_at = known.valid_until;
        pg::seal(&Rc::new(Sealable::new(identity)), None, hash)?;
        sql::query_opt("SELECT tenancy._note_api_key_use($1)", &[known.id.into()], Mode::Read, |_| Ok(()))?;
        Ok(user.to_owned())
    })
}

/// Refuses an identity that came from a key which is no longer good, by what is committed at this moment.
pub(super) fn still_good(identity: &Identity) -> Result<()> {
    judge(&known_now(identity)?, &identity.user_id).map(drop)
}

/// Whether the identity came from a key that has an end, by what is committed at this moment.
#[pg_extern(name = "_key_lapses", stable, parallel_restricted)]
fn key_lapses() -> bool {
    pg::entry(|| match pg::current_value() {
        Some(identity) if identity.source == "api_key" => Ok(known_now(&identity)?.valid_until.is_some()),
        _ => Ok(false),
    })
}

/// The row of the key that an identity came from.
fn known_now(identity: &Identity) -> Result<Known> {
    let id = identity.token_id.as_deref().and_then(|id| uuid::Uuid::try_parse(id).ok()).unwrap_or_default();
    let known = sql::query_opt(known!("k.id = $1"), &[id.into()], Mode::ReadLatest, |row| Ok(known(row)))?;
    known.ok_or_else(|| invalid("unknown", Some(id)))
}

/// Whom a key stands for, if it is good and they are.
fn judge(known: &Known, user: &str) -> Result<Identity> {
    if let Some(fault) = &known.fault {
        return Err(invalid(fault, Some(known.id)));
    }
    let named = Named { namespace: &known.namespace, user, org: Some(&known.org_id), tenant: None };
    let identity = resolve(&named)?;
    if known.for_member && !belongs(&identity) {
        return Err(invalid("not_a_member", Some(known.id)));
    }
    Ok(identity)
}

/// What a role permits by name, as `has_permission` applies it.
#[pg_extern(name = "_role_permissions", immutable, parallel_safe)]
fn role_permissions(role: &str) -> Vec<String> {
    pg::entry(|| Ok(permissions::of_role(role).iter().map(|name| (*name).to_owned()).collect()))
}

/// The key with that hash, good or not: it is while active or within its grace, and its user was not revoked since.
fn find(hash: &[u8; 32]) -> Result<Option<Known>> {
    sql::query_opt(known!("k.key_hash = $1"), &[hash.as_slice().into()], Mode::ReadLatest, |row| Ok(known(row)))
}

fn known(row: &Row) -> Known {
    Known {
        id: row.uuid(1).unwrap_or_default(),
        namespace: row.text(2).unwrap_or_default(),
        org_id: row.text(3).unwrap_or_default(),
        user_id: row.text(4),
        role: row.text(5).unwrap_or_default(),
        valid_until: row.time(6),
        fault: row.text(7),
        for_member: row.get(8).unwrap_or(false),
    }
}

fn missing() -> Error {
    Error::new(State::UNAUTHENTICATED, "missing_api_key", "Missing API key").hint("Pass the key as it was given.")
}

/// One answer for unknown, revoked and lapsed keys: which it was is nobody's business who cannot list the keys. The
/// server's log tells them apart; a row would be rolled back with the transaction.
fn invalid(cause: &str, key_id: Option<uuid::Uuid>) -> Error {
    refused_api_key(cause, key_id);
    Error::new(State::UNAUTHENTICATED, "invalid_api_key", "Invalid API key")
        .hint("Make a new one: SELECT * FROM tenancy.create_api_key(…).")
}
