//! A hostile SQL role, which can run any statement as `app` and holds one good token of its own. The numbers are those
//! of the catalogue of attacks (docs/security-cases.md).

mod common;

use common::{Cluster, Database, Options, Token, cluster, fails_with, refused};
use postgres::Client;

/// A value as only the extension would write it.
const FORGED: &str = r#"{"source":"token","user_id":"mallory","tenant_id":"beta","pool":"personal"}"#;

fn authenticate(client: &mut impl postgres::GenericClient, token: &str) -> Result<String, postgres::Error> {
    client.query_one("SELECT tenancy.authenticate($1)", &[&token]).map(|row| row.get(0))
}

fn tenant(client: &mut impl postgres::GenericClient) -> Option<String> {
    client.query_one("SELECT tenancy.tenant_id()", &[]).expect("an accessor never fails").get(0)
}

fn acme() -> String {
    Token::for_member("alice", "acme").sign()
}

fn beta() -> String {
    Token::for_member("bob", "beta").sign()
}

/// A table of two tenants with five rows each.
fn with_rows(database: &Database, rows_each: i32) {
    let mut owner = database.superuser();
    owner
        .batch_execute(&format!(
            "CREATE TABLE public.essays (tenant_id text NOT NULL, id int NOT NULL, body text, PRIMARY KEY (tenant_id, id));
             INSERT INTO public.essays SELECT t, i, repeat('x', 40) FROM unnest(ARRAY['acme', 'beta']) AS t, generate_series(1, {rows_each}) AS i;
             ALTER TABLE public.essays ENABLE ROW LEVEL SECURITY;
             ALTER TABLE public.essays FORCE ROW LEVEL SECURITY;
             CREATE POLICY own_rows ON public.essays TO app USING (tenant_id = tenancy.tenant_id());
             GRANT SELECT ON public.essays TO app;
             ANALYZE public.essays;"
        ))
        .expect("a table can be made");
}

#[test]
fn identity_01_set_and_set_config_are_refused() {
    let database = cluster().database();
    let mut client = database.connect("app");
    for statement in [
        format!("SET tenancy.identity = '{FORGED}'"),
        format!("SET LOCAL tenancy.identity = '{FORGED}'"),
        format!("SET SESSION tenancy.identity TO '{FORGED}'"),
        "SET tenancy.identity = 'x'".to_owned(),
        format!("SELECT set_config('tenancy.identity', '{FORGED}', true)"),
        format!("SELECT set_config('tenancy.identity', '{FORGED}', false)"),
        format!("SELECT set_config('TENANCY.Identity', '{FORGED}', false)"),
        format!("UPDATE pg_catalog.pg_settings SET setting = '{FORGED}' WHERE name = 'tenancy.identity'"),
    ] {
        // The view hides the setting from this role: the UPDATE finds no row, which is refusal enough.
        if let Err(error) = client.batch_execute(&statement) {
            assert_eq!(error.code().unwrap().code(), "42501", "{statement}");
        } else {
            assert!(statement.starts_with("UPDATE"), "{statement}");
        }
        assert_eq!(tenant(&mut client), None, "{statement}");
    }
    let error =
        refused(client.execute(&format!("SET tenancy.identity = '{FORGED}'"), &[]), "42501", "identity_is_sealed");
    assert!(!error.message().contains("mallory"));
    // A setting of the same prefix that nobody defined cannot be made up either.
    fails_with(client.batch_execute("SET tenancy.tenant_id = 'beta'"), "42602");
}

#[test]
fn identity_01_a_superuser_s_set_is_refused_too() {
    let database = cluster().database();
    fails_with(database.superuser().batch_execute(&format!("SET tenancy.identity = '{FORGED}'")), "42501");
}

#[test]
fn identity_02_alter_role_is_refused() {
    let database = cluster().database();
    let mut client = database.connect("app");
    fails_with(client.batch_execute(&format!("ALTER ROLE app SET tenancy.identity = '{FORGED}'")), "42501");
    let mut owner = database.superuser();
    fails_with(
        owner.batch_execute(&format!("ALTER DATABASE {} SET tenancy.identity = '{FORGED}'", database.name)),
        "42501",
    );
    assert_eq!(tenant(&mut database.connect("app")), None);
}

