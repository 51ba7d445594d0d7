//! Counters in shared memory: by tenant up to a bound, not undone by a rollback, each database its own.

mod common;

use common::{Cluster, Database, Options, Token, cluster, fails_with, in_parallel};
use postgres::Client;

fn login(database: &Database, user: &str, org: Option<&str>) -> Client {
    let mut client = database.connect("app");
    let token = match org {
        Some(org) => Token::for_member(user, org),
        None => Token::for_user(user),
    };
    client.batch_execute("BEGIN").unwrap();
    client.query("SELECT tenancy.authenticate($1)", &[&token.sign()]).unwrap();
    client
}

fn figure(database: &Database, name: &str, labels: &str) -> f64 {
    let statement =
        "SELECT coalesce(sum(value), 0) FROM tenancy.metrics() WHERE name = $1 AND labels @> $2::text::jsonb";
    database.connect("met").query_one(statement, &[&name, &labels]).unwrap().get(0)
}

const AUTHENTICATIONS: &str = "pg_tenancy_authentications_total";

#[test]
fn only_metrics_access_reads_them() {
    let database = cluster().database();
    for role in ["app", "svc", "ops"] {
        fails_with(database.connect(role).query("SELECT * FROM tenancy.metrics()", &[]), "42501");
        fails_with(database.connect(role).query("SELECT tenancy.metrics_text()", &[]), "42501");
    }
    let mut met = database.connect("met");
    assert!(!met.query("SELECT * FROM tenancy.metrics()", &[]).unwrap().is_empty());
    fails_with(met.query("SELECT * FROM tenancy.credit_pools", &[]), "42501");
}

#[test]
fn tenants_beyond_the_bound_are_summed_as_other() {
    let own = Cluster::start(Options { settings: vec![("tenancy.metrics_tenants", "3".into())], ..Options::default() });
    let database = own.database();
    for tenant in 1..=5 {
        for _ in 0..tenant {
            drop(login(&database, "u1", Some(&format!("o{tenant}"))));
        }
    }
    let tenants: Vec<String> = database
        .connect("met")
        .query("SELECT labels ->> 'tenant' FROM tenancy.metrics() WHERE name = $1 ORDER BY 1", &[&AUTHENTICATIONS])
        .unwrap()
        .iter()
        .map(|row| row.get(0))
        .collect();
    assert_eq!(tenants, ["o1", "o2", "o3", "other"]);
    assert_eq!(figure(&database, AUTHENTICATIONS, r#"{"tenant": "other"}"#), 9.0);
    assert_eq!(figure(&database, AUTHENTICATIONS, r#"{"tenant": "o3"}"#), 3.0);
    // Another database counts for itself, though the bound is the server's.
    let second = own.database();
    drop(login(&second, "u1", Some("o1")));
    assert_eq!(figure(&second, AUTHENTICATIONS, "{}"), 1.0);
    assert_eq!(figure(&database, AUTHENTICATIONS, "{}"), 15.0);
    // A restart begins at zero.
    own.stop();
    own.resume();
    assert_eq!(figure(&database, AUTHENTICATIONS, "{}"), 0.0);
}

#[test]
fn what_happened_counts_whatever_the_transaction_does() {
    let database = cluster().database();
    database.connect("ops").batch_execute("SELECT tenancy.set_quota('m', NULL, 1, 'day')").unwrap();
    let forged = Token::for_member("u1", "o1").sign_with(b"not the secret of the issuer, but as long as it");
    let expired = Token::for_member("u1", "o1").expires_in(-100).sign();
    for token in [&forged, &forged, &expired] {
        assert!(database.connect("app").query("SELECT tenancy.authenticate($1)", &[token]).is_err());
    }
    let mut one = login(&database, "u1", Some("o1"));
    assert!(one.query("SELECT * FROM tenancy.take_quota('m', 2)", &[]).is_err());
    one.batch_execute("ROLLBACK").unwrap();
    let refused = |reason: &str| {
        figure(&database, AUTHENTICATIONS, &format!(r#"{{"outcome": "refused", "reason": "{reason}"}}"#))
    };
    assert_eq!((refused("invalid_signature"), refused("expired")), (2.0, 1.0));
    let denied = figure(&database, "pg_tenancy_denials_total", r#"{"reason": "quota_exceeded", "tenant": "o1"}"#);
    assert_eq!(denied, 1.0);
    assert_eq!(figure(&database, "pg_tenancy_authentication_seconds_count", r#"{"tenant": "o1"}"#), 1.0);
    assert_eq!(figure(&database, "pg_tenancy_authentication_seconds_bucket", r#"{"le": "+Inf"}"#), 1.0);
}

#[test]
fn no_count_is_lost_between_sessions() {
    let database = cluster().database();
    in_parallel(16, |index| {
        let mut client = database.connect("app");
        let token = Token::for_member("u1", &format!("o{}", index % 2)).sign();
        for _ in 0..50 {
            client.batch_execute("BEGIN").unwrap();
            client.query("SELECT tenancy.authenticate($1)", &[&token]).unwrap();
            client.batch_execute("COMMIT").unwrap();
        }
    });
    for tenant in ["o0", "o1"] {
        assert_eq!(figure(&database, AUTHENTICATIONS, &format!(r#"{{"tenant": "{tenant}"}}"#)), 400.0);
    }
    let hits = figure(&database, "pg_tenancy_cache_requests_total", r#"{"cache": "token", "result": "hit"}"#);
    assert_eq!(hits, 784.0, "each session verified its token once");
}

#[test]
fn without_preload_there_are_the_tables_figures_only() {
    let own = Cluster::start(Options { preload: false, ..Options::default() });
    let database = own.database();
    drop(login(&database, "u1", Some("o1")));
    assert_eq!(figure(&database, AUTHENTICATIONS, "{}"), 0.0);
    let mut met = database.connect("met");
    let preloaded: f64 =
        met.query_one("SELECT value FROM tenancy.metrics() WHERE name = 'pg_tenancy_preloaded'", &[]).unwrap().get(0);
    assert_eq!(preloaded, 0.0);
    let text: String = met.query_one("SELECT tenancy.metrics_text()", &[]).unwrap().get(0);
    assert!(text.ends_with("pg_tenancy_preloaded 0\n# EOF\n"), "{text}");
}
