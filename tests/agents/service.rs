//! The service role without an identity: it names an organization, and NULL is every one.

use crate::common::{Database, Token, cluster, fails_with, refused};
use crate::world::{WEATHER, acting, install, list, operator, rows};
use postgres::Client;
use serde_json::json;

const OWN: &str = "SELECT org_id || ' ' || module_id || ' ' || status FROM tenancy.list_modules()";

/// Both organizations have the module; acme has another one too.
fn installed() -> Database<'static> {
    let database = cluster().database();
    for org in ["acme", "beta"] {
        let mut client = operator(&database, org);
        install(&mut client, WEATHER, org);
        if org == "acme" {
            install(&mut client, "finance/bank", org);
        }
        client.batch_execute("COMMIT").unwrap();
    }
    database
}

fn list_now(client: &mut Client, statement: &str) -> Vec<String> {
    client.query(statement, &[]).unwrap().iter().map(|row| row.get(0)).collect()
}

#[test]
fn it_may_name_an_organization() {
    let database = installed();
    let mut service = database.connect("svc");
    let of = |org: &str| format!("SELECT org_id || ' ' || module_id || ' ' || status FROM tenancy.list_modules({org})");
    assert_eq!(list_now(&mut service, &of("'beta'")), ["beta weather/open-meteo installed"]);
    assert_eq!(list_now(&mut service, &of("'acme'")).len(), 2);
    assert!(list_now(&mut service, &of("'nobody'")).is_empty());
    for (statement, outcome) in [
        ("SELECT tenancy.disable_module('weather/open-meteo', 'beta')::text", "true"),
        ("SELECT tenancy.install_module('test/hello', '{}', 'beta')", "installed"),
        ("SELECT tenancy.uninstall_module('finance/bank', 'beta')::text", "false"),
        ("SELECT tenancy.set_module_status('test/hello', 'validating', 'beta')::text", "true"),
    ] {
        assert_eq!(list_now(&mut service, statement), [outcome], "{statement}");
    }
    assert_eq!(
        list_now(&mut service, &of("'beta'")),
        ["beta test/hello validating", "beta weather/open-meteo disabled"]
    );
    assert_eq!(list(&mut operator(&database, "beta"), OWN).len(), 2, "the rows are where the organization finds them");
    assert_eq!(
        list(&mut operator(&database, "acme"), OWN),
        ["acme finance/bank installed", "acme weather/open-meteo installed"]
    );
    for (statement, reason) in [
        ("SELECT tenancy.set_module_status('test/hello', 'broken', 'beta')", "invalid_argument"),
        ("SELECT tenancy.set_module_status('test/hello', NULL, 'beta')", "invalid_argument"),
        ("SELECT tenancy.list_modules('')", "invalid_argument"),
        ("SELECT tenancy.list_modules('other::acme')", "invalid_argument"),
    ] {
        refused(service.query(statement, &[]), "22023", reason);
    }
}

#[test]
fn null_is_every_organization_but_for_an_install() {
    let database = installed();
    let mut service = database.connect("svc");
    let everywhere = "SELECT org_id || ' ' || module_id || ' ' || status FROM tenancy.get_module('weather/open-meteo')";
    assert_eq!(
        list_now(&mut service, everywhere),
        ["acme weather/open-meteo installed", "beta weather/open-meteo installed"]
    );
    assert_eq!(list_now(&mut service, OWN).len(), 3);
    refused(service.query("SELECT tenancy.install_module('a/b', '{}')", &[]), "22023", "invalid_argument");
    assert_eq!(list_now(&mut service, "SELECT tenancy.disable_module('weather/open-meteo')::text"), ["true"]);
    assert_eq!(
        list_now(&mut service, "SELECT DISTINCT org_id FROM tenancy.list_modules(status => 'disabled') ORDER BY 1"),
        ["acme", "beta"]
    );
    assert_eq!(list_now(&mut service, "SELECT tenancy.uninstall_module('weather/open-meteo')::text"), ["true"]);
    assert_eq!(list_now(&mut service, OWN), ["acme finance/bank installed"]);
}

