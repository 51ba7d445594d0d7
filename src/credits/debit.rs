//! The debit: one UPDATE of the pool's row, which takes its lock and checks the balance, then one INSERT into the
//! ledger, which reads seat, subscription and names under that lock.
//!
//! READ COMMITTED gives the INSERT a snapshot taken after the lock was granted, so a seat revoked while we waited is
//! seen. In REPEATABLE READ and above the snapshot is older: there seat and subscription are read FOR SHARE, and a
//! change since then fails with 40001.

use super::amount::{Credits, json};
use super::entry_id::entry_id;
use super::idempotency::{Answer, Key};
use super::payer::{Payer, no_active_seat, user_not_found};
use super::pool::{self, Pool};
use super::{alerts, caps, clock};
use crate::pg::metrics::{self, Series};
use crate::pg::sql::{self, Arg, Mode};
use crate::pg::{self, Error, Jsonb, Result, State};
use uuid::Uuid;

/// What is asked for.
pub struct Charge<'a> {
    pub payer: Payer,
    pub amount: Credits,
    pub description: Option<&'a str>,
    pub reference_id: Option<&'a str>,
    /// The caller's metadata; the server's keys go over it.
    pub metadata: Option<&'a Jsonb>,
    pub key: Option<Key<'a>>,
    /// The caller's correlation id, in place of the identity's.
    pub correlation_id: Option<&'a str>,
    /// Whether an organization's pool asks for a seat and an active subscription.
    pub seat: Seat,
}

/// What an organization's pool asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seat {
    Required,
    /// Contract H: membership of the tenant suffices.
    Optional,
}

/// What came of it.
pub enum Outcome {
    Charged(Charged),
    /// The key was answered before.
    Replayed(Answer),
    /// Seat and subscription are in order, the credits do not suffice.
    Insufficient(Shortage),
}

/// A charge that is in the ledger.
pub struct Charged {
    pub transaction_id: Uuid,
    pub balance_after: i64,
    pub held_after: i64,
    pub metadata: Option<Jsonb>,
}

/// Why there was no charge.
pub struct Shortage {
    pub available: i64,
    pub organization_name: Option<String>,
}

impl Shortage {
    /// PT402 with what a client needs to offer a top-up.
    pub fn error(self, payer: &Payer, amount: Credits) -> Error {
        let mut error = Error::new(State::PAYMENT_REQUIRED, "insufficient_credits", "Insufficient credits")
            .hint("Grant credits to the pool, or charge less; nothing was charged.")
            .detail("pool", payer.pool_word())
            .detail("required", json(amount.micros()))
            .detail("available", json(self.available));
        if let Some(name) = self.organization_name {
            error = error.detail("organization_name", name);
        }
        error
    }
}

/// The pool's row as a debit left it, and locked.
struct Taken {
    balance: i64,
    held: i64,
    granted: i128,
    drawn: i128,
    seq: i64,
    at: i64,
    next_expiry_at: i64,
    alert_below: i64,
    has_caps: bool,
    tenant: String,
}

