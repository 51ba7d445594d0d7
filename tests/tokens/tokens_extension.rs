//! Long-lived tokens: limits, validation, refresh, revocation.

use crate::common::{Token, in_parallel, refused};
use crate::world::{ORG, OTHER, SECRET, USER, audit, claims, reason, row, text, world};
use postgres::{Client, IsolationLevel};
use serde_json::json;

fn issue(client: &mut Client, user: &str) -> (String, uuid::Uuid) {
    let row = row(client, "SELECT token, token_id FROM tenancy.issue_extension_token($1, $2)", &[&user, &ORG]);
    (row.get(0), row.get(1))
}

const ISSUE: &str = "SELECT token FROM tenancy.issue_extension_token($1)";
const VALIDATE: &str = "SELECT user_id FROM tenancy.validate_extension_token($1)";
const REFRESH: &str = "SELECT new_token FROM tenancy.refresh_extension_token($1)";

#[test]
fn five_are_active_and_five_are_generated_an_hour() {
    let database = world();
    let mut client = database.superuser();
    let first = issue(&mut client, USER).1;
    for _ in 1..5 {
        issue(&mut client, USER);
    }
    refused(client.query(ISSUE, &[&USER]), "PT409", "TOKEN_LIMIT_EXCEEDED");
    issue(&mut client, OTHER);
    assert!(row(&mut client, "SELECT tenancy.revoke_extension_token($1)", &[&first]).get::<_, bool>(0));
    let error = refused(client.query(ISSUE, &[&USER]), "PT429", "RATE_LIMIT_EXCEEDED");
    let after =
        serde_json::from_str::<serde_json::Value>(error.detail().unwrap()).unwrap()["retry_after"].as_i64().unwrap();
    assert!((1..=3600).contains(&after), "{after}");
}

/// Two sessions cannot both take the last place.
#[test]
fn a_race_for_the_fifth_place_has_one_winner() {
    let database = world();
    let mut client = database.superuser();
    for _ in 0..4 {
        issue(&mut client, USER);
    }
    let outcomes = in_parallel(8, |_| database.connect("svc").query(ISSUE, &[&USER]).is_ok());
    assert_eq!(outcomes.iter().filter(|won| **won).count(), 1);
    let active = "SELECT count(*)::text FROM tenancy.extension_tokens WHERE revoked_at IS NULL";
    assert_eq!(text(&mut client, active, &[]), "5");
}

