//! Why an identity was refused, for the caller: a word, a sentence, and nothing of the token.

use super::jose::Reason;
use crate::pg::{Error, State};

/// A refusal of a token or of what it claims. An outcome, not a fault of the installation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The token itself is at fault.
    Token(Reason),
    /// `iss` is not configured.
    UnknownIssuer,
    /// No usable key of the issuer has this kid.
    UnknownKey,
    /// The token names no kid, and the issuer has not exactly one usable key of its algorithm.
    AmbiguousKey,
    /// The issuer's configuration does not allow the algorithm.
    AlgorithmNotAllowed,
    /// The token, its session or its user was revoked.
    Revoked,
    /// A long-lived token of ours, without the row that issuing it leaves.
    NotIssued,
    /// An id holds `::`, which separates namespaces.
    ReservedId(&'static str),
    /// The token's tenant is not the one its organization is registered with.
    TenantMismatch,
    /// The tenant derived from the organization's id is somebody else's.
    TenantTaken,
    /// The tenant is suspended.
    TenantSuspended,
    /// A token issued here names an organization that its bearer has left.
    NotAMember,
}

impl Refusal {
    /// The stable name, for DETAIL's `"reason"`.
    pub fn reason(&self) -> &'static str {
        match self {
            Refusal::Token(reason) => reason.name(),
            Refusal::UnknownIssuer => "unknown_issuer",
            Refusal::UnknownKey => "unknown_key",
            Refusal::AmbiguousKey => "kid_required",
            Refusal::AlgorithmNotAllowed => "algorithm_not_allowed",
            Refusal::Revoked => "revoked",
            Refusal::NotIssued => "not_issued",
            Refusal::ReservedId(_) => "reserved_id",
            Refusal::TenantMismatch => "tenant_mismatch",
            Refusal::TenantTaken => "tenant_taken",
            Refusal::TenantSuspended => "tenant_suspended",
            Refusal::NotAMember => "not_a_member",
        }
    }

    fn message(&self) -> String {
        match self {
            Refusal::Token(reason) => reason.to_string(),
            Refusal::UnknownIssuer => "the token's issuer is not configured here".to_owned(),
            Refusal::UnknownKey => "the issuer has no usable key of this id".to_owned(),
            Refusal::AmbiguousKey => "the token names no key, and the issuer has not exactly one".to_owned(),
            Refusal::AlgorithmNotAllowed => "the issuer may not use this algorithm".to_owned(),
            Refusal::Revoked => "the token has been revoked".to_owned(),
            Refusal::NotIssued => "the transaction that issued the token was not committed".to_owned(),
            Refusal::ReservedId(name) => format!("{name} holds \"::\""),
            Refusal::TenantMismatch => "the token's tenant is not its organization's".to_owned(),
            Refusal::TenantTaken => "the organization does not belong to the tenant of its name".to_owned(),
            Refusal::TenantSuspended => "the tenant is suspended".to_owned(),
            Refusal::NotAMember => "the bearer has left the token's organization".to_owned(),
        }
    }

    fn hint(&self) -> &'static str {
        match self {
            Refusal::Token(Reason::Expired) | Refusal::Revoked => "Ask the user to sign in again.",
            Refusal::NotIssued => "Issue another, and commit. A standby knows the token when it has caught up.",
            Refusal::UnknownIssuer => "Add it: SELECT tenancy.add_issuer(…).",
            Refusal::UnknownKey => "Bring its keys up to date: SELECT tenancy.set_jwks(…) or tenancy.add_key(…).",
            Refusal::AmbiguousKey => "Let the issuer name the key in the header's kid.",
            Refusal::AlgorithmNotAllowed => "Allow it in tenancy.add_issuer(algorithms => …) if it is meant.",
            Refusal::ReservedId(_) => "\"::\" separates a namespace from an id and may not be part of one.",
            Refusal::TenantMismatch => "Compare the token's tenant claim with tenancy.organizations.tenant_id.",
            Refusal::TenantTaken => {
                "Register the organization with its tenant: SELECT tenancy.register_organization(…, tenant_id => …)."
            }
            Refusal::TenantSuspended => "Ask the operator of the service.",
            Refusal::NotAMember => "Ask the user to sign in again; the new token is for an organization they are in.",
            Refusal::Token(_) => "SELECT * FROM tenancy.verify_token(token) tells what is wrong with it.",
        }
    }

    fn state(&self) -> State {
        match self {
            Refusal::TenantMismatch | Refusal::TenantTaken | Refusal::TenantSuspended | Refusal::NotAMember => {
                State::FORBIDDEN
            }
            _ => State::UNAUTHENTICATED,
        }
    }
}

impl From<Reason> for Refusal {
    fn from(reason: Reason) -> Self {
        Refusal::Token(reason)
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        let error = Error::new(refusal.state(), refusal.reason(), format!("Not authenticated: {}", refusal.message()))
            .hint(refusal.hint());
        match &refusal {
            Refusal::Token(reason) => match reason.claim() {
                Some(claim) => error.detail("claim", claim),
                None => error,
            },
            Refusal::ReservedId(name) => error.detail("claim", *name),
            _ => error,
        }
    }
}

/// What a verification ends with when it does not end well: a refusal, or a fault of the installation.
#[derive(Debug)]
pub enum Failure {
    /// The token is refused.
    Refused(Refusal),
    /// The database could not judge it: tables or master key missing.
    Fault(Error),
}

impl<R: Into<Refusal>> From<R> for Failure {
    fn from(refusal: R) -> Self {
        Failure::Refused(refusal.into())
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Fault(error)
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Refused(refusal) => refusal.into(),
            Failure::Fault(error) => error,
        }
    }
}
