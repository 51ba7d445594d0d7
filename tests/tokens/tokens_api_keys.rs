//! API keys: their form, roles, rotation, revocation, and the identity they give.

use crate::common::{Cluster, Database, Options, Token, refused};
use crate::world::{ORG, OTHER, USER, furnish, row, text, world};
use postgres::Client;
use serde_json::Value;

fn create(client: &mut Client, role: &str) -> (String, uuid::Uuid) {
    let row = row(client, "SELECT api_key, key_id FROM tenancy.create_api_key($1, role => $2)", &[&ORG, &role]);
    (row.get(0), row.get(1))
}

const AUTHENTICATE: &str = "SELECT tenancy.authenticate_api_key($1)";

/// Runs a statement under an API key, as an application, and rolls back.
fn under<T>(client: &mut Client, key: &str, work: impl FnOnce(&mut postgres::Transaction) -> T) -> T {
    let mut transaction = client.transaction().unwrap();
    transaction.query_one(AUTHENTICATE, &[&key]).unwrap();
    work(&mut transaction)
}

#[test]
fn a_key_gives_an_identity_with_its_role_s_permissions() {
    let database = world();
    let mut client = database.superuser();
    let mut app = database.connect("app");
    for (role, permissions) in [
        ("viewer", vec!["read_config"]),
        ("operator", vec!["read_config", "manage_modules"]),
        ("admin", vec!["read_config", "manage_modules", "write_config", "manage_keys", "read_audit"]),
        ("owner", vec!["read_config", "manage_modules", "write_config", "manage_keys", "read_audit", "anything"]),
    ] {
        let (key, id) = create(&mut client, role);
        assert!(key.starts_with("pgt_") && key.len() == 51, "{role}");
        let identity: Value = under(&mut app, &key, |transaction| {
            for permission in ["read_config", "manage_modules", "write_config", "manage_keys", "read_audit", "anything"]
            {
                let has: bool =
                    transaction.query_one("SELECT tenancy.has_permission($1)", &[&permission]).unwrap().get(0);
                assert_eq!(has, permissions.contains(&permission), "{role} {permission}");
            }
            transaction.query_one("SELECT to_jsonb(tenancy.identity())", &[]).unwrap().get(0)
        });
        assert_eq!(identity["user_id"], id.to_string());
        assert_eq!((identity["org_id"].as_str(), identity["tenant_id"].as_str()), (Some(ORG), Some(ORG)));
        assert_eq!((identity["org_role"].as_str(), identity["source"].as_str()), (Some(role), Some("api_key")));
        assert_eq!((identity["pool"].as_str(), identity["expires_at"].is_null()), (Some("organization"), true));
        assert!(identity["organization_id"].is_string());
    }
    // On behalf of a user: whose seat counts.
    let key = text(&mut client, "SELECT api_key FROM tenancy.create_api_key($1, $2)", &[&ORG, &USER]);
    let seat: Option<uuid::Uuid> = under(&mut app, &key, |transaction| {
        assert_eq!(transaction.query_one("SELECT tenancy.user_id()", &[]).unwrap().get::<_, &str>(0), USER);
        transaction.query_one("SELECT tenancy.seat_id()", &[]).unwrap().get(0)
    });
    assert!(seat.is_some());
    client.query("SELECT tenancy.revoke_user($1)", &[&USER]).unwrap();
    refused(app.query(AUTHENTICATE, &[&key]), "PT401", "invalid_api_key");
}

