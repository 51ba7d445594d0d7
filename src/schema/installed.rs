//! Are the tables there, and of this version? Asked first by every function that needs one, so the
//! answer is kept until a change of the tables is announced.

use super::VERSION;
use super::migrations::LATEST;
use crate::pg::{self, Error, Result, State, sql};
use std::cell::Cell;

thread_local! {
    /// The epoch in which the tables were found right.
    static FOUND: Cell<u64> = const { Cell::new(0) };
}

/// `Ok` where the tables of this library's version are installed in this database, and the SQL functions are not
/// newer than the library: after an update of the package, a backend may still run the library it began with.
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
        "SELECT pg_catalog.max(number),
                (SELECT extversion FROM pg_catalog.pg_extension WHERE extname OPERATOR(pg_catalog.=) 'pg_tenancy')
           FROM tenancy.schema_migrations",
        &[],
        sql::Mode::ReadLatest,
        |row| Ok((row.get::<i32>(1), row.get::<String>(2))),
    )?;
    let (reached, functions) = reached.unwrap_or_default();
    match reached {
        None => Err(missing()),
        Some(newer) if newer > LATEST => Err(ahead(newer)),
        Some(older) if older < LATEST => Err(behind(older)),
        Some(_) => match functions {
            Some(functions) if is_newer(&functions, VERSION) => Err(library_behind(&functions)),
            _ => {
                FOUND.set(epoch);
                Ok(())
            }
        },
    }
}

/// Versions are numbers between dots; anything else in them counts as 0.
fn is_newer(version: &str, than: &str) -> bool {
    let numbers = |text: &str| text.split('.').map(|part| part.parse().unwrap_or(0)).collect::<Vec<u32>>();
    numbers(version) > numbers(than)
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

fn library_behind(functions: &str) -> Error {
    Error::new(State::NOT_READY, "library_behind", "The SQL functions of pg_tenancy are newer than its loaded library")
        .hint("Reconnect; with shared_preload_libraries, restart the server.")
        .detail("library", VERSION)
        .detail("extension", functions)
}

#[cfg(test)]
mod tests {
    use super::is_newer;

    #[test]
    fn versions_are_compared_number_by_number() {
        assert!(is_newer("0.10.0", "0.9.9") && is_newer("1.0", "0.9.9") && is_newer("0.1.0.1", "0.1.0"));
        assert!(!is_newer("0.1.0", "0.1.0") && !is_newer("0.0.1", "0.1.0") && !is_newer("odd", "0.1.0"));
    }
}
