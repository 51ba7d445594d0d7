//! Tables as people have them: odd and long names, partitions of partitions, keys with everything that hangs on them.
//! Each is protected at once and, where it has no partitions, online; both must come to the same.

use crate::common::refused;
use crate::world::{as_tenant, column, protect, shop, take_notices, value};
use postgres::Client;

/// What it is, the statements that make it, and what to protect, children first: table and tenant column, as SQL.
const STRUCTURES: &[(&str, &str, &[&str])] = &[
    (
        "quoted names",
        r#"CREATE TABLE shop."Ta""b,le.'X ö" ("Id é" bigint PRIMARY KEY, "Ten ant" uuid, "U q" text UNIQUE,
               self bigint REFERENCES shop."Ta""b,le.'X ö" ON DELETE SET NULL ON UPDATE CASCADE);
           CREATE UNIQUE INDEX "in dex (" ON shop."Ta""b,le.'X ö" (lower("U q") DESC, ("Id é" + 1)) WHERE "U q" <> ') WHERE (';
           GRANT ALL ON shop."Ta""b,le.'X ö" TO PUBLIC"#,
        &[r#"'shop."Ta""b,le.''X ö"', 'Ten ant'"#],
    ),
    (
        "names as long as names may be",
        "CREATE TABLE shop.t23456789012345678901234567890123456789012345678901234567890123 (
             c23456789012345678901234567890123456789012345678901234567890123 bigint PRIMARY KEY, a text UNIQUE, b text UNIQUE,
             CONSTRAINT u23456789012345678901234567890123456789012345678901234567890_1 UNIQUE (a, b),
             CONSTRAINT u23456789012345678901234567890123456789012345678901234567890_2 UNIQUE (b, a),
             CONSTRAINT ööööööööööööööööööööööööööööööö UNIQUE (a) INCLUDE (b), CONSTRAINT öööööööööööööööööööööööööööööö1 UNIQUE (b) INCLUDE (a));
         CREATE UNIQUE INDEX i2345678901234567890123456789012345678901234567890123456789_1 ON shop.t23456789012345678901234567890123456789012345678901234567890123 (a DESC);
         CREATE UNIQUE INDEX i2345678901234567890123456789012345678901234567890123456789_2 ON shop.t23456789012345678901234567890123456789012345678901234567890123 (b DESC)",
        &["'shop.t23456789012345678901234567890123456789012345678901234567890123', 'tenant_id'"],
    ),
    (
        "keys with all that hangs on them",
        "CREATE TABLE shop.hung (id bigint, x text COLLATE \"C\" NOT NULL, y int, z int,
             CONSTRAINT hung_pk PRIMARY KEY (id) INCLUDE (z) WITH (fillfactor = 70),
             CONSTRAINT hung_u UNIQUE NULLS NOT DISTINCT (x, y) INCLUDE (z), CONSTRAINT hung_late UNIQUE (y, z) DEFERRABLE INITIALLY DEFERRED);
         CREATE UNIQUE INDEX hung_identity ON shop.hung (x);
         CREATE UNIQUE INDEX hung_i ON shop.hung (x text_pattern_ops DESC NULLS LAST, (y + 1)) INCLUDE (z) WITH (fillfactor = 60) WHERE z > 0;
         ALTER TABLE shop.hung REPLICA IDENTITY USING INDEX hung_identity; ALTER TABLE shop.hung CLUSTER ON hung_pk;
         COMMENT ON CONSTRAINT hung_pk ON shop.hung IS 'the key''s comment'; COMMENT ON INDEX shop.hung_i IS 'the index''s'",
        &["'shop.hung', 'tenant_id'"],
    ),
    (
        "identity and generated columns",
        "CREATE TABLE shop.made (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, a int, twice int GENERATED ALWAYS AS (a * 2) STORED UNIQUE, tenant_id bigint)",
        &["'shop.made', 'tenant_id'"],
    ),
    (
        "every action of a foreign key, and a shared table",
        "CREATE TABLE shop.countries (code text PRIMARY KEY);
         CREATE TABLE shop.authors (id bigint PRIMARY KEY, w int, v int, UNIQUE (w, v), country text REFERENCES shop.countries ON DELETE CASCADE,
             boss bigint REFERENCES shop.authors ON DELETE SET NULL DEFERRABLE INITIALLY DEFERRED);
         CREATE TABLE shop.books (id bigint PRIMARY KEY, a bigint REFERENCES shop.authors ON DELETE CASCADE ON UPDATE CASCADE,
             b bigint DEFAULT 3 REFERENCES shop.authors ON DELETE SET DEFAULT, c bigint REFERENCES shop.authors ON DELETE RESTRICT ON UPDATE RESTRICT,
             w int, v int, FOREIGN KEY (v, w) REFERENCES shop.authors (v, w) ON DELETE SET NULL (v));
         ALTER TABLE shop.books ADD CONSTRAINT unchecked FOREIGN KEY (id) REFERENCES shop.authors NOT VALID;
         SELECT tenancy.exempt('shop.countries', 'unprotected_table', 'the same for all')",
        &["'shop.books', 'tenant_id'", "'shop.authors', 'tenant_id'"],
    ),
    (
        "children with keys of their own, and a child of two",
        "CREATE TABLE shop.p1 (id int PRIMARY KEY, x int UNIQUE, tenant_id text NOT NULL); CREATE TABLE shop.p2 (id int, tenant_id text NOT NULL);
         CREATE TABLE shop.kid (PRIMARY KEY (id), UNIQUE (x), y int REFERENCES shop.kid) INHERITS (shop.p1, shop.p2);
         GRANT TRUNCATE ON shop.kid TO PUBLIC; GRANT TRIGGER ON shop.kid TO app",
        &["'shop.p1', 'tenant_id'", "'shop.p2', 'tenant_id'"],
    ),
    ("a typed table", "CREATE TYPE shop.kind AS (id int, tenant_id text); CREATE TABLE shop.typed OF shop.kind", &["'shop.typed', 'tenant_id'"]),
    ("an unlogged table", "CREATE UNLOGGED TABLE shop.light (id int UNIQUE)", &["'shop.light', 'tenant_id'"]),
    (
        "partitions of partitions",
        "CREATE TABLE shop.ml (a int, b int, c int, PRIMARY KEY (a, b)) PARTITION BY RANGE (a);
         CREATE TABLE shop.ml1 PARTITION OF shop.ml FOR VALUES FROM (0) TO (10) PARTITION BY RANGE (b);
         CREATE TABLE shop.ml11 PARTITION OF shop.ml1 FOR VALUES FROM (0) TO (10); CREATE UNIQUE INDEX ml11_own ON shop.ml11 (c);
         CREATE UNIQUE INDEX ml_across ON shop.ml (a, b DESC);
         CREATE TABLE shop.ml2 (b int NOT NULL, junk text, c int, a int NOT NULL); ALTER TABLE shop.ml2 DROP COLUMN junk;
         ALTER TABLE shop.ml ATTACH PARTITION shop.ml2 FOR VALUES FROM (10) TO (20);
         GRANT ALL ON shop.ml, shop.ml11 TO app; GRANT TRUNCATE ON shop.ml1 TO PUBLIC; GRANT REFERENCES (a) ON shop.ml2 TO PUBLIC;
         CREATE TABLE shop.mlc (id int PRIMARY KEY, a int, b int, FOREIGN KEY (a, b) REFERENCES shop.ml ON DELETE CASCADE)",
        &["'shop.mlc', 'tenant_id'", "'shop.ml', 'tenant_id'"],
    ),
];

