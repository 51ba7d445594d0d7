//! Rate limits: exact between sessions, bound to no transaction, fair between tenants.

mod common;

use common::{Cluster, Database, Options, Token, cluster, fails_with, in_parallel, refused};
use postgres::{Client, Row};
use std::time::{Duration, Instant};

/// A session of a tenant's user.
fn session(database: &Database, tenant: &str) -> Client {
    let mut client = database.connect("app");
    let token = Token::for_member("u1", tenant).sign();
    // Outside a transaction an identity lasts for one statement: these tests keep one open.
    client.batch_execute("BEGIN").unwrap();
    client.query("SELECT tenancy.authenticate($1)", &[&token]).unwrap();
    client
}

fn take(client: &mut Client, name: &str, cost: i32, key: Option<&str>) -> Row {
    client
        .query_one(
            "SELECT allowed, remaining, extract(epoch FROM retry_after)::float8 FROM tenancy.take_rate_limit($1, $2, $3)",
            &[&name, &cost, &key],
        )
        .unwrap()
}

fn allowed(row: &Row) -> bool {
    row.get(0)
}

#[test]
fn a_burst_then_retry_after_and_keys_of_their_own() {
    let database = cluster().database();
    let mut ops = database.connect("ops");
    ops.query("SELECT tenancy.set_rate_limit('api', 3, '1 hour')", &[]).unwrap();
    let mut one = session(&database, "o1");
    for left in [2, 1, 0] {
        let row = take(&mut one, "api", 1, None);
        assert!(allowed(&row) && row.get::<_, i32>(1) == left && row.get::<_, f64>(2) == 0.0);
    }
    let denied = take(&mut one, "api", 1, None);
    let wait: f64 = denied.get(2);
    assert!(!allowed(&denied) && denied.get::<_, i32>(1) == 0);
    assert!((1195.0..=1200.0).contains(&wait), "retry after {wait} s");
    assert!(allowed(&take(&mut one, "api", 3, Some("u1"))), "another key is another bucket");
    let peeked = one.query_one("SELECT allowed, remaining FROM tenancy.peek_rate_limit('api', 1, 'u2')", &[]).unwrap();
    assert!(allowed(&peeked) && peeked.get::<_, i32>(1) == 3);
    assert!(allowed(&take(&mut one, "api", 3, Some("u2"))), "peeking takes nothing");
    assert!(allowed(&take(&mut session(&database, "o2"), "api", 3, None)), "another tenant is another bucket");

    // A tenant's own limit comes before everybody's, in sessions that have already used the other.
    ops.query("SELECT tenancy.set_rate_limit('api', 10, '1 hour', tenant_id => 'o1')", &[]).unwrap();
    one.batch_execute("COMMIT").unwrap();
    let mut one = session(&database, "o1");
    assert!(allowed(&take(&mut one, "api", 10, Some("u3"))));
    ops.query("SELECT tenancy.remove_rate_limit('api', 'o1')", &[]).unwrap();
    let mut again = session(&database, "o1");
    refused(again.query("SELECT * FROM tenancy.take_rate_limit('api', 10)", &[]), "22023", "invalid_argument");
}

#[test]
fn retry_after_is_exact() {
    let database = cluster().database();
    database.connect("ops").query("SELECT tenancy.set_rate_limit('slow', 1, '3 seconds', 1)", &[]).unwrap();
    let mut one = session(&database, "o1");
    let first = Instant::now();
    assert!(allowed(&take(&mut one, "slow", 1, None)));
    let wait: f64 = take(&mut one, "slow", 1, None).get(2);
    let asked = first.elapsed().as_secs_f64();
    assert!(wait <= 3.0 && wait >= 3.0 - asked, "{wait} s of 3 s after {asked} s");
    std::thread::sleep(Duration::from_secs_f64(wait));
    assert!(allowed(&take(&mut one, "slow", 1, None)), "waiting as long as told is enough");
}

#[test]
fn a_burst_beyond_all_time_is_not_forgotten() {
    let database = cluster().database();
    database.connect("ops").query("SELECT tenancy.set_rate_limit('d1', 1, '1 day', burst => 1000000000)", &[]).unwrap();
    let mut one = session(&database, "o1");
    let mut admitted = 0;
    for cost in [1_000_000_000, 200_000_000, 200_000_000, 50_000_000, 1_000_000_000, 50_000_000, 50_000_000] {
        let row = take(&mut one, "d1", cost, None);
        admitted += if allowed(&row) { i64::from(cost) } else { 0 };
        assert!(allowed(&row) || row.get::<_, f64>(2) > 0.0, "a denial says how long to wait");
    }
    assert!((50_000_000..=1_000_000_000).contains(&admitted), "{admitted} admitted at once");
}

