//! What a deletion leaves nothing of, and what must not stop it.

use crate::common::{Database, Token, fails_with, refused};
use crate::world::{column, shop, value};
use postgres::Client;

/// A tenant with an organization whose pool has rows in every table of the ledger, and the ids of its charges.
fn organization_with_a_ledger(database: &Database, tenant: &str) {
    let (mut ops, mut svc) = (database.connect("ops"), database.connect("svc"));
    ops.batch_execute(&format!(
        "SELECT tenancy.register_tenant('{tenant}', 'T'); SELECT tenancy.register_user('{tenant}-user');
         SELECT tenancy.register_organization('{tenant}-org', 'O', tenant_id => '{tenant}');
         SELECT tenancy.set_subscription('{tenant}-org', 'teams', 'active', 1); SELECT tenancy.assign_seat('{tenant}-org', '{tenant}-user');
         SELECT tenancy.set_member_cap('{tenant}-org', '{tenant}-user', 1000, 'month');
         SELECT tenancy.grant_credits(10, org_id => '{tenant}-org')"
    ))
    .unwrap();
    let deduct = |key: &str| {
        format!(
            "SELECT (tenancy.deduct_credits('{tenant}-user', 10, '{tenant}-org', idempotency_key => '{key}')).transaction_id::text"
        )
    };
    let first = value(&mut svc, &deduct("first"));
    ops.batch_execute(&format!("SELECT tenancy.grant_credits(20, org_id => '{tenant}-org')")).unwrap();
    let hold = value(&mut svc, &format!("SELECT tenancy.hold_credits('{tenant}-user', 5, '{tenant}-org')::text"));
    svc.batch_execute(&format!(
        "SELECT tenancy.capture_hold('{hold}', 3); {}; SELECT tenancy.refund_credits('{first}', 4)",
        deduct("second")
    ))
    .unwrap();
    ops.batch_execute("SELECT tenancy.seal_ledger()").unwrap();
}

/// How many rows each table with a pool has of the tenant's pool, those with none left out.
fn rows_of_pool(superuser: &mut Client, pool: &str) -> Vec<String> {
    let tables = column(
        superuser,
        "SELECT c.oid::regclass::text FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'pool_id' AND a.attnotnull
          WHERE c.relnamespace = 'tenancy'::regnamespace AND c.relkind = 'r' ORDER BY 1",
    );
    let count = |table: &String| {
        format!("SELECT '{table} ' || count(*) FROM {table} WHERE pool_id = '{pool}' HAVING count(*) > 0")
    };
    tables.iter().flat_map(|table| column(superuser, &count(table))).collect()
}

#[test]
fn nothing_of_a_pool_outlives_its_tenant() {
    for (batch_size, force) in [(5000, false), (5000, true), (1, false)] {
        let database = shop();
        for tenant in ["gone", "stays"] {
            organization_with_a_ledger(&database, tenant);
        }
        let (mut ops, mut svc, mut superuser) =
            (database.connect("ops"), database.connect("svc"), database.superuser());
        let mut pool = |tenant: &str| {
            value(
                &mut superuser,
                &format!("SELECT pool_id::text FROM tenancy.credit_pools WHERE tenant_id = '{tenant}'"),
            )
        };
        let (gone, stays) = (pool("gone"), pool("stays"));
        if force {
            svc.batch_execute("SELECT tenancy.hold_credits('gone-user', 2, 'gone-org')").unwrap();
        } else {
            svc.batch_execute("SELECT tenancy.deduct_credits('gone-user', 11, 'gone-org')").unwrap();
        }
        let kept = rows_of_pool(&mut superuser, &stays);
        assert_eq!(
            (rows_of_pool(&mut superuser, &gone).len(), kept.len()),
            (9, 9),
            "every table of the ledger has rows: {kept:?}"
        );
        ops.batch_execute("SELECT tenancy.suspend_tenant('gone')").unwrap();
        ops.batch_execute(&format!("CALL tenancy.delete_tenant('gone', {force}, {batch_size})")).unwrap();
        assert!(rows_of_pool(&mut superuser, &gone).is_empty(), "{:?}", rows_of_pool(&mut superuser, &gone));
        assert_eq!(rows_of_pool(&mut superuser, &stays), kept, "the others' rows stay");
        let found = column(&mut ops, "SELECT rule || ' ' || object FROM tenancy.verify_ledger()");
        assert!(found.is_empty(), "{found:?}");
    }
}

