//! Tokens as providers issue them, through add_issuer and authenticate: what an application then knows of its user.

mod common;

use common::{Database, KEY_ID, SECRET, Token, cluster, hs256, jws, refused};
use serde_json::{Value, json};

const PROVIDER: &str = "https://provider.test";

/// A database whose issuer PROVIDER is configured with these arguments of add_issuer.
fn configured(arguments: &str) -> Database<'static> {
    let database = cluster().database();
    configure(&database, arguments);
    let add = "SELECT tenancy.add_secret($1, $2, 'HS256', $3)";
    database.connect("ops").execute(add, &[&PROVIDER, &KEY_ID, &SECRET]).expect("a secret can be added");
    database
}

fn configure(database: &Database, arguments: &str) {
    let statement = format!("SELECT tenancy.add_issuer('{PROVIDER}', {arguments})");
    database.connect("ops").batch_execute(&statement).expect("the issuer can be configured");
}

/// The token of exactly these claims, with iss, iat and exp put in.
fn token(header: Value, claims: &Value) -> String {
    let mut header = header;
    header["alg"] = "HS256".into();
    header["kid"] = KEY_ID.into();
    let mut whole = Token::for_user("unused").without("aud").claims();
    for (name, value) in claims.as_object().expect("claims are an object") {
        whole[name] = value.clone();
    }
    whole["iss"] = PROVIDER.into();
    jws(&header.to_string(), &whole.to_string(), |input| hs256(SECRET, input))
}

fn login(database: &Database, token: &str) -> Result<Value, postgres::Error> {
    let mut client = database.connect("app");
    let mut transaction = client.transaction()?;
    transaction.query_one("SELECT tenancy.authenticate($1)", &[&token])?;
    Ok(transaction.query_one("SELECT to_jsonb(tenancy.identity())", &[])?.get(0))
}

/// The identity of a token with these claims, as far as `expected` names its members.
#[track_caller]
fn is_known_as(database: &Database, claims: Value, expected: Value) {
    let identity = login(database, &token(json!({"typ": "JWT"}), &claims)).expect("the token is good");
    for (name, value) in expected.as_object().expect("expectations are an object") {
        assert_eq!(&identity[name], value, "{name} of {identity}");
    }
}

#[track_caller]
fn is_refused(database: &Database, header: Value, claims: Value, reason: &str) {
    refused(login(database, &token(header, &claims)), "PT401", reason);
}

/// Clerk's session token, version 2 (its documentation, "Session token claims").
fn clerk_2() -> Value {
    json!({
        "azp": "https://app.example.com", "fva": [0, -1], "sid": "sess_2N", "sub": "user_2NNEqL2nrIRdJ194ndJqAHwEfxC",
        "sts": "active", "v": 2, "pla": "o:pro", "fea": "o:dashboard,o:teams",
        "o": {"id": "org_2NNFhQ7v0u1ZpK3mB9sXcT4dLeY", "slg": "acme", "rol": "admin", "per": "manage,read", "fpm": "3,2"},
    })
}

const CLERK: &str = "'{}', profile => 'clerk', authorized_parties => ARRAY['https://app.example.com']";

#[test]
fn clerk_version_2_with_its_authorized_parties() {
    let database = configured(CLERK);
    is_known_as(
        &database,
        clerk_2(),
        json!({
            "user_id": "user_2NNEqL2nrIRdJ194ndJqAHwEfxC", "org_id": "org_2NNFhQ7v0u1ZpK3mB9sXcT4dLeY",
            "tenant_id": "org_2NNFhQ7v0u1ZpK3mB9sXcT4dLeY", "org_role": "org:admin", "pool": "organization",
            "session_id": "sess_2N", "source": "token", "issuer": PROVIDER,
        }),
    );
    let mut client = database.connect("app");
    let mut transaction = client.transaction().unwrap();
    transaction.query_one("SELECT tenancy.authenticate($1)", &[&token(json!({}), &clerk_2())]).unwrap();
    let holds = |permission: &str| format!("SELECT tenancy.has_permission('{permission}')");
    for (permission, expected) in [
        ("org:dashboard:manage", true),
        ("org:teams:read", true),
        ("org:teams:manage", false),
        ("org:dashboard", false),
        ("write_config", true), // the role admin's own
    ] {
        assert_eq!(transaction.query_one(&holds(permission), &[]).unwrap().get::<_, bool>(0), expected, "{permission}");
    }
    drop(transaction);
    // Acting for nobody, the same user is alone in a tenant of their own.
    let mut alone = clerk_2();
    alone.as_object_mut().unwrap().shift_remove("o");
    is_known_as(
        &database,
        alone,
        json!({"org_id": null, "org_role": null, "pool": "personal", "tenant_id": "user::user_2NNEqL2nrIRdJ194ndJqAHwEfxC"}),
    );
    let with = |name: &str, value: Value| {
        let mut claims = clerk_2();
        claims[name] = value;
        claims
    };
    is_refused(&database, json!({}), with("azp", json!("https://mallory.test")), "authorized_party");
    let mut none = clerk_2();
    none.as_object_mut().unwrap().shift_remove("azp");
    is_refused(&database, json!({}), none, "missing_claim");
    is_refused(&database, json!({}), with("sts", json!("pending")), "session_not_active");
    // A session token names no audience; one that does is meant for somebody else.
    is_refused(&database, json!({}), with("aud", json!("another-service")), "audience");
    // Its organization is in `o` alone: a template's own claim does not choose another.
    is_known_as(&database, with("org_id", json!("org_other")), json!({"org_id": "org_2NNFhQ7v0u1ZpK3mB9sXcT4dLeY"}));
}

