//! The credit ledger from outside: the contract, the adversarial cases by their numbers, the model.

mod batch;
mod caps_and_alerts;
mod cases_access;
mod cases_amounts;
mod cases_holds;
mod cases_keys;
mod cases_races;
mod cases_seats;
mod cases_server;
mod cases_transactions;
mod client;
#[path = "../common/mod.rs"]
mod common;
mod consumption;
mod core;
mod documentation;
mod fallbacks;
mod grants;
mod hot_path;
mod integrity;
mod lock_order;
mod model;
mod model_driver;
mod model_test;
mod race;
mod random;
mod views;
mod world;
