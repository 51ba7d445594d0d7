//! sqlsmith makes up statements from the catalog; here they are run under a tenant's identity, and what they return is
//! looked at. `make torture` takes its time: PGT_SMITH_SECONDS.

use crate::common::{Cluster, Database, Options, Token, in_parallel};
use postgres::{Client, NoTls, SimpleQueryMessage};
use std::io::{BufRead, BufReader, Split};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

/// In every row of the other tenant, and nowhere else.
const MARK: &str = "row_of_beta";

/// In the other tenant's rows of the product's own table alone: what an operator, who may know every tenant and
/// account, may not read either.
const TEXT: &str = "essay_of_beta";

/// As many statements of each kind of session must have been answered, however long that takes.
const ENOUGH: usize = 100;

fn two_tenants(database: &Database) {
    database
        .superuser()
        .batch_execute(&format!(
            "CREATE TABLE public.essays (tenant_id text NOT NULL, id int, body text, meta jsonb, PRIMARY KEY (tenant_id, id));
             GRANT SELECT, INSERT, UPDATE, DELETE ON public.essays TO app, ops;
             SELECT tenancy.protect_table('public.essays');
             INSERT INTO public.essays SELECT 'acme', n, 'ours', '{{}}' FROM generate_series(1, 20) AS n;
             INSERT INTO public.essays SELECT '{MARK}', n, '{TEXT}', '{{\"of\": \"{TEXT}\"}}' FROM generate_series(1, 20) AS n;
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
    std::env::var("PGT_SMITH_SECONDS").map_or(60, |text| text.parse().expect("PGT_SMITH_SECONDS is a number"))
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
    config.options("-c lock_timeout=100ms");
    config.connect(NoTls).expect("the server is up")
}

/// What was seen in a session's statements.
#[derive(Default)]
struct Seen {
    run: usize,
    answered: usize,
    /// Rows that were answered.
    rows: usize,
    /// Statements that showed what was not to be seen.
    leaks: Vec<String>,
}

/// Runs made-up statements until the time is over and enough were answered, every other one without an identity.
fn run(database: &Database, role: &str, seed: u64, token: &str, hidden: &[&str]) -> Seen {
    let begun = Instant::now();
    let over = |seen: &Seen| begun.elapsed() > Duration::from_secs(seconds()) && seen.answered >= ENOUGH;
    let mut client = connect(database, role);
    let mut seen = Seen::default();
    for statement in Smith::new(database, role, seed) {
        if over(&seen) || begun.elapsed() > Duration::from_secs(seconds() + 600) {
            break;
        }
        client.batch_execute("BEGIN").unwrap();
        if seen.run % 2 == 0 {
            client.query("SELECT tenancy.authenticate($1)", &[&token]).unwrap();
        }
        // For the made-up statement alone: the login may take its time on a busy machine.
        client.batch_execute("SET LOCAL statement_timeout = '300ms'").unwrap();
        seen.run += 1;
        match client.simple_query(&statement) {
            Ok(messages) => {
                seen.answered += 1;
                for message in &messages {
                    let SimpleQueryMessage::Row(row) = message else { continue };
                    seen.rows += 1;
                    let shows =
                        |mark: &&&str| (0..row.len()).any(|n| row.get(n).is_some_and(|value| value.contains(**mark)));
                    if hidden.iter().filter(|mark| !statement.contains(**mark)).any(|mark| shows(&mark)) {
                        seen.leaks.push(statement.clone());
                        break;
                    }
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
    seen
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
    let sessions = [("app", &[MARK, TEXT][..]), ("ops", &[TEXT][..])];
    let seen = in_parallel(sessions.len(), |index| {
        let (role, hidden) = sessions[index];
        run(&database, role, seed + index as u64, &token, hidden)
    });
    for ((role, _), seen) in sessions.iter().zip(seen) {
        let Seen { run, answered, rows, leaks } = seen;
        crate::common::say!("{role}: {run} statements, {answered} answered with {rows} rows");
        assert!(leaks.is_empty(), "{role} saw rows of another tenant: {leaks:#?}");
        assert!(answered >= ENOUGH, "{role}: only {answered} of {run} statements answered");
    }
    let log = cluster.log();
    for sign in ["terminated by signal", "panicked", "TRAP"] {
        assert!(!log.contains(sign), "the log tells of {sign}; PGT_SEED={seed}");
    }
}
