//! The ways isolation breaks, by their numbers (docs/explanation/threat-model.md): each tried, and what then happens.

use crate::common::{Database, Token, fails_with, refused};
use crate::world::{
    BIGINT, UUID, as_tenant, column, noticed, protect, role, shop, shop_with_essays, take_notices, token_of, value,
};
use postgres::Client;

/// Essays and their reviews, keys and foreign keys with the tenant in them; essay 1 is A's, essay 2 is B's.
fn library() -> Database<'static> {
    let database = shop();
    database
        .connect("ops")
        .batch_execute(
            "CREATE TABLE shop.essays (id bigint PRIMARY KEY, tenant_id text, body text);
             CREATE TABLE shop.reviews (id bigint PRIMARY KEY, tenant_id text, essay bigint REFERENCES shop.essays ON DELETE CASCADE);
             GRANT SELECT, INSERT, UPDATE, DELETE ON shop.essays, shop.reviews TO app;
             SELECT tenancy.protect_table('shop.reviews', composite_keys => true);
             SELECT tenancy.protect_table('shop.essays', composite_keys => true)",
        )
        .unwrap();
    let mut app = database.connect("app");
    for (id, tenant) in [(1i64, "tenant-a"), (2, "tenant-b")] {
        as_tenant(&mut app, tenant, |tx| {
            tx.execute("INSERT INTO shop.essays (id, body) VALUES ($1, 'of ' || tenancy.tenant_id())", &[&id]).unwrap();
            tx.execute("INSERT INTO shop.reviews (id, essay) VALUES ($1, $1)", &[&id]).unwrap();
        });
    }
    database
}

fn ids(client: &mut impl postgres::GenericClient) -> Vec<String> {
    column(client, "SELECT id::text FROM shop.essays ORDER BY id")
}

fn audited(client: &mut Client, rule: &str) -> bool {
    column(client, "SELECT rule FROM tenancy.audit_isolation()").iter().any(|found| found == rule)
}

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

/// PostgreSQL's own: a temporary table belongs to the session. The audit says who may make one; ours goes at COMMIT.
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

/// What EXPLAIN ANALYZE counts as removed counts others' rows. With an index that leads with the tenant there are none.
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

/// Documented: sizes are for everybody to read. Values are not: pg_stats hides them under row-level security.
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
fn isolation_22_a_sequence_for_all_is_found() {
    let database = shop();
    let mut ops = database.connect("ops");
    ops.batch_execute("CREATE TABLE shop.numbered (id bigint GENERATED ALWAYS AS IDENTITY); SELECT tenancy.protect_table('shop.numbered')").unwrap();
    assert!(audited(&mut ops, "sequence_gaps"));
}

#[test]
fn isolation_23_a_view_with_its_caller_s_rights_shows_the_caller_s_rows() {
    let database = library();
    let mut superuser = database.superuser();
    superuser
        .batch_execute("CREATE VIEW shop.seen AS SELECT id::text FROM shop.essays; GRANT SELECT ON shop.seen TO app")
        .unwrap();
    let mut app = database.connect("app");
    let look = "SELECT id FROM shop.seen ORDER BY id";
    assert_eq!(as_tenant(&mut app, "tenant-a", |tx| column(tx, look)), ["1", "2"], "a superuser's view shows all");
    let remedy =
        value(&mut superuser, "SELECT remedy FROM tenancy.audit_isolation() WHERE rule = 'view_runs_as_owner'");
    superuser.batch_execute(&remedy).unwrap();
    assert_eq!(as_tenant(&mut app, "tenant-a", |tx| column(tx, look)), ["1"]);
}

