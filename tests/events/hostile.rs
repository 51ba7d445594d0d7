//! What nobody should send: wrong types, empty, huge and deep documents, other people's names, two sessions at once.

use crate::common::{Token, in_parallel, refused};
use crate::world::{ORG, USER, as_teacher, available, consume, consumption, one, published, school};
use postgres::Client;
use serde_json::{Value, json};
use uuid::Uuid;

const REGISTER: &str = "SELECT batch_id, correlation_id, status FROM tenancy.register_batch($1)";
const ID: &str = "a3b1c2d4-0003-4f00-8abc-000000000003";

fn request() -> Value {
    json!({"expected_essay_count": 3, "course_code": "ENG5", "user_id": USER, "org_id": ORG})
}

fn batch(service: &mut Client) -> (Uuid, Vec<String>) {
    let batch: Uuid = service.query_one(REGISTER, &[&request()]).unwrap().get(0);
    let status: Value = service.query_one("SELECT tenancy.get_batch_status($1)", &[&batch]).unwrap().get(0);
    (batch, serde_json::from_value(status["missing_essay_ids"].clone()).unwrap())
}

fn changed(mut document: Value, pointer: &str, value: Value) -> Value {
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    document.pointer_mut(parent).unwrap().as_object_mut().unwrap().insert(name.to_owned(), value);
    document
}

/// Contract H's lax integers, through SQL: "3", 3.0 and true are numbers, 3.5 and words are not.
#[test]
fn integers_are_lax_where_the_contract_says_so() {
    let database = school();
    let (mut service, mut superuser) = (database.connect("svc"), database.superuser());
    let mut taken = 0;
    for (number, (quantity, charged)) in [
        (json!("3"), Some(3)),
        (json!(3.0), Some(3)),
        (json!(" 3 "), Some(3)),
        (json!(true), Some(1)),
        (json!(0), Some(0)),
        (json!(3.5), None),
        (json!("3.5"), None),
        (json!("three"), None),
        (json!(-1), None),
        (json!(null), None),
        (json!([3]), None),
        (json!({"n": 3}), None),
    ]
    .into_iter()
    .enumerate()
    {
        let id = Uuid::from_u128(number as u128 + 1).to_string();
        let (status, result) = consume(&mut service, &changed(consumption(&id, 1), "/data/quantity", quantity.clone()));
        match charged {
            Some(charged) => {
                assert_eq!((status.as_str(), &result["success"]), ("processed", &json!(true)), "{quantity}");
                taken += charged;
            }
            None => {
                assert_eq!((status.as_str(), &result["reason"]), ("rejected", &json!("invalid_data")), "{quantity}")
            }
        }
        assert_eq!(available(&mut superuser), 500 - taken, "{quantity}");
    }
    // Beyond what can be charged: an answer, and nothing is charged.
    for huge in ["2147483648", "9223372036854775807", "9223372036854775808", "1e30", "1e400"] {
        let text = consumption(&Uuid::new_v5(&Uuid::NAMESPACE_OID, huge.as_bytes()).to_string(), 77).to_string();
        let text = text.replace("\"quantity\":77", &format!("\"quantity\":{huge}"));
        let row =
            service.query_one("SELECT status, result FROM tenancy.consume_event($1::text::jsonb)", &[&text]).unwrap();
        let (status, result): (String, Value) = (row.get(0), row.get(1));
        assert!(status == "rejected" || result["success"] == false, "{huge}: {status} {result}");
        assert_eq!(available(&mut superuser), 500 - taken, "{huge}");
    }
    for (count, fits) in
        [(json!("2"), true), (json!(2.0), true), (json!(true), true), (json!(2.5), false), (json!("x"), false)]
    {
        let answer = service.query_one(REGISTER, &[&changed(request(), "/expected_essay_count", count.clone())]);
        assert_eq!(answer.is_ok(), fits, "{count}");
    }
}

