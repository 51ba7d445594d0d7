//! Isolation, seen from outside: real connections as ordinary roles.

mod audit;
mod audit_provoked;
mod audit_rules;
#[path = "../common/mod.rs"]
mod common;
mod composite_keys;
mod differential;
mod documentation;
mod footprint;
mod guard;
mod library;
mod matrix;
mod offboard;
mod offboard_remains;
mod online;
mod operator;
mod parts;
mod plans;
mod protect;
mod refusals;
mod sarif;
mod structures;
mod threats_around;
mod threats_rows;
mod threats_sessions;
mod world;
