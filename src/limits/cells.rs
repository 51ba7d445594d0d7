//! The limiter's memory: a cell for each caller, in partitions under locks of their own; a share of the cells for each
//! tenant, so that no tenant can fill the table with made-up keys.
//!
//! A cell is given up only when its bucket is full again: forgetting it forgives nobody. Where nothing can be given up,
//! the caller is refused.
//!
//! Locks: never two at once. A share is booked before its cell is added, and given back if the cell is not.

use super::gcra::{Decision, Rule};
use super::table::{Cell, Share, Slot, Table};
use crate::pg::limit_settings as settings;
use crate::pg::shared::{self, SharedSlice, SharedTables};
use aws_lc_rs::hmac;
use std::cell::OnceCell;

/// Power of two: the lowest bits of a key's upper half choose the partition.
const PARTITIONS: usize = 64;

static CELLS: SharedTables<Cell> = SharedTables::new(c"pg_tenancy limiter cells", PARTITIONS, Cell::FREE);
static SHARES: SharedTables<Share> = SharedTables::new(c"pg_tenancy limiter shares", 1, Share::FREE);
/// Keys the hashes, so that nobody can aim at a partition or at another tenant's cell. New with every start.
static SECRET: SharedSlice<[u8; 32]> = SharedSlice::new(c"pg_tenancy limiter secret", fresh_secret);

/// Asks for the memory, when the server starts.
pub fn request(cells: usize) {
    let slots = (cells.div_ceil(PARTITIONS) * 3 / 2).next_power_of_two().max(16);
    CELLS.request(slots);
    // Every tenant that has a share has a cell: as many slots are always enough.
    SHARES.request((slots * PARTITIONS).next_power_of_two() * 2);
    SECRET.request(1);
}

/// Whether the library was preloaded.
pub fn are_there() -> bool {
    CELLS.is_there()
}

/// Whose cell.
#[derive(Clone, Copy)]
pub struct Key {
    cell: u128,
    tenant: u64,
}

impl Key {
    /// The key of a tenant's limit and, where it has one, the caller's own key. Needs the memory.
    pub fn new(database: u32, tenant: &str, name: &str, key: Option<&str>) -> Option<Self> {
        let tenant_hash = hash(&[&database.to_be_bytes(), tenant.as_bytes()])?;
        let presence: &[u8] = if key.is_some() { b"k" } else { b"" };
        let parts: [&[u8]; 5] =
            [&database.to_be_bytes(), tenant.as_bytes(), name.as_bytes(), presence, key.unwrap_or("").as_bytes()];
        Some(Self { cell: hash(&parts)?.max(1), tenant: (tenant_hash as u64).max(1) })
    }

    fn partition(self) -> usize {
        (self.cell >> 64) as usize & (PARTITIONS - 1)
    }
}

/// Why a cell could not be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// The tenant has as many cells as one tenant may.
    Share,
    /// The table is full of callers that must not be forgotten.
    Table,
}

/// Takes `cost` from the caller's bucket, or says when to come back.
pub fn take(key: Key, rule: Rule, cost: u32) -> Option<Result<Decision, Full>> {
    if let Some(decision) = with_cells(key, |table| take_known(table, key, rule, cost))? {
        return Some(Ok(decision));
    }
    if !book_share(key.tenant)? {
        return Some(Err(Full::Share));
    }
    let mut evicted = Vec::new();
    let taken = with_cells(key, |table| {
        if let Some(decision) = take_known(table, key, rule, cost) {
            return Err(Some(decision)); // another session was quicker: the booked share goes back
        }
        let now = shared::uptime_micros();
        let decision = rule.decide(None, now, cost);
        let cell = Cell::new(key.cell, key.tenant, decision.arrival);
        if !table.insert(cell) {
            table.sweep(|cell| {
                let over = cell.arrival.is_over(now);
                if over {
                    evicted.push(cell.tenant);
                }
                over
            });
            if !table.insert(cell) {
                return Err(None);
            }
        }
        Ok(decision)
    })?;
    give_back(evicted);
    Some(match taken {
        Ok(decision) => {
            note_cell(key.tenant, decision);
            Ok(decision)
        }
        Err(raced) => {
            give_back(vec![key.tenant]);
            raced.ok_or(Full::Table)
        }
    })
}

/// What `take` would say, without taking.
pub fn peek(key: Key, rule: Rule, cost: u32) -> Option<(Decision, u32)> {
    with_cells(key, |table| {
        let cell = table.find(key.cell).map(|cell| cell.arrival);
        let now = shared::uptime_micros();
        (rule.decide(cell, now, cost), rule.decide(cell, now, 0).remaining)
    })
}