#[test]
fn a_rollback_gives_nothing_back() {
    let database = cluster().database();
    database.connect("ops").query("SELECT tenancy.set_rate_limit('api', 2, '1 hour')", &[]).unwrap();
    let mut one = session(&database, "o1");
    one.batch_execute("SAVEPOINT s").unwrap();
    assert!(allowed(&take(&mut one, "api", 1, None)));
    one.batch_execute("ROLLBACK TO s").unwrap();
    assert_eq!(take(&mut one, "api", 1, None).get::<_, i32>(1), 0);
    one.batch_execute("ROLLBACK").unwrap();
    assert!(!allowed(&take(&mut session(&database, "o1"), "api", 1, None)));
}

#[test]
fn what_cannot_be_is_refused() {
    let database = cluster().database();
    let mut ops = database.connect("ops");
    for call in [
        "set_rate_limit('', 1, '1 s')",
        "set_rate_limit('a', 0, '1 s')",
        "set_rate_limit('a', -1, '1 s')",
        "set_rate_limit('a', NULL, '1 s')",
        "set_rate_limit('a', 1, '0')",
        "set_rate_limit('a', 1, '2 years')",
        "set_rate_limit('a', 1, '1 s', 0)",
        "set_rate_limit('a', 1, '1 s', tenant_id => '*')",
    ] {
        refused(ops.query(&format!("SELECT tenancy.{call}"), &[]), "22023", "invalid_argument");
    }
    for (policy, reason) in
        [("60", "invalid_rate_limit"), ("x/hour", "invalid_rate_limit"), ("60/minute", "invalid_rate_limit_period")]
    {
        refused(ops.query("SELECT tenancy.set_rate_limit_policy('a', $1)", &[&policy]), "22023", reason);
    }
    ops.query("SELECT tenancy.set_rate_limit_policy('batch_create', '60/hour')", &[]).unwrap();
    ops.query("SELECT tenancy.set_rate_limit_policy('free', 'unlimited')", &[]).unwrap();

    let mut nobody = database.connect("app");
    refused(nobody.query("SELECT * FROM tenancy.take_rate_limit('batch_create')", &[]), "PT401", "not_authenticated");
    fails_with(nobody.query("SELECT * FROM tenancy.take_rate_limit_for('o1', 'batch_create')", &[]), "42501");
    let mut service = database.connect("svc");
    let row = service.query_one("SELECT * FROM tenancy.take_rate_limit_for('o1', 'batch_create', 60)", &[]).unwrap();
    assert!(allowed(&row));
    let unlimited = service.query_one("SELECT * FROM tenancy.take_rate_limit_for('o1', 'free', 1000)", &[]).unwrap();
    assert!(allowed(&unlimited) && unlimited.get::<_, Option<i32>>(1).is_none());
    for call in ["''", "NULL", "'free', 0", "'free', NULL", "'free', 1, repeat('k', 1025)", "'batch_create', 61"] {
        let call = format!("SELECT * FROM tenancy.take_rate_limit_for('o1', {call})");
        refused(service.query(&call, &[]), "22023", "invalid_argument");
    }
    let unknown = "SELECT * FROM tenancy.take_rate_limit_for('o1', 'nobody_set_this')";
    refused(service.query(unknown, &[]), "PT404", "rate_limit_not_found");
    fails_with(service.query("SET tenancy.unknown_limits = 'unlimited'", &[]), "42501");
    let setting = format!("ALTER DATABASE {} SET tenancy.unknown_limits = 'unlimited'", database.name);
    database.superuser().batch_execute(&setting).unwrap();
    assert!(allowed(&database.connect("svc").query_one(unknown, &[]).unwrap()));
}

