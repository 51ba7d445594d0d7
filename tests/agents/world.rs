//! Two organizations, and people with each of the roles.

use crate::common::{Database, Token};
use postgres::types::ToSql;
use postgres::{Client, Error, Row};
use serde_json::{Value, json};

/// A module that both organizations install.
pub const WEATHER: &str = "weather/open-meteo";

/// A connection as `app` in a transaction that acts for this member with this role.
pub fn member(database: &Database, user_id: &str, org_id: &str, org_role: &str) -> Client {
    acting(database, &Token::for_member(user_id, org_id).claim("org_role", org_role))
}

/// The same for any token.
pub fn acting(database: &Database, token: &Token) -> Client {
    let mut client = database.connect("app");
    client.batch_execute("BEGIN").unwrap();
    client.query_one("SELECT tenancy.authenticate($1)", &[&token.sign()]).unwrap();
    client
}

/// An operator of an organization.
pub fn operator(database: &Database, org_id: &str) -> Client {
    member(database, &format!("{org_id}-operator"), org_id, "org:operator")
}

/// Commits and begins the next transaction of the same operator.
pub fn next(client: &mut Client, org_id: &str) {
    client.batch_execute("COMMIT; BEGIN").unwrap();
    let token = Token::for_member(&format!("{org_id}-operator"), org_id).claim("org_role", "org:operator").sign();
    client.query_one("SELECT tenancy.authenticate($1)", &[&token]).unwrap();
}

/// One value, or the error; after an error the transaction goes on as if nothing had happened.
pub fn ask<T: for<'a> postgres::types::FromSql<'a>>(
    client: &mut Client,
    statement: &str,
    parameters: &[&(dyn ToSql + Sync)],
) -> Result<T, Error> {
    rows(client, statement, parameters).map(|rows| rows[0].get(0))
}

/// The rows, or the error, likewise.
pub fn rows(client: &mut Client, statement: &str, parameters: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, Error> {
    client.batch_execute("SAVEPOINT asking")?;
    let answer = client.query(statement, parameters);
    client.batch_execute(if answer.is_ok() { "RELEASE asking" } else { "ROLLBACK TO asking" })?;
    answer
}

/// The first column of every row.
pub fn list(client: &mut Client, statement: &str) -> Vec<String> {
    rows(client, statement, &[]).unwrap().iter().map(|row| row.get(0)).collect()
}

/// Installs a module with a manifest that names who installed it.
pub fn install(client: &mut Client, module_id: &str, name: &str) -> String {
    let manifest = json!({"name": name, "version": "1.0.0"});
    ask(client, "SELECT tenancy.install_module($1, $2)", &[&module_id, &manifest]).unwrap()
}

/// Stores a credential.
pub fn store(client: &mut Client, module_id: &str, secret: &Value) -> String {
    ask(client, "SELECT tenancy.store_credential($1, $2)", &[&module_id, secret]).unwrap()
}

/// Opens a credential.
pub fn retrieve(client: &mut Client, module_id: &str) -> Result<Option<Value>, Error> {
    ask(client, "SELECT tenancy.retrieve_credential($1)", &[&module_id])
}
