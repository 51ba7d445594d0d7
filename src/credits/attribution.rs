//! Whose charge it is: the seat, the subscription and the names that are written beside it, read under the pool's lock.
//!
//! READ COMMITTED reads with a snapshot taken after the lock was granted, so a seat revoked while we waited is seen. In
//! REPEATABLE READ and above the snapshot is older: there seat and subscription are locked FOR SHARE first, and a change
//! since then fails with 40001.
//!
//! What was read is kept with the versions of the rows it came from, and used again only while those rows stand.

use super::debit::Seat;
use super::payer::{Payer, no_active_seat, user_not_found};
use crate::pg::row_version::RowVersion;
use crate::pg::sql::{self, Arg, Mode};
use crate::pg::{self, Error, Jsonb, Result, State};
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use uuid::Uuid;

/// What the ledger says of an entry beside its figures.
pub struct Attribution {
    pub tenant: String,
    pub seat: Option<Uuid>,
    pub subscription: Option<Uuid>,
    /// The server's own keys.
    pub metadata: Jsonb,
    seat_expires_at: i64,
    /// The organization's, subscription's and seat's rows.
    rows: Vec<RowVersion>,
}

/// As many as a backend keeps.
const MOST: usize = 4096;

thread_local! {
    /// By organization and user: attributions with a seat and a subscription that pays.
    static KNOWN: RefCell<HashMap<(Uuid, Uuid), Rc<Attribution>>> = RefCell::default();
}

/// Whose charge it is. `tenant` is the pool's; `now` the time of the charge.
///
/// Errors: PT403 `no_active_seat`, PT402 `no_active_subscription`, where `seat` asks for them.
pub fn find(payer: &Payer, seat: Seat, tenant: &str, now: i64) -> Result<Rc<Attribution>> {
    let Some(organization) = payer.organization else { return personal(tenant).map(Rc::new) };
    let key = (organization, payer.user);
    let kept = pg::snapshot_is_kept();
    if kept && seat == Seat::Required {
        pin(organization, payer.user)?;
    }
    if !kept
        && let Some(known) = KNOWN.with_borrow(|known| known.get(&key).cloned())
        && known.seat_expires_at > now
        && RowVersion::all_stand(&known.rows)?
    {
        return Ok(known);
    }
    let found = read(organization, payer.user, now)?;
    let complete = found.as_ref().is_some_and(|(_, complete)| *complete);
    match found.map(|(found, _)| Rc::new(found)) {
        Some(found) if complete || seat == Seat::Optional => {
            if complete && !kept && found.rows.len() == 3 {
                keep(key, found.clone());
            }
            Ok(found)
        }
        _ => {
            judge(payer, now)?;
            Err(seat_unstable())
        }
    }
}

/// The caller's metadata of a personal charge without the keys that would claim an organization. In an organization's
/// charge the server's own stand over them.
pub fn without_claims(metadata: &Jsonb) -> Result<Option<Jsonb>> {
    let statement = concat!("SELECT $1 - ", attribution_keys!());
    sql::query_opt(statement, &[Arg::Jsonb(Some(metadata))], Mode::Read, |row| Ok(row.get::<Jsonb>(1)))
        .map(Option::flatten)
}

fn keep(key: (Uuid, Uuid), found: Rc<Attribution>) {
    KNOWN.with_borrow_mut(|known| {
        if known.len() >= MOST {
            known.clear();
        }
        known.insert(key, found);
    });
}

