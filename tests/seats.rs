//! Subscriptions and seats: given, ended, counted, raced for; and the attribution that stands on them.

mod common;

use common::{Database, cluster, in_parallel, refused};
use postgres::{Client, Error, Row};

fn installed() -> Database<'static> {
    let database = cluster().empty_database();
    database.superuser().batch_execute("CREATE EXTENSION pg_tenancy; SELECT tenancy.install()").unwrap();
    database
}

fn row(client: &mut Client, statement: &str) -> Result<Row, Error> {
    client.query_one(statement, &[])
}

fn truth(client: &mut Client, statement: &str) -> bool {
    row(client, statement).unwrap().get(0)
}

#[test]
fn seats_are_given_ended_and_counted() {
    let database = installed();
    let mut client = database.superuser();
    client
        .batch_execute(
            "SELECT tenancy.register_user('u' || i) FROM generate_series(1, 5) AS i;
             SELECT tenancy.register_organization('o1', 'One')",
        )
        .unwrap();
    let none = refused(row(&mut client, "SELECT tenancy.assign_seat('o1', 'u1')"), "PT402", "no_active_subscription");
    assert_eq!(none.message(), "Active organization subscription not found");
    row(&mut client, "SELECT tenancy.set_subscription('o1', 'teams', 'canceled', 2)").unwrap();
    refused(row(&mut client, "SELECT tenancy.assign_seat('o1', 'u1')"), "PT402", "no_active_subscription");
    row(&mut client, "SELECT tenancy.set_subscription('o1', 'teams', 'active', 2)").unwrap();

    row(&mut client, "SELECT tenancy.assign_seat('o1', 'u1', 'admin')").unwrap();
    refused(row(&mut client, "SELECT tenancy.assign_seat('o1', 'u1')"), "PT409", "seat_exists");
    row(&mut client, "SELECT tenancy.assign_seat('o1', 'u2', expires_at => clock_timestamp() + '3 s')").unwrap();
    refused(row(&mut client, "SELECT tenancy.assign_seat('o1', 'u3')"), "PT402", "no_seat_left");
    refused(row(&mut client, "SELECT tenancy.set_subscription('o1', 'teams', 'active', 1)"), "PT409", "seats_in_use");
    std::thread::sleep(std::time::Duration::from_millis(3100));
    // u2's seat has lapsed: it is no seat, and somebody else may have it.
    assert!(!truth(&mut client, "SELECT tenancy.revoke_seat('o1', 'u2')"));
    row(&mut client, "SELECT tenancy.assign_seat('o1', 'u3')").unwrap();
    assert!(truth(&mut client, "SELECT tenancy.revoke_seat('o1', 'u1', 'left')"));
    assert!(!truth(&mut client, "SELECT tenancy.revoke_seat('o1', 'u1', 'left')"));
    // A seat that has ended does not stand in the way of a new one.
    row(&mut client, "SELECT tenancy.assign_seat('o1', 'u1')").unwrap();

    let seats: String = row(
        &mut client,
        "SELECT string_agg(format('%s %s %s', u.external_id, s.status, s.revoked_reason), ', ' ORDER BY s.id)
           FROM tenancy.organization_seats s JOIN tenancy.users u ON u.id = s.user_id",
    )
    .unwrap()
    .get(0);
    assert_eq!(seats, "u1 revoked left, u2 expired , u3 active , u1 active ");
    let used = "SELECT seats_used FROM tenancy.organization_subscriptions";
    assert_eq!(row(&mut client, used).unwrap().get::<_, i32>(0), 2);
}

#[test]
fn sixteen_sessions_race_for_five_seats() {
    for isolation in ["READ COMMITTED", "REPEATABLE READ"] {
        let database = installed();
        database
            .superuser()
            .batch_execute(
                "SELECT tenancy.register_user('u' || i) FROM generate_series(0, 15) AS i;
                 SELECT tenancy.register_organization('o1', 'One');
                 SELECT tenancy.set_subscription('o1', 'teams', 'active', 5)",
            )
            .unwrap();
        let outcomes = in_parallel(16, |index| {
            let mut client = database.superuser();
            let begin = format!("SET default_transaction_isolation = '{isolation}'");
            client.batch_execute(&begin).unwrap();
            let statement = format!("SELECT tenancy.assign_seat('o1', 'u{index}')");
            loop {
                match client.execute(&statement, &[]) {
                    Ok(_) => return true,
                    // A stale snapshot is a serialization failure, never a sixth seat.
                    Err(error) if error.code().map(|code| code.code()) == Some("40001") => {}
                    Err(error) => {
                        refused(Err::<u64, _>(error), "PT402", "no_seat_left");
                        return false;
                    }
                }
            }
        });
        assert_eq!(outcomes.iter().filter(|given| **given).count(), 5, "{isolation}");
        let counts = row(
            &mut database.superuser(),
            "SELECT (SELECT count(*) FROM tenancy.organization_seats WHERE status = 'active'), seats_used
               FROM tenancy.organization_subscriptions",
        )
        .unwrap();
        assert_eq!((counts.get::<_, i64>(0), counts.get::<_, i32>(1)), (5, 5), "{isolation}");
    }
}

