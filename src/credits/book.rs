//! Which grants a pool's charges burned, and what happens to them at their boundaries: plain rules.
//!
//! Everything ever charged or held in a pool lies on one line, end to end, in the order of the charges; a charge is a
//! segment of it. Grants are laid under the line only when it matters: when one expires or becomes effective, when a new
//! one comes, when credits come back. Between two such settlements the set of grants does not change, so the burn order
//! (priority, then expiry, then creation) gives the same answer late as it would have given at each charge.
//!
//! Holds lie on the line like charges: what a hold covers cannot expire while it is held. What comes back (a refund, a
//! void, the rest of a capture) returns to the grants it was drawn from; if such a grant has expired meanwhile, it
//! expires then.

use uuid::Uuid;

/// A time that never comes (`infinity`).
pub const NEVER: i64 = i64::MAX;

/// What a grant becomes at its expiry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rollover {
    /// At most this much of what remains.
    pub max: i64,
    /// When the new grant expires.
    pub until: i64,
}

/// Credits given to a pool. Amounts in millionths, times in microseconds since 2000-01-01.
#[derive(Clone, Debug, PartialEq)]
pub struct Grant {
    pub id: Uuid,
    pub priority: i32,
    pub effective_at: i64,
    pub expires_at: i64,
    pub created_at: i64,
    pub amount: i64,
    /// Neither charged, held nor expired.
    pub remaining: i64,
    /// In the balance; until then it waits for `effective_at`.
    pub posted: bool,
    pub rollover: Option<Rollover>,
    /// The grant it was rolled over from in this settlement.
    pub rolled_from: Option<Uuid>,
    /// Differs from what is stored.
    pub changed: bool,
}

impl Grant {
    fn order(&self) -> (i32, i64, i64, Uuid) {
        (self.priority, self.expires_at, self.created_at, self.id)
    }

    /// Whether a later settlement has to look at it.
    pub fn open(&self) -> bool {
        !self.posted || self.remaining > 0
    }
}

/// A piece of the line and the grant that lies under it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Draw {
    pub grant: Uuid,
    pub from: i128,
    pub to: i128,
}

impl Draw {
    fn within(&self, from: i128, to: i128) -> Option<Draw> {
        let (from, to) = (self.from.max(from), self.to.min(to));
        (from < to).then_some(Draw { grant: self.grant, from, to })
    }
}

/// An open hold whose time has come.
#[derive(Clone, Debug, PartialEq)]
pub struct DueHold {
    pub id: Uuid,
    pub amount: i64,
    pub expires_at: i64,
    /// Where its segment ends on the line.
    pub drawn_to: i128,
}

/// What a settlement found out, in the order in which it happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// A hold ended by itself and its credits came free.
    HoldExpired { hold: Uuid, amount: i64, at: i64 },
    /// A piece of the line came back to its grant.
    Returned { hold: Option<Uuid>, draw: Draw },
    /// What remained of a grant left the balance.
    Expired { grant: Uuid, amount: i64, at: i64 },
    /// A grant entered the balance.
    Posted { grant: Uuid, amount: i64, at: i64, rolled_over: bool },
}

/// The stored figures cannot all be true.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inconsistent;

/// A pool's grants and the part of its line that is not settled.
#[derive(Clone, Debug, Default)]
pub struct Book {
    /// The open grants, and the closed ones that something returns to.
    pub grants: Vec<Grant>,
    /// How far the line is settled, and how far it reaches.
    pub burned: i128,
    pub drawn: i128,
    /// Open holds whose time has come.
    pub due: Vec<DueHold>,
    /// The settled pieces of the line under segments that return.
    pub known: Vec<Draw>,
    /// When the next hold that is not due expires.
    pub next_hold_expiry: i64,
    /// What this settlement adds.
    pub draws: Vec<Draw>,
    pub steps: Vec<Step>,
}

