//! The ledger against a plain model: random operations from several sessions, with a clock that is moved by days.
//!
//! `PGT_SEED` repeats a run, `PGT_OPERATIONS` makes it longer (`make soak`).

mod common;
mod credits_world;
#[path = "credits_model/driver.rs"]
mod driver;
#[path = "credits_model/model.rs"]
mod model;
#[path = "credits_model/random.rs"]
mod random;

use common::{Database, in_parallel};
use driver::{Session, Subject};
use model::Pool;
use random::Random;
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
#[ignore = "does not agree yet on the balance after some refunds; make soak runs it"]
fn random_operations_agree_with_the_model() {
    let operations = setting("PGT_OPERATIONS", 24_000);
    let seed = setting("PGT_SEED", unix_micros() as u64);
    println!("PGT_SEED={seed} PGT_OPERATIONS={operations}");
    let world = credits_world::world();
    let database = &world.database;
    let subjects: Vec<Mutex<Subject>> = subjects(database).into_iter().map(Mutex::new).collect();

    // Boundaries lie half a day from every operation, however long the run takes.
    let begin = unix_micros();
    let times = |half_days: i64| timestamp(begin + half_days * 43_200_000_000);
    let (done, day) = (AtomicU64::new(0), AtomicI64::new(0));
    in_parallel(SESSIONS, |number| {
        let mut random = Random::new(seed ^ (number as u64).wrapping_mul(0xD1B5_4A32_D192_ED03));
        let mut session = Session::new(database.superuser());
        while done.fetch_add(1, Ordering::Relaxed) < operations {
            if random.below(150) == 0 {
                day.fetch_add(1, Ordering::SeqCst);
            }
            let subject = &subjects[random.below(subjects.len() as u64) as usize];
            let mut subject = subject.lock().expect("another session has found a difference");
            let today = day.load(Ordering::SeqCst);
            subject.step(&mut session, &mut random, today, &times);
            drop(subject);
            if random.below(400) == 0 {
                // Beside the others: neither may change a figure or wait for them.
                session.call("SELECT tenancy.sweep_credits(3)::text", &[]).expect("a sweep");
                session.call("SELECT count(*)::text FROM tenancy.seal_ledger(500)", &[]).expect("a seal");
            }
        }
    });

    let mut session = Session::new(database.superuser());
    let mut client = database.superuser();
    let today = day.load(Ordering::SeqCst);
    client.batch_execute(&format!("SET tenancy.test_clock_offset = {}", today * 86_400)).expect("the clock moves");
    for subject in &subjects {
        let mut subject = subject.lock().expect("no session failed");
        subject.model.advance(today * 2);
        session.set_day(today);
        subject.compare(&mut session, false);
        subject.compare_past(&mut client);
    }
    credits_world::assert_verified(&mut client);
    client.execute("SELECT count(*) FROM tenancy.seal_ledger(NULL)", &[]).expect("the rest is sealed");
    credits_world::assert_verified(&mut client);
    let entries: i64 = client
        .query_one("SELECT sum(seq)::bigint FROM tenancy.credit_pools", &[])
        .expect("the pools can be read")
        .get(0);
    println!("{operations} operations over {today} days made {entries} ledger entries");
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

fn subjects(database: &Database) -> Vec<Subject> {
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
        subjects.push(subject(model, Some(org), users));
    }
    for number in 0..3 {
        let user = format!("person_{number}");
        client.batch_execute(&format!("SELECT tenancy.register_user('{user}')")).expect("a user can be made");
        subjects.push(subject(Pool::default(), None, vec![user]));
    }
    subjects
}

fn subject(model: Pool, org: Option<String>, users: Vec<String>) -> Subject {
    Subject { model, org, users, transactions: Vec::new(), holds: Vec::new(), moments: Vec::new() }
}
