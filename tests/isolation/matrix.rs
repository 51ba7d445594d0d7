//! The isolation matrix, generated: every kind of protected table × every way to it × every identity.
//!
//! No outcome is written down for a single case. What must hold is said once, for all of them: nothing of another tenant
//! is read, written, counted or named in an error, and without a live identity there is nothing at all.

use crate::common::{Database, Token};
use crate::world::{BIGINT, TEXT, UUID, shop, token_of};
use postgres::{Client, Transaction};
use std::io::{Read, Write};

/// How a table stands: its name to reach it by, and the table that is protected.
const SHAPES: [(&str, &str); 5] = [
    ("plain", "plain"),
    ("parted", "parted"),
    ("partition", "parted_too"),
    ("parent", "parent"),
    ("child", "parent_too"),
];
const KEYS: [(&str, [&str; 2]); 3] = [("text", TEXT), ("uuid", UUID), ("bigint", BIGINT)];
/// Ids of the first and of the second tenant's rows, and one that no row has.
const IDS: [[i64; 3]; 2] = [[1, 2, 3], [4, 5, 6]];
const NOBODYS: i64 = 7;

#[derive(Clone, Copy, PartialEq, Debug)]
enum Who {
    A,
    B,
    Nobody,
    Expired,
    Cleared,
    ActingAsA,
}
const EVERYBODY: [Who; 6] = [Who::A, Who::B, Who::Nobody, Who::Expired, Who::Cleared, Who::ActingAsA];

impl Who {
    /// Which of the two tenants it is, if any.
    fn tenant(self) -> Option<usize> {
        match self {
            Who::A | Who::ActingAsA => Some(0),
            Who::B => Some(1),
            Who::Nobody | Who::Expired | Who::Cleared => None,
        }
    }

    fn role(self) -> &'static str {
        if self == Who::ActingAsA { "svc" } else { "app" }
    }

    /// Makes it the transaction's identity.
    fn begin(self, transaction: &mut Transaction, tenants: [&str; 2]) {
        let statement = match self {
            Who::Nobody => return,
            Who::ActingAsA => format!("SELECT tenancy.act_as('somebody', tenant_id => '{}')", tenants[0]),
            Who::A | Who::Cleared => format!("SELECT tenancy.authenticate('{}')", token_of(tenants[0])),
            Who::B => format!("SELECT tenancy.authenticate('{}')", token_of(tenants[1])),
            Who::Expired => {
                let token = Token::for_user("somebody").claim("tenant_id", tenants[0]).expires_in(3).sign();
                format!("SELECT tenancy.authenticate('{token}')")
            }
        };
        transaction.batch_execute(&statement).unwrap();
        match self {
            Who::Cleared => transaction.batch_execute("SELECT tenancy.clear_identity()").unwrap(),
            Who::Expired => transaction.batch_execute("SELECT pg_sleep(3.1)").unwrap(),
            _ => (),
        }
    }
}

/// One cell's table.
struct Target {
    /// The relation the statements name.
    name: String,
    /// The protected table it is, or is part of.
    root: String,
    key: &'static str,
    tenants: [&'static str; 2],
}

impl Target {
    fn all() -> Vec<Self> {
        let of = |(key, tenants): (&'static str, [&'static str; 2])| {
            SHAPES.map(|(shape, root)| Target {
                name: format!("shop.{shape}_{key}"),
                root: format!("shop.{root}_{key}"),
                key,
                tenants,
            })
        };
        KEYS.into_iter().flat_map(of).collect()
    }

    fn lines(&self) -> String {
        format!("{}_lines", self.name)
    }

    /// The rows as they were made: three of each tenant, with a note that nobody could guess, and a line for each.
    fn furnish(&self, superuser: &mut Client) {
        let mut statement = format!("DELETE FROM {}; DELETE FROM {};", self.lines(), self.name);
        for (tenant, ids) in self.tenants.iter().zip(IDS) {
            for id in ids {
                statement += &format!(
                    "INSERT INTO {name} (id, tenant_id, note) VALUES ({id}, '{tenant}', '{note}');
                     INSERT INTO {lines} (id, tenant_id, parent) VALUES ({id}, '{tenant}', {id});",
                    name = self.name,
                    lines = self.lines(),
                    note = self.note(id),
                );
            }
        }
        superuser.batch_execute(&statement).unwrap();
    }

