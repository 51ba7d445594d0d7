//! Does the same in the database and in the model, and holds one against the other.

use crate::model::{Grant, Outcome, Pool, Refusal};
use crate::random::Random;
use postgres::types::ToSql;
use postgres::{Client, Row, Statement};
use std::collections::HashMap;

/// How a pool is reached, and what the database called what was made in it.
pub struct Subject {
    pub model: Pool,
    pub random: Option<Random>,
    pub day: i64,
    pub org: Option<String>,
    pub users: Vec<String>,
    pub transactions: Vec<String>,
    pub holds: Vec<String>,
    /// Figures at some moments, to be asked for again at the end: microseconds since 1970, total, balance, held.
    pub moments: Vec<(i64, i64, i64, i64)>,
}

/// A connection that keeps its statements and knows its clock.
pub struct Session {
    client: Client,
    statements: HashMap<&'static str, Statement>,
    day: i64,
}

type Arguments<'a> = &'a [&'a (dyn ToSql + Sync)];

impl Session {
    pub fn new(client: Client) -> Self {
        Self { client, statements: HashMap::new(), day: 0 }
    }

    /// Moves this session's clock to a day of the run.
    pub fn set_day(&mut self, day: i64) {
        if day != self.day {
            self.client
                .batch_execute(&format!("SET tenancy.test_clock_offset = {}", day * 86_400))
                .expect("the clock can be moved in builds for tests");
            self.day = day;
        }
    }

    pub fn call(&mut self, statement: &'static str, arguments: Arguments) -> Outcome<Row> {
        if !self.statements.contains_key(statement) {
            let prepared = self.client.prepare(statement).unwrap_or_else(|error| panic!("{statement}: {error:?}"));
            self.statements.insert(statement, prepared);
        }
        let prepared = &self.statements[statement];
        self.client.query_one(prepared, arguments).map_err(|error| refusal(statement, &error))
    }
}

fn refusal(statement: &str, error: &postgres::Error) -> Refusal {
    let error = error.as_db_error().unwrap_or_else(|| panic!("{statement}: {error:?}"));
    let detail: serde_json::Value = error
        .detail()
        .and_then(|detail| serde_json::from_str(detail).ok())
        .unwrap_or_else(|| panic!("{statement}: {error:?}"));
    let leak = |text: &str| -> &'static str { Box::leak(text.to_owned().into_boxed_str()) };
    (leak(error.code().code()), leak(detail["reason"].as_str().unwrap_or_default()))
}

/// Millionths as Postgres reads them.
pub fn credits(micros: i64) -> String {
    format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000)
}

/// A column in millionths.
fn micros(row: &Row, column: &str) -> i64 {
    let text: String = row.get(column);
    let (whole, fraction) = text.split_once('.').expect("six decimals");
    let magnitude = whole.trim_start_matches('-').parse::<i64>().expect("digits") * 1_000_000
        + fraction.parse::<i64>().expect("six digits");
    if whole.starts_with('-') { -magnitude } else { magnitude }
}

const DEDUCT: &str = "SELECT transaction_id::text, replayed, balance_after::text, held_after::text
    FROM tenancy.deduct_credits($1, $2::text::numeric, $3, idempotency_key => $4)";
const POOLED: &str = "SELECT tenancy.deduct_credits_pooled($1, $2::text::numeric, $3)";
const HOLD: &str = "SELECT tenancy.hold_credits($1, $2::text::numeric, $3, $4::text::interval)::text";
const CAPTURE: &str =
    "SELECT transaction_id::text, held_after::text FROM tenancy.capture_hold($1::text::uuid, $2::text::numeric)";
const VOID: &str = "SELECT tenancy.void_hold($1::text::uuid)";
const REFUND: &str =
    "SELECT transaction_id::text, balance_after::text FROM tenancy.refund_credits($1::text::uuid, $2::text::numeric)";
const GRANT: &str = "SELECT tenancy.grant_credits($1::text::numeric, org_id => $2, user_id => $3, priority => $4,
    effective_at => $5::text::timestamptz, expires_at => $6::text::timestamptz, rollover_max => $7::text::numeric,
    rollover_until => $8::text::timestamptz)::text";
const ADJUST: &str =
    "SELECT tenancy.adjust_credits($1::text::numeric, 'model', org_id => $2, user_id => $3)::text AS balance";
const CONSUME: &str = "SELECT success FROM tenancy.consume_credits($1, NULL, 'model_unit', $2)";
const BATCH: &str = "SELECT jsonb_agg(jsonb_build_array(transaction_id, status) ORDER BY ordinal)::text
    FROM tenancy.deduct_credits_batch($1::text::jsonb) WITH ORDINALITY AS b
    (transaction_id, status, replayed, pool, charged, balance_after, held_after, metadata, ordinal)";
