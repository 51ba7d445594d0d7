//! The registry: two organizations, the same module ids, every function.

use crate::common::{AUDIENCE, Cluster, KEY_ID, Options, SECRET, Token, cluster, in_parallel, refused};
use crate::world::{WEATHER, acting, ask, install, list, member, next, operator, retrieve, rows, store};
use serde_json::{Value, json};

const OWN: &str = "SELECT org_id || ' ' || module_id || ' ' || name || ' ' || status FROM tenancy.list_modules()";
const DIRECT: &str = "SELECT org_id || ' ' || module_id || ' ' || name || ' ' || status FROM tenancy.modules";

#[test]
fn two_organizations_install_the_same_module_and_never_meet() {
    let database = cluster().database();
    let (mut acme, mut beta) = (operator(&database, "acme"), operator(&database, "beta"));
    assert_eq!(install(&mut acme, WEATHER, "Acme's"), "installed");
    next(&mut acme, "acme");
    assert_eq!(install(&mut beta, WEATHER, "Beta's"), "installed");
    next(&mut beta, "beta");
    assert_eq!(list(&mut acme, OWN), ["acme weather/open-meteo Acme's installed"]);
    assert_eq!(list(&mut beta, OWN), ["beta weather/open-meteo Beta's installed"]);

    assert!(ask::<bool>(&mut beta, "SELECT tenancy.disable_module($1)", &[&WEATHER]).unwrap());
    next(&mut beta, "beta");
    assert_eq!(list(&mut beta, OWN), ["beta weather/open-meteo Beta's disabled"]);
    assert_eq!(list(&mut acme, OWN), ["acme weather/open-meteo Acme's installed"]);
    assert!(ask::<bool>(&mut beta, "SELECT tenancy.enable_module($1)", &[&WEATHER]).unwrap());

    // By direct SQL as well, whatever the WHERE says.
    for (client, org) in [(&mut acme, "acme"), (&mut beta, "beta")] {
        assert_eq!(list(client, "SELECT DISTINCT org_id FROM tenancy.modules"), [org]);
        assert_eq!(list(client, "SELECT org_id FROM tenancy.modules WHERE org_id IN ('acme', 'beta') OR true"), [org]);
        assert_eq!(list(client, DIRECT).len(), 1);
    }

    assert!(ask::<bool>(&mut acme, "SELECT tenancy.uninstall_module($1)", &[&WEATHER]).unwrap());
    next(&mut acme, "acme");
    assert!(!ask::<bool>(&mut acme, "SELECT tenancy.uninstall_module($1)", &[&WEATHER]).unwrap());
    assert!(!ask::<bool>(&mut acme, "SELECT tenancy.enable_module($1)", &[&WEATHER]).unwrap());
    assert!(list(&mut acme, OWN).is_empty() && list(&mut acme, DIRECT).is_empty());
    assert!(rows(&mut acme, "SELECT * FROM tenancy.get_module($1)", &[&WEATHER]).unwrap().is_empty());
    assert_eq!(list(&mut beta, OWN), ["beta weather/open-meteo Beta's installed"], "beta keeps its own");
}

#[test]
fn the_same_organization_id_in_two_tenants_is_two_organizations() {
    let database = cluster().database();
    let token = |tenant: &str| {
        Token::for_member("user", "shared-name").claim("tenant_id", tenant).claim("org_role", "operator")
    };
    let mut one = acting(&database, &token("tenant-1"));
    install(&mut one, WEATHER, "One's");
    one.batch_execute("COMMIT").unwrap();
    let mut two = acting(&database, &token("tenant-2"));
    assert!(list(&mut two, OWN).is_empty() && list(&mut two, DIRECT).is_empty());
    assert_eq!(install(&mut two, WEATHER, "Two's"), "installed");
}

