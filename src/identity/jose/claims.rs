//! The claims of a token (RFC 7519 §4), strictly typed, and what an issuer's policy demands of them.

use super::json::{self, Json, JsonError, Object};
use super::kind;
use super::reason::Reason;
use std::fmt;

/// Latest time a claim may name: the end of the year 9999, in seconds since 1970. Later ones are typing mistakes
/// (milliseconds) or attacks on arithmetic, and this one still fits every clock and Postgres' timestamptz.
pub const MAX_TIME: i64 = 253_402_300_799;

/// Longest identifier (`sub`, `jti`, session, organization, tenant), in characters.
pub const MAX_ID_CHARS: usize = 255;

/// A token's claims, typed. Whether they are true depends on the signature; whether they are enough, on the policy.
#[derive(Clone, PartialEq)]
pub struct Claims<'a> {
    raw: &'a str,
    members: Object<'a>,
    times: Times,
}

/// When a token is good, in seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    expires_at: Option<i64>,
    not_before: Option<i64>,
    issued_at: Option<i64>,
}

/// What an issuer's tokens must satisfy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// `iss`, compared byte by byte.
    pub issuer: String,
    /// One of these must be in `aud`. Empty: the issuer's tokens have no `aud` (Clerk's session tokens, for example);
    /// one that has is refused, since it is meant for somebody else (RFC 7519 §4.1.3).
    pub audiences: Vec<String>,
    /// One of these must be `azp`. Empty: `azp` is not checked.
    pub authorized_parties: Vec<String>,
    /// Kinds of token taken; None: access tokens as [`kind::check`] knows them.
    pub token_types: Option<Vec<String>>,
    /// Whether a token without `exp` is refused.
    pub require_expiry: bool,
    /// Seconds of clock difference allowed for.
    pub leeway: u32,
}

impl<'a> Claims<'a> {
    /// Parses a payload: a JSON object whose registered claims have the types of RFC 7519 §4.1.
    ///
    /// `exp`, `nbf` and `iat` are integers from 0 to [`MAX_TIME`]. RFC 7519 would allow a fraction; we refuse `1.0` and
    /// `1e3` too, since verifiers that round them differ in what they accept, and no provider here sends them.
    pub fn parse(payload: &'a [u8]) -> Result<Claims<'a>, Reason> {
        let raw = std::str::from_utf8(payload).map_err(|_| Reason::MalformedClaims)?;
        let members = json::parse_object(raw).map_err(|error| match error {
            JsonError::DuplicateMember => Reason::DuplicateMember,
            JsonError::Syntax | JsonError::TooDeep | JsonError::Nul => Reason::MalformedClaims,
        })?;
        if members.has_other_number() && json::has_huge_exponent(raw) {
            return Err(Reason::MalformedClaims);
        }
        for name in ["iss", "sub", "jti", "sid", "azp"] {
            if members.get(name).is_some_and(|value| value.as_str().is_none()) {
                return Err(Reason::InvalidClaim(name));
            }
        }
        for name in ["sub", "jti", "sid"] {
            if members.get(name).and_then(Json::as_str).is_some_and(|id| !is_id(id)) {
                return Err(Reason::InvalidClaim(name));
            }
        }
        check_audience(&members)?;
        let times = Times {
            expires_at: time(&members, "exp")?,
            not_before: time(&members, "nbf")?,
            issued_at: time(&members, "iat")?,
        };
        Ok(Claims { raw, members, times })
    }

    /// Checks what does not change with time: iss, aud, azp, sub, the kind of token, and that `exp` is there. `typ` is
    /// the header's.
    pub fn validate_identity(&self, typ: Option<&str>, policy: &Policy) -> Result<(), Reason> {
        self.validate_parties(policy)?;
        kind::check(typ, &self.members, policy.token_types.as_deref())?;
        if self.subject().is_none() {
            return Err(Reason::MissingClaim("sub"));
        }
        if policy.require_expiry && self.times.expires_at.is_none() {
            return Err(Reason::MissingClaim("exp"));
        }
        Ok(())
    }

    /// Checks by whom and for whom it was issued: iss, aud and azp.
    pub fn validate_parties(&self, policy: &Policy) -> Result<(), Reason> {
        if self.issuer().ok_or(Reason::MissingClaim("iss"))? != policy.issuer {
            return Err(Reason::Issuer);
        }
        let is_ours = |audience: &Json| audience.as_str().is_some_and(|audience| policy.has_audience(audience));
        match self.members.get("aud") {
            None if policy.audiences.is_empty() => {}
            None => return Err(Reason::MissingClaim("aud")),
            Some(Json::Array(audiences)) if audiences.iter().any(is_ours) => {}
            Some(audience) if is_ours(audience) => {}
            Some(_) => return Err(Reason::Audience),
        }
        if !policy.authorized_parties.is_empty() {
            let azp = self.text("azp").ok_or(Reason::MissingClaim("azp"))?;
            if !policy.authorized_parties.iter().any(|party| party == azp) {
                return Err(Reason::AuthorizedParty);
            }
        }
        Ok(())
    }

    /// The payload as it was signed.
    pub fn raw(&self) -> &'a str {
        self.raw
    }

