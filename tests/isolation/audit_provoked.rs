//! The same holes, come to by ways round: as in audit_rules.rs, each is provoked, found, mended by its remedy, and gone.

use crate::audit_rules::audited;
use crate::world::{column, value};

/// What brings a finding about (run by the superuser), the rule, its severity and the object.
pub const PROVOKED: &[(&str, &str, &str, &str)] = &[
    (
        "CREATE VIEW shop.seen AS SELECT * FROM shop.watched; ALTER VIEW shop.seen OWNER TO watcher",
        "view_runs_as_owner",
        "error",
        "shop.seen",
    ),
    // Members of an application's role.
    ("CREATE ROLE insider LOGIN BYPASSRLS; GRANT app TO insider", "bypassing_role", "error", "role insider"),
    (
        "CREATE ROLE insider LOGIN SUPERUSER; CREATE ROLE between; GRANT app TO between; GRANT between TO insider",
        "bypassing_role",
        "error",
        "role insider",
    ),
    ("CREATE ROLE insider LOGIN; GRANT app, unbound TO insider", "bypassing_role", "error", "role insider"),
    ("CREATE ROLE insider LOGIN; GRANT app, ops TO insider", "application_owns_table", "error", "role insider"),
    ("GRANT app TO ops", "application_owns_table", "error", "role ops"),
    ("CREATE ROLE insider LOGIN; GRANT app, watcher TO insider", "application_is_operator", "error", "role insider"),
    // Rights that go round policies.
    ("ALTER ROLE app REPLICATION", "bypassing_role", "error", "role app"),
    ("GRANT pg_read_server_files TO app", "bypassing_role", "error", "role app"),
    (
        "CREATE ROLE insider LOGIN; GRANT app, pg_execute_server_program TO insider",
        "bypassing_role",
        "error",
        "role insider",
    ),
    // Policies: a function behind an operator, a setting behind a function.
    (
        "CREATE FUNCTION shop.same(text, text) RETURNS boolean LANGUAGE plpgsql AS 'BEGIN RETURN $1 = $2; END';
      CREATE OPERATOR shop.=== (LEFTARG = text, RIGHTARG = text, FUNCTION = shop.same);
      CREATE POLICY mine ON shop.essays USING (tenant_id OPERATOR(shop.===) 'x')",
        "policy_volatile_function",
        "warning",
        "shop.essays/mine",
    ),
    (
        "CREATE FUNCTION shop.mine(text, text) RETURNS boolean IMMUTABLE LANGUAGE sql AS 'SELECT $1 = tenancy.tenant_id()';
      CREATE OPERATOR shop.=== (LEFTARG = text, RIGHTARG = text, FUNCTION = shop.mine);
      CREATE POLICY mine ON shop.essays USING (tenant_id OPERATOR(shop.===) 'x')",
        "policy_immutable_function",
        "error",
        "shop.essays/mine",
    ),
    (
        "CREATE FUNCTION shop.me() RETURNS text STABLE LANGUAGE sql AS $$ SELECT current_setting('app.tenant', true) $$;
      CREATE POLICY mine ON shop.essays USING (tenant_id = shop.me())",
        "policy_reads_setting",
        "error",
        "shop.essays/mine",
    ),
    (
        "CREATE FUNCTION shop.me() RETURNS text STABLE LANGUAGE sql BEGIN ATOMIC SELECT current_setting('app.tenant', true); END;
      CREATE POLICY mine ON shop.essays USING (tenant_id = shop.me())",
        "policy_reads_setting",
        "error",
        "shop.essays/mine",
    ),
    // A definer's function that names no table itself.
    (
        "CREATE VIEW shop.through WITH (security_invoker) AS SELECT * FROM shop.essays;
      CREATE FUNCTION shop.f() RETURNS bigint SECURITY DEFINER SET search_path = pg_catalog LANGUAGE sql AS 'SELECT count(*) FROM shop.through'",
        "definer_bypasses_policies",
        "error",
        "shop.f()",
    ),
    (
        "CREATE FUNCTION shop.g() RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM shop.essays';
      CREATE FUNCTION shop.f() RETURNS bigint SECURITY DEFINER SET search_path = pg_catalog LANGUAGE plpgsql AS 'BEGIN RETURN shop.g(); END'",
        "definer_bypasses_policies",
        "error",
        "shop.f()",
    ),
    (
        "CREATE VIEW shop.through WITH (security_invoker) AS SELECT * FROM shop.watched;
      CREATE FUNCTION shop.g() RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM shop.through';
      CREATE FUNCTION shop.f() RETURNS bigint SECURITY DEFINER SET search_path = pg_catalog LANGUAGE sql BEGIN ATOMIC SELECT shop.g(); END;
      ALTER FUNCTION shop.f() OWNER TO watcher",
        "definer_bypasses_policies",
        "error",
        "shop.f()",
    ),
    // Policies of ours without a record.
    (
        "CREATE SCHEMA aside; CREATE TABLE aside.restored (org text, owned_by text NOT NULL);
      CREATE POLICY tenancy_floor ON aside.restored AS RESTRICTIVE USING (owned_by = tenancy.tenant_id());
      CREATE POLICY tenancy_access ON aside.restored USING (owned_by = tenancy.tenant_id() AND org = tenancy.org_id())",
        "unprotected_table",
        "error",
        "aside.restored",
    ),
    (
        "DELETE FROM tenancy.protected_tables WHERE relation = 'shop.watched'::regclass",
        "unprotected_table",
        "error",
        "shop.watched",
    ),
];

