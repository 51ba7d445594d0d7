//! Holds: credits reserved around slow work, so that no transaction has to stay open while it runs.
//!
//! Every change of a hold happens under its pool's lock, so a capture and the hold's own expiry cannot both win: whoever
//! locks first finds it open, or finds out that its time has come.

use super::amount::{self, Credits};
use super::attribution::{judge, seat_unstable};
use super::debit::{Shortage, count_debit};
use super::idempotency::{Answer, Body, Key};
use super::ledger::Entry;
use super::payer::{self, Payer};
use super::pool::{self, Pool};
use super::result::Deduction;
use super::settle::{self, Cause, end_hold};
use super::{caps, own_metadata, told};
use crate::ids::tagged;
use crate::pg::sql::{self, Arg, Mode};
use crate::pg::{self, Composite, Decimal, Error, Jsonb, Result, State};
use crate::schema::require_installed;
use pgrx::datum::Interval;
use pgrx::{default, pg_extern, search_path};
use uuid::Uuid;

const DAY: i64 = 86_400_000_000;
/// The longest a hold may last.
const LONGEST: i64 = 366 * DAY;

/// Reserves credits of an organization's pool, or of the user's own.
#[pg_extern(volatile, parallel_unsafe, security_definer)]
#[search_path(pg_catalog, pg_temp)]
#[allow(clippy::too_many_arguments)]
fn hold_credits(
    user_id: Option<&str>,
    amount: Option<Decimal>,
    org_id: default!(Option<&str>, "NULL"),
    expires_in: default!(Option<Interval>, "'15 min'"),
    description: default!(Option<&str>, "NULL"),
    idempotency_key: default!(Option<&str>, "NULL"),
    metadata: default!(Option<Jsonb>, "'{}'"),
) -> pgrx::Uuid {
    pg::entry(|| {
        require_installed()?;
        let amount = Credits::parse(amount)?;
        let length = length(expires_in)?;
        let payer = payer::named(user_id, org_id).map_err(|error| told(error, org_id, amount))?;
        let metadata = own_metadata(metadata.as_ref())?;
        let body = Body::new("hold")
            .bytes(Some(payer.user.as_bytes()))
            .number(Some(amount.micros()))
            .number(Some(length))
            .text(description)
            .json(metadata);
        let key = Key::new(idempotency_key, "hold", body)?;
        let hold = hold(&payer, amount, length, description, key.as_ref(), metadata)
            .map_err(|error| told(error, org_id, amount))?;
        Ok(pgrx::Uuid::from_bytes(*hold.as_bytes()))
    })
}

fn length(expires_in: Option<Interval>) -> Result<i64> {
    let length = expires_in.map_or(0, |interval| {
        (i64::from(interval.months()) * 30 + i64::from(interval.days()))
            .saturating_mul(DAY)
            .saturating_add(interval.micros())
    });
    if (1..=LONGEST).contains(&length) {
        return Ok(length);
    }
    Err(Error::new(
        State::INVALID_PARAMETER,
        "invalid_argument",
        "expires_in must be longer than zero and at most 366 days",
    )
    .hint("Pass the longest time the work may take, such as interval '15 min'.")
    .detail("parameter", "expires_in"))
}

fn hold(
    payer: &Payer,
    amount: Credits,
    length: i64,
    description: Option<&str>,
    key: Option<&Key>,
    metadata: Option<&Jsonb>,
) -> Result<Uuid> {
    let id = payer.pool();
    let Some(mut pool) = Pool::lock(id)? else {
        let organization_name = judge(payer, super::clock::now())?;
        return Err(Shortage { available: 0, organization_name }.error(payer, amount));
    };
    if let Some(answer) = key.map(|key| key.answer(id)).transpose()?.flatten() {
        return Ok(answer.result);
    }
    let organization_name = judge(payer, pool.now)?;
    if pool.available() < amount.micros() {
        return Err(Shortage { available: pool.available(), organization_name }.error(payer, amount));
    }
    if pool.has_caps
        && payer.organization.is_some()
        && let Some(reached) = caps::judge(id, payer.user, amount.micros(), pool.now)?
    {
        return Err(reached.error(amount.micros()));
    }
    let hold = tagged(id);
    let expires_at = pool.now + length;
    pool.held += amount.micros();
    pool.drawn += i128::from(amount.micros());
    pool.next_expiry_at = pool.next_expiry_at.min(expires_at);
    if !insert(payer, &pool, hold, amount, expires_at, description, metadata)? {
        judge(payer, pool.now)?;
        return Err(seat_unstable());
    }
    if let Some(key) = key {
        key.claim(id, &Answer { result: hold, held_after: pool.held }, pool.now)?;
    }
    pool.last_entry_at = pool.now;
    pool.save()?;
    Ok(hold)
}

