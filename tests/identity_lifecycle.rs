//! Keys that come and go, tokens that are revoked, requests, workers: each effective in every session at once.

mod common;

use common::{AUDIENCE, Cluster, Database, ISSUER, KEY_ID, Options, SECRET, Token, cluster, fails_with, refused};
use postgres::{Client, GenericClient};
use serde_json::{Value, json};

fn authenticate(client: &mut Client, token: &str) -> Result<String, postgres::Error> {
    let mut transaction = client.transaction()?;
    Ok(transaction.query_one("SELECT tenancy.authenticate($1)", &[&token])?.get(0))
}

fn add_secret(ops: &mut Client, kid: &str, secret: &[u8]) {
    ops.execute("SELECT tenancy.add_secret($1, $2, 'HS256', $3)", &[&ISSUER, &kid, &secret]).unwrap();
}

#[test]
fn a_rotation_rejects_no_token_and_a_retired_key_ends_at_once_in_every_session() {
    let database = cluster().database();
    let (mut ops, mut one, mut two) = (database.connect("ops"), database.connect("app"), database.connect("app"));
    let next: &[u8] = b"the next secret of the tests, long enough.";
    let old = Token::for_user("alice").sign();
    let new = Token::for_user("alice").header("kid", "key-2").sign_with(next);
    for client in [&mut one, &mut two] {
        authenticate(client, &old).unwrap();
        refused(authenticate(client, &new), "PT401", "unknown_key");
    }
    add_secret(&mut ops, "key-2", next);
    for client in [&mut one, &mut two] {
        authenticate(client, &old).expect("the old key is still good");
        authenticate(client, &new).expect("the new key is good already");
    }
    let retired: bool = ops.query_one("SELECT tenancy.retire_key($1, $2)", &[&ISSUER, &KEY_ID]).unwrap().get(0);
    assert!(retired);
    for client in [&mut one, &mut two] {
        refused(authenticate(client, &old), "PT401", "unknown_key");
        authenticate(client, &new).unwrap();
    }
    let again: bool = ops.query_one("SELECT tenancy.retire_key($1, $2)", &[&ISSUER, &KEY_ID]).unwrap().get(0);
    assert!(!again);
    refused(
        ops.execute("SELECT tenancy.add_secret($1, $2, 'HS256', $3)", &[&ISSUER, &KEY_ID, &SECRET]),
        "PT409",
        "duplicate_kid",
    );
}

#[test]
fn a_key_that_was_rolled_back_is_not_believed() {
    let database = cluster().database();
    let mut ops = database.superuser();
    let next: &[u8] = b"the next secret of the tests, long enough.";
    let token = Token::for_user("alice").header("kid", "key-2").sign_with(next);
    let verdict = |client: &mut dyn GenericClientDyn| client.valid(&token);
    let mut transaction = ops.transaction().unwrap();
    transaction.execute("SELECT tenancy.add_secret($1, 'key-2', 'HS256', $2)", &[&ISSUER, &next]).unwrap();
    assert!(verdict(&mut transaction), "within its transaction the key is there");
    transaction.rollback().unwrap();
    assert!(!verdict(&mut ops), "the rollback reaches the session's own cache");
    // A savepoint's as well.
    ops.batch_execute("BEGIN; SAVEPOINT s").unwrap();
    ops.execute("SELECT tenancy.add_secret($1, 'key-2', 'HS256', $2)", &[&ISSUER, &next]).unwrap();
    assert!(verdict(&mut ops));
    ops.batch_execute("ROLLBACK TO s").unwrap();
    assert!(!verdict(&mut ops));
    ops.batch_execute("COMMIT").unwrap();
    assert!(!verdict(&mut ops));
}

trait GenericClientDyn {
    fn valid(&mut self, token: &str) -> bool;
}

impl<C: GenericClient> GenericClientDyn for C {
    fn valid(&mut self, token: &str) -> bool {
        self.query_one("SELECT valid FROM tenancy.verify_token($1)", &[&token]).unwrap().get(0)
    }
}

