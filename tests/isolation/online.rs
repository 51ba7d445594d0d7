//! The online protection of a live table: clients read and write it all the while, and it is interrupted twice.
//! The long form of the first test, with a million rows: `make soak-online`.

use crate::common::{Database, disconnected, fails_with, refused};
use crate::world::{as_tenant, column, noticed, shop, take_notices, token_of, value};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const TENANTS: u32 = 4;
const CALL: &str = "CALL tenancy.protect_table_online('shop.orders', composite_keys => true,
    mapping_table => 'shop.org_tenants', mapping_key => 'org', batch_size => 2000)";

fn rows() -> u32 {
    std::env::var("PGT_ONLINE_ROWS").map_or(40_000, |rows| rows.parse().expect("PGT_ONLINE_ROWS is a number"))
}

fn live_table() -> Database<'static> {
    let database = shop();
    database
        .connect("ops")
        .batch_execute(&format!(
            "CREATE TABLE shop.orders (id bigint PRIMARY KEY, org text NOT NULL, quantity integer NOT NULL DEFAULT 0, note text);
             CREATE TABLE shop.lines (id bigint PRIMARY KEY, order_id bigint REFERENCES shop.orders ON DELETE CASCADE, tenant_id text NOT NULL);
             CREATE TABLE shop.org_tenants (org text PRIMARY KEY, tenant_id text NOT NULL);
             INSERT INTO shop.org_tenants SELECT 'org-' || t, 'tenant-' || t FROM generate_series(0, {TENANTS} - 1) t;
             INSERT INTO shop.orders SELECT i, 'org-' || i % {TENANTS}, 0, 'a note of some length' FROM generate_series(1, {rows}) i;
             INSERT INTO shop.lines SELECT i, i, 'tenant-' || i % {TENANTS} FROM generate_series(1, 1000) i;
             GRANT SELECT, INSERT, UPDATE, DELETE ON shop.orders TO app;
             ANALYZE shop.orders",
            rows = rows()
        ))
        .unwrap();
    database
}

/// pgbench as `app`, again and again until told to stop: each transaction authenticates, then reads, changes and adds
/// rows of its own tenant. What it printed, where it was not content.
fn clients(database: &Database, stop: &AtomicBool) -> Vec<String> {
    let folder = database.cluster().folder().join(&database.name);
    std::fs::create_dir_all(&folder).unwrap();
    let mut arguments: Vec<String> = Vec::new();
    for tenant in 0..TENANTS {
        let script = folder.join(format!("script-{tenant}"));
        let text = format!(
            "\\set id random(1, {last} / {TENANTS} - 1) * {TENANTS} + {tenant}
             \\set fresh random(1, 1000000000) * 1000000 + :client_id * 1000 + {tenant}
             BEGIN;
             SELECT tenancy.authenticate('{token}');
             SELECT quantity FROM shop.orders WHERE id = :id AND org = 'org-{tenant}';
             UPDATE shop.orders SET quantity = quantity + 1 WHERE id = :id AND org = 'org-{tenant}';
             INSERT INTO shop.orders (id, org) VALUES (:fresh, 'org-{tenant}');
             COMMIT;\n",
            last = rows(),
            token = token_of(&format!("tenant-{tenant}")),
        );
        std::fs::write(&script, text).unwrap();
        arguments.extend(["-f".to_string(), script.to_str().unwrap().to_string()]);
    }
    let mut complaints = Vec::new();
    while !stop.load(Ordering::SeqCst) {
        let Output { stdout, stderr, status } = Command::new(wrapper("pgbench"))
            .args(["-n", "-M", "prepared", "-U", "app", "-c", "4", "-j", "1", "-T", "3", "-l"])
            .args(["--log-prefix", folder.join("log").to_str().unwrap()])
            .args(&arguments)
            .arg(&database.name)
            .env("PGHOST", database.cluster().folder())
            .output()
            .expect("pgbench runs");
        let (said, complained) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
        if !status.success() || !complained.is_empty() || !said.contains("number of failed transactions: 0 ") {
            complaints.push(format!("{complained}{said}"));
        }
    }
    complaints
}

