//! Contract S's deduction and its kin, from outside: what they charge, write and refuse.

use crate::common::{Token, in_parallel, refused, shared_json};
use crate::world::{ACME, BOLT, authenticate, json, pooled, world};
use serde_json::Value;

#[test]
fn the_contracts_call_writes_the_contracts_row() {
    let Some(payload) = shared_json("payloads/07_deduct_credits_pooled_rpc.json") else { return };
    let (body, expected) = (&payload["body"], &payload["credit_transactions_row"]);
    let user = body["p_clerk_user_id"].as_str().expect("a user");
    let org = body["p_clerk_org_id"].as_str().expect("an organization");
    let mut world = world();
    let setup = format!(
        "SELECT tenancy.register_user('{user}');
         SELECT tenancy.register_organization('{org}', 'Acme Inc', stripe_customer_id => 'cus_Q1w2E3r4');
         SELECT tenancy.set_subscription('{org}', 'teams', 'active', 5);
         SELECT tenancy.assign_seat('{org}', '{user}');
         SELECT tenancy.grant_credits(1000, org_id => '{org}');
         SELECT tenancy.install_compat();"
    );
    world.admin.batch_execute(&setup).expect("the payload's world can be made");
    let amount = body["p_amount"].to_string();
    let row = world
        .service()
        .query_one(
            "SELECT public.deduct_credits_pooled(p_clerk_user_id => $1, p_amount => $2::text::numeric, p_clerk_org_id => $3,
                    p_description => $4, p_reference_id => $5)",
            &[&user, &amount, &org, &body["p_description"].as_str(), &body["p_reference_id"].as_str()],
        )
        .expect("the call succeeds");
    assert_eq!(Value::from(row.get::<_, bool>(0)), payload["returns"]);

    let entry = world.last_entry();
    for field in ["operation_type", "description", "reference_id"] {
        assert_eq!(entry[field], expected[field], "{field}");
    }
    assert_eq!(entry["credits_amount"].as_f64(), expected["credits_amount"].as_f64());
    let ids = json(
        &mut world.admin,
        "SELECT jsonb_build_object('organization_id', o.id, 'organization_subscription_id', sub.id, 'seat_id', s.id)::text
           FROM tenancy.organizations o JOIN tenancy.organization_subscriptions sub ON sub.organization_id = o.id
           JOIN tenancy.organization_seats s ON s.organization_id = o.id WHERE o.external_id = $1",
        &[&org],
    );
    let mut metadata = expected["metadata"].clone();
    for (key, value) in ids.as_object().expect("an object") {
        metadata[key] = value.clone();
    }
    assert_eq!(entry["metadata"], metadata);
}

#[test]
fn not_enough_is_false_writes_nothing_and_never_falls_back() {
    let mut world = world();
    world.fund(ACME, "10");
    world.fund_user("ada", "1000");
    let before = world.entries();
    let mut service = world.service();
    assert!(!pooled(&mut service, "ada", "10.000001", Some(ACME)).expect("no error"));
    assert_eq!(world.entries(), before);
    assert_eq!((world.available(ACME), world.available_user("ada")), ("10.000000".into(), "1000.000000".into()));
    assert!(pooled(&mut service, "ada", "10", Some(ACME)).expect("no error"), "exactly the balance can be spent");
    assert_eq!(world.available(ACME), "0.000000");
}

#[test]
fn without_a_pool_there_is_nothing_to_spend_but_the_seat_is_judged() {
    let world = world();
    let mut service = world.service();
    assert!(!pooled(&mut service, "ada", "1", Some(ACME)).expect("no error"));
    assert!(!pooled(&mut service, "ada", "1", None).expect("no error"));
    refused(pooled(&mut service, "zoe", "1", Some(ACME)), "PT403", "no_active_seat");
}

#[test]
fn the_contracts_errors_come_with_the_contracts_texts() {
    let mut world = world();
    world.fund(ACME, "100");
    let mut service = world.service();
    let cases = [
        ("nobody", Some(ACME), "PT404", "user_not_found", "User not found"),
        ("zoe", Some(ACME), "PT403", "no_active_seat", "User does not have an active seat in this organization"),
        ("ada", Some(BOLT), "PT403", "no_active_seat", "User does not have an active seat in this organization"),
        ("ada", Some("org_none"), "PT403", "no_active_seat", "User does not have an active seat in this organization"),
        ("ada", Some(""), "22023", "invalid_argument", "org_id must not be empty"),
        ("ada", Some("  "), "22023", "invalid_argument", "org_id must not be empty"),
        ("", Some(ACME), "22023", "invalid_argument", "user_id must not be empty"),
    ];
    for (user, org, state, reason, message) in cases {
        let error = refused(pooled(&mut service, user, "1", org), state, reason);
        assert_eq!(error.message(), message);
    }
    for status in ["past_due", "canceled", "unpaid", "incomplete", "incomplete_expired", "paused"] {
        let set = format!("SELECT tenancy.set_subscription('{ACME}', 'teams', '{status}', 10)");
        world.admin.batch_execute(&set).expect("a status can be set");
        let error = refused(pooled(&mut service, "ada", "1", Some(ACME)), "PT402", "no_active_subscription");
        assert_eq!(error.message(), "Active organization subscription not found");
        refused(pooled(&mut service, "ada", "1000", Some(ACME)), "PT402", "no_active_subscription");
        refused(pooled(&mut service, "zoe", "1", Some(ACME)), "PT403", "no_active_seat");
    }
    assert_eq!(world.available(ACME), "100.000000");
}

