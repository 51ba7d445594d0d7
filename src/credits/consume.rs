//! Contract H: consumption by metric. The organization pays if it covers the whole cost, else the user does, never
//! both. No seat or subscription is asked for. Everything leaves an audit row, also what was free or refused.

use super::amount::{Credits, LARGEST};
use super::debit::{self, Charge, Outcome, Seat};
use super::owner::organization_not_found;
use super::payer::{self, Payer, present};
use super::pool::Pool;
use super::settle;
use crate::limits;
use crate::pg::metrics::{self, Series};
use crate::pg::sql::{self, Arg, Mode};
use crate::pg::{self, Composite, Decimal, Error, Fields, Jsonb, Result, State};
use crate::schema::require_installed;
use pgrx::{default, pg_extern, search_path};
use serde_json::json;
use std::ffi::CStr;
use uuid::Uuid;

/// What the original wrote where it did not know who had asked.
const PLACEHOLDER: &str = "unknown-user";

/// Charges `amount` units of a metric to the organization, else to the user.
#[pg_extern(volatile, parallel_unsafe, security_definer, requires = ["credits_types"])]
#[search_path(pg_catalog, pg_temp)]
fn consume_credits(
    user_id: Option<&str>,
    org_id: Option<&str>,
    metric: Option<&str>,
    amount: Option<i32>,
    batch_id: default!(Option<&str>, "NULL"),
    correlation_id: default!(Option<&str>, "NULL"),
) -> Composite<Consumed> {
    pg::entry(|| consume(None, user_id, org_id, metric, amount, batch_id, correlation_id))
}

/// The same for ids of a namespace that the caller answers for: an event's, which is consumed without an identity.
#[pg_extern(name = "_consume_credits", volatile, parallel_unsafe, requires = ["credits_types"])]
#[allow(clippy::too_many_arguments)]
fn consume_credits_of(
    namespace: &str,
    user_id: Option<&str>,
    org_id: Option<&str>,
    metric: Option<&str>,
    amount: Option<i32>,
    batch_id: Option<&str>,
    correlation_id: Option<&str>,
) -> Composite<Consumed> {
    pg::entry(|| consume(Some(namespace), user_id, org_id, metric, amount, batch_id, correlation_id))
}

/// Locks these pools, as far as there are any, in the order of their ids: for whoever will charge several one by one.
#[pg_extern(name = "_lock_pools", volatile, parallel_unsafe)]
fn lock_pools(mut pools: Vec<pgrx::Uuid>) {
    pg::entry(|| {
        pools.sort_by_key(|id| *id.as_bytes());
        pools.dedup();
        pools.iter().try_for_each(|id| Pool::lock_as_stored(Uuid::from_bytes(*id.as_bytes())).map(drop))
    })
}

fn consume(
    namespace: Option<&str>,
    user_id: Option<&str>,
    org_id: Option<&str>,
    metric: Option<&str>,
    amount: Option<i32>,
    batch_id: Option<&str>,
    correlation_id: Option<&str>,
) -> Result<Composite<Consumed>> {
    require_installed()?;
    let subject = Subject::named(namespace, user_id, org_id)?;
    let metric = match namespace {
        // In an event an empty text is valid, and a metric that nobody prices.
        Some(_) => metric.ok_or_else(|| payer::null("metric"))?,
        None => present(metric, "metric")?,
    };
    let units = amount.filter(|amount| *amount >= 0).ok_or_else(|| {
        Error::new(State::INVALID_PARAMETER, "invalid_argument", "amount must be a number of units, not negative")
            .hint("Pass how many units of the metric were consumed.")
            .detail("parameter", "amount")
    })?;
    let cost = cost(metric, units.into())?;
    let consumption = Consumption { subject, metric, units, cost, batch_id, correlation_id };
    let done = consumption.run()?;
    consumption.record(&done)?;
    if done.success {
        let Subject { user_id, namespace, organization, .. } = &consumption.subject;
        limits::note(&tenant(*organization, user_id, namespace)?, metric, &limited(user_id), units.unsigned_abs())?;
    }
    Ok(Composite(done))
}

/// Who consumes: registered where it was not yet, for the contract's events name users nobody registered.
struct Subject<'a> {
    user_id: &'a str,
    org_id: Option<&'a str>,
    namespace: String,
    user: Uuid,
    organization: Option<Uuid>,
}

