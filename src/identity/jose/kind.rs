//! What kind of token it is: an access token may open a session; an ID, refresh or logout token may not.

use super::header::media_type;
use super::json::{Json, Object};
use super::reason::Reason;

/// Kinds that `type` may name, the product's own claim, and that are never an access token.
const OTHER_KINDS: [&str; 7] = ["id", "id_token", "refresh", "refresh_token", "offline", "logout", "logout_token"];

/// Kinds that `typ` (Keycloak) and `token_use` (Cognito) name in an access token. Keycloak has a dozen others.
const ACCESS_KINDS: [&str; 4] = ["Bearer", "access", "JWT", "at+jwt"];

/// Claims that only ID tokens have (OpenID Connect Core §3.1.3.6, §3.3.2.11).
const ID_TOKEN_CLAIMS: [&str; 2] = ["at_hash", "c_hash"];

/// Checks the header's `typ` and the claims `type`, `typ` and `token_use` against the issuer's list.
///
/// Without a list: the header's `typ` must be absent, `JWT` (RFC 7519 §5.1) or `at+jwt` (RFC 9068 §2.1), no claim may
/// name a kind that is not an access token, and an ID token's own claims are refused. With a list: one of the names the
/// token bears must be on it, and those that are not must still pass; an absent `typ` counts as `JWT`. Case does not
/// matter, nor does `application/`.
pub fn check(typ: Option<&str>, claims: &Object<'_>, token_types: Option<&[String]>) -> Result<(), Reason> {
    let is_listed = |kind: &str| token_types.is_some_and(|listed| listed.iter().any(|listed| is(listed, kind)));
    let typ = typ.unwrap_or("JWT");
    if !(is_listed(typ) || is(typ, "JWT") || is(typ, "at+jwt")) {
        return Err(Reason::TokenType);
    }
    let mut any_listed = is_listed(typ);
    for name in ["type", "typ", "token_use"] {
        let kind = match claims.get(name) {
            None | Some(Json::Null) => continue,
            Some(Json::Text(kind)) => kind,
            Some(_) => return Err(Reason::TokenType),
        };
        let names_access = match name {
            "type" => !OTHER_KINDS.iter().any(|other| is(other, kind)),
            _ => ACCESS_KINDS.iter().any(|access| is(access, kind)),
        };
        if !(is_listed(kind) || names_access) {
            return Err(Reason::TokenType);
        }
        any_listed |= is_listed(kind);
    }
    let is_access = match token_types {
        Some(_) => any_listed,
        None => !ID_TOKEN_CLAIMS.iter().any(|name| claims.contains_key(name)),
    };
    if is_access { Ok(()) } else { Err(Reason::TokenType) }
}

fn is(one: &str, other: &str) -> bool {
    media_type(one).eq_ignore_ascii_case(media_type(other))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::jose::json::parse_object;
    use serde_json::{Value, json};

    fn judge(typ: Option<&str>, claims: Value, listed: Option<&[&str]>) -> bool {
        let listed = listed.map(|listed| listed.iter().map(|kind| (*kind).to_owned()).collect::<Vec<_>>());
        check(typ, &parse_object(&claims.to_string()).unwrap(), listed.as_deref()).is_ok()
    }

    #[test]
    fn attack_29_an_id_token_is_not_an_access_token() {
        for claims in [
            json!({"token_use": "id"}),
            json!({"token_use": "anything"}),
            json!({"typ": "ID"}),
            json!({"typ": "Serialized-ID"}),
            json!({"typ": "execute-actions"}),
            json!({"typ": "DPoP"}),
            json!({"type": "application/Refresh"}),
            json!({"typ": "Refresh"}),
            json!({"type": "refresh"}),
            json!({"at_hash": "x"}),
            json!({"c_hash": "x"}),
            json!({"type": 1}),
            json!({"type": ["access"]}),
        ] {
            assert!(!judge(Some("JWT"), claims.clone(), None), "{claims}");
        }
        for typ in ["logout+jwt", "dpop+jwt", "secevent+jwt", "foo", ""] {
            assert!(!judge(Some(typ), json!({}), None), "{typ}");
        }
    }

    #[test]
    fn access_tokens_of_the_providers_pass_without_a_list() {
        for typ in [None, Some("JWT"), Some("jwt"), Some("at+jwt"), Some("application/at+JWT")] {
            for claims in [
                json!({}),
                json!({"type": "access"}),
                json!({"type": "extension_long_lived"}),
                json!({"token_use": "access"}),
                json!({"typ": "Bearer"}),
                json!({"type": null}),
            ] {
                assert!(judge(typ, claims.clone(), None), "{typ:?} {claims}");
            }
        }
    }

    #[test]
    fn a_list_is_exact() {
        let listed = Some(&["access", "extension_long_lived"][..]);
        assert!(judge(Some("JWT"), json!({"type": "access"}), listed));
        assert!(judge(None, json!({"type": "extension_long_lived"}), listed));
        assert!(!judge(None, json!({"type": "dashboard"}), listed));
        assert!(!judge(None, json!({}), listed));
        assert!(!judge(Some("dpop+jwt"), json!({"type": "access"}), listed));
        assert!(judge(Some("at+jwt"), json!({"type": "user"}), Some(&["at+jwt"])));
        assert!(!judge(Some("JWT"), json!({"type": "user"}), Some(&["at+jwt"])));
        assert!(judge(None, json!({}), Some(&["JWT"])));
        assert!(!judge(None, json!({"type": "refresh"}), Some(&["JWT"])));
        assert!(judge(None, json!({"typ": "ID", "at_hash": "x"}), Some(&["ID"])));
    }
}
