//! The sealed setting `tenancy.identity`: the carrier of a transaction's identity.
//!
//! A check hook accepts a value only while [`GATE`] is open, which [`seal`] alone opens for the
//! length of one call, or while a parallel worker takes over its leader's settings. Everything else
//! that can write a setting (SET, set_config, ALTER ROLE, a function's SET clause, PGOPTIONS, a
//! placeholder from before the library was loaded) is refused. The setting is LOCAL, so savepoints,
//! rollback and commit restore it without help.
//!
//! "Set once per transaction" is kept in a static of its own ([`FIRST`]): the setting can be
//! emptied in mid-transaction by RESET, and that must not let a second identity in.

use super::block::{self, Block, Text};
use super::identity::Identity;
use super::sealable::{Sealable, Typed};
use super::{Error, Result, State, cursors, random};
use pgrx::pg_sys;
use std::cell::RefCell;
use std::ffi::{CStr, c_char, c_void};
use std::ptr;
use std::rc::Rc;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering::Relaxed};

/// Only `seal` opens it, for one `set_config_option`: what is being set, else null.
static GATE: AtomicPtr<Sealing> = AtomicPtr::new(ptr::null_mut());
/// The identity in force, or null. Points into the setting's `extra`.
static CURRENT: AtomicPtr<Block> = AtomicPtr::new(ptr::null_mut());
/// Counts the changes of `CURRENT`, so that what was derived from it can be told stale.
static GENERATION: AtomicU64 = AtomicU64::new(1);
/// Where Postgres keeps the setting's text.
static mut VALUE: *mut c_char = ptr::null_mut();

/// What a call of [`seal`] sets.
struct Sealing<'a> {
    sealable: &'a Sealable,
    correlation_id: &'a str,
}

/// The first identity sealed in this transaction.
struct First {
    fingerprint: [u8; 32],
    sealable: Rc<Sealable>,
    nest_level: i32,
}

thread_local! {
    static FIRST: RefCell<Option<First>> = const { RefCell::new(None) };
}

pub(super) fn define() {
    let flags =
        pg_sys::GUC_NO_SHOW_ALL | pg_sys::GUC_NOT_IN_SAMPLE | pg_sys::GUC_DISALLOW_IN_FILE | pg_sys::GUC_SUPERUSER_ONLY;
    // SAFETY: called once from _PG_init; the strings and hooks live as long as the process.
    unsafe {
        pg_sys::DefineCustomStringVariable(
            c"tenancy.identity".as_ptr(),
            c"The sealed identity of the transaction.".as_ptr(),
            c"Only tenancy.authenticate and its kin can set it.".as_ptr(),
            &raw mut VALUE,
            c"".as_ptr(),
            pg_sys::GucContext::PGC_USERSET,
            flags as i32,
            Some(check),
            Some(assign),
            None,
        );
    }
}

/// The block in force at the start of this statement, or none: no identity, or an expired one.
pub(super) fn live() -> Option<&'static Block> {
    // SAFETY: `assign` keeps CURRENT equal to the setting's extra, which guc.c frees only after a
    // later assign. Callers copy what they read before they return to Postgres.
    let block = unsafe { CURRENT.load(Relaxed).as_ref() }?;
    (block.expires_at > super::statement_start_micros()).then_some(block)
}

/// The block in force, expired or not: whom a line of the log is about. Reads nothing else.
pub(super) fn in_force() -> Option<&'static Block> {
    // SAFETY: as in `live`.
    unsafe { CURRENT.load(Relaxed).as_ref() }
}

pub(super) fn generation() -> u64 {
    GENERATION.load(Relaxed)
}

/// The identity in force, whole; none where there is none or it has expired.
pub fn current_value() -> Option<Identity> {
    live()?;
    // SAFETY: VALUE is the setting's NUL-terminated text while CURRENT is set.
    let value = unsafe { CStr::from_ptr(VALUE) };
    Identity::from_value(value.to_str().ok()?).ok()
}