#[test]
fn an_old_snapshot_does_not_bring_a_retired_key_back() {
    let database = cluster().database();
    let (mut ops, mut app) = (database.connect("ops"), database.connect("app"));
    let token = Token::for_user("alice").sign();
    app.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1").unwrap();
    ops.execute("SELECT tenancy.retire_key($1, $2)", &[&ISSUER, &KEY_ID]).unwrap();
    assert!(!app.valid(&token), "caches are filled from now, not from the transaction's snapshot");
    app.batch_execute("COMMIT").unwrap();
    assert!(!app.valid(&token));
}

#[test]
fn identity_36_revocation_reaches_every_session_at_its_next_transaction() {
    let database = cluster().database();
    let (mut ops, mut app) = (database.connect("ops"), database.connect("app"));
    let by_jti = Token::for_user("alice").claim("jti", "token-1").sign();
    let by_session = Token::for_user("alice").claim("sid", "session-1").sign();
    let plain = Token::for_user("alice").sign();
    for token in [&by_jti, &by_session, &plain] {
        authenticate(&mut app, token).unwrap();
    }
    ops.execute("SELECT tenancy.revoke_token($1, 'token-1', now() + interval '1 hour')", &[&ISSUER]).unwrap();
    refused(authenticate(&mut app, &by_jti), "PT401", "revoked");
    authenticate(&mut app, &by_session).unwrap();
    ops.execute("SELECT tenancy.revoke_session($1, 'session-1')", &[&ISSUER]).unwrap();
    refused(authenticate(&mut app, &by_session), "PT401", "revoked");
    authenticate(&mut app, &plain).unwrap();
    ops.execute("SELECT tenancy.revoke_user('alice')", &[]).unwrap();
    refused(authenticate(&mut app, &plain), "PT401", "revoked");
    refused(authenticate(&mut app, &Token::for_user("alice").without("iat").sign()), "PT401", "revoked");
    // A token issued after that is a new login (the clock's next second).
    std::thread::sleep(std::time::Duration::from_millis(2100));
    authenticate(&mut app, &Token::for_user("alice").sign()).unwrap();
    authenticate(&mut app, &Token::for_user("bob").sign()).unwrap();
}

#[test]
fn revoking_a_user_reaches_tokens_issued_since_the_transaction_began() {
    let database = cluster().database();
    let (mut ops, mut app) = (database.connect("ops"), database.connect("app"));
    ops.batch_execute("BEGIN; SELECT 1").unwrap();
    std::thread::sleep(std::time::Duration::from_millis(1100));
    let token = Token::for_user("alice").sign();
    authenticate(&mut app, &token).unwrap();
    ops.batch_execute("SELECT tenancy.revoke_user('alice'); COMMIT").unwrap();
    refused(authenticate(&mut app, &token), "PT401", "revoked");
}

#[test]
fn a_correlation_id_that_is_no_uuid_is_replaced_in_a_token_as_in_a_header() {
    let database = cluster().database();
    let mut app = database.connect("app");
    let id = "7f0c2d1e-5b7a-4c1d-9f0e-2a6b8c4d1e3f";
    for (claimed, kept) in [(id.to_uppercase(), true), ("å b".to_owned(), false), ("7".to_owned(), false)] {
        let mut transaction = app.transaction().unwrap();
        let token = Token::for_user("alice").claim("correlation_id", claimed).sign();
        transaction.query_one("SELECT tenancy.authenticate($1)", &[&token]).unwrap();
        let seen: String = transaction.query_one("SELECT tenancy.correlation_id()", &[]).unwrap().get(0);
        assert_eq!((seen == id, seen.len()), (kept, 36));
    }
}

