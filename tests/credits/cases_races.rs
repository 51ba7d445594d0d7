//! Cases 1 to 3, 19, 22, 23, 25 to 27, 38 and 39: several sessions at one pool.

use crate::common::{fails_with, in_parallel, refused};
use crate::race::{behind_acmes_lock, while_it_waits};
use crate::world::{ACME, BOLT, ask, assert_verified, detail, pooled, shown, world};
use serde_json::json;
use std::time::Duration;

#[test]
fn credits_01_a_parallel_double_spend_succeeds_exactly_as_often_as_it_can() {
    let mut world = world();
    world.fund(ACME, "100");
    let database = &world.database;
    let charged: usize = in_parallel(24, |_| {
        let mut service = database.connect("svc");
        (0..3).filter(|_| pooled(&mut service, "ada", "7", Some(ACME)).expect("true or false")).count()
    })
    .into_iter()
    .sum();
    assert_eq!((charged, world.available(ACME).as_str(), world.entries()), (14, "2.000000", 15));
    assert_verified(&mut world.admin);
}

#[test]
fn credits_02_no_update_is_lost() {
    let mut world = world();
    world.fund(ACME, "10000");
    let database = &world.database;
    in_parallel(8, |session| {
        let mut service = database.connect("svc");
        for number in 0..20 {
            let statement = match (session + number) % 4 {
                0 => "SELECT tenancy.deduct_credits_pooled('ada', 1, 'org_acme')",
                1 => "SELECT tenancy.deduct_credits('bea', 1, 'org_acme')",
                2 => "SELECT tenancy.capture_hold(tenancy.hold_credits('ada', 2, 'org_acme'), 1)",
                _ => {
                    "SELECT tenancy.deduct_credits_batch('[{\"user_id\": \"ada\", \"amount\": 1, \"org_id\": \"org_acme\"}]')"
                }
            };
            shown(&mut service, statement);
        }
    });
    let version = "SELECT seq, balance, held FROM tenancy.credit_pools";
    assert_eq!(shown(&mut world.admin, version), "161|9840.000000|0.000000");
    assert_eq!(world.entries(), 161);
    assert_verified(&mut world.admin);
}

#[test]
fn credits_03_batches_in_opposite_order_do_not_deadlock() {
    let mut world = world();
    let mut requests = vec![("ada", Some(ACME)), ("bob", Some(BOLT))];
    requests.extend(["ada", "bea", "bob", "zoe"].map(|user| (user, None)));
    world.fund(ACME, "1000");
    world.fund(BOLT, "1000");
    for user in ["ada", "bea", "bob", "zoe"] {
        world.fund_user(user, "1000");
    }
    let (database, requests) = (&world.database, &requests);
    in_parallel(6, |session| {
        let mut service = database.connect("svc");
        for round in 0..15 {
            let mut order = requests.clone();
            order.rotate_left((session + round) % requests.len());
            if session % 2 == 0 {
                order.reverse();
            }
            let body: Vec<_> =
                order.iter().map(|(user, org)| json!({"user_id": user, "amount": 1, "org_id": org})).collect();
            let statement = format!("SELECT DISTINCT status FROM tenancy.deduct_credits_batch('{}')", json!(body));
            assert_eq!(shown(&mut service, &statement), "charged");
        }
    });
    assert_eq!((world.available(ACME).as_str(), world.available_user("zoe").as_str()), ("910.000000", "910.000000"));
    assert_verified(&mut world.admin);
}

#[test]
fn credits_19_what_expires_during_a_wait_is_not_spent() {
    let mut world = world();
    let grant =
        "SELECT tenancy.grant_credits(100, org_id => 'org_acme', expires_at => clock_timestamp() + interval '3 s')";
    shown(&mut world.operator(), grant);
    let debit = "SELECT tenancy.deduct_credits('ada', 5, 'org_acme')";
    let result = behind_acmes_lock(
        &world.database,
        world.service(),
        |waiter| ask(waiter, debit),
        || {
            std::thread::sleep(Duration::from_millis(3100));
        },
    );
    let error = refused(result, "PT402", "insufficient_credits");
    assert_eq!(detail(&error)["available"], 0);
    assert_eq!(world.available(ACME), "0.000000");
    let expired = "SELECT operation_type, credits_amount FROM tenancy.credit_transactions ORDER BY seq";
    shown(&mut world.operator(), "SELECT tenancy.sweep_credits()");
    assert_eq!(shown(&mut world.admin, expired), "grant|100.000000\ndeduction|-1.000000\nexpiry|-99.000000");
    assert_verified(&mut world.admin);
}

