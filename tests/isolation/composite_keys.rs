//! composite_keys => true: the tenant in every unique key and foreign key.

use crate::common::{fails_with, refused};
use crate::world::{as_tenant, column, noticed, protect, shop, take_notices, value};

const LIBRARY: &str = "
    CREATE TABLE shop.authors (id bigint PRIMARY KEY, tenant_id text, code text, mentor bigint REFERENCES shop.authors ON DELETE SET NULL,
                               UNIQUE (code) DEFERRABLE);
    CREATE UNIQUE INDEX \"Low,er\" ON shop.authors (lower(code) DESC) WHERE code <> '';
    CREATE TABLE shop.books (id bigint PRIMARY KEY, tenant_id text,
                             author bigint REFERENCES shop.authors ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED);
    GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA shop TO app;";

#[test]
fn keys_without_the_tenant_are_named() {
    let database = shop();
    let (mut ops, notices) = database.connect_with_notices("ops");
    ops.batch_execute(LIBRARY).unwrap();
    protect(&mut ops, "'shop.books'");
    protect(&mut ops, "'shop.authors'");
    let said = take_notices(&notices);
    for words in [
        ["primary key authors_pkey", "does not carry tenant_id"],
        ["unique constraint authors_code_key", "does not carry tenant_id"],
        ["unique index \"Low,er\"", "does not carry tenant_id"],
        ["foreign key books_author_fkey", "another tenant's row of shop.authors"],
        ["foreign key authors_mentor_fkey", "another tenant's row of shop.authors"],
    ] {
        assert!(noticed(&said, &words), "{words:?} in {said:#?}");
    }
}

#[test]
fn keys_and_foreign_keys_carry_the_tenant_afterwards() {
    let database = shop();
    let (mut ops, notices) = database.connect_with_notices("ops");
    ops.batch_execute(LIBRARY).unwrap();
    protect(&mut ops, "'shop.books', composite_keys => true");
    protect(&mut ops, "'shop.authors', composite_keys => true");
    let definitions = "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE connamespace = 'shop'::regnamespace AND contype <> 'n' ORDER BY conname";
    assert_eq!(
        column(&mut ops, definitions),
        [
            "UNIQUE (tenant_id, code) DEFERRABLE",
            "FOREIGN KEY (tenant_id, mentor) REFERENCES shop.authors(tenant_id, id) ON DELETE SET NULL (mentor)",
            "PRIMARY KEY (tenant_id, id)",
            "FOREIGN KEY (tenant_id, author) REFERENCES shop.authors(tenant_id, id) ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED",
            "PRIMARY KEY (tenant_id, id)",
        ]
    );
    let index = value(&mut ops, "SELECT pg_get_indexdef('shop.\"Low,er\"'::regclass)");
    assert!(index.contains("(tenant_id, lower(code) DESC) WHERE (code <> ''::text)"), "{index}");
    assert!(protect(&mut ops, "'shop.authors', composite_keys => true").is_empty());
    take_notices(&notices);
    protect(&mut ops, "'shop.authors'");
    assert!(!noticed(&take_notices(&notices), &["does not carry"]));
}

#[test]
fn two_tenants_may_use_the_same_ids_and_point_only_at_their_own() {
    let database = shop();
    let mut ops = database.connect("ops");
    ops.batch_execute(LIBRARY).unwrap();
    protect(&mut ops, "'shop.books', composite_keys => true");
    protect(&mut ops, "'shop.authors', composite_keys => true");
    let mut app = database.connect("app");
    for tenant in ["tenant-a", "tenant-b"] {
        as_tenant(&mut app, tenant, |tx| {
            tx.batch_execute("INSERT INTO shop.authors (id, code) VALUES (1, 'x'); INSERT INTO shop.books (id, author) VALUES (1, 1)").unwrap();
        });
    }
    as_tenant(&mut app, "tenant-b", |tx| {
        tx.execute("INSERT INTO shop.authors (id, code) VALUES (2, 'y')", &[]).unwrap()
    });
    as_tenant(&mut app, "tenant-a", |tx| {
        tx.batch_execute("INSERT INTO shop.books (id, author) VALUES (2, 2)").unwrap();
        fails_with(tx.batch_execute("SET CONSTRAINTS ALL IMMEDIATE"), "23503");
    });
    as_tenant(&mut app, "tenant-a", |tx| tx.execute("DELETE FROM shop.authors", &[]).unwrap());
    let left = as_tenant(&mut app, "tenant-b", |tx| column(tx, "SELECT id::text FROM shop.books"));
    assert_eq!(left, ["1"], "the cascade stayed inside tenant-a");
}

