//! docs/how-to/issue-tokens.md, run as it stands.

use crate::common::cluster;

#[test]
fn the_how_to_works_as_it_stands() {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/how-to/issue-tokens.md")).unwrap();
    let blocks: Vec<&str> = text.split("```sql\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert!(blocks.len() >= 6);
    let database = cluster().database();
    let script = cluster().write_file("issue_tokens.sql", &blocks.concat(), 0o644);
    let script = script.to_str().unwrap();
    let arguments = ["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", &database.name, "-f", script];
    let output = cluster().client("psql", &arguments);
    let (said, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && errors.is_empty(), "{errors}");
    for expected in [
        "\"clerk_org_id\": \"org_acme\"",
        "user_ada|119|f|f",
        "refreshed|t",
        "org_acme|operator|t",
        "token_audit_logs|0",
    ] {
        assert!(said.contains(expected), "{expected} is missing in:\n{said}");
    }
}
