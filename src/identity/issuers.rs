//! The issuers and their keys, as this backend knows them: read from the tables once an epoch.

use super::epoch;
use super::jose::{Algorithm, Key, Mapping, Policy, Profile};
use super::master_key::KeyRing;
use super::refusal::{Failure, Refusal};
use crate::pg::sql::{self, Mode, Row};
use crate::pg::{self, Error, Result, State};
use serde_json::Value;
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

/// More entries than this and a cache starts anew: a storm of unknown ids must not fill the memory.
const MAX_ENTRIES: usize = 1024;

/// An issuer's configuration.
pub struct Issuer {
    /// What its tokens must satisfy.
    pub policy: Policy,
    /// How its claims are read.
    pub mapping: Mapping,
    /// Where its subjects and organizations live.
    pub namespace: String,
    algorithms: Option<Vec<Algorithm>>,
}

/// A key of an issuer, not retired.
struct IssuerKey {
    key: Key,
    terms: Terms,
}

/// Under what terms a key verifies.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// When it may be used.
    pub window: Window,
    /// Whether it is a signing profile's: what it signed was issued here, on what the directory said then.
    pub is_ours: bool,
}

/// When a key may be used: from, and until, in microseconds since 2000-01-01.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    not_before: Option<i64>,
    not_after: Option<i64>,
}

impl Window {
    /// Whether it is open.
    pub fn is_open(&self, now: i64) -> bool {
        self.not_before.is_none_or(|not_before| not_before <= now)
            && self.not_after.is_none_or(|not_after| now < not_after)
    }
}

#[derive(Default)]
struct Cache {
    epoch: u64,
    issuers: HashMap<String, Option<Rc<Issuer>>>,
    /// By issuer and kid; the empty kid, which no key has, holds every key of the issuer.
    keys: HashMap<String, HashMap<String, Rc<Vec<IssuerKey>>>>,
}

thread_local! {
    static CACHE: RefCell<Cache> = RefCell::default();
}

/// The issuer of that name.
pub fn find(name: &str) -> std::result::Result<Rc<Issuer>, Failure> {
    let epoch = epoch::current()?;
    let known = CACHE.with_borrow_mut(|cache| {
        cache.start(epoch);
        cache.issuers.get(name).cloned()
    });
    let issuer = match known {
        Some(issuer) => issuer,
        None => {
            let issuer = load_issuer(name)?.map(Rc::new);
            CACHE.with_borrow_mut(|cache| cache.keep_issuer(epoch, name, &issuer));
            issuer
        }
    };
    issuer.ok_or(Failure::Refused(Refusal::UnknownIssuer))
}

/// As [`find`], by the table as it is at this moment and not by what is kept of it.
pub fn find_now(name: &str) -> std::result::Result<Issuer, Failure> {
    load_issuer(name)?.ok_or(Failure::Refused(Refusal::UnknownIssuer))
}

impl Issuer {
    /// Whether its tokens may be signed with this algorithm.
    pub fn allows(&self, algorithm: Algorithm) -> bool {
        self.algorithms.as_ref().is_none_or(|allowed| allowed.contains(&algorithm))
    }

    /// Runs `use_key` with the key that a token of this kid and algorithm must be verified with.
    ///
    /// A token without a kid is taken only where the issuer has exactly one usable key of its algorithm.
    pub fn with_key<T>(
        &self,
        kid: Option<&str>,
        algorithm: Algorithm,
        use_key: impl FnOnce(&Key) -> T,
    ) -> std::result::Result<(T, Terms), Failure> {
        if !self.allows(algorithm) {
            return Err(Refusal::AlgorithmNotAllowed.into());
        }
        let keys = self.keys(kid)?;
        let key = choose(&keys, kid, algorithm)?;
        Ok((use_key(&key.key), key.terms))
    }

    /// Refuses a token of this kid and algorithm if it would find no key at this moment.
    pub fn check_key_now(&self, kid: Option<&str>, algorithm: Algorithm) -> std::result::Result<(), Failure> {
        if !self.allows(algorithm) {
            return Err(Refusal::AlgorithmNotAllowed.into());
        }
        Ok(choose(&load_keys(&self.policy.issuer, kid)?, kid, algorithm).map(drop)?)
    }

