//! The credential store: sealed, bound to its place, audited.

use crate::common::{Cluster, Database, Options, Token, cluster, fails_with, refused};
use crate::world::{WEATHER, acting, ask, list, next, operator, retrieve, rows, store};
use serde_json::{Value, json};

fn secret(of: &str) -> Value {
    json!({"api_key": format!("the secret of {of}"), "nested": {"n": 1}})
}

/// Both organizations hold a credential for the same module.
fn stored(database: &Database) {
    for org in ["acme", "beta"] {
        let mut client = operator(database, org);
        assert_eq!(store(&mut client, WEATHER, &secret(org)), "stored");
        client.batch_execute("COMMIT").unwrap();
    }
}

#[test]
fn two_organizations_hold_secrets_for_the_same_module() {
    let database = cluster().database();
    stored(&database);
    let (mut acme, mut beta) = (operator(&database, "acme"), operator(&database, "beta"));
    assert_eq!(retrieve(&mut acme, WEATHER).unwrap(), Some(secret("acme")));
    assert_eq!(retrieve(&mut beta, WEATHER).unwrap(), Some(secret("beta")));
    assert_eq!(retrieve(&mut acme, "finance/bank").unwrap(), None);
    assert_eq!(list(&mut acme, "SELECT module_id FROM tenancy.list_credentials()"), [WEATHER]);
    assert_eq!(list(&mut acme, "SELECT org_id FROM tenancy.module_credentials"), ["acme"]);
    let has = "SELECT tenancy.has_credential($1)";
    assert!(ask::<bool>(&mut acme, has, &[&WEATHER]).unwrap());
    assert!(!ask::<bool>(&mut acme, has, &[&"finance/bank"]).unwrap());

    let delete = "SELECT tenancy.delete_credential($1)";
    assert!(ask::<bool>(&mut acme, delete, &[&WEATHER]).unwrap());
    assert!(!ask::<bool>(&mut acme, delete, &[&WEATHER]).unwrap());
    next(&mut acme, "acme");
    assert_eq!(retrieve(&mut acme, WEATHER).unwrap(), None);
    assert!(!ask::<bool>(&mut acme, has, &[&WEATHER]).unwrap());
    next(&mut beta, "beta");
    assert_eq!(retrieve(&mut beta, WEATHER).unwrap(), Some(secret("beta")), "beta keeps its own");
}

#[test]
fn a_replacement_keeps_the_time_of_creation() {
    let database = cluster().database();
    stored(&database);
    let mut acme = operator(&database, "acme");
    let times = "SELECT created_at::text || (updated_at > created_at)::text FROM tenancy.list_credentials()";
    let created = list(&mut acme, "SELECT created_at::text FROM tenancy.list_credentials()").remove(0);
    assert_eq!(store(&mut acme, WEATHER, &json!({"api_key": "another"})), "replaced");
    assert_eq!(list(&mut acme, times), [format!("{created}true")]);
    assert_eq!(retrieve(&mut acme, WEATHER).unwrap(), Some(json!({"api_key": "another"})));
}

#[test]
fn null_and_what_is_no_credential_are_refused() {
    let database = cluster().database();
    stored(&database);
    let mut acme = operator(&database, "acme");
    for function in ["retrieve_credential", "delete_credential", "has_credential"] {
        for id in ["NULL", "''", "'%'", "'weather'"] {
            let statement = format!("SELECT tenancy.{function}({id})");
            refused(rows(&mut acme, &statement, &[]), "22023", "invalid_argument");
        }
    }
    let call = "SELECT tenancy.store_credential($1, $2)";
    refused(ask::<String>(&mut acme, call, &[&None::<&str>, &json!({})]), "22023", "invalid_argument");
    for value in [json!([]), json!("the secret itself"), Value::Null] {
        let error = refused(ask::<String>(&mut acme, call, &[&WEATHER, &value]), "22023", "invalid_argument");
        assert!(!format!("{error:?}").contains("the secret itself"));
    }
    let error = refused(
        ask::<String>(&mut acme, call, &[&WEATHER, &json!({"key": "s3cret".repeat(12_000)})]),
        "54000",
        "too_large",
    );
    assert!(!format!("{error:?}").contains("s3cret"));
    assert_eq!(retrieve(&mut acme, WEATHER).unwrap(), Some(secret("acme")), "nothing was changed");
}

