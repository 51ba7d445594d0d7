//! More of a hostile SQL role: what it can create, what it can read, and what is written down about it. The numbers are
//! those of the catalogue of attacks (docs/security-cases.md).

mod common;

use common::{AUDIENCE, Cluster, ISSUER, KEY_ID, Options, SECRET, Token, cluster, fails_with, refused};
use postgres::{Client, GenericClient};
use std::process::Command;

fn authenticate(client: &mut impl GenericClient, token: &str) -> Result<String, postgres::Error> {
    client.query_one("SELECT tenancy.authenticate($1)", &[&token]).map(|row| row.get(0))
}

fn reason(client: &mut Client, token: &str) -> Option<String> {
    client.query_one("SELECT reason FROM tenancy.verify_token($1)", &[&token]).expect("it raises nothing").get(0)
}

fn acme() -> String {
    Token::for_member("alice", "acme").sign()
}

const ESSAYS: &str = "CREATE TABLE public.essays (tenant_id text NOT NULL, id int, body text, PRIMARY KEY (tenant_id, id));
     INSERT INTO public.essays SELECT t, i, 'of ' || t FROM unnest(ARRAY['acme', 'beta']) AS t, generate_series(1, 5) AS i;
     SELECT tenancy.protect_table('public.essays');
     GRANT SELECT ON public.essays TO app;
     GRANT CREATE ON SCHEMA public TO app;";

#[test]
fn identity_12_a_leaky_function_sees_rows_of_its_own_tenant_only() {
    let database = cluster().database();
    database.superuser().batch_execute(ESSAYS).unwrap();
    let (mut client, notices) = database.connect_with_notices("app");
    client
        .batch_execute(
            "CREATE FUNCTION public.leak(body text) RETURNS boolean LANGUAGE plpgsql COST 0.0001 AS \
             $$ BEGIN RAISE NOTICE 'leaked %', body; RETURN true; END $$;
             ANALYZE public.essays; BEGIN",
        )
        .unwrap();
    authenticate(&mut client, &acme()).unwrap();
    for query in [
        "SELECT * FROM public.essays WHERE public.leak(body)",
        "SELECT * FROM public.essays WHERE public.leak(body) AND tenant_id = 'beta'",
        "SELECT * FROM public.essays AS e JOIN public.essays AS o ON public.leak(o.body) AND o.id = e.id",
        // An error would tell as much as a notice.
        "SELECT * FROM public.essays WHERE 1 / (tenant_id <> 'beta')::integer = 1",
    ] {
        client.query(query, &[]).expect("no row of another tenant reaches the condition");
    }
    client.batch_execute("COMMIT").unwrap();
    let notices = notices.lock().unwrap();
    let leaked: Vec<&str> = notices.iter().map(|notice| notice.message()).filter(|m| m.contains("leaked")).collect();
    assert!(!leaked.is_empty() && leaked.iter().all(|message| message.contains("acme")), "{leaked:?}");
}

#[test]
fn identity_13_what_stands_in_the_search_path_does_not_matter() {
    let database = cluster().database();
    database.superuser().batch_execute(ESSAYS).unwrap();
    let mut client = database.connect("app");
    let good = acme();
    let forged = Token::for_member("mallory", "beta").claim("iss", "https://elsewhere.test").sign();
    client
        .batch_execute(
            "CREATE TEMP TABLE issuers (issuer text); CREATE TEMP TABLE issuer_keys (issuer text); CREATE TEMP TABLE essays (tenant_id text);
             CREATE FUNCTION public.same(text, text) RETURNS boolean LANGUAGE sql AS 'SELECT true';
             CREATE OPERATOR public.= (LEFTARG = text, RIGHTARG = text, FUNCTION = public.same);
             CREATE FUNCTION public.now() RETURNS timestamptz LANGUAGE plpgsql AS $$ BEGIN RAISE 'shadowed'; END $$;
             CREATE FUNCTION public.statement_timestamp() RETURNS timestamptz LANGUAGE plpgsql AS $$ BEGIN RAISE 'shadowed'; END $$;
             CREATE FUNCTION public.tenant_id() RETURNS text LANGUAGE sql AS $$ SELECT 'beta' $$;
             CREATE FUNCTION public.format(text, VARIADIC text[]) RETURNS text LANGUAGE plpgsql AS $$ BEGIN RAISE 'shadowed'; END $$;
             CREATE FUNCTION public.jsonb_build_object(VARIADIC text[]) RETURNS jsonb LANGUAGE plpgsql AS $$ BEGIN RAISE 'shadowed'; END $$;
             CREATE DOMAIN public.text AS pg_catalog.text CHECK (false);",
        )
        .expect("a role may create in public, and in pg_temp");
    for path in ["pg_temp, public, pg_catalog", "public, tenancy, pg_catalog, pg_temp"] {
        client.batch_execute(&format!("SET search_path = {path}")).unwrap();
        assert_eq!(reason(&mut client, &forged).as_deref(), Some("unknown_issuer"));
        assert_eq!(reason(&mut client, &good), None);
        client.batch_execute("BEGIN").unwrap();
        authenticate(&mut client, &good).expect("nothing of ours calls what was shadowed");
        let row = client
            .query_one(
                "SELECT tenancy.tenant_id(), tenancy.require_tenant(), (tenancy.identity()).tenant_id, \
                        tenancy.identity_headers() ->> 'X-Tenant-ID'",
                &[],
            )
            .unwrap();
        for place in 0..4 {
            assert_eq!(row.get::<_, String>(place), "acme");
        }
        let rows = client.query("SELECT DISTINCT tenant_id::pg_catalog.text FROM public.essays", &[]).unwrap();
        assert_eq!(rows.iter().map(|row| row.get(0)).collect::<Vec<String>>(), ["acme"]);
        client.batch_execute("ROLLBACK").unwrap();
    }
    // And by rule: whatever runs with its owner's rights has its search_path pinned.
    let open: Vec<String> = database
        .superuser()
        .query(
            "SELECT p.oid::regprocedure::text FROM pg_proc AS p WHERE p.pronamespace = 'tenancy'::regnamespace AND p.prosecdef \
             AND NOT coalesce('search_path=pg_catalog, pg_temp' = ANY (p.proconfig), false)",
            &[],
        )
        .unwrap()
        .iter()
        .map(|row| row.get(0))
        .collect();
    assert!(open.is_empty(), "{open:?}");
}

