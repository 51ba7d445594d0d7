//! Eight consumers, each event three times in random order, consumers killed at random: every event is charged once.

use crate::common::in_parallel;
use crate::world::{available, consumption, one, school};
use serde_json::Value;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

const EVENTS: u64 = 60;
const CONSUMERS: usize = 8;

/// A small generator of our own: the seed is printed, so that a failure can be had again.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % end
    }
}

fn seed() -> u64 {
    let seed = std::env::var("PGT_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or_else(|| u64::from(std::process::id()));
    eprintln!("PGT_SEED={seed}");
    seed
}

#[test]
fn every_event_is_charged_once() {
    let database = school();
    let mut random = Random(seed());
    let mut deliveries: Vec<u64> = (0..EVENTS * 3).map(|number| number % EVENTS).collect();
    for last in (1..deliveries.len()).rev() {
        deliveries.swap(last, random.below(last + 1));
    }
    let queue = Mutex::new(deliveries);
    let killed = AtomicUsize::new(0);
    let working = AtomicUsize::new(CONSUMERS);
    let random = Mutex::new(random);
    in_parallel(CONSUMERS + 1, |index| {
        if index == CONSUMERS {
            // The killer: one of the consumers' sessions at a time, whatever it is doing.
            let mut superuser = database.superuser();
            while working.load(Ordering::Relaxed) > 0 {
                std::thread::sleep(Duration::from_millis(15));
                let pids: Vec<i32> = superuser
                    .query(
                        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND usename = 'svc'",
                        &[],
                    )
                    .unwrap()
                    .iter()
                    .map(|row| row.get(0))
                    .collect();
                if !pids.is_empty() && killed.load(Ordering::Relaxed) < 60 {
                    let pid = pids[random.lock().unwrap().below(pids.len())];
                    superuser.execute("SELECT pg_terminate_backend($1)", &[&pid]).unwrap();
                    killed.fetch_add(1, Ordering::Relaxed);
                }
            }
            return;
        }
        let mut client = database.connect("svc");
        loop {
            // Up to three at a time, as an array.
            let batch: Vec<u64> = {
                let mut queue = queue.lock().unwrap();
                let keep = queue.len() - queue.len().min(1 + random.lock().unwrap().below(3));
                queue.split_off(keep)
            };
            if batch.is_empty() {
                break;
            }
            let envelopes: Value = batch
                .iter()
                .map(|number| consumption(&uuid::Uuid::from_u128(u128::from(*number) + 1).to_string(), 1))
                .collect();
            // A consumer that dies does not acknowledge: what it took is delivered again.
            while client.query("SELECT * FROM tenancy.consume_event($1)", &[&envelopes]).is_err() {
                client = loop {
                    match database.config("svc").connect(postgres::NoTls) {
                        Ok(client) => break client,
                        Err(_) => std::thread::sleep(Duration::from_millis(5)),
                    }
                };
            }
        }
        working.fetch_sub(1, Ordering::Relaxed);
    });

    let mut superuser = database.superuser();
    eprintln!("{} sessions were killed", killed.load(Ordering::Relaxed));
    assert!(killed.load(Ordering::Relaxed) > 0);
    assert_eq!(available(&mut superuser), 500 - EVENTS as i64);
    let count =
        |superuser: &mut postgres::Client, from: &str| one::<i64>(superuser, &format!("SELECT count(*) FROM {from}"));
    assert_eq!(
        count(&mut superuser, "tenancy.event_inbox WHERE status = 'processed' AND (result ->> 'success')::boolean"),
        EVENTS as i64
    );
    assert_eq!(count(&mut superuser, "tenancy.event_inbox"), EVENTS as i64);
    assert_eq!(count(&mut superuser, "tenancy.credit_transactions WHERE credits_amount < 0"), EVENTS as i64);
    let changes = "tenancy.event_outbox WHERE type = 'huleedu.entitlements.credit.balance.changed.v1'";
    assert_eq!(count(&mut superuser, changes), EVENTS as i64);
    // The ledger verified: each row's balance follows from the one before, and the events tell the same story.
    let broken: i64 = one(
        &mut superuser,
        "SELECT count(*) FROM (SELECT balance_after - credits_amount - lag(balance_after) OVER (PARTITION BY pool_id ORDER BY seq) AS gap
                                 FROM tenancy.credit_transactions) AS l WHERE gap <> 0",
    );
    assert_eq!(broken, 0);
    if one::<bool>(&mut superuser, "SELECT to_regprocedure('tenancy.verify_ledger(text)') IS NOT NULL") {
        assert_eq!(count(&mut superuser, "tenancy.verify_ledger()"), 0, "the ledger does not verify");
    }
    let told: Vec<i64> = superuser
        .query(&format!("SELECT (payload #>> '{{data,new_balance}}')::bigint FROM {changes} ORDER BY sequence"), &[])
        .unwrap()
        .iter()
        .map(|row| row.get(0))
        .collect();
    assert_eq!(told, (500 - EVENTS as i64..500).rev().collect::<Vec<_>>());
}
