//! The JOSE header of a token (RFC 7515 §4), read before any key is touched.

use super::algorithm::Algorithm;
use super::json::{self, Json, JsonError, Object};
use super::reason::Reason;

/// Longest `kid`, in bytes.
pub const MAX_KID_BYTES: usize = 255;

/// What a verifier may use of a header. Members we do not know are ignored (RFC 7515 §4.3); those that would change
/// what the signature means, or where the key comes from, are refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// `alg`.
    pub algorithm: Algorithm,
    /// `kid`, matched exactly and only within the issuer.
    pub kid: Option<String>,
    /// `typ`, as it stands in the header.
    pub typ: Option<String>,
}

/// Each of these changes the meaning of payload or signature: RFC 7515 §4.1.11, RFC 7797, RFC 7516 §4.1.2 and §4.1.3.
const UNSUPPORTED: [&str; 4] = ["crit", "b64", "zip", "enc"];

/// Each of these carries a key, or says where to fetch one (RFC 7515 §4.1.2, §4.1.3, §4.1.5, §4.1.6). `x5t` and
/// `x5t#S256` only name a certificate; widely used providers send them, so they are ignored.
const EMBEDDED: [&str; 4] = ["jwk", "jku", "x5u", "x5c"];

impl Header {
    /// Parses a decoded header.
    pub fn parse(text: &[u8]) -> Result<Header, Reason> {
        let text = std::str::from_utf8(text).map_err(|_| Reason::MalformedHeader)?;
        let members = json::parse_object(text).map_err(|error| match error {
            JsonError::DuplicateMember => Reason::DuplicateMember,
            JsonError::Syntax | JsonError::TooDeep | JsonError::Nul => Reason::MalformedHeader,
        })?;
        if UNSUPPORTED.iter().any(|name| members.contains_key(name)) {
            return Err(Reason::UnsupportedHeader);
        }
        if EMBEDDED.iter().any(|name| members.contains_key(name)) {
            return Err(Reason::EmbeddedKey);
        }
        if string(&members, "cty")?.is_some_and(|cty| media_type(cty).eq_ignore_ascii_case("jwt")) {
            return Err(Reason::UnsupportedHeader);
        }
        let algorithm = Algorithm::parse(string(&members, "alg")?.ok_or(Reason::MalformedHeader)?)?;
        let kid = string(&members, "kid").map_err(|_| Reason::InvalidKid)?;
        if kid.is_some_and(|kid| !is_kid(kid)) {
            return Err(Reason::InvalidKid);
        }
        let typ = string(&members, "typ")?;
        Ok(Header { algorithm, kid: kid.map(str::to_owned), typ: typ.map(str::to_owned) })
    }
}

/// Whether the text can be a key id: 1 to 255 bytes, no control character.
pub fn is_kid(text: &str) -> bool {
    !text.is_empty() && text.len() <= MAX_KID_BYTES && !text.chars().any(char::is_control)
}

/// A media type without the `application/` that RFC 7515 §4.1.9 lets a sender leave out.
pub fn media_type(typ: &str) -> &str {
    match typ.split_at_checked("application/".len()) {
        Some((prefix, rest)) if prefix.eq_ignore_ascii_case("application/") && !rest.contains('/') => rest,
        _ => typ,
    }
}

fn string<'a>(members: &'a Object<'_>, name: &str) -> Result<Option<&'a str>, Reason> {
    match members.get(name) {
        None => Ok(None),
        Some(Json::Text(text)) => Ok(Some(text)),
        Some(_) => Err(Reason::MalformedHeader),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> Reason {
        Header::parse(text.as_bytes()).unwrap_err()
    }

    #[test]
    fn unknown_members_are_ignored_and_known_ones_kept() {
        let header = Header::parse(br#" {"alg":"ES256","kid":"k 1","typ":"at+jwt","x5t":"abc","foo":[1]} "#).unwrap();
        assert_eq!(header.algorithm, Algorithm::Es256);
        assert_eq!(header.kid.as_deref(), Some("k 1"));
        assert_eq!(header.typ.as_deref(), Some("at+jwt"));
    }

    #[test]
    fn attack_21_none_is_refused_in_any_case() {
        for name in ["none", "None", "NONE", "nOnE"] {
            assert_eq!(refused(&format!(r#"{{"alg":"{name}"}}"#)), Reason::AlgorithmNone);
        }
        for name in ["hs256", "HS256 ", "", "ES512", "RSA-OAEP", "dir"] {
            assert_eq!(refused(&format!(r#"{{"alg":"{name}"}}"#)), Reason::UnknownAlgorithm);
        }
    }

    #[test]
    fn attack_23_embedded_keys_are_refused() {
        for name in EMBEDDED {
            assert_eq!(refused(&format!(r#"{{"alg":"HS256","{name}":null}}"#)), Reason::EmbeddedKey);
        }
    }

    #[test]
    fn attack_31_crit_b64_and_zip_are_refused() {
        for name in UNSUPPORTED {
            assert_eq!(refused(&format!(r#"{{"alg":"HS256","{name}":[]}}"#)), Reason::UnsupportedHeader);
        }
        assert_eq!(refused(r#"{"alg":"HS256","cty":"application/JWT"}"#), Reason::UnsupportedHeader);
    }

    #[test]
    fn attack_24_a_kid_is_a_bounded_printable_string() {
        let long = "k".repeat(MAX_KID_BYTES + 1);
        for kid in ["\"\"", "1", "null", "[\"a\"]", r#""a\nb""#, &format!("\"{long}\"")] {
            assert_eq!(refused(&format!(r#"{{"alg":"HS256","kid":{kid}}}"#)), Reason::InvalidKid, "{kid}");
        }
    }

    #[test]
    fn wrong_types_are_refused() {
        let cases = [r#"{"alg":["HS256"]}"#, r#"{"alg":null}"#, "{}", r#"{"alg":"HS256","typ":1}"#, "[]", "\"alg\""];
        for text in cases {
            assert_eq!(refused(text), Reason::MalformedHeader, "{text}");
        }
        assert_eq!(Header::parse(b"{\"alg\":\"HS256\",\"kid\":\"\xff\"}").unwrap_err(), Reason::MalformedHeader);
        assert_eq!(refused(r#"{"alg":"none","alg":"HS256"}"#), Reason::DuplicateMember);
    }
}
