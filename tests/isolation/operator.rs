//! Operator access: a policy of its own to a role, never an OR in the tenants' policies.

use crate::common::{fails_with, refused};
use crate::world::{as_tenant, column, noticed, protect, role, shop, take_notices, value};

fn operated() -> crate::common::Database<'static> {
    let database = shop();
    role(&database, "support", "LOGIN");
    database.superuser().batch_execute("GRANT USAGE ON SCHEMA shop TO support").unwrap();
    let mut ops = database.connect("ops");
    ops.batch_execute(
        "CREATE TABLE shop.essays (id bigint PRIMARY KEY);
         GRANT SELECT, INSERT, UPDATE, DELETE ON shop.essays TO app, support;
         SELECT tenancy.protect_table('shop.essays', operator_role => 'support')",
    )
    .unwrap();
    let mut app = database.connect("app");
    for (id, tenant) in [(1i64, "tenant-a"), (2, "tenant-b")] {
        as_tenant(&mut app, tenant, |tx| tx.execute("INSERT INTO shop.essays VALUES ($1)", &[&id]).unwrap());
    }
    database
}

#[test]
fn the_operator_role_sees_all_and_the_others_their_own() {
    let database = operated();
    let mut support = database.connect("support");
    assert_eq!(column(&mut support, "SELECT id::text FROM shop.essays ORDER BY id"), ["1", "2"]);
    let mut app = database.connect("app");
    let seen = as_tenant(&mut app, "tenant-a", |tx| column(tx, "SELECT id::text FROM shop.essays"));
    assert_eq!(seen, ["1"]);
    let mut ops = database.connect("ops");
    assert!(column(&mut ops, "SELECT id::text FROM shop.essays").is_empty(), "the owner is bound");
    let expressions = "SELECT pg_get_expr(polqual, polrelid) FROM pg_policy WHERE polrelid = 'shop.essays'::regclass ORDER BY polname";
    let tenant = "(tenant_id = tenancy.tenant_id())";
    assert_eq!(column(&mut ops, expressions), [tenant, tenant, "true"]);
}

#[test]
fn a_later_call_without_the_role_keeps_it() {
    let database = operated();
    assert!(protect(&mut database.connect("ops"), "'shop.essays'").is_empty());
}

#[test]
fn a_role_granted_later_sees_nothing_until_protected_again() {
    let database = operated();
    database.superuser().batch_execute("GRANT SELECT ON shop.essays TO svc").unwrap();
    let mut svc = database.connect("svc");
    let look = "SELECT id::text FROM shop.essays";
    assert!(as_tenant(&mut svc, "tenant-a", |tx| column(tx, look)).is_empty(), "it fails closed");
    let statements = protect(&mut database.connect("ops"), "'shop.essays'");
    assert!(statements.iter().all(|s| s.starts_with("ALTER POLICY")), "{statements:?}");
    assert_eq!(as_tenant(&mut svc, "tenant-a", |tx| column(tx, look)), ["1"]);
}

#[test]
fn the_floor_holds_against_a_permissive_policy_added_later() {
    let database = operated();
    database
        .connect("ops")
        .batch_execute("CREATE POLICY open ON shop.essays TO app USING (true) WITH CHECK (true)")
        .unwrap();
    let mut app = database.connect("app");
    as_tenant(&mut app, "tenant-a", |tx| {
        assert_eq!(column(tx, "SELECT id::text FROM shop.essays"), ["1"]);
        fails_with(tx.execute("INSERT INTO shop.essays VALUES (3, 'tenant-b')", &[]), "42501");
    });
}

#[test]
fn unprotect_takes_the_operator_s_policy_too() {
    let database = operated();
    let mut ops = database.connect("ops");
    ops.batch_execute("SELECT tenancy.unprotect_table('shop.essays')").unwrap();
    assert_eq!(value(&mut ops, "SELECT count(*)::text FROM pg_policy WHERE polrelid = 'shop.essays'::regclass"), "0");
}

#[test]
fn an_application_s_role_is_no_operator() {
    let database = shop();
    let mut ops = database.connect("ops");
    ops.batch_execute("CREATE TABLE shop.essays (id bigint)").unwrap();
    let call = "SELECT tenancy.protect_table('shop.essays', operator_role => 'app')";
    let error = refused(ops.query(call, &[]), "22023", "operator_is_application");
    assert!(error.hint().unwrap().contains("tenancy.grant_access"), "{error:?}");
    // A service has application access too, and more.
    assert!(!protect(&mut ops, "'shop.essays', operator_role => 'svc'").is_empty());
}

#[test]
fn a_superuser_as_operator_of_a_table_granted_to_nobody_leaves_a_floor() {
    let database = shop();
    let mut superuser = database.superuser();
    superuser.batch_execute("CREATE TABLE shop.essays (id bigint)").unwrap();
    protect(&mut superuser, "'shop.essays', operator_role => current_user::name");
    let floors = "SELECT count(*)::text FROM pg_policy WHERE polrelid = 'shop.essays'::regclass AND polname = 'tenancy_floor' AND NOT polpermissive";
    assert_eq!(value(&mut superuser, floors), "1");
    assert!(protect(&mut superuser, "'shop.essays'").is_empty(), "and it stands");
    // An owner with everybody's rights leaves nobody to bind.
    role(&database, "keeper", "IN ROLE pg_read_all_data, pg_write_all_data");
    superuser
        .batch_execute("CREATE TABLE shop.kept (id bigint); GRANT CREATE ON SCHEMA shop TO keeper; ALTER TABLE shop.kept OWNER TO keeper")
        .unwrap();
    let call = "SELECT tenancy.protect_table('shop.kept', operator_role => 'keeper')";
    refused(superuser.query(call, &[]), "22023", "nobody_to_bind");
}

#[test]
fn beside_an_operator_other_policies_are_announced_as_what_they_are() {
    let database = operated();
    let (mut ops, notices) = database.connect_with_notices("ops");
    ops.batch_execute("CREATE POLICY open ON shop.essays USING (true)").unwrap();
    protect(&mut ops, "'shop.essays'");
    let said = take_notices(&notices);
    let truth = "across tenants for roles that the floor does not name";
    assert!(noticed(&said, &["also has the policy open", truth]), "{said:#?}");
    assert!(!noticed(&said, &["never across tenants"]), "{said:#?}");
}
