//! Files that are not part of the repository: public test vectors and payloads.

use serde_json::Value;
use std::path::{Path, PathBuf};

/// A file of the shared folder (`PGT_SHARED`, else `../shared`). `None`, with a line that says so, where it is
/// absent: the test is then to return.
pub fn shared_file(name: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("PGT_SHARED")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared"), PathBuf::from);
    let file = folder.join(name);
    if !file.exists() {
        super::say!("skipped: {} is not there (PGT_SHARED names its folder)", file.display());
        return None;
    }
    Some(file)
}

/// The same, read as JSON.
pub fn shared_json(name: &str) -> Option<Value> {
    let file = shared_file(name)?;
    let text = std::fs::read_to_string(&file).expect("a shared file can be read");
    Some(serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display())))
}
