//! A real Prometheus scrapes a real exporter: what the workload does is seen where people look.

mod common;

use common::{Cluster, Database, Options, Token};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// A program that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The folder of scripts/monitoring_tools.sh, which is run once; none, with a line that says so, where they cannot be had.
fn tools() -> Option<PathBuf> {
    static TOOLS: OnceLock<Option<PathBuf>> = OnceLock::new();
    let found = TOOLS.get_or_init(|| {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let script = Command::new("bash").arg(root.join("scripts/monitoring_tools.sh")).stdin(Stdio::null()).status();
        let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
        script.is_ok_and(|status| status.success()).then(|| target.join("monitoring-tools"))
    });
    if found.is_none() {
        crate::common::say!("skipped: Debian's prometheus and its exporter cannot be had here");
    }
    found.clone()
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn get(port: u16, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(20))).ok()?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    head.starts_with("HTTP/1.0 200")
        .then(|| body.to_owned())
        .or_else(|| head.contains(" 200 ").then(|| body.to_owned()))
}

/// The value of a query of Prometheus' API; none while there is none.
fn ask(port: u16, query: &str) -> Option<f64> {
    let encoded: String = query.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let answer: Value = serde_json::from_str(&get(port, &format!("/api/v1/query?query={encoded}"))?).ok()?;
    answer["data"]["result"][0]["value"][1].as_str()?.parse().ok()
}

