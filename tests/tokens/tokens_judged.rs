//! Judged again before anything that lasts is given: by the directory, the keys and the issuers as they are now.

use crate::common::refused;
use crate::tokens_lasting::{admin, begin};
use crate::world::{ORG, USER, row, text, world};
use postgres::Transaction;

/// A key for oneself as nobody in particular, with a role.
fn create(transaction: &mut Transaction, role: &str) -> Result<Vec<postgres::Row>, postgres::Error> {
    let mut attempt = transaction.transaction()?;
    let made = attempt.query("SELECT tenancy.create_api_key($1, role => $2)", &[&ORG, &role]);
    attempt.rollback()?;
    made
}

#[test]
fn a_demoted_user_s_token_makes_no_key_of_the_former_role() {
    let database = world();
    let (mut ops, mut svc, mut app) = (database.superuser(), database.connect("svc"), database.connect("app"));
    let mut set = |role: &str| {
        ops.query("SELECT tenancy.set_membership($1, $2, $3)", &[&USER, &ORG, &role]).unwrap();
    };
    set("owner");
    let token = text(&mut svc, "SELECT tenancy.issue_access_token($1, $2)", &[&USER, &ORG]);
    let mut held = app.transaction().unwrap();
    held.batch_execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ").unwrap();
    held.query_one("SELECT tenancy.authenticate($1)", &[&token]).unwrap();
    create(&mut held, "owner").unwrap();
    set("org:admin");
    refused(create(&mut held, "owner"), "PT403", "permission_denied");
    create(&mut held, "admin").unwrap();
    for role in ["viewer", "org:member"] {
        set(role);
        refused(create(&mut held, "viewer"), "PT403", "permission_denied");
        refused(
            held.transaction().unwrap().query("SELECT tenancy.list_api_keys($1)", &[&ORG]),
            "PT403",
            "permission_denied",
        );
    }
    drop(held);
    refused(create(&mut begin(&mut app, &token), "owner"), "PT403", "permission_denied");
    // Nor does a promotion give more than the token says.
    let token = text(&mut svc, "SELECT tenancy.issue_access_token($1, $2)", &[&USER, &ORG]);
    set("owner");
    refused(create(&mut begin(&mut app, &token), "viewer"), "PT403", "permission_denied");
    // A provider's token says what the provider says.
    create(
        &mut begin(&mut app, &admin(USER).claim("permissions", ["manage_keys", "read_config"].as_slice()).sign()),
        "viewer",
    )
    .unwrap();
}

#[test]
fn a_snapshot_from_before_the_rotation_makes_no_key() {
    let database = world();
    let (mut ops, mut app) = (database.superuser(), database.connect("app"));
    let made = row(&mut ops, "SELECT api_key, key_id FROM tenancy.create_api_key($1, role => 'admin')", &[&ORG]);
    let (key, id): (String, uuid::Uuid) = (made.get(0), made.get(1));
    let mut held = app.transaction().unwrap();
    held.batch_execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ").unwrap();
    held.query_one("SELECT tenancy.authenticate_api_key($1)", &[&key]).unwrap();
    create(&mut held, "viewer").unwrap();
    ops.query("SELECT tenancy.rotate_api_key($1)", &[&id]).unwrap();
    refused(create(&mut held, "viewer"), "PT403", "lapsing_key");
    // Looking and ending are no making.
    held.query("SELECT tenancy.list_api_keys($1)", &[&ORG]).unwrap();
}

/// Whatever would refuse the token now, with the reason that authenticate would give.
#[test]
fn a_transaction_is_given_nothing_once_its_key_or_audience_is_not_taken_any_more() {
    for (end, expected) in [
        ("SELECT tenancy.retire_key('https://issuer.test', 'key-1')", "unknown_key"),
        ("UPDATE tenancy.issuer_keys SET not_after = now() WHERE kid = 'key-1'", "unknown_key"),
        ("UPDATE tenancy.issuers SET audiences = '{elsewhere}' WHERE issuer = 'https://issuer.test'", "audience"),
        (
            "UPDATE tenancy.issuers SET algorithms = '{EdDSA}' WHERE issuer = 'https://issuer.test'",
            "algorithm_not_allowed",
        ),
    ] {
        for isolation in ["READ COMMITTED", "REPEATABLE READ"] {
            for header in [serde_json::json!("key-1"), serde_json::Value::Null] {
                let database = world();
                let (mut ops, mut app) = (database.superuser(), database.connect("app"));
                let mut held = app.transaction().unwrap();
                held.batch_execute(&format!("SET TRANSACTION ISOLATION LEVEL {isolation}")).unwrap();
                let token = admin(USER).header("kid", header).sign();
                held.query_one("SELECT tenancy.authenticate($1)", &[&token]).unwrap();
                create(&mut held, "viewer").unwrap();
                ops.batch_execute(end).unwrap();
                let refusal = create(&mut held, "viewer");
                refused(refusal, "PT401", expected);
                for statement in ["issue_extension_token", "issue_access_token"] {
                    let mut attempt = held.transaction().unwrap();
                    let answer = attempt.query(&format!("SELECT tenancy.{statement}($1)"), &[&USER]);
                    refused(answer, "PT401", expected);
                }
            }
        }
    }
}