#[test]
fn with_an_identity_it_is_bound_to_its_organization() {
    let database = installed();
    let mut service = database.connect("svc");
    let token = Token::for_member("user", "acme").claim("org_role", "operator").sign();
    service.batch_execute("BEGIN").unwrap();
    service.query_one("SELECT tenancy.authenticate($1)", &[&token]).unwrap();
    assert_eq!(list(&mut service, OWN).len(), 2);
    for statement in [
        "SELECT * FROM tenancy.list_modules('beta')",
        "SELECT tenancy.uninstall_module('weather/open-meteo', 'beta')",
        "SELECT tenancy.record_module_usage('weather/open-meteo', 'beta')",
    ] {
        refused(rows(&mut service, statement, &[]), "PT403", "other_organization");
    }
    assert_eq!(
        rows(&mut service, "SELECT tenancy.record_module_usage('weather/open-meteo')", &[]).unwrap()[0]
            .get::<_, i32>(0),
        1
    );
    // An identity that is gone does not turn one organization into all of them.
    service.batch_execute("SELECT tenancy.clear_identity()").unwrap();
    for statement in [
        "SELECT tenancy.uninstall_module('weather/open-meteo')",
        "SELECT * FROM tenancy.list_modules()",
        "SELECT * FROM tenancy.list_modules('beta')",
        "SELECT tenancy.update_module_health('weather/open-meteo', 'gone')",
    ] {
        refused(rows(&mut service, statement, &[]), "PT401", "identity_ended");
    }
    service.batch_execute("COMMIT").unwrap();
    assert_eq!(list_now(&mut service, OWN).len(), 3);
}

#[test]
fn an_identity_that_expires_in_mid_transaction_does_not_open_every_organization() {
    let database = installed();
    let mut service = database.connect("svc");
    let token = Token::for_member("user", "acme").claim("org_role", "operator").expires_in(4).sign();
    service.batch_execute("BEGIN").unwrap();
    service.query_one("SELECT tenancy.authenticate($1)", &[&token]).unwrap();
    assert_eq!(list(&mut service, OWN).len(), 2);
    std::thread::sleep(std::time::Duration::from_millis(4_500));
    for statement in ["SELECT tenancy.uninstall_module('weather/open-meteo')", "SELECT * FROM tenancy.list_modules()"] {
        refused(rows(&mut service, statement, &[]), "PT401", "identity_ended");
    }
    service.batch_execute("COMMIT").unwrap();
    assert_eq!(list_now(&mut service, OWN).len(), 3);
}

#[test]
fn credentials_are_never_reached_without_an_identity() {
    let database = installed();
    let mut service = database.connect("svc");
    for statement in [
        "SELECT tenancy.store_credential('weather/open-meteo', '{}')",
        "SELECT tenancy.retrieve_credential('weather/open-meteo')",
        "SELECT tenancy.delete_credential('weather/open-meteo')",
        "SELECT tenancy.has_credential('weather/open-meteo')",
        "SELECT tenancy.list_credentials()",
        "SELECT tenancy.retrieve_credential(NULL)",
        "SELECT tenancy.delete_credential(NULL)",
    ] {
        refused(service.query(statement, &[]), "PT401", "not_authenticated");
    }
}

#[test]
fn health_and_usage_are_counted_across_organizations() {
    let database = installed();
    let mut service = database.connect("svc");
    let unhealthy = "SELECT org_id || ' ' || failure_count FROM tenancy.unhealthy_modules()";
    for _ in 0..5 {
        assert!(list_now(&mut service, unhealthy).is_empty());
        let row = service.query_one("SELECT tenancy.update_module_health($1, 'unhealthy', true)", &[&WEATHER]).unwrap();
        assert_eq!(row.get::<_, i32>(0), 2);
    }
    assert_eq!(list_now(&mut service, unhealthy), ["acme 5", "beta 5"]);
    service.query_one("SELECT tenancy.update_module_health($1, 'healthy', org_id => 'acme')", &[&WEATHER]).unwrap();
    service.query_one("SELECT tenancy.disable_module($1, 'beta')", &[&WEATHER]).unwrap();
    assert_eq!(list_now(&mut service, unhealthy), ["acme 5"], "only installed ones; failures stay counted");
    assert!(list_now(&mut service, "SELECT org_id FROM tenancy.unhealthy_modules(6)").is_empty());
    assert_eq!(
        list_now(&mut service, "SELECT org_id || ' ' || module_id FROM tenancy.installed_modules()"),
        ["acme finance/bank", "acme weather/open-meteo"]
    );
    assert_eq!(service.query_one("SELECT tenancy.record_module_usage($1)", &[&WEATHER]).unwrap().get::<_, i32>(0), 2);
    assert_eq!(
        list_now(
            &mut service,
            "SELECT concat_ws(' ', org_id, success_count, health_status) FROM tenancy.get_module('weather/open-meteo')"
        ),
        ["acme 1 healthy", "beta 1 unhealthy"]
    );
    refused(service.query("SELECT tenancy.update_module_health('a/b', '')", &[]), "22023", "invalid_argument");
}

