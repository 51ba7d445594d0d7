//! The road from this version to a made-up 0.1.1, which has its own library, its own functions and one more migration.

#[path = "../common/mod.rs"]
mod common;
mod frozen;
mod package;
mod road;