    fn keys(&self, kid: Option<&str>) -> Result<Rc<Vec<IssuerKey>>> {
        let epoch = pg::epoch();
        let known = CACHE.with_borrow_mut(|cache| {
            cache.start(epoch);
            cache.keys.get(&self.policy.issuer)?.get(kid.unwrap_or_default()).cloned()
        });
        if let Some(keys) = known {
            return Ok(keys);
        }
        let keys = Rc::new(load_keys(&self.policy.issuer, kid)?);
        CACHE.with_borrow_mut(|cache| cache.keep_keys(epoch, &self.policy.issuer, kid.unwrap_or_default(), &keys));
        Ok(keys)
    }
}

/// The key that a token of this kid and algorithm must be verified with.
fn choose<'a>(
    keys: &'a [IssuerKey],
    kid: Option<&str>,
    algorithm: Algorithm,
) -> std::result::Result<&'a IssuerKey, Refusal> {
    let now = pg::now_micros();
    let mut usable = keys.iter().filter(|key| key.terms.window.is_open(now));
    if kid.is_some() {
        return usable.next().ok_or(Refusal::UnknownKey);
    }
    let mut fitting = usable.filter(|key| key.key.algorithms().any(|own| own == algorithm));
    match (fitting.next(), fitting.next()) {
        (Some(key), None) => Ok(key),
        (None, _) => Err(Refusal::UnknownKey),
        (Some(_), Some(_)) => Err(Refusal::AmbiguousKey),
    }
}

impl Cache {
    /// Forgets what an older epoch knew.
    fn start(&mut self, epoch: u64) {
        if self.epoch != epoch {
            *self = Cache { epoch, ..Cache::default() };
        }
    }

    /// Keeps what was read under `epoch`, unless that epoch ended while it was read.
    fn keep_issuer(&mut self, epoch: u64, name: &str, issuer: &Option<Rc<Issuer>>) {
        if self.epoch == epoch && epoch == pg::epoch() {
            if self.issuers.len() >= MAX_ENTRIES {
                self.issuers.clear();
            }
            self.issuers.insert(name.to_owned(), issuer.clone());
        }
    }

    fn keep_keys(&mut self, epoch: u64, issuer: &str, kid: &str, keys: &Rc<Vec<IssuerKey>>) {
        if self.epoch == epoch && epoch == pg::epoch() {
            if self.keys.values().map(HashMap::len).sum::<usize>() >= MAX_ENTRIES {
                self.keys.clear();
            }
            self.keys.entry(issuer.to_owned()).or_default().insert(kid.to_owned(), Rc::clone(keys));
        }
    }
}

fn load_issuer(name: &str) -> Result<Option<Issuer>> {
    sql::query_opt(
        "SELECT i.issuer, i.audiences, i.profile, i.namespace, i.algorithms, i.leeway_seconds, i.token_types, \
                i.claim_paths::text, i.require_expiry, i.authorized_parties \
         FROM tenancy.issuers AS i WHERE i.issuer = $1",
        &[name.into()],
        Mode::ReadLatest,
        |row| {
            configuration(Configuration {
                issuer: &row.text(1).unwrap_or_default(),
                audiences: row.get(2).unwrap_or_default(),
                profile: &row.text(3).unwrap_or_default(),
                namespace: &row.text(4).unwrap_or_default(),
                algorithms: row.get(5),
                leeway: row.get(6).unwrap_or_default(),
                token_types: row.get(7),
                claim_paths: row.text(8),
                require_expiry: row.get(9).unwrap_or(true),
                authorized_parties: row.get(10),
            })
        },
    )
}

/// An issuer as the table, or the arguments of `add_issuer`, have it.
pub struct Configuration<'a> {
    pub issuer: &'a str,
    pub audiences: Vec<String>,
    pub profile: &'a str,
    pub namespace: &'a str,
    pub algorithms: Option<Vec<String>>,
    pub leeway: i32,
    pub token_types: Option<Vec<String>>,
    pub claim_paths: Option<String>,
    pub require_expiry: bool,
    pub authorized_parties: Option<Vec<String>>,
}

