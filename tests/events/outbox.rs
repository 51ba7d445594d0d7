//! publish_event: whose name stands in an event, and what is never published.

use crate::common::refused;
use crate::world::{ORG, USER, as_teacher, one, school};
use serde_json::{Value, json};

const PUBLISH: &str = "SELECT tenancy.publish_event($1, $2, 'essay', 'e-1', $3)";

#[test]
fn an_event_carries_the_identity_it_is_attributed_to() {
    let database = school();
    let (mut app, mut superuser) = (database.connect("app"), database.superuser());
    let correlation = as_teacher(&mut app, |teacher| {
        teacher.query_one(PUBLISH, &[&"essay.graded.v1", &json!({"grade": "A"}), &None::<Value>]).unwrap();
        teacher.query_one("SELECT tenancy.correlation_id()", &[]).unwrap().get::<_, String>(0)
    });
    let row = superuser
        .query_one(
            "SELECT tenant_id, payload, id::text, sequence, aggregatetype, aggregateid FROM tenancy.event_outbox",
            &[],
        )
        .unwrap();
    let payload: Value = row.get(1);
    assert_eq!(row.get::<_, &str>(0), ORG);
    assert_eq!(payload["metadata"], json!({"user_id": USER, "org_id": ORG}));
    assert_eq!(payload["event_id"], row.get::<_, &str>(2));
    assert_eq!(payload["correlation_id"], correlation);
    let valid: bool = superuser.query_one("SELECT valid FROM tenancy.validate_event($1)", &[&payload]).unwrap().get(0);
    assert!(valid, "what is published can be consumed");
    let view = "SELECT aggregate_type || aggregate_id || event_type || topic || event_key FROM tenancy.outbox_messages";
    assert_eq!(one::<String>(&mut superuser, view), "essaye-1essay.graded.v1essay.graded.v1e-1");
}

#[test]
fn nobody_is_named_but_who_is_authenticated() {
    let database = school();
    let mut app = database.connect("app");
    refused(app.query(PUBLISH, &[&"x", &json!({}), &None::<Value>]), "PT401", "not_authenticated");
    refused(app.query(PUBLISH, &[&"x", &json!({"user_id": USER}), &None::<Value>]), "PT401", "not_authenticated");
    for (data, metadata) in [
        (json!({"user_id": "other"}), None),
        (json!({"org_id": "other"}), None),
        (json!({"user_id": USER, "org_id": "other"}), None),
        (json!({}), Some(json!({"user_id": "other"}))),
        (json!({"user_id": USER}), Some(json!({"user_id": "other"}))),
        (json!({"org_id": ORG}), Some(json!({"org_id": "other"}))),
    ] {
        let mut transaction = app.transaction().unwrap();
        let token = crate::common::Token::for_member(USER, ORG).sign();
        transaction.execute("SELECT tenancy.authenticate($1)", &[&token]).unwrap();
        refused(transaction.query(PUBLISH, &[&"x", &data, &metadata]), "PT403", "identity_mismatch");
    }
    for topic in [
        "huleedu.resource.consumption.v1",
        "resource.consumption.reported",
        "huleedu.entitlements.credit.balance.changed.v1",
        "huleedu.entitlements.usage.recorded.v1",
        "huleedu.entitlements.subscription.changed.v1",
        "tenancy.credit.balance.low.v1",
        "tenancy.anything",
    ] {
        let mut transaction = app.transaction().unwrap();
        let token = crate::common::Token::for_member(USER, ORG).sign();
        transaction.execute("SELECT tenancy.authenticate($1)", &[&token]).unwrap();
        refused(transaction.query(PUBLISH, &[&topic, &json!({}), &None::<Value>]), "PT403", "reserved_event_type");
    }
    let count: i64 = one(&mut database.superuser(), "SELECT count(*) FROM tenancy.event_outbox");
    assert_eq!(count, 0);
}

#[test]
fn a_service_names_whom_it_publishes_for_or_nothing_is_published() {
    let database = school();
    let mut service = database.connect("svc");
    refused(service.query(PUBLISH, &[&"x", &json!({}), &None::<Value>]), "PT401", "no_identity");
    service.query_one(PUBLISH, &[&"x", &json!({"user_id": "stranger"}), &None::<Value>]).unwrap();
    service.query_one(PUBLISH, &[&"x", &json!({"user_id": USER, "org_id": ORG}), &None::<Value>]).unwrap();
    let tenants: Vec<String> = database
        .superuser()
        .query("SELECT tenant_id FROM tenancy.event_outbox ORDER BY 1", &[])
        .unwrap()
        .iter()
        .map(|row| row.get(0))
        .collect();
    assert_eq!(tenants, [ORG, "user::stranger"]);
    refused(service.query(PUBLISH, &[&"", &json!({}), &None::<Value>]), "22023", "invalid_argument");
    refused(service.query(PUBLISH, &[&"x", &json!([]), &None::<Value>]), "22023", "invalid_argument");
    let registered = "huleedu.batch.essays.registered.v1";
    refused(service.query(PUBLISH, &[&registered, &json!({"user_id": USER}), &None::<Value>]), "22023", "invalid_data");
}

#[test]
fn a_rolled_back_transaction_publishes_nothing_and_leaves_no_gap() {
    let database = school();
    let (mut service, mut superuser) = (database.connect("svc"), database.superuser());
    let data = json!({"user_id": USER, "org_id": ORG});
    service.query("SELECT * FROM tenancy.poll_events('reader')", &[]).unwrap();
    for round in 0..6 {
        let mut transaction = service.transaction().unwrap();
        transaction.query_one(PUBLISH, &[&"x", &data, &None::<Value>]).unwrap();
        let mut savepoint = transaction.transaction().unwrap();
        savepoint.query_one(PUBLISH, &[&"y", &data, &None::<Value>]).unwrap();
        savepoint.rollback().unwrap();
        if round % 2 == 0 { transaction.commit().unwrap() } else { transaction.rollback().unwrap() }
    }
    let sequences: Vec<i64> = superuser
        .query("SELECT sequence FROM tenancy.event_outbox WHERE type = 'x' ORDER BY 1", &[])
        .unwrap()
        .iter()
        .map(|row| row.get(0))
        .collect();
    assert_eq!(sequences, [1, 2, 3]);
    assert_eq!(one::<i64>(&mut superuser, "SELECT count(*) FROM tenancy.event_outbox WHERE type = 'y'"), 0);
    assert_eq!(one::<i64>(&mut superuser, "SELECT count(*) FROM tenancy.event_deliveries"), 3);
}

#[test]
fn a_derived_id_that_is_taken_does_not_swallow_the_second_event() {
    let database = school();
    let mut superuser = database.superuser();
    let publish = "SELECT tenancy._publish('t', 'topic', 'a', 'b', 's', '{}', '{}', tenancy.uuid_v7(), \
                   '26c42e89-6747-59e1-a9dc-f6381ab3aa3e')::text";
    let first: String = one(&mut superuser, publish);
    let second: String = one(&mut superuser, publish);
    assert_eq!(first, "26c42e89-6747-59e1-a9dc-f6381ab3aa3e");
    assert_ne!(second, first);
    assert_eq!(
        one::<i64>(&mut superuser, "SELECT count(*) FROM tenancy.event_outbox WHERE payload ->> 'event_id' = id::text"),
        2
    );
}