/// All that can be seen of the keys, foreign keys, policies, defaults and grants of the schema's tables.
const SHAPE: &str = "
    SELECT format('%s %s', conrelid::regclass, pg_get_constraintdef(oid)) || ' ' || conname || coalesce(obj_description(oid, 'pg_constraint'), '')
      FROM pg_constraint WHERE connamespace = 'shop'::regnamespace AND conparentid = 0 AND coninhcount = 0 AND contype <> 'n'
    UNION ALL
    SELECT concat_ws(' ', pg_get_indexdef(i.indexrelid), i.indisreplident, i.indisclustered, i.indisvalid, i.indimmediate, c.reloptions, obj_description(c.oid, 'pg_class'))
      FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid WHERE c.relnamespace = 'shop'::regnamespace
    UNION ALL
    SELECT concat_ws(' ', polrelid::regclass, polname, polpermissive, pg_get_expr(polqual, polrelid)) FROM pg_policy
    UNION ALL
    SELECT concat_ws(' ', c.oid::regclass, c.relrowsecurity, c.relforcerowsecurity, c.relreplident) FROM pg_class c
     WHERE c.relnamespace = 'shop'::regnamespace AND c.relkind IN ('r', 'p')
    ORDER BY 1";

fn assert_isolated(client: &mut Client, what: &str) {
    let found = column(
        client,
        "SELECT rule || ' ' || object || ' ' || finding FROM tenancy.audit_isolation() WHERE rule NOT IN ('sequence_gaps', 'temporary_tables')",
    );
    assert!(found.is_empty(), "{what}: {found:#?}");
    let granted = column(
        client,
        "SELECT c.oid::regclass || ' ' || x.privilege_type FROM pg_class c CROSS JOIN LATERAL (
             SELECT (aclexplode(c.relacl)).* UNION ALL SELECT (aclexplode(a.attacl)).* FROM pg_attribute a WHERE a.attrelid = c.oid) x
          WHERE c.relnamespace = 'shop'::regnamespace AND c.relkind IN ('r', 'p') AND x.grantee <> c.relowner
            AND x.privilege_type IN ('TRUNCATE', 'REFERENCES', 'TRIGGER')",
    );
    assert!(granted.is_empty(), "{what}: {granted:?}");
}