#[test]
fn the_same_organization_id_in_two_namespaces_of_one_tenant_is_two_organizations() {
    const OTHER: &str = "https://other.test";
    let database = cluster().database();
    let mut owner = database.superuser();
    owner
        .batch_execute(
            "SELECT tenancy.register_tenant('group', 'Group');
             SELECT tenancy.register_organization('acme', 'Acme', 'group');
             SELECT tenancy.register_organization('acme', 'Acme elsewhere', 'group', namespace => 'other');",
        )
        .unwrap();
    owner
        .execute("SELECT tenancy.add_issuer($1, ARRAY[$2::text], namespace => 'other')", &[&OTHER, &AUDIENCE])
        .unwrap();
    owner.execute("SELECT tenancy.add_secret($1, $2, 'HS256', $3)", &[&OTHER, &KEY_ID, &SECRET]).unwrap();
    let token = Token::for_member("user", "acme").claim("org_role", "operator");
    let mut one = acting(&database, &token);
    install(&mut one, WEATHER, "One's");
    store(&mut one, WEATHER, &json!({"of": "one"}));
    ask::<Value>(&mut one, "SELECT tenancy.create_agent_state('c')", &[]).unwrap();
    one.batch_execute("COMMIT").unwrap();
    let mut other = acting(&database, &token.claim("iss", OTHER));
    assert_eq!(list(&mut other, "SELECT tenancy.tenant_id() || ' ' || tenancy.org_id()"), ["group acme"]);
    assert!(list(&mut other, OWN).is_empty() && list(&mut other, DIRECT).is_empty());
    assert_eq!(retrieve(&mut other, WEATHER).unwrap(), None);
    assert!(list(&mut other, "SELECT org_id FROM tenancy.module_credentials").is_empty());
    assert!(list(&mut other, "SELECT conversation_id FROM tenancy.agent_states").is_empty());
    assert_eq!(ask::<Option<Value>>(&mut other, "SELECT tenancy.get_agent_state('c')", &[]).unwrap(), None);
}

/// The functions a policy calls mean what they meant when they were made, whatever the reader's search_path holds.
#[test]
fn a_reader_s_own_operators_do_not_change_a_policy() {
    let database = cluster().database();
    database
        .superuser()
        .batch_execute(&format!(
            "ALTER DATABASE {} SET tenancy.personal_default_org = on;
             CREATE SCHEMA evil;
             CREATE FUNCTION evil.yes(text, text) RETURNS boolean LANGUAGE sql AS 'SELECT true';
             CREATE OPERATOR evil.= (FUNCTION = evil.yes, LEFTARG = text, RIGHTARG = text);
             GRANT USAGE ON SCHEMA evil TO app;
             GRANT EXECUTE ON FUNCTION evil.yes(text, text) TO app;",
            database.name
        ))
        .unwrap();
    let claims = json!(["read_config", "manage_modules"]);
    let mut real = acting(
        &database,
        &Token::for_member("bob", "default").claim("tenant_id", "shared").claim("permissions", claims.clone()),
    );
    install(&mut real, WEATHER, "Bob's");
    real.batch_execute("COMMIT").unwrap();
    let mut carol =
        acting(&database, &Token::for_user("carol").claim("tenant_id", "shared").claim("permissions", claims));
    carol.batch_execute("SET LOCAL search_path = evil, pg_catalog").unwrap();
    assert!(list(&mut carol, "SELECT 'x' WHERE 'a'::text = 'b'::text").len() == 1, "the operator is in force");
    assert!(list(&mut carol, DIRECT).is_empty());
    refused(rows(&mut carol, "SELECT * FROM tenancy.list_modules()", &[]), "PT401", "no_organization");
}

#[test]
fn without_preload_the_tables_open_as_well() {
    let own = Cluster::start(Options { preload: false, ..Options::default() });
    let database = own.database();
    let mut acme = operator(&database, "acme");
    install(&mut acme, WEATHER, "Acme's");
    next(&mut acme, "acme");
    assert_eq!(list(&mut acme, DIRECT).len(), 1);
    // The first statement of a connection, before anything has loaded the library.
    for role in ["app", "svc"] {
        assert!(database.connect(role).query(DIRECT, &[]).unwrap().is_empty());
    }
}