#[test]
fn documents_of_any_shape_are_answered() {
    let database = school();
    let mut service = database.connect("svc");
    let deep = |depth: usize| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
    let huge = "x".repeat(20_000_000);
    let mut documents = vec![
        "null".to_owned(),
        "true".to_owned(),
        "5".to_owned(),
        "\"x\"".to_owned(),
        "{}".to_owned(),
        deep(100),
        deep(3000),
        json!({"event_type": [], "source_service": {}, "data": 1, "event_id": true}).to_string(),
        json!({"event_type": huge, "source_service": "s", "data": {}}).to_string(),
        json!({"event_type": "x", "source_service": "s", "data": {"x": huge}}).to_string(),
        consumption(ID, 1).to_string().replace(USER, "l\\u00e4rare \\ud83d\\ude00 \\u2028"),
        consumption(ID, 1).to_string().replace(USER, &"u".repeat(256)),
        consumption(ID, 1).to_string().replace(USER, "a\\nb"),
        consumption(ID, 1).to_string().replace(USER, "   "),
        consumption(ID, 1).to_string().replace(ORG, "acme::skola"),
    ];
    for pointer in [
        "/data",
        "/data/user_id",
        "/data/org_id",
        "/data/entity_id",
        "/data/entity_type",
        "/metadata",
        "/event_id",
        "/event_type",
        "/event_timestamp",
        "/source_service",
        "/schema_version",
        "/correlation_id",
        "/data/resource_type",
    ] {
        for value in [json!(null), json!(17), json!(""), json!([]), json!({}), json!(true)] {
            documents.push(changed(consumption(ID, 1), pointer, value).to_string());
        }
    }
    for document in &documents {
        let shown = &document[..document.len().min(300)];
        let row = service
            .query_one(
                "SELECT status, result FROM tenancy.consume_event(jsonb_build_array($1::text::jsonb))",
                &[document],
            )
            .unwrap_or_else(|error| panic!("{shown}: {error:?}"));
        let status: &str = row.get(0);
        assert!(["processed", "duplicate", "rejected"].contains(&status), "{shown}");
        let valid = service
            .query_one("SELECT valid, reason FROM tenancy.validate_event($1::text::jsonb)", &[document])
            .unwrap();
        assert_eq!(valid.get::<_, bool>(0), valid.get::<_, Option<&str>>(1).is_none(), "{shown}");
    }
    for statement in
        ["SELECT status FROM tenancy.consume_event(NULL)", "SELECT status FROM tenancy.consume_event('null')"]
    {
        assert_eq!(service.query_one(statement, &[]).unwrap().get::<_, &str>(0), "rejected");
    }
    assert!(!service.query_one("SELECT valid FROM tenancy.validate_event(NULL)", &[]).unwrap().get::<_, bool>(0));
    // Postgres itself refuses what no text of its can hold.
    crate::common::fails_with(service.query("SELECT tenancy.consume_event('{\"data\": \"\\u0000\"}')", &[]), "22P05");
    let many = json!(vec![json!({}); 10_001]);
    refused(service.query("SELECT * FROM tenancy.consume_event($1)", &[&many]), "22023", "invalid_argument");
}

