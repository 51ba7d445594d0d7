//! Many charges in one call: per-row answers, one lock and one insert a pool.
//!
//! Pools are locked in the order of their ids, so batches in any order cannot deadlock each other. Nothing here raises
//! for a single request, so no subtransaction is needed: a request is judged first and written only if it passes.

use super::amount::Credits;
use super::attribution::{judge, seat_unstable};
use super::batch_request::{Request, parse};
use super::caps;
use super::debit::count_debit;
use super::entry_id::entry_id;
use super::idempotency::{self, Answer, Body, Key};
use super::payer::Payer;
use super::pool::Pool;
use super::result::Deduction;
use crate::pg::metrics::{self, Series};
use crate::pg::sql::{self, Arg, Mode};
use crate::pg::{self, Composite, Jsonb, Result};
use crate::schema::require_installed;
use pgrx::iter::SetOfIterator;
use pgrx::{pg_extern, search_path};
use std::collections::{BTreeMap, HashMap};
use uuid::Uuid;

/// Charges each request of a JSON array; one row a request, in the array's order.
#[pg_extern(volatile, parallel_unsafe, security_definer, requires = ["credits_types"])]
#[search_path(pg_catalog, pg_temp)]
fn deduct_credits_batch(requests: Option<Jsonb>) -> SetOfIterator<'static, Composite<Deduction>> {
    pg::entry(|| {
        require_installed()?;
        let requests = parse(requests)?;
        let answers = run(&requests)?;
        Ok(SetOfIterator::new(answers.into_iter().map(Composite)))
    })
}

/// The status of a request that waits for another's answer.
const PENDING: &str = "pending";

/// A request that may be charged, with what it will be written with.
struct Accepted<'a> {
    at: usize,
    payer: Payer,
    amount: Credits,
    request: &'a Request,
    key: Option<Key<'a>>,
}

fn run(requests: &[Request]) -> Result<Vec<Deduction>> {
    let mut answers = vec![Deduction::default(); requests.len()];
    let mut by_pool: BTreeMap<Uuid, Vec<Accepted>> = BTreeMap::new();
    for (at, request) in requests.iter().enumerate() {
        match accept(at, request) {
            Ok(accepted) => by_pool.entry(accepted.payer.pool()).or_default().push(accepted),
            Err(error) => {
                let pool = if request.org_id.is_some() { "organization" } else { "personal" };
                answers[at] = Deduction { status: error.reason(), pool: Some(pool), ..Deduction::default() };
            }
        }
    }
    for (pool, accepted) in by_pool {
        charge_pool(pool, accepted, &mut answers)?;
    }
    Ok(answers)
}

fn accept(at: usize, request: &Request) -> Result<Accepted<'_>> {
    let amount = Credits::parse(request.amount)?;
    let payer = super::payer::named(request.user_id.as_deref(), request.org_id.as_deref())?;
    let metadata = super::own_metadata(request.metadata.as_ref())?;
    let body = Body::new("charge")
        .bytes(Some(payer.user.as_bytes()))
        .number(Some(amount.micros()))
        .text(request.description())
        .text(request.reference_id.as_deref())
        .json(metadata);
    let key = Key::new(request.idempotency_key.as_deref(), "charge", body)?;
    Ok(Accepted { at, payer, amount, request, key })
}

/// A row on its way into the ledger.
struct Row<'a> {
    id: Uuid,
    accepted: Accepted<'a>,
    balance_after: i64,
    drawn_after: i128,
}