/// Charges. `returning` says whether the metadata written is wanted back.
///
/// Errors: PT403 `no_active_seat`, PT402 `no_active_subscription`, PT409 `idempotency_conflict`, PT429 `cap_reached`.
pub fn charge(charge: &Charge, returning: bool) -> Result<Outcome> {
    let pool = charge.payer.pool();
    loop {
        if let Some(answer) = charge.key.as_ref().map(|key| key.answer(pool)).transpose()?.flatten() {
            return Ok(Outcome::Replayed(answer));
        }
        let Some(taken) = take(pool, charge.amount)? else {
            match pool::peek(pool)? {
                Some((_, boundary)) if clock::now() >= boundary => {
                    Pool::lock(pool)?;
                }
                // Somebody granted credits since the UPDATE looked.
                Some((available, _)) if available >= charge.amount.micros() => {}
                found => return short(charge, found.map_or(0, |(available, _)| available)),
            }
            continue;
        };
        // The pool's row is locked from here on; whoever waits for it waits for this transaction.
        pg::offer_early_lock_release();
        let now = clock::now().max(taken.at);
        if now >= taken.next_expiry_at {
            // The time after the lock decides: what has expired must not be spent.
            give_back(pool, charge.amount)?;
            Pool::lock(pool)?;
            continue;
        }
        let transaction_id = entry_id(pool, taken.at, taken.seq);
        if let Some(key) = &charge.key {
            let answer = Answer { result: transaction_id, held_after: taken.held };
            if !key.claim(pool, &answer, taken.at)? {
                // Somebody with the same key was first; the answer is there now that we have the lock.
                give_back(pool, charge.amount)?;
                continue;
            }
        }
        let metadata = write(charge, &taken, transaction_id, now, returning)?;
        count_debit(&taken.tenant, charge.amount.micros());
        let (balance_after, held_after) = (taken.balance, taken.held);
        if taken.has_caps && charge.payer.organization.is_some() {
            count(charge, taken.at)?;
        }
        if balance_after - held_after < taken.alert_below {
            alerts::after_charge(pool)?;
        }
        return Ok(Outcome::Charged(Charged { transaction_id, balance_after, held_after, metadata }));
    }
}

/// Counts a charge in the metrics of its pool's tenant.
pub fn count_debit(tenant: &str, micros: i64) {
    metrics::count_for(tenant, Series::Debit, 1);
    metrics::count_for(tenant, Series::DebitedMicros, micros.unsigned_abs());
}

fn take(pool: Uuid, amount: Credits) -> Result<Option<Taken>> {
    let amount = Arg::Micros(Some(amount.micros().into()));
    sql::query_opt(
        "UPDATE tenancy.credit_pools AS p
            SET balance = p.balance - $2, drawn_total = p.drawn_total + $2, seq = p.seq + 1,
                last_entry_at = greatest(p.last_entry_at, $3)
          WHERE p.pool_id = $1 AND p.balance - p.held >= $2 AND p.next_expiry_at > $3
         RETURNING p.balance, p.held, p.granted_total, p.drawn_total, p.seq, p.last_entry_at, p.next_expiry_at,
                   p.alert_below, p.has_caps, p.tenant_id",
        &[pool.into(), amount, Arg::Time(Some(clock::now()))],
        Mode::Write,
        |row| {
            Ok(Taken {
                balance: row.credits(1),
                held: row.credits(2),
                granted: row.micros(3).unwrap_or_default(),
                drawn: row.micros(4).unwrap_or_default(),
                seq: row.get(5).unwrap_or_default(),
                at: row.time(6).unwrap_or_default(),
                next_expiry_at: row.time(7).unwrap_or_default(),
                alert_below: row.credits(8),
                has_caps: row.get(9) == Some(true),
                tenant: row.text(10).unwrap_or_default(),
            })
        },
    )
}

/// Undoes [`take`] in the same transaction, where nobody has seen it; the lock stays.
fn give_back(pool: Uuid, amount: Credits) -> Result<()> {
    sql::execute(
        "UPDATE tenancy.credit_pools AS p
            SET balance = p.balance + $2, drawn_total = p.drawn_total - $2, seq = p.seq - 1
          WHERE p.pool_id = $1",
        &[pool.into(), Arg::Micros(Some(amount.micros().into()))],
    )
    .map(drop)
}

fn count(charge: &Charge, at: i64) -> Result<()> {
    let (pool, user, amount) = (charge.payer.pool(), charge.payer.user, charge.amount.micros());
    match caps::judge(pool, user, amount, at)? {
        Some(reached) => Err(reached.error(amount)),
        None => caps::count(pool, user, amount, at),
    }
}

macro_rules! insert_columns {
    () => {
        "INSERT INTO tenancy.credit_transactions
             (pool_id, id, seq, credits_amount, operation_type, description, reference_id, balance_after, granted_after,
              drawn_after, created_at, correlation_id, user_id, tenant_id, organization_id, seat_id, subscription_id, metadata) "
    };
}

