//! Gates: a word of shared memory that lets in one at a time, for waits that are nearly always short.
//!
//! A lock of Postgres is handed from its holder to whoever is first in its queue, who then has to be woken: while that
//! takes its time, nobody works. A gate that opens is open to whoever comes first, the sleeper it wakes or a session
//! that is awake. What is waited for longer than [`PATIENCE`] is not waited for here, so a gate can be part of no
//! deadlock, and nothing may rest on it: it keeps order, it does not guard.

use super::guard::{boundary, raw};
use super::park;
use pgrx::pg_sys;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::time::{Duration, Instant};

/// How long anybody waits here.
const PATIENCE: Duration = Duration::from_millis(100);

/// How long at once. A signal that comes just before a wait begins is seen at its end.
const NAP: Duration = Duration::from_millis(20);

const OPEN: u32 = 0;
const CLOSED: u32 = 1;

/// A gate, alone on its cache line.
#[repr(align(64))]
pub(super) struct Gate {
    state: AtomicU32,
    waiting: AtomicU32,
}

impl Gate {
    pub(super) const fn new() -> Self {
        Self { state: AtomicU32::new(OPEN), waiting: AtomicU32::new(0) }
    }

    /// Enters if it is open.
    pub(super) fn enter_if_open(&self) -> bool {
        self.state.compare_exchange(OPEN, CLOSED, SeqCst, Relaxed).is_ok()
    }

    /// Waits to enter; false where it took too long.
    pub(super) fn enter(&self) -> bool {
        if self.enter_if_open() {
            return true;
        }
        let begin = Instant::now();
        while let Some(left) = patience().checked_sub(begin.elapsed()) {
            {
                let _waiting = Waiting::at(self);
                if self.enter_if_open() {
                    return true;
                }
                park::wait(&self.state, CLOSED, left.min(NAP));
            }
            if self.enter_if_open() {
                return true;
            }
            // SAFETY: reads a flag, then a C call that may raise.
            unsafe {
                if std::ptr::read_volatile(&raw const pg_sys::InterruptPending) != 0 {
                    boundary(|| raw::ProcessInterrupts());
                }
            }
        }
        false
    }

    /// Opens it again.
    pub(super) fn leave(&self) {
        self.state.store(OPEN, SeqCst);
        self.wake_one();
    }

    /// Whether anybody waits to enter.
    pub(super) fn is_awaited(&self) -> bool {
        self.waiting.load(SeqCst) > 0
    }

    fn wake_one(&self) {
        if self.is_awaited() {
            park::wake_one(&self.state);
        }
    }
}

/// Less where the session would not wait so long for a lock.
fn patience() -> Duration {
    // SAFETY: reads a variable of the session, in milliseconds; 0: no limit.
    match u64::try_from(unsafe { pg_sys::LockTimeout }) {
        Ok(limit @ 1..) => PATIENCE.min(Duration::from_millis(limit) / 10),
        _ => PATIENCE,
    }
}

/// Somebody waiting, for as long as it lives.
struct Waiting<'a>(&'a Gate);

impl<'a> Waiting<'a> {
    fn at(gate: &'a Gate) -> Self {
        gate.waiting.fetch_add(1, SeqCst);
        // SAFETY: writes the session's wait event.
        unsafe { pg_sys::pgstat_report_wait_start(pg_sys::PG_WAIT_EXTENSION) };
        Self(gate)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        // SAFETY: as above.
        unsafe { pg_sys::pgstat_report_wait_end() };
        self.0.waiting.fetch_sub(1, SeqCst);
    }
}
