//! protect_table and unprotect_table: what they set, say, record and take back.

use crate::common::{fails_with, refused};
use crate::world::{
    BIGINT, TEXT, UUID, as_tenant, column, noticed, protect, role, shop, shop_with_essays, take_notices, token_of_org,
    value, with_token,
};

#[test]
fn protect_table_adds_all_that_is_missing() {
    let database = shop();
    let mut ops = database.connect("ops");
    ops.batch_execute("CREATE TABLE shop.essays (id bigint PRIMARY KEY, body text); GRANT ALL ON shop.essays TO app")
        .unwrap();
    let statements = protect(&mut ops, "'shop.essays'");
    for (index, part) in [
        "ADD COLUMN tenant_id text",
        "SET DEFAULT tenancy.tenant_id()",
        "SET NOT NULL",
        "CREATE INDEX ON shop.essays (tenant_id, id)",
        "ENABLE ROW LEVEL SECURITY",
        "FORCE ROW LEVEL SECURITY",
        "CREATE POLICY tenancy_floor ON shop.essays AS RESTRICTIVE FOR ALL TO PUBLIC USING (tenant_id = tenancy.tenant_id())",
        "COMMENT ON POLICY tenancy_floor",
        "CREATE POLICY tenancy_access ON shop.essays AS PERMISSIVE",
        "REVOKE TRUNCATE, REFERENCES, TRIGGER ON shop.essays FROM app",
    ]
    .iter()
    .enumerate()
    {
        assert!(statements[index].contains(part), "{part}: {statements:#?}");
    }
    assert_eq!(statements.len(), 10);
    let flags =
        "SELECT (relrowsecurity AND relforcerowsecurity)::text FROM pg_class WHERE oid = 'shop.essays'::regclass";
    assert_eq!(value(&mut ops, flags), "true");
    let held = "SELECT string_agg(privilege_type, ',' ORDER BY privilege_type) FROM pg_class, aclexplode(relacl)
                 WHERE oid = 'shop.essays'::regclass AND grantee = 'app'::regrole AND privilege_type <> 'MAINTAIN'";
    // MAINTAIN, from 17 on, shows and changes no row.
    assert_eq!(value(&mut ops, held), "DELETE,INSERT,SELECT,UPDATE");
}

#[test]
fn the_statements_returned_are_those_that_protect() {
    let database = shop();
    let mut ops = database.connect("ops");
    ops.batch_execute("CREATE TABLE shop.essays (id bigint PRIMARY KEY); GRANT ALL ON shop.essays TO app").unwrap();
    for statement in protect(&mut ops, "'shop.essays', dry_run => true") {
        ops.batch_execute(&statement).unwrap();
    }
    assert!(protect(&mut ops, "'shop.essays', dry_run => true").is_empty());
}

#[test]
fn dry_run_lists_and_changes_nothing() {
    let database = shop();
    let mut ops = database.connect("ops");
    ops.batch_execute("CREATE TABLE shop.essays (id bigint PRIMARY KEY)").unwrap();
    let listed = protect(&mut ops, "'shop.essays', dry_run => true");
    let untouched =
        "SELECT (NOT relrowsecurity AND relnatts = 1)::text FROM pg_class WHERE oid = 'shop.essays'::regclass";
    assert_eq!(value(&mut ops, untouched), "true");
    let recorded = "SELECT count(*)::text FROM tenancy.protected_tables";
    assert_eq!(value(&mut database.superuser(), recorded), "0");
    assert_eq!(protect(&mut ops, "'shop.essays'"), listed);
}

#[test]
fn a_second_call_does_nothing_and_says_so() {
    let database = shop_with_essays();
    let (mut ops, notices) = database.connect_with_notices("ops");
    assert!(protect(&mut ops, "'shop.essays'").is_empty());
    assert!(noticed(&take_notices(&notices), &["already protected", "nothing to do"]));
}

