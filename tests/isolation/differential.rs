//! Two databases, alike but for the rows of tenant B, which one of them lacks. Whatever tenant A asks, of thousands of
//! generated statements, both answer to the byte. `PGT_SEED` repeats a run, `PGT_QUERIES` lengthens it.

use crate::common::Database;
use crate::world::{shop, token_of};
use postgres::{SimpleQueryMessage, Transaction};
use std::time::{SystemTime, UNIX_EPOCH};

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

/// xorshift64*: enough to wander with, and the same everywhere.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % limit
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.below(from.len() as u64) as usize]
    }
}

fn make(database: &Database, with_b: bool) {
    let mut ops = database.connect("ops");
    ops.batch_execute(
        "CREATE TABLE shop.authors (id integer PRIMARY KEY, tenant_id text, name text, age integer, UNIQUE (name));
         CREATE TABLE shop.essays (id integer PRIMARY KEY, tenant_id text, author integer REFERENCES shop.authors ON DELETE CASCADE,
                                   title text, score integer);
         GRANT SELECT, INSERT, UPDATE, DELETE ON shop.authors, shop.essays TO app;
         SELECT tenancy.protect_table('shop.essays', composite_keys => true);
         SELECT tenancy.protect_table('shop.authors', composite_keys => true)",
    )
    .unwrap();
    // The same ids, names and values in both tenants, and ten times as many of B's.
    let tenants: &[(&str, u32)] = if with_b { &[("tenant-a", 60), ("tenant-b", 600)] } else { &[("tenant-a", 60)] };
    for (tenant, count) in tenants {
        database
            .superuser()
            .batch_execute(&format!(
                "INSERT INTO shop.authors SELECT i, '{tenant}', 'name ' || i, i * 7 % 90 FROM generate_series(1, {count}) i;
                 INSERT INTO shop.essays SELECT i, '{tenant}', 1 + i % {count}, 'title ' || i % 13, nullif(i * 31 % 101, 50)
                   FROM generate_series(1, {count} * 5) i; ANALYZE shop.authors, shop.essays"
            ))
            .unwrap();
    }
}

fn condition(dice: &mut Dice, depth: u32) -> String {
    if depth > 0 && dice.below(3) == 0 {
        let (left, right) = (condition(dice, depth - 1), condition(dice, depth - 1));
        return format!("({left} {} {right})", dice.pick(&["AND", "OR", "AND NOT"]));
    }
    let value = dice.below(120);
    match dice.below(12) {
        0 => format!("e.id {} {value}", dice.pick(&["=", "<", ">", "<>"])),
        1 => format!("e.score {} {value}", dice.pick(&["=", "<=", ">=", "IS DISTINCT FROM"])),
        2 => format!("e.title {} 'title {}%'", dice.pick(&["LIKE", "NOT LIKE", "ILIKE"]), dice.below(13)),
        3 => format!("e.tenant_id {} '{}'", dice.pick(&["=", "<>", ">"]), dice.pick(&["tenant-a", "tenant-b", ""])),
        4 => format!("e.score IS {}NULL", dice.pick(&["", "NOT "])),
        5 => format!("e.author IN (SELECT x.id FROM shop.authors x WHERE x.age < {})", dice.below(90)),
        6 => {
            format!("EXISTS (SELECT FROM shop.authors x WHERE x.id = e.author AND x.name > 'name {}')", dice.below(60))
        }
        7 => format!("e.score > (SELECT avg(x.score) FROM shop.essays x WHERE x.author = e.author OR x.id < {value})"),
        8 => format!("e.id BETWEEN {value} AND {}", value + dice.below(60)),
        9 => format!("length(e.title) {} {}", dice.pick(&["=", ">"]), dice.below(10)),
        10 => format!("(SELECT count(*) FROM shop.essays x) {} {}", dice.pick(&[">", "<", "="]), dice.below(3500)),
        _ => format!("row(e.id, e.score) > row({value}, {})", dice.below(100)),
    }
}

/// A read whose rows come in one order only.
fn read(dice: &mut Dice) -> String {
    let wanted = condition(dice, 2);
    let joined = dice.pick(&["JOIN", "LEFT JOIN", "FULL JOIN"]);
    let limit = match dice.below(3) {
        0 => format!(" LIMIT {} OFFSET {}", dice.below(20), dice.below(10)),
        _ => String::new(),
    };
    match dice.below(9) {
        0 => format!("SELECT e.* FROM shop.essays e WHERE {wanted} ORDER BY e.id{limit}"),
        1 => format!("SELECT count(*), sum(e.score), min(e.title), max(e.id) FROM shop.essays e WHERE {wanted}"),
        2 => format!(
            "SELECT e.title, count(*), sum(e.score) FROM shop.essays e WHERE {wanted} GROUP BY e.title HAVING count(*) > {} ORDER BY e.title{limit}",
            dice.below(5)
        ),
        3 => format!(
            "SELECT e.id, a.name FROM shop.essays e {joined} shop.authors a ON a.id = e.author AND a.age > {} ORDER BY 1, 2{limit}",
            dice.below(90)
        ),
        4 => format!(
            "SELECT e.id, rank() OVER (PARTITION BY e.author ORDER BY e.score, e.id), sum(e.score) OVER (ORDER BY e.id) FROM shop.essays e WHERE {wanted} ORDER BY e.id{limit}"
        ),
        5 => format!(
            "WITH w AS MATERIALIZED (SELECT e.author, e.score FROM shop.essays e WHERE {wanted}) SELECT a.id, (SELECT sum(w.score) FROM w WHERE w.author = a.id) FROM shop.authors a ORDER BY a.id"
        ),
        6 => format!(
            "SELECT e.author FROM shop.essays e WHERE {wanted} {} SELECT a.id FROM shop.authors a WHERE a.age > {} ORDER BY 1{limit}",
            dice.pick(&["UNION", "INTERSECT", "EXCEPT", "UNION ALL"]),
            dice.below(90)
        ),
        7 => format!("SELECT DISTINCT e.title, e.score % 5 FROM shop.essays e WHERE {wanted} ORDER BY 1, 2{limit}"),
        _ => format!(
            "SELECT e.id, 100 / (e.score - {}) FROM shop.essays e WHERE {wanted} ORDER BY e.id",
            dice.below(100)
        ),
    }
}

