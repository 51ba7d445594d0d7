//! Events, seen from outside: registration, lifecycle, dispatch, consumption; the outbox and the inbox.

mod batches;
#[path = "../common/mod.rs"]
mod common;
mod correlation;
mod debezium;
mod documentation;
mod exactly_once;
mod hostile;
mod inbox;
mod logical;
mod namespaces;
mod outbox;
mod payloads;
mod polling;
mod protection;
mod trimming;
mod world;