#[test]
fn a_member_who_leaves_loses_the_seat() {
    let database = installed();
    let mut client = database.superuser();
    client
        .batch_execute(
            "SELECT tenancy.register_user('u1'), tenancy.register_user('u2'); SELECT tenancy.register_organization('o1', 'One');
             SELECT tenancy.set_subscription('o1', 'teams', 'active', 2);
             SELECT tenancy.assign_seat('o1', 'u1'), tenancy.assign_seat('o1', 'u2')",
        )
        .unwrap();
    assert!(truth(&mut client, "SELECT tenancy.set_membership('u1', 'o1', 'org:member')"));
    assert!(!truth(&mut client, "SELECT tenancy.set_membership('u1', 'o1', 'org:member')"));
    assert!(truth(&mut client, "SELECT tenancy.set_membership('u1', 'o1', 'org:admin')"));
    assert!(truth(&mut client, "SELECT tenancy.remove_membership('u1', 'o1')"));
    assert!(!truth(&mut client, "SELECT tenancy.remove_membership('u1', 'o1')"));
    // u2 has a seat without a membership; there is nothing to remove, and the seat stays.
    assert!(!truth(&mut client, "SELECT tenancy.remove_membership('u2', 'o1')"));
    let seats = "SELECT array_agg(status ORDER BY id), (SELECT seats_used FROM tenancy.organization_subscriptions)
                   FROM tenancy.organization_seats";
    let seats = row(&mut client, seats).unwrap();
    assert_eq!(seats.get::<_, Vec<String>>(0), ["revoked", "active"]);
    assert_eq!(seats.get::<_, i32>(1), 1);
}

#[test]
fn attribution_needs_membership_a_live_seat_and_a_subscription_that_pays() {
    let database = installed();
    let mut client = database.superuser();
    client
        .batch_execute(
            "SELECT tenancy.register_user('u1'); SELECT tenancy.register_organization('o1', 'One', stripe_customer_id => 'cus_1');
             SELECT tenancy.set_subscription('o1', 'teams', 'active', 2)",
        )
        .unwrap();
    let personal = "SELECT tenancy.resolve_org_attribution('u1', 'o1') IS NULL";
    assert!(truth(&mut client, personal), "neither member nor seat");
    row(&mut client, "SELECT tenancy.assign_seat('o1', 'u1', 'billing_manager')").unwrap();
    assert!(truth(&mut client, personal), "a seat, no membership");
    assert!(client.query("SELECT * FROM tenancy.resolve_org_membership('u1', 'o1')", &[]).unwrap().is_empty());
    row(&mut client, "SELECT tenancy.set_membership('u1', 'o1', 'org:admin')").unwrap();

    let fields = row(
        &mut client,
        "SELECT a ->> 'pool', a ->> 'clerk_org_id', a ->> 'organization_name', a ->> 'stripe_customer_id', a ->> 'seat_role',
                a ->> 'org_role', (SELECT count(*) FROM jsonb_object_keys(a)),
                a ->> 'organization_id' = o.id::text AND a ->> 'organization_subscription_id' = s.id::text
                    AND a ->> 'seat_id' = seat.id::text
           FROM tenancy.resolve_org_attribution('u1', 'o1') AS a, tenancy.organizations o,
                tenancy.organization_subscriptions s, tenancy.organization_seats seat",
    )
    .unwrap();
    let text: Vec<&str> = (0..6).map(|index| fields.get(index)).collect();
    assert_eq!(text, ["organization", "o1", "One", "cus_1", "billing_manager", "org:admin"]);
    assert_eq!(fields.get::<_, i64>(6), 9);
    assert!(fields.get::<_, bool>(7));

    let member =
        |claims: &str| format!("SELECT org_role, source FROM tenancy.resolve_org_membership('u1', 'o1', {claims})");
    for (claims, role, source) in [
        ("NULL", "org:admin", "directory"),
        ("'{}'", "org:admin", "directory"),
        (r#"'{"organizations": {"o1": {"role": " org:owner "}}}'"#, "org:owner", "claims"),
        (r#"'{"organizations": {"o1": {}}}'"#, "org:member", "claims"),
        (r#"'{"organizations": {"o1": {"role": 7}}}'"#, "org:member", "claims"),
        (r#"'{"organizations": {"o1": "org:owner"}}'"#, "org:admin", "directory"),
        (r#"'{"organizations": {"o2": {"role": "org:owner"}}}'"#, "org:admin", "directory"),
        (r#"'{"organizations": ["o1"]}'"#, "org:admin", "directory"),
    ] {
        let found = row(&mut client, &member(claims)).unwrap();
        assert_eq!((found.get(0), found.get(1)), (role, source), "{claims}");
    }

    row(&mut client, "SELECT tenancy.set_subscription('o1', 'teams', 'past_due', 2)").unwrap();
    assert!(truth(&mut client, personal), "the subscription does not pay");
    row(&mut client, "SELECT tenancy.set_subscription('o1', 'teams', 'trialing', 2)").unwrap();
    assert!(!truth(&mut client, personal));
    row(&mut client, "SELECT tenancy.revoke_seat('o1', 'u1')").unwrap();
    assert!(truth(&mut client, personal), "the seat is revoked");
}
