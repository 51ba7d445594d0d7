//! The pages of the documentation: their blocks of code, run as they stand.

use super::database::Database;
use std::path::Path;

/// What a page consists of, as far as tests are concerned.
#[derive(Debug, PartialEq)]
pub enum Part {
    /// The lines of a comment `<!-- test … -->`.
    Directives(Vec<String>),
    Block {
        language: String,
        text: String,
    },
}

/// The parts of a page, in order.
pub fn parts(text: &str) -> Result<Vec<Part>, String> {
    let mut parts = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some(first) = line.strip_prefix("<!-- test") {
            let mut directives = vec![first];
            while !directives[directives.len() - 1].contains("-->") {
                directives.push(lines.next().ok_or("a comment without an end")?);
            }
            let plain = directives.iter().map(|line| line.replace("-->", "").trim().to_owned());
            parts.push(Part::Directives(plain.filter(|line| !line.is_empty()).collect()));
        } else if let Some(language) = line.strip_prefix("```") {
            let mut text = String::new();
            loop {
                match lines.next().ok_or("a block without an end")? {
                    "```" => break,
                    line => text += &format!("{line}\n"),
                }
            }
            parts.push(Part::Block { language: language.to_owned(), text });
        }
    }
    Ok(parts)
}

/// The blocks of a page of the repository in one language, in order; there is at least one.
pub fn blocks(page: &str, wanted: &str) -> Vec<String> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(page);
    let text = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{page}: {error}"));
    let blocks: Vec<String> = parts(&text)
        .unwrap_or_else(|problem| panic!("{page}: {problem}"))
        .into_iter()
        .filter_map(|part| match part {
            Part::Block { language, text } if language == wanted => Some(text),
            _ => None,
        })
        .collect();
    assert!(!blocks.is_empty(), "{page} has no block of {wanted}");
    blocks
}

pub fn sql_blocks(page: &str) -> Vec<String> {
    blocks(page, "sql")
}

/// Runs a script with psql as a role, with these variables; it must succeed. What it shows, a row a line, `|` between
/// columns; and what it says beside that.
pub fn psql(database: &Database, role: &str, variables: &[(&str, &str)], script: &str) -> (String, String) {
    let cluster = database.cluster();
    let file = cluster.write_file(&format!("{}.sql", database.name), script, 0o644);
    let variables: Vec<String> = variables.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let mut arguments = vec!["-XqAt", "-v", "ON_ERROR_STOP=1", "-U", role, "-d", &database.name];
    for variable in &variables {
        arguments.extend(["-v", variable]);
    }
    arguments.extend(["-f", file.to_str().expect("paths of tests are UTF-8")]);
    let output = cluster.client("psql", &arguments);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{script}\n{}", text(&output.stderr));
    (text(&output.stdout), text(&output.stderr))
}
