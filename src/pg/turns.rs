//! Turns: who comes next at a contended row.
//!
//! Sessions that wait for a row in Postgres wait on its holder's transaction, all of them: each commit wakes them all,
//! and each walks the row's new versions with the page pinned, which keeps the page from being pruned. Here they wait
//! before they look at the row: for a moment at its gate ([`Gate`]), then, if somebody keeps the row for long, in the
//! queue of a lock. One alone goes on to the row, and its statement's snapshot, taken after, shows it the newest
//! version. Who waits is also what early lock release asks.
//!
//! The row's own lock is what guards; a turn only keeps order. It is held to the end of the (sub)transaction like the
//! row's, and given back ([`leave`]) by whoever then does not lock the row. The lock is a heavyweight one that no SQL function can take. Everything that locks such a row takes its turn
//! before, so a turn adds no way to deadlock that the rows do not have. Without shared memory there are no gates and
//! the lock alone does it.

use super::Result;
use super::gate::{FAIR, Gate};
use super::guard::{boundary, raw};
use super::shared::SharedSlice;
use pgrx::pg_sys;
use std::cell::RefCell;
use std::time::Duration;
use uuid::Uuid;

/// How long anybody waits at a gate, and not for the lock.
const PATIENCE: Duration = Duration::from_millis(100);

/// A transaction takes so many turns; rows beyond them it locks without, for the lock table is finite.
const MOST: usize = 16;

/// Tells our locks from those of `pg_advisory_lock`, which have 1 or 2 here.
const MARK: u16 = 0x5447;

/// Who finds a gate closed for another row goes without it.
const GATES: usize = 1024;

static SHARED_GATES: SharedSlice<Gate> = SharedSlice::new(c"pg_tenancy gates", Gate::new);

/// Asks for the gates' memory, when the server starts.
pub(super) fn request() {
    if super::shared::is_preloading() {
        SHARED_GATES.request(GATES);
    }
}

/// A turn that this transaction has or waits for.
struct Turn {
    row: Uuid,
    /// The row's gate, which it keeps closed.
    gate: Option<&'static Gate>,
    /// The row's gate, where it was waited for in vain: whoever has it is to know that somebody waits.
    beyond: Option<&'static Gate>,
    /// Whether it has the lock.
    is_locked: bool,
    /// The nesting level it was taken at.
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

/// Waits for this transaction's turn at the row of `row`, unless it has it. Whether it is a new one, which [`leave`]
/// gives back.
pub fn take(row: Uuid) -> Result<bool> {
    Ok(!goes_on(row) && acquire(row, false))
}

/// The same without waiting: false where somebody else has the turn.
pub fn take_free(row: Uuid) -> Result<bool> {
    Ok(goes_on(row) || acquire(row, true))
}

/// Gives back a turn that was just taken, at a row that was not locked then: with it kept, waiting for another row
/// could close a circle.
pub fn leave(row: Uuid) {
    let Some(turn) = TURNS.with_borrow_mut(|turns| {
        let at = turns.held.iter().position(|turn| turn.row == row)?;
        turns.taken -= 1;
        Some(turns.held.remove(at))
    }) else {
        return;
    };
    if turn.is_locked {
        // SAFETY: a C call only; the tag outlives it.
        unsafe { boundary(|| raw::LockRelease(&tag(row), EXCLUSIVE, false)) };
    }
}

/// Whether a row is gone on to without a new turn.
fn goes_on(row: Uuid) -> bool {
    TURNS.with_borrow(|turns| turns.taken >= MOST || turns.held.iter().any(|turn| turn.row == row))
}

fn acquire(row: Uuid, only_if_free: bool) -> bool {
    // SAFETY: reads a counter.
    let nest_level = unsafe { pg_sys::GetCurrentTransactionNestLevel() };
    // There from the start: whatever ends the wait, the end of the (sub)transaction undoes what was done so far.
    TURNS.with_borrow_mut(|turns| {
        turns.taken += 1;
        turns.held.push(Turn { row, gate: None, beyond: None, is_locked: false, nest_level });
    });
    let (_, end) = row.as_u64_pair();
    let key = end ^ u64::from(super::database_oid());
    let gate = gate(key);
    if !only_if_free {
        wait(row, key, gate);
        return true;
    }
    let got = take_if_free(row, key, gate);
    if !got {
        TURNS.with_borrow_mut(|turns| {
            turns.taken -= 1;
            turns.held.pop();
        });
    }
    got
}

/// The gate of the rows with this key. None for a background worker: unlike a session's, its SIGTERM may end it in the
/// midst of anything, and what it has just counted or closed would stay so.
fn gate(key: u64) -> Option<&'static Gate> {
    // SAFETY: reads a variable of the process.
    if unsafe { !pg_sys::MyBgworkerEntry.is_null() } {
        return None;
    }
    SHARED_GATES.get().map(|gates| &gates[key as usize % gates.len()])
}

