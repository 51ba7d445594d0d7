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

/// After a debit that went below `alert_below`; its caller may have named a correlation id.
pub fn after_charge(pool: Uuid, correlation_id: Option<&str>) -> Result<()> {
    if let Some(mut pool) = Pool::lock(pool)? {
        pool.arm(correlation_id)?;
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
    pool.arm(None)
}

impl Pool {
    fn arm(&mut self, correlation_id: Option<&str>) -> Result<()> {
        let (available, armed) = (self.available(), self.alert_below);
        let thresholds = thresholds(self.id)?;
        for threshold in thresholds.iter().filter(|threshold| available < **threshold && **threshold <= armed) {
            publish(self, *threshold, correlation_id)?;
        }
        self.alert_below = thresholds.into_iter().filter(|threshold| *threshold <= available).max().unwrap_or(0);
        Ok(())
    }
}

/// From the highest to the lowest, each once.
fn thresholds(pool: Uuid) -> Result<Vec<i64>> {
    sql::query(
        "SELECT DISTINCT t.threshold
           FROM tenancy.credit_pools AS p CROSS JOIN LATERAL unnest(p.alert_thresholds) AS t (threshold)
          WHERE p.pool_id = $1
          ORDER BY t.threshold DESC",
        &[pool.into()],
        Mode::Write,
        |row| Ok(row.credits(1)),
    )
}

fn publish(pool: &Pool, threshold: i64, correlation_id: Option<&str>) -> Result<()> {
    #[derive(Serialize)]
    struct Payload {
        pool: &'static str,
        threshold: Box<RawValue>,
        available: Box<RawValue>,
        seq: i64,
        correlation_id: Option<String>,
    }
    let payload = Payload {
        pool: pool.word(),
        threshold: json(threshold),
        available: json(pool.available()),
        seq: pool.seq,
        correlation_id: correlation_id.map(str::to_owned).or_else(super::correlation_id),
    };
    let payload = serde_json::to_string(&payload)
        .map_err(|_| Error::new(State::INTERNAL, "payload_not_written", "The event could not be written"))?;
    sql::execute("SELECT tenancy._publish_credit_alert($1, $2::jsonb)", &[pool.id.into(), Arg::Text(Some(&payload))])
        .map(drop)
}
