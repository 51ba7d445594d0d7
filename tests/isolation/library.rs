//! Essays and reviews of two tenants, for the tests of the threats; and what reads the threat model.

use crate::common::Database;
use crate::world::{as_tenant, column, shop};
use postgres::Client;

/// Essays and their reviews, keys and foreign keys with the tenant in them; essay 1 is A's, essay 2 is B's.
pub fn library() -> Database<'static> {
    let database = shop();
    database
        .connect("ops")
        .batch_execute(
            "CREATE TABLE shop.essays (id bigint PRIMARY KEY, tenant_id text, body text);
             CREATE TABLE shop.reviews (id bigint PRIMARY KEY, tenant_id text, essay bigint REFERENCES shop.essays ON DELETE CASCADE);
             GRANT SELECT, INSERT, UPDATE, DELETE ON shop.essays, shop.reviews TO app;
             SELECT tenancy.protect_table('shop.reviews', composite_keys => true);
             SELECT tenancy.protect_table('shop.essays', composite_keys => true)",
        )
        .unwrap();
    let mut app = database.connect("app");
    for (id, tenant) in [(1i64, "tenant-a"), (2, "tenant-b")] {
        as_tenant(&mut app, tenant, |tx| {
            tx.execute("INSERT INTO shop.essays (id, body) VALUES ($1, 'of ' || tenancy.tenant_id())", &[&id]).unwrap();
            tx.execute("INSERT INTO shop.reviews (id, essay) VALUES ($1, $1)", &[&id]).unwrap();
        });
    }
    database
}

pub fn ids(client: &mut impl postgres::GenericClient) -> Vec<String> {
    column(client, "SELECT id::text FROM shop.essays ORDER BY id")
}

pub fn audited(client: &mut Client, rule: &str) -> bool {
    column(client, "SELECT rule FROM tenancy.audit_isolation()").iter().any(|found| found == rule)
}

#[test]
fn the_threat_model_has_every_number() {
    let model =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/explanation/threat-model.md")).unwrap();
    let cases = include_str!("../../docs/security-cases.md");
    let tests =
        [include_str!("threats_around.rs"), include_str!("threats_rows.rs"), include_str!("threats_sessions.rs")]
            .concat();
    let (_, cases) = cases.split_once("## Isolation").expect("a section of its own");
    let cases = cases.split("\n## ").next().unwrap();
    for number in 1..=44 {
        let row = model
            .lines()
            .find(|line| line.starts_with(&format!("| {number} | ")))
            .unwrap_or_else(|| panic!("{number} is not in the threat model"));
        let named = tests.split("fn isolation_").skip(1).find(|rest| rest.starts_with(&format!("{number:02}_")));
        match named {
            Some(rest) => {
                let name = format!("isolation_{}", &rest[..rest.find('(').unwrap()]);
                assert!(
                    cases.contains(&format!("| {number} | ")) && cases.contains(&format!("`{name}`")),
                    "{name} is not in docs/security-cases.md"
                );
            }
            None => assert!(row.contains("documented"), "{number} has neither a test nor the word documented: {row}"),
        }
    }
}
