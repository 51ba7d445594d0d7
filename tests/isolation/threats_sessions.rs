//! Threats by their numbers (docs/explanation/threat-model.md): settings, cursors, plans, statistics.

use crate::common::{Token, fails_with};
use crate::library::{audited, ids, library};
use crate::world::{BIGINT, UUID, as_tenant, column, noticed, role, shop, take_notices, token_of, value};

#[test]
fn isolation_01_a_tenant_sets_the_setting() {
    let database = library();
    let mut app = database.connect("app");
    as_tenant(&mut app, "tenant-a", |tx| {
        for setting in ["app.tenant_id", "request.jwt.claims", "my.tenancy"] {
            tx.execute("SELECT set_config($1, '{\"tenant_id\": \"tenant-b\"}', true)", &[&setting]).unwrap();
        }
        assert_eq!(ids(tx), ["1"]);
        fails_with(tx.batch_execute("SET LOCAL tenancy.identity = '{\"tenant_id\": \"tenant-b\"}'"), "42501");
    });
}

#[test]
fn isolation_02_nothing_survives_in_a_pooled_connection() {
    let database = library();
    let mut app = database.connect("app");
    assert_eq!(as_tenant(&mut app, "tenant-a", |tx| ids(tx)), ["1"]);
    assert!(ids(&mut app).is_empty());
    assert_eq!(as_tenant(&mut app, "tenant-b", |tx| ids(tx)), ["2"]);
}

#[test]
fn isolation_03_a_cursor_stays_its_identity_s() {
    let database = library();
    let mut app = database.connect("app");
    as_tenant(&mut app, "tenant-a", |tx| {
        tx.batch_execute("DECLARE c CURSOR FOR SELECT id::text FROM shop.essays; SAVEPOINT s").unwrap();
        fails_with(tx.query("SELECT tenancy.authenticate($1)", &[&token_of("tenant-b")]), "PT403");
        tx.batch_execute("ROLLBACK TO s").unwrap();
        assert_eq!(column(tx, "FETCH ALL FROM c"), ["1"]);
    });
}

#[test]
fn isolation_04_a_cursor_with_hold_ends_at_the_next_login() {
    let database = library();
    let (mut app, notices) = database.connect_with_notices("app");
    as_tenant(&mut app, "tenant-a", |tx| {
        tx.batch_execute("DECLARE c CURSOR WITH HOLD FOR SELECT id::text FROM shop.essays").unwrap()
    });
    as_tenant(&mut app, "tenant-b", |tx| {
        fails_with(tx.query("FETCH ALL FROM c", &[]), "34000");
    });
    assert!(noticed(&take_notices(&notices), &["closed cursor"]));
}

#[test]
fn isolation_05_temporary_tables_outlive_the_identity() {
    let database = library();
    let mut app = database.connect("app");
    as_tenant(&mut app, "tenant-a", |tx| {
        tx.batch_execute("CREATE TEMP TABLE mine AS SELECT id FROM shop.essays").unwrap()
    });
    assert_eq!(as_tenant(&mut app, "tenant-b", |tx| column(tx, "SELECT id::text FROM mine")), ["1"], "documented");
    assert!(audited(&mut database.superuser(), "temporary_tables"));
    let mut other = database.connect("app");
    as_tenant(&mut other, "tenant-a", |tx| tx.batch_execute("SELECT tenancy.begin_copy('shop.essays')").unwrap());
    let left = "SELECT count(*)::text FROM pg_class WHERE relnamespace = pg_my_temp_schema()";
    assert_eq!(value(&mut other, left), "0");
}

#[test]
fn isolation_06_no_identity_is_null_and_no_failing_cast() {
    let database = shop();
    let mut ops = database.connect("ops");
    let mut app = database.connect("app");
    for (kind, id) in [("uuid", UUID[0]), ("bigint", BIGINT[0])] {
        ops.batch_execute(&format!(
            "CREATE TABLE shop.t_{kind} (tenant_id {kind}); INSERT INTO shop.t_{kind} VALUES ('{id}');
             SELECT tenancy.protect_table('shop.t_{kind}'); GRANT SELECT ON shop.t_{kind} TO app"
        ))
        .unwrap();
        let look = format!("SELECT tenant_id::text FROM shop.t_{kind}");
        assert!(column(&mut app, &look).is_empty());
        assert!(as_tenant(&mut app, "not-a-number", |tx| column(tx, &look)).is_empty());
        assert_eq!(as_tenant(&mut app, id, |tx| column(tx, &look)), [id]);
    }
}

