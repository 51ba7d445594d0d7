//! Cases 28 to 30 and 40 to 42: crashes, prepared transactions, standbys, copies, a full disk.

use crate::common::{Cluster, Options, Token, as_server, fails_with, refused};
use crate::world::{ACME, World, ask, assert_verified, shown};
use postgres::Client;
use std::collections::HashMap;
use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, Instant};

fn durable() -> Cluster {
    Cluster::start(Options { durable: true, ..Options::default() })
}

#[track_caller]
fn eventually(what: &str, mut ready: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !ready() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(30));
    }
}

/// The server's own process.
fn postmaster(cluster: &Cluster) -> String {
    let file = std::fs::read_to_string(cluster.data().join("postmaster.pid")).expect("the server runs");
    file.lines().next().expect("a pid").to_owned()
}

fn run(program: &str, arguments: &[&str]) {
    let status = Command::new(program).args(arguments).status().unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(status.success(), "{program} {arguments:?}");
}

fn keyed(client: &mut Client, key: &str) -> Result<String, postgres::Error> {
    ask(
        client,
        &format!("SELECT transaction_id FROM tenancy.deduct_credits('ada', 1, 'org_acme', idempotency_key => '{key}')"),
    )
}

#[test]
fn credits_28_a_killed_server_loses_nothing_it_acknowledged_and_a_retry_charges_once() {
    let cluster = durable();
    let mut world = World::on(&cluster);
    world.fund(ACME, "100000");
    let acknowledged: Mutex<HashMap<String, String>> = Mutex::default();
    for round in 0..3 {
        let asked: Vec<String> = std::thread::scope(|scope| {
            let sessions: Vec<_> = (0..6)
                .map(|session| {
                    let (database, acknowledged) = (&world.database, &acknowledged);
                    scope.spawn(move || {
                        let mut client = database.connect("svc");
                        for number in 0.. {
                            let key = format!("{round}-{session}-{number}");
                            match keyed(&mut client, &key) {
                                Ok(id) => drop(acknowledged.lock().expect("the list").insert(key, id)),
                                // The last one: whether it was charged before the end, the client cannot know.
                                Err(_) => return key,
                            }
                        }
                        unreachable!()
                    })
                })
                .collect();
            // One backend of the server is killed in the middle of its work; the server ends all of them and recovers.
            std::thread::sleep(Duration::from_millis(350 + 90 * round));
            let busy = "SELECT pid FROM pg_stat_activity WHERE usename = 'svc' ORDER BY state = 'active' DESC LIMIT 1";
            let pid = shown(&mut world.admin, busy);
            run("kill", &["-9", &pid]);
            world.admin = world.database.back_from_crash(&mut world.admin);
            sessions.into_iter().map(|session| session.join().expect("a session")).collect()
        });
        let mut service = world.service();
        for key in asked {
            // A retry is either the first answer or the first charge, never a second.
            let id = keyed(&mut service, &key).expect("the server is back");
            assert_eq!(keyed(&mut service, &key).expect("again"), id);
            acknowledged.lock().expect("the list").insert(key, id);
        }
    }
    let acknowledged = acknowledged.into_inner().expect("the list");
    let rows = shown(
        &mut world.admin,
        "SELECT i.key, t.id FROM tenancy.credit_transactions t JOIN tenancy.credit_idempotency i ON i.result_id = t.id",
    );
    let written: HashMap<String, String> = rows
        .lines()
        .map(|line| line.split_once('|').expect("two columns"))
        .map(|(key, id)| (key.into(), id.into()))
        .collect();
    assert_eq!(written, acknowledged, "what was answered is what is written");
    assert!(acknowledged.len() > 50, "only {} debits", acknowledged.len());
    assert_eq!(world.available(ACME), format!("{}.000000", 100_000 - acknowledged.len()));
    assert_verified(&mut world.admin);
}

#[test]
fn credits_28_what_was_not_committed_is_gone_after_a_kill() {
    let cluster = durable();
    let mut world = World::on(&cluster);
    world.fund(ACME, "100");
    keyed(&mut world.service(), "kept").expect("it commits");
    let mut open = world.service();
    let pid = shown(&mut open, "BEGIN; SELECT pg_backend_pid()");
    shown(&mut open, "SELECT tenancy.deduct_credits('ada', 50, 'org_acme', idempotency_key => 'lost')");
    shown(&mut open, "SELECT tenancy.hold_credits('ada', 20, 'org_acme')");
    run("kill", &["-9", &pid]);
    world.admin = world.database.back_from_crash(&mut world.admin);
    assert_eq!((world.available(ACME).as_str(), world.entries()), ("99.000000", 2));
    assert_verified(&mut world.admin);
}

