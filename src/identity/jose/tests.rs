//! Tests that cross the files: whole tokens, and vectors that others wrote.

mod wycheproof;

use serde_json::Value;
use std::path::{Path, PathBuf};

/// A file of `shared/vectors`, from `PG_TENANCY_VECTORS` or a folder above the crate. None, with a message, where the
/// vectors are not there: they are not part of this repository.
fn vectors(name: &str) -> Option<Value> {
    let above = || Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().map(|folder| folder.join("shared/vectors"));
    let from_environment = std::env::var_os("PG_TENANCY_VECTORS").map(PathBuf::from);
    let path = from_environment.into_iter().chain(above()).map(|folder| folder.join(name)).find(|path| path.exists());
    let Some(path) = path else {
        eprintln!("skipped: no {name}; set PG_TENANCY_VECTORS to the folder that has it");
        return None;
    };
    let text = std::fs::read(&path).expect("the vectors are readable");
    Some(serde_json::from_slice(&text).expect("the vectors are JSON"))
}
