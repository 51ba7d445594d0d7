//! Who is charged: external ids to internal ones, and whether the identity in force allows it.

use crate::pg::{self, Bearer, Error, Result, State, sql};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use uuid::Uuid;

/// Who spends, and from whose pool.
#[derive(Clone, Copy, Debug)]
pub struct Payer {
    /// `users.id`.
    pub user: Uuid,
    /// `organizations.id`; none: the user's own pool.
    pub organization: Option<Uuid>,
}

impl Payer {
    /// The pool's id is its owner's.
    pub fn pool(&self) -> Uuid {
        self.organization.unwrap_or(self.user)
    }

    /// The word for the pool in results, metadata and errors.
    pub fn pool_word(&self) -> &'static str {
        if self.organization.is_some() { "organization" } else { "personal" }
    }
}

/// The payer that a service names. While an identity is in force, even an expired one, it must be that identity's user,
/// and its organization or none.
///
/// Errors: 22023 for an empty or NULL user id and an empty organization id, PT403 `identity_mismatch`, PT404 for an
/// unknown user, PT403 `no_active_seat` for an unknown organization, which is not told from one without a seat.
pub fn named(user_id: Option<&str>, org_id: Option<&str>) -> Result<Payer> {
    let user_id = present(user_id, "user_id")?;
    let org_id = org_id.map(|id| present(Some(id), "org_id")).transpose()?;
    let namespace = allow(user_id, org_id)?;
    let user = user(&namespace, user_id)?.ok_or_else(user_not_found)?;
    let organization = org_id.map(|id| organization(&namespace, id)?.ok_or_else(no_active_seat)).transpose()?;
    Ok(Payer { user, organization })
}

/// Whether the identity in force, if there is one, allows to act for these ids; the namespace they are in.
///
/// Error: PT403 `identity_mismatch`.
pub fn allow(user_id: &str, org_id: Option<&str>) -> Result<String> {
    let Some(bearer) = pg::bearer() else { return Ok(String::new()) };
    require_same(&bearer, user_id, org_id)?;
    Ok(bearer.namespace)
}

/// The payer that is authenticated: the organization acted for, else the user.
///
/// Errors: PT401 without a live identity; PT404 and PT403 as [`named`].
pub fn authenticated() -> Result<Payer> {
    let bearer = pg::bearer().filter(|bearer| bearer.live).ok_or_else(|| {
        Error::new(State::UNAUTHENTICATED, "not_authenticated", "Nobody is authenticated in this transaction").hint(
            "Begin a transaction and call tenancy.authenticate(token) first; an identity ends when its token expires.",
        )
    })?;
    let user = user(&bearer.namespace, &bearer.user_id)?.ok_or_else(user_not_found)?;
    let organization = match &bearer.org_id {
        Some(id) => Some(organization(&bearer.namespace, id)?.ok_or_else(no_active_seat)?),
        None => None,
    };
    Ok(Payer { user, organization })
}

fn require_same(bearer: &Bearer, user_id: &str, org_id: Option<&str>) -> Result<()> {
    if bearer.user_id == user_id && (org_id.is_none() || org_id == bearer.org_id.as_deref()) {
        return Ok(());
    }
    Err(identity_mismatch())
}

/// Whether the identity in force, if there is one, is the one that spent: for holds and refunds, which name no ids.
pub fn require_own(spent: Payer) -> Result<()> {
    let Some(bearer) = pg::bearer() else { return Ok(()) };
    let own = user(&bearer.namespace, &bearer.user_id)? == Some(spent.user);
    let organization = match &bearer.org_id {
        Some(id) => organization(&bearer.namespace, id)?,
        None => None,
    };
    if own && (spent.organization.is_none() || spent.organization == organization) {
        return Ok(());
    }
    Err(identity_mismatch())
}

fn identity_mismatch() -> Error {
    Error::new(
        State::FORBIDDEN,
        "identity_mismatch",
        "This transaction acts for another user or organization than the one to be charged",
    )
    .hint("Charge the authenticated user, or do this in a transaction without an identity.")
}

