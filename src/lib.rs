//! `pg_tenancy`: who is asking, what may they see, who pays; answered in the caller's own transaction.

mod changes;
mod ids;
mod pg;

use pgrx::extension_sql_file;

::pgrx::pg_module_magic!(name, version);

extension_sql_file!("../sql/identity/accessors.sql", name = "accessors");

/// Called by Postgres when the library is loaded.
#[pgrx::pg_guard]
#[allow(non_snake_case)]
pub extern "C-unwind" fn _PG_init() {
    pg::init();
}

#[cfg(any(test, feature = "pg_test"))]
#[path = "../pgrx-tests/mod.rs"]
mod in_database;

/// pgrx's tests look for this module by its name.
#[cfg(test)]
#[path = "../pgrx-tests/server.rs"]
pub mod pg_test;