/// Who the transaction's identity is for.
#[allow(dead_code)] // whole, though not every caller asks for all of it
pub struct Bearer {
    /// In force, and not expired at the start of this statement.
    pub live: bool,
    pub user_id: String,
    pub org_id: Option<String>,
    pub namespace: String,
    pub tenant_id: String,
    pub correlation_id: Option<String>,
}

/// The bearer of the transaction's identity; none where it never had one. An identity that expired or was cleared opens
/// nothing, but it still keeps the transaction from acting for somebody else.
pub fn bearer() -> Option<Bearer> {
    // SAFETY: as in `live`; everything is copied.
    let Some(block) = (unsafe { CURRENT.load(Relaxed).as_ref() }) else { return with_first(|first| first.map(ended)) };
    let text = |field| block.text(field).map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    Some(Bearer {
        live: block.expires_at > super::statement_start_micros(),
        user_id: text(Text::UserId).unwrap_or_default(),
        org_id: text(Text::OrgId),
        namespace: text(Text::Namespace).unwrap_or_default(),
        tenant_id: text(Text::TenantId).unwrap_or_default(),
        correlation_id: text(Text::CorrelationId),
    })
}

/// Whom an identity was for that was cleared.
fn ended(identity: &Identity) -> Bearer {
    Bearer {
        live: false,
        user_id: identity.user_id.clone(),
        org_id: identity.org_id.clone(),
        namespace: identity.namespace.clone(),
        tenant_id: identity.tenant_id.clone(),
        correlation_id: identity.correlation_id.clone(),
    }
}

/// Whether the transaction had an identity and acts for nobody now: it was cleared, or it expired.
pub fn has_ended() -> bool {
    live().is_none() && FIRST.with_borrow(Option::is_some)
}

/// The tenant of the identity in force, without reading the rest of it.
pub fn current_tenant() -> Option<String> {
    live()?.text(Text::TenantId).map(|tenant| String::from_utf8_lossy(tenant).into_owned())
}

/// Makes an identity the transaction's. `fingerprint` names the proof it came from: the same proof again is a no-op,
/// another identity is PT403 `identity_already_set`. Without a correlation id of the request's or its own it gets one.
pub fn seal(sealable: &Rc<Sealable>, correlation_id: Option<&str>, fingerprint: [u8; 32]) -> Result<()> {
    let known = FIRST.with_borrow(|first| first.as_ref().map(|first| first.fingerprint == fingerprint));
    match known {
        Some(false) => return Err(already_set()),
        Some(true) if !CURRENT.load(Relaxed).is_null() => return Ok(()),
        _ => {}
    }
    let identity = sealable.identity();
    let mut buffer = uuid::Uuid::encode_buffer();
    let correlation_id = match correlation_id.or(identity.correlation_id.as_deref()) {
        Some(id) => id,
        None => new_correlation_id().hyphenated().encode_lower(&mut buffer),
    };
    let value = sealable.value(correlation_id)?;
    cursors::close_held_by_others(identity);
    set(&value, Some(Sealing { sealable, correlation_id }));
    if known.is_none() {
        // SAFETY: reads a counter.
        let nest_level = unsafe { pg_sys::GetCurrentTransactionNestLevel() };
        FIRST.set(Some(First { fingerprint, sealable: Rc::clone(sealable), nest_level }));
    }
    Ok(())
}

/// A uuid of version 7. Nothing sorts by it within a millisecond, so it needs no counter.
fn new_correlation_id() -> uuid::Uuid {
    let since_1970 = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
    uuid::Builder::from_unix_timestamp_millis(since_1970.as_millis() as u64, &random::bytes()).into_uuid()
}

/// Empties the setting until the end of the transaction. The transaction stays bound to the identity
/// it had.
pub fn unseal() {
    set(c"", None);
}

