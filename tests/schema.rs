//! The tables' life: install, migrate, uninstall, and what a DBA does to them in between.

mod common;

use common::copies::objects as snapshot;
use common::{Database, cluster, fails_with, in_parallel, refused};
use postgres::{Client, error::SqlState};

fn with_extension() -> Database<'static> {
    let database = cluster().empty_database();
    database.superuser().batch_execute("CREATE EXTENSION pg_tenancy").unwrap();
    database
}

fn text(client: &mut Client, statement: &str) -> String {
    client.query_one(statement, &[]).unwrap().get(0)
}

#[test]
fn without_tables_every_function_that_needs_them_says_what_to_run() {
    let database = with_extension();
    let mut client = database.superuser();
    for call in [
        "register_tenant('a', 'A')",
        "register_user('a')",
        "register_organization('a', 'A')",
        "set_tenant_status('a', 'active')",
        "set_membership('a', 'a', 'a')",
        "remove_membership('a', 'a')",
        "set_subscription('a', 'teams', 'active', 1)",
        "assign_seat('a', 'a')",
        "revoke_seat('a', 'a')",
        "resolve_org_membership('a', 'a')",
        "resolve_org_attribution('a', 'a')",
        "grant_access('pg_monitor', 'metrics')",
        "revoke_access('pg_monitor', 'metrics')",
        "migrate()",
    ] {
        let error = refused(client.query(&format!("SELECT tenancy.{call}"), &[]), "55000", "schema_missing");
        assert_eq!(error.hint(), Some("Run SELECT tenancy.install();"), "{call}");
    }
    let statement = "SELECT status || ': ' || remedy FROM tenancy.health() WHERE check_name = 'schema'";
    assert_eq!(text(&mut client, statement), "error: SELECT tenancy.install();");
}

#[test]
fn installing_twice_changes_nothing() {
    let database = with_extension();
    let (mut client, notices) = database.connect_with_notices("postgres");
    let version = text(&mut client, "SELECT tenancy.install()");
    assert_eq!(version, env!("CARGO_PKG_VERSION"));
    assert!(notices.lock().unwrap().is_empty(), "{notices:?}");
    let before = snapshot(&mut client);
    assert_eq!(text(&mut client, "SELECT tenancy.install()"), version);
    assert_eq!(text(&mut client, "SELECT tenancy.migrate()"), version);
    assert_eq!(snapshot(&mut client), before);
    let said: Vec<String> = notices.lock().unwrap().iter().map(|notice| notice.message().to_owned()).collect();
    assert_eq!(said, ["the tables of pg_tenancy are installed already", "the tables of pg_tenancy are up to date"]);
}

#[test]
fn sessions_that_install_at_once_wait_for_each_other() {
    let database = with_extension();
    let versions = in_parallel(4, |_| text(&mut database.superuser(), "SELECT tenancy.install()"));
    assert!(versions.iter().all(|version| version == env!("CARGO_PKG_VERSION")));
    let statement = "SELECT count(*) = (SELECT count(*) FROM tenancy._migrations()) FROM tenancy.schema_migrations";
    assert!(database.superuser().query_one(statement, &[]).unwrap().get::<_, bool>(0));
}

#[test]
fn a_rolled_back_install_leaves_nothing_and_no_backend_believes_in_it() {
    let database = with_extension();
    let mut client = database.superuser();
    client.batch_execute("BEGIN; SELECT tenancy.install(); SELECT tenancy.register_user('u1'); ROLLBACK").unwrap();
    refused(client.query("SELECT tenancy.register_user('u1')", &[]), "55000", "schema_missing");
    client
        .batch_execute(
            "BEGIN; SAVEPOINT s; SELECT tenancy.install(); SELECT tenancy.register_user('u1'); ROLLBACK TO s",
        )
        .unwrap();
    refused(client.query("SELECT tenancy.register_user('u1')", &[]), "55000", "schema_missing");
    client.batch_execute("ROLLBACK; SELECT tenancy.install(); SELECT tenancy.register_user('u1')").unwrap();
}

#[test]
fn tables_of_another_version_are_told_apart_at_once_in_every_session() {
    let database = with_extension();
    let (mut dba, mut other) = (database.superuser(), database.superuser());
    dba.batch_execute("SELECT tenancy.install()").unwrap();
    let call = "SELECT tenancy.register_user('u1')";
    other.batch_execute(call).unwrap();

    // As an older extension would have left them: the last migration is missing.
    dba.batch_execute(
        "BEGIN; SELECT tenancy._changed('schema_migrations');
         DELETE FROM tenancy.schema_migrations WHERE number = (SELECT max(number) FROM tenancy.schema_migrations); COMMIT",
    )
    .unwrap();
    let error = refused(other.query(call, &[]), "55000", "schema_behind");
    assert_eq!(error.hint(), Some("Run SELECT tenancy.migrate();"));

    dba.batch_execute(
        "BEGIN; SELECT tenancy._changed('schema_migrations');
         INSERT INTO tenancy.schema_migrations (number, name, sha256, relations, extension_version)
         VALUES (9999, 'of the future', '', '{}', '99.0.0'); COMMIT",
    )
    .unwrap();
    let error = refused(other.query(call, &[]), "55000", "schema_ahead");
    assert!(error.hint().unwrap().contains("newer package"));
    refused(dba.query("SELECT tenancy.migrate()", &[]), "55000", "schema_ahead");
}

