//! Early lock release: what was acknowledged survives a crash and is on the standby, whatever the session's settings.

mod common;

use common::{Cluster, Database, Options};
use postgres::Client;
use std::collections::HashSet;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const SESSIONS: usize = 16;

/// So many debits are acknowledged before the server is killed.
const ENOUGH: usize = 100;

const DEBIT: &str = "SELECT tenancy.deduct_credits_pooled('alice', 1, 'acme')";

fn durable_cluster() -> Cluster {
    Cluster::start(Options {
        durable: true,
        settings: vec![("max_prepared_transactions", "10".into())],
        ..Options::default()
    })
}

/// An organization with one member, a seat and a pool that no test empties.
fn with_pool(database: &Database) {
    database
        .superuser()
        .batch_execute(
            "SELECT tenancy.register_user('alice'), tenancy.register_organization('acme', 'Acme');
             SELECT tenancy.set_membership('alice', 'acme', 'member'), tenancy.set_subscription('acme', 'teams', 'active', 5);
             SELECT tenancy.assign_seat('acme', 'alice'), tenancy.grant_credits(1000000, org_id => 'acme');
             CREATE TABLE public.work (reference text PRIMARY KEY);
             GRANT ALL ON public.work TO svc;",
        )
        .unwrap();
}

/// Waits until so many other sessions wait for a lock.
fn until_waiting(database: &Database, sessions: i64) {
    let mut watch = database.superuser();
    let waits = "SELECT count(*) FROM pg_catalog.pg_stat_activity WHERE wait_event_type = 'Lock'";
    let deadline = Instant::now() + Duration::from_secs(60);
    while watch.query_one(waits, &[]).unwrap().get::<_, i64>(0) < sessions {
        assert!(Instant::now() < deadline, "nobody waits");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Kills every process of the server at once, with SIGKILL, and waits until none is left.
fn kill(cluster: &Cluster) {
    let lock_file = cluster.data().join("postmaster.pid");
    let text = std::fs::read_to_string(&lock_file).unwrap();
    let postmaster = text.lines().next().unwrap();
    // Stopped first, so that it starts no other and the dead keep their numbers.
    let script = "kill -STOP $1; until grep -q ') T ' /proc/$1/stat; do :; done
                  all=\"$(cat /proc/$1/task/$1/children) $1\"; kill -9 $all && echo $all";
    let output = Command::new("sh").args(["-c", script, "sh", postmaster]).output().unwrap();
    assert!(output.status.success(), "the server could not be killed: {output:?}");
    for process in String::from_utf8(output.stdout).unwrap().split_whitespace() {
        let state = || std::fs::read_to_string(format!("/proc/{process}/stat"));
        while state().is_ok_and(|stat| !stat.contains(") Z ")) {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
    // Where nobody reaps the dead, Postgres would take the files for a living server's.
    std::fs::remove_file(lock_file).unwrap();
    std::fs::remove_file(cluster.folder().join(".s.PGSQL.5432.lock")).unwrap();
}

/// How the sessions of a round work: what they run first, and around each debit.
struct Manner {
    prelude: &'static str,
    before: &'static str,
    after: &'static str,
}

const MANNERS: [Manner; 5] = [
    Manner { prelude: "", before: "", after: "" },
    Manner { prelude: "SET synchronous_commit = local", before: "", after: "" },
    Manner { prelude: "", before: "BEGIN; INSERT INTO public.work VALUES ('{}')", after: "COMMIT" },
    Manner {
        prelude: "SET synchronous_commit = remote_write",
        before: "BEGIN; SAVEPOINT a; SELECT tenancy.deduct_credits_pooled('alice', 1, 'acme', 'undone'); ROLLBACK TO a; SAVEPOINT b",
        after: "RELEASE b; COMMIT",
    },
    Manner { prelude: "SET tenancy.early_lock_release = off", before: "", after: "" },
];

/// Debits one pool from many sessions until the server is killed; the references of the acknowledged ones.
fn debit_until_killed(cluster: &Cluster, database: &Database, manner: &Manner, round: usize) -> HashSet<String> {
    let acknowledged = Mutex::new(HashSet::new());
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for session in 0..SESSIONS {
            let (acknowledged, stop) = (&acknowledged, &stop);
            scope.spawn(move || {
                let mut client = database.connect("svc");
                client.batch_execute(manner.prelude).unwrap();
                let debit = client
                    .prepare("SELECT tenancy.deduct_credits_pooled('alice', 1, 'acme', 'crash test', $1)")
                    .unwrap();
                for number in 0.. {
                    let reference = format!("{round}-{session}-{number}");
                    let charged = client
                        .batch_execute(&manner.before.replace("{}", &reference))
                        .and_then(|()| client.query_one(&debit, &[&reference]))
                        .and_then(|_| client.batch_execute(manner.after));
                    if stop.load(Ordering::Relaxed) || charged.is_err() {
                        return;
                    }
                    acknowledged.lock().unwrap().insert(reference);
                }
            });
        }
        let deadline = Instant::now() + Duration::from_secs(120);
        while acknowledged.lock().unwrap().len() < ENOUGH && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
        std::thread::sleep(Duration::from_millis(200 + 37 * (round as u64 % 11)));
        // Only answers that came before this moment count: the kill may overtake a later one.
        stop.store(true, Ordering::Relaxed);
        kill(cluster);
    });
    let acknowledged = acknowledged.into_inner().unwrap();
    assert!(acknowledged.len() >= ENOUGH, "round {round}: the load did not go on");
    acknowledged
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

fn verifies(database: &Database) {
    let found =
        database.superuser().query("SELECT rule, object, expected, found FROM tenancy.verify_ledger()", &[]).unwrap();
    assert!(found.is_empty(), "verify_ledger: {found:?}");
}

/// PGT_ROUNDS: how many kills; five, one in each manner, unless it says otherwise.
#[test]
fn early_release_loses_no_acknowledged_debit_when_killed() {
    let rounds = std::env::var("PGT_ROUNDS").map_or(MANNERS.len(), |rounds| rounds.parse().unwrap());
    let cluster = durable_cluster();
    let database = cluster.database();
    with_pool(&database);
    for round in 0..rounds {
        let manner = &MANNERS[round % MANNERS.len()];
        let acknowledged = debit_until_killed(&cluster, &database, manner, round);
        cluster.resume();
        let (written, debits, spent) = ledger(&database);
        let lost: Vec<&String> = acknowledged.difference(&written).collect();
        assert!(lost.is_empty(), "round {round}: {} acknowledged debits are gone: {lost:?}", lost.len());
        assert_eq!(spent, debits, "round {round}: balance and ledger agree");
        if manner.before.contains("public.work") {
            let done = database.superuser().query("SELECT reference FROM public.work", &[]).unwrap();
            let done: HashSet<String> = done.iter().map(|row| row.get(0)).collect();
            assert!(acknowledged.is_subset(&done), "round {round}: the work that was paid is there");
            assert!(done.iter().all(|reference| written.contains(reference)), "round {round}: none is unpaid");
        }
        if rounds > MANNERS.len() {
            println!("round {round}: {} acknowledged debits, all there", acknowledged.len());
            if round % 20 == 0 {
                verifies(&database);
            }
        }
    }
    verifies(&database);
}

/// Where `holder` has debited in a transaction, lets another session wait for the pool and ends the holder's transaction.
fn end_while_awaited(database: &Database, holder: &mut Client, end: &str) -> Result<(), postgres::Error> {
    let mut waiter = database.connect("svc");
    std::thread::scope(|scope| {
        let waiting = scope.spawn(move || waiter.batch_execute(DEBIT));
        until_waiting(database, 1);
        let ended = holder.batch_execute(end);
        let _ = holder.batch_execute("ROLLBACK");
        if end.starts_with("PREPARE") {
            holder.batch_execute("COMMIT PREPARED 'p'").unwrap();
        }
        waiting.join().unwrap().unwrap();
        ended
    })
}

#[test]
fn early_release_leaves_the_sessions_setting_after_every_kind_of_end() {
    let cluster = durable_cluster();
    let database = cluster.database();
    with_pool(&database);
    let mut expected = 0;
    for level in ["off", "local", "remote_write", "on", "remote_apply"] {
        for end in ["COMMIT", "ROLLBACK", "PREPARE TRANSACTION 'p'", "SAVEPOINT s; SELECT 1/0"] {
            let mut holder = database.connect("svc");
            holder.batch_execute(&format!("SET synchronous_commit = {level}")).unwrap();
            holder.batch_execute("BEGIN").unwrap();
            holder
                .batch_execute(&format!("SAVEPOINT a; {DEBIT}; ROLLBACK TO a; SAVEPOINT b; {DEBIT}; RELEASE b"))
                .unwrap();
            let ended = end_while_awaited(&database, &mut holder, end);
            assert_eq!(ended.is_ok(), !end.contains("1/0"), "{end}");
            let shown: String = holder.query_one("SHOW synchronous_commit", &[]).unwrap().get(0);
            assert_eq!(shown, level, "after {end}");
            expected += if end.starts_with("COMMIT") || end.starts_with("PREPARE") { 2 } else { 1 };
        }
    }
    let (_, debits, spent) = ledger(&database);
    assert_eq!((debits, spent), (expected, expected));
    verifies(&database);
}

/// A SERIALIZABLE transaction that is doomed learns it after the flush was put off.
#[test]
fn early_release_is_taken_back_when_the_commit_itself_fails() {
    let cluster = durable_cluster();
    let database = cluster.database();
    with_pool(&database);
    database.superuser().batch_execute("INSERT INTO public.work VALUES ('a'), ('b')").unwrap();
    let (mut first, mut second) = (database.connect("svc"), database.connect("svc"));
    let look = "BEGIN ISOLATION LEVEL SERIALIZABLE; SELECT count(*) FROM public.work";
    first.batch_execute("SET synchronous_commit = remote_write").unwrap();
    first.batch_execute(look).unwrap();
    second.batch_execute(look).unwrap();
    first.batch_execute(&format!("{DEBIT}; UPDATE public.work SET reference = 'a2' WHERE reference = 'a'")).unwrap();
    second.batch_execute("UPDATE public.work SET reference = 'b2' WHERE reference = 'b'; COMMIT").unwrap();
    let failed = end_while_awaited(&database, &mut first, "COMMIT").unwrap_err();
    assert_eq!(failed.code().map(|code| code.code()), Some("40001"), "{failed}");
    let shown: String = first.query_one("SHOW synchronous_commit", &[]).unwrap().get(0);
    assert_eq!(shown, "remote_write");
    let (_, debits, spent) = ledger(&database);
    assert_eq!((debits, spent), (1, 1), "the waiter's alone");
    verifies(&database);
}

#[test]
fn early_release_waits_for_synchronous_standbys_as_the_session_asked() {
    let primary = durable_cluster();
    let database = primary.database();
    with_pool(&database);
    let standby = primary.standby();
    primary.set("synchronous_standby_names", "*");
    primary.reload();
    let synchronous = "SELECT count(*) FROM pg_catalog.pg_stat_replication WHERE sync_state = 'sync'";
    let deadline = Instant::now() + Duration::from_secs(60);
    while database.superuser().query_one(synchronous, &[]).unwrap().get::<_, i64>(0) == 0 {
        assert!(Instant::now() < deadline, "the standby is not synchronous");
        std::thread::sleep(Duration::from_millis(50));
    }

    // Applied there when it is acknowledged here: the standby shows every debit at once.
    std::thread::scope(|scope| {
        for session in 0..6 {
            let (database, standby) = (&database, &standby);
            scope.spawn(move || {
                let mut client = database.connect("svc");
                let mut there = standby.connect(&database.name, "postgres");
                client.batch_execute("SET synchronous_commit = remote_apply").unwrap();
                for number in 0..15 {
                    let reference = format!("{session}-{number}");
                    let debit = "SELECT tenancy.deduct_credits_pooled('alice', 1, 'acme', 'standby', $1)";
                    client.query_one(debit, &[&reference]).unwrap();
                    let shown = "SELECT count(*) FROM tenancy.credit_transactions WHERE reference_id = $1";
                    let shown: i64 = there.query_one(shown, &[&reference]).unwrap().get(0);
                    assert_eq!(shown, 1, "{reference} was acknowledged before the standby had applied it");
                }
            });
        }
    });

    // With the standby away nobody is answered who asked for it; the pool's lock goes round all the same.
    standby.stop();
    let answered = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        let mut holder = database.connect("svc");
        holder.batch_execute(&format!("SET synchronous_commit = local; BEGIN; {DEBIT}")).unwrap();
        for level in ["on", "remote_write", "remote_apply", "local", "on"] {
            let (database, answered) = (&database, &answered);
            scope.spawn(move || {
                let mut client = database.connect("svc");
                client.batch_execute(&format!("SET synchronous_commit = {level}")).unwrap();
                client.batch_execute(DEBIT).unwrap();
                answered.lock().unwrap().push(level);
            });
        }
        until_waiting(&database, 5);
        holder.batch_execute("COMMIT").unwrap();
        std::thread::sleep(Duration::from_millis(1500));
        let early: Vec<&str> = answered.lock().unwrap().clone();
        primary.set("synchronous_standby_names", "");
        primary.reload();
        // The last in the queue has nobody behind it: it holds the lock while it waits, as Postgres does.
        assert!(early.iter().all(|level| *level == "local"), "answered without the standby: {early:?}");
    });
    assert_eq!(answered.into_inner().unwrap().len(), 5);

    // Seen, but not yet on the standby: whoever asks again with its key is not answered either.
    primary.set("synchronous_standby_names", "*");
    primary.reload();
    const KEYED: &str = "SELECT tenancy.deduct_credits('alice', 1, 'acme', idempotency_key => 'k')";
    let answered = Mutex::new(Vec::new());
    let answer = |name, client: &mut Client, statement: &str| {
        client.batch_execute(statement).unwrap();
        answered.lock().unwrap().push(name);
    };
    std::thread::scope(|scope| {
        let (database, answer) = (&database, &answer);
        let mut holder = database.connect("svc");
        holder.batch_execute(&format!("SET synchronous_commit = on; BEGIN; {KEYED}")).unwrap();
        scope.spawn(|| {
            database.connect("svc").batch_execute(&format!("SET synchronous_commit = local; {DEBIT}")).unwrap()
        });
        until_waiting(database, 1);
        scope.spawn(move || answer("first", &mut holder, "COMMIT"));
        let mut watch = database.superuser();
        let shown = "SELECT count(*) FROM tenancy.credit_idempotency WHERE key = 'k'";
        let deadline = Instant::now() + Duration::from_secs(60);
        while watch.query_one(shown, &[]).unwrap().get::<_, i64>(0) == 0 {
            assert!(Instant::now() < deadline, "the lock was not released early");
            std::thread::sleep(Duration::from_millis(20));
        }
        scope.spawn(move || {
            answer("again", &mut database.connect("svc"), &format!("SET synchronous_commit = on; {KEYED}"))
        });
        std::thread::sleep(Duration::from_millis(1500));
        let early: Vec<&str> = answered.lock().unwrap().clone();
        // Before it is judged: a scope waits for those it started.
        primary.set("synchronous_standby_names", "");
        primary.reload();
        assert!(early.is_empty(), "answered without the standby: {early:?}");
    });
    assert_eq!(answered.into_inner().unwrap().len(), 2);
    verifies(&database);
}

/// A turn is given up with the savepoint it was taken in, and never makes two sessions wait for each other.
#[test]
fn early_release_turns_follow_savepoints_and_other_ways_to_the_pool() {
    let cluster = durable_cluster();
    let database = cluster.database();
    with_pool(&database);
    let mut holder = database.connect("svc");
    holder.batch_execute(&format!("BEGIN; SAVEPOINT a; {DEBIT}; ROLLBACK TO a")).unwrap();
    database.connect("svc").batch_execute(&format!("SET lock_timeout = '5s'; {DEBIT}")).unwrap();
    // The same transaction locks the pool by a grant and then charges it, while others queue.
    let mut owner = database.superuser();
    owner.batch_execute("BEGIN; SELECT tenancy.grant_credits(5, org_id => 'acme')").unwrap();
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| database.connect("svc").batch_execute(DEBIT).unwrap());
        }
        until_waiting(&database, 3);
        owner.batch_execute(&format!("SELECT tenancy.sweep_credits(); {DEBIT}; COMMIT")).unwrap();
    });
    holder.batch_execute(&format!("{DEBIT}; COMMIT")).unwrap();
    // More pools than turns in one transaction: the rest are locked without.
    let many = "SELECT tenancy.register_user('u' || i), tenancy.grant_credits(5, user_id => 'u' || i)
                  FROM generate_series(1, 40) AS i";
    owner.batch_execute(many).unwrap();
    let all = "SELECT tenancy.deduct_credits('u' || i, 1) FROM generate_series(1, 40) AS i";
    owner.batch_execute(&format!("BEGIN; {all}")).unwrap();
    let locks = |client: &mut Client| {
        let held = "SELECT count(*) FROM pg_catalog.pg_locks WHERE locktype = 'advisory'";
        client.query_one(held, &[]).unwrap().get::<_, i64>(0)
    };
    // Of the turns it takes, two may fall on one of the 1024 gates by chance, and the later one is a lock then.
    let by_chance = locks(&mut owner);
    assert!(by_chance < 5, "a turn that nobody waits for takes no lock: {by_chance}");
    std::thread::scope(|scope| {
        for user in [1, 40] {
            let database = &database;
            let debit = format!("SELECT tenancy.deduct_credits('u{user}', 1)");
            scope.spawn(move || database.connect("svc").batch_execute(&debit).unwrap());
        }
        until_waiting(&database, 2);
        let waiting = locks(&mut owner) - by_chance;
        assert!((1..=2).contains(&waiting), "who waits long waits in the queue of a lock: {waiting}");
        owner.batch_execute(&format!("{all}; COMMIT")).unwrap();
    });
    verifies(&database);
}

