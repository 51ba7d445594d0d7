//! The guard around every SQL function, and the boundary around every call into Postgres that may
//! raise.
//!
//! pgrx turns a Postgres error into a Rust panic and back, but keeps only the SQLSTATEs it has a
//! name for: a PT402 would arrive as XX000, and a constraint's name not at all. Here the whole
//! `ErrorData` travels: [`boundary`] carries it through the unwinding, [`entry`] throws it again.

use super::{Error, State};
use cee_scape::call_with_sigsetjmp;
use pgrx::pg_sys;
use std::any::Any;
use std::io::Write;
use std::mem::MaybeUninit;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// A Postgres error on its way through Rust frames. The memory belongs to the (sub)transaction that
/// failed, so it outlives the unwinding and not the clean-up.
struct Raised(*mut pg_sys::ErrorData);

// SAFETY: a backend has one thread; `Send` is only asked for by the panic machinery.
unsafe impl Send for Raised {}

/// Runs the body of a SQL function. An [`Error`] is raised with its own SQLSTATE, DETAIL and HINT; an
/// error of Postgres that crossed [`boundary`] is raised again as it was, with a reason where it is one of design §4's.
///
/// A panic of ours is an XX000 with its message; where it came from stands in the server's log ([`log_panics`]).
pub fn entry<T>(body: impl FnOnce() -> super::Result<T>) -> T {
    match catch_unwind(AssertUnwindSafe(|| require_utf8().and_then(|()| body()))) {
        Ok(Ok(value)) => value,
        Ok(Err(error)) => {
            super::metrics::count_refusal(error.sqlstate(), error.reason());
            error.raise()
        }
        Err(payload) => match payload.downcast::<Raised>() {
            Ok(raised) => {
                let data = raised.0;
                drop(raised);
                // SAFETY: `data` was copied by `boundary` into a context that is still alive, and no
                // frame between here and Postgres has anything left to drop.
                unsafe {
                    super::error::explain(data);
                    raw::ReThrowError(data)
                }
            }
            Err(other) => match panic_message(other.as_ref()) {
                Some(message) => {
                    let error =
                        Error::new(State::INTERNAL, "internal_error", format!("a fault of pg_tenancy: {message}"))
                            .hint("The server's log says where. Please report it.");
                    drop(other);
                    error.raise()
                }
                None => resume_unwind(other),
            },
        },
    }
}

/// Texts are UTF-8 here, in tokens and in what is sealed and hashed; another encoding would make other ids of them.
fn require_utf8() -> super::Result<()> {
    // SAFETY: reads a static of the backend.
    if unsafe { raw::GetDatabaseEncoding() } == pg_sys::pg_enc::PG_UTF8 as i32 {
        return Ok(());
    }
    Err(Error::new(State::NOT_SUPPORTED, "encoding_not_utf8", "pg_tenancy works in databases with encoding UTF8 only")
        .hint("Make the database with it: CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0; and move the rows with pg_dump."))
}

/// What a panic says; None for what is not a panic of ours but an error on its way through.
fn panic_message(payload: &(dyn Any + Send)) -> Option<String> {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned())
}

/// Takes the place of pgrx's hook, which gives the client a backtrace as DETAIL: it goes to the server's log.
pub(super) fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        if let Some(message) = panic_message(panic.payload()) {
            let place = panic.location().map(|location| format!(" at {location}")).unwrap_or_default();
            let trace = std::backtrace::Backtrace::capture();
            // Not eprintln, which panics where stderr is closed: a panic in here ends the server.
            let _ = writeln!(std::io::stderr(), "pg_tenancy: panic{place}: {message}\n{trace}");
        }
    }));
}

/// Calls into Postgres; an error becomes an unwinding that [`entry`] ends.
///
/// # Safety
/// `call` must do nothing but call C functions: no value with a destructor may live in it when
/// Postgres jumps out of it.
#[allow(static_mut_refs)]
pub(super) unsafe fn boundary<T>(call: impl FnOnce() -> T) -> T {
    // SAFETY: Postgres is single-threaded; the globals are restored on both ways out.
    unsafe {
        let handler = pg_sys::PG_exception_stack;
        let contexts = pg_sys::error_context_stack;
        let memory = pg_sys::CurrentMemoryContext;
        let mut value = MaybeUninit::<T>::uninit();
        let jumped = call_with_sigsetjmp(false, |buffer| {
            pg_sys::PG_exception_stack = (buffer as *const cee_scape::SigJmpBufFields).cast_mut().cast();
            value.write(call());
            0
        });
        pg_sys::PG_exception_stack = handler;
        pg_sys::error_context_stack = contexts;
        if jumped == 0 {
            return value.assume_init();
        }
        pg_sys::CurrentMemoryContext = pg_sys::CurTransactionContext;
        let data = raw::CopyErrorData();
        raw::FlushErrorState();
        pg_sys::CurrentMemoryContext = memory;
        resume_unwind(Box::new(Raised(data)))
    }
}

