//! Nothing that lasts is given to somebody whose right to it has ended, and nothing that is somebody else's.

use crate::common::{Database, Token, refused};
use crate::tokens_authorization::{authorize, complete_started, start_for};
use crate::world::{ORG, OTHER, USER, claims, row, text, world};
use postgres::{Client, Transaction};
use serde_json::json;

const AUTHENTICATE: &str = "SELECT tenancy.authenticate($1)";
const CREATE: &str = "SELECT key_id FROM tenancy.create_api_key($1, $2, $3)";

/// A provider's token of an organization's admin.
pub fn admin(user: &str) -> Token {
    Token::for_member(user, ORG).claim("permissions", json!(["manage_keys", "read_config", "manage_modules"]))
}

/// Somebody's transaction, as an application.
pub fn begin<'a>(app: &'a mut Client, token: &str) -> Transaction<'a> {
    let mut transaction = app.transaction().unwrap();
    transaction.query_one(AUTHENTICATE, &[&token]).unwrap();
    transaction
}

#[test]
fn a_user_s_key_is_rotated_by_the_user_and_not_after_a_revocation() {
    let database = world();
    let (mut ops, mut app) = (database.superuser(), database.connect("app"));
    ops.query("SELECT tenancy.set_membership($1, $2, 'org:admin')", &[&OTHER, &ORG]).unwrap();
    let bound: uuid::Uuid = row(&mut ops, CREATE, &[&ORG, &USER, &"viewer"]).get(0);
    let free: uuid::Uuid = row(&mut ops, CREATE, &[&ORG, &None::<&str>, &"viewer"]).get(0);
    let rotate = "SELECT new_key_id FROM tenancy.rotate_api_key($1)";

    let mut transaction = begin(&mut app, &admin(OTHER).sign());
    transaction.query_one(rotate, &[&free]).unwrap();
    refused(transaction.query(rotate, &[&bound]), "PT403", "another_user");
    drop(transaction);
    // Ending it is another matter.
    let mut transaction = begin(&mut app, &admin(OTHER).sign());
    assert!(transaction.query_one("SELECT tenancy.revoke_api_key($1)", &[&bound]).unwrap().get::<_, bool>(0));
    drop(transaction);
    let mut transaction = begin(&mut app, &admin(USER).sign());
    let bound: uuid::Uuid = transaction.query_one(rotate, &[&bound]).unwrap().get(0);
    transaction.commit().unwrap();

    ops.query("SELECT tenancy.revoke_user($1)", &[&USER]).unwrap();
    for client in [&mut ops, &mut database.connect("svc")] {
        refused(client.query(rotate, &[&bound]), "PT422", "not_active");
    }
}

#[test]
fn a_key_in_its_grace_makes_no_key() {
    let database = world();
    let (mut ops, mut app) = (database.superuser(), database.connect("app"));
    let made = row(&mut ops, "SELECT api_key, key_id FROM tenancy.create_api_key($1, role => 'admin')", &[&ORG]);
    let (key, id): (String, uuid::Uuid) = (made.get(0), made.get(1));
    let rotated = row(&mut ops, "SELECT api_key, new_key_id FROM tenancy.rotate_api_key($1)", &[&id]);
    let (successor, other): (String, uuid::Uuid) = (rotated.get(0), rotated.get(1));
    for statement in
        [format!("SELECT tenancy.create_api_key('{ORG}')"), format!("SELECT tenancy.rotate_api_key('{other}')")]
    {
        let mut under = |key: &str| {
            let mut transaction = app.transaction().unwrap();
            transaction.query_one("SELECT tenancy.authenticate_api_key($1)", &[&key]).unwrap();
            transaction.query(&statement, &[])
        };
        refused(under(&key), "PT403", "lapsing_key");
        under(&successor).unwrap();
    }
}

#[test]
fn a_key_for_oneself_ends_with_the_membership() {
    let database = world();
    let (mut ops, mut app) = (database.superuser(), database.connect("app"));
    ops.query("SELECT tenancy.set_membership($1, $2, 'org:admin')", &[&OTHER, &ORG]).unwrap();
    let token = admin(OTHER).sign();
    let mut transaction = begin(&mut app, &token);
    ops.query("SELECT tenancy.remove_membership($1, $2)", &[&OTHER, &ORG]).unwrap();
    refused(transaction.query(CREATE, &[&ORG, &OTHER, &"viewer"]), "PT403", "not_a_member");
    drop(transaction);
    // A provider's own member, whom the directory has never known, is told so too.
    refused(begin(&mut app, &token).query(CREATE, &[&ORG, &OTHER, &"viewer"]), "PT403", "not_a_member");
    begin(&mut app, &token).query(CREATE, &[&ORG, &None::<&str>, &"viewer"]).unwrap();
}

