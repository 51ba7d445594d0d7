//! Attribution, the claim schema, signing profiles.

use crate::common::{Token, refused};
use crate::world::{AUDIENCE, ISSUER, ORG, OTHER, SECRET, USER, claims, identity, reason, row, text, world};
use postgres::Client;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Contract S at 7942290, and what this product adds to every token: email, jti and session_id.
const SCHEMA: [&str; 18] = [
    "sub",
    "type",
    "iat",
    "exp",
    "iss",
    "aud",
    "pool",
    "clerk_org_id",
    "organization_id",
    "organization_name",
    "stripe_customer_id",
    "organization_subscription_id",
    "seat_id",
    "seat_role",
    "org_role",
    "email",
    "jti",
    "session_id",
];
const ORG_CLAIMS: [&str; 9] = [
    "pool",
    "clerk_org_id",
    "organization_id",
    "organization_name",
    "stripe_customer_id",
    "organization_subscription_id",
    "seat_id",
    "seat_role",
    "org_role",
];

fn names(claims: &Value) -> BTreeSet<&str> {
    claims.as_object().unwrap().keys().map(String::as_str).collect()
}

/// One token of each kind, with its lifetime in seconds.
fn every_kind(client: &mut Client, user: &str, org: Option<&str>) -> Vec<(&'static str, i64, Value)> {
    let mut tokens = Vec::new();
    for (kind, function) in [("access", "issue_access_token"), ("dashboard", "issue_dashboard_token")] {
        let token = text(client, &format!("SELECT tenancy.{function}($1, $2)"), &[&user, &org]);
        tokens.push((kind, 86_400, claims(client, &token).unwrap()));
    }
    let token = text(client, "SELECT token FROM tenancy.issue_extension_token($1, $2)", &[&user, &org]);
    tokens.push(("extension_long_lived", 10_368_000, claims(client, &token).unwrap()));
    let pair = crate::tokens_authorization::authorize(client, user, org);
    let payload = pair.refresh.split('.').nth(1).unwrap();
    let refresh = crate::peers::decode(payload);
    assert_eq!(reason(client, &pair.refresh).unwrap(), "token_type", "a refresh token opens nothing");
    tokens.push(("refresh", 2_592_000, refresh));
    tokens.push(("access", 86_400, claims(client, &pair.access).unwrap()));
    tokens
}

#[test]
fn every_kind_has_the_same_claims() {
    let database = world();
    let mut client = database.superuser();
    for (kind, lifetime, claims) in every_kind(&mut client, USER, Some(ORG)) {
        assert_eq!(names(&claims), SCHEMA.into(), "{kind}");
        assert_eq!(claims["type"], kind);
        assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), lifetime, "{kind}");
        assert_eq!((&claims["iss"], &claims["aud"], &claims["sub"]), (&json!(ISSUER), &json!(AUDIENCE), &json!(USER)));
        assert_eq!(claims["email"], "ada@acme.test");
        assert_eq!(claims["pool"], "organization");
        assert_eq!(claims["clerk_org_id"], ORG);
        assert_eq!(claims["organization_name"], "Acme Inc");
        assert_eq!(claims["stripe_customer_id"], "cus_Q1w2E3r4");
        assert_eq!((&claims["seat_role"], &claims["org_role"]), (&json!("member"), &json!("org:member")));
        for name in ["organization_id", "organization_subscription_id", "seat_id"] {
            assert!(claims[name].as_str().unwrap().parse::<uuid::Uuid>().is_ok(), "{kind} {name}");
        }
    }
    for (kind, _, claims) in every_kind(&mut client, OTHER, None) {
        assert_eq!(names(&claims), SCHEMA.into(), "{kind}");
        assert!(ORG_CLAIMS.iter().all(|name| claims[*name].is_null()), "{kind}: {claims}");
        assert!(claims["email"].is_null());
    }
}

