//! The debit: one change of the pool's row, which takes its lock and checks the balance, then seat, subscription and
//! names read under that lock ([`attribution`]), then one row into the ledger. Both rows are written without a statement
//! where the tables are as our migrations made them ([`pg::direct`]), by a statement else.

use super::amount::{Credits, json};
use super::attribution::{self, judge};
use super::caps::Reached;
use super::entry_id::entry_id;
use super::idempotency::{Answer, Key};
use super::payer::Payer;
use super::pool::{self, Pool};
use super::rows::{self, Row};
use super::sound::figures_are_sound;
use super::tables::POOLS;
use super::{alerts, caps, clock};
use crate::pg::direct_update::{self, Change, Changed};
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

impl Charge<'_> {
    /// What its key was answered before.
    fn answer(&self) -> Result<Option<Answer>> {
        self.key.as_ref().map_or(Ok(None), |key| key.answer(self.payer.pool()))
    }
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
    /// The member's cap does not leave room; only where no seat is asked for, else it is an error.
    Capped(Reached),
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
        if let Some(answer) = charge.answer()? {
            return Ok(Outcome::Replayed(answer));
        }
        if let Some(taken) = take(pool, charge.amount)? {
            // The time after the lock decides.
            let now = clock::now().max(taken.at);
            match finish(charge, taken, now, returning)? {
                Some(outcome) => return Ok(outcome),
                None => continue,
            }
        }
        match pool::peek(pool)? {
            Some((_, boundary)) if clock::now() >= boundary => {
                Pool::lock(pool)?;
            }
            // Somebody granted credits since the UPDATE looked.
            Some((available, _)) if available >= charge.amount.micros() => {}
            found => {
                // What used the pool up while this one waited may have been the same request.
                if let Some(answer) = charge.answer()? {
                    return Ok(Outcome::Replayed(answer));
                }
                return short(charge, found.map_or(0, |(available, _)| available));
            }
        }
    }
}

/// Charges without a key where the pool pays as it stands and nobody has its row. Where not, nothing is done, and neither
/// turn nor lock is kept: the caller may lock several pools in the order of their ids then.
pub fn charge_at_once(charge: &Charge, returning: bool) -> Result<Option<Outcome>> {
    match take_directly(charge.payer.pool(), charge.amount, false)? {
        Changed::Done(taken) => {
            let now = taken.at;
            finish(charge, taken, now, returning)
        }
        Changed::Left | Changed::NeedsStatement => Ok(None),
    }
}

/// The rest of a charge whose credits are taken; none where it has to begin again, and they are given back.
fn finish(charge: &Charge, taken: Taken, now: i64, returning: bool) -> Result<Option<Outcome>> {
    let pool = charge.payer.pool();
    if now >= taken.next_expiry_at {
        // What has expired must not be spent.
        give_back(pool, charge.amount)?;
        Pool::lock(pool)?;
        return Ok(None);
    }
    if charge.seat == Seat::Optional
        && taken.has_caps
        && let Some(reached) = caps::judge(pool, charge.payer.user, charge.amount.micros(), taken.at)?
    {
        give_back(pool, charge.amount)?;
        return Ok(Some(Outcome::Capped(reached)));
    }
    let transaction_id = entry_id(pool, taken.at, taken.seq);
    if let Some(key) = &charge.key {
        let answer = Answer { result: transaction_id, held_after: taken.held };
        if !key.claim(pool, &answer, taken.at)? {
            // Somebody with the same key was first; the answer is there now that we have the lock.
            give_back(pool, charge.amount)?;
            return Ok(None);
        }
    }
    let metadata = write(charge, &taken, transaction_id, now, returning)?;
    count_debit(&taken.tenant, charge.amount.micros());
    let (balance_after, held_after) = (taken.balance, taken.held);
    if taken.has_caps && charge.payer.organization.is_some() {
        count(charge, taken.at)?;
    }
    if balance_after - held_after < taken.alert_below {
        alerts::after_charge(pool, charge.correlation_id)?;
    }
    Ok(Some(Outcome::Charged(Charged { transaction_id, balance_after, held_after, metadata })))
}

/// Counts a charge in the metrics of its pool's tenant.
pub fn count_debit(tenant: &str, micros: i64) {
    metrics::count_for(tenant, Series::Debit, 1);
    metrics::count_for(tenant, Series::DebitedMicros, micros.unsigned_abs());
}

/// Takes the credits, if the pool has them; if not, neither turn nor lock is kept, but where a statement had to look.
fn take(pool: Uuid, amount: Credits) -> Result<Option<Taken>> {
    match take_directly(pool, amount, true)? {
        Changed::Done(taken) => Ok(Some(taken)),
        Changed::Left => Ok(None),
        Changed::NeedsStatement => take_by_statement(pool, amount),
    }
}