/// From every older state there is: what migrate() makes of it is what install() makes at once, and rows stay.
#[test]
fn migrated_tables_are_the_same_as_fresh_ones() {
    let fresh = with_extension();
    fresh.superuser().batch_execute("SELECT tenancy.install()").unwrap();
    let expected = snapshot(&mut fresh.superuser());
    let numbers: Vec<i32> = fresh
        .superuser()
        .query("SELECT number FROM tenancy.schema_migrations WHERE number > 0 ORDER BY number", &[])
        .unwrap()
        .iter()
        .map(|row| row.get(0))
        .collect();
    let last = *numbers.last().expect("there are migrations");
    for number in numbers {
        let database = with_extension();
        let mut client = database.superuser();
        client.execute("SELECT tenancy._apply_migrations($1)", &[&number]).unwrap();
        client.batch_execute("INSERT INTO tenancy.users (external_id) VALUES ('u1')").unwrap();
        if number < last {
            refused(client.query("SELECT tenancy.register_user('u2')", &[]), "55000", "schema_behind");
        }
        client.batch_execute("SELECT tenancy.migrate(); SELECT tenancy.register_user('u2')").unwrap();
        assert_eq!(snapshot(&mut client), expected, "from migration {number}");
        let users = "SELECT string_agg(external_id, ',' ORDER BY id) FROM tenancy.users";
        assert_eq!(text(&mut client, users), "u1,u2");
    }
}

#[test]
fn a_changed_migration_is_noticed() {
    let database = with_extension();
    let mut client = database.superuser();
    client
        .batch_execute(
            "SELECT tenancy.install(); UPDATE tenancy.schema_migrations SET sha256 = 'other' WHERE number = 1",
        )
        .unwrap();
    let error = refused(client.query("SELECT tenancy.migrate()", &[]), "55000", "migration_changed");
    assert!(error.message().contains("directory"), "{error:?}");
}

/// A new package over old SQL functions: tables must not run ahead of the functions that use them.
#[test]
fn migrate_waits_for_alter_extension_update() {
    let database = with_extension();
    let mut client = database.superuser();
    client
        .batch_execute(
            "SELECT tenancy.install(); UPDATE pg_extension SET extversion = '0.0.1' WHERE extname = 'pg_tenancy'",
        )
        .unwrap();
    let error = refused(client.query("SELECT tenancy.migrate()", &[]), "55000", "extension_behind");
    assert!(error.hint().unwrap().contains("ALTER EXTENSION pg_tenancy UPDATE"));
}

#[test]
fn another_superuser_installs_and_the_extensions_owner_owns() {
    let database = with_extension();
    let mut client = database.superuser();
    client.batch_execute("CREATE ROLE second_dba SUPERUSER LOGIN").unwrap();
    database.connect("second_dba").batch_execute("SELECT tenancy.install()").unwrap();
    let owners = "SELECT string_agg(DISTINCT relowner::regrole::text, ',') FROM pg_class WHERE relnamespace = 'tenancy'::regnamespace";
    assert_eq!(text(&mut client, owners), "postgres");
    let by = "SELECT string_agg(DISTINCT applied_by, ',') FROM tenancy.schema_migrations";
    assert_eq!(text(&mut client, by), "second_dba");
}

#[test]
fn nobody_but_the_owner_installs() {
    let database = with_extension();
    let mut client = database.superuser();
    client
        .batch_execute(
            "SELECT tenancy.install(); CREATE ROLE schema_ops LOGIN; SELECT tenancy.grant_access('schema_ops', 'operator')",
        )
        .unwrap();
    let mut operator = database.connect("schema_ops");
    for call in ["install()", "migrate()", "uninstall('x')", "grant_access('schema_ops', 'metrics')"] {
        fails_with(operator.query(&format!("SELECT tenancy.{call}"), &[]), "42501");
    }
}

