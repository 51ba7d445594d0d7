//! A hot standby: whoever may read there is verified there. Nothing is written, no transaction id is assigned, and
//! what the primary revokes or retires ends on the standby as soon as it is replayed.

mod common;

use common::copies::{clean, lived_in};
use common::{Cluster, Database, ISSUER, KEY_ID, Options, Token, fails_with, refused};
use postgres::{Client, GenericClient};
use std::time::{Duration, Instant};
use uuid::Uuid;

const NEXT: &[u8] = b"the next secret of the tests, long enough.";

fn authenticate(client: &mut Client, token: &str) -> Result<String, postgres::Error> {
    let mut transaction = client.transaction()?;
    Ok(transaction.query_one("SELECT tenancy.authenticate($1)", &[&token])?.get(0))
}

fn is_valid(client: &mut impl GenericClient, token: &str) -> bool {
    client.query_one("SELECT valid FROM tenancy.verify_token($1)", &[&token]).expect("it raises nothing").get(0)
}

/// Waits until the standby has replayed what the primary has written.
fn catch_up(primary: &mut Client, standby: &mut Client) {
    let at: String = primary.query_one("SELECT pg_current_wal_flush_lsn()::text", &[]).unwrap().get(0);
    let deadline = Instant::now() + Duration::from_secs(60);
    let behind = "SELECT pg_last_wal_replay_lsn() < $1::text::pg_lsn";
    while standby.query_one(behind, &[&at]).unwrap().get(0) {
        assert!(Instant::now() < deadline, "the standby does not catch up with {at}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn with_rows(database: &Database) {
    database
        .superuser()
        .batch_execute(
            "CREATE TABLE public.essays (tenant_id text NOT NULL, id int, PRIMARY KEY (tenant_id, id));
             INSERT INTO public.essays SELECT t, i FROM unnest(ARRAY['acme', 'beta']) AS t, generate_series(1, 5) AS i;
             ALTER TABLE public.essays ENABLE ROW LEVEL SECURITY;
             ALTER TABLE public.essays FORCE ROW LEVEL SECURITY;
             CREATE POLICY own_rows ON public.essays TO app USING (tenant_id = tenancy.tenant_id());
             GRANT SELECT ON public.essays TO app;",
        )
        .expect("a table can be made");
}

#[test]
fn a_standby_verifies_isolates_and_follows_the_primary() {
    let first = Cluster::start(Options::default());
    let database = first.database();
    with_rows(&database);
    let second = first.standby();
    let on_standby = |role: &str| second.connect(&database.name, role);
    let (mut owner, mut watcher) = (database.superuser(), on_standby("postgres"));
    let mut catch_up = || catch_up(&mut owner, &mut watcher);
    catch_up();

    // Reads: verified, isolated, without a transaction id.
    let (mut ops, mut app) = (database.connect("ops"), on_standby("app"));
    let in_recovery: bool = app.query_one("SELECT pg_is_in_recovery()", &[]).unwrap().get(0);
    assert!(in_recovery);
    let acme = Token::for_member("alice", "acme").claim("sid", "session-1").sign();
    let mut transaction = app.transaction().unwrap();
    assert!(transaction.query("SELECT id FROM public.essays", &[]).unwrap().is_empty(), "no identity, no rows");
    assert!(is_valid(&mut transaction, &acme));
    let user: String = transaction.query_one("SELECT tenancy.authenticate($1)", &[&acme]).unwrap().get(0);
    assert_eq!(user, "alice");
    let rows = transaction.query("SELECT tenant_id FROM public.essays", &[]).unwrap();
    assert_eq!(rows.len(), 5);
    assert!(rows.iter().all(|row| row.get::<_, &str>(0) == "acme"));
    let claims: serde_json::Value = transaction.query_one("SELECT tenancy.claims()", &[]).unwrap().get(0);
    assert_eq!(claims["org_id"], "acme");
    transaction.commit().unwrap();
    refused(authenticate(&mut app, &acme[..acme.len() - 15]), "PT401", "invalid_signature");
    // What must write says so as the server does.
    let mut svc = on_standby("svc");
    fails_with(svc.execute("SELECT tenancy.act_as('alice', 'acme')", &[]), "25006");

    // A key added on the primary is good here, a retired one no longer, in sessions that have both in their caches.
    let next = Token::for_member("bob", "beta").header("kid", "key-2").sign_with(NEXT);
    refused(authenticate(&mut app, &next), "PT401", "unknown_key");
    ops.execute("SELECT tenancy.add_secret($1, 'key-2', 'HS256', $2)", &[&ISSUER, &NEXT]).unwrap();
    catch_up();
    authenticate(&mut app, &next).expect("the standby opens the new secret with its own master key file");
    authenticate(&mut app, &acme).unwrap();
    ops.execute("SELECT tenancy.revoke_session($1, 'session-1')", &[&ISSUER]).unwrap();
    catch_up();
    refused(authenticate(&mut app, &acme), "PT401", "revoked");
    let plain = Token::for_member("alice", "acme").sign();
    authenticate(&mut app, &plain).unwrap();
    ops.execute("SELECT tenancy.retire_key($1, $2)", &[&ISSUER, &KEY_ID]).unwrap();
    catch_up();
    refused(authenticate(&mut app, &plain), "PT401", "unknown_key");
    authenticate(&mut app, &next).unwrap();

    // A former member's own token ends here as there.
    let mut issuing = database.superuser();
    issuing
        .batch_execute(
            "SELECT tenancy.add_signing_profile('default', 'https://own.test', 'app', 'EdDSA', 'own-1');
             SELECT tenancy.register_user('carol'), tenancy.register_organization('gamma', 'Gamma');
             SELECT tenancy.set_membership('carol', 'gamma', 'org:member'), tenancy.set_subscription('gamma', 'team', 'active', 1);
             SELECT tenancy.assign_seat('gamma', 'carol')",
        )
        .unwrap();
    let own: String = issuing.query_one("SELECT tenancy.issue_access_token('carol', 'gamma')", &[]).unwrap().get(0);
    catch_up();
    authenticate(&mut app, &own).unwrap();
    ops.execute("SELECT tenancy.remove_membership('carol', 'gamma')", &[]).unwrap();
    catch_up();
    refused(authenticate(&mut app, &own), "PT403", "not_a_member");

    // Promoted, it writes; sessions go on, and its own changes end what they had cached.
    first.stop();
    second.promote();
    authenticate(&mut app, &next).unwrap();
    svc.batch_execute("BEGIN; SELECT tenancy.act_as('alice', 'acme', reason => 'after the failover'); COMMIT").unwrap();
    on_standby("ops").execute("SELECT tenancy.revoke_user('bob')", &[]).unwrap();
    refused(authenticate(&mut app, &next), "PT401", "revoked");
}

/// The standby takes over: what the primary had charged is there, a request sent again is known, a new one is charged.
#[test]
fn a_promoted_standby_charges_on_and_the_ledger_agrees() {
    let first = Cluster::start(Options::default());
    let database = lived_in(&first);
    let second = first.standby();
    let mut service = database.connect("svc");
    let debit = "SELECT transaction_id FROM tenancy.deduct_credits('ada', 1, 'org_acme', idempotency_key => $1)";
    let charged: Uuid = service.query_one(debit, &[&"before"]).unwrap().get(0);
    catch_up(&mut database.superuser(), &mut second.connect(&database.name, "postgres"));

    let on_standby = |role: &str| second.connect(&database.name, role);
    let mut watcher = on_standby("postgres");
    clean(&mut watcher);
    fails_with(on_standby("svc").query(debit, &[&"on the standby"]), "25006");
    let balance = "SELECT available::text FROM tenancy.credit_balance(org_id => 'org_acme')";
    let here: String = database.superuser().query_one(balance, &[]).unwrap().get(0);
    assert_eq!(watcher.query_one(balance, &[]).unwrap().get::<_, String>(0), here);

    first.crash();
    second.promote();
    let mut service = on_standby("svc");
    assert_eq!(service.query_one(debit, &[&"before"]).unwrap().get::<_, Uuid>(0), charged, "known, not charged again");
    let after: Uuid = service.query_one(debit, &[&"after"]).unwrap().get(0);
    assert_ne!(after, charged);
    let spent = "SELECT ($1::text::numeric - available)::text FROM tenancy.credit_balance(org_id => 'org_acme')";
    assert_eq!(watcher.query_one(spent, &[&here]).unwrap().get::<_, String>(0), "1.000000");
    clean(&mut watcher);
}