fn wrapper(program: &str) -> std::path::PathBuf {
    let folder = std::env::var_os("PGT_BIN").expect("PGT_BIN names the server's programs: run `make test`");
    std::path::Path::new(&folder).join(program)
}

/// The longest transaction any client saw, and how many there were.
fn longest_stall(database: &Database) -> (Duration, usize) {
    let folder = database.cluster().folder().join(&database.name);
    let mut longest = 0u64;
    let mut count = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if !path.file_name().unwrap().to_str().unwrap().starts_with("log") {
            continue;
        }
        for line in std::fs::read_to_string(path).unwrap().lines() {
            longest = longest.max(line.split(' ').nth(2).unwrap().parse().unwrap());
            count += 1;
        }
    }
    (Duration::from_micros(longest), count)
}

/// Interrupts the backfill once it has gone a little further than `beyond` rows.
fn interrupt(database: &Database, function: &str, beyond: i64) -> i64 {
    let mut superuser = database.superuser();
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        let progress = superuser
            .query_opt("SELECT rows_filled FROM tenancy.protection_progress WHERE finished_at IS NULL", &[])
            .unwrap();
        let filled: i64 = progress.map_or(0, |row| row.get(0));
        if filled > beyond {
            let hit: i64 = superuser
                .query_one(
                    &format!("SELECT count(*) FILTER (WHERE {function}(pid)) FROM pg_stat_activity WHERE query LIKE 'CALL tenancy%' AND datname = current_database()"),
                    &[],
                )
                .unwrap()
                .get(0);
            assert_eq!(hit, 1, "the procedure is running");
            return filled;
        }
        assert!(Instant::now() < deadline, "the backfill does not get beyond {beyond} rows");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_live_table_is_protected_while_clients_use_it() {
    let database = live_table();
    let done = AtomicBool::new(false);
    let (took, complaints) = std::thread::scope(|scope| {
        let running = scope.spawn(|| clients(&database, &done));
        let took = std::panic::catch_unwind(|| protect_live(&database));
        done.store(true, Ordering::SeqCst);
        (took.expect("the table is protected"), running.join().unwrap())
    });
    assert!(complaints.is_empty(), "a client saw an error: {complaints:#?}");
    let (stall, transactions) = longest_stall(&database);
    crate::common::say!(
        "{} rows protected in {took:.1?}; {transactions} transactions of 4 clients, longest stall {stall:.0?}",
        rows()
    );
    assert!(stall < Duration::from_secs(5), "a client waited {stall:?}");
    assert_live_table_protected(&database);
}

/// Interrupted twice, resumed, stopped for the index, and brought to its end.
fn protect_live(database: &Database) -> Duration {
    let started = Instant::now();
    let third = i64::from(rows() / 3);
    let mut filled = 0;
    for (function, beyond) in [("pg_cancel_backend", third / 4), ("pg_terminate_backend", third)] {
        let mut ops = database.connect("ops");
        std::thread::scope(|scope| {
            let call = scope.spawn(move || ops.batch_execute(CALL));
            let at = interrupt(database, function, beyond);
            assert!(at > filled, "it went on from where it was interrupted");
            filled = at;
            let interrupted = call.join().unwrap();
            if function == "pg_cancel_backend" {
                fails_with(interrupted, "57014");
            } else {
                disconnected(interrupted);
            }
        });
    }
    let (mut ops, notices) = database.connect_with_notices("ops");
    ops.batch_execute(CALL).unwrap();
    let said = take_notices(&notices);
    let index = "CREATE UNIQUE INDEX CONCURRENTLY orders_pkey_tenant ON shop.orders USING btree (tenant_id, id)";
    assert!(noticed(&said, &[index, "CALL tenancy.protect_table_online again"]), "{said:#?}");
    assert!(noticed(&said, &["rows filled"]), "{said:#?}");
    ops.batch_execute(index).unwrap();
    ops.batch_execute(CALL).unwrap();
    started.elapsed()
}

fn assert_live_table_protected(database: &Database) {
    let mut ops = database.connect("ops");
    let mut superuser = database.superuser();
    let wrong = "SELECT count(*)::text FROM shop.orders WHERE tenant_id <> replace(org, 'org', 'tenant')";
    assert_eq!(value(&mut superuser, wrong), "0");
    let definitions = "SELECT string_agg(pg_get_constraintdef(oid), '; ' ORDER BY conname) FROM pg_constraint
                        WHERE conrelid IN ('shop.orders'::regclass, 'shop.lines'::regclass) AND contype IN ('p', 'f')";
    assert_eq!(
        value(&mut superuser, definitions),
        "FOREIGN KEY (tenant_id, order_id) REFERENCES shop.orders(tenant_id, id) ON DELETE CASCADE; PRIMARY KEY (id); PRIMARY KEY (tenant_id, id)"
    );
    assert!(column(&mut ops, "SELECT tenancy.protect_table('shop.orders')").is_empty(), "nothing is missing");
    let mut app = database.connect("app");
    let others =
        as_tenant(&mut app, "tenant-1", |tx| value(tx, "SELECT count(*)::text FROM shop.orders WHERE org <> 'org-1'"));
    assert_eq!(others, "0");
    let done = "SELECT step || ' ' || (rows_filled >= 1)::text FROM tenancy.protection_progress";
    assert_eq!(value(&mut ops, done), "done true");
}

#[test]
fn a_partitioned_table_is_protected_online_too() {
    let database = shop();
    let (mut ops, notices) = database.connect_with_notices("ops");
    ops.batch_execute(
        "CREATE TABLE shop.events (id bigint, owner_id uuid, at date) PARTITION BY RANGE (at);
         CREATE TABLE shop.events_1 PARTITION OF shop.events FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');
         CREATE TABLE shop.events_2 PARTITION OF shop.events FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
         ALTER TABLE shop.events ADD tenant_id uuid;
         INSERT INTO shop.events (id, owner_id, at) SELECT i, gen_random_uuid(), '2025-06-01'::date + i FROM generate_series(1, 400) i",
    )
    .unwrap();
    let call = "CALL tenancy.protect_table_online('shop.events', backfill => 't.owner_id', batch_size => 50)";
    ops.batch_execute(call).unwrap();
    let said = take_notices(&notices);
    for part in ["events_1", "events_2"] {
        let statement = format!("CREATE INDEX CONCURRENTLY ON shop.{part} (tenant_id)");
        assert!(noticed(&said, &[&statement]), "{said:#?}");
        ops.batch_execute(&statement).unwrap();
    }
    ops.batch_execute(call).unwrap();
    assert!(column(&mut ops, "SELECT tenancy.protect_table('shop.events')").is_empty());
    assert_eq!(
        value(&mut database.superuser(), "SELECT count(*)::text FROM shop.events WHERE tenant_id = owner_id"),
        "400"
    );
    let indexes = "SELECT count(*)::text FROM pg_indexes WHERE schemaname = 'shop'";
    assert_eq!(value(&mut ops, indexes), "3", "the parent's index took in those of the partitions");
}

#[test]
fn the_plan_is_what_is_done_and_each_step_names_its_locks() {
    let database = shop();
    let mut ops = database.connect("ops");
    ops.batch_execute("CREATE TABLE shop.notes (id bigint PRIMARY KEY, org text); INSERT INTO shop.notes VALUES (1, 'x'); GRANT ALL ON shop.notes TO app").unwrap();
    let plan = "SELECT step FROM tenancy.protection_plan('shop.notes', backfill => 'org')";
    let steps = column(&mut ops, plan);
    let expected =
        "column default backfill check validate not_null drop_check index enable force floor floor access revoke";
    assert_eq!(steps.join(" "), expected);
    let unsaid = "SELECT count(*)::text FROM tenancy.protection_plan('shop.notes') WHERE locks IS NULL OR online IS NULL OR statement IS NULL";
    assert_eq!(value(&mut ops, unsaid), "0");
    let offline = "SELECT count(*)::text FROM tenancy.protection_plan('shop.notes') WHERE NOT online";
    assert_eq!(value(&mut ops, offline), "0");
    ops.batch_execute("CALL tenancy.protect_table_online('shop.notes', backfill => 'org')").unwrap();
    ops.batch_execute("CREATE INDEX CONCURRENTLY ON shop.notes (tenant_id, id)").unwrap();
    assert_eq!(column(&mut ops, plan).join(" "), "enable force floor floor access revoke");
    ops.batch_execute("CALL tenancy.protect_table_online('shop.notes')").unwrap();
    assert!(column(&mut ops, plan).is_empty());
}

#[test]
fn a_lock_that_is_not_to_be_had_is_tried_again_and_clients_do_not_queue_long() {
    let database = shop();
    let mut ops = database.connect("ops");
    ops.batch_execute("CREATE TABLE shop.notes (id bigint PRIMARY KEY); GRANT ALL ON shop.notes TO app").unwrap();
    let mut blocker = database.connect("app");
    let mut open = blocker.transaction().unwrap();
    open.query("SELECT * FROM shop.notes", &[]).unwrap();
    let call = "CALL tenancy.protect_table_online('shop.notes', lock_timeout => '20 ms', max_retries => 2)";
    let error = refused(ops.batch_execute(call), "55P03", "lock_not_available");
    assert!(error.hint().unwrap().contains("goes on where it stopped"), "{error:?}");
    let waits = value(&mut ops, "SELECT message FROM tenancy.protection_progress");
    assert!(waits.contains("waiting for a lock: ALTER TABLE shop.notes ADD COLUMN"), "{waits}");

    let released = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(600));
            released.store(true, Ordering::SeqCst);
            open.commit().unwrap();
        });
        ops.batch_execute("CALL tenancy.protect_table_online('shop.notes', lock_timeout => '20 ms')").unwrap();
        assert!(released.load(Ordering::SeqCst), "it waited for the client");
    });
}

