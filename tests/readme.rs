//! The README's example, run as it stands.

mod common;

use common::{cluster, psql, sql_blocks};

#[test]
fn the_example_works_as_it_stands() {
    let database = cluster().empty_database();
    let (shown, _) = psql(&database, "postgres", &[], &sql_blocks("README.md").concat());
    let last: Vec<&str> = shown.lines().rev().take(2).collect();
    assert_eq!(last, ["0", "lamp|acme|98.000000"], "{shown}");
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    assert!(readme.contains(&last[1].replace('|', " | ")), "what the example shows");
}
