//! Installing and uninstalling, as a DBA does it.

mod common;

use common::{Cluster, Options, cluster};

#[test]
fn create_extension_puts_everything_into_the_schema_tenancy() {
    let database = cluster().empty_database();
    let mut client = database.superuser();
    client.batch_execute("CREATE EXTENSION pg_tenancy").unwrap();
    let row = client
        .query_one(
            "SELECT extnamespace::regnamespace::text, extversion FROM pg_catalog.pg_extension WHERE extname = 'pg_tenancy'",
            &[],
        )
        .unwrap();
    assert_eq!(row.get::<_, &str>(0), "tenancy");
    assert_eq!(row.get::<_, &str>(1), env!("CARGO_PKG_VERSION"));
}

#[test]
fn it_works_without_being_preloaded() {
    let own = Cluster::start(Options { preload: false, ..Options::default() });
    let database = own.empty_database();
    database.superuser().batch_execute("CREATE EXTENSION pg_tenancy; DROP EXTENSION pg_tenancy").unwrap();
}
