//! What ends by itself: a former member's tokens and keys, a family of refresh tokens; and what a rollback does not undo.

use crate::common::{Cluster, Options, Token, refused};
use crate::tokens_authorization::authorize;
use crate::world::{ORG, OTHER, USER, audit, furnish, reason, row, text, world};
use postgres::Client;

const ISSUE: &str = "SELECT token FROM tenancy.issue_extension_token($1, $2)";
const AUTHENTICATE: &str = "SELECT tenancy.authenticate($1)";

/// The tenant a token gives, as an application.
fn tenant(app: &mut Client, token: &str) -> Result<String, postgres::Error> {
    let mut transaction = app.transaction()?;
    transaction.query_one(AUTHENTICATE, &[&token])?;
    Ok(transaction.query_one("SELECT tenancy.tenant_id()", &[])?.get(0))
}

#[test]
fn a_former_member_s_tokens_show_nothing_of_the_organization() {
    let database = world();
    let (mut client, mut app, mut ops) = (database.superuser(), database.connect("app"), database.connect("ops"));
    let access = text(&mut client, "SELECT tenancy.issue_access_token($1, $2)", &[&USER, &ORG]);
    let personal = text(&mut client, "SELECT tenancy.issue_access_token($1)", &[&USER]);
    let extension = text(&mut client, ISSUE, &[&USER, &ORG]);
    // A provider's token says what the provider says: it is the provider's to end.
    let provider = Token::for_member(USER, ORG).sign();
    for token in [&access, &extension, &provider] {
        assert_eq!(tenant(&mut app, token).unwrap(), ORG);
    }

    // Without the seat a member still sees, and spends nothing.
    ops.query("SELECT tenancy.revoke_seat($1, $2)", &[&ORG, &USER]).unwrap();
    let mut transaction = app.transaction().unwrap();
    transaction.query_one(AUTHENTICATE, &[&extension]).unwrap();
    let seat: Option<uuid::Uuid> = transaction.query_one("SELECT tenancy.seat_id()", &[]).unwrap().get(0);
    assert_eq!(seat, None);
    refused(transaction.query("SELECT tenancy.spend_credits(1)", &[]), "PT403", "no_active_seat");
    drop(transaction);

    ops.query("SELECT tenancy.remove_membership($1, $2)", &[&USER, &ORG]).unwrap();
    for token in [&access, &extension] {
        refused(tenant(&mut app, token), "PT403", "not_a_member");
        assert_eq!(reason(&mut app, token).as_deref(), Some("not_a_member"));
    }
    refused(
        app.query("SELECT * FROM tenancy.validate_extension_token($1)", &[&extension]),
        "PT401",
        "TOKEN_REVOKED_OR_INVALID",
    );
    refused(app.query("SELECT * FROM tenancy.refresh_extension_token($1)", &[&extension]), "PT404", "NO_ACTIVE_TOKEN");
    assert_eq!(tenant(&mut app, &personal).unwrap(), format!("user::{USER}"));
    assert_eq!(tenant(&mut app, &provider).unwrap(), ORG);
    // Another service may sign for organizations of its own with the same secret.
    let elsewhere = Token::for_user(USER)
        .header("kid", "k1")
        .claim("iss", crate::world::ISSUER)
        .claim("aud", crate::world::AUDIENCE)
        .claim("type", "access");
    let named = |org: &str| elsewhere.clone().claim("clerk_org_id", org).sign_with(crate::world::SECRET);
    assert_eq!(tenant(&mut app, &named("org_elsewhere")).unwrap(), "org_elsewhere");
    refused(tenant(&mut app, &named(ORG)), "PT403", "not_a_member");
    // Who comes back finds the tokens good again that nobody revoked.
    ops.query("SELECT tenancy.set_membership($1, $2, 'org:member')", &[&USER, &ORG]).unwrap();
    assert_eq!(tenant(&mut app, &access).unwrap(), ORG);
}

#[test]
fn a_member_by_claims_alone_is_known_by_the_seat() {
    let database = world();
    let (mut client, mut app) = (database.superuser(), database.connect("app"));
    client.batch_execute("DELETE FROM tenancy.organization_memberships").unwrap();
    let issue = "SELECT tenancy.issue_access_token($1, $2, claims => $3)";
    let claims = serde_json::json!({"organizations": {ORG: {"role": "org:admin"}}});
    let token = text(&mut client, issue, &[&USER, &ORG, &claims]);
    assert_eq!(tenant(&mut app, &token).unwrap(), ORG);
    let lapse = "UPDATE tenancy.organization_seats SET expires_at = clock_timestamp() + interval '3 s'";
    client.batch_execute(&format!("{lapse}; SELECT tenancy._changed('organization_seats')")).unwrap();
    assert_eq!(tenant(&mut app, &token).unwrap(), ORG);
    std::thread::sleep(std::time::Duration::from_millis(3200));
    refused(tenant(&mut app, &token), "PT403", "not_a_member");
}