/// A key is one organization's, with one role, until it is revoked. Its user's tokens are none of these.
#[test]
fn a_key_issues_lists_and_revokes_no_tokens_of_its_user() {
    let database = world();
    let mut client = database.superuser();
    client
        .query("SELECT tenancy.add_signing_profile('other', 'https://other.test', 'app', 'EdDSA', 'o1')", &[])
        .unwrap();
    let token: uuid::Uuid = row(&mut client, "SELECT token_id FROM tenancy.issue_extension_token($1)", &[&USER]).get(0);
    let refresh = crate::tokens_authorization::authorize(&mut client, USER, Some(ORG)).refresh;
    let mut app = database.connect("app");
    let statements = [
        format!("SELECT tenancy.issue_access_token('{USER}')"),
        format!("SELECT tenancy.issue_access_token('{USER}', '{ORG}', profile => 'other')"),
        format!("SELECT tenancy.issue_access_token('{OTHER}')"),
        format!("SELECT tenancy.issue_dashboard_token('{USER}', '{ORG}')"),
        format!("SELECT tenancy.issue_extension_token('{USER}', '{ORG}')"),
        format!("SELECT tenancy.start_authorization('{USER}', '{0}', '{0}', 'x:y')", "a".repeat(43)),
        format!("SELECT tenancy.list_extension_tokens('{USER}')"),
        format!("SELECT tenancy.revoke_extension_token('{token}')"),
    ];
    for role in ["viewer", "owner"] {
        let create = "SELECT api_key FROM tenancy.create_api_key($1, $2, $3)";
        let key = text(&mut client, create, &[&ORG, &USER, &role]);
        for statement in &statements {
            under(&mut app, &key, |transaction| {
                refused(transaction.query(statement, &[]), "PT403", "api_key_identity");
            });
        }
        // What shows a secret of its own goes by that one; and a role with service access says for whom it acts.
        under(&mut app, &key, |transaction| {
            let refreshed = transaction.query_one("SELECT status FROM tenancy.refresh_access_token($1)", &[&refresh]);
            assert_eq!(refreshed.unwrap().get::<_, &str>(0), "refreshed");
        });
        under(&mut database.connect("svc"), &key, |transaction| {
            for statement in &statements {
                transaction.query(statement, &[]).unwrap();
            }
        });
    }
}

#[test]
fn what_is_no_key_has_one_answer() {
    let database = world();
    let mut client = database.superuser();
    let mut app = database.connect("app");
    let (key, id) = create(&mut client, "viewer");
    for nothing in [None, Some("")] {
        refused(app.query(AUTHENTICATE, &[&nothing]), "PT401", "missing_api_key");
    }
    let other = {
        let mut letters: Vec<char> = key.chars().collect();
        letters[20] = if letters[20] == 'A' { 'B' } else { 'A' };
        letters.into_iter().collect::<String>()
    };
    let well_formed = {
        let body = &other[..47];
        let sum = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, body.as_bytes());
        format!("{body}{}", crate::common::base64url(&sum.as_ref()[..3]))
    };
    for wrong in [
        other.as_str(),
        &well_formed,
        &key[..50],
        "pgt_",
        &key.to_uppercase(),
        &format!(" {key}"),
        &id.to_string(),
        "é",
    ] {
        let error = refused(app.query(AUTHENTICATE, &[&wrong]), "PT401", "invalid_api_key");
        assert_eq!(error.message(), "Invalid API key");
    }
    client.query("SELECT tenancy.revoke_api_key($1)", &[&id]).unwrap();
    refused(app.query(AUTHENTICATE, &[&key]), "PT401", "invalid_api_key");
    // The server's log tells apart what the caller is not told.
    let log = database.cluster().log();
    for cause in
        ["\"malformed\",\"key_id\":null", "\"unknown\",\"key_id\":null", &format!("\"revoked\",\"key_id\":\"{id}\"")]
    {
        assert!(log.contains(&format!("API key refused {{\"reason\":{cause}")), "{cause}");
    }
    client.query("SELECT tenancy.set_tenant_status($1, 'suspended')", &[&ORG]).unwrap();
    let (key, _) = create(&mut client, "viewer");
    refused(app.query(AUTHENTICATE, &[&key]), "PT403", "tenant_suspended");
}

#[test]
fn a_rotated_key_ends_with_its_grace() {
    let database = world();
    let mut client = database.superuser();
    let mut app = database.connect("app");
    let (old, id) = create(&mut client, "operator");
    let rotate = "SELECT api_key, old_valid_until > now() + interval '6 days 23 hours' FROM tenancy.rotate_api_key($1)";
    let rotated = row(&mut client, rotate, &[&id]);
    let new: String = rotated.get(0);
    assert!(rotated.get::<_, bool>(1));
    for key in [&old, &new] {
        assert_eq!(
            under(&mut app, key, |t| t.query_one("SELECT tenancy.org_role()", &[]).unwrap().get::<_, String>(0)),
            "operator"
        );
    }
    let ends: bool =
        under(&mut app, &old, |t| t.query_one("SELECT tenancy.expires_at() IS NOT NULL", &[]).unwrap().get(0));
    assert!(ends, "the identity of an old key ends with the grace");
    refused(client.query(rotate, &[&id]), "PT422", "not_active");
    client.execute("UPDATE tenancy.api_keys SET valid_until = now() WHERE id = $1", &[&id]).unwrap();
    refused(app.query(AUTHENTICATE, &[&old]), "PT401", "invalid_api_key");
    under(&mut app, &new, |_| ());

    let shown = client.query("SELECT prefix, to_jsonb(k)::text FROM tenancy.list_api_keys($1) AS k", &[&ORG]).unwrap();
    assert_eq!(shown.len(), 1, "lapsed keys are not listed");
    assert_eq!(shown[0].get::<_, &str>(0), &new[..12]);
    assert!(!shown[0].get::<_, String>(1).contains("hash"));
    let (now, id) = create(&mut client, "viewer");
    client.query("SELECT tenancy.rotate_api_key($1, grace => '0')", &[&id]).unwrap();
    refused(app.query(AUTHENTICATE, &[&now]), "PT401", "invalid_api_key");
    for grace in ["-1 s", "91 days"] {
        refused(
            client.query(&format!("SELECT tenancy.rotate_api_key($1, '{grace}')"), &[&id]),
            "22023",
            "invalid_argument",
        );
    }
}