#[test]
fn identity_03_a_function_s_set_clause_is_refused() {
    let database = cluster().database();
    database.superuser().batch_execute("GRANT CREATE ON SCHEMA public TO app").unwrap();
    let mut client = database.connect("app");
    let create = |clause: &str| {
        format!("CREATE FUNCTION public.leak() RETURNS text LANGUAGE sql AS 'SELECT tenancy.tenant_id()' {clause}")
    };
    fails_with(client.batch_execute(&create(&format!("SET tenancy.identity = '{FORGED}'"))), "42501");
    let mut transaction = client.transaction().unwrap();
    authenticate(&mut transaction, &acme()).unwrap();
    fails_with(transaction.batch_execute(&create("SET tenancy.identity FROM CURRENT")), "42501");
    drop(transaction);
    // A superuser may read the setting, and so write the clause down: it is refused where it is run.
    let mut owner = database.superuser();
    let mut transaction = owner.transaction().unwrap();
    authenticate(&mut transaction, &acme()).unwrap();
    let kept = transaction.batch_execute(&create("SET tenancy.identity FROM CURRENT"));
    if kept.is_ok() {
        transaction.commit().unwrap();
        fails_with(owner.query_one("SELECT public.leak()", &[]), "42501");
    } else {
        fails_with(kept, "42501");
    }
}

#[test]
fn identity_04_connection_options_are_dropped() {
    let database = cluster().database();
    let mut config = database.config("app");
    config.options(
        "-c tenancy.identity={\"source\":\"token\",\"user_id\":\"m\",\"tenant_id\":\"beta\",\"pool\":\"personal\"}",
    );
    match config.connect(postgres::NoTls) {
        Ok(mut client) => assert_eq!(tenant(&mut client), None),
        Err(error) => assert_eq!(error.code().map(|code| code.code()), Some("42501"), "{error:?}"),
    }
}

#[test]
fn identity_05_a_placeholder_from_before_the_library_is_dropped() {
    let cluster = Cluster::start(Options { preload: false, ..Options::default() });
    let database = cluster.database();
    let mut client = database.connect("app");
    client.batch_execute(&format!("SET tenancy.identity = '{FORGED}'")).expect("nobody knows the setting yet");
    assert_eq!(tenant(&mut client), None, "the library has been loaded by this call");
    assert_eq!(tenant(&mut client), None);
    // In the options of the connection as well, and inside a transaction.
    let mut config = database.config("app");
    config.options(
        "-c tenancy.identity={\"source\":\"token\",\"user_id\":\"m\",\"tenant_id\":\"beta\",\"pool\":\"personal\"}",
    );
    let mut client = config.connect(postgres::NoTls).unwrap();
    assert_eq!(tenant(&mut client), None);
    let mut client = database.connect("app");
    let mut transaction = client.transaction().unwrap();
    transaction.batch_execute(&format!("SET LOCAL tenancy.identity = '{FORGED}'")).unwrap();
    assert_eq!(tenant(&mut transaction), None);
    assert_eq!(authenticate(&mut transaction, &acme()).unwrap(), "alice");
    assert_eq!(tenant(&mut transaction).as_deref(), Some("acme"));
}

#[test]
fn identity_06_the_value_cannot_be_read_nor_replayed() {
    let database = cluster().database();
    let mut client = database.connect("app");
    let mut transaction = client.transaction().unwrap();
    authenticate(&mut transaction, &acme()).unwrap();
    let shown =
        transaction.query("SELECT setting FROM pg_catalog.pg_settings WHERE name = 'tenancy.identity'", &[]).unwrap();
    assert!(shown.is_empty());
    fails_with(transaction.query_one("SHOW tenancy.identity", &[]), "42501");
    drop(transaction);
    // A superuser can read it, and still not use it.
    let mut owner = database.superuser();
    let mut transaction = owner.transaction().unwrap();
    authenticate(&mut transaction, &acme()).unwrap();
    let value: String = transaction.query_one("SELECT current_setting('tenancy.identity')", &[]).unwrap().get(0);
    assert!(value.contains("alice"));
    transaction.commit().unwrap();
    fails_with(owner.query_one("SELECT set_config('tenancy.identity', $1, false)", &[&value]), "42501");
}

