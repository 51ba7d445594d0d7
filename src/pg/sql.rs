//! Statements of our own, by SPI: text that is part of the program, parameters, plans that are kept.
//!
//! A statement's text must be written in place (`&'static str`): its plan is kept for the life of the
//! backend under that text's address. Names in it are qualified; the functions that run it pin their
//! search_path.

use super::guard::{boundary, raw};
use super::jsonb::Jsonb;
use super::numeric::{Decimal, Micros};
use super::{Error, Result, State};
use pgrx::datum::Interval;
use pgrx::pg_sys::{self, Datum, Oid};
use pgrx::{FromDatum, IntoDatum};
use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::CString;

/// A parameter: one variant for each type a statement takes.
#[allow(dead_code)]
#[derive(Clone, Copy, Debug)]
pub enum Arg<'a> {
    Text(Option<&'a str>),
    Texts(&'a [&'a str]),
    Uuid(Option<uuid::Uuid>),
    Bytes(Option<&'a [u8]>),
    Bool(Option<bool>),
    Int(Option<i32>),
    Long(Option<i64>),
    /// Microseconds since 2000-01-01 UTC.
    Time(Option<i64>),
    /// Microseconds.
    Interval(Option<i64>),
    /// A `numeric` with six decimals, in millionths.
    Micros(Option<i128>),
    Jsonb(Option<&'a Jsonb>),
    OptionalTexts(&'a [Option<&'a str>]),
    Uuids(&'a [uuid::Uuid]),
    Longs(&'a [i64]),
    MicrosList(&'a [i128]),
    Jsonbs(&'a [Option<&'a Jsonb>]),
}

impl<'a> From<&'a str> for Arg<'a> {
    fn from(value: &'a str) -> Self {
        Arg::Text(Some(value))
    }
}

impl From<uuid::Uuid> for Arg<'_> {
    fn from(value: uuid::Uuid) -> Self {
        Arg::Uuid(Some(value))
    }
}

impl<'a> From<&'a [u8]> for Arg<'a> {
    fn from(value: &'a [u8]) -> Self {
        Arg::Bytes(Some(value))
    }
}

impl Arg<'_> {
    fn type_oid(&self) -> Oid {
        match self {
            Arg::Text(_) => pg_sys::TEXTOID,
            Arg::Texts(_) | Arg::OptionalTexts(_) => pg_sys::TEXTARRAYOID,
            Arg::Uuids(_) => pg_sys::UUIDARRAYOID,
            Arg::Longs(_) => pg_sys::INT8ARRAYOID,
            Arg::MicrosList(_) => pg_sys::NUMERICARRAYOID,
            Arg::Jsonbs(_) => pg_sys::JSONBARRAYOID,
            Arg::Uuid(_) => pg_sys::UUIDOID,
            Arg::Bytes(_) => pg_sys::BYTEAOID,
            Arg::Bool(_) => pg_sys::BOOLOID,
            Arg::Int(_) => pg_sys::INT4OID,
            Arg::Long(_) => pg_sys::INT8OID,
            Arg::Time(_) => pg_sys::TIMESTAMPTZOID,
            Arg::Interval(_) => pg_sys::INTERVALOID,
            Arg::Micros(_) => pg_sys::NUMERICOID,
            Arg::Jsonb(_) => pg_sys::JSONBOID,
        }
    }

    pub(super) fn datum(&self) -> Option<Datum> {
        match *self {
            Arg::Text(value) => value.and_then(IntoDatum::into_datum),
            Arg::Texts(value) => value.to_vec().into_datum(),
            Arg::Uuid(value) => value.and_then(|uuid| pgrx::Uuid::from_bytes(*uuid.as_bytes()).into_datum()),
            Arg::Bytes(value) => value.and_then(IntoDatum::into_datum),
            Arg::Bool(value) => value.map(Datum::from),
            Arg::Int(value) => value.map(Datum::from),
            Arg::Long(value) | Arg::Time(value) => value.map(Datum::from),
            Arg::Interval(value) => value.and_then(|micros| Interval::from_micros(micros).into_datum()),
            Arg::Micros(value) => value.and_then(|micros| Micros(micros).into_datum()),
            Arg::Jsonb(value) => value.map(Jsonb::copy),
            Arg::OptionalTexts(values) => values.to_vec().into_datum(),
            Arg::Uuids(values) => list(values, |uuid| pgrx::Uuid::from_bytes(*uuid.as_bytes())),
            Arg::Longs(values) => values.to_vec().into_datum(),
            Arg::MicrosList(values) => list(values, |micros| Micros(*micros)),
            Arg::Jsonbs(values) => list(values, |value| value.cloned()),
        }
    }
}

