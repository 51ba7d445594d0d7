//! The rate limits as they stand in `tenancy.rate_limits`, kept by each backend until a change is announced.

use super::gcra::Rule;
use crate::pg::metrics::{self, Series};
use crate::pg::sql::{self, Mode};
use crate::pg::{self, Result};
use std::cell::RefCell;
use std::collections::HashMap;

/// Rules kept in a backend; a tenant and a name each.
const MAX_RULES: usize = 4096;

/// What is set for a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// A limit.
    Limited(Rule),
    /// Unlimited, in so many words.
    Unlimited,
    /// Nothing.
    Unknown,
}

#[derive(Default)]
struct Cache {
    epoch: u64,
    rules: HashMap<String, HashMap<String, Found>>,
    kept: usize,
}

thread_local! {
    static CACHE: RefCell<Cache> = RefCell::default();
}

/// The tenant's own limit of that name, else the one for every tenant.
pub fn find(tenant: &str, name: &str) -> Result<Found> {
    crate::schema::require_installed()?;
    if CACHE.with_borrow(|cache| cache.epoch != pg::epoch()) {
        // Watched before it is read, so that no change is missed.
        sql::table_oid("rate_limits")?.into_iter().for_each(pg::watch);
        CACHE.set(Cache { epoch: pg::epoch(), ..Cache::default() });
    }
    let epoch = pg::epoch();
    let known = CACHE.with_borrow(|cache| cache.rules.get(tenant)?.get(name).copied());
    metrics::count_for(tenant, Series::Cache("rate_limit", known.is_some()), 1);
    if let Some(found) = known {
        return Ok(found);
    }
    let found = read(tenant, name)?;
    CACHE.with_borrow_mut(|cache| {
        if cache.epoch == epoch && epoch == pg::epoch() {
            if cache.kept >= MAX_RULES {
                cache.rules.clear();
                cache.kept = 0;
            }
            cache.rules.entry(tenant.to_owned()).or_default().insert(name.to_owned(), found);
            cache.kept += 1;
        }
    });
    Ok(found)
}

fn read(tenant: &str, name: &str) -> Result<Found> {
    let found = sql::query_opt(
        "SELECT r.max_requests, (extract(epoch FROM r.period) * 1000000)::bigint, r.burst \
         FROM tenancy.rate_limits AS r \
         WHERE r.tenant_id IN ($1, '*') AND r.name = $2 \
         ORDER BY r.tenant_id = '*' LIMIT 1",
        &[tenant.into(), name.into()],
        Mode::ReadLatest,
        |row| {
            let (count, period, burst) = (row.get::<i32>(1), row.get::<i64>(2), row.get::<i32>(3));
            Ok(match (count, period, burst) {
                (Some(count), Some(period), Some(burst)) => Found::Limited(Rule {
                    count: count.unsigned_abs(),
                    period: period.max(1),
                    burst: burst.unsigned_abs(),
                }),
                _ => Found::Unlimited,
            })
        },
    )?;
    Ok(found.unwrap_or(Found::Unknown))
}
