//! Threats by their numbers (docs/explanation/threat-model.md): keys, foreign keys, writes, policies.

use crate::common::fails_with;
use crate::library::{audited, ids, library};
use crate::world::{as_tenant, column, role, shop, shop_with_essays, value};

#[test]
fn isolation_09_unique_violation_oracle() {
    let database = library();
    let mut app = database.connect("app");
    as_tenant(&mut app, "tenant-a", |tx| {
        assert_eq!(
            tx.execute("INSERT INTO shop.essays (id) VALUES (2)", &[]).unwrap(),
            1,
            "B has that id; A is not told"
        );
        fails_with(tx.execute("INSERT INTO shop.essays (id) VALUES (1)", &[]), "23505");
    });
    let open = shop_with_essays();
    assert!(audited(&mut open.superuser(), "key_without_tenant"), "a key without the tenant is a finding");
}

#[test]
fn isolation_10_on_conflict_oracle() {
    let database = library();
    let mut app = database.connect("app");
    as_tenant(&mut app, "tenant-a", |tx| {
        assert_eq!(tx.execute("INSERT INTO shop.essays (id) VALUES (2) ON CONFLICT DO NOTHING", &[]).unwrap(), 1);
        assert_eq!(tx.execute("INSERT INTO shop.essays (id) VALUES (1) ON CONFLICT DO NOTHING", &[]).unwrap(), 0);
    });
}

#[test]
fn isolation_11_on_conflict_reads_nothing_of_another() {
    let database = library();
    let mut app = database.connect("app");
    as_tenant(&mut app, "tenant-a", |tx| {
        let merged = "INSERT INTO shop.essays AS e (id, body) VALUES (2, 'mine') ON CONFLICT (tenant_id, id) DO UPDATE SET body = e.body || '!' RETURNING body";
        assert_eq!(column(tx, merged), ["mine"]);
    });
    assert_eq!(as_tenant(&mut app, "tenant-b", |tx| column(tx, "SELECT body FROM shop.essays")), ["of tenant-b"]);
}

#[test]
fn isolation_12_a_foreign_key_takes_no_parent_of_another_tenant() {
    let database = library();
    let mut app = database.connect("app");
    as_tenant(&mut app, "tenant-a", |tx| {
        fails_with(tx.execute("INSERT INTO shop.reviews (id, essay) VALUES (3, 2)", &[]), "23503");
    });
}

#[test]
fn isolation_13_a_foreign_key_s_error_reveals_nothing() {
    let database = library();
    let mut app = database.connect("app");
    let errors = [2i64, 999].map(|essay| {
        as_tenant(&mut app, "tenant-a", |tx| {
            let error =
                fails_with(tx.execute("INSERT INTO shop.reviews (id, essay) VALUES (3, $1)", &[&essay]), "23503");
            format!("{} {:?} {:?}", error.message(), error.detail(), error.hint()).replace(&essay.to_string(), "ID")
        })
    });
    assert_eq!(errors[0], errors[1], "a parent of B's and no parent at all");
}

#[test]
fn isolation_14_a_cascade_stays_inside_the_tenant() {
    let database = library();
    let mut app = database.connect("app");
    as_tenant(&mut app, "tenant-a", |tx| tx.execute("DELETE FROM shop.essays", &[]).unwrap());
    let reviews = "SELECT tenant_id FROM shop.reviews";
    assert_eq!(column(&mut database.superuser(), reviews), ["tenant-b"]);
}

#[test]
fn isolation_15_truncate_is_taken_away() {
    let database = shop();
    let mut ops = database.connect("ops");
    ops.batch_execute("CREATE TABLE shop.essays (id bigint); GRANT ALL ON shop.essays TO app; SELECT tenancy.protect_table('shop.essays')").unwrap();
    let mut app = database.connect("app");
    as_tenant(&mut app, "tenant-a", |tx| {
        fails_with(tx.batch_execute("TRUNCATE shop.essays"), "42501");
    });
}

#[test]
fn isolation_22_a_sequence_for_all_is_found() {
    let database = shop();
    let mut ops = database.connect("ops");
    ops.batch_execute("CREATE TABLE shop.numbered (id bigint GENERATED ALWAYS AS IDENTITY); SELECT tenancy.protect_table('shop.numbered')").unwrap();
    assert!(audited(&mut ops, "sequence_gaps"));
}

#[test]
fn isolation_25_a_partition_read_directly_is_protected() {
    let database = shop();
    let mut ops = database.connect("ops");
    ops.batch_execute(
        "CREATE TABLE shop.essays (id bigint, tenant_id text) PARTITION BY RANGE (id);
         CREATE TABLE shop.essays_1 PARTITION OF shop.essays FOR VALUES FROM (0) TO (10);
         INSERT INTO shop.essays VALUES (1, 'tenant-a'), (2, 'tenant-b');
         GRANT SELECT ON shop.essays, shop.essays_1 TO app; SELECT tenancy.protect_table('shop.essays')",
    )
    .unwrap();
    let mut app = database.connect("app");
    assert_eq!(as_tenant(&mut app, "tenant-a", |tx| column(tx, "SELECT id::text FROM shop.essays_1")), ["1"]);
}

