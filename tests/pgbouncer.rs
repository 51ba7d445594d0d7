//! PgBouncer in transaction mode: three tenants' clients share four server connections, whose SQL-level prepared
//! statements outlive every identity. Never a wrong row, never an identity left over (attacks 7 and 11). The same with the
//! clients' own prepared statements, which PgBouncer carries from 1.21 on.

mod common;

use common::{Database, Token, cluster, in_parallel};
use postgres::{Client, NoTls, SimpleQueryMessage};
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const TENANTS: [&str; 3] = ["acme", "beta", "gamma"];
const CLIENTS: usize = 12;
const TRANSACTIONS: usize = 10_000;
const SERVER_CONNECTIONS: usize = 4;

/// Prepared on each server connection when it is made, as PgBouncer before 1.21 cannot carry a client's own.
const PREPARED: &str = "PREPARE login (text) AS SELECT tenancy.authenticate($1); \
    PREPARE mine AS SELECT e.tenant_id, tenancy.tenant_id(), pg_backend_pid() FROM public.essays AS e ORDER BY e.id; \
    PREPARE who AS SELECT tenancy.user_id(), tenancy.tenant_id(), pg_backend_pid()";

/// A PgBouncer that ends when it is dropped, and with this process.
struct Bouncer {
    watcher: Child,
    port: u16,
}

impl Drop for Bouncer {
    fn drop(&mut self) {
        drop(self.watcher.stdin.take());
        let _ = self.watcher.wait();
    }
}

/// `port` names its socket and files; `on_connect` is a setting of its database.
fn start(program: &OsStr, database: &Database, port: u16, on_connect: &str, settings: &str) -> Bouncer {
    let folder = database.cluster().folder();
    let shown = folder.display();
    let users = database.cluster().write_file(&format!("users-{port}.txt"), "\"app\" \"\"\n", 0o600);
    let configuration = format!(
        "[databases]\n{name} = host={shown} {on_connect}\n\
         [pgbouncer]\n{settings}\nlisten_port = {port}\nunix_socket_dir = {shown}\nauth_type = trust\nauth_file = {users}\n\
         pool_mode = transaction\ndefault_pool_size = {SERVER_CONNECTIONS}\nmax_db_connections = {SERVER_CONNECTIONS}\n\
         ignore_startup_parameters = extra_float_digits\nlog_connections = 0\nlog_disconnections = 0\n",
        name = database.name,
        users = users.display(),
    );
    let file = database.cluster().write_file(&format!("pgbouncer-{port}.ini"), &configuration, 0o600);
    // PgBouncer does not run as root: it becomes the server's user by itself.
    let user = if fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0) {
        "-u postgres"
    } else {
        ""
    };
    let log = folder.join(format!("pgbouncer-{port}.log"));
    let script = r#""$1" $2 "$3" >"$4" 2>&1 & pid=$!; read -r _; kill "$pid"; wait "$pid""#;
    let watcher = Command::new("sh")
        .args(["-c", script, "sh"])
        .arg(program)
        .arg(user)
        .args([&file, &log])
        .stdin(Stdio::piped())
        .spawn()
        .expect("sh runs");
    let bouncer = Bouncer { watcher, port };
    let deadline = Instant::now() + Duration::from_secs(60);
    // The socket's file is there before anybody listens.
    while UnixStream::connect(folder.join(format!(".s.PGSQL.{port}"))).is_err() {
        let said = fs::read_to_string(&log).unwrap_or_default();
        assert!(Instant::now() < deadline, "pgbouncer does not start:\n{said}");
        std::thread::sleep(Duration::from_millis(20));
    }
    bouncer
}

impl Bouncer {
    fn connect(&self, database: &Database) -> Client {
        let mut config = database.config("app");
        config.port(self.port);
        config.connect(NoTls).expect("pgbouncer takes the connection")
    }
}

/// The rows of a simple query: PgBouncer before 1.21 knows no protocol-level prepared statements.
fn rows(client: &mut Client, statements: &str) -> Result<Vec<[Option<String>; 3]>, postgres::Error> {
    let messages = client.simple_query(statements)?;
    Ok(messages
        .iter()
        .filter_map(|message| match message {
            SimpleQueryMessage::Row(row) if row.len() == 3 => Some([0, 1, 2].map(|at| row.get(at).map(str::to_owned))),
            _ => None,
        })
        .collect())
}

fn essays() -> Database<'static> {
    let database = cluster().database();
    database
        .superuser()
        .batch_execute(
            "CREATE TABLE public.essays (tenant_id text NOT NULL, id int, PRIMARY KEY (tenant_id, id));
             INSERT INTO public.essays SELECT t, i FROM unnest(ARRAY['acme', 'beta', 'gamma']) AS t, generate_series(1, 4) AS i;
             ALTER TABLE public.essays ENABLE ROW LEVEL SECURITY;
             ALTER TABLE public.essays FORCE ROW LEVEL SECURITY;
             CREATE POLICY own_rows ON public.essays TO app USING (tenant_id = tenancy.tenant_id());
             GRANT SELECT ON public.essays TO app;",
        )
        .expect("a table can be made");
    database
}

