//! Cases 21 and 24, and what else holds and refunds promise.

use crate::common::refused;
use crate::race::while_it_waits;
use crate::world::{ACME, ask, assert_verified, detail, shown, world};
use serde_json::json;
use std::time::Duration;

const HOLD: &str =
    "SELECT tenancy.hold_credits('ada', 10, 'org_acme', description => 'A batch', metadata => '{\"batch\": 1}')";

#[test]
fn credits_21_no_more_is_captured_than_is_held() {
    let mut world = world();
    world.fund(ACME, "100");
    let mut service = world.service();
    let hold = shown(&mut service, HOLD);
    let before = world.figures();
    let capture = |amount: &str| {
        format!("SELECT status, charged, balance_after, held_after FROM tenancy.capture_hold('{hold}', {amount})")
    };
    let error = refused(ask(&mut service, &capture("10.000001")), "PT422", "capture_exceeds_hold");
    assert_eq!(detail(&error), json!({"reason": "capture_exceeds_hold", "held": 10, "required": 10.000001}));
    assert_eq!(world.figures(), before, "the hold is still open");
    assert_eq!(shown(&mut service, &capture("4")), "captured|4.000000|96.000000|0.000000", "the rest is free");
    assert_eq!(world.available(ACME), "96.000000");
    let error = refused(ask(&mut service, &capture("6")), "PT422", "hold_captured");
    assert!(error.hint().is_some());
    let entry = world.last_entry();
    assert_eq!((entry["description"].as_str(), entry["metadata"]["batch"].as_i64()), (Some("A batch"), Some(1)));
    assert_eq!(entry["metadata"]["seat_role"], "member");
    assert_verified(&mut world.admin);
}

#[test]
fn credits_24_a_hold_ends_once() {
    let mut world = world();
    world.fund(ACME, "100");
    let mut service = world.service();
    let captured = shown(&mut service, HOLD);
    shown(&mut service, &format!("SELECT tenancy.capture_hold('{captured}')"));
    refused(ask(&mut service, &format!("SELECT tenancy.void_hold('{captured}')")), "PT422", "hold_captured");
    let voided = shown(&mut service, HOLD);
    assert_eq!(shown(&mut service, &format!("SELECT tenancy.void_hold('{voided}')")), "t");
    assert_eq!(shown(&mut service, &format!("SELECT tenancy.void_hold('{voided}')")), "f");
    refused(ask(&mut service, &format!("SELECT tenancy.capture_hold('{voided}')")), "PT422", "hold_voided");
    let expired = shown(&mut service, "SELECT tenancy.hold_credits('ada', 10, 'org_acme', expires_in => '50 ms')");
    std::thread::sleep(Duration::from_millis(80));
    refused(ask(&mut service, &format!("SELECT tenancy.capture_hold('{expired}')")), "PT422", "hold_expired");
    assert_eq!(shown(&mut service, &format!("SELECT tenancy.void_hold('{expired}')")), "f");
    for unknown in ["NULL", "'00000000-0000-0000-0000-000000000000'"] {
        let (state, reason) =
            if unknown == "NULL" { ("22023", "invalid_argument") } else { ("PT404", "hold_not_found") };
        refused(ask(&mut service, &format!("SELECT tenancy.capture_hold({unknown})")), state, reason);
        refused(ask(&mut service, &format!("SELECT tenancy.void_hold({unknown})")), state, reason);
    }
    assert_eq!(world.available(ACME), "90.000000");
    assert_verified(&mut world.admin);
}

#[test]
fn an_expired_hold_is_free_at_read_time_though_nothing_swept_it() {
    let mut world = world();
    world.fund(ACME, "10");
    let mut service = world.service();
    shown(&mut service, "SELECT tenancy.hold_credits('ada', 10, 'org_acme', interval '3 s')");
    let debit = "SELECT charged FROM tenancy.deduct_credits('bea', 10, 'org_acme')";
    let error = refused(ask(&mut service, debit), "PT402", "insufficient_credits");
    assert_eq!(detail(&error)["available"], 0);
    std::thread::sleep(Duration::from_millis(3100));
    let balance = "SELECT total, used, held, available FROM tenancy.credit_balance('org_acme')";
    assert_eq!(shown(&mut service, balance), "10.000000|0.000000|0.000000|10.000000");
    assert_eq!(
        shown(&mut service, "SELECT allowed FROM tenancy.check_credits('ada', 'org_acme', '{\"cj_comparison\": 10}')"),
        "t"
    );
    assert_eq!(shown(&mut service, debit), "10.000000");
    assert_verified(&mut world.admin);
}

