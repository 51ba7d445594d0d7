//! Cases 13 to 18: seats, subscriptions and organizations; and the race between a debit and a revocation, both ways.

use crate::common::{fails_with, in_parallel, refused};
use crate::race::{behind_acmes_lock, while_it_waits};
use crate::world::{ACME, ask, assert_verified, detail, shown, world};
use serde_json::json;

const DEBIT: &str = "SELECT charged FROM tenancy.deduct_credits('ada', 5, 'org_acme')";
const REVOKE: &str = "SELECT tenancy.revoke_seat('org_acme', 'ada')";
const CANCEL: &str = "SELECT tenancy.set_subscription('org_acme', 'teams', 'canceled', 10)";

/// How ada's right to spend ends, how it comes back, and what a debit is then told.
const ENDS: [(&str, &str, &str, &str); 2] = [
    (REVOKE, "SELECT tenancy.assign_seat('org_acme', 'ada')", "PT403", "no_active_seat"),
    (CANCEL, "SELECT tenancy.set_subscription('org_acme', 'teams', 'active', 10)", "PT402", "no_active_subscription"),
];

#[test]
fn credits_13_a_revocation_that_commits_first_denies_a_debit_that_waits() {
    for (end, _, state, reason) in ENDS {
        for call in [
            DEBIT,
            "SELECT tenancy.deduct_credits_pooled('ada', 5, 'org_acme')",
            "SELECT tenancy.hold_credits('ada', 5, 'org_acme')",
        ] {
            let mut world = world();
            world.fund(ACME, "100");
            let mut operator = world.operator();
            let result = behind_acmes_lock(
                &world.database,
                world.service(),
                |waiter| ask(waiter, call),
                || {
                    shown(&mut operator, end);
                },
            );
            refused(result, state, reason);
            assert_eq!(world.available(ACME), "99.000000", "{call}: only the holder of the lock was charged");
            assert_verified(&mut world.admin);
        }
    }
}

#[test]
fn credits_13_a_batch_that_waits_is_denied_too() {
    for (end, _, _, reason) in ENDS {
        let mut world = world();
        world.fund(ACME, "100");
        let batch = "SELECT status FROM tenancy.deduct_credits_batch('[{\"user_id\": \"ada\", \"amount\": 5, \"org_id\": \"org_acme\"}]')";
        let mut operator = world.operator();
        let status = behind_acmes_lock(
            &world.database,
            world.service(),
            |waiter| shown(waiter, batch),
            || {
                shown(&mut operator, end);
            },
        );
        assert_eq!(status, reason);
        assert_eq!(world.available(ACME), "99.000000");
    }
}

#[test]
fn credits_13_a_debit_that_is_first_is_charged_and_the_next_denied() {
    for (end, _, state, reason) in ENDS {
        let mut world = world();
        world.fund(ACME, "100");
        let mut service = world.service();
        assert_eq!(shown(&mut service, &format!("BEGIN; {DEBIT}")), "5.000000");
        // The debit's transaction is open: the revocation neither waits for it nor undoes it.
        shown(&mut world.operator(), end);
        refused(ask(&mut service, DEBIT), state, reason);
        shown(&mut service, "ROLLBACK");
        assert_eq!(world.available(ACME), "100.000000", "its own transaction decided otherwise");

        let mut world = crate::world::world();
        world.fund(ACME, "100");
        let mut service = world.service();
        shown(&mut service, &format!("BEGIN; {DEBIT}"));
        shown(&mut world.operator(), end);
        shown(&mut service, "COMMIT");
        assert_eq!(world.available(ACME), "95.000000");
        assert_eq!(world.last_entry()["metadata"]["seat_role"], "member", "attributed to the seat it had");
        refused(ask(&mut service, DEBIT), state, reason);
        assert_verified(&mut world.admin);
    }
}

#[test]
fn credits_13_a_revocation_that_is_not_committed_decides_nothing_yet() {
    for (end, _, state, reason) in ENDS {
        let mut world = world();
        world.fund(ACME, "100");
        let mut operator = world.operator();
        let mut service = world.service();
        shown(&mut operator, &format!("BEGIN; {end}"));
        assert_eq!(shown(&mut service, DEBIT), "5.000000", "the debit is first: it commits first");
        // A debit that began before the revocation's COMMIT and waits for the pool until after it is denied.
        let result = behind_acmes_lock(
            &world.database,
            world.service(),
            |waiter| ask(waiter, DEBIT),
            || {
                shown(&mut operator, "COMMIT");
            },
        );
        refused(result, state, reason);
        assert_eq!(world.available(ACME), "94.000000");
    }
}

