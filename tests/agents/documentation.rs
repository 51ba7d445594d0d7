//! The how-to's SQL, run as it stands.

use crate::common::{Token, cluster, psql, sql_blocks};

#[test]
fn the_how_to_works_as_it_stands() {
    let blocks = sql_blocks("docs/how-to/modules-and-credentials.md");
    assert_eq!(blocks.len(), 4);
    let database = cluster().database();
    let token = Token::for_member("user_1", "acme").claim("org_role", "org:operator").sign();
    let (shown, _) = psql(&database, "postgres", &[("manage", &token)], &blocks.concat());
    for line in [
        "weather/open-meteo|Open-Meteo|installed",
        "the key the provider gave you",
        "weather/open-meteo|t",
        "llm",
        "acme|weather/open-meteo|1",
        "acme|weather/open-meteo",
    ] {
        assert!(shown.lines().any(|shown| shown == line), "{line} is not in:\n{shown}");
    }
}
