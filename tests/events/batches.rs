//! Registration, lifecycle and dispatch: the identity is threaded through, and is never made up.

use crate::common::{Token, refused};
use crate::world::{ORG, USER, as_teacher, one, published, school};
use postgres::Client;
use serde_json::{Value, json};
use uuid::Uuid;

const REGISTER: &str = "SELECT batch_id, correlation_id, status FROM tenancy.register_batch($1)";

fn request() -> Value {
    json!({"expected_essay_count": 3, "course_code": "ENG5", "user_id": USER, "org_id": ORG})
}

fn register(client: &mut Client, request: &Value) -> Uuid {
    client.query_one(REGISTER, &[request]).unwrap().get(0)
}

fn status(client: &mut Client, batch: Uuid) -> Value {
    client.query_one("SELECT tenancy.get_batch_status($1)", &[&batch]).unwrap().get(0)
}

#[test]
fn identity_comes_from_who_is_authenticated() {
    let database = school();
    let (mut app, mut superuser) = (database.connect("app"), database.superuser());
    refused(app.query(REGISTER, &[&request()]), "PT401", "not_authenticated");
    for (name, value) in [("user_id", "other"), ("org_id", "other"), ("org_id", "")] {
        let mut forged = request();
        forged[name] = json!(value);
        let mut transaction = app.transaction().unwrap();
        transaction.execute("SELECT tenancy.authenticate($1)", &[&Token::for_member(USER, ORG).sign()]).unwrap();
        refused(transaction.query(REGISTER, &[&forged]), "PT403", "identity_mismatch");
    }
    assert_eq!(one::<i64>(&mut superuser, "SELECT count(*) FROM tenancy.batches"), 0);
    // What is left out is the identity's.
    as_teacher(&mut app, |teacher| {
        let bare =
            json!({"expected_essay_count": "3", "course_code": "ENG5", "essay_ids": ["x", "y", "z"], "more": [1]});
        let row = teacher.query_one(REGISTER, &[&bare]).unwrap();
        let batch: Uuid = row.get(0);
        let state: Value = teacher.query_one("SELECT tenancy.get_batch_status($1)", &[&batch]).unwrap().get(0);
        assert_eq!((&state["user_id"], &state["org_id"]), (&json!(USER), &json!(ORG)));
        assert!(!state["missing_essay_ids"].to_string().contains("\"x\""), "the client's ids are not used");
    });
    let event = published(&mut superuser, "huleedu.batch.essays.registered.v1").remove(0);
    assert_eq!((&event["data"]["user_id"], &event["data"]["org_id"]), (&json!(USER), &json!(ORG)));
    let stored: Value = one(&mut superuser, "SELECT request FROM tenancy.batches");
    assert_eq!(stored["more"], json!([1]), "the request is kept whole");
}

#[test]
fn a_bad_request_is_refused_and_a_known_batch_is_left_alone() {
    let database = school();
    let (mut service, mut superuser) = (database.connect("svc"), database.superuser());
    for bad in [
        json!({}),
        json!([]),
        json!({"expected_essay_count": 0, "course_code": "ENG5", "user_id": USER}),
        json!({"expected_essay_count": 3, "course_code": "X", "user_id": USER}),
        json!({"expected_essay_count": 20000, "course_code": "ENG5", "user_id": USER}),
        json!({"expected_essay_count": 3, "course_code": "ENG5"}),
    ] {
        refused(service.query(REGISTER, &[&bad]), "22023", "invalid_request");
    }
    refused(
        service.query(REGISTER, &[&json!({"expected_essay_count": 3, "course_code": "ENG5", "user_id": ""})]),
        "PT401",
        "no_identity",
    );
    let known = Uuid::from_u128(7);
    let statement = "SELECT batch_id, correlation_id, status FROM tenancy.register_batch($1, $2)";
    let first = service.query_one(statement, &[&request(), &known]).unwrap();
    let second = service.query_one(statement, &[&request(), &known]).unwrap();
    assert_eq!((first.get::<_, &str>(2), second.get::<_, &str>(2)), ("registered", "already_registered"));
    assert_eq!((first.get::<_, Uuid>(0), first.get::<_, Uuid>(1)), (second.get(0), second.get(1)));
    assert_eq!(one::<i64>(&mut superuser, "SELECT count(*) FROM tenancy.batch_essays"), 3);
    assert_eq!(published(&mut superuser, "huleedu.batch.essays.registered.v1").len(), 1);
}

