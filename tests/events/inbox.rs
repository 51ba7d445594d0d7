//! consume_event: what is taken, what is rejected, and that it answers instead of raising.

use crate::common::{Token, refused};
use crate::world::{ORG, USER, available, consume, consumption, one, published, school};
use serde_json::{Value, json};
use uuid::Uuid;

const ID: &str = "a3b1c2d4-0003-4f00-8abc-000000000003";

#[test]
fn an_event_counts_once_and_its_id_is_not_used_again() {
    let database = school();
    let (mut service, mut superuser) = (database.connect("svc"), database.superuser());
    assert_eq!(consume(&mut service, &consumption(ID, 3)).0, "processed");
    let mut redelivered = consumption(ID, 3);
    redelivered["event_timestamp"] = json!("2025-08-31T14:05:10.5+02:00");
    redelivered["source_service"] = json!("another");
    assert_eq!(consume(&mut service, &redelivered).0, "duplicate");
    let (status, result) = consume(&mut service, &consumption(ID, 4));
    assert_eq!((status.as_str(), &result["reason"]), ("rejected", &json!("event_id_reused")));
    assert_eq!(available(&mut superuser), 497);
    // The same id in another tenant is another event.
    let mut elsewhere = consumption(ID, 3);
    elsewhere["data"]["org_id"] = json!("globex");
    assert_ne!(consume(&mut service, &elsewhere).0, "duplicate");
    // Without an id, the same body is the same event.
    let mut nameless = consumption(ID, 1);
    nameless.as_object_mut().unwrap().remove("event_id");
    assert_eq!(consume(&mut service, &nameless).0, "processed");
    assert_eq!(consume(&mut service, &nameless).0, "duplicate");
    assert_eq!(available(&mut superuser), 496);
}

#[test]
fn a_denial_is_an_answer() {
    let database = school();
    let (mut service, mut superuser) = (database.connect("svc"), database.superuser());
    let (status, result) = consume(&mut service, &consumption(ID, 501));
    assert_eq!((status.as_str(), &result["success"]), ("processed", &json!(false)));
    let mut unknown = consumption("a3b1c2d4-0003-4f00-8abc-000000000004", 1);
    unknown["data"]["quantity"] = json!(3_000_000_000i64);
    let (status, result) = consume(&mut service, &unknown);
    assert_eq!((status.as_str(), &result["success"]), ("processed", &json!(false)));
    assert_eq!(available(&mut superuser), 500);
    assert_eq!(published(&mut superuser, "huleedu.entitlements.credit.balance.changed.v1").len(), 0);
    let kept: Value = one(
        &mut superuser,
        "SELECT result FROM tenancy.event_inbox WHERE event_id = 'a3b1c2d4-0003-4f00-8abc-000000000003'",
    );
    assert_eq!(kept["success"], false);
    assert_eq!(consume(&mut service, &consumption(ID, 501)).0, "duplicate");
}

#[test]
fn what_cannot_be_read_is_rejected_recorded_and_blocks_nothing() {
    let database = school();
    let (mut service, mut superuser) = (database.connect("svc"), database.superuser());
    let mut broken = consumption(ID, 3);
    broken["data"]["quantity"] = json!("many");
    let mut nobody = consumption(ID, 3);
    nobody["data"]["user_id"] = json!("");
    let mut unknown = consumption(ID, 3);
    unknown["event_type"] = json!("something.else.v1");
    let mut reserved = consumption(ID, 3);
    reserved["data"]["user_id"] = json!("a::b");
    let mut elsewhere = consumption(ID, 3);
    elsewhere["metadata"] = json!({"namespace": 5});
    let mut registered = consumption(ID, 3);
    registered["event_type"] = json!("huleedu.batch.essays.registered.v1");
    registered["data"] = json!({"entity_id": "no uuid", "expected_essay_count": 1, "essay_ids": ["e"], "course_code": "SV1",
        "user_id": USER, "metadata": {"entity_id": "x", "entity_type": "batch"}});
    for (envelope, reason) in [
        (json!(null), "invalid_envelope"),
        (json!("x"), "invalid_envelope"),
        (json!({}), "invalid_envelope"),
        (broken, "invalid_data"),
        (nobody, "no_identity"),
        (unknown, "unsupported_event_type"),
        (reserved, "reserved_id"),
        (elsewhere, "invalid_argument"),
    ] {
        for _ in 0..2 {
            let (status, result) = consume(&mut service, &envelope);
            assert_eq!((status.as_str(), &result["reason"]), ("rejected", &json!(reason)), "{envelope}");
        }
    }
    let (status, result) = consume(&mut service, &registered);
    assert_eq!((status.as_str(), &result["success"]), ("processed", &json!(false)));
    let rejected: i64 = one(&mut superuser, "SELECT count(*) FROM tenancy.event_inbox WHERE status = 'rejected'");
    assert_eq!(rejected, 8, "each is recorded once");
    // The mended event with the id that was rejected.
    let mended = consumption("a3b1c2d4-0003-4f00-8abc-000000000009", 3);
    assert_eq!(consume(&mut service, &mended).0, "processed");
    for deep in [format!("{}1{}", "[".repeat(500), "]".repeat(500)), "{\"data\": 1e400}".to_owned()] {
        let row = service
            .query_one("SELECT status FROM tenancy.consume_event(jsonb_build_object('x', $1::text::jsonb))", &[&deep])
            .unwrap();
        assert_eq!(row.get::<_, &str>(0), "rejected");
    }
}