#[test]
fn isolation_26_the_owner_is_bound() {
    let database = library();
    assert!(ids(&mut database.connect("ops")).is_empty());
}

#[test]
fn isolation_29_merge_matches_no_row_of_another() {
    let database = library();
    let mut app = database.connect("app");
    as_tenant(&mut app, "tenant-a", |tx| {
        let merge = "MERGE INTO shop.essays e USING (VALUES (1), (2)) AS s(id) ON e.id = s.id WHEN MATCHED THEN UPDATE SET body = 'merged'";
        assert_eq!(tx.execute(merge, &[]).unwrap(), 1);
    });
    assert_eq!(as_tenant(&mut app, "tenant-b", |tx| column(tx, "SELECT body FROM shop.essays")), ["of tenant-b"]);
}

#[test]
fn isolation_29_merge_that_reads_no_column_sees_no_row_of_another() {
    let database = library();
    database
        .superuser()
        .batch_execute(
            "CREATE SEQUENCE shop.seen; GRANT USAGE ON SEQUENCE shop.seen TO app;
             CREATE FUNCTION shop.merge() RETURNS void LANGUAGE sql AS
             $$ MERGE INTO shop.essays USING (SELECT 1) s ON true WHEN MATCHED AND nextval('shop.seen') < 0 THEN DELETE $$;
             CREATE VIEW shop.seen_essays WITH (security_invoker) AS SELECT * FROM shop.essays;
             GRANT SELECT, INSERT, UPDATE, DELETE ON shop.seen_essays TO app",
        )
        .unwrap();
    let mut app = database.connect("app");
    let counting =
        "MERGE INTO shop.essays USING (SELECT 1) s ON true WHEN MATCHED AND nextval('shop.seen') < 0 THEN DELETE";
    let mut statements = vec![
        counting.to_owned(),
        format!("EXPLAIN (ANALYZE) {counting}"),
        format!("DO $do$ BEGIN {counting}; END $do$"),
        format!("PREPARE m AS {counting}; EXECUTE m"),
        "SELECT shop.merge()".to_owned(),
        "MERGE INTO shop.essays USING (SELECT 1) s ON true WHEN MATCHED THEN DELETE".to_owned(),
        "MERGE INTO shop.essays USING (SELECT 1) s ON nextval('shop.seen') < 0 WHEN NOT MATCHED THEN DO NOTHING"
            .to_owned(),
    ];
    let version: i32 = value(&mut app, "SHOW server_version_num").parse().unwrap();
    if version >= 170_000 {
        statements.push(format!("WITH m AS ({counting} RETURNING 1) SELECT count(*) FROM m"));
        statements
            .push(format!("CREATE TEMPORARY TABLE kept AS WITH m AS ({counting} RETURNING 1) SELECT count(*) FROM m"));
        statements.push(counting.replace("shop.essays", "shop.seen_essays"));
    }
    for statement in statements {
        as_tenant(&mut app, "tenant-c", |tx| {
            tx.batch_execute(&statement).unwrap_or_else(|error| panic!("{statement}: {error:?}"));
        });
        let called = value(&mut database.superuser(), "SELECT is_called::text FROM shop.seen");
        assert_eq!(called, "false", "{statement}: ran for a row of another tenant");
    }
    as_tenant(&mut app, "tenant-a", |tx| {
        assert_eq!(
            tx.execute("MERGE INTO shop.essays USING (SELECT 1) s ON true WHEN MATCHED THEN DELETE", &[]).unwrap(),
            1
        );
    });
    assert_eq!(as_tenant(&mut app, "tenant-b", |tx| column(tx, "SELECT body FROM shop.essays")), ["of tenant-b"]);
}

#[test]
fn isolation_29_merge_needs_the_right_to_read_some_column_of_its_target() {
    let database = library();
    role(&database, "merger", "LOGIN");
    database
        .superuser()
        .batch_execute(
            "GRANT USAGE ON SCHEMA shop TO merger; GRANT DELETE ON shop.essays TO merger;
             SELECT tenancy.grant_access('merger', 'application')",
        )
        .unwrap();
    let mut merger = database.connect("merger");
    let merge = "MERGE INTO shop.essays USING (SELECT 1) s ON true WHEN MATCHED THEN DELETE";
    as_tenant(&mut merger, "tenant-a", |tx| {
        fails_with(tx.execute(merge, &[]), "42501");
    });
    database.superuser().batch_execute("GRANT SELECT (id) ON shop.essays TO merger").unwrap();
    assert_eq!(as_tenant(&mut merger, "tenant-a", |tx| tx.execute(merge, &[]).unwrap()), 1);
    // Where there are no policies, nothing changes.
    database
        .superuser()
        .batch_execute(
            "CREATE TABLE shop.open (id bigint); INSERT INTO shop.open VALUES (1); GRANT DELETE ON shop.open TO merger",
        )
        .unwrap();
    assert_eq!(merger.execute(&merge.replace("essays", "open"), &[]).unwrap(), 1);
}