    fn note(&self, id: i64) -> String {
        format!("secret-{}-{}-{}", self.name.replace('.', "-"), id, if id <= 3 { "aaa" } else { "bbb" })
    }

    /// A digest of the rows that are not the tenant's (of all, without one).
    fn others(&self, superuser: &mut Client, tenant: Option<usize>) -> String {
        let mine = tenant.map_or("false".into(), |index| format!("tenant_id = '{}'", self.tenants[index]));
        let digest = |table: &str| {
            format!(
                "(SELECT coalesce(md5(string_agg(x::text, ',' ORDER BY x.tenant_id, x.id)), '') FROM {table} x WHERE NOT ({mine}))"
            )
        };
        let query = format!("SELECT {} || {}", digest(&self.root), digest(&self.lines()));
        superuser.query_one(&query, &[]).unwrap().get(0)
    }
}

/// A way to a table. `{t}` the relation, `{l}` its lines, `{id}` an id under attack, `{own}` an id of one's own,
/// `{you}` the other tenant.
const WAYS: [(&str, &str); 29] = [
    ("select", "SELECT note FROM {t}"),
    ("select by id", "SELECT note FROM {t} WHERE id = {id}"),
    ("select by tenant", "SELECT note FROM {t} WHERE tenant_id = '{you}'"),
    ("select by either", "SELECT note FROM {t} WHERE tenant_id = '{you}' OR id = {id} OR true"),
    ("count", "SELECT count(*)::text FROM {t} WHERE id = {id}"),
    ("join", "SELECT x.note FROM {t} x JOIN {l} y ON y.parent = x.id WHERE x.id = {id}"),
    ("insert", "INSERT INTO {t} (id, note) VALUES ({id}, 'mine')"),
    ("insert for another", "INSERT INTO {t} (id, tenant_id, note) VALUES ({id}, '{you}', 'planted')"),
    ("insert returning", "INSERT INTO {t} (id, note) VALUES ({id}, 'mine') RETURNING note"),
    ("update", "UPDATE {t} SET note = 'taken' WHERE id = {id}"),
    ("update all returning", "UPDATE {t} SET note = note || '!' RETURNING note"),
    ("update to another", "UPDATE {t} SET tenant_id = '{you}'"),
    ("delete", "DELETE FROM {t} WHERE id = {id}"),
    ("delete all returning", "DELETE FROM {t} RETURNING note"),
    (
        "merge",
        "MERGE INTO {t} x USING (VALUES ({id}::bigint), ({own})) AS s(id) ON x.id = s.id WHEN MATCHED THEN UPDATE SET note = 'merged' WHEN NOT MATCHED THEN INSERT (id, note) VALUES (s.id, 'merged')",
    ),
    ("merge delete", "MERGE INTO {t} x USING (VALUES ({id}::bigint)) AS s(id) ON x.id = s.id WHEN MATCHED THEN DELETE"),
    (
        "on conflict do nothing",
        "INSERT INTO {t} (id, note) VALUES ({id}, 'mine') ON CONFLICT DO NOTHING RETURNING note",
    ),
    (
        "on conflict do update",
        "INSERT INTO {t} AS x (id, note) VALUES ({id}, 'mine') ON CONFLICT (tenant_id, id) DO UPDATE SET note = x.note || '!' RETURNING note",
    ),
    ("truncate", "TRUNCATE {t} CASCADE"),
    ("foreign key", "INSERT INTO {l} (id, parent) VALUES (100, {id})"),
    ("foreign key of another", "INSERT INTO {l} (id, tenant_id, parent) VALUES (100, '{you}', {id})"),
    ("cascade", "DELETE FROM {t} WHERE id IN ({id}, {own})"),
    ("view", "SELECT note FROM {t}_view"),
    ("security invoker view", "SELECT note FROM {t}_invoker WHERE id = {id} OR true"),
    ("view written to", "UPDATE {t}_invoker SET note = 'taken' WHERE id = {id}"),
    ("cursor", "DECLARE way CURSOR FOR SELECT note FROM {t}; FETCH ALL FROM way; CLOSE way"),
    ("prepared", "EXECUTE {p}"),
    (
        "parallel",
        "SET LOCAL parallel_setup_cost = 0; SET LOCAL parallel_tuple_cost = 0; SET LOCAL min_parallel_table_scan_size = 0; SET LOCAL enable_indexscan = off; SET LOCAL enable_bitmapscan = off; SELECT note FROM {t}",
    ),
    ("lock", "SELECT note FROM {t} WHERE id = {id} FOR UPDATE"),
];