#[test]
fn the_sweep_leaves_locked_pools_out_and_two_sweeps_share_the_rest() {
    let mut world = world();
    let mut service = world.service();
    for user in ["ada", "bea", "bob", "zoe"] {
        world.fund_user(user, "10");
        shown(&mut service, &format!("SELECT tenancy.hold_credits('{user}', 5, expires_in => interval '1 ms')"));
    }
    shown(&mut service, "BEGIN; SELECT tenancy.deduct_credits('zoe', 1)");
    shown(&mut service, "SELECT tenancy.hold_credits('zoe', 1, expires_in => interval '1 ms')");
    std::thread::sleep(Duration::from_millis(20));
    for bad in ["-1", "-2147483648"] {
        refused(
            ask(&mut world.operator(), &format!("SELECT tenancy.sweep_credits({bad})")),
            "22023",
            "invalid_argument",
        );
    }
    assert_eq!(shown(&mut world.operator(), "SELECT tenancy.sweep_credits(0)"), "0");
    let database = &world.database;
    let swept: i32 = crate::common::in_parallel(3, |_| {
        shown(&mut database.connect("ops"), "SELECT tenancy.sweep_credits()").parse::<i32>().expect("a count")
    })
    .into_iter()
    .sum();
    assert!((3..=9).contains(&swept), "{swept}: zoe's pool is locked, and nobody waited for it");
    shown(&mut service, "COMMIT");
    shown(&mut world.operator(), "SELECT tenancy.sweep_credits()");
    assert_eq!(shown(&mut world.admin, "SELECT count(*) FROM tenancy.credit_holds WHERE status = 'held'"), "0");
    assert_verified(&mut world.admin);
}

#[test]
fn what_is_held_outlives_its_grant_and_what_comes_back_does_not() {
    let mut world = world();
    let (mut operator, mut service) = (world.operator(), world.service());
    let soon = "SELECT tenancy.grant_credits(10, org_id => 'org_acme', priority => -1, expires_at => clock_timestamp() + interval '3 s')";
    shown(&mut operator, soon);
    world.fund(ACME, "100");
    let charge = shown(&mut service, "SELECT transaction_id FROM tenancy.deduct_credits('ada', 3, 'org_acme')");
    let captured = shown(&mut service, "SELECT tenancy.hold_credits('ada', 4, 'org_acme', interval '1 hour')");
    let voided = shown(&mut service, "SELECT tenancy.hold_credits('ada', 2, 'org_acme', interval '1 hour')");
    std::thread::sleep(Duration::from_millis(3100));
    // 1 of the 10 was neither charged nor held: it has expired.
    let balance = "SELECT total, used, held, available FROM tenancy.credit_balance('org_acme')";
    assert_eq!(shown(&mut service, balance), "109.000000|3.000000|6.000000|100.000000");
    let capture = format!("SELECT charged, balance_after, held_after FROM tenancy.capture_hold('{captured}', 3)");
    // The fourth held credit returns to a grant that is over, and leaves with it.
    assert_eq!(shown(&mut service, &capture), "3.000000|102.000000|2.000000");
    assert_eq!(shown(&mut service, &format!("SELECT tenancy.void_hold('{voided}')")), "t");
    assert_eq!(shown(&mut service, balance), "106.000000|6.000000|0.000000|100.000000");
    // So do refunded credits.
    let refund = format!("SELECT charged, balance_after FROM tenancy.refund_credits('{charge}')");
    assert_eq!(shown(&mut service, &refund), "-3.000000|100.000000");
    assert_eq!(shown(&mut service, balance), "103.000000|3.000000|0.000000|100.000000");
    assert_verified(&mut world.admin);
}