impl Book {
    /// Brings the book to `now`. Everything on the line was drawn before the first boundary that is due, which whoever
    /// charges makes sure of. `last` is the time of the newest entry: nothing is dated before it.
    pub fn settle(&mut self, last: i64, now: i64, new_id: &mut dyn FnMut() -> Uuid) -> Result<(), Inconsistent> {
        self.burn()?;
        self.due.sort_by_key(|hold| (hold.expires_at, hold.id));
        let mut clock = last;
        while let Some(boundary) = self.next_boundary().filter(|boundary| *boundary <= now) {
            clock = clock.max(boundary);
            while self.due.first().is_some_and(|hold| hold.expires_at <= clock) {
                let hold = self.due.remove(0);
                self.steps.push(Step::HoldExpired { hold: hold.id, amount: hold.amount, at: clock });
                self.give_back(Some(hold.id), hold.drawn_to - i128::from(hold.amount), hold.drawn_to)?;
            }
            self.expire(clock, new_id);
            self.post(clock);
        }
        Ok(())
    }

    /// Lays grants under the unsettled part of the line.
    pub fn burn(&mut self) -> Result<(), Inconsistent> {
        let mut order: Vec<usize> = (0..self.grants.len()).collect();
        order.sort_by_key(|index| self.grants[*index].order());
        for index in order {
            let grant = &mut self.grants[index];
            if !grant.posted || grant.remaining == 0 || self.burned == self.drawn {
                continue;
            }
            let taken = i128::from(grant.remaining).min(self.drawn - self.burned);
            grant.remaining -= taken as i64;
            grant.changed = true;
            let draw = Draw { grant: grant.id, from: self.burned, to: self.burned + taken };
            self.draws.push(draw);
            self.burned = draw.to;
        }
        if self.burned == self.drawn { Ok(()) } else { Err(Inconsistent) }
    }

    /// Returns a settled segment to its grants.
    pub fn give_back(&mut self, hold: Option<Uuid>, from: i128, to: i128) -> Result<(), Inconsistent> {
        let pieces: Vec<Draw> = self.known.iter().chain(&self.draws).filter_map(|draw| draw.within(from, to)).collect();
        let mut found = 0;
        for draw in pieces {
            let grant = self.grants.iter_mut().find(|grant| grant.id == draw.grant).ok_or(Inconsistent)?;
            grant.remaining += (draw.to - draw.from) as i64;
            grant.changed = true;
            found += draw.to - draw.from;
            self.steps.push(Step::Returned { hold, draw });
        }
        if found == to - from { Ok(()) } else { Err(Inconsistent) }
    }

    /// Ends what remains of every grant whose time has come; part of it may go on as a new grant.
    pub fn expire(&mut self, now: i64, new_id: &mut dyn FnMut() -> Uuid) {
        for index in 0..self.grants.len() {
            let grant = &mut self.grants[index];
            if !grant.posted || grant.remaining == 0 || grant.expires_at > now {
                continue;
            }
            let amount = std::mem::take(&mut grant.remaining);
            grant.changed = true;
            self.steps.push(Step::Expired { grant: grant.id, amount, at: now });
            // Once: what returns to it later expires.
            if let Some(rollover) = grant.rollover.take().filter(|rollover| rollover.until > now) {
                let carried = amount.min(rollover.max);
                let next = Grant {
                    id: new_id(),
                    priority: grant.priority,
                    effective_at: now,
                    expires_at: rollover.until,
                    created_at: now,
                    amount: carried,
                    remaining: carried,
                    posted: true,
                    rollover: None,
                    rolled_from: Some(grant.id),
                    changed: true,
                };
                self.steps.push(Step::Posted { grant: next.id, amount: carried, at: now, rolled_over: true });
                self.grants.push(next);
            }
        }
    }

    /// Lets grants into the balance whose time has come.
    fn post(&mut self, now: i64) {
        for grant in self.grants.iter_mut().filter(|grant| !grant.posted && grant.effective_at <= now) {
            grant.posted = true;
            grant.changed = true;
            grant.remaining = grant.amount;
            self.steps.push(Step::Posted { grant: grant.id, amount: grant.amount, at: now, rolled_over: false });
        }
    }

    /// When the next grant or hold begins or ends.
    pub fn next_boundary(&self) -> Option<i64> {
        let grants = self.grants.iter().filter_map(|grant| match grant.posted {
            false => Some(grant.effective_at),
            true if grant.remaining > 0 => Some(grant.expires_at),
            true => None,
        });
        grants
            .chain(self.due.iter().map(|hold| hold.expires_at))
            .chain([self.next_hold_expiry])
            .min()
            .filter(|boundary| *boundary != NEVER)
    }
}
