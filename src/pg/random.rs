//! Random bytes, asked of the system many at a time: a system call for each id would cost more than the id.

use pgrx::pg_sys;
use std::cell::RefCell;

/// What was fetched and not yet given out.
struct Pool {
    /// The process that fetched it. A fork must not give out what its parent gives out too.
    process: i32,
    used: usize,
    bytes: [u8; 512],
}

thread_local! {
    static POOL: RefCell<Pool> = const { RefCell::new(Pool { process: 0, used: 0, bytes: [0; 512] }) };
}

/// Bytes that nobody can foresee.
pub(super) fn bytes<const N: usize>() -> [u8; N] {
    // SAFETY: reads a static of the backend, set when the process begins.
    let process = unsafe { pg_sys::MyProcPid };
    POOL.with_borrow_mut(|pool| {
        if pool.process != process || pool.used + N > pool.bytes.len() {
            aws_lc_rs::rand::fill(&mut pool.bytes).expect("the system has random bytes");
            (pool.process, pool.used) = (process, 0);
        }
        let given = &mut pool.bytes[pool.used..pool.used + N];
        pool.used += N;
        let mut bytes = [0; N];
        bytes.copy_from_slice(given);
        given.fill(0);
        bytes
    })
}
