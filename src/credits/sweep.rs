//! The sweep: settles pools whose grants or holds are due. Nothing depends on it: whoever charges a pool settles it first,
//! and readers work out what is due. It keeps the stored figures and the ledger close to the present.

use super::clock;
use super::pool::Pool;
use crate::pg::sql::{self, Arg, Mode};
use crate::pg::{self, Error, Result, State, turns};
use crate::schema::require_installed;
use pgrx::{default, pg_extern, search_path};
use uuid::Uuid;

/// Settles up to `max_pools` pools that are due; how many it settled. Pools that somebody else has locked are left out,
/// and those that cannot be settled, with a warning.
#[pg_extern(volatile, parallel_unsafe, security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn sweep_credits(max_pools: default!(Option<i32>, "1000")) -> i32 {
    pg::entry(|| {
        require_installed()?;
        let most = max_pools.unwrap_or(1000);
        if most < 0 {
            return Err(Error::new(State::INVALID_PARAMETER, "invalid_argument", "max_pools must not be negative")
                .hint("Pass how many pools to settle at most, or leave it out for 1000.")
                .detail("parameter", "max_pools"));
        }
        let (mut settled, mut last) = (0, Uuid::nil());
        while settled < most {
            let pools = due(last, (most - settled).max(100))?;
            let Some(newest) = pools.last() else { break };
            last = *newest;
            for pool in pools {
                if settled < most {
                    settled += i32::from(settle(pool)?);
                }
            }
        }
        Ok(settled)
    })
}

/// The next pools that are due, after `last`.
fn due(last: Uuid, most: i32) -> Result<Vec<Uuid>> {
    sql::query(
        "SELECT due.pool_id
           FROM (SELECT h.pool_id FROM tenancy.credit_holds AS h WHERE h.status = 'held' AND h.expires_at <= $1
                 UNION
                 SELECT g.pool_id FROM tenancy.credit_grants AS g WHERE g.is_open AND g.expires_at <= $1
                 UNION
                 SELECT g.pool_id FROM tenancy.credit_grants AS g WHERE NOT g.is_posted AND g.effective_at <= $1) AS due
          WHERE due.pool_id > $3
          ORDER BY due.pool_id
          LIMIT $2",
        &[Arg::Time(Some(clock::now())), Arg::Long(Some(most.into())), last.into()],
        Mode::Write,
        |row| Ok(row.uuid(1).unwrap_or_default()),
    )
}

/// Settles a pool unless somebody else has it, or its figures do not allow it: then nothing is written.
fn settle(pool: Uuid) -> Result<bool> {
    if !free(pool)? {
        return Ok(false);
    }
    match Pool::lock(pool) {
        Ok(found) => Ok(found.is_some()),
        Err(error) if matches!(error.reason(), "balance_out_of_range" | "ledger_inconsistent") => {
            pg::warn(&format!("The pool {pool} cannot be settled: {}", error.reason()));
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// Locks the pool unless somebody else has.
fn free(pool: Uuid) -> Result<bool> {
    if !turns::take_free(pool)? {
        return Ok(false);
    }
    let locked = sql::query_opt(
        "SELECT p.pool_id FROM tenancy.credit_pools AS p WHERE p.pool_id = $1 FOR NO KEY UPDATE SKIP LOCKED",
        &[pool.into()],
        Mode::Write,
        |row| Ok(row.uuid(1)),
    )?;
    if locked.is_none() {
        turns::leave(pool);
    }
    Ok(locked.is_some())
}