#[test]
fn identity_15_nobody_brings_a_key_of_his_own() {
    let database = cluster().database();
    for role in ["app", "svc", "met"] {
        let mut client = database.connect(role);
        for call in [
            "SELECT tenancy.add_issuer('https://mallory.test', ARRAY['tests'])".to_owned(),
            format!("SELECT tenancy.add_secret('{ISSUER}', 'own', 'HS256', decode(repeat('ab', 32), 'hex'))"),
            format!("SELECT tenancy.add_key('{ISSUER}', '{{}}')"),
            format!("SELECT tenancy.set_jwks('{ISSUER}', '{{}}')"),
            format!("SELECT tenancy.retire_key('{ISSUER}', '{KEY_ID}')"),
        ] {
            fails_with(client.batch_execute(&call), "42501");
        }
    }
    // No table of ours can be written directly, by whatever access.
    for role in ["app", "svc", "ops", "met"] {
        let writable: Vec<String> = database
            .superuser()
            .query(
                "SELECT c.oid::regclass::text FROM pg_class AS c \
                  WHERE c.relnamespace = 'tenancy'::regnamespace AND c.relkind IN ('r', 'p', 'v') \
                    AND (has_table_privilege($1, c.oid, 'INSERT, UPDATE, DELETE, TRUNCATE, TRIGGER, REFERENCES') \
                         OR has_any_column_privilege($1, c.oid, 'INSERT, UPDATE, REFERENCES'))",
                &[&role],
            )
            .unwrap()
            .iter()
            .map(|row| row.get(0))
            .collect();
        assert!(writable.is_empty(), "{role} can write {writable:?}");
    }
    // And no setting a client may change holds a key, an issuer or a file.
    let settable: Vec<String> = database
        .connect("app")
        .query("SELECT name FROM pg_settings WHERE name LIKE 'tenancy.%' AND context IN ('user', 'backend')", &[])
        .unwrap()
        .iter()
        .map(|row| row.get(0))
        .collect();
    assert!(settable.iter().all(|name| !name.contains("key") && !name.contains("issuer")), "{settable:?}");
}

#[test]
fn identity_16_no_secret_is_to_be_read_in_tables_views_or_files() {
    let database = cluster().database();
    let mut owner = database.superuser();
    // Roles are the cluster's: a name of its own.
    owner.batch_execute("CREATE ROLE reader_16 LOGIN; GRANT pg_read_all_data TO reader_16; CHECKPOINT").unwrap();
    let hex: String = SECRET.iter().map(|byte| format!("{byte:02x}")).collect();
    // pg_read_all_data reads every table; row-level security still leaves it without rows.
    let mut reader = database.connect("reader_16");
    assert!(reader.query("SELECT * FROM tenancy.issuer_keys", &[]).unwrap().is_empty());
    // An operator reads the keys without their secrets, and no secret column at all.
    let mut ops = database.connect("ops");
    let row = ops
        .query_one(
            "SELECT kid, key_type, status, public_jwk::text, to_jsonb(k) AS whole FROM tenancy.issuer_key_status AS k",
            &[],
        )
        .unwrap();
    assert_eq!(
        (row.get::<_, &str>(0), row.get::<_, &str>(1), row.get::<_, &str>(2), row.get::<_, Option<&str>>(3)),
        (KEY_ID, "oct", "usable", None)
    );
    let whole = row.get::<_, serde_json::Value>(4).to_string();
    assert!(!whole.contains("sealed_secret") && !whole.contains(&hex), "{whole}");
    fails_with(ops.query("SELECT sealed_secret FROM tenancy.issuer_keys", &[]), "42501");
    fails_with(database.connect("app").query("SELECT * FROM tenancy.issuer_key_status", &[]), "42501");
    // Nowhere in the data folder, write-ahead log included, does it stand in clear or in hexadecimal.
    for needle in [String::from_utf8(SECRET.to_vec()).unwrap(), hex] {
        let found = Command::new("grep").args(["-rlF", "-e", &needle]).arg(database.cluster().data()).output().unwrap();
        assert!(found.stdout.is_empty(), "{}", String::from_utf8_lossy(&found.stdout));
    }
}

