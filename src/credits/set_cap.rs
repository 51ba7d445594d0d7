//! `set_member_cap`: what an operator says about a member's spending.

use super::amount::Credits;
use super::entry_id::last_id_at;
use super::owner::{Owner, namespace};
use super::payer::{self, present, user_not_found};
use super::period::Period;
use super::pool::Pool;
use crate::pg::sql::{self, Arg, Mode};
use crate::pg::{self, Decimal, Error, Result, State};
use crate::schema::require_installed;
use pgrx::{default, pg_extern, search_path};
use uuid::Uuid;

/// Caps what a member may spend from an organization's pool in a period; NULL lifts the cap.
#[pg_extern(volatile, parallel_unsafe, security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn set_member_cap(
    org_id: Option<&str>,
    user_id: Option<&str>,
    amount: Option<Decimal>,
    period: Option<&str>,
    namespace: default!(Option<&str>, "NULL"),
) -> bool {
    pg::entry(|| {
        require_installed()?;
        let word = period.unwrap_or_default();
        let period = Period::parse(word).ok_or_else(|| {
            Error::new(State::INVALID_PARAMETER, "invalid_argument", "period must be one of: day, month, lifetime")
                .hint("Days and months are UTC's.")
                .detail("parameter", "period")
        })?;
        let amount = match amount {
            Some(Decimal::Micros(0)) => Some(0),
            None => None,
            some => Some(Credits::parse(some)?.micros()),
        };
        let namespace = self::namespace(namespace);
        let org_id = present(org_id, "org_id")?;
        let user = payer::user(&namespace, present(user_id, "user_id")?)?.ok_or_else(user_not_found)?;
        let mut pool = Owner::named(Some(org_id), None, &namespace)?.locked_pool()?;
        match amount {
            Some(amount) => set(&pool, user, word, period, amount)?,
            None => lift(&pool, user, word)?,
        }
        pool.has_caps = any(pool.id)?;
        pool.save()?;
        Ok(amount.is_some())
    })
}

fn set(pool: &Pool, user: Uuid, word: &str, period: Period, amount: i64) -> Result<()> {
    let start = period.start(pool.now);
    sql::execute(
        "INSERT INTO tenancy.credit_caps AS c (pool_id, user_id, period, tenant_id, amount, used, period_start)
         SELECT p.pool_id, $2, $3, p.tenant_id, $4, $5, $6
           FROM tenancy.credit_pools AS p
          WHERE p.pool_id = $1
         ON CONFLICT (pool_id, user_id, period) DO UPDATE
            SET amount = EXCLUDED.amount, used = EXCLUDED.used, period_start = EXCLUDED.period_start, updated_at = now()",
        &[
            pool.id.into(),
            user.into(),
            word.into(),
            Arg::Micros(Some(amount.into())),
            Arg::Micros(Some(used_since(pool.id, user, start)?)),
            Arg::Time(Some(start)),
        ],
    )
    .map(drop)
}

fn lift(pool: &Pool, user: Uuid, word: &str) -> Result<()> {
    sql::execute(
        "DELETE FROM tenancy.credit_caps AS c WHERE c.pool_id = $1 AND c.user_id = $2 AND c.period = $3",
        &[pool.id.into(), user.into(), word.into()],
    )
    .map(drop)
}

fn any(pool: Uuid) -> Result<bool> {
    let any = sql::query_opt(
        "SELECT EXISTS (SELECT FROM tenancy.credit_caps AS c WHERE c.pool_id = $1)",
        &[pool.into()],
        Mode::Write,
        |row| Ok(row.get::<bool>(1)),
    )?;
    Ok(any.flatten() == Some(true))
}

/// What the member has spent since `start`, less what was refunded of that: a cap set in mid-period counts from the
/// period's begin.
fn used_since(pool: Uuid, user: Uuid, start: i64) -> Result<i128> {
    let bound = if start == i64::MIN { Uuid::nil() } else { last_id_at(start - 1) };
    let used = sql::query_opt(
        "SELECT coalesce(-sum(t.credits_amount), 0)
           FROM tenancy.credit_transactions AS t
           LEFT JOIN tenancy.credit_transactions AS o ON o.pool_id = t.pool_id AND o.id = t.refund_of
          WHERE t.pool_id = $1 AND t.id > $3 AND t.user_id = $2
            AND (t.operation_type = 'deduction' OR t.operation_type = 'refund' AND o.id > $3)",
        &[pool.into(), user.into(), bound.into()],
        Mode::Write,
        |row| Ok(row.micros(1)),
    )?;
    Ok(used.flatten().unwrap_or_default())
}
