//! What was issued on the strength of something ends with it: under every issuer that signs, and however it ended.

use crate::common::{Token, refused};
use crate::tokens_authorization::{authorize, complete_started, start_for};
use crate::tokens_lasting::begin;
use crate::world::{AUDIENCE, ISSUER, ORG, SECRET, USER, reason, row, text, world};
use postgres::Client;

const ISSUE: &str = "SELECT tenancy.issue_access_token($1, $2, profile => $3)";
const REVOKE: &str = "SELECT tenancy.revoke_extension_token($1)";
const REFRESH: &str = "SELECT new_token, token_id FROM tenancy.refresh_extension_token($1)";

/// A signing profile under an issuer of its own, or moved to it.
fn profile(client: &mut Client, name: &str, issuer: &str, key_id: &str) {
    let add = "SELECT tenancy.add_signing_profile($1, $2, $3, 'HS256', $4, $5)";
    client.query(add, &[&name, &issuer, &AUDIENCE, &key_id, &SECRET]).unwrap();
}

/// A long-lived token, by a service, and its id.
fn extension(svc: &mut Client) -> (String, uuid::Uuid) {
    let row = row(svc, "SELECT token, token_id FROM tenancy.issue_extension_token($1, $2)", &[&USER, &ORG]);
    (row.get(0), row.get(1))
}

/// An access token that the bearer of another is given, as an application.
fn renewed(app: &mut Client, token: &str, profile: &str) -> String {
    let mut transaction = begin(app, token);
    let renewed = transaction.query_one(ISSUE, &[&USER, &ORG, &profile]).unwrap().get(0);
    transaction.commit().unwrap();
    renewed
}

#[test]
fn a_session_ends_under_every_issuer_that_signs() {
    let database = world();
    let (mut ops, mut svc, mut app) = (database.superuser(), database.connect("svc"), database.connect("app"));
    profile(&mut ops, "second", "https://second.test", "k2");

    let (token, id) = extension(&mut svc);
    let elsewhere = renewed(&mut app, &token, "second");
    let again = renewed(&mut app, &elsewhere, "second");
    svc.query(REVOKE, &[&id]).unwrap();
    for token in [&token, &elsewhere, &again] {
        assert_eq!(reason(&mut app, token).as_deref(), Some("revoked"));
    }
    let pair = authorize(&mut svc, USER, Some(ORG));
    let elsewhere = renewed(&mut app, &pair.access, "second");
    assert!(row(&mut app, "SELECT tenancy.revoke_refresh_token($1)", &[&pair.refresh]).get::<_, bool>(0));
    for token in [&pair.access, &elsewhere] {
        assert_eq!(reason(&mut app, token).as_deref(), Some("revoked"));
    }
    // Under an issuer that its profile has left, too.
    let (token, id) = extension(&mut svc);
    let access = renewed(&mut app, &token, "default");
    profile(&mut ops, "default", "https://third.test", "k3");
    svc.query(REVOKE, &[&id]).unwrap();
    for token in [&token, &access] {
        assert_eq!(reason(&mut app, token).as_deref(), Some("revoked"));
    }
}

/// Renews nothing under any profile, and is no sign-in.
fn gives_nothing(app: &mut Client, token: &str) {
    for statement in [
        format!("SELECT tenancy.issue_access_token('{USER}', '{ORG}')"),
        format!("SELECT tenancy.issue_access_token('{USER}', profile => 'second')"),
        format!("SELECT tenancy.issue_dashboard_token('{USER}', '{ORG}')"),
    ] {
        refused(begin(app, token).query(&statement, &[]), "PT403", "extension_token_ended");
    }
    is_no_sign_in(app, token);
}

/// Neither a further extension token nor a code.
fn is_no_sign_in(app: &mut Client, token: &str) {
    for statement in [
        format!("SELECT tenancy.issue_extension_token('{USER}', '{ORG}')"),
        format!("SELECT tenancy.start_authorization('{USER}', '{0}', '{0}', 'x:y')", "a".repeat(43)),
    ] {
        refused(begin(app, token).query(&statement, &[]), "PT403", "extension_token_identity");
    }
}