/// The same functions that pgrx binds, without its own guard around each call.
pub(super) mod raw {
    use pgrx::pg_sys;
    use std::ffi::{c_char, c_int, c_void};

    unsafe extern "C-unwind" {
        pub fn ReThrowError(edata: *mut pg_sys::ErrorData) -> !;
        pub fn CopyErrorData() -> *mut pg_sys::ErrorData;
        pub fn FlushErrorState();
        pub fn errstart(elevel: c_int, domain: *const c_char) -> bool;
        pub fn errcode(sqlerrcode: c_int) -> c_int;
        pub fn errmsg(fmt: *const c_char, ...) -> c_int;
        pub fn errdetail(fmt: *const c_char, ...) -> c_int;
        pub fn errhint(fmt: *const c_char, ...) -> c_int;
        pub fn errfinish(file: *const c_char, line: c_int, function: *const c_char);
        pub fn GetCurrentStatementStartTimestamp() -> pg_sys::TimestampTz;
        pub fn GetCurrentTimestamp() -> pg_sys::TimestampTz;
        pub fn GetDatabaseEncoding() -> c_int;
        pub fn DirectFunctionCall1Coll(
            function: unsafe extern "C-unwind" fn(pg_sys::FunctionCallInfo) -> pg_sys::Datum,
            collation: pg_sys::Oid,
            argument: pg_sys::Datum,
        ) -> pg_sys::Datum;
        pub fn jsonb_in(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum;
        pub fn jsonb_out(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum;
        pub fn LockAcquire(
            tag: *const pg_sys::LOCKTAG,
            mode: pg_sys::LOCKMODE,
            for_session: bool,
            only_if_free: bool,
        ) -> pg_sys::LockAcquireResult::Type;
        pub fn LockRelease(tag: *const pg_sys::LOCKTAG, mode: pg_sys::LOCKMODE, for_session: bool) -> bool;
        pub fn ProcessInterrupts();
        pub fn DirectFunctionCall2Coll(
            function: unsafe extern "C-unwind" fn(pg_sys::FunctionCallInfo) -> pg_sys::Datum,
            collation: pg_sys::Oid,
            first: pg_sys::Datum,
            second: pg_sys::Datum,
        ) -> pg_sys::Datum;
        pub fn jsonb_concat(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum;
        pub fn palloc(size: usize) -> *mut std::ffi::c_void;
        pub fn try_relation_open(relation: pg_sys::Oid, mode: pg_sys::LOCKMODE) -> pg_sys::Relation;
        pub fn relation_close(relation: pg_sys::Relation, mode: pg_sys::LOCKMODE);
        #[cfg(not(feature = "pg14"))]
        pub fn get_view_query(view: pg_sys::Relation) -> *mut pg_sys::Query;
        #[cfg(not(any(feature = "pg14", feature = "pg15")))]
        pub fn getRTEPermissionInfo(
            permissions: *mut pg_sys::List,
            entry: *mut pg_sys::RangeTblEntry,
        ) -> *mut pg_sys::RTEPermissionInfo;
        pub fn table_slot_callbacks(relation: pg_sys::Relation) -> *const pg_sys::TupleTableSlotOps;
        pub fn MakeSingleTupleTableSlot(
            description: pg_sys::TupleDesc,
            callbacks: *const pg_sys::TupleTableSlotOps,
        ) -> *mut pg_sys::TupleTableSlot;
        pub fn ExecFetchSlotHeapTuple(
            slot: *mut pg_sys::TupleTableSlot,
            materialize: bool,
            should_free: *mut bool,
        ) -> pg_sys::HeapTuple;
        pub fn ExecDropSingleTupleTableSlot(slot: *mut pg_sys::TupleTableSlot);
        pub fn GetTransactionSnapshot() -> pg_sys::Snapshot;
        pub fn palloc0(size: usize) -> *mut std::ffi::c_void;
        pub fn get_namespace_oid(name: *const c_char, missing_ok: bool) -> pg_sys::Oid;
        pub fn get_relname_relid(name: *const c_char, schema: pg_sys::Oid) -> pg_sys::Oid;
        pub fn get_func_name(function: pg_sys::Oid) -> *mut c_char;
        pub fn get_func_namespace(function: pg_sys::Oid) -> pg_sys::Oid;
        pub fn stringToNode(text: *const c_char) -> *mut c_void;
        pub fn get_extension_oid(name: *const c_char, missing_ok: bool) -> pg_sys::Oid;
        pub fn check_enable_rls(relation: pg_sys::Oid, role: pg_sys::Oid, no_error: bool) -> c_int;
        pub fn CreateExecutorState() -> *mut pg_sys::EState;
        pub fn FreeExecutorState(estate: *mut pg_sys::EState);
        pub fn InitResultRelInfo(
            target: *mut pg_sys::ResultRelInfo,
            relation: pg_sys::Relation,
            range_table_index: pg_sys::Index,
            root: *mut pg_sys::ResultRelInfo,
            instrument: c_int,
        );
        pub fn ExecOpenIndices(target: *mut pg_sys::ResultRelInfo, speculative: bool);
        pub fn ExecCloseIndices(target: *mut pg_sys::ResultRelInfo);
        pub fn ExecStoreVirtualTuple(slot: *mut pg_sys::TupleTableSlot) -> *mut pg_sys::TupleTableSlot;
        pub fn ExecInsertIndexTuples(
            target: *mut pg_sys::ResultRelInfo,
            slot: *mut pg_sys::TupleTableSlot,
            estate: *mut pg_sys::EState,
            update: bool,
            no_dup_error: bool,
            conflict: *mut bool,
            arbiters: *mut pg_sys::List,
            #[cfg(not(any(feature = "pg14", feature = "pg15")))] only_summarizing: bool,
        ) -> *mut pg_sys::List;
        pub fn RI_FKey_trigger_type(function: pg_sys::Oid) -> c_int;
        pub fn CheckCmdReplicaIdentity(relation: pg_sys::Relation, command: pg_sys::CmdType::Type);
        pub fn RelationGetIndexAttrBitmap(
            relation: pg_sys::Relation,
            kind: pg_sys::IndexAttrBitmapKind::Type,
        ) -> *mut pg_sys::Bitmapset;
        pub fn RelationGetFKeyList(relation: pg_sys::Relation) -> *mut pg_sys::List;
        pub fn RelationGetPrimaryKeyIndex(
            relation: pg_sys::Relation,
            #[cfg(feature = "pg18")] deferrable_too: bool,
        ) -> pg_sys::Oid;
        pub fn ScanKeyInit(
            entry: pg_sys::ScanKey,
            attribute: pg_sys::AttrNumber,
            strategy: pg_sys::StrategyNumber,
            procedure: pg_sys::RegProcedure,
            argument: pg_sys::Datum,
        );
        pub fn systable_beginscan(
            relation: pg_sys::Relation,
            index: pg_sys::Oid,
            index_ok: bool,
            snapshot: pg_sys::Snapshot,
            keys: c_int,
            key: pg_sys::ScanKey,
        ) -> pg_sys::SysScanDesc;
        pub fn systable_getnext(scan: pg_sys::SysScanDesc) -> pg_sys::HeapTuple;
        pub fn systable_endscan(scan: pg_sys::SysScanDesc);
        pub fn heap_copytuple(tuple: pg_sys::HeapTuple) -> pg_sys::HeapTuple;
        pub fn heap_deform_tuple(
            tuple: pg_sys::HeapTuple,
            description: pg_sys::TupleDesc,
            values: *mut pg_sys::Datum,
            nulls: *mut bool,
        );
        pub fn CommandCounterIncrement();
        pub fn SPI_connect() -> c_int;
        pub fn SPI_finish() -> c_int;
        pub fn SPI_prepare(src: *const c_char, nargs: c_int, argtypes: *mut pg_sys::Oid) -> pg_sys::SPIPlanPtr;
        pub fn SPI_keepplan(plan: pg_sys::SPIPlanPtr) -> c_int;
        pub fn SPI_execute_plan(
            plan: pg_sys::SPIPlanPtr,
            values: *mut pg_sys::Datum,
            nulls: *const c_char,
            read_only: bool,
            count: std::ffi::c_long,
        ) -> c_int;
        pub fn SPI_execute_with_args(
            src: *const c_char,
            nargs: c_int,
            argtypes: *mut pg_sys::Oid,
            values: *mut pg_sys::Datum,
            nulls: *const c_char,
            read_only: bool,
            count: std::ffi::c_long,
        ) -> c_int;
        pub fn SPI_cursor_open_with_args(
            name: *const c_char,
            src: *const c_char,
            nargs: c_int,
            argtypes: *mut pg_sys::Oid,
            values: *mut pg_sys::Datum,
            nulls: *const c_char,
            read_only: bool,
            options: c_int,
        ) -> pg_sys::Portal;
        pub fn SPI_cursor_find(name: *const c_char) -> pg_sys::Portal;
        pub fn SPI_cursor_fetch(portal: pg_sys::Portal, forward: bool, count: std::ffi::c_long);
        pub fn SPI_cursor_close(portal: pg_sys::Portal);
        pub fn GetUserIdAndSecContext(user: *mut pg_sys::Oid, context: *mut c_int);
        pub fn SetUserIdAndSecContext(user: pg_sys::Oid, context: c_int);
        pub fn NewGUCNestLevel() -> c_int;
        pub fn AtEOXact_GUC(commit: bool, level: c_int);
        pub fn PushActiveSnapshot(snapshot: pg_sys::Snapshot);
        pub fn PopActiveSnapshot();
        pub fn GetLatestSnapshot() -> pg_sys::Snapshot;
        pub fn MemoryContextAllocExtended(context: pg_sys::MemoryContext, size: usize, flags: c_int) -> *mut c_void;
        pub fn pfree(pointer: *mut c_void);
        pub fn MemoryContextReset(context: pg_sys::MemoryContext);
    }
}
