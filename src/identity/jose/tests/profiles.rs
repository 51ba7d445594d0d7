//! Tokens of the shapes that providers issue, and who they say their bearer is.

use crate::identity::jose::claims::MAX_ID_CHARS;
use crate::identity::jose::reason::Reason;
use crate::identity::jose::{Claims, Mapping, Profile, Subject};
use serde_json::{Value, json};

/// What the subject borrows from is left behind, for the test's short life.
fn resolve_with(profile: Profile, overrides: Option<&Value>, claims: &Value) -> Result<Subject<'static>, Reason> {
    let claims: &'static Claims = Box::leak(Box::new(Claims::parse(claims.to_string().leak().as_bytes())?));
    Mapping::new(profile, overrides).unwrap().resolve(claims)
}

fn resolve(profile: Profile, claims: &Value) -> Subject<'static> {
    resolve_with(profile, None, claims).unwrap()
}

#[test]
fn the_first_trimmed_non_empty_string_wins() {
    let org = |claims: Value| {
        let mut claims = claims;
        claims["sub"] = "u".into();
        resolve(Profile::Generic, &claims).org
    };
    assert_eq!(org(json!({"org": "skola-malmo-01"})), Some("skola-malmo-01"));
    assert_eq!(org(json!({"org_id": "  ", "org": " a ", "organization_id": "b"})), Some("a"));
    assert_eq!(org(json!({"org_id": 7, "org": ["x"], "organization_id": null, "clerk_org_id": "c"})), Some("c"));
    assert_eq!(org(json!({"o": {"id": "d"}})), Some("d"));
    assert_eq!(org(json!({"org_id": "", "o": {"id": 1}})), None);
}

#[test]
fn huleedu_tokens_are_generic() {
    let claims = json!({
        "sub": "larare-0017", "org": "skola-malmo-01", "roles": ["teacher"], "exp": 4102444800_i64,
        "iss": "huleedu-identity-service", "aud": "huleedu-platform",
    });
    let subject = resolve(Profile::Generic, &claims);
    assert_eq!(subject, Subject { user: "larare-0017", org: Some("skola-malmo-01"), ..Subject::default() });
}

#[test]
fn clerk_version_2() {
    let claims = json!({
        "sub": "user_2N", "sid": "sess_1", "v": 2, "sts": "active", "fva": [3, -1], "fea": "o:dashboard,u:border,o:teams",
        "o": {"id": "org_2N", "slg": "acme", "rol": "admin", "per": "manage,read", "fpm": "3,2"},
        // Claims a template could add do not count beside `o`.
        "org_id": "org_other", "org_role": "org:owner", "org_permissions": ["org:all:all"],
    });
    let subject = resolve(Profile::Clerk, &claims);
    assert_eq!(subject.org, Some("org_2N"));
    assert_eq!(subject.org_role.as_deref(), Some("org:admin"));
    assert_eq!(subject.session_id, Some("sess_1"));
    assert_eq!(subject.permissions, ["org:dashboard:manage", "org:dashboard:read", "org:teams:read"]);
}

#[test]
fn clerk_version_2_without_an_organization_is_personal() {
    let claims = json!({"sub": "user_2N", "sid": "sess_1", "v": 2, "fea": "u:x", "org_id": "org_other"});
    let subject = resolve(Profile::Clerk, &claims);
    assert_eq!((subject.org, subject.org_role), (None, None));
    assert!(subject.permissions.is_empty());
}

#[test]
fn clerk_version_1() {
    let claims = json!({
        "sub": "user_2N", "sid": "sess_1", "org_id": "org_2N", "org_role": "org:admin", "org_slug": "acme",
        "org_permissions": ["org:teams:read", "org:teams:manage"],
    });
    let subject = resolve(Profile::Clerk, &claims);
    assert_eq!(subject.org, Some("org_2N"));
    assert_eq!(subject.org_role.as_deref(), Some("org:admin"));
    assert_eq!(subject.permissions, ["org:teams:read", "org:teams:manage"]);
}

