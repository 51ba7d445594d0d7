//! Identity over HTTP: what PostgREST hands on of a request, and the headers a service hands on to the next.

use crate::pg::Identity;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::{Map, Value};

/// What a request says of its bearer.
#[derive(Debug, PartialEq, Eq)]
pub struct Request {
    /// The token, without its scheme.
    pub token: Option<String>,
    /// Whether the header that carries it came more than once: no telling which counts.
    pub is_ambiguous: bool,
    /// The correlation id, where it is a UUID.
    pub correlation_id: Option<String>,
}

/// The members of a JSON object as they stand, those that are named twice too.
#[derive(Default)]
struct Headers(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Headers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Headers;
            fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Headers, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Headers(members))
            }
        }
        deserializer.deserialize_map(Members)
    }
}

/// Reads `request.headers`, a JSON object; the case of a name does not matter (RFC 9110 §5.1). The token stands in `token_header`, as
/// `Bearer <token>` (RFC 6750 §2.1, the scheme in any case); in another header than Authorization the scheme may be
/// left out. Another scheme, such as Basic, is no bearer's.
pub fn read(headers: &str, token_header: &str) -> Request {
    let Headers(headers) = serde_json::from_str(headers).unwrap_or_default();
    let scheme_optional = !token_header.eq_ignore_ascii_case("authorization");
    let token = header(&headers, token_header).and_then(|value| match value.split_once(char::is_whitespace) {
        Some((scheme, token)) => scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().to_owned()),
        None if value.eq_ignore_ascii_case("bearer") => Some(String::new()),
        None => (scheme_optional && !value.is_empty()).then(|| value.to_owned()),
    });
    let correlation_id = header(&headers, "x-correlation-id").and_then(correlation_id);
    Request {
        token,
        is_ambiguous: headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case(token_header)).count() > 1,
        correlation_id,
    }
}

fn header<'a>(headers: &'a [(String, Value)], name: &str) -> Option<&'a str> {
    headers.iter().find(|(own, _)| own.eq_ignore_ascii_case(name)).and_then(|(_, value)| value.as_str()).map(str::trim)
}

/// A correlation id as it goes on: a UUID in canonical form. Any other text is none, and is replaced (contract H).
pub fn correlation_id(text: &str) -> Option<String> {
    uuid::Uuid::try_parse(text).ok().map(|id| id.hyphenated().to_string())
}

/// The headers that carry an identity to another service (contract H). Values that are not ASCII are URL-quoted, all
/// of them then, and `X-Identity-Encoding: url` says so.
pub fn headers(identity: &Identity) -> Map<String, Value> {
    let ids = [
        ("X-User-ID", Some(identity.user_id.as_str())),
        ("X-Org-ID", identity.org_id.as_deref()),
        ("X-Tenant-ID", Some(identity.tenant_id.as_str())),
    ];
    let is_quoted = ids.iter().any(|(_, id)| id.is_some_and(|id| !id.bytes().all(is_plain)));
    let mut headers = Map::new();
    for (name, id) in ids {
        if let Some(id) = id {
            headers.insert(name.to_owned(), if is_quoted { quote(id) } else { id.to_owned() }.into());
        }
    }
    if let Some(id) = &identity.correlation_id {
        headers.insert("X-Correlation-ID".to_owned(), id.as_str().into());
    }
    if is_quoted {
        headers.insert("X-Identity-Encoding".to_owned(), "url".into());
    }
    headers
}

/// What may stand in a header as it is: visible ASCII.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_graphic()
}

/// Percent-encoding of all but RFC 3986's unreserved characters.
fn quote(text: &str) -> String {
    text.bytes().fold(String::new(), |mut quoted, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            quoted.push(char::from(byte));
        } else {
            quoted.push_str(&format!("%{byte:02X}"));
        }
        quoted
    })
}

#[cfg(test)]
mod tests {
    use super::{Request, headers, read};
    use crate::pg::Identity;

    fn token(headers: &str, name: &str) -> Option<String> {
        read(headers, name).token
    }

