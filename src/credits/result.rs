//! `tenancy.deduction`: what every function that charges returns.

use super::debit::{Charge, Charged};
use crate::pg::sql::Arg;
use crate::pg::{Fields, Jsonb};
use std::ffi::CStr;
use uuid::Uuid;

/// One charge, capture or refund, or one that a batch did not make.
#[derive(Clone, Debug, Default)]
pub struct Deduction {
    pub transaction_id: Option<Uuid>,
    /// `charged`, `captured` or `refunded`; in a batch also the reason of a refusal.
    pub status: &'static str,
    /// The answer of an earlier call with the same idempotency key.
    pub replayed: bool,
    /// `organization` or `personal`.
    pub pool: Option<&'static str>,
    pub charged: Option<i64>,
    pub balance_after: Option<i64>,
    pub held_after: Option<i64>,
    pub metadata: Option<Jsonb>,
}

impl Deduction {
    /// A charge that was made just now.
    pub fn new(charge: &Charge, charged: Charged) -> Self {
        Self {
            transaction_id: Some(charged.transaction_id),
            status: "charged",
            replayed: false,
            pool: Some(charge.payer.pool_word()),
            charged: Some(charge.amount.micros()),
            balance_after: Some(charged.balance_after),
            held_after: Some(charged.held_after),
            metadata: charged.metadata,
        }
    }
}

impl Fields for Deduction {
    const NAME: &'static CStr = c"deduction";
    const SQL: &'static str = "tenancy.deduction";

    fn fields(&self) -> Vec<Arg<'_>> {
        let micros = |value: Option<i64>| Arg::Micros(value.map(i128::from));
        vec![
            Arg::Uuid(self.transaction_id),
            Arg::Text(Some(self.status)),
            Arg::Bool(Some(self.replayed)),
            Arg::Text(self.pool),
            micros(self.charged),
            micros(self.balance_after),
            micros(self.held_after),
            Arg::Jsonb(self.metadata.as_ref()),
        ]
    }
}
