//! From a bearer's token to a verified subject and its identity.
//!
//! What a signature costs is paid once: a verified token is kept under its SHA-256 for as long as nothing changes in
//! the tables it was judged by (the epoch). Its times are judged again at each use.

use super::issuers::{self, Issuer, Terms};
use super::jose::claims::Times;
use super::jose::header::Header;
use super::jose::json::Json;
use super::jose::{Algorithm, Claims, Mapping, Profile, Reason, Subject, Token};
use super::refusal::{Failure, Refusal};
use super::tenant::Named;
use super::{directory, epoch, revocations};
use crate::pg::metrics::{self, Series};
use crate::pg::sql::{self, Mode};
use crate::pg::{self, Identity, Jsonb, Result, Sealable};
use std::borrow::Cow;
use std::cell::{OnceCell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

/// The kind of long-lived tokens (claim type), for editor extensions.
pub const LONG_LIVED: &str = "extension_long_lived";
/// Tokens kept in a backend.
const MAX_TOKENS: usize = 256;
/// Seconds from 1970 to 2000, where Postgres' clock begins.
const POSTGRES_EPOCH: i64 = 946_684_800;

/// The SHA-256 of a token, which names it from now on.
pub type Fingerprint = [u8; 32];

/// Everything but the clock has been judged, and for whom it is good.
struct Judged<'a> {
    header: Rc<Header>,
    issuer: Rc<Issuer>,
    terms: Terms,
    subject: Subject<'a>,
    /// What the directory says of the subject.
    known: Rc<Identity>,
    /// Whether the verdict outlives the transaction.
    is_final: bool,
}

/// A verified token, as it is kept: in few pieces, for most are never asked for again.
struct Verified {
    header: Rc<Header>,
    payload: Vec<u8>,
    times: Times,
    issuer: Rc<Issuer>,
    terms: Terms,
    known: Rc<Identity>,
    bearer: OnceCell<Rc<Sealable>>,
}

#[derive(Default)]
struct Cache {
    epoch: u64,
    tokens: HashMap<Fingerprint, Rc<Verified>>,
}

thread_local! {
    static CACHE: RefCell<Cache> = RefCell::default();
}

/// The bearer of a token, ready to be sealed, and the token's fingerprint.
pub fn bearer(text: &str) -> std::result::Result<(Rc<Sealable>, Fingerprint), Failure> {
    verify(text, Verified::bearer, |claims, judged, bearer| {
        Rc::clone(bearer.get_or_init(|| Rc::new(Sealable::new(judged.identity(claims)))))
    })
}

/// The claims of a token that is good.
pub fn claims(text: &str) -> std::result::Result<Option<Jsonb>, Failure> {
    let read = |known: &Verified| Ok(std::str::from_utf8(&known.payload).ok().and_then(Jsonb::parse));
    let (claims, _) = verify(text, read, |claims, _, _| {
        Jsonb::from_members(claims.members().entries()).or_else(|| Jsonb::parse(claims.raw()))
    })?;
    Ok(claims)
}