#[test]
fn what_somebody_undid_is_set_again() {
    let database = shop_with_essays();
    let mut ops = database.connect("ops");
    for (undone, again) in [
        ("ALTER TABLE shop.essays NO FORCE ROW LEVEL SECURITY", "FORCE ROW LEVEL SECURITY"),
        ("ALTER TABLE shop.essays DISABLE ROW LEVEL SECURITY", "ENABLE ROW LEVEL SECURITY"),
        ("ALTER TABLE shop.essays ALTER tenant_id DROP NOT NULL", "SET NOT NULL"),
        ("ALTER TABLE shop.essays ALTER tenant_id DROP DEFAULT", "SET DEFAULT"),
        ("DROP POLICY tenancy_floor ON shop.essays", "CREATE POLICY tenancy_floor"),
        ("ALTER POLICY tenancy_floor ON shop.essays USING (true)", "ALTER POLICY tenancy_floor"),
        ("ALTER POLICY tenancy_access ON shop.essays TO app", "ALTER POLICY tenancy_access"),
        ("GRANT TRUNCATE ON shop.essays TO app", "REVOKE TRUNCATE"),
        ("DROP INDEX shop.essays_tenant_id_id_idx", "CREATE INDEX"),
    ] {
        ops.batch_execute(undone).unwrap();
        let statements = protect(&mut ops, "'shop.essays'");
        assert!(statements.iter().any(|s| s.contains(again)), "{undone}: {statements:?}");
        assert!(protect(&mut ops, "'shop.essays'").is_empty(), "{undone}");
    }
}

#[test]
fn each_tenant_has_its_own_rows_whatever_the_type_of_its_id() {
    let database = shop();
    let mut ops = database.connect("ops");
    let mut app = database.connect("app");
    for (kind, accessor, tenants) in
        [("text", "tenant_id", TEXT), ("uuid", "tenant_uuid", UUID), ("bigint", "tenant_bigint", BIGINT)]
    {
        let table = format!("shop.of_{kind}");
        ops.batch_execute(&format!(
            "CREATE TABLE {table} (id bigint PRIMARY KEY, tenant_id {kind}); GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO app"
        ))
        .unwrap();
        let statements = protect(&mut ops, &format!("'{table}'"));
        let policy = format!("USING (tenant_id = tenancy.{accessor}())");
        assert!(statements.iter().any(|s| s.contains(&policy)), "{statements:?}");
        for (id, tenant) in [1i64, 2].iter().zip(tenants) {
            as_tenant(&mut app, tenant, |tx| {
                tx.execute(&format!("INSERT INTO {table} (id) VALUES ($1)"), &[id]).unwrap()
            });
        }
        for (id, tenant) in ["1", "2"].iter().zip(tenants) {
            let seen = as_tenant(&mut app, tenant, |tx| column(tx, &format!("SELECT id::text FROM {table}")));
            assert_eq!(seen, [*id]);
        }
        let unseen = column(&mut app, &format!("SELECT id::text FROM {table}"));
        assert!(unseen.is_empty(), "without an identity there are no rows");
    }
}

#[test]
fn a_row_of_another_tenant_cannot_be_written() {
    let database = shop_with_essays();
    let mut app = database.connect("app");
    as_tenant(&mut app, "tenant-b", |tx| tx.execute("INSERT INTO shop.essays (id) VALUES (2)", &[]).unwrap());
    for statement in [
        "INSERT INTO shop.essays (id, tenant_id) VALUES (3, 'tenant-b')",
        "INSERT INTO shop.essays (id, tenant_id) VALUES (3, NULL)",
    ] {
        as_tenant(&mut app, "tenant-a", |tx| {
            fails_with(tx.execute(statement, &[]), "42501");
        });
    }
    as_tenant(&mut app, "tenant-a", |tx| {
        assert_eq!(tx.execute("UPDATE shop.essays SET body = 'x'", &[]).unwrap(), 0);
        assert_eq!(tx.execute("DELETE FROM shop.essays", &[]).unwrap(), 0);
        tx.execute("INSERT INTO shop.essays (id) VALUES (1)", &[]).unwrap();
        fails_with(tx.execute("UPDATE shop.essays SET tenant_id = 'tenant-b'", &[]), "42501");
    });
}

#[test]
fn the_owner_is_bound_too() {
    let database = shop_with_essays();
    let mut app = database.connect("app");
    as_tenant(&mut app, "tenant-a", |tx| tx.execute("INSERT INTO shop.essays (id) VALUES (1)", &[]).unwrap());
    let mut ops = database.connect("ops");
    assert!(column(&mut ops, "SELECT id::text FROM shop.essays").is_empty());
}