#[test]
fn identity_11_ten_thousand_transactions_over_four_connections_show_no_wrong_row() {
    let Some(program) = std::env::var_os("PGT_PGBOUNCER") else {
        crate::common::say!("skipped: PGT_PGBOUNCER names no PgBouncer (scripts/peers.sh)");
        return;
    };
    let database = essays();
    let bouncer = start(&program, &database, 6432, &format!("connect_query='{PREPARED}'"), "");
    let begun = Instant::now();
    let pids: BTreeSet<String> =
        in_parallel(CLIENTS, |index| session(&bouncer, &database, index)).into_iter().flatten().collect();
    crate::common::say!("{TRANSACTIONS} transactions in {:?} over {} server connections", begun.elapsed(), pids.len());
    assert!((2..=SERVER_CONNECTIONS).contains(&pids.len()), "{pids:?}");
}

/// One client's transactions; gives the server connections it met.
fn session(bouncer: &Bouncer, database: &Database, index: usize) -> BTreeSet<String> {
    let mut client = bouncer.connect(database);
    let tenant = TENANTS[index % TENANTS.len()];
    let user = format!("user-{index}");
    let token = Token::for_member(&user, tenant).sign();
    let login = format!("EXECUTE login('{token}')");
    let mut pids = BTreeSet::new();
    let share = TRANSACTIONS / CLIENTS + usize::from(index < TRANSACTIONS % CLIENTS);
    for turn in 0..share {
        let seen = match turn % 10 {
            // Without a login: nobody, whoever used the connection before.
            0 | 5 => {
                let seen = rows(&mut client, "BEGIN; EXECUTE who; EXECUTE mine; COMMIT").expect("nobody may ask");
                assert_eq!(seen.len(), 1, "rows without a login: {seen:?}");
                assert_eq!((&seen[0][0], &seen[0][1]), (&None, &None), "an identity was left over");
                seen
            }
            // Statement by statement, as a driver would.
            1 => {
                rows(&mut client, "BEGIN").unwrap();
                rows(&mut client, &login).expect("the token is good");
                let seen = rows(&mut client, "EXECUTE mine").unwrap();
                rows(&mut client, "ROLLBACK").unwrap();
                is_all_of(&seen, tenant);
                seen
            }
            // A transaction that fails and is rolled back leaves the connection to the next one.
            2 => {
                assert!(rows(&mut client, &format!("BEGIN; {login}; SELECT 1/0")).is_err());
                rows(&mut client, "ROLLBACK").unwrap();
                continue;
            }
            // Under autocommit the identity is gone with its statement.
            3 => {
                rows(&mut client, &login).expect("the token is good");
                let seen = rows(&mut client, "EXECUTE who").unwrap();
                assert_eq!((&seen[0][0], &seen[0][1]), (&None, &None));
                seen
            }
            _ => {
                let seen = rows(&mut client, &format!("BEGIN; {login}; EXECUTE who; EXECUTE mine; COMMIT")).unwrap();
                assert_eq!(seen[0][0].as_deref(), Some(user.as_str()));
                assert_eq!(seen[0][1].as_deref(), Some(tenant));
                is_all_of(&seen[1..], tenant);
                seen
            }
        };
        pids.extend(seen.into_iter().filter_map(|[_, _, pid]| pid));
    }
    pids
}

fn is_all_of(seen: &[[Option<String>; 3]], tenant: &str) {
    assert_eq!(seen.len(), 4, "{tenant} sees its own rows: {seen:?}");
    for [row_tenant, own_tenant, _] in seen {
        assert_eq!(row_tenant.as_deref(), Some(tenant), "another tenant's row");
        assert_eq!(own_tenant.as_deref(), Some(tenant));
    }
}

/// The clients' drivers prepare as they do without a pooler; PgBouncer prepares anew on each server connection it uses, and
/// the plans, made under one tenant's identity, serve the others.
#[test]
fn protocol_level_prepared_statements_show_no_wrong_row() {
    let Some(program) = std::env::var_os("PGT_PGBOUNCER_NEW") else {
        crate::common::say!("skipped: PGT_PGBOUNCER_NEW names no PgBouncer of 1.21 or later (scripts/peers.sh)");
        return;
    };
    let database = essays();
    let bouncer = start(&program, &database, 6433, "", "max_prepared_statements = 20");
    let pids: BTreeSet<i32> =
        in_parallel(CLIENTS, |index| prepared_session(&bouncer, &database, index)).into_iter().flatten().collect();
    crate::common::say!("{} transactions over {} server connections", CLIENTS * 100, pids.len());
    assert!((2..=SERVER_CONNECTIONS).contains(&pids.len()), "{pids:?}");
}

fn prepared_session(bouncer: &Bouncer, database: &Database, index: usize) -> BTreeSet<i32> {
    let mut client = bouncer.connect(database);
    let tenant = TENANTS[index % TENANTS.len()];
    let token = Token::for_member(&format!("user-{index}"), tenant).sign();
    let login = client.prepare("SELECT tenancy.authenticate($1)").expect("PgBouncer carries it");
    let mine = client
        .prepare("SELECT e.tenant_id, tenancy.tenant_id(), pg_backend_pid() FROM public.essays AS e WHERE e.id > $1")
        .unwrap();
    let mut pids = BTreeSet::new();
    for turn in 0..100 {
        let mut transaction = client.transaction().unwrap();
        if turn % 5 > 0 {
            transaction.query(&login, &[&token]).expect("the token is good");
        }
        let seen = transaction.query(&mine, &[&0]).unwrap();
        transaction.commit().unwrap();
        assert_eq!(seen.len(), if turn % 5 > 0 { 4 } else { 0 }, "{tenant} sees its own rows, nobody none");
        for row in seen {
            assert_eq!((row.get::<_, &str>(0), row.get::<_, &str>(1)), (tenant, tenant));
            pids.insert(row.get(2));
        }
    }
    pids
}
