//! `jsonb` as it is stored: carried from an argument or a row to a parameter or a result without being
//! taken apart.

use super::guard::{boundary, raw};
use super::numeric::varlena_header;
use super::{Error, Result, State};
use pgrx::callconv::{Arg as CallArg, ArgAbi, BoxRet, FcInfo};
use pgrx::nullable::Nullable;
use pgrx::pg_sys::{self, Datum};
use pgrx::pgrx_sql_entity_graph::metadata::{
    ArgumentError, ReturnsError, ReturnsRef, SqlMappingRef, SqlTranslatable, TypeOrigin,
};
use pgrx::{FromDatum, IntoDatum, PgSqlErrorCode};

/// The bytes of a `jsonb` value, with its varlena header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Jsonb(Vec<u8>);

impl Jsonb {
    /// Reads JSON text, numbers exactly as they stand. Text that is not JSON is an error of Postgres (22P02).
    pub fn parse(text: &str) -> Option<Self> {
        let text = std::ffi::CString::new(text).ok()?;
        let source = Datum::from(text.as_ptr());
        // SAFETY: C calls only; the text outlives them, and the result is a jsonb.
        unsafe {
            let datum = boundary(|| raw::DirectFunctionCall1Coll(raw::jsonb_in, pg_sys::InvalidOid, source));
            Self::from_datum(datum, false)
        }
    }

    /// Takes what was written as `jsonb` behind four bytes that are left for the varlena header.
    pub(super) fn from_bytes(mut bytes: Vec<u8>) -> Self {
        let header = varlena_header(bytes.len());
        bytes[..4].copy_from_slice(&header);
        Self(bytes)
    }

    /// As JSON text. pgrx's own conversion panics where the nesting is too deep for a parser; its reader may refuse it.
    pub fn text(&self) -> String {
        // SAFETY: C calls only; the argument is a jsonb, and the result a string that ends in a zero byte.
        unsafe {
            let text = boundary(|| raw::DirectFunctionCall1Coll(raw::jsonb_out, pg_sys::InvalidOid, self.copy()));
            let text = copied(std::ffi::CStr::from_ptr(text.cast_mut_ptr()).to_bytes());
            String::from_utf8(text).expect("text of the database is UTF-8")
        }
    }

    /// This object with the members of another over its own: SQL's `self || over`.
    pub fn overlaid(&self, over: &Self) -> Result<Self> {
        let (first, second) = (self.copy(), over.copy());
        // SAFETY: C calls only; the result is a jsonb.
        let result = unsafe {
            let datum = boundary(|| raw::DirectFunctionCall2Coll(raw::jsonb_concat, pg_sys::InvalidOid, first, second));
            Self::from_datum(datum, false)
        };
        result.ok_or_else(|| Error::new(State::INTERNAL, "jsonb_missing", "Two objects gave none"))
    }

    /// Its size as stored, in bytes.
    pub fn size(&self) -> usize {
        self.0.len()
    }

    /// Whether it is an object, not an array or a scalar.
    pub fn is_object(&self) -> bool {
        self.header() & pg_sys::JB_FOBJECT != 0
    }

    /// Whether it is an array; a scalar is none, though it is stored as one.
    pub fn is_array(&self) -> bool {
        self.header() & pg_sys::JB_FARRAY != 0 && self.header() & pg_sys::JB_FSCALAR == 0
    }

    /// How many elements or members it has.
    pub fn count(&self) -> usize {
        (self.header() & pg_sys::JB_CMASK) as usize
    }

    /// Whether it is `{}`.
    pub fn is_empty_object(&self) -> bool {
        self.is_object() && self.count() == 0
    }

    /// As stored, without the varlena header: equal values have equal bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.0[4..]
    }

    fn header(&self) -> u32 {
        u32::from_ne_bytes([self.0[4], self.0[5], self.0[6], self.0[7]])
    }

    pub(super) fn copy(&self) -> Datum {
        // SAFETY: a fresh allocation of the same size; the bytes carry their own varlena header.
        unsafe {
            let memory = pg_sys::palloc(self.0.len()).cast::<u8>();
            std::ptr::copy_nonoverlapping(self.0.as_ptr(), memory, self.0.len());
            Datum::from(memory)
        }
    }
}

/// A copy in Rust's memory, whose own way to run out of it would end the server: here it is Postgres' error.
fn copied(bytes: &[u8]) -> Vec<u8> {
    let mut copy = Vec::new();
    if copy.try_reserve_exact(bytes.len()).is_err() {
        pgrx::ereport!(ERROR, PgSqlErrorCode::ERRCODE_OUT_OF_MEMORY, "out of memory");
    }
    copy.extend_from_slice(bytes);
    copy
}

impl IntoDatum for Jsonb {
    fn into_datum(self) -> Option<Datum> {
        Some(self.copy())
    }

    fn type_oid() -> pg_sys::Oid {
        pg_sys::JSONBOID
    }
}

impl FromDatum for Jsonb {
    unsafe fn from_polymorphic_datum(datum: Datum, is_null: bool, _: pg_sys::Oid) -> Option<Self> {
        if is_null {
            return None;
        }
        // SAFETY: the caller says that this is a jsonb; detoasted it has a four-byte header.
        unsafe {
            let value = pg_sys::pg_detoast_datum(datum.cast_mut_ptr());
            let bytes = std::slice::from_raw_parts(value.cast::<u8>(), pgrx::varsize_4b(value));
            Some(Self(copied(bytes)))
        }
    }
}

// SAFETY: the SQL type is jsonb, which `from_polymorphic_datum` reads.
unsafe impl<'fcx> ArgAbi<'fcx> for Jsonb {
    unsafe fn unbox_arg_unchecked(arg: CallArg<'_, 'fcx>) -> Self {
        // SAFETY: as the caller's.
        unsafe { arg.unbox_arg_using_from_datum() }.expect("a strict argument is not null")
    }

    unsafe fn unbox_nullable_arg(arg: CallArg<'_, 'fcx>) -> Nullable<Self> {
        // SAFETY: as the caller's.
        unsafe { arg.unbox_arg_using_from_datum() }.into()
    }
}

// SAFETY: the datum is a jsonb in the function's memory context.
unsafe impl BoxRet for Jsonb {
    unsafe fn box_into<'fcx>(self, fcinfo: &mut FcInfo<'fcx>) -> pgrx::datum::Datum<'fcx> {
        // SAFETY: as above.
        unsafe { fcinfo.return_raw_datum(self.copy()) }
    }
}

// SAFETY: says which SQL type the conversions above are for.
unsafe impl SqlTranslatable for Jsonb {
    const TYPE_IDENT: &'static str = "pg_tenancy::Jsonb";
    const TYPE_ORIGIN: TypeOrigin = TypeOrigin::External;
    const ARGUMENT_SQL: std::result::Result<SqlMappingRef, ArgumentError> = Ok(SqlMappingRef::literal("jsonb"));
    const RETURN_SQL: std::result::Result<ReturnsRef, ReturnsError> =
        Ok(ReturnsRef::One(SqlMappingRef::literal("jsonb")));
}
