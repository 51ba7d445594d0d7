//! The payloads of contract H, unchanged: registration, status, dispatch, consumption, debit. The same user and
//! organization at every step.

use crate::common::shared_json;
use crate::world::{ORG, USER, as_teacher, available, consume, published, school};
use serde_json::{Value, json};
use uuid::Uuid;

#[test]
fn the_payloads_go_through_end_to_end() {
    let (Some(request), Some(registered), Some(asked), Some(consumed)) = (
        shared_json("payloads/01_batch_registration_request_v1.json"),
        shared_json("payloads/02_batch_essays_registered_envelope.json"),
        shared_json("payloads/03_els_cj_assessment_request_envelope.json"),
        shared_json("payloads/04_resource_consumption_v1_envelope.json"),
    ) else {
        return;
    };
    let database = school();
    let (mut app, mut service, mut superuser) =
        (database.connect("app"), database.connect("svc"), database.superuser());

    // 01: the gateway's request, as the teacher who is signed in.
    let (batch, correlation): (Uuid, Uuid) = as_teacher(&mut app, |teacher| {
        let row = teacher.query_one("SELECT * FROM tenancy.register_batch($1)", &[&request]).unwrap();
        assert_eq!(row.get::<_, &str>(2), "registered");
        assert_eq!(
            teacher.query_one("SELECT tenancy.correlation_id()", &[]).unwrap().get::<_, String>(0),
            row.get::<_, Uuid>(1).to_string()
        );
        (row.get(0), row.get(1))
    });
    let event = published(&mut superuser, "huleedu.batch.essays.registered.v1").remove(0);
    same_identity(&event["data"]);
    assert_eq!(event["correlation_id"], correlation.to_string());
    assert_eq!(keys(&event["data"]), keys(&registered["data"]));
    assert_eq!(keys(&event["data"]["metadata"]), keys(&registered["data"]["metadata"]));
    assert_eq!(event["data"]["student_prompt_ref"], request["student_prompt_ref"]);
    let stored: Value =
        superuser.query_one("SELECT request FROM tenancy.batches WHERE batch_id = $1", &[&batch]).unwrap().get(0);
    assert_eq!(stored, request, "the request is kept whole");

    // 02: what another service announced is taken, once.
    assert_eq!(consume(&mut service, &registered).0, "processed");
    assert_eq!(consume(&mut service, &registered).0, "duplicate");
    let theirs: Uuid = registered["data"]["entity_id"].as_str().unwrap().parse().unwrap();
    let status = |service: &mut postgres::Client, batch: Uuid| -> Value {
        service.query_one("SELECT tenancy.get_batch_status($1)", &[&batch]).unwrap().get(0)
    };
    let before = status(&mut service, theirs);
    same_identity(&before);
    assert_eq!(before["missing_essay_ids"], registered["data"]["essay_ids"]);
    assert_eq!(before["is_complete"], false);

    // Texts arrive; 03: the dispatched request is what the original sends.
    for essay in asked["data"]["essays_for_cj"].as_array().unwrap() {
        let (id, text) = (essay["essay_id"].as_str().unwrap(), essay["text_storage_id"].as_str().unwrap());
        service.query_one("SELECT tenancy.assign_essay($1, $2, $3)", &[&theirs, &id, &text]).unwrap();
    }
    assert_eq!(status(&mut service, theirs)["is_complete"], true);
    service.query_one("SELECT tenancy.dispatch_cj_assessment($1)", &[&theirs]).unwrap();
    let dispatched = published(&mut superuser, "huleedu.els.cj_assessment.requested.v1").remove(0);
    same_identity(&dispatched["data"]);
    assert_eq!(dispatched["metadata"]["org_id"], ORG);
    assert_eq!(keys(&dispatched["data"]), keys(&asked["data"]));
    for same in [
        "essays_for_cj",
        "language",
        "course_code",
        "entity_id",
        "entity_type",
        "event_name",
        "user_id",
        "org_id",
        "llm_config_overrides",
    ] {
        assert_eq!(dispatched["data"][same], asked["data"][same], "{same}");
    }
    let (answer, result) = consume(&mut service, &asked);
    assert_eq!((answer.as_str(), &result["comparisons"]), ("processed", &json!(3)));

    // 04: the debit.
    let (answer, result) = consume(&mut service, &consumed);
    assert_eq!(
        (answer.as_str(), &result["success"], &result["consumed_from"]),
        ("processed", &json!(true), &json!("org"))
    );
    assert_eq!(available(&mut superuser), 497);
    let changed = published(&mut superuser, "huleedu.entitlements.credit.balance.changed.v1").remove(0);
    assert_eq!(
        changed["data"],
        json!({"subject": {"type": "org", "id": ORG}, "delta": -3, "new_balance": 497, "reason": "credit_operation",
               "correlation_id": "7f0c2d1e-5b7a-4c1d-9f0e-2a6b8c4d1e3f"})
    );
    assert_eq!(changed["event_id"], "26c42e89-6747-59e1-a9dc-f6381ab3aa3e", "the id contract H derives");
    assert_eq!(changed["correlation_id"], consumed["correlation_id"]);
    let usage = published(&mut superuser, "huleedu.entitlements.usage.recorded.v1").remove(0);
    assert_eq!(usage["data"]["subject"], json!({"type": "user", "id": USER}));
    assert_eq!(usage["data"]["amount"], 3);
    let hash: String = superuser
        .query_one(
            "SELECT body_sha256 FROM tenancy.event_inbox WHERE event_id = 'a3b1c2d4-0003-4f00-8abc-000000000003'",
            &[],
        )
        .unwrap()
        .get(0);
    assert_eq!(hash, "a6cb33831217c4441baf69db0c9b5e537a26c32159b9f7c8e0a3e341314572b4");
    assert_eq!(consume(&mut service, &consumed).0, "duplicate");
    assert_eq!(available(&mut superuser), 497);
}

/// The demo runs in a clone without the payloads: it has copies of its own, which say the same.
#[test]
fn the_demo_s_copies_are_the_payloads() {
    for (shared, copy) in [
        ("01_batch_registration_request_v1", "01_registration"),
        ("02_batch_essays_registered_envelope", "02_essays_registered"),
        ("03_els_cj_assessment_request_envelope", "03_assessment_requested"),
        ("04_resource_consumption_v1_envelope", "04_consumption"),
    ] {
        let Some(payload) = shared_json(&format!("payloads/{shared}.json")) else { return };
        let file = format!("{}/demo/school/{copy}.json", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(&file).unwrap();
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), payload, "{copy}");
    }
}

fn same_identity(document: &Value) {
    assert_eq!((&document["user_id"], &document["org_id"]), (&json!(USER), &json!(ORG)));
}

fn keys(document: &Value) -> Vec<String> {
    let mut keys: Vec<String> = document.as_object().unwrap().keys().cloned().collect();
    keys.sort();
    keys
}