#[test]
fn keys_are_managed_within_their_organization_and_up_to_one_s_own_role() {
    let database = world();
    let mut client = database.superuser();
    client.query("SELECT tenancy.register_organization('org_b', 'B')", &[]).unwrap();
    let foreign: uuid::Uuid = row(&mut client, "SELECT key_id FROM tenancy.create_api_key('org_b')", &[]).get(0);
    let mut app = database.connect("app");
    refused(app.query("SELECT tenancy.create_api_key($1)", &[&ORG]), "PT401", "not_authenticated");
    refused(app.query("SELECT tenancy.list_api_keys($1)", &[&ORG]), "PT401", "not_authenticated");

    let (viewer, viewer_id) = create(&mut client, "viewer");
    let (admin, _) = create(&mut client, "admin");
    let (owner, owner_id) = create(&mut client, "owner");
    for statement in [
        format!("SELECT tenancy.create_api_key('{ORG}')"),
        format!("SELECT tenancy.list_api_keys('{ORG}')"),
        format!("SELECT tenancy.revoke_api_key('{viewer_id}')"),
    ] {
        under(&mut app, &viewer, |t| refused(t.query(&statement, &[]), "PT403", "permission_denied"));
    }
    for (statement, reason) in [
        (format!("SELECT tenancy.create_api_key('{ORG}', role => 'owner')"), "permission_denied"),
        (format!("SELECT tenancy.rotate_api_key('{owner_id}')"), "permission_denied"),
        (format!("SELECT tenancy.revoke_api_key('{owner_id}')"), "permission_denied"),
        (format!("SELECT tenancy.create_api_key('{ORG}', '{USER}')"), "another_user"),
        ("SELECT tenancy.create_api_key('org_b')".into(), "another_organization"),
        ("SELECT tenancy.list_api_keys('org_b')".into(), "another_organization"),
    ] {
        under(&mut app, &admin, |t| refused(t.query(&statement, &[]), "PT403", reason));
    }
    for key in [&admin, &owner] {
        for verb in ["rotate", "revoke"] {
            let statement = format!("SELECT tenancy.{verb}_api_key($1)");
            under(&mut app, key, |t| refused(t.query(&statement, &[&foreign]), "PT404", "api_key_not_found"));
        }
    }
    under(&mut app, &owner, |t| t.query("SELECT tenancy.create_api_key($1, role => 'owner')", &[&ORG]).unwrap());
    under(&mut app, &admin, |t| {
        t.query("SELECT tenancy.create_api_key($1, role => 'admin')", &[&ORG]).unwrap();
        assert!(t.query_one("SELECT tenancy.revoke_api_key($1)", &[&viewer_id]).unwrap().get::<_, bool>(0));
        assert!(!t.query_one("SELECT tenancy.revoke_api_key($1)", &[&viewer_id]).unwrap().get::<_, bool>(0));
    });
    // A provider's token that carries the permission does as well.
    let token = Token::for_member(USER, ORG).claim("permissions", vec!["manage_keys", "read_config"]).sign();
    let mut transaction = app.transaction().unwrap();
    transaction.query_one("SELECT tenancy.authenticate($1)", &[&token]).unwrap();
    transaction.query("SELECT tenancy.create_api_key($1, $2)", &[&ORG, &USER]).unwrap();
    refused(
        transaction.query("SELECT tenancy.create_api_key($1, role => 'admin')", &[&ORG]),
        "PT403",
        "permission_denied",
    );
    drop(transaction);
    for (statement, reason) in [
        ("SELECT tenancy.create_api_key('nowhere')", "organization_not_found"),
        ("SELECT tenancy.revoke_api_key(tenancy.uuid_v7())", "api_key_not_found"),
    ] {
        refused(client.query(statement, &[]), "PT404", reason);
    }
    refused(client.query("SELECT tenancy.create_api_key($1, role => 'root')", &[&ORG]), "22023", "invalid_argument");
    refused(client.query("SELECT tenancy.create_api_key($1, 'a::b')", &[&ORG]), "22023", "invalid_argument");
    assert_ne!(USER, OTHER);
}

