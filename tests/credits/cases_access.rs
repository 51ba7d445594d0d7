//! Cases 34 and 35: who writes the ledger's tables, and who reads whose rows.

use crate::common::{Token, fails_with};
use crate::world::{ACME, BOLT, World, ask, assert_verified, shown, world};

const TABLES: [&str; 12] = [
    "credit_pools",
    "credit_transactions",
    "credit_grants",
    "credit_holds",
    "credit_draws",
    "credit_returns",
    "credit_idempotency",
    "credit_caps",
    "credit_links",
    "credit_operations",
    "credit_costs",
    "credit_seat_rates",
];

/// A row in every table.
fn busy() -> World<'static> {
    let mut world = world();
    world.fund(ACME, "100");
    world.fund(BOLT, "50");
    let mut service = world.service();
    shown(&mut service, "SELECT tenancy.deduct_credits('ada', 7, 'org_acme', idempotency_key => 'k')");
    shown(&mut service, "SELECT tenancy.deduct_credits('bob', 3, 'org_bolt')");
    shown(&mut service, "SELECT tenancy.void_hold(tenancy.hold_credits('ada', 5, 'org_acme'))");
    shown(&mut service, "SELECT tenancy.consume_credits('ada', 'org_acme', 'cj_comparison', 2)");
    shown(
        &mut world.operator(),
        "SELECT tenancy.set_member_cap('org_acme', 'ada', 90, 'day'); SELECT count(*) FROM tenancy.seal_ledger()",
    );
    for table in TABLES {
        assert_ne!(shown(&mut world.admin, &format!("SELECT count(*) FROM tenancy.{table}")), "0", "{table} has rows");
    }
    world
}

/// Every way to change a table; `{}` is its name, `{column}` one of its columns.
const CHANGES: [&str; 4] = [
    "INSERT INTO tenancy.{} SELECT * FROM tenancy.{} LIMIT 1",
    "UPDATE tenancy.{} SET {column} = {column}",
    "DELETE FROM tenancy.{}",
    "TRUNCATE tenancy.{}",
];

fn change(template: &str, table: &str) -> String {
    let column = match table {
        "credit_costs" => "cost",
        "credit_seat_rates" => "credits_per_seat",
        "credit_operations" => "metric",
        _ => "pool_id",
    };
    template.replace("{}", table).replace("{column}", column)
}

#[test]
fn credits_34_nobody_writes_the_ledger_directly() {
    let mut world = busy();
    let before = world.figures();
    let token = Token::for_member("ada", ACME).sign();
    for role in ["app", "svc", "ops", "met"] {
        let mut client = world.database.connect(role);
        for table in TABLES {
            for template in CHANGES {
                let statement = change(template, table);
                fails_with(ask(&mut client, &statement), "42501");
                if role == "app" {
                    shown(&mut client, &format!("BEGIN; SELECT tenancy.authenticate('{token}')"));
                    fails_with(ask(&mut client, &statement), "42501");
                    shown(&mut client, "ROLLBACK");
                }
            }
            fails_with(ask(&mut client, &format!("COPY tenancy.{table} FROM STDIN")), "42501");
        }
    }
    assert_eq!(world.figures(), before);
}

#[test]
fn credits_34_privileges_on_the_tables_change_no_row() {
    let mut world = busy();
    let name = world.database.name.clone();
    // Somebody who was given everything but the superuser's rights, and operators who were.
    world
        .admin
        .batch_execute(&format!(
            "CREATE ROLE meddler_{name} LOGIN IN ROLE pg_write_all_data, pg_read_all_data;
             GRANT ALL ON SCHEMA tenancy TO meddler_{name}; GRANT ALL ON ALL TABLES IN SCHEMA tenancy TO meddler_{name}, ops;"
        ))
        .expect("a superuser can");
    let before = world.figures();
    let token = Token::for_member("ada", ACME).sign();
    for role in [format!("meddler_{name}"), "ops".to_owned()] {
        let mut client = world.database.connect(&role);
        for table in TABLES {
            for prelude in ["SELECT 1".to_owned(), format!("SELECT tenancy.authenticate('{token}')")] {
                for template in &CHANGES[1..3] {
                    let statement = change(template, table);
                    // Operators see the rows; who has no access cannot even ask the policies of some. Nobody changes one.
                    shown(&mut client, "BEGIN");
                    let authenticated = role == "ops" && ask(&mut client, &prelude).is_ok();
                    match client.execute(&statement, &[]) {
                        Ok(changed) => assert_eq!(changed, 0, "{role}: {statement}"),
                        Err(error) => {
                            assert!(!authenticated);
                            fails_with(Err::<(), _>(error), "42501");
                        }
                    }
                    shown(&mut client, "ROLLBACK");
                }
            }
        }
        // Of rows made up, none gets in.
        let forged = "INSERT INTO tenancy.credit_costs VALUES ('free', 0)";
        fails_with(ask(&mut client, forged), "42501");
        let grant = "INSERT INTO tenancy.credit_links VALUES (gen_random_uuid(), 1, gen_random_uuid(), sha256('x'))";
        fails_with(ask(&mut client, grant), "42501");
    }
    assert_eq!(world.figures(), before);
    assert_verified(&mut world.admin);
    // TRUNCATE knows no row-level security: where a superuser gives it away, verify_ledger finds what was done.
    shown(&mut world.database.connect(&format!("meddler_{name}")), "TRUNCATE tenancy.credit_transactions");
    let rules =
        "SELECT string_agg(DISTINCT rule, ' ') FROM tenancy.verify_ledger() WHERE rule IN ('pool_balance', 'chain')";
    assert_eq!(shown(&mut world.admin, rules), "chain pool_balance");
}

