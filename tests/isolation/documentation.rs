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

#[test]
fn the_page_on_testing_policies_runs_and_passes() {
    let database = cluster().database();
    let helpers = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/sql/test/tenancy_test.sql")).unwrap();
    run(&database, "postgres", &helpers);
    run(&database, "postgres", &helpers);
    let mut superuser = database.superuser();
    let at_hand = "SELECT (count(*) > 0)::text FROM pg_available_extensions WHERE name = 'pgtap'";
    let major = "SELECT current_setting('server_version_num')::integer / 10000 || ''";
    if value(&mut superuser, at_hand) == "false" && value(&mut superuser, major) != "15" {
        crate::common::say!("skipped: this server, a copy without Debian's packages, has no pgTAP");
        return;
    }
    superuser.batch_execute("CREATE EXTENSION pgtap").expect("scripts/setup.sh installs pgTAP");
    let shown = run(&database, "postgres", &blocks("test-your-policies"));
    assert_eq!(shown.lines().filter(|line| line.starts_with("ok ")).count(), 6, "{shown}");
    assert!(!shown.contains("not ok") && !shown.contains("Looks like"), "{shown}");
    let installed = "SELECT count(*)::text FROM pg_depend WHERE refobjid = (SELECT oid FROM pg_extension WHERE extname = 'pg_tenancy')
                        AND classid = 'pg_namespace'::regclass AND objid = 'tenancy_test'::regnamespace";
    assert_eq!(value(&mut database.superuser(), installed), "0", "no part of the extension");
}

#[test]
fn production_does_not_install_the_test_helpers() {
    let database = cluster().database();
    assert_eq!(
        value(&mut database.superuser(), "SELECT coalesce(to_regnamespace('tenancy_test')::text, 'none')"),
        "none"
    );
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
