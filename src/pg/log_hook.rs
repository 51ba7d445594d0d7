//! Every line of the server's log that is written under an identity says whose: tenant, organization, user and
//! correlation id, before the line's DETAIL.
//!
//! `detail_log` is the field of an error that all three formats (text, CSV, JSON) show in place of DETAIL and that no
//! client is sent. The hook runs inside error handling, critical sections and out-of-memory included: it looks at the
//! sealed block alone, calls nothing that raises, and leaves the line as it is where there is no memory.

use super::block::Text;
use super::guard::raw;
use super::log_note::{Note, PREFIX};
use super::sealed;
use super::settings;
use pgrx::pg_sys;
use std::ffi::{CStr, c_char};
use std::ptr;

static mut NEXT: pg_sys::emit_log_hook_type = None;

pub(super) fn register() {
    // SAFETY: called once from _PG_init.
    unsafe {
        NEXT = pg_sys::emit_log_hook;
        pg_sys::emit_log_hook = Some(note_identity);
    }
}

/// Not behind pgrx's guard: there is nothing in it that raises or panics, and in the middle of an error nothing may.
unsafe extern "C-unwind" fn note_identity(data: *mut pg_sys::ErrorData) {
    // SAFETY: Postgres hands a valid error that it is about to write; NEXT is set once.
    unsafe {
        if settings::log_identity() && (*data).output_to_server {
            add_note(&mut *data);
        }
        if let Some(next) = NEXT {
            next(data);
        }
    }
}

/// SAFETY of callers: `data` is an error under emission.
unsafe fn add_note(data: &mut pg_sys::ErrorData) {
    let Some(block) = sealed::in_force() else { return };
    // SAFETY: the texts are NUL-terminated or null; what is allocated belongs to the error's own context, as
    // Postgres expects of the field, which it frees with the error.
    unsafe {
        let own = data.detail_log;
        let detail = if own.is_null() { data.detail } else { own };
        let detail = (!detail.is_null()).then(|| CStr::from_ptr(detail).to_bytes());
        if !own.is_null() && detail.is_some_and(|detail| detail.starts_with(PREFIX)) {
            return;
        }
        let note = Note {
            fields: [
                ("tenant_id", block.text(Text::TenantId)),
                ("org_id", block.text(Text::OrgId)),
                ("user_id", block.text(Text::UserId)),
                ("correlation_id", block.text(Text::CorrelationId)),
            ],
            detail,
        };
        let context = if data.assoc_context.is_null() { pg_sys::ErrorContext } else { data.assoc_context };
        let memory = raw::MemoryContextAllocExtended(context, note.len() + 1, pg_sys::MCXT_ALLOC_NO_OOM as i32);
        if memory.is_null() {
            return;
        }
        let mut end = memory.cast::<u8>();
        note.write(&mut |piece| {
            ptr::copy_nonoverlapping(piece.as_ptr(), end, piece.len());
            end = end.add(piece.len());
        });
        *end = 0;
        data.detail_log = memory.cast::<c_char>();
        if !own.is_null() {
            raw::pfree(own.cast());
        }
    }
}
