//! The epoch that everything identity keeps in a backend belongs to.

use crate::pg::{self, Result, sql};
use std::cell::Cell;

/// The tables whose changes end it.
const TABLES: [&str; 9] = [
    "issuers",
    "issuer_keys",
    "revocations",
    "tenants",
    "users",
    "organizations",
    "organization_memberships",
    "organization_seats",
    "organization_subscriptions",
];

/// The epoch to keep under what is read next. The tables are watched before they are read, so that no change is missed;
/// what was read while the epoch ended must not be kept.
pub fn current() -> Result<u64> {
    thread_local! {
        static WATCHED_IN: Cell<u64> = const { Cell::new(0) };
    }
    if WATCHED_IN.get() != pg::epoch() {
        sql::table_oids(&TABLES)?.into_iter().for_each(pg::watch);
        WATCHED_IN.set(pg::epoch());
    }
    Ok(pg::epoch())
}