fn insert(
    payer: &Payer,
    pool: &Pool,
    hold: Uuid,
    amount: Credits,
    expires_at: i64,
    description: Option<&str>,
    metadata: Option<&Jsonb>,
) -> Result<bool> {
    let inserted = sql::execute(
        concat!(
            "INSERT INTO tenancy.credit_holds
             (pool_id, id, tenant_id, organization_id, user_id, seat_id, subscription_id, amount, drawn_after,
              description, metadata, correlation_id, created_at, expires_at)
         SELECT p.pool_id, $2, p.tenant_id, p.organization_id, $3, s.id, sub.id, $4, $5,
                $6, (coalesce($7, '{}') - ",
            attribution_keys!(),
            ") || CASE WHEN o.id IS NULL THEN jsonb_build_object('pool', 'personal')
                    ELSE jsonb_build_object(
                    'pool', 'organization', 'clerk_org_id', o.external_id, 'organization_id', o.id,
                    'organization_name', o.name, 'stripe_customer_id', o.stripe_customer_id,
                    'organization_subscription_id', sub.id, 'seat_id', s.id, 'seat_role', s.role) END,
                tenancy.correlation_id(), $8, $9
           FROM tenancy.credit_pools AS p
           LEFT JOIN tenancy.organizations AS o ON o.id = p.organization_id
           LEFT JOIN tenancy.organization_subscriptions AS sub ON sub.organization_id = o.id
           LEFT JOIN tenancy.organization_seats AS s
             ON s.organization_id = o.id AND s.user_id = $3 AND s.status = 'active'
            AND (s.expires_at IS NULL OR s.expires_at > $8)
          WHERE p.pool_id = $1
            AND (o.id IS NULL OR s.id IS NOT NULL AND sub.status IN ('active', 'trialing'))"
        ),
        &[
            pool.id.into(),
            hold.into(),
            payer.user.into(),
            Arg::Micros(Some(amount.micros().into())),
            Arg::Micros(Some(pool.drawn)),
            Arg::Text(description),
            Arg::Jsonb(metadata),
            Arg::Time(Some(pool.now)),
            Arg::Time(Some(expires_at)),
        ],
    )?;
    Ok(inserted > 0)
}

/// Charges a hold, all of it or part; the rest is free again.
#[pg_extern(volatile, parallel_unsafe, security_definer, requires = ["credits_types"])]
#[search_path(pg_catalog, pg_temp)]
fn capture_hold(hold_id: Option<pgrx::Uuid>, amount: default!(Option<Decimal>, "NULL")) -> Composite<Deduction> {
    pg::entry(|| {
        require_installed()?;
        let asked = amount.map(|amount| Credits::parse(Some(amount))).transpose()?;
        let (mut pool, held) = open(hold_id)?;
        held.require_same_identity()?;
        let end = match held.status.as_str() {
            "held" => held,
            other => return Err(not_open(other)),
        };
        let charged = asked.map_or(end.amount, Credits::micros);
        if charged > end.amount {
            return Err(Error::new(
                State::UNPROCESSABLE,
                "capture_exceeds_hold",
                "More than what is held cannot be captured",
            )
            .hint("Capture the hold and charge the rest with tenancy.deduct_credits().")
            .detail("held", amount::json(end.amount))
            .detail("required", amount::json(charged)));
        }
        capture(&mut pool, &end, charged).map(Composite)
    })
}

fn capture(pool: &mut Pool, end: &Hold, charged: i64) -> Result<Deduction> {
    let from = end.drawn_after - i128::from(end.amount);
    let to = from + i128::from(charged);
    let current = super::correlation_id();
    pool.held -= end.amount;
    let transaction_id = pool.enter(&Entry {
        operation: "deduction",
        amount: -charged,
        at: pool.now,
        description: end.description.as_deref(),
        metadata: Some(&end.metadata),
        user: Some(end.user),
        seat: end.seat,
        subscription: end.subscription,
        drawn_after: Some(to),
        hold: Some(end.id),
        correlation_id: end.correlation_id.as_deref().or(current.as_deref()),
        ..Entry::default()
    })?;
    sql::execute(
        "UPDATE tenancy.credit_holds AS h
            SET status = 'captured', captured = $3, transaction_id = $4, closed_at = $5
          WHERE h.pool_id = $1 AND h.id = $2",
        &[
            pool.id.into(),
            end.id.into(),
            Arg::Micros(Some(charged.into())),
            transaction_id.into(),
            Arg::Time(Some(pool.now)),
        ],
    )?;
    count_debit(&pool.tenant, charged);
    if to < end.drawn_after {
        settle::give_back(pool, (to, end.drawn_after), Cause::Hold(end.id))?;
    }
    if pool.has_caps && pool.organization {
        caps::count(pool.id, end.user, charged, pool.now)?;
    }
    pool.save()?;
    Ok(Deduction {
        transaction_id: Some(transaction_id),
        status: "captured",
        replayed: false,
        pool: Some(pool.word()),
        charged: Some(charged),
        balance_after: Some(pool.balance),
        held_after: Some(pool.held),
        metadata: Some(end.metadata.clone()),
    })
}

/// Frees a hold without a charge.
#[pg_extern(volatile, parallel_unsafe, security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn void_hold(hold_id: Option<pgrx::Uuid>) -> bool {
    pg::entry(|| {
        require_installed()?;
        let (mut pool, held) = open(hold_id)?;
        held.require_same_identity()?;
        match held.status.as_str() {
            "held" => {}
            "captured" => return Err(not_open("captured")),
            _ => return Ok(false),
        }
        pool.held -= held.amount;
        end_hold(pool.id, held.id, "voided", pool.now)?;
        let segment = (held.drawn_after - i128::from(held.amount), held.drawn_after);
        settle::give_back(&mut pool, segment, Cause::Hold(held.id))?;
        pool.last_entry_at = pool.now;
        pool.save()?;
        Ok(true)
    })
}