fn list<T, D>(values: &[T], convert: impl Fn(&T) -> D) -> Option<Datum>
where
    Vec<D>: IntoDatum,
{
    values.iter().map(convert).collect::<Vec<D>>().into_datum()
}

/// Against which snapshot a statement runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Reads only, as of the calling statement; allowed on a standby.
    Read,
    /// Reads only, as of now: what a cache is filled from must not be an old transaction's view.
    ReadLatest,
    /// Sees and makes changes.
    Write,
}

/// A row of a result, read while the statement's memory is alive.
pub struct Row {
    tuple: pg_sys::HeapTuple,
    description: pg_sys::TupleDesc,
}

impl Row {
    /// SAFETY of callers: the tuple is of that description, and both outlive the row.
    pub(super) unsafe fn new(tuple: pg_sys::HeapTuple, description: pg_sys::TupleDesc) -> Self {
        Self { tuple, description }
    }

    /// The value in the column at `ordinal`, counted from 1.
    pub fn get<T: FromDatum>(&self, ordinal: i32) -> Option<T> {
        let mut is_null = false;
        // SAFETY: tuple and description belong to the statement being read; a wrong ordinal gives
        // NULL.
        unsafe {
            let datum = pg_sys::SPI_getbinval(self.tuple, self.description, ordinal, &mut is_null);
            T::from_datum(datum, is_null)
        }
    }

    pub(super) fn datum(&self, ordinal: i32) -> Option<Datum> {
        let mut is_null = false;
        // SAFETY: as in `get`.
        let datum = unsafe { pg_sys::SPI_getbinval(self.tuple, self.description, ordinal, &mut is_null) };
        (!is_null).then_some(datum)
    }

    /// A text column.
    pub fn text(&self, ordinal: i32) -> Option<String> {
        self.get(ordinal)
    }

    /// A uuid column.
    pub fn uuid(&self, ordinal: i32) -> Option<uuid::Uuid> {
        self.get::<pgrx::Uuid>(ordinal).map(|uuid| uuid::Uuid::from_bytes(*uuid.as_bytes()))
    }

    /// A numeric column, in millionths; none where it is NULL or cannot be said in them.
    pub fn micros(&self, ordinal: i32) -> Option<i128> {
        match self.get::<Decimal>(ordinal)? {
            Decimal::Micros(micros) => Some(micros),
            _ => None,
        }
    }

    /// A `numeric(18,6)` column that is not NULL, in millionths.
    pub fn credits(&self, ordinal: i32) -> i64 {
        self.micros(ordinal).map_or(0, |micros| i64::try_from(micros).unwrap_or(i64::MAX))
    }

    /// A timestamptz column, in microseconds since 2000-01-01 UTC.
    pub fn time(&self, ordinal: i32) -> Option<i64> {
        self.get::<pgrx::datum::TimestampWithTimeZone>(ordinal).map(Into::into)
    }
}

/// Runs a statement and reads every row.
pub fn query<T>(
    text: &'static str,
    args: &[Arg],
    mode: Mode,
    mut read: impl FnMut(&Row) -> Result<T>,
) -> Result<Vec<T>> {
    run(text, args, mode, |count, table| {
        // SAFETY: SPI's table holds `count` tuples until SPI_finish.
        (0..count)
            .map(|index| unsafe { read(&Row { tuple: *(*table).vals.add(index), description: (*table).tupdesc }) })
            .collect()
    })
}

/// Runs a statement that gives at most one row worth reading.
pub fn query_opt<T>(
    text: &'static str,
    args: &[Arg],
    mode: Mode,
    read: impl FnMut(&Row) -> Result<T>,
) -> Result<Option<T>> {
    Ok(query(text, args, mode, read)?.into_iter().next())
}

/// Runs a statement for its effect; gives the number of rows it touched.
pub fn execute(text: &'static str, args: &[Arg]) -> Result<u64> {
    run(text, args, Mode::Write, |count, _| Ok(count as u64))
}

