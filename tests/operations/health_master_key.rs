//! The master key: what health() says of its file, of what is sealed under it, and of its backup.

use crate::common::{Cluster, Options, refused};
use crate::{check, says, well};
use aws_lc_rs::digest::{SHA256, digest};
use postgres::Client;
use std::time::{Duration, Instant};

/// The settings reach a session at its next statement after the reload.
fn says_soon(client: &mut Client, name: &str, status: &str, words: &str) {
    let end = Instant::now() + Duration::from_secs(60);
    while !check(client, name).iter().any(|(found, detail)| found == status && detail.contains(words)) {
        assert!(Instant::now() < end, "{name} does not say {status}, {words}: {:?}", check(client, name));
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn sha256(content: &str) -> String {
    digest(&SHA256, content.as_bytes()).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn the_life_of_a_master_key() {
    let cluster = Cluster::start(Options { master_key: false, ..Options::default() });
    let database = cluster.empty_database();
    let mut client = database.superuser();
    client.batch_execute("CREATE EXTENSION pg_tenancy; SELECT tenancy.install()").unwrap();
    says(&mut client, "master_key", "warning", "is not set");

    let (first, second) = (format!("{}\n", "1f2e".repeat(16)), format!("{}\n", "3d4c".repeat(16)));
    let file = cluster.write_file("own.key", &first, 0o644);
    cluster.set("tenancy.master_key_file", file.to_str().unwrap());
    cluster.reload();
    says_soon(&mut client, "master_key", "error", "0600");
    cluster.write_file("own.key", &first, 0o600);
    well(&mut client, "master_key");
    assert!(check(&mut client, "master_key_backup").is_empty(), "nothing is sealed: nothing can be lost");

    client
        .batch_execute(
            "SELECT tenancy.add_issuer('https://a.test', ARRAY['x']);
             SELECT tenancy.add_secret('https://a.test', 'k', 'HS256', decode(repeat('5f', 32), 'hex'))",
        )
        .unwrap();
    well(&mut client, "sealed_secrets");
    says(&mut client, "master_key_backup", "warning", "nobody has confirmed");
    let confirm = "SELECT tenancy.confirm_master_key_backup($1)";
    refused(client.query(confirm, &[&sha256(&second)]), "PT422", "backup_differs");
    for wrong in [None, Some(""), Some("xyz")] {
        refused(client.query(confirm, &[&wrong]), "22023", "invalid_argument");
    }
    client.query_one(confirm, &[&sha256(&first)]).unwrap();
    well(&mut client, "master_key_backup");

    // A new key before the old one: another file, whose copy nobody has confirmed.
    cluster.write_file("own.key", &format!("{second}{first}"), 0o600);
    says(&mut client, "sealed_secrets", "warning", "1 of 1 secrets");
    says(&mut client, "master_key_backup", "warning", "nobody has confirmed");
    client.batch_execute("SELECT tenancy.rotate_master_key()").unwrap();
    well(&mut client, "sealed_secrets");
    cluster.write_file("own.key", &second, 0o600);
    well(&mut client, "sealed_secrets");
    client.query_one(confirm, &[&sha256(&second)]).unwrap();
    well(&mut client, "master_key_backup");

    // A database that came back without its key.
    cluster.write_file("own.key", &first, 0o600);
    says(&mut client, "sealed_secrets", "error", "https://a.test");
}