#[test]
fn another_organization_cannot_be_named() {
    let database = cluster().database();
    let mut beta = operator(&database, "beta");
    install(&mut beta, WEATHER, "Beta's");
    next(&mut beta, "beta");
    let mut acme = operator(&database, "acme");
    for statement in [
        "SELECT tenancy.install_module('weather/open-meteo', '{}', 'beta')",
        "SELECT * FROM tenancy.list_modules('beta')",
        "SELECT * FROM tenancy.get_module('weather/open-meteo', 'beta')",
        "SELECT tenancy.enable_module('weather/open-meteo', 'beta')",
        "SELECT tenancy.disable_module('weather/open-meteo', 'beta')",
        "SELECT tenancy.uninstall_module('weather/open-meteo', 'beta')",
        "SELECT * FROM tenancy._read_modules_as_identity('list', NULL, 'beta', NULL)",
        "SELECT tenancy._module_command_as_identity('uninstall', 'weather/open-meteo', 'beta', NULL, NULL)",
    ] {
        let error = refused(rows(&mut acme, statement, &[]), "PT403", "other_organization");
        assert!(!format!("{error:?}").contains("Beta"), "{error:?}");
    }
    // Its own may be.
    assert!(rows(&mut acme, "SELECT * FROM tenancy.list_modules('acme')", &[]).unwrap().is_empty());
    assert_eq!(list(&mut beta, OWN).len(), 1);
}

#[test]
fn an_install_again_keeps_counters_health_and_the_first_time() {
    let database = cluster().database();
    let mut acme = operator(&database, "acme");
    install(&mut acme, WEATHER, "First");
    next(&mut acme, "acme");
    let mut service = database.connect("svc");
    for _ in 0..3 {
        service.query_one("SELECT tenancy.record_module_usage($1, 'acme')", &[&WEATHER]).unwrap();
    }
    service.query_one("SELECT tenancy.update_module_health($1, 'degraded', true, 'acme')", &[&WEATHER]).unwrap();
    let kept = "SELECT concat_ws(' ', installed_at, success_count, failure_count, health_status, last_used IS NOT NULL)
                  FROM tenancy.get_module('weather/open-meteo')";
    let before = list(&mut acme, kept);
    assert!(before[0].ends_with(" 3 1 degraded t"), "{before:?}");
    ask::<bool>(&mut acme, "SELECT tenancy.disable_module($1)", &[&WEATHER]).unwrap();
    assert_eq!(install(&mut acme, WEATHER, "Second"), "updated");
    assert_eq!(list(&mut acme, kept), before);
    assert_eq!(list(&mut acme, OWN), ["acme weather/open-meteo Second installed"]);
}

#[test]
fn they_are_listed_by_category_and_name() {
    let database = cluster().database();
    let mut acme = operator(&database, "acme");
    for (module_id, name) in
        [("weather/z", "Alpha"), ("finance/b", "Zeta"), ("weather/a", "Beta"), ("finance/a", "Eta")]
    {
        install(&mut acme, module_id, name);
    }
    ask::<bool>(&mut acme, "SELECT tenancy.disable_module('weather/a')", &[]).unwrap();
    assert_eq!(
        list(&mut acme, "SELECT module_id FROM tenancy.list_modules()"),
        ["finance/a", "finance/b", "weather/z", "weather/a"]
    );
    assert_eq!(list(&mut acme, "SELECT module_id FROM tenancy.list_modules(status => 'disabled')"), ["weather/a"]);
    refused(rows(&mut acme, "SELECT tenancy.list_modules(status => 'broken')", &[]), "22023", "invalid_argument");
}

