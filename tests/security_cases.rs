//! docs/security-cases.md: every number of the catalogues has a test that exists, or a sentence.

mod common;

use common::shared_file;
use std::fs;
use std::path::PathBuf;

/// The sections of the document, with the catalogue and the heading their numbers stand under.
const SECTIONS: [(&str, &str, &str); 3] = [
    ("Identity", "identity.md", "## Attacks"),
    ("Isolation", "isolation.md", "## How isolation breaks"),
    ("Credits", "credits.md", "## Adversarial list"),
];

fn document() -> String {
    fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/security-cases.md")).unwrap()
}

/// The part of a text from a heading of the second level to the next.
fn section<'a>(text: &'a str, heading: &str) -> Option<&'a str> {
    let start = text.find(&format!("\n{heading}"))? + 1;
    let rest = &text[start..];
    Some(rest[2..].find("\n## ").map_or(rest, |end| &rest[..end + 2]))
}

/// The numbers of a catalogue run through its text: `1 an attack → … 2 another …`.
fn last_number(catalogue: &str) -> u32 {
    let mut words = catalogue.split_whitespace();
    (1..).find(|next: &u32| words.by_ref().all(|word| word != next.to_string())).unwrap() - 1
}

fn sources() -> String {
    let mut sources = String::new();
    let mut folders: Vec<PathBuf> =
        ["tests", "pgrx-tests", "src"].map(|folder| [env!("CARGO_MANIFEST_DIR"), folder].iter().collect()).into();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_dir() {
                folders.push(entry);
            } else if entry.extension().is_some_and(|extension| extension == "rs") {
                sources += &fs::read_to_string(entry).unwrap();
            }
        }
    }
    sources
}

#[test]
fn every_number_has_a_test_or_a_sentence() {
    let document = document();
    for (name, file, heading) in SECTIONS {
        let Some(file) = shared_file(&format!("reference/{file}")) else { continue };
        let catalogue = fs::read_to_string(file).unwrap();
        let last = last_number(section(&catalogue, heading).unwrap_or_else(|| panic!("no {heading}")));
        assert!(last >= 38, "{name}: only {last} numbers were found");
        let cases = section(&document, &format!("## {name}")).unwrap_or_else(|| panic!("no section {name}"));
        let bare: Vec<u32> =
            (1..=last).filter(|number| !has_test(cases, *number) && !has_sentence(cases, *number)).collect();
        assert!(bare.is_empty(), "{name}: neither a test nor a sentence for {bare:?}");
    }
}

fn row(cases: &str, number: u32) -> Option<&str> {
    cases.lines().find(|line| line.starts_with(&format!("| {number} |")))
}

fn has_test(cases: &str, number: u32) -> bool {
    row(cases, number).is_some_and(|row| !tests(row).is_empty())
}

/// A line of a list that begins with the number, or numbers, in bold.
fn has_sentence(cases: &str, number: u32) -> bool {
    cases.lines().filter_map(|line| line.strip_prefix("- **")?.split_once("** ")).any(|(numbers, sentence)| {
        numbers.split(", ").any(|one| one == number.to_string()) && sentence.split_whitespace().count() >= 4
    })
}

/// The tests that a row names, in its last column.
fn tests(row: &str) -> Vec<&str> {
    let column = row.trim_end_matches(" |").rsplit(" | ").next().unwrap_or_default();
    column.split('`').skip(1).step_by(2).collect()
}

#[test]
fn the_tests_that_are_named_exist() {
    let sources = sources();
    let document = document();
    let rows = document.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| #"));
    for row in rows {
        assert!(!tests(row).is_empty() || row.contains("below"), "no test in {row}");
        for name in tests(row) {
            assert!(sources.contains(&format!("fn {name}(")), "no test is named {name}");
        }
    }
}

#[test]
fn a_number_without_either_is_noticed() {
    assert_eq!(last_number("intro 1 a → b. 2 c 12 3 d. 5 e"), 3);
    let cases = "## X\n| 1 | a | b | `t` |\n| 2 | a | b | see |\n- **3, 4** this is a sentence here\n- **5** no\n";
    let covered: Vec<u32> = (1..=6).filter(|number| has_test(cases, *number) || has_sentence(cases, *number)).collect();
    assert_eq!(covered, [1, 3, 4]);
}