/// One tenant's made-up keys end at its share; other tenants and blocked callers are not touched.
#[test]
fn a_tenant_cannot_fill_the_table() {
    let own = Cluster::start(Options {
        settings: vec![("tenancy.limiter_cells", "1024".into()), ("tenancy.limiter_tenant_share", "100".into())],
        ..Options::default()
    });
    let database = own.database();
    let mut ops = database.connect("ops");
    ops.batch_execute("SELECT tenancy.set_rate_limit('long', 1, '1 hour'), tenancy.set_rate_limit('short', 1, '3 s')")
        .unwrap();
    let mut service = database.connect("svc");
    let fill = "SELECT count(*) FROM generate_series(1, $1::int) AS i, tenancy.take_rate_limit_for($2, $3, 1, $4 || i)";
    service.query(fill, &[&100, &"greedy", &"long", &"k"]).unwrap();
    let full = refused(service.query(fill, &[&1, &"greedy", &"long", &"more"]), "PT429", "limiter_full");
    assert!(
        full.detail().unwrap().contains(r#""scope": "tenant""#)
            || full.detail().unwrap().contains(r#""scope":"tenant""#)
    );
    service.query(fill, &[&100, &"other", &"short", &"k"]).unwrap();
    // Blocked callers stay blocked, in a full share too.
    let blocked = "SELECT count(*) FILTER (WHERE allowed) FROM generate_series(1, 100) AS i,
                   tenancy.take_rate_limit_for('greedy', 'long', 1, 'k' || i)";
    assert_eq!(service.query_one(blocked, &[]).unwrap().get::<_, i64>(0), 0);
    // Cells whose buckets are full again make room.
    refused(service.query(fill, &[&1, &"other", &"short", &"more"]), "PT429", "limiter_full");
    std::thread::sleep(Duration::from_millis(3100));
    service.query(fill, &[&100, &"other", &"short", &"more"]).unwrap();
    // Many tenants together fill the table, not each other's cells.
    let many = "SELECT count(*) FROM generate_series(1, 40) AS t, generate_series(1, 100) AS i,
                tenancy.take_rate_limit_for('t' || t, 'long', 1, 'k' || i)";
    let table = refused(service.query(many, &[]), "PT429", "limiter_full");
    assert!(table.detail().unwrap().contains("table"), "{table:?}");
    assert_eq!(service.query_one(blocked, &[]).unwrap().get::<_, i64>(0), 0);

    // A restart forgets everything: documented.
    own.stop();
    own.resume();
    let mut service = database.connect("svc");
    service.query(fill, &[&100, &"greedy", &"long", &"k"]).unwrap();
}

/// 64 sessions on one key never get more than burst + rate × time, and hardly less.
#[test]
fn sixty_four_sessions_get_exactly_what_the_limit_gives() {
    let database = cluster().database();
    database.connect("ops").query("SELECT tenancy.set_rate_limit('hot', 500, '1 second', 50)", &[]).unwrap();
    let seconds = std::env::var("PGT_LIMITER_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(10.0);
    let begun = std::sync::OnceLock::new();
    let answers = in_parallel(64, |_| {
        let mut client = database.connect("svc");
        let statement = client.prepare("SELECT allowed FROM tenancy.take_rate_limit_for('o1', 'hot')").unwrap();
        let begun = *begun.get_or_init(Instant::now);
        let mut answers = Vec::new();
        while begun.elapsed().as_secs_f64() < seconds {
            let allowed: bool = client.query_one(&statement, &[]).unwrap().get(0);
            answers.push((begun.elapsed().as_secs_f64(), allowed));
        }
        answers
    });
    let mut answers: Vec<(f64, bool)> = answers.into_iter().flatten().collect();
    answers.sort_by(|one, other| one.0.total_cmp(&other.0));
    let admitted = answers.iter().filter(|(_, allowed)| *allowed).count();
    // From the first request that could have been admitted to the last that was.
    let span = answers.iter().rfind(|(_, allowed)| *allowed).map_or(0.0, |(at, _)| *at);
    let most = 50.0 + 500.0 * span;
    // A bucket that nobody asks while it is full loses what it would have gained: where the machine stood still.
    let idle: f64 = answers.windows(2).map(|pair| pair[1].0 - pair[0].0).filter(|gap| *gap > 0.02).sum();
    let least = 0.99 * (50.0 + 500.0 * (seconds - idle));
    crate::common::say!(
        "admitted {admitted} of at most {most:.1} in {span:.3} s, of which nobody asked for {idle:.3} s"
    );
    assert!(admitted as f64 <= most, "admitted {admitted}, at most {most}");
    assert!(admitted as f64 >= least, "admitted {admitted}, less than {least}");
}

/// Prints what a decision costs beside the least a statement can cost; the debug build is not held to a bar.
#[test]
fn pgbench_figures() {
    let database = cluster().database();
    database.connect("ops").query("SELECT tenancy.set_rate_limit('bench', 1000000000, '1 second')", &[]).unwrap();
    for (name, statement) in [
        ("take_rate_limit", "SELECT allowed FROM tenancy.take_rate_limit_for('o1', 'bench');"),
        ("SELECT 1", "SELECT 1;"),
    ] {
        let script = cluster().write_file(&format!("{}.sql", name.replace(' ', "_")), statement, 0o644);
        let script = script.to_str().unwrap();
        let output =
            cluster().client("pgbench", &["-n", "-M", "prepared", "-c", "8", "-T", "2", "-f", script, &database.name]);
        let said = String::from_utf8_lossy(&output.stdout);
        let tps = said.lines().find(|line| line.starts_with("tps")).unwrap_or_else(|| panic!("{said}"));
        crate::common::say!("{name}: {tps}");
    }
}

#[test]
fn without_preload_it_says_so_and_all_else_works() {
    let own = Cluster::start(Options { preload: false, ..Options::default() });
    let database = own.database();
    let mut ops = database.connect("ops");
    ops.query("SELECT tenancy.set_rate_limit('api', 3, '1 hour')", &[]).unwrap();
    let mut service = database.connect("svc");
    let call = "SELECT * FROM tenancy.take_rate_limit_for('o1', 'api')";
    refused(service.query(call, &[]), "55000", "preload_required");
    ops.query("SELECT tenancy.set_quota('m', 1, 2, 'day')", &[]).unwrap();
    let mut one = session(&database, "o1");
    one.query("SELECT * FROM tenancy.take_quota('m', 1)", &[]).unwrap();
}
