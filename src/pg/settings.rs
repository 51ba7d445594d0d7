//! The extension's settings. The sealed identity has its own file, [`super::sealed`].

use super::{limit_settings, sealed};
use pgrx::pg_sys;
use pgrx::{GucContext, GucFlags, GucRegistry, GucSetting};
use std::ffi::{CStr, CString};
use std::path::PathBuf;

static REQUEST_TOKEN_HEADER: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c"authorization"));
static PERSONAL_DEFAULT_ORG: GucSetting<bool> = GucSetting::<bool>::new(false);
static EARLY_LOCK_RELEASE: GucSetting<bool> = GucSetting::<bool>::new(true);
static LOG_IDENTITY: GucSetting<bool> = GucSetting::<bool>::new(true);
static MASTER_KEY_FILE: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(None);

/// Seconds that the clock of credits is moved, in builds for tests; a release has no such setting.
#[cfg(debug_assertions)]
static CLOCK_OFFSET: GucSetting<i32> = GucSetting::<i32>::new(0);

pub(super) fn define() {
    GucRegistry::define_string_guc(
        c"tenancy.master_key_file",
        c"File that holds the master key for secrets at rest.",
        c"32 random bytes, raw, as 64 hex digits or as base64; mode 0600 or stricter, owned by the server's user (or by root, if the server can read it).",
        &MASTER_KEY_FILE,
        GucContext::Sighup,
        GucFlags::SUPERUSER_ONLY,
    );
    GucRegistry::define_string_guc(
        c"tenancy.request_token_header",
        c"HTTP header that tenancy.authenticate_request() takes the bearer's token from.",
        c"For set-ups where PostgREST cannot verify the bearer itself and must not see it in Authorization.",
        &REQUEST_TOKEN_HEADER,
        GucContext::Suset,
        GucFlags::default(),
    );
    GucRegistry::define_bool_guc(
        c"tenancy.personal_default_org",
        c"Whether a personal identity has modules and credentials, in an organization named 'default' of its own tenant.",
        c"Off: modules and credentials are for organizations only.",
        &PERSONAL_DEFAULT_ORG,
        GucContext::Suset,
        GucFlags::default(),
    );
    limit_settings::define();
    GucRegistry::define_bool_guc(
        c"tenancy.early_lock_release",
        c"Gives up a contended pool's lock before the commit is flushed; the client is answered after.",
        c"No acknowledged commit can be lost either way. Off: a hot pool admits one debit a flush.",
        &EARLY_LOCK_RELEASE,
        GucContext::Userset,
        GucFlags::default(),
    );
    GucRegistry::define_bool_guc(
        c"tenancy.log_identity",
        c"Lines of the server's log that are written under an identity say whose: tenant, organization, user, correlation id.",
        c"They stand before the line's DETAIL, in text, CSV and JSON logs; no client is sent them.",
        &LOG_IDENTITY,
        GucContext::Suset,
        GucFlags::default(),
    );
    #[cfg(debug_assertions)]
    GucRegistry::define_int_guc(
        c"tenancy.test_clock_offset",
        c"Seconds that the clock of credits is moved; for tests.",
        c"Builds without debug assertions do not have it.",
        &CLOCK_OFFSET,
        i32::MIN,
        i32::MAX,
        GucContext::Suset,
        GucFlags::SUPERUSER_ONLY | GucFlags::NO_SHOW_ALL | GucFlags::DISALLOW_IN_FILE,
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

/// Whether contended locks are released early, by `tenancy.early_lock_release`.
pub(super) fn early_lock_release() -> bool {
    EARLY_LOCK_RELEASE.get()
}

/// Whether lines of the log say under which identity they were written, by `tenancy.log_identity`.
pub(super) fn log_identity() -> bool {
    LOG_IDENTITY.get()
}

/// The header that carries the bearer's token, by `tenancy.request_token_header`.
pub fn request_token_header() -> String {
    REQUEST_TOKEN_HEADER.get().and_then(|name| name.into_string().ok()).unwrap_or_default()
}

/// A setting that the client may write, such as PostgREST's `request.headers`; none where it is unset or empty.
pub fn client_setting(name: &CStr) -> Option<String> {
    // SAFETY: gives null for a setting that is not there; the text is copied at once.
    unsafe {
        let value = pg_sys::GetConfigOption(name.as_ptr(), true, false);
        (!value.is_null())
            .then(|| CStr::from_ptr(value).to_string_lossy().into_owned())
            .filter(|value| !value.is_empty())
    }
}

/// The file named by `tenancy.master_key_file`, if one is named.
pub fn master_key_file() -> Option<PathBuf> {
    let name = MASTER_KEY_FILE.get()?;
    let name = name.to_str().ok().filter(|name| !name.is_empty())?;
    Some(PathBuf::from(name))
}

/// How far the clock of credits is moved, in microseconds.
pub fn clock_offset_micros() -> i64 {
    #[cfg(debug_assertions)]
    return i64::from(CLOCK_OFFSET.get()) * 1_000_000;
    #[cfg(not(debug_assertions))]
    0
}
