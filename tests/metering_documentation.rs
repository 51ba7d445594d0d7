//! The SQL of the how-to, run as it stands there: blocks with a transaction as an application, the others as an operator.

mod common;

use common::{Token, cluster, sql_blocks};

#[test]
fn the_how_to_runs() {
    let database = cluster().database();
    database
        .connect("ops")
        .batch_execute("SELECT tenancy.register_user('larare-0017'); SELECT tenancy.register_organization('skola-malmo-01', 'Malmö')")
        .unwrap();
    let token = Token::for_member("larare-0017", "skola-malmo-01").sign();
    let blocks = sql_blocks("docs/how-to/limits-usage-and-prometheus.md");
    assert!(blocks.len() >= 7);
    for block in blocks {
        let role = if block.starts_with("BEGIN") {
            "app"
        } else if block.contains("CREATE ROLE") {
            "postgres"
        } else {
            "ops"
        };
        let statements = block.replace(":'token'", &format!("'{token}'"));
        database.connect(role).batch_execute(&statements).unwrap_or_else(|error| panic!("{block}\n{error:?}"));
    }
    database.connect("exporter").query("SELECT tenancy.metrics_text()", &[]).unwrap();
}