#[test]
fn rows_locked_by_clients_are_filled_later_and_never_deadlocked_with() {
    let database = shop();
    let mut ops = database.connect("ops");
    ops.batch_execute(
        "CREATE TABLE shop.notes (id bigint PRIMARY KEY, org text, tenant_id text DEFAULT tenancy.tenant_id());
         INSERT INTO shop.notes SELECT i, 'x' FROM generate_series(1, 10) i; GRANT ALL ON shop.notes TO app",
    )
    .unwrap();
    let mut client = database.connect("app");
    let mut open = client.transaction().unwrap();
    open.execute("UPDATE shop.notes SET org = 'y' WHERE id = 3", &[]).unwrap();
    std::thread::scope(|scope| {
        let call = scope
            .spawn(move || ops.batch_execute("CALL tenancy.protect_table_online('shop.notes', backfill => 'org')"));
        let mut watcher = database.superuser();
        while value(&mut watcher, "SELECT count(*)::text FROM shop.notes WHERE tenant_id IS NULL") != "1" {
            assert!(!call.is_finished(), "it gave up");
            std::thread::sleep(Duration::from_millis(5));
        }
        // A row it has filled: no lock of its own is left to wait for.
        open.execute("UPDATE shop.notes SET org = 'z' WHERE id = 4", &[]).unwrap();
        open.commit().unwrap();
        call.join().unwrap().unwrap();
    });
    let filled = "SELECT string_agg(tenant_id, ',' ORDER BY id) FROM shop.notes";
    assert_eq!(value(&mut database.superuser(), filled), "x,x,y,x,x,x,x,x,x,x");
}