/// What came of it: the rows and counts it gave, or the error with all it says.
fn walk(transaction: &mut Transaction, statement: &str) -> Vec<String> {
    match transaction.simple_query(statement) {
        Ok(messages) => messages
            .iter()
            .filter_map(|message| match message {
                postgres::SimpleQueryMessage::Row(row) => Some(row.get(0).unwrap_or("NULL").to_string()),
                postgres::SimpleQueryMessage::CommandComplete(count) => Some(format!("{count} rows")),
                _ => None,
            })
            .collect(),
        Err(error) => {
            let error = error.as_db_error().expect("an error of the server");
            vec![format!(
                "{} {} {:?} {:?} {:?}",
                error.code().code(),
                error.message(),
                error.detail(),
                error.hint(),
                error.where_()
            )]
        }
    }
}

fn statement(target: &Target, way: &str, who: Who, id: i64) -> String {
    let own = who.tenant().unwrap_or(0);
    way.replace("{t}", &target.name)
        .replace("{l}", &target.lines())
        .replace("{p}", &target.name.replace('.', "_"))
        .replace("{id}", &id.to_string())
        .replace("{own}", &IDS[own][0].to_string())
        .replace("{you}", target.tenants[1 - own])
}

fn make(database: &Database) {
    let mut ops = database.connect("ops");
    for (key, _) in KEYS {
        let columns = format!("id bigint PRIMARY KEY, tenant_id {key}, note text");
        ops.batch_execute(&format!(
            "CREATE TABLE shop.plain_{key} ({columns});
             CREATE TABLE shop.parted_{key} ({columns}) PARTITION BY RANGE (id);
             CREATE TABLE shop.parted_1_{key} PARTITION OF shop.parted_{key} FOR VALUES FROM (0) TO (3);
             CREATE TABLE shop.parted_2_{key} PARTITION OF shop.parted_{key} FOR VALUES FROM (3) TO (1000);
             CREATE TABLE shop.parted_too_{key} ({columns}) PARTITION BY RANGE (id);
             CREATE TABLE shop.partition_{key} PARTITION OF shop.parted_too_{key} FOR VALUES FROM (0) TO (1000);
             CREATE TABLE shop.parent_{key} ({columns});
             CREATE TABLE shop.child_of_parent_{key} (PRIMARY KEY (id)) INHERITS (shop.parent_{key});
             CREATE TABLE shop.parent_too_{key} ({columns});
             CREATE TABLE shop.child_{key} (PRIMARY KEY (id)) INHERITS (shop.parent_too_{key})"
        ))
        .unwrap();
    }
    for target in Target::all() {
        let (name, lines) = (&target.name, target.lines());
        ops.batch_execute(&format!(
            "CREATE TABLE {lines} (id bigint PRIMARY KEY, tenant_id {}, parent bigint REFERENCES {name} ON DELETE CASCADE);
             CREATE VIEW {name}_view AS SELECT * FROM {name};
             CREATE VIEW {name}_invoker WITH (security_invoker = true) AS SELECT * FROM {name};
             SELECT tenancy.protect_table('{lines}', composite_keys => false)",
            target.key
        ))
        .unwrap();
    }
    for (key, _) in KEYS {
        for (_, root) in SHAPES {
            ops.batch_execute(&format!("SELECT tenancy.protect_table('shop.{root}_{key}', composite_keys => true)"))
                .unwrap();
        }
    }
    for target in Target::all() {
        ops.batch_execute(&format!("SELECT tenancy.protect_table('{}', composite_keys => true)", target.lines()))
            .unwrap();
    }
    ops.batch_execute("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA shop TO app, svc").unwrap();
}