#[test]
fn without_a_seat_a_token_is_personal_or_refused() {
    let database = world();
    let mut client = database.superuser();
    let issue = |client: &mut Client, user: &str, org: &str| {
        let token = text(client, "SELECT tenancy.issue_access_token($1, $2)", &[&user, &org]);
        claims(client, &token).unwrap()["pool"].clone()
    };
    assert_eq!(issue(&mut client, USER, ORG), "organization");
    assert!(issue(&mut client, OTHER, ORG).is_null());
    assert!(issue(&mut client, USER, "org_nobody_knows").is_null());
    let required = "SELECT tenancy.issue_access_token($1, $2, require_org => true)";
    let error = refused(client.query(required, &[&OTHER, &ORG]), "PT403", "no_seat");
    assert_eq!(error.message(), "User does not have an active seat in this organization");
    refused(client.query(required, &[&USER, &None::<&str>]), "PT403", "no_seat");
    refused(client.query("SELECT tenancy.issue_access_token('nobody')", &[]), "PT404", "USER_NOT_FOUND");
    refused(client.query("SELECT tenancy.issue_access_token('')", &[]), "22023", "invalid_argument");
    refused(client.query("SELECT tenancy.issue_access_token($1, '')", &[&USER]), "22023", "invalid_argument");
    refused(
        client.query("SELECT tenancy.issue_access_token($1, profile => 'none')", &[&USER]),
        "55000",
        "no_signing_profile",
    );

    // A membership without a seat, a seat without a membership, an inactive subscription, a seat past its time.
    client.query("SELECT tenancy.set_membership($1, $2, 'org:member')", &[&OTHER, &ORG]).unwrap();
    assert!(issue(&mut client, OTHER, ORG).is_null());
    client.execute("UPDATE tenancy.organization_subscriptions SET status = 'past_due'", &[]).unwrap();
    assert!(issue(&mut client, USER, ORG).is_null());
    client.execute("UPDATE tenancy.organization_subscriptions SET status = 'trialing'", &[]).unwrap();
    assert_eq!(issue(&mut client, USER, ORG), "organization");
    client.execute("UPDATE tenancy.organization_seats SET expires_at = now() - interval '1 s'", &[]).unwrap();
    assert!(issue(&mut client, USER, ORG).is_null());
}

#[test]
fn claims_show_memberships_the_directory_does_not_know() {
    let database = world();
    let mut client = database.superuser();
    client.batch_execute("DELETE FROM tenancy.organization_memberships").unwrap();
    let resolve = |client: &mut Client, claims: Value| {
        client
            .query_opt(
                "SELECT org_role, source FROM tenancy.resolve_org_membership($1, $2, $3)",
                &[&USER, &ORG, &claims],
            )
            .unwrap()
            .map(|row| (row.get::<_, String>(0), row.get::<_, String>(1)))
    };
    let found = |role: &str| Some((role.to_owned(), "claims".to_owned()));
    assert_eq!(resolve(&mut client, json!({})), None);
    assert_eq!(resolve(&mut client, json!({"organizations": {ORG: {"role": "org:admin"}}})), found("org:admin"));
    assert_eq!(resolve(&mut client, json!({"organizations": {ORG: {}}})), found("org:member"));
    assert_eq!(resolve(&mut client, json!({"organizations": {ORG: {"role": 7}}})), found("org:member"));
    for nothing in
        [json!({"organizations": {ORG: null}}), json!({"organizations": [ORG]}), json!({"organizations": "x"})]
    {
        assert_eq!(resolve(&mut client, nothing), None);
    }
    // The issuer's own organization claim.
    client.query("SELECT tenancy.add_issuer('https://clerk.test', ARRAY['app'], 'clerk')", &[]).unwrap();
    let own =
        json!({"iss": "https://clerk.test", "sub": USER, "sts": "active", "v": 2, "o": {"id": ORG, "rol": "admin"}});
    assert_eq!(resolve(&mut client, own.clone()), found("org:admin"));
    assert_eq!(resolve(&mut client, json!({"iss": ISSUER, "sub": USER, "clerk_org_id": ORG})), found("org:member"));
    let resolved = client.query("SELECT * FROM tenancy.resolve_org_membership($1, $2, $3)", &[&OTHER, &ORG, &own]);
    refused(resolved, "22023", "invalid_claims");

    let issue = "SELECT tenancy.issue_access_token($1, $2, claims => $3)";
    let token = text(&mut client, issue, &[&USER, &ORG, &own]);
    assert_eq!(claims(&mut client, &token).unwrap()["org_role"], "org:admin");
    client.query("SELECT tenancy.revoke_seat($1, $2)", &[&ORG, &USER]).unwrap();
    let token = text(&mut client, issue, &[&USER, &ORG, &own]);
    assert!(claims(&mut client, &token).unwrap()["org_role"].is_null(), "a claim is no seat");
}