#[test]
fn a_key_authenticates_read_only_and_its_use_is_noted_where_it_can_be() {
    let database = world();
    let mut client = database.superuser();
    let (key, _) = create(&mut client, "viewer");
    let mut app = database.connect("app");
    let noted = "SELECT coalesce(last_used_at::text, 'never') FROM tenancy.api_keys";
    for (isolation, read_only) in [("READ COMMITTED", true), ("REPEATABLE READ", false), ("SERIALIZABLE", true)] {
        let mut transaction = app.transaction().unwrap();
        let only = if read_only { "READ ONLY" } else { "READ WRITE" };
        transaction.batch_execute(&format!("SET TRANSACTION ISOLATION LEVEL {isolation} {only}")).unwrap();
        transaction.query_one(AUTHENTICATE, &[&key]).unwrap();
        assert_eq!(transaction.query_one("SELECT tenancy.tenant_id()", &[]).unwrap().get::<_, &str>(0), ORG);
        transaction.commit().unwrap();
        assert_eq!(text(&mut client, noted, &[]), "never");
    }
    let mut transaction = app.transaction().unwrap();
    transaction.query_one(AUTHENTICATE, &[&key]).unwrap();
    // The same key again is a no-op; another is refused; a second session does not wait for the first.
    transaction.query_one(AUTHENTICATE, &[&key]).unwrap();
    under(&mut database.connect("app"), &key, |_| ());
    let (other, _) = create(&mut client, "admin");
    refused(transaction.query(AUTHENTICATE, &[&other]), "PT403", "identity_already_set");
    drop(transaction);
    assert_eq!(
        text(&mut client, "SELECT coalesce(max(last_used_at)::text, 'never') FROM tenancy.api_keys", &[]),
        "never"
    );
    let mut transaction = app.transaction().unwrap();
    transaction.query_one(AUTHENTICATE, &[&key]).unwrap();
    transaction.commit().unwrap();
    let first = text(&mut client, "SELECT max(last_used_at)::text FROM tenancy.api_keys", &[]);
    let mut transaction = app.transaction().unwrap();
    transaction.query_one(AUTHENTICATE, &[&key]).unwrap();
    transaction.commit().unwrap();
    assert_eq!(text(&mut client, "SELECT max(last_used_at)::text FROM tenancy.api_keys", &[]), first);
}

/// In recovery nothing can be written: authentication must not try.
#[test]
fn a_key_authenticates_on_a_standby() {
    let own = Cluster::start(Options { settings: vec![("hot_standby", "on".into())], ..Options::default() });
    let database: Database = own.database();
    let mut client = database.superuser();
    furnish(&mut client);
    let (key, _) = create(&mut client, "admin");
    let token = text(&mut client, "SELECT token FROM tenancy.issue_extension_token($1, $2)", &[&USER, &ORG]);
    drop(client);
    own.stop();
    // A server that recovers and never ends recovering is a standby without a primary.
    std::fs::write(own.data().join("standby.signal"), "").unwrap();
    own.resume();
    let mut app = database.connect("app");
    assert!(row(&mut app, "SELECT pg_is_in_recovery()", &[]).get::<_, bool>(0));
    let permitted: bool = under(&mut app, &key, |t| {
        t.query_one("SELECT tenancy.has_permission('write_config') AND tenancy.tenant_id() = $1", &[&ORG])
            .unwrap()
            .get(0)
    });
    assert!(permitted);
    let mut transaction = app.transaction().unwrap();
    transaction.query_one("SELECT tenancy.authenticate($1)", &[&token]).unwrap();
    drop(transaction);
    row(&mut app, "SELECT tenancy.jwks()", &[]);
}
