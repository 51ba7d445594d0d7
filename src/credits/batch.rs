//! Many charges in one call: per-row answers, one lock and one insert a pool.
//!
//! Pools are locked in the order of their ids, so batches in any order cannot deadlock each other. Nothing here raises
//! for a single request, so no subtransaction is needed: a request is judged first and written only if it passes.

use super::amount::Credits;
use super::attribution::{self, Attribution, judge};
use super::batch_request::{Request, parse};
use super::caps;
use super::debit::{Seat, count_debit};
use super::entry_id::entry_id;
use super::idempotency::{self, Answer, Body, Key};
use super::payer::Payer;
use super::pool::Pool;
use super::result::Deduction;
use super::rows::{self, Row};
use crate::pg::metrics::{self, Series};
use crate::pg::{self, Composite, Jsonb, Result};
use crate::schema::require_installed;
use pgrx::iter::SetOfIterator;
use pgrx::{pg_extern, search_path};
use std::collections::BTreeMap;
use std::collections::hash_map::{Entry, HashMap};
use std::rc::Rc;
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
    metadata: Option<&'a Jsonb>,
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
    replay_within(&mut answers);
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
    Ok(Accepted { at, payer, amount, request, metadata, key })
}

/// A request that is charged, and its row.
struct Charged<'a> {
    at: usize,
    row: Row<'a>,
}

/// What a user may spend from, or the reason why nothing.
type Standing = std::result::Result<Rc<Attribution>, &'static str>;

fn charge_pool(id: Uuid, accepted: Vec<Accepted>, answers: &mut [Deduction]) -> Result<()> {
    let Some(mut pool) = Pool::lock(id)? else {
        return answer_without_pool(accepted, answers);
    };
    let now = pool.now;
    let mut standings: HashMap<Uuid, Standing> = HashMap::new();
    let mut rows: Vec<Charged> = Vec::with_capacity(accepted.len());
    for request in accepted {
        let at = request.at;
        answers[at] = Deduction {
            pool: Some(pool.word()),
            balance_after: Some(pool.balance),
            held_after: Some(pool.held),
            ..Deduction::default()
        };
        let standing = match standings.entry(request.payer.user) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => {
                new.insert(refusal(attribution::find(&request.payer, Seat::Required, &pool.tenant, now))?)
            }
        };
        match decide(&pool, &request, standing)? {
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
                answers[at] = match rows.iter().find(|charged| charged.row.id == answer.result) {
                    // Of a request before it in this batch, whose row is not written yet.
                    Some(first) => {
                        Deduction { transaction_id: Some(first.row.id), status: PENDING, ..Deduction::default() }
                    }
                    None => idempotency::replay(id, &answer)?,
                };
            }
            Decision::Charged(attribution) => rows.push(take(&mut pool, request, attribution, now)?),
        }
    }
    let (places, rows): (Vec<usize>, Vec<Row>) = rows.into_iter().map(|charged| (charged.at, charged.row)).unzip();
    rows::write(&rows, super::correlation_id().as_deref())?;
    for (&at, row) in places.iter().zip(&rows) {
        count_debit(&pool.tenant, row.amount.micros());
        answers[at] = Deduction {
            transaction_id: Some(row.id),
            status: "charged",
            replayed: false,
            pool: Some(pool.word()),
            charged: Some(row.amount.micros()),
            balance_after: Some(row.balance_after),
            held_after: Some(pool.held),
            metadata: Some(row.metadata().clone()),
        };
    }
    pool.save()
}

fn answer_without_pool(accepted: Vec<Accepted>, answers: &mut [Deduction]) -> Result<()> {
    let now = super::clock::now();
    let mut reasons: HashMap<Uuid, &'static str> = HashMap::new();
    for request in accepted {
        let reason = match reasons.entry(request.payer.user) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(new) => {
                *new.insert(refusal(judge(&request.payer, now))?.err().unwrap_or("insufficient_credits"))
            }
        };
        answers[request.at].status = reason;
        answers[request.at].pool = Some(request.payer.pool_word());
    }
    Ok(())
}

enum Decision {
    NoSeat(&'static str),
    Refused(&'static str),
    Replayed(Answer),
    Charged(Rc<Attribution>),
}

/// An outcome of the business is an answer; anything else ends the call.
fn refusal<T>(outcome: Result<T>) -> Result<std::result::Result<T, &'static str>> {
    match outcome {
        Ok(value) => Ok(Ok(value)),
        Err(error) if error.sqlstate().starts_with("PT4") => Ok(Err(error.reason())),
        Err(error) => Err(error),
    }
}

fn decide(pool: &Pool, request: &Accepted, standing: &Standing) -> Result<Decision> {
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
    let attribution = match standing {
        Ok(attribution) => Rc::clone(attribution),
        Err(reason) => return Ok(Decision::NoSeat(reason)),
    };
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
    Ok(Decision::Charged(attribution))
}

/// Moves the pool's figures and claims the key; the rows are written together afterwards.
fn take<'a>(pool: &mut Pool, accepted: Accepted<'a>, attribution: Rc<Attribution>, now: i64) -> Result<Charged<'a>> {
    pool.balance -= accepted.amount.micros();
    pool.drawn += i128::from(accepted.amount.micros());
    pool.seq += 1;
    pool.last_entry_at = now;
    let id = entry_id(pool.id, now, pool.seq);
    if let Some(key) = &accepted.key {
        key.claim(pool.id, &Answer { result: id, held_after: pool.held }, now)?;
    }
    let row = Row {
        payer: accepted.payer,
        id,
        seq: pool.seq,
        amount: accepted.amount,
        description: accepted.request.description(),
        reference_id: accepted.request.reference_id.as_deref(),
        merged: rows::merge(&accepted.payer, accepted.metadata, &attribution)?,
        attribution,
        balance_after: pool.balance,
        granted_after: pool.granted,
        drawn_after: pool.drawn,
        at: now,
    };
    Ok(Charged { at: accepted.at, row })
}

/// Gives a request with the key of an earlier one in the batch that one's answer.
fn replay_within(answers: &mut [Deduction]) {
    if answers.iter().all(|answer| answer.status != PENDING) {
        return;
    }
    let charged: HashMap<Uuid, usize> = answers
        .iter()
        .enumerate()
        .filter(|(_, answer)| answer.status == "charged" && !answer.replayed)
        .filter_map(|(at, answer)| Some((answer.transaction_id?, at)))
        .collect();
    for at in 0..answers.len() {
        if answers[at].status == PENDING
            && let Some(first) = answers[at].transaction_id.and_then(|id| charged.get(&id))
        {
            answers[at] = Deduction { replayed: true, ..answers[*first].clone() };
        }
    }
}