#[test]
fn an_application_issues_for_its_own_identity_only() {
    let database = world();
    let mut app = database.connect("app");
    let issue = "SELECT tenancy.issue_access_token($1, $2)";
    refused(app.query(issue, &[&USER, &ORG]), "PT401", "not_authenticated");
    // Memberships come from the sealed claims of the provider's token.
    database.superuser().batch_execute("DELETE FROM tenancy.organization_memberships").unwrap();
    let own = Token::for_user(USER).claim("organizations", json!({ORG: {"role": "org:admin"}})).sign();
    let mut transaction = app.transaction().unwrap();
    transaction.query_one("SELECT tenancy.authenticate($1)", &[&own]).unwrap();
    let token: String = transaction.query_one(issue, &[&USER, &ORG]).unwrap().get(0);
    transaction.commit().unwrap();
    assert_eq!(claims(&mut app, &token).unwrap()["org_role"], "org:admin");

    for (statement, state, what) in [
        (format!("SELECT tenancy.issue_access_token('{OTHER}')"), "PT403", "another_user"),
        (format!("SELECT tenancy.issue_extension_token('{OTHER}')"), "PT403", "another_user"),
        (
            format!("SELECT tenancy.issue_access_token('{USER}', '{ORG}', '{{\"organizations\": {{}}}}')"),
            "42501",
            "claims_not_allowed",
        ),
        (
            format!("SELECT tenancy.start_authorization('{OTHER}', '{0}', '{0}', 'x:y')", "a".repeat(43)),
            "PT403",
            "another_user",
        ),
    ] {
        let mut transaction = app.transaction().unwrap();
        transaction.query_one("SELECT tenancy.authenticate($1)", &[&own]).unwrap();
        refused(transaction.query(&statement, &[]), state, what);
    }
    // A pooler's login that may become the service role is not the service role until it does.
    let mut admin = database.superuser();
    admin.batch_execute("CREATE ROLE tokens_pooler LOGIN NOINHERIT; GRANT app, svc TO tokens_pooler").unwrap();
    let mut pooler = database.connect("tokens_pooler");
    pooler.batch_execute("SET ROLE app").unwrap();
    refused(pooler.query(issue, &[&USER, &ORG]), "PT401", "not_authenticated");
    pooler.batch_execute("SET ROLE svc").unwrap();
    pooler.query(issue, &[&USER, &ORG]).unwrap();
}

/// As docs/how-to/issue-tokens.md has it: a wrapper lends an application nothing, and shields a service from nothing.
#[test]
fn a_security_definer_wrapper_counts_as_the_role_that_is_logged_in() {
    let database = world();
    for owner in ["svc", "app"] {
        database
            .superuser()
            .batch_execute(&format!(
                "CREATE FUNCTION public.of_{owner}(u text) RETURNS text LANGUAGE sql SECURITY DEFINER
                 AS 'SELECT tenancy.issue_access_token(u)'; ALTER FUNCTION public.of_{owner}(text) OWNER TO {owner}"
            ))
            .unwrap();
    }
    for wrapper in ["SELECT public.of_svc($1)", "SELECT public.of_app($1)"] {
        refused(database.connect("app").query(wrapper, &[&USER]), "PT401", "not_authenticated");
        database.connect("svc").query(wrapper, &[&USER]).unwrap();
    }
}