#[test]
fn a_key_made_for_a_member_ends_with_the_membership() {
    let database = world();
    let (mut client, mut app) = (database.superuser(), database.connect("app"));
    let create = "SELECT api_key, key_id FROM tenancy.create_api_key($1, $2)";
    let made = row(&mut client, create, &[&ORG, &USER]);
    let (key, id): (String, uuid::Uuid) = (made.get(0), made.get(1));
    let for_nobody = text(&mut client, create, &[&ORG, &None::<&str>]);
    // A service may make keys for whom the directory has never known in the organization.
    let for_a_stranger = text(&mut client, create, &[&ORG, &OTHER]);
    let rotated = text(&mut client, "SELECT api_key FROM tenancy.rotate_api_key($1)", &[&id]);
    let authenticate = "SELECT tenancy.authenticate_api_key($1)";
    for good in [&key, &for_nobody, &for_a_stranger, &rotated] {
        app.query(authenticate, &[good]).unwrap();
    }
    client.query("SELECT tenancy.remove_membership($1, $2)", &[&USER, &ORG]).unwrap();
    for ended in [&key, &rotated] {
        refused(app.query(authenticate, &[ended]), "PT401", "invalid_api_key");
    }
    for good in [&for_nobody, &for_a_stranger] {
        app.query(authenticate, &[good]).unwrap();
    }
    assert!(database.cluster().log().contains(r#"API key refused {"reason":"not_a_member","key_id":""#));
}

#[test]
fn a_family_ends_however_often_it_is_refreshed() {
    let database = world();
    let mut client = database.superuser();
    let set = |client: &mut Client, age: &str| {
        let add = "SELECT tenancy.add_signing_profile('default', 'softcodes.ai', 'vscode-extension', 'HS256', 'k1', \
                   refresh_max_age => $1::text::interval)";
        client.query(add, &[&age])
    };
    let age = "SELECT refresh_max_age::text FROM tenancy.signing_profiles";
    assert_eq!(text(&mut client, age, &[]), "90 days");
    let refresh = |client: &mut Client, token: &str| -> (String, Option<String>) {
        let answer = row(client, "SELECT status, new_refresh_token FROM tenancy.refresh_access_token($1)", &[&token]);
        (answer.get(0), answer.get(1))
    };
    let pair = authorize(&mut client, USER, Some(ORG));
    // On the last day: refreshed, and the new token ends with the family and not in thirty days.
    client
        .batch_execute("UPDATE tenancy.token_families SET created_at = now() - interval '90 days' + interval '1 hour'")
        .unwrap();
    let (status, next) = refresh(&mut client, &pair.refresh);
    let next = next.unwrap();
    assert_eq!(status, "refreshed");
    let claims = crate::peers::decode(next.split('.').nth(1).unwrap());
    let lifetime = claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap();
    assert!((3590..=3601).contains(&lifetime), "{lifetime}");
    client.batch_execute("UPDATE tenancy.token_families SET created_at = now() - interval '90 days'").unwrap();
    assert_eq!(refresh(&mut client, &next), ("expired".into(), None));
    assert_eq!(audit(&mut client, "refresh_token").last().unwrap(), "refused family_expired");
    // A longer age lets it go on, a shorter one ends it at once.
    set(&mut client, "91 days").unwrap();
    let (status, next) = refresh(&mut client, &next);
    assert_eq!(status, "refreshed");
    set(&mut client, "1 hour").unwrap();
    assert_eq!(refresh(&mut client, &next.unwrap()), ("expired".into(), None));
    // Its first token does not outlive it either, and a new key keeps what was set.
    let pair = authorize(&mut client, OTHER, None);
    let claims = crate::peers::decode(pair.refresh.split('.').nth(1).unwrap());
    assert!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap() <= 3601);
    client
        .query("SELECT tenancy.add_signing_profile('default', 'softcodes.ai', 'vscode-extension', 'HS256', 'k2')", &[])
        .unwrap();
    assert_eq!(text(&mut client, age, &[]), "01:00:00");
    for wrong in ["0", "-1 day", "59 min", "11 years"] {
        refused(set(&mut client, wrong), "22023", "invalid_argument");
    }
}

/// A token of a transaction that was rolled back is in no table, and was signed and shown all the same.
#[test]
fn a_rollback_gives_no_more_tokens_than_five_an_hour() {
    let database = world();
    let mut client = database.superuser();
    for _ in 0..5 {
        let mut transaction = client.transaction().unwrap();
        transaction.query_one(ISSUE, &[&USER, &ORG]).unwrap();
        transaction.rollback().unwrap();
    }
    refused(client.query(ISSUE, &[&USER, &ORG]), "PT429", "RATE_LIMIT_EXCEEDED");
    refused(client.query(ISSUE, &[&USER, &None::<&str>]), "PT429", "RATE_LIMIT_EXCEEDED");
    client.query_one(ISSUE, &[&OTHER, &ORG]).expect("another user's count is another");
}

/// Without shared memory the rows alone count: within the hour, and no longer.
#[test]
fn without_preload_the_hour_is_counted_by_rows() {
    let own = Cluster::start(Options { preload: false, ..Options::default() });
    let database = own.database();
    let mut client = database.superuser();
    furnish(&mut client);
    let issue = |client: &mut Client| {
        client.query_one("SELECT token_id FROM tenancy.issue_extension_token($1)", &[&USER]).map(|row| row.get(0))
    };
    let first: uuid::Uuid = issue(&mut client).unwrap();
    for _ in 1..5 {
        issue(&mut client).unwrap();
    }
    assert!(row(&mut client, "SELECT tenancy.revoke_extension_token($1)", &[&first]).get::<_, bool>(0));
    refused(issue(&mut client), "PT429", "RATE_LIMIT_EXCEEDED");
    client.batch_execute("UPDATE tenancy.extension_tokens SET created_at = created_at - interval '1 hour'").unwrap();
    issue(&mut client).unwrap();
    refused(issue(&mut client), "PT409", "TOKEN_LIMIT_EXCEEDED");
    client.batch_execute("UPDATE tenancy.extension_tokens SET expires_at = now()").unwrap();
    issue(&mut client).unwrap();
}
