//! Credits into a pool, and adjustments by hand.

use super::amount::{Credits, LARGEST};
use super::book::{NEVER, Rollover};
use super::idempotency::{Answer, Body, Key};
use super::ledger::Entry;
use super::owner::{Owner, namespace};
use super::pool::Pool;
use super::settle;
use crate::ids::tagged;
use crate::pg::sql::{self, Arg};
use crate::pg::{self, Decimal, Error, Result, State};
use crate::schema::require_installed;
use pgrx::datum::TimestampWithTimeZone;
use pgrx::{default, pg_extern, search_path};
use uuid::Uuid;

/// Gives credits to a pool.
#[pg_extern(volatile, parallel_unsafe, security_definer)]
#[search_path(pg_catalog, pg_temp)]
#[allow(clippy::too_many_arguments)]
fn grant_credits(
    amount: Option<Decimal>,
    org_id: default!(Option<&str>, "NULL"),
    user_id: default!(Option<&str>, "NULL"),
    reason: default!(Option<&str>, "NULL"),
    expires_at: default!(Option<TimestampWithTimeZone>, "NULL"),
    priority: default!(Option<i32>, "0"),
    idempotency_key: default!(Option<&str>, "NULL"),
    effective_at: default!(Option<TimestampWithTimeZone>, "NULL"),
    cost_basis: default!(Option<Decimal>, "NULL"),
    rollover_max: default!(Option<Decimal>, "NULL"),
    rollover_until: default!(Option<TimestampWithTimeZone>, "NULL"),
    namespace: default!(Option<&str>, "NULL"),
) -> pgrx::Uuid {
    pg::entry(|| {
        require_installed()?;
        let gift = Gift {
            amount: Credits::parse(amount)?,
            source: "grant",
            reason,
            priority: priority.unwrap_or(0),
            effective_at: effective_at.map(i64::from),
            expires_at: expires_at.map_or(NEVER, i64::from),
            cost_basis: cost_basis.map(cost).transpose()?,
            rollover: rollover(rollover_max, rollover_until)?,
        };
        let owner = Owner::named(org_id, user_id, &self::namespace(namespace))?;
        let given = give(&owner, &gift, idempotency_key)?;
        Ok(pgrx::Uuid::from_bytes(*given.grant.as_bytes()))
    })
}

/// What is given.
pub struct Gift<'a> {
    pub amount: Credits,
    /// `grant` or `adjustment`.
    pub source: &'static str,
    pub reason: Option<&'a str>,
    pub priority: i32,
    pub effective_at: Option<i64>,
    pub expires_at: i64,
    pub cost_basis: Option<i128>,
    pub rollover: Option<Rollover>,
}

impl<'a> Gift<'a> {
    /// Credits that never expire.
    pub fn plain(amount: Credits, reason: Option<&'a str>) -> Self {
        Self {
            amount,
            source: "grant",
            reason,
            priority: 0,
            effective_at: None,
            expires_at: NEVER,
            cost_basis: None,
            rollover: None,
        }
    }

    fn body(&self) -> Body {
        Body::new(self.source)
            .number(Some(self.amount.micros()))
            .text(self.reason)
            .number(Some(self.priority.into()))
            .number(self.effective_at)
            .number(Some(self.expires_at))
            .number(self.cost_basis.map(|cost| cost as i64))
            .number(self.rollover.map(|rollover| rollover.max))
            .number(self.rollover.map(|rollover| rollover.until))
    }
}

/// A grant that was made, now or before.
pub struct Given {
    pub grant: Uuid,
    /// Its entry in the ledger, where this made one.
    pub entry: Option<Uuid>,
    pub pool: Pool,
}

