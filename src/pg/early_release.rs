//! Early lock release: a contended row's lock is given up before the commit is on disk, and the client is answered
//! after it is.
//!
//! Postgres flushes the WAL (and waits for synchronous standbys) while a committing transaction still holds its locks,
//! so one hot row admits one transaction a flush. Here, where another session already waits for this transaction, the
//! commit itself is made asynchronous, the locks go, and only then the flush and the wait for standbys follow, before
//! the client hears of the commit. Nothing acknowledged can be lost: what a crash takes was never acknowledged, and
//! whatever depends on it lies later in the WAL and goes with it. What changes is that another session may read a
//! commit that a crash then loses; the worst that comes of it is a debit denied for nothing.
//!
//! `synchronous_commit` is set and restored in its variable, not through SET: the hook that tells the standby code
//! which wait the session asked for must not run, so that the wait that follows is the session's own.

use super::{settings, turns};
use pgrx::pg_sys;
use std::cell::Cell;
use std::ffi::c_void;

thread_local! {
    /// What the session's synchronous_commit was, while the commit is made without it.
    static DEFERRED: Cell<Option<i32>> = const { Cell::new(None) };
}

pub(super) fn register() {
    // SAFETY: registered once from _PG_init, for the life of the process.
    unsafe { pg_sys::RegisterResourceReleaseCallback(Some(after_locks), std::ptr::null_mut()) }
}

/// Before the commit record: defers the flush if somebody waits for this transaction's turn.
pub(super) fn before_commit() {
    // SAFETY: a variable of the session.
    unsafe {
        if pg_sys::synchronous_commit > pg_sys::SyncCommitLevel::SYNCHRONOUS_COMMIT_OFF as i32
            && settings::early_lock_release()
            && turns::are_awaited()
        {
            DEFERRED.set(Some(pg_sys::synchronous_commit));
            pg_sys::synchronous_commit = pg_sys::SyncCommitLevel::SYNCHRONOUS_COMMIT_OFF as i32;
        }
    }
}

/// After an abort: everything as the session has it.
pub(super) fn forget() {
    restore();
}

fn restore() -> bool {
    let deferred = DEFERRED.take();
    if let Some(session) = deferred {
        // SAFETY: the value the session had.
        unsafe { pg_sys::synchronous_commit = session };
    }
    deferred.is_some()
}

/// The commit is in the WAL and the locks are gone: now the flush, and the wait for standbys, that the session asked
/// for. Postgres does this in a critical section, and so does this: a commit that cannot be made durable takes the
/// server down rather than be acknowledged.
#[pgrx::pg_guard]
unsafe extern "C-unwind" fn after_locks(
    phase: pg_sys::ResourceReleasePhase::Type,
    is_commit: bool,
    is_top_level: bool,
    _arg: *mut c_void,
) {
    if phase != pg_sys::ResourceReleasePhase::RESOURCE_RELEASE_AFTER_LOCKS || !is_top_level || !restore() {
        return;
    }
    if is_commit {
        // SAFETY: XactLastCommitEnd is this backend's own commit; interrupts are held off during commit.
        unsafe {
            pg_sys::CritSectionCount += 1;
            pg_sys::XLogFlush(pg_sys::XactLastCommitEnd);
            pg_sys::CritSectionCount -= 1;
            pg_sys::SyncRepWaitForLSN(pg_sys::XactLastCommitEnd, true);
        }
    }
}