fn charge_pool(id: Uuid, accepted: Vec<Accepted>, answers: &mut [Deduction]) -> Result<()> {
    let pool = Pool::lock(id)?;
    let now = pool.as_ref().map_or_else(super::clock::now, |pool| pool.now);
    let mut seats: HashMap<Uuid, Option<&'static str>> = HashMap::new();
    for request in &accepted {
        let user = request.payer.user;
        if let std::collections::hash_map::Entry::Vacant(vacant) = seats.entry(user) {
            vacant.insert(judge(&request.payer, now).err().map(|error| error.reason()));
        }
    }
    let Some(mut pool) = pool else {
        for request in accepted {
            let answer = &mut answers[request.at];
            answer.status = seats[&request.payer.user].unwrap_or("insufficient_credits");
            answer.pool = Some(request.payer.pool_word());
        }
        return Ok(());
    };
    let mut rows: Vec<Row> = Vec::with_capacity(accepted.len());
    for request in accepted {
        let at = request.at;
        answers[at] = Deduction {
            pool: Some(pool.word()),
            balance_after: Some(pool.balance),
            held_after: Some(pool.held),
            ..Deduction::default()
        };
        match decide(&pool, &request, seats[&request.payer.user])? {
            // A row says so where a call of its own would raise, and so count.
            Decision::NoSeat(reason) => {
                metrics::count_for(&pool.tenant, Series::Denied(reason), 1);
                // Who has no seat learns nothing of the pool, nor that it is there.
                answers[at] = Deduction { status: reason, pool: Some(pool.word()), ..Deduction::default() };
            }
            Decision::Refused(reason) => {
                metrics::count_for(&pool.tenant, Series::Denied(reason), 1);
                answers[at].status = reason;
            }
            Decision::Replayed(answer) => {
                answers[at] = match rows.iter().find(|row| row.id == answer.result) {
                    // Of a request before it in this batch, whose row is not written yet.
                    Some(row) => Deduction { transaction_id: Some(row.id), status: PENDING, ..Deduction::default() },
                    None => idempotency::replay(id, &answer)?,
                };
            }
            Decision::Charged => rows.push(take(&mut pool, request, now)?),
        }
    }
    let metadata = write(&pool, &rows, now)?;
    for (row, metadata) in rows.iter().zip(metadata) {
        count_debit(&pool.tenant, row.accepted.amount.micros());
        answers[row.accepted.at] = Deduction {
            transaction_id: Some(row.id),
            status: "charged",
            replayed: false,
            pool: Some(pool.word()),
            charged: Some(row.accepted.amount.micros()),
            balance_after: Some(row.balance_after),
            held_after: Some(pool.held),
            metadata: Some(metadata),
        };
    }
    replay_within(&rows, answers);
    pool.save()
}

enum Decision {
    NoSeat(&'static str),
    Refused(&'static str),
    Replayed(Answer),
    Charged,
}

fn decide(pool: &Pool, request: &Accepted, seat: Option<&'static str>) -> Result<Decision> {
    if let Some(key) = &request.key {
        match key.answer(pool.id) {
            Ok(None) => {}
            Ok(Some(answer)) => return Ok(Decision::Replayed(answer)),
            Err(error) if error.reason() == "idempotency_conflict" => {
                return Ok(Decision::Refused("idempotency_conflict"));
            }
            Err(error) => return Err(error),
        }
    }
    if let Some(reason) = seat {
        return Ok(Decision::NoSeat(reason));
    }
    if pool.available() < request.amount.micros() {
        return Ok(Decision::Refused("insufficient_credits"));
    }
    if pool.has_caps && pool.organization {
        let (user, amount) = (request.payer.user, request.amount.micros());
        if caps::judge(pool.id, user, amount, pool.now)?.is_some() {
            return Ok(Decision::Refused("cap_reached"));
        }
        caps::count(pool.id, user, amount, pool.now)?;
    }
    Ok(Decision::Charged)
}

/// Moves the pool's figures and claims the key; the rows are inserted together afterwards.
fn take<'a>(pool: &mut Pool, accepted: Accepted<'a>, now: i64) -> Result<Row<'a>> {
    pool.balance -= accepted.amount.micros();
    pool.drawn += i128::from(accepted.amount.micros());
    pool.seq += 1;
    pool.last_entry_at = now;
    let id = entry_id(pool.id, now, pool.seq);
    if let Some(key) = &accepted.key {
        key.claim(pool.id, &Answer { result: id, held_after: pool.held }, now)?;
    }
    Ok(Row { id, accepted, balance_after: pool.balance, drawn_after: pool.drawn })
}

/// Gives a request with the key of an earlier one in the batch that one's answer.
fn replay_within(rows: &[Row], answers: &mut [Deduction]) {
    for index in 0..answers.len() {
        if answers[index].status != PENDING {
            continue;
        }
        if let Some(first) = rows.iter().find(|row| Some(row.id) == answers[index].transaction_id) {
            answers[index] = Deduction { replayed: true, ..answers[first.accepted.at].clone() };
        }
    }
}

