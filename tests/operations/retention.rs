//! Retention: bounded batches, and health() that says when nobody runs them.

use crate::common::refused;
use crate::{says, sound, well};
use postgres::Client;

fn number(client: &mut Client, statement: &str) -> i64 {
    client.query_one(statement, &[]).unwrap_or_else(|error| panic!("{statement}: {error:?}")).get(0)
}

#[test]
fn old_audit_entries_go_in_batches_and_the_trim_is_noted() {
    let database = sound().database();
    let mut client = database.superuser();
    client
        .batch_execute(
            "INSERT INTO tenancy.audit_log (tenant_id, action, created_at)
             SELECT 't', 'act_as', now() - interval '900 days' + n * interval '1 minute' FROM generate_series(1, 25) AS n;
             INSERT INTO tenancy.audit_log (tenant_id, action, created_at) VALUES
                 ('t', 'act_as', now() - interval '10 days'), ('', 'master_key_backup', now() - interval '900 days')",
        )
        .unwrap();
    says(&mut client, "retention", "warning", "tenancy.audit_log");
    let mut ops = database.connect("ops");
    let trim = "SELECT tenancy.trim_audit(max_rows => 10)::bigint";
    assert_eq!([10, 10, 5, 0], std::array::from_fn(|_| number(&mut ops, trim)));
    well(&mut client, "retention");
    let kept = "SELECT count(*) FROM tenancy.audit_log WHERE action IN ('act_as', 'master_key_backup')";
    assert_eq!(number(&mut client, kept), 2);
    assert_eq!(
        number(
            &mut client,
            "SELECT sum((detail ->> 'removed')::bigint)::bigint FROM tenancy.audit_log WHERE action = 'trim_audit'"
        ),
        25
    );
    for arguments in ["interval '1 hour'", "NULL", "max_rows => 0", "max_rows => NULL"] {
        refused(ops.query(&format!("SELECT tenancy.trim_audit({arguments})"), &[]), "22023", "invalid_argument");
    }
}

#[test]
fn revocations_go_when_their_tokens_have_ended_by_themselves() {
    let database = sound().database();
    let mut ops = database.connect("ops");
    ops.batch_execute(
        "SELECT tenancy.revoke_token('https://issuer.test', 'long gone', now() + interval '1 hour');
         SELECT tenancy.revoke_token('https://issuer.test', 'just gone', now() + interval '1 hour');
         SELECT tenancy.revoke_session('https://issuer.test', 'for good'); SELECT tenancy.revoke_user('u')",
    )
    .unwrap();
    let mut client = database.superuser();
    client
        .batch_execute(
            "UPDATE tenancy.revocations SET expires_at = now() - interval '50 days' WHERE value = 'long gone';
             UPDATE tenancy.revocations SET expires_at = now() - interval '1 hour' WHERE value = 'just gone'",
        )
        .unwrap();
    says(&mut client, "retention", "warning", "tenancy.revocations");
    assert_eq!(number(&mut ops, "SELECT tenancy.trim_revocations()::bigint"), 1);
    well(&mut client, "retention");
    assert_eq!(number(&mut client, "SELECT count(*) FROM tenancy.revocations"), 3);
    refused(ops.query("SELECT tenancy.trim_revocations(0)", &[]), "22023", "invalid_argument");
}

#[test]
fn counters_of_quotas_go_in_batches_and_lifetime_ones_stay() {
    let database = sound().database();
    let mut client = database.superuser();
    client
        .batch_execute(
            "INSERT INTO tenancy.quota_usage (tenant_id, org_id, user_id, metric, period, period_start, used)
             SELECT 't', '', '', 'pages', period, now() - interval '1 day' * days, 1
               FROM unnest(ARRAY['day', 'hour', 'lifetime']) AS period, unnest(ARRAY[401, 500, 1]) AS days",
        )
        .unwrap();
    let mut ops = database.connect("ops");
    for removed in [3, 1, 0] {
        assert_eq!(number(&mut ops, "SELECT tenancy.prune_quota_usage(max_rows => 3)"), removed);
    }
    assert_eq!(number(&mut client, "SELECT count(*) FROM tenancy.quota_usage WHERE period = 'lifetime'"), 3);
    assert_eq!(number(&mut client, "SELECT count(*) FROM tenancy.quota_usage"), 5);
}

/// What docs/explanation/operations-and-capacity.md says a charge and its link in the chain take, within a fifth.
#[test]
fn a_charge_takes_the_bytes_the_page_says() {
    const CHARGES: i64 = 3000;
    let page =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/explanation/operations-and-capacity.md"))
            .unwrap();
    let said = |table: &str| -> i64 {
        let row = page.lines().find(|line| line.contains(&format!("(`{table}`) |"))).expect("a row for each table");
        row.trim_end_matches([' ', '|']).rsplit(' ').next().unwrap().parse().unwrap()
    };
    let database = sound().database();
    let mut client = database.superuser();
    let size =
        |client: &mut Client, table: &str| number(client, &format!("SELECT pg_total_relation_size('tenancy.{table}')"));
    client
        .batch_execute(
            "SELECT tenancy.register_user('ada'), tenancy.register_organization('acme', 'Acme');
             SELECT tenancy.set_subscription('acme', 'teams', 'active', 5), tenancy.assign_seat('acme', 'ada');
             SELECT tenancy.grant_credits(1000000, org_id => 'acme')",
        )
        .unwrap();
    let before = ["credit_transactions", "credit_links"].map(|table| size(&mut client, table));
    client
        .batch_execute(&format!(
            "DO $$ BEGIN FOR i IN 1..{CHARGES} LOOP PERFORM tenancy.deduct_credits('ada', 1, 'acme', 'Code generation'); END LOOP; END $$;
             SELECT count(*) FROM tenancy.seal_ledger(max_entries => 100000)"
        ))
        .unwrap();
    for (table, before) in ["credit_transactions", "credit_links"].iter().zip(before) {
        let (said, took) = (said(table), (size(&mut client, table) - before) / CHARGES);
        assert!((took - said).abs() * 5 <= said, "{table}: {took} bytes a row, the page says {said}");
    }
}

#[test]
fn events_that_nobody_trims_are_noticed() {
    let database = sound().database();
    let mut client = database.superuser();
    client
        .batch_execute(
            "SELECT tenancy.publish_event('a.b.v1', '{\"user_id\": \"ada\"}', 'a', '1');
             UPDATE tenancy.event_outbox SET created_at = now() - interval '60 days';
             INSERT INTO tenancy.event_inbox (tenant_id, event_id, body_sha256, status, event_timestamp, received_at)
             VALUES ('t', tenancy.uuid_v7(), '', 'processed', now() - interval '60 days', now() - interval '60 days')",
        )
        .unwrap();
    says(&mut client, "retention", "warning", "tenancy.event_outbox");
    says(&mut client, "retention", "warning", "tenancy.event_inbox");
    client.batch_execute("SELECT tenancy.trim_events(), tenancy.trim_inbox()").unwrap();
    well(&mut client, "retention");
}
