//! Cases 8 to 12 and 44: idempotency keys.

use crate::common::{in_parallel, refused};
use crate::race::while_it_waits;
use crate::world::{ACME, BOLT, ask, assert_verified, detail, shown, world};
use serde_json::{Value, json};

const CHARGE: &str = "SELECT transaction_id, status, pool, charged, balance_after, held_after, metadata
    FROM tenancy.deduct_credits('ada', 2.5, 'org_acme', 'An essay', 'ref-1', 'key-1', '{\"essay\": 7}')";

#[test]
fn credits_08_a_replay_gets_the_first_answer() {
    let mut world = world();
    world.fund(ACME, "100");
    let mut service = world.service();
    shown(&mut service, "SELECT tenancy.hold_credits('bea', 10, 'org_acme')");
    let first = shown(&mut service, CHARGE);
    assert!(first.contains("|charged|organization|2.500000|97.500000|10.000000|"), "{first}");
    shown(&mut service, "SELECT tenancy.deduct_credits('ada', 7, 'org_acme')");
    let replayed = CHARGE.replace("SELECT transaction_id", "SELECT replayed, transaction_id");
    assert_eq!(shown(&mut service, &replayed), format!("t|{first}"));
    // Whatever has happened since: the answer to this request was given.
    shown(&mut world.operator(), "SELECT tenancy.revoke_seat('org_acme', 'ada')");
    let before = world.figures();
    assert_eq!(shown(&mut service, CHARGE), first);
    let batch =
        "SELECT replayed, status, charged FROM tenancy.deduct_credits_batch('[{\"user_id\": \"ada\", \"amount\": 2.50,
        \"org_id\": \"org_acme\", \"description\": \"An essay\", \"reference_id\": \"ref-1\",
        \"idempotency_key\": \"key-1\", \"metadata\": {\"essay\": 7}}]')";
    assert_eq!(shown(&mut service, batch), "t|charged|2.500000", "a batch is another way to the same request");
    assert_eq!(world.figures(), before);

    // Holds and grants have keys too.
    for (role, call) in [
        ("svc", "hold_credits('bea', 1, 'org_acme', idempotency_key => 'key-2')"),
        ("ops", "grant_credits(5, org_id => 'org_acme', idempotency_key => 'key-3')"),
    ] {
        let mut client = world.database.connect(role);
        let statement = format!("SELECT tenancy.{call}");
        let first = shown(&mut client, &statement);
        let before = world.figures();
        assert_eq!(shown(&mut client, &statement), first);
        assert_eq!(world.figures(), before, "{call}");
    }
    assert_verified(&mut world.admin);
}

#[test]
fn credits_09_a_replay_with_another_body_is_a_conflict() {
    let mut world = world();
    world.fund(ACME, "100");
    let mut service = world.service();
    shown(&mut service, CHARGE);
    let before = world.figures();
    for (from, to) in [
        ("2.5", "2.500001"),
        ("'ada'", "'bea'"),
        ("'An essay'", "'Another'"),
        ("'An essay'", "NULL"),
        ("'ref-1'", "'ref-2'"),
        ("'ref-1'", "NULL"),
        ("{\"essay\": 7}", "{\"essay\": 8}"),
        ("{\"essay\": 7}", "{}"),
    ] {
        let error = refused(ask(&mut service, &CHARGE.replace(from, to)), "PT409", "idempotency_conflict");
        let required = if from == "2.5" { json!(2.500001) } else { json!(2.5) };
        let expected =
            json!({"reason": "idempotency_conflict", "pool": "organization", "required": required, "available": null});
        assert_eq!(detail(&error), expected, "{from} {to}");
    }
    let hold = "SELECT tenancy.hold_credits('ada', 2.5, 'org_acme', idempotency_key => 'key-1')";
    refused(ask(&mut service, hold), "PT409", "idempotency_conflict");
    let grant = "SELECT tenancy.grant_credits(2.5, org_id => 'org_acme', idempotency_key => 'key-1')";
    refused(ask(&mut world.operator(), grant), "PT409", "idempotency_conflict");
    let batch = "SELECT status FROM tenancy.deduct_credits_batch('[{\"user_id\": \"ada\", \"amount\": 1,
        \"org_id\": \"org_acme\", \"idempotency_key\": \"key-1\"}]')";
    assert_eq!(shown(&mut service, batch), "idempotency_conflict");
    for key in ["''", "'   '", "repeat('k', 256)"] {
        let statement = format!("SELECT tenancy.deduct_credits('ada', 1, 'org_acme', idempotency_key => {key})");
        refused(ask(&mut service, &statement), "22023", "invalid_argument");
    }
    assert_eq!(world.figures(), before);
}

#[test]
fn credits_10_fifty_at_once_with_one_key_are_one_row_and_fifty_equal_answers() {
    let mut world = world();
    world.fund(ACME, "100");
    let database = &world.database;
    let answers = in_parallel(50, |_| {
        let statement = CHARGE.replace("SELECT transaction_id", "SELECT replayed, transaction_id");
        shown(&mut database.connect("svc"), &statement)
    });
    assert_eq!(answers.iter().filter(|answer| answer.starts_with("f|")).count(), 1, "one of them charged");
    assert!(answers.iter().all(|answer| answer[2..] == answers[0][2..]), "{answers:?}");
    assert_eq!((world.available(ACME).as_str(), world.entries()), ("97.500000", 2));
    assert_verified(&mut world.admin);
}