/// Changes the turn that is being taken.
fn note(change: impl FnOnce(&mut Turn)) {
    TURNS.with_borrow_mut(|turns| turns.held.last_mut().map(change));
}

fn wait(row: Uuid, key: u64, gate: Option<&'static Gate>) {
    let enter = |fair| {
        let entered = gate.filter(|gate| gate.enter_if_open(key) || gate.is_for(key) && wait_at(gate, key, fair));
        entered.inspect(|gate| note(|turn| turn.gate = Some(gate))).is_some()
    };
    if enter(FAIR) {
        return;
    }
    if let Some(gate) = gate.filter(|gate| gate.is_for(key)) {
        gate.went_beyond();
        note(|turn| turn.beyond = Some(gate));
    }
    lock(row, false);
    // Whoever comes to the lock's head tries the gate again, and then goes on to the row.
    enter(Duration::ZERO);
}

/// Gate and lock, since whoever has the turn may have the lock alone.
fn take_if_free(row: Uuid, key: u64, gate: Option<&'static Gate>) -> bool {
    match gate {
        Some(gate) if gate.enter_if_open(key) => note(|turn| turn.gate = Some(gate)),
        Some(gate) if gate.is_for(key) => return false,
        _ => {}
    }
    lock(row, true)
}

const EXCLUSIVE: pg_sys::LOCKMODE = pg_sys::ExclusiveLock as pg_sys::LOCKMODE;

fn lock(row: Uuid, only_if_free: bool) -> bool {
    let tag = tag(row);
    // SAFETY: a C call only; the tag outlives it. A wait that is ended by an error leaves no lock behind.
    let result = unsafe { boundary(|| raw::LockAcquire(&tag, EXCLUSIVE, false, only_if_free)) };
    let got = result != pg_sys::LockAcquireResult::LOCKACQUIRE_NOT_AVAIL;
    note(|turn| turn.is_locked = got);
    got
}

impl Turn {
    fn is_awaited(&self) -> bool {
        let own = u32::from(self.beyond.is_some());
        self.gate.or(self.beyond).is_some_and(|gate| gate.is_awaited(own))
            // SAFETY: reads the lock table for a lock that this transaction holds.
            || self.is_locked && unsafe { pg_sys::LockHasWaiters(&tag(self.row), EXCLUSIVE, false) }
    }
}

/// Waits at a gate as Postgres waits for a lock: visibly, and until somebody interrupts.
fn wait_at(gate: &Gate, key: u64, fair: Duration) -> bool {
    // SAFETY: variables of the session; `lock_timeout` is in milliseconds, 0 for none. An error ends the wait event too.
    unsafe {
        let patience = match u64::try_from(pg_sys::LockTimeout) {
            Ok(limit @ 1..) => PATIENCE.min(Duration::from_millis(limit) / 10),
            _ => PATIENCE,
        };
        pg_sys::pgstat_report_wait_start(pg_sys::PG_WAIT_EXTENSION);
        let entered = gate.enter(key, fair, patience, || {
            if std::ptr::read_volatile(&raw const pg_sys::InterruptPending) != 0 {
                boundary(|| raw::ProcessInterrupts());
            }
        });
        pg_sys::pgstat_report_wait_end();
        entered
    }
}

impl Drop for Turn {
    /// Opens the gate again; the lock Postgres gives back itself.
    fn drop(&mut self) {
        if let Some(gate) = self.beyond {
            gate.came_back();
        }
        if let Some(gate) = self.gate {
            gate.leave();
        }
    }
}

/// Whether another session waits for a turn that this transaction has.
pub(super) fn are_awaited() -> bool {
    TURNS.with_borrow(|turns| turns.held.iter().any(Turn::is_awaited))
}

/// At the end of a top-level transaction, which others see as ended.
pub(super) fn forget() {
    TURNS.with_borrow_mut(|turns| {
        turns.held.clear();
        turns.taken = 0;
    });
}

/// At the end of a subtransaction: its turns pass to its parent, or are gone.
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
