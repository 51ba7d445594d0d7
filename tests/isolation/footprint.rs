//! The rest of a tenant's footprint: names outside its tables, COPY into them.

use crate::common::{fails_with, refused};
use crate::world::{as_tenant, column, shop, shop_with_essays, value};
use postgres::Transaction;
use std::io::{Read, Write};

#[test]
fn keys_of_caches_locks_and_channels_are_the_tenant_s_own() {
    let database = shop();
    let mut app = database.connect("app");
    let names = "SELECT tenancy.cache_key('essays', '17') || '|' || tenancy.lock_key('import') || '|' || tenancy.channel('news')";
    let a = as_tenant(&mut app, "tenant-a", |tx| value(tx, names));
    let b = as_tenant(&mut app, "tenant-b", |tx| value(tx, names));
    assert!(a.starts_with("tenant:tenant-a:essays:17|"), "{a}");
    for (a, b) in a.split('|').zip(b.split('|')) {
        assert_ne!(a, b);
    }
    assert_eq!(as_tenant(&mut app, "tenant-a", |tx| value(tx, names)), a, "the same each time");
    let prefix = as_tenant(&mut app, "tenant-a", |tx| value(tx, "SELECT tenancy.cache_key(VARIADIC '{}')"));
    assert_eq!(prefix, "tenant:tenant-a:");
    as_tenant(&mut app, "tenant-a", |tx| {
        assert_eq!(
            value(tx, "SELECT tenancy.cache_key('x:y', 'tenant:tenant-b:z')"),
            "tenant:tenant-a:x%3Ay:tenant%3Atenant-b%3Az"
        );
        tx.batch_execute("SELECT pg_advisory_xact_lock(tenancy.lock_key('import'))").unwrap();
        let channel = value(tx, "SELECT tenancy.channel('news')");
        tx.batch_execute(&format!("LISTEN {channel}")).unwrap();
    });
}

#[test]
fn without_an_identity_or_with_a_null_there_is_no_name() {
    let database = shop();
    let mut app = database.connect("app");
    for call in ["cache_key('a')", "lock_key('a')", "channel('a')", "begin_copy('tenancy.users')"] {
        refused(app.query(&format!("SELECT tenancy.{call}"), &[]), "PT401", "not_authenticated");
    }
    for call in ["cache_key('a', NULL)", "lock_key(NULL)", "channel(NULL)"] {
        as_tenant(&mut app, "tenant-a", |tx| {
            refused(tx.query(&format!("SELECT tenancy.{call}"), &[]), "22023", "invalid_argument");
        });
    }
}

fn copy_in(transaction: &mut Transaction, command: &str, rows: &str) {
    let mut writer = transaction.copy_in(command).unwrap();
    writer.write_all(rows.as_bytes()).unwrap();
    writer.finish().unwrap();
}

#[test]
fn rows_are_copied_in_through_a_staging_table() {
    let database = shop_with_essays();
    let mut app = database.connect("app");
    let mut refused = database.connect("app");
    let error = refused.copy_in("COPY shop.essays (id, body) FROM STDIN").err().unwrap();
    assert_eq!(error.code().unwrap().code(), "0A000", "what PostgreSQL itself says");
    as_tenant(&mut app, "tenant-a", |tx| {
        let command = value(tx, "SELECT tenancy.begin_copy('shop.essays')");
        assert!(command.ends_with("(id, body) FROM STDIN"), "{command}");
        copy_in(tx, &command, "1\tone\n2\ttwo\n");
        assert_eq!(value(tx, "SELECT tenancy.end_copy('shop.essays')::text"), "2");
        let command = value(tx, "SELECT tenancy.begin_copy('shop.essays', '{body,id}')");
        copy_in(tx, &format!("{command} WITH (FORMAT csv)"), "three,3\n");
        assert_eq!(value(tx, "SELECT tenancy.end_copy('shop.essays')::text"), "1");
    });
    let rows = "SELECT id || body || tenant_id FROM shop.essays ORDER BY id";
    assert_eq!(
        as_tenant(&mut app, "tenant-a", |tx| column(tx, rows)),
        ["1onetenant-a", "2twotenant-a", "3threetenant-a"]
    );
    assert!(as_tenant(&mut app, "tenant-b", |tx| column(tx, rows)).is_empty());

    let mut copied = String::new();
    as_tenant(&mut app, "tenant-a", |tx| {
        tx.copy_out("COPY shop.essays (id) TO STDOUT").unwrap().read_to_string(&mut copied).unwrap()
    });
    assert_eq!(copied, "1\n2\n3\n");
    copied.clear();
    as_tenant(&mut app, "tenant-b", |tx| {
        tx.copy_out("COPY shop.essays (id) TO STDOUT").unwrap().read_to_string(&mut copied).unwrap()
    });
    assert_eq!(copied, "");
}

#[test]
fn a_file_with_another_tenant_s_rows_is_refused_whole() {
    let database = shop_with_essays();
    let mut app = database.connect("app");
    as_tenant(&mut app, "tenant-a", |tx| {
        let command = value(tx, "SELECT tenancy.begin_copy('shop.essays', '{id,tenant_id}')");
        copy_in(tx, &command, "1\ttenant-a\n2\ttenant-b\n");
        fails_with(tx.query("SELECT tenancy.end_copy('shop.essays')", &[]), "42501");
    });
    let rows = "SELECT id::text FROM shop.essays";
    assert!(as_tenant(&mut app, "tenant-a", |tx| column(tx, rows)).is_empty());
}

#[test]
fn a_copy_that_was_not_begun_or_names_strange_columns_is_refused() {
    let database = shop_with_essays();
    let mut app = database.connect("app");
    database.superuser().batch_execute("CREATE VIEW shop.seen AS SELECT 1").unwrap();
    for (call, sqlstate, reason) in [
        ("end_copy('shop.essays')", "22023", "not_begun"),
        ("begin_copy('shop.essays', '{nothing}')", "22023", "unknown_column"),
        ("begin_copy('shop.essays', '{}')", "22023", "unknown_column"),
        ("begin_copy('shop.essays', '{ctid}')", "22023", "unknown_column"),
        ("begin_copy('shop.seen')", "42809", "not_a_table"),
        ("begin_copy('shop.essays', '{NULL}')", "22023", "unknown_column"),
        ("begin_copy('shop.essays', '{id,id}')", "22023", "column_named_twice"),
        ("begin_copy(NULL)", "22023", "invalid_argument"),
    ] {
        as_tenant(&mut app, "tenant-a", |tx| {
            refused(tx.query(&format!("SELECT tenancy.{call}"), &[]), sqlstate, reason);
        });
    }
}