fn at_once(what: &str, ddl: &str, tables: &[&str]) -> Vec<String> {
    let database = shop();
    let mut ops = database.connect("ops");
    ops.batch_execute(ddl).unwrap_or_else(|error| panic!("{what}: {error:?}"));
    for table in tables {
        let listed = protect(&mut ops, &format!("{table}, composite_keys => true, dry_run => true"));
        let done = protect(&mut ops, &format!("{table}, composite_keys => true"));
        assert_eq!(listed, done, "{what}: what dry_run lists is what is done");
        assert!(!done.is_empty(), "{what}: {table}");
    }
    for table in tables {
        for arguments in ["composite_keys => true", "dry_run => true"] {
            let again = protect(&mut ops, &format!("{table}, {arguments}"));
            assert!(again.is_empty(), "{what}: {again:#?}");
        }
    }
    assert_isolated(&mut ops, what);
    column(&mut ops, SHAPE)
}

fn online(what: &str, ddl: &str, tables: &[&str]) -> Vec<String> {
    let database = shop();
    let (mut ops, notices) = database.connect_with_notices("ops");
    ops.batch_execute(ddl).unwrap();
    for table in tables {
        for round in 0.. {
            assert!(round < 20, "{what}: {table} comes to no end");
            take_notices(&notices);
            ops.batch_execute(&format!("CALL tenancy.protect_table_online({table}, composite_keys => true)"))
                .unwrap_or_else(|error| panic!("{what}: {error:?}"));
            let said = take_notices(&notices);
            let yours = said.iter().find_map(|notice| notice.split_once("run this, outside a transaction"));
            let Some((_, statements)) = yours else { break };
            for statement in statements.lines().skip(1) {
                ops.batch_execute(statement).unwrap_or_else(|error| panic!("{what}: {statement} {error:?}"));
            }
        }
        let left = protect(&mut ops, &format!("{table}, composite_keys => true"));
        assert!(left.is_empty(), "{what}: {left:#?}");
    }
    assert_isolated(&mut ops, what);
    column(&mut ops, SHAPE)
}

