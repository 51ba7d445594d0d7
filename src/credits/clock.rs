//! What time it is for credits: the one place that asks. Tests can move it, in builds with debug assertions.

/// Microseconds since 2000-01-01 UTC.
pub fn now() -> i64 {
    crate::pg::now_micros() + crate::pg::clock_offset_micros()
}
