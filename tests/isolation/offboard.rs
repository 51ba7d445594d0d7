//! A tenant leaves: export, suspend, delete.

use crate::common::{Database, Token, fails_with, refused};
use crate::world::{BIGINT, UUID, as_tenant, column, noticed, role, shop, take_notices, token_of, value};
use postgres::{Client, SimpleQueryMessage};
use serde_json::{Value, json};

/// Tables of every kind, with rows of two tenants, the first of which is registered with an organization.
fn furnished() -> Database<'static> {
    let database = shop();
    database
        .connect("ops")
        .batch_execute(
            "CREATE TABLE shop.authors (id bigint PRIMARY KEY, tenant_id text, mentor bigint REFERENCES shop.authors);
             CREATE TABLE shop.books (id bigint PRIMARY KEY, tenant_id text, author bigint REFERENCES shop.authors);
             CREATE TABLE shop.pages (id bigint, tenant_id text, book bigint REFERENCES shop.books, at date) PARTITION BY RANGE (at);
             CREATE TABLE shop.pages_1 PARTITION OF shop.pages FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');
             CREATE TABLE shop.pages_2 PARTITION OF shop.pages FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
             CREATE TABLE shop.things (id bigint, tenant_id text);
             CREATE TABLE shop.big_things (size integer) INHERITS (shop.things);
             CREATE TABLE shop.by_uuid (id bigint, tenant_id uuid);
             CREATE TABLE shop.by_number (id bigint, tenant_id bigint);
             INSERT INTO shop.authors SELECT i, CASE WHEN i <= 10 THEN 'tenant-a' ELSE 'tenant-b' END, CASE WHEN i % 10 > 1 THEN i - 1 END
               FROM generate_series(1, 20) i;
             INSERT INTO shop.books SELECT i, CASE WHEN i <= 10 THEN 'tenant-a' ELSE 'tenant-b' END, i FROM generate_series(1, 20) i;
             INSERT INTO shop.pages SELECT i, CASE WHEN i <= 10 THEN 'tenant-a' ELSE 'tenant-b' END, i, '2025-12-25'::date + i::integer FROM generate_series(1, 20) i;
             INSERT INTO shop.things VALUES (1, 'tenant-a'), (2, 'tenant-b');
             INSERT INTO shop.big_things VALUES (3, 'tenant-a', 7), (4, 'tenant-b', 7);",
        )
        .unwrap();
    let mut ops = database.connect("ops");
    ops.batch_execute(&format!(
        "INSERT INTO shop.by_uuid VALUES (1, '{}'), (2, '{}'); INSERT INTO shop.by_number VALUES (1, {}), (2, {})",
        UUID[0], UUID[1], BIGINT[0], BIGINT[1]
    ))
    .unwrap();
    for table in ["authors", "books", "pages", "things", "by_uuid", "by_number"] {
        ops.batch_execute(&format!("SELECT tenancy.protect_table('shop.{table}')")).unwrap();
    }
    ops.batch_execute(
        "SELECT tenancy.register_tenant('tenant-a', 'A'); SELECT tenancy.register_tenant('tenant-b', 'B');
         SELECT tenancy.register_organization(org_id => 'org-a', name => 'A', tenant_id => 'tenant-a');
         SELECT tenancy.register_organization(org_id => 'org-b', name => 'B', tenant_id => 'tenant-b');
         SELECT tenancy.register_user('user-a');
         SELECT tenancy.set_membership('user-a', 'org-a', 'member')",
    )
    .unwrap();
    database
}

fn export(client: &mut Client, tenant: &str) -> Vec<Value> {
    column(client, &format!("SELECT tenancy.export_tenant('{tenant}')"))
        .iter()
        .map(|line| serde_json::from_str(line).expect("each line is JSON"))
        .collect()
}