#[track_caller]
fn wait_for(what: &str, mut ready: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !ready() {
        assert!(begun.elapsed() < Duration::from_secs(60), "{what} did not come");
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn feed(program: &Path, arguments: &[&str], input: &str) -> (bool, String) {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    (output.status.success(), said)
}

/// Logins, forged logins, charges and a charge that is refused.
fn work(database: &Database) {
    let good = Token::for_member("u1", "o1").sign();
    let forged = Token::for_member("u1", "o1").sign_with(b"not the secret of the issuer, but as long as it");
    let mut app = database.connect("app");
    for _ in 0..3 {
        app.batch_execute("BEGIN").unwrap();
        app.query("SELECT tenancy.authenticate($1)", &[&good]).unwrap();
        app.batch_execute("SAVEPOINT s").unwrap();
        app.query("SELECT * FROM tenancy.spend_credits(1)", &[]).unwrap();
        assert!(app.query("SELECT * FROM tenancy.spend_credits(1000000)", &[]).is_err());
        app.batch_execute("ROLLBACK TO s").unwrap();
        app.query("SELECT * FROM tenancy.take_rate_limit('api')", &[]).unwrap();
        app.query("SELECT tenancy.record_llm_usage('p', 'm', 10, 5, latency_ms => 300)", &[]).unwrap();
        app.batch_execute("COMMIT").unwrap();
        assert!(app.query("SELECT tenancy.authenticate($1)", &[&forged]).is_err());
    }
}

fn prepared() -> Cluster {
    Cluster::start(Options { settings: vec![("tenancy.metrics_tenants", "3".into())], ..Options::default() })
}

fn world(cluster: &Cluster) -> Database<'_> {
    let database = cluster.database();
    database
        .connect("ops")
        .batch_execute(
            "SELECT tenancy.register_user('u1'); SELECT tenancy.register_organization('o1', 'One \"&\\ Söner');
             SELECT tenancy.set_subscription('o1', 'team', 'active', 3); SELECT tenancy.assign_seat('o1', 'u1');
             SELECT tenancy.grant_credits(1000, org_id => 'o1'); SELECT tenancy.set_rate_limit('api', 2, '1 hour')",
        )
        .unwrap();
    database.connect("svc").query("SELECT tenancy.hold_credits('u1', 5, 'o1')", &[]).unwrap();
    database
}

#[test]
fn prometheus_sees_the_counters_move() {
    let Some(tools) = tools() else { return };
    let programs = tools.join("usr/bin");
    let cluster = prepared();
    let database = world(&cluster);
    work(&database);
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (exporter_port, prometheus_port) = (free_port(), free_port());

    let _exporter = Running(
        Command::new(programs.join("prometheus-postgres-exporter"))
            .env(
                "DATA_SOURCE_NAME",
                format!("host={} user=met dbname={} sslmode=disable", cluster.folder().display(), database.name),
            )
            .arg(format!("--web.listen-address=127.0.0.1:{exporter_port}"))
            .arg(format!("--extend.query-path={}", root.join("monitoring/queries.yaml").display()))
            .args(["--disable-default-metrics", "--disable-settings-metrics"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap(),
    );
    let folder = cluster.folder().join("prometheus");
    std::fs::create_dir(&folder).unwrap();
    let configuration = folder.join("prometheus.yml");
    std::fs::write(
        &configuration,
        format!(
            "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: ['{}']\nscrape_configs:\n\
             - job_name: pg_tenancy\n  static_configs: [{{targets: ['127.0.0.1:{exporter_port}']}}]\n",
            root.join("monitoring/pg_tenancy.rules.yml").display()
        ),
    )
    .unwrap();
    let _prometheus = Running(
        Command::new(programs.join("prometheus"))
            .arg(format!("--config.file={}", configuration.display()))
            .arg(format!("--storage.tsdb.path={}", folder.join("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{prometheus_port}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap(),
    );

    let series = [
        r#"sum(pg_tenancy_authentications_total{outcome="accepted",tenant="o1"})"#,
        r#"sum(pg_tenancy_authentications_total{outcome="refused",reason="invalid_signature"})"#,
        r#"sum(pg_tenancy_denials_total{reason="insufficient_credits",tenant="o1"})"#,
        r#"sum(pg_tenancy_debits_total{tenant="o1"})"#,
        r#"sum(pg_tenancy_llm_tokens_total{direction="input",tenant="o1"})"#,
        r#"sum(pg_tenancy_authentication_seconds_count_total)"#,
    ];
    wait_for("every series", || series.iter().all(|query| ask(prometheus_port, query).is_some()));
    let before: Vec<f64> = series.iter().map(|query| ask(prometheus_port, query).unwrap()).collect();
    assert_eq!(before[0], 3.0, "three logins before Prometheus came");
    assert_eq!(before[1], 3.0, "and three forged ones");
    work(&database);
    for (query, before) in series.iter().zip(&before) {
        let more = if query.contains("llm") { 30.0 } else { 3.0 };
        wait_for(query, || ask(prometheus_port, query) == Some(before + more));
    }
    assert_eq!(ask(prometheus_port, "pg_tenancy_preloaded"), Some(1.0));
    // The charges were rolled back with their savepoint, the pool is as it was.
    assert_eq!(ask(prometheus_port, r#"pg_tenancy_pool_balance_credits{tenant="o1"}"#), Some(1000.0));
    assert_eq!(ask(prometheus_port, r#"pg_tenancy_pool_held_credits{tenant="o1"}"#), Some(5.0));
    assert_eq!(ask(prometheus_port, r#"pg_tenancy_open_holds{tenant="o1"}"#), Some(1.0));
    let decisions = r#"sum(pg_tenancy_rate_limit_decisions_total{decision="denied"})"#;
    wait_for(decisions, || ask(prometheus_port, decisions) == Some(4.0));
    let rules: Value = serde_json::from_str(&get(prometheus_port, "/api/v1/rules").unwrap()).unwrap();
    for rule in rules["data"]["groups"][0]["rules"].as_array().unwrap() {
        wait_for("the rules", || {
            let rules: Value = serde_json::from_str(&get(prometheus_port, "/api/v1/rules").unwrap()).unwrap();
            rules["data"]["groups"][0]["rules"].as_array().unwrap().iter().all(|rule| rule["health"] == "ok")
        });
        assert!(rule["lastError"].is_null(), "{rule}");
    }

    let promtool = programs.join("promtool");
    let exported = get(exporter_port, "/metrics").unwrap();
    let ours: String =
        exported.lines().filter(|line| line.contains("pg_tenancy")).map(|line| format!("{line}\n")).collect();
    assert!(ours.contains("pg_tenancy_pools_low"), "{ours}");
    let (passed, said) = feed(&promtool, &["check", "metrics"], &ours);
    assert!(passed, "promtool check metrics: {said}");
    let rules = root.join("monitoring/pg_tenancy.rules.yml");
    let (passed, said) = feed(&promtool, &["check", "rules", rules.to_str().unwrap()], "");
    assert!(passed, "promtool check rules: {said}");
    let cases = std::fs::read_to_string(root.join("tests/data/prometheus_rules_test.yml")).unwrap();
    let cases_file = folder.join("rules_test.yml");
    std::fs::write(&cases_file, cases.replace("RULES", rules.to_str().unwrap())).unwrap();
    let (passed, said) = feed(&promtool, &["test", "rules", cases_file.to_str().unwrap()], "");
    assert!(passed, "promtool test rules: {said}");
    let (passed, said) = feed(&promtool, &["check", "config", configuration.to_str().unwrap()], "");
    assert!(passed, "promtool check config: {said}");
}

/// The text is held against the grammar by the parser of the Prometheus project's own Python client.
#[test]
fn the_text_is_openmetrics() {
    let Some(tools) = tools() else { return };
    let cluster = prepared();
    let database = world(&cluster);
    work(&database);
    let text: String = database.connect("met").query_one("SELECT tenancy.metrics_text()", &[]).unwrap().get(0);
    let program = "import sys
from prometheus_client.openmetrics.parser import text_string_to_metric_families
families = {family.name: family for family in text_string_to_metric_families(sys.stdin.read())}
assert families['pg_tenancy_authentications'].type == 'counter', families
assert families['pg_tenancy_authentication_seconds'].type == 'histogram'
assert families['pg_tenancy_llm_latency_seconds'].type == 'histogram'
assert families['pg_tenancy_pool_balance_credits'].type == 'gauge'
undocumented = [name for name, family in families.items() if not family.documentation]
assert not undocumented, undocumented
print(len(families))";
    let (passed, said) = feed(&tools.join("python/bin/python"), &["-c", program], &text);
    assert!(passed, "{said}\n{text}");
    assert!(text.ends_with("# EOF\n"));
}

#[test]
fn the_dashboard_asks_for_series_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |name: &str| std::fs::read_to_string(root.join("monitoring").join(name)).unwrap();
    let dashboard: Value = serde_json::from_str(&read("grafana-dashboard.json")).unwrap();
    let queries = read("queries.yaml");
    let mut known = Vec::new();
    let mut key = "";
    for line in queries.lines() {
        if let Some(name) = line.strip_suffix(':').filter(|name| name.starts_with("pg_tenancy")) {
            key = name;
        } else if let Some((column, _)) = line.trim().strip_prefix("- ").and_then(|line| line.split_once(": {")) {
            known.push(format!("{key}_{column}"));
        }
    }
    let mut asked = 0;
    for expression in
        dashboard["panels"].as_array().unwrap().iter().map(|panel| panel["targets"][0]["expr"].as_str().unwrap())
    {
        for word in expression.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_') {
            if word.starts_with("pg_tenancy") {
                assert!(known.iter().any(|name| name == word), "{word} is not in queries.yaml");
                asked += 1;
            }
        }
    }
    assert!(asked >= 14);
}
