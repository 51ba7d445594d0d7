//! tenancy.health(): each check says ok, and says what is wrong when it is.

use crate::common::{Cluster, Database, Options, fails_with};
use crate::{check, says, sound, well};
use postgres::Client;

fn database() -> (Database<'static>, Client) {
    let database = sound().empty_database();
    let mut client = database.superuser();
    client.batch_execute("CREATE EXTENSION pg_tenancy; SELECT tenancy.install()").unwrap();
    (database, client)
}

#[test]
fn all_is_well_after_install() {
    let (_database, mut client) = database();
    let rows =
        client.query("SELECT concat_ws(': ', check_name, status, detail), remedy FROM tenancy.health()", &[]).unwrap();
    for row in &rows {
        let (line, remedy): (String, Option<String>) = (row.get(0), row.get(1));
        assert!(line.contains(": ok: ") && remedy.is_none(), "{line}, {remedy:?}");
    }
    assert!(rows.len() >= 15, "{}", rows.len());
}

#[test]
fn before_install_it_says_what_to_run() {
    let database = sound().empty_database();
    let mut client = database.superuser();
    client.batch_execute("CREATE EXTENSION pg_tenancy").unwrap();
    says(&mut client, "schema", "error", "not installed");
    let bad = "SELECT count(*) FROM tenancy.health() WHERE status <> 'ok'";
    assert_eq!(client.query_one(bad, &[]).unwrap().get::<_, i64>(0), 1);
}

#[test]
fn operators_and_exporters_may_ask_and_applications_may_not() {
    let database = sound().database();
    for role in ["ops", "met"] {
        assert!(database.connect(role).query("SELECT * FROM tenancy.health()", &[]).unwrap().len() >= 15);
    }
    for role in ["app", "svc"] {
        fails_with(database.connect(role).query("SELECT * FROM tenancy.health()", &[]), "42501");
    }
}

#[test]
fn tables_that_lost_their_row_security() {
    let (_database, mut client) = database();
    client.batch_execute("ALTER TABLE tenancy.users NO FORCE ROW LEVEL SECURITY").unwrap();
    says(&mut client, "row_security", "error", "users");
}

/// CREATE EXTENSION wants a superuser, whom one may demote afterwards: then BYPASSRLS is what the functions need.
#[test]
fn an_owner_that_is_no_superuser() {
    let database = sound().empty_database();
    let mut superuser = database.superuser();
    superuser.batch_execute("CREATE ROLE health_owner SUPERUSER LOGIN").unwrap();
    let mut owner = database.connect("health_owner");
    owner.batch_execute("CREATE EXTENSION pg_tenancy; SELECT tenancy.install()").unwrap();
    superuser.batch_execute("ALTER ROLE health_owner NOSUPERUSER").unwrap();
    says(&mut superuser, "owner", "error", "health_owner");
    superuser.batch_execute("ALTER ROLE health_owner BYPASSRLS").unwrap();
    assert!(check(&mut superuser, "owner").is_empty());
    for name in ["preload", "master_key", "schema", "row_security"] {
        well(&mut superuser, name);
        well(&mut owner, name);
    }
}

#[test]
fn preload() {
    let cluster = Cluster::start(Options { preload: false, ..Options::default() });
    let database = cluster.empty_database();
    let mut client = database.superuser();
    client.batch_execute("CREATE EXTENSION pg_tenancy; SELECT tenancy.install()").unwrap();
    says(&mut client, "preload", "warning", "shared_preload_libraries");
    says(&mut client, "durability", "error", "fsync");
    assert!(check(&mut client, "limiter").is_empty(), "there is no table to be full");
}

#[test]
fn issuers_without_keys_and_keys_near_their_end() {
    let (_database, mut client) = database();
    client.batch_execute("SELECT tenancy.add_issuer('https://a.test', ARRAY['x'])").unwrap();
    says(&mut client, "issuer_keys", "error", "https://a.test");
    client
        .batch_execute("SELECT tenancy.add_secret('https://a.test', 'k', 'HS256', decode(repeat('5f', 32), 'hex'))")
        .unwrap();
    well(&mut client, "issuer_keys");
    client.batch_execute("UPDATE tenancy.issuer_keys SET not_after = now() + interval '3 days'").unwrap();
    says(&mut client, "issuer_keys", "warning", "ends at");
    client
        .batch_execute("SELECT tenancy.add_secret('https://a.test', 'next', 'HS256', decode(repeat('6f', 32), 'hex'))")
        .unwrap();
    well(&mut client, "issuer_keys");
}

#[test]
fn signing_keys_that_end_or_are_retired() {
    let (_database, mut client) = database();
    client
        .batch_execute("SELECT tenancy.add_signing_profile('default', 'https://own.test', 'x', 'HS256', 'k', decode(repeat('5f', 32), 'hex'))")
        .unwrap();
    well(&mut client, "signing_keys");
    client.batch_execute("UPDATE tenancy.issuer_keys SET not_after = now() + interval '3 days'").unwrap();
    says(&mut client, "signing_keys", "warning", "verifies until");
    client.batch_execute("SELECT tenancy.retire_key('https://own.test', 'k')").unwrap();
    says(&mut client, "signing_keys", "error", "is retired");
}

#[test]
fn holes_of_the_server() {
    let (_database, mut client) = database();
    well(&mut client, "server_version");
    client
        .batch_execute(
            "CREATE OR REPLACE FUNCTION tenancy._audit_server(version_num integer DEFAULT 150002)
             RETURNS TABLE (rule text, severity text, object text, finding text, remedy text)
             LANGUAGE sql AS $$ SELECT 'server_version', NULL, 'server', 'PostgreSQL 15.2 has CVE-2023-2455', 'Update.' $$",
        )
        .unwrap();
    says(&mut client, "server_version", "error", "CVE-2023-2455");
}