#[test]
fn an_export_is_every_row_of_the_tenant_and_of_no_other_parents_first() {
    let database = furnished();
    let mut ops = database.connect("ops");
    let lines = export(&mut ops, "tenant-a");
    assert_eq!(lines.len(), 32);
    assert!(lines.iter().all(|line| line["row"]["tenant_id"] == "tenant-a"), "{lines:?}");
    let first = |table: &str| lines.iter().position(|line| line["table"] == table).unwrap();
    let last = |table: &str| lines.iter().rposition(|line| line["table"] == table).unwrap();
    assert!(last("shop.authors") < first("shop.books") && last("shop.books") < first("shop.pages"));
    assert!(
        lines.contains(&json!({"table": "shop.big_things", "row": {"id": 3, "tenant_id": "tenant-a", "size": 7}})),
        "a child's own columns too"
    );
    assert_eq!(export(&mut ops, UUID[0]), [json!({"table": "shop.by_uuid", "row": {"id": 1, "tenant_id": UUID[0]}})]);
    assert_eq!(export(&mut ops, BIGINT[0]), [json!({"table": "shop.by_number", "row": {"id": 1, "tenant_id": 1001}})]);
    assert!(export(&mut ops, "99999999999999999999").is_empty() && export(&mut ops, "nobody").is_empty());
    let noted = "SELECT string_agg(action || ' ' || actor, ',') FROM tenancy.audit_log WHERE tenant_id = 'tenant-a'";
    assert_eq!(value(&mut database.superuser(), noted), "export_tenant ops");
    refused(ops.query("SELECT tenancy.export_tenant('')", &[]), "22023", "invalid_argument");
}

/// Whatever the columns hold comes back from the lines, in the order they come in.
#[test]
fn an_export_goes_back_in() {
    let tables = "
        CREATE TABLE shop.authors (id bigint PRIMARY KEY, tenant_id text, at timestamptz, score float8, exact numeric, raw bytea, more jsonb, words text[],
                                   span tstzrange, made bigint GENERATED ALWAYS AS IDENTITY, pair shop.pair);
        CREATE TABLE shop.books (id bigint PRIMARY KEY, tenant_id text, author bigint REFERENCES shop.authors, mark char(3)) PARTITION BY HASH (id);
        CREATE TABLE shop.books_1 PARTITION OF shop.books FOR VALUES WITH (MODULUS 1, REMAINDER 0);
        CREATE TABLE shop.\"od d\" (\"Co'l\" text, tenant_id text); CREATE TABLE shop.kid (extra date) INHERITS (shop.\"od d\");";
    let protect = "SELECT tenancy.protect_table('shop.books', composite_keys => true); SELECT tenancy.protect_table('shop.authors', composite_keys => true);
                   SELECT tenancy.protect_table('shop.\"od d\"')";
    let databases = [shop(), shop()];
    let [mut from, mut to] = databases.each_ref().map(|database| database.connect("ops"));
    for client in [&mut from, &mut to] {
        client.batch_execute("CREATE TYPE shop.pair AS (a int, b text)").unwrap();
        client.batch_execute(&format!("{tables} {protect}")).unwrap();
    }
    databases[0]
        .superuser()
        .batch_execute(
            "INSERT INTO shop.authors VALUES (9007199254740993, 'tenant-a', 'infinity', 0.1::float8 + 0.2::float8, 'NaN', '\\x00ff5c', '{\"a\": [null, \"ö\\n\"]}', '{a,NULL,\"b,\\\"c\"}',
                                              '[2026-01-01 00:00:00.123456+00,)', DEFAULT, (1, 'x,\"y')),
                                         (2, 'tenant-a', NULL, 'Infinity', 1e30, '', 'null', '{}', 'empty', DEFAULT, NULL), (3, 'tenant-b', now(), 1, 1, '', '{}', '{}', 'empty', DEFAULT, NULL);
             INSERT INTO shop.books VALUES (1, 'tenant-a', 2, 'a'), (2, 'tenant-a', 9007199254740993, NULL), (3, 'tenant-b', 3, 'b');
             INSERT INTO shop.\"od d\" VALUES ('x', 'tenant-a'); INSERT INTO shop.kid VALUES ('y', 'tenant-a', '2026-02-28')",
        )
        .unwrap();
    from.batch_execute("SET extra_float_digits = -5; SET DateStyle = 'German, DMY'; SET IntervalStyle = sql_standard; SET bytea_output = escape; SET TimeZone = 'Asia/Kolkata'").unwrap();
    let lines = column(&mut from, "SELECT tenancy.export_tenant('tenant-a')");
    assert_eq!(lines.len(), 6, "{lines:#?}");
    let mut loader = databases[1].superuser();
    for line in &lines {
        let parsed: Value = serde_json::from_str(line).unwrap();
        let table = parsed["table"].as_str().unwrap();
        // The text as it came: a number in it may be larger than a reader of JSON keeps.
        let statement = format!(
            "INSERT INTO {table} OVERRIDING SYSTEM VALUE SELECT * FROM json_populate_record(NULL::{table}, $1::text::json -> 'row')"
        );
        assert_eq!(loader.execute(&statement, &[line]).unwrap_or_else(|error| panic!("{line}: {error:?}")), 1);
    }
    assert_eq!(column(&mut to, "SELECT tenancy.export_tenant('tenant-a')"), lines);
    let digest = "SELECT md5(string_agg(t::text, '|' ORDER BY id)) FROM shop.authors t WHERE tenant_id = 'tenant-a' AND id = 9007199254740993";
    let [one, two] = databases.each_ref().map(|database| value(&mut database.superuser(), digest));
    assert_eq!(one, two);
}

