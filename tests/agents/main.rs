//! Modules, credentials and agent states, seen from outside: two organizations that use the same ids.

#[path = "../common/mod.rs"]
mod common;
mod credentials;
mod modules;
mod permissions;
mod service;
mod states;
mod world;