/// Checks an issuer's configuration. Errors: 22023, naming the parameter.
pub fn configuration(given: Configuration) -> Result<Issuer> {
    let profile = Profile::parse(given.profile).ok_or_else(|| {
        let known = Profile::ALL.map(Profile::name).join(", ");
        invalid("profile", "unknown_profile", format!("profile must be one of {known}"))
    })?;
    if given.audiences.iter().any(|audience| audience.trim().is_empty()) {
        return Err(invalid("audiences", "audience_required", "audiences must not hold an empty name"));
    }
    let algorithms = given.algorithms.map(|names| algorithms(&names)).transpose()?;
    for (name, list) in [("token_types", &given.token_types), ("authorized_parties", &given.authorized_parties)] {
        if list.as_ref().is_some_and(|list| list.is_empty() || list.iter().any(|item| item.trim().is_empty())) {
            return Err(invalid(name, "invalid_argument", format!("{name} must be NULL or a list of non-empty names")));
        }
    }
    let claim_paths = given.claim_paths.map(|text| serde_json::from_str::<Value>(&text)).transpose();
    let mapping = claim_paths
        .map_err(|_| invalid("claim_paths", "invalid_claim_paths", "claim_paths must be a JSON object"))
        .and_then(|paths| {
            Mapping::new(profile, paths.as_ref())
                .map_err(|error| invalid("claim_paths", "invalid_claim_paths", error.to_string()))
        })?;
    Ok(Issuer {
        policy: Policy {
            issuer: given.issuer.to_owned(),
            audiences: given.audiences,
            authorized_parties: given.authorized_parties.unwrap_or_default(),
            token_types: given.token_types,
            require_expiry: given.require_expiry,
            leeway: given.leeway.max(0) as u32,
        },
        mapping,
        namespace: given.namespace.to_owned(),
        algorithms,
    })
}

fn algorithms(names: &[String]) -> Result<Vec<Algorithm>> {
    if names.is_empty() {
        return Err(invalid("algorithms", "unknown_algorithm", "algorithms must be NULL or name at least one"));
    }
    names.iter().map(|name| known_algorithm(name, "algorithms")).collect()
}

/// The algorithm of that name. Errors: 22023 unknown_algorithm.
pub fn algorithm(name: &str) -> Result<Algorithm> {
    known_algorithm(name, "algorithm")
}

fn known_algorithm(name: &str, parameter: &str) -> Result<Algorithm> {
    Algorithm::parse(name).map_err(|_| {
        let known = Algorithm::ALL.map(Algorithm::name).join(", ");
        invalid(parameter, "unknown_algorithm", format!("the algorithm must be one of {known}"))
    })
}

/// An argument that can never be right.
pub fn invalid(parameter: &str, reason: &'static str, message: impl Into<String>) -> Error {
    Error::new(State::INVALID_PARAMETER, reason, message)
        .detail("parameter", parameter)
        .hint(format!("Correct {parameter} and call again."))
}

fn load_keys(issuer: &str, kid: Option<&str>) -> Result<Vec<IssuerKey>> {
    sql::query(
        "SELECT k.kid, k.algorithm, k.public_jwk::text, k.sealed_secret, k.not_before, k.not_after, \
                tenancy._secret_context(k.issuer, k.kid), k.origin = 'signing_profile' \
         FROM tenancy.issuer_keys AS k \
         WHERE k.issuer = $1 AND (k.kid = $2 OR $2 IS NULL) AND k.retired_at IS NULL \
         ORDER BY k.kid",
        &[issuer.into(), sql::Arg::Text(kid)],
        Mode::ReadLatest,
        |row| {
            let window = Window { not_before: row.time(5), not_after: row.time(6) };
            Ok(IssuerKey { key: key(row)?, terms: Terms { window, is_ours: row.get(8).unwrap_or(false) } })
        },
    )
}

fn key(row: &Row) -> Result<Key> {
    let unusable = |error: super::jose::KeyReason| {
        Error::new(State::INTERNAL, error.name(), format!("A stored key is of no use: {error}"))
            .hint("Retire it and add it again: SELECT tenancy.retire_key(…).")
    };
    if let Some(jwk) = row.text(3) {
        let jwk: Value = serde_json::from_str(&jwk).map_err(|_| unusable(super::jose::KeyReason::InvalidJwk))?;
        return Key::from_jwk(&jwk).map_err(unusable);
    }
    let sealed: Vec<u8> = row.get(4).unwrap_or_default();
    let secret = KeyRing::read()?.open(&sealed, &row.text(7).unwrap_or_default())?;
    let algorithm = algorithm(&row.text(2).unwrap_or_default())?;
    Key::from_secret(row.text(1).as_deref(), algorithm, &secret).map_err(unusable)
}