#[test]
fn every_retrieval_is_audited_even_if_it_is_rolled_back() {
    let database = cluster().database();
    stored(&database);
    let mut acme = operator(&database, "acme");
    retrieve(&mut acme, WEATHER).unwrap();
    retrieve(&mut acme, "finance/bank").unwrap();
    acme.batch_execute("COMMIT").unwrap();
    let mut owner = database.superuser();
    let row = owner
        .query_one(
            "SELECT tenant_id, actor, user_id, org_id, detail, correlation_id IS NOT NULL FROM tenancy.audit_log
              WHERE action = 'retrieve_credential' AND detail ->> 'module_id' = $1",
            &[&WEATHER],
        )
        .unwrap();
    assert_eq!((row.get::<_, &str>(0), row.get::<_, &str>(1)), ("acme", "app"));
    assert_eq!((row.get::<_, &str>(2), row.get::<_, &str>(3)), ("acme-operator", "acme"));
    assert_eq!(row.get::<_, Value>(4), json!({"module_id": WEATHER, "found": true}));
    assert!(row.get::<_, bool>(5));
    let counts = "SELECT string_agg(action || ' ' || n, ', ' ORDER BY action) FROM
                      (SELECT action, count(*) AS n FROM tenancy.audit_log GROUP BY action) AS counted";
    let counted: String = owner.query_one(counts, &[]).unwrap().get(0);
    assert_eq!(counted, "retrieve_credential 2, store_credential 2");

    let mut beta = operator(&database, "beta");
    retrieve(&mut beta, WEATHER).unwrap();
    beta.batch_execute("ROLLBACK").unwrap();
    let log = database.cluster().log();
    let line = log
        .lines()
        .find(|line| {
            line.contains("pg_tenancy: retrieve_credential")
                && line.contains(&database.name)
                && line.contains("\"beta\"")
        })
        .expect("the server's log has the retrieval that was rolled back");
    assert!(line.contains(WEATHER) && line.contains("beta-operator"), "{line}");
    assert!(!log.contains("the secret of"), "no secret in the log");

    // What cannot be recorded is not handed out.
    let mut acme = operator(&database, "acme");
    acme.batch_execute("SET TRANSACTION READ ONLY").unwrap();
    fails_with(retrieve(&mut acme, WEATHER), "25006");
}

#[test]
fn a_row_moved_elsewhere_does_not_open() {
    let database = cluster().database();
    stored(&database);
    let mut owner = database.superuser();
    for (label, statement) in [
        (
            "another organization",
            "UPDATE tenancy.module_credentials AS c SET sealed_secret = other.sealed_secret FROM tenancy.module_credentials AS other
              WHERE c.org_id = 'acme' AND other.org_id = 'beta'",
        ),
        (
            "another module",
            "INSERT INTO tenancy.module_credentials (tenant_id, org_id, module_id, sealed_secret)
             SELECT tenant_id, org_id, 'finance/bank', sealed_secret FROM tenancy.module_credentials WHERE org_id = 'acme'",
        ),
        (
            "another tenant",
            "INSERT INTO tenancy.module_credentials (tenant_id, org_id, module_id, sealed_secret)
             SELECT 'other', org_id, module_id, sealed_secret FROM tenancy.module_credentials WHERE org_id = 'acme'",
        ),
        (
            "a changed box",
            "UPDATE tenancy.module_credentials SET sealed_secret = set_byte(sealed_secret, length(sealed_secret) - 1,
                 (get_byte(sealed_secret, length(sealed_secret) - 1) + 1) % 256) WHERE org_id = 'acme'",
        ),
        ("no box at all", "UPDATE tenancy.module_credentials SET sealed_secret = 'x' WHERE org_id = 'acme'"),
    ] {
        owner.batch_execute("BEGIN").unwrap();
        owner.batch_execute(statement).unwrap();
        // In the superuser's own transaction, so that it can be undone.
        let mut token = Token::for_member("user", "acme").claim("org_role", "operator");
        if label == "another tenant" {
            token = token.claim("tenant_id", "other");
        }
        owner.query_one("SELECT tenancy.authenticate($1)", &[&token.sign()]).unwrap();
        let module = if label == "another module" { "finance/bank" } else { WEATHER };
        let error = refused(retrieve(&mut owner, module), "55000", "corrupt");
        assert!(error.message().contains("another place"), "{label}: {error:?}");
        owner.batch_execute("ROLLBACK").unwrap();
    }
    assert_eq!(retrieve(&mut operator(&database, "acme"), WEATHER).unwrap(), Some(secret("acme")));
}