#[test]
fn clerk_version_1() {
    let database = configured(CLERK);
    let claims = json!({
        "azp": "https://app.example.com", "sid": "sess_1", "sub": "user_1", "org_id": "org_1", "org_role": "org:member",
        "org_slug": "acme", "org_permissions": ["org:essays:read"],
    });
    is_known_as(
        &database,
        claims,
        json!({"user_id": "user_1", "org_id": "org_1", "org_role": "org:member", "session_id": "sess_1", "permissions": ["org:essays:read"]}),
    );
}

#[test]
fn auth0_with_permissions_scope_and_a_claim_of_ones_own() {
    let database = configured("ARRAY['https://api.example.com'], profile => 'auth0'");
    let claims = json!({
        "sub": "auth0|602c0dcab993d10073daf680", "aud": ["https://api.example.com", "https://t.auth0.com/userinfo"],
        "azp": "client", "scope": "openid read:essays", "org_id": "org_9ybsU1dN2dKfDkBi", "gty": "password",
    });
    let known = json!({"user_id": "auth0|602c0dcab993d10073daf680", "org_id": "org_9ybsU1dN2dKfDkBi", "permissions": ["openid", "read:essays"]});
    is_known_as(&database, claims.clone(), known);
    // RFC 9068 profile.
    login(&database, &token(json!({"typ": "at+jwt"}), &claims)).expect("an access token by its type");
    let mut rbac = claims.clone();
    rbac["permissions"] = json!(["read:essays", "write:essays"]);
    is_known_as(&database, rbac, json!({"permissions": ["read:essays", "write:essays"]}));
    let mut id_token = claims.clone();
    id_token["aud"] = "client".into();
    is_refused(&database, json!({}), id_token.clone(), "audience");
    id_token["aud"] = "https://api.example.com".into();
    id_token["at_hash"] = "x".into();
    is_refused(&database, json!({}), id_token, "token_type");
    configure(
        &database,
        r#"ARRAY['https://api.example.com'], profile => 'auth0',
           claim_paths => '{"org": ["https://example.com/claims.org"], "org_role": "https://example.com/role", "tenant": []}'"#,
    );
    let mut own = claims;
    own["https://example.com/claims"] = json!({"org": "acme"});
    own["https://example.com/role"] = "owner".into();
    own["tenant_id"] = "beta".into();
    is_known_as(&database, own, json!({"org_id": "acme", "tenant_id": "acme", "org_role": "owner"}));
}

#[test]
fn workos() {
    let database = configured("ARRAY['client_01'], profile => 'workos'");
    let claims = json!({
        "sub": "user_01HBEQKA6K4QJAS93VPE39W1JT", "aud": "client_01", "sid": "session_01", "org_id": "org_01", "role": "admin",
        "permissions": ["posts:read"], "entitlements": ["audit-logs"], "feature_flags": ["beta"], "jti": "01H",
    });
    is_known_as(
        &database,
        claims,
        json!({"org_id": "org_01", "org_role": "admin", "session_id": "session_01", "token_id": "01H"}),
    );
}

#[test]
fn supabase_never_reads_what_a_user_may_edit() {
    let database = configured("ARRAY['authenticated'], profile => 'supabase'");
    let claims = json!({
        "sub": "123e4567-e89b-12d3-a456-426614174000", "aud": "authenticated", "role": "authenticated", "aal": "aal1",
        "session_id": "s-1", "email": "a@example.com", "is_anonymous": false, "amr": [{"method": "otp", "timestamp": 1}],
        "app_metadata": {"provider": "email", "org_id": "acme"},
        "user_metadata": {"org_id": "victim", "tenant_id": "victim", "org_role": "owner", "permissions": ["*"]},
    });
    is_known_as(
        &database,
        claims.clone(),
        json!({"org_id": "acme", "tenant_id": "acme", "org_role": null, "session_id": "s-1", "permissions": []}),
    );
    let mut personal = claims;
    personal["app_metadata"] = json!({});
    is_known_as(
        &database,
        personal,
        json!({"org_id": null, "tenant_id": "user::123e4567-e89b-12d3-a456-426614174000"}),
    );
}