#[test]
fn isolation_24_a_materialized_view_is_found_and_refused_by_the_guard() {
    let database = library();
    let mut superuser = database.superuser();
    let make = "CREATE MATERIALIZED VIEW shop.kept AS SELECT * FROM shop.essays";
    superuser.batch_execute("SELECT tenancy.guard_schema('shop', 'refuse')").unwrap();
    refused(superuser.batch_execute(make), "42501", "isolation_guard");
    superuser.batch_execute(&format!("SELECT tenancy.unguard_schema('shop'); {make}")).unwrap();
    assert!(audited(&mut superuser, "materialized_view"));
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
fn isolation_27_roles_that_bypass_are_found() {
    let database = library();
    role(&database, "bypasser", "BYPASSRLS");
    let mut superuser = database.superuser();
    let mut transaction = superuser.transaction().unwrap();
    transaction.batch_execute("GRANT bypasser TO app").unwrap();
    let found = value(
        &mut transaction,
        "SELECT object || ': ' || finding FROM tenancy.audit_isolation() WHERE rule = 'bypassing_role'",
    );
    assert_eq!(found, "role app: it is a member of bypasser, whom no policy binds");
}

#[test]
fn isolation_28_definer_functions_without_a_search_path_are_found() {
    let database = library();
    let mut superuser = database.superuser();
    superuser.batch_execute("CREATE FUNCTION shop.all_of_it() RETURNS bigint SECURITY DEFINER LANGUAGE sql AS 'SELECT count(*) FROM shop.essays'").unwrap();
    assert!(audited(&mut superuser, "definer_search_path"));
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
fn isolation_32_triggers_and_rules_that_can_copy_rows_out_are_found() {
    let database = library();
    let mut superuser = database.superuser();
    superuser
        .batch_execute(
            "CREATE FUNCTION shop.copy() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
             CREATE TRIGGER copy AFTER INSERT ON shop.essays FOR EACH ROW EXECUTE FUNCTION shop.copy();
             CREATE RULE copy AS ON UPDATE TO shop.reviews DO ALSO NOTHING",
        )
        .unwrap();
    assert!(audited(&mut superuser, "after_trigger") && audited(&mut superuser, "rewrite_rule"));
}

#[test]
fn isolation_33_channels_differ_from_tenant_to_tenant() {
    let database = library();
    let mut app = database.connect("app");
    let [a, b] = ["tenant-a", "tenant-b"]
        .map(|tenant| as_tenant(&mut app, tenant, |tx| value(tx, "SELECT tenancy.channel('news')")));
    assert_ne!(a, b);
}

#[test]
fn isolation_34_advisory_locks_of_two_tenants_do_not_meet() {
    let database = library();
    let (mut one, mut two) = (database.connect("app"), database.connect("app"));
    as_tenant(&mut one, "tenant-a", |tx| {
        tx.batch_execute("SELECT pg_advisory_xact_lock(tenancy.lock_key('import'))").unwrap();
        let taken = "SELECT pg_try_advisory_xact_lock(tenancy.lock_key('import'))::text";
        assert_eq!(as_tenant(&mut two, "tenant-b", |tx| value(tx, taken)), "true");
        assert_eq!(as_tenant(&mut two, "tenant-a", |tx| value(tx, taken)), "false");
    });
}

/// The race is one of sub-queries in policies, whose snapshot is older than the locked row: ours have none.
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
fn isolation_37_publications_are_found() {
    let database = library();
    let mut superuser = database.superuser();
    superuser.batch_execute("CREATE PUBLICATION outward FOR ALL TABLES").unwrap();
    assert!(audited(&mut superuser, "published_table"));
}

#[test]
fn isolation_38_foreign_tables_are_found() {
    let database = library();
    let mut superuser = database.superuser();
    superuser
        .batch_execute("CREATE FOREIGN DATA WRAPPER far; CREATE SERVER far FOREIGN DATA WRAPPER far; CREATE FOREIGN TABLE shop.far (id int) SERVER far")
        .unwrap();
    assert!(audited(&mut superuser, "foreign_table"));
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
fn isolation_40_a_table_added_last_night_is_protected_by_the_guard() {
    let database = library();
    database.superuser().batch_execute("SELECT tenancy.guard_schema('shop', 'protect')").unwrap();
    let mut ops = database.connect("ops");
    database.superuser().batch_execute("GRANT CREATE ON SCHEMA shop TO ops").unwrap();
    ops.batch_execute("CREATE TABLE shop.last_night (id bigint)").unwrap();
    assert!(protect(&mut ops, "'shop.last_night'").is_empty());
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

/// Beside the numbers: an identity that has ended shows nothing in the same transaction.
#[test]
fn an_expired_or_cleared_identity_shows_nothing() {
    let database = library();
    let mut app = database.connect("app");
    let short = Token::for_user("somebody").claim("tenant_id", "tenant-a").expires_in(1).sign();
    crate::world::with_token(&mut app, &short, |tx| {
        assert_eq!(ids(tx), ["1"]);
        tx.batch_execute("SELECT pg_sleep(1.1)").unwrap();
        assert!(ids(tx).is_empty());
        fails_with(tx.execute("INSERT INTO shop.essays (id) VALUES (5)", &[]), "42501");
    });
    as_tenant(&mut app, "tenant-a", |tx| {
        tx.batch_execute("SELECT tenancy.clear_identity()").unwrap();
        assert!(ids(tx).is_empty());
    });
}

/// Each number stands in the threat model, with its test or with what is to be known.
#[test]
fn the_threat_model_has_every_number() {
    let model =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/explanation/threat-model.md")).unwrap();
    let (tests, cases) = (include_str!("threats.rs"), include_str!("../../docs/security-cases.md"));
    let (_, cases) = cases.split_once("## Isolation").expect("a section of its own");
    let cases = cases.split("\n## ").next().unwrap();
    for number in 1..=44 {
        let row = model
            .lines()
            .find(|line| line.starts_with(&format!("| {number} | ")))
            .unwrap_or_else(|| panic!("{number} is not in the threat model"));
        let named = tests.split("fn isolation_").skip(1).find(|rest| rest.starts_with(&format!("{number:02}_")));
        match named {
            Some(rest) => {
                let name = format!("isolation_{}", &rest[..rest.find('(').unwrap()]);
                assert!(
                    cases.contains(&format!("| {number} | ")) && cases.contains(&format!("`{name}`")),
                    "{name} is not in docs/security-cases.md"
                );
            }
            None => assert!(row.contains("documented"), "{number} has neither a test nor the word documented: {row}"),
        }
    }
}
