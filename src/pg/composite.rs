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

/// One value of the composite type of `T`.
pub struct Composite<T>(pub T);

impl<T: Fields> IntoDatum for Composite<T> {
    fn into_datum(self) -> Option<Datum> {
        let mut values = Vec::new();
        let mut nulls = Vec::new();
        for field in self.0.fields() {
            let datum = field.datum();
            nulls.push(datum.is_none());
            values.push(datum.unwrap_or(Datum::from(0)));
        }
        // SAFETY: the values have the attributes' types, which `Fields` promises and the count below asserts.
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
            let description = pg_sys::lookup_rowtype_tupdesc_copy(type_oid, -1);
            assert_eq!((*description).natts as usize, values.len(), "attributes of {}", T::SQL);
            let tuple = pg_sys::heap_form_tuple(description, values.as_mut_ptr(), nulls.as_mut_ptr());
            Some(pg_sys::HeapTupleHeaderGetDatum((*tuple).t_data))
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
