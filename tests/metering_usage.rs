//! Usage: records, sums, prices, run units, and the policy file.

mod common;

use common::{Database, Token, cluster, fails_with, in_parallel, refused};
use postgres::Client;
use serde_json::{Value, json};
use std::time::Duration;

fn session(database: &Database, user: &str, org: Option<&str>) -> Client {
    let mut client = database.connect("app");
    client.batch_execute("BEGIN").unwrap();
    login(&mut client, user, org);
    client
}

fn login(client: &mut Client, user: &str, org: Option<&str>) {
    let token = match org {
        Some(org) => Token::for_member(user, org),
        None => Token::for_user(user),
    };
    client.query("SELECT tenancy.authenticate($1)", &[&token.sign()]).unwrap();
}

fn text(client: &mut Client, statement: &str) -> String {
    client.query_one(statement, &[]).unwrap_or_else(|error| panic!("{statement}: {error:?}")).get(0)
}

#[test]
fn a_call_is_recorded_once_and_priced() {
    let database = cluster().database();
    let mut ops = database.connect("ops");
    ops.batch_execute(
        "SELECT tenancy.set_llm_price('OpenAI', 'gpt-x', 2, 8, 0.5, '2020-01-01');
         SELECT tenancy.set_llm_price('openai', 'gpt-x', 3, 8, 0.5, '2999-01-01');
         SELECT tenancy.set_llm_price('openai', '*', 10, 10, effective_at => '2020-01-01')",
    )
    .unwrap();
    let mut one = session(&database, "u1", Some("o1"));
    let record = "SELECT tenancy.record_llm_usage('openai', 'gpt-x', 1000, 500, request_id => 'r1', cached_tokens => 400, latency_ms => 1200)::text";
    let id = text(&mut one, record);
    assert_eq!(text(&mut one, record), id, "a repeat is the same call");
    // 600 × 2 + 400 × 0.5 + 500 × 8 = 5400 millionths
    assert_eq!(text(&mut one, "SELECT cost::text FROM tenancy.llm_usage"), "0.005400");
    one.batch_execute("SAVEPOINT s").unwrap();
    let other = "SELECT tenancy.record_llm_usage('openai', 'gpt-x', 1001, 500, request_id => 'r1')";
    refused(one.query(other, &[]), "PT409", "idempotency_conflict");
    one.batch_execute("ROLLBACK TO s").unwrap();
    one.batch_execute(
        "SELECT tenancy.record_llm_usage('openai', 'gpt-y', 1000000, 0);
         SELECT tenancy.record_llm_usage('elsewhere', 'm', 5, 5);
         SELECT tenancy.record_llm_usage('elsewhere', 'm', 5, 5, cost => 0.25)",
    )
    .unwrap();
    let sums = "SELECT string_agg(format('%s %s %s %s %s', model, requests, input_tokens, trim_scale(cost), unpriced), ', ' ORDER BY model)
                  FROM tenancy.llm_usage_daily";
    assert_eq!(text(&mut one, sums), "gpt-x 1 1000 0.0054 0, gpt-y 1 1000000 10 0, m 2 10 0.25 1");
    one.batch_execute("COMMIT").unwrap();
    // Another tenant may use the same request id, and sees nothing of this.
    let mut two = session(&database, "u1", Some("o2"));
    assert_ne!(text(&mut two, record), id);
    assert_eq!(text(&mut two, "SELECT count(*)::text FROM tenancy.llm_usage"), "1");
    two.batch_execute("ROLLBACK").unwrap();

    let mut nobody = database.connect("app");
    refused(nobody.query(record, &[]), "PT401", "not_authenticated");
    fails_with(nobody.query("INSERT INTO tenancy.llm_usage_daily SELECT * FROM tenancy.llm_usage_daily", &[]), "42501");
    for arguments in [
        "'', 'm', 1, 1",
        "'p', NULL, 1, 1",
        "'p', 'm', -1, 1",
        "'p', 'm', 1, NULL",
        "'p', 'm', 1, 1, cost => 'NaN'",
        "'p', 'm', 1, 1, cost => -1",
        "'p', 'm', 1, 1, cached_tokens => 2",
        "'p', 'm', 1, 1, latency_ms => 'NaN'",
        "'p', 'm', 1, 1, request_id => ''",
    ] {
        let mut one = session(&database, "u1", Some("o1"));
        let call = format!("SELECT tenancy.record_llm_usage({arguments})");
        refused(one.query(&call, &[]), "22023", "invalid_argument");
    }
}