#[test]
fn extra_never_overrides() {
    let database = world();
    let mut client = database.connect("svc");
    let mut extra = json!({"username": "ada", "plan_type": "teams", "credits": 12.5});
    for name in SCHEMA {
        extra[name] = json!("forged");
    }
    let token = text(&mut client, "SELECT tenancy.issue_access_token($1, $2, extra => $3)", &[&OTHER, &ORG, &extra]);
    let claims = claims(&mut client, &token).unwrap();
    assert_eq!((&claims["username"], &claims["credits"]), (&json!("ada"), &json!(12.5)));
    assert!(SCHEMA.iter().all(|name| claims[*name] != "forged"), "{claims}");
    assert!(ORG_CLAIMS.iter().all(|name| claims[*name].is_null()));
    for name in ["tenant_id", "tid", "org_id", "org", "o", "organizations", "permissions", "sid", "nbf", "azp"] {
        let issue = "SELECT tenancy.issue_access_token($1, extra => $2)";
        refused(client.query(issue, &[&OTHER, &json!({name: "x"})]), "22023", "reserved_claim");
    }
    let issue = "SELECT tenancy.issue_access_token($1, extra => $2)";
    refused(client.query(issue, &[&OTHER, &json!([1])]), "22023", "invalid_argument");
    refused(client.query(issue, &[&OTHER, &json!({"x": "y".repeat(8000)})]), "22023", "token_too_large");
    // Nothing is signed that authenticate would refuse.
    for extra in ["{\"a\": 1e400}".to_owned(), format!("{{\"a\": {}{}}}", "[".repeat(100), "]".repeat(100))] {
        let issue = format!("SELECT tenancy.issue_access_token('{OTHER}', extra => '{extra}')");
        refused(client.query(&issue, &[]), "22023", "invalid_extra");
    }
}

/// An issuer may be told to read any claim: then extra may name none of these, however deep they lie.
#[test]
fn extra_names_no_claim_that_the_signing_issuer_reads() {
    let database = world();
    let mut client = database.superuser();
    let paths = json!({"tenant": ["ctx.tenant", "urn:acme.tenant"], "org_role": ["acme_role", "org_role"],
                       "permissions": ["acme_perms"], "seat": "a.b.c"});
    let configure = "SELECT tenancy.add_issuer($1, ARRAY[$2::text], $3, claim_paths => $4)";
    client.query(configure, &[&ISSUER, &AUDIENCE, &"pooled", &paths]).unwrap();
    let mut app = database.connect("app");
    let mut issue = |statement: &str, extra: &Value| {
        let mut transaction = app.transaction().unwrap();
        transaction.query_one("SELECT tenancy.authenticate($1)", &[&Token::for_user(OTHER).sign()]).unwrap();
        transaction.query_one(statement, &[&OTHER, extra]).map(|row| row.get::<_, String>(0))
    };
    const FUNCTIONS: [&str; 3] = [
        "SELECT tenancy.issue_access_token($1, extra => $2)",
        "SELECT tenancy.issue_dashboard_token($1, extra => $2)",
        "SELECT token FROM tenancy.issue_extension_token($1, extra => $2)",
    ];
    for (extra, named) in [
        (json!({"ctx": {"tenant": "orgB"}, "plan": 1}), json!(["ctx"])),
        (json!({"ctx.tenant": "orgB"}), json!(["ctx.tenant"])),
        (json!({"urn:acme.tenant": "orgB"}), json!(["urn:acme.tenant"])),
        (json!({"urn:acme": {"tenant": null}}), json!(["urn:acme"])),
        (json!({"acme_role": "owner"}), json!(["acme_role"])),
        (json!({"acme_perms": ["everything"]}), json!(["acme_perms"])),
        (json!({"a": {"b": {"c": "seat"}}}), json!(["a"])),
        (json!({"a.b": {"c": "seat"}}), json!(["a.b"])),
        (json!({"a": {"b.c": "seat"}}), json!(["a"])),
    ] {
        for function in FUNCTIONS {
            let error = refused(issue(function, &extra), "22023", "reserved_claim");
            let detail: Value = serde_json::from_str(error.detail().unwrap()).unwrap();
            assert_eq!(detail["claims"], named, "{extra}");
        }
    }
    // Beside them everything may stand, and what is ours to set is overridden as before.
    let extra = json!({"ctx": {"colour": "red"}, "a": {"b": "c"}, "tenant": "x", "org_role": "owner", "email": "x@y"});
    let token = issue(FUNCTIONS[0], &extra).unwrap();
    let signed = claims(&mut client, &token).unwrap();
    assert_eq!((&signed["ctx"], &signed["email"]), (&json!({"colour": "red"}), &Value::Null));
    assert_eq!(identity(&mut client, &token)["org_role"], Value::Null);
    // What the provider's profile reads counts as well, where 0.1.0 let the issuer be changed to one.
    refused(client.query(configure, &[&ISSUER, &AUDIENCE, &"workos", &None::<Value>]), "PT409", "issuer_not_pooled");
    let changed = "UPDATE tenancy.issuers SET profile = 'workos'; SELECT tenancy._changed('issuers')";
    client.batch_execute(changed).unwrap();
    refused(issue(FUNCTIONS[0], &json!({"role": "owner"})), "22023", "reserved_claim");
}

