//! Credits into a pool.

use super::amount::Credits;
use super::entry_id::entry_id;
use super::payer::{self, present, user_not_found};
use super::{clock, pool};
use crate::ids::tagged;
use crate::pg::sql::{self, Arg, Mode};
use crate::pg::{self, Decimal, Error, Result, State};
use crate::schema::require_installed;
use pgrx::datum::TimestampWithTimeZone;
use pgrx::{default, pg_extern, search_path};
use uuid::Uuid;

/// Whose pool is meant.
pub enum Owner {
    Organization(Uuid),
    User(Uuid),
}

impl Owner {
    /// The owner of the pool an operator names: an organization or a user, not both.
    ///
    /// Errors: 22023 `invalid_argument`; PT404 `organization_not_found`, `user_not_found`.
    pub fn named(org_id: Option<&str>, user_id: Option<&str>, namespace: &str) -> Result<Self> {
        match (org_id, user_id) {
            (Some(org_id), None) => payer::organization(namespace, present(Some(org_id), "org_id")?)?
                .map(Owner::Organization)
                .ok_or_else(organization_not_found),
            (None, Some(user_id)) => {
                payer::user(namespace, present(Some(user_id), "user_id")?)?.map(Owner::User).ok_or_else(user_not_found)
            }
            _ => Err(Error::new(State::INVALID_PARAMETER, "invalid_argument", "Name either org_id or user_id")
                .hint("A pool belongs to an organization or to a user.")
                .detail("parameter", "org_id")),
        }
    }

    pub fn pool(&self) -> Uuid {
        match *self {
            Owner::Organization(id) | Owner::User(id) => id,
        }
    }

    fn ensure_pool(&self, now: i64) -> Result<()> {
        match *self {
            Owner::Organization(id) => pool::ensure_organization(id, now),
            Owner::User(id) => pool::ensure_personal(id, now),
        }
    }
}

/// An organization nobody registered.
pub fn organization_not_found() -> Error {
    Error::new(State::NOT_FOUND, "organization_not_found", "Organization not found")
        .hint("Register it: SELECT tenancy.register_organization(org_id => …, name => …);")
}

/// Gives credits to a pool.
#[pg_extern(volatile, parallel_unsafe, security_definer)]
#[search_path(pg_catalog, pg_temp)]
#[allow(clippy::too_many_arguments)]
fn grant_credits(
    amount: Option<Decimal>,
    org_id: default!(Option<&str>, "NULL"),
    user_id: default!(Option<&str>, "NULL"),
    reason: default!(Option<&str>, "NULL"),
    expires_at: default!(Option<TimestampWithTimeZone>, "NULL"),
    priority: default!(i32, "0"),
    idempotency_key: default!(Option<&str>, "NULL"),
    namespace: default!(Option<&str>, "NULL"),
) -> pgrx::Uuid {
    pg::entry(|| {
        require_installed()?;
        let amount = Credits::parse(amount)?;
        if expires_at.is_some() || idempotency_key.is_some() {
            return Err(Error::new(
                State::NOT_SUPPORTED,
                "not_supported",
                "Expiry and idempotency keys are not supported yet",
            ));
        }
        let bearer = pg::bearer();
        let namespace = namespace.or(bearer.as_ref().map(|bearer| bearer.namespace.as_str())).unwrap_or("");
        let owner = Owner::named(org_id, user_id, namespace)?;
        let now = clock::now();
        owner.ensure_pool(now)?;
        let pool = owner.pool();
        let row = sql::query_opt(
            "UPDATE tenancy.credit_pools AS p
                SET balance = p.balance + $2, granted_total = p.granted_total + $2, seq = p.seq + 1,
                    last_entry_at = greatest(p.last_entry_at, $3)
              WHERE p.pool_id = $1
             RETURNING p.seq, p.last_entry_at, p.balance",
            &[pool.into(), Arg::Micros(Some(amount.micros().into())), Arg::Time(Some(now))],
            Mode::Write,
            |row| Ok((row.get::<i64>(1).unwrap_or_default(), row.time(2).unwrap_or_default(), row.credits(3))),
        )?;
        let (seq, at, balance) = row.ok_or_else(organization_not_found)?;
        let grant = tagged(pool);
        sql::execute(
            "INSERT INTO tenancy.credit_grants
                 (pool_id, id, tenant_id, source, amount, remaining, priority, effective_at, is_posted, is_open, reason, created_at)
             SELECT p.pool_id, $2, p.tenant_id, 'grant', $3, $3, $4, $5, true, true, $6, $5
               FROM tenancy.credit_pools AS p WHERE p.pool_id = $1",
            &[
                pool.into(),
                grant.into(),
                Arg::Micros(Some(amount.micros().into())),
                Arg::Int(Some(priority)),
                Arg::Time(Some(at)),
                Arg::Text(reason),
            ],
        )?;
        sql::execute(
            "INSERT INTO tenancy.credit_transactions
                 (pool_id, id, seq, tenant_id, organization_id, credits_amount, operation_type, description, balance_after,
                  grant_id, correlation_id, created_at)
             SELECT p.pool_id, $2, $3, p.tenant_id, p.organization_id, $4, 'grant', $5, $6, $7, tenancy.correlation_id(), $8
               FROM tenancy.credit_pools AS p WHERE p.pool_id = $1",
            &[
                pool.into(),
                entry_id(pool, at, seq).into(),
                Arg::Long(Some(seq)),
                Arg::Micros(Some(amount.micros().into())),
                Arg::Text(reason),
                Arg::Micros(Some(balance.into())),
                grant.into(),
                Arg::Time(Some(at)),
            ],
        )?;
        Ok(pgrx::Uuid::from_bytes(*grant.as_bytes()))
    })
}