#[test]
fn nobody_else_may() {
    let database = installed();
    for role in ["app", "ops", "met"] {
        let mut client = database.connect(role);
        for statement in [
            "SELECT tenancy.set_module_status('weather/open-meteo', 'failed')",
            "SELECT tenancy.update_module_health('weather/open-meteo', 'x')",
            "SELECT tenancy.record_module_usage('weather/open-meteo')",
            "SELECT tenancy.unhealthy_modules()",
            "SELECT tenancy.installed_modules()",
            "SELECT tenancy._read_modules_as_service('list', NULL, NULL, NULL)",
            "SELECT tenancy._module_command_as_service('uninstall', 'weather/open-meteo', NULL, NULL, NULL)",
            "SELECT tenancy._find_modules(NULL, NULL, NULL, NULL, NULL)",
        ] {
            fails_with(client.query(statement, &[]), "42501");
        }
    }
    for role in ["app", "ops"] {
        let mut client = database.connect(role);
        for statement in [
            "SELECT tenancy.list_modules()",
            "SELECT tenancy.list_modules('acme')",
            "SELECT tenancy.uninstall_module('a/b')",
        ] {
            refused(client.query(statement, &[]), "PT401", "not_authenticated");
        }
    }
    // Within an organization only what members may do.
    let mut acme = operator(&database, "acme");
    let failed =
        "SELECT tenancy._module_command_as_identity('set_status', 'weather/open-meteo', NULL, NULL, 'approved')";
    refused(rows(&mut acme, failed, &[]), "22023", "invalid_argument");
}

/// A product's own wrapper, owned by a service role, acts as the service; a service that runs an application's function does not lend it its rights.
#[test]
fn whose_rights_count_is_whose_function_runs() {
    let database = installed();
    database
        .superuser()
        .batch_execute(
            "CREATE SCHEMA product; GRANT USAGE, CREATE ON SCHEMA product TO svc, app;
             SET ROLE svc;
             CREATE FUNCTION product.count_all() RETURNS bigint LANGUAGE sql SECURITY DEFINER AS 'SELECT count(*) FROM tenancy.list_modules()';
             SET ROLE app;
             CREATE FUNCTION product.trap() RETURNS bigint LANGUAGE sql SECURITY DEFINER AS 'SELECT count(*) FROM tenancy.list_modules()';
             RESET ROLE;",
        )
        .unwrap();
    let mut app = database.connect("app");
    assert_eq!(app.query_one("SELECT product.count_all()", &[]).unwrap().get::<_, i64>(0), 3);
    let mut service = database.connect("svc");
    refused(service.query("SELECT product.trap()", &[]), "PT401", "not_authenticated");
}

#[test]
fn a_registered_organization_is_found_in_its_tenant() {
    let database = cluster().database();
    database
        .superuser()
        .batch_execute(
            "SELECT tenancy.register_tenant('group', 'Group');
             SELECT tenancy.register_organization('acme', 'Acme', 'group')",
        )
        .unwrap();
    let mut service = database.connect("svc");
    service.query_one("SELECT tenancy.install_module('a/b', '{}', 'acme')", &[]).unwrap();
    let mut acme = acting(&database, &Token::for_member("user", "acme").claim("permissions", json!(["read_config"])));
    assert_eq!(list(&mut acme, "SELECT tenant_id || ' ' || org_id FROM tenancy.list_modules()"), ["group acme"]);
    // The tenant's own name is no organization's.
    refused(service.query("SELECT tenancy.list_modules('group')", &[]), "PT403", "tenant_taken");
}
