//! Whose pool an operator or a reader means.

use super::clock;
use super::payer::{self, present, user_not_found};
use super::pool::{self, Pool};
use crate::pg::{self, Error, Result, State};
use crate::schema::require_installed;
use pgrx::{pg_extern, search_path};
use uuid::Uuid;

/// Whose pool is meant.
pub enum Owner {
    Organization(Uuid),
    User(Uuid),
}

impl Owner {
    /// The owner of a pool: an organization or a user, not both.
    ///
    /// Errors: 22023 `invalid_argument`; PT404 `organization_not_found`, `user_not_found`.
    pub fn named(org_id: Option<&str>, user_id: Option<&str>, namespace: &str) -> Result<Self> {
        match (org_id, user_id) {
            (Some(_), None) => payer::organization(namespace, present(org_id, "org_id")?)?
                .map(Owner::Organization)
                .ok_or_else(organization_not_found),
            (None, Some(_)) => {
                payer::user(namespace, present(user_id, "user_id")?)?.map(Owner::User).ok_or_else(user_not_found)
            }
            _ => Err(Error::new(State::INVALID_PARAMETER, "invalid_argument", "Name either org_id or user_id")
                .hint("A pool belongs to an organization or to a user.")
                .detail("parameter", "org_id")),
        }
    }

    /// The pool's id is its owner's.
    pub fn pool(&self) -> Uuid {
        match *self {
            Owner::Organization(id) | Owner::User(id) => id,
        }
    }

    /// The pool, made where there is none, locked and brought to the present.
    pub fn locked_pool(&self) -> Result<Pool> {
        if let Some(pool) = Pool::lock(self.pool())? {
            return Ok(pool);
        }
        match *self {
            Owner::Organization(id) => pool::ensure_organization(id, clock::now())?,
            Owner::User(id) => pool::ensure_personal(id, clock::now())?,
        }
        Pool::lock(self.pool())?.ok_or_else(|| {
            Error::new(State::INTERNAL, "pool_missing", "The pool could not be made")
                .hint("The organization or user was deleted meanwhile: run it again.")
        })
    }
}

/// An organization nobody registered.
pub fn organization_not_found() -> Error {
    Error::new(State::NOT_FOUND, "organization_not_found", "Organization not found")
        .hint("Register it: SELECT tenancy.register_organization(org_id => …, name => …);")
}

/// The namespace that bare ids are in: the one named, else the identity's, else the empty one.
pub fn namespace(named: Option<&str>) -> String {
    match named {
        Some(named) => named.to_owned(),
        None => pg::bearer().map(|bearer| bearer.namespace).unwrap_or_default(),
    }
}

/// Locks and settles a pool for a function written in SQL; made where there is none.
#[pg_extern(name = "_lock_credit_pool", volatile, parallel_unsafe, security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn lock_credit_pool(org_id: Option<&str>, user_id: Option<&str>, namespace: Option<&str>) -> pgrx::Uuid {
    pg::entry(|| {
        require_installed()?;
        let pool = Owner::named(org_id, user_id, &self::namespace(namespace))?.locked_pool()?;
        Ok(pgrx::Uuid::from_bytes(*pool.id.as_bytes()))
    })
}
