//! What the debit spares itself must not show: rows changed by hand are seen, and a user's own additions to the
//! ledger are served by a statement.

use crate::common::{fails_with, refused};
use crate::world::{ACME, pooled, world};

#[test]
fn a_warm_session_sees_every_change_of_seat_subscription_and_names() {
    let mut world = world();
    world.fund(ACME, "100");
    let mut service = world.service();
    let mut debit = || pooled(&mut service, "ada", "1", Some(ACME));
    assert!(debit().unwrap() && debit().unwrap());
    // By hand, as nobody should: no function of ours announces it.
    world.admin.batch_execute("UPDATE tenancy.organizations SET name = 'Acme Two' WHERE name = 'Acme Inc'").unwrap();
    assert!(debit().unwrap());
    assert_eq!(world.last_entry()["metadata"]["organization_name"], "Acme Two");
    let seat = |status: &str| {
        format!(
            "UPDATE tenancy.organization_seats AS s SET status = '{status}', revoked_at = CASE '{status}' WHEN 'revoked' THEN now() END
               FROM tenancy.users AS u WHERE u.id = s.user_id AND u.external_id = 'ada'"
        )
    };
    world.admin.batch_execute(&seat("revoked")).unwrap();
    refused(debit(), "PT403", "no_active_seat");
    world.admin.batch_execute(&seat("active")).unwrap();
    assert!(debit().unwrap());
    world.admin.batch_execute("UPDATE tenancy.organization_subscriptions SET status = 'canceled'").unwrap();
    refused(debit(), "PT402", "no_active_subscription");
    // Rolled back, it never was; moved by a rewrite, the rows are found again.
    world.admin.batch_execute("UPDATE tenancy.organization_subscriptions SET status = 'active'").unwrap();
    world.admin.batch_execute(&format!("BEGIN; {}; ROLLBACK", seat("revoked"))).unwrap();
    assert!(debit().unwrap());
    world.admin.batch_execute("VACUUM FULL tenancy.organization_seats").unwrap();
    assert!(debit().unwrap());
    let expires = "UPDATE tenancy.organization_seats SET expires_at = now() - interval '1 second'";
    world.admin.batch_execute(expires).unwrap();
    refused(debit(), "PT403", "no_active_seat");
    assert_eq!(world.available(ACME), "94.000000");
}

#[test]
fn a_users_own_columns_triggers_and_indexes_on_the_ledger_are_served() {
    let mut world = world();
    world.fund(ACME, "100");
    let mut service = world.service();
    let mut debit = || pooled(&mut service, "ada", "1", Some(ACME));
    assert!(debit().unwrap());
    world
        .admin
        .batch_execute(
            "CREATE UNIQUE INDEX own_seq ON tenancy.credit_transactions (pool_id, seq) INCLUDE (credits_amount)",
        )
        .unwrap();
    assert!(debit().unwrap());
    world
        .admin
        .batch_execute(
            "CREATE TABLE public.seen (seq bigint);
             CREATE FUNCTION public.see() RETURNS trigger LANGUAGE plpgsql AS
                 'BEGIN INSERT INTO public.seen VALUES (NEW.seq); RETURN NULL; END';
             CREATE TRIGGER own AFTER INSERT ON tenancy.credit_transactions FOR EACH ROW EXECUTE FUNCTION public.see();",
        )
        .unwrap();
    assert!(debit().unwrap());
    let seen: i64 = world.admin.query_one("SELECT count(*) FROM public.seen", &[]).unwrap().get(0);
    assert_eq!(seen, 1, "the trigger fired");
    world.admin.batch_execute("DROP TRIGGER own ON tenancy.credit_transactions").unwrap();
    world.admin.batch_execute("ALTER TABLE tenancy.credit_transactions ADD own text NOT NULL DEFAULT 'mine'").unwrap();
    assert!(debit().unwrap());
    assert_eq!(world.last_entry()["own"], "mine");
    let by_index: i64 = world
        .admin
        .query_one("SELECT count(*) FROM tenancy.credit_transactions WHERE operation_type = 'deduction'", &[])
        .unwrap()
        .get(0);
    assert_eq!((by_index, world.available(ACME).as_str()), (4, "96.000000"));
    assert!(world.admin.query("SELECT * FROM tenancy.verify_ledger()", &[]).unwrap().is_empty());
}