#[test]
fn isolation_07_a_kept_plan_keeps_no_tenant() {
    let database = library();
    let mut app = database.connect("app");
    app.batch_execute("SET plan_cache_mode = force_generic_plan; PREPARE mine AS SELECT id::text FROM shop.essays")
        .unwrap();
    for (tenant, id) in [("tenant-a", "1"), ("tenant-b", "2"), ("tenant-a", "1")] {
        assert_eq!(as_tenant(&mut app, tenant, |tx| column(tx, "EXECUTE mine")), [id]);
    }
    database
        .superuser()
        .batch_execute(
            "CREATE FUNCTION shop.me() RETURNS text IMMUTABLE LANGUAGE sql AS 'SELECT tenancy.tenant_id()';
             CREATE POLICY mine ON shop.essays AS RESTRICTIVE USING (tenant_id = shop.me())",
        )
        .unwrap();
    assert!(audited(&mut database.superuser(), "policy_immutable_function"));
}

#[test]
fn isolation_08_a_plan_is_made_anew_for_another_role() {
    let database = library();
    role(&database, "watchman", "");
    let mut superuser = database.superuser();
    superuser.batch_execute("GRANT USAGE ON SCHEMA shop TO watchman; GRANT SELECT ON shop.essays TO watchman; PREPARE every AS SELECT id::text FROM shop.essays").unwrap();
    assert_eq!(column(&mut superuser, "EXECUTE every"), ["1", "2"]);
    superuser.batch_execute("SET ROLE app").unwrap();
    assert!(column(&mut superuser, "EXECUTE every").is_empty());
    let patched = "SELECT count(*)::text FROM tenancy._audit_server()";
    superuser.batch_execute("RESET ROLE").unwrap();
    assert_eq!(value(&mut superuser, patched), "0", "the server of these tests has the fixes");
}

#[test]
fn isolation_16_copy_goes_through_a_staging_table() {
    let database = library();
    let mut app = database.connect("app");
    as_tenant(&mut app, "tenant-a", |tx| {
        let command = value(tx, "SELECT tenancy.begin_copy('shop.essays')");
        let mut writer = tx.copy_in(&command).unwrap();
        std::io::Write::write_all(&mut writer, b"7\tcopied\n").unwrap();
        writer.finish().unwrap();
        assert_eq!(value(tx, "SELECT tenancy.end_copy('shop.essays')::text"), "1");
        assert_eq!(ids(tx), ["1", "7"]);
    });
}

#[test]
fn isolation_17_a_leaky_condition_sees_no_row_of_another() {
    let database = library();
    database
        .superuser()
        .batch_execute(
            "CREATE FUNCTION shop.leak(text) RETURNS boolean COST 0.0001 LANGUAGE plpgsql AS $$ BEGIN RAISE NOTICE 'seen %', $1; RETURN true; END $$;
             GRANT EXECUTE ON FUNCTION shop.leak(text) TO app",
        )
        .unwrap();
    let (mut app, notices) = database.connect_with_notices("app");
    as_tenant(&mut app, "tenant-a", |tx| {
        assert_eq!(column(tx, "SELECT id::text FROM shop.essays WHERE shop.leak(body) AND 1 / (id - 2) > -9"), ["1"]);
    });
    let said = take_notices(&notices);
    assert!(noticed(&said, &["seen of tenant-a"]) && !noticed(&said, &["tenant-b"]), "{said:?}");
}

