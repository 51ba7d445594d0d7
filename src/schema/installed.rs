//! Are the tables there, and of this version? Asked first by every function that needs one, so the
//! answer is kept until a change of the tables is announced.

use super::migrations::LATEST;
use crate::pg::{self, Error, Result, State, sql};
use std::cell::Cell;

thread_local! {
    /// The epoch in which the tables were found right.
    static FOUND: Cell<u64> = const { Cell::new(0) };
}

/// `Ok` where the tables of this library's version are installed in this database.
pub fn require_installed() -> Result<()> {
    if FOUND.get() == pg::epoch() {
        return Ok(());
    }
    let Some(table) = sql::table_oid("schema_migrations")? else {
        return Err(missing());
    };
    pg::watch(table);
    // Before the reading: a change that arrives during it ends this epoch, and with it the answer.
    let epoch = pg::epoch();
    let reached = sql::query_opt(
        "SELECT pg_catalog.max(number) FROM tenancy.schema_migrations",
        &[],
        sql::Mode::ReadLatest,
        |row| Ok(row.get::<i32>(1)),
    )?
    .flatten();
    match reached {
        Some(LATEST) => {
            FOUND.set(epoch);
            Ok(())
        }
        Some(newer) if newer > LATEST => Err(ahead(newer)),
        Some(older) => Err(behind(older)),
        None => Err(missing()),
    }
}

fn missing() -> Error {
    Error::new(State::NOT_READY, "schema_missing", "The tables of pg_tenancy are not installed in this database")
        .hint("Run SELECT tenancy.install();")
}

fn behind(reached: i32) -> Error {
    Error::new(State::NOT_READY, "schema_behind", "The tables of pg_tenancy are older than its functions")
        .hint("Run SELECT tenancy.migrate();")
        .detail("migration", reached)
        .detail("expected", LATEST)
}

fn ahead(reached: i32) -> Error {
    Error::new(State::NOT_READY, "schema_ahead", "The tables of pg_tenancy are newer than this version of it")
        .hint("Install the newer package, reconnect, and run ALTER EXTENSION pg_tenancy UPDATE.")
        .detail("migration", reached)
        .detail("expected", LATEST)
}