/// Whoever waits for a turn can be stopped, and what it leaves behind keeps nobody waiting.
#[test]
fn early_release_a_wait_for_a_turn_can_be_interrupted() {
    let cluster = durable_cluster();
    let database = cluster.database();
    with_pool(&database);
    let mut holder = database.connect("svc");
    holder.batch_execute(&format!("BEGIN; {DEBIT}")).unwrap();
    for (limit, expected) in [
        ("statement_timeout = '30ms'", "57014"),
        ("statement_timeout = '150ms'", "57014"),
        ("lock_timeout = '30ms'", "55P03"),
        ("lock_timeout = '300ms'", "55P03"),
    ] {
        let refused = database.connect("svc").batch_execute(&format!("SET {limit}; {DEBIT}")).unwrap_err();
        assert_eq!(refused.code().map(|state| state.code().to_owned()).as_deref(), Some(expected), "{limit}");
    }
    std::thread::scope(|scope| {
        let doomed = scope.spawn(|| database.connect("svc").batch_execute(DEBIT));
        let mut owner = database.superuser();
        let kill = "SELECT count(*) FILTER (WHERE pg_catalog.pg_terminate_backend(pid)) FROM pg_catalog.pg_stat_activity
                     WHERE wait_event_type IN ('Extension', 'Lock') AND query LIKE '%deduct_credits%' AND pid <> pg_backend_pid()";
        let deadline = Instant::now() + Duration::from_secs(60);
        while owner.query_one(kill, &[]).unwrap().get::<_, i64>(0) == 0 {
            assert!(Instant::now() < deadline, "nobody waits");
        }
        assert!(doomed.join().unwrap().is_err());
    });
    holder.batch_execute("COMMIT").unwrap();
    // Nobody has the turn and nobody waits for it: these come one after the other.
    for _ in 0..3 {
        database.connect("svc").batch_execute(&format!("SET statement_timeout = '60s'; {DEBIT}")).unwrap();
    }
    verifies(&database);
}
