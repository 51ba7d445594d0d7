//! Adjustments by hand: credits more in a pool, or fewer.

use super::amount::Credits;
use super::debit::Shortage;
use super::grant::{self, Gift};
use super::ledger::Entry;
use super::owner::{Owner, namespace};
use super::payer::{self, Payer};
use super::pool::Pool;
use crate::pg::sql::{self, Arg};
use crate::pg::{self, Decimal, Micros, Result};
use crate::schema::require_installed;
use pgrx::{default, pg_extern, search_path};
use uuid::Uuid;

/// Corrects a pool by hand: credits more, or fewer.
#[pg_extern(volatile, parallel_unsafe, security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn adjust_credits(
    amount: Option<Decimal>,
    reason: Option<&str>,
    org_id: default!(Option<&str>, "NULL"),
    user_id: default!(Option<&str>, "NULL"),
    namespace: default!(Option<&str>, "NULL"),
) -> Micros {
    pg::entry(|| {
        require_installed()?;
        let (amount, takes) = Credits::parse_signed(amount)?;
        let reason = payer::present(reason, "reason")?;
        let owner = Owner::named(org_id, user_id, &self::namespace(namespace))?;
        let (pool, entry) = if takes { take(&owner, amount, reason)? } else { give(&owner, amount, reason)? };
        if let Some(entry) = entry {
            record(&pool, amount, entry)?;
        }
        Ok(Micros(pool.balance.into()))
    })
}

fn give(owner: &Owner, amount: Credits, reason: &str) -> Result<(Pool, Option<Uuid>)> {
    let given = grant::give(owner, &Gift { source: "adjustment", ..Gift::plain(amount, Some(reason)) }, None)?;
    Ok((given.pool, given.entry))
}

fn take(owner: &Owner, amount: Credits, reason: &str) -> Result<(Pool, Option<Uuid>)> {
    let mut pool = owner.locked_pool()?;
    if pool.available() < amount.micros() {
        let shortage = Shortage { available: pool.available(), organization_name: None };
        let payer = Payer { user: pool.id, organization: pool.organization.then_some(pool.id) };
        return Err(shortage.error(&payer, amount));
    }
    pool.drawn += i128::from(amount.micros());
    let entry = pool.enter(&Entry {
        operation: "adjustment",
        amount: -amount.micros(),
        at: pool.now,
        description: Some(reason),
        drawn_after: Some(pool.drawn),
        correlation_id: super::correlation_id().as_deref(),
        ..Entry::default()
    })?;
    pool.save()?;
    Ok((pool, Some(entry)))
}

/// Contract H's row of an adjustment. Its amount is a whole number there; what is none stands in the ledger alone.
fn record(pool: &Pool, amount: Credits, entry: Uuid) -> Result<()> {
    let Some(units) = amount.whole().and_then(|units| i32::try_from(units).ok()) else { return Ok(()) };
    sql::execute(
        "INSERT INTO tenancy.credit_operations
             (tenant_id, id, subject_type, subject_id, user_id, org_id, metric, amount, cost, consumed_from,
              correlation_id, operation_status, transaction_id, created_at)
         SELECT p.tenant_id, tenancy.uuid_v7(), f.kind, coalesce(o.external_id, u.external_id),
                coalesce(u.external_id, tenancy.user_id(), ''), o.external_id, 'manual_adjustment', $2, $3, f.kind,
                tenancy.correlation_id(), 'completed', $4, $5
           FROM tenancy.credit_pools AS p
          CROSS JOIN LATERAL (SELECT CASE WHEN p.organization_id IS NULL THEN 'user' ELSE 'org' END) AS f (kind)
           LEFT JOIN tenancy.organizations AS o ON o.id = p.organization_id
           LEFT JOIN tenancy.users AS u ON u.id = p.user_id
          WHERE p.pool_id = $1",
        &[
            pool.id.into(),
            Arg::Int(Some(units)),
            Arg::Micros(Some(amount.micros().into())),
            entry.into(),
            Arg::Time(Some(pool.now)),
        ],
    )
    .map(drop)
}
