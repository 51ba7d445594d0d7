//! Threats by their numbers (docs/explanation/threat-model.md): what stands around the tables.

use crate::common::refused;
use crate::library::{audited, library};
use crate::world::{as_tenant, column, protect, role, value};

#[test]
fn isolation_23_a_view_with_its_caller_s_rights_shows_the_caller_s_rows() {
    let database = library();
    let mut superuser = database.superuser();
    superuser
        .batch_execute("CREATE VIEW shop.seen AS SELECT id::text FROM shop.essays; GRANT SELECT ON shop.seen TO app")
        .unwrap();
    let mut app = database.connect("app");
    let look = "SELECT id FROM shop.seen ORDER BY id";
    assert_eq!(as_tenant(&mut app, "tenant-a", |tx| column(tx, look)), ["1", "2"], "a superuser's view shows all");
    let remedy =
        value(&mut superuser, "SELECT remedy FROM tenancy.audit_isolation() WHERE rule = 'view_runs_as_owner'");
    superuser.batch_execute(&remedy).unwrap();
    assert_eq!(as_tenant(&mut app, "tenant-a", |tx| column(tx, look)), ["1"]);
}

#[test]
fn isolation_24_a_materialized_view_is_found_and_refused_by_the_guard() {
    let database = library();
    let mut superuser = database.superuser();
    let make = "CREATE MATERIALIZED VIEW shop.kept AS SELECT * FROM shop.essays";
    superuser.batch_execute("SELECT tenancy.guard_schema('shop', 'refuse')").unwrap();
    refused(superuser.batch_execute(make), "42501", "isolation_guard");
    superuser.batch_execute(&format!("SELECT tenancy.unguard_schema('shop'); {make}")).unwrap();
    assert!(audited(&mut superuser, "materialized_view"));
}

#[test]
fn isolation_27_roles_that_bypass_are_found() {
    let database = library();
    role(&database, "bypasser", "BYPASSRLS");
    let mut superuser = database.superuser();
    let mut transaction = superuser.transaction().unwrap();
    transaction.batch_execute("GRANT bypasser TO app").unwrap();
    let found = value(
        &mut transaction,
        "SELECT object || ': ' || finding FROM tenancy.audit_isolation() WHERE rule = 'bypassing_role'",
    );
    assert_eq!(found, "role app: it is a member of bypasser, whom no policy binds");
}

#[test]
fn isolation_28_definer_functions_without_a_search_path_are_found() {
    let database = library();
    let mut superuser = database.superuser();
    superuser.batch_execute("CREATE FUNCTION shop.all_of_it() RETURNS bigint SECURITY DEFINER LANGUAGE sql AS 'SELECT count(*) FROM shop.essays'").unwrap();
    assert!(audited(&mut superuser, "definer_search_path"));
}

#[test]
fn isolation_32_triggers_and_rules_that_can_copy_rows_out_are_found() {
    let database = library();
    let mut superuser = database.superuser();
    superuser
        .batch_execute(
            "CREATE FUNCTION shop.copy() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
             CREATE TRIGGER copy AFTER INSERT ON shop.essays FOR EACH ROW EXECUTE FUNCTION shop.copy();
             CREATE RULE copy AS ON UPDATE TO shop.reviews DO ALSO NOTHING",
        )
        .unwrap();
    assert!(audited(&mut superuser, "after_trigger") && audited(&mut superuser, "rewrite_rule"));
}

#[test]
fn isolation_33_channels_differ_from_tenant_to_tenant() {
    let database = library();
    let mut app = database.connect("app");
    let [a, b] = ["tenant-a", "tenant-b"]
        .map(|tenant| as_tenant(&mut app, tenant, |tx| value(tx, "SELECT tenancy.channel('news')")));
    assert_ne!(a, b);
}

#[test]
fn isolation_34_advisory_locks_of_two_tenants_do_not_meet() {
    let database = library();
    let (mut one, mut two) = (database.connect("app"), database.connect("app"));
    as_tenant(&mut one, "tenant-a", |tx| {
        tx.batch_execute("SELECT pg_advisory_xact_lock(tenancy.lock_key('import'))").unwrap();
        let taken = "SELECT pg_try_advisory_xact_lock(tenancy.lock_key('import'))::text";
        assert_eq!(as_tenant(&mut two, "tenant-b", |tx| value(tx, taken)), "true");
        assert_eq!(as_tenant(&mut two, "tenant-a", |tx| value(tx, taken)), "false");
    });
}

#[test]
fn isolation_37_publications_are_found() {
    let database = library();
    let mut superuser = database.superuser();
    superuser.batch_execute("CREATE PUBLICATION outward FOR ALL TABLES").unwrap();
    assert!(audited(&mut superuser, "published_table"));
}

#[test]
fn isolation_38_foreign_tables_are_found() {
    let database = library();
    let mut superuser = database.superuser();
    superuser
        .batch_execute("CREATE FOREIGN DATA WRAPPER far; CREATE SERVER far FOREIGN DATA WRAPPER far; CREATE FOREIGN TABLE shop.far (id int) SERVER far")
        .unwrap();
    assert!(audited(&mut superuser, "foreign_table"));
}

#[test]
fn isolation_40_a_table_added_last_night_is_protected_by_the_guard() {
    let database = library();
    database.superuser().batch_execute("SELECT tenancy.guard_schema('shop', 'protect')").unwrap();
    let mut ops = database.connect("ops");
    database.superuser().batch_execute("GRANT CREATE ON SCHEMA shop TO ops").unwrap();
    ops.batch_execute("CREATE TABLE shop.last_night (id bigint)").unwrap();
    assert!(protect(&mut ops, "'shop.last_night'").is_empty());
}