#[test]
fn credits_13_a_kept_snapshot_never_shows_a_stale_seat() {
    for isolation in ["REPEATABLE READ", "SERIALIZABLE"] {
        for (end, back, _, _) in ENDS {
            let mut world = world();
            world.fund(ACME, "100");
            let mut operator = world.operator();
            // The seat ends after the snapshot, before the debit.
            let mut service = world.service();
            let begin = format!("BEGIN ISOLATION LEVEL {isolation}; SELECT 1");
            shown(&mut service, &begin);
            shown(&mut operator, end);
            fails_with(ask(&mut service, DEBIT), "40001");
            shown(&mut service, "ROLLBACK");
            shown(&mut operator, back);
            // It is ending while the debit reads it: whoever waits learns how it came out.
            for (word, expected) in [("ROLLBACK", Ok("5.000000")), ("COMMIT", Err("40001"))] {
                shown(&mut operator, &format!("BEGIN; {end}"));
                shown(&mut service, &begin);
                let waiter = std::mem::replace(&mut service, world.service());
                let result = while_it_waits(
                    &world.database,
                    waiter,
                    |waiter| ask(waiter, &format!("{DEBIT}; COMMIT")),
                    || {
                        shown(&mut operator, word);
                    },
                );
                match expected {
                    Ok(charged) => assert_eq!(result.expect("the seat is there"), charged),
                    Err(state) => drop(fails_with(result, state)),
                }
            }
            assert_eq!(world.available(ACME), "95.000000", "{isolation}: {end}");
            assert_verified(&mut world.admin);
        }
    }
}

#[test]
fn credits_13_a_race_of_debits_and_revocations_is_never_both_wrong() {
    let mut world = world();
    world.fund(ACME, "100000");
    let database = &world.database;
    let outcomes = in_parallel(5, |session| {
        let mut charged = 0;
        if session == 0 {
            let mut operator = database.connect("ops");
            for _ in 0..60 {
                assert_eq!(shown(&mut operator, REVOKE), "t");
                shown(&mut operator, "SELECT tenancy.assign_seat('org_acme', 'ada')");
            }
            return 0;
        }
        let mut service = database.connect("svc");
        for _ in 0..60 {
            match ask(&mut service, DEBIT) {
                Ok(_) => charged += 1,
                Err(error) => match error.code().map(|code| code.code()) {
                    // The seat ended and came back while it was read.
                    Some("40001") => {}
                    _ => drop(refused(Err::<(), _>(error), "PT403", "no_active_seat")),
                },
            }
        }
        charged
    });
    let charged: i64 = outcomes.iter().sum();
    assert_eq!(world.entries(), charged + 1);
    // Each charge names the seat that allowed it.
    let wrong =
        "SELECT count(*) FROM tenancy.credit_transactions t LEFT JOIN tenancy.organization_seats s ON s.id = t.seat_id
         WHERE t.operation_type = 'deduction' AND s.id IS NULL";
    assert_eq!(shown(&mut world.admin, wrong), "0");
    assert_verified(&mut world.admin);
}

#[test]
fn credits_14_a_seat_elsewhere_is_no_seat_and_tells_nothing() {
    let mut world = world();
    world.fund(ACME, "100");
    world.fund("org_bolt", "100");
    let mut service = world.service();
    let mut told = Vec::new();
    for (user, org) in [("bob", "org_acme"), ("ada", "org_bolt"), ("ada", "org_nowhere"), ("zoe", "org_acme")] {
        let statement = format!("SELECT tenancy.deduct_credits('{user}', 5, '{org}')");
        let error = refused(ask(&mut service, &statement), "PT403", "no_active_seat");
        assert_eq!(
            detail(&error),
            json!({"reason": "no_active_seat", "pool": "organization", "required": 5, "available": null})
        );
        told.push((error.message().to_owned(), error.hint().map(str::to_owned), error.detail().map(str::to_owned)));
    }
    told.dedup();
    assert_eq!(told.len(), 1, "an organization that exists answers like one that does not: {told:?}");
    assert_eq!((world.available(ACME), world.available("org_bolt")), ("100.000000".into(), "100.000000".into()));
}

