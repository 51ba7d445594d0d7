//! The extension's settings. The sealed identity has its own file, [`super::sealed`].

use super::sealed;
use pgrx::pg_sys;
use pgrx::{GucContext, GucFlags, GucRegistry, GucSetting};
use std::ffi::CString;
use std::path::PathBuf;

static MASTER_KEY_FILE: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(None);

pub(super) fn define() {
    GucRegistry::define_string_guc(
        c"tenancy.master_key_file",
        c"File that holds the master key for secrets at rest.",
        c"32 random bytes, raw, as 64 hex digits or as base64; mode 0600 or stricter, owned by the server's user.",
        &MASTER_KEY_FILE,
        GucContext::Sighup,
        GucFlags::SUPERUSER_ONLY,
    );
    sealed::define();
    // SAFETY: called once, from _PG_init, after every setting of ours is defined.
    unsafe {
        #[cfg(not(feature = "pg14"))]
        pg_sys::MarkGUCPrefixReserved(c"tenancy".as_ptr());
        #[cfg(feature = "pg14")]
        pg_sys::EmitWarningsOnPlaceholders(c"tenancy".as_ptr());
    }
}

/// The file named by `tenancy.master_key_file`, if one is named.
pub fn master_key_file() -> Option<PathBuf> {
    let name = MASTER_KEY_FILE.get()?;
    let name = name.to_str().ok().filter(|name| !name.is_empty())?;
    Some(PathBuf::from(name))
}
