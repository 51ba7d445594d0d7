//! docs/how-to/events.md: its SQL is run as it stands. docs/how-to/use-debezium.md: what it says holds against the catalog.

use crate::common::{Cluster, Options, Token, blocks, psql, sql_blocks};
use crate::logical::allow_wal2json;
use crate::world::{ORG, USER, consumption, one, school, school_in};
use serde_json::Value;

/// Blocks with a transaction as an application, those that need the log as a superuser, the others as a service.
#[test]
fn every_block_runs() {
    let cluster = Cluster::start(Options { settings: vec![("wal_level", "logical".into())], ..Options::default() });
    let database = school_in(&cluster);
    let mut superuser = database.superuser();
    let has_wal2json = allow_wal2json(&mut superuser);
    let token = Token::for_member(USER, ORG).sign();
    let envelope = consumption("a3b1c2d4-0003-4f00-8abc-000000000003", 3).to_string();
    let page = sql_blocks("docs/how-to/events.md");
    assert!(page.len() >= 6);
    let mut shown = String::new();
    for block in page {
        if block.contains("wal2json") && !has_wal2json {
            continue;
        }
        let role = if block.starts_with("BEGIN") {
            "app"
        } else if block.contains("replication_slot") {
            "postgres"
        } else {
            "svc"
        };
        shown += &psql(&database, role, &[("token", &token), ("envelope", &envelope)], &block).0;
    }
    for expected in ["|essay.graded.v1|{", "processed|a3b1c2d4-0003-4f00-8abc-000000000003|{", "|registered"] {
        assert!(shown.contains(expected), "{expected} is not in:\n{shown}");
    }
    assert_eq!(one::<i64>(&mut superuser, "SELECT count(*) FROM tenancy.event_consumers WHERE consumer = 'mailer'"), 1);
    superuser.query("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots", &[]).unwrap();
}

/// Debezium's router refuses a column of another type; the columns it is told of must exist.
#[test]
fn the_columns_are_those_debezium_reads() {
    let database = school();
    let mut superuser = database.superuser();
    let columns: Vec<(String, String, bool)> = superuser
        .query(
            "SELECT attname::text, format_type(atttypid, atttypmod), attnotnull FROM pg_attribute
              WHERE attrelid = 'tenancy.event_outbox'::regclass AND attnum > 0 AND NOT attisdropped",
            &[],
        )
        .unwrap()
        .iter()
        .map(|row| (row.get(0), row.get(1), row.get(2)))
        .collect();
    for (name, kind) in [
        ("id", "uuid"),
        ("aggregatetype", "character varying(255)"),
        ("aggregateid", "character varying(255)"),
        ("type", "character varying(255)"),
        ("payload", "jsonb"),
    ] {
        assert!(columns.contains(&(name.into(), kind.into(), true)), "{name} {kind} NOT NULL");
    }
    let settings = blocks("docs/how-to/use-debezium.md", "properties").concat();
    let setting = |name: &str| {
        settings
            .lines()
            .find_map(|line| line.strip_prefix(&format!("{name}=")))
            .unwrap_or_else(|| panic!("{name}"))
            .to_owned()
    };
    let exists = |name: &str| columns.iter().any(|column| column.0 == name);
    for placed in setting("transforms.outbox.table.fields.additional.placement").split(',') {
        assert!(exists(placed.split(':').next().unwrap()), "{placed}");
    }
    assert!(exists(&setting("transforms.outbox.route.by.field")));
    assert_eq!(setting("table.include.list"), "tenancy.event_outbox");
    // The view has the original's names.
    let view: Vec<String> = superuser
        .query("SELECT attname::text FROM pg_attribute WHERE attrelid = 'tenancy.outbox_messages'::regclass AND attnum > 0", &[])
        .unwrap()
        .iter()
        .map(|row| row.get(0))
        .collect();
    for name in [
        "id",
        "aggregate_type",
        "aggregate_id",
        "event_type",
        "event_data",
        "event_key",
        "topic",
        "created_at",
        "published_at",
        "retry_count",
        "last_error",
    ] {
        assert!(view.iter().any(|column| column == name), "{name}");
    }
}

/// The schemas are what validate_event judges by: what the engine publishes itself is judged good, also with fractions of credits.
#[test]
fn what_is_published_is_valid() {
    let database = school();
    let (mut service, mut superuser) = (database.connect("svc"), database.superuser());
    superuser.execute("SELECT tenancy.set_credit_cost('cj_comparison', 0.25)", &[]).unwrap();
    let answer = crate::world::consume(&mut service, &consumption("a3b1c2d4-0003-4f00-8abc-000000000003", 3));
    assert_eq!(answer.1["success"], true);
    let told: Value = one(
        &mut superuser,
        "SELECT payload -> 'data' FROM tenancy.event_outbox WHERE type = 'huleedu.entitlements.credit.balance.changed.v1'",
    );
    assert_eq!((&told["delta"], &told["new_balance"]), (&serde_json::json!(-0.75), &serde_json::json!(499.25)));
    let judged: Vec<(bool, Option<String>)> = superuser
        .query("SELECT v.valid, v.reason FROM tenancy.event_outbox AS o, tenancy.validate_event(o.payload) AS v", &[])
        .unwrap()
        .iter()
        .map(|row| (row.get(0), row.get(1)))
        .collect();
    assert_eq!(judged, vec![(true, None); 2]);
    let denied = serde_json::json!({"event_type": "huleedu.pipeline.denied.v1", "source_service": "batch-orchestrator-service",
        "data": {"batch_id": "b", "user_id": USER, "org_id": ORG, "requested_pipeline": "cj_assessment",
                 "denial_reason": "insufficient_credits", "required_credits": "45", "available_credits": 10}});
    let row = service
        .query_one("SELECT valid, event #>> '{data,event_name}' FROM tenancy.validate_event($1)", &[&denied])
        .unwrap();
    assert_eq!((row.get::<_, bool>(0), row.get::<_, &str>(1)), (true, "pipeline.denied"));
    assert_eq!(crate::world::consume(&mut service, &denied).1["reason"], "unsupported_event_type");
}
