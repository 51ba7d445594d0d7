//! Refunds: credits of a charge go back to the pool and to the grants they came from, never more than was charged.
//!
//! A charge is a segment of its pool's line; refunds eat it from its end. What has come back is on record piece by piece
//! (`credit_returns`), so a refund sees every earlier one under the pool's lock.

use super::amount::{self, Credits};
use super::caps;
use super::ledger::Entry;
use super::payer::{self, Payer};
use super::pool::{self, Pool};
use super::result::Deduction;
use super::settle::{self, Cause};
use crate::pg::sql::{self, Arg, Mode};
use crate::pg::{self, Composite, Decimal, Error, Jsonb, Result, State};
use crate::schema::require_installed;
use pgrx::{default, pg_extern, search_path};
use uuid::Uuid;

/// Gives credits of a charge back, all that is left of it or part.
#[pg_extern(volatile, parallel_unsafe, security_definer, requires = ["credits_types"])]
#[search_path(pg_catalog, pg_temp)]
fn refund_credits(
    transaction_id: Option<pgrx::Uuid>,
    amount: default!(Option<Decimal>, "NULL"),
    reason: default!(Option<&str>, "NULL"),
) -> Composite<Deduction> {
    pg::entry(|| {
        require_installed()?;
        let asked = amount.map(|amount| Credits::parse(Some(amount))).transpose()?;
        let id =
            transaction_id.map(|id| Uuid::from_bytes(*id.as_bytes())).ok_or_else(|| payer::null("transaction_id"))?;
        let (pool, charge) = find(id)?;
        payer::require_own(Payer { user: charge.user, organization: charge.organization })?;
        let mut pool = Pool::lock(pool)?.ok_or_else(not_found)?;
        refund(&mut pool, &charge, asked, reason).map(Composite)
    })
}

/// The ledger row to refund. It never changes, so it is read before the lock.
struct Charge {
    id: Uuid,
    amount: i64,
    drawn_after: i128,
    user: Uuid,
    organization: Option<Uuid>,
    seat: Option<Uuid>,
    subscription: Option<Uuid>,
    reference_id: Option<String>,
    metadata: Option<Jsonb>,
    created_at: i64,
}

fn find(id: Uuid) -> Result<(Uuid, Charge)> {
    for candidate in pool::candidates(id)? {
        let found = sql::query_opt(
            "SELECT t.operation_type = 'deduction', -t.credits_amount, t.drawn_after, t.user_id, t.organization_id, t.seat_id,
                    t.subscription_id, t.reference_id, t.created_at,
                    t.metadata || jsonb_build_object('refund_of', t.id)
               FROM tenancy.credit_transactions AS t
              WHERE t.pool_id = $1 AND t.id = $2",
            &[candidate.into(), id.into()],
            Mode::Write,
            |row| {
                if row.get(1) != Some(true) {
                    return Err(Error::new(State::UNPROCESSABLE, "not_refundable", "Only a charge can be refunded")
                        .hint("Pass the transaction_id of a deduction or of a captured hold."));
                }
                Ok(Charge {
                    id,
                    amount: row.credits(2),
                    drawn_after: row.micros(3).unwrap_or_default(),
                    user: row.uuid(4).unwrap_or_default(),
                    organization: row.uuid(5),
                    seat: row.uuid(6),
                    subscription: row.uuid(7),
                    reference_id: row.text(8),
                    created_at: row.time(9).unwrap_or_default(),
                    metadata: row.get(10),
                })
            },
        )?;
        if let Some(charge) = found {
            return Ok((candidate, charge));
        }
    }
    Err(not_found())
}

fn refund(pool: &mut Pool, charge: &Charge, asked: Option<Credits>, reason: Option<&str>) -> Result<Deduction> {
    let from = charge.drawn_after - i128::from(charge.amount);
    let returned = returned(pool.id, from, charge.drawn_after)?;
    let left = charge.amount - returned;
    let amount = asked.map_or(left, Credits::micros);
    if amount > left || left == 0 {
        return Err(Error::new(
            State::UNPROCESSABLE,
            "refund_exceeds_charge",
            "More than was charged cannot be refunded",
        )
        .hint("Refund at most what is left of the charge; earlier refunds count.")
        .detail("charged", amount::json(charge.amount))
        .detail("refunded", amount::json(returned))
        .detail("refundable", amount::json(left)));
    }
    // Before the balance rises: the refund's entry is written first, what expires at once comes after it.
    settle::close(pool)?;
    pool.require_room(amount)?;
    let transaction_id = pool.enter(&Entry {
        operation: "refund",
        amount,
        at: pool.now,
        description: reason,
        reference_id: charge.reference_id.as_deref(),
        metadata: charge.metadata.as_ref(),
        user: Some(charge.user),
        seat: charge.seat,
        subscription: charge.subscription,
        refund_of: Some(charge.id),
        correlation_id: super::correlation_id().as_deref(),
        ..Entry::default()
    })?;
    let end = charge.drawn_after - i128::from(returned);
    settle::give_back(pool, (end - i128::from(amount), end), Cause::Refund(transaction_id))?;
    if pool.has_caps && pool.organization {
        caps::uncount(pool.id, charge.user, amount, charge.created_at)?;
    }
    pool.save()?;
    Ok(Deduction {
        transaction_id: Some(transaction_id),
        status: "refunded",
        replayed: false,
        pool: Some(pool.word()),
        charged: Some(-amount),
        balance_after: Some(pool.balance),
        held_after: Some(pool.held),
        metadata: charge.metadata.clone(),
    })
}

/// How much of a segment has come back.
fn returned(pool: Uuid, from: i128, to: i128) -> Result<i64> {
    let sum = sql::query_opt(
        "SELECT coalesce(sum(r.drawn_to - r.drawn_from), 0)
           FROM tenancy.credit_returns AS r
          WHERE r.pool_id = $1 AND r.drawn_to > $2 AND r.drawn_to <= $3",
        &[pool.into(), Arg::Micros(Some(from)), Arg::Micros(Some(to))],
        Mode::Write,
        |row| Ok(row.credits(1)),
    )?;
    Ok(sum.unwrap_or_default())
}

fn not_found() -> Error {
    Error::new(State::NOT_FOUND, "transaction_not_found", "Transaction not found")
        .hint("Pass the transaction_id that the charge returned.")
}
