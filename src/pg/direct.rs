//! Rows put into a plain table, or changed in one, without a statement: what the executor does for an INSERT or an
//! UPDATE by primary key, less its preparation.
//!
//! The table's own functions write the row and indexes are kept as ever. What only a statement does (constraints we do
//! not know, triggers, rules, row-level security, defaults of columns we do not know, distributed tables) is left to a
//! statement: where the table has any of it, nothing is done, and the answer says so.

use super::direct_check::Check;
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

/// A column's type and its modifier, as `pg_attribute` has them.
#[derive(PartialEq)]
pub struct Type(Oid, i32);

impl Type {
    /// A type without a modifier.
    const fn plain(oid: Oid) -> Self {
        Self(oid, -1)
    }

    /// `numeric(precision, scale)`, or an array of it.
    const fn numeric(oid: Oid, precision: i32, scale: i32) -> Self {
        Self(oid, (precision << 16 | scale) + pg_sys::VARHDRSZ as i32)
    }
}

pub const BOOL: Type = Type::plain(pg_sys::BOOLOID);
pub const INT4: Type = Type::plain(pg_sys::INT4OID);
pub const INT8: Type = Type::plain(pg_sys::INT8OID);
pub const JSONB: Type = Type::plain(pg_sys::JSONBOID);
pub const TEXT: Type = Type::plain(pg_sys::TEXTOID);
pub const TIMESTAMPTZ: Type = Type::plain(pg_sys::TIMESTAMPTZOID);
pub const UUID: Type = Type::plain(pg_sys::UUIDOID);
/// `numeric(18,6)`, and an array of it.
pub const CREDITS: Type = Type::numeric(pg_sys::NUMERICOID, 18, 6);
pub const CREDITS_ARRAY: Type = Type::numeric(pg_sys::NUMERICARRAYOID, 18, 6);
/// `numeric(30,6)`.
pub const TOTAL: Type = Type::numeric(pg_sys::NUMERICOID, 30, 6);

/// A table of ours as our migrations make it.
pub struct Table {
    /// Its name in the schema `tenancy`.
    pub name: &'static CStr,
    /// Its one CHECK constraint, which whoever writes here has to have judged.
    pub check: Check,
    /// Whether foreign keys hang on columns of it that nobody changes here: their triggers have nothing to do.
    pub has_foreign_keys: bool,
    /// Its columns, in order.
    pub columns: &'static [(&'static CStr, Type)],
}

impl Table {
    /// Opens the table for writing; null where that takes a statement.
    ///
    /// SAFETY of callers: in [`boundary`], and the relation is closed there.
    pub(super) unsafe fn open(&self) -> pg_sys::Relation {
        // SAFETY: C calls only.
        unsafe {
            let schema = raw::get_namespace_oid(c"tenancy".as_ptr(), true);
            let oid = raw::get_relname_relid(self.name.as_ptr(), schema);
            let relation = raw::try_relation_open(oid, pg_sys::RowExclusiveLock as pg_sys::LOCKMODE);
            if relation.is_null() || self.is_plain(relation) {
                return relation;
            }
            close(relation);
            std::ptr::null_mut()
        }
    }

    /// Whether the table is as we know it and has nothing that takes a statement.
    ///
    /// SAFETY of callers: an open relation, in [`boundary`].
    unsafe fn is_plain(&self, relation: pg_sys::Relation) -> bool {
        // SAFETY: reads fields of an open relation.
        unsafe {
            let (form, description) = ((*relation).rd_rel, (*relation).rd_att);
            if (*form).relkind as u8 != pg_sys::RELKIND_RELATION
                || (*form).relispartition
                || (*form).relhassubclass
                || (*form).relam != pg_sys::HEAP_TABLE_AM_OID
                || !self.has_no_other_triggers(relation)
                || !(*relation).rd_rules.is_null()
                || (*description).natts as usize != self.columns.len()
                || !self.check.is_alone_in((*description).constr)
                || raw::check_enable_rls((*relation).rd_id, Oid::INVALID, true)
                    == pg_sys::CheckEnableRlsResult::RLS_ENABLED as i32
            {
                return false;
            }
            self.columns.iter().enumerate().all(|(index, (name, of))| {
                let attribute = attribute(description, index);
                !(*attribute).attisdropped
                    && (*attribute).attgenerated == 0
                    && Type((*attribute).atttypid, (*attribute).atttypmod) == *of
                    && CStr::from_ptr((*attribute).attname.data.as_ptr()) == *name
            })
        }
    }

    /// SAFETY of callers: an open relation.
    unsafe fn has_no_other_triggers(&self, relation: pg_sys::Relation) -> bool {
        // SAFETY: the relation cache holds as many triggers as it says.
        unsafe {
            let all = (*relation).trigdesc;
            all.is_null()
                || self.has_foreign_keys
                    && (0..(*all).numtriggers as usize).all(|index| {
                        let trigger = (*all).triggers.add(index);
                        (*trigger).tgisinternal
                            && !(*trigger).tgdeferrable
                            && raw::RI_FKey_trigger_type((*trigger).tgfoid) != pg_sys::RI_TRIGGER_NONE as i32
                    })
        }
    }
}

/// SAFETY of callers: `index` is one of the description's.
unsafe fn attribute(description: pg_sys::TupleDesc, index: usize) -> *const pg_sys::FormData_pg_attribute {
    // SAFETY: the description holds `natts` of them.
    unsafe {
        #[cfg(not(feature = "pg18"))]
        let attributes = (*description).attrs.as_ptr();
        #[cfg(feature = "pg18")]
        let attributes = (*description)
            .compact_attrs
            .as_ptr()
            .add((*description).natts as usize)
            .cast::<pg_sys::FormData_pg_attribute>();
        attributes.add(index)
    }
}

