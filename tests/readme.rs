//! The README's quick start, run as it stands.

mod common;

use common::{Token, cluster, psql, sql_blocks};

#[test]
fn the_quick_start_works_as_it_stands() {
    let quick_start = sql_blocks("README.md").concat();
    let database = cluster().empty_database();
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
    let (shown, _) = psql(&database, "postgres", &[("token", &token)], &quick_start);
    assert!(shown.contains("user_1\n"), "authenticate returns the user");

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