#[test]
fn isolation_18_explain_analyze_removes_no_row_by_the_policy() {
    let database = library();
    let mut app = database.connect("app");
    as_tenant(&mut app, "tenant-a", |tx| {
        tx.batch_execute("SET LOCAL enable_seqscan = off").unwrap();
        let plan = column(tx, "EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) SELECT * FROM shop.essays").join("\n");
        assert!(
            plan.contains("Index Cond: (tenant_id = tenancy.tenant_id())") && !plan.contains("Rows Removed"),
            "{plan}"
        );
    });
}

#[test]
fn isolation_19_sizes_are_readable_and_values_are_not() {
    let database = library();
    database.superuser().batch_execute("ANALYZE shop.essays").unwrap();
    let mut app = database.connect("app");
    assert_eq!(
        value(&mut app, "SELECT reltuples::bigint::text FROM pg_class WHERE oid = 'shop.essays'::regclass"),
        "2"
    );
    assert_eq!(
        value(&mut app, "SELECT count(*)::text FROM pg_stats WHERE tablename = 'essays' AND schemaname = 'shop'"),
        "0"
    );
}

#[test]
fn isolation_20_statistics_show_no_values_to_a_user_s_operator() {
    let database = library();
    database
        .superuser()
        .batch_execute(
            "INSERT INTO shop.essays SELECT i, 'tenant-b', 'secret ' || i FROM generate_series(10, 500) i; ANALYZE shop.essays;
             CREATE FUNCTION shop.peek(text, text) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RAISE NOTICE 'seen %', $1; RETURN $1 < $2; END $$;
             CREATE OPERATOR shop.<<< (LEFTARG = text, RIGHTARG = text, PROCEDURE = shop.peek, RESTRICT = scalarltsel);
             GRANT EXECUTE ON FUNCTION shop.peek(text, text) TO app",
        )
        .unwrap();
    let (mut app, notices) = database.connect_with_notices("app");
    as_tenant(&mut app, "tenant-a", |tx| {
        tx.batch_execute("EXPLAIN SELECT * FROM shop.essays WHERE body OPERATOR(shop.<<<) 'x'").unwrap()
    });
    assert!(!noticed(&take_notices(&notices), &["secret"]));
}

#[test]
fn isolation_35_a_row_that_changes_hands_while_waited_for_is_not_seen() {
    let database = library();
    let mut app = database.connect("app");
    let mut superuser = database.superuser();
    let mut moving = superuser.transaction().unwrap();
    moving.batch_execute("DELETE FROM shop.reviews WHERE essay = 1; UPDATE shop.essays SET tenant_id = 'tenant-b', body = 'not yours' WHERE id = 1").unwrap();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            as_tenant(&mut app, "tenant-a", |tx| column(tx, "SELECT body FROM shop.essays WHERE id = 1 FOR UPDATE"))
        });
        std::thread::sleep(std::time::Duration::from_millis(200));
        moving.commit().unwrap();
        assert!(waiting.join().unwrap().is_empty());
    });
}

#[test]
fn isolation_36_row_security_off_is_an_error_and_no_way_around() {
    let database = library();
    let mut app = database.connect("app");
    as_tenant(&mut app, "tenant-a", |tx| {
        tx.batch_execute("SET LOCAL row_security = off").unwrap();
        fails_with(tx.query("SELECT * FROM shop.essays", &[]), "42501");
    });
    let dump = database.cluster().client("pg_dump", &["-U", "ops", "-t", "shop.essays", &database.name]);
    assert!(!dump.status.success(), "documented: a dump needs a role that no policy binds");
}

#[test]
fn an_expired_or_cleared_identity_shows_nothing() {
    let database = library();
    let mut app = database.connect("app");
    let short = Token::for_user("somebody").claim("tenant_id", "tenant-a").expires_in(3).sign();
    crate::world::with_token(&mut app, &short, |tx| {
        assert_eq!(ids(tx), ["1"]);
        tx.batch_execute("SELECT pg_sleep(3.1)").unwrap();
        assert!(ids(tx).is_empty());
        fails_with(tx.execute("INSERT INTO shop.essays (id) VALUES (5)", &[]), "42501");
    });
    as_tenant(&mut app, "tenant-a", |tx| {
        tx.batch_execute("SELECT tenancy.clear_identity()").unwrap();
        assert!(ids(tx).is_empty());
    });
}
