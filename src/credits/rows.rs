//! Deductions as the ledger has them: written by one function, one of a call or many of a batch.

use super::amount::Credits;
use super::attribution::{self, Attribution};
use super::payer::Payer;
use super::sound::deduction_is_sound;
use super::tables::LEDGER;
use crate::pg::sql::{self, Arg};
use crate::pg::{Jsonb, Result, direct};
use std::rc::Rc;
use uuid::Uuid;

/// A deduction on its way into the ledger.
pub struct Row<'a> {
    pub payer: Payer,
    pub attribution: Rc<Attribution>,
    pub id: Uuid,
    pub seq: i64,
    pub amount: Credits,
    pub description: Option<&'a str>,
    pub reference_id: Option<&'a str>,
    /// The caller's metadata with the server's keys over it; none where the caller has none.
    pub merged: Option<Jsonb>,
    pub balance_after: i64,
    pub granted_after: i128,
    pub drawn_after: i128,
    pub at: i64,
}

/// The caller's metadata with the server's keys over it. A personal charge has none of the keys that would claim an
/// organization, whatever the caller wrote.
pub fn merge(payer: &Payer, own: Option<&Jsonb>, attribution: &Attribution) -> Result<Option<Jsonb>> {
    let personal = own.filter(|_| payer.organization.is_none());
    let claimless = personal.map(attribution::without_claims).transpose()?.flatten();
    claimless.as_ref().or(own).map(|own| own.overlaid(&attribution.metadata)).transpose()
}

impl Row<'_> {
    /// What is written as metadata.
    pub fn metadata(&self) -> &Jsonb {
        self.merged.as_ref().unwrap_or(&self.attribution.metadata)
    }

    /// What the ledger's constraint asks of a deduction.
    fn is_sound(&self) -> bool {
        deduction_is_sound(self.seq, -i128::from(self.amount.micros()), self.balance_after.into())
    }

    fn values<'v>(&'v self, correlation_id: Option<&'v str>) -> [Arg<'v>; 21] {
        [
            self.payer.pool().into(),
            self.id.into(),
            Arg::Long(Some(self.seq)),
            self.attribution.tenant.as_str().into(),
            Arg::Uuid(self.payer.organization),
            self.payer.user.into(),
            Arg::Uuid(self.attribution.seat),
            Arg::Uuid(self.attribution.subscription),
            Arg::Micros(Some(-i128::from(self.amount.micros()))),
            "deduction".into(),
            Arg::Text(self.description),
            Arg::Text(self.reference_id),
            Arg::Jsonb(Some(self.metadata())),
            Arg::Micros(Some(self.balance_after.into())),
            Arg::Micros(Some(self.granted_after)),
            Arg::Micros(Some(self.drawn_after)),
            Arg::Uuid(None),
            Arg::Uuid(None),
            Arg::Uuid(None),
            Arg::Text(correlation_id),
            Arg::Time(Some(self.at)),
        ]
    }
}

/// Writes them, in this order.
pub fn write(rows: &[Row], correlation_id: Option<&str>) -> Result<()> {
    let values: Vec<[Arg; 21]> = rows.iter().map(|row| row.values(correlation_id)).collect();
    if rows.iter().all(Row::is_sound) && direct::insert(&LEDGER, &values)? {
        return Ok(());
    }
    // The same by a statement, where a user has changed the table.
    for values in &values {
        sql::execute(
            "INSERT INTO tenancy.credit_transactions
                 (pool_id, id, seq, tenant_id, organization_id, user_id, seat_id, subscription_id, credits_amount,
                  operation_type, description, reference_id, metadata, balance_after, granted_after, drawn_after,
                  grant_id, hold_id, refund_of, correlation_id, created_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21)",
            values,
        )?;
    }
    Ok(())
}
