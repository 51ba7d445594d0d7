//! Contract H: consume_credits, check_credits, costs, seat credits and bonuses.

use crate::common::{in_parallel, refused};
use crate::world::{ACME, ask, assert_verified, shown, world};

const OPERATIONS: &str = "SELECT string_agg(concat_ws(' ', subject_type, subject_id, metric, amount, trim_scale(cost), consumed_from,
    operation_status, batch_id, correlation_id, transaction_id IS NOT NULL), E'\\n' ORDER BY id) FROM tenancy.credit_operations";

#[test]
fn the_organization_pays_the_whole_or_the_user_does_and_everything_leaves_a_row() {
    let mut world = world();
    let mut service = world.service();
    world.fund(ACME, "10");
    world.fund_user("zoe", "7");
    let consume = |user: &str, org: &str, metric: &str, amount: i32| {
        format!("SELECT * FROM tenancy.consume_credits(user_id => '{user}', org_id => {org}, metric => '{metric}', amount => {amount},
            batch_id => 'b-1', correlation_id => 'c-1')")
    };
    // zoe has no seat: none is asked for.
    for (call, expected) in [
        (consume("zoe", "'org_acme'", "cj_comparison", 4), "t|6.000000|org"),
        (consume("zoe", "'org_acme'", "cj_comparison", 7), "t|0.000000|user"),
        (consume("zoe", "'org_acme'", "cj_comparison", 7), "f|0.000000|user"),
        (consume("zoe", "'org_acme'", "ai_feedback_generation", 1), "t|1.000000|org"),
        (consume("zoe", "'org_acme'", "spellcheck", 9), "t|1.000000|none"),
        (consume("zoe", "''", "cj_comparison", 1), "f|0.000000|user"),
        (consume("zoe", "NULL", "unheard_of", 1), "t|0.000000|none"),
        (consume("somebody_new", "NULL", "cj_comparison", 1), "f|0.000000|user"),
        (consume("zoe", "'org_acme'", "cj_comparison", 0), "t|1.000000|none"),
    ] {
        assert_eq!(shown(&mut service, &call), expected, "{call}");
    }
    let expected = [
        "org org_acme cj_comparison 4 4 org completed b-1 c-1 t",
        "user zoe cj_comparison 7 7 user completed b-1 c-1 t",
        "user zoe cj_comparison 7 7 user failed b-1 c-1 f",
        "org org_acme ai_feedback_generation 1 5 org completed b-1 c-1 t",
        "org org_acme spellcheck 9 0 none completed b-1 c-1 f",
        "user zoe cj_comparison 1 1 user failed b-1 c-1 f",
        "user zoe unheard_of 1 0 none completed b-1 c-1 f",
        "user somebody_new cj_comparison 1 1 user failed b-1 c-1 f",
        "org org_acme cj_comparison 0 0 none completed b-1 c-1 f",
    ];
    assert_eq!(shown(&mut world.admin, OPERATIONS), expected.join("\n"));
    let entry = world.last_entry();
    assert_eq!(entry["metadata"]["metric"], "ai_feedback_generation");
    assert_eq!(
        (entry["correlation_id"].as_str(), &entry["metadata"]["seat_id"]),
        (Some("c-1"), &serde_json::Value::Null)
    );
    for (call, state, reason) in [
        (consume("unknown-user", "NULL", "cj_comparison", 1), "22023", "invalid_argument"),
        (consume("", "NULL", "cj_comparison", 1), "22023", "invalid_argument"),
        (consume("zoe", "NULL", "", 1), "22023", "invalid_argument"),
        (consume("zoe", "NULL", "cj_comparison", -1), "22023", "invalid_argument"),
        (consume("zoe", "'org_nowhere'", "cj_comparison", 1), "PT404", "organization_not_found"),
        ("SELECT tenancy.consume_credits(NULL, NULL, 'x', 1)".into(), "22023", "invalid_argument"),
        ("SELECT tenancy.consume_credits('zoe', NULL, NULL, 1)".into(), "22023", "invalid_argument"),
        ("SELECT tenancy.consume_credits('zoe', NULL, 'x', NULL)".into(), "22023", "invalid_argument"),
    ] {
        refused(ask(&mut service, &call), state, reason);
    }
    assert_verified(&mut world.admin);
}

