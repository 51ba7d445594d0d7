//! What an error must carry.

use postgres::error::DbError;
use serde_json::Value;
use std::fmt::Debug;

/// The error the extension raised: this SQLSTATE, a DETAIL that is JSON with this reason, and a HINT.
#[track_caller]
pub fn refused<T: Debug>(result: Result<T, postgres::Error>, sqlstate: &str, reason: &str) -> DbError {
    let error = fails_with(result, sqlstate);
    let detail: Value = error
        .detail()
        .and_then(|detail| serde_json::from_str(detail).ok())
        .unwrap_or_else(|| panic!("DETAIL is not JSON: {error:?}"));
    assert_eq!(detail["reason"], reason, "the reason differs: {error:?}");
    assert!(error.hint().is_some_and(|hint| !hint.trim().is_empty()), "there is no HINT: {error:?}");
    assert!(!error.message().is_empty() && error.message().len() < 200, "the message is not short: {error:?}");
    error
}

/// An error with this SQLSTATE, ours or the server's own.
#[track_caller]
pub fn fails_with<T: Debug>(result: Result<T, postgres::Error>, sqlstate: &str) -> DbError {
    let error = match result {
        Ok(value) => panic!("expected SQLSTATE {sqlstate}, but it succeeded: {value:?}"),
        Err(error) => error,
    };
    let error = error.as_db_error().unwrap_or_else(|| panic!("not an error of the server: {error:?}"));
    assert_eq!(error.code().code(), sqlstate, "the SQLSTATE differs: {error:?}");
    error.clone()
}

/// The server ended this connection on an administrator's word. The client may see the end before the reason.
#[track_caller]
pub fn disconnected<T: Debug>(result: Result<T, postgres::Error>) {
    let error = result.expect_err("the connection is ended");
    let code = error.code().map(|code| code.code());
    assert!(error.is_closed() || code == Some("57P01"), "another error: {error:?}");
}
