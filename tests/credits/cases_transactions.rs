//! Cases 20, 31 to 33 and 43, and what a transaction may be: read only, of two pools, begun twice.

use crate::common::{Token, fails_with, refused};
use crate::world::{ACME, BOLT, ask, assert_verified, shown, world};

#[test]
fn credits_20_a_clock_that_steps_back_does_not_turn_the_ledger_round() {
    let mut world = world();
    world.fund(ACME, "100");
    let mut client = world.database.superuser();
    let debit = "SELECT tenancy.deduct_credits('ada', 1, 'org_acme')";
    for offset in ["0", "3600", "0", "-86400", "1800", "-31536000"] {
        shown(&mut client, &format!("SET tenancy.test_clock_offset = {offset}"));
        shown(&mut client, debit);
        let hold = shown(&mut client, "SELECT tenancy.hold_credits('ada', 2, 'org_acme')");
        shown(&mut client, &format!("SELECT tenancy.capture_hold('{hold}', 1)"));
    }
    let order = "SELECT bool_and(created_at >= before AND id > id_before), count(*) FROM (SELECT created_at, id,
            lag(created_at, 1, '-infinity') OVER (ORDER BY seq) AS before,
            lag(id, 1, '00000000-0000-0000-0000-000000000000') OVER (ORDER BY seq) AS id_before
          FROM tenancy.credit_transactions) t";
    assert_eq!(shown(&mut world.admin, order), "t|13");
    assert_verified(&mut world.admin);
}

#[test]
fn credits_31_a_savepoint_s_rollback_undoes_a_debit_and_all_that_came_with_it() {
    let mut world = world();
    world.fund(ACME, "100");
    shown(
        &mut world.operator(),
        "SELECT tenancy.set_credit_alerts('{50}', org_id => 'org_acme'),
        tenancy.set_member_cap('org_acme', 'ada', 90, 'month')",
    );
    let before = world.figures();
    let mut service = world.service();
    let debit =
        "SELECT replayed, balance_after FROM tenancy.deduct_credits('ada', 60, 'org_acme', idempotency_key => 'one')";
    shown(
        &mut service,
        &format!("BEGIN; SAVEPOINT a; {debit}; SELECT tenancy.hold_credits('ada', 5, 'org_acme'); ROLLBACK TO a"),
    );
    assert_eq!(shown(&mut service, debit), "f|40.000000", "the key is free again");
    shown(&mut service, "ROLLBACK TO a");
    fails_with(ask(&mut service, "SELECT 1 / 0"), "22012");
    shown(&mut service, "ROLLBACK TO a; COMMIT");
    assert_eq!(world.figures(), before);
    assert_eq!(shown(&mut world.admin, "SELECT count(*) FROM tenancy.event_outbox"), "0", "no event of what never was");
    assert_eq!(shown(&mut service, debit), "f|40.000000");
    // A refusal caught by a caller leaves the transaction as it was.
    let caught = "DO $$ BEGIN
        PERFORM tenancy.deduct_credits('ada', 10, 'org_acme');
        BEGIN PERFORM tenancy.deduct_credits('bea', 1000, 'org_acme'); EXCEPTION WHEN SQLSTATE 'PT402' THEN NULL; END;
        BEGIN PERFORM tenancy.deduct_credits('ada', 21, 'org_acme'); EXCEPTION WHEN SQLSTATE 'PT429' THEN NULL; END;
        PERFORM tenancy.deduct_credits('ada', 20, 'org_acme');
    END $$";
    shown(&mut service, caught);
    assert_eq!(world.available(ACME), "10.000000");
    assert_verified(&mut world.admin);
}

#[test]
fn credits_32_two_hundred_savepoints_come_out_right() {
    let mut world = world();
    world.fund(ACME, "1000");
    let mut service = world.service();
    shown(&mut service, "BEGIN");
    for number in 0..200 {
        let end = match number % 4 {
            0 => "RELEASE s",
            1 => "ROLLBACK TO s",
            2 => "ROLLBACK TO s; RELEASE s",
            // Left open: the next ones nest in it.
            _ => "SELECT 1",
        };
        shown(
            &mut service,
            &format!(
                "SAVEPOINT s; SELECT tenancy.deduct_credits('ada', 1, 'org_acme', idempotency_key => 'k{number}'); {end}"
            ),
        );
    }
    shown(&mut service, "COMMIT");
    assert_eq!((world.available(ACME).as_str(), world.entries()), ("900.000000", 101));
    assert_verified(&mut world.admin);
}