#[test]
fn identity_30_two_issuers_in_their_own_namespaces_share_no_subject() {
    let database = cluster().database();
    let (mut ops, mut app) = (database.connect("ops"), database.connect("app"));
    ops.batch_execute(&format!("SELECT tenancy.add_issuer('other', ARRAY['{AUDIENCE}'], namespace => 'partner')"))
        .unwrap();
    ops.execute("SELECT tenancy.add_secret('other', 'o1', 'HS256', $1)", &[&SECRET]).unwrap();
    let token = Token::for_member("alice", "acme").claim("iss", "other").header("kid", "o1").sign();
    let mut transaction = app.transaction().unwrap();
    transaction.execute("SELECT tenancy.authenticate($1)", &[&token]).unwrap();
    let row = transaction
        .query_one("SELECT tenancy.user_id(), tenancy.identity_namespace(), tenancy.tenant_id()", &[])
        .unwrap();
    assert_eq!(
        (row.get::<_, &str>(0), row.get::<_, &str>(1), row.get::<_, &str>(2)),
        ("alice", "partner", "partner::acme")
    );
    drop(transaction);
    // Another issuer's key is no key of this issuer.
    let crossed = Token::for_user("alice").header("kid", "o1").sign();
    refused(authenticate(&mut app, &crossed), "PT401", "unknown_key");
}

#[test]
fn a_request_carries_the_token_and_a_correlation_id() {
    let database = cluster().database();
    let mut app = database.connect("app");
    let token = Token::for_member("alice", "acme").sign();
    let mut request = |headers: Value| -> Result<(Option<String>, Option<Value>), postgres::Error> {
        let mut transaction = app.build_transaction().read_only(true).start()?;
        transaction.execute("SELECT set_config('request.headers', $1, true)", &[&headers.to_string()])?;
        let user = transaction.query_one("SELECT tenancy.authenticate_request()", &[])?.get(0);
        Ok((user, transaction.query_one("SELECT tenancy.identity_headers()", &[])?.get(0)))
    };
    assert_eq!(request(json!({})).unwrap(), (None, None));
    let id = "7f0c2d1e-5b7a-4c1d-9f0e-2a6b8c4d1e3f";
    let (user, headers) = request(json!({"authorization": format!("bEARER {token}"), "x-correlation-id": id})).unwrap();
    assert_eq!(user.as_deref(), Some("alice"));
    assert_eq!(
        headers.unwrap(),
        json!({"X-User-ID": "alice", "X-Org-ID": "acme", "X-Tenant-ID": "acme", "X-Correlation-ID": id})
    );
    let (_, headers) =
        request(json!({"authorization": format!("Bearer {token}"), "x-correlation-id": "; DROP"})).unwrap();
    let replaced = headers.unwrap()["X-Correlation-ID"].as_str().unwrap().to_owned();
    assert!(replaced.len() == 36 && replaced != id);
    refused(request(json!({"authorization": "Bearer x"})), "PT401", "malformed_token");
    refused(request(json!({"authorization": "Bearer"})), "PT401", "missing_token");
    assert_eq!(request(json!({"authorization": "Basic YQ=="})).unwrap().0, None);
    assert_eq!(request(json!({"Authorization": format!("BEARER \t {token} ")})).unwrap().0.as_deref(), Some("alice"));
    for nobody in [json!([]), json!("x"), json!({"authorization": ""}), json!({"authorization": [token]})] {
        assert_eq!(request(nobody).unwrap(), (None, None));
    }
    let joined = format!("Bearer {token}, Bearer {token}");
    refused(request(json!({ "authorization": joined })), "PT401", "malformed_token");
    let twice = json!({"authorization": format!("Bearer {token}"), "AUTHORIZATION": format!("Bearer {token}")});
    refused(request(twice), "PT401", "several_tokens");
    database
        .superuser()
        .batch_execute(&format!("ALTER DATABASE {} SET tenancy.request_token_header = 'X-Token'", database.name))
        .unwrap();
    let mut app = database.connect("app");
    app.batch_execute("BEGIN").unwrap();
    app.execute("SELECT set_config('request.headers', $1, true)", &[&json!({"x-token": token}).to_string()]).unwrap();
    let user: Option<String> = app.query_one("SELECT tenancy.authenticate_request()", &[]).unwrap().get(0);
    assert_eq!(user.as_deref(), Some("alice"));
}

