//! Caps: how much a member may spend from the organization's pool in a day, a month or ever. Judged and counted under
//! the pool's lock, exact at the boundary. Open holds count as spent, so a capture never goes over.

use super::amount::json;
use super::period::Period;
use crate::pg::sql::{self, Arg, Mode};
use crate::pg::{Error, Result, State};
use uuid::Uuid;

/// A member's cap as it stands.
struct Cap {
    word: String,
    period: Period,
    amount: i64,
    used: i64,
    start: i64,
}

/// A cap that does not leave room.
pub struct Reached {
    period: String,
    cap: i64,
    used: i64,
}

impl Reached {
    /// PT429 with what a client needs to say when it goes on.
    pub fn error(self, required: i64) -> Error {
        Error::new(State::TOO_MANY, "cap_reached", "The member's cap on this pool is reached")
            .hint("Wait for the next period, or raise the cap: SELECT tenancy.set_member_cap(org_id => …, user_id => …, …);")
            .detail("pool", "organization")
            .detail("period", self.period)
            .detail("cap", json(self.cap))
            .detail("used", json(self.used))
            .detail("required", json(required))
            .detail("available", json((self.cap - self.used).max(0)))
    }
}

/// Whether the member's caps leave room for `amount` at `at`; the first that does not.
pub fn judge(pool: Uuid, user: Uuid, amount: i64, at: i64) -> Result<Option<Reached>> {
    let caps = caps(pool, user)?;
    if caps.is_empty() {
        return Ok(None);
    }
    let held = sql::query_opt(
        "SELECT coalesce(sum(h.amount), 0)
           FROM tenancy.credit_holds AS h
          WHERE h.pool_id = $1 AND h.status = 'held' AND h.expires_at > $3 AND h.user_id = $2",
        &[pool.into(), user.into(), Arg::Time(Some(at))],
        Mode::Write,
        |row| Ok(row.credits(1)),
    )?
    .unwrap_or_default();
    Ok(caps.into_iter().find_map(|cap| {
        let used = cap.used_at(at).saturating_add(held);
        (used.saturating_add(amount) > cap.amount).then_some(Reached { period: cap.word, cap: cap.amount, used })
    }))
}

/// Counts what was charged.
pub fn count(pool: Uuid, user: Uuid, amount: i64, at: i64) -> Result<()> {
    for cap in caps(pool, user)? {
        cap.store(pool, user, cap.used_at(at).saturating_add(amount), cap.period.start(at))?;
    }
    Ok(())
}

/// Takes back what was refunded of a charge made at `charged_at`, where the period still counts it.
pub fn uncount(pool: Uuid, user: Uuid, amount: i64, charged_at: i64) -> Result<()> {
    for cap in caps(pool, user)? {
        if cap.period.start(charged_at) == cap.start {
            cap.store(pool, user, (cap.used - amount).max(0), cap.start)?;
        }
    }
    Ok(())
}

impl Cap {
    /// What counts in the period of `at`: nothing, where the stored one is over.
    fn used_at(&self, at: i64) -> i64 {
        if self.period.start(at) == self.start { self.used } else { 0 }
    }

    fn store(&self, pool: Uuid, user: Uuid, used: i64, start: i64) -> Result<()> {
        sql::execute(
            "UPDATE tenancy.credit_caps AS c
                SET used = $4, period_start = $5, updated_at = now()
              WHERE c.pool_id = $1 AND c.user_id = $2 AND c.period = $3",
            &[
                pool.into(),
                user.into(),
                self.word.as_str().into(),
                Arg::Micros(Some(used.into())),
                Arg::Time(Some(start)),
            ],
        )
        .map(drop)
    }
}

fn caps(pool: Uuid, user: Uuid) -> Result<Vec<Cap>> {
    sql::query(
        "SELECT c.period, c.amount, c.used, c.period_start
           FROM tenancy.credit_caps AS c
          WHERE c.pool_id = $1 AND c.user_id = $2
          ORDER BY c.period",
        &[pool.into(), user.into()],
        Mode::Write,
        |row| {
            let word = row.text(1).unwrap_or_default();
            Ok(Cap {
                period: Period::parse(&word).unwrap_or(Period::Lifetime),
                word,
                amount: row.credits(2),
                used: row.credits(3),
                start: row.time(4).unwrap_or_default(),
            })
        },
    )
}