#[test]
fn an_org_column_is_a_second_predicate_and_the_floor_stays_scalar() {
    let database = shop();
    let mut ops = database.connect("ops");
    ops.batch_execute(
        "CREATE TABLE shop.notes (id bigint PRIMARY KEY, org_id text DEFAULT tenancy.org_id());
         GRANT SELECT, INSERT ON shop.notes TO app",
    )
    .unwrap();
    let statements = protect(&mut ops, "'shop.notes', org_column => 'org_id'");
    let floor = statements.iter().find(|s| s.contains("CREATE POLICY tenancy_floor")).unwrap();
    let access = statements.iter().find(|s| s.contains("CREATE POLICY tenancy_access")).unwrap();
    assert!(!floor.contains("org_id"), "{floor}");
    assert!(access.contains("((tenant_id = tenancy.tenant_id()) AND (org_id = tenancy.org_id()))"), "{access}");
    assert!(protect(&mut ops, "'shop.notes'").is_empty(), "left out, the organization column stays");

    let mut app = database.connect("app");
    for (id, org) in [(1i64, "org-1"), (2, "org-2")] {
        with_token(&mut app, &token_of_org("tenant-a", org), |tx| {
            tx.execute("INSERT INTO shop.notes (id) VALUES ($1)", &[&id]).unwrap()
        });
    }
    let seen =
        with_token(&mut app, &token_of_org("tenant-a", "org-1"), |tx| column(tx, "SELECT id::text FROM shop.notes"));
    assert_eq!(seen, ["1"]);
    let personal = as_tenant(&mut app, "tenant-a", |tx| column(tx, "SELECT id::text FROM shop.notes"));
    assert!(personal.is_empty(), "without an organization there are no organization's rows");
}

#[test]
fn it_names_who_reaches_the_table_and_who_gets_permission_denied() {
    let database = shop();
    role(&database, "reporting", "");
    role(&database, "replicator", "BYPASSRLS");
    database.superuser().batch_execute("GRANT USAGE ON SCHEMA shop TO reporting, replicator").unwrap();
    let (mut ops, notices) = database.connect_with_notices("ops");
    ops.batch_execute(
        "CREATE TABLE shop.essays (id bigint);
         GRANT SELECT ON shop.essays TO app, reporting, replicator;
         CREATE POLICY mine ON shop.essays USING (id > 0);
         SELECT tenancy.protect_table('shop.essays')",
    )
    .unwrap();
    let said = take_notices(&notices);
    assert!(noticed(&said, &["these roles reach it: app"]), "{said:#?}");
    assert!(noticed(&said, &["permission denied for reporting", "grant_access"]), "{said:#?}");
    assert!(noticed(&said, &["permission denied for", "svc", "GRANT SELECT"]), "{said:#?}");
    assert!(noticed(&said, &["no policy binds replicator"]), "{said:#?}");
    assert!(noticed(&said, &["also has the policy mine", "never across tenants"]), "{said:#?}");

    ops.batch_execute("INSERT INTO shop.essays (id, tenant_id) SELECT 1, 'x' WHERE false").unwrap();
    let mut superuser = database.superuser();
    superuser.batch_execute("SET ROLE reporting").unwrap();
    fails_with(superuser.query("SELECT * FROM shop.essays", &[]), "42501");
}

#[test]
fn unprotect_takes_back_what_protect_did() {
    let database = shop_with_essays();
    let (mut ops, notices) = database.connect_with_notices("ops");
    assert_eq!(value(&mut ops, "SELECT tenancy.unprotect_table('shop.essays')::text"), "true");
    let left = "SELECT concat_ws(' ', relrowsecurity, relforcerowsecurity,
                       (SELECT count(*) FROM pg_policy WHERE polrelid = c.oid), (SELECT count(*) FROM pg_attrdef WHERE adrelid = c.oid))
                  FROM pg_class c WHERE oid = 'shop.essays'::regclass";
    assert_eq!(value(&mut ops, left), "f f 0 0");
    assert_eq!(value(&mut database.superuser(), "SELECT count(*)::text FROM tenancy.protected_tables"), "0");
    take_notices(&notices);
    assert_eq!(value(&mut ops, "SELECT tenancy.unprotect_table('shop.essays')::text"), "false");
    assert!(noticed(&take_notices(&notices), &["not protected", "nothing to do"]));
    assert_eq!(protect(&mut ops, "'shop.essays'").len(), 6, "column, NOT NULL, index and privileges had stayed");
}

