//! What protect_table refuses, with which SQLSTATE and reason, and that nothing was changed then.

use crate::common::{fails_with, refused};
use crate::world::{noticed, protect, role, shop, take_notices};

#[test]
fn only_the_owner_may_protect() {
    let database = shop();
    let mut superuser = database.superuser();
    superuser.batch_execute("CREATE TABLE shop.others (id bigint); GRANT ALL ON shop.others TO ops").unwrap();
    let mut ops = database.connect("ops");
    for call in [
        "protect_table('shop.others')",
        "protect_table('shop.others', dry_run => true)",
        "unprotect_table('shop.others')",
    ] {
        refused(ops.query(&format!("SELECT tenancy.{call}"), &[]), "42501", "not_owner");
    }
    role(&database, "builders", "");
    superuser.batch_execute("GRANT builders TO ops; ALTER TABLE shop.others OWNER TO builders").unwrap();
    assert!(!protect(&mut ops, "'shop.others'").is_empty(), "a member of the owner owns it");
}

#[test]
fn what_row_security_cannot_hold_is_refused() {
    let database = shop();
    let mut superuser = database.superuser();
    superuser
        .batch_execute(
            "CREATE VIEW shop.a_view AS SELECT 1 AS id;
             CREATE MATERIALIZED VIEW shop.a_matview AS SELECT 1 AS id;
             CREATE SEQUENCE shop.a_sequence;
             CREATE TYPE shop.a_type AS (id integer);
             CREATE TABLE shop.plain (id integer PRIMARY KEY);
             CREATE FOREIGN DATA WRAPPER nowhere;
             CREATE SERVER nowhere FOREIGN DATA WRAPPER nowhere;
             CREATE FOREIGN TABLE shop.a_foreign_table (id integer) SERVER nowhere;
             CREATE TABLE shop.parted (id integer) PARTITION BY LIST (id);
             CREATE FOREIGN TABLE shop.parted_1 PARTITION OF shop.parted FOR VALUES IN (1) SERVER nowhere;
             CREATE TEMP TABLE a_temp_table (id integer);
             CREATE TABLE shop.member (id integer);
             ALTER EXTENSION plpgsql ADD TABLE shop.member;",
        )
        .unwrap();
    for (table, sqlstate, reason) in [
        ("shop.a_view", "42809", "not_a_table"),
        ("shop.a_matview", "42809", "not_a_table"),
        ("shop.a_sequence", "42809", "not_a_table"),
        ("shop.plain_pkey", "42809", "not_a_table"),
        ("shop.a_type", "42809", "not_a_table"),
        ("shop.a_foreign_table", "0A000", "foreign_table"),
        ("shop.parted", "0A000", "foreign_table"),
        ("a_temp_table", "0A000", "temporary_table"),
        ("shop.member", "0A000", "extension_table"),
        ("pg_catalog.pg_class", "22023", "system_table"),
        ("information_schema.sql_features", "22023", "system_table"),
        ("tenancy.organizations", "22023", "own_table"),
    ] {
        for function in ["protect_table", "unprotect_table"] {
            let call = format!("SELECT tenancy.{function}('{table}')");
            refused(superuser.query(&call, &[]), sqlstate, reason);
        }
    }
    refused(superuser.query("SELECT tenancy.protect_table(NULL)", &[]), "22023", "invalid_argument");
    refused(superuser.query("SELECT tenancy.protect_table(4294967295::oid::regclass)", &[]), "22023", "unknown_table");
    fails_with(superuser.query("SELECT tenancy.protect_table('shop.nothing')", &[]), "42P01");
    superuser.batch_execute("ALTER EXTENSION plpgsql DROP TABLE shop.member").unwrap();
}