#[test]
fn the_master_key_rotates_and_a_key_that_is_gone_is_named() {
    let own = Cluster::start(Options::default());
    let database = own.database();
    stored(&database);
    let old = std::fs::read_to_string(own.master_key_file()).unwrap();
    let (new, other) = ("5a".repeat(31) + "01", "6b".repeat(31) + "02");

    // The file is read at each use: no reload is needed for its content.
    own.write_file("master.key", &format!("{other}\n"), 0o600);
    let mut acme = operator_without_issuer_secret(&database);
    refused(retrieve(&mut acme, WEATHER), "55000", "wrong_key");

    own.write_file("master.key", &format!("{new}\n{old}"), 0o600);
    let mut owner = database.superuser();
    // Two credentials and the issuer's secret.
    assert_eq!(owner.query_one("SELECT tenancy.rotate_master_key()", &[]).unwrap().get::<_, i64>(0), 3);
    assert_eq!(owner.query_one("SELECT tenancy.rotate_master_key()", &[]).unwrap().get::<_, i64>(0), 0);
    own.write_file("master.key", &format!("{new}\n"), 0o600);
    assert_eq!(retrieve(&mut operator(&database, "acme"), WEATHER).unwrap(), Some(secret("acme")));
    assert_eq!(retrieve(&mut operator(&database, "beta"), WEATHER).unwrap(), Some(secret("beta")));

    own.write_file("master.key", &old, 0o600);
    let mut acme = operator_without_issuer_secret(&database);
    refused(retrieve(&mut acme, WEATHER), "55000", "wrong_key");
    std::fs::remove_file(own.master_key_file()).unwrap();
    let call = "SELECT tenancy.store_credential('a/b', '{}')";
    refused(rows(&mut acme, call, &[]), "55000", "master_key_missing");
}

/// An operator of acme by act_as: the issuer's secret does not open either while the key is wrong.
fn operator_without_issuer_secret(database: &Database) -> postgres::Client {
    let mut owner = database.superuser();
    owner
        .batch_execute(
            "SELECT tenancy.register_user('acme-operator'); SELECT tenancy.register_organization('acme', 'Acme');
             SELECT tenancy.set_membership('acme-operator', 'acme', 'org:operator')",
        )
        .unwrap();
    let mut service = database.connect("svc");
    service.batch_execute("BEGIN; SELECT tenancy.act_as('acme-operator', 'acme', reason => 'a test')").unwrap();
    service
}

#[test]
fn a_dump_holds_no_secret_in_clear() {
    let database = cluster().database();
    stored(&database);
    let dump = database.cluster().client("pg_dump", &[&database.name]);
    assert!(dump.status.success(), "{}", String::from_utf8_lossy(&dump.stderr));
    let text = String::from_utf8_lossy(&dump.stdout);
    assert!(text.contains("COPY tenancy.module_credentials"), "the table is in the dump");
    let hex: String = "the secret of".bytes().map(|byte| format!("{byte:02x}")).collect();
    assert!(!text.contains("the secret of") && !text.contains(&hex));
}

#[test]
fn a_service_reaches_a_secret_by_acting_for_a_member() {
    let database = cluster().database();
    stored(&database);
    let mut service = operator_without_issuer_secret(&database);
    assert_eq!(retrieve(&mut service, WEATHER).unwrap(), Some(secret("acme")));
    drop(service);
    // A member whose role does not carry the permission lends none.
    let mut viewer = acting(&database, &Token::for_member("user", "acme").claim("org_role", "viewer"));
    refused(retrieve(&mut viewer, WEATHER), "PT403", "permission_denied");
}
