//! The epoch of everything a backend caches from our tables.
//!
//! Whoever changes an issuer, a key, a revocation or the directory sends a relcache invalidation for
//! that table. It reaches every backend, standbys included, at their next transaction at the latest,
//! and needs no shared memory.

use pgrx::pg_sys;
use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

static EPOCH: AtomicU64 = AtomicU64::new(1);

thread_local! {
    static WATCHED: RefCell<Vec<pg_sys::Oid>> = const { RefCell::new(Vec::new()) };
}

pub(super) fn register() {
    // SAFETY: registered once from _PG_init, for the life of the process.
    unsafe { pg_sys::CacheRegisterRelcacheCallback(Some(on_invalidation), pg_sys::Datum::from(0)) }
}

/// What is cached under an older epoch is stale.
pub fn epoch() -> u64 {
    EPOCH.load(Relaxed)
}

/// Tells every backend, from this transaction's commit on, that `table` has changed.
pub fn announce_change(table: pg_sys::Oid) {
    // SAFETY: raises if the table is gone.
    unsafe { pg_sys::CacheInvalidateRelcacheByRelid(table) }
    EPOCH.fetch_add(1, Relaxed);
}

/// Names a table whose invalidation ends the epoch.
pub fn watch(table: pg_sys::Oid) {
    WATCHED.with_borrow_mut(|watched| {
        if !watched.contains(&table) {
            watched.push(table);
        }
    });
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn on_invalidation(_arg: pg_sys::Datum, table: pg_sys::Oid) {
    let ours = table == pg_sys::InvalidOid || WATCHED.with_borrow(|watched| watched.contains(&table));
    if ours {
        EPOCH.fetch_add(1, Relaxed);
    }
}