/// Sessions that keep a generic plan of a statement on every table.
fn connect(database: &Database, role: &str) -> Client {
    let mut client = database.connect(role);
    client.batch_execute("SET plan_cache_mode = force_generic_plan").unwrap();
    for target in Target::all() {
        client
            .batch_execute(&format!("PREPARE {} AS SELECT note FROM {}", target.name.replace('.', "_"), target.name))
            .unwrap();
    }
    client
}

struct Case<'a> {
    target: &'a Target,
    who: Who,
    way: &'a str,
    outcome: Vec<String>,
}

impl Case<'_> {
    fn shown(&self) -> String {
        format!("{:?} on {} by {}: {:?}", self.who, self.target.name, self.way, self.outcome)
    }

    /// Nothing of another tenant is read or named.
    fn judge(&self) {
        let said = self.outcome.join("\n");
        for (index, ids) in IDS.iter().enumerate() {
            if self.who.tenant() != Some(index) {
                for id in ids {
                    assert!(!said.contains(&self.target.note(*id)), "{}", self.shown());
                }
            }
        }
        if self.who.tenant().is_none() && self.way != "count" {
            let nothing = self
                .outcome
                .iter()
                .all(|line| line == "0 rows" || line.starts_with(|c: char| c.is_ascii_digit()) && line.contains(' '));
            assert!(nothing, "{}", self.shown());
        }
        // What reads everything reads everything of one's own.
        if let (Some(own), true) = (
            self.who.tenant(),
            ["select", "view", "cursor", "prepared", "parallel", "select by either"].contains(&self.way),
        ) {
            for id in IDS[own] {
                assert!(said.contains(&self.target.note(id)), "{}", self.shown());
            }
        }
    }
}

#[test]
fn isolation_matrix() {
    let database = shop();
    make(&database);
    let mut superuser = database.superuser();
    let targets = Target::all();
    for target in &targets {
        target.furnish(&mut superuser);
    }
    let mut app = connect(&database, "app");
    let mut svc = connect(&database, "svc");
    let mut cases = 0;
    for target in &targets {
        assert_parallel(&mut app, target);
    }

    for who in EVERYBODY {
        for target in &targets {
            let client = if who.role() == "svc" { &mut svc } else { &mut app };
            let before = target.others(&mut superuser, who.tenant());
            let them = 1 - who.tenant().unwrap_or(0);
            if who == Who::Expired {
                // One wait for all: each way in a savepoint of its own, all of it committed at the end.
                let mut transaction = client.transaction().unwrap();
                who.begin(&mut transaction, target.tenants);
                for (way, text) in WAYS {
                    let mut point = transaction.savepoint("way").unwrap();
                    let outcome = walk(&mut point, &statement(target, text, who, IDS[them][0]));
                    if outcome.iter().any(|line| line.contains(" Some(") || line.contains(" None")) {
                        point.rollback().unwrap();
                    } else {
                        point.commit().unwrap();
                    }
                    Case { target, who, way, outcome }.judge();
                    cases += 1;
                }
                transaction.commit().unwrap();
                assert_eq!(target.others(&mut superuser, None), before, "{who:?} changed {}", target.name);
                continue;
            }
            for (way, text) in WAYS {
                // The same, asked of another tenant's row and of a row that does not exist, tells the same.
                let mut outcomes = [IDS[them][0], NOBODYS].map(|id| {
                    let mut transaction = client.transaction().unwrap();
                    who.begin(&mut transaction, target.tenants);
                    let outcome = walk(&mut transaction, &statement(target, text, who, id));
                    transaction.commit().unwrap();
                    assert_eq!(
                        target.others(&mut superuser, who.tenant()),
                        before,
                        "{who:?} by {way} changed another's rows of {}",
                        target.name
                    );
                    Case { target, who, way, outcome: outcome.clone() }.judge();
                    cases += 1;
                    target.furnish(&mut superuser);
                    outcome
                        .iter()
                        .map(|line| line.replace(&format!("{id})"), "ID)").replace(&format!("{id}, "), "ID, "))
                        .collect::<Vec<_>>()
                });
                for outcome in &mut outcomes {
                    outcome.sort();
                }
                assert_eq!(
                    outcomes[0], outcomes[1],
                    "{who:?} on {} by {way} learns that another tenant has the row",
                    target.name
                );
            }
            copies(client, target, who);
            target.furnish(&mut superuser);
            cases += 3;
        }
    }
    crate::common::say!(
        "isolation matrix: {} tables × {} ways × {} identities, {cases} cases",
        targets.len(),
        WAYS.len() + 3,
        EVERYBODY.len()
    );
}

