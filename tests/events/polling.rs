//! poll_events and ack_events: order within an aggregate, leases, dead letters, late commits, trimming.

use crate::common::{in_parallel, refused};
use crate::world::{ORG, USER, one, school};
use postgres::Client;
use postgres::fallible_iterator::FallibleIterator;
use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};
use uuid::Uuid;

fn publish(service: &mut impl postgres::GenericClient, aggregate: &str) -> Uuid {
    let statement = "SELECT tenancy.publish_event('essay.graded.v1', jsonb_build_object('user_id', $1::text, 'org_id', $2::text), 'essay', $3)";
    service.query_one(statement, &[&USER, &ORG, &aggregate]).unwrap().get(0)
}

/// Aggregate and sequence of what a poll gives, with the ids.
fn poll(service: &mut Client, arguments: &str) -> Vec<(String, i64, Uuid)> {
    let statement = format!("SELECT aggregateid, sequence, event_id FROM tenancy.poll_events({arguments})");
    service.query(&statement, &[]).unwrap().iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect()
}

fn ack(service: &mut Client, ids: &[Uuid]) -> i32 {
    service.query_one("SELECT tenancy.ack_events('reader', $1)", &[&ids]).unwrap().get(0)
}

#[test]
fn events_come_in_order_once_and_not_while_they_are_leased() {
    let database = school();
    let (mut service, mut other) = (database.connect("svc"), database.connect("svc"));
    for aggregate in ["a", "b", "a", "a"] {
        publish(&mut service, aggregate);
    }
    let first = poll(&mut service, "'reader', 10");
    let of =
        |aggregate: &str| first.iter().filter(|event| event.0 == aggregate).map(|event| event.1).collect::<Vec<_>>();
    assert_eq!((of("a"), of("b")), (vec![1, 2, 3], vec![1]));
    publish(&mut service, "a");
    assert_eq!(poll(&mut other, "'reader', 10"), [], "an aggregate is one caller's at a time");
    let ids: Vec<Uuid> = first.iter().map(|event| event.2).collect();
    assert_eq!(ack(&mut service, &ids), 4);
    assert_eq!(ack(&mut service, &ids), 0);
    let rest = poll(&mut other, "'reader', 10");
    assert_eq!(rest.iter().map(|event| event.1).collect::<Vec<_>>(), [4]);
    // Another consumer has its own progress, from the beginning.
    assert_eq!(poll(&mut other, "'auditor'").len(), 5);
}

#[test]
fn a_lease_runs_out_and_the_order_stays() {
    let database = school();
    let mut service = database.connect("svc");
    for _ in 0..3 {
        publish(&mut service, "a");
    }
    let first = poll(&mut service, "'reader', 10, NULL, '3 s'");
    // The second one done, the first not: the first comes again, then the third.
    ack(&mut service, &[first[1].2]);
    assert_eq!(poll(&mut service, "'reader'"), []);
    std::thread::sleep(Duration::from_millis(3100));
    assert_eq!(poll(&mut service, "'reader'").iter().map(|event| event.1).collect::<Vec<_>>(), [1, 3]);
    // What was never handed out cannot be acknowledged.
    let unseen = publish(&mut service, "c");
    assert_eq!(ack(&mut service, &[unseen]), 0);
}

#[test]
fn what_is_never_acknowledged_becomes_a_dead_letter_and_the_rest_goes_on() {
    let database = school();
    let (mut service, mut superuser) = (database.connect("svc"), database.superuser());
    service.execute("SELECT tenancy.set_event_consumer('reader', NULL, '20 ms', 3)", &[]).unwrap();
    let poison = publish(&mut service, "a");
    publish(&mut service, "a");
    for _ in 0..3 {
        assert_eq!(poll(&mut service, "'reader', 1")[0].1, 1);
        std::thread::sleep(Duration::from_millis(40));
    }
    assert_eq!(poll(&mut service, "'reader', 1"), []);
    assert_eq!(poll(&mut service, "'reader', 1")[0].1, 2);
    assert_eq!(one::<i32>(&mut superuser, "SELECT attempts FROM tenancy.event_dead_letters"), 3);
    std::thread::sleep(Duration::from_millis(40));
    service.query_one("SELECT tenancy.requeue_event('reader', $1)", &[&poison]).unwrap();
    assert_eq!(poll(&mut service, "'reader'").iter().map(|event| event.1).collect::<Vec<_>>(), [1, 2]);
}