#[test]
fn clerk_pending_sessions_are_refused() {
    let claims = json!({"sub": "user_2N", "v": 2, "sts": "pending"});
    assert_eq!(resolve_with(Profile::Clerk, None, &claims), Err(Reason::SessionNotActive));
}

#[test]
fn auth0() {
    let claims = json!({
        "sub": "auth0|602c0dcab993d10073daf680", "org_id": "org_9ybsU1dN2dKfDkBi", "scope": "openid read:messages",
        "permissions": ["read:messages", "write:messages"], "azp": "client",
    });
    let subject = resolve(Profile::Auth0, &claims);
    assert_eq!(subject.user, "auth0|602c0dcab993d10073daf680");
    assert_eq!(subject.org, Some("org_9ybsU1dN2dKfDkBi"));
    assert_eq!(subject.permissions, ["read:messages", "write:messages"]);
    let scope = json!({"sub": "a", "scope": "openid  read:messages"});
    assert_eq!(resolve(Profile::Auth0, &scope).permissions, ["openid", "read:messages"]);
    let namespaced =
        json!({"sub": "a", "https://acme.example/claims": {"org.id": "org_1"}, "https://acme.example/role": "boss"});
    let overrides = json!({"org": ["https://acme.example/claims.org.id"], "org_role": "https://acme.example/role"});
    let subject = resolve_with(Profile::Auth0, Some(&overrides), &namespaced).unwrap();
    assert_eq!((subject.org, subject.org_role.as_deref()), (Some("org_1"), Some("boss")));
}

#[test]
fn workos() {
    let claims = json!({
        "sub": "user_01HBEQKA6K4QJAS93VPE39W1JT", "sid": "session_01", "org_id": "org_01", "role": "admin",
        "permissions": ["posts:read"], "entitlements": ["audit-logs"], "feature_flags": ["beta"],
    });
    let subject = resolve(Profile::WorkOs, &claims);
    assert_eq!(subject.org, Some("org_01"));
    assert_eq!(subject.org_role.as_deref(), Some("admin"));
    assert_eq!(subject.session_id, Some("session_01"));
    assert_eq!(subject.permissions, ["posts:read"]);
}

#[test]
fn supabase() {
    let claims = json!({
        "sub": "123e4567-e89b-12d3-a456-426614174000", "role": "authenticated", "aal": "aal1", "session_id": "s-1",
        "app_metadata": {"provider": "email", "org_id": "acme", "tenant_id": "t1", "permissions": ["a"]},
        "user_metadata": {"org_id": "victim", "tenant_id": "victim", "org_role": "owner", "permissions": ["*"]},
    });
    let subject = resolve(Profile::Supabase, &claims);
    assert_eq!((subject.org, subject.tenant), (Some("acme"), Some("t1")));
    assert_eq!(subject.session_id, Some("s-1"));
    assert_eq!((subject.org_role, subject.permissions), (None, vec!["a".into()]));
}

#[test]
fn pooled_organization_and_personal() {
    let claims = json!({
        "sub": "user_2NNEqL2nrIRdJ194ndJqAHwEfxC", "type": "extension_long_lived", "pool": "organization",
        "clerk_org_id": "org_2NNFhQ7v0u1ZpK3mB9sXcT4dLeY", "organization_id": "11111111-1111-4111-8111-111111111111",
        "organization_name": "Acme Inc", "seat_id": "33333333-3333-4333-8333-333333333333", "seat_role": "member",
        "org_role": "org:member", "session_id": "sess",
    });
    let subject = resolve(Profile::Pooled, &claims);
    assert_eq!(subject.org, Some("org_2NNFhQ7v0u1ZpK3mB9sXcT4dLeY"));
    assert_eq!(subject.pool, Some("organization"));
    assert_eq!(subject.seat_id, Some("33333333-3333-4333-8333-333333333333"));
    assert_eq!(subject.organization_id, Some("11111111-1111-4111-8111-111111111111"));
    assert_eq!((subject.org_role.as_deref(), subject.seat_role), (Some("org:member"), Some("member")));
    let personal = json!({"sub": "u", "type": "access", "pool": "personal", "clerk_org_id": null, "seat_id": null, "org_role": null});
    let subject = resolve(Profile::Pooled, &personal);
    assert_eq!(subject, Subject { user: "u", pool: Some("personal"), ..Subject::default() });
}

