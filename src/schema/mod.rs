//! Where the tables come from: the numbered migrations, compiled in, and the check that those the
//! code expects are there. `tenancy.install()` and its kin are in sql/schema.sql.

mod installed;
mod migrations;

use crate::pg;
use pgrx::iter::TableIterator;
use pgrx::{name, pg_extern};

pub use installed::require_installed;

/// The version of this library. Under the feature `made_up_next` the one that the upgrade tests make up.
pub const VERSION: &str =
    if cfg!(feature = "made_up_next") { concat!(env!("CARGO_PKG_VERSION"), ".1") } else { env!("CARGO_PKG_VERSION") };

/// The version of this library.
#[pg_extern(name = "_library_version", immutable, parallel_safe)]
fn library_version() -> &'static str {
    pg::entry(|| Ok(VERSION))
}

/// The migrations compiled into this library, in order; sha256 is of the text, in hex.
#[pg_extern(name = "_migrations", immutable, parallel_safe)]
#[allow(clippy::type_complexity)]
fn migrations() -> TableIterator<
    'static,
    (name!(number, i32), name!(name, &'static str), name!(sql, &'static str), name!(sha256, String)),
> {
    TableIterator::new(
        migrations::ALL.iter().map(|migration| (migration.number, migration.name, migration.sql, migration.sha256())),
    )
}

/// Raises 55000 where the tables are missing or not of the version this library expects.
#[pg_extern(name = "_require_installed", stable, parallel_restricted)]
fn sql_require_installed() -> bool {
    pg::entry(|| require_installed().map(|()| true))
}
