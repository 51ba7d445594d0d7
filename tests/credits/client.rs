//! Contract S as its clients call it: through PostgREST's way, the `postgres` crate and psql's named notation.

use crate::common::{cluster, refused};
use crate::world::{ACME, World, assert_verified, shown, world};
use postgres::types::ToSql;

fn compat() -> World<'static> {
    let mut world = world();
    world.fund(ACME, "100");
    world.fund_user("ada", "10");
    shown(&mut world.admin, "SELECT tenancy.install_compat()");
    world
}

/// PostgREST's call of a function with a JSON body: the arguments of the body, by name, typed as the function says.
const RPC: &str = "WITH body AS (SELECT $1::text::json AS data),
    arguments AS (SELECT * FROM json_to_record((SELECT data FROM body)) AS
        _(p_clerk_user_id text, p_amount numeric, p_clerk_org_id text, p_description text, p_reference_id text))
    SELECT public.deduct_credits_pooled(p_clerk_user_id := a.p_clerk_user_id, p_amount := a.p_amount,
        p_clerk_org_id := a.p_clerk_org_id, p_description := a.p_description, p_reference_id := a.p_reference_id) FROM arguments AS a";

#[test]
fn the_client_s_bodies_mean_what_they_meant() {
    let mut world = compat();
    let mut service = world.service();
    // orgId || null, referenceId || null; success is data === true.
    for (body, expected) in [
        (
            r#"{"p_clerk_user_id": "ada", "p_amount": 25, "p_clerk_org_id": "org_acme", "p_description": "Code generation", "p_reference_id": "req_1"}"#,
            true,
        ),
        (
            r#"{"p_clerk_user_id": "ada", "p_amount": 2.5, "p_clerk_org_id": null, "p_description": "Code generation", "p_reference_id": null}"#,
            true,
        ),
        (
            r#"{"p_clerk_user_id": "ada", "p_amount": 0.4, "p_clerk_org_id": "org_acme", "p_description": null, "p_reference_id": null}"#,
            true,
        ),
        (
            r#"{"p_clerk_user_id": "ada", "p_amount": 1000, "p_clerk_org_id": "org_acme", "p_description": "x", "p_reference_id": "r"}"#,
            false,
        ),
        (
            r#"{"p_clerk_user_id": "ada", "p_amount": 8, "p_clerk_org_id": null, "p_description": "x", "p_reference_id": "r"}"#,
            false,
        ),
    ] {
        let row = service.query_one(RPC, &[&body]).expect("an answer");
        assert_eq!(row.get::<_, Option<bool>>(0), Some(expected), "{body}");
    }
    let rows = "SELECT trim_scale(credits_amount), coalesce(description, 'none'), coalesce(reference_id, 'none'), metadata ->> 'pool'
        FROM tenancy.credit_transactions WHERE operation_type = 'deduction' ORDER BY created_at";
    assert_eq!(
        shown(&mut world.admin, rows),
        "-25|Code generation|req_1|organization\n-2.5|Code generation|none|personal\n-0.4|none|none|organization"
    );
    let same = r#"{"p_clerk_user_id": "ada", "p_amount": 1, "p_clerk_org_id": "org_acme", "p_reference_id": "req_1"}"#;
    for _ in 0..2 {
        assert!(service.query_one(RPC, &[&same]).expect("a reference is a label").get::<_, bool>(0));
    }
    assert_eq!(world.available(ACME), "72.600000");
    for (body, state, reason) in [
        (r#"{"p_clerk_user_id": null, "p_amount": 1}"#, "22023", "invalid_argument"),
        (r#"{"p_clerk_user_id": "ada", "p_amount": null}"#, "22023", "invalid_amount"),
        (r#"{"p_clerk_user_id": "ada"}"#, "22023", "invalid_amount"),
        (r#"{"p_clerk_user_id": "ada", "p_amount": 1, "p_clerk_org_id": ""}"#, "22023", "invalid_argument"),
        (r#"{"p_clerk_user_id": "ada", "p_amount": -5}"#, "22023", "invalid_amount"),
        (r#"{"p_clerk_user_id": "nobody", "p_amount": 1}"#, "PT404", "user_not_found"),
        (r#"{"p_clerk_user_id": "zoe", "p_amount": 1, "p_clerk_org_id": "org_acme"}"#, "PT403", "no_active_seat"),
    ] {
        refused(service.query_one(RPC, &[&body]), state, reason);
    }
    assert_verified(&mut world.admin);
}

#[test]
fn the_postgres_crate_calls_it_by_name_and_leaves_out_what_has_a_default() {
    let world = compat();
    let mut service = world.service();
    let none: Option<&str> = None;
    for schema in ["public", "tenancy"] {
        let calls: [(String, Vec<&(dyn ToSql + Sync)>); 4] = [
            (
                format!(
                    "SELECT {schema}.deduct_credits_pooled(p_clerk_user_id => $1, p_amount => 1, p_clerk_org_id => $2,
                        p_description => $3, p_reference_id => $4) AS deduct_credits_pooled"
                ),
                vec![&"ada", &"org_acme", &"Code generation", &none],
            ),
            (
                // Another order, and fewer of them.
                format!("SELECT {schema}.deduct_credits_pooled(p_amount => 1.000000, p_clerk_user_id => $1)"),
                vec![&"ada"],
            ),
            (format!("SELECT {schema}.deduct_credits_pooled($1, 1, $2)"), vec![&"ada", &none]),
            (
                format!("SELECT {schema}.deduct_credits_pooled($1, 0.5, $2, $3, $4)"),
                vec![&"bea", &"org_acme", &none, &none],
            ),
        ];
        for (call, arguments) in calls {
            let row = service.query_one(&call, &arguments).unwrap_or_else(|error| panic!("{call}: {error:?}"));
            assert_eq!(row.columns()[0].name(), "deduct_credits_pooled");
            assert!(row.get::<_, bool>(0), "{call}");
        }
    }
    // A driver reads every column of a deduction.
    let row = service
        .query_one("SELECT transaction_id, status, replayed, pool, charged::text, balance_after::text, held_after::text, metadata
                FROM tenancy.deduct_credits(user_id => $1, amount => 1, org_id => $2, description => $3, reference_id => $4,
                    idempotency_key => $5, metadata => $6)",
            &[&"ada", &"org_acme", &none, &none, &none, &None::<serde_json::Value>])
        .expect("every NULL has a meaning");
    assert_eq!(
        (row.get::<_, &str>(1), row.get::<_, bool>(2), row.get::<_, &str>(3)),
        ("charged", false, "organization")
    );
    assert_eq!(row.get::<_, uuid::Uuid>(0).get_version_num(), 7);
    assert_eq!(row.get::<_, serde_json::Value>(7)["clerk_org_id"], "org_acme");
}

#[test]
fn psql_calls_it_in_named_notation() {
    let world = compat();
    let psql = |statement: &str| {
        let arguments = [
            "-XqAt",
            "-v",
            "ON_ERROR_STOP=1",
            "-v",
            "VERBOSITY=verbose",
            "-U",
            "svc",
            "-d",
            &world.database.name,
            "-c",
            statement,
        ];
        let output = cluster().client("psql", &arguments);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        (text(&output.stdout), text(&output.stderr))
    };
    for (statement, shown) in [
        (
            "SELECT deduct_credits_pooled(p_clerk_user_id => 'ada', p_amount => 25, p_clerk_org_id => 'org_acme', p_description => 'Code generation', p_reference_id => 'req_01JH8Z')",
            "t",
        ),
        ("SELECT deduct_credits_pooled(p_clerk_user_id := 'ada', p_amount := 2)", "t"),
        ("SELECT deduct_credits_pooled('ada', 1000, p_clerk_org_id => 'org_acme')", "f"),
        (
            "SELECT * FROM tenancy.deduct_credits_pooled(p_amount => 1, p_clerk_user_id => 'ada', p_clerk_org_id => NULL)",
            "t",
        ),
        (
            "SELECT status, pool, charged FROM tenancy.deduct_credits(user_id => 'ada', amount => 1, org_id => 'org_acme')",
            "charged|organization|1.000000",
        ),
    ] {
        assert_eq!(psql(statement), (shown.to_owned(), String::new()), "{statement}");
    }
    let (_, error) =
        psql("SELECT deduct_credits_pooled(p_clerk_user_id => 'zoe', p_amount => 25, p_clerk_org_id => 'org_acme')");
    for part in [
        "ERROR:  PT403: User does not have an active seat in this organization",
        "DETAIL:  {\"reason\":\"no_active_seat\"",
        "HINT:",
    ] {
        assert!(error.contains(part), "{part} is not in {error}");
    }
    let overloads = psql(
        "SELECT count(*) FROM pg_proc WHERE proname = 'deduct_credits_pooled' AND pronamespace IN ('public'::regnamespace, 'tenancy'::regnamespace)",
    );
    assert_eq!(overloads.0, "2", "one in each schema");
}
