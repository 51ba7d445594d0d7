//! The how-tos of the identity: every block of SQL, run as it stands by whom the page says.

mod common;

use common::{Token, cluster, psql, sql_blocks};
use std::fs;

#[test]
fn every_block_runs() {
    for (page, role, expected) in [
        ("authenticate-with-clerk", "ops", "t"),
        ("authenticate-with-auth0", "ops", "f"),
        ("authenticate-with-workos", "ops", "t"),
        ("authenticate-with-supabase", "postgres", "t"),
        ("use-pgbouncer", "app", "acme"),
        ("rotate-keys", "ops", "2026-11|oct|usable"),
    ] {
        let database = cluster().database();
        let token = Token::for_member("user_1", "acme").sign();
        let script = sql_blocks(&format!("docs/how-to/{page}.md")).concat();
        let (shown, _) = psql(&database, role, &[("token", &token)], &script);
        assert!(shown.lines().any(|line| line == expected), "{page}: {expected} is not in:\n{shown}");
    }
}

#[test]
fn the_security_cases_name_tests_that_exist() {
    let root = env!("CARGO_MANIFEST_DIR");
    let cases = fs::read_to_string(format!("{root}/docs/security-cases.md")).unwrap();
    let mut sources = String::new();
    let mut folders = vec![std::path::PathBuf::from(format!("{root}/tests"))];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_dir() {
                folders.push(entry);
            } else if entry.extension().is_some_and(|extension| extension == "rs") {
                sources += &fs::read_to_string(entry).unwrap();
            }
        }
    }
    let rows = cases.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| #"));
    for row in rows {
        let tests = row.trim_end_matches(" |").rsplit(" | ").next().unwrap();
        let named: Vec<&str> = tests.split('`').skip(1).step_by(2).collect();
        assert!(!named.is_empty(), "no test in {row}");
        for name in named {
            assert!(sources.contains(&format!("fn {name}(")), "no test is named {name}");
        }
    }
    // Each number of the catalogue, once.
    let (_, identity) = cases.split_once("## Identity").expect("there is a section");
    let identity = identity.split("\n## ").next().unwrap();
    for number in 1..=38 {
        assert_eq!(identity.matches(&format!("\n| {number} | ")).count(), 1, "case {number}");
    }
}