#[test]
fn credits_are_charged_in_the_same_call() {
    let database = cluster().database();
    let mut ops = database.connect("ops");
    ops.batch_execute("SELECT tenancy.register_user('u1'); SELECT tenancy.grant_credits(10, user_id => 'u1')").unwrap();
    let record = "SELECT tenancy.record_llm_usage('p', 'm', 1, 1, request_id => 'r1', credits => 4)::text";
    let mut one = session(&database, "u1", None);
    let id = text(&mut one, record);
    assert_eq!(text(&mut one, record), id);
    one.batch_execute("COMMIT").unwrap();
    let mut one = session(&database, "u1", None);
    assert_eq!(text(&mut one, record), id);
    assert_eq!(text(&mut one, "SELECT trim_scale(available)::text FROM tenancy.credit_balance()"), "6", "charged once");
    let dear = "SELECT tenancy.record_llm_usage('p', 'm', 1, 1, request_id => 'r2', credits => 7)";
    refused(one.query(dear, &[]), "PT402", "insufficient_credits");
    one.batch_execute("ROLLBACK").unwrap();
    let mut one = session(&database, "u1", None);
    assert_eq!(text(&mut one, "SELECT count(*)::text FROM tenancy.llm_usage"), "1", "not paid, not recorded");
}

#[test]
fn sums_equal_the_rows_for_random_work() {
    let database = cluster().database();
    database.connect("ops").query("SELECT tenancy.set_llm_price('a', '*', 1.5, 6.25, 0.1)", &[]).unwrap();
    in_parallel(8, |index| {
        let mut client = database.connect("app");
        for round in 0..15 {
            client.batch_execute("BEGIN").unwrap();
            let org = [Some("o1"), Some("o2"), None][(index + round) % 3];
            login(&mut client, &format!("u{}", index % 4), org);
            client
                .batch_execute(
                    "SELECT tenancy.record_llm_usage(p, 'm' || (random() * 2)::int, i, (random() * 5000)::int, cached_tokens => (i * random())::int)
                       FROM (SELECT (ARRAY['a', 'b'])[1 + (random())::int] AS p, (random() * 9000)::bigint AS i) AS r",
                )
                .unwrap();
            // A part of the work is undone.
            client.batch_execute(if round % 5 == 4 { "ROLLBACK" } else { "COMMIT" }).unwrap();
        }
    });
    let mut client = database.superuser();
    assert_eq!(text(&mut client, "SELECT count(*)::text FROM tenancy.llm_usage"), "96");
    let rows = "SELECT tenant_id, (created_at AT TIME ZONE 'UTC')::date AS day, org_id, user_id, coalesce(seat_id, '00000000-0000-0000-0000-000000000000') AS seat_id, provider, model,
                       count(*)::bigint AS requests, sum(input_tokens)::numeric, sum(output_tokens)::numeric, sum(cached_tokens)::numeric,
                       coalesce(sum(cost), 0)::numeric AS cost, count(*) FILTER (WHERE cost IS NULL) AS unpriced, coalesce(sum(credits), 0)::numeric AS credits
                  FROM tenancy.llm_usage GROUP BY 1, 2, 3, 4, 5, 6, 7";
    let differences = format!(
        "SELECT count(*)::text FROM ((TABLE tenancy.llm_usage_daily EXCEPT ({rows})) UNION ALL (({rows}) EXCEPT TABLE tenancy.llm_usage_daily)) AS d"
    );
    assert_eq!(text(&mut client, &differences), "0");
    let months =
        "SELECT count(*)::text FROM (SELECT sum(requests), sum(input_tokens), sum(cost) FROM tenancy.llm_usage_monthly
                  EXCEPT SELECT count(*), sum(input_tokens), sum(cost) FROM tenancy.llm_usage) AS d";
    assert_eq!(text(&mut client, months), "0");
}