/// Nor can one whose snapshot is older than the other's commit.
#[test]
fn a_snapshot_from_before_the_fifth_counts_no_sixth() {
    let database = world();
    let mut client = database.superuser();
    let (token, _) = issue(&mut client, USER);
    // Older ones, so that the limit of an hour has nothing to say.
    let copies = "INSERT INTO tenancy.extension_tokens (id, token_hash, tenant_id, namespace, user_id, profile, created_at, expires_at)
                  SELECT tenancy.uuid_v7(), sha256(convert_to(n::text, 'UTF8')), tenant_id, namespace, user_id, profile,
                         now() - interval '2 hours', expires_at
                    FROM tenancy.extension_tokens, generate_series(1, 3) AS n";
    client.batch_execute(copies).unwrap();
    let mut svc = database.connect("svc");
    let refused_late = |svc: &mut Client, client: &mut Client, statement: &str, argument: &str| {
        let mut late = svc.build_transaction().isolation_level(IsolationLevel::RepeatableRead).start().unwrap();
        late.query("SELECT tenancy.list_extension_tokens($1)", &[&USER]).unwrap();
        issue(client, USER);
        assert_eq!(late.query(statement, &[&argument]).unwrap_err().code().unwrap().code(), "40001", "{statement}");
    };
    refused_late(&mut svc, &mut client, ISSUE, USER);
    client
        .batch_execute("UPDATE tenancy.extension_tokens SET revoked_at = now(), revoked_reason = 'old' WHERE created_at < now() - interval '1 hour';
                        UPDATE tenancy.extension_tokens SET expires_at = now() + interval '29 days'")
        .unwrap();
    refused_late(&mut svc, &mut client, REFRESH, &token);
}

/// Whoever took it for what it opens keeps nothing.
#[test]
fn what_was_issued_on_the_strength_of_a_token_ends_with_its_revocation() {
    let database = world();
    let mut client = database.superuser();
    let mut app = database.connect("app");
    let (token, id) = issue(&mut client, USER);
    let mut issued = vec![token];
    for function in ["issue_access_token", "issue_dashboard_token"] {
        let mut transaction = app.transaction().unwrap();
        transaction.query_one("SELECT tenancy.authenticate($1)", &[issued.last().unwrap()]).unwrap();
        let next = transaction.query_one(&format!("SELECT tenancy.{function}($1, $2)"), &[&USER, &ORG]).unwrap().get(0);
        transaction.commit().unwrap();
        issued.push(next);
    }
    assert!(issued.iter().all(|token| reason(&mut client, token).is_none()));
    client.query("SELECT tenancy.revoke_extension_token($1)", &[&id]).unwrap();
    for token in issued {
        assert_eq!(reason(&mut client, &token).unwrap(), "revoked");
    }
}

#[test]
fn validation_tells_what_the_contract_tells() {
    let database = world();
    let mut client = database.superuser();
    let (token, id) = issue(&mut client, USER);
    let mut app = database.connect("app");
    let valid = row(
        &mut app,
        "SELECT token_id, user_id, org_id, days_left, expires_soon, expires_critical FROM tenancy.validate_extension_token($1)",
        &[&token],
    );
    assert_eq!((valid.get::<_, uuid::Uuid>(0), valid.get::<_, &str>(1), valid.get::<_, &str>(2)), (id, USER, ORG));
    assert_eq!((valid.get::<_, i32>(3), valid.get::<_, bool>(4), valid.get::<_, bool>(5)), (119, false, false));
    for (left, soon, critical) in [
        ("31 days", false, false),
        ("30 days", true, false),
        ("8 days", true, false),
        ("7 days", true, true),
        ("1 hour", true, true),
    ] {
        client
            .execute(&format!("UPDATE tenancy.extension_tokens SET expires_at = now() + interval '{left}'"), &[])
            .unwrap();
        let valid =
            row(&mut app, "SELECT expires_soon, expires_critical FROM tenancy.validate_extension_token($1)", &[&token]);
        assert_eq!((valid.get::<_, bool>(0), valid.get::<_, bool>(1)), (soon, critical), "{left}");
    }
    client.batch_execute("UPDATE tenancy.extension_tokens SET expires_at = now() + interval '120 days'").unwrap();

    let product = |claim: Option<(&str, serde_json::Value)>| {
        let token = Token::for_user(USER)
            .header("kid", "k1")
            .claim("iss", crate::world::ISSUER)
            .claim("aud", crate::world::AUDIENCE)
            .claim("type", "extension_long_lived");
        claim.into_iter().fold(token, |token, (name, value)| token.claim(name, value)).sign_with(SECRET)
    };
    let access = text(&mut client, "SELECT tenancy.issue_access_token($1)", &[&USER]);
    // The signature's first letter: the last one has bits that must be zero, so that some letters are no signature at all.
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let tampered = format!("{signed}.{}{}", if signature.starts_with('A') { 'B' } else { 'A' }, &signature[1..]);
    for (token, state, what) in [
        (Some(""), "PT401", "MISSING_AUTH_HEADER"),
        (None, "PT401", "MISSING_AUTH_HEADER"),
        (Some("garbage"), "PT401", "INVALID_TOKEN"),
        (Some(tampered.as_str()), "PT401", "INVALID_TOKEN"),
        (Some(Token::for_user(USER).sign().as_str()), "PT401", "INVALID_TOKEN_TYPE"),
        (Some(access.as_str()), "PT401", "INVALID_TOKEN_TYPE"),
        (Some(product(Some(("type", json!("refresh")))).as_str()), "PT401", "INVALID_TOKEN_TYPE"),
        (Some(product(Some(("exp", json!(1_000_000_000)))).as_str()), "PT401", "TOKEN_EXPIRED"),
        (Some(product(Some(("sub", json!("nobody")))).as_str()), "PT404", "USER_NOT_FOUND"),
        // Signed with our key, and never issued: a database restored from before, or a stolen key.
        (Some(product(None).as_str()), "PT401", "TOKEN_REVOKED_OR_INVALID"),
    ] {
        refused(app.query(VALIDATE, &[&token]), state, what);
    }
    refused(app.query(REFRESH, &[&product(None)]), "PT404", "NO_ACTIVE_TOKEN");
    client.query("SELECT tenancy.revoke_extension_token($1)", &[&id]).unwrap();
    refused(app.query(VALIDATE, &[&token]), "PT401", "TOKEN_REVOKED_OR_INVALID");
    refused(app.query(REFRESH, &[&token]), "PT404", "NO_ACTIVE_TOKEN");
    refused(app.query("SELECT tenancy.authenticate($1)", &[&token]), "PT401", "revoked");
    // The server's log tells apart what the caller is not told.
    let log = database.cluster().log();
    for cause in ["unknown, token id unknown", &format!("revoked, token id {id}"), "invalid_signature"] {
        assert!(log.contains(&format!("extension token refused: {cause}")), "{cause}");
    }
}

#[test]
fn last_used_at_is_noted_once_a_minute() {
    let database = world();
    let mut client = database.superuser();
    let (token, _) = issue(&mut client, USER);
    let mut app = database.connect("app");
    let noted = "SELECT coalesce(last_used_at::text, 'never') FROM tenancy.extension_tokens";
    let mut read_only = app.build_transaction().read_only(true).start().unwrap();
    read_only.query(VALIDATE, &[&token]).unwrap();
    read_only.commit().unwrap();
    assert_eq!(text(&mut client, noted, &[]), "never");
    app.query(VALIDATE, &[&token]).unwrap();
    let first = text(&mut client, noted, &[]);
    assert_ne!(first, "never");
    app.query(VALIDATE, &[&token]).unwrap();
    assert_eq!(text(&mut client, noted, &[]), first);
    client.batch_execute("UPDATE tenancy.extension_tokens SET last_used_at = now() - interval '61 s'").unwrap();
    let second = text(&mut client, noted, &[]);
    // A session that holds the row does not make anybody wait.
    let mut holder = client.transaction().unwrap();
    holder.query("SELECT FROM tenancy.extension_tokens FOR UPDATE", &[]).unwrap();
    app.query(VALIDATE, &[&token]).unwrap();
    holder.commit().unwrap();
    assert_eq!(text(&mut client, noted, &[]), second);
    app.query(VALIDATE, &[&token]).unwrap();
    assert_ne!(text(&mut client, noted, &[]), second);
    assert_eq!(audit(&mut client, "extension_token"), ["generated", "used"]);
}

#[test]
fn refresh_is_for_the_last_thirty_days_and_three_an_hour() {
    let database = world();
    let mut client = database.superuser();
    let device = "SELECT token FROM tenancy.issue_extension_token($1, $2, name => 'laptop', device => 'vim 9.1', address => '192.0.2.7')";
    let mut token = text(&mut client, device, &[&USER, &ORG]);
    refused(client.query(REFRESH, &[&token]), "PT422", "TOO_EARLY_TO_REFRESH");
    let late = "UPDATE tenancy.extension_tokens SET expires_at = now() + interval '30 days'";
    for _ in 0..3 {
        client.batch_execute(late).unwrap();
        let next = text(&mut database.connect("app"), REFRESH, &[&token]);
        refused(client.query(VALIDATE, &[&token]), "PT401", "TOKEN_REVOKED_OR_INVALID");
        assert_eq!(reason(&mut client, &token).unwrap(), "revoked");
        let (before, after) = (claims(&mut client, &next).unwrap(), USER);
        assert_eq!((before["sub"].as_str(), before["clerk_org_id"].as_str()), (Some(after), Some(ORG)));
        token = next;
    }
    client.batch_execute(late).unwrap();
    refused(client.query(REFRESH, &[&token]), "PT429", "RATE_LIMIT_EXCEEDED");
    client.query(VALIDATE, &[&token]).unwrap();
    let kept = "SELECT concat_ws(' ', name, tenancy._open_note(sealed_device, 'device', id),
                                 tenancy._open_note(sealed_address, 'address', id), refresh_count)
                  FROM tenancy.extension_tokens WHERE revoked_at IS NULL";
    assert_eq!(text(&mut client, kept, &[]), "laptop vim 9.1 192.0.2.7 3");
    client.batch_execute("UPDATE tenancy.extension_tokens SET expires_at = now()").unwrap();
    refused(client.query(REFRESH, &[&token]), "PT401", "TOKEN_EXPIRED");
}

