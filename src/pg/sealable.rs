//! An identity made ready to be sealed: what all its sealings have in common is worked out once.

use super::identity::{Identity, canonical_bigint, canonical_uuid};
use super::{Error, Result, State};
use std::ffi::CString;

/// An identity with what its sealings have in common: two by one token differ in the correlation id alone.
pub struct Sealable {
    identity: Identity,
    typed: Typed,
    /// The setting's value up to the correlation id.
    opening: String,
}

/// The ids of an identity as the types that columns have.
pub(super) struct Typed {
    pub tenant_bigint: Option<i64>,
    pub tenant_uuid: Option<uuid::Uuid>,
    pub org_uuid: Option<uuid::Uuid>,
}

impl Sealable {
    /// Makes an identity ready. Its correlation id, if it has one, is used where the request brings none.
    pub fn new(mut identity: Identity) -> Self {
        let correlation_id = identity.correlation_id.take();
        let mut opening = identity.to_value().expect("plain data can be written down");
        assert_eq!(opening.pop(), Some('}'), "an object ends so");
        identity.correlation_id = correlation_id;
        // They stand in the value; nobody asks for them here.
        identity.claims = None;
        identity.permissions = Vec::new();
        Sealable { typed: Typed::of(&identity), identity, opening }
    }

    /// Whose it is. Its claims and permissions are in the sealed value only.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    pub(super) fn typed(&self) -> &Typed {
        &self.typed
    }

    /// The setting's value with this correlation id.
    pub(super) fn value(&self, correlation_id: &str) -> Result<CString> {
        let unfit =
            || Error::new(State::INTERNAL, "identity_not_serialisable", "The identity could not be written down");
        const NAME: &[u8] = b",\"correlation_id\":";
        // Quotes, brace and the zero byte: exactly as long as it gets, so that it is not moved.
        let mut value = Vec::with_capacity(self.opening.len() + NAME.len() + correlation_id.len() + 4);
        value.extend_from_slice(self.opening.as_bytes());
        value.extend_from_slice(NAME);
        serde_json::to_writer(&mut value, correlation_id).map_err(|_| unfit())?;
        value.push(b'}');
        CString::new(value).map_err(|_| unfit())
    }
}

impl Typed {
    pub(super) fn of(identity: &Identity) -> Self {
        Typed {
            tenant_bigint: canonical_bigint(&identity.tenant_id),
            tenant_uuid: canonical_uuid(&identity.tenant_id),
            org_uuid: identity.org_id.as_deref().and_then(canonical_uuid),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Identity, Sealable};

    #[test]
    fn what_is_sealed_is_the_identity_with_its_correlation_id() {
        let identity = Identity {
            source: "token".to_owned(),
            user_id: "u \"1\"".to_owned(),
            tenant_id: "42".to_owned(),
            org_id: Some("11111111-1111-4111-8111-111111111111".to_owned()),
            correlation_id: Some("its own".to_owned()),
            permissions: vec!["a".to_owned()],
            claims: Some("{\"a\":\"é\"}".to_owned()),
            ..Identity::default()
        };
        let sealable = Sealable::new(identity.clone());
        let value = sealable.value("\"\\").unwrap();
        let read = Identity::from_value(value.to_str().unwrap()).unwrap();
        let expected = Identity { correlation_id: Some("\"\\".to_owned()), ..identity };
        assert_eq!(format!("{read:?}"), format!("{expected:?}"));
        assert_eq!(sealable.identity().correlation_id.as_deref(), Some("its own"));
        assert_eq!(sealable.typed().tenant_bigint, Some(42));
        assert!(sealable.typed().org_uuid.is_some() && sealable.typed().tenant_uuid.is_none());
    }
}
