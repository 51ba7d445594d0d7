//! How SQL tells every backend that something it may have cached has changed.

use crate::pg::{self, Error, State, sql};
use pgrx::pg_extern;

/// Announces a change of one of our tables, named without its schema: from this transaction's commit
/// on, every backend (standbys included) drops what it cached from them.
#[pg_extern(name = "_changed", volatile)]
fn changed(table_name: &str) -> bool {
    pg::entry(|| {
        let table = sql::table_oid(table_name)?.ok_or_else(|| {
            Error::new(State::NOT_READY, "schema_missing", "The extension's tables are missing")
                .hint("Run SELECT tenancy.install();")
        })?;
        pg::announce_change(table);
        Ok(true)
    })
}
