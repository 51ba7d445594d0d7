//! Which tenant an identity belongs to (design §3), from the token's claims and what the directory knows.

use super::refusal::Refusal;

/// What the directory knows that bears on the tenant.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// The tenant the organization is registered with.
    pub org_tenant: Option<String>,
    /// Its status.
    pub org_tenant_status: Option<String>,
    /// Whether the tenant that the claims alone would give is registered.
    pub candidate_registered: bool,
    /// Its status, where it is.
    pub candidate_status: Option<String>,
}

/// A subject's ids, external, as a token or a service gave them.
#[derive(Clone, Copy, Debug)]
pub struct Named<'a> {
    /// The issuer's namespace.
    pub namespace: &'a str,
    /// The user.
    pub user: &'a str,
    /// The organization acted for.
    pub org: Option<&'a str>,
    /// The tenant claimed.
    pub tenant: Option<&'a str>,
}

impl Named<'_> {
    /// Refuses ids that could pass for another namespace's.
    pub fn check(&self) -> Result<(), Refusal> {
        let reserved = |id: &str| id.contains("::");
        if reserved(self.user) {
            return Err(Refusal::ReservedId("sub"));
        }
        if self.org.is_some_and(reserved) {
            return Err(Refusal::ReservedId("org"));
        }
        if self.tenant.is_some_and(reserved) {
            return Err(Refusal::ReservedId("tenant"));
        }
        Ok(())
    }

    /// The tenant by the names alone: the claimed one, else the organization's id, else the user's own.
    pub fn candidate(&self) -> String {
        match self.tenant.or(self.org) {
            Some(id) => self.qualified(id),
            None => self.qualified(&format!("user::{}", self.user)),
        }
    }

    /// The tenant.
    pub fn resolve(&self, facts: &Facts) -> Result<String, Refusal> {
        self.check()?;
        let suspended = |status: &Option<String>| status.as_deref() == Some("suspended");
        if let Some(registered) = &facts.org_tenant {
            if self.tenant.is_some_and(|claimed| self.qualified(claimed) != *registered) {
                return Err(Refusal::TenantMismatch);
            }
            if suspended(&facts.org_tenant_status) {
                return Err(Refusal::TenantSuspended);
            }
            return Ok(registered.clone());
        }
        let derived_from_org = self.tenant.is_none() && self.org.is_some();
        if derived_from_org && facts.candidate_registered {
            return Err(Refusal::TenantTaken);
        }
        if suspended(&facts.candidate_status) {
            return Err(Refusal::TenantSuspended);
        }
        Ok(self.candidate())
    }

    fn qualified(&self, id: &str) -> String {
        if self.namespace.is_empty() { id.to_owned() } else { format!("{}::{id}", self.namespace) }
    }
}

#[cfg(test)]
mod tests {
    use super::{Facts, Named, Refusal};

    const NAMED: Named = Named { namespace: "", user: "u", org: None, tenant: None };

    fn facts(org_tenant: Option<&str>, candidate_registered: bool) -> Facts {
        Facts {
            org_tenant: org_tenant.map(str::to_owned),
            org_tenant_status: org_tenant.map(|_| "active".to_owned()),
            candidate_registered,
            candidate_status: candidate_registered.then(|| "active".to_owned()),
        }
    }

    #[test]
    fn the_tenant_is_the_claim_the_organization_s_or_the_user_s_own() {
        let unknown = Facts::default();
        assert_eq!(NAMED.resolve(&unknown).unwrap(), "user::u");
        assert_eq!(Named { org: Some("o"), ..NAMED }.resolve(&unknown).unwrap(), "o");
        assert_eq!(Named { org: Some("o"), tenant: Some("t"), ..NAMED }.resolve(&unknown).unwrap(), "t");
        assert_eq!(Named { org: Some("o"), ..NAMED }.resolve(&facts(Some("t"), false)).unwrap(), "t");
        assert_eq!(Named { tenant: Some("t"), ..NAMED }.resolve(&facts(None, true)).unwrap(), "t");
    }

    #[test]
    fn a_namespace_stands_before_every_tenant_of_its_own() {
        let named = Named { namespace: "n", ..NAMED };
        let unknown = Facts::default();
        assert_eq!(named.resolve(&unknown).unwrap(), "n::user::u");
        assert_eq!(Named { org: Some("o"), ..named }.resolve(&unknown).unwrap(), "n::o");
        assert_eq!(Named { org: Some("o"), ..named }.resolve(&facts(Some("n::t"), false)).unwrap(), "n::t");
    }

    #[test]
    fn a_tenant_cannot_be_claimed_by_name() {
        let org = Named { org: Some("o"), ..NAMED };
        assert_eq!(org.resolve(&facts(None, true)), Err(Refusal::TenantTaken));
        let claimed = Named { tenant: Some("x"), ..org };
        assert_eq!(claimed.resolve(&facts(Some("t"), true)), Err(Refusal::TenantMismatch));
        for (named, at) in [
            (Named { user: "n::u", ..NAMED }, "sub"),
            (Named { org: Some("n::o"), ..NAMED }, "org"),
            (Named { tenant: Some("n::t"), ..NAMED }, "tenant"),
        ] {
            assert_eq!(named.resolve(&Facts::default()), Err(Refusal::ReservedId(at)));
        }
    }

    #[test]
    fn a_suspended_tenant_lets_nobody_in() {
        let mut known = facts(Some("t"), false);
        known.org_tenant_status = Some("suspended".to_owned());
        assert_eq!(Named { org: Some("o"), ..NAMED }.resolve(&known), Err(Refusal::TenantSuspended));
        let mut candidate = facts(None, true);
        candidate.candidate_status = Some("suspended".to_owned());
        assert_eq!(Named { tenant: Some("t"), ..NAMED }.resolve(&candidate), Err(Refusal::TenantSuspended));
    }
}