#[test]
fn slots_are_filled_or_given_up() {
    let database = school();
    let mut service = database.connect("svc");
    let batch = register(&mut service, &request());
    let mut essays: Vec<String> = status(&mut service, batch)["missing_essay_ids"]
        .as_array()
        .unwrap()
        .iter()
        .map(|id| id.as_str().unwrap().to_owned())
        .collect();
    assert!(essays.is_sorted());
    let assign = "SELECT tenancy.assign_essay($1, $2, $3)";
    let last = essays.pop().unwrap();
    for essay in &essays {
        assert!(service.query_one(assign, &[&batch, essay, &format!("text-{essay}")]).unwrap().get::<_, bool>(0));
        assert!(!service.query_one(assign, &[&batch, essay, &format!("text-{essay}")]).unwrap().get::<_, bool>(0));
    }
    refused(service.query(assign, &[&batch, &essays[0], &"another"]), "PT409", "slot_taken");
    refused(service.query(assign, &[&batch, &"unknown", &"text"]), "PT404", "essay_not_found");
    refused(service.query(assign, &[&Uuid::nil(), &"unknown", &"text"]), "PT404", "batch_not_found");
    let state = status(&mut service, batch);
    assert_eq!(
        (&state["ready_count"], &state["is_complete"], &state["missing_essay_ids"]),
        (&json!(2), &json!(false), &json!([last]))
    );
    service.query_one("SELECT tenancy.fail_essay($1, $2, 'unreadable')", &[&batch, &last]).unwrap();
    let state = status(&mut service, batch);
    assert_eq!(
        (&state["ready_count"], &state["is_complete"], &state["missing_essay_ids"]),
        (&json!(2), &json!(true), &json!([]))
    );
    let mut keys: Vec<&String> = state.as_object().unwrap().keys().collect();
    keys.sort();
    assert_eq!(
        keys,
        [
            "batch_id",
            "created_at",
            "expected_count",
            "is_complete",
            "is_timeout_due",
            "missing_essay_ids",
            "org_id",
            "ready_count",
            "ready_essays",
            "student_prompt_ref",
            "user_id"
        ]
    );
    assert!(
        service
            .query_one("SELECT tenancy.get_batch_status($1)", &[&Uuid::nil()])
            .unwrap()
            .get::<_, Option<Value>>(0)
            .is_none()
    );
    let record = "SELECT tenancy.record_result($1, $2, $3)";
    assert!(service.query_one(record, &[&batch, &essays[0], &json!({"rank": 1})]).unwrap().get::<_, bool>(0));
    assert!(!service.query_one(record, &[&batch, &essays[0], &json!({"rank": 2})]).unwrap().get::<_, bool>(0));
    refused(service.query(record, &[&batch, &"unknown", &json!({})]), "PT404", "essay_not_found");
}

#[test]
fn a_batch_without_rows_is_not_complete_and_an_old_one_is_overdue() {
    let database = school();
    let (mut service, mut superuser) = (database.connect("svc"), database.superuser());
    let batch = register(&mut service, &request());
    assert_eq!(status(&mut service, batch)["is_timeout_due"], false);
    superuser.execute("UPDATE tenancy.batches SET timeout_at = now() - interval '1 second'", &[]).unwrap();
    assert_eq!(status(&mut service, batch)["is_timeout_due"], true);
    superuser.execute("DELETE FROM tenancy.batch_essays", &[]).unwrap();
    let state = status(&mut service, batch);
    assert_eq!((&state["is_complete"], &state["is_timeout_due"]), (&json!(false), &json!(false)));
}

