//! audit_isolation: each rule is provoked once, and nothing is found where nothing is wrong.

use crate::common::{Database, fails_with, refused};
use crate::world::{column, noticed, role, shop, take_notices, value};
use postgres::Client;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// What brings a finding about (run by the superuser), the rule, its severity and the object.
const PROVOKED: [(&str, &str, &str, &str); 43] = [
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
    ("DROP TABLE shop.essays", "protected_table_gone", "info", "*"),
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
        "CREATE FUNCTION shop.f(integer) RETURNS boolean LEAKPROOF LANGUAGE sql AS 'SELECT true'",
        "leakproof_function",
        "warning",
        "shop.f(integer)",
    ),
    ("GRANT unbound TO app", "bypassing_role", "error", "role app"),
    ("GRANT ops TO app", "application_owns_table", "error", "role app"),
    ("GRANT watcher TO app", "application_is_operator", "error", "role app"),
    ("CREATE PUBLICATION all_of_it FOR TABLE shop.essays", "published_table", "warning", "all_of_it/shop.essays"),
    (
        "CREATE FOREIGN DATA WRAPPER nowhere; CREATE SERVER nowhere FOREIGN DATA WRAPPER nowhere; CREATE FOREIGN TABLE shop.far (id int) SERVER nowhere",
        "foreign_table",
        "warning",
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
];

fn audited() -> Database<'static> {
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
             GRANT SELECT, INSERT, UPDATE, DELETE ON shop.essays, shop.plural, shop.watched TO app;
             SELECT tenancy.protect_table('shop.essays');
             SELECT tenancy.protect_table('shop.plural');
             SELECT tenancy.protect_table('shop.watched', operator_role => 'watcher')",
        )
        .unwrap();
    database
}

fn findings(client: &mut Client) -> Vec<(String, String, String)> {
    client
        .query("SELECT rule, severity, object FROM tenancy.audit_isolation()", &[])
        .unwrap()
        .iter()
        .map(|row| (row.get(0), row.get(1), row.get(2)))
        .collect()
}