#[test]
fn what_is_no_module_is_refused() {
    let database = cluster().database();
    let mut acme = operator(&database, "acme");
    let call = "SELECT tenancy.install_module($1, $2)";
    for id in ["", " ", "weather", "/x", "weather/", "a/b/c", "we ather/x", "w/../x", "w/x\n", ".a/b"] {
        refused(ask::<String>(&mut acme, call, &[&id, &json!({})]), "22023", "invalid_argument");
    }
    refused(ask::<String>(&mut acme, call, &[&None::<&str>, &json!({})]), "22023", "invalid_argument");
    for manifest in [json!([]), json!("text"), json!(1), Value::Null] {
        refused(ask::<String>(&mut acme, call, &[&WEATHER, &manifest]), "22023", "invalid_argument");
    }
    refused(ask::<String>(&mut acme, call, &[&WEATHER, &None::<Value>]), "22023", "invalid_argument");
    for manifest in [
        json!({"category": "finance"}),
        json!({"platform": "other"}),
        json!({"module_id": "weather/other"}),
        json!({"name": 7}),
    ] {
        refused(ask::<String>(&mut acme, call, &[&WEATHER, &manifest]), "22023", "invalid_manifest");
    }
    let large = |bytes: usize| json!({"x": "y".repeat(bytes)});
    refused(ask::<String>(&mut acme, call, &[&WEATHER, &large(65_536)]), "54000", "too_large");
    assert_eq!(ask::<String>(&mut acme, call, &[&WEATHER, &large(65_000)]).unwrap(), "installed");
    for function in ["get_module", "enable_module", "disable_module", "uninstall_module"] {
        let statement = format!("SELECT tenancy.{function}(NULL)");
        refused(rows(&mut acme, &statement, &[]), "22023", "invalid_argument");
    }
    // The category and platform are those of the id, and the name is the platform where the manifest has none.
    assert_eq!(
        list(&mut acme, "SELECT concat_ws(' ', category, platform, name, health_status) FROM tenancy.modules"),
        ["weather open-meteo open-meteo unknown"]
    );
}

#[test]
fn sessions_that_install_at_once_make_one_row() {
    let database = cluster().database();
    let outcomes = in_parallel(8, |_| {
        let mut client = operator(&database, "acme");
        let outcome = install(&mut client, WEATHER, "Acme's");
        client.batch_execute("COMMIT").unwrap();
        outcome
    });
    assert_eq!(outcomes.iter().filter(|outcome| *outcome == "installed").count(), 1, "{outcomes:?}");
    assert_eq!(list(&mut operator(&database, "acme"), OWN).len(), 1);
}

#[test]
fn a_personal_identity_has_modules_only_where_the_setting_allows_it() {
    let database = cluster().database();
    let token = Token::for_user("alice").claim("permissions", json!(["read_config", "manage_modules"]));
    let mut alice = acting(&database, &token);
    let install_it = "SELECT tenancy.install_module('weather/open-meteo', '{}')";
    refused(ask::<String>(&mut alice, install_it, &[]), "PT401", "no_organization");
    // The client cannot allow it to itself.
    assert!(rows(&mut alice, "SELECT set_config('tenancy.personal_default_org', 'on', true)", &[]).is_err());
    drop(alice);
    database
        .superuser()
        .batch_execute(&format!("ALTER DATABASE {} SET tenancy.personal_default_org = on", database.name))
        .unwrap();

    let mut alice = acting(&database, &token);
    assert_eq!(ask::<String>(&mut alice, install_it, &[]).unwrap(), "installed");
    alice.batch_execute("COMMIT").unwrap();
    let mut alice = acting(&database, &token);
    assert_eq!(list(&mut alice, OWN), ["default weather/open-meteo open-meteo installed"]);
    assert_eq!(list(&mut alice, DIRECT), ["default weather/open-meteo open-meteo installed"]);
    let bob = Token::for_user("bob").claim("permissions", json!(["read_config", "manage_modules"]));
    let mut bob = acting(&database, &bob);
    assert!(list(&mut bob, OWN).is_empty() && list(&mut bob, DIRECT).is_empty(), "each has a default of their own");
    // In a tenant of several people there is no default that would be everybody's.
    let shared = Token::for_user("carol").claim("tenant_id", "shared").claim("permissions", json!(["manage_modules"]));
    refused(ask::<String>(&mut acting(&database, &shared), install_it, &[]), "PT401", "no_organization");
    // An organization that is really named so is another one.
    let mut real = member(&database, "alice", "default", "operator");
    assert!(list(&mut real, OWN).is_empty() && list(&mut real, DIRECT).is_empty());
}
