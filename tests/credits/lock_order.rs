//! Who may come to two pools locks them in the order of their ids, and keeps nothing while it waits out of that order.

use crate::race::{until, while_it_waits};
use crate::world::{World, assert_verified, shown, world};

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

/// The organization covered the cost when it was looked at, and not when its turn came: the turn is given back. It was
/// waited for in a queue, so that whoever comes next would wait for it.
#[test]
fn consumption_gives_the_turn_back_at_a_pool_that_does_not_pay_after_all() {
    let mut world = early_and_late();
    world.fund("late", "10");
    let (mut holder, mut other, mut waiter) = (world.service(), world.service(), world.service());
    let pid = |client: &mut postgres::Client| shown(client, "SELECT pg_backend_pid()");
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
