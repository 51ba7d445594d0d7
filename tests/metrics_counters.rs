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
fn metrics_access_and_operators_read_them() {
    let database = cluster().database();
    for role in ["app", "svc"] {
        fails_with(database.connect(role).query("SELECT * FROM tenancy.metrics()", &[]), "42501");
        fails_with(database.connect(role).query("SELECT tenancy.metrics_text()", &[]), "42501");
    }
    assert!(!database.connect("ops").query("SELECT * FROM tenancy.metrics()", &[]).unwrap().is_empty());
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
fn a_tenant_called_other_is_one_of_the_rest() {
    let own = Cluster::start(Options { settings: vec![("tenancy.metrics_tenants", "2".into())], ..Options::default() });
    let database = own.database();
    for tenant in ["other", "o1", "o2", "o3"] {
        drop(login(&database, "u1", Some(tenant)));
    }
    let statement = "SELECT count(*), count(DISTINCT (name, labels)) FROM tenancy.metrics()";
    let row = database.connect("met").query_one(statement, &[]).unwrap();
    assert_eq!(row.get::<_, i64>(0), row.get::<_, i64>(1), "the same labels twice are no valid metrics");
    assert_eq!(figure(&database, AUTHENTICATIONS, r#"{"tenant": "other"}"#), 2.0);
    assert_eq!(figure(&database, AUTHENTICATIONS, r#"{"tenant": "o2"}"#), 1.0, "it took nobody's place");
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

/// Debits and denials, by every way to charge; what is held and left, as gauges.
#[test]
fn every_charge_is_counted_once_and_every_refusal_by_its_reason() {
    let database = cluster().database();
    database
        .connect("ops")
        .batch_execute(
            "SELECT tenancy.register_user('u1'), tenancy.register_user('u2'), tenancy.register_organization('o1', 'One');
             SELECT tenancy.set_membership('u1', 'o1', 'org:member'), tenancy.set_subscription('o1', 'team', 'active', 3);
             SELECT tenancy.assign_seat('o1', 'u1'), tenancy.grant_credits(100, org_id => 'o1');
             SELECT tenancy.set_credit_cost('page', 1)",
        )
        .unwrap();
    let mut service = database.connect("svc");
    service
        .batch_execute(
            "SELECT tenancy.deduct_credits('u1', 5, 'o1'), tenancy.deduct_credits_pooled('u1', 2, 'o1');
             SELECT tenancy.consume_credits('u1', 'o1', 'page', 3);
             SELECT tenancy.capture_hold(tenancy.hold_credits('u1', 10, 'o1'), 6), tenancy.hold_credits('u1', 7, 'o1');
             SELECT tenancy.deduct_credits_batch('[{\"user_id\": \"u1\", \"org_id\": \"o1\", \"amount\": 1},
                 {\"user_id\": \"u1\", \"org_id\": \"o1\", \"amount\": 3}]')",
        )
        .unwrap();
    // What is rolled back was charged here, and not in the ledger.
    service.batch_execute("BEGIN; SELECT tenancy.deduct_credits('u1', 1, 'o1'); ROLLBACK").unwrap();
    let sum = |name: &str, labels: &str| figure(&database, name, labels);
    assert_eq!((sum("pg_tenancy_debits_total", "{}"), sum("pg_tenancy_debited_credits_total", "{}")), (7.0, 21.0));
    assert_eq!(sum("pg_tenancy_pool_balance_credits", "{}"), 80.0);
    assert_eq!((sum("pg_tenancy_pool_held_credits", "{}"), sum("pg_tenancy_open_holds", "{}")), (7.0, 1.0));
    assert_eq!(sum("pg_tenancy_denials_total", "{}"), 0.0);

    // Answered with false, with a row's status, and with an error.
    service
        .batch_execute(
            "SELECT tenancy.deduct_credits_pooled('u1', 1000, 'o1');
             SELECT tenancy.consume_credits('u1', 'o1', 'page', 1000);
             SELECT tenancy.deduct_credits_batch('[{\"user_id\": \"u1\", \"org_id\": \"o1\", \"amount\": 1000},
                 {\"user_id\": \"u2\", \"org_id\": \"o1\", \"amount\": 1}]')",
        )
        .unwrap();
    for (statement, state) in [
        ("SELECT tenancy.deduct_credits('u1', 1000, 'o1')", "PT402"),
        ("SELECT tenancy.deduct_credits('u2', 1, 'o1')", "PT403"),
        ("SELECT tenancy.capture_hold(id) FROM tenancy.credit_holds WHERE status = 'captured'", "PT422"),
        ("SELECT tenancy.deduct_credits('nobody', 1)", "PT404"),
    ] {
        let mut client = if state == "PT422" { database.superuser() } else { database.connect("svc") };
        fails_with(client.query(statement, &[]), state);
    }
    let denied = |reason: &str| sum("pg_tenancy_denials_total", &format!(r#"{{"reason": "{reason}"}}"#));
    for (reason, times) in
        [("insufficient_credits", 4.0), ("no_active_seat", 2.0), ("hold_captured", 1.0), ("user_not_found", 1.0)]
    {
        assert_eq!(denied(reason), times, "{reason}");
    }
    assert_eq!(sum("pg_tenancy_denials_total", "{}"), 8.0, "and nothing else");
    assert_eq!(sum("pg_tenancy_debits_total", "{}"), 7.0, "what was refused was not charged");
}

/// sql_exporter's collector: each query gives the columns it names, and no figure is left out.
#[test]
fn the_collector_s_queries_give_what_they_name() {
    let database = cluster().database();
    database
        .connect("ops")
        .batch_execute(
            "SELECT tenancy.register_user('u1'); SELECT tenancy.grant_credits(10, user_id => 'u1');
             SELECT tenancy.set_rate_limit('api', 2, '1 hour')",
        )
        .unwrap();
    let mut service = database.connect("svc");
    service.batch_execute("SELECT tenancy.hold_credits('u1', 1), tenancy.set_event_consumer('billing')").unwrap();
    let mut one = login(&database, "u1", None);
    one.batch_execute(
        "SELECT tenancy.take_rate_limit('api'), tenancy.record_llm_usage('p', 'm', 1, 1, latency_ms => 3), tenancy.spend_credits(1);
         COMMIT",
    )
    .unwrap();
    assert!(one.query("SELECT tenancy.authenticate('x')", &[]).is_err());
    let mut met = database.connect("met");
    let names = "SELECT DISTINCT name FROM tenancy.metrics() WHERE name NOT LIKE '%\\_bucket'";
    let mut left: Vec<String> = met.query(names, &[]).unwrap().iter().map(|row| row.get(0)).collect();
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/monitoring/pg_tenancy.collector.yml");
    let file = std::fs::read_to_string(file).unwrap();
    for metric in file.split("  - metric_name: ").skip(1) {
        let name = metric.lines().next().unwrap();
        let member = |key: &str| metric.lines().find_map(|line| line.trim().strip_prefix(key)).unwrap_or("[]").trim();
        let list = |key: &str| -> Vec<String> {
            let inner = member(key).trim_matches(['[', ']']);
            inner.split(',').map(|item| item.trim().to_owned()).filter(|item| !item.is_empty()).collect()
        };
        let expected = [list("key_labels:"), list("values:")].concat();
        let query = member("query:");
        let columns: Vec<String> =
            met.prepare(query).unwrap().columns().iter().map(|column| column.name().to_owned()).collect();
        assert_eq!(columns, expected, "{name}");
        let rows = met.query(query, &[]).unwrap();
        assert!(name.contains("denials") || name.contains("dead") || !rows.is_empty(), "{name} has no row");
        for row in rows {
            row.get::<_, f64>(columns.len() - 1);
        }
        left.retain(|known| known != name);
    }
    assert_eq!(left, Vec::<String>::new(), "figures that are not in the file");
}
