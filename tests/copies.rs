//! A database in use, carried elsewhere: by pg_dump and pg_restore, by logical replication. Streaming: standby.rs;
//! another version: upgrade/.

mod common;

use common::copies::{clean, difference, goes_on, lived_in, objects, rows};
use common::{Cluster, Database, ISSUER, Options, SECRET, Token, fails_with, refused};
use postgres::Client;
use std::time::{Duration, Instant};

const ROLES: &str = "CREATE ROLE app LOGIN; CREATE ROLE svc LOGIN; CREATE ROLE ops LOGIN; CREATE ROLE met LOGIN;";

fn text(client: &mut Client, statement: &str) -> String {
    client.query_one(statement, &[]).unwrap().get(0)
}

fn run(cluster: &Cluster, program: &str, arguments: &[&str]) {
    let done = cluster.client(program, arguments);
    assert!(done.status.success(), "{program}: {}", String::from_utf8_lossy(&done.stderr));
}

/// An empty database on a fresh cluster that has the roles, into which this one was dumped and restored.
fn restored_into<'a>(cluster: &'a Cluster, database: &Database, options: &[&str]) -> Database<'a> {
    let file = database.cluster().folder().join("the.dump");
    let file = file.to_str().unwrap();
    run(database.cluster(), "pg_dump", &[&["-Fc", "-f", file, &database.name][..], options].concat());
    let restored = cluster.empty_database();
    restored.superuser().batch_execute(ROLES).unwrap();
    run(cluster, "pg_restore", &["-e", "-d", &restored.name, file]);
    restored
}

#[test]
fn a_dump_restores_into_a_fresh_cluster_and_life_goes_on() {
    let here = Cluster::start(Options::default());
    let database = lived_in(&here);
    let mut client = database.superuser();
    let there = Cluster::start(Options::default());
    let restored = restored_into(&there, &database, &[]);
    let mut copy = restored.superuser();
    assert_eq!(rows(&mut copy), rows(&mut client));
    assert_eq!(text(&mut copy, "SELECT nickname FROM tenancy.users WHERE external_id = 'ada'"), "a");
    assert_eq!(text(&mut copy, "SELECT to_regclass('tenancy.of_the_users_own')::text"), "tenancy.of_the_users_own");

    // What pg_dump does not carry is USAGE taken from PUBLIC on the tables' row types; migrate() takes it again.
    let (expected, found) = (objects(&mut client), objects(&mut copy));
    let unlike = difference(&expected, &found);
    assert!(!unlike.is_empty() && unlike.iter().all(|line| line.contains(" grants USAGE to -")), "{unlike:?}");
    copy.batch_execute("SELECT tenancy.migrate()").unwrap();
    assert_eq!(difference(&expected, &objects(&mut copy)), Vec::<String>::new());

    goes_on(&restored);
    clean(&mut copy);
    fails_with(restored.connect("app").query("SELECT tenancy.register_user('x')", &[]), "42501");
    let operators = "SELECT count(*)::text FROM tenancy.organizations";
    assert_eq!(text(&mut restored.connect("ops"), operators), "2");
    assert_eq!(text(&mut restored.connect("app"), operators), "0");
}

#[test]
fn sealed_secrets_stay_sealed_in_a_dump_and_open_with_their_own_key_only() {
    let here = Cluster::start(Options::default());
    let database = lived_in(&here);
    let plain = here.client("pg_dump", &[&database.name]);
    let plain = String::from_utf8_lossy(&plain.stdout).into_owned();
    assert!(plain.contains("COPY tenancy.issuer_keys"));
    let hex: String = SECRET.iter().map(|byte| format!("{byte:02x}")).collect();
    for secret in [std::str::from_utf8(SECRET).unwrap(), &hex, "PRIVATE KEY"] {
        assert!(!plain.contains(secret), "the dump shows {secret}");
    }
    let there = Cluster::start(Options::default());
    // Another master key.
    there.write_file("master.key", &"77".repeat(32), 0o600);
    there.reload();
    let restored = restored_into(&there, &database, &[]);
    let token = Token::for_user("ada").sign();
    let mut app = restored.connect("app");
    let error = app.query("SELECT tenancy.authenticate($1)", &[&token]).unwrap_err();
    let error = error.as_db_error().expect("an error of the server");
    assert!(error.detail().unwrap().contains("master_key") || error.message().contains("master key"), "{error:?}");
    let issued = restored.connect("svc").query("SELECT tenancy.issue_access_token('ada')", &[]);
    assert!(issued.unwrap_err().as_db_error().unwrap().message().contains("master key"));
    // The rest does not need it.
    restored.connect("svc").query("SELECT tenancy.deduct_credits('ada', 1, 'org_acme')", &[]).unwrap();
}

