//! How fast, and how much at most.
//!
//! Rate limits are here: the rule ([`gcra`]) over cells in shared memory ([`cells`]), exact between sessions and bound
//! to no transaction. Quotas, which are bound to the transaction, are rows: sql/limits/quotas.sql.

mod cells;
mod gcra;
mod policy;
mod rules;
mod table;

use crate::pg::metrics::{self, Series};
use crate::pg::sql::Arg;
use crate::pg::{self, Composite, Error, Fields, Result, State, limit_settings as settings};
use cells::{Full, Key};
use pgrx::datum::Interval;
use pgrx::iter::TableIterator;
use pgrx::{default, name, pg_extern, search_path};
use rules::Found;
use std::ffi::CStr;

/// Characters of a limit's name, and bytes of a caller's key, that are taken.
const MAX_NAME: usize = 100;
const MAX_KEY: usize = 1024;

/// Asks for shared memory, when the server starts.
pub fn init() {
    if pg::shared::is_preloading() {
        cells::request(settings::limiter_cells());
    }
}

/// Cells of the limiter in use, and for how many it was made. It has room to spare beyond that, which no caller can
/// count on: where they fall decides when it is full.
pub fn cells_in_use() -> Option<(u64, u64)> {
    cells::usage().map(|used| (used, settings::limiter_cells() as u64))
}

/// Takes from a limit of the identity's tenant. Not undone by a rollback.
#[pg_extern(volatile, parallel_unsafe, security_definer, requires = ["limits_types"])]
#[search_path(pg_catalog, pg_temp)]
fn take_rate_limit(
    name: Option<&str>,
    cost: default!(Option<i32>, "1"),
    key: default!(Option<&str>, "NULL"),
) -> Composite<Taken> {
    pg::entry(|| take(&identity_tenant()?, name, cost, key).map(Composite))
}

/// The same for a tenant that a service names.
#[pg_extern(volatile, parallel_unsafe, security_definer, requires = ["limits_types"])]
#[search_path(pg_catalog, pg_temp)]
fn take_rate_limit_for(
    tenant_id: Option<&str>,
    name: Option<&str>,
    cost: default!(Option<i32>, "1"),
    key: default!(Option<&str>, "NULL"),
) -> Composite<Taken> {
    pg::entry(|| {
        let tenant = tenant_id.filter(|tenant| !tenant.trim().is_empty() && tenant.len() <= MAX_KEY);
        take(tenant.ok_or_else(|| invalid("tenant_id", "tenant_id must be a tenant's id"))?, name, cost, key)
            .map(Composite)
    })
}

/// What the limit of a name says about one of its callers; for domains that ask on a caller's behalf.
pub enum Asked {
    /// Within the limit, or there is none.
    Within,
    Beyond,
    /// A limit is set, and there is no shared memory to count in.
    Unknowable,
}

/// Whether `cost` of a limit that is called like `name` could be taken by `key` of a tenant; nothing is taken.
pub fn would_admit(tenant: &str, name: &str, key: &str, cost: u32) -> Result<Asked> {
    let Found::Limited(rule) = rules::find(tenant, name)? else { return Ok(Asked::Within) };
    let Some(cell) = Key::new(pg::database_oid(), tenant, name, Some(key)).filter(|_| cells::are_there()) else {
        return Ok(Asked::Unknowable);
    };
    if cost == 0 {
        return Ok(Asked::Within);
    }
    let admitted = cost <= rule.burst && cells::peek(cell, rule, cost).is_some_and(|(decision, _)| decision.allowed);
    Ok(if admitted { Asked::Within } else { Asked::Beyond })
}

/// Counts `cost` against the same limit as far as it has room; whether it had is not asked.
pub fn note(tenant: &str, name: &str, key: &str, cost: u32) -> Result<()> {
    if let Found::Limited(rule) = rules::find(tenant, name)?
        && cells::are_there()
        && let Some(cell) = Key::new(pg::database_oid(), tenant, name, Some(key))
    {
        let room = cells::peek(cell, rule, 0).map_or(0, |(_, room)| room);
        if room.min(cost) > 0 {
            // Somebody may have been quicker; then the limit is reached anyway.
            let _ = cells::take(cell, rule, room.min(cost));
        }
    }
    Ok(())
}

/// Says what taking would say.
#[pg_extern(volatile, parallel_unsafe, security_definer, requires = ["limits_types"])]
#[search_path(pg_catalog, pg_temp)]
fn peek_rate_limit(
    name: Option<&str>,
    cost: default!(Option<i32>, "1"),
    key: default!(Option<&str>, "NULL"),
) -> Composite<Taken> {
    pg::entry(|| {
        let Some((key, rule, cost)) = asked(&identity_tenant()?, name, cost, key)? else {
            return Ok(Composite(UNLIMITED));
        };
        let (decision, left) = cells::peek(key, rule, cost).ok_or_else(preload_required)?;
        Ok(Composite(Taken { allowed: decision.allowed, remaining: Some(left), retry_after: decision.retry_after }))
    })
}

/// Takes one from a fixed limit of this extension's own; how long to wait, or NULL where it is admitted.
///
/// NULL as well without shared memory, or where it has no room: what calls this has an exact limit beside it, which
/// only does not see what was rolled back.
#[pg_extern(name = "_take_fixed_limit", volatile, parallel_unsafe, strict)]
fn take_fixed_limit(tenant_id: &str, name: &str, key: &str, max_requests: i32, period: Interval) -> Option<Interval> {
    pg::entry(|| {
        let rule = gcra::Rule {
            count: max_requests.unsigned_abs().max(1),
            period: i64::try_from(period.as_micros()).unwrap_or(i64::MAX).max(1),
            burst: max_requests.unsigned_abs().max(1),
        };
        // No limit that an operator names begins with a control character.
        let cell = Key::new(pg::database_oid(), tenant_id, &format!("\u{1}{name}"), Some(key));
        Ok(match cell.and_then(|cell| cells::take(cell, rule, 1)) {
            Some(Ok(decision)) if !decision.allowed => Some(Interval::from_micros(decision.retry_after)),
            _ => None,
        })
    })
}

