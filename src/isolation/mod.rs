//! Isolation: what may they see. Nearly all of it is SQL; this file says in which order it loads.
//! The names that a tenant uses outside its tables are made in [`names`].

mod names;

use crate::pg::table_owner;
use crate::pg::{self, Error, State};
use pgrx::iter::SetOfIterator;
use pgrx::{VariadicArray, extension_sql_file, pg_extern, pg_sys};

/// A key for a cache outside the database: `tenant:{tenant_id}:…`, in which no part can forge another tenant's prefix.
///
/// Errors: PT401 without an identity; 22023 for a part that is NULL.
#[pg_extern(stable, parallel_safe)]
fn cache_key(parts: VariadicArray<'_, &str>) -> String {
    pg::entry(|| {
        let tenant = tenant()?;
        let parts: Option<Vec<&str>> = parts.iter().collect();
        let parts =
            parts.ok_or_else(|| argument("parts", "must not hold NULL", "Pass '' for a part that is empty."))?;
        Ok(names::cache_key(&tenant, parts.into_iter()))
    })
}

/// A key for `pg_advisory_xact_lock` that is this tenant's own.
///
/// Errors: PT401 without an identity; 22023 for NULL.
#[pg_extern(stable, parallel_safe)]
fn lock_key(name: Option<&str>) -> i64 {
    pg::entry(|| Ok(names::lock_key(&tenant()?, required(name)?)))
}

/// A channel for LISTEN and NOTIFY that is this tenant's own.
///
/// Errors: PT401 without an identity; 22023 for NULL.
#[pg_extern(stable, parallel_safe)]
fn channel(name: Option<&str>) -> String {
    pg::entry(|| Ok(names::channel(&tenant()?, required(name)?)))
}

/// Internal: runs a statement on a table with its owner's rights; `argument` is its `$1`.
#[pg_extern(name = "_execute_as_owner", volatile, parallel_unsafe)]
fn execute_as_owner(relation: pg_sys::Oid, statement: &str, argument: &str) -> i64 {
    pg::entry(|| Ok(table_owner::execute(relation, statement, argument)? as i64))
}

/// Internal: reads the rows of a query on a table with its owner's rights; each row is one text.
#[pg_extern(name = "_rows_as_owner", volatile, parallel_unsafe)]
fn rows_as_owner(relation: pg_sys::Oid, query: &str, argument: &str) -> SetOfIterator<'static, Option<String>> {
    pg::entry(|| {
        let mut rows = table_owner::rows(relation, query, argument)?;
        Ok(SetOfIterator::new(std::iter::from_fn(move || pg::entry(|| Ok(rows.next())))))
    })
}

fn tenant() -> pg::Result<String> {
    pg::current_tenant().ok_or_else(|| {
        Error::new(State::UNAUTHENTICATED, "not_authenticated", "Not authenticated")
            .hint("Begin a transaction and call tenancy.authenticate(token) first.")
    })
}

fn required(name: Option<&str>) -> pg::Result<&str> {
    name.ok_or_else(|| argument("name", "must not be NULL", "Pass what the lock or channel is for."))
}

fn argument(parameter: &str, problem: &str, hint: &str) -> Error {
    Error::new(State::INVALID_PARAMETER, "invalid_argument", format!("{parameter} {problem}"))
        .hint(hint)
        .detail("parameter", parameter)
}

extension_sql_file!("../../sql/isolation/shape.sql", name = "isolation_shape", requires = ["accessors", "errors"]);
extension_sql_file!("../../sql/isolation/record.sql", name = "isolation_record", requires = ["isolation_shape"]);
extension_sql_file!("../../sql/isolation/checks.sql", name = "isolation_checks", requires = ["isolation_shape"]);
extension_sql_file!("../../sql/isolation/keys.sql", name = "isolation_keys", requires = ["isolation_record"]);
extension_sql_file!("../../sql/isolation/plan.sql", name = "isolation_plan", requires = ["isolation_keys"]);
extension_sql_file!(
    "../../sql/isolation/protect.sql",
    name = "isolation_protect",
    requires = ["isolation_plan", "isolation_checks"]
);
extension_sql_file!(
    "../../sql/isolation/online_plan.sql",
    name = "isolation_online_plan",
    requires = ["isolation_plan", "isolation_checks"]
);
extension_sql_file!("../../sql/isolation/online.sql", name = "isolation_online", requires = ["isolation_online_plan"]);
extension_sql_file!("../../sql/isolation/audit_rules.sql", name = "isolation_audit_rules", requires = ["errors"]);
extension_sql_file!(
    "../../sql/isolation/audit_tables.sql",
    name = "isolation_audit_tables",
    requires = ["isolation_plan"]
);
extension_sql_file!(
    "../../sql/isolation/audit_around.sql",
    name = "isolation_audit_around",
    requires = ["isolation_audit_tables"]
);
extension_sql_file!(
    "../../sql/isolation/audit.sql",
    name = "isolation_audit",
    requires = ["isolation_audit_rules", "isolation_audit_around"]
);
extension_sql_file!("../../sql/isolation/guard.sql", name = "isolation_guard", requires = ["isolation_audit"]);
extension_sql_file!(
    "../../sql/isolation/copy.sql",
    name = "isolation_copy",
    requires = [cache_key, lock_key, channel, "isolation_record"]
);
extension_sql_file!(
    "../../sql/isolation/offboard.sql",
    name = "isolation_offboard",
    requires = [execute_as_owner, rows_as_owner, "isolation_plan"]
);