#[test]
fn every_structure_is_protected_at_once_and_online_and_comes_to_the_same() {
    for (what, ddl, tables) in STRUCTURES {
        let shape = at_once(what, ddl, tables);
        if !ddl.contains("PARTITION") {
            assert_eq!(shape, online(what, ddl, tables), "{what}");
        }
        println!("{what}: {} lines of the catalogs", shape.len());
    }
}

#[test]
fn a_published_table_takes_updates_after_its_keys_changed() {
    let database = shop();
    let mut superuser = database.superuser();
    superuser
        .batch_execute(
            "CREATE TABLE shop.sent (id bigint, code text NOT NULL UNIQUE);
             ALTER TABLE shop.sent REPLICA IDENTITY USING INDEX sent_code_key;
             CREATE PUBLICATION outward FOR TABLE shop.sent;
             SELECT tenancy.protect_table('shop.sent', composite_keys => true);
             INSERT INTO shop.sent VALUES (1, 'x', 'tenant-a'); UPDATE shop.sent SET id = 2; DELETE FROM shop.sent",
        )
        .unwrap();
}

#[test]
fn a_view_that_groups_by_the_key_alone_is_named() {
    let database = shop();
    let mut ops = database.connect("ops");
    ops.batch_execute(
        "CREATE TABLE shop.grouped (id int PRIMARY KEY, name text);
         CREATE VIEW shop.by_key WITH (security_invoker = true) AS SELECT id, name, count(*) FROM shop.grouped GROUP BY id",
    )
    .unwrap();
    for call in [
        "SELECT tenancy.protect_table('shop.grouped', composite_keys => true)",
        "SELECT tenancy.protection_plan('shop.grouped', composite_keys => true)",
    ] {
        let error = refused(ops.query(call, &[]), "2BP01", "key_in_use");
        assert!(error.message().contains("view shop.by_key"), "{error:?}");
    }
    ops.batch_execute("CREATE OR REPLACE VIEW shop.by_key WITH (security_invoker = true) AS SELECT id, name, count(*) FROM shop.grouped GROUP BY id, name")
        .unwrap();
    assert!(!protect(&mut ops, "'shop.grouped', composite_keys => true").is_empty());
}

#[test]
fn a_renamed_column_or_role_is_followed() {
    let database = shop();
    let mut superuser = database.superuser();
    superuser.batch_execute("CREATE ROLE overseer_before").unwrap();
    let mut ops = database.connect("ops");
    ops.batch_execute(
        "CREATE TABLE shop.notes (id bigint, org text); GRANT SELECT ON shop.notes TO app, overseer_before;
         SELECT tenancy.protect_table('shop.notes', org_column => 'org', operator_role => 'overseer_before');
         ALTER TABLE shop.notes RENAME COLUMN tenant_id TO whose; ALTER TABLE shop.notes RENAME COLUMN org TO within",
    )
    .unwrap();
    superuser
        .batch_execute(
            "ALTER ROLE overseer_before RENAME TO overseer_after; INSERT INTO shop.notes VALUES (1, 'o', 'tenant-a')",
        )
        .unwrap();
    assert_isolated(&mut ops, "renamed");
    assert_eq!(value(&mut ops, "SELECT count(*)::text FROM tenancy.export_tenant('tenant-a')"), "1");
    let error = refused(ops.query("SELECT tenancy.protect_table('shop.notes')", &[]), "22023", "other_tenant_column");
    assert!(error.message().contains("whose"), "{error:?}");
    assert!(protect(&mut ops, "'shop.notes', 'whose'").is_empty());
    let recorded = "SELECT concat_ws(' ', tenant_column, org_column, operator_role) FROM tenancy.protected_tables";
    assert_eq!(value(&mut superuser, recorded), "whose within overseer_after");
    superuser
        .batch_execute("SELECT tenancy.register_tenant('tenant-a', 'A'); SELECT tenancy.suspend_tenant('tenant-a')")
        .unwrap();
    ops.batch_execute("ALTER TABLE shop.notes RENAME COLUMN whose TO tenant; CALL tenancy.delete_tenant('tenant-a')")
        .unwrap_err();
    ops.batch_execute("ALTER TABLE shop.notes RENAME COLUMN whose TO tenant").unwrap();
    ops.batch_execute("CALL tenancy.delete_tenant('tenant-a')").unwrap();
    assert_eq!(value(&mut superuser, "SELECT count(*)::text FROM shop.notes"), "0");
    superuser.batch_execute("DROP OWNED BY overseer_after; DROP ROLE overseer_after").unwrap();
}