#[test]
fn what_is_published_is_attributed_or_refused() {
    let database = school();
    let (mut app, mut service, mut superuser) =
        (database.connect("app"), database.connect("svc"), database.superuser());
    let publish = "SELECT tenancy.publish_event($1, $2::text::jsonb, 'essay', 'e-1', $3)";
    for (data, metadata, sqlstate, reason) in [
        ("{\"user_id\": \"somebody\"}", None, "PT403", "identity_mismatch"),
        ("{\"org_id\": \"globex\"}", None, "PT403", "identity_mismatch"),
        ("{\"org_id\": \"\"}", None, "PT403", "identity_mismatch"),
        ("{}", Some(json!({"user_id": "somebody"})), "PT403", "identity_mismatch"),
        ("{}", Some(json!({"org_id": "globex"})), "PT403", "identity_mismatch"),
        ("{\"user_id\": 17}", None, "22023", "invalid_data"),
        ("{}", Some(json!({"org_id": ["globex"]})), "22023", "invalid_metadata"),
        ("[]", None, "22023", "invalid_argument"),
        ("{\"event_name\": \"resource.consumption.reported\"}", None, "PT403", "reserved_event_type"),
        ("{\"n\": 1e400}", None, "22023", "invalid_data"),
    ] {
        let mut transaction = app.transaction().unwrap();
        transaction.execute("SELECT tenancy.authenticate($1)", &[&Token::for_member(USER, ORG).sign()]).unwrap();
        refused(transaction.query(publish, &[&"x", &data, &metadata]), sqlstate, reason);
    }
    // Too deep to be judged is not published: it might be what only the engine's own functions publish.
    let deep = format!(
        "{{\"event_name\": \"resource.consumption.reported\", \"x\": {}1{}}}",
        "[".repeat(200),
        "]".repeat(200)
    );
    let mut transaction = app.transaction().unwrap();
    transaction.execute("SELECT tenancy.authenticate($1)", &[&Token::for_member(USER, ORG).sign()]).unwrap();
    refused(transaction.query(publish, &[&"x", &deep, &None::<Value>]), "22023", "invalid_data");
    drop(transaction);
    for placeholder in ["", "unknown-user"] {
        let data = json!({"user_id": placeholder, "org_id": ORG}).to_string();
        refused(service.query(publish, &[&"x", &data, &None::<Value>]), "PT401", "no_identity");
    }
    assert_eq!(one::<i64>(&mut superuser, "SELECT count(*) FROM tenancy.event_outbox"), 0);
    // Personal: an empty organization is none.
    let mut transaction = app.transaction().unwrap();
    transaction.execute("SELECT tenancy.authenticate($1)", &[&Token::for_user(USER).sign()]).unwrap();
    transaction.query_one(publish, &[&"x", &"{\"org_id\": \"\"}", &None::<Value>]).unwrap();
    transaction.commit().unwrap();
    service.query_one(publish, &[&"x", &json!({"user_id": USER, "org_id": ""}).to_string(), &None::<Value>]).unwrap();
    let written: Vec<(String, Value)> = superuser
        .query("SELECT tenant_id, payload #> '{metadata,org_id}' FROM tenancy.event_outbox", &[])
        .unwrap()
        .iter()
        .map(|row| (row.get(0), row.get(1)))
        .collect();
    assert_eq!(written, vec![(format!("user::{USER}"), Value::Null); 2]);
}

#[test]
fn nobody_registers_in_another_s_name() {
    let database = school();
    let (mut app, mut service, mut superuser) =
        (database.connect("app"), database.connect("svc"), database.superuser());
    for (pointer, value, sqlstate, reason) in [
        ("/user_id", json!("larare-0018"), "PT403", "identity_mismatch"),
        ("/org_id", json!("globex"), "PT403", "identity_mismatch"),
        ("/user_id", json!(null), "22023", "invalid_request"),
        ("/user_id", json!(["larare-0017"]), "22023", "invalid_request"),
        ("/org_id", json!({"id": ORG}), "22023", "invalid_request"),
        ("/course_code", json!("eng5"), "22023", "invalid_request"),
        ("/student_prompt_ref", json!("x"), "22023", "invalid_request"),
        ("/cj_default_temperature", json!("hot"), "22023", "invalid_request"),
    ] {
        let mut transaction = app.transaction().unwrap();
        transaction.execute("SELECT tenancy.authenticate($1)", &[&Token::for_member(USER, ORG).sign()]).unwrap();
        refused(transaction.query(REGISTER, &[&changed(request(), pointer, value)]), sqlstate, reason);
    }
    refused(service.query(REGISTER, &[&changed(request(), "/user_id", json!("unknown-user"))]), "PT401", "no_identity");
    refused(service.query(REGISTER, &[&changed(request(), "/org_id", json!("a::b"))]), "22023", "reserved_id");
    refused(service.query(REGISTER, &[&None::<Value>]), "22023", "invalid_request");
    assert_eq!(one::<i64>(&mut superuser, "SELECT count(*) FROM tenancy.batches"), 0);
    assert_eq!(published(&mut superuser, "huleedu.batch.essays.registered.v1").len(), 0);
    // The service may name whom it acts for; without an organization the batch is personal.
    let personal =
        json!({"expected_essay_count": 1, "course_code": "SV1", "user_id": "larare-0042", "unknown": {"field": [1]}});
    service.query_one(REGISTER, &[&personal]).unwrap();
    let row = superuser.query_one("SELECT tenant_id, user_id, org_id FROM tenancy.batches", &[]).unwrap();
    assert_eq!(row.get::<_, &str>(0), "user::larare-0042");
    assert_eq!((row.get::<_, &str>(1), row.get::<_, Option<&str>>(2)), ("larare-0042", None));
}