#[test]
fn literal_names_come_before_nested_ones() {
    let overrides = json!({"org": ["a.b.c"]});
    let org = |claims: Value| resolve_with(Profile::Generic, Some(&overrides), &claims).unwrap().org;
    let all = json!({"sub": "u", "a.b.c": "1", "a": {"b.c": "2", "b": {"c": "3"}}, "a.b": {"c": "4"}});
    assert_eq!(org(all), Some("1"));
    assert_eq!(org(json!({"sub": "u", "a": {"b.c": "2", "b": {"c": "3"}}, "a.b": {"c": "4"}})), Some("2"));
    assert_eq!(org(json!({"sub": "u", "a": {"b": {"c": "3"}}, "a.b": {"c": "4"}})), Some("3"));
    assert_eq!(org(json!({"sub": "u", "a": 1, "a.b": {"c": "4"}})), Some("4"));
    assert_eq!(org(json!({"sub": "u", "a.b.c": 1, "a": {"b": "x"}})), None);
}

#[test]
fn overrides_replace_a_fields_list() {
    let claims = json!({"sub": "u", "org_id": "a", "workspace": {"id": "w"}, "tenant_id": "t"});
    let overrides = json!({"org": ["workspace.id"], "tenant": []});
    let subject = resolve_with(Profile::Generic, Some(&overrides), &claims).unwrap();
    assert_eq!((subject.org, subject.tenant), (Some("w"), None));
    let clerk = json!({"sub": "u", "v": 2, "o": {"id": "org_1", "rol": "admin"}, "org": "other"});
    let subject = resolve_with(Profile::Clerk, Some(&json!({"org": "org"})), &clerk).unwrap();
    assert_eq!((subject.org, subject.org_role.as_deref()), (Some("other"), Some("org:admin")));
}

#[test]
fn overrides_that_mean_nothing_are_refused() {
    for (overrides, field) in [
        (json!([]), ""),
        (json!({"organisation": ["x"]}), "organisation"),
        (json!({"org": 1}), "org"),
        (json!({"org": ["x", 1]}), "org"),
        (json!({"tenant": [" "]}), "tenant"),
    ] {
        assert_eq!(Mapping::new(Profile::Generic, Some(&overrides)).unwrap_err().field, field);
    }
    assert!(Mapping::new(Profile::Generic, Some(&Value::Null)).is_ok());
}

#[test]
fn ids_are_bounded() {
    let long = "x".repeat(MAX_ID_CHARS + 1);
    for (claims, field) in [
        (json!({"sub": "u", "org_id": long}), "org"),
        (json!({"sub": "u", "tenant_id": "a\u{0007}b"}), "tenant"),
        (json!({"sub": "u", "o": {"id": long}, "v": 2}), "org"),
    ] {
        let profile = if claims["v"] == 2 { Profile::Clerk } else { Profile::Generic };
        assert_eq!(resolve_with(profile, None, &claims), Err(Reason::InvalidClaim(field)));
    }
    assert_eq!(resolve_with(Profile::Generic, None, &json!({})), Err(Reason::MissingClaim("user")));
}

#[test]
fn names_are_found_again() {
    for profile in Profile::ALL {
        assert_eq!(Profile::parse(profile.name()), Some(profile));
    }
    assert_eq!(Profile::parse("Clerk"), None);
}
