//! `pg_tenancy`: who is asking, what may they see, who pays; answered in the caller's own transaction.

mod agents;
mod batches;
mod changes;
mod credits;
mod identity;
mod ids;
mod isolation;
mod limits;
mod metering;
mod outbox;
mod pg;
mod schema;
mod tokens;

use pgrx::extension_sql_file;

::pgrx::pg_module_magic!(name, version);

extension_sql_file!("../sql/identity/accessors.sql", name = "accessors");
extension_sql_file!("../sql/errors.sql", name = "errors");
extension_sql_file!("../sql/ids.sql", name = "ids", requires = [ids::uuid_v7, ids::uuid_v7_for, changes::changed]);
extension_sql_file!(
    "../sql/schema.sql",
    name = "schema",
    requires = [schema::library_version, schema::migrations, schema::sql_require_installed]
);
extension_sql_file!("../sql/access.sql", name = "access");
extension_sql_file!("../sql/access/grant.sql", name = "access_grant", requires = ["access"]);
extension_sql_file!("../sql/directory.sql", name = "directory");
extension_sql_file!("../sql/directory/seats.sql", name = "directory_seats");
extension_sql_file!("../sql/directory/resolve.sql", name = "directory_resolve");
extension_sql_file!(
    "../sql/identity/identity.sql",
    name = "identity",
    requires = ["accessors", identity::held_permissions, identity::provenance]
);
extension_sql_file!("../sql/identity/audit.sql", name = "identity_audit", requires = ["identity"]);
extension_sql_file!("../sql/identity/issuers.sql", name = "identity_issuers");
extension_sql_file!("../sql/identity/master_key.sql", name = "identity_master_key");
extension_sql_file!("../sql/identity/revocations.sql", name = "identity_revocations");
extension_sql_file!(
    "../sql/identity/functions.sql",
    name = "identity_functions",
    requires = [
        "identity",
        identity::authenticate,
        identity::authenticate_request,
        identity::identity_headers,
        identity::verify_token,
        identity::act_as,
        identity::clear_identity,
        identity::claims,
        identity::tenant_of,
        identity::claim,
        identity::has_permission,
        identity::held_permissions,
        identity::provenance,
        identity::keys::jws_verify,
        identity::keys::check_issuer,
        identity::keys::check_jwk,
        identity::keys::check_jwks,
        identity::keys::same_key,
        identity::keys::check_secret,
        identity::keys::seal,
        identity::keys::unseal,
        identity::keys::sealed_under_current_key,
        identity::keys::master_key_file_sha256
    ]
);
extension_sql_file!("../sql/credits/types.sql", name = "credits_types");
extension_sql_file!("../sql/credits/obligations.sql", name = "credits_obligations");
extension_sql_file!(
    "../sql/credits.sql",
    name = "credits",
    requires = [
        credits::deduct_credits_pooled,
        credits::deduct_credits,
        credits::spend_credits,
        credits::batch::deduct_credits_batch,
        credits::grant::grant_credits,
        credits::adjust::adjust_credits,
        credits::hold::hold_credits,
        credits::hold::capture_hold,
        credits::hold::void_hold,
        credits::refund::refund_credits,
        credits::balance::credit_balance,
        credits::owner::lock_credit_pool,
        credits::set_cap::set_member_cap,
        credits::sound::is_sound_pool,
        credits::sound::is_sound_entry
    ]
);
extension_sql_file!("../sql/limits/types.sql", name = "limits_types");
extension_sql_file!(
    "../sql/limits/rate_limits.sql",
    name = "limits_rate_limits",
    requires =
        [limits::take_rate_limit, limits::take_rate_limit_for, limits::peek_rate_limit, limits::parse_rate_limit]
);
extension_sql_file!("../sql/limits/quotas.sql", name = "limits_quotas");
extension_sql_file!("../sql/limits/usage.sql", name = "limits_usage", requires = ["limits_types"]);
extension_sql_file!("../sql/tokens/callers.sql", name = "tokens_callers");
extension_sql_file!("../sql/tokens/issue.sql", name = "tokens_issue");
extension_sql_file!("../sql/tokens/profiles.sql", name = "tokens_profiles");
extension_sql_file!("../sql/tokens/extension.sql", name = "tokens_extension");
extension_sql_file!("../sql/tokens/authorization.sql", name = "tokens_authorization");
extension_sql_file!("../sql/tokens/api_keys.sql", name = "tokens_api_keys");
extension_sql_file!("../sql/tokens/clean_up.sql", name = "tokens_clean_up");
extension_sql_file!(
    "../sql/tokens/functions.sql",
    name = "tokens_functions",
    requires = [
        tokens::new_secret,
        tokens::is_pkce,
        tokens::verifier_matches,
        tokens::api_keys::authenticate_api_key,
        tokens::api_keys::role_permissions,
        tokens::api_keys::key_lapses,
        tokens::origin::extension_origin,
        tokens::directory_role,
        tokens::signing::sign_token,
        tokens::signing::make_signing_key,
        identity::sql_claimed_org_role
    ]
);
extension_sql_file!("../sql/metering/llm.sql", name = "metering_llm");
extension_sql_file!("../sql/metering/run_units.sql", name = "metering_run_units", requires = [metering::sql_run_units]);
extension_sql_file!("../sql/metering/policy.sql", name = "metering_policy");
extension_sql_file!(
    "../sql/metering/metrics.sql",
    name = "metering_metrics",
    requires = [
        metering::observe_llm,
        metering::count_refusal,
        metering::metric_tenants,
        metering::shared_metrics,
        metering::metrics_text
    ]
);
extension_sql_file!("../sql/outbox/types.sql", name = "outbox_types");
extension_sql_file!("../sql/outbox/publish.sql", name = "outbox_publish");
extension_sql_file!("../sql/outbox/consumers.sql", name = "outbox_consumers");
extension_sql_file!("../sql/outbox/poll.sql", name = "outbox_poll", requires = ["outbox_types"]);
extension_sql_file!("../sql/outbox/trim.sql", name = "outbox_trim");
extension_sql_file!(
    "../sql/outbox/functions.sql",
    name = "outbox_functions",
    requires = [
        outbox::read_event,
        outbox::read_model,
        outbox::event_kind,
        outbox::consumers_of,
        outbox::forgotten_sequence,
        outbox::identity_expired,
        outbox::derived_event_id,
        outbox::correlation_uuid
    ]
);
extension_sql_file!(
    "../sql/batches/register.sql",
    name = "batches_register",
    requires = [batches::is_batch_of_another_tenant]
);
extension_sql_file!("../sql/batches/lifecycle.sql", name = "batches_lifecycle");
extension_sql_file!("../sql/batches/dispatch.sql", name = "batches_dispatch");
extension_sql_file!("../sql/batches/consume.sql", name = "batches_consume");
extension_sql_file!("../sql/credits/alerts.sql", name = "credits_alerts");
extension_sql_file!(
    "../sql/credits/consumption.sql",
    name = "credits_consumption",
    requires = [credits::consume::consume_credits, credits::consume::consume_credits_of, credits::check::check_credits]
);
extension_sql_file!("../sql/credits/verify.sql", name = "credits_verify");
extension_sql_file!(
    "../sql/credits/verify_refunds.sql",
    name = "credits_verify_refunds",
    requires = [credits::seal::verify_chain, credits::seal::seal_ledger, credits::sweep::sweep_credits]
);
extension_sql_file!("../sql/credits/compat.sql", name = "credits_compat");
extension_sql_file!("../sql/health.sql", name = "health");
extension_sql_file!("../sql/health/keys.sql", name = "health_keys");
extension_sql_file!("../sql/health/server.sql", name = "health_server");
extension_sql_file!("../sql/health/work.sql", name = "health_work");
extension_sql_file!("../sql/identity/trim.sql", name = "identity_trim");
// Last of all: closes everything above to PUBLIC.
extension_sql_file!("../sql/finalize.sql", name = "finalize", finalize);

/// Called by Postgres when the library is loaded.
#[pgrx::pg_guard]
#[allow(non_snake_case)]
pub extern "C-unwind" fn _PG_init() {
    pg::init();
    limits::init();
    pg::reserve_shared_memory();
}

#[cfg(any(test, feature = "pg_test"))]
#[path = "../pgrx-tests/mod.rs"]
mod in_database;

/// pgrx's tests look for this module by its name.
#[cfg(test)]
#[path = "../pgrx-tests/server.rs"]
pub mod pg_test;
