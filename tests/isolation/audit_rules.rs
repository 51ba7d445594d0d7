//! The rules of the audit: each is provoked, found, mended by its remedy as printed, and gone.

use crate::common::Database;
use crate::world::{column, role, shop};
use postgres::Transaction;
use std::collections::BTreeSet;

/// What brings a finding about (run by the superuser), the rule, its severity and the object.
const PROVOKED: &[(&str, &str, &str, &str)] = &[
    (
        "SELECT tenancy.guard_schema('shop', 'refuse'); UPDATE tenancy.guarded_schemas SET database_oid = 1",
        "guard_not_armed",
        "warning",
        "schema shop",
    ),
    ("CREATE TABLE shop.plain (id int)", "unprotected_table", "error", "shop.plain"),
    ("ALTER TABLE shop.essays DISABLE ROW LEVEL SECURITY", "rls_disabled", "error", "shop.essays"),
    ("ALTER TABLE shop.essays NO FORCE ROW LEVEL SECURITY", "force_missing", "error", "shop.essays"),
    ("DROP POLICY tenancy_floor ON shop.essays", "floor_missing", "error", "shop.essays"),
    ("ALTER POLICY tenancy_floor ON shop.essays USING (true)", "floor_missing", "error", "shop.essays"),
    ("ALTER POLICY tenancy_access ON shop.essays TO app", "access_policy_changed", "warning", "shop.essays"),
    (
        "ALTER POLICY tenancy_operator ON shop.watched USING (false)",
        "operator_policy_changed",
        "warning",
        "shop.watched",
    ),
    ("GRANT SELECT ON shop.watched TO met", "role_outside_floor", "warning", "shop.watched"),
    (
        "DROP POLICY tenancy_floor ON shop.essays; DROP POLICY tenancy_access ON shop.essays; ALTER TABLE shop.essays DROP tenant_id CASCADE",
        "tenant_column_missing",
        "error",
        "shop.essays",
    ),
    ("ALTER TABLE shop.plural ALTER tenant_id DROP NOT NULL", "tenant_nullable", "error", "shop.plural"),
    (
        "ALTER TABLE shop.essays ALTER tenant_id SET DEFAULT 'tenant-a'",
        "tenant_default_missing",
        "warning",
        "shop.essays",
    ),
    ("DROP INDEX shop.plural_tenant_id_idx", "tenant_index_missing", "warning", "shop.plural"),
    ("GRANT TRUNCATE ON shop.essays TO app", "dangerous_grant", "error", "shop.essays"),
    ("GRANT REFERENCES (id) ON shop.essays TO app", "dangerous_grant", "error", "shop.essays"),
    ("DROP TABLE shop.essays", "protected_table_gone", "warning", "*"),
    ("ALTER TABLE shop.essays ADD code text UNIQUE", "key_without_tenant", "warning", "shop.essays/essays_code_key"),
    (
        "ALTER TABLE shop.plural ADD UNIQUE (id); ALTER TABLE shop.essays ADD FOREIGN KEY (id) REFERENCES shop.plural (id)",
        "foreign_key_without_tenant",
        "error",
        "shop.essays/essays_id_fkey",
    ),
    ("CREATE POLICY mine ON shop.essays USING (id > 0)", "permissive_policy", "warning", "shop.essays/mine"),
    ("CREATE POLICY mine ON shop.watched USING (id > 0)", "permissive_policy", "error", "shop.watched/mine"),
    (
        "CREATE POLICY mine ON shop.essays USING (tenant_id = current_setting('app.tenant', true))",
        "policy_reads_setting",
        "error",
        "shop.essays/mine",
    ),
    (
        "CREATE FUNCTION shop.me() RETURNS text IMMUTABLE LANGUAGE sql AS 'SELECT tenancy.tenant_id()';
      CREATE POLICY mine ON shop.essays USING (tenant_id = shop.me())",
        "policy_immutable_function",
        "error",
        "shop.essays/mine",
    ),
    (
        "CREATE FUNCTION shop.me() RETURNS text LANGUAGE plpgsql AS 'BEGIN RETURN tenancy.tenant_id(); END';
      CREATE POLICY mine ON shop.essays USING (tenant_id = shop.me())",
        "policy_volatile_function",
        "warning",
        "shop.essays/mine",
    ),
    (
        "CREATE POLICY mine ON shop.essays AS RESTRICTIVE USING (EXISTS (SELECT FROM shop.plural))",
        "policy_subquery",
        "warning",
        "shop.essays/mine",
    ),
    (
        "CREATE POLICY mine ON shop.essays AS RESTRICTIVE USING (id = 1 OR tenant_id = 'x')",
        "policy_or",
        "warning",
        "shop.essays/mine",
    ),
    (
        "CREATE POLICY mine ON shop.essays AS RESTRICTIVE USING (CASE WHEN id = 1 THEN true ELSE false END)",
        "policy_or",
        "warning",
        "shop.essays/mine",
    ),
    ("CREATE VIEW shop.seen AS SELECT * FROM shop.essays", "view_runs_as_owner", "error", "shop.seen"),
    (
        "CREATE VIEW shop.seen AS SELECT * FROM shop.essays; ALTER VIEW shop.seen OWNER TO ops",
        "view_runs_as_owner",
        "warning",
        "shop.seen",
    ),
    (
        "CREATE VIEW shop.inner_view WITH (security_invoker = true) AS SELECT * FROM shop.essays; CREATE VIEW shop.seen AS SELECT * FROM shop.inner_view",
        "view_runs_as_owner",
        "error",
        "shop.seen",
    ),
    ("CREATE MATERIALIZED VIEW shop.kept AS SELECT * FROM shop.essays", "materialized_view", "error", "shop.kept"),
    (
        "CREATE FUNCTION shop.f(integer) RETURNS integer SECURITY DEFINER LANGUAGE sql AS 'SELECT $1'",
        "definer_search_path",
        "error",
        "shop.f(integer)",
    ),
    (
        "CREATE FUNCTION shop.f() RETURNS bigint SECURITY DEFINER SET search_path = pg_catalog LANGUAGE sql AS 'SELECT count(*) FROM shop.essays'",
        "definer_bypasses_policies",
        "error",
        "shop.f()",
    ),
    (
        "CREATE FUNCTION shop.f() RETURNS bigint SECURITY DEFINER SET search_path = shop, pg_temp LANGUAGE plpgsql AS 'BEGIN DELETE FROM \"essays\" WHERE id = 1; RETURN 1; END'",
        "definer_bypasses_policies",
        "error",
        "shop.f()",
    ),
    (
        "CREATE FUNCTION shop.f() RETURNS bigint SECURITY DEFINER SET search_path = pg_catalog LANGUAGE sql BEGIN ATOMIC SELECT count(*) FROM shop.part; END",
        "definer_bypasses_policies",
        "error",
        "shop.f()",
    ),
    (
        "CREATE FUNCTION shop.f() RETURNS bigint SECURITY DEFINER SET search_path = pg_catalog LANGUAGE sql AS 'SELECT count(*) FROM shop.essays WHERE tenant_id = tenancy.tenant_id()'",
        "definer_bypasses_policies",
        "warning",
        "shop.f()",
    ),
    (
        "CREATE FUNCTION shop.f() RETURNS bigint SECURITY DEFINER SET search_path = pg_catalog LANGUAGE sql AS 'SELECT count(*) FROM shop.watched'; ALTER FUNCTION shop.f() OWNER TO watcher",
        "definer_bypasses_policies",
        "error",
        "shop.f()",
    ),
    (
        "CREATE FUNCTION shop.f(integer) RETURNS boolean LEAKPROOF LANGUAGE sql AS 'SELECT true'",
        "leakproof_function",
        "warning",
        "shop.f(integer)",
    ),
    ("GRANT unbound TO app", "bypassing_role", "error", "role app"),
    ("GRANT ops TO app", "application_owns_table", "error", "role app"),
    ("GRANT watcher TO app", "application_is_operator", "error", "role app"),
    ("SELECT tenancy.grant_access('watcher', 'application')", "application_is_operator", "error", "role watcher"),
    ("CREATE PUBLICATION all_of_it FOR TABLE shop.essays", "published_table", "warning", "all_of_it/shop.essays"),
    (
        "CREATE FOREIGN DATA WRAPPER nowhere; CREATE SERVER nowhere FOREIGN DATA WRAPPER nowhere; CREATE FOREIGN TABLE shop.far (id int) SERVER nowhere",
        "foreign_table",
        "error",
        "shop.far",
    ),
    (
        "CREATE FUNCTION shop.t() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
      CREATE TRIGGER swap BEFORE INSERT ON shop.essays FOR EACH ROW EXECUTE FUNCTION shop.t()",
        "before_trigger",
        "warning",
        "shop.essays/swap",
    ),
    (
        "CREATE FUNCTION shop.t() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
      CREATE TRIGGER copy AFTER INSERT ON shop.essays FOR EACH ROW EXECUTE FUNCTION shop.t()",
        "after_trigger",
        "info",
        "shop.essays/copy",
    ),
    ("CREATE RULE copy AS ON INSERT TO shop.essays DO ALSO NOTHING", "rewrite_rule", "warning", "shop.essays/copy"),
    (
        "ALTER TABLE shop.essays ADD number bigint GENERATED ALWAYS AS IDENTITY",
        "sequence_gaps",
        "info",
        "shop.essays.number",
    ),
    (
        "CREATE FUNCTION shop.f(text) RETURNS void LANGUAGE sql AS 'SELECT pg_advisory_xact_lock(hashtext($1))'",
        "advisory_lock",
        "info",
        "shop.f(text)",
    ),
    ("GRANT CREATE ON SCHEMA shop TO app", "writable_schema", "warning", "schema shop"),
    // What protect_table set, undone one by one.
    ("ALTER TABLE shop.part DISABLE ROW LEVEL SECURITY", "rls_disabled", "error", "shop.part"),
    ("ALTER TABLE shop.part NO FORCE ROW LEVEL SECURITY", "force_missing", "error", "shop.part"),
    ("DROP POLICY tenancy_floor ON shop.part", "floor_missing", "error", "shop.part"),
    (
        "DROP POLICY tenancy_floor ON shop.essays; CREATE POLICY tenancy_floor ON shop.essays USING (tenant_id = tenancy.tenant_id())",
        "floor_missing",
        "error",
        "shop.essays",
    ),
    ("ALTER POLICY tenancy_floor ON shop.essays TO app", "floor_missing", "error", "shop.essays"),
    ("ALTER POLICY tenancy_floor ON shop.essays WITH CHECK (true)", "floor_missing", "error", "shop.essays"),
    ("ALTER POLICY tenancy_floor ON shop.essays RENAME TO mine", "floor_missing", "error", "shop.essays"),
    ("DROP POLICY tenancy_access ON shop.essays", "access_policy_changed", "warning", "shop.essays"),
    ("ALTER TABLE shop.essays ALTER tenant_id DROP DEFAULT", "tenant_default_missing", "warning", "shop.essays"),
    ("ALTER POLICY tenancy_operator ON shop.watched TO PUBLIC", "operator_policy_changed", "error", "shop.watched"),
    (
        "ALTER POLICY tenancy_operator ON shop.watched TO watcher, app",
        "operator_policy_changed",
        "error",
        "shop.watched",
    ),
    ("DROP POLICY tenancy_operator ON shop.watched", "operator_policy_changed", "warning", "shop.watched"),
    (
        "CREATE POLICY tenancy_operator ON shop.essays USING (true)",
        "permissive_policy",
        "warning",
        "shop.essays/tenancy_operator",
    ),
    ("GRANT TRUNCATE ON shop.essays TO PUBLIC", "dangerous_grant", "error", "shop.essays"),
    ("GRANT TRUNCATE ON shop.part TO app", "dangerous_grant", "error", "shop.part"),
    ("GRANT TRIGGER ON shop.part TO PUBLIC", "dangerous_grant", "error", "shop.part"),
    ("GRANT REFERENCES (id) ON shop.part TO PUBLIC", "dangerous_grant", "error", "shop.part"),
    (
        "ALTER TABLE shop.keyed DROP CONSTRAINT keyed_pkey, ADD CONSTRAINT keyed_pkey PRIMARY KEY (id)",
        "key_without_tenant",
        "warning",
        "shop.keyed/keyed_pkey",
    ),
    (
        "ALTER TABLE shop.parents ADD UNIQUE (id); ALTER TABLE shop.keyed DROP CONSTRAINT keyed_parent_fkey, ADD CONSTRAINT keyed_parent_fkey FOREIGN KEY (parent) REFERENCES shop.parents (id)",
        "foreign_key_without_tenant",
        "error",
        "shop.keyed/keyed_parent_fkey",
    ),
    // The same hole, come to by another way.
    (
        "ALTER TABLE shop.essays ADD EXCLUDE USING btree (id WITH =)",
        "key_without_tenant",
        "warning",
        "shop.essays/essays_id_excl",
    ),
    ("CREATE UNIQUE INDEX across ON shop.parted (id)", "key_without_tenant", "warning", "shop.parted/across"),
    (
        "ALTER TABLE shop.plural ADD UNIQUE (id); CREATE TABLE shop.kid (parent bigint REFERENCES shop.plural (id))",
        "foreign_key_without_tenant",
        "error",
        "shop.kid/kid_parent_fkey",
    ),
    (
        "ALTER TABLE shop.plural ADD UNIQUE (id); CREATE TABLE shop.kid (tenant_id uuid, parent bigint REFERENCES shop.plural (id)); SELECT tenancy.protect_table('shop.kid')",
        "foreign_key_without_tenant",
        "error",
        "shop.kid/kid_parent_fkey",
    ),
    (
        "CREATE TABLE shop.plain (id int, t text); CREATE POLICY mine ON shop.plain USING (t = current_setting('app.tenant'))",
        "policy_reads_setting",
        "error",
        "shop.plain/mine",
    ),
    (
        "CREATE POLICY mine ON shop.essays FOR INSERT WITH CHECK (tenant_id = current_setting('app.tenant'))",
        "policy_reads_setting",
        "error",
        "shop.essays/mine",
    ),
    (
        "CREATE POLICY mine ON shop.essays FOR DELETE USING (random() > 2)",
        "policy_volatile_function",
        "warning",
        "shop.essays/mine",
    ),
    (
        "ALTER POLICY tenancy_access ON shop.essays USING (tenant_id = 'x' OR true)",
        "policy_or",
        "warning",
        "shop.essays/tenancy_access",
    ),
    ("CREATE PUBLICATION all_of_it FOR ALL TABLES", "published_table", "warning", "all_of_it/shop.essays"),
    ("CREATE PUBLICATION all_of_it FOR TABLES IN SCHEMA shop", "published_table", "warning", "all_of_it/shop.essays"),
    ("CREATE PUBLICATION all_of_it FOR TABLE shop.parted", "published_table", "warning", "all_of_it/shop.part"),
    (
        "CREATE ROLE half_way_up; GRANT unbound TO half_way_up; GRANT half_way_up TO app",
        "bypassing_role",
        "error",
        "role app",
    ),
    ("ALTER ROLE app BYPASSRLS", "bypassing_role", "error", "role app"),
    ("ALTER ROLE app SUPERUSER", "bypassing_role", "error", "role app"),
    (
        "GRANT CREATE ON SCHEMA shop TO app; ALTER TABLE shop.essays OWNER TO app",
        "application_owns_table",
        "error",
        "role app",
    ),
    (
        "CREATE SEQUENCE shop.numbers; ALTER TABLE shop.essays ALTER id SET DEFAULT nextval('shop.numbers')",
        "sequence_gaps",
        "info",
        "shop.essays.id",
    ),
    (
        "CREATE PROCEDURE shop.p() SECURITY DEFINER LANGUAGE sql AS 'SELECT 1'",
        "definer_search_path",
        "error",
        "shop.p()",
    ),
    (
        "CREATE SCHEMA guarded; SELECT tenancy.guard_schema('guarded', 'report'); CREATE TABLE guarded.plain (id int)",
        "unprotected_table",
        "error",
        "guarded.plain",
    ),
];

