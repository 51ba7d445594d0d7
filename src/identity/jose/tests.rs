//! Tests that cross the files: whole tokens, and vectors that others wrote.

mod claims;
mod fuzz_smoke;
mod keys;
mod profiles;
mod rfc;
mod signing;
mod wycheproof;

use super::algorithm::Family;
use super::{Algorithm, SigningKey};
use serde_json::Value;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

/// A file of `shared/vectors`, from `PG_TENANCY_VECTORS` or a folder above the crate. None, with a message, where the
/// vectors are not there: they are not part of this repository.
fn vectors(name: &str) -> Option<Value> {
    let crate_folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let above = crate_folder.ancestors().map(|folder| folder.join("shared/vectors"));
    let named = std::env::var_os("PG_TENANCY_VECTORS").map(PathBuf::from);
    let path = named.into_iter().chain(above).map(|folder| folder.join(name)).find(|path| path.exists());
    let Some(path) = path else {
        // Not eprintln!, which a passing test keeps to itself.
        let _ = writeln!(std::io::stderr(), "skipped: no {name}; set PG_TENANCY_VECTORS to the folder that has it");
        return None;
    };
    let text = std::fs::read(&path).expect("the vectors are readable");
    Some(serde_json::from_slice(&text).expect("the vectors are JSON"))
}

/// The bytes of one key for each algorithm; RSA shares one, since making it takes a second in a debug build.
fn private_key(algorithm: Algorithm) -> Vec<u8> {
    static RSA: LazyLock<Vec<u8>> = LazyLock::new(|| generated(Algorithm::Rs256));
    match algorithm.family() {
        Family::Rsa => RSA.clone(),
        _ => generated(algorithm),
    }
}

fn generated(algorithm: Algorithm) -> Vec<u8> {
    SigningKey::generate(algorithm).expect("a key").to_vec()
}
