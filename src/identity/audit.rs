//! Refused logins, in the server's log: a row would be rolled back with the transaction that failed.
//!
//! One line a refusal, at most [`BURST`] and then one a second for each backend, so that a storm fills no disk; what
//! was left out is counted in the next line. The issuer and the key id are the bearer's words: shortened and escaped.

use super::jose::{Claims, Token};
use super::refusal::Refusal;
use crate::pg;
use serde_json::json;
use std::cell::Cell;

const BURST: i64 = 20;
const SECOND: i64 = 1_000_000;
/// Characters kept of what a bearer wrote.
const MAX_WORD: usize = 100;

#[derive(Clone, Copy)]
struct Budget {
    lines: i64,
    filled_at: i64,
    suppressed: u64,
}

thread_local! {
    static BUDGET: Cell<Budget> = const { Cell::new(Budget { lines: BURST, filled_at: 0, suppressed: 0 }) };
}

/// Notes a refusal.
pub fn refused(token: &str, refusal: &Refusal) {
    let Some(suppressed) = take(pg::now_micros()) else { return };
    let parsed = Token::parse(token).ok();
    let kid = parsed.as_ref().and_then(|token| token.header().kid.as_deref().map(short));
    let issuer = parsed
        .as_ref()
        .and_then(|token| Claims::parse(token.payload()).ok())
        .and_then(|claims| claims.issuer().map(short));
    let line = json!({"reason": refusal.reason(), "issuer": issuer, "kid": kid, "suppressed": suppressed});
    pg::log(&format!("pg_tenancy: authentication refused {line}"));
}

/// Notes the refusal of an API key, by the key's internal id where it is known.
pub fn refused_api_key(reason: &str, key_id: Option<uuid::Uuid>) {
    let Some(suppressed) = take(pg::now_micros()) else { return };
    let line = json!({"reason": reason, "key_id": key_id, "suppressed": suppressed});
    pg::log(&format!("pg_tenancy: API key refused {line}"));
}

/// Takes one line from the budget; gives how many were left out before it.
fn take(now: i64) -> Option<u64> {
    let mut budget = BUDGET.get();
    let seconds = (now - budget.filled_at).max(0) / SECOND;
    if seconds > 0 {
        budget.lines = (budget.lines + seconds).min(BURST);
        budget.filled_at = now;
    }
    let granted = if budget.lines > 0 {
        budget.lines -= 1;
        Some(std::mem::take(&mut budget.suppressed))
    } else {
        budget.suppressed += 1;
        None
    };
    BUDGET.set(budget);
    granted
}

fn short(text: &str) -> String {
    text.chars().take(MAX_WORD).collect()
}

#[cfg(test)]
mod tests {
    use super::{BURST, SECOND, take};

    #[test]
    fn a_storm_is_cut_to_its_burst_and_counted() {
        let start = 1_000 * SECOND;
        let granted = (0..1_000).filter_map(|_| take(start)).count();
        assert_eq!(granted as i64, BURST);
        assert_eq!(take(start + SECOND), Some(1_000 - BURST as u64));
        assert_eq!(take(start + SECOND), None);
    }
}
