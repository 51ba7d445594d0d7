//! The settings of rate limits and metrics.

use super::shared;
use pgrx::{GucContext, GucFlags, GucRegistry, GucSetting, PostgresGucEnum};

static LIMITER_CELLS: GucSetting<i32> = GucSetting::<i32>::new(65_536);
static LIMITER_TENANT_SHARE: GucSetting<i32> = GucSetting::<i32>::new(8_192);
static METRICS_TENANTS: GucSetting<i32> = GucSetting::<i32>::new(100);
static UNKNOWN_LIMITS: GucSetting<UnknownLimits> = GucSetting::<UnknownLimits>::new(UnknownLimits::Error);

/// What a rate limit means that nobody has set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PostgresGucEnum)]
enum UnknownLimits {
    Error,
    Unlimited,
}

pub(super) fn define() {
    // What sizes shared memory exists only where there is some.
    if shared::is_preloading() {
        GucRegistry::define_int_guc(
            c"tenancy.limiter_cells",
            c"Callers that rate limits can keep in mind at once.",
            c"One cell a tenant, limit and key; about 60 bytes of shared memory each.",
            &LIMITER_CELLS,
            1_024,
            16_777_216,
            GucContext::Postmaster,
            GucFlags::default(),
        );
        GucRegistry::define_int_guc(
            c"tenancy.metrics_tenants",
            c"Tenants that metrics count by name.",
            c"The first ones that are seen; the rest are summed as tenant=other. About 2 KB of shared memory each.",
            &METRICS_TENANTS,
            0,
            10_000,
            GucContext::Postmaster,
            GucFlags::default(),
        );
    }
    GucRegistry::define_int_guc(
        c"tenancy.limiter_tenant_share",
        c"Cells of the rate limiter that one tenant may have.",
        c"A tenant that wants more is refused with PT429, limiter_full.",
        &LIMITER_TENANT_SHARE,
        1,
        16_777_216,
        GucContext::Sighup,
        GucFlags::default(),
    );
    GucRegistry::define_enum_guc(
        c"tenancy.unknown_limits",
        c"What take_rate_limit does with a name nobody has set: error, or unlimited.",
        c"error raises PT404, so that a misspelt name is noticed.",
        &UNKNOWN_LIMITS,
        GucContext::Suset,
        GucFlags::default(),
    );
}

/// Callers the rate limiter is made for.
pub fn limiter_cells() -> usize {
    LIMITER_CELLS.get().unsigned_abs() as usize
}

/// Tenants that have metrics of their own.
pub fn metrics_tenants() -> usize {
    METRICS_TENANTS.get().unsigned_abs() as usize
}

/// Cells one tenant may have.
pub fn limiter_tenant_share() -> u32 {
    LIMITER_TENANT_SHARE.get().unsigned_abs()
}

/// Whether a limit nobody has set is no limit.
pub fn unknown_limits_are_unlimited() -> bool {
    UNKNOWN_LIMITS.get() == UnknownLimits::Unlimited
}
