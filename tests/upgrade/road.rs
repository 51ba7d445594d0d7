//! Each step of the road, and each way to leave it.

use crate::common::copies::{clean, difference, goes_on, lived_in, objects, rows};
use crate::common::{Cluster, Database, Options, refused};
use crate::package::{NEXT, NOW, Package};
use postgres::Client;

/// A server that does not preload the library: each new connection loads the one that is installed.
fn server(package: &Package, preload: bool) -> Cluster {
    Cluster::start(Options { preload, programs: Some(package.programs()), ..Options::default() })
}

fn text(client: &mut Client, statement: &str) -> String {
    client.query_one(statement, &[]).unwrap().get(0)
}

/// Every road into the tables is closed, with this reason, and the rows stay as they are.
#[track_caller]
fn refuses(database: &Database, client: &mut Client, sqlstate: &str, reason: &str) {
    let before = rows(&mut database.superuser());
    for call in [
        "tenancy.register_user('new')",
        "tenancy.assign_seat('org_acme', 'zoe')",
        "tenancy.grant_credits(1, org_id => 'org_acme')",
        "tenancy.deduct_credits_pooled('ada', 1, 'org_acme')",
        "tenancy.hold_credits('ada', 1, 'org_acme')",
        "tenancy.authenticate('a.b.c')",
        "tenancy.act_as('ada')",
        "tenancy.issue_access_token('ada')",
        "tenancy.publish_event('a.v1', '{\"user_id\": \"ada\"}', 'a', '1')",
        "tenancy.set_quota('pages', 1, 2, 'month')",
        "tenancy.sweep_credits(10)",
        "tenancy.seal_ledger()",
    ] {
        refused(client.query(&format!("SELECT {call}"), &[]), sqlstate, reason);
    }
    assert_eq!(rows(&mut database.superuser()), before, "nothing was written");
}