/// In a SELECT list a set-returning function makes Postgres evaluate what stands beside it once more than there are rows.
#[test]
fn what_stands_beside_a_function_of_one_row_is_evaluated_once() {
    let mut world = world();
    let mut service = world.service();
    world.fund(ACME, "100");
    shown(&mut world.operator(), "SELECT tenancy.set_rate_limit('essays', 5, '1 hour')");
    let beside = "SELECT (tenancy.deduct_credits('ada', 10, 'org_acme')).charged, ";
    for function in [
        "tenancy.consume_credits('ada', 'org_acme', 'cj_comparison', 0)",
        "tenancy.check_credits('ada', 'org_acme', '{}')",
        "tenancy.credit_balance('org_acme')",
        "tenancy.take_rate_limit_for('acme', 'essays')",
        "tenancy.verify_token('')",
    ] {
        let before = shown(&mut world.admin, "SELECT count(*) FROM tenancy.credit_transactions");
        let call = format!("{beside}{function}");
        ask(&mut service, &call).unwrap_or_else(|error| panic!("{function}: {error:?}"));
        let charges = format!("SELECT count(*) - {before} FROM tenancy.credit_transactions");
        assert_eq!(shown(&mut world.admin, &charges), "1", "{function}");
    }
    // What gives rows, and so cannot stand in a list beside a charge.
    let set =
        "SELECT string_agg(p.proname, ' ' ORDER BY p.proname) FROM pg_proc AS p JOIN tenancy._function_access() AS a
                   ON to_regprocedure('tenancy.' || a.signature) = p.oid
                WHERE p.proretset AND p.provolatile = 'v' AND a.access IN ('application', 'service')";
    assert_eq!(shown(&mut world.admin, set), "consume_event deduct_credits_batch list_extension_tokens poll_events");
    assert_verified(&mut world.admin);
}

#[test]
fn a_member_s_cap_stops_consumption_and_nobody_else_pays_for_it() {
    let mut world = world();
    world.fund(ACME, "100");
    world.fund_user("ada", "100");
    shown(&mut world.operator(), "SELECT tenancy.set_member_cap('org_acme', 'ada', 3, 'day')");
    let mut service = world.service();
    let consume = "SELECT * FROM tenancy.consume_credits('ada', 'org_acme', 'cj_comparison', {})";
    assert_eq!(shown(&mut service, &consume.replace("{}", "3")), "t|97.000000|org");
    assert_eq!(shown(&mut service, &consume.replace("{}", "1")), "f|97.000000|org");
    assert_eq!(world.available_user("ada"), "100.000000");
    let last = "SELECT consumed_from, operation_status FROM tenancy.credit_operations ORDER BY id DESC LIMIT 1";
    assert_eq!(shown(&mut world.admin, last), "org|failed");
    assert_verified(&mut world.admin);
}

