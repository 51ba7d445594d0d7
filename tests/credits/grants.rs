//! Grants: the burn order, beginnings and ends, roll-over, and the balance of any past time.

use crate::common::{cluster, refused};
use crate::world::{ACME, ask, assert_verified, shown, world};
use std::time::Duration;

#[test]
fn grants_burn_by_priority_then_expiry_then_creation() {
    let mut world = world();
    let mut operator = world.operator();
    // In an order that is none of them.
    for (reason, priority, expires) in [
        ("e_never", "0", "NULL"),
        ("c_first_of_two", "0", "now() + interval '20 days'"),
        ("a_lowest_priority", "-1", "NULL"),
        ("d_second_of_two", "0", "now() + interval '20 days'"),
        ("b_soonest", "0", "now() + interval '10 days'"),
        ("f_last_priority", "1", "now() + interval '1 day'"),
    ] {
        let expires = expires.replace("now()", "'2090-01-01 UTC'::timestamptz");
        shown(
            &mut operator,
            &format!(
                "SELECT tenancy.grant_credits(10, org_id => 'org_acme', reason => '{reason}', priority => {priority}, expires_at => {expires})"
            ),
        );
    }
    let mut service = world.service();
    for spent in 1..=6 {
        shown(&mut service, "SELECT tenancy.deduct_credits('ada', 10, 'org_acme')");
        // Settled by whatever comes next that needs it.
        shown(
            &mut operator,
            "SELECT tenancy.grant_credits(0.000001, org_id => 'org_acme', reason => 'z', priority => 100)",
        );
        let full = shown(
            &mut world.admin,
            "SELECT string_agg(left(reason, 1), '' ORDER BY reason) FROM tenancy.credit_grants WHERE remaining = 10",
        );
        assert_eq!(full, "abcdef"[spent..], "after {spent} charges of 10");
    }
    assert_verified(&mut world.admin);
}

#[test]
fn a_grant_begins_ends_and_rolls_over_by_itself() {
    let world = world();
    shown(
        &mut world.operator(),
        "SELECT tenancy.grant_credits(10, org_id => 'org_acme', reason => 'month', cost_basis => 0.25,
             effective_at => clock_timestamp() + interval '1 day', expires_at => clock_timestamp() + interval '2 days',
             rollover_max => 4, rollover_until => clock_timestamp() + interval '3 days')",
    );
    let mut later = world.database.superuser();
    let balance = "SELECT total, used, held, available FROM tenancy.credit_balance('org_acme')";
    let debit = "SELECT charged FROM tenancy.deduct_credits('ada', 3, 'org_acme')";
    let at = |client: &mut postgres::Client, hours: i32| {
        shown(client, &format!("SET tenancy.test_clock_offset = {}", hours * 3600));
    };
    assert_eq!(shown(&mut later, balance), "0.000000|0.000000|0.000000|0.000000");
    refused(ask(&mut later, debit), "PT402", "insufficient_credits");
    at(&mut later, 25);
    assert_eq!(shown(&mut later, balance), "10.000000|0.000000|0.000000|10.000000");
    assert_eq!(shown(&mut later, debit), "3.000000");
    // 7 remain at the end: 4 go on, 3 expire.
    at(&mut later, 49);
    assert_eq!(shown(&mut later, balance), "7.000000|3.000000|0.000000|4.000000");
    assert_eq!(shown(&mut later, debit), "3.000000");
    at(&mut later, 73);
    assert_eq!(shown(&mut later, balance), "6.000000|6.000000|0.000000|0.000000");
    assert_eq!(shown(&mut later, "SELECT tenancy.sweep_credits()"), "1");
    assert_eq!(shown(&mut later, "SELECT tenancy.sweep_credits()"), "0");
    let ledger = "SELECT string_agg(operation_type || ' ' || trim_scale(credits_amount), ', ' ORDER BY seq) FROM tenancy.credit_transactions";
    assert_eq!(shown(&mut later, ledger), "grant 10, deduction -3, expiry -7, rollover 4, deduction -3, expiry -1");
    let rolled =
        "SELECT source, amount, cost_basis, rolled_from IS NOT NULL FROM tenancy.credit_grants ORDER BY created_at";
    assert_eq!(shown(&mut later, rolled), "grant|10.000000|0.250000|f\nrollover|4.000000|0.250000|t");
    // The expiry is dated when it happened, not when somebody looked.
    let dated = "SELECT bool_and(t.created_at = g.expires_at) FROM tenancy.credit_transactions t
        JOIN tenancy.credit_grants g ON g.pool_id = t.pool_id AND g.id = t.grant_id WHERE t.operation_type = 'expiry'";
    assert_eq!(shown(&mut later, dated), "t");
    assert_verified(&mut later);
}