/// Transactions that commit late, in another order than they began, are not passed over.
#[test]
fn late_commits_are_not_passed_over() {
    let database = school();
    let (mut early, mut late, mut service) =
        (database.connect("svc"), database.connect("svc"), database.connect("svc"));
    poll(&mut service, "'reader'");
    let mut open = early.transaction().unwrap();
    publish(&mut open, "early");
    publish(&mut late, "late");
    let first = poll(&mut service, "'reader'");
    assert_eq!(first.iter().map(|event| event.0.as_str()).collect::<Vec<_>>(), ["late"]);
    ack(&mut service, &[first[0].2]);
    open.commit().unwrap();
    let second = poll(&mut service, "'reader'");
    assert_eq!(second.iter().map(|event| event.0.as_str()).collect::<Vec<_>>(), ["early"]);
}

/// A publisher that holds an aggregate makes the next one wait, so sequences become visible in order.
#[test]
fn publishers_of_an_aggregate_wait_for_each_other() {
    let database = school();
    let (mut first, mut second) = (database.connect("svc"), database.connect("svc"));
    let mut open = first.transaction().unwrap();
    publish(&mut open, "a");
    second.batch_execute("SET lock_timeout = '200 ms'").unwrap();
    let statement = "SELECT tenancy.publish_event('x', '{\"user_id\": \"larare-0017\", \"org_id\": \"skola-malmo-01\"}', 'essay', 'a')";
    crate::common::fails_with(second.query(statement, &[]), "55P03");
    open.commit().unwrap();
    second.query(statement, &[]).unwrap();
}

/// A consumer made while a publisher's transaction is open, even one with an old snapshot, misses nothing.
#[test]
fn a_new_consumer_misses_nothing() {
    let database = school();
    let (mut repeatable, mut open, mut service) =
        (database.connect("svc"), database.connect("svc"), database.connect("svc"));
    publish(&mut service, "before");
    let mut old =
        repeatable.build_transaction().isolation_level(postgres::IsolationLevel::RepeatableRead).start().unwrap();
    old.query_one("SELECT count(*) FROM tenancy.comparison_count(3)", &[]).unwrap();
    let mut held = open.transaction().unwrap();
    publish(&mut held, "held");
    std::thread::scope(|scope| {
        let made = scope.spawn(|| service.execute("SELECT tenancy.set_event_consumer('reader')", &[]).unwrap());
        std::thread::sleep(Duration::from_millis(300));
        assert!(!made.is_finished(), "it waits for the open publisher");
        held.commit().unwrap();
        made.join().unwrap();
    });
    publish(&mut old, "old");
    old.commit().unwrap();
    let mut seen: Vec<String> =
        poll(&mut database.connect("svc"), "'reader'").into_iter().map(|event| event.0).collect();
    seen.sort();
    assert_eq!(seen, ["before", "held", "old"]);
}

#[test]
fn topics_are_the_consumers_and_can_change() {
    let database = school();
    let (mut service, mut superuser) = (database.connect("svc"), database.superuser());
    let publish = |service: &mut Client, topic: &str| {
        service.query_one("SELECT tenancy.publish_event($1, '{\"user_id\": \"u\"}', 'x', 'y')", &[&topic]).unwrap();
    };
    publish(&mut service, "one");
    publish(&mut service, "two");
    assert_eq!(poll(&mut service, "'reader', 10, ARRAY['one']").len(), 1);
    publish(&mut service, "two");
    assert_eq!(one::<i64>(&mut superuser, "SELECT count(*) FROM tenancy.event_deliveries"), 1);
    // With the second topic come its events that are still there.
    service.execute("SELECT tenancy.set_event_consumer('reader', ARRAY['one', 'two'])", &[]).unwrap();
    assert_eq!(one::<i64>(&mut superuser, "SELECT count(*) FROM tenancy.event_deliveries"), 3);
    service.execute("SELECT tenancy.set_event_consumer('reader', ARRAY['two'])", &[]).unwrap();
    assert_eq!(one::<i64>(&mut superuser, "SELECT count(*) FROM tenancy.event_deliveries"), 2);
    service.execute("SELECT tenancy.drop_event_consumer('reader')", &[]).unwrap();
    assert_eq!(one::<i64>(&mut superuser, "SELECT count(*) FROM tenancy.event_deliveries"), 0);
    refused(service.query("SELECT * FROM tenancy.poll_events('')", &[]), "22023", "invalid_argument");
    refused(service.query("SELECT * FROM tenancy.poll_events('r', 0)", &[]), "22023", "invalid_argument");
}

