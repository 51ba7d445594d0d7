//! Users and organizations of a namespace of their own: their events carry it.

use crate::common::Token;
use crate::world::{ORG, USER, available, consume, consumption, one, school};
use serde_json::{Value, json};
use uuid::Uuid;

/// Two issuers whose ids are the same and mean different customers: each pays for its own batch.
#[test]
fn equal_ids_of_another_namespace_pay_for_themselves() {
    let database = school();
    let (mut app, mut service, mut superuser) =
        (database.connect("app"), database.connect("svc"), database.superuser());
    superuser
        .batch_execute(&format!(
            "SELECT tenancy.add_issuer(issuer => 'https://other.test', audiences => ARRAY['other'], namespace => 'other');
             SELECT tenancy.add_secret('https://other.test', 'other-key', 'HS256', '\\x{}');
             SELECT tenancy.register_organization('{ORG}', 'Another school', namespace => 'other');
             SELECT tenancy.grant_credits(100, org_id => '{ORG}', namespace => 'other')",
            "07".repeat(32)
        ))
        .unwrap();
    let token = Token::for_member(USER, ORG).claim("iss", "https://other.test").claim("aud", "other");
    let token = token.header("kid", "other-key").sign_with(&[7; 32]);
    let request = json!({"expected_essay_count": 3, "course_code": "ENG5", "user_id": USER, "org_id": ORG});
    let mut transaction = app.transaction().unwrap();
    transaction.execute("SELECT tenancy.authenticate($1)", &[&token]).unwrap();
    let batch: Uuid =
        transaction.query_one("SELECT batch_id FROM tenancy.register_batch($1)", &[&request]).unwrap().get(0);
    transaction.query_one("SELECT tenancy.publish_event('x', '{}', 'a', 'b', '{\"namespace\": \"\"}')", &[]).unwrap();
    transaction.commit().unwrap();
    let fill = "SELECT tenancy.assign_essay($1, tenancy.get_batch_status($1) -> 'missing_essay_ids' ->> 0, 'text')";
    service.query_one(fill, &[&batch]).unwrap();
    service
        .query_one("SELECT tenancy.dispatch_cj_assessment($1, '{\"metadata\": {\"namespace\": \"\"}}')", &[&batch])
        .unwrap();
    service.query_one("SELECT tenancy.request_pipeline($1, '{\"requested_pipeline\": \"x\"}')", &[&batch]).unwrap();
    service.query_one("SELECT tenancy.report_consumption($1, 'cj_comparison', 3, 'cj', 'cj-1')", &[&batch]).unwrap();
    let written: Vec<(String, String)> = superuser
        .query("SELECT tenant_id, payload #>> '{metadata,namespace}' FROM tenancy.event_outbox", &[])
        .unwrap()
        .iter()
        .map(|row| (row.get(0), row.get(1)))
        .collect();
    assert_eq!(written, vec![(format!("other::{ORG}"), "other".to_owned()); 5]);
    for row in superuser
        .query("SELECT payload FROM tenancy.event_outbox WHERE type LIKE 'huleedu.%' ORDER BY sequence", &[])
        .unwrap()
    {
        let (status, result) = consume(&mut service, &row.get(0));
        assert_eq!((status.as_str(), &result["success"]), ("processed", &json!(true)));
    }
    assert_eq!(available(&mut superuser), 500, "the first school has consumed nothing");
    let other =
        "SELECT balance::bigint FROM tenancy.credit_pools AS p JOIN tenancy.organizations AS o ON o.id = p.pool_id
                  WHERE o.namespace = 'other'";
    assert_eq!(one::<i64>(&mut superuser, other), 97);
    let changed_by =
        "SELECT payload -> 'metadata' FROM tenancy.event_outbox WHERE type LIKE 'huleedu.entitlements.%' LIMIT 1";
    assert_eq!(one::<Value>(&mut superuser, changed_by), json!({"user_id": USER, "org_id": ORG, "namespace": "other"}));
    for namespace in [json!("user"), json!("a::b"), json!({"x": 1})] {
        let mut event = consumption("a3b1c2d4-0003-4f00-8abc-000000000003", 1);
        event["metadata"] = json!({"namespace": namespace});
        let (status, result) = consume(&mut service, &event);
        assert_eq!((status.as_str(), &result["reason"]), ("rejected", &json!("invalid_argument")), "{namespace}");
    }
    assert_eq!(available(&mut superuser), 500);
}
