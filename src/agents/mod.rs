//! Agents: modules of organizations, the credentials they use, the states of their conversations.
//!
//! The rules are SQL (sql/agents/); what stands here tells it what only the library knows, and says in which order
//! the files load.

use crate::pg;
use pgrx::{extension_sql_file, pg_extern};

/// Whether this transaction had an identity and has none now.
#[pg_extern(name = "_identity_ended", stable, parallel_restricted)]
fn identity_ended() -> bool {
    pg::entry(|| Ok(pg::has_ended()))
}

/// Writes a line to the server's log, where it stays whatever becomes of the transaction.
#[pg_extern(name = "_log_line", volatile, parallel_restricted)]
fn log_line(line: &str) -> bool {
    pg::entry(|| {
        pg::log(line);
        Ok(true)
    })
}

extension_sql_file!(
    "../../sql/agents/scope.sql",
    name = "agents_scope",
    requires = ["accessors", "errors", identity_ended, log_line]
);
extension_sql_file!("../../sql/agents/modules.sql", name = "agents_modules", requires = ["agents_scope"]);
extension_sql_file!("../../sql/agents/surface.sql", name = "agents_surface", requires = ["agents_modules"]);
extension_sql_file!("../../sql/agents/credentials.sql", name = "agents_credentials", requires = ["agents_scope"]);
extension_sql_file!("../../sql/agents/states.sql", name = "agents_states", requires = ["agents_scope"]);
