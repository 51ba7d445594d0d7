//! guard_schema: new tables, partitions, views and changed policies, in each mode.

use crate::common::{Database, fails_with, refused};
use crate::world::{as_tenant, column, noticed, protect, role, shop, take_notices, value};

/// The schema shop, guarded, with one protected table; `dev` may create tables there and has no right in tenancy.
fn guarded(mode: &str) -> Database<'static> {
    let database = shop();
    role(&database, "dev", "LOGIN");
    database
        .superuser()
        .batch_execute(
            "GRANT USAGE, CREATE ON SCHEMA shop TO dev; CREATE SCHEMA aside; GRANT USAGE, CREATE ON SCHEMA aside TO dev, ops;
             CREATE FOREIGN DATA WRAPPER nowhere; CREATE SERVER nowhere FOREIGN DATA WRAPPER nowhere",
        )
        .unwrap();
    database
        .connect("ops")
        .batch_execute(
            "CREATE TABLE shop.essays (id bigint); GRANT SELECT, INSERT ON shop.essays TO app, dev;
             CREATE TABLE shop.events (id bigint, at date) PARTITION BY RANGE (at);
             SELECT tenancy.protect_table('shop.essays'); SELECT tenancy.protect_table('shop.events')",
        )
        .unwrap();
    let before = value(&mut database.superuser(), &format!("SELECT tenancy.guard_schema('shop', '{mode}')"));
    assert_eq!(before, "off");
    database
}

/// What opens a hole, by whom, and the rule that says so. `aside` is a schema that nobody guards.
const HOLES: &[(&str, &str, &str)] = &[
    ("dev", "CREATE TABLE shop.fresh (id int)", "unprotected_table"),
    ("dev", "CREATE UNLOGGED TABLE shop.fresh (LIKE shop.essays INCLUDING ALL)", "unprotected_table"),
    ("dev", "CREATE TABLE shop.fresh AS SELECT 1 AS id WHERE false", "unprotected_table"),
    ("dev", "PREPARE q AS SELECT 1 AS id WHERE false; CREATE TABLE shop.fresh AS EXECUTE q", "unprotected_table"),
    ("dev", "SELECT 1 AS id INTO shop.fresh WHERE false", "unprotected_table"),
    ("dev", "DO $$ BEGIN EXECUTE 'CREATE TABLE shop.fresh (id int)'; END $$", "unprotected_table"),
    ("dev", "CREATE TABLE aside.fresh (id int); ALTER TABLE aside.fresh SET SCHEMA shop", "unprotected_table"),
    (
        "ops",
        "CREATE TABLE shop.events_1 PARTITION OF shop.events FOR VALUES FROM ('2026-01-01') TO ('2027-01-01')",
        "floor_missing",
    ),
    (
        "ops",
        "CREATE TABLE aside.events_2 PARTITION OF shop.events FOR VALUES FROM ('2027-01-01') TO ('2028-01-01')",
        "floor_missing",
    ),
    (
        "ops",
        "CREATE TABLE aside.events_3 (id bigint, at date, tenant_id text NOT NULL);
         ALTER TABLE shop.events ATTACH PARTITION aside.events_3 FOR VALUES FROM ('2028-01-01') TO ('2029-01-01')",
        "floor_missing",
    ),
    (
        "ops",
        "CREATE TABLE aside.events_4 (id bigint, at date, tenant_id text NOT NULL) PARTITION BY RANGE (id);
         CREATE TABLE aside.events_41 PARTITION OF aside.events_4 FOR VALUES FROM (1) TO (9);
         ALTER TABLE shop.events ATTACH PARTITION aside.events_4 FOR VALUES FROM ('2029-01-01') TO ('2030-01-01')",
        "floor_missing",
    ),
    (
        "postgres",
        "CREATE SCHEMA beside CREATE TABLE events_5 PARTITION OF shop.events FOR VALUES FROM ('2030-01-01') TO ('2031-01-01')",
        "floor_missing",
    ),
    ("ops", "CREATE TABLE aside.heir () INHERITS (shop.essays)", "floor_missing"),
    (
        "ops",
        "CREATE TABLE aside.late_heir (id bigint, tenant_id text NOT NULL); ALTER TABLE aside.late_heir INHERIT shop.essays",
        "floor_missing",
    ),
    ("ops", "ALTER TABLE shop.essays NO FORCE ROW LEVEL SECURITY", "force_missing"),
    ("ops", "ALTER TABLE shop.essays DISABLE ROW LEVEL SECURITY", "rls_disabled"),
    ("ops", "DROP POLICY tenancy_floor ON shop.essays", "floor_missing"),
    ("ops", "ALTER POLICY tenancy_floor ON shop.essays USING (true)", "floor_missing"),
    ("ops", "ALTER POLICY tenancy_floor ON shop.essays RENAME TO another", "floor_missing"),
    ("ops", "ALTER TABLE shop.essays ALTER tenant_id DROP NOT NULL", "tenant_nullable"),
    ("ops", "ALTER TABLE shop.essays DROP tenant_id CASCADE", "floor_missing"),
];

