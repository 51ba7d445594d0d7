//! Early lock release: what was acknowledged survives a crash, whatever the session's settings.

mod common;

use common::{Cluster, Database, Options};
use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const SESSIONS: usize = 16;

fn durable_cluster() -> Cluster {
    Cluster::start(Options { durable: true, ..Options::default() })
}

/// An organization with one member, a seat and a pool that no test empties.
fn with_pool(database: &Database) {
    database
        .superuser()
        .batch_execute(
            "SELECT tenancy.register_user('alice'), tenancy.register_organization('acme', 'Acme');
             SELECT tenancy.set_membership('alice', 'acme', 'member'), tenancy.set_subscription('acme', 'teams', 'active', 5);
             SELECT tenancy.assign_seat('acme', 'alice'), tenancy.grant_credits(1000000, org_id => 'acme');",
        )
        .unwrap();
}

/// Debits one pool from many sessions until the server crashes; the references of the acknowledged ones.
fn debit_until_the_crash(cluster: &Cluster, database: &Database, prelude: &str, run: usize) -> HashSet<String> {
    let acknowledged = Mutex::new(HashSet::new());
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for session in 0..SESSIONS {
            let (acknowledged, stop) = (&acknowledged, &stop);
            scope.spawn(move || {
                let mut client = database.connect("svc");
                client.batch_execute(prelude).unwrap();
                let debit = client
                    .prepare("SELECT tenancy.deduct_credits_pooled('alice', 1, 'acme', 'crash test', $1)")
                    .unwrap();
                for number in 0.. {
                    let reference = format!("{run}-{session}-{number}");
                    let charged = client.query_one(&debit, &[&reference]);
                    if stop.load(Ordering::Relaxed) || charged.is_err() {
                        return;
                    }
                    acknowledged.lock().unwrap().insert(reference);
                }
            });
        }
        std::thread::sleep(Duration::from_millis(700));
        // Only answers that came before this moment count: the crash may overtake a later one.
        stop.store(true, Ordering::Relaxed);
        cluster.crash();
    });
    acknowledged.into_inner().unwrap()
}

/// The references in the ledger, how many debits it holds, and how much the pool says was spent.
fn ledger(database: &Database) -> (HashSet<String>, i64, i64) {
    let mut client = database.superuser();
    let rows = client
        .query("SELECT reference_id FROM tenancy.credit_transactions WHERE operation_type = 'deduction'", &[])
        .unwrap();
    let spent: i64 =
        client.query_one("SELECT (1000000 - balance)::bigint FROM tenancy.credit_pools", &[]).unwrap().get(0);
    let debits = rows.len() as i64;
    (rows.into_iter().filter_map(|row| row.get::<_, Option<String>>(0)).collect(), debits, spent)
}

#[test]
fn no_acknowledged_debit_is_lost_in_a_crash() {
    let cluster = durable_cluster();
    let database = cluster.database();
    with_pool(&database);
    let mut acknowledged = HashSet::new();
    for (run, prelude) in
        ["", "SET synchronous_commit = local", "SET tenancy.early_lock_release = off"].into_iter().enumerate()
    {
        acknowledged.extend(debit_until_the_crash(&cluster, &database, prelude, run));
        cluster.resume();
        let (written, debits, spent) = ledger(&database);
        let lost: Vec<&String> = acknowledged.difference(&written).collect();
        assert!(lost.is_empty(), "{prelude:?}: {} acknowledged debits are gone: {lost:?}", lost.len());
        assert_eq!(spent, debits, "balance and ledger agree");
    }
    assert!(acknowledged.len() > 100, "only {} debits: nothing was contended", acknowledged.len());
}

#[test]
fn the_setting_of_the_session_is_as_it_was_after_every_kind_of_end() {
    let cluster = Cluster::start(Options {
        durable: true,
        settings: vec![("max_prepared_transactions", "10".into())],
        ..Options::default()
    });
    let database = cluster.database();
    with_pool(&database);
    let debit = "SELECT tenancy.deduct_credits_pooled('alice', 1, 'acme')";
    for end in ["COMMIT", "ROLLBACK", "PREPARE TRANSACTION 'p'", "SAVEPOINT s; SELECT 1/0"] {
        let (mut holder, mut waiter) = (database.connect("svc"), database.connect("svc"));
        holder.batch_execute("SET synchronous_commit = remote_write").unwrap();
        holder.batch_execute("BEGIN").unwrap();
        holder.batch_execute(&format!("SAVEPOINT a; {debit}; ROLLBACK TO a; SAVEPOINT b; {debit}; RELEASE b")).unwrap();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(move || waiter.batch_execute(debit));
            // The other session now waits for the pool's row.
            let mut watch = database.superuser();
            let waits = "SELECT count(*) FROM pg_catalog.pg_stat_activity WHERE wait_event_type = 'Lock'";
            while watch.query_one(waits, &[]).unwrap().get::<_, i64>(0) == 0 {
                std::thread::sleep(Duration::from_millis(10));
            }
            let _ = holder.batch_execute(end);
            let _ = holder.batch_execute("ROLLBACK");
            if end.starts_with("PREPARE") {
                holder.batch_execute("COMMIT PREPARED 'p'").unwrap();
            }
            waiting.join().unwrap().unwrap();
        });
        let shown: String = holder.query_one("SHOW synchronous_commit", &[]).unwrap().get(0);
        assert_eq!(shown, "remote_write", "after {end}");
    }
    let (_, debits, spent) = ledger(&database);
    assert_eq!((debits, spent), (6, 6), "four waiters, one COMMIT and one COMMIT PREPARED");
}
