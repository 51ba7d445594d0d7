//! A school with credits: the organization and the teacher of contract H's payloads.

use crate::common::{Cluster, Database, Token, cluster};
use postgres::{Client, Transaction};
use serde_json::{Value, json};

pub const USER: &str = "larare-0017";
pub const ORG: &str = "skola-malmo-01";

/// A database in which the school has 500 credits and a comparison costs one.
pub fn school() -> Database<'static> {
    school_in(cluster())
}

pub fn school_in(cluster: &Cluster) -> Database<'_> {
    let database = cluster.database();
    database
        .superuser()
        .batch_execute(&format!(
            "SELECT tenancy.register_user('{USER}'); SELECT tenancy.register_organization('{ORG}', 'Malmo');
             SELECT tenancy.set_subscription('{ORG}', 'teams', 'active', 5); SELECT tenancy.assign_seat('{ORG}', '{USER}');
             SELECT tenancy.grant_credits(500, org_id => '{ORG}');"
        ))
        .expect("the school can be registered");
    database
}

/// Runs `work` as the teacher, in a transaction of its own that commits.
pub fn as_teacher<T>(client: &mut Client, work: impl FnOnce(&mut Transaction) -> T) -> T {
    let token = Token::for_member(USER, ORG).sign();
    let mut transaction = client.transaction().unwrap();
    transaction.execute("SELECT tenancy.authenticate($1)", &[&token]).unwrap();
    let result = work(&mut transaction);
    transaction.commit().unwrap();
    result
}

/// A consumption of the teacher's.
pub fn consumption(event_id: &str, quantity: i64) -> Value {
    json!({
        "event_id": event_id, "event_type": "huleedu.resource.consumption.v1",
        "event_timestamp": "2025-08-31T12:05:10.500000Z", "source_service": "cj_assessment_service",
        "correlation_id": "7f0c2d1e-5b7a-4c1d-9f0e-2a6b8c4d1e3f",
        "data": {
            "entity_id": "6b1f0a52-3c44-4a0e-9d57-0d6a2f1c9e10", "entity_type": "batch", "user_id": USER, "org_id": ORG,
            "resource_type": "cj_comparison", "quantity": quantity, "service_name": "cj_assessment_service",
            "processing_id": "cj-4711", "timestamp": "2025-08-31T12:05:10Z", "consumed_at": "2025-08-31T12:05:10Z"
        }
    })
}

/// What consume_event answers for one envelope: status and result.
pub fn consume(client: &mut Client, envelope: &Value) -> (String, Value) {
    let row = client.query_one("SELECT status, result FROM tenancy.consume_event($1)", &[envelope]).unwrap();
    (row.get(0), row.get(1))
}

/// What the school can still spend.
pub fn available(client: &mut Client) -> i64 {
    client.query_one("SELECT available::bigint FROM tenancy.credit_balance(org_id => $1)", &[&ORG]).unwrap().get(0)
}

/// The payloads of the outbox's events of one type, in order.
pub fn published(superuser: &mut Client, topic: &str) -> Vec<Value> {
    let statement = "SELECT payload FROM tenancy.event_outbox WHERE type = $1 ORDER BY aggregateid, sequence";
    superuser.query(statement, &[&topic]).unwrap().iter().map(|row| row.get(0)).collect()
}

/// One value of one row.
pub fn one<T: for<'a> postgres::types::FromSql<'a>>(client: &mut Client, statement: &str) -> T {
    client.query_one(statement, &[]).unwrap().get(0)
}