/// What opens a hole that no statement of ours closes: refused in both modes.
const HOLES_THAT_STAY: &[(&str, &str)] = &[
    ("CREATE MATERIALIZED VIEW shop.kept AS SELECT * FROM shop.essays", "materialized_view"),
    ("CREATE MATERIALIZED VIEW aside.kept AS SELECT * FROM shop.essays", "materialized_view"),
    ("CREATE FOREIGN TABLE shop.far (id int) SERVER nowhere", "foreign_table"),
    (
        "CREATE FOREIGN TABLE aside.far (id int) SERVER nowhere; ALTER FOREIGN TABLE aside.far SET SCHEMA shop",
        "foreign_table",
    ),
    ("CREATE POLICY mine ON shop.essays USING (tenant_id = current_setting('app.tenant'))", "policy_reads_setting"),
];

/// Views, which mode protect makes their caller's.
const VIEWS: &[&str] = &[
    "CREATE VIEW shop.seen AS SELECT * FROM shop.essays",
    "CREATE VIEW aside.seen AS SELECT * FROM shop.essays",
    "CREATE VIEW aside.inner_one WITH (security_invoker = true) AS SELECT * FROM shop.essays; CREATE VIEW aside.seen AS SELECT * FROM aside.inner_one",
    "CREATE VIEW shop.seen WITH (security_invoker = true) AS SELECT * FROM shop.essays; ALTER VIEW shop.seen RESET (security_invoker)",
    "CREATE VIEW shop.seen WITH (security_invoker = true) AS SELECT * FROM shop.essays; CREATE OR REPLACE VIEW shop.seen AS SELECT * FROM shop.essays",
    "CREATE VIEW shop.seen WITH (security_invoker = true) AS SELECT * FROM shop.essays; ALTER TABLE shop.seen SET (security_invoker = false)",
    "CREATE SCHEMA beside CREATE VIEW seen AS SELECT * FROM shop.essays",
];

#[test]
fn refuse_lets_no_transaction_commit_that_opens_a_hole() {
    let database = guarded("refuse");
    let others = HOLES_THAT_STAY.iter().map(|(statement, rule)| ("postgres", *statement, *rule));
    let views = VIEWS.iter().map(|statement| ("postgres", *statement, "view_runs_as_owner"));
    for (who, statement, rule) in HOLES.iter().copied().chain(others).chain(views) {
        // Each statement in a transaction of its own, as psql sends them: what comes first is no hole.
        let mut client = database.connect(who);
        let (before, last) = statement.rsplit_once("; ").unwrap_or(("", statement));
        let (before, last) = if statement.starts_with("DO ") { ("", statement) } else { (before, last) };
        client.batch_execute(before).unwrap_or_else(|error| panic!("{before}: {error:?}"));
        let error = refused(client.batch_execute(last), "42501", "isolation_guard");
        assert!(error.detail().unwrap().contains(rule), "{statement}: {error:?}");
        assert!(error.hint().unwrap().contains("tenancy.exempt("), "{statement}: {error:?}");
        client.batch_execute("DROP VIEW IF EXISTS shop.seen, aside.seen, aside.inner_one").unwrap_or_default();
        client
            .batch_execute("DROP TABLE IF EXISTS aside.fresh, aside.events_3, aside.events_4, aside.late_heir")
            .unwrap_or_default();
        client.batch_execute("DROP FOREIGN TABLE IF EXISTS aside.far").unwrap_or_default();
    }
    let mut ops = database.connect("ops");
    assert_eq!(
        value(
            &mut ops,
            "SELECT count(*)::text FROM pg_class WHERE relname ~ '^(fresh|events_|far|seen|heir|kept)' AND relkind <> 'i' AND relkind <> 'I'"
        ),
        "0"
    );
    assert_eq!(value(&mut database.superuser(), "SELECT count(*)::text FROM tenancy.guard_pending"), "0");
}

#[test]
fn refuse_lets_a_transaction_close_its_own_hole() {
    let database = guarded("refuse");
    let mut ops = database.connect("ops");
    ops.batch_execute("BEGIN; CREATE TABLE shop.fresh (id int); SELECT tenancy.protect_table('shop.fresh'); COMMIT")
        .unwrap();
    ops.batch_execute(
        "BEGIN; DROP POLICY tenancy_floor ON shop.essays; SELECT tenancy.protect_table('shop.essays'); COMMIT",
    )
    .unwrap();
    ops.batch_execute("CREATE TABLE shop.later (id int); DROP TABLE shop.later").unwrap();
    ops.batch_execute("BEGIN; SAVEPOINT a; CREATE TABLE shop.later (id int); ROLLBACK TO a; COMMIT").unwrap();
    fails_with(
        ops.batch_execute("BEGIN; CREATE TABLE shop.later (id int); SET CONSTRAINTS ALL IMMEDIATE; COMMIT"),
        "42501",
    );
    ops.batch_execute("ROLLBACK").unwrap();
    assert!(protect(&mut ops, "'shop.fresh'").is_empty());
}

