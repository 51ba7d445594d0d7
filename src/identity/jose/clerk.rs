//! Clerk's session token, version 2: the organization in one compact claim `o`.
//!
//! `o.per` lists permissions, `fea` lists features with their scope, and `o.fpm` has one number for each of the
//! organization's features, whose bits (lowest first) say which of the permissions it has. The rules are Clerk's own
//! ("Session tokens", "Decode o.fpm manually") and those of its SDK.

use super::json::{Json, Object};
use super::reason::Reason;
use std::borrow::Cow;

/// Refuses a session that has tasks left before it is signed in: `sts` other than `active`.
pub fn check_session(claims: &Object<'_>) -> Result<(), Reason> {
    match claims.get("sts") {
        None | Some(Json::Null) => Ok(()),
        Some(status) if status.as_str() == Some("active") => Ok(()),
        Some(_) => Err(Reason::SessionNotActive),
    }
}

/// `o.rol` as the rest of the world knows it: Clerk leaves the `org:` prefix out of the token, its SDK adds it.
pub fn org_role<'a>(organization: &'a Object<'_>) -> Option<Cow<'a, str>> {
    let role = organization.get("rol")?.as_str()?.trim();
    match role {
        "" => None,
        role if role.starts_with("org:") => Some(role.into()),
        role => Some(format!("org:{role}").into()),
    }
}

/// The permissions, each as `org:feature:permission`.
pub fn permissions(claims: &Object<'_>, organization: &Object<'_>) -> Vec<String> {
    let list = |value: Option<&Json>| -> Vec<String> {
        let text = value.and_then(Json::as_str).unwrap_or_default();
        text.split(',').map(|item| item.trim().to_owned()).collect()
    };
    let features = list(claims.get("fea"));
    let names = list(organization.get("per"));
    let masks = list(organization.get("fpm"));
    let org_features = features.iter().filter_map(|feature| match feature.split_once(':') {
        Some((scope, name)) if scope.contains('o') && !name.is_empty() => Some(name),
        _ => None,
    });
    let mut permissions = Vec::new();
    for (feature, mask) in org_features.zip(&masks) {
        // A mask that is no number gives nothing, and keeps its place so that the next ones do not shift.
        let mask: u64 = mask.parse().unwrap_or(0);
        for (bit, name) in names.iter().enumerate().take(64) {
            if mask >> bit & 1 == 1 && !name.is_empty() {
                permissions.push(format!("org:{feature}:{name}"));
            }
        }
    }
    permissions
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::jose::json::parse_object;
    use serde_json::{Value, json};

    fn decode(fea: &str, per: &str, fpm: &str) -> Vec<String> {
        let claims = json!({"fea": fea, "o": {"per": per, "fpm": fpm}});
        let text = claims.to_string();
        let claims = parse_object(&text).unwrap();
        permissions(&claims, claims.get("o").and_then(Json::as_object).unwrap())
    }

    #[test]
    fn the_example_of_clerks_documentation() {
        let decoded = decode("o:dashboard,o:teams", "manage,read", "3,2");
        assert_eq!(decoded, ["org:dashboard:manage", "org:dashboard:read", "org:teams:read"]);
    }

    #[test]
    fn only_the_organizations_features_count_and_they_alone_have_numbers() {
        let expected = ["org:repos:read", "org:repos:create", "org:projects:read", "org:projects:update"];
        assert_eq!(decode("o:repos,uo:projects,u:border", "read,create,update", "3,5"), expected);
        assert_eq!(decode("u:border,o:repos,ou:projects", "read,create,update", "3,5"), expected);
        assert!(decode("u:a,u:b", "read", "1,1").is_empty());
    }

    #[test]
    fn what_is_missing_or_malformed_gives_nothing() {
        assert!(decode("", "", "").is_empty());
        assert!(decode("o:a", "read", "").is_empty());
        assert!(decode("o:a", "", "1").is_empty());
        assert_eq!(decode("o:a,o:b", "read", "x,1"), ["org:b:read"]);
        assert_eq!(decode("o:a", "read", "255"), ["org:a:read"]);
        assert!(decode("o:a", "read", "-1").is_empty());
        assert!(permissions(&Object::default(), &Object::default()).is_empty());
    }

    #[test]
    fn the_role_gets_its_prefix_once() {
        let role = |role: Value| {
            let text = json!({"rol": role}).to_string();
            org_role(&parse_object(&text).unwrap()).map(Cow::into_owned)
        };
        assert_eq!(role(json!("admin")).as_deref(), Some("org:admin"));
        assert_eq!(role(json!("org:admin")).as_deref(), Some("org:admin"));
        assert_eq!(role(json!(" ")), None);
        assert_eq!(role(json!(1)), None);
    }

    #[test]
    fn a_pending_session_is_not_signed_in() {
        let check = |status: Value| check_session(&parse_object(&json!({"sts": status}).to_string()).unwrap());
        assert_eq!(check(json!("active")), Ok(()));
        assert_eq!(check(json!("pending")), Err(Reason::SessionNotActive));
        assert_eq!(check(json!(1)), Err(Reason::SessionNotActive));
        assert_eq!(check_session(&Object::default()), Ok(()));
    }
}
