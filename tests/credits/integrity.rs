//! verify_ledger and the hash chain: what a superuser changes by hand is found, and named.

use crate::common::{fails_with, refused};
use crate::world::{ACME, BOLT, World, ask, assert_verified, shown, world};
use std::time::Duration;

/// A pool in which everything has happened.
fn lived_in() -> World<'static> {
    let mut world = world();
    let (mut operator, mut service) = (world.operator(), world.service());
    world.fund(ACME, "100");
    world.fund_user("ada", "50");
    shown(
        &mut operator,
        "SELECT tenancy.set_member_cap('org_acme', 'ada', 80, 'month'), tenancy.set_credit_alerts('{60}', 'org_acme')",
    );
    shown(
        &mut operator,
        "SELECT tenancy.grant_credits(10, org_id => 'org_acme', priority => -1, expires_at => clock_timestamp() + interval '1500 ms')",
    );
    let charge = shown(
        &mut service,
        "SELECT transaction_id FROM tenancy.deduct_credits('ada', 15, 'org_acme', idempotency_key => 'k')",
    );
    shown(&mut service, "SELECT tenancy.capture_hold(tenancy.hold_credits('ada', 6, 'org_acme'), 4)");
    shown(&mut service, "SELECT tenancy.void_hold(tenancy.hold_credits('bea', 1, 'org_acme'))");
    shown(&mut service, "SELECT tenancy.hold_credits('bea', 2, 'org_acme', '1 day')");
    shown(&mut service, &format!("SELECT tenancy.refund_credits('{charge}', 3)"));
    shown(&mut operator, "SELECT tenancy.adjust_credits(-1, 'wrong', org_id => 'org_acme')");
    std::thread::sleep(Duration::from_millis(1600));
    shown(&mut operator, "SELECT tenancy.sweep_credits()");
    shown(
        &mut operator,
        "SELECT tenancy.grant_credits(20, org_id => 'org_acme', effective_at => now() + interval '1 day')",
    );
    shown(&mut service, "SELECT tenancy.deduct_credits('ada', 1)");
    shown(&mut service, "SELECT tenancy.hold_credits('ada', 1, expires_in => '1 day')");
    shown(&mut operator, "SELECT count(*) FROM tenancy.seal_ledger()");
    shown(&mut service, "SELECT tenancy.deduct_credits('ada', 2, 'org_acme')");
    assert_verified(&mut world.admin);
    world
}