#[test]
fn settings_that_change_how_things_are_written_change_nothing() {
    let database = shop();
    let mut ops = database.connect("ops");
    ops.batch_execute(
        "SET quote_all_identifiers = on; SET standard_conforming_strings = off; SET escape_string_warning = off;
         CREATE TABLE shop.essays (id bigint PRIMARY KEY, body text);
         CREATE TABLE shop.notes (id bigint PRIMARY KEY);
         GRANT SELECT, INSERT ON shop.essays TO app",
    )
    .unwrap();
    assert!(!protect(&mut ops, "'shop.essays', composite_keys => true, operator_role => 'svc'").is_empty());
    assert!(protect(&mut ops, "'shop.essays'").is_empty());
    let plan = "SELECT statement FROM tenancy.protection_plan('shop.notes', composite_keys => true)";
    let planned = column(&mut ops, plan);
    assert_eq!(planned, column(&mut database.connect("ops"), plan));
    protect(&mut ops, "'shop.notes'");
    let errors = "SELECT rule || ' ' || object FROM tenancy.audit_isolation() WHERE severity = 'error'";
    assert!(column(&mut ops, errors).is_empty(), "{:?}", column(&mut ops, errors));
}

#[test]
fn a_child_that_takes_nulls_is_counted_and_filled() {
    let database = shop();
    let mut ops = database.connect("ops");
    let version: i32 = value(&mut ops, "SHOW server_version_num").parse().unwrap();
    if version >= 180_000 {
        // A child's column is NOT NULL with its parent's from then on.
        return;
    }
    ops.batch_execute(
        "CREATE TABLE shop.things (id bigint, tenant_id text NOT NULL);
         CREATE TABLE shop.big_things () INHERITS (shop.things);
         ALTER TABLE shop.big_things ALTER tenant_id DROP NOT NULL;
         INSERT INTO shop.big_things VALUES (1, NULL), (2, NULL), (3, 'tenant-b');
         CREATE INDEX ON shop.things (tenant_id); CREATE INDEX ON shop.big_things (tenant_id);
         GRANT SELECT ON shop.things, shop.big_things TO app",
    )
    .unwrap();
    let error = refused(ops.query("SELECT tenancy.protect_table('shop.things')", &[]), "22023", "rows_without_tenant");
    assert!(error.message().contains("2 row(s)"), "{error:?}");
    ops.batch_execute("CALL tenancy.protect_table_online('shop.things', backfill => $$'tenant-a'$$)").unwrap();
    assert!(protect(&mut ops, "'shop.things'").is_empty(), "nothing is left to do");
    let ids = "SELECT id::text FROM shop.big_things ORDER BY id";
    assert_eq!(as_tenant(&mut database.connect("app"), "tenant-a", |tx| column(tx, ids)), ["1", "2"]);
}

#[test]
fn somebody_s_temporary_child_is_nobody_else_s_business() {
    let database = shop();
    let mut ops = database.connect("ops");
    ops.batch_execute("CREATE TABLE shop.essays (id bigint); SELECT tenancy.protect_table('shop.essays')").unwrap();
    let mut other = database.connect("ops");
    other.batch_execute("CREATE TEMPORARY TABLE mine () INHERITS (shop.essays)").unwrap();
    assert!(protect(&mut ops, "'shop.essays'").is_empty());
    let errors = "SELECT rule || ' ' || object FROM tenancy.audit_isolation() WHERE severity = 'error'";
    assert!(column(&mut ops, errors).is_empty(), "{:?}", column(&mut ops, errors));
    assert!(column(&mut ops, "SELECT tenancy.export_tenant('tenant-a')").is_empty());
}
