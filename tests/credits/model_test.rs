//! The ledger against a plain model: random operations from several sessions, with a clock that is moved by days.
//!
//! `PGT_SEED` repeats a run, `PGT_OPERATIONS` makes it longer (`make soak`).

use crate::common::{Database, in_parallel};
use crate::model::Pool;
use crate::model_driver::{Session, Subject};
use crate::random::Random;
use crate::world::{self, world};
use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

const SESSIONS: usize = 8;
const USERS: usize = 3;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn unix_micros() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("past 1970").as_micros() as i64
}

#[test]
fn random_operations_agree_with_the_model() {
    let operations = setting("PGT_OPERATIONS", 24_000);
    let seed = setting("PGT_SEED", unix_micros() as u64);
    crate::common::say!("PGT_SEED={seed} PGT_OPERATIONS={operations}");
    let world = world();
    let database = &world.database;
    let subjects: Vec<Mutex<Subject>> = subjects(database, seed).into_iter().map(Mutex::new).collect();
    let days: Vec<AtomicI64> = subjects.iter().map(|_| AtomicI64::new(0)).collect();

    // Boundaries lie a quarter of a day from every operation at least, however long the run takes.
    let begin = unix_micros();
    let times = |quarters: i64| timestamp(begin + quarters * 21_600_000_000);
    let done = AtomicU64::new(0);
    in_parallel(SESSIONS, |_| {
        let mut session = Session::new(database.superuser());
        loop {
            let number = done.fetch_add(1, Ordering::Relaxed);
            if number >= operations {
                return;
            }
            let index = number as usize % subjects.len();
            let mut subject = subjects[index].lock().expect("another session has found a difference");
            subject.step(&mut session, &times);
            days[index].store(subject.day, Ordering::SeqCst);
            drop(subject);
            if number % 300 == 299 {
                // Beside the others: neither may change a figure. No pool's own time has passed the earliest day.
                let earliest = days.iter().map(|day| day.load(Ordering::SeqCst)).min().unwrap_or(0);
                session.set_day(earliest);
                session.call("SELECT tenancy.sweep_credits(3)::text", &[]).expect("a sweep");
                session.call("SELECT count(*)::text FROM tenancy.seal_ledger(500)", &[]).expect("a seal");
            }
        }
    });

    let mut session = Session::new(database.superuser());
    let mut client = database.superuser();
    let last = days.iter().map(|day| day.load(Ordering::SeqCst)).max().unwrap_or(0);
    client.batch_execute(&format!("SET tenancy.test_clock_offset = {}", last * 86_400)).expect("the clock moves");
    for subject in &subjects {
        let mut subject = subject.lock().expect("no session failed");
        subject.model.advance(last * 4);
        session.set_day(last);
        subject.compare(&mut session, false);
        subject.compare_past(&mut client);
    }
    world::assert_verified(&mut client);
    client.execute("SELECT count(*) FROM tenancy.seal_ledger(NULL)", &[]).expect("the rest is sealed");
    world::assert_verified(&mut client);
    let entries: i64 = client
        .query_one("SELECT sum(seq)::bigint FROM tenancy.credit_pools", &[])
        .expect("the pools can be read")
        .get(0);
    crate::common::say!("{operations} operations over {last} days made {entries} ledger entries");
    assert!(entries > operations as i64 / 4, "most operations should do something");
}

fn timestamp(unix_micros: i64) -> String {
    format!("{}", UnixMicros(unix_micros))
}

/// As Postgres reads a time exactly.
struct UnixMicros(i64);

impl std::fmt::Display for UnixMicros {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let days = self.0.div_euclid(86_400_000_000);
        let micros = self.0.rem_euclid(86_400_000_000);
        // Julian day 2440588 is 1970-01-01.
        let (seconds, fraction) = (micros / 1_000_000, micros % 1_000_000);
        write!(
            formatter,
            "J{} {:02}:{:02}:{:02}.{:06}+00",
            days + 2_440_588,
            seconds / 3600,
            seconds / 60 % 60,
            seconds % 60,
            fraction
        )
    }
}

fn subjects(database: &Database, seed: u64) -> Vec<Subject> {
    let random = |number: u64| Random::new(seed ^ number.wrapping_mul(0xD1B5_4A32_D192_ED03));
    let mut client = database.superuser();
    client.batch_execute("SELECT tenancy.set_credit_cost('model_unit', 1.25)").expect("a cost can be set");
    let mut subjects = Vec::new();
    for number in 0..3 {
        let org = format!("model_org_{number}");
        let users: Vec<String> = (0..USERS).map(|user| format!("member_{number}_{user}")).collect();
        client
            .batch_execute(&format!(
                "SELECT tenancy.register_organization('{org}', 'Model {number}');
                 SELECT tenancy.set_subscription('{org}', 'teams', 'active', 10);"
            ))
            .expect("an organization can be made");
        for user in &users {
            client
                .batch_execute(&format!(
                    "SELECT tenancy.register_user('{user}'); SELECT tenancy.assign_seat('{org}', '{user}');"
                ))
                .expect("a member can be made");
        }
        let model = Pool { organization: true, subscribed: true, seats: vec![true; USERS], ..Pool::default() };
        subjects.push(subject(model, random(number), Some(org), users));
    }
    for number in 0..3 {
        let user = format!("person_{number}");
        client.batch_execute(&format!("SELECT tenancy.register_user('{user}')")).expect("a user can be made");
        subjects.push(subject(Pool::default(), random(10 + number), None, vec![user]));
    }
    subjects
}

fn subject(model: Pool, random: Random, org: Option<String>, users: Vec<String>) -> Subject {
    Subject {
        model,
        random: Some(random),
        day: 0,
        org,
        users,
        transactions: Vec::new(),
        holds: Vec::new(),
        moments: Vec::new(),
    }
}
