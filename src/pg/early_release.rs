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

use super::settings;
use pgrx::pg_sys;
use std::cell::Cell;
use std::ffi::c_void;

/// A transaction id whose row lock may be contended, and the nesting level it was taken at.
#[derive(Clone, Copy)]
struct Contended {
    xid: pg_sys::TransactionId,
    nest_level: i32,
}

thread_local! {
    static OFFERED: Cell<Option<Contended>> = const { Cell::new(None) };
    /// What the session's synchronous_commit was, while the commit is made without it.
    static DEFERRED: Cell<Option<i32>> = const { Cell::new(None) };
}

pub(super) fn register() {
    // SAFETY: registered once from _PG_init, for the life of the process.
    unsafe { pg_sys::RegisterResourceReleaseCallback(Some(after_locks), std::ptr::null_mut()) }
}

/// Says that this (sub)transaction holds the lock of a row others may wait for.
pub fn offer() {
    if OFFERED.get().is_none() && settings::early_lock_release() {
        // SAFETY: reads the transaction's state.
        let (xid, nest_level) =
            unsafe { (pg_sys::GetCurrentTransactionIdIfAny(), pg_sys::GetCurrentTransactionNestLevel()) };
        OFFERED.set(Some(Contended { xid, nest_level }));
    }
}

/// Before the commit record: defers the flush if somebody waits.
pub(super) fn before_commit() {
    let Some(contended) = OFFERED.take() else { return };
    // SAFETY: reads the lock table for a lock this transaction holds, and a variable of the session.
    unsafe {
        if pg_sys::synchronous_commit > pg_sys::SyncCommitLevel::SYNCHRONOUS_COMMIT_OFF as i32
            && has_waiter(contended.xid)
        {
            DEFERRED.set(Some(pg_sys::synchronous_commit));
            pg_sys::synchronous_commit = pg_sys::SyncCommitLevel::SYNCHRONOUS_COMMIT_OFF as i32;
        }
    }
}

/// Before a PREPARE TRANSACTION, which flushes by itself, and after an abort: everything as the session has it.
pub(super) fn forget() {
    OFFERED.set(None);
    restore();
}

/// At the end of a subtransaction: its locks pass to its parent, or are gone. The lock of its id is released even where
/// it committed: whoever waits for it waits for the whole transaction then.
pub(super) fn end_of_subtransaction(level: i32, committed: bool) {
    if OFFERED.get().is_some_and(|contended| contended.nest_level >= level) {
        // SAFETY: reads the transaction's state.
        let xid = unsafe { pg_sys::GetTopTransactionIdIfAny() };
        OFFERED.set(committed.then_some(Contended { xid, nest_level: level - 1 }));
    }
}

fn restore() -> bool {
    let deferred = DEFERRED.take();
    if let Some(session) = deferred {
        // SAFETY: the value the session had.
        unsafe { pg_sys::synchronous_commit = session };
    }
    deferred.is_some()
}

/// SAFETY of callers: `xid` is one of this transaction's own, not rolled back.
unsafe fn has_waiter(xid: pg_sys::TransactionId) -> bool {
    let tag = pg_sys::LOCKTAG {
        locktag_field1: xid.into_inner(),
        locktag_field2: 0,
        locktag_field3: 0,
        locktag_field4: 0,
        locktag_type: pg_sys::LockTagType::LOCKTAG_TRANSACTION as u8,
        locktag_lockmethodid: pg_sys::DEFAULT_LOCKMETHOD as u8,
    };
    // SAFETY: the lock of an own transaction id is held until the transaction ends.
    xid != pg_sys::InvalidTransactionId
        && unsafe { pg_sys::LockHasWaiters(&tag, pg_sys::ExclusiveLock as pg_sys::LOCKMODE, false) }
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
