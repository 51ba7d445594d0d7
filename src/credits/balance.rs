//! What a pool holds.

use super::grant::Owner;
use crate::pg::sql::{self, Arg, Mode};
use crate::pg::{self, Error, Micros, Result, State};
use crate::schema::require_installed;
use pgrx::datum::TimestampWithTimeZone;
use pgrx::iter::TableIterator;
use pgrx::{default, name, pg_extern, search_path};

/// The figures of a pool: the one named, else that of whoever is authenticated.
#[pg_extern(stable, parallel_restricted, security_definer)]
#[search_path(pg_catalog, pg_temp)]
#[allow(clippy::type_complexity)]
fn credit_balance(
    org_id: default!(Option<&str>, "NULL"),
    user_id: default!(Option<&str>, "NULL"),
    at: default!(Option<TimestampWithTimeZone>, "NULL"),
) -> TableIterator<'static, (name!(total, Micros), name!(used, Micros), name!(held, Micros), name!(available, Micros))>
{
    pg::entry(|| {
        require_installed()?;
        if at.is_some() {
            return Err(Error::new(State::NOT_SUPPORTED, "not_supported", "Past balances are not supported yet"));
        }
        let owner = readable(org_id, user_id)?;
        let row = sql::query_opt(
            "SELECT p.granted_total, p.balance, p.held FROM tenancy.credit_pools AS p WHERE p.pool_id = $1",
            &[owner.pool().into()],
            Mode::Read,
            |row| Ok((row.micros(1).unwrap_or_default(), row.credits(2), row.credits(3))),
        )?;
        let (total, balance, held) = row.unwrap_or_default();
        Ok(TableIterator::once((
            Micros(total),
            Micros(total - i128::from(balance)),
            Micros(held.into()),
            Micros((balance - held).into()),
        )))
    })
}

/// The pool the caller may look at: with an identity, its own organization's or user's; any, for a role that acts for
/// others or administers.
///
/// Errors: PT401 without an identity for an application role, PT403 `not_your_pool`, and those of [`Owner::named`].
fn readable(org_id: Option<&str>, user_id: Option<&str>) -> Result<Owner> {
    let bearer = pg::bearer();
    if let Some(bearer) = bearer.as_ref().filter(|bearer| bearer.live) {
        let (org_id, user_id) = match (org_id, user_id, &bearer.org_id) {
            (None, None, Some(own)) => (Some(own.as_str()), None),
            (None, None, None) => (None, Some(bearer.user_id.as_str())),
            _ => (org_id, user_id),
        };
        let own = org_id.is_none_or(|id| Some(id) == bearer.org_id.as_deref())
            && user_id.is_none_or(|id| id == bearer.user_id);
        if own || administers()? {
            return Owner::named(org_id, user_id, &bearer.namespace);
        }
        return Err(Error::new(State::FORBIDDEN, "not_your_pool", "This is another user's or organization's pool")
            .hint("Without arguments the function answers for the authenticated user or organization."));
    }
    if bearer.is_none() && acts_for_others()? {
        return Owner::named(org_id, user_id, "");
    }
    Err(Error::new(State::UNAUTHENTICATED, "not_authenticated", "Nobody is authenticated in this transaction")
        .hint("Begin a transaction and call tenancy.authenticate(token) first."))
}

/// Whether the calling role has operator access.
fn administers() -> Result<bool> {
    may_execute("tenancy.grant_credits")
}

/// Whether the calling role has service or operator access.
fn acts_for_others() -> Result<bool> {
    Ok(may_execute("tenancy.deduct_credits_pooled")? || may_execute("tenancy.grant_credits")?)
}

/// Whether the calling role may execute a function of ours that has one signature.
fn may_execute(function: &str) -> Result<bool> {
    let may = sql::query_opt(
        "SELECT has_function_privilege($1::oid, $2::regproc::oid, 'EXECUTE')",
        &[Arg::Long(Some(u32::from(pg::calling_role()).into())), function.into()],
        Mode::Read,
        |row| Ok(row.get::<bool>(1)),
    )?;
    Ok(may.flatten() == Some(true))
}