#[test]
fn credits_22_of_a_capture_and_an_expiry_exactly_one_wins() {
    let mut world = world();
    world.fund(ACME, "100");
    let mut captured = 0;
    for round in 0..8 {
        let hold = shown(
            &mut world.service(),
            "SELECT tenancy.hold_credits('ada', 5, 'org_acme', expires_in => interval '120 ms')",
        );
        let database = &world.database;
        let outcomes = in_parallel(6, |session| {
            // Around the moment of the expiry, in different orders.
            std::thread::sleep(Duration::from_millis(60 + 12 * (session as u64) + 3 * round));
            if session % 3 == 2 {
                shown(&mut database.connect("ops"), "SELECT tenancy.sweep_credits()");
                return 0;
            }
            let capture = format!("SELECT status FROM tenancy.capture_hold('{hold}')");
            match ask(&mut database.connect("svc"), &capture) {
                Ok(_) => 1,
                Err(error) => {
                    let error = error.as_db_error().expect("an answer").clone();
                    assert_eq!(error.code().code(), "PT422");
                    let reason = detail(&error)["reason"].as_str().map(str::to_owned);
                    assert!(matches!(reason.as_deref(), Some("hold_captured" | "hold_expired")), "{reason:?}");
                    0
                }
            }
        });
        let won: i64 = outcomes.iter().sum();
        std::thread::sleep(Duration::from_millis(60));
        shown(&mut world.operator(), "SELECT tenancy.sweep_credits()");
        let status = format!("SELECT status, captured FROM tenancy.credit_holds WHERE id = '{hold}'");
        let expected = if won == 1 { "captured|5.000000" } else { "expired|0.000000" };
        assert!(won <= 1);
        assert_eq!(shown(&mut world.admin, &status), expected);
        captured += won;
    }
    assert_eq!(world.available(ACME), format!("{}.000000", 100 - 5 * captured));
    assert_verified(&mut world.admin);
}

#[test]
fn credits_23_a_charge_is_refunded_once_and_never_above_itself() {
    let mut world = world();
    world.fund(ACME, "100");
    let charge = "SELECT transaction_id FROM tenancy.deduct_credits('ada', 30, 'org_acme')";
    let id = shown(&mut world.service(), charge);
    let refund =
        |amount: &str| format!("SELECT status, charged, balance_after FROM tenancy.refund_credits('{id}', {amount})");
    let error = refused(ask(&mut world.service(), &refund("30.000001")), "PT422", "refund_exceeds_charge");
    assert_eq!(
        detail(&error),
        json!({"reason": "refund_exceeds_charge", "charged": 30, "refunded": 0, "refundable": 30})
    );
    let database = &world.database;
    // Eight times 7 of 30: four fit.
    let part = refund("7");
    let done: usize = in_parallel(8, |_| {
        let result = ask(&mut database.connect("svc"), &part);
        if result.is_ok() {
            return 1;
        }
        refused(result, "PT422", "refund_exceeds_charge");
        0
    })
    .into_iter()
    .sum();
    assert_eq!(done, 4);
    assert_eq!(shown(&mut world.service(), &refund("NULL")), "refunded|-2.000000|100.000000", "the rest");
    refused(ask(&mut world.service(), &refund("NULL")), "PT422", "refund_exceeds_charge");
    refused(ask(&mut world.service(), &refund("0.000001")), "PT422", "refund_exceeds_charge");

    let id = shown(&mut world.service(), charge);
    let whole = format!("SELECT transaction_id FROM tenancy.refund_credits('{id}')");
    let database = &world.database;
    let refunds: Vec<String> =
        in_parallel(8, |_| ask(&mut database.connect("svc"), &whole).ok()).into_iter().flatten().collect();
    assert_eq!(refunds.len(), 1, "a double refund");
    refused(
        ask(&mut world.service(), &format!("SELECT tenancy.refund_credits('{}')", refunds[0])),
        "PT422",
        "not_refundable",
    );
    assert_eq!(world.available(ACME), "100.000000");
    assert_verified(&mut world.admin);
}