#[test]
fn what_a_superuser_changes_is_found() {
    let mut world = lived_in();
    let acme = "pool_id = (SELECT id FROM tenancy.organizations WHERE external_id = 'org_acme')";
    for (change, rules) in [
        (
            "UPDATE tenancy.credit_pools SET balance = balance + 1, granted_total = granted_total + 1 WHERE {}",
            "grants_sum no_money_from_nowhere pool_balance pool_granted",
        ),
        (
            "UPDATE tenancy.credit_pools SET balance = balance - 0.000001 WHERE {}",
            "grants_sum no_money_from_nowhere pool_balance",
        ),
        ("UPDATE tenancy.credit_pools SET held = held + 1 WHERE {}", "grants_sum pool_held"),
        ("UPDATE tenancy.credit_pools SET granted_total = granted_total + 1 WHERE {}", "pool_granted"),
        ("UPDATE tenancy.credit_pools SET drawn_total = drawn_total + 1 WHERE {}", "grants_sum line_end"),
        ("UPDATE tenancy.credit_pools SET burned_total = burned_total - 1 WHERE {}", "draw_end grants_sum"),
        ("UPDATE tenancy.credit_pools SET seq = seq + 1 WHERE {}", "pool_sequence"),
        ("UPDATE tenancy.credit_pools SET next_expiry_at = 'infinity' WHERE {}", "pool_boundary"),
        ("UPDATE tenancy.credit_pools SET last_entry_at = '2000-01-01' WHERE {}", "pool_time"),
        ("UPDATE tenancy.credit_pools SET alert_below = 0 WHERE {}", "pool_alert"),
        ("UPDATE tenancy.credit_pools SET has_caps = false WHERE {}", "cap_flag"),
        ("UPDATE tenancy.credit_pools SET tenant_id = 'somebody' WHERE organization_id IS NULL", "entry_owner"),
        (
            "DELETE FROM tenancy.credit_transactions WHERE {} AND seq = 2",
            "chain entry_balance entry_granted entry_sequence grant_posted pool_balance pool_sequence",
        ),
        (
            "DELETE FROM tenancy.credit_transactions WHERE {} AND seq = (SELECT seq FROM tenancy.credit_pools WHERE {})",
            "pool_balance pool_sequence line_end",
        ),
        (
            "UPDATE tenancy.credit_transactions SET credits_amount = credits_amount - 1 WHERE {} AND seq = 3",
            "chain entry_balance",
        ),
        (
            "UPDATE tenancy.credit_transactions SET balance_after = balance_after + 1 WHERE {} AND seq = 3",
            "chain entry_balance",
        ),
        (
            "UPDATE tenancy.credit_transactions SET granted_after = granted_after + 1 WHERE {} AND seq = 3",
            "chain entry_granted",
        ),
        (
            "UPDATE tenancy.credit_transactions SET created_at = created_at + interval '1 year' WHERE {} AND seq = 3",
            "chain entry_time",
        ),
        ("UPDATE tenancy.credit_transactions SET tenant_id = 'org_bolt' WHERE {} AND seq = 3", "chain entry_owner"),
        (
            "UPDATE tenancy.credit_transactions SET drawn_after = drawn_after + 1 WHERE {} AND seq = 3",
            "chain line_segment",
        ),
        ("UPDATE tenancy.credit_transactions SET description = 'another' WHERE {} AND seq = 3", "chain"),
        (
            "UPDATE tenancy.credit_transactions SET metadata = metadata || '{\"seat_role\": \"admin\"}' WHERE {} AND seq = 3",
            "chain",
        ),
        (
            "UPDATE tenancy.credit_transactions SET reference_id = '', correlation_id = 'x' WHERE {} AND seq = 3",
            "chain",
        ),
        (
            "UPDATE tenancy.credit_transactions SET user_id = (SELECT id FROM tenancy.users WHERE external_id = 'bea') WHERE {} AND seq = 3",
            "chain",
        ),
        ("UPDATE tenancy.credit_transactions SET seat_id = NULL WHERE {} AND seq = 3", "chain"),
        (
            "INSERT INTO tenancy.credit_transactions SELECT (jsonb_populate_record(t, jsonb_build_object('seq', seq + 1, 'id', tenancy._uuid_v7_for(pool_id)))).* FROM tenancy.credit_transactions AS t WHERE {} ORDER BY seq DESC LIMIT 1",
            "entry_balance pool_balance pool_sequence",
        ),
        ("UPDATE tenancy.credit_grants SET amount = amount + 1 WHERE {} AND priority = -1", "grant_posted"),
        (
            "UPDATE tenancy.credit_grants SET remaining = remaining - 1 WHERE {} AND remaining > 50",
            "grant_remaining grants_sum",
        ),
        ("UPDATE tenancy.credit_grants SET is_open = true WHERE {}", "grant_open"),
        (
            "UPDATE tenancy.credit_grants SET is_posted = true, remaining = amount WHERE {} AND NOT is_posted",
            "grant_posted grants_sum no_money_from_nowhere",
        ),
        ("DELETE FROM tenancy.credit_draws WHERE {} AND drawn_from = 0", "draw_segment grant_remaining"),
        ("DELETE FROM tenancy.credit_returns WHERE {} AND refund_id IS NOT NULL", "refund_return grant_remaining"),
        ("DELETE FROM tenancy.credit_returns WHERE {} AND hold_id IS NOT NULL", "hold_return grant_remaining"),
        ("UPDATE tenancy.credit_holds SET amount = amount + 1 WHERE {} AND status = 'held'", "line_segment pool_held"),
        (
            "UPDATE tenancy.credit_holds SET captured = captured + 1 WHERE {} AND status = 'captured'",
            "hold_capture hold_return",
        ),
        (
            "UPDATE tenancy.credit_holds SET status = 'voided', closed_at = now() WHERE {} AND status = 'held'",
            "hold_return pool_held",
        ),
        ("DELETE FROM tenancy.credit_holds WHERE {} AND status = 'captured'", "capture_without_hold"),
        ("DELETE FROM tenancy.credit_holds WHERE {} AND status = 'held'", "pool_held line"),
        ("UPDATE tenancy.credit_caps SET used = used - 1 WHERE {}", "cap_used"),
        ("UPDATE tenancy.credit_idempotency SET result_id = gen_random_uuid() WHERE {}", "key_result"),
        (
            "UPDATE tenancy.credit_idempotency AS i SET result_id = t.id FROM tenancy.credit_transactions AS t
              WHERE i.{} AND t.pool_id = i.pool_id AND t.operation_type = 'deduction' AND t.id <> i.result_id",
            "key_result",
        ),
        ("UPDATE tenancy.credit_pools SET tag = tag + 1 WHERE {}", "pool_tag"),
        ("UPDATE tenancy.credit_holds SET tenant_id = 'org_bolt' WHERE {}", "hold_owner"),
        ("UPDATE tenancy.credit_holds SET organization_id = NULL WHERE {}", "hold_owner"),
        (
            "UPDATE tenancy.credit_holds SET user_id = (SELECT id FROM tenancy.users WHERE external_id = 'bea') WHERE organization_id IS NULL",
            "hold_owner",
        ),
        ("UPDATE tenancy.credit_grants SET tenant_id = 'org_bolt' WHERE {}", "grant_owner"),
        ("UPDATE tenancy.credit_caps SET tenant_id = 'org_bolt' WHERE {}", "cap_owner"),
        ("UPDATE tenancy.credit_links SET hash = sha256('x') WHERE {} AND seq = 4", "chain"),
        ("UPDATE tenancy.credit_links SET transaction_id = gen_random_uuid() WHERE {} AND seq = 4", "chain"),
        ("DELETE FROM tenancy.credit_links WHERE {} AND seq = 4", "chain"),
        ("TRUNCATE tenancy.credit_transactions", "chain no_money_from_nowhere pool_balance pool_sequence"),
    ] {
        let change = change.replace("{}", acme);
        shown(&mut world.admin, "BEGIN");
        let changed = world.admin.execute(&change, &[]).unwrap_or_else(|error| panic!("{change}: {error:?}"));
        assert!(changed > 0 || change.starts_with("TRUNCATE"), "{change} changed nothing");
        let found =
            shown(&mut world.admin, "SELECT string_agg(DISTINCT rule, ' ' ORDER BY rule) FROM tenancy.verify_ledger()");
        for rule in rules.split(' ') {
            assert!(found.contains(rule), "{change}\nfound: {found}\nexpected: {rules}");
        }
        shown(&mut world.admin, "ROLLBACK");
    }
    assert_verified(&mut world.admin);
}