/// Inserts the rows of one pool; their metadata in the rows' order.
fn write(pool: &Pool, rows: &[Row], now: i64) -> Result<Vec<Jsonb>> {
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let ids: Vec<Uuid> = rows.iter().map(|row| row.id).collect();
    let first_seq = pool.seq - rows.len() as i64;
    let seqs: Vec<i64> = (1..=rows.len() as i64).map(|number| first_seq + number).collect();
    let amounts: Vec<i128> = rows.iter().map(|row| -i128::from(row.accepted.amount.micros())).collect();
    let users: Vec<Uuid> = rows.iter().map(|row| row.accepted.payer.user).collect();
    let descriptions: Vec<Option<&str>> = rows.iter().map(|row| row.accepted.request.description()).collect();
    let references: Vec<Option<&str>> = rows.iter().map(|row| row.accepted.request.reference_id.as_deref()).collect();
    let balances: Vec<i128> = rows.iter().map(|row| row.balance_after.into()).collect();
    let drawn: Vec<i128> = rows.iter().map(|row| row.drawn_after).collect();
    let metadata: Vec<Option<&Jsonb>> = rows.iter().map(|row| row.accepted.request.metadata.as_ref()).collect();
    let args = [
        pool.id.into(),
        Arg::Uuids(&ids),
        Arg::Longs(&seqs),
        Arg::MicrosList(&amounts),
        Arg::Uuids(&users),
        Arg::OptionalTexts(&descriptions),
        Arg::OptionalTexts(&references),
        Arg::MicrosList(&balances),
        Arg::MicrosList(&drawn),
        Arg::Jsonbs(&metadata),
        Arg::Micros(Some(pool.granted)),
        Arg::Time(Some(now)),
    ];
    let statement = if pool.organization { ORGANIZATION } else { PERSONAL };
    let written: HashMap<Uuid, Jsonb> =
        sql::query(statement, &args, Mode::Write, |row| Ok(row.uuid(1).zip(row.get::<Jsonb>(2))))?
            .into_iter()
            .flatten()
            .collect();
    let metadata: Option<Vec<Jsonb>> = ids.iter().map(|id| written.get(id).cloned()).collect();
    metadata.ok_or_else(seat_unstable)
}

macro_rules! batch_insert {
    ($($source:tt)*) => {
        concat!(
            "INSERT INTO tenancy.credit_transactions
                 (pool_id, id, seq, credits_amount, user_id, description, reference_id, balance_after, drawn_after,
                  granted_after, created_at, operation_type, correlation_id, tenant_id, organization_id, seat_id,
                  subscription_id, metadata)
             SELECT $1, r.id, r.seq, r.amount, r.user_id, r.description, r.reference_id, r.balance_after, r.drawn_after,
                    $11, $12, 'deduction', tenancy.correlation_id(), ",
            $($source)*,
            " RETURNING id, metadata"
        )
    };
}

const ORGANIZATION: &str = batch_insert!(
    "o.tenant_id, o.id, s.id, sub.id, coalesce(r.metadata, '{}') || jsonb_build_object(
            'pool', 'organization', 'clerk_org_id', o.external_id, 'organization_id', o.id,
            'organization_name', o.name, 'stripe_customer_id', o.stripe_customer_id,
            'organization_subscription_id', sub.id, 'seat_id', s.id, 'seat_role', s.role)
       FROM unnest($2, $3, $4, $5, $6, $7, $8, $9, $10)
            AS r (id, seq, amount, user_id, description, reference_id, balance_after, drawn_after, metadata)
       JOIN tenancy.organizations AS o ON o.id = $1
       JOIN tenancy.organization_subscriptions AS sub
         ON sub.organization_id = o.id AND sub.status IN ('active', 'trialing')
       JOIN tenancy.organization_seats AS s
         ON s.organization_id = o.id AND s.user_id = r.user_id AND s.status = 'active'
        AND (s.expires_at IS NULL OR s.expires_at > $12)"
);

const PERSONAL: &str = batch_insert!(
    "p.tenant_id, NULL, NULL, NULL, (coalesce(r.metadata, '{}') - ",
    attribution_keys!(),
    ") || '{\"pool\": \"personal\"}'
       FROM unnest($2, $3, $4, $5, $6, $7, $8, $9, $10)
            AS r (id, seq, amount, user_id, description, reference_id, balance_after, drawn_after, metadata)
       JOIN tenancy.credit_pools AS p ON p.pool_id = $1"
);