fn already_set() -> Error {
    Error::new(State::FORBIDDEN, "identity_already_set", "This transaction already has another identity")
        .hint("An identity is set once per transaction: commit or roll back, then authenticate again.")
}

/// Sets the value of what is sealed, or the empty one of nothing.
fn set(value: &CStr, sealing: Option<Sealing>) {
    /// Closes the gate on every way out, an error of Postgres included.
    struct Closing;
    impl Drop for Closing {
        fn drop(&mut self) {
            GATE.store(ptr::null_mut(), Relaxed);
        }
    }
    let gate = sealing.as_ref().map_or(ptr::null(), ptr::from_ref);
    GATE.store(gate.cast_mut().cast(), Relaxed);
    let _closing = Closing;
    // SAFETY: the strings outlive the call; an error unwinds through `_closing`.
    unsafe {
        pg_sys::set_config_option(
            c"tenancy.identity".as_ptr(),
            value.as_ptr(),
            pg_sys::GucContext::PGC_USERSET,
            pg_sys::GucSource::PGC_S_SESSION,
            pg_sys::GucAction::GUC_ACTION_LOCAL,
            true,
            0,
            false,
        );
    }
}

/// The identity that this transaction is bound to, if any, for whoever must know at its end.
pub(super) fn with_first<T>(read: impl FnOnce(Option<&Identity>) -> T) -> T {
    FIRST.with_borrow(|first| read(first.as_ref().map(|first| first.sealable.identity())))
}

/// At the end of a top-level transaction.
pub(super) fn forget_first() {
    FIRST.set(None);
}

/// At the end of a subtransaction at `level`: rolled back, an identity first sealed in it never was;
/// committed, it becomes its parent's.
pub(super) fn end_of_subtransaction(level: i32, committed: bool) {
    FIRST.with_borrow_mut(|first| {
        let Some(known) = first.as_mut().filter(|first| first.nest_level >= level) else { return };
        if committed {
            known.nest_level = level - 1;
        } else {
            *first = None;
        }
    });
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn check(
    newval: *mut *mut c_char,
    extra: *mut *mut c_void,
    _source: pg_sys::GucSource::Type,
) -> bool {
    // SAFETY: Postgres hands valid pointers, and `set` keeps what the gate points to alive; no catalog access and no error
    // from here on.
    unsafe {
        let value = CStr::from_ptr(*newval);
        if value.is_empty() {
            return true;
        }
        let block = if let Some(Sealing { sealable, correlation_id }) = GATE.load(Relaxed).as_ref() {
            block::encode(sealable.identity(), sealable.typed(), Some(correlation_id))
        } else if pg_sys::InitializingParallelWorker {
            let Some(identity) = value.to_str().ok().and_then(|value| Identity::from_value(value).ok()) else {
                return refuse();
            };
            block::encode(&identity, &Typed::of(&identity), identity.correlation_id.as_deref())
        } else {
            return refuse();
        };
        *extra = block.cast();
        !block.is_null()
    }
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn assign(_newval: *const c_char, extra: *mut c_void) {
    CURRENT.store(extra.cast(), Relaxed);
    GENERATION.fetch_add(1, Relaxed);
}

/// SAFETY of callers: inside a check hook.
unsafe fn refuse() -> bool {
    // SAFETY: the message is copied by Postgres before it is freed with the error's context.
    unsafe {
        pg_sys::GUC_check_errcode(pgrx::PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE as i32);
        pg_sys::GUC_check_errmsg_string =
            pg_sys::pstrdup(c"permission denied to set parameter \"tenancy.identity\"".as_ptr());
        pg_sys::GUC_check_errdetail_string = pg_sys::pstrdup(c"{\"reason\": \"identity_is_sealed\"}".as_ptr());
        pg_sys::GUC_check_errhint_string = pg_sys::pstrdup(c"Call tenancy.authenticate(token).".as_ptr());
    }
    false
}
