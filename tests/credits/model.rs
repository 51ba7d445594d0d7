//! The plain model: one pool, every grant burned at every charge, no database, no laziness.
//!
//! Amounts are millionths. Time is counted in quarter-days: operations happen at 4n, grants begin and end at 4n + 2, holds
//! end at 4n + 3, so the seconds a run takes never decide anything.

use std::collections::HashMap;

pub type Refusal = (&'static str, &'static str);
pub type Outcome<T> = Result<T, Refusal>;

pub const NO_SEAT: Refusal = ("PT403", "no_active_seat");
pub const NO_SUBSCRIPTION: Refusal = ("PT402", "no_active_subscription");
pub const SHORT: Refusal = ("PT402", "insufficient_credits");
pub const CAPPED: Refusal = ("PT429", "cap_reached");
pub const CONFLICT: Refusal = ("PT409", "idempotency_conflict");

/// A piece of a charge or hold: from which grant, how much.
type Pieces = Vec<(usize, i64)>;

#[derive(Clone, Debug)]
pub struct Grant {
    pub priority: i32,
    pub effective: i64,
    pub expires: i64,
    pub remaining: i64,
    pub amount: i64,
    pub posted: bool,
    pub rollover: Option<(i64, i64)>,
}

#[derive(Clone, Debug)]
pub struct Charge {
    pub user: usize,
    pub amount: i64,
    /// What can still come back, in the order it was burned.
    pieces: Pieces,
    pub refunded: i64,
}

#[derive(Clone, Debug, PartialEq)]
pub enum HoldState {
    Held,
    Captured,
    Voided,
    Expired,
}

#[derive(Clone, Debug)]
pub struct Hold {
    pub user: usize,
    pub amount: i64,
    pub expires: i64,
    pub state: HoldState,
    pieces: Pieces,
}

/// What a key was used for: the request, and the number of the charge or hold it made.
#[derive(Clone, Debug, PartialEq)]
pub struct Answered {
    pub user: usize,
    pub amount: i64,
    pub made: usize,
}

#[derive(Clone, Debug, Default)]
pub struct Pool {
    pub organization: bool,
    pub now: i64,
    pub balance: i64,
    pub held: i64,
    pub total: i64,
    pub grants: Vec<Grant>,
    pub charges: Vec<Charge>,
    pub holds: Vec<Hold>,
    pub keys: HashMap<String, Answered>,
    /// By user: whether there is a seat; an organization's pool only.
    pub seats: Vec<bool>,
    pub subscribed: bool,
    /// By user: the lifetime cap.
    pub caps: HashMap<usize, i64>,
    pub entries: i64,
    // Flows, to see that no money comes from nowhere.
    pub granted: i64,
    pub charged: i64,
    pub refunded: i64,
    pub expired: i64,
    pub taken: i64,
}

impl Pool {
    pub fn available(&self) -> i64 {
        self.balance - self.held
    }

    pub fn conserved(&self) -> bool {
        let remaining: i64 = self.grants.iter().map(|grant| grant.remaining).sum();
        self.granted - self.charged + self.refunded - self.expired - self.taken == self.balance
            && remaining == self.available()
    }

    /// Lets the time come, boundary by boundary.
    pub fn advance(&mut self, now: i64) {
        while let Some(boundary) = self.next_boundary().filter(|boundary| *boundary <= now) {
            for index in 0..self.holds.len() {
                if self.holds[index].state == HoldState::Held && self.holds[index].expires <= boundary {
                    self.holds[index].state = HoldState::Expired;
                    // One after the other, as they were made: no two holds end in the same microsecond.
                    self.release(index, boundary);
                }
            }
            for index in 0..self.grants.len() {
                let grant = &self.grants[index];
                if grant.posted && grant.remaining > 0 && grant.expires <= boundary {
                    self.end_grant(index, boundary);
                }
            }
            for grant in &mut self.grants {
                if !grant.posted && grant.effective <= boundary {
                    grant.posted = true;
                    grant.remaining = grant.amount;
                    self.balance += grant.amount;
                    self.total += grant.amount;
                    self.granted += grant.amount;
                    self.entries += 1;
                }
            }
        }
        self.now = now;
    }

