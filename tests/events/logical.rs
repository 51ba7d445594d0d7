//! The outbox read from the log: wal2json and poll_events tell the same, in the same order per aggregate.

use crate::common::{Cluster, Options, in_parallel};
use crate::world::{ORG, USER, school_in};
use serde_json::Value;
use std::collections::BTreeMap;
use uuid::Uuid;

#[test]
fn wal2json_and_poll_events_tell_the_same_in_the_same_order() {
    let cluster = Cluster::start(Options { settings: vec![("wal_level", "logical".into())], ..Options::default() });
    let database = school_in(&cluster);
    let mut superuser = database.superuser();
    if !allow_wal2json(&mut superuser) {
        return;
    }
    superuser.query("SELECT pg_create_logical_replication_slot('outbox', 'wal2json')", &[]).unwrap();
    database.connect("svc").query("SELECT * FROM tenancy.poll_events('reader')", &[]).unwrap();

    in_parallel(4, |index| {
        let mut service = database.connect("svc");
        for number in 0..20 {
            let mut transaction = service.transaction().unwrap();
            let statement = "SELECT tenancy.publish_event('essay.graded.v1',
                jsonb_build_object('user_id', $1::text, 'org_id', $2::text, 'n', $3::int), 'essay', $4)";
            transaction
                .query_one(
                    statement,
                    &[&USER, &ORG, &(index as i32 * 100 + number), &format!("e-{}", (index as i32 + number) % 3)],
                )
                .unwrap();
            if number % 5 == 4 { transaction.rollback().unwrap() } else { transaction.commit().unwrap() }
        }
    });

    let mut from_log: BTreeMap<String, Vec<Uuid>> = BTreeMap::new();
    let mut told = Vec::new();
    let changes = "SELECT data FROM pg_logical_slot_get_changes('outbox', NULL, NULL, 'format-version', '2', \
                   'add-tables', 'tenancy.event_outbox')";
    for row in superuser.query(changes, &[]).unwrap() {
        let change: Value = serde_json::from_str(row.get(0)).unwrap();
        if change["table"] != "event_outbox" {
            continue;
        }
        assert_eq!(change["action"], "I", "rows are written once");
        let column = |name: &str| {
            let columns = change["columns"].as_array().unwrap();
            columns.iter().find(|column| column["name"] == name).unwrap()["value"].as_str().unwrap().to_owned()
        };
        let id: Uuid = column("id").parse().unwrap();
        assert_eq!(serde_json::from_str::<Value>(&column("payload")).unwrap()["event_id"], id.to_string());
        from_log.entry(column("aggregateid")).or_default().push(id);
        told.push(id);
    }
    let mut from_polls: BTreeMap<String, Vec<Uuid>> = BTreeMap::new();
    let mut service = database.connect("svc");
    loop {
        let rows = service.query("SELECT aggregateid, event_id FROM tenancy.poll_events('reader', 9)", &[]).unwrap();
        if rows.is_empty() {
            break;
        }
        let ids: Vec<Uuid> = rows.iter().map(|row| row.get(1)).collect();
        for row in &rows {
            from_polls.entry(row.get(0)).or_default().push(row.get(1));
        }
        service.query_one("SELECT tenancy.ack_events('reader', $1)", &[&ids]).unwrap();
    }
    assert_eq!(told.len(), 4 * 16, "nothing of a transaction that was rolled back");
    assert_eq!(from_log, from_polls);
    superuser.query("SELECT pg_drop_replication_slot('outbox')", &[]).unwrap();
}

/// Whether the server has wal2json, which scripts/setup.sh installs beside Debian's own; it is allowed to be used then:
/// newer minor versions of the server ask which output plugins are safe.
pub fn allow_wal2json(superuser: &mut postgres::Client) -> bool {
    let at_hand = "SELECT EXISTS (SELECT FROM pg_config AS c, pg_ls_dir(c.setting) AS f WHERE c.name = 'PKGLIBDIR' AND f = 'wal2json.so'),
                          current_setting('server_version_num')::integer / 10000 = 15";
    let row = superuser.query_one(at_hand, &[]).unwrap();
    let (at_hand, expected): (bool, bool) = (row.get(0), row.get(1));
    if !at_hand {
        assert!(!expected, "wal2json is not installed (package postgresql-15-wal2json)");
        crate::common::say!("skipped: this server, a copy without Debian's packages, has no wal2json");
        return false;
    }
    let setting = "SELECT setting FROM pg_settings WHERE name = 'output_plugin_libraries'";
    let Some(row) = superuser.query_opt(setting, &[]).unwrap() else { return true };
    let plugins = format!("{}, wal2json", row.get::<_, &str>(0));
    let plugins: Vec<String> =
        plugins.split(',').map(|plugin| format!("'{}'", plugin.trim().trim_matches('"'))).collect();
    superuser.batch_execute(&format!("ALTER SYSTEM SET output_plugin_libraries = {}", plugins.join(", "))).unwrap();
    superuser.batch_execute("SELECT pg_reload_conf()").unwrap();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while !superuser.query_one(setting, &[]).unwrap().get::<_, &str>(0).contains("wal2json") {
        assert!(std::time::Instant::now() < deadline, "the setting does not come");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    true
}
