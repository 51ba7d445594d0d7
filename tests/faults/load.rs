//! The load: sessions that charge, hold, capture, refund, authenticate and publish, and write down what the server
//! acknowledged.

use crate::common::copies::clean;
use crate::common::{Cluster, Database, Token};
use postgres::{Client, Error, NoTls};
use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use uuid::Uuid;

const SESSIONS: usize = 8;

/// So much is acknowledged before a fault, and again after it.
const ENOUGH: usize = 30;

/// No step of a test takes longer, on whatever machine.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// What the server said yes to.
#[derive(Default)]
pub struct Journal {
    /// Ids of ledger entries.
    entries: HashSet<Uuid>,
    /// Ids of holds.
    holds: HashSet<Uuid>,
    /// Ids of events.
    events: HashSet<Uuid>,
    /// Idempotency keys of charges whose answer came, perhaps only when they were sent again.
    keys: HashSet<String>,
}

impl Journal {
    fn add(&mut self, other: Journal) {
        self.entries.extend(other.entries);
        self.holds.extend(other.holds);
        self.events.extend(other.events);
        self.keys.extend(other.keys);
    }
}

/// How many rounds of each fault, and how long the load runs around one.
pub fn rounds() -> usize {
    std::env::var("PGT_ROUNDS").map_or(1, |rounds| rounds.parse().expect("PGT_ROUNDS is a number"))
}

/// How long the load runs on each side of a fault.
pub fn a_while() -> Duration {
    let seconds = std::env::var("PGT_SECONDS").map_or(0.4, |text| text.parse().expect("PGT_SECONDS is a number"));
    Duration::from_secs_f64(seconds)
}

/// Three organizations with a member and more credits than any run spends, and a protected table.
pub fn prepare(database: &Database) {
    database
        .superuser()
        .batch_execute(
            "CREATE TABLE public.essays (id uuid PRIMARY KEY DEFAULT tenancy.uuid_v7(), tenant_id text NOT NULL, body text);
             GRANT SELECT, INSERT ON public.essays TO app;
             SELECT tenancy.protect_table('public.essays');
             SELECT tenancy.register_user('u' || n), tenancy.register_organization('o' || n, 'O' || n) FROM generate_series(0, 2) AS n;
             SELECT tenancy.set_subscription('o' || n, 'teams', 'active', 5) FROM generate_series(0, 2) AS n;
             SELECT tenancy.assign_seat('o' || n, 'u' || n), tenancy.grant_credits(100000000, org_id => 'o' || n)
               FROM generate_series(0, 2) AS n;",
        )
        .expect("the load can be prepared");
}

/// The load while it runs: what the sessions have seen together.
#[derive(Default)]
pub struct Load {
    acknowledged: AtomicUsize,
    /// SQLSTATEs of the requests that failed; an empty one for those that were cut off.
    failed: Mutex<Vec<String>>,
    stop: AtomicBool,
}

impl Load {
    /// How many requests have failed so far.
    pub fn failures(&self) -> usize {
        self.failed.lock().expect("no session panics").len()
    }

    /// Whether a request failed with this SQLSTATE (`None`: with any, or cut off) after so many failures.
    pub fn failed_since(&self, earlier: usize, sqlstate: Option<&str>) -> bool {
        let failed = self.failed.lock().expect("no session panics");
        failed.iter().skip(earlier).any(|code| sqlstate.is_none_or(|sqlstate| sqlstate == code))
    }

