//! Cases 4 to 7, 36 and 37: what is no amount, and what is no metadata.

use crate::common::{Token, refused};
use crate::world::{ACME, World, ask, assert_verified, shown, world};

/// Everything that takes an amount, with `{}` in its place, and the role that calls it.
fn calls(world: &mut World) -> Vec<(&'static str, String)> {
    world.fund(ACME, "100");
    world.fund_user("ada", "100");
    let mut service = world.service();
    let hold = shown(&mut service, "SELECT tenancy.hold_credits('ada', 5, 'org_acme')");
    let charge = shown(&mut service, "SELECT transaction_id FROM tenancy.deduct_credits('ada', 5, 'org_acme')");
    vec![
        ("svc", "SELECT tenancy.deduct_credits_pooled('ada', {}, 'org_acme')".into()),
        ("svc", "SELECT tenancy.deduct_credits_pooled('ada', {})".into()),
        ("svc", "SELECT tenancy.deduct_credits('ada', {}, 'org_acme')".into()),
        ("svc", "SELECT tenancy.deduct_credits('ada', {}, idempotency_key => 'amounts')".into()),
        ("svc", "SELECT tenancy.hold_credits('ada', {}, 'org_acme')".into()),
        ("svc", format!("SELECT tenancy.capture_hold('{hold}', {{}})")),
        ("svc", format!("SELECT tenancy.refund_credits('{charge}', {{}})")),
        ("ops", "SELECT tenancy.grant_credits({}, org_id => 'org_acme')".into()),
        (
            "ops",
            "SELECT tenancy.grant_credits(1, user_id => 'ada', expires_at => now() + interval '1 day', rollover_max => {},
                    rollover_until => now() + interval '2 days')"
                .into(),
        ),
        ("ops", "SELECT tenancy.adjust_credits({}, 'a correction', org_id => 'org_acme')".into()),
        ("ops", "SELECT tenancy.set_member_cap('org_acme', 'ada', {}, 'day')".into()),
        ("ops", "SELECT tenancy.set_credit_cost('essay', {})".into()),
        ("ops", "SELECT tenancy.set_seat_credits('teams', 'monthly', {})".into()),
    ]
}

fn refused_everywhere(amounts: &[&str], state: &str, reason: &str, not_by: &[&str]) {
    let mut world = world();
    let calls = calls(&mut world);
    let before = world.figures();
    let ada = Token::for_member("ada", ACME).sign();
    for amount in amounts {
        for (role, call) in calls.iter().filter(|(_, call)| !not_by.iter().any(|name| call.contains(name))) {
            let statement = call.replace("{}", amount);
            println!("{statement}");
            refused(ask(&mut world.database.connect(role), &statement), state, reason);
        }
        let mut app = world.app();
        shown(&mut app, &format!("BEGIN; SELECT tenancy.authenticate('{ada}')"));
        refused(ask(&mut app, &format!("SELECT tenancy.spend_credits({amount})")), state, reason);
        let batch = format!(
            "SELECT status, transaction_id FROM tenancy.deduct_credits_batch(jsonb_build_array(
                jsonb_build_object('user_id', 'ada', 'amount', {amount}, 'org_id', 'org_acme')))"
        );
        assert_eq!(shown(&mut world.service(), &batch), format!("{reason}|"), "{amount}");
    }
    assert_eq!(world.figures(), before, "nothing is written");
    assert_verified(&mut world.admin);
}

#[test]
fn credits_04_an_amount_of_zero_or_less_is_refused() {
    let less = ["-5", "-0.000001", "-1000000000000", "-1e40"];
    refused_everywhere(&less, "22023", "invalid_amount", &["adjust_credits"]);
    refused_everywhere(&["0", "0.000000", "-0.0"], "22023", "invalid_amount", &["set_member_cap", "set_credit_cost"]);
    let mut world = world();
    refused(
        ask(&mut world.operator(), "SELECT tenancy.adjust_credits(-1e40, 'too much', org_id => 'org_acme')"),
        "22003",
        "amount_out_of_range",
    );
    assert_verified(&mut world.admin);
}

#[test]
fn credits_05_nan_and_infinity_are_refused() {
    let never = ["'NaN'::numeric", "'Infinity'::numeric", "'-Infinity'::numeric"];
    refused_everywhere(&never, "22023", "invalid_amount", &[]);
    let world = world();
    for threshold in never {
        let set = format!("SELECT tenancy.set_credit_alerts(ARRAY[{threshold}], org_id => 'org_acme')");
        refused(ask(&mut world.operator(), &set), "22023", "invalid_argument");
    }
}

#[test]
fn credits_06_a_seventh_decimal_is_refused_and_never_rounded() {
    let fine = ["0.0000001", "1.1234567", "4.9999999", "0.00000000000000000001", "999999999999.9999999"];
    refused_everywhere(&fine, "22023", "invalid_amount", &[]);
    let mut world = world();
    world.fund(ACME, "1.000000000000");
    assert_eq!(shown(&mut world.service(), "SELECT tenancy.deduct_credits_pooled('ada', 0.4, 'org_acme')"), "t");
    assert_eq!(world.available(ACME), "0.600000");
}

