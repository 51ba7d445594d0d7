//! Tokens, codes and API keys: issued, presented, refused, raced for, and verified by other people's libraries.

#[path = "../common/mod.rs"]
mod common;
mod peers;
mod tokens_api_keys;
mod tokens_authorization;
mod tokens_extension;
mod tokens_issue;
mod tokens_judged;
mod tokens_lasting;
mod tokens_leaks;
mod tokens_leaving;
mod tokens_origin;
mod tokens_peers;
mod world;