#[test]
fn a_child_without_a_tenant_comes_first() {
    let database = shop();
    let mut ops = database.connect("ops");
    ops.batch_execute("CREATE TABLE shop.p (id bigint PRIMARY KEY); CREATE TABLE shop.c (id bigint PRIMARY KEY, p bigint REFERENCES shop.p)").unwrap();
    let call = "SELECT tenancy.protect_table('shop.p', composite_keys => true)";
    let error = refused(ops.query(call, &[]), "22023", "foreign_key_without_tenant");
    assert!(error.hint().unwrap().contains("protect_table('shop.c')"), "{error:?}");
    protect(&mut ops, "'shop.c'");
    ops.batch_execute(call).unwrap();
    let key = "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = 'c_p_fkey'";
    assert_eq!(value(&mut ops, key), "FOREIGN KEY (tenant_id, p) REFERENCES shop.p(tenant_id, id)");
}

#[test]
fn what_cannot_carry_the_tenant_is_refused_and_says_why() {
    let database = shop();
    let mut ops = database.connect("ops");
    for (child, sqlstate, reason) in [
        ("p bigint REFERENCES shop.p, tenant_id uuid", "22023", "tenant_types_differ"),
        ("p bigint REFERENCES shop.p ON UPDATE SET NULL, tenant_id text", "0A000", "on_update_would_clear_the_tenant"),
        (
            "p bigint, q bigint, tenant_id text, FOREIGN KEY (p, q) REFERENCES shop.p (id, id2) MATCH FULL",
            "0A000",
            "match_full",
        ),
    ] {
        ops.batch_execute(&format!(
            "DROP TABLE IF EXISTS shop.c, shop.p;
             CREATE TABLE shop.p (id bigint PRIMARY KEY, id2 bigint, UNIQUE (id, id2));
             CREATE TABLE shop.c ({child}); SELECT tenancy.protect_table('shop.c')"
        ))
        .unwrap();
        refused(ops.query("SELECT tenancy.protect_table('shop.p', composite_keys => true)", &[]), sqlstate, reason);
    }
}

#[test]
fn somebody_else_s_child_is_not_ours_to_rewrite() {
    let database = shop();
    let mut ops = database.connect("ops");
    ops.batch_execute("CREATE TABLE shop.p (id bigint PRIMARY KEY)").unwrap();
    database
        .superuser()
        .batch_execute("CREATE TABLE shop.c (p bigint REFERENCES shop.p); SELECT tenancy.protect_table('shop.c')")
        .unwrap();
    refused(ops.query("SELECT tenancy.protect_table('shop.p', composite_keys => true)", &[]), "42501", "not_owner");
}

#[test]
fn a_key_into_the_directory_of_organizations_carries_the_tenant() {
    let database = shop();
    let mut superuser = database.superuser();
    superuser
        .batch_execute(
            "CREATE TABLE shop.rooms (id bigint, organization_id uuid REFERENCES tenancy.organizations);
             SELECT tenancy.protect_table('shop.rooms', org_column => 'organization_id', composite_keys => true)",
        )
        .unwrap();
    let key =
        "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = 'shop.rooms'::regclass AND contype = 'f'";
    let expected = "FOREIGN KEY (tenant_id, organization_id) REFERENCES tenancy.organizations(tenant_id, id)";
    assert_eq!(value(&mut superuser, key), expected);
    let policy = "SELECT pg_get_expr(polqual, polrelid) FROM pg_policy WHERE polname = 'tenancy_access' AND polrelid = 'shop.rooms'::regclass";
    assert!(value(&mut superuser, policy).contains("(organization_id = tenancy.organization_id())"));
}

#[test]
fn a_partitioned_table_s_keys_carry_the_tenant() {
    let database = shop();
    let mut ops = database.connect("ops");
    ops.batch_execute(
        "CREATE TABLE shop.p (d integer, id bigint, tenant_id uuid, PRIMARY KEY (d, id)) PARTITION BY RANGE (d);
         CREATE TABLE shop.p1 PARTITION OF shop.p FOR VALUES FROM (0) TO (10);
         CREATE TABLE shop.c (d integer, id bigint, tenant_id uuid, FOREIGN KEY (d, id) REFERENCES shop.p);
         SELECT tenancy.protect_table('shop.c'); SELECT tenancy.protect_table('shop.p', composite_keys => true)",
    )
    .unwrap();
    for (table, definition) in [
        ("shop.p", "PRIMARY KEY (tenant_id, d, id)"),
        ("shop.p1", "PRIMARY KEY (tenant_id, d, id)"),
        ("shop.c", "FOREIGN KEY (tenant_id, d, id) REFERENCES shop.p(tenant_id, d, id)"),
    ] {
        let key = format!(
            "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = '{table}'::regclass AND contype IN ('p', 'f') AND conparentid = 0 OR conrelid = '{table}'::regclass AND contype = 'p'"
        );
        assert_eq!(value(&mut ops, &key), definition);
    }
}