/// SAFETY of callers: an open relation, in [`boundary`]. Its lock is kept, as a statement's is.
pub(super) unsafe fn close(relation: pg_sys::Relation) {
    // SAFETY: by the caller.
    unsafe { raw::relation_close(relation, pg_sys::NoLock as pg_sys::LOCKMODE) }
}

/// Values as a slot holds them.
pub(super) fn datums(args: impl Iterator<Item = Option<Datum>>) -> (Vec<Datum>, Vec<bool>) {
    args.map(|datum| (datum.unwrap_or(Datum::from(0)), datum.is_none())).unzip()
}

/// Inserts rows, one value a column. False, and nothing inserted, where that takes a statement.
pub fn insert<const N: usize>(table: &'static Table, rows: &[[Arg; N]]) -> Result<bool> {
    if rows.is_empty() {
        return Ok(true);
    }
    if may_be_distributed() || N != table.columns.len() {
        return Ok(false);
    }
    let (values, nulls) = datums(rows.iter().flatten().map(Arg::datum));
    let (values, nulls) = (values.as_slice(), nulls.as_slice());
    // SAFETY: C calls and reads of an open relation; nothing in the closure has a destructor. What an error leaves open
    // the (sub)transaction's clean-up closes.
    Ok(unsafe {
        boundary(|| {
            let relation = table.open();
            if relation.is_null() {
                return false;
            }
            let description = (*relation).rd_att;
            let is_missing = |(at, null): (usize, &bool)| *null && (*attribute(description, at % N)).attnotnull;
            let whole = !nulls.iter().enumerate().any(is_missing);
            if whole {
                put(relation, values, nulls, N);
            }
            close(relation);
            whole
        })
    })
}

/// Whether Citus is here, to which a table's rows may belong that is local to the eye.
pub(super) fn may_be_distributed() -> bool {
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

/// SAFETY of callers: an open plain relation with `count` columns, whose values stand in `values` and `nulls` row after
/// row; in [`boundary`].
unsafe fn put(relation: pg_sys::Relation, values: &[Datum], nulls: &[bool], count: usize) {
    // SAFETY: by the caller; a heap has this function.
    unsafe {
        let insert = (*(*relation).rd_tableam).tuple_insert.unwrap_unchecked();
        let command = pg_sys::GetCurrentCommandId(true);
        let slot = raw::MakeSingleTupleTableSlot((*relation).rd_att, &raw const pg_sys::TTSOpsVirtual);
        with_indexes(relation, |target, estate| {
            for (values, nulls) in values.chunks_exact(count).zip(nulls.chunks_exact(count)) {
                std::ptr::copy_nonoverlapping(values.as_ptr(), (*slot).tts_values, count);
                std::ptr::copy_nonoverlapping(nulls.as_ptr(), (*slot).tts_isnull, count);
                raw::ExecStoreVirtualTuple(slot);
                insert(relation, slot, command, 0, std::ptr::null_mut());
                index(target, estate, slot, false, false);
                if let Some(clear) = (*(*slot).tts_ops).clear {
                    clear(slot);
                }
            }
        });
        raw::ExecDropSingleTupleTableSlot(slot);
        raw::CommandCounterIncrement();
    }
}

/// Works with a table's indexes open.
///
/// SAFETY of callers: an open plain relation; in [`boundary`], and so no destructors in `work`.
pub(super) unsafe fn with_indexes(
    relation: pg_sys::Relation,
    work: impl FnOnce(*mut pg_sys::ResultRelInfo, *mut pg_sys::EState),
) {
    // SAFETY: as the executor prepares for one table; everything is of this call and freed in it.
    unsafe {
        let estate = raw::CreateExecutorState();
        let outer = pg_sys::MemoryContextSwitchTo((*estate).es_query_cxt);
        let target = raw::palloc0(size_of::<pg_sys::ResultRelInfo>()).cast::<pg_sys::ResultRelInfo>();
        (*target).type_ = pg_sys::NodeTag::T_ResultRelInfo;
        raw::InitResultRelInfo(target, relation, 0, std::ptr::null_mut(), 0);
        raw::ExecOpenIndices(target, false);
        raw::PushActiveSnapshot(raw::GetTransactionSnapshot());
        work(target, estate);
        raw::PopActiveSnapshot();
        raw::ExecCloseIndices(target);
        pg_sys::MemoryContextSwitchTo(outer);
        raw::FreeExecutorState(estate);
    }
}

/// Puts a row that the table has taken into its indexes, or into those alone that only sum rows up.
///
/// SAFETY of callers: in [`with_indexes`].
pub(super) unsafe fn index(
    target: *mut pg_sys::ResultRelInfo,
    estate: *mut pg_sys::EState,
    slot: *mut pg_sys::TupleTableSlot,
    update: bool,
    #[cfg_attr(any(feature = "pg14", feature = "pg15"), allow(unused_variables))] summing_only: bool,
) {
    // SAFETY: by the caller.
    unsafe {
        raw::ExecInsertIndexTuples(
            target,
            slot,
            estate,
            update,
            false,
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            #[cfg(not(any(feature = "pg14", feature = "pg15")))]
            summing_only,
        );
        let per_tuple = (*estate).es_per_tuple_exprcontext;
        if !per_tuple.is_null() {
            raw::MemoryContextReset((*per_tuple).ecxt_per_tuple_memory);
        }
    }
}
