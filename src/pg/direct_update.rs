//! A row found by its primary key and changed without a statement: see [`super::direct`].

use super::direct::{Table, close, datums, index, may_be_distributed, with_indexes};
use super::guard::{boundary, raw};
use super::sql::{Arg, Row};
use super::{Result, snapshot_is_kept};
use pgrx::pg_sys;
use pgrx::pg_sys::IndexAttrBitmapKind::{INDEX_ATTR_BITMAP_KEY, INDEX_ATTR_BITMAP_PRIMARY_KEY};
use uuid::Uuid;

/// What is to become of a row.
pub enum Change<'a, T> {
    /// New values, by the number of their column, counted from 1; and what to answer.
    Set(Vec<(i32, Arg<'a>)>, T),
    /// It stays as it is, and is not locked.
    Leave,
    /// It breaks a rule: a statement says which.
    Refuse,
}

/// What has become of it.
pub enum Changed<T> {
    /// It was changed and is locked to the end of the transaction.
    Done(T),
    /// There is no such row, or it was left; it is not locked.
    Left,
    /// Nothing was done; it takes a statement.
    NeedsStatement,
}

/// Changes the row whose primary key, the first column, is `key`. `change` is asked for each version of it that others
/// turn out to have replaced in the meantime; the last answer counts. Where others have it locked it is waited for, if it
/// `waits`, and left to a statement else.
pub fn update<'a, T>(
    table: &'static Table,
    key: Uuid,
    waits: bool,
    mut change: impl FnMut(&Row) -> Change<'a, T>,
) -> Result<Changed<T>> {
    // SAFETY: reads a variable of the session.
    if may_be_distributed() || snapshot_is_kept() || unsafe { pg_sys::XactReadOnly } {
        return Ok(Changed::NeedsStatement);
    }
    // SAFETY: C calls only. The relation stays open until it is closed below or an error's clean-up closes it.
    let relation = unsafe { boundary(|| open(table)) };
    if relation.is_null() {
        return Ok(Changed::NeedsStatement);
    }
    let outcome = loop {
        // SAFETY: C calls only; the row found is a copy in the current memory context.
        let found = unsafe { boundary(|| find(relation, key)) };
        if found.is_null() {
            break Changed::Left;
        }
        // SAFETY: the relation is open.
        let row = unsafe { Row::new(found, (*relation).rd_att) };
        let (values, answer) = match change(&row) {
            Change::Set(values, answer) => (values, answer),
            Change::Leave => break Changed::Left,
            Change::Refuse => break Changed::NeedsStatement,
        };
        let (data, nulls) = datums(values.iter().map(|(_, arg)| arg.datum()));
        // SAFETY: C calls and copies of plain values; nothing in the closure has a destructor.
        let result = unsafe {
            let values = std::ptr::from_ref(values.as_slice());
            let (data, nulls) = (data.as_ptr(), nulls.as_ptr());
            boundary(|| {
                let description = (*relation).rd_att;
                if are_in_foreign_keys(relation, (*values).iter().map(|(column, _)| *column)) {
                    return pg_sys::TM_Result::TM_Invisible;
                }
                let slot = raw::MakeSingleTupleTableSlot(description, &raw const pg_sys::TTSOpsVirtual);
                raw::heap_deform_tuple(found, description, (*slot).tts_values, (*slot).tts_isnull);
                for (at, (ordinal, _)) in (*values).iter().enumerate() {
                    *(*slot).tts_values.add(*ordinal as usize - 1) = *data.add(at);
                    *(*slot).tts_isnull.add(*ordinal as usize - 1) = *nulls.add(at);
                }
                raw::ExecStoreVirtualTuple(slot);
                let result = replace(relation, &raw mut (*found).t_self, slot, waits);
                raw::ExecDropSingleTupleTableSlot(slot);
                result
            })
        };
        match result {
            pg_sys::TM_Result::TM_Ok => break Changed::Done(answer),
            pg_sys::TM_Result::TM_Updated | pg_sys::TM_Result::TM_Deleted => {}
            _ => break Changed::NeedsStatement,
        }
    };
    // SAFETY: opened above.
    unsafe { boundary(|| close(relation)) };
    Ok(outcome)
}

/// Opens the table for writing; null where that takes a statement, or where the primary key is not the first column.
///
/// SAFETY of callers: in [`boundary`], and the relation is closed there.
unsafe fn open(table: &Table) -> pg_sys::Relation {
    // SAFETY: C calls only.
    unsafe {
        let relation = table.open();
        if relation.is_null() {
            return relation;
        }
        let key = raw::RelationGetIndexAttrBitmap(relation, INDEX_ATTR_BITMAP_PRIMARY_KEY);
        if pg_sys::bms_membership(key) == pg_sys::BMS_Membership::BMS_SINGLETON && is_member(1, key) {
            return relation;
        }
        close(relation);
        std::ptr::null_mut()
    }
}

