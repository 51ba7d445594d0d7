//! Everything that touches Postgres' internals. All unsafe code of the crate lives here.
//!
//! The domains see safe functions: [`entry`] (the guard around every SQL function), [`Error`],
//! [`sql`] (statements with parameters and kept plans), the sealed identity ([`seal`], [`sealed`])
//! and the cache epoch ([`epoch`]).
#![allow(unsafe_code)]

mod accessors;
mod block;
mod composite;
mod cursors;
pub mod direct;
pub mod direct_check;
pub mod direct_update;
mod early_release;
mod error;
mod gate;
mod guard;
mod identity;
mod invalidation;
mod jsonb;
mod jsonb_tree;
pub mod limit_settings;
mod log_hook;
mod log_note;
mod merge;
mod metric_reasons;
pub mod metrics;
mod numeric;
mod park;
mod random;
pub mod row_version;
mod sealable;
mod sealed;
mod settings;
pub mod shared;
pub mod sql;
pub mod table_owner;
mod transaction;
pub mod turns;

pub use composite::{Columns, Composite, Fields, Record};
pub use error::{Error, Result, State};
pub use guard::entry;
pub use identity::Identity;
pub use invalidation::{announce_change, epoch, watch};
pub use jsonb::Jsonb;
pub use jsonb_tree::{Node, Tree};
pub use numeric::{Decimal, Micros};
pub use sealable::Sealable;
pub use sealed::{Bearer, bearer, current_tenant, current_value, has_ended, seal, unseal};
pub use settings::{client_setting, clock_offset_micros, master_key_file, request_token_header};
pub use transaction::{
    calling_role, database_oid, now_micros, snapshot_is_kept, statement_start_micros, warn_outside_transaction,
};

/// Writes a line to the server's log, and to nobody's screen.
pub fn log(line: &str) {
    pgrx::ereport!(
        pgrx::PgLogLevel::LOG_SERVER_ONLY,
        pgrx::PgSqlErrorCode::ERRCODE_SUCCESSFUL_COMPLETION,
        line.to_owned()
    );
}

/// Warns the client, and goes on.
pub fn warn(line: &str) {
    pgrx::ereport!(pgrx::PgLogLevel::WARNING, pgrx::PgSqlErrorCode::ERRCODE_WARNING, line.to_owned());
}

/// Run once when the library is loaded into a backend (or into the postmaster, with preload).
pub fn init() {
    guard::log_panics();
    settings::define();
    transaction::register();
    invalidation::register();
    cursors::register();
    early_release::register();
    log_hook::register();
    merge::register();
}

/// Run last: asks for the shared memory that the domains have requested.
pub fn reserve_shared_memory() {
    metrics::request();
    turns::request();
    shared::register();
}