#[test]
fn the_balance_of_any_past_time_is_what_it_was_then() {
    let mut world = world();
    let mut service = world.service();
    let mut operator = world.operator();
    let mut moments = Vec::new();
    let figures = "SELECT total, used, held, available FROM tenancy.credit_balance('org_acme'";
    let hold = {
        let mut remember = |world: &mut crate::world::World| {
            std::thread::sleep(Duration::from_millis(15));
            let mut clock = || shown(&mut world.admin, "SELECT clock_timestamp()");
            let before = clock();
            let seen = shown(&mut world.admin, &format!("{figures})"));
            moments.push((before, seen, shown(&mut world.admin, "SELECT clock_timestamp()")));
            std::thread::sleep(Duration::from_millis(15));
        };
        remember(&mut world);
        shown(
            &mut operator,
            "SELECT tenancy.grant_credits(20, org_id => 'org_acme', expires_at => clock_timestamp() + interval '4 s')",
        );
        remember(&mut world);
        shown(&mut operator, "SELECT tenancy.grant_credits(100, org_id => 'org_acme')");
        remember(&mut world);
        let charge = shown(&mut service, "SELECT transaction_id FROM tenancy.deduct_credits('ada', 5, 'org_acme')");
        remember(&mut world);
        let hold = shown(&mut service, "SELECT tenancy.hold_credits('ada', 10, 'org_acme', '1 hour')");
        shown(&mut service, "SELECT tenancy.hold_credits('ada', 1, 'org_acme', '2 s')");
        remember(&mut world);
        std::thread::sleep(Duration::from_millis(2100));
        remember(&mut world);
        std::thread::sleep(Duration::from_millis(2000));
        // The grant and the short hold are over, and nothing has settled them.
        remember(&mut world);
        shown(&mut service, &format!("SELECT tenancy.capture_hold('{hold}', 8)"));
        remember(&mut world);
        shown(&mut service, &format!("SELECT tenancy.refund_credits('{charge}', 2)"));
        remember(&mut world);
        shown(&mut operator, "SELECT tenancy.adjust_credits(-7, 'a gift taken back', org_id => 'org_acme')");
        remember(&mut world);
        hold
    };
    assert!(!hold.is_empty());
    for (before, seen, after) in &moments {
        // Something may have run out between the two looks at the clock.
        let mut then = |at: &str| shown(&mut service, &format!("{figures}, at => '{at}')"));
        assert!([then(before), then(after)].contains(seen), "at {before}: {moments:?}");
    }
    let known: Vec<&str> = moments.iter().map(|(_, figures, _)| figures.as_str()).collect();
    assert_eq!(known[3], "120.000000|5.000000|0.000000|115.000000");
    assert_eq!(known[4], "120.000000|5.000000|11.000000|104.000000");
    let zero = "0.000000|0.000000|0.000000|0.000000";
    assert_eq!(shown(&mut service, &format!("{figures}, at => '-infinity')")), zero);
    assert_eq!(shown(&mut service, &format!("{figures}, at => '1970-01-01')")), zero);
    // What is to come, if nothing more happens.
    let now = shown(&mut service, &format!("{figures})"));
    for later in ["now() + interval '1 minute'", "'infinity'"] {
        assert_eq!(shown(&mut service, &format!("{figures}, at => {later})")), now);
    }
    assert_verified(&mut world.admin);
}

