//! A fresh database for each test, cloned from a template in which everything is installed.

use super::cluster::Cluster;
use super::tokens::{AUDIENCE, ISSUER, KEY_ID, SECRET};
use postgres::{Client, Config, NoTls, error::DbError};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const TEMPLATE: &str = "pgt_template";

/// The roles of the tests with the access they are granted.
const ROLES: [(&str, &str); 4] = [("app", "application"), ("svc", "service"), ("ops", "operator"), ("met", "metrics")];

/// What the server said beside its answers: notices and warnings in the order they came.
pub type Notices = Arc<Mutex<Vec<DbError>>>;

/// One database of a cluster.
pub struct Database<'a> {
    cluster: &'a Cluster,
    /// Its name.
    pub name: String,
}

impl<'a> Database<'a> {
    pub(super) fn from_template(cluster: &'a Cluster) -> Self {
        make_template(cluster);
        Self::create(cluster, &format!("TEMPLATE {TEMPLATE}"))
    }

    pub(super) fn empty(cluster: &'a Cluster) -> Self {
        Self::create(cluster, "")
    }

    pub(super) fn existing(cluster: &'a Cluster, name: &str) -> Self {
        Self { cluster, name: name.to_owned() }
    }

    fn create(cluster: &'a Cluster, clause: &str) -> Self {
        let name = format!("t{}", cluster.databases.fetch_add(1, Ordering::Relaxed));
        let mut client = connect(cluster, "postgres", "postgres", None);
        client.batch_execute(&format!("CREATE DATABASE {name} {clause}")).expect("a database can be made");
        Self { cluster, name }
    }

    /// The cluster it is in.
    pub fn cluster(&self) -> &'a Cluster {
        self.cluster
    }

    /// A connection as a role: `app`, `svc`, `ops`, `met`, `postgres` or one the test made.
    pub fn connect(&self, role: &str) -> Client {
        connect(self.cluster, &self.name, role, None)
    }

    /// A connection as the superuser, who owns the extension.
    pub fn superuser(&self) -> Client {
        self.connect("postgres")
    }

    /// A connection that keeps the notices it receives.
    pub fn connect_with_notices(&self, role: &str) -> (Client, Notices) {
        let notices = Notices::default();
        (connect(self.cluster, &self.name, role, Some(notices.clone())), notices)
    }

    /// The superuser's connection after a crash. `witness`, a session from before it, tells that the server has noticed:
    /// until then it takes connections which it ends right away.
    pub fn back_from_crash(&self, witness: &mut Client) -> Client {
        let deadline = Instant::now() + Duration::from_secs(120);
        let wait = |what: &str| {
            assert!(Instant::now() < deadline, "{what}");
            std::thread::sleep(Duration::from_millis(30));
        };
        while witness.simple_query("SELECT").is_ok() {
            wait("the server goes on after the crash");
        }
        loop {
            match self.config("postgres").connect(NoTls) {
                Ok(client) => return client,
                Err(error) => wait(&format!("the server does not come back: {error}")),
            }
        }
    }

    /// A configuration to change before connecting (options, application name, …).
    pub fn config(&self, role: &str) -> Config {
        config(self.cluster, &self.name, role)
    }
}

fn config(cluster: &Cluster, database: &str, role: &str) -> Config {
    let mut config = Config::new();
    config.host_path(cluster.folder()).dbname(database).user(role);
    config
}

pub(super) fn connect(cluster: &Cluster, database: &str, role: &str, notices: Option<Notices>) -> Client {
    let mut config = config(cluster, database, role);
    config.notice_callback(move |notice| {
        if let Some(notices) = &notices {
            notices.lock().expect("no test panics while it holds the notices").push(notice);
        }
    });
    config.connect(NoTls).unwrap_or_else(|error| panic!("{role} cannot connect to {database}: {error:?}"))
}

/// Made once a cluster: cloning it takes a fraction of the time of installing.
fn make_template(cluster: &Cluster) {
    // A first test that panics in here poisons the lock: the others then say the same instead of trying again.
    let mut made = cluster.template.lock().expect("the template database could not be made");
    if *made {
        return;
    }
    connect(cluster, "postgres", "postgres", None)
        .batch_execute(&format!("CREATE DATABASE {TEMPLATE}"))
        .expect("a database can be made");
    let mut client = connect(cluster, TEMPLATE, "postgres", None);
    client.batch_execute("CREATE EXTENSION pg_tenancy; SELECT tenancy.install();").expect("the extension installs");
    for (role, access) in ROLES {
        client
            .batch_execute(&format!("CREATE ROLE {role} LOGIN; SELECT tenancy.grant_access('{role}', '{access}');"))
            .expect("access can be granted");
    }
    client
        .execute("SELECT tenancy.add_issuer(issuer => $1, audiences => ARRAY[$2::text])", &[&ISSUER, &AUDIENCE])
        .expect("an issuer can be added");
    client
        .execute("SELECT tenancy.add_secret($1, $2, 'HS256', $3)", &[&ISSUER, &KEY_ID, &SECRET])
        .expect("a secret can be added");
    *made = true;
}
