//! The how-tos of the identity: every block of SQL, run as it stands by whom the page says.

mod common;

use common::{Token, cluster};
use std::fs;

fn blocks(page: &str) -> String {
    let file = format!("{}/docs/how-to/{page}.md", env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{file}: {error}"));
    let blocks: Vec<&str> = text.split("```sql\n").skip(1).map(|rest| rest.split_once("```").unwrap().0).collect();
    assert!(!blocks.is_empty(), "{page} has no SQL");
    blocks.concat()
}

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
        let script = cluster().write_file(&format!("{page}.sql"), &blocks(page), 0o644);
        let token = format!("token={}", Token::for_member("user_1", "acme").sign());
        let script = script.to_str().unwrap();
        let arguments = [
            "-X",
            "-q",
            "-A",
            "-t",
            "-v",
            "ON_ERROR_STOP=1",
            "-v",
            &token,
            "-U",
            role,
            "-d",
            &database.name,
            "-f",
            script,
        ];
        let output = cluster().client("psql", &arguments);
        let shown = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{page}: {}", String::from_utf8_lossy(&output.stderr));
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