/// A hold, read under its pool's lock.
struct Hold {
    id: Uuid,
    amount: i64,
    status: String,
    drawn_after: i128,
    user: Uuid,
    seat: Option<Uuid>,
    subscription: Option<Uuid>,
    description: Option<String>,
    metadata: Jsonb,
    correlation_id: Option<String>,
    organization: Option<Uuid>,
}

impl Hold {
    fn require_same_identity(&self) -> Result<()> {
        payer::require_own(Payer { user: self.user, organization: self.organization })
    }
}

fn open(hold_id: Option<pgrx::Uuid>) -> Result<(Pool, Hold)> {
    let id = hold_id.map(|id| Uuid::from_bytes(*id.as_bytes())).ok_or_else(|| payer::null("hold_id"))?;
    for candidate in pool::candidates(id)? {
        if read(candidate, id)?.is_none() {
            continue;
        }
        let pool = Pool::lock(candidate)?;
        // Read again: settling under the lock may have ended it.
        if let Some((pool, hold)) = pool.zip(read(candidate, id)?) {
            return Ok((pool, hold));
        }
    }
    Err(Error::new(State::NOT_FOUND, "hold_not_found", "Hold not found")
        .hint("Pass the id that tenancy.hold_credits() returned."))
}

fn read(pool: Uuid, id: Uuid) -> Result<Option<Hold>> {
    sql::query_opt(
        "SELECT h.amount, h.status, h.drawn_after, h.user_id, h.seat_id, h.subscription_id, h.description, h.metadata,
                h.correlation_id, h.organization_id
           FROM tenancy.credit_holds AS h
          WHERE h.pool_id = $1 AND h.id = $2",
        &[pool.into(), id.into()],
        Mode::Write,
        |row| {
            Ok(row.get::<Jsonb>(8).map(|metadata| Hold {
                id,
                amount: row.credits(1),
                status: row.text(2).unwrap_or_default(),
                drawn_after: row.micros(3).unwrap_or_default(),
                user: row.uuid(4).unwrap_or_default(),
                seat: row.uuid(5),
                subscription: row.uuid(6),
                description: row.text(7),
                metadata,
                correlation_id: row.text(9),
                organization: row.uuid(10),
            }))
        },
    )
    .map(Option::flatten)
}

fn not_open(status: &str) -> Error {
    let reason = match status {
        "captured" => "hold_captured",
        "voided" => "hold_voided",
        _ => "hold_expired",
    };
    Error::new(State::UNPROCESSABLE, reason, format!("The hold is {status} already"))
        .hint("A hold is captured or voided once, before it expires. Charge with tenancy.deduct_credits() instead.")
}
