//! Entries of the ledger that are no plain deductions: grants, expiries, refunds, captures, adjustments.

use super::amount::LARGEST;
use super::entry_id::entry_id;
use super::pool::Pool;
use crate::pg::sql::{self, Arg, Mode};
use crate::pg::{Error, Jsonb, Result, State};
use uuid::Uuid;

/// What an entry says beside the pool's figures.
#[derive(Clone, Copy, Debug, Default)]
pub struct Entry<'a> {
    pub operation: &'static str,
    /// Signed: what it adds to the balance.
    pub amount: i64,
    pub at: i64,
    pub description: Option<&'a str>,
    pub reference_id: Option<&'a str>,
    pub metadata: Option<&'a Jsonb>,
    pub user: Option<Uuid>,
    pub seat: Option<Uuid>,
    pub subscription: Option<Uuid>,
    pub drawn_after: Option<i128>,
    pub grant: Option<Uuid>,
    pub hold: Option<Uuid>,
    pub refund_of: Option<Uuid>,
    pub correlation_id: Option<&'a str>,
}

/// More than a pool holds.
pub fn out_of_range() -> Error {
    Error::new(State::OUT_OF_RANGE, "balance_out_of_range", "A pool holds at most 999999999999.999999 credits")
        .hint("Grant less, or spend first; grants that are yet to become effective count.")
}

impl Pool {
    /// Whether `amount` more fits beside the balance and the grants that will enter it when their time comes.
    ///
    /// Error: 22003 `balance_out_of_range`.
    pub fn require_room(&self, amount: i64) -> Result<()> {
        let coming = sql::query_opt(
            "SELECT coalesce(sum(g.amount), 0)
               FROM tenancy.credit_grants AS g
              WHERE g.pool_id = $1 AND g.is_open AND NOT g.is_posted",
            &[self.id.into()],
            Mode::Write,
            |row| Ok(row.micros(1)),
        )?;
        let reached = i128::from(self.balance) + coming.flatten().unwrap_or_default() + i128::from(amount);
        if reached > i128::from(LARGEST) { Err(out_of_range()) } else { Ok(()) }
    }

    /// Writes an entry into the ledger of a locked pool and moves the balance by its amount; `save` writes the pool.
    ///
    /// Errors: 22003 `balance_out_of_range`.
    pub fn enter(&mut self, entry: &Entry) -> Result<Uuid> {
        let balance = self.balance + entry.amount;
        if balance > LARGEST {
            return Err(out_of_range());
        }
        self.balance = balance;
        // What neither spends nor refunds changes what was granted.
        if !matches!(entry.operation, "deduction" | "refund") {
            self.granted += i128::from(entry.amount);
        }
        self.seq += 1;
        self.last_entry_at = self.last_entry_at.max(entry.at);
        let id = entry_id(self.id, self.last_entry_at, self.seq);
        sql::execute(
            "INSERT INTO tenancy.credit_transactions
                 (pool_id, id, seq, tenant_id, organization_id, user_id, seat_id, subscription_id, credits_amount,
                  operation_type, description, reference_id, metadata, balance_after, granted_after, drawn_after,
                  grant_id, hold_id, refund_of, correlation_id, created_at)
             SELECT p.pool_id, $2, $3, p.tenant_id, p.organization_id, $4, $5, $6, $7,
                    $8, $9, $10, coalesce($11, jsonb_build_object('pool', $12)), $13, $14, $15,
                    $16, $17, $18, $19, $20
               FROM tenancy.credit_pools AS p
              WHERE p.pool_id = $1",
            &[
                self.id.into(),
                id.into(),
                Arg::Long(Some(self.seq)),
                Arg::Uuid(entry.user),
                Arg::Uuid(entry.seat),
                Arg::Uuid(entry.subscription),
                Arg::Micros(Some(entry.amount.into())),
                entry.operation.into(),
                Arg::Text(entry.description),
                Arg::Text(entry.reference_id),
                Arg::Jsonb(entry.metadata),
                self.word().into(),
                Arg::Micros(Some(self.balance.into())),
                Arg::Micros(Some(self.granted)),
                Arg::Micros(entry.drawn_after),
                Arg::Uuid(entry.grant),
                Arg::Uuid(entry.hold),
                Arg::Uuid(entry.refund_of),
                Arg::Text(entry.correlation_id),
                Arg::Time(Some(self.last_entry_at)),
            ],
        )?;
        Ok(id)
    }
}