#[test]
fn isolation_30_returning_gives_back_one_s_own_row() {
    let database = library();
    let mut app = database.connect("app");
    as_tenant(&mut app, "tenant-a", |tx| {
        assert_eq!(column(tx, "INSERT INTO shop.essays (id) VALUES (8) RETURNING tenant_id"), ["tenant-a"]);
        assert!(column(tx, "UPDATE shop.essays SET body = '' WHERE id = 2 RETURNING body").is_empty());
    });
}

#[test]
fn isolation_31_a_trigger_that_rewrites_the_tenant_is_caught_by_the_check() {
    let database = library();
    database
        .superuser()
        .batch_execute(
            "CREATE FUNCTION shop.swap() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.tenant_id := 'tenant-b'; RETURN NEW; END $$;
             CREATE TRIGGER swap BEFORE INSERT ON shop.essays FOR EACH ROW EXECUTE FUNCTION shop.swap()",
        )
        .unwrap();
    let mut app = database.connect("app");
    as_tenant(&mut app, "tenant-a", |tx| {
        fails_with(tx.execute("INSERT INTO shop.essays (id) VALUES (9)", &[]), "42501");
    });
    assert!(audited(&mut database.superuser(), "before_trigger"));
}

#[test]
fn isolation_39_the_floor_holds_against_a_permissive_policy_added_later() {
    let database = library();
    database.connect("ops").batch_execute("CREATE POLICY open ON shop.essays USING (true) WITH CHECK (true)").unwrap();
    let mut app = database.connect("app");
    assert_eq!(as_tenant(&mut app, "tenant-a", |tx| ids(tx)), ["1"]);
    assert!(ids(&mut app).is_empty());
}

#[test]
fn isolation_41_references_and_trigger_are_taken_away() {
    let database = shop();
    let mut ops = database.connect("ops");
    database.superuser().batch_execute("GRANT CREATE ON SCHEMA shop TO app").unwrap();
    ops.batch_execute("CREATE TABLE shop.essays (id bigint PRIMARY KEY); GRANT ALL ON shop.essays TO app; SELECT tenancy.protect_table('shop.essays')").unwrap();
    let mut app = database.connect("app");
    fails_with(app.batch_execute("CREATE TABLE shop.probe (id bigint REFERENCES shop.essays)"), "42501");
    app.batch_execute("CREATE FUNCTION shop.mine() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'")
        .unwrap();
    fails_with(
        app.batch_execute("CREATE TRIGGER mine BEFORE INSERT ON shop.essays FOR EACH ROW EXECUTE FUNCTION shop.mine()"),
        "42501",
    );
}

#[test]
fn isolation_44_operators_in_the_search_path_do_not_reach_the_policies() {
    let database = library();
    database.superuser().batch_execute("CREATE SCHEMA evil AUTHORIZATION app").unwrap();
    let mut app = database.connect("app");
    app.batch_execute(
        "CREATE FUNCTION evil.yes(text, text) RETURNS boolean LANGUAGE sql AS 'SELECT true';
         CREATE OPERATOR evil.= (LEFTARG = text, RIGHTARG = text, PROCEDURE = evil.yes);
         CREATE FUNCTION evil.tenant_id() RETURNS text LANGUAGE sql AS $$ SELECT 'tenant-b' $$;
         SET search_path = evil, pg_catalog",
    )
    .unwrap();
    assert_eq!(as_tenant(&mut app, "tenant-a", |tx| ids(tx)), ["1"]);
    assert!(ids(&mut app).is_empty());
}

/// The library is loaded in every database of the server.
#[test]
fn merge_is_as_ever_in_a_database_without_the_extension() {
    let database = library();
    role(&database, "stranger", "LOGIN");
    database
        .superuser()
        .batch_execute(
            "DROP EXTENSION pg_tenancy CASCADE; GRANT USAGE ON SCHEMA shop TO stranger;
             CREATE TABLE shop.notes (id bigint); ALTER TABLE shop.notes ENABLE ROW LEVEL SECURITY;
             CREATE POLICY own ON shop.notes FOR INSERT WITH CHECK (true); GRANT INSERT ON shop.notes TO stranger",
        )
        .unwrap();
    let merge =
        "MERGE INTO shop.notes USING (VALUES (2)) AS v (id) ON false WHEN NOT MATCHED THEN INSERT VALUES (v.id)";
    assert_eq!(database.connect("stranger").execute(merge, &[]).unwrap(), 1);
}
