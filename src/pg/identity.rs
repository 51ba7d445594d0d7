//! The identity as it stands in the sealed setting: plain data, serialised as JSON.

use serde::{Deserialize, Serialize};

/// Who a transaction acts for. External ids are text as in tokens; internal ids are uuid.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Identity {
    /// How it was established: `token`, `act_as` or `api_key`.
    pub source: String,
    /// The issuer of the token, if there was one.
    #[serde(default)]
    pub issuer: Option<String>,
    /// The token's `jti`.
    #[serde(default)]
    pub token_id: Option<String>,
    /// `kid` and `alg` of the token's header: which key verified it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub algorithm: Option<String>,
    /// Whether a signing profile's key signed that token.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub issued_here: bool,
    /// The namespace that `user_id` and `org_id` live in.
    #[serde(default)]
    pub namespace: String,
    /// The user's external id.
    pub user_id: String,
    /// The tenant, unique over the whole database.
    pub tenant_id: String,
    /// The organization's external id; none for a personal identity.
    #[serde(default)]
    pub org_id: Option<String>,
    /// The role in the organization.
    #[serde(default)]
    pub org_role: Option<String>,
    /// `organization` or `personal`: which pool pays.
    pub pool: String,
    /// The provider's session.
    #[serde(default)]
    pub session_id: Option<String>,
    /// Follows the work through events, ledger and audit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<String>,
    /// `users.id`, where the user is registered.
    #[serde(default)]
    pub user_uuid: Option<uuid::Uuid>,
    /// `organizations.id`, where the organization is registered.
    #[serde(default)]
    pub organization_id: Option<uuid::Uuid>,
    /// `organization_seats.id` of an active, unexpired seat.
    #[serde(default)]
    pub seat_id: Option<uuid::Uuid>,
    /// When that seat ends by itself, in microseconds since 2000-01-01 UTC: a cached identity is not good beyond it.
    #[serde(skip)]
    pub seat_expires_at: Option<i64>,
    /// Microseconds since 2000-01-01 UTC, as Postgres counts; none: no expiry.
    #[serde(default)]
    pub expires_at: Option<i64>,
    /// Permissions the token or the role carries.
    #[serde(default)]
    pub permissions: Vec<String>,
    /// The claims as they stood in the token, JSON.
    #[serde(default)]
    pub claims: Option<String>,
}

impl Identity {
    /// The setting's value.
    pub fn to_value(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(self)
    }

    /// Reads the setting's value.
    pub fn from_value(value: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(value)
    }

    /// Tells two identities apart: the same ids in the same namespace are the same identity.
    pub fn same_as(&self, other: &Self) -> bool {
        self.key() == other.key()
    }

    fn key(&self) -> (&str, &str, &str, Option<&str>) {
        (&self.namespace, &self.user_id, &self.tenant_id, self.org_id.as_deref())
    }
}

/// A uuid only where the text is in canonical form: 36 characters, lower case.
pub fn canonical_uuid(text: &str) -> Option<uuid::Uuid> {
    let value = uuid::Uuid::try_parse(text).ok()?;
    let mut buffer = uuid::Uuid::encode_buffer();
    (&*value.hyphenated().encode_lower(&mut buffer) == text).then_some(value)
}

/// A bigint only where the text is in canonical form: no sign but a minus, no leading zeros.
pub fn canonical_bigint(text: &str) -> Option<i64> {
    let value: i64 = text.parse().ok()?;
    (value.to_string() == text).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::{canonical_bigint, canonical_uuid};

    #[test]
    fn a_tenant_id_is_typed_only_in_canonical_form() {
        assert!(canonical_uuid("11111111-1111-4111-8111-111111111111").is_some());
        for text in [
            "11111111111141118111111111111111",
            "{11111111-1111-4111-8111-111111111111}",
            "ABCDEFAB-1111-4111-8111-111111111111",
            "",
        ] {
            assert_eq!(canonical_uuid(text), None, "{text}");
        }
        assert_eq!(canonical_bigint("42"), Some(42));
        assert_eq!(canonical_bigint("-7"), Some(-7));
        for text in ["042", "+42", "-0", " 42", "9223372036854775808", "4.0", ""] {
            assert_eq!(canonical_bigint(text), None, "{text}");
        }
    }
}