#[test]
fn fresh_upgraded_and_restored_databases_are_the_same() {
    let package = Package::install("road");
    let cluster = server(&package, false);
    let upgraded = lived_in(&cluster);
    let mut old_session = upgraded.superuser();
    old_session.batch_execute("SELECT tenancy.register_user('before')").unwrap();
    let data = rows(&mut old_session);
    assert!(data.len() > 40, "{data:?}");

    // The package: a new library beside functions and tables of the old version.
    package.upgrade();
    let mut dba = upgraded.superuser();
    assert_eq!(text(&mut dba, "SELECT tenancy._library_version()"), NEXT);
    refuses(&upgraded, &mut dba, "55000", "schema_behind");
    let error = refused(dba.query("SELECT tenancy.migrate()", &[]), "55000", "extension_behind");
    assert!(error.hint().unwrap().contains("ALTER EXTENSION pg_tenancy UPDATE"));
    // Sessions that run the old library go on with the old functions and tables until those change.
    old_session.batch_execute("SELECT tenancy.register_user('between')").unwrap();

    // The functions: still the tables of the old version.
    dba.batch_execute("ALTER EXTENSION pg_tenancy UPDATE").unwrap();
    assert_eq!(text(&mut dba, "SELECT extversion FROM pg_extension WHERE extname = 'pg_tenancy'"), NEXT);
    refuses(&upgraded, &mut dba, "55000", "schema_behind");
    let health = "SELECT remedy FROM tenancy.health() WHERE check_name = 'schema' AND status = 'error'";
    assert_eq!(text(&mut dba, health), "SELECT tenancy.migrate();");
    refuses(&upgraded, &mut old_session, "55000", "library_behind");

    // The tables, in one transaction that may fail.
    dba.batch_execute("BEGIN; SELECT tenancy.migrate(); ROLLBACK").unwrap();
    refuses(&upgraded, &mut dba, "55000", "schema_behind");
    assert_eq!(text(&mut dba, "SELECT tenancy.migrate()"), NEXT);
    let error = refused(old_session.query("SELECT tenancy.register_user('after')", &[]), "55000", "schema_ahead");
    assert!(error.hint().unwrap().contains("reconnect"));
    assert_eq!(text(&mut dba, "SELECT note FROM tenancy.made_up_notes"), "suspended before notes existed");
    let told = rows(&mut dba);
    for (table, digest) in &data {
        // The migration rewrote tenants; a user was registered between; grants are recorded by migrate() anew.
        if !["tenancy.tenants", "tenancy.users"].contains(&table.as_str()) {
            assert_eq!(told.get(table), Some(digest), "{table} came through as it was");
        }
    }

    // A fresh database of the next version has the same objects.
    let fresh = cluster.empty_database();
    let mut client = fresh.superuser();
    client.batch_execute("CREATE EXTENSION pg_tenancy; SELECT tenancy.install()").unwrap();
    for (role, access) in [("app", "application"), ("svc", "service"), ("ops", "operator"), ("met", "metrics")] {
        client.query(&format!("SELECT tenancy.grant_access('{role}', '{access}')"), &[]).unwrap();
    }
    client
        .batch_execute(
            "ALTER TABLE tenancy.users ADD COLUMN nickname text DEFAULT 'none'; CREATE INDEX of_the_users_own ON tenancy.users (nickname)",
        )
        .unwrap();
    let expected = objects(&mut client);
    assert_eq!(difference(&expected, &objects(&mut dba)), Vec::<String>::new(), "fresh (-) and upgraded (+)");

    // So has the upgraded one, dumped and restored, with its rows.
    let dump = cluster.folder().join("upgraded.dump");
    let dump = dump.to_str().unwrap();
    let restored = cluster.empty_database();
    for (program, arguments) in [
        ("pg_dump", ["-Fc", "-f", dump, upgraded.name.as_str()]),
        ("pg_restore", ["-e", "-d", restored.name.as_str(), dump]),
    ] {
        let done = cluster.client(program, &arguments);
        assert!(done.status.success(), "{program}: {}", String::from_utf8_lossy(&done.stderr));
    }
    let mut there = restored.superuser();
    assert_eq!(rows(&mut there), rows(&mut dba));
    there.batch_execute("SELECT tenancy.migrate()").unwrap();
    assert_eq!(difference(&expected, &objects(&mut there)), Vec::<String>::new(), "fresh (-) and restored (+)");

    // And life goes on in both.
    for database in [&upgraded, &restored] {
        goes_on(database);
        let mut service = database.connect("svc");
        service.query("SELECT tenancy.add_note('acme', 'a note')", &[]).unwrap();
        service.query("SELECT tenancy.lock_key('moved to service')", &[]).unwrap_err();
        clean(&mut database.superuser());
    }

    // The old package over the new tables.
    package.downgrade();
    let mut behind = upgraded.superuser();
    assert_eq!(text(&mut behind, "SELECT tenancy._library_version()"), NOW);
    refuses(&upgraded, &mut behind, "55000", "schema_ahead");
    let error = refused(behind.query("SELECT tenancy.migrate()", &[]), "55000", "library_behind");
    assert!(error.hint().unwrap().contains("package"));
}

/// With shared_preload_libraries every session runs the old library until the server restarts.
#[test]
fn a_preloaded_library_says_restart_the_server() {
    let package = Package::install("preload");
    let cluster = server(&package, true);
    let database = lived_in(&cluster);
    package.upgrade();
    let mut dba = database.superuser();
    assert_eq!(text(&mut dba, "SELECT tenancy._library_version()"), NOW);
    dba.batch_execute("ALTER EXTENSION pg_tenancy UPDATE").unwrap();
    refuses(&database, &mut dba, "55000", "library_behind");
    let error = refused(dba.query("SELECT tenancy.migrate()", &[]), "55000", "library_behind");
    assert!(error.hint().unwrap().contains("restart"));
    cluster.stop();
    cluster.resume();
    let mut dba = database.superuser();
    refuses(&database, &mut dba, "55000", "schema_behind");
    dba.batch_execute("SELECT tenancy.migrate()").unwrap();
    goes_on(&database);
    clean(&mut dba);
}