#[test]
fn unprotect_leaves_row_level_security_that_was_on_before() {
    let database = shop();
    let mut ops = database.connect("ops");
    ops.batch_execute(
        "CREATE TABLE shop.essays (id bigint);
         ALTER TABLE shop.essays ENABLE ROW LEVEL SECURITY;
         CREATE POLICY mine ON shop.essays USING (id > 0);
         SELECT tenancy.protect_table('shop.essays');
         SELECT tenancy.unprotect_table('shop.essays')",
    )
    .unwrap();
    let left = "SELECT concat_ws(' ', relrowsecurity, relforcerowsecurity, (SELECT string_agg(polname, ',') FROM pg_policy WHERE polrelid = c.oid))
                  FROM pg_class c WHERE oid = 'shop.essays'::regclass";
    assert_eq!(value(&mut ops, left), "t f mine");
}

#[test]
fn the_record_holds_only_what_the_catalogs_show() {
    let database = shop_with_essays();
    let mut ops = database.connect("ops");
    ops.batch_execute("CREATE TABLE shop.plain (tenant_id text NOT NULL DEFAULT tenancy.tenant_id())").unwrap();
    for lie in [
        "'shop.plain', 'tenant_id', NULL, NULL",
        "'shop.essays', 'body', NULL, NULL",
        "'shop.essays', 'tenant_id', 'body', NULL",
        "'shop.essays', 'tenant_id', NULL, 'svc'",
        "NULL, 'tenant_id', NULL, NULL",
    ] {
        refused(ops.query(&format!("SELECT tenancy._record_protection({lie})"), &[]), "42501", "not_protected");
    }
    // The owner's own hand is no release either, nor is anybody else's call.
    refused(ops.query("SELECT tenancy._forget_protection('shop.essays')", &[]), "42501", "not_released");
    let recorded = "SELECT relation::text || ' ' || tenant_column FROM tenancy.protected_tables";
    assert_eq!(column(&mut database.superuser(), recorded), ["shop.essays tenant_id"]);
    let mut app = database.connect("app");
    for call in [
        "_record_protection('shop.essays', 'tenant_id', NULL, NULL)",
        "_forget_protection('shop.essays')",
        "protect_table('shop.essays')",
        "unprotect_table('shop.essays')",
    ] {
        fails_with(app.query(&format!("SELECT tenancy.{call}"), &[]), "42501");
    }
}

#[test]
fn a_renamed_table_stays_protected() {
    let database = shop_with_essays();
    let mut ops = database.connect("ops");
    ops.batch_execute("ALTER TABLE shop.essays RENAME COLUMN tenant_id TO \"Tenant \"\"x\"; ALTER TABLE shop.essays RENAME TO \"Es'says\"")
        .unwrap();
    assert!(protect(&mut ops, "'shop.\"Es''says\"', 'Tenant \"x'").is_empty());
    let recorded = "SELECT tenant_column::text FROM tenancy.protected_tables";
    assert_eq!(value(&mut database.superuser(), recorded), "Tenant \"x");
    ops.batch_execute("SELECT tenancy.unprotect_table('shop.\"Es''says\"')").unwrap();
    assert!(!protect(&mut ops, "'shop.\"Es''says\"', 'Tenant \"x'").is_empty());
    assert!(protect(&mut ops, "'shop.\"Es''says\"', 'Tenant \"x'").is_empty());
}

#[test]
fn another_tenant_column_than_the_recorded_one_is_refused() {
    let database = shop_with_essays();
    let mut ops = database.connect("ops");
    let error =
        refused(ops.query("SELECT tenancy.protect_table('shop.essays', 'body')", &[]), "22023", "other_tenant_column");
    assert!(error.hint().unwrap().contains("unprotect_table"));
}