/// Judges a token, everything about it; gives what `again` makes of it where it is known, else what `first` does, which
/// may leave its bearer made.
fn verify<T>(
    text: &str,
    again: impl FnOnce(&Verified) -> std::result::Result<T, Failure>,
    first: impl FnOnce(&Claims, &Judged, &OnceCell<Rc<Sealable>>) -> T,
) -> std::result::Result<(T, Fingerprint), Failure> {
    crate::schema::require_installed()?;
    if text.len() > super::jose::token::MAX_TOKEN_BYTES {
        return Err(Reason::TokenTooLarge.into());
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
    let known = known.filter(|known| directory::seat_stands(&known.known));
    metrics::count_for("", Series::Cache("token", known.is_some()), 1);
    if let Some(known) = known {
        check_times(&known.times, &known.issuer, known.terms)?;
        return Ok((again(&known)?, fingerprint));
    }
    let token = Token::parse(text)?;
    let claims = Claims::parse(token.payload())?;
    let judged = judge(&token, &claims)?;
    check_times(&claims.times(), &judged.issuer, judged.terms)?;
    let bearer = OnceCell::new();
    let made = first(&claims, &judged, &bearer);
    let (times, Judged { header, issuer, terms, known, is_final, .. }) = (claims.times(), judged);
    if !is_final {
        return Ok((made, fingerprint));
    }
    keep(epoch, fingerprint, Verified { header, payload: token.into_payload(), times, issuer, terms, known, bearer });
    Ok((made, fingerprint))
}

/// Keeps a token, unless the epoch it was judged in has ended meanwhile.
fn keep(epoch: u64, fingerprint: Fingerprint, verified: Verified) {
    CACHE.with_borrow_mut(|cache| {
        if cache.epoch == epoch && epoch == pg::epoch() {
            if cache.tokens.len() >= MAX_TOKENS {
                cache.tokens.clear();
            }
            cache.tokens.insert(fingerprint, Rc::new(verified));
        }
    });
}

fn check_times(times: &Times, issuer: &Issuer, terms: Terms) -> std::result::Result<(), Failure> {
    let now = pg::now_micros();
    if !terms.window.is_open(now) {
        return Err(Refusal::UnknownKey.into());
    }
    Ok(times.validate(&issuer.policy, now.div_euclid(1_000_000) + POSTGRES_EPOCH)?)
}

fn judge<'a>(token: &Token, claims: &'a Claims) -> std::result::Result<Judged<'a>, Failure> {
    let name = claims.issuer().ok_or(Reason::MissingClaim("iss"))?;
    let issuer = issuers::find(name)?;
    let header = token.shared_header();
    let (verdict, terms) = issuer.with_key(header.kid.as_deref(), header.algorithm, |key| key.verify(token))?;
    verdict?;
    claims.validate_identity(header.typ.as_deref(), &issuer.policy)?;
    let subject = issuer.mapping.resolve(claims)?;
    revocations::check(&issuer, claims, &subject)?;
    let known = directory::known(&named(&issuer, &subject))?;
    check_membership(terms.is_ours, &known)?;
    let is_final = !terms.is_ours || check_issued(claims)?;
    Ok(Judged { header, issuer, terms, subject, known, is_final })
}

/// A long-lived token of ours is good with its row: issued in a transaction that was rolled back it would be counted,
/// listed and revoked by nobody. Ours have a jti of version 7; another service that signs with the same key keeps rows
/// of its own. Gives whether that holds beyond this transaction, which may have written the row itself.
fn check_issued(claims: &Claims) -> std::result::Result<bool, Failure> {
    let is_long_lived = claims.members().get("type").and_then(Json::as_str) == Some(LONG_LIVED);
    let id = claims.token_id().and_then(|id| uuid::Uuid::try_parse(id).ok());
    let Some(id) = id.filter(|id| is_long_lived && id.get_version_num() == 7) else { return Ok(true) };
    let row = sql::query_opt(
        "SELECT t.revoked_at IS NULL, pg_catalog.pg_current_xact_id_if_assigned() IS NULL \
         FROM tenancy.extension_tokens AS t WHERE t.id = $1",
        &[id.into()],
        Mode::ReadLatest,
        |row| Ok((row.get(1).unwrap_or(false), row.get(2).unwrap_or(false))),
    )?;
    match row {
        Some((true, is_final)) => Ok(is_final),
        Some((false, _)) => Err(Refusal::Revoked.into()),
        None => Err(Refusal::NotIssued.into()),
    }
}

fn named<'a>(issuer: &'a Issuer, subject: &'a Subject) -> Named<'a> {
    Named { namespace: &issuer.namespace, user: subject.user, org: subject.org, tenant: subject.tenant }
}

/// A provider ends its own tokens' organizations; ours are on us. Whoever left has neither membership nor seat. An
/// organization that is not registered is one of another service that signs with the same key.
fn check_membership(is_ours: bool, known: &Identity) -> std::result::Result<(), Failure> {
    if is_ours && known.organization_id.is_some() && !directory::belongs(known) {
        return Err(Refusal::NotAMember.into());
    }
    Ok(())
}

/// Judges a sealed identity that came from a token again, by what is committed at this moment, whatever the transaction
/// has seen and this backend keeps: before it is given anything that outlives the transaction.
pub fn still_good(identity: &Identity) -> std::result::Result<(), Failure> {
    let claims = Claims::parse(identity.claims.as_deref().unwrap_or_default().as_bytes())?;
    let issuer = issuers::find_now(identity.issuer.as_deref().unwrap_or_default())?;
    let algorithm = Algorithm::parse(identity.algorithm.as_deref().unwrap_or_default())?;
    issuer.check_key_now(identity.key_id.as_deref(), algorithm)?;
    claims.validate_parties(&issuer.policy)?;
    let subject = issuer.mapping.resolve(&claims)?;
    revocations::check_now(&issuer, &claims, &subject)?;
    if identity.issued_here {
        check_issued(&claims)?;
    }
    check_membership(identity.issued_here, &directory::resolve(&named(&issuer, &subject))?)
}

