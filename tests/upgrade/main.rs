//! The road from this version to a made-up next one, which has its own library, its own functions and one more migration.

#[path = "../common/mod.rs"]
mod common;
mod frozen;
mod package;
mod road;