#[test]
fn amounts_that_are_none_are_refused_and_nothing_is_written() {
    let mut world = world();
    world.fund_user("ada", "100");
    let before = world.entries();
    let mut service = world.service();
    let never = ["0", "-5", "-0.000001", "NaN", "Infinity", "-Infinity", "0.0000001", "1.1234567"];
    for amount in never {
        refused(pooled(&mut service, "ada", amount, None), "22023", "invalid_amount");
    }
    for amount in ["10000000000000", "1000000000000", "1e40", "1e131000"] {
        refused(pooled(&mut service, "ada", amount, None), "22003", "amount_out_of_range");
    }
    let null = service.query_one("SELECT tenancy.deduct_credits_pooled('ada', NULL)", &[]);
    refused(null, "22023", "invalid_amount");
    assert_eq!(world.entries(), before);
    assert!(pooled(&mut service, "ada", "0.4000000000", None).expect("trailing zeros say nothing"));
    assert!(pooled(&mut service, "ada", "0.000001", None).expect("a millionth is an amount"));
    assert_eq!(world.available_user("ada"), "99.599999");
}

#[test]
fn an_expired_seat_is_no_seat() {
    let mut world = world();
    world.fund(ACME, "100");
    world
        .admin
        .batch_execute(
            "UPDATE tenancy.organization_seats SET expires_at = clock_timestamp() + '3 s' FROM tenancy.users u
                         WHERE u.id = user_id AND u.external_id = 'ada'",
        )
        .expect("a superuser can");
    let mut service = world.service();
    assert!(pooled(&mut service, "ada", "1", Some(ACME)).expect("not yet"));
    std::thread::sleep(std::time::Duration::from_millis(3100));
    refused(pooled(&mut service, "ada", "1", Some(ACME)), "PT403", "no_active_seat");
}

#[test]
fn while_an_identity_is_in_force_nobody_else_can_be_charged() {
    let mut world = world();
    world.fund(ACME, "100");
    world.fund(BOLT, "100");
    world.fund_user("ada", "100");
    let mut service = world.service();
    for (user, org, allowed) in [
        ("ada", Some(ACME), true),
        ("ada", None, true),
        ("bea", Some(ACME), false),
        ("ada", Some(BOLT), false),
        ("bob", Some(BOLT), false),
        ("bea", None, false),
        ("nobody", None, false),
    ] {
        let mut transaction = service.transaction().expect("a transaction");
        authenticate(&mut transaction, &Token::for_member("ada", ACME));
        let result = transaction.query_one("SELECT tenancy.deduct_credits_pooled($1, 1, $2)", &[&user, &org]);
        if allowed {
            assert!(result.expect("her own").get::<_, bool>(0));
        } else {
            refused(result, "PT403", "identity_mismatch");
        }
    }
    // An identity that has ended in mid-transaction still keeps the transaction from acting for somebody else.
    let mut transaction = service.transaction().expect("a transaction");
    authenticate(&mut transaction, &Token::for_member("ada", ACME).expires_in(4));
    std::thread::sleep(std::time::Duration::from_millis(4200));
    refused(
        transaction.query_one("SELECT tenancy.deduct_credits_pooled('bea', 1, $1)", &[&ACME]),
        "PT403",
        "identity_mismatch",
    );
}

