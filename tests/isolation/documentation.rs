//! The helpers for tests of policies, and the page about them; tests/documentation.rs runs the other pages.

use crate::common::{Database, cluster, psql, sql_blocks};
use crate::world::{column, value};
use std::fs;

fn blocks(page: &str) -> String {
    sql_blocks(&format!("docs/how-to/{page}.md")).concat()
}

fn run(database: &Database, role: &str, script: &str) -> String {
    psql(database, role, &[], script).0
}

/// With pgTAP where the server has it; else with the few functions of it that the page uses.
#[test]
fn the_page_on_testing_policies_runs_and_passes() {
    const STAND_IN: &str = "
        CREATE FUNCTION plan(integer) RETURNS text LANGUAGE sql AS $$ SELECT '1..' || $1 $$;
        CREATE FUNCTION told(boolean, text) RETURNS text LANGUAGE sql AS $$ SELECT CASE WHEN $1 THEN 'ok - ' ELSE 'not ok - ' END || $2 $$;
        CREATE FUNCTION \"is\"(anyelement, anyelement, text) RETURNS text LANGUAGE sql AS $$ SELECT told($1 IS NOT DISTINCT FROM $2, $3) $$;
        CREATE FUNCTION rows_of(text) RETURNS text[] LANGUAGE plpgsql AS $$ DECLARE r text[]; BEGIN EXECUTE 'SELECT array_agg(x::text) FROM (' || $1 || ') x' INTO r; RETURN r; END $$;
        CREATE FUNCTION results_eq(text, text, text) RETURNS text LANGUAGE sql AS $$ SELECT told(rows_of($1) IS NOT DISTINCT FROM rows_of($2), $3) $$;
        CREATE FUNCTION is_empty(text, text) RETURNS text LANGUAGE sql AS $$ SELECT told(rows_of($1) IS NULL, $2) $$;
        CREATE FUNCTION finish() RETURNS SETOF text LANGUAGE sql AS $$ SELECT NULL WHERE false $$;";
    let database = cluster().database();
    let mut superuser = database.superuser();
    let helpers = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/sql/test/tenancy_test.sql")).unwrap();
    run(&database, "postgres", &helpers);
    run(&database, "postgres", &helpers);
    let has_pgtap = !column(&mut superuser, "SELECT name FROM pg_available_extensions WHERE name = 'pgtap'").is_empty();
    superuser.batch_execute(if has_pgtap { "CREATE EXTENSION pgtap" } else { STAND_IN }).unwrap();
    let shown = run(&database, "postgres", &blocks("test-your-policies"));
    println!("pgTAP: {}\n{shown}", if has_pgtap { "the real one" } else { "a stand-in" });
    assert_eq!(shown.lines().filter(|line| line.starts_with("ok ")).count(), 6, "{shown}");
    assert!(!shown.contains("not ok"), "{shown}");
}

#[test]
fn a_test_can_be_many_people_and_leaves_nothing_behind() {
    let database = cluster().database();
    let helpers = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/sql/test/tenancy_test.sql")).unwrap();
    run(&database, "postgres", &helpers);
    database
        .superuser()
        .batch_execute("CREATE TABLE public.essays (id bigint); GRANT SELECT, INSERT ON public.essays TO app; SELECT tenancy.protect_table('public.essays')")
        .unwrap();
    let mut app = database.connect("app");
    let mut transaction = app.transaction().unwrap();
    for tenant in ["tenant-a", "tenant-b", "tenant-a"] {
        let who = format!(
            "SELECT r ->> 'tenant_id' FROM tenancy_test.rows_as('u', NULL, '{tenant}', 'INSERT INTO public.essays VALUES (1) RETURNING tenant_id') r"
        );
        assert_eq!(column(&mut transaction, &who), [tenant]);
    }
    assert_eq!(value(&mut transaction, "SELECT coalesce(tenancy.tenant_id(), 'nobody')"), "nobody");
    transaction.batch_execute("SELECT tenancy_test.login_as('u', NULL, 'tenant-b')").unwrap();
    assert_eq!(value(&mut transaction, "SELECT count(*)::text FROM public.essays"), "0");
    assert_eq!(value(&mut transaction, "SELECT tenancy_test.logout()::text"), "true");
    transaction.rollback().unwrap();
    assert_eq!(value(&mut app, "SELECT tenancy_test.error_as('u', NULL, 'x', 'SELECT 1/0')"), "22012");
    assert_eq!(value(&mut app, "SELECT count(*)::text FROM tenancy_test.findings('public')"), "0");
}
