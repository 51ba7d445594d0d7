//! What the accessors read of an identity: one flat allocation behind the sealed setting.

use super::identity::Identity;
use super::sealable::Typed;
use std::ffi::c_void;
use std::ptr;

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

/// Lays the identity out in one allocation that guc.c may free.
pub(super) fn encode(identity: &Identity, typed: &Typed, correlation_id: Option<&str>) -> *mut Block {
    let texts: [Option<&str>; TEXTS] = [
        Some(&identity.user_id),
        Some(&identity.tenant_id),
        identity.org_id.as_deref(),
        identity.org_role.as_deref(),
        Some(&identity.pool),
        identity.session_id.as_deref(),
        correlation_id,
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
        tenant_bigint: typed.tenant_bigint,
        uuids: [identity.user_uuid, identity.organization_id, identity.seat_id, typed.tenant_uuid, typed.org_uuid],
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
    unsafe { pgrx::pg_sys::guc_malloc(pgrx::PgLogLevel::LOG as i32, size) }
}