#[test]
fn pooled_takes_the_product_s_own_kinds() {
    let database = configured(
        "ARRAY['vscode-extension'], profile => 'pooled', token_types => ARRAY['access', 'extension_long_lived']",
    );
    // Contract S, as in the payloads.
    let claims = json!({
        "sub": "user_2NNEqL2nrIRdJ194ndJqAHwEfxC", "type": "extension_long_lived", "aud": "vscode-extension", "pool": "organization",
        "clerk_org_id": "org_2NNFhQ7v0u1ZpK3mB9sXcT4dLeY", "organization_id": "11111111-1111-4111-8111-111111111111",
        "organization_name": "Acme Inc", "stripe_customer_id": "cus_Q1w2E3r4",
        "organization_subscription_id": "22222222-2222-4222-8222-222222222222",
        "seat_id": "33333333-3333-4333-8333-333333333333", "seat_role": "member", "org_role": "org:member",
    });
    is_known_as(
        &database,
        claims.clone(),
        json!({
            "org_id": "org_2NNFhQ7v0u1ZpK3mB9sXcT4dLeY", "org_role": "org:member", "pool": "organization",
            // Internal ids are the directory's to give, never a token's.
            "organization_id": null, "seat_id": null,
        }),
    );
    for kind in [json!("refresh"), json!("dashboard"), json!(null), json!(7)] {
        let mut other = claims.clone();
        other["type"] = kind;
        is_refused(&database, json!({"typ": "JWT"}), other, "token_type");
    }
    let personal = json!({
        "sub": "user_1", "type": "access", "aud": "vscode-extension", "pool": "personal", "clerk_org_id": null,
        "seat_id": null, "org_role": null, "email": "a@example.com", "session_id": "sess", "plan_type": "pro", "credits": 5,
    });
    is_known_as(&database, personal, json!({"org_id": null, "pool": "personal", "tenant_id": "user::user_1"}));
}

#[test]
fn generic_follows_the_gateway_s_order_of_claims() {
    let database = configured("ARRAY['huleedu-platform']");
    let user = |members: Value| {
        let mut claims =
            json!({"sub": "larare-0017", "aud": "huleedu-platform", "roles": ["teacher"], "exp": 4_102_444_800_i64});
        for (name, value) in members.as_object().unwrap() {
            claims[name] = value.clone();
        }
        claims
    };
    for (members, org) in [
        (json!({"org": "skola-malmo-01"}), json!("skola-malmo-01")),
        (json!({"org_id": "  ", "org": " a ", "organization_id": "b"}), json!("a")),
        (json!({"org_id": 7, "org": ["x"], "organization_id": null, "clerk_org_id": "c"}), json!("c")),
        (json!({"o": {"id": "d"}}), json!("d")),
        (json!({"org_id": "", "org": false}), json!(null)),
    ] {
        is_known_as(&database, user(members), json!({"user_id": "larare-0017", "org_id": org}));
    }
    is_known_as(
        &database,
        user(json!({"org": "skola", "tenant_id": "kommun"})),
        json!({"org_id": "skola", "tenant_id": "kommun"}),
    );
    is_known_as(&database, user(json!({"tid": "kommun"})), json!({"org_id": null, "tenant_id": "kommun"}));
    is_refused(&database, json!({}), user(json!({"org": "a\u{7}b"})), "invalid_claim");
    is_refused(&database, json!({}), user(json!({"tenant_id": "x::y"})), "reserved_id");
}

#[test]
fn a_tenant_cannot_be_claimed_against_the_directory() {
    let database = configured("ARRAY['tests']");
    database
        .connect("ops")
        .batch_execute(
            "SELECT tenancy.register_tenant('kommun', 'Kommun'); SELECT tenancy.register_organization('skola', 'Skola', 'kommun')",
        )
        .unwrap();
    let claims = |org: Option<&str>, tenant: Option<&str>| json!({"sub": "u", "aud": "tests", "org_id": org, "tenant_id": tenant});
    is_known_as(&database, claims(Some("skola"), None), json!({"tenant_id": "kommun"}));
    is_known_as(&database, claims(Some("skola"), Some("kommun")), json!({"tenant_id": "kommun"}));
    for (org, tenant, reason) in
        [(Some("skola"), Some("other"), "tenant_mismatch"), (Some("kommun"), None, "tenant_taken")]
    {
        let token = token(json!({}), &claims(org, tenant));
        refused(login(&database, &token), "PT403", reason);
    }
}
