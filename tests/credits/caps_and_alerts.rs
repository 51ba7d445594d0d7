//! Member caps and low-balance events.

use crate::common::{in_parallel, refused};
use crate::world::{ACME, ask, assert_verified, detail, shown, world};
use serde_json::json;

#[test]
fn caps_are_by_day_month_and_lifetime_and_the_tightest_decides() {
    let mut world = world();
    world.fund(ACME, "1000");
    let mut operator = world.operator();
    for (amount, period) in [("10", "day"), ("25", "month"), ("30", "lifetime")] {
        let set = format!("SELECT tenancy.set_member_cap('org_acme', 'ada', {amount}, '{period}')");
        assert_eq!(shown(&mut operator, &set), "t");
    }
    let mut client = world.database.superuser();
    // The 28th, 29th and 30th of January 2090, noon, then the first two days of February.
    let to = |day: &str| format!("SET tenancy.test_clock_offset = {}", offset(day));
    let debit = |amount: &str| format!("SELECT charged FROM tenancy.deduct_credits('ada', {amount}, 'org_acme')");
    for (day, amount, period) in [
        ("2090-01-28", "10", "day"),
        ("2090-01-29", "10", "day"),
        ("2090-01-30", "5", "month"),
        ("2090-02-01", "5", "lifetime"),
        ("2090-02-02", "", "lifetime"),
    ] {
        shown(&mut client, &to(day));
        if !amount.is_empty() {
            shown(&mut client, &debit(amount));
        }
        let error = refused(ask(&mut client, &debit("0.000001")), "PT429", "cap_reached");
        assert_eq!(detail(&error)["period"], period, "{day}");
    }
    assert_verified(&mut client);
    // A cap binds one member; lifting it frees her.
    shown(&mut client, "SELECT tenancy.deduct_credits('bea', 100, 'org_acme')");
    for period in ["day", "month", "lifetime"] {
        let lift = format!("SELECT tenancy.set_member_cap('org_acme', 'ada', NULL, '{period}')");
        assert_eq!(shown(&mut client, &lift), "f");
    }
    shown(&mut client, &debit("500"));
    assert_eq!(shown(&mut client, "SELECT has_caps FROM tenancy.credit_pools"), "f");
    assert_verified(&mut client);
}

/// Seconds from now to noon (UTC) of a day.
fn offset(day: &str) -> i64 {
    let mut admin = crate::common::cluster().connect("postgres", "postgres");
    let seconds =
        format!("SELECT floor(extract(epoch FROM '{day} 12:00 UTC'::timestamptz - clock_timestamp()))::bigint");
    shown(&mut admin, &seconds).parse().expect("seconds")
}

#[test]
fn a_cap_set_in_mid_period_counts_what_was_spent_before() {
    let mut world = world();
    world.fund(ACME, "1000");
    let (mut operator, mut service) = (world.operator(), world.service());
    let charge = shown(&mut service, "SELECT transaction_id FROM tenancy.deduct_credits('ada', 8, 'org_acme')");
    shown(&mut operator, "SELECT tenancy.set_member_cap('org_acme', 'ada', 10, 'day')");
    let error =
        refused(ask(&mut service, "SELECT tenancy.deduct_credits('ada', 3, 'org_acme')"), "PT429", "cap_reached");
    assert_eq!(
        detail(&error),
        json!({"reason": "cap_reached", "pool": "organization", "period": "day", "cap": 10, "used": 8, "required": 3, "available": 2})
    );
    // Open holds count, what is refunded does not, and her own credits are no business of the organization's.
    shown(&mut service, "SELECT tenancy.hold_credits('ada', 2, 'org_acme', '1 hour')");
    refused(ask(&mut service, "SELECT tenancy.hold_credits('ada', 0.000001, 'org_acme')"), "PT429", "cap_reached");
    shown(&mut service, &format!("SELECT tenancy.refund_credits('{charge}', 5)"));
    shown(&mut service, "SELECT tenancy.deduct_credits('ada', 5, 'org_acme')");
    refused(ask(&mut service, "SELECT tenancy.deduct_credits('ada', 0.000001, 'org_acme')"), "PT429", "cap_reached");
    world.fund_user("ada", "50");
    shown(&mut service, "SELECT tenancy.deduct_credits('ada', 50)");
    shown(&mut operator, "SELECT tenancy.set_member_cap('org_acme', 'bea', 0, 'lifetime')");
    refused(ask(&mut service, "SELECT tenancy.deduct_credits('bea', 0.000001, 'org_acme')"), "PT429", "cap_reached");
    assert_verified(&mut world.admin);
}