/// As docs/explanation/ledger.md says: what no other row says too.
#[test]
fn what_no_other_row_says_is_not_found() {
    let mut world = lived_in();
    for change in [
        "UPDATE tenancy.credit_grants SET priority = 7, cost_basis = 1, reason = 'x', expires_at = expires_at + interval '1 year'",
        "UPDATE tenancy.credit_grants SET amount = 1000 WHERE NOT is_posted",
        "DELETE FROM tenancy.credit_grants WHERE NOT is_posted",
        "UPDATE tenancy.credit_holds SET seat_id = NULL, subscription_id = NULL, description = 'x', metadata = '{}',
                correlation_id = 'x', expires_at = expires_at + interval '1 year' WHERE status = 'held'",
        "UPDATE tenancy.credit_holds SET user_id = (SELECT id FROM tenancy.users WHERE external_id = 'zoe')
          WHERE status = 'held' AND organization_id IS NOT NULL",
        "UPDATE tenancy.credit_transactions AS t SET description = 'x', reference_id = 'x', metadata = '{}', correlation_id = 'x'
          WHERE NOT EXISTS (SELECT FROM tenancy.credit_links AS l WHERE l.pool_id = t.pool_id AND l.seq = t.seq)",
        "UPDATE tenancy.credit_caps SET amount = 1",
        "UPDATE tenancy.credit_pools SET alert_thresholds = '{}', alert_below = 0",
        "DELETE FROM tenancy.credit_idempotency",
        "DELETE FROM tenancy.credit_links AS l WHERE l.seq = (SELECT max(m.seq) FROM tenancy.credit_links AS m WHERE m.pool_id = l.pool_id)",
    ] {
        shown(&mut world.admin, "BEGIN");
        let changed = world.admin.execute(change, &[]).unwrap_or_else(|error| panic!("{change}: {error:?}"));
        assert!(changed > 0, "{change} changed nothing");
        assert_verified(&mut world.admin);
        shown(&mut world.admin, "ROLLBACK");
    }
}

