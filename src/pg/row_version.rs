//! A row as this backend read it, and whether it still stands so: what makes a cache of rows exact.
//!
//! Looking at a known place costs a small part of a statement that searches for the row. The row is the same if a
//! snapshot taken now sees, at that place, the same version with the same bytes; a row that was changed, moved or
//! deleted is not, and is read again by whoever asked.

use super::Result;
use super::guard::{boundary, raw};
use super::sql::Row;
use pgrx::pg_sys::{self, Oid};

/// One version of one row.
#[derive(Clone, Debug)]
pub struct RowVersion {
    table: Oid,
    place: pg_sys::ItemPointerData,
    xmin: pg_sys::TransactionId,
    /// Everything behind the header's fixed part.
    bytes: Box<[u8]>,
}

impl RowVersion {
    /// The version whose `tableoid`, `ctid` and `xmin` a statement gave in three columns from `ordinal` on; none where
    /// they are NULL, or the row has changed since.
    pub fn of(row: &Row, ordinal: i32) -> Result<Option<Self>> {
        let columns = row.datum(ordinal).zip(row.datum(ordinal + 1)).zip(row.datum(ordinal + 2));
        let Some(((table, place), xmin)) = columns else { return Ok(None) };
        let table = Oid::from(table.value() as u32);
        // SAFETY: a ctid is a pointer to six bytes in the statement's memory.
        let place = unsafe { *place.cast_mut_ptr::<pg_sys::ItemPointerData>() };
        // SAFETY: C calls only in the boundary; the bytes are in the current memory context.
        let found = unsafe {
            boundary(|| {
                raw::PushActiveSnapshot(raw::GetTransactionSnapshot());
                let found = fetch(table, place);
                raw::PopActiveSnapshot();
                found
            })
        };
        let version = found.map(|(found_xmin, bytes)| {
            // SAFETY: `fetch` gives a valid slice in palloc'd memory, copied at once.
            let bytes = unsafe { &*bytes }.into();
            (found_xmin, Self { table, place, xmin: found_xmin, bytes })
        });
        let xmin = xmin.value() as u32;
        Ok(version.filter(|(found, _)| found.into_inner() == xmin).map(|(_, version)| version))
    }

    /// Whether these rows stand unchanged, as of now. For READ COMMITTED: the transaction's snapshot is taken anew.
    pub fn all_stand(versions: &[Self]) -> Result<bool> {
        // SAFETY: C calls and comparisons only; nothing in the closure has a destructor.
        Ok(unsafe {
            boundary(|| {
                raw::PushActiveSnapshot(raw::GetTransactionSnapshot());
                let all = versions.iter().all(|version| {
                    fetch(version.table, version.place)
                        .is_some_and(|(xmin, bytes)| xmin == version.xmin && *bytes == *version.bytes)
                });
                raw::PopActiveSnapshot();
                all
            })
        })
    }
}

/// What the active snapshot sees at a place of a table, copied to the current memory context. The table's lock is kept
/// to the end of the transaction, as a statement's is.
///
/// SAFETY of callers: in [`boundary`], with an active snapshot.
unsafe fn fetch(table: Oid, mut place: pg_sys::ItemPointerData) -> Option<(pg_sys::TransactionId, *const [u8])> {
    // SAFETY: the relation is open while its fields are read; the slot is dropped before it is closed.
    unsafe {
        let relation = raw::try_relation_open(table, pg_sys::AccessShareLock as pg_sys::LOCKMODE);
        if relation.is_null() {
            return None;
        }
        let mut found = None;
        if (*(*relation).rd_rel).relkind as u8 == pg_sys::RELKIND_RELATION
            && let Some(fetch_version) = (*(*relation).rd_tableam).tuple_fetch_row_version
        {
            let slot = raw::MakeSingleTupleTableSlot((*relation).rd_att, raw::table_slot_callbacks(relation));
            if fetch_version(relation, &mut place, pg_sys::GetActiveSnapshot(), slot) {
                let tuple = raw::ExecFetchSlotHeapTuple(slot, false, std::ptr::null_mut());
                let header = (*tuple).t_data;
                let fixed = std::mem::offset_of!(pg_sys::HeapTupleHeaderData, t_bits);
                let length = (*tuple).t_len as usize - fixed;
                let copy = raw::palloc(length).cast::<u8>();
                std::ptr::copy_nonoverlapping(header.cast::<u8>().add(fixed), copy, length);
                let bytes = std::ptr::slice_from_raw_parts(copy.cast_const(), length);
                found = Some(((*header).t_choice.t_heap.t_xmin, bytes));
            }
            raw::ExecDropSingleTupleTableSlot(slot);
        }
        raw::relation_close(relation, pg_sys::NoLock as pg_sys::LOCKMODE);
        found
    }
}
