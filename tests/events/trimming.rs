//! The outbox, and all that grows with it, stays small under a load that does not end.

use crate::common::{Cluster, Options, in_parallel};
use crate::world::{ORG, USER, one, school, school_in};
use postgres::Client;

const PUBLISH: &str =
    "SELECT count(tenancy.publish_event('essay.graded.v1', jsonb_build_object('user_id', $1::text, 'org_id', $2::text),
    'essay', 'e-' || $3 || '-' || n)) FROM generate_series(1, 300) AS n";

fn size(superuser: &mut Client) -> i64 {
    let tables = "ARRAY['event_outbox', 'event_deliveries', 'event_streams', 'event_dead_letters']";
    one(
        superuser,
        &format!("SELECT sum(pg_total_relation_size(('tenancy.' || t)::regclass))::bigint FROM unnest({tables}) AS t"),
    )
}

/// Rounds of publishing, polling, acknowledging and trimming, each about new aggregates: after the first few the tables
/// do not grow any more. VACUUM stands for autovacuum, which would not come within a test; the cluster is its own, for
/// transactions of other databases keep pages of indexes from being used again.
#[test]
fn the_outbox_does_not_grow_without_end() {
    let cluster = Cluster::start(Options::default());
    let database = school_in(&cluster);
    let (mut service, mut superuser) = (database.connect("svc"), database.superuser());
    service.query("SELECT * FROM tenancy.poll_events('reader')", &[]).unwrap();
    let mut sizes = Vec::new();
    for round in 0..12 {
        service.query_one(PUBLISH, &[&USER, &ORG, &round.to_string()]).unwrap();
        let acknowledged =
            "SELECT tenancy.ack_events('reader', ARRAY(SELECT event_id FROM tenancy.poll_events('reader', 1000)))";
        assert_eq!(service.query_one(acknowledged, &[]).unwrap().get::<_, i32>(0), 300);
        let removed: i32 = one(&mut service, "SELECT tenancy.trim_events(retain => '0')");
        assert_eq!(removed, 300);
        superuser
            .batch_execute("VACUUM tenancy.event_outbox, tenancy.event_deliveries, tenancy.event_streams")
            .unwrap();
        sizes.push(size(&mut superuser));
    }
    crate::common::say!("bytes after each round: {sizes:?}");
    assert!(sizes[11] <= sizes[3] + sizes[3] / 4, "{sizes:?}");
    for table in ["event_outbox", "event_deliveries", "event_streams"] {
        assert_eq!(one::<i64>(&mut superuser, &format!("SELECT count(*) FROM tenancy.{table}")), 0, "{table}");
    }
    assert_eq!(
        one::<i64>(&mut superuser, "SELECT count(*) FROM tenancy.event_stream_horizons"),
        1,
        "a row for each tenant"
    );
}

/// Publishing and trimming at once, about the same few aggregates: no sequence is used twice or goes backwards.
#[test]
fn an_aggregate_that_comes_back_goes_on_where_it_was() {
    let database = school();
    let mut superuser = database.superuser();
    superuser
        .batch_execute("CREATE TABLE seen (aggregate text, sequence bigint, at timestamptz DEFAULT clock_timestamp())")
        .unwrap();
    // A service does not read the outbox: the test does for it.
    superuser
        .batch_execute(
            "GRANT INSERT ON seen TO svc; CREATE FUNCTION sequence_of(event uuid) RETURNS bigint LANGUAGE sql SECURITY DEFINER
                AS 'SELECT sequence FROM tenancy.event_outbox WHERE id = event'",
        )
        .unwrap();
    in_parallel(6, |index| {
        let mut service = database.connect("svc");
        for round in 0..60 {
            if index >= 4 {
                service.query_one("SELECT tenancy.trim_events(retain => '0', give_up_after => '0')", &[]).unwrap();
                continue;
            }
            let aggregate = format!("e-{}", round % 3);
            let mut transaction = service.transaction().unwrap();
            let event: uuid::Uuid = transaction
                .query_one(
                    "SELECT tenancy.publish_event('x', jsonb_build_object('user_id', $1::text, 'org_id', $2::text), 'essay', $3)",
                    &[&USER, &ORG, &aggregate],
                )
                .unwrap()
                .get(0);
            transaction.execute("INSERT INTO seen SELECT $1, sequence_of($2)", &[&aggregate, &event]).unwrap();
            transaction.commit().unwrap();
        }
    });
    // The stream's row is locked until the commit, so the order of the rows is that of the sequences.
    let row = superuser
        .query_one(
            "SELECT count(*), count(DISTINCT (aggregate, sequence)), bool_and(coalesce(sequence > before, true))
               FROM (SELECT aggregate, sequence, lag(sequence) OVER (PARTITION BY aggregate ORDER BY at) AS before FROM seen) AS s",
            &[],
        )
        .unwrap();
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1), row.get::<_, bool>(2)), (240, 240, true));
}