/// Waits until the subscriber holds the publisher's rows.
fn until_the_same(publisher: &mut Client, subscriber: &mut Client) {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let (here, there) = (rows(publisher), rows(subscriber));
        if here == there {
            return;
        }
        assert!(Instant::now() < deadline, "the subscriber is not like the publisher: {here:#?} {there:#?}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Every table of ours and a protected one, replicated by rows; then the subscriber takes over.
#[test]
fn logical_replication_carries_the_ledger_and_debits_nothing_twice() {
    let here = Cluster::start(Options { settings: vec![("wal_level", "logical".into())], ..Options::default() });
    let database = lived_in(&here);
    let mut publisher = database.superuser();
    let there = Cluster::start(Options::default());
    let copy = restored_into(&there, &database, &["--schema-only"]);
    let mut subscriber = copy.superuser();
    publisher.batch_execute("CREATE PUBLICATION everything FOR TABLES IN SCHEMA tenancy, public").unwrap();
    let source = format!(
        "CREATE SUBSCRIPTION here CONNECTION 'host={} user=postgres dbname={}' PUBLICATION everything",
        here.folder().display(),
        database.name
    );
    subscriber.batch_execute(&source).unwrap();
    until_the_same(&mut publisher, &mut subscriber);

    // Changes, while it follows: debits with keys, a hold captured, a refund.
    let mut service = database.connect("svc");
    for number in 0..20 {
        let debit = "SELECT tenancy.deduct_credits('ada', 1, 'org_acme', idempotency_key => $1)";
        service.query(debit, &[&format!("replicated-{number}")]).unwrap();
    }
    service.batch_execute("SELECT tenancy.capture_hold(tenancy.hold_credits('ada', 4, 'org_acme'))").unwrap();
    publisher
        .batch_execute("INSERT INTO public.essays VALUES (100, 'acme', 'late'), (101, 'org_bolt', 'late')")
        .unwrap();
    // A revocation arrives as a row; sessions that have cached the keys hear of it by the change signal.
    let token = Token::for_member("ada", "org_acme").claim("sid", "session-1").sign();
    let authenticate = "SELECT tenancy.authenticate($1)";
    let mut app = copy.connect("app");
    app.query(authenticate, &[&token]).unwrap();
    database.connect("ops").execute("SELECT tenancy.revoke_session($1, 'session-1')", &[&ISSUER]).unwrap();
    until_the_same(&mut publisher, &mut subscriber);
    subscriber.batch_execute("SELECT tenancy._changed('issuers')").unwrap();
    refused(app.query(authenticate, &[&token]), "PT401", "revoked");
    clean(&mut subscriber);

    // The subscriber takes over: requests sent again by their keys are known, new ones are charged.
    here.stop();
    subscriber
        .batch_execute(
            "ALTER SUBSCRIPTION here DISABLE; ALTER SUBSCRIPTION here SET (slot_name = NONE); DROP SUBSCRIPTION here",
        )
        .unwrap();
    let entries = "SELECT count(*)::text FROM tenancy.credit_transactions";
    let before = text(&mut subscriber, entries);
    let mut service = copy.connect("svc");
    for number in 0..20 {
        let debit = "SELECT tenancy.deduct_credits('ada', 1, 'org_acme', idempotency_key => $1)";
        service.query(debit, &[&format!("replicated-{number}")]).unwrap();
    }
    assert_eq!(text(&mut subscriber, entries), before, "nothing is debited twice");
    refused(
        service.query("SELECT tenancy.deduct_credits('ada', 2, 'org_acme', idempotency_key => 'replicated-1')", &[]),
        "PT409",
        "idempotency_conflict",
    );
    subscriber.batch_execute("SELECT tenancy.migrate(); DELETE FROM public.essays WHERE id >= 100").unwrap();
    goes_on(&copy);
    clean(&mut subscriber);
}