#[test]
fn a_demotion_shows_in_the_next_token() {
    let database = world();
    let (mut ops, mut app) = (database.superuser(), database.connect("app"));
    let role = |ops: &mut Client, role: &str| {
        ops.query("SELECT tenancy.set_membership($1, $2, $3)", &[&USER, &ORG, &role]).unwrap();
    };
    role(&mut ops, "org:admin");
    let old = text(&mut ops, "SELECT tenancy.issue_access_token($1, $2)", &[&USER, &ORG]);
    role(&mut ops, "org:member");
    for statement in [
        "SELECT tenancy.issue_access_token($1, $2)",
        "SELECT tenancy.issue_dashboard_token($1, $2)",
        "SELECT token FROM tenancy.issue_extension_token($1, $2)",
    ] {
        let mut transaction = begin(&mut app, &old);
        let token: String = transaction.query_one(statement, &[&USER, &ORG]).unwrap().get(0);
        transaction.commit().unwrap();
        assert_eq!(claims(&mut app, &token).unwrap()["org_role"], "org:member", "{statement}");
    }
}

/// What ends a token ends what its transaction can still be given.
#[test]
fn a_transaction_from_before_a_revocation_is_given_nothing() {
    let issuer = "SELECT tenancy.revoke_session(claims->>'iss', claims->>'session_id') FROM tenancy.verify_token($1)";
    let jti = "SELECT tenancy.revoke_token(claims->>'iss', claims->>'jti', NULL) FROM tenancy.verify_token($1)";
    for (revoke, sqlstate, expected) in [
        ("SELECT tenancy.revoke_user(claims->>'sub') FROM tenancy.verify_token($1)", "PT401", "revoked"),
        (issuer, "PT401", "revoked"),
        (jti, "PT401", "revoked"),
        (
            "SELECT tenancy.remove_membership(claims->>'sub', claims->>'clerk_org_id') FROM tenancy.verify_token($1)",
            "PT403",
            "not_a_member",
        ),
        (
            "SELECT tenancy.suspend_tenant(claims->>'clerk_org_id') FROM tenancy.verify_token($1)",
            "PT403",
            "tenant_suspended",
        ),
    ] {
        let database = world();
        let (mut ops, mut app) = (database.superuser(), database.connect("app"));
        ops.batch_execute("UPDATE tenancy.organization_memberships SET org_role = 'owner'").unwrap();
        let token = text(&mut ops, "SELECT tenancy.issue_access_token($1, $2)", &[&USER, &ORG]);
        for isolation in ["READ COMMITTED", "REPEATABLE READ"] {
            let mut transaction = app.transaction().unwrap();
            transaction.batch_execute(&format!("SET TRANSACTION ISOLATION LEVEL {isolation}")).unwrap();
            transaction.query_one(AUTHENTICATE, &[&token]).unwrap();
            ask(&mut transaction, None);
            ops.query(revoke, &[&token]).unwrap();
            ask(&mut transaction, Some((sqlstate, expected)));
            drop(transaction);
            // Good again for the next round.
            ops.batch_execute(&format!(
                "DELETE FROM tenancy.revocations; SELECT tenancy._changed('revocations');
                 SELECT tenancy.set_membership('{USER}', '{ORG}', 'owner'), tenancy.set_tenant_status('{ORG}', 'active')"
            ))
            .unwrap();
        }
    }
}

/// Asks for everything that lasts; `refusal` says why it is refused, if it is to be.
fn ask(transaction: &mut Transaction, refusal: Option<(&str, &str)>) {
    for statement in [
        format!("SELECT tenancy.issue_access_token('{USER}', '{ORG}')"),
        format!("SELECT tenancy.issue_dashboard_token('{USER}')"),
        format!("SELECT tenancy.issue_extension_token('{USER}', '{ORG}')"),
        format!("SELECT tenancy.start_authorization('{USER}', '{0}', '{0}', 'x:y')", "a".repeat(43)),
        format!("SELECT tenancy.create_api_key('{ORG}')"),
    ] {
        let mut attempt = transaction.transaction().unwrap();
        let answer = attempt.query(&statement, &[]);
        match refusal {
            Some((sqlstate, reason)) => {
                refused(answer, sqlstate, reason);
            }
            None => {
                answer.unwrap_or_else(|error| panic!("{statement}: {error:?}"));
            }
        }
        attempt.rollback().unwrap();
    }
}