#[test]
fn identity_17_no_token_reaches_the_log() {
    let settings =
        vec![("log_min_error_statement", "debug5".to_owned()), ("log_error_verbosity", "verbose".to_owned())];
    let own = Cluster::start(Options { settings, ..Options::default() });
    let database = own.database();
    let mut client = database.connect("app");
    let marked = |token: Token| token.claim("marker", "m4rk3d").sign();
    let mut signatures = Vec::new();
    for token in [
        marked(Token::for_member("alice", "acme")),
        marked(Token::for_user("alice").header("kid", "unknown")),
        marked(Token::for_user("alice").expires_in(-5)),
        marked(Token::for_user("alice").claim("aud", "elsewhere")),
        marked(Token::for_user("a::b")),
    ] {
        let mut transaction = client.transaction().unwrap();
        let _ = authenticate(&mut transaction, &token);
        drop(transaction);
        let _ = client.query("SELECT * FROM tenancy.verify_token($1)", &[&token]);
        let _ = client.query("SELECT 1 / length(tenancy.authenticate($1)) - 1 / 0", &[&token]);
        signatures.extend(token.split('.').skip(1).map(str::to_owned));
    }
    let log = own.log();
    assert!(log.contains("authentication refused"), "refusals are noted");
    assert!(log.contains("division by zero"), "errors are logged with their statements");
    for part in &signatures {
        assert!(!log.contains(&part[..20]), "a part of a token is in the log");
    }
}

#[test]
fn identity_18_a_table_s_owner_is_bound_by_the_policy() {
    let database = cluster().database();
    let mut owner = database.superuser();
    owner.batch_execute("GRANT CREATE ON SCHEMA public TO app").unwrap();
    let mut client = database.connect("app");
    client
        .batch_execute(
            "CREATE TABLE public.notes (tenant_id text NOT NULL, id int, PRIMARY KEY (tenant_id, id));
             INSERT INTO public.notes VALUES ('acme', 1), ('beta', 1)",
        )
        .unwrap();
    owner.batch_execute("SELECT tenancy.protect_table('public.notes')").unwrap();
    assert!(client.query("SELECT * FROM public.notes", &[]).unwrap().is_empty());
    client.batch_execute("BEGIN").unwrap();
    authenticate(&mut client, &acme()).unwrap();
    assert_eq!(client.query("SELECT * FROM public.notes", &[]).unwrap().len(), 1);
    client.batch_execute("COMMIT").unwrap();
    // Our own tables: each with row-level security, forced.
    let open: Vec<String> = owner
        .query(
            "SELECT c.relname::text FROM pg_class AS c JOIN tenancy._table_access() AS t ON t.relation = c.relname \
              WHERE c.relnamespace = 'tenancy'::regnamespace AND c.relkind IN ('r', 'p') \
                AND t.access = 'application' AND NOT (c.relrowsecurity AND c.relforcerowsecurity)",
            &[],
        )
        .unwrap()
        .iter()
        .map(|row| row.get(0))
        .collect();
    assert!(open.is_empty(), "{open:?}");
}

#[test]
fn identity_19_size_issuer_and_key_are_looked_at_before_any_cryptography() {
    let database = cluster().database();
    let mut client = database.connect("app");
    let with = |token: Token| token.sign_with(b"not the secret, and never to be tried with it");
    for (token, expected) in [
        ("x".repeat(20_000_000), "token_too_large"),
        (with(Token::for_user("alice").claim("big", "x".repeat(9000))), "token_too_large"),
        (with(Token::for_user("alice").claim("iss", "https://elsewhere.test")), "unknown_issuer"),
        (with(Token::for_user("alice").header("kid", "unknown")), "unknown_key"),
        (with(Token::for_user("alice").header("alg", "RS256")), "algorithm_mismatch"),
        (with(Token::for_user("alice")), "invalid_signature"),
    ] {
        assert_eq!(reason(&mut client, &token).as_deref(), Some(expected));
    }
    database
        .connect("ops")
        .execute("SELECT tenancy.add_issuer($1, ARRAY[$2::text], algorithms => ARRAY['ES256'])", &[&ISSUER, &AUDIENCE])
        .unwrap();
    assert_eq!(reason(&mut client, &acme()).as_deref(), Some("algorithm_not_allowed"));
    // A caller's own key costs no more than a provider's: numbers that would be slow are refused.
    let huge = serde_json::json!({"kty": "RSA", "n": common::base64url(&[0xff; 4096]), "e": "AQAB"});
    refused(client.query_one("SELECT tenancy.jws_verify($1, 'a.b.c')", &[&huge]), "22023", "unsupported_key");
}