#[test]
fn what_an_extension_token_issued_is_not_renewed_beyond_it() {
    for end in ["expired", "removed", "refreshed"] {
        let database = world();
        let (mut ops, mut svc, mut app) = (database.superuser(), database.connect("svc"), database.connect("app"));
        profile(&mut ops, "second", "https://second.test", "k2");
        let (token, id) = extension(&mut svc);
        let access = renewed(&mut app, &token, "default");
        let second = renewed(&mut app, &access, "second");
        let second = renewed(&mut app, &second, "second");
        // A token of 0.1.0 says nothing of where it came from; its session does, as long as there is the row.
        let old = Token::for_member(USER, ORG)
            .header("kid", "k1")
            .claim("iss", ISSUER)
            .claim("aud", AUDIENCE)
            .claim("type", "access")
            .claim("session_id", id.to_string())
            .sign_with(SECRET);
        for token in [&access, &second, &old] {
            is_no_sign_in(&mut app, token);
        }
        let mut other = database.connect("app");
        let mut held = other.transaction().unwrap();
        held.batch_execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ").unwrap();
        held.query_one("SELECT tenancy.authenticate($1)", &[&access]).unwrap();
        let mut tokens = vec![&access, &second];
        match end {
            "expired" => {
                ops.batch_execute("UPDATE tenancy.extension_tokens SET expires_at = now() - interval '1 s'").unwrap();
                tokens.push(&old);
            }
            "removed" => {
                ops.batch_execute(
                    "UPDATE tenancy.extension_tokens SET expires_at = now() - interval '25 hours';
                     SELECT tenancy.clean_up_tokens()",
                )
                .unwrap();
            }
            _ => {
                ops.batch_execute("UPDATE tenancy.extension_tokens SET expires_at = now() + interval '29 days'")
                    .unwrap();
                let next: uuid::Uuid = row(&mut svc, REFRESH, &[&token]).get(1);
                svc.query(REVOKE, &[&next]).unwrap();
                tokens.push(&old);
            }
        }
        // By what is committed now.
        refused(held.query(ISSUE, &[&USER, &ORG, &"default"]), "PT403", "extension_token_ended");
        drop(held);
        for token in tokens {
            gives_nothing(&mut app, token);
        }
        if end == "refreshed" {
            // The day that is left to what it issued can be taken from it still.
            assert!(!row(&mut svc, REVOKE, &[&id]).get::<_, bool>(0));
            for token in [&access, &second, &old] {
                assert_eq!(reason(&mut app, token).as_deref(), Some("revoked"));
            }
        }
    }
}

#[test]
fn the_origin_of_a_token_stands_in_it_and_nobody_names_another() {
    let database = world();
    let (mut ops, mut svc, mut app) = (database.superuser(), database.connect("svc"), database.connect("app"));
    let (token, id) = extension(&mut svc);
    let access = renewed(&mut app, &token, "default");
    let claims = crate::peers::decode(access.split('.').nth(1).unwrap());
    assert_eq!(claims["extension_token_id"], id.to_string());
    let signed_in = text(&mut svc, "SELECT tenancy.issue_access_token($1, $2)", &[&USER, &ORG]);
    assert!(crate::peers::decode(signed_in.split('.').nth(1).unwrap()).get("extension_token_id").is_none());
    let extra = serde_json::json!({"extension_token_id": id.to_string()});
    for client in [&mut svc, &mut ops] {
        let issue = "SELECT tenancy.issue_access_token($1, extra => $2)";
        refused(client.query(issue, &[&USER, &extra]), "22023", "reserved_claim");
    }
    // It counts where the issuer's claim_paths look for the session elsewhere, too.
    ops.batch_execute(
        r#"UPDATE tenancy.issuers SET claim_paths = '{"session": ["elsewhere"]}' WHERE issuer = 'softcodes.ai';
           SELECT tenancy._changed('issuers')"#,
    )
    .unwrap();
    is_no_sign_in(&mut app, &access);
    is_no_sign_in(&mut app, &token);
    // A service that asks on the strength of such a token renews it as little as its bearer does.
    ops.batch_execute("UPDATE tenancy.extension_tokens SET expires_at = now() - interval '1 s'").unwrap();
    let issue = "SELECT tenancy.issue_access_token($1)";
    refused(begin(&mut svc, &access).query(issue, &[&USER]), "PT403", "extension_token_ended");
    svc.query(issue, &[&USER]).unwrap();
}