#[test]
fn act_as_is_the_service_s_and_leaves_a_record() {
    let database = cluster().database();
    fails_with(database.connect("app").execute("SELECT tenancy.act_as('alice')", &[]), "42501");
    fails_with(database.connect("ops").execute("SELECT tenancy.act_as('alice')", &[]), "42501");
    let mut svc = database.connect("svc");
    let mut transaction = svc.transaction().unwrap();
    transaction.execute("SELECT tenancy.act_as('nobody-registered', 'acme', reason => 'nightly job')", &[]).unwrap();
    let row = transaction.query_one("SELECT (tenancy.identity()).*", &[]).unwrap();
    assert_eq!(row.get::<_, &str>("user_id"), "nobody-registered");
    assert_eq!(row.get::<_, &str>("tenant_id"), "acme");
    assert_eq!(row.get::<_, &str>("source"), "act_as");
    refused(transaction.execute("SELECT tenancy.act_as('somebody-else')", &[]), "PT403", "identity_already_set");
    drop(transaction);
    svc.batch_execute("BEGIN; SELECT tenancy.act_as('alice', reason => 'support case 7'); COMMIT").unwrap();
    let record = database
        .superuser()
        .query_one(
            "SELECT action, actor, user_id, reason, backend_pid > 0, created_at IS NOT NULL FROM tenancy.audit_log",
            &[],
        )
        .expect("one row: what was rolled back left none");
    assert_eq!(record.get::<_, &str>(0), "act_as");
    assert_eq!((record.get::<_, &str>(1), record.get::<_, &str>(2)), ("svc", "alice"));
    assert_eq!(record.get::<_, &str>(3), "support case 7");
    for arguments in ["''", "NULL", "'a', ''", "'a', namespace => NULL", "'a', namespace => 'user'", "'a', 'b', 'c '"] {
        refused(svc.batch_execute(&format!("SELECT tenancy.act_as({arguments})")), "22023", "invalid_argument");
    }
    let mut read_only = svc.build_transaction().read_only(true).start().unwrap();
    fails_with(read_only.execute("SELECT tenancy.act_as('alice')", &[]), "25006");
}

#[test]
fn the_server_s_log_tells_of_refusals_and_never_of_tokens() {
    let own = Cluster::start(Options::default());
    let database = own.database();
    let mut app = database.connect("app");
    let token = Token::for_user("alice").header("kid", "unknown\nkid").sign();
    for _ in 0..200 {
        let _ = authenticate(&mut app, &Token::for_user("alice").header("kid", "nobody's").sign());
    }
    let _ = authenticate(&mut app, &token);
    let log = own.log();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("authentication refused")).collect();
    assert!((1..60).contains(&lines.len()), "{} lines for 200 refusals", lines.len());
    assert!(
        lines[0].contains("\"reason\":\"unknown_key\"") && lines[0].contains(ISSUER) && lines[0].contains("nobody's")
    );
    let signature = token.rsplit('.').next().unwrap();
    assert!(!log.contains(signature));
}