/// The same for a key: revoked, or its user's membership ended.
#[test]
fn a_key_s_transaction_from_before_its_end_is_given_nothing() {
    for end in
        ["SELECT tenancy.revoke_api_key($1)", "SELECT tenancy.remove_membership($2, $3) WHERE $1::uuid IS NOT NULL"]
    {
        let database: Database = world();
        let (mut ops, mut app) = (database.superuser(), database.connect("app"));
        let made = row(&mut ops, "SELECT api_key, key_id FROM tenancy.create_api_key($1, $2, 'admin')", &[&ORG, &USER]);
        let (key, id): (String, uuid::Uuid) = (made.get(0), made.get(1));
        // Its use is noted now, and not in the transaction that is held: that would keep the key's row locked.
        app.query("SELECT tenancy.authenticate_api_key($1)", &[&key]).unwrap();
        let mut transaction = app.transaction().unwrap();
        transaction.query_one("SELECT tenancy.authenticate_api_key($1)", &[&key]).unwrap();
        transaction.query("SELECT tenancy.create_api_key($1)", &[&ORG]).unwrap();
        if end.contains("$2") {
            ops.query(end, &[&id, &USER, &ORG]).unwrap();
        } else {
            ops.query(end, &[&id]).unwrap();
        }
        refused(transaction.query("SELECT tenancy.create_api_key($1)", &[&ORG]), "PT401", "invalid_api_key");
    }
}

#[test]
fn codes_and_refresh_tokens_are_judged_by_what_is_committed_now() {
    let database = world();
    let (mut ops, mut app) = (database.superuser(), database.connect("app"));
    let pair = authorize(&mut ops, USER, Some(ORG));
    let code = start_for(&mut ops, USER, Some(ORG));
    let mut transaction = app.transaction().unwrap();
    transaction.batch_execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; SELECT 1").unwrap();
    ops.query("SELECT tenancy.revoke_user($1)", &[&USER]).unwrap();
    let refresh = "SELECT status FROM tenancy.refresh_access_token($1)";
    assert_eq!(transaction.query_one(refresh, &[&pair.refresh]).unwrap().get::<_, &str>(0), "revoked");
    assert_eq!(complete_started(&mut transaction, &code), "invalid_grant");
}

#[test]
fn an_extension_token_gives_nothing_that_outlives_it() {
    let database = world();
    let (mut ops, mut app) = (database.superuser(), database.connect("app"));
    let extension = text(&mut ops, "SELECT token FROM tenancy.issue_extension_token($1, $2)", &[&USER, &ORG]);
    let issue = "SELECT tenancy.issue_access_token($1, $2)";
    let mut transaction = begin(&mut app, &extension);
    let access: String = transaction.query_one(issue, &[&USER, &ORG]).unwrap().get(0);
    transaction.commit().unwrap();
    for token in [&extension, &access] {
        for statement in [
            format!("SELECT tenancy.issue_extension_token('{USER}', '{ORG}')"),
            format!("SELECT tenancy.start_authorization('{USER}', '{0}', '{0}', 'x:y')", "a".repeat(43)),
        ] {
            refused(begin(&mut app, token).query(&statement, &[]), "PT403", "extension_token_identity");
        }
        begin(&mut app, token).query("SELECT tenancy.issue_dashboard_token($1)", &[&USER]).unwrap();
    }
    // Who signed in is given both.
    let signed_in = text(&mut ops, issue, &[&USER, &ORG]);
    begin(&mut app, &signed_in).query("SELECT tenancy.issue_extension_token($1)", &[&USER]).unwrap();
}

