//! Partitions and inheritance children: read directly, they are as protected as their parent.

use crate::common::refused;
use crate::world::{as_tenant, column, protect, shop, value};

const PARTED: &str = "
    CREATE TABLE shop.events (id bigint, tenant_id text, at date) PARTITION BY RANGE (at);
    CREATE TABLE shop.events_2025 PARTITION OF shop.events FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');
    CREATE TABLE shop.events_2026 PARTITION OF shop.events FOR VALUES FROM ('2026-01-01') TO ('2027-01-01') PARTITION BY LIST (id);
    CREATE TABLE shop.events_2026_1 PARTITION OF shop.events_2026 DEFAULT;
    GRANT SELECT, INSERT ON ALL TABLES IN SCHEMA shop TO app;";
const CHILDREN: &str = "
    CREATE TABLE shop.things (id bigint, tenant_id text, at date);
    CREATE TABLE shop.big_things (size integer) INHERITS (shop.things);
    CREATE TABLE shop.huge_things () INHERITS (shop.big_things);
    GRANT SELECT, INSERT ON ALL TABLES IN SCHEMA shop TO app;";

#[test]
fn partitions_read_directly_are_protected() {
    reads_directly(PARTED, "shop.events", &["shop.events_2025", "shop.events_2026", "shop.events_2026_1"]);
}

#[test]
fn inheritance_children_read_directly_are_protected() {
    reads_directly(CHILDREN, "shop.things", &["shop.big_things", "shop.huge_things"]);
}

fn reads_directly(tables: &str, root: &str, parts: &[&str]) {
    let database = shop();
    let mut ops = database.connect("ops");
    ops.batch_execute(tables).unwrap();
    let leaf = parts[parts.len() - 1];
    ops.batch_execute(&format!(
        "INSERT INTO {leaf} (id, tenant_id, at) VALUES (1, 'tenant-a', '2026-05-05'), (2, 'tenant-b', '2026-05-05')"
    ))
    .unwrap();
    protect(&mut ops, &format!("'{root}'"));
    assert!(protect(&mut ops, &format!("'{root}'")).is_empty());
    let mut app = database.connect("app");
    for table in parts.iter().chain([&root]) {
        as_tenant(&mut app, "tenant-a", |tx| {
            let seen = column(tx, &format!("SELECT id::text FROM {table}"));
            assert!(seen.is_empty() || seen == ["1"], "{table}: {seen:?}");
        });
        assert!(column(&mut app, &format!("SELECT id::text FROM {table}")).is_empty());
    }
    let seen = as_tenant(&mut app, "tenant-a", |tx| column(tx, &format!("SELECT id::text FROM {leaf}")));
    assert_eq!(seen, ["1"]);
    let recorded = "SELECT relation::text FROM tenancy.protected_tables";
    assert_eq!(column(&mut database.superuser(), recorded), [root]);

    ops.batch_execute(&format!("SELECT tenancy.unprotect_table('{root}')")).unwrap();
    let left = "SELECT count(*)::text FROM pg_policy";
    let ours = format!("{left} p JOIN pg_class c ON c.oid = p.polrelid WHERE c.relnamespace = 'shop'::regnamespace");
    assert_eq!(value(&mut ops, &ours), "0");
}

#[test]
fn a_part_alone_is_refused_until_its_parent_is_protected() {
    let database = shop();
    let mut ops = database.connect("ops");
    ops.batch_execute(PARTED).unwrap();
    let error =
        refused(ops.query("SELECT tenancy.protect_table('shop.events_2025')", &[]), "22023", "parent_not_protected");
    assert!(error.hint().unwrap().contains("protect_table('shop.events')"), "{error:?}");
    protect(&mut ops, "'shop.events'");
    ops.batch_execute(
        "CREATE TABLE shop.events_2027 PARTITION OF shop.events FOR VALUES FROM ('2027-01-01') TO ('2028-01-01')",
    )
    .unwrap();
    let statements = protect(&mut ops, "'shop.events_2027'");
    assert!(!statements.is_empty() && statements.iter().all(|s| s.contains("shop.events_2027")), "{statements:?}");
    assert!(protect(&mut ops, "'shop.events'").is_empty());
}

#[test]
fn a_partition_added_later_is_protected_by_calling_again() {
    let database = shop();
    let mut ops = database.connect("ops");
    ops.batch_execute(PARTED).unwrap();
    protect(&mut ops, "'shop.events'");
    ops.batch_execute(
        "CREATE TABLE shop.old (id bigint, tenant_id text NOT NULL, at date);
         ALTER TABLE shop.events ATTACH PARTITION shop.old FOR VALUES FROM ('2020-01-01') TO ('2021-01-01')",
    )
    .unwrap();
    let statements = protect(&mut ops, "'shop.events'");
    assert!(statements.iter().all(|s| s.contains("shop.old")), "{statements:?}");
    assert!(statements.iter().any(|s| s.contains("SET DEFAULT")), "{statements:?}");
    assert!(protect(&mut ops, "'shop.events'").is_empty());
}