#[test]
fn credits_35_no_view_or_function_of_one_s_own_reaches_another_tenant() {
    let mut world = busy();
    world
        .admin
        .batch_execute(
            "CREATE SCHEMA product AUTHORIZATION app; SET SESSION AUTHORIZATION app;
             CREATE VIEW product.everything AS SELECT * FROM tenancy.credit_transactions;
             CREATE VIEW product.pools AS SELECT p.tenant_id, p.balance FROM tenancy.credit_pools AS p;
             CREATE FUNCTION product.entries() RETURNS TABLE (tenant_id text) LANGUAGE sql SECURITY DEFINER
                 AS 'SELECT t.tenant_id FROM tenancy.credit_transactions AS t';
             CREATE FUNCTION product.leak(numeric) RETURNS boolean LANGUAGE plpgsql COST 0.0000001
                 AS $$ BEGIN RAISE NOTICE '%', $1; RETURN true; END $$;
             GRANT USAGE ON SCHEMA product TO svc; GRANT SELECT ON product.everything, product.pools TO svc;
             GRANT EXECUTE ON FUNCTION product.entries() TO svc;
             RESET SESSION AUTHORIZATION;",
        )
        .expect("what a product does");
    let queries = [
        "SELECT DISTINCT tenant_id FROM tenancy.credit_transactions",
        "SELECT DISTINCT tenant_id FROM tenancy.credit_pools",
        "SELECT DISTINCT tenant_id FROM tenancy.credit_grants",
        "SELECT DISTINCT tenant_id FROM tenancy.credit_usage_by_organization",
        "SELECT DISTINCT tenant_id FROM product.everything",
        "SELECT DISTINCT tenant_id FROM product.pools",
        "SELECT DISTINCT tenant_id FROM product.entries()",
    ];
    for role in ["app", "svc"] {
        let (mut client, notices) = world.database.connect_with_notices(role);
        for query in queries {
            assert_eq!(shown(&mut client, query), "", "no identity: {query}");
            for (user, org) in [("ada", ACME), ("bob", BOLT)] {
                let token = Token::for_member(user, org).sign();
                shown(&mut client, &format!("BEGIN; SELECT tenancy.authenticate('{token}')"));
                assert_eq!(shown(&mut client, query), org, "{query}");
                shown(&mut client, "COMMIT");
            }
        }
        if role == "app" {
            let token = Token::for_member("bob", BOLT).sign();
            shown(&mut client, &format!("BEGIN; SELECT tenancy.authenticate('{token}')"));
            shown(&mut client, "SELECT * FROM tenancy.credit_pools WHERE product.leak(balance); COMMIT");
            let told: Vec<String> =
                notices.lock().expect("notices").iter().map(|notice| notice.message().to_owned()).collect();
            assert_eq!(told, ["47.000000"]);
        }
        fails_with(ask(&mut client, "SET row_security = off; SELECT * FROM tenancy.credit_transactions"), "42501");
        // Where the grants went, keys and links are nobody's but the operators'.
        shown(&mut client, "SET row_security = on");
        for table in ["credit_draws", "credit_returns", "credit_idempotency", "credit_links"] {
            fails_with(ask(&mut client, &format!("SELECT * FROM tenancy.{table}")), "42501");
        }
    }
}