/// A tenant that keeps its transaction open does not hold up another one.
#[test]
fn recording_waits_for_no_other_tenant() {
    let database = cluster().database();
    database
        .connect("ops")
        .batch_execute(
            "SELECT tenancy.set_quota('llm_tokens', 10, NULL, 'month'), tenancy.set_llm_price('p', 'm', 1, 1)",
        )
        .unwrap();
    let record =
        "SELECT tenancy.record_llm_usage('p', 'm', 10, 10, request_id => 'r'), tenancy.record_run_units('default', 1)";
    let mut one = session(&database, "u1", Some("o1"));
    one.query(record, &[]).unwrap();
    let mut two = session(&database, "u1", Some("o2"));
    two.batch_execute("SET LOCAL lock_timeout = '1 s'").unwrap();
    two.query(record, &[]).unwrap();
    two.batch_execute("COMMIT").unwrap();
    one.batch_execute("COMMIT").unwrap();
    std::thread::sleep(Duration::from_millis(1));
}

#[test]
fn soft_quotas_on_tokens_and_cost_count_and_never_refuse() {
    let database = cluster().database();
    let mut ops = database.connect("ops");
    ops.batch_execute(
        "SELECT tenancy.set_quota('llm_tokens', 100, NULL, 'month');
         SELECT tenancy.set_quota('llm_cost', NULL, 1, 'day', org_id => '*')",
    )
    .unwrap();
    let mut one = session(&database, "u1", Some("o1"));
    for cost in ["0.6", "0.6"] {
        one.query(&format!("SELECT tenancy.record_llm_usage('p', 'm', 30, 30, {cost})"), &[]).unwrap();
    }
    let state = |metric: &str| {
        format!(
            "SELECT concat_ws(' ', allowed, trim_scale(used), trim_scale(remaining)) FROM tenancy.check_quota('{metric}')"
        )
    };
    assert_eq!(text(&mut one, &state("llm_tokens")), "t 120");
    assert_eq!(text(&mut one, &state("llm_cost")), "f 1.2 0");
    one.batch_execute("COMMIT").unwrap();
    // With an outbox: one event for the one soft quota that was reached.
    let mut client = database.superuser();
    if text(&mut client, "SELECT coalesce(to_regclass('tenancy.event_outbox')::text, '')").is_empty() {
        return;
    }
    let events = "SELECT count(*)::text FROM tenancy.event_outbox WHERE type = 'tenancy.quota.soft_limit_reached.v1'";
    assert_eq!(text(&mut client, events), "1");
}

#[test]
fn run_units_are_counted_against_the_plan() {
    let database = cluster().database();
    let mut one = session(&database, "u1", Some("o1"));
    let record = "SELECT tenancy.record_run_units('build_module', 2.5, 1, 'ultra', 'thread-1', 12.5)::text";
    assert_eq!(text(&mut one, record), "8.0000");
    assert_eq!(text(&mut one, "SELECT tenancy.record_run_units()::text"), "0.1000");
    let check: Value = serde_json::from_str(&text(&mut one, "SELECT tenancy.check_run_units(91.9)::text")).unwrap();
    assert_eq!(check["allowed"], json!(true));
    assert_eq!(
        (&check["current_usage"], &check["limit"], &check["remaining"]),
        (&json!(8.1), &json!(100), &json!(91.9))
    );
    assert_eq!((&check["plan"], &check["org_id"]), (&json!("free"), &json!("o1")));
    let check: Value = serde_json::from_str(&text(&mut one, "SELECT tenancy.check_run_units(91.9001)::text")).unwrap();
    assert_eq!(check["allowed"], json!(false));
    assert_eq!(text(&mut one, "SELECT tenancy.run_units_total()::text"), "8.1000");
    let summary = "SELECT string_agg(format('%s %s %s %s', tool_name, tier, runs, run_units), ', ') FROM tenancy.run_units_summary()";
    assert_eq!(text(&mut one, summary), "build_module ultra 1 8.0000, default standard 1 0.1000");
    let history =
        "SELECT string_agg(concat_ws(' ', user_id, thread_id, tool_name), ', ') FROM tenancy.run_units_history(10)";
    assert_eq!(text(&mut one, history), "u1 default, u1 thread-1 build_module");
    // At the limit is over it, as the original has it; what has been run is recorded all the same.
    one.query("SELECT tenancy.record_run_units('default', 91.8)", &[]).unwrap();
    let check: Value = serde_json::from_str(&text(&mut one, "SELECT tenancy.check_run_units()::text")).unwrap();
    assert_eq!((&check["allowed"], &check["remaining"]), (&json!(false), &json!(0)));
    one.query("SELECT tenancy.record_run_units('default', 5)", &[]).unwrap();
    let mut other = session(&database, "u1", Some("o2"));
    assert_eq!(text(&mut other, "SELECT tenancy.run_units_total()::text"), "0");
    for call in [
        "record_run_units('t', -1)",
        "record_run_units('t', 'NaN')",
        "run_units_total('2026-13')",
        "run_units(1, NULL)",
    ] {
        let mut one = session(&database, "u1", Some("o1"));
        refused(one.query(&format!("SELECT tenancy.{call}"), &[]), "22023", "invalid_argument");
    }
}