#[test]
fn a_restored_table_is_protected_again_as_it_was() {
    let database = audited();
    let mut superuser = database.superuser();
    superuser.batch_execute("DELETE FROM tenancy.protected_tables WHERE relation = 'shop.watched'::regclass").unwrap();
    let remedy = value(
        &mut superuser,
        "SELECT remedy FROM tenancy.audit_isolation() WHERE rule = 'unprotected_table' AND object = 'shop.watched'",
    );
    superuser.batch_execute(&remedy).unwrap();
    let recorded = "SELECT operator_role::text FROM tenancy.protected_tables WHERE relation = 'shop.watched'::regclass";
    assert_eq!(value(&mut superuser, recorded), "watcher");
}

#[test]
fn createrole_goes_round_policies_before_16_only() {
    let database = audited();
    let mut superuser = database.superuser();
    let mut transaction = superuser.transaction().unwrap();
    transaction.batch_execute("ALTER ROLE app CREATEROLE").unwrap();
    let found = column(
        &mut transaction,
        "SELECT remedy FROM tenancy.audit_isolation() WHERE rule = 'bypassing_role' AND object = 'role app'",
    );
    let version: i32 = value(&mut transaction, "SHOW server_version_num").parse().unwrap();
    if version < 160_000 {
        assert_eq!(found, ["ALTER ROLE app NOCREATEROLE;"]);
    } else {
        assert!(found.is_empty(), "{found:?}");
    }
}

#[test]
fn what_stays_bound_is_no_finding() {
    let database = audited();
    let mut superuser = database.superuser();
    let mut transaction = superuser.transaction().unwrap();
    transaction
        .batch_execute(
            "CREATE ROLE insider LOGIN; GRANT app TO insider;
             CREATE VIEW shop.bound AS SELECT * FROM shop.essays; ALTER VIEW shop.bound OWNER TO ops;
             CREATE FUNCTION shop.f() RETURNS bigint SECURITY DEFINER SET search_path = pg_catalog LANGUAGE sql AS 'SELECT count(*) FROM shop.bound';
             CREATE FUNCTION shop.mine() RETURNS text STABLE LANGUAGE sql AS $$ SELECT tenancy.tenant_id() -- no current_setting here $$;
             CREATE POLICY mine ON shop.essays AS RESTRICTIVE USING (tenant_id = shop.mine())",
        )
        .unwrap();
    let errors = "SELECT rule || ' ' || object FROM tenancy.audit_isolation() WHERE severity = 'error'";
    assert!(column(&mut transaction, errors).is_empty(), "{:?}", column(&mut transaction, errors));
}