/// Reads a policy string such as `60/hour`.
#[pg_extern(name = "_parse_rate_limit", immutable, parallel_safe, strict)]
fn parse_rate_limit(
    policy: &str,
) -> TableIterator<'static, (name!(max_requests, Option<i32>), name!(seconds, Option<i32>))> {
    pg::entry(|| {
        let limit = policy::parse(policy).map_err(|error| {
            Error::new(State::INVALID_PARAMETER, error.reason(), error.to_string())
                .hint("Write requests/unit with the unit hour, day, week or month, such as 60/hour; or unlimited.")
        })?;
        Ok(TableIterator::once(match limit {
            policy::Limit::Unlimited => (None, None),
            policy::Limit::Rate { count, seconds } => (Some(count as i32), Some(seconds as i32)),
        }))
    })
}

/// What a limit says: `tenancy.rate_limit_decision`.
struct Taken {
    allowed: bool,
    /// None where there is no limit.
    remaining: Option<u32>,
    /// In microseconds.
    retry_after: i64,
}

impl Fields for Taken {
    const NAME: &'static CStr = c"rate_limit_decision";
    const SQL: &'static str = "tenancy.rate_limit_decision";

    fn fields(&self) -> Vec<Arg<'_>> {
        vec![
            Arg::Bool(Some(self.allowed)),
            Arg::Int(self.remaining.map(|remaining| i32::try_from(remaining).unwrap_or(i32::MAX))),
            Arg::Interval(Some(self.retry_after)),
        ]
    }
}

const UNLIMITED: Taken = Taken { allowed: true, remaining: None, retry_after: 0 };

fn take(tenant: &str, name: Option<&str>, cost: Option<i32>, key: Option<&str>) -> Result<Taken> {
    let Some((cell, rule, cost)) = asked(tenant, name, cost, key)? else {
        return Ok(UNLIMITED);
    };
    let taken = cells::take(cell, rule, cost).ok_or_else(preload_required)?;
    let word = match &taken {
        Ok(decision) if decision.allowed => "allowed",
        Ok(_) => "denied",
        Err(_) => "full",
    };
    metrics::count_for(tenant, Series::RateLimit(word), 1);
    if word == "denied" {
        metrics::count_for(tenant, Series::Denied("rate_limited"), 1);
    }
    match taken {
        Ok(decision) => Ok(Taken {
            allowed: decision.allowed,
            remaining: Some(decision.remaining),
            retry_after: decision.retry_after,
        }),
        Err(full) => Err(limiter_full(full)),
    }
}

/// Checks the arguments and finds the rule; none where there is no limit.
fn asked(
    tenant: &str,
    name: Option<&str>,
    cost: Option<i32>,
    key: Option<&str>,
) -> Result<Option<(Key, gcra::Rule, u32)>> {
    let name = name
        .filter(|name| !name.trim().is_empty() && name.chars().count() <= MAX_NAME)
        .ok_or_else(|| invalid("name", "name must be the name of a rate limit, 1 to 100 characters"))?;
    let cost = cost.filter(|cost| *cost >= 1).ok_or_else(|| invalid("cost", "cost must be at least 1"))?.unsigned_abs();
    if key.is_some_and(|key| key.len() > MAX_KEY) {
        return Err(invalid("key", "key must have at most 1024 bytes"));
    }
    if !cells::are_there() {
        return Err(preload_required());
    }
    let rule = match rules::find(tenant, name)? {
        Found::Limited(rule) => rule,
        Found::Unlimited => return Ok(None),
        Found::Unknown if settings::unknown_limits_are_unlimited() => return Ok(None),
        Found::Unknown => return Err(unknown(name)),
    };
    if cost > rule.burst {
        return Err(
            invalid("cost", "cost is above the limit's burst: it could never be allowed").detail("burst", rule.burst)
        );
    }
    let key = Key::new(pg::database_oid(), tenant, name, key).ok_or_else(preload_required)?;
    Ok(Some((key, rule, cost)))
}

fn identity_tenant() -> Result<String> {
    pg::current_tenant().ok_or_else(|| {
        Error::new(State::UNAUTHENTICATED, "not_authenticated", "Not authenticated")
            .hint("Begin a transaction and call tenancy.authenticate(token) first.")
    })
}

fn invalid(parameter: &str, message: &str) -> Error {
    Error::new(State::INVALID_PARAMETER, "invalid_argument", message)
        .hint(format!("Pass another {parameter}."))
        .detail("parameter", parameter)
}

fn unknown(name: &str) -> Error {
    Error::new(State::NOT_FOUND, "rate_limit_not_found", "Rate limit not found")
        .hint(
            "Set it: SELECT tenancy.set_rate_limit(…); or let unknown names pass: tenancy.unknown_limits = unlimited.",
        )
        .detail("name", name)
}

fn limiter_full(full: Full) -> Error {
    let (scope, hint) = match full {
        Full::Share => ("tenant", "Wait, use fewer keys, or raise tenancy.limiter_tenant_share."),
        Full::Table => ("table", "Wait, or raise tenancy.limiter_cells and restart the server."),
    };
    Error::new(State::TOO_MANY, "limiter_full", "Too many callers are being limited").hint(hint).detail("scope", scope)
}

fn preload_required() -> Error {
    Error::new(State::NOT_READY, "preload_required", "Rate limits need shared memory")
        .hint("Add pg_tenancy to shared_preload_libraries and restart the server.")
}