/// The schema's owner may drop the tables in it; the owner of a function in it may have been waiting to be called.
#[test]
fn what_a_stranger_made_beforehand_is_not_taken() {
    cluster().empty_database().superuser().batch_execute("CREATE ROLE schema_stranger LOGIN").unwrap();
    let planted = [
        ("CREATE SCHEMA tenancy AUTHORIZATION schema_stranger", "ALTER SCHEMA tenancy OWNER TO postgres"),
        (
            "CREATE SCHEMA tenancy; GRANT USAGE, CREATE ON SCHEMA tenancy TO schema_stranger; SET ROLE schema_stranger;
             CREATE FUNCTION tenancy._apply_migrations() RETURNS integer LANGUAGE sql AS 'SELECT 1'; RESET ROLE",
            "DROP FUNCTION tenancy._apply_migrations()",
        ),
        (
            "CREATE SCHEMA tenancy; GRANT USAGE, CREATE ON SCHEMA tenancy TO schema_stranger; SET ROLE schema_stranger;
             CREATE TABLE tenancy.schema_migrations (number integer); RESET ROLE",
            "DROP TABLE tenancy.schema_migrations",
        ),
    ];
    for (beforehand, remedy) in planted {
        let database = cluster().empty_database();
        let mut client = database.superuser();
        client.batch_execute(beforehand).unwrap();
        client.batch_execute("CREATE EXTENSION pg_tenancy").unwrap();
        for call in ["install()", "migrate()"] {
            let error =
                refused(client.query(&format!("SELECT tenancy.{call}"), &[]), "42501", "schema_owned_by_another");
            assert!(error.detail().unwrap().contains("schema_stranger"), "{error:?}");
        }
        client.batch_execute(remedy).unwrap();
        client.batch_execute("SELECT tenancy.install()").unwrap();
        // Nor is it given away later.
        client.batch_execute("ALTER SCHEMA tenancy OWNER TO schema_stranger").unwrap();
        refused(client.query("SELECT tenancy.migrate()", &[]), "42501", "schema_owned_by_another");
    }
    // Any superuser's is as good as one's own.
    let database = cluster().empty_database();
    let mut client = database.superuser();
    client
        .batch_execute(
            "CREATE ROLE schema_first SUPERUSER; CREATE SCHEMA tenancy AUTHORIZATION schema_first;
             CREATE EXTENSION pg_tenancy; SELECT tenancy.install()",
        )
        .unwrap();
}

#[test]
fn the_extension_cannot_be_dropped_while_the_tables_exist() {
    let database = with_extension();
    let mut client = database.superuser();
    client.batch_execute("SELECT tenancy.install(); SELECT tenancy.register_user('u1')").unwrap();
    let error = fails_with(client.batch_execute("DROP EXTENSION pg_tenancy"), "2BP01");
    assert_eq!(*error.code(), SqlState::DEPENDENT_OBJECTS_STILL_EXIST);
    // CASCADE takes policies and defaults, never rows; and the rows stay closed.
    client
        .batch_execute("CREATE ROLE schema_reader; GRANT USAGE ON SCHEMA tenancy TO schema_reader; GRANT SELECT ON tenancy.users TO schema_reader; DROP EXTENSION pg_tenancy CASCADE")
        .unwrap();
    assert_eq!(text(&mut client, "SELECT external_id FROM tenancy.users"), "u1");
    client.batch_execute("SET ROLE schema_reader").unwrap();
    assert!(client.query("SELECT * FROM tenancy.users", &[]).unwrap().is_empty());
}

#[test]
fn uninstall_asks_for_the_databases_name_and_leaves_the_functions() {
    let database = with_extension();
    let mut client = database.superuser();
    client
        .batch_execute(
            "SELECT tenancy.install(); CREATE ROLE schema_app; SELECT tenancy.grant_access('schema_app', 'application')",
        )
        .unwrap();
    for confirm in ["NULL", "''", "'yes'"] {
        let call = format!("SELECT tenancy.uninstall({confirm})");
        let error = refused(client.query(&call, &[]), "22023", "not_confirmed");
        assert!(error.hint().unwrap().contains(&database.name));
    }
    let call = format!("SELECT tenancy.uninstall('{}')", database.name);
    // An object of the user's own is not lost with them.
    client.batch_execute("CREATE VIEW mine AS SELECT * FROM tenancy.users").unwrap();
    fails_with(client.query(&call, &[]), "2BP01");
    client.batch_execute("DROP VIEW mine").unwrap();

    let dropped: i32 = client.query_one(&call, &[]).unwrap().get(0);
    assert!(dropped >= 8, "{dropped}");
    let left = "SELECT count(*)::text FROM pg_class WHERE relnamespace = 'tenancy'::regnamespace AND relkind IN ('r', 'p', 'v', 'm', 'i')";
    assert_eq!(text(&mut client, left), "0");
    let usage = "SELECT has_schema_privilege('schema_app', 'tenancy', 'USAGE')::text";
    assert_eq!(text(&mut client, usage), "false");
    refused(client.query("SELECT tenancy.register_user('u')", &[]), "55000", "schema_missing");
    refused(client.query(&call, &[]), "55000", "schema_missing");
    client.batch_execute("DROP ROLE schema_app; SELECT tenancy.install(); SELECT tenancy.register_user('u')").unwrap();
}

/// A released migration never changes: databases exist that were made by it.
#[test]
fn released_migrations_are_frozen() {
    let database = with_extension();
    let mut client = database.superuser();
    for line in include_str!("released_migrations.txt").lines().filter(|line| !line.starts_with('#')) {
        let (number, sha256) = line.split_once(' ').expect("number and SHA-256");
        let number: i32 = number.parse().expect("a number");
        let now: Option<String> = client
            .query_opt("SELECT sha256 FROM tenancy._migrations() WHERE number = $1", &[&number])
            .unwrap()
            .map(|row| row.get(0));
        assert_eq!(now.as_deref(), Some(sha256), "migration {number} was released and has been edited");
    }
}