#[test]
fn the_first_broken_link_is_named() {
    let mut world = world();
    world.fund(ACME, "100");
    world.fund(BOLT, "100");
    let mut service = world.service();
    for number in 1..=6 {
        shown(
            &mut service,
            &format!(
                "SELECT tenancy.deduct_credits('ada', {number}, 'org_acme'), tenancy.deduct_credits('bob', 1, 'org_bolt')"
            ),
        );
    }
    let sealed = "SELECT o.external_id, s.seq, length(s.hash) FROM tenancy.seal_ledger() AS s JOIN tenancy.organizations o ON o.id = s.pool_id ORDER BY 1";
    assert_eq!(shown(&mut world.operator(), sealed), "org_acme|7|32\norg_bolt|7|32");
    assert_eq!(shown(&mut world.operator(), "SELECT count(*) FROM tenancy.seal_ledger()"), "0", "nothing is new");
    let of = |seq: i32| {
        format!(
            "SELECT 'credit_transactions ' || t.id FROM tenancy.credit_transactions t JOIN tenancy.organizations o
        ON o.id = t.pool_id WHERE o.external_id = 'org_acme' AND t.seq = {seq}"
        )
    };
    let broken = "SELECT object, expected, found FROM tenancy.verify_ledger('org_acme') WHERE rule = 'chain'";
    let third = shown(&mut world.admin, &of(3));
    // A forger who corrects every figure behind a lie still breaks the chain at the lie.
    shown(
        &mut world.admin,
        "UPDATE tenancy.credit_transactions t SET credits_amount = CASE WHEN seq = 3 THEN credits_amount + 1 ELSE credits_amount END,
                balance_after = balance_after + 1, drawn_after = drawn_after - 1
           FROM tenancy.organizations o WHERE o.id = t.pool_id AND o.external_id = 'org_acme' AND seq >= 3;
         UPDATE tenancy.credit_pools p SET balance = balance + 1, drawn_total = drawn_total - 1 FROM tenancy.organizations o WHERE o.id = p.pool_id AND o.external_id = 'org_acme'",
    );
    assert_eq!(
        shown(&mut world.admin, "SELECT string_agg(rule, ' ') FROM tenancy.verify_ledger()"),
        "chain",
        "everything else adds up"
    );
    assert_eq!(shown(&mut world.admin, broken), format!("{third}|entry 3 as it was sealed|the first broken link"));
    assert_eq!(
        shown(&mut world.admin, "SELECT count(*) FROM tenancy.verify_ledger('org_bolt')"),
        "0",
        "another pool is whole"
    );
    // What comes later is sealed on, and does not mend it.
    shown(&mut service, "SELECT tenancy.deduct_credits('ada', 1, 'org_acme')");
    shown(&mut world.operator(), "SELECT count(*) FROM tenancy.seal_ledger()");
    assert_eq!(shown(&mut world.admin, broken), format!("{third}|entry 3 as it was sealed|the first broken link"));
}

