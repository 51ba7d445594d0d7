//! The server is killed, or its sessions are.

use crate::common::{Cluster, Database, Options};
use crate::load::{Journal, Load, PATIENCE, a_while, connected, nothing_lost, prepare, rounds, under_load};
use postgres::Client;
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
    let deadline = Instant::now() + PATIENCE;
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
        let mut fault = |name: &str, fault: &dyn Fn(&Load)| {
            let failures = under_load(&database, &mut journal, name, fault);
            assert!(failures > 0, "{name} was not felt");
            nothing_lost(&cluster, &database, &journal, &format!("{name}, round {round}"));
        };
        fault("kill -9 of a backend", &|_| {
            let mut client = connected(&database);
            let pid = "SELECT pid FROM pg_stat_activity WHERE usename = 'svc' ORDER BY state <> 'active' LIMIT 1";
            kill(client.query_one(pid, &[]).expect("a session").get(0));
            // The server restarts: whoever asks meanwhile is cut off or turned away.
            client.query("SELECT pg_sleep(120)", &[]).expect_err("all sessions end with the killed one");
        });
        fault("kill -9 of the postmaster", &|_| kill_postmaster(&cluster));
        fault("an immediate shutdown", &|_| {
            cluster.crash();
            cluster.resume();
        });
        fault("a fast shutdown", &|_| {
            cluster.stop();
            cluster.resume();
        });
        fault("terminated sessions", &|load| signal(&database, "pg_terminate_backend", load, None));
        fault("cancelled queries", &|load| signal(&database, "pg_cancel_backend", load, Some("57014")));
        fault("statement timeouts", &|load| timeouts(&database, "statement_timeout = '2ms'", load, "57014"));
        fault("lock timeouts", &|load| timeouts(&database, "lock_timeout = '5ms'", load, "55P03"));
    }
}

/// Does it for a while, and until a request has failed with this SQLSTATE since.
fn until_felt(load: &Load, sqlstate: Option<&str>, mut again: impl FnMut()) {
    let (earlier, begun) = (load.failures(), Instant::now());
    while begun.elapsed() < a_while() || !load.failed_since(earlier, sqlstate) {
        assert!(begun.elapsed() < PATIENCE, "no request failed with {sqlstate:?}");
        again();
    }
}

/// Each session of the load, one after the other.
fn signal(database: &Database, function: &str, load: &Load, sqlstate: Option<&str>) {
    let mut client = connected(database);
    let some = format!(
        "SELECT {function}(pid) FROM pg_stat_activity WHERE usename IN ('svc', 'app') ORDER BY random() LIMIT 3"
    );
    until_felt(load, sqlstate, || {
        client.query(&some, &[]).unwrap();
        std::thread::sleep(Duration::from_millis(20));
    });
}

/// The load under a timeout, while the pools' rows are locked for longer than that.
fn timeouts(database: &Database, setting: &str, load: &Load, sqlstate: &str) {
    let mut client = connected(database);
    let name = setting.split(' ').next().expect("a name");
    let for_both = |client: &mut Client, change: &str| {
        client.batch_execute(&format!("ALTER ROLE svc {change}; ALTER ROLE app {change}")).unwrap();
        // Sessions take the settings of their role when they begin.
        let renew = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename IN ('svc', 'app')";
        client.batch_execute(renew).unwrap();
    };
    for_both(&mut client, &format!("SET {setting}"));
    until_felt(load, Some(sqlstate), || {
        let lock = "BEGIN; SELECT FROM tenancy.credit_pools FOR UPDATE; SELECT pg_sleep(0.3); ROLLBACK";
        client.batch_execute(lock).unwrap();
    });
    for_both(&mut client, &format!("RESET {name}"));
}
