//! The events of contract H, as plain Rust: no Postgres, no I/O.
//!
//! The types accept what the originals accept (unknown members are ignored, integers are lax, `org_id` may be absent)
//! and refuse what they refuse. [`read`] takes any document and never fails: it says what is wrong with it.

pub mod batch;
pub mod entitlements;
pub mod envelope;
pub mod ids;
pub mod lax;
pub mod name;
pub mod pipeline;
pub mod python;
pub mod reading;
pub mod text;

pub use envelope::Kind;
pub use reading::{Model, Problem, Reading, read};

#[cfg(test)]
mod tests;