#[test]
fn credits_11_the_same_key_in_another_tenant_is_another_key() {
    let mut world = world();
    world.fund(ACME, "100");
    world.fund(BOLT, "100");
    world.fund_user("ada", "100");
    let mut service = world.service();
    for (user, org) in [("ada", "'org_acme'"), ("bob", "'org_bolt'"), ("ada", "NULL")] {
        let statement = format!(
            "SELECT replayed, charged FROM tenancy.deduct_credits('{user}', 3, {org}, idempotency_key => 'one')"
        );
        assert_eq!(shown(&mut service, &statement), "f|3.000000");
        assert_eq!(shown(&mut service, &statement), "t|3.000000");
    }
    let left = (world.available(ACME), world.available(BOLT), world.available_user("ada"));
    assert_eq!(left, ("97.000000".into(), "97.000000".into(), "97.000000".into()));
}

#[test]
fn credits_12_denied_then_topped_up_the_same_key_succeeds() {
    let mut world = world();
    world.fund(ACME, "2");
    let mut service = world.service();
    for refusal in 0..2 {
        let error = refused(ask(&mut service, CHARGE), "PT402", "insufficient_credits");
        let expected = json!({"reason": "insufficient_credits", "pool": "organization", "required": 2.5, "available": 2,
            "organization_name": "Acme Inc"});
        assert_eq!(detail(&error), expected, "{refusal}");
    }
    world.fund(ACME, "1");
    assert!(shown(&mut service, CHARGE).contains("|charged|organization|2.500000|0.500000|"));
    assert!(shown(&mut service, CHARGE).contains("|charged|organization|2.500000|0.500000|"));
    assert_eq!(world.available(ACME), "0.500000");
}

#[test]
fn credits_44_a_late_redelivery_is_never_charged_twice() {
    let mut world = world();
    world.fund(ACME, "100");
    // Keys are kept: a year later the request still has its answer.
    let first = shown(&mut world.service(), CHARGE);
    let mut later = world.database.superuser();
    shown(&mut later, "SET tenancy.test_clock_offset = 34560000");
    assert_eq!(shown(&mut later, CHARGE), first);
    assert_eq!(world.available(ACME), "97.500000");

    // Events are remembered for a while; what is older than that is rejected.
    shown(&mut world.operator(), "SELECT tenancy.set_credit_cost('cj_comparison', 1)");
    let event = json!({
        "event_id": "a3b1c2d4-0003-4f00-8abc-000000000003", "event_type": "huleedu.resource.consumption.v1",
        "event_timestamp": "2025-08-31T12:05:10.500000Z", "source_service": "cj_assessment_service", "schema_version": 1,
        "correlation_id": "7f0c2d1e-5b7a-4c1d-9f0e-2a6b8c4d1e3f",
        "data": {"event_name": "resource.consumption.reported", "entity_id": "b", "entity_type": "batch", "parent_id": null,
            "timestamp": "2025-08-31T12:05:10.400000Z", "user_id": "ada", "org_id": ACME, "resource_type": "cj_comparison",
            "quantity": 3, "service_name": "cj_assessment_service", "processing_id": "cj-1",
            "consumed_at": "2025-08-31T12:05:10.300000Z"},
    });
    let consume = format!("SELECT status, result FROM tenancy.consume_event('{event}')");
    let mut service = world.service();
    assert!(shown(&mut service, &consume).starts_with("processed|"));
    assert!(shown(&mut service, &consume).starts_with("duplicate|"));
    shown(&mut world.admin, "SELECT tenancy.trim_inbox('0')");
    let answer = shown(&mut service, &consume);
    let (status, result) = answer.split_once('|').expect("two columns");
    let result: Value = serde_json::from_str(result).expect("JSON");
    assert_eq!((status, &result["reason"]), ("rejected", &json!("outside_dedup_window")));
    assert_eq!(world.available(ACME), "94.500000");
    assert_verified(&mut world.admin);
}

/// The first request used the pool up while the second waited for it: that one is a retry, and no shortage.
#[test]
fn a_concurrent_retry_is_answered_where_the_first_call_used_the_pool_up() {
    let mut world = world();
    for (key, amount, outcome) in [
        ("same", "10", Ok("t|charged|10.000000|0.000000")),
        ("other amount", "9", Err(("PT409", "idempotency_conflict"))),
        ("without a seat", "10", Ok("t|charged|10.000000|0.000000")),
    ] {
        world.fund(ACME, "10");
        let call = |amount: &str| {
            format!(
                "SELECT replayed, status, charged, balance_after
                   FROM tenancy.deduct_credits('ada', {amount}, 'org_acme', idempotency_key => '{key}')"
            )
        };
        let mut first = world.service();
        assert_eq!(shown(&mut first, &format!("BEGIN; {}", call("10"))), "f|charged|10.000000|0.000000");
        let mut operator = world.operator();
        let result = while_it_waits(
            &world.database,
            world.service(),
            |waiter| ask(waiter, &call(amount)),
            || {
                if key == "without a seat" {
                    shown(&mut operator, "SELECT tenancy.revoke_seat('org_acme', 'ada')");
                }
                shown(&mut first, "COMMIT");
            },
        );
        match outcome {
            Ok(answer) => assert_eq!(result.expect("the first answer"), answer, "{key}"),
            Err((sqlstate, reason)) => drop(refused(result, sqlstate, reason)),
        }
    }
    assert_eq!(world.available(ACME), "0.000000");
    assert_verified(&mut world.admin);
}
