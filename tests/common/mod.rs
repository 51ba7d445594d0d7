//! Harness of the tests from outside: a private cluster for each test binary, a fresh database for each test.
//!
//! ```ignore
//! mod common;
//! use common::{Token, cluster, refused};
//!
//! #[test]
//! fn an_unknown_issuer_is_refused() {
//!     let database = cluster().database();
//!     let mut app = database.connect("app");
//!     let token = Token::for_user("user_1").claim("iss", "https://elsewhere.test").sign();
//!     refused(app.query("SELECT tenancy.authenticate($1)", &[&token]), "PT401", "unknown_issuer");
//! }
//! ```
#![allow(dead_code, unused_imports, unused_macros)] // each test binary uses its own part

/// A line that is seen in passing tests too, where `println!` is not: seeds, figures, and why a test was skipped.
macro_rules! say {
    ($($part:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr().lock(), $($part)*);
    }};
}
pub(crate) use say;

mod cluster;
pub mod copies;
mod database;
mod errors;
mod pages;
mod shared;
mod tokens;

pub use cluster::{Cluster, Options, as_server, cluster, wrappers};
pub use database::{Database, Notices};
pub use errors::{disconnected, fails_with, refused};
pub use pages::{Part, blocks, parts, psql, sql_blocks};
pub use shared::{shared_file, shared_json};
pub use tokens::{AUDIENCE, ISSUER, KEY_ID, SECRET, Token, base64url, hs256, jws};

use std::sync::Barrier;

/// Runs `work` in `count` threads that begin together; their results in order.
pub fn in_parallel<T: Send>(count: usize, work: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let barrier = Barrier::new(count);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..count)
            .map(|index| {
                let (barrier, work) = (&barrier, &work);
                scope.spawn(move || {
                    barrier.wait();
                    work(index)
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("a parallel session panicked")).collect()
    })
}