#[test]
fn an_export_of_many_rows_comes_in_chunks() {
    let database = shop();
    let mut ops = database.connect("ops");
    ops.batch_execute(
        "CREATE TABLE shop.many (id bigint, tenant_id text); INSERT INTO shop.many SELECT i, 'tenant-a' FROM generate_series(1, 1777) i;
         SELECT tenancy.protect_table('shop.many')",
    )
    .unwrap();
    let sum: i64 = export(&mut ops, "tenant-a").iter().map(|line| line["row"]["id"].as_i64().unwrap()).sum();
    assert_eq!(sum, 1777 * 1778 / 2);
}

#[test]
fn a_suspended_tenant_lets_nobody_in() {
    let database = furnished();
    let mut ops = database.connect("ops");
    let mut app = database.connect("app");
    as_tenant(&mut app, "tenant-a", |_| ());
    assert_eq!(value(&mut ops, "SELECT tenancy.suspend_tenant('tenant-a', 'unpaid')::text"), "true");
    assert_eq!(value(&mut ops, "SELECT tenancy.suspend_tenant('tenant-a', 'unpaid')::text"), "false");
    fails_with(app.query("SELECT tenancy.authenticate($1)", &[&token_of("tenant-a")]), "PT403");
    as_tenant(&mut app, "tenant-b", |_| ());
    let mut svc = database.connect("svc");
    for who in ["'user-a', 'org-a'", "'somebody', tenant_id => 'tenant-a'"] {
        fails_with(svc.query(&format!("SELECT tenancy.act_as({who})"), &[]), "PT403");
    }
    let noted = "SELECT action || ' ' || reason FROM tenancy.audit_log WHERE tenant_id = 'tenant-a'";
    assert_eq!(column(&mut database.superuser(), noted), ["suspend_tenant unpaid"]);
    refused(ops.query("SELECT tenancy.suspend_tenant('nobody')", &[]), "PT404", "tenant_not_found");
}