impl<'a> Subject<'a> {
    /// Errors: 22023; PT403 `identity_mismatch`; PT404 `organization_not_found`.
    fn named(namespace: Option<&str>, user_id: Option<&'a str>, org_id: Option<&'a str>) -> Result<Self> {
        let user_id = present(user_id, "user_id")?;
        if user_id == PLACEHOLDER {
            return Err(Error::new(State::INVALID_PARAMETER, "invalid_argument", "user_id must name somebody")
                .hint("Nothing is attributed to a placeholder: pass the id of the user who asked.")
                .detail("parameter", "user_id"));
        }
        let org_id = org_id.filter(|id| !id.trim().is_empty());
        let namespace = match namespace {
            Some(namespace) => namespace.to_owned(),
            None => payer::allow(user_id, org_id)?,
        };
        let organization =
            org_id.map(|id| payer::organization(&namespace, id)?.ok_or_else(organization_not_found)).transpose()?;
        let user = match payer::user(&namespace, user_id)? {
            Some(user) => user,
            None => register(user_id, &namespace)?,
        };
        Ok(Self { user_id, org_id, namespace, user, organization })
    }
}

fn register(user_id: &str, namespace: &str) -> Result<Uuid> {
    let registered = sql::query_opt(
        "SELECT tenancy.register_user(user_id => $1, namespace => $2)",
        &[user_id.into(), namespace.into()],
        Mode::Write,
        |row| Ok(row.uuid(1)),
    )?;
    registered.flatten().ok_or_else(payer::user_not_found)
}

struct Consumption<'a> {
    subject: Subject<'a>,
    metric: &'a str,
    units: i32,
    cost: i64,
    batch_id: Option<&'a str>,
    correlation_id: Option<&'a str>,
}

/// What became of a consumption: `tenancy.consumption`, and what the audit row needs.
struct Consumed {
    success: bool,
    balance: i64,
    /// `user`, `org` or `none`.
    consumed_from: &'static str,
    transaction_id: Option<Uuid>,
}

impl Fields for Consumed {
    const NAME: &'static CStr = c"consumption";
    const SQL: &'static str = "tenancy.consumption";

    fn fields(&self) -> Vec<Arg<'_>> {
        vec![Arg::Bool(Some(self.success)), Arg::Micros(Some(self.balance.into())), Arg::Text(Some(self.consumed_from))]
    }
}

