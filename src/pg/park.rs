//! Sleeping until a word of shared memory changes.

use std::sync::atomic::AtomicU32;
use std::time::Duration;

/// Sleeps while `word` holds `value`, until woken, until a signal, or for so long; may also wake for nothing.
pub(super) fn wait(word: &AtomicU32, value: u32, longest: Duration) {
    #[cfg(target_os = "linux")]
    {
        let timeout = libc::timespec {
            tv_sec: longest.as_secs() as libc::time_t,
            tv_nsec: longest.subsec_nanos() as libc::c_long,
        };
        // SAFETY: a futex on a word that lives as long as the server; not a private one, since processes share it.
        unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAIT, value, &raw const timeout) };
    }
    #[cfg(not(target_os = "linux"))]
    if word.load(std::sync::atomic::Ordering::SeqCst) == value {
        std::thread::sleep(longest.min(Duration::from_micros(100)));
    }
}

/// Wakes one of those who sleep on `word`.
pub(super) fn wake_one(word: &AtomicU32) {
    #[cfg(target_os = "linux")]
    // SAFETY: as in `wait`.
    unsafe {
        libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, 1);
    }
    #[cfg(not(target_os = "linux"))]
    let _ = word;
}
