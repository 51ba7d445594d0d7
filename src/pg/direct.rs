//! Rows put into a plain table without a statement: what the executor does for an INSERT, less its preparation.
//!
//! Constraints are checked and indexes kept as ever, by the function that logical replication applies rows with. What
//! only a statement does (triggers, rules, row-level security, defaults of columns we do not know, distributed tables)
//! is left to a statement: where the table has any of it, [`insert`] says so and does nothing.

use super::guard::{boundary, raw};
use super::sql::Arg;
use super::{Result, invalidation};
use pgrx::pg_sys::{self, Datum, Oid};
use std::cell::Cell;
use std::ffi::CStr;

thread_local! {
    /// Whether the tables may be distributed, and the epoch in which that was looked up.
    static DISTRIBUTED: Cell<(u64, bool)> = const { Cell::new((0, false)) };
}

/// Inserts rows into the table of ours of that name, which must have exactly these columns, in this order; the rows'
/// values are of the same types. False, and nothing inserted, where that takes a statement.
pub fn insert<const N: usize>(table: &'static CStr, columns: &[&'static CStr; N], rows: &[[Arg; N]]) -> Result<bool> {
    let Some(first) = rows.first() else { return Ok(true) };
    if may_be_distributed() {
        return Ok(false);
    }
    let mut values: Vec<Datum> = Vec::with_capacity(N * rows.len());
    let mut nulls: Vec<bool> = Vec::with_capacity(N * rows.len());
    for arg in rows.iter().flatten() {
        let datum = arg.datum();
        nulls.push(datum.is_none());
        values.push(datum.unwrap_or(Datum::from(0)));
    }
    let (values, nulls) = (values.as_slice(), nulls.as_slice());
    // SAFETY: C calls and reads of an open relation; nothing in the closure has a destructor. What an error leaves open
    // the (sub)transaction's clean-up closes.
    Ok(unsafe {
        boundary(|| {
            let schema = raw::get_namespace_oid(c"tenancy".as_ptr(), true);
            let oid = raw::get_relname_relid(table.as_ptr(), schema);
            let relation = raw::try_relation_open(oid, pg_sys::RowExclusiveLock as pg_sys::LOCKMODE);
            if relation.is_null() {
                return false;
            }
            let plain = is_plain(relation, columns, first);
            if plain {
                put(relation, values, nulls, N);
            }
            raw::relation_close(relation, pg_sys::NoLock as pg_sys::LOCKMODE);
            plain
        })
    })
}

/// Whether Citus is here, to which a table's rows may belong that is local to the eye.
fn may_be_distributed() -> bool {
    let epoch = invalidation::epoch();
    let (known, answer) = DISTRIBUTED.get();
    if known == epoch {
        return answer;
    }
    // SAFETY: a look-up in the catalog.
    let citus = unsafe { boundary(|| raw::get_extension_oid(c"citus".as_ptr(), true)) };
    DISTRIBUTED.set((epoch, citus != Oid::INVALID));
    citus != Oid::INVALID
}

/// Whether the table has these columns and nothing that takes a statement.
///
/// SAFETY of callers: an open relation, in [`boundary`].
unsafe fn is_plain(relation: pg_sys::Relation, columns: &[&CStr], first: &[Arg]) -> bool {
    // SAFETY: reads fields of an open relation.
    unsafe {
        let (form, description) = ((*relation).rd_rel, (*relation).rd_att);
        if (*form).relkind as u8 != pg_sys::RELKIND_RELATION
            || (*form).relispartition
            || !(*relation).trigdesc.is_null()
            || !(*relation).rd_rules.is_null()
            || (*description).natts as usize != columns.len()
            || raw::check_enable_rls((*relation).rd_id, Oid::INVALID, true)
                == pg_sys::CheckEnableRlsResult::RLS_ENABLED as i32
        {
            return false;
        }
        #[cfg(not(feature = "pg18"))]
        let attributes = (*description).attrs.as_ptr();
        #[cfg(feature = "pg18")]
        let attributes = (*description)
            .compact_attrs
            .as_ptr()
            .add((*description).natts as usize)
            .cast::<pg_sys::FormData_pg_attribute>();
        columns.iter().zip(first).enumerate().all(|(index, (name, arg))| {
            let attribute = attributes.add(index);
            !(*attribute).attisdropped
                && (*attribute).attgenerated == 0
                && (*attribute).atttypid == arg.type_oid()
                && CStr::from_ptr((*attribute).attname.data.as_ptr()) == *name
        })
    }
}

/// SAFETY of callers: an open plain relation with `count` columns, whose values stand in `values` and `nulls` row after
/// row; in [`boundary`].
unsafe fn put(relation: pg_sys::Relation, values: &[Datum], nulls: &[bool], count: usize) {
    // SAFETY: the executor's own way, row by row; everything is of this call and freed in it.
    unsafe {
        let estate = raw::CreateExecutorState();
        let outer = pg_sys::MemoryContextSwitchTo((*estate).es_query_cxt);
        let target = raw::palloc0(size_of::<pg_sys::ResultRelInfo>()).cast::<pg_sys::ResultRelInfo>();
        (*target).type_ = pg_sys::NodeTag::T_ResultRelInfo;
        raw::InitResultRelInfo(target, relation, 0, std::ptr::null_mut(), 0);
        raw::ExecOpenIndices(target, false);
        let slot = raw::MakeSingleTupleTableSlot((*relation).rd_att, &raw const pg_sys::TTSOpsVirtual);
        raw::PushActiveSnapshot(raw::GetTransactionSnapshot());
        for (values, nulls) in values.chunks_exact(count).zip(nulls.chunks_exact(count)) {
            std::ptr::copy_nonoverlapping(values.as_ptr(), (*slot).tts_values, count);
            std::ptr::copy_nonoverlapping(nulls.as_ptr(), (*slot).tts_isnull, count);
            raw::ExecStoreVirtualTuple(slot);
            raw::ExecSimpleRelationInsert(target, estate, slot);
            if let Some(clear) = (*(*slot).tts_ops).clear {
                clear(slot);
            }
            let per_tuple = (*estate).es_per_tuple_exprcontext;
            if !per_tuple.is_null() {
                raw::MemoryContextReset((*per_tuple).ecxt_per_tuple_memory);
            }
        }
        raw::PopActiveSnapshot();
        raw::ExecCloseIndices(target);
        raw::ExecDropSingleTupleTableSlot(slot);
        pg_sys::MemoryContextSwitchTo(outer);
        raw::FreeExecutorState(estate);
        raw::CommandCounterIncrement();
    }
}
