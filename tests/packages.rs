//! The cheap part of `make package`: versions that agree, licences that may be linked, a complete list of what is inside.
//! The .deb itself: `make package` and `make package-test`.

use serde_json::Value;
use std::path::Path;
use std::process::Command;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(file: &str) -> String {
    std::fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// Every crate that is linked into the library: name, version, licence.
fn linked() -> Vec<(String, String)> {
    let output = Command::new(env!("CARGO"))
        .current_dir(root())
        .args(["tree", "--offline", "--edges", "normal", "--prefix", "none", "--format", "{p}|{l}"])
        .args(["--no-default-features", "--features", "pg15"])
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let mut crates: Vec<(String, String)> = text
        .lines()
        .filter_map(|line| line.split_once('|'))
        .map(|(package, licence)| {
            let name = package.split(" (").next().unwrap_or(package);
            (name.to_owned(), licence.trim_end_matches(" (*)").replace('/', " OR "))
        })
        .collect();
    crates.sort();
    crates.dedup();
    crates
}

/// Whether an SPDX expression can be satisfied with allowed licences: OR binds weaker than AND, parentheses first.
fn may_link(expression: &str, allowed: &[String]) -> bool {
    fn any(words: &mut std::iter::Peekable<std::vec::IntoIter<String>>, allowed: &[String]) -> bool {
        let mut holds = all(words, allowed);
        while words.peek().is_some_and(|word| word == "OR") {
            words.next();
            holds |= all(words, allowed);
        }
        holds
    }
    fn all(words: &mut std::iter::Peekable<std::vec::IntoIter<String>>, allowed: &[String]) -> bool {
        let mut holds = one(words, allowed);
        while words.peek().is_some_and(|word| word == "AND") {
            words.next();
            holds &= one(words, allowed);
        }
        holds
    }
    fn one(words: &mut std::iter::Peekable<std::vec::IntoIter<String>>, allowed: &[String]) -> bool {
        match words.next() {
            Some(word) if word == "(" => {
                let holds = any(words, allowed);
                assert_eq!(words.next().as_deref(), Some(")"), "parentheses match");
                holds
            }
            Some(word) => allowed.contains(&word),
            None => false,
        }
    }
    let spaced = expression.replace('(', " ( ").replace(')', " ) ");
    let words: Vec<String> = spaced.split_whitespace().map(str::to_owned).collect();
    let mut words = words.into_iter().peekable();
    any(&mut words, allowed) && words.next().is_none()
}

#[test]
fn every_crate_has_a_licence_that_deny_toml_allows() {
    let deny = read("deny.toml");
    let list = deny.split_once("allow = [").and_then(|(_, rest)| rest.split_once(']')).expect("an allow list").0;
    let allowed: Vec<String> =
        list.split(',').map(|item| item.trim().trim_matches('"').to_owned()).filter(|item| !item.is_empty()).collect();
    assert!(may_link("(MIT OR GPL-3.0) AND ISC", &allowed) && !may_link("MIT AND GPL-3.0", &allowed));
    let crates = linked();
    assert!(crates.len() > 30, "{crates:?}");
    let refused: Vec<_> = crates.iter().filter(|(_, licence)| !may_link(licence, &allowed)).collect();
    assert!(refused.is_empty(), "{refused:?}");
}

#[test]
fn the_versions_agree() {
    let meta: Value = serde_json::from_str(&read("META.json")).expect("META.json is JSON");
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(meta["version"], version);
    assert_eq!(meta["provides"]["pg_tenancy"]["version"], version);
    for field in ["name", "abstract", "maintainer", "license", "provides", "meta-spec"] {
        assert!(!meta[field].is_null(), "PGXN wants {field}");
    }
    let file = meta["provides"]["pg_tenancy"]["file"].as_str().expect("a file");
    assert!(root().join(file).exists(), "{file}");
    assert!(read("pg_tenancy.control").contains("default_version = '@CARGO_VERSION@'"));
}

#[test]
fn the_bill_of_materials_names_every_crate() {
    let output = Command::new(root().join("scripts/sbom.sh")).output().expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let bill: Value = serde_json::from_slice(&output.stdout).expect("the SBOM is JSON");
    assert_eq!(bill["bomFormat"], "CycloneDX");
    let mut named: Vec<String> = bill["components"]
        .as_array()
        .expect("components")
        .iter()
        .map(|part| {
            assert!(part["hashes"][0]["content"].as_str().is_some_and(|hash| hash.len() == 64), "{part}");
            format!("{} v{}", part["name"].as_str().unwrap(), part["version"].as_str().unwrap())
        })
        .collect();
    named.sort();
    let mut expected: Vec<String> =
        linked().into_iter().map(|(name, _)| name).filter(|name| !name.starts_with("pg_tenancy ")).collect();
    expected.sort();
    expected.dedup();
    assert_eq!(named, expected);
}
