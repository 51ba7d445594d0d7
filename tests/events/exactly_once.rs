//! Eight consumers, each event three times in random order, consumers killed at random, half of them as sessions
//! (pg_terminate_backend) and half as processes (SIGKILL): every event is charged once.

use crate::common::{Database, in_parallel};
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
    crate::common::say!("PGT_SEED={seed}");
    seed
}

struct Run {
    database: Database<'static>,
    queue: Mutex<Vec<u64>>,
    random: Mutex<Random>,
    working: AtomicUsize,
    sessions_killed: AtomicUsize,
    processes_killed: AtomicUsize,
}

#[test]
fn every_event_is_charged_once() {
    let mut random = Random(seed());
    let mut deliveries: Vec<u64> = (0..EVENTS * 3).map(|number| number % EVENTS).collect();
    for last in (1..deliveries.len()).rev() {
        deliveries.swap(last, random.below(last + 1));
    }
    let run = Run {
        database: school(),
        queue: Mutex::new(deliveries),
        random: Mutex::new(random),
        working: AtomicUsize::new(CONSUMERS),
        sessions_killed: AtomicUsize::new(0),
        processes_killed: AtomicUsize::new(0),
    };
    in_parallel(CONSUMERS + 1, |index| {
        match index {
            CONSUMERS => return run.kill_sessions(),
            index if index % 2 == 0 => run.consume_in_a_session(),
            _ => run.consume_in_processes(),
        }
        run.working.fetch_sub(1, Ordering::Relaxed);
    });
    let (sessions, processes) =
        (run.sessions_killed.load(Ordering::Relaxed), run.processes_killed.load(Ordering::Relaxed));
    crate::common::say!("killed: {sessions} sessions, {processes} processes");
    assert!(sessions > 0 && processes > 0);
    every_event_counts_once(&run.database);
}

impl Run {
    fn below(&self, end: usize) -> usize {
        self.random.lock().unwrap().below(end)
    }

    /// Up to three deliveries, as an array.
    fn next(&self) -> Option<Value> {
        let count = 1 + self.below(3);
        let mut queue = self.queue.lock().unwrap();
        let keep = queue.len().saturating_sub(count);
        let numbers = queue.split_off(keep);
        let event = |number: &u64| consumption(&uuid::Uuid::from_u128(u128::from(*number) + 1).to_string(), 1);
        (!numbers.is_empty()).then(|| numbers.iter().map(event).collect())
    }

    /// A consumer that dies does not acknowledge: what it took is delivered again.
    fn consume_in_a_session(&self) {
        let mut client = self.database.connect("svc");
        while let Some(envelopes) = self.next() {
            while client.query("SELECT * FROM tenancy.consume_event($1)", &[&envelopes]).is_err() {
                client = loop {
                    match self.database.config("svc").connect(postgres::NoTls) {
                        Ok(client) => break client,
                        Err(_) => std::thread::sleep(Duration::from_millis(5)),
                    }
                };
            }
        }
    }

    /// Each delivery by a process of its own. Its statement may have been committed when it dies, or not.
    fn consume_in_processes(&self) {
        while let Some(envelopes) = self.next() {
            let statement = format!("SELECT count(*) FROM tenancy.consume_event($event${envelopes}$event$)");
            let arguments = ["-Xq", "-v", "ON_ERROR_STOP=1", "-U", "svc", "-d", &self.database.name, "-c", &statement];
            loop {
                let mut process = self.database.cluster().spawn_client("psql", &arguments);
                if self.below(2) == 0 {
                    std::thread::sleep(Duration::from_millis(self.below(80) as u64));
                    let _ = process.kill();
                }
                let status = process.wait().expect("the process ends");
                if status.success() {
                    break;
                }
                if std::os::unix::process::ExitStatusExt::signal(&status) == Some(9) {
                    self.processes_killed.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }

    /// One of the consumers' sessions at a time, whatever it is doing.
    fn kill_sessions(&self) {
        let mut superuser = self.database.superuser();
        let sessions = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND usename = 'svc'";
        while self.working.load(Ordering::Relaxed) > 0 {
            std::thread::sleep(Duration::from_millis(15));
            let pids: Vec<i32> = superuser.query(sessions, &[]).unwrap().iter().map(|row| row.get(0)).collect();
            if !pids.is_empty() && self.sessions_killed.load(Ordering::Relaxed) < 60 {
                superuser.execute("SELECT pg_terminate_backend($1)", &[&pids[self.below(pids.len())]]).unwrap();
                self.sessions_killed.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

fn every_event_counts_once(database: &Database) {
    let mut superuser = database.superuser();
    let events = EVENTS as i64;
    // A process that was killed may have left a statement that is still running.
    let running = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND usename = 'svc'";
    while one::<i64>(&mut superuser, running) > 0 {
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(available(&mut superuser), 500 - events);
    let changes = "tenancy.event_outbox WHERE type = 'huleedu.entitlements.credit.balance.changed.v1'";
    for (what, expected) in [
        ("tenancy.event_inbox WHERE status = 'processed' AND (result ->> 'success')::boolean", events),
        ("tenancy.event_inbox", events),
        ("tenancy.credit_transactions WHERE credits_amount < 0", events),
        ("tenancy.credit_operations WHERE operation_status = 'completed' AND consumed_from = 'org'", events),
        (changes, events),
        ("tenancy.event_outbox WHERE type = 'huleedu.entitlements.usage.recorded.v1'", events),
        ("tenancy.verify_ledger()", 0),
    ] {
        assert_eq!(one::<i64>(&mut superuser, &format!("SELECT count(*) FROM {what}")), expected, "{what}");
    }
    // The events tell the ledger's story, in its order.
    let told: Vec<i64> = superuser
        .query(&format!("SELECT (payload #>> '{{data,new_balance}}')::bigint FROM {changes} ORDER BY sequence"), &[])
        .unwrap()
        .iter()
        .map(|row| row.get(0))
        .collect();
    assert_eq!(told, (500 - events..500).rev().collect::<Vec<_>>());
}