fn run<T>(
    text: &'static str,
    args: &[Arg],
    mode: Mode,
    read: impl FnOnce(usize, *mut pg_sys::SPITupleTable) -> Result<T>,
) -> Result<T> {
    let mut values: Vec<Datum> = Vec::with_capacity(args.len());
    let mut nulls: Vec<u8> = Vec::with_capacity(args.len());
    for arg in args {
        let datum = arg.datum();
        nulls.push(if datum.is_none() { b'n' } else { b' ' });
        values.push(datum.unwrap_or(Datum::from(0)));
    }
    let plan = plan(text, args)?;
    let (values, nulls) = (values.as_mut_ptr(), nulls.as_ptr().cast());
    // SAFETY: C calls only; arguments outlive them. On an error SPI's own clean-up at the end of the
    // failed (sub)transaction ends the connection.
    unsafe {
        let code = boundary(|| {
            raw::SPI_connect();
            if mode == Mode::ReadLatest {
                raw::PushActiveSnapshot(raw::GetLatestSnapshot());
            }
            let code = raw::SPI_execute_plan(plan, values, nulls, mode != Mode::Write, 0);
            if mode == Mode::ReadLatest {
                raw::PopActiveSnapshot();
            }
            code
        });
        let result = checked(code).and_then(|_| read(pg_sys::SPI_processed as usize, pg_sys::SPI_tuptable));
        boundary(|| raw::SPI_finish());
        result
    }
}

fn checked(code: i32) -> Result<i32> {
    if code < 0 {
        return Err(Error::new(State::INTERNAL, "spi_failed", format!("SPI answered {code}")));
    }
    Ok(code)
}

thread_local! {
    static PLANS: RefCell<HashMap<*const u8, pg_sys::SPIPlanPtr>> = RefCell::new(HashMap::new());
}

/// The kept plan of a statement, prepared at its first use in this backend.
fn plan(text: &'static str, args: &[Arg]) -> Result<pg_sys::SPIPlanPtr> {
    if let Some(plan) = PLANS.with_borrow(|plans| plans.get(&text.as_ptr()).copied()) {
        return Ok(plan);
    }
    let source = CString::new(text)
        .map_err(|_| Error::new(State::INTERNAL, "nul_in_statement", "A statement of the extension holds a NUL"))?;
    let mut types: Vec<Oid> = args.iter().map(Arg::type_oid).collect();
    let (source, count, types) = (source.as_ptr(), types.len() as i32, types.as_mut_ptr());
    // SAFETY: C calls only; a plan that is kept belongs to the backend and is never freed.
    let plan = unsafe {
        boundary(|| {
            raw::SPI_connect();
            let plan = raw::SPI_prepare(source, count, types);
            if !plan.is_null() {
                raw::SPI_keepplan(plan);
            }
            raw::SPI_finish();
            plan
        })
    };
    if plan.is_null() {
        return Err(Error::new(State::INTERNAL, "spi_failed", "A statement could not be prepared"));
    }
    PLANS.with_borrow_mut(|plans| plans.insert(text.as_ptr(), plan));
    Ok(plan)
}

/// The owner of a relation, or none where there is no such relation.
pub(super) fn owner_of(relation: Oid) -> Result<Option<Oid>> {
    let rows = query(
        "SELECT c.relowner FROM pg_catalog.pg_class c WHERE c.oid OPERATOR(pg_catalog.=) $1::pg_catalog.oid",
        &[Arg::Long(Some(i64::from(relation.to_u32())))],
        Mode::Read,
        |row| Ok(row.get::<Oid>(1)),
    )?;
    Ok(rows.into_iter().next().flatten())
}

/// The oid of a table of ours, or none where it is not there.
pub fn table_oid(name: &str) -> Result<Option<Oid>> {
    Ok(table_oids(&[name])?.into_iter().next())
}

/// The oids of those of our tables that are there.
pub fn table_oids(names: &[&str]) -> Result<Vec<Oid>> {
    let oids = query(
        "SELECT c.oid FROM pg_catalog.pg_class c \
         JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace \
         WHERE n.nspname OPERATOR(pg_catalog.=) 'tenancy' \
           AND c.relname OPERATOR(pg_catalog.=) ANY ($1::pg_catalog.name[])",
        &[Arg::Texts(names)],
        Mode::Read,
        |row| Ok(row.get::<Oid>(1)),
    )?;
    Ok(oids.into_iter().flatten().collect())
}
