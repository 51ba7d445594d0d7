//! Statements on a user's table that run with its owner's rights, and never with ours.
//!
//! A function that reads or deletes rows for an operator runs as the extension's owner, a superuser. What hangs on
//! the table (triggers, rules, casts of its types) is its owner's code, and would run as a superuser too. Postgres
//! meets this in ANALYZE, REINDEX and foreign keys by becoming the owner in a restricted operation; so do we. Like a
//! foreign key's check, the owner is then not bound by FORCE ROW LEVEL SECURITY.

use super::guard::{boundary, raw};
use super::{Error, Result, State};
use pgrx::pg_sys::{self, Datum, Oid};
use pgrx::{FromDatum, IntoDatum};
use std::ffi::{CStr, CString, c_int};

/// Rows fetched at a time.
const CHUNK: i64 = 500;

/// Runs a statement on `table` as its owner; `argument` is its `$1`, a text. Gives the number of rows it touched.
pub fn execute(table: Oid, statement: &str, argument: &str) -> Result<u64> {
    let statement = Statement::new(statement, argument)?;
    let owner = owner_of(table)?;
    let (text, mut types, mut values) = statement.parts();
    let (text, types, values) = (text.as_ptr(), types.as_mut_ptr(), values.as_mut_ptr());
    // SAFETY: C calls only; the arguments outlive them. SPI's own clean-up ends the connection on an error.
    let (code, count) = unsafe {
        let _own = Become::new(owner);
        boundary(|| {
            raw::SPI_connect();
            let code = raw::SPI_execute_with_args(text, 1, types, values, c" ".as_ptr(), false, 0);
            let count = pg_sys::SPI_processed;
            raw::SPI_finish();
            (code, count)
        })
    };
    if code < 0 {
        return Err(failed(code));
    }
    Ok(count)
}

/// The rows of a query on a table, read as its owner, a chunk at a time. Each row is one text.
pub struct Rows {
    owner: Oid,
    cursor: CString,
    buffer: std::vec::IntoIter<Option<String>>,
    is_done: bool,
}

/// Opens a query on `table` as its owner; `argument` is its `$1`, a text.
pub fn rows(table: Oid, query: &str, argument: &str) -> Result<Rows> {
    let statement = Statement::new(query, argument)?;
    let owner = owner_of(table)?;
    let (text, mut types, mut values) = statement.parts();
    let (text, types, values) = (text.as_ptr(), types.as_mut_ptr(), values.as_mut_ptr());
    // SAFETY: as in `execute`; the name is copied before the portal can go away.
    let cursor = unsafe {
        let _own = Become::new(owner);
        let portal = boundary(|| {
            raw::SPI_connect();
            let no_scroll = pg_sys::CURSOR_OPT_NO_SCROLL as c_int;
            let portal = raw::SPI_cursor_open_with_args(
                std::ptr::null(),
                text,
                1,
                types,
                values,
                c" ".as_ptr(),
                true,
                no_scroll,
            );
            raw::SPI_finish();
            portal
        });
        CStr::from_ptr((*portal).name).to_owned()
    };
    Ok(Rows { owner, cursor, buffer: Vec::new().into_iter(), is_done: false })
}

impl Iterator for Rows {
    type Item = Option<String>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(row) = self.buffer.next() {
                return Some(row);
            }
            if self.is_done {
                return None;
            }
            self.fetch();
        }
    }
}

impl Rows {
    fn fetch(&mut self) {
        let name = self.cursor.as_ptr();
        let mut rows = Vec::new();
        // SAFETY: the portal is looked up by name; the tuples are read before SPI_finish frees them.
        unsafe {
            let _own = Become::new(self.owner);
            let count = boundary(|| {
                raw::SPI_connect();
                let portal = raw::SPI_cursor_find(name);
                if portal.is_null() {
                    return 0;
                }
                raw::SPI_cursor_fetch(portal, true, CHUNK as std::ffi::c_long);
                if pg_sys::SPI_processed == 0 {
                    raw::SPI_cursor_close(portal);
                }
                pg_sys::SPI_processed
            });
            for index in 0..count as usize {
                let table = pg_sys::SPI_tuptable;
                let mut is_null = false;
                let datum = pg_sys::SPI_getbinval(*(*table).vals.add(index), (*table).tupdesc, 1, &mut is_null);
                rows.push(String::from_datum(datum, is_null));
            }
            boundary(|| raw::SPI_finish());
        }
        self.is_done = rows.is_empty();
        self.buffer = rows.into_iter();
    }
}

/// A statement with its one text argument, in C's terms.
struct Statement {
    text: CString,
    argument: Datum,
}

impl Statement {
    fn new(text: &str, argument: &str) -> Result<Self> {
        let text = CString::new(text)
            .map_err(|_| Error::new(State::INTERNAL, "nul_in_statement", "A statement of the extension holds a NUL"))?;
        let argument = argument.into_datum().unwrap_or(Datum::from(0));
        Ok(Self { text, argument })
    }

    fn parts(&self) -> (&CStr, [Oid; 1], [Datum; 1]) {
        (&self.text, [pg_sys::TEXTOID], [self.argument])
    }
}

fn owner_of(table: Oid) -> Result<Oid> {
    super::sql::owner_of(table)?
        .ok_or_else(|| Error::new(State::INTERNAL, "unknown_table", "The table does not exist any more"))
}

fn failed(code: c_int) -> Error {
    Error::new(State::INTERNAL, "spi_failed", format!("SPI answered {code}"))
}

/// While it lives, the current user is the table's owner, in a restricted operation; settings made meanwhile are undone.
struct Become {
    user: Oid,
    context: c_int,
    settings: c_int,
}

impl Become {
    /// # Safety
    /// Must be dropped before control returns to Postgres; an error that unwinds drops it too.
    unsafe fn new(owner: Oid) -> Self {
        let (mut user, mut context) = (Oid::INVALID, 0);
        // SAFETY: reads and sets two globals and a counter; none of it raises.
        unsafe {
            raw::GetUserIdAndSecContext(&mut user, &mut context);
            let restricted = pg_sys::SECURITY_LOCAL_USERID_CHANGE
                | pg_sys::SECURITY_RESTRICTED_OPERATION
                | pg_sys::SECURITY_NOFORCE_RLS;
            raw::SetUserIdAndSecContext(owner, context | restricted as c_int);
            Self { user, context, settings: raw::NewGUCNestLevel() }
        }
    }
}

impl Drop for Become {
    fn drop(&mut self) {
        // SAFETY: gives back what `new` found.
        unsafe {
            raw::AtEOXact_GUC(false, self.settings);
            raw::SetUserIdAndSecContext(self.user, self.context);
        }
    }
}
