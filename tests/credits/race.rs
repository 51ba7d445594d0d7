//! Two sessions interleaved: what one does while the other waits for a lock.

use crate::common::Database;
use crate::world::shown;
use postgres::Client;
use std::time::{Duration, Instant};

/// Runs `work` in `waiter`; once that session waits for a lock, `meanwhile`, which is to end the wait. What `work` gave.
pub fn while_it_waits<R: Send>(
    database: &Database,
    mut waiter: Client,
    work: impl FnOnce(&mut Client) -> R + Send,
    meanwhile: impl FnOnce(),
) -> R {
    let waits = format!(
        "SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = {}",
        shown(&mut waiter, "SELECT pg_backend_pid()")
    );
    let mut watcher = database.superuser();
    std::thread::scope(|scope| {
        let working = scope.spawn(move || work(&mut waiter));
        let deadline = Instant::now() + Duration::from_secs(30);
        while shown(&mut watcher, &waits) != "t" {
            assert!(!working.is_finished(), "the session did not wait");
            assert!(Instant::now() < deadline, "the session does not come to wait");
            std::thread::sleep(Duration::from_millis(5));
        }
        meanwhile();
        working.join().expect("the waiting session panicked")
    })
}

/// Waits until a query shows that something is so.
pub fn until(database: &Database, query: &str) {
    let mut watcher = database.superuser();
    let deadline = Instant::now() + Duration::from_secs(30);
    while shown(&mut watcher, query) != "t" {
        assert!(Instant::now() < deadline, "it does not come to be: {query}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Makes `waiter` wait for the lock of Acme's pool, does `meanwhile`, and lets the lock go.
pub fn behind_acmes_lock<R: Send>(
    database: &Database,
    waiter: Client,
    work: impl FnOnce(&mut Client) -> R + Send,
    meanwhile: impl FnOnce(),
) -> R {
    let mut holder = database.connect("svc");
    shown(&mut holder, "BEGIN; SELECT tenancy.deduct_credits_pooled('bea', 1, 'org_acme')");
    while_it_waits(database, waiter, work, || {
        meanwhile();
        shown(&mut holder, "COMMIT");
    })
}