#[test]
fn credits_15_a_cancelled_subscription_does_not_fall_back_to_the_person() {
    let mut world = world();
    world.fund(ACME, "100");
    world.fund_user("ada", "100");
    let mut service = world.service();
    for status in ["past_due", "canceled", "unpaid", "incomplete", "incomplete_expired", "paused"] {
        let set = format!("SELECT tenancy.set_subscription('org_acme', 'teams', '{status}', 10)");
        shown(&mut world.operator(), &set);
        let before = world.figures();
        let error = refused(ask(&mut service, DEBIT), "PT402", "no_active_subscription");
        assert_eq!(
            detail(&error),
            json!({"reason": "no_active_subscription", "organization_name": "Acme Inc", "pool": "organization",
                "required": 5, "available": null})
        );
        let pooled = "SELECT tenancy.deduct_credits_pooled('ada', 5, 'org_acme')";
        refused(ask(&mut service, pooled), "PT402", "no_active_subscription");
        refused(
            ask(&mut service, "SELECT tenancy.hold_credits('ada', 5, 'org_acme')"),
            "PT402",
            "no_active_subscription",
        );
        assert_eq!(world.figures(), before, "{status}");
    }
}

#[test]
fn credits_16_an_empty_or_unknown_organization_is_never_the_person() {
    let mut world = world();
    world.fund_user("ada", "100");
    let before = world.figures();
    let mut service = world.service();
    for call in ["deduct_credits_pooled('ada', 5, {})", "deduct_credits('ada', 5, {})", "hold_credits('ada', 5, {})"] {
        let statement = |org: &str| format!("SELECT tenancy.{}", call.replace("{}", org));
        for empty in ["''", "' '", "E'\\t'"] {
            refused(ask(&mut service, &statement(empty)), "22023", "invalid_argument");
        }
        for unknown in ["'org_nowhere'", "'ORG_ACME'", "'org_acme '", "'NULL'"] {
            refused(ask(&mut service, &statement(unknown)), "PT403", "no_active_seat");
        }
    }
    let batch =
        "SELECT status FROM tenancy.deduct_credits_batch('[{\"user_id\": \"ada\", \"amount\": 5, \"org_id\": \"\"},
        {\"user_id\": \"ada\", \"amount\": 5, \"org_id\": \"org_nowhere\"}]')";
    assert_eq!(shown(&mut service, batch), "invalid_argument\nno_active_seat");
    assert_eq!(world.figures(), before);
}

#[test]
fn credits_17_an_organization_with_a_ledger_cannot_be_deleted() {
    let mut world = world();
    world.fund(ACME, "100");
    shown(&mut world.service(), DEBIT);
    let before = world.figures();
    fails_with(ask(&mut world.operator(), "DELETE FROM tenancy.organizations WHERE external_id = 'org_acme'"), "42501");
    let superusers = "BEGIN; DELETE FROM tenancy.organization_seats; DELETE FROM tenancy.organization_subscriptions;
        DELETE FROM tenancy.organizations WHERE external_id = 'org_acme'";
    fails_with(ask(&mut world.admin, superusers), "23503");
    shown(&mut world.admin, "ROLLBACK");
    assert_eq!(world.figures(), before);
    assert_verified(&mut world.admin);
}

#[test]
fn credits_18_a_renamed_organization_keeps_its_old_name_in_old_entries() {
    let mut world = world();
    world.fund(ACME, "100");
    let mut service = world.service();
    let debit = "SELECT metadata->>'organization_name' FROM tenancy.deduct_credits('ada', 1, 'org_acme', idempotency_key => 'old')";
    assert_eq!(shown(&mut service, debit), "Acme Inc");
    shown(&mut world.operator(), "SELECT tenancy.register_organization('org_acme', 'Acme Holding')");
    assert_eq!(shown(&mut service, debit), "Acme Inc", "the replay too");
    assert_eq!(shown(&mut service, &debit.replace("'old'", "'new'")), "Acme Holding");
    let names = "SELECT string_agg(metadata->>'organization_name', ', ' ORDER BY seq)
        FROM tenancy.credit_transactions WHERE operation_type = 'deduction'";
    assert_eq!(shown(&mut world.admin, names), "Acme Inc, Acme Holding");
}