#[test]
fn two_sealers_and_a_load_make_one_chain() {
    let mut world = world();
    world.fund(ACME, "10000");
    let database = &world.database;
    crate::common::in_parallel(6, |session| {
        if session < 2 {
            let mut operator = database.connect("ops");
            for _ in 0..15 {
                shown(&mut operator, "SELECT count(*) FROM tenancy.seal_ledger(7)");
            }
            return;
        }
        let mut service = database.connect("svc");
        for _ in 0..40 {
            shown(&mut service, "SELECT tenancy.deduct_credits_pooled('ada', 1, 'org_acme')");
        }
    });
    shown(&mut world.operator(), "SELECT count(*) FROM tenancy.seal_ledger(NULL)");
    assert_eq!(shown(&mut world.admin, "SELECT count(*), max(seq) FROM tenancy.credit_links"), "161|161");
    assert_verified(&mut world.admin);
    for most in ["0", "-1"] {
        assert_eq!(shown(&mut world.operator(), &format!("SELECT count(*) FROM tenancy.seal_ledger({most})")), "0");
    }
}

#[test]
fn verify_ledger_answers_for_a_pool_or_for_all() {
    let mut world = lived_in();
    let mut operator = world.operator();
    for arguments in ["", "org_id => 'org_acme'", "user_id => 'ada'", "NULL, NULL", "org_id => 'org_bolt'"] {
        assert_eq!(
            shown(&mut operator, &format!("SELECT count(*) FROM tenancy.verify_ledger({arguments})")),
            "0",
            "{arguments}"
        );
    }
    refused(ask(&mut operator, "SELECT * FROM tenancy.verify_ledger('org_acme', 'ada')"), "22023", "invalid_argument");
    refused(ask(&mut operator, "SELECT * FROM tenancy.verify_ledger('nowhere')"), "PT404", "organization_not_found");
    refused(ask(&mut operator, "SELECT * FROM tenancy.verify_ledger(user_id => 'nobody')"), "PT404", "user_not_found");
    shown(&mut world.admin, "UPDATE tenancy.credit_pools SET seq = seq + 1 WHERE organization_id IS NULL");
    for (arguments, found) in [("", "1"), ("user_id => 'ada'", "1"), ("org_id => 'org_acme'", "0")] {
        assert_eq!(
            shown(&mut operator, &format!("SELECT count(*) FROM tenancy.verify_ledger({arguments})")),
            found,
            "{arguments}"
        );
    }
    for role in ["app", "svc", "met"] {
        fails_with(ask(&mut world.database.connect(role), "SELECT * FROM tenancy.verify_ledger()"), "42501");
    }
}

#[test]
fn no_money_comes_from_nowhere() {
    let mut world = lived_in();
    // sum(grants) - sum(charges) + sum(refunds) - expired - taken back = sum(balances), from the rows themselves.
    let sums = "SELECT (SELECT sum(amount) FROM tenancy.credit_grants WHERE is_posted)
        + (SELECT sum(credits_amount) FROM tenancy.credit_transactions WHERE operation_type IN ('deduction', 'refund', 'expiry')
              OR operation_type = 'adjustment' AND grant_id IS NULL)
        - (SELECT sum(balance) FROM tenancy.credit_pools)";
    assert_eq!(shown(&mut world.admin, sums).parse::<f64>().expect("a number"), 0.0);
}