#[test]
fn identity_07_nothing_survives_the_transaction() {
    let database = cluster().database();
    let mut client = database.connect("app");
    for end in ["COMMIT", "ROLLBACK", "COMMIT AND CHAIN", "ROLLBACK AND CHAIN"] {
        client.batch_execute("BEGIN").unwrap();
        authenticate(&mut client, &acme()).unwrap();
        assert_eq!(tenant(&mut client).as_deref(), Some("acme"));
        client.batch_execute(end).unwrap();
        assert_eq!(tenant(&mut client), None, "after {end}");
        authenticate(&mut client, &beta()).expect("the next transaction is another's");
        client.batch_execute("ROLLBACK").unwrap();
        client.batch_execute("DISCARD ALL").unwrap();
        assert_eq!(tenant(&mut client), None);
    }
    // An error ends it as well.
    client.batch_execute("BEGIN").unwrap();
    authenticate(&mut client, &acme()).unwrap();
    fails_with(client.batch_execute("SELECT 1/0"), "22012");
    client.batch_execute("ROLLBACK").unwrap();
    assert_eq!(tenant(&mut client), None);
}

#[test]
fn identity_08_savepoints_restore_exactly() {
    let database = cluster().database();
    let mut client = database.connect("app");
    client.batch_execute("BEGIN; SAVEPOINT a").unwrap();
    authenticate(&mut client, &acme()).unwrap();
    client.batch_execute("ROLLBACK TO a").unwrap();
    assert_eq!(tenant(&mut client), None, "it was sealed in what was rolled back");
    authenticate(&mut client, &beta()).expect("the identity that was rolled back never was");
    client.batch_execute("RELEASE a; SAVEPOINT b; SELECT tenancy.clear_identity()").unwrap();
    assert_eq!(tenant(&mut client), None);
    client.batch_execute("ROLLBACK TO b").unwrap();
    assert_eq!(tenant(&mut client).as_deref(), Some("beta"), "clearing was rolled back");
    refused(authenticate(&mut client, &acme()), "PT403", "identity_already_set");
    client.batch_execute("ROLLBACK TO b").unwrap();
    // Released into its parent, the first identity binds the whole transaction.
    client.batch_execute("SAVEPOINT c; SAVEPOINT d; RELEASE d; RELEASE c; SELECT tenancy.clear_identity()").unwrap();
    refused(authenticate(&mut client, &acme()), "PT403", "identity_already_set");
    client.batch_execute("ROLLBACK").unwrap();
}

#[test]
fn identity_09_a_second_login_under_an_open_cursor_is_refused() {
    let database = cluster().database();
    with_rows(&database, 5);
    let mut client = database.connect("app");
    client.batch_execute("BEGIN").unwrap();
    let token = acme();
    authenticate(&mut client, &token).unwrap();
    client.batch_execute("DECLARE c CURSOR FOR SELECT tenant_id FROM public.essays; SAVEPOINT s").unwrap();
    assert_eq!(client.query_one("FETCH c", &[]).unwrap().get::<_, &str>(0), "acme");
    client.batch_execute("SAVEPOINT s").unwrap();
    refused(authenticate(&mut client, &beta()), "PT403", "identity_already_set");
    client.batch_execute("ROLLBACK TO s").unwrap();
    let rest = client.query("FETCH ALL c", &[]).unwrap();
    assert!(rest.iter().all(|row| row.get::<_, &str>(0) == "acme"));
    // The same token again is no other identity.
    assert_eq!(authenticate(&mut client, &token).unwrap(), "alice");
    client.batch_execute("COMMIT").unwrap();
}

