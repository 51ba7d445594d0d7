//! Gates: a word of shared memory that lets in one at a time, for waits that are nearly always short.
//!
//! A lock of Postgres is handed from its holder to whoever is first in its queue, who then has to be woken: while that
//! takes its time, nobody works. A gate that opens is open to whoever comes first, the sleeper it wakes or a session
//! that is awake. So that nobody is passed by for ever, whoever has waited for [`FAIR`] is late: for them the gate is
//! kept. Nobody waits here without an end, so a gate can be part of no deadlock, and nothing may rest on it: it keeps
//! order, it does not guard.

use super::park;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicU32, AtomicU64};
use std::time::{Duration, Instant};

/// How long anybody is passed by others.
pub(super) const FAIR: Duration = Duration::from_millis(20);

/// How long anybody sleeps at once. A signal that comes just before is seen at its end.
const NAP: Duration = Duration::from_millis(20);

const OPEN: u32 = 0;
const CLOSED: u32 = 1;
/// Open to those who are late.
const KEPT: u32 = 2;

/// A gate, alone on its cache line.
#[repr(align(64))]
pub(super) struct Gate {
    state: AtomicU32,
    /// For what it was last closed: other things may have the same gate.
    key: AtomicU64,
    /// Who waits, the late among them.
    waiting: AtomicU32,
    late: AtomicU32,
    /// How often it was opened while somebody was late: what the late sleep on.
    kept: AtomicU32,
    /// Who gave up here, and waits elsewhere for whoever has it closed.
    beyond: AtomicU32,
}

impl Gate {
    pub(super) const fn new() -> Self {
        Self {
            state: AtomicU32::new(OPEN),
            waiting: AtomicU32::new(0),
            late: AtomicU32::new(0),
            kept: AtomicU32::new(0),
            beyond: AtomicU32::new(0),
            key: AtomicU64::new(0),
        }
    }

    /// Enters if it is open to everybody.
    pub(super) fn enter_if_open(&self, key: u64) -> bool {
        self.close_from(OPEN, key)
    }

    fn close_from(&self, state: u32, key: u64) -> bool {
        let closed = self.state.compare_exchange(state, CLOSED, SeqCst, Relaxed).is_ok();
        if closed {
            self.key.store(key, SeqCst);
        }
        closed
    }

    /// Whether it is worth waiting for: not closed for something else.
    pub(super) fn is_for(&self, key: u64) -> bool {
        self.state.load(SeqCst) == OPEN || self.key.load(SeqCst) == key
    }

    /// Waits to enter, being passed by for as long as `fair`; false where it took longer than `patience`. `awake` is
    /// called between two sleeps, and may unwind.
    pub(super) fn enter(&self, key: u64, fair: Duration, patience: Duration, mut awake: impl FnMut()) -> bool {
        let begin = Instant::now();
        loop {
            let waited = begin.elapsed();
            if waited >= patience {
                return false;
            }
            let left = patience - waited;
            let entered = if waited < fair {
                Waiting::at(self, false).enter(key, left.min(fair - waited))
            } else {
                Waiting::at(self, true).enter(key, left.min(NAP))
            };
            if entered {
                return true;
            }
            awake();
        }
    }

    /// Opens it again, and wakes one who waits.
    pub(super) fn leave(&self) {
        let state = if self.late.load(SeqCst) > 0 { KEPT } else { OPEN };
        self.state.store(state, SeqCst);
        self.wake_one();
    }

    /// Whoever became late before the gate opened is seen here, whoever becomes so after sees that it is open.
    fn wake_one(&self) {
        if self.late.load(SeqCst) > 0 {
            self.kept.fetch_add(1, SeqCst);
            park::wake_one(&self.kept);
            return;
        }
        let _ = self.state.compare_exchange(KEPT, OPEN, SeqCst, Relaxed);
        if self.waiting.load(SeqCst) > 0 {
            park::wake_one(&self.state);
        }
    }

    /// Whether anybody waits for whoever has it closed, here or elsewhere; `beyond`: how many of those are the asker's.
    pub(super) fn is_awaited(&self, beyond: u32) -> bool {
        self.waiting.load(SeqCst) > 0 || self.beyond.load(SeqCst) > beyond
    }