#[test]
fn who_was_in_before_the_suspension_ends_as_it_began_and_a_service_may_settle() {
    let database = furnished();
    let mut ops = database.connect("ops");
    ops.batch_execute("SELECT tenancy.set_subscription('org-a', 'team', 'active', 5); SELECT tenancy.assign_seat('org-a', 'user-a'); SELECT tenancy.grant_credits(50, org_id => 'org-a')")
        .unwrap();
    let mut svc = database.connect("svc");
    let hold = value(&mut svc, "SELECT tenancy.hold_credits('user-a', 20, 'org-a')::text");
    ops.batch_execute("GRANT SELECT ON shop.things TO app").unwrap();
    let mut app = database.connect("app");
    as_tenant(&mut app, "tenant-a", |tx| {
        ops.batch_execute("SELECT tenancy.suspend_tenant('tenant-a')").unwrap();
        assert_eq!(column(tx, "SELECT id::text FROM shop.things"), ["1", "3"], "its transaction sees what it saw");
    });
    assert!(column(&mut app, "SELECT id::text FROM shop.things").is_empty());
    svc.batch_execute(&format!(
        "SELECT tenancy.capture_hold('{hold}', 5); SELECT tenancy.deduct_credits('user-a', 1, 'org-a')"
    ))
    .unwrap();
    let settled = value(&mut ops, "SELECT available::text FROM tenancy.credit_balance(org_id => 'org-a')");
    assert_eq!(settled, "44.000000");
}

#[test]
fn a_deletion_takes_every_row_in_batches_and_gives_a_receipt() {
    let database = furnished();
    let (mut ops, notices) = database.connect_with_notices("ops");
    refused(ops.query("CALL tenancy.delete_tenant('tenant-a')", &[]), "PT422", "tenant_not_suspended");
    ops.batch_execute("SELECT tenancy.suspend_tenant('tenant-a')").unwrap();
    let messages = ops.simple_query("CALL tenancy.delete_tenant('tenant-a', batch_size => 7)").unwrap();
    let receipt = messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => serde_json::from_str::<Value>(row.get("receipt")?).ok(),
        _ => None,
    });
    let receipt = receipt.expect("a receipt comes back");
    assert_eq!(receipt["done"], true, "{receipt}");
    assert_eq!(receipt["deleted"]["shop.pages"], 10);
    assert_eq!(receipt["deleted"]["shop.things"], 2);
    assert_eq!(receipt["deleted"]["tenancy.organizations"], 1);
    assert_eq!(receipt["deleted"]["tenancy.organization_memberships"], 1);
    assert_eq!(receipt["rows"], 34);
    assert!(noticed(&take_notices(&notices), &["deleted so far: 7"]));

    let mut superuser = database.superuser();
    for table in [
        "shop.authors",
        "shop.books",
        "shop.pages",
        "shop.things",
        "tenancy.organizations",
        "tenancy.organization_memberships",
    ] {
        let left = format!("SELECT count(*)::text FROM {table} WHERE tenant_id = 'tenant-a'");
        assert_eq!(value(&mut superuser, &left), "0", "{table}");
    }
    assert_eq!(value(&mut superuser, "SELECT count(*)::text FROM shop.pages"), "10", "the others' rows stay");
    let kept = "SELECT (deleted ->> 'shop.authors') || ' ' || (finished_at IS NOT NULL) || ' ' || forced FROM tenancy.tenant_deletions";
    assert_eq!(value(&mut superuser, kept), "10 true false");
    let mut app = database.connect("app");
    fails_with(app.query("SELECT tenancy.authenticate($1)", &[&token_of("tenant-a")]), "PT403");
    // Its organization's tokens are not those of a new tenant of the organization's name.
    let orphan = Token::for_member("author-a", "org-a").sign();
    fails_with(app.query("SELECT tenancy.authenticate($1)", &[&orphan]), "PT403");
}

#[test]
fn open_credits_refuse_a_deletion_unless_it_is_forced() {
    let database = furnished();
    let mut ops = database.connect("ops");
    ops.batch_execute("SELECT tenancy.grant_credits(5, org_id => 'org-a'); SELECT tenancy.suspend_tenant('tenant-a')")
        .unwrap();
    let error = refused(ops.query("CALL tenancy.delete_tenant('tenant-a')", &[]), "PT422", "obligations_open");
    let detail: Value = serde_json::from_str(error.detail().unwrap()).unwrap();
    assert_eq!((detail["pools"].as_i64(), detail["credits"].as_f64()), (Some(1), Some(5.0)), "{detail}");
    ops.batch_execute("CALL tenancy.delete_tenant('tenant-a', force => true)").unwrap();
    let mut superuser = database.superuser();
    for table in ["credit_pools", "credit_transactions", "credit_grants", "organizations"] {
        let left = format!("SELECT count(*)::text FROM tenancy.{table} WHERE tenant_id = 'tenant-a'");
        assert_eq!(value(&mut superuser, &left), "0", "{table}");
    }
    assert_eq!(value(&mut superuser, "SELECT forced::text FROM tenancy.tenant_deletions"), "true");
}

