//! The how-to's SQL, run as it stands.

use crate::common::{Token, cluster};

#[test]
fn the_how_to_works_as_it_stands() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/how-to/modules-and-credentials.md");
    let page = std::fs::read_to_string(page).unwrap();
    let blocks: Vec<&str> = page.split("```sql\n").skip(1).map(|rest| rest.split_once("```").unwrap().0).collect();
    assert_eq!(blocks.len(), 4);
    let database = cluster().database();
    let script = cluster().write_file("how_to_modules.sql", &blocks.concat(), 0o644);
    let token = Token::for_member("user_1", "acme").claim("org_role", "org:operator").sign();
    let variable = format!("manage={token}");
    let script = script.to_str().unwrap();
    let arguments =
        ["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-v", &variable, "-d", &database.name, "-f", script];
    let output = cluster().client("psql", &arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let shown = String::from_utf8_lossy(&output.stdout);
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
