//! Results of a composite type of ours.

use super::sql::Arg;
use pgrx::IntoDatum;
use pgrx::callconv::{BoxRet, FcInfo};
use pgrx::pg_sys::{self, Datum};
use pgrx::pgrx_sql_entity_graph::metadata::{
    ArgumentError, ReturnsError, ReturnsRef, SqlMappingRef, SqlTranslatable, TypeOrigin,
};
use std::ffi::CStr;

/// What can be returned as a composite type of schema tenancy, made in SQL.
pub trait Fields {
    /// The type's name, without its schema.
    const NAME: &'static CStr;
    /// The same with its schema, as the function's declaration names it.
    const SQL: &'static str;

    /// The values in the order of the type's attributes, whose types they must have.
    fn fields(&self) -> Vec<Arg<'_>>;
}

/// Values for the OUT columns of the function that is called.
pub trait Columns {
    /// The values in the columns' order, whose types they must have.
    fn columns(&self) -> impl AsRef<[Arg<'_>]>;
}

/// One row of a function with OUT columns that gives exactly one.
pub struct Record<T>(pub T);

// SAFETY: the datum is a row of the function's result type, in its memory context.
unsafe impl<T: Columns> BoxRet for Record<T> {
    unsafe fn box_into<'fcx>(self, fcinfo: &mut FcInfo<'fcx>) -> pgrx::datum::Datum<'fcx> {
        // SAFETY: Postgres called the function with this; the values have the columns' types, which `Columns` promises.
        unsafe {
            let description = description(fcinfo.as_mut_ptr());
            let datum = form(description, self.0.columns().as_ref());
            fcinfo.return_raw_datum(datum)
        }
    }
}

// SAFETY: the declaration is written beside the function; nothing is derived from this.
unsafe impl<T> SqlTranslatable for Record<T> {
    const TYPE_IDENT: &'static str = "record";
    const TYPE_ORIGIN: TypeOrigin = TypeOrigin::External;
    const ARGUMENT_SQL: Result<SqlMappingRef, ArgumentError> = Ok(SqlMappingRef::literal("record"));
    const RETURN_SQL: Result<ReturnsRef, ReturnsError> = Ok(ReturnsRef::One(SqlMappingRef::literal("record")));
}

/// What the function's result looks like; found once a call site.
///
/// SAFETY of callers: what Postgres called the function with, whose result is composite.
unsafe fn description(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::TupleDesc {
    // SAFETY: fn_extra is ours: the function returns no set.
    unsafe {
        let flinfo = (*fcinfo).flinfo;
        if (*flinfo).fn_extra.is_null() {
            let memory = pg_sys::MemoryContextSwitchTo((*flinfo).fn_mcxt);
            let mut description = std::ptr::null_mut();
            let kind = pg_sys::get_call_result_type(fcinfo, std::ptr::null_mut(), &mut description);
            assert_eq!(kind, pg_sys::TypeFuncClass::TYPEFUNC_COMPOSITE, "the function is declared with OUT columns");
            (*flinfo).fn_extra = pg_sys::BlessTupleDesc(description).cast();
            pg_sys::MemoryContextSwitchTo(memory);
        }
        (*flinfo).fn_extra.cast()
    }
}

/// SAFETY of callers: the values have the types of the attributes.
unsafe fn form(description: pg_sys::TupleDesc, fields: &[Arg]) -> Datum {
    let (mut values, mut nulls) = (Vec::with_capacity(fields.len()), Vec::with_capacity(fields.len()));
    for datum in fields.iter().map(Arg::datum) {
        nulls.push(datum.is_none());
        values.push(datum.unwrap_or(Datum::from(0)));
    }
    // SAFETY: as the caller's; the count is asserted.
    unsafe {
        assert_eq!((*description).natts as usize, values.len(), "attributes of the result");
        let tuple = pg_sys::heap_form_tuple(description, values.as_mut_ptr(), nulls.as_mut_ptr());
        pg_sys::HeapTupleHeaderGetDatum((*tuple).t_data)
    }
}

/// One value of the composite type of `T`.
pub struct Composite<T>(pub T);

impl<T: Fields> IntoDatum for Composite<T> {
    fn into_datum(self) -> Option<Datum> {
        // SAFETY: the values have the attributes' types, which `Fields` promises.
        unsafe {
            let schema = pg_sys::get_namespace_oid(c"tenancy".as_ptr(), false);
            let type_oid = pg_sys::GetSysCacheOid(
                pg_sys::SysCacheIdentifier::TYPENAMENSP as i32,
                pg_sys::Anum_pg_type_oid as i16,
                Datum::from(T::NAME.as_ptr()),
                Datum::from(schema),
                Datum::from(0),
                Datum::from(0),
            );
            let description = pg_sys::lookup_rowtype_tupdesc(type_oid, -1);
            let datum = form(description, &self.0.fields());
            if (*description).tdrefcount >= 0 {
                pg_sys::DecrTupleDescRefCount(description);
            }
            Some(datum)
        }
    }

    fn type_oid() -> pg_sys::Oid {
        pg_sys::RECORDOID
    }
}

// SAFETY: the datum is a composite in the function's memory context.
unsafe impl<T: Fields> BoxRet for Composite<T> {
    unsafe fn box_into<'fcx>(self, fcinfo: &mut FcInfo<'fcx>) -> pgrx::datum::Datum<'fcx> {
        // SAFETY: as above.
        unsafe { fcinfo.return_raw_datum(self.into_datum().unwrap_or(Datum::from(0))) }
    }
}

// SAFETY: says which SQL type the conversion above is for.
unsafe impl<T: Fields> SqlTranslatable for Composite<T> {
    const TYPE_IDENT: &'static str = T::SQL;
    const TYPE_ORIGIN: TypeOrigin = TypeOrigin::External;
    const ARGUMENT_SQL: Result<SqlMappingRef, ArgumentError> = Ok(SqlMappingRef::literal(T::SQL));
    const RETURN_SQL: Result<ReturnsRef, ReturnsError> = Ok(ReturnsRef::One(SqlMappingRef::literal(T::SQL)));
}
