//! audit_isolation: nothing is found where nothing is wrong; partitions, the server, exemptions.

use crate::audit_rules::audited;
use crate::common::{fails_with, refused};
use crate::world::{column, noticed, shop, take_notices, value};
use postgres::Client;

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
    assert_eq!(remedy, "-- update to PostgreSQL 15.14 or later; no dump is needed");
}

#[test]
fn temporary_tables_for_everybody_are_found() {
    let database = audited();
    let mut superuser = database.superuser();
    superuser.batch_execute(&format!("GRANT TEMPORARY ON DATABASE {} TO PUBLIC", database.name)).unwrap();
    let expected = ("temporary_tables".to_string(), "info".to_string(), format!("database {}", database.name));
    assert_eq!(findings(&mut superuser), [expected]);
    let remedy = value(&mut superuser, "SELECT remedy FROM tenancy.audit_isolation()");
    superuser.batch_execute(&remedy).unwrap();
    assert!(findings(&mut superuser).is_empty(), "{remedy}");
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