    /// Waits until so much more was acknowledged.
    #[track_caller]
    fn goes_on(&self, when: &str) {
        let from = self.acknowledged.load(Ordering::Relaxed);
        let deadline = Instant::now() + PATIENCE;
        while self.acknowledged.load(Ordering::Relaxed) < from + ENOUGH {
            assert!(Instant::now() < deadline, "{when}: the load does not go on");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Runs the load while `fault` does its work, some time before and after it, and until enough was acknowledged on
/// either side of it. How many requests failed since the fault began.
pub fn under_load(database: &Database, journal: &mut Journal, name: &str, fault: impl FnOnce(&Load)) -> usize {
    static RUN: AtomicUsize = AtomicUsize::new(0);
    let run = RUN.fetch_add(1, Ordering::Relaxed);
    let load = &Load::default();
    let (failures, told) = std::thread::scope(|scope| {
        let sessions: Vec<_> = (0..SESSIONS)
            .map(|number| scope.spawn(move || Session::new(database, (run * SESSIONS + number) as u64, load).work()))
            .collect();
        // Also when an assertion fails.
        let _end = AtEnd(&load.stop);
        std::thread::sleep(a_while());
        load.goes_on(&format!("before {name}"));
        let earlier = load.failures();
        fault(load);
        std::thread::sleep(a_while());
        load.goes_on(&format!("after {name}"));
        load.stop.store(true, Ordering::Relaxed);
        let told: Vec<_> = sessions.into_iter().map(|session| session.join().expect("no session panics")).collect();
        (load.failures() - earlier, told)
    });
    told.into_iter().for_each(|session| journal.add(session));
    failures
}

struct AtEnd<'a>(&'a AtomicBool);

impl Drop for AtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Everything acknowledged is there, once; ledger and isolation are clean; the server's log tells of no bug.
#[track_caller]
pub fn nothing_lost(cluster: &Cluster, database: &Database, journal: &Journal, after: &str) {
    let mut client = connected(database);
    let mut missing = |ids: &HashSet<Uuid>, statement: &str| {
        let there: HashSet<Uuid> = client.query(statement, &[]).unwrap().iter().map(|row| row.get(0)).collect();
        ids.difference(&there).count()
    };
    assert_eq!(
        missing(&journal.entries, "SELECT id FROM tenancy.credit_transactions"),
        0,
        "entries lost after {after}"
    );
    assert_eq!(missing(&journal.holds, "SELECT id FROM tenancy.credit_holds"), 0, "holds lost after {after}");
    assert_eq!(missing(&journal.events, "SELECT id FROM tenancy.event_outbox"), 0, "events lost after {after}");
    let charges = "SELECT reference_id, count(*) FROM tenancy.credit_transactions
                    WHERE reference_id LIKE 'key-%' AND operation_type = 'deduction' GROUP BY 1";
    let charges = client.query(charges, &[]).unwrap();
    assert!(charges.iter().all(|row| row.get::<_, i64>(1) == 1), "a key was charged twice after {after}");
    let charged: HashSet<String> = charges.iter().map(|row| row.get(0)).collect();
    assert!(journal.keys.is_subset(&charged), "a charge by key is lost after {after}");
    let foreign = "SELECT count(*) FROM public.essays WHERE body <> tenant_id";
    assert_eq!(client.query_one(foreign, &[]).unwrap().get::<_, i64>(0), 0, "a row of another tenant after {after}");
    clean(&mut client);
    let log = cluster.log();
    // Of a session: the server's own processes may end with one when they cannot write.
    for sign in ["panicked", "ERROR:  XX000", "TRAP", "invalid memory"] {
        let mut lines = log.lines().enumerate();
        // There is no SQLSTATE for a file that may not grow.
        let found = lines.find(|(_, line)| line.contains(sign) && !line.contains("File too large"));
        if let Some((at, _)) = found {
            let lines: Vec<&str> = log.lines().skip(at).take(8).collect();
            panic!("the log after {after}:\n{}", lines.join("\n"));
        }
    }
}

/// A connection as the superuser as soon as the server takes one.
pub fn connected(database: &Database) -> Client {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match database.config("postgres").connect(NoTls) {
            Ok(client) => return client,
            Err(error) => assert!(Instant::now() < deadline, "the server does not come back: {error}"),
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

struct Session<'a> {
    database: &'a Database<'a>,
    number: u64,
    random: u64,
    token: String,
    journal: Journal,
    load: &'a Load,
    /// A charge by key that got no answer: sent again until it gets one.
    unanswered: Option<String>,
    refundable: Vec<Uuid>,
}

impl<'a> Session<'a> {
    fn new(database: &'a Database<'a>, number: u64, load: &'a Load) -> Self {
        let token = Token::for_member(&format!("u{}", number % 3), &format!("o{}", number % 3)).sign();
        let random = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let journal = Journal::default();
        Self { database, number, random, token, journal, load, unanswered: None, refundable: Vec::new() }
    }

    fn work(mut self) -> Journal {
        let mut clients = None;
        let mut sent = 0;
        while !self.load.stop.load(Ordering::Relaxed) {
            let (service, app) = match &mut clients {
                Some(pair) => pair,
                None => match self.connect() {
                    Ok(pair) => clients.insert(pair),
                    Err(_) => {
                        std::thread::sleep(Duration::from_millis(50));
                        continue;
                    }
                },
            };
            sent += 1;
            if let Err(error) = self.request(sent, service, app) {
                let sqlstate = error.code().map(|code| code.code().to_owned()).unwrap_or_default();
                self.load.failed.lock().expect("no session panics").push(sqlstate);
                if service.is_closed() || app.is_closed() {
                    clients = None;
                }
            } else {
                self.load.acknowledged.fetch_add(1, Ordering::Relaxed);
            }
        }
        self.journal
    }

    fn connect(&self) -> Result<(Client, Client), Error> {
        Ok((self.database.config("svc").connect(NoTls)?, self.database.config("app").connect(NoTls)?))
    }

    fn next(&mut self, below: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % below
    }

    fn request(&mut self, sent: u64, service: &mut Client, app: &mut Client) -> Result<(), Error> {
        let (user, org) = (format!("u{}", self.number % 3), format!("o{}", self.number % 3));
        let reference = format!("{}-{sent}", self.number);
        match self.next(6) {
            0 => {
                let debit = "SELECT transaction_id FROM tenancy.deduct_credits($1, 1.25, $2, 'load', $3)";
                let id: Uuid = service.query_one(debit, &[&user, &org, &reference])?.get(0);
                self.journal.entries.insert(id);
                self.refundable.push(id);
            }
            1 => {
                let key = self.unanswered.get_or_insert_with(|| format!("key-{reference}")).clone();
                let debit = "SELECT transaction_id FROM tenancy.deduct_credits($1, 2, $2, 'load', $3, $3)";
                let id: Uuid = service.query_one(debit, &[&user, &org, &key])?.get(0);
                self.journal.entries.insert(id);
                self.journal.keys.insert(key);
                self.unanswered = None;
            }
            2 => {
                let hold = "SELECT tenancy.hold_credits($1, 3, $2)";
                let hold: Uuid = service.query_one(hold, &[&user, &org])?.get(0);
                self.journal.holds.insert(hold);
                if self.next(4) > 0 {
                    let capture = "SELECT transaction_id FROM tenancy.capture_hold($1, 1.5)";
                    self.journal.entries.insert(service.query_one(capture, &[&hold])?.get(0));
                }
            }
            3 => {
                // Never asked twice: whether an unanswered refund happened is not known.
                if let Some(id) = self.refundable.pop() {
                    let refund = "SELECT transaction_id FROM tenancy.refund_credits($1)";
                    self.journal.entries.insert(service.query_one(refund, &[&id])?.get(0));
                }
            }
            4 => {
                // Identity, rows and charge in one transaction: all or nothing.
                let mut transaction = app.transaction()?;
                transaction.query_one("SELECT tenancy.authenticate($1)", &[&self.token])?;
                transaction.execute("INSERT INTO public.essays (tenant_id, body) VALUES ($1, $1)", &[&org])?;
                let spend = "SELECT transaction_id FROM tenancy.spend_credits(0.5, 'load')";
                let id: Uuid = transaction.query_one(spend, &[])?.get(0);
                transaction.commit()?;
                self.journal.entries.insert(id);
            }
            _ => {
                let publish = "SELECT tenancy.publish_event('load.made.v1', jsonb_build_object('user_id', $1::text, 'org_id', $2::text), 'load', $3)";
                self.journal.events.insert(service.query_one(publish, &[&user, &org, &reference])?.get(0));
            }
        }
        Ok(())
    }
}