/// A write, with what it says of it.
fn write(dice: &mut Dice) -> String {
    let wanted = condition(dice, 1);
    let (id, other, tenant) = (dice.below(700), dice.below(700), dice.pick(&["tenant-a", "tenant-b"]));
    match dice.below(9) {
        0 => format!("INSERT INTO shop.authors (id, name, age) VALUES ({id}, 'name {other}', 1) RETURNING *"),
        1 => format!(
            "INSERT INTO shop.authors (id, name) VALUES ({id}, 'name {other}') ON CONFLICT DO NOTHING RETURNING *"
        ),
        2 => format!(
            "INSERT INTO shop.authors AS x (id, name) VALUES ({id}, 'fresh {id}') ON CONFLICT (tenant_id, id) DO UPDATE SET age = x.age + 1 RETURNING *"
        ),
        3 => format!("INSERT INTO shop.essays (id, author, title) VALUES ({id}, {other}, 'new') RETURNING *"),
        4 => format!("INSERT INTO shop.essays (id, tenant_id, author) VALUES ({id}, '{tenant}', {other})"),
        5 => format!("UPDATE shop.essays e SET score = coalesce(e.score, 0) + 1 WHERE {wanted}"),
        6 => format!("UPDATE shop.essays e SET author = {other}, tenant_id = '{tenant}' WHERE e.id = {id}"),
        7 => format!("DELETE FROM shop.authors a WHERE a.id = {id}"),
        _ => format!(
            "MERGE INTO shop.essays e USING shop.authors a ON a.id = e.author AND {wanted} WHEN MATCHED AND a.age < 40 THEN UPDATE SET title = 'merged' WHEN NOT MATCHED THEN DO NOTHING"
        ),
    }
}

fn ask(transaction: &mut Transaction, statement: &str) -> String {
    let mut point = transaction.savepoint("ask").unwrap();
    let mut answer = String::new();
    match point.simple_query(statement) {
        Ok(messages) => {
            for message in messages {
                match message {
                    SimpleQueryMessage::Row(row) => {
                        for index in 0..row.len() {
                            answer += row.get(index).unwrap_or("NULL");
                            answer += "|";
                        }
                        answer += "\n";
                    }
                    SimpleQueryMessage::CommandComplete(count) => answer += &format!("{count} rows"),
                    _ => (),
                }
            }
            point.commit().unwrap();
        }
        Err(error) => {
            answer = error.as_db_error().map_or_else(
                || error.to_string(),
                |e| format!("{} {} {:?} {:?}", e.code().code(), e.message(), e.detail(), e.hint()),
            );
            point.rollback().unwrap();
        }
    }
    answer
}

#[test]
fn whatever_a_asks_the_answer_does_not_depend_on_b() {
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
    let seed = number("PGT_SEED", clock) | 1;
    let queries = number("PGT_QUERIES", 3000);
    crate::common::say!("differential: {queries} statements, PGT_SEED={seed}");
    let mut dice = Dice(seed);
    let databases = [shop(), shop()];
    make(&databases[0], true);
    make(&databases[1], false);
    let mut clients = databases.each_ref().map(|database| database.connect("app"));
    let token = token_of("tenant-a");
    let (mut asked, mut refused, mut told) = (0, 0, 0);
    while asked < queries {
        let mut transactions = clients.each_mut().map(|client| client.transaction().unwrap());
        for transaction in &mut transactions {
            transaction.query_one("SELECT tenancy.authenticate($1)", &[&token]).unwrap();
        }
        for _ in 0..50 {
            let statement = if dice.below(4) == 0 { write(&mut dice) } else { read(&mut dice) };
            let [with_b, without_b] = transactions.each_mut().map(|transaction| ask(transaction, &statement));
            assert_eq!(with_b, without_b, "PGT_SEED={seed}: B's rows show in the answer to {statement}");
            assert!(!with_b.contains("tenant-b"), "PGT_SEED={seed}: B is named in the answer to {statement}");
            asked += 1;
            refused += u64::from(with_b.contains(" None "));
            told += u64::from(with_b.contains('|'));
        }
        // Half of what was written stays, for the next to find.
        let keep = dice.below(2) == 0;
        for transaction in transactions {
            if keep { transaction.commit().unwrap() } else { transaction.rollback().unwrap() }
        }
    }
    crate::common::say!("differential: {told} answers with rows, {refused} refusals");
    assert!(told > queries / 3 && refused > 0, "the statements are worth asking");
}