#[test]
fn what_the_backfill_cannot_tell_is_an_error_that_says_how_many_and_which() {
    let database = shop();
    let mut ops = database.connect("ops");
    ops.batch_execute(
        "CREATE TABLE shop.notes (id bigint, org text); INSERT INTO shop.notes VALUES (1, 'x'), (2, NULL), (3, NULL)",
    )
    .unwrap();
    let without =
        refused(ops.batch_execute("CALL tenancy.protect_table_online('shop.notes')"), "22023", "rows_without_tenant");
    assert!(without.hint().unwrap().contains("backfill"), "{without:?}");
    let untouched =
        "SELECT count(*)::text FROM pg_attribute WHERE attrelid = 'shop.notes'::regclass AND attname = 'tenant_id'";
    assert_eq!(value(&mut ops, untouched), "0");
    let call = "CALL tenancy.protect_table_online('shop.notes', backfill => 'org')";
    let error = refused(ops.batch_execute(call), "22023", "rows_without_tenant");
    assert!(error.detail().unwrap().contains("\"rows\": 2"), "{error:?}");
    ops.batch_execute("UPDATE shop.notes SET tenant_id = 'y' WHERE org IS NULL").unwrap();
    ops.batch_execute(call).unwrap();
    assert_eq!(value(&mut ops, "SELECT step FROM tenancy.protection_progress"), "index");
}

