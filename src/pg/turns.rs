//! Turns: who comes next at a contended row.
//!
//! Sessions that wait for a row in Postgres wait on its holder's transaction, all of them: each commit wakes them all,
//! and each walks the row's new versions with the page pinned, which keeps the page from being pruned. Here they wait
//! in one queue before they look at the row; a commit wakes the first alone, and its statement's snapshot, taken after,
//! shows it the newest version. Who waits in the queue is also what early lock release asks.
//!
//! The row's own lock is what guards; a turn only keeps order. It is a heavyweight lock that no SQL function can take,
//! held to the end of the (sub)transaction like the row's. Everything that locks such a row takes its turn before, so
//! a turn adds no way to deadlock that the rows do not have.

use super::Result;
use super::guard::{boundary, raw};
use pgrx::pg_sys;
use std::cell::RefCell;
use uuid::Uuid;

/// A transaction takes so many turns; rows beyond them it locks without, for the lock table is finite.
const MOST: usize = 16;

/// Tells our locks from those of `pg_advisory_lock`, which have 1 or 2 here.
const MARK: u16 = 0x5447;

/// A turn that this transaction has, and the nesting level it was taken at.
struct Turn {
    row: Uuid,
    nest_level: i32,
}

#[derive(Default)]
struct Turns {
    held: Vec<Turn>,
    /// Turns ever taken in this transaction, those rolled back included.
    taken: usize,
}

thread_local! {
    static TURNS: RefCell<Turns> = const { RefCell::new(Turns { held: Vec::new(), taken: 0 }) };
}

/// Waits for this transaction's turn at the row of `row`, unless it has it.
pub fn take(row: Uuid) -> Result<()> {
    acquire(row, false);
    Ok(())
}

/// The same without waiting: false where somebody else has the turn.
pub fn take_free(row: Uuid) -> Result<bool> {
    Ok(acquire(row, true))
}

fn acquire(row: Uuid, only_if_free: bool) -> bool {
    if TURNS.with_borrow(|turns| turns.taken >= MOST || turns.held.iter().any(|turn| turn.row == row)) {
        return true;
    }
    let tag = tag(row);
    // SAFETY: a C call only; the tag outlives it. A wait that is ended by an error leaves no lock behind.
    let (got, nest_level) = unsafe {
        let got = boundary(|| raw::LockAcquire(&tag, pg_sys::ExclusiveLock as pg_sys::LOCKMODE, false, only_if_free));
        (got != pg_sys::LockAcquireResult::LOCKACQUIRE_NOT_AVAIL, pg_sys::GetCurrentTransactionNestLevel())
    };
    if got {
        TURNS.with_borrow_mut(|turns| {
            turns.taken += 1;
            turns.held.push(Turn { row, nest_level });
        });
    }
    got
}

/// Whether another session waits for a turn that this transaction has.
pub(super) fn are_awaited() -> bool {
    TURNS.with_borrow(|turns| {
        turns.held.iter().any(|turn| {
            // SAFETY: reads the lock table for a lock that this transaction holds.
            unsafe { pg_sys::LockHasWaiters(&tag(turn.row), pg_sys::ExclusiveLock as pg_sys::LOCKMODE, false) }
        })
    })
}

/// At the end of a top-level transaction.
pub(super) fn forget() {
    TURNS.with_borrow_mut(|turns| {
        turns.held.clear();
        turns.taken = 0;
    });
}

/// At the end of a subtransaction: its locks pass to its parent, or are gone.
pub(super) fn end_of_subtransaction(level: i32, committed: bool) {
    TURNS.with_borrow_mut(|turns| {
        if !committed {
            turns.held.retain(|turn| turn.nest_level < level);
        }
        for turn in turns.held.iter_mut().filter(|turn| turn.nest_level >= level) {
            turn.nest_level = level - 1;
        }
    });
}

/// The random end of a version 7 id tells rows apart; two that share it would only wait for each other.
fn tag(row: Uuid) -> pg_sys::LOCKTAG {
    let (_, end) = row.as_u64_pair();
    pg_sys::LOCKTAG {
        locktag_field1: super::database_oid(),
        locktag_field2: (end >> 32) as u32,
        locktag_field3: end as u32,
        locktag_field4: MARK,
        locktag_type: pg_sys::LockTagType::LOCKTAG_ADVISORY as u8,
        locktag_lockmethodid: pg_sys::USER_LOCKMETHOD as u8,
    }
}
