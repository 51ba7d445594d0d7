//! Who may come to two pools locks them in the order of their ids, and keeps nothing while it waits out of that order.

use crate::common::Database;
use crate::race::{until, while_it_waits};
use crate::world::{World, assert_verified, detail, pooled, shown, world};
use postgres::Client;
use std::time::Duration;

/// A user, early, whose id is before that of the organization late; both have credits, and so has somebody else.
fn early_and_late() -> World<'static> {
    let mut world = world();
    for statement in [
        "SELECT tenancy.register_user('early'); SELECT tenancy.register_user('spender')",
        "SELECT pg_sleep(0.01)",
        "SELECT tenancy.register_organization('late', 'Late Ltd')",
    ] {
        shown(&mut world.admin, statement);
    }
    let order = "SELECT u.id < o.id FROM tenancy.users AS u, tenancy.organizations AS o
                  WHERE u.external_id = 'early' AND o.external_id = 'late'";
    assert_eq!(shown(&mut world.admin, order), "t");
    world.fund_user("early", "20");
    world.fund_user("spender", "20");
    world
}

fn consume(user: &str, org: Option<&str>, units: i32) -> String {
    let org = org.map_or("NULL".to_owned(), |org| format!("'{org}'"));
    format!("SELECT success, consumed_from FROM tenancy.consume_credits('{user}', {org}, 'cj_comparison', {units})")
}

/// The organization's figures say that it covers the cost, and what they hold has expired.
#[test]
fn consumption_from_a_pool_that_is_due_locks_in_the_order_of_ids() {
    let mut world = early_and_late();
    shown(
        &mut world.admin,
        "SELECT tenancy.grant_credits(10, org_id => 'late', expires_at => clock_timestamp() + interval '1 day');
         DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET tenancy.test_clock_offset = 172800', current_database()); END $$",
    );
    let mut other = world.service();
    shown(&mut other, &format!("BEGIN; {}", consume("early", None, 1)));
    let paid = while_it_waits(
        &world.database,
        world.service(),
        |waiter| shown(waiter, &consume("early", Some("late"), 5)),
        || {
            assert_eq!(shown(&mut other, &consume("spender", Some("late"), 1)), "t|user");
            shown(&mut other, "COMMIT");
        },
    );
    assert_eq!(paid, "t|user");
    assert_verified(&mut world.database.superuser());
}

/// Early wants five of late's credits while `holder` has late's row, and another session has early's and then comes to
/// late. `before` is done before the holder commits. What the other session and early get.
fn early_wants_five(world: &mut World, mut holder: Client, before: impl FnOnce()) -> (String, String) {
    let (mut other, mut waiter) = (world.service(), world.service());
    let pid = |client: &mut Client| shown(client, "SELECT pg_backend_pid()");
    let behind_other = format!("SELECT {} = ANY (pg_blocking_pids({}))", pid(&mut other), pid(&mut waiter));
    shown(&mut other, &format!("BEGIN; {}", consume("early", None, 1)));
    let mut got = String::new();
    let paid = while_it_waits(
        &world.database,
        waiter,
        |waiter| shown(waiter, &consume("early", Some("late"), 5)),
        || {
            before();
            shown(&mut holder, "COMMIT");
            until(&world.database, &behind_other);
            got = shown(&mut other, &consume("spender", Some("late"), 1));
            shown(&mut other, "COMMIT");
        },
    );
    assert_verified(&mut world.admin);
    (got, paid)
}

/// What the organization has expires while its row is waited for.
#[test]
fn consumption_keeps_no_row_of_a_pool_that_expires_meanwhile() {
    let mut world = early_and_late();
    shown(
        &mut world.admin,
        "SELECT tenancy.grant_credits(10, org_id => 'late', expires_at => clock_timestamp() + interval '5 s')",
    );
    let mut holder = world.service();
    shown(&mut holder, &format!("BEGIN; {}", consume("spender", Some("late"), 1)));
    let (got, paid) = early_wants_five(&mut world, holder, || std::thread::sleep(Duration::from_millis(5100)));
    assert_eq!((got.as_str(), paid.as_str()), ("t|user", "t|user"));
}

/// With a trigger on the table a statement changes the row, which locks it also where it then finds too little.
#[test]
fn consumption_keeps_no_row_where_a_statement_looks() {
    let mut world = early_and_late();
    shown(
        &mut world.admin,
        "CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
         CREATE TRIGGER nothing AFTER UPDATE ON tenancy.credit_pools FOR EACH ROW EXECUTE FUNCTION nothing()",
    );
    world.fund("late", "10");
    let mut holder = world.service();
    shown(&mut holder, &format!("BEGIN; {}", consume("spender", Some("late"), 8)));
    let (got, paid) = early_wants_five(&mut world, holder, || ());
    assert_eq!((got.as_str(), paid.as_str()), ("t|org", "t|user"));
}

