//! Settlements: the stored book read, brought to a time by the rules of [`super::book`], and written back.

use super::amount::LARGEST;
use super::book::{Book, Draw, DueHold, Grant, Inconsistent, NEVER, Rollover, Step};
use super::ledger::{Entry, out_of_range};
use super::pool::Pool;
use crate::ids::tagged;
use crate::pg::sql::{self, Arg, Mode, Row};
use crate::pg::{Error, Result, State};
use uuid::Uuid;

/// Brings a locked pool to `pool.now`, writes what happened into the ledger and saves the pool. Where its figures do not
/// allow that, nothing has been written.
///
/// Errors: XX000 `ledger_inconsistent`, 22003 `balance_out_of_range`.
pub fn settle(pool: &mut Pool) -> Result<()> {
    let mut book = load(pool, pool.now, &[], Mode::Write)?;
    advance(&mut book, pool)?;
    fits(pool, &book)?;
    store(pool, &book, None)?;
    pool.save()
}

/// Whether the balance stays one on the way.
fn fits(pool: &Pool, book: &Book) -> Result<()> {
    let mut balance = i128::from(pool.balance);
    for step in &book.steps {
        match *step {
            Step::Posted { amount, .. } => balance += i128::from(amount),
            Step::Expired { amount, .. } => balance -= i128::from(amount),
            Step::HoldExpired { .. } | Step::Returned { .. } => {}
        }
        if balance > i128::from(LARGEST) {
            return Err(out_of_range());
        }
    }
    Ok(())
}

/// Brings a book to `pool.now`.
pub fn advance(book: &mut Book, pool: &Pool) -> Result<()> {
    let id = pool.id;
    book.settle(pool.last_entry_at, pool.now, &mut || tagged(id)).map_err(|_| inconsistent(pool))
}

/// The figures of an unsettled pool at `pool.now`, without writing.
pub fn preview(pool: &Pool) -> Result<Pool> {
    let mut book = load(pool, pool.now, &[], Mode::Read)?;
    advance(&mut book, pool)?;
    let mut after = pool.clone();
    for step in &book.steps {
        match *step {
            Step::HoldExpired { amount, .. } => after.held -= amount,
            Step::Expired { amount, .. } => {
                after.balance -= amount;
                after.granted -= i128::from(amount);
            }
            Step::Posted { amount, .. } => {
                after.balance += amount;
                after.granted += i128::from(amount);
            }
            Step::Returned { .. } => {}
        }
    }
    Ok(after)
}

/// Gives segments of the line back to the grants they were drawn from, in a pool that is locked and settled up to now.
/// What returns to a grant that has expired leaves the balance at once. The caller saves the pool.
pub fn give_back(pool: &mut Pool, segment: (i128, i128), cause: Cause) -> Result<()> {
    let mut book = load(pool, pool.now, &[segment], Mode::Write)?;
    let hold = match cause {
        Cause::Hold(hold) => Some(hold),
        Cause::Refund(_) => None,
    };
    let id = pool.id;
    book.burn().and_then(|()| book.give_back(hold, segment.0, segment.1)).map_err(|Inconsistent| inconsistent(pool))?;
    book.expire(pool.now, &mut || tagged(id));
    store(pool, &book, Some(cause))
}

/// Closes the unsettled part of the line, before a new grant joins the burn order. The caller saves the pool.
pub fn close(pool: &mut Pool) -> Result<()> {
    if pool.burned == pool.drawn {
        return Ok(());
    }
    let mut book = load(pool, pool.now, &[], Mode::Write)?;
    book.burn().map_err(|Inconsistent| inconsistent(pool))?;
    store(pool, &book, None)
}

/// Why a segment came back.
#[derive(Clone, Copy, Debug)]
pub enum Cause {
    Hold(Uuid),
    Refund(Uuid),
}

fn inconsistent(pool: &Pool) -> Error {
    Error::new(State::INTERNAL, "ledger_inconsistent", "The pool's figures contradict each other")
        .hint("Nothing was changed. Run SELECT * FROM tenancy.verify_ledger(); somebody has changed rows by hand.")
        .detail("pool_id", pool.id.to_string())
}

