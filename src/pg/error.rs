//! The error every function of the extension raises (design: SQLSTATE, a short message, a DETAIL
//! that is JSON with a stable `reason`, a HINT a person can follow).

use super::guard::raw;
use serde::Serialize;
use std::ffi::CString;

/// What a function of the extension returns before it reaches SQL.
pub type Result<T> = std::result::Result<T, Error>;

/// A five-character SQLSTATE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State(&'static str);

#[allow(dead_code)] // the whole vocabulary of design §4, used or not
impl State {
    /// PT401: not authenticated.
    pub const UNAUTHENTICATED: State = State("PT401");
    /// PT402: not enough credits, or no subscription that pays.
    pub const PAYMENT_REQUIRED: State = State("PT402");
    /// PT403: not allowed (no seat, another organization, another identity).
    pub const FORBIDDEN: State = State("PT403");
    /// PT404: unknown.
    pub const NOT_FOUND: State = State("PT404");
    /// PT409: conflict with what is there.
    pub const CONFLICT: State = State("PT409");
    /// PT422: not in a state for this.
    pub const UNPROCESSABLE: State = State("PT422");
    /// PT429: limit reached.
    pub const TOO_MANY: State = State("PT429");
    /// 22023: an argument that can never be right.
    pub const INVALID_PARAMETER: State = State("22023");
    /// 22003: a number out of range.
    pub const OUT_OF_RANGE: State = State("22003");
    /// 42501: the role may not do this.
    pub const INSUFFICIENT_PRIVILEGE: State = State("42501");
    /// 0A000: not supported.
    pub const NOT_SUPPORTED: State = State("0A000");
    /// 54000: an argument larger than this function takes.
    pub const TOO_LARGE: State = State("54000");
    /// 55000: the tables are missing or of another version, or the set-up is incomplete.
    pub const NOT_READY: State = State("55000");
    /// 25006: the transaction may only read.
    pub const READ_ONLY: State = State("25006");
    /// 40001: what was decided upon has changed; the transaction can be run again.
    pub const SERIALIZATION: State = State("40001");
    /// XX000: an internal inconsistency.
    pub const INTERNAL: State = State("XX000");

    fn packed(self) -> i32 {
        self.0.bytes().rev().fold(0, |packed, byte| (packed << 6) + ((i32::from(byte) - i32::from(b'0')) & 0x3F))
    }
}

/// An error with everything a program and a person need. Never holds a token or a secret.
#[derive(Clone, Debug, PartialEq)]
pub struct Error(Box<Body>);

#[derive(Clone, Debug, PartialEq)]
struct Body {
    state: State,
    reason: &'static str,
    message: String,
    hint: String,
    /// Names and JSON texts, in the order in which they are shown.
    detail: Vec<(String, String)>,
}

impl Error {
    /// `reason` is stable and snake_case; it becomes DETAIL's `"reason"`.
    pub fn new(state: State, reason: &'static str, message: impl Into<String>) -> Self {
        Self(Box::new(Body { state, reason, message: message.into(), hint: String::new(), detail: Vec::new() }))
    }

    /// What the reader can do about it.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = hint.into();
        self
    }

    /// One more member of DETAIL's object.
    pub fn detail(mut self, name: &str, value: impl Serialize) -> Self {
        self.0.detail.retain(|(known, _)| known != name);
        self.0.detail.push((name.to_owned(), json(&value)));
        self
    }

    /// The same where DETAIL's object does not have it yet.
    pub fn or_detail(self, name: &str, value: impl Serialize) -> Self {
        if self.0.detail.iter().any(|(known, _)| known == name) { self } else { self.detail(name, value) }
    }

    /// The stable name of what went wrong.
    #[allow(dead_code)] // what tests of the rules ask
    pub fn reason(&self) -> &'static str {
        self.0.reason
    }

    /// Its SQLSTATE.
    pub fn sqlstate(&self) -> &'static str {
        self.0.state.0
    }

    fn detail_text(&self) -> String {
        let mut text = format!("{{\"reason\":{}", json(&self.0.reason));
        for (name, value) in &self.0.detail {
            text.push_str(&format!(",{}:{value}", json(name)));
        }
        text.push('}');
        text
    }

    /// Raises the error in Postgres and does not return.
    pub(super) fn raise(self) -> ! {
        let state = self.0.state.packed();
        let detail = copy_to_postgres(&self.detail_text());
        let message = copy_to_postgres(&self.0.message);
        let hint = (!self.0.hint.is_empty()).then(|| copy_to_postgres(&self.0.hint));
        drop(self);
        // SAFETY: the strings live in Postgres' memory, nothing here has a destructor, and errfinish
        // at ERROR does not return.
        unsafe {
            raw::errstart(pgrx::PgLogLevel::ERROR as i32, std::ptr::null());
            raw::errcode(state);
            raw::errmsg(c"%s".as_ptr(), message);
            raw::errdetail(c"%s".as_ptr(), detail);
            if let Some(hint) = hint {
                raw::errhint(c"%s".as_ptr(), hint);
            }
            raw::errfinish(c"pg_tenancy".as_ptr(), 0, c"".as_ptr());
        }
        unreachable!("errfinish returned from an error")
    }
}

fn json(value: &(impl Serialize + ?Sized)) -> String {
    serde_json::to_string(value).unwrap_or_else(|_| "null".to_owned())
}

/// Gives an error of Postgres that the design knows a reason and a hint, where it has no DETAIL of its own.
///
/// # Safety
/// `data` must be an error that is going to be thrown again.
pub(super) unsafe fn explain(data: *mut pgrx::pg_sys::ErrorData) {
    // SAFETY: the caller's; the copies live as long as what is about to be cleaned up, and throwing copies them.
    unsafe {
        let (reason, hint) = match (*data).sqlerrcode {
            code if code == State::READ_ONLY.packed() => {
                ("read_only_transaction", "Call it in a transaction that may write, on the primary.")
            }
            code if code == State::SERIALIZATION.packed() => ("serialization_failure", "Run the transaction again."),
            _ => return,
        };
        if (*data).detail.is_null() {
            (*data).detail = copy_to_postgres(&format!("{{\"reason\":\"{reason}\"}}")).cast_mut();
            if (*data).hint.is_null() {
                (*data).hint = copy_to_postgres(hint).cast_mut();
            }
        }
    }
}

/// A NUL-terminated copy in the current memory context, which the error handling cleans up.
fn copy_to_postgres(text: &str) -> *const std::ffi::c_char {
    let text = CString::new(text.replace('\0', "")).unwrap_or_default();
    // SAFETY: pstrdup copies a valid C string.
    unsafe { pgrx::pg_sys::pstrdup(text.as_ptr()) }
}