/// No token is signed that is refused wherever it is shown.
#[test]
fn a_retired_key_and_a_disallowed_algorithm_sign_nothing() {
    let database = world();
    let mut client = database.superuser();
    let mut svc = database.connect("svc");
    let issue = "SELECT tenancy.issue_access_token($1)";
    let refresh = crate::tokens_authorization::authorize(&mut client, USER, None).refresh;
    svc.query(issue, &[&USER]).unwrap();
    let configure = "SELECT tenancy.add_issuer($1, ARRAY[$2::text], 'pooled', algorithms => $3)";
    client.query(configure, &[&ISSUER, &AUDIENCE, &vec!["EdDSA"]]).unwrap();
    refused(svc.query(issue, &[&USER]), "55000", "algorithm_not_allowed");
    client.query(configure, &[&ISSUER, &AUDIENCE, &vec!["HS256", "EdDSA"]]).unwrap();
    svc.query(issue, &[&USER]).unwrap();

    client.query("SELECT tenancy.retire_key($1, 'k1')", &[&ISSUER]).unwrap();
    let error = refused(svc.query(issue, &[&USER]), "55000", "signing_key_retired");
    assert!(error.hint().unwrap().contains("key_id"));
    for statement in ["SELECT tenancy.issue_extension_token($1)", "SELECT tenancy.issue_dashboard_token($1)"] {
        refused(svc.query(statement, &[&USER]), "55000", "signing_key_retired");
    }
    let exchange = "SELECT status FROM tenancy.refresh_access_token($1)";
    refused(svc.query(exchange, &[&refresh]), "55000", "signing_key_retired");
    let again = "SELECT tenancy.add_signing_profile('default', $1, $2, 'HS256', 'k1')";
    refused(client.query(again, &[&ISSUER, &AUDIENCE]), "55000", "signing_key_retired");
    // A new key is all it takes; what was to be exchanged is there still.
    let renew = "SELECT tenancy.add_signing_profile('default', $1, $2, 'EdDSA', 'k2')";
    client.query(renew, &[&ISSUER, &AUDIENCE]).unwrap();
    let token = text(&mut svc, issue, &[&USER]);
    assert_eq!(reason(&mut client, &token), None);
    assert_eq!(text(&mut svc, exchange, &[&refresh]), "refreshed");
}