#[test]
fn a_grant_s_arguments_are_checked() {
    let mut world = world();
    let mut operator = world.operator();
    for arguments in [
        "5",
        "5, org_id => 'org_acme', user_id => 'ada'",
        "5, org_id => ''",
        "5, user_id => ' '",
        "5, org_id => 'org_acme', expires_at => now() - interval '1 s'",
        "5, org_id => 'org_acme', expires_at => '-infinity'",
        "5, org_id => 'org_acme', effective_at => now() + interval '2 days', expires_at => now() + interval '1 day'",
        "5, org_id => 'org_acme', effective_at => 'infinity'",
        "5, org_id => 'org_acme', rollover_max => 1",
        "5, org_id => 'org_acme', rollover_max => 1, rollover_until => now() + interval '1 day'",
        "5, org_id => 'org_acme', expires_at => now() + interval '2 days', rollover_max => 1, rollover_until => now() + interval '1 day'",
        "5, org_id => 'org_acme', cost_basis => -1",
        "5, org_id => 'org_acme', cost_basis => 'NaN'",
        "5, org_id => 'org_acme', cost_basis => 'Infinity'",
    ] {
        println!("{arguments}");
        refused(ask(&mut operator, &format!("SELECT tenancy.grant_credits({arguments})")), "22023", "invalid_argument");
    }
    for (arguments, reason) in
        [("5, org_id => 'nowhere'", "organization_not_found"), ("5, user_id => 'nobody'", "user_not_found")]
    {
        refused(ask(&mut operator, &format!("SELECT tenancy.grant_credits({arguments})")), "PT404", reason);
        refused(
            ask(&mut operator, &format!("SELECT tenancy.adjust_credits({})", arguments.replacen(',', ", 'why',", 1))),
            "PT404",
            reason,
        );
    }
    refused(
        ask(&mut operator, "SELECT tenancy.adjust_credits(5, '', org_id => 'org_acme')"),
        "22023",
        "invalid_argument",
    );
    assert_eq!(world.entries(), 0);
    // NULLs that mean the default.
    shown(
        &mut operator,
        "SELECT tenancy.grant_credits(5, 'org_acme', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)",
    );
    shown(
        &mut operator,
        "SELECT tenancy.grant_credits(5, org_id => 'org_acme', effective_at => '-infinity', expires_at => 'infinity')",
    );
    assert_eq!(world.available(ACME), "10.000000");
    assert_verified(&mut world.admin);
}

#[test]
fn adjustments_take_what_is_available_and_no_more() {
    let mut world = world();
    world.fund(ACME, "10");
    let (mut operator, mut service) = (world.operator(), world.service());
    shown(&mut service, "SELECT tenancy.hold_credits('ada', 4, 'org_acme')");
    let error = refused(
        ask(&mut operator, "SELECT tenancy.adjust_credits(-6.000001, 'x', org_id => 'org_acme')"),
        "PT402",
        "insufficient_credits",
    );
    let detail = crate::world::detail(&error);
    assert_eq!((&detail["available"], &detail["pool"]), (&serde_json::json!(6), &serde_json::json!("organization")));
    assert_eq!(
        shown(&mut operator, "SELECT tenancy.adjust_credits(-6, 'a mistake', org_id => 'org_acme')"),
        "4.000000"
    );
    assert_eq!(shown(&mut operator, "SELECT tenancy.adjust_credits(1.5, 'a gift', org_id => 'org_acme')"), "5.500000");
    assert_eq!(shown(&mut operator, "SELECT tenancy.adjust_credits(2, 'a gift', user_id => 'zoe')"), "2.000000");
    let entries = "SELECT credits_amount, description FROM tenancy.credit_transactions WHERE operation_type = 'adjustment' ORDER BY id";
    assert_eq!(shown(&mut world.admin, entries), "-6.000000|a mistake\n1.500000|a gift\n2.000000|a gift");
    assert_verified(&mut world.admin);
}