fn personal(tenant: &str) -> Result<Attribution> {
    let metadata = Jsonb::parse(r#"{"pool": "personal"}"#).ok_or_else(user_not_found)?;
    Ok(Attribution {
        tenant: tenant.to_owned(),
        seat: None,
        subscription: None,
        metadata,
        seat_expires_at: i64::MAX,
        rows: Vec::new(),
    })
}

/// The attribution, and whether seat and subscription are both active; none where the organization is gone.
fn read(organization: Uuid, user: Uuid, now: i64) -> Result<Option<(Attribution, bool)>> {
    let found = sql::query_opt(
        "SELECT o.tenant_id, s.id, sub.id, coalesce(s.expires_at, 'infinity'),
                s.id IS NOT NULL AND coalesce(sub.status IN ('active', 'trialing'), false),
                jsonb_build_object(
                    'pool', 'organization', 'clerk_org_id', o.external_id, 'organization_id', o.id,
                    'organization_name', o.name, 'stripe_customer_id', o.stripe_customer_id,
                    'organization_subscription_id', sub.id, 'seat_id', s.id, 'seat_role', s.role),
                o.tableoid, o.ctid, o.xmin, sub.tableoid, sub.ctid, sub.xmin, s.tableoid, s.ctid, s.xmin
           FROM tenancy.organizations AS o
           LEFT JOIN tenancy.organization_subscriptions AS sub ON sub.organization_id = o.id
           LEFT JOIN tenancy.organization_seats AS s
             ON s.organization_id = o.id AND s.user_id = $2 AND s.status = 'active'
            AND (s.expires_at IS NULL OR s.expires_at > $3)
          WHERE o.id = $1",
        &[organization.into(), user.into(), Arg::Time(Some(now))],
        Mode::Write,
        |row| {
            let mut rows = Vec::with_capacity(3);
            for ordinal in [7, 10, 13] {
                rows.extend(RowVersion::of(row, ordinal)?);
            }
            let Some(metadata) = row.get::<Jsonb>(6) else { return Ok(None) };
            let attribution = Attribution {
                tenant: row.text(1).unwrap_or_default(),
                seat: row.uuid(2),
                subscription: row.uuid(3),
                metadata,
                seat_expires_at: row.time(4).unwrap_or_default(),
                rows,
            };
            Ok(Some((attribution, row.get(5) == Some(true))))
        },
    )?;
    Ok(found.flatten())
}

/// Whether the payer may spend from the pool at all; the organization's name.
///
/// Errors: PT403 `no_active_seat`, PT402 `no_active_subscription`, and PT404 for a user that is gone.
pub fn judge(payer: &Payer, now: i64) -> Result<Option<String>> {
    let Some(organization) = payer.organization else { return Ok(None) };
    if pg::snapshot_is_kept() {
        pin(organization, payer.user)?;
    }
    let facts = sql::query_opt(
        "SELECT o.name, s.id IS NOT NULL, coalesce(sub.status IN ('active', 'trialing'), false), u.id IS NOT NULL
           FROM tenancy.organizations AS o
           LEFT JOIN tenancy.users AS u ON u.id = $2
           LEFT JOIN tenancy.organization_subscriptions AS sub ON sub.organization_id = o.id
           LEFT JOIN tenancy.organization_seats AS s
             ON s.organization_id = o.id AND s.user_id = $2 AND s.status = 'active'
            AND (s.expires_at IS NULL OR s.expires_at > $3)
          WHERE o.id = $1",
        &[organization.into(), payer.user.into(), Arg::Time(Some(now))],
        Mode::Write,
        |row| {
            let flag = |ordinal| row.get::<bool>(ordinal) == Some(true);
            Ok((row.text(1), flag(2), flag(3), flag(4)))
        },
    )?;
    match facts {
        Some((_, _, _, false)) => Err(user_not_found()),
        None | Some((_, false, _, _)) => Err(no_active_seat()),
        Some((name, _, false, _)) => Err(no_active_subscription(name)),
        Some((name, true, true, true)) => Ok(name),
    }
}

/// In a transaction that keeps its snapshot: 40001 if seat or subscription have changed since it was taken.
fn pin(organization: Uuid, user: Uuid) -> Result<()> {
    let args = [organization.into(), user.into()];
    sql::execute(
        "SELECT FROM tenancy.organization_subscriptions AS sub WHERE sub.organization_id = $1 FOR SHARE",
        &args[..1],
    )?;
    sql::execute(
        "SELECT FROM tenancy.organization_seats AS s WHERE s.organization_id = $1 AND s.user_id = $2 FOR SHARE",
        &args,
    )
    .map(drop)
}

/// Contract S's text.
fn no_active_subscription(organization_name: Option<String>) -> Error {
    Error::new(State::PAYMENT_REQUIRED, "no_active_subscription", "Active organization subscription not found")
        .hint("Its status must be active or trialing: SELECT tenancy.set_subscription(org_id => …, …);")
        .detail("organization_name", organization_name)
}

/// A seat or subscription that ended and came back between two statements of ours.
pub fn seat_unstable() -> Error {
    Error::new(State::SERIALIZATION, "seat_unstable", "A seat or subscription changed while it was read")
        .hint("Run the transaction again.")
}
