//! Who pays: pools of credits, charged under the pool's lock, with seat and subscription judged there
//! and the full attribution written beside the charge.
//!
//! This file is the surface; the rules are in the files beside it. The inner debit
//! ([`debit::charge`]) takes one pool and touches one pool (design §8).

/// The server's keys in metadata beside `pool`, as SQL: a personal charge has none of them, whatever the caller wrote.
macro_rules! attribution_keys {
    () => {
        "'{clerk_org_id,organization_id,organization_name,stripe_customer_id,organization_subscription_id,seat_id,seat_role}'::text[]"
    };
}

mod adjust;
mod alerts;
mod amount;
mod attribution;
mod balance;
mod batch;
mod batch_request;
mod book;
#[cfg(test)]
mod book_tests;
mod caps;
mod chain;
mod check;
mod clock;
mod consume;
mod debit;
mod entry_id;
mod grant;
mod hold;
mod idempotency;
mod ledger;
mod owner;
mod payer;
mod period;
mod pool;
mod refund;
mod result;
mod rows;
mod seal;
mod set_cap;
mod settle;
mod sound;
mod sweep;
mod tables;

use crate::pg::{self, Composite, Decimal, Error, Jsonb, Result, State};
use crate::schema::require_installed;
use amount::Credits;
use debit::{Charge, Outcome, Seat};
use idempotency::{Body, Key};
use payer::Payer;
use pgrx::{default, pg_extern, search_path};
use result::Deduction;

/// Metadata of a caller may be smaller than this, in bytes as stored.
const METADATA_LIMIT: usize = 1_000_000;

/// Contract S, `deduct_credits_pooled` v2: true and one ledger row, or false and nothing.
#[pg_extern(volatile, parallel_unsafe, security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn deduct_credits_pooled(
    p_clerk_user_id: Option<&str>,
    p_amount: Option<Decimal>,
    p_clerk_org_id: default!(Option<&str>, "NULL"),
    p_description: default!(Option<&str>, "'Credits used'"),
    p_reference_id: default!(Option<&str>, "NULL"),
) -> bool {
    pg::entry(|| {
        require_installed()?;
        let amount = Credits::parse(p_amount)?;
        let payer =
            payer::named(p_clerk_user_id, p_clerk_org_id).map_err(|error| told(error, p_clerk_org_id, amount))?;
        let charge = Charge {
            payer,
            amount,
            description: p_description,
            reference_id: p_reference_id,
            metadata: None,
            key: None,
            correlation_id: None,
            seat: Seat::Required,
        };
        let outcome = debit::charge(&charge, false).map_err(|error| told(error, p_clerk_org_id, amount))?;
        let charged = matches!(outcome, Outcome::Charged(_));
        if !charged {
            // The contract answers false where the others raise, and so count.
            pg::metrics::count(pg::metrics::Series::Denied("insufficient_credits"), 1);
        }
        Ok(charged)
    })
}

/// Charges a user's organization, or with no organization the user's own pool; raises where that cannot be.
#[pg_extern(volatile, parallel_unsafe, security_definer, requires = ["credits_types"])]
#[search_path(pg_catalog, pg_temp)]
#[allow(clippy::too_many_arguments)]
fn deduct_credits(
    user_id: Option<&str>,
    amount: Option<Decimal>,
    org_id: default!(Option<&str>, "NULL"),
    description: default!(Option<&str>, "'Credits used'"),
    reference_id: default!(Option<&str>, "NULL"),
    idempotency_key: default!(Option<&str>, "NULL"),
    metadata: default!(Option<Jsonb>, "'{}'"),
) -> Composite<Deduction> {
    pg::entry(|| {
        require_installed()?;
        let amount = Credits::parse(amount)?;
        payer::named(user_id, org_id)
            .and_then(|payer| deduct(payer, amount, description, reference_id, idempotency_key, metadata.as_ref()))
            .map_err(|error| told(error, org_id, amount))
    })
}

/// Charges whoever is authenticated: the organization acted for, else the user's own pool.
#[pg_extern(volatile, parallel_unsafe, security_definer, requires = ["credits_types"])]
#[search_path(pg_catalog, pg_temp)]
fn spend_credits(
    amount: Option<Decimal>,
    description: default!(Option<&str>, "'Credits used'"),
    reference_id: default!(Option<&str>, "NULL"),
    idempotency_key: default!(Option<&str>, "NULL"),
    metadata: default!(Option<Jsonb>, "'{}'"),
) -> Composite<Deduction> {
    pg::entry(|| {
        require_installed()?;
        let amount = Credits::parse(amount)?;
        let org_id = pg::bearer().and_then(|bearer| bearer.org_id);
        payer::authenticated()
            .and_then(|payer| deduct(payer, amount, description, reference_id, idempotency_key, metadata.as_ref()))
            .map_err(|error| told(error, org_id.as_deref(), amount))
    })
}

fn deduct(
    payer: Payer,
    amount: Credits,
    description: Option<&str>,
    reference_id: Option<&str>,
    idempotency_key: Option<&str>,
    metadata: Option<&Jsonb>,
) -> Result<Composite<Deduction>> {
    let metadata = own_metadata(metadata)?;
    let body = Body::new("charge")
        .bytes(Some(payer.user.as_bytes()))
        .number(Some(amount.micros()))
        .text(description)
        .text(reference_id)
        .json(metadata);
    let key = Key::new(idempotency_key, "charge", body)?;
    let charge =
        Charge { payer, amount, description, reference_id, metadata, key, correlation_id: None, seat: Seat::Required };
    match debit::charge(&charge, true)? {
        Outcome::Charged(charged) => Ok(Composite(Deduction::new(&charge, charged))),
        Outcome::Replayed(answer) => Ok(Composite(idempotency::replay(payer.pool(), &answer)?)),
        Outcome::Insufficient(shortage) => Err(shortage.error(&payer, amount)),
        Outcome::Capped(reached) => Err(reached.error(amount.micros())),
    }
}

/// A business refusal, with DETAIL's four members: reason, pool, required, available. What is available is NULL where
/// it has not been looked at, or is not the caller's to know.
fn told(error: Error, org_id: Option<&str>, amount: Credits) -> Error {
    if !error.sqlstate().starts_with("PT4") {
        return error;
    }
    error
        .or_detail("pool", if org_id.is_some() { "organization" } else { "personal" })
        .or_detail("required", amount::json(amount.micros()))
        .or_detail("available", serde_json::Value::Null)
}

/// The correlation id of the identity in force.
fn correlation_id() -> Option<String> {
    pg::bearer().filter(|bearer| bearer.live)?.correlation_id
}

/// The caller's metadata, none where it says nothing.
///
/// Errors: 54000 `metadata_too_large`; 22023 `invalid_argument` for what is no object.
fn own_metadata(metadata: Option<&Jsonb>) -> Result<Option<&Jsonb>> {
    let Some(metadata) = metadata.filter(|metadata| !metadata.is_empty_object()) else { return Ok(None) };
    if metadata.size() >= METADATA_LIMIT {
        return Err(Error::new(State::TOO_LARGE, "metadata_too_large", "metadata is larger than 1 MB")
            .hint("Keep what is large elsewhere, and its id here.")
            .detail("limit", METADATA_LIMIT));
    }
    if !metadata.is_object() {
        return Err(Error::new(State::INVALID_PARAMETER, "invalid_argument", "metadata must be a JSON object")
            .hint("Pass metadata as {\"key\": \"value\"}.")
            .detail("parameter", "metadata"));
    }
    Ok(Some(metadata))
}
