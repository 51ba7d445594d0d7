//! A product with its own token service: two users, an organization with a seat for the first, one signing profile.

use crate::common::{Database, cluster};
use postgres::types::ToSql;
use postgres::{Client, Row};
use serde_json::Value;

/// The profile's issuer, as contract S has it.
pub const ISSUER: &str = "softcodes.ai";
/// Its audience.
pub const AUDIENCE: &str = "vscode-extension";
/// Its HS256 secret.
pub const SECRET: &[u8] = b"the product's own secret: 40 bytes long.";
/// A member of `ORG` with a seat.
pub const USER: &str = "user_2NNEqL2nrIRdJ194ndJqAHwEfxC";
/// Somebody else, without.
pub const OTHER: &str = "user_without_a_seat";
/// The organization.
pub const ORG: &str = "org_2NNFhQ7v0u1ZpK3mB9sXcT4dLeY";

/// A database with all of these.
pub fn world() -> Database<'static> {
    let database = cluster().database();
    furnish(&mut database.superuser());
    database
}

/// Registers them.
pub fn furnish(client: &mut Client) {
    client
        .execute(
            "SELECT tenancy.add_signing_profile('default', $1, $2, 'HS256', 'k1', $3)",
            &[&ISSUER, &AUDIENCE, &SECRET],
        )
        .unwrap();
    client
        .batch_execute(&format!(
            "SELECT tenancy.register_user('{USER}', 'ada@acme.test'), tenancy.register_user('{OTHER}');
             SELECT tenancy.register_organization('{ORG}', 'Acme Inc', stripe_customer_id => 'cus_Q1w2E3r4');
             SELECT tenancy.set_membership('{USER}', '{ORG}', 'org:member');
             SELECT tenancy.set_subscription('{ORG}', 'teams', 'active', 5);
             SELECT tenancy.assign_seat('{ORG}', '{USER}')"
        ))
        .unwrap();
}

/// One row.
pub fn row(client: &mut Client, statement: &str, args: &[&(dyn ToSql + Sync)]) -> Row {
    client.query_one(statement, args).unwrap_or_else(|error| panic!("{statement}: {error:?}"))
}

/// One text.
pub fn text(client: &mut Client, statement: &str, args: &[&(dyn ToSql + Sync)]) -> String {
    row(client, statement, args).get(0)
}

/// The verified claims of a token; None where it is refused.
pub fn claims(client: &mut Client, token: &str) -> Option<Value> {
    row(client, "SELECT claims FROM tenancy.verify_token($1)", &[&token]).get(0)
}

/// Why a token is refused.
pub fn reason(client: &mut Client, token: &str) -> Option<String> {
    row(client, "SELECT reason FROM tenancy.verify_token($1)", &[&token]).get(0)
}

/// The identity a token gives, without what differs from one authentication to the next.
pub fn identity(client: &mut Client, token: &str) -> Value {
    let mut transaction = client.transaction().unwrap();
    transaction.query_one("SELECT tenancy.authenticate($1)", &[&token]).unwrap();
    let mut identity: Value = transaction.query_one("SELECT to_jsonb(tenancy.identity())", &[]).unwrap().get(0);
    for name in ["correlation_id", "session_id", "token_id", "expires_at"] {
        identity.as_object_mut().unwrap().remove(name);
    }
    identity
}

/// The reasons and actions in the audit log, in order.
pub fn audit(client: &mut Client, kind: &str) -> Vec<String> {
    let rows = client
        .query(
            "SELECT concat_ws(' ', action, reason) FROM tenancy.token_audit_logs WHERE kind = $1 ORDER BY id",
            &[&kind],
        )
        .unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}
