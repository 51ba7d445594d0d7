//! deduct_credits_batch: a row a request, in the request's order, whatever becomes of the others.

use crate::common::refused;
use crate::world::{ACME, BOLT, ask, assert_verified, shown, world};
use serde_json::json;

#[test]
fn every_request_has_its_own_answer_in_its_own_place() {
    let mut world = world();
    world.fund(ACME, "100");
    world.fund(BOLT, "10");
    world.fund_user("zoe", "5");
    shown(&mut world.operator(), "SELECT tenancy.set_member_cap('org_acme', 'bea', 2, 'day')");
    let requests = json!([
        {"user_id": "zoe", "amount": 2, "description": "hers", "reference_id": "r", "metadata": {"n": 0}},
        {"user_id": "ada", "amount": 30, "org_id": ACME, "idempotency_key": "k"},
        {"user_id": "ada", "amount": "12.5", "org_id": ACME},
        {"user_id": "ada", "amount": 30, "org_id": ACME, "idempotency_key": "k"},
        {"user_id": "ada", "amount": 31, "org_id": ACME, "idempotency_key": "k"},
        {"user_id": "nobody", "amount": 1},
        {"user_id": "ada", "amount": 1, "org_id": BOLT},
        {"user_id": "ada", "amount": 1, "org_id": "org_nowhere"},
        {"user_id": "bob", "amount": 11, "org_id": BOLT},
        {"user_id": "bob", "amount": 10, "org_id": BOLT},
        {"user_id": "bea", "amount": 2, "org_id": ACME},
        {"user_id": "bea", "amount": 0.000001, "org_id": ACME},
        {"user_id": "ada", "amount": -1, "org_id": ACME},
        {"user_id": "ada", "amount": 1.0000001, "org_id": ACME},
        {"user_id": "ada", "amount": "NaN", "org_id": ACME},
        {"user_id": "ada", "amount": true, "org_id": ACME},
        {"user_id": "ada", "amount": 1e30, "org_id": ACME},
        {"user_id": "ada", "org_id": ACME},
        {"amount": 1, "org_id": ACME},
        {"user_id": "ada", "amount": 1, "org_id": " "},
        {"user_id": "ada", "amount": 57.5, "org_id": ACME},
        {"user_id": "ada", "amount": 55.5, "org_id": ACME},
        {"user_id": "zoe", "amount": 4},
    ]);
    let call = "SELECT status, replayed, pool, charged, balance_after, transaction_id IS NOT NULL FROM tenancy.deduct_credits_batch('{}')";
    let answers = shown(&mut world.service(), &call.replace("{}", &requests.to_string()));
    let expected = [
        "charged|f|personal|2.000000|3.000000|t",
        "charged|f|organization|30.000000|70.000000|t",
        "charged|f|organization|12.500000|57.500000|t",
        "charged|t|organization|30.000000|70.000000|t",
        "idempotency_conflict|f|organization||57.500000|f",
        "user_not_found|f|personal|||f",
        "no_active_seat|f|organization|||f",
        "no_active_seat|f|organization|||f",
        "insufficient_credits|f|organization||10.000000|f",
        "charged|f|organization|10.000000|0.000000|t",
        "charged|f|organization|2.000000|55.500000|t",
        "cap_reached|f|organization||55.500000|f",
        "invalid_amount|f|organization|||f",
        "invalid_amount|f|organization|||f",
        "invalid_amount|f|organization|||f",
        "invalid_amount|f|organization|||f",
        "amount_out_of_range|f|organization|||f",
        "invalid_amount|f|organization|||f",
        "invalid_argument|f|organization|||f",
        "invalid_argument|f|organization|||f",
        "insufficient_credits|f|organization||55.500000|f",
        "charged|f|organization|55.500000|0.000000|t",
        "insufficient_credits|f|personal||3.000000|f",
    ];
    for (number, (answer, expected)) in answers.lines().zip(expected).enumerate() {
        assert_eq!(answer, expected, "request {number}");
    }
    assert_eq!(answers.lines().count(), expected.len());
    let first = "SELECT description, reference_id, metadata FROM tenancy.credit_transactions WHERE operation_type = 'deduction' AND organization_id IS NULL";
    assert_eq!(shown(&mut world.admin, first), r#"hers|r|{"n": 0, "pool": "personal"}"#);
    assert_verified(&mut world.admin);
}

#[test]
fn what_is_no_batch_is_refused_whole() {
    let mut world = world();
    world.fund(ACME, "100");
    let before = world.figures();
    let mut service = world.service();
    for body in ["NULL", "'null'", "'{}'", "'7'", "'\"x\"'", "'[1]'", "'[null]'", "'[[]]'"] {
        let statement = format!("SELECT * FROM tenancy.deduct_credits_batch({body})");
        refused(ask(&mut service, &statement), "22023", "invalid_argument");
    }
    let many =
        "SELECT * FROM tenancy.deduct_credits_batch((SELECT jsonb_agg('{\"user_id\": \"ada\", \"amount\": 1}'::jsonb)
        FROM generate_series(1, 10001)))";
    refused(ask(&mut service, many), "54000", "batch_too_large");
    assert_eq!(shown(&mut service, "SELECT count(*) FROM tenancy.deduct_credits_batch('[]')"), "0");
    assert_eq!(world.figures(), before);
    // Rolled back as one.
    shown(
        &mut service,
        "BEGIN; SELECT tenancy.deduct_credits_batch('[{\"user_id\": \"ada\", \"amount\": 1, \"org_id\": \"org_acme\"}]'); ROLLBACK",
    );
    assert_eq!(world.figures(), before);
    let thousand = "SELECT count(*), count(DISTINCT transaction_id), min(balance_after) FROM tenancy.deduct_credits_batch(
        (SELECT jsonb_agg(jsonb_build_object('user_id', 'ada', 'amount', 0.01, 'org_id', 'org_acme')) FROM generate_series(1, 1000)))";
    assert_eq!(shown(&mut service, thousand), "1000|1000|90.000000");
    assert_verified(&mut world.admin);
}