macro_rules! organization_insert {
    ($lock:literal, $returning:literal) => {
        concat!(
            insert_columns!(),
            "SELECT $1, $2, $3, $4, 'deduction', $5, $6, $7, $13, $8, $9, coalesce($14, tenancy.correlation_id()), $10,
                    o.tenant_id, o.id, s.id, sub.id,
                    CASE WHEN $11 IS NULL THEN own.metadata ELSE $11 || own.metadata END
               FROM tenancy.organizations AS o
               JOIN tenancy.organization_subscriptions AS sub
                 ON sub.organization_id = o.id AND sub.status IN ('active', 'trialing')
               JOIN tenancy.organization_seats AS s
                 ON s.organization_id = o.id AND s.user_id = $10 AND s.status = 'active'
                AND (s.expires_at IS NULL OR s.expires_at > $12)
              CROSS JOIN LATERAL jsonb_build_object(
                    'pool', 'organization', 'clerk_org_id', o.external_id, 'organization_id', o.id,
                    'organization_name', o.name, 'stripe_customer_id', o.stripe_customer_id,
                    'organization_subscription_id', sub.id, 'seat_id', s.id, 'seat_role', s.role) AS own (metadata)
              WHERE o.id = $1 ",
            $lock,
            $returning
        )
    };
}

const CONSUMPTION: &str = concat!(
    insert_columns!(),
    "SELECT $1, $2, $3, $4, 'deduction', $5, $6, $7, $13, $8, $9, coalesce($14, tenancy.correlation_id()), $10,
            o.tenant_id, o.id, s.id, sub.id,
            coalesce($11, '{}') || jsonb_build_object(
                'pool', 'organization', 'clerk_org_id', o.external_id, 'organization_id', o.id,
                'organization_name', o.name, 'stripe_customer_id', o.stripe_customer_id,
                'organization_subscription_id', sub.id, 'seat_id', s.id, 'seat_role', s.role)
       FROM tenancy.organizations AS o
       LEFT JOIN tenancy.organization_subscriptions AS sub ON sub.organization_id = o.id
       LEFT JOIN tenancy.organization_seats AS s
         ON s.organization_id = o.id AND s.user_id = $10 AND s.status = 'active'
        AND (s.expires_at IS NULL OR s.expires_at > $12)
      WHERE o.id = $1
     RETURNING metadata"
);

macro_rules! personal_insert {
    ($returning:literal) => {
        concat!(
            insert_columns!(),
            "SELECT $1, $2, $3, $4, 'deduction', $5, $6, $7, $13, $8, $9, coalesce($14, tenancy.correlation_id()), $10,
                    p.tenant_id, NULL, NULL, NULL,
                    CASE WHEN $11 IS NULL THEN '{\"pool\": \"personal\"}' ELSE $11 || '{\"pool\": \"personal\"}' END
               FROM tenancy.credit_pools AS p
              WHERE p.pool_id = $1 ",
            $returning
        )
    };
}