#[test]
fn identity_10_a_held_cursor_is_closed_at_the_next_login() {
    let database = cluster().database();
    with_rows(&database, 5);
    let (mut client, notices) = database.connect_with_notices("app");
    client.batch_execute("BEGIN").unwrap();
    authenticate(&mut client, &acme()).unwrap();
    client.batch_execute("DECLARE held CURSOR WITH HOLD FOR SELECT tenant_id FROM public.essays; COMMIT").unwrap();
    // Its own identity finds it open …
    client.batch_execute("BEGIN").unwrap();
    authenticate(&mut client, &acme()).unwrap();
    assert_eq!(client.query_one("FETCH held", &[]).unwrap().get::<_, &str>(0), "acme");
    client.batch_execute("COMMIT; BEGIN").unwrap();
    // … another's closes it, and the connection stays of use.
    authenticate(&mut client, &beta()).unwrap();
    fails_with(client.query("FETCH held", &[]), "34000");
    client.batch_execute("ROLLBACK").unwrap();
    assert!(notices.lock().unwrap().iter().any(|notice| notice.message().contains("held")));
    // The name is free for the new identity's own cursor.
    client.batch_execute("BEGIN").unwrap();
    authenticate(&mut client, &beta()).unwrap();
    client
        .batch_execute("DECLARE held CURSOR WITH HOLD FOR SELECT tenant_id FROM public.essays; COMMIT; BEGIN")
        .unwrap();
    authenticate(&mut client, &beta()).unwrap();
    assert_eq!(client.query_one("FETCH held", &[]).unwrap().get::<_, &str>(0), "beta");
}

#[test]
fn emptying_the_setting_in_mid_transaction_lets_no_second_identity_in() {
    let database = cluster().database();
    database
        .superuser()
        .batch_execute(
            "CREATE FUNCTION public.emptied() RETURNS text LANGUAGE sql SET tenancy.identity = '' AS 'SELECT tenancy.tenant_id()';
             CREATE FUNCTION public.other(token text) RETURNS text LANGUAGE sql SET tenancy.identity = '' AS 'SELECT tenancy.authenticate(token)';
             GRANT EXECUTE ON FUNCTION public.emptied(), public.other(text) TO app;",
        )
        .unwrap();
    let mut client = database.connect("app");
    for emptying in [
        "RESET ALL",
        "RESET tenancy.identity",
        "SET tenancy.identity = ''",
        "SET LOCAL tenancy.identity TO DEFAULT",
        "SELECT tenancy.clear_identity()",
    ] {
        client.batch_execute("BEGIN").unwrap();
        let token = acme();
        authenticate(&mut client, &token).unwrap();
        client.batch_execute(emptying).unwrap();
        assert_eq!(tenant(&mut client), None, "{emptying}");
        client.batch_execute("SAVEPOINT s").unwrap();
        refused(authenticate(&mut client, &beta()), "PT403", "identity_already_set");
        client.batch_execute("ROLLBACK TO s").unwrap();
        assert_eq!(authenticate(&mut client, &token).unwrap(), "alice", "the same identity may come back");
        assert_eq!(tenant(&mut client).as_deref(), Some("acme"));
        client.batch_execute("ROLLBACK").unwrap();
    }
    client.batch_execute("BEGIN").unwrap();
    authenticate(&mut client, &acme()).unwrap();
    assert_eq!(client.query_one("SELECT public.emptied()", &[]).unwrap().get::<_, Option<String>>(0), None);
    assert_eq!(tenant(&mut client).as_deref(), Some("acme"), "a function's SET clause ends with the function");
    refused(client.query_one("SELECT public.other($1)", &[&beta()]), "PT403", "identity_already_set");
}

#[test]
fn identity_14_set_role_does_not_change_the_identity() {
    let database = cluster().database();
    let mut client = database.superuser();
    client.batch_execute("BEGIN").unwrap();
    authenticate(&mut client, &acme()).unwrap();
    for hop in ["SET LOCAL ROLE app", "SET LOCAL ROLE svc", "RESET ROLE", "SET LOCAL SESSION AUTHORIZATION app"] {
        client.batch_execute(hop).unwrap();
        assert_eq!(tenant(&mut client).as_deref(), Some("acme"), "{hop}");
    }
}