#[test]
fn spend_credits_charges_whoever_is_authenticated() {
    let mut world = world();
    world.fund(ACME, "100");
    world.fund_user("zoe", "5");
    let mut app = world.app();
    refused(app.query_one("SELECT tenancy.spend_credits(1)", &[]), "PT401", "not_authenticated");

    let mut transaction = app.transaction().expect("a transaction");
    authenticate(&mut transaction, &Token::for_member("ada", ACME));
    let spent = transaction
        .query_one("SELECT status, pool, metadata::text FROM tenancy.spend_credits(2.5, 'An essay', 'ref-1', metadata => '{\"essay\": 7}')", &[])
        .expect("ada has a seat");
    assert_eq!(spent.get::<_, &str>("status"), "charged");
    assert_eq!(spent.get::<_, &str>("pool"), "organization");
    assert_eq!(serde_json::from_str::<Value>(spent.get("metadata")).expect("JSON")["essay"], 7);
    transaction.commit().expect("it commits");
    let entry = world.last_entry();
    assert_eq!((entry["description"].as_str(), entry["reference_id"].as_str()), (Some("An essay"), Some("ref-1")));
    assert_eq!(world.available(ACME), "97.500000");

    let mut transaction = app.transaction().expect("a transaction");
    authenticate(&mut transaction, &Token::for_user("zoe"));
    let error = refused(transaction.query_one("SELECT tenancy.spend_credits(6)", &[]), "PT402", "insufficient_credits");
    let detail: Value = serde_json::from_str(error.detail().expect("a DETAIL")).expect("JSON");
    assert_eq!(
        detail,
        serde_json::json!({"reason": "insufficient_credits", "pool": "personal", "required": 6, "available": 5})
    );
}

#[test]
fn an_application_sees_its_own_balance_only() {
    let mut world = world();
    world.fund(ACME, "100");
    world.fund(BOLT, "7");
    let balance = "SELECT available::text FROM tenancy.credit_balance(org_id => $1)";
    let mut app = world.app();
    refused(app.query_one(balance, &[&ACME]), "PT401", "not_authenticated");
    let mut transaction = app.transaction().expect("a transaction");
    authenticate(&mut transaction, &Token::for_member("ada", ACME));
    let own: String =
        transaction.query_one("SELECT available::text FROM tenancy.credit_balance()", &[]).expect("her own").get(0);
    assert_eq!(own, "100.000000");
    refused(transaction.query_one(balance, &[&BOLT]), "PT403", "not_your_pool");
    drop(transaction);
    for role in ["svc", "ops"] {
        let seen: String = world.database.connect(role).query_one(balance, &[&BOLT]).expect("any pool").get(0);
        assert_eq!(seen, "7.000000");
    }
}

#[test]
fn a_rolled_back_charge_never_was() {
    let mut world = world();
    world.fund(ACME, "100");
    let mut service = world.service();
    let mut transaction = service.transaction().expect("a transaction");
    transaction.execute("SELECT tenancy.deduct_credits('ada', 30, $1)", &[&ACME]).expect("charged");
    let mut savepoint = transaction.savepoint("half").expect("a savepoint");
    savepoint.execute("SELECT tenancy.deduct_credits('ada', 50, $1)", &[&ACME]).expect("charged");
    savepoint.rollback().expect("it rolls back");
    transaction.commit().expect("it commits");
    assert_eq!((world.available(ACME).as_str(), world.entries()), ("70.000000", 2));
}

#[test]
fn thirty_two_sessions_drain_a_pool_of_a_hundred_exactly() {
    let mut world = world();
    world.fund(ACME, "100");
    let database = &world.database;
    let charged: usize = in_parallel(32, |_| {
        let mut service = database.connect("svc");
        (0..10).filter(|_| pooled(&mut service, "ada", "1", Some(ACME)).expect("true or false")).count()
    })
    .into_iter()
    .sum();
    assert_eq!(charged, 100);
    assert_eq!((world.available(ACME).as_str(), world.entries()), ("0.000000", 101));
}

#[test]
fn install_compat_replaces_its_own_and_nothing_else() {
    let mut world = world();
    world
        .admin
        .batch_execute("SELECT tenancy.install_compat(); SELECT tenancy.install_compat()")
        .expect("twice is once");
    let overloads: i64 = world.admin.query_one("SELECT count(*) FROM pg_proc WHERE proname = 'deduct_credits_pooled' AND pronamespace = 'public'::regnamespace", &[]).expect("a count").get(0);
    assert_eq!(overloads, 1);
    let mut app = world.app();
    crate::common::fails_with(app.query_one("SELECT public.deduct_credits_pooled('ada', 1)", &[]), "42501");
    world.admin.batch_execute("CREATE SCHEMA old; CREATE FUNCTION old.deduct_credits_pooled(x int) RETURNS int LANGUAGE sql AS 'SELECT 1'").expect("a superuser can");
    refused(world.admin.query_one("SELECT tenancy.install_compat('old')", &[]), "PT409", "function_exists");
    refused(world.admin.query_one("SELECT tenancy.install_compat('none')", &[]), "22023", "schema_not_found");
    refused(world.admin.query_one("SELECT tenancy.install_compat('pg_catalog')", &[]), "22023", "own_schema");
}