/// Cells in use.
pub fn usage() -> Option<u64> {
    (0..PARTITIONS).try_fold(0, |used, partition| Some(used + u64::from(CELLS.with(partition, |own, _| *own)?)))
}

fn with_cells<R>(key: Key, work: impl FnOnce(&mut Table<Cell>) -> R) -> Option<R> {
    CELLS.with(key.partition(), |used, slots| work(&mut Table::new(used, slots)))
}

fn take_known(table: &mut Table<Cell>, key: Key, rule: Rule, cost: u32) -> Option<Decision> {
    let cell = table.find(key.cell)?;
    // The clock is read under the lock: sessions are judged in the order they come.
    let decision = rule.decide(Some(cell.arrival), shared::uptime_micros(), cost);
    if decision.allowed {
        cell.arrival = decision.arrival;
    }
    Some(decision)
}

/// Counts one more cell for the tenant, if it may have one; gives up its cells that are over, if that helps.
fn book_share(tenant: u64) -> Option<bool> {
    enum Booking {
        Done,
        Search,
        Full,
    }
    let most = settings::limiter_tenant_share();
    for searched in [false, true] {
        let now = shared::uptime_micros();
        let booking = with_shares(|table| {
            let Some(share) = table.find(u128::from(tenant)) else {
                let added = table.insert(Share { tenant, search_after: i64::MAX, used: 1 });
                return if added { Booking::Done } else { Booking::Full };
            };
            if share.used < most {
                share.used += 1;
                return Booking::Done;
            }
            if share.search_after <= now && !searched { Booking::Search } else { Booking::Full }
        })?;
        match booking {
            Booking::Done => return Some(true),
            Booking::Full => return Some(false),
            Booking::Search => give_up_over(tenant)?,
        }
    }
    Some(false)
}

/// Gives up the tenant's cells that are over, and notes when the next one will be.
fn give_up_over(tenant: u64) -> Option<()> {
    let mut removed = Vec::new();
    let mut next = i64::MAX;
    for partition in 0..PARTITIONS {
        CELLS.with(partition, |used, slots| {
            let now = shared::uptime_micros();
            Table::new(used, slots).sweep(|cell| {
                let over = cell.tenant == tenant && cell.arrival.is_over(now);
                if over {
                    removed.push(tenant);
                } else if cell.tenant == tenant {
                    next = next.min(cell.arrival.micros);
                }
                over
            });
        })?;
    }
    with_shares(|table| {
        if let Some(share) = table.find(u128::from(tenant)) {
            share.search_after = next;
        }
    })?;
    give_back(removed);
    Some(())
}

/// A new cell may be over before the others of its tenant.
fn note_cell(tenant: u64, decision: Decision) {
    with_shares(|table| {
        if let Some(share) = table.find(u128::from(tenant)) {
            share.search_after = share.search_after.min(decision.arrival.micros);
        }
    });
}

fn give_back(tenants: Vec<u64>) {
    if tenants.is_empty() {
        return;
    }
    with_shares(|table| {
        for tenant in tenants {
            if let Some(share) = table.find(u128::from(tenant)) {
                share.used -= 1;
                if share.used == 0 {
                    table.remove(u128::from(tenant));
                }
            }
        }
    });
}

fn with_shares<R>(work: impl FnOnce(&mut Table<Share>) -> R) -> Option<R> {
    SHARES.with(0, |used, slots| work(&mut Table::new(used, slots)))
}

/// 128 bits of HMAC-SHA-256 under the server's secret; each part with its length, so that none runs into the next.
fn hash(parts: &[&[u8]]) -> Option<u128> {
    thread_local! {
        static KEY: OnceCell<hmac::Key> = const { OnceCell::new() };
    }
    let secret = SECRET.get()?.first()?;
    KEY.with(|key| {
        let mut context = hmac::Context::with_key(key.get_or_init(|| hmac::Key::new(hmac::HMAC_SHA256, secret)));
        for part in parts {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        let tag = context.sign();
        let mut half = [0; 16];
        half.copy_from_slice(&tag.as_ref()[..16]);
        Some(u128::from_be_bytes(half))
    })
}

/// Made in the postmaster, whose children inherit nothing of the generator's state that could repeat it.
fn fresh_secret() -> [u8; 32] {
    let mut secret = [0; 32];
    secret[..16].copy_from_slice(uuid::Uuid::new_v4().as_bytes());
    secret[16..].copy_from_slice(uuid::Uuid::new_v4().as_bytes());
    secret
}