/// What no statement mends: the remedy is a comment that says what to do.
const ADVICE: [&str; 2] = ["advisory_lock", "server_version"];

/// The schema `shop` with protected tables of each kind and nothing to find.
pub fn audited() -> Database<'static> {
    let database = shop();
    role(&database, "watcher", "");
    role(&database, "unbound", "BYPASSRLS");
    database
        .superuser()
        .batch_execute(&format!(
            "REVOKE TEMPORARY ON DATABASE {} FROM PUBLIC; GRANT USAGE ON SCHEMA shop TO watcher; GRANT CREATE ON SCHEMA shop TO ops",
            database.name
        ))
        .unwrap();
    database
        .connect("ops")
        .batch_execute(
            "CREATE TABLE shop.essays (id bigint);
             CREATE TABLE shop.plural (id bigint);
             CREATE TABLE shop.watched (id bigint);
             CREATE TABLE shop.parents (id bigint PRIMARY KEY);
             CREATE TABLE shop.keyed (id bigint PRIMARY KEY, parent bigint REFERENCES shop.parents);
             CREATE TABLE shop.parted (id bigint, tenant_id uuid) PARTITION BY HASH (id);
             CREATE TABLE shop.part PARTITION OF shop.parted FOR VALUES WITH (MODULUS 1, REMAINDER 0);
             GRANT SELECT, INSERT, UPDATE, DELETE ON shop.essays, shop.plural, shop.watched TO app;
             SELECT tenancy.protect_table('shop.keyed', composite_keys => true);
             SELECT tenancy.protect_table('shop.parents', composite_keys => true);
             SELECT tenancy.protect_table('shop.parted');
             SELECT tenancy.protect_table('shop.essays');
             SELECT tenancy.protect_table('shop.plural');
             SELECT tenancy.protect_table('shop.watched', operator_role => 'watcher')",
        )
        .unwrap();
    database
}

