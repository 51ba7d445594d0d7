//! The accessors: zero-argument C functions that policies compare a column with.
//!
//! They never raise and never touch a catalog. What they return lives as long as the query that
//! asked (`fn_mcxt`), so a full scan copies a value once and not once a row.

use super::block::{Block, Text, Uuid};
use super::sealed;
use super::statement_start_micros;
use pgrx::pg_sys;
use std::ffi::c_void;

/// What an accessor gave the last time this call site asked, good until the identity changes or ends.
struct Given {
    generation: u64,
    expires_at: i64,
    value: pg_sys::Datum,
    is_null: bool,
}

static FINFO: pg_sys::Pg_finfo_record = pg_sys::Pg_finfo_record { api_version: 1 };

/// # Safety
/// `fcinfo` is what Postgres called the function with.
#[inline]
unsafe fn answer(fcinfo: pg_sys::FunctionCallInfo, make: impl Fn(&Block) -> Option<pg_sys::Datum>) -> pg_sys::Datum {
    // SAFETY: fn_extra is ours alone, allocated in the context that outlives this call site.
    unsafe {
        let flinfo = (*fcinfo).flinfo;
        if !flinfo.is_null()
            && let Some(given) = (*flinfo).fn_extra.cast::<Given>().as_ref()
            && given.generation == sealed::generation()
            && given.expires_at > statement_start_micros()
        {
            (*fcinfo).isnull = given.is_null;
            return given.value;
        }
        let value = ask(flinfo, &make);
        (*fcinfo).isnull = value.is_none();
        value.unwrap_or(pg_sys::Datum::from(0))
    }
}

/// The answer from the identity itself, kept for this call site.
///
/// SAFETY of callers: as `answer`.
#[cold]
unsafe fn ask(flinfo: *mut pg_sys::FmgrInfo, make: &dyn Fn(&Block) -> Option<pg_sys::Datum>) -> Option<pg_sys::Datum> {
    let block = sealed::live()?;
    // SAFETY: as in `answer`.
    unsafe {
        if flinfo.is_null() {
            return make(block);
        }
        let memory = pg_sys::MemoryContextSwitchTo((*flinfo).fn_mcxt);
        let value = make(block);
        let mut given = (*flinfo).fn_extra.cast::<Given>();
        if given.is_null() {
            given = pg_sys::palloc(size_of::<Given>()).cast();
        }
        given.write(Given {
            generation: sealed::generation(),
            expires_at: block.expires_at,
            value: value.unwrap_or(pg_sys::Datum::from(0)),
            is_null: value.is_none(),
        });
        pg_sys::MemoryContextSwitchTo(memory);
        (*flinfo).fn_extra = given.cast::<c_void>();
        value
    }
}

fn text(block: &Block, field: Text) -> Option<pg_sys::Datum> {
    block.text(field).map(|text| {
        // SAFETY: copies the bytes into the current memory context.
        unsafe { pg_sys::cstring_to_text_with_len(text.as_ptr().cast(), text.len() as i32) }.into()
    })
}

fn uuid(block: &Block, field: Uuid) -> Option<pg_sys::Datum> {
    block.uuid(field).map(|uuid| {
        // SAFETY: pg_uuid_t is sixteen bytes.
        unsafe {
            let copy = pg_sys::palloc(16).cast::<[u8; 16]>();
            copy.write(*uuid.as_bytes());
            pg_sys::Datum::from(copy)
        }
    })
}

/// One C function and its finfo record.
macro_rules! accessor {
    ($symbol:ident, $finfo:ident, $make:expr) => {
        #[unsafe(no_mangle)]
        extern "C" fn $finfo() -> &'static pg_sys::Pg_finfo_record {
            &FINFO
        }

        #[unsafe(no_mangle)]
        unsafe extern "C-unwind" fn $symbol(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
            // SAFETY: called by Postgres.
            unsafe { answer(fcinfo, $make) }
        }
    };
}

accessor!(tenancy_user_id, pg_finfo_tenancy_user_id, |b| text(b, Text::UserId));
accessor!(tenancy_tenant_id, pg_finfo_tenancy_tenant_id, |b| text(b, Text::TenantId));
accessor!(tenancy_org_id, pg_finfo_tenancy_org_id, |b| text(b, Text::OrgId));
accessor!(tenancy_org_role, pg_finfo_tenancy_org_role, |b| text(b, Text::OrgRole));
accessor!(tenancy_pool, pg_finfo_tenancy_pool, |b| text(b, Text::Pool));
accessor!(tenancy_session_id, pg_finfo_tenancy_session_id, |b| text(b, Text::SessionId));
accessor!(tenancy_correlation_id, pg_finfo_tenancy_correlation_id, |b| text(b, Text::CorrelationId));
accessor!(tenancy_identity_namespace, pg_finfo_tenancy_identity_namespace, |b| text(b, Text::Namespace));
accessor!(tenancy_user_uuid, pg_finfo_tenancy_user_uuid, |b| uuid(b, Uuid::User));
accessor!(tenancy_organization_id, pg_finfo_tenancy_organization_id, |b| uuid(b, Uuid::Organization));
accessor!(tenancy_seat_id, pg_finfo_tenancy_seat_id, |b| uuid(b, Uuid::Seat));
accessor!(tenancy_tenant_uuid, pg_finfo_tenancy_tenant_uuid, |b| uuid(b, Uuid::Tenant));
accessor!(tenancy_org_uuid, pg_finfo_tenancy_org_uuid, |b| uuid(b, Uuid::Org));
accessor!(tenancy_tenant_bigint, pg_finfo_tenancy_tenant_bigint, |b| b.tenant_bigint.map(pg_sys::Datum::from));
accessor!(tenancy_expires_at, pg_finfo_tenancy_expires_at, |b| {
    (b.expires_at != i64::MAX).then(|| pg_sys::Datum::from(b.expires_at))
});