#[test]
fn credits_33_what_stands_in_the_search_path_does_not_matter() {
    let mut world = world();
    world.fund(ACME, "100");
    world
        .admin
        .batch_execute(
            "CREATE SCHEMA evil AUTHORIZATION app; GRANT USAGE ON SCHEMA evil TO svc, ops;
             SET SESSION AUTHORIZATION app;
             CREATE TABLE evil.credit_pools (pool_id uuid, balance numeric); CREATE TABLE evil.credit_transactions (id uuid);
             CREATE FUNCTION evil.less(numeric, numeric) RETURNS numeric LANGUAGE sql AS 'SELECT 1000000::numeric';
             CREATE OPERATOR evil.- (LEFTARG = numeric, RIGHTARG = numeric, FUNCTION = evil.less);
             CREATE FUNCTION evil.same(text, text) RETURNS boolean LANGUAGE sql AS 'SELECT true';
             CREATE OPERATOR evil.= (LEFTARG = text, RIGHTARG = text, FUNCTION = evil.same);
             CREATE FUNCTION evil.now() RETURNS timestamptz LANGUAGE sql AS $$ SELECT '1999-01-01'::timestamptz $$;
             RESET SESSION AUTHORIZATION;",
        )
        .expect("a schema of one's own");
    let path = "SET search_path = evil, tenancy, pg_catalog, pg_temp";
    let mut app = world.app();
    let token = Token::for_member("ada", ACME).sign();
    shown(
        &mut app,
        "CREATE TEMP TABLE credit_pools (pool_id uuid, balance numeric); CREATE TEMP TABLE credit_costs (metric text)",
    );
    shown(&mut app, &format!("{path}; BEGIN; SELECT tenancy.authenticate('{token}')"));
    assert_eq!(shown(&mut app, "SELECT charged, balance_after FROM tenancy.spend_credits(1)"), "1.000000|99.000000");
    shown(&mut app, "COMMIT");
    let mut service = world.service();
    shown(&mut service, path);
    let hold = shown(&mut service, "SELECT tenancy.hold_credits('ada', 5, 'org_acme')");
    assert_eq!(
        shown(&mut service, &format!("SELECT balance_after FROM tenancy.capture_hold('{hold}', 2)")),
        "97.000000"
    );
    refused(ask(&mut service, "SELECT tenancy.deduct_credits('zoe', 1, 'org_acme')"), "PT403", "no_active_seat");
    let mut operator = world.operator();
    shown(&mut operator, path);
    shown(&mut operator, "SELECT tenancy.adjust_credits(-7, 'wrong', org_id => 'org_acme')");
    assert_eq!(shown(&mut operator, "SELECT count(*) FROM tenancy.seal_ledger()"), "1");
    assert_eq!(shown(&mut operator, "SELECT count(*) FROM tenancy.verify_ledger()"), "0");
    assert_eq!(world.available(ACME), "90.000000");
}

#[test]
fn credits_43_a_deferred_trigger_that_fails_at_commit_undoes_the_debit() {
    let mut world = world();
    world.fund(ACME, "100");
    let before = world.figures();
    world
        .admin
        .batch_execute(
            "CREATE TABLE public.essays (id int);
             CREATE FUNCTION public.too_late() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'too late'; END $$;
             CREATE CONSTRAINT TRIGGER too_late AFTER INSERT ON public.essays DEFERRABLE INITIALLY DEFERRED
                 FOR EACH ROW EXECUTE FUNCTION public.too_late();
             GRANT INSERT ON public.essays TO app, svc;",
        )
        .expect("a user's own trigger");
    let token = Token::for_member("ada", ACME).sign();
    let mut app = world.app();
    let spend = "SELECT charged FROM tenancy.spend_credits(5, idempotency_key => 'one')";
    shown(
        &mut app,
        &format!("BEGIN; SELECT tenancy.authenticate('{token}'); INSERT INTO public.essays VALUES (1); {spend}"),
    );
    fails_with(ask(&mut app, "COMMIT"), "P0001");
    assert_eq!(world.figures(), before);
    let mut service = world.service();
    shown(
        &mut service,
        "BEGIN; SELECT tenancy.deduct_credits('ada', 5, 'org_acme'); INSERT INTO public.essays VALUES (1)",
    );
    fails_with(ask(&mut service, "COMMIT"), "P0001");
    assert_eq!(world.figures(), before);
    shown(&mut app, &format!("BEGIN; SELECT tenancy.authenticate('{token}'); {spend}; COMMIT"));
    assert_eq!(world.available(ACME), "95.000000");
    assert_verified(&mut world.admin);
}

