//! viewer ⊂ operator ⊂ admin ⊂ owner, and what each of them may do here.

use crate::common::{Token, cluster, fails_with, refused};
use crate::world::{WEATHER, acting, ask, install, list, member, operator, rows, store};
use serde_json::json;

const PERMISSIONS: [&str; 5] = ["read_config", "manage_modules", "write_config", "manage_keys", "read_audit"];

#[test]
fn each_role_holds_the_permissions_of_the_contract() {
    let database = cluster().database();
    for (role, held) in [("viewer", 1), ("operator", 2), ("admin", 5), ("owner", 5), ("member", 0), ("", 0)] {
        for prefix in ["", "org:"] {
            let mut client = member(&database, "user", "acme", &format!("{prefix}{role}"));
            for (index, permission) in PERMISSIONS.iter().enumerate() {
                let holds: bool = ask(&mut client, "SELECT tenancy.has_permission($1)", &[permission]).unwrap();
                assert_eq!(holds, index < held, "{prefix}{role} {permission}");
            }
        }
    }
    let mut nobody = database.connect("app");
    assert!(!nobody.query_one("SELECT tenancy.has_permission('read_config')", &[]).unwrap().get::<_, bool>(0));
}

#[test]
fn a_role_of_the_directory_counts_and_a_token_may_add_to_it() {
    let database = cluster().database();
    database
        .superuser()
        .batch_execute(
            "SELECT tenancy.register_user('dora'); SELECT tenancy.register_organization('acme', 'Acme');
             SELECT tenancy.set_membership('dora', 'acme', 'org:viewer')",
        )
        .unwrap();
    let mut dora = acting(&database, &Token::for_member("dora", "acme"));
    assert!(ask::<bool>(&mut dora, "SELECT tenancy.has_permission('read_config')", &[]).unwrap());
    assert!(!ask::<bool>(&mut dora, "SELECT tenancy.has_permission('manage_modules')", &[]).unwrap());
    let token = Token::for_member("dora", "acme").claim("permissions", json!(["manage_modules"]));
    let mut dora = acting(&database, &token);
    let held: Vec<String> = ask(&mut dora, "SELECT (tenancy.identity()).permissions", &[]).unwrap();
    assert_eq!(held, ["manage_modules", "read_config"]);
    // A service that acts for her has what she has.
    let mut service = database.connect("svc");
    service.batch_execute("BEGIN; SELECT tenancy.act_as('dora', 'acme', reason => 'a test')").unwrap();
    refused(rows(&mut service, "SELECT tenancy.install_module('a/b', '{}')", &[]), "PT403", "permission_denied");
    assert!(list(&mut service, "SELECT module_id FROM tenancy.list_modules()").is_empty());
}

const READING: [&str; 4] = [
    "SELECT count(*) FROM tenancy.list_modules()",
    "SELECT count(*) FROM tenancy.get_module('weather/open-meteo')",
    "SELECT tenancy.has_credential('weather/open-meteo')",
    "SELECT count(*) FROM tenancy.list_credentials()",
];
const MANAGING: [&str; 7] = [
    "SELECT tenancy.install_module('weather/open-meteo', '{}')",
    "SELECT tenancy.disable_module('weather/open-meteo')",
    "SELECT tenancy.enable_module('weather/open-meteo')",
    "SELECT tenancy.store_credential('weather/open-meteo', '{}')",
    "SELECT tenancy.retrieve_credential('weather/open-meteo')",
    "SELECT tenancy.delete_credential('weather/open-meteo')",
    "SELECT tenancy.uninstall_module('weather/open-meteo')",
];

#[test]
fn every_function_asks_for_its_permission() {
    let database = cluster().database();
    for (role, reads, manages) in [
        ("viewer", true, false),
        ("operator", true, true),
        ("admin", true, true),
        ("owner", true, true),
        ("org:member", false, false),
    ] {
        let mut client = member(&database, "user", "acme", role);
        for (statements, may, permission) in
            [(&READING[..], reads, "read_config"), (&MANAGING[..], manages, "manage_modules")]
        {
            for statement in statements {
                let answer = rows(&mut client, statement, &[]);
                if may {
                    answer.unwrap_or_else(|error| panic!("{role}: {statement}: {error:?}"));
                } else {
                    let error = refused(answer, "PT403", "permission_denied");
                    assert_eq!(error.message(), format!("Permission denied: requires {permission}"));
                }
            }
        }
    }
    let mut nobody = database.connect("app");
    for statement in READING.iter().chain(&MANAGING) {
        refused(nobody.query(*statement, &[]), "PT401", "not_authenticated");
    }
    let mut personal = acting(&database, &Token::for_user("alice"));
    for statement in READING.iter().chain(&MANAGING) {
        refused(rows(&mut personal, statement, &[]), "PT401", "no_organization");
    }
}

#[test]
fn direct_sql_shows_rows_to_readers_only_and_the_secret_to_nobody() {
    let database = cluster().database();
    let mut acme = operator(&database, "acme");
    install(&mut acme, WEATHER, "Acme's");
    store(&mut acme, WEATHER, &json!({"api_key": "k"}));
    acme.batch_execute("COMMIT").unwrap();
    let modules = "SELECT module_id FROM tenancy.modules";
    let credentials = "SELECT module_id FROM tenancy.module_credentials";
    let mut viewer = member(&database, "user", "acme", "viewer");
    assert_eq!(list(&mut viewer, modules), [WEATHER]);
    assert_eq!(list(&mut viewer, credentials), [WEATHER]);
    let mut outsider = member(&database, "user", "acme", "org:member");
    assert!(list(&mut outsider, modules).is_empty() && list(&mut outsider, credentials).is_empty());
    let mut beta = member(&database, "user", "beta", "owner");
    assert!(list(&mut beta, modules).is_empty() && list(&mut beta, credentials).is_empty());
    let mut nobody = database.connect("app");
    assert!(nobody.query(modules, &[]).unwrap().is_empty() && nobody.query(credentials, &[]).unwrap().is_empty());
    for role in ["app", "svc", "ops"] {
        let mut client = database.connect(role);
        for statement in [
            "SELECT sealed_secret FROM tenancy.module_credentials",
            "SELECT * FROM tenancy.module_credentials",
            "SELECT c FROM tenancy.module_credentials AS c",
            "SELECT count(*) FROM tenancy.module_credentials WHERE sealed_secret <> ''",
            "COPY tenancy.module_credentials TO STDOUT",
            "UPDATE tenancy.module_credentials SET org_id = 'beta'",
            "DELETE FROM tenancy.modules",
            "INSERT INTO tenancy.agent_states (tenant_id, user_id, conversation_id, state) VALUES ('a', 'b', 'c', '{}')",
            "SELECT tenancy._unseal('', '')",
            "SELECT tenancy._reseal_agents()",
        ] {
            fails_with(client.batch_execute(statement), "42501");
        }
    }
}
