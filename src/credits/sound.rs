//! What must hold in every row of the pools and of the ledger, as functions that their CHECK constraints call.
//!
//! Postgres reads a constraint's stored expression anew in every statement that writes the table; spelled out in SQL
//! these rules cost a debit a third of its time. A NULL where a figure must stand is no row that holds.

use crate::pg::Decimal;
use pgrx::{Uuid, pg_extern};

fn micros(value: Option<Decimal>) -> Option<i128> {
    match value? {
        Decimal::Micros(micros) => Some(micros),
        _ => None,
    }
}

/// A pool: one owner, who gives it its id, and figures that fit together.
#[pg_extern(name = "_is_sound_pool", immutable, parallel_safe)]
#[allow(clippy::too_many_arguments)]
fn is_sound_pool(
    pool_id: Option<Uuid>,
    organization_id: Option<Uuid>,
    user_id: Option<Uuid>,
    balance: Option<Decimal>,
    held: Option<Decimal>,
    granted_total: Option<Decimal>,
    drawn_total: Option<Decimal>,
    burned_total: Option<Decimal>,
) -> bool {
    let owner = match (organization_id, user_id) {
        (Some(owner), None) | (None, Some(owner)) => Some(owner),
        _ => None,
    };
    let figures = || {
        let (balance, held) = (micros(balance)?, micros(held)?);
        let (granted, drawn, burned) = (micros(granted_total)?, micros(drawn_total)?, micros(burned_total)?);
        Some(figures_are_sound(balance, held, granted, drawn, burned))
    };
    owner.is_some() && owner == pool_id && figures() == Some(true)
}

/// The figures of a pool; the rest of its constraint holds for as long as nobody changes whose it is.
pub fn figures_are_sound(balance: i128, held: i128, granted: i128, drawn: i128, burned: i128) -> bool {
    0 <= held && held <= balance && balance <= granted && 0 <= burned && burned <= drawn
}

/// A deduction's entry, by someone who says what was drawn.
pub fn deduction_is_sound(seq: i64, amount: i128, balance_after: i128) -> bool {
    seq > 0 && amount < 0 && balance_after >= 0
}

/// An entry of the ledger: numbered, with the sign and the references its kind has, and a balance that can be.
#[pg_extern(name = "_is_sound_entry", immutable, parallel_safe)]
#[allow(clippy::too_many_arguments)]
fn is_sound_entry(
    operation_type: Option<&str>,
    seq: Option<i64>,
    credits_amount: Option<Decimal>,
    balance_after: Option<Decimal>,
    drawn_after: Option<Decimal>,
    user_id: Option<Uuid>,
    grant_id: Option<Uuid>,
    refund_of: Option<Uuid>,
) -> bool {
    let Some((amount, balance)) = micros(credits_amount).zip(micros(balance_after)) else { return false };
    let kind = match operation_type {
        Some("deduction") => amount < 0 && user_id.is_some() && drawn_after.is_some(),
        Some("grant" | "rollover") => amount > 0 && grant_id.is_some(),
        Some("refund") => amount > 0 && refund_of.is_some(),
        Some("expiry") => amount < 0 && grant_id.is_some(),
        Some("adjustment") => amount != 0,
        _ => false,
    };
    kind && seq > Some(0) && balance >= 0 && balance >= amount
}