#[test]
fn settings_that_lose_charges_or_show_tokens() {
    let (database, mut client) = database();
    for (setting, name, status, words) in [
        ("synchronous_commit = off", "durability", "warning", "lose charges"),
        ("log_statement = 'all'", "tokens_in_log", "warning", "tokens among them"),
        ("log_error_verbosity = terse", "log_identity", "warning", "terse"),
    ] {
        well(&mut client, name);
        client.batch_execute(&format!("ALTER DATABASE {} SET {setting}", database.name)).unwrap();
        says(&mut database.superuser(), name, status, words);
    }
    client.batch_execute(&format!("ALTER DATABASE {} SET log_parameter_max_length = 0", database.name)).unwrap();
    client.batch_execute(&format!("ALTER DATABASE {} SET tenancy.log_identity = off", database.name)).unwrap();
    let mut client = database.superuser();
    well(&mut client, "tokens_in_log");
    says(&mut client, "log_identity", "ok", "off by");
}

#[test]
fn roles_with_more_rights_than_they_need() {
    let (_database, mut client) = database();
    client
        .batch_execute(
            "CREATE ROLE health_app LOGIN; CREATE ROLE health_all BYPASSRLS; CREATE ROLE health_svc LOGIN;
             SELECT tenancy.grant_access('health_app', 'application'), tenancy.grant_access('health_svc', 'service')",
        )
        .unwrap();
    well(&mut client, "roles");
    client.batch_execute("GRANT health_svc TO health_app").unwrap();
    says(&mut client, "roles", "warning", "through \"health_svc\"");
    client.batch_execute("GRANT health_all TO health_app").unwrap();
    says(&mut client, "roles", "error", "health_all");
    client.batch_execute("ALTER ROLE health_app BYPASSRLS").unwrap();
    says(&mut client, "access_roles", "error", "bypasses");
}

#[test]
fn findings_of_the_audit() {
    let (_database, mut client) = database();
    client
        .batch_execute("CREATE TABLE public.notes (id integer); SELECT tenancy.protect_table('public.notes')")
        .unwrap();
    well(&mut client, "isolation");
    client.batch_execute("ALTER TABLE public.notes DISABLE ROW LEVEL SECURITY").unwrap();
    says(&mut client, "isolation", "error", "notes");
}

#[test]
fn consumers_that_are_behind_or_gave_up() {
    let (_database, mut client) = database();
    client
        .batch_execute(
            "SELECT tenancy.set_event_consumer('mailer'); SELECT tenancy.publish_event('a.b.v1', '{\"user_id\": \"ada\"}', 'a', '1')",
        )
        .unwrap_or_else(|error| panic!("{error:?}"));
    well(&mut client, "outbox");
    client.batch_execute("UPDATE tenancy.event_deliveries SET created_at = now() - interval '10 minutes'").unwrap();
    says(&mut client, "outbox", "warning", "\"mailer\" is behind: 1 events");
    client.batch_execute("UPDATE tenancy.event_deliveries SET created_at = now() - interval '2 hours'").unwrap();
    says(&mut client, "outbox", "error", "\"mailer\" is behind");
    client
        .batch_execute(
            "DELETE FROM tenancy.event_deliveries;
             INSERT INTO tenancy.event_dead_letters (tenant_id, consumer, event_id, aggregatetype, aggregateid, sequence, attempts)
             VALUES ('t', 'mailer', tenancy.uuid_v7(), 'a', '1', 1, 10)",
        )
        .unwrap();
    says(&mut client, "outbox", "warning", "gave up on 1 events");
}

#[test]
fn holds_that_nobody_settles() {
    let (_database, mut client) = database();
    client
        .batch_execute(
            "SELECT tenancy.register_user('ada'), tenancy.grant_credits(10, user_id => 'ada');
             SELECT tenancy.hold_credits('ada', 3)",
        )
        .unwrap();
    well(&mut client, "holds");
    client
        .batch_execute(
            "UPDATE tenancy.credit_holds SET created_at = now() - interval '3 hours', expires_at = now() - interval '2 hours';
             UPDATE tenancy.credit_pools SET next_expiry_at = now() - interval '2 hours'",
        )
        .unwrap();
    says(&mut client, "holds", "warning", "1 holds and 0 grants");
    client.batch_execute("SELECT tenancy.sweep_credits()").unwrap();
    well(&mut client, "holds");
}

#[test]
fn a_rate_limiter_that_is_nearly_full() {
    let settings = vec![("tenancy.limiter_cells", "1024".to_string())];
    let cluster = Cluster::start(Options { settings, ..Options::default() });
    let database = cluster.database();
    let mut client = database.superuser();
    well(&mut client, "limiter");
    // Where a key's places are taken it is refused, before the whole table is full.
    client
        .batch_execute(
            "SELECT tenancy.set_rate_limit('calls', 10, '1 day');
             DO $$
             BEGIN
                 FOR n IN 1..1500 LOOP
                     BEGIN
                         PERFORM tenancy.take_rate_limit_for('t', 'calls', 1, 'key ' || n);
                     EXCEPTION WHEN SQLSTATE 'PT429' THEN NULL;
                     END;
                 END LOOP;
             END
             $$",
        )
        .unwrap();
    says(&mut client, "limiter", "warning", "cells are in use");
}
