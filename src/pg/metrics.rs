//! Counters in shared memory: no row is written and no lock is taken for one more.
//!
//! Each tenant of a database has a slot with every series, up to a bound; what comes later is counted as tenant
//! `other`, and so is a tenant of that name. What belongs to no tenant (a refused token) is counted under the empty one.
//! Without preload there is no memory, and counting does nothing. Counts are not undone by a rollback: what was refused
//! was refused.

use super::metric_reasons::{DENIALS, REFUSALS};
use super::shared::SharedSlice;
use super::{current_tenant, database_oid, limit_settings};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU32, AtomicU64};

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Series<'a> {
    /// An identity was sealed.
    Authenticated,
    /// None was, for this reason.
    Refused(&'a str),
    /// A charge.
    Debit,
    /// Millionths of a credit that were charged.
    DebitedMicros,
    /// An outcome PT402 to PT429, by its reason.
    Denied(&'a str),
    /// A rate limit was asked: `allowed`, `denied` or `full`.
    RateLimit(&'static str),
    /// A look-up in a backend's cache: which cache, and whether it was there.
    Cache(&'static str, bool),
    /// Tokens of language models: `input` or `output`.
    LlmTokens(&'static str),
}

/// A time that was measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timer {
    /// `tenancy.authenticate`, from call to return.
    Authentication,
    /// Calls of language models, as recorded.
    Llm,
}

const DECISIONS: [&str; 3] = ["allowed", "denied", "full"];
const CACHES: [&str; 2] = ["token", "rate_limit"];
const DIRECTIONS: [&str; 2] = ["input", "output"];

/// Upper bounds of the histograms' buckets in microseconds; the last bucket has none.
const AUTHENTICATION_BOUNDS: [u64; 9] = [10, 25, 50, 100, 250, 500, 1_000, 5_000, 25_000];
const LLM_BOUNDS: [u64; 9] =
    [100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000, 10_000_000, 30_000_000, 60_000_000];
const BUCKETS: usize = 10;

const REFUSED_AT: usize = 1;
const DEBIT_AT: usize = REFUSED_AT + REFUSALS.len();
const DENIED_AT: usize = DEBIT_AT + 2;
const DECISIONS_AT: usize = DENIED_AT + DENIALS.len();
const CACHES_AT: usize = DECISIONS_AT + DECISIONS.len();
const TOKENS_AT: usize = CACHES_AT + 2 * CACHES.len();
/// Each histogram: its buckets, then the sum in microseconds.
const TIMERS_AT: usize = TOKENS_AT + DIRECTIONS.len();
const VALUES: usize = TIMERS_AT + 2 * (BUCKETS + 1);

/// Bytes of a tenant's id that are kept; a longer one (none that can be registered) counts as `other`.
const NAME: usize = 1024;
/// Slots for what has no tenant, and for the rest, in each database.
const RESERVED: usize = 64;
/// The name under which the rest is summed; no tenant id begins with a control character.
const REST: &str = "\u{1}other";
/// What it is called outside. A tenant of that name is one of the rest: the same labels must not stand twice.
const OTHER: &str = "other";

struct Slot {
    database: AtomicU32,
    /// Bytes of the name, and one; 0: free. Written last.
    length: AtomicU32,
    name: [AtomicU64; NAME / 8],
    values: [AtomicU64; VALUES],
}

static SLOTS: SharedSlice<Slot> = SharedSlice::new(c"pg_tenancy metrics", || Slot {
    database: AtomicU32::new(0),
    length: AtomicU32::new(0),
    name: [const { AtomicU64::new(0) }; NAME / 8],
    values: [const { AtomicU64::new(0) }; VALUES],
});

/// Asks for the memory, when the server starts.
pub(super) fn request() {
    if super::shared::is_preloading() {
        SLOTS.request(limit_settings::metrics_tenants() + RESERVED);
    }
}

/// Counts `by` for the identity's tenant.
pub fn count(series: Series, by: u64) {
    if SLOTS.get().is_some() {
        count_for(&current_tenant().unwrap_or_default(), series, by);
    }
}

/// Counts `by` for a tenant; the empty one where there is none.
pub fn count_for(tenant: &str, series: Series, by: u64) {
    if let Some(slot) = slot_of(tenant) {
        slot.values[index(series)].fetch_add(by, Relaxed);
    }
}

/// Counts an outcome of the business, by its SQLSTATE: PT401, or PT403 for what a token claims, is nobody's identity;
/// the other PT states are denials.
pub fn count_refusal(sqlstate: &str, reason: &str) {
    match sqlstate {
        "PT401" => count(Series::Refused(reason), 1),
        "PT403" if REFUSALS.contains(&reason) => count(Series::Refused(reason), 1),
        state if state.starts_with("PT4") => count(Series::Denied(reason), 1),
        _ => {}
    }
}

/// Adds one measured time, for the identity's tenant.
pub fn observe(timer: Timer, micros: u64) {
    if SLOTS.get().is_some()
        && let Some(slot) = slot_of(&current_tenant().unwrap_or_default())
    {
        slot.observe(timer, micros);
    }
}

/// Counts an identity that was sealed, and adds the time it took.
pub fn authenticated(tenant: &str, micros: u64) {
    if let Some(slot) = slot_of(tenant) {
        slot.values[index(Series::Authenticated)].fetch_add(1, Relaxed);
        slot.observe(Timer::Authentication, micros);
    }
}

/// A figure of this database, as OpenMetrics names it; its last label is `le` in a histogram's bucket.
pub struct Figure {
    pub name: &'static str,
    pub kind: &'static str,
    pub labels: Vec<Label>,
    pub value: f64,
}

/// The tenants of this database that are counted by name.
pub fn tenants() -> Vec<String> {
    own_slots().into_iter().map(|(name, _)| name).filter(|name| !name.is_empty() && name != REST).collect()
}

/// Every figure of this database, family by family.
pub fn figures() -> Vec<Figure> {
    let slots = own_slots();
    let mut figures = Vec::new();
    for (family, at, labels) in counters() {
        for (tenant, slot) in &slots {
            let value = slot.values[at].load(Relaxed);
            if value == 0 {
                continue;
            }
            let mut labels = labels.clone();
            labels.insert(0, ("tenant", label(tenant)));
            let scale = if family == "pg_tenancy_debited_credits_total" { 1e6 } else { 1.0 };
            figures.push(Figure { name: family, kind: "counter", labels, value: value as f64 / scale });
        }
    }
    for (names, timer) in [
        (
            [
                "pg_tenancy_authentication_seconds_bucket",
                "pg_tenancy_authentication_seconds_sum",
                "pg_tenancy_authentication_seconds_count",
            ],
            Timer::Authentication,
        ),
        (
            [
                "pg_tenancy_llm_latency_seconds_bucket",
                "pg_tenancy_llm_latency_seconds_sum",
                "pg_tenancy_llm_latency_seconds_count",
            ],
            Timer::Llm,
        ),
    ] {
        for (tenant, slot) in &slots {
            histogram(&mut figures, names, timer, tenant, slot);
        }
    }
    figures
}

fn histogram(figures: &mut Vec<Figure>, names: [&'static str; 3], timer: Timer, tenant: &str, slot: &Slot) {
    let (start, bounds) = timer_layout(timer);
    let mut seen = 0;
    let mut buckets = Vec::new();
    for bucket in 0..BUCKETS {
        seen += slot.values[start + bucket].load(Relaxed);
        let le = bounds.get(bucket).map_or("+Inf".to_owned(), |bound| format!("{:?}", *bound as f64 / 1e6));
        buckets.push((le, seen));
    }
    if seen == 0 {
        return;
    }
    let mut push = |name, le: Option<String>, value: f64| {
        let mut labels = vec![("tenant", label(tenant))];
        labels.extend(le.map(|le| ("le", le)));
        figures.push(Figure { name, kind: "histogram", labels, value });
    };
    for (le, count) in buckets {
        push(names[0], Some(le), count as f64);
    }
    push(names[1], None, slot.values[start + BUCKETS].load(Relaxed) as f64 / 1e6);
    push(names[2], None, seen as f64);
}

/// A label's name and value.
type Label = (&'static str, String);

/// Every counter: its family, its place in a slot, its labels.
fn counters() -> Vec<(&'static str, usize, Vec<Label>)> {
    let with = |label: &'static str, value: &str| (label, value.to_owned());
    let mut all = vec![("pg_tenancy_authentications_total", 0, vec![with("outcome", "accepted"), with("reason", "")])];
    for (at, reason) in REFUSALS.iter().enumerate() {
        let labels = vec![with("outcome", "refused"), with("reason", reason)];
        all.push(("pg_tenancy_authentications_total", REFUSED_AT + at, labels));
    }
    all.push(("pg_tenancy_debits_total", DEBIT_AT, vec![]));
    all.push(("pg_tenancy_debited_credits_total", DEBIT_AT + 1, vec![]));
    for (at, reason) in DENIALS.iter().enumerate() {
        all.push(("pg_tenancy_denials_total", DENIED_AT + at, vec![with("reason", reason)]));
    }
    for (at, decision) in DECISIONS.iter().enumerate() {
        all.push(("pg_tenancy_rate_limit_decisions_total", DECISIONS_AT + at, vec![with("decision", decision)]));
    }
    for (at, cache) in CACHES.iter().enumerate() {
        for (miss, result) in ["hit", "miss"].iter().enumerate() {
            let labels = vec![with("cache", cache), with("result", result)];
            all.push(("pg_tenancy_cache_requests_total", CACHES_AT + 2 * at + miss, labels));
        }
    }
    for (at, direction) in DIRECTIONS.iter().enumerate() {
        all.push(("pg_tenancy_llm_tokens_total", TOKENS_AT + at, vec![with("direction", direction)]));
    }
    all
}

fn index(series: Series) -> usize {
    let place = |list: &[&str], word: &str| list.iter().position(|known| *known == word).unwrap_or(list.len() - 1);
    match series {
        Series::Authenticated => 0,
        Series::Refused(reason) => REFUSED_AT + place(&REFUSALS, reason),
        Series::Debit => DEBIT_AT,
        Series::DebitedMicros => DEBIT_AT + 1,
        Series::Denied(reason) => DENIED_AT + place(&DENIALS, reason),
        Series::RateLimit(decision) => DECISIONS_AT + place(&DECISIONS, decision),
        Series::Cache(cache, hit) => CACHES_AT + 2 * place(&CACHES, cache) + usize::from(!hit),
        Series::LlmTokens(direction) => TOKENS_AT + place(&DIRECTIONS, direction),
    }
}

fn timer_layout(timer: Timer) -> (usize, &'static [u64; 9]) {
    match timer {
        Timer::Authentication => (TIMERS_AT, &AUTHENTICATION_BOUNDS),
        Timer::Llm => (TIMERS_AT + BUCKETS + 1, &LLM_BOUNDS),
    }
}

fn label(tenant: &str) -> String {
    if tenant == REST { OTHER.to_owned() } else { tenant.to_owned() }
}

fn own_slots() -> Vec<(String, &'static Slot)> {
    let database = database_oid();
    let mut own: Vec<(String, &'static Slot)> = SLOTS
        .get()
        .unwrap_or_default()
        .iter()
        .filter_map(|slot| {
            let length = slot.length.load(Acquire);
            (length > 0 && slot.database.load(Relaxed) == database).then(|| (slot.read_name(length as usize - 1), slot))
        })
        .collect();
    own.sort_by(|one, other| one.0.cmp(&other.0));
    own
}

/// The slot a tenant is counted in, found once a backend.
fn slot_of(tenant: &str) -> Option<&'static Slot> {
    const MOST_KNOWN: usize = 4096;
    thread_local! {
        static KNOWN: RefCell<HashMap<String, usize>> = RefCell::default();
        /// The slot of what has no tenant: each look-up in a cache is counted there.
        static NOBODYS: Cell<Option<usize>> = const { Cell::new(None) };
    }
    let slots = SLOTS.get()?;
    let tenant = if tenant == OTHER { REST } else { tenant };
    let known = match tenant {
        "" => NOBODYS.get(),
        tenant => KNOWN.with_borrow(|known| known.get(tenant).copied()),
    };
    if let Some(at) = known {
        return slots.get(at);
    }
    let at = find(slots, tenant).or_else(|| claim(tenant)).or_else(|| find(slots, REST)).or_else(|| claim(REST))?;
    if tenant.is_empty() {
        NOBODYS.set(Some(at));
        return slots.get(at);
    }
    KNOWN.with_borrow_mut(|known| {
        if known.len() >= MOST_KNOWN {
            known.clear();
        }
        known.insert(tenant.to_owned(), at);
    });
    slots.get(at)
}

fn find(slots: &[Slot], tenant: &str) -> Option<usize> {
    let database = database_oid();
    slots.iter().position(|slot| {
        slot.length.load(Acquire) as usize == tenant.len() + 1
            && slot.database.load(Relaxed) == database
            && slot.read_name(tenant.len()) == tenant
    })
}

/// Takes a free slot; none where as many tenants as may be have one.
fn claim(tenant: &str) -> Option<usize> {
    if tenant.len() > NAME {
        return None;
    }
    let named = |tenant: &str| !tenant.is_empty() && tenant != REST;
    SLOTS.locked(|slots| {
        if let Some(at) = find(slots, tenant) {
            return Some(at);
        }
        let taken = slots.iter().filter(|slot| {
            let length = slot.length.load(Relaxed) as usize;
            length > 0 && named(&slot.read_name(length - 1))
        });
        if named(tenant) && taken.count() >= limit_settings::metrics_tenants() {
            return None;
        }
        let at = slots.iter().position(|slot| slot.length.load(Relaxed) == 0)?;
        slots[at].write_name(tenant);
        Some(at)
    })?
}

impl Slot {
    fn observe(&self, timer: Timer, micros: u64) {
        let (start, bounds) = timer_layout(timer);
        let bucket = bounds.iter().position(|bound| micros <= *bound).unwrap_or(bounds.len());
        self.values[start + bucket].fetch_add(1, Relaxed);
        self.values[start + BUCKETS].fetch_add(micros, Relaxed);
    }

    fn read_name(&self, length: usize) -> String {
        let bytes = self.name.iter().flat_map(|word| word.load(Relaxed).to_ne_bytes()).take(length).collect();
        String::from_utf8(bytes).unwrap_or_default()
    }

    fn write_name(&self, tenant: &str) {
        for (word, bytes) in self.name.iter().zip(tenant.as_bytes().chunks(8)) {
            let mut whole = [0; 8];
            whole[..bytes.len()].copy_from_slice(bytes);
            word.store(u64::from_ne_bytes(whole), Relaxed);
        }
        self.database.store(database_oid(), Relaxed);
        self.length.store(tenant.len() as u32 + 1, Release);
    }
}