/// The same without a statement, and without waiting for the row unless `waits`.
fn take_directly(pool: Uuid, amount: Credits, waits: bool) -> Result<Changed<Taken>> {
    let is_new = pg::turns::take(pool)?;
    let change = |row: &sql::Row| Taken::from_pool(row, amount.micros(), clock::now());
    let changed = direct_update::update(&POOLS, pool, waits, change)?;
    let goes_on = match changed {
        Changed::Done(_) => true,
        Changed::NeedsStatement => waits,
        Changed::Left => false,
    };
    if is_new && !goes_on {
        pg::turns::leave(pool);
    }
    Ok(changed)
}

/// Locks the row before it looks: an UPDATE that waits and then finds too little keeps it locked as well, unsaid.
fn take_by_statement(pool: Uuid, amount: Credits) -> Result<Option<Taken>> {
    let Some(found) = Pool::lock(pool)? else { return Ok(None) };
    if found.available() < amount.micros() {
        return Ok(None);
    }
    let taken = sql::query_opt(
        "UPDATE tenancy.credit_pools AS p
            SET balance = p.balance - $2, drawn_total = p.drawn_total + $2, seq = p.seq + 1,
                last_entry_at = greatest(p.last_entry_at, $3)
          WHERE p.pool_id = $1
         RETURNING p.balance, p.held, p.granted_total, p.drawn_total, p.seq, p.last_entry_at, p.next_expiry_at,
                   p.alert_below, p.has_caps, p.tenant_id",
        &[pool.into(), Arg::Micros(Some(amount.micros().into())), Arg::Time(Some(found.now))],
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
    )?;
    if taken.is_none() {
        return Err(Error::new(State::INTERNAL, "ledger_inconsistent", "The pool's row did not take the change")
            .hint("A trigger or rule of yours on tenancy.credit_pools keeps it back: drop it."));
    }
    Ok(taken)
}

impl Taken {
    /// What the statement above makes of a pool's row.
    fn from_pool(row: &sql::Row, amount: i64, now: i64) -> Change<'static, Self> {
        let (balance, held) = (row.credits(6), row.credits(7));
        let figures = row.micros(8).zip(row.micros(9)).zip(row.micros(10));
        let numbers = row.get::<i64>(11).zip(row.time(12)).zip(row.time(16));
        let Some((((granted, drawn), burned), ((seq, next_expiry_at), last_entry_at))) = figures.zip(numbers) else {
            return Change::Refuse;
        };
        if balance - held < amount || next_expiry_at <= now {
            return Change::Leave;
        }
        let taken = Self {
            balance: balance - amount,
            held,
            granted,
            drawn: drawn + i128::from(amount),
            seq: seq + 1,
            at: last_entry_at.max(now),
            next_expiry_at,
            alert_below: row.credits(13),
            has_caps: row.get(15) == Some(true),
            tenant: row.text(3).unwrap_or_default(),
        };
        if !figures_are_sound(taken.balance.into(), held.into(), granted, taken.drawn, burned) {
            return Change::Refuse;
        }
        let values = vec![
            (6, Arg::Micros(Some(taken.balance.into()))),
            (9, Arg::Micros(Some(taken.drawn))),
            (11, Arg::Long(Some(taken.seq))),
            (16, Arg::Time(Some(taken.at))),
        ];
        Change::Set(values, taken)
    }
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

fn write(charge: &Charge, taken: &Taken, id: Uuid, now: i64, returning: bool) -> Result<Option<Jsonb>> {
    let payer = charge.payer;
    let attribution = attribution::find(&payer, charge.seat, &taken.tenant, now)?;
    let row = Row {
        payer,
        id,
        seq: taken.seq,
        amount: charge.amount,
        description: charge.description,
        reference_id: charge.reference_id,
        merged: rows::merge(&payer, charge.metadata, &attribution)?,
        attribution,
        balance_after: taken.balance,
        granted_after: taken.granted,
        drawn_after: taken.drawn,
        at: taken.at,
    };
    let correlation_id = match charge.correlation_id {
        Some(id) => Some(id.to_owned()),
        None => super::correlation_id(),
    };
    rows::write(std::slice::from_ref(&row), correlation_id.as_deref())?;
    Ok(returning.then(|| row.metadata().clone()))
}

fn short(charge: &Charge, available: i64) -> Result<Outcome> {
    let organization_name = match charge.seat {
        Seat::Required => judge(&charge.payer, clock::now())?,
        Seat::Optional => None,
    };
    Ok(Outcome::Insufficient(Shortage { available, organization_name }))
}