#[test]
fn bad_arguments_and_bad_places_are_refused() {
    let database = shop();
    let mut ops = database.connect("ops");
    ops.batch_execute("CREATE TABLE shop.notes (id bigint, org text)").unwrap();
    for arguments in [
        "batch_size => 0",
        "batch_size => NULL",
        "lock_timeout => '0'",
        "lock_timeout => NULL",
        "mapping_table => 'shop.notes'",
        "mapping_table => 'shop.notes', mapping_key => 'org', backfill => 'org'",
    ] {
        let call = format!("CALL tenancy.protect_table_online('shop.notes', {arguments})");
        refused(ops.batch_execute(&call), "22023", "invalid_argument");
    }
    for strange in ["mapping_key => 'nothing'", "mapping_key => 'org', mapping_tenant => 'nothing'"] {
        let arguments = format!("'shop.notes', mapping_table => 'shop.notes', {strange}");
        let call = format!("CALL tenancy.protect_table_online({arguments})");
        refused(ops.batch_execute(&call), "22023", "unknown_column");
        let plan = format!("SELECT * FROM tenancy.protection_plan({arguments})");
        refused(ops.batch_execute(&plan), "22023", "unknown_column");
    }
    let columns = "SELECT count(*)::text FROM pg_attribute WHERE attrelid = 'shop.notes'::regclass AND attnum > 0";
    assert_eq!(value(&mut ops, columns), "2", "nothing was changed");
    fails_with(ops.batch_execute("BEGIN; CALL tenancy.protect_table_online('shop.notes')"), "2D000");
    ops.batch_execute("ROLLBACK").unwrap();
    let mut app = database.connect("app");
    fails_with(app.batch_execute("CALL tenancy.protect_table_online('shop.notes')"), "42501");
    database.superuser().batch_execute("CREATE TABLE shop.others (id bigint)").unwrap();
    refused(ops.batch_execute("CALL tenancy.protect_table_online('shop.others')"), "42501", "not_owner");
    ops.batch_execute(
        "ALTER TABLE shop.notes ADD tenant_id text; INSERT INTO shop.notes VALUES (1, 'x');
         ALTER TABLE shop.notes ENABLE ROW LEVEL SECURITY; ALTER TABLE shop.notes FORCE ROW LEVEL SECURITY",
    )
    .unwrap();
    refused(
        ops.batch_execute("CALL tenancy.protect_table_online('shop.notes', backfill => 'org')"),
        "0A000",
        "row_security_active",
    );
}