/// Reads the open grants, the holds due by `now`, and what lies under those and `segments`.
fn load(pool: &Pool, now: i64, segments: &[(i128, i128)], mode: Mode) -> Result<Book> {
    let grants = sql::query(
        "SELECT g.id, g.priority, g.effective_at, g.expires_at, g.created_at, g.amount, g.remaining, g.is_posted,
                g.rollover_max, g.rollover_until
           FROM tenancy.credit_grants AS g
          WHERE g.pool_id = $1 AND g.is_open",
        &[pool.id.into()],
        mode,
        read_grant,
    )?;
    let mut book = Book {
        grants,
        burned: pool.burned,
        drawn: pool.drawn,
        due: due_holds(pool.id, now, mode)?,
        next_hold_expiry: next_hold_expiry(pool.id, now, mode)?,
        ..Book::default()
    };
    let due = book.due.iter().map(|hold| (hold.drawn_to - i128::from(hold.amount), hold.drawn_to));
    for (from, to) in segments.iter().copied().chain(due.collect::<Vec<_>>()) {
        for draw in draws(pool.id, from, to, mode)? {
            if !book.known.contains(&draw) {
                book.known.push(draw);
            }
        }
    }
    for draw in book.known.clone() {
        if !book.grants.iter().any(|grant| grant.id == draw.grant) {
            book.grants.extend(closed_grant(pool.id, draw.grant, mode)?);
        }
    }
    Ok(book)
}

fn read_grant(row: &Row) -> Result<Grant> {
    let rollover = row
        .micros(9)
        .zip(row.time(10))
        .map(|(max, until)| Rollover { max: i64::try_from(max).unwrap_or_default(), until });
    Ok(Grant {
        id: row.uuid(1).unwrap_or_default(),
        priority: row.get(2).unwrap_or_default(),
        effective_at: row.time(3).unwrap_or_default(),
        expires_at: row.time(4).unwrap_or(NEVER),
        created_at: row.time(5).unwrap_or_default(),
        amount: row.credits(6),
        remaining: row.credits(7),
        posted: row.get(8) == Some(true),
        rollover,
        rolled_from: None,
        changed: false,
    })
}

fn closed_grant(pool: Uuid, grant: Uuid, mode: Mode) -> Result<Option<Grant>> {
    sql::query_opt(
        "SELECT g.id, g.priority, g.effective_at, g.expires_at, g.created_at, g.amount, g.remaining, g.is_posted,
                g.rollover_max, g.rollover_until
           FROM tenancy.credit_grants AS g
          WHERE g.pool_id = $1 AND g.id = $2",
        &[pool.into(), grant.into()],
        mode,
        read_grant,
    )
}

fn due_holds(pool: Uuid, now: i64, mode: Mode) -> Result<Vec<DueHold>> {
    sql::query(
        "SELECT h.id, h.amount, h.expires_at, h.drawn_after
           FROM tenancy.credit_holds AS h
          WHERE h.pool_id = $1 AND h.status = 'held' AND h.expires_at <= $2",
        &[pool.into(), Arg::Time(Some(now))],
        mode,
        |row| {
            Ok(DueHold {
                id: row.uuid(1).unwrap_or_default(),
                amount: row.credits(2),
                expires_at: row.time(3).unwrap_or_default(),
                drawn_to: row.micros(4).unwrap_or_default(),
            })
        },
    )
}

fn next_hold_expiry(pool: Uuid, now: i64, mode: Mode) -> Result<i64> {
    let next = sql::query_opt(
        "SELECT min(h.expires_at)
           FROM tenancy.credit_holds AS h
          WHERE h.pool_id = $1 AND h.status = 'held' AND h.expires_at > $2",
        &[pool.into(), Arg::Time(Some(now))],
        mode,
        |row| Ok(row.time(1)),
    )?;
    Ok(next.flatten().unwrap_or(NEVER))
}

/// The settled pieces of the line that overlap a segment.
fn draws(pool: Uuid, from: i128, to: i128, mode: Mode) -> Result<Vec<Draw>> {
    sql::query(
        "SELECT d.grant_id, d.drawn_from, d.drawn_to
           FROM tenancy.credit_draws AS d
          WHERE d.pool_id = $1 AND d.drawn_to > $2
            AND d.drawn_to <= coalesce((SELECT last.drawn_to FROM tenancy.credit_draws AS last
                                         WHERE last.pool_id = $1 AND last.drawn_to >= $3
                                         ORDER BY last.drawn_to LIMIT 1), $3)
          ORDER BY d.drawn_to",
        &[pool.into(), Arg::Micros(Some(from)), Arg::Micros(Some(to))],
        mode,
        |row| {
            Ok(Draw {
                grant: row.uuid(1).unwrap_or_default(),
                from: row.micros(2).unwrap_or_default(),
                to: row.micros(3).unwrap_or_default(),
            })
        },
    )
}

