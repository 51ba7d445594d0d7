//! Who is asking: tokens verified, identities sealed.
//!
//! The rules are plain Rust ([`jose`], [`seal`], [`tenant`]); the tables are read by [`issuers`] and [`verify`]; the
//! identity itself is kept by [`crate::pg`]. What stands here is the surface, thin.

mod audit;
mod directory;
mod epoch;
mod issuers;
#[allow(dead_code, unused_imports)] // signing is the tokens domain's
pub mod jose;
mod keys;
mod master_key;
pub mod permissions;
mod refusal;
mod request;
mod revocations;
pub mod seal;
mod tenant;
mod verify;

pub use audit::refused_api_key;
pub use directory::{belongs, resolve};
pub use issuers::{algorithm, find as find_issuer, invalid};
pub use master_key::KeyRing;
pub use revocations::is_revoked_now;
pub use tenant::Named;
pub use verify::{LONG_LIVED, claimed_org_role, sha256, still_good};

use crate::pg::metrics;
use crate::pg::sql::{self, Arg, Mode};
use crate::pg::{self, Columns, Error, Identity, Jsonb, Record, Sealable, State};
use pgrx::iter::TableIterator;
use pgrx::{JsonB, default, name, pg_extern, search_path};
use refusal::Failure;
use std::rc::Rc;

/// Makes the bearer of a token the transaction's identity and gives the user's external id. Writes nothing.
///
/// Errors: PT401 with the reason the token was refused; PT403 where its tenant is not its organization's, where its
/// bearer has left the organization of a token issued here, or where the transaction already has another identity;
/// 55000 where tables or master key are missing.
#[pg_extern(volatile, parallel_unsafe, security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn authenticate(token: Option<&str>) -> String {
    pg::entry(|| {
        pg::warn_outside_transaction("tenancy.authenticate");
        establish(token.filter(|token| !token.is_empty()).ok_or_else(missing_token)?, None)
    })
}

/// Authenticates the bearer of a request as PostgREST hands it on (`db-pre-request`); NULL without a token.
#[pg_extern(volatile, parallel_unsafe, security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn authenticate_request() -> Option<String> {
    pg::entry(|| {
        let headers = pg::client_setting(c"request.headers").unwrap_or_default();
        let request = request::read(&headers, &pg::request_token_header());
        match request.token.as_deref() {
            _ if request.is_ambiguous => Err(several_tokens()),
            None => Ok(None),
            Some("") => Err(missing_token()),
            Some(token) => establish(token, request.correlation_id).map(Some),
        }
    })
}

/// Verifies a token and seals its identity; a refusal is noted in the server's log.
fn establish(token: &str, correlation_id: Option<String>) -> pg::Result<String> {
    let began = std::time::Instant::now();
    let (bearer, fingerprint) = verify::bearer(token).inspect_err(|failure| {
        if let Failure::Refused(refusal) = failure {
            audit::refused(token, refusal);
        }
    })?;
    pg::seal(&bearer, correlation_id.as_deref(), fingerprint)?;
    let identity = bearer.identity();
    metrics::authenticated(&identity.tenant_id, began.elapsed().as_micros() as u64);
    Ok(identity.user_id.clone())
}

/// What [`verify_token`] says.
#[derive(Default)]
struct Verdict {
    valid: bool,
    reason: Option<String>,
    claims: Option<Jsonb>,
}

impl Columns for Verdict {
    fn columns(&self) -> impl AsRef<[Arg<'_>]> {
        [Arg::Bool(Some(self.valid)), Arg::Text(self.reason.as_deref()), Arg::Jsonb(self.claims.as_ref())]
    }
}

/// Says whether a token would be taken, why not, and what it claims if it would. Has no side effect.
#[pg_extern(sql = "CREATE FUNCTION verify_token(token text, OUT valid boolean, OUT reason text, OUT claims jsonb)
LANGUAGE c STABLE PARALLEL RESTRICTED SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';")]
fn verify_token(token: Option<&str>) -> Record<Verdict> {
    pg::entry(|| {
        let Some(token) = token.filter(|token| !token.is_empty()) else {
            crate::schema::require_installed()?;
            return Ok(Record(Verdict { reason: Some(missing_token().reason().to_owned()), ..Verdict::default() }));
        };
        match verify::claims(token) {
            Ok(claims) => Ok(Record(Verdict { valid: true, reason: None, claims })),
            Err(Failure::Refused(refusal)) => {
                Ok(Record(Verdict { reason: Some(refusal.reason().to_owned()), ..Verdict::default() }))
            }
            Err(Failure::Fault(error)) => Err(error),
        }
    })
}

/// Makes somebody the transaction's identity without a token: for workers and back offices.
///
/// The user need not be registered. Recorded in the audit log, with the login that asked and its reason.
#[pg_extern(volatile, parallel_unsafe, security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn act_as(
    user_id: Option<&str>,
    org_id: default!(Option<&str>, "NULL"),
    tenant_id: default!(Option<&str>, "NULL"),
    reason: default!(Option<&str>, "NULL"),
    namespace: default!(Option<&str>, "''"),
) -> String {
    pg::entry(|| {
        crate::schema::require_installed()?;
        pg::warn_outside_transaction("tenancy.act_as");
        sql::query_opt("SELECT tenancy._require_namespace($1)", &[Arg::Text(namespace)], Mode::Read, |_| Ok(()))?;
        let namespace = namespace.unwrap_or_default();
        let named = Named {
            namespace,
            user: id(user_id, "user_id")?.ok_or_else(|| required("user_id"))?,
            org: id(org_id, "org_id")?,
            tenant: id(tenant_id, "tenant_id")?,
        };
        let mut identity = resolve(&named)?;
        identity.source = "act_as".to_owned();
        let identity = Rc::new(Sealable::new(identity));
        let proof = serde_json::json!(["act_as", namespace, named.user, named.org, named.tenant]).to_string();
        pg::seal(&identity, None, verify::sha256(proof.as_bytes()))?;
        let correlation_id = pg::bearer().and_then(|bearer| bearer.correlation_id);
        let identity = identity.identity();
        sql::execute(
            "INSERT INTO tenancy.audit_log (tenant_id, action, user_id, org_id, namespace, reason, correlation_id) \
             VALUES ($1, 'act_as', $2, $3, $4, $5, $6)",
            &[
                identity.tenant_id.as_str().into(),
                identity.user_id.as_str().into(),
                Arg::Text(identity.org_id.as_deref()),
                namespace.into(),
                Arg::Text(reason),
                Arg::Text(correlation_id.as_deref()),
            ],
        )?;
        Ok(identity.user_id.clone())
    })
}

