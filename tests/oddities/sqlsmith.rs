//! sqlsmith makes up statements from the catalog; here they are run under a tenant's identity, and what they return is
//! looked at. `make torture` takes its time: PGT_SMITH_SECONDS.

use crate::common::{Cluster, Database, Options, Token};
use postgres::{Client, NoTls, SimpleQueryMessage};
use std::io::{BufRead, BufReader, Split};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

/// In every row of the other tenant, and nowhere else.
const MARK: &str = "row_of_beta";

fn two_tenants(database: &Database) {
    database
        .superuser()
        .batch_execute(&format!(
            "CREATE TABLE public.essays (tenant_id text NOT NULL, id int, body text, meta jsonb, PRIMARY KEY (tenant_id, id));
             GRANT SELECT, INSERT, UPDATE, DELETE ON public.essays TO app;
             SELECT tenancy.protect_table('public.essays');
             INSERT INTO public.essays SELECT 'acme', n, 'ours', '{{}}' FROM generate_series(1, 20) AS n;
             INSERT INTO public.essays SELECT '{MARK}', n, '{MARK}', '{{\"of\": \"{MARK}\"}}' FROM generate_series(1, 20) AS n;
             SELECT tenancy.register_user('ada'), tenancy.register_user('{MARK}');
             SELECT tenancy.register_organization('acme', 'Acme'), tenancy.register_organization('{MARK}', '{MARK}');
             SELECT tenancy.set_subscription(o, 'teams', 'active', 3), tenancy.grant_credits(100, org_id => o)
               FROM unnest(ARRAY['acme', '{MARK}']) AS o;
             SELECT tenancy.assign_seat('acme', 'ada'), tenancy.assign_seat('{MARK}', '{MARK}');
             SELECT tenancy.deduct_credits('ada', 1, 'acme'), tenancy.deduct_credits('{MARK}', 1, '{MARK}', '{MARK}', '{MARK}');
             ANALYZE"
        ))
        .expect("two tenants can be made");
}

fn seconds() -> u64 {
    std::env::var("PGT_SMITH_SECONDS").map_or(30, |text| text.parse().expect("PGT_SMITH_SECONDS is a number"))
}

/// Statements without end, made up for a role.
struct Smith {
    process: Child,
    output: Split<BufReader<ChildStdout>>,
}

impl Smith {
    fn new(database: &Database, role: &str, seed: u64) -> Self {
        let target = format!("host={} dbname={} user={role}", database.cluster().folder().display(), database.name);
        let mut process = Command::new("sqlsmith")
            .args(["--dry-run", &format!("--target={target}"), &format!("--seed={seed}")])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("sqlsmith is installed (package sqlsmith)");
        let output = BufReader::new(process.stdout.take().expect("its output is piped")).split(b';');
        Self { process, output }
    }
}

impl Iterator for Smith {
    type Item = String;

    fn next(&mut self) -> Option<String> {
        self.output.next().map(|statement| String::from_utf8_lossy(&statement.expect("it can be read")).into_owned())
    }
}

impl Drop for Smith {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn connect(database: &Database, role: &str) -> Client {
    let mut config = database.config(role);
    config.options("-c statement_timeout=300ms -c lock_timeout=100ms");
    config.connect(NoTls).expect("the server is up")
}

/// Runs them until the time is over; what was seen of the other tenant, and how many were run and answered.
fn run(database: &Database, role: &str, seed: u64, token: Option<&str>) -> (Vec<String>, usize, usize) {
    let deadline = Instant::now() + Duration::from_secs(seconds());
    let mut client = connect(database, role);
    let (mut seen, mut run, mut answered) = (Vec::new(), 0, 0);
    for statement in Smith::new(database, role, seed) {
        if Instant::now() > deadline {
            break;
        }
        client.batch_execute("BEGIN").unwrap();
        if let Some(token) = token {
            client.query("SELECT tenancy.authenticate($1)", &[&token]).unwrap();
        }
        run += 1;
        match client.simple_query(&statement) {
            Ok(messages) => {
                answered += 1;
                let shows = |message: &SimpleQueryMessage| match message {
                    SimpleQueryMessage::Row(row) => {
                        (0..row.len()).any(|n| row.get(n).is_some_and(|value| value.contains(MARK)))
                    }
                    _ => false,
                };
                if !statement.contains(MARK) && messages.iter().any(shows) {
                    seen.push(statement.clone());
                }
            }
            Err(error) => {
                let code = error.code().map(|code| code.code().to_owned()).unwrap_or_default();
                let text = format!("{error:?}");
                assert!(
                    !text.contains("panicked") && (!code.starts_with("XX") || !text.contains("tenancy")),
                    "{role}: {statement}: {text}"
                );
            }
        }
        // A made-up statement may end its own session.
        if client.is_closed() || client.batch_execute("ROLLBACK").is_err() {
            client = connect(database, role);
        }
    }
    (seen, run, answered)
}

#[test]
fn made_up_statements_crash_nothing_and_show_no_other_tenant() {
    let settings = vec![("log_error_verbosity", "verbose".into()), ("temp_file_limit", "200MB".into())];
    let cluster = Cluster::start(Options { settings, ..Options::default() });
    let database = cluster.database();
    two_tenants(&database);
    let seed = std::env::var("PGT_SEED")
        .map_or_else(|_| u64::from(std::process::id()), |seed| seed.parse().expect("PGT_SEED is a number"));
    crate::common::say!("PGT_SEED={seed}");
    let token = Token::for_member("ada", "acme").claim("org_role", "admin").sign();
    let (application, operator) = std::thread::scope(|scope| {
        let application = scope.spawn(|| run(&database, "app", seed, Some(&token)));
        let operator = scope.spawn(|| run(&database, "ops", seed + 1, None));
        (application.join().expect("the application's statements"), operator.join().expect("the operator's statements"))
    });
    let (seen, run, answered) = application;
    crate::common::say!(
        "application: {run} statements, {answered} answered; operator: {}, {} answered",
        operator.1,
        operator.2
    );
    assert!(seen.is_empty(), "rows of another tenant: {seen:#?}");
    assert!(answered > 5 && operator.2 > 5, "too few: {answered} and {} answered", operator.2);
    let log = cluster.log();
    for sign in ["terminated by signal", "panicked", "TRAP"] {
        assert!(!log.contains(sign), "the log tells of {sign}; PGT_SEED={seed}");
    }
}
