//! What a role permits: viewer ⊂ operator ⊂ admin ⊂ owner (the original's role sets, contract G).

use crate::pg::Identity;

/// Every permission a role can carry, in the order in which the roles gain them.
const ALL: [&str; 5] = ["read_config", "manage_modules", "write_config", "manage_keys", "read_audit"];

/// The permissions of a role in an organization, written with or without the prefix `org:`. A role that is none of
/// the four (org:member, for example) carries none by itself.
pub fn of_role(role: &str) -> &'static [&'static str] {
    match role.strip_prefix("org:").unwrap_or(role) {
        "viewer" => &ALL[..1],
        "operator" => &ALL[..2],
        "admin" | "owner" => &ALL,
        _ => &[],
    }
}

/// What an identity may do: what its role carries and what its token adds.
pub fn of_identity(identity: &Identity) -> Vec<String> {
    let mut held: Vec<String> = identity.permissions.clone();
    for permission in of_role(identity.org_role.as_deref().unwrap_or_default()) {
        if !held.iter().any(|own| own == permission) {
            held.push((*permission).to_owned());
        }
    }
    held
}

/// Whether an identity holds a permission, by its token or by its role. An owner holds every one, also those that
/// nobody has thought of yet.
pub fn holds(identity: &Identity, permission: &str) -> bool {
    let role = identity.org_role.as_deref().unwrap_or_default();
    identity.permissions.iter().any(|own| own == permission)
        || of_role(role).contains(&permission)
        || (matches!(role, "owner" | "org:owner") && !permission.is_empty())
}

#[cfg(test)]
mod tests {
    use super::{ALL, holds, of_identity, of_role};
    use crate::pg::Identity;

    #[test]
    fn each_role_carries_what_the_one_below_it_carries() {
        assert_eq!(of_role("viewer"), ["read_config"]);
        assert_eq!(of_role("operator"), ["read_config", "manage_modules"]);
        assert_eq!(of_role("admin"), ALL);
        assert_eq!(of_role("owner"), ALL);
        for role in ["viewer", "operator", "admin", "owner"] {
            assert_eq!(of_role(&format!("org:{role}")), of_role(role));
        }
        for role in ["", "org:", "member", "org:member", "Admin", "org:org:admin", " admin", "teacher"] {
            assert!(of_role(role).is_empty(), "{role}");
        }
    }

    #[test]
    fn the_token_adds_to_the_role() {
        let identity = Identity {
            org_role: Some("org:operator".to_owned()),
            permissions: vec!["org:billing:pay".to_owned(), "read_config".to_owned()],
            ..Identity::default()
        };
        assert_eq!(of_identity(&identity), ["org:billing:pay", "read_config", "manage_modules"]);
        assert!(holds(&identity, "org:billing:pay") && holds(&identity, "manage_modules"));
        assert!(!holds(&identity, "manage_keys") && !holds(&identity, ""));
        assert!(!holds(&Identity::default(), "read_config"));
        let role = |role: &str| Identity { org_role: Some(role.to_owned()), ..Identity::default() };
        assert!(holds(&role("owner"), "what nobody thought of") && holds(&role("org:owner"), "what nobody thought of"));
        assert!(!holds(&role("admin"), "what nobody thought of") && !holds(&role("owner"), ""));
    }
}