/// Whether a foreign key may hang on one of the columns, or is made of one.
///
/// SAFETY of callers: an open relation; in [`boundary`].
unsafe fn are_in_foreign_keys(relation: pg_sys::Relation, mut columns: impl Iterator<Item = i32>) -> bool {
    // SAFETY: by the caller; both are copies, and the list is of what it is documented to be of.
    unsafe {
        let referenced = raw::RelationGetIndexAttrBitmap(relation, INDEX_ATTR_BITMAP_KEY);
        let own = raw::RelationGetFKeyList(relation);
        let count = if own.is_null() { 0 } else { (*own).length as usize };
        columns.any(|column| {
            is_member(column, referenced)
                || (0..count).any(|at| {
                    let key = &*(*(*own).elements.add(at)).ptr_value.cast::<pg_sys::ForeignKeyCacheInfo>();
                    key.conkey[..key.nkeys as usize].iter().any(|of_key| i32::from(*of_key) == column)
                })
        })
    }
}

/// SAFETY of callers: a set of columns as the relation cache makes it.
unsafe fn is_member(column: i32, columns: *mut pg_sys::Bitmapset) -> bool {
    // SAFETY: reads the set.
    unsafe { pg_sys::bms_is_member(column - pg_sys::FirstLowInvalidHeapAttributeNumber, columns) }
}

/// The row as of now, own changes included; null where there is none.
///
/// SAFETY of callers: an open relation whose primary key is its first column, a uuid; in [`boundary`].
unsafe fn find(relation: pg_sys::Relation, key: Uuid) -> pg_sys::HeapTuple {
    // SAFETY: C calls; the key outlives the scan.
    unsafe {
        raw::CommandCounterIncrement();
        raw::PushActiveSnapshot(raw::GetTransactionSnapshot());
        let mut wanted: pg_sys::ScanKeyData = std::mem::zeroed();
        raw::ScanKeyInit(
            &mut wanted,
            1,
            pg_sys::BTEqualStrategyNumber as pg_sys::StrategyNumber,
            pg_sys::F_UUID_EQ.into(),
            pg_sys::Datum::from(key.as_bytes().as_ptr()),
        );
        #[cfg(not(feature = "pg18"))]
        let primary_key = raw::RelationGetPrimaryKeyIndex(relation);
        #[cfg(feature = "pg18")]
        let primary_key = raw::RelationGetPrimaryKeyIndex(relation, false);
        let scan = raw::systable_beginscan(
            relation,
            primary_key,
            primary_key != pg_sys::Oid::INVALID,
            pg_sys::GetActiveSnapshot(),
            1,
            &mut wanted,
        );
        let seen = raw::systable_getnext(scan);
        let found = if seen.is_null() { seen } else { raw::heap_copytuple(seen) };
        raw::systable_endscan(scan);
        raw::PopActiveSnapshot();
        found
    }
}

/// Puts `slot` in the place of the version at `place`; if it `waits`, after whoever is changing it.
///
/// SAFETY of callers: an open plain relation, a place where a snapshot saw a row, a row; in [`boundary`].
unsafe fn replace(
    relation: pg_sys::Relation,
    place: pg_sys::ItemPointer,
    slot: *mut pg_sys::TupleTableSlot,
    waits: bool,
) -> pg_sys::TM_Result::Type {
    // SAFETY: by the caller; a heap has this function, and it reads neither snapshot.
    unsafe {
        raw::CheckCmdReplicaIdentity(relation, pg_sys::CmdType::CMD_UPDATE);
        let write = (*(*relation).rd_tableam).tuple_update.unwrap_unchecked();
        let mut failure = pg_sys::TM_FailureData::default();
        let mut lock = pg_sys::LockTupleMode::LockTupleNoKeyExclusive;
        let none = Default::default();
        let mut indexes = none;
        let result = write(
            relation,
            place,
            slot,
            pg_sys::GetCurrentCommandId(true),
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            waits,
            &mut failure,
            &mut lock,
            &mut indexes,
        );
        if result == pg_sys::TM_Result::TM_Ok {
            // None, that is: a heap-only tuple.
            if indexes != none {
                #[cfg(any(feature = "pg14", feature = "pg15"))]
                let summing_only = false;
                #[cfg(not(any(feature = "pg14", feature = "pg15")))]
                let summing_only = indexes == pg_sys::TU_UpdateIndexes::TU_Summarizing;
                with_indexes(relation, |target, estate| index(target, estate, slot, true, summing_only));
            }
            raw::CommandCounterIncrement();
        }
        result
    }
}