#[test]
fn credits_25_a_stale_snapshot_fails_with_40001_and_changes_nothing() {
    let mut world = world();
    world.fund(ACME, "100");
    let mut service = world.service();
    let mut other = world.service();
    let charge = shown(&mut service, "SELECT transaction_id FROM tenancy.deduct_credits('ada', 1, 'org_acme')");
    let hold = shown(&mut service, "SELECT tenancy.hold_credits('ada', 1, 'org_acme')");
    for call in [
        "SELECT tenancy.deduct_credits('ada', 5, 'org_acme')".to_owned(),
        "SELECT tenancy.deduct_credits('ada', 1000, 'org_acme')".to_owned(),
        "SELECT tenancy.deduct_credits_pooled('ada', 5, 'org_acme')".to_owned(),
        "SELECT tenancy.hold_credits('ada', 5, 'org_acme')".to_owned(),
        format!("SELECT tenancy.capture_hold('{hold}')"),
        format!("SELECT tenancy.void_hold('{hold}')"),
        format!("SELECT tenancy.refund_credits('{charge}')"),
        "SELECT tenancy.deduct_credits_batch('[{\"user_id\": \"ada\", \"amount\": 5, \"org_id\": \"org_acme\"}]')"
            .to_owned(),
    ] {
        shown(
            &mut service,
            "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT available FROM tenancy.credit_balance('org_acme')",
        );
        shown(&mut other, "SELECT tenancy.deduct_credits('bea', 1, 'org_acme')");
        let before = world.figures();
        let result = ask(&mut service, &call);
        if call.contains("1000") {
            // A refusal may rest on the snapshot: nothing is charged by it.
            assert!(result.is_err());
        } else {
            fails_with(result, "40001");
        }
        shown(&mut service, "ROLLBACK");
        assert_eq!(world.figures(), before, "{call}");
    }
    // The same when the other session commits while this one waits.
    shown(&mut other, "BEGIN; SELECT tenancy.deduct_credits('bea', 1, 'org_acme')");
    let mut waiter = world.service();
    shown(&mut waiter, "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1");
    let debit = "SELECT tenancy.deduct_credits('ada', 5, 'org_acme')";
    let result = while_it_waits(
        &world.database,
        waiter,
        |waiter| ask(waiter, debit),
        || {
            shown(&mut other, "COMMIT");
        },
    );
    refused(result, "40001", "serialization_failure");
    assert_verified(&mut world.admin);
}

#[test]
fn credits_26_serializable_transactions_fail_with_40001_only() {
    let mut world = world();
    world.fund(ACME, "60");
    let database = &world.database;
    let charged: usize = in_parallel(6, |_| {
        let mut service = database.connect("svc");
        shown(&mut service, "SET default_transaction_isolation = 'serializable'");
        let mut charged = 0;
        let mut tries = 0;
        while charged < 10 && tries < 400 {
            tries += 1;
            let read_then_spend = "BEGIN; SELECT available FROM tenancy.credit_balance('org_acme');
                SELECT tenancy.deduct_credits_pooled('ada', 1, 'org_acme'); COMMIT";
            match ask(&mut service, read_then_spend) {
                Ok(_) => charged += 1,
                Err(error) => {
                    assert_eq!(error.code().map(|code| code.code()), Some("40001"), "{error:?}");
                    shown(&mut service, "ROLLBACK");
                }
            }
        }
        charged
    })
    .into_iter()
    .sum();
    assert_eq!((charged, world.available(ACME).as_str(), world.entries()), (60, "0.000000", 61));
    assert_verified(&mut world.admin);
}

#[test]
fn credits_27_a_statement_timeout_while_waiting_writes_nothing() {
    let mut world = world();
    world.fund(ACME, "100");
    let mut waiter = world.service();
    shown(&mut waiter, "SET statement_timeout = '300 ms'");
    let debit = "SELECT tenancy.deduct_credits('ada', 5, 'org_acme', idempotency_key => 'slow')";
    let mut holder = world.service();
    shown(&mut holder, "BEGIN; SELECT tenancy.deduct_credits('bea', 1, 'org_acme')");
    fails_with(ask(&mut waiter, debit), "57014");
    shown(&mut waiter, "SET statement_timeout = 0; SET lock_timeout = '200 ms'");
    fails_with(ask(&mut waiter, debit), "55P03");
    shown(&mut holder, "COMMIT");
    assert_eq!((world.available(ACME).as_str(), world.entries()), ("99.000000", 2));
    // The same request again is no replay: it was never answered.
    assert_eq!(shown(&mut waiter, &debit.replace("SELECT ", "SELECT replayed FROM ")), "f");
    assert_verified(&mut world.admin);
}