/// Each event is taken in a subtransaction; nothing of that shows.
#[test]
fn nothing_is_said_beside_the_answers() {
    let database = school();
    let (mut service, notices) = database.connect_with_notices("svc");
    for number in 1..4u128 {
        let id = |half: u128| uuid::Uuid::from_u128(number * 2 + half).to_string();
        let envelopes = json!([consumption(&id(0), 1), consumption(&id(1), 2)]);
        let rows = service.query("SELECT status FROM tenancy.consume_event($1)", &[&envelopes]).unwrap();
        assert!(rows.iter().all(|row| row.get::<_, &str>(0) == "processed"));
    }
    let said: Vec<String> = notices.lock().unwrap().iter().map(|notice| notice.message().to_owned()).collect();
    assert_eq!(said, [""; 0]);
}

#[test]
fn an_array_is_answered_in_order() {
    let database = school();
    let (mut service, mut superuser) = (database.connect("svc"), database.superuser());
    let envelopes = json!([
        consumption("00000000-0000-4000-8000-000000000003", 1),
        {"broken": true},
        consumption("00000000-0000-4000-8000-000000000001", 2),
        consumption("00000000-0000-4000-8000-000000000003", 1),
        consumption("00000000-0000-4000-8000-000000000002", 3),
    ]);
    let rows = service.query("SELECT status, event_id::text FROM tenancy.consume_event($1)", &[&envelopes]).unwrap();
    let answers: Vec<(String, Option<String>)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    assert_eq!(
        answers.iter().map(|answer| answer.0.as_str()).collect::<Vec<_>>(),
        ["processed", "rejected", "processed", "duplicate", "processed"]
    );
    assert_eq!(answers[0].1, answers[3].1);
    assert_eq!(available(&mut superuser), 494);
    assert_eq!(service.query("SELECT * FROM tenancy.consume_event('[]')", &[]).unwrap().len(), 0);
}

/// After trimming, an event that may have been taken before is rejected, never charged a second time.
#[test]
fn a_redelivery_after_the_window_is_rejected() {
    let database = school();
    let (mut service, mut superuser) = (database.connect("svc"), database.superuser());
    assert_eq!(consume(&mut service, &consumption(ID, 3)).0, "processed");
    assert_eq!(
        one::<i32>(&mut service, "SELECT tenancy.trim_inbox()"),
        0,
        "the window counts from the receipt, not from an old event time"
    );
    assert_eq!(consume(&mut service, &consumption(ID, 3)).0, "duplicate");
    assert_eq!(one::<i32>(&mut service, "SELECT tenancy.trim_inbox('0')"), 1);
    let (status, result) = consume(&mut service, &consumption(ID, 3));
    assert_eq!((status.as_str(), &result["reason"]), ("rejected", &json!("outside_dedup_window")));
    assert_eq!(consume(&mut service, &consumption(ID, 3)).0, "rejected");
    assert_eq!(available(&mut superuser), 497);
    let mut timeless = consumption("a3b1c2d4-0003-4f00-8abc-00000000000a", 1);
    timeless.as_object_mut().unwrap().remove("event_timestamp");
    assert_eq!(consume(&mut service, &timeless).1["reason"], "outside_dedup_window");
    // What happened since is taken.
    let mut fresh = consumption("a3b1c2d4-0003-4f00-8abc-00000000000b", 1);
    fresh["event_timestamp"] = one::<Value>(&mut superuser, "SELECT to_jsonb(clock_timestamp())");
    assert_eq!(consume(&mut service, &fresh).0, "processed");
}

/// Two consumers with one event: the second waits for the first, and takes over when the first fails.
#[test]
fn a_second_consumer_waits_for_the_first_one_s_end() {
    let database = school();
    let (mut first, mut second, mut superuser) =
        (database.connect("svc"), database.connect("svc"), database.superuser());
    for commits in [true, false] {
        let id = if commits { ID } else { "a3b1c2d4-0003-4f00-8abc-00000000000c" };
        let statement = "SELECT status FROM tenancy.consume_event($1)";
        let mut open = first.transaction().unwrap();
        open.query_one(statement, &[&consumption(id, 1)]).unwrap();
        std::thread::scope(|scope| {
            let waiting =
                scope.spawn(|| second.query_one(statement, &[&consumption(id, 1)]).unwrap().get::<_, String>(0));
            std::thread::sleep(std::time::Duration::from_millis(300));
            assert!(!waiting.is_finished());
            if commits {
                open.commit().unwrap()
            } else {
                open.rollback().unwrap()
            }
            assert_eq!(waiting.join().unwrap(), if commits { "duplicate" } else { "processed" });
        });
    }
    assert_eq!(available(&mut superuser), 498);
}