const BALANCE: &str = "SELECT total::text, used::text, held::text, available::text,
    (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS now
    FROM tenancy.credit_balance(org_id => $1, user_id => $2)";
const CAP: &str = "SELECT tenancy.set_member_cap($1, $2, $3::text::numeric, 'lifetime')";
const SEAT: &str = "SELECT tenancy.assign_seat($1, $2)::text";
const REVOKE: &str = "SELECT tenancy.revoke_seat($1, $2)::text";
const SUBSCRIBE: &str = "SELECT tenancy.set_subscription($1, 'teams', $2, 10)::text";

impl Subject {
    /// Whose pool it is, for functions that take either.
    fn owner(&self) -> (Option<&str>, Option<&str>) {
        match &self.org {
            Some(org) => (Some(org), None),
            None => (None, Some(&self.users[0])),
        }
    }

    /// One random operation of the subject's own sequence, which the seed repeats whichever sessions run it.
    pub fn step(&mut self, session: &mut Session, times: &dyn Fn(i64) -> String) {
        let mut random = self.random.take().expect("put back after each step");
        if random.below(25) == 0 {
            self.day += 1;
        }
        self.model.advance(self.day * 4);
        session.set_day(self.day);
        self.operate(session, &mut random, times);
        self.random = Some(random);
        assert!(self.model.conserved(), "the model itself lost credits: {:?}", self.model);
    }

    fn operate(&mut self, session: &mut Session, random: &mut Random, times: &dyn Fn(i64) -> String) {
        match random.below(100) {
            0..=24 => self.deduct(session, random),
            25..=36 => self.pooled(session, random),
            37..=48 => self.hold(session, random),
            49..=57 => self.capture(session, random),
            58..=62 => self.void(session, random),
            63..=71 => self.refund(session, random),
            72..=79 => self.grant(session, random, times),
            80..=83 => self.adjust(session, random),
            84..=87 => self.batch(session, random),
            88..=90 => self.consume(session, random),
            91..=94 => self.seat(session, random),
            95..=96 => self.cap(session, random),
            _ => self.compare(session, random.below(2) == 0),
        }
    }

    fn user(&self, random: &mut Random) -> usize {
        random.below(self.users.len() as u64) as usize
    }

    /// Often small, at times more than there is, at times exactly what there is.
    fn amount(&self, random: &mut Random) -> i64 {
        match random.below(12) {
            0 => self.model.available().max(1),
            1 => self.model.available() + 1,
            2 => 1 + random.below(9) as i64,
            _ => 1 + random.below(40_000_000) as i64,
        }
    }

    fn deduct(&mut self, session: &mut Session, random: &mut Random) {
        let (user, amount) = (self.user(random), self.amount(random));
        let key = (random.below(4) == 0).then(|| format!("key-{}", random.below(60)));
        let row = session.call(DEDUCT, &[&self.users[user], &credits(amount), &self.org.as_deref(), &key.as_deref()]);
        match (self.model.deduct(user, amount, key.as_deref()), row) {
            (Ok((made, true)), Ok(row)) => {
                assert!(row.get::<_, bool>("replayed"));
                assert_eq!(row.get::<_, String>("transaction_id"), self.transactions[made]);
            }
            (Ok((made, false)), Ok(row)) => {
                assert_eq!(made, self.transactions.len());
                assert!(!row.get::<_, bool>("replayed"));
                assert_eq!(micros(&row, "balance_after"), self.model.balance);
                assert_eq!(micros(&row, "held_after"), self.model.held);
                self.transactions.push(row.get("transaction_id"));
            }
            (Err(expected), Err(found)) => assert_eq!(found, expected, "deduct"),
            (expected, found) => panic!("deduct {amount}: {found:?}, the model says {expected:?}"),
        }
    }

    fn pooled(&mut self, session: &mut Session, random: &mut Random) {
        let (user, amount) = (self.user(random), self.amount(random));
        let before = self.model.entries;
        let row = session.call(POOLED, &[&self.users[user], &credits(amount), &self.org.as_deref()]);
        let expected = match self.model.deduct(user, amount, None) {
            Ok(_) => Ok(true),
            Err(("PT402", "insufficient_credits")) => Ok(false),
            Err(refusal) => Err(refusal),
        };
        assert_eq!(row.map(|row| row.get::<_, bool>(0)), expected, "pooled {amount}");
        if self.model.entries > before {
            self.transactions.push(String::new());
        }
    }

    fn hold(&mut self, session: &mut Session, random: &mut Random) {
        let (user, amount) = (self.user(random), self.amount(random));
        let days = random.below(6) as i64;
        let length = format!("{days} days 18:00");
        let row = session.call(HOLD, &[&self.users[user], &credits(amount), &self.org.as_deref(), &length]);
        match (self.model.hold(user, amount, self.model.now + 4 * days + 3), row) {
            (Ok(_), Ok(row)) => self.holds.push(row.get(0)),
            (Err(expected), Err(found)) => assert_eq!(found, expected, "hold"),
            (expected, found) => panic!("hold {amount}: {found:?}, the model says {expected:?}"),
        }
    }

    fn capture(&mut self, session: &mut Session, random: &mut Random) {
        let Some(hold) = recent(random, self.holds.len()) else { return };
        let held = self.model.holds[hold].amount;
        let amount = match random.below(4) {
            0 => None,
            1 => Some(held + 1),
            _ => Some(1 + random.below(held as u64) as i64),
        };
        let row = session.call(CAPTURE, &[&self.holds[hold], &amount.map(credits)]);
        match (self.model.capture(hold, amount), row) {
            (Ok(_), Ok(row)) => {
                assert_eq!(micros(&row, "held_after"), self.model.held);
                self.transactions.push(row.get("transaction_id"));
            }
            (Err(expected), Err(found)) => assert_eq!(found, expected, "capture"),
            (expected, found) => panic!("capture {amount:?} of {held}: {found:?}, the model says {expected:?}"),
        }
    }

    fn void(&mut self, session: &mut Session, random: &mut Random) {
        let Some(hold) = recent(random, self.holds.len()) else { return };
        let row = session.call(VOID, &[&self.holds[hold]]);
        assert_eq!(row.map(|row| row.get::<_, bool>(0)), self.model.void(hold), "void");
    }

    fn refund(&mut self, session: &mut Session, random: &mut Random) {
        let Some(charge) = recent(random, self.transactions.len()) else { return };
        if self.transactions[charge].is_empty() {
            return;
        }
        let charged = self.model.charges[charge].amount;
        let amount = match random.below(4) {
            0 => None,
            1 => Some(charged),
            _ => Some(1 + random.below(charged as u64) as i64),
        };
        let row = session.call(REFUND, &[&self.transactions[charge], &amount.map(credits)]);
        match (self.model.refund(charge, amount), row) {
            (Ok(()), Ok(row)) => assert_eq!(micros(&row, "balance_after"), self.model.balance, "refund"),
            (Err(expected), Err(found)) => assert_eq!(found, expected, "refund"),
            (expected, found) => panic!("refund {amount:?}: {found:?}, the model says {expected:?}"),
        }
    }

    fn grant(&mut self, session: &mut Session, random: &mut Random, times: &dyn Fn(i64) -> String) {
        let now = self.model.now;
        // Noon of one of the next days.
        let noon = |random: &mut Random, from: i64, most: u64| from + 4 * random.below(most) as i64 + 2;
        let effective = if random.below(4) == 0 { noon(random, now, 5) } else { now };
        let expires = if random.below(3) == 0 { i64::MAX } else { noon(random, (effective + 2) / 4 * 4, 12) };
        let rollover = (expires != i64::MAX && random.below(3) == 0)
            .then(|| (1 + random.below(30_000_000) as i64, expires + 4 * (1 + random.below(8) as i64)));
        let amount = 1 + random.below(150_000_000) as i64;
        let priority = random.below(3) as i32 - 1;
        let (org, user) = self.owner();
        let at = |quarter: i64| (quarter != i64::MAX).then(|| times(quarter));
        session
            .call(
                GRANT,
                &[
                    &credits(amount),
                    &org,
                    &user,
                    &priority,
                    &(effective > now).then(|| times(effective)),
                    &at(expires),
                    &rollover.map(|(max, _)| credits(max)),
                    &rollover.and_then(|(_, until)| at(until)),
                ],
            )
            .unwrap_or_else(|refusal| panic!("grant: {refusal:?}"));
        self.model.grant(Grant { priority, effective, expires, remaining: 0, amount, posted: false, rollover });
    }

    fn adjust(&mut self, session: &mut Session, random: &mut Random) {
        let amount = self.amount(random);
        let (org, user) = self.owner();
        if random.below(2) == 0 {
            let row = session.call(ADJUST, &[&credits(amount), &org, &user]).expect("an adjustment upwards");
            let now = self.model.now;
            self.model.grant(Grant {
                priority: 0,
                effective: now,
                expires: i64::MAX,
                remaining: 0,
                amount,
                posted: false,
                rollover: None,
            });
            assert_eq!(micros(&row, "balance"), self.model.balance);
            return;
        }
        let row = session.call(ADJUST, &[&format!("-{}", credits(amount)), &org, &user]);
        let found = row.map(|row| micros(&row, "balance"));
        let expected = self.model.take_away(amount).map(|()| self.model.balance);
        assert_eq!(found, expected, "adjust -{amount}");
    }

    fn batch(&mut self, session: &mut Session, random: &mut Random) {
        let requests: Vec<(usize, i64)> =
            (0..1 + random.below(6)).map(|_| (self.user(random), self.amount(random) / 2 + 1)).collect();
        let body: Vec<serde_json::Value> = requests
            .iter()
            .map(|(user, amount)| {
                serde_json::json!({"user_id": self.users[*user], "amount": credits(*amount), "org_id": self.org})
            })
            .collect();
        let row = session.call(BATCH, &[&serde_json::Value::from(body).to_string()]).expect("a batch answers");
        let answers: Vec<(Option<String>, String)> = serde_json::from_str(row.get(0)).expect("pairs");
        assert_eq!(answers.len(), requests.len());
        for ((user, amount), (transaction, status)) in requests.into_iter().zip(answers) {
            match self.model.deduct(user, amount, None) {
                Ok(_) => {
                    assert_eq!(status, "charged");
                    self.transactions.push(transaction.expect("a ledger row"));
                }
                Err((_, reason)) => assert_eq!((status.as_str(), transaction), (reason, None)),
            }
        }
    }

    /// Contract H without an organization: the user's own pool.
    fn consume(&mut self, session: &mut Session, random: &mut Random) {
        if self.org.is_some() {
            return;
        }
        let units = random.below(20) as i32 + 1;
        let row = session.call(CONSUME, &[&self.users[0], &units]).expect("consumption answers");
        // model_unit costs 1.25.
        let expected = self.model.consume(0, i64::from(units) * 1_250_000).expect("no cap in a personal pool");
        assert_eq!(row.get::<_, bool>(0), expected, "consume");
        if expected {
            self.transactions.push(String::new());
        }
    }

    fn seat(&mut self, session: &mut Session, random: &mut Random) {
        let Some(org) = self.org.clone() else { return };
        if random.below(8) == 0 {
            self.model.subscribed = !self.model.subscribed;
            let status = if self.model.subscribed { "active" } else { "past_due" };
            session.call(SUBSCRIBE, &[&org, &status]).expect("a status can be set");
            return;
        }
        let user = self.user(random);
        if self.model.seats[user] {
            session.call(REVOKE, &[&org, &self.users[user]]).expect("a seat can be revoked");
            self.model.seats[user] = false;
        } else if self.model.subscribed {
            session.call(SEAT, &[&org, &self.users[user]]).expect("a seat can be given");
            self.model.seats[user] = true;
        }
    }

    fn cap(&mut self, session: &mut Session, random: &mut Random) {
        let Some(org) = self.org.clone() else { return };
        let user = self.user(random);
        let cap = (random.below(3) > 0).then(|| random.below(3_000_000_000) as i64);
        session.call(CAP, &[&org, &self.users[user], &cap.map(credits)]).expect("a cap can be set");
        match cap {
            Some(cap) => self.model.caps.insert(user, cap),
            None => self.model.caps.remove(&user),
        };
    }

    /// The database's figures are the model's.
    pub fn compare(&mut self, session: &mut Session, remember: bool) {
        let (org, user) = self.owner();
        let row = session.call(BALANCE, &[&org, &user]).expect("a balance");
        let found = ["total", "used", "held", "available"].map(|column| micros(&row, column));
        let model = &self.model;
        assert_eq!(found, [model.total, model.total - model.balance, model.held, model.available()]);
        if remember {
            let at = row.get::<_, i64>("now") + session.day * 86_400_000_000;
            self.moments.push((at, model.total, model.balance, model.held));
        }
    }

    /// The figures of every remembered moment, asked for after all that came later.
    pub fn compare_past(&self, client: &mut Client) {
        let (org, user) = self.owner();
        for (at, total, balance, held) in &self.moments {
            let row = client
                .query_one(
                    "SELECT total::text, held::text, available::text FROM tenancy.credit_balance(org_id => $1, user_id => $2,
                            at => '1970-01-01 UTC'::timestamptz + $3::bigint * interval '1 microsecond')",
                    &[&org, &user, at],
                )
                .expect("a past balance");
            let found = ["total", "held", "available"].map(|column| micros(&row, column));
            assert_eq!(found, [*total, *held, balance - held], "at {at}");
        }
    }
}

/// One of the last things made, now and then any.
fn recent(random: &mut Random, count: usize) -> Option<usize> {
    let count = count as u64;
    match count {
        0 => None,
        _ if random.below(10) == 0 => Some(random.below(count) as usize),
        _ => Some((count - 1 - random.below(count.min(12))) as usize),
    }
}
