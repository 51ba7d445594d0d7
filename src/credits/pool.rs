//! A pool's row, whole and locked: for everything but the debit itself, which has its own statement.

use super::book::NEVER;
use super::entry_id::tag;
use super::{alerts, clock, settle};
use crate::pg::sql::{self, Arg, Mode, Row};
use crate::pg::{Result, turns};
use uuid::Uuid;

/// A pool's figures. Amounts in millionths, times in microseconds since 2000-01-01.
#[derive(Clone, Debug)]
pub struct Pool {
    pub id: Uuid,
    pub organization: bool,
    pub balance: i64,
    pub held: i64,
    pub granted: i128,
    pub drawn: i128,
    pub burned: i128,
    pub seq: i64,
    pub next_expiry_at: i64,
    pub alert_below: i64,
    pub has_caps: bool,
    pub tenant: String,
    pub last_entry_at: i64,
    /// The time of what is being done: the clock's, but never before the newest entry.
    pub now: i64,
    /// Available credits as they are stored, to see what a change crosses.
    stored: i64,
}

macro_rules! pool_columns {
    ($end:literal) => {
        concat!(
            "SELECT p.pool_id, p.organization_id IS NOT NULL, p.balance, p.held, p.granted_total, p.drawn_total,
                    p.burned_total, p.seq, p.next_expiry_at, p.alert_below, p.has_caps, p.last_entry_at, p.tenant_id
               FROM tenancy.credit_pools AS p
              WHERE p.pool_id = $1 ",
            $end
        )
    };
}

impl Pool {
    /// Locks a pool and brings it to the present; none where there is no pool.
    ///
    /// The lock guards everything in the pool. In REPEATABLE READ and above it fails with 40001 if the pool has changed
    /// since the snapshot, so what is read after it is not stale there either.
    pub fn lock(id: Uuid) -> Result<Option<Self>> {
        let Some(mut pool) = Self::lock_as_stored(id)? else { return Ok(None) };
        if pool.now >= pool.next_expiry_at {
            settle::settle(&mut pool)?;
        }
        Ok(Some(pool))
    }

    /// The same, and leaves what is due for later.
    pub fn lock_as_stored(id: Uuid) -> Result<Option<Self>> {
        let is_new = turns::take(id)?;
        let found = sql::query_opt(pool_columns!("FOR NO KEY UPDATE"), &[id.into()], Mode::Write, Self::read_row)?;
        if found.is_none() && is_new {
            turns::leave(id);
        }
        Ok(found)
    }

    /// The pool as the calling statement sees it, without a lock and without bringing it to the present.
    pub fn read(id: Uuid) -> Result<Option<Self>> {
        sql::query_opt(pool_columns!(""), &[id.into()], Mode::Read, Self::read_row)
    }

    fn read_row(row: &Row) -> Result<Self> {
        let (balance, held) = (row.credits(3), row.credits(4));
        let last_entry_at = row.time(12).unwrap_or_default();
        Ok(Self {
            id: row.uuid(1).unwrap_or_default(),
            organization: row.get(2) == Some(true),
            balance,
            held,
            granted: row.micros(5).unwrap_or_default(),
            drawn: row.micros(6).unwrap_or_default(),
            burned: row.micros(7).unwrap_or_default(),
            seq: row.get(8).unwrap_or_default(),
            next_expiry_at: row.time(9).unwrap_or(NEVER),
            alert_below: row.credits(10),
            has_caps: row.get(11) == Some(true),
            last_entry_at,
            tenant: row.text(13).unwrap_or_default(),
            now: clock::now().max(last_entry_at),
            stored: balance - held,
        })
    }

    /// Credits that can be charged or held.
    pub fn available(&self) -> i64 {
        self.balance - self.held
    }

    /// The word for the pool in results, metadata and errors.
    pub fn word(&self) -> &'static str {
        if self.organization { "organization" } else { "personal" }
    }

    /// Writes the row, and publishes what the change crossed.
    pub fn save(&mut self) -> Result<()> {
        alerts::cross(self, self.stored)?;
        self.stored = self.available();
        sql::execute(
            "UPDATE tenancy.credit_pools AS p
                SET balance = $2, held = $3, granted_total = $4, drawn_total = $5, burned_total = $6, seq = $7,
                    next_expiry_at = $8, alert_below = $9, has_caps = $10, last_entry_at = $11
              WHERE p.pool_id = $1",
            &[
                self.id.into(),
                Arg::Micros(Some(self.balance.into())),
                Arg::Micros(Some(self.held.into())),
                Arg::Micros(Some(self.granted)),
                Arg::Micros(Some(self.drawn)),
                Arg::Micros(Some(self.burned)),
                Arg::Long(Some(self.seq)),
                Arg::Time(Some(self.next_expiry_at)),
                Arg::Micros(Some(self.alert_below.into())),
                Arg::Bool(Some(self.has_caps)),
                Arg::Time(Some(self.last_entry_at)),
            ],
        )
        .map(drop)
    }
}

/// Available credits and the next boundary as they stand now, without a lock; none where there is no pool.
pub fn peek(id: Uuid) -> Result<Option<(i64, i64)>> {
    sql::query_opt(
        "SELECT p.balance - p.held, p.next_expiry_at FROM tenancy.credit_pools AS p WHERE p.pool_id = $1",
        &[id.into()],
        Mode::Write,
        |row| Ok((row.credits(1), row.time(2).unwrap_or(NEVER))),
    )
}

/// The pools a bare id (of a transaction or hold) can belong to: those with its tag, nearly always one.
pub fn candidates(id: Uuid) -> Result<Vec<Uuid>> {
    sql::query(
        "SELECT p.pool_id FROM tenancy.credit_pools AS p WHERE p.tag = $1 ORDER BY p.pool_id",
        &[Arg::Int(Some(tag(id)))],
        Mode::Write,
        |row| Ok(row.uuid(1).unwrap_or_default()),
    )
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
