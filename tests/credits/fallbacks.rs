//! The debit puts its ledger row in without a statement where the table is plain. Whatever a user makes of the table,
//! the row is served as an INSERT serves it: by a statement, or refused by the user's own constraint or index.

use crate::common::fails_with;
use crate::world::{ACME, World, assert_verified, pooled, shown, world};
use postgres::Client;

fn charged(service: &mut Client, amount: &str) {
    assert!(pooled(service, "ada", amount, Some(ACME)).unwrap_or_else(|error| panic!("{error:?}")));
}

/// A funded world and a session that has charged before.
fn warm() -> (World<'static>, Client) {
    let mut world = world();
    world.fund(ACME, "100");
    let mut service = world.service();
    charged(&mut service, "1");
    (world, service)
}

#[test]
fn a_rule_on_the_ledger_is_served_by_a_statement() {
    let (mut world, mut service) = warm();
    shown(
        &mut world.admin,
        "CREATE TABLE public.seen (seq bigint);
         CREATE RULE own AS ON INSERT TO tenancy.credit_transactions DO ALSO INSERT INTO public.seen VALUES (NEW.seq)",
    );
    charged(&mut service, "1");
    assert_eq!(shown(&mut world.admin, "SELECT count(*) FROM public.seen"), "1");
    shown(&mut world.admin, "DROP RULE own ON tenancy.credit_transactions");
    charged(&mut service, "1");
    assert_eq!(shown(&mut world.admin, "SELECT count(*) FROM public.seen"), "1");
    assert_eq!(world.available(ACME), "97.000000");
    assert_verified(&mut world.admin);
}

#[test]
fn a_partitioned_ledger_is_served_by_a_statement() {
    let (mut world, mut service) = warm();
    shown(
        &mut world.admin,
        "BEGIN;
         ALTER TABLE tenancy.credit_transactions RENAME TO first_ledger;
         CREATE TABLE tenancy.credit_transactions (LIKE tenancy.first_ledger INCLUDING ALL) PARTITION BY HASH (pool_id);
         CREATE TABLE tenancy.ledger_0 PARTITION OF tenancy.credit_transactions FOR VALUES WITH (MODULUS 2, REMAINDER 0);
         CREATE TABLE tenancy.ledger_1 PARTITION OF tenancy.credit_transactions FOR VALUES WITH (MODULUS 2, REMAINDER 1);
         INSERT INTO tenancy.credit_transactions SELECT * FROM tenancy.first_ledger;
         COMMIT",
    );
    charged(&mut service, "1");
    let spread = "SELECT count(*), (SELECT count(*) FROM tenancy.first_ledger WHERE operation_type = 'deduction')
                    FROM tenancy.credit_transactions WHERE operation_type = 'deduction'";
    assert_eq!(shown(&mut world.admin, spread), "2|1");
    assert_verified(&mut world.admin);
}

/// Functions and tables of an owner whom row-level security binds: his policy judges the row.
#[test]
fn an_owner_that_policies_bind_is_served_by_a_statement() {
    let (mut world, mut service) = warm();
    shown(
        &mut world.admin,
        "CREATE ROLE bound; GRANT USAGE ON SCHEMA tenancy TO bound;
         DO $$
         DECLARE f record;
         BEGIN
             FOR f IN SELECT oid::regclass AS name FROM pg_class WHERE relnamespace = 'tenancy'::regnamespace AND relkind IN ('r', 'v') LOOP
                 EXECUTE format('ALTER TABLE %s OWNER TO bound', f.name);
             END LOOP;
             FOR f IN SELECT oid::regprocedure AS name FROM pg_proc WHERE pronamespace = 'tenancy'::regnamespace AND prokind = 'f' LOOP
                 EXECUTE format('ALTER FUNCTION %s OWNER TO bound', f.name);
             END LOOP;
             FOR f IN SELECT polrelid::regclass AS name FROM pg_policy WHERE polname = 'owner_rows' LOOP
                 EXECUTE format('ALTER POLICY owner_rows ON %s TO bound', f.name);
             END LOOP;
         END
         $$",
    );
    charged(&mut service, "1");
    shown(&mut world.admin, "ALTER POLICY owner_rows ON tenancy.credit_transactions WITH CHECK (credits_amount > -5)");
    charged(&mut service, "4");
    fails_with(pooled(&mut service, "ada", "6", Some(ACME)), "42501");
    charged(&mut service, "1");
    assert_eq!(world.available(ACME), "93.000000");
    assert_verified(&mut world.admin);
}

