//! The credit ledger from outside: the contract, the adversarial cases by their numbers, the model.

mod cases_access;
mod cases_amounts;
mod cases_holds;
mod cases_keys;
mod cases_races;
mod cases_seats;
mod cases_server;
mod cases_transactions;
#[path = "../common/mod.rs"]
mod common;
mod core;
mod hot_path;
mod model;
mod model_driver;
mod model_test;
mod race;
mod random;
mod world;