#[test]
fn a_read_only_transaction_reads_balances_and_charges_nothing() {
    let mut world = world();
    world.fund(ACME, "100");
    let mut service = world.service();
    let hold = shown(&mut service, "SELECT tenancy.hold_credits('ada', 5, 'org_acme')");
    let charge = shown(&mut service, "SELECT transaction_id FROM tenancy.deduct_credits('ada', 5, 'org_acme')");
    let before = world.figures();
    for (role, call) in [
        ("svc", "tenancy.deduct_credits_pooled('ada', 5, 'org_acme')".to_owned()),
        ("svc", "tenancy.deduct_credits('ada', 5, 'org_acme', idempotency_key => 'k')".into()),
        ("svc", "tenancy.hold_credits('ada', 5, 'org_acme')".into()),
        ("svc", format!("tenancy.capture_hold('{hold}')")),
        ("svc", format!("tenancy.void_hold('{hold}')")),
        ("svc", format!("tenancy.refund_credits('{charge}')")),
        (
            "svc",
            "tenancy.deduct_credits_batch('[{\"user_id\": \"ada\", \"amount\": 5, \"org_id\": \"org_acme\"}]')".into(),
        ),
        ("svc", "tenancy.consume_credits('ada', 'org_acme', 'cj_comparison', 1)".into()),
        ("ops", "tenancy.grant_credits(5, org_id => 'org_acme')".into()),
        ("ops", "tenancy.adjust_credits(-5, 'x', org_id => 'org_acme')".into()),
        ("ops", "tenancy.set_member_cap('org_acme', 'ada', 5, 'day')".into()),
        ("ops", "tenancy.set_credit_cost('essay', 5)".into()),
        ("ops", "tenancy.allocate_seat_credits('org_acme')".into()),
    ] {
        let mut client = world.database.connect(role);
        shown(&mut client, "BEGIN READ ONLY");
        println!("{call}");
        fails_with(ask(&mut client, &format!("SELECT {call}")), "25006");
    }
    let mut service = world.service();
    shown(&mut service, "BEGIN READ ONLY");
    refused(ask(&mut service, "SELECT tenancy.deduct_credits('ada', 5, 'org_acme')"), "25006", "read_only_transaction");
    let mut operator = world.operator();
    shown(&mut operator, "BEGIN READ ONLY");
    assert_eq!(shown(&mut operator, "SELECT available FROM tenancy.credit_balance('org_acme')"), "90.000000");
    assert_eq!(shown(&mut operator, "SELECT count(*) FROM tenancy.verify_ledger()"), "0");
    assert_eq!(world.figures(), before);
}

#[test]
fn pools_of_two_organizations_in_one_transaction_stand_or_fall_together() {
    let mut world = world();
    world.fund(ACME, "100");
    world.fund(BOLT, "3");
    let mut service = world.service();
    shown(&mut service, "BEGIN; SELECT tenancy.deduct_credits('ada', 5, 'org_acme')");
    refused(ask(&mut service, "SELECT tenancy.deduct_credits('bob', 5, 'org_bolt')"), "PT402", "insufficient_credits");
    shown(&mut service, "ROLLBACK");
    assert_eq!((world.available(ACME), world.available(BOLT)), ("100.000000".into(), "3.000000".into()));
    shown(
        &mut service,
        "BEGIN; SELECT tenancy.deduct_credits('ada', 5, 'org_acme'), tenancy.deduct_credits('bob', 3, 'org_bolt'); COMMIT",
    );
    assert_eq!((world.available(ACME), world.available(BOLT)), ("95.000000".into(), "0.000000".into()));
    assert_verified(&mut world.admin);
}