    /// Counts one who gave up and waits elsewhere, until [`Gate::came_back`].
    pub(super) fn went_beyond(&self) {
        self.beyond.fetch_add(1, SeqCst);
    }

    pub(super) fn came_back(&self) {
        self.beyond.fetch_sub(1, SeqCst);
    }
}

/// Somebody waiting, for as long as it lives.
struct Waiting<'a> {
    gate: &'a Gate,
    is_late: bool,
}

impl<'a> Waiting<'a> {
    fn at(gate: &'a Gate, is_late: bool) -> Self {
        gate.waiting.fetch_add(1, SeqCst);
        gate.late.fetch_add(u32::from(is_late), SeqCst);
        Self { gate, is_late }
    }

    /// Sleeps at most once, for at most so long; whether it got in.
    fn enter(&self, key: u64, longest: Duration) -> bool {
        let word = if self.is_late { &self.gate.kept } else { &self.gate.state };
        let seen = word.load(SeqCst);
        self.close(key) || {
            if self.is_late || seen != OPEN {
                park::wait(word, seen, longest);
            }
            self.close(key)
        }
    }

    fn close(&self, key: u64) -> bool {
        self.gate.close_from(OPEN, key) || self.is_late && self.gate.close_from(KEPT, key)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.gate.waiting.fetch_sub(1, SeqCst);
        // The last of the late may leave without having entered, and others may wait for it to be gone.
        if self.is_late && self.gate.late.fetch_sub(1, SeqCst) == 1 && self.gate.state.load(SeqCst) == KEPT {
            self.gate.wake_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{FAIR, Gate};
    use std::sync::atomic::AtomicU32;
    use std::sync::atomic::Ordering::{Relaxed, SeqCst};
    use std::thread;
    use std::time::Duration;

    const LONG: Duration = Duration::from_secs(600);

    #[test]
    fn one_at_a_time_and_everybody_in_the_end() {
        let (gate, inside, through) = (Gate::new(), AtomicU32::new(0), AtomicU32::new(0));
        thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        assert!(gate.enter_if_open(1) || gate.enter(1, FAIR, LONG, || ()));
                        assert_eq!(inside.fetch_add(1, Relaxed), 0);
                        thread::yield_now();
                        assert_eq!(inside.fetch_sub(1, Relaxed), 1);
                        through.fetch_add(1, Relaxed);
                        gate.leave();
                    }
                });
            }
        });
        assert_eq!(through.into_inner(), 16 * 200);
        assert!(!gate.is_awaited(0) && gate.enter_if_open(1));
    }

    #[test]
    fn for_the_late_it_is_kept() {
        let gate = Gate::new();
        assert!(gate.enter_if_open(1));
        thread::scope(|scope| {
            let late = scope.spawn(|| gate.enter(1, Duration::ZERO, LONG, || ()));
            // Again where the late one was between two naps when the gate opened.
            let kept = (0..100).any(|_| {
                while gate.late.load(SeqCst) == 0 {
                    thread::yield_now();
                }
                gate.leave();
                // Open to one alone: either it is in by now, or it will be.
                !gate.enter_if_open(1)
            });
            assert!(kept);
            assert!(late.join().unwrap());
        });
        gate.leave();
        assert!(gate.enter_if_open(1));
    }

    #[test]
    fn who_gives_up_leaves_it_to_the_others() {
        let gate = Gate::new();
        assert!(gate.enter_if_open(1));
        assert!(!gate.enter(1, Duration::ZERO, Duration::from_millis(1), || ()));
        let stopped = thread::scope(|scope| {
            scope.spawn(|| gate.enter(1, Duration::ZERO, LONG, || std::panic::resume_unwind(Box::new(())))).join()
        });
        assert!(stopped.is_err() && !gate.is_awaited(0));
        gate.leave();
        assert!(gate.enter_if_open(1));
    }

    #[test]
    fn it_tells_for_what_it_is_closed_and_who_waits_elsewhere() {
        let gate = Gate::new();
        assert!(gate.is_for(2) && gate.enter_if_open(1));
        assert!(gate.is_for(1) && !gate.is_for(2));
        gate.went_beyond();
        assert!(gate.is_awaited(0) && !gate.is_awaited(1));
        gate.came_back();
        assert!(!gate.is_awaited(0));
    }
}
