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
    ops.query("SELECT tenancy.set_llm_price('dear', 'm', 1e17, 1e17, effective_at => '2020-01-01')", &[]).unwrap();
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
        "'p', 'm', 1, 1, request_id => repeat('r', 256)",
        "'p', 'm', 1000000000001, 1",
        "'p', 'm', 1, 1, cost => 0.0000001",
        "'dear', 'm', 1000000000000, 1000000000000",
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
}

/// The original's own file (contract H): its costs are charged, its limits limit, its bonuses are given once.
#[test]
fn a_policy_governs_costs_limits_and_bonuses() {
    let database = cluster().database();
    let mut ops = database.connect("ops");
    let load = "SELECT tenancy.load_policy($1)";
    let policy = json!({
        "costs": {"cj_comparison": 1, "ai_feedback_generation": 5, "ai_editor_revision": 3, "spellcheck": 0, "nlp_analysis": 0,
                  "batch_create": 0, "student_matching": 0, "content_upload": 0},
        "rate_limits": {"cj_comparison": "10000/day", "ai_feedback_generation": "500/day", "batch_create": "60/hour",
                        "pipeline_request": "100/hour", "credit_adjustment": "10/hour"},
        "signup_bonuses": {"user": 50, "org": 500},
    });
    assert_eq!(ops.query_one(load, &[&policy]).unwrap().get::<_, i32>(0), 15);
    ops.batch_execute(
        "SELECT tenancy.register_user('larare-0017'), tenancy.register_organization('skola-malmo-01', 'Skola');
         SELECT tenancy.set_subscription('skola-malmo-01', 'team', 'active', 3), tenancy.assign_seat('skola-malmo-01', 'larare-0017')",
    )
    .unwrap();
    let bonus = |who: &str| format!("SELECT trim_scale(tenancy.grant_signup_bonus({who}))::text");
    let mut service = database.connect("svc");
    let balance = |client: &mut Client| {
        text(client, "SELECT trim_scale(available)::text FROM tenancy.credit_balance(org_id => 'skola-malmo-01')")
    };
    for _ in 0..2 {
        assert_eq!(text(&mut ops, &bonus("org_id => 'skola-malmo-01'")), "500");
        assert_eq!(text(&mut ops, &bonus("user_id => 'larare-0017'")), "50");
        assert_eq!(balance(&mut service), "500", "a bonus is given once");
    }
    refused(ops.query(&bonus("org_id => 'nobody'"), &[]), "PT404", "organization_not_found");
    refused(
        ops.query(&bonus("org_id => 'skola-malmo-01', user_id => 'larare-0017'"), &[]),
        "22023",
        "invalid_argument",
    );
    refused(ops.query(&bonus("NULL"), &[]), "22023", "invalid_argument");

    let consume = |metric: &str, amount: i32| {
        format!(
            "SELECT concat_ws(' ', success, trim_scale(new_balance), consumed_from) FROM tenancy.consume_credits('larare-0017', 'skola-malmo-01', '{metric}', {amount})"
        )
    };
    assert_eq!(text(&mut service, &consume("ai_feedback_generation", 3)), "t 485 org");
    assert_eq!(text(&mut service, &consume("cj_comparison", 3)), "t 482 org");
    assert_eq!(text(&mut service, &consume("spellcheck", 100)), "t 482 none");
    assert_eq!(text(&mut service, &consume("nobody_set_this", 100)), "t 482 none", "an unknown metric is free");
    let take = "SELECT allowed::text FROM tenancy.take_rate_limit_for('skola-malmo-01', 'batch_create', 60)";
    assert_eq!((text(&mut service, take), text(&mut service, take)), ("true".into(), "false".into()));

    // A later file changes what it names, whole or not at all, and nothing else.
    let next = json!({"costs": {"cj_comparison": 2}, "rate_limits": {"batch_create": "120/hour"}, "signup_bonuses": {"org": 600}});
    let mut half = next.clone();
    half["signup_bonuses"]["org"] = json!("many");
    refused(ops.query(load, &[&half]), "22023", "policy_bonus_invalid");
    assert_eq!(text(&mut service, &consume("cj_comparison", 1)), "t 481 org", "nothing of a refused file counts");
    assert_eq!(ops.query_one(load, &[&next]).unwrap().get::<_, i32>(0), 3);
    assert_eq!(text(&mut service, &consume("cj_comparison", 1)), "t 479 org");
    assert_eq!(text(&mut service, &consume("ai_editor_revision", 1)), "t 476 org");
    assert_eq!(text(&mut ops, &bonus("org_id => 'skola-malmo-01'")), "0", "the bonus was given, under the old policy");
    assert_eq!(balance(&mut service), "476");
    for role in ["app", "svc", "met"] {
        fails_with(database.connect(role).query(load, &[&next]), "42501");
    }
}