#[test]
fn a_refund_goes_back_to_the_grants_it_came_from() {
    let mut world = world();
    let mut operator = world.operator();
    let mut service = world.service();
    let grant = |amount: &str, priority: &str, reason: &str| {
        format!(
            "SELECT tenancy.grant_credits({amount}, org_id => 'org_acme', priority => {priority}, reason => '{reason}',
            expires_at => now() + interval '10 days')"
        )
    };
    shown(&mut operator, &grant("10", "0", "second"));
    shown(&mut operator, &grant("5", "-1", "first"));
    let charge = shown(&mut service, "SELECT transaction_id FROM tenancy.deduct_credits('ada', 8, 'org_acme')");
    shown(&mut service, &format!("SELECT tenancy.refund_credits('{charge}', 4, 'half was wrong')"));
    // 8 = 5 of the first and 3 of the second; 4 come back: 3 to the second, 1 to the first.
    let remaining = "SELECT reason, remaining FROM tenancy.credit_grants ORDER BY reason";
    assert_eq!(shown(&mut world.admin, remaining), "first|1.000000\nsecond|10.000000");
    let entry = world.last_entry();
    assert_eq!(
        (entry["operation_type"].as_str(), entry["refund_of"].as_str()),
        (Some("refund"), Some(charge.as_str()))
    );
    assert_eq!(
        (entry["description"].as_str(), &entry["metadata"]["refund_of"]),
        (Some("half was wrong"), &json!(charge))
    );
    assert_eq!(entry["metadata"]["pool"], "organization");
    for unknown in ["NULL", "'00000000-0000-0000-0000-000000000000'"] {
        let (state, reason) =
            if unknown == "NULL" { ("22023", "invalid_argument") } else { ("PT404", "transaction_not_found") };
        refused(ask(&mut service, &format!("SELECT tenancy.refund_credits({unknown})")), state, reason);
    }
    let granted =
        shown(&mut world.admin, "SELECT id FROM tenancy.credit_transactions WHERE operation_type = 'grant' LIMIT 1");
    refused(ask(&mut service, &format!("SELECT tenancy.refund_credits('{granted}')")), "PT422", "not_refundable");
    assert_verified(&mut world.admin);
}

#[test]
fn lengths_of_holds_that_are_none_are_refused() {
    let mut world = world();
    world.fund(ACME, "10");
    let mut service = world.service();
    for length in ["NULL", "'0'", "'-1 s'", "'367 days'", "'1000000 years'", "'-100000 years'"] {
        let statement = format!("SELECT tenancy.hold_credits('ada', 1, 'org_acme', {length}::interval)");
        refused(ask(&mut service, &statement), "22023", "invalid_argument");
    }
    shown(&mut service, "SELECT tenancy.hold_credits('ada', 1, 'org_acme', '366 days')");
    assert_eq!(world.available(ACME), "9.000000");
}

#[test]
fn a_capture_waits_for_the_pool_and_finds_the_hold_as_it_is_then() {
    let mut world = world();
    world.fund(ACME, "100");
    let mut service = world.service();
    let hold = shown(&mut service, HOLD);
    shown(&mut service, &format!("BEGIN; SELECT tenancy.void_hold('{hold}')"));
    let capture = format!("SELECT tenancy.capture_hold('{hold}')");
    let result = while_it_waits(
        &world.database,
        world.service(),
        |waiter| ask(waiter, &capture),
        || {
            shown(&mut service, "COMMIT");
        },
    );
    refused(result, "PT422", "hold_voided");
    assert_eq!(world.available(ACME), "100.000000");
    assert_verified(&mut world.admin);
}

#[test]
fn the_sweep_counts_the_pools_it_settles_and_not_those_that_are_locked() {
    let mut world = world();
    let mut service = world.service();
    let users = ["ada", "bea", "zoe"];
    for user in users {
        world.fund_user(user, "10");
        shown(&mut service, &format!("SELECT tenancy.hold_credits('{user}', 5, expires_in => interval '1 ms')"));
    }
    let by_id = "SELECT external_id FROM tenancy.users WHERE external_id IN ('ada', 'bea', 'zoe') ORDER BY id";
    let order = shown(&mut world.admin, by_id);
    let order: Vec<&str> = order.lines().collect();
    // A row's lock that nobody's turn stands for, and one that has its turn.
    let mut first = world.database.superuser();
    shown(
        &mut first,
        &format!(
            "BEGIN; SELECT FROM tenancy.credit_pools WHERE pool_id = (SELECT id FROM tenancy.users WHERE external_id = '{}') FOR UPDATE",
            order[0]
        ),
    );
    shown(&mut service, &format!("BEGIN; SELECT tenancy.deduct_credits('{}', 1)", order[1]));
    shown(&mut service, &format!("SELECT tenancy.hold_credits('{}', 1, expires_in => interval '1 ms')", order[1]));
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(shown(&mut world.operator(), "SELECT tenancy.sweep_credits(2)"), "1");
    let open = format!(
        "SELECT count(*) FROM tenancy.credit_holds AS h JOIN tenancy.users AS u ON u.id = h.user_id
          WHERE u.external_id = '{}' AND h.status = 'held'",
        order[2]
    );
    assert_eq!(shown(&mut world.admin, &open), "0");
    shown(&mut service, "COMMIT");
    shown(&mut first, "COMMIT");
    assert_eq!(shown(&mut world.operator(), "SELECT tenancy.sweep_credits(1)"), "1");
    assert_eq!(shown(&mut world.operator(), "SELECT tenancy.sweep_credits(2)"), "1");
    assert_verified(&mut world.admin);
}