#[test]
fn what_is_exempt_is_let_through() {
    let database = guarded("refuse");
    let mut ops = database.connect("ops");
    ops.batch_execute("SELECT tenancy.exempt('shop.countries', 'unprotected_table', 'the same for all')").unwrap();
    ops.batch_execute("CREATE TABLE shop.countries (code text)").unwrap();
    refused(ops.batch_execute("SELECT tenancy.unprotect_table('shop.essays')"), "42501", "isolation_guard");
    ops.batch_execute("SELECT tenancy.exempt('shop.essays', 'unprotected_table', 'to be dropped')").unwrap();
    ops.batch_execute("SELECT tenancy.unprotect_table('shop.essays')").unwrap();
}

#[test]
fn protect_closes_the_hole_at_once() {
    let database = guarded("protect");
    let mut superuser = database.superuser();
    for (who, statement, _) in HOLES {
        let mut client = database.connect(who);
        client.batch_execute(statement).unwrap_or_else(|error| panic!("{statement}: {error:?}"));
        let holes = column(
            &mut superuser,
            "SELECT rule || ' ' || object FROM tenancy.audit_isolation() WHERE severity = 'error'",
        );
        assert!(holes.is_empty(), "{statement}: {holes:?}");
        superuser.batch_execute("DROP TABLE IF EXISTS shop.fresh").unwrap();
    }
    // The superuser's own view would show everything.
    for statement in VIEWS {
        superuser.batch_execute(statement).unwrap();
        let invokers =
            "SELECT bool_and('security_invoker=true' = ANY (reloptions))::text FROM pg_class WHERE relname = 'seen'";
        assert_eq!(value(&mut superuser, invokers), "true", "{statement}");
        superuser.batch_execute("DROP VIEW IF EXISTS shop.seen, aside.seen, aside.inner_one, beside.seen; DROP SCHEMA IF EXISTS beside CASCADE").unwrap_or_default();
    }
    assert_eq!(value(&mut superuser, "SELECT count(*)::text FROM tenancy.guard_pending"), "0");
}

#[test]
fn protect_works_for_a_tenant_column_of_another_name_and_is_usable_at_once() {
    let database = guarded("protect");
    let mut superuser = database.superuser();
    assert_eq!(value(&mut superuser, "SELECT tenancy.guard_schema('shop', 'protect', 'workspace')"), "protect");
    database
        .connect("dev")
        .batch_execute("CREATE TABLE shop.fresh (id int); GRANT SELECT, INSERT ON shop.fresh TO app")
        .unwrap();
    let mut app = database.connect("app");
    as_tenant(&mut app, "tenant-a", |tx| tx.execute("INSERT INTO shop.fresh VALUES (1)", &[]).unwrap());
    assert!(column(&mut app, "SELECT id::text FROM shop.fresh").is_empty());
    assert_eq!(value(&mut superuser, "SELECT workspace FROM shop.fresh"), "tenant-a");
}

#[test]
fn protect_refuses_what_it_cannot_close() {
    let database = guarded("protect");
    let mut superuser = database.superuser();
    for (statement, rule) in HOLES_THAT_STAY {
        let error = refused(superuser.batch_execute(statement), "42501", "isolation_guard");
        assert!(error.detail().unwrap().contains(rule), "{statement}: {error:?}");
    }
    let mut dev = database.connect("dev");
    refused(dev.batch_execute("CREATE TABLE shop.filled AS SELECT 1 AS id"), "22023", "rows_without_tenant");
    refused(dev.batch_execute("CREATE TABLE shop.odd (tenant_id integer)"), "22023", "column_type");
    let mut ops = database.connect("ops");
    let error = refused(ops.batch_execute("SELECT tenancy.unprotect_table('shop.essays')"), "42501", "isolation_guard");
    assert!(error.hint().unwrap().contains("exempt"), "{error:?}");
    ops.batch_execute("SELECT tenancy.exempt('shop.essays', 'unprotected_table', 'to be dropped'); SELECT tenancy.unprotect_table('shop.essays')")
        .unwrap();
    assert_eq!(value(&mut ops, "SELECT count(*)::text FROM pg_policy WHERE polrelid = 'shop.essays'::regclass"), "0");
}