    fn next_boundary(&self) -> Option<i64> {
        let holds = self.holds.iter().filter(|hold| hold.state == HoldState::Held).map(|hold| hold.expires);
        let grants = self.grants.iter().filter_map(|grant| match grant.posted {
            false => Some(grant.effective),
            true if grant.remaining > 0 => Some(grant.expires),
            true => None,
        });
        holds.chain(grants).min()
    }

    fn end_grant(&mut self, index: usize, at: i64) {
        let grant = &mut self.grants[index];
        let amount = std::mem::take(&mut grant.remaining);
        let rollover = grant.rollover.take();
        let priority = grant.priority;
        self.balance -= amount;
        self.total -= amount;
        self.expired += amount;
        self.entries += 1;
        if let Some((max, until)) = rollover.filter(|(_, until)| *until > at) {
            let carried = amount.min(max);
            self.grants.push(Grant {
                priority,
                effective: at,
                expires: until,
                remaining: carried,
                amount: carried,
                posted: true,
                rollover: None,
            });
            self.balance += carried;
            self.total += carried;
            self.granted += carried;
            self.entries += 1;
        }
    }

    /// Takes from the grants in the burn order.
    fn burn(&mut self, amount: i64) -> Pieces {
        let mut order: Vec<usize> = (0..self.grants.len()).filter(|index| self.grants[*index].remaining > 0).collect();
        order.sort_by_key(|index| (self.grants[*index].priority, self.grants[*index].expires, *index));
        let mut left = amount;
        let mut pieces = Vec::new();
        for index in order {
            let taken = left.min(self.grants[index].remaining);
            if taken > 0 {
                self.grants[index].remaining -= taken;
                left -= taken;
                pieces.push((index, taken));
            }
        }
        assert_eq!(left, 0, "the model burned more than there is");
        pieces
    }

    /// Gives the last `amount` of the pieces back; what returns to an expired grant expires.
    fn give_back(&mut self, pieces: &mut Pieces, amount: i64, now: i64) {
        let mut left = amount;
        let mut touched = Vec::new();
        while left > 0 {
            let (grant, size) = pieces.pop().expect("no more comes back than was taken");
            let back = size.min(left);
            if back < size {
                pieces.push((grant, size - back));
            }
            left -= back;
            self.grants[grant].remaining += back;
            touched.push(grant);
        }
        touched.sort_unstable();
        touched.dedup();
        for grant in touched {
            if self.grants[grant].expires <= now {
                self.end_grant(grant, now);
            }
        }
    }

    fn release(&mut self, index: usize, now: i64) {
        let hold = &mut self.holds[index];
        let amount = hold.amount;
        let mut pieces = std::mem::take(&mut hold.pieces);
        self.held -= amount;
        self.give_back(&mut pieces, amount, now);
    }

    fn judge(&self, user: usize) -> Outcome<()> {
        if self.organization && !self.seats[user] {
            return Err(NO_SEAT);
        }
        if self.organization && !self.subscribed { Err(NO_SUBSCRIPTION) } else { Ok(()) }
    }

    fn within_cap(&self, user: usize, amount: i64) -> Outcome<()> {
        let Some(cap) = self.caps.get(&user).filter(|_| self.organization) else { return Ok(()) };
        let spent: i64 = self
            .charges
            .iter()
            .filter(|charge| charge.user == user)
            .map(|charge| charge.amount - charge.refunded)
            .sum();
        let held: i64 = self
            .holds
            .iter()
            .filter(|hold| hold.user == user && hold.state == HoldState::Held)
            .map(|hold| hold.amount)
            .sum();
        if spent + held + amount > *cap { Err(CAPPED) } else { Ok(()) }
    }

    /// The number of the charge; whether it was made before.
    pub fn deduct(&mut self, user: usize, amount: i64, key: Option<&str>) -> Outcome<(usize, bool)> {
        if let Some(answered) = key.and_then(|key| self.keys.get(key)) {
            let same = answered.user == user && answered.amount == amount;
            return if same { Ok((answered.made, true)) } else { Err(CONFLICT) };
        }
        self.judge(user)?;
        if self.available() < amount {
            return Err(SHORT);
        }
        self.within_cap(user, amount)?;
        let made = self.take(user, amount);
        if let Some(key) = key {
            self.keys.insert(key.to_owned(), Answered { user, amount, made });
        }
        Ok((made, false))
    }