/// Writes what a settlement found out; the caller saves the pool.
fn store(pool: &mut Pool, book: &Book, cause: Option<Cause>) -> Result<()> {
    for grant in book.grants.iter().filter(|grant| grant.changed) {
        store_grant(pool, grant)?;
    }
    for draw in &book.draws {
        sql::execute(
            "INSERT INTO tenancy.credit_draws (pool_id, drawn_from, drawn_to, grant_id, settled_at)
             VALUES ($1, $2, $3, $4, $5)",
            &[
                pool.id.into(),
                Arg::Micros(Some(draw.from)),
                Arg::Micros(Some(draw.to)),
                draw.grant.into(),
                Arg::Time(Some(pool.now)),
            ],
        )?;
    }
    for step in &book.steps {
        match *step {
            Step::HoldExpired { hold, amount, at } => {
                pool.held -= amount;
                pool.last_entry_at = pool.last_entry_at.max(at);
                end_hold(pool.id, hold, "expired", at)?;
            }
            Step::Returned { hold, draw } => store_return(pool, hold, draw, cause)?,
            Step::Expired { grant, amount, at } => {
                pool.enter(&Entry {
                    operation: "expiry",
                    amount: -amount,
                    at,
                    description: Some("Credits expired"),
                    grant: Some(grant),
                    ..Entry::default()
                })?;
            }
            Step::Posted { grant, amount, at, rolled_over } => {
                let (operation, description) = match rolled_over {
                    true => ("rollover", "Credits rolled over"),
                    false => ("grant", "Credits became effective"),
                };
                pool.enter(&Entry {
                    operation,
                    amount,
                    at,
                    description: Some(description),
                    grant: Some(grant),
                    ..Entry::default()
                })?;
            }
        }
    }
    pool.burned = book.burned;
    pool.next_expiry_at = book.next_boundary().unwrap_or(NEVER);
    Ok(())
}

fn store_grant(pool: &Pool, grant: &Grant) -> Result<()> {
    if let Some(rolled_from) = grant.rolled_from {
        return sql::execute(
            "INSERT INTO tenancy.credit_grants
                 (pool_id, id, tenant_id, source, amount, remaining, priority, effective_at, expires_at, is_posted, is_open,
                  cost_basis, rolled_from, reason, created_at)
             SELECT f.pool_id, $2, f.tenant_id, 'rollover', $4, $5, f.priority, $6, $7, true, $8,
                    f.cost_basis, f.id, f.reason, $6
               FROM tenancy.credit_grants AS f
              WHERE f.pool_id = $1 AND f.id = $3",
            &[
                pool.id.into(),
                grant.id.into(),
                rolled_from.into(),
                Arg::Micros(Some(grant.amount.into())),
                Arg::Micros(Some(grant.remaining.into())),
                Arg::Time(Some(grant.effective_at)),
                Arg::Time(Some(grant.expires_at)),
                Arg::Bool(Some(grant.open())),
            ],
        )
        .map(drop);
    }
    sql::execute(
        "UPDATE tenancy.credit_grants AS g
            SET remaining = $3, is_posted = $4, is_open = $5,
                rollover_max = CASE WHEN $6 THEN g.rollover_max END,
                rollover_until = CASE WHEN $6 THEN g.rollover_until END,
                updated_at = now()
          WHERE g.pool_id = $1 AND g.id = $2",
        &[
            pool.id.into(),
            grant.id.into(),
            Arg::Micros(Some(grant.remaining.into())),
            Arg::Bool(Some(grant.posted)),
            Arg::Bool(Some(grant.open())),
            Arg::Bool(Some(grant.rollover.is_some())),
        ],
    )
    .map(drop)
}

fn store_return(pool: &Pool, hold: Option<Uuid>, draw: Draw, cause: Option<Cause>) -> Result<()> {
    let refund = match cause {
        Some(Cause::Refund(refund)) if hold.is_none() => Some(refund),
        _ => None,
    };
    sql::execute(
        "INSERT INTO tenancy.credit_returns (pool_id, drawn_from, drawn_to, grant_id, hold_id, refund_id, returned_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
        &[
            pool.id.into(),
            Arg::Micros(Some(draw.from)),
            Arg::Micros(Some(draw.to)),
            draw.grant.into(),
            Arg::Uuid(hold),
            Arg::Uuid(refund),
            Arg::Time(Some(pool.now)),
        ],
    )
    .map(drop)
}

/// Closes a hold without a charge.
pub fn end_hold(pool: Uuid, hold: Uuid, status: &'static str, at: i64) -> Result<()> {
    sql::execute(
        "UPDATE tenancy.credit_holds AS h SET status = $3, closed_at = $4 WHERE h.pool_id = $1 AND h.id = $2",
        &[pool.into(), hold.into(), status.into(), Arg::Time(Some(at))],
    )
    .map(drop)
}