#[test]
fn credits_29_a_prepared_transaction_is_charged_when_it_is_committed() {
    let cluster =
        Cluster::start(Options { settings: vec![("max_prepared_transactions", "5".into())], ..Options::default() });
    let mut world = World::on(&cluster);
    world.fund(ACME, "100");
    let token = Token::for_member("ada", ACME).sign();
    let mut app = world.app();
    for (name, end, left) in [("one", "COMMIT", "95.000000"), ("two", "ROLLBACK", "95.000000")] {
        shown(&mut app, &format!("BEGIN; SELECT tenancy.authenticate('{token}'); SELECT tenancy.spend_credits(5)"));
        shown(&mut app, &format!("PREPARE TRANSACTION '{name}'"));
        assert_eq!(
            shown(&mut app, "SELECT coalesce(tenancy.user_id(), 'nobody')"),
            "nobody",
            "the identity ended with it"
        );
        // Who comes next waits for how it ends, as for any open transaction.
        let mut waiter = world.service();
        shown(&mut waiter, "SET lock_timeout = '100 ms'");
        fails_with(ask(&mut waiter, "SELECT tenancy.deduct_credits('bea', 5, 'org_acme')"), "55P03");
        shown(&mut app, &format!("{end} PREPARED '{name}'"));
        assert_eq!(world.available(ACME), left);
    }
    assert_verified(&mut world.admin);
    // Where the server has no room for them, its own answer, and nothing written.
    let mut world = World::on(crate::common::cluster());
    world.fund(ACME, "100");
    let mut service = world.service();
    shown(&mut service, "BEGIN; SELECT tenancy.deduct_credits('ada', 5, 'org_acme')");
    fails_with(ask(&mut service, "PREPARE TRANSACTION 'one'"), "55000");
    assert_eq!(world.available(ACME), "100.000000");
}

#[test]
fn credits_30_a_standby_reads_balances_and_charges_nothing() {
    let first = Cluster::start(Options::default());
    let mut world = World::on(&first);
    world.fund(ACME, "100");
    shown(&mut world.service(), "SELECT tenancy.deduct_credits('ada', 1, 'org_acme')");
    shown(&mut world.service(), "SELECT tenancy.hold_credits('ada', 10, 'org_acme', interval '1 ms')");
    shown(&mut world.operator(), "SELECT count(*) FROM tenancy.seal_ledger()");
    let second = first.standby();
    let on_standby = |role: &str| second.connect(&world.database.name, role);
    let at = shown(&mut world.admin, "SELECT pg_current_wal_flush_lsn()");
    let mut watcher = on_standby("postgres");
    eventually("the standby catches up", || {
        shown(&mut watcher, &format!("SELECT pg_last_wal_replay_lsn() >= '{at}'")) == "t"
    });
    let mut service = on_standby("svc");
    for call in [
        "tenancy.deduct_credits_pooled('ada', 5, 'org_acme')",
        "tenancy.deduct_credits('ada', 5, 'org_acme', idempotency_key => 'k')",
        "tenancy.hold_credits('ada', 5, 'org_acme')",
        "tenancy.deduct_credits_batch('[{\"user_id\": \"ada\", \"amount\": 5, \"org_id\": \"org_acme\"}]')",
        "tenancy.consume_credits('ada', 'org_acme', 'cj_comparison', 1)",
    ] {
        fails_with(ask(&mut service, &format!("SELECT {call}")), "25006");
    }
    let mut operator = on_standby("ops");
    fails_with(ask(&mut operator, "SELECT tenancy.grant_credits(5, org_id => 'org_acme')"), "25006");
    // The hold is over, though nobody has settled it.
    let balance = "SELECT total, used, held, available FROM tenancy.credit_balance('org_acme')";
    assert_eq!(shown(&mut operator, balance), "100.000000|1.000000|0.000000|99.000000");
    assert_eq!(
        shown(&mut service, "SELECT allowed FROM tenancy.check_credits('ada', 'org_acme', '{\"cj_comparison\": 99}')"),
        "t"
    );
    assert_eq!(shown(&mut operator, "SELECT count(*) FROM tenancy.verify_ledger()"), "0");
    let mut app = on_standby("app");
    let token = Token::for_member("ada", ACME).sign();
    shown(&mut app, &format!("BEGIN; SELECT tenancy.authenticate('{token}')"));
    assert_eq!(shown(&mut app, "SELECT available FROM tenancy.credit_balance()"), "99.000000");
    fails_with(ask(&mut app, "SELECT tenancy.spend_credits(1)"), "25006");
}

