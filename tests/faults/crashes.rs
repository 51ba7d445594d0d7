//! The server is killed, or its sessions are.

use crate::common::{Cluster, Options};
use crate::load::{Journal, a_while, connected, nothing_lost, prepare, rounds, under_load};
use std::process::Command;
use std::time::{Duration, Instant};

fn kill(pid: i32) {
    // As root or as the server's own user.
    let _ = Command::new("kill").args(["-9", &pid.to_string()]).status().expect("kill runs");
}

/// kill -9 of the postmaster: its children notice and end by themselves.
fn kill_postmaster(cluster: &Cluster) {
    let file = std::fs::read_to_string(cluster.data().join("postmaster.pid")).expect("the server runs");
    let pid: i32 = file.lines().next().unwrap().parse().unwrap();
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    kill(pid);
    let deadline = Instant::now() + Duration::from_secs(30);
    // Gone, and no longer a zombie: the next postmaster asks whether the pid lives.
    for process in children.split_whitespace().chain([pid.to_string().as_str()]) {
        while std::path::Path::new("/proc").join(process).exists() {
            assert!(Instant::now() < deadline, "process {process} outlives its postmaster");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    cluster.resume();
}

#[test]
fn no_acknowledged_write_is_lost_whoever_is_killed() {
    let settings = vec![
        ("log_error_verbosity", "verbose".into()),
        ("restart_after_crash", "on".into()),
        // Crashes also fall into checkpoints.
        ("checkpoint_timeout", "30s".into()),
    ];
    let cluster = Cluster::start(Options { durable: true, settings, ..Options::default() });
    let database = cluster.database();
    prepare(&database);
    let mut journal = Journal::default();
    for round in 0..rounds() {
        let mut fault = |name: &str, fault: &dyn Fn()| {
            let (before, failures) = (journal.acknowledged(), journal.failures);
            under_load(&database, &mut journal, fault);
            nothing_lost(&cluster, &database, &journal, &format!("{name}, round {round}"));
            let done = journal.acknowledged() - before;
            assert!(done > 20, "only {done} requests around {name}: there was no load");
            assert!(journal.failures > failures, "{name} was not felt");
        };
        fault("kill -9 of a backend", &|| {
            let mut client = connected(&database);
            let pid = "SELECT pid FROM pg_stat_activity WHERE usename = 'svc' AND state = 'active' OR usename = 'svc' LIMIT 1";
            kill(client.query_one(pid, &[]).expect("a session").get(0));
            std::thread::sleep(Duration::from_millis(200));
            connected(&database);
        });
        fault("kill -9 of the postmaster", &|| kill_postmaster(&cluster));
        fault("an immediate shutdown", &|| {
            cluster.crash();
            cluster.resume();
        });
        fault("a fast shutdown", &|| {
            cluster.stop();
            cluster.resume();
        });
        fault("terminated sessions", &|| signal(&mut connected(&database), "pg_terminate_backend"));
        fault("cancelled queries", &|| signal(&mut connected(&database), "pg_cancel_backend"));
        fault("statement timeouts", &|| {
            connected(&database)
                .batch_execute(
                    "ALTER ROLE svc SET statement_timeout = '2ms'; ALTER ROLE app SET statement_timeout = '2ms'",
                )
                .unwrap();
            signal(&mut connected(&database), "pg_terminate_backend");
            std::thread::sleep(a_while());
            connected(&database)
                .batch_execute("ALTER ROLE svc RESET statement_timeout; ALTER ROLE app RESET statement_timeout")
                .unwrap();
            signal(&mut connected(&database), "pg_terminate_backend");
        });
        fault("lock timeouts", &|| {
            let mut client = connected(&database);
            client
                .batch_execute("ALTER ROLE svc SET lock_timeout = '5ms'; ALTER ROLE app SET lock_timeout = '5ms'")
                .unwrap();
            signal(&mut client, "pg_terminate_backend");
            client
                .batch_execute("BEGIN; SELECT FROM tenancy.credit_pools FOR UPDATE; SELECT pg_sleep(0.5); ROLLBACK")
                .unwrap();
            client.batch_execute("ALTER ROLE svc RESET lock_timeout; ALTER ROLE app RESET lock_timeout").unwrap();
            signal(&mut client, "pg_terminate_backend");
        });
    }
}

/// Each session of the load, one after the other, for a while.
fn signal(client: &mut postgres::Client, function: &str) {
    let deadline = Instant::now() + a_while();
    while Instant::now() < deadline {
        let each = format!(
            "SELECT {function}(pid) FROM pg_stat_activity WHERE usename IN ('svc', 'app') ORDER BY random() LIMIT 3"
        );
        client.query(&each, &[]).unwrap();
        std::thread::sleep(Duration::from_millis(20));
    }
}