#[test]
fn a_deletion_that_was_interrupted_goes_on() {
    let database = furnished();
    let mut ops = database.connect("ops");
    ops.batch_execute("CREATE TABLE shop.loans (book bigint REFERENCES shop.books); INSERT INTO shop.loans VALUES (3)")
        .unwrap();
    ops.batch_execute("SELECT tenancy.suspend_tenant('tenant-a')").unwrap();
    let error = fails_with(ops.query("CALL tenancy.delete_tenant('tenant-a', batch_size => 5)", &[]), "23503");
    assert!(error.message().contains("books"), "{error:?}");
    let mut superuser = database.superuser();
    let so_far = "SELECT ((deleted ->> 'shop.pages')::integer > 0) || ' ' || (finished_at IS NULL) FROM tenancy.tenant_deletions";
    assert_eq!(value(&mut superuser, so_far), "true true");
    ops.batch_execute("DROP TABLE shop.loans").unwrap();
    ops.batch_execute("CALL tenancy.delete_tenant('tenant-a')").unwrap();
    let done = "SELECT count(*) || ' ' || sum((deleted ->> 'shop.pages')::integer) FROM tenancy.tenant_deletions WHERE finished_at IS NOT NULL";
    assert_eq!(value(&mut superuser, done), "1 10");
}

/// What hangs on a table is its owner's code: run for an operator, it must not get more than its owner has.
#[test]
fn a_table_owner_s_code_never_runs_with_more_rights_than_the_owner_s() {
    let database = shop();
    role(&database, "dev", "LOGIN");
    let mut superuser = database.superuser();
    superuser
        .batch_execute(
            "GRANT CREATE, USAGE ON SCHEMA shop TO dev; CREATE TABLE shop.seen (what text, who text, super boolean); GRANT INSERT ON shop.seen TO dev;
             SELECT tenancy.register_tenant('tenant-a', 'A'); SELECT tenancy.suspend_tenant('tenant-a')",
        )
        .unwrap();
    database
        .connect("dev")
        .batch_execute(
            "CREATE FUNCTION shop.look(what text) RETURNS void LANGUAGE sql AS
                 $$ INSERT INTO shop.seen SELECT what, current_user, rolsuper FROM pg_roles WHERE rolname = current_user $$;
             CREATE FUNCTION shop.spy() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM shop.look('trigger'); RETURN OLD; END $$;
             CREATE TYPE shop.mine AS (a integer);
             CREATE FUNCTION shop.to_json(shop.mine) RETURNS json LANGUAGE plpgsql AS $$ BEGIN PERFORM shop.look('cast'); RETURN '1'; END $$;
             CREATE CAST (shop.mine AS json) WITH FUNCTION shop.to_json(shop.mine);
             CREATE TABLE shop.trap (id bigint, tenant_id text, it shop.mine);
             INSERT INTO shop.trap VALUES (1, 'tenant-a', ROW(1));
             CREATE TRIGGER spy BEFORE DELETE ON shop.trap FOR EACH ROW EXECUTE FUNCTION shop.spy();
             CREATE CONSTRAINT TRIGGER late AFTER DELETE ON shop.trap DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION shop.spy()",
        )
        .unwrap();
    superuser
        .batch_execute("SELECT tenancy.protect_table('shop.trap'); SELECT tenancy.protect_table('shop.seen')")
        .unwrap();
    superuser.batch_execute("SELECT tenancy.unprotect_table('shop.seen')").unwrap();
    superuser.batch_execute("ALTER TABLE shop.seen ALTER tenant_id DROP NOT NULL").unwrap();
    let mut ops = database.connect("ops");
    // A cast is called while reading, and may not write.
    let _ = ops.query("SELECT tenancy.export_tenant('tenant-a')", &[]);
    ops.batch_execute("CALL tenancy.delete_tenant('tenant-a')").unwrap();
    let seen = column(&mut superuser, "SELECT what || ' ' || who || ' ' || super FROM shop.seen");
    assert!(seen.iter().filter(|line| line.starts_with("trigger")).count() == 2, "{seen:?}");
    assert!(seen.iter().all(|line| line.ends_with(" dev false")), "{seen:?}");
    assert_eq!(value(&mut superuser, "SELECT count(*)::text FROM shop.trap"), "0");
}

