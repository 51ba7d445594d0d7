//! What the tests of credits start from: two organizations with subscriptions, people with seats, credits.
#![allow(dead_code)] // each test binary uses its own part

use crate::common::{Cluster, Database, Token, cluster};
use postgres::error::DbError;
use postgres::{Client, SimpleQueryMessage};
use serde_json::Value;

/// A database with Acme (`org_acme`, tenant of its own) and Bolt (`org_bolt`).
///
/// ada and bea have seats at Acme, bob one at Bolt, zoe none; nobody has credits yet.
pub struct World<'a> {
    pub database: Database<'a>,
    pub admin: Client,
}

pub const ACME: &str = "org_acme";
pub const BOLT: &str = "org_bolt";

pub fn world() -> World<'static> {
    World::on(cluster())
}

impl<'a> World<'a> {
    pub fn on(cluster: &'a Cluster) -> Self {
        let database = cluster.database();
        let mut admin = database.superuser();
        admin
            .batch_execute(
                "SELECT tenancy.register_organization('org_acme', 'Acme Inc', stripe_customer_id => 'cus_Q1w2E3r4');
                 SELECT tenancy.register_organization('org_bolt', 'Bolt Ltd');
                 SELECT tenancy.register_user(id) FROM unnest(ARRAY['ada', 'bea', 'bob', 'zoe']) AS id;
                 SELECT tenancy.set_subscription('org_acme', 'teams', 'active', 10);
                 SELECT tenancy.set_subscription('org_bolt', 'teams', 'trialing', 5);
                 SELECT tenancy.assign_seat('org_acme', 'ada');
                 SELECT tenancy.assign_seat('org_acme', 'bea', 'admin');
                 SELECT tenancy.assign_seat('org_bolt', 'bob');",
            )
            .expect("the world can be made");
        Self { database, admin }
    }

    /// Credits for an organization.
    pub fn fund(&mut self, org: &str, amount: &str) {
        let grant = "SELECT tenancy.grant_credits($1::text::numeric, org_id => $2)";
        self.admin.execute(grant, &[&amount, &org]).expect("credits can be granted");
    }

    /// Credits for a person.
    pub fn fund_user(&mut self, user: &str, amount: &str) {
        let grant = "SELECT tenancy.grant_credits($1::text::numeric, user_id => $2)";
        self.admin.execute(grant, &[&amount, &user]).expect("credits can be granted");
    }

    /// Available credits of an organization, as text.
    pub fn available(&mut self, org: &str) -> String {
        text(&mut self.admin, "SELECT available::text FROM tenancy.credit_balance(org_id => $1)", org)
    }

    /// Available credits of a person, as text.
    pub fn available_user(&mut self, user: &str) -> String {
        text(&mut self.admin, "SELECT available::text FROM tenancy.credit_balance(user_id => $1)", user)
    }

    /// How many rows the ledger has.
    pub fn entries(&mut self) -> i64 {
        self.admin
            .query_one("SELECT count(*) FROM tenancy.credit_transactions", &[])
            .expect("the ledger can be read")
            .get(0)
    }

    /// The newest ledger row, as JSON.
    pub fn last_entry(&mut self) -> Value {
        let newest = "SELECT to_jsonb(t)::text FROM tenancy.credit_transactions AS t ORDER BY t.id DESC LIMIT 1";
        json(&mut self.admin, newest, &[])
    }

    /// Everything that a charge or grant changes, to see that nothing did.
    pub fn figures(&mut self) -> String {
        shown(
            &mut self.admin,
            "SELECT external_id, p.balance, p.held, p.granted_total, p.drawn_total, p.seq FROM tenancy.credit_pools p
               JOIN (SELECT id, external_id FROM tenancy.organizations UNION ALL SELECT id, external_id FROM tenancy.users) o
                 ON o.id = p.pool_id ORDER BY 1;
             SELECT count(*) FROM tenancy.credit_transactions; SELECT count(*) FROM tenancy.credit_idempotency;
             SELECT id, status, captured FROM tenancy.credit_holds ORDER BY id;
             SELECT id, amount, remaining FROM tenancy.credit_grants ORDER BY id;
             SELECT user_id, period, amount, used FROM tenancy.credit_caps ORDER BY 1, 2",
        )
    }

    /// A session of the service role.
    pub fn service(&self) -> Client {
        self.database.connect("svc")
    }

    /// A session of the operators' role.
    pub fn operator(&self) -> Client {
        self.database.connect("ops")
    }

    /// A session of the application role.
    pub fn app(&self) -> Client {
        self.database.connect("app")
    }
}

/// What `psql -At` shows for these statements.
pub fn ask(client: &mut Client, statements: &str) -> Result<String, postgres::Error> {
    let mut lines = Vec::new();
    for message in client.simple_query(statements)? {
        if let SimpleQueryMessage::Row(row) = message {
            let fields: Vec<&str> = (0..row.len()).map(|column| row.get(column).unwrap_or_default()).collect();
            lines.push(fields.join("|"));
        }
    }
    Ok(lines.join("\n"))
}

/// The same for statements that succeed.
#[track_caller]
pub fn shown(client: &mut Client, statements: &str) -> String {
    ask(client, statements).unwrap_or_else(|error| panic!("{statements}: {error:?}"))
}

/// An error's DETAIL.
pub fn detail(error: &DbError) -> Value {
    serde_json::from_str(error.detail().expect("a DETAIL")).expect("DETAIL is JSON")
}

/// One text of one query with one text parameter.
pub fn text(client: &mut Client, query: &str, parameter: &str) -> String {
    client.query_one(query, &[&parameter]).unwrap_or_else(|error| panic!("{query}: {error:?}")).get(0)
}

/// One JSON value of one query that casts it to text.
pub fn json(client: &mut Client, query: &str, parameters: &[&(dyn postgres::types::ToSql + Sync)]) -> Value {
    let row = client.query_one(query, parameters).unwrap_or_else(|error| panic!("{query}: {error:?}"));
    serde_json::from_str(row.get(0)).expect("JSON")
}

/// `deduct_credits_pooled` as PostgREST calls it: every argument by name.
pub fn pooled(client: &mut Client, user: &str, amount: &str, org: Option<&str>) -> Result<bool, postgres::Error> {
    let call = "SELECT tenancy.deduct_credits_pooled(p_clerk_user_id => $1, p_amount => $2::text::numeric,
                       p_clerk_org_id => $3, p_description => $4, p_reference_id => $5)";
    let row = client.query_one(call, &[&user, &amount, &org, &"Code generation", &None::<&str>])?;
    Ok(row.get(0))
}

/// Authenticates in the transaction that `client` has begun.
pub fn authenticate(client: &mut postgres::Transaction<'_>, token: &Token) {
    client.execute("SELECT tenancy.authenticate($1)", &[&token.sign()]).expect("the token is good");
}

/// Everything adds up.
#[track_caller]
pub fn assert_verified(client: &mut Client) {
    let findings = client
        .query("SELECT rule, pool_id::text, object, expected, found FROM tenancy.verify_ledger()", &[])
        .expect("the ledger can be verified");
    let findings: Vec<String> = findings
        .iter()
        .map(|row| {
            (0..5)
                .map(|column| row.get::<_, Option<String>>(column).unwrap_or_default())
                .collect::<Vec<_>>()
                .join(" | ")
        })
        .collect();
    assert!(findings.is_empty(), "verify_ledger found:\n  {}", findings.join("\n  "));
}