#[test]
fn rotating_the_master_key_keeps_every_secret() {
    let own = Cluster::start(Options::default());
    let database = own.database();
    let (mut ops, mut app) = (database.connect("ops"), database.connect("app"));
    let sealed = |database: &Database| -> Vec<u8> {
        database.superuser().query_one("SELECT sealed_secret FROM tenancy.issuer_keys", &[]).unwrap().get(0)
    };
    let before = sealed(&database);
    let old = std::fs::read_to_string(own.master_key_file()).unwrap();
    let new: String = (0..32u8).map(|byte| format!("{byte:02x}")).collect();
    own.write_file("master.key", &format!("{new}\n{old}"), 0o600);
    let resealed: i64 = ops.query_one("SELECT tenancy.rotate_master_key()", &[]).unwrap().get(0);
    assert_eq!(resealed, 1);
    assert_ne!(sealed(&database), before);
    let again: i64 = ops.query_one("SELECT tenancy.rotate_master_key()", &[]).unwrap().get(0);
    assert_eq!(again, 0);
    own.write_file("master.key", &new, 0o600);
    let mut fresh = database.connect("app");
    authenticate(&mut fresh, &Token::for_user("alice").sign()).expect("the new key alone opens it");
    // With the old key alone a fresh session cannot; the error says which setting.
    own.write_file("master.key", &old, 0o600);
    refused(authenticate(&mut database.connect("app"), &Token::for_user("alice").sign()), "55000", "wrong_key");
    authenticate(&mut app, &Token::for_user("alice").sign()).ok();
}

#[test]
fn it_works_in_read_only_transactions_and_assigns_no_transaction_id() {
    let database = cluster().database();
    let mut app = database.connect("app");
    let mut transaction = app.build_transaction().read_only(true).start().unwrap();
    transaction.execute("SELECT tenancy.authenticate($1)", &[&Token::for_user("alice").sign()]).unwrap();
    transaction.query("SELECT * FROM tenancy.verify_token($1)", &[&Token::for_user("bob").sign()]).unwrap();
    let assigned: Option<String> =
        transaction.query_one("SELECT pg_catalog.pg_current_xact_id_if_assigned()::text", &[]).unwrap().get(0);
    assert_eq!(assigned, None);
}

/// Known and documented (docs/security-cases.md): what a procedure has fetched, it has.
#[test]
fn identity_10_a_loop_that_commits_keeps_the_rows_it_has_fetched_and_no_others() {
    let database = cluster().database();
    database
        .superuser()
        .batch_execute(
            "CREATE TABLE public.essays (tenant_id text NOT NULL, id int, PRIMARY KEY (tenant_id, id));
             INSERT INTO public.essays SELECT t, i FROM unnest(ARRAY['acme', 'beta']) AS t, generate_series(1, 300) AS i;
             SELECT tenancy.protect_table('public.essays');
             GRANT SELECT ON public.essays TO app; GRANT CREATE ON SCHEMA public TO app",
        )
        .unwrap();
    let mut app = database.connect("app");
    app.batch_execute(
        "CREATE PROCEDURE public.walk(one text, other text, INOUT seen text DEFAULT NULL) LANGUAGE plpgsql AS $$
         DECLARE
             essay record;
             fetched int := 0;
             of_others int := 0;
         BEGIN
             PERFORM tenancy.authenticate(one);
             FOR essay IN SELECT tenant_id FROM public.essays LOOP
                 fetched := fetched + 1;
                 IF fetched = 1 THEN
                     COMMIT;
                     PERFORM tenancy.authenticate(other);
                 END IF;
                 of_others := of_others + (essay.tenant_id <> tenancy.tenant_id())::int;
             END LOOP;
             seen := format('%s fetched, %s of them not of %s, which sees %s', fetched, of_others, tenancy.tenant_id(),
                            (SELECT string_agg(DISTINCT tenant_id, ' ') FROM public.essays));
         END $$",
    )
    .unwrap();
    let (one, other) = (Token::for_member("alice", "acme").sign(), Token::for_member("bob", "beta").sign());
    let walk = format!("CALL public.walk('{one}', '{other}')");
    let seen = app.simple_query(&walk).unwrap().into_iter().find_map(|message| match message {
        postgres::SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        _ => None,
    });
    // PostgreSQL stores the rest of a loop's rows when it commits; every new query is the new identity's.
    assert_eq!(seen.as_deref(), Some("300 fetched, 300 of them not of beta, which sees beta"));
}
