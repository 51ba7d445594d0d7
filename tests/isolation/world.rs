//! A product's database: a schema `shop` whose tables belong to `ops` and are used by `app`.

use crate::common::{Database, Notices, Token, cluster};
use postgres::{Client, Transaction};
use std::sync::Mutex;

/// Two tenants of each kind of id, the first of which is always "A" in the tests' words.
pub const TEXT: [&str; 2] = ["tenant-a", "tenant-b"];
pub const UUID: [&str; 2] = ["0190f0e0-0000-7000-8000-00000000000a", "0190f0e0-0000-7000-8000-00000000000b"];
pub const BIGINT: [&str; 2] = ["1001", "2002"];

/// A database with the schema `shop`.
pub fn shop() -> Database<'static> {
    let database = cluster().database();
    database
        .superuser()
        .batch_execute("CREATE SCHEMA shop AUTHORIZATION ops; GRANT USAGE ON SCHEMA shop TO app, svc;")
        .expect("the schema shop can be made");
    database
}

/// Makes a role. Roles belong to the cluster, which the tests of this binary share.
pub fn role(database: &Database, name: &str, options: &str) {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _turn = ONE_AT_A_TIME.lock().expect("no test panics while it makes a role");
    database
        .superuser()
        .batch_execute(&format!(
            "DO $$ BEGIN IF to_regrole('{name}') IS NULL THEN CREATE ROLE {name} {options}; END IF; END $$"
        ))
        .expect("a role can be made");
}

/// The same with `shop.essays (id, body)`, protected, and used by `app`.
pub fn shop_with_essays() -> Database<'static> {
    let database = shop();
    database
        .connect("ops")
        .batch_execute(
            "CREATE TABLE shop.essays (id bigint PRIMARY KEY, body text);
             GRANT SELECT, INSERT, UPDATE, DELETE ON shop.essays TO app;
             SELECT tenancy.protect_table('shop.essays')",
        )
        .expect("the table can be protected");
    database
}

/// A token whose bearer belongs to that tenant.
pub fn token_of(tenant: &str) -> String {
    Token::for_user("somebody").claim("tenant_id", tenant).sign()
}

/// A token within an organization of that tenant.
pub fn token_of_org(tenant: &str, org: &str) -> String {
    Token::for_member("somebody", org).claim("tenant_id", tenant).sign()
}

/// Runs `work` in a transaction in which that tenant's token was authenticated, and commits.
pub fn as_tenant<T>(client: &mut Client, tenant: &str, work: impl FnOnce(&mut Transaction) -> T) -> T {
    with_token(client, &token_of(tenant), work)
}

/// Runs `work` in a transaction in which the token was authenticated, and commits.
pub fn with_token<T>(client: &mut Client, token: &str, work: impl FnOnce(&mut Transaction) -> T) -> T {
    let mut transaction = client.transaction().expect("a transaction begins");
    transaction.query_one("SELECT tenancy.authenticate($1)", &[&token]).expect("the token is good");
    let result = work(&mut transaction);
    // After an error inside `work` the commit is a rollback, and no error.
    transaction.commit().expect("the transaction ends");
    result
}

/// The first column of all rows, as text.
pub fn column(client: &mut impl postgres::GenericClient, query: &str) -> Vec<String> {
    client
        .query(query, &[])
        .unwrap_or_else(|error| panic!("{query}: {error:?}"))
        .iter()
        .map(|row| row.get::<_, Option<String>>(0).unwrap_or_else(|| "NULL".into()))
        .collect()
}

/// One value, as text.
pub fn value(client: &mut impl postgres::GenericClient, query: &str) -> String {
    let mut rows = column(client, query);
    assert_eq!(rows.len(), 1, "{query}: one row expected, got {rows:?}");
    rows.remove(0)
}

/// The statements of `SELECT tenancy.protect_table(…)` with these arguments.
pub fn protect(client: &mut impl postgres::GenericClient, arguments: &str) -> Vec<String> {
    column(client, &format!("SELECT tenancy.protect_table({arguments})"))
}

/// The messages received so far; they are taken out.
pub fn take_notices(notices: &Notices) -> Vec<String> {
    notices
        .lock()
        .expect("no test panics while it holds the notices")
        .drain(..)
        .map(|notice| match notice.hint() {
            Some(hint) => format!("{} HINT: {hint}", notice.message()),
            None => notice.message().to_string(),
        })
        .collect()
}

/// Whether one of the notices contains all of the words.
pub fn noticed(notices: &[String], words: &[&str]) -> bool {
    notices.iter().any(|notice| words.iter().all(|word| notice.contains(word)))
}