#[test]
fn another_tenant_neither_sees_nor_touches_a_batch() {
    let database = school();
    let (mut app, mut service) = (database.connect("app"), database.connect("svc"));
    let batch = register(&mut service, &request());
    let stranger = Token::for_member("hank", "globex").sign();
    let mut transaction = app.transaction().unwrap();
    transaction.execute("SELECT tenancy.authenticate($1)", &[&stranger]).unwrap();
    assert!(
        transaction
            .query_one("SELECT tenancy.get_batch_status($1)", &[&batch])
            .unwrap()
            .get::<_, Option<Value>>(0)
            .is_none()
    );
    assert_eq!(transaction.query_one("SELECT count(*) FROM tenancy.batches", &[]).unwrap().get::<_, i64>(0), 0);
    assert_eq!(transaction.query_one("SELECT count(*) FROM tenancy.batch_essays", &[]).unwrap().get::<_, i64>(0), 0);
    refused(transaction.query("SELECT tenancy.dispatch_cj_assessment($1)", &[&batch]), "PT404", "batch_not_found");
    drop(transaction);
    let count = as_teacher(&mut app, |teacher| {
        teacher.query_one("SELECT count(*) FROM tenancy.batches", &[]).unwrap().get::<_, i64>(0)
    });
    assert_eq!(count, 1);
    refused(app.query("SELECT tenancy.get_batch_status($1)", &[&batch]), "PT401", "not_authenticated");
}

#[test]
fn a_dispatch_names_the_command_s_identity_then_the_batch_s() {
    let database = school();
    let (mut app, mut service, mut superuser) =
        (database.connect("app"), database.connect("svc"), database.superuser());
    let batch = register(&mut service, &request());
    let dispatch = "SELECT tenancy.dispatch_cj_assessment($1, $2)";
    refused(service.query(dispatch, &[&batch, &None::<Value>]), "PT422", "no_ready_essays");
    let essay = status(&mut service, batch)["missing_essay_ids"][0].as_str().unwrap().to_owned();
    service.query_one("SELECT tenancy.assign_essay($1, $2, 'text')", &[&batch, &essay]).unwrap();

    service.query_one(dispatch, &[&batch, &None::<Value>]).unwrap();
    let command = json!({"metadata": {"user_id": "larare-0018", "org_id": ORG, "trace": 1}, "data": {"language": "sv", "assignment_id": "a"}});
    service.query_one(dispatch, &[&batch, &Some(&command)]).unwrap();
    as_teacher(&mut app, |teacher| teacher.query_one(dispatch, &[&batch, &None::<Value>]).unwrap());
    let events = published(&mut superuser, "huleedu.els.cj_assessment.requested.v1");
    let users: Vec<&Value> = events.iter().map(|event| &event["data"]["user_id"]).collect();
    assert_eq!(users, [&json!(USER), &json!("larare-0018"), &json!(USER)]);
    assert!(events.iter().all(|event| event["metadata"]["org_id"] == ORG && event["data"]["org_id"] == ORG));
    assert_eq!((&events[0]["data"]["language"], &events[1]["data"]["language"]), (&json!("en"), &json!("sv")));
    assert!(events.iter().all(|event| !event.to_string().contains("unknown-user")));

    let elsewhere = json!({"metadata": {"user_id": "hank", "org_id": "globex"}});
    refused(service.query(dispatch, &[&batch, &Some(&elsewhere)]), "PT403", "batch_of_another_tenant");
    refused(service.query(dispatch, &[&Uuid::nil(), &None::<Value>]), "PT404", "batch_not_found");
    let mut transaction = app.transaction().unwrap();
    transaction.execute("SELECT tenancy.authenticate($1)", &[&Token::for_member(USER, ORG).sign()]).unwrap();
    let forged = json!({"metadata": {"user_id": "other"}});
    refused(transaction.query(dispatch, &[&batch, &Some(&forged)]), "PT403", "identity_mismatch");
}

#[test]
fn a_pipeline_request_is_for_its_batch_only() {
    let database = school();
    let (mut service, mut superuser) = (database.connect("svc"), database.superuser());
    let batch = register(&mut service, &request());
    let ask = "SELECT tenancy.request_pipeline($1, $2)";
    let correlation = "7f0c2d1e-5b7a-4c1d-9f0e-2a6b8c4d1e3f";
    service
        .query_one(ask, &[&batch, &json!({"batch_id": batch, "requested_pipeline": " cj_assessment ", "client_correlation_id": correlation})])
        .unwrap();
    let event = published(&mut superuser, "huleedu.commands.batch.pipeline.v1").remove(0);
    assert_eq!((&event["metadata"]["org_id"], &event["data"]["user_id"]), (&json!(ORG), &json!(USER)));
    assert_eq!(
        (&event["data"]["requested_pipeline"], &event["correlation_id"]),
        (&json!("cj_assessment"), &json!(correlation))
    );
    refused(
        service.query(ask, &[&batch, &json!({"batch_id": Uuid::nil(), "requested_pipeline": "x"})]),
        "22023",
        "batch_id_mismatch",
    );
    refused(service.query(ask, &[&batch, &json!({"requested_pipeline": ""})]), "22023", "invalid_request");
    refused(service.query(ask, &[&Uuid::nil(), &json!({"requested_pipeline": "x"})]), "PT404", "batch_not_found");
}