/// What refuses a row refuses it here too; the charge is undone, in a savepoint as well, and the session goes on.
#[test]
fn a_users_own_constraints_and_indexes_refuse_as_they_do_in_a_statement() {
    let (mut world, mut service) = warm();
    // Amounts that went through are all different, so that each constraint can be made.
    for (turn, (add, remove, amount, sqlstate)) in [
        ("ADD CONSTRAINT own CHECK (credits_amount > -5)", "DROP CONSTRAINT own", "6", "23514"),
        ("ADD CONSTRAINT own UNIQUE (credits_amount)", "DROP CONSTRAINT own", "1", "23505"),
        ("ADD CONSTRAINT own UNIQUE (credits_amount) DEFERRABLE", "DROP CONSTRAINT own", "1", "23505"),
        ("ADD CONSTRAINT own EXCLUDE USING btree (credits_amount WITH =)", "DROP CONSTRAINT own", "1", "23P01"),
        ("ALTER correlation_id SET NOT NULL", "ALTER correlation_id DROP NOT NULL", "1", "23502"),
    ]
    .into_iter()
    .enumerate()
    {
        shown(&mut world.admin, "UPDATE tenancy.credit_transactions SET correlation_id = 'x'");
        shown(&mut world.admin, &format!("ALTER TABLE tenancy.credit_transactions {add}"));
        let figures = world.figures();
        fails_with(pooled(&mut service, "ada", amount, Some(ACME)), sqlstate);
        service
            .batch_execute(&format!(
                "DO $$ BEGIN PERFORM tenancy.deduct_credits_pooled('ada', {amount}, 'org_acme');
                   RAISE 'not refused'; EXCEPTION WHEN SQLSTATE '{sqlstate}' THEN NULL; END $$"
            ))
            .unwrap_or_else(|error| panic!("{add}: {error:?}"));
        assert_eq!(world.figures(), figures, "{add}");
        shown(&mut world.admin, &format!("ALTER TABLE tenancy.credit_transactions {remove}"));
        charged(&mut service, &format!("2.{turn}"));
    }
    assert_verified(&mut world.admin);
}

/// An expression that fails, and an index that holds some rows only.
#[test]
fn indexes_on_expressions_and_of_some_rows_are_kept() {
    let (mut world, mut service) = warm();
    shown(
        &mut world.admin,
        "CREATE UNIQUE INDEX own_some ON tenancy.credit_transactions ((lower(description) || seq)) WHERE operation_type = 'deduction';
         CREATE INDEX own_fails ON tenancy.credit_transactions ((1 / (credits_amount + 7)))",
    );
    charged(&mut service, "2");
    fails_with(pooled(&mut service, "ada", "7", Some(ACME)), "22012");
    charged(&mut service, "3");
    let by_index = "SET enable_seqscan = off; SET enable_bitmapscan = off;
        SELECT count(*) FROM tenancy.credit_transactions
         WHERE lower(description) || seq LIKE 'code generation%' AND operation_type = 'deduction'";
    assert_eq!(shown(&mut world.admin, by_index), "3");
    assert_eq!(world.available(ACME), "94.000000");
    assert_verified(&mut world.admin);
}

