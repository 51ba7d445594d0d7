//! Isolation, seen from outside: real connections as ordinary roles.

mod audit;
#[path = "../common/mod.rs"]
mod common;
mod composite_keys;
mod footprint;
mod guard;
mod offboard;
mod online;
mod operator;
mod parts;
mod protect;
mod refusals;
mod world;