/// What will overflow the pool when it begins is refused when it is granted; so is whatever else would leave it no room.
#[test]
fn a_grant_that_will_not_fit_when_it_begins_is_refused_at_once() {
    let mut world = world();
    world.fund(ACME, "10");
    let (mut operator, mut service) = (world.operator(), world.service());
    let charge = shown(&mut service, "SELECT transaction_id FROM tenancy.deduct_credits('ada', 4, 'org_acme')");
    let later = |amount: &str| {
        format!(
            "SELECT tenancy.grant_credits({amount}, org_id => 'org_acme', effective_at => clock_timestamp() + interval '1 day')"
        )
    };
    let largest = "999999999999.999999";
    let before = world.figures();
    refused(ask(&mut operator, &later(largest)), "22003", "balance_out_of_range");
    refused(ask(&mut operator, &later("999999999994")), "22003", "balance_out_of_range");
    assert_eq!(world.figures(), before);
    // Exactly what fits; nothing enters beside it.
    shown(&mut operator, &later("999999999993.999999"));
    for call in [
        later("0.000001"),
        "SELECT tenancy.grant_credits(0.000001, org_id => 'org_acme')".to_owned(),
        "SELECT tenancy.adjust_credits(0.000001, 'more', org_id => 'org_acme')".to_owned(),
    ] {
        refused(ask(&mut operator, &call), "22003", "balance_out_of_range");
    }
    refused(ask(&mut service, &format!("SELECT tenancy.refund_credits('{charge}')")), "22003", "balance_out_of_range");
    // What is spent makes room again.
    shown(&mut service, "SELECT tenancy.deduct_credits('ada', 4, 'org_acme')");
    shown(&mut service, &format!("SELECT tenancy.refund_credits('{charge}')"));
    let mut tomorrow = world.database.superuser();
    shown(&mut tomorrow, "SET tenancy.test_clock_offset = 172800");
    assert_eq!(shown(&mut tomorrow, "SELECT tenancy.sweep_credits()"), "1");
    let balance = "SELECT available FROM tenancy.credit_balance('org_acme')";
    assert_eq!(shown(&mut tomorrow, balance), largest);
    assert_verified(&mut tomorrow);
}

/// A pool whose figures somebody has changed by hand, or that an earlier version let overflow.
#[test]
fn a_pool_that_cannot_be_settled_does_not_end_the_sweep() {
    let mut world = world();
    for user in ["ada", "bea"] {
        world.fund_user(user, "10");
        let later = format!(
            "SELECT tenancy.grant_credits(5, user_id => '{user}', effective_at => clock_timestamp() + interval '1 day')"
        );
        shown(&mut world.operator(), &later);
    }
    let ada = "(SELECT id FROM tenancy.users WHERE external_id = 'ada')";
    shown(
        &mut world.admin,
        &format!(
            "UPDATE tenancy.credit_grants SET amount = 999999999999.999999 WHERE pool_id = {ada} AND NOT is_posted;
             DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET tenancy.test_clock_offset = 172800', current_database()); END $$"
        ),
    );
    let arguments = ["-XqAt", "-U", "ops", "-d", &world.database.name, "-c", "SELECT tenancy.sweep_credits()"];
    let swept = cluster().client("psql", &arguments);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    let told = text(&swept.stderr);
    assert_eq!(text(&swept.stdout), "1", "{told}");
    let id = shown(&mut world.admin, &format!("SELECT {ada}"));
    let warning = format!("WARNING:  The pool {id} cannot be settled: balance_out_of_range");
    assert_eq!(told, warning);
    let mut tomorrow = world.service();
    assert_eq!(shown(&mut tomorrow, "SELECT charged FROM tenancy.deduct_credits('bea', 15)"), "15.000000");
    refused(ask(&mut tomorrow, "SELECT tenancy.deduct_credits('ada', 1)"), "22003", "balance_out_of_range");
    // Nothing was written where it went wrong.
    shown(
        &mut world.admin,
        &format!("UPDATE tenancy.credit_grants SET amount = 5 WHERE pool_id = {ada} AND NOT is_posted"),
    );
    assert_eq!(shown(&mut tomorrow, "SELECT charged FROM tenancy.deduct_credits('ada', 15)"), "15.000000");
    assert_verified(&mut world.database.superuser());
}