#[test]
fn profiles_sign_with_keys_made_inside_and_publish_public_halves_only() {
    let database = world();
    let mut client = database.connect("ops");
    for (name, algorithm) in [("ed", "EdDSA"), ("es", "ES256"), ("hs", "HS256"), ("rs", "RS256")] {
        let add = "SELECT tenancy.add_signing_profile($1, 'https://' || $1 || '.test', 'app', $2, $1 || '-1')";
        assert_eq!(text(&mut client, add, &[&name, &algorithm]), format!("{name}-1"));
        let token = text(
            &mut database.connect("svc"),
            "SELECT tenancy.issue_access_token($1, $2, profile => $3)",
            &[&USER, &ORG, &name],
        );
        assert_eq!(
            crate::peers::decode(token.split('.').next().unwrap()),
            json!({"alg": algorithm, "typ": "JWT", "kid": format!("{name}-1")})
        );
        assert_eq!(identity(&mut client, &token)["user_id"], USER);
    }
    let jwks: Value = row(&mut database.connect("app"), "SELECT tenancy.jwks()", &[]).get(0);
    let keys = jwks["keys"].as_array().unwrap();
    let kids: BTreeSet<_> = keys.iter().map(|key| key["kid"].as_str().unwrap()).collect();
    assert_eq!(kids, ["ed-1", "es-1", "rs-1"].into(), "secrets are not published");
    for key in keys {
        assert!(["d", "p", "q", "k", "dp", "dq", "qi"].iter().all(|private| key.get(private).is_none()), "{key}");
    }

    // A new kid rotates: the old key verifies until it is retired.
    let issue = "SELECT tenancy.issue_access_token($1, profile => 'ed')";
    let mut svc = database.connect("svc");
    let before = text(&mut svc, issue, &[&USER]);
    let add = "SELECT tenancy.add_signing_profile('ed', 'https://ed.test', 'app', 'EdDSA', $1)";
    text(&mut client, add, &[&"ed-2"]);
    let after = text(&mut svc, issue, &[&USER]);
    assert_eq!(crate::peers::decode(after.split('.').next().unwrap())["kid"], "ed-2");
    assert!(claims(&mut svc, &before).is_some() && claims(&mut svc, &after).is_some());
    client.query("SELECT tenancy.retire_key('https://ed.test', 'ed-1')", &[]).unwrap();
    assert_eq!(reason(&mut svc, &before).unwrap(), "unknown_key");
    refused(client.query(add, &[&"ed-1"]), "PT409", "duplicate_kid");

    let profile = |algorithm: &str, key: &[u8]| {
        database
            .connect("ops")
            .query("SELECT tenancy.add_signing_profile('x', 'https://x.test', 'app', $1, 'x', $2)", &[&algorithm, &key])
    };
    refused(profile("HS256", b"short"), "22023", "weak_key");
    refused(profile("EdDSA", b"not a key"), "22023", "invalid_key");
    refused(profile("none", SECRET), "22023", "unknown_algorithm");
    client.query("SELECT tenancy.add_issuer('https://other.test', ARRAY['app'])", &[]).unwrap();
    let other = "SELECT tenancy.add_signing_profile('x', 'https://other.test', 'app', 'EdDSA', 'x')";
    refused(client.query(other, &[]), "PT409", "issuer_not_pooled");
    // Nor is the issuer changed so that our own tokens would be refused, or read as another tenant's.
    let changed = |rest: &str| {
        database.connect("ops").query(&format!("SELECT tenancy.add_issuer('https://ed.test', {rest})"), &[])
    };
    refused(changed("audiences => ARRAY['app']"), "PT409", "issuer_not_pooled");
    refused(changed("audiences => ARRAY['other'], profile => 'pooled'"), "PT409", "audience_in_use");
    changed("audiences => ARRAY['other', 'app'], profile => 'pooled'").unwrap();
}