/// One transaction that registers a known batch twice, and two sessions that register it at once.
#[test]
fn a_batch_is_registered_once() {
    let database = school();
    let mut superuser = database.superuser();
    let known = Uuid::from_u128(99);
    let statuses = in_parallel(4, |_| {
        let mut service = database.connect("svc");
        let row =
            service.query_one("SELECT status FROM tenancy.register_batch($1, $2)", &[&request(), &known]).unwrap();
        row.get::<_, String>(0)
    });
    assert_eq!(statuses.iter().filter(|status| *status == "registered").count(), 1, "{statuses:?}");
    assert_eq!(statuses.iter().filter(|status| *status == "already_registered").count(), 3);
    assert_eq!(one::<i64>(&mut superuser, "SELECT count(*) FROM tenancy.batch_essays"), 3);
    assert_eq!(published(&mut superuser, "huleedu.batch.essays.registered.v1").len(), 1);
    // Another tenant's batch of the same id is another batch.
    let mut service = database.connect("svc");
    let other = json!({"expected_essay_count": 1, "course_code": "SV1", "user_id": "hank", "org_id": "globex"});
    let row = service.query_one("SELECT status FROM tenancy.register_batch($1, $2)", &[&other, &known]).unwrap();
    assert_eq!(row.get::<_, &str>(0), "registered");
    refused(service.query("SELECT tenancy.get_batch_status($1)", &[&known]), "PT409", "ambiguous_batch");
    // Announced by another service with ids listed twice: as many slots as there are different ids.
    let announced = json!({"event_type": "huleedu.batch.essays.registered.v1", "source_service": "batch-service", "data": {
        "entity_id": Uuid::from_u128(100), "expected_essay_count": 3, "essay_ids": ["a", "b", "a"], "course_code": "SV1",
        "user_id": USER, "org_id": ORG, "metadata": {"entity_id": "x", "entity_type": "batch"}}});
    for expected in ["registered", "already_registered"] {
        let named = changed(announced.clone(), "/event_id", json!(Uuid::new_v4()));
        assert_eq!(consume(&mut service, &named).1["status"], expected);
    }
    let status: Value =
        service.query_one("SELECT tenancy.get_batch_status($1)", &[&Uuid::from_u128(100)]).unwrap().get(0);
    assert_eq!((&status["expected_count"], &status["missing_essay_ids"]), (&json!(2), &json!(["a", "b"])));
    let empty =
        changed(changed(announced, "/data/essay_ids", json!([])), "/data/entity_id", json!(Uuid::from_u128(101)));
    assert_eq!(consume(&mut service, &empty).1["reason"], "no_essays");
}

#[test]
fn two_sessions_want_the_same_slot() {
    let database = school();
    let (batch, essays) = batch(&mut database.connect("svc"));
    let assign = "SELECT tenancy.assign_essay($1, $2, $3)";
    for essay in &essays {
        let outcomes = in_parallel(4, |index| {
            let mut service = database.connect("svc");
            match service.query_one(assign, &[&batch, essay, &format!("text-{index}")]) {
                Ok(row) => row.get::<_, bool>(0),
                answer => {
                    refused(answer, "PT409", "slot_taken");
                    false
                }
            }
        });
        assert_eq!(outcomes.iter().filter(|filled| **filled).count(), 1, "one of them gets the slot");
    }
    let mut service = database.connect("svc");
    let status: Value = service.query_one("SELECT tenancy.get_batch_status($1)", &[&batch]).unwrap().get(0);
    assert_eq!((&status["ready_count"], &status["is_complete"]), (&json!(3), &json!(true)));
    refused(service.query(assign, &[&batch, &"a-fourth", &"text"]), "PT404", "essay_not_found");
    for (essay, text) in [("", "text"), (essays[0].as_str(), "")] {
        refused(service.query(assign, &[&batch, &essay, &text]), "22023", "invalid_argument");
    }
    refused(service.query(assign, &[&None::<Uuid>, &essays[0], &"text"]), "22023", "invalid_argument");
    // A text and a failure at once: whoever comes second finds what the first one left.
    in_parallel(2, |index| {
        let mut service = database.connect("svc");
        let statement = "SELECT tenancy.record_result($1, $2, $3)";
        service.query_one(statement, &[&batch, &essays[0], &json!({"by": index})]).unwrap();
    });
    assert_eq!(one::<i64>(&mut database.superuser(), "SELECT count(*) FROM tenancy.batch_results"), 1);
    refused(
        service.query("SELECT tenancy.record_result($1, $2, NULL)", &[&batch, &essays[0]]),
        "22023",
        "invalid_argument",
    );
}

