//! Installing and uninstalling, as a DBA does it.

mod common;

use common::{Cluster, Options, cluster, fails_with, refused};

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

/// In another encoding the ids of tokens would become others, and what is hashed would not be what was sent.
#[test]
fn a_database_of_another_encoding_is_refused() {
    let mut dba = cluster().connect("postgres", "postgres");
    for encoding in ["LATIN1", "SQL_ASCII"] {
        let name = format!("install_{}", encoding.to_lowercase());
        dba.batch_execute(&format!(
            "CREATE DATABASE {name} TEMPLATE template0 ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C'"
        ))
        .unwrap();
        let mut client = cluster().connect(&name, "postgres");
        refused(client.batch_execute("CREATE EXTENSION pg_tenancy"), "0A000", "encoding_not_utf8");
        // As a version from before this check left it there.
        client
            .batch_execute(
                "CREATE FUNCTION required() RETURNS boolean LANGUAGE c AS '$libdir/pg_tenancy', 'sql_require_installed_wrapper';
                 CREATE FUNCTION version() RETURNS text LANGUAGE c AS '$libdir/pg_tenancy', 'library_version_wrapper';
                 CREATE FUNCTION pkce(text) RETURNS boolean LANGUAGE c AS '$libdir/pg_tenancy', 'is_pkce_wrapper'",
            )
            .unwrap();
        for call in ["required()", "public.version()", "pkce('x')"] {
            refused(client.query(&format!("SELECT {call}"), &[]), "0A000", "encoding_not_utf8");
        }
    }
}

/// Where it came from is for whoever reads the server's log.
#[test]
fn a_panic_gives_the_client_its_message_and_no_backtrace() {
    let mut dba = cluster().connect("postgres", "postgres");
    dba.batch_execute("CREATE DATABASE install_panic TEMPLATE template0 ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C'")
        .unwrap();
    let mut client = cluster().connect("install_panic", "postgres");
    client
        .batch_execute(
            "CREATE FUNCTION pkce(text) RETURNS boolean LANGUAGE c AS '$libdir/pg_tenancy', 'is_pkce_wrapper';
             CREATE ROLE install_panicking LOGIN",
        )
        .unwrap();
    // A byte that is no UTF-8 does not get as far as our own check.
    let mut ordinary = cluster().connect("install_panic", "install_panicking");
    let error = fails_with(ordinary.query("SELECT pkce('\u{e9}')", &[]), "XX000");
    assert!(error.message().contains("UTF-8"), "{error:?}");
    assert_eq!(error.detail(), None);
    assert!(cluster().log().contains("pg_tenancy: panic at "));
}