#[test]
fn credits_38_a_cap_can_be_reached_exactly_once() {
    let mut world = world();
    world.fund(ACME, "1000");
    shown(&mut world.operator(), "SELECT tenancy.set_member_cap('org_acme', 'ada', 10, 'day')");
    let database = &world.database;
    let charged: usize = in_parallel(8, |session| {
        let mut service = database.connect("svc");
        let call = match session % 2 {
            0 => "SELECT tenancy.deduct_credits_pooled('ada', 1, 'org_acme')",
            _ => "SELECT tenancy.capture_hold(tenancy.hold_credits('ada', 1, 'org_acme'))",
        };
        let answers = (0..4).map(|_| ask(&mut service, call)).collect::<Vec<_>>();
        answers
            .into_iter()
            .filter(|answer| match answer {
                Ok(_) => true,
                Err(error) => {
                    let error = error.as_db_error().expect("an answer");
                    assert_eq!((error.code().code(), &detail(error)["reason"]), ("PT429", &json!("cap_reached")));
                    false
                }
            })
            .count()
    })
    .into_iter()
    .sum();
    assert_eq!((charged, world.available(ACME).as_str()), (10, "990.000000"));
    let mut service = world.service();
    let error = refused(
        ask(&mut service, "SELECT tenancy.deduct_credits('ada', 0.000001, 'org_acme')"),
        "PT429",
        "cap_reached",
    );
    assert_eq!(
        detail(&error),
        json!({"reason": "cap_reached", "pool": "organization", "period": "day", "cap": 10, "used": 10,
            "required": 1e-6, "available": 0})
    );
    shown(&mut service, "SELECT tenancy.deduct_credits('bea', 500, 'org_acme')");
    assert_verified(&mut world.admin);
}

#[test]
fn credits_39_a_debit_across_midnight_counts_once() {
    let mut world = world();
    world.fund(ACME, "1000");
    shown(&mut world.operator(), "SELECT tenancy.set_member_cap('org_acme', 'ada', 10, 'day')");
    // A clock that is a second before midnight (UTC) when the debit begins to wait, and past it when it ends.
    let to_midnight =
        "SELECT ceil(extract(epoch FROM date_trunc('day', clock_timestamp() AT TIME ZONE 'UTC') + interval '1 day'
        - clock_timestamp() AT TIME ZONE 'UTC'))::int - 2";
    let offset: i64 = shown(&mut world.admin, to_midnight).parse().expect("seconds");
    let at_night = |client: &mut postgres::Client| {
        shown(client, &format!("SET tenancy.test_clock_offset = {offset}"));
    };
    let (mut holder, mut waiter) = (world.database.superuser(), world.database.superuser());
    at_night(&mut holder);
    at_night(&mut waiter);
    shown(&mut holder, "BEGIN; SELECT tenancy.deduct_credits('bea', 1, 'org_acme')");
    let debit = "SELECT charged FROM tenancy.deduct_credits('ada', 6, 'org_acme')";
    let charged = while_it_waits(
        &world.database,
        waiter,
        |waiter| shown(waiter, debit),
        || {
            std::thread::sleep(Duration::from_millis(2200));
            shown(&mut holder, "COMMIT");
        },
    );
    assert_eq!(charged, "6.000000");
    // Whichever day it counts in is the day of its entry, and the other day has its whole cap.
    let mut morning = world.database.superuser();
    shown(&mut morning, &format!("SET tenancy.test_clock_offset = {}", offset + 5));
    let counted = format!(
        "SELECT c.used, c.period_start = t.day, t.day < date_trunc('day', clock_timestamp() + {} * interval '1 second', 'UTC')
           FROM tenancy.credit_caps c JOIN LATERAL (SELECT date_trunc('day', created_at, 'UTC') AS day
                FROM tenancy.credit_transactions t WHERE t.pool_id = c.pool_id AND t.user_id = c.user_id) AS t ON true",
        offset + 5
    );
    let counted = shown(&mut morning, &counted);
    assert!(counted.starts_with("6.000000|t|"), "{counted}");
    assert_verified(&mut world.admin);
    let left = if counted.ends_with('t') { "10.000000" } else { "4.000000" };
    assert_eq!(shown(&mut morning, &debit.replace('6', left)), left);
    refused(ask(&mut morning, debit), "PT429", "cap_reached");
    assert_verified(&mut world.admin);
}
