//! What was used, and the figures for whoever watches.
//!
//! Records and sums are rows: sql/metering/. What stands here is plain arithmetic ([`run_units`]) and text
//! ([`openmetrics`]); the counters themselves are in [`crate::pg::metrics`].

mod openmetrics;
mod run_units;

use crate::pg::metrics::{self, Series, Timer};
use crate::pg::sql::{self, Mode};
use crate::pg::{self, Error, State};
use openmetrics::Sample;
use pgrx::iter::TableIterator;
use pgrx::{AnyNumeric, JsonB, default, name, pg_extern, search_path};
use serde_json::{Map, Value};

/// Run units of a run (contract G).
#[pg_extern(name = "run_units", immutable, parallel_safe)]
fn sql_run_units(
    cpu_seconds: Option<f64>,
    gpu_seconds: default!(Option<f64>, "0"),
    tier: default!(Option<&str>, "'standard'"),
    tool_name: default!(Option<&str>, "'default'"),
) -> AnyNumeric {
    pg::entry(|| {
        let invalid = || {
            Error::new(State::INVALID_PARAMETER, "invalid_argument", "seconds must be between 0 and 10^9")
                .hint("Pass the seconds of CPU and of GPU that the run took, 0 for none.")
        };
        let (Some(cpu), Some(gpu)) = (cpu_seconds, gpu_seconds) else { return Err(invalid()) };
        let units = run_units::run_units(cpu, gpu, tier.unwrap_or("standard"), tool_name.unwrap_or("default"))
            .map_err(|run_units::NotSeconds| invalid())?;
        AnyNumeric::try_from(units.as_str())
            .map_err(|_| Error::new(State::INTERNAL, "not_a_number", "Run units are not a number"))
    })
}

/// Counts a recorded call of a language model.
#[pg_extern(name = "_observe_llm", volatile, parallel_unsafe)]
fn observe_llm(latency_ms: Option<f64>, input_tokens: i64, output_tokens: i64) -> bool {
    metrics::count(Series::LlmTokens("input"), input_tokens.unsigned_abs());
    metrics::count(Series::LlmTokens("output"), output_tokens.unsigned_abs());
    if let Some(latency) = latency_ms {
        metrics::observe(Timer::Llm, (latency * 1000.0) as u64);
    }
    true
}

/// Counts what PL/pgSQL refuses.
#[pg_extern(name = "_count_refusal", volatile, parallel_unsafe)]
fn count_refusal(sqlstate: &str, reason: &str) -> bool {
    metrics::count_refusal(sqlstate, reason);
    true
}

/// The tenants that metrics name.
#[pg_extern(name = "_metric_tenants", volatile, parallel_restricted)]
fn metric_tenants() -> Vec<String> {
    metrics::tenants()
}

/// The figures in shared memory.
#[pg_extern(name = "_shared_metrics", volatile, parallel_restricted)]
#[allow(clippy::type_complexity)]
fn shared_metrics()
-> TableIterator<'static, (name!(name, String), name!(kind, String), name!(labels, JsonB), name!(value, f64))> {
    let row = |name: &str, kind: &str, labels: Vec<(&str, String)>, value: f64| {
        let labels =
            labels.into_iter().map(|(name, value)| (name.to_owned(), Value::String(value))).collect::<Map<_, _>>();
        (name.to_owned(), kind.to_owned(), JsonB(Value::Object(labels)), value)
    };
    let mut rows: Vec<_> = metrics::figures()
        .into_iter()
        .map(|figure| row(figure.name, figure.kind, figure.labels, figure.value))
        .collect();
    if let Some((used, limit)) = crate::limits::cells_in_use() {
        rows.push(row("pg_tenancy_limiter_cells", "gauge", vec![("state", "used".into())], used as f64));
        rows.push(row("pg_tenancy_limiter_cells", "gauge", vec![("state", "limit".into())], limit as f64));
    }
    TableIterator::new(rows)
}

/// Every figure as OpenMetrics text.
#[pg_extern(volatile, parallel_unsafe, security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn metrics_text() -> String {
    pg::entry(|| {
        let samples = sql::query(
            "SELECT m.name, m.kind, m.labels::text, m.value FROM tenancy.metrics() AS m",
            &[],
            Mode::Read,
            |row| {
                let labels: Map<String, Value> =
                    row.text(3).and_then(|labels| serde_json::from_str(&labels).ok()).unwrap_or_default();
                let (last, first): (Vec<_>, Vec<_>) = labels
                    .into_iter()
                    .map(|(name, value)| (name, value.as_str().unwrap_or_default().to_owned()))
                    .partition(|(name, _)| name == "le");
                Ok(Sample {
                    name: row.text(1).unwrap_or_default(),
                    kind: row.text(2).unwrap_or_default(),
                    labels: first.into_iter().chain(last).collect(),
                    value: row.get(4).unwrap_or_default(),
                })
            },
        )?;
        Ok(openmetrics::text(&samples, help))
    })
}

fn help(family: &str) -> Option<&'static str> {
    Some(match family {
        "pg_tenancy_authentications" => "Identities sealed, and refused by reason.",
        "pg_tenancy_debits" => "Charges.",
        "pg_tenancy_debited_credits" => "Credits charged.",
        "pg_tenancy_denials" => "Outcomes that refused something, by reason.",
        "pg_tenancy_rate_limit_decisions" => "What rate limits said.",
        "pg_tenancy_cache_requests" => "Look-ups in the caches of backends.",
        "pg_tenancy_llm_tokens" => "Tokens of language models, as recorded.",
        "pg_tenancy_authentication_seconds" => "Time that tenancy.authenticate took.",
        "pg_tenancy_llm_latency_seconds" => "Latency of language models, as recorded.",
        "pg_tenancy_limiter_cells" => "Callers the rate limiter keeps in mind, and the most it can.",
        "pg_tenancy_preloaded" => "1 where the library is preloaded; without it there are no counters.",
        "pg_tenancy_pool_balance_credits" => "Credits in pools, those held included.",
        "pg_tenancy_pool_held_credits" => "Credits held.",
        "pg_tenancy_pools" => "Pools.",
        "pg_tenancy_pools_low" => "Pools with nothing available, or less than the threshold set for them.",
        "pg_tenancy_open_holds" => "Holds neither captured nor given back.",
        "pg_tenancy_outbox_pending" => "Events not yet acknowledged by a consumer.",
        "pg_tenancy_outbox_lag_seconds" => "Age of the oldest of them.",
        "pg_tenancy_outbox_dead_letters" => "Events a consumer was given too often.",
        _ => return None,
    })
}