#[test]
fn a_users_own_indexes_rules_and_triggers_on_the_pools_are_served() {
    let mut world = world();
    world.fund(ACME, "100");
    let mut service = world.service();
    let mut debit = || pooled(&mut service, "ada", "1", Some(ACME));
    assert!(debit().unwrap());
    // An index on what changes: each version of the row needs an entry of its own.
    world.admin.batch_execute("CREATE INDEX own_balance ON tenancy.credit_pools (balance)").unwrap();
    assert!(debit().unwrap() && debit().unwrap());
    world.admin.batch_execute("SET enable_seqscan = off").unwrap();
    for (balance, rows) in [("99", 0), ("98", 0), ("97", 1)] {
        let found = format!("SELECT count(*) FROM tenancy.credit_pools AS p WHERE p.balance = {balance}");
        assert_eq!(world.admin.query_one(&found, &[]).unwrap().get::<_, i64>(0), rows, "{balance}");
    }
    world.admin.batch_execute("ALTER TABLE tenancy.credit_pools ADD CONSTRAINT own CHECK (balance >= 96)").unwrap();
    assert!(debit().unwrap());
    fails_with(debit(), "23514");
    world
        .admin
        .batch_execute(
            "ALTER TABLE tenancy.credit_pools DROP CONSTRAINT own;
             CREATE TABLE public.changes (balance numeric);
             CREATE FUNCTION public.note() RETURNS trigger LANGUAGE plpgsql AS
                 'BEGIN INSERT INTO public.changes VALUES (NEW.balance); RETURN NULL; END';
             CREATE TRIGGER own AFTER UPDATE ON tenancy.credit_pools FOR EACH ROW EXECUTE FUNCTION public.note();",
        )
        .unwrap();
    assert!(debit().unwrap());
    // A foreign key of the user's on what a debit changes.
    world
        .admin
        .batch_execute(
            "ALTER TABLE tenancy.credit_pools ADD CONSTRAINT own UNIQUE (pool_id, seq);
             CREATE TABLE public.notes (pool_id uuid, seq bigint,
                 FOREIGN KEY (pool_id, seq) REFERENCES tenancy.credit_pools (pool_id, seq) ON UPDATE CASCADE);
             INSERT INTO public.notes SELECT pool_id, seq FROM tenancy.credit_pools;
             DROP TRIGGER own ON tenancy.credit_pools;",
        )
        .unwrap();
    assert!(debit().unwrap());
    let follows = "SELECT count(*) FROM public.notes AS n JOIN tenancy.credit_pools AS p USING (pool_id, seq)";
    assert_eq!(world.admin.query_one(follows, &[]).unwrap().get::<_, i64>(0), 1, "the foreign key was followed");
    world.admin.batch_execute("DROP TABLE public.notes").unwrap();
    let noted: String = world.admin.query_one("SELECT balance::text FROM public.changes", &[]).unwrap().get(0);
    assert_eq!(noted, "95.000000", "the trigger fired");
    assert_eq!(world.available(ACME), "94.000000");
    assert!(world.admin.query("SELECT * FROM tenancy.verify_ledger()", &[]).unwrap().is_empty());
}

/// What a user has made of the pools' own columns is served as an UPDATE serves it.
#[test]
fn pools_with_other_keys_and_types_are_served_by_a_statement() {
    let mut world = world();
    world.fund(ACME, "100");
    let mut service = world.service();
    let mut debit = |amount: &str| pooled(&mut service, "ada", amount, Some(ACME));
    assert!(debit("1").unwrap());
    // A foreign key from what a debit changes: 97 is refused.
    world
        .admin
        .batch_execute(
            "CREATE TABLE public.balances (balance numeric PRIMARY KEY);
             INSERT INTO public.balances VALUES (0), (98), (99), (100);
             ALTER TABLE tenancy.credit_pools ADD CONSTRAINT own FOREIGN KEY (balance) REFERENCES public.balances",
        )
        .unwrap();
    assert!(debit("1").unwrap());
    fails_with(debit("1"), "23503");
    world
        .admin
        .batch_execute(
            "ALTER TABLE tenancy.credit_pools DROP CONSTRAINT own;
             ALTER TABLE tenancy.credit_grants DROP CONSTRAINT credit_grants_pool_fkey;
             ALTER TABLE tenancy.credit_pools DROP CONSTRAINT credit_pools_pkey CASCADE, ADD PRIMARY KEY (tag, pool_id)",
        )
        .unwrap();
    assert!(debit("1").unwrap());
    world
        .admin
        .batch_execute(
            "ALTER TABLE tenancy.credit_pools DROP CONSTRAINT credit_pools_pkey, ADD PRIMARY KEY (pool_id);
             ALTER TABLE tenancy.credit_pools ALTER drawn_total TYPE numeric(2,1)",
        )
        .unwrap();
    assert!(debit("6.9").unwrap());
    fails_with(debit("1"), "22003");
}

#[test]
fn the_constraints_of_pools_and_ledger_refuse_what_does_not_add_up() {
    let mut world = world();
    world.fund(ACME, "100");
    pooled(&mut world.service(), "ada", "1", Some(ACME)).unwrap();
    for change in [
        "balance = -1",
        "balance = 'NaN'",
        "held = balance + 1",
        "held = -1",
        "granted_total = balance - 1",
        "burned_total = drawn_total + 1",
        "burned_total = -1",
        "organization_id = NULL",
        "pool_id = gen_random_uuid()",
    ] {
        let update = format!("UPDATE tenancy.credit_pools SET {change}");
        fails_with(world.admin.execute(update.as_str(), &[]), "23514");
    }
    for change in [
        "credits_amount = 1",
        "credits_amount = 'NaN'",
        "balance_after = -1",
        "seq = 0",
        "user_id = NULL",
        "drawn_after = NULL",
        "operation_type = 'gift'",
        "operation_type = 'refund', credits_amount = 1",
        "operation_type = 'expiry'",
        "operation_type = 'adjustment', credits_amount = 0",
    ] {
        let update = format!("UPDATE tenancy.credit_transactions SET {change} WHERE operation_type = 'deduction'");
        fails_with(world.admin.execute(update.as_str(), &[]), "23514");
    }
}