#[test]
fn consumption_is_the_batch_s() {
    let database = school();
    let (mut app, mut service, mut superuser) =
        (database.connect("app"), database.connect("svc"), database.superuser());
    let batch = register(&mut service, &request());
    for (students, comparisons) in [(0, 0), (1, 0), (2, 1), (3, 3), (30, 435), (i32::MAX, 2_305_843_005_992_468_481i64)]
    {
        assert_eq!(
            service.query_one("SELECT tenancy.comparison_count($1)", &[&students]).unwrap().get::<_, i64>(0),
            comparisons
        );
    }
    let report = "SELECT tenancy.report_consumption($1, 'cj_comparison', $2, 'cj_assessment_service', 'cj-1')";
    service.query_one(report, &[&batch, &3]).unwrap();
    let event = published(&mut superuser, "huleedu.resource.consumption.v1").remove(0);
    assert_eq!(
        (&event["data"]["user_id"], &event["data"]["org_id"], &event["data"]["quantity"]),
        (&json!(USER), &json!(ORG), &json!(3))
    );
    refused(service.query(report, &[&Uuid::nil(), &3]), "PT404", "batch_not_found");
    refused(service.query(report, &[&batch, &-1]), "22023", "invalid_argument");
    crate::common::fails_with(app.query(report, &[&batch, &3]), "42501");
    assert_eq!(published(&mut superuser, "huleedu.resource.consumption.v1").len(), 1);
}

/// Another organization of the same tenant fills no slot of the batch, and another tenant takes no id of it.
#[test]
fn a_batch_is_its_organization_s() {
    let database = school();
    let neighbours = "SELECT tenancy.register_user('nils'), tenancy.register_organization('skola-malmo-02', 'Two', 'skola-malmo-01'),
                             tenancy.register_organization('globex', 'Globex')";
    database.superuser().batch_execute(neighbours).unwrap();
    let mut service = database.connect("svc");
    let batch = register(&mut service, &request());
    let slot = status(&mut service, batch)["missing_essay_ids"][0].as_str().unwrap().to_owned();
    let mut app = database.connect("app");
    for (org, statement, sqlstate, reason) in [
        ("skola-malmo-02", "SELECT tenancy.assign_essay($1, $2, 'theirs')", "PT403", "batch_of_another_organization"),
        (
            "globex",
            "SELECT tenancy.register_batch(jsonb_build_object('expected_essay_count', 1, 'course_code', 'SV1'), $1), $2::text",
            "PT409",
            "batch_id_taken",
        ),
    ] {
        let mut transaction = app.transaction().unwrap();
        let token = Token::for_member("nils", org).sign();
        transaction.execute("SELECT tenancy.authenticate($1)", &[&token]).unwrap();
        refused(transaction.query(statement, &[&batch, &slot]), sqlstate, reason);
    }
    assert_eq!(
        status(&mut service, batch)["missing_essay_ids"].as_array().unwrap().len(),
        3,
        "and the service finds it"
    );
}

/// An identity that was cleared leaves nobody to act for, not everybody.
#[test]
fn a_service_that_cleared_its_identity_acts_for_nobody_else() {
    let database = school();
    database
        .superuser()
        .batch_execute("SELECT tenancy.register_user('nils'), tenancy.grant_credits(5, user_id => 'nils')")
        .unwrap();
    let mut service = database.connect("svc");
    for (call, sqlstate, reason) in [
        ("tenancy.deduct_credits('nils', 1)", "PT403", "identity_mismatch"),
        ("tenancy.publish_event('a.v1', '{\"user_id\": \"nils\"}', 'a', '1')", "PT401", "not_authenticated"),
    ] {
        let mut transaction = service.transaction().unwrap();
        transaction
            .batch_execute(&format!("SELECT tenancy.act_as('{USER}', '{ORG}'); SELECT tenancy.clear_identity()"))
            .unwrap();
        refused(transaction.query(&format!("SELECT {call}"), &[]), sqlstate, reason);
    }
}