/// Grants, or gives the grant that the same key made before.
///
/// Errors: 22023 for times that contradict each other, 22003 `balance_out_of_range`, PT409 `idempotency_conflict`.
pub fn give(owner: &Owner, gift: &Gift, idempotency_key: Option<&str>) -> Result<Given> {
    let key = Key::new(idempotency_key, "grant", gift.body())?;
    let mut pool = owner.locked_pool()?;
    if let Some(answer) = key.as_ref().map(|key| key.answer(pool.id)).transpose()?.flatten() {
        return Ok(Given { grant: answer.result, entry: None, pool });
    }
    let effective_at = gift.effective_at.unwrap_or(pool.now).max(pool.now);
    if gift.expires_at <= effective_at {
        return Err(misordered("expires_at", "expires_at must be later than the time the grant becomes effective"));
    }
    if gift.rollover.is_some_and(|rollover| gift.expires_at == NEVER || rollover.until <= gift.expires_at) {
        return Err(misordered("rollover_until", "rollover_until must be later than expires_at"));
    }
    // The new grant joins the burn order from here on; what was charged before burned without it.
    settle::close(&mut pool)?;
    pool.require_room(gift.amount.micros())?;
    let grant = tagged(pool.id);
    let posted = effective_at <= pool.now;
    insert(&pool, grant, gift, effective_at, posted)?;
    let mut entry = None;
    if posted {
        entry = Some(pool.enter(&Entry {
            operation: gift.source,
            amount: gift.amount.micros(),
            at: pool.now,
            description: gift.reason,
            grant: Some(grant),
            correlation_id: super::correlation_id().as_deref(),
            ..Entry::default()
        })?);
    }
    let boundary = if posted { gift.expires_at } else { effective_at };
    pool.next_expiry_at = pool.next_expiry_at.min(boundary);
    if let Some(key) = key {
        key.claim(pool.id, &Answer { result: grant, held_after: pool.held }, pool.now)?;
    }
    pool.save()?;
    Ok(Given { grant, entry, pool })
}

fn insert(pool: &Pool, grant: Uuid, gift: &Gift, effective_at: i64, posted: bool) -> Result<()> {
    let amount = i128::from(gift.amount.micros());
    sql::execute(
        "INSERT INTO tenancy.credit_grants
             (pool_id, id, tenant_id, source, amount, remaining, priority, effective_at, expires_at, is_posted, is_open,
              cost_basis, rollover_max, rollover_until, reason, created_at)
         SELECT p.pool_id, $2, p.tenant_id, $3, $4, $5, $6, $7, $8, $9, true, $10, $11, $12, $13, $14
           FROM tenancy.credit_pools AS p
          WHERE p.pool_id = $1",
        &[
            pool.id.into(),
            grant.into(),
            gift.source.into(),
            Arg::Micros(Some(amount)),
            Arg::Micros(Some(if posted { amount } else { 0 })),
            Arg::Int(Some(gift.priority)),
            Arg::Time(Some(effective_at)),
            Arg::Time(Some(gift.expires_at)),
            Arg::Bool(Some(posted)),
            Arg::Micros(gift.cost_basis),
            Arg::Micros(gift.rollover.map(|rollover| rollover.max.into())),
            Arg::Time(gift.rollover.map(|rollover| rollover.until)),
            Arg::Text(gift.reason),
            Arg::Time(Some(pool.now)),
        ],
    )
    .map(drop)
}

fn cost(value: Decimal) -> Result<i128> {
    match value {
        Decimal::Micros(micros) if (0..=i128::from(LARGEST)).contains(&micros) => Ok(micros),
        _ => Err(Error::new(
            State::INVALID_PARAMETER,
            "invalid_argument",
            "cost_basis must be a number from zero on with at most six decimals",
        )
        .hint("Pass what one credit cost, in the currency you count in.")
        .detail("parameter", "cost_basis")),
    }
}

fn rollover(max: Option<Decimal>, until: Option<TimestampWithTimeZone>) -> Result<Option<Rollover>> {
    match (max, until) {
        (None, None) => Ok(None),
        (Some(max), Some(until)) => {
            Ok(Some(Rollover { max: Credits::parse(Some(max))?.micros(), until: i64::from(until) }))
        }
        _ => Err(misordered("rollover_until", "rollover_max and rollover_until go together")),
    }
}

fn misordered(parameter: &str, message: &str) -> Error {
    Error::new(State::INVALID_PARAMETER, "invalid_argument", message)
        .hint("A grant is effective, then expires; what rolls over expires later still.")
        .detail("parameter", parameter)
}
