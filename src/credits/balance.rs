//! What a pool holds, now or at another time. Reads only: what is due is worked out and not written.

use super::entry_id::last_id_at;
use super::owner::Owner;
use super::payer;
use super::pool::Pool;
use super::settle;
use crate::pg::sql::{self, Arg, Mode};
use crate::pg::{self, Composite, Error, Fields, Result, State};
use crate::schema::require_installed;
use pgrx::datum::TimestampWithTimeZone;
use pgrx::iter::SetOfIterator;
use pgrx::{default, pg_extern, search_path};
use std::ffi::CStr;
use uuid::Uuid;

/// The figures of a pool: the one named, else that of whoever is authenticated.
#[pg_extern(stable, parallel_restricted, security_definer, requires = ["credits_types"])]
#[search_path(pg_catalog, pg_temp)]
fn credit_balance(
    org_id: default!(Option<&str>, "NULL"),
    user_id: default!(Option<&str>, "NULL"),
    at: default!(Option<TimestampWithTimeZone>, "NULL"),
) -> Composite<Figures> {
    pg::entry(|| {
        require_installed()?;
        let owner = readable(org_id, user_id)?;
        figures(owner.pool(), at.map(i64::from)).map(Composite)
    })
}

/// The same by the pool's id, for views; no row where the caller may not see the pool.
#[pg_extern(stable, parallel_restricted, security_definer, requires = ["credits_types"])]
#[search_path(pg_catalog, pg_temp)]
fn pool_figures(pool_id: Option<pgrx::Uuid>) -> SetOfIterator<'static, Composite<Figures>> {
    pg::entry(|| {
        require_installed()?;
        let pool = pool_id.map(|id| Uuid::from_bytes(*id.as_bytes()));
        let figures = match pool {
            Some(pool) if visible(pool)? => Some(figures(pool, None)?),
            _ => None,
        };
        Ok(SetOfIterator::new(figures.map(Composite)))
    })
}

/// What a pool holds: `tenancy.credit_figures`.
#[derive(Default)]
struct Figures {
    granted: i128,
    balance: i64,
    held: i64,
}

impl Fields for Figures {
    const NAME: &'static CStr = c"credit_figures";
    const SQL: &'static str = "tenancy.credit_figures";

    fn fields(&self) -> Vec<Arg<'_>> {
        let (balance, held) = (i128::from(self.balance), i128::from(self.held));
        [self.granted, self.granted - balance, held, balance - held].map(|micros| Arg::Micros(Some(micros))).to_vec()
    }
}

fn figures(pool: Uuid, at: Option<i64>) -> Result<Figures> {
    let Some(mut pool) = Pool::read(pool)? else { return Ok(Figures::default()) };
    let at = at.unwrap_or(pool.now);
    if at >= pool.next_expiry_at {
        // Nothing was entered since the first boundary that is due: the book as it would be settled then.
        pool.now = at;
        pool = settle::preview(&pool)?;
    } else if at < pool.last_entry_at {
        return past(pool.id, at);
    }
    Ok(Figures { granted: pool.granted, balance: pool.balance, held: pool.held })
}

/// The newest entry not after `at` has the figures; holds have their times.
fn past(pool: Uuid, at: i64) -> Result<Figures> {
    let entry = sql::query_opt(
        "SELECT t.granted_after, t.balance_after
           FROM tenancy.credit_transactions AS t
          WHERE t.pool_id = $1 AND t.id <= $2
          ORDER BY t.id DESC
          LIMIT 1",
        &[pool.into(), last_id_at(at).into()],
        Mode::Read,
        |row| Ok((row.micros(1).unwrap_or_default(), row.credits(2))),
    )?;
    let held = sql::query_opt(
        "SELECT coalesce(sum(h.amount), 0)
           FROM tenancy.credit_holds AS h
          WHERE h.pool_id = $1 AND h.expires_at > $2 AND h.created_at <= $2
            AND (h.closed_at IS NULL OR h.closed_at > $2)",
        &[pool.into(), Arg::Time(Some(at))],
        Mode::Read,
        |row| Ok(row.credits(1)),
    )?;
    let (granted, balance) = entry.unwrap_or_default();
    Ok(Figures { granted, balance, held: held.unwrap_or_default() })
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

/// Whether a pool is the identity's tenant's or its user's own, or the calling role looks after all of them.
fn visible(pool: Uuid) -> Result<bool> {
    let bearer = pg::bearer();
    if let Some(bearer) = bearer.as_ref().filter(|bearer| bearer.live)
        && payer::user(&bearer.namespace, &bearer.user_id)? == Some(pool)
    {
        return Ok(true);
    }
    let tenant = sql::query_opt(
        "SELECT p.tenant_id FROM tenancy.credit_pools AS p WHERE p.pool_id = $1",
        &[pool.into()],
        Mode::Read,
        |row| Ok(row.text(1)),
    )?
    .flatten();
    let own = tenant.is_some() && tenant == pg::current_tenant();
    Ok(own || administers()? || (bearer.is_none() && acts_for_others()?))
}

/// Whether the calling role has operator access.
fn administers() -> Result<bool> {
    may_execute("tenancy.grant_credits")
}

/// Whether the calling role has service or operator access.
fn acts_for_others() -> Result<bool> {
    Ok(may_execute("tenancy.deduct_credits_pooled")? || administers()?)
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