#[test]
fn a_race_to_refresh_has_one_winner_and_nothing_half_done() {
    let database = world();
    let mut client = database.superuser();
    let (token, _) = issue(&mut client, USER);
    client.batch_execute("UPDATE tenancy.extension_tokens SET expires_at = now() + interval '29 days'").unwrap();
    let won = in_parallel(10, |_| database.connect("app").query(REFRESH, &[&token]).is_ok());
    assert_eq!(won.iter().filter(|won| **won).count(), 1);
    let counts = "SELECT count(*) FILTER (WHERE revoked_at IS NULL) || ' ' || count(*) FROM tenancy.extension_tokens";
    assert_eq!(text(&mut client, counts, &[]), "1 2");
    // Rolled back, nothing of it has happened.
    client.batch_execute("UPDATE tenancy.extension_tokens SET expires_at = now() + interval '29 days'").unwrap();
    let (token, _) = issue(&mut client, OTHER);
    client.batch_execute("UPDATE tenancy.extension_tokens SET expires_at = now() + interval '29 days'").unwrap();
    let mut transaction = client.transaction().unwrap();
    transaction.query(REFRESH, &[&token]).unwrap();
    transaction.rollback().unwrap();
    client.query(VALIDATE, &[&token]).unwrap();
}

#[test]
fn nobody_revokes_another_user_s_token() {
    let database = world();
    let mut client = database.superuser();
    let (_, id) = issue(&mut client, USER);
    let mut app = database.connect("app");
    let mut as_user = |user: &str| {
        let mut transaction = app.transaction().unwrap();
        transaction.query_one("SELECT tenancy.authenticate($1)", &[&Token::for_user(user).sign()]).unwrap();
        let revoked: bool = transaction.query_one("SELECT tenancy.revoke_extension_token($1)", &[&id]).unwrap().get(0);
        transaction.commit().unwrap();
        revoked
    };
    assert!(!as_user(OTHER));
    assert!(as_user(USER));
    assert!(!as_user(USER), "it is revoked already");
    assert!(!row(&mut database.connect("app"), "SELECT tenancy.revoke_extension_token($1)", &[&id]).get::<_, bool>(0));
    assert!(!row(&mut client, "SELECT tenancy.revoke_extension_token(tenancy.uuid_v7())", &[]).get::<_, bool>(0));
    refused(client.query("SELECT tenancy.revoke_extension_token(NULL)", &[]), "22023", "invalid_argument");
    assert_eq!(
        audit(&mut client, "extension_token"),
        ["generated", "refused another_user", "revoked revoked", "refused another_user"]
    );
}

#[test]
fn a_user_sees_the_own_live_tokens_and_no_others() {
    let database = world();
    let mut client = database.superuser();
    let device = "SELECT token_id FROM tenancy.issue_extension_token($1, $2, name => 'laptop', device => 'vim')";
    client.query(device, &[&USER, &ORG]).unwrap();
    let (_, revoked) = issue(&mut client, USER);
    client.query("SELECT tenancy.revoke_extension_token($1)", &[&revoked]).unwrap();
    issue(&mut client, OTHER);
    let list = "SELECT string_agg(concat_ws(' ', name, device, org_id), ',') FROM tenancy.list_extension_tokens($1)";
    let mut app = database.connect("app");
    refused(app.query(list, &[&USER]), "PT401", "not_authenticated");
    let mut transaction = app.transaction().unwrap();
    transaction.query_one("SELECT tenancy.authenticate($1)", &[&Token::for_user(USER).sign()]).unwrap();
    assert_eq!(transaction.query_one(list, &[&USER]).unwrap().get::<_, &str>(0), format!("laptop vim {ORG}"));
    refused(transaction.query(list, &[&OTHER]), "PT403", "another_user");
}
