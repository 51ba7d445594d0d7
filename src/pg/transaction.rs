//! Transactions: their ends, their clock, and the warning for whoever has none.

use super::guard::raw;
use super::{cursors, early_release, sealed, turns};
use pgrx::pg_sys;
use std::ffi::c_void;

pub(super) fn register() {
    // SAFETY: registered once from _PG_init, for the life of the process.
    unsafe {
        pg_sys::RegisterXactCallback(Some(at_end), std::ptr::null_mut());
        pg_sys::RegisterSubXactCallback(Some(at_subtransaction_end), std::ptr::null_mut());
    }
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn at_end(event: pg_sys::XactEvent::Type, _arg: *mut c_void) {
    use pg_sys::XactEvent::*;
    match event {
        XACT_EVENT_PRE_COMMIT => {
            cursors::attribute_pending();
            early_release::before_commit();
        }
        XACT_EVENT_PRE_PREPARE => cursors::attribute_pending(),
        XACT_EVENT_COMMIT | XACT_EVENT_PREPARE => {
            sealed::forget_first();
            turns::forget();
        }
        XACT_EVENT_ABORT => {
            sealed::forget_first();
            turns::forget();
            early_release::forget();
        }
        _ => {}
    }
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn at_subtransaction_end(
    event: pg_sys::SubXactEvent::Type,
    _own: pg_sys::SubTransactionId,
    _parent: pg_sys::SubTransactionId,
    _arg: *mut c_void,
) {
    use pg_sys::SubXactEvent::*;
    if event == SUBXACT_EVENT_COMMIT_SUB || event == SUBXACT_EVENT_ABORT_SUB {
        // SAFETY: reads a counter.
        let level = unsafe { pg_sys::GetCurrentTransactionNestLevel() };
        let committed = event == SUBXACT_EVENT_COMMIT_SUB;
        sealed::end_of_subtransaction(level, committed);
        turns::end_of_subtransaction(level, committed);
    }
}

/// When the client's statement began, in microseconds since 2000-01-01; the same in every worker.
pub fn statement_start_micros() -> i64 {
    // SAFETY: reads a static of the backend; cannot raise.
    unsafe { raw::GetCurrentStatementStartTimestamp() }
}

/// The clock now, in microseconds since 2000-01-01.
pub fn now_micros() -> i64 {
    // SAFETY: reads the clock; cannot raise.
    unsafe { raw::GetCurrentTimestamp() }
}

/// Whether the transaction keeps one snapshot to its end (REPEATABLE READ and above).
pub fn snapshot_is_kept() -> bool {
    // SAFETY: reads a static of the backend.
    unsafe { pg_sys::XactIsoLevel >= pg_sys::XACT_REPEATABLE_READ as i32 }
}

/// The role that calls, below every SECURITY DEFINER function: the session's, or the one SET ROLE chose.
pub fn calling_role() -> pg_sys::Oid {
    // SAFETY: reads a static of the backend.
    unsafe { pg_sys::GetOuterUserId() }
}

/// The database this backend is connected to.
pub fn database_oid() -> u32 {
    // SAFETY: set when the backend connects, and never changed.
    unsafe { pg_sys::MyDatabaseId }.to_u32()
}

/// Warns, as SET LOCAL does, that outside a transaction block `what` lasts no longer than its statement.
pub fn warn_outside_transaction(what: &str) {
    // SAFETY: reads the transaction's state.
    if unsafe { pg_sys::IsTransactionBlock() || pg_sys::IsSubTransaction() } {
        return;
    }
    pgrx::ereport!(
        pgrx::PgLogLevel::WARNING,
        pgrx::PgSqlErrorCode::ERRCODE_NO_ACTIVE_SQL_TRANSACTION,
        format!("{what} lasts no longer than this statement: begin a transaction first"),
        r#"{"reason": "no_transaction_block"}"#
    );
}