    /// The payload's members.
    pub fn members(&self) -> &Object<'a> {
        &self.members
    }

    /// `iss`.
    pub fn issuer(&self) -> Option<&str> {
        self.text("iss")
    }

    /// `sub`.
    pub fn subject(&self) -> Option<&str> {
        self.text("sub")
    }

    /// `jti`.
    pub fn token_id(&self) -> Option<&str> {
        self.text("jti")
    }

    /// When it is good.
    pub fn times(&self) -> Times {
        self.times
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.members.get(name).and_then(Json::as_str)
    }
}

impl Times {
    /// Checks `exp`, `nbf` and `iat` against the clock: again at each use of something cached. `now` is in seconds
    /// since 1970, rounded down.
    ///
    /// A token is good before `exp` and from `nbf` on (RFC 7519 §4.1.4, §4.1.5), each moved by the leeway; `iat` in
    /// the future means a clock that is wrong, or a forger's.
    pub fn validate(&self, policy: &Policy, now: i64) -> Result<(), Reason> {
        let leeway = i64::from(policy.leeway);
        if self.expires_at.is_some_and(|expires_at| now >= expires_at + leeway) {
            return Err(Reason::Expired);
        }
        if self.not_before.is_some_and(|not_before| now < not_before - leeway) {
            return Err(Reason::NotYetValid);
        }
        if self.issued_at.is_some_and(|issued_at| now < issued_at - leeway) {
            return Err(Reason::IssuedInFuture);
        }
        Ok(())
    }

    /// `exp`, in seconds since 1970.
    pub fn expires_at(&self) -> Option<i64> {
        self.expires_at
    }

    /// `iat`, in seconds since 1970.
    pub fn issued_at(&self) -> Option<i64> {
        self.issued_at
    }
}

impl Policy {
    fn has_audience(&self, audience: &str) -> bool {
        self.audiences.iter().any(|own| own == audience)
    }
}

impl fmt::Debug for Claims<'_> {
    /// Shows no claim: they are a person's.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Claims").finish_non_exhaustive()
    }
}

/// Whether the text can be an identifier: 1 to 255 characters, no control character, no white space around it (which
/// someone would trim, making one user of two).
pub fn is_id(text: &str) -> bool {
    if text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return (1..=MAX_ID_CHARS).contains(&text.len());
    }
    !text.is_empty()
        && text.chars().count() <= MAX_ID_CHARS
        && !text.chars().any(char::is_control)
        && text.trim() == text
}

fn time(members: &Object<'_>, name: &'static str) -> Result<Option<i64>, Reason> {
    match members.get(name) {
        None => Ok(None),
        Some(value) => match value.as_integer() {
            Some(seconds @ 0..=MAX_TIME) => Ok(Some(seconds)),
            _ => Err(Reason::InvalidClaim(name)),
        },
    }
}

/// `aud` is a string, or an array of strings (RFC 7519 §4.1.3).
fn check_audience(members: &Object<'_>) -> Result<(), Reason> {
    let is_text = |value: &Json| value.as_str().is_some();
    let is_audience = match members.get("aud") {
        None => true,
        Some(Json::Array(values)) => values.iter().all(is_text),
        Some(value) => is_text(value),
    };
    if is_audience { Ok(()) } else { Err(Reason::InvalidClaim("aud")) }
}