fn found(transaction: &mut Transaction, rule: &str, object: &str) -> Vec<(String, String)> {
    transaction
        .query(
            "SELECT severity, remedy FROM tenancy.audit_isolation() WHERE rule = $1 AND (object = $2 OR $2 = '*') AND finding <> ''",
            &[&rule, &object],
        )
        .unwrap_or_else(|error| panic!("{rule}: {error:?}"))
        .iter()
        .map(|row| (row.get(0), row.get(1)))
        .collect()
}

#[test]
fn each_rule_finds_what_it_is_for_and_its_remedy_mends_it() {
    let database = audited();
    let mut superuser = database.superuser();
    for (provocation, rule, severity, object) in PROVOKED.iter().chain(crate::audit_provoked::PROVOKED) {
        let mut transaction = superuser.transaction().unwrap();
        assert!(found(&mut transaction, rule, object).is_empty(), "{rule} is found before {provocation}");
        transaction.batch_execute(provocation).unwrap_or_else(|error| panic!("{provocation}: {error:?}"));
        let findings = found(&mut transaction, rule, object);
        let Some((found_severity, remedy)) = findings.first() else {
            let all = column(&mut transaction, "SELECT rule || ' ' || object FROM tenancy.audit_isolation()");
            panic!("{rule} on {object} is not found after {provocation}: {all:?}");
        };
        assert_eq!(found_severity, severity, "{rule} after {provocation}");
        if ADVICE.contains(rule) {
            assert!(remedy.starts_with("-- "), "{rule}: {remedy}");
        } else {
            transaction.batch_execute(remedy).unwrap_or_else(|error| panic!("{provocation} {remedy}: {error:?}"));
            let left = found(&mut transaction, rule, object);
            assert!(left.is_empty(), "{rule}: {remedy} left {left:?}");
        }
        transaction.rollback().unwrap();
    }
    let mut tested: BTreeSet<String> = PROVOKED.iter().map(|(_, rule, _, _)| rule.to_string()).collect();
    // These have tests of their own.
    tested.extend(["server_version".to_string(), "temporary_tables".to_string()]);
    let rules: BTreeSet<String> =
        column(&mut superuser, "SELECT rule FROM tenancy.audit_rules()").into_iter().collect();
    assert_eq!(tested, rules, "every rule is tested");
}