#[test]
fn events_are_consumed_by_services_without_an_identity() {
    let database = school();
    let (mut app, mut service) = (database.connect("app"), database.connect("svc"));
    crate::common::fails_with(app.query("SELECT tenancy.consume_event($1)", &[&consumption(ID, 1)]), "42501");
    let mut transaction = service.transaction().unwrap();
    transaction.execute("SELECT tenancy.authenticate($1)", &[&Token::for_member(USER, ORG).sign()]).unwrap();
    refused(
        transaction.query("SELECT * FROM tenancy.consume_event($1)", &[&consumption(ID, 1)]),
        "PT403",
        "identity_in_force",
    );
}

/// Ids become keys: what none can be is rejected when it is read, and the other events of the call are taken.
#[test]
fn an_id_that_is_none_is_rejected_and_the_rest_of_the_array_is_taken() {
    let database = school();
    let (mut service, mut superuser) = (database.connect("svc"), database.superuser());
    // Longer than an index takes, and nothing that could be compressed.
    let huge: String = (0..400).map(|number: u128| Uuid::from_u128(number.pow(9)).simple().to_string()).collect();
    let at = |event_type: &str, pointer: &str, id: &Value| {
        let mut event = consumption(&Uuid::now_v7().to_string(), 1);
        event["event_type"] = json!(event_type);
        if event_type != "huleedu.resource.consumption.v1" {
            let batch = Uuid::now_v7();
            event["data"] = json!({
                "entity_id": batch, "batch_id": batch, "requested_pipeline": "x", "expected_essay_count": 1,
                "essay_ids": ["e-1"], "metadata": {"entity_id": batch, "entity_type": "batch"}, "course_code": "ENG5",
                "user_id": USER, "org_id": ORG
            });
            event["metadata"] = json!({"org_id": ORG});
        }
        *event.pointer_mut(pointer).unwrap() = id.clone();
        event
    };
    let consumed = "huleedu.resource.consumption.v1";
    let registered = "huleedu.batch.essays.registered.v1";
    let asked = "huleedu.commands.batch.pipeline.v1";
    let mut events = Vec::new();
    for id in [json!(huge), json!("ä".repeat(256)), json!("   "), json!("\u{85}x"), json!("a\nb")] {
        events.extend([
            at(consumed, "/data/user_id", &id),
            at(consumed, "/data/org_id", &id),
            at(registered, "/data/user_id", &id),
            at(registered, "/data/org_id", &id),
            at(registered, "/data/essay_ids/0", &id),
            at(asked, "/metadata/org_id", &id),
        ]);
    }
    let bad = events.len();
    events.extend([
        at(consumed, "/data/org_id", &json!("")),
        at(consumed, "/data/entity_id", &json!("")),
        at(registered, "/data/org_id", &json!("")),
        at(registered, "/data/essay_ids/0", &json!("ä".repeat(255))),
    ]);
    let rows = service
        .query("SELECT status, result ->> 'reason' FROM tenancy.consume_event($1)", &[&json!(events)])
        .expect("an answer for each");
    for (row, event) in rows.iter().zip(&events[..bad]) {
        assert_eq!((row.get(0), row.get(1)), ("rejected", Some("invalid_data")), "{}", event["data"]);
    }
    for row in &rows[bad..] {
        assert_eq!((row.get(0), row.get(1)), ("processed", None::<&str>));
    }
    let kept =
        "SELECT count(*) FROM tenancy.event_inbox WHERE status = 'rejected' AND result ->> 'reason' = 'invalid_data'";
    assert_eq!(one::<i64>(&mut superuser, kept), bad as i64);
}

/// Contract H: empty texts are valid, and a metric that nobody prices is free.
#[test]
fn a_consumption_of_nothing_in_particular_is_free() {
    let database = school();
    let (mut service, mut superuser) = (database.connect("svc"), database.superuser());
    for (number, metric) in ["", " ", "unheard of"].into_iter().enumerate() {
        let mut event = consumption(&Uuid::from_u128(number as u128 + 1).to_string(), 3);
        event["data"]["resource_type"] = json!(metric);
        let (status, result) = consume(&mut service, &event);
        assert_eq!((status.as_str(), &result["success"]), ("processed", &json!(true)), "{metric}: {result}");
        assert_eq!(result["consumed_from"], "none");
    }
    let kept = "SELECT string_agg(metric || amount, ',' ORDER BY id) FROM tenancy.credit_operations";
    assert_eq!(one::<String>(&mut superuser, kept), "3, 3,unheard of3");
    assert_eq!(available(&mut superuser), 500);
    // Whoever calls the function names a metric.
    refused(
        service.query(&format!("SELECT tenancy.consume_credits('{USER}', '{ORG}', '', 1)"), &[]),
        "22023",
        "invalid_argument",
    );
}