#[test]
fn consumption_by_many_neither_deadlocks_nor_loses() {
    let mut world = world();
    world.fund(ACME, "150");
    for user in ["ada", "bea", "zoe"] {
        world.fund_user(user, "40");
    }
    let database = &world.database;
    let answers: Vec<String> = in_parallel(9, |session| {
        let mut service = database.connect("svc");
        let user = ["ada", "bea", "zoe"][session % 3];
        (0..15)
            .map(|number| {
                if (session + number) % 4 == 0 {
                    let both = format!("SELECT DISTINCT 'batch' FROM tenancy.deduct_credits_batch('[{{\"user_id\": \"{user}\", \"amount\": 0.5}},
                        {{\"user_id\": \"ada\", \"amount\": 0.5, \"org_id\": \"org_acme\"}}]')");
                    return shown(&mut service, &both);
                }
                let consume = format!("SELECT success, consumed_from FROM tenancy.consume_credits('{user}', 'org_acme', 'ai_editor_revision', 1)");
                shown(&mut service, &consume)
            })
            .collect::<Vec<_>>()
    })
    .into_iter()
    .flatten()
    .collect();
    assert!(answers.iter().any(|answer| answer == "t|org") && answers.iter().any(|answer| answer == "t|user"));
    assert_verified(&mut world.admin);
}

#[test]
fn check_credits_says_who_would_pay_and_reserves_nothing() {
    let mut world = world();
    world.fund(ACME, "10");
    world.fund_user("ada", "30");
    let before = world.figures();
    let mut service = world.service();
    let check = |org: &str, requirements: &str| {
        format!(
            "SELECT * FROM tenancy.check_credits(user_id => 'ada', org_id => {org}, requirements => '{requirements}')"
        )
    };
    for (org, requirements, expected) in [
        ("'org_acme'", r#"{"cj_comparison": 5, "ai_feedback_generation": 1}"#, "t|10.000000|10.000000|org|"),
        ("'org_acme'", r#"{"cj_comparison": 5, "ai_editor_revision": 2}"#, "t|11.000000|30.000000|user|"),
        ("'org_acme'", r#"{"cj_comparison": 31}"#, "f|31.000000|30.000000||insufficient_credits"),
        ("NULL", r#"{"cj_comparison": 30}"#, "t|30.000000|30.000000|user|"),
        ("''", r#"{"cj_comparison": 30}"#, "t|30.000000|30.000000|user|"),
        ("'org_acme'", r#"{"spellcheck": 1000000, "unheard_of": 3}"#, "t|0.000000|0.000000||"),
        ("'org_acme'", "{}", "t|0.000000|0.000000||"),
        ("'org_acme'", r#"{"cj_comparison": 3.0}"#, "t|3.000000|10.000000|org|"),
    ] {
        assert_eq!(shown(&mut service, &check(org, requirements)), expected, "{org} {requirements}");
    }
    for requirements in ["[]", "7", r#"{"a": "3"}"#, r#"{"a": -1}"#, r#"{"a": 1.5}"#, r#"{"a": null}"#] {
        refused(ask(&mut service, &check("NULL", requirements)), "22023", "invalid_argument");
    }
    refused(ask(&mut service, "SELECT tenancy.check_credits('ada', NULL, NULL)"), "22023", "invalid_argument");
    refused(ask(&mut service, "SELECT tenancy.check_credits(NULL, NULL, '{}')"), "22023", "invalid_argument");
    refused(ask(&mut service, &check("'org_nowhere'", "{}")), "PT404", "organization_not_found");
    refused(
        ask(&mut service, &check("NULL", r#"{"cj_comparison": 1000000000000000}"#)),
        "22003",
        "amount_out_of_range",
    );
    assert_eq!(world.figures(), before);
}

#[test]
fn a_rate_limit_of_the_metric_comes_before_the_credits() {
    let mut world = world();
    world.fund(ACME, "1000");
    let mut service = world.service();
    shown(&mut world.operator(), "SELECT tenancy.set_rate_limit_policy('cj_comparison', '10/day')");
    let check = |user: &str, units: i32| {
        format!(
            "SELECT allowed, required, available, denial_reason FROM tenancy.check_credits('{user}', 'org_acme', '{{\"cj_comparison\": {units}}}')"
        )
    };
    assert_eq!(shown(&mut service, &check("ada", 10)), "t|10.000000|1000.000000|");
    assert_eq!(shown(&mut service, &check("ada", 11)), "f|11.000000|0.000000|rate_limit_exceeded");
    // Consumption counts and does not ask.
    shown(&mut service, "SELECT tenancy.consume_credits('ada', 'org_acme', 'cj_comparison', 8)");
    assert_eq!(shown(&mut service, &check("ada", 3)), "f|3.000000|0.000000|rate_limit_exceeded");
    assert_eq!(shown(&mut service, &check("ada", 2)), "t|2.000000|992.000000|");
    assert_eq!(
        shown(&mut service, "SELECT success FROM tenancy.consume_credits('ada', 'org_acme', 'cj_comparison', 8)"),
        "t"
    );
    assert_eq!(shown(&mut service, &check("ada", 1)), "f|1.000000|0.000000|rate_limit_exceeded");
    assert_eq!(shown(&mut service, &check("bea", 10)), "t|10.000000|984.000000|", "each user by himself, whoever pays");
    assert_eq!(shown(&mut service, &check("ada", 0)), "t|0.000000|0.000000|");
}

#[test]
fn costs_are_set_by_operators_and_free_means_zero() {
    let mut world = world();
    world.fund(ACME, "10");
    let (mut operator, mut service) = (world.operator(), world.service());
    assert_eq!(shown(&mut operator, "SELECT tenancy.set_credit_cost(metric => 'essay', cost => 0.25)"), "0.25");
    let consume = "SELECT success, new_balance FROM tenancy.consume_credits('ada', 'org_acme', 'essay', 3)";
    assert_eq!(shown(&mut service, consume), "t|9.250000");
    shown(&mut operator, "SELECT tenancy.set_credit_cost('essay', 0)");
    assert_eq!(shown(&mut service, consume), "t|9.250000");
    for (arguments, reason) in [
        ("'', 1", "invalid_argument"),
        ("NULL, 1", "invalid_argument"),
        ("repeat('m', 101), 1", "invalid_argument"),
        ("'essay', NULL", "invalid_amount"),
        ("'essay', -1", "invalid_amount"),
    ] {
        refused(ask(&mut operator, &format!("SELECT tenancy.set_credit_cost({arguments})")), "22023", reason);
    }
    assert_eq!(
        shown(&mut operator, "SELECT metric, trim_scale(cost) FROM tenancy.credit_costs ORDER BY metric"),
        "ai_editor_revision|3\nai_feedback_generation|5\ncj_comparison|1\nessay|0"
    );
}

#[test]
fn seats_bring_credits_at_renewal_and_when_they_are_added() {
    let mut world = world();
    let mut operator = world.operator();
    // Contract S: monthly teams, 5 seats: 1000 -> 3500; 2 seats added: 2500 -> 3500; a top-up of 500 on 1000: 1500.
    shown(&mut operator, "SELECT tenancy.set_subscription('org_acme', 'teams', 'active', 5)");
    world.fund(ACME, "1000");
    let renewal = "SELECT tenancy.allocate_seat_credits('org_acme', idempotency_key => 'invoice-1')";
    let grant = shown(&mut operator, renewal);
    assert_eq!(world.available(ACME), "3500.000000");
    assert_eq!(shown(&mut operator, renewal), grant, "an invoice that comes twice counts once");
    assert_eq!(world.available(ACME), "3500.000000");
    world.fund("org_bolt", "2500");
    shown(&mut operator, "SELECT tenancy.allocate_seat_credits(org_id => 'org_bolt', seats => 2)");
    assert_eq!(world.available("org_bolt"), "3500.000000");
    world.fund_user("ada", "1000");
    shown(&mut operator, "SELECT tenancy.grant_credits(500, user_id => 'ada', reason => 'top-up')");
    assert_eq!(world.available_user("ada"), "1500.000000");
    refused(
        ask(&mut operator, "SELECT tenancy.grant_credits(500, org_id => 'nowhere')"),
        "PT404",
        "organization_not_found",
    );

    // Yearly, another plan, a rate of one's own.
    for (plan, frequency, per_seat) in
        [("teams", "yearly", 6000), ("enterprise", "monthly", 500), ("enterprise", "yearly", 6000)]
    {
        let before: f64 = world.available(ACME).parse().expect("a number");
        shown(
            &mut operator,
            &format!(
                "SELECT tenancy.set_subscription('org_acme', '{plan}', 'active', 5, billing_frequency => '{frequency}')"
            ),
        );
        shown(&mut operator, "SELECT tenancy.allocate_seat_credits('org_acme', 1)");
        let after: f64 = world.available(ACME).parse().expect("a number");
        assert_eq!((after - before) as i64, per_seat, "{plan} {frequency}");
    }
    shown(&mut operator, "SELECT tenancy.set_seat_credits('enterprise', 'yearly', 12000.5)");
    shown(
        &mut operator,
        "SELECT tenancy.allocate_seat_credits('org_acme', 2, expires_at => now() + interval '1 year')",
    );
    let last =
        "SELECT amount, reason, expires_at < 'infinity' FROM tenancy.credit_grants ORDER BY created_at DESC LIMIT 1";
    assert_eq!(shown(&mut world.admin, last), "24001.000000|2 seats, enterprise yearly|t");
    for seats in ["0", "-1"] {
        refused(
            ask(&mut operator, &format!("SELECT tenancy.allocate_seat_credits('org_acme', {seats})")),
            "22023",
            "invalid_argument",
        );
    }
    refused(ask(&mut operator, "SELECT tenancy.allocate_seat_credits('nowhere')"), "PT404", "organization_not_found");
    refused(ask(&mut operator, "SELECT tenancy.set_seat_credits('teams', 'weekly', 1)"), "22023", "invalid_argument");
    shown(&mut operator, "SELECT tenancy.set_subscription('org_acme', 'teams', 'past_due', 5)");
    refused(
        ask(&mut operator, "SELECT tenancy.allocate_seat_credits('org_acme', 1)"),
        "PT402",
        "no_active_subscription",
    );
    assert_verified(&mut world.admin);
}

#[test]
fn a_signup_bonus_is_given_once() {
    let mut world = world();
    let mut operator = world.operator();
    assert_eq!(shown(&mut operator, "SELECT tenancy.grant_signup_bonus(user_id => 'zoe')"), "0", "no policy, no bonus");
    shown(
        &mut operator,
        r#"SELECT tenancy.load_policy('{"costs": {}, "rate_limits": {}, "signup_bonuses": {"user": 50, "org": 500}}')"#,
    );
    for (argument, bonus) in [("user_id => 'zoe'", "50.000000"), ("org_id => 'org_acme'", "500.000000")] {
        let first = shown(&mut operator, &format!("SELECT tenancy.grant_signup_bonus({argument})"));
        assert_eq!(first, shown(&mut operator, &format!("SELECT tenancy.grant_signup_bonus({argument})")));
        assert_eq!(first.parse::<f64>().expect("a number"), bonus.parse::<f64>().expect("a number"));
    }
    assert_eq!((world.available_user("zoe"), world.available(ACME)), ("50.000000".into(), "500.000000".into()));
    refused(ask(&mut operator, "SELECT tenancy.grant_signup_bonus()"), "22023", "invalid_argument");
    assert_verified(&mut world.admin);
}

#[test]
fn a_whole_adjustment_leaves_a_row_as_contract_h_wants_it() {
    let mut world = world();
    let mut operator = world.operator();
    for call in [
        "adjust_credits(20, 'a gift', org_id => 'org_acme')",
        "adjust_credits(-5, 'too many', org_id => 'org_acme')",
        "adjust_credits(7, 'sorry', user_id => 'zoe')",
        "adjust_credits(-0.5, 'half', user_id => 'zoe')",
        "adjust_credits(3000000000, 'many', user_id => 'zoe')",
    ] {
        shown(&mut operator, &format!("SELECT tenancy.{call}"));
    }
    refused(
        ask(&mut operator, "SELECT tenancy.adjust_credits(-100, 'x', org_id => 'org_acme')"),
        "PT402",
        "insufficient_credits",
    );
    let expected = [
        "org org_acme manual_adjustment 20 20 org completed t",
        "org org_acme manual_adjustment 5 5 org completed t",
        "user zoe manual_adjustment 7 7 user completed t",
    ];
    assert_eq!(shown(&mut world.admin, OPERATIONS), expected.join("\n"));
    let entries = "SELECT string_agg(concat_ws(' ', o.tenant_id, o.user_id, trim_scale(t.credits_amount), t.operation_type), ',' ORDER BY o.id)
        FROM tenancy.credit_operations AS o JOIN tenancy.credit_transactions AS t ON t.id = o.transaction_id";
    assert_eq!(
        shown(&mut world.admin, entries),
        "org_acme  20 adjustment,org_acme  -5 adjustment,user::zoe zoe 7 adjustment"
    );
    assert_verified(&mut world.admin);
}