#[test]
fn credits_07_more_than_a_pool_can_hold_is_refused() {
    let large = ["1000000000000", "10000000000000", "1e40", "1e131000"];
    refused_everywhere(&large, "22003", "amount_out_of_range", &[]);
    let mut world = world();
    let mut operator = world.operator();
    let most = "999999999999.999999";
    world.fund(ACME, most);
    let before = world.figures();
    for grant in [
        "SELECT tenancy.grant_credits(0.000001, org_id => 'org_acme')",
        "SELECT tenancy.adjust_credits(999999999999.999999, 'again', org_id => 'org_acme')",
    ] {
        refused(ask(&mut operator, grant), "22003", "balance_out_of_range");
    }
    assert_eq!(world.figures(), before);
    let all = format!("SELECT charged, balance_after FROM tenancy.deduct_credits('ada', {most}, 'org_acme')");
    assert_eq!(shown(&mut world.service(), &all), format!("{most}|0.000000"));
    // The metric's cost times its units as well.
    shown(&mut operator, "SELECT tenancy.set_credit_cost('essay', 999999999)");
    let consume = "SELECT tenancy.consume_credits('ada', 'org_acme', 'essay', 2147483647)";
    refused(ask(&mut world.service(), consume), "22003", "amount_out_of_range");
    assert_verified(&mut world.admin);
}

const FORGED: &str = r#"{"pool": "mine", "clerk_org_id": "org_bolt", "organization_id": "x", "organization_name": "x",
    "stripe_customer_id": "x", "organization_subscription_id": "x", "seat_id": "x", "seat_role": "admin", "essay": 7}"#;

#[test]
fn credits_36_forged_metadata_is_overwritten_by_the_server() {
    let mut world = world();
    world.fund(ACME, "100");
    world.fund_user("ada", "100");
    let mut service = world.service();
    let keys = "ARRAY(SELECT jsonb_object_keys(metadata) ORDER BY 1)::text";
    let own = "{clerk_org_id,essay,organization_id,organization_name,organization_subscription_id,pool,seat_id,seat_role,stripe_customer_id}";
    for (org, expected) in [("'org_acme'", own), ("NULL", "{essay,pool}")] {
        let pool = if org == "NULL" { "personal" } else { "organization" };
        let hold =
            shown(&mut service, &format!("SELECT tenancy.hold_credits('ada', 1, {org}, metadata => '{FORGED}')"));
        for call in [
            format!("deduct_credits('ada', 1, {org}, metadata => '{FORGED}')"),
            format!("capture_hold('{hold}')"),
            format!(
                "deduct_credits_batch(jsonb_build_array(jsonb_build_object('user_id', 'ada', 'amount', 1, 'org_id', {org}::text,
                    'metadata', '{FORGED}'::jsonb)))"
            ),
        ] {
            let answer =
                shown(&mut service, &format!("SELECT metadata->>'pool', metadata->>'essay', {keys} FROM tenancy.{call}"));
            assert_eq!(answer, format!("{pool}|7|{expected}"), "{call}");
        }
    }
    // What stands there is what the directory says.
    let true_ones = "SELECT count(*) FROM tenancy.credit_transactions t
          JOIN tenancy.organizations o ON o.id = t.organization_id JOIN tenancy.organization_seats s ON s.id = t.seat_id
         WHERE t.operation_type = 'deduction' AND t.metadata->>'seat_id' = s.id::text AND t.metadata->>'seat_role' = s.role
           AND t.metadata->>'organization_id' = o.id::text AND t.metadata->>'clerk_org_id' = 'org_acme'
           AND t.metadata->>'organization_name' = o.name AND t.metadata->>'stripe_customer_id' = o.stripe_customer_id
           AND t.metadata->>'organization_subscription_id' = t.subscription_id::text";
    assert_eq!(shown(&mut world.admin, true_ones), "3");
}

#[test]
fn credits_37_metadata_of_a_megabyte_is_refused() {
    let mut world = world();
    world.fund(ACME, "100");
    let before = world.figures();
    let mut service = world.service();
    let large = "jsonb_build_object('essay', repeat('a', 1000000))";
    for call in ["deduct_credits('ada', 1, 'org_acme', metadata => {})", "hold_credits('ada', 1, metadata => {})"] {
        let statement = format!("SELECT tenancy.{}", call.replace("{}", large));
        refused(ask(&mut service, &statement), "54000", "metadata_too_large");
    }
    let batch = format!(
        "SELECT status FROM tenancy.deduct_credits_batch(jsonb_build_array(
            jsonb_build_object('user_id', 'ada', 'amount', 1, 'org_id', 'org_acme', 'metadata', {large})))"
    );
    assert_eq!(shown(&mut service, &batch), "metadata_too_large");
    for other in ["'[1]'", "'7'", "'\"text\"'", "'null'"] {
        let statement = format!("SELECT tenancy.deduct_credits('ada', 1, 'org_acme', metadata => {other})");
        refused(ask(&mut service, &statement), "22023", "invalid_argument");
    }
    assert_eq!(world.figures(), before);
    let nearly = "SELECT status FROM tenancy.deduct_credits('ada', 1, 'org_acme',
        metadata => jsonb_build_object('essay', repeat('a', 900000)))";
    assert_eq!(shown(&mut service, nearly), "charged");
}