impl Verified {
    /// Its bearer. Its claims are read once more where nobody asked for the bearer when it was verified.
    fn bearer(&self) -> std::result::Result<Rc<Sealable>, Failure> {
        if let Some(bearer) = self.bearer.get() {
            return Ok(Rc::clone(bearer));
        }
        let claims = Claims::parse(&self.payload)?;
        let subject = self.issuer.mapping.resolve(&claims)?;
        let judged = Judged {
            header: Rc::clone(&self.header),
            issuer: Rc::clone(&self.issuer),
            terms: self.terms,
            subject,
            known: Rc::clone(&self.known),
            is_final: true,
        };
        Ok(Rc::clone(self.bearer.get_or_init(|| Rc::new(Sealable::new(judged.identity(&claims))))))
    }
}

impl Judged<'_> {
    /// The identity it gives.
    fn identity(&self, claims: &Claims) -> Identity {
        let mut identity = Identity::clone(&self.known);
        let subject = &self.subject;
        identity.source = "token".to_owned();
        identity.issuer = Some(self.issuer.policy.issuer.clone());
        identity.token_id = claims.token_id().map(str::to_owned);
        identity.key_id = self.header.kid.clone();
        identity.algorithm = Some(self.header.algorithm.name().to_owned());
        identity.issued_here = self.terms.is_ours;
        identity.org_role = subject.org_role.as_deref().map(str::to_owned).or(identity.org_role);
        identity.session_id = subject.session_id.map(str::to_owned);
        identity.correlation_id = subject.correlation_id.and_then(super::request::correlation_id);
        let leeway = i64::from(self.issuer.policy.leeway);
        identity.expires_at = claims.times().expires_at().map(|seconds| micros(seconds + leeway));
        identity.permissions = subject.permissions.iter().map(|permission| permission.to_string()).collect();
        identity.claims = Some(claims.raw().to_owned());
        identity
    }
}

impl<'j> pg::Tree for Json<'j> {
    type Name = Cow<'j, str>;

    fn node(&self) -> Option<pg::Node<'_, Self>> {
        Some(match self {
            Json::Null => pg::Node::Null,
            Json::Bool(value) => pg::Node::Bool(*value),
            Json::Integer(value) => pg::Node::Integer(*value),
            Json::Number => return None,
            Json::Text(text) => pg::Node::Text(text),
            Json::Array(values) => pg::Node::Array(values),
            Json::Object(members) => pg::Node::Object(members.entries()),
        })
    }
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
    let member = || "org:member".to_owned();
    let entry = claims.members().get("organizations").and_then(Json::as_object).and_then(|map| map.get(org_id));
    if let Some(entry) = entry.and_then(Json::as_object) {
        let role = entry.get("role").and_then(Json::as_str).map(str::trim).filter(|role| !role.is_empty());
        return Ok(Some(role.map_or_else(member, str::to_owned)));
    }
    let issuer = match claims.issuer().map(issuers::find) {
        Some(Ok(issuer)) => Some(issuer),
        Some(Err(Failure::Fault(error))) => return Err(error),
        _ => None,
    };
    let generic;
    let mapping = match &issuer {
        Some(issuer) => Some(&issuer.mapping),
        None => {
            generic = Mapping::new(Profile::Generic, None).ok();
            generic.as_ref()
        }
    };
    let subject = mapping.and_then(|mapping| mapping.resolve(&claims).ok());
    Ok(subject
        .filter(|subject| subject.org == Some(org_id))
        .map(|subject| subject.org_role.map_or_else(member, Cow::into_owned)))
}

/// SHA-256.
pub fn sha256(bytes: &[u8]) -> Fingerprint {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    let mut out = [0; 32];
    out.copy_from_slice(digest.as_ref());
    out
}

/// Seconds since 1970 as microseconds since 2000-01-01.
pub fn micros(seconds: i64) -> i64 {
    seconds.saturating_sub(POSTGRES_EPOCH).saturating_mul(1_000_000)
}