/// Charges, holds, a refund, an expiry, caps, alerts, a sealed chain.
fn lived_in(world: &mut World) {
    world.fund(ACME, "100");
    world.fund_user("ada", "10");
    let mut operator = world.operator();
    shown(
        &mut operator,
        "SELECT tenancy.set_member_cap('org_acme', 'ada', 60, 'month'), tenancy.set_credit_alerts('{20}', 'org_acme')",
    );
    shown(
        &mut operator,
        "SELECT tenancy.grant_credits(5, org_id => 'org_acme', priority => -1, expires_at => clock_timestamp() + interval '1500 ms')",
    );
    let mut service = world.service();
    let charge = shown(&mut service, "SELECT transaction_id FROM tenancy.deduct_credits('ada', 30, 'org_acme')");
    shown(&mut service, "SELECT tenancy.deduct_credits('ada', 1.25)");
    shown(&mut service, "SELECT tenancy.capture_hold(tenancy.hold_credits('ada', 5, 'org_acme'), 2.5)");
    shown(&mut service, "SELECT tenancy.hold_credits('bea', 3, 'org_acme', '1 day')");
    shown(&mut operator, "SELECT count(*) FROM tenancy.seal_ledger()");
    keyed(&mut service, "kept").expect("charged");
    std::thread::sleep(Duration::from_millis(1600));
    shown(&mut service, &format!("SELECT tenancy.refund_credits('{charge}', 28)"));
    shown(&mut operator, "SELECT tenancy.sweep_credits()");
}

#[test]
fn credits_40_a_dumped_and_restored_ledger_verifies_clean() {
    let mut world = World::on(crate::common::cluster());
    lived_in(&mut world);
    let cluster = crate::common::cluster();
    let (from, to) = (world.database.name.clone(), format!("{}_copy", world.database.name));
    let before = world.figures();
    let file = cluster.folder().join(format!("{from}.dump"));
    let file = file.to_str().expect("UTF-8");
    // The server's user may not write everywhere the test may, and the other way round: the dump goes through us.
    let dump = cluster.client("pg_dump", &["-Fc", "-d", &from]);
    assert!(dump.status.success(), "{}", String::from_utf8_lossy(&dump.stderr));
    std::fs::write(file, &dump.stdout).expect("a dump can be kept");
    shown(&mut world.admin, &format!("CREATE DATABASE {to}"));
    run("chmod", &["644", file]);
    let restore = cluster.client("pg_restore", &["-d", &to, "--exit-on-error", file]);
    assert!(restore.status.success(), "{}", String::from_utf8_lossy(&restore.stderr));
    world.admin = cluster.connect(&to, "postgres");
    assert_eq!(world.figures(), before);
    assert_verified(&mut world.admin);
    let mut service = cluster.connect(&to, "svc");
    let first = "SELECT result_id FROM tenancy.credit_idempotency WHERE key = 'kept'";
    assert_eq!(keyed(&mut service, "kept").expect("a replay"), shown(&mut world.admin, first));
    assert_eq!(world.figures(), before);
    shown(&mut service, "SELECT tenancy.deduct_credits('ada', 1, 'org_acme')");
    shown(&mut cluster.connect(&to, "ops"), "SELECT count(*) FROM tenancy.seal_ledger()");
    assert_verified(&mut world.admin);
}

