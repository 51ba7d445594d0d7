//! The pool's row off the hot path: made, read, locked, settled.

use super::entry_id::tag;
use crate::pg::sql::{self, Arg, Mode};
use crate::pg::{Error, Result, State};
use uuid::Uuid;

/// Available credits at `now`, without a lock; none where there is no pool yet.
pub fn available(pool: Uuid, _now: i64) -> Result<Option<i64>> {
    sql::query_opt(
        "SELECT p.balance - p.held FROM tenancy.credit_pools AS p WHERE p.pool_id = $1",
        &[pool.into()],
        Mode::Write,
        |row| Ok(row.credits(1)),
    )
}

/// Brings a locked pool to the present.
pub fn settle(_pool: Uuid) -> Result<()> {
    Err(Error::new(State::NOT_SUPPORTED, "not_supported", "Credits that expire are not supported yet"))
}

/// Makes an organization's pool where there is none.
pub fn ensure_organization(organization: Uuid, now: i64) -> Result<()> {
    sql::execute(
        "INSERT INTO tenancy.credit_pools AS p (pool_id, tag, tenant_id, organization_id, last_entry_at)
         SELECT o.id, $2, o.tenant_id, o.id, $3 FROM tenancy.organizations AS o WHERE o.id = $1
         ON CONFLICT (pool_id) DO NOTHING",
        &[organization.into(), Arg::Int(Some(tag(organization))), Arg::Time(Some(now))],
    )
    .map(drop)
}

/// Makes a user's own pool where there is none. Its tenant is the personal one (design §2).
pub fn ensure_personal(user: Uuid, now: i64) -> Result<()> {
    sql::execute(
        "INSERT INTO tenancy.credit_pools AS p (pool_id, tag, tenant_id, user_id, last_entry_at)
         SELECT u.id, $2, CASE WHEN u.namespace = '' THEN '' ELSE u.namespace || '::' END || 'user::' || u.external_id,
                u.id, $3
           FROM tenancy.users AS u WHERE u.id = $1
         ON CONFLICT (pool_id) DO NOTHING",
        &[user.into(), Arg::Int(Some(tag(user))), Arg::Time(Some(now))],
    )
    .map(drop)
}