    fn take(&mut self, user: usize, amount: i64) -> usize {
        let pieces = self.burn(amount);
        self.balance -= amount;
        self.charged += amount;
        self.entries += 1;
        self.charges.push(Charge { user, amount, pieces, refunded: 0 });
        self.charges.len() - 1
    }

    /// Contract H: no seat is asked for. False where it does not suffice.
    pub fn consume(&mut self, user: usize, amount: i64) -> Outcome<bool> {
        if self.available() < amount {
            return Ok(false);
        }
        self.within_cap(user, amount)?;
        self.take(user, amount);
        Ok(true)
    }

    pub fn hold(&mut self, user: usize, amount: i64, expires: i64) -> Outcome<usize> {
        self.judge(user)?;
        if self.available() < amount {
            return Err(SHORT);
        }
        self.within_cap(user, amount)?;
        let pieces = self.burn(amount);
        self.held += amount;
        self.holds.push(Hold { user, amount, expires, state: HoldState::Held, pieces });
        Ok(self.holds.len() - 1)
    }

    /// The number of the charge.
    pub fn capture(&mut self, hold: usize, amount: Option<i64>) -> Outcome<usize> {
        self.open(hold)?;
        let held = self.holds[hold].amount;
        let amount = amount.unwrap_or(held);
        if amount > held {
            return Err(("PT422", "capture_exceeds_hold"));
        }
        let user = self.holds[hold].user;
        let mut pieces = std::mem::take(&mut self.holds[hold].pieces);
        self.holds[hold].state = HoldState::Captured;
        self.held -= held;
        self.balance -= amount;
        self.charged += amount;
        self.entries += 1;
        let now = self.now;
        self.give_back(&mut pieces, held - amount, now);
        self.charges.push(Charge { user, amount, pieces, refunded: 0 });
        Ok(self.charges.len() - 1)
    }

    fn open(&self, hold: usize) -> Outcome<()> {
        match self.holds[hold].state {
            HoldState::Held => Ok(()),
            HoldState::Captured => Err(("PT422", "hold_captured")),
            HoldState::Voided => Err(("PT422", "hold_voided")),
            HoldState::Expired => Err(("PT422", "hold_expired")),
        }
    }

    pub fn void(&mut self, hold: usize) -> Outcome<bool> {
        match self.holds[hold].state {
            HoldState::Held => {
                self.holds[hold].state = HoldState::Voided;
                let now = self.now;
                self.release(hold, now);
                Ok(true)
            }
            HoldState::Captured => Err(("PT422", "hold_captured")),
            HoldState::Voided | HoldState::Expired => Ok(false),
        }
    }

    pub fn refund(&mut self, charge: usize, amount: Option<i64>) -> Outcome<()> {
        let left = self.charges[charge].amount - self.charges[charge].refunded;
        let amount = amount.unwrap_or(left);
        if amount > left || left == 0 {
            return Err(("PT422", "refund_exceeds_charge"));
        }
        self.charges[charge].refunded += amount;
        self.balance += amount;
        self.refunded += amount;
        self.entries += 1;
        let mut pieces = std::mem::take(&mut self.charges[charge].pieces);
        let now = self.now;
        self.give_back(&mut pieces, amount, now);
        self.charges[charge].pieces = pieces;
        Ok(())
    }

    pub fn grant(&mut self, grant: Grant) {
        let posted = grant.effective <= self.now;
        if posted {
            self.balance += grant.amount;
            self.total += grant.amount;
            self.granted += grant.amount;
            self.entries += 1;
        }
        let remaining = if posted { grant.amount } else { 0 };
        self.grants.push(Grant { posted, remaining, ..grant });
    }

    /// An adjustment downwards.
    pub fn take_away(&mut self, amount: i64) -> Outcome<()> {
        if self.available() < amount {
            return Err(SHORT);
        }
        self.burn(amount);
        self.balance -= amount;
        self.total -= amount;
        self.taken += amount;
        self.entries += 1;
        Ok(())
    }
}