/// The headers that carry the identity to another service (contract H); NULL without a live identity.
#[pg_extern(stable, parallel_safe)]
fn identity_headers() -> Option<JsonB> {
    pg::entry(|| Ok(pg::current_value().map(|identity| JsonB(request::headers(&identity).into()))))
}

/// The tenant that something a service names belongs to; the rules of `act_as`, without an identity.
#[pg_extern(name = "_tenant_of", volatile)]
fn tenant_of(namespace: &str, user_id: &str, org_id: Option<&str>) -> String {
    pg::entry(|| {
        let (user, org) = (unreserved(user_id, "user_id")?, org_id.map(|id| unreserved(id, "org_id")).transpose()?);
        Ok(resolve(&Named { namespace, user, org, tenant: None })?.tenant_id)
    })
}

/// Leaves the transaction without an identity; true where it had one. It stays bound to the one it had: another is
/// refused until the transaction ends.
#[pg_extern(volatile, parallel_unsafe)]
fn clear_identity() -> bool {
    pg::entry(|| {
        let had_one = pg::current_value().is_some();
        pg::unseal();
        Ok(had_one)
    })
}

/// The verified claims of the token, whole; NULL without a live identity that came from a token.
#[pg_extern(stable, parallel_safe)]
fn claims() -> Option<Jsonb> {
    pg::entry(|| Ok(pg::current_value().and_then(|identity| Jsonb::parse(&identity.claims?))))
}

/// One verified claim as text; NULL where the token has none of that name.
#[pg_extern(stable, parallel_safe)]
fn claim(name: &str) -> Option<String> {
    pg::entry(|| {
        Ok(current_claims().and_then(|claims| match claims.get(name)? {
            serde_json::Value::Null => None,
            serde_json::Value::String(text) => Some(text.clone()),
            other => Some(other.to_string()),
        }))
    })
}

/// Whether the identity holds a permission, by its role or by its token; false without a live identity.
#[pg_extern(stable, parallel_safe)]
fn has_permission(permission: &str) -> bool {
    pg::entry(|| Ok(pg::current_value().is_some_and(|identity| permissions::holds(&identity, permission))))
}

/// The role in an organization that verified claims give, as a token's claims are read; NULL where they give none.
#[pg_extern(name = "_claimed_org_role", stable, parallel_restricted)]
fn sql_claimed_org_role(claims: &str, user_id: &str, org_id: &str) -> Option<String> {
    pg::entry(|| claimed_org_role(claims, user_id, org_id))
}

/// The identity's permissions, its role's and its token's; NULL without a live identity.
#[pg_extern(name = "_permissions", stable, parallel_safe)]
fn held_permissions() -> Option<Vec<String>> {
    pg::entry(|| Ok(pg::current_value().map(|identity| permissions::of_identity(&identity))))
}

/// How the identity was established, by which issuer and token; NULL without a live identity.
#[pg_extern(name = "_provenance", stable, parallel_safe)]
#[allow(clippy::type_complexity)]
fn provenance() -> TableIterator<
    'static,
    (name!(source, Option<String>), name!(issuer, Option<String>), name!(token_id, Option<String>)),
> {
    pg::entry(|| {
        let rows = pg::current_value().map(|identity| (Some(identity.source), identity.issuer, identity.token_id));
        Ok(TableIterator::new(rows))
    })
}

fn current_claims() -> Option<serde_json::Value> {
    let identity: Identity = pg::current_value()?;
    serde_json::from_str(&identity.claims?).ok()
}

fn missing_token() -> Error {
    Error::new(State::UNAUTHENTICATED, "missing_token", "Not authenticated: there is no token")
        .hint("Pass the bearer's token, without the word Bearer.")
}

fn several_tokens() -> Error {
    Error::new(State::UNAUTHENTICATED, "several_tokens", "Not authenticated: the header with the token came twice")
        .hint("Send it once.")
}

fn required(parameter: &'static str) -> Error {
    issuers::invalid(parameter, "invalid_argument", format!("{parameter} must not be NULL"))
}

/// An external id as an argument: NULL is none, an empty or malformed one is refused.
fn id<'a>(value: Option<&'a str>, parameter: &'static str) -> pg::Result<Option<&'a str>> {
    match value {
        Some(text) if !jose::claims::is_id(text) => Err(issuers::invalid(
            parameter,
            "invalid_argument",
            format!("{parameter} must be 1 to 255 characters without control characters or white space around them"),
        )),
        Some(text) => unreserved(text, parameter).map(Some),
        None => Ok(None),
    }
}

/// An id that somebody passed, not one that a token brought: what separates namespaces in it is their mistake.
fn unreserved<'a>(id: &'a str, parameter: &'static str) -> pg::Result<&'a str> {
    if id.contains("::") {
        return Err(issuers::invalid(parameter, "reserved_id", format!("{parameter} must not contain \"::\"")));
    }
    Ok(id)
}