#[test]
fn an_extension_token_makes_no_key() {
    let database = world();
    let (mut ops, mut svc, mut app) = (database.superuser(), database.connect("svc"), database.connect("app"));
    ops.query("SELECT tenancy.set_membership($1, $2, 'owner')", &[&USER, &ORG]).unwrap();
    let id: uuid::Uuid = row(&mut ops, "SELECT key_id FROM tenancy.create_api_key($1)", &[&ORG]).get(0);
    let (token, _) = extension(&mut svc);
    let access = renewed(&mut app, &token, "default");
    let create = format!("SELECT tenancy.create_api_key('{ORG}')");
    let rotate = format!("SELECT tenancy.rotate_api_key('{id}')");
    for statement in [&create, &rotate] {
        for token in [&token, &access] {
            refused(begin(&mut app, token).query(statement, &[]), "PT403", "extension_token_identity");
            for role in ["svc", "ops"] {
                begin(&mut database.connect(role), token).query(statement, &[]).unwrap();
            }
        }
    }
    let signed_in = text(&mut svc, "SELECT tenancy.issue_access_token($1, $2)", &[&USER, &ORG]);
    begin(&mut app, &signed_in).query(&create, &[]).unwrap();
}

#[test]
fn nothing_is_refreshed_into_another_namespace() {
    let database = world();
    let (mut ops, mut svc) = (database.superuser(), database.connect("svc"));
    let (pair, used) = (authorize(&mut svc, USER, Some(ORG)), authorize(&mut svc, USER, None));
    let (code, (token, _)) = (start_for(&mut svc, USER, Some(ORG)), extension(&mut svc));
    let refresh = "SELECT status FROM tenancy.refresh_access_token($1)";
    ops.batch_execute("UPDATE tenancy.extension_tokens SET expires_at = now() + interval '29 days'").unwrap();
    // Somebody else who is called the same there.
    ops.query("SELECT tenancy.register_user($1, namespace => 'other')", &[&USER]).unwrap();
    let add = "SELECT tenancy.add_issuer('https://other.test', ARRAY[$1], 'pooled', namespace => 'other')";
    ops.query(add, &[&AUDIENCE]).unwrap();
    assert_eq!(text(&mut svc, refresh, &[&used.refresh]), "refreshed");
    profile(&mut ops, "default", "https://other.test", "k2");

    for token in [&pair.refresh, &used.refresh] {
        refused(svc.query(refresh, &[token]), "55000", "profile_moved");
    }
    refused(svc.query(REFRESH, &[&token]), "55000", "profile_moved");
    let complete = "SELECT tenancy.complete_authorization($1, 'dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk',
                                                          'a state of the client''s own', 'vscode://acme.editor/callback')";
    refused(svc.query(complete, &[&code]), "55000", "profile_moved");

    // Back where it was, everything goes on.
    profile(&mut ops, "default", ISSUER, "k3");
    assert_eq!(text(&mut svc, refresh, &[&pair.refresh]), "refreshed");
    svc.query(REFRESH, &[&token]).unwrap();
    assert_eq!(complete_started(&mut svc.transaction().unwrap(), &code), "issued");
}