/// COPY has a protocol of its own.
fn copies(client: &mut Client, target: &Target, who: Who) {
    let mut copied = String::new();
    {
        let mut transaction = client.transaction().unwrap();
        who.begin(&mut transaction, target.tenants);
        let command = format!("COPY (SELECT note FROM {}) TO STDOUT", target.name);
        transaction.copy_out(&command).unwrap().read_to_string(&mut copied).unwrap();
    }
    Case { target, who, way: "copy out", outcome: copied.lines().map(String::from).collect() }.judge();
    assert_eq!(copied.lines().count(), who.tenant().map_or(0, |_| 3), "{who:?} {}", target.name);
    let statement = format!("COPY {} (id, note) FROM STDIN", target.name);
    let mut transaction = client.transaction().unwrap();
    who.begin(&mut transaction, target.tenants);
    // In the simple protocol the server refuses before it asks for rows.
    let refused = walk(&mut transaction, &statement);
    assert!(refused[0].starts_with("0A000"), "{refused:?}");
    transaction.rollback().unwrap();

    // Through a staging table, with a row for the other tenant in the file, and then without.
    let you = target.tenants[1 - who.tenant().unwrap_or(0)];
    for (rows, works) in
        [(format!("100\t{you}\n"), false), (format!("101\t{}\n", target.tenants[who.tenant().unwrap_or(0)]), true)]
    {
        let mut transaction = client.transaction().unwrap();
        who.begin(&mut transaction, target.tenants);
        let begun =
            walk(&mut transaction, &format!("SELECT tenancy.begin_copy('{}', '{{id,tenant_id}}')", target.name));
        if who.tenant().is_none() {
            assert!(begun[0].starts_with("PT401"), "{who:?} {begun:?}");
            return;
        }
        let mut writer = transaction.copy_in(&begun[0]).unwrap();
        writer.write_all(rows.as_bytes()).unwrap();
        writer.finish().unwrap();
        let ended = walk(&mut transaction, &format!("SELECT tenancy.end_copy('{}')", target.name));
        assert_eq!(ended[0] == "1", works, "{who:?} on {}: {ended:?}", target.name);
        assert!(works || ended[0].starts_with("42501"), "{who:?} on {}: {ended:?}", target.name);
        Case { target, who, way: "copy in", outcome: ended }.judge();
    }
}

/// The way called parallel is one: each table's plan has workers in it.
fn assert_parallel(client: &mut Client, target: &Target) {
    let (_, way) = WAYS.iter().find(|(name, _)| *name == "parallel").unwrap();
    let mut transaction = client.transaction().unwrap();
    Who::A.begin(&mut transaction, target.tenants);
    let explained = statement(target, &way.replace("SELECT note", "EXPLAIN SELECT note"), Who::A, 1);
    let plan = walk(&mut transaction, &explained).join("\n");
    assert!(plan.contains("Gather") && plan.contains("Parallel"), "{}: {plan}", target.name);
}