/// A NULL where something must be named.
pub fn null(parameter: &str) -> Error {
    Error::new(State::INVALID_PARAMETER, "invalid_argument", format!("{parameter} must not be NULL"))
        .hint(format!("Pass a value for {parameter}."))
        .detail("parameter", parameter)
}

/// An id that says something.
pub fn present<'a>(id: Option<&'a str>, parameter: &str) -> Result<&'a str> {
    id.filter(|id| !id.trim().is_empty()).ok_or_else(|| {
        let what = if id.is_none() { "NULL" } else { "empty" };
        Error::new(State::INVALID_PARAMETER, "invalid_argument", format!("{parameter} must not be {what}"))
            .hint(format!("Pass {parameter} as the text that stands in tokens and events."))
            .detail("parameter", parameter)
    })
}

/// Contract S's text.
pub fn user_not_found() -> Error {
    Error::new(State::NOT_FOUND, "user_not_found", "User not found")
        .hint("Register the user: SELECT tenancy.register_user(user_id => …);")
}

/// Contract S's text; also for an organization that does not exist.
pub fn no_active_seat() -> Error {
    Error::new(State::FORBIDDEN, "no_active_seat", "User does not have an active seat in this organization")
        .hint("Give the user a seat: SELECT tenancy.assign_seat(org_id => …, user_id => …);")
}

/// What this backend found in one epoch, by namespace and external id.
#[derive(Default)]
struct Found {
    epoch: u64,
    users: HashMap<String, HashMap<String, Uuid>>,
    organizations: HashMap<String, HashMap<String, Uuid>>,
    count: usize,
}

/// As many ids as a backend keeps.
const MOST: usize = 50_000;

thread_local! {
    static FOUND: RefCell<Found> = RefCell::default();
}

/// `users.id` of an external id.
pub fn user(namespace: &str, id: &str) -> Result<Option<Uuid>> {
    look_up(
        |found| &mut found.users,
        "SELECT u.id FROM tenancy.users AS u WHERE u.namespace = $1 AND u.external_id = $2",
        namespace,
        id,
    )
}

/// `organizations.id` of an external id.
pub fn organization(namespace: &str, id: &str) -> Result<Option<Uuid>> {
    look_up(
        |found| &mut found.organizations,
        "SELECT o.id FROM tenancy.organizations AS o WHERE o.namespace = $1 AND o.external_id = $2",
        namespace,
        id,
    )
}

/// Once an epoch: a table that is dropped or made anew ends it.
fn watch_directory() -> Result<()> {
    thread_local! {
        static WATCHED_IN: Cell<u64> = const { Cell::new(0) };
    }
    let epoch = pg::epoch();
    if WATCHED_IN.get() != epoch {
        sql::table_oids(&["users", "organizations"])?.into_iter().for_each(pg::watch);
        WATCHED_IN.set(epoch);
    }
    Ok(())
}

/// Ids are kept until a change of users or organizations is announced: the directory announces each,
/// and a row that was never committed takes its announcement back with it.
fn look_up(
    kind: fn(&mut Found) -> &mut HashMap<String, HashMap<String, Uuid>>,
    statement: &'static str,
    namespace: &str,
    id: &str,
) -> Result<Option<Uuid>> {
    let epoch = pg::epoch();
    let kept = FOUND.with_borrow_mut(|found| {
        (found.epoch == epoch).then(|| kind(found).get(namespace)?.get(id).copied()).flatten()
    });
    if kept.is_some() {
        return Ok(kept);
    }
    watch_directory()?;
    let epoch = pg::epoch();
    let read = sql::query_opt(statement, &[namespace.into(), id.into()], sql::Mode::ReadLatest, |row| Ok(row.uuid(1)))?
        .flatten();
    if let Some(read) = read {
        FOUND.with_borrow_mut(|found| {
            if found.epoch != epoch || found.count >= MOST {
                *found = Found { epoch, ..Found::default() };
            }
            found.count += 1;
            kind(found).entry(namespace.to_owned()).or_default().insert(id.to_owned(), read);
        });
    }
    Ok(read)
}