fn write(charge: &Charge, taken: &Taken, id: Uuid, now: i64, returning: bool) -> Result<Option<Jsonb>> {
    let args = [
        charge.payer.pool().into(),
        id.into(),
        Arg::Long(Some(taken.seq)),
        Arg::Micros(Some(-i128::from(charge.amount.micros()))),
        Arg::Text(charge.description),
        Arg::Text(charge.reference_id),
        Arg::Micros(Some(taken.balance.into())),
        Arg::Micros(Some(taken.drawn)),
        Arg::Time(Some(taken.at)),
        charge.payer.user.into(),
        Arg::Jsonb(charge.metadata),
        Arg::Time(Some(now)),
        Arg::Micros(Some(taken.granted)),
        Arg::Text(charge.correlation_id),
    ];
    let statement = match (charge.payer.organization.is_some(), pg::snapshot_is_kept(), returning) {
        (true, _, _) if charge.seat == Seat::Optional => CONSUMPTION,
        (true, false, false) => organization_insert!("", ""),
        (true, false, true) => organization_insert!("", "RETURNING metadata"),
        (true, true, false) => organization_insert!("FOR SHARE OF s, sub ", ""),
        (true, true, true) => organization_insert!("FOR SHARE OF s, sub ", "RETURNING metadata"),
        (false, _, false) => personal_insert!(""),
        (false, _, true) => personal_insert!("RETURNING metadata"),
    };
    let (written, metadata) = if returning || charge.seat == Seat::Optional {
        let row = sql::query_opt(statement, &args, Mode::Write, |row| Ok(row.get::<Jsonb>(1)))?;
        (row.is_some(), row.flatten())
    } else {
        (sql::execute(statement, &args)? > 0, None)
    };
    if !written {
        judge(&charge.payer, now)?;
        return Err(Error::new(State::INTERNAL, "seat_unstable", "The seat changed while it was read")
            .hint("Run the transaction again."));
    }
    Ok(metadata)
}

fn short(charge: &Charge, available: i64) -> Result<Outcome> {
    let organization_name = match charge.seat {
        Seat::Required => judge(&charge.payer, clock::now())?,
        Seat::Optional => None,
    };
    Ok(Outcome::Insufficient(Shortage { available, organization_name }))
}

/// Whether the payer may spend from the pool at all; the organization's name.
///
/// Errors: PT403 `no_active_seat`, PT402 `no_active_subscription`, and PT404 for a user that is gone.
pub fn judge(payer: &Payer, now: i64) -> Result<Option<String>> {
    let Some(organization) = payer.organization else { return Ok(None) };
    if pg::snapshot_is_kept() {
        pin(organization, payer.user)?;
    }
    let facts = sql::query_opt(
        "SELECT o.name, s.id IS NOT NULL, coalesce(sub.status IN ('active', 'trialing'), false), u.id IS NOT NULL
           FROM tenancy.organizations AS o
           LEFT JOIN tenancy.users AS u ON u.id = $2
           LEFT JOIN tenancy.organization_subscriptions AS sub ON sub.organization_id = o.id
           LEFT JOIN tenancy.organization_seats AS s
             ON s.organization_id = o.id AND s.user_id = $2 AND s.status = 'active'
            AND (s.expires_at IS NULL OR s.expires_at > $3)
          WHERE o.id = $1",
        &[organization.into(), payer.user.into(), Arg::Time(Some(now))],
        Mode::Write,
        |row| {
            let flag = |ordinal| row.get::<bool>(ordinal) == Some(true);
            Ok((row.text(1), flag(2), flag(3), flag(4)))
        },
    )?;
    match facts {
        Some((_, _, _, false)) => Err(user_not_found()),
        None | Some((_, false, _, _)) => Err(no_active_seat()),
        Some((_, _, false, _)) => Err(no_active_subscription()),
        Some((name, true, true, true)) => Ok(name),
    }
}

/// In a transaction that keeps its snapshot: 40001 if seat or subscription have changed since it was taken.
fn pin(organization: Uuid, user: Uuid) -> Result<()> {
    let args = [organization.into(), user.into()];
    sql::execute(
        "SELECT FROM tenancy.organization_subscriptions AS sub WHERE sub.organization_id = $1 FOR SHARE",
        &args[..1],
    )?;
    sql::execute(
        "SELECT FROM tenancy.organization_seats AS s WHERE s.organization_id = $1 AND s.user_id = $2 FOR SHARE",
        &args,
    )
    .map(drop)
}

/// Contract S's text.
fn no_active_subscription() -> Error {
    Error::new(State::PAYMENT_REQUIRED, "no_active_subscription", "Active organization subscription not found")
        .hint("Its status must be active or trialing: SELECT tenancy.set_subscription(org_id => …, …);")
}