/// An array of events may come to many pools: they are locked before, in the order in which batches lock.
#[test]
fn consumptions_of_an_array_of_events_lock_in_the_order_of_ids() {
    let mut world = world();
    for org in ["zz", "aa"] {
        shown(&mut world.admin, &format!("SELECT tenancy.register_organization('{org}', '{org}'), pg_sleep(0.01)"));
        world.fund(org, "10");
    }
    let mut other = world.service();
    shown(&mut other, &format!("BEGIN; {}", consume("bea", Some("zz"), 1)));
    let events = "SELECT string_agg(e.result ->> 'consumed_from', ',') FROM tenancy.consume_event((
        SELECT jsonb_agg(jsonb_build_object(
                   'event_id', gen_random_uuid(), 'event_type', 'huleedu.resource.consumption.v1',
                   'event_timestamp', '2025-08-31T12:05:10Z', 'source_service', 'a', 'correlation_id', gen_random_uuid(),
                   'data', jsonb_build_object('entity_id', gen_random_uuid(), 'entity_type', 'batch', 'user_id', 'bea',
                       'org_id', o.org, 'resource_type', 'cj_comparison', 'quantity', 1, 'service_name', 'a',
                       'processing_id', 'b', 'timestamp', '2025-08-31T12:05:10Z', 'consumed_at', '2025-08-31T12:05:10Z')))
          FROM unnest(ARRAY['aa', 'zz']) AS o (org))) AS e";
    let paid = while_it_waits(
        &world.database,
        world.service(),
        |consumer| shown(consumer, events),
        || {
            assert_eq!(shown(&mut other, &consume("bea", Some("aa"), 1)), "t|org");
            shown(&mut other, "COMMIT");
        },
    );
    assert_eq!(paid, "org,org");
    assert_verified(&mut world.admin);
}

/// A trigger that keeps the change back is told; the debit does not try for ever.
#[test]
fn a_debit_that_a_trigger_swallows_is_refused() {
    let mut world = world();
    world.fund("org_acme", "10");
    shown(
        &mut world.admin,
        "CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
         CREATE TRIGGER nothing BEFORE UPDATE ON tenancy.credit_pools FOR EACH ROW
             WHEN (new.balance < old.balance) EXECUTE FUNCTION nothing()",
    );
    let refused = pooled(&mut world.service(), "ada", "1", Some("org_acme")).unwrap_err();
    let refused = refused.as_db_error().unwrap();
    assert_eq!((refused.code().code(), detail(refused)["reason"].as_str()), ("XX000", Some("ledger_inconsistent")));
}

/// A session whose debit is refused, and goes on, keeps nobody from the pool.
#[test]
fn who_is_refused_keeps_no_turn() {
    let mut world = world();
    world.fund("org_acme", "10");
    let database = &world.database;
    let mut holder = world.service();
    shown(&mut holder, "BEGIN; SELECT tenancy.deduct_credits_pooled('ada', 1, 'org_acme')");
    while_it_waits(
        database,
        world.service(),
        |first| assert_eq!(pooled(first, "ada", "1", Some("org_acme")).ok(), Some(true)),
        || {
            while_it_waits(
                database,
                world.service(),
                |refused| {
                    shown(refused, "BEGIN");
                    assert_eq!(pooled(refused, "ada", "999999", Some("org_acme")).ok(), Some(false));
                    grant_without_waiting(database);
                },
                || drop(shown(&mut holder, "COMMIT")),
            );
        },
    );
}

/// Nor does a sweep that finds a row locked.
#[test]
fn a_sweep_keeps_no_turn_at_a_row_it_leaves_out() {
    let mut world = world();
    shown(
        &mut world.admin,
        "SELECT tenancy.grant_credits(1, org_id => 'org_acme', expires_at => clock_timestamp() + interval '4 s');
         SELECT pg_sleep(4.1); BEGIN; SELECT balance FROM tenancy.credit_pools FOR UPDATE",
    );
    let mut sweeper = world.operator();
    assert_eq!(shown(&mut sweeper, "BEGIN; SELECT tenancy.sweep_credits()"), "0");
    shown(&mut world.admin, "COMMIT");
    grant_without_waiting(&world.database);
}

fn grant_without_waiting(database: &Database) {
    shown(&mut database.superuser(), "SET lock_timeout = '5s'; SELECT tenancy.grant_credits(1, org_id => 'org_acme')");
}

/// The organization covered the cost when it was looked at, and not when its turn came: the turn is given back. It was
/// waited for in a queue, so that whoever comes next would wait for it.
#[test]
fn consumption_gives_the_turn_back_at_a_pool_that_does_not_pay_after_all() {
    let mut world = early_and_late();
    world.fund("late", "10");
    let (mut holder, mut other, mut waiter) = (world.service(), world.service(), world.service());
    let pid = |client: &mut Client| shown(client, "SELECT pg_backend_pid()");
    let behind_other = format!("SELECT {} = ANY (pg_blocking_pids({}))", pid(&mut other), pid(&mut waiter));
    shown(&mut holder, &format!("BEGIN; {}", consume("spender", Some("late"), 8)));
    let database = &world.database;
    let mut paid = String::new();
    let first = while_it_waits(
        database,
        world.service(),
        |first| shown(first, &consume("spender", Some("late"), 1)),
        || {
            paid = while_it_waits(
                database,
                waiter,
                |waiter| shown(waiter, &consume("early", Some("late"), 5)),
                || {
                    shown(&mut other, &format!("BEGIN; {}", consume("early", None, 1)));
                    shown(&mut holder, "COMMIT");
                    until(database, &behind_other);
                    assert_eq!(shown(&mut other, &consume("spender", Some("late"), 1)), "t|org");
                    shown(&mut other, "COMMIT");
                },
            );
        },
    );
    assert_eq!((first.as_str(), paid.as_str()), ("t|org", "t|user"));
    assert_eq!((world.available("late").as_str(), world.available_user("early").as_str()), ("0.000000", "14.000000"));
    assert_verified(&mut world.admin);
}
