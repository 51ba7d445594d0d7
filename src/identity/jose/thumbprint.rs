//! RFC 7638: a name for a key made from the key, for keys that come without a `kid`.

use super::base64url;
use super::jwk::Material;
use aws_lc_rs::digest::{SHA256, digest};
use serde_json::{Map, Value, json};

/// The members that make the key, in the order RFC 7638 §3.2 hashes them. None for a secret: its hash would be a
/// guess's proof (§7).
pub fn public_members(material: &Material) -> Option<Map<String, Value>> {
    let members = match material {
        Material::Secret(_) => return None,
        Material::Rsa { n, e } => json!({
            "e": base64url::encode(e),
            "kty": "RSA",
            "n": base64url::encode(n),
        }),
        Material::Ec { curve, point } => {
            let (x, y) = point[1..].split_at(curve.coordinate_bytes());
            json!({
                "crv": curve.name(),
                "kty": "EC",
                "x": base64url::encode(x),
                "y": base64url::encode(y),
            })
        }
        Material::Ed25519(x) => json!({
            "crv": "Ed25519",
            "kty": "OKP",
            "x": base64url::encode(x),
        }),
    };
    members.as_object().cloned()
}

/// The SHA-256 thumbprint, base64url. None for a secret.
pub fn thumbprint(material: &Material) -> Option<String> {
    let members = public_members(material)?;
    let text = Value::Object(members).to_string();
    Some(base64url::encode(digest(&SHA256, text.as_bytes()).as_ref()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::jose::jwk::Jwk;

    fn of(text: &str) -> Option<String> {
        thumbprint(&Jwk::parse(&serde_json::from_str(text).unwrap()).unwrap().material)
    }

    #[test]
    fn rfc_7638_3_1() {
        let jwk = r#"{"kty":"RSA","n":"0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw","e":"AQAB","alg":"RS256","kid":"2011-04-29"}"#;
        assert_eq!(of(jwk).unwrap(), "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs");
    }

    #[test]
    fn rfc_8037_a_3() {
        let jwk = r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;
        assert_eq!(of(jwk).unwrap(), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
    }

    #[test]
    fn a_secret_has_none() {
        assert_eq!(of(r#"{"kty":"oct","k":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}"#), None);
    }
}