#[test]
fn only_operators_export_suspend_and_delete() {
    let database = furnished();
    for role in ["app", "svc", "met"] {
        let mut client = database.connect(role);
        for call in [
            "SELECT tenancy.export_tenant('tenant-b')",
            "SELECT tenancy.suspend_tenant('tenant-b')",
            "CALL tenancy.delete_tenant('tenant-b', true)",
        ] {
            fails_with(client.query(call, &[]), "42501");
        }
    }
    let mut ops = database.connect("ops");
    fails_with(ops.batch_execute("BEGIN; CALL tenancy.delete_tenant('tenant-b', true)"), "2D000");
    ops.batch_execute("ROLLBACK").unwrap();
    assert_eq!(
        value(&mut database.superuser(), "SELECT count(*)::text FROM shop.books WHERE tenant_id = 'tenant-b'"),
        "10"
    );
    refused(ops.batch_execute("CALL tenancy.delete_tenant('tenant-b', true, 0)"), "22023", "invalid_argument");
}

#[test]
fn tables_that_point_at_each_other_are_deleted_together() {
    let database = furnished();
    let mut ops = database.connect("ops");
    ops.batch_execute(
        "CREATE TABLE shop.hens (id bigint PRIMARY KEY, tenant_id text, egg bigint);
         CREATE TABLE shop.eggs (id bigint, tenant_id text, hen bigint REFERENCES shop.hens DEFERRABLE INITIALLY DEFERRED, PRIMARY KEY (id)) PARTITION BY RANGE (id);
         CREATE TABLE shop.eggs_1 PARTITION OF shop.eggs FOR VALUES FROM (0) TO (8);
         CREATE TABLE shop.eggs_2 PARTITION OF shop.eggs FOR VALUES FROM (8) TO (100);
         ALTER TABLE shop.hens ADD FOREIGN KEY (egg) REFERENCES shop.eggs;
         BEGIN;
         INSERT INTO shop.eggs SELECT i, CASE WHEN i <= 10 THEN 'tenant-a' ELSE 'tenant-b' END, i FROM generate_series(1, 20) i;
         INSERT INTO shop.hens SELECT i, CASE WHEN i <= 10 THEN 'tenant-a' ELSE 'tenant-b' END, i FROM generate_series(1, 20) i;
         COMMIT;
         SELECT tenancy.protect_table('shop.hens'); SELECT tenancy.protect_table('shop.eggs');
         SELECT tenancy.suspend_tenant('tenant-a')",
    )
    .unwrap();
    ops.batch_execute("CALL tenancy.delete_tenant('tenant-a', batch_size => 3)").unwrap();
    let mut superuser = database.superuser();
    let kept = "SELECT concat_ws(' ', deleted ->> 'shop.hens', deleted ->> 'shop.eggs', deleted ->> 'shop.pages', finished_at IS NOT NULL) FROM tenancy.tenant_deletions";
    assert_eq!(value(&mut superuser, kept), "10 10 10 t");
    let left = "SELECT DISTINCT tenant_id FROM shop.hens UNION ALL SELECT DISTINCT tenant_id FROM shop.eggs";
    assert_eq!(column(&mut superuser, left), ["tenant-b", "tenant-b"]);
}
