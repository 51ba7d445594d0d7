//! From a bearer's token to a verified subject and its identity.
//!
//! What a signature costs is paid once: a verified token is kept under its SHA-256 for as long as nothing changes in
//! the tables it was judged by (the epoch). Its times are judged again at each use.

use super::issuers::{self, Issuer, Terms};
use super::jose::{Claims, Mapping, Profile, Subject, Token};
use super::refusal::{Failure, Refusal};
use super::tenant::Named;
use super::{directory, epoch, revocations};
use crate::pg::metrics::{self, Series};
use crate::pg::{self, Identity, Result};
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

/// Tokens kept in a backend.
const MAX_TOKENS: usize = 256;
/// Seconds from 1970 to 2000, where Postgres' clock begins.
const POSTGRES_EPOCH: i64 = 946_684_800;

/// A verified token.
pub struct Verified {
    /// Its SHA-256, which names it from now on.
    pub fingerprint: [u8; 32],
    /// Its claims.
    pub claims: Claims,
    issuer: Rc<Issuer>,
    terms: Terms,
    identity: Identity,
}

#[derive(Default)]
struct Cache {
    epoch: u64,
    tokens: HashMap<[u8; 32], Rc<Verified>>,
}

thread_local! {
    static CACHE: RefCell<Cache> = RefCell::default();
}

impl Verified {
    /// The identity it gives, with a correlation id of its own.
    pub fn identity(&self) -> Identity {
        let mut identity = self.identity.clone();
        identity.correlation_id.get_or_insert_with(|| uuid::Uuid::now_v7().to_string());
        identity
    }

    fn check_times(&self) -> std::result::Result<(), Failure> {
        let now = pg::now_micros();
        if !self.terms.window.is_open(now) {
            return Err(Refusal::UnknownKey.into());
        }
        Ok(self.claims.validate_times(&self.issuer.policy, now.div_euclid(1_000_000) + POSTGRES_EPOCH)?)
    }
}

/// Judges a token, everything about it.
pub fn verify(text: &str) -> std::result::Result<Rc<Verified>, Failure> {
    crate::schema::require_installed()?;
    if text.len() > super::jose::token::MAX_TOKEN_BYTES {
        return Err(super::jose::Reason::TokenTooLarge.into());
    }
    let fingerprint = sha256(text.as_bytes());
    let epoch = epoch::current()?;
    let known = CACHE.with_borrow_mut(|cache| {
        if cache.epoch != epoch {
            *cache = Cache { epoch, ..Cache::default() };
        }
        cache.tokens.get(&fingerprint).cloned()
    });
    // A seat that ended by itself sent no signal: who that is must be asked again.
    let known = known.filter(|known| directory::seat_stands(&known.identity));
    metrics::count_for("", Series::Cache("token", known.is_some()), 1);
    if let Some(known) = known {
        known.check_times()?;
        return Ok(known);
    }
    let verified = Rc::new(judge(text, fingerprint)?);
    verified.check_times()?;
    CACHE.with_borrow_mut(|cache| {
        if cache.epoch == epoch && epoch == pg::epoch() {
            if cache.tokens.len() >= MAX_TOKENS {
                cache.tokens.clear();
            }
            cache.tokens.insert(fingerprint, Rc::clone(&verified));
        }
    });
    Ok(verified)
}

fn judge(text: &str, fingerprint: [u8; 32]) -> std::result::Result<Verified, Failure> {
    let token = Token::parse(text)?;
    let claims = Claims::parse(token.payload())?;
    let name = claims.issuer().ok_or(super::jose::Reason::MissingClaim("iss"))?;
    let issuer = issuers::find(name)?;
    let header = token.header();
    let (verdict, terms) = issuer.with_key(header.kid.as_deref(), header.algorithm, |key| key.verify(&token))?;
    verdict?;
    claims.validate_identity(header.typ.as_deref(), &issuer.policy)?;
    let subject = issuer.mapping.resolve(&claims)?;
    revocations::check(&issuer, &claims, &subject)?;
    let identity = identify(&issuer, terms, &claims, subject)?;
    Ok(Verified { fingerprint, claims, issuer, terms, identity })
}

fn identify(
    issuer: &Issuer,
    terms: Terms,
    claims: &Claims,
    subject: Subject,
) -> std::result::Result<Identity, Failure> {
    let named = Named {
        namespace: &issuer.namespace,
        user: &subject.user,
        org: subject.org.as_deref(),
        tenant: subject.tenant.as_deref(),
    };
    let mut identity = Identity::clone(&*directory::known(&named)?);
    // A provider ends its own tokens' organizations; ours are on us. Whoever left has neither membership nor seat. An
    // organization that is not registered is one of another service that signs with the same key.
    if terms.is_ours && identity.organization_id.is_some() && !directory::belongs(&identity) {
        return Err(Refusal::NotAMember.into());
    }
    identity.source = "token".to_owned();
    identity.issuer = Some(issuer.policy.issuer.clone());
    identity.token_id = claims.token_id().map(str::to_owned);
    identity.org_role = subject.org_role.or(identity.org_role);
    identity.session_id = subject.session_id;
    identity.correlation_id = subject.correlation_id.as_deref().and_then(super::request::correlation_id);
    identity.expires_at = claims.expires_at().map(|seconds| micros(seconds + i64::from(issuer.policy.leeway)));
    identity.permissions = subject.permissions;
    identity.claims = Some(claims.raw().to_owned());
    Ok(identity)
}

/// The role that verified claims give a user in an organization: by the `organizations` map (contracts.md, S), then
/// by the organization the issuer's own mapping finds. A member without a named role is `org:member`.
///
/// Errors: 22023 where the claims are not an object, or another subject's.
pub fn claimed_org_role(claims: &str, user_id: &str, org_id: &str) -> Result<Option<String>> {
    let unfit = |what: &str| issuers::invalid("claims", "invalid_claims", what.to_owned());
    let claims = Claims::parse(claims.as_bytes()).map_err(|_| unfit("claims must be the claims of a token"))?;
    if claims.subject().is_some_and(|subject| subject != user_id) {
        return Err(unfit("claims must be those of the user"));
    }
    let text = |value: Option<&serde_json::Value>| {
        value.and_then(serde_json::Value::as_str).map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned)
    };
    let member = || "org:member".to_owned();
    let entry = claims.members().get("organizations").and_then(|map| map.get(org_id));
    if let Some(entry) = entry.filter(|entry| entry.is_object()) {
        return Ok(Some(text(entry.get("role")).unwrap_or_else(member)));
    }
    let issuer = match claims.issuer().map(issuers::find) {
        Some(Ok(issuer)) => Some(issuer),
        Some(Err(Failure::Fault(error))) => return Err(error),
        _ => None,
    };
    let subject = match &issuer {
        Some(issuer) => issuer.mapping.resolve(&claims).ok(),
        None => Mapping::new(Profile::Generic, None).ok().and_then(|mapping| mapping.resolve(&claims).ok()),
    };
    Ok(subject
        .filter(|subject| subject.org.as_deref() == Some(org_id))
        .map(|subject| subject.org_role.unwrap_or_else(member)))
}

/// SHA-256.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    let mut out = [0; 32];
    out.copy_from_slice(digest.as_ref());
    out
}

/// Seconds since 1970 as microseconds since 2000-01-01.
pub fn micros(seconds: i64) -> i64 {
    seconds.saturating_sub(POSTGRES_EPOCH).saturating_mul(1_000_000)
}
