//! The README's quick start, run as it stands.

mod common;

use common::{Token, cluster};
use std::fs;

#[test]
fn the_quick_start_works_as_it_stands() {
    let readme = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    let (_, rest) = readme.split_once("```sql\n").expect("the README has a block of SQL");
    let (quick_start, _) = rest.split_once("```").expect("the block ends");

    let database = cluster().empty_database();
    let script = cluster().write_file("quick_start.sql", quick_start, 0o644);
    // What the README takes for granted: a role and a table.
    let mut owner = database.superuser();
    owner
        .batch_execute(
            "CREATE ROLE app LOGIN;
             CREATE TABLE orders (id integer PRIMARY KEY, item text);
             GRANT SELECT ON orders TO app;",
        )
        .unwrap();
    let token = Token::for_member("user_1", "acme").claim("iss", "https://auth.example.com").claim("aud", "my-api");
    let token = token.sign_with(b"the secret it signs with, 32 bytes or more");
    let variable = format!("token={token}");
    let script = script.to_str().unwrap();
    let arguments =
        ["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-v", &variable, "-d", &database.name, "-f", script];
    let output = cluster().client("psql", &arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stdout).contains("user_1\n"), "authenticate returns the user");

    owner
        .batch_execute("INSERT INTO orders (id, item, tenant_id) VALUES (1, 'lamp', 'acme'), (2, 'desk', 'globex')")
        .unwrap();
    let mut app = database.connect("app");
    let mut transaction = app.transaction().unwrap();
    transaction.execute("SELECT tenancy.authenticate($1)", &[&token]).unwrap();
    let items: Vec<String> =
        transaction.query("SELECT item FROM orders", &[]).unwrap().iter().map(|row| row.get(0)).collect();
    assert_eq!(items, ["lamp"]);
}
