//! A database that has been in use, and what must be the same in a copy of it.

use super::{Database, refused};
use postgres::Client;
use std::collections::BTreeMap;

/// A database with something of every domain.
pub fn lived_in(cluster: &super::Cluster) -> Database<'_> {
    let database = cluster.database();
    database.superuser().batch_execute(include_str!("lived_in.sql")).expect("the database can be lived in");
    database
}

/// All that is in schema tenancy but the rows, as text that does not depend on oids.
pub fn objects(client: &mut Client) -> String {
    client.query_one(include_str!("snapshot.sql"), &[]).expect("the catalog can be read").get(0)
}

/// The rows of every table of schema tenancy and of the user's own, as one digest a table. When and by which version
/// the migrations ran is left out.
pub fn rows(client: &mut Client) -> BTreeMap<String, String> {
    let tables = "SELECT c.oid::regclass::text FROM pg_class AS c
                   WHERE c.relkind IN ('r', 'p') AND c.relnamespace IN ('tenancy'::regnamespace, 'public'::regnamespace)
                     AND c.relname <> 'schema_migrations'";
    let tables: Vec<String> = client.query(tables, &[]).unwrap().iter().map(|row| row.get(0)).collect();
    tables
        .into_iter()
        .map(|table| {
            let digest = format!(
                "SELECT concat(count(*), ' rows, ', md5(string_agg(t::text, E'\\n' ORDER BY t::text COLLATE \"C\"))) FROM {table} AS t"
            );
            let digest = client.query_one(&digest, &[]).unwrap().get(0);
            (table, digest)
        })
        .collect()
}

/// The lines that are in one text only, marked with the text they are in.
pub fn difference(left: &str, right: &str) -> Vec<String> {
    let only = |mark: &str, these: &str, those: &str| {
        let those: std::collections::HashSet<&str> = those.lines().collect();
        these.lines().filter(|line| !those.contains(line)).map(|line| format!("{mark} {line}")).collect::<Vec<_>>()
    };
    [only("-", left, right), only("+", right, left)].concat()
}

/// The ledger agrees with itself and isolation has no error.
#[track_caller]
pub fn clean(client: &mut Client) {
    let findings = client.query("SELECT f::text FROM tenancy.verify_ledger() AS f", &[]).unwrap();
    let findings: Vec<String> = findings.iter().map(|row| row.get(0)).collect();
    assert!(findings.is_empty(), "verify_ledger: {findings:?}");
    let audit = "SELECT concat_ws(': ', rule, object, finding) FROM tenancy.audit_isolation() WHERE severity = 'error'";
    let findings: Vec<String> = client.query(audit, &[]).unwrap().iter().map(|row| row.get(0)).collect();
    assert!(findings.is_empty(), "audit_isolation: {findings:?}");
}

/// Life goes on in it: a charge, the same charge again by its key, a seat's refusal, the secrets still open.
pub fn goes_on(database: &Database) {
    let mut service = database.connect("svc");
    let debit = "SELECT balance_after::text FROM tenancy.deduct_credits('ada', 1, 'org_acme', idempotency_key => $1)";
    let first: String = service.query_one(debit, &[&"goes on"]).expect("a charge").get(0);
    let again: String = service.query_one(debit, &[&"goes on"]).expect("the same charge").get(0);
    assert_eq!(first, again, "charged once");
    refused(service.query("SELECT tenancy.deduct_credits('bea', 1, 'org_acme')", &[]), "PT403", "no_active_seat");
    let sign = "SELECT tenancy.issue_access_token('ada', 'org_acme')";
    let token: String = service.query_one(sign, &[]).expect("the signing key opens").get(0);
    let mut app = database.connect("app");
    let mut transaction = app.transaction().unwrap();
    transaction.query_one("SELECT tenancy.authenticate($1)", &[&token]).expect("and its token is good");
    let own: i64 = transaction.query_one("SELECT count(*) FROM public.essays", &[]).unwrap().get(0);
    assert_eq!(own, 5, "the tenant's rows, no others");
}