/// A row put in without a statement is seen by the watch over serializable transactions: of two that each read what
/// the other writes, one fails.
#[test]
fn serializable_transactions_notice_the_ledgers_row() {
    let (mut world, mut service) = warm();
    shown(
        &mut world.admin,
        "CREATE TABLE public.work (n integer); INSERT INTO public.work VALUES (1); GRANT ALL ON public.work TO svc",
    );
    let mut reader = world.database.superuser();
    reader
        .batch_execute(
            "BEGIN ISOLATION LEVEL SERIALIZABLE; SELECT sum(credits_amount) FROM tenancy.credit_transactions",
        )
        .unwrap();
    service.batch_execute("BEGIN ISOLATION LEVEL SERIALIZABLE; SELECT sum(n) FROM public.work").unwrap();
    charged(&mut service, "1");
    reader.batch_execute("UPDATE public.work SET n = 2").unwrap();
    let ends = [service.batch_execute("COMMIT"), reader.batch_execute("COMMIT")];
    let failed: Vec<_> = ends.iter().filter_map(|end| end.as_ref().err()).collect();
    assert_eq!(failed.len(), 1, "{ends:?}");
    assert_eq!(failed[0].code().map(|code| code.code()), Some("40001"), "{failed:?}");
    charged(&mut service, "1");
    assert_verified(&mut world.admin);
}

/// The name of our constraint says nothing: what a user put in its place is asked, as long as it is there.
#[test]
fn a_constraint_in_the_place_of_ours_is_asked() {
    let (mut world, mut service) = warm();
    let entry = "tenancy._is_sound_entry(operation_type, seq, credits_amount, balance_after, drawn_after, user_id, grant_id, refund_of)";
    let pool = "tenancy._is_sound_pool(pool_id, organization_id, user_id, balance, held, granted_total, drawn_total, burned_total)";
    let mut amount = 2.0;
    for (table, ours, theirs) in [
        ("credit_transactions", entry, format!("{entry} AND credits_amount > -5")),
        ("credit_transactions", entry, "credits_amount > -5".to_owned()),
        (
            "credit_transactions",
            entry,
            entry.replace("seq, credits_amount", "(credits_amount + 5)::bigint, credits_amount"),
        ),
        ("credit_pools", pool, format!("{pool} AND balance > 60")),
        ("credit_pools", pool, pool.replace(" held", " 60")),
        ("credit_pools", pool, pool.replace("balance, held", "balance - 60, held")),
    ] {
        let replace = |by: &str| {
            format!(
                "ALTER TABLE tenancy.{table} DROP CONSTRAINT {table}_check, ADD CONSTRAINT {table}_check CHECK ({by}) NOT VALID"
            )
        };
        shown(&mut world.admin, &replace(&theirs));
        let figures = world.figures();
        let refused = if table == "credit_pools" { "39" } else { "6" };
        fails_with(pooled(&mut service, "ada", refused, Some(ACME)), "23514");
        assert_eq!(world.figures(), figures, "{theirs}");
        charged(&mut service, "1");
        shown(&mut world.admin, &replace(ours));
        charged(&mut service, &format!("{amount}"));
        amount += 0.25;
    }
    assert_verified(&mut world.admin);
}

/// Our own constraint is judged without the executor: a plain debit calls neither function, and a statement does.
#[test]
fn a_plain_debit_needs_no_statement() {
    let (mut world, _) = warm();
    let mut session = world.database.superuser();
    shown(&mut session, "SET track_functions = 'all'");
    let debit = "SELECT tenancy.deduct_credits_pooled('ada', 1, 'org_acme')";
    let mut calls = |session: &mut Client| {
        shown(session, "SELECT pg_stat_force_next_flush()");
        let calls = "SELECT coalesce(sum(calls), 0) FROM pg_stat_user_functions WHERE funcname IN ('_is_sound_entry', '_is_sound_pool')";
        shown(&mut world.admin, calls)
    };
    for _ in 0..3 {
        assert_eq!(shown(&mut session, debit), "t");
    }
    assert_eq!(calls(&mut session), "0");
    shown(&mut session, "ALTER TABLE tenancy.credit_transactions ADD CONSTRAINT own CHECK (true)");
    assert_eq!(shown(&mut session, debit), "t");
    assert_ne!(calls(&mut session), "0");
    assert_verified(&mut session);
}
