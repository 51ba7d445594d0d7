//! batches, batch_essays and batch_results are protected as protect_table protects a user's table.

use crate::common::{Cluster, Database, Options, Token, fails_with};
use crate::world::{ORG, USER, one, school, school_in};
use postgres::Client;
use serde_json::json;
use uuid::Uuid;

const TABLES: [&str; 3] = ["batches", "batch_essays", "batch_results"];

fn school_with_a_batch() -> (Database<'static>, Uuid) {
    let database = school();
    let mut service = database.connect("svc");
    let request = json!({"expected_essay_count": 1, "course_code": "ENG5", "user_id": USER, "org_id": ORG});
    let batch: Uuid = service.query_one("SELECT batch_id FROM tenancy.register_batch($1)", &[&request]).unwrap().get(0);
    let result =
        "SELECT tenancy.record_result($1, tenancy.get_batch_status($1) -> 'missing_essay_ids' ->> 0, '{\"rank\": 1}')";
    service.query_one(result, &[&batch]).unwrap();
    (database, batch)
}

#[test]
fn protect_table_would_add_nothing() {
    let (database, _) = school_with_a_batch();
    let mut superuser = database.superuser();
    for table in TABLES {
        let missing: Vec<String> = superuser
            .query(
                &format!(
                    "SELECT statement FROM tenancy._protection_statements('tenancy.{table}', 'tenant_id', NULL, NULL, true)"
                ),
                &[],
            )
            .unwrap()
            .iter()
            .map(|row| row.get(0))
            .collect();
        assert_eq!(missing, [""; 0], "{table}");
        let shape: (bool, bool, bool) = {
            let row = superuser
                .query_one(
                    "SELECT c.relrowsecurity, c.relforcerowsecurity, EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = c.oid
                        AND NOT p.polpermissive AND p.polroles = '{0}') FROM pg_class c WHERE c.oid = to_regclass('tenancy.' || $1)",
                    &[&table],
                )
                .unwrap();
            (row.get(0), row.get(1), row.get(2))
        };
        assert_eq!(shape, (true, true, true), "{table}: enabled, forced, a floor for everybody");
    }
}

/// The audit looks at what is recorded as protected: here at these three, in a transaction that is rolled back.
#[test]
fn the_audit_finds_nothing_about_them() {
    let (database, _) = school_with_a_batch();
    let mut superuser = database.superuser();
    let mut transaction = superuser.transaction().unwrap();
    let findings = |transaction: &mut postgres::Transaction| -> Vec<(String, String, String)> {
        transaction
            .query(
                "SELECT rule, object, finding FROM tenancy.audit_isolation() WHERE object ~ '\\ytenancy\\.batch'",
                &[],
            )
            .unwrap()
            .iter()
            .map(|row| (row.get(0), row.get(1), row.get(2)))
            .collect()
    };
    for table in TABLES {
        transaction
            .execute(
                "INSERT INTO tenancy.protected_tables (relation, tenant_column, protected_by)
                 VALUES (to_regclass('tenancy.' || $1), 'tenant_id', 'test')",
                &[&table],
            )
            .unwrap();
    }
    assert_eq!(findings(&mut transaction), []);
    // It does look: without the floor there is a finding.
    transaction.batch_execute("DROP POLICY tenancy_floor ON tenancy.batch_results").unwrap();
    assert!(findings(&mut transaction).iter().any(|finding| finding.0 == "floor_missing"));
    transaction.rollback().unwrap();
}

#[test]
fn a_grant_or_a_policy_too_many_opens_no_other_tenant_s_rows() {
    let (database, batch) = school_with_a_batch();
    let mut superuser = database.superuser();
    for table in TABLES {
        superuser
            .batch_execute(&format!(
                "GRANT SELECT, INSERT, UPDATE, DELETE ON tenancy.{table} TO app, ops; CREATE POLICY oops ON tenancy.{table} USING (true)"
            ))
            .unwrap();
    }
    let stranger = Token::for_member("hank", "globex").sign();
    for role in ["app", "ops"] {
        let mut client = database.connect(role);
        let counts = |client: &mut Client, token: Option<&str>| -> Vec<i64> {
            let mut transaction = client.transaction().unwrap();
            if let Some(token) = token {
                transaction.execute("SELECT tenancy.authenticate($1)", &[&token]).unwrap();
            }
            TABLES
                .map(|table| {
                    transaction.query_one(&format!("SELECT count(*) FROM tenancy.{table}"), &[]).unwrap().get(0)
                })
                .to_vec()
        };
        assert_eq!(counts(&mut client, None), [0, 0, 0], "{role} without an identity");
        assert_eq!(counts(&mut client, Some(&stranger)), [0, 0, 0], "{role} of another tenant");
        assert_eq!(counts(&mut client, Some(&Token::for_member(USER, ORG).sign())), [1, 1, 1], "{role} of this tenant");
        let mut transaction = client.transaction().unwrap();
        transaction.execute("SELECT tenancy.authenticate($1)", &[&stranger]).unwrap();
        assert_eq!(transaction.execute("UPDATE tenancy.batches SET org_id = 'globex'", &[]).unwrap(), 0);
        let forged = "INSERT INTO tenancy.batch_essays (tenant_id, batch_id, essay_id) VALUES ($1, $2, 'x')";
        fails_with(transaction.execute(forged, &[&ORG, &batch]), "42501");
    }
}

/// An owner who is no superuser needs BYPASSRLS, and is told so.
#[test]
fn an_owner_that_the_floor_binds_is_told() {
    let cluster = Cluster::start(Options::default());
    let database = school_in(&cluster);
    let mut superuser = database.superuser();
    superuser
        .batch_execute(
            "CREATE ROLE keeper; DO $$ DECLARE t regclass; BEGIN
                FOR t IN SELECT oid FROM pg_class WHERE relnamespace = 'tenancy'::regnamespace AND relkind = 'r' LOOP
                    EXECUTE format('ALTER TABLE %s OWNER TO keeper', t);
                END LOOP;
            END $$",
        )
        .unwrap();
    let health = "SELECT remedy FROM tenancy.health() WHERE check_name = 'owner'";
    assert_eq!(one::<String>(&mut superuser, health), "ALTER ROLE keeper BYPASSRLS;");
    superuser.batch_execute("ALTER ROLE keeper BYPASSRLS").unwrap();
    assert!(superuser.query(health, &[]).unwrap().is_empty());
}

#[test]
fn nobody_is_granted_more_than_to_read() {
    let (database, _) = school_with_a_batch();
    for role in ["app", "svc", "ops", "met"] {
        let mut client = database.connect(role);
        for table in TABLES {
            let held: Option<String> = one(
                &mut client,
                &format!(
                    "SELECT string_agg(p, ' ') FROM unnest('{{INSERT,UPDATE,DELETE,TRUNCATE,REFERENCES,TRIGGER}}'::text[]) AS p
                      WHERE has_table_privilege('tenancy.{table}', p)"
                ),
            );
            assert_eq!(held, None, "{role} on {table}");
            fails_with(client.batch_execute(&format!("TRUNCATE tenancy.{table}")), "42501");
        }
    }
}