#[test]
fn nobody_claims_a_right_for_themselves() {
    let database = world();
    let mut app = database.connect("app");
    let own = Token::for_user(OTHER).sign();
    for name in [
        "role",
        "roles",
        "scope",
        "scp",
        "groups",
        "entitlements",
        "plan_type",
        "permissions",
        "app_metadata",
        "user_metadata",
        "azp",
        "client_id",
        "act",
        "email_verified",
        "phone_number",
        "phone_number_verified",
        "https://hasura.io/jwt/claims",
        "cognito:groups",
        "acme/admin",
    ] {
        for function in ["issue_access_token", "issue_dashboard_token", "issue_extension_token"] {
            let issue = format!("SELECT tenancy.{function}($1, extra => $2)");
            let answer = begin(&mut app, &own).query(&issue, &[&OTHER, &json!({"a": 1, name: "x"})]);
            refused(answer, "22023", "reserved_claim");
        }
    }
    let issue = "SELECT tenancy.issue_access_token($1, extra => $2)";
    begin(&mut app, &own).query(issue, &[&OTHER, &json!({"username": "x"})]).unwrap();
    database.connect("svc").query(issue, &[&OTHER, &json!({"role": "x"})]).unwrap();
}

/// Signed and shown, and in no table: nobody would count, list or revoke it.
#[test]
fn a_long_lived_token_is_good_with_its_row() {
    let database = world();
    let (mut svc, mut app) = (database.connect("svc"), database.connect("app"));
    let issue = "SELECT token, token_id FROM tenancy.issue_extension_token($1, $2)";
    let mut transaction = svc.transaction().unwrap();
    let issued = transaction.query_one(issue, &[&USER, &ORG]).unwrap();
    let (token, id): (String, uuid::Uuid) = (issued.get(0), issued.get(1));
    let why = "SELECT coalesce(reason, 'good') FROM tenancy.verify_token($1)";
    let mut attempt = transaction.transaction().unwrap();
    let later: String = attempt.query_one(issue, &[&USER, &ORG]).unwrap().get(0);
    for token in [&token, &later] {
        assert_eq!(attempt.query_one(why, &[token]).unwrap().get::<_, &str>(0), "good");
    }
    attempt.rollback().unwrap();
    // What a session has verified in its own transaction it does not take for committed.
    assert_eq!(transaction.query_one(why, &[&later]).unwrap().get::<_, &str>(0), "not_issued");
    assert_eq!(transaction.query_one(why, &[&token]).unwrap().get::<_, &str>(0), "good");
    transaction.rollback().unwrap();
    for client in [&mut svc, &mut app] {
        assert_eq!(text(client, why, &[&token]), "not_issued");
        refused(client.query(AUTHENTICATE, &[&token]), "PT401", "not_issued");
    }
    let validate = "SELECT tenancy.validate_extension_token($1)";
    refused(app.query(validate, &[&token]), "PT401", "TOKEN_REVOKED_OR_INVALID");

    // A service that has seen it has it revoked all the same, and nobody else has.
    let revoke = "SELECT tenancy.revoke_extension_token($1)";
    let recorded = "SELECT string_agg(kind, ' ' ORDER BY kind) FROM tenancy.revocations WHERE value = $1::uuid::text";
    let mut ops = database.superuser();
    for (client, kinds) in [(&mut app, None), (&mut svc, Some("session token"))] {
        assert!(!row(client, revoke, &[&id]).get::<_, bool>(0));
        assert_eq!(row(&mut ops, recorded, &[&id]).get::<_, Option<&str>>(0), kinds);
    }
    assert_eq!(text(&mut app, why, &[&token]), "revoked");

    // With its row it is good, where nothing can be written and whatever the transaction has seen before.
    let mut held = app.transaction().unwrap();
    held.batch_execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY; SELECT 1").unwrap();
    let token = text(&mut svc, "SELECT token FROM tenancy.issue_extension_token($1, $2)", &[&USER, &ORG]);
    held.query_one(AUTHENTICATE, &[&token]).unwrap();
    drop(held);
    // Another service's, by the same key, is that service's to end.
    let elsewhere = Token::for_user(USER)
        .header("kid", "k1")
        .claim("iss", crate::world::ISSUER)
        .claim("aud", crate::world::AUDIENCE)
        .claim("type", "extension_long_lived");
    for jti in ["7", "0f3b5b52-9c4e-4d5f-8a51-7d1a6ff2f6b1"] {
        let token = elsewhere.clone().claim("jti", jti).sign_with(crate::world::SECRET);
        assert_eq!(text(&mut app, why, &[&token]), "good");
    }
}
