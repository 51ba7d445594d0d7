//! What the planner makes of the policies: an index condition, pruning, parallel workers, kept plans, true estimates.

use crate::common::Database;
use crate::world::{as_tenant, column, shop, value};
use postgres::Transaction;

/// 100,000 rows: one tenant has 90 %, a hundred others 0.1 % each.
fn crowd() -> Database<'static> {
    let database = shop();
    let mut ops = database.connect("ops");
    ops.batch_execute(
        "CREATE TABLE shop.essays (id bigint PRIMARY KEY, tenant_id text NOT NULL, title text);
         INSERT INTO shop.essays SELECT i, CASE WHEN i % 10 = 0 THEN 'tenant-' || i / 10 % 100 ELSE 'big' END, 'title ' || i % 1000
           FROM generate_series(1, 100000) i;
         GRANT SELECT ON shop.essays TO app;
         SELECT tenancy.protect_table('shop.essays'); ANALYZE shop.essays",
    )
    .unwrap();
    database
}

fn plan(transaction: &mut Transaction, query: &str) -> String {
    column(transaction, &format!("EXPLAIN {query}")).join("\n")
}

fn estimate(plan: &str) -> f64 {
    let rows = plan.split("rows=").nth(1).unwrap();
    rows[..rows.find(' ').unwrap()].parse().unwrap()
}

#[test]
fn the_tenant_is_an_index_condition_whatever_else_is_asked() {
    let database = crowd();
    let mut app = database.connect("app");
    as_tenant(&mut app, "tenant-7", |tx| {
        for query in [
            "SELECT * FROM shop.essays",
            "SELECT * FROM shop.essays WHERE title LIKE 'title 3%'",
            "SELECT * FROM shop.essays WHERE upper(title) = 'TITLE 3' OR id = 3",
            "SELECT count(*) FROM shop.essays",
        ] {
            let plan = plan(tx, query);
            assert!(plan.contains("Index Cond: (tenant_id = tenancy.tenant_id())"), "{query}\n{plan}");
        }
    });
}

#[test]
fn estimates_follow_the_tenant_s_real_share() {
    let database = crowd();
    let mut app = database.connect("app");
    for (tenant, rows) in [("big", 90_000.0), ("tenant-7", 100.0)] {
        let estimated = as_tenant(&mut app, tenant, |tx| estimate(&plan(tx, "SELECT * FROM shop.essays")));
        crate::common::say!("{tenant}: {rows} rows, estimated {estimated}");
        assert!((rows / 2.0..=rows * 2.0).contains(&estimated), "{tenant}: {estimated}");
    }
}

#[test]
fn a_kept_generic_plan_serves_each_identity_its_own_rows() {
    let database = crowd();
    let mut app = database.connect("app");
    app.batch_execute(
        "SET plan_cache_mode = force_generic_plan; PREPARE mine AS SELECT count(*)::text FROM shop.essays",
    )
    .unwrap();
    let mut counted = |tenant: &str| as_tenant(&mut app, tenant, |tx| value(tx, "EXECUTE mine"));
    assert_eq!(counted("big"), "90000");
    assert_eq!(counted("tenant-7"), "100");
    assert_eq!(counted("nobody"), "0");
    assert_eq!(value(&mut app, "EXECUTE mine"), "0");
    let plan = as_tenant(&mut app, "tenant-7", |tx| plan(tx, "EXECUTE mine"));
    assert!(plan.contains("(tenant_id = tenancy.tenant_id())"), "{plan}");
    let kinds = "SELECT generic_plans > 0 AND custom_plans = 0 FROM pg_prepared_statements WHERE name = 'mine'";
    assert!(app.query_one(kinds, &[]).unwrap().get::<_, bool>(0));
}

#[test]
fn parallel_workers_know_the_identity() {
    let database = crowd();
    let mut app = database.connect("app");
    let eager = "SET LOCAL parallel_setup_cost = 0; SET LOCAL parallel_tuple_cost = 0; SET LOCAL min_parallel_table_scan_size = 0;
                 SET LOCAL min_parallel_index_scan_size = 0; SET LOCAL max_parallel_workers_per_gather = 2";
    as_tenant(&mut app, "big", |tx| {
        tx.batch_execute(eager).unwrap();
        let query = "SELECT count(*)::text FROM shop.essays WHERE title LIKE 'title%'";
        let plan = plan(tx, &format!("(ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF) {query}"));
        assert!(plan.contains("Gather") && plan.contains("Workers Launched: 2"), "{plan}");
        assert_eq!(value(tx, query), "90000");
    });
}

#[test]
fn partitions_of_other_tenants_are_never_started() {
    let database = shop();
    let mut ops = database.connect("ops");
    ops.batch_execute("CREATE TABLE shop.events (id bigint, tenant_id text) PARTITION BY HASH (tenant_id)").unwrap();
    for part in 0..16 {
        ops.batch_execute(&format!(
            "CREATE TABLE shop.events_{part} PARTITION OF shop.events FOR VALUES WITH (MODULUS 16, REMAINDER {part})"
        ))
        .unwrap();
    }
    ops.batch_execute(
        "INSERT INTO shop.events SELECT i, 'tenant-' || i % 50 FROM generate_series(1, 5000) i;
         GRANT SELECT ON shop.events TO app; SELECT tenancy.protect_table('shop.events'); ANALYZE shop.events",
    )
    .unwrap();
    let mut app = database.connect("app");
    as_tenant(&mut app, "tenant-7", |tx| {
        let plan = plan(tx, "(ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF) SELECT * FROM shop.events WHERE id > 10");
        assert!(plan.contains("Subplans Removed: 15"), "{plan}");
        assert_eq!(value(tx, "SELECT count(*)::text FROM shop.events"), "100");
    });
}

#[test]
fn no_policy_of_ours_has_a_sub_query_or_an_or() {
    let database = shop();
    let mut ops = database.connect("ops");
    ops.batch_execute(
        "CREATE TABLE shop.notes (id bigint, org_id text); GRANT SELECT ON shop.notes TO app, svc;
         SELECT tenancy.protect_table('shop.notes', org_column => 'org_id', operator_role => 'svc')",
    )
    .unwrap();
    let odd = "SELECT count(*)::text FROM pg_policy WHERE polrelid = 'shop.notes'::regclass
                 AND concat(polqual::text, polwithcheck::text) ~ 'SUBLINK|boolop or|CASE'";
    assert_eq!(value(&mut ops, odd), "0");
}
