//! The credit ledger from outside: the contract, the adversarial cases by their numbers, the model.

#[path = "../common/mod.rs"]
mod common;
mod core;
mod hot_path;
mod model;
mod model_driver;
mod model_test;
mod random;
mod world;
