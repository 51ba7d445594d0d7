//! What whoever runs the database sees and does: health, the log, retention.

#[path = "../common/mod.rs"]
mod common;

mod health;
mod health_master_key;
mod log_identity;
mod retention;

use common::{Cluster, Options};
use postgres::Client;
use std::sync::OnceLock;

/// A cluster as it should be, but for what a test does to its own database.
fn sound() -> &'static Cluster {
    static SHARED: OnceLock<Cluster> = OnceLock::new();
    SHARED.get_or_init(|| Cluster::start(Options { durable: true, ..Options::default() }))
}

/// The rows of a check: status and detail. A status other than ok always comes with a remedy.
fn check(client: &mut Client, name: &str) -> Vec<(String, String)> {
    let rows = client.query("SELECT status, detail, remedy FROM tenancy.health() WHERE check_name = $1", &[&name]);
    rows.unwrap()
        .iter()
        .map(|row| {
            let (status, remedy): (String, Option<String>) = (row.get(0), row.get(2));
            assert_eq!(status == "ok", remedy.is_none(), "{name}: {status}, {remedy:?}");
            (status, row.get(1))
        })
        .collect()
}

/// The check has a row of this status whose detail contains the words.
fn says(client: &mut Client, name: &str, status: &str, words: &str) {
    let rows = check(client, name);
    assert!(
        rows.iter().any(|(found, detail)| found == status && detail.contains(words)),
        "{name} does not say {status}, {words}: {rows:?}"
    );
}

fn well(client: &mut Client, name: &str) {
    let rows = check(client, name);
    assert!(!rows.is_empty() && rows.iter().all(|(status, _)| status == "ok"), "{name}: {rows:?}");
}
