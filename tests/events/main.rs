//! Events, seen from outside: registration, lifecycle, dispatch, consumption; the outbox and the inbox.

mod batches;
#[path = "../common/mod.rs"]
mod common;
mod exactly_once;
mod inbox;
mod logical;
mod outbox;
mod payloads;
mod polling;
mod world;