#[test]
fn credits_41_logical_replication_copies_debits_and_makes_none() {
    let cluster = Cluster::start(Options { settings: vec![("wal_level", "logical".into())], ..Options::default() });
    let mut world = World::on(&cluster);
    lived_in(&mut world);
    let published = "tenants, users, organizations, organization_memberships, organization_subscriptions, organization_seats,
        credit_pools, credit_transactions, credit_grants, credit_holds, credit_draws, credit_returns, credit_idempotency,
        credit_caps, credit_links, credit_operations";
    let tables: Vec<String> = published.split(',').map(|table| format!("tenancy.{}", table.trim())).collect();
    shown(&mut world.admin, &format!("CREATE PUBLICATION ledger FOR TABLE {}", tables.join(", ")));
    shown(&mut world.admin, "SELECT pg_create_logical_replication_slot('ledger', 'pgoutput')");
    let copy = cluster.database();
    let mut reader = copy.superuser();
    let source = format!("host={} dbname={} user=postgres", cluster.folder().display(), world.database.name);
    shown(
        &mut reader,
        &format!(
            "CREATE SUBSCRIPTION ledger CONNECTION '{source}' PUBLICATION ledger WITH (create_slot = false, slot_name = 'ledger')"
        ),
    );
    eventually("the tables are copied", || {
        shown(&mut reader, "SELECT count(*) > 0 AND bool_and(srsubstate IN ('r', 's')) FROM pg_subscription_rel") == "t"
    });
    let mut service = world.service();
    shown(
        &mut service,
        "SELECT tenancy.deduct_credits('ada', 2, 'org_acme'), tenancy.deduct_credits('bea', 3, 'org_acme')",
    );
    shown(&mut world.operator(), "SELECT count(*) FROM tenancy.seal_ledger()");
    let state = "SELECT pool_id, balance, held, seq FROM tenancy.credit_pools ORDER BY 1;
        SELECT pool_id, seq, id, credits_amount FROM tenancy.credit_transactions ORDER BY 1, 2;
        SELECT pool_id, seq FROM tenancy.credit_links ORDER BY 1, 2";
    let expected = shown(&mut world.admin, state);
    eventually("the changes are replayed", || shown(&mut reader, state) == expected);
    assert_verified(&mut reader);
    // A request that was answered there is answered here, and not charged again.
    let mut there = copy.connect("svc");
    let first = keyed(&mut service, "kept").expect("a replay");
    assert_eq!(keyed(&mut there, "kept").expect("a replay"), first);
    assert_eq!(shown(&mut reader, state), expected);
    shown(
        &mut reader,
        "ALTER SUBSCRIPTION ledger DISABLE; ALTER SUBSCRIPTION ledger SET (slot_name = NONE); DROP SUBSCRIPTION ledger",
    );
    assert_verified(&mut world.admin);
}

#[test]
fn credits_42_a_full_disk_and_a_panic_lose_nothing() {
    let cluster = durable();
    let mut world = World::on(&cluster);
    world.fund(ACME, "1000000");
    // No file may grow beyond 8 MB: half of a fresh segment of the log can be written, then the server PANICs.
    shown(&mut world.admin, "SELECT pg_switch_wal()");
    // The next segment's file is made, at its full size, with the first thing that is written to it.
    shown(&mut world.admin, "SELECT pg_logical_emit_message(true, 'case 42', 'begins the segment')");
    let limited = as_server("prlimit").args(["--pid", &postmaster(&cluster), "--fsize=8388608:8388608"]).status();
    assert!(limited.expect("prlimit runs").success());
    let mut service = world.service();
    let mut acknowledged = 0;
    let debits = "SELECT count(*) FROM generate_series(1, 200) AS i,
        LATERAL tenancy.deduct_credits('ada', 1, 'org_acme', metadata => jsonb_build_object('text', repeat(i::text, 300))) AS d";
    let deadline = Instant::now() + Duration::from_secs(60);
    while ask(&mut service, debits).is_ok() {
        acknowledged += 200;
        assert!(Instant::now() < deadline, "the disk does not get full: {acknowledged}");
    }
    // Every backend ends with the PANIC; so did whoever waited.
    eventually("the server PANICs", || cluster.log().contains("PANIC"));
    // It may be recovering or have given up by itself.
    let data = cluster.data();
    cluster.client("pg_ctl", &["-D", data.to_str().expect("UTF-8"), "-m", "immediate", "-w", "stop"]);
    eventually("the server ends", || !data.join("postmaster.pid").exists());
    cluster.resume();
    world.admin = world.database.superuser();
    let charged: i64 =
        shown(&mut world.admin, "SELECT count(*) FROM tenancy.credit_transactions WHERE operation_type = 'deduction'")
            .parse()
            .expect("a count");
    assert!(charged >= acknowledged && acknowledged > 0, "{acknowledged} acknowledged, {charged} written");
    assert!(charged <= acknowledged + 200);
    assert_eq!(world.available(ACME), format!("{}.000000", 1_000_000 - charged));
    assert_verified(&mut world.admin);
    refused(
        ask(&mut world.service(), "SELECT tenancy.deduct_credits('zoe', 1, 'org_acme')"),
        "PT403",
        "no_active_seat",
    );
    shown(&mut world.service(), "SELECT tenancy.deduct_credits('ada', 1, 'org_acme')");
    assert_verified(&mut world.admin);
}