#[test]
fn report_warns_and_lets_it_pass() {
    let database = guarded("report");
    let (mut dev, notices) = database.connect_with_notices("dev");
    dev.batch_execute("CREATE TABLE shop.fresh (id int)").unwrap();
    let said = take_notices(&notices);
    assert!(
        noticed(&said, &["shop.fresh opens a hole (unprotected_table)", "SELECT tenancy.protect_table('shop.fresh')"]),
        "{said:?}"
    );
    let severity: Vec<String> = {
        dev.batch_execute("ALTER TABLE shop.fresh ADD note text").unwrap();
        notices.lock().unwrap().iter().map(|notice| notice.severity().to_string()).collect()
    };
    assert_eq!(severity, ["WARNING"]);
}

#[test]
fn other_schemas_temporary_tables_and_unguarded_databases_are_left_alone() {
    let database = guarded("refuse");
    let mut superuser = database.superuser();
    superuser
        .batch_execute(
            "CREATE TABLE public.anything (id int); CREATE TEMP TABLE mine (id int); CREATE TABLE pg_temp.too (id int)",
        )
        .unwrap();
    assert_eq!(value(&mut superuser, "SELECT tenancy.unguard_schema('shop')::text"), "true");
    assert_eq!(value(&mut superuser, "SELECT tenancy.unguard_schema('shop')::text"), "false");
    superuser.batch_execute("CREATE TABLE shop.anything (id int)").unwrap();
}

#[test]
fn only_the_extension_s_owner_guards_and_bad_arguments_are_refused() {
    let database = shop();
    for role in ["app", "svc", "ops", "met"] {
        let mut client = database.connect(role);
        fails_with(client.query("SELECT tenancy.guard_schema('shop', 'report')", &[]), "42501");
        fails_with(client.query("SELECT tenancy.unguard_schema('shop')", &[]), "42501");
    }
    let (mut superuser, notices) = database.connect_with_notices("postgres");
    for (arguments, reason) in [
        ("'shop', 'enforce'", "invalid_argument"),
        ("'shop', NULL", "invalid_argument"),
        ("'shop', 'report', NULL", "invalid_argument"),
        ("'nowhere', 'report'", "unknown_schema"),
        ("NULL, 'report'", "unknown_schema"),
        ("'tenancy', 'report'", "own_schema"),
        ("'pg_catalog', 'report'", "own_schema"),
    ] {
        refused(superuser.query(&format!("SELECT tenancy.guard_schema({arguments})"), &[]), "22023", reason);
    }
    database
        .connect("ops")
        .batch_execute(
            "CREATE TABLE shop.a (id int); CREATE TABLE shop.b (id int); SELECT tenancy.protect_table('shop.a')",
        )
        .unwrap();
    superuser.batch_execute("SELECT tenancy.guard_schema('shop', 'refuse')").unwrap();
    assert!(noticed(&take_notices(&notices), &["schema shop has 1 hole(s) already"]));
}

#[test]
fn a_guarded_database_is_dumped_restored_and_guarded_again() {
    let database = guarded("refuse");
    let cluster = database.cluster();
    let restored = cluster.empty_database();
    let dump = cluster.client("pg_dump", &[&database.name]);
    assert!(dump.status.success(), "{}", String::from_utf8_lossy(&dump.stderr));
    let file = cluster.write_file("guarded.sql", &String::from_utf8(dump.stdout).unwrap(), 0o644);
    let psql =
        cluster.client("psql", &["-qX", "-v", "ON_ERROR_STOP=1", "-d", &restored.name, "-f", file.to_str().unwrap()]);
    assert!(psql.status.success(), "{}", String::from_utf8_lossy(&psql.stderr));
    let mut superuser = restored.superuser();
    let holes =
        column(&mut superuser, "SELECT rule || ' ' || object FROM tenancy.audit_isolation() WHERE severity = 'error'");
    assert!(holes.is_empty(), "{holes:?}");
    refused(superuser.batch_execute("CREATE TABLE shop.fresh (id int)"), "42501", "isolation_guard");
    let unarmed = "SELECT count(*)::text FROM tenancy.audit_isolation() WHERE rule = 'guard_not_armed'";
    assert_eq!(value(&mut superuser, unarmed), "0", "the last policy armed it");
}

#[test]
fn uninstalling_and_dropping_the_extension_is_not_hindered() {
    let database = guarded("refuse");
    let mut superuser = database.superuser();
    superuser
        .batch_execute(&format!(
            "DROP TABLE shop.essays, shop.events; SELECT tenancy.uninstall('{}'); CREATE TABLE shop.anything (id int); DROP EXTENSION pg_tenancy",
            database.name
        ))
        .unwrap();
    assert_eq!(value(&mut superuser, "SELECT count(*)::text FROM pg_event_trigger"), "0");
}