/// Many publishers and pollers at once: every event arrives, and in order within its aggregate.
#[test]
fn order_holds_with_many_publishers_and_pollers() {
    const PUBLISHERS: usize = 4;
    const EACH: usize = 40;
    let database = school();
    poll(&mut database.connect("svc"), "'reader'");
    let seen: Mutex<HashMap<String, Vec<i64>>> = Mutex::default();
    let count = || seen.lock().unwrap().values().map(Vec::len).sum::<usize>();
    in_parallel(PUBLISHERS + 4, |index| {
        let mut service = database.connect("svc");
        if index < PUBLISHERS {
            for number in 0..EACH {
                let mut transaction = service.transaction().unwrap();
                publish(&mut transaction, &format!("aggregate-{}", (index * 7 + number) % 5));
                if number % 4 == 3 { transaction.rollback().unwrap() } else { transaction.commit().unwrap() }
            }
            return;
        }
        let end = Instant::now() + Duration::from_secs(60);
        while count() < PUBLISHERS * EACH * 3 / 4 {
            assert!(Instant::now() < end, "only {} events came", count());
            let events = poll(&mut service, "'reader', 7, NULL, '1 minute'");
            let ids: Vec<Uuid> = events.iter().map(|event| event.2).collect();
            for (aggregate, sequence, _) in events {
                seen.lock().unwrap().entry(aggregate).or_default().push(sequence);
            }
            ack(&mut service, &ids);
        }
    });
    for (aggregate, sequences) in seen.into_inner().unwrap() {
        let expected: Vec<i64> = (1..=sequences.len() as i64).collect();
        assert_eq!(sequences, expected, "{aggregate}");
    }
}

#[test]
fn a_commit_wakes_who_listens() {
    let database = school();
    let (mut service, mut listener) = (database.connect("svc"), database.connect("svc"));
    poll(&mut service, "'reader'");
    listener.batch_execute("LISTEN tenancy_events").unwrap();
    publish(&mut service, "a");
    let woken = listener.notifications().timeout_iter(Duration::from_secs(10)).next().unwrap().expect("a notification");
    assert_eq!((woken.channel(), woken.payload()), ("tenancy_events", "reader"));
}

#[test]
fn the_outbox_is_trimmed_of_what_nobody_waits_for() {
    let database = school();
    let (mut service, mut superuser) = (database.connect("svc"), database.superuser());
    poll(&mut service, "'reader'");
    for aggregate in ["a", "b", "c"] {
        publish(&mut service, aggregate);
    }
    let events = poll(&mut service, "'reader'");
    ack(&mut service, &[events[0].2]);
    let trim = |service: &mut Client, arguments: &str| {
        one::<i32>(service, &format!("SELECT tenancy.trim_events({arguments})"))
    };
    assert_eq!(trim(&mut service, ""), 0, "nothing is old");
    assert_eq!(trim(&mut service, "retain => '0'"), 1, "two are pending");
    assert_eq!(trim(&mut service, "retain => '0', give_up_after => '0', max_rows => 1"), 1);
    assert_eq!(trim(&mut service, "retain => '0', give_up_after => '0'"), 1);
    assert_eq!(
        one::<i64>(
            &mut superuser,
            "SELECT (SELECT count(*) FROM tenancy.event_outbox) + (SELECT count(*) FROM tenancy.event_deliveries)"
        ),
        0
    );
    publish(&mut service, "a");
    assert_eq!(
        one::<i64>(&mut superuser, "SELECT sequence FROM tenancy.event_outbox"),
        2,
        "a sequence is never used twice"
    );
    refused(service.query("SELECT tenancy.trim_events('1 day', '1 hour')", &[]), "22023", "invalid_argument");
}

/// Rows are written once: whoever reads the log never sees an UPDATE.
#[test]
fn nobody_changes_a_row_of_the_outbox() {
    let database = school();
    let mut service = database.connect("svc");
    publish(&mut service, "a");
    for role in ["app", "svc", "ops"] {
        let mut client = database.connect(role);
        for statement in [
            "UPDATE tenancy.event_outbox SET type = 'x'",
            "DELETE FROM tenancy.event_outbox",
            "TRUNCATE tenancy.event_outbox",
        ] {
            crate::common::fails_with(client.execute(statement, &[]), "42501");
        }
    }
}
