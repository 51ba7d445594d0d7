//! What is revoked, as this backend knows it: read whole once an epoch where it is not much, else asked for each token.

use super::epoch;
use super::issuers::Issuer;
use super::jose::{Claims, Subject};
use super::refusal::{Failure, Refusal};
use crate::pg::sql::{self, Arg, Mode};
use crate::pg::{self, Result};
use std::cell::RefCell;
use std::collections::HashMap;

/// As many rows as are read whole. A revocation ends the epoch in every backend, so reading them must stay cheap.
const MOST: usize = 1_000;

/// Revocations by scope and value, with their time in microseconds since 2000-01-01.
type Scopes = HashMap<String, HashMap<String, i64>>;

#[derive(Default)]
struct Known {
    epoch: u64,
    /// More than are read whole.
    too_many: bool,
    tokens: Scopes,
    sessions: Scopes,
    users: Scopes,
}

thread_local! {
    static KNOWN: RefCell<Known> = RefCell::default();
}

/// What a revocation may name of a token.
struct Presented<'a> {
    issuer: &'a str,
    token_id: Option<&'a str>,
    session_id: Option<&'a str>,
    namespace: &'a str,
    user: &'a str,
    /// The latest time it can have been issued before, in microseconds since 2000-01-01.
    issued_at: Option<i64>,
}

/// Refuses a token that is revoked by itself, with its session, or with everything its user had until then.
pub fn check(issuer: &Issuer, claims: &Claims, subject: &Subject) -> std::result::Result<(), Failure> {
    if Presented::new(issuer, claims, subject).is_revoked()? { Err(Refusal::Revoked.into()) } else { Ok(()) }
}

/// As [`check`], by the table as it is at this moment and not by what is kept of it.
pub fn check_now(issuer: &Issuer, claims: &Claims, subject: &Subject) -> std::result::Result<(), Failure> {
    if Presented::new(issuer, claims, subject).is_in_table()? { Err(Refusal::Revoked.into()) } else { Ok(()) }
}

/// Whether a session, or what its user had until `since`, is revoked at this moment.
pub fn is_revoked_now(issuer: &str, session_id: Option<&str>, namespace: &str, user: &str, since: i64) -> Result<bool> {
    Presented { issuer, token_id: None, session_id, namespace, user, issued_at: Some(since) }.is_in_table()
}

impl<'a> Presented<'a> {
    fn new(issuer: &'a Issuer, claims: &'a Claims, subject: &'a Subject) -> Self {
        // An issuer's clock may be ahead by the leeway: a token that it dates after the revocation may be from before it.
        let leeway = i64::from(issuer.policy.leeway);
        Presented {
            issuer: &issuer.policy.issuer,
            token_id: claims.token_id(),
            session_id: subject.session_id,
            namespace: &issuer.namespace,
            user: subject.user,
            issued_at: claims.times().issued_at().map(|seconds| super::verify::micros(seconds - leeway)),
        }
    }
}

impl Presented<'_> {
    fn is_revoked(&self) -> Result<bool> {
        let epoch = epoch::current()?;
        let known = |known: &Known| (known.epoch == epoch && !known.too_many).then(|| self.is_among(known));
        if let Some(answer) = KNOWN.with_borrow(known) {
            return Ok(answer);
        }
        if KNOWN.with_borrow(|known| known.epoch == epoch && known.too_many) {
            return self.is_in_table();
        }
        let read = read(epoch)?;
        let answer = if read.too_many { self.is_in_table()? } else { self.is_among(&read) };
        if epoch == pg::epoch() {
            KNOWN.set(read);
        }
        Ok(answer)
    }

    fn is_among(&self, known: &Known) -> bool {
        let at = |scopes: &Scopes, scope: &str, value: Option<&str>| scopes.get(scope)?.get(value?).copied();
        at(&known.tokens, self.issuer, self.token_id).is_some()
            || at(&known.sessions, self.issuer, self.session_id).is_some()
            || at(&known.users, self.namespace, Some(self.user))
                .is_some_and(|revoked_at| self.issued_at.is_none_or(|issued_at| issued_at <= revoked_at))
    }

    fn is_in_table(&self) -> Result<bool> {
        let found = sql::query_opt(
            "SELECT true FROM tenancy.revocations AS r \
             WHERE (r.kind = 'token' AND r.scope = $1 AND r.value = $2) \
                OR (r.kind = 'session' AND r.scope = $1 AND r.value = $3) \
                OR (r.kind = 'user' AND r.scope = $4 AND r.value = $5 AND ($6 IS NULL OR $6 <= r.revoked_at)) \
             LIMIT 1",
            &[
                self.issuer.into(),
                Arg::Text(self.token_id),
                Arg::Text(self.session_id),
                self.namespace.into(),
                self.user.into(),
                Arg::Time(self.issued_at),
            ],
            Mode::ReadLatest,
            |_| Ok(()),
        )?;
        Ok(found.is_some())
    }
}

fn read(epoch: u64) -> Result<Known> {
    let rows = sql::query(
        "SELECT r.kind, r.scope, r.value, r.revoked_at FROM tenancy.revocations AS r LIMIT $1",
        &[Arg::Long(Some(MOST as i64 + 1))],
        Mode::ReadLatest,
        |row| {
            let text = |ordinal| row.text(ordinal).unwrap_or_default();
            Ok((text(1), text(2), text(3), row.time(4).unwrap_or(i64::MAX)))
        },
    )?;
    let mut known = Known { epoch, too_many: rows.len() > MOST, ..Known::default() };
    if known.too_many {
        return Ok(known);
    }
    for (kind, scope, value, revoked_at) in rows {
        let scopes = match kind.as_str() {
            "token" => &mut known.tokens,
            "session" => &mut known.sessions,
            _ => &mut known.users,
        };
        scopes.entry(scope).or_default().insert(value, revoked_at);
    }
    Ok(known)
}