#[test]
fn nothing_is_found_where_nothing_is_wrong() {
    let database = audited();
    let found = findings(&mut database.connect("ops"));
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn each_rule_finds_what_it_is_for() {
    let database = audited();
    let mut superuser = database.superuser();
    for (provocation, rule, severity, object) in PROVOKED {
        let mut transaction = superuser.transaction().unwrap();
        transaction.batch_execute(provocation).unwrap_or_else(|error| panic!("{provocation}: {error:?}"));
        let rows = transaction
            .query("SELECT severity, object, finding, remedy FROM tenancy.audit_isolation() WHERE rule = $1", &[&rule])
            .unwrap();
        assert!(!rows.is_empty(), "{rule} is not found after {provocation}");
        let hit = rows.iter().find(|row| object == "*" || row.get::<_, &str>(1) == object);
        let hit = hit.unwrap_or_else(|| panic!("{rule} is found on something else than {object}: {rows:?}"));
        assert_eq!(hit.get::<_, &str>(0), severity, "{rule}");
        assert!(!hit.get::<_, &str>(2).is_empty() && !hit.get::<_, &str>(3).is_empty(), "{rule}");
        transaction.rollback().unwrap();
    }
    let mut tested: BTreeSet<String> = PROVOKED.iter().map(|(_, rule, _, _)| rule.to_string()).collect();
    // These have tests of their own, below.
    tested.extend(["server_version".to_string(), "temporary_tables".to_string()]);
    let rules: BTreeSet<String> =
        column(&mut superuser, "SELECT rule FROM tenancy.audit_rules()").into_iter().collect();
    assert_eq!(tested, rules, "every rule is tested");
}

#[test]
fn what_protect_table_set_its_remedy_sets_again() {
    let database = audited();
    let mut superuser = database.superuser();
    for (provocation, rule, _, object) in PROVOKED {
        let mut transaction = superuser.transaction().unwrap();
        transaction.batch_execute(provocation).unwrap();
        let remedy = transaction
            .query(
                "SELECT remedy FROM tenancy.audit_isolation() WHERE rule = $1 AND (object = $2 OR $2 = '*')",
                &[&rule, &object],
            )
            .unwrap();
        let remedy: &str = remedy[0].get(0);
        // Others are advice, with words in it.
        if remedy.starts_with("SELECT tenancy.")
            || (remedy.ends_with(';') && remedy.matches(';').count() == 1 && !remedy.contains(" a "))
        {
            transaction.batch_execute(remedy).unwrap_or_else(|error| panic!("{remedy}: {error:?}"));
            let left = transaction
                .query(
                    "SELECT finding FROM tenancy.audit_isolation() WHERE rule = $1 AND (object = $2 OR $2 = '*')",
                    &[&rule, &object],
                )
                .unwrap();
            assert!(left.is_empty(), "{rule}: {remedy} left {left:?}");
        }
        transaction.rollback().unwrap();
    }
}

#[test]
fn a_partition_added_without_protection_is_found() {
    let database = shop();
    let mut ops = database.connect("ops");
    ops.batch_execute(
        "CREATE TABLE shop.events (id bigint, at date) PARTITION BY RANGE (at);
         SELECT tenancy.protect_table('shop.events');
         CREATE TABLE shop.events_1 PARTITION OF shop.events FOR VALUES FROM ('2026-01-01') TO ('2027-01-01')",
    )
    .unwrap();
    let found = findings(&mut ops);
    for rule in ["rls_disabled", "force_missing", "floor_missing", "access_policy_changed"] {
        assert!(found.iter().any(|(r, _, object)| r == rule && object == "shop.events_1"), "{rule}: {found:#?}");
    }
}

#[test]
fn a_server_with_a_published_hole_is_found() {
    let database = shop();
    let mut superuser = database.superuser();
    for (version, holes) in [
        (140_018, "CVE-2025-8713"),
        (150_002, "CVE-2023-2455 CVE-2023-39418 CVE-2024-10976 CVE-2025-8713"),
        (150_003, "CVE-2023-39418 CVE-2024-10976 CVE-2025-8713"),
        (150_014, ""),
        (160_004, "CVE-2024-10976 CVE-2025-8713"),
        (170_000, "CVE-2024-10976 CVE-2025-8713"),
        (180_000, ""),
    ] {
        let finding =
            column(&mut superuser, &format!("SELECT finding || remedy FROM tenancy._audit_server({version})")).join("");
        for hole in ["CVE-2023-2455", "CVE-2023-39418", "CVE-2024-10976", "CVE-2025-8713"] {
            assert_eq!(finding.contains(hole), holes.contains(hole), "{version} {hole}: {finding}");
        }
    }
    let remedy = value(&mut superuser, "SELECT remedy FROM tenancy._audit_server(150003)");
    assert!(remedy.contains("15.14"), "{remedy}");
}

#[test]
fn temporary_tables_for_everybody_are_found() {
    let database = audited();
    let mut superuser = database.superuser();
    superuser.batch_execute(&format!("GRANT TEMPORARY ON DATABASE {} TO PUBLIC", database.name)).unwrap();
    let expected = ("temporary_tables".to_string(), "info".to_string(), format!("database {}", database.name));
    assert_eq!(findings(&mut superuser), [expected]);
}

#[test]
fn an_exemption_waives_until_its_date_and_says_why() {
    let database = audited();
    let (mut ops, notices) = database.connect_with_notices("ops");
    ops.batch_execute("CREATE TABLE shop.countries (code text)").unwrap();
    let count = "SELECT count(*)::text FROM tenancy.audit_isolation() WHERE object = 'shop.countries'";
    assert_eq!(value(&mut ops, count), "1");
    ops.batch_execute("SELECT tenancy.exempt('shop.countries', 'unprotected_table', 'the same for all tenants', now() + interval '1 year')").unwrap();
    assert!(take_notices(&notices).is_empty());
    assert_eq!(value(&mut ops, count), "0");
    let row = "SELECT concat_ws('|', reason, exempted_by, expires_at > now()) FROM tenancy.isolation_exemptions";
    assert_eq!(value(&mut ops, row), "the same for all tenants|ops|t");

    database
        .superuser()
        .batch_execute("UPDATE tenancy.isolation_exemptions SET expires_at = now() - interval '1 s'")
        .unwrap();
    assert_eq!(value(&mut ops, count), "1", "it has run out");
    ops.batch_execute("SELECT tenancy.exempt('shop.countries', 'unprotected_table', 'still the same')").unwrap();
    assert_eq!(value(&mut ops, count), "0");
    assert_eq!(value(&mut ops, "SELECT tenancy.unexempt('shop.countries', 'unprotected_table')::text"), "true");
    assert_eq!(value(&mut ops, "SELECT tenancy.unexempt('shop.countries', 'unprotected_table')::text"), "false");
    assert_eq!(value(&mut ops, count), "1");

    take_notices(&notices);
    ops.batch_execute("SELECT tenancy.exempt('shop.nothing', 'unprotected_table', 'soon to come')").unwrap();
    assert!(noticed(&take_notices(&notices), &["no finding unprotected_table on shop.nothing"]));
}

#[test]
fn bad_exemptions_are_refused() {
    let database = audited();
    let mut ops = database.connect("ops");
    for arguments in [
        "'shop.essays', 'no_such_rule', 'why'",
        "'shop.essays', NULL, 'why'",
        "'shop.essays', 'rls_disabled', ''",
        "'shop.essays', 'rls_disabled', NULL",
        "NULL, 'rls_disabled', 'why'",
        "'shop.essays', 'rls_disabled', 'why', now() - interval '1 s'",
    ] {
        refused(ops.query(&format!("SELECT tenancy.exempt({arguments})"), &[]), "22023", "invalid_argument");
    }
    let mut app = database.connect("app");
    for call in [
        "exempt('shop.essays', 'rls_disabled', 'why')",
        "audit_isolation()",
        "audit_isolation_sarif()",
        "unexempt('x', 'rls_disabled')",
    ] {
        fails_with(app.query(&format!("SELECT tenancy.{call}"), &[]), "42501");
    }
}

/// The part of the SARIF 2.1.0 schema that the document uses: property → (required, kind).
/// The whole document was validated against the schema itself; this keeps it there.
fn check_shape(value: &Value, kind: &str) {
    let (properties, required): (&[(&str, &str)], &[&str]) = match kind {
        "sarifLog" => (&[("$schema", "string"), ("version", "string"), ("runs", "[run]")], &["version", "runs"]),
        "run" => (&[("tool", "tool"), ("results", "[result]")], &["tool"]),
        "tool" => (&[("driver", "toolComponent")], &["driver"]),
        "toolComponent" => {
            (&[("name", "string"), ("version", "string"), ("rules", "[reportingDescriptor]")], &["name"])
        }
        "reportingDescriptor" => (
            &[
                ("id", "string"),
                ("shortDescription", "text"),
                ("defaultConfiguration", "configuration"),
                ("properties", "any"),
            ],
            &["id"],
        ),
        "configuration" => (&[("level", "level")], &[]),
        "result" => (
            &[
                ("ruleId", "string"),
                ("ruleIndex", "integer"),
                ("level", "level"),
                ("message", "text"),
                ("locations", "[location]"),
                ("partialFingerprints", "any"),
                ("suppressions", "[suppression]"),
            ],
            &["message"],
        ),
        "text" => (&[("text", "string")], &["text"]),
        "location" => (&[("logicalLocations", "[logicalLocation]")], &[]),
        "logicalLocation" => (&[("fullyQualifiedName", "string")], &[]),
        "suppression" => (&[("kind", "suppressionKind"), ("justification", "string")], &["kind"]),
        "level" => return assert!(["none", "note", "warning", "error"].contains(&value.as_str().unwrap())),
        "suppressionKind" => return assert!(["inSource", "external"].contains(&value.as_str().unwrap())),
        "string" => return assert!(value.is_string(), "{value}"),
        "integer" => return assert!(value.is_u64(), "{value}"),
        "any" => return,
        list => {
            let item = list.trim_matches(['[', ']']);
            return value
                .as_array()
                .unwrap_or_else(|| panic!("{list}: {value}"))
                .iter()
                .for_each(|value| check_shape(value, item));
        }
    };
    let object = value.as_object().unwrap_or_else(|| panic!("{kind}: {value}"));
    for name in required {
        assert!(object.contains_key(*name), "{kind} has no {name}: {value}");
    }
    for (name, value) in object {
        let (_, kind) =
            properties.iter().find(|(known, _)| known == name).unwrap_or_else(|| panic!("{kind} has {name}"));
        check_shape(value, kind);
    }
}

#[test]
fn sarif_has_every_rule_and_every_finding_and_what_is_waived_as_suppressed() {
    let database = audited();
    let mut ops = database.connect("ops");
    let sarif = |ops: &mut Client| -> Value {
        serde_json::from_str(&value(ops, "SELECT tenancy.audit_isolation_sarif()::text")).unwrap()
    };
    let clean = sarif(&mut ops);
    check_shape(&clean, "sarifLog");
    assert_eq!(clean["version"], "2.1.0");
    assert_eq!(clean["runs"][0]["results"], json!([]), "nothing found is an empty list");

    ops.batch_execute("CREATE TABLE shop.countries (code text); CREATE TABLE shop.plain (id int); SELECT tenancy.exempt('shop.countries', 'unprotected_table', 'for all')")
        .unwrap();
    let found = sarif(&mut ops);
    check_shape(&found, "sarifLog");
    let run = &found["runs"][0];
    let results = run["results"].as_array().unwrap();
    assert_eq!(results.len(), 2);
    for result in results {
        let rule = &run["tool"]["driver"]["rules"][result["ruleIndex"].as_u64().unwrap() as usize];
        assert_eq!(rule["id"], result["ruleId"]);
        let waived = result["message"]["text"].as_str().unwrap().starts_with("shop.countries");
        assert_eq!(result["suppressions"][0]["justification"] == "for all", waived, "{result}");
    }
    let rules = value(&mut ops, "SELECT count(*)::text FROM tenancy.audit_rules()");
    assert_eq!(run["tool"]["driver"]["rules"].as_array().unwrap().len().to_string(), rules);
}