#[test]
fn caps_that_are_none_are_refused() {
    let mut world = world();
    let mut operator = world.operator();
    for arguments in [
        "'org_acme', 'ada', 1, NULL",
        "'org_acme', 'ada', 1, 'week'",
        "'org_acme', 'ada', 1, 'DAY'",
        "'', 'ada', 1, 'day'",
        "NULL, 'ada', 1, 'day'",
        "'org_acme', '', 1, 'day'",
        "'org_acme', NULL, 1, 'day'",
    ] {
        refused(
            ask(&mut operator, &format!("SELECT tenancy.set_member_cap({arguments})")),
            "22023",
            "invalid_argument",
        );
    }
    refused(
        ask(&mut operator, "SELECT tenancy.set_member_cap('nowhere', 'ada', 1, 'day')"),
        "PT404",
        "organization_not_found",
    );
    refused(
        ask(&mut operator, "SELECT tenancy.set_member_cap('org_acme', 'nobody', 1, 'day')"),
        "PT404",
        "user_not_found",
    );
    assert_eq!(shown(&mut operator, "SELECT tenancy.set_member_cap('org_acme', 'ada', NULL, 'day')"), "f");
    assert_eq!(shown(&mut world.admin, "SELECT count(*) FROM tenancy.credit_caps"), "0");
}