#[test]
fn a_column_that_does_not_fit_is_refused_with_the_statement_that_mends_it() {
    let database = shop();
    let mut ops = database.connect("ops");
    let mut superuser = database.superuser();
    superuser.batch_execute("GRANT USAGE ON SCHEMA shop TO ops").unwrap();
    let loose = "CREATE COLLATION shop.loose (provider = icu, locale = 'und', deterministic = false)";
    let has_icu = match superuser.batch_execute(loose) {
        Ok(()) => true,
        // Some of the servers of `make test-matrix` are built without it.
        Err(error) => {
            assert!(
                error.as_db_error().is_some_and(|error| error.message().starts_with("ICU is not supported")),
                "{error:?}"
            );
            false
        }
    };
    for (column, arguments, reason, mend) in [
        ("tenant_id varchar(20)", "", "column_type", "TYPE text"),
        ("tenant_id integer", "", "column_type", "TYPE bigint"),
        ("tenant_id char(3)", "", "column_type", "TYPE text"),
        ("tenant_id text[]", "", "column_type", "TYPE text"),
        ("tenant_id numeric", "", "column_type", "TYPE text"),
        ("tenant_id text COLLATE shop.loose", "", "column_collation", "COLLATE \"C\""),
        ("tenant_id bigint GENERATED ALWAYS AS IDENTITY", "", "generated_column", "ordinary column"),
        ("tenant_id text GENERATED ALWAYS AS (id::text) STORED", "", "generated_column", "ordinary column"),
        ("org_id bigint", ", org_column => 'org_id'", "column_type", "TYPE text"),
        ("other text", ", org_column => 'org_id'", "unknown_column", "ADD COLUMN org_id"),
        ("other text", ", tenant_column => 'ctid'", "system_column", "of your own"),
        ("other text", ", tenant_column => ''", "invalid_argument", "Name a column"),
    ] {
        if column.contains("shop.loose") && !has_icu {
            continue;
        }
        ops.batch_execute(&format!("DROP TABLE IF EXISTS shop.odd; CREATE TABLE shop.odd (id bigint, {column})"))
            .unwrap();
        let call = format!("SELECT tenancy.protect_table('shop.odd'{arguments})");
        let error = refused(ops.query(&call, &[]), "22023", reason);
        assert!(error.hint().unwrap().contains(mend), "{column}: {error:?}");
    }
}

#[test]
fn rows_that_belong_to_nobody_are_counted_and_refused() {
    let database = shop();
    let mut ops = database.connect("ops");
    ops.batch_execute(
        "CREATE TABLE shop.without (id bigint); INSERT INTO shop.without SELECT generate_series(1, 3);
         CREATE TABLE shop.with_nulls (id bigint, tenant_id text);
         INSERT INTO shop.with_nulls VALUES (1, NULL), (2, NULL), (3, 'tenant-a');
         CREATE TABLE shop.hidden (id bigint, tenant_id text);
         INSERT INTO shop.hidden VALUES (1, NULL);
         ALTER TABLE shop.hidden ENABLE ROW LEVEL SECURITY;
         ALTER TABLE shop.hidden FORCE ROW LEVEL SECURITY;",
    )
    .unwrap();
    for (table, rows) in [("without", 3), ("with_nulls", 2), ("hidden", 1)] {
        for dry_run in [true, false] {
            let call = format!("SELECT tenancy.protect_table('shop.{table}', dry_run => {dry_run})");
            let error = refused(ops.query(&call, &[]), "22023", "rows_without_tenant");
            assert!(error.detail().unwrap().contains(&format!("\"rows\": {rows}")), "{error:?}");
            assert!(error.hint().unwrap().contains("protect_table_online"), "{error:?}");
        }
    }
    let forced = "SELECT relforcerowsecurity FROM pg_class WHERE oid = 'shop.hidden'::regclass";
    assert!(ops.query_one(forced, &[]).unwrap().get::<_, bool>(0), "counting past the policies left FORCE as it was");
    ops.batch_execute("UPDATE shop.with_nulls SET tenant_id = 'tenant-b' WHERE tenant_id IS NULL").unwrap();
    assert!(!protect(&mut ops, "'shop.with_nulls'").is_empty());
}

#[test]
fn an_operator_role_that_the_floor_would_bind_is_refused() {
    let database = shop();
    role(&database, "support_lead", "IN ROLE app");
    let (mut ops, notices) = database.connect_with_notices("ops");
    ops.batch_execute("CREATE TABLE shop.essays (id bigint); GRANT SELECT ON shop.essays TO app, support_lead")
        .unwrap();
    let call = |role: &str| format!("SELECT tenancy.protect_table('shop.essays', operator_role => '{role}')");
    refused(ops.query(&call("nobody_at_all"), &[]), "22023", "unknown_role");
    let error = refused(ops.query(&call("support_lead"), &[]), "22023", "operator_is_bound");
    assert!(error.hint().unwrap().contains("REVOKE app FROM support_lead"), "{error:?}");
    ops.batch_execute("GRANT SELECT ON shop.essays TO PUBLIC").unwrap();
    refused(ops.query(&call("svc"), &[]), "22023", "granted_to_public");
    assert!(!noticed(&take_notices(&notices), &["reach it"]), "nothing was done");
}

#[test]
fn without_the_tables_it_says_what_to_run() {
    let database = crate::common::cluster().empty_database();
    let mut superuser = database.superuser();
    superuser.batch_execute("CREATE EXTENSION pg_tenancy; CREATE TABLE essays (id bigint)").unwrap();
    let error = refused(superuser.query("SELECT tenancy.protect_table('essays')", &[]), "55000", "schema_missing");
    assert!(error.hint().unwrap().contains("tenancy.install()"));
}
