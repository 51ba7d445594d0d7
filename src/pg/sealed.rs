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

use super::identity::{Identity, canonical_bigint, canonical_uuid};
use super::{Error, Result, State, cursors};
use pgrx::pg_sys;
use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char, c_void};
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering::Relaxed};

/// The text fields an accessor reads.
#[derive(Clone, Copy)]
pub(super) enum Text {
    UserId,
    TenantId,
    OrgId,
    OrgRole,
    Pool,
    SessionId,
    CorrelationId,
    Namespace,
}
const TEXTS: usize = 8;

/// The uuid fields an accessor reads.
#[derive(Clone, Copy)]
pub(super) enum Uuid {
    User,
    Organization,
    Seat,
    Tenant,
    Org,
}
const UUIDS: usize = 5;

/// What the accessors read: one flat allocation, made by the check hook, owned by the setting.
#[repr(C)]
pub(super) struct Block {
    /// Microseconds since 2000-01-01; `i64::MAX`: never.
    pub expires_at: i64,
    pub tenant_bigint: Option<i64>,
    uuids: [Option<uuid::Uuid>; UUIDS],
    /// Offset from the block's start and length; offset 0: NULL.
    texts: [(u32, u32); TEXTS],
}

/// Only `seal` opens it, for one `set_config_option`: the identity whose value is being set, else null.
static GATE: AtomicPtr<Identity> = AtomicPtr::new(ptr::null_mut());
/// The identity in force, or null. Points into the setting's `extra`.
static CURRENT: AtomicPtr<Block> = AtomicPtr::new(ptr::null_mut());
/// Counts the changes of `CURRENT`, so that what was derived from it can be told stale.
static GENERATION: AtomicU64 = AtomicU64::new(1);
/// Where Postgres keeps the setting's text.
static mut VALUE: *mut c_char = ptr::null_mut();

/// The first identity sealed in this transaction.
struct First {
    fingerprint: [u8; 32],
    identity: Identity,
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

impl Block {
    pub(super) fn text(&self, field: Text) -> Option<&[u8]> {
        let (offset, length) = self.texts[field as usize];
        // SAFETY: `encode` wrote offset and length within this allocation.
        (offset != 0).then(|| unsafe {
            std::slice::from_raw_parts(ptr::from_ref(self).cast::<u8>().add(offset as usize), length as usize)
        })
    }