#[test]
fn parallel_workers_see_the_leader_s_identity() {
    let database = cluster().database();
    with_rows(&database, 100_000);
    let mut client = database.connect("app");
    client
        .batch_execute(
            "BEGIN; SET LOCAL max_parallel_workers_per_gather = 4; SET LOCAL parallel_setup_cost = 0;
             SET LOCAL parallel_tuple_cost = 0; SET LOCAL min_parallel_table_scan_size = 0;
             SET LOCAL enable_indexscan = off; SET LOCAL enable_bitmapscan = off; SET LOCAL enable_indexonlyscan = off",
        )
        .unwrap();
    let count = "SELECT count(*), count(DISTINCT tenant_id), min(tenant_id) FROM public.essays WHERE length(body) > 0";
    let row = client.query_one(count, &[]).unwrap();
    assert_eq!(row.get::<_, i64>(0), 0, "no identity, no rows");
    authenticate(&mut client, &acme()).unwrap();
    let plan: Vec<String> = client
        .query(&format!("EXPLAIN (ANALYZE, COSTS OFF) {count}"), &[])
        .unwrap()
        .iter()
        .map(|row| row.get(0))
        .collect();
    let plan = plan.join("\n");
    assert!(plan.contains("Gather") && plan.contains("Workers Launched"), "{plan}");
    assert!(!plan.contains("Workers Launched: 0"), "no worker ran: {plan}");
    let row = client.query_one(count, &[]).unwrap();
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (100_000, 1));
    assert_eq!(row.get::<_, &str>(2), "acme");
}

#[test]
fn a_prepared_statement_gives_each_identity_its_own_rows() {
    let database = cluster().database();
    with_rows(&database, 5);
    let mut client = database.connect("app");
    client.batch_execute("PREPARE own AS SELECT tenant_id, count(*) FROM public.essays GROUP BY 1").unwrap();
    let statement = client.prepare("SELECT DISTINCT tenant_id FROM public.essays").unwrap();
    for mode in ["auto", "force_generic_plan"] {
        client.batch_execute(&format!("SET plan_cache_mode = {mode}")).unwrap();
        // More often than the five times after which a plan is kept.
        for round in 0..14 {
            let (token, own) = if round % 2 == 0 { (acme(), "acme") } else { (beta(), "beta") };
            client.batch_execute("BEGIN").unwrap();
            authenticate(&mut client, &token).unwrap();
            for rows in [client.query("EXECUTE own", &[]).unwrap(), client.query(&statement, &[]).unwrap()] {
                assert_eq!(rows.len(), 1);
                assert_eq!(rows[0].get::<_, &str>(0), own, "round {round}, {mode}");
            }
            client.batch_execute("COMMIT").unwrap();
        }
        assert!(client.query("EXECUTE own", &[]).unwrap().is_empty(), "no identity, no rows");
    }
}

#[test]
fn a_claim_a_client_can_write_is_no_identity() {
    let database = cluster().database();
    let mut client = database.connect("app");
    let claims = r#"{"sub": "mallory", "tenant_id": "beta", "role": "service_role"}"#;
    for setting in ["request.jwt.claims", "request.jwt.claim.sub", "app.tenant_id"] {
        client.execute("SELECT set_config($1, $2, false)", &[&setting, &claims]).unwrap();
    }
    assert_eq!(tenant(&mut client), None);
    refused(client.query_one("SELECT tenancy.require_tenant()", &[]), "PT401", "not_authenticated");
}

#[test]
fn outside_a_transaction_it_warns_and_is_gone() {
    let database = cluster().database();
    let (mut client, notices): (Client, _) = database.connect_with_notices("app");
    assert_eq!(authenticate(&mut client, &acme()).unwrap(), "alice");
    assert_eq!(tenant(&mut client), None);
    let notices = notices.lock().unwrap();
    assert!(
        notices
            .iter()
            .any(|notice| notice.severity() == "WARNING" && notice.hint().unwrap_or_default().contains("begin")
                || notice.message().contains("transaction"))
    );
}
