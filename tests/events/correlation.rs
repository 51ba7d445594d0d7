//! The identity's correlation id, in every event, ledger row and audit row; and what becomes of ids that are no UUID.

use crate::common::{Token, refused};
use crate::world::{ORG, USER, consume, consumption, one, school};
use postgres::{Client, Transaction};
use serde_json::{Value, json};
use uuid::Uuid;

const CORRELATION: &str = "7f0c2d1e-5b7a-4c1d-9f0e-2a6b8c4d1e3f";
/// uuid.uuid5(uuid.NAMESPACE_OID, "req-ä-1")
const OF_A_TEXT: &str = "c4fd2037-17a3-5434-b88b-4f328e541c3b";

/// Runs `work` as the teacher, in a request that carries this correlation id.
fn as_teacher_of(client: &mut Client, correlation: &str, work: impl FnOnce(&mut Transaction)) {
    let mut transaction = client.transaction().unwrap();
    let headers = json!({"authorization": format!("Bearer {}", Token::for_member(USER, ORG).sign()), "x-correlation-id": correlation});
    transaction.execute("SELECT set_config('request.headers', $1, true)", &[&headers.to_string()]).unwrap();
    transaction.execute("SELECT tenancy.authenticate_request()", &[]).unwrap();
    work(&mut transaction);
    transaction.commit().unwrap();
}

fn texts(client: &mut Client, statement: &str) -> Vec<String> {
    client
        .query(statement, &[])
        .unwrap()
        .iter()
        .map(|row| row.get::<_, Option<String>>(0).unwrap_or_default())
        .collect()
}

#[test]
fn one_id_from_the_request_to_every_event_and_ledger_row() {
    let database = school();
    let (mut app, mut service, mut superuser) =
        (database.connect("app"), database.connect("svc"), database.superuser());
    let mut batch = Uuid::nil();
    as_teacher_of(&mut app, CORRELATION, |teacher| {
        let request = json!({"expected_essay_count": 1, "course_code": "ENG5"});
        let row =
            teacher.query_one("SELECT batch_id, correlation_id FROM tenancy.register_batch($1)", &[&request]).unwrap();
        batch = row.get(0);
        assert_eq!(row.get::<_, Uuid>(1).to_string(), CORRELATION);
        teacher
            .query_one("SELECT tenancy.publish_event('essay.graded.v1', '{}', 'essay', 'e', '{\"correlation_id\": \"another\"}')", &[])
            .unwrap();
        teacher
            .query_one("SELECT tenancy.request_pipeline($1, '{\"requested_pipeline\": \"cj_assessment\"}')", &[&batch])
            .unwrap();
        teacher.query_one("SELECT status FROM tenancy.spend_credits(1)", &[]).unwrap();
    });
    // Services go on without an identity, and the batch's id goes on with them.
    let fill = "SELECT tenancy.assign_essay($1, tenancy.get_batch_status($1) -> 'missing_essay_ids' ->> 0, 'text')";
    service.query_one(fill, &[&batch]).unwrap();
    service.query_one("SELECT tenancy.dispatch_cj_assessment($1)", &[&batch]).unwrap();
    service.query_one("SELECT tenancy.report_consumption($1, 'cj_comparison', 3, 'cj', 'cj-1')", &[&batch]).unwrap();
    let used: Value =
        one(&mut superuser, "SELECT payload FROM tenancy.event_outbox WHERE type = 'huleedu.resource.consumption.v1'");
    assert_eq!(consume(&mut service, &used).1["success"], true);

    let events = texts(
        &mut superuser,
        "SELECT (payload ->> 'correlation_id') || ' ' || correlation_id FROM tenancy.event_outbox",
    );
    assert_eq!(events.len(), 7, "registered, graded, pipeline, dispatched, reported, balance, usage");
    assert!(events.iter().all(|ids| *ids == format!("{CORRELATION} {CORRELATION}")), "{events:?}");
    let told = texts(
        &mut superuser,
        "SELECT payload #>> '{data,correlation_id}' FROM tenancy.event_outbox WHERE type LIKE 'huleedu.entitlements.%'",
    );
    assert_eq!(told, [CORRELATION; 2]);
    for from in
        ["credit_transactions WHERE operation_type = 'deduction'", "credit_operations", "batches", "event_inbox"]
    {
        let ids = texts(&mut superuser, &format!("SELECT correlation_id::text FROM tenancy.{from}"));
        assert!(!ids.is_empty() && ids.iter().all(|id| id == CORRELATION), "{from}: {ids:?}");
    }
    assert_eq!(
        one::<i64>(
            &mut superuser,
            "SELECT count(*) FROM tenancy.credit_transactions WHERE operation_type = 'deduction'"
        ),
        2,
        "what was spent and what was consumed"
    );
}

