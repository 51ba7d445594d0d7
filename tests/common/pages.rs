//! The SQL of the documentation, run as it stands.

use super::database::Database;
use std::path::Path;

/// The blocks of SQL of a page of the repository, in order; there is at least one.
pub fn sql_blocks(page: &str) -> Vec<String> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(page);
    let text = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{page}: {error}"));
    let end =
        |rest: &str| rest.split_once("```").unwrap_or_else(|| panic!("{page}: a block does not end")).0.to_owned();
    let blocks: Vec<String> = text.split("```sql\n").skip(1).map(end).collect();
    assert!(!blocks.is_empty(), "{page} has no SQL");
    blocks
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