const TOLD: &str = "SELECT string_agg(trim_scale((payload #>> '{data,threshold}')::numeric) || ' at ' ||
        trim_scale((payload #>> '{data,available}')::numeric), ', ' ORDER BY (payload #>> '{data,seq}')::int, 1 DESC)
    FROM tenancy.event_outbox WHERE type = 'tenancy.credit.balance.low.v1'";

#[test]
fn a_threshold_tells_once_per_crossing_whatever_crosses_it() {
    let mut world = world();
    world.fund(ACME, "100");
    let (mut operator, mut service) = (world.operator(), world.service());
    assert_eq!(shown(&mut operator, "SELECT tenancy.set_credit_alerts('{50,20}', org_id => 'org_acme')"), "2");
    let debit =
        |amount: &str| format!("SELECT transaction_id FROM tenancy.deduct_credits('ada', {amount}, 'org_acme')");
    let told = |world: &mut crate::world::World| shown(&mut world.admin, TOLD);
    shown(&mut service, &debit("50"));
    assert_eq!(told(&mut world), "", "exactly the threshold is not below it");
    shown(&mut service, &debit("1"));
    assert_eq!(told(&mut world), "50 at 49");
    shown(&mut service, &debit("10"));
    assert_eq!(told(&mut world), "50 at 49", "once");
    let charge = shown(&mut service, &debit("30"));
    assert_eq!(told(&mut world), "50 at 49, 20 at 9");
    // A refund arms what it rises above; a hold crosses as a charge does, a batch and an adjustment too.
    shown(&mut service, &format!("SELECT tenancy.refund_credits('{charge}')"));
    shown(&mut service, "SELECT tenancy.hold_credits('ada', 25, 'org_acme', '1 hour')");
    assert_eq!(told(&mut world), "50 at 49, 20 at 9, 20 at 14");
    shown(&mut operator, "SELECT tenancy.grant_credits(100, org_id => 'org_acme')");
    shown(
        &mut service,
        "SELECT tenancy.deduct_credits_batch('[{\"user_id\": \"ada\", \"amount\": 50, \"org_id\": \"org_acme\"},
        {\"user_id\": \"ada\", \"amount\": 50, \"org_id\": \"org_acme\"}]')",
    );
    let after_batch = told(&mut world);
    assert_eq!(after_batch, "50 at 49, 20 at 9, 20 at 14, 50 at 14, 20 at 14");
    shown(
        &mut operator,
        "SELECT tenancy.adjust_credits(6, 'x', org_id => 'org_acme'); SELECT tenancy.adjust_credits(-6, 'x', org_id => 'org_acme')",
    );
    assert_eq!(told(&mut world), format!("{after_batch}, 20 at 14"));
    let event = "SELECT payload -> 'data' ->> 'org_id', payload -> 'data' ->> 'organization_name', payload -> 'data' ->> 'pool', tenant_id
        FROM tenancy.event_outbox WHERE type = 'tenancy.credit.balance.low.v1' LIMIT 1";
    assert_eq!(shown(&mut world.admin, event), "org_acme|Acme Inc|organization|org_acme");
    assert_eq!(shown(&mut operator, "SELECT tenancy.set_credit_alerts(NULL, org_id => 'org_acme')"), "0");
    shown(&mut operator, "SELECT tenancy.grant_credits(100, org_id => 'org_acme')");
    shown(&mut service, &debit("110"));
    assert_eq!(told(&mut world), format!("{after_batch}, 20 at 14"));
    assert_verified(&mut world.admin);
}

#[test]
fn sixteen_sessions_cross_a_threshold_once() {
    let mut world = world();
    world.fund(ACME, "64");
    shown(&mut world.operator(), "SELECT tenancy.set_credit_alerts('{32}', org_id => 'org_acme')");
    let database = &world.database;
    in_parallel(16, |_| {
        let mut service = database.connect("svc");
        for _ in 0..4 {
            shown(&mut service, "SELECT tenancy.deduct_credits_pooled('ada', 1, 'org_acme')");
        }
    });
    assert_eq!(world.available(ACME), "0.000000");
    assert_eq!(shown(&mut world.admin, TOLD), "32 at 31");
    assert_verified(&mut world.admin);
}

#[test]
fn thresholds_that_are_none_are_refused() {
    let world = world();
    let mut operator = world.operator();
    for thresholds in
        ["'{0}'", "'{-1}'", "'{NULL}'", "'{0.0000001}'", "'{1000000000000}'", "array_fill(1.0, ARRAY[21])"]
    {
        let set = format!("SELECT tenancy.set_credit_alerts({thresholds}, org_id => 'org_acme')");
        refused(ask(&mut operator, &set), "22023", "invalid_argument");
    }
    refused(
        ask(&mut operator, "SELECT tenancy.set_credit_alerts('{5}', org_id => 'nowhere')"),
        "PT404",
        "organization_not_found",
    );
    refused(ask(&mut operator, "SELECT tenancy.set_credit_alerts('{5}')"), "22023", "invalid_argument");
}

#[test]
fn a_threshold_that_stands_twice_tells_once() {
    let mut world = world();
    let mut operator = world.operator();
    for thresholds in ["{50,50}", "{50.0,20,50}"] {
        world.fund(ACME, "100");
        let set = format!("SELECT tenancy.set_credit_alerts('{thresholds}', org_id => 'org_acme')");
        shown(&mut operator, &set);
        shown(&mut world.service(), "SELECT tenancy.deduct_credits('ada', 51, 'org_acme')");
        assert_eq!(shown(&mut world.admin, TOLD), "50 at 49", "{thresholds}");
        shown(&mut world.service(), "SELECT tenancy.deduct_credits('ada', 49, 'org_acme')");
        shown(&mut world.admin, "DELETE FROM tenancy.event_outbox");
    }
    assert_verified(&mut world.admin);
}