#[test]
fn whoever_is_authenticated_when_it_happens_gives_the_id() {
    let database = school();
    let (mut app, mut service, mut superuser) =
        (database.connect("app"), database.connect("svc"), database.superuser());
    let request = json!({"expected_essay_count": 1, "course_code": "ENG5", "user_id": USER, "org_id": ORG});
    let row = service
        .query_one("SELECT batch_id, correlation_id::text FROM tenancy.register_batch($1)", &[&request])
        .unwrap();
    let (batch, of_the_batch): (Uuid, String) = (row.get(0), row.get(1));
    let fill = "SELECT tenancy.assign_essay($1, tenancy.get_batch_status($1) -> 'missing_essay_ids' ->> 0, 'text')";
    service.query_one(fill, &[&batch]).unwrap();
    let dispatch = "SELECT tenancy.dispatch_cj_assessment($1, $2)::text";
    let id_of = |superuser: &mut Client, event: String| -> String {
        one(superuser, &format!("SELECT correlation_id::text FROM tenancy.event_outbox WHERE id = '{event}'"))
    };
    let event = service.query_one(dispatch, &[&batch, &None::<Value>]).unwrap().get(0);
    assert_eq!(id_of(&mut superuser, event), of_the_batch, "nobody is authenticated: the batch's");
    let event = service.query_one(dispatch, &[&batch, &json!({"correlation_id": "req-ä-1"})]).unwrap().get(0);
    assert_eq!(id_of(&mut superuser, event), OF_A_TEXT, "the command's, as a UUID");
    let mut event = String::new();
    as_teacher_of(&mut app, CORRELATION, |teacher| {
        event = teacher.query_one(dispatch, &[&batch, &json!({"correlation_id": "req-ä-1"})]).unwrap().get(0);
    });
    assert_eq!(id_of(&mut superuser, event), CORRELATION, "the identity's comes first");
}

#[test]
fn an_id_that_is_no_uuid_is_replaced_derived_or_refused() {
    let database = school();
    let (mut app, mut service, mut superuser) =
        (database.connect("app"), database.connect("svc"), database.superuser());
    // In a request's header: a new one (contract H, gateway).
    as_teacher_of(&mut app, "req-ä-1", |teacher| {
        let id: String = teacher.query_one("SELECT tenancy.correlation_id()", &[]).unwrap().get(0);
        assert!(id.parse::<Uuid>().is_ok() && id != OF_A_TEXT, "{id}");
    });
    // Named by a service: derived, the same every time.
    let publish = "SELECT tenancy.publish_event('x', $1, 'a', 'b', '{\"correlation_id\": \"req-ä-1\"}')::text";
    let event: String = service.query_one(publish, &[&json!({"user_id": USER, "org_id": ORG})]).unwrap().get(0);
    let payload: Value = one(&mut superuser, &format!("SELECT payload FROM tenancy.event_outbox WHERE id = '{event}'"));
    assert_eq!(payload["correlation_id"], OF_A_TEXT);
    // In an envelope: the original's type is a UUID.
    let mut event = consumption("a3b1c2d4-0003-4f00-8abc-000000000003", 1);
    event["correlation_id"] = json!("req-ä-1");
    assert_eq!(consume(&mut service, &event).1["reason"], "invalid_envelope");
    // The ledger keeps what consume_credits was told, letter for letter.
    let charge = "SELECT success FROM tenancy.consume_credits($1, $2, 'cj_comparison', 1, correlation_id => 'req-ä-1')";
    service.query_one(charge, &[&USER, &ORG]).unwrap();
    let ledger = "SELECT correlation_id FROM tenancy.credit_transactions WHERE operation_type = 'deduction'";
    assert_eq!(texts(&mut superuser, ledger), ["req-ä-1"]);
    refused(
        service.query("SELECT tenancy.dispatch_cj_assessment($1, '{\"correlation_id\": 5}')", &[&Uuid::nil()]),
        "PT404",
        "batch_not_found",
    );
}