#[test]
fn commands_of_the_wrong_shape_are_refused() {
    let database = school();
    let (mut app, mut service, mut superuser) =
        (database.connect("app"), database.connect("svc"), database.superuser());
    let (batch, essays) = batch(&mut service);
    service.query_one("SELECT tenancy.assign_essay($1, $2, 'text')", &[&batch, &essays[0]]).unwrap();
    let dispatch = "SELECT tenancy.dispatch_cj_assessment($1, $2)";
    for command in [
        json!([]),
        json!("x"),
        json!({"metadata": []}),
        json!({"metadata": "x"}),
        json!({"data": 5}),
        json!({"metadata": {"user_id": 5}}),
        json!({"metadata": {"org_id": [ORG]}}),
        json!({"data": {"language": 5}}),
        json!({"data": {"assignment_id": "x".repeat(101)}}),
        json!({"data": {"llm_config_overrides": []}}),
        json!({"correlation_id": 5}),
    ] {
        refused(service.query(dispatch, &[&batch, &command]), "22023", "invalid_command");
    }
    refused(
        service.query(dispatch, &[&batch, &json!({"metadata": {"user_id": "unknown-user"}})]),
        "PT401",
        "no_identity",
    );
    let ask = "SELECT tenancy.request_pipeline($1, $2)";
    for asked in [
        json!({"batch_id": "6b1f0a52-3c44-4a0e-9d57-0d6a2f1c9e10", "requested_pipeline": "x"}),
        json!({"batch_id": 5, "requested_pipeline": "x"}),
    ] {
        refused(service.query(ask, &[&batch, &asked]), "22023", "batch_id_mismatch");
    }
    for asked in [
        json!({}),
        json!({"requested_pipeline": 5}),
        json!({"requested_pipeline": "x".repeat(101)}),
        json!({"requested_pipeline": "x", "client_correlation_id": "no uuid"}),
        json!({"requested_pipeline": "x", "user_id": 5}),
    ] {
        refused(service.query(ask, &[&batch, &asked]), "22023", "invalid_request");
    }
    // A colleague of the same organization may ask; somebody of another organization of the tenant may not.
    as_teacher(&mut app, |teacher| teacher.query_one(ask, &[&batch, &json!({"requested_pipeline": "x"})]).unwrap());
    superuser
        .batch_execute(&format!("SELECT tenancy.register_organization('skola-lund-02', 'Lund', tenant_id => '{ORG}')"))
        .unwrap();
    let mut transaction = app.transaction().unwrap();
    transaction
        .execute("SELECT tenancy.authenticate($1)", &[&Token::for_member("larare-0099", "skola-lund-02").sign()])
        .unwrap();
    refused(
        transaction.query(ask, &[&batch, &json!({"requested_pipeline": "x"})]),
        "PT403",
        "batch_of_another_organization",
    );
    drop(transaction);
    let report = "SELECT tenancy.report_consumption($1, $2, $3, $4, 'cj-1')";
    for (metric, quantity, by) in [
        ("", Some(1), "cj"),
        ("cj_comparison", None, "cj"),
        ("cj_comparison", Some(-1), "cj"),
        ("cj_comparison", Some(1), ""),
    ] {
        refused(service.query(report, &[&batch, &metric, &quantity, &by]), "22023", "invalid_argument");
    }
    assert_eq!(published(&mut superuser, "huleedu.els.cj_assessment.requested.v1").len(), 0);
    assert_eq!(published(&mut superuser, "huleedu.resource.consumption.v1").len(), 0);
}