#[test]
fn a_policy_is_checked_whole_before_it_is_applied() {
    let database = cluster().database();
    let mut ops = database.connect("ops");
    let good = json!({
        "costs": {}, "signup_bonuses": {"user": 50, "org": 500}, "cache_ttl": 300, "version": "1.1",
        "rate_limits": {"cj_comparison": "10000/day", "batch_create": "60/hour", "free_for_all": "unlimited"}
    });
    for (change, reason, message) in [
        (json!({}), "policy_empty", "Policy file is empty or invalid"),
        (json!([]), "policy_empty", "Policy file is empty or invalid"),
        (
            json!({"costs": {}, "rate_limits": {}}),
            "policy_section_missing",
            "Missing required policy section: signup_bonuses",
        ),
        (
            json!({"costs": [], "rate_limits": {}, "signup_bonuses": {}}),
            "policy_section_invalid",
            "Policy section 'costs' must be a dictionary",
        ),
        (
            json!({"costs": {"a": -1}, "rate_limits": {}, "signup_bonuses": {}}),
            "policy_cost_invalid",
            "Invalid cost for a: must be non-negative integer",
        ),
        (
            json!({"costs": {"a": 1.5}, "rate_limits": {}, "signup_bonuses": {}}),
            "policy_cost_invalid",
            "Invalid cost for a: must be non-negative integer",
        ),
        (
            json!({"costs": {"a": "1"}, "rate_limits": {}, "signup_bonuses": {}}),
            "policy_cost_invalid",
            "Invalid cost for a: must be non-negative integer",
        ),
        (
            json!({"costs": {}, "rate_limits": {"a": 60}, "signup_bonuses": {}}),
            "policy_rate_limit_invalid",
            "Invalid rate limit for a: must be string",
        ),
        (
            json!({"costs": {}, "rate_limits": {"a": "60"}, "signup_bonuses": {}}),
            "invalid_rate_limit",
            "Invalid rate limit format: 60",
        ),
        (
            json!({"costs": {}, "rate_limits": {"a": "60/minute"}, "signup_bonuses": {}}),
            "invalid_rate_limit_period",
            "Invalid rate limit period: minute",
        ),
        (
            json!({"costs": {}, "rate_limits": {"a": "1/hour"}, "signup_bonuses": {"user": -5}}),
            "policy_bonus_invalid",
            "Invalid signup bonus for user: must be non-negative integer",
        ),
        (
            json!({"costs": {}, "rate_limits": {"a": "1/hour"}, "signup_bonuses": {"team": 5}}),
            "invalid_argument",
            "signup_bonuses must be one of: user, org",
        ),
    ] {
        let error = refused(ops.query("SELECT tenancy.load_policy($1)", &[&change]), "22023", reason);
        assert_eq!(error.message(), message);
    }
    assert_eq!(text(&mut ops, "SELECT count(*)::text FROM tenancy.rate_limits"), "0", "nothing of it was applied");
    assert_eq!(ops.query_one("SELECT tenancy.load_policy($1)", &[&good]).unwrap().get::<_, i32>(0), 5);
    let limits = "SELECT string_agg(concat_ws(' ', name, max_requests, extract(epoch FROM period)::int), ', ' ORDER BY name) FROM tenancy.rate_limits";
    assert_eq!(text(&mut ops, limits), "batch_create 60 3600, cj_comparison 10000 86400, free_for_all");
    let bonuses = "SELECT string_agg(concat_ws(' ', subject_type, trim_scale(amount)), ', ' ORDER BY 1) FROM tenancy.signup_bonuses";
    assert_eq!(text(&mut ops, bonuses), "org 500, user 50");
    if !text(&mut ops, "SELECT coalesce(to_regproc('tenancy.set_credit_cost')::text, '')").is_empty() {
        let costs = json!({"costs": {"cj_comparison": 1, "spellcheck": 0}, "rate_limits": {}, "signup_bonuses": {}});
        assert_eq!(ops.query_one("SELECT tenancy.load_policy($1)", &[&costs]).unwrap().get::<_, i32>(0), 2);
    }
}