    pub(super) fn uuid(&self, field: Uuid) -> Option<&uuid::Uuid> {
        self.uuids[field as usize].as_ref()
    }
}

/// The identity in force, whole; none where there is none or it has expired.
pub fn current_value() -> Option<Identity> {
    live()?;
    // SAFETY: VALUE is the setting's NUL-terminated text while CURRENT is set.
    let value = unsafe { CStr::from_ptr(VALUE) };
    Identity::from_value(value.to_str().ok()?).ok()
}

/// Who the identity in force is for, expired or not.
#[allow(dead_code)] // whole, though not every caller asks for all of it
pub struct Bearer {
    /// Not expired at the start of this statement.
    pub live: bool,
    pub user_id: String,
    pub org_id: Option<String>,
    pub namespace: String,
    pub tenant_id: String,
    pub correlation_id: Option<String>,
}

/// The bearer of the identity in force; none where none is set. An expired identity opens nothing, but it still
/// keeps a transaction from acting for somebody else.
pub fn bearer() -> Option<Bearer> {
    // SAFETY: as in `live`; everything is copied.
    let block = unsafe { CURRENT.load(Relaxed).as_ref() }?;
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

/// Whether the transaction had an identity and acts for nobody now: it was cleared, or it expired.
pub fn has_ended() -> bool {
    live().is_none() && FIRST.with_borrow(Option::is_some)
}

/// The tenant of the identity in force, without reading the rest of it.
pub fn current_tenant() -> Option<String> {
    live()?.text(Text::TenantId).map(|tenant| String::from_utf8_lossy(tenant).into_owned())
}

/// Makes `identity` the transaction's identity. `fingerprint` names the proof it came from: the same
/// proof again is a no-op, another identity is PT403 `identity_already_set`.
pub fn seal(identity: Identity, fingerprint: [u8; 32]) -> Result<()> {
    let known = FIRST.with_borrow(|first| first.as_ref().map(|first| first.fingerprint == fingerprint));
    match known {
        Some(false) => return Err(already_set()),
        Some(true) if !CURRENT.load(Relaxed).is_null() => return Ok(()),
        _ => {}
    }
    let value = identity.to_value().ok().and_then(|value| CString::new(value).ok()).ok_or_else(|| {
        Error::new(State::INTERNAL, "identity_not_serialisable", "The identity could not be written down")
    })?;
    cursors::close_held_by_others(&identity);
    set(&value, Some(&identity));
    if known.is_none() {
        // SAFETY: reads a counter.
        let nest_level = unsafe { pg_sys::GetCurrentTransactionNestLevel() };
        FIRST.set(Some(First { fingerprint, identity, nest_level }));
    }
    Ok(())
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

/// Sets the value of this identity, or the empty one of none.
fn set(value: &CStr, identity: Option<&Identity>) {
    /// Closes the gate on every way out, an error of Postgres included.
    struct Closing;
    impl Drop for Closing {
        fn drop(&mut self) {
            GATE.store(ptr::null_mut(), Relaxed);
        }
    }
    GATE.store(identity.map_or(ptr::null_mut(), |identity| ptr::from_ref(identity).cast_mut()), Relaxed);
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
    FIRST.with_borrow(|first| read(first.as_ref().map(|first| &first.identity)))
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
    // SAFETY: Postgres hands valid pointers, and `set` keeps the gate's identity alive; no catalog access and no error
    // from here on.
    unsafe {
        let value = CStr::from_ptr(*newval);
        if value.is_empty() {
            return true;
        }
        let block = if let Some(identity) = GATE.load(Relaxed).as_ref() {
            encode(identity)
        } else if pg_sys::InitializingParallelWorker {
            let Some(identity) = value.to_str().ok().and_then(|value| Identity::from_value(value).ok()) else {
                return refuse();
            };
            encode(&identity)
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

/// Lays the identity out in one allocation that guc.c may free.
fn encode(identity: &Identity) -> *mut Block {
    let texts: [Option<&str>; TEXTS] = [
        Some(&identity.user_id),
        Some(&identity.tenant_id),
        identity.org_id.as_deref(),
        identity.org_role.as_deref(),
        Some(&identity.pool),
        identity.session_id.as_deref(),
        identity.correlation_id.as_deref(),
        Some(&identity.namespace),
    ];
    let head = size_of::<Block>();
    let mut offsets = [(0, 0); TEXTS];
    let mut end = head;
    for (slot, text) in offsets.iter_mut().zip(texts) {
        if let Some(text) = text {
            *slot = (end as u32, text.len() as u32);
            end += text.len();
        }
    }
    let block = Block {
        expires_at: identity.expires_at.unwrap_or(i64::MAX),
        tenant_bigint: canonical_bigint(&identity.tenant_id),
        uuids: [
            identity.user_uuid,
            identity.organization_id,
            identity.seat_id,
            canonical_uuid(&identity.tenant_id),
            identity.org_id.as_deref().and_then(canonical_uuid),
        ],
        texts: offsets,
    };
    // SAFETY: the allocation holds `head` bytes for the block and the texts behind it; malloc aligns
    // for any type.
    unsafe {
        let memory = allocate(end);
        if !memory.is_null() {
            memory.cast::<Block>().write(block);
            for ((offset, length), text) in offsets.into_iter().zip(texts) {
                if let Some(text) = text {
                    ptr::copy_nonoverlapping(text.as_ptr(), memory.cast::<u8>().add(offset as usize), length as usize);
                }
            }
        }
        memory.cast()
    }
}

/// Memory that guc.c frees: malloc's up to 15, the settings' own context from 16 on.
#[cfg(any(feature = "pg14", feature = "pg15"))]
unsafe fn allocate(size: usize) -> *mut c_void {
    unsafe extern "C" {
        fn malloc(size: usize) -> *mut c_void;
    }
    // SAFETY: plain allocation.
    unsafe { malloc(size) }
}

#[cfg(not(any(feature = "pg14", feature = "pg15")))]
unsafe fn allocate(size: usize) -> *mut c_void {
    // SAFETY: plain allocation; LOG level, so that it returns null instead of raising.
    unsafe { pg_sys::guc_malloc(pgrx::PgLogLevel::LOG as i32, size) }
}