    #[test]
    fn the_scheme_is_bearer_in_any_case() {
        for value in ["Bearer a.b.c", "bearer a.b.c", "BEARER   a.b.c "] {
            assert_eq!(token(&format!(r#"{{"authorization": "{value}"}}"#), "Authorization").as_deref(), Some("a.b.c"));
        }
        for headers in [
            "",
            "{",
            "null",
            "{}",
            "[]",
            r#"{"authorization": "Basic a"}"#,
            r#"{"authorization": "a.b.c"}"#,
            r#"{"authorization": 1}"#,
            r#"{"authorization": null}"#,
            r#"{"authorization": ["Bearer a.b.c"]}"#,
            r#"{"authorization": ""}"#,
            r#"{"authorization": "Bearera.b.c"}"#,
            r#"{"authorizations": "Bearer a.b.c"}"#,
        ] {
            assert_eq!(token(headers, "authorization"), None, "{headers}");
        }
        for value in ["Bearer", " bearer ", "BEARER\\t"] {
            let headers = format!(r#"{{"authorization": "{value}"}}"#);
            assert_eq!(token(&headers, "authorization").as_deref(), Some(""), "{value}");
        }
        for name in ["Authorization", "AUTHORIZATION", "authorization"] {
            assert_eq!(token(&format!(r#"{{"{name}": "Bearer\ta.b.c"}}"#), "authorization").as_deref(), Some("a.b.c"));
        }
        // Two in one, as a proxy joins them, is no token that anybody has signed.
        let joined = r#"{"authorization": "Bearer a.b.c, Bearer d.e.f"}"#;
        assert_eq!(token(joined, "authorization").as_deref(), Some("a.b.c, Bearer d.e.f"));
        assert_eq!(token(r#"{"x-token": "a.b.c"}"#, "X-Token").as_deref(), Some("a.b.c"));
        assert_eq!(token(r#"{"x-token": "Bearer a.b.c"}"#, "X-Token").as_deref(), Some("a.b.c"));
    }

    #[test]
    fn a_header_that_comes_twice_is_ambiguous() {
        let is_ambiguous = |headers: &str| read(headers, "Authorization").is_ambiguous;
        assert!(is_ambiguous(r#"{"authorization": "Bearer a", "authorization": "Bearer b"}"#));
        assert!(is_ambiguous(r#"{"authorization": "Bearer a", "Authorization": "Basic b"}"#));
        assert!(!is_ambiguous(r#"{"authorization": "Bearer a", "x-token": "b"}"#));
    }

    #[test]
    fn a_correlation_id_is_a_uuid_or_none() {
        let id = "7f0c2d1e-5b7a-4c1d-9f0e-2a6b8c4d1e3f";
        let read = |value: &str| read(&format!(r#"{{"x-correlation-id": "{value}"}}"#), "authorization");
        assert_eq!(
            read(&id.to_uppercase()),
            Request { token: None, is_ambiguous: false, correlation_id: Some(id.to_owned()) }
        );
        for value in ["", "1", "7f0c2d1e"] {
            assert_eq!(read(value).correlation_id, None);
        }
    }

    #[test]
    fn ids_that_are_not_ascii_are_quoted_and_said_to_be() {
        let mut identity = Identity { user_id: "larare-0017".into(), tenant_id: "skola".into(), ..Identity::default() };
        let plain = serde_json::json!({"X-User-ID": "larare-0017", "X-Tenant-ID": "skola"});
        assert_eq!(serde_json::Value::Object(headers(&identity)), plain);
        identity.org_id = Some("skola-malmö 01".into());
        identity.correlation_id = Some("c".into());
        let quoted = serde_json::json!({
            "X-User-ID": "larare-0017", "X-Org-ID": "skola-malm%C3%B6%2001", "X-Tenant-ID": "skola",
            "X-Correlation-ID": "c", "X-Identity-Encoding": "url",
        });
        assert_eq!(serde_json::Value::Object(headers(&identity)), quoted);
    }
}
