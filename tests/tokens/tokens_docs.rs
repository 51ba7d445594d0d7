//! docs/how-to/issue-tokens.md, run as it stands.

use crate::common::{cluster, psql, sql_blocks};

#[test]
fn the_how_to_works_as_it_stands() {
    let blocks = sql_blocks("docs/how-to/issue-tokens.md");
    assert!(blocks.len() >= 6);
    let database = cluster().database();
    let (said, errors) = psql(&database, "postgres", &[], &blocks.concat());
    assert!(errors.is_empty(), "{errors}");
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
