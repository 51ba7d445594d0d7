//! Faults under a mixed load: whatever happens to the server, what it acknowledged is there afterwards, the ledger
//! agrees with itself and isolation holds. `make torture` runs the same for longer: PGT_ROUNDS, PGT_SECONDS.

#[path = "../common/mod.rs"]
mod common;
mod crashes;
mod disk;
mod load;
mod memory;