#[test]
fn audit_rows_carry_it() {
    let database = school();
    let (mut service, mut superuser) = (database.connect("svc"), database.superuser());
    let mut transaction = service.transaction().unwrap();
    transaction.execute("SELECT tenancy.act_as($1, $2, reason => 'support')", &[&USER, &ORG]).unwrap();
    let correlation: String = transaction.query_one("SELECT tenancy.correlation_id()", &[]).unwrap().get(0);
    transaction.query_one("SELECT key_id FROM tenancy.create_api_key($1)", &[&ORG]).unwrap();
    transaction.commit().unwrap();
    for from in ["audit_log WHERE action = 'act_as'", "token_audit_logs"] {
        let ids = texts(&mut superuser, &format!("SELECT correlation_id FROM tenancy.{from}"));
        assert_eq!(ids, [correlation.as_str()], "{from}");
    }
    // Every table of audit rows has it, so that none is forgotten.
    let without = texts(
        &mut superuser,
        "SELECT c.relname::text FROM pg_class c WHERE c.relnamespace = 'tenancy'::regnamespace AND c.relkind = 'r'
            AND (c.relname ~ 'audit' OR c.relname IN ('credit_transactions', 'credit_operations', 'credit_holds', 'event_outbox', 'event_inbox'))
            AND NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'correlation_id')",
    );
    assert_eq!(without, [""; 0]);
}

#[test]
fn an_alert_carries_the_id_of_what_crossed_the_threshold() {
    let database = school();
    let (mut app, mut service, mut superuser) =
        (database.connect("app"), database.connect("svc"), database.superuser());
    let alerts = format!("SELECT tenancy.set_credit_alerts('{{490,400,300}}', org_id => '{ORG}')");
    superuser.query_one(&alerts, &[]).unwrap();
    // By an event, by an identity, and by a hold under one.
    let envelope = consumption("0b0c7d7e-1111-4222-8333-444455556666", 20);
    assert_eq!(consume(&mut service, &envelope).0, "processed");
    const OTHER: &str = "11111111-5b7a-4c1d-9f0e-2a6b8c4d1e3f";
    as_teacher_of(&mut app, OTHER, |teacher| {
        teacher.query_one("SELECT status FROM tenancy.spend_credits(100)", &[]).unwrap();
    });
    let hold = format!("SELECT tenancy.hold_credits('{USER}', 100, '{ORG}')");
    as_teacher_of(&mut service, CORRELATION, |teacher| drop(teacher.query_one(&hold, &[]).unwrap()));
    let told = texts(
        &mut superuser,
        "SELECT concat_ws(' ', trim_scale((payload #>> '{data,threshold}')::numeric), payload ->> 'correlation_id', correlation_id,
                          payload -> 'data' ? 'correlation_id')
           FROM tenancy.event_outbox WHERE type = 'tenancy.credit.balance.low.v1' ORDER BY sequence",
    );
    let expected = [("490", CORRELATION), ("400", OTHER), ("300", CORRELATION)];
    assert_eq!(told, expected.map(|(threshold, id)| format!("{threshold} {id} {id} f")));
}

#[test]
fn a_capture_carries_the_id_of_whoever_captures_where_the_hold_has_none() {
    let database = school();
    let (mut service, mut superuser) = (database.connect("svc"), database.superuser());
    let hold = format!("SELECT tenancy.hold_credits('{USER}', 10, '{ORG}')");
    let mut captured = Vec::new();
    for (held_under, captured_under) in [(None, Some(CORRELATION)), (Some(CORRELATION), None), (None, None)] {
        let mut id = Uuid::nil();
        match held_under {
            Some(correlation) => as_teacher_of(&mut service, correlation, |teacher| {
                id = teacher.query_one(&hold, &[]).unwrap().get(0);
            }),
            None => id = service.query_one(&hold, &[]).unwrap().get(0),
        }
        let capture = "SELECT transaction_id FROM tenancy.capture_hold($1)";
        let mut entry = Uuid::nil();
        match captured_under {
            Some(correlation) => as_teacher_of(&mut service, correlation, |teacher| {
                entry = teacher.query_one(capture, &[&id]).unwrap().get(0);
            }),
            None => entry = service.query_one(capture, &[&id]).unwrap().get(0),
        }
        let row = superuser
            .query_one("SELECT correlation_id FROM tenancy.credit_transactions WHERE id = $1", &[&entry])
            .unwrap();
        captured.push(row.get::<_, Option<String>>(0));
    }
    assert_eq!(captured, [Some(CORRELATION.to_owned()), Some(CORRELATION.to_owned()), None]);
}