#[test]
fn what_has_expired_is_no_obligation_and_what_has_begun_is() {
    let database = shop();
    let (mut ops, mut superuser) = (database.connect("ops"), database.superuser());
    ops.batch_execute(
        "SELECT tenancy.register_tenant('t', 'T'); SELECT tenancy.register_organization('o', 'O', tenant_id => 't');
         SELECT tenancy.register_tenant('u', 'U'); SELECT tenancy.register_organization('p', 'P', tenant_id => 'u');
         SELECT tenancy.grant_credits(10, org_id => 'o', expires_at => clock_timestamp() + interval '2 seconds');
         SELECT tenancy.grant_credits(7, org_id => 'p', effective_at => clock_timestamp() + interval '2 seconds');
         SELECT tenancy.suspend_tenant('t'), tenancy.suspend_tenant('u'); SELECT pg_sleep(2.1)",
    )
    .unwrap();
    let stored = "SELECT string_agg(trim_scale(balance)::text, ' ' ORDER BY tenant_id) FROM tenancy.credit_pools";
    assert_eq!(value(&mut superuser, stored), "10 0", "nobody has settled the pools");
    let available = "SELECT trim_scale(available)::text FROM tenancy.credit_balance(org_id => 'o')";
    assert_eq!(value(&mut ops, available), "0");
    ops.batch_execute("CALL tenancy.delete_tenant('t')").unwrap();
    let begun = refused(ops.query("CALL tenancy.delete_tenant('u')", &[]), "PT422", "obligations_open");
    assert!(begun.detail().unwrap().contains("\"credits\": 7.0"), "{begun:?}");
}

#[test]
fn a_child_of_tables_that_point_at_each_other_is_deleted_before_them() {
    let database = shop();
    let mut ops = database.connect("ops");
    ops.batch_execute(
        "CREATE TABLE shop.c (id bigint PRIMARY KEY, tenant_id text, parent bigint);
         CREATE TABLE shop.a (id bigint PRIMARY KEY, tenant_id text, other bigint);
         CREATE TABLE shop.b (id bigint PRIMARY KEY, tenant_id text, other bigint REFERENCES shop.a DEFERRABLE INITIALLY DEFERRED);
         ALTER TABLE shop.a ADD FOREIGN KEY (other) REFERENCES shop.b; ALTER TABLE shop.c ADD FOREIGN KEY (parent) REFERENCES shop.a;
         BEGIN;
         INSERT INTO shop.b SELECT i, 'tenant-a', i FROM generate_series(1, 5) i;
         INSERT INTO shop.a SELECT i, 'tenant-a', i FROM generate_series(1, 5) i;
         INSERT INTO shop.c SELECT i, 'tenant-a', i FROM generate_series(1, 5) i;
         COMMIT;
         SELECT tenancy.protect_table('shop.c'); SELECT tenancy.protect_table('shop.a'); SELECT tenancy.protect_table('shop.b');
         SELECT tenancy.register_tenant('tenant-a', 'A'); SELECT tenancy.suspend_tenant('tenant-a')",
    )
    .unwrap();
    ops.batch_execute("CALL tenancy.delete_tenant('tenant-a', batch_size => 3)").unwrap();
    let receipt = "SELECT concat_ws(' ', deleted ->> 'shop.a', deleted ->> 'shop.b', deleted ->> 'shop.c', finished_at IS NOT NULL) FROM tenancy.tenant_deletions";
    assert_eq!(value(&mut database.superuser(), receipt), "5 5 5 t");
}

/// One that was registered between two of a deletion's transactions, and one that is being registered during its last.
#[test]
fn an_organization_registered_during_the_deletion_is_kept_out_too() {
    let database = shop();
    let (mut ops, mut superuser) = (database.connect("ops"), database.superuser());
    ops.batch_execute(
        "CREATE TABLE shop.books (id bigint PRIMARY KEY, tenant_id text); CREATE TABLE shop.pages (tenant_id text, book bigint REFERENCES shop.books);
         CREATE TABLE shop.loans (book bigint REFERENCES shop.books);
         INSERT INTO shop.books VALUES (1, 'tenant-a'); INSERT INTO shop.pages VALUES ('tenant-a', 1); INSERT INTO shop.loans VALUES (1);
         SELECT tenancy.protect_table('shop.books'); SELECT tenancy.protect_table('shop.pages');
         SELECT tenancy.register_tenant('tenant-a', 'A'); SELECT tenancy.suspend_tenant('tenant-a')",
    )
    .unwrap();
    fails_with(ops.query("CALL tenancy.delete_tenant('tenant-a', batch_size => 1)", &[]), "23503");
    let begun = "SELECT concat_ws(' ', deleted ->> 'shop.pages', finished_at) FROM tenancy.tenant_deletions";
    assert_eq!(value(&mut superuser, begun), "1");
    ops.batch_execute(
        "SELECT tenancy.register_organization('between', 'B', tenant_id => 'tenant-a'); DROP TABLE shop.loans",
    )
    .unwrap();
    let mut registering = database.connect("ops");
    let mut open = registering.transaction().unwrap();
    open.batch_execute("SELECT tenancy.register_organization('meanwhile', 'M', tenant_id => 'tenant-a')").unwrap();
    std::thread::scope(|scope| {
        let deletion = scope.spawn(|| ops.batch_execute("CALL tenancy.delete_tenant('tenant-a')").unwrap());
        let waits = "SELECT count(*)::text FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'CALL %' AND datname = current_database()";
        while value(&mut superuser, waits) == "0" {
            assert!(!deletion.is_finished(), "it waits for who is registering");
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        open.commit().unwrap();
    });
    assert_eq!(value(&mut superuser, "SELECT count(*)::text FROM tenancy.organizations"), "0");
    let mut app = database.connect("app");
    for organization in ["between", "meanwhile"] {
        let token = Token::for_member("author", organization).sign();
        fails_with(app.query("SELECT tenancy.authenticate($1)", &[&token]), "PT403");
    }
}