/// Registers a batch as somebody of an organization that has a tenant of its own.
const REGISTER_KNOWN: &str =
    "SELECT status FROM tenancy.register_batch('{\"expected_essay_count\": 1, \"course_code\": \"SV1\"}', $1)";

/// Two applications that name one id at the same time: the second waits for the first, and sees what it committed
/// whatever its transaction's snapshot is.
#[test]
fn of_two_tenants_that_register_one_id_at_once_one_has_it() {
    let database = school();
    let mut superuser = database.superuser();
    superuser.batch_execute("SELECT tenancy.register_organization('globex', 'Globex')").unwrap();
    for (id, level) in [(1, "READ COMMITTED"), (2, "REPEATABLE READ"), (3, "SERIALIZABLE")] {
        let id = Uuid::from_u128(id);
        let (mut first, mut second) = (database.connect("app"), database.connect("app"));
        let begin = |client: &mut Client, user: &str, org: &str| {
            client.batch_execute(&format!("BEGIN ISOLATION LEVEL {level}")).unwrap();
            client.execute("SELECT tenancy.authenticate($1)", &[&Token::for_member(user, org).sign()]).unwrap();
            client.batch_execute("SELECT count(*) FROM tenancy.batches").unwrap();
        };
        begin(&mut second, "hank", "globex");
        begin(&mut first, USER, ORG);
        assert_eq!(first.query_one(REGISTER_KNOWN, &[&id]).unwrap().get::<_, &str>(0), "registered");
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| refused(second.query(REGISTER_KNOWN, &[&id]), "PT409", "batch_id_taken"));
            let waits =
                "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'advisory' AND datname = current_database()";
            while one::<i64>(&mut superuser, waits) == 0 {
                assert!(!waiting.is_finished(), "it waits for who came first");
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
            first.batch_execute("COMMIT").unwrap();
            waiting.join().unwrap();
        });
        assert_eq!(status(&mut database.connect("svc"), id)["user_id"], USER, "and its id means one batch");
    }
}

/// An application may publish an event that names another tenant's batch: what comes back takes nothing.
#[test]
fn an_event_takes_no_batch_id_of_another_tenant_s() {
    let database = school();
    let (mut app, mut service, mut superuser) =
        (database.connect("app"), database.connect("svc"), database.superuser());
    superuser.batch_execute("SELECT tenancy.register_organization('globex', 'Globex')").unwrap();
    let batch = register(&mut service, &request());
    let unknown = Uuid::from_u128(9);
    let topic = "huleedu.batch.essays.registered.v1";
    let announced = |id: Uuid| {
        json!({"event": "batch.essays.registered", "entity_id": id, "expected_essay_count": 1, "essay_ids": ["e"], "course_code": "SV1",
               "user_id": "hank", "org_id": "globex", "metadata": {"entity_id": id, "entity_type": "batch"}})
    };
    let mut transaction = app.transaction().unwrap();
    transaction.execute("SELECT tenancy.authenticate($1)", &[&Token::for_member("hank", "globex").sign()]).unwrap();
    for id in [batch, unknown] {
        let publish = "SELECT tenancy.publish_event($1, $2, 'batch', $3)";
        transaction.query_one(publish, &[&topic, &announced(id), &id.to_string()]).unwrap();
    }
    transaction.commit().unwrap();
    for event in published(&mut superuser, topic) {
        let (state, result) = crate::world::consume(&mut service, &event);
        let id = event["data"]["entity_id"].as_str().unwrap().parse::<Uuid>().unwrap();
        let expected = match (event["data"]["user_id"] == USER, id == batch) {
            (true, _) => json!("already_registered"),
            (_, false) => json!("registered"),
            (_, true) => {
                assert_eq!(
                    (state.as_str(), &result["success"], &result["reason"]),
                    ("processed", &json!(false), &json!("batch_id_taken"))
                );
                continue;
            }
        };
        assert_eq!((state.as_str(), &result["status"]), ("processed", &expected), "{result}");
    }
    assert_eq!(status(&mut service, batch)["user_id"], USER);
}
