//! Work that is done for somebody. Nearly all of it is SQL (sql/batches/); here is what SQL cannot ask.

use crate::pg;
use crate::pg::sql::{self, Mode};
use pgrx::pg_extern;
use uuid::Uuid;

/// Whether another tenant has a batch of that id, by what is committed at this moment.
#[pg_extern(name = "_is_batch_of_another_tenant", stable, parallel_restricted)]
fn is_batch_of_another_tenant(tenant_id: &str, batch_id: pgrx::Uuid) -> bool {
    pg::entry(|| {
        let found = sql::query_opt(
            "SELECT 1 FROM tenancy.batches AS b WHERE b.batch_id = $2 AND b.tenant_id <> $1",
            &[tenant_id.into(), Uuid::from_bytes(*batch_id.as_bytes()).into()],
            Mode::ReadLatest,
            |_| Ok(()),
        )?;
        Ok(found.is_some())
    })
}
