//! Alerts: an event when the available credits of a pool fall below a threshold, once a crossing.
//!
//! The pool's row carries the highest threshold that is not above what is available; the debit compares one number with
//! it. Rising credits arm the thresholds again.

use super::amount::json;
use super::pool::Pool;
use crate::pg::sql::{self, Arg, Mode};
use crate::pg::{Error, Result, State};
use serde::Serialize;
use serde_json::value::RawValue;
use uuid::Uuid;

/// After a debit that went below `alert_below`.
pub fn after_charge(pool: Uuid) -> Result<()> {
    if let Some(mut pool) = Pool::lock(pool)? {
        let armed = pool.alert_below;
        pool.arm(armed)?;
        pool.save()?;
    }
    Ok(())
}

/// Publishes what the change of a locked pool from `before` available credits crossed, and arms what it rose above.
pub fn cross(pool: &mut Pool, before: i64) -> Result<()> {
    let after = pool.available();
    if after == before || (after < before && after >= pool.alert_below) {
        return Ok(());
    }
    let armed = pool.alert_below;
    pool.arm(armed)
}

impl Pool {
    fn arm(&mut self, armed: i64) -> Result<()> {
        let available = self.available();
        let thresholds = thresholds(self.id)?;
        for threshold in thresholds.iter().filter(|threshold| available < **threshold && **threshold <= armed) {
            publish(self, *threshold)?;
        }
        self.alert_below = thresholds.into_iter().filter(|threshold| *threshold <= available).max().unwrap_or(0);
        Ok(())
    }
}

/// From the highest to the lowest.
fn thresholds(pool: Uuid) -> Result<Vec<i64>> {
    sql::query(
        "SELECT t.threshold
           FROM tenancy.credit_pools AS p CROSS JOIN LATERAL unnest(p.alert_thresholds) AS t (threshold)
          WHERE p.pool_id = $1
          ORDER BY t.threshold DESC",
        &[pool.into()],
        Mode::Write,
        |row| Ok(row.credits(1)),
    )
}

fn publish(pool: &Pool, threshold: i64) -> Result<()> {
    #[derive(Serialize)]
    struct Payload {
        pool: &'static str,
        threshold: Box<RawValue>,
        available: Box<RawValue>,
        seq: i64,
    }
    let payload =
        Payload { pool: pool.word(), threshold: json(threshold), available: json(pool.available()), seq: pool.seq };
    let payload = serde_json::to_string(&payload)
        .map_err(|_| Error::new(State::INTERNAL, "payload_not_written", "The event could not be written"))?;
    sql::execute("SELECT tenancy._publish_credit_alert($1, $2::jsonb)", &[pool.id.into(), Arg::Text(Some(&payload))])
        .map(drop)
}