impl Consumption<'_> {
    fn run(&self) -> Result<Consumed> {
        let charge_at_once = |charge: &Charge| debit::charge_at_once(charge, true);
        let charge = |charge: &Charge| debit::charge(charge, true).map(Some);
        let organization = self.subject.organization;
        if self.cost == 0 {
            let balance = available(organization.unwrap_or(self.subject.user), Mode::Write)?;
            return Ok(Consumed { success: true, balance, consumed_from: "none", transaction_id: None });
        }
        if let Some(organization) = organization {
            // Mostly it does not come to the user's pool, and the organization's alone is locked.
            if let Some(done) = self.charge(Some(organization), "org", charge_at_once)? {
                return Ok(done);
            }
            // In the order of their ids, as batches do.
            let mut pools = [organization, self.subject.user];
            pools.sort();
            for pool in pools {
                Pool::lock(pool)?;
            }
            if let Some(done) = self.charge(Some(organization), "org", charge)? {
                return Ok(done);
            }
        }
        if let Some(done) = self.charge(None, "user", charge)? {
            return Ok(done);
        }
        metrics::count(Series::Denied("insufficient_credits"), 1);
        let balance = available(self.subject.user, Mode::Write)?;
        Ok(Consumed { success: false, balance, consumed_from: "user", transaction_id: None })
    }

    /// None where the pool does not cover the cost.
    fn charge(
        &self,
        organization: Option<Uuid>,
        consumed_from: &'static str,
        charge: impl Fn(&Charge) -> Result<Option<Outcome>>,
    ) -> Result<Option<Consumed>> {
        let metadata = json!({ "metric": self.metric, "quantity": self.units, "batch_id": self.batch_id });
        let metadata = Jsonb::parse(&metadata.to_string());
        let description = format!("Consumption of {}", self.metric);
        let asked = Charge {
            payer: Payer { user: self.subject.user, organization },
            amount: Credits::parse(Some(Decimal::Micros(self.cost.into())))?,
            description: Some(&description),
            reference_id: self.batch_id,
            metadata: metadata.as_ref(),
            key: None,
            correlation_id: self.correlation_id,
            seat: Seat::Optional,
        };
        Ok(match charge(&asked)? {
            Some(Outcome::Charged(charged)) => Some(Consumed {
                success: true,
                balance: charged.balance_after - charged.held_after,
                consumed_from,
                transaction_id: Some(charged.transaction_id),
            }),
            // The organization would pay, but not for this member: nobody else does then.
            Some(Outcome::Capped(_)) => {
                metrics::count(Series::Denied("cap_reached"), 1);
                let balance = available(asked.payer.pool(), Mode::Write)?;
                Some(Consumed { success: false, balance, consumed_from, transaction_id: None })
            }
            Some(Outcome::Replayed(_) | Outcome::Insufficient(_)) | None => None,
        })
    }

    fn record(&self, done: &Consumed) -> Result<()> {
        let by_organization =
            done.consumed_from == "org" || (done.consumed_from == "none" && self.subject.organization.is_some());
        sql::execute(
            "INSERT INTO tenancy.credit_operations
                 (tenant_id, id, subject_type, subject_id, user_id, org_id, metric, amount, cost, batch_id, consumed_from,
                  correlation_id, operation_status, transaction_id, created_at)
             SELECT coalesce(o.tenant_id, CASE WHEN u.namespace = '' THEN '' ELSE u.namespace || '::' END
                                          || 'user::' || u.external_id),
                    tenancy.uuid_v7(), $3, $4, $5, $6, $7, $8, $9, $10, $11,
                    coalesce($12, tenancy.correlation_id()), $13, $14, $15
               FROM tenancy.users AS u LEFT JOIN tenancy.organizations AS o ON o.id = $2
              WHERE u.id = $1",
            &[
                self.subject.user.into(),
                Arg::Uuid(self.subject.organization),
                if by_organization { "org" } else { "user" }.into(),
                self.subject.org_id.filter(|_| by_organization).unwrap_or(self.subject.user_id).into(),
                self.subject.user_id.into(),
                Arg::Text(self.subject.org_id),
                self.metric.into(),
                Arg::Int(Some(self.units)),
                Arg::Micros(Some(self.cost.into())),
                Arg::Text(self.batch_id),
                done.consumed_from.into(),
                Arg::Text(self.correlation_id),
                if done.success { "completed" } else { "failed" }.into(),
                Arg::Uuid(done.transaction_id),
                Arg::Time(Some(super::clock::now())),
            ],
        )
        .map(drop)
    }
}

/// What so many units of a metric cost, in millionths; a metric nobody priced is free.
pub(super) fn cost(metric: &str, units: i128) -> Result<i64> {
    let price = sql::query_opt(
        "SELECT c.cost FROM tenancy.credit_costs AS c WHERE c.metric = $1",
        &[metric.into()],
        Mode::Read,
        |row| Ok(row.credits(1)),
    )?;
    let cost = i128::from(price.unwrap_or_default()).checked_mul(units);
    match cost {
        Some(cost) if cost <= i128::from(LARGEST) => Ok(cost as i64),
        _ => Err(Error::new(State::OUT_OF_RANGE, "amount_out_of_range", "The cost is more than 999999999999.999999")
            .hint("Consume less at once, or check the metric's cost.")),
    }
}

/// Available credits at this moment; what is due is worked out and not written.
pub(super) fn available(pool: Uuid, mode: Mode) -> Result<i64> {
    if mode == Mode::Write {
        return Ok(Pool::lock(pool)?.map_or(0, |pool| pool.available()));
    }
    let Some(pool) = Pool::read(pool)? else { return Ok(0) };
    if pool.now >= pool.next_expiry_at {
        return Ok(settle::preview(&pool)?.available());
    }
    Ok(pool.available())
}

/// Contract H limits each user, whoever pays.
pub(super) fn limited(user_id: &str) -> String {
    format!("user:{user_id}")
}

/// The tenant in which a user consumes: the organization's, else the user's own (design §2).
pub(super) fn tenant(organization: Option<Uuid>, user_id: &str, namespace: &str) -> Result<String> {
    let Some(organization) = organization else {
        let prefix = if namespace.is_empty() { String::new() } else { format!("{namespace}::") };
        return Ok(format!("{prefix}user::{user_id}"));
    };
    let tenant = sql::query_opt(
        "SELECT o.tenant_id FROM tenancy.organizations AS o WHERE o.id = $1",
        &[organization.into()],
        Mode::Read,
        |row| Ok(row.text(1)),
    )?;
    tenant.flatten().ok_or_else(organization_not_found)
}
